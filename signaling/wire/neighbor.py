"""The door of ICMPv6 on access links: RS, RA, NS, NA and their options (RFC 4861 4), MLD, echo, errors.

    0               1               2               4
    |     Type      |     Code      |   Checksum    | fixed part, options: type, length in 8 octets, data

Every rule of RFC 4861 6.1 and 7.1 is checked here, so what comes out has been sent on this very link. Options
with broken content inside their frame are MalformedOption, to be skipped; a length of 0 spoils the message.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from ipaddress import IPv6Address, IPv6Network
from typing import ClassVar, Final, Self

from signaling.errors import MalformedMessage, Reason, UnencodableMessage
from signaling.iana import Icmpv6Type, NdOption, ProtocolNumber, RouterPreference
from signaling.wire.codec import (
    IPV6,
    IPV6_ADDRESSES,
    NUMBER,
    OCTETS,
    SECONDS,
    SOME_OCTETS,
    Bits,
    Field,
    Layout,
    bits,
    checksum,
    checksum_is_right,
    flag,
    read_prefix,
)
from signaling.wire.icmpv6 import (
    DestinationUnreachable,
    EchoReply,
    EchoRequest,
    IcmpErrorMessage,
    PacketTooBig,
    ParameterProblem,
    TimeExceeded,
)
from signaling.wire.message import Message, by_type
from signaling.wire.multicast_listener import (
    MulticastListenerDone,
    MulticastListenerQuery,
    MulticastListenerReport,
    MulticastListenerReportV2,
    MulticastRecord,
)
from signaling.wire.options.option import MalformedOption, Option, UnknownOption, read_option

__all__ = [
    "AdvertisementInterval",
    "DestinationUnreachable",
    "EchoReply",
    "EchoRequest",
    "HomeAgentInformation",
    "IcmpErrorMessage",
    "LinkMtu",
    "MalformedOption",
    "Message",
    "MulticastListenerDone",
    "MulticastListenerQuery",
    "MulticastListenerReport",
    "MulticastListenerReportV2",
    "MulticastRecord",
    "NeighborAdvertisement",
    "NeighborSolicitation",
    "PacketTooBig",
    "ParameterProblem",
    "PrefixInformation",
    "RecursiveDnsServer",
    "RouteInformation",
    "RouterAdvertisement",
    "RouterSolicitation",
    "SourceLinkLayerAddress",
    "TargetLinkLayerAddress",
    "TimeExceeded",
    "UnknownOption",
    "decode",
    "encode",
    "solicited_node",
]

ALL_NODES: Final = IPv6Address("ff02::1")
ALL_ROUTERS: Final = IPv6Address("ff02::2")
UNSPECIFIED: Final = IPv6Address(0)
INFINITE: Final = 0xFFFFFFFF  # s, lifetimes of prefixes, RFC 4861 4.6.2

_HEADER = 4  # octets: type, code, checksum
_UNIT = 8  # octets, of option lengths
_SOLICITED_NODE = int(IPv6Address("ff02::1:ff00:0"))


def solicited_node(address: IPv6Address) -> IPv6Address:
    """Give the multicast group on which address is asked for (RFC 4291 2.7.1)."""
    return IPv6Address(_SOLICITED_NODE | int(address) & 0xFFFFFF)


def _read_preference(number: int) -> RouterPreference:
    # the reserved value counts as medium, RFC 4191 2.1
    return RouterPreference.MEDIUM if number == RouterPreference.RESERVED else RouterPreference(number)


_PREFERENCE = bits(0x18, Field(_read_preference, int))


# --- options ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceLinkLayerAddress(Option):
    """Link-layer address of the sender (RFC 4861 4.6.1)."""

    TYPE: ClassVar[int] = NdOption.SOURCE_LINK_LAYER_ADDRESS
    LAYOUT: ClassVar[Layout] = Layout("RFC 4861 4.6.1", "", address=SOME_OCTETS)

    address: bytes  # 6 octets for Ethernet


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetLinkLayerAddress(Option):
    """Link-layer address of the target (RFC 4861 4.6.1)."""

    TYPE: ClassVar[int] = NdOption.TARGET_LINK_LAYER_ADDRESS
    LAYOUT: ClassVar[Layout] = Layout("RFC 4861 4.6.1", "", address=SOME_OCTETS)

    address: bytes  # 6 octets for Ethernet


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefixInformation(Option):
    """A prefix of the link, and what hosts may do with it (RFC 4861 4.6.2)."""

    TYPE: ClassVar[int] = NdOption.PREFIX_INFORMATION
    LAYOUT: ClassVar[Layout] = Layout(
        "RFC 4861 4.6.2",
        "BBII4x16s",
        _prefix_length=NUMBER,
        _flags=Bits(on_link=flag(0x80), autonomous=flag(0x40), router_address=flag(0x20)),
        valid_lifetime=SECONDS,
        preferred_lifetime=SECONDS,
        _prefix_octets=OCTETS,
    )

    prefix: IPv6Network
    on_link: bool = True  # L
    autonomous: bool = True  # A: hosts may form addresses
    router_address: bool = False  # R, RFC 6275 7.2; its interface identifier is not kept
    valid_lifetime: float  # seconds, cut to whole ones when sent; INFINITE
    preferred_lifetime: float  # seconds, cut to whole ones when sent; 0: deprecated

    @classmethod
    def read(cls, data: bytes) -> Self:
        """Make the option from its data. Raises ValueError."""
        values = cls.LAYOUT.read(data)
        length, octets = values.pop("_prefix_length"), values.pop("_prefix_octets")
        return cls(prefix=read_prefix(bytes([length]) + octets), **values)

    @property
    def _prefix_length(self) -> int:
        return self.prefix.prefixlen

    @property
    def _prefix_octets(self) -> bytes:
        return self.prefix.network_address.packed


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkMtu(Option):
    """Largest packet of the link (RFC 4861 4.6.4)."""

    TYPE: ClassVar[int] = NdOption.MTU
    LAYOUT: ClassVar[Layout] = Layout("RFC 4861 4.6.4", "2xI", mtu=NUMBER)

    mtu: int  # octets


@dataclass(frozen=True, slots=True, kw_only=True)
class AdvertisementInterval(Option):
    """How far unsolicited advertisements are apart at most (RFC 6275 7.3)."""

    TYPE: ClassVar[int] = NdOption.ADVERTISEMENT_INTERVAL
    LAYOUT: ClassVar[Layout] = Layout("RFC 6275 7.3", "2xI", interval=NUMBER)

    interval: int  # milliseconds


@dataclass(frozen=True, slots=True, kw_only=True)
class HomeAgentInformation(Option):
    """The sender is a home agent (RFC 6275 7.4)."""

    TYPE: ClassVar[int] = NdOption.HOME_AGENT_INFORMATION
    LAYOUT: ClassVar[Layout] = Layout("RFC 6275 7.4", "2xHH", preference=NUMBER, lifetime=SECONDS)

    preference: int  # 16 bits, higher is preferred
    lifetime: int  # seconds


def _write_route_prefix(prefix: IPv6Network) -> bytes:
    size = 0 if prefix.prefixlen == 0 else 8 if prefix.prefixlen <= 64 else 16
    return prefix.network_address.packed[:size]


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteInformation(Option):
    """A prefix the sender routes to (RFC 4191 2.3)."""

    TYPE: ClassVar[int] = NdOption.ROUTE_INFORMATION
    LAYOUT: ClassVar[Layout] = Layout(
        "RFC 4191 2.3",
        "BBI",
        _prefix_length=NUMBER,
        _flags=Bits(preference=_PREFERENCE),
        lifetime=SECONDS,
        _prefix_octets=OCTETS,
    )

    prefix: IPv6Network
    preference: RouterPreference = RouterPreference.MEDIUM
    lifetime: float  # seconds, cut to whole ones when sent

    @classmethod
    def read(cls, data: bytes) -> Self:
        """Make the option from its data. Raises ValueError."""
        values = cls.LAYOUT.read(data)
        length, octets = values.pop("_prefix_length"), values.pop("_prefix_octets")
        if len(octets) not in (0, 8, 16) or length > 8 * len(octets):
            raise ValueError(f"prefix length {length} in {len(octets)} octets")
        return cls(prefix=IPv6Network((octets.ljust(16, b"\0"), length), strict=False), **values)

    @property
    def _prefix_length(self) -> int:
        return self.prefix.prefixlen

    @property
    def _prefix_octets(self) -> bytes:
        return _write_route_prefix(self.prefix)


@dataclass(frozen=True, slots=True, kw_only=True)
class RecursiveDnsServer(Option):
    """Resolvers (RFC 8106 5.1)."""

    TYPE: ClassVar[int] = NdOption.RECURSIVE_DNS_SERVER
    LAYOUT: ClassVar[Layout] = Layout("RFC 8106 5.1", "2xI", lifetime=SECONDS, addresses=IPV6_ADDRESSES)

    addresses: tuple[IPv6Address, ...]
    lifetime: float  # seconds, cut to whole ones when sent; 0: no longer


OPTION_KINDS: Final[dict[int, type[Option]]] = {
    kind.TYPE: kind
    for kind in (
        SourceLinkLayerAddress,
        TargetLinkLayerAddress,
        PrefixInformation,
        LinkMtu,
        AdvertisementInterval,
        HomeAgentInformation,
        RouteInformation,
        RecursiveDnsServer,
    )
}


def _read_options(octets: bytes, start: int) -> tuple[Option, ...]:
    found, at = [], start
    while at < len(octets):
        if at + 2 > len(octets):
            raise MalformedMessage("ND option", at=at, why="no length", reason=Reason.OPTION_TRUNCATED)
        size = octets[at + 1] * _UNIT
        if size == 0:
            raise MalformedMessage("ND option", at=at, why="length 0", reason=Reason.OPTION_LENGTH_ZERO)
        if at + size > len(octets):
            raise MalformedMessage("ND option", at=at, why=f"{size} octets, not all here", reason=Reason.OPTION_OVERRUN)
        found.append(read_option(octets[at], octets[at + 2 : at + size], OPTION_KINDS))
        at += size
    return tuple(found)


def _append_options(octets: bytearray, options: tuple[Option, ...]) -> None:
    for option in options:
        data = option.write(len(octets) + 2)
        units = (2 + len(data) + _UNIT - 1) // _UNIT
        if units > 255:
            raise UnencodableMessage(f"{type(option).__name__}: {len(data)} octets of data")
        octets += bytes([option.number, units]) + data.ljust(units * _UNIT - 2, b"\0")


# --- messages -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class RouterSolicitation(Message):
    """A host asks for an advertisement (RFC 4861 4.1)."""

    TYPE: ClassVar[int] = Icmpv6Type.ROUTER_SOLICITATION
    LAYOUT: ClassVar[Layout] = Layout("RFC 4861 4.1", "4x")


@dataclass(frozen=True, slots=True, kw_only=True)
class RouterAdvertisement(Message):
    """A router says what holds on the link (RFC 4861 4.2)."""

    TYPE: ClassVar[int] = Icmpv6Type.ROUTER_ADVERTISEMENT
    LAYOUT: ClassVar[Layout] = Layout(
        "RFC 4861 4.2",
        "BBHII",
        hop_limit=NUMBER,
        _flags=Bits(managed=flag(0x80), other_configuration=flag(0x40), home_agent=flag(0x20), preference=_PREFERENCE),
        router_lifetime=SECONDS,
        reachable_time=NUMBER,
        retransmit_timer=NUMBER,
    )

    hop_limit: int = 64  # that hosts shall use; 0: not said
    managed: bool = False  # M
    other_configuration: bool = False  # O
    home_agent: bool = False  # H, RFC 6275 7.1
    preference: RouterPreference = RouterPreference.MEDIUM  # RFC 4191 2.2
    router_lifetime: float  # seconds, cut to whole ones when sent; 0: no default router
    reachable_time: int = 0  # milliseconds; 0: not said
    retransmit_timer: int = 0  # milliseconds; 0: not said


@dataclass(frozen=True, slots=True, kw_only=True)
class NeighborSolicitation(Message):
    """Asks for the link-layer address of the target, or whether it is there (RFC 4861 4.3)."""

    TYPE: ClassVar[int] = Icmpv6Type.NEIGHBOR_SOLICITATION
    LAYOUT: ClassVar[Layout] = Layout("RFC 4861 4.3", "4x16s", target=IPV6)

    target: IPv6Address


@dataclass(frozen=True, slots=True, kw_only=True)
class NeighborAdvertisement(Message):
    """Says where the target is (RFC 4861 4.4)."""

    TYPE: ClassVar[int] = Icmpv6Type.NEIGHBOR_ADVERTISEMENT
    LAYOUT: ClassVar[Layout] = Layout(
        "RFC 4861 4.4",
        "B3x16s",
        _flags=Bits(router=flag(0x80), solicited=flag(0x40), override=flag(0x20)),
        target=IPV6,
    )

    target: IPv6Address
    router: bool = False  # R
    solicited: bool = False  # S
    override: bool = False  # O


ND: Final = by_type((RouterSolicitation, RouterAdvertisement, NeighborSolicitation, NeighborAdvertisement))
MLD: Final = by_type(
    (
        MulticastListenerQuery,
        MulticastListenerReport,
        MulticastListenerDone,
        MulticastListenerReportV2,
    )
)
OTHERS: Final = by_type((DestinationUnreachable, PacketTooBig, TimeExceeded, ParameterProblem, EchoRequest, EchoReply))


# --- the door -----------------------------------------------------------------------------------------------


def decode(octets: bytes, source: IPv6Address, destination: IPv6Address, hop_limit: int) -> Message:
    """Give the message in octets, ICMPv6 type first. hop_limit: as received.

    Raises MalformedMessage, nothing else; the answer to it is silence (RFC 4861 6.1, 7.1).
    """
    octets = bytes(octets)
    if len(octets) < _HEADER:
        raise MalformedMessage("ICMPv6", at=0, why=f"{len(octets)} octets", reason=Reason.TRUNCATED)
    if not checksum_is_right(source, destination, ProtocolNumber.ICMPV6, octets):
        raise MalformedMessage("ICMPv6", at=2, why="wrong checksum", reason=Reason.CHECKSUM)
    number = octets[0]
    if number in ND:
        return _decode_nd(octets, source, destination, hop_limit)
    if number in MLD:
        _check_mld(source, hop_limit)
        return _read(MLD[number], octets)
    if number in OTHERS:
        return _read(OTHERS[number], octets)
    raise MalformedMessage("ICMPv6", at=0, why=f"type {number} is not known here", reason=Reason.UNKNOWN_TYPE)


def encode(message: Message, source: IPv6Address, destination: IPv6Address) -> bytes:
    """Give the octets of message, ICMPv6 type first, with their checksum. Raises UnencodableMessage."""
    code = message.code if isinstance(message, IcmpErrorMessage) else 0
    octets = bytearray((message.TYPE, code, 0, 0)) + message.LAYOUT.write(message)
    _append_options(octets, message.options)
    octets[2:4] = checksum(source, destination, ProtocolNumber.ICMPV6, bytes(octets)).to_bytes(2, "big")
    return bytes(octets)


def _decode_nd(octets: bytes, source: IPv6Address, destination: IPv6Address, hop_limit: int) -> Message:
    kind = ND[octets[0]]
    if hop_limit != 255:
        raise MalformedMessage(kind.__name__, at=0, why=f"hop limit {hop_limit}", reason=Reason.HOP_LIMIT)
    if octets[1] != 0:
        raise MalformedMessage(kind.__name__, at=1, why=f"code {octets[1]}", reason=Reason.CODE)
    end = _HEADER + kind.LAYOUT.size
    if len(octets) < end:
        why = f"{len(octets)} octets, {kind.LAYOUT.rfc} says at least {end}"
        raise MalformedMessage(kind.__name__, at=0, why=why, reason=Reason.TRUNCATED)
    message = kind.read(octets[_HEADER:end], _read_options(octets, end))
    _check_nd(message, source, destination)
    return message


def _read(kind: type[Message], octets: bytes) -> Message:
    try:
        message = kind.read(octets[_HEADER:], ())
        return replace(message, code=octets[1]) if isinstance(message, IcmpErrorMessage) else message
    except ValueError as error:
        raise MalformedMessage(kind.__name__, at=_HEADER, why=str(error), reason=Reason.TRUNCATED) from error


def _check_mld(source: IPv6Address, hop_limit: int) -> None:
    # RFC 3810 5.1.14, 5.2.13, 6.2: only a node of this link may say what is listened to here
    if hop_limit != 1:
        raise MalformedMessage("MLD", at=0, why=f"hop limit {hop_limit}", reason=Reason.HOP_LIMIT)
    if not source.is_link_local and source != UNSPECIFIED:
        raise MalformedMessage("MLD", at=0, why=f"source {source}", reason=Reason.SOURCE)


def _check_nd(message: Message, source: IPv6Address, destination: IPv6Address) -> None:
    match message:
        case RouterSolicitation():
            _check_silent_source(message, source)
        case RouterAdvertisement():
            if not source.is_link_local:
                raise _refused(message, f"source {source} is not link-local", Reason.SOURCE)
        case NeighborSolicitation():
            _check_target(message, message.target)
            _check_silent_source(message, source)
            if source == UNSPECIFIED and not _is_solicited_node(destination):
                raise _refused(message, f"destination {destination} for source ::", Reason.SOURCE)
        case NeighborAdvertisement():
            _check_target(message, message.target)
            if destination.is_multicast and message.solicited:
                raise _refused(message, "solicited, yet to a multicast address", Reason.SOLICITED)


def _check_silent_source(message: Message, source: IPv6Address) -> None:
    # who has no address yet must not teach us one, RFC 4861 6.1.1, 7.1.1
    if source == UNSPECIFIED and message.count(NdOption.SOURCE_LINK_LAYER_ADDRESS):
        raise _refused(message, "source :: with a link-layer address", Reason.SOURCE)


def _check_target(message: Message, target: IPv6Address) -> None:
    if target.is_multicast:
        raise _refused(message, f"target {target} is multicast", Reason.TARGET)


def _is_solicited_node(address: IPv6Address) -> bool:
    return int(address) >> 24 == _SOLICITED_NODE >> 24


def _refused(message: Message, why: str, reason: Reason) -> MalformedMessage:
    return MalformedMessage(type(message).__name__, at=0, why=why, reason=reason)
