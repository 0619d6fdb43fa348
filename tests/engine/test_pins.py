"""A flow that runs stays on its path while weights, paths and rules change, and moves when it pauses or must."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv6Network
from typing import Any

import pytest

import engine
from engine import Encapsulation, Engine, FlowRule, Side, Spread, Steer, Tables, Tunnel
from engine.model import spread as model
from engine.model.pins import PAUSE, SETS, WAYS
from engine.tunnels import TunnelState
from tests.engine.flow_packets import HOSTS6, ip6, ports
from tests.engine.nodes import ANCHORED, CORRESPONDENT, arriving, datagram, packet
from tests.engine.test_policies import FAR, bind, flow, paths, steer, ways
from tests.engine.test_policies import WAYS as TUNNELS

if engine.compiled:
    from engine._fast import spread as fast

MS = 1_000_000  # ns
UP, SUSPECT, DOWN = range(3)
FAST, SLOW = 10, 11  # tunnels
DELAYS = {10: 5 * MS, 11: 40 * MS, 12: 110 * MS, 13: 190 * MS}  # they differ by less than a pause
BULK = 16384 if engine.compiled else 4096


class Road:
    """Flows over one bundle, in steps of time."""

    def __init__(self, trial: Any) -> None:
        self.trial = trial
        self.now = 5_000 * MS
        self.bundle = 0
        self.policy = 0

    def members(self, weights: dict[int, int], labels: dict[int, int] | None = None) -> None:
        """Weights of tunnels; the BID of tunnel 10 is 1, and so on."""
        rows = [(tunnel, tunnel - 9, (labels or {}).get(tunnel, 0), weight) for tunnel, weight in weights.items()]
        self.bundle = self.trial.bundle(rows, self.bundle)

    def rule(self, action: Steer) -> None:
        rules = [FlowRule(None, action)]
        slow = isinstance(self.trial, model.Trial)
        self.policy = self.trial.policy(rules if slow else [rule.packed for rule in rules], self.policy)

    def state(self, tunnel: int, state: int) -> None:
        self.trial.set_state(tunnel, state)

    def wait(self, nanoseconds: int) -> None:
        self.now += nanoseconds

    def __call__(self, *flows: int) -> list[int]:
        """A packet of each flow leaves now: by which tunnel."""
        rows = self.trial.choose([named(n) for n in flows], 1, self.bundle, self.policy, now=self.now)
        return [tunnels[0] for _, tunnels, *_ in rows]


def named(n: int) -> bytes:
    return ip6(HOSTS6[0], HOSTS6[1], 17, ports(n >> 16, n & 0xFFFF))


@pytest.fixture(params=["model", "compiled"] if engine.compiled else ["model"])
def road(request: pytest.FixtureRequest) -> Road:
    return Road(fast.Trial() if request.param == "compiled" else model.Trial())


RUNNING = range(1, 65)


# --- what changes beside them does not move those that run ---


def test_each_flow_keeps_to_one_path_until_it_pauses_while_weights_change_a_hundred_times(
    road: Road, dice: random.Random
) -> None:
    last: dict[int, tuple[int, int]] = {}  # flow: when, by which tunnel
    arrivals: dict[int, list[tuple[int, int]]] = defaultdict(list)  # flow: when it arrives, when it left
    moved = 0
    for _ in range(100):
        road.members({tunnel: dice.choice([1, 2, 10, 100]) for tunnel in DELAYS})
        for _ in range(20):
            road.wait(dice.randrange(20 * MS))
            for n in dice.sample(RUNNING, 24):
                (tunnel,) = road(n)
                when, before = last.get(n, (road.now, tunnel))
                if road.now - when < PAUSE:
                    assert tunnel == before, f"flow {n} moved after {(road.now - when) / MS} ms"
                moved += tunnel != before
                last[n] = road.now, tunnel
                arrivals[n].append((road.now + DELAYS[tunnel], road.now))
    assert moved > 0, "flows move at a pause, or this shows little"
    assert all(sorted(packets) == packets for packets in arrivals.values())


def test_new_flows_follow_the_new_weights_at_once(road: Road) -> None:
    road.members({FAST: 1, SLOW: 1})
    before = road(*RUNNING)
    for n, (fast, slow) in enumerate([(3, 1), (1, 9), (1, 1)], 1):
        road.members({FAST: fast, SLOW: slow})
        got = Counter(road(*range(n << 20, (n << 20) + BULK)))
        assert abs(got[FAST] / BULK - fast / (fast + slow)) <= 0.02
        assert road(*RUNNING) == before


def test_a_path_that_dies_moves_its_own_flows_at_once_and_no_other(road: Road) -> None:
    road.members(dict.fromkeys(DELAYS, 1))
    before = road(*RUNNING)
    road.state(12, DOWN)
    after = road(*RUNNING)
    assert all(new == old for new, old in zip(after, before, strict=True) if old != 12)
    assert 12 in before
    assert 12 not in after


def test_when_it_comes_back_flows_return_at_a_pause_and_to_where_they_were(road: Road) -> None:
    road.members(dict.fromkeys(DELAYS, 1))
    before = road(*RUNNING)
    road.state(12, DOWN)
    away = road(*RUNNING)
    road.state(12, UP)
    for _ in range(20):
        road.wait(PAUSE - 1)
        assert road(*RUNNING) == away
    road.wait(PAUSE + 3 * MS)
    assert road(*RUNNING) == before


def test_a_suspect_path_loses_its_flows_at_once_while_another_is_up_and_they_do_not_flap(road: Road) -> None:
    road.members({FAST: 1, SLOW: 1})
    before = road(*RUNNING)
    road.state(FAST, SUSPECT)
    assert set(road(*RUNNING)) == {SLOW}
    road.state(FAST, UP)
    assert set(road(*RUNNING)) == {SLOW}
    road.wait(2 * PAUSE)
    assert road(*RUNNING) == before
    road.state(SLOW, SUSPECT)
    road.state(FAST, SUSPECT)
    assert road(*RUNNING) == before  # nowhere is better


def test_a_new_path_takes_no_running_flow(road: Road) -> None:
    road.members({SLOW: 1})
    assert set(road(*RUNNING)) == {SLOW}
    road.members({FAST: 100, SLOW: 1})
    assert set(road(*RUNNING)) == {SLOW}
    road.wait(2 * PAUSE)
    assert FAST in road(*RUNNING)


def test_a_path_that_is_taken_away_is_left_at_once(road: Road) -> None:
    road.members({FAST: 1, SLOW: 1})
    assert set(road(*RUNNING)) == {FAST, SLOW}
    road.members({SLOW: 1})
    assert set(road(*RUNNING)) == {SLOW}


# --- rules ---


def test_another_order_of_preference_moves_running_flows_at_once(road: Road) -> None:
    road.members({FAST: 1, SLOW: 1}, labels={FAST: 30, SLOW: 20})
    for labels, chosen in (((20, 30), SLOW), ((30, 20), FAST), ((20,), SLOW), ((30, 20), FAST)):
        road.rule(Steer(labels=labels))
        assert set(road(*RUNNING)) == {chosen}


def test_a_flow_returns_at_once_to_the_label_its_rule_prefers(road: Road) -> None:
    road.members({FAST: 1, SLOW: 1}, labels={FAST: 30, SLOW: 20})
    road.rule(Steer(labels=(30, 20)))
    assert set(road(*RUNNING)) == {FAST}
    road.state(FAST, DOWN)
    assert set(road(*RUNNING)) == {SLOW}
    road.state(FAST, UP)
    assert set(road(*RUNNING)) == {FAST}


@pytest.mark.parametrize("action", [Steer(labels=(30,)), Steer(bids=(1,))])
def test_a_flow_moves_at_once_when_its_rule_does_not_want_its_path_any_more(road: Road, action: Steer) -> None:
    road.members({FAST: 1, SLOW: 1}, labels={FAST: 30, SLOW: 20})
    road.rule(Steer(labels=(20,)))
    assert set(road(*RUNNING)) == {SLOW}
    road.rule(action)
    assert set(road(*RUNNING)) == {FAST}


def test_packets_spread_one_by_one_for_a_moment_do_not_move_the_flow(road: Road) -> None:
    road.members({FAST: 1, SLOW: 1})
    before = road(*RUNNING)
    road.members({FAST: 1, SLOW: 9})
    road.rule(Steer(spread=Spread.PER_PACKET))
    assert set(road(1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1)) == {FAST, SLOW}
    road.rule(Steer())
    assert road(*RUNNING) == before


# --- bounds ---


def test_without_a_pause_every_packet_goes_by_the_weights_of_the_moment(road: Road) -> None:
    road.trial.set_pause(0)
    road.members({FAST: 1, SLOW: 1})
    assert set(road(*RUNNING)) == {FAST, SLOW}
    road.members({FAST: 65535, SLOW: 1})
    assert set(road(*RUNNING)) == {FAST}


def crowds(trial: Any, size: int) -> Iterator[list[int]]:
    """Flows of bundle 1 that share a set of pins, so many together."""
    found: dict[int, list[int]] = defaultdict(list)
    numbers = range(1, 40_000)
    for n, (*_, hash_) in zip(numbers, trial.identify([named(n) for n in numbers]), strict=True):
        found[((hash_ ^ 1) >> 20) % SETS].append(n)
    yield from (flows[:size] for flows in found.values() if len(flows) >= size)


def test_a_flow_that_runs_is_pushed_out_by_nobody(road: Road) -> None:
    road.members({FAST: 1, SLOW: 65535})
    assert road.bundle == 1
    *first, late = next(crowds(road.trial, WAYS + 1))
    assert road(*first, late) == [SLOW] * 5
    road.members({FAST: 65535, SLOW: 1})
    assert road(*first, late) == [*[SLOW] * 4, FAST]  # there was no pin for it
    road.wait(PAUSE // 2)
    road(*first[1:], late)
    road.wait(PAUSE // 2 + 3 * MS)
    assert road(late, *first[1:]) == [FAST, *[SLOW] * 3]  # the silent one has given its place
    road.members({FAST: 1, SLOW: 65535})
    assert road(late, *first[1:]) == [FAST, *[SLOW] * 3]


# --- tables, engines ---


def test_the_pause_is_bounded(tables: Tables) -> None:
    assert tables.flow_pause == PAUSE / 1e9
    for seconds in (-1, 3601, float("nan")):
        with pytest.raises(ValueError, match="pause"):
            tables.flow_pause = seconds
    tables.flow_pause = 0.6
    assert tables.flow_pause == 0.6


def test_flows_stay_when_their_prefix_is_bound_to_another_bundle_with_the_same_paths(any_engine: Engine) -> None:
    tables = any_engine.tables
    tables.flow_pause = 3600
    flows = [flow(port) for port in range(100)]
    bind(any_engine, paths(0, 0))
    before = ways(any_engine, flows)
    bind(any_engine, paths(0, 0, 0, weights=(1, 50, 50)))
    assert ways(any_engine, flows) == before
    tables.flow_pause = 0
    assert ways(any_engine, flows) != before


def test_both_directions_of_a_flow_between_two_nodes_are_pinned_by_themselves(any_engine: Engine) -> None:
    tables = any_engine.tables
    tables.flow_pause = 3600
    neighbour = IPv6Network("2001:db8:a1:77::/64")
    bind(any_engine, paths(0, 0, weights=(65535, 1)))
    tables.bind(neighbour, tables.bundle(paths(0, 0, weights=(1, 65535))), side=Side.ANCHOR)
    other = neighbour[5]
    there = [datagram(other, ANCHORED[5], (4000, port)) for port in range(40)]
    back = [datagram(ANCHORED[5], other, (port, 4000)) for port in range(40)]
    for _ in range(2):
        assert set(ways(any_engine, there)) == {(0,)}
        assert set(ways(any_engine, back)) == {(1,)}


def test_a_flow_stays_when_another_worker_takes_over(any_engine: Engine) -> None:
    tables = any_engine.tables
    tables.flow_pause = 3600
    other = Engine(tables)
    bundle, _ = bind(any_engine, paths(0, 0))
    flows = [flow(port) for port in range(100)]
    before = ways(any_engine, flows)
    tables.change(bundle, paths(0, 0, weights=(1, 50)))  # type: ignore[arg-type]
    assert ways(other, flows) == ways(any_engine, flows) == before


@pytest.mark.skipif(not engine.compiled, reason="the model has no threads")
def test_flows_stay_while_workers_share_them_and_weights_change() -> None:
    tables = Tables(flow_pause=3600)
    engines = [Engine(tables) for _ in range(3)]
    bundle, _ = bind(engines[0], paths(0, 0))
    flows = [flow(port) for port in range(256)]
    before = ways(engines[0], flows)
    towards = ANCHORED.network_address.packed[:8]
    with ThreadPoolExecutor() as threads:
        working = [threads.submit(each.rehearse, flows, towards=towards, rounds=20_000) for each in engines]
        while not all(each.done() for each in working):
            for weights in ((1, 50), (50, 1)):
                tables.change(bundle, paths(0, 0, weights=weights))  # type: ignore[call-overload]
    assert ways(engines[0], flows) == before


def test_a_flow_stays_with_a_peer_that_is_behind_another_port_now(any_engine: Engine) -> None:
    tables = any_engine.tables
    tables.flow_pause = 3600
    bundle, _ = bind(any_engine, paths(0, 0))
    flows = [flow(port) for port in range(100)]
    before = ways(any_engine, flows)
    moved = tables.follow(TUNNELS[0], 40000)
    tables.change(bundle, paths(0, 0, weights=(1, 50), tunnels=[moved, TUNNELS[1]]))  # type: ignore[arg-type]
    assert ways(any_engine, flows) == before


def test_a_dead_path_is_left_and_its_return_moves_nothing_that_runs(any_engine: Engine) -> None:
    tables = any_engine.tables
    tables.flow_pause = 3600
    bind(any_engine, paths(10, 10))
    flows = [flow(port) for port in range(20)]
    assert set(ways(any_engine, flows)) == {(0,), (1,)}
    tables.set_state(TUNNELS[0], TunnelState.DOWN)
    assert set(ways(any_engine, flows)) == {(1,)}
    tables.set_state(TUNNELS[0], TunnelState.UP)
    assert set(ways(any_engine, flows)) == {(1,)}
    assert set(ways(any_engine, [flow(port) for port in range(100, 120)])) == {(0,), (1,)}


# --- numbers: of packets that are spread one by one, or copied ---

NUMBERED = [
    Tunnel(local=way.local, remote=far, encapsulation=Encapsulation.GRE, sequence=True)
    for way, far in zip(TUNNELS, FAR, strict=True)
]


def numbers_of(any_engine: Engine, count: int) -> list[int | None]:
    """The sequence numbers of so many packets of a flow; the copies of one have the same."""
    found = []
    for copies in any_engine.encapsulate([flow(7)] * count):
        assert isinstance(copies, tuple)
        numbered = {int.from_bytes(out[44:48], "big") if out[40] & 0x10 else None for out in copies}
        found.append(numbered.pop())
        assert not numbered
    return found


def test_packets_that_go_by_flow_over_a_bundle_carry_no_number_and_the_others_count_on(any_engine: Engine) -> None:
    _, policy = bind(any_engine, paths(0, 0, tunnels=NUMBERED), FlowRule(None, steer(Spread.PER_PACKET)))
    assert numbers_of(any_engine, 5) == [0, 1, 2, 3, 4]
    for spread, wanted in [
        (Spread.PER_FLOW, [None] * 3),
        (Spread.PER_PACKET, [5, 6, 7]),
        (Spread.PER_FLOW, [None] * 3),
        (Spread.BICAST, [8, 9, 10]),
    ]:
        any_engine.tables.change(policy, [FlowRule(None, steer(spread))])  # type: ignore[call-overload]
        assert numbers_of(any_engine, 3) == wanted


def test_a_packet_without_its_number_is_as_whole_as_one_with_it(any_engine: Engine) -> None:
    bind(any_engine, paths(0, tunnels=NUMBERED))
    sent = flow(7, size=1000)
    [[out]] = any_engine.encapsulate([sent])  # type: ignore[misc]
    assert out[4:6] == (4 + len(sent)).to_bytes(2, "big")
    assert out[40:] == b"\0\0\x86\xdd" + sent


def test_numbered_and_unnumbered_packets_come_out_of_one_tunnel(any_engine: Engine) -> None:
    bind(any_engine, paths(0, 0, tunnels=NUMBERED))
    inner = packet(ANCHORED[5], CORRESPONDENT)
    came = [arriving(way, inner, sequence=number) for way in NUMBERED[:2] for number in (None, 7, None, 3)]
    assert any_engine.decapsulate(came) == [inner] * 8
