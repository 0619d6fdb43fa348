"""How the mobile node is attached: handoff, technology, addresses of the access link."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import ClassVar

from signaling.iana import AccessTechnologyType, HandoffIndicator, OptionType
from signaling.wire.codec import IPV6, NUMBER, OCTETS, Layout, named
from signaling.wire.options.option import Option, register


@register
@dataclass(frozen=True, slots=True, kw_only=True)
class HandoffIndicatorOption(Option):
    """Says whether the mobile node is new, moved or just there still (RFC 5213 8.4)."""

    TYPE: ClassVar[int] = OptionType.HANDOFF_INDICATOR
    LAYOUT: ClassVar[Layout] = Layout("RFC 5213 8.4", "xB", indicator=named(HandoffIndicator))

    indicator: HandoffIndicator | int


@register
@dataclass(frozen=True, slots=True, kw_only=True)
class AccessTechnologyTypeOption(Option):
    """Says what the access link is made of (RFC 5213 8.5)."""

    TYPE: ClassVar[int] = OptionType.ACCESS_TECHNOLOGY_TYPE
    LAYOUT: ClassVar[Layout] = Layout("RFC 5213 8.5", "xB", technology=named(AccessTechnologyType))

    technology: AccessTechnologyType | int


@register
@dataclass(frozen=True, slots=True, kw_only=True)
class LinkLocalAddress(Option):
    """Link-local address of the MAG on the access link, not of the mobile node (RFC 5213 8.7)."""

    TYPE: ClassVar[int] = OptionType.LINK_LOCAL_ADDRESS
    LAYOUT: ClassVar[Layout] = Layout("RFC 5213 8.7", "16s", address=IPV6)

    address: IPv6Address  # :: asks the anchor for one


@register
@dataclass(frozen=True, slots=True, kw_only=True)
class AccessNetworkIdentifier(Option):
    """Describes the access network (RFC 6757 3, 7563); its sub-options are carried, not read."""

    TYPE: ClassVar[int] = OptionType.ACCESS_NETWORK_IDENTIFIER
    LAYOUT: ClassVar[Layout] = Layout("RFC 6757 3", "", suboptions=OCTETS)

    suboptions: bytes


@register
@dataclass(frozen=True, slots=True, kw_only=True)
class MobilityHeaderLinkLayerAddress(Option):
    """A link-layer address (RFC 5568 6.4.4)."""

    TYPE: ClassVar[int] = OptionType.MOBILITY_HEADER_LINK_LAYER_ADDRESS
    LAYOUT: ClassVar[Layout] = Layout("RFC 5568 6.4.4", "B", code=NUMBER, address=OCTETS)

    code: int = 2  # 2: of the mobile node
    address: bytes
