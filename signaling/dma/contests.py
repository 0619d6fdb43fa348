"""An anchor says that a node is elsewhere, while it is attached here (RFC 5846 9.1): the node itself is asked.

it is heard    the anchor is refused, and the prefix registered again: the newest evidence wins
it is silent   the registration is given up
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from signaling.access_link import QUICK_PROBE_INTERVAL, AccessLink
from signaling.actions import Action
from signaling.dma.offers import Offers
from signaling.dma.registrar import Registrar
from signaling.dma.update_list import Registration
from signaling.door import Door
from signaling.iana import RevocationFlag, RevocationStatus, RevocationTrigger
from signaling.node_interface import NodeInterface
from signaling.settings import Address
from signaling.update_request import node_of, prefixes_of, subject_of
from signaling.wire.revocation import BindingRevocationAck, BindingRevocationIndication

if TYPE_CHECKING:
    from signaling.dmm.serving import CentralRegistrar

CONTESTABLE = {  # by the node, if it is here
    RevocationTrigger.INTER_MAG_HANDOVER_SAME_ACCESS_TYPE,
    RevocationTrigger.INTER_MAG_HANDOVER_DIFFERENT_ACCESS_TYPE,
    RevocationTrigger.INTER_MAG_HANDOVER_UNKNOWN,
    RevocationTrigger.POSSIBLE_OUT_OF_SYNC_BCE_STATE,
}


@dataclass(frozen=True, slots=True)
class Contest:
    """What an anchor said, while the node is being asked."""

    indication: BindingRevocationIndication
    source: Address


class Contests:
    """Revocations that this router gets. open: by the interface that is being asked."""

    def __init__(
        self,
        door: Door,
        our_address: Address,
        access: AccessLink[NodeInterface],
        registrar: "Registrar | CentralRegistrar",
        offers: Offers,
        *,
        look: Callable[[float], list[Action]],
    ) -> None:
        """look(now): what is due now, such as the question to a node that was doubted."""
        self.open: dict[NodeInterface, list[Contest]] = {}
        self._door = door
        self._our_address = our_address
        self._access = access
        self._registrar = registrar
        self._offers = offers
        self._look = look

    def revoked(self, indication: BindingRevocationIndication, source: Address, now: float) -> list[Action]:
        """An anchor takes registrations back: do so and answer, or ask the node first."""
        contest = Contest(indication, source)
        status = _unsupported(indication)
        if status is not None:
            return [self._answer(contest, status)]
        concerned = self._concerned(contest)
        if not concerned:
            return [self._answer(contest, RevocationStatus.BINDING_DOES_NOT_EXIST)]
        who = concerned[0].who
        if who in self._access.attached and indication.trigger in CONTESTABLE:
            self.open.setdefault(who, []).append(contest)
            self._access.doubt(who, now, QUICK_PROBE_INTERVAL)
            return self._look(now)
        return self._give_up(contest, now)

    def heard(self, who: NodeInterface, now: float) -> list[Action]:
        """It is here, after the anchors spoke."""
        actions: list[Action] = []
        for contest in self.open.pop(who, ()):
            actions.append(self._answer(contest, RevocationStatus.REVOCATION_FAILED_MN_IS_ATTACHED))
            actions += self._registrar.insist(self._concerned(contest), now)
        return actions

    def gone(self, who: NodeInterface, now: float) -> list[Action]:
        """The anchors are right."""
        return [action for contest in self.open.pop(who, ()) for action in self._give_up(contest, now)]

    def _concerned(self, contest: Contest) -> list[Registration]:
        named = prefixes_of(contest.indication)
        return [
            item
            for item in self._registrar.of(node_of(contest.indication))
            if item.anchor == contest.source and (item.prefix in named or not named)
        ]

    def _give_up(self, contest: Contest, now: float) -> list[Action]:
        actions = [action for item in self._concerned(contest) for action in self._registrar.revoked(item.prefix)]
        actions += self._offers.changes((node_of(contest.indication),), now)
        return [*actions, self._answer(contest, RevocationStatus.SUCCESS)]

    def _answer(self, contest: Contest, status: RevocationStatus) -> Action:
        indication = contest.indication
        ack = BindingRevocationAck(
            status=status,
            sequence_number=indication.sequence_number,
            flags=indication.flags & RevocationFlag.PROXY_BINDING,
            options=() if status is RevocationStatus.SUCCESS else subject_of(indication),
        )
        return self._door.send(ack, contest.source, care_of=self._our_address)


def _unsupported(indication: BindingRevocationIndication) -> RevocationStatus | None:
    """Why an indication cannot be followed, before anything is looked up (RFC 5846 6.2.1)."""
    if not isinstance(indication.trigger, RevocationTrigger):
        return RevocationStatus.REVOCATION_TRIGGER_NOT_SUPPORTED
    if RevocationFlag.GLOBAL in indication.flags:
        return RevocationStatus.REVOCATION_FUNCTION_NOT_SUPPORTED
    if RevocationFlag.IPV4_HOME_ADDRESS_BINDING_ONLY in indication.flags:
        return RevocationStatus.BINDING_DOES_NOT_EXIST  # there are no IPv4 bindings here
    return None
