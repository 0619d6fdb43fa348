"""Packets of one interface into a pcapng file, with the kernel's time stamps, and back again.

`python -m router.demo.capture INTERFACE FILE` prints {"event": "ready"} once it hears everything, and on SIGTERM or
SIGINT {"event": "done", "packets": ..., "dropped": ...}; dropped: what the kernel had to throw away.
It stays when the interface goes down and hears again what comes after, which other capture programs do not.

Times are CLOCK_REALTIME, those of the kernel at the moment the interface had the packet. With segmentation offload
a packet of a veth can be larger than the MTU. INTERFACE "any" is all of them: what comes in, so that a router's
packets are recorded once.
"""

import argparse
import errno
import json
import signal
import socket
import struct
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv6Address
from pathlib import Path
from types import FrameType
from typing import BinaryIO

ETH_P_ALL = 0x0003
ETH_P_IPV6 = 0x86DD
SO_RCVBUFFORCE = 33
SO_TIMESTAMPNS = 35
SOL_PACKET = 263
PACKET_STATISTICS = 6
PACKET_OUTGOING = 4

ANY = "any"
BUFFER = 16 << 20  # octets the kernel may hold while we write
LONGEST = 1 << 18  # octets
CONTROL_ROOM = socket.CMSG_SPACE(16)
LOOK_UP_EVERY = 0.1  # s; how soon a signal is noticed
NANOSECONDS = 1_000_000_000

SECTION, INTERFACE, PACKET = 0x0A0D0D0A, 1, 6  # pcapng block types
BYTE_ORDER = 0x1A2B3C4D
LINKTYPE_ETHERNET = 1
OPTION_NAME, OPTION_RESOLUTION, OPTION_FLAGS = 2, 9, 2
INBOUND, OUTBOUND = 1, 2

BLOCK = struct.Struct("<II")
PACKET_HEAD = struct.Struct("<IIIII")  # interface, time high, time low, captured, original
OPTION = struct.Struct("<HH")


@dataclass(frozen=True, slots=True)
class Packet:
    """One captured Ethernet frame."""

    time: float  # s, CLOCK_REALTIME
    octets: bytes  # from the Ethernet header on, perhaps cut at the snap length
    outgoing: bool  # sent by the host on whose interface we listened

    @property
    def is_ipv6(self) -> bool:
        """It carries an IPv6 header that is there as a whole."""
        return len(self.octets) >= 54 and self.octets[12:14] == ETH_P_IPV6.to_bytes(2)

    @property
    def source(self) -> IPv6Address | None:
        """IPv6 source address, or None."""
        return IPv6Address(self.octets[22:38]) if self.is_ipv6 else None

    @property
    def destination(self) -> IPv6Address | None:
        """IPv6 destination address, or None."""
        return IPv6Address(self.octets[38:54]) if self.is_ipv6 else None

    @property
    def next_header(self) -> int | None:
        """Next Header of the IPv6 header, or None."""
        return self.octets[20] if self.is_ipv6 else None

    @property
    def from_link_layer(self) -> bytes:
        """Source address of the Ethernet header."""
        return self.octets[6:12]


# Writing


def block(kind: int, body: bytes) -> bytes:
    """A pcapng block: type, length, body, length again."""
    body += bytes(-len(body) % 4)
    length = 12 + len(body)
    return BLOCK.pack(kind, length) + body + struct.pack("<I", length)


def option(code: int, value: bytes) -> bytes:
    """A pcapng option, padded."""
    return OPTION.pack(code, len(value)) + value + bytes(-len(value) % 4)


def file_head(interface: str) -> bytes:
    """Section and interface blocks: one Ethernet interface, times in nanoseconds."""
    section = struct.pack("<IHHq", BYTE_ORDER, 1, 0, -1)
    options = option(OPTION_NAME, interface.encode()) + option(OPTION_RESOLUTION, b"\x09") + option(0, b"")
    about = struct.pack("<HHI", LINKTYPE_ETHERNET, 0, 0) + options
    return block(SECTION, section) + block(INTERFACE, about)


def packet_block(nanoseconds: int, octets: bytes, original: int, outgoing: bool) -> bytes:
    """One packet with its direction. original: octets before it was cut."""
    head = PACKET_HEAD.pack(0, nanoseconds >> 32, nanoseconds & 0xFFFFFFFF, len(octets), original)
    direction = struct.pack("<I", OUTBOUND if outgoing else INBOUND)
    padding = bytes(-len(octets) % 4)
    return block(PACKET, head + octets + padding + option(OPTION_FLAGS, direction) + option(0, b""))


def open_capture(interface: str) -> socket.socket:
    """A socket that hears all packets of an interface of this network namespace, or of every one (ANY)."""
    # protocol 0 hears nothing until it is bound; without an interface to bind to, it hears all of them at once
    protocol = socket.htons(ETH_P_ALL) if interface == ANY else 0
    opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, protocol)
    for name in (SO_RCVBUFFORCE, socket.SO_RCVBUF):
        with suppress(PermissionError):
            opened.setsockopt(socket.SOL_SOCKET, name, BUFFER)
            break
    opened.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    if interface != ANY:
        opened.bind((interface, ETH_P_ALL))
    return opened


class Capture:
    """Copies from a socket into a file until somebody calls stop()."""

    def __init__(self, interface: str, file: BinaryIO, snap: int) -> None:
        self.packets = 0
        self._socket = open_capture(interface)
        self._socket.settimeout(LOOK_UP_EVERY)
        self._file = file
        self._snap = snap
        self._each_once = interface == ANY  # a packet that is forwarded comes in by one interface and leaves by another
        self._stopped = False
        file.write(file_head(interface))
        file.flush()

    def stop(self, number: int = 0, frame: FrameType | None = None) -> None:
        """Finish with what has been captured by now; fit to be a signal handler."""
        self._stopped = True

    def run(self) -> None:
        """Copy packets; the file is complete whenever the interface is silent, and at the end."""
        while not self._stopped:
            try:
                self._copy()
            except TimeoutError:
                self._file.flush()
            except OSError as error:
                if error.errno != errno.ENETDOWN:  # it went down; the kernel hooks us in again when it is up
                    raise
        self._drain()
        self._file.flush()

    @property
    def dropped(self) -> int:
        """Packets the kernel had no room for, since last asked."""
        return int(struct.unpack("=II", self._socket.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))[1])

    def _drain(self) -> None:
        self._socket.setblocking(False)
        while True:
            try:
                self._copy()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENETDOWN:
                    raise

    def _copy(self) -> None:
        octets, control, _, about = self._socket.recvmsg(LONGEST, CONTROL_ROOM)
        outgoing = about[2] == PACKET_OUTGOING
        if outgoing and self._each_once:
            return
        self._file.write(packet_block(stamp(control), octets[: self._snap], len(octets), outgoing))
        self.packets += 1


def stamp(control: Sequence[tuple[int, int, bytes]]) -> int:
    """The kernel's time stamp of a packet, ns of CLOCK_REALTIME."""
    for level, kind, octets in control:
        if level == socket.SOL_SOCKET and kind == SO_TIMESTAMPNS:
            seconds, nanoseconds = struct.unpack("=qq", octets[:16])
            return int(seconds * NANOSECONDS + nanoseconds)
    return time.time_ns()


# Reading


def read_packets(file: Path) -> list[Packet]:
    """Packets of a file written here, in the order they were captured; a block cut short at the end is left out."""
    return [packet for kind, body in _blocks(file.read_bytes()) if kind == PACKET for packet in [_packet(body)]]


def _blocks(octets: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + 12 <= len(octets):
        kind, length = BLOCK.unpack_from(octets, at)
        if length < 12 or at + length > len(octets):
            return
        yield kind, octets[at + 8 : at + length - 4]
        at += length


def _packet(body: bytes) -> Packet:
    _, high, low, captured, _ = PACKET_HEAD.unpack_from(body)
    octets = body[PACKET_HEAD.size : PACKET_HEAD.size + captured]
    options = PACKET_HEAD.size + captured + (-captured % 4)
    (direction,) = struct.unpack_from("<I", body, options + OPTION.size)
    return Packet((high << 32 | low) / NANOSECONDS, octets, direction == OUTBOUND)


# Command line


def main(arguments: Sequence[str] | None = None) -> None:
    """Capture the packets of an interface into a pcapng file, until SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m router.demo.capture", description=main.__doc__)
    parser.add_argument("interface")
    parser.add_argument("file", type=Path)
    parser.add_argument("--snap", type=int, default=LONGEST, help="octets to keep of each packet")
    chosen = parser.parse_args(arguments)
    with chosen.file.open("wb") as file:
        capture = Capture(chosen.interface, file, chosen.snap)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, capture.stop)
        print(json.dumps({"event": "ready"}), flush=True)
        capture.run()
    print(json.dumps({"event": "done", "packets": capture.packets, "dropped": capture.dropped}), flush=True)


if __name__ == "__main__":
    main()
