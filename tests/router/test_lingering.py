"""A tunnel that a prefix has left is known for a moment longer, and no more than that."""

from collections.abc import Callable
from ipaddress import IPv6Address, IPv6Network

import pytest

from engine import Encapsulation, Path, Side, Tables, Tunnel
from router.lingering import Lingering

HERE = IPv6Address("2001:db8::1")
FORMER, NEXT = (
    Tunnel(local=HERE, remote=IPv6Address(f"2001:db8::{n}"), encapsulation=Encapsulation.UDP) for n in (2, 3)
)
PREFIX = IPv6Network("2001:db8:a1:1::/64")


class Clock:
    """What time it is, and what was to be done later."""

    def __init__(self) -> None:
        self.now = 100.0
        self.due: list[tuple[float, Callable[[], None]]] = []

    def monotonic(self) -> float:
        return self.now

    def later(self, after: float, what: Callable[[], None]) -> None:
        self.due.append((self.now + after, what))

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while self.due and min(at for at, _ in self.due) <= end:
            self.due.sort(key=lambda each: each[0])
            self.now, what = self.due.pop(0)
            what()
        self.now = end


@pytest.fixture
def clock() -> Clock:
    return Clock()


def known(tables: Tables) -> set[Tunnel]:
    return {each.tunnel for each in tables.tunnels()}


def test_a_tunnel_is_known_for_a_moment_after_its_last_prefix_has_left(clock: Clock) -> None:
    tables = Tables()
    tables.bind(PREFIX, FORMER, side=Side.ANCHOR)
    Lingering(tables, clock.later, clock.monotonic).keep([Path(FORMER, bid=1)])
    tables.bind(PREFIX, NEXT, side=Side.ANCHOR)
    clock.run(0.9)
    assert known(tables) == {FORMER, NEXT}
    clock.run(1.2)
    assert known(tables) == {NEXT}
    assert clock.due == []


def test_each_prefix_that_leaves_begins_the_moment_anew(clock: Clock) -> None:
    tables = Tables()
    kept = Lingering(tables, clock.later, clock.monotonic)
    for _ in range(5):
        kept.keep([Path(FORMER, bid=1), Path(NEXT, bid=2)])
        clock.run(0.7)
    assert known(tables) == {FORMER, NEXT}
    clock.run(2.5)
    assert known(tables) == set()
    kept.keep([Path(FORMER, bid=1)])
    assert known(tables) == {FORMER}
