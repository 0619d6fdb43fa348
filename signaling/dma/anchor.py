"""Answering updates: the home network prefixes this router has lent, and where each is delivered.

The anchor side of Dynamic Mobility Anchoring (H-MAR) in the words of Proxy Mobile IPv6 (RFC 5213 5.3): `CHECKS` are its
checks in its order. One prefix is one mobility session, so that prefixes move independently of each other.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from ipaddress import IPv6Network
from math import inf

from signaling.actions import Action, Bind, ForgetSession, Held, LocalLink, Note, SaveSession, TowardVisited, Unbind
from signaling.deadlines import Deadlines
from signaling.dma.binding_cache import BindingCache, Entry
from signaling.dma.session import Happening, Session, State
from signaling.door import Door
from signaling.iana import HandoffIndicator, Status
from signaling.prefix_pool import PrefixPool
from signaling.revoker import Revoker
from signaling.settings import TIMESTAMP_UNITS, Address, Clock, Counters, Settings
from signaling.update_request import UpdateRequest, acknowledgement
from signaling.wire.binding_update import BindingUpdate
from signaling.wire.options.access import AccessTechnologyTypeOption, HandoffIndicatorOption

SAVED_PERIODS = 10  # of a registration that the store may miss
REACH_FOR_A_SEQUENCE = 32768  # numbers this far back, and the last one, are stale (RFC 6275 9.5.1)


@dataclass(frozen=True, slots=True)
class Answer:
    """What an update led to. left: the node that is proven to have left our own access link, if any."""

    actions: list[Action]
    left: str | None = None


class Anchor:
    """The prefixes lent here, each with its state, its node and its care-of address."""

    def __init__(self, settings: Settings, door: Door, clock: Clock, counters: Counters) -> None:
        self.cache = BindingCache()
        self.pool = PrefixPool(settings.pools)
        self.deadlines: Deadlines[IPv6Network] = Deadlines()
        self._settings = settings
        self._door = door
        self._clock = clock
        self._counters = counters
        self._revoker = Revoker(door, clock, counters)
        self.confirm_revocation = self._revoker.confirm

    @property
    def revoker(self) -> Revoker:
        """What it has to tell former routers of nodes."""
        return self._revoker

    @property
    def next_wake(self) -> float | None:
        """The earliest deadline, monotonic s."""
        return min((at for at in (self.deadlines.next, self._revoker.deadlines.next) if at is not None), default=None)

    # --- the node's own comings and goings ---

    def attach(self, node: str, interface: str, link_layer: bytes, now: float) -> list[Action]:
        """The node is on our access link: its prefixes are local again, and if it has none it gets one."""
        actions: list[Action] = []
        entries = self.cache.of(node) or self._lend(node, actions)
        for entry in entries:
            was_at = entry.care_of if entry.state is State.REMOTE else None
            moved_technology = entry.technology != self._settings.technology
            entry.step(Happening.ATTACHED)
            entry.care_of, entry.interface = self._settings.address, interface
            entry.link_layer, entry.technology = link_layer, self._settings.technology
            entry.timestamp = max(self._clock.timestamp(now), entry.timestamp + 1)
            entry.valid_lifetime = max(entry.valid_lifetime, self._settings.valid_lifetime)  # it is advertised now
            self._expire_at(entry, inf)
            actions += [Bind(prefix=entry.prefix, path=LocalLink(interface=interface), node=node), self._save(entry)]
            if was_at is not None:
                actions += self._revoker.revoke(entry, was_at, different_access=moved_technology, now=now)
        return actions

    def solicited(self, node: str, now: float) -> list[Action]:
        """The node asked for a router on our link: it is here now, whatever updates from before say."""
        entries = [entry for entry in self.cache.of(node) if entry.state is State.LOCAL]
        for entry in entries:
            entry.timestamp = max(self._clock.timestamp(now), entry.timestamp)
        return [self._save(entry) for entry in entries]

    def leave(self, node: str, now: float) -> list[Action]:
        """The node has left our access link; nobody knows yet where it went."""
        actions: list[Action] = []
        for entry in self.cache.of(node):
            if entry.step(Happening.LEFT):
                entry.interface = ""
                self._expire_at(entry, now + self._settings.guard)
                actions += [Bind(prefix=entry.prefix, path=Held(), node=node), self._save(entry)]
        return actions

    def local(self, node: str) -> list[IPv6Network]:
        """The prefixes of a node that are anchored here and delivered here."""
        return [entry.prefix for entry in self.cache.of(node) if entry.state is State.LOCAL]

    def lost(self, node: str) -> bool:
        """Whether a node has a prefix of this router that nobody delivers."""
        return any(entry.state in (State.GUARD, State.HOLD) for entry in self.cache.of(node))

    def restore(self, sessions: tuple[Session, ...], now: float) -> list[Action]:
        """Take up what a run before this one had lent. Whether nodes are still here, they will show themselves."""
        actions: list[Action] = []
        for session in sessions:
            if self.cache.get(session.prefix) is not None or session.anchor != self._settings.address:
                continue
            self.pool.claim(session.prefix)
            entry = self._entry_of(session, now)
            entry.step(Happening.RESTORED)
            self.cache.add(entry)
            self._expire_at(entry, entry.expires)
            remote = entry.state is State.REMOTE
            path = TowardVisited.at(entry.care_of) if remote else Held()
            actions.append(Bind(prefix=entry.prefix, path=path, node=entry.node))
        return actions

    def take_up(self, entries: Iterable[Entry]) -> None:
        """What another process of this router has lent; nothing changes for anybody."""
        for entry in entries:
            self.pool.claim(entry.prefix)
            self.cache.add(entry)
            self._expire_at(entry, entry.expires)

    # --- updates of other routers ---

    def answer(self, update: BindingUpdate, source: Address, port: int, now: float) -> Answer:
        """Check an authenticated Proxy Binding Update and do what it asks (RFC 5213 5.3)."""
        request = UpdateRequest.of(update, source, port)
        for check in CHECKS:
            status = check(self, request, now)
            if status is not None:
                return self._refuse(request, status, now)
        entry = self._entry(request)
        if isinstance(entry, Status):
            # a de-registration that matches nothing is silently ignored (RFC 5213 5.4.1)
            return self._ignore("unknown-binding") if update.lifetime == 0 else self._refuse(request, entry, now)
        if update.lifetime == 0:
            return self._deregister(entry, request, now)
        return self._register(entry, request, now)

    def _register(self, entry: Entry, request: UpdateRequest, now: float) -> Answer:
        before, was_at = entry.state, entry.care_of
        refreshed = before is State.REMOTE and was_at == request.care_of
        entry.step(Happening.REGISTERED)
        entry.care_of, entry.interface = request.care_of, ""
        different_access = entry.technology != request.technology
        entry.link_layer, entry.technology = request.link_layer or b"", request.technology
        self._remember_order(entry, request)
        lifetime = min(request.update.lifetime, self._settings.binding_lifetime)
        self._expire_at(entry, now + lifetime)
        actions: list[Action] = []
        if refreshed:
            actions += [self._save(entry)] if entry.expires + lifetime > entry.saved_until else []
        else:
            # bind before acknowledging: the first packet may overtake the acknowledgement
            path = TowardVisited.at(request.care_of)
            actions += [Bind(prefix=entry.prefix, path=path, node=entry.node), self._save(entry)]
        actions.append(self._acknowledge(request, Status.BINDING_UPDATE_ACCEPTED, lifetime, now, (entry.prefix,)))
        if before is State.REMOTE and not refreshed:
            actions += self._revoker.revoke(entry, was_at, different_access=different_access, now=now)
        self._counters["anchor.refreshed" if refreshed else "anchor.registered"] += 1
        # an update for the same interface is proof that it is no longer on our link
        left = before is State.LOCAL and request.handoff == HandoffIndicator.HANDOFF_BETWEEN_MAGS_FOR_THE_SAME_INTERFACE
        return Answer(actions, left=entry.node if left else None)

    def _deregister(self, entry: Entry, request: UpdateRequest, now: float) -> Answer:
        if entry.care_of != request.care_of or entry.state not in (State.REMOTE, State.GUARD):
            return self._ignore("deregistration-by-another")  # RFC 5213 5.3.5: it has moved on already
        if entry.state is State.GUARD:  # our answer to it was lost
            self._remember_order(entry, request)
            return Answer([self._acknowledge(request, Status.BINDING_UPDATE_ACCEPTED, 0, now, (entry.prefix,))])
        entry.step(Happening.DEREGISTERED)
        self._remember_order(entry, request)
        self._expire_at(entry, now + self._settings.guard)
        self._counters["anchor.deregistered"] += 1
        return Answer(
            [
                Bind(prefix=entry.prefix, path=Held(), node=entry.node),
                self._save(entry),
                self._acknowledge(request, Status.BINDING_UPDATE_ACCEPTED, 0, now, (entry.prefix,)),
            ]
        )

    def _refuse(self, request: UpdateRequest, status: Status, now: float) -> Answer:
        self._counters[f"anchor.refused.{status.name.lower().replace('_', '-')}"] += 1
        fields = {"node": request.node, "peer": request.source, "status": status.name}
        return Answer(
            [Note("update-refused", fields), self._acknowledge(request, status, 0, now, request.requested)]
        )

    def _ignore(self, reason: str) -> Answer:
        self._counters[f"anchor.ignored.{reason}"] += 1
        return Answer([])

    def _acknowledge(
        self, request: UpdateRequest, status: Status, lifetime: int, now: float, prefixes: tuple[IPv6Network, ...]
    ) -> Action:
        entry = self._named(request)
        ack = acknowledgement(
            request,
            status=status,
            lifetime=lifetime,
            prefixes=prefixes,
            our_timestamp=self._clock.timestamp(now),
            last_sequence_number=entry.sequence_number if entry else None,
        )
        return self._door.send(ack, request.source, care_of=request.care_of, port=request.port)

    # --- the checks, in the order of RFC 5213 5.3.1; 1 and 2 are the Door's ---

    def _check_identifier(self, request: UpdateRequest, now: float) -> Status | None:
        return None if request.node else Status.MISSING_MN_IDENTIFIER_OPTION

    def _check_router(self, request: UpdateRequest, now: float) -> Status | None:
        known = self._door.peer(request.source) is not None and self._door.peer(request.care_of) is not None
        return None if known else Status.MAG_NOT_AUTHORIZED_FOR_PROXY_REG

    def _check_node(self, request: UpdateRequest, now: float) -> Status | None:
        return None if self.cache.of(request.node) else Status.NOT_LMA_FOR_THIS_MOBILE_NODE

    def _check_form(self, request: UpdateRequest, now: float) -> Status | None:
        """An option twice, or a timestamp that is none: RFC 5213 forbids both and names no status."""
        return Status.REASON_UNSPECIFIED if request.ill_formed else None

    def _check_order(self, request: UpdateRequest, now: float) -> Status | None:
        entry = self._named(request)
        if request.timestamp is None:
            return self._check_sequence(entry, request)
        if entry is not None and request.timestamp < entry.timestamp:
            return Status.TIMESTAMP_LOWER_THAN_PREV_ACCEPTED
        window = int(self._settings.timestamp_window * TIMESTAMP_UNITS)
        replayed = entry is not None and request.timestamp == entry.timestamp
        if replayed or abs(request.timestamp - self._clock.timestamp(now)) > window:
            return Status.TIMESTAMP_MISMATCH
        return None

    def _check_sequence(self, entry: Entry | None, request: UpdateRequest) -> Status | None:
        if entry is None or entry.sequence_number is None:
            return None
        stale = (entry.sequence_number - request.update.sequence_number) % 65536 <= REACH_FOR_A_SEQUENCE
        return Status.SEQUENCE_NUMBER_OUT_OF_WINDOW if stale else None

    def _check_prefix(self, request: UpdateRequest, now: float) -> Status | None:
        if request.impossible_prefix:
            return Status.NOT_AUTHORIZED_FOR_HOME_NETWORK_PREFIX
        return None if request.requested else Status.MISSING_HOME_NETWORK_PREFIX_OPTION

    def _check_handoff(self, request: UpdateRequest, now: float) -> Status | None:
        present = request.has(HandoffIndicatorOption)
        return None if present else Status.MISSING_HANDOFF_INDICATOR_OPTION

    def _check_technology(self, request: UpdateRequest, now: float) -> Status | None:
        present = request.has(AccessTechnologyTypeOption)
        return None if present else Status.MISSING_ACCESS_TECH_TYPE_OPTION

    # --- the binding cache ---

    def _named(self, request: UpdateRequest) -> Entry | None:
        """The entry whose prefix and node an update names, whether or not it may change it: they have one order."""
        found = (self.cache.get(prefix) for prefix in request.prefixes)
        return next((entry for entry in found if entry is not None and entry.node == request.node), None)

    def _entry(self, request: UpdateRequest) -> Entry | Status:
        """The entry an update is about, or why there is none (RFC 5213 5.4.1.1, its items 1 to 6)."""
        found = [entry for prefix in request.prefixes if (entry := self.cache.get(prefix))]
        if not found or any(entry.node != request.node for entry in found):
            # an anchor lends prefixes to nodes on its own links only: no update begins a session here
            return Status.NOT_AUTHORIZED_FOR_HOME_NETWORK_PREFIX
        if len(request.prefixes) > 1:
            return Status.BCE_PBU_PREFIX_SET_DO_NOT_MATCH
        entry = found[0]
        return entry if request.is_about(entry) else Status.NOT_AUTHORIZED_FOR_HOME_NETWORK_PREFIX

    def _lend(self, node: str, actions: list[Action]) -> list[Entry]:
        prefix = self.pool.lend() if len(self.cache) < self._settings.max_bindings else None
        if prefix is None:
            self._counters["anchor.pool-empty"] += 1
            actions.append(Note("pool-empty", {"node": node}))
            return []
        lifetime = self._settings.valid_lifetime
        entry = Entry(node=node, prefix=prefix, care_of=self._settings.address, valid_lifetime=lifetime)
        self.cache.add(entry)
        return [entry]

    def _entry_of(self, session: Session, now: float) -> Entry:
        # how much of a registration is left the store does not know: its router gets a full period to refresh it
        patience = {State.REMOTE: self._settings.binding_lifetime, State.HOLD: 0}.get(
            session.state, self._settings.guard
        )
        stored = session.expires if session.state is not State.REMOTE and session.expires < inf else 0.0
        return Entry(
            node=session.node,
            prefix=session.prefix,
            state=session.state,
            care_of=session.care_of,
            link_layer=session.link_layer,
            technology=session.technology,
            timestamp=session.timestamp,
            expires=max(self._clock.monotonic(stored), now + patience),
            valid_lifetime=session.valid_lifetime,
        )

    def _remember_order(self, entry: Entry, request: UpdateRequest) -> None:
        if request.timestamp is not None:
            entry.timestamp = request.timestamp
        else:
            entry.sequence_number = request.update.sequence_number

    def _expire_at(self, entry: Entry, at: float) -> None:
        entry.expires = at
        if at == inf:
            self.deadlines.cancel(entry.prefix)
        else:
            self.deadlines.set(entry.prefix, at)

    def _save(self, entry: Entry) -> Action:
        # refreshes stay between the two routers; the store hears of one in ten, before its record would end
        reserve = SAVED_PERIODS * self._settings.binding_lifetime if entry.state is State.REMOTE else 0
        entry.saved_until = entry.expires + reserve
        return SaveSession(session=entry.session(self._settings.address, self._clock.wall_minus_monotonic))

    def wake(self, now: float) -> list[Action]:
        """Let states whose time is over end."""
        actions = self._revoker.wake(now)
        for prefix in self.deadlines.due(now):
            entry = self.cache.get(prefix)
            if entry is not None and entry.step(Happening.EXPIRED):
                actions += self._hold(entry, now) if entry.state is State.HOLD else self._free(entry)
        return actions

    def _hold(self, entry: Entry, now: float) -> list[Action]:
        """Hosts may use the prefix as long as its last advertised valid lifetime runs; nobody else gets it before."""
        self._expire_at(entry, now + entry.valid_lifetime)
        fields: dict[str, object] = {"node": entry.node, "prefix": entry.prefix}
        return [
            Bind(prefix=entry.prefix, path=Held(), node=entry.node),
            self._save(entry),
            Note("session-over", fields),
        ]

    def _free(self, entry: Entry) -> list[Action]:
        self.cache.remove(entry)
        if entry.prefix in self.pool:
            self.pool.give_back(entry.prefix)
        return [
            Unbind(prefix=entry.prefix, node=entry.node),
            ForgetSession(node=entry.node, prefix=entry.prefix),
            Note("prefix-free", {"node": entry.node, "prefix": entry.prefix}),
        ]


Check = Callable[[Anchor, UpdateRequest, float], Status | None]
CHECKS: tuple[Check, ...] = (
    Anchor._check_identifier,  # 4
    Anchor._check_router,  # 5, 6
    Anchor._check_node,  # 7, 8
    Anchor._check_form,
    Anchor._check_order,  # 9
    Anchor._check_prefix,  # 10
    Anchor._check_handoff,  # 11
    Anchor._check_technology,  # 12
)
