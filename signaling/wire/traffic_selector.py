"""Binary traffic selectors: which packets belong to a flow (RFC 6088 3).

    0               1               2               4               6
    |   TS Format   |   Reserved    |  A B C D ... flags, reserved  | the fields with a flag, in letter order

Every pair of letters is the start and the end of a range, both within it; a start alone is an exact value.
Source is the correspondent, destination the mobile node.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Any, Final, Generic, NamedTuple, TypeVar

from signaling.errors import UnencodableMessage
from signaling.iana import TrafficSelectorFormat
from signaling.wire.codec import IPV4, IPV6, UNALIGNED, Alignment, Field

Value = TypeVar("Value", IPv4Address, IPv6Address, int)


@dataclass(frozen=True, slots=True)
class Range(Generic[Value]):
    """From start to end, both within; end None: start alone."""

    start: Value
    end: Value | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TrafficSelector:
    """Packets that agree with all of its ranges; None: any (RFC 6088 3.1, 3.2)."""

    format: TrafficSelectorFormat
    source: Range[IPv4Address] | Range[IPv6Address] | None = None
    destination: Range[IPv4Address] | Range[IPv6Address] | None = None
    spi: Range[int] | None = None  # 32 bits, of IPsec
    flow_label: Range[int] | None = None  # 20 bits, IPv6 only
    source_port: Range[int] | None = None
    destination_port: Range[int] | None = None
    traffic_class: Range[int] | None = None  # the octet; only its upper 6 bits count
    protocol: Range[int] | None = None  # of the upper layer

    @property
    def alignment(self) -> Alignment:
        """Of a sub-option that holds it: by its largest field (RFC 6088 3.1, 3.2)."""
        sizes = [part.alignment for part in _PARTS[self.format] if getattr(self, part.name) is not None]
        return Alignment(max(sizes, default=1))


@dataclass(frozen=True, slots=True, kw_only=True)
class UnreadableSelector:
    """A selector of a format not known here, or one that contradicts itself. octets: from TS Format on."""

    format: TrafficSelectorFormat | int
    octets: bytes
    why: str

    @property
    def alignment(self) -> Alignment:
        """Of a sub-option that holds it: none known."""
        return UNALIGNED


class _Part(NamedTuple):
    name: str
    size: int  # octets
    alignment: int
    field: Field


def _number(size: int, mask: int = -1) -> Field:
    return Field(lambda octets: int.from_bytes(octets, "big") & mask, lambda number: int(number).to_bytes(size, "big"))


_OCTET, _PORT, _WORD = _number(1), _number(2), _number(4)
_LABEL = _number(4, 0xFFFFF)  # 20 bits in a field of 32, RFC 8200 3

_PARTS: Final[dict[int, tuple[_Part, ...]]] = {
    TrafficSelectorFormat.IPV4_BINARY: (
        _Part("source", 4, 4, IPV4),
        _Part("destination", 4, 4, IPV4),
        _Part("spi", 4, 4, _WORD),
        _Part("source_port", 2, 2, _PORT),
        _Part("destination_port", 2, 2, _PORT),
        _Part("traffic_class", 1, 1, _OCTET),
        _Part("protocol", 1, 1, _OCTET),
    ),
    TrafficSelectorFormat.IPV6_BINARY: (
        _Part("source", 16, 8, IPV6),
        _Part("destination", 16, 8, IPV6),
        _Part("spi", 4, 4, _WORD),
        _Part("flow_label", 4, 4, _LABEL),
        _Part("source_port", 2, 2, _PORT),
        _Part("destination_port", 2, 2, _PORT),
        _Part("traffic_class", 1, 1, _OCTET),
        _Part("protocol", 1, 1, _OCTET),
    ),
}
"""The fields in letter order, two letters each."""

_TOP = 1 << 31  # flag A
_HEAD = struct.Struct("!BxI")


def read(octets: bytes) -> TrafficSelector | UnreadableSelector:
    """Give the selector in octets, TS Format first; UnreadableSelector if it makes no sense. Never raises."""
    number = octets[0] if octets else 0
    try:
        return _read(octets)
    except ValueError as error:
        return UnreadableSelector(format=number, octets=bytes(octets), why=str(error))


def _read(octets: bytes) -> TrafficSelector:
    if len(octets) < _HEAD.size:
        raise ValueError(f"{len(octets)} octets of selector")
    number, flags = _HEAD.unpack_from(octets)
    kind = TrafficSelectorFormat(number)
    values: dict[str, Any] = {}
    at, bit = _HEAD.size, _TOP
    for part in _PARTS[kind]:
        start, end, bit = flags & bit, flags & bit >> 1, bit >> 2
        if end and not start:
            raise ValueError(f"{part.name} has an end without a start")
        ends = []
        for _ in range(bool(start) + bool(end)):
            if at + part.size > len(octets):
                raise ValueError(f"{part.name} is announced but not here")
            ends.append(part.field.read(octets[at : at + part.size]))
            at += part.size
        if ends:
            values[part.name] = Range(*ends)
        if len(ends) == 2 and ends[1] < ends[0]:
            raise ValueError(f"{part.name} ends before it starts")
    return TrafficSelector(format=kind, **values)


def write(selector: TrafficSelector | UnreadableSelector) -> bytes:
    """Give the octets of selector, TS Format first. Raises UnencodableMessage."""
    if isinstance(selector, UnreadableSelector):
        return selector.octets
    flags, fields, bit = 0, b"", _TOP
    try:
        for part in _PARTS[selector.format]:
            found = getattr(selector, part.name)
            if found is not None:
                flags |= bit
                fields += part.field.write(found.start)
            if found is not None and found.end is not None:
                flags |= bit >> 1
                fields += part.field.write(found.end)
            bit >>= 2
    except (ValueError, OverflowError) as error:
        raise UnencodableMessage(f"traffic selector: {error}") from error
    return _HEAD.pack(selector.format, flags) + fields
