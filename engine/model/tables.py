"""What the path knows, in plain Python dicts: specification of _fast/tables.pyx, method by method.

A prefix is 16 octets (IPv4: mapped, ::ffff:a.b.c.d) and its kind, family << 8 | length in bits of that family; a
tunnel its face, an engine.Tunnel, or, where it must exist, its key (engine.tunnels). Bundles and policies are numbers;
whoever made one holds one reference and gives it back with release_*; what is bound holds another.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from engine.model.connections import Connections
from engine.model.flows import MASK
from engine.model.pins import Pins
from engine.model.spread import Member, Members
from engine.tunnels import Tunnel

if TYPE_CHECKING:
    from engine._fast.tables import Tables as FastTables
    from engine.rules import FlowRule

ANCHOR, ACCESS, HELD = 1, 2, 4  # bits, so that a look-up can ask for several (_fast/prefixes.pxd)
MAPPED_BITS = 96  # of ::ffff:0:0/96, before the bits of an IPv4 address
MOST_PATHS = 16  # of a bundle

Target: TypeAlias = "Tunnel | int | None"  # a tunnel, a bundle, nothing when held
BindingRow: TypeAlias = tuple[bytes, int, int, Target, int]  # network, kind, side, target, policy (0: none)
# state, mtu (octets), prefixes, packets and octets in, packets and octets out
TunnelRow: TypeAlias = tuple[Tunnel, int, int, int, int, int, int, int]
PathRow: TypeAlias = tuple[Tunnel, int, int, int]  # tunnel, BID, label, weight


@dataclass(slots=True, eq=False)
class Former:
    """Tunnels (their keys) that let in what is still on them, until then (s, monotonic)."""

    tunnels: list[bytes]
    until: float


@dataclass(slots=True)
class BindingEntry:
    """A prefix and what is known of it."""

    side: int
    to: bytes | int | None  # key of the tunnel, number of the bundle; when held that of before, None: there was none
    policy: int
    born: float  # s, monotonic: first bind of the prefix
    last: float | None = None  # s, monotonic: its last packet
    former: Former | None = None  # its way before
    crowded: int | None = None  # clock of the last packet of connections that are open but not followed


@dataclass(slots=True)
class TunnelEntry:
    """A tunnel that something uses, with its counters."""

    face: Tunnel
    users: int = 0
    state: int = 0
    mtu: int = 0  # octets of the largest inner packet, 0: not known
    sequence: int = 0
    counts: list[int] = field(default_factory=lambda: [0] * 4)  # packets in, octets in, packets out, octets out


@dataclass(slots=True)
class BundleEntry:
    """Paths to one node or site."""

    serial: int  # of these paths: never used twice
    paths: list[tuple[bytes, int, int, int]]  # key of the tunnel, BID, label, weight; in the order of BIDs
    users: int = 1
    sequence: int = 0
    former: Former | None = None  # its paths before


@dataclass(slots=True)
class PolicyEntry:
    """Flow rules with their counters."""

    rules: list[FlowRule]
    counts: list[list[int]]  # packets and octets of each rule
    users: int = 1


class Tables:
    """Prefixes, tunnels, bundles and policies in four dicts."""

    def __init__(self) -> None:
        self._bindings: dict[tuple[int, int], BindingEntry] = {}  # (kind, first bits) -> entry
        self._kinds: Counter[int] = Counter()
        self._tunnels: dict[bytes, TunnelEntry] = {}
        self._bundles: dict[int, BundleEntry] = {}
        self._policies: dict[int, PolicyEntry] = {}
        self.pins: Pins[Tunnel] = Pins()  # of flows, by all workers
        self._connections = Connections()
        self._generation = 0
        self._serial = 0
        self._transience = 0.0  # s
        self._formers: list[Former] = []  # all that hold tunnels

    # --- prefixes ---

    def bind(self, network: bytes, kind: int, side: int, to: Tunnel | int, policy: int = 0) -> None:
        """Add a prefix, or move it: to a tunnel (its face) or a bundle (its number). policy: number, or 0."""
        if side not in (ANCHOR, ACCESS):
            raise ValueError(f"no side has the number {side}")
        prefix = _prefix(network, kind)
        if policy:
            self._policies[policy].users += 1
        target: bytes | int
        if isinstance(to, int):
            self._bundles[to].users += 1
            target = to
        else:
            target = self._use(to)
        self._put(prefix, side, target, policy, remember=True)

    def hold(self, network: bytes, kind: int, waits: bool = False) -> None:
        """The node is nowhere. waits: what is still on its way through the tunnel that the prefix had is let in."""
        prefix = _prefix(network, kind)
        before = self._bindings.get(prefix)
        to = before.to if before and waits else None
        if to is not None:
            self._keep(to)
        self._put(prefix, HELD, to, 0, remember=waits)

    def leave(self, network: bytes, kind: int) -> None:
        """The node is here, where the kernel delivers: what it brings to us dies of NODE_AWAY."""
        self._put(_prefix(network, kind), HELD, None, 0, remember=True)

    def unbind(self, network: bytes, kind: int) -> bool:
        """Forget the prefix. False: it was not known."""
        entry = self._bindings.pop(_prefix(network, kind), None)
        if entry is None:
            return False
        self._kinds[kind] -= 1
        self._kinds += Counter()  # forgets kinds nobody uses
        self._let_go(entry.to, entry.policy)
        self._forget(entry.former)
        return True

    def bindings(self) -> list[BindingRow]:
        """Every prefix, in no order."""
        return [self._row(prefix) for prefix in self._bindings]

    def match(self, address: bytes, sides: int, family: int = 6) -> BindingRow | None:
        """Row of the longest prefix around address whose side is among sides, or None."""
        for kind in sorted(self._kinds, reverse=True):
            if kind >> 8 == family:
                entry = self._bindings.get(_prefix(address, kind))
                if entry is not None and entry.side & sides:
                    return self._row(_prefix(address, kind))
        return None

    def __len__(self) -> int:
        return len(self._bindings)

    # --- activity ---

    def touch(self, network: bytes, kind: int) -> bool:
        """A packet of that prefix passed just now. False: the prefix is not known."""
        entry = self._bindings.get(_prefix(network, kind))
        if entry is None:
            return False
        entry.last = time.monotonic()
        return True

    def activity(self, network: bytes, kind: int) -> float | None:
        """Seconds since the last packet of that prefix; None: there was none. KeyError: not known."""
        last = self._bindings[_prefix(network, kind)].last
        return None if last is None else time.monotonic() - last

    def idle(self, seconds: float) -> list[tuple[bytes, int]]:
        """(network, kind) of every prefix without a packet for that long, counted from its first bind. No order."""
        now = time.monotonic()
        return [
            (_network(prefix), prefix[0])
            for prefix, entry in self._bindings.items()
            if now - (entry.born if entry.last is None else entry.last) >= seconds
        ]

    # --- connections ---

    def follow_connections(self, limit: int) -> None:
        """Follow TCP connections of prefixes whose node is here. limit: 0.1 s of silence that end one; 0: do not."""
        self._connections.follow(limit)

    def saw_segment(self, network: bytes, kind: int, flow: int, way: int, flags: int, clock: int) -> None:
        """A TCP segment of a prefix passed. flow: its hash. way: as in engine.model.connections. clock: 0.1 s."""
        entry = self._bindings[_prefix(network, kind)]
        if not self._connections.limit or entry.side != ACCESS:
            return
        if not self._connections.see(_hash(network, kind), flow, way, flags, clock):
            entry.crowded = clock

    def connections(self, network: bytes, kind: int) -> tuple[int, float | None]:
        """(how many of that prefix are open, s since the last packet of any; None: none is). KeyError: not known.

        Those that are not followed are not counted, but their packets are.
        """
        entry, now = self._bindings[_prefix(network, kind)], _clock()
        number, age = self._connections.count(_hash(network, kind), now)
        ages = [] if age is None else [age]
        if entry.crowded is not None and now - entry.crowded < self._connections.limit:
            ages.append(max(0, now - entry.crowded))
        return number, min(ages) / 10 if ages else None

    def all_connections(self) -> list[tuple[bytes, int, int, float]]:
        """(network, kind, how many, s) of each prefix that has open ones, as connections() says it. No order."""
        visiting = [(_network(prefix), prefix[0]) for prefix, entry in self._bindings.items() if entry.side == ACCESS]
        found = [(*each, *self.connections(*each)) for each in visiting]
        return [(network, kind, number, age) for network, kind, number, age in found if age is not None]

    def crowd(self, network: bytes, kind: int, age: int) -> bool:
        """The prefix has open connections that are not followed; the last packet of any passed so long ago, 0.1 s.

        False: the prefix is not known.
        """
        entry = self._bindings.get(_prefix(network, kind))
        if entry is None:
            return False
        entry.crowded = _clock() - age
        return True

    def crowded(self) -> int:
        """Packets of open connections that are not followed, as there is no place for them."""
        return self._connections.crowded

    # --- ways before ---

    def set_transience(self, tenths: int) -> None:
        """0.1 s that the way a prefix had lets in what is of it, from when it has another; 0: not at all."""
        self._transience = tenths / 10
        for former in self._formers:
            former.until = min(former.until, time.monotonic() + self._transience)

    def sweep(self) -> bool:
        """Let go of ways whose time is over. Whether there are others."""
        for former in [each for each in self._formers if each.until < time.monotonic()]:
            self._forget(former)
        return bool(self._formers)

    # --- tunnels ---

    def tunnels(self) -> list[TunnelRow]:
        """Every tunnel, in no order. prefixes: also those bound to it through a bundle."""
        prefixes: Counter[bytes] = Counter()
        for entry in self._bindings.values():
            if isinstance(entry.to, int):
                prefixes.update({key for key, *_ in self._bundles[entry.to].paths})
            elif entry.to is not None:
                prefixes[entry.to] += 1
        rows: list[TunnelRow] = []
        for key, e in self._tunnels.items():
            packets_in, octets_in, packets_out, octets_out = e.counts
            rows.append((e.face, e.state, e.mtu, prefixes[key], packets_in, octets_in, packets_out, octets_out))
        return rows

    def known(self, key: bytes) -> Tunnel | None:
        """The tunnel with that key."""
        entry = self._tunnels.get(key)
        return entry.face if entry else None

    def set_state(self, key: bytes, state: int) -> None:
        """State of a tunnel: 0 up, 1 suspect, 2 down. KeyError: not known."""
        if not 0 <= state <= 2:
            raise ValueError(f"no state has the number {state}")
        self._tunnels[key].state = state
        self._generation += 1

    def state_of(self, key: bytes) -> int:
        """State of a tunnel. KeyError: not known."""
        return self._tunnels[key].state

    def set_mtu(self, key: bytes, mtu: int) -> None:
        """Largest inner packet of a tunnel, octets; 0: not known. KeyError: no such tunnel."""
        self._tunnels[key].mtu = mtu

    def mtu_of(self, key: bytes) -> int:
        """Largest inner packet of a tunnel, octets; 0: not known. KeyError: no such tunnel."""
        return self._tunnels[key].mtu

    def follow(self, key: bytes, port: int, face: Tunnel) -> bool:
        """The peer sends from another UDP port now; face is the tunnel with that port. KeyError: no such tunnel.

        False: another tunnel has that identity, and nothing has changed.
        """
        entry = self._tunnels[key]
        if face.key == key:
            return True
        if face.key in self._tunnels:
            return False
        self.pins.rename(entry.face, face)
        entry.face = face
        self._tunnels[face.key] = self._tunnels.pop(key)
        for binding in self._bindings.values():
            if binding.to == key:
                binding.to = face.key
        for former in self._formers:
            former.tunnels = [face.key if each == key else each for each in former.tunnels]
        for bundle in self._bundles.values():
            bundle.paths = [(face.key if path[0] == key else path[0], *path[1:]) for path in bundle.paths]
        return True

    def count_in(self, key: bytes, octets: int, packets: int = 1) -> None:
        """Packets came out of the tunnel."""
        counts = self._tunnels[key].counts
        counts[0] += packets
        counts[1] += octets

    def count_out(self, key: bytes, octets: int, packets: int = 1) -> None:
        """Packets went into the tunnel."""
        counts = self._tunnels[key].counts
        counts[2] += packets
        counts[3] += octets

    def next_sequence(self, of: bytes | int) -> int:
        """Number of the next sequenced packet (RFC 2890 2.2) of a tunnel (its key) or a bundle (its number)."""
        entry = self._bundles[of] if isinstance(of, int) else self._tunnels[of]
        number = entry.sequence
        entry.sequence = number + 1 & 0xFFFFFFFF
        return number

    # --- bundles ---

    def make_bundle(self, paths: Sequence[PathRow]) -> int:
        """Number of a new bundle of 1 to 16 paths. The caller holds one reference."""
        _check_paths(paths)
        number = _free_number(self._bundles)
        self._bundles[number] = BundleEntry(self._next_serial(), self._use_all(paths))
        return number

    def change_bundle(self, bundle: int, paths: Sequence[PathRow]) -> None:
        """Other paths for all that is bound to the bundle."""
        entry = self._bundles[bundle]
        _check_paths(paths)
        coming = [tunnel.key for tunnel, *_ in paths]
        entry.former = self._remembered(self._tunnels_of(bundle), coming) or entry.former
        before, entry.paths = entry.paths, self._use_all(paths)
        entry.serial = self._next_serial()
        for key, *_ in before:
            self._let_go_of_tunnel(key)
        self._generation += 1

    def keep_bundle(self, bundle: int) -> None:
        """One reference more."""
        self._bundles[bundle].users += 1

    def release_bundle(self, bundle: int) -> None:
        """One reference less; with the last one the bundle goes."""
        entry = self._bundles[bundle]
        entry.users -= 1
        if entry.users == 0:
            del self._bundles[bundle]
            for key, *_ in entry.paths:
                self._let_go_of_tunnel(key)

    def paths(self, bundle: int) -> list[PathRow]:
        """(tunnel, BID, label, weight) of each path, in the order of BIDs."""
        return [(self._tunnels[key].face, *rest) for key, *rest in self._bundles[bundle].paths]  # type: ignore[misc]

    def members(self, bundle: int) -> Members[Tunnel]:
        """Its paths as engine.model.spread wants them."""
        return Members(self._bundles[bundle].serial, tuple(Member(*path) for path in self.paths(bundle)))

    # --- flows ---

    def set_patience(self, patience: int) -> None:
        """ns that a packet waits for its tunnel, or its prefix, to be bound: none does here."""

    def set_flow_pause(self, pause: int) -> None:
        """ns that a flow is silent before weights, paths and preferences may move it; 0: they do so at once."""
        self.pins.pause = pause

    # --- policies ---

    def make_policy(self, rules: Sequence[FlowRule]) -> int:
        """Number of a new policy: flow rules, first match decides. The caller holds one reference."""
        number = _free_number(self._policies)
        self._policies[number] = PolicyEntry(list(rules), [[0, 0] for _ in rules])
        return number

    def change_policy(self, policy: int, rules: Sequence[FlowRule]) -> None:
        """Other rules for all that is bound with the policy; those that it had already go on counting."""
        entry = self._policies[policy]
        kept: dict[FlowRule, list[list[int]]] = {}
        for rule, counts in zip(entry.rules, entry.counts, strict=True):
            kept.setdefault(rule, []).append(counts)
        entry.rules = list(rules)
        entry.counts = [kept[rule].pop(0) if kept.get(rule) else [0, 0] for rule in rules]
        self._generation += 1

    def keep_policy(self, policy: int) -> None:
        """One reference more."""
        self._policies[policy].users += 1

    def release_policy(self, policy: int) -> None:
        """One reference less; with the last one the policy goes."""
        entry = self._policies[policy]
        entry.users -= 1
        if entry.users == 0:
            del self._policies[policy]

    def rules(self, policy: int) -> list[tuple[FlowRule, int, int]]:
        """(rule, packets, octets) in the order of the policy."""
        entry = self._policies[policy]
        return [(rule, packets, octets) for rule, (packets, octets) in zip(entry.rules, entry.counts, strict=True)]

    def policies(self) -> list[int]:
        """Numbers of all policies."""
        return list(self._policies)

    def count_rule(self, policy: int, rule: int, octets: int, packets: int = 1) -> None:
        """Packets were treated by that rule of the policy (its place in the list)."""
        counts = self._policies[policy].counts[rule]
        counts[0] += packets
        counts[1] += octets

    def generation(self) -> int:
        """Rises with every change that decisions may depend on."""
        return self._generation

    # --- inside ---

    def _put(self, prefix: tuple[int, int], side: int, to: bytes | int | None, policy: int, *, remember: bool) -> None:
        before = self._bindings.get(prefix)
        if before is None:
            self._kinds[prefix[0]] += 1
            self._bindings[prefix] = BindingEntry(side, to, policy, time.monotonic())
            return
        after = BindingEntry(side, to, policy, before.born, before.last, crowded=before.crowded)
        self._bindings[prefix] = after
        if remember:
            after.former = self._remembered(self._tunnels_of(before.to), self._tunnels_of(to)) or before.former
        else:
            self._forget(before.former)
        self._let_go(before.to, before.policy)

    def _tunnels_of(self, to: bytes | int | None) -> list[bytes]:
        if isinstance(to, int):
            return [key for key, *_ in self._bundles[to].paths]
        return [] if to is None else [to]

    def _remembered(self, tunnels: list[bytes], now: list[bytes]) -> Former | None:
        if not self._transience or set(tunnels) <= set(now):
            return None
        for key in tunnels:
            self._tunnels[key].users += 1
        self._formers.append(Former(tunnels, time.monotonic() + self._transience))
        return self._formers[-1]

    def _forget(self, former: Former | None) -> None:
        if former in self._formers:
            self._formers.remove(former)
            for key in former.tunnels:
                self._let_go_of_tunnel(key)
            former.tunnels = []

    def _keep(self, to: bytes | int) -> None:
        if isinstance(to, int):
            self._bundles[to].users += 1
        else:
            self._tunnels[to].users += 1

    def _row(self, prefix: tuple[int, int]) -> BindingRow:
        entry = self._bindings[prefix]
        target = self._tunnels[entry.to].face if isinstance(entry.to, bytes) else entry.to
        return _network(prefix), prefix[0], entry.side, None if entry.side == HELD else target, entry.policy

    def leads_to(self, row: BindingRow, tunnel: Tunnel) -> bool:
        """Whether what comes out of that tunnel may be of the prefix of a row, by the way it has, or had just now."""
        entry = self._bindings[_prefix(row[0], row[1])]
        formers = [entry.former, self._bundles[entry.to].former if isinstance(entry.to, int) else None]
        now = time.monotonic()
        keys = [key for former in formers if former is not None and former.until >= now for key in former.tunnels]
        return any(self._tunnels[key].face == tunnel for key in (*self._tunnels_of(entry.to), *keys))

    def _next_serial(self) -> int:
        self._serial += 1
        return self._serial

    def _use(self, tunnel: Tunnel) -> bytes:
        entry = self._tunnels.setdefault(tunnel.key, TunnelEntry(tunnel))
        if entry.face != tunnel:
            self.pins.rename(entry.face, tunnel)
        entry.face = tunnel  # the newest outgoing key and sequencing hold
        entry.users += 1
        return tunnel.key

    def _use_all(self, paths: Sequence[PathRow]) -> list[tuple[bytes, int, int, int]]:
        return sorted(((self._use(tunnel), bid, *rest) for tunnel, bid, *rest in paths), key=lambda path: path[1])  # type: ignore[misc]

    def _let_go(self, to: bytes | int | None, policy: int) -> None:
        if isinstance(to, int):
            self.release_bundle(to)
        elif to is not None:
            self._let_go_of_tunnel(to)
        if policy:
            self.release_policy(policy)

    def _let_go_of_tunnel(self, key: bytes) -> None:
        self._tunnels[key].users -= 1
        if self._tunnels[key].users == 0:
            del self._tunnels[key]


AnyTables: TypeAlias = "Tables | FastTables"


def _clock() -> int:
    """Now, 0.1 s."""
    return time.monotonic_ns() // 100_000_000


def _hash(network: bytes, kind: int) -> int:
    return hash((network, kind)) & MASK


def _bits(kind: int) -> int:
    """Bits of the 128 that a prefix of that kind fixes."""
    family, length = kind >> 8, kind & 255
    if not ((family == 6 and length <= 128) or (family == 4 and length <= 32)):
        raise ValueError(f"no prefix is of kind {kind:#x}")
    return length + (MAPPED_BITS if family == 4 else 0)


def _prefix(address: bytes, kind: int) -> tuple[int, int]:
    if len(address) != 16:
        raise ValueError(f"16 octets expected, {len(address)} given")
    return kind, int.from_bytes(address, "big") >> 128 - _bits(kind)


def _network(prefix: tuple[int, int]) -> bytes:
    kind, bits = prefix
    return (bits << 128 - _bits(kind)).to_bytes(16, "big")


def _check_paths(paths: Sequence[PathRow]) -> None:
    if not 1 <= len(paths) <= MOST_PATHS:
        raise ValueError(f"a bundle has 1 to {MOST_PATHS} paths, not {len(paths)}")


def _free_number(taken: dict[int, BundleEntry] | dict[int, PolicyEntry]) -> int:
    return next(number for number in range(1, len(taken) + 2) if number not in taken)
