"""Looking after what goes away by itself: again and again while there is something, else never."""

from collections.abc import Callable

Later = Callable[[float, Callable[[], None]], object]
"""Calls a function after so many seconds."""


class Rounds:
    """look() after so many seconds, and again as long as it says so."""

    def __init__(self, later: Later, seconds: float, look: Callable[[], bool]) -> None:
        self._later = later
        self._seconds = seconds
        self._look = look
        self._due = False

    def begin(self) -> None:
        """There is something to look after."""
        if not self._due:
            self._due = True
            self._later(self._seconds, self._go)

    def _go(self) -> None:
        self._due = False
        if self._look():
            self.begin()
