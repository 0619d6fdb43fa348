"""Options whose content a vendor defines (RFC 5094)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from signaling.iana import OptionType
from signaling.wire.codec import NUMBER, OCTETS, Layout
from signaling.wire.options.option import Option, register


@register
@dataclass(frozen=True, slots=True, kw_only=True)
class VendorSpecific(Option):
    """Content of a vendor's own (RFC 5094 3); may stand several times."""

    TYPE: ClassVar[int] = OptionType.VENDOR_SPECIFIC
    LAYOUT: ClassVar[Layout] = Layout("RFC 5094 3", "IB", vendor=NUMBER, subtype=NUMBER, data=OCTETS)

    vendor: int  # 32 bits, IANA private enterprise number
    subtype: int  # 8 bits
    data: bytes
