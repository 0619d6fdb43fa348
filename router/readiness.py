"""When a handover is rehearsed: in the moments in which a real one is on its way, and at a bounded rate.

    a carrier appears             a node is about to show itself     ARRIVAL, at a gateway ANSWER: before it is asked to
    packets of a node are held    another router is about to ask     UPDATE, a few times

What is needed to play an act again is played later, act by act, when nobody waits. So are the first rounds of all,
after the router has begun to serve.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable

from router.rehearsal import Act, Rehearsal
from signaling.rate_limit import RateLimit

ROUNDS = 12  # before the first node comes: the interpreter specialises code that has run some times
PLAYS_A_SECOND = 10.0  # of each act: at two milliseconds for all acts, when they run cold, a fiftieth of a processor
WIND_AFTER = 0.25  # s: the packets of the handover have passed
WIND_STEP = 0.002  # s between two acts
VIGIL_STEP = 0.003  # s between two plays


class Ready:
    """One act that is played when told so. make: a rehearsal for that act. plays: how often it can be at once."""

    def __init__(self, make: Callable[[Act], Rehearsal], act: Act, *, plays: int = 1) -> None:
        self._make, self._act = make, act
        self._missing = plays
        self._rounds = 0
        self._waiting: deque[Rehearsal] = deque()
        self._loop = asyncio.get_running_loop()
        self._plays = RateLimit(rate=PLAYS_A_SECOND, burst=plays)
        self._vigil: asyncio.TimerHandle | None = None

    def prepare(self) -> None:
        """Make what is needed, now: some ten milliseconds. Without it nothing is played."""
        while self._prepare_one():
            pass

    def prepare_later(self) -> None:
        """The same, step by step while the router serves."""
        self._loop.call_later(WIND_AFTER, self._prepare_on)

    def _prepare_on(self) -> None:
        if self._prepare_one():
            self._loop.call_later(WIND_STEP, self._prepare_on)

    def _prepare_one(self) -> bool:
        """One step; False: there is nothing more to do."""
        if self._missing:
            self._missing -= 1
            self._waiting.append(self._make(self._act))
        elif self._rounds < ROUNDS and self._waiting:  # else it is being played for what it is for
            self._rounds += 1
            self._waiting[0].play()
            self._waiting[0].wind()
        else:
            return False
        return True

    def play(self) -> bool:
        """Now. False: it has been played often enough lately."""
        if not self._waiting or not self._plays.allows(time.monotonic()):
            return False
        rehearsal = self._waiting.popleft()
        rehearsal.play()
        self._loop.call_later(WIND_AFTER, self._wind, rehearsal)
        return True

    def watch(self) -> None:
        """Now, and again as often as can be, unless it is called off."""
        self.call_off()
        if self.play():
            self._vigil = self._loop.call_later(VIGIL_STEP, self.watch)

    def call_off(self) -> None:
        """The real thing was played."""
        if self._vigil is not None:
            self._vigil.cancel()
            self._vigil = None

    def _wind(self, rehearsal: Rehearsal) -> None:
        if rehearsal.ready:
            self._waiting.append(rehearsal)
        else:
            rehearsal.play()
            self._loop.call_later(WIND_STEP, self._wind, rehearsal)
