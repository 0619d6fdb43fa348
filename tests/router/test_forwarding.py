"""What a path means to the kernel and the engine, for every way from one path to another."""

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import pytest

import engine
from engine import BadRule, Encapsulation, Side
from router import forwarding
from router.errors import RouterError
from router.forwarding import (
    Device,
    Edits,
    Table,
    WantedBinding,
    WantedMatch,
    WantedRoute,
    edits,
    engine_rule,
    wanted,
    wants_ipv4_uplink,
)
from signaling.actions import Closed, Held, LocalLink, Path, SplitLink, TowardAnchor, TowardVisited, TunnelEnd
from signaling.flow_rules import FlowRule, Spread
from signaling.iana import TrafficSelectorFormat
from signaling.settings import Prefix
from signaling.wire.traffic_selector import Range, TrafficSelector

PREFIX = IPv6Network("2001:db8:a1:1::/64")
EVERYWHERE = IPv6Network("::/0")
PEER, OTHER = IPv6Address("2001:db8::2"), IPv6Address("2001:db8::3")
GATEWAY = IPv6Address("fe80::9")
TWO = (TunnelEnd(remote=PEER, binding_id=1, label=9), TunnelEnd(remote=OTHER, binding_id=2, label=11, weight=3))
CALLS = TrafficSelector(
    format=TrafficSelectorFormat.IPV6_BINARY,
    source=Range(IPv6Address("2001:db8:c::"), IPv6Address("2001:db8:c::ff")),
    destination=Range(PREFIX[0], PREFIX[-1]),
    protocol=Range(17),
    destination_port=Range(5004, 5010),
    traffic_class=Range(0xB9),
)
WEB = TrafficSelector(format=TrafficSelectorFormat.IPV6_BINARY, source_port=Range(80), destination_port=Range(0, 65535))
HOST = IPv4Network("10.1.0.9/32")
PATHS: list[Path | None] = [
    None,
    Held(),
    Closed(),
    LocalLink(interface="eth1"),
    LocalLink(interface="eth2"),
    LocalLink(interface="eth1", gateway=GATEWAY),
    SplitLink(rest=LocalLink(interface="eth1"), tunnels=TWO, policy="p", flows=(CALLS, WEB)),
    SplitLink(rest=LocalLink(interface="eth1", gateway=GATEWAY), tunnels=TWO[:1], policy="p", flows=(CALLS,)),
    SplitLink(rest=LocalLink(interface="eth2"), tunnels=TWO, policy="p", flows=()),
    TowardVisited.at(PEER),
    TowardVisited.at(OTHER),
    TowardAnchor.through(PEER, "eth1"),
    TowardAnchor.through(OTHER, "eth1"),
    TowardAnchor.through(PEER, "eth2"),
    TowardVisited(tunnels=TWO, policy="video"),
    TowardAnchor(tunnels=TWO, interface="eth1", policy="video"),
    TowardAnchor(tunnels=TWO, interface="eth1", gateway=GATEWAY),
    TowardAnchor(tunnels=TWO, interface=""),
]
PAIRS = [(before, after) for before in PATHS for after in PATHS]


class World:
    """A kernel and an engine that remember, and check what every step does to packets on their way."""

    def __init__(self) -> None:
        self.routes: dict[object, WantedRoute] = {}
        self.binding: WantedBinding | None = None
        self.rule = False
        self.matches: set[WantedMatch] = set()

    def apply(self, todo: Edits) -> None:
        """In the order of the fields, as `network.py` does."""
        if todo.bind is not None:
            self.binding = todo.bind
        for route in todo.set_routes:
            self.routes[route.key] = route
            self.check()
        if todo.set_rule is not None:
            assert not self.rule
            self.rule = True
        for match in todo.set_matches:
            assert match not in self.matches
            self.matches.add(match)
        self.matches -= set(todo.delete_matches)
        if todo.delete_rule is not None:
            assert self.rule
            self.rule = False
        for route in todo.delete_routes:
            assert self.routes.pop(route.key) == route
            self.check()
        if todo.unbind is not None:
            assert todo.unbind == PREFIX
            assert self.binding is not None
            self.binding = None
        self.check()

    def check(self) -> None:
        """The kernel sends nothing to an engine that does not know what to do with it."""
        if any(route.device is Device.TUN for route in self.routes.values()):
            assert self.binding is not None
        if self.matches:
            assert any(route.table is Table.FLOWS for route in self.routes.values())


@pytest.mark.parametrize(("before", "after"), PAIRS)
def test_edits_lead_from_any_path_to_any_other(before: Path | None, after: Path | None) -> None:
    world = World()
    world.apply(edits(PREFIX, None, before))
    world.apply(edits(PREFIX, before, after))
    assert set(world.routes.values()) == set(wanted(PREFIX, after).routes)
    assert world.binding == wanted(PREFIX, after).binding
    assert world.rule == wanted(PREFIX, after).rule
    assert world.matches == set(wanted(PREFIX, after).matches)


@pytest.mark.parametrize(("before", "after"), PAIRS)
def test_nothing_is_touched_that_stays_as_it_is(before: Path | None, after: Path | None) -> None:
    todo, old = edits(PREFIX, before, after), wanted(PREFIX, before)
    # but for what all depends on when the route to the link goes: somebody may have removed it
    assert not {route for route in todo.set_routes if not route.otherwise} & set(old.routes)
    assert not set(todo.delete_routes) & set(wanted(PREFIX, after).routes)
    assert todo.bind is None or todo.bind != old.binding
    assert todo.bind is None or todo.unbind is None


@pytest.mark.parametrize("path", PATHS)
def test_the_same_path_again_means_no_edits(path: Path | None) -> None:
    assert edits(PREFIX, path, path) == Edits()


@pytest.mark.parametrize(("before", "after"), [pair for pair in PAIRS if None not in pair])
def test_a_prefix_that_is_bound_is_never_without_a_route(before: Path, after: Path) -> None:
    todo = edits(PREFIX, before, after)
    main = {route.key: route for route in wanted(PREFIX, before).routes if route.table is Table.MAIN}
    is_site = any(isinstance(path, TowardAnchor) and not path.interface for path in (before, after))
    for route in todo.set_routes:  # nothing is deleted before
        main[route.key] = route
    for route in todo.delete_routes:
        main.pop(route.key, None)
        assert is_site or any(left.destination == PREFIX for left in main.values())


ELSE_TUN = WantedRoute(destination=PREFIX, device=Device.TUN, otherwise=True)
WAITS = WantedBinding(prefix=PREFIX, tunnels=(), side=Side.ANCHOR, waits=True)
NATIVE = replace(WAITS, native=True)


def test_what_comes_for_a_node_at_home_whose_link_is_lost_waits() -> None:
    todo = edits(PREFIX, None, LocalLink(interface="eth1"))
    on_link = WantedRoute(destination=PREFIX, device=Device.ACCESS, interface="eth1")
    assert todo == Edits(bind=NATIVE, set_routes=(on_link, ELSE_TUN))


def test_flows_that_go_elsewhere_are_told_apart_by_rules_of_the_kernel() -> None:
    split = SplitLink(rest=LocalLink(interface="eth1"), tunnels=TWO, policy="p", flows=(CALLS, WEB))
    assert wanted(PREFIX, split).matches == (
        WantedMatch(
            destination=PREFIX,
            source=IPv6Network("2001:db8:c::/120"),
            upper_layer=17,
            destination_ports=(5004, 5010),
            traffic_class=0xB8,
        ),
        WantedMatch(destination=EVERYWHERE, source_ports=(80, 80)),
    )


def test_what_does_not_go_elsewhere_is_forwarded_natively() -> None:
    on_link, split = LocalLink(interface="eth1"), SplitLink(
        rest=LocalLink(interface="eth1"), tunnels=TWO, policy="p", flows=(CALLS,)
    )
    todo = edits(PREFIX, on_link, split)
    assert [route.table for route in todo.set_routes] == [Table.FLOWS]
    assert todo.delete_routes == (ELSE_TUN,)


def test_a_node_away_is_tunnelled_by_destination() -> None:
    todo = edits(PREFIX, None, TowardVisited.at(PEER))
    assert todo.bind == WantedBinding(prefix=PREFIX, tunnels=(TunnelEnd(remote=PEER),), side=Side.ANCHOR)
    assert todo.set_routes == (ELSE_TUN,)


def test_a_visiting_node_is_delivered_on_the_link_and_tunnelled_by_source() -> None:
    todo = edits(PREFIX, None, TowardAnchor.through(PEER, "eth1"))
    tunnels = (TunnelEnd(remote=PEER),)
    assert todo.bind == WantedBinding(prefix=PREFIX, tunnels=tunnels, side=Side.ACCESS, waits=True)
    assert todo.set_routes == (
        WantedRoute(destination=PREFIX, device=Device.ACCESS, interface="eth1"),
        WantedRoute(destination=EVERYWHERE, source=PREFIX, device=Device.TUN, table=Table.UPLINK),
        ELSE_TUN,
    )


def test_for_a_closed_prefix_nothing_waits() -> None:
    todo = edits(PREFIX, Held(), Closed())
    assert todo.bind == WantedBinding(prefix=PREFIX, tunnels=(), side=Side.ANCHOR, waits=False)


def test_a_node_between_routers_is_held_in_the_engine() -> None:
    on_link = WantedRoute(destination=PREFIX, device=Device.ACCESS, interface="eth1")
    todo = edits(PREFIX, LocalLink(interface="eth1"), Held())
    assert todo == Edits(bind=WAITS, set_routes=(ELSE_TUN,), delete_routes=(on_link,))  # that may have been removed
    todo = edits(PREFIX, TowardAnchor.through(PEER, "eth1"), Held())
    assert todo.bind == WAITS
    assert on_link in todo.delete_routes
    assert ELSE_TUN not in todo.delete_routes


def test_coming_home_is_one_route_more() -> None:
    todo = edits(PREFIX, TowardVisited.at(PEER), LocalLink(interface="eth1"))
    on_link = WantedRoute(destination=PREFIX, device=Device.ACCESS, interface="eth1")
    assert todo == Edits(bind=NATIVE, set_routes=(on_link,))


def test_another_visited_router_is_one_edit_of_the_engine() -> None:
    todo = edits(PREFIX, TowardVisited.at(PEER), TowardVisited.at(OTHER))
    assert todo == Edits(bind=WantedBinding(prefix=PREFIX, tunnels=(TunnelEnd(remote=OTHER),), side=Side.ANCHOR))


def test_another_access_link_is_one_edit_of_the_kernel() -> None:
    todo = edits(PREFIX, TowardAnchor.through(PEER, "eth1"), TowardAnchor.through(PEER, "eth2"))
    assert todo == Edits(set_routes=(WantedRoute(destination=PREFIX, device=Device.ACCESS, interface="eth2"),))


# An anchor of a whole pool


@pytest.mark.parametrize("path", [TowardVisited.at(PEER), Held()])
def test_a_prefix_of_a_pool_that_leads_to_the_tun_needs_no_route_of_its_own(path: Path) -> None:
    assert wanted(PREFIX, path, aggregated=True) == replace(wanted(PREFIX, path), routes=())


def test_an_anchor_of_a_pool_edits_nothing_but_the_engine() -> None:
    todo = edits(PREFIX, Held(), TowardVisited.at(PEER), aggregated=True)
    assert todo == Edits(bind=wanted(PREFIX, TowardVisited.at(PEER)).binding)


# IPv4, delegated prefixes, sites


def test_an_ipv4_node_has_a_host_route_and_shares_the_default_route_of_all() -> None:
    path = TowardAnchor.through(PEER, "eth1")
    assert wanted(HOST, path).routes == (WantedRoute(destination=HOST, device=Device.ACCESS, interface="eth1"),)
    assert wants_ipv4_uplink(HOST, path)


@pytest.mark.parametrize(
    ("prefix", "path"),
    [
        (PREFIX, TowardAnchor.through(PEER, "eth1")),
        (HOST, TowardVisited.at(PEER)),
        (HOST, LocalLink(interface="eth1")),
        (HOST, Held()),
        (HOST, None),
    ],
)
def test_nothing_else_sends_ipv4_of_the_access_links_to_the_tun(prefix: Prefix, path: Path | None) -> None:
    assert not wants_ipv4_uplink(prefix, path)


def test_a_delegated_prefix_is_behind_its_router() -> None:
    down, up, _ = wanted(PREFIX, TowardAnchor(tunnels=TWO, interface="eth1", gateway=GATEWAY)).routes
    assert (down.interface, down.gateway, down.device) == ("eth1", GATEWAY, Device.ACCESS)
    assert (up.source, up.device) == (PREFIX, Device.TUN)


@pytest.mark.parametrize("prefix", [PREFIX, HOST])
def test_a_site_asks_the_table_by_a_rule_of_its_own_and_keeps_to_itself_what_is_inside(prefix: Prefix) -> None:
    site = wanted(prefix, TowardAnchor(tunnels=TWO, interface=""))
    assert site.rule
    own = prefix if isinstance(prefix, IPv6Network) else EVERYWHERE
    assert WantedRoute(destination=prefix, source=own, device=Device.NEXT_TABLE, table=Table.UPLINK) in site.routes
    assert not [route for route in site.routes if route.table is Table.MAIN]


# Tunnels


def test_a_tunnel_end_is_a_tunnel_with_the_encapsulation_of_this_router() -> None:
    made = forwarding.tunnel(TunnelEnd(remote=PEER, key_in=1, key_out=2), OTHER, Encapsulation.GRE)
    assert made == engine.Tunnel(local=OTHER, remote=PEER, encapsulation=Encapsulation.GRE, key_in=1, key_out=2)


def test_a_peer_behind_a_nat_has_udp_whatever_the_others_have() -> None:
    here, there = IPv4Address("192.0.2.1"), IPv4Address("192.0.2.2")
    made = forwarding.tunnel(TunnelEnd(remote=there, port=40001), here, Encapsulation.GRE)
    assert (made.encapsulation, made.port) == (Encapsulation.UDP, 40001)


def test_a_key_that_the_encapsulation_cannot_carry_is_refused_with_a_cure() -> None:
    with pytest.raises(RouterError, match='encapsulation = "gre"'):
        forwarding.tunnel(TunnelEnd(remote=PEER, key_in=1), OTHER, Encapsulation.UDP)


def test_a_way_keeps_what_rules_choose_it_by() -> None:
    through = forwarding.tunnel(TWO[1], IPv6Address("2001:db8::1"), Encapsulation.UDP)
    assert forwarding.path(TWO[1], through) == engine.Path(through, bid=2, label=11, weight=3)


# Flow rules


def test_a_flow_rule_means_the_same_in_the_engine() -> None:
    selector = TrafficSelector(
        format=TrafficSelectorFormat.IPV6_BINARY,
        source=Range(PEER, OTHER),
        destination_port=Range(5004),
        protocol=Range(17),
    )
    rule = engine_rule(FlowRule(name="video", selector=selector, labels=(9, 11), spread=Spread.BICAST))
    assert rule == engine.FlowRule(
        engine.TrafficSelector(family=6, source=(PEER, OTHER), destination_port=(5004, 5004), protocol=(17, 17)),
        engine.Steer(spread=engine.Spread.BICAST, labels=(9, 11)),
    )


def test_every_packet_and_discarding_have_their_words_too() -> None:
    assert engine_rule(FlowRule(selector=None, binding_ids=(1, 2))) == engine.FlowRule(None, engine.Steer(bids=(1, 2)))
    assert engine_rule(FlowRule(selector=None, spread=Spread.DROP)) == engine.FlowRule(None, engine.Discard())


def test_a_selector_without_sense_is_refused() -> None:
    upside_down = TrafficSelector(format=TrafficSelectorFormat.IPV4_BINARY, source_port=Range(9, 5))
    with pytest.raises(BadRule):
        engine_rule(FlowRule(selector=upside_down))
