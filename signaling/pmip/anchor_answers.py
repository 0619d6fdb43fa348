"""What the anchor answers, and what follows: served, asked differently, refused (RFC 5213 6.9.1.2)."""

from collections.abc import Callable
from math import inf

from signaling.actions import Action, Note
from signaling.iana import Status, name_of
from signaling.pacing import MAX_BINDACK_TIMEOUT
from signaling.pmip.accepted_terms import take
from signaling.pmip.binding_update_list import (
    EVERYTHING,
    Multipath,
    Question,
    Registration,
    Service,
    Stage,
    Step,
)
from signaling.pmip.path_registrations import PathRegistrations
from signaling.pmip.proxy_answer import Reaction, answers, impossible_timers, reaction_to
from signaling.pmip.session_keeper import SessionKeeper
from signaling.pmip.update_sender import NOT_CHANGED
from signaling.settings import TIMESTAMP_UNITS
from signaling.update_request import node_of
from signaling.wire.binding_ack import BindingAck
from signaling.wire.options.time import Timestamp


class AnchorAnswers:
    """The acknowledgements of one gateway."""

    def __init__(self, keeper: SessionKeeper, paths: PathRegistrations) -> None:
        self._keeper = keeper
        self._sender = keeper.sender
        self._paths = paths

    def confirm(self, ack: BindingAck, now: float) -> list[Action]:
        """An authenticated acknowledgement of the anchor came in (RFC 5213 6.9.1.2)."""
        item = self._keeper.entries.waiting(ack.sequence_number)
        if item is None and ack.status == Status.SEQUENCE_NUMBER_OUT_OF_WINDOW:
            # such a refusal carries the anchor's last number, not ours
            item = next(iter(self._keeper.entries.waiting_of(node_of(ack))), None)
        if item is None or item.question is None:
            self._keeper.counters["gateway.unmatched"] += 1
            return []
        if impossible_timers(ack):
            self._keeper.counters["gateway.impossible-timers"] += 1
            return []
        question = item.question
        self._keeper.entries.answered(item)
        if not answers(ack, item, question):
            return self._other_answer(item, now)
        if item.stage is Stage.DEREGISTERING:
            return self._taken_back(item, ack, question, now)
        if question.releases:
            return self._released(item, now)
        if item.stage is Stage.LEAVING:
            item.taken_back = True  # whatever it says of it: it has been told
            return self._keeper.settled(item.session, now)
        if question.lifetime == 0:
            return []  # the node came back before this answer, and what is asked for it now has its time
        # to grant no time at all is to refuse
        served = ack.accepted and ack.lifetime > 0
        return self._accepted(item, ack, question, now) if served else self._refused(item, ack, question, now)

    def _other_answer(self, item: Registration, now: float) -> list[Action]:
        """An answer to what was not asked is ignored, and the question not repeated."""
        self._keeper.counters["gateway.other-answer"] += 1
        if item.stage in (Stage.LEAVING, Stage.DEREGISTERING):
            return []
        self._keeper.bar(item)
        fields: dict[str, object] = {"node": item.session.node, "bid": item.path.binding_id}
        return [Note("answer-does-not-match", fields), *self._keeper.settled(item.session, now)]

    def _accepted(self, item: Registration, ack: BindingAck, question: Question, now: float) -> list[Action]:
        session = item.session
        fresh = item.stage is Stage.PENDING
        item.step(Step.ACCEPTED)
        self._keeper.counters["gateway.accepted"] += 1
        actions: list[Action] = []
        multipath = take(ack, item, question, self._keeper.terms)
        if question.multipath and multipath is Multipath.OFF:
            actions.append(Note("anchor-without-multipath", {"anchor": self._keeper.settings.anchor}))
            self._keeper.keep_only(item)
        if question.services & Service.IPV4 and session.ipv4 is None:
            self._keeper.deny(session, Service.IPV4)  # RFC 5844 3.2.3.2
        if question.services & Service.DELEGATION and not session.delegated:
            session.services &= ~Service.DELEGATION
        self._extend(item, ack, question, now)
        actions += self._keeper.settled(session, now, answered=question.services)
        if fresh:
            fields: dict[str, object] = {
                "node": session.node, "prefixes": tuple(session.bound), "bid": item.path.binding_id
            }
            actions.append(Note("session-registered", fields))
        if session.releasing is not None:
            actions += self._keeper.release_ipv4(session, now)
        elif session.asked & ~question.services & session.services:
            actions += self._keeper.ask_more(session, now)
        return actions + self._paths.further(session, now) + self._keeper.same_flows(session, now)

    def _extend(self, item: Registration, ack: BindingAck, question: Question, now: float) -> None:
        """The lifetime that was granted is that of this path, or of all of them (B, RFC 8278 4.1)."""
        session = item.session
        before = session.refresh_before or self._keeper.settings.refresh_before
        margin = min(before, ack.lifetime / 3)
        for extended in session.of(Stage.REGISTERED) if question.bulk else [item]:
            extended.expires = now + ack.lifetime
            self._sender.deadlines.set(extended.key, extended.expires - margin)
        item.contested, item.renew, item.overwrite, item.proof_after = False, False, False, -inf

    def _taken_back(self, item: Registration, ack: BindingAck, question: Question, now: float) -> list[Action]:
        session = item.session
        if ack.accepted and question.flows:
            session.flows = session.flows_asked = question.flows
        return self._keeper.end(item, Step.ACCEPTED, now) + self._keeper.same_flows(session, now)

    def _released(self, item: Registration, now: float) -> list[Action]:
        """The anchor has the IPv4 home address back. What is left is refreshed at once, if anything is."""
        session = item.session
        session.releasing = None
        if not session.services:
            return self._keeper.forget(session, now)
        return self._sender.ask(item, now, handoff=NOT_CHANGED) if item.stage is Stage.REGISTERED else []

    def _refused(self, item: Registration, ack: BindingAck, question: Question, now: float) -> list[Action]:
        name = name_of(ack.status)
        self._keeper.counters[f"gateway.refused.{name.lower().replace('_', '-')}"] += 1
        reaction = reaction_to(ack)
        if reaction is Reaction.WAIT_FOR_CLOCK and self._clocks_agree(ack, now):
            reaction = Reaction.ASK_NEWER  # not our clock is wrong: the update came late, or twice
        again = AGAIN.get(reaction)
        if again is not None and again(self._keeper, item, ack, question):
            fields: dict[str, object] = {"node": item.session.node, "status": name, "then": reaction.value}
            return [
                Note("asked-differently", fields),
                # who asked for what is not asked for any more is told so; the rest is still open
                *self._keeper.settled(item.session, now, answered=question.services & ~item.session.services),
                *self._sender.ask(item, now, handoff=item.handoff),
            ]
        if reaction is Reaction.ASK_NEWER:
            return self._ask_newer(item, ack, now)
        return self._not_served(item, ack, reaction, name, now)

    def _not_served(
        self, item: Registration, ack: BindingAck, reaction: Reaction, name: str, now: float
    ) -> list[Action]:
        session = item.session
        fields: dict[str, object] = {"node": session.node, "bid": item.path.binding_id, "status": name}
        item.wrong_clock = reaction is Reaction.WAIT_FOR_CLOCK
        theirs = ack.option(Timestamp)
        if item.wrong_clock and theirs is not None:
            ahead = (theirs.value - self._keeper.clock.timestamp(now)) / TIMESTAMP_UNITS
            side = "ahead of" if ahead > 0 else "behind"
            fields["why"] = f"its clock is {abs(ahead):.1f} s {side} ours: run NTP on both"
        if reaction in (Reaction.STOP, Reaction.WITHOUT_IPV4, Reaction.WITHOUT_IPV6):
            self._keeper.deny(session, EVERYTHING)
            self._keeper.keep_only(item)
            self._keeper.bar(item)
        else:
            item.step(Step.REFUSED)
            self._sender.deadlines.set(item.key, now + MAX_BINDACK_TIMEOUT)
        return [Note("registration-refused", fields), *self._keeper.settled(session, now, answered=EVERYTHING)]

    def _ask_newer(self, item: Registration, ack: BindingAck, now: float) -> list[Action]:
        """The anchor has accepted something newer: ask again, but only once the node has proved to be here.

        Else a gateway that has not noticed that the node left would take the session back from where it is.
        """
        if ack.status == Status.SEQUENCE_NUMBER_OUT_OF_WINDOW:
            self._sender.last_number = ack.sequence_number
        item.proof_after, item.contested = now, True
        return self._sender.ask(item, now, handoff=item.handoff) if self._keeper.present(item, now) else []

    def _clocks_agree(self, ack: BindingAck, now: float) -> bool:
        theirs = ack.option(Timestamp)
        window = self._keeper.settings.timestamp_window * TIMESTAMP_UNITS
        return theirs is not None and abs(theirs.value - self._keeper.clock.timestamp(now)) <= window


# --- asking differently: True if that makes a new question of it ---


def _ask_any_prefix(keeper: SessionKeeper, item: Registration, ack: BindingAck, question: Question) -> bool:
    item.session.prefixes = ()
    if question.named:
        keeper.keep_only(item)  # what was registered with the old prefixes is another session
        item.expires = 0.0
    return question.named


def _with_gre_key(keeper: SessionKeeper, item: Registration, ack: BindingAck, question: Question) -> bool:
    item.session.gre = keeper.settings.gre_tunnels
    return not question.gre and item.session.gre


def _without_ipv4(keeper: SessionKeeper, item: Registration, ack: BindingAck, question: Question) -> bool:
    item.session.ipv4 = None
    keeper.deny(item.session, Service.IPV4)
    return bool(question.services & Service.IPV4 and item.session.services)


def _no_ipv4_now(keeper: SessionKeeper, item: Registration, ack: BindingAck, question: Question) -> bool:
    item.session.ipv4 = None
    item.session.services &= ~Service.IPV4
    return bool(question.services & Service.IPV4 and item.session.services)


def _any_ipv4(keeper: SessionKeeper, item: Registration, ack: BindingAck, question: Question) -> bool:
    named = item.session.ipv4 or item.session.ipv4_hint
    item.session.ipv4 = item.session.ipv4_hint = None
    return named is not None


def _without_ipv6(keeper: SessionKeeper, item: Registration, ack: BindingAck, question: Question) -> bool:
    item.session.prefixes = ()
    keeper.deny(item.session, Service.IPV6)
    return bool(question.services & Service.IPV6 and item.session.services)


def _without_delegation(keeper: SessionKeeper, item: Registration, ack: BindingAck, question: Question) -> bool:
    item.session.delegated = ()
    keeper.deny(item.session, Service.DELEGATION)
    return bool(question.services & Service.DELEGATION and item.session.services)


def _any_delegated(keeper: SessionKeeper, item: Registration, ack: BindingAck, question: Question) -> bool:
    named = item.session.delegated or item.session.delegated_hint
    item.session.delegated, item.session.delegated_hint = (), None
    return bool(named)


def _one_path(keeper: SessionKeeper, item: Registration, ack: BindingAck, question: Question) -> bool:
    item.session.multipath = Multipath.OFF
    keeper.keep_only(item)
    return question.multipath


AGAIN: dict[Reaction, Callable[[SessionKeeper, Registration, BindingAck, Question], bool]] = {
    Reaction.ASK_ANY_PREFIX: _ask_any_prefix,
    Reaction.WITH_GRE_KEY: _with_gre_key,
    Reaction.WITHOUT_IPV4: _without_ipv4,
    Reaction.NO_IPV4_NOW: _no_ipv4_now,
    Reaction.ANY_IPV4: _any_ipv4,
    Reaction.WITHOUT_IPV6: _without_ipv6,
    Reaction.WITHOUT_DELEGATION: _without_delegation,
    Reaction.ANY_DELEGATED: _any_delegated,
    Reaction.ONE_PATH: _one_path,
}
