"""A packet may be found before the message that tells of its tunnel: it waits for that a moment."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from ipaddress import IPv6Network

import pytest

import engine
from engine import UDP_PORT, Drop, Engine, Side, Tables, Tunnel
from tests.engine.descriptors import drained, serve_until, settle
from tests.engine.nodes import ANCHORED, CORRESPONDENT, CORRESPONDENT4, HELD, HELD4, gre_header, packet
from tests.engine.test_path import CE, ECT_0
from tests.engine.test_queues import NUMBERED
from tests.engine.test_serve import LOOPBACK4, MIRROR, Bench, bench, served
from tests.engine.test_workers import BACK, BURST, FORTH, LEFT, RIGHT, working
from tests.eventually import eventually

__all__ = ["bench"]  # a fixture

pytestmark = pytest.mark.skipif(not engine.compiled, reason="the model keeps no packets")

MOST, ARENA = 64, 589888  # _fast/doubts.pxd, _fast/burst.pxd
FOREVER, SHORT = 1000.0, 0.01  # s


@pytest.fixture
def compiled() -> bool:
    return True


@pytest.fixture
def patient(bench: Bench) -> Bench:
    """Packets wait as long as a test takes."""
    bench.engine.tables.patience = FOREVER
    return bench


class Peer:
    """A router at a port of its own, with one prefix, which nobody has told us of."""

    def __init__(self, number: int) -> None:
        self.sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        self.sock.bind(("::1", 0))
        self.tunnel = replace(MIRROR, port=self.sock.getsockname()[1])
        self.prefix = IPv6Network(f"2001:db8:a1:{0xD00 + number:x}::/64")

    def says(self, number: int, octets: int = 8) -> bytes:
        return packet(self.prefix[5], CORRESPONDENT, payload=number.to_bytes(octets, "big"))

    def send(self, *numbers: int, octets: int = 8) -> None:
        for number in numbers:
            self.sock.sendto(self.says(number, octets), ("::1", UDP_PORT))


@pytest.fixture
def peers() -> Iterator[list[Peer]]:
    with ExitStack() as sockets:
        found = [Peer(number) for number in range(3)]
        for peer in found:
            sockets.enter_context(peer.sock)
        yield found


def bind(one: Engine, peer: Peer) -> None:
    one.tables.bind(peer.prefix, peer.tunnel, side=Side.ANCHOR)


def expire(bench: Bench, drops: dict[Drop, int]) -> None:
    """Packets that come from now on wait no more than a moment; those drops are counted some time."""
    bench.engine.tables.patience = SHORT
    serve_until(lambda: bench.drops() == drops, bench.engine)


def test_a_packet_ahead_of_the_message_about_its_tunnel_is_let_in_before_those_that_follow(
    patient: Bench, peers: list[Peer]
) -> None:
    peer = peers[0]
    peer.send(1, 2)
    assert patient.delivered() == []
    bind(patient.engine, peer)
    peer.send(3)
    assert patient.delivered() == [peer.says(n) for n in (1, 2, 3)]
    assert patient.drops() == {}
    counters = patient.engine.counters()
    assert (counters.packets_from_underlay, counters.packets_to_tun) == (3, 3)
    [stats] = [stats for stats in patient.engine.tables.tunnels() if stats.tunnel == peer.tunnel]
    assert (stats.packets_in, stats.octets_in) == (3, 3 * 48)


@pytest.mark.parametrize("version", [6, 4])
def test_so_is_one_ahead_of_the_message_about_its_prefix(patient: Bench, version: int) -> None:
    prefix, there = (HELD, CORRESPONDENT) if version == 6 else (HELD4, CORRESPONDENT4)
    said = [packet(prefix[5], there, payload=bytes([n])) for n in range(3)]
    patient.arrive(*said[:2])
    assert patient.delivered() == []
    patient.engine.tables.bind(prefix, MIRROR, side=Side.ANCHOR)
    patient.arrive(said[2])
    assert patient.delivered() == said
    assert patient.drops() == {}


def test_so_is_one_that_comes_before_the_tunnel_has_another_way(patient: Bench, peers: list[Peer]) -> None:
    before, after = peers[:2]
    bind(patient.engine, before)
    said = packet(before.prefix[5], CORRESPONDENT)
    after.sock.sendto(said, ("::1", UDP_PORT))
    assert patient.delivered() == []
    patient.engine.tables.follow(before.tunnel, after.tunnel.port)
    assert patient.delivered() == [said]


def test_it_waits_for_no_other_packet_once_it_is_bound(patient: Bench, peers: list[Peer]) -> None:
    for number, peer in enumerate(peers):
        peer.send(number)
        assert patient.delivered() == []
        bind(patient.engine, peer)
        if number:
            patient.engine.turn()  # as whoever binds does; else the engine is readable
            assert drained(patient.kernel) == [peer.says(number)]
        assert patient.delivered() == ([] if number else [peer.says(number)])


def test_it_dies_of_what_it_lacks_when_nobody_tells(bench: Bench, peers: list[Peer]) -> None:
    peers[0].send(1)
    bench.arrive(packet(HELD[5], CORRESPONDENT))
    expire(bench, {Drop.UNKNOWN_TUNNEL: 1, Drop.NOT_BOUND: 1})
    bind(bench.engine, peers[0])
    bench.arrive(packet(ANCHORED[5], CORRESPONDENT))
    assert bench.delivered() == [packet(ANCHORED[5], CORRESPONDENT)]
    assert bench.engine.counters().packets_from_underlay == 3


def test_nothing_waits_where_there_is_no_patience(bench: Bench, peers: list[Peer]) -> None:
    bench.engine.tables.patience = 0
    peers[0].send(1)
    bench.engine.turn()
    assert bench.drops() == {Drop.UNKNOWN_TUNNEL: 1}


def test_each_goes_when_its_own_tunnel_is_known(patient: Bench, peers: list[Peer]) -> None:
    first, second, third = peers
    for number in range(4):
        for peer in peers:
            peer.send(number)
    assert patient.delivered() == []
    for peer in (second, first):
        bind(patient.engine, peer)
        peer.send(4)
        assert patient.delivered() == [peer.says(n) for n in range(5)]
    assert patient.drops() == {}
    bind(patient.engine, third)
    assert patient.delivered() == [third.says(n) for n in range(4)]


def test_a_stranger_takes_no_more_than_its_room_and_nothing_from_others(patient: Bench, peers: list[Peer]) -> None:
    stranger = peers[0]
    ours = [packet(ANCHORED[5], CORRESPONDENT, payload=bytes([n])) for n in range(10)]
    for number in range(100):
        stranger.send(number)
        if number % 10 == 0:
            patient.arrive(ours[number // 10])
    assert patient.delivered() == ours
    assert patient.drops() == {Drop.UNKNOWN_TUNNEL: 100 - MOST}
    bind(patient.engine, stranger)
    stranger.send(100)
    assert patient.delivered() == [stranger.says(n) for n in (*range(MOST), 100)]


def test_large_packets_wait_as_long_as_there_is_memory_for_them(patient: Bench, peers: list[Peer]) -> None:
    large, octets = peers[0], 60_000
    fitting = ARENA // (octets + 40)
    for number in range(fitting + 1):
        large.send(number, octets=octets)
        settle(patient.engine)
    assert patient.drops() == {Drop.UNKNOWN_TUNNEL: 1}
    bind(patient.engine, large)
    large.send(fitting)
    assert patient.delivered() == [*(large.says(n, octets) for n in range(fitting)), large.says(fitting)]


def test_the_memory_of_those_that_have_gone_is_free_while_others_wait(patient: Bench, peers: list[Peer]) -> None:
    waits, goes, octets = *peers[:2], 60_000
    goes.send(0, octets=octets)
    waits.send(0)
    for number in range(30):  # three times the memory
        bind(patient.engine, goes)
        goes.send(number + 1)
        assert patient.delivered() == [goes.says(number, octets), goes.says(number + 1)]
        patient.engine.tables.unbind(goes.prefix)
        goes.send(number + 1, octets=octets)
        waits.send(number + 1)
        assert patient.delivered() == []
    assert patient.drops() == {}
    bind(patient.engine, waits)
    assert patient.delivered() == [waits.says(n) for n in range(31)]


def test_octets_behind_a_packet_that_waits_do_not_become_another(patient: Bench, peers: list[Peer]) -> None:
    peer, other = peers[:2]
    bad = packet(other.prefix[5], CORRESPONDENT, payload=b"forged  ")
    peer.sock.sendto(peer.says(0) + bad, ("::1", UDP_PORT))  # looked at once its tunnel is known: then it is cut
    peer.send(1)
    other.send(2)
    assert patient.delivered() == []
    for each in (peer, other):
        patient.engine.tables.bind(IPv6Network(f"2001:db8:a1:eee{each is peer:d}::/64"), each.tunnel, side=Side.ANCHOR)
    assert patient.delivered() == []
    bind(patient.engine, peer)
    bind(patient.engine, other)
    assert sorted(patient.delivered()) == sorted([peer.says(0), peer.says(1), other.says(2)])


def test_patience_that_ends_is_no_reason_to_wait_for_those_before(patient: Bench, peers: list[Peer]) -> None:
    peers[0].send(1)
    assert patient.delivered() == []
    patient.engine.tables.patience = SHORT
    peers[1].send(2)
    serve_until(lambda: patient.drops() == {Drop.UNKNOWN_TUNNEL: 1}, patient.engine)
    bind(patient.engine, peers[0])
    assert patient.delivered() == [peers[0].says(1)]


def test_congestion_that_its_way_marked_is_not_forgotten(patient: Bench) -> None:
    patient.arrive(packet(HELD[5], CORRESPONDENT, traffic_class=ECT_0), traffic_class=CE)
    assert patient.delivered() == []
    patient.engine.tables.bind(HELD, MIRROR, side=Side.ANCHOR)
    patient.arrive(packet(HELD[6], CORRESPONDENT))
    assert patient.delivered() == [packet(HELD[5], CORRESPONDENT, traffic_class=CE), packet(HELD[6], CORRESPONDENT)]


def test_numbered_packets_find_their_places_among_the_others(
    any_engine: Engine, tun_pair: tuple[socket.socket, socket.socket]
) -> None:
    any_engine.tables.patience = FOREVER
    ours, kernel = tun_pair
    keyed = Tunnel(**{name: getattr(NUMBERED, name) for name in ("local", "remote", "encapsulation")}, key_in=7)
    with served(any_engine, ours, NUMBERED) as (_, [port]), socket.socket(fileno=os.dup(port.fd)) as sock:

        def come(*numbers: int) -> list[int]:
            for number in numbers:
                inner = packet(HELD[5], CORRESPONDENT, payload=number.to_bytes(8, "big"))
                sock.sendto(gre_header(6, 7, number) + inner, (str(LOOPBACK4), 0))
            settle(any_engine)
            return [int.from_bytes(octets[40:], "big") for octets in drained(kernel)]

        any_engine.tables.bind(IPv6Network("2001:db8:a1:eee::/64"), keyed, side=Side.ANCHOR)
        group = any_engine.tables.reorder([keyed], packets=64, seconds=FOREVER)
        assert come(0, 3, 2) == []
        any_engine.tables.bind(HELD, keyed, side=Side.ANCHOR)
        assert come(1) == [0, 1, 2, 3]
        assert come(4) == [4]
        assert group.stats().early == 2
        assert {reason: n for reason, n in any_engine.counters().drops.items() if n} == {}


def test_those_that_wait_go_on_waiting_when_a_port_closes_and_are_counted_with_the_last(
    patient: Bench, peers: list[Peer]
) -> None:
    peers[0].send(1, 2)
    assert patient.delivered() == []
    patient.engine.remove_port(patient.udp)
    assert patient.drops() == {}
    patient.engine.remove_port(patient.tun)
    assert patient.drops() == {Drop.UNKNOWN_TUNNEL: 2}


# --- workers ---


@pytest.fixture
def far_end_unknown(tables: Tables) -> Tables:
    """What comes from LEFT's router is nobody's."""
    tables.patience = FOREVER
    tables.bind(LEFT, FORTH, side=Side.ANCHOR)
    return tables


def test_a_worker_is_woken_when_somebody_is_bound(far_end_unknown: Tables) -> None:
    with working(far_end_unknown) as (workers, kernels):
        said = kernels.say(0, BURST)
        eventually(lambda: workers.counters().packets_from_underlay == BURST)
        far_end_unknown.bind(RIGHT, BACK, side=Side.ANCHOR)
        kernels.listen(lambda: len(kernels.heard[1]) == BURST)
        assert kernels.heard[1] == said


def test_what_waits_when_workers_end_is_counted(far_end_unknown: Tables) -> None:
    with working(far_end_unknown) as (workers, kernels):
        kernels.say(0, BURST)
        eventually(lambda: workers.counters().packets_from_underlay == BURST)
        workers.stop()
        assert workers.counters().drops[Drop.UNKNOWN_TUNNEL] == BURST


def test_packets_keep_their_order_while_their_prefix_comes_and_goes(far_end_unknown: Tables) -> None:
    with working(far_end_unknown) as (_, kernels):
        for _ in range(200):
            kernels.say(0, 5)
            far_end_unknown.bind(RIGHT, BACK, side=Side.ANCHOR)
            kernels.say(0, 5)
            kernels.listen(lambda: len(kernels.heard[1]) == kernels.sent[0])
            far_end_unknown.unbind(RIGHT)
        numbers = [int.from_bytes(octets[48:52], "big") for octets in kernels.heard[1]]
        assert numbers == sorted(numbers)
