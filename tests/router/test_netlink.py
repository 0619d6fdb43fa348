"""Our rtnetlink codec against the kernel, with pyroute2 as the second opinion.

here --eth0 ===== eth0-- there        what we set, pyroute2 reads; what pyroute2 sets, we read and hear of
"""

import asyncio
import errno
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import pytest
import uvloop
from pyroute2 import IPRoute

from router.demo.lab import Host, Lab, available, connect
from router.errors import ExitCode
from router.links import rtnetlink
from router.links.netlink import (
    ROUTE_PROTOCOL,
    Address,
    AddressChanged,
    AddressFlag,
    Event,
    Group,
    LinkChanged,
    Neighbor,
    NeighborChanged,
    NeighborState,
    Netlink,
    NetlinkError,
    OperState,
    Route,
    RouteChanged,
    RouteKind,
    Rule,
)
from router.links.rtnetlink import ANY_IPV4, NextHop
from router.links.rtnetlink_constants import Message, MessageFlag, RouteProtocol
from tests.engine.descriptors import wait_for_address
from tests.eventually import becomes

pytestmark = [
    pytest.mark.namespaces,
    pytest.mark.skipif(available() is not None, reason=str(available())),
]

PREFIX = IPv6Network("2001:db8:5::/64")
ELSEWHERE = IPv6Network("2001:db8:7::/64")
EVERYWHERE = IPv6Network("::/0")
OURS = IPv6Address("2001:db8::1")
GATEWAY = IPv6Address("2001:db8::2")
MAC = bytes.fromhex("020000000011")


@dataclass
class Bench:
    here: Host
    there: Host
    ours: Netlink
    oracle: IPRoute
    eth0: int

    def routes(self, **wanted: object) -> list[dict[str, object]]:
        return [dict(r["attrs"]) | r for r in self.oracle.get_routes(family=socket.AF_INET6, **wanted)]


@pytest.fixture
def bench() -> Iterator[Bench]:
    with Lab() as lab:
        here, there = lab.host("here"), lab.host("there")
        connect(here, "eth0", there, "eth0")
        here.address("eth0", f"{OURS}/64")
        wait_for_address(here, str(OURS))
        with here.inside():
            oracle = IPRoute()
        try:
            yield Bench(here, there, here.netlink, oracle, here.link("eth0").index)
        finally:
            oracle.close()


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = uvloop.new_event_loop()
    yield loop
    loop.close()


class Ear:
    """Events of a Netlink object, heard on a uvloop loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, netlink: Netlink, *groups: Group) -> None:
        self.loop = loop
        self.events: list[Event] = []
        self.overruns = 0
        chosen = {"groups": groups} if groups else {}
        netlink.watch(loop, self.events.append, self.overrun, **chosen)

    def overrun(self) -> None:
        self.overruns += 1

    def hears(self, condition: Callable[[], object], timeout: float = 5.0) -> bool:
        return self.loop.run_until_complete(becomes(condition, timeout))

    def heard(self, kind: type[Event], **wanted: object) -> bool:
        def fits(event: Event) -> bool:
            return type(event) is kind and all(getattr(event, k) == v for k, v in wanted.items())

        return self.hears(lambda: any(fits(event) for event in self.events))


# Links


def test_a_link_is_found_by_name_and_by_index(bench: Bench) -> None:
    link = bench.ours.link("eth0")
    assert link == bench.ours.link(link.index)
    assert link in bench.ours.links()


def test_a_link_reads_as_pyroute2_reads_it(bench: Bench) -> None:
    (theirs,) = bench.oracle.link("get", ifname="eth0")
    link = bench.ours.link("eth0")
    assert link.index == theirs["index"]
    assert link.mtu == theirs.get("mtu")
    assert link.link_layer.hex(":") == theirs.get("address")
    assert link.kind == theirs.get(("linkinfo", "kind")) == "veth"
    assert link.operstate is OperState.UP


def test_a_link_is_switched_off_and_on(bench: Bench) -> None:
    bench.ours.set_down(bench.eth0)
    assert not bench.ours.link("eth0").up
    assert bench.oracle.link("get", ifname="eth0")[0]["flags"] & 1 == 0
    bench.ours.set_up(bench.eth0)
    assert bench.ours.link("eth0").up


def test_carrier_is_lost_when_the_far_end_is_switched_off(bench: Bench) -> None:
    bench.there.link_down("eth0")
    link = bench.ours.link("eth0")
    assert link.up
    assert not link.carrier


def test_mtu_and_link_layer_address_are_set(bench: Bench) -> None:
    bench.ours.set_mtu(bench.eth0, 1400)
    bench.ours.set_link_layer(bench.eth0, MAC)
    (theirs,) = bench.oracle.link("get", ifname="eth0")
    assert theirs.get("mtu") == 1400
    assert theirs.get("address") == MAC.hex(":")


def test_a_bridge_takes_a_port_and_both_are_deleted(bench: Bench) -> None:
    bench.ours.create_link("br0", "bridge")
    bridge = bench.ours.link("br0")
    bench.ours.set_master(bench.eth0, bridge.index)
    assert bench.ours.link("eth0").master == bridge.index
    bench.ours.delete_link(bridge.index)
    assert [link.name for link in bench.ours.links()] == ["lo", "eth0"]
    assert bench.ours.link("eth0").master == 0


def test_an_unknown_link_is_an_error_that_names_it(bench: Bench) -> None:
    with pytest.raises(NetlinkError, match=r"^find link nope: No such device") as caught:
        bench.ours.link("nope")
    assert caught.value.errno == errno.ENODEV
    assert caught.value.exit_code == ExitCode.NO_INTERFACE


def test_an_error_repeats_what_the_kernel_said(bench: Bench) -> None:
    with pytest.raises(NetlinkError, match=r"^set mtu 3 dev eth0: Invalid argument \(.*minimum.*\)$"):
        bench.ours.set_mtu(bench.eth0, 3)


# Addresses


def test_an_address_without_duplicate_detection_is_usable_at_once(bench: Bench) -> None:
    address = Address(index=bench.eth0, address=GATEWAY, prefixlen=80, flags=AddressFlag.NODAD)
    bench.ours.add_address(address)
    (found,) = (each for each in bench.ours.addresses(bench.eth0) if each.address == GATEWAY)
    assert found.prefixlen == 80
    assert not found.flags & AddressFlag.TENTATIVE
    theirs = [dict(a["attrs"])["IFA_ADDRESS"] for a in bench.oracle.get_addr(index=bench.eth0)]
    assert str(GATEWAY) in theirs


def test_an_address_without_prefix_route_brings_no_route(bench: Bench) -> None:
    flags = AddressFlag.NODAD | AddressFlag.NOPREFIXROUTE
    bench.ours.add_address(Address(index=bench.eth0, address=PREFIX[1], flags=flags))
    assert PREFIX not in [route.destination for route in bench.ours.routes()]


def test_a_deleted_address_is_gone(bench: Bench) -> None:
    bench.ours.delete_address(Address(index=bench.eth0, address=OURS))
    assert OURS not in [each.address for each in bench.ours.addresses()]


def test_deleting_an_address_twice_is_an_error_that_names_it(bench: Bench) -> None:
    with pytest.raises(NetlinkError, match=r"^delete address 2001:db8::9/64 dev eth0: Cannot assign"):
        bench.ours.delete_address(Address(index=bench.eth0, address=IPv6Address("2001:db8::9")))


# Routes


def test_a_route_reads_back_as_it_was_set(bench: Bench) -> None:
    route = Route(destination=PREFIX, oif=bench.eth0, gateway=GATEWAY)
    bench.ours.add_route(route)
    assert bench.ours.routes(protocol=ROUTE_PROTOCOL) == [route]


def test_pyroute2_sees_our_route_with_our_protocol_number(bench: Bench) -> None:
    bench.ours.add_route(Route(destination=PREFIX, oif=bench.eth0, gateway=GATEWAY, metric=77))
    (theirs,) = (r for r in bench.routes() if r["proto"] == ROUTE_PROTOCOL)
    assert theirs["RTA_DST"] == str(PREFIX.network_address)
    assert theirs["dst_len"] == 64
    assert theirs["RTA_GATEWAY"] == str(GATEWAY)
    assert theirs["RTA_OIF"] == bench.eth0
    assert theirs["RTA_PRIORITY"] == 77


def test_a_source_specific_default_route_lives_in_a_table_of_its_own(bench: Bench) -> None:
    route = Route(destination=EVERYWHERE, source=ELSEWHERE, oif=bench.eth0, table=100_000)
    bench.ours.add_route(route)
    assert bench.ours.routes(table=100_000) == [route]
    (theirs,) = bench.routes(table=100_000)
    assert (theirs["RTA_SRC"], theirs["src_len"]) == (str(ELSEWHERE.network_address), 64)


def test_we_read_the_route_pyroute2_sets(bench: Bench) -> None:
    bench.oracle.route("add", dst=str(PREFIX), gateway=str(GATEWAY), oif=bench.eth0, priority=5, proto=4)
    expected = Route(destination=PREFIX, gateway=GATEWAY, oif=bench.eth0, metric=5, protocol=4)
    assert bench.ours.routes(protocol=4) == [expected]


def test_of_a_route_with_two_next_hops_we_read_the_first_and_the_other(bench: Bench) -> None:
    hops = [{"gateway": str(GATEWAY)}, {"gateway": "2001:db8::3"}]
    bench.oracle.route("add", dst=str(PREFIX), multipath=hops)
    (route,) = (each for each in bench.ours.routes() if each.destination == PREFIX)
    assert (route.gateway, route.oif) == (GATEWAY, bench.eth0)
    assert route.others == (NextHop(bench.eth0, IPv6Address("2001:db8::3")),)


@pytest.mark.parametrize("kind", [RouteKind.BLACKHOLE, RouteKind.UNREACHABLE])
def test_a_route_without_a_way_is_deleted_as_it_was_read(bench: Bench, kind: RouteKind) -> None:
    bench.ours.add_route(Route(destination=PREFIX, kind=kind))
    (found,) = bench.ours.routes(protocol=ROUTE_PROTOCOL)
    assert found.kind is kind
    bench.ours.delete_route(found)
    assert bench.ours.routes(protocol=ROUTE_PROTOCOL) == []


def test_replacing_a_route_leaves_one(bench: Bench) -> None:
    route = Route(destination=PREFIX, oif=bench.eth0, gateway=GATEWAY)
    bench.ours.replace_route(route)
    moved = replace(route, gateway=IPv6Address("2001:db8::3"))
    bench.ours.replace_route(moved)
    assert bench.ours.routes(protocol=ROUTE_PROTOCOL) == [moved]


def test_adding_a_route_twice_is_refused(bench: Bench) -> None:
    route = Route(destination=PREFIX, oif=bench.eth0)
    bench.ours.add_route(route)
    with pytest.raises(NetlinkError, match=r"^add route 2001:db8:5::/64 dev eth0: File exists"):
        bench.ours.add_route(route)


def test_deleting_a_route_that_is_not_there_is_an_error(bench: Bench) -> None:
    with pytest.raises(NetlinkError, match=r"^delete route 2001:db8:5::/64 dev eth0: No such process"):
        bench.ours.delete_route(Route(destination=PREFIX, oif=bench.eth0))


def test_the_way_to_an_address_names_link_gateway_and_our_address(bench: Bench) -> None:
    bench.ours.add_route(Route(destination=PREFIX, gateway=GATEWAY))
    way = bench.ours.route_to(PREFIX[9])
    assert (way.oif, way.gateway, way.prefsrc) == (bench.eth0, GATEWAY, OURS)


def test_the_default_route_tells_the_underlay_address(bench: Bench) -> None:
    bench.oracle.route("add", dst="::/0", gateway=str(GATEWAY))
    way = bench.ours.default_route()
    assert way is not None
    assert (way.oif, way.gateway, way.prefsrc, way.source) == (bench.eth0, GATEWAY, OURS, EVERYWHERE)


def test_there_may_be_no_default_route(bench: Bench) -> None:
    assert bench.ours.default_route() is None
    bench.ours.add_route(Route(destination=EVERYWHERE, kind=RouteKind.UNREACHABLE))
    assert bench.ours.default_route() is None


def test_a_table_without_routes_is_empty(bench: Bench) -> None:
    assert bench.ours.routes(table=4711) == []


def test_thousands_of_routes_are_read_whole_and_filtered_by_protocol(bench: Bench) -> None:
    prefixes = list(IPv6Network("2001:db8:8000::/52").subnets(new_prefix=64))
    for prefix in prefixes:
        bench.ours.add_route(Route(destination=prefix, oif=bench.eth0))
    assert {route.destination for route in bench.ours.routes(protocol=ROUTE_PROTOCOL)} == set(prefixes)
    assert bench.ours.routes(protocol=99) == []


# Rules


def test_a_rule_reads_back_as_it_was_set(bench: Bench) -> None:
    rule = Rule(table=100_000, priority=500, source=ELSEWHERE, iif="eth0")
    bench.ours.add_rule(rule)
    assert bench.ours.rules(protocol=ROUTE_PROTOCOL) == [rule]


def test_a_rule_of_a_flow_reads_back_as_it_was_set_and_is_deleted_by_itself(bench: Bench) -> None:
    flow = Rule(
        table=300,
        priority=500,
        destination=PREFIX,
        upper_layer=17,
        source_ports=(80, 80),
        destination_ports=(5004, 5010),
        traffic_class=0xB8,
    )
    other = replace(flow, destination_ports=(5004, 5011))
    for rule in (flow, other):
        bench.ours.add_rule(rule)
    assert bench.ours.rules(protocol=ROUTE_PROTOCOL) == [flow, other]
    bench.ours.delete_rule(other)
    assert bench.ours.rules(protocol=ROUTE_PROTOCOL) == [flow]


def test_pyroute2_sees_our_rule(bench: Bench) -> None:
    bench.ours.add_rule(Rule(table=100_000, priority=500, source=ELSEWHERE, iif="eth0"))
    (theirs,) = (r for r in bench.oracle.get_rules(family=socket.AF_INET6) if r.get("priority") == 500)
    assert theirs.get("table") == 100_000
    assert theirs.get("iifname") == "eth0"
    assert (theirs.get("src"), theirs["src_len"]) == (str(ELSEWHERE.network_address), 64)
    assert theirs.get("protocol") == ROUTE_PROTOCOL


def test_we_read_the_rule_pyroute2_sets(bench: Bench) -> None:
    bench.oracle.rule(
        "add", family=socket.AF_INET6, table=200, priority=600, dst=str(PREFIX.network_address), dst_len=64
    )
    (rule,) = (each for each in bench.ours.rules() if each.priority == 600)
    assert (rule.table, rule.destination, rule.source) == (200, PREFIX, EVERYWHERE)


def test_a_deleted_rule_is_gone_and_cannot_be_deleted_again(bench: Bench) -> None:
    rule = Rule(table=200, priority=500)
    bench.ours.add_rule(rule)
    bench.ours.delete_rule(rule)
    assert bench.ours.rules(protocol=ROUTE_PROTOCOL) == []
    with pytest.raises(NetlinkError, match=r"^delete rule 500 .*: No such file or directory"):
        bench.ours.delete_rule(rule)


# IPv4


OURS4, GATEWAY4, PREFIX4 = IPv4Address("192.0.2.1"), IPv4Address("192.0.2.2"), IPv4Network("10.1.0.0/24")


@pytest.fixture
def with_ipv4(bench: Bench) -> Bench:
    bench.ours.add_address(Address(index=bench.eth0, address=OURS4, prefixlen=24))
    return bench


def test_an_ipv4_address_reads_back_as_it_was_set(with_ipv4: Bench) -> None:
    (found,) = with_ipv4.ours.addresses(with_ipv4.eth0, family=socket.AF_INET)
    assert (found.address, found.prefixlen) == (OURS4, 24)
    assert OURS4 not in [each.address for each in with_ipv4.ours.addresses()]


@pytest.mark.parametrize("gateway", [None, GATEWAY4])
def test_an_ipv4_route_reads_back_as_it_was_set_and_can_be_deleted(with_ipv4: Bench, gateway: IPv4Address) -> None:
    route = Route(destination=PREFIX4, oif=with_ipv4.eth0, gateway=gateway)
    with_ipv4.ours.replace_route(route)
    assert with_ipv4.ours.routes(protocol=ROUTE_PROTOCOL, family=socket.AF_INET) == [route]
    with_ipv4.ours.delete_route(route)
    assert with_ipv4.ours.routes(protocol=ROUTE_PROTOCOL, family=socket.AF_INET) == []


def test_an_ipv4_route_that_asks_the_next_table_reads_back(with_ipv4: Bench) -> None:
    route = Route(destination=PREFIX4, kind=RouteKind.THROW, table=5436)
    with_ipv4.ours.add_route(route)
    assert with_ipv4.ours.routes(table=5436, family=socket.AF_INET) == [route]


def test_an_ipv4_rule_reads_back_as_it_was_set(with_ipv4: Bench) -> None:
    rule = Rule(table=100_000, priority=500, source=PREFIX4, destination=ANY_IPV4, iif="eth0")
    with_ipv4.ours.add_rule(rule)
    assert with_ipv4.ours.rules(protocol=ROUTE_PROTOCOL, family=socket.AF_INET) == [rule]
    assert with_ipv4.ours.rules(protocol=ROUTE_PROTOCOL) == []
    with_ipv4.ours.delete_rule(rule)


def test_routes_through_one_link_can_be_asked_for(with_ipv4: Bench) -> None:
    with_ipv4.ours.add_route(Route(destination=PREFIX4, oif=with_ipv4.eth0))
    lo = with_ipv4.ours.link("lo").index
    through = with_ipv4.ours.routes(oif=with_ipv4.eth0, protocol=ROUTE_PROTOCOL, family=socket.AF_INET)
    assert [route.destination for route in through] == [PREFIX4]
    assert with_ipv4.ours.routes(oif=lo, protocol=ROUTE_PROTOCOL, family=socket.AF_INET) == []


def test_ipv4_is_heard_by_those_who_ask(with_ipv4: Bench, loop: asyncio.AbstractEventLoop) -> None:
    ear = Ear(loop, with_ipv4.ours, Group.IPV4_IFADDR, Group.IPV4_ROUTE)
    with_ipv4.oracle.addr("add", index=with_ipv4.eth0, address="198.51.100.1", prefixlen=24)
    assert ear.heard(AddressChanged, address=IPv4Address("198.51.100.1"), prefixlen=24, gone=False)
    with_ipv4.oracle.route("add", dst=str(PREFIX4), gateway=str(GATEWAY4))
    assert ear.hears(lambda: any(isinstance(e, RouteChanged) and e.route.destination == PREFIX4 for e in ear.events))


# Neighbours


def test_a_neighbour_reads_back_as_it_was_set(bench: Bench) -> None:
    neighbor = Neighbor(index=bench.eth0, address=GATEWAY, link_layer=MAC)
    bench.ours.replace_neighbor(neighbor)
    assert neighbor in bench.ours.neighbors(bench.eth0)
    theirs = bench.oracle.get_neighbours(family=socket.AF_INET6, dst=str(GATEWAY))
    assert [each.get("lladdr") for each in theirs] == [MAC.hex(":")]


def test_a_neighbour_gets_a_new_link_layer_address(bench: Bench) -> None:
    neighbor = Neighbor(index=bench.eth0, address=GATEWAY, link_layer=MAC)
    bench.ours.replace_neighbor(neighbor)
    moved = replace(neighbor, link_layer=MAC[::-1], state=NeighborState.STALE)
    bench.ours.replace_neighbor(moved)
    assert moved in bench.ours.neighbors()
    assert neighbor not in bench.ours.neighbors()


def test_a_deleted_neighbour_is_no_longer_known(bench: Bench) -> None:
    neighbor = Neighbor(index=bench.eth0, address=GATEWAY, link_layer=MAC)
    bench.ours.replace_neighbor(neighbor)
    bench.ours.delete_neighbor(neighbor)
    assert all(each.state & NeighborState.FAILED for each in bench.ours.neighbors() if each.address == GATEWAY)


def test_of_many_neighbours_those_are_found_that_are_unresolved_or_have_one_address(bench: Bench) -> None:
    known = [Neighbor(index=bench.eth0, address=GATEWAY + n, link_layer=MAC) for n in range(1, 4)]
    known.append(Neighbor(index=bench.eth0, address=GATEWAY + 9, link_layer=MAC[::-1]))
    failed = Neighbor(index=bench.eth0, address=GATEWAY + 10, link_layer=b"", state=NeighborState.FAILED)
    for neighbor in (*known, failed):
        bench.ours.replace_neighbor(neighbor)

    def found(index: int, *link_layers: bytes) -> set[IPv6Address]:
        return {each.address for each in bench.ours.uncertain_neighbors(index, link_layers) if each.address in mine}

    mine = {each.address for each in (*known, failed)}
    assert found(bench.eth0) == {failed.address}
    assert found(bench.eth0, MAC[::-1], bytes(6)) == {failed.address, GATEWAY + 9}
    assert found(bench.ours.link("lo").index, MAC) == set()


# Events


def test_loss_and_return_of_carrier_are_heard(bench: Bench, loop: asyncio.AbstractEventLoop) -> None:
    ear = Ear(loop, bench.ours)
    for switch, carrier in ((bench.there.link_down, False), (bench.there.link_up, True)):
        ear.events.clear()
        switch("eth0")
        assert ear.hears(
            lambda carrier=carrier: any(
                isinstance(e, LinkChanged) and e.link.name == "eth0" and e.link.carrier is carrier for e in ear.events
            )
        )


def test_a_link_that_goes_is_heard(bench: Bench, loop: asyncio.AbstractEventLoop) -> None:
    ear = Ear(loop, bench.ours)
    bench.there.netlink.delete_link(bench.there.link("eth0").index)
    assert ear.heard(LinkChanged, gone=True)


def test_a_port_that_leaves_its_bridge_is_not_a_link_that_goes(bench: Bench, loop: asyncio.AbstractEventLoop) -> None:
    bench.ours.create_link("br0", "bridge")
    bench.ours.set_master(bench.eth0, bench.ours.link("br0").index)
    ear = Ear(loop, bench.ours)
    bench.ours.set_master(bench.eth0, 0)
    bench.ours.set_mtu(bench.eth0, 1444)
    assert ear.hears(lambda: any(isinstance(e, LinkChanged) and e.link.mtu == 1444 for e in ear.events))
    assert not any(isinstance(e, LinkChanged) and e.gone for e in ear.events)


def test_addresses_set_by_others_are_heard_coming_and_going(bench: Bench, loop: asyncio.AbstractEventLoop) -> None:
    ear = Ear(loop, bench.ours)
    bench.oracle.addr("add", index=bench.eth0, address=str(GATEWAY), prefixlen=64)
    assert ear.heard(AddressChanged, index=bench.eth0, address=GATEWAY, prefixlen=64, gone=False)
    bench.oracle.addr("del", index=bench.eth0, address=str(GATEWAY), prefixlen=64)
    assert ear.heard(AddressChanged, index=bench.eth0, address=GATEWAY, prefixlen=64, gone=True)


def test_neighbours_are_heard_coming_and_going(bench: Bench, loop: asyncio.AbstractEventLoop) -> None:
    ear = Ear(loop, bench.ours)
    about = {"ifindex": bench.eth0, "dst": str(GATEWAY), "family": socket.AF_INET6}
    bench.oracle.neigh("add", lladdr=MAC.hex(":"), state=NeighborState.REACHABLE, **about)
    state = NeighborState.REACHABLE
    assert ear.heard(NeighborChanged, address=GATEWAY, link_layer=MAC, state=state, gone=False)
    bench.oracle.neigh("del", **about)
    assert ear.heard(NeighborChanged, address=GATEWAY, gone=True)


def test_routes_are_heard_by_those_who_ask(bench: Bench, loop: asyncio.AbstractEventLoop) -> None:
    ear = Ear(loop, bench.ours, Group.IPV6_ROUTE)
    route = Route(destination=PREFIX, oif=bench.eth0, protocol=RouteProtocol.STATIC)
    bench.ours.add_route(route)
    assert ear.heard(RouteChanged, route=route, gone=False)
    bench.ours.delete_route(route)
    assert ear.heard(RouteChanged, route=route, gone=True)


def test_what_we_set_ourselves_wakes_nobody(bench: Bench, loop: asyncio.AbstractEventLoop) -> None:
    ear = Ear(loop, bench.ours, Group.IPV6_ROUTE)
    theirs = Route(destination=ELSEWHERE, oif=bench.eth0, protocol=RouteProtocol.STATIC)
    bench.ours.add_route(Route(destination=PREFIX, oif=bench.eth0))
    bench.ours.add_route(theirs)
    assert ear.heard(RouteChanged, route=theirs, gone=False)
    assert len(ear.events) == 1


def test_lost_events_are_told_and_later_ones_still_arrive(bench: Bench, loop: asyncio.AbstractEventLoop) -> None:
    ear = Ear(loop, bench.ours)
    bench.ours._events.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    for mtu in range(1300, 1400):
        bench.ours.set_mtu(bench.eth0, mtu)
    assert ear.hears(lambda: ear.overruns)
    bench.ours.set_mtu(bench.eth0, 1500)
    assert ear.hears(lambda: any(isinstance(e, LinkChanged) and e.link.mtu == 1500 for e in ear.events))


def test_a_closed_netlink_hears_nothing_and_leaves_the_loop_alone(
    bench: Bench, loop: asyncio.AbstractEventLoop
) -> None:
    with bench.here.inside():
        netlink = Netlink()
    ear = Ear(loop, netlink)
    netlink.close()
    bench.ours.set_mtu(bench.eth0, 1444)
    assert not ear.hears(lambda: ear.events, timeout=0.05)


# What the kernel seldom does


def test_a_dump_that_was_disturbed_is_read_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    undisturbed = bench.ours._exchange
    calls = []

    def disturbed(kind: int, flags: int, body: bytes) -> list[rtnetlink.Reply]:
        replies = undisturbed(kind, flags, body)
        calls.append(kind)
        if len(calls) < 3:
            return [reply._replace(flags=reply.flags | MessageFlag.DUMP_INTR) for reply in replies]
        return replies

    monkeypatch.setattr(bench.ours, "_exchange", disturbed)
    assert [link.name for link in bench.ours.links()] == ["lo", "eth0"]
    assert calls == [Message.GETLINK] * 3


def test_an_answer_to_a_request_given_up_is_not_taken_for_ours(bench: Bench) -> None:
    stale = rtnetlink.LINK.pack(0, 0, 99999, 0, 0)
    header = rtnetlink.HEADER.pack(16 + len(stale), Message.GETLINK, MessageFlag.REQUEST, 0xDEAD, 0)
    bench.ours._socket.send(header + stale)
    assert bench.ours.link("eth0").index == bench.eth0


@pytest.mark.parametrize("octets", [b"", bytes(15), bytes(16), b"\x10\0\0\0" + bytes(12), b"\xff" * 40])
def test_octets_that_are_no_message_make_no_event(octets: bytes) -> None:
    assert [rtnetlink.decode_event(reply) for reply in rtnetlink.messages(octets)] in ([], [None])
