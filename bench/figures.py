"""One line of what a program of ours found: what it is, how much of what, and what was wanted of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of a table. wanted: None where nothing is laid down."""

    key: str
    title: str
    value: float
    unit: str
    wanted: float | None = None
    most: bool = False  # wanted is the most it may be, else the least

    @property
    def holds(self) -> bool:
        """Whether it is as wanted."""
        if self.wanted is None:
            return True
        return self.value <= self.wanted if self.most else self.value >= self.wanted

    @property
    def relation(self) -> str:
        """Of a value that is as wanted to what is wanted."""
        return "<=" if self.most else ">="

    @property
    def verdict(self) -> str:
        """For people."""
        return "holds" if self.holds else "DOES NOT HOLD"


def by_key(figures: Iterable[Figure]) -> dict[str, dict[str, Any]]:
    """For programs: every field of each, and whether it holds."""
    return {figure.key: asdict(figure) | {"holds": figure.holds} for figure in figures}
