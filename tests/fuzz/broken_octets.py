"""Octets as a broken or hostile sender makes them, as hypothesis strategies.

Any octets; any octets behind a head that lets them past the first checks; and seeds spoiled: bits turned, cut, spliced,
options doubled, dropped or put elsewhere, lengths that lie. What is spoiled often gets its outer length made right
again, so that it comes as far as the options.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Final, NamedTuple

from hypothesis import strategies as st

from signaling.iana import Dhcpv6Option, Ipv6Option, ProtocolNumber
from signaling.wire import dhcpv4, ipv6, mobility_header, neighbor
from signaling.wire.options import KINDS
from tests.fuzz.doors import HERE, THERE
from tests.fuzz.seeds import DHCPV4, SEEDS

ANY: Final = st.binary(max_size=120)
TELLING: Final = (0, 1, 2, 4, 16, 18, 127, 128, 254, 255)  # values of a length that are likely to be taken wrongly
_DHCPV4_HEAD: Final = 240  # octets
_DHCPV6_HEAD: Final = 4  # octets


# --- any octets, behind a likely head -----------------------------------------------------------------------


def options(types: Iterable[int], data: st.SearchStrategy[bytes], head: str = "!BB") -> st.SearchStrategy[bytes]:
    """Some options of these types with such data. head: struct codes of type and length, the length in octets."""
    one = st.builds(
        lambda number, octets: struct.pack(head, number, len(octets)) + octets, st.sampled_from([*types]), data
    )
    return st.lists(one, max_size=5).map(b"".join)


def exactly(size: int) -> st.SearchStrategy[bytes]:
    """So many octets, the first of them often small: it may be a type."""
    return st.one_of(st.binary(min_size=size, max_size=size), st.integers(0, 4).map(lambda n: bytes([n] * size)))


SUBOPTIONS: Final = options(range(6), st.binary(max_size=20))
SHORT: Final = st.binary(max_size=24)
NESTED: Final = st.builds(bytes.__add__, st.binary(max_size=8), SUBOPTIONS)
ASSOCIATION: Final = st.builds(bytes.__add__, exactly(12), options(Dhcpv6Option, st.binary(max_size=30), "!HH"))


@st.composite
def mobility_headers(draw: st.DrawFn) -> bytes:
    """A Mobility Header of a known type with any data, in any options; or any data at all."""
    if draw(st.booleans()):
        number, rest = draw(st.integers(0, 24)), draw(st.binary(min_size=2, max_size=80))
    else:
        number, kind = draw(st.sampled_from([*mobility_header.KINDS.items()]))
        rest = draw(exactly(kind.LAYOUT.size)) + draw(options(KINDS, st.one_of(SHORT, NESTED)))
    return told_right("mobility_header", bytes((59, 0, number, 0, 0, 0)) + rest)


@st.composite
def icmpv6_messages(draw: st.DrawFn) -> bytes:
    """An ICMPv6 message with any data, in any options if it is neighbor discovery."""
    if draw(st.booleans()):
        number = draw(st.one_of(st.sampled_from([*neighbor.MLD, *neighbor.OTHERS]), st.integers(0, 255)))
        return bytes((number, draw(st.sampled_from([0, 0, 0, 1])), 0, 0)) + draw(st.binary(max_size=96))
    number, kind = draw(st.sampled_from([*neighbor.ND.items()]))
    octets = bytes((number, 0, 0, 0)) + draw(exactly(kind.LAYOUT.size))
    for option in draw(st.lists(st.sampled_from([*neighbor.OPTION_KINDS]), max_size=4)):
        units = draw(st.integers(1, 4))
        octets += bytes((option, units)) + draw(exactly(8 * units - 2))
    return octets


@st.composite
def packets(draw: st.DrawFn) -> bytes:
    """Any data in an IPv6 packet, as extension headers or as payload."""
    rest = draw(st.binary(max_size=96))
    first = draw(st.sampled_from([0, 43, 44, 51, 60, 135, 58, 59, 17]))
    return bytes((0x60, 0, 0, 0, 0, len(rest), first, 64)) + HERE.packed + THERE.packed + rest


@st.composite
def ipv4_datagrams(draw: st.DrawFn) -> bytes:
    """Any data in an IPv4 packet said to be UDP."""
    rest = draw(st.binary(max_size=96))
    return bytes((0x45, 0, 0, 20 + len(rest), 0, 0, 0, 0, 64, ProtocolNumber.UDP, 0, 0, *range(8))) + rest


def behind(head: bytes) -> st.SearchStrategy[bytes]:
    """Any data behind a head that is right."""
    return st.binary(max_size=120).map(head.__add__)


LIKELY: Final[dict[str, st.SearchStrategy[bytes]]] = {
    "mobility_header": mobility_headers(),
    "mobility_header_in_udp": mobility_headers(),
    "signed": mobility_headers(),
    "neighbor": icmpv6_messages(),
    "neighbor_without_address": icmpv6_messages(),
    "listener": icmpv6_messages(),
    "ipv6": packets(),
    "udp": st.one_of(packets(), ipv4_datagrams()),
    "arp": behind(bytes.fromhex("0001080006 04")),
    "dhcpv4": st.one_of(SHORT, options(dhcpv4.OPTIONS, st.sampled_from((0, 1, 2, 4)).flatmap(exactly))).map(
        (DHCPV4[0][:_DHCPV4_HEAD] + bytes.fromhex("350101")).__add__
    ),
    "dhcpv6": st.one_of(SHORT, options(Dhcpv6Option, st.one_of(SHORT, ASSOCIATION), "!HH")).map(b"\1\0\0\1".__add__),
    "traffic_selector": st.sampled_from([1, 2]).flatmap(lambda form: behind(bytes((form, 0)))),
}


def any_octets(door: str) -> st.SearchStrategy[bytes]:
    """Any octets for a door, with a likely head or none."""
    return st.one_of(ANY, LIKELY[door]) if door in LIKELY else ANY


# --- seeds, spoiled -----------------------------------------------------------------------------------------


class Option(NamedTuple):
    """Where an option stands, and where the last octet of its length."""

    start: int
    length: int
    end: int


def options_in(door: str, octets: bytes) -> list[Option]:
    """Give the options of a message that came in by this door, as far as their lengths lead."""
    walk = _WALKS.get(door)
    return list(walk(octets)) if walk else []


def _octet_options(octets: bytes, start: int, pads: tuple[int, ...] = (0,)) -> Iterator[Option]:
    # type, length of the data in octets; Pad1 has no length
    at = start
    while at + 1 < len(octets):
        end = at + 1 if octets[at] in pads else at + 2 + octets[at + 1]
        if end > at + 1:
            yield Option(at, at + 1, min(end, len(octets)))
        at = end


def _mobility_options(octets: bytes) -> Iterator[Option]:
    kind = mobility_header.KINDS.get(octets[2]) if len(octets) > 2 else None
    if kind is not None:
        yield from _octet_options(octets, mobility_header.HEADER + kind.LAYOUT.size)


def _neighbor_options(octets: bytes) -> Iterator[Option]:
    kind = neighbor.ND.get(octets[0]) if octets else None
    at = 4 + kind.LAYOUT.size if kind is not None else len(octets)
    while at + 1 < len(octets):
        end = at + 8 * max(1, octets[at + 1])
        yield Option(at, at + 1, min(end, len(octets)))
        at = end


def _dhcpv6_options(octets: bytes) -> Iterator[Option]:
    at = _DHCPV6_HEAD
    while at + 3 < len(octets):
        end = at + 4 + int.from_bytes(octets[at + 2 : at + 4], "big")
        yield Option(at, at + 3, min(end, len(octets)))
        at = end


def _packet_options(octets: bytes) -> Iterator[Option]:
    # of the first extension header, if it has options
    if len(octets) > ipv6.HEADER and octets[6] in (ProtocolNumber.HOP_BY_HOP, ProtocolNumber.DESTINATION_OPTIONS):
        yield from _octet_options(octets, ipv6.HEADER + 2, (Ipv6Option.PAD1,))


_WALKS: Final[dict[str, Callable[[bytes], Iterator[Option]]]] = {
    **dict.fromkeys(("mobility_header", "mobility_header_in_udp", "signed"), _mobility_options),
    **dict.fromkeys(("neighbor", "neighbor_without_address"), _neighbor_options),
    "ipv6": _packet_options,
    "dhcpv4": partial(_octet_options, start=_DHCPV4_HEAD),
    "dhcpv6": _dhcpv6_options,
}

Harm = Callable[[st.DrawFn, str, bytes], bytes]


def turn_a_bit(draw: st.DrawFn, door: str, octets: bytes) -> bytes:
    """Turn one bit."""
    at = draw(st.integers(0, len(octets) - 1))
    return octets[:at] + bytes([octets[at] ^ 1 << draw(st.integers(0, 7))]) + octets[at + 1 :]


def write_an_octet(draw: st.DrawFn, door: str, octets: bytes) -> bytes:
    """Write another octet."""
    at = draw(st.integers(0, len(octets) - 1))
    return octets[:at] + bytes([draw(st.integers(0, 255))]) + octets[at + 1 :]


def cut(draw: st.DrawFn, door: str, octets: bytes) -> bytes:
    """Cut the end off."""
    return octets[: draw(st.integers(0, len(octets)))]


def splice(draw: st.DrawFn, door: str, octets: bytes) -> bytes:
    """Go on with the end of another message."""
    other = draw(st.sampled_from(SEEDS[door]))
    return octets[: draw(st.integers(0, len(octets)))] + other[draw(st.integers(0, len(other))) :]


def double_an_option(draw: st.DrawFn, door: str, octets: bytes) -> bytes:
    """Put an option, or any octets where there is none, in a second time, a few times over, anywhere."""
    start, end = _part(draw, door, octets)
    places = [option.start for option in options_in(door, octets)] or [end]
    at = draw(st.sampled_from(places))
    return octets[:at] + octets[start:end] * draw(st.sampled_from([1, 1, 1, 2, 9])) + octets[at:]


def drop_an_option(draw: st.DrawFn, door: str, octets: bytes) -> bytes:
    """Leave an option out."""
    start, end = _part(draw, door, octets)
    return octets[:start] + octets[end:]


def lie_about_a_length(draw: st.DrawFn, door: str, octets: bytes) -> bytes:
    """Give an option, or the whole, a length it does not have."""
    places = [option.length for option in options_in(door, octets)] + [min(1, len(octets) - 1)]
    at = draw(st.sampled_from(places))
    near = [octets[at] + by & 0xFF for by in (-2, -1, 1, 2)]
    return octets[:at] + bytes([draw(st.sampled_from([*near, *TELLING]))]) + octets[at + 1 :]


def _part(draw: st.DrawFn, door: str, octets: bytes) -> tuple[int, int]:
    parts = [(option.start, option.end) for option in options_in(door, octets)]
    if parts:
        return draw(st.sampled_from(parts))
    start = draw(st.integers(0, len(octets) - 1))
    return start, draw(st.integers(start, min(len(octets), start + 24)))


HARMS: Final[tuple[Harm, ...]] = (
    turn_a_bit,
    write_an_octet,
    cut,
    splice,
    double_an_option,
    drop_an_option,
    lie_about_a_length,
)


def told_right(door: str, octets: bytes) -> bytes:
    """Make the outer length right again, padding included."""
    if door in _WALKS and _WALKS[door] is _mobility_options and 8 <= len(octets) <= 2048:
        octets += bytes(-len(octets) % 8)
        return octets[:1] + bytes([len(octets) // 8 - 1]) + octets[2:]
    if door == "ipv6" and len(octets) >= ipv6.HEADER:
        return octets[:4] + (len(octets) - ipv6.HEADER).to_bytes(2, "big") + octets[6:]
    return octets


@st.composite
def spoiled(draw: st.DrawFn, door: str) -> bytes:
    """A seed of a door with up to four harms done to it; with none, too."""
    octets = draw(st.sampled_from(SEEDS[door]))
    for harm in draw(st.lists(st.sampled_from(HARMS), max_size=4)):
        octets = harm(draw, door, octets) if octets else octets
    return told_right(door, octets) if draw(st.booleans()) else octets
