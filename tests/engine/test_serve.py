"""Bursts through real descriptors: the TUN is one end of a socket pair, the underlay a socket on loopback.

The far end is ourselves: the port says its local address is HERE, tunnels lead to the loopback address, and what we
send to it comes back to us as if a peer had sent it.
"""

from __future__ import annotations

import os
import select
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address

import pytest

import engine
from engine import (
    UDP_PORT,
    AddressInUse,
    Drop,
    Encapsulation,
    Engine,
    FlowRule,
    NoRights,
    Path,
    Port,
    PortDown,
    PortError,
    PortKind,
    Side,
    Spread,
    Steer,
    Tunnel,
    open_gre,
    open_ip,
    open_udp,
)
from engine.offloads import NONE, Offloads
from tests.engine.descriptors import drained, serve_until, settle
from tests.engine.nodes import (
    ANCHORED,
    ANCHORED4,
    BACK,
    CORRESPONDENT,
    DOWN,
    HELD,
    HERE,
    HERE4,
    TUNNEL,
    UDP,
    UNDERLAYS,
    VISITING,
    VISITING4,
    datagram,
    gre_header,
    internet_checksum,
    name_of,
    packet,
    pseudo_header,
)

LOOPBACK, LOOPBACK4 = IPv6Address("::1"), IPv4Address("127.0.0.1")
MIRROR = Tunnel(local=HERE, remote=LOOPBACK, encapsulation=Encapsulation.UDP)
CE = 3
NEEDS_CSUM, GSO_UDP_L4 = 1, 5  # virtio_net_hdr
compiled_only = pytest.mark.skipif(not engine.compiled, reason="nothing is compiled")


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
        """What has reached the kernel when everything is served."""
        settle(self.engine)
        return drained(self.kernel)

    def wire(self) -> socket.socket:
        """The underlay's own socket."""
        return socket.socket(fileno=os.dup(self.udp.fd))

    def arrive(self, *octets: bytes, traffic_class: int = 0) -> None:
        """Let these come from the peer."""
        item = (socket.IPPROTO_IPV6, socket.IPV6_TCLASS, traffic_class.to_bytes(4, "little"))
        with self.wire() as peer:
            for each in octets:
                peer.sendmsg([each], [item], 0, ("::1", UDP_PORT))


@contextmanager
def served(engine: Engine, tun: socket.socket, mirror: Tunnel) -> Iterator[tuple[Port, list[Port]]]:
    """The ports of an engine whose only peer, at the other end of mirror, is itself."""
    opening = {Encapsulation.UDP: lambda local: [open_udp(local, offloads=NONE)], Encapsulation.IP: open_ip}
    try:
        opened = list(opening.get(mirror.encapsulation, lambda local: [open_gre(local)])(mirror.remote))
    except (AddressInUse, NoRights) as error:
        pytest.skip(str(error))
    ports = [replace(port, local=mirror.local) for port in opened]
    port = Port(fd=tun.fileno(), kind=PortKind.TUN, name="pair")
    for each in (port, *ports):
        engine.add_port(each)
    for prefix in (ANCHORED, ANCHORED4, VISITING, VISITING4):
        engine.tables.bind(prefix, mirror, side=Side.ANCHOR)
    yield port, ports
    for each in (port, *ports):
        engine.remove_port(each)
    for each in opened:
        each.close()


@pytest.fixture
def bench(any_engine: Engine, tun_pair: tuple[socket.socket, socket.socket]) -> Iterator[Bench]:
    ours, kernel = tun_pair
    with served(any_engine, ours, MIRROR) as (tun, [udp]):
        yield Bench(any_engine, tun, udp, kernel)


def through(*, version: int = 6, **more: object) -> bytes:
    """A packet that may enter the mirror, and come out of it."""
    ends = (VISITING[7], ANCHORED[5]) if version == 6 else (VISITING4[7], ANCHORED4[5])
    return packet(*ends, **more)


# --- all is well ---


def mirrors() -> list[Tunnel]:
    """Every underlay, its far end being ourselves: what leaves must have the key that is looked for."""
    made = []
    for tunnel in UNDERLAYS:
        remote = LOOPBACK if tunnel.local.version == 6 else LOOPBACK4
        made.append(replace(tunnel, remote=remote, key_out=tunnel.key_in))
    return made


@pytest.mark.parametrize("mirror", mirrors(), ids=name_of)
def test_packets_cross_every_underlay_and_come_out_as_they_were(
    any_engine: Engine, tun_pair: tuple[socket.socket, socket.socket], mirror: Tunnel
) -> None:
    ours, kernel = tun_pair
    packets = [
        through(version=version, payload=bytes([n]) * (n + 1), traffic_class=0xB8 | n % 4)
        for n in range(20)
        for version in (6, 4)
    ]
    with served(any_engine, ours, mirror):
        for each in packets:
            kernel.send(each)
        settle(any_engine)
    arrived = drained(kernel)
    assert [each for each in arrived if each[0] >> 4 == 6] == packets[::2]
    assert [each for each in arrived if each[0] >> 4 == 4] == packets[1::2]
    counters = any_engine.counters()
    assert sum(counters.drops.values()) == 0
    assert counters.packets_to_underlay == counters.packets_from_underlay == counters.packets_to_tun == len(packets)


def labelled() -> list[Tunnel]:
    """Those that can have a flow label for each packet: datagrams of many flows share a message."""
    return [each for each in mirrors() if each.local.version == 6 and each.encapsulation is not Encapsulation.UDP]


@pytest.mark.parametrize("mirror", labelled(), ids=name_of)
def test_raw_sockets_carry_the_flow_label_of_each_flow(
    any_engine: Engine, tun_pair: tuple[socket.socket, socket.socket], mirror: Tunnel
) -> None:
    ours, kernel = tun_pair
    try:
        wire = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x86DD))
    except PermissionError:
        pytest.skip("looking at the wire needs CAP_NET_RAW")
    with wire, served(any_engine, ours, mirror):
        wire.bind(("lo", 0x86DD))
        [[composed]] = any_engine.encapsulate([through()])
        kernel.send(through())
        settle(any_engine)
        assert wire.recv(2000)[:4] == composed[:4]


def test_the_traffic_class_travels_outside_and_is_read_there(bench: Bench) -> None:
    bench.kernel.send(through(traffic_class=0xBA))
    assert bench.engine.serve(bench.tun) == 1
    with bench.wire() as sock:
        octets, [(level, kind, value)], _, sender = sock.recvmsg(2000, 64)
    assert (octets, level, kind) == (through(traffic_class=0xBA), socket.IPPROTO_IPV6, socket.IPV6_TCLASS)
    assert value[0] == 0xBA
    assert sender[:2] == ("::1", UDP_PORT)


def test_congestion_met_on_the_underlay_reaches_the_inner_header(bench: Bench) -> None:
    for inner in (0, 2):
        bench.arrive(packet(ANCHORED[5], CORRESPONDENT, traffic_class=inner), traffic_class=CE)
    assert bench.delivered() == [packet(ANCHORED[5], CORRESPONDENT, traffic_class=CE)]
    assert bench.drops() == {Drop.ECN: 1}


def test_nothing_waiting_is_no_packets(bench: Bench) -> None:
    assert bench.engine.serve(bench.tun) == 0
    assert bench.engine.serve(bench.udp) == 0


def test_a_burst_of_the_tun_has_256_packets_at_most(bench: Bench) -> None:
    bench.engine.tables.hold(ANCHORED)  # nothing leaves, so that nothing comes back
    for _ in range(300):
        bench.kernel.send(DOWN)
    assert bench.engine.serve(bench.tun) == 256
    settle(bench.engine)
    assert bench.drops() == {Drop.NODE_AWAY: 300}


def test_a_turn_serves_every_port_that_has_something(bench: Bench) -> None:
    bench.arrive(BACK)
    bench.kernel.send(packet(CORRESPONDENT, HELD[5]))
    bench.engine.turn()
    assert bench.drops() == {Drop.NODE_AWAY: 1}
    assert drained(bench.kernel) == [BACK]


def test_an_engine_is_readable_while_it_has_something_to_do(bench: Bench) -> None:
    assert select.select([bench.engine], [], [], 0)[0] == []
    bench.kernel.send(DOWN)
    assert select.select([bench.engine], [], [], 0)[0] == [bench.engine]
    settle(bench.engine)
    bench.engine.remove_port(bench.tun)
    bench.kernel.send(DOWN)
    assert select.select([bench.engine], [], [], 0)[0] == []


# --- what peers and kernels do wrong ---


def test_another_source_port_is_not_the_peer(bench: Bench) -> None:
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as stranger:
        stranger.sendto(BACK, ("::1", UDP_PORT))
    assert bench.engine.serve(bench.udp) == 1
    serve_until(lambda: bench.drops() == {Drop.UNKNOWN_TUNNEL: 1}, bench.engine)
    assert bench.delivered() == []


def test_a_followed_peer_is_the_peer(bench: Bench) -> None:
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as peer:
        peer.bind(("::1", 0))
        peer.settimeout(10.0)
        moved = bench.engine.tables.follow(MIRROR, peer.getsockname()[1])
        peer.sendto(BACK, ("::1", UDP_PORT))
        assert bench.delivered() == [BACK]
        bench.kernel.send(DOWN)
        settle(bench.engine)
        assert peer.recv(2000) == DOWN
    assert [stats.packets_out for stats in bench.engine.tables.tunnels() if stats.tunnel == moved] == [1]


def test_an_empty_datagram_is_truncated_and_no_end_of_file(bench: Bench) -> None:
    bench.arrive(b"", BACK)
    assert bench.delivered() == [BACK]
    assert bench.drops() == {Drop.TRUNCATED: 1}


def test_a_broken_gre_header_dies_and_is_counted_with_all_its_octets(
    any_engine: Engine, tun_pair: tuple[socket.socket, socket.socket]
) -> None:
    ours, kernel = tun_pair
    mirror = Tunnel(local=HERE4, remote=LOOPBACK4, encapsulation=Encapsulation.GRE)
    with served(any_engine, ours, mirror) as (_, [port]):
        with socket.socket(fileno=os.dup(port.fd)) as peer:
            for octets in (b"\0\0\x86", b"\x40\0\x86\xdd" + BACK, gre_header(6) + BACK, gre_header(6, key=3) + BACK):
                peer.sendto(octets, ("127.0.0.1", 0))
        serve_until(lambda: any_engine.counters().drops[Drop.UNKNOWN_TUNNEL] == 1, any_engine)
    counters = any_engine.counters()
    assert drained(kernel) == [BACK]
    assert (counters.packets_from_underlay, counters.octets_from_underlay) == (4, 3 + 52 + 48 + 48)
    assert {reason: n for reason, n in counters.drops.items() if n} == {
        Drop.TRUNCATED: 1,
        Drop.BAD_HEADER: 1,
        Drop.UNKNOWN_TUNNEL: 1,
    }


def test_the_packets_around_one_that_cannot_be_sent_leave(bench: Bench) -> None:
    small = [packet(CORRESPONDENT, ANCHORED[5], payload=bytes([i])) for i in range(3)]
    large = packet(CORRESPONDENT, ANCHORED[5], payload=bytes(65535 - 40))  # no datagram holds it
    for each in (large, small[0], large, large, small[1], small[2], large):
        bench.kernel.send(each)
    assert bench.engine.serve(bench.tun) == 7
    counters = bench.engine.counters()
    assert counters.drops[Drop.TOO_BIG] == 4
    assert counters.packets_to_underlay == 3
    assert [s.packets_out for s in bench.engine.tables.tunnels() if s.tunnel == MIRROR] == [3]
    with bench.wire() as sock:
        assert [sock.recv(2000) for _ in range(3)] == small


def test_a_tunnel_without_a_socket_has_no_port(bench: Bench) -> None:
    bench.engine.tables.bind(ANCHORED, TUNNEL, side=Side.ANCHOR)
    bench.engine.remove_port(bench.udp)
    bench.kernel.send(DOWN)
    assert bench.engine.serve(bench.tun) == 1
    assert bench.drops() == {Drop.NO_PORT: 1}


@pytest.mark.parametrize("tunnel", UNDERLAYS, ids=name_of)
def test_a_socket_of_another_kind_is_no_port_for_a_tunnel(bench: Bench, tunnel: Tunnel) -> None:
    if (tunnel.encapsulation, tunnel.local) == (Encapsulation.UDP, HERE):
        tunnel = replace(tunnel, local=CORRESPONDENT)
    bench.engine.tables.bind(ANCHORED, tunnel, side=Side.ANCHOR)
    bench.kernel.send(DOWN)
    assert bench.engine.serve(bench.tun) == 1
    assert bench.drops() == {Drop.NO_PORT: 1}


def test_without_a_tun_nothing_is_delivered(bench: Bench) -> None:
    bench.engine.remove_port(bench.tun)
    bench.arrive(BACK)
    assert bench.engine.serve(bench.udp) == 1
    assert bench.drops() == {Drop.NO_PORT: 1}


def test_a_full_tun_drops_what_does_not_fit(bench: Bench) -> None:
    with socket.socket(fileno=os.dup(bench.tun.fd)) as ours:
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4608)
    bench.arrive(*[BACK] * 64)
    settle(bench.engine)
    delivered = len(drained(bench.kernel))
    assert 0 < delivered < 64
    assert bench.drops() == {Drop.TUN_FULL: 64 - delivered}
    assert bench.engine.counters().packets_to_tun == delivered


def test_a_tun_that_is_gone_loses_the_packets_and_then_says_so(bench: Bench) -> None:
    bench.kernel.close()
    bench.arrive(BACK)
    assert bench.engine.serve(bench.udp) == 1
    assert bench.drops() == {Drop.TUN_ERROR: 1}
    with pytest.raises(PortDown, match="tun pair"):
        bench.engine.serve(bench.tun)
    with pytest.raises(PortDown, match="tun pair"):
        bench.engine.turn()


def test_packets_read_before_the_end_are_not_lost(bench: Bench) -> None:
    bench.kernel.send(DOWN)
    bench.kernel.close()
    assert bench.engine.serve(bench.tun) == 1
    assert bench.engine.counters().packets_to_underlay == 1
    with pytest.raises(PortDown):
        bench.engine.serve(bench.tun)


@pytest.mark.parametrize("kind", PortKind)
def test_a_closed_descriptor_is_a_port_down(any_engine: Engine, kind: PortKind) -> None:
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
        port = Port(fd=sock.fileno(), kind=kind, local=HERE, inner=6 if kind is PortKind.IP else 0)
        any_engine.add_port(port)
    with pytest.raises(PortDown):
        any_engine.serve(port)
    any_engine.remove_port(port)


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


def test_a_sender_without_an_ip_address_is_unknown(any_engine: Engine, underlay_pair: tuple) -> None:
    _, _, near, far = underlay_pair
    far.send(BACK)
    assert any_engine.serve(Port(fd=near.fileno(), kind=PortKind.UDP, local=HERE)) == 1
    serve_until(lambda: any_engine.counters().drops[Drop.UNKNOWN_TUNNEL] == 1, any_engine)


def test_an_engine_has_a_bound_on_its_ports(any_engine: Engine) -> None:
    ports = [Port(fd=os.eventfd(0), kind=PortKind.TUN) for _ in range(65)]
    try:
        for port in ports[:64]:
            any_engine.add_port(port)
        with pytest.raises(PortError, match="64 ports at most"):
            any_engine.add_port(ports[64])
        any_engine.remove_port(ports[0])
        any_engine.add_port(ports[64])
    finally:
        for port in ports:
            any_engine.remove_port(port)
            os.close(port.fd)


# --- large packets of the kernel ---


def left_to_us(source: IPv6Address, destination: IPv6Address, payload: bytes) -> bytes:
    """A UDP packet from port 7 to port 9 of whose checksum only the pseudo-header is summed."""
    octets = datagram(source, destination, (7, 9), payload)
    total = internet_checksum(pseudo_header(source, destination, UDP, 8 + len(payload))) ^ 0xFFFF
    return octets[:46] + total.to_bytes(2, "big") + octets[48:]


@compiled_only
@pytest.mark.parametrize("compiled", ["compiled"], indirect=True)
@pytest.mark.parametrize("spread", [None, Spread.PER_PACKET, Spread.BICAST])
def test_every_segment_of_a_large_packet_has_a_number_of_its_own(
    any_engine: Engine, tun_pair: tuple[socket.socket, socket.socket], spread: Spread | None
) -> None:
    ours, kernel = tun_pair
    mirror = Tunnel(local=HERE, remote=LOOPBACK, encapsulation=Encapsulation.GRE, sequence=True)
    count, size = 150, 400  # more than one go of 64
    payload = b"".join(n.to_bytes(2, "big") * (size // 2) for n in range(count))
    whole = left_to_us(VISITING[7], ANCHORED[5], payload)
    virtio = struct.pack("=BBHHHH", NEEDS_CSUM, GSO_UDP_L4, 48, size, 40, 6)
    with served(any_engine, ours, mirror) as (tun, [gre]):
        for port in (tun, gre):
            any_engine.remove_port(port)
        any_engine.add_port(replace(tun, virtio=True, offloads=Offloads(udp_segment=False, udp_gro=False)))
        any_engine.add_port(replace(gre, receives=False))  # what comes in is for us to read
        tables = any_engine.tables
        if spread is not None:
            policy = tables.policy([FlowRule(None, Steer(spread=spread))])
            tables.bind(ANCHORED, tables.bundle([Path(mirror)]), side=Side.ANCHOR, policy=policy)
        numbers = []
        for _ in range(2):
            kernel.send(virtio + whole)
            assert any_engine.serve(tun) == 1
            with socket.socket(fileno=os.dup(gre.fd)) as wire:
                numbers += [wire.recv(2000) for _ in range(count)]
    parts = [payload[at : at + size] for at in range(0, len(payload), size)]
    expected = [datagram(VISITING[7], ANCHORED[5], (7, 9), part) for part in parts]
    assert [octets[8:] for octets in numbers] == expected * 2
    assert [int.from_bytes(octets[4:8], "big") for octets in numbers] == list(range(2 * count))
    counters = any_engine.counters()
    assert counters.packets_from_tun == counters.packets_to_underlay == 2 * count
    assert counters.octets_to_underlay == sum(map(len, expected)) * 2
    assert [stats.packets_out for stats in tables.tunnels() if stats.tunnel == mirror] == [2 * count]


@compiled_only
@pytest.mark.parametrize("compiled", ["compiled"], indirect=True)
def test_a_large_packet_is_too_big_if_its_segments_are(
    any_engine: Engine, tun_pair: tuple[socket.socket, socket.socket]
) -> None:
    ours, kernel = tun_pair
    any_engine.add_port(
        Port(fd=ours.fileno(), kind=PortKind.TUN, virtio=True, offloads=Offloads(udp_segment=False, udp_gro=False))
    )
    any_engine.tables.set_mtu(TUNNEL, 1400)
    for size, reason in ((1352, Drop.NO_PORT), (1353, Drop.TOO_BIG)):
        before = any_engine.counters().drops[reason]
        virtio = struct.pack("=BBHHHH", NEEDS_CSUM, GSO_UDP_L4, 48, size, 40, 6)
        kernel.send(virtio + left_to_us(CORRESPONDENT, ANCHORED[5], bytes(10 * size)))
        settle(any_engine)
        assert any_engine.counters().drops[reason] == before + 10, size
    [error] = drained(kernel)
    assert error[:10] == bytes(10)
    assert (error[10 + 40], error[10 + 44 : 10 + 48]) == (2, (1400).to_bytes(4, "big"))


@compiled_only
@pytest.mark.parametrize("compiled", ["compiled"], indirect=True)
def test_what_is_no_large_packet_in_truth_is_a_bad_offload(bench: Bench) -> None:
    bench.engine.remove_port(bench.tun)
    bench.engine.add_port(replace(bench.tun, virtio=True, offloads=Offloads(udp_segment=False, udp_gro=False)))
    for virtio in (
        struct.pack("=BBHHHH", NEEDS_CSUM, GSO_UDP_L4, 48, 0, 40, 6),
        struct.pack("=BBHHHH", NEEDS_CSUM, GSO_UDP_L4, 48, 100, 40, 60000),
        struct.pack("=BBHHHH", NEEDS_CSUM, 99, 48, 100, 40, 6),
        struct.pack("=BBHHHH", NEEDS_CSUM, 0, 0, 0, 65535, 6),
    ):
        bench.kernel.send(virtio + packet(CORRESPONDENT, ANCHORED[5], payload=bytes(500)))
        settle(bench.engine)
    assert bench.drops() == {Drop.BAD_OFFLOAD: 4}


@compiled_only
@pytest.mark.parametrize("compiled", ["compiled"], indirect=True)
def test_a_bad_offload_leaves_in_no_copy(bench: Bench) -> None:
    bench.engine.remove_port(bench.tun)
    bench.engine.add_port(replace(bench.tun, virtio=True, offloads=Offloads(udp_segment=False, udp_gro=False)))
    tables = bench.engine.tables
    bundle = tables.bundle([Path(MIRROR), Path(replace(MIRROR, port=4000), bid=2)])
    policy = tables.policy([FlowRule(None, Steer(spread=Spread.BICAST))])
    tables.bind(ANCHORED, bundle, side=Side.ANCHOR, policy=policy)
    bench.kernel.send(struct.pack("=BBHHHH", NEEDS_CSUM, 0, 0, 0, 65535, 6) + through())
    settle(bench.engine)
    assert bench.drops() == {Drop.BAD_OFFLOAD: 1}
    assert bench.engine.counters().packets_to_underlay == 0
