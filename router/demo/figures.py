"""What the captures and reports of a demo say, as figures. Pure: packets and reports in, numbers out.

All times are CLOCK_REALTIME in seconds.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv6Address, IPv6Network
from typing import Any

from router.demo.capture import Packet
from signaling.iana import PROXY_MOBILE_IPV6_DATA_PORT as DATA_PORT
from signaling.iana import Icmpv6Type, ProtocolNumber

ETHERNET, IPV6, UDP = 14, 40, 8  # octets of headers
GRE, GRE_FIELD, GRE_FIELDS = 4, 4, (0x80, 0x20, 0x10)  # octets; flags: checksum, key, sequence number (RFC 2890 2)
CARRIERS: dict[int, str] = {ProtocolNumber.TCP: "TCP segment", ProtocolNumber.UDP: "datagram"}
SIGNS: dict[int, str] = {
    Icmpv6Type.ROUTER_SOLICITATION: "router solicitation",
    Icmpv6Type.NEIGHBOR_SOLICITATION: "neighbour solicitation",
    Icmpv6Type.NEIGHBOR_ADVERTISEMENT: "neighbour advertisement",
    Icmpv6Type.ECHO_REPLY: "echo reply",
    Icmpv6Type.MULTICAST_LISTENER_REPORT_V2: "MLD report",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """One handover as the lab made it: the old link was broken, the node's link down, the new one made."""

    origin: str
    target: str
    broken: float
    down: float
    made: float
    until: float  # the next move, or the end


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """What the node's own link saw after a move."""

    sign: str  # what the node sent first
    heard: float  # when
    first_downlink: float | None  # first packet to its old address through the new router; None: none came


def arrival(packets: Iterable[Packet], move: Move, node: bytes, old_address: IPv6Address) -> Arrival | None:
    """When the node showed itself on the new link, and when its old address was reached there.

    packets: captured on the node's link, oldest first. None: the node sent nothing at all.
    """
    heard: Packet | None = None
    for packet in packets:
        if not move.down <= packet.time < move.until:
            continue
        if heard is None and packet.from_link_layer == node and packet.is_ipv6:
            heard = packet
        downlink = packet.from_link_layer != node and packet.destination == old_address
        if heard is not None and downlink and packet.next_header != ProtocolNumber.ICMPV6:
            return Arrival(sign=sign(heard), heard=heard.time, first_downlink=packet.time)
    return None if heard is None else Arrival(sign=sign(heard), heard=heard.time, first_downlink=None)


def sign(packet: Packet) -> str:
    """What kind of packet gave the node away."""
    octets = packet.octets[ETHERNET:]
    next_header, at = octets[6], IPV6
    if next_header == ProtocolNumber.HOP_BY_HOP and len(octets) > IPV6 + 1:
        next_header, at = octets[IPV6], IPV6 + 8 * (octets[IPV6 + 1] + 1)
    if next_header == ProtocolNumber.ICMPV6 and len(octets) > at:
        return SIGNS.get(octets[at], "ICMPv6")
    return CARRIERS.get(next_header, "packet")


def losses(arrivals: Sequence[tuple[int, float, float]], moves: Sequence[Move]) -> list[int]:
    """Numbered datagrams that never came, for each move: those sent from its break on until the next one.

    arrivals: (number, sent, arrived). A datagram that is lost was sent about when its neighbours were.
    """
    sent = {number: at for number, at, _ in arrivals}
    lost = [0] * len(moves)
    if not sent:
        return lost
    known = min(sent)
    for number in range(min(sent), max(sent)):
        if number in sent:
            known = number
            continue
        at = sent[known]  # a moment too early at most
        for index in reversed(range(len(moves))):
            if at >= moves[index].broken - 0.05:
                lost[index] += 1
                break
    return lost


@dataclass(frozen=True, slots=True)
class Tunnelled:
    """A packet that crossed the core inside a tunnel."""

    time: float
    source: IPv6Address
    destination: IPv6Address


def tunnelled(packets: Iterable[Packet]) -> list[Tunnelled]:
    """The inner packets of all tunnels, of either encapsulation."""
    found: list[Tunnelled] = []
    for packet in packets:
        inner = _inner(packet)
        if len(inner) >= IPV6 and inner[0] >> 4 == 6:
            found.append(Tunnelled(packet.time, IPv6Address(inner[8:24]), IPv6Address(inner[24:40])))
    return found


def _inner(packet: Packet) -> bytes:
    if not packet.is_ipv6:
        return b""
    octets = packet.octets[ETHERNET:]
    if packet.next_header == ProtocolNumber.IPV6:
        return octets[IPV6:]
    if packet.next_header == ProtocolNumber.GRE:
        return octets[IPV6 + GRE + GRE_FIELD * sum(bool(octets[IPV6] & flag) for flag in GRE_FIELDS) :]
    if packet.next_header == ProtocolNumber.UDP and int.from_bytes(octets[IPV6 + 2 : IPV6 + 4]) == DATA_PORT:
        return octets[IPV6 + UDP :]
    return b""


def strays(inner: Iterable[Tunnelled], pool: IPv6Network, begin: float, end: float) -> int:
    """How many packets of a pool were in a tunnel during this time, though their node was with its anchor."""
    return sum(begin <= item.time < end and (item.source in pool or item.destination in pool) for item in inner)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """What became of a steady stream of numbered datagrams."""

    sent: int
    lost: int
    duplicates: int
    reordered: int
    longest_gap: float  # s between two arrivals


def stream(sent: Mapping[str, Any], sunk: Mapping[str, Any]) -> Stream:
    """From the last reports of its sender and its sink, which ran longer."""
    return Stream(
        sent=sent["sent"],
        lost=sent["sent"] - (sunk["received"] - sunk["duplicates"]),
        duplicates=sunk["duplicates"],
        reordered=sunk["reordered"],
        longest_gap=sunk["longest_gap"],
    )
