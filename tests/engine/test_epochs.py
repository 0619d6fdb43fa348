"""One writer, several readers: who looks up without a lock misses nothing that stays, and meets nothing stale.

    writer (this thread)   binds, moves, unbinds, grows, shrinks, changes bundles, makes and ends tunnels
    readers (threads)      hammer: bursts of look-ups without the GIL; each binding found is checked down to its tunnels
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from ipaddress import IPv4Network, IPv6Address, IPv6Network

import pytest

import engine
from engine import Encapsulation, Side, Tables, Tunnel
from engine.tables import Path
from engine.tunnels import TunnelState, packed
from tests.engine.nodes import HERE

pytestmark = pytest.mark.skipif(not engine.compiled, reason="nothing is compiled")

ANCHOR, HELD = 1, 4
READERS = 2
STAYING = (
    [IPv6Network((0x20010DB8_0001 << 80 | n << 64, 64)) for n in range(1000)]
    + [IPv6Network((0x20010DB8_1000 + n << 80, 48)) for n in range(200)]
    + [IPv6Network((0x20010DB8_0002 << 80 | n, 128)) for n in range(100)]
    + [IPv4Network((10 << 24 | n << 8, 24)) for n in range(200)]
)
OTHERS = [IPv6Network((0x20010DB8_00FF << 80 | n << 64, 64)) for n in range(1 << 14)]
LENGTHS = [IPv6Network((0x20010DB8_0003 << 80, length)) for length in range(49, 64)]
TUNNELS = [
    Tunnel(local=HERE, remote=IPv6Address(0x20010DB8 << 96 | n + 99), encapsulation=Encapsulation.UDP)
    for n in range(300)
]


class Readers:
    """Threads that look everybody up until told to stop; misses and wrongs they met."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._stop = threading.Event()
        self._addresses = b"".join(packed(prefix[-1]) for prefix in STAYING)
        self.rounds, self.missed, self.wrong, self.faults = 0, 0, 0, []
        self._threads = [threading.Thread(target=self._read) for _ in range(READERS)]

    def _read(self) -> None:
        try:
            while not self._stop.is_set():
                missed, wrong = self._tables.storage.hammer(self._addresses, ANCHOR | HELD, 20)
                self.missed += missed
                self.wrong += wrong
                self.rounds += 20
        except Exception as fault:
            self.faults.append(fault)

    def __enter__(self) -> Readers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


def filled() -> Tables:
    tables = Tables(compiled=True)
    for n, prefix in enumerate(STAYING):
        tables.bind(prefix, TUNNELS[n % 7], side=Side.ANCHOR)
    return tables


def grow_and_shrink(tables: Tables, dice: random.Random) -> None:
    """Twice as many heads four times, and half as many again."""
    for prefix in OTHERS:
        tables.bind(prefix, TUNNELS[0], side=Side.ANCHOR)
    for prefix in OTHERS:
        tables.unbind(prefix)


def move(tables: Tables, dice: random.Random) -> None:
    """Everybody to another tunnel, many of them new, while the old ones end."""
    for _ in range(20000):
        if dice.randrange(10) == 0:
            tables.hold(dice.choice(STAYING))
        else:
            tables.bind(dice.choice(STAYING), dice.choice(TUNNELS), side=Side.ANCHOR)


def change_bundles(tables: Tables, dice: random.Random) -> None:
    """Bundles made, changed and dropped, tunnels going up and down."""
    bundles = [tables.bundle([Path(TUNNELS[n])]) for n in range(20)]
    for n in range(20000):
        bundle = dice.choice(bundles)
        ways = dice.sample(TUNNELS, dice.randint(1, 4))
        match n % 4:
            case 0:
                tables.change(bundle, [Path(way, bid=bid + 1) for bid, way in enumerate(ways)])
                tables.set_state(ways[0], dice.choice(list(TunnelState)))
            case 1:
                bundles[n % 20] = tables.bundle([Path(way, bid=bid + 1) for bid, way in enumerate(ways)])
            case _:
                tables.bind(dice.choice(STAYING), bundle, side=Side.ANCHOR)


def use_other_lengths(tables: Tables, dice: random.Random) -> None:
    """The list of lengths changes with each."""
    for _ in range(500):
        for prefix in LENGTHS:
            tables.bind(prefix, TUNNELS[0], side=Side.ANCHOR)
        for prefix in LENGTHS:
            tables.unbind(prefix)


def follow_ports(tables: Tables, dice: random.Random) -> None:
    """A peer whose NAT gives it another port all the time."""
    tunnel = TUNNELS[1]
    for prefix in STAYING[1::7]:
        tables.bind(prefix, tunnel, side=Side.ANCHOR)
    for _ in range(10000):
        tunnel = tables.follow(tunnel, dice.randrange(6000, 65536))
    assert tables.storage.known(tunnel.key) == tunnel


@pytest.mark.parametrize(
    "edit", [grow_and_shrink, move, change_bundles, use_other_lengths, follow_ports], ids=lambda edit: edit.__name__
)
def test_readers_miss_nothing_that_stays_and_meet_nothing_stale(
    edit: Callable[[Tables, random.Random], None], dice: random.Random
) -> None:
    tables = filled()
    with Readers(tables) as readers:
        for _ in range(6):
            edit(tables, dice)
    assert (readers.missed, readers.wrong, readers.faults) == (0, 0, [])
    assert readers.rounds > 0
    assert {binding.prefix for binding in tables.bindings()} == set(STAYING)


def test_what_readers_looked_at_is_given_back_when_they_are_done(dice: random.Random) -> None:
    tables = Tables(compiled=True)
    empty = tables.storage.octets()
    for prefix in STAYING:
        tables.bind(prefix, TUNNELS[0], side=Side.ANCHOR)
    with Readers(tables):
        for edit in (grow_and_shrink, move, change_bundles):
            edit(tables, dice)
    for prefix in STAYING:
        tables.unbind(prefix)
    assert tables.storage.octets() == empty


def test_the_seat_of_a_reader_is_free_again_when_it_leaves() -> None:
    tables = filled()
    address = packed(STAYING[0][0])
    for _ in range(200):
        assert tables.storage.hammer(address, ANCHOR, 1) == (0, 0)


def test_look_ups_of_a_burst_agree_with_single_ones(dice: random.Random) -> None:
    tables = Tables(compiled=True)
    prefixes = [IPv6Network((dice.getrandbits(128) >> 128 - n << 128 - n, n)) for n in range(1, 129) for _ in range(30)]
    for prefix in prefixes:
        tables.bind(prefix, TUNNELS[0], side=dice.choice(list(Side)))
    for _ in range(300):
        address = packed(dice.choice(prefixes)[0] + dice.randrange(2)) if dice.randrange(3) else dice.randbytes(16)
        found = tables.storage.match(address, ANCHOR)
        assert tables.storage.hammer(address, ANCHOR, 1) == (256 if found is None else 0, 0)
