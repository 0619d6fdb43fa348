"""What a walk over four MARs showed, what is promised of it, and how both are told. Pure: times in, words out.

All times are CLOCK_REALTIME in seconds; what is told counts from the beginning of the walk.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from router.demo.busyness import BUSY
from router.demo.handover import LOST_AT_MOST
from router.demo.narrator import promises

IDLE_AFTER = 2.0  # s without a packet, and an old prefix is released
OPEN_IDLE_AFTER = 3.0  # s without a packet, and a connection is taken for dead: some are cut off as they end
LOOK_EVERY = 0.2  # s between two looks at what the routers have
GRACE = 1.5  # s for a release to be noticed, agreed on and seen
LONG = ((0.0, 1.0), (0.08, 0.45), (0.2, 0.35), (0.38, 0.8), (0.55, 0.72))  # begin and end, as parts of the whole
FORMED = 3.0  # s in which a stock host has an address of the router it came to
SHORTEST_STAY = IDLE_AFTER + GRACE  # s: silence counts anew at each router, so less shows no release
SHORTEST_WALK = FORMED / min(end - begin for begin, end in LONG)  # s: each long connection finds its time to begin
FEWEST_STAYS = 3  # one to begin with, one to leave, one in which it is released
ALIVE = {"local", "guard", "remote", "split"}  # states in which an anchor does something for a prefix


def too_short(seconds: float, stay: float) -> str:
    """Why a walk cannot keep what is promised, and what it needs; empty: it can."""
    if stay < SHORTEST_STAY:
        return (
            f"--stay {stay:g}: needed are {SHORTEST_STAY:g} s at least, as an idle prefix is released {IDLE_AFTER:g} s "
            "after its node came to a router"
        )
    needed = max(SHORTEST_WALK, FEWEST_STAYS * stay)
    if seconds < needed - 1e-9:
        return (
            f"--seconds {seconds:g}: with --stay {stay:g} needed are {needed:g} s at least, for {len(LONG)} long "
            f"connections and {FEWEST_STAYS} stays"
        )
    return ""


@dataclass(slots=True, kw_only=True)
class Span:
    """Something that lasted."""

    begin: float
    end: float
    what: str  # name of a router, or a state


@dataclass(slots=True, kw_only=True)
class Anchored:
    """A prefix of the node at one anchor, from when it was lent or back in use until it was released."""

    anchor: str
    prefix: str
    states: list[Span] = field(default_factory=list)  # the last may be what came after the release
    needed_until: float = 0.0
    needed_by: str = ""  # who was the last to need it
    released: float | None = None  # when its anchor had no more to do for it

    @property
    def begin(self) -> float:
        """When it began."""
        return self.states[0].begin

    @property
    def lingered(self) -> float | None:
        """How long it was kept for nothing, s; None: it is not released yet."""
        return None if self.released is None else round(self.released - self.needed_until, 2)


@dataclass(slots=True, kw_only=True)
class Connection:
    """A long connection."""

    number: int  # from 1, in the order they are meant to begin
    begin: float
    end: float
    anchor: str = ""
    octets: int = 0
    error: str = ""


@dataclass(slots=True, kw_only=True)
class Short:
    """A short connection. anchor: of the address that the host chose, also where it failed; "": it had none."""

    begin: float
    end: float
    anchor: str
    error: str = ""


@dataclass(slots=True)
class Outcome:
    """The summary, as `-j` prints it, and all that the picture needs."""

    began: float
    ended: float = 0.0
    stays: list[Span] = field(default_factory=list)
    usable: list[float | None] = field(default_factory=list)  # when the node preferred its address of that place
    anchors: list[Anchored] = field(default_factory=list)
    connections: list[Connection] = field(default_factory=list)
    shorts: list[Short] = field(default_factory=list)
    lost: list[int] = field(default_factory=list)  # of each move
    broken: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)  # what is not held against it, and why

    # --- what came of it ---

    def conclude(self) -> None:
        """Find until when, and by whom, each anchor was needed, and when it was released."""
        for each in self.anchors:
            last = each.states[-1]
            each.released = None if last.what in ALIVE else last.begin
            until = self.ended if each.released is None else each.released
            uses = [
                (min(end, self.ended), by)
                for begin, end, by in self._uses(each.anchor)
                if begin < until and end >= each.begin
            ]
            each.needed_until, each.needed_by = max(uses, default=(each.begin, "nobody"))

    def _uses(self, anchor: str) -> Iterator[tuple[float, float, str]]:
        """Who needed an anchor, from when until when."""
        if self.stays and self.stays[0].what == anchor:
            yield self.stays[0].begin, self.ended, "the datagrams"
        for stay in self.stays:
            if stay.what == anchor:
                yield stay.begin, stay.end, "the node, there"
        for long in self.connections:
            if long.anchor == anchor:
                yield long.begin, long.end, f"long connection {long.number}"
        for short in self.shorts:
            if short.anchor == anchor and not short.error:
                yield short.begin, short.end, "a short connection"

    def judge(self, others: float) -> None:
        """Hold it against what is promised. others: share of the processors that other programs took."""
        self.broken = list(broken_promises(self))
        late = list(late_promises(self))
        taken = f"other programs took {others:.0%} of the processors"
        if others < BUSY:
            self.broken += [f"{line} ({taken})" for line in late]
        else:
            excuse = "meanwhile, so that says nothing of the routers: run it again when they are idle"
            self.warnings += [f"{line}; but {taken} {excuse}" for line in late]
        if stranded := sum(self.is_stranded(short) for short in self.shorts):
            self.warnings.append(
                f"{stranded} short connections were begun when the node had no address of the place yet, from one that "
                "was released: a stock host keeps those for a while, and nobody answers them (anchor.idle_after in "
                "docs/config.md)"
            )

    # --- short connections ---

    def is_misplaced(self, short: Short) -> bool:
        """Whether it used another prefix than that of the place, though the node had an address of that."""
        place = self._place(short.begin)
        return bool(short.anchor) and place is not None and short.anchor != place

    def is_stranded(self, short: Short) -> bool:
        """Whether it failed as its host chose a released address, when it had none of the place."""
        if not short.error or not short.anchor or self._place(short.begin) is not None:
            return False
        lent = [each for each in self.anchors if each.anchor == short.anchor and each.begin <= short.begin]
        seen = short.begin + LOOK_EVERY
        return bool(lent) and all(each.released is not None and each.released <= seen for each in lent)

    def _place(self, at: float) -> str | None:
        """The router where the node was then with a preferred address of it."""
        for stay, usable in zip(self.stays, self.usable, strict=True):
            if usable is not None and usable <= at < stay.end:
                return stay.what
        return None

    def failed(self) -> int:
        """How many short connections failed that had a chance."""
        return sum(bool(short.error) and not self.is_stranded(short) for short in self.shorts)

    def misplaced(self) -> int:
        """How many short connections were not on the prefix of the place."""
        return sum(self.is_misplaced(short) for short in self.shorts)

    # --- as data ---

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
                    "needed_until": self.since(each.needed_until),
                    "needed_by": each.needed_by,
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
                "failed": self.failed(),
                "from_released_addresses": sum(self.is_stranded(short) for short in self.shorts),
                "on_another_prefix": self.misplaced(),
            },
            "resets": sum(bool(each.error) for each in self.connections),
            "lost_per_move": self.lost,
            "broken_promises": self.broken,
            "warnings": self.warnings,
        }

    def since(self, at: float) -> float:
        """Seconds since the beginning."""
        return round(at - self.began, 2)

    def _span(self, span: Span) -> list[object]:
        return [self.since(span.begin), self.since(span.end), span.what]


def broken_promises(outcome: Outcome) -> Iterator[str]:
    """What is promised, however busy the machine is, and did not hold, in words."""
    for long in outcome.connections:
        if long.error or not long.octets:
            why = long.error or "nothing came"
            yield f"long connection {long.number}, on an address of {long.anchor}, broke: {why}"
    if not outcome.shorts:
        yield "no short connection was begun"
    for each in outcome.anchors:
        if each.released is not None and each.released < each.needed_until:
            yield f"{each.anchor} released {each.prefix} while it was needed by {each.needed_by}"
    if not any(each.released is not None for each in outcome.anchors):
        yield "no anchor ended"


def late_promises(outcome: Outcome) -> Iterator[str]:
    """What is promised and did not hold, and a machine with other things to do may break by itself."""
    if len(outcome.connections) != len(LONG):
        yield f"{len(outcome.connections)} of {len(LONG)} long connections came about"
    if failed := outcome.failed():
        yield f"{failed} of {len(outcome.shorts)} short connections failed"
    if misplaced := outcome.misplaced():
        yield f"{misplaced} short connections were not on the prefix of the router where the node was"
    for each in outcome.anchors:
        if (kept := _kept_too_long(outcome, each)) is not None:
            yield f"{each.anchor} served {each.prefix} for {kept:.1f} s in which nobody needed it and its node stayed"
    for number, lost in enumerate(outcome.lost, 1):
        if lost > LOST_AT_MOST:
            yield f"move {number}: {lost} datagrams were lost, promised are {LOST_AT_MOST} at most"


def _kept_too_long(outcome: Outcome, anchored: Anchored) -> float | None:
    """The longest time, s, that it was kept for nothing while its node was at one router; None: no longer than due.

    Silence counts anew at each router that the node comes to.
    """
    end = outcome.ended if anchored.released is None else anchored.released
    kept = [min(stay.end, end) - max(stay.begin, anchored.needed_until) for stay in outcome.stays]
    return longest if (longest := max(kept, default=0.0)) > IDLE_AFTER + GRACE else None


def summary(outcome: Outcome) -> str:
    """The figures for people."""
    data = outcome.as_json()
    lines = ["", f"anchor  prefix              {'from':>8} {'to':>8}   {'needed until, by':29}   released after", ""]
    for each in outcome.anchors:
        end = outcome.ended if each.released is None else each.released
        idle = outcome.ended - each.needed_until
        unreleased = "in use to the end" if idle < IDLE_AFTER else f"not yet, idle for {idle:.1f} s"
        after = unreleased if each.lingered is None else f"{each.lingered:.1f} s"
        lines.append(
            f"{each.anchor}    {each.prefix:<20} {outcome.since(each.begin):5.1f} s {outcome.since(end):6.1f} s   "
            f"{outcome.since(each.needed_until):5.1f} s  {each.needed_by:20}   {after}"
        )
    shorts = data["short_connections"]
    lines += [
        "",
        f"{len(outcome.stays) - 1} moves; {sum(outcome.lost)} datagrams lost, "
        f"{max(outcome.lost, default=0)} at most in one move",
        f"{len(outcome.connections)} long connections, {data['resets']} resets; {shorts['opened']} short ones, "
        f"{shorts['failed']} failed, {shorts['from_released_addresses']} begun from a released address, "
        f"{shorts['on_another_prefix']} on another prefix than that of the place",
        "",
    ]
    return "\n".join([*lines, *promises(outcome.broken, outcome.warnings)])
