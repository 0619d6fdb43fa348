"""A packet may be found before the message that tells of its tunnel: it waits a moment for it."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from ipaddress import IPv6Network

import pytest

import engine
from engine import UDP_PORT, Drop, Engine, Side, Tunnel
from tests.engine.descriptors import drained, serve_until, settle
from tests.engine.nodes import ANCHORED, CORRESPONDENT, CORRESPONDENT4, HELD, HELD4, gre_header, packet
from tests.engine.test_path import CE, ECT_0
from tests.engine.test_queues import NUMBERED
from tests.engine.test_serve import LOOPBACK4, MIRROR, Bench, bench, served

__all__ = ["bench"]  # a fixture

pytestmark = pytest.mark.skipif(not engine.compiled, reason="the model keeps no packets")

MOST, ARENA = 64, 589888  # _fast/doubts.pxd, _fast/burst.pxd


@pytest.fixture
def compiled() -> bool:
    return True


class Peer:
    """A router at a port of its own, with one prefix, which nobody has told us of."""

    def __init__(self, number: int) -> None:
        self.sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        self.sock.bind(("::1", 0))
        self.tunnel = replace(MIRROR, port=self.sock.getsockname()[1])
        self.prefix = IPv6Network(f"2001:db8:a1:{0xD00 + number:x}::/64")

    def says(self, number: int, octets: int = 8) -> bytes:
        return packet(self.prefix[5], CORRESPONDENT, payload=number.to_bytes(octets, "big"))

    def send(self, *numbers: int) -> None:
        for number in numbers:
            self.sock.sendto(self.says(number), ("::1", UDP_PORT))


@pytest.fixture
def peers() -> Iterator[list[Peer]]:
    with ExitStack() as sockets:
        found = [Peer(number) for number in range(3)]
        for peer in found:
            sockets.enter_context(peer.sock)
        yield found


def bind(one: Engine, peer: Peer) -> None:
    one.tables.bind(peer.prefix, peer.tunnel, side=Side.ANCHOR)


def test_a_packet_ahead_of_the_message_about_its_tunnel_is_let_in_before_those_that_follow(
    bench: Bench, peers: list[Peer]
) -> None:
    peer = peers[0]
    peer.send(1, 2)
    assert bench.delivered() == []
    bind(bench.engine, peer)
    peer.send(3)
    assert bench.delivered() == [peer.says(n) for n in (1, 2, 3)]
    assert bench.drops() == {}
    counters = bench.engine.counters()
    assert (counters.packets_from_underlay, counters.packets_to_tun) == (3, 3)
    [stats] = [stats for stats in bench.engine.tables.tunnels() if stats.tunnel == peer.tunnel]
    assert (stats.packets_in, stats.octets_in) == (3, 3 * 48)


@pytest.mark.parametrize("version", [6, 4])
def test_so_is_one_ahead_of_the_message_about_its_prefix(bench: Bench, version: int) -> None:
    prefix, there = (HELD, CORRESPONDENT) if version == 6 else (HELD4, CORRESPONDENT4)
    said = [packet(prefix[5], there, payload=bytes([n])) for n in range(3)]
    bench.arrive(*said[:2])
    assert bench.delivered() == []
    bench.engine.tables.bind(prefix, MIRROR, side=Side.ANCHOR)
    bench.arrive(said[2])
    assert bench.delivered() == said
    assert bench.drops() == {}


def test_it_need_not_wait_for_another_packet(bench: Bench, peers: list[Peer]) -> None:
    peers[0].send(1)
    assert bench.delivered() == []
    bind(bench.engine, peers[0])
    came: list[bytes] = []
    serve_until(lambda: bool(came.extend(drained(bench.kernel)) or came), bench.engine)
    assert came == [peers[0].says(1)]


def test_it_dies_of_what_it_lacks_when_nobody_tells(bench: Bench, peers: list[Peer]) -> None:
    peers[0].send(1)
    bench.arrive(packet(HELD[5], CORRESPONDENT))
    wanted = {Drop.UNKNOWN_TUNNEL: 1, Drop.NOT_BOUND: 1}
    serve_until(lambda: bench.drops() == wanted, bench.engine)
    bind(bench.engine, peers[0])
    bench.arrive(packet(ANCHORED[5], CORRESPONDENT))
    assert bench.delivered() == [packet(ANCHORED[5], CORRESPONDENT)]
    assert bench.engine.counters().packets_from_underlay == 3


def test_each_goes_when_its_own_tunnel_is_known(bench: Bench, peers: list[Peer]) -> None:
    first, second, third = peers
    for number in range(4):
        for peer in peers:
            peer.send(number)
    assert bench.delivered() == []
    for peer in (second, first):
        bind(bench.engine, peer)
        peer.send(4)
        assert bench.delivered() == [peer.says(n) for n in range(5)]
    serve_until(lambda: bench.drops() == {Drop.UNKNOWN_TUNNEL: 4}, bench.engine)
    bind(bench.engine, third)
    assert bench.delivered() == []


def test_a_stranger_takes_no_more_than_its_room_and_nothing_from_others(bench: Bench, peers: list[Peer]) -> None:
    stranger = peers[0]
    for number in range(100):
        stranger.send(number)
        if number % 10 == 0:
            bench.arrive(packet(ANCHORED[5], CORRESPONDENT, payload=bytes([number])))
    bench.engine.turn()
    assert drained(bench.kernel) == [packet(ANCHORED[5], CORRESPONDENT, payload=bytes([n])) for n in range(0, 100, 10)]
    assert bench.drops()[Drop.UNKNOWN_TUNNEL] == 100 - MOST
    serve_until(lambda: bench.drops() == {Drop.UNKNOWN_TUNNEL: 100}, bench.engine)
    stranger.send(0)  # there is room again
    settle(bench.engine)
    bind(bench.engine, stranger)
    stranger.send(1)
    assert bench.delivered() == [stranger.says(0), stranger.says(1)]


def test_large_packets_wait_as_long_as_there_is_memory_for_them(bench: Bench, peers: list[Peer]) -> None:
    large, octets = peers[0], 60_000
    fitting = ARENA // (octets + 40)
    for number in range(fitting + 1):
        large.sock.sendto(large.says(number, octets), ("::1", UDP_PORT))
        bench.engine.turn()
    assert bench.drops() == {Drop.UNKNOWN_TUNNEL: 1}
    bind(bench.engine, large)
    assert bench.engine.tables.tunnels()
    large.send(fitting)
    assert bench.delivered() == [*(large.says(n, octets) for n in range(fitting)), large.says(fitting)]


def test_congestion_that_its_way_marked_is_not_forgotten(bench: Bench) -> None:
    bench.arrive(packet(HELD[5], CORRESPONDENT, traffic_class=ECT_0), traffic_class=CE)
    assert bench.delivered() == []
    bench.engine.tables.bind(HELD, MIRROR, side=Side.ANCHOR)
    bench.arrive(packet(HELD[6], CORRESPONDENT))
    assert bench.delivered() == [packet(HELD[5], CORRESPONDENT, traffic_class=CE), packet(HELD[6], CORRESPONDENT)]


def test_numbered_packets_find_their_places_among_the_others(
    any_engine: Engine, tun_pair: tuple[socket.socket, socket.socket]
) -> None:
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
        group = any_engine.tables.reorder([keyed], packets=64, seconds=1000.0)
        assert come(0, 3, 2) == []
        any_engine.tables.bind(HELD, keyed, side=Side.ANCHOR)
        assert come(1) == [0, 1, 2, 3]
        assert come(4) == [4]
        assert group.stats().early == 2
        assert {reason: n for reason, n in any_engine.counters().drops.items() if n} == {}
