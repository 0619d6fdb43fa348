"""Several paths between one MAG and its anchor (RFC 8278)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from signaling.iana import AccessTechnologyType, MultipathBindingFlag, OptionType
from signaling.wire.codec import NUMBER, Layout, named, packed_flags
from signaling.wire.options.option import Option, register

_NO_FLAGS = MultipathBindingFlag(0)


@register
@dataclass(frozen=True, slots=True, kw_only=True)
class MagMultipathBinding(Option):
    """One path of the session (RFC 8278 4.1)."""

    TYPE: ClassVar[int] = OptionType.MAG_MULTIPATH_BINDING
    LAYOUT: ClassVar[Layout] = Layout(
        "RFC 8278 4.1",
        "BBB3s",
        interface_technology=named(AccessTechnologyType),
        interface_label=NUMBER,
        binding_id=NUMBER,
        flags=packed_flags(MultipathBindingFlag, 3),
    )

    interface_technology: AccessTechnologyType | int  # If-ATT, of the WAN interface of the MAG
    interface_label: int  # If-Label, 8 bits, key of routing policies
    binding_id: int  # 8 bits; 0 and 255 are reserved, the role refuses them
    flags: MultipathBindingFlag = _NO_FLAGS
