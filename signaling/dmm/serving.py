"""The nodes on our links, registered at the CMD, and the prefixes they brought along: the S-MAAR of RFC 8885.

It stands where a `Registrar` stands in a domain with a store, with the same interface. What differs:

    one registration for each node, of the prefix that is lent here, at the CMD; none at the anchors
    what is visiting says the CMD (or, where that is a locator, each anchor), in one answer or in several
    a node that leaves is de-registered only when its lifetime is over: it may be at another router (RFC 8885 3.5)

What is visiting is kept in `visitors.py`, what is said to the CMD in `enrolment.py`.
"""

from collections.abc import Callable, Container, Iterable, Mapping
from ipaddress import IPv6Network

from signaling.actions import Action, Note
from signaling.deadlines import Deadlines
from signaling.dma.idle import IdleWatch
from signaling.dma.registrar import (
    HEARD_LATELY,
    ORDER_LOST,
    REFRESH_BEFORE,
    SPREAD,
    UNASKED,
    Order,
    came_late,
)
from signaling.dma.session import Session, State
from signaling.dma.update_list import Progress, Registration, Step
from signaling.dmm.dlif import Dlif
from signaling.dmm.enrolment import UNCHANGED, CentralState, Enrolment, Updates
from signaling.dmm.previous_list import Previous, dlif_of, previous_of
from signaling.dmm.update_checks import cure
from signaling.dmm.visitors import Visitors
from signaling.door import Door
from signaling.flow_rules import FlowRule
from signaling.iana import BindingAckFlag, HandoffIndicator, Status, name_of
from signaling.node_interface import NodeInterface, Place
from signaling.pacing import INITIAL_BINDACK_TIMEOUT, MAX_BINDACK_TIMEOUT, not_before
from signaling.settings import Address, Clock, CmdMode, Counters, Settings
from signaling.update_request import node_of, prefixes_of
from signaling.wire.binding_ack import BindingAck
from signaling.wire.options.prefix import AnchoredPrefix

HEARD_JUST_NOW = 1.0  # s ago, at most
CONFIRM_QUICKLY = 0.1  # s: while a node is being asked whether it is there, look again after this
REPORT_EVERY = 0.01  # s, after a start: not all at once
ELSEWHERE = {State.REMOTE, State.RELEASED}  # what the CMD has heard of
LOOK_AGAIN = 2.0  # s after a handover, where answers come one by one: each may be lost, and nobody would repeat it


class CentralRegistrar:
    """What this router, as the serving one, has told the CMD and heard from it."""

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
        self.deadlines: Deadlines[str | IPv6Network] = Deadlines()  # of nodes, and of visiting prefixes
        self.reachable = True  # whether the CMD answers
        self._settings = settings
        self._door = door
        self._clock = clock
        self._counters = counters
        self._is_present = is_present
        self._idle = idle
        self._enrolled: dict[str, Enrolment] = {}
        self._visitors = Visitors(self.deadlines, counters, idle)
        self.lost_anchors = self._visitors.lost_anchors  # those that do not answer any more
        self._updates = Updates(settings, door, clock)

    @property
    def _cmd(self) -> Address:
        peer = self._door.named(self._settings.cmd)
        assert peer is not None  # the configuration says so
        assert peer.address is not None
        return peer.address

    @property
    def dlifs(self) -> Mapping[IPv6Network, Dlif]:
        """The routers that nodes know the anchors of visiting prefixes by, as far as they were told."""
        return self._visitors.dlifs

    def of(self, node: str) -> list[Registration]:
        """The visiting prefixes of a node."""
        return self._visitors.of(node)

    def all(self) -> list[Registration]:
        """All visiting prefixes."""
        return self._visitors.all()

    def enrolled(self) -> list[Enrolment]:
        """All nodes as registered at the CMD."""
        return list(self._enrolled.values())

    def visited(self, node: str, link_layer: bytes | None = None) -> list[Registration]:
        """The visiting prefixes of a node that is here, by that interface; None: by any."""
        visiting = (item for item in self.of(node) if item.progress is Progress.VISITED)
        return [item for item in visiting if link_layer in (None, item.link_layer)]

    def get(self, prefix: IPv6Network) -> Registration | None:
        """A visiting prefix."""
        return self._visitors.get(prefix)

    def holds(self, prefix: IPv6Network) -> bool:
        """Whether this prefix visits us."""
        item = self._visitors.get(prefix)
        return item is not None and item.progress is Progress.VISITED

    def claims(self, node: str, now: float) -> bool:
        """Whether the CMD was told a moment ago that the node is here, and may not have read that yet."""
        item = self._enrolled.get(node)
        on_its_way = item is not None and item.progress is not Progress.LEAVING and not item.answered
        return on_its_way and item is not None and bool(item.sent) and now < item.sent[-1] + INITIAL_BINDACK_TIMEOUT

    # --- what the node does ---

    def attach(self, node: str, here: Place, own: Iterable[IPv6Network], now: float) -> list[Action]:
        """The node is here, and these prefixes are lent to it here: the CMD is told (RFC 8885 3.1)."""
        lent = tuple(own)
        if not lent:
            return []  # its pool is empty: there is nothing to register
        item = self._enrolled.get(node)
        if item is None:
            item = self._enrolled[node] = self._enrolment(node, lent[0])
        item.settle(here)
        item.own, item.unused = lent, ()
        item.handoff, item.fresh = HandoffIndicator.HANDOFF_STATE_UNKNOWN, True
        item.step(Step.FOUND)
        return self._send_update(item, item.handoff, INITIAL_BINDACK_TIMEOUT, now)

    def resume(self, node: str, here: Place, now: float) -> list[Action]:
        """The node is back before it was seen elsewhere: its prefixes still come here."""
        return self._visitors.resume(node, here, now)

    def heard(self, who: NodeInterface, now: float) -> None:
        """That interface is here at this moment: who waited for that goes on."""
        item = self._enrolled.get(who.node)
        if item is not None and item.proof_wanted and item.link_layer == who.link_layer:
            self.deadlines.set(who.node, now)

    def succeed(self, node: str, here: Place, still: Container[NodeInterface], now: float) -> list[Action]:
        """The interface that left did not come back: another one that is here has all that the node has."""
        enrolment = self._enrolled.get(node)
        if enrolment is None or enrolment.progress is not Progress.LEAVING:
            return []
        return [*self.attach(node, here, enrolment.own, now), *self.resume(node, here, now)]

    def reached_at(self, node: str, here: Place) -> list[Action]:
        """Packets for this interface can be given to it by a gateway from now on."""
        return self._visitors.reached_at(node, here)

    def register(
        self, session: Session, here: Place, handoff: HandoffIndicator, now: float, *, order: Order = UNASKED
    ) -> list[Action]:
        """What anybody but the CMD says of other anchors does not count."""
        self._counters["serving.not-from-the-cmd"] += 1
        return []

    def forgo(self, session: Session) -> list[Action]:
        """What anybody but the CMD says of other anchors does not count."""
        return []

    def let_be(self, prefix: IPv6Network, now: float) -> list[Action]:
        """Nothing is asked of an anchor that could be refused."""
        return []

    def change_flows(self, policy: str, rules: tuple[FlowRule, ...], now: float) -> list[Action]:
        """A node is at one router: no flows go another way."""
        return []

    def renew(self, prefixes: tuple[IPv6Network, ...], now: float) -> list[Action] | None:
        """None: nothing is registered at an anchor."""
        return None

    def give_back(self, prefix: IPv6Network, now: float) -> list[Action]:
        """Nothing is here by order."""
        return []

    def leave(self, node: str, link_layer: bytes, now: float) -> list[Action]:
        """An interface has left our link. The CMD is not told: another router will do that (RFC 8885 3.5)."""
        actions: list[Action] = []
        enrolment = self._enrolled.get(node)
        has_it = enrolment is not None and enrolment.link_layer == link_layer
        if enrolment is not None and has_it and enrolment.step(Step.LEFT):
            if enrolment.fresh:  # else a CMD that was away would never hear of the prefixes that are anchored here
                enrolment.expires = now + self._settings.valid_lifetime
                actions += self._report(enrolment, INITIAL_BINDACK_TIMEOUT, now)
            else:
                self.deadlines.set(node, enrolment.expires)
        return actions + self._visitors.hold(node, link_layer)

    def moved_on(self, node: str) -> list[Action]:
        """The node is at another router, says the CMD: nothing of it is registered or visiting here."""
        enrolment = self._enrolled.get(node)
        if enrolment is not None:
            self._drop(enrolment)
        return [action for item in self.of(node) for action in self._visitors.end(item)]

    def insist(self, items: list[Registration], now: float) -> list[Action]:
        """An anchor believes in something older than what we know: the CMD is told again."""
        enrolled = [self._enrolled[node] for node in {item.node for item in items} if node in self._enrolled]
        return [
            action
            for item in enrolled
            for action in self._send_update(item, item.handoff, INITIAL_BINDACK_TIMEOUT, now)
        ]

    def release(self, prefix: IPv6Network, now: float) -> list[Action]:
        """No packet of this prefix has passed for long: its node does without it, and the CMD tells its anchor."""
        item = self._visitors.get(prefix)
        enrolment = self._enrolled.get(item.node) if item is not None else None
        if item is None or item.progress is not Progress.VISITED:
            return []
        if enrolment is None or enrolment.progress is not Progress.VISITED or not enrolment.answered:
            self._idle.watch(prefix, now)  # something else has to be told first
            return []
        self._counters["serving.released"] += 1
        enrolment.unused += (prefix,)
        enrolment.handoff = UNCHANGED
        fields: dict[str, object] = {"node": item.node, "prefix": prefix, "anchor": item.anchor}
        told = self._send_update(enrolment, UNCHANGED, INITIAL_BINDACK_TIMEOUT, now)
        return [*self._visitors.end(item), Note("prefix-idle", fields), *told]

    # --- anchors that are lost, where routers have keys for each other ---

    def anchor_lost(self, anchor: Address, now: float) -> list[Action]:
        """It does not answer any more, whatever the CMD believes."""
        return self._visitors.anchor_lost(anchor)

    def anchor_back(self, anchor: Address, now: float) -> list[Action]:
        """It answers again, or was restarted: with each refresh the CMD tells it where its nodes are."""
        for number, node in enumerate(dict.fromkeys(item.node for item in self._visitors.at(anchor))):
            enrolment = self._enrolled.get(node)
            if enrolment is not None and enrolment.progress is Progress.VISITED:
                self.deadlines.set(node, now + number * SPREAD)
        return self._visitors.anchor_back(anchor, now)

    def anchor_forgotten(self, anchor: Address) -> None:
        """Nobody asks it any more whether it lives."""
        self.lost_anchors.discard(anchor)

    def revoked(self, prefix: IPv6Network) -> list[Action]:
        """Its anchor has taken the prefix back (RFC 5846 9.1)."""
        item = self._visitors.get(prefix)
        return [] if item is None else self._visitors.end(item)

    def drain(self, now: float) -> list[Action]:
        """We are going. Nothing is taken back: where the nodes go next, they will be registered."""
        return [action for item in self.all() for action in self._visitors.end(item)]

    def restore(self, sessions: Iterable[Session], now: float) -> list[Action]:
        """What an earlier run had lent, and not sent elsewhere: whether the CMD had heard of it nobody knows."""
        at = now
        for session in sessions:
            if session.state in ELSEWHERE or session.node in self._enrolled:
                continue
            item = self._enrolled[session.node] = self._enrolment(session.node, session.prefix)
            item.own, item.link_layer = (session.prefix,), session.link_layer
            item.expires = now + session.valid_lifetime
            item.step(Step.FOUND)
            item.step(Step.LEFT)
            at += REPORT_EVERY
            self.deadlines.set(item.node, at)
        return []

    # --- from one process of this router to the next ---

    @property
    def last_number(self) -> int | None:
        """Sequence number of the last update; None: there was none."""
        return self._updates.last_number

    def known(self) -> CentralState:
        """All but visiting prefixes."""
        due = {key: at for key, at in self.deadlines.all().items() if isinstance(key, str)}
        return CentralState(
            enrolled=tuple(self._enrolled.values()), due=due, dlifs=self._visitors.dlifs, reachable=self.reachable
        )

    def take_up(self, visiting: Iterable[Registration], last_number: int | None) -> None:
        """The prefixes that visit; set their deadlines beside it."""
        self._updates.last_number = last_number
        self._visitors.take_up(visiting)

    def go_on(self, state: CentralState) -> None:
        """What another process has told the CMD, and heard from it."""
        self._enrolled.update((item.node, item) for item in state.enrolled)
        for node, at in state.due.items():
            self.deadlines.set(node, at)
        self._visitors.dlifs.update(state.dlifs)
        self.reachable = state.reachable

    # --- what is answered ---

    def confirm(self, ack: BindingAck, source: Address, now: float) -> list[Action]:
        """An authenticated acknowledgement came in, of the CMD or of an anchor."""
        item = self._enrolled.get(node_of(ack))
        from_cmd = source == self._cmd
        known = item is not None and (
            ack.sequence_number in item.numbers or ack.status == Status.SEQUENCE_NUMBER_OUT_OF_WINDOW
        )
        if item is None or not known or not (from_cmd or self._settings.cmd_mode is CmdMode.LOCATOR):
            self._counters["serving.unmatched"] += 1
            return []
        actions = self._is_reachable()
        if not ack.accepted:
            return actions + (self._refused(item, ack, now) if from_cmd else [])
        if BindingAckFlag.DISTRIBUTED_MOBILITY not in ack.flags:
            # it knows nothing of RFC 8885, and takes us for a gateway
            self._counters["serving.not-distributed"] += 1
            return [*actions, Note("cmd-is-none", {"node": item.node, "peer": source})]
        return actions + self._accepted(item, ack, source if not from_cmd else None, now)

    def _accepted(self, item: Enrolment, ack: BindingAck, anchor: Address | None, now: float) -> list[Action]:
        """anchor: who answers in place of the CMD; None: the CMD itself."""
        if item.progress is Progress.DEREGISTERING:
            self._drop(item)
            return []
        if item.progress is not Progress.LEAVING and not item.step(Step.ACCEPTED):
            return []
        first, item.answered = not item.answered, True
        item.expires = now + ack.lifetime
        self._counters["serving.accepted"] += 1
        if item.progress is Progress.LEAVING:
            item.fresh = False
            self.deadlines.set(item.node, item.expires)
            return []
        if first:  # a further answer to the same update must not put the next one off
            soon = item.fresh and self._settings.cmd_mode is not CmdMode.PROXY
            again = now + LOOK_AGAIN if soon else item.expires - min(REFRESH_BEFORE, ack.lifetime / 3)
            self.deadlines.set(item.node, again)
            item.fresh = False
        if anchor is None:
            found = previous_of(ack)
        else:
            dlif = dlif_of(ack.options)
            found = [Previous(prefix=prefix, anchor=anchor, dlif=dlif) for prefix in prefixes_of(ack)]
        ours = {*item.own, *item.unused}
        elsewhere = [it for it in found if it.prefix not in ours and it.anchor != self._settings.address]
        return [action for it in elsewhere for action in self._visitors.welcome(item, it, item.expires, now)]

    def _refused(self, item: Enrolment, ack: BindingAck, now: float) -> list[Action]:
        """The node keeps its local prefix; what visits does so as long as it was registered for."""
        name = name_of(ack.status)
        self._counters[f"serving.refused.{name.lower().replace('_', '-')}"] += 1
        item.answered = True
        if item.progress in (Progress.LEAVING, Progress.DEREGISTERING):
            return []
        if ack.status in ORDER_LOST or came_late(ack, self._clock, self._settings, now):
            # the CMD has heard something newer: told again only if the node is proven to be here now
            if ack.status == Status.SEQUENCE_NUMBER_OUT_OF_WINDOW:
                self._updates.last_number = ack.sequence_number
            item.proof_after, item.handoff = now, HandoffIndicator.HANDOFF_STATE_UNKNOWN
            self._present(item, now)
            return []
        item.step(Step.EXPIRED)
        self.deadlines.set(item.node, now + MAX_BINDACK_TIMEOUT)
        fields: dict[str, object] = {"node": item.node, "cmd": item.anchor, "status": name}
        return [Note("registration-refused", fields | cure(ack.status))]

    # --- time ---

    def wake(self, now: float) -> list[Action]:
        """Repeat, refresh, de-register; end what nobody has named for a lifetime."""
        actions: list[Action] = []
        for key in self.deadlines.due(now):
            if isinstance(key, str):
                item = self._enrolled[key]
                actions += DUE[item.progress](self, item, now)
            else:
                actions += self.revoked(key)
        return actions

    def _ask_again(self, item: Enrolment, now: float) -> list[Action]:
        if not self._present(item, now):
            return []
        actions = [] if item.answered else self._is_silent(item)
        return actions + self._send_update(item, item.handoff, _longer(item.retry_after), now)

    def _refresh(self, item: Enrolment, now: float) -> list[Action]:
        if not self._present(item, now):
            return []
        if not item.answered:
            return self._ask_again(item, now)
        item.handoff = UNCHANGED if now < item.expires else HandoffIndicator.HANDOFF_STATE_UNKNOWN
        return self._send_update(item, item.handoff, INITIAL_BINDACK_TIMEOUT, now)

    def _away(self, item: Enrolment, now: float) -> list[Action]:
        if not item.fresh:
            return self._deregister(item, now)
        if now >= item.expires:  # no host believes in the prefix any more
            self._drop(item)
            return []
        return self._report(item, _longer(item.retry_after), now)

    def _report(self, item: Enrolment, retry_after: float, now: float) -> list[Action]:
        """The node came and went while the CMD did not answer: it has prefixes that are anchored here.

        RFC 8885 has no procedure for that, but an option for it: Anchored Prefix, which says nothing of where it is.
        """
        item.retry_after = retry_after
        self.deadlines.set(item.node, now + retry_after)
        anchored = tuple(AnchoredPrefix(prefix=prefix) for prefix in item.own)
        unknown = HandoffIndicator.HANDOFF_STATE_UNKNOWN
        return [self._updates.update(item, self._settings.binding_lifetime, unknown, now, anchored)]

    def _deregister(self, item: Enrolment, now: float) -> list[Action]:
        """It has not come back, and is nowhere else: all of its sessions are over (RFC 8885 3.5)."""
        item.step(Step.DUE)
        self.deadlines.set(item.node, now + INITIAL_BINDACK_TIMEOUT)
        return [self._updates.update(item, 0, HandoffIndicator.HANDOFF_STATE_UNKNOWN, now)]

    def _unheard(self, item: Enrolment, now: float) -> list[Action]:
        """The CMD is away. When it is back the node may be elsewhere, and want what is anchored here."""
        item.step(Step.FOUND)
        item.step(Step.LEFT)
        item.fresh, item.expires = True, now + self._settings.valid_lifetime
        return self._report(item, INITIAL_BINDACK_TIMEOUT, now)

    def _present(self, item: Enrolment, now: float) -> bool:
        """Whether the node is here; if that has to be found out first, look again in a moment.

        An update that was not answered is repeated only for a node that was heard after it, and just now: the CMD
        takes what is newer for a handover, and nobody here may have noticed that the node left.
        """
        since = now - HEARD_LATELY if item.answered or not item.sent else max(item.sent[-1], now - HEARD_JUST_NOW)
        present = self._is_present(item.who, max(item.proof_after, since), now)
        item.proof_wanted = not present
        if not present:
            self.deadlines.set(item.node, now + CONFIRM_QUICKLY)
        return present

    def _is_silent(self, item: Enrolment) -> list[Action]:
        self._counters["serving.repeated"] += 1
        was_reachable, self.reachable = self.reachable, False
        return [Note("cmd-away", {"peer": item.anchor})] if was_reachable else []

    def _is_reachable(self) -> list[Action]:
        was_reachable, self.reachable = self.reachable, True
        return [] if was_reachable else [Note("cmd-back", {"peer": self._cmd})]

    # --- sending ---

    def _send_update(self, item: Enrolment, handoff: int, retry_after: float, now: float) -> list[Action]:
        again = not_before(item.sent, now)
        if again is not None:
            self.deadlines.set(item.node, again)
            return []
        item.sent.append(now)
        item.retry_after = retry_after
        self.deadlines.set(item.node, now + retry_after)
        return [self._updates.update(item, self._settings.binding_lifetime, handoff, now)]

    def _enrolment(self, node: str, prefix: IPv6Network) -> Enrolment:
        return Enrolment(
            node=node,
            prefix=prefix,
            anchor=self._cmd,
            interface="",
            link_layer=b"",
            handoff=HandoffIndicator.HANDOFF_STATE_UNKNOWN,
            valid_lifetime=self._settings.valid_lifetime,
        )

    def _drop(self, item: Enrolment) -> None:
        self.deadlines.cancel(item.node)
        del self._enrolled[item.node]


def _longer(retry_after: float) -> float:
    """Twice as long each time (RFC 6275 11.8). s"""
    return min(max(INITIAL_BINDACK_TIMEOUT, retry_after * 2), MAX_BINDACK_TIMEOUT)


DUE: dict[Progress, Callable[[CentralRegistrar, Enrolment, float], list[Action]]] = {
    Progress.PENDING: CentralRegistrar._ask_again,
    Progress.VISITED: CentralRegistrar._refresh,
    Progress.LEAVING: CentralRegistrar._away,
    Progress.DEREGISTERING: CentralRegistrar._unheard,
}
