"""Authenticators, and the restart counter of heartbeats."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from signaling.iana import AuthenticationSubtype, OptionType
from signaling.wire.codec import NUMBER, OCTETS, SOME_OCTETS, Layout, named
from signaling.wire.options.option import Option, register


@register
@dataclass(frozen=True, slots=True, kw_only=True)
class BindingAuthorizationData(Option):
    """Authenticator under Kbm, the last option of a message with a correspondent (RFC 6275 6.2.7)."""

    TYPE: ClassVar[int] = OptionType.BINDING_AUTHORIZATION_DATA
    LAYOUT: ClassVar[Layout] = Layout("RFC 6275 6.2.7", "", authenticator=SOME_OCTETS)

    authenticator: bytes  # 12 octets: HMAC-SHA1-96


@register
@dataclass(frozen=True, slots=True, kw_only=True)
class MobilityMessageAuthentication(Option):
    """Authenticator under a shared key (RFC 4285 5); made and checked in `wire.authentication`."""

    TYPE: ClassVar[int] = OptionType.MOBILITY_MESSAGE_AUTHENTICATION
    LAYOUT: ClassVar[Layout] = Layout("RFC 4285 5", "BI", subtype=named(AuthenticationSubtype), spi=NUMBER, data=OCTETS)

    subtype: AuthenticationSubtype | int = AuthenticationSubtype.MN_HA
    spi: int  # 32 bits: which key
    data: bytes  # 12 octets for MN-HA, 20 for MN-AAA


@register
@dataclass(frozen=True, slots=True, kw_only=True)
class RestartCounter(Option):
    """How often the sender of a heartbeat lost its bindings (RFC 5847 3.4)."""

    TYPE: ClassVar[int] = OptionType.RESTART_COUNTER
    LAYOUT: ClassVar[Layout] = Layout("RFC 5847 3.4", "I", counter=NUMBER)

    counter: int  # 32 bits
