"""Traffic whose every octet is checked: TCP both ways, short connections, and a datagram each millisecond.

Each program below is a process of its own, so that nothing disturbs its clock; it prints one JSON object per line and
on SIGTERM its last one, "done", then exits with 0:

    tcp-serve PORT            "ready"; gives to tcp-get and connect, takes from tcp-put; per connection "served"
    tcp-get ADDRESS PORT      download: "connected", "progress" ..., "done"
    tcp-put ADDRESS PORT      upload: "connected", "progress" ..., "done" with what the server found
    connect ADDRESS PORT      one short connection, no bind: "done" with the source address the kernel chose
    connect-often ADDRESS     one after the other, some a second: "short" with the source address of each, "done"
    udp-send ADDRESS PORT     numbered datagrams at a steady rate: "ready", "progress" ..., "done"
    udp-sink PORT             "ready", "interval" with all arrivals every 0.1 s, "done"

All times are CLOCK_REALTIME in seconds, those of arriving datagrams are the kernel's. Octets of a stream are a
function of their place (BLOCK octets of SHAKE-128 of the block number), so the receiver knows what must come.

Program starts one of them on a host and reads its lines.
"""

import argparse
import errno
import hashlib
import json
import math
import os
import signal
import socket
import struct
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from subprocess import TimeoutExpired
from typing import TYPE_CHECKING, Any

from router.demo.capture import SO_TIMESTAMPNS, stamp

if TYPE_CHECKING:  # each program here starts the faster for what it does not import
    from router.demo.lab import Host

Report = dict[str, Any]  # one line of a program: "event", "time", and what the event is about

TCP_PORT = 7001
UDP_PORT = 7002
BLOCK = 1 << 14  # octets made by one call of the hash
CHUNK = 1 << 16  # octets read at once
LOOK_UP_EVERY = 0.1  # s; how soon a signal is noticed
PROGRESS_EVERY = 0.5  # s
INTERVAL = 0.1  # s of arrivals in one report
ANSWER_TIMEOUT = 10.0  # s for the server to confirm an upload, after a handover too
PROBE = struct.Struct("!QQ")  # sequence number, time of sending in ns
NANOSECONDS = 1_000_000_000
UNREACHABLE = {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EADDRNOTAVAIL, errno.EACCES}

_printing = threading.Lock()


def report(event: str, **about: Any) -> None:
    """Print one line."""
    line = json.dumps({"event": event, "time": round(time.time(), 6), **about})
    with _printing:
        print(line, flush=True)


class Stop:
    """Set by SIGTERM and SIGINT; what runs looks at it often."""

    def __init__(self, after: float = 0.0) -> None:
        self._wanted = False
        self._deadline = time.monotonic() + after if after else float("inf")
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._note)

    def __bool__(self) -> bool:
        return self._wanted or time.monotonic() >= self._deadline

    def _note(self, number: int, frame: object) -> None:
        self._wanted = True


# The stream


class Stream:
    """The octets every transfer consists of, from a place on."""

    def __init__(self) -> None:
        self.place = 0
        self._number = -1
        self._block = b""

    def peek(self, most: int) -> memoryview:
        """The next octets, at least one and at most most, without going past a block."""
        number, offset = divmod(self.place, BLOCK)
        if number != self._number:
            self._number, self._block = number, hashlib.shake_128(number.to_bytes(8)).digest(BLOCK)
        return memoryview(self._block)[offset : offset + most]

    def check(self, octets: memoryview) -> int:
        """Go on by these octets; how many of them are not what they should be."""
        wrong = 0
        while octets:
            due = self.peek(len(octets))
            if octets[: len(due)] != due:
                wrong += sum(a != b for a, b in zip(octets, due, strict=False))
            octets = octets[len(due) :]
            self.place += len(due)
        return wrong


@dataclass(slots=True)
class Reception:
    """What a receiver of the stream saw."""

    stream: Stream = field(default_factory=Stream)
    corrupt: int = 0  # octets
    longest_gap: float = 0.0  # s between two arrivals, or since the last
    gap_began: float = 0.0  # CLOCK_REALTIME, s
    error: str = ""  # ECONNRESET, ...: how the connection ended, if not well
    last: float = field(default_factory=time.time)

    def take(self, octets: memoryview) -> None:
        """Count and check octets that have just arrived."""
        self.close_gap()
        self.last = time.time()
        self.corrupt += self.stream.check(octets)

    def close_gap(self) -> None:
        """Measure the silence up to now."""
        if (gap := time.time() - self.last) > self.longest_gap:
            self.longest_gap, self.gap_began = gap, self.last

    def summary(self) -> Report:
        """As a report has it."""
        return {
            "octets": self.stream.place,
            "corrupt": self.corrupt,
            "longest_gap": round(self.longest_gap, 6),
            "gap_began": round(self.gap_began, 6),
            "error": self.error,
        }


def name_of(error: OSError) -> str:
    """ECONNRESET and the like."""
    if isinstance(error, TimeoutError):  # of the socket module, without a number
        return "ETIMEDOUT"
    return errno.errorcode.get(error.errno or 0, type(error).__name__)


def receive(connection: socket.socket, reception: Reception, stop: Callable[[], object]) -> bool:
    """Take the stream until the peer ends it or stop says so; True if the peer ended it."""
    connection.settimeout(LOOK_UP_EVERY)
    buffer = memoryview(bytearray(CHUNK))
    ended = False
    while not ended and not stop():
        try:
            count = connection.recv_into(buffer)
        except TimeoutError as error:
            ended = error.errno == errno.ETIMEDOUT  # of the connection, not of this read
            reception.error = "ETIMEDOUT" if ended else ""
        except OSError as error:
            reception.error = name_of(error)
            ended = True
        else:
            ended = count == 0
            if count:
                reception.take(buffer[:count])
    reception.close_gap()
    return ended


def give(connection: socket.socket, octets: int, rate: float, stop: Callable[[], object]) -> tuple[int, str]:
    """Send so many octets of the stream (0: endless) at a rate in Mbit/s (0: unlimited): octets sent, error."""
    connection.settimeout(LOOK_UP_EVERY)
    stream, start = Stream(), time.monotonic()
    while not stop() and (not octets or stream.place < octets):
        if rate and (early := start + stream.place * 8e-6 / rate - time.monotonic()) > 0:
            time.sleep(min(early, LOOK_UP_EVERY))
            continue
        try:
            stream.place += connection.send(stream.peek(octets - stream.place if octets else BLOCK))
        except TimeoutError as error:
            if error.errno == errno.ETIMEDOUT:
                return stream.place, "ETIMEDOUT"
        except OSError as error:
            return stream.place, name_of(error)
    return stream.place, ""


# TCP


def tcp_serve(chosen: argparse.Namespace) -> int:
    """Serve downloads and uploads, a thread each."""
    stop = Stop()
    listener = socket.create_server(("::", chosen.port), family=socket.AF_INET6, backlog=64, dualstack_ipv6=True)
    listener.settimeout(LOOK_UP_EVERY)
    report("ready", port=listener.getsockname()[1])
    connections = 0
    while not stop:
        try:
            connection, peer = listener.accept()
        except TimeoutError:
            continue
        connections += 1
        threading.Thread(target=serve, args=(connection, peer[0], stop), daemon=True).start()
    report("done", connections=connections)
    return 0


def serve(connection: socket.socket, peer: str, stop: Stop) -> None:
    """One connection. Its first line: `GET octets rate`, or `PUT`."""
    with connection:
        try:
            words = read_line(connection).split()
            if words[:1] == [b"PUT"]:
                about = serve_upload(connection, stop)
            else:
                sent, error = give(connection, int(words[1]), float(words[2]), lambda: bool(stop))
                about = {"kind": "get", "octets": sent, "error": error}
        except (OSError, IndexError, ValueError) as error:
            about = {"kind": "none", "error": str(error)}
    report("served", peer=peer, **about)


def serve_upload(connection: socket.socket, stop: Stop) -> Report:
    """Take the stream to its end, and tell the sender what arrived."""
    reception = Reception()
    if receive(connection, reception, lambda: bool(stop)) and not reception.error:
        connection.sendall(json.dumps(reception.summary()).encode() + b"\n")
    return {"kind": "put", **reception.summary()}


def read_line(connection: socket.socket) -> bytes:
    """One line of a few words, octet by octet: what follows it belongs to the stream. Raises OSError."""
    connection.settimeout(ANSWER_TIMEOUT)
    line = b""
    while not line.endswith(b"\n") and len(line) < 4096:
        octet = connection.recv(1)
        if not octet:
            raise ConnectionResetError(errno.ECONNRESET, "closed before the end of a line")
        line += octet
    return line


def dial(chosen: argparse.Namespace, request: str) -> socket.socket:
    """Connect, ask, and report with which addresses. Raises OSError."""
    began = time.monotonic()
    connection = socket.create_connection((chosen.address, chosen.port), timeout=chosen.timeout)
    connection.sendall(request.encode() + b"\n")
    source, seconds = connection.getsockname()[0], round(time.monotonic() - began, 6)
    report("connected", source=source, destination=chosen.address, seconds=seconds)
    return connection


def source_toward(chosen: argparse.Namespace) -> str:
    """The address that the kernel chooses for a connection now, also for one that fails; "": it has none."""
    family = socket.AF_INET6 if ":" in chosen.address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as trial:
        try:
            trial.connect((chosen.address, chosen.port))
        except OSError:
            return ""
        return str(trial.getsockname()[0])


def failed(chosen: argparse.Namespace, error: OSError) -> int:
    """Report a connection that did not come about."""
    report("done", destination=chosen.address, octets=0, error=name_of(error))
    return 1


def tcp_get(chosen: argparse.Namespace) -> int:
    """Download and check."""
    progress = Progress(Stop(chosen.seconds))
    try:
        connection = dial(chosen, f"GET {chosen.octets} {chosen.rate:g}")
    except OSError as error:
        return failed(chosen, error)
    with connection:
        source, reception = connection.getsockname()[0], Reception()
        receive(connection, reception, lambda: progress.over(octets=reception.stream.place))
    report("done", source=source, **reception.summary())
    return 0


def tcp_put(chosen: argparse.Namespace) -> int:
    """Upload, and ask what arrived."""
    progress = Progress(Stop(chosen.seconds))
    try:
        connection = dial(chosen, "PUT")
    except OSError as error:
        return failed(chosen, error)
    with connection:
        source = connection.getsockname()[0]
        sent, problem = give(connection, chosen.octets, chosen.rate, progress.over)
        arrived: Report = {}
        try:
            connection.shutdown(socket.SHUT_WR)
            arrived = json.loads(read_line(connection))
        except OSError as error:
            problem = problem or name_of(error)
    report("done", source=source, sent=sent, **{"octets": 0, **arrived, "error": problem})
    return 0


class Progress:
    """A report now and then, until it is time to stop."""

    def __init__(self, stop: Stop) -> None:
        self._stop = stop
        self._next = time.monotonic() + PROGRESS_EVERY

    def over(self, **so_far: int) -> bool:
        """Report if it is time; True if it is time to stop."""
        if time.monotonic() >= self._next:
            self._next += PROGRESS_EVERY
            report("progress", **so_far)
        return bool(self._stop)


def connect(chosen: argparse.Namespace) -> int:
    """Open one short connection as any program would: the kernel chooses the source address."""
    stop, reception = Stop(chosen.timeout), Reception()
    began = time.monotonic()
    try:
        connection = dial(chosen, f"GET {chosen.octets or BLOCK} 0")
    except OSError as error:
        return failed(chosen, error)
    with connection:
        source = connection.getsockname()[0]
        receive(connection, reception, lambda: bool(stop))
    seconds = round(time.monotonic() - began, 6)
    report("done", source=source, destination=chosen.address, seconds=seconds, **reception.summary())
    return 0 if reception.stream.place and not reception.error else 1


def connect_often(chosen: argparse.Namespace) -> int:
    """Open one short connection after the other, so many a second, and report each."""
    stop, period, due = Stop(chosen.seconds), 1 / chosen.rate, time.monotonic()
    opened = failures = 0
    while not stop:
        source, error, at = source_toward(chosen), "", time.time()
        try:
            with dial(chosen, f"GET {chosen.octets or BLOCK} 0") as connection:
                source, reception = connection.getsockname()[0], Reception()
                receive(connection, reception, lambda: bool(stop))
                error = reception.error
        except OSError as problem:
            error = name_of(problem)
        opened, failures = opened + 1, failures + bool(error)
        report("short", at=at, source=source, error=error)
        due = max(due + period, time.monotonic())
        while not stop and time.monotonic() < due:
            time.sleep(min(0.02, max(0.0, due - time.monotonic())))
    report("done", opened=opened, failures=failures)
    return 0


# UDP


def udp_send(chosen: argparse.Namespace) -> int:
    """Send numbered datagrams at a steady rate; an unreachable destination costs a number and nothing else.

    Seconds times rate of them, however late each is.
    """
    progress, period = Progress(Stop()), 1 / chosen.rate
    most = round(chosen.seconds * chosen.rate) if chosen.seconds else math.inf
    probe = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    if chosen.source:
        probe.bind((chosen.source, 0))
    padding = bytes(max(0, chosen.size - PROBE.size))
    report("ready")
    start, sequence, unreachable = time.monotonic(), 0, 0
    while sequence < most and not progress.over(sent=sequence):
        if (early := start + sequence * period - time.monotonic()) > 0:
            time.sleep(min(early, LOOK_UP_EVERY))
            continue
        octets = PROBE.pack(sequence, time.time_ns()) + padding
        try:
            probe.sendto(octets, (chosen.address, chosen.port))
        except OSError as error:
            if error.errno not in UNREACHABLE:
                raise
            unreachable += 1
        sequence += 1
    report("done", sent=sequence, unreachable=unreachable)
    return 0


@dataclass(slots=True)
class Arrivals:
    """What a sink knows of one sender's numbers."""

    received: int = 0
    duplicates: int = 0
    reordered: int = 0
    lowest: int = -1
    highest: int = -1
    missing: set[int] = field(default_factory=set)
    last: float = 0.0  # CLOCK_REALTIME, s
    longest_gap: float = 0.0  # s
    gap_began: float = 0.0  # CLOCK_REALTIME, s

    def take(self, sequence: int, arrived: float) -> None:
        """Count a datagram. arrived: CLOCK_REALTIME, s."""
        if self.received and arrived - self.last > self.longest_gap:
            self.longest_gap, self.gap_began = arrived - self.last, self.last
        self.last = arrived
        self._number(sequence)
        self.received += 1

    def _number(self, sequence: int) -> None:
        if not self.received:
            self.lowest = self.highest = sequence
        elif sequence > self.highest:
            self.missing.update(range(self.highest + 1, sequence))
            self.highest = sequence
        elif sequence < self.lowest:  # the first to come was not the first to be sent
            self.missing.update(range(sequence + 1, self.lowest))
            self.lowest = sequence
            self.reordered += 1
        elif sequence in self.missing:
            self.missing.discard(sequence)
            self.reordered += 1
        else:
            self.duplicates += 1

    def summary(self) -> Report:
        """As a report has it; lost: numbers between the lowest and the highest that never came."""
        return {
            "received": self.received,
            "lost": len(self.missing),
            "duplicates": self.duplicates,
            "reordered": self.reordered,
            "highest": self.highest,
            "longest_gap": round(self.longest_gap, 6),
            "gap_began": round(self.gap_began, 6),
        }


def udp_sink(chosen: argparse.Namespace) -> int:
    """Note every datagram that arrives, from one sender."""
    stop, arrivals = Stop(chosen.seconds), Arrivals()
    sink = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    sink.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    sink.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    sink.bind(("::", chosen.port))
    sink.settimeout(INTERVAL / 4)
    report("ready", port=sink.getsockname()[1])
    while not stop:
        interval(sink, arrivals, stop)
    report("done", **arrivals.summary())
    return 0


def interval(sink: socket.socket, arrivals: Arrivals, stop: Stop) -> None:
    """Receive for a while, then report each arrival as [number, sent, arrived]."""
    noted: list[tuple[int, float, float]] = []
    before = arrivals.summary()
    end = time.monotonic() + INTERVAL
    while not stop and time.monotonic() < end:
        try:
            octets, control, _, _ = sink.recvmsg(CHUNK, socket.CMSG_SPACE(16))
        except TimeoutError:
            continue
        if len(octets) < PROBE.size:
            continue
        sequence, sent = PROBE.unpack_from(octets)
        arrived = stamp(control) / NANOSECONDS
        arrivals.take(sequence, arrived)
        noted.append((sequence, round(sent / NANOSECONDS, 6), round(arrived, 6)))
    changed = {key: arrivals.summary()[key] - before[key] for key in ("received", "lost", "duplicates")}
    if noted:
        report("interval", **changed, arrivals=noted)


# A program on a host, seen from the lab


class Program:
    """A process on a host that prints a JSON object per line; its output is a file without a name."""

    def __init__(self, host: "Host", *arguments: str, module: str = __name__) -> None:
        self._output = tempfile.TemporaryFile()  # noqa: SIM115  closed by close()
        self.process = host.spawn_module(module, *arguments, stdout=self._output)
        self.arguments = arguments

    def reports(self, event: str = "") -> list[Report]:
        """All lines so far, or those about one event."""
        size = os.fstat(self._output.fileno()).st_size
        lines = os.pread(self._output.fileno(), size, 0).split(b"\n")[:-1]  # the last may be half a line
        found = [json.loads(line) for line in lines if line.startswith(b"{")]
        return [each for each in found if event in ("", each["event"])]

    def wait_for(self, event: str, timeout: float = 10.0) -> Report:
        """The first report of an event. Raises TimeoutError, also when the program ends without it."""
        deadline = time.monotonic() + timeout
        while True:
            running = self.process.poll() is None  # asked before reading: what it last said is then in the file
            if found := self.reports(event):
                return found[0]
            if not running or time.monotonic() > deadline:
                state = f"still runs after {timeout:g} s" if running else f"ended ({self.process.returncode})"
                raise TimeoutError(f"{' '.join(self.arguments)} {state} without a report {event!r}")
            time.sleep(0.002)

    def stop(self, timeout: float = 10.0) -> Report:
        """End it politely and return its last report; the others can still be read."""
        self.process.terminate()
        try:
            self.process.wait(timeout)
        except TimeoutExpired:
            self.process.kill()
            self.process.wait()
        return self.wait_for("done", 0.0)

    def close(self) -> None:
        """Forget its output; the process is the lab's to end."""
        self._output.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class NewConnection:
    """A short TCP connection: the source address the kernel chose, and how long it took (s); else the error."""

    source: str = ""
    seconds: float = 0.0
    error: str = ""


def new_connection(host: "Host", address: str, port: int = TCP_PORT, timeout: float = 5.0) -> NewConnection:
    """Open a short connection from that host, with no wish as to the source address."""
    program = Program(host, "connect", address, str(port), "--timeout", str(timeout))
    try:
        done = program.wait_for("done", timeout + ANSWER_TIMEOUT)
    finally:
        program.close()
    return NewConnection(source=done.get("source", ""), seconds=done.get("seconds", 0.0), error=done.get("error", ""))


# Command line

PROGRAMS: dict[str, tuple[Callable[[argparse.Namespace], int], bool]] = {  # name -> program, needs an address
    "tcp-serve": (tcp_serve, False),
    "tcp-get": (tcp_get, True),
    "tcp-put": (tcp_put, True),
    "connect": (connect, True),
    "connect-often": (connect_often, True),
    "udp-send": (udp_send, True),
    "udp-sink": (udp_sink, False),
}
RATES = {"udp-send": (1000.0, "datagrams/s"), "connect-often": (4.0, "connections/s")}  # where it is no Mbit/s


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one of the programs."""
    parser = argparse.ArgumentParser(prog="python -m router.demo.traffic", description=main.__doc__)
    programs = parser.add_subparsers(dest="program", required=True)
    for name, (function, needs_address) in PROGRAMS.items():
        program = programs.add_parser(name, help=function.__doc__)
        if needs_address:
            program.add_argument("address")
        program.add_argument("port", type=int, nargs="?", default=UDP_PORT if "udp" in name else TCP_PORT)
        program.add_argument("--seconds", type=float, default=0.0, help="0: until SIGTERM")
        program.add_argument("--timeout", type=float, default=ANSWER_TIMEOUT, help="s to connect")
        program.add_argument("--octets", type=int, default=0, help="of the stream; 0: endless")
        rate, unit = RATES.get(name, (20.0, "Mbit/s; 0: unlimited"))
        program.add_argument("--rate", type=float, default=rate, help=unit)
        program.add_argument("--size", type=int, default=64, help="octets of a datagram's payload")
        program.add_argument("--source", default="", help="of datagrams; default: the kernel's choice")
    chosen = parser.parse_args(arguments)
    return PROGRAMS[chosen.program][0](chosen)


if __name__ == "__main__":
    sys.exit(main())
