"""Local Mobility Anchor of Proxy Mobile IPv6 (RFC 5213): one for a domain, reached over several paths (RFC 8278).

    Reception -> LocalMobilityAnchor    updates, and what they do to sessions
              -> Heartbeats              does a MAG live, and does it still know what it knew
              -> PathMonitor             does a path to it carry packets, and how well
              -> Revoker, Notifier       what we tell MAGs of our own accord

The anchor says which ways to which MAGs are in use; the two that watch follow it.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from signaling.actions import Action, Note, TunnelEnd
from signaling.deadlines import SOON
from signaling.door import Door, addresses_of
from signaling.events import BindingsRestored, ClockStepped, DatagramReceived, Event
from signaling.flow_rules import FlowRule
from signaling.iana import (
    BindingErrorStatus,
    RevocationFlag,
    RevocationStatus,
    Status,
    UpdateNotificationReason,
)
from signaling.notifier import Notifier
from signaling.pmip.gateways import WayKey
from signaling.pmip.heartbeats import Heartbeats, PeerEvent, PeerNews
from signaling.pmip.local_mobility_anchor import LocalMobilityAnchor
from signaling.pmip.mobility_session import CareOf, MobilitySession
from signaling.pmip.path_monitor import PathMonitor, Way
from signaling.pmip.proxy_ack import refusing
from signaling.pmip.registration_request import RegistrationRequest
from signaling.reception import Reception
from signaling.revoker import Revoker
from signaling.settings import Address, Clock, Counters, LmaSettings, NodeProfile, Peer, WayState
from signaling.update_request import care_of_address, subject_of
from signaling.wire.binding_error import BindingError
from signaling.wire.binding_update import BindingUpdate
from signaling.wire.heartbeat import Heartbeat
from signaling.wire.message import Message
from signaling.wire.notification import UpdateNotificationAck
from signaling.wire.revocation import BindingRevocationAck, BindingRevocationIndication

PROXY = RevocationFlag.PROXY_BINDING


def unknown_traffic(tunnel: TunnelEnd) -> int:
    """Where nobody counts packets."""
    return -1


class Lma:
    """One anchor: `handle`, `wake`, `next_wake`, and `drain` before the end."""

    def __init__(
        self, settings: LmaSettings, *, traffic: Callable[[TunnelEnd], int] = unknown_traffic
    ) -> None:
        self.settings = settings
        self.counters = Counters()
        self.clock = Clock()
        self.door = Door(settings, self.counters)
        self.revoker = Revoker(self.door, self.clock, self.counters)
        self.notifier = Notifier(settings, self.door, self.clock, self.counters)
        self.heartbeats = Heartbeats(settings, self.door, self.clock, self.counters)
        self.monitor = PathMonitor(settings, self.door, self.clock, self.counters, traffic=traffic)
        self.anchor = LocalMobilityAnchor(settings, self.door, self.clock, self.counters, self.revoker)
        self.cache = self.anchor.cache
        self._to_follow: dict[WayKey, None] = {}
        self._follow_at: float | None = None  # monotonic s
        self.reception = Reception(
            self.door,
            self.clock,
            self.counters,
            {
                BindingUpdate: self._update,
                Heartbeat: self._heartbeat,
                BindingRevocationIndication: self._revocation,
                BindingRevocationAck: self._revocation_ack,
                UpdateNotificationAck: self._notification_ack,
                BindingError: self._not_understood,
            },
            care_of=_care_of,
            refuse_forged=self._refuse_forged,
        )

    def handle(self, event: Event, now: float) -> list[Action]:
        """What to do about an event. now: monotonic s."""
        handler = HANDLERS.get(type(event))
        if handler is None:
            self.counters[f"ignored.{type(event).__name__}"] += 1  # an LMA has no access links
            return []
        actions = handler(self, event, now)
        self._notice_ways(now)
        return actions

    def wake(self, now: float) -> list[Action]:
        """What to do because of the time."""
        actions = self.anchor.wake(now)
        actions += self.revoker.wake(now)
        actions += self.notifier.wake(now)
        beats, news = self.heartbeats.wake(now)
        actions += beats
        for item in news:
            actions += self._take_news(item, now)
        actions += self.monitor.wake(now)
        self._notice_ways(now)
        return actions + self._follow_ways(now)

    @property
    def next_wake(self) -> float | None:
        """When wake() is due next, monotonic s; None: never, unless something happens."""
        parts = (
            self.anchor.next_wake,
            self.revoker.deadlines.next,
            self.notifier.next_wake,
            self.heartbeats.next_wake,
            self.monitor.next_wake,
            self._follow_at,
        )
        return min((at for at in parts if at is not None), default=None)

    def drain(self, now: float) -> list[Action]:
        """We are going. Sessions are durable and come back with us: MAGs are told nothing."""
        return []

    # --- the operator ---

    def revoke(self, subject: str | None, now: float) -> list[Action]:
        """End sessions: of a node, of a MAG (name of the peer), of a realm ("@example.net"), or all (None)."""
        if subject is None:
            actions = self.anchor.revocations.revoke_all(now)
        elif subject.startswith("@"):
            actions = self.anchor.revocations.revoke_realm(subject[1:], now)
        elif self.door.named(subject) is not None:
            actions = self.anchor.revocations.revoke_gateway(subject, now)
        else:
            actions = self.anchor.revocations.revoke_node(subject, now)
        self._notice_ways(now)
        return actions

    def set_peers(self, peers: tuple[Peer, ...], now: float) -> list[Action]:
        """Other peers or keys. A MAG that is no peer any more loses its sessions, while it can still be told."""
        kept = {peer.name for peer in peers}
        gone = [name for name in self.anchor.gateways if name not in kept]
        actions = [action for name in gone for action in self.anchor.revocations.revoke_gateway(name, now)]
        self._notice_ways(now)
        self.door.set_peers(peers)
        return actions

    def set_policy(self, name: str, rules: tuple[FlowRule, ...], now: float) -> list[Action]:
        """A flow policy of this end changes while it is used; the MAGs it concerns are asked to say theirs again."""
        actions, concerned = self.anchor.set_policy(name, rules)
        return actions + self._ask_again(concerned, now)

    def set_profiles(self, profiles: tuple[NodeProfile, ...], now: float) -> list[Action]:
        """What is laid down about nodes changes; their MAGs are asked to register them again."""
        actions, concerned = self.anchor.set_profiles(profiles, now)
        self._notice_ways(now)
        return actions + self._ask_again(concerned, now)

    def sessions(self) -> list[dict[str, object]]:
        """All sessions as rows, for `show sessions`. expires: monotonic s."""
        states = self.monitor.states()
        return [_row(session, states) for session in self.cache]

    def _ask_again(self, sessions: Iterable[MobilitySession], now: float) -> list[Action]:
        actions: list[Action] = []
        reason = UpdateNotificationReason.FORCE_REREGISTRATION
        for session in sessions:
            at = session.care_ofs[0]
            actions += self.notifier.notify(
                reason,
                session.node,
                session.prefixes,
                session.gateway,
                at.address,
                now,
                port=at.port,
                source=at.local,
            )
        return actions

    # --- the ways to the MAGs ---

    def _notice_ways(self, now: float) -> None:
        """What sessions use has changed: to be followed as soon as the packets of a handover have passed."""
        self._to_follow |= dict.fromkeys(self.anchor.gateways.take_changes())
        if self._to_follow and self._follow_at is None:
            self._follow_at = now + SOON

    def _follow_ways(self, now: float) -> list[Action]:
        """Watch what sessions use now, and nothing else."""
        if self._follow_at is None or now < self._follow_at:
            return []
        changed, self._to_follow, self._follow_at = self._to_follow, {}, None
        return [action for key in changed for action in self._follow(key, now)]

    def _follow(self, key: WayKey, now: float) -> list[Action]:
        name, _ = key
        reach = self.anchor.gateways.way(key)
        if reach is not None:
            self.heartbeats.keep(name, reach.address, reach.port, reach.local, now)
            way = Way(
                tunnel=reach.tunnel, peer=name, source=reach.local, destination=reach.address, port=reach.port
            )
            return self.monitor.watch(way, now)
        self.monitor.forget(key)
        other = self.anchor.gateways.reach(name)
        if other is None:
            self.heartbeats.stop(name)
        else:
            self.heartbeats.keep(name, other.address, other.port, other.local, now)
        return []

    def _take_news(self, news: PeerNews, now: float) -> list[Action]:
        if news.kind is PeerEvent.RESTARTED:
            return self.anchor.sessions.gateway_restarted(news.peer, now)
        return [Note(f"gateway-{news.kind.value}", {"peer": news.peer})]

    # --- what comes in ---

    def _clock_stepped(self, event: ClockStepped, now: float) -> list[Action]:
        self.clock.step(event.wall_minus_monotonic)
        return []

    def _restored(self, event: BindingsRestored, now: float) -> list[Action]:
        """Sessions first; then MAGs hear that we were away, so that those we lost are registered again at once."""
        actions = self.anchor.restore(event, now)
        known = (address for peer in self.settings.peers for address in addresses_of(peer))
        return actions + self.heartbeats.announce_restart(known, now)

    def _datagram(self, event: DatagramReceived, now: float) -> list[Action]:
        answer = self.anchor.extend(event, now)
        if answer is not None:
            self.counters[f"received.{BindingUpdate.__name__}"] += 1
            return [answer]
        return self.reception.take(event, now)

    def _update(
        self, update: BindingUpdate, event: DatagramReceived, peer: Peer | None, now: float
    ) -> list[Action]:
        return self.anchor.answer(update, peer, event, now)

    def _refuse_forged(self, update: BindingUpdate, event: DatagramReceived, now: float) -> Action:
        request = RegistrationRequest(update, event.source, "", local=event.destination, port=event.port)
        ack = refusing(request, Status.MIPV6_AUTH_FAIL, our_timestamp=self.clock.timestamp(now))
        return self.door.reply(ack, event)

    def _heartbeat(
        self, beat: Heartbeat, event: DatagramReceived, peer: Peer | None, now: float
    ) -> list[Action]:
        if self.monitor.is_probe(beat):
            actions = self.monitor.receive(beat, event, peer, now)
            moved = self.monitor.take_moved().items()
            return actions + [action for way, port in moved for action in self.anchor.sessions.data_moved(way, port)]
        actions, news = self.heartbeats.receive(beat, event, peer, now)
        return actions + self._take_news(news, now) if news is not None else actions

    def _revocation(
        self, indication: BindingRevocationIndication, event: DatagramReceived, peer: Peer | None, now: float
    ) -> list[Action]:
        if not self.reception.is_fresh(indication, peer, now):
            return []
        # answered first: the way back may be one of those that end
        status, actions = self.anchor.revocations.revoked_by(indication, peer, now)
        self.counters[f"revocation.{status.name.lower().replace('_', '-')}"] += 1
        ack = BindingRevocationAck(
            status=status,
            sequence_number=indication.sequence_number,
            flags=indication.flags & (PROXY | RevocationFlag.GLOBAL),
            options=() if status is RevocationStatus.SUCCESS else subject_of(indication),
        )
        return [*actions, self.door.reply(ack, event)]

    def _revocation_ack(
        self, ack: BindingRevocationAck, event: DatagramReceived, peer: Peer | None, now: float
    ) -> list[Action]:
        return self.revoker.confirm(ack, event.source, now)

    def _notification_ack(
        self, ack: UpdateNotificationAck, event: DatagramReceived, peer: Peer | None, now: float
    ) -> list[Action]:
        return self.notifier.confirm(ack, event.source, now)

    def _not_understood(
        self, error: BindingError, event: DatagramReceived, peer: Peer | None, now: float
    ) -> list[Action]:
        """A MAG does not know a message of ours: it is not asked that again (RFC 5847 3, 7077 5.2)."""
        if peer is None or error.status != BindingErrorStatus.UNRECOGNIZED_MH_TYPE:
            return []
        self.heartbeats.not_understood(peer.name)
        self.monitor.not_understood(peer.name)
        actions = self.notifier.not_understood(peer.name, event.source, now)
        return actions + self.revoker.not_understood(event.source, now)


def _care_of(message: Message, event: DatagramReceived) -> Address:
    """What comes to an anchor comes from the Proxy-CoA; an update may name another."""
    return care_of_address(message, event.source) if isinstance(message, BindingUpdate) else event.source


def _row(session: MobilitySession, states: Mapping[WayKey, WayState]) -> dict[str, object]:
    return {
        "number": session.number,
        "node": session.node,
        "link_layer": session.link_layer.hex(":") or None,
        "gateway": session.gateway,
        "state": "leaving" if session.leaving else "bound",
        "prefixes": session.prefixes,
        "ipv4": session.ipv4_home,
        "delegated": session.delegated,
        "care_ofs": [_care_of_row(session, it, states) for it in session.care_ofs],
        "technology": session.technology,
        "service": session.service or None,
        "policy": session.policy or None,
        "flows": len(session.flows),
        "expires": session.expires,
    }


def _care_of_row(session: MobilitySession, it: CareOf, states: Mapping[WayKey, WayState]) -> dict[str, object]:
    state = states.get((session.gateway, it.way_id))
    return {"bid": it.binding_id, "label": it.label, "address": it.address, "state": state, "expires": it.expires}


HANDLERS: dict[type, Callable[[Lma, Any, float], list[Action]]] = {
    ClockStepped: Lma._clock_stepped,
    DatagramReceived: Lma._datagram,
    BindingsRestored: Lma._restored,
}
