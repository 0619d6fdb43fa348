"""Binding Error (RFC 6275 6.1.9).

6           7           8
| Status    | Reserved  | Home Address (16)
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import ClassVar

from signaling.iana import BindingErrorStatus, MobilityHeaderType
from signaling.wire.codec import IPV6, Layout, named
from signaling.wire.message import Message


@dataclass(frozen=True, slots=True, kw_only=True)
class BindingError(Message):
    """Says that a Mobility Header or a Home Address option could not be used (RFC 6275 6.1.9, 9.3.3)."""

    TYPE: ClassVar[int] = MobilityHeaderType.BINDING_ERROR
    LAYOUT: ClassVar[Layout] = Layout("RFC 6275 6.1.9", "Bx16s", status=named(BindingErrorStatus), home_address=IPV6)

    status: BindingErrorStatus | int
    home_address: IPv6Address  # of the Home Address option of the packet at fault; :: if it had none
