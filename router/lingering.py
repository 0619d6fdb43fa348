"""A tunnel outlives the last prefix that was bound to it for a moment: what its router gives back is let in.

The router that a node left learns late that the node is elsewhere already: by then its prefix is bound to the tunnel to
the next router, and packets for the node are still on their way back from the former one.
"""

import time
from collections.abc import Callable, Iterable

import engine
from engine import Bundle, Tables
from router.rounds import Later, Rounds

SECONDS = 1.0  # as long as packets wait for a node at the router that it left


class Lingering:
    """Tunnels that are kept. later: calls a function after so many seconds; clock: monotonic s."""

    def __init__(self, tables: Tables, later: Later, clock: Callable[[], float] = time.monotonic) -> None:
        self._tables = tables
        self._clock = clock
        self._kept: dict[bytes, tuple[float, Bundle]] = {}  # by tunnel: until when, monotonic s, and what holds it
        self._rounds = Rounds(later, SECONDS, self._look)

    def keep(self, ends: Iterable[engine.Path]) -> None:
        """A prefix leaves these."""
        until = self._clock() + SECONDS
        for end in ends:
            known = self._kept.pop(end.tunnel.key, None)  # the order is that of their ends
            bundle = self._tables.bundle([end]) if known is None else known[1]
            self._kept[end.tunnel.key] = until, bundle
        self._rounds.begin()

    def _look(self) -> bool:
        now = self._clock()
        for key, (until, _) in list(self._kept.items()):
            if until > now:
                break
            del self._kept[key]
        return bool(self._kept)
