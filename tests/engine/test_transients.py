"""The way that a prefix had lets in, for a while, what is still on it: a transient binding (RFC 6058)."""

from __future__ import annotations

import pytest

from engine import Drop, Engine, HoldBuffer, NotCompiled, Path, Side, Tables, Tunnel
from tests.engine.descriptors import PATIENCE
from tests.engine.nodes import ANCHORED, ANCHORED4, BACK, BACK4, HELD, HOME, OTHER, TUNNEL, VISITING
from tests.engine.test_path import decapsulate
from tests.eventually import eventually

LONG, SHORT = 1000.0, 0.1  # s


@pytest.fixture
def tables(tables: Tables) -> Tables:
    tables.transience = LONG
    return tables


def known(tables: Tables) -> set[Tunnel]:
    return {each.tunnel for each in tables.tunnels()}


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


def test_what_was_held_in_between_is_let_in_by_the_way_before_that(any_engine: Engine) -> None:
    try:
        any_engine.tables.hold(ANCHORED, buffer=HoldBuffer())
    except NotCompiled:  # the model keeps no packets; what it lets in it says all the same
        any_engine.tables.storage.hold(ANCHORED.network_address.packed, 6 << 8 | ANCHORED.prefixlen, True)
    assert decapsulate(any_engine, BACK, TUNNEL) == BACK
    any_engine.tables.bind(ANCHORED, OTHER, side=Side.ANCHOR)
    assert decapsulate(any_engine, BACK, TUNNEL) == BACK


def test_a_prefix_that_is_released_is_let_in_by_no_way(any_engine: Engine) -> None:
    any_engine.tables.bind(ANCHORED, OTHER, side=Side.ANCHOR)
    any_engine.tables.bind(HELD, OTHER, side=Side.ANCHOR)
    any_engine.tables.hold(ANCHORED)
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
    for tunnel in (OTHER, TUNNEL, OTHER):
        tables.bind(ANCHORED, tunnel, side=Side.ANCHOR)
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
