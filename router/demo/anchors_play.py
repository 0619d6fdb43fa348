"""The play of `demo anchors`: a node wanders over four MARs, and anchors live exactly as long as something needs them.

Five long connections, each begun at another place and ended at its own time, and many short ones. Every router lends
the node a prefix; when the last connection on it is over, the prefix is idle, and the routers let it go by themselves.
"""

import os
import random
import time
from collections.abc import Iterator
from ipaddress import IPv6Address

from router.demo.anchors_outcome import (
    ALIVE,
    IDLE_AFTER,
    LONG,
    LOOK_EVERY,
    OPEN_IDLE_AFTER,
    Anchored,
    Connection,
    Outcome,
    Short,
    Span,
)
from router.demo.figures import losses
from router.demo.mar_stage import MarStage
from router.demo.narrator import Narrator
from router.demo.stage import USELESS
from router.demo.topology import CN_ADDRESS, pool
from router.demo.traffic import Program, Report
from router.errors import RouterError
from router.links.rtnetlink_constants import AddressFlag

MARS = 4
SETTLED = 0.3  # s after a new address was seen
RATE = 2.0  # Mbit/s of a long connection
SHORT_RATE = 4.0  # short connections a second

PICTURE = """\
            cn  2001:db8:cccc::80                 a correspondent
             |
           core                                   a plain kernel router
       /   |   |   \\
   mar1  mar2  mar3  mar4                         four `python -m router --mar`
     :     :     :     :
     mn ~~~~~~~~~~~~~~~~>                         a stock host that wanders between them
"""


class AnchorsPlay:
    """One run of it."""

    def __init__(self, stage: MarStage, narrator: Narrator, *, seconds: float, stay: float, seed: int) -> None:
        """seconds: of the whole. stay: at a router, s."""
        self.stage = stage
        self._narrator = narrator
        self._seconds = seconds
        self._stay = stay
        self._dice = random.Random(seed)
        self._anchored: dict[tuple[str, str], Anchored] = {}  # by router and prefix: the last time
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
        self._outcome = outcome = Outcome(narrator.begin())
        narrator.say(f"four routers are up; a prefix that is idle for {IDLE_AFTER:g} s is released")
        self._go_to(stage.world.mars[0])
        first = stage.wait_for_address(pool(1), meanwhile=self._look)
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
        self._look()
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
            preferred = self.stage.addresses(without=USELESS | AddressFlag.DEPRECATED)
            if any(address in own for address in preferred):
                usable[-1] = now + SETTLED
        return usable[-1] is not None and now > usable[-1]

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
            number=number + 1,
            begin=began,
            end=done["time"],
            anchor=anchor,
            octets=done["octets"],
            error=done["error"],
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
                self._note(key, row["state"], now)
            for key in self._anchored:
                if key[0] == router and key not in seen:
                    self._note(key, "free", now)

    def _note(self, key: tuple[str, str], state: str, now: float) -> None:
        """A prefix is in that state now. It begins anew when it is in use again."""
        anchored = self._anchored.get(key)
        if anchored is not None:
            anchored.states[-1].end = now
        was_alive = anchored is not None and anchored.states[-1].what in ALIVE
        if anchored is None or (state in ALIVE and not was_alive):
            anchored = self._anchored[key] = Anchored(anchor=key[0], prefix=key[1])
            self._outcome.anchors.append(anchored)
        if not anchored.states or anchored.states[-1].what != state:
            anchored.states.append(Span(begin=now, end=now, what=state))
        if was_alive and state not in ALIVE:
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
            Short(begin=each["at"], end=each["time"], anchor=self._anchor_of(each["source"]), error=each["error"])
            for each in shorts.reports("short")
        ]
        outcome.conclude()


def begin(stage: MarStage, store: str) -> None:
    """Tell the routers of the stage where they keep sessions, and how long they are patient. Before they start."""
    stage.store = store
    stage.anchor = {"idle_after": IDLE_AFTER, "open_idle_after": OPEN_IDLE_AFTER}
    if len(stage.world.mars) != MARS:
        raise RouterError(f"the play is for {MARS} MARs")
