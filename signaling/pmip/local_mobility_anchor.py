"""Answering updates: the local mobility anchor of Proxy Mobile IPv6 (RFC 5213 5), with several paths (RFC 8278).

    PBU -> checks in order -> look-up -> NEW      a session begins, with prefixes
           (proxy_checks)     (session_  SHARE    the same, with the prefixes of another interface
                               lookup)   UPDATE   extension, handoff, one more path; lifetime 0: de-registration
                                         WAIT     is the node gone from the old MAG? the answer comes later
     `-> or an extension in known words (known_wordings): answered without being read

The order of effects: packets take the new way, then it is durable, then the answer leaves. A refresh that changes
nothing but the time touches neither the data path nor the store.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from signaling.actions import Action, Note, Send, SendOctets
from signaling.deadlines import Deadlines
from signaling.door import Door
from signaling.events import BindingsRestored, DatagramReceived
from signaling.flow_bindings import process
from signaling.flow_rules import FlowRule
from signaling.iana import RevocationTrigger, Status
from signaling.pmip.allotments import Allotment
from signaling.pmip.anchor_revocations import AnchorRevocations
from signaling.pmip.anchored_sessions import AnchoredSessions, reach_of
from signaling.pmip.known_wordings import KnownWordings
from signaling.pmip.mobility_session import CareOf, MobilitySession
from signaling.pmip.placing import (
    ACCEPTED,
    Facts,
    exchange_keys,
    facts,
    handover_trigger,
    is_refresh,
    link_local,
    path_named,
    place,
    remember_order,
)
from signaling.pmip.proxy_checks import ProxyChecks, is_bulk_extension, service_of
from signaling.pmip.registration_request import RegistrationRequest
from signaling.pmip.replies import Replies
from signaling.pmip.session_lookup import Finding, Outcome, find
from signaling.revoker import Outcome as RevocationOutcome
from signaling.revoker import Revoker
from signaling.settings import Clock, Counters, LmaSettings, NodeProfile, Peer, Prefix, Sharing
from signaling.wire.binding_update import BindingUpdate
from signaling.wire.options.flow import FlowIdentification
from signaling.wire.options.tunnel import GreKey


@dataclass(frozen=True, slots=True)
class Waiting:
    """An update that passed all checks but is not answered yet: it may be about this session, or begin another."""

    request: RegistrationRequest
    session: MobilitySession


class LocalMobilityAnchor:
    """The mobility sessions of one LMA and what updates do to them."""

    def __init__(
        self, settings: LmaSettings, door: Door, clock: Clock, counters: Counters, revoker: Revoker
    ) -> None:
        self.sessions = AnchoredSessions(settings, counters)
        self.cache = self.sessions.cache
        self.gateways = self.sessions.gateways
        self.revocations = AnchorRevocations(self.sessions, revoker)
        self._settings = settings
        self._door = door
        self._clock = clock
        self._counters = counters
        self._revoker = revoker
        self._replies = Replies(door, clock, counters)
        self._wordings = KnownWordings()
        self._checks = self._new_checks()
        self._waiting: dict[str, Waiting] = {}  # by node
        self._patience: Deadlines[str] = Deadlines()  # with those that wait, where nobody is asked

    def _new_checks(self) -> ProxyChecks:
        return ProxyChecks(self._settings, self._door, self._clock, self.sessions.profiles, self.cache)

    @property
    def next_wake(self) -> float | None:
        """The earliest deadline, monotonic s."""
        return min((at for at in (self.sessions.wheel.next, self._patience.next) if at is not None), default=None)

    # --- updates ---

    def extend(self, event: DatagramReceived, now: float) -> Send | None:
        """The answer to an extension in known words; None: the update has to be read."""
        extension = self._wordings.find(event.octets)
        session = self.cache.only_holder(extension.key) if extension is not None else None
        if extension is None or session is None or not extension.is_about(session):
            return None
        path, source, timestamp = session.care_ofs[0], event.source, extension.timestamp
        local = None if event.destination == self._settings.address else event.destination
        if source != path.address or event.port != path.port or local != path.local:
            return None
        # the MAC covers all that the checksum does
        peer = self._door.signer(event.octets, source)
        if peer is None or peer.name != session.gateway or not self.sessions.profiles.admits(session.node, peer.name):
            return None
        if not self._checks.in_order(timestamp, path.timestamp, now):
            return None
        path.timestamp = timestamp
        lifetime = self.sessions.prolong(session, path, extension.like.update.lifetime, now)
        self._counters["lma.refreshed"] += 1
        answer = self._door.seal(extension.answer(lifetime), peer, source, source=local)
        return SendOctets(answer, source, event.port, local)

    def answer(self, update: BindingUpdate, peer: Peer | None, event: DatagramReceived, now: float) -> list[Action]:
        """Check an authenticated Proxy Binding Update and do what it asks (RFC 5213 5.3)."""
        local = None if event.destination == self._settings.address else event.destination
        gateway = peer.name if peer is not None else ""
        request = RegistrationRequest(update, event.source, gateway, local=local, port=event.port, octets=event.octets)
        if is_bulk_extension(request):
            # no group was ever granted, so there is none by that name (RFC 6602 4.4)
            return self._replies.refuse(request, Status.INVALID_MOBILE_NODE_GROUP_IDENTIFIER, now)
        profile = self.sessions.profiles.of(request.node)
        finding = find(request, self.cache, shares=profile.sharing is not Sharing.UNIQUE_PREFIX)
        status = self._checks.status(request, profile, finding, now)
        if status is not None:
            return self._turn_down(request, finding, status, now)
        if update.lifetime == 0:
            return self._deregister(request, finding, now)
        return ANSWERS[finding.outcome](self, request, finding, now)

    def _turn_down(
        self, request: RegistrationRequest, finding: Finding, status: Status, now: float
    ) -> list[Action]:
        """A check failed. Nothing changes, with one exception that RFC 5149 4 makes."""
        actions: list[Action] = []
        if status is Status.SERVICE_AUTHORIZATION_FAILED and finding.outcome is Outcome.UPDATE and finding.session:
            actions = self.sessions.leave(finding.session, now)  # it changed to a service that it may not have
        _, number = self._checks.last_said(request, finding)
        return actions + self._replies.refuse(request, status, now, last_sequence_number=number)

    def _refused(self, request: RegistrationRequest, finding: Finding, now: float) -> list[Action]:
        return self._replies.refuse(request, finding.status or Status.REASON_UNSPECIFIED, now)

    def _update(self, request: RegistrationRequest, finding: Finding, now: float) -> list[Action]:
        session = finding.session
        if session is None:
            raise ValueError("an update of no session")
        path = session.path(request.binding_id)
        if path is not None and is_refresh(request, session, path):
            return self._refresh(request, session, path, now)
        return self._change(request, session, now)

    # --- a session begins ---

    def _begin(self, request: RegistrationRequest, finding: Finding, now: float) -> list[Action]:
        """RFC 5213 5.3.2. With a session to share prefixes with: RFC 7864 3.2.1."""
        if len(self.cache) >= self._settings.max_bindings:
            return self._replies.refuse(request, Status.INSUFFICIENT_RESOURCES, now)
        profile = self.sessions.profiles.of(request.node)
        sharer = finding.session or self._sharer(request, profile)
        if sharer is None:
            allotment = self.sessions.allotments.begin(request, profile)
        else:
            allotment = self.sessions.allotments.share(request, profile, sharer)
        if allotment.refused is not None:
            return self._replies.refuse(request, allotment.refused, now, ipv4_status=allotment.ipv4_refused)
        return self._settle(request, self.sessions.begin(request, allotment), now)

    def _sharer(self, request: RegistrationRequest, profile: NodeProfile) -> MobilitySession | None:
        """The session whose prefixes a further interface of the node gets too, if its profile says so."""
        if profile.sharing is Sharing.UNIQUE_PREFIX or not request.prefixes_wanted or request.keys:
            return None
        return next((session for session in self.cache.of(request.node) if session.prefixes), None)

    # --- a session goes on ---

    def _refresh(
        self, request: RegistrationRequest, session: MobilitySession, path: CareOf, now: float
    ) -> list[Action]:
        """Extension by the same Proxy-CoA (RFC 5213 5.3.3)."""
        remember_order(request, path)
        lifetime = self.sessions.extend(request, session, path, now)
        self._counters["lma.refreshed"] += 1
        answer = self._accept(request, session, ACCEPTED, lifetime)
        if isinstance(answer, Send):
            self._wordings.learn(request, answer.octets)
        return [answer]

    def _change(self, request: RegistrationRequest, session: MobilitySession, now: float) -> list[Action]:
        """Handoff (RFC 5213 5.3.4), return of a node that left, another path, or more for the session than before."""
        allotment = self.sessions.allotments.extend(request, self.sessions.profiles.of(request.node), session)
        if allotment.refused is not None:
            return self._replies.refuse(request, allotment.refused, now, ipv4_status=allotment.ipv4_refused)
        handoff = session.gateway != request.gateway
        left = reach_of(session) if handoff and not session.leaving else None
        moved = handoff or session.technology != request.technology
        trigger = handover_trigger(request, session)
        before = facts(session)
        gone = self._rearrange(request, session, allotment, drop_families=handoff)
        actions = self._settle(request, session, now, before=before, gone=gone)
        self._counters["lma.handed-off" if moved else "lma.changed"] += 1
        if left is not None:
            # its state there is of no use any more; it need not wait for the lifetime to end (RFC 5846 8.1)
            actions += self._revoker.revoke_session(session.node, session.prefixes, trigger, left, now)
        return actions

    def _rearrange(
        self, request: RegistrationRequest, session: MobilitySession, allotment: Allotment, *, drop_families: bool
    ) -> tuple[Prefix, ...]:
        """Give the session what it gets and take what its new MAG does not serve. Returns what it lost."""
        had = session.bound
        self.cache.unindex(session)
        if drop_families and session.prefixes and not request.asks_ipv6:
            self.sessions.drop_ipv6(session)  # RFC 5844 3.1.2.4
        if drop_families and session.ipv4_home is not None and not request.asks_ipv4:
            self.sessions.drop_ipv4(session)
        session.prefixes += allotment.prefixes
        session.ipv4_home = session.ipv4_home or allotment.ipv4_home
        session.delegated += allotment.delegated
        self.cache.index(session)
        kept = session.bound
        return tuple(prefix for prefix in had if prefix not in kept)

    def _settle(
        self,
        request: RegistrationRequest,
        session: MobilitySession,
        now: float,
        *,
        before: Facts | None = None,
        gone: tuple[Prefix, ...] = (),
    ) -> list[Action]:
        """The session is at the MAG that sent the update; data path, store and MAG learn of it, in this order."""
        for care_of in session.care_ofs if not session.leaving else ():
            self.gateways.remove(session, care_of)
        came = before is not None and (session.leaving or session.gateway != request.gateway)
        path = place(request, session)
        path.data_port = self.sessions.data_port(request, path)
        gre_status, gre = exchange_keys(request, session, path, wanted=self._settings.gre_keys)
        for care_of in session.care_ofs:
            self.gateways.add(session, care_of)
        session.leaving = False
        session.link_layer, session.technology = request.link_layer, request.technology
        session.link_local = link_local(request, session)
        session.service = service_of(request) or session.service
        flows = self._flows(request, session)
        lifetime = self.sessions.extend(request, session, path, now)
        actions: list[Action] = []
        after = facts(session)
        if before is None or before.shape != after.shape:
            # bind before acknowledging: the first packet may overtake the acknowledgement
            actions += self.sessions.data_path.unbind(session, gone) if gone else ()
            actions += self.sessions.data_path.bind(session)
        if before != after:
            actions.append(self.sessions.save(session))
            fields = {"node": session.node, "prefix": session.bound, "peer": session.gateway, "bid": path.binding_id}
            actions.append(Note("registered", fields))
        actions.append(self._accept(request, session, gre_status, lifetime, flows=flows, gre=gre, handoff=came))
        return actions

    def _flows(self, request: RegistrationRequest, session: MobilitySession) -> tuple[FlowIdentification, ...]:
        if not session.flows and not request.speaks_of_flows:
            return ()
        registered = {care_of.way_id for care_of in session.care_ofs}
        answer = process(request.update, session.flows, registered)
        session.flows = answer.flows
        return answer.answers

    # --- a session ends ---

    def _deregister(self, request: RegistrationRequest, finding: Finding, now: float) -> list[Action]:
        """Lifetime 0 (RFC 5213 5.3.5). One that matches nothing is silently ignored."""
        session = finding.session
        if finding.outcome is Outcome.REFUSE:
            named_wrongly = finding.status is Status.BCE_PBU_PREFIX_SET_DO_NOT_MATCH or session is None
            return self._refused(request, finding, now) if named_wrongly else self._ignore("unknown-binding")
        if session is None or finding.outcome is not Outcome.UPDATE:
            return self._ignore("unknown-binding")
        if session.gateway != request.gateway:
            return self._ignore("deregistration-by-another")
        path = path_named(request, session)
        if path is None:
            departed = request.binding_id in (session.departed or {})
            return self._gone_already(request, session) if departed else self._ignore("unknown-path")
        # there is no Alternate Care-of Address option for IPv4: the BID alone says which path is meant
        by_number = request.multipath is not None and path.address.version == 4
        if path.address != request.care_of and not by_number:
            return self._ignore("deregistration-by-another")
        remember_order(request, path)
        if session.leaving:  # our answer was lost
            return [self._accept(request, session, ACCEPTED, 0)]
        if request.multipath is not None and len(session.care_ofs) > 1:
            return self._remove_path(request, session, path)
        if session.prefixes and session.ipv4_home is not None and request.asks_ipv6 != request.asks_ipv4:
            return self._remove_family(request, session)
        self._counters["lma.deregistered"] += 1
        actions = self.sessions.leave(session, now)
        actions.append(self._accept(request, session, ACCEPTED, 0))
        return actions + self._stop_waiting(session.node, now, moved=True)

    def _gone_already(self, request: RegistrationRequest, session: MobilitySession) -> list[Action]:
        if session.departed is not None and request.timestamp is not None:
            session.departed[request.binding_id] = request.timestamp
        return [self._accept(request, session, ACCEPTED, 0)]

    def _remove_path(self, request: RegistrationRequest, session: MobilitySession, path: CareOf) -> list[Action]:
        """One path of several goes, the session stays."""
        self._counters["lma.path-deregistered"] += 1
        self.sessions.drop_paths(session, [path])
        flows = self._flows(request, session)
        return [
            *self.sessions.data_path.bind(session),
            self.sessions.save(session),
            self._accept(request, session, ACCEPTED, 0, flows=flows),
        ]

    def _remove_family(self, request: RegistrationRequest, session: MobilitySession) -> list[Action]:
        """IPv4 goes or IPv6 goes, the session stays with the other (RFC 5844 3.1.2.5)."""
        answer = self._accept(request, session, ACCEPTED, 0)
        had = session.bound
        self.cache.unindex(session)
        if request.asks_ipv4:
            self.sessions.drop_ipv4(session)
        else:
            self.sessions.drop_ipv6(session)
        self.cache.index(session)
        gone = tuple(prefix for prefix in had if prefix not in session.bound)
        self._counters["lma.family-deregistered"] += 1
        return [*self.sessions.data_path.unbind(session, gone), self.sessions.save(session), answer]

    # --- waiting for a de-registration (RFC 5213 5.4.1.2-4, 5.4.1.3-3) ---

    def _wait(self, request: RegistrationRequest, finding: Finding, now: float) -> list[Action]:
        session = finding.session
        if session is None or not self._settings.wait_for_deregistration:
            return self._begin(request, Finding(Outcome.NEW), now)
        if session.leaving:
            return self._change(request, session, now)
        node = request.node
        waits_already = node in self._waiting
        self._waiting[node] = Waiting(request, session)  # the newest: it is the one that is waited for
        if waits_already:
            return []
        self._counters["lma.waiting"] += 1
        note = Note("registration-waits", {"node": node, "peer": request.gateway, "for": session.gateway})
        if not self._settings.revoke_to_find_out:
            self._patience.set(node, now + self._settings.assign_delay)
            return [note]
        trigger = RevocationTrigger.INTER_MAG_HANDOVER_UNKNOWN
        done = partial(self._found_out, node)
        told = self._revoker.revoke_session(
            node, session.prefixes, trigger, reach_of(session), now, on_done=done
        )
        return [note, *told]

    def _found_out(self, node: str, outcome: RevocationOutcome, now: float) -> list[Action]:
        """The old MAG says whether the node is still there, or says nothing (RFC 5846 8.1)."""
        waiting = self._waiting.get(node)
        left: list[Action] = []
        if outcome.gone and waiting is not None and waiting.session in self.cache:
            left = self.sessions.leave(waiting.session, now)
        return left + self._stop_waiting(node, now, moved=outcome.gone)

    def _stop_waiting(self, node: str, now: float, *, moved: bool) -> list[Action]:
        """Answer the update that waits, if any: it moves the session, or it begins one."""
        waiting = self._waiting.pop(node, None)
        self._patience.cancel(node)
        if waiting is None:
            return []
        if moved and waiting.session in self.cache:
            return self._change(waiting.request, waiting.session, now)
        return self._begin(waiting.request, Finding(Outcome.NEW), now)

    # --- time ---

    def wake(self, now: float) -> list[Action]:
        """Let waiting end, and sessions and paths whose lifetime is over."""
        actions: list[Action] = []
        for node in self._patience.due(now):
            actions += self._stop_waiting(node, now, moved=False)
        return actions + self.sessions.expire(now)

    def restore(self, event: BindingsRestored, now: float) -> list[Action]:
        """Take up what a run before this one had acknowledged; every MAG gets a full period to refresh it."""
        return self.sessions.restore(event.bindings, now)

    # --- what the operator lays down ---

    def set_policy(self, name: str, rules: tuple[FlowRule, ...]) -> tuple[list[Action], list[MobilitySession]]:
        """A policy changes. Returns what the data path is told, and the sessions whose MAGs should hear of it."""
        actions = self.sessions.data_path.set_policy(name, rules)
        concerned = [it for it in self.cache if not it.leaving and self.sessions.data_path.depends_on(it, name)]
        for session in concerned:
            if session.policy != name:  # made of what its MAG said, and of this
                actions += self.sessions.data_path.bind(session)
        return actions, concerned

    def set_profiles(
        self, profiles: tuple[NodeProfile, ...], now: float
    ) -> tuple[list[Action], list[MobilitySession]]:
        """Profiles change. Nodes that are refused now lose their sessions; the others' MAGs register them again."""
        before = self.sessions.profiles
        self.sessions.lay_down(profiles, self.sessions.data_path.policies)
        self._checks = self._new_checks()
        actions: list[Action] = []
        concerned = []
        for session in self.cache:
            self.sessions.allotments.claim(session)
            profile = self.sessions.profiles.of(session.node)
            if profile == before.of(session.node) or session.leaving:
                continue
            if profile.refused or not self.sessions.profiles.knows(session.node):
                actions += self.revocations.revoke_node(session.node, now)
            else:
                actions += self.sessions.data_path.bind(session)
                concerned.append(session)
        return actions, concerned

    # --- answers ---

    def _accept(
        self,
        request: RegistrationRequest,
        session: MobilitySession,
        status: Status,
        lifetime: int,
        *,
        flows: tuple[FlowIdentification, ...] = (),
        gre: GreKey | None = None,
        handoff: bool = False,
    ) -> Send | Note:
        allotments = self.sessions.allotments
        return self._replies.accept(
            request, session, allotments, status, lifetime, flows=flows, gre=gre, handoff=handoff
        )

    def _ignore(self, reason: str) -> list[Action]:
        self._counters[f"lma.ignored.{reason}"] += 1
        return []


Answer = Callable[[LocalMobilityAnchor, RegistrationRequest, Finding, float], list[Action]]
ANSWERS: dict[Outcome, Answer] = {
    Outcome.NEW: LocalMobilityAnchor._begin,
    Outcome.SHARE: LocalMobilityAnchor._begin,
    Outcome.UPDATE: LocalMobilityAnchor._update,
    Outcome.WAIT: LocalMobilityAnchor._wait,
    Outcome.REFUSE: LocalMobilityAnchor._refused,
}
