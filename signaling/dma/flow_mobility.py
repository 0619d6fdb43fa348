"""IP flow mobility by order: prefixes, or flows of them, are moved between routers while their node stays everywhere.

    at the anchor     hand(prefix, to a peer)   FMI: the peer is asked to register it (RFC 7864 3.2.2, RFC 7077)
                      recall(prefix)            to our own link; whoever had it, or flows of it, is told (RFC 5846)
    at a visited one  take(prefix)              registered here: a whole prefix with handoff indicator 2, flows with 6
                      give_back(prefix)         de-registered: it goes where it was

The anchor's FMI is the complete list of what it wants at that router for the node; what it leaves out is given back.
Each prefix of it has the L flag: it is routed to the node, and not advertised (RFC 7864 4.1). Flow options of it name
by their destination the prefix that they are of; a prefix without any comes as a whole.
"""

from collections.abc import Callable, Iterable
from ipaddress import IPv6Network
from math import inf
from typing import TYPE_CHECKING

from signaling.actions import Action, Note, TunnelEnd
from signaling.dma.anchor import Anchor
from signaling.dma.binding_cache import Entry
from signaling.dma.registrar import Order, Registrar
from signaling.dma.session import Session, State
from signaling.dma.sharing import DEFAULT, SHARING, of_prefix
from signaling.door import Door
from signaling.flow_bindings import options_of
from signaling.flow_rules import FlowRule
from signaling.iana import (
    HandoffIndicator,
    TrafficSelectorFormat,
    UpdateNotificationReason,
    UpdateNotificationStatus,
    name_of,
)
from signaling.node_interface import Place
from signaling.notifier import Notifier, Outcome
from signaling.settings import Address, Settings
from signaling.update_request import node_of, prefixes_of, subject_of
from signaling.wire.notification import UpdateNotification, UpdateNotificationAck
from signaling.wire.options.flow import FlowIdentification
from signaling.wire.options.option import Option
from signaling.wire.options.prefix import HomeNetworkPrefix
from signaling.wire.traffic_selector import TrafficSelector

if TYPE_CHECKING:
    from signaling.dmm.serving import CentralRegistrar

SWITCH = HandoffIndicator.HANDOFF_BETWEEN_TWO_DIFFERENT_INTERFACES


class FlowMobility:
    """Orders of one router. What they lead to is in the tables of anchor and registrar, and ends as all there does."""

    def __init__(
        self,
        settings: Settings,
        anchor: Anchor,
        registrar: "Registrar | CentralRegistrar",
        notifier: Notifier,
        door: Door,
        *,
        nearest: Callable[[str, bytes], Place | None],
    ) -> None:
        """nearest(node, link-layer address): its place on our links, that interface's if it can be; None: no place."""
        self.policies = dict(settings.policies)
        self.handed: dict[tuple[str, IPv6Network], dict[str, str]] = {}  # -> peer -> policy of flows; "": the whole
        self._settings = settings
        self._anchor = anchor
        self._registrar = registrar
        self._notifier = notifier
        self._door = door
        self._nearest = nearest

    # --- at the anchor ---

    def hand(self, prefix: IPv6Network, peer: str, policy: str, now: float) -> list[Action]:
        """Ask a peer to take a prefix that is lent, or with a policy flows of it."""
        entry = self._entry(prefix)
        self.handed.setdefault((entry.node, prefix), {})[peer] = policy
        return self._ask(entry.node, peer, now, new=prefix)

    def recall(self, prefix: IPv6Network, now: float) -> list[Action]:
        """Prefix and flows come back to our own link, if the node is there."""
        entry = self._entry(prefix)
        self.handed.pop((entry.node, prefix), None)
        return self._anchor.recall(entry, self._nearest(entry.node, entry.lent_to), now)

    def _entry(self, prefix: IPv6Network) -> Entry:
        entry = self._anchor.cache.get(prefix)
        assert entry is not None  # whoever orders has looked
        return entry

    def _ask(self, node: str, name: str, now: float, *, new: IPv6Network | None = None) -> list[Action]:
        """What a peer is to have of a node, as one list: what it has by order, and this one."""
        peer = self._door.named(name)
        if peer is None or peer.address is None:
            return []
        wanted: dict[IPv6Network, str] = {}
        for entry in self._anchor.cache.of(node):
            policies = self.handed.get((node, entry.prefix), {})
            there = peer.address in entry.sharers or peer.address == entry.care_of
            if peer.name in policies and (there or entry.prefix == new):
                wanted[entry.prefix] = policies[peer.name]
        rules = [rule for prefix, name in wanted.items() for rule in of_prefix(self.policies.get(name, ()), prefix)]
        flows = options_of(rules, (TunnelEnd(remote=peer.address, binding_id=DEFAULT),))
        named: tuple[Option, ...] = tuple(HomeNetworkPrefix(prefix=prefix, off_link=True) for prefix in wanted)
        return self._notifier.notify(
            UpdateNotificationReason.FLOW_MOBILITY,
            node,
            (),
            peer.name,
            peer.address,
            now,
            options=(*named, *flows),
            on_done=self._asked,
        )

    def take_up(self, notification: UpdateNotification) -> None:
        """Another process of this router has sent it, and nobody has answered yet."""
        forced = notification.reason == UpdateNotificationReason.FORCE_REREGISTRATION
        self._notifier.expect(notification.sequence_number, self._confirmed if forced else self._asked)

    def confirm_heirs(self, now: float) -> list[Action]:
        """Ask those that have inherited prefixes whether they still know of them: an end may have been lost."""
        if not self._anchor.heirs:
            return []
        heirs, self._anchor.heirs = self._anchor.heirs, []
        actions: list[Action] = []
        for entry in heirs:
            peer, prefixes = self._door.peer(entry.care_of), (entry.prefix,)
            name = peer.name if peer else ""
            again = UpdateNotificationReason.FORCE_REREGISTRATION
            actions += self._notifier.notify(
                again, entry.node, prefixes, name, entry.care_of, now, on_done=self._confirmed
            )
        return actions

    def _confirmed(self, outcome: Outcome, now: float) -> list[Action]:
        actions: list[Action] = []
        for prefix in () if outcome.accepted else prefixes_of(outcome.notification):
            entry = self._anchor.cache.get(prefix)
            if entry is not None and entry.state is State.REMOTE and entry.care_of == outcome.destination:
                actions += self._anchor.disown(entry, now)
        return actions

    def _asked(self, outcome: Outcome, now: float) -> list[Action]:
        """The peer has answered: it registers what it was asked to take, or will not."""
        if outcome.accepted:
            return []
        why = "no answer" if outcome.ack is None else name_of(outcome.ack.status)
        node, peer = node_of(outcome.notification), outcome.destination
        return [Note("move-refused", {"node": node, "peer": peer, "why": why})]

    # --- at a visited router ---

    def take(self, session: Session, policy: str, now: float) -> list[Action]:
        """Have a prefix that is anchored elsewhere, or with a policy flows of it, delivered to our own link."""
        here = self._nearest(session.node, b"")
        if here is None:
            return []
        order = self._order(policy, session.prefix)
        return self._registrar.register(session, here, SHARING if policy else SWITCH, now, order=order)

    def share(self, session: Session, here: Place, policy: str, now: float) -> list[Action]:
        """The node's interfaces share their prefixes: flows by the policy of its profile come here."""
        held = self._registrar.get(session.prefix)
        if held is not None and held.shares and self._registrar.holds(session.prefix):
            return []
        return self._registrar.register(session, here, SHARING, now, order=self._order(policy, session.prefix))

    def _order(self, policy: str, prefix: IPv6Network) -> Order:
        return Order(policy=policy, flows=of_prefix(self.policies.get(policy, ()), prefix))

    def give_back(self, prefix: IPv6Network, now: float) -> list[Action]:
        """Prefix or flows go where they were."""
        return self._registrar.give_back(prefix, now)

    def notified(
        self, notification: UpdateNotification, anchor: Address, now: float
    ) -> tuple[UpdateNotificationAck, list[Action]]:
        """An anchor says what it wants here of a node: the answer (RFC 7864 4.3), and what is done."""
        status, actions = self._follow(notification, anchor, now)
        number = notification.sequence_number
        return UpdateNotificationAck(sequence_number=number, status=status, options=subject_of(notification)), actions

    def _follow(
        self, notification: UpdateNotification, anchor: Address, now: float
    ) -> tuple[UpdateNotificationStatus, list[Action]]:
        if notification.reason != UpdateNotificationReason.FLOW_MOBILITY:
            force = notification.reason == UpdateNotificationReason.FORCE_REREGISTRATION
            renewed = self._registrar.renew(prefixes_of(notification), now) if force else None
            if renewed is None:
                return UpdateNotificationStatus.FAILED_TO_UPDATE_SESSION_PARAMETERS, []
            return UpdateNotificationStatus.SUCCESS, renewed
        node, rules = node_of(notification), _rules(notification.options_of(FlowIdentification))
        here = self._nearest(node, b"")
        if here is None:
            return UpdateNotificationStatus.MOBILE_NODE_NOT_ATTACHED, []
        if self._settings.cmd:  # which says what is here, and nobody else (RFC 8885 3)
            return UpdateNotificationStatus.REASON_UNSPECIFIED, []
        wanted = prefixes_of(notification)
        if not all(self._may_be_of(anchor, node, prefix) for prefix in wanted):
            return UpdateNotificationStatus.REASON_UNSPECIFIED, []
        actions: list[Action] = []
        for prefix in wanted:
            flows = of_prefix(rules, prefix)
            order, handoff = Order(flows=flows), SHARING if flows else SWITCH
            session = self._session(node, prefix, anchor)
            actions += self._registrar.register(session, here, handoff, now, order=order)
        for item in self._registrar.of(node):
            if item.anchor == anchor and item.ordered and not item.policy and item.prefix not in wanted:
                actions += self._registrar.give_back(item.prefix, now)
        return UpdateNotificationStatus.SUCCESS, actions

    def _may_be_of(self, anchor: Address, node: str, prefix: IPv6Network) -> bool:
        """Whether that router may be the anchor of a node's prefix: not of one of ours, nor of another's."""
        held = self._registrar.get(prefix)
        theirs = held is None or (held.anchor, held.node) == (anchor, node)
        return theirs and prefix not in self._anchor.pool and self._anchor.cache.get(prefix) is None

    def _session(self, node: str, prefix: IPv6Network, anchor: Address) -> Session:
        """A prefix of which nothing is known but that its anchor wants it here."""
        return Session(
            node=node,
            prefix=prefix,
            anchor=anchor,
            state=State.LOCAL,
            care_of=anchor,
            link_layer=b"",
            technology=0,
            timestamp=0,
            expires=inf,
            valid_lifetime=self._settings.valid_lifetime,
        )

    # --- both ---

    def forget(self, node: str, prefix: IPv6Network) -> None:
        """The prefix is free again: what was ordered about it is over."""
        self.handed.pop((node, prefix), None)

    def set_policy(self, name: str, rules: tuple[FlowRule, ...], now: float) -> list[Action]:
        """Other flows: their anchors are told of those that come here, the others' routers of those that go there."""
        self.policies[name] = rules
        actions = self._registrar.change_flows(name, rules, now)
        nodes = {
            (entry.node, peer)
            for entry in self._anchor.cache
            for peer, policy in self.handed.get((entry.node, entry.prefix), {}).items()
            if policy == name
        }
        for node, peer in sorted(nodes):
            actions += self._ask(node, peer, now)
        return actions


def _rules(flows: Iterable[FlowIdentification]) -> tuple[FlowRule, ...]:
    """What an FMI says about flows, best first."""
    ordered = sorted(flows, key=lambda flow: flow.priority)
    return tuple(
        FlowRule(name=f"flow {flow.flow_id}", selector=flow.selector)
        for flow in ordered
        if isinstance(flow.selector, TrafficSelector) and flow.selector.format == TrafficSelectorFormat.IPV6_BINARY
    )
