"""Bounded reading and writing: layouts, padding, checksum. Nothing in here knows a message.

A `Layout` is the picture of an RFC turned into a table; one table reads and writes, so they cannot differ:

     0                   1                   2                   3
    |  Reserved     | Prefix Length |   Prefix (16 octets) ...           Layout("RFC 5213 8.3", "B17s",
                                                                             _=Bits(off_link=flag(0x80)),
                                                                             prefix=IPV6_PREFIX)

Converters raise ValueError for octets that mean nothing; who reads a layout turns that into its own error.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from enum import IntEnum, IntFlag
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any, Final, NamedTuple, TypeAlias

from signaling import iana
from signaling.errors import UnencodableMessage

Address: TypeAlias = IPv6Address | IPv4Address
Prefix: TypeAlias = IPv6Network | IPv4Network

MAX_MOBILITY_HEADER: Final = 2048  # octets, Header Len 255, RFC 6275 6.1.1
MAX_OPTION_DATA: Final = 255  # octets, RFC 6275 6.2.1
LIFETIME_UNIT: Final = 4  # s, RFC 6275 6.1.7
MAX_LIFETIME: Final = 0xFFFF * LIFETIME_UNIT  # s


# --- how one value crosses the door -------------------------------------------------------------------------


class Field:
    """One value: from what struct gives to what the message holds, and back."""

    def __init__(self, read: Callable[[Any], Any], write: Callable[[Any], Any]) -> None:
        self.read = read
        self.write = write

    def load(self, name: str, value: Any, into: dict[str, Any]) -> None:
        """Put the value read into the message's fields. Raises ValueError."""
        into[name] = self.read(value)

    def dump(self, name: str, source: object) -> Any:
        """Take the value to write from the message. Raises ValueError."""
        return self.write(getattr(source, name))


class AsItIs(Field):
    """A value that the message holds as struct gives and takes it."""

    def __init__(self) -> None:
        super().__init__(lambda value: value, lambda value: value)

    def dump(self, name: str, source: object) -> Any:
        """Take the value from the message."""
        return getattr(source, name)


class Constant(Field):
    """A value the sender must set and the receiver does not look at."""

    def __init__(self, value: int) -> None:
        super().__init__(int, int)
        self._value = value

    def load(self, name: str, value: Any, into: dict[str, Any]) -> None:
        """Read nothing."""

    def dump(self, name: str, source: object) -> Any:
        """Give the constant."""
        return self._value


class Part(NamedTuple):
    """Some bits of an octet: mask, how far they stand from the right, and their converter."""

    mask: int
    shift: int
    field: Field


class Bits(Field):
    """Several fields in one number; bits that no part names are reserved: sent 0, ignored on receipt."""

    def __init__(self, **parts: Part) -> None:
        super().__init__(int, int)
        self._parts = tuple(parts.items())

    def load(self, name: str, value: Any, into: dict[str, Any]) -> None:
        """Read each part. Raises ValueError."""
        for part_name, part in self._parts:
            into[part_name] = part.field.read((value & part.mask) >> part.shift)

    def dump(self, name: str, source: object) -> Any:
        """Give all parts as one number. Raises ValueError for a part that does not fit."""
        number: int = 0
        for part_name, part in self._parts:
            value = int(part.field.write(getattr(source, part_name))) << part.shift
            if value & ~part.mask:
                raise ValueError(f"{part_name} does not fit in {part.mask:#x}")
            number |= value
        return number


def flag(mask: int) -> Part:
    """One bit, as a bool."""
    return Part(mask, mask.bit_length() - 1, Field(bool, int))


def bits(mask: int, field: Field | None = None) -> Part:
    """Neighbouring bits, as a number."""
    return Part(mask, (mask & -mask).bit_length() - 1, field or NUMBER)


def named(registry: type[IntEnum]) -> Field:
    """Read a number as a member of its registry; a number not known there stays a plain int."""
    members = {int(member): member for member in registry}
    return Field(lambda number: members.get(number, number), int)


def flags(kind: type[IntFlag]) -> Field:
    """Read a number as flags; reserved bits are ignored on receipt."""
    mask = 0
    for member in kind:
        mask |= member
    return Field(lru_cache(maxsize=256)(lambda number: kind(number & mask)), int)  # making one costs a microsecond


def packed_flags(kind: type[IntFlag], octets: int) -> Field:
    """Flags in a field of so many octets, for sizes struct does not know."""
    plain = flags(kind)
    return Field(
        lambda value: plain.read(int.from_bytes(value, "big")),
        lambda value: int(value).to_bytes(octets, "big"),
    )


def _lifetime_units(seconds: float) -> int:
    # less than a unit must not become 0: that would delete the binding
    return 0 if seconds == 0 else max(1, int(seconds) // LIFETIME_UNIT)


def read_prefix(octets: bytes) -> IPv6Network:
    """Give the prefix in 17 octets, length and address; bits beyond the length are cut. Raises ValueError."""
    length, address = octets[0], int.from_bytes(octets[1:], "big")
    if not address:
        # all-zero means "assign one for me" and is decided on the 16 octets alone (RFC 5213 8.3)
        return IPv6Network((0, length if length <= 128 else 0))
    if length > 128:
        raise ValueError(f"prefix length {length}, at most 128")
    beyond = 128 - length
    prefix = address >> beyond << beyond
    if not prefix:
        raise ValueError("the prefix has bits only beyond its length")
    return IPv6Network((prefix, length))


def write_prefix(network: IPv6Network) -> bytes:
    """Give the 17 octets of a prefix, length and address."""
    return bytes([network.prefixlen]) + network.network_address.packed


def _optional(size: int) -> Field:
    def read(octets: bytes) -> int | None:
        if len(octets) not in (0, size):
            raise ValueError(f"{len(octets)} octets where 0 or {size} may stand")
        return int.from_bytes(octets, "big") if octets else None

    def write(number: int | None) -> bytes:
        return b"" if number is None else number.to_bytes(size, "big")

    return Field(read, write)


def _read_ipv6_addresses(octets: bytes) -> tuple[IPv6Address, ...]:
    if len(octets) % 16:
        raise ValueError(f"{len(octets)} octets are no whole number of IPv6 addresses")
    return tuple(IPv6Address(octets[at : at + 16]) for at in range(0, len(octets), 16))


def _read_numbers(octets: bytes) -> tuple[int, ...]:
    if len(octets) % 2:
        raise ValueError(f"{len(octets)} octets are no whole number of 16-bit numbers")
    return struct.unpack(f"!{len(octets) // 2}H", octets)


def _read_optional_address(octets: bytes) -> IPv6Address | IPv4Address | None:
    readers: dict[int, Callable[[bytes], IPv6Address | IPv4Address | None]]
    readers = {0: lambda _: None, 4: IPv4Address, 16: IPv6Address}
    if len(octets) not in readers:
        raise ValueError(f"{len(octets)} octets of address, 0, 4 or 16 may stand here")
    return readers[len(octets)](octets)


def _some(octets: bytes) -> bytes:
    if not octets:
        raise ValueError("nothing where at least one octet must stand")
    return octets


NUMBER: Final = AsItIs()
SECONDS: Final = Field(int, int)  # fractions are cut off
LIFETIME: Final = Field(lambda units: units * LIFETIME_UNIT, _lifetime_units)  # s here, 4 s units on the wire
IPV6: Final = Field(IPv6Address, lambda address: address.packed)
IPV4: Final = Field(IPv4Address, lambda address: address.packed)
IPV6_PREFIX: Final = Field(read_prefix, write_prefix)  # 17 octets: length, then the address
OCTETS: Final = AsItIs()
SOME_OCTETS: Final = Field(lambda octets: _some(bytes(octets)), lambda octets: _some(bytes(octets)))
OPTIONAL_NUMBER_32: Final = _optional(4)
OPTIONAL_ADDRESS: Final = Field(_read_optional_address, lambda address: address.packed if address else b"")
IPV6_ADDRESSES: Final = Field(_read_ipv6_addresses, lambda all_of: b"".join(one.packed for one in all_of))
NUMBERS_16: Final = Field(_read_numbers, lambda numbers: struct.pack(f"!{len(numbers)}H", *numbers))


# --- layouts ------------------------------------------------------------------------------------------------


class Layout:
    """The fields of a structure, in the order of its octets.

    rfc: where the picture is; form: struct codes of the fixed octets in network order, `x` where the RFC says
    Reserved; fields: one per value, by the name the message gives it. One field more than values in form: it
    takes all octets that are left, else the length must be that of form.
    """

    def __init__(self, rfc: str, form: str, /, **fields: Field) -> None:
        self.rfc = rfc
        self._fixed = struct.Struct("!" + form)
        self._fields = tuple(fields.items())
        self._names = tuple(fields)
        self._converted = tuple((name, field) for name, field in self._fields if not isinstance(field, AsItIs))
        self._has_tail = len(fields) > len(self._fixed.unpack(bytes(self._fixed.size)))
        self.size = self._fixed.size  # octets, without the tail

    def read(self, octets: bytes) -> dict[str, Any]:
        """Give the values by name. Raises ValueError for a wrong length and for values that mean nothing."""
        size = self.size
        if len(octets) != size and (len(octets) < size or not self._has_tail):
            least = "at least " if self._has_tail else ""
            raise ValueError(f"length {len(octets)}, {self.rfc} says {least}{size}")
        raw: tuple[Any, ...] = self._fixed.unpack_from(octets)
        if self._has_tail:
            raw += (octets[size:],)
        values: dict[str, Any] = dict(zip(self._names, raw))  # noqa: B905  as many of each; strict costs as much as all
        for name, field in self._converted:
            field.load(name, values.pop(name), values)
        return values

    def write(self, source: object) -> bytes:
        """Take the values from attributes of source. Raises UnencodableMessage if one does not fit."""
        try:
            raw = []
            for name, field in self._fields:
                raw.append(field.dump(name, source))
            return self._fixed.pack(*raw[:-1]) + raw[-1] if self._has_tail else self._fixed.pack(*raw)
        except (struct.error, ValueError, OverflowError) as error:
            raise UnencodableMessage(f"{type(source).__name__} ({self.rfc}): {error}") from error


# --- padding ------------------------------------------------------------------------------------------------


class Alignment(NamedTuple):
    """`xn+y`: the first octet stands at a multiple of `multiple` plus `offset` (RFC 6275 6.2.1)."""

    multiple: int
    offset: int = 0

    def gap(self, position: int) -> int:
        """Octets of padding needed at position."""
        return (self.offset - position) % self.multiple


UNALIGNED: Final = Alignment(1)


def padding(octets: int) -> bytes:
    """So many octets of Pad1 or PadN, never more than one option (RFC 6275 6.2.2, 6.2.3)."""
    return _PADDING[octets] if octets < len(_PADDING) else _padn(octets)


def _padn(octets: int) -> bytes:
    return bytes([iana.OptionType.PADN, octets - 2]) + bytes(octets - 2)


_PADDING: Final = (b"", bytes([iana.OptionType.PAD1]), *map(_padn, range(2, 8)))


def pad(octets: bytearray, alignment: Alignment) -> None:
    """Append the padding that brings the next octet to its alignment; counted from octets[0]."""
    gap = alignment.gap(len(octets))
    if gap:
        octets += padding(gap)


# --- checksum -----------------------------------------------------------------------------------------------


def _ones_complement_remainder(source: Address, destination: Address, protocol: int, octets: bytes) -> int:
    # 2**16 is 1 modulo 0xffff: the sum of all 16-bit words with end-around carry is the remainder of the
    # whole number, and one big division is faster than a loop over words
    even = octets + b"\0" if len(octets) % 2 else octets
    pseudo = source.packed + destination.packed + struct.pack("!II", len(octets), protocol)
    return int.from_bytes(pseudo + even, "big") % 0xFFFF


def checksum(source: Address, destination: Address, protocol: int, octets: bytes) -> int:
    """Internet checksum with the IPv6 pseudo-header (RFC 8200 8.1); octets has 0 in its checksum field."""
    # the sum is never all zero octets (the length is in it), so remainder 0 stands for the sum 0xffff
    return 0xFFFF - (_ones_complement_remainder(source, destination, protocol, octets) or 0xFFFF)


def checksum_is_right(source: Address, destination: Address, protocol: int, octets: bytes) -> bool:
    """Tell whether octets, with their checksum in them, sum up to 0xffff (RFC 1071 1)."""
    return _ones_complement_remainder(source, destination, protocol, octets) == 0
