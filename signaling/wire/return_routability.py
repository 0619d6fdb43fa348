"""The four messages of the return routability procedure (RFC 6275 6.1.3 to 6.1.6).

6                       8                       16
| Reserved              | Init Cookie (8)       | options               Home Test Init, Care-of Test Init
| Nonce Index           | Init Cookie (8)       | Keygen Token (8)      Home Test, Care-of Test
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from signaling.iana import MobilityHeaderType
from signaling.wire.codec import NUMBER, Field, Layout
from signaling.wire.message import Message


def _eight(octets: bytes) -> bytes:
    if len(octets) != 8:  # struct would cut or fill it silently
        raise ValueError(f"{len(octets)} octets of cookie or token, must be 8")
    return octets


_EIGHT_OCTETS = Field(_eight, _eight)


@dataclass(frozen=True, slots=True, kw_only=True)
class HomeTestInit(Message):
    """Asks for a home keygen token, by way of the home agent (RFC 6275 6.1.3)."""

    TYPE: ClassVar[int] = MobilityHeaderType.HOME_TEST_INIT
    LAYOUT: ClassVar[Layout] = Layout("RFC 6275 6.1.3", "2x8s", cookie=_EIGHT_OCTETS)

    cookie: bytes  # 8 octets, random


@dataclass(frozen=True, slots=True, kw_only=True)
class CareOfTestInit(Message):
    """Asks for a care-of keygen token (RFC 6275 6.1.4)."""

    TYPE: ClassVar[int] = MobilityHeaderType.CARE_OF_TEST_INIT
    LAYOUT: ClassVar[Layout] = Layout("RFC 6275 6.1.4", "2x8s", cookie=_EIGHT_OCTETS)

    cookie: bytes  # 8 octets, random


@dataclass(frozen=True, slots=True, kw_only=True)
class HomeTest(Message):
    """Carries the home keygen token (RFC 6275 6.1.5)."""

    TYPE: ClassVar[int] = MobilityHeaderType.HOME_TEST
    LAYOUT: ClassVar[Layout] = Layout(
        "RFC 6275 6.1.5", "H8s8s", nonce_index=NUMBER, cookie=_EIGHT_OCTETS, token=_EIGHT_OCTETS
    )

    nonce_index: int  # 16 bits
    cookie: bytes  # 8 octets, copied from the HomeTestInit
    token: bytes  # 8 octets


@dataclass(frozen=True, slots=True, kw_only=True)
class CareOfTest(Message):
    """Carries the care-of keygen token (RFC 6275 6.1.6)."""

    TYPE: ClassVar[int] = MobilityHeaderType.CARE_OF_TEST
    LAYOUT: ClassVar[Layout] = Layout(
        "RFC 6275 6.1.6", "H8s8s", nonce_index=NUMBER, cookie=_EIGHT_OCTETS, token=_EIGHT_OCTETS
    )

    nonce_index: int  # 16 bits
    cookie: bytes  # 8 octets, copied from the CareOfTestInit
    token: bytes  # 8 octets
