"""Bundles shared by value, policies by name, states before their tunnels: in the tables of an engine."""

from ipaddress import IPv6Address, IPv6Network
from typing import Any

import pytest

from engine import (
    Binding,
    Encapsulation,
    Engine,
    FlowRule,
    Path,
    Side,
    Spread,
    Steer,
    Tables,
    TrafficSelector,
    Tunnel,
    TunnelState,
    fast,
)
from router import ways as module
from router.errors import RouterError
from router.ways import Ways

HERE = IPv6Address("2001:db8::1")
FAR = [IPv6Address(f"2001:db8::{number:x}") for number in range(0x11, 0x15)]
ONE, TWO, THREE = (IPv6Network(f"2001:db8:a:{number}::/64") for number in (1, 2, 3))
VIDEO = FlowRule(TrafficSelector(family=6, destination_port=(5004, 5004)), Steer(labels=(2,)))
TWICE = FlowRule(None, Steer(spread=Spread.BICAST))


def ends(*numbers: int, encapsulation: Encapsulation = Encapsulation.GRE) -> tuple[Path, ...]:
    """Ways to the routers with these numbers; BID and label are the number."""
    return tuple(
        Path(
            Tunnel(local=HERE, remote=FAR[number], encapsulation=encapsulation),
            bid=number,
            label=number,
        )
        for number in numbers
    )


class Bench:
    def __init__(self, compiled: bool | None) -> None:
        self.tables = Tables(compiled=compiled)
        self.ways = Ways(self.tables)

    def bind(self, prefix: IPv6Network, to: tuple[Path, ...], policy: str = "", node: str = "mn1") -> None:
        self.ways.bind(prefix, to, side=Side.ANCHOR, policy=policy, node=node)

    def unbind(self, prefix: IPv6Network) -> None:
        self.tables.unbind(prefix)
        self.ways.forget(prefix)

    def binding(self, prefix: IPv6Network) -> Binding:
        return next(each for each in self.tables.bindings() if each.prefix == prefix)

    def numbers_of(self, prefix: IPv6Network) -> list[int]:
        """Ways of the bundle of a prefix."""
        bundle = self.binding(prefix).bundle
        assert bundle is not None
        return [path.bid for path in bundle.paths]

    def is_empty(self) -> bool:
        inside: dict[str, Any] = vars(self.ways)
        return not (inside["_shared"] or inside["_uses"]) and self.tables.tunnels() == []


@pytest.fixture(params=[False, True] if fast.Tables else [False], ids=lambda compiled: "fast" if compiled else "model")
def bench(request: pytest.FixtureRequest) -> Bench:
    return Bench(request.param)


def test_the_least_mtu_is_that_of_the_narrowest_tunnel_that_has_learned_one(bench: Bench) -> None:
    assert bench.ways.least_mtu() is None
    bench.bind(ONE, ends(1, 2, 3))
    assert bench.ways.least_mtu() is None
    for way, mtu in zip(ends(1, 2), (1400, 1352), strict=True):
        bench.tables.set_mtu(way.tunnel, mtu)
    assert bench.ways.least_mtu() == 1352


@pytest.fixture
def compiled() -> Bench:
    return Bench(None)


def test_one_way_without_a_policy_is_a_lone_tunnel(bench: Bench) -> None:
    bench.bind(ONE, ends(1))
    assert bench.binding(ONE).tunnel == ends(1)[0].tunnel
    bench.unbind(ONE)
    assert bench.is_empty()


def test_prefixes_with_equal_ways_share_a_bundle(bench: Bench) -> None:
    bench.bind(ONE, ends(1, 2))
    bench.bind(TWO, ends(1, 2), node="mn2")
    assert bench.binding(ONE).bundle is bench.binding(TWO).bundle


def test_with_its_last_prefix_a_bundle_goes(bench: Bench) -> None:
    for prefix in (ONE, TWO):
        bench.bind(prefix, ends(1, 2))
    bench.unbind(ONE)
    assert bench.numbers_of(TWO) == [1, 2]
    bench.unbind(TWO)
    assert bench.is_empty()


def test_the_bundle_of_one_node_changes_in_place_for_all_its_prefixes(bench: Bench) -> None:
    bench.bind(ONE, ends(1, 2))
    bench.bind(TWO, ends(1, 2))
    before = bench.binding(ONE).bundle
    bench.bind(ONE, ends(1, 2, 3))
    bench.bind(TWO, ends(1, 2, 3))
    assert bench.binding(ONE).bundle is bench.binding(TWO).bundle is before
    assert bench.numbers_of(TWO) == [1, 2, 3]


def test_a_node_takes_none_of_the_others_along(bench: Bench) -> None:
    bench.bind(ONE, ends(1, 2))
    bench.bind(TWO, ends(1, 2), node="mn2")
    bench.bind(ONE, ends(1, 3))
    assert (bench.numbers_of(ONE), bench.numbers_of(TWO)) == ([1, 3], [1, 2])


def test_a_prefix_comes_back_to_one_way(bench: Bench) -> None:
    bench.ways.set_policy("video", (VIDEO,))
    bench.bind(ONE, ends(1, 2), "video")
    bench.bind(ONE, ends(1))
    assert bench.binding(ONE) == Binding(prefix=ONE, tunnel=ends(1)[0].tunnel, side=Side.ANCHOR)
    bench.unbind(ONE)
    assert bench.is_empty()


# Policies


def test_a_policy_changes_for_all_that_name_it(bench: Bench) -> None:
    bench.ways.set_policy("video", (VIDEO,))
    bench.bind(ONE, ends(1, 2), "video")
    bench.bind(TWO, ends(2, 3), "video", node="mn2")
    before = bench.binding(ONE).policy
    other = FlowRule(None, Steer(labels=(3,)))
    bench.ways.set_policy("video", (other,))
    assert before is not None
    assert bench.binding(ONE).policy is bench.binding(TWO).policy is before
    assert before.rules == (other,)


def test_a_policy_named_before_it_is_set_holds_from_then_on(bench: Bench) -> None:
    bench.bind(ONE, ends(1, 2), "video")
    policy = bench.binding(ONE).policy
    assert policy is not None
    assert policy.rules == ()
    bench.ways.set_policy("video", (VIDEO,))
    assert policy.rules == (VIDEO,)


def test_what_names_a_forgotten_policy_spreads_over_all_its_ways(bench: Bench) -> None:
    bench.ways.set_policy("video", (VIDEO,))
    bench.bind(ONE, ends(1, 2), "video")
    bench.ways.set_policy("video", ())
    policy = bench.binding(ONE).policy
    assert policy is not None
    assert policy.rules == ()


def test_a_policy_for_both_sides_is_two_in_the_engine(bench: Bench) -> None:
    bench.ways.set_policy("video", (VIDEO,))
    bench.bind(ONE, ends(1, 2), "video")
    bench.ways.bind(TWO, ends(1, 2), side=Side.ACCESS, policy="video", node="mn2")
    here, there = bench.binding(ONE).policy, bench.binding(TWO).policy
    assert here is not None
    assert there is not None
    assert (here.rules, there.rules) == ((VIDEO,), (VIDEO.mirrored(),))


# States


def test_a_state_is_known_before_the_tunnel_is(bench: Bench) -> None:
    first, second = (end.tunnel for end in ends(1, 2))
    bench.ways.set_state(first, TunnelState.DOWN)
    bench.ways.set_state(second, TunnelState.SUSPECT)
    bench.bind(ONE, ends(1, 2))
    assert [bench.tables.state(each) for each in (first, second)] == [TunnelState.DOWN, TunnelState.SUSPECT]


def test_a_state_is_that_of_all_sessions_whatever_their_keys(bench: Bench) -> None:
    keyed = [
        (Path(Tunnel(local=HERE, remote=FAR[1], encapsulation=Encapsulation.GRE, key_in=key, key_out=key)),)
        for key in (7, 8, 9)
    ]
    (plain,) = ends(1)
    bench.bind(ONE, keyed[0])
    bench.bind(TWO, keyed[1])
    bench.ways.set_state(plain.tunnel, TunnelState.DOWN)
    bench.bind(THREE, keyed[2])
    assert {bench.tables.state(way.tunnel) for (way,) in keyed} == {TunnelState.DOWN}
    bench.ways.set_state(plain.tunnel, TunnelState.UP)
    assert {bench.tables.state(way.tunnel) for (way,) in keyed} == {TunnelState.UP}


def test_a_tunnel_that_comes_again_is_as_it_was_left(bench: Bench) -> None:
    (end,) = ends(1)
    bench.bind(ONE, (end,))
    bench.ways.set_state(end.tunnel, TunnelState.DOWN)
    bench.unbind(ONE)
    bench.bind(ONE, (end,))
    assert bench.tables.state(end.tunnel) is TunnelState.DOWN


def test_states_of_tunnels_that_never_come_have_a_bound(monkeypatch: pytest.MonkeyPatch, bench: Bench) -> None:
    monkeypatch.setattr(module, "MOST_STATES", 2)
    for end in ends(1, 2, 3):
        bench.ways.set_state(end.tunnel, TunnelState.DOWN)
    bench.bind(ONE, ends(1, 3))
    first, third = (end.tunnel for end in ends(1, 3))
    assert [bench.tables.state(each) for each in (first, third)] == [TunnelState.UP, TunnelState.DOWN]


# Numbers


def test_copies_carry_one_number_and_are_put_in_order_by_one_group(compiled: Bench) -> None:
    assert compiled.ways.set_policy("twice", (TWICE,))
    compiled.bind(ONE, ends(1, 2), "twice")
    compiled.bind(TWO, ends(1, 2), "twice", node="mn2")
    engine = Engine(compiled.tables)
    sent = [engine.encapsulate([_packet(prefix)])[0] for prefix in (ONE, TWO)]
    numbers = [{copy[44:48] for copy in copies} for copies in sent if isinstance(copies, tuple)]
    assert [len(each) for each in numbers] == [1, 1]
    assert numbers[0] != numbers[1]
    groups = [shared.group for shared in compiled.ways._shared.values()]
    assert [len(group.tunnels) for group in groups if group is not None] == [2]


def test_a_policy_that_begins_to_want_numbers_gets_them_for_what_is_bound(compiled: Bench) -> None:
    compiled.bind(ONE, ends(1, 2), "video")
    assert compiled.ways.set_policy("video", (TWICE,))
    bundle = compiled.binding(ONE).bundle
    assert bundle is not None
    assert all(path.tunnel.sequence for path in bundle.paths)
    assert not compiled.ways.set_policy("more", (TWICE,))  # they are there already


def test_a_group_out_of_use_is_closed_when_what_waits_in_it_has_left(
    compiled: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled.ways.set_policy("twice", (TWICE,))
    compiled.bind(ONE, ends(1, 2), "twice")
    compiled.ways.set_policy("twice", (VIDEO,))
    assert len(compiled.ways._retired) == 1
    monkeypatch.setattr(module.time, "monotonic", lambda: float("inf"))
    compiled.bind(TWO, ends(1, 2), "twice")
    assert compiled.ways._retired == []


@pytest.mark.parametrize("spread", [Spread.BICAST, Spread.PER_PACKET])
def test_numbers_that_a_tunnel_cannot_carry_are_refused(bench: Bench, spread: Spread) -> None:
    over_udp = ends(1, 2, encapsulation=Encapsulation.UDP)
    rule = FlowRule(None, Steer(spread=spread))
    bench.bind(ONE, over_udp, "video")
    with pytest.raises(RouterError, match="udp"):
        bench.ways.set_policy("video", (rule,))
    bench.ways.set_policy("twice", (rule,))
    with pytest.raises(RouterError, match="udp"):
        bench.bind(TWO, over_udp, "twice")


# Traffic


def test_traffic_counts_both_ways_and_is_read_at_most_so_often(
    compiled: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    (end,) = ends(1)
    assert compiled.ways.traffic(end.tunnel) == -1
    compiled.bind(ONE, (end,))
    Engine(compiled.tables).encapsulate([_packet(ONE)] * 3)
    assert compiled.ways.traffic(end.tunnel) == -1
    now[0] += module.TRAFFIC_FRESH
    assert compiled.ways.traffic(end.tunnel) == 3


def _packet(to: IPv6Network) -> bytes:
    """An IPv6 packet with nothing inside but a UDP header."""
    udp = (7).to_bytes(2, "big") + (7).to_bytes(2, "big") + (8).to_bytes(2, "big") + b"\x12\x34"
    return b"\x60\0\0\0\0\x08\x11\x40" + IPv6Address("2001:db8:ffff::1").packed + to[9].packed + udp
