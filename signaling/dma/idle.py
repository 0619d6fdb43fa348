"""Which visiting prefixes nobody uses any more: an anchor is dragged along only as long as packets pass (draft 3).

Nobody is polled. Each prefix has one deadline, at which its last packet is asked for; if there was one meanwhile, the
deadline moves to so long after it. A prefix that is never silent costs one look in each `after`.
"""

from collections.abc import Callable, Iterator, Mapping
from ipaddress import IPv6Network

from signaling.deadlines import Deadlines

ROUNDING = 0.001  # s: what is left of less is nothing, or it would be looked at for ever without time passing

Silence = Callable[[IPv6Network], float | None]
"""Seconds since the last packet of a prefix, either way; None: there was none."""


class IdleWatch:
    """Prefixes that are watched, each since a time. after: s of silence that make a prefix idle; 0: none ever is."""

    def __init__(self, after: float, silence: Silence | None) -> None:
        """silence: asked when a prefix is due; None: nobody counts packets, so nothing is watched."""
        self._after = after if silence is not None else 0.0
        self._silence = silence or (lambda prefix: None)
        self._since: dict[IPv6Network, float] = {}
        self._deadlines: Deadlines[IPv6Network] = Deadlines()

    @property
    def next_wake(self) -> float | None:
        """When due() has something to look at, monotonic s."""
        return self._deadlines.next

    def watch(self, prefix: IPv6Network, now: float) -> None:
        """Begin anew: silence counts from now on."""
        if self._after:
            self._since[prefix] = now
            self._deadlines.set(prefix, now + self._after)

    def forget(self, prefix: IPv6Network) -> None:
        """It visits no more."""
        self._since.pop(prefix, None)
        self._deadlines.cancel(prefix)

    def since(self, now: float) -> dict[IPv6Network, float]:
        """Since when each watched prefix has been silent, monotonic s."""
        return {prefix: max(now - self._silent(prefix), began) for prefix, began in self._since.items()}

    def take_up(self, since: Mapping[IPv6Network, float]) -> None:
        """What another process of this router has watched."""
        for prefix, at in since.items():
            self.watch(prefix, at)

    def due(self, now: float) -> Iterator[IPv6Network]:
        """Prefixes that were silent for so long; each is told once, and not watched any more."""
        for prefix in self._deadlines.due(now):
            left = self._after - min(self._silent(prefix), now - self._since[prefix])
            if left > ROUNDING:
                self._deadlines.set(prefix, now + left)
                continue
            del self._since[prefix]
            yield prefix

    def _silent(self, prefix: IPv6Network) -> float:
        silence = self._silence(prefix)
        return float("inf") if silence is None else silence
