"""Bursts through real descriptors: the TUN is one end of a socket pair, the underlay a UDP socket on loopback.

Loopback has one IPv6 address, so the far end is ourselves: the port says its local address is HERE, tunnels lead
to ::1, and what we send to [::1]:5437 comes back to us as if a peer had sent it.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv6Address

import pytest

from engine import (
    UDP_PORT,
    AddressInUse,
    Drop,
    Encapsulation,
    Engine,
    NoRights,
    Port,
    PortDown,
    PortKind,
    Side,
    Tunnel,
    open_ip6,
    open_udp,
)
from tests.engine.nodes import ANCHORED, BACK, CORRESPONDENT, DOWN, HERE, TUNNEL, VISITING, packet

LOOPBACK = IPv6Address("::1")
MIRROR = Tunnel(local=HERE, remote=LOOPBACK, encapsulation=Encapsulation.UDP)
IPV6_DONTFRAG, IPV6_MTU = 62, 24  # linux/in6.h


@dataclass
class Bench:
    """An engine between a TUN whose far end is `kernel`, and a UDP socket that hears itself."""

    engine: Engine
    tun: Port
    udp: Port
    kernel: socket.socket

    def drops(self) -> dict[Drop, int]:
        return {reason: n for reason, n in self.engine.counters().drops.items() if n}

    def delivered(self) -> list[bytes]:
        octets = []
        while True:
            try:
                octets.append(self.kernel.recv(70000))
            except BlockingIOError:
                return octets


@pytest.fixture
def tun_pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, kernel = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    kernel.setblocking(False)
    with ours, kernel:
        yield ours, kernel


@pytest.fixture
def bench(any_engine: Engine, tun_pair: tuple[socket.socket, socket.socket]) -> Iterator[Bench]:
    ours, kernel = tun_pair
    try:
        opened = open_udp(LOOPBACK)
    except AddressInUse:
        pytest.skip(f"someone else has [::1]:{UDP_PORT}")
    tun = Port(fd=ours.fileno(), kind=PortKind.TUN, name="pair")
    udp = Port(fd=opened.fd, kind=PortKind.UDP, local=HERE)
    any_engine.add_port(tun)
    any_engine.add_port(udp)
    any_engine.tables.bind(ANCHORED, MIRROR, side=Side.ANCHOR)
    any_engine.tables.bind(VISITING, MIRROR, side=Side.ACCESS)
    yield Bench(any_engine, tun, udp, kernel)
    any_engine.remove_port(udp)
    any_engine.remove_port(tun)
    opened.close()


def through(ecn: int = 0, **more: bytes) -> bytes:
    """A packet that may enter the mirror (to a node away) and come out of it (to a visiting node's own prefix)."""
    return packet(VISITING[7], ANCHORED[5], traffic_class=0xB8 | ecn, **more)


def test_a_burst_goes_from_the_tun_to_the_underlay_and_back(bench: Bench) -> None:
    bench.engine.tables.bind(VISITING, MIRROR, side=Side.ANCHOR)  # its source then may come out of the mirror
    packets = [through(payload=bytes([i])) for i in range(5)]
    for each in packets:
        bench.kernel.send(each)
    assert bench.engine.serve(bench.tun) == 5
    assert bench.engine.serve(bench.udp) == 5
    assert bench.delivered() == packets
    assert bench.drops() == {}


def test_the_traffic_class_travels_outside_and_is_read_there(bench: Bench) -> None:
    bench.engine.tables.bind(VISITING, MIRROR, side=Side.ANCHOR)
    bench.kernel.send(through(ecn=2))
    bench.engine.serve(bench.tun)
    with socket.socket(fileno=os.dup(bench.udp.fd)) as sock:
        octets, [(level, kind, value)], _, sender = sock.recvmsg(2000, 64)
    assert (octets, level, kind, value[0]) == (through(ecn=2), socket.IPPROTO_IPV6, socket.IPV6_TCLASS, 0xBA)
    assert sender[:2] == ("::1", UDP_PORT)


def test_congestion_met_on_the_underlay_reaches_the_inner_header(bench: Bench) -> None:
    with socket.socket(fileno=os.dup(bench.udp.fd)) as peer:
        for inner in (0, 2):
            octets = packet(ANCHORED[5], CORRESPONDENT, traffic_class=inner)
            congested = (socket.IPPROTO_IPV6, socket.IPV6_TCLASS, (3).to_bytes(4, "little"))
            peer.sendmsg([octets], [congested], 0, ("::1", UDP_PORT))
    assert bench.engine.serve(bench.udp) == 2
    assert bench.delivered() == [packet(ANCHORED[5], CORRESPONDENT, traffic_class=3)]
    assert bench.drops() == {Drop.ECN: 1}


def test_nothing_waiting_is_no_packets(bench: Bench) -> None:
    assert bench.engine.serve(bench.tun) == 0
    assert bench.engine.serve(bench.udp) == 0


def test_one_call_takes_no_more_than_a_burst(bench: Bench) -> None:
    for _ in range(70):
        bench.kernel.send(DOWN)
    assert bench.engine.serve(bench.tun) == 64
    assert bench.engine.serve(bench.tun) == 6
    assert bench.engine.serve(bench.udp) == 64
    assert bench.engine.serve(bench.udp) == 6


def test_another_source_port_is_not_the_peer(bench: Bench) -> None:
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as stranger:
        stranger.sendto(BACK, ("::1", UDP_PORT))
    assert bench.engine.serve(bench.udp) == 1
    assert (bench.delivered(), bench.drops()) == ([], {Drop.UNKNOWN_TUNNEL: 1})


def test_an_empty_datagram_is_truncated_and_no_end_of_file(bench: Bench) -> None:
    with socket.socket(fileno=os.dup(bench.udp.fd)) as peer:
        peer.sendto(b"", ("::1", UDP_PORT))
    assert bench.engine.serve(bench.udp) == 1
    assert bench.drops() == {Drop.TRUNCATED: 1}


def test_the_packets_around_one_that_cannot_be_sent_leave(bench: Bench) -> None:
    with socket.socket(fileno=os.dup(bench.udp.fd)) as sock:
        sock.setsockopt(socket.IPPROTO_IPV6, IPV6_DONTFRAG, 1)
        sock.setsockopt(socket.IPPROTO_IPV6, IPV6_MTU, 1280)
    small = [packet(CORRESPONDENT, ANCHORED[5], payload=bytes([i])) for i in range(3)]
    large = packet(CORRESPONDENT, ANCHORED[5], payload=bytes(1400))
    for each in (large, small[0], large, large, small[1], small[2], large):
        bench.kernel.send(each)
    assert bench.engine.serve(bench.tun) == 7
    assert bench.drops() == {Drop.TOO_BIG: 4}
    assert bench.engine.counters().packets_to_underlay == 3
    assert [stats.packets_out for stats in bench.engine.tables.tunnels()] == [3]
    with socket.socket(fileno=os.dup(bench.udp.fd)) as sock:
        assert [sock.recv(2000) for _ in range(3)] == small


def test_a_tunnel_without_a_socket_has_no_port(bench: Bench) -> None:
    bench.engine.tables.bind(ANCHORED, TUNNEL, side=Side.ANCHOR)
    bench.engine.remove_port(bench.udp)
    bench.kernel.send(DOWN)
    assert bench.engine.serve(bench.tun) == 1
    assert bench.drops() == {Drop.NO_PORT: 1}


def test_without_a_tun_nothing_is_delivered(bench: Bench) -> None:
    bench.engine.remove_port(bench.tun)
    with socket.socket(fileno=os.dup(bench.udp.fd)) as peer:
        peer.sendto(BACK, ("::1", UDP_PORT))
    assert bench.engine.serve(bench.udp) == 1
    assert bench.drops() == {Drop.NO_PORT: 1}


def test_a_full_tun_drops_what_does_not_fit(bench: Bench) -> None:
    with socket.socket(fileno=os.dup(bench.tun.fd)) as ours:
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4608)
    with socket.socket(fileno=os.dup(bench.udp.fd)) as peer:
        for _ in range(64):
            peer.sendto(BACK, ("::1", UDP_PORT))
    assert bench.engine.serve(bench.udp) == 64
    delivered = len(bench.delivered())
    assert 0 < delivered < 64
    assert bench.drops() == {Drop.TUN_FULL: 64 - delivered}
    assert bench.engine.counters().packets_to_tun == delivered


def test_a_tun_that_is_gone_loses_the_packets_and_then_says_so(bench: Bench) -> None:
    bench.kernel.close()
    with socket.socket(fileno=os.dup(bench.udp.fd)) as peer:
        peer.sendto(BACK, ("::1", UDP_PORT))
    assert bench.engine.serve(bench.udp) == 1
    assert bench.drops() == {Drop.TUN_ERROR: 1}
    with pytest.raises(PortDown, match="tun pair"):
        bench.engine.serve(bench.tun)


def test_packets_read_before_the_end_are_not_lost(bench: Bench) -> None:
    bench.kernel.send(DOWN)
    bench.kernel.close()
    assert bench.engine.serve(bench.tun) == 1
    assert bench.engine.counters().packets_to_underlay == 1
    with pytest.raises(PortDown):
        bench.engine.serve(bench.tun)


@pytest.mark.parametrize("kind", [PortKind.TUN, PortKind.UDP, PortKind.IP6])
def test_a_closed_descriptor_is_a_port_down(any_engine: Engine, kind: PortKind) -> None:
    reader, writer = os.pipe()
    os.close(writer)
    os.close(reader)
    port = Port(fd=reader, kind=kind, local=HERE)
    any_engine.add_port(port)
    with pytest.raises(PortDown):
        any_engine.serve(port)


def test_a_port_never_added_is_a_port_down(any_engine: Engine) -> None:
    with pytest.raises(PortDown):
        any_engine.serve(Port(fd=0, kind=PortKind.TUN))


@pytest.fixture
def underlay_pair(
    any_engine: Engine, tun_pair: tuple[socket.socket, socket.socket]
) -> Iterator[tuple[Port, socket.socket, socket.socket, socket.socket]]:
    """An underlay that is a socket pair: it takes packets for any address, and it can be full."""
    ours, kernel = tun_pair
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    tun = Port(fd=ours.fileno(), kind=PortKind.TUN)
    any_engine.add_port(tun)
    any_engine.add_port(Port(fd=near.fileno(), kind=PortKind.UDP, local=HERE))
    far.setblocking(False)
    with near, far:
        yield tun, kernel, near, far


def test_a_full_underlay_drops_what_does_not_fit(any_engine: Engine, underlay_pair: tuple) -> None:
    tun, kernel, near, _ = underlay_pair
    near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4608)
    for _ in range(64):
        kernel.send(DOWN)
    assert any_engine.serve(tun) == 64
    counters = any_engine.counters()
    assert 0 < counters.packets_to_underlay < 64
    assert counters.drops[Drop.UNDERLAY_FULL] == 64 - counters.packets_to_underlay


def test_an_underlay_that_fails_is_an_underlay_error(any_engine: Engine, underlay_pair: tuple) -> None:
    tun, kernel, _, far = underlay_pair
    far.close()
    kernel.send(DOWN)
    kernel.send(DOWN)
    assert any_engine.serve(tun) == 2
    assert any_engine.counters().drops[Drop.UNDERLAY_ERROR] == 2


def test_a_sender_without_an_ipv6_address_is_unknown(any_engine: Engine, underlay_pair: tuple) -> None:
    _, _, near, far = underlay_pair
    far.send(BACK)
    assert any_engine.serve(Port(fd=near.fileno(), kind=PortKind.UDP, local=HERE)) == 1
    assert any_engine.counters().drops[Drop.UNKNOWN_TUNNEL] == 1


def test_ipv6_in_ipv6_goes_out_and_in_by_a_raw_socket(
    any_engine: Engine, tun_pair: tuple[socket.socket, socket.socket]
) -> None:
    try:
        raw = open_ip6(LOOPBACK)
    except NoRights:
        pytest.skip("raw sockets need CAP_NET_RAW")
    ours, kernel = tun_pair
    tun = Port(fd=ours.fileno(), kind=PortKind.TUN)
    ip6 = Port(fd=raw.fd, kind=PortKind.IP6, local=HERE)
    mirror = Tunnel(local=HERE, remote=LOOPBACK, encapsulation=Encapsulation.IP6)
    any_engine.add_port(tun)
    any_engine.add_port(ip6)
    any_engine.tables.bind(ANCHORED, mirror, side=Side.ANCHOR)
    any_engine.tables.bind(VISITING, mirror, side=Side.ANCHOR)
    kernel.send(through(ecn=1))
    assert (any_engine.serve(tun), any_engine.serve(ip6)) == (1, 1)
    assert kernel.recv(2000) == through(ecn=1)
    raw.close()


def test_an_engine_has_a_bound_on_its_ports(any_engine: Engine) -> None:
    for fd in range(1000, 1064):
        any_engine.add_port(Port(fd=fd, kind=PortKind.TUN))
    with pytest.raises(Exception, match="64 ports at most"):
        any_engine.add_port(Port(fd=2000, kind=PortKind.TUN))
    any_engine.remove_port(Port(fd=1000, kind=PortKind.TUN))
    any_engine.add_port(Port(fd=2000, kind=PortKind.TUN))
