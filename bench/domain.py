"""What a domain of three MARs can bear: moves a second, how soon a node is served, store and memory for each.

    python -m bench.domain                        1000 nodes, over SQLite, and over Redis where there is one
    python -m bench.domain --stores redis --nodes 3000 --json figures.json

Three routers as anybody would start them, on hosts of their own around a core; the nodes are bench.domain_load. Each
move asks every anchor the node has been at, two of three in the end, so a move is two binding updates. First as many
moves at once as keep the routers busy, then half of what they could do, a move at a time. Units: moves a second by the
clock and of processor time of all routers, ms from the solicitation to the last acknowledgement, octets; lines with <=
say what is wanted, and the exit status is 1 if one does not hold. It takes one to two minutes for each store.
"""

from __future__ import annotations

import json
import os
import random
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from typing import Any

from bench.domain_load import Crowd, Outcome
from bench.figures import Figure
from bench.process import TICKS, memory, processor_time
from bench.results import machine
from bench.settings import options, setting, settings_of, writable
from router.demo.busyness import BUSY, Meter
from router.demo.lab import PROJECT, enter_lab
from router.demo.mar_stage import MarStage
from router.demo.stage import scratch
from router.demo.stores import STORES, opened
from router.errors import ExitCode, RouterError

OPERATIONS = 3  # on average: a look-up, the prefix of the new router, and that of the old one
COUNTED = ("store.reads", "store.writes")  # counters of a router: operations on the store


@dataclass(frozen=True, slots=True)
class Settings:
    """How much is measured, over each store."""

    nodes: int = setting(1000, "mobile nodes", least=2)
    moves: int = setting(3000, "moves of the run that counts", least=2)
    window: int = setting(16, "moves at once, and no more than there are nodes")
    seed: int = setting(1, "of which node moves where", least=0)


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
        of_a_node = (self._memory() - empty) / settings.nodes
        busy, operations = self._busy(), self._operations()
        full = self._crowd.move(settings.moves, window=settings.window, rate=None)
        busy = self._busy() - busy
        of_a_move = (self._operations() - operations) / max(1, len(full.delays))
        half = self._crowd.move(settings.moves // 2, window=max(1, settings.nodes // 2), rate=rate_of(full) / 2)
        return [
            Figure("arrivals", "first attachments", rate_of(arrived), "/s"),
            Figure("moves", "moves, by the clock", rate_of(full), "/s"),
            Figure("per_core", "moves, of one core of the routers", len(full.delays) / max(busy, 1 / TICKS), "/s"),
            Figure("p50", "at half of that load: RS to last PBA, half within", half.within(0.5) * 1e3, "ms"),
            Figure("p95", "  95 % within", half.within(0.95) * 1e3, "ms"),
            Figure("p99", "  99 % within", half.within(0.99) * 1e3, "ms"),
            Figure("lost", "moves that were not served", arrived.lost + full.lost + half.lost, "", 0, most=True),
            Figure("operations", "store operations of a move", of_a_move, "", OPERATIONS, most=True),
            Figure("memory", "memory of a node, three routers together", of_a_node, "octets"),
        ]

    def _memory(self) -> int:
        """Octets that the routers have in memory (RSS)."""
        return sum(memory(process.pid) for process in self._stage.routers.processes.values())

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


def measure(store: str, settings: Settings) -> list[Figure]:
    """Over one kind of store. Raises RouterError."""
    with ExitStack() as stack:
        directory = stack.enter_context(scratch())
        stage = stack.enter_context(MarStage(directory))
        stage.store = stack.enter_context(opened(store, stage))
        stage.anchor = {"idle_after": 0}  # nodes send nothing: their anchors would be released
        stage.start_routers()
        crowd = stack.enter_context(Crowd(stage.world, settings.nodes, random.Random(settings.seed)))
        return Bench(stage, crowd, settings).run()


def judged(store: str, settings: Settings) -> tuple[list[Figure], str]:
    """Figures over one kind of store, and a line about them. Raises RouterError."""
    meter = Meter()
    figures = measure(store, settings)
    return excused(figures, meter.others())


def excused(figures: list[Figure], others: float) -> tuple[list[Figure], str]:
    """Hold moves that were not served against nobody where the machine had other things to do: the figures, and a line.

    others: share of the processors that other programs took.
    """
    lost = next(each for each in figures if each.key == "lost")
    if lost.holds or others < BUSY:
        return figures, ""
    return (
        [replace(each, wanted=None) if each is lost else each for each in figures],
        f"WARNING: {lost.value:g} moves were not served, but other programs took {others:.0%} of the processors "
        "meanwhile, so that says nothing of the routers: run it again when they are idle\n",
    )


def table(store: str, figures: Sequence[Figure]) -> str:
    """For people."""
    width = max(len(figure.title) for figure in figures)
    lines = [
        f"{each.title:<{width}} {each.value:12,.4g} {each.unit:6}"
        + ("" if each.wanted is None else f" {each.relation} {each.wanted:g}  {each.verdict}")
        for each in figures
    ]
    return "\n".join([f"over {store}", *lines])


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure. Returns 0 if every figure is as wanted."""
    here = [name for name in STORES if STORES[name]()]
    made = options("domain", __doc__, Settings)
    made.add_argument("--stores", nargs="+", choices=STORES, default=here, help=f"default {' '.join(here)}")
    made.add_argument("--json", metavar="FILE", type=writable, help="write the figures there")
    chosen = made.parse_args(arguments)
    settings = settings_of(chosen, Settings)
    enter_lab(needs_tun=True)
    os.chdir(PROJECT)
    found: dict[str, list[Figure]] = {}
    try:
        for store in chosen.stores:
            found[store], excuse = judged(store, settings)
            print(table(store, found[store]), excuse, sep="\n", flush=True)
    except RouterError as error:
        print(f"bench.domain: {error}", file=sys.stderr)
        return error.exit_code
    if chosen.json:
        chosen.json.write_text(json.dumps(as_json(settings, found), indent=1) + "\n")
    return ExitCode.DONE if all(each.holds for figures in found.values() for each in figures) else ExitCode.FAILED


def as_json(settings: Settings, found: dict[str, list[Figure]]) -> dict[str, Any]:
    """For programs."""
    return {
        "machine": machine(),
        "settings": asdict(settings),
        "figures": {
            store: {each.key: as_most(each) for each in figures} for store, figures in found.items()
        },
    }


def as_most(figure: Figure) -> dict[str, Any]:
    """Its fields; what is wanted, if anything is, stands under `most`, as here it always is the most it may be."""
    told = asdict(figure) | {"most": figure.wanted, "holds": figure.holds}
    del told["wanted"]
    return told


if __name__ == "__main__":
    sys.exit(main())
