"""When sessions have to be looked at: a coarse wheel, because a million of them are refreshed all the time.

    second   1000     1001     1002 ...
             [s7,s9]  [s2]     [s1,s3]       each session is filed once, not later than it expires

A refresh only moves `expires`; the wheel is not touched. When its second comes, a session that was refreshed meanwhile
is filed again, further on. So a refresh costs nothing here, and a session one place in one list.
"""

import heapq
from collections.abc import Iterator
from math import ceil
from typing import Generic, Protocol, TypeVar

AT_ONCE = 2000  # sessions looked at in one turn: a full second must not stop everything else


class Filed(Protocol):
    """What a wheel can hold."""

    expires: float  # monotonic s
    filed: int  # the second it is filed under; 0: nowhere


Item = TypeVar("Item", bound=Filed)


class ExpiryWheel(Generic[Item]):
    """Things by the second (monotonic) in which they expire, rounded up."""

    def __init__(self) -> None:
        self._seconds: list[int] = []
        self._filed: dict[int, list[Item]] = {}

    @property
    def next(self) -> float | None:
        """When something has to be looked at, monotonic s; None: never."""
        return float(self._seconds[0]) if self._seconds else None

    def file(self, item: Item) -> None:
        """Look at it when it expires. Costs nothing if it is filed under an earlier second already."""
        second = ceil(item.expires)
        if item.filed and item.filed <= second:
            return
        item.filed = second
        bucket = self._filed.get(second)
        if bucket is None:
            self._filed[second] = [item]
            heapq.heappush(self._seconds, second)
        else:
            bucket.append(item)

    def drop(self, item: Item) -> None:
        """Never look at it again."""
        item.filed = 0

    def due(self, now: float) -> Iterator[Item]:
        """Take out what has expired, at most so many at once; what was refreshed is filed again."""
        for _ in range(AT_ONCE):
            if not self._seconds or self._seconds[0] > now:
                return
            second = self._seconds[0]
            bucket = self._filed[second]
            item = bucket.pop()
            if not bucket:
                del self._filed[second]
                heapq.heappop(self._seconds)
            if item.filed != second:
                continue  # it was filed earlier since, or dropped
            item.filed = 0
            if item.expires > now:
                self.file(item)
            else:
                yield item
