"""What all messages have in common: a type, a fixed part with a layout, options."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Self, TypeVar

from signaling.wire.codec import Layout
from signaling.wire.options.option import MalformedOption, Option

Kind = TypeVar("Kind", bound=Option)


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A message of the Mobility Header or of ICMPv6. options: in wire order, padding left out."""

    TYPE: ClassVar[int]
    LAYOUT: ClassVar[Layout]  # of the fixed part, after the header that all messages share

    options: tuple[Option, ...] = ()

    @classmethod
    def read(cls, fixed: bytes, options: tuple[Option, ...]) -> Self:
        """Make the message from its fixed part and options. Raises ValueError."""
        return cls(options=options, **cls.LAYOUT.read(fixed))

    def option(self, kind: type[Kind]) -> Kind | None:
        """Give the first well-formed option of this class, or None."""
        for option in self.options:
            if isinstance(option, kind):
                return option
        return None

    def options_of(self, kind: type[Kind]) -> tuple[Kind, ...]:
        """Give all well-formed options of this class, in wire order."""
        return tuple(option for option in self.options if isinstance(option, kind))

    def malformed(self, *types: int) -> tuple[MalformedOption, ...]:
        """Give the options with broken content, of these types or of any."""
        broken = self.options_of(MalformedOption)
        return tuple(option for option in broken if not types or option.type in types)

    def count(self, number: int) -> int:
        """How many options of this type there are, broken ones included."""
        return sum(option.number == number for option in self.options)


def by_type(kinds: Iterable[type[Message]]) -> dict[int, type[Message]]:
    """Give a table type -> class."""
    return {kind.TYPE: kind for kind in kinds}
