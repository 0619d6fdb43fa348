"""Timers the anchor sets for its MAGs (RFC 8127 3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

from signaling.errors import MalformedMessage
from signaling.iana import LmaControlledSuboption, OptionType
from signaling.wire.codec import LIFETIME, NUMBER, Field, Layout
from signaling.wire.options.option import Option, frames, register


@dataclass(frozen=True, slots=True, kw_only=True)
class ReregistrationControl:
    """When to refresh and how to resend (RFC 8127 3.1.1). A zero spoils the whole answer."""

    LAYOUT: ClassVar[Layout] = Layout(
        "RFC 8127 3.1.1",
        "HHH",
        start_time=LIFETIME,
        initial_retransmission_time=NUMBER,
        maximum_retransmission_time=NUMBER,
    )

    start_time: int  # seconds before the end of the lifetime (the wire counts units of 4 s)
    initial_retransmission_time: int  # seconds
    maximum_retransmission_time: int  # seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class HeartbeatControl:
    """How to send heartbeats (RFC 8127 3.1.2)."""

    LAYOUT: ClassVar[Layout] = Layout(
        "RFC 8127 3.1.2", "HHH", interval=NUMBER, retransmission_delay=NUMBER, maximum_retransmissions=NUMBER
    )

    interval: int  # seconds
    retransmission_delay: int  # seconds
    maximum_retransmissions: int


@register
@dataclass(frozen=True, slots=True, kw_only=True)
class LmaControlledMagParameters(Option):
    """Timers that override those of the MAG; in answers only, once (RFC 8127 3)."""

    TYPE: ClassVar[int] = OptionType.LMA_CONTROLLED_MAG_PARAMETERS
    LAYOUT: ClassVar[Layout] = Layout("RFC 8127 3", "", _suboptions=Field(bytes, bytes))

    reregistration: ReregistrationControl | None = None
    heartbeat: HeartbeatControl | None = None

    @classmethod
    def read(cls, data: bytes) -> Self:
        """Make the option from its data; sub-options not known here are skipped. Raises ValueError."""
        try:
            found = frames(data, 0, pads=())
        except MalformedMessage as error:
            raise ValueError(f"sub-options: {error.why}") from error
        reregistration, heartbeat = None, None
        for number, start, end in found:
            if number == LmaControlledSuboption.BINDING_REREGISTRATION_CONTROL:
                reregistration = ReregistrationControl(**ReregistrationControl.LAYOUT.read(data[start:end]))
            elif number == LmaControlledSuboption.HEARTBEAT_CONTROL:
                heartbeat = HeartbeatControl(**HeartbeatControl.LAYOUT.read(data[start:end]))
        return cls(reregistration=reregistration, heartbeat=heartbeat)

    @property
    def _suboptions(self) -> bytes:
        octets = b""
        if self.reregistration is not None:
            data = self.reregistration.LAYOUT.write(self.reregistration)
            octets += bytes([LmaControlledSuboption.BINDING_REREGISTRATION_CONTROL, len(data)]) + data
        if self.heartbeat is not None:
            data = self.heartbeat.LAYOUT.write(self.heartbeat)
            octets += bytes([LmaControlledSuboption.HEARTBEAT_CONTROL, len(data)]) + data
        return octets
