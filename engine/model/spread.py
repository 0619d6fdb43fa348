"""Spread in plain Python: policy -> rule -> label or BIDs -> live members -> tunnel(s). See _fast/spread.pxd."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from engine.model.dropped import Dropped
from engine.model.flows import MASK, Fragments, Identity, identify, matches, mix
from engine.model.pins import Pins
from engine.rules import Discard, FlowRule, Spread, Steer
from engine.stats import Drop

UP, SUSPECT, DOWN = range(3)
SECOND = 1_000_000_000  # ns
SCHEDULE_SETS, SCHEDULE_WAYS = 256, 4
PHASES = 64  # a schedule begins 0 to PHASES - 1 packets into its round

T = TypeVar("T", bound=Hashable)  # a tunnel, whatever the tables know it by


@dataclass(frozen=True, slots=True)
class Member(Generic[T]):
    """One path of a bundle."""

    tunnel: T
    bid: int
    label: int
    weight: int


@dataclass(frozen=True, slots=True)
class Members(Generic[T]):
    """The members of a bundle, as they are until the next change. serial: never used twice, counts from 1."""

    serial: int
    members: tuple[Member[T], ...]  # in the order of their BIDs

    @classmethod
    def of(cls, serial: int, members: Sequence[Member[T]]) -> Members[T]:
        """Members in any order."""
        return cls(serial, tuple(sorted(members, key=lambda member: member.bid)))


@dataclass(frozen=True, slots=True)
class Decision(Generic[T]):
    """Where a packet goes. rule: index in the policy of the rule that matched."""

    tunnels: tuple[T, ...]
    rule: int | None
    sequenced: bool  # it wants a number of its bundle


class NoWay(Dropped):
    """The packet died of its policy, or of the lack of paths; rule: as in Decision."""

    def __init__(self, reason: Drop, rule: int | None) -> None:
        super().__init__(reason)
        self.rule = rule


# --- the choice ----------------------------------------------------------------------------------------


def choose(
    packet: Identity,
    to: T | Members[T],
    policy: Sequence[FlowRule] | None,
    state_of: Callable[[T], int],
    schedules: Schedules,
    pins: Pins[T],
    *,
    prefix: int,
    now: int,
) -> Decision[T]:
    """Where a packet goes whose binding has that target and that policy. Raises NoWay.

    prefix: a hash of the prefix of that binding, 64 bits; flows of a prefix stay pinned when it is bound to another
    bundle. now: ns, monotonic.
    """
    rule = next((index for index, rule in enumerate(policy or ()) if matches(rule.selector, packet)), None)
    action = policy[rule].action if policy and rule is not None else Steer()
    if isinstance(action, Discard):
        raise NoWay(Drop.POLICY, rule)
    if not isinstance(to, Members):
        if state_of(to) == DOWN:
            raise NoWay(Drop.NO_PATH, rule)
        return Decision((to,), rule, False)
    candidates = wanted(to, action, state_of)
    if not candidates:
        raise NoWay(Drop.NO_PATH, rule)
    if action.spread is Spread.BICAST:
        return Decision(tuple(member.tunnel for member in candidates), rule, True)
    if action.spread is Spread.PER_PACKET:
        return Decision((schedules.next_in_turn(to, candidates).tunnel,), rule, True)
    key = packet.flow ^ prefix
    tunnel = pins.tunnel_of(key, now)
    if tunnel is None or not any(member.tunnel == tunnel for member in candidates):
        tunnel = rendezvous(candidates, packet.flow).tunnel
    pins.note(key, tunnel, now)
    return Decision((tunnel,), rule, False)


def wanted(bundle: Members[T], action: Steer, state_of: Callable[[T], int]) -> list[Member[T]]:
    """The members among which packets are spread; those that are up before suspect ones. A bicast spares neither."""

    def named(members: list[Member[T]], *labels: int) -> list[Member[T]]:
        return [member for member in members if member.label in labels]

    by_state = {
        state: [member for member in bundle.members if state_of(member.tunnel) == state] for state in (UP, SUSPECT)
    }
    if action.spread is Spread.BICAST:
        live = [member for member in bundle.members if state_of(member.tunnel) in (UP, SUSPECT)]
        by_state = {UP: named(live, *action.labels) if action.labels else live}
    for members in by_state.values():
        if action.spread is Spread.BICAST or not action.labels:
            found = [member for member in members if not action.bids or member.bid in action.bids]
        else:
            found = next((some for label in action.labels if (some := named(members, label))), [])
        if found:
            return found
    return []


# --- per flow ------------------------------------------------------------------------------------------


def logarithms() -> list[int]:
    """log2(1 + i / 256) * 2^32 for i from 0 to 256, bit by bit from squares of 31-bit fractions."""
    table = []
    for i in range(256):
        x, value = (1 << 31) + (i << 23), 0
        for _ in range(32):
            x = x * x >> 31
            value <<= 1
            if x >> 32:
                value |= 1
                x >>= 1
        table.append(value)
    return [*table, 1 << 32]


LOG2 = logarithms()


def draw(hash_: int) -> int:
    """-log2(hash / 2^64) * 2^32, at least 1; between two entries of the table on a straight line."""
    hash_ |= 1
    zeros = 64 - hash_.bit_length()
    x = hash_ << zeros & MASK
    index = x >> 55 & 0xFF
    between = (LOG2[index + 1] - LOG2[index]) * (x >> 23 & 0xFFFFFFFF) >> 32
    return (zeros + 1 << 32) - LOG2[index] - between


def salt_of(bid: int) -> int:
    """What makes the draws of one member differ from those of the others, the same at both ends of the tunnel."""
    return mix(bid * 0x9E3779B97F4A7C15 & MASK)


def rendezvous(candidates: Sequence[Member[T]], flow: int) -> Member[T]:
    """The candidate whose draw / weight is least; of equal ones that with the lower BID."""
    drawn = [draw(mix(flow ^ salt_of(member.bid))) for member in candidates]
    best = 0
    for k in range(1, len(candidates)):
        if drawn[k] * candidates[best].weight < drawn[best] * candidates[k].weight:
            best = k
    return candidates[best]


# --- per packet ----------------------------------------------------------------------------------------


@dataclass(slots=True)
class Schedule:
    """Smooth weighted round robin over some members of one bundle: what each has earned and not spent."""

    serial: int
    bids: frozenset[int]
    used: int = 0
    credit: dict[int, int] = field(default_factory=dict)  # by BID

    def advance(self, candidates: Sequence[Member[T]]) -> Member[T]:
        """Every candidate earns its weight, the richest pays the sum and goes."""
        for member in candidates:
            self.credit[member.bid] = self.credit.get(member.bid, 0) + member.weight
        best = max(candidates, key=lambda member: self.credit[member.bid])
        self.credit[best.bid] -= sum(member.weight for member in candidates)
        return best


class Schedules:
    """The schedules of one worker. Bounded: of those that share a set, the one asked for longest ago is forgotten."""

    def __init__(self) -> None:
        self.clock = 0  # packets spread
        self.begun = 0
        self.sets: list[list[Schedule | None]] = [[None] * SCHEDULE_WAYS for _ in range(SCHEDULE_SETS)]

    def next_in_turn(self, bundle: Members[T], candidates: Sequence[Member[T]]) -> Member[T]:
        """The member that takes the next packet."""
        self.clock += 1
        bids = frozenset(member.bid for member in candidates)
        bits = sum(1 << k for k, member in enumerate(bundle.members) if member.bid in bids)
        ways = self.sets[mix((bundle.serial << 16 | bits) & MASK) % SCHEDULE_SETS]
        schedule = next((each for each in ways if each and (each.serial, each.bids) == (bundle.serial, bids)), None)
        if schedule is None:
            schedule = Schedule(bundle.serial, bids)
            for _ in range(self.begun % PHASES):
                schedule.advance(candidates)
            self.begun += 1
            ages = [each.used if each else -1 for each in ways]
            ways[ages.index(min(ages))] = schedule
        schedule.used = self.clock
        return schedule.advance(candidates)


# --- for tests and benchmarks --------------------------------------------------------------------------


class Trial:
    """Flows, rules and spread of one worker by themselves, as _fast.spread.Trial. Tunnels are bare numbers."""

    def __init__(self) -> None:
        self.fragments = Fragments()
        self.schedules = Schedules()
        self.pins: Pins[int] = Pins()
        self.states: dict[int, int] = {}
        self.serial = 0
        self.bundles: dict[int, Members[int]] = {}
        self.policies: dict[int, list[FlowRule]] = {}

    def bundle(self, rows: list[tuple[int, int, int, int]], index: int = 0) -> int:
        """A new bundle, or other members for one. rows: (tunnel, BID, label, weight). Its index."""
        self.serial += 1
        index = index or 1 + max(self.bundles, default=0)
        self.bundles[index] = Members.of(self.serial, [Member(*row) for row in rows])
        return index

    def policy(self, rules: list[FlowRule], index: int = 0) -> int:
        """A new policy, or other rules for one. Its index."""
        index = index or 1 + max(self.policies, default=0)
        self.policies[index] = list(rules)
        return index

    def set_state(self, tunnel: int, state: int) -> None:
        """UP 0, SUSPECT 1, DOWN 2."""
        self.states[tunnel] = state

    def set_pause(self, pause: int) -> None:
        """ns that a flow is silent before it may move."""
        self.pins.pause = pause

    def identify(self, packets: list[bytes], clock: int = 0) -> list[tuple[int, int, int, int]]:
        """(protocol, transport, ports, flow) of each."""
        self.fragments.clock = clock
        found = [identify(packet, self.fragments) for packet in packets]
        return [(each.protocol, each.transport, each.ports, each.flow) for each in found]

    def choose(
        self, packets: list[bytes], many: int, target: int, policy: int = 0, now: int = SECOND
    ) -> list[tuple[int, tuple[int, ...], int | None, bool]]:
        """(reason to drop, tunnels, index of the rule, numbered by the bundle) of each. now: ns."""
        self.fragments.clock = now // (SECOND // 10)
        to = self.bundles[target] if many else target
        answers: list[tuple[int, tuple[int, ...], int | None, bool]] = []
        for packet in packets:
            identity = identify(packet, self.fragments)
            rules = self.policies[policy] if policy else None
            try:
                made = choose(identity, to, rules, self._state_of, self.schedules, self.pins, prefix=target, now=now)
            except NoWay as way:
                answers.append((int(way.reason), (), way.rule, False))
            else:
                answers.append((0, made.tunnels, made.rule, made.sequenced))
        return answers

    def _state_of(self, tunnel: int) -> int:
        return self.states.get(tunnel, UP)
