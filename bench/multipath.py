"""What two uplinks of a gateway are worth: a stream on both packet by packet, sixteen by flow, and a silent path.

    python -m bench.multipath --json figures.json      needs namespaces and /dev/net/tun, as the demos do

The wires between gateway and core are `router.demo.wire_shim`: as narrow as told, so that the figures are ratios (x) to
what one path carries and not to what this machine can do; gaps and returns of a path are in ms. Lines with <= or >= say
what is wanted, and the exit status is 1 if one does not hold. It takes about three minutes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

from bench.figures import Figure, by_key
from bench.results import machine
from bench.settings import options, setting, settings_of, writable
from router.demo.branch import WLAN
from router.demo.branch_stage import BranchStage, Rule
from router.demo.lab import PROJECT, enter_lab
from router.demo.multipath_play import ALL_ON_WLAN, PACKETS_ON_BOTH, VOICE_ON_BOTH
from router.demo.stage import scratch
from router.demo.topology import CN_ADDRESS
from router.errors import ExitCode, RouterError

ALL_ON_LTE: list[Rule] = [{"name": "all", "labels": ["lte"]}]
FLOWS_ON_BOTH: list[Rule] = [{"name": "all", "spread": "per-flow"}]
STREAMS = 16
PORT = 7011
BOTH_UP, ONLY_LTE = {"wlan": "up", "lte": "up"}, {"wlan": "down", "lte": "up"}
LONG_GAP = 10.0  # s: what is said of a path that did not recover


@dataclass(frozen=True, slots=True)
class Settings:
    """How much is measured."""

    rounds: int = setting(3, "rounds of transfers; their median counts")
    seconds: float = setting(5.0, "s of each transfer", least=0.1)
    settle: float = setting(2.0, "s at the beginning of one stream that do not count", least=0)
    cycles: int = setting(20, "times that a path falls silent")
    rate: float = setting(20.0, "Mbit/s of each path", least=0.1)
    delay: float = setting(20.0, "ms of each path, each way", least=0)


@dataclass(frozen=True, slots=True)
class Sampled(Figure):
    """A figure, and what it was made of."""

    samples: list[float] = field(default_factory=list)


class Bench:
    """The measurements, on one stage that runs all the time."""

    def __init__(self, stage: BranchStage, settings: Settings, tell: Callable[[str], None]) -> None:
        self._stage = stage
        self._settings = settings
        self._tell = tell

    def run(self) -> list[Figure]:
        """All of them."""
        self._start()
        return [self._per_packet(), self._per_flow(), *self._silences(), *self._bicast()]

    def _start(self) -> None:
        stage = self._stage
        stage.start_routers()
        stage.serve()
        server = stage.world["cn"].spawn(blast("serve-tcp", PORT), stdout=subprocess.PIPE)
        assert server.stdout is not None
        if server.stdout.readline() != b"ready\n":
            raise RouterError("the server of streams did not start")
        stage.attach_hosts()
        stage.world.equal_paths(rate=self._settings.rate, delay=self._settings.delay)

    def _per_packet(self) -> Figure:
        settings, ratios = self._settings, []
        for _ in range(settings.rounds):
            one, both = (self._one_stream(rules) for rules in (ALL_ON_WLAN, PACKETS_ON_BOTH))
            self._tell(f"one stream: {one:.1f} Mbit/s on one path, {both:.1f} on both per packet")
            ratios.append(both / one)
        return Sampled("per_packet", "1 stream, per packet, to one path", median(ratios), "x", 1.8, samples=ratios)

    def _one_stream(self, rules: Sequence[Rule]) -> float:
        self._stage.set_policy(*rules)
        return self._stage.bulk(self._settings.seconds, settle=self._settings.settle)

    def _per_flow(self) -> Figure:
        ratios = []
        for _ in range(self._settings.rounds):
            one, other, both = (self._streams(rules) for rules in (ALL_ON_WLAN, ALL_ON_LTE, FLOWS_ON_BOTH))
            self._tell(f"{STREAMS} streams: {one:.1f} and {other:.1f} Mbit/s on one path, {both:.1f} on both per flow")
            ratios.append(both / (one + other))
        title = f"{STREAMS} streams, per flow, to the sum"
        return Sampled("per_flow", title, median(ratios), "x", 0.9, samples=ratios)

    def _streams(self, rules: Sequence[Rule]) -> float:
        """Mbit/s of all streams toward a host."""
        self._stage.set_policy(*rules)
        command = blast("tcp", CN_ADDRESS, PORT, self._settings.seconds, STREAMS, "in")
        with self._stage.world["h1"].inside():
            done = subprocess.run(command, cwd=PROJECT, capture_output=True, check=True, timeout=60.0)
        answer = json.loads(done.stdout)
        return float(answer["octets"] * 8e-6 / answer["seconds"])

    def _silences(self) -> list[Figure]:
        self._stage.set_policy(*ALL_ON_WLAN)
        gaps, returns, recovered = [], [], 0
        for cycle in range(1, self._settings.cycles + 1):
            try:
                gap, back = self._silence()
            except RouterError as error:
                self._tell(f"silence {cycle}: {error}")
                gaps.append(LONG_GAP * 1e3)
                continue
            self._tell(f"silence {cycle}: gap {gap:.0f} ms, back after {back:.0f} ms")
            gaps.append(gap)
            returns.append(back)
            recovered += 1
        title = f"longest of {len(gaps)} gaps, 1000 datagrams/s"
        return [
            Sampled("gap", title, max(gaps), "ms", 150.0, most=True, samples=gaps),
            Sampled("recovered", "silences that ended well", recovered, "", self._settings.cycles),
            Sampled("back", "longest return", max(returns, default=0.0), "ms", 1000.0, most=True, samples=returns),
        ]

    def _silence(self) -> tuple[float, float]:
        """Longest gap either way and time to return, both in ms. Raises RouterError."""
        voice = self._stage.start_streams()
        try:
            time.sleep(0.5)
            back = self._be_silent()
            time.sleep(0.3)
        finally:
            streams = voice.stop()
        return max(each.longest_gap for each in streams.values()) * 1e3, back * 1e3

    def _be_silent(self) -> float:
        """Until both routers know, and then a while; s until both know that it is over. Raises RouterError."""
        stage = self._stage
        stage.world.silence(WLAN)
        try:
            stage.wait_for_paths(ONLY_LTE)
            time.sleep(0.5)
        finally:
            stage.world.speak(WLAN)
        return stage.wait_for_paths(BOTH_UP)

    def _bicast(self) -> list[Figure]:
        stage = self._stage
        stage.set_policy(*VOICE_ON_BOTH)
        lost = twice = sent = 0
        for _ in range(self._settings.rounds):
            voice = stage.start_streams()
            time.sleep(0.5)
            stage.world.silence(WLAN)
            time.sleep(1.0)
            stage.world.speak(WLAN)
            stage.wait_for_paths(BOTH_UP)
            for each in voice.stop().values():
                lost, twice, sent = lost + each.lost, twice + each.duplicates, sent + each.sent
        self._tell(f"bicast: {lost} of {sent} lost, {twice} came twice")
        return [
            Sampled("bicast_lost", f"lost of {sent}, bicast", lost, "", 0, most=True),
            Sampled("bicast_twice", "came twice", twice, "", 0, most=True),
        ]


def blast(*arguments: object) -> list[str]:
    """The command that makes streams."""
    return [sys.executable, "-m", "bench.blast", *map(str, arguments)]


def table(figures: Sequence[Figure]) -> str:
    """For people."""
    width = max(len(figure.title) for figure in figures)
    return "\n".join(
        f"{figure.title:<{width}}  {figure.value:8.2f} {figure.unit:<3} "
        f"{figure.relation} {figure.wanted:g}   {figure.verdict}"
        for figure in figures
    )


def as_json(settings: Settings, figures: Sequence[Figure]) -> dict[str, Any]:
    """For programs."""
    return {
        "settings": asdict(settings),
        "machine": machine(),
        "figures": by_key(figures),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure. Returns 0 if every figure is as wanted."""
    made = options("multipath", __doc__, Settings)
    made.add_argument("--json", metavar="FILE", type=writable, help="write the figures there")
    chosen = made.parse_args(arguments)
    settings = settings_of(chosen, Settings)
    enter_lab(needs_tun=True)
    os.chdir(PROJECT)
    try:
        with scratch() as directory, BranchStage(directory, rules=ALL_ON_WLAN) as stage:
            figures = Bench(stage, settings, lambda line: print(f"  {line}", file=sys.stderr, flush=True)).run()
    except RouterError as error:
        print(f"bench.multipath: {error}", file=sys.stderr)
        return error.exit_code
    print(table(figures))
    if chosen.json:
        chosen.json.write_text(json.dumps(as_json(settings, figures), indent=2))
    return ExitCode.DONE if all(figure.holds for figure in figures) else ExitCode.FAILED


if __name__ == "__main__":
    sys.exit(main())
