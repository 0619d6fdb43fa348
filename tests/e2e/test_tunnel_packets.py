"""What becomes of packets in a tunnel: their size, their ECN mark, their hop limit.

    cn --- core --+-- mar1        the node's prefix is mar1's; it is tunneled to mar2, where the node is
                  +-- mar2 --:-- mn
"""

import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from ipaddress import IPv6Address, IPv6Network

import pytest

from router.demo.capture import read_packets
from router.demo.lab import Host
from router.demo.topology import CN_ADDRESS, underlay_address
from router.links.netlink import Route
from tests.e2e.domain import ROUTER_ADDRESS, Domain, Node, finished, flowing
from tests.e2e.packets import Forger, udp
from tests.eventually import eventually

PORT = 7100
TUNNEL_PORT = 5437
LINK_MTU, TUNNEL_MTU = 1500, 1452
NARROW = 1400  # octets
HEADERS = 48  # octets of IPv6 and UDP
IPV6_MTU_DISCOVER, IPV6_MTU, PMTUDISC_DO = 23, 24, 2
NOT_ECT, ECT_1, ECT_0, CE = 0, 1, 2, 3
HOPS_OF_THE_CORE_AND_MAR1, HOPS_WITH_MAR2 = 2, 3


@pytest.fixture(scope="module")
def away(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Domain]:
    """A node of mar1 that is at mar2. It does not believe the MTU it is told, so that packets can be too big."""
    with Domain(tmp_path_factory.mktemp("away")) as away:
        away.mn.no_duplicate_detection().host.sysctl("net/ipv6/conf/radio0/accept_ra_mtu", 0)
        away.start().serve()
        away.mn.attach("mar1")
        away.mn.address(away["mar1"].pool)
        away.mn.attach("mar2")
        away.mn.address(away["mar2"].pool)
        eventually(lambda: ("to anchor", str(away["mar1"].address)) in away["mar2"].paths().values(), 5.0, "it is away")
        yield away


@pytest.fixture
def address(away: Domain) -> IPv6Address:
    return away.mn.address(away["mar1"].pool)


def udp_socket(host: Host, address: IPv6Address | None = None, port: int = 0) -> socket.socket:
    with host.inside():
        opened = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    for option in (socket.IPV6_RECVTCLASS, socket.IPV6_RECVHOPLIMIT):
        opened.setsockopt(socket.IPPROTO_IPV6, option, 1)
    opened.settimeout(3.0)
    opened.bind((str(address or "::"), port))
    return opened


def receive(opened: socket.socket) -> tuple[bytes, int, int]:
    """Payload, ECN field, hop limit."""
    octets, control, _, _ = opened.recvmsg(2048, 256)
    found = {kind: struct.unpack("=i", value[:4])[0] for _, kind, value in control}
    return octets, found[socket.IPV6_TCLASS] & 3, found[socket.IPV6_HOPLIMIT]


@contextmanager
def preferring(node: Node, address: IPv6Address) -> Iterator[None]:
    """New connections of a node begin at this address, whatever its kernel would choose."""
    about = {"destination": IPv6Network("::/0"), "gateway": ROUTER_ADDRESS, "oif": node.host.link("radio0").index}
    route = Route(**about, prefsrc=address, metric=1)
    node.host.netlink.add_route(route)
    try:
        yield
    finally:
        node.host.netlink.delete_route(route)


def is_told(opened: socket.socket, size: int) -> bool:
    """Send a datagram of so many octets with its headers; whether the kernel knows by now that it is too big."""
    with suppress(OSError):
        opened.send(bytes(size - HEADERS))
    return opened.getsockopt(socket.IPPROTO_IPV6, IPV6_MTU) < size


def test_the_advertisement_tells_the_mtu_of_the_tunnel(away: Domain) -> None:
    capture, file = away.capture("mar2", "acc0")
    away.world["mn"].link_down("radio0")
    away.world["mn"].link_up("radio0")
    away.mn.address(away["mar1"].pool)
    capture.stop()
    advertised = [packet.octets for packet in read_packets(file) if packet.outgoing and packet.octets[54:55] == b"\x86"]
    assert advertised
    for octets in advertised:
        assert b"\x05\x01\0\0" + TUNNEL_MTU.to_bytes(4, "big") in octets[70:]


@pytest.mark.parametrize("direction", ["down", "up"])
def test_a_transfer_whose_segments_are_too_big_at_first_goes_on(
    away: Domain, address: IPv6Address, direction: str
) -> None:
    """The node offers the segment size of its link, 48 octets more than the tunnel takes; nobody knows better yet."""
    program = "tcp-get" if direction == "down" else "tcp-put"
    with preferring(away.mn, address):
        transfer = away.program("mn", program, str(CN_ADDRESS), "--rate", "0", "--octets", "2000000")
        done = transfer.wait_for("done")
    assert (done["error"], done["corrupt"], done["octets"]) == ("", 0, 2_000_000)
    assert done["source"] == str(address)


@pytest.mark.parametrize("direction", ["down", "up"])
def test_a_packet_too_big_for_the_tunnel_is_answered(away: Domain, address: IPv6Address, direction: str) -> None:
    """Between addresses of their own, about which nothing has been learned yet."""
    far, near = CN_ADDRESS + 1, address + 1
    away.world["cn"].address("core0", f"{far}/64")
    away.mn.host.address("radio0", f"{near}/64")
    host, source, destination = (
        (away.world["cn"], far, near) if direction == "down" else (away.mn.host, near, far)
    )
    with udp_socket(host, source) as sender:
        sender.setsockopt(socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, PMTUDISC_DO)
        sender.connect((str(destination), PORT))
        assert sender.getsockopt(socket.IPPROTO_IPV6, IPV6_MTU) == LINK_MTU
        eventually(lambda: is_told(sender, LINK_MTU), 5.0, "the sender is told")
        assert sender.getsockopt(socket.IPPROTO_IPV6, IPV6_MTU) == TUNNEL_MTU


def test_a_packet_as_big_as_the_tunnel_takes_arrives_whole(away: Domain, address: IPv6Address) -> None:
    payload = bytes(range(256)) * 6
    with udp_socket(away.mn.host, port=PORT) as sink, udp_socket(away.world["cn"]) as sender:
        sender.sendto(payload[: TUNNEL_MTU - HEADERS], (str(address), PORT))
        assert receive(sink)[0] == payload[: TUNNEL_MTU - HEADERS]


@pytest.mark.parametrize("mark", [NOT_ECT, ECT_1, ECT_0, CE])
def test_the_mark_of_a_packet_goes_through_the_tunnel_and_its_hop_limit_counts_routers(
    away: Domain, address: IPv6Address, mark: int
) -> None:
    with udp_socket(away.mn.host, port=PORT) as sink, udp_socket(away.world["cn"]) as sender:
        sender.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, 0xB8 | mark)
        sender.sendto(b"marked", (str(address), PORT))
        assert receive(sink) == (b"marked", mark, 64 - HOPS_WITH_MAR2)


def test_the_way_back_through_the_tunnel_is_the_same(away: Domain, address: IPv6Address) -> None:
    with udp_socket(away.world["cn"], port=PORT) as sink, udp_socket(away.mn.host, address) as sender:
        sender.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, CE)
        sender.sendto(b"marked", (str(CN_ADDRESS), PORT))
        assert receive(sink) == (b"marked", CE, 64 - HOPS_WITH_MAR2)


def test_a_packet_whose_hops_end_in_the_tunnel_is_answered(away: Domain, address: IPv6Address) -> None:
    """It has one hop left for mar1 and none for mar2, whose kernel says so."""
    capture, file = away.capture("cn", "core0")
    with udp_socket(away.world["cn"]) as sender:
        sender.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, HOPS_OF_THE_CORE_AND_MAR1 + 1)
        sender.sendto(b"short of breath", (str(address), PORT))

        def answers() -> list[IPv6Address | None]:
            found = [packet for packet in read_packets(file) if packet.next_header == 58 and not packet.outgoing]
            return [packet.source for packet in found if packet.octets[54] == 3]

        eventually(answers, 3.0, "time exceeded")
    capture.stop()


def tunneled(inner: bytes, mark: int) -> bytes:
    source, destination = underlay_address(1), underlay_address(2)
    return udp(source, destination, inner, ports=(TUNNEL_PORT, TUNNEL_PORT), traffic_class=mark)


def test_congestion_on_the_way_of_the_tunnel_reaches_the_node(away: Domain, address: IPv6Address) -> None:
    """RFC 6040 4.2: an outer CE marks what can be marked, and drops what cannot."""
    dropped = away["mar2"].counter("engine.drop.ecn")
    with udp_socket(away.mn.host, port=PORT) as sink, Forger(away.world["core"]) as core:
        for inner_mark in (ECT_0, ECT_1, CE):
            inner = udp(CN_ADDRESS, address, b"marked", ports=(PORT, PORT), traffic_class=inner_mark)
            core.send(tunneled(inner, CE))
            assert receive(sink)[:2] == (b"marked", CE)
        core.send(tunneled(udp(CN_ADDRESS, address, b"lost", ports=(PORT, PORT)), CE))
        core.send(tunneled(udp(CN_ADDRESS, address, b"next", ports=(PORT, PORT)), NOT_ECT))
        assert receive(sink)[:2] == (b"next", NOT_ECT)
    assert away["mar2"].counter("engine.drop.ecn") == dropped + 1


def test_a_narrow_underlay_carries_full_packets_in_fragments(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Nothing smaller than 1280 octets may be told to a host, so the outer packet does not fit its link."""
    with Domain(tmp_path_factory.mktemp("narrow"), mtu=1280) as narrow:
        node, address, transfer = narrow.start().downloading()
        node.attach("mar2")
        node.address(narrow["mar2"].pool)
        flowing(transfer, 1_000_000)
        assert finished(transfer)["source"] == str(address)


@pytest.mark.parametrize("encapsulation", ["udp", "ip", "gre"])
def test_a_narrow_link_between_the_routers_is_found_out(
    tmp_path_factory: pytest.TempPathFactory, encapsulation: str
) -> None:
    """Neither router knows of it; the core tells them, and full packets go on in fragments."""
    settings = {"underlay": {"encapsulation": encapsulation}}
    with Domain(tmp_path_factory.mktemp("middle"), settings=settings) as middle:
        core = middle.world["core"]
        node, address, transfer = middle.start().downloading()
        node.attach("mar2")
        flowing(transfer)
        core.netlink.set_mtu(core.link("mar2").index, NARROW)
        flowing(transfer, 1_000_000)
        assert finished(transfer)["source"] == str(address)
        counters = middle["mar1"].counters()  # what was under way until the core was heard, in whatever haste
        assert counters.get("engine.drop.too_big", 0) < counters["engine.packets_to_underlay"] / 4
