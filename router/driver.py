"""Runs one role: event -> actions -> effects. It owns the clock and the one timer, and says what it does.

Actions are performed in the order the role gives them. Table edits are done at once; a message to a peer waits for the
sessions saved before it in the same turn, so that what a peer is told has become durable.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple, Protocol

from engine import EngineError
from router.control_sockets import SignalingSockets
from router.errors import RouterError
from router.links.attach import AccessInterface
from router.network import Network
from router.sessions import Sessions
from router.trouble import TROUBLE, with_cure
from signaling import actions
from signaling.actions import Action
from signaling.deadlines import SOON
from signaling.events import ClockStepped, Event
from signaling.pmip.probe import carries_probe
from signaling.pmip.saved_binding import SavedBinding
from signaling.rate_limit import RateLimit
from signaling.update_request import node_of, prefixes_of
from signaling.wire.binding_ack import BindingAck
from signaling.wire.binding_error import BindingError
from signaling.wire.binding_update import BindingUpdate
from signaling.wire.heartbeat import Heartbeat
from signaling.wire.message import Message
from signaling.wire.neighbor import RouterAdvertisement
from signaling.wire.notification import UpdateNotification, UpdateNotificationAck
from signaling.wire.revocation import BindingRevocationAck, BindingRevocationIndication

log = logging.getLogger("openmar")

CLOCK_STEP = 0.001  # s: a wall clock that moved by more is told to the role
TIMER_ROUNDING = 0.0005  # s: uvloop rounds to whole milliseconds, and early is of no use
HISTORY = 1000  # lines kept for a `monitor` that comes later


class Role(Protocol):
    """What every role of `signaling` offers."""

    def handle(self, event: Event, now: float) -> list[Action]:
        """What to do about an event."""

    def wake(self, now: float) -> list[Action]:
        """What to do because of the time."""

    @property
    def next_wake(self) -> float | None:
        """When wake is due next."""


class Bindings(Protocol):
    """Where an LMA keeps its mobility sessions. The future is done when it is durable; None: it is already."""

    def save(self, binding: SavedBinding) -> "asyncio.Future[None] | None":
        """Keep this session, in place of what was kept of that number."""

    def forget(self, number: int) -> "asyncio.Future[None] | None":
        """The session with that number is over."""


class Addresses(Protocol):
    """Who leases addresses on the access links of a MAG."""

    def give(self, action: actions.GiveAddress) -> None:
        """This may be leased from now on, or nothing any more."""

    def forget(self, node: str) -> None:
        """The node is on no link of ours any more."""


Fields = Mapping[str, Any]


class Line(NamedTuple):
    """Something that happened, for people: `monitor` and the log. time: wall clock s."""

    time: float
    event: str
    about: Fields | Callable[[], Fields]

    @property
    def fields(self) -> Fields:
        """What is to be said; put together when somebody reads it, as of most lines nobody does."""
        return self.about() if callable(self.about) else self.about


class Journalist:
    """Lines for whoever listens; the last ones are kept."""

    def __init__(self) -> None:
        self.history: deque[Line] = deque(maxlen=HISTORY)
        self.listeners: set[Callable[[Line], None]] = set()
        self._warnings = RateLimit(rate=1.0, burst=20)  # what peers and nodes can cause must not fill a disk

    def tell(self, event: str, about: Fields | Callable[[], Fields], at: float | None = None) -> None:
        """A line for everybody. about: its fields, or what makes them. at: wall clock s, None: it happened now."""
        about = about if callable(about) else with_cure(event, about)
        line = Line(time.time() if at is None else at, event, about)
        self.history.append(line)
        level = logging.WARNING if event in TROUBLE and self._warnings.allows(time.monotonic()) else logging.INFO
        if log.isEnabledFor(level):
            log.log(level, "%s %s", event, " ".join(f"{key}={_text(value)}" for key, value in line.fields.items()))
        if self.listeners:
            for listener in tuple(self.listeners):
                listener(line)


def _text(value: object) -> str:
    return ",".join(str(item) for item in value) if isinstance(value, tuple) else str(value)


class Driver:
    """One role at work.

    bindings: of a role that saves any (an LMA). addresses: of one that gives any to nodes (a MAG).
    on_held: told after a turn in which a prefix was held: its node is about to come somewhere.
    on_bound: told at the end of a turn in which a prefix was bound, or as soon as its packets can reach the node:
    those that waited for that go before anything else is done.
    """

    def __init__(
        self,
        role: Role,
        *,
        network: Network,
        sockets: SignalingSockets,
        links: Mapping[str, AccessInterface],
        sessions: Callable[["Driver"], Sessions] | None = None,
        bindings: Bindings | None = None,
        addresses: Addresses | None = None,
        on_held: Callable[[], None] = lambda: None,
        on_bound: Callable[[], None] = lambda: None,
    ) -> None:
        self.role = role
        self.journalist = Journalist()
        self.network = network
        self._sockets = sockets
        self._links = links
        self._bindings = bindings
        self._addresses = addresses
        self._on_held = on_held
        self._on_bound = on_bound
        self._bound = False  # in this turn
        self._arriving = 0  # prefixes of this turn that have no way to their node yet
        self._newcomers: deque[actions.ExpectNode] = deque()  # the links still announce them
        if sessions is not None:  # a MAR's: other roles have nothing to find or save there
            self.sessions = sessions(self)
        self.on_retired: Callable[[], None] = lambda: None  # nobody needs this router any more
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._armed_for: float | None = None  # monotonic s: what the timer stands at
        self._timer_doubted = False  # it is looked at once for all that came in together
        self._wall_minus_monotonic: float | None = None
        self._durable: asyncio.Future[None] | None = None  # what messages of this turn wait for
        # told when the turn is over: packets come first
        self._lines: list[tuple[str, Fields | Callable[[], Fields], float]] = []
        self._stopped = False
        self._postponed: list[Event] | None = None  # None: events are for now

    def feed(self, event: Event) -> None:
        """Something happened."""
        if self._stopped:
            return  # a node that was told to look for another router must not find this one again
        if self._postponed is not None:
            self._postponed.append(event)
            return
        try:
            self._perform(self.role.handle(event, self._now()))
        finally:
            if not self._timer_doubted:
                self._timer_doubted = True
                self._loop.call_soon(self._set_timer)

    def perform(self, todo: list[Action]) -> None:
        """Actions that came from somewhere else than an event: an order of the operator, or the farewell."""
        self._perform(todo)
        if not self._stopped:
            self._set_timer()

    @property
    def paused(self) -> bool:
        """Between pause and resume."""
        return self._postponed is not None

    def pause(self) -> None:
        """The role does nothing until resume: somebody looks at what it knows."""
        self._postponed = []
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def resume(self) -> None:
        """Go on, with what happened meanwhile first."""
        postponed, self._postponed = self._postponed or [], None
        for event in postponed:
            self.feed(event)
        self._set_timer()

    def take_up(self, make: Callable[[float], list[Action]]) -> list[Action]:
        """Let the role go on where another process was: make(now), when the role knows what the clock shows."""
        return make(self._now())

    def stop(self) -> None:
        """No more events and timers."""
        self._stopped = True
        self._newcomers.clear()
        if self._timer is not None:
            self._timer.cancel()

    def _now(self) -> float:
        """Monotonic s; on the way the role is told when the wall clock was set."""
        now = time.monotonic()
        difference = time.time() - now
        if self._wall_minus_monotonic is None or abs(difference - self._wall_minus_monotonic) > CLOCK_STEP:
            self._wall_minus_monotonic = difference
            self._perform(self.role.handle(ClockStepped(wall_minus_monotonic=difference), now))
        return now

    def _set_timer(self) -> None:
        self._timer_doubted = False
        due = self.role.next_wake
        if self._stopped or self._postponed is not None or (due == self._armed_for and self._timer is not None):
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._armed_for = due
        if due is not None:
            wait = due - time.monotonic()
            self._timer = self._loop.call_later(wait + TIMER_ROUNDING if wait > 0 else 0.0, self._wake)

    def _wake(self) -> None:
        self._timer = None
        self._sockets.read()  # after a stall, what was waited for is there and only has not been read
        try:
            now = self._now()
            due = self.role.next_wake
            if due is not None and due <= now:  # the timer may still be early
                self._perform(self.role.wake(now))
        finally:
            self._set_timer()

    def _perform(self, todo: list[Action]) -> None:
        self._durable = None
        self._arriving = self._foresee(todo)
        for action in todo:
            try:
                PERFORM[type(action)](self, action)
            except (RouterError, EngineError) as error:
                # the others of this turn concern other prefixes or peers: they must not be lost with it
                log.error("%s: %s", type(action).__name__, error)
                self._tell("failed", {"action": type(action).__name__, "why": str(error)})
        if self._bound:
            self._bound = False
            self._on_bound()
        self._tell_all()

    def _tell_all(self) -> None:
        lines, self._lines = self._lines, []
        for line in lines:
            self.journalist.tell(*line)

    def _tell(self, event: str, about: Fields | Callable[[], Fields]) -> None:
        self._lines.append((event, about, time.time()))

    # --- one method for each kind of action ---

    def _foresee(self, todo: list[Action]) -> int:
        """Whoever is asked for a prefix sends what has waited for it at once: nothing of that may come too early.

        How many prefixes come, each with packets of its own, none of which may be read before all have their way.
        """
        coming = 0
        for action in todo:
            if isinstance(action, actions.Bind) and isinstance(action.path, actions.TowardAnchor):
                coming += 1
                with suppress(RouterError, EngineError):  # told when it is bound
                    self.network.foresee(action.prefix, action.path, action.node)
        return coming

    def _on_way(self) -> None:
        self._arriving -= 1
        if self._arriving <= 0:
            self._on_bound()

    def _bind(self, action: actions.Bind) -> None:
        self.network.bind(action.prefix, action.path, action.node, self._on_way)
        if isinstance(action.path, actions.Held):
            self._loop.call_soon(self._on_held)
        else:
            self._bound = True
        self._tell(PATHS[type(action.path)], partial(_about_path, action))

    def _bind_all(self, action: actions.BindAll) -> None:
        self.network.bind_all(action.nodes, action.path)
        self._bound = True

    def _unbind(self, action: actions.Unbind) -> None:
        self.network.unbind(action.prefix)

    def _set_policy(self, action: actions.SetPolicy) -> None:
        self.network.set_policy(action)
        self._tell("policy", {"name": action.name, "rules": len(action.rules)})

    def _set_way(self, action: actions.SetWay) -> None:
        self.network.set_way(action)

    def _send(self, action: actions.Send) -> None:
        if self._durable is not None and not self._durable.done():
            self._durable.add_done_callback(lambda _: self._send_late(action))
        else:
            self._send_now(action)

    def _send_late(self, action: actions.Send) -> None:
        self._send_now(action)
        self._tell_all()

    def _send_now(self, action: actions.Send) -> None:
        failure = self._sockets.send(
            action.octets, action.destination, action.port, action.source, beside_data=action.beside_data
        )
        if action.kind is Heartbeat and carries_probe(action.message):  # type: ignore[arg-type]
            return  # twenty a second on each path: `show paths` tells what they find
        self._tell(f"{_name(action.kind)}-sent", partial(_about_message, action, failure))

    def _send_error(self, action: actions.SendError) -> None:
        self._sockets.send_error(action.octets, action.destination)

    def _send_on_link(self, action: actions.SendOnLink) -> None:
        link = self._links.get(action.interface)
        failure = link.send(action) if link is not None else "no such interface"
        if isinstance(action.message, RouterAdvertisement) or failure is not None:
            fields: dict[str, Any] = {"node": action.node, "interface": action.interface}
            if failure is not None:
                fields["failed"] = failure
            self._tell(f"{NAMES.get(type(action.message), 'solicitation')}-sent", fields)

    def _save(self, action: actions.SaveSession) -> None:
        self._durable = self.sessions.save(action.session)

    def _forget(self, action: actions.ForgetSession) -> None:
        self._durable = self.sessions.forget(action.node, action.prefix)

    def _save_binding(self, action: actions.SaveBinding) -> None:
        if self._bindings is not None:
            self._durable = self._bindings.save(action.binding) or self._durable

    def _forget_binding(self, action: actions.ForgetBinding) -> None:
        if self._bindings is not None:
            self._durable = self._bindings.forget(action.number) or self._durable

    def _find(self, action: actions.FindSessions) -> None:
        self.sessions.find(action.node)

    def _expect(self, action: actions.ExpectNode) -> None:
        self.network.expect(action)
        self._newcomers.append(action)
        if action.interface is None:
            self._settle_in()
        else:  # a filter takes its time to be made, and packets are on their way
            self._loop.call_later(SOON, self._settle_in)
        if self._addresses is not None and action.interface is None:
            self._addresses.forget(action.node)

    def _settle_in(self) -> None:
        while self._newcomers:
            action = self._newcomers.popleft()
            for link in self._links.values():
                link.expect(action)

    def _give_address(self, action: actions.GiveAddress) -> None:
        self.network.give(action)
        if self._addresses is not None:
            self._addresses.give(action)

    def _retire(self, action: actions.Retire) -> None:
        self.on_retired()

    def _note(self, action: actions.Note) -> None:
        self._tell(action.event, action.fields)


def _about_path(action: actions.Bind) -> dict[str, Any]:
    fields: dict[str, Any] = {"node": action.node, "prefix": action.prefix}
    match action.path:
        case actions.LocalLink(interface=interface):
            fields["interface"] = interface
        case actions.SplitLink(interface=interface, tunnels=tunnels, flows=flows):
            peers = tuple(end.remote for end in tunnels)
            fields |= {"interface": interface, "flows": len(flows), "peer": peers}
        case actions.TowardVisited(tunnels=tunnels, policy=policy) | actions.TowardAnchor(
            tunnels=tunnels, policy=policy
        ):
            fields |= _ways(tunnels, policy)
        case _:
            pass
    return fields


def _name(kind: type[Message]) -> str:
    return NAMES.get(kind) or kind.__name__.lower()


def _ways(tunnels: tuple[actions.TunnelEnd, ...], policy: str) -> dict[str, Any]:
    fields: dict[str, Any] = {"peer": tunnels[0].remote} if tunnels else {}
    if len(tunnels) > 1:
        fields["ways"] = tuple(end.binding_id for end in tunnels)
    return fields | ({"policy": policy} if policy else {})


def _about_message(action: actions.Send, failure: str | None) -> dict[str, Any]:
    """What of a message is worth a line, and what became of it."""
    message = action.message
    fields: dict[str, Any] = {}
    if node := node_of(message):
        fields = {"node": node, "prefix": prefixes_of(message)}
    for name in ("status", "trigger", "lifetime"):
        value = getattr(message, name, None)
        if value is not None:
            fields[name] = getattr(value, "name", value)
    fields["peer"] = action.destination
    if action.source is not None:
        fields["from"] = action.source
    if failure is not None:
        fields["failed"] = failure
    return fields


PATHS: dict[type, str] = {
    actions.LocalLink: "native",
    actions.SplitLink: "split",
    actions.TowardVisited: "tunnel-to-visited",
    actions.BackToAnchor: "back-to-anchor",
    actions.TowardAnchor: "tunnel-to-anchor",
    actions.Held: "held",
    actions.Closed: "closed",
}
NAMES: dict[type[Message], str] = {
    BindingUpdate: "pbu",
    BindingAck: "pba",
    BindingRevocationIndication: "bri",
    BindingRevocationAck: "bra",
    BindingError: "binding-error",
    UpdateNotification: "upn",
    UpdateNotificationAck: "upa",
    RouterAdvertisement: "ra",
}
PERFORM: dict[type, Callable[[Driver, Any], None]] = {
    actions.Bind: Driver._bind,
    actions.BindAll: Driver._bind_all,
    actions.Unbind: Driver._unbind,
    actions.SetPolicy: Driver._set_policy,
    actions.SetWay: Driver._set_way,
    actions.Send: Driver._send,
    actions.SendOctets: Driver._send,
    actions.SendError: Driver._send_error,
    actions.SendOnLink: Driver._send_on_link,
    actions.SaveSession: Driver._save,
    actions.ForgetSession: Driver._forget,
    actions.SaveBinding: Driver._save_binding,
    actions.ForgetBinding: Driver._forget_binding,
    actions.FindSessions: Driver._find,
    actions.ExpectNode: Driver._expect,
    actions.GiveAddress: Driver._give_address,
    actions.Retire: Driver._retire,
    actions.Note: Driver._note,
}
