"""Packets of every shape between the addresses of tests/engine/nodes.py, inner and outer; and the same, spoiled.

Most are right in all their parts, so that they come far; spoiled ones are often made right again in what is checked
first (IPv4 header checksum, length), so that they come far too.
"""

from __future__ import annotations

import random
import struct
from ipaddress import IPv4Address, IPv6Address

from engine import Tunnel
from tests.engine import flow_packets
from tests.engine.nodes import (
    ANCHORED,
    ANCHORED4,
    CORRESPONDENT,
    CORRESPONDENT4,
    DONT_FRAGMENT,
    GRE,
    HELD,
    HELD4,
    HERE,
    HERE4,
    ICMP,
    ICMP6,
    NO_NEXT_HEADER,
    NOTHING_KNOWN,
    STRANGER,
    STRANGER4,
    TCP,
    UDP,
    VISITING,
    VISITING4,
    AnyAddress,
    arriving,
    datagram,
    packet,
    pseudo_header,
    segment,
    with_checksum,
)

NODES6 = [ANCHORED[5], ANCHORED[6], VISITING[7], CORRESPONDENT, CORRESPONDENT, HELD[9], STRANGER, HERE]
NODES4 = [ANCHORED4[5], ANCHORED4[6], VISITING4[7], CORRESPONDENT4, CORRESPONDENT4, HELD4[9], STRANGER4, HERE4]
ODD6 = [IPv6Address(text) for text in ("::", "::1", "fe80::1", "ff02::1", "ff0e::1", "::ffff:10.1.0.5")]
ODD4 = [IPv4Address(text) for text in ("0.0.0.0", "127.0.0.1", "169.254.1.1", "224.0.0.1", "239.1.2.3")]
PORTS = [0, 53, 80, 443, 4000, 5437, 65535]
SIZES = [0, 0, 1, 2, 7, 8, 40, 100, 536, 1200, 1232, 1280, 1400, 1460]
LARGE = [9000, 30000, 65000, 65467, 65495]
SYN = 2


def inner(dice: random.Random, *, depth: int = 0) -> bytes:
    """A packet that is right in all its parts."""
    six = dice.random() < 0.6
    nodes, odd = (NODES6, ODD6) if six else (NODES4, ODD4)
    source, destination = dice.choice(nodes), dice.choice(nodes)
    if dice.random() < 0.03:
        source = dice.choice(odd)
    elif dice.random() < 0.03:
        destination = dice.choice(odd)
    more: dict = {"traffic_class": dice.choice([0, 0, 0, 0xB8, 1, 2, 3, 0xBB])}
    more["hop_limit"] = dice.choice([63, 63, 63, 63, 63, 1, 255, 0])
    if six:
        more["flow_label"] = dice.choice([0, 0, 1, 0xFFFFF])
    else:
        more["fragment"] = dice.choice([0, DONT_FRAGMENT, DONT_FRAGMENT, 0x2000, 0x2000 | 185, 185])
        if dice.random() < 0.15:
            more["options"] = bytes([1] * dice.choice([4, 8, 40]))
    payload = dice.randbytes(dice.choice(SIZES) if dice.random() < 0.99 else dice.choice(LARGE))
    kind = dice.random()
    if kind < 0.35:
        return tcp(dice, source, destination, payload, more)
    if kind < 0.6:
        ports = dice.choice(PORTS), dice.choice(PORTS)
        return datagram(source, destination, ports, payload[: 65507 if more.get("options") is None else 65400], **more)
    if kind < 0.75 and depth == 0:
        return icmp(dice, source, destination, more)
    protocol = dice.choice([TCP, UDP, GRE, ICMP, ICMP6, 50, 51, 132, 135, NO_NEXT_HEADER, NOTHING_KNOWN])
    upper = flow_packets.upper(dice, protocol)
    if six:
        protocol, upper = flow_packets.chain(dice, protocol, upper)
    elif dice.random() < 0.2:
        protocol, upper = 51, flow_packets.authentication(protocol, 7) + upper
    return packet(source, destination, payload=upper, protocol=protocol, **more)


def tcp(dice: random.Random, source: AnyAddress, destination: AnyAddress, payload: bytes, more: dict) -> bytes:
    """SYN with options of every kind now and then: the maximum segment size is what the engine changes."""
    flags = dice.choice([0x10, 0x10, 0x10, 0x18, 0x11, SYN, SYN, SYN | 0x10, 0x14, 0xFF])
    options = b""
    if flags & SYN:
        kinds = [
            b"\x02\x04" + dice.choice([0, 536, 1220, 1460, 8960, 65535]).to_bytes(2, "big"),
            b"\x01",
            b"\x03\x03\x07",
            b"\x04\x02",
            b"\x08\x0a" + bytes(8),
            b"\x02\x04",
            b"\x02\x03\x05",
            b"\x05\x00",
            b"\x00",
            bytes([dice.randrange(256), dice.randrange(48)]),
        ]
        options = b"".join(dice.choices(kinds, k=dice.randrange(6)))[:40]
        options += bytes(-len(options) % 4)
    room = 65535 - 20 - 20 - len(options)
    ports = dice.choice(PORTS), dice.choice(PORTS)
    more = {name: value for name, value in more.items() if name != "options"}  # those of IPv4
    return segment(source, destination, ports=ports, flags=flags, options=options, payload=payload[:room], **more)


def icmp(dice: random.Random, source: AnyAddress, destination: AnyAddress, more: dict) -> bytes:
    """An echo, a neighbour message or an error that quotes a packet, all of it or too little."""
    six = source.version == 6
    kind = dice.choice([0, 1, 2, 3, 4, 8, 11, 128, 129, 133, 136])
    body = struct.pack("!BBHI", kind, dice.choice([0, 0, 4]), 0, dice.choice([0, 1280, 1400]))
    body += inner(dice, depth=1)[: dice.choice([0, 8, 20, 28, 40, 48, 1232])]
    body = with_checksum(body, 2, pseudo_header(source, destination, ICMP6, len(body)) if six else b"")
    return packet(source, destination, payload=body, protocol=ICMP6 if six else ICMP, **more)


def outer(dice: random.Random, tunnels: list[Tunnel]) -> bytes:
    """A packet, spoiled or not, as the other end of one of these tunnels sends it, or somebody like it."""
    tunnel = dice.choice(tunnels)
    octets = inner(dice)
    if dice.random() < 0.3:
        octets = spoiled(dice, octets)
    sequence = dice.choice([None, 0, 1, 0xFFFFFFFF, dice.randrange(1 << 32)])
    arrived = arriving(tunnel, octets[:65000], traffic_class=dice.randrange(256), sequence=sequence)
    return spoiled(dice, arrived) if dice.random() < 0.4 else arrived


def spoiled(dice: random.Random, octets: bytes) -> bytes:
    """With a few octets changed, cut out, doubled, cut off or added; what is checked first is often right again."""
    made = bytearray(octets)
    for _ in range(dice.choice([1, 1, 1, 2, 5])):
        WAYS[dice.randrange(len(WAYS))](dice, made)
    return repaired(bytes(made)) if dice.random() < 0.6 else bytes(made)


def repaired(octets: bytes) -> bytes:
    """The length is that of the packet again, and the checksum of an IPv4 header right."""
    if len(octets) >= 40 and octets[0] >> 4 == 6 and len(octets) <= 65575:
        return octets[:4] + (len(octets) - 40).to_bytes(2, "big") + octets[6:]
    header = 4 * (octets[0] & 15) if octets else 0
    if 20 <= header <= len(octets) <= 65535 and octets[0] >> 4 == 4:
        octets = octets[:2] + len(octets).to_bytes(2, "big") + octets[4:]
        return with_checksum(octets[:header], 10) + octets[header:]
    return octets


def place(dice: random.Random, made: bytearray) -> int:
    """Somewhere, mostly in the headers."""
    return dice.randrange(len(made) if dice.random() < 0.2 else min(len(made), 100))


def flip(dice: random.Random, made: bytearray) -> None:
    if made:
        made[place(dice, made)] ^= 1 << dice.randrange(8)


def overwrite(dice: random.Random, made: bytearray) -> None:
    if made:
        at = place(dice, made)
        value = dice.choice([0, 0xFF, 0x7F, 0x80, dice.randrange(256)])
        made[at : at + dice.choice([1, 1, 2, 4])] = bytes([value]) * len(made[at : at + dice.choice([1, 2, 4])])


def cut_off(dice: random.Random, made: bytearray) -> None:
    del made[dice.randrange(len(made) + 1) if dice.random() < 0.3 else min(len(made), dice.randrange(100)) :]


def cut_out(dice: random.Random, made: bytearray) -> None:
    if made:
        at = place(dice, made)
        del made[at : at + dice.choice([1, 2, 8, 20, 40])]


def double(dice: random.Random, made: bytearray) -> None:
    if made:
        at = place(dice, made)
        made[at:at] = made[at : at + dice.choice([1, 4, 8, 20, 40])]


def add(dice: random.Random, made: bytearray) -> None:
    made += dice.randbytes(dice.choice([1, 2, 8, 100]))


WAYS = [flip, flip, flip, overwrite, overwrite, cut_off, cut_out, double, add]
