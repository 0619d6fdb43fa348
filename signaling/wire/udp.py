"""UDP (RFC 768) with the IPv4 or IPv6 header before it: whole packets, as they stand in frames of a link."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from signaling.errors import MalformedMessage, Reason, UnencodableMessage
from signaling.iana import ProtocolNumber
from signaling.wire import ipv6
from signaling.wire.codec import Address, checksum, checksum_is_right

_IPV4: Final = struct.Struct("!BBHHHBBH4s4s")
_UDP: Final = struct.Struct("!HHHH")  # ports, length, checksum
_HOP_LIMIT: Final = 64
_FRAGMENT: Final = 0x3FFF  # more fragments, or an offset


class Checksum(Enum):
    """What to expect of the UDP checksum of a packet that was received."""

    VERIFY = "verify"
    UNFINISHED = "unfinished"  # left by its sender to a network card that never came: the frame stayed in memory


@dataclass(frozen=True, slots=True, kw_only=True)
class Datagram:
    """A payload, and between whom it goes; both addresses are of one family."""

    source: Address
    destination: Address
    source_port: int
    destination_port: int
    payload: bytes


def decode(packet: bytes, expect: Checksum = Checksum.VERIFY) -> Datagram:
    """Give the datagram in an IPv4 or IPv6 packet. Raises only MalformedMessage, also for anything but UDP."""
    packet = bytes(packet)
    version = packet[0] >> 4 if packet else 0
    source: Address
    destination: Address
    if version == 4:
        source, destination, octets = _open_ipv4(packet)
    else:
        found = ipv6.decode(packet)
        source, destination, octets = found.source, found.destination, found.payload
        if found.next_header != ProtocolNumber.UDP:
            raise _malformed(6, f"next header {found.next_header}", Reason.UNKNOWN_TYPE)
    return _decode(source, destination, octets, expect)


def encode(datagram: Datagram) -> bytes:
    """Give the whole packet of a datagram. Raises UnencodableMessage."""
    source, destination = datagram.source, datagram.destination
    size = _UDP.size + len(datagram.payload)
    try:
        head = _UDP.pack(datagram.source_port, datagram.destination_port, size, 0)
        # 0 would say that there is no checksum; 0xffff is the same sum (RFC 768)
        total = checksum(source, destination, ProtocolNumber.UDP, head + datagram.payload) or 0xFFFF
        octets = head[:6] + total.to_bytes(2, "big") + datagram.payload
        if isinstance(source, IPv4Address):
            return _ipv4_header(source, destination, len(octets)) + octets
    except struct.error as error:
        raise UnencodableMessage(f"UDP: {error}") from error
    assert isinstance(destination, IPv6Address)
    return ipv6.encode(
        ipv6.Packet(source=source, destination=destination, next_header=ProtocolNumber.UDP, payload=octets)
    )


def _open_ipv4(packet: bytes) -> tuple[IPv4Address, IPv4Address, bytes]:
    if len(packet) < _IPV4.size:
        raise _malformed(0, f"{len(packet)} octets", Reason.TRUNCATED)
    first, _tos, length, _number, fragment, _ttl, protocol, _sum, source, destination = _IPV4.unpack_from(packet)
    start = (first & 0xF) * 4
    if not _IPV4.size <= start <= length <= len(packet):
        raise _malformed(0, f"header {start}, packet {length}, {len(packet)} octets here", Reason.TRUNCATED)
    if int.from_bytes(packet[:start], "big") % 0xFFFF:
        raise _malformed(10, "wrong header checksum", Reason.CHECKSUM)
    if fragment & _FRAGMENT:
        raise _malformed(6, "fragment of a packet", Reason.FRAGMENT)
    if protocol != ProtocolNumber.UDP:
        raise _malformed(9, f"protocol {protocol}", Reason.UNKNOWN_TYPE)
    return IPv4Address(source), IPv4Address(destination), packet[start:length]


def _decode(source: Address, destination: Address, octets: bytes, expect: Checksum) -> Datagram:
    if len(octets) < _UDP.size:
        raise _malformed(0, f"{len(octets)} octets of UDP", Reason.TRUNCATED)
    source_port, destination_port, length, total = _UDP.unpack_from(octets)
    if not _UDP.size <= length <= len(octets):
        raise _malformed(4, f"length {length}, {len(octets)} octets here", Reason.TRUNCATED)
    octets = octets[:length]
    if expect is Checksum.VERIFY and not _is_whole(source, destination, total, octets):
        raise _malformed(6, "wrong checksum", Reason.CHECKSUM)
    return Datagram(
        source=source,
        destination=destination,
        source_port=source_port,
        destination_port=destination_port,
        payload=octets[_UDP.size :],
    )


def _is_whole(source: Address, destination: Address, total: int, octets: bytes) -> bool:
    if total == 0:
        return source.version == 4  # the sender made no checksum: IPv4 allows that, IPv6 does not (RFC 8200 8.1)
    return checksum_is_right(source, destination, ProtocolNumber.UDP, octets)


def _ipv4_header(source: IPv4Address, destination: Address, payload: int) -> bytes:
    fields = (_IPV4.size + payload, 0, 0, _HOP_LIMIT, ProtocolNumber.UDP)
    addresses = (source.packed, destination.packed)
    head = _IPV4.pack(0x45, 0, *fields, 0, *addresses)
    return _IPV4.pack(0x45, 0, *fields, 0xFFFF - int.from_bytes(head, "big") % 0xFFFF, *addresses)


def _malformed(at: int, why: str, reason: Reason) -> MalformedMessage:
    return MalformedMessage("UDP packet", at=at, why=why, reason=reason)
