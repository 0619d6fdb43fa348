"""DHCPv4 messages (RFC 2131 2) and those of their options (RFC 2132) that lease an address.

    fixed part (236 octets) | 99.130.83.99 | options ... end | padding
      may hold options too,                  a long option comes in
      in sname and file                      several pieces (RFC 3396)

What is not listed in OPTIONS is passed by: nothing here is ever sent on.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Any, Final

from signaling.errors import MalformedMessage, Reason, UnencodableMessage
from signaling.iana import Dhcpv4MessageType, Dhcpv4Option, known
from signaling.wire.codec import MAX_OPTION_DATA, SOME_OCTETS, Field

NO_ADDRESS: Final = IPv4Address(0)
BROADCAST: Final = IPv4Address("255.255.255.255")

_FIXED: Final = struct.Struct("!BBBBIHH4s4s4s4s16s64s128s4s")
_COOKIE: Final = bytes((99, 130, 83, 99))  # RFC 2131 3
_SNAME: Final = slice(44, 108)
_FILE: Final = slice(108, 236)
_MINIMUM: Final = 300  # octets; old clients take nothing shorter (RFC 1542 2.1)
_ETHERNET: Final = 1  # htype
_BROADCAST_FLAG: Final = 0x8000
_REQUEST, _REPLY = 1, 2  # op


@dataclass(frozen=True, slots=True, kw_only=True)
class Dhcpv4Message:
    """One message, either way. An address of 0.0.0.0 in the fixed part: not said; an option that is None: not there."""

    type: Dhcpv4MessageType | int
    from_client: bool = True  # op
    transaction: int  # xid, 32 bits
    broadcast: bool = False  # the client cannot take unicast packets yet
    link_layer: bytes  # chaddr: 6 octets for Ethernet
    client_address: IPv4Address = NO_ADDRESS  # ciaddr: the client has it, and answers ARP for it
    your_address: IPv4Address = NO_ADDRESS  # yiaddr: the client's from now on
    relay_address: IPv4Address = NO_ADDRESS  # giaddr
    server_identifier: IPv4Address | None = None
    requested_address: IPv4Address | None = None
    lease_time: int | None = None  # s
    renewal_time: int | None = None  # s, T1
    rebinding_time: int | None = None  # s, T2
    subnet_length: int | None = None  # bits set in the subnet mask
    router: IPv4Address | None = None  # the first one
    mtu: int | None = None  # octets
    client_identifier: bytes | None = None
    text: str | None = None  # of a NAK, for a human


# --- options ------------------------------------------------------------------------------------------------


def _number(size: int) -> Field:
    def read(octets: bytes) -> int:
        if len(octets) != size:
            raise ValueError(f"length {len(octets)}, RFC 2132 says {size}")
        return int.from_bytes(octets, "big")

    return Field(read, lambda number: int(number).to_bytes(size, "big"))


def _read_length(octets: bytes) -> int:
    mask = int(_number(4).read(octets))
    length = mask.bit_count()
    if mask != _mask(length):
        raise ValueError(f"subnet mask {IPv4Address(mask)} has holes")
    return length


def _mask(length: int) -> int:
    return 0xFFFFFFFF << 32 - length & 0xFFFFFFFF


def _read_first(octets: bytes) -> IPv4Address:
    if not octets or len(octets) % 4:
        raise ValueError(f"{len(octets)} octets are no whole number of addresses")
    return IPv4Address(octets[:4])


_SECONDS: Final = _number(4)
_ADDRESS: Final = Field(lambda octets: IPv4Address(_number(4).read(octets)), lambda address: address.packed)
_OVERLOAD: Final = _number(1)

OPTIONS: Final[dict[int, tuple[str, Field]]] = {
    Dhcpv4Option.DHCP_MESSAGE_TYPE: (
        "type",
        Field(lambda octets: known(Dhcpv4MessageType, _number(1).read(octets)), lambda kind: bytes([kind])),
    ),
    Dhcpv4Option.SERVER_IDENTIFIER: ("server_identifier", _ADDRESS),
    Dhcpv4Option.REQUESTED_IP_ADDRESS: ("requested_address", _ADDRESS),
    Dhcpv4Option.IP_ADDRESS_LEASE_TIME: ("lease_time", _SECONDS),
    Dhcpv4Option.RENEWAL_TIME: ("renewal_time", _SECONDS),
    Dhcpv4Option.REBINDING_TIME: ("rebinding_time", _SECONDS),
    # before the router, RFC 2132 3.3
    Dhcpv4Option.SUBNET_MASK: ("subnet_length", Field(_read_length, lambda length: _mask(length).to_bytes(4, "big"))),
    Dhcpv4Option.ROUTER: ("router", Field(_read_first, lambda address: address.packed)),
    Dhcpv4Option.INTERFACE_MTU: ("mtu", _number(2)),
    Dhcpv4Option.CLIENT_IDENTIFIER: ("client_identifier", SOME_OCTETS),
    Dhcpv4Option.MESSAGE: (
        "text",
        Field(
            lambda octets: bytes(octets).decode("ascii", "backslashreplace"),
            lambda text: text.encode("ascii", "backslashreplace"),
        ),
    ),
}
"""Option code -> the field of the message it is read into, and its converter; written in this order."""


# --- the door -----------------------------------------------------------------------------------------------


def decode(octets: bytes) -> Dhcpv4Message:
    """Give the message in a UDP payload. Raises only MalformedMessage; the answer to that is silence."""
    octets = bytes(octets)
    if len(octets) < _FIXED.size:
        raise _malformed(0, f"{len(octets)} octets, RFC 2131 2 says at least {_FIXED.size}", Reason.TRUNCATED)
    op, kind, size, _hops, transaction, _secs, flags, client, yours, _next, relay, hardware, *_names, cookie = (
        _FIXED.unpack_from(octets)
    )
    if op not in (_REQUEST, _REPLY) or kind != _ETHERNET or size > len(hardware):
        raise _malformed(0, f"op {op}, htype {kind}, hlen {size}", Reason.FIELD)
    if cookie != _COOKIE:
        raise _malformed(236, "BOOTP, not DHCP", Reason.UNKNOWN_TYPE)
    values = _read_options(octets)
    if "type" not in values:
        raise _malformed(_FIXED.size, "no DHCP Message Type", Reason.UNKNOWN_TYPE)
    return Dhcpv4Message(
        from_client=op == _REQUEST,
        transaction=transaction,
        broadcast=bool(flags & _BROADCAST_FLAG),
        link_layer=hardware[:size],
        client_address=IPv4Address(client),
        your_address=IPv4Address(yours),
        relay_address=IPv4Address(relay),
        **values,
    )


def encode(message: Dhcpv4Message) -> bytes:
    """Give the UDP payload of a message. Raises UnencodableMessage."""
    try:
        octets = bytearray(
            _FIXED.pack(
                _REQUEST if message.from_client else _REPLY,
                _ETHERNET,
                len(message.link_layer),
                0,
                message.transaction,
                0,
                _BROADCAST_FLAG if message.broadcast else 0,
                message.client_address.packed,
                message.your_address.packed,
                NO_ADDRESS.packed,
                message.relay_address.packed,
                message.link_layer,
                b"",
                b"",
                _COOKIE,
            )
        )
        for code, data in _written(message):
            for at in range(0, max(1, len(data)), MAX_OPTION_DATA):  # one piece also of an empty option
                piece = data[at : at + MAX_OPTION_DATA]
                octets += bytes((code, len(piece))) + piece
    except (struct.error, ValueError, OverflowError) as error:
        raise UnencodableMessage(f"DHCPv4: {error}") from error
    octets.append(Dhcpv4Option.END)
    return bytes(octets.ljust(_MINIMUM, b"\0"))


def _written(message: Dhcpv4Message) -> Iterator[tuple[int, bytes]]:
    for code, (name, field) in OPTIONS.items():
        value = getattr(message, name)
        if value is not None:
            yield code, field.write(value)


def _read_options(octets: bytes) -> dict[str, Any]:
    found: dict[int, bytes] = {}
    _collect(octets, _FIXED.size, found)
    overload = _value(_OVERLOAD.read, found.pop(Dhcpv4Option.OPTION_OVERLOAD, b"\0"))
    if overload & 1:
        _collect(octets[_FILE], 0, found)
    if overload & 2:
        _collect(octets[_SNAME], 0, found)
    return {name: _value(field.read, found[code]) for code, (name, field) in OPTIONS.items() if code in found}


def _collect(octets: bytes, at: int, found: dict[int, bytes]) -> None:
    """Add the options that stand in octets from `at` on; pieces of one are put together (RFC 3396 7)."""
    while at < len(octets) and (code := octets[at]) != Dhcpv4Option.END:
        if code == Dhcpv4Option.PAD:
            at += 1
            continue
        if at + 2 > len(octets):
            raise _malformed(at, f"option {code} without a length", Reason.OPTION_TRUNCATED)
        start, at = at + 2, at + 2 + octets[at + 1]
        if at > len(octets):
            raise _malformed(start - 2, f"option {code} overruns the message", Reason.OPTION_OVERRUN)
        found[code] = found.get(code, b"") + octets[start:at]


def _value(read: Callable[[Any], Any], octets: bytes) -> Any:
    try:
        return read(octets)
    except ValueError as error:
        raise _malformed(_FIXED.size, str(error), Reason.FIELD) from error


def _malformed(at: int, why: str, reason: Reason) -> MalformedMessage:
    return MalformedMessage("DHCPv4", at=at, why=why, reason=reason)
