"""The Central Mobility Database of RFC 8885: answers those who serve nodes, tells those who anchor their prefixes.

    PBU of the S-MAAR -> binding cache: Proxy-CoA is the S-MAAR, its prefix joins the list
                      -> a copy to every P-MAAR (copies.py)
                      -> PBA with a Previous MAAR option for each:
                           proxy     at once
                           relay     when all have confirmed, or after a while; the rest in further PBAs
                           locator   none: the P-MAARs answer the S-MAAR, unless there is none or all are silent

An entry is found by its node alone: by RFC 5213 5.4.1.1 an update with a new prefix would begin a new session.
"""

from collections.abc import Iterable
from ipaddress import IPv6Network

from signaling.actions import Action, Note
from signaling.deadlines import Deadlines
from signaling.dmm.colleagues import Colleagues
from signaling.dmm.copies import Copies, Copy
from signaling.dmm.database import NOWHERE, Anchorage, Binding, Database, Question
from signaling.dmm.previous_list import distributed, dlif_of, options_of
from signaling.dmm.records import Records
from signaling.dmm.update_checks import Examination, cure, objection, reported
from signaling.door import Door
from signaling.iana import HandoffIndicator, Status, name_of
from signaling.settings import TIMESTAMP_UNITS, Address, Clock, CmdMode, CmdSettings, Counters
from signaling.update_request import UpdateRequest, acknowledgement
from signaling.wire.binding_ack import BindingAck
from signaling.wire.binding_update import BindingUpdate
from signaling.wire.options.prefix import AnchoredPrefix


class CentralDatabase:
    """The binding cache and all that follows from a change of it."""

    def __init__(self, settings: CmdSettings, door: Door, clock: Clock, counters: Counters) -> None:
        self.bindings = Database()
        self.records = Records(settings, door, clock)
        self.colleagues = Colleagues(settings, counters, self.records, self)
        self.copies = Copies(settings, door, clock, counters)
        self._settings = settings
        self._door = door
        self._clock = clock
        self._counters = counters
        self._expiries: Deadlines[str] = Deadlines()  # of nodes
        self._answers: Deadlines[str] = Deadlines()  # when an answer waits no longer for anchors

    @property
    def next_wake(self) -> float | None:
        """The earliest deadline, monotonic s."""
        parts = (self.copies.deadlines.next, self._expiries.next, self._answers.next, self.colleagues.next_wake)
        return min((at for at in parts if at is not None), default=None)

    # --- updates of the routers ---

    def answer(self, update: BindingUpdate, source: Address, port: int, now: float) -> list[Action]:
        """Check an authenticated update and do what it asks (RFC 8885 3.1 to 3.5)."""
        request = UpdateRequest.of(update, source, port)
        binding = self.bindings.get(request.node)
        status = objection(Examination(request, binding, self._settings, self._door, self._clock, now))
        if status is Status.TIMESTAMP_LOWER_THAN_PREV_ACCEPTED and binding is not None:
            ago = self._clock.timestamp(now) - (request.timestamp or 0)
            replayed = ago > self._settings.timestamp_window * TIMESTAMP_UNITS
            late = [] if replayed else self._learn(binding, request, request.prefixes, now)
            return [*self._refuse(request, status, now), *late]
        status = status or self._conflict(request, binding)
        if status is not None:
            return self._refuse(request, status, now)
        if update.lifetime == 0:
            return self._deregister(binding, request, now)
        anchored = reported(request)
        if anchored:
            return self._note_anchor(binding, request, anchored, now)
        return self._register(binding, request, now)

    def _conflict(self, request: UpdateRequest, binding: Binding | None) -> Status | None:
        """Pools of routers are disjoint (RFC 8885 3): what one anchors, no other can."""
        if binding is None and len(self.bindings) >= self._settings.max_bindings:
            return Status.INSUFFICIENT_RESOURCES
        if len(request.prefixes) > self._settings.most_anchors:
            return Status.INSUFFICIENT_RESOURCES
        for prefix in (*request.prefixes, *reported(request)):
            holder = self.bindings.holder(prefix)
            if holder is not None and holder.anchorages[prefix].anchor != request.care_of:
                return Status.NOT_AUTHORIZED_FOR_HOME_NETWORK_PREFIX
        return None

    def _register(self, binding: Binding | None, request: UpdateRequest, now: float) -> list[Action]:
        if binding is None:
            binding = Binding(node=request.node, serving=request.care_of)
            self.bindings.add(binding)
            self._counters["cmd.begun"] += 1
        elif binding.serving != request.care_of:
            self._counters["cmd.handovers"] += 1
        else:
            self._counters["cmd.refreshed"] += 1
        before = self.records.known(binding)
        if request.handoff != HandoffIndicator.HANDOFF_STATE_NOT_CHANGED or binding.serving != request.care_of:
            came = self._clock.timestamp(now) if request.timestamp is None else request.timestamp
            binding.claimed = max(came, binding.claimed)
        lifetime = min(request.update.lifetime, self._settings.binding_lifetime)
        binding.serving = request.care_of
        binding.link_layer, binding.technology = request.link_layer or b"", request.technology
        if request.timestamp is not None:
            binding.timestamp, binding.sequence_number = request.timestamp, None
        else:
            binding.sequence_number = request.update.sequence_number
        binding.expires = now + lifetime
        self._expiries.set(binding.node, binding.expires)
        actions = self._take_own(binding, request.prefixes, now) + self._do_without(binding, request, now)
        actions += self.records.changes(binding, before)
        binding.question = Question(request=request, waits_for={item.prefix for item in binding.untold()})
        return actions + self._reply(binding, lifetime, now)

    def _take_own(self, binding: Binding, prefixes: tuple[IPv6Network, ...], now: float) -> list[Action]:
        """Of the S-MAAR's prefixes it has those that it names; of the others no more than may be."""
        actions: list[Action] = []
        for item in binding.own():
            if item.prefix not in prefixes:
                actions += self._release(binding, item)
        for prefix in prefixes:
            holder = self.bindings.holder(prefix)
            if holder is not None and holder is not binding:  # its anchor has lent it anew since then
                actions += self._release(holder, holder.anchorages[prefix])
            self.copies.forget(prefix)
            self.bindings.anchor(binding, self._anchorage(binding, prefix, binding.serving))
        return actions + self._bound(binding, now)

    def _bound(self, binding: Binding, now: float) -> list[Action]:
        """What is anchored at routers that the node has left: the oldest end first, each told by its own CMD."""
        actions: list[Action] = []
        for item in binding.previous()[: -self._settings.most_anchors]:
            self._counters["cmd.too-many-anchors"] += 1
            actions += self._dismiss(binding, item, now)
        return actions

    def _dismiss(self, binding: Binding, item: Anchorage, now: float, *, unused: bool = False) -> list[Action]:
        """The node has this prefix no more, and its anchor is told so."""
        if not self.records.is_ours(item.anchor):
            return [self.records.say_released(binding, item), *self._release(binding, item)]
        return [*self._release(binding, item), *self.copies.tell(binding, item, 0, now, unused=unused)]

    def _do_without(self, binding: Binding, request: UpdateRequest, now: float) -> list[Action]:
        """Prefixes that nobody uses any more, as a refresh of the S-MAAR says: they follow the node no more."""
        if request.handoff != HandoffIndicator.HANDOFF_STATE_NOT_CHANGED:
            return []
        named = {option.prefix for option in request.update.options_of(AnchoredPrefix)}
        actions: list[Action] = []
        for item in (item for item in binding.previous() if item.prefix in named):
            actions += self.let_go(binding, item, now)
        return actions

    def _anchorage(self, binding: Binding, prefix: IPv6Network, anchor: Address) -> Anchorage:
        return Anchorage(
            prefix=prefix,
            anchor=anchor,
            told=anchor,
            link_layer=binding.link_layer,
            technology=binding.technology,
        )

    def _note_anchor(
        self, binding: Binding | None, request: UpdateRequest, prefixes: tuple[IPv6Network, ...], now: float
    ) -> list[Action]:
        """A router anchors prefixes of a node that is not there any more, perhaps nowhere yet (option 65)."""
        self._counters["cmd.reports"] += 1
        if binding is None:
            binding = Binding(node=request.node, serving=NOWHERE)
            self.bindings.add(binding)
        if binding.serving == NOWHERE:
            binding.expires = now + min(request.update.lifetime, self._settings.binding_lifetime)
            self._expiries.set(binding.node, binding.expires)
        actions = self._learn(binding, request, prefixes, now)
        return [*actions, self._accept(request, self._remaining(binding, now), now)]

    def _learn(
        self, binding: Binding, request: UpdateRequest, prefixes: tuple[IPv6Network, ...], now: float
    ) -> list[Action]:
        """The node was there before it came to where it is: what that router has lent to it counts."""
        if request.care_of == binding.serving:
            return []
        actions: list[Action] = []
        for prefix in prefixes:
            if self.bindings.holder(prefix) is not None or len(binding.anchorages) > self._settings.most_anchors:
                continue
            item = self._anchorage(binding, prefix, request.care_of)
            item.link_layer, item.technology = request.link_layer or b"", request.technology
            self.bindings.anchor(binding, item)
            actions += self.records.save(binding, item)
            actions += self.tell(binding, item, now) if binding.serving != NOWHERE else []
        return actions

    # --- answers to them ---

    def _reply(self, binding: Binding, lifetime: int, now: float) -> list[Action]:
        """What the mode wants to be said now, and what is said to the anchors."""
        question = binding.question
        assert question is not None
        locator = self._settings.cmd_mode is CmdMode.LOCATOR
        ours = self.records.ours(binding.previous())
        # who follows another CMD cannot answer with the number of this update
        elsewhere = [item for item in binding.previous() if not self.records.is_ours(item.anchor)]
        told = [item for item in elsewhere if item.told == binding.serving]
        tell = [action for item in ours for action in self._tell(binding, item, lifetime, now)]
        if not binding.previous() or self._settings.cmd_mode is CmdMode.PROXY:
            return [*self._confirm(binding, binding.previous(), now), *tell]
        if locator and told:
            return [*self._confirm(binding, told, now), *tell]
        if question.waits_for or locator:
            self._answers.set(binding.node, now + self._settings.aggregation)
            return tell
        return [*self._confirm(binding, binding.previous(), now), *tell]

    def _tell(self, binding: Binding, item: Anchorage, lifetime: int, now: float) -> list[Action]:
        """One that is being told already is not told again, but that a locator passes on another number."""
        if self._settings.cmd_mode is not CmdMode.LOCATOR and self.copies.waiting(item.prefix, binding.serving):
            return []
        return self.copies.tell(binding, item, lifetime, now)

    def _confirm(self, binding: Binding, previous: Iterable[Anchorage], now: float) -> list[Action]:
        """A PBA to the S-MAAR that names these; there may be several for one PBU (RFC 8885 3.2)."""
        question = binding.question
        if question is None:
            return []  # nobody has asked this CMD
        self._answers.cancel(binding.node)
        named = list(previous)
        question.answered = True
        question.listed |= {item.prefix for item in named}
        request = question.request
        ack = self._ack(request, Status.BINDING_UPDATE_ACCEPTED, self._remaining(binding, now), now)
        return [self._send(request, distributed(ack, options_of(item.previous for item in named)))]

    def _remaining(self, binding: Binding, now: float) -> int:
        """Seconds of the registration that are left, as the wire counts them."""
        left = min(binding.expires - now, self._settings.binding_lifetime)
        return max(4, round(left / 4) * 4)

    def _refuse(self, request: UpdateRequest, status: Status, now: float) -> list[Action]:
        self._counters[f"cmd.refused.{status.name.lower().replace('_', '-')}"] += 1
        fields = {"node": request.node, "peer": request.source, "status": status.name} | cure(status)
        return [Note("update-refused", fields), self._send(request, distributed(self._ack(request, status, 0, now)))]

    def _ack(self, request: UpdateRequest, status: Status, lifetime: int, now: float) -> BindingAck:
        binding = self.bindings.get(request.node)
        return acknowledgement(
            request,
            status,
            lifetime=lifetime,
            our_timestamp=self._clock.timestamp(now),
            last_sequence_number=binding.sequence_number if binding else None,
        )

    def _send(self, request: UpdateRequest, ack: BindingAck) -> Action:
        return self._door.send(ack, request.source, care_of=request.care_of, port=request.port)

    # --- answers of the anchors ---

    def confirm(self, ack: BindingAck, source: Address, now: float) -> list[Action]:
        """An authenticated acknowledgement of a P-MAAR (RFC 8885 3.2 step 4)."""
        copy = self.copies.answered(ack, source, now)
        binding = self.bindings.get(copy.node) if copy else None
        item = binding.anchorages.get(copy.prefix) if binding and copy else None
        if copy is None or binding is None or item is None or not copy.lifetime:
            return []
        if not ack.accepted:
            return self._lost(binding, item, ack, now)
        dlif = dlif_of(ack.options) or item.dlif
        news, item.dlif = dlif != item.dlif, dlif
        item.link_layer, item.technology = copy.link_layer, copy.technology
        was_told, item.told = item.told, copy.serving
        actions = self._confirmed(binding, item, copy, now, news=news)
        if was_told != copy.serving:  # written behind: the anchor has it, and would only be told once more
            actions += self.records.save(binding, item)
        return actions

    def _confirmed(self, binding: Binding, item: Anchorage, copy: Copy, now: float, *, news: bool) -> list[Action]:
        question = binding.question
        if question is None or copy.serving != binding.serving:
            return []
        question.waits_for.discard(item.prefix)
        if self._settings.cmd_mode is CmdMode.LOCATOR:
            if not question.answered:  # the anchor has told the S-MAAR
                self._answers.cancel(binding.node)
            return []
        if not question.answered:
            return [] if question.waits_for else self._confirm(binding, binding.previous(), now)
        return self._confirm(binding, [item], now) if news or item.prefix not in question.listed else []

    def _lost(self, binding: Binding, item: Anchorage, ack: BindingAck, now: float) -> list[Action]:
        """Its anchor does not know the prefix, or not as this node's: it is over."""
        self._counters["cmd.anchor-refused"] += 1
        status = name_of(ack.status)
        fields: dict[str, object] = {"node": binding.node, "prefix": item.prefix, "anchor": item.anchor}
        actions: list[Action] = [Note("anchor-refuses", fields | {"status": status}), *self._release(binding, item)]
        question = binding.question
        if question is None or item.prefix not in question.waits_for:
            return actions
        question.waits_for.discard(item.prefix)
        if question.waits_for or question.answered:
            return actions
        return actions + self._confirm(binding, binding.previous(), now)

    # --- the end ---

    def _deregister(self, binding: Binding | None, request: UpdateRequest, now: float) -> list[Action]:
        """Only the S-MAAR ends a session, all of it; a P-MAAR hears that it goes on (RFC 8885 3.5)."""
        if binding is None or binding.serving == NOWHERE:
            # RFC 5213 5.4.1 says silence; then its router would take us for gone, and go on asking
            self._counters["cmd.deregistered-unknown"] += 1
            actions = self._leave_nowhere(binding, request) if binding is not None else []
            return [*actions, self._accept(request, 0, now)]
        if binding.serving != request.care_of:
            self._counters["cmd.deregistration-by-previous"] += 1
            return [self._accept(request, self._remaining(binding, now), now)]
        self._counters["cmd.deregistered"] += 1
        return [*self._over(binding, now), self._accept(request, 0, now)]

    def _leave_nowhere(self, binding: Binding, request: UpdateRequest) -> list[Action]:
        mine = [item for item in binding.anchorages.values() if item.anchor == request.care_of]
        actions = [action for item in mine for action in self._release(binding, item)]
        if not binding.anchorages:
            self._expiries.cancel(binding.node)
            self.bindings.remove(binding.node)
        return actions

    def _accept(self, request: UpdateRequest, lifetime: int, now: float) -> Action:
        return self._send(request, distributed(self._ack(request, Status.BINDING_UPDATE_ACCEPTED, lifetime, now)))

    def _over(self, binding: Binding, now: float) -> list[Action]:
        actions: list[Action] = [Note("session-over", {"node": binding.node, "peer": binding.serving})]
        for item in self.records.ours(binding.previous()) if binding.serving != NOWHERE else ():
            actions += self.copies.tell(binding, item, 0, now)
        for deadlines in (self._expiries, self._answers):
            deadlines.cancel(binding.node)
        self.bindings.remove(binding.node)
        self.colleagues.ended(binding, now)
        return actions + self.records.forget(binding, binding.anchorages.values())

    def _release(self, binding: Binding, item: Anchorage) -> list[Action]:
        self.copies.forget(item.prefix)
        self.bindings.release(binding, item.prefix)
        return self.records.forget(binding, (item,))

    # --- what follows from the record of a node (colleagues.py) ---

    def adopt(self, binding: Binding) -> None:
        """It is as the record says, in place of what was known."""
        self._answers.cancel(binding.node)
        self.bindings.add(binding)
        self._expiries.set(binding.node, binding.expires)

    def expire_at(self, binding: Binding, at: float) -> None:
        """Unless more is heard of it."""
        binding.expires = at
        self._expiries.set(binding.node, at)

    def tell(self, binding: Binding, item: Anchorage, now: float) -> list[Action]:
        """One of our anchors shall deliver the prefix where the node is."""
        return self.copies.tell(binding, item, self._remaining(binding, now), now)

    def let_go(self, binding: Binding, item: Anchorage, now: float) -> list[Action]:
        """The node does without a prefix."""
        self._counters["cmd.released"] += 1
        return self._dismiss(binding, item, now, unused=True)

    def told_by_another(self, binding: Binding, item: Anchorage, now: float) -> list[Action]:
        """Its CMD has told an anchor where the node is: the S-MAAR hears of it from us, in every mode."""
        question = binding.question
        if question is None:
            return []
        question.waits_for.discard(item.prefix)
        if question.answered or self._settings.cmd_mode is CmdMode.LOCATOR:
            return self._confirm(binding, [item], now) if item.prefix not in question.listed else []
        return [] if question.waits_for else self._confirm(binding, binding.previous(), now)

    # --- time ---

    def wake(self, now: float) -> list[Action]:
        """Repeat what is unconfirmed, answer what has waited long enough, end what was not refreshed."""
        actions: list[Action] = []
        for node in self._answers.due(now):
            actions += self._waited(node, now)
        actions += self.colleagues.wake(now) + self.copies.wake(now)
        for node in self._expiries.due(now):
            binding = self.bindings.get(node)
            if binding is not None:
                self._counters["cmd.expired"] += 1
                actions += self._over(binding, now)
        return actions

    def _waited(self, node: str, now: float) -> list[Action]:
        """Not all anchors have confirmed: what is there goes first."""
        binding = self.bindings.get(node)
        if binding is None or binding.question is None:
            return []
        self._counters["cmd.answered-in-part"] += 1
        there = [item for item in binding.previous() if item.prefix not in binding.question.waits_for]
        return self._confirm(binding, there, now)
