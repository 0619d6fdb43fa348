"""TCP is told segments that fit into the tunnel, on every engine."""

from __future__ import annotations

import random
import struct

import pytest

from engine import Engine, FlowRule, Path, Side, Spread, Steer, Tables
from tests.engine.nodes import (
    ANCHORED,
    ANCHORED4,
    CORRESPONDENT,
    CORRESPONDENT4,
    DESTINATION_OPTIONS,
    OTHER,
    TCP,
    TUNNEL,
    arriving,
    datagram,
    fill,
    packet,
    segment,
)

SYN, SYN_ACK, ACK, SYN_FIN = 0x02, 0x12, 0x10, 0x03
DOWNWARD = {6: (CORRESPONDENT, ANCHORED[5]), 4: (CORRESPONDENT4, ANCHORED4[5])}
UPWARD = {version: ends[::-1] for version, ends in DOWNWARD.items()}
OUTER = 48  # octets before the inner packet
MTU = 1400


@pytest.fixture
def clamping(tables: Tables) -> Engine:
    """An engine that holds segments down to packets of 1400 octets."""
    fill(tables)
    return Engine(tables, clamp_mss=MTU)


def mss(value: int) -> bytes:
    return struct.pack("!BBH", 2, 4, value)


def out(engine: Engine, octets: bytes) -> bytes:
    [[answer]] = engine.encapsulate([octets])
    return answer[OUTER:]


def back(engine: Engine, octets: bytes) -> bytes:
    [answer] = engine.decapsulate([arriving(TUNNEL, octets)])
    return answer


@pytest.mark.parametrize(("version", "most"), [(6, MTU - 60), (4, MTU - 40)])
@pytest.mark.parametrize("flags", [SYN, SYN_ACK, SYN_FIN, 0xC2])
def test_the_segment_size_of_a_syn_is_lowered_both_ways(clamping: Engine, version: int, most: int, flags: int) -> None:
    for value, result in ((1460, most), (65535, most), (most + 1, most), (most, most), (536, 536), (0, 0)):
        for way, ends in ((out, DOWNWARD[version]), (back, UPWARD[version])):
            asked = segment(*ends, flags=flags, options=mss(value))
            assert way(clamping, asked) == segment(*ends, flags=flags, options=mss(result)), value


@pytest.mark.parametrize("version", [6, 4])
def test_what_the_tunnel_is_known_to_take_counts_if_it_is_less(clamping: Engine, version: int) -> None:
    ends, headers = DOWNWARD[version], 60 if version == 6 else 40
    asked = segment(*ends, flags=SYN, options=mss(1460))
    for known, size in ((1300, 1300), (1240, 1240), (1500, MTU), (None, MTU)):
        clamping.tables.set_mtu(TUNNEL, known)
        assert out(clamping, asked) == segment(*ends, flags=SYN, options=mss(size - headers))


@pytest.mark.parametrize("version", [6, 4])
@pytest.mark.parametrize(
    ("before", "behind"),
    [
        (b"\1\1\1\1", b""),
        (b"\1", b"\1\1\1"),  # at an odd place: the value straddles two words of the checksum
        (b"\3\3\7\1", b"\4\2\1\1"),
        (b"\1\3\3\7\4\2\x08\x0a" + bytes(8), b""),
        (b"\2\3\0\1", b""),  # kind 2 of another length is something else
        (b"", b"\0" * 4),
    ],
)
def test_the_option_is_found_among_others(clamping: Engine, version: int, before: bytes, behind: bytes) -> None:
    ends, most = DOWNWARD[version], MTU - (60 if version == 6 else 40)

    def asked(value: int) -> bytes:
        return segment(*ends, flags=SYN, options=before + mss(value) + behind)

    assert out(clamping, asked(9000)) == asked(most)


@pytest.mark.parametrize("version", [6, 4])
@pytest.mark.parametrize(
    "options",
    [
        pytest.param(b"", id="none: nothing is added"),
        pytest.param(b"\0\1\1\1" + mss(9000), id="behind the end of the list"),
        pytest.param(b"\3\0\7\1" + mss(9000), id="behind an option of no length"),
        pytest.param(b"\3\1\7\1" + mss(9000), id="behind an option of length 1"),
        pytest.param(b"\3\x2a\7\1" + mss(9000), id="behind an option that leaves the header"),
        pytest.param(b"\1\1\2\4", id="value outside of the header"),
        pytest.param(b"\1\1\1\2", id="no length"),
    ],
)
def test_a_malformed_or_absent_option_stays_as_it_is(clamping: Engine, version: int, options: bytes) -> None:
    octets = segment(*DOWNWARD[version], flags=SYN, options=options)
    assert out(clamping, octets) == octets


@pytest.mark.parametrize("version", [6, 4])
def test_only_a_syn_is_touched(clamping: Engine, version: int) -> None:
    ends = DOWNWARD[version]
    for flags in (ACK, 0x01, 0x04, 0x18, 0):
        octets = segment(*ends, flags=flags, options=mss(9000))
        assert out(clamping, octets) == octets
    like_tcp = segment(*ends, flags=SYN, options=mss(9000))[40 if version == 6 else 20 :]
    octets = datagram(*ends, (4000, 80), like_tcp)
    assert out(clamping, octets) == octets


@pytest.mark.parametrize("version", [6, 4])
def test_a_tcp_header_that_is_cut_short_or_lies_is_left_alone(clamping: Engine, version: int) -> None:
    ends = DOWNWARD[version]
    header = segment(*ends, flags=SYN, options=mss(9000))[40 if version == 6 else 20 :]
    for octets in (header[:19], header[:23], header[:12] + b"\xf0" + header[13:], header[:12] + b"\x40" + header[13:]):
        whole = packet(*ends, payload=octets, protocol=TCP)
        assert out(clamping, whole) == whole


def test_a_syn_behind_extension_headers_is_found(clamping: Engine) -> None:
    ends = DOWNWARD[6]

    def asked(value: int) -> bytes:
        tcp = segment(*ends, flags=SYN, options=mss(value))[40:]
        header = struct.pack("!BB6s", DESTINATION_OPTIONS, 0, b"\1\4") + struct.pack("!BB6s", TCP, 0, b"\1\4")
        return packet(*ends, payload=header + tcp, protocol=0)

    assert out(clamping, asked(9000)) == asked(MTU - 60)


def test_ipv4_options_before_a_syn_are_passed_over(clamping: Engine) -> None:
    ends = DOWNWARD[4]

    def asked(value: int) -> bytes:
        return segment(*ends, flags=SYN, options=mss(value))

    tcp = asked(9000)[20:], asked(MTU - 40)[20:]
    before, after = (packet(*ends, payload=octets, protocol=TCP, options=b"\x94\4\0\0") for octets in tcp)
    assert out(clamping, before) == after


def test_a_later_fragment_is_no_tcp_header(clamping: Engine) -> None:
    tcp = segment(*DOWNWARD[4], flags=SYN, options=mss(9000))[20:]
    octets = packet(*DOWNWARD[4], payload=tcp, protocol=TCP, fragment=100)
    assert out(clamping, octets) == octets
    header = struct.pack("!BBHI", TCP, 0, 800, 7)
    octets = packet(
        *DOWNWARD[6], payload=header + segment(*DOWNWARD[6], flags=SYN, options=mss(9000))[40:], protocol=44
    )
    assert out(clamping, octets) == octets


def test_without_being_asked_for_it_an_engine_leaves_segments_alone(any_engine: Engine) -> None:
    any_engine.tables.set_mtu(TUNNEL, 1300)
    octets = segment(*DOWNWARD[6], flags=SYN, options=mss(9000))
    assert out(any_engine, octets) == octets
    assert back(any_engine, segment(*UPWARD[6], flags=SYN, options=mss(9000)))[-2:] == (9000).to_bytes(2, "big")


def test_a_tunnel_too_small_for_any_segment_changes_nothing(tables: Tables) -> None:
    fill(tables)
    octets = segment(*DOWNWARD[6], flags=SYN, options=mss(1460))
    assert out(Engine(tables, clamp_mss=60), octets) == octets
    assert out(Engine(tables, clamp_mss=61), octets) == segment(*DOWNWARD[6], flags=SYN, options=mss(1))


def test_the_checksum_stays_right_for_every_value_and_place(clamping: Engine, dice: random.Random) -> None:
    for _ in range(300):
        ends = dice.choice(list(DOWNWARD.values()))
        front = b"\1" * dice.randrange(4)
        rest = b"\1" * (4 - len(front))
        value, sequence = dice.randrange(1341, 65536), dice.randrange(1 << 32)
        more = {"flags": SYN, "payload": dice.randbytes(dice.randrange(9)), "sequence": sequence}
        most = MTU - (60 if ends[0].version == 6 else 40)
        wanted = segment(*ends, options=front + mss(min(value, most)) + rest, **more)
        assert out(clamping, segment(*ends, options=front + mss(value) + rest, **more)) == wanted


def test_a_copy_of_a_syn_is_told_no_more_than_those_before_it(tables: Tables) -> None:
    engine = Engine(tables, clamp_mss=MTU)
    bundle = tables.bundle([Path(TUNNEL, bid=1), Path(OTHER, bid=2)])
    policy = tables.policy([FlowRule(None, Steer(spread=Spread.BICAST))])
    tables.bind(ANCHORED, bundle, side=Side.ANCHOR, policy=policy)
    tables.set_mtu(TUNNEL, 1300)
    [copies] = engine.encapsulate([segment(*DOWNWARD[6], flags=SYN, options=mss(9000))])
    assert [copy[OUTER:] for copy in copies] == [segment(*DOWNWARD[6], flags=SYN, options=mss(1240))] * 2
