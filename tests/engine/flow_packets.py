"""Packets with extension headers, fragments, ICMP errors and faults, for the tests of flows, rules and spread."""

from __future__ import annotations

import random
from ipaddress import IPv4Address, IPv6Address

HOSTS6 = [IPv6Address(f"2001:db8:{n}::{n}") for n in range(1, 5)]
HOSTS4 = [IPv4Address(f"192.0.2.{n}") for n in range(1, 5)]
PORTS = [0, 53, 80, 443, 5004, 65535]


def ip6(
    source: IPv6Address, destination: IPv6Address, next_header: int, payload: bytes, *, word: int = 0, length: int = -1
) -> bytes:
    """word: traffic class << 20 | flow label. length: what the header says; -1: the truth."""
    said = len(payload) if length < 0 else length
    head = (6 << 28 | word).to_bytes(4, "big") + said.to_bytes(2, "big") + bytes([next_header, 64])
    return head + source.packed + destination.packed + payload


def ip4(
    source: IPv4Address,
    destination: IPv4Address,
    protocol: int,
    payload: bytes,
    *,
    field: int = 0,
    identification: int = 0,
    fragment: int = 0,
    options: bytes = b"",
) -> bytes:
    """field: DS and ECN. fragment: flags and offset. The checksum is nobody's business here."""
    head = bytes([0x45 + len(options) // 4, field]) + (20 + len(options) + len(payload)).to_bytes(2, "big")
    head += identification.to_bytes(2, "big") + fragment.to_bytes(2, "big") + bytes([64, protocol, 0, 0])
    return head + source.packed + destination.packed + options + payload


def ports(source: int, destination: int) -> bytes:
    """The beginning of a UDP header, and something behind it."""
    return source.to_bytes(2, "big") + destination.to_bytes(2, "big") + bytes(4) + b"payload."


def options(next_header: int, words: int = 0) -> bytes:
    """Hop-by-Hop or Destination Options, or a routing header, of 8 + 8 * words octets."""
    return bytes([next_header, words]) + bytes(6 + 8 * words)


def fragment(next_header: int, offset: int, more: int, identification: int) -> bytes:
    """offset: octets, a multiple of 8."""
    return bytes([next_header, 0]) + (offset | more).to_bytes(2, "big") + identification.to_bytes(4, "big")


def authentication(next_header: int, spi: int) -> bytes:
    return bytes([next_header, 4, 0, 0]) + spi.to_bytes(4, "big") + bytes(16)


def upper(dice: random.Random, protocol: int) -> bytes:
    if protocol in (1, 58):
        return bytes([dice.choice([0, 1, 2, 3, 4, 5, 8, 11, 12, 128, 129, 135]), 0, 0, 0]) + bytes(4)
    return ports(dice.choice(PORTS), dice.choice(PORTS))[: dice.choice([16, 16, 16, 16, 8, 4, 3, 0])]


def chain(dice: random.Random, protocol: int, payload: bytes) -> tuple[int, bytes]:
    """Up to a few extension headers in front, sometimes absurdly many."""
    for _ in range(dice.choice([0, 0, 0, 0, 1, 1, 2, 3, 18])):
        kind = dice.choice([0, 43, 44, 44, 51, 60])
        if kind == 44:
            more, offset = dice.choice([(0, 0), (1, 0), (1, 0), (1, 1480), (0, 1480), (0, 1480)])
            payload = fragment(protocol, offset, more, dice.randrange(4)) + payload
        elif kind == 51:
            payload = authentication(protocol, dice.randrange(4)) + payload
        else:
            payload = options(protocol, dice.choice([0, 0, 1, 3, 255])) + payload[: dice.choice([2000, 2000, 4])]
        protocol = kind
    return protocol, payload


def packet(dice: random.Random, *, depth: int = 0) -> bytes:
    """Any packet: well formed, cut short, or with an octet changed. Its fixed header is whole."""
    four = dice.random() < 0.4
    protocol = dice.choice([6, 6, 17, 17, 17, 17, 33, 50, 58, 1, 59, 132, 135, 136, 47, 51, 0, 253])
    payload = upper(dice, protocol)
    if protocol in (1, 58) and depth == 0:
        payload = payload.ljust(8, b"\0") + packet(dice, depth=1)[: dice.choice([2000, 2000, 48, 28, 20, 10])]
    if four:
        if dice.random() < 0.2:
            protocol, payload = 51, authentication(protocol, dice.randrange(4)) + payload
        octets = ip4(
            *dice.sample(HOSTS4, 2),
            protocol,
            payload,
            field=dice.choice([0, 0, 0xB8, 0xBB, 3]),
            identification=dice.randrange(4),
            fragment=dice.choice([0, 0, 0, 0x4000, 0x2000, 0x2000, 185, 0x2000 | 185]),
            options=bytes(dice.choice([0, 0, 0, 4, 40])),
        )
    else:
        protocol, payload = chain(dice, protocol, payload)
        word = dice.choice([0, 0, 0xB8, 0xBB, 3]) << 20 | dice.choice([0, 0, 1, 0xFFFFF])
        octets = ip6(*dice.sample(HOSTS6, 2), protocol, payload, word=word)
    whole = 20 if four else 40
    if dice.random() < 0.15:
        octets = octets[: dice.randrange(whole, len(octets) + 1)]
    if dice.random() < 0.15:
        changed = bytearray(octets)
        changed[dice.randrange(1, len(octets))] ^= 1 << dice.randrange(8)
        octets = bytes(changed)
    return octets
