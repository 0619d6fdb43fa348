"""How a step of the model refuses a packet."""

from __future__ import annotations

from engine.stats import Drop


class Dropped(Exception):  # noqa: N818 - an event of the walk, not an error
    """The packet died, for this reason."""

    def __init__(self, reason: Drop) -> None:
        self.reason = reason
