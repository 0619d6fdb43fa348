"""The way that a prefix had lets in, for a while, what is still on it: a transient binding (RFC 6058)."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from engine import Drop, Engine, HoldBuffer, Path, Side, Tables, Tunnel
from tests.engine.descriptors import PATIENCE
from tests.engine.nodes import ANCHORED, ANCHORED4, BACK, BACK4, DOWN, HELD, HOME, OTHER, TUNNEL, VISITING
from tests.engine.test_path import decapsulate
from tests.engine.test_workers import BACK as BY_THEM
from tests.engine.test_workers import FORTH, LEFT, OTHERS, RIGHT, compiled_only, working
from tests.eventually import eventually

LONG, SHORT = 1000.0, 0.1  # s


@pytest.fixture
def tables(tables: Tables) -> Tables:
    tables.transience = LONG
    return tables


def known(tables: Tables) -> set[Tunnel]:
    return {each.tunnel for each in tables.tunnels()}


def paths(tunnels: Sequence[Tunnel]) -> list[Path]:
    return [Path(tunnel, bid=number) for number, tunnel in enumerate(tunnels, 1)]


def last_long(tables: Tables) -> None:
    """What was bound to TUNNEL in the node's tables goes, but for ANCHORED."""
    for each in tables.bindings():
        if each.prefix != ANCHORED:
            tables.unbind(each.prefix)


def test_packets_come_by_the_new_way_and_by_the_one_before(any_engine: Engine) -> None:
    for prefix, said in ((ANCHORED, BACK), (ANCHORED4, BACK4)):
        any_engine.tables.bind(prefix, OTHER, side=Side.ANCHOR)
        assert decapsulate(any_engine, said, OTHER) == said
        assert decapsulate(any_engine, said, TUNNEL) == said


def test_so_do_those_to_a_node_that_visits_when_its_anchor_has_another_way(any_engine: Engine) -> None:
    any_engine.tables.bind(VISITING, OTHER, side=Side.ACCESS)
    assert decapsulate(any_engine, HOME, OTHER) == HOME
    assert decapsulate(any_engine, HOME, TUNNEL) == HOME


def test_the_one_before_is_no_way_for_other_prefixes(any_engine: Engine) -> None:
    any_engine.tables.bind(HELD, OTHER, side=Side.ANCHOR)
    any_engine.tables.bind(ANCHORED, OTHER, side=Side.ANCHOR)
    any_engine.tables.bind(HELD, TUNNEL, side=Side.ANCHOR)
    assert decapsulate(any_engine, BACK, TUNNEL) == BACK
    assert decapsulate(any_engine, BACK4, OTHER) is Drop.NOT_BOUND


def test_of_several_ways_before_the_last_is_remembered(any_engine: Engine) -> None:
    third = Tunnel(local=TUNNEL.local, remote=TUNNEL.remote, encapsulation=TUNNEL.encapsulation, port=7)
    any_engine.tables.bind(ANCHORED, OTHER, side=Side.ANCHOR)
    any_engine.tables.bind(ANCHORED, third, side=Side.ANCHOR)
    assert decapsulate(any_engine, BACK, third) == BACK
    assert decapsulate(any_engine, BACK, OTHER) == BACK
    assert decapsulate(any_engine, BACK, TUNNEL) is Drop.NOT_BOUND


def test_to_bind_a_prefix_to_the_way_it_has_forgets_nothing(any_engine: Engine) -> None:
    for _ in range(3):
        any_engine.tables.bind(ANCHORED, OTHER, side=Side.ANCHOR)
    assert decapsulate(any_engine, BACK, TUNNEL) == BACK


def test_a_bundle_before_lets_in_by_all_its_paths(any_engine: Engine) -> None:
    third = Tunnel(local=TUNNEL.local, remote=TUNNEL.remote, encapsulation=TUNNEL.encapsulation, port=7)
    bundle = any_engine.tables.bundle([Path(OTHER, bid=1), Path(third, bid=2)])
    any_engine.tables.bind(ANCHORED, bundle, side=Side.ANCHOR)
    del bundle
    any_engine.tables.bind(ANCHORED, TUNNEL, side=Side.ANCHOR)
    for tunnel in (TUNNEL, OTHER, third):
        assert decapsulate(any_engine, BACK, tunnel) == BACK


def test_paths_that_leave_a_bundle_let_in_for_all_its_prefixes(any_engine: Engine) -> None:
    tables = any_engine.tables
    bundle = tables.bundle([Path(OTHER, bid=1), Path(TUNNEL, bid=2)])
    for prefix in (ANCHORED, ANCHORED4):
        tables.bind(prefix, bundle, side=Side.ANCHOR)
    tables.change(bundle, [Path(TUNNEL, bid=2)])
    for said in (BACK, BACK4):
        assert decapsulate(any_engine, said, OTHER) == said
        assert decapsulate(any_engine, said, TUNNEL) == said


def test_what_a_bundle_gets_later_lets_in_nothing_of_a_prefix_that_left_it(any_engine: Engine) -> None:
    tables = any_engine.tables
    third = Tunnel(local=TUNNEL.local, remote=TUNNEL.remote, encapsulation=TUNNEL.encapsulation, port=7)
    bundle = tables.bundle([Path(OTHER, bid=1)])
    tables.bind(ANCHORED, bundle, side=Side.ANCHOR)
    tables.bind(ANCHORED, TUNNEL, side=Side.ANCHOR)
    tables.change(bundle, [Path(third, bid=1)])
    assert decapsulate(any_engine, BACK, OTHER) == BACK
    assert decapsulate(any_engine, BACK, third) is Drop.NOT_BOUND


def test_what_a_router_gives_back_is_let_in_for_as_long_however_often_its_node_moves(any_engine: Engine) -> None:
    tables = any_engine.tables
    last_long(tables)
    third = Tunnel(local=TUNNEL.local, remote=TUNNEL.remote, encapsulation=TUNNEL.encapsulation, port=7)
    for tunnel in (OTHER, third):
        tables.bind(ANCHORED, tunnel, side=Side.ANCHOR)
    for tunnel in (TUNNEL, OTHER, third):
        assert decapsulate(any_engine, DOWN, tunnel) == DOWN


def test_paths_that_come_to_those_there_are_forget_nothing(any_engine: Engine) -> None:
    tables = any_engine.tables
    bundle = tables.bundle([Path(OTHER, bid=1)])
    tables.bind(ANCHORED, bundle, side=Side.ANCHOR)
    third = Tunnel(local=TUNNEL.local, remote=TUNNEL.remote, encapsulation=TUNNEL.encapsulation, port=7)
    tables.change(bundle, [Path(OTHER, bid=1, weight=3), Path(third, bid=2)])
    more = tables.bundle(paths([OTHER, third]))
    tables.bind(ANCHORED, more, side=Side.ANCHOR)
    assert decapsulate(any_engine, BACK, TUNNEL) == BACK


def test_a_node_on_a_link_of_ours_is_heard_by_its_former_router_for_as_long(any_engine: Engine) -> None:
    tables = any_engine.tables
    last_long(tables)
    tables.leave_to_kernel(ANCHORED)
    assert decapsulate(any_engine, BACK, TUNNEL) == BACK
    tables.transience = SHORT
    eventually(lambda: not tables.sweep(), PATIENCE)
    assert known(tables) == set()
    assert decapsulate(any_engine, BACK, TUNNEL) is Drop.UNKNOWN_TUNNEL


def test_what_was_held_in_between_is_let_in_by_the_way_before_that(any_engine: Engine) -> None:
    any_engine.tables.hold(ANCHORED)
    assert decapsulate(any_engine, BACK, TUNNEL) == BACK
    any_engine.tables.bind(ANCHORED, OTHER, side=Side.ANCHOR)
    assert decapsulate(any_engine, BACK, TUNNEL) == BACK


def test_a_prefix_that_is_released_is_let_in_by_no_way(any_engine: Engine) -> None:
    any_engine.tables.bind(ANCHORED, OTHER, side=Side.ANCHOR)
    any_engine.tables.bind(HELD, OTHER, side=Side.ANCHOR)
    any_engine.tables.close(ANCHORED)
    assert decapsulate(any_engine, BACK, OTHER) is Drop.NOT_BOUND
    assert decapsulate(any_engine, BACK, TUNNEL) is Drop.NOT_BOUND


def test_its_time_is_over_whether_or_not_somebody_looks(any_engine: Engine) -> None:
    any_engine.tables.transience = SHORT
    any_engine.tables.bind(ANCHORED, OTHER, side=Side.ANCHOR)
    eventually(lambda: decapsulate(any_engine, BACK, TUNNEL) is Drop.NOT_BOUND, PATIENCE)
    assert decapsulate(any_engine, BACK, OTHER) == BACK


def test_its_tunnel_is_kept_as_long_and_no_longer(any_engine: Engine) -> None:
    tables = any_engine.tables
    last_long(tables)
    tables.bind(ANCHORED, OTHER, side=Side.ANCHOR)
    assert {each.tunnel: each.prefixes for each in tables.tunnels()} == {TUNNEL: 0, OTHER: 1}
    tables.transience = SHORT
    tables.bind(ANCHORED, TUNNEL, side=Side.ANCHOR)
    eventually(lambda: not tables.sweep(), PATIENCE)
    assert known(tables) == {TUNNEL}


def test_a_shorter_time_holds_for_those_that_there_are(any_engine: Engine) -> None:
    tables = any_engine.tables
    for prefix in (ANCHORED, ANCHORED4):
        tables.bind(prefix, OTHER, side=Side.ANCHOR)
    tables.transience = SHORT
    eventually(lambda: not tables.sweep(), PATIENCE)
    assert decapsulate(any_engine, BACK, TUNNEL) is Drop.NOT_BOUND


def test_nothing_is_left_of_a_prefix_that_is_forgotten(any_engine: Engine) -> None:
    tables = any_engine.tables
    last_long(tables)
    tables.bind(ANCHORED, OTHER, side=Side.ANCHOR)
    tables.unbind(ANCHORED)
    assert known(tables) == set()
    tables.bind(ANCHORED, TUNNEL, side=Side.ANCHOR)
    assert known(tables) == {TUNNEL}


def test_without_transience_there_is_one_way(any_engine: Engine) -> None:
    tables = any_engine.tables
    last_long(tables)
    tables.transience = 0
    tables.bind(ANCHORED, OTHER, side=Side.ANCHOR)
    assert known(tables) == {OTHER}
    assert decapsulate(any_engine, BACK, TUNNEL) is Drop.UNKNOWN_TUNNEL


@compiled_only
@pytest.mark.parametrize("compiled", [True])
def test_a_node_that_is_home_is_heard_by_the_router_it_left(any_engine: Engine) -> None:
    any_engine.tables.hold(ANCHORED)
    any_engine.tables.bring_home(ANCHORED)
    assert decapsulate(any_engine, BACK) == BACK
    any_engine.tables.leave_to_kernel(ANCHORED, HoldBuffer())
    assert decapsulate(any_engine, BACK) == BACK


@compiled_only
@pytest.mark.parametrize("compiled", [True])
def test_workers_look_while_ways_come_and_go(tables: Tables, dice: random.Random) -> None:
    tables.patience = 0.0
    tables.bind(LEFT, FORTH, side=Side.ANCHOR)
    lone, several = tables.bundle([Path(BY_THEM)]), tables.bundle(paths(OTHERS[:3]))
    ways = [BY_THEM, lone, several, *OTHERS[:2]]
    with working(tables) as (workers, kernels):
        for _ in range(400):
            kernels.say(0, 2)
            tables.transience = dice.choice([0.0, SHORT, LONG])
            for _ in range(10):
                tables.bind(RIGHT, dice.choice(ways), side=Side.ANCHOR)
                tables.change(several, paths(dice.sample([BY_THEM, *OTHERS], 3)))
            if dice.random() < 0.1:
                tables.unbind(RIGHT)

        def all_counted() -> bool:
            counters = workers.counters()
            return counters.packets_to_tun + sum(counters.drops.values()) == kernels.sent[0]

        eventually(all_counted, PATIENCE)
