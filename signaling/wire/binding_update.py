"""Binding Update and Proxy Binding Update (RFC 6275 6.1.7, 5213 8.1): one message, told apart by P.

6                       8                       10                      12
| Sequence #            | flags                 | Lifetime (4 s units)  | options
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from signaling.iana import BindingUpdateFlag, MobilityHeaderType
from signaling.wire.codec import LIFETIME, NUMBER, Layout, flags
from signaling.wire.message import Message


@dataclass(frozen=True, slots=True, kw_only=True)
class BindingUpdate(Message):
    """Asks for a binding, or with lifetime 0 for its end (RFC 6275 6.1.7, 5213 8.1)."""

    TYPE: ClassVar[int] = MobilityHeaderType.BINDING_UPDATE
    LAYOUT: ClassVar[Layout] = Layout(
        "RFC 6275 6.1.7", "HHH", sequence_number=NUMBER, flags=flags(BindingUpdateFlag), lifetime=LIFETIME
    )

    sequence_number: int  # 16 bits
    flags: BindingUpdateFlag
    lifetime: int  # seconds (the wire counts units of 4 s, rounded down but never to 0); 0: delete

    @property
    def proxy(self) -> bool:
        """Whether a MAG speaks for the mobile node (RFC 5213 8.1)."""
        return BindingUpdateFlag.PROXY_REGISTRATION in self.flags

    @property
    def acknowledge(self) -> bool:
        """Whether the sender wants an answer even on success."""
        return BindingUpdateFlag.ACKNOWLEDGE in self.flags
