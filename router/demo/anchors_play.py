"""The play of `demo anchors`: a node wanders over four MARs, and anchors live exactly as long as something needs them.

Five long connections, each begun at another place and ended at its own time, and many short ones. Every router lends
the node a prefix; when the last connection on it is over, the prefix is idle, and the routers let it go by themselves.
"""

import os
import random
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from ipaddress import IPv6Address
from typing import Any

from router.demo.figures import losses
from router.demo.handover import LOST_AT_MOST
from router.demo.mar_stage import MarStage
from router.demo.narrator import Narrator
from router.demo.topology import CN_ADDRESS, pool
from router.demo.traffic import Program, Report
from router.errors import RouterError

MARS = 4
IDLE_AFTER = 2.0  # s without a packet, and an old prefix is released
GRACE = 4.0  # s for a release to be noticed, agreed on and seen
SETTLED = 0.3  # s after a new address was seen
LOOK_EVERY = 0.2  # s between two looks at what the routers have
RATE = 2.0  # Mbit/s of a long connection
SHORT_RATE = 4.0  # short connections a second
LONG = ((0.0, 1.0), (0.08, 0.45), (0.2, 0.35), (0.38, 0.8), (0.55, 0.72))  # begin and end, as parts of the whole
ALIVE = {"local", "guard", "remote"}  # states in which an anchor does something for a prefix

PICTURE = """\
            cn  2001:db8:cccc::80                 a correspondent
             |
           core                                   a plain kernel router
       /   |   |   \\
   mar1  mar2  mar3  mar4                         four `python -m router --mar`
     :     :     :     :
     mn ~~~~~~~~~~~~~~~~>                         a stock host that wanders between them
"""


@dataclass(slots=True, kw_only=True)
class Span:
    """Something that lasted. Times: CLOCK_REALTIME, s."""

    begin: float
    end: float
    what: str  # name of a router, or a state


@dataclass(slots=True, kw_only=True)
class Anchored:
    """A prefix of the node at one anchor: what it was for, and what became of it."""

    anchor: str
    prefix: str
    states: list[Span] = field(default_factory=list)
    needed_until: float = 0.0  # the end of its last connection, or the time the node left
    released: float | None = None  # when its anchor had no more to do for it

    @property
    def lingered(self) -> float | None:
        """How long it was kept for nothing, s; None: it is needed, or not released yet."""
        return None if self.released is None else round(self.released - self.needed_until, 2)


@dataclass(slots=True, kw_only=True)
class Connection:
    """A long connection."""

    begin: float
    end: float
    anchor: str = ""
    octets: int = 0
    error: str = ""


@dataclass(slots=True)
class Outcome:
    """The summary, as `-j` prints it, and all that the picture needs."""

    began: float
    ended: float = 0.0
    stays: list[Span] = field(default_factory=list)
    usable: list[float | None] = field(default_factory=list)  # when the node could use its address of that place
    anchors: list[Anchored] = field(default_factory=list)
    connections: list[Connection] = field(default_factory=list)
    shorts: list[Span] = field(default_factory=list)  # what: the anchor of its source, "" if it failed
    misplaced: int = 0  # short connections on another prefix than that of the router where the node was
    lost: list[int] = field(default_factory=list)  # of each move
    broken: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """Plain data; times are seconds since the beginning."""
        return {
            "seconds": round(self.ended - self.began, 2),
            "stays": [self._span(stay) for stay in self.stays],
            "anchors": [
                {
                    "anchor": each.anchor,
                    "prefix": each.prefix,
                    "states": [self._span(span) for span in each.states],
                    "released_after_s": each.lingered,
                }
                for each in self.anchors
            ],
            "connections": [
                asdict(each) | {"begin": self.since(each.begin), "end": self.since(each.end)}
                for each in self.connections
            ],
            "short_connections": {
                "opened": len(self.shorts),
                "failed": sum(not short.what for short in self.shorts),
                "on_another_prefix": self.misplaced,
            },
            "resets": sum(bool(each.error) for each in self.connections),
            "lost_per_move": self.lost,
            "broken_promises": self.broken,
        }

    def since(self, at: float) -> float:
        """Seconds since the beginning."""
        return round(at - self.began, 2)

    def _span(self, span: Span) -> list[object]:
        return [self.since(span.begin), self.since(span.end), span.what]


class AnchorsPlay:
    """One run of it."""

    def __init__(self, stage: MarStage, narrator: Narrator, *, seconds: float, stay: float, seed: int) -> None:
        """seconds: of the whole. stay: at a router, s."""
        self.stage = stage
        self._narrator = narrator
        self._seconds = seconds
        self._stay = stay
        self._dice = random.Random(seed)
        self._anchored: dict[tuple[str, str], Anchored] = {}
        self._open: dict[int, Program] = {}  # long connections that run, by number
        self._done: dict[int, tuple[Connection, Report]] = {}
        self._outcome = Outcome(0.0)

    def run(self) -> Outcome:
        """The walk, then what is to be said of it."""
        stage, narrator = self.stage, self._narrator
        narrator.print(PICTURE)
        stage.start_routers()
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))  # as the routers would have machines of their own
        stage.program("server", "cn", "tcp-serve").wait_for("ready")
        narrator.say(f"four routers are up; a prefix that is idle for {IDLE_AFTER:g} s is released")
        self._outcome = outcome = Outcome(time.time())
        self._go_to(stage.world.mars[0])
        first = stage.wait_for_address(pool(1))
        stage.program("sink", "mn", "udp-sink").wait_for("ready")
        stage.program("probe", "cn", "udp-send", str(first)).wait_for("ready")
        shorts = stage.program("shorts", "mn", "connect-often", str(CN_ADDRESS), "--rate", str(SHORT_RATE))
        for target in self._targets():
            self._watch(min(stage.stays[-1].made + self._stay, self._over))
            if time.time() >= self._over:
                break
            self._go_to(target)
        for number in list(self._open):
            self._hang_up(number)
        outcome.ended = time.time()
        shorts.stop()
        stage.programs["probe"].stop()
        stage.programs["sink"].stop()
        self._conclude(shorts)
        return outcome

    @property
    def _over(self) -> float:
        return self._outcome.began + self._seconds

    def _targets(self) -> Iterator[str]:
        while True:
            yield self._dice.choice([name for name in self.stage.world.mars if name != self.stage.world.where()])

    def _go_to(self, router: str) -> None:
        stage = self.stage
        origin = f"moves {stage.stays[-1].router} -> {router}" if stage.stays else f"appears at {router}"
        stage.move(router)
        self._outcome.usable.append(None)
        self._narrator.say(f"mn    {origin}; anchors for it: {', '.join(self._alive()) or 'none yet'}")

    def _watch(self, until: float) -> None:
        """Open and close long connections as it is their time, and look at the routers."""
        while (now := time.time()) < until:
            part = (now - self._outcome.began) / self._seconds
            settled = self._settled(now)
            for number, (begin, end) in enumerate(LONG):
                known = number in self._open or number in self._done
                if begin <= part < end and not known and settled:
                    self._call(number)
                elif part >= end and number in self._open:
                    self._hang_up(number)
            self._look()
            time.sleep(LOOK_EVERY)

    def _settled(self, now: float) -> bool:
        """Whether the node has an address of the router where it is; forming one takes a stock host a second or two."""
        usable = self._outcome.usable
        if usable[-1] is None:
            own = pool(self.stage.world.mars.index(self.stage.stays[-1].router) + 1)
            if any(address in own for address in self.stage.addresses()):
                usable[-1] = now
        return usable[-1] is not None and now > usable[-1] + SETTLED

    # --- long connections ---

    def _call(self, number: int) -> None:
        stage = self.stage
        program = stage.program(f"long{number}", "mn", "tcp-get", str(CN_ADDRESS), "--rate", str(RATE))
        program.wait_for("connected")
        self._open[number] = program
        self._narrator.say(f"mn    begins long connection {number + 1} at {stage.stays[-1].router}")

    def _hang_up(self, number: int) -> None:
        program = self._open.pop(number)
        began = program.reports("connected")[0]["time"]
        done = program.stop()
        anchor = self._anchor_of(done["source"])
        connection = Connection(
            begin=began, end=time.time(), anchor=anchor, octets=done["octets"], error=done["error"]
        )
        self._outcome.connections.append(connection)
        self._done[number] = connection, done
        self._narrator.say(f"mn    ends long connection {number + 1}, on an address of {anchor}")

    def _anchor_of(self, source: str) -> str:
        if not source:
            return ""
        inside = (name for number, name in enumerate(self.stage.world.mars, 1) if IPv6Address(source) in pool(number))
        return next(inside, "?")

    # --- the routers ---

    def _look(self) -> None:
        """What each anchor does for each prefix it has lent, now."""
        for router in self.stage.world.mars:
            seen, now = set(), time.time()
            for row in self.stage.show(router, "prefixes"):
                key = router, row["prefix"]
                seen.add(key)
                anchored = self._anchored.setdefault(key, Anchored(anchor=router, prefix=row["prefix"]))
                self._note(anchored, row["state"], now)
            for key, anchored in self._anchored.items():
                if key[0] == router and key not in seen:
                    self._note(anchored, "free", now)

    def _note(self, anchored: Anchored, state: str, now: float) -> None:
        last = anchored.states[-1] if anchored.states else None
        if last is not None:
            last.end = now
        if last is None or last.what != state:
            anchored.states.append(Span(begin=now, end=now, what=state))
            if last is not None and last.what in ALIVE and state not in ALIVE:
                self._narrator.say(f"{anchored.anchor}  has released {anchored.prefix}: nobody needed it any more")

    def _alive(self) -> list[str]:
        return sorted(
            {each.anchor for each in self._anchored.values() if each.states[-1].what in ALIVE}
        )

    # --- what came of it ---

    def _conclude(self, shorts: Program) -> None:
        outcome = self._outcome
        moves = self.stage.moves(outcome.ended)
        ends = [stay.broken for stay in self.stage.stays[1:]] + [outcome.ended]
        outcome.stays = [
            Span(begin=stay.made, end=until, what=stay.router)
            for stay, until in zip(self.stage.stays, ends, strict=True)
        ]
        outcome.lost = losses(self.stage.arrivals(), moves)
        outcome.shorts = [
            Span(begin=each["time"], end=each["time"], what="" if each["error"] else self._anchor_of(each["source"]))
            for each in shorts.reports("short")
        ]
        outcome.misplaced = sum(self._is_misplaced(each["at"], each["source"]) for each in shorts.reports("short"))
        outcome.anchors = sorted(self._anchored.values(), key=lambda each: each.states[0].begin)
        for anchored in outcome.anchors:
            self._judge_release(anchored)
        outcome.broken = list(broken_promises(outcome))

    def _is_misplaced(self, at: float, source: str) -> bool:
        """Whether a connection used another prefix though the node had an address of the place."""
        for stay, usable in zip(self._outcome.stays, self._outcome.usable, strict=True):
            if usable is not None and usable + SETTLED <= at < stay.end:
                return bool(source) and self._anchor_of(source) != stay.what
        return False

    def _judge_release(self, anchored: Anchored) -> None:
        uses = [each.end for each in self._outcome.connections if each.anchor == anchored.anchor]
        left = [stay.end for stay in self._outcome.stays if stay.what == anchored.anchor]
        if self._outcome.stays and anchored.anchor == self._outcome.stays[0].what:
            uses.append(self._outcome.ended)  # the datagrams go there all the time
        anchored.needed_until = max([*uses, *left])
        last = anchored.states[-1]
        if last.what not in ALIVE:
            anchored.released = last.begin


def broken_promises(outcome: Outcome) -> Iterator[str]:
    """What is promised and did not hold, in words."""
    if len(outcome.connections) != len(LONG):
        yield f"{len(outcome.connections)} of {len(LONG)} long connections came about"
    for long in outcome.connections:
        if long.error or not long.octets:
            yield f"the long connection on an address of {long.anchor} broke: {long.error or 'nothing came'}"
    failed = sum(not short.what for short in outcome.shorts)
    if failed or not outcome.shorts:
        yield f"{failed} of {len(outcome.shorts)} short connections failed"
    if outcome.misplaced:
        yield f"{outcome.misplaced} short connections were not on the prefix of the router where the node was"
    for each in outcome.anchors:
        if each.released is not None and each.released < each.needed_until:
            yield f"{each.anchor} released {each.prefix} while it was needed"
        elif each.released is None and outcome.ended > each.needed_until + IDLE_AFTER + GRACE:
            idle = outcome.ended - each.needed_until
            yield f"{each.anchor} still serves {each.prefix}, though nobody has needed it for {idle:.1f} s"
    if not any(each.released is not None for each in outcome.anchors):
        yield "no anchor ended"
    for number, lost in enumerate(outcome.lost, 1):
        if lost > LOST_AT_MOST:
            yield f"move {number}: {lost} datagrams were lost, promised are {LOST_AT_MOST} at most"


def summary(outcome: Outcome) -> str:
    """The figures for people."""
    data = outcome.as_json()
    lines = ["", "anchor  prefix                 from     to      needed   released after", ""]
    for each in outcome.anchors:
        first, last = each.states[0], each.states[-1]
        after = "in use to the end" if each.lingered is None else f"{each.lingered:.1f} s"
        end = each.released or last.end
        lines.append(
            f"{each.anchor}    {each.prefix:<22} {outcome.since(first.begin):5.1f} s {outcome.since(end):5.1f} s "
            f"{outcome.since(each.needed_until):5.1f} s   {after}"
        )
    shorts = data["short_connections"]
    lines += [
        "",
        f"{len(outcome.stays) - 1} moves; {sum(outcome.lost)} datagrams lost, "
        f"{max(outcome.lost, default=0)} at most in one move",
        f"{len(outcome.connections)} long connections, {data['resets']} resets; {shorts['opened']} short ones, "
        f"{shorts['failed']} failed, {shorts['on_another_prefix']} on another prefix than that of the place",
        "",
    ]
    lines += [f"BROKEN PROMISE: {line}" for line in outcome.broken] or ["every promise held"]
    return "\n".join(lines)


def begin(stage: MarStage, store: str) -> None:
    """Tell the routers of the stage where they keep sessions, and how long they are patient. Before they start."""
    stage.store = store
    stage.anchor = {"idle_after": IDLE_AFTER}
    if len(stage.world.mars) != MARS:
        raise RouterError(f"the play is for {MARS} MARs")
