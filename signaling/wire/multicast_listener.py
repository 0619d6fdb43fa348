"""Multicast listener discovery: queries, reports, done (RFC 2710 3, 3810 5).

All of it travels with hop limit 1, from a link-local source, behind a Hop-by-Hop header with Router Alert
(`ipv6.Packet(router_alert=True)`).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import ClassVar, Final, Self

from signaling.iana import Icmpv6Type, MulticastRecordType, known
from signaling.wire.codec import IPV6, NUMBER, Field, Layout
from signaling.wire.message import Message
from signaling.wire.options.option import Option

UNSPECIFIED: Final = IPv6Address(0)


def _read_float(code: int, mantissa_bits: int) -> int:
    # a number that starts with 1 is an exponent of 3 bits and a mantissa, RFC 3810 5.1.3 and 5.1.9
    linear = 1 << (mantissa_bits + 3)
    if code < linear:
        return code
    mantissa = code & ((1 << mantissa_bits) - 1) | 1 << mantissa_bits
    return mantissa << ((code >> mantissa_bits & 7) + 3)


def _write_float(value: int, mantissa_bits: int) -> int:
    # rounded down to what the code can say
    if value < 1 << (mantissa_bits + 3):
        return value
    exponent = value.bit_length() - mantissa_bits - 4
    if exponent > 7:
        raise ValueError(f"{value} is beyond what the code can say")
    mantissa = value >> (exponent + 3) & ((1 << mantissa_bits) - 1)
    return 1 << (mantissa_bits + 3) | exponent << mantissa_bits | mantissa


@dataclass(frozen=True, slots=True, kw_only=True)
class MulticastListenerQuery(Message):
    """Asks who listens to a group, or to any (RFC 2710 3, 3810 5.1)."""

    TYPE: ClassVar[int] = Icmpv6Type.MULTICAST_LISTENER_QUERY
    LAYOUT: ClassVar[Layout] = Layout("RFC 2710 3", "H2x16s", _code=NUMBER, group=IPV6, _more=Field(bytes, bytes))

    max_response_delay: int  # milliseconds
    group: IPv6Address = UNSPECIFIED  # ::, a general query
    version: int = 2
    suppress_processing: bool = False  # S flag, version 2
    robustness: int = 2  # QRV, 3 bits, version 2
    query_interval: int = 125  # seconds, version 2
    sources: tuple[IPv6Address, ...] = ()  # version 2

    @classmethod
    def read(cls, fixed: bytes, options: tuple[Option, ...]) -> Self:
        """Make the query from what stands behind the checksum. Raises ValueError."""
        values = cls.LAYOUT.read(fixed)
        more = values["_more"]
        if not more:  # 24 octets: version 1, RFC 3810 8.1
            return cls(max_response_delay=values["_code"], group=values["group"], version=1)
        if len(more) < 4:
            raise ValueError(f"{len(more)} octets behind the group, RFC 3810 5.1 says at least 4")
        flags, interval, count = struct.unpack_from("!BBH", more)
        return cls(
            max_response_delay=_read_float(values["_code"], 12),
            group=values["group"],
            suppress_processing=bool(flags & 0x08),
            robustness=flags & 0x07,
            query_interval=_read_float(interval, 4),
            sources=_addresses(more, 4, count),
        )

    @property
    def _code(self) -> int:
        return self.max_response_delay if self.version == 1 else _write_float(self.max_response_delay, 12)

    @property
    def _more(self) -> bytes:
        if self.version == 1:
            return b""
        flags = (0x08 if self.suppress_processing else 0) | min(self.robustness, 7)
        interval = _write_float(self.query_interval, 4)
        head = struct.pack("!BBH", flags, interval, len(self.sources))
        return head + b"".join(source.packed for source in self.sources)


@dataclass(frozen=True, slots=True, kw_only=True)
class MulticastListenerReport(Message):
    """Says that the sender listens to a group (RFC 2710 3)."""

    TYPE: ClassVar[int] = Icmpv6Type.MULTICAST_LISTENER_REPORT
    LAYOUT: ClassVar[Layout] = Layout("RFC 2710 3", "4x16s", group=IPV6)

    group: IPv6Address


@dataclass(frozen=True, slots=True, kw_only=True)
class MulticastListenerDone(Message):
    """Says that the sender no longer listens to a group (RFC 2710 3)."""

    TYPE: ClassVar[int] = Icmpv6Type.MULTICAST_LISTENER_DONE
    LAYOUT: ClassVar[Layout] = Layout("RFC 2710 3", "4x16s", group=IPV6)

    group: IPv6Address


@dataclass(frozen=True, slots=True, kw_only=True)
class MulticastRecord:
    """What a listener says of one group (RFC 3810 5.2.4)."""

    kind: MulticastRecordType | int
    group: IPv6Address
    sources: tuple[IPv6Address, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class MulticastListenerReportV2(Message):
    """Says what the sender listens to (RFC 3810 5.2)."""

    TYPE: ClassVar[int] = Icmpv6Type.MULTICAST_LISTENER_REPORT_V2
    LAYOUT: ClassVar[Layout] = Layout("RFC 3810 5.2", "2xH", _count=NUMBER, _records=Field(bytes, bytes))

    records: tuple[MulticastRecord, ...]

    @classmethod
    def read(cls, fixed: bytes, options: tuple[Option, ...]) -> Self:
        """Make the report from what stands behind the checksum. Raises ValueError."""
        values = cls.LAYOUT.read(fixed)
        octets, at, records = values["_records"], 0, []
        for _ in range(values["_count"]):
            record, at = _read_record(octets, at)
            records.append(record)
        return cls(records=tuple(records))

    @property
    def _count(self) -> int:
        return len(self.records)

    @property
    def _records(self) -> bytes:
        return b"".join(_write_record(record) for record in self.records)


_RECORD = struct.Struct("!BBH16s")  # type, auxiliary data in 4-octet units, number of sources, group


def _read_record(octets: bytes, at: int) -> tuple[MulticastRecord, int]:
    if len(octets) < at + _RECORD.size:
        raise ValueError(f"record at {at} is cut, RFC 3810 5.2 says at least {_RECORD.size} octets")
    kind, auxiliary, count, group = _RECORD.unpack_from(octets, at)
    sources = _addresses(octets, at + _RECORD.size, count)
    end = at + _RECORD.size + 16 * count + 4 * auxiliary
    if end > len(octets):
        raise ValueError(f"auxiliary data of the record at {at} is cut")
    record = MulticastRecord(kind=known(MulticastRecordType, kind), group=IPv6Address(group), sources=sources)
    return record, end


def _write_record(record: MulticastRecord) -> bytes:
    head = _RECORD.pack(record.kind, 0, len(record.sources), record.group.packed)
    return head + b"".join(source.packed for source in record.sources)


def _addresses(octets: bytes, at: int, count: int) -> tuple[IPv6Address, ...]:
    if at + 16 * count > len(octets):
        raise ValueError(f"{count} addresses announced, {(len(octets) - at) // 16} here")
    return tuple(IPv6Address(octets[one : one + 16]) for one in range(at, at + 16 * count, 16))
