"""Sending updates: for every prefix a visiting node brought along, its anchor is asked to tunnel it here.

The visited side of Dynamic Mobility Anchoring (V-MAR) in the words of Proxy Mobile IPv6 (RFC 5213 6.9). An update is
repeated with a fresh timestamp until it is answered, refreshed while the node is here, and taken back when it left.
"""

from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass
from ipaddress import IPv6Network

from signaling.actions import Action, BackToAnchor, Bind, Held, Note, TowardAnchor, Unbind
from signaling.deadlines import Deadlines
from signaling.dma.idle import IdleWatch
from signaling.dma.refusals import OF_ANOTHER_INTERFACE, at_a_visited_router
from signaling.dma.session import Session
from signaling.dma.sharing import SHARING, of_prefix, refusals
from signaling.dma.update_list import Progress, Registration, Step
from signaling.dma.updates import Updates
from signaling.door import Door
from signaling.flow_rules import FlowRule
from signaling.iana import HandoffIndicator, Status, name_of
from signaling.node_interface import NodeInterface, Place
from signaling.pacing import INITIAL_BINDACK_TIMEOUT, MAX_BINDACK_TIMEOUT, not_before
from signaling.settings import TIMESTAMP_UNITS, Address, Clock, Counters, Settings
from signaling.update_request import node_of, prefixes_of
from signaling.wire.binding_ack import BindingAck
from signaling.wire.options.access import AccessTechnologyTypeOption, HandoffIndicatorOption
from signaling.wire.options.flow import FlowIdentification
from signaling.wire.options.identity import MobileNodeLinkLayerIdentifier
from signaling.wire.options.time import Timestamp

REFRESH_BEFORE = 40.0  # s before expiry, the default of RFC 8127 4.1
SPREAD = 0.001  # s between two refreshes of an anchor that is back
CONFIRM_PRESENCE = 1.0  # s: while a node is being asked whether it is there, look again after this
RELEASE_WITHIN = 4.0  # s: the longest wait between tries to tell an anchor that a prefix is released
HEARD_JUST_NOW = 0.1  # s
HEARD_LATELY = 10.0  # s: a node heard so long ago is taken to be there
GOING = (Progress.LEAVING, Progress.DEREGISTERING)
ORDER_LOST = {Status.TIMESTAMP_LOWER_THAN_PREV_ACCEPTED, Status.SEQUENCE_NUMBER_OUT_OF_WINDOW}


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """That a prefix is wanted here, although its own interface is elsewhere; flows: those alone."""

    ordered: bool = True
    policy: str = ""
    flows: tuple[FlowRule, ...] = ()

    def is_carried_out(self, item: Registration | None, handoff: HandoffIndicator) -> bool:
        """Whether the registration is so already."""
        if item is None or item.shares != (handoff == SHARING):
            return False
        return (item.policy, item.flows) == (self.policy, self.flows)


UNASKED = Order(ordered=False)


class Registrar:
    """The prefixes of visiting nodes, each with the state of its registration."""

    def __init__(
        self,
        settings: Settings,
        door: Door,
        clock: Clock,
        counters: Counters,
        *,
        is_present: Callable[[NodeInterface, float, float], bool],
        idle: IdleWatch,
    ) -> None:
        """is_present(who, since, now): whether that interface was heard since then; if not, it is being asked.

        idle: told which prefixes visit.
        """
        self.deadlines: Deadlines[IPv6Network] = Deadlines()
        self._settings = settings
        self._door = door
        self._clock = clock
        self._counters = counters
        self._is_present = is_present
        self._idle = idle
        self._list: dict[IPv6Network, Registration] = {}
        self._of_node: dict[str, dict[IPv6Network, Registration]] = {}
        self._updates = Updates(settings, door, clock)
        self.lost_anchors: set[Address] = set()  # those that do not answer any more

    @property
    def last_number(self) -> int | None:
        """Sequence number of the last update; None: there was none."""
        return self._updates.last_number

    def take_up(self, items: Iterable[Registration], last_number: int | None) -> None:
        """What another process of this router has asked for; set the deadlines beside it."""
        known = list(items)
        for item in known:
            self._enlist(item)
        self._updates.take_up(known, last_number)

    def of(self, node: str) -> list[Registration]:
        """All registrations of a node."""
        return list(self._of_node.get(node, {}).values())

    def all(self) -> list[Registration]:
        """All registrations."""
        return list(self._list.values())

    def visited(self, node: str, link_layer: bytes | None = None) -> list[Registration]:
        """The accepted registrations of a node, by that interface; None: by any."""
        accepted = (item for item in self.of(node) if item.progress is Progress.VISITED)
        return [item for item in accepted if link_layer in (None, item.link_layer)]

    def get(self, prefix: IPv6Network) -> Registration | None:
        """The registration of a prefix, however far it is."""
        return self._list.get(prefix)

    def holds(self, prefix: IPv6Network) -> bool:
        """Whether this prefix is registered here, or being registered."""
        item = self._list.get(prefix)
        return item is not None and item.progress in (Progress.PENDING, Progress.VISITED)

    # --- what the node does ---

    def register(
        self, session: Session, here: Place, handoff: HandoffIndicator, now: float, *, order: Order = UNASKED
    ) -> list[Action]:
        """An interface of the node is here, and this prefix, which is anchored there, is to be delivered to it.

        order: by whom that is wanted, if the node did not bring the prefix along.
        """
        if self._door.peer(session.anchor) is None:
            self._counters["registrar.anchor-is-no-peer"] += 1
            return [Note("anchor-is-no-peer", {"node": session.node, "anchor": session.anchor})]
        item = self._list.get(session.prefix)
        if item is not None and item.node != session.node:
            self._drop(item)  # its anchor has lent the prefix to another node since then
            item = None
        there = item is not None and (item.interface, item.link_layer) == (here.interface, here.link_layer)
        if there and self.holds(session.prefix) and (order is UNASKED or order.is_carried_out(item, handoff)):
            return []
        item = item or self._add(session, here, now)
        if not item.step(Step.FOUND):
            return []
        item.anchor, item.handoff = session.anchor, handoff
        item.lent_to = session.lent_to or session.link_layer
        item.ordered, item.policy, item.flows = order.ordered, order.policy, order.flows
        item.settle(here)
        return self._ask(item, now)

    def resume(self, node: str, here: Place, now: float) -> list[Action]:
        """An interface is back before its anchors were told that it left: ask them again, without asking the store."""
        items = [item for item in self.of(node) if item.link_layer == here.link_layer]
        return [action for item in items if item.step(Step.FOUND) for action in self._ask_from(item, here, now)]

    def succeed(self, node: str, here: Place, still: Container[NodeInterface], now: float) -> list[Action]:
        """An interface did not come back: another one of its node that is here has its prefixes from now on.

        still: the interfaces that are here.
        """
        actions: list[Action] = []
        for item in self.of(node):
            if item.progress in GOING and item.who not in still and item.step(Step.FOUND):
                if not item.shares:
                    item.handoff = HandoffIndicator.HANDOFF_BETWEEN_TWO_DIFFERENT_INTERFACES
                actions += self._ask_from(item, here, now)
        return actions

    def reached_at(self, node: str, here: Place) -> list[Action]:
        """Packets for this interface can be given to it by a gateway from now on."""
        items = [item for item in self.of(node) if item.link_layer == here.link_layer and item.gateway != here.gateway]
        for item in items:
            item.settle(here)
        return [self._bind(item) for item in items if self.holds(item.prefix)]

    def let_be(self, prefix: IPv6Network, now: float) -> list[Action]:
        """Another interface has the prefix, at another router: what was refused here is not asked for again.

        If there was no answer yet, the anchor was away and is there again: it is asked now, and ends the question.
        """
        item = self._list.get(prefix)
        if item is not None and item.progress is Progress.PENDING and item.retry_after > INITIAL_BINDACK_TIMEOUT:
            self.deadlines.set(prefix, now)
        refused = item is not None and item.progress is Progress.REFUSED and item.step(Step.LEFT)
        return self._end(item) if item is not None and refused else []

    def change_flows(self, policy: str, rules: tuple[FlowRule, ...], now: float) -> list[Action]:
        """Other rules of a policy: the anchors of the prefixes that have their flows by it are told at once."""
        actions: list[Action] = []
        for item in list(self._list.values()):
            if item.policy == policy and item.shares and self.holds(item.prefix):
                item.flows = of_prefix(rules, item.prefix)
                actions += self._send_update(item, item.handoff, INITIAL_BINDACK_TIMEOUT, now)
        return actions

    def renew(self, prefixes: tuple[IPv6Network, ...], now: float) -> list[Action] | None:
        """Register them again, their anchor is not sure of them. None: none of them is registered here."""
        items = [self._list[prefix] for prefix in prefixes if self.holds(prefix)]
        if not items:
            return None
        return [action for it in items for action in self._send_update(it, it.handoff, INITIAL_BINDACK_TIMEOUT, now)]

    def give_back(self, prefix: IPv6Network, now: float) -> list[Action]:
        """The prefix, or its flows, go where they were before, although the node is here."""
        item = self._list.get(prefix)
        if item is None or not item.step(Step.LEFT):
            return []
        if item.progress is Progress.NONE:
            return self._end(item)
        item.step(Step.DUE)
        self._updates.forget(item)
        self.deadlines.set(prefix, now + INITIAL_BINDACK_TIMEOUT)
        # what still comes waits, and goes on when nobody has it here
        unknown = HandoffIndicator.HANDOFF_STATE_UNKNOWN
        return [Bind(prefix=prefix, path=Held(), node=item.node), self._updates.update(item, 0, unknown, now)]

    def _ask_from(self, item: Registration, here: Place, now: float) -> list[Action]:
        item.settle(here)
        return self._ask(item, now)

    def heard(self, who: NodeInterface, now: float) -> None:
        """That interface is here at this moment: who waited for that goes on."""
        for item in self.of(who.node):
            if item.proof_wanted and item.link_layer == who.link_layer and self.holds(item.prefix):
                self.deadlines.set(item.prefix, now)

    def insist(self, items: list[Registration], now: float) -> list[Action]:
        """The anchor believes in something older than what we know: register again, with a newer timestamp."""
        held = [item for item in items if self.holds(item.prefix)]
        for item in held:
            item.contested = True
        return [action for item in held for action in self._ask(item, now)]

    def leave(self, node: str, link_layer: bytes, now: float) -> list[Action]:
        """An interface left our access link: its anchors are told at once, so that what comes for it waits there.

        What still comes to us waits here until they know, and goes back to them.
        """
        actions: list[Action] = []
        left: list[Action] = []
        for item in self.of(node):
            if item.link_layer != link_layer or not item.step(Step.LEFT):
                continue
            if item.progress is Progress.NONE:
                left.append(Unbind(prefix=item.prefix, node=node))
                self._drop(item)
                continue
            left.append(Bind(prefix=item.prefix, path=Held(), node=node))
            self._updates.forget(item)
            actions += self._take_back(item, now)
        return actions + left  # the anchors first

    def release(self, prefix: IPv6Network, now: float) -> list[Action]:
        """No packet of this prefix has passed for long: its node does without it from now on."""
        item = self._list[prefix]
        if not item.step(Step.IDLE):
            return []
        self._counters["registrar.released"] += 1
        fields: dict[str, object] = {"node": item.node, "prefix": prefix, "anchor": item.anchor}
        item.retry_after = INITIAL_BINDACK_TIMEOUT
        return [
            Unbind(prefix=prefix, node=item.node),
            Note("prefix-idle", fields),
            self._say_released(item, now),
        ]

    def forgo(self, session: Session) -> list[Action]:
        """The store says that this prefix was released: it is not asked for again."""
        item = self._list.get(session.prefix)
        return self._end(item) if item is not None and item.progress is Progress.REFUSED else []

    def drain(self, now: float) -> list[Action]:
        """We are going: take back every registration at once, waiting for no answer."""
        actions: list[Action] = []
        for item in list(self._list.values()):
            if item.progress in (Progress.VISITED, Progress.LEAVING, Progress.PENDING):
                actions.append(self._updates.update(item, 0, HandoffIndicator.HANDOFF_STATE_UNKNOWN, now))
            self._drop(item)
            actions.append(Unbind(prefix=item.prefix, node=item.node))
        return actions

    # --- what the anchor says ---

    def confirm(self, ack: BindingAck, source: Address, now: float) -> list[Action]:
        """An authenticated acknowledgement came in (RFC 5213 6.9.1.2)."""
        item = self._updates.asked(ack)
        if item is None or item.anchor != source or node_of(ack) != item.node:
            self._counters["registrar.unmatched"] += 1
            return []
        self._updates.forget(item)
        if ack.accepted:
            if not _answers(ack, item):
                # not repeated until an administrator, or the node by coming again, starts it anew
                self._counters["registrar.other-answer"] += 1
                self.deadlines.cancel(item.prefix)
                return []
            return self._accepted(item, ack, now)
        return self._refused(item, ack, now)

    def _accepted(self, item: Registration, ack: BindingAck, now: float) -> list[Action]:
        fresh = item.progress is Progress.PENDING
        if not item.step(Step.ACCEPTED):
            return []
        if item.progress is Progress.NONE:
            return self._end(item)
        if item.progress is Progress.DEREGISTERING:
            return self._give_back(item)
        self._counters["registrar.accepted"] += 1
        if fresh:
            self._idle.watch(item.prefix, now)
        item.expires, item.contested = now + ack.lifetime, False
        margin = min(REFRESH_BEFORE, ack.lifetime / 3)
        self.deadlines.set(item.prefix, item.expires - margin)
        fields: dict[str, object] = {"node": item.node, "prefix": item.prefix, "anchor": item.anchor}
        told: list[Action] = [Note("prefix-visits", fields)] if fresh else []
        for flow in refusals(ack.options_of(FlowIdentification)):
            self._counters["registrar.flow-refused"] += 1
            status = name_of(flow.status)
            told.append(Note("flow-refused", fields | {"flow": flow.flow_id, "status": status}))
        return told

    def _refused(self, item: Registration, ack: BindingAck, now: float) -> list[Action]:
        name = name_of(ack.status)
        self._counters[f"registrar.refused.{name.lower().replace('_', '-')}"] += 1
        order_lost = ack.status in ORDER_LOST or came_late(ack, self._clock, self._settings, now)
        if order_lost and item.progress in (Progress.PENDING, Progress.VISITED):
            return self._order_lost(item, ack, now)
        if order_lost and item.progress is Progress.RELEASING:
            return []  # it came late; it is said again
        if not item.step(Step.REFUSED):
            return []
        fields: dict[str, object] = {
            "node": item.node,
            "prefix": item.prefix,
            "anchor": item.anchor,
            "status": name,
        } | at_a_visited_router(ack.status)
        theirs = ack.option(Timestamp)
        if ack.status == Status.TIMESTAMP_MISMATCH and theirs is not None:
            ahead = (theirs.value - self._clock.timestamp(now)) / TIMESTAMP_UNITS
            side = "ahead of" if ahead > 0 else "behind"
            fields["why"] = f"its clock is {abs(ahead):.1f} s {side} ours: run NTP on both"
        actions: list[Action] = [Note("registration-refused", fields)]
        if item.progress is Progress.DEREGISTERING:
            return actions + self._give_back(item)
        if item.progress is Progress.NONE:
            return actions + self._end(item)
        if ack.status == OF_ANOTHER_INTERFACE and item.step(Step.LEFT):
            return actions + self._end(item)  # when it has it no more, the store says so
        self.deadlines.set(item.prefix, now + MAX_BINDACK_TIMEOUT)
        return [*actions, Unbind(prefix=item.prefix, node=item.node)]

    def _order_lost(self, item: Registration, ack: BindingAck, now: float) -> list[Action]:
        """The anchor has accepted something newer: ask again, but only if the node is proven to be here now.

        Else a visited router that has not noticed that the node left would take the prefix back from where it is.
        """
        if ack.status == Status.SEQUENCE_NUMBER_OUT_OF_WINDOW:
            self._updates.last_number = ack.sequence_number
        item.proof_after, item.contested = now, True
        self._present(item, now)
        return []

    def revoked(self, prefix: IPv6Network) -> list[Action]:
        """The anchor has taken the registration back (RFC 5846 9.1)."""
        item = self._list[prefix]
        item.step(Step.REVOKED)
        return self._give_back(item) if item.progress is Progress.DEREGISTERING else self._end(item)

    def _give_back(self, item: Registration) -> list[Action]:
        """The anchor knows that the node is not here: what waits for it goes there.

        It ends in a moment: a carrier that comes and goes shall not outrun MAX_UPDATE_RATE.
        """
        return [Bind(prefix=item.prefix, path=BackToAnchor.at(item.anchor), node=item.node)]

    # --- anchors that are lost ---

    def anchor_lost(self, anchor: Address, now: float) -> list[Action]:
        """It does not answer any more: nothing reaches its prefixes, so their nodes are told to use others."""
        self.lost_anchors.add(anchor)
        return [action for item in self._at(anchor) for action in self._lose(item, now)]

    def anchor_back(self, anchor: Address, now: float) -> list[Action]:
        """It answers again, or was restarted: it may have forgotten us, and others may have registered meanwhile."""
        self.lost_anchors.discard(anchor)
        actions: list[Action] = []
        for number, item in enumerate(self._at(anchor)):
            if item.progress is Progress.VISITED:
                self.deadlines.set(item.prefix, now + number * SPREAD)  # a refresh
            elif item.progress is Progress.LOST:
                item.step(Step.FOUND)
                actions += self._ask(item, now)
        return actions

    def anchor_forgotten(self, anchor: Address) -> None:
        """Nobody asks it any more whether it lives."""
        self.lost_anchors.discard(anchor)

    def _at(self, anchor: Address) -> list[Registration]:
        return [item for item in self._list.values() if item.anchor == anchor]

    def _lose(self, item: Registration, now: float) -> list[Action]:
        if not item.step(Step.ANCHOR_LOST):
            return []
        self._counters["registrar.lost"] += 1
        self._updates.forget(item)
        self.deadlines.set(item.prefix, now + item.valid_lifetime)  # then its node has forgotten it too
        fields: dict[str, object] = {"node": item.node, "prefix": item.prefix, "anchor": item.anchor}
        return [Unbind(prefix=item.prefix, node=item.node), Note("anchor-lost", fields)]

    # --- time ---

    def wake(self, now: float) -> list[Action]:
        """Repeat, refresh, retry and take back what is due."""
        actions: list[Action] = []
        for prefix in self.deadlines.due(now):
            item = self._list[prefix]
            actions += DUE[item.progress](self, item, now)
        return actions

    def _ask_again(self, item: Registration, now: float) -> list[Action]:
        """No answer yet: again, waiting twice as long each time, as long as the node is here (RFC 5213 6.9.4)."""
        if not self._present(item, now):
            return []
        self._counters["registrar.repeated"] += 1
        retry_after = min(item.retry_after * 2, MAX_BINDACK_TIMEOUT)
        return self._send_update(item, item.handoff, retry_after, now)

    def _refresh(self, item: Registration, now: float) -> list[Action]:
        """Only a node that is known to be here is refreshed (RFC 5213 6.9.1.3)."""
        if not self._present(item, now):
            return []
        if now >= item.expires:
            item.step(Step.EXPIRED)
            return self._ask(item, now)
        first = item.answered
        retry_after = INITIAL_BINDACK_TIMEOUT if first else min(item.retry_after * 2, MAX_BINDACK_TIMEOUT)
        same = not item.contested and not item.shares
        handoff = HandoffIndicator.HANDOFF_STATE_NOT_CHANGED if same else item.handoff
        actions = self._send_update(item, handoff, retry_after, now)
        again = self.deadlines.of(item.prefix)
        if again is not None and again > item.expires:
            self.deadlines.set(item.prefix, item.expires)  # the anchor does not wait for our next try
        return actions

    def _present(self, item: Registration, now: float) -> bool:
        """Whether the node is here; if that has to be found out first, look again in a moment."""
        # the timestamp of a claim, unlike that of a refresh, is taken for when the node was seen
        claims = item.contested or item.progress is Progress.PENDING
        since = max(item.proof_after, now - (HEARD_JUST_NOW if claims else HEARD_LATELY))
        present = self._is_present(item.who, since, now)
        item.proof_wanted = not present
        if not present:
            self.deadlines.set(item.prefix, now + CONFIRM_PRESENCE)
        return present

    def _retry(self, item: Registration, now: float) -> list[Action]:
        item.step(Step.DUE)
        return self._ask(item, now)

    def _take_back(self, item: Registration, now: float) -> list[Action]:
        if self._too_soon(item, now):
            return []
        item.step(Step.DUE)
        self.deadlines.set(item.prefix, now + self._settings.leave_guard)
        return [self._updates.update(item, 0, HandoffIndicator.HANDOFF_STATE_UNKNOWN, now)]

    def _release_again(self, item: Registration, now: float) -> list[Action]:
        """No answer: else the anchor would tunnel to us until its binding ends."""
        item.retry_after *= 2
        if item.retry_after > RELEASE_WITHIN:
            item.step(Step.EXPIRED)
            return self._end(item)
        item.step(Step.DUE)
        return [self._say_released(item, now)]

    def _give_up(self, item: Registration, now: float) -> list[Action]:
        item.step(Step.DUE)
        return self._end(item)

    # --- sending ---

    def _ask(self, item: Registration, now: float) -> list[Action]:
        if item.anchor in self.lost_anchors:
            return self._lose(item, now)
        # bind in the turn of the question: the first packet through the tunnel may overtake the acknowledgement,
        # but not the anchor, which has to look at the question first
        return [*self._send_update(item, item.handoff, INITIAL_BINDACK_TIMEOUT, now), self._bind(item)]

    def _bind(self, item: Registration) -> Bind:
        path = TowardAnchor.through(item.anchor, item.interface, item.gateway)
        return Bind(prefix=item.prefix, path=path, node=item.node)

    def _too_soon(self, item: Registration, now: float) -> bool:
        """Whether no update may be sent now; then the deadline is when one may. Else it counts as sent."""
        again = not_before(item.sent, now)
        if again is not None:
            self.deadlines.set(item.prefix, again)
            return True
        item.sent.append(now)
        return False

    def _send_update(self, item: Registration, handoff: int, retry_after: float, now: float) -> list[Action]:
        if self._too_soon(item, now):
            return []
        item.retry_after = retry_after
        self.deadlines.set(item.prefix, now + retry_after)
        return [self._updates.update(item, self._settings.binding_lifetime, handoff, now)]

    def _say_released(self, item: Registration, now: float) -> Action:
        self.deadlines.set(item.prefix, now + item.retry_after)
        # not 4, which says that the node has left (RFC 5213 6.9.1.4): it is here, as it was
        return self._updates.update(item, 0, HandoffIndicator.HANDOFF_STATE_NOT_CHANGED, now)

    def _end(self, item: Registration) -> list[Action]:
        self._drop(item)
        return [
            Unbind(prefix=item.prefix, node=item.node),
            Note("prefix-gone", {"node": item.node, "prefix": item.prefix, "anchor": item.anchor}),
        ]

    def _add(self, session: Session, here: Place, now: float) -> Registration:
        item = Registration(
            node=session.node,
            prefix=session.prefix,
            anchor=session.anchor,
            interface=here.interface,
            link_layer=here.link_layer,
            handoff=HandoffIndicator.HANDOFF_STATE_UNKNOWN,
            valid_lifetime=session.valid_lifetime,
            gateway=here.gateway,
        )
        self._enlist(item)
        self._idle.expect(item.prefix, now)
        return item

    def _enlist(self, item: Registration) -> None:
        self._list[item.prefix] = item
        self._of_node.setdefault(item.node, {})[item.prefix] = item

    def _drop(self, item: Registration) -> None:
        self._updates.forget(item)
        self._idle.forget(item.prefix)
        self.deadlines.cancel(item.prefix)
        del self._list[item.prefix]
        of_node = self._of_node[item.node]
        del of_node[item.prefix]
        if not of_node:
            del self._of_node[item.node]


def came_late(ack: BindingAck, clock: Clock, settings: Settings, now: float) -> bool:
    """Whether a refused timestamp was one that came late or twice: the other clock and ours show the same."""
    theirs = ack.option(Timestamp)
    if ack.status != Status.TIMESTAMP_MISMATCH or theirs is None:
        return False
    return abs(theirs.value - clock.timestamp(now)) <= settings.timestamp_window * TIMESTAMP_UNITS


def _answers(ack: BindingAck, item: Registration) -> bool:
    """Whether an acceptance is about what was asked; another one is ignored (RFC 5213 6.9.1.2)."""
    handoff, technology = ack.option(HandoffIndicatorOption), ack.option(AccessTechnologyTypeOption)
    interface = ack.option(MobileNodeLinkLayerIdentifier)
    return (
        handoff is not None
        and technology is not None
        and (handoff.indicator, technology.technology) == item.asked
        and (interface is None or interface.identifier == item.link_layer)
        and prefixes_of(ack) == (item.prefix,)
    )


DUE: dict[Progress, Callable[[Registrar, Registration, float], list[Action]]] = {
    Progress.PENDING: Registrar._ask_again,
    Progress.VISITED: Registrar._refresh,
    Progress.REFUSED: Registrar._retry,
    Progress.LEAVING: Registrar._take_back,
    Progress.DEREGISTERING: Registrar._give_up,
    Progress.RELEASING: Registrar._release_again,
    Progress.LOST: Registrar._give_up,
}
