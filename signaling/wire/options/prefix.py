"""Prefixes: of a home network, of a mobile router, delegated, anchored at a MAAR.

    0               1               2               3               4
    |     Type      |   Length 18   | (L) Reserved  | Prefix Length | Prefix (16)

All-zero octets mean "assign one for me", whatever the length says (RFC 5213 8.3).
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from typing import ClassVar

from signaling.iana import OptionType
from signaling.wire.codec import IPV6_PREFIX, Bits, Field, Layout, flag, read_prefix
from signaling.wire.options.option import Option, register


@dataclass(frozen=True, slots=True, kw_only=True)
class _PrefixOption(Option):
    prefix: IPv6Network

    @property
    def all_zero(self) -> bool:
        """Whether it asks for a prefix instead of naming one."""
        return int(self.prefix.network_address) == 0


@register
@dataclass(frozen=True, slots=True, kw_only=True)
class HomeNetworkPrefix(_PrefixOption):
    """A prefix of the mobility session (RFC 5213 8.3, 7864 4.1)."""

    TYPE: ClassVar[int] = OptionType.HOME_NETWORK_PREFIX
    LAYOUT: ClassVar[Layout] = Layout("RFC 5213 8.3", "B17s", _reserved=Bits(off_link=flag(0x80)), prefix=IPV6_PREFIX)

    off_link: bool = False  # route it to this mobile node, do not advertise it there; of a MAR also: somebody orders so


@register
@dataclass(frozen=True, slots=True, kw_only=True)
class MobileNetworkPrefix(_PrefixOption):
    """A prefix behind a mobile router (RFC 3963 4.3)."""

    TYPE: ClassVar[int] = OptionType.MOBILE_NETWORK_PREFIX
    LAYOUT: ClassVar[Layout] = Layout("RFC 3963 4.3", "x17s", prefix=IPV6_PREFIX)


@register
@dataclass(frozen=True, slots=True, kw_only=True)
class AnchoredPrefix(_PrefixOption):
    """A prefix anchored at the sender (RFC 8885 4.3)."""

    TYPE: ClassVar[int] = OptionType.ANCHORED_PREFIX
    LAYOUT: ClassVar[Layout] = Layout("RFC 8885 4.3", "x17s", prefix=IPV6_PREFIX)


@register
@dataclass(frozen=True, slots=True, kw_only=True)
class LocalPrefix(_PrefixOption):
    """A prefix reachable only by way of its anchor (RFC 8885 4.4)."""

    TYPE: ClassVar[int] = OptionType.LOCAL_PREFIX
    LAYOUT: ClassVar[Layout] = Layout("RFC 8885 4.4", "x17s", prefix=IPV6_PREFIX)


_IPV4 = 0x80  # the V flag, RFC 7148 4.1


def _read_delegated(octets: bytes) -> IPv4Network | IPv6Network:
    if not octets:
        raise ValueError("length 0, RFC 7148 4.1 says 6 or 18")
    family, rest = octets[0] & _IPV4, octets[1:]
    address_octets = 4 if family else 16
    if len(rest) != 1 + address_octets:
        raise ValueError(f"length {len(octets)}, RFC 7148 4.1 says {2 + address_octets}")
    if not family:
        return read_prefix(rest)
    if rest[0] > 32:
        raise ValueError(f"prefix length {rest[0]}, at most 32")
    network = IPv4Network((rest[1:], rest[0]), strict=False)
    if int(network.network_address) == 0 and any(rest[1:]):
        raise ValueError("the prefix has bits only beyond its length")
    return network


def _write_delegated(network: IPv4Network | IPv6Network) -> bytes:
    family = _IPV4 if network.version == 4 else 0
    return bytes([family, network.prefixlen]) + network.network_address.packed


@register
@dataclass(frozen=True, slots=True, kw_only=True)
class DelegatedMobileNetworkPrefix(Option):
    """A prefix of either family for the network behind the mobile node (RFC 7148 4.1)."""

    TYPE: ClassVar[int] = OptionType.DELEGATED_MOBILE_NETWORK_PREFIX
    LAYOUT: ClassVar[Layout] = Layout("RFC 7148 4.1", "", prefix=Field(_read_delegated, _write_delegated))

    prefix: IPv4Network | IPv6Network

    @property
    def all_zero(self) -> bool:
        """Whether it asks for a prefix of its family instead of naming one."""
        return int(self.prefix.network_address) == 0
