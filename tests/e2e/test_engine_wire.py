"""Two kernels speak through two engines: what one says, the other hears, octet for octet, whatever is underneath."""

from __future__ import annotations

import select
import socket
import struct
import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest

import engine
from engine import (
    Bundle,
    Drop,
    FlowRule,
    HoldBuffer,
    Offloads,
    Path,
    ReorderGroup,
    Spread,
    Steer,
    Tunnel,
    TunnelState,
)
from engine.offloads import ALL, NONE
from tests.e2e import engine_lab
from tests.e2e.engine_lab import (
    PATTERN,
    PREFIX6,
    UNDERLAYS,
    End,
    Pair,
    datagrams,
    nothing_more,
    numbered,
    together,
    transfer,
)
from tests.engine.nodes import with_checksum
from tests.eventually import eventually

pytestmark = pytest.mark.skipif(not engine.compiled, reason="the compiled path is not built")

MIB, GIB = 1 << 20, 1 << 30  # octets
UDP_SEGMENT, SOL_UDP = 103, 17  # linux/udp.h
TCPI_OPTIONS_AT, TCPI_OPT_ECN = 5, 8  # struct tcp_info, linux/tcp.h
NARROW = 1400  # octets, of a link behind a router
REFUSALS = {name: Offloads(**{name: False}) for name in Offloads.__slots__} | {"all": NONE}


@pytest.fixture
def pair() -> Iterator[Pair]:
    with engine_lab.pair() as made:
        yield made


@pytest.fixture
def wired(pair: Pair) -> Pair:
    """With one cable."""
    pair.cable()
    return pair


def unharmed(pair: Pair) -> None:
    """Nothing died on the way, but what found a socket of the underlay full: the sender's TCP sends that again."""
    for end in (pair.near, pair.far):
        assert set(end.drops()) <= {Drop.UNDERLAY_FULL}


# --- transfers ---


@pytest.mark.parametrize("version", [6, 4])
@pytest.mark.parametrize("underlay", UNDERLAYS)
def test_a_transfer_in_both_directions_is_exact_over_every_underlay(wired: Pair, underlay: str, version: int) -> None:
    wired.run(underlay)
    transfer(wired, 32 * MIB, back=32 * MIB, version=version)
    unharmed(wired)


def test_a_gibibyte_is_exact_with_every_offload_on(wired: Pair) -> None:
    wired.run("udp6")
    transfer(wired, GIB)
    unharmed(wired)
    assert wired.far.counters().octets_to_tun > GIB


@pytest.mark.parametrize("version", [6, 4])
@pytest.mark.parametrize("refused", REFUSALS)
def test_a_transfer_is_exact_without_an_offload(wired: Pair, refused: str, version: int) -> None:
    wired.run("udp6", offloads=REFUSALS[refused])
    transfer(wired, 8 * MIB, back=8 * MIB, version=version)
    unharmed(wired)


@pytest.mark.parametrize("underlay", ["udp6", "udp4", "gre6", "ip4"])
def test_transfers_are_exact_with_workers(wired: Pair, underlay: str) -> None:
    wired.run(underlay, workers=2)
    both = [lambda version=version: transfer(wired, 8 * MIB, back=8 * MIB, version=version) for version in (6, 4)]
    together(*both, *both)
    unharmed(wired)


@pytest.mark.parametrize("version", [6, 4])
def test_a_transfer_that_asks_for_congestion_marks_is_exact(wired: Pair, version: int) -> None:
    for end in (wired.near, wired.far):
        end.host.sysctl("net/ipv4/tcp_ecn", 1)
    wired.run("udp6")
    here, there = wired.connection(version)
    with here, there:
        together(lambda: engine_lab.pour(here, 8 * MIB), lambda: engine_lab.drink(there, 8 * MIB))
        assert here.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)[TCPI_OPTIONS_AT] & TCPI_OPT_ECN


# --- datagrams ---


def flows(pair: Pair, count: int, version: int = 6) -> tuple[list[socket.socket], socket.socket]:
    """Sockets at near, and the one at far to which they send."""
    return [pair.near.udp(version) for _ in range(count)], pair.far.udp(version)


@pytest.mark.parametrize("offloads", [ALL, NONE], ids=["offloads", "no offloads"])
@pytest.mark.parametrize("version", [6, 4])
@pytest.mark.parametrize("underlay", ["udp6", "udp4", "ip6", "gre4"])
def test_datagrams_of_every_size_arrive_once_and_in_order(
    wired: Pair, underlay: str, version: int, offloads: Offloads
) -> None:
    wired.run(underlay, offloads=offloads)
    [sender], receiver = flows(wired, 1, version)
    with sender, receiver:
        for first in range(1, 1301, 100):
            datagrams(sender, receiver, [PATTERN[size : 2 * size] for size in range(first, first + 100)])
        nothing_more(receiver)
    unharmed(wired)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("underlay", ["udp6", "gre6"])
def test_flows_that_are_mixed_keep_their_order_each(wired: Pair, underlay: str, workers: int) -> None:
    """Runs of one size and runs of many, so that there is something to merge, and something that forbids it."""
    wired.run(underlay, workers=workers)
    senders, receiver = flows(wired, 5)
    sizes = [200] * 20 + [7, 1300, 1300, 64, 64, 64, 900]
    sent: dict[int, list[bytes]] = {sender.getsockname()[1]: [] for sender in senders}
    came: dict[int, list[bytes]] = {port: [] for port in sent}
    for turn in range(10):
        for number, size in enumerate(sizes):
            for k, sender in enumerate(senders):
                payload = PATTERN[turn * 7919 + number * 31 + k :][:size]
                sender.sendto(payload, receiver.getsockname())
                sent[sender.getsockname()[1]].append(payload)
        for _ in range(len(sizes) * len(senders)):
            payload, source = receiver.recvfrom(2000)
            came[source[1]].append(payload)
    assert came == sent
    nothing_more(receiver)
    for each in (*senders, receiver):
        each.close()
    unharmed(wired)


@pytest.mark.parametrize("offloads", [ALL, Offloads(uso=False), NONE], ids=["offloads", "no USO", "no offloads"])
@pytest.mark.parametrize("version", [6, 4])
def test_datagrams_that_the_kernel_bundles_come_out_one_by_one(wired: Pair, version: int, offloads: Offloads) -> None:
    wired.run("udp6", offloads=offloads)
    [sender], receiver = flows(wired, 1, version)
    with sender, receiver:
        sender.setsockopt(SOL_UDP, UDP_SEGMENT, 1200)
        for last in (1200, 1, 600):
            payload = PATTERN[: 40 * 1200 + last]
            sender.sendto(payload, receiver.getsockname())
            assert [receiver.recv(2000) for _ in range(41)] == [
                payload[at : at + 1200] for at in range(0, len(payload), 1200)
            ]
        nothing_more(receiver)
    unharmed(wired)


@pytest.mark.parametrize("version", [6, 4])
@pytest.mark.parametrize("underlay", UNDERLAYS)
def test_a_datagram_in_fragments_is_put_together_at_the_far_end(wired: Pair, underlay: str, version: int) -> None:
    wired.run(underlay)
    [sender], receiver = flows(wired, 1, version)
    with sender, receiver:
        datagrams(sender, receiver, [PATTERN[:size] for size in (1500, 3000, 20_000, 60_000)] * 3)
        nothing_more(receiver)
    unharmed(wired)


@pytest.mark.parametrize("version", [6, 4])
@pytest.mark.parametrize("underlay", ["udp6", "ip4", "gre6"])
def test_the_far_kernel_answers_echo_requests_of_any_size(wired: Pair, underlay: str, version: int) -> None:
    wired.run(underlay)
    request, protocol, answer = (128, socket.IPPROTO_ICMPV6, 129) if version == 6 else (8, socket.IPPROTO_ICMP, 0)
    with wired.near.socket(version, socket.SOCK_RAW, protocol) as raw:
        for number, size in enumerate((0, 1, 56, 1300, 1352, 1353, 5000, 50_000)):
            echo = struct.pack("!BBHHH", request, 0, 0, 4242, number) + PATTERN[:size]
            raw.sendto(echo if version == 6 else with_checksum(echo, 2), (wired.far.address(version), 0))
            assert echoed(raw, version, answer, number) == PATTERN[:size]
    unharmed(wired)


def echoed(raw: socket.socket, version: int, answer: int, number: int) -> bytes:
    """What came with the answer of that number; a raw socket hears other things too."""
    while True:
        octets = raw.recv(65536)[0 if version == 6 else 20 :]
        if octets[0] == answer and octets[4:8] == struct.pack("!HH", 4242, number):
            return octets[8:]


@pytest.mark.parametrize("version", [6, 4])
@pytest.mark.parametrize("underlay", ["udp6", "ip6", "gre4"])
def test_marks_of_datagrams_stay(wired: Pair, underlay: str, version: int) -> None:
    """Every code point of DSCP with every one of ECN; runs of one mark may be merged, others must not."""
    wired.run(underlay)
    level, sent_as, heard_as, kind = (
        (socket.IPPROTO_IPV6, socket.IPV6_TCLASS, socket.IPV6_RECVTCLASS, socket.IPV6_TCLASS)
        if version == 6
        else (socket.IPPROTO_IP, socket.IP_TOS, 13, socket.IP_TOS)  # 13: IP_RECVTOS
    )
    marks = [mark for mark in range(0, 256, 5) for _ in range(3)]
    [sender], receiver = flows(wired, 1, version)
    with sender, receiver:
        receiver.setsockopt(level, heard_as, 1)
        for mark in marks:
            sender.setsockopt(level, sent_as, mark)
            sender.sendto(b"marked", receiver.getsockname())
        came = [receiver.recvmsg(100, 100)[1] for _ in marks]
    assert [next(value[0] for _, is_, value in each if is_ == kind) for each in came] == marks


# --- the MTU of the path ---


@pytest.mark.parametrize("version", [6, 4])
@pytest.mark.parametrize("underlay", UNDERLAYS)
def test_a_path_that_becomes_narrow_is_found_out_and_tcp_goes_on(pair: Pair, underlay: str, version: int) -> None:
    middle = pair.router()
    headers = UNDERLAYS[underlay].headers
    [tunnel] = pair.run(underlay, mtu=1500 - headers)
    here, there = pair.connection(version)
    with here, there:
        together(lambda: engine_lab.pour(here, MIB), lambda: engine_lab.drink(there, MIB))
        assert pair.near.tables.mtu(tunnel) is None
        middle.netlink.set_mtu(middle.link("far").index, NARROW)
        together(lambda: engine_lab.pour(here, 4 * MIB), lambda: engine_lab.drink(there, 4 * MIB))
    assert pair.near.tables.mtu(tunnel) == NARROW - headers
    assert pair.near.counters().errors > 0


def test_a_tunnel_too_narrow_for_ipv6_carries_what_it_must_in_fragments(pair: Pair) -> None:
    """Nobody may be told less than 1280 octets; what has that size needs two outer packets."""
    middle = pair.router()
    middle.netlink.set_mtu(middle.link("far").index, 1280)
    [tunnel] = pair.run("udp6")
    transfer(pair, MIB)
    assert pair.near.tables.mtu(tunnel) == 1280 - 48


# --- several paths ---


def everything(spread: Spread) -> list[FlowRule]:
    """One rule for all packets."""
    return [FlowRule(None, Steer(spread=spread))]


def striped(
    pair: Pair, spread: Spread, *, weights: tuple[int, ...] = (1, 1), seconds: float = 5.0
) -> tuple[list[Tunnel], list[Bundle], list[ReorderGroup]]:
    """Both ends spread all packets over all paths, over GRE with numbers, and put in order what arrives."""
    pair.run("gre6", bound=False)
    listed, bundles, groups = [], [], []
    for end in (pair.near, pair.far):
        tunnels = [pair.tunnel(end, "gre6", path, sequence=True) for path in range(1, pair.paths + 1)]
        paths = [Path(each, bid=bid, weight=weights[bid - 1]) for bid, each in enumerate(tunnels, 1)]
        bundle = end.tables.bundle(paths)
        pair.bind(end, bundle, end.tables.policy(everything(spread)))
        groups.append(end.tables.reorder(tunnels, packets=4096, seconds=seconds))
        listed.append(tunnels)
        bundles.append(bundle)
    return listed[0], bundles, groups


def packets_out(end: End, tunnel: Tunnel) -> int:
    return end.stats(tunnel).packets_out


class Flows:
    """Flows from near to far, each asked one by one which path it takes."""

    def __init__(self, pair: Pair, tunnels: list[Tunnel], count: int) -> None:
        self._pair, self._tunnels = pair, tunnels
        self.senders, self._receiver = flows(pair, count)

    def __enter__(self) -> Flows:
        return self

    def __exit__(self, *_: object) -> None:
        for each in (*self.senders, self._receiver):
            each.close()

    def paths(self) -> list[int]:
        """Path of each flow, from 0. A datagram that is lost, or changed, fails."""
        taken = []
        for number, sender in enumerate(self.senders):
            before = [packets_out(self._pair.near, tunnel) for tunnel in self._tunnels]
            datagrams(sender, self._receiver, numbered(number, 3))
            eventually(lambda before=before: sum(self._more(before)) == 3, what="it is counted")
            assert sorted(self._more(before)) == [0] * (len(before) - 1) + [3]
            taken.append(self._more(before).index(3))
        return taken

    def _more(self, before: list[int]) -> list[int]:
        return [packets_out(self._pair.near, tunnel) - n for tunnel, n in zip(self._tunnels, before, strict=True)]


def test_flows_stay_on_their_paths_and_only_those_of_a_dead_one_move(pair: Pair) -> None:
    for _ in range(2):
        pair.cable()
    tunnels = pair.run("udp6", bound=False)
    for end in (pair.near, pair.far):
        ours = [pair.tunnel(end, "udp6", path) for path in (1, 2)]
        pair.bind(end, end.tables.bundle([Path(ours[0], bid=1, weight=3), Path(ours[1], bid=2, weight=1)]))
    pair.near.tables.flow_pause = 0  # each packet goes where its flow would begin now
    with Flows(pair, tunnels, 200) as several:
        first = several.paths()
        assert 120 < first.count(0) < 180
        assert several.paths() == first
        pair.near.tables.set_state(tunnels[1], TunnelState.DOWN)
        pair.near.host.link_down("eth2")
        assert several.paths() == [0] * 200
        pair.near.host.link_up("eth2")
        pair.near.host.address("eth2", f"{tunnels[1].local}/48")  # the kernel forgets it with the link
        pair.acquaint(2)
        pair.near.tables.set_state(tunnels[1], TunnelState.UP)
        assert several.paths() == first
    assert Drop.NO_PATH not in pair.near.drops()
    unharmed(pair)


def test_a_connection_goes_on_when_its_path_is_taken_away(pair: Pair) -> None:
    for _ in range(2):
        pair.cable()
    tunnels = pair.run("udp6", bound=False)
    for end in (pair.near, pair.far):
        pair.bind(end, end.tables.bundle([Path(pair.tunnel(end, "udp6", path), bid=path) for path in (1, 2)]))
    here, there = pair.connection()
    with here, there:
        for round_ in range(6):
            down = tunnels[round_ % 2]
            pair.near.tables.set_state(down, TunnelState.DOWN)
            pair.far.tables.set_state(pair.tunnel(pair.far, "udp6", 1 + round_ % 2), TunnelState.DOWN)
            before = packets_out(pair.near, down)
            together(lambda: engine_lab.pour(here, 2 * MIB), lambda: engine_lab.drink(there, 2 * MIB))
            assert packets_out(pair.near, down) == before
            pair.near.tables.set_state(down, TunnelState.UP)
            pair.far.tables.set_state(pair.tunnel(pair.far, "udp6", 1 + round_ % 2), TunnelState.UP)
    unharmed(pair)


@pytest.mark.parametrize("version", [6, 4])
def test_one_connection_uses_every_path_when_its_packets_are_spread(pair: Pair, version: int) -> None:
    for _ in range(2):
        pair.cable()
    tunnels, _, groups = striped(pair, Spread.PER_PACKET, weights=(2, 1))
    transfer(pair, 16 * MIB, back=4 * MIB, version=version)
    first, second = (packets_out(pair.near, tunnel) for tunnel in tunnels)
    assert 1.9 < first / second < 2.1

    def tunnels_and_rule_count_alike() -> bool:  # the last acknowledgements may still be on their way
        left = sum(packets_out(pair.near, tunnel) for tunnel in tunnels)
        return left == sum(rule.packets for rule in pair.near.tables.flow_rules())

    eventually(tunnels_and_rule_count_alike)
    unharmed(pair)
    for group in groups:
        assert group.stats().strays == group.stats().twins == group.stats().late == 0


def test_a_slow_path_delays_and_disorders_nothing_that_is_spread(pair: Pair) -> None:
    pair.carrier(delay=0.0)
    pair.carrier(delay=0.008)
    tunnels, _, groups = striped(pair, Spread.PER_PACKET)
    [sender], receiver = flows(pair, 1)
    with sender, receiver:
        for first in range(0, 1500, 300):
            datagrams(sender, receiver, numbered(first, 300))
        nothing_more(receiver)
    transfer(pair, 2 * MIB, back=MIB)
    _, there = groups
    assert there.stats().early > 100
    assert there.stats().strays == there.stats().twins == 0

    def is_even() -> bool:  # but for what found no room, and was not sent
        first, second = (packets_out(pair.near, tunnel) for tunnel in tunnels)
        return abs(first - second) <= 2 + pair.near.drops().get(Drop.UNDERLAY_FULL, 0)

    eventually(is_even, what="every other packet went by each path")


def test_what_is_doubled_survives_the_loss_of_a_path_and_arrives_once(pair: Pair) -> None:
    steady, fickle = pair.carrier(), pair.carrier(delay=0.002)
    _, _, groups = striped(pair, Spread.BICAST)
    [sender], receiver = flows(pair, 1)
    with sender, receiver:
        _, there = groups

        def all_are_known() -> bool:
            return there.stats().twins + fickle.swallowed + steady.swallowed == 200 * (turn + 1)

        for turn in range(9):
            fickle.cut, steady.cut = turn % 4 == 1, turn % 4 == 3
            datagrams(sender, receiver, numbered(200 * turn, 200))
            eventually(all_are_known, what="the other copies have come, or have been lost")
        nothing_more(receiver)
    assert (fickle.swallowed, steady.swallowed) == (400, 400)
    eventually(lambda: pair.far.drops() == {Drop.TWIN: 1000}, what="each second copy is counted")


def test_a_connection_that_is_doubled_is_exact(pair: Pair) -> None:
    for _ in range(2):
        pair.cable()
    tunnels, _, groups = striped(pair, Spread.BICAST)
    transfer(pair, 8 * MIB, back=8 * MIB)

    def one_by_each() -> bool:
        first, second = (packets_out(pair.near, tunnel) for tunnel in tunnels)
        return abs(first - second) <= pair.near.drops().get(Drop.UNDERLAY_FULL, 0)

    eventually(one_by_each, what="each packet has left by both")  # the last one may be under way
    assert groups[1].stats().twins > 0
    for end in (pair.near, pair.far):
        assert set(end.drops()) <= {Drop.UNDERLAY_FULL, Drop.TWIN}


def test_with_workers_too_what_is_spread_arrives_in_order(pair: Pair) -> None:
    for _ in range(2):
        pair.cable()
    pair.run("gre6", bound=False, workers=2)
    for end in (pair.near, pair.far):
        tunnels = [pair.tunnel(end, "gre6", path, sequence=True) for path in (1, 2)]
        bundle = end.tables.bundle([Path(each, bid=bid) for bid, each in enumerate(tunnels, 1)])
        pair.bind(end, bundle, end.tables.policy(everything(Spread.PER_PACKET)))
        end.tables.reorder(tunnels, packets=4096, seconds=5.0)
    together(*[lambda: transfer(pair, 4 * MIB, back=4 * MIB)] * 2)
    unharmed(pair)


# --- between routers ---


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("version", [6, 4])
def test_what_came_while_the_node_was_away_arrives_before_what_comes_later(
    wired: Pair, version: int, workers: int
) -> None:
    [tunnel] = wired.run("udp6", workers=workers)
    prefix = engine_lab.PREFIXES[version == 4]
    senders, receiver = flows(wired, 3, version)
    for turn in range(5):
        wired.near.tables.hold(prefix, buffer=HoldBuffer(seconds=60.0, pace=0))
        for payload in numbered(1000 * turn, 100):
            for sender in senders:
                sender.sendto(payload, receiver.getsockname())
        eventually(lambda: kept(wired) == 300, what="all of it waits")
        nothing_more(receiver)
        wired.near.tables.bind(prefix, tunnel, side=engine.Side.ANCHOR)
        for payload in numbered(1000 * turn + 100, 100):
            for sender in senders:
                sender.sendto(payload, receiver.getsockname())
        came: dict[int, list[bytes]] = {sender.getsockname()[1]: [] for sender in senders}
        for _ in range(600):
            payload, source = receiver.recvfrom(1000)
            came[source[1]].append(payload)
        assert list(came.values()) == [numbered(1000 * turn, 200)] * 3
        nothing_more(receiver)
    for each in (*senders, receiver):
        each.close()
    unharmed(wired)


def kept(pair: Pair) -> int:
    """Packets in the hold buffer at near."""
    prefixes = [pair.near.tables.held(prefix) for prefix in engine_lab.PREFIXES]
    return sum(each.kept - each.sent for each in prefixes if each)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_node_that_comes_and_goes_loses_nothing_of_what_is_sent_all_the_time(wired: Pair, workers: int) -> None:
    [tunnel] = wired.run("udp6", workers=workers)
    tables = wired.near.tables
    [sender], receiver = flows(wired, 1)
    count = 20_000
    on_the_way = threading.Semaphore(200)  # the queue of the TUN takes 500

    def say() -> None:
        for payload in numbered(0, count):
            assert on_the_way.acquire(timeout=engine_lab.PATIENCE), wired.near.drops()
            sender.sendto(payload, receiver.getsockname())

    def hear() -> None:
        try:
            for payload in numbered(0, count):
                assert receiver.recv(1000) == payload
                on_the_way.release()
        finally:
            finished.set()

    def come_and_go() -> None:
        while not finished.is_set():
            tables.hold(PREFIX6, buffer=HoldBuffer(seconds=60.0, pace=0))
            tables.bind(PREFIX6, tunnel, side=engine.Side.ANCHOR)
            select.select([], [], [], 0.00005)  # let packets come

    finished = threading.Event()
    with sender, receiver:
        together(say, come_and_go, hear)
        nothing_more(receiver)
    unharmed(wired)


def test_a_transfer_goes_on_when_the_node_is_found_again(wired: Pair) -> None:
    """Bundles of segments wait as they are; the drain keeps its pace, and acknowledgments are not let in meanwhile."""
    [tunnel] = wired.run("udp6")
    here, there = wired.connection()

    def come_back() -> None:
        eventually(lambda: kept(wired) > 0, what="something waits")
        wired.near.tables.bind(PREFIX6, tunnel, side=engine.Side.ANCHOR)

    with here, there:
        for _ in range(4):
            wired.near.tables.hold(PREFIX6, buffer=HoldBuffer(octets=8 << 20, pace=100_000_000))
            together(
                come_back, lambda: engine_lab.pour(here, 8 * MIB), lambda: engine_lab.drink(there, 8 * MIB)
            )
    assert set(wired.near.drops()) <= {Drop.NOT_BOUND, Drop.UNDERLAY_FULL}


@pytest.mark.parametrize("bound", [{"packets": 50}, {"octets": 50 * 148}], ids=["packets", "octets"])
@pytest.mark.parametrize("workers", [0, 2])
def test_what_finds_the_buffer_full_is_lost_and_counted(wired: Pair, bound: dict[str, int], workers: int) -> None:
    [tunnel] = wired.run("udp6", workers=workers)
    wired.near.tables.hold(PREFIX6, buffer=HoldBuffer(seconds=60.0, pace=0, **bound))
    [sender], receiver = flows(wired, 1)
    with sender, receiver:
        sent = numbered(0, 80)
        for payload in sent:
            sender.sendto(payload, receiver.getsockname())
        eventually(lambda: wired.near.drops() == {Drop.HOLD_FULL: 30}, what="the buffer is full")
        found = wired.near.tables.held(PREFIX6)
        assert found is not None
        assert (found.kept, found.full, found.sent, found.expired) == (50, 30, 0, 0)
        wired.near.tables.bind(PREFIX6, tunnel, side=engine.Side.ANCHOR)
        assert [receiver.recv(1000) for _ in range(50)] == sent[:50]
        nothing_more(receiver)


@pytest.mark.parametrize("workers", [0, 2])
def test_what_waits_too_long_is_lost_and_counted(wired: Pair, workers: int) -> None:
    [tunnel] = wired.run("udp6", workers=workers)
    wired.near.tables.hold(PREFIX6, buffer=HoldBuffer(seconds=0.02))
    [sender], receiver = flows(wired, 1)
    with sender, receiver:
        for payload in numbered(0, 20):
            sender.sendto(payload, receiver.getsockname())
        eventually(lambda: wired.near.drops() == {Drop.HOLD_EXPIRED: 20}, what="all has expired")
        found = wired.near.tables.held(PREFIX6)
        assert found is not None
        assert (found.kept, found.full, found.sent, found.expired) == (20, 0, 0, 20)
        wired.near.tables.bind(PREFIX6, tunnel, side=engine.Side.ANCHOR)
        datagrams(sender, receiver, numbered(100, 20))
        nothing_more(receiver)


def test_what_waits_for_a_prefix_that_is_forgotten_goes_nowhere(wired: Pair) -> None:
    [tunnel] = wired.run("udp6")
    wired.near.tables.hold(PREFIX6, buffer=HoldBuffer(seconds=60.0))
    [sender], receiver = flows(wired, 1)
    with sender, receiver:
        for payload in numbered(0, 20):
            sender.sendto(payload, receiver.getsockname())
        eventually(lambda: kept(wired) == 20, what="all of it waits")
        wired.near.tables.unbind(PREFIX6)
        wired.near.tables.bind(PREFIX6, tunnel, side=engine.Side.ANCHOR)
        datagrams(sender, receiver, numbered(100, 20))
        nothing_more(receiver)


# --- behind a NAT ---


def strangers(pair: Pair) -> int:
    return pair.near.counters().drops[Drop.UNKNOWN_TUNNEL]


def test_a_tunnel_follows_its_peer_to_another_port(pair: Pair) -> None:
    relay = pair.relay()
    [tunnel] = pair.run("udp6", port=relay.port)
    here, there = pair.connection()
    with here, there:
        together(lambda: engine_lab.pour(here, MIB), lambda: engine_lab.drink(there, MIB))
        for _ in range(3):
            relay.forget()
            unknown = strangers(pair)
            there.sendall(b"from another port")
            eventually(lambda before=unknown: strangers(pair) > before, 10.0, "it is a stranger")
            moved = pair.near.tables.follow(tunnel, relay.port)
            assert moved == replace(tunnel, port=relay.port)
            assert here.recv(100) == b"from another port"
            together(lambda: engine_lab.pour(here, MIB), lambda: engine_lab.drink(there, MIB))
            tunnel = moved
