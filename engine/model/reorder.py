"""Packets of a striped or doubled flow, in the order of their GRE sequence numbers (RFC 2890 2.2): the specification.

    ...  TWIN or LATE  ...  |  expected  |  early: kept ... |  a jump: slide   |  stray
         HISTORY behind     |            |  up to `packets` |  up to 2 packets |  anywhere else

* A packet that is expected is delivered; so are those behind it that were kept.
* An early one is kept until the gap before it is filled, or for `limit` ns, or until more than `packets` numbers or
  `octets` are waiting: then the gap is given up, counted, and what was kept behind it is delivered.
* A packet of a gap that was given up is LATE. It is counted and delivered, out of order: TCP can use it, and the order
  is lost already. A number that was delivered before is a TWIN and dies.
* A sender that starts again begins anywhere, usually at 0 (RFC 2890 2.2). RESTART different numbers in a row far from
  what is expected are the new numbering; until then they are delivered as they come (STRAY), so that nothing is lost
  and no single stranger moves the window. When nothing new came for QUIET, the first one is believed at once, and so is
  a number below FIRST that comes again QUIET after those numbers were new.
* While one worker has not sent what it took, others' packets are kept behind it: see offer().

Times: ns, monotonic. _fast/reorder.pyx does the same with one mutex per group.
"""

from __future__ import annotations

import enum
from collections import deque
from dataclasses import dataclass, fields

NUMBERS = 1 << 32
HISTORY = 128  # times `packets`: numbers behind the expected one of which we know whether they were delivered
RESTART = 4  # packets
STRAYS = 64  # numbers around the newest stray of which we know whether they were delivered
FIRST = 16  # numbers below it are those a sender begins with
QUIET = 1_000_000_000  # ns; longer than one path may be behind another


class Answer(enum.IntEnum):
    """What becomes of a packet. KEPT and TWIN: it is gone; with the others the caller delivers it now, then takes."""

    DELIVER = 1
    KEPT = 2
    TWIN = 3
    LATE = 4
    STRAY = 5
    FULL = 6  # it should have been kept, and there is no room: delivered out of order


@dataclass(slots=True)
class Counts:
    """Packets, but for given_up (numbers) and resynchronised (times)."""

    in_order: int = 0
    early: int = 0
    late: int = 0
    twins: int = 0
    given_up: int = 0
    resynchronised: int = 0
    strays: int = 0
    full: int = 0

    def row(self) -> tuple[int, ...]:
        """In the order of the fields, as the compiled twin tells them."""
        return tuple(getattr(self, field.name) for field in fields(self))


@dataclass(slots=True)
class Early:
    """A packet that waits. octets None: it was delivered ahead of its turn, there was no room for it."""

    sequence: int
    arrived: int
    octets: bytes | None


class Reorder:
    """One group: the tunnels whose packets carry one numbering. packets: a power of two; limit: ns."""

    def __init__(
        self, *, packets: int = 1024, octets: int = 4 << 20, limit: int = 50_000_000, store: int = 64 << 20
    ) -> None:
        self.counts = Counts()
        self._packets, self._octets, self._limit = packets, octets, limit
        self._history = HISTORY * packets
        self._room = Room(store)
        self._owner = 0
        self._taken: list[bytes] = []
        self._ready: deque[bytes] = deque()
        self._kept: dict[int, Early] = {}  # in the order of arrival
        self._delivered: set[int] = set()  # of the history
        self._synchronised = False
        self._expected = 0
        self._last_new = self._last_first = 0  # ns
        self._stray, self._streak = 0, 0
        self._seen_strays: set[int] = set()

    # --- for the path ---

    def offer(self, worker: int, sequence: int, octets: bytes, now: int) -> Answer:
        """One came. The first worker to touch the group owns it until leave(); only the owner delivers in order."""
        mine = self._claim(worker)
        if not self._synchronised:
            self._start(sequence, now)
        self._expire(now)
        ahead = (sequence - self._expected) % NUMBERS
        behind = NUMBERS - ahead
        if ahead < 2 * self._packets:
            return self._forward(mine, sequence, octets, now)
        if behind <= self._history:
            return self._behind(mine, sequence, octets, now)
        return self._far(mine, sequence, octets, now)

    def take(self, worker: int) -> bytes | None:
        """The next packet in order, for the owner. Its octets stay (in the compiled twin) until leave()."""
        if not self._claim(worker) or not self._ready:
            return None
        self._taken.append(self._ready.popleft())
        return self._taken[-1]

    def leave(self, worker: int) -> bool:
        """What was taken is sent. True: others brought more meanwhile, somebody should take it."""
        if self._owner == worker:
            for octets in self._taken:
                self._room.give_back(octets)
            self._taken.clear()
            self._owner = 0
        return bool(self._ready)

    def expire(self, now: int) -> bool:
        """Give up what waited long enough. True: there is something to take."""
        self._expire(now)
        return bool(self._ready)

    @property
    def deadline(self) -> int | None:
        """When expire() has to be called, ns; the compiled one may be earlier, not later."""
        if self._ready and not self._owner:
            return 0
        return next((e.arrived + self._limit for e in self._kept.values() if e.octets is not None), None)

    # --- steps ---

    def _claim(self, worker: int) -> bool:
        if self._owner == 0:
            self._owner = worker
        return self._owner == worker

    def _forward(self, mine: bool, sequence: int, octets: bytes, now: int) -> Answer:
        self._streak = 0
        ahead = (sequence - self._expected) % NUMBERS
        if ahead >= self._packets:
            self._give_up_to((sequence - self._packets + 1) % NUMBERS)
            self._run()
        if sequence in self._kept:
            self.counts.twins += 1
            return Answer.TWIN
        self._new(sequence, now)
        self._make_room(sequence, len(octets))
        if sequence == self._expected:
            return self._in_order(mine, octets)
        return self._early(sequence, octets, now)

    def _in_order(self, mine: bool, octets: bytes) -> Answer:
        self._delivered.add(self._expected)
        self._advance()
        self.counts.in_order += 1
        answer = Answer.DELIVER
        if self._ready or not mine:
            # what is ready goes first, and what another worker has taken is not sent yet
            if self._room.take(octets):
                self._ready.append(octets)
                answer = Answer.KEPT
            else:
                self.counts.full += 1
                answer = Answer.FULL
        self._run()
        return answer

    def _early(self, sequence: int, octets: bytes, now: int) -> Answer:
        if not self._room.take(octets):
            self.counts.full += 1
            self._kept[sequence] = Early(sequence, now, None)
            return Answer.FULL
        self.counts.early += 1
        self._kept[sequence] = Early(sequence, now, octets)
        return Answer.KEPT

    def _behind(self, mine: bool, sequence: int, octets: bytes, now: int) -> Answer:
        if now - self._last_new >= QUIET or (sequence < FIRST and now - self._last_first >= QUIET):
            return self._believe(mine, sequence, octets, now)
        self._streak = 0
        if sequence in self._delivered:
            self.counts.twins += 1
            return Answer.TWIN
        self._delivered.add(sequence)
        self.counts.late += 1
        return Answer.LATE

    def _far(self, mine: bool, sequence: int, octets: bytes, now: int) -> Answer:
        if now - self._last_new >= QUIET:
            return self._believe(mine, sequence, octets, now)
        off = (sequence - self._stray) % NUMBERS
        near = off < STRAYS or NUMBERS - off < STRAYS
        if self._streak == 0 or not near:
            self._streak, self._stray, self._seen_strays = 1, sequence, {sequence}
        elif sequence in self._seen_strays:
            self.counts.twins += 1
            return Answer.TWIN
        else:
            self._streak += 1
            self._seen_strays.add(sequence)
            if off < STRAYS:
                self._stray = sequence
                self._seen_strays = {n for n in self._seen_strays if (sequence - n) % NUMBERS < STRAYS}
        self.counts.strays += 1
        if self._streak == RESTART:
            self._move((self._stray + 1) % NUMBERS, now)
            self._delivered |= self._seen_strays
        return Answer.STRAY

    # --- where we are in the numbers ---

    def _start(self, sequence: int, now: int) -> None:
        self._synchronised = True
        self._expected = sequence
        self._last_new = self._last_first = now

    def _believe(self, mine: bool, sequence: int, octets: bytes, now: int) -> Answer:
        self._move(sequence, now)
        return self._forward(mine, sequence, octets, now)

    def _move(self, expected: int, now: int) -> None:
        """Go on from another number. Forward within the history keeps the history: twins are still known."""
        while self._kept:
            self._step()
        forward = (expected - self._expected) % NUMBERS
        if forward >= self._history:
            self._delivered.clear()
        self._expected = expected
        self._delivered = {n for n in self._delivered if 0 < (expected - n) % NUMBERS <= self._history}
        self._streak = 0
        self._last_new = self._last_first = now
        self.counts.resynchronised += 1

    def _new(self, sequence: int, now: int) -> None:
        self._last_new = now
        if sequence < FIRST:
            self._last_first = now

    def _advance(self) -> None:
        self._expected = (self._expected + 1) % NUMBERS
        self._delivered.discard((self._expected - self._history - 1) % NUMBERS)

    def _step(self) -> None:
        """Past the expected number, whether its packet is here or not."""
        early = self._kept.pop(self._expected, None)
        if early is None:
            self.counts.given_up += 1
        else:
            self._delivered.add(self._expected)
            if early.octets is not None:
                self._ready.append(early.octets)
        self._advance()

    def _give_up_to(self, sequence: int) -> None:
        while self._expected != sequence:
            self._step()

    def _run(self) -> None:
        while self._expected in self._kept:
            self._step()

    def _make_room(self, sequence: int, length: int) -> None:
        """Give up gaps, nearest first, until this packet may be kept; or until it is the expected one."""
        if self._limit == 0:
            self._give_up_to(sequence)
        while self._expected != sequence and self._waiting() + length > self._octets:
            while self._expected != sequence and self._expected not in self._kept:
                self._step()
            while self._expected != sequence and self._expected in self._kept:
                self._step()

    def _waiting(self) -> int:
        return sum(len(early.octets or b"") for early in self._kept.values())

    def _expire(self, now: int) -> None:
        while True:
            oldest = next((early for early in self._kept.values() if early.octets is not None), None)
            if oldest is None or oldest.arrived + self._limit > now:
                return
            self._give_up_to(oldest.sequence)
            self._run()


class Room:
    """Octets for copies, bounded; a copy takes a small, an ordinary, or its own size (_fast/waiting.pxd)."""

    HEAD, SMALL, ORDINARY = 48, 256, 2048

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._used = 0

    def take(self, octets: bytes) -> bool:
        """False: there is none."""
        room = self._size(octets)
        if self._used + room > self._limit:
            return False
        self._used += room
        return True

    def give_back(self, octets: bytes) -> None:
        """That copy is gone."""
        self._used -= self._size(octets)

    def _size(self, octets: bytes) -> int:
        room = len(octets) + self.HEAD
        return self.SMALL if room <= self.SMALL else max(room, self.ORDINARY)
