"""Binding Revocation Indication and Acknowledgement (RFC 5846 5): one MH Type, told apart by the first octet.

6           7                 8                       10                      12
| B.R. Type | Trigger / Status| Sequence #            | flags                 | options
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from signaling.iana import (
    MobilityHeaderType,
    RevocationFlag,
    RevocationStatus,
    RevocationTrigger,
    RevocationType,
)
from signaling.wire.codec import NUMBER, Constant, Layout, flags, named
from signaling.wire.message import Message


@dataclass(frozen=True, slots=True, kw_only=True)
class BindingRevocationIndication(Message):
    """Says that bindings are no longer (RFC 5846 5.1)."""

    TYPE: ClassVar[int] = MobilityHeaderType.BINDING_REVOCATION
    LAYOUT: ClassVar[Layout] = Layout(
        "RFC 5846 5.1",
        "BBHH",
        _kind=Constant(RevocationType.INDICATION),
        trigger=named(RevocationTrigger),
        sequence_number=NUMBER,
        flags=flags(RevocationFlag),
    )

    trigger: RevocationTrigger | int
    sequence_number: int  # 16 bits
    flags: RevocationFlag


@dataclass(frozen=True, slots=True, kw_only=True)
class BindingRevocationAck(Message):
    """Answers a BindingRevocationIndication (RFC 5846 5.2)."""

    TYPE: ClassVar[int] = MobilityHeaderType.BINDING_REVOCATION
    LAYOUT: ClassVar[Layout] = Layout(
        "RFC 5846 5.2",
        "BBHH",
        _kind=Constant(RevocationType.ACKNOWLEDGEMENT),
        status=named(RevocationStatus),
        sequence_number=NUMBER,
        flags=flags(RevocationFlag),
    )

    status: RevocationStatus | int
    sequence_number: int  # 16 bits, copied from the indication
    flags: RevocationFlag


KINDS: dict[int, type[Message]] = {
    RevocationType.INDICATION: BindingRevocationIndication,
    RevocationType.ACKNOWLEDGEMENT: BindingRevocationAck,
}
