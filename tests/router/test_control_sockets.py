"""The sockets Python reads, on real links: what the filter in the kernel lets through, and what peers get.

router --eth1 ===== eth0-- node        the node sends frames with any link-layer source, and hears what comes
mar1 --eth0 ===== eth0-- mar2          Mobility Headers over protocol 135, and over UDP
"""

import asyncio
import select
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from ipaddress import IPv4Address, IPv6Address

import pytest
import uvloop

from router.control_sockets import (
    DATA_PORT,
    ETH_P_IPV6,
    MAX_FILTERED_NODES,
    UDP_PORT,
    AccessSocket,
    SignalingSocket,
    SignalingSockets,
    frame_filter,
)
from router.demo.lab import Host, Lab, available, connect, wait_until_up
from router.errors import InUse, NoInterface
from router.links.rtnetlink import Address as LinkAddress
from signaling.settings import Address, Transport
from signaling.wire import ipv6
from signaling.wire.binding_refresh import BindingRefreshRequest
from signaling.wire.message import Message
from signaling.wire.mobility_header import encode
from signaling.wire.multicast_listener import MulticastRecord
from signaling.wire.neighbor import (
    EchoReply,
    EchoRequest,
    MulticastListenerReport,
    MulticastListenerReportV2,
    NeighborAdvertisement,
    NeighborSolicitation,
    RouterSolicitation,
)
from tests.engine.descriptors import wait_for_address
from tests.eventually import eventually, until

pytestmark = [
    pytest.mark.namespaces,
    pytest.mark.skipif(available() is not None, reason=str(available())),
]

KNOWN = bytes.fromhex("020000000011")
STRANGER = bytes.fromhex("020000000022")
HOST = IPv6Address("fe80::11")
FAR = IPv6Address("2001:db8::99")
EVERYBODY = bytes.fromhex("333300000001")
MAR1, MAR2 = IPv6Address("2001:db8::1"), IPv6Address("2001:db8::2")


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = uvloop.new_event_loop()
    yield loop
    loop.close()


def run_until(loop: asyncio.AbstractEventLoop, condition: Callable[[], object]) -> None:
    loop.run_until_complete(until(condition, 5.0))


# The access link


class Link:
    """An access link with our socket at one end, and at the other one that can send anything."""

    def __init__(self, loop: asyncio.AbstractEventLoop, router: Host, node: Host) -> None:
        self.loop = loop
        self.frames: list[tuple[bytes, bytes]] = []
        with router.inside():
            self.ours = AccessSocket("eth1")
        self.ours.serve(loop, lambda packet, link_layer: self.frames.append((packet, link_layer)))
        with node.inside():
            self.theirs = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_IPV6))
            self.theirs.bind(("eth0", ETH_P_IPV6))
        self.theirs.settimeout(5)

    def send(self, packet: bytes, source: bytes) -> None:
        self.theirs.send(EVERYBODY + source + ETH_P_IPV6.to_bytes(2, "big") + packet)

    def passes(self, packet: bytes, source: bytes) -> bool:
        """Whether a frame wakes us; another one after it, that must, tells when it would have."""
        self.frames.clear()
        self.send(packet, source)
        self.send(solicitation, marker := bytes.fromhex("0200000000ff"))
        run_until(self.loop, lambda: any(sender == marker for _, sender in self.frames))
        return (packet, source) in self.frames

    def close(self) -> None:
        self.ours.close(self.loop)
        self.theirs.close()


solicitation = ipv6.carry(RouterSolicitation(), HOST, IPv6Address("ff02::2"))


@pytest.fixture
def link(loop: asyncio.AbstractEventLoop) -> Iterator[Link]:
    with Lab() as lab:
        router, node = lab.host("router"), lab.host("node")
        node.sysctl("net/ipv6/conf/default/disable_ipv6", 1)  # nobody but the test speaks
        connect(router, "eth1", node, "eth0")
        link = Link(loop, router, node)
        yield link
        link.close()


def udp(size: int = 20, next_header: int = 17) -> bytes:
    """A data packet."""
    return b"\x60\0\0\0" + size.to_bytes(2, "big") + bytes([next_header, 64]) + FAR.packed + FAR.packed + b"x" * size


def carry(message: Message) -> bytes:
    return ipv6.carry(message, HOST, FAR)


SIGNS: dict[str, bytes] = {
    "router solicitation": solicitation,
    "neighbour solicitation": carry(NeighborSolicitation(target=HOST)),
    "neighbour advertisement": carry(NeighborAdvertisement(target=HOST)),
    "MLD report": carry(MulticastListenerReport(group=IPv6Address("ff02::1:ff00:11"))),
    "MLD version 2 report": carry(
        MulticastListenerReportV2(records=(MulticastRecord(kind=4, group=IPv6Address("ff02::1:ff00:11")),))
    ),
}
DATA: dict[str, bytes] = {
    "UDP": udp(),
    "TCP": udp(next_header=6),
    "echo request": carry(EchoRequest(identifier=1, sequence_number=1)),
    "echo reply": carry(EchoReply(identifier=1, sequence_number=1)),
    "hop-by-hop options before UDP": udp(next_header=0).replace(b"x", b"\x11", 1),
    "nothing behind the header": udp(size=0, next_header=59),
}


def test_what_a_node_says_to_neighbours_and_routers_always_passes(link: Link) -> None:
    for known in ((), (KNOWN,), (STRANGER, KNOWN)):
        link.ours.expect(known)
        assert [name for name, packet in SIGNS.items() if not link.passes(packet, KNOWN)] == []


def test_data_of_a_stranger_passes(link: Link) -> None:
    link.ours.expect([KNOWN])
    assert [name for name, packet in DATA.items() if not link.passes(packet, STRANGER)] == []


def test_data_of_a_known_node_does_not_pass(link: Link) -> None:
    link.ours.expect([STRANGER, KNOWN])
    assert [name for name, packet in DATA.items() if link.passes(packet, KNOWN)] == []


def test_a_node_that_is_expected_no_more_is_a_stranger_again(link: Link) -> None:
    link.ours.expect([KNOWN])
    assert not link.passes(udp(), KNOWN)
    link.ours.expect([])
    assert link.passes(udp(), KNOWN)


@pytest.mark.parametrize("near", ["020000000010", "020000000111", "120000000011", "020000010011", "021000000011"])
def test_a_link_layer_address_that_is_nearly_known_is_strange(link: Link, near: str) -> None:
    link.ours.expect([KNOWN])
    assert link.passes(udp(), bytes.fromhex(near))


def test_as_many_nodes_as_can_be_filtered_are(link: Link) -> None:
    many = [b"\x02\0\0\1" + number.to_bytes(2, "big") for number in range(MAX_FILTERED_NODES)]
    link.ours.expect(many)
    assert not link.passes(udp(), many[0])
    assert not link.passes(udp(), many[-1])
    assert link.passes(udp(), STRANGER)


def test_with_too_many_nodes_only_signs_pass(link: Link) -> None:
    link.ours.expect([b"\x02\0\0\1" + number.to_bytes(2, "big") for number in range(MAX_FILTERED_NODES + 1)])
    assert not link.passes(udp(), STRANGER)
    assert all(link.passes(packet, STRANGER) for packet in SIGNS.values())


def test_the_longest_filter_is_one_the_kernel_takes() -> None:
    assert len(frame_filter([KNOWN] * MAX_FILTERED_NODES)) <= 4096  # BPF_MAXINSNS


def test_a_long_first_packet_is_read_as_a_whole(link: Link) -> None:
    assert link.passes(udp(size=1400), STRANGER)


def test_frames_that_wait_can_be_thrown_away_and_no_later_ones(link: Link) -> None:
    link.send(solicitation, bytes.fromhex("020000000001"))
    eventually(lambda: select.select([link.ours.socket], [], [], 0)[0])
    link.ours.discard()
    link.ours.read()
    assert link.frames == []
    assert link.passes(solicitation, bytes.fromhex("020000000002"))


def test_what_we_send_arrives_in_a_frame_to_its_node_and_does_not_come_back(link: Link) -> None:
    assert link.ours.send(udp(), KNOWN) is None
    frame = b""
    while frame[14:] != udp():  # the router's kernel speaks too
        frame = link.theirs.recv(2000)
    assert frame[:6] == KNOWN
    assert link.passes(solicitation, STRANGER)
    assert udp() not in [packet for packet, _ in link.frames]


def test_a_link_that_goes_down_and_comes_back_is_heard_again(loop: asyncio.AbstractEventLoop) -> None:
    with Lab() as lab:
        router, node = lab.host("router"), lab.host("node")
        node.sysctl("net/ipv6/conf/default/disable_ipv6", 1)
        connect(router, "eth1", node, "eth0")
        link = Link(loop, router, node)
        router.link_down("eth1")
        run_until(loop, lambda: not router.link("eth1").up)
        assert link.ours.send(udp(), KNOWN) is not None
        router.link_up("eth1")
        node.link_up("eth0")
        for host, name in ((router, "eth1"), (node, "eth0")):
            wait_until_up(host, host.link(name).index)
        assert link.passes(solicitation, STRANGER)
        link.close()


def test_an_interface_that_is_not_there_is_named() -> None:
    with Lab() as lab, lab.host("router").inside(), pytest.raises(NoInterface, match="eth9"):
        AccessSocket("eth9")


# Peers


@pytest.fixture
def peers() -> Iterator[tuple[Host, Host]]:
    with Lab() as lab:
        mar1, mar2 = lab.host("mar1"), lab.host("mar2")
        connect(mar1, "eth0", mar2, "eth0")
        mar1.address("eth0", f"{MAR1}/64")
        mar2.address("eth0", f"{MAR2}/64")
        for host, address in ((mar1, MAR1), (mar2, MAR2)):
            wait_for_address(host, str(address))
        yield mar1, mar2


def opened(host: Host, address: IPv6Address, transport: Transport) -> SignalingSocket:
    with host.inside():
        return SignalingSocket(address, transport)


@pytest.mark.parametrize("transport", Transport)
def test_a_message_arrives_as_it_was_sent(
    peers: tuple[Host, Host], loop: asyncio.AbstractEventLoop, transport: Transport
) -> None:
    here, there = (opened(*end, transport) for end in zip(peers, (MAR1, MAR2), strict=True))
    heard: list[tuple[object, ...]] = []
    there.serve(loop, lambda *what: heard.append(what))
    octets = encode(BindingRefreshRequest(), MAR1, MAR2)
    assert here.send(octets, MAR2) is None
    run_until(loop, lambda: heard)
    port = UDP_PORT if transport is Transport.UDP else 0
    assert heard == [(octets, MAR1, port, MAR2)]
    for end in (here, there):
        end.close(loop)


def test_a_message_follows_the_ipv6_header_at_once(peers: tuple[Host, Host], loop: asyncio.AbstractEventLoop) -> None:
    """No Routing header and no Home Address option (RFC 5213 5.3.6, 6.9.1.5): the socket was told of none."""
    with peers[1].inside():
        wire = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_IPV6))
    wire.settimeout(5)
    here = opened(peers[0], MAR1, Transport.MOBILITY_HEADER)
    octets = encode(BindingRefreshRequest(), MAR1, MAR2)
    assert here.send(octets, MAR2) is None
    packet = b""
    while not packet.endswith(octets):  # the kernels speak too
        packet = wire.recv(2000)
    assert (packet[6], packet[40:]) == (135, octets)
    wire.close()
    here.close(loop)


def test_a_wrong_checksum_over_protocol_135_stays_in_the_kernel(
    peers: tuple[Host, Host], loop: asyncio.AbstractEventLoop
) -> None:
    there = opened(peers[1], MAR2, Transport.MOBILITY_HEADER)
    heard: list[bytes] = []
    there.serve(loop, lambda octets, *_: heard.append(octets))
    good = encode(BindingRefreshRequest(), MAR1, MAR2)
    wrong = good[:4] + b"\xba\xad" + good[6:]
    head = b"\x60\0\0\0" + len(good).to_bytes(2, "big") + bytes([135, 64]) + MAR1.packed + MAR2.packed
    with peers[0].inside(), socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_RAW) as forger:
        for octets in (wrong, good):
            forger.sendto(head + octets, (str(MAR2), 0))
    run_until(loop, lambda: heard)
    assert heard == [good]
    there.close(loop)


def test_a_peer_that_refuses_does_not_make_us_deaf(peers: tuple[Host, Host], loop: asyncio.AbstractEventLoop) -> None:
    here = opened(peers[0], MAR1, Transport.UDP)
    heard: list[bytes] = []
    here.serve(loop, lambda octets, *_: heard.append(octets))
    assert here.send(b"nobody listens there", MAR2) is None
    there = opened(peers[1], MAR2, Transport.UDP)
    there.send(b"hello", MAR1)
    run_until(loop, lambda: heard)
    assert heard == [b"hello"]
    for end in (here, there):
        end.close(loop)


@pytest.mark.parametrize("transport", Transport)
def test_what_cannot_leave_is_said_and_raises_nothing(
    peers: tuple[Host, Host], loop: asyncio.AbstractEventLoop, transport: Transport
) -> None:
    here = opened(peers[0], MAR1, transport)
    assert here.send(b"x" * 40, IPv6Address("3fff::1")) == "Network is unreachable"
    here.send_error(b"\1\4" + bytes(30), IPv6Address("3fff::1"))
    here.close(loop)


@pytest.mark.parametrize("transport", Transport)
def test_an_address_of_another_machine_is_named_with_a_cure(peers: tuple[Host, Host], transport: Transport) -> None:
    with pytest.raises(NoInterface, match=r"2001:db8::2 is no address of this machine.*--underlay"):
        opened(peers[0], MAR2, transport)


def test_a_port_of_another_program_is_named_with_a_cure(
    peers: tuple[Host, Host], loop: asyncio.AbstractEventLoop
) -> None:
    with ExitStack() as stack:
        stack.callback(opened(peers[0], MAR1, Transport.UDP).close, loop)
        with pytest.raises(InUse, match="UDP port 5436"):
            opened(peers[0], MAR1, Transport.UDP)


# Several addresses of ours

OTHER = IPv6Address("2001:db8::12")
HERE4, THERE4 = IPv4Address("192.0.2.1"), IPv4Address("192.0.2.2")
Heard = list[tuple[object, ...]]  # octets, source, port, destination; True: beside data


class Addressed:
    """mar1 with two IPv6 addresses and one of IPv4, mar2 with one of each: what each hears."""

    def __init__(self, loop: asyncio.AbstractEventLoop, mar1: Host, mar2: Host, transport: Transport) -> None:
        self.loop, self.mar1, self.mar2 = loop, mar1, mar2
        mar1.address("eth0", f"{OTHER}/64")
        for host, address in ((mar1, HERE4), (mar2, THERE4)):
            index = host.link("eth0").index
            host.netlink.add_address(LinkAddress(index=index, address=address, prefixlen=24))
        with mar1.inside():
            self.here = SignalingSockets([MAR1, OTHER, HERE4], transport)
        with mar2.inside():
            self.there = SignalingSockets([MAR2, THERE4], transport)
        self.heard_here: Heard = []
        self.heard_there: Heard = []
        self.here.serve(loop, lambda *what: self.heard_here.append(what))
        self.there.serve(loop, lambda *what: self.heard_there.append(what))

    def arrives(self, source: Address, destination: Address) -> bool:
        octets = encode(BindingRefreshRequest(), MAR1, MAR2)  # the kernel makes the checksum of protocol 135
        assert self.here.send(octets, destination, source=source) is None
        run_until(self.loop, lambda: self.heard_there)
        _, from_, _, to = self.heard_there.pop()
        return (from_, to) == (source, destination)

    def close(self) -> None:
        self.here.close(self.loop)
        self.there.close(self.loop)


@pytest.fixture(params=Transport)
def addressed(
    request: pytest.FixtureRequest, peers: tuple[Host, Host], loop: asyncio.AbstractEventLoop
) -> Iterator[Addressed]:
    made = Addressed(loop, *peers, request.param)
    yield made
    made.close()


def test_a_message_leaves_from_the_address_it_is_told(addressed: Addressed) -> None:
    assert addressed.arrives(MAR1, MAR2)
    assert addressed.arrives(OTHER, MAR2)
    assert addressed.arrives(HERE4, THERE4)


def test_without_a_source_the_first_address_of_the_family_is_taken(addressed: Addressed) -> None:
    for destination, first in ((MAR2, MAR1), (THERE4, HERE4)):
        assert addressed.here.send(encode(BindingRefreshRequest(), MAR1, MAR2), destination) is None
        run_until(addressed.loop, lambda: addressed.heard_there)
        assert addressed.heard_there.pop()[1] == first


def test_over_ipv4_there_is_always_a_port(addressed: Addressed) -> None:
    addressed.there.send(b"over UDP", HERE4)
    run_until(addressed.loop, lambda: addressed.heard_here)
    assert addressed.heard_here == [(b"over UDP", THERE4, UDP_PORT, HERE4)]


def test_beside_data_a_message_has_the_ports_of_data_and_data_wakes_nobody(addressed: Addressed) -> None:
    octets = encode(BindingRefreshRequest(), MAR1, MAR2, checksum=False)
    with addressed.mar1.inside():  # opened with the first message that leaves so
        assert addressed.here.send(octets, THERE4, beside_data=True) is None
        data = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        data.bind((str(HERE4), DATA_PORT))
    with addressed.mar2.inside():
        assert addressed.there.send(octets, HERE4, beside_data=True) is None
    run_until(addressed.loop, lambda: addressed.heard_here)
    data.sendto(b"\x45" + octets, (str(THERE4), DATA_PORT))
    assert addressed.here.send(octets, THERE4, beside_data=True) is None
    run_until(addressed.loop, lambda: addressed.heard_there)
    assert addressed.heard_here == [(octets, THERE4, DATA_PORT, HERE4, True)]
    assert addressed.heard_there == [(octets, HERE4, DATA_PORT, THERE4, True)]
    addressed.here.remove(HERE4)
    data.close()


def test_an_address_that_is_ours_no_more_sends_and_hears_nothing(addressed: Addressed) -> None:
    addressed.here.remove(OTHER)
    addressed.here.remove(OTHER)
    assert addressed.here.addresses == (MAR1, HERE4)
    assert addressed.here.send(b"x" * 8, MAR2, source=OTHER) == "2001:db8::12 is no address of ours"


def test_what_waits_is_read_when_it_is_asked_for(addressed: Addressed) -> None:
    for destination in (MAR1, HERE4):
        addressed.there.send(encode(BindingRefreshRequest(), MAR2, MAR1), destination)
    assert addressed.heard_here == []  # the loop has not run

    def read() -> bool:
        addressed.here.read()
        return len(addressed.heard_here) == 2

    eventually(read)
    assert [destination for *_, destination in addressed.heard_here] == [MAR1, HERE4]


def test_an_address_that_comes_later_is_heard(addressed: Addressed) -> None:
    late = IPv6Address("2001:db8::13")
    addressed.mar1.address("eth0", f"{late}/64")
    with addressed.mar1.inside():
        addressed.here.add(late)
        addressed.here.add(late)
    assert addressed.arrives(late, MAR2)
    addressed.there.send(encode(BindingRefreshRequest(), MAR1, MAR2), late)
    run_until(addressed.loop, lambda: addressed.heard_here)
    assert addressed.heard_here[0][3] == late


def test_of_several_addresses_all_are_opened_or_none(peers: tuple[Host, Host]) -> None:
    with peers[0].inside():
        with pytest.raises(NoInterface):
            SignalingSockets([MAR1, MAR2], Transport.UDP)
        SignalingSockets([MAR1], Transport.UDP).close(None)


def test_a_family_we_have_no_address_of_is_told(peers: tuple[Host, Host]) -> None:
    with peers[0].inside():
        sockets = SignalingSockets([MAR1], Transport.UDP)
    assert sockets.send(b"x", THERE4) == "no address of ours has IPv4"
    sockets.close(None)


def test_sources_that_are_remembered_have_a_bound(
    peers: tuple[Host, Host], loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("router.control_sockets.MOST_SOURCES", 1)
    here, there = opened(peers[0], MAR1, Transport.UDP), opened(peers[1], MAR2, Transport.UDP)
    heard: Heard = []
    here.serve(loop, lambda *what: heard.append(what))
    with peers[0].inside():
        local = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    sources: list[str] = []
    for send in (lambda: there.send(b"one", MAR1), lambda: local.sendto(b"two", (str(MAR1), UDP_PORT))) * 2:
        heard.clear()
        send()
        run_until(loop, lambda: heard)
        sources += here._sources
    assert len(sources) == 4
    local.close()
    for end in (here, there):
        end.close(loop)
