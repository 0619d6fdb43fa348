"""Ways of prefixes through the engine: bundles shared by value, policies by name, states that outlive their tunnels.

    prefix --> lone tunnel                                    one way and no policy: nothing of it is kept here
    prefix --> Shared: bundle (way, way, ...), reorder group   any number of prefixes with the same ways
       \\-----> Named: policy, as written and mirrored          any number of prefixes with the same policy

Packets that are striped or doubled carry the numbers of their bundle, so all prefixes of a peer share one, and what
comes from it is put in order by one group of its tunnels. Numbers need GRE (RFC 2890).
"""

import time
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace

from engine import (
    Bundle,
    Encapsulation,
    FlowRule,
    NotCompiled,
    Path,
    Policy,
    ReorderGroup,
    Side,
    Spread,
    Steer,
    Tables,
    Tunnel,
    TunnelState,
    UnknownTunnel,
)
from engine.tables import Prefix
from engine.tunnels import IDENTITY
from router.errors import RouterError

MOST_STATES = 65536  # of tunnels that are not up; the oldest is forgotten
MOST_PREFIXES_OF_NODE = 16  # of one node, among those that share a bundle
LINGER = 1.0  # s that a group out of use is kept: what waits in it is still to be delivered
TRAFFIC_FRESH = 0.02  # s that one look at all tunnels is good for
TRAFFIC_SHARE = 0.05  # of a processor for looking, however many tunnels there are
Ends = tuple[Path, ...]


def wants_numbers(rules: Iterable[FlowRule]) -> bool:
    """Some packets are striped or doubled: the other end has to put them in order."""
    return any(
        isinstance(rule.action, Steer) and rule.action.spread in (Spread.PER_PACKET, Spread.BICAST) for rule in rules
    )


def way_of(key: bytes) -> bytes:
    """The key of a tunnel without its GRE key: that is a session's, the way is that of all (RFC 5845 3.1)."""
    kind, _, port, _, local, remote = IDENTITY.unpack(key)
    return IDENTITY.pack(kind, 0, port, 0, local, remote)


def refuse_numbers(policy: str, rules: Iterable[FlowRule], encapsulation: Encapsulation) -> None:
    """Packets that are striped or doubled carry sequence numbers, which only GRE has. Raises RouterError."""
    if encapsulation is not Encapsulation.GRE and wants_numbers(rules):
        raise RouterError(
            f"policy {policy}: packets spread one by one, or doubled, need sequence numbers, and tunnels are "
            f'{encapsulation.value}: set [underlay] encapsulation = "gre" at both ends'
        )


@dataclass(slots=True)
class Named:
    """A policy of that name, as the anchor sends; in the engine only for the sides that use it."""

    rules: tuple[FlowRule, ...] = ()
    sides: dict[Side, Policy] = field(default_factory=dict)
    users: int = 0  # prefixes

    def seen_from(self, side: Side) -> tuple[FlowRule, ...]:
        """The rules as packets of that side look: at the access side source and destination change places."""
        return self.rules if side is Side.ANCHOR else tuple(rule.mirrored() for rule in self.rules)


@dataclass(slots=True, eq=False)
class Shared:
    """Ways that some prefixes have together."""

    ends: Ends
    bundle: Bundle
    prefixes: dict[Prefix, str] = field(default_factory=dict)  # -> node
    policies: Counter[str] = field(default_factory=Counter)  # -> prefixes
    group: ReorderGroup | None = None


@dataclass(frozen=True, slots=True)
class Use:
    """What a prefix uses."""

    shared: Shared
    policy: str


class Ways:
    """What prefixes are bound to, beyond one tunnel each. Raises EngineError for what the engine refuses."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._shared: dict[Ends, Shared] = {}
        self._uses: dict[Prefix, Use] = {}  # of prefixes with more than one way, or a policy
        self._policies: dict[str, Named] = {}
        self._numbering = False  # from the first policy that wants numbers on: GRE tunnels are made to carry them
        self._retired: list[tuple[float, ReorderGroup]] = []  # monotonic s
        self._states: dict[bytes, TunnelState] = {}  # by way, see way_of; those that are up are not in it
        self._traffic: dict[bytes, int] = {}  # by way
        self._traffic_until = 0.0  # monotonic s

    # --- prefixes ---

    def bind(self, prefix: Prefix, ends: Ends, *, side: Side, policy: str, node: str) -> None:
        """The prefix goes by these ways from now on. Raises RouterError if the policy wants what they cannot do."""
        before = self._uses.get(prefix)
        if len(ends) == 1 and not policy and not self._is_numbered(ends[0].tunnel):
            self._tables.bind(prefix, ends[0].tunnel, side=side)
            self._tell_states(ends)
            if before is not None:
                del self._uses[prefix]
                self._leave(prefix, before)
            return
        named = self._named(policy)
        if named is not None:
            for end in ends:
                refuse_numbers(policy, named.rules, end.tunnel.encapsulation)
        shared = self._join(prefix, ends, node)
        in_engine = None if named is None else self._policy(named, side)
        self._tables.bind(prefix, shared.bundle, side=side, policy=in_engine)
        self._uses[prefix] = Use(shared, policy)
        shared.policies[policy] += 1
        if named is not None:
            named.users += 1
        if before is not None:
            self._leave(prefix, before)
        self._arrange(shared)

    def bind_all(self, nodes: Mapping[Prefix, str], ends: Ends, *, side: Side, policy: str) -> None:
        """The same for many prefixes, none of which was bound. nodes: whose each is."""
        if policy or len(ends) > 1 or self._is_numbered(ends[0].tunnel):
            for prefix, node in nodes.items():
                self.bind(prefix, ends, side=side, policy=policy, node=node)
        else:
            self._tables.bind_all(nodes, ends[0].tunnel, side=side)
            self._tell_states(ends)

    def forget(self, prefix: Prefix) -> None:
        """The prefix is bound to nothing here any more; one that never was is no error."""
        use = self._uses.pop(prefix, None)
        if use is not None:
            self._leave(prefix, use)

    # --- policies and states ---

    def set_policy(self, name: str, rules: tuple[FlowRule, ...]) -> bool:
        """From the next burst on these are the rules of that name; none: it is forgotten. Raises RouterError.

        True: numbers are used from now on, and prefixes with a lone GRE tunnel have to be bound again.
        """
        users = [shared for shared in self._shared.values() if name in shared.policies]
        begins = False
        if wants_numbers(rules):
            for end in (end for shared in users for end in shared.ends):
                refuse_numbers(name, rules, end.tunnel.encapsulation)
            begins = not self._numbering
        named = self._policies.setdefault(name, Named())
        named.rules = rules
        if begins:
            self._begin_numbering()
        for shared in users:
            self._arrange(shared)
        for side, policy in named.sides.items():
            self._tables.change(policy, named.seen_from(side))
        self._drop_unused(name, named)
        return begins

    def counted(self) -> dict[str, list[tuple[int, int]]]:
        """What each rule of a policy in use has treated at either side, in their order: packets, octets."""
        rows: dict[int, list[tuple[int, int]]] = {}
        for row in self._tables.flow_rules():
            rows.setdefault(row.policy.number, []).append((row.packets, row.octets))
        return {
            name: [
                (sum(packets for packets, _ in of_sides), sum(octets for _, octets in of_sides))
                for of_sides in zip(*(rows.get(policy.number, []) for policy in named.sides.values()), strict=False)
            ]
            for name, named in self._policies.items()
            if named.sides
        }

    def set_state(self, tunnel: Tunnel, state: TunnelState) -> None:
        """What is known of a tunnel, whichever key its packets have, also of one that nothing is bound to yet."""
        way = way_of(tunnel.key)
        self._states.pop(way, None)
        if state is not TunnelState.UP:
            if len(self._states) == MOST_STATES:
                del self._states[next(iter(self._states))]
            self._states[way] = state
        keyed = tunnel.encapsulation is Encapsulation.GRE
        rows = self._tables.storage.tunnels() if keyed else ()
        for each in [row[0] for row in rows if way_of(row[0].key) == way] if keyed else [tunnel]:
            with suppress(UnknownTunnel):
                self._tables.set_state(each, state)

    def traffic(self, tunnel: Tunnel) -> int:
        """Packets in and out of a tunnel so far, by all its keys, as of a moment ago; -1: nothing is bound to it."""
        now = time.monotonic()
        if now >= self._traffic_until:
            rows = self._tables.storage.tunnels()
            self._traffic = {}
            for face, _, _, _, came, _, left, _ in rows:
                way = way_of(face.key)
                self._traffic[way] = self._traffic.get(way, 0) + came + left
            done = time.monotonic()
            self._traffic_until = done + max(TRAFFIC_FRESH, (done - now) / TRAFFIC_SHARE)
        return self._traffic.get(way_of(tunnel.key), -1)

    def least_mtu(self) -> int | None:
        """Octets of the largest inner packet that all tunnels take, as far as they have learned; None: none has."""
        return min((mtu for _, _, mtu, *_ in self._tables.storage.tunnels() if mtu), default=None)

    # --- inside ---

    def _is_numbered(self, tunnel: Tunnel) -> bool:
        return self._numbering and tunnel.encapsulation is Encapsulation.GRE

    def _members(self, ends: Ends) -> list[Path]:
        """The ways as they are in the engine. Sequencing is of a tunnel, not of a bundle: all of them have it."""
        return [
            replace(end, tunnel=replace(end.tunnel, sequence=True)) if self._is_numbered(end.tunnel) else end
            for end in ends
        ]

    def _begin_numbering(self) -> None:
        self._numbering = True
        for shared in self._shared.values():
            self._tables.change(shared.bundle, self._members(shared.ends))

    def _join(self, prefix: Prefix, ends: Ends, node: str) -> Shared:
        shared = self._shared.get(ends) or self._moved(prefix, ends, node)
        if shared is None:
            shared = self._shared[ends] = Shared(ends, self._tables.bundle(self._members(ends)))
            self._tell_states(ends)
        shared.prefixes[prefix] = node
        return shared

    def _moved(self, prefix: Prefix, ends: Ends, node: str) -> Shared | None:
        """The bundle of the prefix, if it is its node's alone: changed in place, so that its numbers go on."""
        use = self._uses.get(prefix)
        if use is None or len(use.shared.prefixes) > MOST_PREFIXES_OF_NODE:
            return None
        shared = use.shared
        if set(shared.prefixes.values()) != {node}:
            return None
        self._tables.change(shared.bundle, self._members(ends))
        self._tell_states(ends)
        del self._shared[shared.ends]
        shared.ends = ends
        self._shared[ends] = shared
        return shared

    def _leave(self, prefix: Prefix, use: Use) -> None:
        shared = use.shared
        shared.policies[use.policy] -= 1
        if not shared.policies[use.policy]:
            del shared.policies[use.policy]
        now = self._uses.get(prefix)
        if now is None or now.shared is not shared:
            del shared.prefixes[prefix]
        if not shared.prefixes:
            del self._shared[shared.ends]
        if now is None or now.shared is not shared:
            self._arrange(shared)
        named = self._policies.get(use.policy)
        if named is not None:
            named.users -= 1
            self._drop_unused(use.policy, named)

    def _named(self, policy: str) -> Named | None:
        """The policy of that name: without rules until it is set; None: there is none."""
        return self._policies.setdefault(policy, Named()) if policy else None

    def _policy(self, named: Named, side: Side) -> Policy:
        if side not in named.sides:
            named.sides[side] = self._tables.policy(named.seen_from(side))
        return named.sides[side]

    def _drop_unused(self, name: str, named: Named) -> None:
        if not named.users:
            named.sides.clear()
            if not named.rules:
                del self._policies[name]

    def _tell_states(self, ends: Ends) -> None:
        """A tunnel begins as one that is up."""
        for end in ends if self._states else ():
            state = self._states.get(way_of(end.tunnel.key))
            if state is not None:
                self._tables.set_state(end.tunnel, state)

    def _arrange(self, shared: Shared) -> None:
        """What comes out of its tunnels is put in order, or need not be."""
        self._close_retired()
        tunnels = tuple(end.tunnel for end in shared.ends)
        needed = len(tunnels) > 1 and any(wants_numbers(self._policies[name].rules) for name in shared.policies if name)
        if shared.group is not None and (not needed or shared.group.tunnels != tunnels):
            self._retired.append((time.monotonic() + LINGER, shared.group))
            shared.group = None
        if needed and shared.group is None:
            with suppress(NotCompiled):  # the model keeps no packets: they are delivered as they come
                shared.group = self._tables.reorder(tunnels)

    def _close_retired(self) -> None:
        now = time.monotonic()
        while self._retired and self._retired[0][0] <= now:
            self._retired.pop(0)[1].close()
