"""What makes no sense is refused in one line: what, where, why, and the cure. Nothing has changed then."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from ipaddress import IPv6Address
from typing import Any

import pytest

import engine
from engine import (
    BadPacket,
    BadRule,
    BadTunnel,
    Encapsulation,
    Engine,
    EngineError,
    FlowRule,
    Misused,
    Path,
    Port,
    PortKind,
    Side,
    Steer,
    Tables,
    TrafficSelector,
    Tunnel,
    TunnelState,
    Workers,
)
from tests.engine.nodes import ANCHORED, DOWN, ELSEWHERE, HERE, TUNNEL, leaving, unlabelled

WRONG: Any = "2001:db8:a1:100::/64"  # as it is written in a configuration


def check_line(error: EngineError) -> None:
    assert error.what
    assert error.where
    assert error.why
    assert error.cure
    assert "\n" not in str(error)


@pytest.mark.parametrize(
    "call",
    [
        lambda tables: tables.bind(WRONG, TUNNEL, side=Side.ANCHOR),
        lambda tables: tables.bind(ANCHORED, WRONG, side=Side.ANCHOR),
        lambda tables: tables.bind(ANCHORED, TUNNEL, side="anchor"),
        lambda tables: tables.bind(ANCHORED, TUNNEL, side=Side.ANCHOR, policy=WRONG),
        lambda tables: tables.bind(ANCHORED, tables.policy([]), side=Side.ANCHOR),
        lambda tables: tables.bind(ANCHORED, TUNNEL, side=Side.ANCHOR, policy=tables.bundle([Path(TUNNEL)])),
        lambda tables: tables.hold(WRONG),
        lambda tables: tables.hold(ANCHORED, buffer=1000),
        lambda tables: tables.unbind(IPv6Address("2001:db8::")),
        lambda tables: tables.activity(None),
        lambda tables: tables.reorder([WRONG]),
        lambda tables: tables.bundle(TUNNEL),
        lambda tables: tables.bundle([TUNNEL]),
        lambda tables: tables.policy([Steer()]),
        lambda tables: tables.change(WRONG, []),
        lambda tables: tables.change(tables.bundle([Path(TUNNEL)]), [TUNNEL]),
        lambda tables: tables.state(WRONG),
        lambda tables: tables.set_state(WRONG, TunnelState.UP),
        lambda tables: tables.set_state(TUNNEL, "up"),
        lambda tables: tables.mtu(WRONG),
        lambda tables: tables.set_mtu(WRONG, 1400),
        lambda tables: tables.set_mtu(TUNNEL, "1400"),
        lambda tables: tables.follow(WRONG, 4000),
        lambda tables: tables.follow(TUNNEL, "4000"),
        lambda tables: Engine(tables.storage),
        lambda tables: Engine(tables).add_port(3),
        lambda tables: Engine(tables).remove_port(3),
        lambda tables: Engine(tables).serve(3),
        lambda tables: Engine(tables).run(None),
        lambda tables: Engine(tables).open_tap(WRONG),
        lambda tables: Engine(tables).encapsulate(7),
        lambda tables: Workers(tables, [Port(fd=3, kind=PortKind.TUN)]),
        lambda tables: Path(WRONG),
        lambda tables: Tunnel(local="::1", remote=ELSEWHERE, encapsulation=Encapsulation.UDP),
        lambda tables: Tunnel(local=HERE, remote=ELSEWHERE, encapsulation="udp"),
        lambda tables: Tunnel(local=HERE, remote=ELSEWHERE, encapsulation=Encapsulation.GRE, key_in="7"),
    ],
)
def test_what_a_call_does_not_take_is_named(tables: Tables, call: Callable[[Any], object]) -> None:
    if not tables.compiled and "reorder" in call.__code__.co_names:
        pytest.skip("the model keeps no packets")
    with pytest.raises(Misused, match=r"it is of type \w+; give ") as caught:
        call(tables)
    check_line(caught.value)
    assert tables.bindings() == []


@pytest.mark.parametrize(
    "make",
    [
        lambda: TrafficSelector(family=6, protocol=WRONG),
        lambda: TrafficSelector(family=6, protocol=17),  # type: ignore[arg-type]
        lambda: TrafficSelector(family=6, protocol=("17", "17")),  # type: ignore[arg-type]
        lambda: TrafficSelector(family=6, source=("::1", "::2")),  # type: ignore[arg-type]
        lambda: Steer(labels=9),  # type: ignore[arg-type]
        lambda: Steer(bids=("9",)),  # type: ignore[arg-type]
        lambda: FlowRule(None, WRONG),
    ],
)
def test_a_rule_of_other_things_is_no_rule(make: Callable[[], object]) -> None:
    with pytest.raises(BadRule) as caught:
        make()
    assert caught.value.where
    assert caught.value.why


# --- what there is one of ---


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, pickle.dumps])
@pytest.mark.parametrize("make", [lambda tables: tables.bundle([Path(TUNNEL)]), lambda tables: tables.policy([])])
def test_a_bundle_or_policy_is_not_copied(
    tables: Tables, make: Callable[[Tables], object], again: Callable[[object], object]
) -> None:
    made = make(tables)
    with pytest.raises(Misused, match=r"cannot copy .*it would be given back twice; share the object") as caught:
        again(made)
    check_line(caught.value)


@pytest.mark.skipif(not engine.compiled, reason="the model keeps no packets")
def test_a_reorder_group_is_not_copied() -> None:
    tables = Tables()
    tables.bind(ANCHORED, TUNNEL, side=Side.ANCHOR)
    with pytest.raises(Misused, match="cannot copy"):
        copy.copy(tables.reorder([TUNNEL]))


# --- numbers ---


@pytest.mark.parametrize("mtu", [-1, 65576, 1 << 40])
def test_an_mtu_no_packet_can_have_is_refused(tables: Tables, mtu: int) -> None:
    tables.bind(ANCHORED, TUNNEL, side=Side.ANCHOR)
    tables.set_mtu(TUNNEL, 1400)
    with pytest.raises(BadTunnel, match=f"cannot set MTU .*: {mtu} is not 0"):
        tables.set_mtu(TUNNEL, mtu)
    assert tables.mtu(TUNNEL) == 1400


# --- packets ---


@pytest.mark.parametrize("way", ["encapsulate", "decapsulate"])
@pytest.mark.parametrize(
    ("wrong", "why"), [("text", "type str"), (7, "type int"), (None, "type NoneType"), (bytes(65601), "65601 octets")]
)
def test_one_that_is_no_packet_loses_no_answer_of_the_others(
    any_engine: Engine, way: str, wrong: Any, why: str
) -> None:
    before = any_engine.counters()
    with pytest.raises(BadPacket, match=f"number 600 of 601.*{why}") as caught:
        getattr(any_engine, way)([DOWN] * 600 + [wrong])
    check_line(caught.value)
    assert any_engine.counters() == before


def test_what_lies_behind_the_stated_end_of_a_packet_is_cut_off(any_engine: Engine) -> None:
    whole = DOWN + bytes(65600 - len(DOWN))
    [[wrapped]] = any_engine.encapsulate([whole])
    assert unlabelled(wrapped) == leaving(TUNNEL, DOWN)
