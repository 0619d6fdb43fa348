"""Which tunnel: weights are honoured, flows stay where they are, labels are tried in order, the dead are not used."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from typing import Any

import pytest

import engine
from engine.model import spread as model
from engine.model.spread import draw
from engine.rules import Discard, FlowRule, Spread, Steer, TrafficSelector
from engine.stats import Drop
from tests.engine.flow_packets import HOSTS6, ip6, packet, ports
from tests.engine.test_flow_rules import rule

if engine.compiled:
    from engine._fast import spread as fast

A, B, C, D = HOSTS6
UP, SUSPECT, DOWN = range(3)
PACKET = ip6(A, B, 17, ports(1, 2))


@pytest.fixture(params=["model", "compiled"] if engine.compiled else ["model"])
def trial(request: pytest.FixtureRequest) -> Any:
    return fast.Trial() if request.param == "compiled" else model.Trial()


def policy(trial: Any, *actions: Steer | Discard, index: int = 0) -> int:
    rules = [FlowRule(None, action) for action in actions]
    made: int = trial.policy([each.packed for each in rules] if engine.compiled and is_fast(trial) else rules, index)
    return made


def is_fast(trial: Any) -> bool:
    return not isinstance(trial, model.Trial)


def flows(count: int) -> list[bytes]:
    return [ip6(A, B, 17, ports(n >> 8, n & 255)) for n in range(count)]


def tunnels(trial: Any, packets: list[bytes], bundle: int, policy: int = 0) -> list[tuple[int, ...]]:
    return [row[1] for row in trial.choose(packets, 1, bundle, policy)]


def test_a_lone_tunnel_takes_everything_while_it_is_not_down(trial: Any) -> None:
    assert trial.choose([PACKET], 0, 7) == [(0, (7,), None if not is_fast(trial) else 0, False)]
    trial.set_state(7, SUSPECT)
    assert trial.choose([PACKET], 0, 7)[0][:2] == (0, (7,))
    trial.set_state(7, DOWN)
    assert trial.choose([PACKET], 0, 7)[0][:2] == (Drop.NO_PATH, ())


@pytest.mark.parametrize("weights", [(1, 1), (3, 1), (1, 2, 3, 4), (100, 1), (65535, 1000, 40000), (1,) * 16])
def test_flows_are_shared_out_by_weight(weights: tuple[int, ...]) -> None:
    """Within 2 % of all flows, or three standard deviations of pure chance where that is more."""
    trial = fast.Trial() if engine.compiled else model.Trial()
    count = 65536 if engine.compiled else 8192
    bundle = trial.bundle([(10 + k, 1 + k, 0, weight) for k, weight in enumerate(weights)])
    got = Counter(itertools.chain(*tunnels(trial, flows(count), bundle)))
    for k, weight in enumerate(weights):
        share = weight / sum(weights)
        chance = 3.5 * (count * share * (1 - share)) ** 0.5
        assert abs(got[10 + k] - count * share) <= max(chance, 0.005 * count), (weights, got)


def test_a_dying_member_moves_its_own_flows_only(trial: Any) -> None:
    trial.set_pause(0)  # draws alone
    rows = [(10 + k, 1 + k, 0, 1 + k) for k in range(6)]
    bundle = trial.bundle(rows)
    batch = flows(600)
    before = tunnels(trial, batch, bundle)
    for dead in range(10, 16):
        trial.set_state(dead, DOWN)
        after = tunnels(trial, batch, bundle)
        assert all(new == old for new, old in zip(after, before, strict=True) if old != (dead,))
        assert all(new != (dead,) for new in after)
        trial.set_state(dead, UP)
    assert tunnels(trial, batch, bundle) == before
    trial.bundle(rows[1:], bundle)
    after = tunnels(trial, batch, bundle)
    assert all(new == old for new, old in zip(after, before, strict=True) if old != (10,))


def test_both_ends_choose_alike_for_both_directions(trial: Any) -> None:
    """The ends have other tunnel numbers and name their members in another order; the BIDs are the same."""
    here = trial.bundle([(10, 1, 9, 2), (11, 2, 11, 1), (12, 7, 0, 5)])
    there = trial.bundle([(22, 7, 0, 5), (21, 2, 11, 1), (20, 1, 9, 2)])
    down = tunnels(trial, flows(300), here)
    up = tunnels(trial, [ip6(B, A, 17, ports(n & 255, n >> 8)) for n in range(300)], there)
    assert [(one + 10,) for (one,) in down] == up
    assert len(set(down)) == 3


def test_suspect_members_are_used_while_nothing_better_is_left(trial: Any) -> None:
    bundle = trial.bundle([(10, 1, 0, 1), (11, 2, 0, 1)])
    trial.set_state(10, SUSPECT)
    assert set(tunnels(trial, flows(50), bundle)) == {(11,)}
    trial.set_state(11, DOWN)
    assert set(tunnels(trial, flows(50), bundle)) == {(10,)}
    trial.set_state(10, DOWN)
    assert trial.choose([PACKET], 1, bundle)[0][0] == Drop.NO_PATH


def test_labels_are_tried_in_order_of_preference(trial: Any) -> None:
    trial.set_pause(0)  # a flow that runs would stay with a label while it can
    bundle = trial.bundle([(10, 1, 9, 1), (11, 2, 9, 1), (12, 3, 11, 1), (13, 4, 30, 1)])
    rules = policy(trial, Steer(labels=(5, 9, 11)))
    batch = flows(60)
    assert set(tunnels(trial, batch, bundle, rules)) == {(10,), (11,)}
    trial.set_state(10, DOWN)
    assert set(tunnels(trial, batch, bundle, rules)) == {(11,)}
    trial.set_state(11, SUSPECT)
    assert set(tunnels(trial, batch, bundle, rules)) == {(12,)}
    trial.set_state(12, SUSPECT)
    assert set(tunnels(trial, batch, bundle, rules)) == {(11,)}
    for dead in (11, 12):
        trial.set_state(dead, DOWN)
    assert {row[0] for row in trial.choose(batch, 1, bundle, rules)} == {Drop.NO_PATH}


def test_bids_are_a_set(trial: Any) -> None:
    bundle = trial.bundle([(10, 1, 9, 1), (11, 300, 9, 1), (12, 3, 11, 1)])
    rules = policy(trial, Steer(bids=(300, 3, 77)))
    assert set(tunnels(trial, flows(60), bundle, rules)) == {(11,), (12,)}


def test_a_bicast_goes_to_every_wanted_member_that_is_not_down(trial: Any) -> None:
    bundle = trial.bundle([(10, 1, 9, 1), (11, 2, 9, 1), (12, 3, 11, 1), (13, 4, 30, 1)])
    trial.set_state(11, SUSPECT)
    for action, wanted in (
        (Steer(spread=Spread.BICAST), (10, 11, 12, 13)),
        (Steer(spread=Spread.BICAST, labels=(30, 9)), (10, 11, 13)),
        (Steer(spread=Spread.BICAST, bids=(3, 1)), (10, 12)),
    ):
        assert trial.choose([PACKET], 1, bundle, policy(trial, action))[0][1::2] == (wanted, True)
    trial.set_state(10, DOWN)
    assert tunnels(trial, [PACKET], bundle, policy(trial, Steer(spread=Spread.BICAST))) == [(11, 12, 13)]


def test_packets_take_turns_by_weight_and_smoothly(trial: Any) -> None:
    bundle = trial.bundle([(10, 1, 0, 3), (11, 2, 0, 1), (12, 3, 0, 2)])
    rules = policy(trial, Steer(spread=Spread.PER_PACKET))
    rows = trial.choose([PACKET] * 600, 1, bundle, rules)
    assert all(row[3] for row in rows)
    order = [row[1][0] for row in rows]
    assert Counter(order) == {10: 300, 11: 100, 12: 200}
    assert all(Counter(order[n : n + 6]) == {10: 3, 11: 1, 12: 2} for n in range(595))
    equal = trial.bundle([(20, 1, 0, 7), (21, 2, 0, 7)])
    assert set(itertools.pairwise(tunnels(trial, [PACKET] * 50, equal, rules))) == {
        ((20,), (21,)),
        ((21,), (20,)),
    }


def test_more_schedules_than_there_is_room_for_still_share_by_weight(trial: Any) -> None:
    rules = policy(trial, Steer(spread=Spread.PER_PACKET))
    bundles = [trial.bundle([(10, 1, 0, 2), (11, 2, 0, 1)]) for _ in range(1500)]
    got = Counter(tunnels(trial, [PACKET], bundle, rules)[0] for _ in range(4) for bundle in bundles)
    assert abs(got[(10,)] - 4000) < 300


def test_a_per_packet_rule_without_choice_still_numbers_its_packets(trial: Any) -> None:
    bundle = trial.bundle([(10, 1, 0, 1)])
    assert trial.choose([PACKET], 1, bundle, policy(trial, Steer(spread=Spread.PER_PACKET)))[0][1::2] == ((10,), True)
    assert trial.choose([PACKET], 1, bundle)[0][1::2] == ((10,), False)


def test_a_lone_tunnel_is_whatever_a_rule_wants(trial: Any) -> None:
    assert trial.choose([PACKET], 0, 7, policy(trial, Steer(labels=(9,))))[0][:2] == (0, (7,))
    assert trial.choose([PACKET], 0, 7, policy(trial, Discard()))[0][:2] == (Drop.POLICY, ())


def test_draws_fall_as_the_hash_grows() -> None:
    hashes = sorted({(1 << n) + d for n in range(1, 64) for d in (-1, 0, 1)} | {n << 50 for n in range(1, 1 << 14)})
    drawn = [draw(each) for each in hashes]
    assert drawn == sorted(drawn, reverse=True)
    assert draw((1 << 64) - 1) == 1
    assert draw(0) == 64 << 32


@pytest.mark.skipif(not engine.compiled, reason="nothing is compiled")
def test_both_choose_alike(dice: random.Random) -> None:
    compiled, slow = fast.Trial(), model.Trial()
    kinds: Counter[tuple[int, int, bool]] = Counter()
    now = 1 << 30
    for _ in range(40):
        bids = dice.sample(range(1, 255), dice.randrange(1, 17))
        rows = members(dice, bids)
        rules = [varied(dice, bids) for _ in range(dice.choice([0, 1, 3, 8, 40]))]
        index, serial = compiled.bundle(rows), slow.bundle(rows)
        policies = compiled.policy([each.packed for each in rules]), slow.policy(rules)
        counters = dict(enumerate(compiled.counters(policies[0])))
        for _ in range(3):
            now += dice.choice([0, 1000, 50_000_000, 199_999_999, 200_000_000, 210_000_000])
            if dice.random() < 0.5:
                rows = members(dice, bids)
                compiled.bundle(rows, index)
                slow.bundle(rows, serial)
            for tunnel in range(20):
                state = dice.choice([UP, UP, SUSPECT, DOWN])
                compiled.set_state(tunnel, state)
                slow.set_state(tunnel, state)
            batch = [packet(dice) for _ in range(40)]
            got = compiled.choose(batch, 1, index, policies[0], now=now)
            wanted = slow.choose(batch, 1, serial, policies[1], now=now)
            assert got == [(*row[:2], counters.get(row[2], 0), row[3]) for row in wanted]
            kinds.update((row[0], len(row[1]), row[3]) for row in got)
    wanted_kinds = {(0, 1, False), (0, 1, True), (0, 2, True), (Drop.POLICY, 0, False), (Drop.NO_PATH, 0, False)}
    assert set(kinds) >= wanted_kinds, "all kinds must occur, or this compares little"


def members(dice: random.Random, bids: list[int]) -> list[tuple[int, int, int, int]]:
    return [(dice.randrange(1, 20), bid, dice.randrange(4), dice.choice([1, 1, 2, 5, 65535])) for bid in bids]


def varied(dice: random.Random, bids: list[int]) -> FlowRule:
    """A random selector, and an action that names labels or BIDs, some of which nobody has."""
    spread = dice.choice(list(Spread))
    named = {"labels": tuple(dice.sample(range(6), dice.randrange(1, 4)))}
    if dice.random() < 0.5:
        named = {"bids": tuple(dice.choices([*bids, 255], k=3))}
    action = Discard() if dice.random() < 0.1 else Steer(spread=spread, **named)
    selector = rule(dice).selector if dice.random() < 0.7 else TrafficSelector(family=6)
    return FlowRule(selector, action)
