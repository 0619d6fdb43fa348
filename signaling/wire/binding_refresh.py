"""Binding Refresh Request (RFC 6275 6.1.2): two reserved octets, options."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from signaling.iana import MobilityHeaderType
from signaling.wire.codec import Layout
from signaling.wire.message import Message


@dataclass(frozen=True, slots=True, kw_only=True)
class BindingRefreshRequest(Message):
    """Asks a mobile node to update its binding (RFC 6275 6.1.2); may name bindings by BID (RFC 5648 6.4)."""

    TYPE: ClassVar[int] = MobilityHeaderType.BINDING_REFRESH_REQUEST
    LAYOUT: ClassVar[Layout] = Layout("RFC 6275 6.1.2", "2x")
