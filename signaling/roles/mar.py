"""Mobility capable Access Router: anchor for the prefixes it lends, visited router for those lent elsewhere.

Dynamic Mobility Anchoring: a node gets a prefix from every router it comes to. New flows use the newest one, natively;
older prefixes stay alive through a tunnel from their anchor (H-MAR) straight to where the node is (V-MAR).
"""

from collections.abc import Callable, Iterable
from ipaddress import IPv6Network
from typing import Any

from signaling.access_link import PROBE_INTERVAL, QUICK_PROBE_INTERVAL, AccessLink
from signaling.actions import Action, Bind, ExpectNode, FindSessions, ForgetSession, Note, Send, SetPolicy, Unbind
from signaling.deadlines import Deadlines
from signaling.dma.anchor import Anchor
from signaling.dma.claims import FIND_AGAIN, SIBLING_WAITS, Claims
from signaling.dma.contests import Contests
from signaling.dma.flow_mobility import FlowMobility
from signaling.dma.idle import Honoured, IdleWatch, Silence
from signaling.dma.offers import Offers
from signaling.dma.peer_watch import PeerWatch
from signaling.dma.registrar import Registrar
from signaling.dma.session import Session, State
from signaling.dmm.previous import PreviousAnchor
from signaling.dmm.serving import CentralRegistrar
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
    RouterPreference,
    Status,
    UpdateNotificationFlag,
    name_of,
)
from signaling.node_interface import Here, NodeInterface, Place
from signaling.notifier import Notifier
from signaling.profiles import Profiles
from signaling.reception import Reception
from signaling.settings import Address, Clock, Counters, Peer, Settings
from signaling.update_request import UpdateRequest, acknowledgement, care_of_address, node_of, prefixes_of
from signaling.wire.binding_ack import BindingAck
from signaling.wire.binding_error import BindingError
from signaling.wire.binding_update import BindingUpdate
from signaling.wire.heartbeat import Heartbeat
from signaling.wire.message import Message
from signaling.wire.notification import UpdateNotification, UpdateNotificationAck
from signaling.wire.revocation import BindingRevocationAck, BindingRevocationIndication

DISPUTE_WITHIN = 1.0  # s after a node was heard here
URGENCY = {Send: 0, SetPolicy: 1, Bind: 1}  # of what is done about a node that left; taking routes away can wait
OVER = {State.HOLD, State.RELEASED}  # sessions


class Mar:
    """One router: `handle`, `wake`, `next_wake`, and `drain` before the end."""

    def __init__(self, settings: Settings, *, silence: Silence | None = None, honoured: Honoured | None = None) -> None:
        """silence: for how long no packet of a visiting prefix has passed; None: nobody knows, so none is released.

        honoured: for how long it is in use all the same, as connections are open; None: nobody knows of any.
        """
        self.settings = settings
        self.counters = Counters()
        self.clock = Clock()
        self.door = Door(settings, self.counters)
        self.access: AccessLink[NodeInterface] = AccessLink(settings, self.counters, who=_interface_of)
        self.here = Here()
        self.profiles = Profiles(settings.profiles, known_only=False)
        common = settings, self.door, self.clock, self.counters
        self.anchor = Anchor(*common)
        self.idle = IdleWatch(settings.idle_after, silence, honoured)
        heard = self.access.heard_since
        self.central = CentralRegistrar(*common, is_present=heard, idle=self.idle) if settings.cmd else None
        self.registrar = self.central or Registrar(*common, is_present=heard, idle=self.idle)
        self._answerer = self._answering()
        self.peers = PeerWatch(*common, anchor=self.anchor, registrar=self.registrar)
        self.draining = Draining(self.counters)
        self.notifier = Notifier(*common)
        parts = self.anchor, self.registrar
        self.flows = FlowMobility(settings, *parts, self.notifier, self.door, nearest=self._nearest)
        self.claims = Claims(
            settings, self.clock, self.access, self.here, self.profiles, self.registrar, self.flows, place=self._place
        )
        self.offers = Offers(settings, self.access, *parts, self.here, self.draining, self.claims.elsewhere)
        self.contests = Contests(self.door, settings.address, self.access, self.registrar, self.offers, look=self.wake)
        self._succession: Deadlines[str] = Deadlines()  # of nodes with an interface that left, and another one here
        self._disputed: dict[NodeInterface, bool] = {}  # here, and claimed by others; True: they are being asked
        self.reception = self._receiving()

    def _answering(self) -> Anchor | PreviousAnchor:
        """Who answers updates: with a CMD in place of a store (RFC 8885) its own count, and no others."""
        central, common = self.central, (self.settings, self.door, self.clock, self.counters)
        if central is None:
            return self.anchor
        return PreviousAnchor(*common, anchor=self.anchor, moved_on=central.moved_on, claims=central.claims)

    def _receiving(self) -> Reception:
        return Reception(
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
            window=self.settings.timestamp_window,
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
        actions += [FindSessions(node=node) for node in self.claims.find_again.due(now) if node in self.here]
        for who in findings.advertise:
            actions += self.offers.again(who, now, due=True)
        for over in (action for action in actions if isinstance(action, ForgetSession)):
            self.flows.forget(over.node, over.prefix)
        # what a node is offered changes only where a path does
        actions += self.offers.changes(_touched(actions), now)
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
            self.claims.find_again.next,
            self._succession.next,
            self.draining.next_wake,
        )
        return min((at for at in parts if at is not None), default=None)

    def drain(self, now: float) -> list[Action]:
        """We are going: nodes are told to look for another router, registrations are taken back."""
        actions: list[Action] = []
        for who in list(self.access.attached):
            actions += self.offers.farewell(who)
            actions += self._leave(who, "router stops", now)
        return actions + self.registrar.drain(now)

    # --- draining, by an order ---

    def begin_drain(self, within: float, now: float) -> list[Action]:
        """Take no new nodes, tell those here to look elsewhere, and retire when empty, or after so many s (inf)."""
        self.draining.begin(within, now)
        self.access.preference = RouterPreference.LOW
        return [Note("draining", {"within": within}), *self.offers.anew(now)]

    def end_drain(self, now: float) -> list[Action]:
        """Serve again, also who was refused meanwhile."""
        self.draining.end()
        self.access.preference = RouterPreference.MEDIUM
        return [Note("serving-again"), *self.offers.anew(now), *self.access.solicit(now)]

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
        return actions + self.offers.changes(_touched(actions), now)

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
        actions = self.contests.heard(who, now)
        here = self._place(who)
        if not fresh:
            return actions + self._heard_again(event, here, now)
        self.here.add(who)
        fields: dict[str, object] = {"node": node, "interface": event.interface, "trigger": event.trigger}
        actions.append(Note("attached", fields))
        self.offers.forget(who)
        self.claims.arriving.add(who)
        asked = self.registrar.resume(node, here, now)
        if event.sessions is None:
            asked.append(FindSessions(node=node))
        else:
            asked += self.claims.claim(event.sessions, node, now)
        may_lend = not self.draining.active or bool(self.anchor.cache.of(node))
        local = self.anchor.attach(node, here, now, takes_over=self._takes_over(node)) if may_lend else []
        if self.central is not None:
            asked += self.central.attach(node, here, self.anchor.local(node), now)
        # anchors or CMD first, as their answer takes a while; then the prefixes that need none; then the tunnels
        actions += [action for action in asked if isinstance(action, Send)]
        actions += local
        actions += [action for action in asked if not isinstance(action, Send)]
        if self.anchor.lost(node):
            self._succession.set(node, now + SIBLING_WAITS)
        return [*actions, *self.offers.changes((node,), now), self.access.expect(self.access.attached[who])]

    def _takes_over(self, node: str) -> bool:
        """Whether an interface that comes has the prefixes of the others too; a CMD knows nodes, not interfaces."""
        return self.central is not None or self.profiles.of(node).takes_over

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
        actions += self.anchor.reclaim(node, here, now, elsewhere=not self._takes_over(node))
        if event.trigger == "rs":
            actions += self.anchor.solicited(node, here.link_layer, now)
            actions += self.offers.again(who, now)
        return actions + self.offers.changes((node,), now)

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
        self.offers.forget(who)
        self.claims.arriving.discard(who)
        self._disputed.pop(who, None)
        fields: dict[str, object] = {"node": node, "interface": gone.interface, "reason": reason}
        forget = ExpectNode(node=node, interface=None, link_layer=gone.link_layer, link_local=gone.link_local)
        actions = self.contests.gone(who, now)
        # packets for it are lost until its anchors hold them: they are told before anything else is done
        unheld = self.registrar.leave(node, who.link_layer, now) + self.anchor.leave(node, who.link_layer, now)
        actions += sorted(unheld, key=lambda action: URGENCY.get(type(action), len(URGENCY)))
        if node in self.here:
            self._succession.set(node, now + SIBLING_WAITS)
            actions += self.offers.changes((node,), now)
        else:
            self.claims.find_again.cancel(node)
            self._succession.cancel(node)
            self.claims.forget(node)
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
        return [Note("tunnel-mtu", {"mtu": event.mtu}), *self.offers.to_all(now)]

    # --- the store ---

    def _sessions_found(self, event: SessionsFound, now: float) -> list[Action]:
        if event.node not in self.here:
            return []
        if event.sessions is None:
            self.claims.find_again.set(event.node, now + FIND_AGAIN)
            return [Note("store-away", {"node": event.node})]
        return self.claims.claim(event.sessions, event.node, now) + self.offers.changes((event.node,), now)

    def _restored(self, event: SessionsRestored, now: float) -> list[Action]:
        unheard = tuple(it for it in event.sessions if self.anchor.cache.get(it.prefix) is None)
        actions = self.anchor.restore(event.sessions, now)
        actions += self.central.restore(unheard, now) if self.central is not None else []
        return actions + self.peers.announce_restart(now)

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
        answer = self._answerer.answer(update, event.source, event.port, now)
        actions = [Note("pbu-received", fields), *answer.actions]
        if answer.left is not None:
            return actions + self._left(answer.left, now)
        node = node_of(update)
        self._seek_heirs((node,), now)
        return actions + self.offers.changes((node,), now)

    def _left(self, who: NodeInterface, now: float) -> list[Action]:
        """Another router has the interface, by its clock; but one that was heard here a moment ago is asked, once.

        Once for all its prefixes: they are claimed one by one. A CMD speaks for all of them; it may have believed in
        what was older, and no revocation asks us whether the node is here: its answer attaches it anew.
        """
        if self.central is not None:
            question = self.access.last_question(who)
            return [*self._leave(who, "registered elsewhere", now), *question]
        here = self.access.attached.get(who)
        if here is None or now - here.heard > DISPUTE_WITHIN or self._disputed.get(who) is False:
            return self._leave(who, "registered elsewhere", now)
        self._disputed[who] = True
        self.access.doubt(who, now, QUICK_PROBE_INTERVAL)
        return self.offers.changes((who.node,), now)

    def _refuse_forged(self, update: BindingUpdate, event: DatagramReceived, now: float) -> Action:
        request = UpdateRequest.of(update, event.source, event.port)
        ack = acknowledgement(request, Status.MIPV6_AUTH_FAIL, our_timestamp=self.clock.timestamp(now))
        return self.door.send(ack, event.source, care_of=request.care_of, port=event.port)

    def _ack(self, ack: BindingAck, event: DatagramReceived, peer: Peer | None, now: float) -> list[Action]:
        fields: dict[str, object] = {
            "node": node_of(ack), "prefix": prefixes_of(ack), "peer": event.source, "status": name_of(ack.status)
        }
        actions = [Note("pba-received", fields), *self.registrar.confirm(ack, event.source, now)]
        return actions + self.offers.changes((node_of(ack),), now)

    # --- revocation by an anchor (RFC 5846 9.1) ---

    def _revocation(
        self, indication: BindingRevocationIndication, event: DatagramReceived, peer: Peer | None, now: float
    ) -> list[Action]:
        if not self.reception.is_fresh(indication, peer, now):
            return []
        return self.contests.revoked(indication, event.source, now)

    def _revocation_ack(
        self, ack: BindingRevocationAck, event: DatagramReceived, peer: Peer | None, now: float
    ) -> list[Action]:
        return self.anchor.confirm_revocation(ack, event.source, now)

    # --- whether peers live (RFC 5847) ---

    def _heartbeat(self, beat: Heartbeat, event: DatagramReceived, peer: Peer | None, now: float) -> list[Action]:
        actions = self.peers.receive(beat, event, peer, now)
        self._seek_heirs(_touched(actions), now)
        return actions + self.offers.changes(_touched(actions), now)

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
        fields: dict[str, object] = {"reason": name_of(notification.reason), "status": name_of(answer.status)}
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
