"""Mobility capable Access Router: anchor for the prefixes it lends, visited router for those lent elsewhere.

Dynamic Mobility Anchoring: a node gets a prefix from every router it comes to. New flows use the newest one, natively;
older prefixes stay alive through a tunnel from their anchor (H-MAR) straight to where the node is (V-MAR).
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from ipaddress import IPv6Network
from typing import Any

from signaling.access_link import PROBE_INTERVAL, QUICK_PROBE_INTERVAL, AccessLink, Offer
from signaling.actions import Action, Bind, ExpectNode, FindSessions, ForgetSession, Note, Send, SetPolicy, Unbind
from signaling.deadlines import Deadlines
from signaling.dma.anchor import Anchor
from signaling.dma.claims import SIBLING_WAITS, Claims
from signaling.dma.flow_mobility import FlowMobility
from signaling.dma.idle import IdleWatch, Silence
from signaling.dma.peer_watch import PeerWatch
from signaling.dma.registrar import Registrar
from signaling.dma.session import Session, State
from signaling.dma.update_list import Registration
from signaling.door import Door
from signaling.draining import Draining
from signaling.events import (
    ClockStepped,
    DatagramReceived,
    Event,
    LinkAttached,
    LinkDetached,
    LinkLost,
    LinkUp,
    NodeDoubted,
    SessionsFound,
    SessionsRestored,
    TunnelMtuChanged,
)
from signaling.flow_rules import FlowRule
from signaling.iana import (
    BindingErrorStatus,
    HandoffIndicator,
    OptionType,
    RevocationFlag,
    RevocationStatus,
    RevocationTrigger,
    RouterPreference,
    Status,
    UpdateNotificationFlag,
)
from signaling.node_interface import Here, NodeInterface, Place
from signaling.notifier import Notifier
from signaling.profiles import Profiles
from signaling.reception import Reception
from signaling.settings import TIMESTAMP_UNITS, Address, Clock, Counters, Peer, Settings
from signaling.update_request import UpdateRequest, acknowledgement, care_of_address, node_of, prefixes_of
from signaling.wire.binding_ack import BindingAck
from signaling.wire.binding_error import BindingError
from signaling.wire.binding_update import BindingUpdate
from signaling.wire.heartbeat import Heartbeat
from signaling.wire.message import Message
from signaling.wire.notification import UpdateNotification, UpdateNotificationAck
from signaling.wire.revocation import BindingRevocationAck, BindingRevocationIndication

FIND_AGAIN = 2.0  # s, while the store is away, or while the node has to be asked first
DISPUTE_WITHIN = 1.0  # s after a node was heard here
CLAIM_WITHIN = 3.0  # s after a node was heard its prefixes may be claimed; longer than FIND_AGAIN
URGENCY = {Send: 0, SetPolicy: 1, Bind: 1}  # of what is done about a node that left; taking routes away can wait
HANDOVER_TRIGGERS = {
    RevocationTrigger.INTER_MAG_HANDOVER_SAME_ACCESS_TYPE,
    RevocationTrigger.INTER_MAG_HANDOVER_DIFFERENT_ACCESS_TYPE,
    RevocationTrigger.INTER_MAG_HANDOVER_UNKNOWN,
}
OVER = {State.HOLD, State.RELEASED}  # sessions
CONTESTABLE = {*HANDOVER_TRIGGERS, RevocationTrigger.POSSIBLE_OUT_OF_SYNC_BCE_STATE}  # by the node, if it is here


@dataclass(frozen=True, slots=True)
class Contest:
    """An anchor says that a node is elsewhere, while it is attached here: the node itself is being asked."""

    indication: BindingRevocationIndication
    source: Address


class Mar:
    """One router: `handle`, `wake`, `next_wake`, and `drain` before the end."""

    def __init__(self, settings: Settings, *, silence: Silence | None = None) -> None:
        """silence: for how long no packet of a visiting prefix has passed; None: nobody knows, so none is released."""
        self.settings = settings
        self.counters = Counters()
        self.clock = Clock()
        self.door = Door(settings, self.counters)
        self.access: AccessLink[NodeInterface] = AccessLink(settings, self.counters, who=_interface_of)
        self.here = Here()
        self.profiles = Profiles(settings.profiles, known_only=False)
        self.anchor = Anchor(settings, self.door, self.clock, self.counters)
        self.idle = IdleWatch(settings.idle_after, silence)
        self.registrar = Registrar(
            settings, self.door, self.clock, self.counters, is_present=self.access.heard_since, idle=self.idle
        )
        self.peers = PeerWatch(
            settings, self.door, self.clock, self.counters, anchor=self.anchor, registrar=self.registrar
        )
        self.draining = Draining(self.counters)
        self.notifier = Notifier(settings, self.door, self.clock, self.counters)
        parts = (self.anchor, self.registrar, self.notifier, self.door)
        self.flows = FlowMobility(settings, *parts, nearest=self._nearest)
        self._claims = Claims(settings.technology)
        self._find_again: Deadlines[str] = Deadlines()
        self._succession: Deadlines[str] = Deadlines()  # of nodes with an interface that left, and another one here
        self._arriving: set[NodeInterface] = set()  # the store was not heard yet about their nodes
        self._offered: dict[NodeInterface, list[Offer]] = {}
        self._contests: dict[NodeInterface, list[Contest]] = {}
        self._disputed: dict[NodeInterface, bool] = {}  # here, and claimed by others; True: they are being asked
        self.reception = Reception(
            self.door,
            self.clock,
            self.counters,
            {
                BindingUpdate: self._update,
                BindingAck: self._ack,
                BindingRevocationIndication: self._revocation,
                BindingRevocationAck: self._revocation_ack,
                UpdateNotification: self._notification,
                UpdateNotificationAck: self._notification_ack,
                Heartbeat: self._heartbeat,
                BindingError: self._not_understood,
            },
            care_of=_care_of,
            refuse_forged=self._refuse_forged,
            window=settings.timestamp_window,
        )

    def handle(self, event: Event, now: float) -> list[Action]:
        """What to do about an event. now: monotonic s."""
        actions = HANDLERS[type(event)](self, event, now) + self.flows.confirm_heirs(now)
        self.peers.follow(actions, now)
        return actions

    def wake(self, now: float) -> list[Action]:
        """What to do because of the time."""
        findings = self.access.wake(now)
        actions = findings.actions
        for who in findings.gone:
            actions += self._leave(who, "silent", now)
        actions += self.registrar.wake(now)
        of_anchor = self.anchor.wake(now) + self.notifier.wake(now) + self.peers.wake(now)
        self._seek_heirs(_touched(of_anchor), now)
        actions += of_anchor + self.flows.confirm_heirs(now)
        for prefix in self.idle.due(now):
            actions += self._release(prefix, now)
        for node in self._succession.due(now):
            actions += self._succeed(node, now)
        drained = self.draining.next_wake
        if drained is not None and drained <= now:
            actions += self.draining.finish(now, empty=self._is_empty())
        actions += [FindSessions(node=node) for node in self._find_again.due(now) if node in self.here]
        for who in findings.advertise:
            actions += self._advertise_again(who, now)
        for over in (action for action in actions if isinstance(action, ForgetSession)):
            self.flows.forget(over.node, over.prefix)
        # what a node is offered changes only where a path does
        actions += self._offer_changes(_touched(actions), now)
        self.peers.follow(actions, now)
        return actions

    @property
    def next_wake(self) -> float | None:
        """When wake() is due next, monotonic s; None: never, unless something happens."""
        parts = (
            self.access.next_wake,
            self.registrar.deadlines.next,
            self.anchor.next_wake,
            self.notifier.next_wake,
            self.peers.next_wake,
            self.idle.next_wake,
            self._find_again.next,
            self._succession.next,
            self.draining.next_wake,
        )
        return min((at for at in parts if at is not None), default=None)

    def drain(self, now: float) -> list[Action]:
        """We are going: nodes are told to look for another router, registrations are taken back."""
        actions: list[Action] = []
        for who in list(self.access.attached):
            deprecated = [Offer(offer.prefix, offer.valid_lifetime, 0) for offer in self._offers(who)]
            actions += self.access.farewell(who, deprecated)
            actions += self._leave(who, "router stops", now)
        return actions + self.registrar.drain(now)

    # --- draining, by an order ---

    def begin_drain(self, within: float, now: float) -> list[Action]:
        """Take no new nodes, tell those here to look elsewhere, and retire when empty, or after so many s (inf)."""
        self.draining.begin(within, now)
        self.access.preference = RouterPreference.LOW
        return [Note("draining", {"within": within}), *self._advertise_all(now)]

    def end_drain(self, now: float) -> list[Action]:
        """Serve again, also who was refused meanwhile."""
        self.draining.end()
        self.access.preference = RouterPreference.MEDIUM
        return [Note("serving-again"), *self._advertise_all(now), *self.access.solicit(now)]

    def prefixes_in_use(self) -> int:
        """Prefixes lent here whose session is not over, and those of other anchors that are served here."""
        lent = sum(entry.state not in OVER for entry in self.anchor.cache)
        return lent + len(self.registrar.all())

    def _is_empty(self) -> bool:
        return not self.access.attached and not self.prefixes_in_use()

    def _is_new(self, node: str) -> bool:
        """Whether a node has no session here that it would lose."""
        lent = any(entry.state not in OVER for entry in self.anchor.cache.of(node))
        return not lent and node not in self.here and not self.registrar.of(node)

    def _advertise_all(self, now: float) -> list[Action]:
        actions: list[Action] = []
        for who in self.access.attached:
            gone = [offer for offer in self._offered.get(who, ()) if not offer.valid_lifetime]
            self._offered[who] = [*self._offers(who), *gone]
            actions += self.access.advertise(who, self._offered[who], now)
        return actions

    # --- what an operator does; other orders about prefixes and flows: `flows` ---

    def recall(self, prefix: IPv6Network, now: float) -> list[Action]:
        """Have a prefix that is anchored here, and all flows of it, on our own link again, if its node is there."""
        return self._ordered(self.flows.recall(prefix, now), now)

    def take(self, session: Session, policy: str, now: float) -> list[Action]:
        """Have a prefix that is anchored elsewhere, or with a policy flows of it, delivered to our own link."""
        return self._ordered(self.flows.take(session, policy, now), now)

    def give_back(self, prefix: IPv6Network, now: float) -> list[Action]:
        """Prefix or flows go where they were."""
        return self._ordered(self.flows.give_back(prefix, now), now)

    def _ordered(self, actions: list[Action], now: float) -> list[Action]:
        self.peers.follow(actions, now)
        return actions + self._offer_changes(_touched(actions), now)

    def set_policy(self, name: str, rules: tuple[FlowRule, ...], now: float) -> list[Action]:
        """Other flow rules of that name: whatever was moved by it follows."""
        return self.flows.set_policy(name, rules, now)

    def _nearest(self, node: str, link_layer: bytes) -> Place | None:
        """The interface of a node that is here: the one with this link-layer address, else the one that came last."""
        here = self.here.of(node)
        who = next((who for who in here if who.link_layer == link_layer), here[-1] if here else None)
        return self._place(who) if who else None

    # --- the access links ---

    def _link_up(self, event: LinkUp, now: float) -> list[Action]:
        return [Note("link-up", {"interface": event.interface}), *self.access.link_up(event, now)]

    def _link_lost(self, event: LinkLost, now: float) -> list[Action]:
        actions: list[Action] = [Note("link-lost", {"interface": event.interface})]
        for who in self.access.link_lost(event.interface):
            actions += self._leave(who, "link lost", now)
        return actions

    def _attached(self, event: LinkAttached, now: float) -> list[Action]:
        node, who = event.node, _interface_of(event)
        if self.draining.active and self._is_new(node):
            return self.draining.refuse(event, now)
        fresh = self.access.attach(event, now)
        actions = self._settle(who, RevocationStatus.REVOCATION_FAILED_MN_IS_ATTACHED, now)
        here = self._place(who)
        if not fresh:
            return actions + self._heard_again(event, here, now)
        self.here.add(who)
        fields: dict[str, object] = {"node": node, "interface": event.interface, "trigger": event.trigger}
        actions.append(Note("attached", fields))
        self._offered.pop(who, None)
        self._arriving.add(who)
        asked = self.registrar.resume(node, here, now)
        if event.sessions is None:
            asked.append(FindSessions(node=node))
        else:
            asked += self._register(event.sessions, node, now)
        # the anchors first, as their answer takes a while; then the prefixes that need none; then the tunnels
        actions += [action for action in asked if isinstance(action, Send)]
        if not self.draining.active or self.anchor.cache.of(node):
            actions += self.anchor.attach(node, here, now, takes_over=self.profiles.of(node).takes_over)
        actions += [action for action in asked if not isinstance(action, Send)]
        if self.anchor.lost(node):
            self._succession.set(node, now + SIBLING_WAITS)
        return [*actions, *self._offer_changes((node,), now), self.access.expect(self.access.attached[who])]

    def _heard_again(self, event: LinkAttached, here: Place, now: float) -> list[Action]:
        """An interface that is attached showed itself."""
        node = event.node
        who = _interface_of(event)
        self.registrar.heard(who, now)
        actions = self.anchor.reached_at(node, here) + self.registrar.reached_at(node, here) if here.gateway else []
        if self._disputed.get(who):
            self._disputed[who] = False
            actions += self.anchor.contradict(node, here, now)
        # it was registered elsewhere while it stayed here, and is so no longer
        actions += self.anchor.regain(node, here, now, own=True)
        if event.trigger == "rs":
            actions += self.anchor.solicited(node, here.link_layer, now)
            actions += self._advertise_again(who, now)
        return actions + self._offer_changes((node,), now)

    def _place(self, who: NodeInterface) -> Place:
        """Where it is. What a node with several interfaces has on one of them may be delivered to another."""
        item = self.access.attached[who]
        several = len(self.profiles.of(who.node).link_layers) > 1
        return Place(item.interface, item.link_layer, item.link_local if several else None)

    def _detached(self, event: LinkDetached, now: float) -> list[Action]:
        left = self.here.of(event.node, event.link_layer)
        return [action for who in left for action in self._leave(who, event.reason, now)]

    def _leave(self, who: NodeInterface, reason: str, now: float) -> list[Action]:
        gone = self.access.detach(who)
        if gone is None:
            return []
        node = who.node
        self.here.remove(who)
        self._offered.pop(who, None)
        self._arriving.discard(who)
        self._disputed.pop(who, None)
        fields: dict[str, object] = {"node": node, "interface": gone.interface, "reason": reason}
        forget = ExpectNode(node=node, interface=None, link_layer=gone.link_layer, link_local=gone.link_local)
        actions = self._settle(who, RevocationStatus.SUCCESS, now)
        # packets for it are lost until its anchors hold them: they are told before anything else is done
        unheld = self.registrar.leave(node, who.link_layer, now) + self.anchor.leave(node, who.link_layer, now)
        actions += sorted(unheld, key=lambda action: URGENCY.get(type(action), len(URGENCY)))
        if node in self.here:
            self._succession.set(node, now + SIBLING_WAITS)
            actions += self._offer_changes((node,), now)
        else:
            self._find_again.cancel(node)
            self._succession.cancel(node)
            self._claims.forget(node)
        return [*actions, Note("detached", fields), forget]

    def _succeed(self, node: str, now: float) -> list[Action]:
        """An interface had its time to come back: another one that is here has its prefixes from now on."""
        here = self._place(self.here.of(node)[-1])
        return self.anchor.regain(node, here, now, own=False) + self.registrar.succeed(
            node, here, self.access.attached, now
        )

    def _seek_heirs(self, nodes: Iterable[str], now: float) -> None:
        """Prefixes of ours that another router had, or should have: are their nodes here, by whichever interface?"""
        for node in nodes:
            if self.anchor.lost(node) and node in self.here:
                self._succession.set(node, now + SIBLING_WAITS)
                for who in self.here.of(node):
                    self.access.doubt(who, now, PROBE_INTERVAL)

    def _doubted(self, event: NodeDoubted, now: float) -> list[Action]:
        for who in self.here.of(event.node, event.link_layer):
            self.access.doubt(who, now, QUICK_PROBE_INTERVAL)
        return self.wake(now)

    def _offers(self, who: NodeInterface) -> list[Offer]:
        """What a node is offered: the prefix of this router preferred, those it brought along deprecated.

        So are those that another interface of it has now: their addresses are on this one.
        """
        settings = self.settings
        preferred = 0 if self.draining.active else settings.preferred_lifetime
        own = [Offer(prefix, settings.valid_lifetime, preferred) for prefix in self.anchor.local(*who)]
        preferred = 0 if own else preferred
        brought = [
            Offer(item.prefix, min(settings.valid_lifetime, item.valid_lifetime), preferred)
            for item in self.registrar.visited(*who)
            if not item.ordered
        ]
        return own + brought + [Offer(prefix, settings.valid_lifetime, 0) for prefix in self.anchor.away(*who)]

    def _offer_changes(self, nodes: Iterable[str], now: float) -> list[Action]:
        """Advertise to those nodes whose offers differ from what they were told last; what is lost is withdrawn.

        A withdrawal stays among the offers as long as the node is here: any one advertisement may be lost.
        """
        actions: list[Action] = []
        for who in (who for node in nodes for who in self.here.of(node)):
            offers, before = self._offers(who), self._offered.get(who)
            kept = {offer.prefix for offer in offers}
            offers += [Offer(offer.prefix, 0, 0) for offer in before or () if offer.prefix not in kept]
            if offers == before:
                continue
            self._offered[who] = offers
            actions += self.access.advertise(who, offers, now)
        return actions

    def _release(self, prefix: IPv6Network, now: float) -> list[Action]:
        """Nobody uses a visiting prefix; but a node that got none of ours keeps what it has, and orders stand."""
        item = self.registrar.get(prefix)
        if item is None:
            return []
        if self.anchor.local(*item.who) and not item.ordered:
            return self.registrar.release(prefix, now)
        self.idle.watch(prefix, now)
        return []

    def _tunnel_mtu_changed(self, event: TunnelMtuChanged, now: float) -> list[Action]:
        self.access.tunnel_mtu = event.mtu
        actions: list[Action] = [Note("tunnel-mtu", {"mtu": event.mtu})]
        for who, offers in self._offered.items():
            actions += self.access.advertise(who, offers, now)
        return actions

    def _advertise_again(self, who: NodeInterface, now: float) -> list[Action]:
        return self.access.advertise(who, self._offered.get(who, ()), now, changed=False)

    # --- the store ---

    def _sessions_found(self, event: SessionsFound, now: float) -> list[Action]:
        if event.node not in self.here:
            return []
        if event.sessions is None:
            self._find_again.set(event.node, now + FIND_AGAIN)
            return [Note("store-away", {"node": event.node})]
        return self._register(event.sessions, event.node, now)

    def _register(self, sessions: tuple[Session, ...], node: str, now: float) -> list[Action]:
        """Ask the anchors of a node's prefixes to tunnel them here, those that its interfaces here may have."""
        actions: list[Action] = []
        for session in sessions:
            if session.anchor == self.settings.address or session.state is State.FREE:
                continue
            if session.state is State.RELEASED:
                actions += self.registrar.forgo(session)
            else:
                actions += self._claim(session, self._claimant(session), now)
        self._arriving -= set(self.here.of(node))
        return actions

    def _claimant(self, session: Session) -> NodeInterface:
        """The interface here that a prefix is for: its own, the one that has it here, or the one that came last."""
        here, held = self.here.of(session.node), self.registrar.get(session.prefix)
        wanted = (session.link_layer, held.link_layer if held else None)
        return next((who for link_layer in wanted for who in here if who.link_layer == link_layer), here[-1])

    def _claim(self, session: Session, who: NodeInterface, now: float) -> list[Action]:
        profile, arriving = self.profiles.of(who.node), who in self._arriving
        handoff = self._claims.handoff(session, who.link_layer, profile, arriving=arriving, now=now)
        if handoff is None:
            self._may_claim(session, who, now)  # if that has to be found out, it is known by then
            self._find_again.set(who.node, now + SIBLING_WAITS)
            return []
        if handoff == HandoffIndicator.ATTACHMENT_OVER_A_NEW_INTERFACE:
            self._ask_siblings(session, now)
            return self.registrar.let_be(session.prefix)
        if handoff == HandoffIndicator.ATTACHMENT_OVER_A_NEW_INTERFACE_SHARING_PREFIXES:
            self._ask_siblings(session, now)
            return self.flows.share(session, self._place(who), profile.policy, now)
        if self._may_claim(session, who, now):
            return self.registrar.register(session, self._place(who), handoff, now)
        self._find_again.set(who.node, now + FIND_AGAIN)
        return []

    def _ask_siblings(self, session: Session, now: float) -> None:
        """A node is seen elsewhere by another interface: are those that were not heard since then still here?"""
        since = self.clock.monotonic(session.timestamp / TIMESTAMP_UNITS)
        for who in self.here.of(session.node):
            self.access.heard_since(who, since, now)

    def _may_claim(self, session: Session, who: NodeInterface, now: float) -> bool:
        """Whether its node is proven to be here: heard lately, and after it was seen anywhere else.

        The answer of a store that was away comes late, and its news come without being asked for. A router that has
        not noticed that the node left would take the prefix away from where the node is.
        """
        if session.care_of == self.settings.address:
            return True
        seen_elsewhere = self.clock.monotonic(session.timestamp / TIMESTAMP_UNITS)
        since = seen_elsewhere if self.registrar.holds(session.prefix) else max(seen_elsewhere, now - CLAIM_WITHIN)
        return self.access.heard_since(who, since, now)

    def _restored(self, event: SessionsRestored, now: float) -> list[Action]:
        return self.anchor.restore(event.sessions, now) + self.peers.announce_restart(now)

    def _clock_stepped(self, event: ClockStepped, now: float) -> list[Action]:
        self.clock.step(event.wall_minus_monotonic)
        return []

    # --- the peers ---

    def _datagram(self, event: DatagramReceived, now: float) -> list[Action]:
        return self.reception.take(event, now)

    def _update(
        self, update: BindingUpdate, event: DatagramReceived, peer: Peer | None, now: float
    ) -> list[Action]:
        fields: dict[str, object] = {
            "node": node_of(update), "prefix": prefixes_of(update), "peer": event.source, "lifetime": update.lifetime
        }
        answer = self.anchor.answer(update, event.source, event.port, now)
        actions = [Note("pbu-received", fields), *answer.actions]
        if answer.left is not None:
            return actions + self._left(answer.left, now)
        node = node_of(update)
        self._seek_heirs((node,), now)
        return actions + self._offer_changes((node,), now)

    def _left(self, who: NodeInterface, now: float) -> list[Action]:
        """Another router has the interface, by its clock; but one that was heard here a moment ago is asked, once.

        Once for all its prefixes: they are claimed one by one.
        """
        here = self.access.attached.get(who)
        if here is None or now - here.heard > DISPUTE_WITHIN or self._disputed.get(who) is False:
            return self._leave(who, "registered elsewhere", now)
        self._disputed[who] = True
        self.access.doubt(who, now, QUICK_PROBE_INTERVAL)
        return self._offer_changes((who.node,), now)

    def _refuse_forged(self, update: BindingUpdate, event: DatagramReceived, now: float) -> Action:
        request = UpdateRequest.of(update, event.source, event.port)
        ack = acknowledgement(
            request,
            status=Status.MIPV6_AUTH_FAIL,
            lifetime=0,
            prefixes=request.requested,
            our_timestamp=self.clock.timestamp(now),
        )
        return self.door.send(ack, event.source, care_of=request.care_of, port=event.port)

    def _ack(self, ack: BindingAck, event: DatagramReceived, peer: Peer | None, now: float) -> list[Action]:
        fields: dict[str, object] = {
            "node": node_of(ack), "prefix": prefixes_of(ack), "peer": event.source, "status": _name(ack.status)
        }
        actions = [Note("pba-received", fields), *self.registrar.confirm(ack, event.source, now)]
        return actions + self._offer_changes((node_of(ack),), now)

    # --- revocation by an anchor (RFC 5846 9.1) ---

    def _revocation(
        self, indication: BindingRevocationIndication, event: DatagramReceived, peer: Peer | None, now: float
    ) -> list[Action]:
        if not self.reception.is_fresh(indication, peer, now):
            return []
        status = _unsupported(indication)
        if status is not None:
            return [self._answer(Contest(indication, event.source), status)]
        concerned = self._concerned(indication, event.source)
        if not concerned:
            contest = Contest(indication, event.source)
            return [self._answer(contest, RevocationStatus.BINDING_DOES_NOT_EXIST)]
        who = concerned[0].who
        contest = Contest(indication, event.source)
        if who in self.access.attached and indication.trigger in CONTESTABLE:
            self._contests.setdefault(who, []).append(contest)
            self.access.doubt(who, now, QUICK_PROBE_INTERVAL)
            return self.wake(now)
        return self._give_up(contest, concerned, now)

    def _concerned(self, indication: BindingRevocationIndication, anchor: Address) -> list[Registration]:
        named = prefixes_of(indication)
        return [
            item
            for item in self.registrar.of(node_of(indication))
            if item.anchor == anchor and (item.prefix in named or not named)
        ]

    def _settle(self, who: NodeInterface, status: RevocationStatus, now: float) -> list[Action]:
        """An interface was heard, or is gone: answer the anchors that say its node is elsewhere."""
        actions: list[Action] = []
        for contest in self._contests.pop(who, ()):
            concerned = self._concerned(contest.indication, contest.source)
            if status is RevocationStatus.SUCCESS:
                actions += self._give_up(contest, concerned, now)
                continue
            actions.append(self._answer(contest, status))
            # it is proven to be here, after the anchor spoke: the newest evidence wins
            actions += self.registrar.insist(concerned, now)
        return actions

    def _give_up(self, contest: Contest, concerned: list[Registration], now: float) -> list[Action]:
        actions: list[Action] = []
        for item in concerned:
            actions += self.registrar.revoked(item.prefix)
        actions += self._offer_changes((node_of(contest.indication),), now)
        return [*actions, self._answer(contest, RevocationStatus.SUCCESS)]

    def _answer(self, contest: Contest, status: RevocationStatus) -> Action:
        indication = contest.indication
        echoed = tuple(option for option in indication.options if option.number in ECHOED)
        ack = BindingRevocationAck(
            status=status,
            sequence_number=indication.sequence_number,
            flags=indication.flags & RevocationFlag.PROXY_BINDING,
            options=() if status is RevocationStatus.SUCCESS else echoed,
        )
        return self.door.send(ack, contest.source, care_of=self.settings.address)

    def _revocation_ack(
        self, ack: BindingRevocationAck, event: DatagramReceived, peer: Peer | None, now: float
    ) -> list[Action]:
        return self.anchor.confirm_revocation(ack, event.source, now)

    # --- whether peers live (RFC 5847) ---

    def _heartbeat(self, beat: Heartbeat, event: DatagramReceived, peer: Peer | None, now: float) -> list[Action]:
        actions = self.peers.receive(beat, event, peer, now)
        self._seek_heirs(_touched(actions), now)
        return actions + self._offer_changes(_touched(actions), now)

    def _not_understood(
        self, error: BindingError, event: DatagramReceived, peer: Peer | None, now: float
    ) -> list[Action]:
        if peer is None or error.status != BindingErrorStatus.UNRECOGNIZED_MH_TYPE:
            return []
        return self.peers.not_understood(peer, event.source, now) + self.notifier.not_understood(
            peer.name, event.source, now
        )

    # --- notification by an anchor (RFC 7077 5.3, RFC 7864 4) ---

    def _notification(
        self, notification: UpdateNotification, event: DatagramReceived, peer: Peer | None, now: float
    ) -> list[Action]:
        if not self.reception.is_fresh(notification, peer, now):
            return []
        answer, actions = self.flows.notified(notification, event.source, now)
        fields: dict[str, object] = {"reason": _name(notification.reason), "status": _name(answer.status)}
        actions.insert(0, Note("notified", fields))
        if UpdateNotificationFlag.ACKNOWLEDGE in notification.flags:
            actions.append(self.door.send(answer, event.source, care_of=self.settings.address))
        return actions

    def _notification_ack(
        self, ack: UpdateNotificationAck, event: DatagramReceived, peer: Peer | None, now: float
    ) -> list[Action]:
        actions = self.notifier.confirm(ack, event.source, now)
        self._seek_heirs(_touched(actions), now)
        return actions


def _care_of(message: Message, event: DatagramReceived) -> Address:
    """The Proxy-CoA is that of the visited router: it sends updates, and acknowledges revocations."""
    if isinstance(message, BindingUpdate):
        return care_of_address(message, event.source)
    ours = not isinstance(message, BindingRevocationAck | UpdateNotificationAck)
    return event.destination if ours else event.source


def _touched(actions: list[Action]) -> Iterable[str]:
    """Nodes of which a prefix takes another path."""
    return dict.fromkeys(action.node for action in actions if isinstance(action, Bind | Unbind))


def _interface_of(event: LinkAttached) -> NodeInterface:
    return NodeInterface(event.node, event.link_layer)


ECHOED = {OptionType.MOBILE_NODE_IDENTIFIER, OptionType.HOME_NETWORK_PREFIX}


def _name(number: Any) -> str:
    return getattr(number, "name", None) or str(number)


def _unsupported(indication: BindingRevocationIndication) -> RevocationStatus | None:
    """Why an indication cannot be followed, before anything is looked up (RFC 5846 6.2.1)."""
    if not isinstance(indication.trigger, RevocationTrigger):
        return RevocationStatus.REVOCATION_TRIGGER_NOT_SUPPORTED
    if RevocationFlag.GLOBAL in indication.flags:
        return RevocationStatus.REVOCATION_FUNCTION_NOT_SUPPORTED
    if RevocationFlag.IPV4_HOME_ADDRESS_BINDING_ONLY in indication.flags:
        return RevocationStatus.BINDING_DOES_NOT_EXIST  # there are no IPv4 bindings here
    return None


HANDLERS: dict[type, Callable[[Mar, Any, float], list[Action]]] = {
    ClockStepped: Mar._clock_stepped,
    DatagramReceived: Mar._datagram,
    LinkUp: Mar._link_up,
    LinkLost: Mar._link_lost,
    LinkAttached: Mar._attached,
    LinkDetached: Mar._detached,
    NodeDoubted: Mar._doubted,
    SessionsFound: Mar._sessions_found,
    SessionsRestored: Mar._restored,
    TunnelMtuChanged: Mar._tunnel_mtu_changed,
}
