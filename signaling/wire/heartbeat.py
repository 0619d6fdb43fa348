"""Heartbeat (RFC 5847 3.3).

6                       8                                               12
| reserved, U, R        | Sequence Number                               | options
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from signaling.iana import HeartbeatFlag, MobilityHeaderType
from signaling.wire.codec import NUMBER, Layout, flags
from signaling.wire.message import Message

_NO_FLAGS = HeartbeatFlag(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat(Message):
    """Asks whether the peer lives, or says so; a response carries a RestartCounter (RFC 5847 3.3, 3.4)."""

    TYPE: ClassVar[int] = MobilityHeaderType.HEARTBEAT
    LAYOUT: ClassVar[Layout] = Layout("RFC 5847 3.3", "HI", flags=flags(HeartbeatFlag), sequence_number=NUMBER)

    flags: HeartbeatFlag = _NO_FLAGS
    sequence_number: int  # 32 bits; 0 in an unsolicited response

    @property
    def response(self) -> bool:
        """Whether it is a response (R flag)."""
        return HeartbeatFlag.RESPONSE in self.flags

    @property
    def unsolicited(self) -> bool:
        """Whether nobody asked: the sender restarted (U flag)."""
        return HeartbeatFlag.UNSOLICITED in self.flags
