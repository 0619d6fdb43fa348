"""What a router does to the kernel, seen by pyroute2, and that every trace of it can be taken back.

core --eth0 ===== wan-- router --eth1 ===== eth0-- node1
                               --eth2 ===== eth0-- node2
"""

import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from itertools import islice
from math import inf
from pathlib import Path
from typing import Any

import pytest
from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError as NoWay

from engine import Binding, Encapsulation, Engine, HeldStats, HoldBuffer, Side, Tables, Tunnel, TunnelState, open_tun
from router.changes import SYSCTL, SYSCTL_IPV4
from router.demo.lab import Lab, available, connect
from router.errors import NoRights, RouterError
from router.links.netlink import ROUTE_PROTOCOL, Netlink, NetlinkError
from router.links.rtnetlink import Rule
from router.network import RULE_PRIORITY, Network
from router.rounds import Later
from router.source_guard import FIRST_TABLE, SourceGuard
from signaling.access_link import ROUTER_ADDRESS, ROUTER_LINK_LAYER
from signaling.actions import (
    Bind,
    Closed,
    ExpectNode,
    GiveAddress,
    Held,
    LocalLink,
    SetPolicy,
    SetWay,
    SplitLink,
    TowardAnchor,
    TowardVisited,
    TunnelEnd,
)
from signaling.actions import Path as Way
from signaling.flow_rules import FlowRule, Spread
from signaling.iana import TrafficSelectorFormat
from signaling.settings import Wants, WayState
from signaling.wire.traffic_selector import Range, TrafficSelector
from tests.engine.nodes import segment
from tests.eventually import eventually
from tests.router.clock import Clock

pytestmark = [
    pytest.mark.namespaces,
    pytest.mark.skipif(available() is not None, reason=str(available())),
]

OURS, PEER, OTHER = IPv6Address("2001:db8::1"), IPv6Address("2001:db8::2"), IPv6Address("2001:db8::3")
POOL = IPv6Network("2001:db8:a1::/48")
PREFIX = IPv6Network("2001:db8:a1:1::/64")
VISITING = IPv6Network("2001:db8:a2:1::/64")
NODE = "mn1@example.net"
TABLE = 5436
MAC = bytes.fromhex("020000000011")
Snapshot = dict[str, Any]


class Bench:
    """A router's machine, and an oracle on it."""

    def __init__(self, lab: Lab, directory: Path, stack: ExitStack) -> None:
        self.lab, self.stack = lab, stack
        self.host, self.nodes = lab.host("router"), lab.host("nodes")
        self.host.sysctl("net/ipv6/conf/default/accept_dad", 0)  # so that nothing changes by itself
        for name, far in (("wan", "eth0"), ("eth1", "eth1"), ("eth2", "eth2")):
            connect(self.host, name, self.nodes, far)
        self.host.address("wan", f"{OURS}/64")
        self.host.route("::/0", via=str(PEER))
        self.journal = directory / "undo.json"
        self.tables = Tables()
        stack.enter_context(self.host.inside())
        self.oracle = stack.enter_context(IPRoute())
        own = [item.address for item in self.host.netlink.addresses()]
        eventually(lambda: all(self.local_addresses(address) for address in own))  # the kernel takes its time
        self.network = self.another()

    def another(
        self,
        encapsulation: Encapsulation = Encapsulation.UDP,
        *,
        aggregated: bool = False,
        guard: SourceGuard | None = None,
        buffer: HoldBuffer | None = None,
        later: Later | None = None,
        transience: float = 0.0,
    ) -> Network:
        """The network of the next run of the router."""
        netlink = self.stack.enter_context(Netlink())
        self.tables = Tables(transience=transience)
        return Network(
            netlink,
            self.tables,
            address=OURS,
            encapsulation=encapsulation,
            table=TABLE,
            journal=self.journal,
            aggregated=aggregated,
            guard=guard,
            buffer=buffer,
            later=later,
        )

    def index(self, name: str) -> int:
        return self.host.link(name).index

    def begin(self) -> None:
        """All of what a router does at its start."""
        self.tun = open_tun("mob0", mtu=1452)
        self.network.use_tun("mob0", 1452)
        self.network.claim([POOL])
        self.network.forward("wan")
        for name in ("eth1", "eth2"):
            self.network.add_access(name, fixed_link_layer=True)

    def routes(
        self, table: int = 254, *, ours: bool = True, family: int = socket.AF_INET6
    ) -> set[tuple[str, str, str]]:
        """(source, destination, device) of routes, ours or all."""
        found = set()
        nowhere = "::" if family == socket.AF_INET6 else "0.0.0.0"
        for item in self.oracle.get_routes(family=family):
            named = dict(item["attrs"])
            if named["RTA_TABLE"] == table and (not ours or item["proto"] == ROUTE_PROTOCOL):
                source = f"{named.get('RTA_SRC', nowhere)}/{item['src_len']}"
                destination = f"{named.get('RTA_DST', nowhere)}/{item['dst_len']}"
                found.add((source, destination, self.name(named.get("RTA_OIF", 0))))
        return found

    def is_again(self, before: Snapshot) -> bool:
        """Whether the kernel is as it was, or will be in a moment."""
        with suppress(AssertionError):
            eventually(lambda: self.snapshot() == before, timeout=1.0)
        assert self.snapshot() == before
        return True

    def local_addresses(self, address: IPv6Address) -> list[int]:
        """Interfaces by which the kernel takes packets to this address."""
        routes = self.oracle.get_routes(family=socket.AF_INET6, table=255)
        found = [dict(item["attrs"]) for item in routes if item["type"] == 2]
        return sorted(item["RTA_OIF"] for item in found if item.get("RTA_DST") == str(address))

    def name(self, index: int) -> str:
        return next((link.name for link in self.host.netlink.links() if link.index == index), "")

    def snapshot(self) -> Snapshot:
        """Everything we might have touched."""
        names = [link.name for link in self.host.netlink.links()]
        settings = {
            f"{name}/{setting}": (SYSCTL / "conf" / name / setting).read_text()
            for name in ("all", "default", *names)
            for setting in ("forwarding", "accept_ra", "addr_gen_mode", "router_solicitations", "disable_ipv6")
        } | {
            f"{name}/{setting}": (SYSCTL_IPV4 / "conf" / name / setting).read_text()
            for name in ("all", "default", *names)
            for setting in ("forwarding", "proxy_arp", "rp_filter")
        }
        families = (socket.AF_INET6, socket.AF_INET)
        routes = [
            (item["proto"], item["type"], sorted((k, v) for k, v in item["attrs"] if k not in VOLATILE))
            for family in families
            for item in self.oracle.get_routes(family=family)
        ]
        rules = [
            (item["src_len"], sorted((named[0], str(named[1])) for named in item["attrs"]))
            for family in families
            for item in self.oracle.get_rules(family)
        ]
        addresses = [(item.index, str(item.address), item.prefixlen) for item in self.host.netlink.addresses()]
        links = [(item.name, item.link_layer, item.up, item.mtu) for item in self.host.netlink.links()]
        return {
            "settings": settings,
            "routes": sorted(routes, key=str),
            "rules": sorted(rules, key=str),
            "addresses": sorted(addresses),
            "links": sorted(links),
        }


VOLATILE = {"RTA_CACHEINFO", "RTA_PREF"}


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with Lab() as lab, ExitStack() as stack:
        yield Bench(lab, tmp_path, stack)


@pytest.fixture
def begun(bench: Bench) -> Iterator[Bench]:
    bench.begin()
    yield bench
    bench.tun.close()


def tunnel(remote: IPv6Address) -> Tunnel:
    return Tunnel(local=OURS, remote=remote, encapsulation=Encapsulation.UDP)


# Paths


P = str(PREFIX)
CALLS = TrafficSelector(
    format=TrafficSelectorFormat.IPV6_BINARY,
    destination=Range(PREFIX[0], PREFIX[-1]),
    protocol=Range(17),
    destination_port=Range(5004, 5010),
)
TO_POOL = ("::/0", str(POOL), "lo")
ELSE_TUN = ("::/0", P, "mob0")  # where the link of another route has no carrier
WAITS = [Binding(prefix=PREFIX, tunnel=None, side=None)]
PATHS: list[tuple[Way, set[tuple[str, str, str]], set[tuple[str, str, str]], list[Binding]]] = [
    (LocalLink(interface="eth1"), {("::/0", P, "eth1"), ELSE_TUN}, set(), WAITS),
    (LocalLink(interface="eth2"), {("::/0", P, "eth2"), ELSE_TUN}, set(), WAITS),
    (
        SplitLink(rest=LocalLink(interface="eth1"), tunnels=(TunnelEnd(remote=PEER),), policy="", flows=(CALLS,)),
        {("::/0", P, "eth1")},
        set(),
        [Binding(prefix=PREFIX, tunnel=tunnel(PEER), side=Side.ANCHOR)],
    ),
    (
        TowardVisited.at(PEER),
        {("::/0", P, "mob0")},
        set(),
        [Binding(prefix=PREFIX, tunnel=tunnel(PEER), side=Side.ANCHOR)],
    ),
    (
        TowardVisited.at(OTHER),
        {("::/0", P, "mob0")},
        set(),
        [Binding(prefix=PREFIX, tunnel=tunnel(OTHER), side=Side.ANCHOR)],
    ),
    (
        TowardAnchor.through(PEER, "eth1"),
        {("::/0", P, "eth1"), ELSE_TUN},
        {(P, "::/0", "mob0")},
        [Binding(prefix=PREFIX, tunnel=tunnel(PEER), side=Side.ACCESS)],
    ),
    (
        TowardAnchor.through(PEER, "eth2"),
        {("::/0", P, "eth2"), ELSE_TUN},
        {(P, "::/0", "mob0")},
        [Binding(prefix=PREFIX, tunnel=tunnel(PEER), side=Side.ACCESS)],
    ),
    (Held(), {("::/0", P, "mob0")}, set(), [Binding(prefix=PREFIX, tunnel=None, side=None)]),
    (Closed(), {("::/0", P, "mob0")}, set(), [Binding(prefix=PREFIX, tunnel=None, side=None)]),
]


def test_every_path_after_every_other_is_in_the_kernel_and_the_engine(begun: Bench) -> None:
    for before, *_ in PATHS:
        for after, main, uplink, bindings in PATHS:
            begun.network.bind(PREFIX, before, NODE)
            begun.network.bind(PREFIX, after, NODE)
            assert begun.routes() == main | {TO_POOL}, (before, after)
            assert begun.routes(TABLE) == uplink, (before, after)
            assert begun.tables.bindings() == bindings, (before, after)


def test_a_prefix_that_is_unbound_leaves_nothing(begun: Bench) -> None:
    for path, *_ in PATHS:
        begun.network.bind(PREFIX, path, NODE)
        begun.network.unbind(PREFIX)
        assert begun.routes() == {TO_POOL}
        assert begun.routes(TABLE) == set()
        assert begun.tables.bindings() == []
    assert begun.network.paths == begun.network.nodes == {}


def test_unbinding_what_nobody_knows_is_no_error(begun: Bench) -> None:
    begun.network.unbind(PREFIX)


def test_prefixes_do_not_disturb_each_other(begun: Bench) -> None:
    begun.network.bind(PREFIX, LocalLink(interface="eth1"), NODE)
    begun.network.bind(VISITING, TowardAnchor.through(PEER, "eth1"), NODE)
    begun.network.unbind(PREFIX)
    assert begun.routes() == {TO_POOL, ("::/0", str(VISITING), "eth1"), ("::/0", str(VISITING), "mob0")}
    assert begun.routes(TABLE) == {(str(VISITING), "::/0", "mob0")}


def test_rules_of_the_kernel_send_the_flows_that_go_elsewhere_to_the_tun(begun: Bench) -> None:
    ends, rest = (TunnelEnd(remote=PEER, binding_id=2),), LocalLink(interface="eth1")
    before = begun.host.netlink.rules(protocol=ROUTE_PROTOCOL)
    begun.network.bind(PREFIX, SplitLink(rest=rest, tunnels=ends, policy="", flows=(CALLS,)), NODE)
    told = [rule for rule in begun.host.netlink.rules(protocol=ROUTE_PROTOCOL) if rule not in before]
    ports = {"upper_layer": 17, "destination_ports": (5004, 5010)}
    assert told == [Rule(table=TABLE + 1, priority=5212, destination=PREFIX, **ports)]
    assert begun.routes(TABLE + 1) == {("::/0", P, "mob0")}
    begun.network.bind(PREFIX, rest, NODE)
    assert begun.host.netlink.rules(protocol=ROUTE_PROTOCOL) == before
    assert begun.routes(TABLE + 1) == set()


@pytest.mark.parametrize("path", [LocalLink(interface="eth1"), TowardAnchor.through(PEER, "eth1")])
def test_the_kernel_passes_over_a_link_without_carrier_before_anybody_is_told(begun: Bench, path: Way) -> None:
    begun.network.bind(PREFIX, path, NODE)
    for _ in range(2):
        assert lookup(begun, "3fff::1", "mob0", str(PREFIX[5])) == "eth1"
        begun.nodes.link_down("eth1")
        eventually(lambda: lookup(begun, "3fff::1", "mob0", str(PREFIX[5])) == "mob0")
        begun.nodes.link_up("eth1")
        eventually(lambda: lookup(begun, "3fff::1", "mob0", str(PREFIX[5])) == "eth1")


def lookup(bench: Bench, source: str, iif: str, destination: str = "3fff::1") -> str:
    """Where the kernel sends a packet of this source that came in by this interface."""
    (route,) = bench.oracle.route("get", dst=destination, src=source, iif=bench.index(iif), family=socket.AF_INET6)
    return bench.name(dict(route["attrs"])["RTA_OIF"])


def test_only_uplink_of_a_visiting_prefix_from_an_access_link_goes_into_the_tunnel(begun: Bench) -> None:
    begun.network.bind(PREFIX, LocalLink(interface="eth1"), NODE)
    begun.network.bind(VISITING, TowardAnchor.through(PEER, "eth1"), NODE)
    assert lookup(begun, "2001:db8:a2:1::11", "eth1") == "mob0"
    assert lookup(begun, "2001:db8:a1:1::11", "eth1") == "wan"
    assert lookup(begun, "2001:db8:a2:1::11", "wan") == "wan"


def test_a_prefix_nobody_has_is_unreachable(begun: Bench) -> None:
    with pytest.raises(NetlinkError, match=r"unreachable|No route"):
        begun.host.netlink.route_to(IPv6Address("2001:db8:a1:ffff::1"))


# An anchor of pools


@pytest.mark.parametrize("between", [[], [Held()]], ids=["at once", "held in between"])
def test_the_tunnel_that_a_prefix_leaves_is_kept_for_a_while_and_swept(bench: Bench, between: list[Way]) -> None:
    clock = Clock()
    network = bench.another(aggregated=True, buffer=HoldBuffer(), later=clock.later, transience=0.1)

    def known() -> set[Tunnel]:
        return {row[0] for row in bench.tables.storage.tunnels()}

    for path in (TowardVisited.at(PEER), *between, TowardVisited.at(OTHER)):
        network.bind(PREFIX, path, NODE)
    assert known() == {tunnel(PEER), tunnel(OTHER)}

    def swept() -> bool:
        clock.run(0.1)
        return known() == {tunnel(OTHER)}

    eventually(swept)
    clock.run(0.1)
    assert clock.due == []  # nobody looks any more
    network.close()


def test_pools_lead_to_the_tun_and_prefixes_of_them_have_no_routes(bench: Bench) -> None:
    bench.network = bench.another(aggregated=True)
    bench.tun = open_tun("mob0", mtu=1452)
    bench.network.use_tun("mob0", 1452)
    bench.network.claim_tun([POOL, IPv4Network("10.1.0.0/16")])
    for path in (TowardVisited.at(PEER), Held(), TowardVisited.at(OTHER)):
        bench.network.bind(PREFIX, path, NODE)
        assert bench.routes() == {("::/0", str(POOL), "mob0")}
    assert bench.routes(family=socket.AF_INET) == {("0.0.0.0/0", "10.1.0.0/16", "mob0")}
    assert [binding.tunnel for binding in bench.tables.bindings()] == [tunnel(OTHER)]
    bench.host.link_down("mob0")
    bench.host.link_up("mob0")
    bench.network.refresh_tun()
    assert bench.routes() == {("::/0", str(POOL), "mob0")}
    bench.network.close()
    assert bench.routes() == bench.routes(family=socket.AF_INET) == set()
    bench.tun.close()


# IPv4, delegated prefixes, sites


HOST = IPv4Network("10.1.0.9/32")
ARRIVED = TowardAnchor.through(PEER, "eth1")


def lookup4(bench: Bench, source: str, iif: str, to: str = "198.51.100.1") -> str:
    (route,) = bench.oracle.route("get", dst=to, src=source, iif=bench.index(iif), family=socket.AF_INET)
    return bench.name(dict(route["attrs"])["RTA_OIF"])


def setting(name: str) -> str:
    return (SYSCTL_IPV4 / name).read_text().strip()


def test_ipv4_of_a_node_goes_to_its_link_and_comes_back_through_the_tunnel(begun: Bench) -> None:
    begun.network.bind(HOST, ARRIVED, NODE)
    assert begun.routes(family=socket.AF_INET) == {("0.0.0.0/0", str(HOST), "eth1")}
    assert lookup4(begun, "10.1.0.9", "eth1") == "mob0"
    assert lookup4(begun, "198.51.100.1", "mob0", to="10.1.0.9") == "eth1"
    assert begun.tables.bindings() == [Binding(prefix=HOST, tunnel=tunnel(PEER), side=Side.ACCESS)]


def test_with_the_last_ipv4_node_all_that_ipv4_needed_goes(begun: Bench) -> None:
    other = IPv4Network("10.1.0.10/32")
    begun.network.bind(HOST, ARRIVED, NODE)
    begun.network.bind(other, ARRIVED, "mn2")
    begun.network.unbind(HOST)
    assert lookup4(begun, "10.1.0.10", "eth1") == "mob0"
    begun.network.unbind(other)
    assert begun.routes(family=socket.AF_INET) == begun.routes(TABLE, family=socket.AF_INET) == set()
    assert begun.host.netlink.rules(protocol=ROUTE_PROTOCOL, family=socket.AF_INET) == []


LEASE = GiveAddress(
    node=NODE,
    interface="eth1",
    link_layer=bytes.fromhex("020000000011"),
    wants=Wants.IPV4,
    prefix=HOST,
    subnet_length=24,
    default_router=IPv4Address("10.1.0.1"),
    lifetime=300,
)


def ipv4_addresses(bench: Bench) -> list[str]:
    """Of eth1."""
    return [str(each) for each in bench.host.netlink.addresses(bench.index("eth1"), family=socket.AF_INET)]


def test_the_default_router_is_on_the_link_while_a_node_there_has_ipv4(begun: Bench) -> None:
    other = replace(LEASE, link_layer=bytes.fromhex("020000000012"))
    begun.network.give(LEASE)
    begun.network.give(other)
    assert ipv4_addresses(begun) == ["10.1.0.1/32"]
    begun.network.give(replace(LEASE, prefix=None, default_router=None))
    assert ipv4_addresses(begun) == ["10.1.0.1/32"]
    begun.network.give(replace(other, prefix=None, default_router=None))
    assert ipv4_addresses(begun) == []


def test_the_default_router_stays_where_a_link_is_switched_off_and_on(begun: Bench) -> None:
    begun.network.give(LEASE)
    begun.host.link_down("eth1")
    begun.host.link_up("eth1")
    begun.network.add_access("eth1", fixed_link_layer=True)
    assert ipv4_addresses(begun) == ["10.1.0.1/32"]


def test_a_default_router_left_by_a_crash_is_removed(begun: Bench) -> None:
    begun.network.give(LEASE)
    begun.another().clean()
    assert ipv4_addresses(begun) == []


def test_an_access_link_that_comes_later_has_ipv4_too(begun: Bench) -> None:
    begun.network.remove_access("eth2")
    begun.network.bind(HOST, ARRIVED, NODE)
    begun.network.add_access("eth2", fixed_link_layer=True)
    assert lookup4(begun, "10.1.0.9", "eth2") == "mob0"


def test_a_delegated_prefix_is_routed_to_its_router(begun: Bench) -> None:
    gateway = IPv6Address("fe80::11")
    begun.network.bind(PREFIX, TowardAnchor(tunnels=ARRIVED.tunnels, interface="eth1", gateway=gateway), NODE)
    (route, _) = (each for each in begun.host.netlink.routes(protocol=ROUTE_PROTOCOL) if each.destination == PREFIX)
    assert (begun.name(route.oif), route.gateway) == ("eth1", gateway)
    assert begun.routes(TABLE) == {(P, "::/0", "mob0")}


SITE = TowardAnchor(tunnels=ARRIVED.tunnels, interface="")


def test_a_site_is_sent_into_the_tunnel_wherever_it_comes_from(begun: Bench) -> None:
    begun.network.bind(PREFIX, SITE, NODE)
    begun.network.bind(HOST, SITE, NODE)
    assert lookup(begun, str(PREFIX[9]), "wan") == lookup(begun, str(PREFIX[9]), "eth2") == "mob0"
    assert lookup(begun, "2001:db8:a2:1::11", "wan") == "wan"
    assert lookup4(begun, "10.1.0.9", "eth2") == "mob0"


def test_what_stays_within_a_site_is_not_for_its_anchor(begun: Bench) -> None:
    begun.network.bind(PREFIX, SITE, NODE)
    begun.host.route(str(PREFIX), dev="eth2")  # the site's own link
    assert begun.host.netlink.route_to(PREFIX[1], PREFIX[9]).oif == begun.index("eth2")


@pytest.mark.parametrize("prefix", [PREFIX, HOST])
def test_a_site_that_is_gone_leaves_nothing(begun: Bench, prefix: IPv6Network | IPv4Network) -> None:
    family = socket.AF_INET6 if prefix.version == 6 else socket.AF_INET
    before = begun.host.netlink.rules(protocol=ROUTE_PROTOCOL, family=family)
    begun.network.bind(prefix, SITE, NODE)
    begun.network.unbind(prefix)
    assert begun.host.netlink.rules(protocol=ROUTE_PROTOCOL, family=family) == before
    assert begun.routes(TABLE, family=family) == set()


# Sources that may come in at a gateway


OTHERS = IPv6Network("2001:db8:a3:1::/64")
NEIGHBOUR = IPv4Network("10.1.0.10/32")
N1, N2, WORLD, WORLD4 = str(VISITING[9]), str(OTHERS[9]), "3fff::1", "198.51.100.1"
N1_IPV4, N2_IPV4 = str(HOST[0]), str(NEIGHBOUR[0])


def goes(bench: Bench, source: str, iif: str, to: str) -> str:
    """Where the kernel sends what comes in there; "": nowhere."""
    family = socket.AF_INET6 if ":" in to else socket.AF_INET
    with suppress(NoWay):
        (route,) = bench.oracle.route("get", dst=to, src=source, iif=bench.index(iif), family=family)
        return bench.name(dict(route["attrs"])["RTA_OIF"])
    return ""


def guarded(bench: Bench, *links: str, local_routing: bool = False) -> Bench:
    """A gateway that has a node on each of its links, with IPv6 and IPv4."""
    bench.network = bench.another(guard=SourceGuard(TABLE, links, local_routing=local_routing))
    bench.begin()
    bench.host.sysctl("net/ipv4/conf/all/rp_filter", 0)  # the kernel takes the larger one
    bench.oracle.route("add", family=socket.AF_INET, dst="0.0.0.0/0", oif=bench.index("wan"))
    bench.network.forward_ipv4()
    for prefix, link in ((VISITING, "eth1"), (HOST, "eth1"), (OTHERS, "eth2"), (NEIGHBOUR, "eth2")):
        bench.network.bind(prefix, TowardAnchor.through(PEER, link), NODE)
    return bench


def test_what_a_node_sends_from_its_prefixes_goes_to_its_anchor(bench: Bench) -> None:
    guarded(bench, "eth1", "eth2")
    assert goes(bench, N1, "eth1", WORLD) == goes(bench, N2, "eth2", WORLD) == "mob0"
    assert goes(bench, N1_IPV4, "eth1", WORLD4) == goes(bench, N2_IPV4, "eth2", WORLD4) == "mob0"


def test_a_source_that_is_not_bound_is_not_forwarded(bench: Bench) -> None:
    guarded(bench, "eth1", "eth2")
    for source in ("2001:db8:ffff::9", "3fff::9", str(OURS)):
        assert [goes(bench, source, "eth1", to) for to in (WORLD, N1, N2)] == ["", "", ""]
    assert [goes(bench, "203.0.113.9", "eth1", to) for to in (WORLD4, N2_IPV4)] == ["", ""]


def test_a_source_that_is_bound_to_another_link_is_not_forwarded(bench: Bench) -> None:
    guarded(bench, "eth1", "eth2")
    assert goes(bench, N1, "eth2", WORLD) == goes(bench, N2, "eth1", WORLD) == ""
    assert goes(bench, N1_IPV4, "eth2", WORLD4) == goes(bench, N2_IPV4, "eth1", WORLD4) == ""


def test_a_source_is_let_in_where_its_node_is_and_no_more_when_it_left(bench: Bench) -> None:
    guarded(bench, "eth1", "eth2")
    bench.network.bind(VISITING, TowardAnchor.through(OTHER, "eth2"), NODE)
    assert (goes(bench, N1, "eth1", WORLD), goes(bench, N1, "eth2", WORLD)) == ("", "mob0")
    bench.network.bind(VISITING, Held(), NODE)
    assert goes(bench, N1, "eth2", WORLD) == ""
    bench.network.bind(VISITING, TowardAnchor.through(PEER, "eth2"), NODE)
    assert goes(bench, N1, "eth2", WORLD) == "mob0"
    bench.network.unbind(VISITING)
    assert goes(bench, N1, "eth2", WORLD) == ""
    assert bench.routes(TABLE + FIRST_TABLE) == {("::/0", "::/0", "lo")}


def test_before_any_node_is_registered_nothing_is_forwarded(bench: Bench) -> None:
    bench.network = bench.another(guard=SourceGuard(TABLE, ("eth1", "eth2")))
    bench.begin()
    bench.network.forward_ipv4()
    bench.oracle.route("add", family=socket.AF_INET, dst="0.0.0.0/0", oif=bench.index("wan"))
    assert goes(bench, N1, "eth1", WORLD) == goes(bench, N1_IPV4, "eth1", WORLD4) == ""
    assert goes(bench, WORLD, "wan", str(PEER)) == "wan"


def test_what_is_for_the_gateway_itself_comes_in_whoever_sends_it(bench: Bench) -> None:
    guarded(bench, "eth1", "eth2")
    for source in ("fe80::11", "3fff::9", N2):
        assert goes(bench, source, "eth1", str(OURS)) == goes(bench, source, "eth1", str(ROUTER_ADDRESS)) == "lo"


def test_the_link_of_a_site_lets_everything_in(bench: Bench) -> None:
    guarded(bench, "eth1")
    assert goes(bench, "3fff::9", "eth2", WORLD) == "wan"
    assert goes(bench, "3fff::9", "eth1", WORLD) == ""


def test_nodes_of_one_gateway_meet_at_their_anchor(bench: Bench) -> None:
    guarded(bench, "eth1", "eth2")
    assert goes(bench, N1, "eth1", N2) == goes(bench, N2, "eth2", N1) == "mob0"
    assert goes(bench, N1_IPV4, "eth1", N2_IPV4) == "mob0"


def test_with_local_routing_registered_nodes_of_one_gateway_meet_there(bench: Bench) -> None:
    guarded(bench, "eth1", "eth2", local_routing=True)
    assert (goes(bench, N1, "eth1", N2), goes(bench, N2, "eth2", N1)) == ("eth2", "eth1")
    assert (goes(bench, N1_IPV4, "eth1", N2_IPV4), goes(bench, N2_IPV4, "eth2", N1_IPV4)) == ("eth2", "eth1")
    assert goes(bench, N1, "eth1", WORLD) == goes(bench, N1_IPV4, "eth1", WORLD4) == "mob0"
    bench.network.unbind(OTHERS)
    bench.network.unbind(NEIGHBOUR)
    assert goes(bench, N1, "eth1", N2) == goes(bench, N1_IPV4, "eth1", N2_IPV4) == "mob0"


def test_with_local_routing_too_a_source_that_is_not_bound_there_is_not_forwarded(bench: Bench) -> None:
    guarded(bench, "eth1", "eth2", local_routing=True)
    for source in ("3fff::9", N2):
        assert goes(bench, source, "eth1", N2) == goes(bench, source, "eth1", WORLD) == ""
    for source in ("203.0.113.9", N2_IPV4):
        assert goes(bench, source, "eth1", N2_IPV4) == goes(bench, source, "eth1", WORLD4) == ""


def test_what_a_node_sends_to_a_site_of_its_gateway_goes_to_the_anchor(bench: Bench) -> None:
    guarded(bench, "eth1")
    bench.network.bind(PREFIX, SITE, "site@example.net")
    bench.host.route(str(PREFIX), dev="eth2")
    assert goes(bench, N1, "eth1", str(PREFIX[9])) == "mob0"
    assert goes(bench, str(PREFIX[1]), "eth2", str(PREFIX[9])) == "eth2"


def test_a_guard_that_stops_leaves_everything_as_it_was(bench: Bench) -> None:
    before = bench.snapshot()
    bench.network = bench.another(guard=SourceGuard(TABLE, ("eth1", "eth2"), local_routing=True))
    busy(bench)
    bench.network.close()
    bench.tun.close()
    assert bench.is_again(before)


def test_the_next_start_removes_the_guard_of_a_run_that_crashed(bench: Bench) -> None:
    before = bench.snapshot()
    bench.network = bench.another(guard=SourceGuard(TABLE, ("eth1", "eth2"), local_routing=True))
    busy(bench)
    bench.tun.close()
    bench.another().clean()
    assert bench.is_again(before)


# Several ways, policies, states


FIRST, SECOND = TunnelEnd(remote=PEER, binding_id=1, label=9), TunnelEnd(remote=OTHER, binding_id=2, label=11)
BOTH = TowardVisited(tunnels=(FIRST, SECOND), policy="video")
TO_PORT = TrafficSelector(format=TrafficSelectorFormat.IPV6_BINARY, destination_port=Range(5004), protocol=Range(17))
VIDEO = SetPolicy(name="video", rules=(FlowRule(selector=TO_PORT, labels=(11,)),))
TWICE = SetPolicy(name="video", rules=(FlowRule(selector=TO_PORT, spread=Spread.BICAST),))


@pytest.mark.parametrize(
    "path",
    [
        TowardVisited.at(PEER),
        TowardVisited(tunnels=(FIRST, SECOND)),
        TowardVisited(tunnels=(FIRST, SECOND), policy="video"),
    ],
    ids=["a tunnel", "two", "two by a policy"],
)
def test_many_prefixes_take_a_path_as_one_by_one(bench: Bench, path: TowardVisited) -> None:
    def seen() -> list[object]:
        return [
            (it.prefix, it.tunnel, it.side, it.bundle and it.bundle.paths, it.policy and it.policy.rules)
            for it in bench.tables.bindings()
        ]

    nodes = {prefix: f"mn{number}" for number, prefix in enumerate(islice(POOL.subnets(new_prefix=64), 20))}
    one_by_one = bench.another(aggregated=True)
    one_by_one.set_policy(VIDEO)
    for prefix, node in nodes.items():
        one_by_one.bind(prefix, path, node)
    before = seen()
    together = bench.another(aggregated=True)
    together.set_policy(VIDEO)
    together.bind_all(nodes, path)
    assert seen() == before
    assert len(before) == len(nodes)
    assert (together.paths, together.nodes) == (one_by_one.paths, one_by_one.nodes)
    for prefix in nodes:
        together.unbind(prefix)
    assert bench.tables.bindings() == []
    assert together.paths == together.nodes == {}


def test_prefixes_with_the_same_ways_share_a_bundle(begun: Bench) -> None:
    begun.network.set_policy(VIDEO)
    begun.network.bind(PREFIX, BOTH, NODE)
    begun.network.bind(VISITING, TowardVisited(tunnels=BOTH.tunnels), "mn2")
    one, other = begun.tables.bindings()
    assert one.bundle is other.bundle is not None
    assert [(path.bid, path.label, path.tunnel.remote) for path in one.bundle.paths] == [(1, 9, PEER), (2, 11, OTHER)]
    assert (one.policy is not None, other.policy) == (True, None)


def test_at_the_access_side_a_policy_is_seen_in_the_mirror(begun: Bench) -> None:
    begun.network.set_policy(VIDEO)
    begun.network.bind(PREFIX, TowardAnchor(tunnels=(FIRST, SECOND), interface="eth1", policy="video"), NODE)
    (binding,) = begun.tables.bindings()
    assert binding.policy is not None
    (rule,) = binding.policy.rules
    assert rule.selector is not None
    assert (rule.selector.source_port, rule.selector.destination_port) == ((5004, 5004), None)


def test_what_is_known_of_a_way_is_known_of_its_tunnel_whenever_it_comes(begun: Bench) -> None:
    begun.network.set_way(SetWay(tunnel=SECOND, state=WayState.DOWN))
    begun.network.bind(PREFIX, BOTH, NODE)
    assert begun.tables.state(tunnel(OTHER)) is TunnelState.DOWN
    begun.network.set_way(SetWay(tunnel=SECOND, state=WayState.UP))
    assert begun.tables.state(tunnel(OTHER)) is TunnelState.UP


def test_a_rule_that_makes_no_sense_is_refused(begun: Bench) -> None:
    selector = TrafficSelector(format=TrafficSelectorFormat.IPV6_BINARY, protocol=Range(9, 5))
    with pytest.raises(RouterError, match="policy video: "):
        begun.network.set_policy(SetPolicy(name="video", rules=(FlowRule(selector=selector),)))


def test_numbers_over_udp_are_refused_with_a_cure(begun: Bench) -> None:
    with pytest.raises(RouterError, match=r'policy video.*encapsulation = "gre"'):
        begun.network.set_policy(TWICE)


def test_with_gre_a_lone_tunnel_is_ready_for_numbers_when_they_begin(bench: Bench) -> None:
    bench.network = bench.another(Encapsulation.GRE)
    bench.network.bind(VISITING, TowardVisited.at(PEER), "mn2")
    bench.network.bind(PREFIX, BOTH, NODE)
    bench.network.set_policy(TWICE)
    tunnels = [path.tunnel for binding in bench.tables.bindings() if binding.bundle for path in binding.bundle.paths]
    assert len(tunnels) == 3
    assert all(each.sequence for each in tunnels)


def test_an_ipv4_tunnel_without_an_address_to_begin_at_is_refused(begun: Bench) -> None:
    with pytest.raises(RouterError, match="no IPv4 address"):
        begun.network.bind(PREFIX, TowardVisited.at(IPv4Address("192.0.2.9")), NODE)
    assert PREFIX not in begun.network.paths


def test_traffic_of_a_tunnel_nobody_uses_is_not_known(begun: Bench) -> None:
    assert begun.network.traffic(FIRST) == -1
    begun.network.bind(PREFIX, TowardVisited.at(PEER), NODE)
    assert eventually(lambda: begun.network.traffic(FIRST) == 0)


# Connections that are open and silent


@pytest.fixture
def visited(begun: Bench) -> Bench:
    """A node visits, and has a connection."""
    begun.tables.open_idle_after = 100.0
    begun.network.bind(VISITING, TowardAnchor.through(PEER, "eth1"), NODE)
    Engine(begun.tables).encapsulate([segment(VISITING[7], IPv6Address("2001:db8:cccc::80"))])
    return begun


def test_a_prefix_is_honoured_for_as_long_as_its_silent_connections_are(visited: Bench) -> None:
    assert visited.network.honoured(VISITING, 0.5) == pytest.approx(100.0, abs=0.5)
    assert visited.network.open_connections() == {VISITING: (1, pytest.approx(0.0, abs=0.5))}


def test_a_prefix_without_connections_is_not_honoured(begun: Bench) -> None:
    begun.network.bind(VISITING, TowardAnchor.through(PEER, "eth1"), NODE)
    assert [begun.network.honoured(prefix, inf) for prefix in (VISITING, PREFIX)] == [0.0, 0.0]


def test_the_next_process_honours_what_the_one_before_has_seen(visited: Bench) -> None:
    before = visited.network
    after = visited.another()
    visited.tables.open_idle_after = 100.0
    path = Bind(prefix=VISITING, path=before.paths[VISITING], node=NODE)
    after.adopt([path], {VISITING: 40.0, PREFIX: 1.0})
    assert after.honoured(VISITING, inf) == pytest.approx(60.0, abs=0.5)
    assert after.honoured(VISITING, 30.0) == 0.0
    assert after.open_connections() == {VISITING: (0, pytest.approx(40.0, abs=0.5))}


# Access links


def test_an_access_link_has_the_address_the_mac_and_the_rule_of_a_router(begun: Bench) -> None:
    for name in ("eth1", "eth2"):
        assert begun.host.link(name).link_layer == ROUTER_LINK_LAYER
        assert ROUTER_ADDRESS in [item.address for item in begun.host.netlink.addresses(begun.index(name))]
    rules = begun.host.netlink.rules(protocol=ROUTE_PROTOCOL)
    assert [(rule.priority, rule.iif, rule.table) for rule in rules] == [
        (RULE_PRIORITY, "eth1", TABLE),
        (RULE_PRIORITY, "eth2", TABLE),
    ]


def test_a_router_may_keep_its_mac(bench: Bench) -> None:
    before = bench.host.link("eth1").link_layer
    link = bench.network.add_access("eth1", fixed_link_layer=False)
    assert link.link_layer == before == bench.host.link("eth1").link_layer


def test_a_router_knows_the_mac_of_a_link_and_the_one_it_had_before(bench: Bench) -> None:
    before = bench.host.link("eth1").link_layer
    for _ in range(2):
        link = bench.network.add_access("eth1", fixed_link_layer=True)
        assert bench.network.link_layers_of(link) == {before, ROUTER_LINK_LAYER}


@pytest.mark.parametrize("again", [False, True])
def test_the_address_of_the_router_can_be_used_at_once_although_others_have_it(bench: Bench, again: bool) -> None:
    bench.host.sysctl("net/ipv6/conf/eth1/accept_dad", 1)
    bench.nodes.address("eth1", f"{ROUTER_ADDRESS}/64")
    if again:  # it has our MAC already, and makes the address itself
        bench.network.add_access("eth1", fixed_link_layer=True)
    bench.host.link_down("eth1")
    if again:
        bench.host.link_up("eth1")
    bench.network.add_access("eth1", fixed_link_layer=True)
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
        probe.bind((str(ROUTER_ADDRESS), 0, 0, bench.index("eth1")))


def test_adding_an_access_link_again_changes_nothing(begun: Bench) -> None:
    both = [begun.index("eth1"), begun.index("eth2")]
    eventually(lambda: begun.local_addresses(ROUTER_ADDRESS) == both)
    before = begun.snapshot()
    begun.network.add_access("eth1", fixed_link_layer=True)
    assert begun.is_again(before)


def test_an_interface_that_is_not_there_is_an_error(bench: Bench) -> None:
    with pytest.raises(NetlinkError, match="eth9"):
        bench.network.add_access("eth9", fixed_link_layer=True)


def test_routes_come_back_with_an_interface_that_was_switched_off(begun: Bench) -> None:
    begun.network.bind(PREFIX, LocalLink(interface="eth1"), NODE)
    begun.network.bind(VISITING, TowardAnchor.through(PEER, "eth1"), NODE)
    begun.host.link_down("eth1")
    begun.host.link_up("eth1")
    begun.network.add_access("eth1", fixed_link_layer=True)
    begun.network.refresh("eth1")
    visiting = {("::/0", str(VISITING), device) for device in ("eth1", "mob0")}
    assert begun.routes() == {TO_POOL, ("::/0", P, "eth1"), ELSE_TUN, *visiting}
    assert ROUTER_ADDRESS in [item.address for item in begun.host.netlink.addresses(begun.index("eth1"))]


def test_everything_comes_back_with_an_interface_that_vanished(begun: Bench) -> None:
    begun.network.bind(PREFIX, LocalLink(interface="eth1"), NODE)
    begun.host.netlink.delete_link(begun.index("eth1"))
    begun.network.bind(VISITING, TowardAnchor.through(PEER, "eth1"), NODE)  # nobody has told us yet
    connect(begun.host, "eth1", begun.nodes, "eth1")
    theirs = begun.host.link("eth1").link_layer
    begun.network.add_access("eth1", fixed_link_layer=True)
    begun.network.refresh("eth1")
    visiting = {("::/0", str(VISITING), device) for device in ("eth1", "mob0")}
    assert begun.routes() == {TO_POOL, ("::/0", P, "eth1"), ELSE_TUN, *visiting}
    assert begun.host.link("eth1").link_layer == ROUTER_LINK_LAYER
    begun.network.close()
    assert begun.host.link("eth1").link_layer == theirs


def test_packets_for_a_node_between_routers_wait_for_the_next_one(begun: Bench) -> None:
    network = Network(
        begun.host.netlink,
        begun.tables,
        address=OURS,
        encapsulation=Encapsulation.UDP,
        table=TABLE,
        journal=begun.journal,
        aggregated=True,
        buffer=HoldBuffer(),
    )
    network.bind(PREFIX, Held(), NODE)
    assert network.held(PREFIX) == HeldStats(kept=0, sent=0, full=0, expired=0)
    network.bind(PREFIX, TowardVisited.at(PEER), NODE)
    assert network.held(PREFIX) is None
    network.bind(PREFIX, Held(), NODE)
    network.bind(PREFIX, Closed(), NODE)
    assert network.held(PREFIX) is None
    network.unbind(PREFIX)


def test_a_prefix_can_be_moved_while_its_interface_is_gone(begun: Bench) -> None:
    begun.network.bind(PREFIX, LocalLink(interface="eth1"), NODE)
    begun.host.netlink.delete_link(begun.index("eth1"))
    begun.network.bind(PREFIX, Held(), NODE)
    assert begun.routes() == {TO_POOL, ("::/0", P, "mob0")}
    begun.network.close()


def destinations(bench: Bench) -> set[str]:
    return {str(route.destination) for route in bench.host.netlink.routes(protocol=ROUTE_PROTOCOL)}


def test_packets_may_go_before_the_node_has_a_way_back(begun: Bench) -> None:
    seen: list[set[str]] = []
    way = TowardAnchor.through(PEER, "eth1")
    begun.network.bind(VISITING, way, NODE, lambda: seen.append(destinations(begun)))
    (then,) = seen
    assert str(VISITING) in then
    assert destinations(begun) - then == {"::/0"}


def test_to_an_anchor_nothing_goes_before_the_turn_is_over(begun: Bench) -> None:
    seen: list[None] = []
    begun.network.bind(PREFIX, TowardVisited.at(PEER), NODE, lambda: seen.append(None))
    assert seen == []


# Neighbours


def expected(interface: str | None) -> ExpectNode:
    return ExpectNode(node=NODE, interface=interface, link_layer=MAC, link_local=IPv6Address("fe80::11"))


def neighbours(bench: Bench, name: str) -> dict[str, bytes]:
    return {str(near.address): near.link_layer for near in bench.host.netlink.neighbors(bench.index(name))}


def test_a_node_that_is_there_needs_no_address_resolution(begun: Bench) -> None:
    begun.network.expect(expected("eth1"))
    assert neighbours(begun, "eth1")["fe80::11"] == MAC
    assert "fe80::11" not in neighbours(begun, "eth2")


def test_a_node_that_left_is_forgotten_with_all_its_addresses(begun: Bench) -> None:
    begun.network.expect(expected("eth1"))
    begun.oracle.neigh("add", dst="2001:db8:a1:1::11", lladdr=MAC.hex(":"), ifindex=begun.index("eth1"))
    begun.oracle.neigh("add", dst="2001:db8:a1:1::22", lladdr="02:00:00:00:00:22", ifindex=begun.index("eth1"))
    begun.network.expect(expected(None))
    left = neighbours(begun, "eth1")
    assert "fe80::11" not in left
    assert "2001:db8:a1:1::11" not in left
    assert "2001:db8:a1:1::22" in left


# Leaving no trace


def busy(bench: Bench) -> None:
    """A router in the middle of its work."""
    bench.begin()
    for number, (path, *_) in enumerate(PATHS, 1):
        bench.network.bind(IPv6Network((f"2001:db8:a1:{number:x}::", 64)), path, NODE)
    bench.network.bind(HOST, ARRIVED, NODE)
    bench.network.bind(VISITING, TowardAnchor(tunnels=ARRIVED.tunnels, interface=""), NODE)
    bench.network.expect(expected("eth1"))


def test_close_leaves_everything_as_it_was(bench: Bench) -> None:
    before = bench.snapshot()
    busy(bench)
    assert bench.snapshot() != before
    bench.network.close()
    bench.tun.close()
    assert bench.is_again(before)
    assert bench.tables.bindings() == []
    assert not bench.journal.exists()


def test_close_leaves_a_machine_that_was_a_router_as_it_was(bench: Bench) -> None:
    bench.host.sysctl("net/ipv6/conf/all/forwarding", 1)
    test_close_leaves_everything_as_it_was(bench)


def test_close_leaves_single_interfaces_forwarding_that_did_before(bench: Bench) -> None:
    bench.host.sysctl("net/ipv6/conf/eth2/forwarding", 1)
    test_close_leaves_everything_as_it_was(bench)


def test_close_switches_off_an_interface_that_was_off(bench: Bench) -> None:
    bench.host.link_down("eth2")
    test_close_leaves_everything_as_it_was(bench)


def test_close_leaves_what_belongs_to_others(bench: Bench) -> None:
    bench.host.route("2001:db8:ffff::/48", dev="eth1")
    bench.oracle.rule("add", family=socket.AF_INET6, priority=100, table=100, iifname="eth1")
    test_close_leaves_everything_as_it_was(bench)


def test_advertisements_are_believed_on_the_uplink_and_not_on_an_access_link(bench: Bench) -> None:
    bench.host.sysctl("net/ipv6/conf/eth2/accept_ra", 2)
    bench.begin()
    assert (SYSCTL / "conf/wan/accept_ra").read_text().strip() == "2"
    assert (SYSCTL / "conf/eth2/accept_ra").read_text().strip() == "0"
    bench.tun.close()


def test_close_after_nothing_is_no_error(bench: Bench) -> None:
    bench.network.close()


def test_close_when_an_interface_is_gone_cleans_the_rest(bench: Bench) -> None:
    busy(bench)
    bench.host.netlink.delete_link(bench.index("eth1"))
    bench.network.close()
    bench.tun.close()
    assert bench.host.netlink.rules(protocol=ROUTE_PROTOCOL) == []
    assert bench.host.netlink.routes(protocol=ROUTE_PROTOCOL) == []


def test_the_next_start_restores_what_a_crash_left(bench: Bench) -> None:
    before = bench.snapshot()
    busy(bench)
    bench.tun.close()  # the kernel does that, when a process is killed
    found = bench.another().clean()
    assert bench.is_again(before)
    assert not bench.journal.exists()
    assert any("rule" in item and "eth1" in item for item in found)
    assert "link_layer eth1" in found
    assert f"route {POOL}" in found


def test_a_crash_of_a_run_that_never_cleaned_is_restored_to_the_very_beginning(bench: Bench) -> None:
    before = bench.snapshot()
    for _ in range(2):
        bench.network.clean()
        busy(bench)
        bench.tun.close()
        bench.network = bench.another()
    bench.network.clean()
    assert bench.is_again(before)


def test_a_clean_machine_has_nothing_to_clean(bench: Bench) -> None:
    before = bench.snapshot()
    assert bench.network.clean() == []
    assert bench.is_again(before)


@pytest.mark.parametrize("text", ["", "{", "5", "[1]", '[{"kind": "sysctl"}]', '[{"kind": 1, "name": 2, "value": 3}]'])
def test_a_journal_nobody_can_read_stops_nothing(bench: Bench, text: str) -> None:
    bench.journal.write_text(text)
    bench.network.clean()
    assert not bench.journal.exists()


def test_a_change_is_in_the_journal_before_it_is_made(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Netlink, "set_link_layer", die)
    with pytest.raises(KeyboardInterrupt):
        bench.network.add_access("eth1", fixed_link_layer=True)
    noted = {(item["kind"], item["name"]): item["value"] for item in json.loads(bench.journal.read_text())}
    assert noted["link_layer", "eth1"] == bench.host.link("eth1").link_layer.hex()


def test_nothing_is_changed_when_the_journal_cannot_be_written(bench: Bench) -> None:
    before = bench.snapshot()
    bench.journal.with_suffix(".new").mkdir()
    with pytest.raises(NoRights, match=r"undo\.json: Is a directory"):
        bench.network.forward("wan")
    assert bench.is_again(before)
