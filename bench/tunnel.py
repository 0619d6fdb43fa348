"""How fast packets travel from one host to another, by every tunnel there is, in one run.

    python -m bench.tunnel                                  everything that is installed; as root or as anybody
    python -m bench.tunnel --list                           who would be measured, and why others would not
    python -m bench.tunnel --only direct,seg6,udp6 --rounds 5 --json figures.json --svg figures.svg

It makes two hosts out of network namespaces, a cable between them, and starts one contender after the other on it,
each once in a round, so that what else happens on the machine meets all of them alike. Nothing of it is left behind.
What is measured: measures.py; who: contenders.py; on what: wire.py. Units: Gbit/s of TCP, thousand datagrams a second,
us of a ping, seconds of all processors for each Gbit. It takes 15 s for each contender in each round: ten minutes.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

from bench.contenders import Contender, Programs, compile_programs, contenders
from bench.measures import METRICS, Settings, Tools, choose_tools, measure
from bench.picture import draw
from bench.results import Report, Row, as_json, new_report, table
from bench.settings import options, writable
from bench.wire import Wire
from router.demo.lab import enter_lab
from router.errors import RouterError

ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
BUSY = 0.5  # processes: with more of them running before we begin, figures are worth little


def parser() -> argparse.ArgumentParser:
    """The options."""
    settings = Settings()
    made = options("tunnel", __doc__)
    told = "; default %(default)s"
    rounds, seconds, pings = "of all contenders" + told, "s of each TCP and UDP run" + told, "one at a time" + told
    made.add_argument("--rounds", type=positive_int, default=settings.rounds, metavar="N", help=rounds)
    made.add_argument("--seconds", type=positive, default=settings.seconds, metavar="X", help=seconds)
    made.add_argument("--pings", type=positive_int, default=settings.pings, metavar="N", help=pings)
    made.add_argument("--only", type=names, default=[], metavar="A,B,C", help="these contenders only; see --list")
    made.add_argument("--workers", type=positive_int, default=os.cpu_count(), metavar="N", help="of ours" + told)
    made.add_argument("--json", type=writable, metavar="FILE", help="write every sample there")
    made.add_argument("--svg", type=writable, metavar="FILE", help="write a picture there")
    made.add_argument("--list", action="store_true", help="say who can be measured here, and measure nobody")
    return made


def positive(text: str) -> float:
    """A number above zero."""
    if not (number := float(text)) > 0:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return number


def positive_int(text: str) -> int:
    """A whole number above zero."""
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return number


def names(text: str) -> list[str]:
    """Names of contenders."""
    known = contenders(Programs(None, None), 1)
    chosen = [name.strip() for name in text.split(",") if name.strip()]
    for name in chosen:
        if name not in known:
            raise argparse.ArgumentTypeError(f"no contender {name}; there are {', '.join(known)}")
    return chosen


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Measure, print, write. Exit status: 0, or 1 when a contender failed, 130 after Ctrl-C."""
    chosen = parser().parse_args(arguments)
    try:
        enter_lab(needs_tun=True)
    except RouterError as error:
        print(f"bench: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    for number in ENDINGS:
        signal.signal(number, stop)
    with tempfile.TemporaryDirectory(prefix="openmar-bench-") as place:
        sys.exit(list_all(chosen, Path(place)) if chosen.list else run(chosen, Path(place)))


def stop(number: int, _frame: FrameType | None) -> NoReturn:
    """End of the run; nothing interrupts the cleaning up."""
    for each in ENDINGS:
        signal.signal(each, signal.SIG_IGN)
    sys.exit(128 + number)


def list_all(chosen: argparse.Namespace, place: Path) -> int:
    """Every contender with what it is, or why it cannot be measured."""
    for each in contenders(compile_programs(place), chosen.workers).values():
        reason = each.why_not()
        print(f"{each.name:14} {each.title}" + (f"  (skipped: {reason})" if reason else ""))
    return 0


def run(chosen: argparse.Namespace, place: Path) -> int:
    """All rounds; exit status."""
    programs = compile_programs(place)
    if programs.trouble:
        print(f"bench: {programs.trouble}: no bare loop, and traffic comes from Python: few packets", file=sys.stderr)
    known = contenders(programs, chosen.workers)
    settings = Settings(rounds=chosen.rounds, seconds=chosen.seconds, pings=chosen.pings)
    tools = choose_tools(programs.blast, settings.seconds)
    running = [known[name] for name in chosen.only] or list(known.values())
    report = new_report(settings, tools, running)
    if report.machine["load"] > BUSY:
        print(f"bench: this machine is busy (load {report.machine['load']}): trust no figure", file=sys.stderr)
    measure_all(report, running, tools, place)
    print(table(report))
    if chosen.json:
        chosen.json.write_text(as_json(report))
    if chosen.svg:
        chosen.svg.write_text(draw(report))
    return 1 if any(row.failures for row in report.rows) or not report.measured else 0


def measure_all(report: Report, running: Sequence[Contender], tools: Tools, place: Path) -> None:
    """Every contender once in each round; one that cannot be measured here is skipped with a line that says why."""
    rows = {row.name: row for row in report.rows}
    for contender in running:
        if reason := contender.why_not():
            rows[contender.name].skipped = reason
            print(f"{contender.name}: skipped: {reason}", file=sys.stderr)
    for number in range(1, report.settings.rounds + 1):
        for contender in running:
            row = rows[contender.name]
            if not row.skipped and (row.samples or not row.failures):  # who never worked is not asked again
                measure_one(row, contender, report.settings, tools, place, f"{number}/{report.settings.rounds}")


def measure_one(row: Row, contender: Contender, settings: Settings, tools: Tools, place: Path, when: str) -> None:
    """One contender in one round, on a wire of its own."""

    def tell(what: str) -> None:
        if sys.stderr.isatty():
            print(f"\r\033[K{when} {contender.name}: {what}", end="", file=sys.stderr, flush=True)

    tell("starts")
    files = Path(tempfile.mkdtemp(dir=place))
    try:
        with Wire(files) as wire:
            contender.start(wire)
            sample = measure(wire, tools, settings, tell)
    except (RouterError, OSError, ValueError, KeyError, subprocess.SubprocessError) as error:
        row.failures.append(f"round {when}: {error}")
        line = f"failed: {error}"
    else:
        row.samples.append(sample)
        line = ", ".join(f"{metric.title} {sample.values[metric.key]:.{metric.digits}f}" for metric in METRICS)
    start = "\r\033[K" if sys.stderr.isatty() else ""
    print(f"{start}{when} {contender.name}: {line}", file=sys.stderr)


if __name__ == "__main__":
    main()
