"""What is measured on a wire whose tunnel stands: TCP, small and large UDP, lone pings, and what it costs the CPUs.

All from near to far; TCP also back. The CPU time is that of the whole machine while TCP runs, idle time apart: what
the kernel does for a tunnel counts like what its program does.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from bench.wire import BenchError, End, Wire, last_words
from router.demo.lab import end as end_processes

TCP_PORT, UDP_PORT = 7001, 7002
SMALL, LARGE = 64, 1300  # octets of UDP payload
PING_INTERVAL = 0.005  # s
PATIENCE = 20.0  # s that a measurement may take longer than it should
REACHED_TIMEOUT = 15.0  # s, some tunnels shake hands first
READY_TIMEOUT = 5.0  # s
IPERF_LEAST = 1.0  # s, it counts in whole ones
LISTENING = "0A"  # state of a socket in /proc/net/tcp6


@dataclass(frozen=True, slots=True)
class Metric:
    """One figure of a contender."""

    key: str
    title: str  # short, for a column
    unit: str
    digits: int = 2
    less_is_better: bool = False


METRICS = (
    Metric("tcp_1_out", "TCP x1 out", "Gbit/s"),
    Metric("tcp_1_back", "TCP x1 back", "Gbit/s"),
    Metric("tcp_4_out", "TCP x4 out", "Gbit/s"),
    Metric("tcp_4_back", "TCP x4 back", "Gbit/s"),
    Metric("udp_small", f"UDP {SMALL}", "kpkt/s", 0),
    Metric("udp_large", f"UDP {LARGE}", "kpkt/s", 0),
    Metric("ping_median", "ping", "us", 0, less_is_better=True),
    Metric("ping_p99", "ping p99", "us", 0, less_is_better=True),
    Metric("cpu", "CPU", "s/Gbit", 3, less_is_better=True),
)
METRIC = {metric.key: metric for metric in METRICS}
TCP_RUNS = {"tcp_1_out": (1, "out"), "tcp_1_back": (1, "back"), "tcp_4_out": (4, "out"), "tcp_4_back": (4, "back")}


@dataclass(frozen=True, slots=True)
class Settings:
    """How long and how often."""

    rounds: int = 3
    seconds: float = 2.0  # of each TCP and UDP measurement
    pings: int = 200


@dataclass(frozen=True, slots=True)
class Tools:
    """The programs that make the traffic."""

    blast: tuple[str, ...]  # the command
    iperf3: str | None  # None: blast makes the TCP streams too

    @property
    def names(self) -> dict[str, str]:
        """Which program measures what."""
        blast = "blast.py" if "bench.blast" in self.blast else "blast.c"
        return {"tcp": "iperf3" if self.iperf3 else blast, "udp": blast, "ping": blast}


@dataclass(slots=True)
class Sample:
    """What one contender did in one round."""

    values: dict[str, float]  # by key of METRICS, in its unit
    round_trips: list[float] = field(default_factory=list)  # us, each ping
    pings_lost: int = 0


@dataclass(frozen=True, slots=True)
class Transfer:
    """What one TCP run did."""

    gbit: float
    seconds: float
    cpu: float  # s, of all CPUs


def choose_tools(blast: Path | None, seconds: float) -> Tools:
    """The compiled blast or the Python one; iperf3 if it is installed, and if it can be that short."""
    command = (str(blast),) if blast else (sys.executable, "-m", "bench.blast")
    return Tools(blast=command, iperf3=shutil.which("iperf3") if seconds >= IPERF_LEAST else None)


def measure(wire: Wire, tools: Tools, settings: Settings, tell: Callable[[str], None]) -> Sample:
    """One round of a contender whose tunnel has just been started. tell: what comes next. Raises BenchError."""
    wait_until_reached(wire, tools)
    values: dict[str, float] = {}
    transfers = []
    with tcp_server(wire.far, tools):
        for key, (streams, way) in TCP_RUNS.items():
            tell(METRIC[key].title)
            transfers.append(tcp(wire, tools, streams, way, settings.seconds))
            values[key] = transfers[-1].gbit / transfers[-1].seconds
    values["cpu"] = sum(each.cpu for each in transfers) / sum(each.gbit for each in transfers)
    for key, octets in (("udp_small", SMALL), ("udp_large", LARGE)):
        tell(METRIC[key].title)
        values[key] = udp(wire, tools, octets, settings.seconds)
    tell(METRIC["ping_median"].title)
    answer = ping(wire, tools, settings.pings)
    trips = [float(trip) for trip in answer["round_trips"]]
    if not trips:
        raise BenchError("no ping was answered")
    values["ping_median"], values["ping_p99"] = median(trips), percentile_99(trips)
    for end, _ in wire.ends:
        end.check()
    return Sample(values, trips, int(answer["lost"]))


# TCP


@contextmanager
def tcp_server(far: End, tools: Tools) -> Iterator[None]:
    """Serve TCP on the far host meanwhile."""
    if tools.iperf3:
        command: tuple[str, ...] = (tools.iperf3, "--server", "--port", str(TCP_PORT))
        server = far.host.spawn(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_until(lambda: listens(far, TCP_PORT), "iperf3 does not listen")
    else:
        server = start_serving(far, tools, "serve-tcp", TCP_PORT)
    try:
        yield
    finally:
        end_processes([server])


def tcp(wire: Wire, tools: Tools, streams: int, way: str, seconds: float) -> Transfer:
    """Streams from near to far (way out) or from far to near (back). Raises BenchError."""
    run = tcp_by_iperf3 if tools.iperf3 else tcp_by_blast
    before = busy_seconds()
    octets, elapsed = run(wire, tools, streams, way, seconds)
    cpu = busy_seconds() - before
    if octets <= 0 or elapsed <= 0:
        raise BenchError(f"TCP {way}: nothing came through")
    return Transfer(octets * 8 / 1e9, elapsed, cpu)


def tcp_by_iperf3(wire: Wire, tools: Tools, streams: int, way: str, seconds: float) -> tuple[float, float]:
    """Octets received, and the seconds it took."""
    command = [str(tools.iperf3), "--json", "--client", str(wire.far.overlay.ip), "--port", str(TCP_PORT)]
    command += ["--time", str(round(seconds)), "--parallel", str(streams), *(["--reverse"] if way == "back" else [])]
    answer = json.loads(wire.near.run(*command, timeout=seconds + PATIENCE))
    if "error" in answer:
        raise BenchError(f"iperf3: {answer['error']}")
    received = answer["end"]["sum_received"]
    return float(received["bytes"]), float(received["seconds"])


def tcp_by_blast(wire: Wire, tools: Tools, streams: int, way: str, seconds: float) -> tuple[float, float]:
    """Octets received, and the seconds it took."""
    about = (wire.far.overlay.ip, TCP_PORT, seconds, streams, "in" if way == "back" else "out")
    answer = run_blast(wire.near, tools, "tcp", *about, timeout=seconds + PATIENCE)
    return float(answer["octets"]), float(answer["seconds"])


def listens(end: End, port: int) -> bool:
    """A TCP socket of this host waits for connections at the port."""
    with end.host.inside():  # the file shows the namespace of the thread that reads it
        rows = [line.split() for line in Path("/proc/thread-self/net/tcp6").read_text().splitlines()[1:]]
    return any(row[1].endswith(f":{port:04X}") and row[3] == LISTENING for row in rows)


def busy_seconds() -> float:
    """What all CPUs of this machine have worked since it started: user, nice, system, interrupts. s."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    user, nice, system, _idle, _waiting, hard, soft = (int(each) for each in fields[:7])
    return (user + nice + system + hard + soft) / os.sysconf("SC_CLK_TCK")


# UDP and ping


def udp(wire: Wire, tools: Tools, octets: int, seconds: float) -> float:
    """Thousand datagrams a second that arrive while more are sent than can. octets: payload of each."""
    receiver = start_serving(wire.far, tools, "udp-receive", UDP_PORT)
    try:
        run_blast(
            wire.near, tools, "udp-send", wire.far.overlay.ip, UDP_PORT, octets, seconds, timeout=seconds + PATIENCE
        )
        output, _ = receiver.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        raise BenchError("the UDP receiver does not end") from None
    finally:
        end_processes([receiver])
    answer = json.loads(output)
    if answer["packets"] < 2:
        raise BenchError(f"UDP with {octets} octets: nothing came through")
    return float(answer["packets"] / answer["seconds"] / 1e3)


def ping(wire: Wire, tools: Tools, count: int) -> dict[str, Any]:
    """Lone pings: {"round_trips": [us, ...], "lost": n}."""
    about = (wire.far.overlay.ip, count, PING_INTERVAL)
    return run_blast(wire.near, tools, "ping", *about, timeout=count * (PING_INTERVAL + 0.01) + PATIENCE)


def wait_until_reached(wire: Wire, tools: Tools) -> None:
    """Return when far answers; a few more pings then warm the way. Raises BenchError."""
    deadline = time.monotonic() + REACHED_TIMEOUT
    while not ping(wire, tools, 1)["round_trips"]:
        for end, _ in wire.ends:
            end.check()
        if time.monotonic() > deadline:
            raise BenchError(f"far does not answer after {REACHED_TIMEOUT:g} s")
        time.sleep(0.05)
    ping(wire, tools, 10)


def percentile_99(values: Sequence[float]) -> float:
    """The value that one in a hundred exceeds."""
    return quantiles(values, n=100, method="inclusive")[98] if len(values) > 1 else values[0]


# Running blast


def run_blast(end: End, tools: Tools, *arguments: object, timeout: float) -> dict[str, Any]:
    """Run it to its end; its answer. timeout: s."""
    answer: dict[str, Any] = json.loads(end.run(*tools.blast, *map(str, arguments), timeout=timeout))
    return answer


def start_serving(end: End, tools: Tools, *arguments: object) -> subprocess.Popen[bytes]:
    """Start a server and wait until it is ready."""
    process = end.host.spawn([*tools.blast, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if not says_ready(process):
        process.kill()
        raise BenchError(f"{arguments[0]}: {last_words(process.communicate()[1]) or 'not ready'}")
    return process


def says_ready(process: subprocess.Popen[bytes]) -> bool:
    """Its first line is "ready". Octet by octet, so that the rest of its output stays for communicate()."""
    assert process.stdout is not None
    line = b""
    while not line.endswith(b"\n") and select.select([process.stdout], [], [], READY_TIMEOUT)[0]:
        if not (octet := os.read(process.stdout.fileno(), 1)):
            break
        line += octet
    return line == b"ready\n"


def wait_until(true: Callable[[], bool], complaint: str) -> None:
    """Ask again and again. Raises BenchError."""
    deadline = time.monotonic() + READY_TIMEOUT
    while not true():
        if time.monotonic() > deadline:
            raise BenchError(complaint)
        time.sleep(0.01)
