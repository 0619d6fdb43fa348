"""Who a message is about: mobile node, its interface, its group, its MAG, its service."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from signaling.iana import MobileNodeGroupSubtype, MobileNodeIdentifierSubtype, OptionType
from signaling.wire.codec import NUMBER, OCTETS, SOME_OCTETS, Layout, named
from signaling.wire.options.option import Option, register


@register
@dataclass(frozen=True, slots=True, kw_only=True)
class MobileNodeIdentifier(Option):
    """Names the mobile node, stable and unique in the domain (RFC 4283 3, 8371)."""

    TYPE: ClassVar[int] = OptionType.MOBILE_NODE_IDENTIFIER
    LAYOUT: ClassVar[Layout] = Layout("RFC 4283 3", "B", subtype=named(MobileNodeIdentifierSubtype), identifier=OCTETS)

    subtype: MobileNodeIdentifierSubtype | int = MobileNodeIdentifierSubtype.NAI
    identifier: bytes  # empty in an answer to an update without one (RFC 5213 5.3.6)


@register
@dataclass(frozen=True, slots=True, kw_only=True)
class MobileNodeLinkLayerIdentifier(Option):
    """Names the interface of the mobile node (RFC 5213 8.6)."""

    TYPE: ClassVar[int] = OptionType.MOBILE_NODE_LINK_LAYER_IDENTIFIER
    LAYOUT: ClassVar[Layout] = Layout("RFC 5213 8.6", "2x", identifier=OCTETS)

    identifier: bytes  # as RFC 4861 4.6.1: 6 octets for Ethernet; all-zero is not valid


@register
@dataclass(frozen=True, slots=True, kw_only=True)
class MobileNodeGroupIdentifier(Option):
    """Names a group of mobile nodes for bulk updates (RFC 6602 4.3)."""

    TYPE: ClassVar[int] = OptionType.MOBILE_NODE_GROUP_IDENTIFIER
    LAYOUT: ClassVar[Layout] = Layout("RFC 6602 4.3", "BxI", subtype=named(MobileNodeGroupSubtype), identifier=NUMBER)

    subtype: MobileNodeGroupSubtype | int = MobileNodeGroupSubtype.BULK_BINDING_UPDATE
    identifier: int  # 32 bits; 0 is not used, 1: all sessions between this MAG and this LMA


@register
@dataclass(frozen=True, slots=True, kw_only=True)
class MagIdentifier(Option):
    """Names the MAG whatever care-of address it speaks from (RFC 8278 4.2)."""

    TYPE: ClassVar[int] = OptionType.MAG_IDENTIFIER
    LAYOUT: ClassVar[Layout] = Layout(
        "RFC 8278 4.2", "Bx", subtype=named(MobileNodeIdentifierSubtype), identifier=OCTETS
    )

    subtype: MobileNodeIdentifierSubtype | int = MobileNodeIdentifierSubtype.NAI
    identifier: bytes


@register
@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceSelection(Option):
    """Names the service the mobile node asks for (RFC 5149 3). After the MN-ID, before authentication."""

    TYPE: ClassVar[int] = OptionType.SERVICE_SELECTION
    LAYOUT: ClassVar[Layout] = Layout("RFC 5149 3", "", identifier=SOME_OCTETS)

    identifier: bytes  # 1 to 255 octets, UTF-8 NFKC
