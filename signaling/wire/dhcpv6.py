"""DHCPv6 messages between client and server (RFC 8415 8), with the options that delegate a prefix.

    msg-type (1) | transaction-id (3) | options: code (2), length (2), data
                                        IA_PD: IAID, T1, T2 | options: IA Prefix, Status Code
                                        IA_NA: IAID, T1, T2 | options: IA Address, Status Code
                                        IA_TA: IAID         | options: the same

Messages of relays (RFC 8415 9) are not understood. An option that is not listed here is passed by: nothing is ever
sent on. Of an option that may stand once, the first one counts.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from ipaddress import IPv6Address, IPv6Network
from typing import Final, TypeVar

from signaling.errors import MalformedMessage, Reason, UnencodableMessage
from signaling.iana import Dhcpv6MessageType, Dhcpv6Option, Dhcpv6Status, known

ALL_SERVERS: Final = IPv6Address("ff02::1:2")  # All_DHCP_Relay_Agents_and_Servers, RFC 8415 7.1
INFINITE: Final = 0xFFFFFFFF  # s, RFC 8415 7.7

Value = TypeVar("Value")

_HEADER: Final = 4  # octets
_OPTION: Final = struct.Struct("!HH")
_ASSOCIATION: Final = struct.Struct("!III")  # IAID, T1, T2
_PREFIX: Final = struct.Struct("!IIB16s")  # preferred, valid, length, prefix
_ADDRESS: Final = struct.Struct("!16sII")  # address, preferred, valid
_DUID_SIZES: Final = range(3, 131)  # octets, RFC 8415 11.1
_RELAYED: Final = (Dhcpv6MessageType.RELAY_FORW, Dhcpv6MessageType.RELAY_REPL)
_WITH_ADDRESSES: Final = (Dhcpv6Option.IA_NA, Dhcpv6Option.IA_TA)


@dataclass(frozen=True, slots=True)
class StatusCode:
    """How it went, RFC 8415 21.13."""

    code: Dhcpv6Status | int
    text: str = ""  # for a human


@dataclass(frozen=True, slots=True, kw_only=True)
class DelegatedPrefix:
    """IA Prefix option, RFC 8415 21.22. ::/length is a wish for any prefix of that length."""

    prefix: IPv6Network
    preferred_lifetime: int = 0  # s; INFINITE
    valid_lifetime: int = 0  # s; INFINITE; 0 from a server: not yours


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefixAssociation:
    """IA_PD option: the prefixes of one purpose of a client, RFC 8415 21.21."""

    iaid: int  # 32 bits, chosen by the client
    renew_after: int = 0  # s, T1; 0: not said
    rebind_after: int = 0  # s, T2; 0: not said
    prefixes: tuple[DelegatedPrefix, ...] = ()
    status: StatusCode | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressAssociation:
    """IA_NA or IA_TA option, RFC 8415 21.4, 21.5. Lifetimes are not kept: here no address is ever leased."""

    kind: Dhcpv6Option = Dhcpv6Option.IA_NA
    iaid: int
    addresses: tuple[IPv6Address, ...] = ()
    status: StatusCode | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Dhcpv6Message:
    """One message, either way. None: the option is not there."""

    type: Dhcpv6MessageType | int
    transaction: int  # 24 bits
    client: bytes | None = None  # DUID, of 3 to 130 octets
    server: bytes | None = None  # DUID
    preference: int | None = None  # 255: no need to wait for another server
    rapid_commit: bool = False
    status: StatusCode | None = None
    delegations: tuple[PrefixAssociation, ...] = ()
    addresses: tuple[AddressAssociation, ...] = ()


# --- reading ------------------------------------------------------------------------------------------------


def decode(octets: bytes) -> Dhcpv6Message:
    """Give the message in a UDP payload. Raises only MalformedMessage; the answer to that is silence."""
    octets = bytes(octets)
    if len(octets) < _HEADER:
        raise _malformed(0, f"{len(octets)} octets", Reason.TRUNCATED)
    if octets[0] in _RELAYED:
        raise _malformed(0, "from a relay", Reason.UNKNOWN_TYPE)
    found = _options(octets, _HEADER)
    try:
        return Dhcpv6Message(
            type=known(Dhcpv6MessageType, octets[0]),
            transaction=int.from_bytes(octets[1:4], "big"),
            client=_first(found, Dhcpv6Option.CLIENTID, _read_duid),
            server=_first(found, Dhcpv6Option.SERVERID, _read_duid),
            preference=_first(found, Dhcpv6Option.PREFERENCE, _read_octet),
            rapid_commit=any(code == Dhcpv6Option.RAPID_COMMIT for code, _ in found),
            status=_first(found, Dhcpv6Option.STATUS_CODE, _read_status),
            delegations=tuple(_read_delegation(data) for code, data in found if code == Dhcpv6Option.IA_PD),
            addresses=tuple(_read_addresses(code, data) for code, data in found if code in _WITH_ADDRESSES),
        )
    except (ValueError, struct.error) as error:
        raise _malformed(_HEADER, str(error), Reason.FIELD) from error


Found = list[tuple[int, bytes]]  # options: code, data


def _options(octets: bytes, at: int) -> Found:
    found = []
    while at < len(octets):
        if at + _OPTION.size > len(octets):
            raise _malformed(at, "option without a length", Reason.OPTION_TRUNCATED)
        code, size = _OPTION.unpack_from(octets, at)
        start, at = at + _OPTION.size, at + _OPTION.size + size
        if at > len(octets):
            raise _malformed(start, f"option {code} of {size} octets, not all here", Reason.OPTION_OVERRUN)
        found.append((code, octets[start:at]))
    return found


def _first(found: Found, wanted: int, read: Callable[[bytes], Value]) -> Value | None:
    return next((read(data) for code, data in found if code == wanted), None)


def _read_duid(octets: bytes) -> bytes:
    if len(octets) not in _DUID_SIZES:
        raise ValueError(f"DUID of {len(octets)} octets, RFC 8415 11.1 says 3 to 130")
    return octets


def _read_octet(octets: bytes) -> int:
    if len(octets) != 1:
        raise ValueError(f"{len(octets)} octets where one must stand")
    return octets[0]


def _read_status(octets: bytes) -> StatusCode:
    if len(octets) < 2:
        raise ValueError(f"Status Code of {len(octets)} octets")
    return StatusCode(known(Dhcpv6Status, int.from_bytes(octets[:2], "big")), octets[2:].decode("utf-8", "replace"))


def _read_delegation(octets: bytes) -> PrefixAssociation:
    iaid, renew_after, rebind_after = _ASSOCIATION.unpack_from(octets)
    found = _options(octets, _ASSOCIATION.size)
    return PrefixAssociation(
        iaid=iaid,
        renew_after=renew_after,
        rebind_after=rebind_after,
        prefixes=tuple(_read_prefix(data) for code, data in found if code == Dhcpv6Option.IAPREFIX),
        status=_first(found, Dhcpv6Option.STATUS_CODE, _read_status),
    )


def _read_prefix(octets: bytes) -> DelegatedPrefix:
    preferred, valid, length, address = _PREFIX.unpack_from(octets)
    prefix = IPv6Network((address, length), strict=False)  # bits beyond the length are ignored, RFC 8415 21.22
    return DelegatedPrefix(prefix=prefix, preferred_lifetime=preferred, valid_lifetime=valid)


def _read_addresses(kind: int, octets: bytes) -> AddressAssociation:
    size = _ASSOCIATION.size if kind == Dhcpv6Option.IA_NA else 4
    if len(octets) < size:
        raise ValueError(f"option {kind} of {len(octets)} octets")
    found = _options(octets, size)
    addresses = (_ADDRESS.unpack_from(data)[0] for code, data in found if code == Dhcpv6Option.IAADDR)
    return AddressAssociation(
        kind=Dhcpv6Option(kind),
        iaid=int.from_bytes(octets[:4], "big"),
        addresses=tuple(map(IPv6Address, addresses)),
        status=_first(found, Dhcpv6Option.STATUS_CODE, _read_status),
    )


# --- writing ------------------------------------------------------------------------------------------------


def encode(message: Dhcpv6Message) -> bytes:
    """Give the UDP payload of a message. Raises UnencodableMessage."""
    try:
        head = bytes([message.type]) + message.transaction.to_bytes(3, "big")
        return head + _joined(_written(message))
    except (struct.error, ValueError, OverflowError) as error:
        raise UnencodableMessage(f"DHCPv6: {error}") from error


def _written(message: Dhcpv6Message) -> Iterator[tuple[int, bytes]]:
    if message.client is not None:
        yield Dhcpv6Option.CLIENTID, message.client
    if message.server is not None:
        yield Dhcpv6Option.SERVERID, message.server
    if message.preference is not None:
        yield Dhcpv6Option.PREFERENCE, bytes([message.preference])
    if message.rapid_commit:
        yield Dhcpv6Option.RAPID_COMMIT, b""
    yield from _written_status(message.status)
    for delegation in message.delegations:
        yield Dhcpv6Option.IA_PD, _write_delegation(delegation)
    for association in message.addresses:
        yield association.kind, _write_addresses(association)


def _written_status(status: StatusCode | None) -> Iterator[tuple[int, bytes]]:
    if status is not None:
        yield Dhcpv6Option.STATUS_CODE, status.code.to_bytes(2, "big") + status.text.encode()


def _write_delegation(association: PrefixAssociation) -> bytes:
    octets = _ASSOCIATION.pack(association.iaid, association.renew_after, association.rebind_after)
    for item in association.prefixes:
        length, address = item.prefix.prefixlen, item.prefix.network_address.packed
        octets += _OPTION.pack(Dhcpv6Option.IAPREFIX, _PREFIX.size)
        octets += _PREFIX.pack(item.preferred_lifetime, item.valid_lifetime, length, address)
    return octets + _joined(_written_status(association.status))


def _write_addresses(association: AddressAssociation) -> bytes:
    head = _ASSOCIATION.pack(association.iaid, 0, 0)
    octets = head if association.kind == Dhcpv6Option.IA_NA else head[:4]
    for address in association.addresses:
        octets += _OPTION.pack(Dhcpv6Option.IAADDR, _ADDRESS.size) + _ADDRESS.pack(address.packed, 0, 0)
    return octets + _joined(_written_status(association.status))


def _joined(options: Iterator[tuple[int, bytes]]) -> bytes:
    return b"".join(_OPTION.pack(code, len(data)) + data for code, data in options)


def _malformed(at: int, why: str, reason: Reason) -> MalformedMessage:
    return MalformedMessage("DHCPv6", at=at, why=why, reason=reason)
