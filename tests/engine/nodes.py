"""The little world of the engine's tests: three routers, prefixes on each side, and the packets between them.

Packets are put together here octet by octet, by nothing of the engine: what it says is compared with these.
"""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import TypeAlias

from engine import UDP_PORT, Encapsulation, Side, Tables, Tunnel

AnyAddress: TypeAlias = IPv6Address | IPv4Address

HERE, ELSEWHERE, STRANGER = (IPv6Address(f"2001:db8:{n}::1") for n in ("a1", "a2", "bad"))
HERE4, ELSEWHERE4, STRANGER4 = (IPv4Address(f"198.51.100.{n}") for n in (1, 2, 66))
ANCHORED = IPv6Network("2001:db8:a1:100::/64")
VISITING = IPv6Network("2001:db8:a2:200::/64")
HELD = IPv6Network("2001:db8:a1:101::/64")
ANCHORED4, VISITING4, HELD4 = (IPv4Network(f"10.{n}.0.0/16") for n in (1, 2, 3))
CORRESPONDENT, CORRESPONDENT4 = IPv6Address("2001:db8:cccc::80"), IPv4Address("192.0.2.80")
TUNNEL = Tunnel(local=HERE, remote=ELSEWHERE, encapsulation=Encapsulation.UDP)
OTHER = Tunnel(local=HERE, remote=IPv6Address("2001:db8:a3::1"), encapsulation=Encapsulation.UDP)

NO_NEXT_HEADER, TCP, UDP, GRE, ICMP, ICMP6, DESTINATION_OPTIONS, NOTHING_KNOWN = 59, 6, 17, 47, 1, 58, 60, 253
IN_IP = {4: 4, 6: 41}  # version -> number of that packet inside another
IN_GRE = {4: 0x0800, 6: 0x86DD}
DONT_FRAGMENT = 0x4000


def fill(tables: Tables, tunnel: Tunnel = TUNNEL) -> None:
    for prefix in (ANCHORED, ANCHORED4):
        tables.bind(prefix, tunnel, side=Side.ANCHOR)
    for prefix in (VISITING, VISITING4):
        tables.bind(prefix, tunnel, side=Side.ACCESS)
    for prefix in (HELD, HELD4):
        tables.hold(prefix)


def underlays() -> list[Tunnel]:
    """One of each kind: what stands before a packet on the wire."""
    ends = [{"local": HERE, "remote": ELSEWHERE}, {"local": HERE4, "remote": ELSEWHERE4}]
    gre = [{}, {"key_in": 7, "key_out": 0xFFFFFFFF}, {"sequence": True}, {"key_in": 0, "key_out": 9, "sequence": True}]
    made = []
    for pair in ends:
        made += [Tunnel(**pair, encapsulation=Encapsulation.UDP), Tunnel(**pair, encapsulation=Encapsulation.IP)]
        made += [Tunnel(**pair, encapsulation=Encapsulation.GRE, **more) for more in gre]
    return made


def name_of(tunnel: Tunnel) -> str:
    more = (" with keys" if tunnel.key_in is not None else "") + (" with numbers" if tunnel.sequence else "")
    return f"{tunnel.encapsulation.value} over IPv{tunnel.local.version}{more}"


UNDERLAYS = underlays()


def internet_checksum(octets: bytes) -> int:
    """RFC 1071, by the book."""
    octets += bytes(len(octets) % 2)
    total = sum(struct.unpack(f"!{len(octets) // 2}H", octets))
    while total >> 16:
        total = (total >> 16) + (total & 0xFFFF)
    return total ^ 0xFFFF


def with_checksum(octets: bytes, at: int, pseudo: bytes = b"") -> bytes:
    """The same with its checksum at that place made right."""
    zeroed = octets[:at] + b"\0\0" + octets[at + 2 :]
    return zeroed[:at] + internet_checksum(pseudo + zeroed).to_bytes(2, "big") + zeroed[at + 2 :]


def packet(
    source: AnyAddress,
    destination: AnyAddress,
    *,
    payload: bytes = b"payload!",
    protocol: int | None = None,
    traffic_class: int = 0,
    flow_label: int = 0,
    hop_limit: int = 63,
    payload_length: int | None = None,
    fragment: int = 0,
    options: bytes = b"",
) -> bytes:
    """An IP packet of the version of its addresses, with nothing known in it. fragment, options: of IPv4."""
    length = len(payload) if payload_length is None else payload_length
    if source.version == 6:
        number = NO_NEXT_HEADER if protocol is None else protocol
        first = 6 << 28 | traffic_class << 20 | flow_label
        return struct.pack("!IHBB", first, length, number, hop_limit) + source.packed + destination.packed + payload
    number = NOTHING_KNOWN if protocol is None else protocol
    header = 20 + len(options)
    first = struct.pack(
        "!BBHHHBBH", 0x40 | header // 4, traffic_class, header + length, 0, fragment, hop_limit, number, 0
    )
    return with_checksum(first + source.packed + destination.packed + options, 10) + payload


def pseudo_header(source: AnyAddress, destination: AnyAddress, protocol: int, length: int) -> bytes:
    return source.packed + destination.packed + struct.pack("!II", length, protocol)


def datagram(
    source: AnyAddress, destination: AnyAddress, ports: tuple[int, int], payload: bytes = b"", **more: int
) -> bytes:
    """A UDP packet, right in all its parts."""
    octets = struct.pack("!HHHH", *ports, 8 + len(payload), 0) + payload
    octets = with_checksum(octets, 6, pseudo_header(source, destination, UDP, len(octets)))
    return packet(source, destination, payload=octets, protocol=UDP, **more)


def segment(
    source: AnyAddress,
    destination: AnyAddress,
    *,
    ports: tuple[int, int] = (4000, 80),
    flags: int = 0x10,
    options: bytes = b"",
    payload: bytes = b"",
    sequence: int = 1,
    **more: int,
) -> bytes:
    """A TCP packet, right in all its parts. options: a multiple of 4 octets."""
    octets = struct.pack("!HHIIBBHHH", *ports, sequence, 1, (5 + len(options) // 4) << 4, flags, 65535, 0, 0)
    octets += options + payload
    octets = with_checksum(octets, 16, pseudo_header(source, destination, TCP, len(octets)))
    return packet(source, destination, payload=octets, protocol=TCP, **more)


def gre_header(version: int, key: int | None = None, sequence: int | None = None) -> bytes:
    flags = (0x2000 if key is not None else 0) | (0x1000 if sequence is not None else 0)
    fields = [number.to_bytes(4, "big") for number in (key, sequence) if number is not None]
    return struct.pack("!HH", flags, IN_GRE[version]) + b"".join(fields)


def outer(
    source: AnyAddress, destination: AnyAddress, protocol: int, payload: bytes, *, traffic_class: int = 0
) -> bytes:
    """An outer packet as a router makes it: hop limit 64, and over IPv4 no fragments."""
    fragment = DONT_FRAGMENT if source.version == 4 else 0
    return packet(
        source,
        destination,
        payload=payload,
        protocol=protocol,
        traffic_class=traffic_class,
        hop_limit=64,
        fragment=fragment,
    )


def wrapped(
    ends: tuple[AnyAddress, AnyAddress],
    encapsulation: Encapsulation,
    inner: bytes,
    *,
    ports: tuple[int, int] = (UDP_PORT, UDP_PORT),
    key: int | None = None,
    sequence: int | None = None,
    traffic_class: int = 0,
) -> bytes:
    """Inner in its outer headers, flow label 0."""
    version = inner[0] >> 4 if inner and inner[0] >> 4 in IN_IP else 6
    if encapsulation is Encapsulation.UDP:
        octets = struct.pack("!HHHH", *ports, 8 + len(inner) & 0xFFFF, 0) + inner
        octets = with_checksum(octets, 6, pseudo_header(*ends, UDP, len(octets)))
        return outer(*ends, UDP, octets, traffic_class=traffic_class)
    if encapsulation is Encapsulation.GRE:
        return outer(*ends, GRE, gre_header(version, key, sequence) + inner, traffic_class=traffic_class)
    return outer(*ends, IN_IP[version], inner, traffic_class=traffic_class)


def leaving(tunnel: Tunnel, inner: bytes, *, traffic_class: int = 0, sequence: int = 0) -> bytes:
    """Inner as we send it through tunnel, but for the flow label."""
    return wrapped(
        (tunnel.local, tunnel.remote),
        tunnel.encapsulation,
        inner,
        ports=(UDP_PORT, tunnel.port),
        key=tunnel.key_out,
        sequence=sequence if tunnel.sequence else None,
        traffic_class=traffic_class,
    )


def arriving(tunnel: Tunnel, inner: bytes, *, traffic_class: int = 0, sequence: int | None = None) -> bytes:
    """Inner as the other end of tunnel sends it to us."""
    return wrapped(
        (tunnel.remote, tunnel.local),
        tunnel.encapsulation,
        inner,
        ports=(tunnel.port, UDP_PORT),
        key=tunnel.key_in,
        sequence=sequence,
        traffic_class=traffic_class,
    )


def unlabelled(octets: bytes) -> bytes:
    """An IPv6 packet with flow label 0; any other as it is."""
    if octets[0] >> 4 != 6:
        return octets
    return (int.from_bytes(octets[:4], "big") & 0xFFF00000).to_bytes(4, "big") + octets[4:]


DOWN = packet(CORRESPONDENT, ANCHORED[5])  # to a node of ours that is away
UP = packet(VISITING[7], CORRESPONDENT)  # from a node that visits us
BACK = packet(ANCHORED[5], CORRESPONDENT)  # out of the tunnel at the anchor
HOME = packet(CORRESPONDENT, VISITING[7])  # out of the tunnel where the node is
DOWN4 = packet(CORRESPONDENT4, ANCHORED4[5])
UP4 = packet(VISITING4[7], CORRESPONDENT4)
BACK4 = packet(ANCHORED4[5], CORRESPONDENT4)
HOME4 = packet(CORRESPONDENT4, VISITING4[7])
