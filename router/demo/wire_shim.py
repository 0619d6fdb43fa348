"""Wires with a length and a width: they delay, narrow, lose and fall silent, while both carriers stay up.

    python -m router.demo.wire_shim wlan=wlan-core,wlan-mag lte=lte-core,lte-mag

carries Ethernet frames between the two interfaces of each wire, in the network namespace it is started in:

    host a ====== end a [ ring -> queue -> air -> send ] end b ====== host b       and the same the other way
    (veth)              tail drop,   delay,                          (veth)
                        rate         jitter

A line of JSON on standard input changes a wire from then on, both ways or only those frames that leave by one end;
what it does not name stays as it is. Each line is answered by one:

    {"wire": "wlan", "toward": "wlan-mag", "delay": 20, "rate": 50}     {"event": "changed", "time": ...}
    {"wire": "wlan", "silent": true}                                    {"event": "changed", "time": ...}
    {}                                                                  {"event": "report", "cpu": s, "wires": {...}}

The end of standard input is its end. Frames are timed by the kernel's stamp of their arrival and never overtake each
other. Octets are those behind the Ethernet header. whole_frames() first: what a veth leaves for hardware to do
(segments, checksums) nobody would ever do here.
"""

import argparse
import array
import ctypes
import fcntl
import gc
import json
import mmap
import os
import random
import select
import socket
import struct
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, Self

if TYPE_CHECKING:  # the shim starts the faster for what it does not import
    from router.demo.lab import Host

ETHERNET = 14  # octets of header
PAUSE = 0.00025  # s between two looks while there is something to do: frames come in bursts, and late by this at most
LONGEST_WAIT = 1.0  # s

# linux/if_packet.h
SOL_PACKET = 263
ETH_P_ALL = 0x0003
PACKET_RX_RING, PACKET_VERSION, PACKET_QDISC_BYPASS, PACKET_IGNORE_OUTGOING = 5, 10, 20, 23
TPACKET_V2 = 1
STATUS_KERNEL, STATUS_USER, STATUS_CHECKSUM_NOT_READY = 0, 1, 8
RING_HEAD = struct.Struct("=IIIHHII")  # status, length, captured, offset of the frame, of its payload, s, ns
RING_REQUEST = struct.Struct("=IIII")  # octets of a block, blocks, octets of a slot, slots
STATUS = struct.Struct("=I")
SLOT, BLOCK, BLOCKS = 2048, 1 << 16, 64  # octets; 2048 slots, which a socket buffer of an ordinary user has not
LONGEST_FRAME = SLOT - 128  # octets; what is longer does not fit a slot

PR_SET_TIMERSLACK = 29
SIOCETHTOOL = 0x8946
ETHTOOL_STXCSUM, ETHTOOL_STSO, ETHTOOL_SGSO = 0x17, 0x1F, 0x24
INTERFACE_REQUEST = struct.Struct("=16sQ")  # name, address of the question

Counts = dict[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """What a wire does to frames in one direction."""

    delay: float = 0.0  # ms
    jitter: float = 0.0  # ms, at most: as much is added as chance wants, but no frame overtakes another
    rate: float = 0.0  # Mbit/s; 0: as fast as they come
    queue_packets: int = 1000  # that wait for their turn at this rate; one more is dropped
    queue_octets: int = 1 << 20
    loss: float = 0.0  # per cent, by chance
    silent: bool = False  # nothing arrives, not even what is on its way; carriers stay


class Way:
    """One direction of a wire. Pure: frames and times (s, of any clock that does not go back) in, frames out."""

    def __init__(self, conditions: Conditions | None = None, *, seed: int = 0) -> None:
        self.conditions = conditions or Conditions()
        self.counts: Counts = dict.fromkeys(("carried", "octets", "overflowed", "lost", "silenced"), 0)
        self._random = random.Random(seed)
        self._waiting: deque[tuple[float, int]] = deque()  # when it will have left the queue, octets
        self._backlog = 0  # octets, of those
        self._free = 0.0  # when the last of them will have
        self._air: deque[tuple[float, bytes]] = deque()  # when it arrives, frame
        self._latest = 0.0  # arrival

    @property
    def next_arrival(self) -> float:
        """When the next frame arrives; infinity: none is on its way."""
        return self._air[0][0] if self._air else float("inf")

    def enter(self, frame: bytes, now: float) -> None:
        """A frame comes to the near end of the wire."""
        conditions, octets = self.conditions, len(frame) - ETHERNET
        if conditions.silent:
            self.counts["silenced"] += 1
        elif conditions.loss and self._random.random() * 100.0 < conditions.loss:
            self.counts["lost"] += 1
        elif not self._room(octets, now):
            self.counts["overflowed"] += 1
        else:
            left = self._queue(octets, now) if conditions.rate else now
            delay = conditions.delay + (conditions.jitter * self._random.random() if conditions.jitter else 0.0)
            self._latest = max(self._latest, left + delay * 1e-3)
            self._air.append((self._latest, frame))

    def arrived(self, now: float) -> Iterator[bytes]:
        """Frames that have come to the far end by now, in the order they entered."""
        air, counts = self._air, self.counts
        while air and air[0][0] <= now:
            frame = air.popleft()[1]
            if self.conditions.silent:
                counts["silenced"] += 1
                continue
            counts["carried"] += 1
            counts["octets"] += len(frame) - ETHERNET
            yield frame

    def _room(self, octets: int, now: float) -> bool:
        waiting = self._waiting
        while waiting and waiting[0][0] <= now:
            self._backlog -= waiting.popleft()[1]
        return len(waiting) < self.conditions.queue_packets and self._backlog + octets <= self.conditions.queue_octets

    def _queue(self, octets: int, now: float) -> float:
        """When its last bit leaves."""
        self._free = max(self._free, now) + octets * 8e-6 / self.conditions.rate
        self._waiting.append((self._free, octets))
        self._backlog += octets
        return self._free


class End:
    """One interface: frames that its host sent, out of a ring shared with the kernel; and a way to send it some."""

    def __init__(self, interface: str) -> None:
        self.interface = interface
        self.strange = 0  # frames too long for a slot, or without their checksum: whole_frames() was forgotten
        self.refused = 0  # frames the kernel did not take, e.g. as the interface was switched off
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self.socket.setsockopt(SOL_PACKET, PACKET_VERSION, TPACKET_V2)
        self.socket.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
        self.socket.setsockopt(SOL_PACKET, PACKET_QDISC_BYPASS, 1)
        slots = BLOCK * BLOCKS // SLOT
        self.socket.setsockopt(SOL_PACKET, PACKET_RX_RING, RING_REQUEST.pack(BLOCK, BLOCKS, SLOT, slots))
        self._ring = mmap.mmap(self.socket.fileno(), BLOCK * BLOCKS)
        self._at = 0
        self.socket.bind((interface, ETH_P_ALL))

    def frames(self) -> Iterator[tuple[bytes, float]]:
        """What has come since the last time, each with its CLOCK_REALTIME (s)."""
        ring, size = self._ring, BLOCK * BLOCKS
        while True:
            at = self._at
            status, length, captured, offset, _, seconds, nanoseconds = RING_HEAD.unpack_from(ring, at)
            if not status & STATUS_USER:
                return
            frame = ring[at + offset : at + offset + captured]
            STATUS.pack_into(ring, at, STATUS_KERNEL)
            self._at = (at + SLOT) % size
            if captured < length or status & STATUS_CHECKSUM_NOT_READY:
                self.strange += 1
            else:
                yield frame, seconds + nanoseconds * 1e-9

    def forget_error(self) -> None:
        """The interface went down, perhaps; the kernel hooks us in again when it is up."""
        self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)

    def send(self, frame: bytes) -> None:
        """Give its host a frame."""
        try:
            self.socket.send(frame)
        except OSError:
            self.refused += 1


class Wire:
    """Two ends and the ways between them."""

    def __init__(self, name: str, a: End, b: End, *, seed: int) -> None:
        self.name = name
        self.ways = [(a, Way(seed=seed), b), (b, Way(seed=seed + 1), a)]

    def change(self, toward: str, new: Mapping[str, Any]) -> None:
        """Conditions from now on, of frames that leave by this end ("": by both). Raises ValueError."""
        chosen = [way for _, way, far in self.ways if toward in ("", far.interface)]
        unknown = set(new) - {field.name for field in fields(Conditions)}
        if not chosen or unknown:
            raise ValueError(f"{self.name}: no {toward if not chosen else ', '.join(sorted(unknown))}")
        for way in chosen:
            way.conditions = replace(way.conditions, **new)

    def report(self) -> dict[str, Any]:
        """Per direction, named after the end frames leave by: counts and conditions."""
        return {
            far.interface: {
                **way.counts,
                "strange": near.strange,
                "refused": far.refused,
                "conditions": asdict(way.conditions),
            }
            for near, way, far in self.ways
        }


class Shim:
    """All wires of this process, and its commands."""

    def __init__(self, wires: Sequence[Wire], commands: int, answers: IO[str]) -> None:
        self._wires = {wire.name: wire for wire in wires}
        self._ways = [way for wire in wires for way in wire.ways]
        self._commands = commands  # descriptor
        self._answers = answers
        self._line = b""

    def run(self) -> None:
        """Carry frames until there is nobody to command us."""
        sources = [self._commands, *(near.socket.fileno() for near, _, _ in self._ways)]
        self._answer(event="ready")
        while True:
            wait = min(way.next_arrival for _, way, _ in self._ways) - time.monotonic()
            readable, _, _ = select.select(sources, [], [], min(max(0.0, wait), LONGEST_WAIT))
            if self._commands in readable and not self._listen():
                return
            self._carry(readable)
            time.sleep(PAUSE)

    def _carry(self, readable: Sequence[int]) -> None:
        # an interruption between two readings makes it less
        since_stamp = max(time.monotonic() - time.time() for _ in range(2))
        now = time.monotonic()
        for near, way, far in self._ways:
            idle = True
            for frame, stamp in near.frames():
                way.enter(frame, min(now, stamp + since_stamp))
                idle = False
            if idle and near.socket.fileno() in readable:
                near.forget_error()  # what else should wake us
            for frame in way.arrived(now):
                far.send(frame)

    def _listen(self) -> bool:
        """Do what we are told; False: nobody will ever tell us again."""
        octets = os.read(self._commands, 1 << 16)
        *lines, self._line = (self._line + octets).split(b"\n")
        for line in lines:
            try:
                self._obey(json.loads(line))
            except (ValueError, KeyError, TypeError) as error:
                self._answer(event="refused", why=f"{type(error).__name__}: {error}")
        return bool(octets)

    def _obey(self, command: dict[str, Any]) -> None:
        if not command:
            reports = {name: wire.report() for name, wire in self._wires.items()}
            self._answer(event="report", cpu=round(time.process_time(), 6), wires=reports)
            return
        wire = self._wires[command.pop("wire")]
        wire.change(command.pop("toward", ""), command)
        self._answer(event="changed")

    def _answer(self, **about: Any) -> None:
        print(json.dumps({**about, "time": round(time.time(), 6)}), file=self._answers, flush=True)


# Seen from the lab


def whole_frames(host: "Host", *interfaces: str) -> None:
    """Have a host send its frames as they travel: cut into segments, with their checksums. Raises OSError."""
    with host.inside(), socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as asked:
        for name in interfaces:
            for command in (ETHTOOL_STXCSUM, ETHTOOL_STSO, ETHTOOL_SGSO):
                value = array.array("I", [command, 0])
                fcntl.ioctl(asked, SIOCETHTOOL, INTERFACE_REQUEST.pack(name.encode(), value.buffer_info()[0]))


class Wires:
    """A running shim, on the host that has the ends of its wires."""

    def __init__(self, host: "Host", wires: Mapping[str, tuple[str, str]], *, seed: int = 0) -> None:
        """wires: name -> its two interfaces on that host."""
        words = [f"{name}={a},{b}" for name, (a, b) in wires.items()]
        pipe = subprocess.PIPE
        self.process = host.spawn_module(__name__, "--seed", str(seed), *words, stdin=pipe, stdout=pipe)
        self._answer("ready")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def change(self, wire: str, *, toward: str = "", **conditions: float | bool) -> float:
        """Set Conditions by name, of both directions or of the one toward an interface. When: CLOCK_REALTIME, s."""
        command = {"wire": wire, **({"toward": toward} if toward else {}), **conditions}
        return float(self._ask(command, "changed")["time"])

    def set(self, wire: str, conditions: Conditions, *, toward: str = "") -> float:
        """All conditions at once. When: CLOCK_REALTIME, s."""
        return self.change(wire, toward=toward, **asdict(conditions))

    def report(self) -> dict[str, Any]:
        """wires: name -> interface -> counts; cpu: s that the shim has used."""
        return self._ask({}, "report")

    def close(self) -> None:
        """End it; what is on its way is gone."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()

    def _ask(self, command: Mapping[str, Any], event: str) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(command).encode() + b"\n")
        self.process.stdin.flush()
        return self._answer(event)

    def _answer(self, event: str) -> dict[str, Any]:
        """Its next line. Raises ValueError if that is not about this event."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        answer: dict[str, Any] = json.loads(line) if line else {"event": "gone", "why": "the shim has ended"}
        if answer["event"] != event:
            raise ValueError(f"wire shim: {answer.get('why', answer)}")
        return answer


# Command line


def be_punctual() -> None:
    """A wire waits for nobody: ahead of all programs where that is allowed, timers exact, no pauses of our own."""
    with suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    ctypes.CDLL(None).prctl(PR_SET_TIMERSLACK, ctypes.c_ulong(1), 0, 0, 0)  # ns; 50 us would be the default
    gc.disable()  # nothing here is a cycle


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry frames between pairs of interfaces, until standard input ends."""
    parser = argparse.ArgumentParser(prog="python -m router.demo.wire_shim", description=main.__doc__)
    parser.add_argument("wires", nargs="+", metavar="NAME=INTERFACE,INTERFACE")
    parser.add_argument("--seed", type=int, default=0, help="of chance (default: 0)")
    chosen = parser.parse_args(arguments)
    wires: list[Wire] = []
    for number, text in enumerate(chosen.wires):
        name, _, ends = text.partition("=")
        a, b = (End(interface) for interface in ends.split(","))
        wires.append(Wire(name, a, b, seed=chosen.seed + 2 * number))
    be_punctual()
    Shim(wires, sys.stdin.fileno(), sys.stdout).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
