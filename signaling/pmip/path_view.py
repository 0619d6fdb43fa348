"""What one end of a path measures and thinks of it, from probes that came and probes that did not.

    UP ---silent---> SUSPECT ---dead---> DOWN          silent: `suspect_after` probes in a row are missing
     ^                  |                 |            dead: `down_after`
     +-----steady-------+------steady-----+            steady: `up_after` came in a row

A probe says when the next one leaves at the latest. It is missing when it is late by more than the margin, which
follows what is seen again and again: jitter of the path, routers that have other things to do.
"""

from enum import Enum

from signaling.pmip.probe import between
from signaling.settings import PathCare, WayState

MIN_MARGIN = 0.005  # s
MAX_MARGIN = 0.1  # s
MARGIN_FACTOR = 6  # a lateness evenly spread over [0, w] or the like: its positive part is w/6 on the average
LATENESS_GAIN = 1 / 8
ROUND_TRIP_GAIN = 1 / 8  # RFC 6298 2
JITTER_GAIN = 1 / 16  # RFC 3550 6.4.1
WINDOW = 100  # probes that the loss is measured over
NUMBERS = 65536
ROUNDING = 1e-6  # s, more than a sum of monotonic times is wrong by


class Sign(Enum):
    """What can change the mind of an end."""

    SILENT = "silent"
    DEAD = "dead"
    STEADY = "steady"
    CARRIER_LOST = "carrier-lost"


UP, SUSPECT, DOWN = WayState.UP, WayState.SUSPECT, WayState.DOWN
NEXT = {
    (UP, Sign.SILENT): SUSPECT,
    (UP, Sign.DEAD): DOWN,
    (SUSPECT, Sign.DEAD): DOWN,
    (SUSPECT, Sign.STEADY): UP,
    (DOWN, Sign.STEADY): UP,
    (UP, Sign.CARRIER_LOST): DOWN,
    (SUSPECT, Sign.CARRIER_LOST): DOWN,
}


class View:
    """How an end sees a path: `what`. Nothing is missed before start(): a peer that knows no probes sends none."""

    def __init__(self, care: PathCare) -> None:
        self.what = WayState.UP
        self.sign: Sign | None = None  # that made it so
        self._care = care
        self._due: float | None = None  # when the next probe should come, monotonic s
        self._every = care.interval  # s, between that one and those after it
        self._in_a_row = 0
        self._lateness = 0.0  # s, smoothed

    @property
    def next(self) -> float | None:
        """When look() may find something, monotonic s."""
        if self._due is None or self.what is DOWN:
            return None
        tolerated = (self._care.suspect_after if self.what is UP else self._care.down_after) - 1
        return self._due + tolerated * self._every + self._margin

    @property
    def _margin(self) -> float:
        return min(MAX_MARGIN, max(MIN_MARGIN, MARGIN_FACTOR * self._lateness))

    def start(self, due: float) -> None:
        """The peer is known to send probes: the first one should be here by then."""
        if self._due is None:
            self._due = due

    def expect(self, due: float, every: float) -> None:
        """Probes should come this early, because they were asked for, and then at least so often."""
        if self._due is not None:
            self._due, self._every = min(self._due, due), min(self._every, every)

    def arrived(self, every: float, now: float, *, lost: int) -> None:
        """A probe came; the next one leaves in `every` s. lost: those that should have come before it."""
        if self._due is not None and not lost:
            late = min(max(0.0, now - self._due), self._margin)  # once may be chance, e.g. that we were late ourselves
            self._lateness += (late - self._lateness) * LATENESS_GAIN
        self._due, self._every = now + every, every
        self._in_a_row = 1 if lost else self._in_a_row + 1
        if self._in_a_row >= self._care.up_after:
            self._step(Sign.STEADY)

    def missing(self, now: float) -> int:
        """Probes in a row that should be here and are not."""
        if self._due is None:
            return 0
        late = now - self._margin - self._due
        return int((late + ROUNDING) / self._every) + 1 if late >= -ROUNDING else 0

    def look(self, now: float) -> None:
        """Think again, because time has passed."""
        missing = self.missing(now)
        if not missing:
            return
        if missing >= self._care.down_after:
            self._step(Sign.DEAD)
        elif missing >= self._care.suspect_after:
            self._step(Sign.SILENT)

    def carrier_lost(self) -> None:
        """No probe will come, the kernel says."""
        self._step(Sign.CARRIER_LOST)

    def registered(self) -> None:
        """The path has just carried a registration. That is all that is known where no probes come."""
        if self._due is None:
            self._step(Sign.STEADY)

    def _step(self, sign: Sign) -> None:
        after = NEXT.get((self.what, sign))
        if after is not None:
            self.what, self.sign, self._in_a_row = after, sign, 0


class Measurements:
    """Loss, round trip and jitter of a path. Times in s."""

    def __init__(self) -> None:
        self.round_trip: float | None = None
        self.jitter = 0.0  # of the way here, RFC 3550 6.4.1
        self.lost = 0  # probes of the peer, ever
        self._transit: int | None = None  # us modulo 2**32, between clocks that have nothing to do with each other
        self._number: int | None = None  # of the newest probe
        self._window = 0  # one bit for each of the last probes: it came
        self._counted = 0  # bits of it that mean something

    def arrived(self, number: int, transit: int) -> int:
        """A probe came: how many before it did not. transit: arrival less timestamp (us), whatever the clocks."""
        if self._transit is not None:
            self.jitter += (abs(between(self._transit, transit)) - self.jitter) * JITTER_GAIN
        self._transit = transit
        ahead = 1 if self._number is None else (number - self._number) % NUMBERS
        if not 0 < ahead < NUMBERS // 2:  # the peer began anew
            ahead = 1
        self._number = number
        self._window = (self._window << min(ahead, WINDOW) | 1) & ((1 << WINDOW) - 1)
        self._counted = min(WINDOW, self._counted + ahead)
        self.lost += ahead - 1
        return ahead - 1

    def answered(self, round_trip: float) -> None:
        """An echo of ours came back."""
        if round_trip < 0:  # an echo of a run before this one
            return
        if self.round_trip is None:
            self.round_trip = round_trip
        else:
            self.round_trip += (round_trip - self.round_trip) * ROUND_TRIP_GAIN

    def loss(self, missing: int) -> int:
        """Probes lost among the last ones, per mille. missing: those that should have come since the newest."""
        sent = self._counted + missing
        return 1000 * (sent - self._window.bit_count()) // sent if sent else 0
