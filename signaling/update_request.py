"""What a Proxy Binding Update asks for, read out of its options once; and the acknowledgement that answers it.

A missing option and a broken one are the same to the checks (`None`), except where an RFC or its spirit says else.
"""

from collections import Counter
from dataclasses import dataclass
from ipaddress import IPv6Network

from signaling.dma.binding_cache import Entry
from signaling.iana import (
    BindingAckFlag,
    HandoffIndicator,
    MobileNodeIdentifierSubtype,
    OptionType,
    Status,
)
from signaling.settings import Address
from signaling.wire.binding_ack import BindingAck
from signaling.wire.binding_update import BindingUpdate
from signaling.wire.message import Message
from signaling.wire.options.access import AccessTechnologyTypeOption, HandoffIndicatorOption, LinkLocalAddress
from signaling.wire.options.care_of import AlternateCareOfAddress
from signaling.wire.options.identity import MobileNodeIdentifier, MobileNodeLinkLayerIdentifier
from signaling.wire.options.option import Option
from signaling.wire.options.prefix import HomeNetworkPrefix
from signaling.wire.options.time import Timestamp

ALL_ZERO = IPv6Network("::/0")
HNP_LENGTH = 18  # octets, RFC 5213 8.3
MAY_REPEAT = {
    OptionType.HOME_NETWORK_PREFIX,  # RFC 5213 8.1
    OptionType.FLOW_IDENTIFICATION,  # RFC 6089 4.2
    OptionType.ANCHORED_PREFIX,  # RFC 8885 4.2
    OptionType.VENDOR_SPECIFIC,
}
ANY_INTERFACE = {
    HandoffIndicator.HANDOFF_BETWEEN_TWO_DIFFERENT_INTERFACES,
    HandoffIndicator.ATTACHMENT_OVER_A_NEW_INTERFACE_SHARING_PREFIXES,
}
KNOWN = frozenset(OptionType)
SUBJECT = {OptionType.MOBILE_NODE_IDENTIFIER, OptionType.HOME_NETWORK_PREFIX}
MAX_ECHOED = 16  # prefixes of one update that an acknowledgement repeats: it must fit in 2048 octets, padding and all


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateRequest:
    """A PBU as the anchor reads it."""

    update: BindingUpdate
    source: Address  # where it came from, and where the answer goes
    port: int  # its UDP source port, 0 over protocol 135
    node: str  # "" when the identifier is missing
    care_of: Address  # the Proxy-CoA: the source, or the Alternate Care-of Address
    requested: tuple[IPv6Network, ...]  # every HNP option, with ALL_ZERO ones
    prefixes: tuple[IPv6Network, ...]  # those that name a prefix
    handoff: int
    technology: int
    link_layer: bytes | None
    ordered: bool  # somebody wants the prefix there, whichever interface it was given to: each has the L flag
    timestamp: int | None  # 1/65536 s since 1970
    impossible_prefix: bool  # an HNP option of the right length that names no prefix
    ill_formed: bool  # an option twice, or a broken timestamp

    @classmethod
    def of(cls, update: BindingUpdate, source: Address, port: int = 0) -> "UpdateRequest":
        """Read an update that came from this address."""
        homes = update.options_of(HomeNetworkPrefix)
        handoff = update.option(HandoffIndicatorOption)
        technology = update.option(AccessTechnologyTypeOption)
        link_layer = update.option(MobileNodeLinkLayerIdentifier)
        timestamp = update.option(Timestamp)
        return cls(
            update=update,
            source=source,
            port=port,
            node=node_of(update),
            care_of=care_of_address(update, source),
            requested=tuple(option.prefix for option in homes),
            prefixes=prefixes_of(update),
            handoff=handoff.indicator if handoff else 0,
            technology=technology.technology if technology else 0,
            link_layer=link_layer.identifier if link_layer else None,
            ordered=all(option.off_link for option in homes),
            timestamp=timestamp.value if timestamp else None,
            impossible_prefix=any(
                len(option.data) == HNP_LENGTH for option in update.malformed(OptionType.HOME_NETWORK_PREFIX)
            ),
            ill_formed=_ill_formed(update),
        )

    def has(self, kind: type[Option]) -> bool:
        """Whether the update carries such an option, and an intact one."""
        return self.update.option(kind) is not None

    def is_about(self, entry: Entry) -> bool:
        """Whether it updates this entry, whose prefix and node it names (RFC 5213 5.4.1.1-5)."""
        same_technology = self.technology == entry.technology
        if self.handoff in ANY_INTERFACE or self.care_of in entry.sharers:
            return True
        if same_technology and self.care_of == entry.care_of:
            return True
        if self.link_layer is not None:
            return same_technology and self.link_layer in (entry.link_layer, entry.lent_to)
        same_interface = self.handoff == HandoffIndicator.HANDOFF_BETWEEN_MAGS_FOR_THE_SAME_INTERFACE
        return same_technology and not any(entry.link_layer) and same_interface


def node_of(message: Message) -> str:
    """The MN-Identifier as text, "" when it is missing: an NAI as it is, any other kind as number and hex digits."""
    option = message.option(MobileNodeIdentifier)
    return "" if option is None else name_of(option)


def name_of(option: MobileNodeIdentifier) -> str:
    """A MN-Identifier as text: an NAI as it is, any other kind as number and hex digits."""
    text = option.identifier.decode("utf-8", "replace")
    if option.subtype == MobileNodeIdentifierSubtype.NAI and text.isprintable() and "\ufffd" not in text:
        return text
    return f"{int(option.subtype)}:{option.identifier.hex()}"


def identifier_of(node: str) -> MobileNodeIdentifier:
    """The option that names a node of ours; ours have NAIs."""
    return MobileNodeIdentifier(subtype=MobileNodeIdentifierSubtype.NAI, identifier=node.encode())


def care_of_address(update: BindingUpdate, source: Address) -> Address:
    """The Proxy-CoA of an update (RFC 5213 6.9.1.5)."""
    alternate = update.option(AlternateCareOfAddress)
    return alternate.address if alternate else source


def prefixes_of(message: Message) -> tuple[IPv6Network, ...]:
    """The home network prefixes that a message names; those that ask for one left out."""
    return tuple(option.prefix for option in message.options_of(HomeNetworkPrefix) if not option.all_zero)


def subject_of(message: Message) -> tuple[Option, ...]:
    """The node and the prefixes that a message is about, as the options that an answer repeats."""
    return tuple(option for option in message.options if option.number in SUBJECT)


def _ill_formed(update: BindingUpdate) -> bool:
    times = Counter(option.number for option in update.options)
    twice = any(count > 1 for kind, count in times.items() if kind in KNOWN and kind not in MAY_REPEAT)
    return twice or bool(update.malformed(OptionType.TIMESTAMP))


def acknowledgement(
    request: UpdateRequest,
    status: Status,
    *,
    our_timestamp: int,
    lifetime: int = 0,
    prefixes: tuple[IPv6Network, ...] | None = None,
    last_sequence_number: int | None = None,
    answers: tuple[Option, ...] = (),
) -> BindingAck:
    """The PBA for a request, by the echo rules of RFC 5213 5.3.6.

    prefixes: None: as asked for. answers: to further options of it.
    """
    update = request.update
    prefixes = request.requested if prefixes is None else prefixes
    options: list[Option] = [update.option(MobileNodeIdentifier) or identifier_of("")]
    options += [HomeNetworkPrefix(prefix=prefix) for prefix in prefixes[:MAX_ECHOED] or (ALL_ZERO,)]
    options.append(HandoffIndicatorOption(indicator=request.handoff))
    options.append(AccessTechnologyTypeOption(technology=request.technology))
    echoed = update.option(MobileNodeLinkLayerIdentifier), update.option(LinkLocalAddress)
    options += [option for option in echoed if option is not None]
    if request.timestamp is not None:
        # an accepted value comes back as it was; a refused one is answered with our clock (RFC 5213 5.5)
        about_time = status in (Status.TIMESTAMP_MISMATCH, Status.TIMESTAMP_LOWER_THAN_PREV_ACCEPTED)
        options.append(Timestamp(value=our_timestamp if about_time else request.timestamp))
    out_of_window = status is Status.SEQUENCE_NUMBER_OUT_OF_WINDOW and last_sequence_number is not None
    return BindingAck(
        status=status,
        flags=BindingAckFlag.PROXY_REGISTRATION,
        sequence_number=last_sequence_number if out_of_window else update.sequence_number,  # type: ignore[arg-type]
        lifetime=lifetime,
        options=(*options, *answers),
    )
