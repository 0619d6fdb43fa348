"""Pins: where each running flow goes. A flow that runs is not moved for the sake of weights; a flow that pauses may be.

A change of path in the middle of a flow reorders it as soon as the new path is faster. A flow that was silent for
longer than one path is behind another is safe to move (flowlet switching), so that a pin holds until the flow pauses:

    flow, prefix -> set of 4 | tunnel 3, seen 12 ms ago | tunnel 5, seen 900 ms ago | free | free |

* A pin is renewed by each packet of its flow, and worth nothing when none came for `pause`.
* A new flow takes the place of the one that was silent for longest, never of one that runs. Where all four of a set run
  it goes without a pin: it keeps to its path too while nothing changes, for the draw is always the same.
* The workers share the pins: when the kernel gives a flow to another worker, it stays on its path.

Times: ns, monotonic, in ticks of 2^20. _fast/pins.pyx does the same, in two atomic words for each pin.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

SETS, WAYS = 32768, 4
TICK = 1 << 20  # ns
PAUSE = 200_000_000  # ns

T = TypeVar("T", bound=Hashable)  # a tunnel, whatever the tables know it by


@dataclass(slots=True)
class Pin(Generic[T]):
    """A flow of a prefix, and the tunnel its last packet left by. seen: tick."""

    key: int
    tunnel: T
    seen: int


class Pins(Generic[T]):
    """The pins of all workers. Bounded: SETS * WAYS flows."""

    def __init__(self, pause: int = PAUSE) -> None:
        self.pause = pause  # ns; 0: no flow is pinned
        self._sets: dict[int, list[Pin[T] | None]] = {}

    def tunnel_of(self, key: int, now: int) -> T | None:
        """Where the flow goes, if it runs. key: flow hash ^ hash of the prefix, 64 bits."""
        pin = self._find(key)
        return pin.tunnel if pin and self._runs(pin, now // TICK) else None

    def note(self, key: int, tunnel: T, now: int) -> None:
        """A packet of the flow leaves by that tunnel."""
        tick = now // TICK
        pin = self._find(key)
        if pin is not None:
            pin.tunnel, pin.seen = tunnel, tick
            return
        ways = self._sets.setdefault(_set_of(key), [None] * WAYS)
        way = min(_order(key), key=lambda way: each.seen if (each := ways[way]) else -1)
        before = ways[way]
        if before is None or not self._runs(before, tick):
            ways[way] = Pin(key, tunnel, tick)

    def rename(self, before: T, after: T) -> None:
        """A tunnel has another face: its flows are on it still."""
        for ways in self._sets.values():
            for pin in ways:
                if pin and pin.tunnel == before:
                    pin.tunnel = after

    def _find(self, key: int) -> Pin[T] | None:
        ways = self._sets.get(_set_of(key), [])
        return next((pin for pin in ways if pin and pin.key == key), None)

    def _runs(self, pin: Pin[T], tick: int) -> bool:
        # one tick more than the pause has: it may have begun at the end of one and end at the beginning of another
        return tick - pin.seen < (-(-self.pause // TICK) + 1 if self.pause else 0)


def _set_of(key: int) -> int:
    return (key >> 20) % SETS


def _order(key: int) -> list[int]:
    """Each flow has a way that is looked at first."""
    return [(way + (key >> 40)) % WAYS for way in range(WAYS)]
