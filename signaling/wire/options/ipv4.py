"""IPv4 home addresses of proxy registrations (RFC 5844 3.3)."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import ClassVar

from signaling.iana import Ipv4HomeAddressStatus, OptionType
from signaling.wire.codec import IPV4, Bits, Field, Layout, bits, flag, named
from signaling.wire.options.option import Option, register


def _prefix_length(number: int) -> int:
    if number > 32:
        raise ValueError(f"prefix length {number}, at most 32")
    return number


_ANY = IPv4Address(0)
_PREFIX_LENGTH = Field(_prefix_length, _prefix_length)


@register
@dataclass(frozen=True, slots=True, kw_only=True)
class Ipv4HomeAddressRequest(Option):
    """Asks for an IPv4 home address (RFC 5844 3.3.1)."""

    TYPE: ClassVar[int] = OptionType.IPV4_HOME_ADDRESS_REQUEST
    LAYOUT: ClassVar[Layout] = Layout(
        "RFC 5844 3.3.1",
        "H4s",
        _length=Bits(prefix_length=bits(0xFC00, _PREFIX_LENGTH)),
        address=IPV4,
    )

    address: IPv4Address = _ANY  # 0.0.0.0: any
    prefix_length: int = 0


@register
@dataclass(frozen=True, slots=True, kw_only=True)
class Ipv4HomeAddressReply(Option):
    """Gives or refuses an IPv4 home address (RFC 5844 3.3.2)."""

    TYPE: ClassVar[int] = OptionType.IPV4_HOME_ADDRESS_REPLY
    LAYOUT: ClassVar[Layout] = Layout(
        "RFC 5844 3.3.2",
        "BB4s",
        status=named(Ipv4HomeAddressStatus),
        _length=Bits(prefix_length=bits(0xFC, _PREFIX_LENGTH)),
        address=IPV4,
    )

    status: Ipv4HomeAddressStatus | int
    address: IPv4Address
    prefix_length: int


@register
@dataclass(frozen=True, slots=True, kw_only=True)
class Ipv4DefaultRouterAddress(Option):
    """The default router of the IPv4 home subnet (RFC 5844 3.3.3)."""

    TYPE: ClassVar[int] = OptionType.IPV4_DEFAULT_ROUTER_ADDRESS
    LAYOUT: ClassVar[Layout] = Layout("RFC 5844 3.3.3", "2x4s", address=IPV4)

    address: IPv4Address


@register
@dataclass(frozen=True, slots=True, kw_only=True)
class Ipv4DhcpSupportMode(Option):
    """Says whether the MAG is DHCP server or relay (RFC 5844 3.3.4)."""

    TYPE: ClassVar[int] = OptionType.IPV4_DHCP_SUPPORT_MODE
    LAYOUT: ClassVar[Layout] = Layout("RFC 5844 3.3.4", "H", _mode=Bits(server=flag(0x0001)))

    server: bool
