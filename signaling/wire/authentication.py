"""Authenticating a message with a shared key: the MN-HA and MN-AAA authenticators (RFC 4285 5).

    HMAC-SHA1 over  care-of address (16) | home address (16) | Mobility Header to the SPI, checksum taken as 0

RFC 4285 is written for a client and its home agent. For proxy registrations no RFC says anything: this
project takes the proxy care-of address and, as home address, 16 zero octets. Non-standard: both ends must read it so.
"""

from __future__ import annotations

import hashlib
import hmac
from functools import lru_cache
from ipaddress import IPv6Address
from typing import Final

from signaling.errors import MalformedMessage
from signaling.iana import AuthenticationSubtype, OptionType
from signaling.wire.codec import Address, pad
from signaling.wire.message import Message
from signaling.wire.mobility_header import HEADER, KINDS, announce_length, begin, fill_checksum
from signaling.wire.options import MobilityMessageAuthentication
from signaling.wire.options.option import ALIGNMENT, frames

NO_HOME_ADDRESS: Final = IPv6Address(0)  # in proxy registrations
AUTHENTICATOR: Final = {AuthenticationSubtype.MN_HA: 12, AuthenticationSubtype.MN_AAA: 20}  # octets

_SUBTYPE_AND_SPI = 5  # octets
_BLOCK = 64  # octets, of SHA-1
_BEGIN = {  # type, length and subtype of the option
    kind: bytes((OptionType.MOBILITY_MESSAGE_AUTHENTICATION, _SUBTYPE_AND_SPI + size, kind))
    for kind, size in AUTHENTICATOR.items()
}


def authenticator(
    key: bytes,
    care_of: Address,
    home_address: Address,
    octets: bytes,
    subtype: AuthenticationSubtype = AuthenticationSubtype.MN_HA,
) -> bytes:
    """Compute the authentication data: 12 octets for MN-HA, 20 for MN-AAA (RFC 4285 5.1, 5.2).

    octets: the message from Payload Proto up to and with the SPI; its checksum counts as 0.
    """
    text = b"".join((care_of.packed, home_address.packed, octets[:4], b"\0\0", octets[6:]))
    if subtype == AuthenticationSubtype.MN_AAA:
        text = hashlib.sha1(text, usedforsecurity=False).digest()
    inner, outer = _keyed(key)
    digest, sealed = inner.copy(), outer.copy()
    digest.update(text)
    sealed.update(digest.digest())
    return sealed.digest()[: AUTHENTICATOR[subtype]]


@lru_cache(maxsize=4096)
def _keyed(key: bytes) -> tuple[hashlib._Hash, hashlib._Hash]:
    """The two SHA-1 states that every HMAC with this key begins with (RFC 2104 4)."""
    block = (key if len(key) <= _BLOCK else hashlib.sha1(key, usedforsecurity=False).digest()).ljust(_BLOCK, b"\0")
    begun = (hashlib.sha1(bytes(octet ^ pad for octet in block), usedforsecurity=False) for pad in (0x36, 0x5C))
    return next(begun), next(begun)


def sign(
    message: Message,
    key: bytes,
    spi: int,
    *,
    care_of: Address,
    source: Address,
    destination: Address,
    home_address: Address = NO_HOME_ADDRESS,
    subtype: AuthenticationSubtype = AuthenticationSubtype.MN_HA,
    checksum: bool = True,
) -> bytes:
    """Encode message with a Mobility Message Authentication option as its last. Raises UnencodableMessage.

    source, destination, checksum: as for mobility_header.encode().
    """
    octets = begin(message)
    pad(octets, ALIGNMENT[OptionType.MOBILITY_MESSAGE_AUTHENTICATION])
    octets += _BEGIN[subtype]
    octets += spi.to_bytes(4, "big")
    size = AUTHENTICATOR[subtype]  # the option stands at 8n+5, so that its data ends the message
    announce_length(octets, message, to_come=size)
    octets += authenticator(key, care_of, home_address, bytes(octets), subtype)
    if checksum:
        fill_checksum(octets, source, destination)
    return bytes(octets)


def sign_again(
    octets: bytearray,
    key: bytes,
    *,
    care_of: Address,
    home_address: Address = NO_HOME_ADDRESS,
    subtype: AuthenticationSubtype = AuthenticationSubtype.MN_HA,
) -> None:
    """Write anew the authenticator that ends octets, a message from sign() that was changed; the length stays."""
    size = AUTHENTICATOR[subtype]
    octets[-size:] = authenticator(key, care_of, home_address, bytes(octets[:-size]), subtype)


def verify(
    octets: bytes,
    key: bytes,
    care_of: Address,
    home_address: Address = NO_HOME_ADDRESS,
    subtype: AuthenticationSubtype = AuthenticationSubtype.MN_HA,
) -> bool:
    """Tell whether octets, a Mobility Header, carry the right authenticator; in constant time.

    False too if there is no such option, or if an option behind it is not covered by it. Never raises.
    """
    place = _place(octets, subtype)
    if place is None:
        return False
    start, end = place
    right = authenticator(key, care_of, home_address, octets[:start], subtype)
    return hmac.compare_digest(right, bytes(octets[start:end]))


def spi_of(message: Message, subtype: AuthenticationSubtype = AuthenticationSubtype.MN_HA) -> int | None:
    """Give the SPI of the authentication option of this subtype, None if there is none."""
    for option in message.options_of(MobilityMessageAuthentication):
        if option.subtype == subtype:
            return option.spi
    return None


def spi_at_end(octets: bytes, subtype: AuthenticationSubtype = AuthenticationSubtype.MN_HA) -> int:
    """The SPI of a message that ends with an authentication option of this subtype."""
    end = len(octets) - AUTHENTICATOR[subtype]
    return int.from_bytes(octets[end - 4 : end], "big")


def _place(octets: bytes, subtype: AuthenticationSubtype) -> tuple[int, int] | None:
    # of the data of the authentication option; nothing but another authenticator may follow it
    end, size = len(octets), AUTHENTICATOR[subtype]
    if octets[end - size - 7 : end - size - 4] == _BEGIN[subtype] and end == (octets[1] + 1) * 8:
        # it ends the message, as ours does. Were these octets the content of another option, the sender would still
        # have known the key, and all before them is covered
        return end - size, end
    found = None
    for number, start, end in _frames(octets):
        authentication = number == OptionType.MOBILITY_MESSAGE_AUTHENTICATION
        if authentication and octets[start : start + 1] == bytes([subtype]) and end - start > _SUBTYPE_AND_SPI:
            found = (start + _SUBTYPE_AND_SPI, end)
        elif found and not authentication:
            return None
    return found


def _frames(octets: bytes) -> list[tuple[int, int, int]]:
    if len(octets) < 8 or octets[2] not in KINDS:
        return []
    try:
        return frames(octets[: (octets[1] + 1) * 8], HEADER + KINDS[octets[2]].LAYOUT.size)
    except MalformedMessage:
        return []
