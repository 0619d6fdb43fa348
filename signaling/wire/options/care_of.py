"""Care-of addresses of a client, and what goes with its binding."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import ClassVar

from signaling.iana import OptionType, Status
from signaling.wire.codec import (
    IPV4,
    IPV6,
    LIFETIME,
    NUMBER,
    OPTIONAL_ADDRESS,
    Alignment,
    Bits,
    Layout,
    bits,
    flag,
    named,
)
from signaling.wire.options.option import ALIGNMENT, BINDING_IDENTIFIER_WITH_ADDRESS, Option, register


@register
@dataclass(frozen=True, slots=True, kw_only=True)
class AlternateCareOfAddress(Option):
    """The care-of address, where it is not the source of the packet (RFC 6275 6.2.5, 5213 6.9.1.5)."""

    TYPE: ClassVar[int] = OptionType.ALTERNATE_CARE_OF_ADDRESS
    LAYOUT: ClassVar[Layout] = Layout("RFC 6275 6.2.5", "16s", address=IPV6)

    address: IPv6Address


@register
@dataclass(frozen=True, slots=True, kw_only=True)
class Ipv4CareOfAddress(Option):
    """The care-of address as its owner knows it: another source of the packet tells of a NAT (RFC 5555 3.1.2)."""

    TYPE: ClassVar[int] = OptionType.IPV4_CARE_OF_ADDRESS
    LAYOUT: ClassVar[Layout] = Layout("RFC 5555 3.1.2", "2x4s", address=IPV4)

    address: IPv4Address


@register
@dataclass(frozen=True, slots=True, kw_only=True)
class BindingIdentifier(Option):
    """One of several bindings of a home address (RFC 5648 4.3, 6089 4.1)."""

    TYPE: ClassVar[int] = OptionType.BINDING_IDENTIFIER
    LAYOUT: ClassVar[Layout] = Layout(
        "RFC 5648 4.3",
        "HBB",
        binding_id=NUMBER,
        status=named(Status),
        _home_and_priority=Bits(simultaneous_home=flag(0x80), priority=bits(0x7F)),
        care_of_address=OPTIONAL_ADDRESS,
    )

    binding_id: int  # 16 bits, not 0
    status: Status | int = Status.BINDING_UPDATE_ACCEPTED  # read in answers only
    simultaneous_home: bool = False  # H flag: this binding is the home link
    priority: int = 0  # 7 bits, lower is preferred; 0: the sender knows no priorities
    care_of_address: IPv6Address | IPv4Address | None = None

    @property
    def alignment(self) -> Alignment:
        """Where the Type octet has to stand: depends on whether an address is there."""
        return ALIGNMENT[self.TYPE] if self.care_of_address is None else BINDING_IDENTIFIER_WITH_ADDRESS


@register
@dataclass(frozen=True, slots=True, kw_only=True)
class BindingRefreshAdvice(Option):
    """The home agent would like a refresh that soon (RFC 6275 6.2.4)."""

    TYPE: ClassVar[int] = OptionType.BINDING_REFRESH_ADVICE
    LAYOUT: ClassVar[Layout] = Layout("RFC 6275 6.2.4", "H", interval=LIFETIME)

    interval: int  # seconds (the wire counts units of 4 s)


@register
@dataclass(frozen=True, slots=True, kw_only=True)
class NonceIndices(Option):
    """Which nonces the correspondent made the tokens with (RFC 6275 6.2.6)."""

    TYPE: ClassVar[int] = OptionType.NONCE_INDICES
    LAYOUT: ClassVar[Layout] = Layout("RFC 6275 6.2.6", "HH", home=NUMBER, care_of=NUMBER)

    home: int  # 16 bits
    care_of: int  # 16 bits
