"""Routers that prefixes anchored here are delivered at, and that are lost, or have lost what they knew (derived)."""

from typing import TYPE_CHECKING

from signaling.actions import Action
from signaling.dma.session import AWAY, Happening
from signaling.iana import RevocationTrigger
from signaling.revoker import Outcome, Recipient, Revoker
from signaling.settings import Address, Counters
from signaling.update_request import prefixes_of
from signaling.wire.revocation import BindingRevocationIndication

if TYPE_CHECKING:
    from signaling.dma.anchor import Anchor


class VisitedRouters:
    """What an anchor does about them."""

    def __init__(self, anchor: "Anchor", revoker: Revoker, counters: Counters, *, follows_cmd: bool) -> None:
        self._anchor = anchor
        self._revoker = revoker
        self._counters = counters
        self._follows_cmd = follows_cmd

    def lost(self, care_of: Address) -> list[Action]:
        """The router with this care-of address does not answer any more: its nodes may turn up elsewhere.

        What it shares goes where the prefix is; what it had others inherit, if they share it.
        """
        actions: list[Action] = []
        for entry in self._anchor.cache:
            if care_of in entry.sharers:
                actions += self._anchor.end_sharing(entry, care_of)
            elif entry.care_of == care_of and entry.sharers and entry.step(Happening.INHERITED):
                self._counters["anchor.peer-lost"] += 1
                actions += self._anchor.inherit(entry)
            elif entry.care_of == care_of and entry.step(Happening.PEER_LOST):
                self._counters["anchor.peer-lost"] += 1
                actions += self._anchor.bind(entry)
        return actions

    def back(self, care_of: Address) -> list[Action]:
        """It answers again, and knows what it knew."""
        actions: list[Action] = []
        for entry in self._anchor.cache:
            if entry.care_of == care_of and entry.step(Happening.PEER_BACK):
                self._counters["anchor.peer-back"] += 1
                actions += self._anchor.bind(entry)
        return actions

    def recheck(self, care_of: Address, now: float) -> list[Action]:
        """That router was restarted: does it still know what it has registered? It may have done so again already.

        Where there is a CMD, that says so as soon as it has heard it of that router, and nobody else is asked.
        """
        if self._follows_cmd:
            return []
        trigger, to = RevocationTrigger.POSSIBLE_OUT_OF_SYNC_BCE_STATE, Recipient(address=care_of)
        actions: list[Action] = []
        for entry in self._anchor.cache:
            if care_of in entry.sharers or (entry.care_of == care_of and entry.state in AWAY):
                actions += self._revoker.revoke_session(
                    entry.node, (entry.prefix,), trigger, to, now, on_done=self._rechecked
                )
        return actions

    def _rechecked(self, outcome: Outcome, now: float) -> list[Action]:
        """If it does not know it any more, packets wait until the node shows up, there or elsewhere."""
        actions: list[Action] = []
        for prefix in prefixes_of(outcome.indication):
            entry = self._anchor.cache.get(prefix)
            if entry is None:
                continue
            if outcome.gone and outcome.destination in entry.sharers:
                actions += self._anchor.end_sharing(entry, outcome.destination)
            elif entry.care_of != outcome.destination or entry.state not in AWAY:
                continue
            elif outcome.gone:
                actions += self._anchor.disown(entry, now)
            elif outcome.still_attached and entry.step(Happening.PEER_BACK):
                actions += self._anchor.bind(entry)
        return actions

    def take_up(self, indication: BindingRevocationIndication) -> None:
        """Another process of this router has sent it, and nobody has answered yet."""
        if indication.trigger == RevocationTrigger.POSSIBLE_OUT_OF_SYNC_BCE_STATE:
            self._revoker.expect(indication.sequence_number, self._rechecked)
