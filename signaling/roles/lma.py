"""Local Mobility Anchor of Proxy Mobile IPv6 (RFC 5213): one for a domain, reached over several paths (RFC 8278).

    Door -> LocalMobilityAnchor     updates, and what they do to sessions
         -> Heartbeats              does a MAG live, and does it still know what it knew
         -> PathMonitor             does a path to it carry packets, and how well
         -> Revoker, Notifier       what we tell MAGs of our own accord

The anchor says which ways to which MAGs are in use; the two that watch follow it.
"""

from collections.abc import Callable, Iterable
from ipaddress import IPv6Address
from typing import Any

from signaling.actions import Action, Note, SendError, TunnelEnd
from signaling.door import Door, Verdict
from signaling.errors import MalformedMessage, Reaction
from signaling.events import BindingsRestored, ClockStepped, DatagramReceived, Event
from signaling.flow_rules import FlowRule
from signaling.freshness import Freshness
from signaling.iana import (
    BindingErrorStatus,
    OptionType,
    RevocationFlag,
    RevocationStatus,
    Status,
    UpdateNotificationReason,
)
from signaling.pmip.gateways import WayKey
from signaling.pmip.heartbeats import Heartbeats, PeerEvent, PeerNews
from signaling.pmip.local_mobility_anchor import LocalMobilityAnchor
from signaling.pmip.mobility_session import MobilitySession
from signaling.pmip.notifier import Notifier
from signaling.pmip.path_monitor import PathMonitor, Way
from signaling.pmip.proxy_ack import refusing
from signaling.pmip.registration_request import RegistrationRequest
from signaling.rate_limit import RateLimit
from signaling.revoker import Revoker
from signaling.settings import Clock, Counters, LmaSettings, NodeProfile
from signaling.update_request import care_of_address
from signaling.wire import ipv6
from signaling.wire.binding_error import BindingError
from signaling.wire.binding_update import BindingUpdate
from signaling.wire.heartbeat import Heartbeat
from signaling.wire.message import Message
from signaling.wire.notification import UpdateNotificationAck
from signaling.wire.revocation import BindingRevocationAck, BindingRevocationIndication

ECHOED = {OptionType.MOBILE_NODE_IDENTIFIER, OptionType.HOME_NETWORK_PREFIX}  # in a refusal of a revocation
PROXY = RevocationFlag.PROXY_BINDING
HINTS = {
    Verdict.STRANGER: "it is no peer of this router",
    Verdict.UNSIGNED: "it is not signed, and there is a key",
    Verdict.UNKNOWN_SPI: "it is signed with a key of another number (spi)",
    Verdict.FORGED: "the key does not fit: is it the same on both routers?",
}


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
        self._freshness = Freshness(self.clock)
        self._answers_to_broken = RateLimit(rate=10.0, burst=20)
        self._words_about_strangers = RateLimit(rate=1.0, burst=10)

    def handle(self, event: Event, now: float) -> list[Action]:
        """What to do about an event. now: monotonic s."""
        handler = HANDLERS.get(type(event))
        if handler is None:
            self.counters[f"ignored.{type(event).__name__}"] += 1  # an LMA has no access links
            return []
        return self._follow_ways(handler(self, event, now), now)

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
        return self._follow_ways(actions, now)

    @property
    def next_wake(self) -> float | None:
        """When wake() is due next, monotonic s; None: never, unless something happens."""
        parts = (
            self.anchor.next_wake,
            self.revoker.deadlines.next,
            self.notifier.next_wake,
            self.heartbeats.next_wake,
            self.monitor.next_wake,
        )
        return min((at for at in parts if at is not None), default=None)

    def drain(self, now: float) -> list[Action]:
        """We are going. Sessions are durable and come back with us: MAGs are told nothing."""
        return []

    # --- the operator ---

    def revoke(self, subject: str | None, now: float) -> list[Action]:
        """End sessions: of a node, of a MAG (name of the peer), of a realm ("@example.net"), or all (None)."""
        if subject is None:
            actions = self.anchor.revoke_all(now)
        elif subject.startswith("@"):
            actions = self.anchor.revoke_realm(subject[1:], now)
        elif self.door.named(subject) is not None:
            actions = self.anchor.revoke_gateway(subject, now)
        else:
            actions = self.anchor.revoke_node(subject, now)
        return self._follow_ways(actions, now)

    def set_policy(self, name: str, rules: tuple[FlowRule, ...], now: float) -> list[Action]:
        """A flow policy of this end changes while it is used; the MAGs it concerns are asked to say theirs again."""
        actions, concerned = self.anchor.set_policy(name, rules)
        return actions + self._ask_again(concerned, now)

    def set_profiles(self, profiles: tuple[NodeProfile, ...], now: float) -> list[Action]:
        """What is laid down about nodes changes; their MAGs are asked to register them again."""
        actions, concerned = self.anchor.set_profiles(profiles, now)
        return self._follow_ways(actions + self._ask_again(concerned, now), now)

    def sessions(self) -> list[dict[str, object]]:
        """All sessions as rows, for `show bindings`."""
        return [_row(session) for session in self.cache]

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

    def _follow_ways(self, actions: list[Action], now: float) -> list[Action]:
        """Watch what sessions use now, and nothing else."""
        for key in self.anchor.gateways.take_changes():
            actions += self._follow(key, now)
        return actions

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
            return self.anchor.gateway_restarted(news.peer, now)
        return [Note(f"gateway-{news.kind.value}", {"peer": news.peer})]

    # --- what comes in ---

    def _clock_stepped(self, event: ClockStepped, now: float) -> list[Action]:
        self.clock.step(event.wall_minus_monotonic)
        return []

    def _restored(self, event: BindingsRestored, now: float) -> list[Action]:
        return self.anchor.restore(event, now)

    def _datagram(self, event: DatagramReceived, now: float) -> list[Action]:
        try:
            message = self.door.decode(event.octets, event.source, event.destination)
        except MalformedMessage as defect:
            return self._malformed(event, defect, now)
        self.counters[f"received.{type(message).__name__}"] += 1
        receive = RECEIVERS.get(type(message))
        if receive is None:
            self.counters[f"ignored.{type(message).__name__}"] += 1
            return []
        return receive(self, message, event, now)

    def _malformed(self, event: DatagramReceived, defect: MalformedMessage, now: float) -> list[Action]:
        """Answer what RFC 6275 9.2 wants answered, at a bounded rate; nothing is changed."""
        self.counters[f"malformed.{defect.reason}"] += 1
        if defect.reaction is Reaction.DISCARD or not self._answers_to_broken.allows(now):
            return []
        if defect.reaction is Reaction.BINDING_ERROR:
            error = BindingError(status=BindingErrorStatus.UNRECOGNIZED_MH_TYPE, home_address=IPv6Address(0))
            return [self.door.send(error, event.source, care_of=event.source, port=event.port)]
        if not isinstance(event.source, IPv6Address) or not isinstance(event.destination, IPv6Address):
            return []  # a Parameter Problem is ICMPv6's
        octets = ipv6.parameter_problem(event.octets, event.source, event.destination, defect)
        return [SendError(octets=octets, destination=event.source)]

    def _distrust(self, message: Message, event: DatagramReceived, verdict: Verdict, now: float) -> list[Action]:
        """A message that is not believed changes nothing; that it came is told, at a bounded rate."""
        if not self._words_about_strangers.allows(now):
            return []
        fields: dict[str, object] = {"peer": event.source, "message": type(message).__name__, "why": HINTS[verdict]}
        return [Note("message-refused", fields)]

    def _update(self, update: BindingUpdate, event: DatagramReceived, now: float) -> list[Action]:
        if not update.proxy:
            self.counters["ignored.not-a-proxy-update"] += 1  # no home agent lives here
            return []
        source = event.source
        verdict, peer = self.door.who(
            event.octets, update, source, care_of_address(update, source), port=event.port
        )
        if verdict is Verdict.TRUSTED:
            return self.anchor.answer(update, peer, event, now)
        told = self._distrust(update, event, verdict, now)
        if verdict is Verdict.FORGED and self._answers_to_broken.allows(now):
            request = RegistrationRequest(update, source, "", local=event.destination, port=event.port)
            ack = refusing(request, Status.MIPV6_AUTH_FAIL, our_timestamp=self.clock.timestamp(now))
            told.append(
                self.door.send(ack, source, care_of=source, port=event.port, source=event.destination)
            )
        return told

    def _heartbeat(self, beat: Heartbeat, event: DatagramReceived, now: float) -> list[Action]:
        verdict, peer = self.door.who(event.octets, beat, event.source, event.source, port=event.port)
        if verdict is not Verdict.TRUSTED:
            return self._distrust(beat, event, verdict, now)
        if self.monitor.is_probe(beat):
            return self.monitor.receive(beat, event, peer, now)
        actions, news = self.heartbeats.receive(beat, event, peer, now)
        return actions + self._take_news(news, now) if news is not None else actions

    def _revocation(
        self, indication: BindingRevocationIndication, event: DatagramReceived, now: float
    ) -> list[Action]:
        verdict, peer = self.door.who(event.octets, indication, event.source, event.source, port=event.port)
        if verdict is not Verdict.TRUSTED:
            return self._distrust(indication, event, verdict, now)
        if peer is not None and peer.key and not self._freshness.accepts(peer.name, indication, now):
            self.counters["revocation.replayed"] += 1
            return []
        # answered first: the way back may be one of those that end
        status, actions = self.anchor.revoked_by(indication, peer, now)
        self.counters[f"revocation.{status.name.lower().replace('_', '-')}"] += 1
        echoed = tuple(option for option in indication.options if option.number in ECHOED)
        ack = BindingRevocationAck(
            status=status,
            sequence_number=indication.sequence_number,
            flags=indication.flags & (PROXY | RevocationFlag.GLOBAL),
            options=() if status is RevocationStatus.SUCCESS else echoed,
        )
        back = event.source
        return [*actions, self.door.send(ack, back, care_of=back, port=event.port, source=event.destination)]

    def _revocation_ack(self, ack: BindingRevocationAck, event: DatagramReceived, now: float) -> list[Action]:
        verdict, _ = self.door.who(event.octets, ack, event.source, event.source, port=event.port)
        if verdict is not Verdict.TRUSTED:
            return self._distrust(ack, event, verdict, now)
        return self.revoker.confirm(ack, event.source, now)

    def _notification_ack(self, ack: UpdateNotificationAck, event: DatagramReceived, now: float) -> list[Action]:
        verdict, _ = self.door.who(event.octets, ack, event.source, event.source, port=event.port)
        if verdict is not Verdict.TRUSTED:
            return self._distrust(ack, event, verdict, now)
        return self.notifier.confirm(ack, event.source, now)

    def _not_understood(self, error: BindingError, event: DatagramReceived, now: float) -> list[Action]:
        """A MAG does not know a message of ours: it is not asked that again (RFC 5847 3, 7077 5.2)."""
        verdict, peer = self.door.who(event.octets, error, event.source, event.source, port=event.port)
        if verdict is not Verdict.TRUSTED or peer is None:
            return self._distrust(error, event, verdict, now) if verdict is not Verdict.TRUSTED else []
        if error.status != BindingErrorStatus.UNRECOGNIZED_MH_TYPE:
            return []
        self.heartbeats.not_understood(peer.name)
        self.monitor.not_understood(peer.name)
        actions = self.notifier.not_understood(peer.name, event.source, now)
        return actions + self.revoker.not_understood(event.source, now)


def _row(session: MobilitySession) -> dict[str, object]:
    return {
        "number": session.number,
        "node": session.node,
        "gateway": session.gateway,
        "state": "leaving" if session.leaving else "bound",
        "prefixes": session.bound,
        "care_ofs": [
            {"bid": it.binding_id, "address": it.address, "label": it.label, "expires": it.expires}
            for it in session.care_ofs
        ],
        "technology": session.technology,
        "service": session.service,
        "flows": len(session.flows),
    }


HANDLERS: dict[type, Callable[[Lma, Any, float], list[Action]]] = {
    ClockStepped: Lma._clock_stepped,
    DatagramReceived: Lma._datagram,
    BindingsRestored: Lma._restored,
}
RECEIVERS: dict[type, Callable[[Lma, Any, DatagramReceived, float], list[Action]]] = {
    BindingUpdate: Lma._update,
    Heartbeat: Lma._heartbeat,
    BindingRevocationIndication: Lma._revocation,
    BindingRevocationAck: Lma._revocation_ack,
    UpdateNotificationAck: Lma._notification_ack,
    BindingError: Lma._not_understood,
}
