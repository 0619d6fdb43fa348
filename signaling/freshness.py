"""Old signed messages are refused: timestamps for those that are no updates, and whether one that came in is new.

RFC 4285 leaves replay to the message. A message is fresh when its Timestamp (RFC 5213 8.8) agrees with our clock, and
is newer than that of any fresh one before it about the same thing.
"""

from collections.abc import Hashable

from signaling.settings import TIMESTAMP_UNITS, Clock
from signaling.wire.message import Message
from signaling.wire.options.time import Timestamp

WINDOW = 7.0  # s between the clocks of two routers, on the way included; the default of RFC 4285 6


class Freshness:
    """Stamps what leaves, remembers the newest of what came. window: s, either way."""

    def __init__(self, clock: Clock, *, window: float = WINDOW) -> None:
        self._clock = clock
        self._window = int(window * TIMESTAMP_UNITS)
        self._patience = 2 * window
        self._last_stamp = 0
        self.newest: dict[Hashable, tuple[int, float]] = {}  # timestamp, and when it came (monotonic s)

    def stamp(self, now: float) -> Timestamp:
        """A timestamp newer than the last one, also when the wall clock was set back a little meanwhile."""
        value = self._clock.timestamp(now)
        if value <= self._last_stamp < value + self._window:
            value = self._last_stamp + 1
        self._last_stamp = value
        return Timestamp(value=value)

    def accepts(self, subject: Hashable, message: Message, now: float) -> bool:
        """Whether a genuine message is new. subject: what has one order; callers keep their number bounded."""
        timestamp = message.option(Timestamp)
        if timestamp is None or abs(timestamp.value - self._clock.timestamp(now)) > self._window:
            return False
        newest, at = self.newest.get(subject, (0, now))
        # what came so long ago that the window refuses it anyway need not be remembered: a clock that was set back
        # further than the window must not silence its router for as long as that
        if timestamp.value <= newest and now - at <= self._patience:
            return False
        self.newest[subject] = timestamp.value, now
        return True
