"""Binding Acknowledgement and Proxy Binding Acknowledgement (RFC 6275 6.1.8, 5213 8.2).

6           7           8                       10                      12
| Status    | flags     | Sequence #            | Lifetime (4 s units)  | options
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from signaling.iana import BindingAckFlag, MobilityHeaderType, Status
from signaling.wire.codec import LIFETIME, NUMBER, Layout, flags, named
from signaling.wire.message import Message

FIRST_REFUSAL = 128  # RFC 6275 6.1.8


@dataclass(frozen=True, slots=True, kw_only=True)
class BindingAck(Message):
    """Answers a Binding Update (RFC 6275 6.1.8, 5213 8.2)."""

    TYPE: ClassVar[int] = MobilityHeaderType.BINDING_ACKNOWLEDGEMENT
    LAYOUT: ClassVar[Layout] = Layout(
        "RFC 6275 6.1.8",
        "BBHH",
        status=named(Status),
        flags=flags(BindingAckFlag),
        sequence_number=NUMBER,
        lifetime=LIFETIME,
    )

    status: Status | int  # a number we do not know stays a plain int
    flags: BindingAckFlag
    sequence_number: int  # 16 bits, of the update it answers; with status 135 the last one accepted
    lifetime: int  # seconds; undefined unless accepted: do not read it then

    @property
    def proxy(self) -> bool:
        """Whether it answers a Proxy Binding Update (RFC 5213 8.2)."""
        return BindingAckFlag.PROXY_REGISTRATION in self.flags

    @property
    def accepted(self) -> bool:
        """Whether the update was accepted: status below 128."""
        return self.status < FIRST_REFUSAL
