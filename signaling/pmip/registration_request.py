"""What a Proxy Binding Update asks an LMA for, read out of its options in one walk.

A missing option and a broken one are the same to the checks, except where an RFC or its spirit says else. This is read
for every refresh of every session, so it is a plain class that fills its slots once and is not changed afterwards.
"""

from typing import TypeVar

from signaling.iana import BindingUpdateFlag, OptionType
from signaling.settings import Address, Prefix
from signaling.update_request import HNP_LENGTH, KNOWN, name_of
from signaling.wire.binding_update import BindingUpdate
from signaling.wire.options.access import AccessTechnologyTypeOption, HandoffIndicatorOption
from signaling.wire.options.care_of import AlternateCareOfAddress, Ipv4CareOfAddress
from signaling.wire.options.flow import FlowIdentification, FlowSummary
from signaling.wire.options.identity import MagIdentifier, MobileNodeIdentifier, MobileNodeLinkLayerIdentifier
from signaling.wire.options.ipv4 import Ipv4HomeAddressRequest
from signaling.wire.options.multipath import MagMultipathBinding
from signaling.wire.options.option import MalformedOption, Option
from signaling.wire.options.prefix import DelegatedMobileNetworkPrefix, HomeNetworkPrefix
from signaling.wire.options.time import Timestamp

Kind = TypeVar("Kind", bound=Option)

MAY_REPEAT = frozenset(
    {
        OptionType.HOME_NETWORK_PREFIX,  # RFC 5213 8.1, as the next
        OptionType.VENDOR_SPECIFIC,
        OptionType.IPV4_HOME_ADDRESS_REQUEST,  # has a status of its own: 173
        OptionType.DELEGATED_MOBILE_NETWORK_PREFIX,  # one for each family, RFC 7148 4.1
        OptionType.FLOW_IDENTIFICATION,  # RFC 6089 4.2
        OptionType.FLOW_SUMMARY,
        OptionType.BINDING_IDENTIFIER,  # RFC 5648 4.3
    }
)
FORCED_UDP = int(BindingUpdateFlag.FORCING_UDP_ENCAPSULATION)  # a plain number, as in the checks
PREFIX_BITS = 8  # of a key: enough for a prefix length


def key_of(prefix: Prefix) -> int:
    """A prefix as one number, for dictionaries: hashing and comparing the object costs ten times as much."""
    return int(prefix.network_address) << PREFIX_BITS | prefix.prefixlen


class RegistrationRequest:
    """A PBU as the LMA reads it. gateway: name of the peer that signed it, "" when no such peer is configured."""

    __slots__ = (
        "care_of",
        "flags",
        "found",
        "gateway",
        "handoff",
        "ill_formed",
        "impossible_prefix",
        "keys",
        "link_layer",
        "local",
        "multipath",
        "node",
        "octets",
        "port",
        "prefix_options",
        "source",
        "speaks_of_flows",
        "technology",
        "timestamp",
        "update",
    )

    def __init__(
        self,
        update: BindingUpdate,
        source: Address,
        gateway: str,
        *,
        local: Address | None = None,
        port: int = 0,
        octets: bytes = b"",
    ) -> None:
        self.update = update
        self.flags = int(update.flags)
        self.source = source  # where it came from, and where the answer goes
        self.gateway = gateway
        self.local = local  # address of ours it was sent to; None: the one address of this router
        self.octets = octets  # it was read from
        self.port = port  # its UDP source port, 0 over protocol 135
        self.found: dict[type[Option], Option] = {}  # the first well-formed option of each class
        self.prefix_options: list[HomeNetworkPrefix] = []
        self.ill_formed = False  # an option twice, or a broken timestamp
        self.speaks_of_flows = False  # it has a flow option, well-formed or not
        self.impossible_prefix = False  # an HNP option of the right length that names no prefix
        self._walk(update.options)
        get = self.get
        identifier = get(MobileNodeIdentifier)
        self.node = name_of(identifier) if identifier is not None else ""
        alternate = get(AlternateCareOfAddress)
        self.care_of = source if alternate is None else alternate.address  # the Proxy-CoA (RFC 5213 6.9.1.5)
        self.keys = [key_of(option.prefix) for option in self.prefix_options if not option.all_zero]
        handoff = get(HandoffIndicatorOption)
        self.handoff = handoff.indicator if handoff is not None else 0
        technology = get(AccessTechnologyTypeOption)
        self.technology = technology.technology if technology is not None else 0
        interface = get(MobileNodeLinkLayerIdentifier)
        # all zero is not valid (RFC 5213 6.9.1.1-7) and means what a missing one means
        self.link_layer = interface.identifier if interface is not None and any(interface.identifier) else b""
        timestamp = get(Timestamp)
        self.timestamp = timestamp.value if timestamp is not None else None  # 1/65536 s since 1970
        multipath = get(MagMultipathBinding)
        # without a MAG Identifier it is a request for one path, from a sender that does not know better
        self.multipath = multipath if multipath is not None and MagIdentifier in self.found else None

    def get(self, kind: type[Kind]) -> Kind | None:
        """The first well-formed option of this class."""
        return self.found.get(kind)  # type: ignore[return-value]

    def all(self, kind: type[Kind]) -> tuple[Kind, ...]:
        """Every well-formed option of this class, in wire order."""
        return self.update.options_of(kind) if kind in self.found else ()

    @property
    def asks_ipv6(self) -> bool:
        """Whether it has a home network prefix option, with a prefix or without."""
        return bool(self.prefix_options)

    @property
    def asks_ipv4(self) -> bool:
        """Whether it has an IPv4 home address request."""
        return Ipv4HomeAddressRequest in self.found

    @property
    def ipv4_key(self) -> int:
        """The IPv4 home address it names, as a number; 0: none."""
        option = self.get(Ipv4HomeAddressRequest)
        return int(option.address) if option is not None else 0

    @property
    def prefixes_wanted(self) -> bool:
        """Whether it asks for a home network prefix to be chosen."""
        return len(self.keys) < len(self.prefix_options)

    @property
    def behind_nat(self) -> bool:
        """Whether its sender has another IPv4 address than it comes from."""
        option = self.get(Ipv4CareOfAddress)
        return option is not None and self.source.version == 4 and option.address != self.source

    @property
    def in_udp(self) -> bool:
        """Whether tunnels have to be in UDP: because of a NAT, or because the sender wants it so (RFC 5844 4.1.3.1)."""
        return self.source.version == 4 and (self.has_flag(FORCED_UDP) or self.behind_nat)

    @property
    def delegations(self) -> tuple[DelegatedMobileNetworkPrefix, ...]:
        """Its delegated prefix options."""
        return self.all(DelegatedMobileNetworkPrefix)

    @property
    def binding_id(self) -> int:
        """BID of its path; 0: it speaks of one path only."""
        return self.multipath.binding_id if self.multipath is not None else 0

    def has_flag(self, flag: int) -> bool:
        """Whether the update carries this BindingUpdateFlag."""
        return self.flags & flag != 0

    def wants(self, flag: int) -> bool:
        """Whether its multipath binding carries this MultipathBindingFlag (RFC 8278 4.1)."""
        return self.multipath is not None and int(self.multipath.flags) & flag != 0

    def _walk(self, options: tuple[Option, ...]) -> None:
        found = self.found
        for option in options:
            kind = type(option)
            if kind is HomeNetworkPrefix:
                self.prefix_options.append(option)  # type: ignore[arg-type]
            if kind not in found:
                found[kind] = option
                if kind is FlowIdentification or kind is FlowSummary:
                    self.speaks_of_flows = True
            elif option.number in KNOWN and option.number not in MAY_REPEAT:
                self.ill_formed = True  # RFC 5213 8.1 forbids it and names no status
        if MalformedOption in found:
            for broken in self.update.malformed():
                self._note_malformed(broken)

    def _note_malformed(self, option: MalformedOption) -> None:
        if option.type == OptionType.TIMESTAMP:
            self.ill_formed = True
        elif option.type == OptionType.FLOW_IDENTIFICATION:
            self.speaks_of_flows = True
        elif option.type == OptionType.HOME_NETWORK_PREFIX and len(option.data) == HNP_LENGTH:
            self.impossible_prefix = True
