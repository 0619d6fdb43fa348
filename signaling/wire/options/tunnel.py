"""How the data path is wrapped: GRE keys, UDP."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from signaling.iana import OptionType
from signaling.wire.codec import NUMBER, OPTIONAL_NUMBER_32, Bits, Layout, flag
from signaling.wire.options.option import Option, register


@register
@dataclass(frozen=True, slots=True, kw_only=True)
class GreKey(Option):
    """Asks for GRE, with a key or without (RFC 5845 6.1)."""

    TYPE: ClassVar[int] = OptionType.GRE_KEY
    LAYOUT: ClassVar[Layout] = Layout("RFC 5845 6.1", "2x", key=OPTIONAL_NUMBER_32)

    key: int | None  # 32 bits; in an update the downlink key, in its answer the uplink key


@register
@dataclass(frozen=True, slots=True, kw_only=True)
class NatDetection(Option):
    """Says whether tunnels go in UDP (RFC 5555 3.2.2, 5844 4.1.3.1)."""

    TYPE: ClassVar[int] = OptionType.NAT_DETECTION
    LAYOUT: ClassVar[Layout] = Layout(
        "RFC 5555 3.2.2", "HI", _reserved=Bits(force_udp=flag(0x8000)), refresh_time=NUMBER
    )

    force_udp: bool = False
    refresh_time: int = 0  # seconds between keepalives; 0: ignore it, all ones: none needed
