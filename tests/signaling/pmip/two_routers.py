"""An anchor and a gateway with several paths between them, on a clock that can be stepped and wires that can be cut.

    lma 2001:db8:a::1  === wlan ===  2001:db8:b1::1 mag        each direction: delay, jitter, loss, cut
                       === lte  ===  2001:db8:b2::1

Real octets cross the wires: probes are encoded, signed, verified. Wakes may be late, as those of a busy router are.
"""

import heapq
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import IPv6Address
from typing import Any

from signaling.actions import Action, Note, Send, SetWay, TunnelEnd
from signaling.door import Door, Verdict
from signaling.events import DatagramReceived
from signaling.pmip.path_monitor import PathMonitor, Way
from signaling.settings import Authentication, Clock, LmaSettings, MagSettings, PathCare, Peer, WayState
from signaling.wire.heartbeat import Heartbeat

WALL = 1_704_164_645.0
KEY = bytes(range(16))
LMA = IPv6Address("2001:db8:a::1")
MAG = (IPv6Address("2001:db8:b1::1"), IPv6Address("2001:db8:b2::1"), IPv6Address("2001:db8:b3::1"))
PACKETS_PER_SECOND = 1000


@dataclass(slots=True)
class Wire:
    """One direction of one path. Times in s."""

    delay: float = 0.02
    jitter: float = 0.0
    loss: float = 0.0
    cut: bool = False


@dataclass(slots=True)
class End:
    """One router: its monitor, and all it asked for."""

    name: str
    door: Door
    monitor: PathMonitor
    counters: Counter[str]
    boot: float  # what its monotonic clock showed when the world began
    states: dict[int, WayState] = field(default_factory=dict)  # by BID
    changes: list[tuple[float, int, WayState]] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    sent: list[tuple[float, Heartbeat]] = field(default_factory=list)
    woken_at: float = 0.0  # not before
    wakes: int = 0  # because of the time, or of what came
    busy_until: float = 0.0  # it does nothing else until then
    legacy: bool = False  # answers heartbeats without looking into them


class TwoRouters:
    """`lma` and `mag`. Time begins at 0; `traffic` says on which paths there is some."""

    def __init__(
        self,
        *,
        paths: int = 2,
        seed: int = 0,
        lateness: float = 0.0,
        key: bytes = KEY,
        delays: tuple[float, ...] = (0.01, 0.05, 0.1),
        **care: Any,
    ) -> None:
        """lateness: s, of wakes, at most."""
        self.now = 0.0
        self.random = random.Random(seed)
        self.lateness = lateness
        self.traffic: set[int] = set()  # BIDs
        self.paths = range(1, paths + 1)
        self.wires = {(name, bid): Wire(delay=delays[bid - 1]) for name in ("lma", "mag") for bid in self.paths}
        self._todo: list[tuple[float, int, Callable[[], None]]] = []
        self._order = 0
        mag = Peer(name="mag", address=MAG[0], addresses=MAG[1:], key=key)
        required = Authentication.REQUIRED if key else Authentication.NONE
        common: dict[str, Any] = {"tunnel_mtu": 1400, "paths": PathCare(**care), "authentication": required}
        self.lma = self._end("lma", LmaSettings(address=LMA, peers=(mag,), **common), boot=500.0)
        lma = Peer(name="lma", address=LMA, key=key)
        self.mag = self._end("mag", MagSettings(address=MAG[0], peers=(lma,), **common), boot=9000.0)

    def _end(self, name: str, settings: LmaSettings | MagSettings, boot: float) -> End:
        counters: Counter[str] = Counter()
        clock = Clock()
        clock.step(WALL - boot)
        door = Door(settings, counters)
        monitor = PathMonitor(settings, door, clock, counters, traffic=self._packets)
        return End(name, door, monitor, counters, boot)

    def _packets(self, tunnel: TunnelEnd) -> int:
        return int(self.now * PACKETS_PER_SECOND) if tunnel.binding_id in self.traffic else 0

    # --- paths ---

    def way(self, end: End, bid: int) -> Way:
        """The path as this end knows it."""
        peer, ours, theirs = ("mag", LMA, MAG[bid - 1]) if end is self.lma else ("lma", MAG[bid - 1], LMA)
        tunnel = TunnelEnd(remote=theirs, local=ours, binding_id=bid, label=10 * bid)
        return Way(tunnel=tunnel, peer=peer, source=ours, destination=theirs)

    def register(self, *bids: int) -> None:
        """The paths are registered: both ends watch them."""
        for bid in bids or self.paths:
            for end in (self.lma, self.mag):
                end.states.setdefault(bid, WayState.UP)
                self.perform(end, end.monitor.watch(self.way(end, bid), self.now + end.boot))

    def cut(self, bid: int, *, toward: str = "", cut: bool = True) -> None:
        """Nothing passes any more, or (cut False) again; toward: only in the direction of that router."""
        for name in ("lma", "mag"):
            if toward != name:
                self.wires[name, bid].cut = cut

    def state(self, bid: int) -> tuple[WayState, WayState]:
        """What the LMA and the MAG were told."""
        return self.lma.states[bid], self.mag.states[bid]

    def changes(self, bid: int, since: float = 0.0) -> list[tuple[float, int, WayState]]:
        """At either end, in order."""
        every = sorted(self.lma.changes + self.mag.changes, key=lambda change: change[0])
        return [change for change in every if change[1] == bid and change[0] >= since]

    # --- time ---

    def run(self, seconds: float) -> None:
        """Let everything happen that is due within this time."""
        end = self.now + seconds
        while (at := self._next()) <= end:
            self.now = max(self.now, at)
            self._step()
        self.now = end

    def _wake_of(self, end: End) -> float:
        due = end.monitor.next_wake
        return float("inf") if due is None else max(due - end.boot, end.woken_at, end.busy_until)

    def _next(self) -> float:
        wakes = [self._wake_of(end) for end in (self.lma, self.mag)]
        return min([*wakes, self._todo[0][0]] if self._todo else wakes)

    def _step(self) -> None:
        for end in (self.lma, self.mag):
            if self._wake_of(end) <= self.now:
                end.wakes += 1
                self.perform(end, end.monitor.wake(self.now + end.boot))
                due = end.monitor.next_wake
                late = self.random.random() * self.lateness
                end.woken_at = 0.0 if due is None else max(self.now, due - end.boot) + late
                return
        heapq.heappop(self._todo)[2]()

    def later(self, at: float, what: Callable[[], None]) -> None:
        """Do something at this time."""
        self._order += 1
        heapq.heappush(self._todo, (at, self._order, what))

    # --- the wires ---

    def perform(self, end: End, todo: list[Action]) -> None:
        """What an end asks for."""
        for action in todo:
            match action:
                case SetWay(tunnel=tunnel, state=state):
                    end.states[tunnel.binding_id] = state
                    end.changes.append((self.now, tunnel.binding_id, state))
                case Note():
                    end.notes.append(action)
                case Send(message=Heartbeat()):
                    self._carry(end, action)

    def _carry(self, end: End, action: Send) -> None:
        assert isinstance(action.message, Heartbeat)
        end.sent.append((self.now, action.message))
        theirs = action.destination if end is self.lma else action.source
        bid = MAG.index(theirs) + 1  # type: ignore[arg-type]
        wire = self.wires[end.name, bid]
        if wire.cut or self.random.random() < wire.loss:
            return
        other = self.mag if end is self.lma else self.lma
        at = self.now + wire.delay + self.random.random() * wire.jitter
        event = DatagramReceived(
            octets=action.octets, source=action.source or LMA, destination=action.destination
        )
        self.later(at, lambda: self.deliver(other, event))

    def deliver(self, end: End, event: DatagramReceived) -> None:
        """It reaches the role, which asks the door first."""
        if end.busy_until > self.now:
            self.later(end.busy_until, lambda: self.deliver(end, event))
            return
        end.wakes += 1
        message = end.door.decode(event.octets, event.source, event.destination)
        care_of = end.door.path_care_of(event.destination, event.source)
        verdict, peer = end.door.who(event.octets, message, event.source, care_of, port=event.port)
        assert (verdict, type(message)) == (Verdict.TRUSTED, Heartbeat)
        assert isinstance(message, Heartbeat)
        if end.legacy or not end.monitor.is_probe(message):
            self._answer_as_of_old(end, message, event)
        else:
            self.perform(end, end.monitor.receive(message, event, peer, self.now + end.boot))

    def _answer_as_of_old(self, end: End, beat: Heartbeat, event: DatagramReceived) -> None:
        if not beat.response:
            answer = Heartbeat(flags=beat.flags | 1, sequence_number=beat.sequence_number)
            care_of = end.door.path_care_of(event.destination, event.source)
            self.perform(end, [end.door.send(answer, event.source, care_of=care_of, source=event.destination)])
