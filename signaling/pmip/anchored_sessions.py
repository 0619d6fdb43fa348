"""The mobility sessions of one LMA with all that hangs on each: indexes, lifetimes, what it was given, its way.

    begin -> [extend ...] -> leave (kept a while, its packets are held) -> remove
                    `-> a path, or a family of addresses, goes before the rest

Here is how sessions come and go; why they do is the business of who calls.
"""

from collections.abc import Iterable

from signaling.actions import Action, ForgetBinding, Note, SaveBinding
from signaling.flow_rules import FlowRule
from signaling.iana import PROXY_MOBILE_IPV6_DATA_PORT
from signaling.pmip.allotments import Allotment, Allotments
from signaling.pmip.data_path import DataPath
from signaling.pmip.expiry_wheel import ExpiryWheel
from signaling.pmip.gateways import Gateways, WayKey
from signaling.pmip.mobility_session import CareOf, MobilitySession
from signaling.pmip.proxy_checks import BULK
from signaling.pmip.registration_request import RegistrationRequest
from signaling.pmip.saved_binding import SavedBinding
from signaling.pmip.session_cache import SessionCache
from signaling.profiles import Profiles
from signaling.revoker import Recipient
from signaling.settings import Counters, LmaSettings, NodeProfile


class AnchoredSessions:
    """All sessions of one LMA. Whatever changes of one that is durable is told by save()."""

    def __init__(self, settings: LmaSettings, counters: Counters) -> None:
        self.settings = settings
        self.cache = SessionCache()
        self.gateways = Gateways()
        self.wheel: ExpiryWheel[MobilitySession] = ExpiryWheel()
        self._counters = counters
        self._last_number = 0
        self.lay_down(settings.profiles, settings.policies)

    def lay_down(self, profiles: Iterable[NodeProfile], policies: dict[str, tuple[FlowRule, ...]]) -> None:
        """What holds for nodes from now on."""
        self.profiles = Profiles(profiles, known_only=self.settings.known_nodes_only)
        self.allotments = Allotments(self.settings, self.profiles, self.cache)
        self.data_path = DataPath(self.cache, self.profiles, policies)

    # --- a session begins and goes on ---

    def begin(self, request: RegistrationRequest, allotment: Allotment) -> MobilitySession:
        """A session with all it was given, and no place yet."""
        self._last_number += 1
        session = MobilitySession(self._last_number, request.node, request.gateway)
        session.prefixes = allotment.prefixes
        session.ipv4_home, session.delegated = allotment.ipv4_home, allotment.delegated
        self.cache.add(session)
        self._counters["lma.begun"] += 1
        return session

    def extend(self, request: RegistrationRequest, session: MobilitySession, path: CareOf, now: float) -> int:
        """Give the path its lifetime, or all of them if the update says so. Returns it, s."""
        if request.wants(BULK):
            for care_of in session.care_ofs:
                care_of.expires = now + min(request.update.lifetime, self.settings.binding_lifetime)
        return self.prolong(session, path, request.update.lifetime, now)

    def prolong(self, session: MobilitySession, path: CareOf, wanted: int, now: float) -> int:
        """The path stays for as long as is wanted, or as may be. Returns how long, s."""
        lifetime = min(wanted, self.settings.binding_lifetime)
        path.expires = session.expires = now + lifetime
        if len(session.care_ofs) > 1:
            session.expires = min(care_of.expires for care_of in session.care_ofs)
        self.wheel.file(session)
        return lifetime

    def save(self, session: MobilitySession) -> SaveBinding:
        """Something durable of it is not as it was."""
        return SaveBinding(binding=session.saved())

    # --- a path behind a NAT ---

    def data_port(self, request: RegistrationRequest, path: CareOf) -> int:
        """Where its data comes from: as other sessions by that way have it, or as a NAT leaves it, if it can."""
        if not request.in_udp:
            return 0
        reach = self.gateways.way((request.gateway, path.way_id))
        known = reach.tunnel.port if reach is not None and reach.address == path.address else 0
        return known or path.data_port or PROXY_MOBILE_IPV6_DATA_PORT

    def data_moved(self, key: WayKey, port: int) -> list[Action]:
        """Behind its NAT a MAG sends data from this port now: that is where it gets its own."""
        name, number = key
        actions: list[Action] = []
        for session in self.cache:
            moved = [it for it in session.care_ofs if it.way_id == number and it.data_port not in (0, port)]
            if session.gateway != name or session.leaving or not moved:
                continue
            for path in moved:
                path.data_port = port
            actions += [*self.data_path.bind(session), self.save(session)]
        self.gateways.data_moved(key, port)
        self._counters["lma.data-moved"] += 1
        return [*actions, Note("data-moved", {"peer": name, "bid": number, "port": port})]

    # --- parts of a session end ---

    def drop_ipv4(self, session: MobilitySession) -> None:
        """Its IPv4 home address is free; the caller sees to the index."""
        address, session.ipv4_home = session.ipv4_home, None
        if address is not None:
            self.allotments.give_back_ipv4(address)

    def drop_ipv6(self, session: MobilitySession) -> None:
        """Its home network prefixes are free; the caller sees to the index."""
        prefixes, session.prefixes = session.prefixes, ()
        self.allotments.give_back_prefixes(session.node, prefixes)

    def drop_paths(self, session: MobilitySession, lost: list[CareOf]) -> None:
        """It is not at these care-of addresses any more."""
        for care_of in lost:
            self.gateways.remove(session, care_of)
        session.keep(tuple(it for it in session.care_ofs if it not in lost))
        session.expires = min((care_of.expires for care_of in session.care_ofs), default=session.expires)
        self.wheel.file(session)

    # --- a session ends ---

    def leave(self, session: MobilitySession, now: float) -> list[Action]:
        """Nobody delivers to the node now; its entry is kept for MinDelayBeforeBCEDelete, in case it comes back."""
        if session.leaving:
            return []
        for care_of in session.care_ofs:
            self.gateways.remove(session, care_of)
        session.leaving = True
        session.expires = now + self.settings.delete_delay
        self.wheel.file(session)
        return [*self.data_path.bind(session), self.save(session)]

    def leave_gateway(self, name: str, now: float) -> list[Action]:
        """All sessions at a MAG end."""
        actions: list[Action] = []
        for session in self.cache:
            if session.gateway == name:
                actions += self.leave(session, now)
        return actions

    def remove(self, session: MobilitySession, reason: str) -> list[Action]:
        """It is over: what it had may be given out again."""
        for care_of in session.care_ofs if not session.leaving else ():
            self.gateways.remove(session, care_of)
        self.wheel.drop(session)
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

    def expire(self, now: float) -> list[Action]:
        """End what has lasted as long as it was granted: sessions, and paths of several."""
        actions: list[Action] = []
        for session in self.wheel.due(now):
            actions += self._expire(session, now)
        return actions

    def _expire(self, session: MobilitySession, now: float) -> list[Action]:
        if session.leaving:
            return self.remove(session, "deregistered")
        lost = [care_of for care_of in session.care_ofs if care_of.expires <= now]
        if len(lost) == len(session.care_ofs):
            return self.remove(session, "expired")
        self.drop_paths(session, lost)
        self._counters["lma.path-expired"] += len(lost)
        fields: dict[str, object] = {"node": session.node, "paths": [care_of.binding_id for care_of in lost]}
        return [*self.data_path.bind(session), self.save(session), Note("path-expired", fields)]

    # --- a restart: ours, and that of a MAG ---

    def restore(self, bindings: Iterable[SavedBinding], now: float) -> list[Action]:
        """Take up what a run before this one had acknowledged; every MAG gets a full period to refresh it."""
        restored = [self._restore(saved, now) for saved in bindings]
        actions = self.data_path.bind_all(restored)  # only now: what interfaces share needs all of them
        return [*actions, Note("sessions-restored", {"sessions": len(restored)})] if restored else actions

    def _restore(self, saved: SavedBinding, now: float) -> MobilitySession:
        session = MobilitySession.restored(saved)
        session.leaving = not session.care_ofs
        session.expires = now + (self.settings.delete_delay if session.leaving else self.settings.binding_lifetime)
        for care_of in session.care_ofs:
            care_of.expires = session.expires
            self.gateways.add(session, care_of)
        self._last_number = max(self._last_number, session.number)
        self.allotments.claim(session)
        self.cache.add(session)
        self.wheel.file(session)
        return session

    def gateway_restarted(self, name: str, now: float) -> list[Action]:
        """A MAG lost its state: what it does not register again soon is over (RFC 5847 3.2)."""
        soon = now + self.settings.delete_delay
        marked = 0
        for session in self.cache:
            if session.gateway == name and not session.leaving:
                for care_of in session.care_ofs:
                    care_of.expires = min(care_of.expires, soon)
                session.expires = min(session.expires, soon)
                self.wheel.file(session)
                marked += 1
        self._counters["lma.gateway-restarted"] += 1
        return [Note("gateway-restarted", {"peer": name, "sessions": marked})]


def reach_of(session: MobilitySession) -> Recipient:
    """Whom a message about a session goes to."""
    care_of = session.care_ofs[0]
    return Recipient(address=care_of.address, port=care_of.port, source=care_of.local)
