"""A bare IPv6 packet: built and split, extension headers walked with every length checked (RFC 8200).

    IPv6 header (40) | Hop-by-Hop | Routing type 2 | Destination Options | payload of the upper layer
                       MLD: Router  to a home        from a home address
                       Alert        address          away from home

Only what signaling needs is understood: Router Alert (RFC 2711), the Home Address option and the type 2
routing header (RFC 6275 6.3, 6.4). Reassembly is not done here: a real fragment is refused.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import Final

from signaling.errors import MalformedMessage, Reaction, Reason, UnencodableMessage
from signaling.iana import Ipv6Option, ParameterProblemCode, ProtocolNumber
from signaling.wire import neighbor
from signaling.wire.icmpv6 import ParameterProblem
from signaling.wire.message import Message

HEADER: Final = 40  # octets
MINIMUM_MTU: Final = 1280  # octets, RFC 8200 5

_FIXED = struct.Struct("!IHBB16s16s")  # version, class and label; payload length; next header; hop limit; addresses
_ROUTER_ALERT_MLD = bytes((Ipv6Option.ROUTER_ALERT, 2, 0, 0, Ipv6Option.PADN, 0))  # value 0: MLD, RFC 2711 2.1
_BEFORE_HOME_ADDRESS = bytes((Ipv6Option.PADN, 2, 0, 0, Ipv6Option.HOME_ADDRESS, 16))  # stands at 8n+6


@dataclass(frozen=True, slots=True, kw_only=True)
class Packet:
    """One IPv6 packet, extension headers taken apart."""

    source: IPv6Address  # as in the IPv6 header
    destination: IPv6Address  # as in the IPv6 header
    next_header: int  # of the payload, behind all extension headers
    hop_limit: int = 64
    payload: bytes
    traffic_class: int = 0
    flow_label: int = 0
    router_alert: bool = False
    home_address: IPv6Address | None = None  # of a Home Address option: who really sends
    final_destination: IPv6Address | None = None  # of a type 2 routing header: a home address of the receiver
    payload_offset: int = HEADER  # octets before payload, as received; encode() does not look at it

    @property
    def checksum_source(self) -> IPv6Address:
        """Source for the pseudo-header (RFC 6275 6.1.1)."""
        return self.source if self.home_address is None else self.home_address

    @property
    def checksum_destination(self) -> IPv6Address:
        """Destination for the pseudo-header (RFC 6275 6.1.1, 8200 8.1)."""
        return self.destination if self.final_destination is None else self.final_destination


def encode(packet: Packet) -> bytes:
    """Give the octets of packet, with the extension headers its fields ask for. Raises UnencodableMessage."""
    first, chain = _extension_headers(packet)
    word = 6 << 28 | packet.traffic_class << 20 | packet.flow_label
    payload = chain + packet.payload
    source, destination = packet.source.packed, packet.destination.packed
    try:
        head = _FIXED.pack(word, len(payload), first, packet.hop_limit, source, destination)
    except struct.error as error:
        raise UnencodableMessage(f"IPv6 header: {error}") from error
    return head + payload


def carry(message: Message, source: IPv6Address, destination: IPv6Address) -> bytes:
    """Give the whole packet that takes an ICMPv6 message over a link. Raises UnencodableMessage.

    Neighbor discovery leaves with hop limit 255 (RFC 4861 4), MLD with 1 and Router Alert (RFC 2710 3).
    """
    listeners = message.TYPE in neighbor.MLD
    packet = Packet(
        source=source,
        destination=destination,
        next_header=ProtocolNumber.ICMPV6,
        hop_limit=1 if listeners else 255,
        payload=neighbor.encode(message, source, destination),
        router_alert=listeners,
    )
    return encode(packet)


def parameter_problem(octets: bytes, source: IPv6Address, destination: IPv6Address, defect: MalformedMessage) -> bytes:
    """Give the ICMPv6 octets, type first, that tell source what is wrong with the Mobility Header it sent.

    octets: that Mobility Header; its IPv6 header is rebuilt for the quote, the hop limit it came with is lost.
    defect: with Reaction.PARAMETER_PROBLEM (RFC 6275 9.2, 4443 3.4). Sent from destination, back to source.
    """
    invoking = Packet(
        source=source, destination=destination, next_header=ProtocolNumber.MOBILITY_HEADER, payload=octets
    )
    problem = ParameterProblem(code=defect.code, pointer=defect.pointer or 0, invoking=encode(invoking))
    return neighbor.encode(problem, destination, source)


def _extension_headers(packet: Packet) -> tuple[int, bytes]:
    # built from the payload outwards, each naming the header behind it
    following, chain = packet.next_header, b""
    if packet.home_address is not None:
        chain = bytes((following, 2)) + _BEFORE_HOME_ADDRESS + packet.home_address.packed + chain
        following = ProtocolNumber.DESTINATION_OPTIONS
    if packet.final_destination is not None:
        chain = bytes((following, 2, 2, 1, 0, 0, 0, 0)) + packet.final_destination.packed + chain
        following = ProtocolNumber.ROUTING
    if packet.router_alert:
        chain = bytes((following, 0)) + _ROUTER_ALERT_MLD + chain
        following = ProtocolNumber.HOP_BY_HOP
    return following, chain


def decode(octets: bytes) -> Packet:
    """Split a packet; what stands behind its length is left out. Raises only MalformedMessage."""
    octets = bytes(octets)
    if len(octets) < HEADER:
        raise _malformed(0, f"{len(octets)} octets", Reason.TRUNCATED)
    word, length, first, hop_limit, source, destination = _FIXED.unpack_from(octets)
    if word >> 28 != 6:
        raise _malformed(0, f"version {word >> 28}", Reason.VERSION)
    if HEADER + length > len(octets):
        raise _malformed(4, f"payload of {length} octets, {len(octets) - HEADER} here", Reason.TRUNCATED)
    walk = _Walk(octets[: HEADER + length], first, IPv6Address(destination))
    walk.run()
    return Packet(
        source=IPv6Address(source),
        destination=walk.destination,
        next_header=walk.next_header,
        hop_limit=hop_limit,
        payload=walk.octets[walk.at :],
        traffic_class=word >> 20 & 0xFF,
        flow_label=word & 0xFFFFF,
        router_alert=walk.router_alert,
        home_address=walk.home_address,
        final_destination=walk.final_destination,
        payload_offset=walk.at,
    )


class _Walk:
    """From header to header. Each step is at least 8 octets long, so it ends."""

    def __init__(self, octets: bytes, first: int, destination: IPv6Address) -> None:
        self.octets = octets
        self.next_header = first
        self.destination = destination
        self.at = HEADER
        self.router_alert = False
        self.home_address: IPv6Address | None = None
        self.final_destination: IPv6Address | None = None

    def run(self) -> None:
        """Walk to the upper layer."""
        while self.next_header in _STEPS:
            if self.at + 8 > len(self.octets):
                raise _malformed(self.at, "extension header cut", Reason.TRUNCATED)
            size = self._size()
            if self.at + size > len(self.octets):
                raise _malformed(self.at, f"extension header of {size} octets cut", Reason.TRUNCATED)
            _STEPS[self.next_header](self, self.at + size)
            self.next_header, self.at = self.octets[self.at], self.at + size

    def _size(self) -> int:
        units = self.octets[self.at + 1]
        if self.next_header == ProtocolNumber.FRAGMENT:
            return 8
        if self.next_header == ProtocolNumber.AH:
            # in 4-octet units, minus 2 (RFC 4302 2.2), kept on a multiple of 8 in IPv6
            return max(8, (units + 2) * 4)
        return (units + 1) * 8

    def hop_by_hop(self, end: int) -> None:
        """Router Alert is all we look for; the header stands first or not at all (RFC 8200 4.1)."""
        if self.at != HEADER:
            raise _malformed(self.at, "Hop-by-Hop header is not the first", Reason.EXTENSION_HEADER)
        for number, start, stop in self._options(end):
            if number == Ipv6Option.ROUTER_ALERT and stop - start == 2:
                self.router_alert = True
            else:
                self._unknown_option(number, start - 2)

    def destination_options(self, end: int) -> None:
        """Read the Home Address option (RFC 6275 6.3, 9.3.1)."""
        for number, start, stop in self._options(end):
            if number == Ipv6Option.HOME_ADDRESS:
                self._home_address(start, stop)
            else:
                self._unknown_option(number, start - 2)

    def _home_address(self, start: int, stop: int) -> None:
        if stop - start != 16 or self.home_address is not None:
            raise _malformed(start - 2, "Home Address option too long, short or many", Reason.HOME_ADDRESS)
        address = IPv6Address(self.octets[start:stop])
        if not _is_routable(address):
            raise _malformed(start, f"home address {address} is not unicast routable", Reason.HOME_ADDRESS)
        self.home_address = address

    def routing(self, end: int) -> None:
        """Read a type 2 routing header (RFC 6275 6.4.1, 11.3.3); pass by another that is used up."""
        kind, segments_left = self.octets[self.at + 2], self.octets[self.at + 3]
        if kind == 2:
            if end - self.at != 24 or segments_left != 1 or self.final_destination is not None:
                raise _malformed(self.at, "type 2 routing header is not as it must be", Reason.ROUTING_HEADER)
            address = IPv6Address(self.octets[self.at + 8 : end])
            if not _is_routable(address):
                raise _malformed(self.at + 8, f"{address} is not unicast routable", Reason.ROUTING_HEADER)
            self.final_destination = address
        elif segments_left:
            raise _problem(self.at + 2, f"routing type {kind}", Reason.ROUTING_HEADER)

    def fragment(self, end: int) -> None:
        """Pass by an atomic fragment (RFC 6946), refuse others."""
        if int.from_bytes(self.octets[self.at + 2 : self.at + 4], "big") & 0xFFF9:
            raise _malformed(self.at, "fragment of a packet", Reason.FRAGMENT)

    def skip(self, end: int) -> None:
        """Pass by."""

    def _options(self, end: int) -> list[tuple[int, int, int]]:
        found, at = [], self.at + 2
        while at < end:
            number = self.octets[at]
            if number == Ipv6Option.PAD1:
                at += 1
                continue
            if at + 2 > end or at + 2 + self.octets[at + 1] > end:
                raise _malformed(at, f"option {number} overruns its header", Reason.OPTION_OVERRUN)
            start, at = at + 2, at + 2 + self.octets[at + 1]
            if number != Ipv6Option.PADN:
                found.append((number, start, at))
        return found

    def _unknown_option(self, number: int, at: int) -> None:
        # the two high bits say what to do, RFC 8200 4.2
        action, reason = number >> 6, Reason.UNKNOWN_DESTINATION_OPTION
        if action == 0:
            return
        if action == 1 or (action == 3 and self.destination.is_multicast):
            raise _malformed(at, f"option {number}", reason)
        raise _problem(at, f"option {number}", reason, ParameterProblemCode.UNRECOGNIZED_OPTION)


_STEPS: Final[dict[int, Callable[[_Walk, int], None]]] = {
    ProtocolNumber.HOP_BY_HOP: _Walk.hop_by_hop,
    ProtocolNumber.DESTINATION_OPTIONS: _Walk.destination_options,
    ProtocolNumber.ROUTING: _Walk.routing,
    ProtocolNumber.FRAGMENT: _Walk.fragment,
    ProtocolNumber.AH: _Walk.skip,
}


def _is_routable(address: IPv6Address) -> bool:
    unusable = address.is_multicast or address.is_unspecified or address.is_loopback or address.is_link_local
    return not unusable


def _malformed(at: int, why: str, reason: Reason) -> MalformedMessage:
    return MalformedMessage("IPv6", at=at, why=why, reason=reason)


def _problem(
    at: int,
    why: str,
    reason: Reason,
    code: ParameterProblemCode = ParameterProblemCode.ERRONEOUS_HEADER_FIELD,
) -> MalformedMessage:
    return MalformedMessage(
        "IPv6", at=at, why=why, reason=reason, reaction=Reaction.PARAMETER_PROBLEM, pointer=at, code=code
    )
