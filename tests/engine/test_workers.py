"""Workers serve in threads of their own while the tables change under them.

kernel 1 - TUN - worker 1 - 127.0.0.1:5437 == 127.0.0.2:5437 - worker 2 - TUN - kernel 2

Both workers read the same tables. What kernel 1 sends to LEFT comes out at kernel 2, and the other way for RIGHT.
"""

from __future__ import annotations

import os
import random
import select
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address, IPv6Network

import pytest

import engine
from engine import (
    AddressInUse,
    Counters,
    Drop,
    Encapsulation,
    Engine,
    FlowRule,
    Path,
    Port,
    PortDown,
    PortError,
    PortKind,
    Side,
    Spread,
    Steer,
    Tables,
    TrafficSelector,
    Tunnel,
    Workers,
    open_udp,
)
from engine.offloads import ALL, NONE
from engine.tunnels import TunnelState
from tests.engine.descriptors import PATIENCE
from tests.engine.nodes import ICMP6, UDP, datagram
from tests.eventually import eventually

compiled_only = pytest.mark.skipif(not engine.compiled, reason="nothing is compiled")
ONE, TWO = IPv4Address("127.0.0.1"), IPv4Address("127.0.0.2")
FORTH = Tunnel(local=ONE, remote=TWO, encapsulation=Encapsulation.UDP)
BACK = Tunnel(local=TWO, remote=ONE, encapsulation=Encapsulation.UDP)
LEFT, RIGHT = IPv6Network("2001:db8:1:1::/64"), IPv6Network("2001:db8:1:2::/64")
ASIDE = list(IPv6Network("2001:db8:2::/48").subnets(new_prefix=64))[:3000]
OTHERS = [
    Tunnel(local=ONE, remote=IPv4Address(f"127.0.1.{n}"), encapsulation=encapsulation)
    for n in range(8)
    for encapsulation in Encapsulation
]
BURST = 40


class Kernels:
    """The far ends of the TUNs."""

    def __init__(self, first: socket.socket, second: socket.socket) -> None:
        self.ends = (first, second)
        self.sent = [0, 0]
        self.heard: tuple[list[bytes], list[bytes]] = ([], [])

    def say(self, who: int, count: int) -> list[bytes]:
        """Packets of several flows from one to the other, numbered."""
        to, source = ((LEFT, RIGHT), (RIGHT, LEFT))[who]
        packets = []
        for _ in range(count):
            number = self.sent[who]
            self.sent[who] += 1
            payload = struct.pack("!I", number) + bytes(number % 900)
            packets.append(datagram(source[1], to[1], (4000 + number % 5, 80), payload))
            self.ends[who].send(packets[-1])
        return packets

    def listen(self, enough: Callable[[], bool]) -> None:
        """Hear until it is enough."""
        deadline = time.monotonic() + PATIENCE
        while not enough():
            assert time.monotonic() < deadline, "packets are lost"
            for sock in select.select(self.ends, [], [], 0.02)[0]:
                self.heard[self.ends.index(sock)].append(sock.recv(70000))


@pytest.fixture
def two_workers(compiled: bool, tables: Tables) -> Iterator[tuple[Workers, Kernels]]:
    tables.bind(LEFT, FORTH, side=Side.ANCHOR)
    tables.bind(RIGHT, BACK, side=Side.ANCHOR)
    with working(tables) as made:
        yield made


@contextmanager
def working(tables: Tables, *, down: list[PortDown] | None = None) -> Iterator[tuple[Workers, Kernels]]:
    pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(2)]
    for ours, kernel in pairs:
        for sock in (ours, kernel):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
        ours.setblocking(False)
    try:
        underlays = [open_udp(address, offloads=ALL if tables.compiled else NONE) for address in (ONE, TWO)]
    except AddressInUse as error:
        pytest.skip(str(error))
    tuns = [Port(fd=ours.fileno(), kind=PortKind.TUN, name=f"pair{n}") for n, (ours, _) in enumerate(pairs)]
    workers = Workers(
        tables, list(zip(tuns, underlays, strict=True)), on_down=(down if down is not None else []).append
    )
    workers.start()
    try:
        yield workers, Kernels(*(kernel for _, kernel in pairs))
    finally:
        workers.stop()
        for port in underlays:
            port.close()
        for pair in pairs:
            for sock in pair:
                sock.close()


def settled(workers: Workers, delivered: int) -> Counters:
    """Packets are counted a little after they are heard."""
    eventually(lambda: workers.counters().packets_to_tun >= delivered, PATIENCE)
    eventually(lambda: workers.counters().packets_to_underlay >= delivered, PATIENCE)
    return workers.counters()


def test_each_worker_delivers_to_its_own_tun(two_workers: tuple[Workers, Kernels]) -> None:
    workers, kernels = two_workers
    forth, back = kernels.say(0, BURST), kernels.say(1, BURST)
    kernels.listen(lambda: len(kernels.heard[0]) == len(kernels.heard[1]) == BURST)
    assert kernels.heard == (back, forth)
    counters = settled(workers, 2 * BURST)
    assert counters.packets_from_tun == counters.packets_to_underlay == 2 * BURST
    assert counters.packets_from_underlay == counters.packets_to_tun == 2 * BURST
    assert [one.counters().packets_from_tun for one in workers.engines] == [BURST, BURST]


def test_tunnels_count_what_all_workers_carried(two_workers: tuple[Workers, Kernels], tables: Tables) -> None:
    workers, kernels = two_workers
    kernels.say(0, 3)
    kernels.say(1, 5)
    kernels.listen(lambda: len(kernels.heard[0]) + len(kernels.heard[1]) == 8)

    def counted() -> dict[Tunnel, tuple[int, int]]:
        return {stats.tunnel: (stats.packets_out, stats.packets_in) for stats in tables.tunnels()}

    eventually(lambda: counted() == {FORTH: (3, 5), BACK: (5, 3)}, PATIENCE)
    assert settled(workers, 8).packets_to_tun == 8


def test_a_worker_whose_port_is_gone_says_so_and_the_other_works_on(compiled: bool, tables: Tables) -> None:
    tables.bind(LEFT, FORTH, side=Side.ANCHOR)
    tables.bind(RIGHT, BACK, side=Side.ANCHOR)
    down: list[PortDown] = []
    with working(tables, down=down) as (workers, kernels):
        kernels.ends[0].shutdown(socket.SHUT_RDWR)
        eventually(lambda: down != [], PATIENCE)
        assert ["pair0" in str(error) for error in down] == [True]
        kernels.say(1, 1)
        eventually(lambda: workers.counters().packets_to_underlay == 1, PATIENCE)


def writer(tables: Tables, dice: random.Random, until: threading.Event, whole: Callable[[random.Random], None]) -> None:
    """Change all that can change, and what the packets need only as `whole` does."""
    aside = set(ASIDE[:10])
    for prefix in aside:
        tables.hold(prefix)
    spare = tables.bundle([Path(OTHERS[0])])
    rules = [FlowRule(TrafficSelector(family=6, protocol=(UDP, UDP)), Steer(bids=(1, 2, 3))) for _ in range(20)]
    policy = tables.policy(rules)
    while not until.is_set():
        for _ in range(50):
            prefix = dice.choice(ASIDE)
            if prefix in aside and dice.random() < 0.5:
                tables.unbind(prefix)
                aside.remove(prefix)
            else:
                to = dice.choice([spare, dice.choice(OTHERS)])
                tables.bind(prefix, to, side=dice.choice(list(Side)), policy=dice.choice([None, policy]))
                aside.add(prefix)
        tables.change(spare, [Path(tunnel, bid=n) for n, tunnel in enumerate(dice.sample(OTHERS, 3), 1)])
        tables.change(policy, dice.sample(rules, dice.randrange(1, 20)))
        for stats in tables.tunnels():
            if stats.tunnel in OTHERS:
                tables.set_state(stats.tunnel, dice.choice(list(TunnelState)))
        whole(dice)
        tables.bindings()
        tables.flow_rules()


@contextmanager
def hammered(tables: Tables, dice: random.Random, whole: Callable[[random.Random], None]) -> Iterator[None]:
    done = threading.Event()
    failed: list[BaseException] = []

    def work() -> None:
        try:
            writer(tables, dice, done, whole)
        except BaseException as error:
            failed.append(error)
            raise

    thread = threading.Thread(target=work)
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)  # else each system call of the test waits for the writer's turn to end
    thread.start()
    try:
        yield
    finally:
        sys.setswitchinterval(before)
        done.set()
        thread.join()
    assert failed == []


@compiled_only
@pytest.mark.parametrize("compiled", ["compiled"], indirect=True)
def test_nothing_is_lost_or_misdelivered_while_everything_else_changes(
    two_workers: tuple[Workers, Kernels], tables: Tables, dice: random.Random
) -> None:
    workers, kernels = two_workers
    lone = tables.bundle([Path(FORTH)])
    every = tables.policy([FlowRule(None, Steer())])
    copies = tables.policy([FlowRule(None, Steer(spread=Spread.BICAST))])

    def same_way(dice: random.Random) -> None:
        """Bound anew, and always to where it was."""
        to, policy = dice.choice([FORTH, lone]), dice.choice([None, every, copies])
        tables.bind(LEFT, to, side=Side.ANCHOR, policy=policy)
        tables.bind(RIGHT, BACK, side=Side.ANCHOR, policy=policy)
        tables.change(lone, [Path(FORTH, bid=dice.randrange(1, 200), weight=dice.randrange(1, 9))])

    with hammered(tables, dice, same_way):
        for _ in range(150):
            expected = kernels.say(1, BURST), kernels.say(0, BURST)
            kernels.listen(lambda: all(len(heard) == BURST for heard in kernels.heard))
            assert kernels.heard == expected
            for heard in kernels.heard:
                heard.clear()
    counters = settled(workers, 300 * BURST)
    assert counters.packets_from_tun == 300 * BURST
    assert sum(counters.drops.values()) == 0


@compiled_only
@pytest.mark.parametrize("compiled", ["compiled"], indirect=True)
def test_every_packet_arrives_or_has_its_reason_while_its_prefix_comes_and_goes(
    two_workers: tuple[Workers, Kernels], tables: Tables, dice: random.Random
) -> None:
    workers, kernels = two_workers
    strangers = [OTHERS[0], OTHERS[3]]

    def elsewhere(dice: random.Random) -> None:
        """Here, held, nowhere, at a stranger's."""
        tables.hold(LEFT)
        tables.unbind(LEFT)
        tables.bind(LEFT, dice.choice(strangers), side=Side.ANCHOR)
        tables.bind(LEFT, FORTH, side=Side.ANCHOR)

    def all_is_told() -> bool:
        c = workers.counters()
        [by_forth] = [stats.packets_out for stats in tables.tunnels() if stats.tunnel == FORTH]
        return (
            c.packets_from_tun == sum(kernels.sent)
            and c.packets_from_underlay == by_forth
            and c.packets_to_underlay + c.packets_to_tun + sum(c.drops.values())
            == c.packets_from_tun + c.packets_from_underlay
            and len(kernels.heard[1]) == c.packets_to_tun
        )

    tables.bind(IPv6Network("2001:db8:3::/64"), FORTH, side=Side.ANCHOR)  # the tunnel stays, and its counters
    said: list[bytes] = []
    with hammered(tables, dice, elsewhere):
        for _ in range(100):
            said += kernels.say(0, BURST)
            kernels.listen(all_is_told)
    assert len(kernels.heard[1]) > 0
    assert is_part_of(kernels.heard[1], said)
    assert {octets[6] for octets in kernels.heard[0]} <= {ICMP6}  # nobody listens at the strangers
    seen = {reason for reason, n in workers.counters().drops.items() if n}
    assert seen <= {Drop.NO_BINDING, Drop.NODE_AWAY, Drop.NOT_BOUND, Drop.NO_PATH}  # a stranger may be down


def is_part_of(heard: list[bytes], sent: list[bytes]) -> bool:
    """In order, some left out."""
    rest = iter(sent)
    return all(octets in rest for octets in heard)


# --- what makes no sense is refused ---


def test_workers_start_once_and_stop_as_often_as_one_likes() -> None:
    workers = Workers(Tables(), [[]])
    workers.start()
    with pytest.raises(RuntimeError, match="start once"):
        workers.start()
    workers.stop()
    workers.stop()
    with pytest.raises(RuntimeError, match="start once"):
        workers.start()


def test_a_port_that_cannot_be_served_takes_no_place() -> None:
    made = Engine(Tables())
    reader, writer = os.pipe()
    port = Port(fd=reader, kind=PortKind.TUN)
    made.add_port(port)
    with pytest.raises(PortError, match="already"):
        made.add_port(port)
    made.remove_port(port)
    os.close(reader)
    os.close(writer)
    for _ in range(65):
        with pytest.raises(PortError, match="open it again"):
            made.add_port(port)


def test_an_engine_does_not_run_without_a_way_to_stop_it() -> None:
    with pytest.raises(ValueError, match="no descriptor"):
        Engine(Tables()).run(-1)
