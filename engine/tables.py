"""Tables: what the path knows, editable while it runs. The path reads them from C or from Python.

    prefix 2001:db8:a1:100::/64 --> side ANCHOR, tunnel (local, remote, encapsulation)
    prefix 2001:db8:a1:101::/64 --> held: anchored here, the node is nowhere yet
    prefix 2001:db8:a2:200::/64 --> side ACCESS, bundle (tunnel with BID 1, tunnel with BID 2), policy (flow rules)
    prefix 10.1.2.0/24          --> inner IPv4 works the same
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network, IPv6Network
from math import ceil
from operator import itemgetter
from types import NoneType
from typing import TYPE_CHECKING, NoReturn, TypeAlias, TypeVar, overload
from weakref import WeakValueDictionary

from engine import fast
from engine.errors import BadBundle, BadTunnel, Misused, NotCompiled, UnknownPrefix, UnknownTunnel, expect
from engine.model import tables as model
from engine.rules import FlowRule
from engine.stats import TunnelStats
from engine.tunnels import MAPPED, STATES, Tunnel, TunnelState

if TYPE_CHECKING:
    from engine._fast.queues import Queues as FastQueues

Prefix: TypeAlias = IPv6Network | IPv4Network
Thing = TypeVar("Thing")

MOST_PATHS = 16  # of a bundle, as in _fast/bundles.pxd
MOST_RULES = 4096  # of a policy, as in _fast/rules.pxd
FLOW_PAUSE = 0.2  # s: see Tables
PATIENCE = 0.05  # s: see Tables
TENTH = 100_000_000  # ns
MOST_PAUSE = 3600  # s
MOST_EARLY = 65536  # packets of a reorder group, as in _fast/reorder.pxd
MOST_SILENCE = 1e7  # s: see open_idle_after
MOST_MTU = 65575  # octets: an IPv6 header, and what its 16 bits of length can say
IPV6, IPV4 = 6 << 8, 4 << 8  # kind of a prefix: one of these | its length, as in _fast/prefixes.pxd


class Side(enum.Enum):
    """Which end of the tunnel we are for a prefix."""

    # anchored here, the node is away: packets to the prefix go into the tunnel, packets from it may come out
    ANCHOR = "anchor"
    # the node is here, anchored at the other end: packets from the prefix go in, packets to it may come out
    ACCESS = "access"


NUMBERS = {Side.ANCHOR: model.ANCHOR, Side.ACCESS: model.ACCESS}
HOME, HERE = 8, 16  # as in _fast/prefixes.pxd; the model has none of them
SIDES = {model.ANCHOR: Side.ANCHOR, model.ACCESS: Side.ACCESS, model.HELD: None, HOME: None, HERE: None}
STATE_OF = {number: state for state, number in STATES.items()}


@dataclass(frozen=True, slots=True)
class Path:
    """A tunnel as one of several ways to a node or site. Raises BadBundle."""

    tunnel: Tunnel
    bid: int = 1  # binding identifier, 1 to 254 (RFC 8278 4.1); it differs from the others in the bundle
    label: int = 0  # 0 to 255; flow rules prefer labels; several paths may have the same
    weight: int = 1  # 1 to 65535; shares of the traffic are as the weights

    def __post_init__(self) -> None:
        expect("no such path", self.tunnel, Tunnel)
        for name, value, low, high in (
            ("BID", self.bid, 1, 254),
            ("label", self.label, 0, 255),
            ("weight", self.weight, 1, 65535),
        ):
            if not isinstance(value, int) or not low <= value <= high:
                raise BadBundle("no such path", where=str(self.tunnel), why=f"{name} {value} is not {low} to {high}")


class Unique:
    """What stands for an entry of the tables, and gives it back once: there is no second one."""

    __slots__ = ()

    def __reduce__(self) -> NoReturn:
        """Of copy and pickle. Raises Misused."""
        raise Misused("cannot copy", where=repr(self), why="it would be given back twice", cure="share the object")


class Bundle(Unique):
    """Paths that prefixes can be bound to together: made by Tables.bundle, changed by Tables.change.

    It goes when neither this object nor a prefix needs it any more.
    """

    __slots__ = ("__weakref__", "number", "storage")

    def __init__(self, storage: model.AnyTables, number: int) -> None:
        self.storage, self.number = storage, number

    def __del__(self) -> None:
        self.storage.release_bundle(self.number)

    @property
    def paths(self) -> tuple[Path, ...]:
        """Its paths now, in the order of BIDs."""
        return tuple(Path(*row) for row in self.storage.paths(self.number))

    def __repr__(self) -> str:
        return f"<Bundle {self.number}: {', '.join(f'BID {path.bid} {path.tunnel}' for path in self.paths)}>"


class Policy(Unique):
    """Flow rules that prefixes can be bound with: made by Tables.policy, changed by Tables.change.

    It goes when neither this object nor a prefix needs it any more.
    """

    __slots__ = ("__weakref__", "number", "storage")

    def __init__(self, storage: model.AnyTables, number: int) -> None:
        self.storage, self.number = storage, number

    def __del__(self) -> None:
        self.storage.release_policy(self.number)

    @property
    def rules(self) -> tuple[FlowRule, ...]:
        """Its rules now: the first that matches decides."""
        return tuple(rule for rule, _, _ in self.storage.rules(self.number))

    def __repr__(self) -> str:
        return f"<Policy {self.number}: {len(self.rules)} rules>"


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldBuffer:
    """What may wait for one prefix while its node is between routers, and how fast it goes on afterwards."""

    octets: int = 1 << 20
    packets: int = 4096
    seconds: float = 1.0  # a packet that waited longer is dropped
    pace: int = 12_500_000  # octets a second, 0: all at once; a burst of its own would overrun the new link


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldStats:
    """Packets of a hold buffer since it was last empty."""

    kept: int
    sent: int
    full: int  # found no room
    expired: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenConnections:
    """TCP connections of a prefix that are open, though they may be silent."""

    number: int  # those followed one by one; others, for which there was no place, are not counted
    silence: float | None  # s since the last packet of any of them, to 0.1; None: none is open


class ReorderGroup(Unique):
    """Tunnels whose packets carry one sequence of numbers (RFC 2890 2.2). Made by Tables.reorder; ends with close()."""

    __slots__ = ("_closed", "_queues", "number", "tunnels")

    def __init__(self, queues: FastQueues, number: int, tunnels: tuple[Tunnel, ...]) -> None:
        self._queues, self.number, self.tunnels = queues, number, tunnels
        self._closed = False

    def stats(self) -> ReorderStats:
        """Its counters."""
        return ReorderStats(*self._queues.group_counts(self.number))

    def close(self) -> None:
        """Packets are delivered as they come again; what still waits is thrown away. Once is enough."""
        if self._closed:  # the number may be another group's by now
            return
        self._closed = True
        for tunnel in self.tunnels:
            self._queues.leave_group(tunnel.key, self.number)
        self._queues.close_group(self.number)


@dataclass(frozen=True, slots=True)
class ReorderStats:
    """Packets, but for given_up (numbers) and resynchronised (times)."""

    in_order: int
    early: int  # kept until their turn came
    late: int  # their place had been given up: delivered all the same
    twins: int  # delivered before: dropped
    given_up: int
    resynchronised: int
    strays: int  # far from what is expected: delivered as they come
    full: int  # early, and no room to keep them: delivered as they come


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """A prefix and where its packets go: a tunnel or a bundle. Held, or brought home: neither, and no side."""

    prefix: Prefix
    tunnel: Tunnel | None
    side: Side | None
    bundle: Bundle | None = None
    policy: Policy | None = None

    @property
    def held(self) -> bool:
        """The node is between routers, or came back to this one."""
        return self.side is None


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleStats:
    """A flow rule and what it treated since it became part of its policy. Octets: inner packets."""

    policy: Policy
    rule: FlowRule
    packets: int
    octets: int


class Tables:
    """Prefixes and what they are bound to. Every edit is O(1), whole, and seen by the next burst.

    Edits come from one thread at a time (whoever has the GIL); engines read without waiting for them.
    compiled: True wants C tables (raises NotCompiled), False Python ones, None the best there is.
    flow_pause: s that a flow must be silent before other weights, paths that came back or other preferences move it. No
    less than one path may be behind another, or the move reorders the flow. The default is above what accesses on the
    ground differ by, and it is what TCP waits at least before it sends again (Linux); by satellite take 0.6.
    patience: s that a packet from the underlay may wait for its tunnel, or its prefix, to be bound: a peer sends it
    right behind the message that tells of them, which comes by another socket. At each bind it is looked at again. 0:
    it dies at once, as it always does in the model.
    transience: s, up to the next 0.1, that the way a prefix had lets in what is still on it, when the prefix has
    another way (a transient binding, RFC 6058). As long its tunnels are kept.
    Raises ValueError when one of them is past an hour.
    """

    def __init__(
        self,
        *,
        compiled: bool | None = None,
        flow_pause: float = FLOW_PAUSE,
        patience: float = PATIENCE,
        transience: float = 0.0,
    ) -> None:
        if compiled and not fast.available:
            raise NotCompiled("no compiled tables", cure="build them: python setup.py build_ext --inplace")
        use_fast = fast.Tables is not None and compiled is not False
        self.storage: model.AnyTables = fast.Tables() if fast.Tables and use_fast else model.Tables()
        # one object for one number, so that they can be compared
        self._bundles: WeakValueDictionary[int, Bundle] = WeakValueDictionary()
        self._policies: WeakValueDictionary[int, Policy] = WeakValueDictionary()
        self._queues: FastQueues | None = None  # made with the first buffer or group
        self._paces: dict[tuple[bytes, int], int] = {}
        self._open_idle_after = 0.0
        self.flow_pause = flow_pause
        self.patience = patience
        self.transience = transience

    @property
    def flow_pause(self) -> float:
        """Seconds of silence after which a flow may move; 0: at once. It may be set at any time."""
        return self._flow_pause

    @flow_pause.setter
    def flow_pause(self, seconds: float) -> None:
        self.storage.set_flow_pause(_nanoseconds("a pause", seconds))
        self._flow_pause = seconds

    @property
    def patience(self) -> float:
        """Seconds that a packet nobody is known for waits; 0: none does. It may be set at any time."""
        return self._patience

    @patience.setter
    def patience(self, seconds: float) -> None:
        self.storage.set_patience(_nanoseconds("patience", seconds))
        self._patience = seconds

    @property
    def transience(self) -> float:
        """Seconds that the former way of a prefix is let in by; 0: not at all. It may be set at any time."""
        return self._transience

    @transience.setter
    def transience(self, seconds: float) -> None:
        tenths = -(-_nanoseconds("transience", seconds) // TENTH)
        self.storage.set_transience(tenths)
        self._transience = tenths / 10

    def sweep(self) -> bool:
        """Let go of former ways whose time is over, and of tunnels with the last of them. Whether there are others."""
        return self.storage.sweep()

    @property
    def compiled(self) -> bool:
        """These are C tables: only they can feed the compiled path."""
        return not isinstance(self.storage, model.Tables)

    # --- prefixes ---

    def bind(self, prefix: Prefix, to: Tunnel | Bundle, *, side: Side, policy: Policy | None = None) -> None:
        """Add a prefix, or move it. A tunnel begins with its first prefix or bundle.

        Its newest outgoing key and sequencing hold for all its prefixes. policy: without one, every flow goes by one
        path of the bundle, chosen by weight. Raises BadBundle for what other tables made; MemoryError when the tables
        are full (16 million prefixes, 1 million tunnels): then nothing has changed.
        """
        network, kind = _octets(prefix)
        expect("cannot bind", side, Side)
        target = to if isinstance(to, Tunnel) else self._number(to, Tunnel, Bundle)
        rules = 0 if policy is None else self._number(policy, Policy)
        self.storage.bind(network, kind, NUMBERS[side], target, rules)
        pace = self._paces.pop((network, kind), None)
        if pace is not None and self._queues is not None:
            self._queues.release(network, kind, pace)

    def bind_all(self, prefixes: Iterable[Prefix], tunnel: Tunnel, *, side: Side) -> None:
        """The same for many prefixes that are not in the tables; after a MemoryError the first of them are."""
        expect("cannot bind", side, Side)
        bind, number = self.storage.bind, NUMBERS[side]
        for prefix in prefixes:
            network, kind = _octets(prefix)
            bind(network, kind, number, tunnel)

    def hold(self, prefix: Prefix, *, buffer: HoldBuffer | None = None) -> None:
        """The node of this prefix, anchored here, is between routers.

        What comes for it waits in a buffer until the next bind, and goes on then, in order, before what comes later;
        what is still on its way through the tunnel that the prefix had is let in: from the node before it left, and to
        it, given back by its router. Without a buffer what comes for it dies of NODE_AWAY, and so does what still
        waits. Raises NotCompiled: the model keeps no packets.
        """
        expect("cannot hold", buffer, HoldBuffer, NoneType)
        network, kind = _octets(prefix)
        if buffer is None:
            self.storage.hold(network, kind, True)
            self._forget_waiting(network, kind)
            return
        self._let_wait(network, kind, buffer, lambda: self.storage.hold(network, kind, True))

    def close(self, prefix: Prefix) -> None:
        """Nobody may use this prefix, which is anchored here: what comes for it dies of NODE_AWAY, none is let in."""
        network, kind = _octets(prefix)
        self.storage.hold(network, kind)
        self._forget_waiting(network, kind)

    def leave_to_kernel(self, prefix: Prefix, buffer: HoldBuffer | None = None) -> None:
        """The node of this prefix, anchored here, is on a link of this router: the kernel delivers.

        What the kernel brings to us all the same, as that link is lost, waits as if it were held, or dies without a
        buffer; what the routers that had the node before still give back is the kernel's. Raises NotCompiled: the model
        keeps no packets.
        """
        network, kind = _octets(prefix)
        if buffer is None:
            self.storage.leave(network, kind)
            self._forget_waiting(network, kind)
        else:
            self._let_wait(network, kind, buffer, lambda: self.storage.leave(network, kind))

    def _let_wait(self, network: bytes, kind: int, buffer: HoldBuffer, close_way: Callable[[], object]) -> None:
        bounds = buffer.packets, buffer.octets, round(buffer.seconds * 1e9)
        queues = self._made_queues()
        queues.hold(network, kind, *bounds)  # before the way is closed: what comes in between would be lost
        close_way()
        queues.hold(network, kind, *bounds)  # a prefix that was not there yet has got its entry just now
        self._paces[network, kind] = buffer.pace

    def watch(self, prefix: Prefix, buffer: HoldBuffer) -> None:
        """The kernel may lose the link to a node that visits, before anybody is told: what it brings back to us waits.

        After a bind to its anchor; with the next bind it goes there. Raises NotCompiled: the model keeps no packets.
        """
        network, kind = _octets(prefix)
        self._made_queues().hold(network, kind, buffer.packets, buffer.octets, round(buffer.seconds * 1e9))
        self._paces[network, kind] = buffer.pace

    def bring_home(self, prefix: Prefix) -> None:
        """The node of this prefix, anchored here, is on a link of this router again, where the kernel delivers.

        What waits for it, and what still comes out of the TUN for it, goes back into the TUN, in order, until the
        kernel delivers (leave_to_kernel) or it has another way.
        The kernel must send it on from there, and not into the TUN once more. Raises NotCompiled: the model keeps no
        packets.
        """
        network, kind = _octets(prefix)
        queues = self._made_queues()
        queues.bring_home(network, kind)
        pace = self._paces.pop((network, kind), None)
        if pace is not None:
            queues.release(network, kind, pace)

    def held(self, prefix: Prefix) -> HeldStats | None:
        """Counters of the hold buffer of a prefix; None: it has none, or it is empty again."""
        if self._queues is None:
            return None
        self._queues.sweep()
        counts = self._queues.held_counts(*_octets(prefix))
        return HeldStats(**dict(zip(HeldStats.__slots__, counts, strict=True))) if counts else None

    def take_out(self) -> list[bytes]:
        """Packets that wait in hold buffers, those of a prefix in order, each behind a virtio header (10 octets).

        As a TUN device takes them, for whoever serves these tables no more: nobody may while this is called.
        """
        return [] if self._queues is None else self._queues.take_out()

    def unbind(self, prefix: Prefix) -> None:
        """Forget a prefix; what it was bound to goes with its last one. Raises UnknownPrefix."""
        network, kind = _octets(prefix)
        self._forget_waiting(network, kind)
        if not self.storage.unbind(network, kind):
            raise UnknownPrefix("cannot unbind", where=str(prefix), why="not in the tables")

    def reorder(
        self, tunnels: Iterable[Tunnel], *, packets: int = 1024, octets: int = 8 << 20, seconds: float = 0.05
    ) -> ReorderGroup:
        """What comes out of these tunnels is delivered in the order of its sequence numbers, twins removed.

        What has no number is delivered at once. The sender has one numbering for each of its bundles: what it spreads
        by packet, or copies, over these tunnels must belong to one bundle; any number of prefixes may be bound to it.
        A packet that is early waits for those before it: so many packets (rounded up to a power of two, 65536 at most)
        and octets at most, so long each. Raises UnknownTunnel; NotCompiled: the model keeps no packets.
        """
        if not 1 <= packets <= MOST_EARLY:
            raise ValueError(f"{packets} early packets are not 1 to {MOST_EARLY}")
        queues = self._made_queues()
        members = tuple(tunnels)
        for tunnel in members:
            self.state(tunnel)  # raises UnknownTunnel
        number = queues.open_group(1 << (packets - 1).bit_length(), octets, round(seconds * 1e9))
        for tunnel in members:
            queues.join_group(tunnel.key, number)
        return ReorderGroup(queues, number, members)

    def _forget_waiting(self, network: bytes, kind: int) -> None:
        if self._queues is not None:
            self._queues.end(network, kind)
            self._paces.pop((network, kind), None)

    def _made_queues(self) -> FastQueues:
        if self._queues is None:
            if fast.Queues is None or fast.Tables is None or not isinstance(self.storage, fast.Tables):
                raise NotCompiled("no packet can wait", why="the model keeps none", cure="use compiled tables")
            self._queues = fast.Queues(self.storage)
        return self._queues

    def bindings(self) -> list[Binding]:
        """All prefixes: IPv4 first, then in the order of their addresses, shorter first."""
        return [self._binding(row) for row in sorted(self.storage.bindings(), key=itemgetter(0, 1))]

    def __len__(self) -> int:
        return len(self.storage)

    def activity(self, prefix: Prefix) -> float | None:
        """Seconds since the last packet of this prefix, either way; None: there was none. Raises UnknownPrefix."""
        try:
            return self.storage.activity(*_octets(prefix))
        except KeyError:
            raise UnknownPrefix("no activity", where=str(prefix), why="not in the tables") from None

    def idle(self, seconds: float) -> list[Prefix]:
        """Prefixes without a packet for that long, counted from the first bind, in the order of their addresses."""
        return [_prefix(*row) for row in sorted(self.storage.idle(seconds))]

    # --- TCP connections ---

    @property
    def open_idle_after(self) -> float:
        """Seconds without a packet after which a TCP connection is taken for dead; 0 (at first): none is followed.

        Followed are connections of prefixes bound with Side.ACCESS; model/connections.py says which of them are open.
        """
        return self._open_idle_after

    @open_idle_after.setter
    def open_idle_after(self, seconds: float) -> None:
        if not 0 <= seconds <= MOST_SILENCE:
            raise ValueError(f"{seconds} s are not 0 to {MOST_SILENCE:.0f}")
        self.storage.follow_connections(ceil(seconds * 10))
        self._open_idle_after = seconds

    def connections(self, prefix: Prefix) -> OpenConnections:
        """Those of a prefix that are open. Raises UnknownPrefix."""
        try:
            number, silence = self.storage.connections(*_octets(prefix))
        except KeyError:
            raise UnknownPrefix("no connections", where=str(prefix), why="not in the tables") from None
        return OpenConnections(number=number, silence=silence)

    def all_connections(self) -> dict[Prefix, OpenConnections]:
        """Of each prefix that has open ones."""
        return {
            _prefix(network, kind): OpenConnections(number=number, silence=silence)
            for network, kind, number, silence in self.storage.all_connections()
        }

    def believe_open(self, prefix: Prefix, silence: float) -> None:
        """Another process has seen open connections of this prefix, the last packet so many seconds ago.

        They are not followed one by one: until they would be taken for dead the prefix counts as having some. Raises
        UnknownPrefix.
        """
        if not self.storage.crowd(*_octets(prefix), round(silence * 10)):
            raise UnknownPrefix("no connections", where=str(prefix), why="not in the tables")

    @property
    def crowded(self) -> int:
        """Packets of open connections that are not followed, as there was no place for them."""
        return self.storage.crowded()

    # --- bundles and policies ---

    def bundle(self, paths: Iterable[Path]) -> Bundle:
        """1 to 16 paths, to bind prefixes to. Raises BadBundle."""
        number = self.storage.make_bundle(_rows(paths))
        self._bundles[number] = bundle = Bundle(self.storage, number)
        return bundle

    def policy(self, rules: Iterable[FlowRule]) -> Policy:
        """Flow rules, the first match decides, to bind any number of prefixes with. Raises BadBundle."""
        number = self.storage.make_policy(_checked_rules(rules))
        self._policies[number] = policy = Policy(self.storage, number)
        return policy

    @overload
    def change(self, what: Bundle, new: Iterable[Path]) -> None: ...
    @overload
    def change(self, what: Policy, new: Iterable[FlowRule]) -> None: ...
    def change(self, what: Bundle | Policy, new: Iterable[Path] | Iterable[FlowRule]) -> None:
        """Other paths, or other rules, for all that is bound so; the next burst goes by them. Raises BadBundle.

        Rules that stay go on counting. Flows that run stay on their paths until they pause (flow_pause), as long as
        those live and their rules permit them; they leave others at once.
        """
        number = self._number(what, Bundle, Policy)
        if isinstance(what, Bundle):
            self.storage.change_bundle(number, _rows(new))  # type: ignore[arg-type]
        else:
            self.storage.change_policy(number, _checked_rules(new))  # type: ignore[arg-type]

    def flow_rules(self) -> list[RuleStats]:
        """All rules of all policies with their counters, in the order of policies, then of rules."""
        return [
            RuleStats(policy=self._policy(number), rule=rule, packets=packets, octets=octets)
            for number in sorted(self.storage.policies())
            for rule, packets, octets in self.storage.rules(number)
        ]

    # --- tunnels ---

    def tunnels(self) -> list[TunnelStats]:
        """All tunnels with their counters, in the order of encapsulation, key, local and remote address."""
        self.sweep()
        rows = sorted(self.storage.tunnels(), key=lambda row: row[0].key)
        return [
            TunnelStats(
                tunnel=tunnel,
                state=STATE_OF[state],
                mtu=mtu or None,
                prefixes=prefixes,
                packets_in=packets_in,
                octets_in=octets_in,
                packets_out=packets_out,
                octets_out=octets_out,
            )
            for tunnel, state, mtu, prefixes, packets_in, octets_in, packets_out, octets_out in rows
        ]

    def take_up(self, stats: Iterable[TunnelStats]) -> None:
        """Tunnels were used by another process: their counters, states and MTUs. Those not in use here are left out."""
        for item in stats:
            key = item.tunnel.key
            if self.storage.known(key) is not None:
                self.storage.count_in(key, item.octets_in, item.packets_in)
                self.storage.count_out(key, item.octets_out, item.packets_out)
                self.storage.set_state(key, STATES[item.state])
                self.storage.set_mtu(key, item.mtu or 0)

    def state(self, tunnel: Tunnel) -> TunnelState:
        """What set_state said of it; UP until then. Raises UnknownTunnel."""
        try:
            return STATE_OF[self.storage.state_of(_key(tunnel))]
        except KeyError:
            raise _unknown(tunnel) from None

    def set_state(self, tunnel: Tunnel, state: TunnelState) -> None:
        """Whether packets may go into the tunnel; bundles go by it from the next burst on. Raises UnknownTunnel."""
        expect("no such state", state, TunnelState)
        try:
            self.storage.set_state(_key(tunnel), STATES[state])
        except KeyError:
            raise _unknown(tunnel) from None

    def mtu(self, tunnel: Tunnel) -> int | None:
        """Octets of the largest inner packet, as learned or set; None: nobody knows. Raises UnknownTunnel."""
        try:
            return self.storage.mtu_of(_key(tunnel)) or None
        except KeyError:
            raise _unknown(tunnel) from None

    def set_mtu(self, tunnel: Tunnel, mtu: int | None) -> None:
        """Octets of the largest inner packet, until something else is learned. Raises BadTunnel, UnknownTunnel."""
        expect("cannot set MTU", mtu, int, NoneType)
        if not 0 <= (mtu or 0) <= MOST_MTU:
            raise BadTunnel("cannot set MTU", where=str(tunnel), why=f"{mtu} is not 0 (not known) to {MOST_MTU}")
        try:
            self.storage.set_mtu(_key(tunnel), mtu or 0)
        except KeyError:
            raise _unknown(tunnel) from None

    def follow(self, tunnel: Tunnel, port: int) -> Tunnel:
        """The peer, behind a NAT, sends from another UDP port now: all that is bound to the tunnel moves with it.

        Returns the tunnel as it is from here on. Raises UnknownTunnel; BadTunnel: another one has that port.
        """
        key, moved = _key(tunnel), replace(tunnel, port=port)
        try:
            done = self.storage.follow(key, port, moved)
        except KeyError:
            raise _unknown(tunnel) from None
        if not done:
            raise BadTunnel("cannot follow", where=str(tunnel), why=f"port {port} is that of another tunnel")
        return moved

    # --- inside ---

    def _number(self, handle: Bundle | Policy, *kinds: type) -> int:
        expect("not to be bound or changed", handle, *kinds)
        if handle.storage is not self.storage:
            raise BadBundle("not of these tables", where=repr(handle))
        return handle.number

    def _binding(self, row: model.BindingRow) -> Binding:
        network, kind, side, to, policy = row
        return Binding(
            prefix=_prefix(network, kind),
            tunnel=None if isinstance(to, int) else to,
            side=SIDES[side],
            bundle=self._bundle(to) if isinstance(to, int) else None,
            policy=self._policy(policy) if policy else None,
        )

    def _bundle(self, number: int) -> Bundle:
        bundle = self._bundles.get(number)
        if bundle is None:
            self.storage.keep_bundle(number)
            self._bundles[number] = bundle = Bundle(self.storage, number)
        return bundle

    def _policy(self, number: int) -> Policy:
        policy = self._policies.get(number)
        if policy is None:
            self.storage.keep_policy(number)
            self._policies[number] = policy = Policy(self.storage, number)
        return policy


def _nanoseconds(what: str, seconds: float) -> int:
    if not 0 <= seconds <= MOST_PAUSE:
        raise ValueError(f"{what} of {seconds} s is not 0 to {MOST_PAUSE}")
    return round(seconds * 1e9)


def _octets(prefix: Prefix) -> tuple[bytes, int]:
    """Network address (16 octets) and kind."""
    expect("no such prefix", prefix, IPv6Network, IPv4Network)
    packed = prefix.network_address.packed
    if len(packed) == 16:
        return packed, IPV6 | prefix.prefixlen
    return MAPPED + packed, IPV4 | prefix.prefixlen


def _prefix(network: bytes, kind: int) -> Prefix:
    length = kind & 255
    return IPv6Network((network, length)) if kind & IPV6 == IPV6 else IPv4Network((IPv4Address(network[12:]), length))


def _key(tunnel: Tunnel) -> bytes:
    expect("no such tunnel", tunnel, Tunnel)
    return tunnel.key


def _listed(what: str, things: Iterable[Thing], kind: type) -> list[Thing]:
    expect(what, things, Iterable)
    listed = list(things)
    for thing in listed:
        expect(what, thing, kind)
    return listed


def _rows(paths: Iterable[Path]) -> list[model.PathRow]:
    rows = [(path.tunnel, path.bid, path.label, path.weight) for path in _listed("no such bundle", paths, Path)]
    if not 1 <= len(rows) <= MOST_PATHS:
        raise BadBundle("no such bundle", why=f"{len(rows)} paths: it has 1 to {MOST_PATHS}")
    if len({bid for _, bid, _, _ in rows}) < len(rows):
        raise BadBundle("no such bundle", where=str(rows[0][0]), why="two paths have one BID")
    return rows


def _checked_rules(rules: Iterable[FlowRule]) -> list[FlowRule]:
    listed = _listed("no such policy", rules, FlowRule)
    if len(listed) > MOST_RULES:
        raise BadBundle("no such policy", why=f"{len(listed)} rules: it has {MOST_RULES} at most")
    return listed


def _unknown(tunnel: Tunnel) -> UnknownTunnel:
    return UnknownTunnel("no such tunnel here", where=str(tunnel), why="nothing is bound to it")
