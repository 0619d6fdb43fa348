"""A small domain that can be stepped: mobility routers, hosts and a store on one clock and a wire that loses.

        mn1              wire: loses, duplicates, delays          store: slow, or away
         |              /            |            \\            .     |     .
    --- lan0 ---      mar1 -------- mar2 -------- mar3          all routers read and write it

Nothing here waits or reads a clock: `run_until` goes from one thing that is due to the next. Real octets cross the
wire and the links, so they are encoded, signed, decoded and verified. What a router was told to do is kept in order.
"""

import heapq
import random
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from ipaddress import IPv6Address, IPv6Network
from typing import Any, TypeVar

from router.sessions import may_wait
from signaling import actions
from signaling.actions import Action, LocalLink, Path, SplitLink, TowardAnchor, TowardVisited, TunnelEnd
from signaling.dma.session import Session, State
from signaling.events import (
    ClockStepped,
    DatagramReceived,
    Event,
    LinkAttached,
    LinkDetached,
    LinkLost,
    LinkUp,
    SessionsFound,
    SessionsRestored,
)
from signaling.flow_rules import FlowRule
from signaling.iana import (
    AccessTechnologyType,
    BindingUpdateFlag,
    HandoffIndicator,
    MobileNodeIdentifierSubtype,
)
from signaling.roles.mar import Mar
from signaling.settings import DEFAULT_SPI, TIMESTAMP_UNITS, Authentication, Peer, Settings
from signaling.update_request import care_of_address
from signaling.wire import ipv6, mobility_header, neighbor
from signaling.wire.authentication import sign
from signaling.wire.binding_update import BindingUpdate
from signaling.wire.message import Message
from signaling.wire.neighbor import EchoRequest, NeighborSolicitation, PrefixInformation, RouterAdvertisement
from signaling.wire.notification import UpdateNotificationAck
from signaling.wire.options.access import AccessTechnologyTypeOption, HandoffIndicatorOption
from signaling.wire.options.identity import MobileNodeIdentifier, MobileNodeLinkLayerIdentifier
from signaling.wire.options.option import Option
from signaling.wire.options.prefix import HomeNetworkPrefix
from signaling.wire.options.time import Timestamp
from signaling.wire.revocation import BindingRevocationAck

WALL = 1_704_164_645.0  # s since 1970 when the world begins: 2024-01-02 03:04:05 UTC
KEY = bytes(range(16))
STRANGER = IPv6Address("2001:db8:bad::1")  # no router of the domain
INTERFACE = "lan0"
ROUTER_LINK_LAYER = bytes.fromhex("00005e005213")
ALL_NODES_LINK_LAYER = bytes.fromhex("333300000001")
TWO_HOURS = 7200.0  # s, RFC 4862 5.5.3 e
STEPS_AT_ONCE = 10_000  # more than this without time passing: something goes round in circles

Kind = TypeVar("Kind")


@dataclass(slots=True)
class HostAddress:
    """An address that a host formed from an advertised prefix. Both times: s of the world."""

    preferred_until: float
    valid_until: float


class Host:
    """An interface of a mobile node, with an ordinary IPv6 stack (RFC 4862 5.5.3, RFC 6724 5).

    A node with one interface is called as it is; mn1/2 is the second interface of mn1.
    """

    def __init__(self, name: str, number: int) -> None:
        self.name = name
        self.node = name.partition("/")[0]
        self.link_layer = bytes((2, 0, 0, 0, 0, number))
        self.link_local = IPv6Address(f"fe80::ff:fe00:{number:x}")
        self.at: str | None = None  # name of the router whose link it is on
        self.interface = INTERFACE  # of that router
        self.silent = False  # there, but it answers nothing
        self.addresses: dict[IPv6Network, HostAddress] = {}
        self.on_link: set[IPv6Network] = set()
        self.advertisements: list[tuple[float, RouterAdvertisement]] = []
        self.asked: list[tuple[float, Message]] = []  # probes that reached it

    def take(self, advertisement: RouterAdvertisement, now: float) -> None:
        """Process a Router Advertisement."""
        self.advertisements.append((now, advertisement))
        for option in advertisement.options_of(PrefixInformation):
            if option.on_link:
                self.on_link.add(option.prefix) if option.valid_lifetime else self.on_link.discard(option.prefix)
            if option.autonomous and option.preferred_lifetime <= option.valid_lifetime:
                self._configure(option, now)

    def _configure(self, option: PrefixInformation, now: float) -> None:
        address = self.addresses.get(option.prefix)
        if address is None or address.valid_until <= now:
            if option.valid_lifetime:
                self.addresses[option.prefix] = HostAddress(
                    now + option.preferred_lifetime, now + option.valid_lifetime
                )
            return
        remaining = address.valid_until - now
        address.preferred_until = now + option.preferred_lifetime
        if option.valid_lifetime > TWO_HOURS or option.valid_lifetime > remaining:
            address.valid_until = now + option.valid_lifetime
        elif remaining > TWO_HOURS:
            address.valid_until = now + TWO_HOURS

    def preferred(self, now: float) -> list[IPv6Network]:
        """The prefixes of which new connections may choose (RFC 6724 rule 3)."""
        return [
            prefix for prefix, it in self.addresses.items() if it.preferred_until > now and it.valid_until > now
        ]

    def deprecated(self, now: float) -> list[IPv6Network]:
        """The prefixes that only connections which run already use."""
        return [
            prefix for prefix, it in self.addresses.items() if it.preferred_until <= now < it.valid_until
        ]


@dataclass(slots=True)
class Router:
    """One router: its role, and all that its role has asked for."""

    name: str
    settings: Settings
    mar: Mar
    link_layer: bytes
    skew: float = 0.0  # s its wall clock is ahead
    life: int = 0  # how often it was restarted
    done: list[tuple[float, Action]] = field(default_factory=list)  # in order, with the time
    turns: list[list[Action]] = field(default_factory=list)
    paths: dict[IPv6Network, Path] = field(default_factory=dict)
    policies: dict[str, tuple[FlowRule, ...]] = field(default_factory=dict)
    nodes: dict[IPv6Network, str] = field(default_factory=dict)  # whose each of them is
    woken: int = 0

    @property
    def address(self) -> IPv6Address:
        """Its signalling and tunnel address."""
        return self.settings.address

    def did(self, kind: type[Kind]) -> list[Kind]:
        """All actions of a kind, in order."""
        return [action for _, action in self.done if isinstance(action, kind)]

    def notes(self, event: str) -> list[actions.Note]:
        """All notes of an event."""
        return [note for note in self.did(actions.Note) if note.event == event]

    def sent(self, kind: type[Kind]) -> list[Kind]:
        """All messages of a kind that it sent to its peers."""
        return [action.message for action in self.did(actions.Send) if isinstance(action.message, kind)]

    def sent_at(self, kind: type[Kind]) -> list[float]:
        """When it sent them."""
        return [
            at
            for at, action in self.done
            if isinstance(action, actions.Send) and isinstance(action.message, kind)
        ]


class Store:
    """The sessions of the domain. Writes wait while it is away, as a driver makes them wait."""

    def __init__(self) -> None:
        self.sessions: dict[str, dict[IPv6Network, Session]] = {}
        self.away = False
        self.has_journal = True  # without one, a driver puts nothing off
        self.answers_after = 0.001  # s
        self._unwritten: list[Action] = []
        self._told: dict[tuple[str, IPv6Network], Session] = {}  # also while it is away
        self._later: dict[tuple[str, IPv6Network], Session] = {}  # in the journal of its anchor

    def put_off(self, action: actions.SaveSession | actions.ForgetSession, now: float) -> float:
        """How long a driver waits before it writes that, s. now: wall clock s."""
        key = _key(action)
        self._later.pop(key, None)
        if isinstance(action, actions.ForgetSession):
            self._told.pop(key, None)
            return 0.0
        wait = may_wait(self._told.get(key), action.session, now) if self.has_journal else 0.0
        (self._later if wait else self._told)[key] = action.session
        return wait

    def waits_for(self, action: actions.SaveSession | actions.ForgetSession) -> bool:
        """Whether nothing came in the place of what was put off."""
        if not isinstance(action, actions.SaveSession) or self._later.get(_key(action)) is not action.session:
            return False
        self._told[_key(action)] = self._later.pop(_key(action))
        return True

    def write(self, action: actions.SaveSession | actions.ForgetSession) -> str | None:
        """Do it. Returns the node whose record changed."""
        if self.away:
            self._unwritten.append(action)
            return None
        if isinstance(action, actions.SaveSession):
            session = action.session
            self.sessions.setdefault(session.node, {})[session.prefix] = session
            return session.node
        self.sessions.get(action.node, {}).pop(action.prefix, None)
        return action.node

    def come_back(self) -> list[str]:
        """Be there again. Returns the nodes whose records changed meanwhile."""
        self.away = False
        unwritten, self._unwritten = self._unwritten, []
        return [node for action in unwritten if (node := self.write(action))]  # type: ignore[arg-type]

    def of(self, node: str) -> tuple[Session, ...]:
        """All sessions of a node."""
        return tuple(self.sessions.get(node, {}).values())

    def anchored(self, anchor: IPv6Address) -> tuple[Session, ...]:
        """All sessions of an anchor, as it finds them when it starts again."""
        found = {(node, session.prefix): session for node in self.sessions for session in self.of(node)}
        return tuple(session for session in (found | self._later).values() if session.anchor == anchor)

    def session(self, prefix: IPv6Network) -> Session | None:
        """The session of a prefix."""
        return next((of[prefix] for of in self.sessions.values() if prefix in of), None)


def _key(action: actions.SaveSession | actions.ForgetSession) -> tuple[str, IPv6Network]:
    if isinstance(action, actions.SaveSession):
        return action.session.node, action.session.prefix
    return action.node, action.prefix


@dataclass(slots=True, kw_only=True)
class Fate:
    """What happens to a message on the wire, and to how many."""

    times: int
    kind: type
    source: str | None
    copies: tuple[float, ...]  # s, the delay of each copy that arrives; (): lost


@dataclass(frozen=True, slots=True, kw_only=True)
class Transmission:
    """A message that was put on the wire. arrivals: s, none if it was lost."""

    at: float
    source: str
    destination: str
    message: Message
    octets: bytes
    arrivals: tuple[float, ...]


class World:
    """mar1, mar2, ... and whoever attaches to them. Time begins at 0."""

    def __init__(
        self,
        *,
        mars: int = 3,
        delay: float = 0.01,
        seed: int = 0,
        authentication: Authentication = Authentication.REQUIRED,
        **settings: Any,
    ) -> None:
        """delay: s from router to router. settings: of every router."""
        self.now = 0.0
        self.delay = delay
        self.random = random.Random(seed)
        self.loss = self.duplication = self.jitter = 0.0  # probabilities, and s
        self.store = Store()
        self.hosts: dict[str, Host] = {}
        self.wire: list[Transmission] = []
        self.dead: set[str] = set()  # routers
        self.used: dict[IPv6Network, float] = {}  # when a packet of a prefix passed last; of others none ever did
        self.open_until: dict[IPv6Network, float] = {}  # when open connections of a prefix are honoured no more
        self.opened: dict[IPv6Network, float] = {}  # when a packet of these passed last, at the router where it is
        self._fates: deque[Fate] = deque()
        self._todo: list[tuple[float, int, Callable[[], None]]] = []
        self._order = 0
        names = [f"mar{number}" for number in range(1, mars + 1)]
        self.address = {name: IPv6Address(f"2001:db8:a{name[3:]}::1") for name in names}
        self.name = {address: name for name, address in self.address.items()}
        self.routers: dict[str, Router] = {}
        for number, name in enumerate(names, 1):
            of_router: dict[str, Any] = {
                "address": self.address[name],
                "tunnel_mtu": 1460,
                "pools": (IPv6Network(f"2001:db8:{number}00::/48"),),
                "peers": self._peers_of(name, authentication),
                "authentication": authentication,
                "idle_after": 0.0,
            }
            self._start(name, Settings(**(of_router | settings)))

    def _peers_of(self, name: str, authentication: Authentication) -> tuple[Peer, ...]:
        key = KEY if authentication is Authentication.REQUIRED else b""
        return tuple(Peer(name=other, address=self.address[other], key=key) for other in self.address if other != name)

    def _start(self, name: str, settings: Settings) -> None:
        router = Router(name, settings, self.made(settings), ROUTER_LINK_LAYER)
        self.routers[name] = router
        self.feed(name, ClockStepped(wall_minus_monotonic=WALL))
        self.feed(name, LinkUp(interface=INTERFACE, link_layer=router.link_layer, mtu=1500))

    def made(self, settings: Settings) -> Mar:
        """A router that knows nothing yet."""
        return Mar(settings, silence=self._silence, honoured=self._honoured)

    def _silence(self, prefix: IPv6Network) -> float | None:
        return self.now - self.used[prefix] if prefix in self.used else None

    def _honoured(self, prefix: IPv6Network, within: float) -> float:
        if self.now - self.opened.get(prefix, self.now) > within:
            return 0.0
        return max(0.0, self.open_until.get(prefix, 0.0) - self.now)

    def __getitem__(self, name: str) -> Router:
        return self.routers[name]

    # --- hosts ---

    def host(self, name: str) -> Host:
        """The host of this name; it exists from the first time it is named."""
        if name not in self.hosts:
            self.hosts[name] = Host(name, len(self.hosts) + 1)
        return self.hosts[name]

    def attach(self, name: str, mar: str, *, interface: str = INTERFACE, trigger: str = "rs") -> None:
        """A host comes to a link and solicits."""
        host = self.host(name)
        host.at, host.interface = mar, interface
        self.show(name, trigger)

    def show(self, name: str, trigger: str = "rs") -> None:
        """A host sends something, where it is."""
        host = self.host(name)
        assert host.at is not None
        event = LinkAttached(
            node=host.node,
            interface=host.interface,
            link_layer=host.link_layer,
            link_local=host.link_local,
            trigger=trigger,
        )
        self.feed(host.at, event)

    def detach(self, name: str, *, noticed: bool = True) -> None:
        """A host leaves its link; its router is told, or has to find out."""
        host = self.host(name)
        was_at, host.at = host.at, None
        if noticed and was_at is not None:
            self.feed(was_at, LinkDetached(node=host.node, reason="left", link_layer=host.link_layer))

    def move(self, name: str, mar: str, *, noticed: bool = True) -> None:
        """A host leaves one link and comes to another."""
        self.detach(name, noticed=noticed)
        self.attach(name, mar)

    # --- routers ---

    def carrier(self, name: str, interface: str) -> None:
        """A further access link of a router comes up."""
        self.feed(name, LinkUp(interface=interface, link_layer=self[name].link_layer, mtu=1500))

    def feed(self, name: str, event: Event) -> list[Action]:
        """Something happens to a router. Returns what it does about it."""
        router = self[name]
        return [] if name in self.dead else self._perform(router, router.mar.handle(event, self.now))

    def perform(self, name: str, todo: list[Action]) -> list[Action]:
        """A part of a router was asked directly: do what it wants done."""
        return self._perform(self[name], todo)

    def skew(self, name: str, seconds: float) -> None:
        """The wall clock of a router is ahead by so much."""
        self[name].skew = seconds
        self.feed(name, ClockStepped(wall_minus_monotonic=WALL + seconds))

    def carrier_lost(self, name: str) -> None:
        """The access link of a router goes down, with everybody on it."""
        for host in self.hosts.values():
            if host.at == name:
                host.at = None
        self.feed(name, LinkLost(interface=INTERFACE))

    def drain(self, name: str) -> list[Action]:
        """A router is told to go."""
        return self._perform(self[name], self[name].mar.drain(self.now))

    def order(self, name: str, todo: list[Action]) -> list[Action]:
        """An operator has a router do this."""
        return self._perform(self[name], todo)

    def restart(self, name: str) -> None:
        """A router dies without a word and starts again, knowing only what the store has of its prefixes."""
        router = self[name]
        self.dead.discard(name)
        router.life += 1
        router.settings = replace(router.settings, restart_counter=router.life)
        router.mar, router.paths = self.made(router.settings), {}
        self.feed(name, ClockStepped(wall_minus_monotonic=WALL + router.skew))
        self._remember(router)

    def _remember(self, router: Router) -> None:
        """What it finds when it starts again."""
        name = router.name
        self.feed(name, SessionsRestored(sessions=self.store.anchored(router.address)))
        self.feed(name, LinkUp(interface=INTERFACE, link_layer=router.link_layer, mtu=1500))

    def kill(self, name: str) -> None:
        """A router dies without a word, and stays dead until it is restarted."""
        self.dead.add(name)
        router = self[name]
        router.mar, router.paths, router.life = self.made(router.settings), {}, router.life + 1

    def store_goes(self) -> None:
        """The store cannot be reached."""
        self.store.away = True

    def store_returns(self) -> None:
        """The store can be reached again, and gets what could not be written."""
        for node in self.store.come_back():
            self._changed(node)

    # --- the wire ---

    def lose(self, times: int = 1, kind: type = Message, *, source: str | None = None) -> None:
        """The next messages (of this kind, from this router) do not arrive."""
        self._fates.append(Fate(times=times, kind=kind, source=source, copies=()))

    def duplicate(self, times: int = 1, kind: type = Message, *, after: float = 0.0) -> None:
        """The next messages arrive twice, the second copy that much (s) later."""
        self._fates.append(Fate(times=times, kind=kind, source=None, copies=(self.delay, self.delay + after)))

    def hold_up(self, delay: float, times: int = 1, kind: type = Message, *, source: str | None = None) -> None:
        """The next messages arrive, but so late (s)."""
        self._fates.append(Fate(times=times, kind=kind, source=source, copies=(delay,)))

    def mend(self) -> None:
        """From now on every message arrives once, in order."""
        self._fates.clear()
        self.loss = self.duplication = self.jitter = 0.0

    def deliver(self, octets: bytes, source: IPv6Address, destination: str, *, port: int = 0) -> list[Action]:
        """Octets reach a router, wherever they come from. Returns what it does about them."""
        event = DatagramReceived(octets=octets, source=source, destination=self.address[destination], port=port)
        return self.feed(destination, event)

    def say(
        self, message: Message, source: str, destination: str, *, key: bytes = KEY, spi: int = DEFAULT_SPI
    ) -> list[Action]:
        """A router seems to say something to another; signed with the key, if there is one. What the other does."""
        here, there = self.address.get(source, STRANGER), self.address[destination]
        if not key:
            return self.deliver(mobility_header.encode(message, here, there), here, destination)
        care_of = here if isinstance(message, BindingRevocationAck | UpdateNotificationAck) else there
        if isinstance(message, BindingUpdate):
            care_of = care_of_address(message, here)
        octets = sign(message, key, spi, care_of=care_of, source=here, destination=there)
        return self.deliver(octets, here, destination)

    def stamp(self, ago: float = 0.0) -> int:
        """The wall clock as a timestamp, so many seconds ago."""
        return int((WALL + self.now - ago) * TIMESTAMP_UNITS)

    def update(self, name: str, *prefixes: IPv6Network, **changes: Any) -> BindingUpdate:
        """A good Proxy Binding Update for a host that has moved, but for the changes: an option, several, or None."""
        host = self.host(name)
        fixed = {key: changes.pop(key) for key in ("sequence_number", "lifetime", "flags") if key in changes}
        options: dict[str, Any] = {
            "identifier": MobileNodeIdentifier(
                subtype=MobileNodeIdentifierSubtype.NAI, identifier=name.encode()
            ),
            "prefix": tuple(HomeNetworkPrefix(prefix=prefix) for prefix in prefixes),
            "handoff": HandoffIndicatorOption(
                indicator=HandoffIndicator.HANDOFF_BETWEEN_MAGS_FOR_THE_SAME_INTERFACE
            ),
            "technology": AccessTechnologyTypeOption(technology=AccessTechnologyType.IEEE_802_3),
            "link_layer": MobileNodeLinkLayerIdentifier(identifier=host.link_layer),
            "timestamp": Timestamp(value=self.stamp()),
        } | changes
        flat: list[Option] = []
        for value in options.values():
            flat += value if isinstance(value, tuple) else [value] if value is not None else []
        flags = BindingUpdateFlag.ACKNOWLEDGE | BindingUpdateFlag.PROXY_REGISTRATION
        values: dict[str, Any] = {"sequence_number": 77, "lifetime": 300, "flags": flags} | fixed
        return BindingUpdate(options=tuple(flat), **values)

    def sent(self, kind: type, *, source: str | None = None) -> list[Transmission]:
        """What was put on the wire, of a kind, by a router."""
        return [it for it in self.wire if isinstance(it.message, kind) and source in (None, it.source)]

    def _copies(self, source: str, message: Message) -> tuple[float, ...]:
        for fate in self._fates:
            if isinstance(message, fate.kind) and fate.source in (None, source) and fate.times > 0:
                fate.times -= 1
                return fate.copies
        if self.random.random() < self.loss:
            return ()
        count = 2 if self.random.random() < self.duplication else 1
        return tuple(self.delay + self.random.random() * self.jitter for _ in range(count))

    # --- time ---

    def run_until(self, end: float) -> None:
        """Let everything happen that is due until then (s since the world began)."""
        steps = 0
        while (at := self._next()) is not None and at <= end:
            steps = steps + 1 if at <= self.now else 0
            assert steps < STEPS_AT_ONCE, f"time stands still at {self.now}"
            self.now = max(self.now, at)
            self._step()
        self.now = max(self.now, end)

    def run(self, seconds: float) -> None:
        """Let everything happen that is due within this time."""
        self.run_until(self.now + seconds)

    def _next(self) -> float | None:
        times = [router.mar.next_wake for router in self.routers.values()]
        if self._todo:
            times.append(self._todo[0][0])
        return min((at for at in times if at is not None), default=None)

    def _step(self) -> None:
        if self._todo and self._todo[0][0] <= self.now:
            heapq.heappop(self._todo)[2]()
            return
        for router in self.routers.values():
            due = router.mar.next_wake
            if due is not None and due <= self.now:
                router.woken += 1
                self._perform(router, router.mar.wake(self.now))
                return

    def later(self, at: float, what: Callable[[], None]) -> None:
        """Do something at this time (s since the world began)."""
        self._order += 1
        heapq.heappush(self._todo, (at, self._order, what))

    # --- what routers ask for ---

    def _perform(self, router: Router, todo: list[Action]) -> list[Action]:
        router.turns.append(todo)
        for action in todo:
            router.done.append((self.now, action))
        for action in todo:
            PERFORM[type(action)](self, router, action)
        return todo

    def _bind(self, router: Router, action: actions.Bind) -> None:
        router.paths[action.prefix] = action.path
        router.nodes[action.prefix] = action.node

    def _set_policy(self, router: Router, action: actions.SetPolicy) -> None:
        if action.rules:
            router.policies[action.name] = action.rules
        else:
            router.policies.pop(action.name, None)

    def _unbind(self, router: Router, action: actions.Unbind) -> None:
        router.paths.pop(action.prefix, None)

    def _send(self, router: Router, action: actions.Send) -> None:
        destination = self.name.get(action.destination)
        if destination is None:
            return
        copies = self._copies(router.name, action.message)
        arrivals = tuple(self.now + delay for delay in copies)
        self.wire.append(
            Transmission(
                at=self.now,
                source=router.name,
                destination=destination,
                message=action.message,
                octets=action.octets,
                arrivals=arrivals,
            )
        )
        for at in arrivals:
            self.later(at, lambda: self._arrive(action.octets, router.address, destination))

    def _arrive(self, octets: bytes, source: IPv6Address, destination: str) -> None:
        self.deliver(octets, source, destination)

    def _send_on_link(self, router: Router, action: actions.SendOnLink) -> None:
        for host in self.hosts.values():
            there = (host.at, host.interface) == (router.name, action.interface)
            if there and action.link_layer in (host.link_layer, ALL_NODES_LINK_LAYER):
                self._reach(host, action.octets)

    def _reach(self, host: Host, octets: bytes) -> None:
        packet = ipv6.decode(octets)
        message = neighbor.decode(packet.payload, packet.source, packet.destination, packet.hop_limit)
        if isinstance(message, RouterAdvertisement):
            host.take(message, self.now)
            return
        host.asked.append((self.now, message))
        answer = ANSWERS.get(type(message))
        if answer is not None and not host.silent:
            was_at = host.at
            self.later(self.now + 0.001, lambda: self.show(host.name, answer) if host.at == was_at else None)

    def _write(self, router: Router, action: actions.SaveSession | actions.ForgetSession) -> None:
        store = self._store_of(router)
        wait = store.put_off(action, self.now + WALL)
        if wait:
            self.later(self.now + wait, lambda: self._write_now(store, action) if store.waits_for(action) else None)
        else:
            self._write_now(store, action)

    def _write_now(self, store: Store, action: actions.SaveSession | actions.ForgetSession) -> None:
        node = store.write(action)
        if node is not None:
            self._changed(node)

    def _store_of(self, router: Router) -> Store:
        return self.store

    def _changed(self, node: str) -> None:
        # drivers watch the store, and look up again who is attached to them
        for router in self.routers.values():
            if node in router.mar.here:
                self._look_up(router, node)

    def _look_up(self, router: Router, node: str) -> None:
        life = router.life

        def answer() -> None:
            if router.life == life:
                found = None if self.store.away else self.store.of(node)
                self.feed(router.name, SessionsFound(node=node, sessions=found))

        self.later(self.now + self.store.answers_after, answer)

    def _find(self, router: Router, action: actions.FindSessions) -> None:
        self._look_up(router, action.node)

    def _nothing(self, router: Router, action: Action) -> None:
        pass

    # --- what tests ask ---

    def prefix(self, name: str, mar: str) -> IPv6Network:
        """The prefix that a router has lent to a host."""
        host = self.host(name)
        (entry,) = (it for it in self[mar].mar.anchor.cache.of(host.node) if it.lent_to == host.link_layer)
        return entry.prefix

    def state(self, prefix: IPv6Network) -> State:
        """The state of a prefix at its anchor."""
        for router in self.routers.values():
            entry = router.mar.anchor.cache.get(prefix)
            if entry is not None:
                return entry.state
        return State.FREE

    def path(self, mar: str, prefix: IPv6Network) -> Path | None:
        """How a router delivers a prefix now."""
        return self[mar].paths.get(prefix)

    def preferred(self, name: str) -> list[IPv6Network]:
        """The prefixes of which new connections of a host may choose."""
        return self.hosts[name].preferred(self.now)

    def deprecated(self, name: str) -> list[IPv6Network]:
        """The prefixes of a host that only running connections use."""
        return self.hosts[name].deprecated(self.now)

    def delivered_at(self, prefix: IPv6Network) -> list[str]:
        """The routers that would put packets of this prefix on their link, but for flows that others take."""
        return [
            router.name
            for router in self.routers.values()
            if isinstance(router.paths.get(prefix), LocalLink | SplitLink | TowardAnchor)
            and router.address not in self.sharers(prefix)
        ]

    def sharers(self, prefix: IPv6Network) -> list[IPv6Address]:
        """Those that take flows of a prefix, as its anchor believes."""
        for router in self.routers.values():
            match router.paths.get(prefix):
                case SplitLink(tunnels=tunnels) | TowardVisited(tunnels=(_, *tunnels)):
                    return [IPv6Address(end.remote) for end in tunnels]
        return []

    def faults(self) -> Iterator[str]:
        """What is wrong with the paths, as far as it can be seen from outside; nothing, once the world has settled."""
        for prefix in {prefix for router in self.routers.values() for prefix in router.paths}:
            yield from self._faults_of(prefix)

    def _faults_of(self, prefix: IPv6Network) -> Iterator[str]:
        where = self.delivered_at(prefix)
        if len(where) > 1:
            yield f"{prefix} is delivered at {', '.join(where)}"
        for router in self.routers.values():
            match router.paths.get(prefix):
                case TowardVisited(tunnels=(TunnelEnd(remote=care_of), *_)):
                    back = self[self.name[care_of]].paths.get(prefix)
                    if not isinstance(back, TowardAnchor) or back.tunnels != (TunnelEnd(remote=router.address),):
                        yield f"{prefix}: {router.name} sends it to {self.name[care_of]}, where it is {back}"
                case TowardAnchor(tunnels=(TunnelEnd(remote=anchor), *_)):
                    there = self[self.name[anchor]].paths.get(prefix)
                    ends = there.tunnels if isinstance(there, TowardVisited | SplitLink) else ()
                    if router.address not in [end.remote for end in ends]:
                        yield f"{prefix}: {router.name} takes it from {self.name[anchor]}, where it is {there}"

    def astray(self) -> Iterator[str]:
        """Hosts on a link that do not get what is theirs there, once the world has settled."""
        for host in self.hosts.values():
            if host.at is None:
                continue
            own = set(self[host.at].mar.anchor.local(host.node))
            sessions = self.store.of(host.node)
            lent = {session.prefix for session in sessions if session.state is not State.RELEASED}
            if not own:
                yield f"{host.name} has no prefix of {host.at}"
            for prefix in lent:
                if self.delivered_at(prefix) != [host.at]:
                    yield f"{prefix} of {host.name} at {host.at} is delivered at {self.delivered_at(prefix)}"
            for prefix in set(self.preferred(host.name)) ^ own:
                yield f"{host.name} at {host.at}: {prefix} should {'' if prefix in own else 'not '}be preferred"


ANSWERS: dict[type[Message], str] = {NeighborSolicitation: "na", EchoRequest: "echo"}
PERFORM: dict[type, Callable[[World, Router, Any], None]] = {
    actions.Bind: World._bind,
    actions.Unbind: World._unbind,
    actions.SetPolicy: World._set_policy,
    actions.Send: World._send,
    actions.SendError: World._nothing,
    actions.SendOnLink: World._send_on_link,
    actions.SaveSession: World._write,
    actions.ForgetSession: World._write,
    actions.FindSessions: World._find,
    actions.ExpectNode: World._nothing,
    actions.Retire: World._nothing,
    actions.Note: World._nothing,
}

