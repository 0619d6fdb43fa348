"""Packets of a tunnel into a pcapng file (IETF draft-ietf-opsawg-pcapng), which wireshark and tcpdump read.

    section header | interface: name of the tunnel, raw IP, times in ns | packet | packet | ... | statistics

A packet is inner or outer, IPv4 or IPv6 from its first octet on (LINKTYPE_RAW); its flags say whether it came in or
went out. The file can be read at any time up to the last flush().
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import BinaryIO, TypeAlias

Record: TypeAlias = tuple[int, int, int, bytes]
"""ns since 1970; INBOUND or OUTBOUND; octets of the packet; as much of it as was kept."""

INBOUND, OUTBOUND = 1, 2  # epb_flags, bits 0 and 1
LINKTYPE_RAW = 101
SNAP = 65600  # octets, more than any packet has (_fast/tap.pxd)

SECTION, INTERFACE, STATISTICS, PACKET = 0x0A0D0D0A, 1, 5, 6  # block types
BYTE_ORDER = 0x1A2B3C4D
END, APPLICATION, NAME, RESOLUTION, FLAGS = 0, 4, 2, 9, 2  # options: any, shb_, if_, if_, epb_
DROPPED = 5  # isb_ifdrop
NANOSECONDS = b"\x09"  # if_tsresol: 10^-9 s

# a packet is written with as few calls as can be: there may be 100,000 in a second
PACKET_HEAD = struct.Struct("<IIIIIII")  # block type, its octets, interface, time (high, low), octets kept, octets
LENGTH = struct.Struct("<I")
PADDING = (b"", bytes(3), bytes(2), bytes(1))  # by octets past a multiple of 4


class Capture:
    """A pcapng file that grows. packets: written by now; full: it has the count that was asked for."""

    def __init__(self, file: BinaryIO, *, tunnel: str, count: int | None = None, snap: int = SNAP) -> None:
        """file: open for writing, and left open. tunnel: what the interface is called. count: packets at most."""
        self.packets = 0
        self._file = file
        self._count = count
        self._last = 0  # ns since 1970, of the newest packet
        self._closed = False
        file.write(_section() + _interface(tunnel, snap))

    @property
    def full(self) -> bool:
        """There are as many packets in it as were asked for."""
        return self._count is not None and self.packets >= self._count

    def feed(self, records: Iterable[Record]) -> None:
        """Write these; those past the count are left out. Raises ValueError when it is closed, OSError of the file."""
        if self._closed:
            raise ValueError("the capture is closed")
        for time, direction, original, octets in records:
            if self.full:
                break
            self._file.write(_packet(time, direction, original, octets))
            self.packets += 1
            self._last = max(self._last, time)
        self._file.flush()

    def close(self, *, lost: int = 0) -> None:
        """Finish with the number of packets that were lost on the way here. Once is enough; the file stays open."""
        if self._closed:
            return
        self._closed = True
        self._file.write(_statistics(self._last, lost))
        self._file.flush()


def _section() -> bytes:
    options = _option(APPLICATION, b"openmar") + _option(END)
    return _block(SECTION, struct.pack("<IHHq", BYTE_ORDER, 1, 0, -1) + options)


def _interface(name: str, snap: int) -> bytes:
    options = _option(NAME, name.encode()) + _option(RESOLUTION, NANOSECONDS) + _option(END)
    return _block(INTERFACE, struct.pack("<HHI", LINKTYPE_RAW, 0, snap) + options)


def _packet(time: int, direction: int, original: int, octets: bytes) -> bytes:
    kept, padding, options = len(octets), PADDING[len(octets) & 3], DIRECTION[direction]
    length = PACKET_HEAD.size + kept + len(padding) + len(options) + LENGTH.size
    head = PACKET_HEAD.pack(PACKET, length, 0, time >> 32, time & 0xFFFFFFFF, kept, original)
    return b"".join((head, octets, padding, options, LENGTH.pack(length)))


def _statistics(time: int, lost: int) -> bytes:
    options = _option(DROPPED, struct.pack("<Q", lost)) + _option(END)
    return _block(STATISTICS, struct.pack("<III", 0, time >> 32, time & 0xFFFFFFFF) + options)


def _block(kind: int, body: bytes) -> bytes:
    length = 12 + len(body)
    return struct.pack("<II", kind, length) + body + struct.pack("<I", length)


def _option(code: int, value: bytes = b"") -> bytes:
    return struct.pack("<HH", code, len(value)) + _padded(value)


def _padded(octets: bytes) -> bytes:
    return octets + bytes(-len(octets) % 4)


DIRECTION = {
    direction: _option(FLAGS, struct.pack("<I", direction)) + _option(END) for direction in (INBOUND, OUTBOUND)
}
