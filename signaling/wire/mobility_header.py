"""The door of the Mobility Header (RFC 6275 6.1): decode(), encode(). Everything behind it is an object.

    0               1               2               3               4               6
    | Payload Proto | Header Len    | MH Type       | Reserved      | Checksum      | message data, options
      59              8-octet units - 1                               with the IPv6 pseudo-header, 135

The checks stand in the order of RFC 6275 9.2, after the one thing it leaves out: the lengths have to be true.
"""

from __future__ import annotations

from typing import Final

from signaling.errors import MalformedMessage, Reaction, Reason, UnencodableMessage
from signaling.iana import MobilityHeaderType, ProtocolNumber
from signaling.wire import (
    binding_ack,
    binding_error,
    binding_refresh,
    binding_update,
    heartbeat,
    notification,
    return_routability,
    revocation,
)
from signaling.wire.codec import MAX_MOBILITY_HEADER, Address, checksum_is_right, padding
from signaling.wire.codec import checksum as compute_checksum
from signaling.wire.message import Message, by_type
from signaling.wire.options import append_options, read_options

__all__ = ["CHECKSUM", "HEADER", "KINDS", "Message", "decode", "encode"]

HEADER: Final = 6  # octets all messages share
CHECKSUM: Final = slice(4, 6)
_IPV6_HEADER: Final = 40  # octets
_NO_NEXT_HEADER: Final = int(ProtocolNumber.NO_NEXT_HEADER)  # a plain number, quick to compare
_REVOCATION: Final = int(MobilityHeaderType.BINDING_REVOCATION)

KINDS: Final[dict[int, type[Message]]] = by_type(
    (
        binding_refresh.BindingRefreshRequest,
        return_routability.HomeTestInit,
        return_routability.CareOfTestInit,
        return_routability.HomeTest,
        return_routability.CareOfTest,
        binding_update.BindingUpdate,
        binding_ack.BindingAck,
        binding_error.BindingError,
        heartbeat.Heartbeat,
        revocation.BindingRevocationIndication,
        notification.UpdateNotification,
        notification.UpdateNotificationAck,
    )
)
"""MH Type -> message class; a Binding Revocation is told apart once its fixed part is there."""


def decode(
    octets: bytes,
    source: Address,
    destination: Address,
    *,
    verify_checksum: bool = True,
    offset: int = _IPV6_HEADER,
) -> Message:
    """Give the message that starts at octets[0], the Payload Proto field.

    source, destination: those of the pseudo-header, so the home address where a Home Address option or a type
    2 routing header says so (RFC 6275 6.1.1). verify_checksum: False under UDP over IPv4 (RFC 5844 4.1.3.1).
    offset: octets before the Mobility Header in its packet, for the pointer of a Parameter Problem.
    Octets behind the announced length are not ours (RFC 8200 4.7). Raises MalformedMessage, nothing else.
    """
    header = _announced(octets)
    if verify_checksum and not checksum_is_right(source, destination, ProtocolNumber.MOBILITY_HEADER, header):
        raise MalformedMessage("Mobility Header", at=4, why="wrong checksum", reason=Reason.CHECKSUM)
    kind = _kind_of(header)
    _check_payload_proto(header, offset)
    end = _end_of_fixed_part(header, kind, offset)
    if header[2] == _REVOCATION:
        kind = _revocation_kind(header)
    options = read_options(header, end)
    try:
        return kind.read(header[HEADER:end], options)
    except ValueError as error:
        raise MalformedMessage(kind.__name__, at=HEADER, why=str(error), reason=Reason.FIELD) from error


def encode(message: Message, source: Address, destination: Address, *, checksum: bool = True) -> bytes:
    """Give the octets of message, Payload Proto first. source, destination: as for decode.

    checksum: False leaves the field 0, for UDP over IPv4 (RFC 5844 4.1.3.2). Raises UnencodableMessage.
    """
    octets = begin(message)
    announce_length(octets, message)
    if checksum:
        fill_checksum(octets, source, destination)
    return bytes(octets)


def begin(message: Message) -> bytearray:
    """Give the octets of message up to its last option; Header Len and checksum are 0. Raises UnencodableMessage."""
    octets = bytearray((_NO_NEXT_HEADER, 0, message.TYPE, 0, 0, 0))
    octets += message.LAYOUT.write(message)
    append_options(octets, message.options)
    return octets


def announce_length(octets: bytearray, message: Message, *, to_come: int = 0) -> None:
    """Pad a message that so many octets will follow, and write its Header Len. Raises UnencodableMessage."""
    octets += padding(-(len(octets) + to_come) % 8)
    length = len(octets) + to_come
    if length > MAX_MOBILITY_HEADER:
        raise UnencodableMessage(f"{type(message).__name__}: {length} octets, at most {MAX_MOBILITY_HEADER}")
    octets[1] = length // 8 - 1


def fill_checksum(octets: bytearray, source: Address, destination: Address) -> None:
    """Compute the checksum of a whole message and put it in its place (RFC 6275 6.1.1)."""
    octets[CHECKSUM] = bytes(2)
    value = compute_checksum(source, destination, ProtocolNumber.MOBILITY_HEADER, bytes(octets))
    octets[CHECKSUM] = value.to_bytes(2, "big")


def _announced(octets: bytes) -> bytes:
    if len(octets) < 8:
        raise MalformedMessage(
            "Mobility Header", at=0, why=f"{len(octets)} octets, at least 8", reason=Reason.TRUNCATED
        )
    length = (octets[1] + 1) * 8
    if length > len(octets):
        raise MalformedMessage(
            "Mobility Header",
            at=1,
            why=f"{length} octets announced, {len(octets)} here",
            reason=Reason.TRUNCATED,
        )
    return bytes(octets[:length])


def _kind_of(header: bytes) -> type[Message]:
    kind = KINDS.get(header[2])
    if kind is None:
        raise MalformedMessage(
            "MH Type",
            at=2,
            why=f"{header[2]} is not known here",
            reason=Reason.UNKNOWN_TYPE,
            reaction=Reaction.BINDING_ERROR,
        )
    return kind


def _check_payload_proto(header: bytes, offset: int) -> None:
    if header[0] != _NO_NEXT_HEADER:
        raise MalformedMessage(
            "Payload Proto",
            at=0,
            why=f"{header[0]}, must be 59",
            reason=Reason.PAYLOAD_PROTO,
            reaction=Reaction.PARAMETER_PROBLEM,
            pointer=offset,
        )


def _end_of_fixed_part(header: bytes, kind: type[Message], offset: int) -> int:
    end = HEADER + kind.LAYOUT.size
    if len(header) < end:
        raise MalformedMessage(
            "Header Len",
            at=1,
            why=f"{len(header)} octets, {kind.__name__} has at least {end}",
            reason=Reason.HEADER_LEN,
            reaction=Reaction.PARAMETER_PROBLEM,
            pointer=offset + 1,
        )
    return end


def _revocation_kind(header: bytes) -> type[Message]:
    kind = revocation.KINDS.get(header[HEADER])
    if kind is None:
        raise MalformedMessage(
            "B.R. Type", at=HEADER, why=f"{header[HEADER]}, RFC 5846 5 knows 1 and 2", reason=Reason.FIELD
        )
    return kind
