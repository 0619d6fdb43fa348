"""Bundles and policies, end to end: by which tunnels packets leave, on every engine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from ipaddress import IPv6Address

import pytest

from engine import Discard, Drop, Encapsulation, Engine, FlowRule, Path, Side, Spread, Steer, TrafficSelector, Tunnel
from engine.tunnels import TunnelState
from tests.engine.nodes import (
    ANCHORED,
    ANCHORED4,
    CORRESPONDENT,
    CORRESPONDENT4,
    HERE,
    UDP,
    arriving,
    datagram,
    leaving,
    packet,
    segment,
    unlabelled,
)

FAR = [IPv6Address(f"2001:db8:b{n}::1") for n in range(4)]
WAYS = [Tunnel(local=HERE, remote=far, encapsulation=Encapsulation.UDP) for far in FAR]
NUMBERED = [Tunnel(local=HERE, remote=far, encapsulation=Encapsulation.GRE, sequence=True) for far in FAR]
BY_ADDRESS = {far.packed: n for n, far in enumerate(FAR)}
VIDEO = TrafficSelector(family=6, protocol=(UDP, UDP), destination_port=(5004, 5005))


def flow(port: int, *, size: int = 10) -> bytes:
    return datagram(CORRESPONDENT, ANCHORED[5], (4000, port), bytes(size))


def ways(engine: Engine, packets: Iterable[bytes]) -> list[tuple[int, ...]]:
    """The tunnels each packet left by."""
    return [tuple(BY_ADDRESS[copy[24:40]] for copy in copies) for copies in engine.encapsulate(list(packets))]


def bind(engine: Engine, paths: Iterable[Path], *rules: FlowRule) -> tuple[object, object]:
    """The node that is away has these paths, and these rules."""
    bundle = engine.tables.bundle(paths)
    policy = engine.tables.policy(rules) if rules else None
    for prefix in (ANCHORED, ANCHORED4):
        engine.tables.bind(prefix, bundle, side=Side.ANCHOR, policy=policy)
    return bundle, policy


def steer(spread: Spread = Spread.PER_FLOW, *, labels: tuple[int, ...] = (), bids: tuple[int, ...] = ()) -> Steer:
    return Steer(spread=spread, labels=labels, bids=bids)


def paths(*labels: int, weights: Iterable[int] = (1, 1, 1, 1), tunnels: list[Tunnel] = WAYS) -> list[Path]:
    return [
        Path(tunnel, bid=n, label=label, weight=weight)
        for n, (tunnel, label, weight) in enumerate(zip(tunnels, labels, weights, strict=False), 1)
    ]


# --- per flow ---


def test_without_a_policy_every_flow_keeps_to_one_way_and_flows_use_all(any_engine: Engine) -> None:
    bind(any_engine, paths(0, 0, 0))
    first = ways(any_engine, (flow(port) for port in range(200)))
    assert first == ways(any_engine, (flow(port, size=900) for port in range(200)))
    shares = Counter(first)
    assert set(shares) == {(0,), (1,), (2,)}
    assert min(shares.values()) > 30


def test_flows_are_shared_out_by_weight(any_engine: Engine) -> None:
    bind(any_engine, paths(0, 0, weights=(3, 1)))
    shares = Counter(ways(any_engine, (flow(port) for port in range(1, 2001))))
    assert 1350 < shares[(0,)] < 1650


def test_a_way_that_goes_down_moves_its_own_flows_only(any_engine: Engine) -> None:
    bind(any_engine, paths(0, 0, 0))
    flows = [flow(port) for port in range(200)]
    before = ways(any_engine, flows)
    any_engine.tables.set_state(WAYS[1], TunnelState.DOWN)
    after = ways(any_engine, flows)
    assert [now for was, now in zip(before, after, strict=True) if was != (1,)] == [w for w in before if w != (1,)]
    assert {now for was, now in zip(before, after, strict=True) if was == (1,)} == {(0,), (2,)}
    any_engine.tables.set_state(WAYS[1], TunnelState.UP)
    any_engine.tables.flow_pause = 0  # as if all of them had paused
    assert ways(any_engine, flows) == before


def test_both_ends_choose_the_same_way_for_a_flow(any_engine: Engine) -> None:
    other = Engine(type(any_engine.tables)(compiled=any_engine.compiled))
    bind(any_engine, paths(0, 0, 0))
    other.tables.bind(ANCHORED, other.tables.bundle(paths(0, 0, 0)), side=Side.ACCESS)
    down = [datagram(CORRESPONDENT, ANCHORED[5], (4000, port)) for port in range(100)]
    up = [datagram(ANCHORED[5], CORRESPONDENT, (port, 4000)) for port in range(100)]
    assert ways(any_engine, down) == ways(other, up)


def test_fragments_go_where_the_first_of_them_went(any_engine: Engine) -> None:
    bind(any_engine, paths(0, 0, 0, 0), FlowRule(VIDEO, steer(bids=(4,))), FlowRule(None, steer(bids=(1, 2, 3))))
    whole = datagram(CORRESPONDENT, ANCHORED[5], (4000, 5004), bytes(2000))[40:]
    pieces = [
        packet(
            CORRESPONDENT,
            ANCHORED[5],
            protocol=44,
            payload=bytes([UDP, 0])
            + (at | (at + 800 < len(whole))).to_bytes(2, "big")
            + b"\0\0\0\7"
            + whole[at : at + 800],
        )
        for at in range(0, len(whole), 800)
    ]
    assert ways(any_engine, pieces) == [(3,)] * 3


# --- per packet, copies ---


def test_packets_one_by_one_use_all_ways_as_their_weights_say(any_engine: Engine) -> None:
    bind(any_engine, paths(0, 0, weights=(2, 1)), FlowRule(None, steer(Spread.PER_PACKET)))
    taken = ways(any_engine, [flow(7)] * 300)
    assert Counter(taken) == {(0,): 200, (1,): 100}
    assert all(Counter(taken[n : n + 3]) == {(0,): 2, (1,): 1} for n in range(0, 300, 3))


def test_striped_packets_are_numbered_together_over_all_tunnels(any_engine: Engine) -> None:
    bind(any_engine, paths(0, 0, tunnels=NUMBERED), FlowRule(None, steer(Spread.PER_PACKET)))
    answers = any_engine.encapsulate([flow(7)] * 20)
    numbers = [int.from_bytes(out[44:48], "big") for [out] in answers]
    assert numbers == list(range(20))
    assert len({out[24:40] for [out] in answers}) == 2


def test_copies_leave_by_every_way_with_one_number(any_engine: Engine) -> None:
    bind(any_engine, paths(0, 0, 0, tunnels=NUMBERED), FlowRule(None, steer(Spread.BICAST)))
    for number, copies in enumerate(any_engine.encapsulate([flow(7), flow(8)])):
        inner = flow(7 + number)
        assert [unlabelled(copy) for copy in copies] == [leaving(way, inner, sequence=number) for way in NUMBERED[:3]]
    counters = any_engine.counters()
    assert (counters.packets_from_tun, counters.packets_to_underlay) == (2, 2)
    assert [stats.packets_out for stats in any_engine.tables.tunnels() if stats.tunnel in NUMBERED] == [2, 2, 2]


def test_a_flow_that_keeps_to_one_way_takes_no_number_of_those_that_do_not(any_engine: Engine) -> None:
    bind(any_engine, paths(7, 9, tunnels=NUMBERED), FlowRule(VIDEO, steer(Spread.BICAST)))
    answers = any_engine.encapsulate([flow(5004), flow(1), flow(1), flow(5004)])
    flags = [{out[40:42] for out in copies} for copies in answers if isinstance(copies, tuple)]
    assert flags == [{b"\x10\0"}, {b"\0\0"}, {b"\0\0"}, {b"\x10\0"}]
    assert [unlabelled(copy)[44:48] for copy in answers[3]] == [b"\0\0\0\1"] * 2


def test_a_lone_tunnel_numbers_every_packet(any_engine: Engine) -> None:
    any_engine.tables.bind(ANCHORED, NUMBERED[0], side=Side.ANCHOR)
    answers = any_engine.encapsulate([flow(1), flow(2)])
    assert [out[44:48] for [out] in answers] == [b"\0\0\0\0", b"\0\0\0\1"]


def test_copies_spare_the_ways_that_are_down(any_engine: Engine) -> None:
    bind(any_engine, paths(7, 9, 7), FlowRule(None, steer(Spread.BICAST, labels=(7, 9))))
    assert ways(any_engine, [flow(1)]) == [(0, 1, 2)]
    any_engine.tables.set_state(WAYS[0], TunnelState.DOWN)
    any_engine.tables.set_state(WAYS[1], TunnelState.SUSPECT)
    assert ways(any_engine, [flow(1)]) == [(1, 2)]


# --- rules ---


def test_the_first_rule_that_matches_decides(any_engine: Engine) -> None:
    bind(
        any_engine,
        paths(10, 20, 30),
        FlowRule(VIDEO, steer(labels=(20,))),
        FlowRule(TrafficSelector(family=6, protocol=(UDP, UDP)), steer(labels=(30,))),
        FlowRule(None, steer(labels=(10,))),
    )
    tcp = segment(CORRESPONDENT, ANCHORED[5], ports=(4000, 5004))
    four = datagram(CORRESPONDENT4, ANCHORED4[5], (4000, 5004))
    assert ways(any_engine, [flow(5004), flow(5006), tcp, four]) == [(1,), (2,), (0,), (0,)]


def test_a_packet_that_no_rule_wants_goes_by_flow_over_all(any_engine: Engine) -> None:
    bind(any_engine, paths(10, 20), FlowRule(VIDEO, steer(labels=(20,))))
    assert set(ways(any_engine, (flow(port) for port in range(100)))) == {(0,), (1,)}


def test_labels_are_preferred_in_their_order(any_engine: Engine) -> None:
    tables = any_engine.tables
    bind(any_engine, paths(10, 20, 30), FlowRule(None, steer(labels=(30, 20))))
    assert ways(any_engine, [flow(1)]) == [(2,)]
    tables.set_state(WAYS[2], TunnelState.DOWN)
    assert ways(any_engine, [flow(1)]) == [(1,)]
    tables.set_state(WAYS[1], TunnelState.DOWN)
    assert any_engine.encapsulate([flow(1)]) == [Drop.NO_PATH]
    tables.set_state(WAYS[2], TunnelState.SUSPECT)
    assert ways(any_engine, [flow(1)]) == [(2,)]


def test_a_rule_may_throw_away(any_engine: Engine) -> None:
    bind(any_engine, paths(10), FlowRule(VIDEO, Discard()))
    assert any_engine.encapsulate([flow(5004)]) == [Drop.POLICY]
    assert ways(any_engine, [flow(5006)]) == [(0,)]
    assert any_engine.counters().drops[Drop.POLICY] == 1


def test_rules_hold_for_a_lone_tunnel_too(any_engine: Engine) -> None:
    policy = any_engine.tables.policy([FlowRule(VIDEO, Discard())])
    any_engine.tables.bind(ANCHORED, WAYS[3], side=Side.ANCHOR, policy=policy)
    assert any_engine.encapsulate([flow(5004)]) == [Drop.POLICY]
    assert ways(any_engine, [flow(1)]) == [(3,)]
    any_engine.tables.set_state(WAYS[3], TunnelState.DOWN)
    assert any_engine.encapsulate([flow(1)]) == [Drop.NO_PATH]


def test_each_rule_counts_what_it_treated(any_engine: Engine) -> None:
    bind(any_engine, paths(10), FlowRule(VIDEO, Discard()), FlowRule(None, steer()))
    any_engine.encapsulate([flow(5004), flow(5005), flow(1), b""])
    counted = [(stats.packets, stats.octets) for stats in any_engine.tables.flow_rules()]
    assert counted == [(2, 2 * 58), (1, 58)]


# --- changes ---


def test_a_change_of_paths_holds_for_the_next_packet(any_engine: Engine) -> None:
    bundle, _ = bind(any_engine, paths(0))
    assert ways(any_engine, [flow(1)]) == [(0,)]
    any_engine.tables.change(bundle, [Path(WAYS[2])])
    assert ways(any_engine, [flow(1)]) == [(2,)]
    assert ways(any_engine, [datagram(CORRESPONDENT4, ANCHORED4[5], (1, 2))]) == [(2,)]


def test_a_change_of_rules_holds_for_the_next_packet(any_engine: Engine) -> None:
    _, policy = bind(any_engine, paths(10, 20), FlowRule(None, steer(labels=(10,))))
    for labels, way in (((20,), 1), ((10,), 0), ((20,), 1)):
        any_engine.tables.change(policy, [FlowRule(None, steer(labels=labels))])
        assert ways(any_engine, [flow(1)] * 3) == [(way,)] * 3
    any_engine.tables.change(policy, [FlowRule(None, Discard())])
    assert any_engine.encapsulate([flow(1)]) == [Drop.POLICY]


def test_many_rules_give_the_same_answer_the_second_time(any_engine: Engine) -> None:
    rules = [
        FlowRule(TrafficSelector(family=6, destination_port=(port, port)), steer(labels=(10 * (1 + port % 3),)))
        for port in range(1, 300)
    ]
    _, policy = bind(any_engine, paths(10, 20, 30), *rules)
    flows = [flow(port) for port in range(1, 300)]
    wanted = [(port % 3,) for port in range(1, 300)]
    assert ways(any_engine, flows) == wanted
    assert ways(any_engine, flows) == wanted  # from what it remembers
    any_engine.tables.change(policy, [FlowRule(None, steer(labels=(20,)))])
    assert ways(any_engine, flows) == [(1,)] * 299


# --- the way back ---


def test_packets_may_come_back_by_any_way_of_the_bundle_and_no_other(any_engine: Engine) -> None:
    bundle, _ = bind(any_engine, paths(0, 0), FlowRule(None, steer(bids=(1,))))
    any_engine.tables.bind(ANCHORED.supernet(), WAYS[3], side=Side.ACCESS)  # so that it is a tunnel we know
    inner = packet(ANCHORED[5], CORRESPONDENT)
    answers = any_engine.decapsulate([arriving(way, inner) for way in WAYS])
    assert answers == [inner, inner, Drop.UNKNOWN_TUNNEL, Drop.NOT_BOUND]
    any_engine.tables.set_state(WAYS[1], TunnelState.DOWN)  # we do not send there; what still comes is good
    assert any_engine.decapsulate([arriving(WAYS[1], inner)]) == [inner]
    any_engine.tables.change(bundle, [Path(WAYS[2])])
    answers = any_engine.decapsulate([arriving(way, inner) for way in WAYS[:3]])
    assert answers == [Drop.UNKNOWN_TUNNEL, Drop.UNKNOWN_TUNNEL, inner]


@pytest.mark.parametrize("spread", Spread)
def test_when_every_way_is_down_packets_have_no_path(any_engine: Engine, spread: Spread) -> None:
    bind(any_engine, paths(0, 0), FlowRule(None, steer(spread)))
    for way in WAYS[:2]:
        any_engine.tables.set_state(way, TunnelState.DOWN)
    assert any_engine.encapsulate([flow(1)]) == [Drop.NO_PATH]
    assert any_engine.counters().drops[Drop.NO_PATH] == 1
