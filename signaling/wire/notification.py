"""Update Notification and its acknowledgement (RFC 7077 4); flow mobility rides in them (RFC 7864).

6                       8                       10                      12
| Sequence #            | Notification Reason   | A D reserved          | options   Update Notification
| Sequence #            | Status    | Reserved (3)                      | options   its acknowledgement
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from signaling.iana import (
    MobilityHeaderType,
    UpdateNotificationFlag,
    UpdateNotificationReason,
    UpdateNotificationStatus,
)
from signaling.wire.codec import NUMBER, Layout, flags, named
from signaling.wire.message import Message

_NO_FLAGS = UpdateNotificationFlag(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateNotification(Message):
    """An anchor tells a MAG that something about its bindings changed (RFC 7077 4.1, 7864 4.2)."""

    TYPE: ClassVar[int] = MobilityHeaderType.UPDATE_NOTIFICATION
    LAYOUT: ClassVar[Layout] = Layout(
        "RFC 7077 4.1",
        "HHH",
        sequence_number=NUMBER,
        reason=named(UpdateNotificationReason),
        flags=flags(UpdateNotificationFlag),
    )

    sequence_number: int  # 16 bits
    reason: UpdateNotificationReason | int
    flags: UpdateNotificationFlag = _NO_FLAGS


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateNotificationAck(Message):
    """Answers an UpdateNotification (RFC 7077 4.2, 7864 4.3)."""

    TYPE: ClassVar[int] = MobilityHeaderType.UPDATE_NOTIFICATION_ACKNOWLEDGEMENT
    LAYOUT: ClassVar[Layout] = Layout(
        "RFC 7077 4.2", "HB3x", sequence_number=NUMBER, status=named(UpdateNotificationStatus)
    )

    sequence_number: int  # 16 bits, copied from the notification
    status: UpdateNotificationStatus | int
