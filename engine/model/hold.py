"""Packets of a prefix whose node is between routers wait at its anchor: the specification.

    put       HOLDING ---- release() ----> DRAINING ---- empty, and all of it sent ----> DIRECT
    KEPT  ->  | 1 | 2 | 3 |                at `pace`, new packets behind                 the caller forwards as ever
                 <------------------------ hold() ------------------------------------------

* Bounded in packets, octets and time. A packet that finds it full is dropped (FULL): what came first is what a sender
  repeats last. One that waited `limit` ns is dropped (expired), draining or not.
* The drain is paced, so that a burst of what was held does not overrun the new access link: `pace` octets per second
  (0: no pace), and what a late wake-up missed is made up for, of BURST ns at most. It doubles with every EASE ns, or
  a sender that is faster, and keeps to what is acknowledged, would never see it empty and be held to that for ever.
* Order is kept: while there is a queue, or a worker has not sent what it took, new packets go behind it. But those that
  the former router of the node gives back are older than all that came here since: they go before those.

Times: ns, monotonic. _fast/hold.pyx does the same with one mutex per hold.
"""

from __future__ import annotations

import enum
from collections import deque
from dataclasses import dataclass, fields

from engine.model.reorder import Room

SECOND = 1_000_000_000  # ns
BURST = 5_000_000  # ns
EASE = 100_000_000  # ns
MOST_EASED = 16  # times


class Verdict(enum.IntEnum):
    """What becomes of a packet. DIRECT: forward it; KEPT: it was copied; FULL: it dies."""

    DIRECT = 1
    KEPT = 2
    FULL = 3


class Phase(enum.IntEnum):
    """Of a hold."""

    HOLDING = 1
    DRAINING = 2
    DIRECT = 3


@dataclass(slots=True)
class Counts:
    """Packets."""

    kept: int = 0
    sent: int = 0
    full: int = 0
    expired: int = 0

    def row(self) -> tuple[int, ...]:
        """In the order of the fields, as the compiled twin tells them."""
        return tuple(getattr(self, field.name) for field in fields(self))


class Hold:
    """One prefix. limit: ns; store: octets of all holds together."""

    def __init__(
        self, *, packets: int = 1024, octets: int = 1 << 20, limit: int = 2 * SECOND, store: int = 64 << 20
    ) -> None:
        self.counts = Counts()
        self.phase = Phase.HOLDING
        self._packets, self._octets, self._limit = packets, octets, limit
        self._room = Room(store)
        self._owner = 0
        self._queue: deque[tuple[int, bytes]] = deque()  # arrived, octets
        self._older = 0  # so many at its front were given back
        self._taken: list[bytes] = []
        self._pace = 0  # octets/s
        self._next = 0  # ns, when the next packet may go
        self._released = 0  # ns

    # --- for the path ---

    def put(self, octets: bytes, now: int, *, older: bool = False) -> Verdict:
        """A packet for the prefix. older: it was given back."""
        if self.phase is Phase.DIRECT:
            return Verdict.DIRECT
        self._expire(now)
        fits = len(self._queue) < self._packets and self._waiting() + len(octets) <= self._octets
        if not fits or not self._room.take(octets):
            self.counts.full += 1
            self._settle()
            return Verdict.FULL
        self.counts.kept += 1
        if older:
            behind = self._queue[self._older][0] if self._older < len(self._queue) else now
            self._queue.insert(self._older, (behind, octets))  # who waits longest is in front
            self._older += 1
        else:
            self._queue.append((now, octets))
        return Verdict.KEPT

    def take(self, worker: int, now: int) -> bytes | None:
        """The next packet that may go now, for the worker that drains; None: none yet, or another one drains."""
        if self.phase is not Phase.DRAINING:
            return None
        self._expire(now)
        self._settle()
        if not self._queue or now < self._next:
            return None
        if self._owner == 0:
            self._owner = worker
        if self._owner != worker:
            return None
        octets = self._pop()
        self._taken.append(octets)
        self.counts.sent += 1
        self._pay(len(octets), now)
        return octets

    def leave(self, worker: int) -> None:
        """What was taken is sent."""
        if self._owner != worker:
            return
        for octets in self._taken:
            self._room.give_back(octets)
        self._taken.clear()
        self._owner = 0
        self._settle()

    def expire(self, now: int) -> None:
        """Drop what waited too long; nothing while a worker drains, which does it itself."""
        if self._owner == 0:
            self._expire(now)
            self._settle()

    @property
    def deadline(self) -> int | None:
        """When take() or expire() has to be called, ns; the compiled one may be earlier, not later."""
        if not self._queue or self._owner:
            return None
        end = self._queue[0][0] + self._limit
        return min(end, self._next) if self.phase is Phase.DRAINING else end

    # --- for the control side ---

    def release(self, pace: int, now: int) -> None:
        """The node is back: let what is held go, at pace octets per second."""
        if self.phase is Phase.HOLDING:
            self.phase = Phase.DRAINING
            self._next = self._released = now
        self._pace = pace
        self._settle()

    def hold(self) -> None:
        """The node is away again; what was not sent stays in front."""
        self.phase = Phase.HOLDING

    # --- steps ---

    def _settle(self) -> None:
        if self.phase is Phase.DRAINING and not self._queue and not self._owner:
            self.phase = Phase.DIRECT

    def _pay(self, length: int, now: int) -> None:
        if self._pace == 0:
            return
        pace = self._pace << min(max(0, now - self._released) // EASE, MOST_EASED)
        self._next = max(self._next, now - BURST) + length * SECOND // pace

    def _waiting(self) -> int:
        return sum(len(octets) for _, octets in self._queue)

    def _expire(self, now: int) -> None:
        while self._queue and self._queue[0][0] + self._limit <= now:
            self._room.give_back(self._pop())
            self.counts.expired += 1

    def _pop(self) -> bytes:
        self._older = max(0, self._older - 1)
        return self._queue.popleft()[1]
