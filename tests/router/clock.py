"""A clock that a test moves."""

from collections.abc import Callable


class Clock:
    """What time it is, and what was to be done later."""

    def __init__(self) -> None:
        self.now = 100.0
        self.due: list[tuple[float, Callable[[], None]]] = []

    def monotonic(self) -> float:
        return self.now

    def later(self, after: float, what: Callable[[], None]) -> None:
        self.due.append((self.now + after, what))

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while self.due and min(at for at, _ in self.due) <= end:
            self.due.sort(key=lambda each: each[0])
            self.now, what = self.due.pop(0)
            what()
        self.now = end
