"""Packets wait in an engine: for nodes between routers, and for those that were sent before them."""

from __future__ import annotations

import os
import random
import socket
import struct
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from ipaddress import IPv4Address

import pytest

import engine
from engine import (
    Drop,
    Encapsulation,
    Engine,
    FlowRule,
    HoldBuffer,
    NotCompiled,
    Offloads,
    Path,
    ReorderGroup,
    Side,
    Spread,
    Steer,
    Tables,
    Tunnel,
    UnknownTunnel,
)
from tests.engine.descriptors import drained, serve_until, settle
from tests.engine.nodes import (
    ANCHORED,
    ANCHORED4,
    CORRESPONDENT,
    CORRESPONDENT4,
    HELD,
    HERE,
    HERE4,
    TUNNEL,
    VISITING,
    VISITING4,
    gre_header,
    packet,
)
from tests.engine.test_serve import LOOPBACK, LOOPBACK4, Bench, bench, served

__all__ = ["bench"]  # a fixture

pytestmark = pytest.mark.skipif(not engine.compiled, reason="the model keeps no packets")

MIRROR = Tunnel(local=HERE, remote=LOOPBACK, encapsulation=Encapsulation.UDP)
NUMBERED = Tunnel(local=HERE4, remote=LOOPBACK4, encapsulation=Encapsulation.GRE, sequence=True)
FOREVER = HoldBuffer(seconds=1000.0, pace=0)
MOST_HOLDS = 65536  # _fast/hold.pxd

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def compiled() -> bool:
    return True


def drops(one: Engine) -> dict[Drop, int]:
    return {reason: n for reason, n in one.counters().drops.items() if n}


def through(number: int, *, version: int = 6, node: int = 5) -> bytes:
    """A packet to a node of ours that enters the mirror, and comes out of it."""
    ends = (VISITING[7], ANCHORED[node]) if version == 6 else (VISITING4[7], ANCHORED4[node])
    return packet(*ends, payload=number.to_bytes(8, "big"))


# --- while a node is between routers ---


class Waiting:
    """An engine whose nodes come and go."""

    def __init__(self, one: Engine, kernel: socket.socket) -> None:
        self.engine, self.tables, self._kernel = one, one.tables, kernel

    def say(self, *packets: bytes) -> None:
        for each in packets:
            self._kernel.send(each)
        settle(self.engine)

    def heard(self) -> list[bytes]:
        settle(self.engine)
        return drained(self._kernel)

    def return_(self, prefix: object = ANCHORED) -> None:
        self.tables.bind(prefix, MIRROR, side=Side.ANCHOR)  # type: ignore[arg-type]

    def visit(self, prefix: object = VISITING) -> None:
        self.tables.bind(prefix, MIRROR, side=Side.ACCESS)  # type: ignore[arg-type]

    def counted(self, prefix: object = ANCHORED) -> tuple[int, int, int, int] | None:
        found = self.tables.held(prefix)  # type: ignore[arg-type]
        return (found.kept, found.sent, found.full, found.expired) if found else None


@pytest.fixture
def waiting(any_engine: Engine, tun_pair: Pair) -> Iterator[Waiting]:
    ours, kernel = tun_pair
    with served(any_engine, ours, MIRROR):
        yield Waiting(any_engine, kernel)


@pytest.mark.parametrize("version", [6, 4])
def test_packets_of_a_node_that_came_home_go_back_into_the_tun_in_order(waiting: Waiting, version: int) -> None:
    prefix = ANCHORED if version == 6 else ANCHORED4
    waiting.tables.hold(prefix, buffer=FOREVER)
    waiting.say(*(through(n, version=version) for n in range(30)))
    waiting.tables.bring_home(prefix)
    waiting.say(*(through(n, version=version) for n in range(30, 40)))
    assert waiting.heard() == [through(n, version=version) for n in range(40)]
    assert waiting.counted(prefix) is None
    assert drops(waiting.engine) == {}


def test_what_was_in_one_piece_goes_home_in_one_piece(any_engine: Engine, tun_pair: Pair) -> None:
    ours, kernel = tun_pair
    virtio = struct.pack("=BBHHHH", 1, 1, 0, 4, 40, 16)  # as if it were TCP: two segments of 4 octets, no checksum yet
    with served(any_engine, ours, MIRROR) as (tun, _):
        any_engine.remove_port(tun)
        any_engine.add_port(replace(tun, virtio=True, offloads=Offloads()))
        any_engine.tables.hold(ANCHORED, buffer=FOREVER)
        kernel.send(virtio + through(1))
        settle(any_engine)
        any_engine.tables.bring_home(ANCHORED)
        settle(any_engine)
        assert drained(kernel) == [virtio + through(1)]


def test_a_node_that_came_home_and_goes_again_is_held_again(waiting: Waiting) -> None:
    waiting.tables.hold(ANCHORED, buffer=replace(FOREVER, pace=1))
    waiting.say(through(0), through(1))
    waiting.tables.bring_home(ANCHORED)
    waiting.tables.hold(ANCHORED, buffer=FOREVER)
    waiting.say(through(2))
    waiting.return_()
    assert waiting.heard() == [through(n) for n in range(3)]


def test_a_tunnel_carries_nothing_of_a_node_that_came_home(waiting: Waiting) -> None:
    waiting.return_()
    waiting.tables.bring_home(ANCHORED)
    waiting.say(through(0))
    assert waiting.heard() == [through(0)]
    assert [it.packets_out for it in waiting.tables.tunnels()] == [0]


def back(number: int, *, version: int = 6) -> bytes:
    """A packet to a node whose gateway we are: the kernel found no link to it."""
    ends = (CORRESPONDENT, VISITING[5]) if version == 6 else (CORRESPONDENT4, VISITING4[5])
    return packet(*ends, payload=number.to_bytes(8, "big"))


@pytest.mark.parametrize("version", [6, 4])
def test_what_comes_back_for_a_visiting_node_waits_and_goes_to_its_anchor(waiting: Waiting, version: int) -> None:
    prefix = VISITING if version == 6 else VISITING4
    waiting.visit(prefix)
    waiting.tables.watch(prefix, FOREVER)
    waiting.say(*(back(n, version=version) for n in range(30)))  # nobody has noticed yet
    waiting.tables.hold(prefix, buffer=FOREVER)
    waiting.say(*(back(n, version=version) for n in range(30, 60)))  # the anchor does not know yet
    assert waiting.heard() == []
    assert waiting.counted(prefix) == (60, 0, 0, 0)
    waiting.return_(prefix)
    waiting.say(*(back(n, version=version) for n in range(60, 90)))
    assert waiting.heard() == [back(n, version=version) for n in range(90)]
    assert drops(waiting.engine) == {}


def test_what_waits_for_a_visiting_node_that_is_here_again_goes_to_its_anchor_too(waiting: Waiting) -> None:
    waiting.visit()
    waiting.tables.watch(VISITING, FOREVER)
    waiting.say(back(0))
    waiting.visit()
    assert waiting.heard() == [back(0)]
    waiting.tables.watch(VISITING, FOREVER)
    waiting.say(back(1))
    assert waiting.heard() == []


SAID = [packet(CORRESPONDENT, ANCHORED[5], payload=bytes([number])) for number in range(4)]


def test_what_a_router_gives_back_goes_before_what_came_to_the_anchor_since(bench: Bench) -> None:
    bench.engine.tables.hold(ANCHORED, buffer=FOREVER)
    for late in SAID[2:]:
        bench.kernel.send(late)
    assert bench.delivered() == []
    bench.arrive(*SAID[:2])
    assert bench.delivered() == []
    bench.engine.tables.bind(ANCHORED, MIRROR, side=Side.ANCHOR)
    assert bench.delivered() == SAID
    assert bench.drops() == {}


def test_what_a_router_gives_back_to_a_node_that_the_kernel_delivers_to_waits_for_nothing(bench: Bench) -> None:
    bench.engine.tables.leave_to_kernel(ANCHORED, FOREVER)
    bench.arrive(*SAID[:2])
    assert bench.delivered() == SAID[:2]
    bench.kernel.send(SAID[2])  # it has no link to the node any more
    assert bench.delivered() == []
    bench.engine.tables.hold(ANCHORED, buffer=FOREVER)
    bench.arrive(SAID[3])
    bench.engine.tables.bind(ANCHORED, MIRROR, side=Side.ANCHOR)
    assert bench.delivered() == [SAID[3], SAID[2]]
    assert bench.drops() == {}


def test_what_a_visiting_node_sends_waits_for_nobody(waiting: Waiting) -> None:
    waiting.visit()
    waiting.tables.watch(VISITING, FOREVER)
    waiting.say(through(0), back(1), through(2))
    assert waiting.heard() == [through(0), through(2)]


def test_what_comes_back_for_a_node_that_nobody_watches_dies(waiting: Waiting) -> None:
    waiting.visit()
    waiting.say(back(0))
    assert waiting.heard() == []
    assert drops(waiting.engine) == {Drop.NO_BINDING: 1}


@pytest.mark.parametrize("version", [6, 4])
def test_packets_wait_for_the_next_bind_and_go_before_later_ones(waiting: Waiting, version: int) -> None:
    prefix = ANCHORED if version == 6 else ANCHORED4
    waiting.tables.hold(prefix, buffer=FOREVER)
    waiting.say(*(through(n, version=version) for n in range(30)))
    assert waiting.heard() == []
    assert waiting.counted(prefix) == (30, 0, 0, 0)
    waiting.return_(prefix)
    waiting.say(*(through(n, version=version) for n in range(30, 60)))
    assert waiting.heard() == [through(n, version=version) for n in range(60)]
    assert drops(waiting.engine) == {}


def test_more_than_a_burst_may_wait(waiting: Waiting) -> None:
    waiting.tables.hold(ANCHORED, buffer=FOREVER)
    for first in range(0, 600, 100):
        waiting.say(*(through(n) for n in range(first, first + 100)))
    waiting.return_()
    came: list[bytes] = []
    serve_until(lambda: len(came.extend(waiting.heard()) or came) == 600, waiting.engine)
    assert came == [through(n) for n in range(600)]


def test_what_is_empty_again_has_no_counters(waiting: Waiting) -> None:
    assert waiting.counted() is None
    waiting.tables.hold(ANCHORED, buffer=FOREVER)
    assert waiting.counted() == (0, 0, 0, 0)
    waiting.say(through(1))
    waiting.return_()
    waiting.heard()
    assert waiting.counted() is None


def test_a_node_that_nothing_was_for_is_served_at_once(waiting: Waiting) -> None:
    waiting.tables.hold(ANCHORED, buffer=FOREVER)
    waiting.return_()
    waiting.say(through(1))
    assert waiting.heard() == [through(1)]


def test_only_the_prefix_that_is_held_waits(waiting: Waiting) -> None:
    waiting.tables.hold(ANCHORED, buffer=FOREVER)
    waiting.say(through(1), through(2, version=4), packet(CORRESPONDENT, HELD[5]))
    assert waiting.heard() == [through(2, version=4)]
    assert drops(waiting.engine) == {Drop.NODE_AWAY: 1}


def test_a_longer_prefix_has_a_buffer_of_its_own(waiting: Waiting) -> None:
    longer = type(ANCHORED)((ANCHORED[9], 128))
    waiting.tables.hold(longer, buffer=FOREVER)
    waiting.say(through(1, node=9), through(2))
    assert waiting.heard() == [through(2)]
    waiting.return_(longer)
    assert waiting.heard() == [through(1, node=9)]


def test_a_prefix_may_be_held_before_it_was_ever_bound(waiting: Waiting) -> None:
    new = type(ANCHORED)("2001:db8:a1:777::/64")
    waiting.tables.hold(new, buffer=FOREVER)
    octets = packet(VISITING[7], new[5])
    waiting.say(octets)
    waiting.return_(new)
    assert waiting.heard() == [octets]


def test_a_node_may_leave_again_while_packets_wait(waiting: Waiting) -> None:
    waiting.tables.hold(ANCHORED, buffer=FOREVER)
    waiting.say(through(1))
    waiting.return_()
    waiting.tables.hold(ANCHORED, buffer=FOREVER)
    waiting.say(through(2))
    assert waiting.heard() == []
    waiting.return_()
    assert waiting.heard() == [through(1), through(2)]


def test_a_node_that_leaves_without_a_buffer_after_one_that_had_is_away(waiting: Waiting) -> None:
    waiting.tables.hold(ANCHORED, buffer=FOREVER)
    waiting.say(through(1))
    waiting.return_()
    assert waiting.heard() == [through(1)]
    waiting.tables.hold(ANCHORED)
    waiting.say(through(2))
    assert waiting.heard() == []
    assert drops(waiting.engine) == {Drop.NODE_AWAY: 1}


@pytest.mark.parametrize("bound", [{"packets": 3}, {"octets": 3 * len(through(0)) + 1}], ids=["packets", "octets"])
def test_what_finds_no_room_is_lost_and_counted(waiting: Waiting, bound: dict[str, int]) -> None:
    waiting.tables.hold(ANCHORED, buffer=HoldBuffer(seconds=1000.0, pace=0, **bound))
    waiting.say(*(through(n) for n in range(5)))
    assert waiting.counted() == (3, 0, 2, 0)
    waiting.return_()
    assert waiting.heard() == [through(n) for n in range(3)]
    assert drops(waiting.engine) == {Drop.HOLD_FULL: 2}


def test_what_waits_too_long_is_lost_and_counted_while_nothing_else_happens(waiting: Waiting) -> None:
    waiting.tables.hold(ANCHORED, buffer=HoldBuffer(seconds=0.01))
    waiting.say(*(through(n) for n in range(5)))
    serve_until(lambda: drops(waiting.engine) == {Drop.HOLD_EXPIRED: 5}, waiting.engine)
    assert waiting.counted() == (5, 0, 0, 5)
    waiting.return_()
    waiting.say(through(9))
    assert waiting.heard() == [through(9)]


def test_a_slow_drain_brings_everything_in_order(waiting: Waiting) -> None:
    waiting.tables.hold(ANCHORED, buffer=HoldBuffer(seconds=1000.0, pace=20_000))
    waiting.say(*(through(n) for n in range(20)))
    waiting.return_()
    waiting.say(*(through(n) for n in range(20, 25)))
    came: list[bytes] = []
    serve_until(lambda: len(came.extend(waiting.heard()) or came) == 25, waiting.engine)
    assert came == [through(n) for n in range(25)]


def test_what_waits_for_a_prefix_that_is_forgotten_is_forgotten(waiting: Waiting) -> None:
    waiting.tables.hold(ANCHORED, buffer=FOREVER)
    waiting.say(through(1))
    waiting.tables.unbind(ANCHORED)
    assert waiting.counted() is None
    waiting.return_()
    waiting.say(through(2))
    assert waiting.heard() == [through(2)]


def test_what_one_engine_keeps_another_may_send(waiting: Waiting) -> None:
    """Both have the sockets; only the first has taken anything from the TUN."""
    waiting.tables.hold(ANCHORED, buffer=FOREVER)
    waiting.say(through(1), through(2))
    other = Engine(waiting.tables)
    for port in waiting.engine._ports.values():
        other.add_port(port)
    waiting.return_()
    settle(other)
    assert other.counters().packets_to_underlay == 2
    assert waiting.heard() == [through(1), through(2)]


def test_all_that_waits_can_be_taken_out_as_a_tun_takes_it(waiting: Waiting) -> None:
    waiting.tables.hold(ANCHORED, buffer=FOREVER)
    waiting.tables.hold(ANCHORED4, buffer=FOREVER)
    waiting.say(*(through(n) for n in range(300)), through(300, version=4))
    plain = bytes(10)
    expected = [*(plain + through(n) for n in range(300)), plain + through(300, version=4)]
    assert sorted(waiting.tables.take_out()) == sorted(expected)
    assert waiting.tables.take_out() == []
    waiting.say(through(301))
    waiting.return_()
    assert waiting.heard() == [through(301)]


def test_the_packets_of_a_prefix_are_taken_out_in_order(waiting: Waiting) -> None:
    waiting.tables.hold(ANCHORED, buffer=FOREVER)
    waiting.say(*(through(n) for n in range(200)))
    assert [each[10:] for each in waiting.tables.take_out()] == [through(n) for n in range(200)]


def test_where_nothing_was_ever_held_there_is_nothing_to_take_out() -> None:
    assert Tables().take_out() == []


def test_buffers_are_used_again(waiting: Waiting) -> None:
    for _ in range(MOST_HOLDS + 10):
        waiting.tables.hold(ANCHORED, buffer=FOREVER)
        waiting.return_()
    waiting.say(through(1))
    assert waiting.heard() == [through(1)]


def test_those_of_forgotten_prefixes_too(waiting: Waiting) -> None:
    for _ in range(MOST_HOLDS + 10):
        waiting.tables.hold(ANCHORED, buffer=FOREVER)
        waiting.tables.unbind(ANCHORED)
    waiting.tables.hold(ANCHORED, buffer=FOREVER)
    waiting.say(through(1))
    assert waiting.counted() == (1, 0, 0, 0)


def test_thousands_may_be_between_routers_at_once(waiting: Waiting) -> None:
    networks = [type(ANCHORED)(((0x20010DB8 << 96) + (n << 64), 64)) for n in range(20_000)]
    for network in networks:
        waiting.tables.hold(network, buffer=FOREVER)
    octets = [packet(VISITING[7], network[5]) for network in networks[::100]]
    waiting.say(*octets)
    for network in networks:
        waiting.return_(network)
    assert sorted(waiting.heard()) == sorted(octets)
    assert drops(waiting.engine) == {}


def test_the_model_keeps_no_packets() -> None:
    tables = Tables(compiled=False)
    with pytest.raises(NotCompiled):
        tables.hold(ANCHORED, buffer=FOREVER)
    tables.bind(ANCHORED, TUNNEL, side=Side.ANCHOR)
    with pytest.raises(NotCompiled):
        tables.reorder([TUNNEL])
    assert tables.held(ANCHORED) is None


# --- in the order of their numbers ---

Arrive = Callable[..., list[int]]


@pytest.fixture
def arrive(any_engine: Engine, tun_pair: Pair) -> Iterator[Arrive]:
    """Let packets with these numbers come from the peer; what has been delivered since."""
    ours, kernel = tun_pair
    with served(any_engine, ours, NUMBERED) as (_, [port]), socket.socket(fileno=os.dup(port.fd)) as peer:

        def come(*numbers: int | None) -> list[int]:
            for number in numbers:
                inner = packet(ANCHORED[5], CORRESPONDENT, payload=(number or 0).to_bytes(8, "big"))
                peer.sendto(gre_header(6, sequence=number) + inner, (str(LOOPBACK4), 0))
            settle(any_engine)
            return [int.from_bytes(octets[40:], "big") for octets in drained(kernel)]

        yield come


@pytest.fixture
def group(any_engine: Engine, arrive: Arrive) -> ReorderGroup:
    assert arrive(0) == [0]
    made = any_engine.tables.reorder([NUMBERED], packets=64, seconds=1000.0)
    assert arrive(1) == [1]
    return made


def test_a_packet_without_a_number_waits_for_nobody(arrive: Arrive, group: ReorderGroup) -> None:
    assert arrive(3, None, 4, None) == [0, 0]
    assert arrive(2, None) == [2, 3, 4, 0]
    assert counted(group) == {"early": 2}


def counted(group: ReorderGroup) -> dict[str, int]:
    stats = group.stats()
    return {name: n for name in stats.__slots__ if (n := getattr(stats, name)) and name != "in_order"}


def test_what_is_early_waits_for_those_before_it(arrive: Arrive, group: ReorderGroup) -> None:
    assert arrive(3, 4) == []
    assert arrive(2) == [2, 3, 4]
    assert counted(group) == {"early": 2}


def test_in_one_burst_too(arrive: Arrive, group: ReorderGroup) -> None:
    assert arrive(5, 3, 2, 4, 7, 8, 6) == [2, 3, 4, 5, 6, 7, 8]
    assert counted(group)["early"] > 0


def test_twins_die(any_engine: Engine, arrive: Arrive, group: ReorderGroup) -> None:
    assert arrive(2, 2, 4, 4, 3, 3, 4) == [2, 3, 4]
    assert counted(group)["twins"] == drops(any_engine)[Drop.TWIN] == 4


def test_what_is_missing_is_waited_for_only_so_long(any_engine: Engine, arrive: Arrive) -> None:
    group = any_engine.tables.reorder([NUMBERED], seconds=0.01)
    assert arrive(1) == [1]
    came = arrive(3, 4)
    serve_until(lambda: len(came.extend(arrive()) or came) == 2, any_engine)
    assert came == [3, 4]
    assert counted(group) == {"early": 2, "given_up": 1}
    assert arrive(2, 5) == [2, 5]
    assert counted(group)["late"] == 1


SPREADS = (Spread.PER_PACKET, Spread.PER_FLOW, Spread.BICAST)


def sent_by_changing_rules(dice: random.Random, packets: int) -> Iterator[list[tuple[int | None, bytes]]]:
    """Runs of packets to a node with two ways, each run by another rule: (sequence number, packet) of each copy."""
    tables = Tables()
    ways = [replace(NUMBERED, remote=IPv4Address(f"192.0.2.{n}")) for n in (1, 2)]
    policy = tables.policy([])
    bundle = tables.bundle([Path(way, bid=n) for n, way in enumerate(ways, 1)])
    tables.bind(ANCHORED, bundle, side=Side.ACCESS, policy=policy)
    sender, number = Engine(tables), 0
    while number < packets:
        tables.change(policy, [FlowRule(None, Steer(spread=dice.choice(SPREADS)))])
        count = dice.randrange(1, 20)
        inner = [
            packet(ANCHORED[5], CORRESPONDENT, payload=n.to_bytes(8, "big")) for n in range(number, number + count)
        ]
        number += count
        copies = [copy for answer in sender.encapsulate(inner) if isinstance(answer, tuple) for copy in answer]
        yield [(int.from_bytes(out[24:28], "big") if out[20] & 0x10 else None, out[20:]) for out in copies]


def test_nothing_is_lost_or_late_and_nothing_waits_while_rules_change_between_flow_packet_and_copy(
    any_engine: Engine, tun_pair: Pair, dice: random.Random
) -> None:
    """Numbered packets overtake each other within a run; none is waited for in vain, or it would be seen: 1000 s."""
    ours, kernel = tun_pair
    kinds: Counter[bool] = Counter()
    with served(any_engine, ours, NUMBERED) as (_, [port]), socket.socket(fileno=os.dup(port.fd)) as peer:
        group = any_engine.tables.reorder([NUMBERED], seconds=1000.0)
        whole = expected = 0
        for run in sent_by_changing_rules(dice, 400):
            kinds.update(number is None for number, _ in run)
            if run[0][0]:  # number 0 stays in front: it tells where the numbers begin
                dice.shuffle(run)
            for _, octets in run:
                peer.sendto(octets, (str(LOOPBACK4), 0))
            settle(any_engine)
            delivered = [int.from_bytes(octets[40:], "big") for octets in drained(kernel)]
            whole += len({octets for _, octets in run})
            assert delivered == list(range(expected, whole))
            expected = whole
        twins = sum(kinds.values()) - whole
        assert set(kinds) == {True, False}
        assert twins > 0
        assert drops(any_engine) == {Drop.TWIN: twins}
        assert "given_up" not in counted(group)


def test_only_so_many_wait(arrive: Arrive, group: ReorderGroup) -> None:
    assert arrive(*range(3, 66)) == []
    assert arrive(66) == list(range(3, 67))
    assert counted(group)["given_up"] == 1


def test_only_so_many_octets_wait(any_engine: Engine, arrive: Arrive) -> None:
    group = any_engine.tables.reorder([NUMBERED], octets=100, seconds=1000.0)  # 48 octets each
    assert arrive(1) == [1]
    assert arrive(3, 4) == []
    assert arrive(5) == [3, 4, 5]
    assert counted(group)["given_up"] == 1


def test_packets_without_a_number_do_not_wait(arrive: Arrive, group: ReorderGroup) -> None:
    assert arrive(3, None) == [0]
    assert arrive(2) == [2, 3]


def test_a_group_that_is_closed_keeps_nothing_back(arrive: Arrive, group: ReorderGroup) -> None:
    assert arrive(3) == []
    group.close()
    assert arrive(5, 4) == [5, 4]


def test_a_group_may_be_followed_by_another(any_engine: Engine, arrive: Arrive, group: ReorderGroup) -> None:
    assert arrive(3) == []
    group.close()
    another = any_engine.tables.reorder([NUMBERED], seconds=1000.0)
    assert arrive(4, 6, 5) == [4, 5, 6]
    assert counted(another) == {"early": 1}


def test_groups_are_used_again(any_engine: Engine, arrive: Arrive) -> None:
    for _ in range(5000):  # more than there are
        any_engine.tables.reorder([NUMBERED]).close()
    any_engine.tables.reorder([NUMBERED], seconds=1000.0)
    assert arrive(1, 3, 2) == [1, 2, 3]


def test_a_tunnel_that_nothing_is_bound_to_has_no_group(any_engine: Engine) -> None:
    with pytest.raises(UnknownTunnel):
        any_engine.tables.reorder([NUMBERED])


def test_a_group_that_has_lost_its_tunnel_to_another_leaves_it_there(
    any_engine: Engine, arrive: Arrive, group: ReorderGroup
) -> None:
    any_engine.tables.reorder([NUMBERED], seconds=1000.0)
    group.close()
    assert arrive(1, 3) == [1]
    assert arrive(2) == [2, 3]


@pytest.mark.parametrize("packets", [0, 1 << 17])
def test_a_group_has_room_for_some_packets_and_not_for_too_many(
    any_engine: Engine, arrive: Arrive, packets: int
) -> None:
    with pytest.raises(ValueError, match="early packets"):
        any_engine.tables.reorder([NUMBERED], packets=packets)


def test_a_group_closed_twice_does_not_close_the_next_one(
    any_engine: Engine, arrive: Arrive, group: ReorderGroup
) -> None:
    group.close()
    another = any_engine.tables.reorder([NUMBERED], seconds=1000.0)
    group.close()
    any_engine.tables.reorder([], seconds=1000.0).close()  # what can be taken back is taken back now
    assert arrive(1, 3) == [1]
    assert arrive(2) == [2, 3]
    assert counted(another) == {"early": 1}
