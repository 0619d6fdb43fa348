"""One heap of (time, key): what has to be looked at again, and when.

A key has at most one deadline; setting it again moves it. Moved and cancelled ones stay in the heap until they
surface, where the dictionary says that they no longer hold.
"""

import heapq
from collections.abc import Hashable, Iterator
from operator import itemgetter
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
SOON = 0.001  # s: when to do what may wait until the packets that a change was made for have passed


class Deadlines(Generic[Key]):
    """Deadlines of keys, in monotonic seconds."""

    def __init__(self) -> None:
        self._at: dict[Key, float] = {}
        self._heap: list[tuple[float, int, Key]] = []
        self._order = 0  # equal times come out in the order they were set, and keys are never compared

    def set(self, key: Key, at: float) -> None:
        """Look at key again at this time (s), instead of any time set before."""
        self._at[key] = at
        self._order += 1
        heapq.heappush(self._heap, (at, self._order, key))

    def cancel(self, key: Key) -> None:
        """Forget the deadline of key, if it has one."""
        self._at.pop(key, None)

    def of(self, key: Key) -> float | None:
        """When key is due (s), or None."""
        return self._at.get(key)

    def all(self) -> dict[Key, float]:
        """Every key and when it is due (s), in the order in which they come out."""
        return {key: at for at, _, key in sorted(self._heap, key=itemgetter(0, 1)) if self._at.get(key) == at}

    @property
    def next(self) -> float | None:
        """The earliest deadline (s), or None."""
        while self._heap:
            at, _, key = self._heap[0]
            if self._at.get(key) == at:
                return at
            heapq.heappop(self._heap)
        return None

    def due(self, now: float) -> Iterator[Key]:
        """Take out, one by one, every key whose time has come."""
        while (at := self.next) is not None and at <= now:
            key = heapq.heappop(self._heap)[2]
            del self._at[key]
            yield key
