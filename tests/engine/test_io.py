"""Packets cross real sockets and a real TUN as they are, in order, with as few messages as the kernel allows.

near  ::1, 127.0.0.1 ..      2001:db8:1::/64      middle      2001:db8:2::/64, MTU 1300      far
"""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

import pytest

from engine.offloads import ALL, NONE, Offloads
from engine.ports import AnyAddress, Port, PortKind, open_gre, open_ip, open_tun, open_udp
from engine.stats import Drop
from engine.tunnels import UDP_PORT
from router.demo.lab import Host, Lab, connect
from tests.eventually import eventually
from tests.namespaces import why_no_lab

io = pytest.importorskip("engine._fast.io", reason="the compiled path is not built")

HERE6, HERE4, THERE4 = IPv6Address("::1"), IPv4Address("127.0.0.1"), IPv4Address("127.0.0.2")
SEGMENT = 16  # in Port.flags
GSO_UDP_L4, NEEDS_CSUM = 5, 1  # virtio_net_hdr
UDP, UDP_SEGMENT, SO_NO_CHECK = 17, 103, 11
TOO_BIG, UNREACHABLE = 1, 2  # Trouble.kind
RTF_LOCAL = 0x80000000  # linux/ipv6_route.h


pytestmark = [pytest.mark.namespaces, pytest.mark.skipif(why_no_lab() is not None, reason=str(why_no_lab()))]


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab() as made:
        yield made


@pytest.fixture
def near(lab: Lab) -> Iterator[Host]:
    """A host with this thread on it."""
    host = lab.host("near")
    with host.inside():
        yield host


@pytest.fixture
def hand(near: Host) -> Iterator[Callable[[Port], io.Hand]]:
    """A port, worked by hand; closed at the end."""
    with ExitStack() as stack:

        def take(port: Port) -> io.Hand:
            stack.callback(port.close)
            return io.Hand(port.fd, port.kind.value, port.family, port.inner, port.flags, port.packed)

        yield take


def sockaddr(address: AnyAddress, port: int = 0) -> bytes:
    if address.version == 4:
        return struct.pack("=H", socket.AF_INET) + struct.pack(">H", port) + address.packed + bytes(8)
    return struct.pack("=H", socket.AF_INET6) + struct.pack(">HI", port, 0) + address.packed + bytes(4)


def mapped(address: AnyAddress) -> bytes:
    return bytes(10) + b"\xff\xff" + address.packed if address.version == 4 else address.packed


def inner6(length: int, number: int = 0) -> bytes:
    return (
        struct.pack(">IHBB", 6 << 28, length - 40, 59, 64) + bytes(28) + struct.pack(">I", number) + bytes(length - 40)
    )


def inner4(length: int, *, whole: bool = False) -> bytes:
    return struct.pack(">BBHHHBBHII", 0x45, 0, length, 7, 0x4000 * whole, 64, 253, 0, 1, 2) + bytes(length - 20)


def receive(hand: io.Hand, count: int) -> list[tuple[bytes, bytes, int, int]]:
    """The next count packets, in order of arrival."""
    rows: list[tuple[bytes, bytes, int, int]] = []
    while len(rows) < count:
        answer = hand.receive()
        assert answer != (0, []), f"{len(rows)} of {count} packets came"
        rows += [row for burst in answer[1] for row in burst]
    assert hand.receive() == (0, [])
    return rows


def send(hand: io.Hand, peer: bytes, packets: list[bytes], traffic_class: int = 0) -> tuple[list[int], int]:
    return io.send([(hand, peer, traffic_class, 0, b"", packet) for packet in packets])


# UDP


@pytest.mark.parametrize("local", [HERE6, HERE4])
def test_packets_of_one_size_leave_and_arrive_in_one_piece(hand: Callable[[Port], io.Hand], local: AnyAddress) -> None:
    one = hand(open_udp(local))
    packets = [inner6(64, number) for number in range(128)]
    results, messages = send(one, sockaddr(local, UDP_PORT), packets)
    assert (set(results), messages) == ({0}, 2)
    taken, bursts = one.receive()
    rows = [row for burst in bursts for row in burst]
    assert (taken, [row[0] for row in rows]) == (2, packets)
    assert {row[1:] for row in rows} == {(mapped(local), UDP_PORT, 0)}


@pytest.mark.parametrize("refused", ["udp_segment", "udp_gro"])
@pytest.mark.parametrize("local", [HERE6, HERE4])
def test_without_an_offload_the_same_packets_cross(
    hand: Callable[[Port], io.Hand], local: AnyAddress, refused: str
) -> None:
    one = hand(open_udp(local, offloads=Offloads(**{refused: False})))
    packets = [inner6(64 + number % 3, number) for number in range(100)]
    results, messages = send(one, sockaddr(local, UDP_PORT), packets)
    assert set(results) == {0}
    assert messages == 100 or refused == "udp_gro"
    assert [row[0] for row in receive(one, 100)] == packets


def test_a_burst_has_256_packets_at_most_and_none_is_lost_between_two(hand: Callable[[Port], io.Hand]) -> None:
    one = hand(open_udp(HERE6))
    packets = [inner6(60, number) for number in range(384)]
    send(one, sockaddr(HERE6, UDP_PORT), packets)
    taken, bursts = one.receive()
    assert (taken, [len(burst) for burst in bursts]) == (6, [256, 128])
    assert [row[0] for burst in bursts for row in burst] == packets


def test_more_packets_than_the_outbox_holds_leave_in_order(hand: Callable[[Port], io.Hand]) -> None:
    one = hand(open_udp(HERE6))
    packets = [inner6(60, number) for number in range(1100)]
    results, _ = send(one, sockaddr(HERE6, UDP_PORT), packets)
    assert set(results) == {0}
    assert [row[0] for row in receive(one, 1100)] == packets


def test_peers_taking_turns_get_one_message_each(hand: Callable[[Port], io.Hand]) -> None:
    one, other = hand(open_udp(HERE4)), hand(open_udp(THERE4))
    first, second = sockaddr(HERE4, UDP_PORT), sockaddr(THERE4, UDP_PORT)
    packets = [inner6(64, number) for number in range(60)]
    rows = [(one, (first, second)[number % 2], 0, 0, b"", packet) for number, packet in enumerate(packets)]
    assert io.send(rows) == ([0] * 60, 2)
    assert [row[0] for row in receive(one, 30)] == packets[::2]
    assert [row[0] for row in receive(other, 30)] == packets[1::2]


@pytest.mark.parametrize(
    ("sizes", "messages"),
    [([64, 64, 50], 1), ([64, 50, 64], 2), ([50, 64], 2), ([64, 50, 50], 2), ([1400] * 46, 1), ([1400] * 47, 2)],
)
def test_only_the_last_of_a_message_may_be_shorter(
    hand: Callable[[Port], io.Hand], sizes: list[int], messages: int
) -> None:
    one = hand(open_udp(HERE6))
    packets = [inner6(size, number) for number, size in enumerate(sizes)]
    assert send(one, sockaddr(HERE6, UDP_PORT), packets) == ([0] * len(sizes), messages)
    assert [row[0] for row in receive(one, len(sizes))] == packets


@pytest.mark.parametrize("local", [HERE6, HERE4])
def test_each_packet_keeps_its_traffic_class(hand: Callable[[Port], io.Hand], local: AnyAddress) -> None:
    one = hand(open_udp(local))
    peer = sockaddr(local, UDP_PORT)
    classes = [0, 0, 2, 2, 3, 0xB8, 0]
    rows = [(one, peer, number, 0, b"", inner6(64)) for number in classes]
    assert io.send(rows) == ([0] * 7, 5)
    assert [row[3] for row in receive(one, 7)] == classes


def test_segments_leave_as_one_message_and_arrive_whole(hand: Callable[[Port], io.Hand]) -> None:
    one = hand(open_udp(HERE6))
    segments = [(bytes([k]) * 60, bytes([k, 7]) * 600) for k in range(40)] + [(bytes(60), b"end")]
    assert one.send_segments(sockaddr(HERE6, UDP_PORT), segments) == (0, 1)
    assert [row[0] for row in receive(one, 41)] == [header + payload for header, payload in segments]


def test_a_kernel_that_refuses_large_messages_gets_small_ones_from_then_on(hand: Callable[[Port], io.Hand]) -> None:
    port = open_udp(HERE4)
    one = hand(port)
    with socket.socket(fileno=os.dup(port.fd)) as sock:
        sock.setsockopt(socket.SOL_SOCKET, SO_NO_CHECK, 1)  # no checksum, no segmentation
    packets = [inner6(64, number) for number in range(10)]
    assert send(one, sockaddr(HERE4, UDP_PORT), packets) == ([0] * 10, 1)
    assert not one.flags & SEGMENT
    assert send(one, sockaddr(HERE4, UDP_PORT), packets) == ([0] * 10, 10)
    assert [row[0] for row in receive(one, 20)] == packets * 2


def test_a_descriptor_that_is_closed_says_so(near: Host) -> None:
    port = open_udp(HERE6)
    one = io.Hand(port.fd, port.kind.value, port.family, port.inner, port.flags, port.packed)
    port.close()
    assert one.receive() == one.error() == one.read() == -errno.EBADF
    assert send(one, sockaddr(HERE6, UDP_PORT), [inner6(64)])[0] == [Drop.UNDERLAY_ERROR.value]


# Raw sockets


@pytest.mark.parametrize("local", [HERE6, HERE4])
@pytest.mark.parametrize("packet", [inner6(90), inner4(90)])
def test_inner_packets_of_each_version_have_a_port_of_their_own(
    hand: Callable[[Port], io.Hand], local: AnyAddress, packet: bytes
) -> None:
    six, four = (hand(port) for port in open_ip(local))
    right, wrong = (six, four) if packet[0] >> 4 == 6 else (four, six)
    assert send(right, sockaddr(local), [packet, packet[:64]], 0x2E) == ([0, 0], 2)
    assert receive(right, 2) == [(packet, mapped(local), 0, 0x2E), (packet[:64], mapped(local), 0, 0x2E)]
    assert wrong.receive() == (0, [])


@pytest.mark.parametrize("local", [HERE6, HERE4])
def test_a_gre_header_stands_before_its_packet(hand: Callable[[Port], io.Hand], local: AnyAddress) -> None:
    one = hand(open_gre(local))
    shim = bytes.fromhex("2000 86dd 0000 1234")
    assert io.send([(one, sockaddr(local), 0, 0, shim, inner6(64))]) == ([0], 1)
    assert [row[0] for row in receive(one, 1)] == [shim + inner6(64)]


@pytest.mark.parametrize("local", [HERE6, HERE4])
def test_each_segment_takes_the_next_sequence_number(hand: Callable[[Port], io.Hand], local: AnyAddress) -> None:
    one = hand(open_gre(local))
    front = bytes.fromhex("3000 86dd 0000 1234")
    segments = [(bytes([k]) * 60, bytes([k]) * 100) for k in range(3)]
    shim = front + b"\xff\xff\xff\xff"
    assert one.send_segments(sockaddr(local), segments, shim=shim, sequenced=True) == (0, 3)
    numbers = [b"\xff\xff\xff\xff", bytes(4), b"\0\0\0\1"]
    wanted = [front + number + bytes([k]) * 160 for k, number in enumerate(numbers)]
    assert [row[0] for row in receive(one, 3)] == wanted


def test_the_flow_label_of_a_raw_packet_is_as_asked(hand: Callable[[Port], io.Hand]) -> None:
    one, _ = (hand(port) for port in open_ip(HERE6))
    with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x86DD)) as wire:
        io.send([(one, sockaddr(HERE6), 3, 0xABCDE, b"", inner6(64))])
        assert wire.recv(100)[:4].hex() == "603abcde"


@pytest.mark.parametrize("local", [HERE6, HERE4])
def test_a_port_that_only_sends_takes_nothing(hand: Callable[[Port], io.Hand], local: AnyAddress) -> None:
    six, _ = (hand(port) for port in open_ip(local))
    mute, _ = (hand(port) for port in open_ip(local, receives=False))
    assert send(mute, sockaddr(local), [inner6(64)]) == ([0], 1)
    assert len(receive(six, 1)) == 1
    assert mute.receive() == (0, [])


def test_ports_in_one_burst_send_each_its_own(hand: Callable[[Port], io.Hand]) -> None:
    one, gre = hand(open_udp(HERE6)), hand(open_gre(HERE6))
    udp_peer, gre_peer = sockaddr(HERE6, UDP_PORT), sockaddr(HERE6)
    packets = [inner6(64, number) for number in range(10)]
    rows = [
        (gre, gre_peer, 0, 0, b"\0\0\x86\xdd", packet) if number % 2 else (one, udp_peer, 0, 0, b"", packet)
        for number, packet in enumerate(packets)
    ]
    assert io.send(rows) == ([0] * 10, 6)
    assert [row[0] for row in receive(one, 5)] == packets[::2]
    assert [row[0][4:] for row in receive(gre, 5)] == packets[1::2]


# Paths that are too small, and errors


def small_loopback(near: Host) -> None:
    near.netlink.set_mtu(near.link("lo").index, 1280)


@pytest.mark.parametrize("local", [HERE6, HERE4])
@pytest.mark.parametrize(
    ("packet", "result"),
    [
        (inner6(1280), 0),
        (inner6(1281), Drop.TOO_BIG.value),
        (inner4(1400), 0),
        (inner4(1400, whole=True), Drop.TOO_BIG.value),
    ],
    ids=["least IPv6", "IPv6", "IPv4", "IPv4 with DF"],
)
@pytest.mark.parametrize("kind", [PortKind.UDP, PortKind.IP, PortKind.GRE])
def test_a_path_that_is_too_small_carries_what_it_must_in_fragments(
    near: Host, hand: Callable[[Port], io.Hand], local: AnyAddress, packet: bytes, result: int, kind: PortKind
) -> None:
    small_loopback(near)
    if kind is PortKind.IP:
        one = [hand(port) for port in open_ip(local)][packet[0] >> 4 == 4]
    else:
        one = hand(open_udp(local) if kind is PortKind.UDP else open_gre(local))
    shim = b"\0\0\x86\xdd" if kind is PortKind.GRE else b""
    peer = sockaddr(local, UDP_PORT if kind is PortKind.UDP else 0)
    small = inner6(100) if kind is not PortKind.IP or packet[0] >> 4 == 6 else inner4(100)
    results, _ = io.send([(one, peer, 0, 0, shim, octets) for octets in (packet, packet, small)])
    assert results == [result, result, 0]
    rows = receive(one, 1 if result else 3)
    assert [row[0] for row in rows] == [shim + octets for octets in ([packet] * 2) * (not result) + [small]]
    assert io.know_path(peer) == 1280
    if result:
        said = one.error()
        assert (said[:2], said[4:7]) == ((TOO_BIG, True), (local.version, 1280, mapped(local)))
    while one.error():
        pass
    assert not one.troubled


def test_a_message_too_large_for_its_path_does_not_cost_the_offload(
    near: Host, hand: Callable[[Port], io.Hand]
) -> None:
    small_loopback(near)
    one = hand(open_udp(HERE6))
    peer = sockaddr(HERE6, UDP_PORT)
    packets = [inner6(1300)] * 3 + [inner6(1200)]
    assert send(one, peer, packets) == ([Drop.TOO_BIG.value] * 3 + [0], 1)
    assert one.flags & SEGMENT
    assert [row[0] for row in receive(one, 1)] == packets[3:]


@pytest.mark.parametrize(("dead", "alive"), [(THERE4, HERE4), (HERE6, HERE6)])
def test_a_peer_that_is_gone_is_told_and_costs_others_no_packet(
    hand: Callable[[Port], io.Hand], dead: AnyAddress, alive: AnyAddress
) -> None:
    one = hand(open_udp(alive))
    gone, well = sockaddr(dead, 7), sockaddr(alive, UDP_PORT)
    for _ in range(3):
        assert io.send([(one, gone, 0, 0, b"", inner6(80)), (one, well, 0, 0, b"", inner6(64))]) == ([0, 0], 2)
    assert [row[0] for row in receive(one, 3)] == [inner6(64)] * 3
    assert one.troubled
    kind, own, *_, peer, port, offender, quoted = one.error()
    assert (kind, own, peer, port, offender) == (UNREACHABLE, False, mapped(dead), 7, mapped(dead))
    assert inner6(80).startswith(quoted)
    assert len(quoted) >= 20
    while one.error():
        pass
    assert not one.troubled


def test_a_full_socket_is_no_error(near: Host, lab: Lab, hand: Callable[[Port], io.Hand]) -> None:
    connect(near, "eth0", lab.host("far"), "eth0")
    near.address("eth0", "2001:db8:1::1/64")
    port = open_udp(IPv6Address("2001:db8:1::1"))
    one = hand(port)
    with socket.socket(fileno=os.dup(port.fd)) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4608)
    nobody = sockaddr(IPv6Address("2001:db8:1::dead"), UDP_PORT)  # packets wait for the neighbour to answer
    results, _ = send(one, nobody, [inner6(1000 + number) for number in range(30)])
    assert results[0] == 0
    assert results[-1] == Drop.UNDERLAY_FULL.value
    assert set(results) == {0, Drop.UNDERLAY_FULL.value}


@pytest.mark.parametrize("kind", [PortKind.UDP, PortKind.IP, PortKind.GRE])
def test_a_router_on_the_path_tells_what_it_can_carry(
    near: Host, lab: Lab, hand: Callable[[Port], io.Hand], kind: PortKind
) -> None:
    middle, far = lab.host("middle"), lab.host("far")
    connect(near, "eth0", middle, "near")
    connect(middle, "far", far, "eth0", mtu=1300)
    middle.sysctl("net/ipv6/conf/all/forwarding", 1)
    for host, name, address in (
        (near, "eth0", "2001:db8:1::1/64"),
        (middle, "near", "2001:db8:1::2/64"),
        (middle, "far", "2001:db8:2::1/64"),
        (far, "eth0", "2001:db8:2::2/64"),
    ):
        host.address(name, address)
    near.route("2001:db8:2::/64", via="2001:db8:1::2")
    local, remote = IPv6Address("2001:db8:1::1"), IPv6Address("2001:db8:2::2")
    port = {PortKind.UDP: open_udp, PortKind.GRE: open_gre, PortKind.IP: lambda local: open_ip(local)[0]}[kind](local)
    one = hand(port)
    shim = b"\0\0\x86\xdd" if kind is PortKind.GRE else b""
    peer = sockaddr(remote, UDP_PORT if kind is PortKind.UDP else 0)
    packet = inner6(1400, 9)
    assert io.send([(one, peer, 0, 0, shim, packet)])[0] == [0]
    said = wait_for_error(one, port.fd)
    assert (said[0], said[1], said[5], said[6]) == (TOO_BIG, False, 1300, remote.packed)
    assert said[8] == IPv6Address("2001:db8:1::2").packed
    assert (shim + packet).startswith(said[9])
    assert len(said[9]) > 1000
    assert io.send([(one, peer, 0, 0, shim, packet)])[0] == [Drop.TOO_BIG.value]
    assert io.know_path(peer) == 1300


def wait_for_error(hand: io.Hand, fd: int) -> tuple[int, bool, int, int, int, int, bytes, int, bytes, bytes]:
    poll = select.poll()
    poll.register(fd, 0)  # errors are always told
    assert poll.poll(5000), "no error came"
    said = hand.error()
    assert isinstance(said, tuple)
    return said


# TUN


def tun_of(near: Host, offloads: Offloads = ALL) -> Port:
    port = open_tun("tun0", mtu=1400, offloads=offloads)
    near.link_up("tun0")
    near.netlink.set_mtu(near.link("tun0").index, 1400)
    near.address("tun0", "2001:db8:7::1/64")
    eventually(lambda: usable(IPv6Address("2001:db8:7::1")), what="the address of the TUN is usable")
    return port


def usable(address: IPv6Address) -> bool:
    """The kernel takes packets to it: that comes a little after the address."""
    rows = [row.split() for row in Path("/proc/thread-self/net/ipv6_route").read_text().splitlines()]
    return any(row[0] == address.packed.hex() and int(row[8], 16) & RTF_LOCAL for row in rows)


def read_udp(hand: io.Hand, count: int) -> list[tuple[bytes, int, int, int | None, int]]:
    """The UDP packets to port 9; the kernel talks of other things too."""
    rows: list[tuple[bytes, int, int, int | None, int]] = []
    for _ in range(1000):
        rows += [row for row in hand.read() if row[0][6] == UDP and row[0][42:44] == b"\0\x09"]
        if len(rows) >= count:
            break
    return rows


def send_from_kernel(sizes: list[int], segment: int = 0) -> bytes:
    """One datagram of each size toward the TUN, or one cut into segments; the payload."""
    payload = os.urandom(max(sizes))
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
        if segment:
            sock.setsockopt(UDP, UDP_SEGMENT, segment)
        for size in sizes:
            sock.sendto(payload[:size], ("2001:db8:7::9", 9))
    return payload


def test_a_large_packet_comes_from_the_tun_as_one(near: Host, hand: Callable[[Port], io.Hand]) -> None:
    port = tun_of(near)
    if not port.offloads.uso:
        pytest.skip("this kernel has no USO")
    one = hand(port)
    payload = send_from_kernel([20 * 1000 + 5], segment=1000)
    [(packet, gso, segment, start, offset)] = read_udp(one, 1)
    assert (gso, segment, start, offset) == (GSO_UDP_L4, 1000, 40, 6)
    assert packet[48:] == payload


def test_without_uso_the_kernel_cuts_it(near: Host, hand: Callable[[Port], io.Hand]) -> None:
    one = hand(tun_of(near, Offloads(uso=False)))
    payload = send_from_kernel([3 * 1000 + 5], segment=1000)
    rows = read_udp(one, 4)
    assert b"".join(row[0][48:] for row in rows) == payload
    assert {row[1] for row in rows} == {0}


@pytest.mark.parametrize("offloads", [ALL, NONE])
def test_packets_from_the_tun_are_as_the_kernel_made_them(
    near: Host, hand: Callable[[Port], io.Hand], offloads: Offloads
) -> None:
    one = hand(tun_of(near, offloads))
    sizes = [1, 7, 100, 1300] * 100
    payload = send_from_kernel(sizes)
    rows = read_udp(one, 400)
    assert [row[0][48:] for row in rows] == [payload[:size] for size in sizes]
    assert {row[3:] for row in rows} == ({(40, 6)} if offloads.checksum else {(None, 0)})


def udp_packet(payload: bytes, *, left_to_kernel: bool) -> bytes:
    """To port 9 of the TUN's address. The checksum is whole, or of the pseudo-header."""
    source, destination = (IPv6Address(f"2001:db8:7::{end}").packed for end in "91")
    length = 8 + len(payload)
    header = struct.pack(">HHHH", 4000, 9, length, 0)
    octets = source + destination + struct.pack(">II", length, UDP) + (b"" if left_to_kernel else header + payload)
    total = sum(struct.unpack(f">{(len(octets) + 1) // 2}H", octets + bytes(len(octets) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    header = header[:6] + struct.pack(">H", total if left_to_kernel else ~total & 0xFFFF)
    return struct.pack(">IHBB", 6 << 28, length, UDP, 64) + source + destination + header + payload


@pytest.mark.parametrize("offloads", [ALL, NONE])
def test_a_packet_written_to_the_tun_arrives(near: Host, hand: Callable[[Port], io.Hand], offloads: Offloads) -> None:
    port = tun_of(near, offloads)
    one = hand(port)
    packet = udp_packet(b"payload", left_to_kernel=False)
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
        sock.bind(("2001:db8:7::1", 9))
        sock.settimeout(5.0)
        assert one.write([bytes(10)] * port.virtio + [packet[:50], packet[50:]]) == 0
        assert sock.recv(100) == b"payload"


def test_a_large_packet_written_to_the_tun_arrives_in_its_parts(near: Host, hand: Callable[[Port], io.Hand]) -> None:
    port = tun_of(near)
    if not port.offloads.uso:
        pytest.skip("this kernel has no USO")
    one = hand(port)
    payload = os.urandom(10 * 1000 + 5)
    virtio = struct.pack("=BBHHHH", NEEDS_CSUM, GSO_UDP_L4, 48, 1000, 40, 6)
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
        sock.bind(("2001:db8:7::1", 9))
        sock.settimeout(5.0)
        assert one.write([virtio, udp_packet(payload, left_to_kernel=True)]) == 0
        assert [sock.recv(2000) for _ in range(11)] == [payload[at : at + 1000] for at in range(0, 10005, 1000)]


def test_nonsense_is_refused_by_the_tun(near: Host, hand: Callable[[Port], io.Hand]) -> None:
    assert hand(tun_of(near)).write([b"short"]) == Drop.TUN_ERROR.value


def test_reading_stops_while_a_largest_packet_still_fits(near: Host, hand: Callable[[Port], io.Hand]) -> None:
    one = hand(tun_of(near, Offloads(uso=False)))
    payload = send_from_kernel([1300] * 450)
    rows = read_udp(one, 450)
    assert [row[0][48:] for row in rows] == [payload] * len(rows)
    assert len(rows) == 450


def test_the_address_of_a_port_is_16_octets_for_either_version() -> None:
    port = Port(fd=-1, kind=PortKind.UDP, local=ip_address("192.0.2.1"))
    assert (port.family, port.packed.hex()) == (4, "00000000000000000000ffffc0000201")
