"""Answering updates: the local mobility anchor of Proxy Mobile IPv6 (RFC 5213 5), with several paths (RFC 8278).

    PBU -> checks in order -> look-up -> NEW      a session begins, with prefixes
           (proxy_checks)     (session_  SHARE    the same, with the prefixes of another interface
                               lookup)   UPDATE   extension, handoff, one more path; lifetime 0: de-registration
                                         WAIT     is the node gone from the old MAG? the answer comes later

The order of effects: packets take the new way, then it is durable, then the answer leaves. A refresh that changes
nothing but the time touches neither the data path nor the store.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv6Address

from signaling.actions import Action, ForgetBinding, Note, SaveBinding
from signaling.deadlines import Deadlines
from signaling.door import Door
from signaling.events import BindingsRestored, DatagramReceived
from signaling.flow_rules import FlowRule
from signaling.iana import (
    BindingUpdateFlag,
    HandoffIndicator,
    Ipv4HomeAddressStatus,
    RevocationFlag,
    RevocationStatus,
    RevocationTrigger,
    Status,
)
from signaling.pmip.allotments import Allotment, Allotments
from signaling.pmip.data_path import DataPath
from signaling.pmip.expiry_wheel import ExpiryWheel
from signaling.pmip.flow_bindings import process
from signaling.pmip.gateways import Gateways, Reach
from signaling.pmip.mobility_session import UNNUMBERED, CareOf, MobilitySession
from signaling.pmip.profiles import Profiles
from signaling.pmip.proxy_ack import Granted, accepting, refusing
from signaling.pmip.proxy_checks import BULK, FORCED_UDP, OVERWRITE, ProxyChecks, is_bulk_extension, service_of
from signaling.pmip.registration_request import RegistrationRequest
from signaling.pmip.saved_binding import SavedBinding
from signaling.pmip.session_cache import SessionCache
from signaling.pmip.session_lookup import Finding, Outcome, find
from signaling.rate_limit import RateLimit
from signaling.revoker import Outcome as RevocationOutcome
from signaling.revoker import Recipient, Revoker
from signaling.settings import Clock, Counters, LmaSettings, NodeProfile, Peer, Prefix, Sharing
from signaling.update_request import node_of
from signaling.wire.binding_ack import BindingAck
from signaling.wire.binding_update import BindingUpdate
from signaling.wire.options.access import LinkLocalAddress
from signaling.wire.options.flow import FlowIdentification
from signaling.wire.options.identity import ServiceSelection
from signaling.wire.options.prefix import DelegatedMobileNetworkPrefix
from signaling.wire.options.tunnel import GreKey
from signaling.wire.revocation import BindingRevocationIndication

FIXED_LINK_LOCAL = IPv6Address("fe80::200:5eff:fe00:5213")  # RFC 6543 1
ACCEPTED = Status.BINDING_UPDATE_ACCEPTED
TLV = int(BindingUpdateFlag.TLV_HEADER_FORMAT)
GLOBAL_TRIGGERS = range(128, 250)  # RFC 5846 5.1, as its definitions read, not its text


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
        self.cache = SessionCache()
        self.gateways = Gateways()
        self._settings = settings
        self._door = door
        self._clock = clock
        self._counters = counters
        self._revoker = revoker
        self._wheel: ExpiryWheel[MobilitySession] = ExpiryWheel()
        self._waiting: dict[str, Waiting] = {}  # by node
        self._patience: Deadlines[str] = Deadlines()  # with those that wait, where nobody is asked
        self._last_number = 0
        self._words = RateLimit(rate=10.0, burst=50)  # about refusals: a MAG could fill the log with them
        self._lay_down(settings.profiles, settings.policies)

    def _lay_down(self, profiles: Iterable[NodeProfile], policies: dict[str, tuple[FlowRule, ...]]) -> None:
        settings = self._settings
        self.profiles = Profiles(profiles, known_only=settings.known_nodes_only)
        self.allotments = Allotments(settings, self.profiles, self.cache)
        self.data_path = DataPath(self.cache, self.profiles, policies)
        self._checks = ProxyChecks(settings, self._door, self._clock, self.profiles, self.cache)

    @property
    def next_wake(self) -> float | None:
        """The earliest deadline, monotonic s."""
        return min((at for at in (self._wheel.next, self._patience.next) if at is not None), default=None)

    # --- updates ---

    def answer(self, update: BindingUpdate, peer: Peer | None, event: DatagramReceived, now: float) -> list[Action]:
        """Check an authenticated Proxy Binding Update and do what it asks (RFC 5213 5.3)."""
        local = None if event.destination == self._settings.address else event.destination
        gateway = peer.name if peer is not None else ""
        request = RegistrationRequest(update, event.source, gateway, local=local, port=event.port)
        if is_bulk_extension(request):
            # no group was ever granted, so there is none by that name (RFC 6602 4.4)
            return self._refuse(request, Status.INVALID_MOBILE_NODE_GROUP_IDENTIFIER, now)
        profile = self.profiles.of(request.node)
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
            actions = self._leave(finding.session, now)  # it changed to a service that it may not have
        _, number = self._checks.last_said(request, finding)
        return actions + self._refuse(request, status, now, last_sequence_number=number)

    def _refused(self, request: RegistrationRequest, finding: Finding, now: float) -> list[Action]:
        return self._refuse(request, finding.status or Status.REASON_UNSPECIFIED, now)

    def _update(self, request: RegistrationRequest, finding: Finding, now: float) -> list[Action]:
        session = finding.session
        if session is None:
            raise ValueError("an update of no session")
        path = session.path(request.binding_id)
        if path is not None and self._is_refresh(request, session, path):
            return self._refresh(request, session, path, now)
        return self._change(request, session, now)

    # --- a session begins ---

    def _begin(self, request: RegistrationRequest, finding: Finding, now: float) -> list[Action]:
        """RFC 5213 5.3.2. With a session to share prefixes with: RFC 7864 3.2.1."""
        if len(self.cache) >= self._settings.max_bindings:
            return self._refuse(request, Status.INSUFFICIENT_RESOURCES, now)
        profile = self.profiles.of(request.node)
        sharer = finding.session or self._sharer(request, profile)
        if sharer is None:
            allotment = self.allotments.begin(request, profile)
        else:
            allotment = self.allotments.share(request, profile, sharer)
        if allotment.refused is not None:
            return self._refuse(request, allotment.refused, now, ipv4_status=allotment.ipv4_refused)
        self._last_number += 1
        session = MobilitySession(self._last_number, request.node, request.gateway)
        session.prefixes = allotment.prefixes
        session.ipv4_home, session.delegated = allotment.ipv4_home, allotment.delegated
        self.cache.add(session)
        self._counters["lma.begun"] += 1
        return self._settle(request, session, now)

    def _sharer(self, request: RegistrationRequest, profile: NodeProfile) -> MobilitySession | None:
        """The session whose prefixes a further interface of the node gets too, if its profile says so."""
        if profile.sharing is Sharing.UNIQUE_PREFIX or not request.prefixes_wanted or request.keys:
            return None
        return next((session for session in self.cache.of(request.node) if session.prefixes), None)

    # --- a session goes on ---

    def _is_refresh(self, request: RegistrationRequest, session: MobilitySession, path: CareOf) -> bool:
        """Whether the update changes nothing but times: the usual case, so it is told apart by a few comparisons."""
        multipath = request.multipath
        found = request.found
        if (
            path.address != request.care_of
            or session.leaving
            or session.gateway != request.gateway
            or session.link_layer != request.link_layer
            or session.technology != request.technology
            or path.port != request.port
            or path.local != request.local
            or session.flows
            or request.speaks_of_flows
        ):
            return False
        if multipath is not None and (
            multipath.interface_label != path.label
            or multipath.interface_technology != path.technology
            or request.wants(OVERWRITE)
        ):
            return False
        if multipath is None and len(session.care_ofs) > 1:
            return False
        if GreKey in found or session.gre_keys or ServiceSelection in found or DelegatedMobileNetworkPrefix in found:
            return False
        if LinkLocalAddress in found and self._link_local(request, session) != session.link_local:
            return False
        return (session.ipv4_home is not None or not request.asks_ipv4) and bool(
            session.prefixes or not request.asks_ipv6
        )

    def _refresh(
        self, request: RegistrationRequest, session: MobilitySession, path: CareOf, now: float
    ) -> list[Action]:
        """Extension by the same Proxy-CoA (RFC 5213 5.3.3)."""
        self._remember_order(request, path)
        lifetime = self._extend(request, session, path, now)
        self._counters["lma.refreshed"] += 1
        return [self._accept(request, session, ACCEPTED, lifetime)]

    def _change(self, request: RegistrationRequest, session: MobilitySession, now: float) -> list[Action]:
        """Handoff (RFC 5213 5.3.4), return of a node that left, another path, or more for the session than before."""
        allotment = self.allotments.extend(request, self.profiles.of(request.node), session)
        if allotment.refused is not None:
            return self._refuse(request, allotment.refused, now, ipv4_status=allotment.ipv4_refused)
        handoff = session.gateway != request.gateway
        left = self._reach_of(session) if handoff and not session.leaving else None
        moved = handoff or session.technology != request.technology
        trigger = _handover_trigger(request, session)
        before = _shape(session), _facts(session)
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
            self._drop_ipv6(session)  # RFC 5844 3.1.2.4
        if drop_families and session.ipv4_home is not None and not request.asks_ipv4:
            self._drop_ipv4(session)
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
        before: tuple[object, object] | None = None,
        gone: tuple[Prefix, ...] = (),
    ) -> list[Action]:
        """The session is at the MAG that sent the update; data path, store and MAG learn of it, in this order."""
        for care_of in session.care_ofs if not session.leaving else ():
            self.gateways.remove(session, care_of)
        path = self._place(request, session)
        gre_status, gre = self._key(request, session, path)
        for care_of in session.care_ofs:
            self.gateways.add(session, care_of)
        session.leaving = False
        session.link_layer, session.technology = request.link_layer, request.technology
        session.link_local = self._link_local(request, session)
        session.service = service_of(request) or session.service
        flows = self._flows(request, session)
        lifetime = self._extend(request, session, path, now)
        actions: list[Action] = []
        if before is None or before[0] != _shape(session):
            # bind before acknowledging: the first packet may overtake the acknowledgement
            actions += self.data_path.unbind(session, gone) if gone else ()
            actions += self.data_path.bind(session)
        if before is None or before[1] != _facts(session):
            actions.append(SaveBinding(binding=session.saved()))
            fields = {"node": session.node, "prefix": session.bound, "peer": session.gateway, "bid": path.binding_id}
            actions.append(Note("registered", fields))
        actions.append(self._accept(request, session, gre_status, lifetime, flows=flows, gre=gre))
        return actions

    def _place(self, request: RegistrationRequest, session: MobilitySession) -> CareOf:
        """Put the Proxy-CoA of the update in its place; returns it.

        Without a multipath binding it replaces all. With one it replaces that of its BID; another MAG, or the O flag,
        replaces all (RFC 8278 4.1).
        """
        multipath, same_gateway = request.multipath, session.gateway == request.gateway
        path = session.path(request.binding_id) if same_gateway else None
        if path is None:
            path = CareOf(request.binding_id, request.care_of)
        path.address, path.local, path.port = request.care_of, request.local, request.port
        if multipath is not None:
            path.label, path.technology = multipath.interface_label, multipath.interface_technology
        alone = multipath is None or not same_gateway or request.wants(OVERWRITE) or session.leaving
        others = () if alone else tuple(it for it in session.care_ofs if it is not path and it.binding_id != UNNUMBERED)
        session.keep(tuple(sorted((*others, path), key=lambda care_of: care_of.binding_id)))
        if not same_gateway:
            session.gateway, session.departed = request.gateway, None
        self._remember_order(request, path)
        return path

    def _key(
        self, request: RegistrationRequest, session: MobilitySession, path: CareOf
    ) -> tuple[Status, GreKey | None]:
        """GRE as RFC 5845 5.2 has it: the status of the answer and its option."""
        option = request.get(GreKey)
        if option is None or not self._settings.gre_keys:
            path.downlink_key, session.gre_keys = None, False
            return (ACCEPTED if option is None else Status.GRE_KEY_OPTION_NOT_REQUIRED), None
        path.downlink_key, session.gre_keys = option.key, option.key is not None
        tlv = request.has_flag(TLV)
        status = Status.GRE_TUNNELING_BUT_TLV_HEADER_NOT_SUPPORTED if tlv else ACCEPTED
        return status, GreKey(key=session.uplink_key)

    def _link_local(self, request: RegistrationRequest, session: MobilitySession) -> IPv6Address | None:
        """The MAG's address on the access link: as it says, or the one it had before, or that of RFC 6543."""
        option = request.get(LinkLocalAddress)
        if option is None:
            return session.link_local
        return option.address if int(option.address) else session.link_local or FIXED_LINK_LOCAL

    def _flows(self, request: RegistrationRequest, session: MobilitySession) -> tuple[FlowIdentification, ...]:
        if not session.flows and not request.speaks_of_flows:
            return ()
        registered = {care_of.way_id for care_of in session.care_ofs}
        answer = process(request.update, session.flows, registered)
        session.flows = answer.flows
        return answer.answers

    def _remember_order(self, request: RegistrationRequest, path: CareOf) -> None:
        if request.timestamp is not None:
            path.timestamp = request.timestamp
        else:
            path.sequence_number = request.update.sequence_number

    def _extend(self, request: RegistrationRequest, session: MobilitySession, path: CareOf, now: float) -> int:
        """Give the path its lifetime, or all of them if the update says so. Returns it, s."""
        lifetime = min(request.update.lifetime, self._settings.binding_lifetime)
        path.expires = session.expires = now + lifetime
        if len(session.care_ofs) > 1:
            if request.wants(BULK):
                for care_of in session.care_ofs:
                    care_of.expires = path.expires
            session.expires = min(care_of.expires for care_of in session.care_ofs)
        self._wheel.file(session)
        return lifetime

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
        path = _path_named(request, session)
        if path is None:
            departed = request.binding_id in (session.departed or {})
            return self._gone_already(request, session) if departed else self._ignore("unknown-path")
        # there is no Alternate Care-of Address option for IPv4: the BID alone says which path is meant
        by_number = request.multipath is not None and path.address.version == 4
        if path.address != request.care_of and not by_number:
            return self._ignore("deregistration-by-another")
        self._remember_order(request, path)
        if session.leaving:  # our answer was lost
            return [self._accept(request, session, ACCEPTED, 0)]
        if request.multipath is not None and len(session.care_ofs) > 1:
            return self._remove_path(request, session, path)
        if session.prefixes and session.ipv4_home is not None and request.asks_ipv6 != request.asks_ipv4:
            return self._remove_family(request, session)
        self._counters["lma.deregistered"] += 1
        actions = self._leave(session, now)
        actions.append(self._accept(request, session, ACCEPTED, 0))
        return actions + self._stop_waiting(session.node, now, moved=True)

    def _gone_already(self, request: RegistrationRequest, session: MobilitySession) -> list[Action]:
        if session.departed is not None and request.timestamp is not None:
            session.departed[request.binding_id] = request.timestamp
        return [self._accept(request, session, ACCEPTED, 0)]

    def _remove_path(self, request: RegistrationRequest, session: MobilitySession, path: CareOf) -> list[Action]:
        """One path of several goes, the session stays."""
        self._counters["lma.path-deregistered"] += 1
        self._drop_paths(session, [path])
        flows = self._flows(request, session)
        return [
            *self.data_path.bind(session),
            SaveBinding(binding=session.saved()),
            self._accept(request, session, ACCEPTED, 0, flows=flows),
        ]

    def _remove_family(self, request: RegistrationRequest, session: MobilitySession) -> list[Action]:
        """IPv4 goes or IPv6 goes, the session stays with the other (RFC 5844 3.1.2.5)."""
        answer = self._accept(request, session, ACCEPTED, 0)
        had = session.bound
        self.cache.unindex(session)
        if request.asks_ipv4:
            self._drop_ipv4(session)
        else:
            self._drop_ipv6(session)
        self.cache.index(session)
        gone = tuple(prefix for prefix in had if prefix not in session.bound)
        self._counters["lma.family-deregistered"] += 1
        return [*self.data_path.unbind(session, gone), SaveBinding(binding=session.saved()), answer]

    def _drop_ipv4(self, session: MobilitySession) -> None:
        address, session.ipv4_home = session.ipv4_home, None
        if address is not None:
            self.allotments.give_back_ipv4(address)

    def _drop_ipv6(self, session: MobilitySession) -> None:
        prefixes, session.prefixes = session.prefixes, ()
        self.allotments.give_back_prefixes(session.node, prefixes)

    def _drop_paths(self, session: MobilitySession, lost: Iterable[CareOf]) -> None:
        lost = list(lost)
        for care_of in lost:
            self.gateways.remove(session, care_of)
        session.keep(tuple(it for it in session.care_ofs if it not in lost))
        session.expires = min((care_of.expires for care_of in session.care_ofs), default=session.expires)
        self._wheel.file(session)

    def _leave(self, session: MobilitySession, now: float) -> list[Action]:
        """Nobody delivers to the node now; its entry is kept for MinDelayBeforeBCEDelete, in case it comes back."""
        if session.leaving:
            return []
        for care_of in session.care_ofs:
            self.gateways.remove(session, care_of)
        session.leaving = True
        session.expires = now + self._settings.delete_delay
        self._wheel.file(session)
        return [*self.data_path.bind(session), SaveBinding(binding=session.saved())]

    def _remove(self, session: MobilitySession, reason: str) -> list[Action]:
        """It is over: what it had may be given out again."""
        for care_of in session.care_ofs if not session.leaving else ():
            self.gateways.remove(session, care_of)
        self._wheel.drop(session)
        bound = session.bound
        self.cache.remove(session)
        self.allotments.give_back_prefixes(session.node, session.prefixes)
        if session.ipv4_home is not None:
            self.allotments.give_back_ipv4(session.ipv4_home)
        self.allotments.give_back_delegated(session.delegated)
        self._counters[f"lma.removed.{reason}"] += 1
        return [
            *self.data_path.unbind(session, bound),
            *self.data_path.forget(session),
            ForgetBinding(number=session.number),
            Note("session-removed", {"node": session.node, "prefix": session.prefixes, "reason": reason}),
        ]

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
            node, session.prefixes, trigger, self._reach_of(session), now, on_done=done
        )
        return [note, *told]

    def _found_out(self, node: str, outcome: RevocationOutcome, now: float) -> list[Action]:
        """The old MAG says whether the node is still there, or says nothing (RFC 5846 8.1)."""
        waiting = self._waiting.get(node)
        left = self._leave(waiting.session, now) if outcome.gone and waiting and waiting.session in self.cache else []
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
        for session in self._wheel.due(now):
            actions += self._expire(session, now)
        return actions

    def _expire(self, session: MobilitySession, now: float) -> list[Action]:
        if session.leaving:
            return self._remove(session, "deregistered")
        lost = [care_of for care_of in session.care_ofs if care_of.expires <= now]
        if len(lost) == len(session.care_ofs):
            return self._remove(session, "expired")
        self._drop_paths(session, lost)
        self._counters["lma.path-expired"] += len(lost)
        fields: dict[str, object] = {"node": session.node, "paths": [care_of.binding_id for care_of in lost]}
        return [
            *self.data_path.bind(session), SaveBinding(binding=session.saved()), Note("path-expired", fields)
        ]

    # --- a restart: ours, and that of a MAG ---

    def restore(self, event: BindingsRestored, now: float) -> list[Action]:
        """Take up what a run before this one had acknowledged; every MAG gets a full period to refresh it."""
        restored = [self._restore(saved, now) for saved in event.bindings]
        actions: list[Action] = []
        for session in restored:  # bound only now: what interfaces share needs all of them
            actions += self.data_path.bind(session)
        return actions

    def _restore(self, saved: SavedBinding, now: float) -> MobilitySession:
        session = MobilitySession.restored(saved)
        session.leaving = not session.care_ofs
        session.expires = now + (self._settings.delete_delay if session.leaving else self._settings.binding_lifetime)
        for care_of in session.care_ofs:
            care_of.expires = session.expires
            self.gateways.add(session, care_of)
        self._last_number = max(self._last_number, session.number)
        self.allotments.claim(session)
        self.cache.add(session)
        self._wheel.file(session)
        return session

    def gateway_restarted(self, name: str, now: float) -> list[Action]:
        """A MAG lost its state: what it does not register again soon is over (RFC 5847 3.2)."""
        soon = now + self._settings.delete_delay
        marked = 0
        for session in self.cache:
            if session.gateway == name and not session.leaving:
                for care_of in session.care_ofs:
                    care_of.expires = min(care_of.expires, soon)
                session.expires = min(session.expires, soon)
                self._wheel.file(session)
                marked += 1
        self._counters["lma.gateway-restarted"] += 1
        return [Note("gateway-restarted", {"peer": name, "sessions": marked})]

    # --- revocation (RFC 5846) ---

    def revoke_node(self, node: str, now: float) -> list[Action]:
        """The operator ends all sessions of a node."""
        actions: list[Action] = []
        sessions = [session for session in self.cache.of(node) if not session.leaving]
        told = {session.gateway: self._reach_of(session) for session in sessions}
        for session in sessions:
            actions += self._leave(session, now)
        for to in told.values():
            trigger = RevocationTrigger.ADMINISTRATIVE_REASON
            actions += self._revoker.revoke_session(node, (), trigger, to, now)
        return actions

    def revoke_realm(self, realm: str, now: float) -> list[Action]:
        """The operator ends all sessions of the nodes of a realm; subdomains are not meant (RFC 5846 8.1)."""
        sessions = [it for it in self.cache if it.node.rpartition("@")[2] == realm and not it.leaving]
        told = {session.gateway: self._reach_of(session) for session in sessions}
        actions: list[Action] = []
        for session in sessions:
            actions += self._leave(session, now)
        for to in told.values():
            actions += self._revoker.revoke_realm(realm, to, now)
        return actions

    def revoke_gateway(self, name: str, now: float) -> list[Action]:
        """The operator ends all sessions with a MAG: one message, without any option, says so."""
        reach = self.gateways.reach(name)
        actions = self._leave_gateway(name, now)
        return actions + self._revoker.revoke_peer(_recipient(reach), now) if reach is not None else actions

    def revoke_all(self, now: float) -> list[Action]:
        """The operator ends every session."""
        actions: list[Action] = []
        for name in list(self.gateways):
            actions += self.revoke_gateway(name, now)
        return actions

    def revoked_by(
        self, indication: BindingRevocationIndication, peer: Peer | None, now: float
    ) -> tuple[RevocationStatus, list[Action]]:
        """A MAG ends its sessions: only all of them at once (RFC 5846 8.2, 9.2)."""
        if not isinstance(indication.trigger, RevocationTrigger):
            return RevocationStatus.REVOCATION_TRIGGER_NOT_SUPPORTED, []
        if RevocationFlag.GLOBAL not in indication.flags or indication.trigger not in GLOBAL_TRIGGERS:
            return RevocationStatus.REVOCATION_FUNCTION_NOT_SUPPORTED, []
        authorised = peer is not None and indication.trigger is RevocationTrigger.PER_PEER_POLICY
        if not authorised or peer is None or node_of(indication) not in ("", peer.name):
            return RevocationStatus.GLOBAL_REVOCATION_NOT_AUTHORIZED, []
        return RevocationStatus.SUCCESS, self._leave_gateway(peer.name, now)

    def _leave_gateway(self, name: str, now: float) -> list[Action]:
        actions: list[Action] = []
        for session in self.cache:
            if session.gateway == name:
                actions += self._leave(session, now)
        return actions

    def _reach_of(self, session: MobilitySession) -> Recipient:
        care_of = session.care_ofs[0]
        return Recipient(address=care_of.address, port=care_of.port, source=care_of.local)

    # --- what the operator lays down ---

    def set_policy(self, name: str, rules: tuple[FlowRule, ...]) -> tuple[list[Action], list[MobilitySession]]:
        """A policy changes. Returns what the data path is told, and the sessions whose MAGs should hear of it."""
        actions = self.data_path.set_policy(name, rules)
        concerned = [it for it in self.cache if not it.leaving and self.data_path.depends_on(it, name)]
        for session in concerned:
            if session.policy != name:  # made of what its MAG said, and of this
                actions += self.data_path.bind(session)
        return actions, concerned

    def set_profiles(
        self, profiles: tuple[NodeProfile, ...], now: float
    ) -> tuple[list[Action], list[MobilitySession]]:
        """Profiles change. Nodes that are refused now lose their sessions; the others' MAGs register them again."""
        before = self.profiles
        self._lay_down(profiles, self.data_path.policies)
        actions: list[Action] = []
        concerned = []
        for session in self.cache:
            self.allotments.claim(session)
            profile = self.profiles.of(session.node)
            if profile == before.of(session.node) or session.leaving:
                continue
            if profile.refused or not self.profiles.knows(session.node):
                actions += self.revoke_node(session.node, now)
            else:
                actions += self.data_path.bind(session)
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
    ) -> Action:
        address = session.ipv4_home
        udp = request.has_flag(FORCED_UDP)
        if address is None:
            granted = Granted(session, flows=flows, gre=gre, udp=udp)
        else:
            pool = self.allotments.ipv4
            granted = Granted(session, pool.subnet(address).prefixlen, pool.router(address), flows, gre, udp)
        return self._send(request, accepting(request, status, lifetime, granted))

    def _refuse(
        self,
        request: RegistrationRequest,
        status: Status,
        now: float,
        *,
        ipv4_status: Ipv4HomeAddressStatus | None = None,
        last_sequence_number: int | None = None,
    ) -> list[Action]:
        self._counters[f"lma.refused.{status.name.lower().replace('_', '-')}"] += 1
        ack = refusing(
            request,
            status,
            our_timestamp=self._clock.timestamp(now),
            ipv4_status=ipv4_status,
            last_sequence_number=last_sequence_number,
        )
        answer = self._send(request, ack)
        if not self._words.allows(now):
            return [answer]
        fields = {"node": request.node, "peer": request.gateway or request.source, "status": status.name}
        return [Note("update-refused", fields), answer]

    def _send(self, request: RegistrationRequest, ack: BindingAck) -> Action:
        # back to where it came from, even with an Alternate Care-of Address (RFC 5213 5.3.6)
        source = request.source
        return self._door.send(ack, source, care_of=source, port=request.port, source=request.local)

    def _ignore(self, reason: str) -> list[Action]:
        self._counters[f"lma.ignored.{reason}"] += 1
        return []


def _path_named(request: RegistrationRequest, session: MobilitySession) -> CareOf | None:
    """The path that a de-registration is about; without a BID, the one with its Proxy-CoA."""
    if request.multipath is not None:
        return session.path(request.binding_id)
    same = (care_of for care_of in session.care_ofs if care_of.address == request.care_of)
    return next(same, session.care_ofs[0] if session.care_ofs else None)


def _handover_trigger(request: RegistrationRequest, session: MobilitySession) -> RevocationTrigger:
    if request.handoff == HandoffIndicator.HANDOFF_STATE_UNKNOWN:
        return RevocationTrigger.INTER_MAG_HANDOVER_UNKNOWN
    if request.technology == session.technology:
        return RevocationTrigger.INTER_MAG_HANDOVER_SAME_ACCESS_TYPE
    return RevocationTrigger.INTER_MAG_HANDOVER_DIFFERENT_ACCESS_TYPE


def _recipient(reach: Reach) -> Recipient:
    return Recipient(address=reach.address, port=reach.port, source=reach.local)


def _shape(session: MobilitySession) -> object:
    """What the data path makes of a session."""
    ways = [
        (it.binding_id, it.address, it.local, it.data_port, it.label, it.downlink_key) for it in session.care_ofs
    ]
    return session.bound, ways, session.flows, session.leaving, session.gre_keys


def _facts(session: MobilitySession) -> object:
    """What of a session is durable; order and time left out."""
    ports = [(it.port, it.technology) for it in session.care_ofs]
    access = session.gateway, session.link_layer, session.technology, session.service, session.link_local
    return _shape(session), ports, access


Answer = Callable[[LocalMobilityAnchor, RegistrationRequest, Finding, float], list[Action]]
ANSWERS: dict[Outcome, Answer] = {
    Outcome.NEW: LocalMobilityAnchor._begin,
    Outcome.SHARE: LocalMobilityAnchor._begin,
    Outcome.UPDATE: LocalMobilityAnchor._update,
    Outcome.WAIT: LocalMobilityAnchor._wait,
    Outcome.REFUSE: LocalMobilityAnchor._refused,
}
