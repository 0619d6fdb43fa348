"""Where a session was and is anchored, told between MAARs and their central database (RFC 8885)."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv6Address, IPv6Network
from typing import ClassVar, Self

from signaling.iana import OptionType
from signaling.wire.codec import IPV6, NUMBER, OCTETS, Layout, read_prefix
from signaling.wire.options.option import Option, register


@register
@dataclass(frozen=True, slots=True, kw_only=True)
class PreviousMaar(Option):
    """A router that anchors an older prefix of the mobile node (RFC 8885 4.5).

    The length of the prefix stands before the address, the prefix behind it.
    """

    TYPE: ClassVar[int] = OptionType.PREVIOUS_MAAR
    LAYOUT: ClassVar[Layout] = Layout(
        "RFC 8885 4.5", "xB16s16s", _prefix_length=NUMBER, address=IPV6, _prefix_octets=OCTETS
    )

    address: IPv6Address  # of the router
    prefix: IPv6Network

    @classmethod
    def read(cls, data: bytes) -> Self:
        """Make the option from its data. Raises ValueError."""
        values = cls.LAYOUT.read(data)
        prefix = read_prefix(bytes([values["_prefix_length"]]) + values["_prefix_octets"])
        return cls(address=values["address"], prefix=prefix)

    @property
    def _prefix_length(self) -> int:
        return self.prefix.prefixlen

    @property
    def _prefix_octets(self) -> bytes:
        return self.prefix.network_address.packed


@register
@dataclass(frozen=True, slots=True, kw_only=True)
class ServingMaar(Option):
    """The router the mobile node is attached to (RFC 8885 4.6)."""

    TYPE: ClassVar[int] = OptionType.SERVING_MAAR
    LAYOUT: ClassVar[Layout] = Layout("RFC 8885 4.6", "16s", address=IPV6)

    address: IPv6Address


@register
@dataclass(frozen=True, slots=True, kw_only=True)
class DlifLinkLocalAddress(Option):
    """Link-local address of the interface that stands for an older router (RFC 8885 4.7)."""

    TYPE: ClassVar[int] = OptionType.DLIF_LINK_LOCAL_ADDRESS
    LAYOUT: ClassVar[Layout] = Layout("RFC 8885 4.7", "16s", address=IPV6)

    address: IPv6Address


@register
@dataclass(frozen=True, slots=True, kw_only=True)
class DlifLinkLayerAddress(Option):
    """Link-layer address of the interface that stands for an older router (RFC 8885 4.8)."""

    TYPE: ClassVar[int] = OptionType.DLIF_LINK_LAYER_ADDRESS
    LAYOUT: ClassVar[Layout] = Layout("RFC 8885 4.8", "2x", address=OCTETS)

    address: bytes
