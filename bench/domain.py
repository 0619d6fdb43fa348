"""What a domain of three MARs can bear: moves a second, how soon a node is served, store and memory for each.

    python -m bench.domain                        1000 nodes, over SQLite, and over Redis where there is one
    python -m bench.domain --stores redis --nodes 3000 --json figures.json

Three routers as anybody would start them, on hosts of their own around a core; the nodes are bench.domain_load. Each
move asks every anchor the node has been at, two of three in the end, so a move is two binding updates. First as many
moves at once as keep the routers busy, then half of what they could do, a move at a time.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.domain_load import Crowd, Outcome
from bench.results import machine
from router.demo.lab import PROJECT, enter_lab
from router.demo.mar_stage import MarStage
from router.demo.stage import scratch
from router.demo.stores import STORES, opened
from router.errors import ExitCode, RouterError

KIB = 1024
TICKS = os.sysconf("SC_CLK_TCK")  # of processor time, each second
OPERATIONS = 4  # a look-up, the prefix of the new router, and those of the two others: wanted are three with one other
COUNTED = ("store.reads", "store.writes")  # counters of a router: operations on the store


@dataclass(frozen=True, slots=True)
class Settings:
    """How much is measured, over each store."""

    nodes: int = 1000
    moves: int = 3000  # in each run
    window: int = 16  # moves at once
    seed: int = 1


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table. most: what is wanted, if anything is, as the most it may be."""

    key: str
    title: str
    value: float
    unit: str
    most: float | None = None

    @property
    def holds(self) -> bool:
        """Whether it is as wanted."""
        return self.most is None or self.value <= self.most


class Bench:
    """Three routers over one store, and a crowd."""

    def __init__(self, stage: MarStage, crowd: Crowd, settings: Settings) -> None:
        self._stage = stage
        self._crowd = crowd
        self._settings = settings

    def run(self) -> list[Figure]:
        """All of it."""
        settings = self._settings
        empty = self._memory()
        arrived = self._crowd.arrive(window=settings.window)
        self._crowd.move(3 * settings.nodes, window=settings.window, rate=None)  # each node to each router, mostly
        memory = (self._memory() - empty) / settings.nodes
        busy, operations = self._busy(), self._operations()
        full = self._crowd.move(settings.moves, window=settings.window, rate=None)
        busy, operations = self._busy() - busy, self._operations() - operations
        half = self._crowd.move(settings.moves // 2, window=settings.nodes // 2, rate=rate_of(full) / 2)
        return [
            Figure("arrivals", "first attachments", rate_of(arrived), "/s"),
            Figure("moves", "moves, by the clock", rate_of(full), "/s"),
            Figure("per_core", "moves, of one core of the routers", len(full.delays) / busy, "/s"),
            Figure("p50", "at half of that load: RS to last PBA, half within", half.within(0.5) * 1e3, "ms"),
            Figure("p95", "  95 % within", half.within(0.95) * 1e3, "ms"),
            Figure("p99", "  99 % within", half.within(0.99) * 1e3, "ms"),
            Figure("lost", "moves that were not served", arrived.lost + full.lost + half.lost, "", 0),
            Figure("operations", "store operations of a move", operations / max(1, len(full.delays)), "", OPERATIONS),
            Figure("memory", "memory of a node, three routers together", memory, "octets"),
        ]

    def _memory(self) -> int:
        """Octets that the routers have in memory (RSS)."""
        return sum(resident(process.pid) for process in self._stage.routers.processes.values())

    def _busy(self) -> float:
        """Processor time of the routers so far, s."""
        return sum(processor_time(process.pid) for process in self._stage.routers.processes.values())

    def _operations(self) -> int:
        """On the store, of all routers so far."""
        rows = [row for name in self._stage.routers.processes for row in self._stage.show(name, "counters")]
        return sum(int(row["value"]) for row in rows if row["counter"] in COUNTED)


def rate_of(outcome: Outcome) -> float:
    """Moves that were served, a second."""
    return len(outcome.delays) / outcome.seconds


def resident(process: int) -> int:
    """Octets a process has in memory."""
    status = Path(f"/proc/{process}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) * KIB


def processor_time(process: int) -> float:
    """Of all its threads so far, s."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def measure(store: str, settings: Settings) -> list[Figure]:
    """Over one kind of store. Raises RouterError."""
    with ExitStack() as stack:
        directory = stack.enter_context(scratch())
        stage = stack.enter_context(MarStage(directory))
        stage.store = stack.enter_context(opened(store, stage))
        stage.start_routers()
        crowd = stack.enter_context(Crowd(stage.world, settings.nodes, random.Random(settings.seed)))
        return Bench(stage, crowd, settings).run()


def table(store: str, figures: Sequence[Figure]) -> str:
    """For people."""
    width = max(len(figure.title) for figure in figures)
    lines = [
        f"{each.title:<{width}} {each.value:12,.4g} {each.unit:6}"
        + ("" if each.most is None else f" <= {each.most:g}  {'holds' if each.holds else 'DOES NOT HOLD'}")
        for each in figures
    ]
    return "\n".join([f"over {store}", *lines])


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure. Returns 0 if every figure is as wanted."""
    parser = argparse.ArgumentParser(prog="python -m bench.domain", description=__doc__.partition("\n")[0])
    for name, value in asdict(Settings()).items():
        parser.add_argument(f"--{name}", type=int, default=value, metavar="N", help=f"default: {value}")
    parser.add_argument("--stores", nargs="+", choices=STORES, default=[name for name in STORES if STORES[name]()])
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the figures there")
    chosen = parser.parse_args(arguments)
    settings = Settings(**{name: getattr(chosen, name) for name in asdict(Settings())})
    file = chosen.json.absolute() if chosen.json else None
    enter_lab(needs_tun=True)
    os.chdir(PROJECT)
    found: dict[str, list[Figure]] = {}
    try:
        for store in chosen.stores:
            found[store] = measure(store, settings)
            print(table(store, found[store]), end="\n\n", flush=True)
    except RouterError as error:
        print(f"bench.domain: {error}", file=sys.stderr)
        return error.exit_code
    if file is not None:
        file.write_text(json.dumps(as_json(settings, found), indent=1) + "\n")
    return ExitCode.DONE if all(each.holds for figures in found.values() for each in figures) else ExitCode.FAILED


def as_json(settings: Settings, found: dict[str, list[Figure]]) -> dict[str, Any]:
    """For programs."""
    return {
        "machine": machine(),
        "settings": asdict(settings),
        "figures": {
            store: {each.key: asdict(each) | {"holds": each.holds} for each in figures}
            for store, figures in found.items()
        },
    }


if __name__ == "__main__":
    sys.exit(main())
