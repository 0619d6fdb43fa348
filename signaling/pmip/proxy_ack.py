"""The Proxy Binding Acknowledgement an LMA answers with, by the echo rules of RFC 5213 5.3.6 and its additions.

In an answer always: MN-ID, HI, ATT. Only if the update had them: MN-LL-ID, link-local address, timestamp, IPv4 reply,
delegated prefixes, flows, GRE key. Where nothing changed the options of the update are the options of the answer.
"""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Network

from signaling.iana import (
    BindingAckFlag,
    Ipv4HomeAddressStatus,
    MobileNodeIdentifierSubtype,
    Status,
)
from signaling.pmip.mobility_session import MobilitySession
from signaling.pmip.registration_request import FORCED_UDP, RegistrationRequest, key_of
from signaling.update_request import ALL_ZERO, MAX_ECHOED
from signaling.wire.binding_ack import BindingAck
from signaling.wire.options.access import AccessTechnologyTypeOption, HandoffIndicatorOption, LinkLocalAddress
from signaling.wire.options.flow import FlowIdentification
from signaling.wire.options.identity import MobileNodeIdentifier, MobileNodeLinkLayerIdentifier
from signaling.wire.options.ipv4 import Ipv4DefaultRouterAddress, Ipv4HomeAddressReply, Ipv4HomeAddressRequest
from signaling.wire.options.multipath import MagMultipathBinding
from signaling.wire.options.option import Option
from signaling.wire.options.prefix import DelegatedMobileNetworkPrefix, HomeNetworkPrefix
from signaling.wire.options.time import Timestamp
from signaling.wire.options.tunnel import GreKey, NatDetection

ANYBODY = MobileNodeIdentifier(subtype=MobileNodeIdentifierSubtype.NAI, identifier=b"")  # RFC 5213 5.3.6
NO_HANDOFF = HandoffIndicatorOption(indicator=0)
NO_TECHNOLOGY = AccessTechnologyTypeOption(technology=0)
ONE_WANTED = HomeNetworkPrefix(prefix=ALL_ZERO)
ABOUT_TIME = frozenset({Status.TIMESTAMP_MISMATCH, Status.TIMESTAMP_LOWER_THAN_PREV_ACCEPTED})
MAX_ECHOED_FLOWS = 32
NAT_KEEPALIVE = 110  # s, NATKATIMEOUT, RFC 5555 6
PROXY = BindingAckFlag.PROXY_REGISTRATION


@dataclass(slots=True)
class Granted:
    """What an accepted update got, as far as the answer has to say it."""

    session: MobilitySession
    subnet_length: int = 0  # of its IPv4 home address
    default_router: IPv4Address | None = None
    flows: tuple[FlowIdentification, ...] = ()
    gre: GreKey | None = None
    handoff: bool = False  # it has come from another MAG


def accepting(
    request: RegistrationRequest, status: Status, lifetime: int, granted: Granted
) -> BindingAck:
    """The answer to an update that was accepted."""
    session = granted.session
    options = _identity(request)
    options += _prefixes(request, session.prefixes) if request.prefix_options else ()
    options += _access(request)
    if LinkLocalAddress in request.found and session.link_local is not None:
        options.append(LinkLocalAddress(address=session.link_local))
    if request.timestamp is not None:
        options.append(request.found[Timestamp])  # an accepted value comes back as it was (RFC 5213 5.5)
    if request.asks_ipv4:
        options += _ipv4_granted(session.ipv4_home, granted)
    if request.delegations or granted.handoff:  # a MAG that does not know of them would not forward them
        options += [DelegatedMobileNetworkPrefix(prefix=prefix) for prefix in session.delegated]
    if granted.gre is not None:
        options.append(granted.gre)
    if request.in_udp:
        # the MAG could not know otherwise that there is a NAT, or that it was granted (only implied by RFC 5844 4.2.2)
        options.append(NatDetection(force_udp=request.has_flag(FORCED_UDP), refresh_time=NAT_KEEPALIVE))
    options += granted.flows[:MAX_ECHOED_FLOWS]
    if request.multipath is not None:
        options.append(request.multipath)
    return _ack(request, status, lifetime, options)


def refusing(
    request: RegistrationRequest,
    status: Status,
    *,
    our_timestamp: int,
    ipv4_status: Ipv4HomeAddressStatus | None = None,
    last_sequence_number: int | None = None,
) -> BindingAck:
    """The answer to an update that was refused. Nothing was changed, and it says back what was asked."""
    options = _identity(request)
    options += request.prefix_options[:MAX_ECHOED] if request.prefix_options or request.asks_ipv4 else (ONE_WANTED,)
    options += _access(request)
    link_local = request.get(LinkLocalAddress)
    if link_local is not None:
        options.append(link_local)
    if request.timestamp is not None:
        # a refused time is answered with our clock (RFC 5213 5.5)
        options.append(Timestamp(value=our_timestamp) if status in ABOUT_TIME else request.found[Timestamp])
    wanted = request.get(Ipv4HomeAddressRequest)
    if wanted is not None:
        refused = ipv4_status or Ipv4HomeAddressStatus.REASON_UNSPECIFIED
        options.append(
            Ipv4HomeAddressReply(status=refused, address=wanted.address, prefix_length=wanted.prefix_length)
        )
    multipath = request.get(MagMultipathBinding)
    if multipath is not None:
        options.append(multipath)  # RFC 8278 4.4
    stale = status is Status.SEQUENCE_NUMBER_OUT_OF_WINDOW and last_sequence_number is not None
    number = last_sequence_number if stale else None
    return _ack(request, status, 0, options, sequence_number=number)


def _ack(
    request: RegistrationRequest,
    status: Status,
    lifetime: int,
    options: list[Option],
    *,
    sequence_number: int | None = None,
) -> BindingAck:
    return BindingAck(
        status=status,
        flags=PROXY,
        sequence_number=request.update.sequence_number if sequence_number is None else sequence_number,
        lifetime=lifetime,
        options=tuple(options),
    )


def _identity(request: RegistrationRequest) -> list[Option]:
    return [request.found.get(MobileNodeIdentifier, ANYBODY)]


def _access(request: RegistrationRequest) -> list[Option]:
    found = request.found
    options = [
        found.get(HandoffIndicatorOption, NO_HANDOFF),
        found.get(AccessTechnologyTypeOption, NO_TECHNOLOGY),
    ]
    interface = found.get(MobileNodeLinkLayerIdentifier)
    if interface is not None:
        options.append(interface)
    return options


def _prefixes(request: RegistrationRequest, prefixes: tuple[IPv6Network, ...]) -> list[HomeNetworkPrefix]:
    asked = request.prefix_options
    if len(asked) == len(prefixes) == len(request.keys) and request.keys == [key_of(it) for it in prefixes]:
        return asked
    return [HomeNetworkPrefix(prefix=prefix) for prefix in prefixes[:MAX_ECHOED]]


def _ipv4_granted(address: IPv4Address | None, granted: Granted) -> list[Option]:
    if address is None:
        refused = Ipv4HomeAddressStatus.REASON_UNSPECIFIED
        return [Ipv4HomeAddressReply(status=refused, address=IPv4Address(0), prefix_length=0)]
    options: list[Option] = [
        Ipv4HomeAddressReply(
            status=Ipv4HomeAddressStatus.SUCCESS, address=address, prefix_length=granted.subnet_length
        )
    ]
    if granted.default_router is not None:
        options.append(Ipv4DefaultRouterAddress(address=granted.default_router))
    return options
