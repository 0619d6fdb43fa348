"""ICMP errors toward the sender of a packet that cannot go through its tunnel: specification of _fast/icmp.pyx."""

from __future__ import annotations

import struct

from engine.model.outer import internet_checksum
from engine.tunnels import MAPPED

TOO_BIG, BROKEN = 0, 1
MOST_ERROR, MOST_ERROR4 = 1280, 576  # octets: RFC 4443 2.4 c, RFC 1812 4.3.2.3
DUMMY = bytes([192, 0, 0, 8])  # a router without an IPv4 address says this in its errors, RFC 7600 4.8
QUESTIONS = frozenset({0, 8, 9, 10, 13, 14, 15, 16, 17, 18})  # ICMP types that are no errors


def complain(trouble: int, packet: bytes, mtu: int, from_here: bytes) -> bytes | None:
    """An error about packet; None: none may be sent. mtu: octets. from_here: 16 octets, an address of this router."""
    return (_complain6 if packet[0] >> 4 == 6 else _complain4)(trouble, packet, mtu, from_here)


def _complain6(trouble: int, packet: bytes, mtu: int, from_here: bytes) -> bytes | None:
    source, destination = packet[8:24], packet[24:40]
    if destination[0] == 0xFF and trouble != TOO_BIG:
        return None  # RFC 4443 2.4 e.3
    if packet[6] == 58 and len(packet) > 40 and packet[40] < 128:
        return None  # never about an error, RFC 4443 2.4 e.1
    if from_here.startswith(MAPPED):
        from_here = destination  # a tunnel over IPv4 has no better one
    kind, code, value = (2, 0, mtu) if trouble == TOO_BIG else (1, 3, 0)
    quoted = packet[: MOST_ERROR - 48]
    body = struct.pack("!BBHI", kind, code, 0, value) + quoted
    checksum = internet_checksum(from_here + source + struct.pack("!II", len(body), 58) + body)
    header = struct.pack("!IHBB", 6 << 28, len(body), 58, 64) + from_here + source
    return header + body[:2] + checksum.to_bytes(2, "big") + body[4:]


def _complain4(trouble: int, packet: bytes, mtu: int, from_here: bytes) -> bytes | None:
    header = 4 * (packet[0] & 15)
    if packet[16] >= 224 or int.from_bytes(packet[6:8], "big") & 0x1FFF:
        return None  # multicast, broadcast, later fragments: RFC 1812 4.3.2.7
    if packet[9] == 1 and (len(packet) <= header or packet[header] not in QUESTIONS):
        return None
    quoted = packet[: MOST_ERROR4 - 28]
    body = struct.pack("!BBHHH", 3, 4 if trouble == TOO_BIG else 1, 0, 0, mtu & 0xFFFF if trouble == TOO_BIG else 0)
    body += quoted
    body = body[:2] + internet_checksum(body).to_bytes(2, "big") + body[4:]
    source = from_here[12:] if from_here.startswith(MAPPED) else DUMMY
    first = struct.pack("!BBHHHBB", 0x45, 0xC0, 20 + len(body), 0, 0, 64, 1)
    checksum = internet_checksum(first + b"\0\0" + source + packet[12:16])
    return first + checksum.to_bytes(2, "big") + source + packet[12:16] + body
