"""Mobile Access Gateway: registers the nodes on its links, and the sites behind it, at their anchor (RFC 5213 6).

The access links say who is here (`AccessLink`), the gateway keeps the sessions and their paths (`Gateway`), paths are
probed (`PathMonitor`) and the anchor is asked whether it lives (`Heartbeats`). This file says what each event means to
them, and answers the anchor where it speaks first: revocations (RFC 5846 9.1) and notifications (RFC 7077 5.3).
"""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from ipaddress import IPv6Network
from typing import Any

from signaling.access_link import QUICK_PROBE_INTERVAL, AccessLink, Offer
from signaling.actions import Action, Bind, ExpectNode, Note, TunnelEnd, Unbind
from signaling.deadlines import SOON
from signaling.door import Door
from signaling.events import (
    AddressAsked,
    AddressReleased,
    ClockStepped,
    DatagramReceived,
    Event,
    LinkAttached,
    LinkDetached,
    LinkLost,
    LinkUp,
    NodeDoubted,
    SiteAttached,
    TunnelMtuChanged,
    UplinkDown,
    UplinkUp,
)
from signaling.flow_rules import FlowRule
from signaling.iana import (
    AccessTechnologyType,
    BindingErrorStatus,
    RevocationStatus,
    UpdateNotificationFlag,
    UpdateNotificationReason,
    UpdateNotificationStatus,
    name_of,
)
from signaling.node_interface import Here, NodeInterface
from signaling.pmip.binding_update_list import Service, Session
from signaling.pmip.gateway import Arrival, Gateway
from signaling.pmip.heartbeats import Heartbeats, PeerEvent, PeerNews
from signaling.pmip.path_monitor import PathMonitor
from signaling.pmip.revocation_request import HANDOVER_TRIGGERS, Taken, taken_by, unsupported
from signaling.pmip.session_keeper import SessionKeeper
from signaling.pmip.watched_paths import WatchedPaths
from signaling.reception import Reception
from signaling.settings import Clock, Counters, MagSettings, NodeProfile, Peer, Site, Uplink
from signaling.update_request import node_of, prefixes_of, subject_of
from signaling.wire.binding_ack import BindingAck
from signaling.wire.binding_error import BindingError
from signaling.wire.heartbeat import Heartbeat
from signaling.wire.notification import UpdateNotification, UpdateNotificationAck
from signaling.wire.options.identity import MobileNodeGroupIdentifier
from signaling.wire.options.option import Option
from signaling.wire.options.prefix import HomeNetworkPrefix
from signaling.wire.options.vendor import VendorSpecific
from signaling.wire.revocation import BindingRevocationAck, BindingRevocationIndication

SUBNET_LENGTH = 64  # of what is advertised on a link (RFC 4862 5.5.3)
@dataclass(slots=True, kw_only=True)
class Contest:
    """The anchor says that a node is elsewhere, while it is attached here: the node itself is being asked."""

    indication: BindingRevocationIndication
    event: DatagramReceived
    asked: set[NodeInterface]  # who has not answered yet


def _no_counters(tunnel: TunnelEnd) -> int:
    return -1


class Mag:
    """One gateway: `handle`, `wake`, `next_wake`, and `drain` before the end."""

    def __init__(self, settings: MagSettings, *, traffic: Callable[[TunnelEnd], int] = _no_counters) -> None:
        """traffic(tunnel): packets either way so far; -1 where that is not known."""
        self.settings = settings
        self.counters = Counters()
        self.clock = Clock()
        self.door = Door(settings, self.counters)
        self.access: AccessLink[NodeInterface] = AccessLink(settings, self.counters, who=_interface_of)
        self.monitor = PathMonitor(settings, self.door, self.clock, self.counters, traffic=traffic)
        self.heartbeats = Heartbeats(settings, self.door, self.clock, self.counters)
        keeper = SessionKeeper(
            settings,
            self.door,
            self.clock,
            self.counters,
            watched=WatchedPaths(settings.anchor, self.monitor, self.heartbeats),
            heard_since=self.access.heard_since,
        )
        self.gateway = Gateway(keeper)
        self._here = Here()
        self._sites = {site.node: site for site in settings.sites}
        self._offered: dict[NodeInterface, list[Offer]] = {}
        self._announced: dict[str, list[Offer]] = {}  # by interface: to all on the link
        self._touched: dict[str, None] = {}  # nodes whose paths have changed since they were told of them
        self._tell_at: float | None = None  # monotonic s
        self._contests: list[Contest] = []
        self.reception = Reception(
            self.door,
            self.clock,
            self.counters,
            {
                BindingAck: self._ack,
                BindingError: self._error,
                BindingRevocationIndication: self._revocation,
                Heartbeat: self._heartbeat,
                UpdateNotification: self._notification,
            },
            care_of=lambda message, event: event.destination,  # what comes to a gateway comes to the Proxy-CoA
            only_from=settings.anchor,
        )

    def handle(self, event: Event, now: float) -> list[Action]:
        """What to do about an event. now: monotonic s."""
        handler = HANDLERS.get(type(event))
        return self._noticed(handler(self, event, now), now) if handler else []

    def wake(self, now: float) -> list[Action]:
        """What to do because of the time."""
        findings = self.access.wake(now)
        actions = findings.actions
        for who in findings.gone:
            actions += self._leave(who, "silent", now)
        actions += self.gateway.wake(now)
        actions += self.monitor.wake(now)
        beats, news = self.heartbeats.wake(now)
        actions += beats
        for item in news:
            actions += self._news(item, now)
        for who in findings.advertise:
            actions += self.access.advertise(who, self._offered.get(who, ()), now, changed=False, due=True)
        for interface in findings.announce:
            actions += self.access.announce(interface, self._announced.get(interface, ()), now)
        return self._noticed(actions, now) + self._tell_nodes(now)

    @property
    def next_wake(self) -> float | None:
        """When wake() is due next, monotonic s; None: never, unless something happens."""
        parts = (self.access, self.gateway, self.monitor, self.heartbeats)
        times = (self._tell_at, *(part.next_wake for part in parts))
        return min((at for at in times if at is not None), default=None)

    def drain(self, now: float) -> list[Action]:
        """We are going: nodes are told to look for another router, registrations are taken back.

        Prefixes stay as they are: the node keeps them at its next gateway.
        """
        actions: list[Action] = []
        for who in list(self.access.attached):
            actions += self.access.farewell(who, self._offered.get(who, ()))
            self._gone(who)
        return actions + self.gateway.drain(now)

    # --- what an operator does ---

    def set_peers(self, peers: tuple[Peer, ...], now: float) -> list[Action]:
        """Other peers, keys, or addresses of the anchor: sessions go on, registered at the new address."""
        self.door.set_peers(peers)
        return self._noticed(self.gateway.anchor_changed(now), now)

    def set_profiles(self, profiles: tuple[NodeProfile, ...], now: float) -> list[Action]:
        """Other profiles of nodes: flow policies at once, the rest when a node comes next."""
        return self._noticed(self.gateway.set_profiles(profiles, now), now)

    def set_policy(self, name: str, rules: tuple[FlowRule, ...], now: float) -> list[Action]:
        """Other flow rules, at this end at once, and at the anchor as soon as it has them."""
        return self._noticed(self.gateway.set_policy(name, rules, now), now)

    def set_uplinks(self, uplinks: tuple[Uplink, ...], now: float) -> list[Action]:
        """Other uplinks."""
        return self._noticed(self.gateway.set_uplinks(uplinks, now), now)

    def sessions(self) -> list[dict[str, object]]:
        """One row for each session and path, for `show sessions`. expires: monotonic s."""
        states = self.monitor.states()
        return [
            {
                "node": session.node,
                "link_layer": session.who.link_layer.hex(":"),
                "interface": session.interface,
                "prefixes": session.bound,
                "bid": item.path.binding_id,
                "label": item.path.label,
                "local": item.path.care_of,
                "anchor": item.path.anchor,
                "stage": item.stage,
                "state": states.get((self.settings.anchor, item.path.binding_id)),
                "expires": item.expires or None,
                "multipath": session.multipath,
                "policy": session.policy or None,
            }
            for session in self.gateway.entries
            for item in session.registrations.values()
        ]

    # --- the access links ---

    def _link_up(self, event: LinkUp, now: float) -> list[Action]:
        actions: list[Action] = [Note("link-up", {"interface": event.interface}), *self.access.link_up(event, now)]
        offers = self._announced.get(event.interface)
        return actions + (self.access.announce(event.interface, offers, now) if offers else [])

    def _link_lost(self, event: LinkLost, now: float) -> list[Action]:
        gone = self.access.link_lost(event.interface)
        left = [action for who in gone for action in self._leave(who, "link lost", now)]
        return [*left, Note("link-lost", {"interface": event.interface})]

    def _attached(self, event: LinkAttached, now: float) -> list[Action]:
        if self._is_site_link(event.interface):
            offers = self._announced.get(event.interface)  # a host of a site: the session is the site's
            return self.access.announce(event.interface, offers, now) if offers and event.trigger == "rs" else []
        who = _interface_of(event)
        fresh = self.access.attach(event, now)
        self._here.add(who)
        actions = self._heard(who, now)
        if fresh:
            self._offered.pop(who, None)
            fields: dict[str, object] = {"node": event.node, "interface": event.interface, "trigger": event.trigger}
            # the anchor first: the node waits for its answer
            registered = self.gateway.arrive(self._arrival(event), now)
            return [*actions, *registered, Note("attached", fields), self.access.expect(self.access.attached[who])]
        if event.link_local is not None:
            actions += self.gateway.reached_at(who, event.link_local, now)
        if event.trigger in ("rs", "command"):
            actions += self._solicited(event, who, now)
        return actions

    def _arrival(self, event: LinkAttached) -> Arrival:
        return Arrival(
            who=_interface_of(event),
            interface=event.interface,
            technology=self.settings.technology,
            link_local=event.link_local,
            handoff=event.handoff,
            prefixes=event.prefixes,
            pardoned=event.trigger == "command",
        )

    def _solicited(self, event: LinkAttached, who: NodeInterface, now: float) -> list[Action]:
        """It asks for a router although it is attached: for us or for the anchor something is not as it was."""
        again = self.access.advertise(who, self._offered[who], now, changed=False) if who in self._offered else []
        if self.gateway.entries.get(who) is None or event.trigger == "command":
            return again + self.gateway.arrive(self._arrival(event), now)
        return again + self.gateway.solicited(who, now)

    def _detached(self, event: LinkDetached, now: float) -> list[Action]:
        return [
            action
            for who in self._here.of(event.node, event.link_layer)
            for action in self._leave(who, event.reason, now)
        ]

    def _leave(self, who: NodeInterface, reason: str, now: float) -> list[Action]:
        gone = self.access.attached.get(who)
        if gone is None:
            return []
        self._gone(who)
        fields: dict[str, object] = {"node": who.node, "interface": gone.interface, "reason": reason}
        forget = ExpectNode(node=who.node, interface=None, link_layer=gone.link_layer, link_local=gone.link_local)
        # the anchor first: what it sends until it knows is lost
        return [*self.gateway.leave(who, now), Note("detached", fields), forget, *self._silent(who, now)]

    def _gone(self, who: NodeInterface) -> None:
        self.access.detach(who)
        self._offered.pop(who, None)
        self._here.remove(who)

    def _doubted(self, event: NodeDoubted, now: float) -> list[Action]:
        for who in self._here.of(event.node, event.link_layer):
            self.access.doubt(who, now, QUICK_PROBE_INTERVAL)
        return self.wake(now)

    def _asked(self, event: AddressAsked, now: float) -> list[Action]:
        return self.gateway.wants(event, now)

    def _released(self, event: AddressReleased, now: float) -> list[Action]:
        return self.gateway.released(event, now)

    # --- sites: nodes that are always here (RFC 8278 3.1) ---

    def _tunnel_mtu_changed(self, event: TunnelMtuChanged, now: float) -> list[Action]:
        self.access.tunnel_mtu = event.mtu
        actions: list[Action] = [Note("tunnel-mtu", {"mtu": event.mtu})]
        for who, offers in self._offered.items():
            actions += self.access.advertise(who, offers, now)
        for interface, offers in self._announced.items():
            actions += self.access.announce(interface, offers, now)
        return actions

    def _is_site_link(self, interface: str) -> bool:
        return any(interface in (site.interface, site.delegated_interface) for site in self._sites.values())

    def _site_attached(self, event: SiteAttached, now: float) -> list[Action]:
        site = self._sites.get(event.node)
        if site is None:
            return [Note("no-such-site", {"node": event.node})]
        arrival = Arrival(
            who=NodeInterface(site.node, _identifier_of_site(site.node)),
            interface=site.interface,
            technology=AccessTechnologyType.VIRTUAL,
            services=Service.IPV6 | (Service.DELEGATION if site.delegated else Service.NONE),
            delegated_interface=site.delegated_interface,
            lasting=True,
            pardoned=True,  # whoever configures it wants it asked for
        )
        return self.gateway.arrive(arrival, now)

    def _site_offers(self, site: Site) -> dict[str, list[Offer]]:
        """What is advertised on the links of a site: its home prefixes, and a /64 of each delegated prefix."""
        session = next(iter(self.gateway.entries.of(site.node)), None)
        found: dict[str, list[Offer]] = {site.interface: [], site.delegated_interface: []}
        for option in session.prefixes if session else ():
            if session and option.prefix in session.bound:
                found[site.interface].append(self._offer(option.prefix))
        for prefix in session.delegated if session else ():
            if session and isinstance(prefix, IPv6Network) and prefix in session.bound:
                found[site.delegated_interface].append(self._offer(next(prefix.subnets(new_prefix=SUBNET_LENGTH))))
        return {interface: offers for interface, offers in found.items() if interface}

    # --- what nodes are told ---

    def _offer(self, prefix: IPv6Network) -> Offer:
        return Offer(prefix, self.settings.valid_lifetime, self.settings.preferred_lifetime)

    def _offers(self, who: NodeInterface) -> list[Offer]:
        """The home network prefixes of a session that stands; not those that are routed here only (RFC 7864 4.1)."""
        session = self.gateway.entries.get(who)
        if session is None or not session.present:
            return []
        given = (option for option in session.home_prefixes if not option.off_link and option.prefix in session.bound)
        return [self._offer(option.prefix) for option in given]

    def _noticed(self, actions: list[Action], now: float) -> list[Action]:
        """Nodes are to hear of what changed: advertisements follow the paths, and the packets that wait for those."""
        touched = [action.node for action in actions if isinstance(action, Bind | Unbind)]
        if touched:
            self._touched |= dict.fromkeys(touched)
            self._tell_at = now + SOON if self._tell_at is None else self._tell_at
        return actions

    def _tell_nodes(self, now: float) -> list[Action]:
        if self._tell_at is None or now < self._tell_at:
            return []
        touched, self._touched, self._tell_at = self._touched, {}, None
        actions: list[Action] = []
        for node in touched:
            for who in self._here.of(node):
                actions += self._advertise_changes(who, now)
            if node in self._sites:
                actions += self._announce_changes(self._sites[node], now)
        return actions

    def _advertise_changes(self, who: NodeInterface, now: float) -> list[Action]:
        before = self._offered.get(who)
        offers = _with_withdrawn(self._offers(who), before or ())
        if offers == (before or []):
            return []
        self._offered[who] = offers
        return self.access.advertise(who, offers, now)

    def _announce_changes(self, site: Site, now: float) -> list[Action]:
        actions: list[Action] = []
        for interface, now_offered in self._site_offers(site).items():
            before = self._announced.get(interface, [])
            offers = _with_withdrawn(now_offered, before)
            if offers != before:
                self._announced[interface] = offers
                actions += self.access.announce(interface, offers, now)
        return actions

    # --- uplinks ---

    def _uplink_up(self, event: UplinkUp, now: float) -> list[Action]:
        fields: dict[str, object] = {"interface": event.interface, "address": event.address}
        self.gateway.uplinks.up(event.interface, event.address)
        return [Note("uplink-up", fields), *self.gateway.uplinks_changed(now)]

    def _uplink_down(self, event: UplinkDown, now: float) -> list[Action]:
        actions: list[Action] = [Note("uplink-down", {"interface": event.interface})]
        for uplink in self.gateway.uplinks.configured:
            if uplink.interface == event.interface:
                actions += self.monitor.carrier_lost((self.settings.anchor, uplink.binding_id), now)
        self.gateway.uplinks.down(event.interface)
        return actions + self.gateway.uplinks_changed(now)

    # --- the clock ---

    def _clock_stepped(self, event: ClockStepped, now: float) -> list[Action]:
        self.clock.step(event.wall_minus_monotonic)
        return self.gateway.clock_set(now)

    # --- the anchor ---

    def _datagram(self, event: DatagramReceived, now: float) -> list[Action]:
        return self.reception.take(event, now)

    def _ack(self, ack: BindingAck, event: DatagramReceived, peer: Peer, now: float) -> list[Action]:
        fields: dict[str, object] = {
            "node": node_of(ack), "prefix": prefixes_of(ack), "peer": event.source, "status": name_of(ack.status)
        }
        return [Note("pba-received", fields), *self.gateway.confirm(ack, now)]

    def _heartbeat(self, beat: Heartbeat, event: DatagramReceived, peer: Peer, now: float) -> list[Action]:
        if self.monitor.is_probe(beat):
            return self.monitor.receive(beat, event, peer, now)
        actions, news = self.heartbeats.receive(beat, event, peer, now)
        return actions + (self._news(news, now) if news else [])

    def _news(self, news: PeerNews, now: float) -> list[Action]:
        told = Note(f"peer-{news.kind.value}", {"peer": news.peer})
        if news.kind is PeerEvent.RESTARTED and news.peer == self.settings.anchor:
            return [told, *self.gateway.anchor_restarted(now)]
        return [told]

    def _error(self, error: BindingError, event: DatagramReceived, peer: Peer, now: float) -> list[Action]:
        if error.status == BindingErrorStatus.UNRECOGNIZED_MH_TYPE:
            self.heartbeats.not_understood(peer.name)  # RFC 5847 3: of what we send, it may miss only this
            self.monitor.not_understood(peer.name)
        return []

    # --- revocation (RFC 5846 9.1) ---

    def _revocation(
        self, indication: BindingRevocationIndication, event: DatagramReceived, peer: Peer, now: float
    ) -> list[Action]:
        if event.source.is_multicast or not self.reception.is_fresh(indication, peer, now):
            return []
        refusal = unsupported(indication)
        taken = refusal if refusal is not None else taken_by(indication, self.gateway.entries)
        if not isinstance(taken, Taken):
            return [self._answer(indication, event, taken)]
        attached = {it.who for it in taken.sessions if it.lasting or it.who in self.access.attached}
        if indication.trigger not in HANDOVER_TRIGGERS or not attached:
            return self._give_up(indication, event, taken, now)
        if any(session.lasting for session in taken.sessions):
            return self._contest(indication, event, attached, now)
        self._contests.append(Contest(indication=indication, event=event, asked=attached))
        for who in attached:
            self.access.doubt(who, now, QUICK_PROBE_INTERVAL)
        return self.wake(now)

    def _contest(
        self,
        indication: BindingRevocationIndication,
        event: DatagramReceived,
        here: Iterable[NodeInterface],
        now: float,
    ) -> list[Action]:
        """These are here: the anchor hears so, and as it may have given their sessions away, is asked for them."""
        actions = [self._answer(indication, event, RevocationStatus.REVOCATION_FAILED_MN_IS_ATTACHED)]
        for session in [it for who in here if (it := self.gateway.entries.get(who)) is not None]:
            actions += self.gateway.reclaim(session, now)
        return actions

    def _heard(self, who: NodeInterface, now: float) -> list[Action]:
        """A node proved that it is here: the anchor is told if it believes else, and asked what waited for that."""
        actions: list[Action] = []
        for contest in [it for it in self._contests if who in it.asked]:
            self._contests.remove(contest)
            actions += self._contest(contest.indication, contest.event, (who,), now)
        return actions + self.gateway.heard(who, now)

    def _silent(self, who: NodeInterface, now: float) -> list[Action]:
        """A node is gone: what the anchor says of it is true."""
        actions: list[Action] = []
        for contest in [it for it in self._contests if who in it.asked]:
            contest.asked.discard(who)
            if contest.asked:
                continue
            self._contests.remove(contest)
            taken = taken_by(contest.indication, self.gateway.entries)
            if isinstance(taken, Taken):
                actions += self._give_up(contest.indication, contest.event, taken, now)
            else:
                actions.append(self._answer(contest.indication, contest.event, RevocationStatus.SUCCESS))
        return actions

    def _give_up(
        self, indication: BindingRevocationIndication, event: DatagramReceived, taken: Taken, now: float
    ) -> list[Action]:
        fields: dict[str, object] = {"trigger": name_of(indication.trigger), "sessions": len(taken.sessions)}
        actions: list[Action] = [Note("revoked", fields)]
        for session in () if taken.paths else taken.sessions:
            if taken.ipv4_only:
                actions += self.gateway.revoke_ipv4(session, now)
            else:
                own = tuple(option.prefix for option in session.prefixes)
                actions += self.gateway.revoke(session, taken.prefixes or own, now)
        for item in taken.paths:
            actions += self.gateway.revoke_path(item, now)
        failed: tuple[Option, ...] = tuple(HomeNetworkPrefix(prefix=prefix) for prefix in taken.missing)
        return [*actions, self._answer(indication, event, taken.status, failed)]

    def _answer(
        self,
        indication: BindingRevocationIndication,
        event: DatagramReceived,
        status: RevocationStatus,
        failed: tuple[Option, ...] = (),
    ) -> Action:
        refused = status not in (RevocationStatus.SUCCESS, RevocationStatus.PARTIAL_SUCCESS)
        self.counters[f"revocation.{status.name.lower().replace('_', '-')}"] += 1
        ack = BindingRevocationAck(
            status=status,
            sequence_number=indication.sequence_number,
            flags=indication.flags,
            options=subject_of(indication) if refused else failed,
        )
        return self.door.reply(ack, event)

    # --- notification (RFC 7077 5.3, RFC 7864 4) ---

    def _notification(
        self, notification: UpdateNotification, event: DatagramReceived, peer: Peer, now: float
    ) -> list[Action]:
        if not self.reception.is_fresh(notification, peer, now):
            return []
        status, actions = self._follow(notification, now)
        fields: dict[str, object] = {"reason": name_of(notification.reason), "status": name_of(status)}
        actions.insert(0, Note("notified", fields))
        if UpdateNotificationFlag.ACKNOWLEDGE in notification.flags:
            ack = UpdateNotificationAck(
                sequence_number=notification.sequence_number, status=status, options=subject_of(notification)
            )
            actions.append(self.door.reply(ack, event))
        return actions

    def _follow(
        self, notification: UpdateNotification, now: float
    ) -> tuple[UpdateNotificationStatus, list[Action]]:
        sessions = self._meant(notification)
        if notification.reason == UpdateNotificationReason.FLOW_MOBILITY:
            return self._move_flows(notification, sessions, now)
        if notification.reason == UpdateNotificationReason.VENDOR_SPECIFIC_REASON:
            known = notification.option(VendorSpecific) is not None
            missing = UpdateNotificationStatus.MISSING_VENDOR_SPECIFIC_OPTION
            return (UpdateNotificationStatus.REASON_UNSPECIFIED if known else missing), []
        if not sessions or notification.reason not in RENEWING:
            return UpdateNotificationStatus.FAILED_TO_UPDATE_SESSION_PARAMETERS, []
        return UpdateNotificationStatus.SUCCESS, self.gateway.renew(sessions, now)

    def _meant(self, notification: UpdateNotification) -> list[Session]:
        """The sessions a notification is about: of a node, of some prefixes of it, or all."""
        group = notification.option(MobileNodeGroupIdentifier)
        if group is not None:
            return list(self.gateway.entries)
        sessions = self.gateway.entries.of(node_of(notification))
        named = set(prefixes_of(notification))
        if not named or notification.reason == UpdateNotificationReason.FLOW_MOBILITY:
            return sessions
        return [session for session in sessions if any(option.prefix in named for option in session.prefixes)]

    def _move_flows(
        self, notification: UpdateNotification, sessions: list[Session], now: float
    ) -> tuple[UpdateNotificationStatus, list[Action]]:
        session = next((it for it in sessions if it.present and it.registered), None)
        if session is None:
            return UpdateNotificationStatus.MOBILE_NODE_NOT_ATTACHED, []
        moved = notification.options_of(HomeNetworkPrefix)
        return UpdateNotificationStatus.SUCCESS, self.gateway.move_flows(session, moved, now)


RENEWING = (UpdateNotificationReason.FORCE_REREGISTRATION, UpdateNotificationReason.UPDATE_SESSION_PARAMETERS)


def _interface_of(event: LinkAttached) -> NodeInterface:
    return NodeInterface(event.node, event.link_layer)


def _identifier_of_site(node: str) -> bytes:
    """What stands for the interface of a logical node: the same after a restart, so that its session is found."""
    return b"\x02" + hashlib.sha256(node.encode()).digest()[:5]  # locally administered, RFC 7042 2.1


def _with_withdrawn(offers: list[Offer], before: Iterable[Offer]) -> list[Offer]:
    """What is offered no more stays among the offers, with lifetime 0: any one advertisement may be lost."""
    kept = {offer.prefix for offer in offers}
    return offers + [Offer(offer.prefix, 0, 0) for offer in before if offer.prefix not in kept]



HANDLERS: dict[type, Callable[[Mag, Any, float], list[Action]]] = {
    ClockStepped: Mag._clock_stepped,
    DatagramReceived: Mag._datagram,
    LinkUp: Mag._link_up,
    LinkLost: Mag._link_lost,
    LinkAttached: Mag._attached,
    LinkDetached: Mag._detached,
    NodeDoubted: Mag._doubted,
    UplinkUp: Mag._uplink_up,
    UplinkDown: Mag._uplink_down,
    TunnelMtuChanged: Mag._tunnel_mtu_changed,
    SiteAttached: Mag._site_attached,
    AddressAsked: Mag._asked,
    AddressReleased: Mag._released,
}
