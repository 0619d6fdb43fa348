"""What the audience of a demo reads while it runs."""

import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

TRIGGERS = {
    "rs": "a router solicitation",
    "ns": "a neighbour solicitation",
    "na": "a neighbour advertisement",
    "mld": "an MLD report",
    "echo": "an echo reply",
    "packet": "its first packet",
    "command": "the operator",
}


def promises(broken: Iterable[str], warnings: Sequence[str] = ()) -> list[str]:
    """What became of the promises of a demo, a line each."""
    held = "every other promise held" if warnings else "every promise held"
    return [*(f"WARNING: {line}" for line in warnings), *([f"BROKEN PROMISE: {line}" for line in broken] or [held])]


class Narrator:
    """The timeline, on standard output or (with -j) on standard error."""

    def __init__(self, *, quiet: bool) -> None:
        self._begin = time.time()
        self._stream = sys.stderr if quiet else sys.stdout

    def begin(self) -> float:
        """Time counts from now on, CLOCK_REALTIME, s."""
        self._begin = time.time()
        return self._begin

    def say(self, text: str, at: float | None = None) -> None:
        """One line, with the time since the beginning. at: CLOCK_REALTIME, s."""
        print(f"{(at or time.time()) - self._begin:7.3f}  {text}", file=self._stream, flush=True)

    def print(self, text: str = "") -> None:
        """Text without a time."""
        print(text, file=self._stream, flush=True)


def noticed(event: Mapping[str, Any]) -> str:
    """By what a router noticed a node."""
    return f"notices the node by {TRIGGERS.get(event['trigger'], event['trigger'])}"
