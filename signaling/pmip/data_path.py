"""What sessions mean to the data path: which tunnels their prefixes take, by which policy.

    one session, one path        TowardVisited((tunnel,))                        shared by all sessions of that MAG
    one session, paths 1 and 2   TowardVisited((BID 1, BID 2), policy)           RFC 8278
    two sessions, one prefix     TowardVisited((1: MAG1, 2: MAG2), policy)       draft-devarapalli-netlmm-multihoming

Where several MAGs stand behind one prefix their BIDs may be equal, so the ways are numbered here; the rules follow.
What a MAG says about flows comes first, then the policy of the node's profile.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import repeat

from signaling.actions import Action, Bind, BindAll, Held, Path, SetPolicy, TowardVisited, Unbind
from signaling.flow_bindings import rules_of
from signaling.flow_rules import FlowRule
from signaling.pmip.mobility_session import UNNUMBERED, CareOf, MobilitySession
from signaling.pmip.session_cache import SessionCache
from signaling.profiles import Profiles
from signaling.settings import Address, Prefix, Sharing

MOST_PLAIN_PATHS = 65536  # kept for sessions to share; as many as there are MAG addresses, usually
HELD = Held()
LAST_WAY = 254  # BIDs of a path, RFC 8278 4.1


@dataclass(frozen=True, slots=True)
class Way:
    """A care-of address of one of the sessions that have a prefix in common, and what the data path calls it."""

    session: MobilitySession
    care_of: CareOf
    number: int


class DataPath:
    """Sessions to Bind, SetPolicy and Unbind."""

    def __init__(self, cache: SessionCache, profiles: Profiles, policies: Mapping[str, tuple[FlowRule, ...]]) -> None:
        self.profiles = profiles
        self.policies = dict(policies)
        self._cache = cache
        self._told: set[str] = set()  # policies of the configuration that the data path knows
        self._plain: dict[tuple[bytes, Address | None, str], TowardVisited] = {}

    def bind(self, session: MobilitySession) -> list[Action]:
        """All that belongs to the session takes the way it goes now."""
        actions: list[Action] = []
        paths = self._paths(session, actions)
        return actions + [Bind(prefix=prefix, path=path, node=session.node) for prefix, path in paths]

    def bind_all(self, sessions: Iterable[MobilitySession]) -> list[Action]:
        """The same for many sessions, none of which was bound: those that take the same way go together."""
        actions: list[Action] = []
        together: dict[int, BindAll] = {}  # by identity of their path: many share one
        for session in sessions:
            usual = self._usual_path(session)
            paths = self._paths(session, actions) if usual is None else zip(session.bound, repeat(usual))
            for prefix, path in paths:
                group = together.get(id(path))
                if group is not None:
                    group.nodes[prefix] = session.node
                elif isinstance(path, TowardVisited):
                    together[id(path)] = BindAll(path=path, nodes={prefix: session.node})
                else:
                    actions.append(Bind(prefix=prefix, path=path, node=session.node))
        return [*actions, *together.values()]  # policies first

    def _usual_path(self, session: MobilitySession) -> TowardVisited | None:
        """The path of a session that has one, shares nothing and has no rules; None: think it over."""
        if len(session.care_ofs) != 1 or session.leaving or session.flows or session.policy:
            return None
        if self._cache.only_one_of(session.node) is not session or self.profiles.of(session.node).policy:
            return None  # only sessions of one node share prefixes
        return self._plain_path(session, "")

    def _paths(self, session: MobilitySession, actions: list[Action]) -> list[tuple[Prefix, Path]]:
        """Each prefix of the session and its path. What has to be done before they are bound is added to actions."""
        paths = []
        before: tuple[MobilitySession, ...] = ()
        path: Path = HELD
        for prefix in session.bound:
            sharers = self._cache.sharing(session, prefix)
            if sharers != before:  # those with a prefix in common have all in common, as a rule
                path, before = self._path(session, sharers, actions), sharers
            paths.append((prefix, path))
        return paths

    def unbind(self, session: MobilitySession, prefixes: tuple[Prefix, ...]) -> list[Action]:
        """These do not belong to it any more; what another session shares goes the way that one goes."""
        actions: list[Action] = []
        for prefix in prefixes:
            others = tuple(it for it in self._cache.sharing(session, prefix) if it is not session)
            if others:
                path = self._path(others[0], others, actions)
                actions.append(Bind(prefix=prefix, path=path, node=session.node))
            else:
                actions.append(Unbind(prefix=prefix, node=session.node))
        return actions

    def forget(self, session: MobilitySession) -> list[Action]:
        """The session is over, and its policy with it."""
        name = _own_policy(session)
        return [SetPolicy(name=name, rules=())] if session.policy == name else []

    def set_policy(self, name: str, rules: tuple[FlowRule, ...]) -> list[Action]:
        """A policy of the configuration changes while it is used."""
        self.policies[name] = rules
        self._told.add(name)
        return [SetPolicy(name=name, rules=rules)]

    def depends_on(self, session: MobilitySession, name: str) -> bool:
        """Whether the policy of a session is made of this one."""
        return self.profiles.of(session.node).policy == name

    # --- one path ---

    def _path(self, session: MobilitySession, sharers: tuple[MobilitySession, ...], actions: list[Action]) -> Path:
        if len(sharers) == 1 and len(session.care_ofs) == 1 and not session.flows:
            if session.leaving:
                return HELD
            return self._plain_path(session, self._policy(session, (), sharers, actions))
        ways = _ways(sharers)
        if not ways:
            return HELD
        policy = self._policy(session, ways, sharers, actions)
        return TowardVisited(
            tunnels=tuple([way.care_of.tunnel(way.session.uplink_key, way.number) for way in ways]), policy=policy
        )

    def _plain_path(self, session: MobilitySession, policy: str) -> TowardVisited:
        """One tunnel: with thousands of nodes at a MAG they all take the same."""
        care_of = session.care_ofs[0]
        if session.gre_keys or care_of.binding_id != UNNUMBERED or care_of.data_port:
            return TowardVisited(tunnels=(care_of.tunnel(session.uplink_key),), policy=policy)
        key = care_of.address.packed, care_of.local, policy  # to hash the address itself takes three times as long
        path = self._plain.get(key)
        if path is None:
            if len(self._plain) >= MOST_PLAIN_PATHS:
                self._plain.clear()
            path = self._plain[key] = TowardVisited(tunnels=(care_of.tunnel(None),), policy=policy)
        return path

    # --- policies ---

    def _policy(
        self,
        session: MobilitySession,
        ways: tuple[Way, ...],
        sharers: tuple[MobilitySession, ...],
        actions: list[Action],
    ) -> str:
        """Name of the policy of a path; the data path is told of it first."""
        profile = self.profiles.of(session.node)
        alone, owner = len(sharers) == 1, sharers[0]
        if alone and not owner.flows and not owner.policy and not profile.policy:
            return ""  # the usual case
        rules = tuple(rule for sharer in sharers for rule in _flow_rules(sharer, ways, by_label=alone))
        rules += _host_rules(sharers, ways) if profile.sharing is Sharing.SHARED_PREFIX else ()
        if rules:
            owner.policy = _own_policy(owner)
            actions.append(SetPolicy(name=owner.policy, rules=rules + self.policies.get(profile.policy, ())))
            return owner.policy
        actions += self.forget(owner)
        owner.policy = profile.policy if profile.policy in self.policies else ""
        if owner.policy and owner.policy not in self._told:
            actions += self.set_policy(owner.policy, self.policies[owner.policy])
        return owner.policy


def _own_policy(session: MobilitySession) -> str:
    return f"session {session.number}"


def _ways(sharers: tuple[MobilitySession, ...]) -> tuple[Way, ...]:
    """The live ways of sessions, each with a number of its own; its BID if no other has it."""
    ways: list[Way] = []
    taken: set[int] = set()
    for session in sharers:
        for care_of in () if session.leaving else session.care_ofs:
            number = care_of.way_id
            if number in taken:
                number = next((free for free in range(1, LAST_WAY + 1) if free not in taken), 0)
            if number:
                taken.add(number)
                ways.append(Way(session, care_of, number))
    return tuple(ways)


def _flow_rules(session: MobilitySession, ways: tuple[Way, ...], *, by_label: bool) -> tuple[FlowRule, ...]:
    if not session.flows:
        return ()
    numbers = {way.care_of.way_id: way.number for way in ways if way.session is session}
    return rules_of(session.flows, numbers.get, by_label=by_label)


def _host_rules(sharers: tuple[MobilitySession, ...], ways: tuple[Way, ...]) -> tuple[FlowRule, ...]:
    """An address that no rule mentions is that of the oldest interface, and never another's by chance."""
    first = next((way.session for way in ways), None)
    if first is None or len(sharers) == 1:
        return ()
    numbers = tuple(way.number for way in ways if way.session is first)
    return (FlowRule(name="other addresses", selector=None, binding_ids=numbers),)
