"""Outer headers put on and taken off, in plain Python: specification of _fast/outer.pyx.

IP     | IPv6 or IPv4 | inner packet                          RFC 2473, RFC 2003, RFC 4213
UDP    | IPv6 or IPv4 | UDP 5437 | inner packet               RFC 5844 4.1
GRE    | IPv6 or IPv4 | GRE [key] [sequence] | inner packet   RFC 2784, 2890, 7676
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from engine.model.dropped import Dropped
from engine.stats import Drop
from engine.tunnels import HOP_LIMIT, MAPPED, UDP_PORT, Encapsulation, Tunnel

GRE_TYPES = {0x0800: 4, 0x86DD: 6}  # protocol of a GRE header -> IP version
IN_IP = {4: 4, 6: 41}  # IP version -> protocol number of that packet inside another
DESTINATION_OPTIONS, UDP, GRE = 60, 17, 47


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """An inner packet, and what its outer headers said."""

    encapsulation: Encapsulation
    local: bytes  # 16 octets each
    peer: bytes
    port: int  # UDP source port, else 0
    key: int | None  # GRE
    sequence: int | None  # GRE
    traffic_class: int
    packet: bytes


def internet_checksum(octets: bytes) -> int:
    """RFC 1071; of octets that hold a right checksum: 0."""
    octets += bytes(len(octets) % 2)
    total: int = sum(struct.unpack(f"!{len(octets) // 2}H", octets))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


# --- on ------------------------------------------------------------------------------------------------


def shim(tunnel: Tunnel, family: int, sequence: int | None) -> bytes:
    """The GRE header of a packet of that IP version; nothing when the tunnel is no GRE tunnel."""
    if tunnel.encapsulation is not Encapsulation.GRE:
        return b""
    key = b"" if tunnel.key_out is None else tunnel.key_out.to_bytes(4, "big")
    number = b"" if sequence is None else sequence.to_bytes(4, "big")
    flags = (0x2000 if key else 0) | (0x1000 if number else 0)
    return struct.pack("!HH", flags, 0x0800 if family == 4 else 0x86DD) + key + number


def compose(tunnel: Tunnel, traffic_class: int, flow: int, sequence: int | None, packet: bytes) -> bytes:
    """The whole outer packet. flow: 64-bit flow hash, its low 20 bits are the outer flow label (RFC 6438 3)."""
    family = packet[0] >> 4
    source, destination = tunnel.local.packed, tunnel.remote.packed
    if tunnel.encapsulation is Encapsulation.UDP:
        protocol = UDP
        payload = _udp(source, destination, tunnel.port, packet)
    elif tunnel.encapsulation is Encapsulation.GRE:
        protocol = GRE
        payload = shim(tunnel, family, sequence) + packet
    else:
        protocol = IN_IP[family]
        payload = packet
    if tunnel.local.version == 6:
        first = 6 << 28 | traffic_class << 20 | flow & 0xFFFFF
        header = struct.pack("!IHBB", first, len(payload) & 0xFFFF, protocol, HOP_LIMIT) + source + destination
    else:
        header = _ip4(traffic_class, len(payload), protocol, source, destination)
    return header + payload


def overhead(tunnel: Tunnel) -> int:
    """Octets before the inner packet."""
    ip = 40 if tunnel.local.version == 6 else 20
    if tunnel.encapsulation is Encapsulation.UDP:
        return ip + 8
    return ip + len(shim(tunnel, 6, 0 if tunnel.sequence else None))


def _udp(source: bytes, destination: bytes, port: int, packet: bytes) -> bytes:
    length = 8 + len(packet) & 0xFFFF
    header = struct.pack("!HHHH", UDP_PORT, port, length, 0)
    pseudo = source + destination + struct.pack("!II", 8 + len(packet), UDP)
    checksum = internet_checksum(pseudo + header + packet) or 0xFFFF
    return header[:6] + checksum.to_bytes(2, "big") + packet


def _ip4(traffic_class: int, length: int, protocol: int, source: bytes, destination: bytes) -> bytes:
    # identification 0 is what RFC 6864 4.1 allows with DF set
    first = struct.pack("!BBHHHBB", 0x45, traffic_class, 20 + length & 0xFFFF, 0, 0x4000, HOP_LIMIT, protocol)
    checksum = internet_checksum(first + b"\0\0" + source + destination)
    return first + checksum.to_bytes(2, "big") + source + destination


# --- off -----------------------------------------------------------------------------------------------


def strip(octets: bytes) -> Arrival:
    """The packet inside a whole outer packet. Raises Dropped."""
    if not octets:
        raise Dropped(Drop.TRUNCATED)
    if octets[0] >> 4 == 6:
        local, peer, outer_class, protocol, payload = _strip_ip6(octets)
    elif octets[0] >> 4 == 4:
        local, peer, outer_class, protocol, payload = _strip_ip4(octets)
    else:
        raise Dropped(Drop.NOT_IP)
    port, key, sequence = 0, None, None
    if protocol == UDP:
        encapsulation = Encapsulation.UDP
        port, payload = _strip_udp(local, peer, payload)
    elif protocol == GRE:
        encapsulation = Encapsulation.GRE
        key, sequence, payload = strip_gre(payload)
    else:
        encapsulation = Encapsulation.IP
        if not payload:
            raise Dropped(Drop.TRUNCATED)
        if protocol != (41 if payload[0] >> 4 == 6 else 4):
            raise Dropped(Drop.NOT_IP)
    return Arrival(
        encapsulation=encapsulation,
        local=local,
        peer=peer,
        port=port,
        key=key,
        sequence=sequence,
        traffic_class=outer_class,
        packet=payload,
    )


def strip_gre(octets: bytes) -> tuple[int | None, int | None, bytes]:
    """Key, sequence number, inner packet. Raises Dropped. RFC 2784 2, RFC 2890 2."""
    if len(octets) < 4:
        raise Dropped(Drop.TRUNCATED)
    flags, kind = struct.unpack_from("!HH", octets)
    if flags & 0x4C07:  # routing, reserved bits 4 and 5, version
        raise Dropped(Drop.BAD_HEADER)
    if kind not in GRE_TYPES:
        raise Dropped(Drop.NOT_IP)
    has_checksum, has_key, has_sequence = (bool(flags & bit) for bit in (0x8000, 0x2000, 0x1000))
    at = 4 + 4 * (has_checksum + has_key + has_sequence)
    if len(octets) < at:
        raise Dropped(Drop.TRUNCATED)
    if has_checksum and internet_checksum(octets) != 0:
        raise Dropped(Drop.BAD_HEADER)
    key_at = 4 + 4 * has_checksum
    key = int.from_bytes(octets[key_at : key_at + 4], "big") if has_key else None
    sequence = int.from_bytes(octets[at - 4 : at], "big") if has_sequence else None
    packet = octets[at:]
    if packet and packet[0] >> 4 != GRE_TYPES[kind]:
        raise Dropped(Drop.NOT_IP)
    return key, sequence, packet


def _strip_ip6(octets: bytes) -> tuple[bytes, bytes, int, int, bytes]:
    if len(octets) < 40:
        raise Dropped(Drop.TRUNCATED)
    end = 40 + int.from_bytes(octets[4:6], "big")
    if len(octets) < end:
        raise Dropped(Drop.TRUNCATED)
    at, protocol = 40, octets[6]
    if protocol == DESTINATION_OPTIONS:  # the Tunnel Encapsulation Limit lives here, RFC 2473 4.1.1
        if end < at + 8 or end < at + 8 + 8 * octets[at + 1]:
            raise Dropped(Drop.TRUNCATED)
        after = at + 8 + 8 * octets[at + 1]
        if not _acceptable(octets[at + 2 : after]):
            raise Dropped(Drop.BAD_HEADER)
        at, protocol = after, octets[at]
    outer_class = int.from_bytes(octets[:2], "big") >> 4 & 0xFF
    return octets[24:40], octets[8:24], outer_class, protocol, octets[at:end]


def _acceptable(options: bytes) -> bool:
    """Every option is whole, and one that may be skipped when it is not known (RFC 8200 4.2)."""
    while options:
        if options[0] == 0:  # Pad1
            options = options[1:]
            continue
        if len(options) < 2 or len(options) < 2 + options[1] or options[0] & 0xC0:
            return False
        options = options[2 + options[1] :]
    return True


def _strip_ip4(octets: bytes) -> tuple[bytes, bytes, int, int, bytes]:
    if len(octets) < 20:
        raise Dropped(Drop.TRUNCATED)
    header, end = 4 * (octets[0] & 15), int.from_bytes(octets[2:4], "big")
    if header < 20 or end < header:
        raise Dropped(Drop.BAD_HEADER)
    if len(octets) < end:
        raise Dropped(Drop.TRUNCATED)
    is_fragment = int.from_bytes(octets[6:8], "big") & 0x3FFF
    if internet_checksum(octets[:header]) != 0 or is_fragment:
        raise Dropped(Drop.BAD_HEADER)  # putting fragments together is the kernel's work
    return MAPPED + octets[16:20], MAPPED + octets[12:16], octets[1], octets[9], octets[header:end]


def _strip_udp(local: bytes, peer: bytes, octets: bytes) -> tuple[int, bytes]:
    if len(octets) < 8:
        raise Dropped(Drop.TRUNCATED)
    source_port, port, length, checksum = struct.unpack_from("!HHHH", octets)
    if length < 8:
        raise Dropped(Drop.BAD_HEADER)
    if length > len(octets):
        raise Dropped(Drop.TRUNCATED)
    if port != UDP_PORT:
        raise Dropped(Drop.UNKNOWN_TUNNEL)
    octets = octets[:length]
    if checksum == 0:
        if not local.startswith(MAPPED):
            raise Dropped(Drop.BAD_HEADER)  # over IPv6 a checksum is not optional, RFC 8200 8.1
    elif internet_checksum(peer + local + struct.pack("!II", length, UDP) + octets) != 0:
        raise Dropped(Drop.BAD_HEADER)  # mapped addresses add 0xffff, which is nothing
    return source_port, octets[8:]
