"""Gateways and anchor together: each scenario ends with both ends of every tunnel agreeing."""

import random
from dataclasses import replace
from ipaddress import IPv6Network

import pytest

from signaling.actions import SetPolicy, TowardAnchor, TowardVisited
from signaling.events import AddressAsked, ClockStepped, SiteAttached, UplinkUp
from signaling.flow_rules import FlowRule, Spread
from signaling.iana import TrafficSelectorFormat
from signaling.pmip.binding_update_list import Stage
from signaling.roles.lma import Lma
from signaling.settings import NodeProfile, PathCare, Site, Uplink, Wants
from signaling.wire.traffic_selector import Range, TrafficSelector
from tests.signaling.pmip.pmip_domain import Domain
from tests.signaling.pmip.pmip_world import ADDRESSES, INTERFACE, LTE, WALL, WLAN

BOTH = {1: Stage.REGISTERED, 2: Stage.REGISTERED}
VOICE = TrafficSelector(format=TrafficSelectorFormat.IPV6_BINARY, protocol=Range(17))


def test_a_node_keeps_its_prefix_from_gateway_to_gateway() -> None:
    world = Domain(mags=2)
    world.attach("mn1")
    world.run(1.0)
    prefix = world.prefix("mn1")
    world.detach("mn1", noticed=False)
    world.attach("mn1", "mag2")
    world.run(5.0)
    assert world.hosts["mn1"].offered() == {prefix: 7200}
    assert isinstance(world.gateways["mag2"].paths[prefix], TowardAnchor)
    assert world.faults() == []


def test_a_node_that_comes_back_unnoticed_is_served_where_it_is() -> None:
    world = Domain(mags=2)
    world.attach("mn1")
    world.run(3.0)
    for mag in ("mag2", "mag1", "mag2", "mag1"):
        world.detach("mn1", noticed=False)
        world.attach("mn1", mag)
        world.run(3.0)
    prefix = world.prefix("mn1")
    assert isinstance(world.mag.paths[prefix], TowardAnchor)
    world.run(10.0)
    assert world.faults() == []


def with_a_twin(*, uplinks: tuple[Uplink, ...] = ()) -> tuple[Domain, IPv6Network]:
    """mn1 is at mag1, and its link-layer address shows up at mag2 too, which takes the session over."""
    world = Domain(mags=2, uplinks=uplinks)
    if uplinks:
        world.feed(UplinkUp(interface=uplinks[0].interface, address=world.address["mag2"]), "mag2")
    world.attach("mn1")
    world.run(60.0)
    prefix = world.prefix("mn1")
    twin = world.host("twin", node="mn1")
    twin.link_layer, twin.link_local = world.hosts["mn1"].link_layer, world.hosts["mn1"].link_local
    world.attach("twin", "mag2")
    return world, prefix


@pytest.mark.parametrize("uplinks", [(), (WLAN, LTE)])
@pytest.mark.parametrize("both_for", [0.0, 0.2, 7.0, 300.0])
def test_a_node_that_stays_gets_its_session_back_from_where_its_address_was_seen_too(
    uplinks: tuple[Uplink, ...], both_for: float
) -> None:
    world, prefix = with_a_twin(uplinks=uplinks)
    world.run(both_for)
    world.detach("twin")
    world.run(90.0)
    assert (world.prefix("mn1"), world.faults()) == (prefix, [])
    assert isinstance(world.anchor_paths[prefix], TowardVisited)


def test_a_node_at_two_gateways_is_asked_back_ever_more_seldom() -> None:
    world, _ = with_a_twin()
    world.run(1000.0)
    asked = [gateway.mag.counters["gateway.reclaimed"] for gateway in world.gateways.values()]
    assert 2 <= min(asked) <= max(asked) < 30


def test_a_session_is_not_asked_back_for_a_node_that_has_moved_on() -> None:
    world = Domain(mags=2)
    world.attach("mn1")
    world.run(60.0)
    world.detach("mn1", noticed=False)
    world.attach("mn1", "mag2")
    world.run(60.0)
    assert (world.mag.mag.counters["gateway.reclaimed"], world.faults()) == (0, [])


def test_all_paths_are_registered_and_stay() -> None:
    world = Domain(uplinks=(WLAN, LTE))
    world.attach("mn1")
    world.keep_talking("mn1", 1000.0)
    assert sorted(world.stages("mn1")) == [1, 2]
    assert world.faults() == []


def test_a_path_is_lost_and_found_at_both_ends() -> None:
    world = Domain(uplinks=(WLAN, LTE))
    world.attach("mn1")
    world.run(1.0)
    world.uplink_down(WLAN)
    world.run(1.0)
    assert (world.faults(), world.stages("mn1")) == ([], {2: Stage.REGISTERED})
    world.uplink_up(WLAN)
    world.run(1.0)
    assert (world.faults(), world.stages("mn1")) == ([], BOTH)


def test_a_node_without_multipath_is_served_by_one() -> None:
    world = Domain(uplinks=(WLAN, LTE), lma={"profiles": (NodeProfile(node="mn1", multipath=False),)})
    world.attach("mn1")
    world.run(1.0)
    assert (world.stages("mn1"), world.faults()) == ({1: Stage.REGISTERED}, [])
    world.uplink_down(WLAN)
    world.run(1.0)
    assert (world.stages("mn1"), world.faults()) == ({2: Stage.REGISTERED}, [])


def test_an_anchor_without_multipath_is_given_one_path() -> None:
    world = Domain(uplinks=(WLAN, LTE), lma={"multipath": False})
    world.attach("mn1")
    world.run(1.0)
    assert (world.stages("mn1"), world.faults()) == ({1: Stage.REGISTERED}, [])


def test_an_anchor_that_lost_its_sessions_is_noticed_by_the_probes_of_its_paths() -> None:
    care = PathCare()
    world = Domain(uplinks=(WLAN, LTE), lma={"paths": care, "restart_counter": 1}, paths=care)
    world.attach("mn1")
    world.run(10.0)
    prefix = world.prefix("mn1")
    world.anchor = Lma(replace(world.anchor.settings, restart_counter=2))
    world.anchor.handle(ClockStepped(wall_minus_monotonic=WALL), world.now)
    world.anchor_paths.clear()
    world.show("mn1")
    world.run(5.0)
    assert (world.prefix("mn1"), world.stages("mn1"), world.faults()) == (prefix, BOTH, [])
    assert isinstance(world.anchor_paths[prefix], TowardVisited)


def test_a_gateway_that_was_restarted_gets_the_same_prefix_by_all_paths() -> None:
    world = Domain(uplinks=(WLAN, LTE))
    world.attach("mn1")
    world.run(1.0)
    prefix = world.prefix("mn1")
    world.restart()
    world.uplink_up(LTE)
    world.attach("mn1")
    world.run(1.0)
    assert (world.prefix("mn1"), world.stages("mn1"), world.faults()) == (prefix, {2: Stage.REGISTERED}, [])


def test_ipv4_and_a_delegated_prefix_are_given() -> None:
    world = Domain()
    world.attach("mn1")
    world.run(1.0)
    for wants in Wants:
        link_layer = world.hosts["mn1"].link_layer
        world.feed(AddressAsked(node="mn1", interface=INTERFACE, link_layer=link_layer, wants=wants))
    world.run(1.0)
    assert len(world.mag.paths) == 3
    world.keep_talking("mn1", 600.0)
    assert (len(world.mag.paths), world.faults()) == (3, [])


def test_a_site_has_its_prefixes_by_all_paths_after_a_restart_too() -> None:
    world = Domain(uplinks=(WLAN, LTE), sites=(Site(node="branch", delegated_interface="office0"),))
    world.feed(SiteAttached(node="branch"))
    world.run(1.0)
    before = set(world.mag.paths)
    world.restart()
    world.uplink_up(WLAN)
    world.uplink_up(LTE)
    world.feed(SiteAttached(node="branch"))
    world.run(1.0)
    assert (set(world.mag.paths), len(before), world.faults()) == (before, 2, [])


@pytest.mark.parametrize("spread", [Spread.PER_FLOW, Spread.BICAST, Spread.PER_PACKET])
def test_both_ends_agree_on_the_flows(spread: Spread) -> None:
    rules = (FlowRule(name="voice", selector=VOICE, labels=(11, 9), spread=spread),)
    world = Domain(uplinks=(WLAN, LTE), policies={"default": rules})
    world.attach("mn1")
    world.keep_talking("mn1", 600.0)
    told = [action.rules for action in world.anchor_done if isinstance(action, SetPolicy)]
    assert told
    assert [(rule.selector, rule.spread) for rule in told[-1]] == [(VOICE, spread)]
    assert world.faults() == []


def test_two_interfaces_have_a_prefix_each_and_a_switch_takes_it_along() -> None:
    world = Domain()
    for name in ("if1", "if2", "if3"):
        world.host(name, node="mn1")
    world.attach("if1")
    world.run(1.0)
    world.attach("if2")
    world.run(1.0)
    first, second = world.prefix("if1"), world.prefix("if2")
    assert first != second
    world.detach("if1")
    world.attach("if3")
    world.run(1.0)
    assert (world.prefix("if3"), world.prefix("if2"), world.faults()) == (first, second, [])


def test_a_node_that_left_leaves_nothing_behind() -> None:
    world = Domain(uplinks=(WLAN, LTE))
    world.attach("mn1")
    world.run(1.0)
    world.detach("mn1")
    world.run(60.0)
    assert (world.mag.paths, world.anchor_paths) == ({}, {})


def test_all_sessions_end_when_the_anchor_revokes_them() -> None:
    world = Domain()
    for name in ("mn1", "mn2"):
        world.attach(name)
    world.run(1.0)
    world._perform_anchor(world.anchor.revoke(None, world.now))
    world.run(5.0)
    assert (world.mag.paths, world.faults()) == ({}, [])


@pytest.mark.parametrize("seed", range(10))
def test_after_any_walk_both_ends_agree(seed: int) -> None:
    dice = random.Random(seed)
    world = Domain(mags=2, probe_every=30.0)
    for _ in range(40):
        host = world.host(dice.choice(("mn1", "mn2")))
        if host.at is not None and dice.random() < 0.6:
            world.detach(host.name, noticed=dice.random() < 0.5)
        if host.at is None:
            world.attach(host.name, dice.choice(("mag1", "mag2")))
        if dice.random() < 0.2:
            world.cut ^= {world.address[dice.choice(("mag1", "mag2"))]}
        world.run(dice.choice((0.0, 0.005, 0.5, 5.0)))
    world.cut = set()
    for _ in range(40):
        for host in world.hosts.values():
            world.show(host.name, "rs")
        world.run(10.0)
    assert world.faults() == []
    for host in world.hosts.values():
        assert host.at is not None
        session = world.session(host.name, host.at)
        assert [prefix for prefix, valid in host.offered().items() if valid] == [session.prefixes[0].prefix]


def test_the_wire_may_lose_an_uplink_for_a_while() -> None:
    world = Domain(uplinks=(WLAN, LTE))
    world.attach("mn1")
    world.run(1.0)
    world.cut = {ADDRESSES["wlan0"]}
    world.keep_talking("mn1", 400.0)
    world.cut = set()
    world.keep_talking("mn1", 100.0)
    assert (sorted(world.stages("mn1")), world.faults()) == ([1, 2], [])
