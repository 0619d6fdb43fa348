"""Paths of a gateway and an anchor with packets on them: networks and engines of both, nobody signals.

node --eth0 === eth1-- mag --wlan0 === w1-- lma --core === eth0-- correspondent
                           --lte0 ==== w2--
"""

import asyncio
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from operator import contains
from pathlib import Path

import pytest
import uvloop

from engine import Encapsulation, Tables
from router.config import Config
from router.demo.lab import Host, Lab, available, connect
from router.links.netlink import Netlink
from router.links.rtnetlink import Address, Route
from router.links.rtnetlink_constants import RouteProtocol
from router.network import Network
from router.packets import Packets
from signaling.access_link import ROUTER_ADDRESS
from signaling.actions import GiveAddress, SetPolicy, SetWay, TowardAnchor, TowardVisited, TunnelEnd
from signaling.flow_rules import FlowRule, Spread
from signaling.iana import TrafficSelectorFormat
from signaling.settings import Wants, WayState
from signaling.wire.traffic_selector import Range, TrafficSelector
from tests.eventually import becomes

pytestmark = [
    pytest.mark.namespaces,
    pytest.mark.skipif(available() is not None, reason=str(available())),
]

POOL, POOL4 = IPv6Network("2001:db8:a::/48"), IPv4Network("10.1.0.0/16")
PREFIX, HOST4 = IPv6Network("2001:db8:a:1::/64"), IPv4Network("10.1.0.9/32")
NODE, NODE4 = PREFIX[9], HOST4[0]
ROUTER4 = IPv4Address("10.1.0.1")  # the gateway has it while the node has its address
CORRESPONDENT, CORRESPONDENT4 = IPv6Address("2001:db8:c::2"), IPv4Address("198.51.100.2")
WAYS = {"wlan0": ("w1", 1), "lte0": ("w2", 2)}
MTU, PORT, MN = 1400, 5004, "mn1@example.net"
LEASE = GiveAddress(
    node=MN,
    interface="eth1",
    link_layer=bytes.fromhex("020000000011"),
    wants=Wants.IPV4,
    prefix=HOST4,
    default_router=ROUTER4,
)
TWICE = SetPolicy(name="twice", rules=(FlowRule(selector=None, spread=Spread.BICAST),))


def set_address(host: Host, name: str, text: str, length: int) -> None:
    index = host.link(name).index
    if ":" in text:
        host.address(name, f"{text}/{length}")
    else:
        host.netlink.add_address(Address(index=index, address=IPv4Address(text), prefixlen=length))


def set_default(host: Host, name: str, gateway: str) -> None:
    six = ":" in gateway
    host.netlink.add_route(
        Route(
            destination=IPv6Network("::/0") if six else IPv4Network("0.0.0.0/0"),
            oif=host.link(name).index,
            gateway=IPv6Address(gateway) if six else IPv4Address(gateway),
            protocol=RouteProtocol.STATIC,
        )
    )


class Side:
    """A router without its signalling."""

    def __init__(self, host: Host, config: Config, journal: Path, stack: ExitStack, *, aggregated: bool) -> None:
        self.host, self.tables = host, Tables()
        self.packets = Packets(config, self.tables)
        with host.inside():
            self.network = Network(
                stack.enter_context(Netlink()),
                self.tables,
                address=IPv6Address("2001:db8:ffff::1"),  # every tunnel names its own
                encapsulation=config.encapsulation,
                table=config.table,
                journal=journal,
                aggregated=aggregated,
            )

    def begin(self, loop: asyncio.AbstractEventLoop, *addresses: IPv6Address | IPv4Address) -> None:
        with self.host.inside():
            self.packets.open(addresses, mtu=MTU)
            self.network.use_tun("tun9", MTU)
            self.network.forward(None)
        self.packets.serve(loop, lambda error: pytest.fail(str(error)))


class Bench:
    def __init__(self, lab: Lab, stack: ExitStack, directory: Path, encapsulation: Encapsulation) -> None:
        self.node, self.mag, self.lma, self.far = (lab.host(name) for name in ("node", "mag", "lma", "far"))
        for host in lab.hosts.values():
            host.sysctl("net/ipv6/conf/default/accept_dad", 0)
        connect(self.node, "eth0", self.mag, "eth1")
        self.node.link_layer("eth0", LEASE.link_layer.hex(":"))
        connect(self.lma, "core", self.far, "eth0")
        self.loop = uvloop.new_event_loop()
        stack.callback(self.loop.close)
        for host, name, address, length in (
            (self.node, "eth0", str(NODE), 64),
            (self.node, "eth0", str(NODE4), 24),
            (self.far, "eth0", str(CORRESPONDENT), 64),
            (self.far, "eth0", str(CORRESPONDENT4), 24),
            (self.lma, "core", str(CORRESPONDENT - 1), 64),
            (self.lma, "core", str(CORRESPONDENT4 - 1), 24),
        ):
            set_address(host, name, address, length)
        set_default(self.node, "eth0", str(ROUTER_ADDRESS))
        set_default(self.node, "eth0", str(ROUTER4))
        set_default(self.far, "eth0", str(CORRESPONDENT - 1))
        set_default(self.far, "eth0", str(CORRESPONDENT4 - 1))
        config = Config(tun="tun9", encapsulation=encapsulation)
        self.gateway = Side(self.mag, config, directory / "mag.json", stack, aggregated=False)
        self.anchor = Side(self.lma, config, directory / "lma.json", stack, aggregated=True)
        for side in (self.gateway, self.anchor):
            stack.callback(side.packets.close, self.loop)
            stack.callback(side.network.close)
        self._connect_ways()

    def _connect_ways(self) -> None:
        self.down: list[TunnelEnd] = []
        self.up: list[TunnelEnd] = []
        for name, (far, number) in WAYS.items():
            connect(self.mag, name, self.lma, far)
            here, there = (IPv6Address(f"2001:db8:{number}::{end}") for end in (2, 1))
            set_address(self.mag, name, str(here), 64)
            set_address(self.lma, far, str(there), 64)
            self.up.append(TunnelEnd(local=here, remote=there, binding_id=number))
            self.down.append(TunnelEnd(local=there, remote=here, binding_id=number))
        self.gateway.begin(self.loop, *(end.remote for end in self.down))
        self.anchor.begin(self.loop, *(end.remote for end in self.up))
        with self.lma.inside():
            self.anchor.network.claim_tun([POOL, POOL4])
        with self.mag.inside():
            self.gateway.network.add_access("eth1", fixed_link_layer=True)

    def bind(self, ways: int, policy: str = "") -> None:
        """Both prefixes of the node by the first ways."""
        for prefix in (PREFIX, HOST4):
            with self.lma.inside():
                self.anchor.network.bind(prefix, TowardVisited(tunnels=tuple(self.down[:ways]), policy=policy), MN)
            with self.mag.inside():
                path = TowardAnchor(tunnels=tuple(self.up[:ways]), interface="eth1", policy=policy)
                self.gateway.network.bind(prefix, path, MN)
                self.gateway.network.give(LEASE)

    def set_policy(self, policy: SetPolicy) -> None:
        for side in (self.gateway, self.anchor):
            side.network.set_policy(policy)

    def lose(self, name: str) -> None:
        """That way swallows everything, and no carrier tells."""
        index = self.lma.link(WAYS[name][0]).index
        for address in self.lma.netlink.addresses(index):
            if not address.address.is_link_local:
                self.lma.netlink.delete_address(address)

    def echoes(self, count: int, *, to: IPv6Address | IPv4Address, port: int = PORT) -> tuple[list[int], list[int]]:
        """Numbers that the correspondent heard of so many, and that the node heard back, in their order."""
        family = socket.AF_INET6 if to.version == 6 else socket.AF_INET
        with self.far.inside():
            far = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
            far.bind((str(to), port))
        with self.node.inside():
            near = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        there: list[int] = []
        back: list[int] = []

        def answer() -> None:
            octets, peer = far.recvfrom(100)
            there.append(octets[0])
            far.sendto(octets, peer)

        with near, far:
            self.loop.add_reader(far.fileno(), answer)
            self.loop.add_reader(near.fileno(), lambda: back.append(near.recv(100)[0]))
            for number in range(count):
                near.sendto(bytes([number]), (str(to), port))
                self.wait(partial(contains, back, number), within=0.5)
            for each in (near, far):
                self.loop.remove_reader(each.fileno())
        return there, back

    def wait(self, condition: Callable[[], bool], within: float) -> None:
        """So long and no longer: what is waited for may be lost."""
        self.loop.run_until_complete(becomes(condition, within))


@pytest.fixture(params=[Encapsulation.UDP, Encapsulation.GRE])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    with Lab() as lab, ExitStack() as stack:
        yield Bench(lab, stack, tmp_path, request.param)


@pytest.fixture
def numbered(tmp_path: Path) -> Iterator[Bench]:
    with Lab() as lab, ExitStack() as stack:
        yield Bench(lab, stack, tmp_path, Encapsulation.GRE)


ALL = list(range(20))


@pytest.mark.parametrize("to", [CORRESPONDENT, CORRESPONDENT4], ids=["ipv6", "ipv4"])
@pytest.mark.parametrize("ways", [1, 2])
def test_a_node_and_its_correspondent_hear_each_other(bench: Bench, to: IPv6Address | IPv4Address, ways: int) -> None:
    bench.bind(ways)
    assert bench.echoes(20, to=to) == (ALL, ALL)


def test_ipv4_passes_where_the_kernel_is_strict_about_sources(bench: Bench) -> None:
    for host in (bench.mag, bench.lma):
        host.sysctl("net/ipv4/conf/all/rp_filter", 1)
    set_default(bench.mag, "wlan0", "2001:db8:1::1")
    bench.mag.netlink.add_address(
        Address(index=bench.mag.link("wlan0").index, address=IPv4Address("192.0.2.2"), prefixlen=24)
    )
    set_default(bench.mag, "wlan0", "192.0.2.1")
    with bench.lma.inside():
        bench.anchor.network.forward_ipv4()
    bench.bind(1)
    assert bench.echoes(20, to=CORRESPONDENT4) == (ALL, ALL)


def test_copies_arrive_once_and_survive_the_silence_of_a_way(numbered: Bench) -> None:
    numbered.set_policy(TWICE)
    numbered.bind(2, "twice")
    assert numbered.echoes(20, to=CORRESPONDENT) == (ALL, ALL)
    numbered.lose("wlan0")
    assert numbered.echoes(20, to=CORRESPONDENT) == (ALL, ALL)


def test_packets_one_by_one_use_both_ways_and_come_in_order(numbered: Bench) -> None:
    policy = replace(TWICE, rules=(FlowRule(selector=None, spread=Spread.PER_PACKET),))
    numbered.set_policy(policy)
    numbered.bind(2, "twice")
    assert numbered.echoes(20, to=CORRESPONDENT) == (ALL, ALL)
    left = [row.packets_out for row in numbered.gateway.tables.tunnels()]
    assert min(left) >= 9


def test_a_policy_that_changes_while_packets_pass_loses_and_repeats_none(numbered: Bench) -> None:
    numbered.bind(2, "twice")
    assert numbered.echoes(20, to=CORRESPONDENT) == (ALL, ALL)
    for policy in (TWICE, replace(TWICE, rules=()), TWICE):
        numbered.set_policy(policy)
        assert numbered.echoes(20, to=CORRESPONDENT) == (ALL, ALL)


def test_flows_leave_a_way_that_is_down(bench: Bench) -> None:
    bench.bind(2)
    bench.lose("wlan0")
    for side, ends in ((bench.gateway, bench.up), (bench.anchor, bench.down)):
        side.network.set_way(SetWay(tunnel=ends[0], state=WayState.DOWN))
    assert bench.echoes(20, to=CORRESPONDENT) == (ALL, ALL)


def test_flows_that_keep_to_one_way_do_not_disturb_those_that_are_copied(numbered: Bench) -> None:
    """They pass through the same tunnels, and only copies are put in order at the other end."""
    selector = TrafficSelector(format=TrafficSelectorFormat.IPV6_BINARY, source_port=Range(PORT))
    numbered.set_policy(replace(TWICE, rules=(FlowRule(selector=selector, spread=Spread.BICAST),)))
    numbered.bind(2, "twice")
    for port in (PORT, PORT + 1, PORT, PORT + 2, PORT):
        assert numbered.echoes(20, to=CORRESPONDENT, port=port) == (ALL, ALL)
