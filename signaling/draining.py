"""A router that is to go: it takes nobody new, serves who is here, and is done when nobody needs it any more.

    serving --begin--> draining --empty, or its time is over--> done
       ^------- end ------'

Nodes here are told to take any other router there is (preference low, RFC 4191 2.1) and other prefixes for what is new
(preferred lifetime 0, RFC 4862 5.5.4); the role does that, here is when, and who is refused. A router lifetime of 0 is
for the very end: it would take the default route, and all connections, from a node that has found no other router yet.
"""

from math import inf

from signaling.actions import Action, Note, Retire
from signaling.events import LinkAttached
from signaling.rate_limit import RateLimit
from signaling.settings import Counters

LOOK_EVERY = 0.5  # s between looks whether the router is empty


class Draining:
    """Whether one role drains, since when, and until when at most. Times are monotonic s."""

    def __init__(self, counters: Counters) -> None:
        self.since: float | None = None  # None: it serves as ever
        self.until = inf
        self._look_at: float | None = None  # None: nothing to look for
        self._counters = counters
        self._words = RateLimit(rate=1.0, burst=10)  # about nodes that are refused

    @property
    def active(self) -> bool:
        """New nodes are refused."""
        return self.since is not None

    @property
    def next_wake(self) -> float | None:
        """When finish() is due next."""
        return None if self._look_at is None else min(self._look_at, self.until)

    def begin(self, within: float, now: float) -> None:
        """Drain from now on, for so long (s) at most; inf: until it is empty. Again: with another end."""
        self.since = now if self.since is None else self.since
        self.until = now + within
        self._look_at = now

    def end(self) -> None:
        """Serve again."""
        self.since, self.until, self._look_at = None, inf, None

    def refuse(self, event: LinkAttached, now: float) -> list[Action]:
        """A new node: it gets nothing."""
        self._counters["drain.refused"] += 1
        if not self._words.allows(now):
            return []
        fields = {"node": event.node, "interface": event.interface, "why": "this router drains"}
        return [Note("attach-refused", fields)]

    def finish(self, now: float, *, empty: bool) -> list[Action]:
        """End, if nobody needs this router, or its time is over; else look again."""
        if not empty and now < self.until:
            self._look_at = now + LOOK_EVERY
            return []
        self._look_at = None
        return [Note("drained", {"why": "nobody needs it" if empty else "its time is over"}), Retire()]
