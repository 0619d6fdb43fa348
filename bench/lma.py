"""What a local mobility anchor answers in a second, how soon, what a binding costs, and how soon it is back.

    python -m bench.lma                              100,000 bindings
    python -m bench.lma --bindings 1000000 --only memory restart      some minutes: a new session takes 0.2 ms
    python -m bench.lma --json figures.json --seconds 5

It starts a router as anybody would (`python -m router --lma`) on one host of two, fills it from the other one through
real signed updates over protocol 135 (lma_load.py), and then measures, over the same sockets: extensions, handoffs and
new sessions, as many as are answered and at a given rate; memory of the process; a restart after kill -9. The anchor
has a processor of its own if there are two. What it can do "per core" is what it did in each second of processor time,
all of its threads and its share of the kernel counted. Other units: s, ms, octets, MiB; lines with <= or >= say what is
wanted, and the exit status is 1 if one does not hold. It takes two to three minutes.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn, Self

from bench.figures import Figure, by_key
from bench.process import KIB, TICKS, memory, processor_time
from bench.results import machine
from bench.settings import options, setting, settings_of, writable
from router.demo.lab import Host, Lab, connect, enter_lab
from router.errors import ExitCode, RouterError

LMA, MAGS = "2001:db8:ff::a", ("2001:db8:ff::b", "2001:db8:ff::c")
KEY = "000102030405060708090a0b0c0d0e0f"
CONFIG = f"""\
[underlay]
address = "{LMA}"
[anchor]
prefixes = ["2001:db8:1000::/36"]
[binding]
lifetime = 65532
""" + "".join(
    f'[[peer]]\nname = "mag{number}"\naddress = "{address}"\nkey = "hex:{KEY}"\n'
    for number, address in enumerate(MAGS, 1)
)
WITHIN = 60.0  # s for a start
USUAL_BINDINGS = 100_000


@dataclass(frozen=True, slots=True)
class Settings:
    """How much is measured."""

    bindings: int = setting(USUAL_BINDINGS, "sessions that the anchor has")
    seconds: float = setting(3.0, "s of each run, about", least=0.1)
    rounds: int = setting(3, "runs of a kind; the best counts: what else runs here is no property of the anchor")


class Anchor:
    """A router of its own process."""

    def __init__(self, host: Host, directory: Path) -> None:
        self._host = host
        self._directory = directory
        self.process: subprocess.Popen[bytes]
        (directory / "lma.toml").write_text(CONFIG)

    def start(self) -> None:
        """Be born; not yet there."""
        with (self._directory / "lma.log").open("ab") as log:
            self.process = self._host.spawn_module(
                "router",
                *("--lma", "--config", str(self._directory / "lma.toml")),
                *("--state-dir", str(self._directory / "state"), "--socket", str(self._directory / "lma.sock")),
                stdout=log,
                stderr=log,
            )
        processors = sorted(os.sched_getaffinity(0))
        if len(processors) > 1:
            os.sched_setaffinity(self.process.pid, processors[-1:])

    @property
    def log(self) -> str:
        """All it has said."""
        return (self._directory / "lma.log").read_text()

    @property
    def busy(self) -> float:
        """Processor time of all its threads so far, s."""
        return processor_time(self.process.pid)

    @property
    def memory(self) -> int:
        """Octets it has in memory (RSS)."""
        return memory(self.process.pid)

    def kill(self) -> None:
        """As a crash would."""
        self.process.kill()
        self.process.wait()


class Load:
    """The gateways, a process of their own: orders to it, and what came of them."""

    def __init__(self, host: Host) -> None:
        self._process = host.spawn_module(
            "bench.lma_load", LMA, *MAGS, KEY, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        processors = sorted(os.sched_getaffinity(0))
        if len(processors) > 1:
            os.sched_setaffinity(self._process.pid, processors[:1])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()

    def do(self, order: str, **details: Any) -> dict[str, Any]:
        """Have it done. Raises RouterError if it breaks."""
        self.begin(order, **details)
        return self.end()

    def begin(self, order: str, **details: Any) -> None:
        """Have it begun."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": order, **details}).encode() + b"\n")
        self._process.stdin.flush()

    def end(self) -> dict[str, Any]:
        """What came of it."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RouterError("the load generator broke")
        result: dict[str, Any] = json.loads(line)
        return result


class Bench:
    """An anchor and its load, and what is measured of them. runs: all that the load generator said."""

    def __init__(self, settings: Settings, anchor: Anchor, load: Load) -> None:
        self._settings = settings
        self._anchor = anchor
        self._load = load
        self.runs: list[dict[str, Any]] = []

    def fill(self) -> list[Figure]:
        """All bindings, from none; what each costs in memory, also once it was extended."""
        count = self._settings.bindings
        empty = self._anchor.memory
        filled = self._run("fill", count=count)
        new = self._anchor.memory
        self._run("refresh", count=count, rate=None)
        used = self._anchor.memory
        return [
            Figure("fill", "new sessions, from none", filled["per_core"], "/s of one core"),
            Figure("empty", "memory of an empty anchor", empty / KIB**2, "MiB"),
            Figure("new_binding", "memory of a binding, new", (new - empty) / count, "octets"),
            Figure("binding", "memory of a binding, in use", (used - empty) / count, "octets", 1.5 * KIB, most=True),
        ]

    def extensions(self) -> list[Figure]:
        """The usual case."""
        best = self._best("refresh")
        half = min(10_000.0, best["per_second"] / 2)
        runs = [
            self._run("refresh", count=int(half * self._settings.seconds), rate=half)
            for _ in range(self._settings.rounds)
        ]
        calm = min(runs, key=lambda run: run["delays_ms"]["p99"])
        return [
            Figure("refresh", "extensions", best["per_core"], "/s of one core", 20_000),
            Figure("refresh_seen", "extensions, by the clock", best["per_second"], "/s"),
            Figure("rate", "at half of that load", half, "/s"),
            Figure("p50", "  half are answered within", calm["delays_ms"]["p50"], "ms"),
            Figure("p99", "  99 % are answered within", calm["delays_ms"]["p99"], "ms", 5.0, most=True),
            Figure("lost", "  lost", sum(run["lost"] for run in runs), "", 0, most=True),
        ]

    def handoffs(self) -> list[Figure]:
        """Each with a revocation to the MAG that the node left, and its answer."""
        return [Figure("handoff", "handoffs", self._best("handoff")["per_core"], "/s of one core")]

    def attachments(self) -> list[Figure]:
        """New sessions beside the others."""
        return [Figure("attach", "new sessions", self._best("attach")["per_core"], "/s of one core")]

    def restart(self) -> list[Figure]:
        """Killed and started again, with all sessions durable: how long nobody answers."""
        self._anchor.kill()
        began = time.monotonic()
        self._anchor.start()
        answered = self._load.do("until_answered", seconds=WITHIN)["answered_at"]
        if answered is None:
            raise RouterError(f"no answer after a restart: {self._anchor.log}")
        wanted = 2.0 if self._settings.bindings <= USUAL_BINDINGS else None
        return [
            Figure("restart", "answers again after kill -9", answered - began, "s", wanted, most=True),
            Figure("restart_work", "  its own work meanwhile", self._anchor.busy, "s"),
        ]

    def _best(self, order: str) -> dict[str, Any]:
        count = min(self._settings.bindings, int(20_000 * self._settings.seconds))
        runs = [self._run(order, count=count, rate=None) for _ in range(self._settings.rounds)]
        return max(runs, key=lambda run: run["per_core"])

    def _run(self, order: str, **details: Any) -> dict[str, Any]:
        busy = self._anchor.busy
        result = self._load.do(order, **details)
        busy = self._anchor.busy - busy
        result |= {
            "order": order,
            "asked": details,
            "busy_seconds": busy,
            "per_second": result["accepted"] / max(result["seconds"], 1e-9),
            "per_core": result["accepted"] / max(busy, 1 / TICKS),
        }
        self.runs.append(result)
        if sys.stderr.isatty() or os.environ.get("OPENMAR_BENCH_TELL"):
            print(json.dumps(result), file=sys.stderr)
        return result


PARTS = {
    "memory": Bench.fill,
    "extensions": Bench.extensions,
    "handoffs": Bench.handoffs,
    "attachments": Bench.attachments,
    "restart": Bench.restart,
}


def measure(settings: Settings, only: Sequence[str]) -> tuple[list[Figure], list[dict[str, Any]]]:
    """All that was asked for, on two hosts that exist meanwhile; the filling always."""
    with tempfile.TemporaryDirectory(prefix="openmar-bench-") as place, Lab() as lab:
        hosts = lab.host("lma"), lab.host("mags")
        connect(hosts[0], "eth0", hosts[1], "eth0")
        hosts[0].address("eth0", f"{LMA}/64")
        for address in MAGS:
            hosts[1].address("eth0", f"{address}/64")
        anchor = Anchor(hosts[0], Path(place))
        anchor.start()
        wait_for(anchor)
        with Load(hosts[1]) as load:
            bench = Bench(settings, anchor, load)
            figures = bench.fill()
            for name in only or PARTS:
                figures += PARTS[name](bench) if name != "memory" else []
        with suppress(ProcessLookupError):
            anchor.process.send_signal(signal.SIGTERM)
            anchor.process.wait(WITHIN)
        return figures, bench.runs


def wait_for(anchor: Anchor) -> None:
    """Until it says that it is up. Raises RouterError."""
    end = time.monotonic() + WITHIN
    while "is up" not in anchor.log:
        if anchor.process.poll() is not None or time.monotonic() > end:
            raise RouterError(f"the anchor does not start: {anchor.log}")
        time.sleep(0.05)


def table(figures: list[Figure]) -> str:
    """For people."""
    return "\n".join(
        f"{each.title:30} {each.value:12,.6g} {each.unit:15}"
        + ("" if each.wanted is None else f"{each.relation} {each.wanted:<8,g} {each.verdict}")
        for each in figures
    )


def as_json(settings: Settings, figures: list[Figure], runs: list[dict[str, Any]]) -> dict[str, Any]:
    """All of it."""
    return {
        "machine": machine(),
        "settings": asdict(settings),
        "figures": by_key(figures),
        "runs": runs,
    }


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Measure, print, write. Exit status: 0, or 1 when something is not as wanted."""
    made = options("lma", __doc__, Settings)
    made.add_argument("--only", nargs="+", choices=PARTS, default=[], help="these parts, after the filling")
    made.add_argument("--json", type=writable, metavar="FILE", help="write every run there")
    chosen = made.parse_args(arguments)
    settings = settings_of(chosen, Settings)
    try:
        enter_lab(needs_tun=True)
        figures, runs = measure(settings, chosen.only)
    except RouterError as error:
        print(f"bench: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    print(table(figures))
    if chosen.json:
        chosen.json.write_text(json.dumps(as_json(settings, figures, runs), indent=1) + "\n")
    sys.exit(ExitCode.DONE if all(each.holds for each in figures) else ExitCode.FAILED)


if __name__ == "__main__":
    main()
