"""The tap of an engine: copies of the packets of a tunnel while it is open, and nothing while it is not.

    kernel == TUN [engine] UDP socket ==> itself         what goes into the tunnel comes out of it again
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from ipaddress import IPv6Network

import pytest

import engine as packet_engine
from engine import (
    AddressInUse,
    Encapsulation,
    Engine,
    FlowRule,
    NotCompiled,
    Path,
    Port,
    PortKind,
    Side,
    Spread,
    Steer,
    Tables,
    UnknownTunnel,
    Workers,
    open_udp,
)
from engine.capture import INBOUND, OUTBOUND, Record
from engine.offloads import NONE
from tests.engine.descriptors import PATIENCE, drained, settle
from tests.engine.nodes import ANCHORED, OTHER, TUNNEL, VISITING, datagram, leaving, packet, unlabelled
from tests.engine.test_serve import LOOPBACK, MIRROR, Bench, served
from tests.eventually import eventually

compiled = pytest.mark.skipif(not packet_engine.compiled, reason="nothing is compiled")
RING = 4 << 20  # octets


@pytest.fixture
def bench(tun_pair: tuple[socket.socket, socket.socket]) -> Iterator[Bench]:
    """A compiled engine whose only peer is itself."""
    ours, kernel = tun_pair
    engine = Engine(Tables())
    with served(engine, ours, MIRROR) as (tun, [udp]):
        yield Bench(engine, tun, udp, kernel)


def through(payload: bytes = b"payload!", **more: int) -> bytes:
    """A packet that may enter the mirror, and come out of it."""
    return packet(VISITING[7], ANCHORED[5], payload=payload, **more)


def directed(records: list[Record], direction: int) -> list[bytes]:
    return [octets for _, way, _, octets in records if way == direction]


def test_the_model_has_no_tap() -> None:
    engine = Engine(Tables(compiled=False))
    with pytest.raises(NotCompiled, match="make build"):
        engine.open_tap(None)
    assert engine.read_tap() == []
    assert engine.close_tap() == 0


@compiled
def test_inner_packets_are_copied_as_they_go_in_and_as_they_come_out(bench: Bench) -> None:
    sent = [through(bytes([n]) * 8) for n in range(5)]
    bench.engine.open_tap(MIRROR)
    for each in sent:
        bench.kernel.send(each)
    delivered = bench.delivered()
    records = bench.engine.read_tap()
    assert [unlabelled(octets)[8:] for octets in directed(records, OUTBOUND)] == [octets[8:] for octets in sent]
    assert directed(records, INBOUND) == delivered
    assert len(records) == 10
    assert all(original == len(octets) for _, _, original, octets in records)
    assert bench.engine.close_tap() == 0


@compiled
def test_the_times_are_those_of_the_wall_clock(bench: Bench) -> None:
    bench.engine.open_tap(None)
    begin = time.time_ns()
    bench.kernel.send(through())
    bench.delivered()
    end = time.time_ns()
    slack = 50_000_000  # ns: the wall clock may be adjusted meanwhile
    times = [at for at, *_ in bench.engine.read_tap()]
    assert times
    assert all(begin - slack <= at <= end + slack for at in times)
    assert times == sorted(times)


@compiled
def test_outer_packets_are_copied_as_they_are_on_the_wire(bench: Bench) -> None:
    inner = datagram(VISITING[7], ANCHORED[5], (4000, 80), b"x" * 100, hop_limit=60)
    bench.engine.open_tap(MIRROR, outer=True)
    bench.kernel.send(inner)
    (delivered,) = bench.delivered()
    out, back = bench.engine.read_tap()
    assert (out[1], back[1]) == (OUTBOUND, INBOUND)
    entered = out[3][48:]
    assert len(entered) == len(inner)
    assert unlabelled(out[3]) == leaving(MIRROR, entered)
    assert back[3][48:] == delivered
    assert (back[3][8:24], back[3][24:40]) == (MIRROR.remote.packed, MIRROR.local.packed)


@compiled
def test_a_number_is_copied_as_it_leaves(tun_pair: tuple[socket.socket, socket.socket]) -> None:
    ours, kernel = tun_pair
    engine, numbered = Engine(Tables()), replace(MIRROR, encapsulation=Encapsulation.GRE, sequence=True)
    with served(engine, ours, numbered):
        engine.open_tap(numbered, outer=True)
        for number in range(3):  # each comes back, and leaves its number in the buffers
            for _ in range(number + 1):
                kernel.send(through())
            settle(engine)
        out = directed(engine.read_tap(), OUTBOUND)
    assert [int.from_bytes(octets[44:48], "big") for octets in out] == list(range(6))
    assert unlabelled(out[5]) == leaving(numbered, out[5][48:], sequence=5)


@compiled
def test_what_goes_by_flow_over_a_bundle_is_copied_without_a_number_as_it_leaves_and_arrives(
    tun_pair: tuple[socket.socket, socket.socket],
) -> None:
    ours, kernel = tun_pair
    engine, numbered = Engine(Tables()), replace(MIRROR, encapsulation=Encapsulation.GRE, sequence=True)
    with served(engine, ours, numbered):
        policy = engine.tables.policy([])
        engine.tables.bind(ANCHORED, engine.tables.bundle([Path(numbered)]), side=Side.ANCHOR, policy=policy)
        engine.open_tap(numbered, outer=True)
        for spread in (Spread.PER_PACKET, Spread.PER_FLOW, Spread.PER_PACKET):
            engine.tables.change(policy, [FlowRule(None, Steer(spread=spread))])
            kernel.send(through())
            settle(engine)
        records = engine.read_tap()
    entered = through(hop_limit=63)
    wire = [leaving(numbered, entered, sequence=0), leaving(replace(numbered, sequence=False), entered)]
    wire.append(leaving(numbered, entered, sequence=1))
    assert [unlabelled(octets) for octets in directed(records, OUTBOUND)] == wire
    assert [octets[40:] for octets in directed(records, INBOUND)] == [octets[40:] for octets in wire]


@compiled
def test_only_the_tunnel_that_is_wanted_is_copied(bench: Bench) -> None:
    bench.engine.tables.bind(IPv6Network("2001:db8:a1:105::/64"), OTHER, side=Side.ANCHOR)
    bench.engine.open_tap(OTHER)
    bench.kernel.send(through())
    bench.delivered()
    assert bench.engine.read_tap() == []
    bench.engine.close_tap()
    bench.engine.open_tap(MIRROR)
    bench.kernel.send(through())
    bench.delivered()
    assert len(bench.engine.read_tap()) == 2


@compiled
def test_what_dies_on_the_way_is_not_copied(bench: Bench) -> None:
    bench.engine.open_tap(None)
    bench.kernel.send(packet(VISITING[7], ANCHORED[5], hop_limit=0)[:-1])
    bench.delivered()
    assert bench.engine.read_tap() == []


@compiled
def test_no_more_than_the_snap_length_is_kept(bench: Bench) -> None:
    bench.engine.open_tap(None, snap=44)
    bench.kernel.send(through(b"y" * 500))
    bench.delivered()
    records = bench.engine.read_tap()
    assert [(original, len(octets)) for _, _, original, octets in records] == [(540, 44)] * 2
    assert all(octets.endswith(b"yyyy") for octets in directed(records, INBOUND))


@compiled
def test_a_tap_that_is_closed_copies_nothing(bench: Bench) -> None:
    for _ in range(2):
        bench.kernel.send(through())
        bench.delivered()
        assert bench.engine.read_tap() == []
        bench.engine.open_tap(None)
        assert bench.engine.close_tap() == 0


@compiled
def test_what_was_copied_can_still_be_read_after_the_end(bench: Bench) -> None:
    bench.engine.open_tap(None)
    bench.kernel.send(through())
    bench.delivered()
    bench.engine.close_tap()
    assert len(bench.engine.read_tap()) == 2
    assert bench.engine.read_tap() == []


@compiled
def test_a_tap_is_open_once(bench: Bench) -> None:
    bench.engine.open_tap(None)
    with pytest.raises(RuntimeError, match="open already"):
        bench.engine.open_tap(MIRROR)
    bench.engine.close_tap()
    bench.engine.open_tap(MIRROR)


@compiled
def test_a_tunnel_that_is_not_there_is_refused_and_the_tap_stays_closed(bench: Bench) -> None:
    with pytest.raises(UnknownTunnel, match="nothing is bound to it"):
        bench.engine.open_tap(TUNNEL)
    bench.engine.open_tap(MIRROR)


@compiled
def test_a_full_ring_loses_the_newest_and_each_capture_counts_its_own(bench: Bench) -> None:
    each = through(bytes(1200))
    for rounds in (2, 1):
        packets = rounds * RING // len(each)
        bench.engine.open_tap(MIRROR)
        for _ in range(packets):  # they pass twice: in, and out again
            bench.kernel.send(each)
            assert len(bench.delivered()) == 1
        lost = bench.engine.close_tap()
        kept = bench.engine.read_tap()
        assert lost > 0
        assert len(kept) + lost == 2 * packets
        assert RING * 0.9 < sum(len(octets) for *_, octets in kept) < RING
    bench.engine.open_tap(MIRROR)
    bench.kernel.send(each)
    bench.delivered()
    assert len(bench.engine.read_tap()) == 2
    assert bench.engine.close_tap() == 0


# Workers: the same, of all engines


@pytest.fixture
def workers() -> Iterator[tuple[Workers, list[socket.socket]]]:
    """Two threads that serve, each with a TUN and a socket of its own, and the far ends of the TUNs."""
    tables = Tables()
    tables.bind(ANCHORED, MIRROR, side=Side.ANCHOR)
    tables.bind(VISITING, MIRROR, side=Side.ANCHOR)
    with ExitStack() as stack:
        ports, kernels = [], []
        for _ in range(2):
            ours, kernel = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            for end in (ours, kernel):
                stack.enter_context(end).setblocking(False)
            try:
                udp = open_udp(LOOPBACK, offloads=NONE, reuse_port=True)
            except AddressInUse as error:
                pytest.skip(str(error))
            stack.callback(udp.close)
            tun = Port(fd=ours.fileno(), kind=PortKind.TUN, name="pair")
            ports.append((tun, replace(udp, local=MIRROR.local)))
            kernels.append(kernel)
        started = Workers(tables, ports)
        started.start()
        stack.callback(started.stop)
        yield started, kernels


@compiled
def test_the_packets_of_all_workers_are_read_together_by_time(workers: tuple[Workers, list[socket.socket]]) -> None:
    serving, kernels = workers
    serving.open_tap(MIRROR)
    for n in range(40):
        kernels[n % 2].send(through(bytes([n]) * 8))
    came: list[bytes] = []

    def all_came() -> bool:
        came.extend(octets for kernel in kernels for octets in drained(kernel))
        return len(came) == 40

    eventually(all_came, PATIENCE)
    serving.stop()  # what has been delivered was copied where it came in, and is where it left
    assert serving.close_tap() == 0
    records = serving.read_tap()
    assert len(directed(records, OUTBOUND)) == 40
    assert sorted(directed(records, INBOUND)) == sorted(came)
    assert [at for at, *_ in records] == sorted(at for at, *_ in records)


@compiled
def test_the_taps_of_all_workers_are_open_or_none(workers: tuple[Workers, list[socket.socket]]) -> None:
    serving, _ = workers
    with pytest.raises(UnknownTunnel):
        serving.open_tap(TUNNEL)
    second = serving.engines[1]
    second.open_tap(None)
    with pytest.raises(RuntimeError, match="open already"):
        serving.open_tap(MIRROR)
    second.close_tap()
    serving.open_tap(MIRROR)
    with pytest.raises(RuntimeError, match="open already"):
        serving.open_tap(None)
    assert serving.close_tap() == 0
