"""One packet for many, and many for one, in plain Python: specification of _fast/offload.pyx.

    split    what the TUN gives (up to 64 KiB, with a virtio header) becomes segments that the tunnels take
    merge    segments that tunnels give become what the TUN takes: as Linux does (GRO), but only where splitting the
             result would give the same segments back, but for identifications of IPv4 packets with DF (RFC 6864 4.1)
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass

from engine.model.dropped import Dropped
from engine.stats import Drop

TCP, UDP = 6, 17
PASSABLE = frozenset({0, 43, 60})  # hop-by-hop options, routing, destination options
GSO_TCP4, GSO_TCP6, GSO_UDP_L4, GSO_ECN = 1, 4, 5, 0x80  # virtio 1.2, 5.1.6
FIN, SYN, RST, PSH, URG, CWR = 0x01, 0x02, 0x04, 0x08, 0x20, 0x80
LEAST = {TCP: 20, UDP: 8}  # octets of a header without options
CHECKSUM = {TCP: 16, UDP: 6}  # octets to the field
MOST_HEADER = 176  # octets, IP and upper-layer header of what can be split
MOST_FLOWS = 16
MOST_PIECES = 64  # packets in one output
MOST_MERGED = 65535  # octets
MERGE_TCP4, MERGE_TCP6, MERGE_UDP4, MERGE_UDP6, VIRTIO = 1, 2, 4, 8, 16
NEEDS_CHECKSUM = 1


def total(octets: bytes) -> int:
    """Sum of 16-bit words, the last padded (RFC 1071)."""
    octets += bytes(len(octets) % 2)
    return sum(struct.unpack(f"!{len(octets) // 2}H", octets))


def fold(value: int) -> int:
    """A sum as 16 bits with end-around carry; 0 only for 0."""
    while value >> 16:
        value = (value & 0xFFFF) + (value >> 16)
    return value


def put(octets: bytes, at: int, value: int, size: int = 2) -> bytes:
    """Octets with a number written at that place."""
    return octets[:at] + value.to_bytes(size, "big") + octets[at + size :]


def number(octets: bytes, at: int, size: int = 2) -> int:
    """The number at that place."""
    return int.from_bytes(octets[at : at + size], "big")


# --- split ---------------------------------------------------------------------------------------------


def split(packet: bytes, gso: int, segment: int, checksum_start: int = 0, checksum_offset: int = 0) -> list[bytes]:
    """Complete segments of a packet. segment: octets of payload in each but the last. Raises Dropped.

    checksum_offset not 0: the checksum field holds the sum of the pseudo-header.
    """
    protocol = UDP if gso & ~GSO_ECN == GSO_UDP_L4 else TCP
    transport = find_transport(packet, gso & ~GSO_ECN, protocol)
    if segment == 0:
        raise Dropped(Drop.BAD_OFFLOAD)
    header = transport + (8 if protocol == UDP else 4 * (packet[transport + 12] >> 4))
    if header < transport + LEAST[protocol] or header > min(MOST_HEADER, len(packet)):
        raise Dropped(Drop.BAD_OFFLOAD)
    if checksum_offset != 0 and (checksum_start, checksum_offset) != (transport, CHECKSUM[protocol]):
        raise Dropped(Drop.BAD_OFFLOAD)
    field = number(packet, transport + CHECKSUM[protocol])
    without = protocol == UDP and packet[0] >> 4 == 4 and checksum_offset == 0 and field == 0
    if checksum_offset != 0:
        pseudo = field - total((len(packet) - transport).to_bytes(4, "big"))
    else:
        pseudo = total(_addresses(packet)) + protocol
    payload = packet[header:]
    starts = range(0, len(payload), segment) or range(1)
    segments = []
    for count, start in enumerate(starts):
        part = payload[start : start + segment]
        made = _with_ip(packet[:header], transport, len(part), count)
        is_last = start + segment >= len(payload)
        made = _with_tcp(made, transport, start, is_last) if protocol == TCP else _with_udp(made, transport, len(part))
        if not without:
            made = _with_checksum(made, transport, protocol, pseudo, part)
        segments.append(made + part)
    return segments


def find_transport(packet: bytes, kind: int, protocol: int) -> int:
    """Octets to the upper-layer header of a whole packet that is no fragment. Raises Dropped."""
    version = packet[0] >> 4 if len(packet) >= 20 else 0
    if version == 4 and kind in (GSO_TCP4, GSO_UDP_L4):
        at = 4 * (packet[0] & 15)
        right = at >= 20 and packet[9] == protocol and number(packet, 2) == len(packet)
        right = right and not number(packet, 6) & 0x3FFF
    elif version == 6 and len(packet) >= 40 and kind in (GSO_TCP6, GSO_UDP_L4):
        right = number(packet, 4) + 40 == len(packet)
        at, following = 40, packet[6]
        while right and following != protocol:
            right = following in PASSABLE and at + 8 <= len(packet) and at <= MOST_HEADER
            if right:
                at, following = at + 8 + 8 * packet[at + 1], packet[at]
    else:
        right = False
    if not right or at + LEAST[protocol] > len(packet):
        raise Dropped(Drop.BAD_OFFLOAD)
    return at


def _addresses(packet: bytes) -> bytes:
    return packet[8:40] if packet[0] >> 4 == 6 else packet[12:20]


def _with_ip(header: bytes, transport: int, size: int, count: int) -> bytes:
    """Length; for IPv4 identification, counting on, and checksum."""
    if header[0] >> 4 == 6:
        return put(header, 4, len(header) - 40 + size)
    header = put(put(header, 2, len(header) + size), 4, (number(header, 4) + count) & 0xFFFF)
    header = put(header, 10, 0)
    return put(header, 10, fold(total(header[:transport])) ^ 0xFFFF)


def _with_tcp(header: bytes, transport: int, start: int, is_last: bool) -> bytes:
    """Sequence number; PSH and FIN stay with the last segment, CWR with the first (RFC 3168 6.1.2)."""
    flags = header[transport + 13]
    flags &= 0xFF if is_last else ~(PSH | FIN)
    flags &= 0xFF if start == 0 else ~CWR
    header = put(header, transport + 4, (number(header, transport + 4, 4) + start) % 2**32, 4)
    return put(header, transport + 13, flags, 1)


def _with_udp(header: bytes, transport: int, size: int) -> bytes:
    return put(header, transport + 4, 8 + size)


def _with_checksum(header: bytes, transport: int, protocol: int, pseudo: int, part: bytes) -> bytes:
    header = put(header, transport + CHECKSUM[protocol], 0)
    length = total((len(header) - transport + len(part)).to_bytes(4, "big"))
    value = -(pseudo + length + total(header[transport:]) + total(part)) % 0xFFFF
    return put(header, transport + CHECKSUM[protocol], 0xFFFF if value == 0 and protocol == UDP else value)


def finish_checksum(packet: bytes, checksum_start: int, checksum_offset: int) -> bytes:
    """Packet with the checksum that the kernel left to us (checksum_offset not 0), over all from checksum_start on.

    Raises Dropped.
    """
    if checksum_offset == 0:
        return packet
    at = checksum_start + checksum_offset
    if at + 2 > len(packet):
        raise Dropped(Drop.BAD_OFFLOAD)
    return put(packet, at, (fold(total(packet[checksum_start:])) ^ 0xFFFF) or 0xFFFF)


# --- merge ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Merged:
    """One write to the TUN. virtio: flags, gso_type, hdr_len, gso_size, csum_start, csum_offset; () without VIRTIO."""

    virtio: tuple[int, ...]
    packet: bytes
    packets: int  # that are in it


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """A packet of TCP or UDP without IPv4 options or extension headers."""

    packet: bytes
    protocol: int
    transport: int  # octets
    header: int  # octets, all headers
    mergeable: bool  # with something before it
    ends: bool  # nothing can come after it

    @property
    def flow(self) -> tuple[int, int, bytes]:
        """Addresses, protocol, ports."""
        return self.transport, self.protocol, _addresses(self.packet) + self.packet[self.transport : self.transport + 4]

    @property
    def payload(self) -> bytes:
        """What is behind the headers."""
        return self.packet[self.header :]


def read(packet: bytes, may: int) -> Reading | None:
    """None: no flow can be named. may: what the merger may do."""
    if len(packet) < 20:
        return None
    if packet[0] >> 4 == 6:
        if len(packet) < 40 or number(packet, 4) + 40 != len(packet):
            return None
        transport, protocol = 40, packet[6]
    else:
        if packet[0] != 0x45 or number(packet, 2) != len(packet) or number(packet, 6) & 0x3FFF:
            return None
        transport, protocol = 20, packet[9]
    if protocol not in LEAST or len(packet) < transport + LEAST[protocol]:
        return None
    bit = {(TCP, 20): MERGE_TCP4, (TCP, 40): MERGE_TCP6, (UDP, 20): MERGE_UDP4, (UDP, 40): MERGE_UDP6}
    allowed = bool(may & VIRTIO and may & bit[protocol, transport])
    if protocol == UDP:
        header, ends = transport + 8, False
        mergeable = number(packet, transport + 4) == len(packet) - transport and number(packet, transport + 6) != 0
    else:
        header = transport + 4 * (packet[transport + 12] >> 4)
        if header < transport + 20 or header > len(packet):
            return None
        flags = packet[transport + 13]
        mergeable, ends = not flags & (SYN | RST | URG), bool(flags & (PSH | FIN))
    return Reading(
        packet=packet,
        protocol=protocol,
        transport=transport,
        header=header,
        mergeable=allowed and mergeable and header < len(packet),
        ends=ends,
    )


class Merger:
    """Packets in, fewer and larger packets out; order in a flow is kept."""

    def __init__(self, may: int = MERGE_TCP4 | MERGE_TCP6 | MERGE_UDP4 | MERGE_UDP6 | VIRTIO) -> None:
        self.may = may
        self.open: list[list[Reading]] = []  # oldest flow first

    def merge(self, packets: Iterable[bytes]) -> list[Merged]:
        """All of a burst, flushed."""
        return [output for packet in packets for output in self.add(packet)] + self.flush()

    def add(self, packet: bytes) -> list[Merged]:
        """What this packet makes ready."""
        reading = read(packet, self.may)
        if reading is None:  # it may be of any flow between its addresses
            between = [run for run in self.open if _between(packet) == _between(run[0].packet)]
            return [self._close(run) for run in between] + [self._alone(packet)]
        made = []
        for run in self.open:
            if run[0].flow != reading.flow:
                continue
            if reading.mergeable and joins(run, reading):
                run.append(reading)
                is_full = len(reading.payload) < len(run[0].payload) or len(run) == MOST_PIECES
                return [self._close(run)] if is_full or reading.ends else []
            made.append(self._close(run))  # it must not be overtaken
            break
        if not reading.mergeable or reading.ends:
            return [*made, self._alone(packet)]
        if len(self.open) == MOST_FLOWS:
            made.append(self._close(self.open[0]))
        self.open.append([reading])
        return made

    def flush(self) -> list[Merged]:
        """All that is still open."""
        return [self._close(run) for run in self.open[:]]

    def _close(self, run: list[Reading]) -> Merged:
        self.open = [other for other in self.open if other is not run]
        return combine(run) if len(run) > 1 else self._alone(run[0].packet)

    def _alone(self, packet: bytes) -> Merged:
        return Merged(virtio=(0,) * 6 if self.may & VIRTIO else (), packet=packet, packets=1)


def _between(packet: bytes) -> bytes:
    """Version and addresses; nothing where they are not whole."""
    version = packet[0] >> 4 if len(packet) >= 20 else 0
    if version not in (4, 6) or (version == 6 and len(packet) < 40):
        return b""
    return bytes([version]) + _addresses(packet)


def joins(run: list[Reading], reading: Reading) -> bool:
    """Whether a packet of that flow can be merged with those before it."""
    first = run[0]
    octets = len(first.packet) + sum(len(other.payload) for other in run[1:]) + len(reading.payload)
    return (
        len(reading.payload) <= len(first.payload)
        and octets <= MOST_MERGED
        and reading.header == first.header
        and _same_ip(run, reading)
        and (reading.protocol == UDP or _same_tcp(run, reading))
        and is_right(first)
        and is_right(reading)
    )


def _same_ip(run: list[Reading], reading: Reading) -> bool:
    """Traffic class, flow label and hop limit; type of service, time to live, DF, identification."""
    one, other = run[0].packet, reading.packet
    if reading.transport == 40:
        return one[:4] == other[:4] and one[7] == other[7]
    if one[1] != other[1] or one[8] != other[8] or one[6:8] != other[6:8]:
        return False
    step = (number(other, 4) - number(one, 4)) & 0xFFFF
    if len(run) == 1:
        return step == 1 or (step == 0 and bool(number(one, 6) & 0x4000))
    is_fixed = number(run[1].packet, 4) == number(one, 4)
    return step == (0 if is_fixed else len(run))


def _same_tcp(run: list[Reading], reading: Reading) -> bool:
    """Sequence number in order; all else equal but the checksum and the flags that end a run."""
    one, other = (each.packet[each.transport : each.header] for each in (run[0], reading))
    expected = (number(one, 4, 4) + sum(len(each.payload) for each in run)) % 2**32
    return (
        number(other, 4, 4) == expected
        and one[8:13] == other[8:13]  # acknowledgment, header length, reserved bits
        and (one[13] ^ other[13]) & ~(CWR | FIN | PSH) == 0
        and not other[13] & CWR  # that of the first stays with the first
        and one[14:16] == other[14:16]  # window
        and one[18:] == other[18:]  # urgent pointer, options: timestamps too
    )


def is_right(reading: Reading) -> bool:
    """The checksums of a packet are; the kernel will believe it of a merged one."""
    upper = reading.packet[reading.transport :]
    if reading.transport == 20 and fold(total(reading.packet[:20])) != 0xFFFF:
        return False
    return fold(total(_addresses(reading.packet)) + reading.protocol + len(upper) + total(upper)) == 0xFFFF


def combine(run: list[Reading]) -> Merged:
    """One packet with one header. Its checksum field holds the sum of the pseudo-header: the kernel finishes it."""
    first = run[0]
    transport, protocol = first.transport, first.protocol
    payload = b"".join(each.payload for each in run)
    header = first.packet[: first.header]
    upper = len(header) - transport + len(payload)
    if transport == 40:
        header, kind = put(header, 4, upper), GSO_TCP6
    else:
        header, kind = put(put(header, 2, len(header) + len(payload)), 10, 0), GSO_TCP4
        header = put(header, 10, fold(total(header[:20])) ^ 0xFFFF)
    if protocol == UDP:
        header, kind = put(header, transport + 4, upper), GSO_UDP_L4
    else:
        for each in run:
            header = put(header, transport + 13, header[transport + 13] | each.packet[transport + 13], 1)
        kind |= GSO_ECN if header[transport + 13] & CWR else 0
    header = put(header, transport + CHECKSUM[protocol], fold(total(_addresses(header)) + protocol + upper))
    virtio = (NEEDS_CHECKSUM, kind, len(header), len(first.payload), transport, CHECKSUM[protocol])
    return Merged(virtio=virtio, packet=header + payload, packets=len(run))
