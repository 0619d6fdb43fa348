"""Which visiting prefixes nobody uses any more: an anchor is dragged along only as long as packets pass (draft 3).

Nobody is polled. Each prefix has one deadline, at which its last packet is asked for; if there was one meanwhile, the
deadline moves to so long after it. A prefix that is never silent costs one look in each `after`.

A TCP connection may be open and silent: a prefix that has one is in use for as long as that one is honoured. It is
looked at again after another `after` at most, so that where the connection ends meanwhile, as packets tell, the prefix
is idle so long after the last of them. What was seen before the prefix came is not believed: it may have ended
elsewhere. A node that comes again before its prefix was forgotten has not been elsewhere.
"""

from collections.abc import Callable, Iterator, Mapping
from ipaddress import IPv6Network
from math import inf

from signaling.deadlines import Deadlines

ROUNDING = 0.001  # s: what is left of less is nothing, or it would be looked at for ever without time passing

Silence = Callable[[IPv6Network], float | None]
"""Seconds since the last packet of a prefix, either way; None: there was none."""
Honoured = Callable[[IPv6Network, float], float]
"""Seconds for which a prefix, if it stays silent, is in use yet, as it has open connections, of which one has said
something within the last so many seconds; 0: it has none."""


class IdleWatch:
    """Prefixes that are watched, each since a time. after: s of silence that make a prefix idle; 0: none ever is."""

    def __init__(self, after: float, silence: Silence | None, honoured: Honoured | None = None) -> None:
        """silence: asked when a prefix is due; None: nobody counts packets, so nothing is watched.

        honoured: asked when it was silent; None: nobody follows connections.
        """
        self._after = after if silence is not None else 0.0
        self._silence = silence or (lambda prefix: None)
        self._honoured = honoured or (lambda prefix, within: 0.0)
        self._since: dict[IPv6Network, float] = {}
        self._came: dict[IPv6Network, float] = {}  # those of another process are not in it
        self._deadlines: Deadlines[IPv6Network] = Deadlines()

    @property
    def next_wake(self) -> float | None:
        """When due() has something to look at, monotonic s."""
        return self._deadlines.next

    def expect(self, prefix: IPv6Network, now: float) -> None:
        """It comes: what passes from now on is of this visit."""
        self._came[prefix] = now

    def watch(self, prefix: IPv6Network, now: float) -> None:
        """Begin anew: silence counts from now on."""
        if self._after:
            self._since[prefix] = now
            self._deadlines.set(prefix, now + self._after)

    def forget(self, prefix: IPv6Network) -> None:
        """It visits no more."""
        self._since.pop(prefix, None)
        self._came.pop(prefix, None)
        self._deadlines.cancel(prefix)

    def since(self, now: float) -> dict[IPv6Network, float]:
        """Since when each watched prefix has been silent, monotonic s."""
        return {prefix: max(now - self._silent(prefix), began) for prefix, began in self._since.items()}

    def take_up(self, since: Mapping[IPv6Network, float]) -> None:
        """What another process of this router has watched, and whatever it has seen is believed."""
        for prefix, at in since.items():
            self.watch(prefix, at)

    def due(self, now: float) -> Iterator[IPv6Network]:
        """Prefixes that were silent for so long, and have no open connection; each is told once, not watched more."""
        for prefix in self._deadlines.due(now):
            left = self._after - min(self._silent(prefix), now - self._since[prefix])
            if left <= ROUNDING:
                left = min(self._after, self._honoured(prefix, now - self._came.get(prefix, -inf)))
            if left > ROUNDING:
                self._deadlines.set(prefix, now + left)
                continue
            del self._since[prefix]
            yield prefix

    def _silent(self, prefix: IPv6Network) -> float:
        silence = self._silence(prefix)
        return inf if silence is None else silence
