"""Which TCP connections of a visiting prefix are open: by the segments that pass, whichever way, however long ago."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv6Address, IPv6Network
from typing import Any

import pytest

import engine
from engine import Encapsulation, Engine, HoldBuffer, OpenConnections, Side, Tables, Tunnel, UnknownPrefix
from engine.model.connections import ACK, DOWN, FIN, RST, SETS, SYN, TRANSITORY, UP, WAYS, Connections
from engine.model.flows import mix
from tests.engine.flow_packets import authentication, fragment, options
from tests.engine.nodes import (
    ANCHORED,
    CORRESPONDENT,
    CORRESPONDENT4,
    HERE,
    TCP,
    TUNNEL,
    VISITING,
    VISITING4,
    AnyAddress,
    arriving,
    datagram,
    fill,
    packet,
    segment,
)
from tests.engine.nodes import OTHER as OTHER_TUNNEL

if engine.compiled:
    from engine._fast.connections import Trial

HOUR = 36_000  # 0.1 s
LIMIT = 74_400  # 0.1 s
LONG = 7440.0  # s
PREFIX, OTHER = 0x1234567890ABCDEF, 0xFEDCBA0987654321  # hashes
FLOW = 0x0123456789ABCDEF
NODE, NODE4 = VISITING[7], VISITING4[7]


@pytest.fixture(params=["model", "compiled"] if engine.compiled else ["model"])
def trial(request: pytest.FixtureRequest) -> Any:
    made = Trial() if request.param == "compiled" else Connections()
    made.follow(LIMIT)
    return made


def said(trial: Any, *segments: tuple[int, int], flow: int = FLOW, prefix: int = PREFIX, clock: int = HOUR) -> int:
    """Segments (way, flags) pass, one a tenth of a second. How many connections of the prefix are open afterwards."""
    for step, (way, flags) in enumerate(segments):
        trial.see(prefix, flow, way, flags, clock + step)
    number: int = trial.count(prefix, clock + len(segments))[0]
    return number


HANDSHAKE = (UP, SYN), (DOWN, SYN | ACK), (UP, ACK)
SERVED = (DOWN, SYN), (UP, SYN | ACK), (DOWN, ACK)
CLOSING = (UP, FIN | ACK), (DOWN, FIN | ACK), (UP, ACK)


# --- what is open --------------------------------------------------------------------------------------


@pytest.mark.parametrize("shake", [HANDSHAKE, SERVED], ids=["asked", "served"])
def test_a_connection_is_open_after_its_handshake(trial: Any, shake: tuple[tuple[int, int], ...]) -> None:
    assert [said(trial, *shake[:n]) for n in range(4)] == [0, 0, 0, 1]


def test_a_stream_that_was_not_seen_to_begin_is_open_when_the_node_acknowledges(trial: Any) -> None:
    assert said(trial, (UP, ACK)) == 1
    assert said(trial, (DOWN, ACK), flow=FLOW + 1) == 1
    assert said(trial, (DOWN, ACK), (UP, ACK), flow=FLOW + 1) == 2


@pytest.mark.parametrize(
    "scan",
    [
        [(UP, SYN)] * 6,
        [(DOWN, SYN)] * 6,
        [(DOWN, SYN), (UP, SYN | ACK), (DOWN, RST)],
        [(DOWN, SYN), (UP, SYN | ACK), (UP, SYN | ACK)],
        [(DOWN, ACK)] * 3,
        [(DOWN, ACK), (UP, RST)],
        [(DOWN, 0)] * 3,
        [(UP, 0)] * 3,
        [(DOWN, FIN)],
        [(DOWN, FIN | ACK)],
        [(DOWN, RST)],
        [(DOWN, SYN | ACK)],
        [(UP, SYN), (DOWN, RST | ACK)],
    ],
)
def test_what_nobody_agrees_to_is_not_open(trial: Any, scan: list[tuple[int, int]]) -> None:
    assert said(trial, *scan) == 0


def test_a_connection_is_open_as_long_as_the_limit_says_and_no_longer(trial: Any) -> None:
    said(trial, *HANDSHAKE)
    last = HOUR + 2
    assert trial.count(PREFIX, last + LIMIT - 1) == (1, LIMIT - 1)
    assert trial.count(PREFIX, last + LIMIT) == (0, None)


def test_each_packet_puts_its_end_off(trial: Any) -> None:
    said(trial, *HANDSHAKE)
    for step in range(1, 5):
        assert said(trial, (DOWN, ACK), clock=HOUR + step * (LIMIT - 10)) == 1


def test_one_that_was_taken_for_dead_lives_when_its_node_says_something(trial: Any) -> None:
    said(trial, *HANDSHAKE)
    assert said(trial, (DOWN, ACK), clock=HOUR + 2 * LIMIT) == 0
    assert said(trial, (UP, ACK), clock=HOUR + 2 * LIMIT + 1) == 1


def test_a_packet_from_the_future_of_another_worker_is_as_good_as_now(trial: Any) -> None:
    said(trial, *HANDSHAKE)
    trial.see(PREFIX, FLOW, DOWN, ACK, HOUR - 1)
    assert trial.count(PREFIX, HOUR - 1) == (1, 0)


def test_connections_are_counted_for_their_own_prefix(trial: Any) -> None:
    said(trial, *HANDSHAKE)
    said(trial, *HANDSHAKE, flow=FLOW + 1)
    said(trial, *HANDSHAKE, prefix=OTHER)
    assert (trial.count(PREFIX, HOUR + 9), trial.count(OTHER, HOUR + 9)) == ((2, 7), (1, 7))


# --- how it ends ---------------------------------------------------------------------------------------


def test_a_connection_is_closed_when_both_ends_have_finished(trial: Any) -> None:
    assert [said(trial, *HANDSHAKE, *CLOSING[:n]) for n in range(4)] == [1, 1, 0, 0]


def test_whatever_is_still_on_its_way_does_not_open_a_closed_one(trial: Any) -> None:
    both = (UP, ACK), (DOWN, ACK)
    again = (UP, FIN | ACK), (DOWN, FIN | ACK), (DOWN, SYN | ACK), (DOWN, RST), (UP, RST), (UP, 0)
    for flow, late in enumerate(again):
        said(trial, *HANDSHAKE, *CLOSING, flow=flow)
        assert said(trial, *both, late, *both, flow=flow, clock=HOUR + TRANSITORY - 100) == 0


def test_what_comes_late_does_not_put_off_that_a_closed_one_is_forgotten(trial: Any) -> None:
    said(trial, *HANDSHAKE, *CLOSING)
    said(trial, (UP, ACK), (UP, FIN | ACK), clock=HOUR + TRANSITORY - 100)
    assert said(trial, (UP, ACK), clock=HOUR + TRANSITORY + 10) == 1


def test_one_that_is_half_closed_is_open(trial: Any) -> None:
    assert said(trial, *HANDSHAKE, (UP, FIN | ACK), (DOWN, ACK), (DOWN, ACK)) == 1
    assert trial.count(PREFIX, HOUR + LIMIT)[0] == 1


def test_a_node_that_only_finishes_may_be_told_more(trial: Any) -> None:
    assert said(trial, (UP, FIN | ACK), (DOWN, ACK)) == 1


def test_a_stream_whose_end_alone_was_seen_ends(trial: Any) -> None:
    assert said(trial, *CLOSING) == 0
    assert said(trial, *((3 - way, flags) for way, flags in CLOSING), flow=FLOW + 1) == 0


@pytest.mark.parametrize("way", [UP, DOWN])
def test_a_reset_ends_a_connection(trial: Any, way: int) -> None:
    assert said(trial, *HANDSHAKE, (way, RST)) == 0


@pytest.mark.parametrize("way", [UP, DOWN])
def test_what_one_end_had_sent_before_it_heard_of_the_reset_changes_nothing(trial: Any, way: int) -> None:
    assert said(trial, *HANDSHAKE, (3 - way, RST), (way, ACK), (way, ACK), (way, FIN | ACK)) == 0


def test_a_reset_that_both_ends_ignore_was_none(trial: Any) -> None:
    """Somebody who is not on the path has guessed the ports (RFC 5961 3): the ends know better."""
    assert said(trial, *HANDSHAKE, (DOWN, RST), (DOWN, ACK), (UP, ACK)) == 1


def test_one_that_ignored_a_reset_ends_as_others_do(trial: Any) -> None:
    both = (UP, ACK), (DOWN, ACK)
    assert said(trial, *HANDSHAKE, (DOWN, RST), *CLOSING, *both) == 0
    assert said(trial, *HANDSHAKE, (DOWN, RST), CLOSING[0], *both, CLOSING[1], *both, flow=FLOW + 1) == 0


def test_a_reset_of_a_stream_nobody_knows_does_not_hide_it(trial: Any) -> None:
    assert said(trial, (DOWN, RST), (UP, ACK)) == 1


@pytest.mark.parametrize("end", [CLOSING, ((DOWN, RST),)], ids=["closed", "reset"])
def test_the_same_ports_may_be_used_again(trial: Any, end: tuple[tuple[int, int], ...]) -> None:
    assert [said(trial, *HANDSHAKE, *end, *HANDSHAKE[:n]) for n in range(4)] == [0, 0, 0, 1]


def test_a_syn_does_not_end_what_is_open(trial: Any) -> None:
    """RFC 9293 3.10.7.4: it is answered by a challenge."""
    assert said(trial, *HANDSHAKE, (DOWN, SYN)) == 1


def test_one_that_never_opened_is_forgotten_after_four_minutes(trial: Any) -> None:
    said(trial, (UP, SYN))
    assert said(trial, (DOWN, ACK), clock=HOUR + TRANSITORY) == 0  # else it were its answer


# --- a table that is full ------------------------------------------------------------------------------


def flows_of_one_set(wanted: int = 5) -> Iterator[int]:
    """Flows of PREFIX that meet in one set."""
    return (flow for flow in itertools.count() if (mix(flow ^ PREFIX) >> 20) % SETS == wanted)


def test_where_all_are_open_a_new_one_is_not_followed_and_nobody_is_forgotten(trial: Any) -> None:
    flows = list(itertools.islice(flows_of_one_set(), WAYS + 1))
    for flow in flows[:WAYS]:
        said(trial, *HANDSHAKE, flow=flow)
    assert trial.see(PREFIX, flows[-1], UP, SYN, HOUR + 9)
    assert trial.see(PREFIX, flows[-1], DOWN, SYN | ACK, HOUR + 9)
    assert not trial.see(PREFIX, flows[-1], UP, ACK, HOUR + 9)
    assert (trial.count(PREFIX, HOUR + 9)[0], trial.crowded) == (WAYS, 1)


def test_what_is_not_open_makes_way_the_oldest_first(trial: Any) -> None:
    flows = list(itertools.islice(flows_of_one_set(), WAYS + 2))
    for age, flow in enumerate(flows[: WAYS - 2]):
        said(trial, *HANDSHAKE, flow=flow, clock=HOUR + age)
    said(trial, *HANDSHAKE, *CLOSING, flow=flows[-4], clock=HOUR)
    said(trial, (UP, SYN), flow=flows[-3], clock=HOUR + 100)
    said(trial, *HANDSHAKE, flow=flows[-2], clock=HOUR + 200)
    assert said(trial, (UP, ACK), flow=flows[-4], clock=HOUR + 300) == WAYS  # it was forgotten, or it were closed still
    assert trial.crowded == 0
    assert not trial.see(PREFIX, flows[-1], UP, ACK, HOUR + 400)


def test_what_was_silent_for_too_long_makes_way(trial: Any) -> None:
    flows = list(itertools.islice(flows_of_one_set(), WAYS + 1))
    for flow in flows[:WAYS]:
        said(trial, *HANDSHAKE, flow=flow)
    assert said(trial, (UP, ACK), flow=flows[-1], clock=HOUR + LIMIT + 10) == 1
    assert trial.crowded == 0


# --- random streams ------------------------------------------------------------------------------------


@pytest.mark.skipif(not engine.compiled, reason="nothing to compare")
@pytest.mark.parametrize("crowded", [False, True])
def test_the_compiled_table_says_what_the_model_says(dice: random.Random, crowded: bool) -> None:
    fast, slow = Trial(), Connections()
    for each in (fast, slow):
        each.follow(LIMIT)
    sets = (flows_of_one_set(dice.randrange(SETS)) for _ in range(2))
    flows = [flow for each in sets for flow in itertools.islice(each, 12)] if crowded else [dice.getrandbits(64)] * 3
    flows += [dice.getrandbits(64) for _ in range(5)]
    flags = [ACK] * 8 + [SYN, SYN | ACK, FIN | ACK, FIN | ACK, RST, RST | ACK, 0, 0xFF, ACK | 8]
    clock, opened = HOUR, 0
    for _ in range(20_000):
        clock += dice.choice([0] * 20 + [1] * 20 + [50, 600, TRANSITORY, LIMIT // 3] + [LIMIT] * (dice.random() < 0.1))
        stream = dice.choice([PREFIX, PREFIX, PREFIX, OTHER]), dice.choice(flows)
        told = *stream, dice.choice([UP, DOWN]), dice.choice(flags), clock
        assert fast.see(*told) == slow.see(*told)
        if dice.random() < 0.05:
            counts = [slow.count(prefix, clock) for prefix in (PREFIX, OTHER)]
            assert [fast.count(prefix, clock) for prefix in (PREFIX, OTHER)] == counts
            opened += counts[0][0]
    assert opened > 0
    assert (slow.crowded > 0) == crowded
    assert fast.crowded == slow.crowded


def conversation(dice: random.Random, source: AnyAddress, port: int) -> tuple[list[tuple[int, bytes]], bool]:
    """Packets (way, octets) of a connection or its beginning, as hosts make them; whether it is open after them."""
    far: AnyAddress = CORRESPONDENT if source.version == 6 else CORRESPONDENT4

    def made(way: int, flags: int, payload: bytes = b"") -> tuple[int, bytes]:
        ends, ports = ((source, far), (port, 80)) if way == UP else ((far, source), (80, port))
        return way, segment(*ends, ports=ports, flags=flags, payload=payload)

    me = dice.choice([UP, DOWN])
    other = 3 - me
    shake = [made(me, SYN), made(other, SYN | ACK), made(me, ACK)]
    data = [made(dice.choice([UP, DOWN]), ACK | 8, bytes(dice.randrange(200))) for _ in range(dice.randrange(5))]
    finish = [made(me, FIN | ACK), made(other, ACK), made(other, FIN | ACK), made(me, ACK)]
    refused = [made(me, SYN), made(other, RST | ACK)]
    talk = [
        ([made(me, SYN)] * dice.randrange(1, 4), False),
        (shake[:2], False),
        (refused, False),
        ([*shake, *data], True),
        ([*shake, *data, *finish[: dice.randrange(3)]], True),
        ([*shake, *data, *finish[: dice.randrange(3, 5)]], False),
        ([*shake, *data, made(dice.choice([UP, DOWN]), RST)], False),
        ([*shake, *data, *finish, *shake], True),
    ]
    return dice.choice(talk)


def test_random_connections_are_counted_as_a_host_would(
    any_engine: Engine, tables: Tables, dice: random.Random
) -> None:
    tables.open_idle_after = LONG
    prefixes = {VISITING: 0, VISITING4: 0}
    streams = []
    for port in range(2000, 2200):
        prefix = dice.choice(list(prefixes))
        talk, is_open = conversation(dice, prefix[dice.randrange(1, 5)], port)
        prefixes[prefix] += is_open
        streams.append(talk)
    while streams:  # interleaved
        stream = dice.choice(streams)
        pass_(any_engine, *stream.pop(0))
        streams = [each for each in streams if each]
    assert {prefix: tables.connections(prefix).number for prefix in prefixes} == prefixes
    assert {prefix: each.number for prefix, each in tables.all_connections().items()} == prefixes


# --- the path ------------------------------------------------------------------------------------------


def pass_(any_engine: Engine, way: int, octets: bytes) -> None:
    """A packet of a visiting prefix goes through the engine."""
    if way == UP:
        (answer,) = any_engine.encapsulate([octets])
        assert isinstance(answer, tuple)
    else:
        assert any_engine.decapsulate([arriving(TUNNEL, octets)]) == [octets]


UP6 = segment(NODE, CORRESPONDENT, payload=b"data")
DOWN6 = segment(CORRESPONDENT, NODE, ports=(80, 4000), payload=b"data")
UP4 = segment(NODE4, CORRESPONDENT4, payload=b"data")


def number(tables: Tables, prefix: Any = VISITING) -> int:
    return tables.connections(prefix).number


def test_nothing_is_followed_unless_it_is_asked_for(any_engine: Engine, tables: Tables) -> None:
    pass_(any_engine, UP, UP6)
    assert (tables.open_idle_after, tables.connections(VISITING)) == (0.0, OpenConnections(number=0, silence=None))
    tables.open_idle_after = LONG
    pass_(any_engine, UP, UP6)
    assert number(tables) == 1
    tables.open_idle_after = 0.0
    assert number(tables) == 0


def test_octet_for_octet_a_connection_opens_and_closes(any_engine: Engine, tables: Tables) -> None:
    tables.open_idle_after = LONG
    head = bytes.fromhex("6000000000140640") + NODE.packed + CORRESPONDENT.packed
    back = bytes.fromhex("6000000000140640") + CORRESPONDENT.packed + NODE.packed
    there, here = bytes.fromhex("0fa00050 00000001 00000000 50"), bytes.fromhex("00500fa0 00000001 00000002 50")
    tail = bytes.fromhex("ffff 0000 0000")
    steps = [(UP, 0x02), (DOWN, 0x12), (UP, 0x10), (UP, 0x18), (DOWN, 0x11), (UP, 0x10), (UP, 0x11), (DOWN, 0x10)]
    seen = []
    for way, flags in steps:
        pass_(any_engine, way, (head + there if way == UP else back + here) + bytes([flags]) + tail)
        seen.append(number(tables))
    assert seen == [0, 0, 1, 1, 1, 1, 0, 0]


def test_ipv4_of_a_visiting_prefix_is_followed(any_engine: Engine, tables: Tables) -> None:
    tables.open_idle_after = LONG
    pass_(any_engine, UP, UP4)
    pass_(any_engine, UP, segment(NODE4, CORRESPONDENT4, ports=(4001, 80)))
    assert (number(tables, VISITING4), number(tables)) == (2, 0)


def test_options_of_ipv4_do_not_hide_a_connection(any_engine: Engine, tables: Tables) -> None:
    tables.open_idle_after = LONG
    pass_(any_engine, UP, packet(NODE4, CORRESPONDENT4, payload=UP4[20:], protocol=TCP, options=bytes(8)))
    assert number(tables, VISITING4) == 1


def test_extension_headers_do_not_hide_a_connection(any_engine: Engine, tables: Tables) -> None:
    tables.open_idle_after = LONG
    behind = options(60) + options(51, 2) + authentication(TCP, 7) + UP6[40:]
    pass_(any_engine, UP, packet(NODE, CORRESPONDENT, payload=behind, protocol=0))
    assert number(tables) == 1
    reset = options(TCP) + segment(NODE, CORRESPONDENT, flags=RST)[40:]
    pass_(any_engine, UP, packet(NODE, CORRESPONDENT, payload=reset, protocol=60))
    assert number(tables) == 0


def test_of_a_fragmented_segment_the_first_fragment_counts(any_engine: Engine, tables: Tables) -> None:
    tables.open_idle_after = LONG
    whole = UP6[40:] + bytes(1600)
    first = packet(NODE, CORRESPONDENT, payload=fragment(TCP, 0, 1, 9) + whole[:1200], protocol=44)
    later = packet(NODE, CORRESPONDENT, payload=fragment(TCP, 1200, 0, 9) + whole[1200:], protocol=44)
    pass_(any_engine, UP, later)
    assert number(tables) == 0
    pass_(any_engine, UP, first)
    assert number(tables) == 1


def test_octets_of_a_later_fragment_are_not_taken_for_flags(any_engine: Engine, tables: Tables) -> None:
    tables.open_idle_after = LONG
    whole = UP6[40:] + bytes([0xFF]) * 1600
    pass_(any_engine, UP, packet(NODE, CORRESPONDENT, payload=fragment(TCP, 0, 1, 9) + whole[:1200], protocol=44))
    pass_(any_engine, UP, packet(NODE, CORRESPONDENT, payload=fragment(TCP, 1200, 0, 9) + whole[1200:], protocol=44))
    assert number(tables) == 1


@pytest.mark.parametrize("octets", range(20))
def test_a_header_that_is_cut_short_says_nothing(any_engine: Engine, tables: Tables, octets: int) -> None:
    tables.open_idle_after = LONG
    pass_(any_engine, UP, packet(NODE, CORRESPONDENT, payload=UP6[40 : 40 + octets], protocol=TCP))
    assert number(tables) == 0


def test_only_prefixes_whose_node_is_here_are_followed(any_engine: Engine, tables: Tables) -> None:
    tables.open_idle_after = LONG
    any_engine.encapsulate([segment(CORRESPONDENT, ANCHORED[5], payload=b"data")])
    any_engine.decapsulate([arriving(TUNNEL, segment(ANCHORED[5], CORRESPONDENT, payload=b"data"))])
    assert number(tables, ANCHORED) == 0
    assert tables.all_connections() == {}


def test_datagrams_are_no_connection(any_engine: Engine, tables: Tables) -> None:
    tables.open_idle_after = LONG
    pass_(any_engine, UP, datagram(NODE, CORRESPONDENT, (4000, 80), bytes(12) + b"\x10"))
    assert number(tables) == 0


def test_a_packet_that_may_not_come_out_of_its_tunnel_opens_nothing(any_engine: Engine, tables: Tables) -> None:
    tables.open_idle_after = LONG
    stranger = Tunnel(local=HERE, remote=IPv6Address("2001:db8:a9::1"), encapsulation=Encapsulation.UDP)
    pass_(any_engine, DOWN, DOWN6)
    any_engine.decapsulate([arriving(stranger, DOWN6)])
    (answer,) = any_engine.encapsulate([segment(IPv6Address("2001:db8:dead::1"), CORRESPONDENT)])
    assert not isinstance(answer, tuple)
    assert number(tables) == 0


@pytest.mark.skipif(not engine.compiled, reason="the model keeps no packets")
def test_what_the_kernel_brings_back_for_a_node_that_left_is_nothing_that_the_node_said() -> None:
    tables = Tables(compiled=True)
    fill(tables)
    tables.open_idle_after = LONG
    tables.watch(VISITING, HoldBuffer())
    Engine(tables).encapsulate([DOWN6])
    assert number(tables) == 0


def test_between_two_nodes_that_visit_a_connection_counts_for_both(any_engine: Engine, tables: Tables) -> None:
    tables.open_idle_after = LONG
    other = IPv6Network("2001:db8:a3:300::/64")
    tables.bind(other, TUNNEL, side=Side.ACCESS)
    there = segment(NODE, other[1], payload=b"data")
    pass_(any_engine, UP, there)
    assert any_engine.decapsulate([arriving(TUNNEL, there)]) == [there]
    pass_(any_engine, UP, segment(other[1], NODE, ports=(80, 4000)))
    assert (number(tables), number(tables, other)) == (1, 1)


def test_a_prefix_that_goes_to_another_tunnel_or_away_and_comes_again_keeps_its_connections(
    any_engine: Engine, tables: Tables
) -> None:
    tables.open_idle_after = LONG
    pass_(any_engine, UP, UP6)
    tables.bind(VISITING, OTHER_TUNNEL, side=Side.ACCESS)
    assert number(tables) == 1
    tables.unbind(VISITING)
    with pytest.raises(UnknownPrefix):
        tables.connections(VISITING)
    assert tables.all_connections() == {}
    tables.bind(VISITING, TUNNEL, side=Side.ACCESS)
    assert number(tables) == 1


def test_what_another_process_has_seen_is_believed(any_engine: Engine, tables: Tables) -> None:
    tables.open_idle_after = 100.0
    begin = time.monotonic()
    tables.believe_open(VISITING, 40.0)
    found, listed = tables.connections(VISITING), tables.all_connections()[VISITING]
    passed = time.monotonic() - begin
    assert found.number == 0
    for each in (found, listed):
        assert each.silence is not None
        assert 39.8 < each.silence < 40.2 + passed
    tables.bind(VISITING, TUNNEL, side=Side.ACCESS)
    assert tables.connections(VISITING).silence is not None
    tables.believe_open(VISITING, 100.0)
    assert tables.connections(VISITING).silence is None
    with pytest.raises(UnknownPrefix):
        tables.believe_open(IPv6Network("2001:db8:dead::/64"), 1.0)


def test_a_limit_that_is_none_is_refused(tables: Tables) -> None:
    for seconds in (-1.0, 1e9):
        with pytest.raises(ValueError, match="s are not 0 to"):
            tables.open_idle_after = seconds


@pytest.mark.skipif(not engine.compiled, reason="the model would take minutes")
def test_a_prefix_whose_connections_find_no_place_counts_as_having_some() -> None:
    tables = Tables(compiled=True)
    fill(tables)
    tables.open_idle_after = LONG
    flood = Engine(tables)
    template = bytearray(UP6)
    for first in range(0, 1 << 17, 256):
        burst = []
        for port in range(first, first + 256):
            template[38:42] = port.to_bytes(4, "big")  # of the destination, and the source port
            burst.append(bytes(template))
        flood.encapsulate(burst)
    assert tables.crowded > 0
    assert SETS * WAYS * 0.9 < number(tables) <= SETS * WAYS
    others = list(IPv6Network("2001:db8:b000::/56").subnets(new_prefix=64))
    for prefix in others:
        tables.bind(prefix, TUNNEL, side=Side.ACCESS)
        pass_(flood, UP, segment(prefix[1], CORRESPONDENT, payload=b"data"))
    found = tables.all_connections()
    assert all(found[prefix].silence is not None for prefix in others)
    assert any(found[prefix].number == 0 for prefix in others)


@pytest.mark.skipif(not engine.compiled, reason="the model is for one thread")
def test_workers_that_see_one_direction_each_agree(dice: random.Random) -> None:
    tables = Tables(compiled=True)
    fill(tables)
    tables.open_idle_after = LONG
    workers = {UP: Engine(tables), DOWN: Engine(tables)}
    ends = {port: conversation(dice, NODE, port) for port in range(3000, 3200)}

    def work(way: int, round_: int) -> None:
        rows = [talk[round_][1] for talk, _ in ends.values() if round_ < len(talk) and talk[round_][0] == way]
        if way == UP:
            workers[UP].encapsulate(rows)
        else:
            workers[DOWN].decapsulate([arriving(TUNNEL, octets) for octets in rows])

    with ThreadPoolExecutor(2) as pool:
        for round_ in range(max(len(talk) for talk, _ in ends.values())):
            list(pool.map(work, (UP, DOWN), (round_, round_)))
    assert number(tables) == sum(is_open for _, is_open in ends.values())
