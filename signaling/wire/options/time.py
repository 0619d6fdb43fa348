"""Time on the wire: the Timestamp of proxy registrations, the replay protection of RFC 4285. Two formats."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar, Self

from signaling.iana import OptionType
from signaling.wire.codec import NUMBER, Layout
from signaling.wire.options.option import Option, register


@register
@dataclass(frozen=True, slots=True, kw_only=True)
class Timestamp(Option):
    """When an update was sent (RFC 5213 8.8): 48 bits of seconds since 1970, 16 bits of fraction. Not NTP.

    The value is kept as the wire has it, so that an anchor compares and echoes it exactly.
    """

    TYPE: ClassVar[int] = OptionType.TIMESTAMP
    LAYOUT: ClassVar[Layout] = Layout("RFC 5213 8.8", "Q", value=NUMBER)

    value: int  # 1/65536 s since 1970-01-01 00:00 UTC

    @classmethod
    def from_seconds(cls, seconds: float | Fraction) -> Self:
        """Make one from seconds since 1970-01-01 00:00 UTC, cut to 1/65536 s."""
        return cls(value=int(seconds * 65536))

    @property
    def seconds(self) -> float:
        """Seconds since 1970-01-01 00:00 UTC; exact until the year 6325."""
        return self.value / 65536


@register
@dataclass(frozen=True, slots=True, kw_only=True)
class MobilityMessageReplayProtection(Option):
    """When an authenticated message was sent (RFC 4285 6), in NTP format."""

    TYPE: ClassVar[int] = OptionType.MOBILITY_MESSAGE_REPLAY_PROTECTION
    LAYOUT: ClassVar[Layout] = Layout("RFC 4285 6", "Q", value=NUMBER)

    value: int  # 1/2**32 s since 1900-01-01 00:00 UTC
