"""A stock host travels from router to router while it downloads, uploads and receives: the acts and the figures.

`mar_play` and `proxy_play` say where it goes, what is told of it, and what is promised beyond the figures here.
"""

import math
import os
import statistics
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv6Network
from typing import Any, Generic, TypeVar

from router.demo.busyness import BUSY
from router.demo.capture import Packet
from router.demo.figures import Move, arrival, losses
from router.demo.narrator import Narrator, promises
from router.demo.stage import DOWNLOAD_RATE, UPLOAD_RATE, Stage, Stay
from router.demo.topology import node_link_layer
from router.demo.traffic import Report

MEDIAN_WITHIN = 5.0  # ms from the first sign of the node to the first packet for its old address
LOST_AT_MOST = 10  # datagrams of a move, one sent each millisecond
SETTLED = 0.25  # s after a move in which nothing else happens
PROGRESS_EVERY = 1.0  # s

Row = dict[str, Any]
Sentences = Mapping[str, Callable[[dict[str, Any]], str]]
A = TypeVar("A", bound=Stage[Any])


@dataclass(slots=True)
class Outcome:
    """The summary, as `-j` prints it."""

    handovers: list[Row] = field(default_factory=list)
    resets: int = 0
    octets: int = 0
    upload: int = 0
    corrupt: int = 0
    more: Row = field(default_factory=dict)  # what only one of the plays tells
    broken: list[str] = field(default_factory=list)  # promises that did not hold, in words
    warnings: list[str] = field(default_factory=list)  # what is not held against it, and why

    @property
    def first(self) -> dict[str, float]:
        """From the first sign to the first packet, of the handovers that came about, ms; empty: there was none."""
        times = sorted(item["rs_to_first_packet_ms"] for item in self.handovers if item["rs_to_first_packet_ms"])
        if not times:
            return {}
        return {"median": statistics.median(times), "p95": times[math.ceil(0.95 * len(times)) - 1]}

    @property
    def lost(self) -> dict[str, float]:
        """Datagrams lost in a move: median, and in the worst one; empty: there was no move."""
        counts = [item["lost_packets"] for item in self.handovers]
        return {"median": statistics.median(counts), "most": max(counts)} if counts else {}

    def judge_time(self, others: float) -> None:
        """The one promise that a machine can break by itself. others: share of the processors that they took."""
        if not self.first or self.first["median"] <= MEDIAN_WITHIN:
            return
        slow = f"the median handover took {self.first['median']:.1f} ms, promised are {MEDIAN_WITHIN:g}"
        if others < BUSY:
            self.broken.append(f"{slow} (other programs took {others:.0%} of the processors)")
        else:
            self.warnings.append(
                f"{slow}; but other programs took {others:.0%} of the processors meanwhile, so that says nothing of "
                "the routers: run it again when they are idle"
            )

    def as_json(self) -> Row:
        """Plain data."""
        return {
            "handovers": self.handovers,
            "rs_to_first_packet": {f"{name}_ms": value for name, value in self.first.items()},
            "lost_per_move": self.lost,
            "tcp": {
                "bytes": self.octets,
                "resets": self.resets,
                "uploaded_bytes": self.upload,
                "corrupt_bytes": self.corrupt,
            },
            **self.more,
            "broken_promises": self.broken,
            "warnings": self.warnings,
        }

    def summary(self, title: str, verdict: Callable[[Row], str], *lines: str) -> str:
        """The figures for people. title, verdict: of the last column."""
        text = ["", f"handover          first sign               to first packet   lost   {title}"]
        for item in self.handovers:
            took = item["rs_to_first_packet_ms"]
            text.append(
                f"{item['from']} -> {item['to']}      {item['first_sign'] or '-':<24} "
                f"{'never' if took is None else f'{took:.2f} ms':>15}   {item['lost_packets']:>4}   {verdict(item)}"
            )
        text += [
            "",
            f"TCP: {self.octets / 1e6:.1f} MB down, {self.upload / 1e6:.1f} MB up, every octet checked, "
            f"{self.resets} resets",
            f"ms to first packet: {_in_words(self.first, '.2f')}; lost in a move: {_in_words(self.lost, 'g')}",
            *lines,
            "",
        ]
        return "\n".join([*text, *promises(self.broken, self.warnings)])


class Journey(ABC, Generic[A]):
    """One run: the node goes along a route, and the figures follow."""

    picture: str
    up: str  # what is said when all routers answer
    places: Sequence[str]  # the routers with an access link, in the order the node visits them, again and again
    sentences: Sentences

    def __init__(self, stage: A, narrator: Narrator, *, stay: float, moves: int, record: bool = False) -> None:
        """stay: s at each router. moves: how many. record: the underlay is wanted in full."""
        self.stage = stage
        self.route = [self.places[number % len(self.places)] for number in range(moves + 1)]
        self._narrator = narrator
        self._stay = stay
        self._record = record
        self._octets = 0
        self._progress_at = 0.0

    # --- what differs ---

    @abstractmethod
    def pool(self, router: str) -> IPv6Network:
        """Where the node's address is from that it uses for new connections there."""

    @abstractmethod
    def connected(self, stay: Stay) -> str:
        """A sentence about the new connection of that stay."""

    @abstractmethod
    def carried(self) -> str:
        """What tunnels carry now, in words."""

    @abstractmethod
    def judge(self, outcome: Outcome, end: float) -> None:
        """Add what this play tells and promises beyond all others. end: of the traffic, CLOCK_REALTIME, s."""

    # --- the acts ---

    def run(self) -> Outcome:
        """All acts, then the figures."""
        stage, narrator = self.stage, self._narrator
        narrator.print(self.picture)
        stage.start_routers()
        # routers have machines of their own in the world: we, and all we start from now on, must not take theirs here
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
        stage.start_captures(whole=self._record)
        narrator.say(self.up)
        for router in self.route:
            self._act(router)
        narrator.say("the end: stopping traffic and captures")
        end = time.time()
        return self._figures(stage.stop_traffic(), end)

    def _act(self, router: str) -> None:
        stage, narrator = self.stage, self._narrator
        first = not stage.stays
        origin = stage.stays[-1].router if stage.stays else ""
        narrator.print()
        narrator.say(f"mn    {'appears at' if first else f'moves {origin} ->'} {router}")
        stay = stage.move(router)
        self._watch(stay.made + SETTLED)  # nothing else happens here while a handover is under way
        own = stage.wait_for_address(self.pool(router), meanwhile=self._tell_events)
        self._tell_events()
        if first:
            stage.start_traffic(own)
            narrator.say(
                f"mn    starts a download ({DOWNLOAD_RATE:g} Mbit/s), an upload ({UPLOAD_RATE:g} Mbit/s) and a "
                f"datagram each millisecond, all on {stage.address}"
            )
        stay.connection = stage.connect()
        narrator.say(f"mn    opens a new connection: {stay.connection.error or self.connected(stay)}")
        self._watch(stay.made + self._stay)

    def _watch(self, until: float) -> None:
        quiet_until = self.stage.stays[-1].made + SETTLED
        while time.time() < until:
            self._tell_events()
            if self.stage.address is not None and time.time() >= max(self._progress_at, quiet_until):
                self._tell_progress()
            time.sleep(0.02)

    def _tell_events(self) -> None:
        for router, event in self.stage.news():
            if event["event"] in self.sentences:
                self._narrator.say(f"{router}  {self.sentences[event['event']](event)}", event["time"])

    def _tell_progress(self) -> None:
        """Rate of the download, and which router carries what."""
        stage, now = self.stage, time.time()
        octets = stage.progress("download")
        elapsed = PROGRESS_EVERY + max(0.0, now - self._progress_at) if self._progress_at else 0.0
        rate = f"{(octets - self._octets) * 8e-6 / elapsed:5.1f} Mbit/s" if elapsed else " begins"
        self._octets, self._progress_at = octets, now + PROGRESS_EVERY
        at = stage.stays[-1].router
        self._narrator.say(f"      download {rate}, {octets / 1e6:.1f} MB so far, node at {at}; {self.carried()}")

    # --- the figures ---

    def _figures(self, reports: dict[str, Report], end: float) -> Outcome:
        stage, outcome = self.stage, Outcome()
        moves = stage.moves(end)
        link, arrivals = stage.captured("link"), stage.arrivals()
        for move, lost in zip(moves, losses(arrivals, moves), strict=True):
            outcome.handovers.append(self._handover(move, link, lost))
        for name in ("download", "upload"):
            outcome.resets += bool(reports[name]["error"])
            outcome.corrupt += reports[name].get("corrupt", 0)
        outcome.octets, outcome.upload = reports["download"]["octets"], reports["upload"]["octets"]
        outcome.broken = broken_promises(outcome, len(self.route) - 1, arrivals)
        self.judge(outcome, end)
        return outcome

    def _handover(self, move: Move, link: Sequence[Packet], lost: int) -> Row:
        assert self.stage.address is not None
        found = arrival(link, move, node_link_layer(0), self.stage.address)
        reached = found.first_downlink if found else None
        return {
            "from": move.origin,
            "to": move.target,
            "rs_to_first_packet_ms": round((reached - found.heard) * 1000, 3) if found and reached else None,
            "lost_packets": lost,
            "first_sign": found.sign if found else None,
            "link_down_ms": round((move.made - move.broken) * 1000, 3),
        }


def _in_words(figures: Mapping[str, float], form: str) -> str:
    return ", ".join(f"{name} {value:{form}}" for name, value in figures.items())


def broken_promises(outcome: Outcome, expected: int, arrivals: Sequence[tuple[int, float, float]]) -> list[str]:
    """What is promised of every journey, but for its time, and did not hold. expected: moves."""
    broken: list[str] = []
    times = [item["rs_to_first_packet_ms"] for item in outcome.handovers]
    if outcome.resets:
        broken.append(f"{outcome.resets} of the long TCP connections broke")
    if outcome.corrupt:
        broken.append(f"{outcome.corrupt} octets of the streams were wrong")
    if not outcome.octets or not outcome.upload or not arrivals:
        broken.append("one of the long flows carried nothing")
    if len(times) != expected or None in times:
        broken.append("after a move no packet reached the old address through the new router")
    for item in outcome.handovers:
        if item["lost_packets"] > LOST_AT_MOST:
            text = f"{item['lost_packets']} datagrams were lost, promised are {LOST_AT_MOST} at most"
            broken.append(f"{item['from']} -> {item['to']}: {text}")
    return broken
