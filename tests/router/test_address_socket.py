"""DHCP and ARP of an access link, on a real one: a stock client of ISC at the other end, and frames of any kind.

router --eth1 ===== eth0-- node        the role is played by the test: it gives what the test says
"""

import asyncio
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Network
from pathlib import Path

import pytest
import uvloop

from router.control_sockets import ETH_P_IPV6
from router.demo.lab import Host, Lab, available, connect, wait_until_up
from router.errors import InUse, NoInterface
from router.links.address_socket import AddressServer
from router.links.attach import Identities
from router.links.rtnetlink import AddressFlag
from signaling.access_link import ROUTER_LINK_LAYER
from signaling.actions import GiveAddress
from signaling.address_service import Frame, Outcome
from signaling.events import AddressAsked, AddressReleased, Event, LinkAttached
from signaling.iana import ArpOperation, Dhcpv4MessageType, EtherType
from signaling.settings import Counters, MagSettings, Wants
from signaling.wire import arp, dhcpv4, udp
from signaling.wire.arp import ArpPacket
from signaling.wire.dhcpv4 import BROADCAST, Dhcpv4Message
from tests.e2e.dhcp_client import wrote_lease
from tests.eventually import eventually, until

pytestmark = [
    pytest.mark.namespaces,
    pytest.mark.skipif(available() is not None, reason=str(available())),
]
DHCLIENT = shutil.which("dhclient", path="/usr/sbin:/sbin:/usr/bin:/bin")
with_client = pytest.mark.skipif(
    DHCLIENT is None and "CI" not in os.environ, reason="no dhclient here: apt-get install isc-dhcp-client"
)

MAC = bytes.fromhex("020000000011")
ADDRESS, OTHER, ROUTER = IPv4Address("10.1.0.17"), IPv4Address("10.1.0.99"), IPv4Address("10.1.0.1")
DELEGATED = IPv6Network("2001:db8:d0::/56")
SETTINGS = MagSettings(address=DELEGATED[1], tunnel_mtu=1400)
SCRIPT = """#!/bin/sh
case $reason in
BOUND | RENEW | REBIND | REBOOT)
    ip address replace "$new_ip_address/$new_subnet_mask" dev "$interface" ;;
esac
echo "$reason $new_ip_address$new_ip6_prefix $new_routers $new_interface_mtu" >> {log}
"""


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = uvloop.new_event_loop()
    yield loop
    loop.close()


class Gateway:
    """An address server on eth1 of the router, and a role that gives at once what it was told to."""

    def __init__(self, loop: asyncio.AbstractEventLoop, host: Host) -> None:
        self.loop = loop
        self.host = host
        self.events: list[Event] = []
        self.asked_at: list[IPv4Address] = []  # destinations of questions about IPv4
        self.lifetime = 300
        self.address = ADDRESS
        self.restart()

    def restart(self) -> None:
        """As if the node had moved to a gateway that knows nothing of it."""
        if hasattr(self, "server"):
            self.server.close(self.loop)
        self.counters = Counters()
        self.server = AddressServer(SETTINGS, Identities({MAC: "mn1"}, "openmar"), self.counters, self.on_event)
        receive = self.server.service.receive

        def watched(frame: Frame, now: float) -> Outcome:
            if frame.ether_type is EtherType.IPV4:
                destination = udp.decode(frame.packet, frame.checksum).destination
                assert isinstance(destination, IPv4Address)
                self.asked_at.append(destination)
            return receive(frame, now)

        self.server.service.receive = watched  # type: ignore[method-assign]
        with self.host.inside():
            self.server.open(self.loop, "eth1")

    def on_event(self, event: Event) -> None:
        self.events.append(event)
        if isinstance(event, AddressAsked):
            given = GiveAddress(
                node=event.node,
                interface=event.interface,
                link_layer=event.link_layer,
                wants=event.wants,
                prefix=IPv4Network(self.address) if event.wants is Wants.IPV4 else DELEGATED,
                subnet_length=24,
                default_router=ROUTER if event.wants is Wants.IPV4 else None,
                lifetime=self.lifetime,
            )
            self.server.give(given)

    def asked(self) -> list[AddressAsked]:
        return [event for event in self.events if isinstance(event, AddressAsked)]

    def run_until(self, condition: Callable[[], object], timeout: float = 10.0) -> None:
        self.loop.run_until_complete(until(condition, timeout))


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab() as lab:
        router, node = lab.host("router"), lab.host("node")
        for host in (router, node):
            host.sysctl("net/ipv6/conf/default/accept_dad", 0)  # a link-local address at once
        connect(router, "eth1", node, "eth0", switched_on=False)
        router.link_layer("eth1", ROUTER_LINK_LAYER.hex(":"))
        node.link_layer("eth0", MAC.hex(":"))
        router.link_up("eth1")
        node.link_up("eth0")
        for host, link in ((router, "eth1"), (node, "eth0")):
            index = host.link(link).index
            wait_until_up(host, index)
            eventually(lambda h=host, i=index: settled(h, i), what="a link-local address to ask from")
        yield lab


def settled(host: Host, index: int) -> bool:
    own = host.netlink.addresses(index)
    return any(item.address.is_link_local and not item.flags & AddressFlag.TENTATIVE for item in own)


@pytest.fixture
def gateway(loop: asyncio.AbstractEventLoop, lab: Lab) -> Iterator[Gateway]:
    gateway = Gateway(loop, lab["router"])
    yield gateway
    gateway.server.close(loop)


class Client:
    """dhclient on eth0 of the node; what it told its script, line by line."""

    def __init__(self, host: Host, place: Path) -> None:
        self.host = host
        self.log = place / "log"
        self.log.touch()
        self.leases = place / "leases"
        self.pid = place / "pid"
        self.script = place / "script"
        self.script.write_text(SCRIPT.format(log=self.log))
        self.script.chmod(0o755)

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        files = ("-sf", str(self.script), "-lf", str(self.leases), "-pf", str(self.pid), "-cf", "/dev/null")
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        return self.host.spawn([str(DHCLIENT), "-d", *arguments, *files, "eth0"], **quiet)

    def told(self) -> list[str]:
        return [line.strip() for line in self.log.read_text().splitlines() if not line.startswith("PREINIT")]

    def remembers(self) -> bool:
        return bool(self.told()) and wrote_lease(self.leases)


@pytest.fixture
def client(lab: Lab, tmp_path: Path) -> Client:
    return Client(lab["node"], tmp_path)


# A stock client


@with_client
def test_a_stock_client_is_leased_its_home_address(gateway: Gateway, client: Client) -> None:
    client.start("-4")
    gateway.run_until(client.told)
    assert client.told() == ["BOUND 10.1.0.17 10.1.0.1 1400"]
    assert gateway.events[0] == LinkAttached(
        node="mn1", interface="eth1", link_layer=MAC, link_local=None, trigger="dhcp"
    )
    assert len(gateway.asked()) == 1
    assert [row["prefix"] for row in gateway.server.rows()] == ["10.1.0.17/32"]


@with_client
def test_a_stock_client_renews_at_the_router_it_finds_by_arp(gateway: Gateway, client: Client) -> None:
    gateway.lifetime = 4
    client.start("-4")
    gateway.run_until(lambda: "RENEW 10.1.0.17 10.1.0.1 1400" in client.told())
    assert ROUTER in gateway.asked_at
    assert gateway.counters["dhcp.arp-replies"] > 0
    assert gateway.counters["dhcp.checksum"] == 0


@with_client
def test_a_stock_client_keeps_its_address_at_the_next_gateway(gateway: Gateway, client: Client) -> None:
    first = client.start("-4")
    gateway.run_until(client.remembers)
    first.send_signal(signal.SIGKILL)
    first.wait()
    gateway.restart()
    client.start("-4")
    gateway.run_until(lambda: len(client.told()) == 2)
    assert client.told()[1] == "REBOOT 10.1.0.17 10.1.0.1 1400"
    assert gateway.asked()[-1].hint == IPv4Network(ADDRESS)


@with_client
def test_a_stock_client_takes_another_address_where_the_anchor_says_so(gateway: Gateway, client: Client) -> None:
    first = client.start("-4")
    gateway.run_until(client.remembers)
    first.send_signal(signal.SIGKILL)
    first.wait()
    gateway.address = OTHER
    gateway.restart()
    client.start("-4")
    gateway.run_until(lambda: "BOUND 10.1.0.99 10.1.0.1 1400" in client.told())


@with_client
def test_a_stock_client_gives_its_address_back(gateway: Gateway, client: Client) -> None:
    first = client.start("-4")
    gateway.run_until(client.remembers)
    client.start("-4", "-r")
    gateway.run_until(lambda: isinstance(gateway.events[-1], AddressReleased))
    assert gateway.events[-1] == AddressReleased(
        node="mn1",
        interface="eth1",
        link_layer=MAC,
        wants=Wants.IPV4,
        prefix=IPv4Network(ADDRESS),
        reason="release",
    )
    first.wait()


@with_client
def test_a_stock_router_is_delegated_a_prefix_and_gives_it_back(gateway: Gateway, client: Client) -> None:
    first = client.start("-6", "-P")
    gateway.run_until(client.remembers)
    assert client.told() == ["BOUND6 2001:db8:d0::/56"]
    (asked,) = gateway.asked()
    assert asked.link_local is not None
    assert asked.link_local.is_link_local
    client.start("-6", "-P", "-r")
    gateway.run_until(lambda: isinstance(gateway.events[-1], AddressReleased))
    first.wait()


# Any frames


class Node:
    """Sends frames as any host of the link, and hears what comes to it."""

    def __init__(self, host: Host) -> None:
        with host.inside():
            self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(EtherType.ARP))
            self.socket.bind(("eth0", EtherType.ARP))
        self.socket.settimeout(5)

    def send(self, ether_type: int, packet: bytes, source: bytes = MAC) -> None:
        self.socket.send(b"\xff" * 6 + source + ether_type.to_bytes(2, "big") + packet)


@pytest.fixture
def node(lab: Lab) -> Iterator[Node]:
    node = Node(lab["node"])
    yield node
    node.socket.close()


def discover(link_layer: bytes = MAC) -> bytes:
    message = Dhcpv4Message(type=Dhcpv4MessageType.DISCOVER, transaction=1, link_layer=link_layer)
    datagram = udp.Datagram(
        source=IPv4Address(0),
        destination=BROADCAST,
        source_port=68,
        destination_port=67,
        payload=dhcpv4.encode(message),
    )
    return udp.encode(datagram)


def test_data_packets_do_not_wake_anybody(gateway: Gateway, node: Node) -> None:
    datagram = udp.Datagram(
        source=ADDRESS, destination=ROUTER, source_port=67, destination_port=53, payload=b"\0\x43" * 20
    )
    reply = ArpPacket(operation=ArpOperation.REPLY, sender_link_layer=MAC, sender=ADDRESS, target=ROUTER)
    data6 = replace(datagram, source=DELEGATED[1], destination=DELEGATED[2])
    fragment = bytearray(discover())
    fragment[7] = 1  # not the first: what stands where ports would is data
    heard: list[Frame] = []
    receive = gateway.server.service.receive

    def watched(frame: Frame, now: float) -> Outcome:
        heard.append(frame)
        return receive(frame, now)

    gateway.server.service.receive = watched  # type: ignore[method-assign]
    for packet in (udp.encode(datagram), bytes(fragment), b"", b"\x45"):
        node.send(EtherType.IPV4, packet)
    node.send(ETH_P_IPV6, udp.encode(data6))
    node.send(EtherType.ARP, arp.encode(reply))
    node.send(EtherType.IPV4, discover())
    gateway.run_until(gateway.asked)
    assert [frame.packet for frame in heard if frame.ether_type is not EtherType.IPV6] == [discover()]


@pytest.mark.parametrize("source", [ROUTER_LINK_LAYER, b"\xff" * 6, bytes(6)], ids=bytes.hex)
def test_who_has_no_link_layer_address_of_its_own_is_not_believed(gateway: Gateway, node: Node, source: bytes) -> None:
    node.send(EtherType.IPV4, discover(source), source)
    node.send(EtherType.IPV4, discover())
    gateway.run_until(gateway.asked)
    assert {event.link_layer for event in gateway.asked()} == {MAC}


def test_arp_for_the_default_router_is_answered_with_the_address_every_gateway_has(
    gateway: Gateway, node: Node
) -> None:
    node.send(EtherType.IPV4, discover())
    gateway.run_until(gateway.asked)
    question = ArpPacket(operation=ArpOperation.REQUEST, sender_link_layer=MAC, sender=ADDRESS, target=ROUTER)
    node.send(EtherType.ARP, arp.encode(question))
    gateway.run_until(lambda: gateway.counters["dhcp.arp-replies"])
    frame = node.socket.recv(2048)
    assert (frame[:6], frame[6:12]) == (MAC, ROUTER_LINK_LAYER)
    assert arp.decode(frame[14:]).sender_link_layer == ROUTER_LINK_LAYER


def test_a_client_is_forgotten_in_time(gateway: Gateway, node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("signaling.address_service.PATIENCE", 0.05)
    gateway.lifetime = 0
    node.send(EtherType.IPV4, discover())
    gateway.run_until(gateway.asked)
    gateway.run_until(lambda: gateway.server.service.next_wake is None)


# Opening


def test_two_dhcp_servers_of_one_link_are_refused_unless_they_agree_to_share(
    gateway: Gateway, lab: Lab, loop: asyncio.AbstractEventLoop
) -> None:
    gateway.server.close(loop)
    with lab["router"].inside():
        other = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        other.bind(("0.0.0.0", 67))
        with pytest.raises(InUse, match="another DHCP server"):
            gateway.server.open(loop, "eth1")
        other.close()
        gateway.server.open(loop, "eth1")


def test_a_link_that_is_not_there_is_named(gateway: Gateway, lab: Lab, loop: asyncio.AbstractEventLoop) -> None:
    with lab["router"].inside(), pytest.raises(NoInterface, match="eth9"):
        gateway.server.open(loop, "eth9")


def test_what_cannot_leave_is_counted(gateway: Gateway, loop: asyncio.AbstractEventLoop, node: Node) -> None:
    node.send(EtherType.IPV4, discover())
    gateway.server.close(loop, "eth2")  # no error, though it is not open
    give, closed = gateway.server.give, gateway.server.close

    def too_late(action: GiveAddress) -> None:
        closed(loop, "eth1")
        give(action)

    gateway.server.give = too_late  # type: ignore[method-assign]
    gateway.run_until(gateway.asked)
    assert gateway.counters["dhcp.not-sent"] == 1
