"""Answering updates: the home network prefixes this router has lent, and where each is delivered.

The anchor side of Dynamic Mobility Anchoring (H-MAR) in the words of Proxy Mobile IPv6 (RFC 5213 5.3). Its checks are
in `update_checks.py`. One prefix is one mobility session, so that prefixes move independently of each other.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv6Network
from math import inf

from signaling.actions import Action, Bind, Closed, ForgetSession, Held, Note, Path, SaveSession, SetPolicy, Unbind
from signaling.deadlines import Deadlines
from signaling.dma.binding_cache import BindingCache, Entry
from signaling.dma.refusals import OF_ANOTHER_INTERFACE, at_the_anchor
from signaling.dma.session import AWAY, HERE, Happening, Session, State
from signaling.dma.sharers import Sharers
from signaling.dma.sharing import path_of, refusals, rules_for
from signaling.dma.update_checks import UpdateChecks
from signaling.dma.visited_routers import VisitedRouters
from signaling.door import Door
from signaling.iana import HandoffIndicator, RevocationTrigger, Status
from signaling.node_interface import NodeInterface, Place
from signaling.prefix_pool import PrefixPool
from signaling.revoker import Recipient, Revoker
from signaling.settings import Address, Clock, Counters, PeerLost, Settings
from signaling.update_request import UpdateRequest, acknowledgement
from signaling.wire.binding_update import BindingUpdate
from signaling.wire.options.option import Option

KNOWS_CARE_OF = {*AWAY, State.GUARD, State.RELEASED}  # of the last registration
SAVED_PERIODS = 10  # of a registration that the store may miss
UNDELIVERED = (State.GUARD, State.HOLD, State.LOST)  # whoever has the node may have the prefix


@dataclass(frozen=True, slots=True)
class Answer:
    """What an update led to. left: the interface that is proven to have left our own access link, if any."""

    actions: list[Action]
    left: NodeInterface | None = None


class Anchor:
    """The prefixes lent here, each with its state, its node and its care-of address."""

    def __init__(self, settings: Settings, door: Door, clock: Clock, counters: Counters) -> None:
        self.cache = BindingCache()
        self.pool = PrefixPool(settings.pools)
        self.deadlines: Deadlines[IPv6Network] = Deadlines()
        self._sharers = Sharers()
        self._checks = UpdateChecks(settings, door, clock, self.cache, self._sharers)
        self.heirs: list[Entry] = []  # inherited since somebody looked: is the one that has them still there?
        self._ruled: set[IPv6Network] = set()  # prefixes whose flow rules the data path knows
        self._settings = settings
        self._door = door
        self._clock = clock
        self._counters = counters
        self._when_lost: Path = Closed() if settings.peer_lost is PeerLost.DROP else Held()
        self.revoker = Revoker(door, clock, counters)  # what it has to tell former routers of nodes
        self.confirm_revocation = self.revoker.confirm
        self.revocation_not_understood = self.revoker.not_understood
        self.visited_routers = VisitedRouters(self, self.revoker, counters, follows_cmd=bool(settings.cmd))

    @property
    def next_wake(self) -> float | None:
        """The earliest deadline, monotonic s."""
        times = (self.deadlines.next, self._sharers.deadlines.next, self.revoker.deadlines.next)
        return min((at for at in times if at is not None), default=None)

    # --- the node's own comings and goings ---

    def attach(self, node: str, here: Place, now: float, *, takes_over: bool = False) -> list[Action]:
        """An interface of the node is on our access link: its prefixes are local again; if it has none it gets one.

        takes_over: those of its other interfaces are its own too.
        """
        actions: list[Action] = []
        entries = [entry for entry in self.cache.of(node) if takes_over or entry.belongs_to(here.link_layer)]
        for entry in entries or self._lend(node, here.link_layer, actions):
            actions += self._deliver(entry, here, now)
        return actions

    def regain(self, node: str, here: Place, now: float, *, own: bool) -> list[Action]:
        """What nobody delivers goes to an interface of its node that is here. own: only what belongs to that one."""
        entries = [entry for entry in self._lost(node) if not own or entry.belongs_to(here.link_layer)]
        return [action for entry in entries for action in self._deliver(entry, here, now)]

    def reclaim(self, node: str, here: Place, now: float, *, elsewhere: bool) -> list[Action]:
        """What this interface was given is its own again if others do without it.

        elsewhere: also what another interface has at another router, although nobody ordered that.
        """
        given = [entry for entry in self.cache.of(node) if entry.lent_to == here.link_layer]
        entries = [entry for entry in given if entry.state is State.RELEASED]
        if elsewhere:
            away = self._away(node, here.link_layer)
            entries += [entry for entry in away if any(entry.link_layer) and not entry.ordered]
        return [action for entry in entries for action in self._deliver(entry, here, now)]

    def contradict(self, node: str, here: Place, now: float) -> list[Action]:
        """An interface is here, whatever another router has registered for it."""
        entries = [entry for entry in self.cache.of(node) if entry.state in AWAY]
        own = [entry for entry in entries if entry.link_layer == here.link_layer or not any(entry.link_layer)]
        return [action for entry in own for action in self._deliver(entry, here, now)]

    def reached_at(self, node: str, here: Place) -> list[Action]:
        """Packets for this interface can be given to it by a gateway from now on."""
        entries = [entry for entry in self._local(node, here.link_layer) if entry.gateway != here.gateway]
        for entry in entries:
            entry.gateway = here.gateway
        return [action for entry in entries for action in self.bind(entry)]

    def _deliver(self, entry: Entry, here: Place, now: float) -> list[Action]:
        # to its former router; a CMD tells it that itself (RFC 8885 3.2)
        was_at = entry.care_of if entry.state in AWAY and not self._settings.cmd else None
        before = entry.link_layer, entry.technology
        entry.step(Happening.ATTACHED)
        if entry.sharers:
            entry.step(Happening.FLOWS_ASKED)
        entry.care_of, entry.interface, entry.gateway = self._settings.address, here.interface, here.gateway
        entry.link_layer, entry.technology, entry.ordered = here.link_layer, self._settings.technology, False
        entry.timestamp = max(self._clock.timestamp(now), entry.timestamp + 1)
        entry.valid_lifetime = max(entry.valid_lifetime, self._settings.valid_lifetime)  # it is advertised now
        self._expire_at(entry, inf)
        actions = [*self.bind(entry), self._save(entry)]
        return actions if was_at is None else [*actions, *self._revoke(entry, was_at, before, now)]

    def _revoke(self, entry: Entry, was_at: Address, before: tuple[bytes, int], now: float) -> list[Action]:
        """Tell the router that had the prefix. before: by which interface, link-layer address and technology.

        One that has another interface of the node is not asked whether that has left: it may well be there.
        """
        link_layer, technology = before
        if link_layer != entry.link_layer and any(link_layer) and any(entry.link_layer):
            return self._take_from(entry, was_at, now)
        return self.revoker.revoke(entry, was_at, different_access=technology != entry.technology, now=now)

    def _take_from(self, entry: Entry, router: Address, now: float) -> list[Action]:
        """That router has the prefix, or flows of it, no more; where its node is does not matter."""
        administrative, to = RevocationTrigger.ADMINISTRATIVE_REASON, Recipient(address=router)
        return self.revoker.revoke_session(entry.node, (entry.prefix,), administrative, to, now)

    def solicited(self, node: str, link_layer: bytes, now: float) -> list[Action]:
        """An interface of the node asked for a router on our link: it is here, whatever updates from before say."""
        entries = self._local(node, link_layer)
        for entry in entries:
            entry.timestamp = max(self._clock.timestamp(now), entry.timestamp)
        return [self._save(entry) for entry in entries]

    def leave(self, node: str, link_layer: bytes, now: float) -> list[Action]:
        """An interface of the node has left our access link; nobody knows yet where it went."""
        actions: list[Action] = []
        for entry in self._local(node, link_layer):
            if not entry.step(Happening.LEFT):
                continue
            entry.interface, entry.gateway = "", None
            if entry.state is State.REMOTE:
                actions += self.inherit(entry)
            else:
                self._expire_at(entry, now + self._settings.guard)
                actions += [*self.bind(entry), self._save(entry)]
        return actions

    def local(self, node: str, link_layer: bytes | None = None) -> list[IPv6Network]:
        """The prefixes of a node that are anchored here and delivered here, to that interface; None: to any."""
        return [entry.prefix for entry in self._local(node, link_layer)]

    def lent(self, node: str, link_layer: bytes) -> list[tuple[IPv6Network, bytes]]:
        """The same prefixes, and the link-layer address of the interface that was given each."""
        return [(entry.prefix, entry.lent_to) for entry in self._local(node, link_layer)]

    def away(self, node: str, link_layer: bytes) -> list[IPv6Network]:
        """The prefixes anchored here that this interface was given, and another one at another router has now."""
        return [entry.prefix for entry in self._away(node, link_layer)]

    def lost(self, node: str) -> bool:
        """Whether a node has a prefix of this router that nobody delivers."""
        return bool(self._lost(node))

    def _local(self, node: str, link_layer: bytes | None) -> list[Entry]:
        local = (entry for entry in self.cache.of(node) if entry.state in HERE)
        return [entry for entry in local if link_layer in (None, entry.link_layer)]

    def _away(self, node: str, link_layer: bytes) -> list[Entry]:
        away = (entry for entry in self.cache.of(node) if entry.state in AWAY)
        return [entry for entry in away if entry.lent_to == link_layer != entry.link_layer]

    def _lost(self, node: str) -> list[Entry]:
        return [entry for entry in self.cache.of(node) if entry.state in UNDELIVERED]

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
            actions += self.bind(entry)
        return actions

    def take_up(self, entries: Iterable[Entry]) -> list[Action]:
        """What another process of this router has lent; nothing changes for anybody. Returns its flow policies."""
        actions: list[Action] = []
        for entry in entries:
            self.pool.claim(entry.prefix)
            self.cache.add(entry)
            self._expire_at(entry, entry.expires)
            self._sharers.take_up(entry)
            actions += [action for action in self.bind(entry) if isinstance(action, SetPolicy)]
        return actions

    # --- updates of other routers ---

    def answer(self, update: BindingUpdate, source: Address, port: int, now: float) -> Answer:
        """Check an authenticated Proxy Binding Update and do what it asks (RFC 5213 5.3)."""
        request = UpdateRequest.of(update, source, port)
        status = self._checks.objection(request, now)
        if status is not None:
            return self._refuse(request, status, now)
        entry = self._entry(request)
        if isinstance(entry, Status):
            # a de-registration that matches nothing is silently ignored (RFC 5213 5.4.1)
            return self._ignore("unknown-binding") if update.lifetime == 0 else self._refuse(request, entry, now)
        if self._sharers.concerns(entry, request):
            return self._share(entry, request, now) if update.lifetime else self._unshare(entry, request, now)
        if update.lifetime == 0:
            return self._deregister(entry, request, now)
        if self._checks.is_of_another(entry, request):
            return self._refuse(request, OF_ANOTHER_INTERFACE, now)
        return self._register(entry, request, now)

    # --- routers that take flows of a prefix ---

    def _share(self, entry: Entry, request: UpdateRequest, now: float) -> Answer:
        """A router takes flows, and the prefix stays where it is."""
        lifetime = min(request.update.lifetime, self._settings.binding_lifetime)
        shared = self._sharers.take(entry, request, now + lifetime)
        if shared is None:
            return self._refuse(request, Status.INSUFFICIENT_RESOURCES, now)
        before = entry.state
        entry.step(Happening.FLOWS_ASKED)
        self._remember_order(entry, request)
        self._counters["anchor.flows-shared" if shared.changed else "anchor.refreshed"] += 1
        refused = refusals(shared.answers)
        self._counters["anchor.flows-refused"] += len(refused)
        actions = self.bind(entry) if shared.changed else []
        actions += [self._save(entry)] if entry.state is not before else []
        accepted = Status.BINDING_UPDATE_ACCEPTED
        ack = self._acknowledge(request, accepted, lifetime, now, (entry.prefix,), answers=shared.answers)
        return Answer([*actions, ack])

    def _unshare(self, entry: Entry, request: UpdateRequest, now: float) -> Answer:
        self._remember_order(entry, request)
        actions = self.end_sharing(entry, request.care_of)
        ack = self._acknowledge(request, Status.BINDING_UPDATE_ACCEPTED, 0, now, (entry.prefix,))
        return Answer([*actions, ack])

    def end_sharing(self, entry: Entry, care_of: Address) -> list[Action]:
        """This router takes no flows any more: they go where the prefix is."""
        self._sharers.drop(entry, care_of)
        actions: list[Action] = []
        if not entry.sharers and entry.state is State.SPLIT and entry.step(Happening.FLOWS_ENDED):
            actions.append(self._save(entry))
        self._counters["anchor.flows-ended"] += 1
        return [*self.bind(entry), *actions]

    def inherit(self, entry: Entry) -> list[Action]:
        """Whoever had the prefix is gone: one of those that took flows has it now."""
        heir = self._sharers.inherit(entry)
        self.heirs.append(entry)
        self._expire_at(entry, heir.expires)
        return [*self.bind(entry), self._save(entry)]

    def recall(self, entry: Entry, here: Place | None, now: float) -> list[Action]:
        """The prefix, and all flows of it, come to our own link, if its node is there; the others are told."""
        actions: list[Action] = []
        for care_of in list(entry.sharers):
            actions += self.end_sharing(entry, care_of)
            actions += self._take_from(entry, care_of, now)
        if here is not None and entry.state not in HERE:
            actions += self._deliver(entry, here, now)
        return actions

    def examine(self, request: UpdateRequest, now: float) -> Entry | Status:
        """The entry that an update of a CMD may change, or why there is none (RFC 5213 5.3.1, 5.4.1).

        Whichever interface has it: a CMD knows nodes, and may have missed that another one came.
        """
        return self._checks.objection(request, now) or self._entry(request, any_interface=True)

    def move(
        self, entry: Entry, request: UpdateRequest, care_of: Address, lifetime: float, now: float
    ) -> list[Action] | None:
        """A prefix is delivered at that router from now on, for so long (s). None: it cannot be, it was released."""
        refreshed = entry.state is State.REMOTE and entry.care_of == care_of
        if not entry.step(Happening.REGISTERED):
            return None
        self._sharers.drop(entry, care_of)
        entry.care_of, entry.interface, entry.gateway = care_of, "", None
        entry.link_layer, entry.technology = request.link_layer or b"", request.technology
        entry.ordered = request.ordered
        self._remember_order(entry, request)
        self._expire_at(entry, now + lifetime)
        self._counters["anchor.refreshed" if refreshed else "anchor.registered"] += 1
        if refreshed:
            return [self._save(entry)] if entry.expires + lifetime > entry.saved_until else []
        # bind before acknowledging: the first packet may overtake the acknowledgement
        return [*self.bind(entry), self._save(entry)]

    def _register(self, entry: Entry, request: UpdateRequest, now: float) -> Answer:
        before, was_at = entry.state, entry.care_of
        had_it = entry.link_layer, entry.technology
        lifetime = min(request.update.lifetime, self._settings.binding_lifetime)
        actions = self.move(entry, request, request.care_of, lifetime, now)
        if actions is None:  # its node has another by now, and was told so
            return self._refuse(request, Status.NOT_AUTHORIZED_FOR_HOME_NETWORK_PREFIX, now)
        actions.append(self._acknowledge(request, Status.BINDING_UPDATE_ACCEPTED, lifetime, now, (entry.prefix,)))
        if before in AWAY and was_at != request.care_of:
            actions += self._revoke(entry, was_at, had_it, now)
        # an update for the same interface is proof that it is no longer on our link
        same = request.handoff == HandoffIndicator.HANDOFF_BETWEEN_MAGS_FOR_THE_SAME_INTERFACE
        left = before in HERE and same and request.link_layer in (None, had_it[0])
        return Answer(actions, left=NodeInterface(entry.node, had_it[0]) if left else None)

    def _deregister(self, entry: Entry, request: UpdateRequest, now: float) -> Answer:
        if entry.care_of != request.care_of or entry.state not in KNOWS_CARE_OF:
            return self._ignore("deregistration-by-another")  # RFC 5213 5.3.5: it has moved on already
        actions = self.take_back(entry, request, now)
        return Answer([*actions, self._acknowledge(request, Status.BINDING_UPDATE_ACCEPTED, 0, now, (entry.prefix,))])

    def take_back(self, entry: Entry, request: UpdateRequest, now: float) -> list[Action]:
        """The registration of a prefix ends; if it has ended already, our answer to that was lost."""
        self._remember_order(entry, request)
        if entry.state not in AWAY:
            return []
        # of a node that is still there: nobody uses the prefix, so it shall not follow any more
        if request.handoff == HandoffIndicator.HANDOFF_STATE_NOT_CHANGED and not entry.sharers:
            return self._release(entry, now)
        self._counters["anchor.deregistered"] += 1
        return self.disown(entry, now)

    def disown(self, entry: Entry, now: float) -> list[Action]:
        """The router that has the prefix has it no more."""
        if entry.sharers and entry.step(Happening.INHERITED):
            return self.inherit(entry)
        entry.step(Happening.DEREGISTERED)
        self._expire_at(entry, now + self._settings.guard)
        return [*self.bind(entry), self._save(entry)]

    def _release(self, entry: Entry, now: float) -> list[Action]:
        """Where its node goes, the prefix follows no more."""
        entry.step(Happening.RELEASED)
        self._expire_at(entry, now + entry.valid_lifetime)
        self._counters["anchor.released"] += 1
        fields: dict[str, object] = {"node": entry.node, "prefix": entry.prefix}
        return [*self.bind(entry), self._save(entry), Note("prefix-released", fields)]

    def _refuse(self, request: UpdateRequest, status: Status, now: float) -> Answer:
        self._counters[f"anchor.refused.{status.name.lower().replace('_', '-')}"] += 1
        fields = {"node": request.node, "peer": request.source, "status": status.name}
        note = Note("update-refused", fields | at_the_anchor(status, self._checks.named(request)))
        return Answer([note, self._acknowledge(request, status, 0, now, request.requested)])

    def _ignore(self, reason: str) -> Answer:
        self._counters[f"anchor.ignored.{reason}"] += 1
        return Answer([])

    def _acknowledge(
        self,
        request: UpdateRequest,
        status: Status,
        lifetime: int,
        now: float,
        prefixes: tuple[IPv6Network, ...],
        answers: tuple[Option, ...] = (),
    ) -> Action:
        entry = self._checks.named(request)
        ack = acknowledgement(
            request,
            status,
            lifetime=lifetime,
            prefixes=prefixes,
            our_timestamp=self._clock.timestamp(now),
            last_sequence_number=entry.sequence_number if entry else None,
            answers=answers,
        )
        return self._door.send(ack, request.source, care_of=request.care_of, port=request.port)

    # --- the binding cache ---

    def _entry(self, request: UpdateRequest, *, any_interface: bool = False) -> Entry | Status:
        """The entry an update is about, or why there is none (RFC 5213 5.4.1.1, its items 1 to 6)."""
        found = [entry for prefix in request.prefixes if (entry := self.cache.get(prefix))]
        if not found or any(entry.node != request.node for entry in found):
            # an anchor lends prefixes to nodes on its own links only: no update begins a session here
            return Status.NOT_AUTHORIZED_FOR_HOME_NETWORK_PREFIX
        if len(request.prefixes) > 1:
            return Status.BCE_PBU_PREFIX_SET_DO_NOT_MATCH
        entry = found[0]
        about = any_interface or request.is_about(entry)
        return entry if about else Status.NOT_AUTHORIZED_FOR_HOME_NETWORK_PREFIX

    def _lend(self, node: str, link_layer: bytes, actions: list[Action]) -> list[Entry]:
        prefix = self.pool.lend() if len(self.cache) < self._settings.max_bindings else None
        if prefix is None:
            self._counters["anchor.pool-empty"] += 1
            actions.append(Note("pool-empty", {"node": node}))
            return []
        lifetime = self._settings.valid_lifetime
        address = self._settings.address
        entry = Entry(node=node, prefix=prefix, care_of=address, valid_lifetime=lifetime, lent_to=link_layer)
        self.cache.add(entry)
        return [entry]

    def _entry_of(self, session: Session, now: float) -> Entry:
        # how much of a registration is left the store does not know: its router gets a full period to refresh it
        patience = {State.REMOTE: self._settings.binding_lifetime, State.HOLD: 0, State.RELEASED: 0}.get(
            session.state, self._settings.guard
        )
        stored = session.expires if session.state is not State.REMOTE and session.expires < inf else 0.0
        return Entry(
            node=session.node,
            prefix=session.prefix,
            state=session.state,
            care_of=session.care_of,
            link_layer=session.link_layer,
            lent_to=session.lent_to or session.link_layer,
            technology=session.technology,
            timestamp=session.timestamp,
            expires=max(self._clock.monotonic(stored), now + patience),
            valid_lifetime=session.valid_lifetime,
        )

    def _remember_order(self, entry: Entry, request: UpdateRequest) -> None:
        if request.timestamp is not None and self._sharers.concerns(entry, request):
            entry.share_order[request.care_of] = request.timestamp
        elif request.timestamp is not None:
            entry.timestamp = request.timestamp
        else:
            entry.sequence_number = request.update.sequence_number

    def bind(self, entry: Entry) -> list[Action]:
        """The prefix goes where it is to go now, its flows by the rules of those who take some."""
        bind = Bind(prefix=entry.prefix, path=path_of(entry, when_lost=self._when_lost), node=entry.node)
        if entry.sharers:
            self._ruled.add(entry.prefix)
            return [SetPolicy(name=str(entry.prefix), rules=rules_for(entry)), bind]
        if entry.prefix in self._ruled:
            self._ruled.remove(entry.prefix)
            return [bind, SetPolicy(name=str(entry.prefix), rules=())]
        return [bind]

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
        actions = self.revoker.wake(now)
        for prefix, care_of in self._sharers.deadlines.due(now):
            entry = self.cache.get(prefix)
            actions += self.end_sharing(entry, care_of) if entry is not None else []
        for prefix in self.deadlines.due(now):
            entry = self.cache.get(prefix)
            if entry is not None and entry.sharers and entry.step(Happening.INHERITED):
                actions += self.inherit(entry)
            elif entry is not None and entry.step(Happening.EXPIRED):
                actions += self._hold(entry, now) if entry.state is State.HOLD else self._free(entry)
        return actions

    def _hold(self, entry: Entry, now: float) -> list[Action]:
        """Hosts may use the prefix as long as its last advertised valid lifetime runs; nobody else gets it before."""
        self._expire_at(entry, now + entry.valid_lifetime)
        fields: dict[str, object] = {"node": entry.node, "prefix": entry.prefix}
        return [*self.bind(entry), self._save(entry), Note("session-over", fields)]

    def _free(self, entry: Entry) -> list[Action]:
        self.cache.remove(entry)
        if entry.prefix in self.pool:
            self.pool.give_back(entry.prefix)
        return [
            Unbind(prefix=entry.prefix, node=entry.node),
            ForgetSession(node=entry.node, prefix=entry.prefix),
            Note("prefix-free", {"node": entry.node, "prefix": entry.prefix}),
        ]
