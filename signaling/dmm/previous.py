"""The prefixes this router anchors, as their CMD wants them delivered: the P-MAAR of RFC 8885.

The CMD says by a Serving MAAR option where the node is. From then on nothing here ends the registration but the CMD: a
P-MAAR must not (RFC 8885 3.5). As a CMD may die, a long timer does so nevertheless.
"""

from collections.abc import Callable

from signaling.actions import Action, Note
from signaling.dma.anchor import Anchor, Answer
from signaling.dma.binding_cache import Entry
from signaling.dma.session import State
from signaling.dmm.dlif import Dlif
from signaling.dmm.previous_list import distributed
from signaling.door import Door
from signaling.iana import BindingUpdateFlag, Status
from signaling.node_interface import NodeInterface
from signaling.settings import Address, Clock, CmdMode, Counters, Settings
from signaling.update_request import UpdateRequest, acknowledgement
from signaling.wire.binding_ack import BindingAck
from signaling.wire.binding_update import BindingUpdate
from signaling.wire.options.maar import ServingMaar

SAFETY_PERIODS = 4  # lifetimes of the node's registration; the CMD repeats itself with every refresh


class PreviousAnchor:
    """Answers the updates of the CMD; those of anybody else are refused."""

    def __init__(
        self,
        settings: Settings,
        door: Door,
        clock: Clock,
        counters: Counters,
        *,
        anchor: Anchor,
        moved_on: Callable[[str], list[Action]],
        claims: Callable[[str, float], bool],
    ) -> None:
        """moved_on(node): it is elsewhere now: what this router did for it as the serving one is over.

        claims(node, now): whether this router has just said that it serves the node, and was not answered.
        """
        self._settings = settings
        self._door = door
        self._clock = clock
        self._counters = counters
        self._anchor = anchor
        self._moved_on = moved_on
        self._claims = claims

    def answer(self, update: BindingUpdate, source: Address, port: int, now: float) -> Answer:
        """Do what an authenticated update asks, if it is the CMD's (RFC 8885 3.2 step 3)."""
        request = UpdateRequest.of(update, source, port)
        serving = self._serving(request)
        if isinstance(serving, Status):
            return self._refuse(request, serving, now)
        entry = self._anchor.examine(request, now)
        if isinstance(entry, Status):
            return self._refuse(request, entry, now)
        if entry.state is State.LOCAL and (update.lifetime == 0 or self._claims(entry.node, now)):
            # the node is back, and the CMD is about to hear so
            return self._refuse(request, Status.TIMESTAMP_LOWER_THAN_PREV_ACCEPTED, now)
        if update.lifetime == 0:
            return self._over(entry, request, serving, now)
        here = NodeInterface(entry.node, entry.link_layer)
        moved = self._anchor.move(entry, request, serving, SAFETY_PERIODS * update.lifetime, now)
        if moved is None:  # released, at the word of a CMD that knows no more of that
            return self._refuse(request, Status.NOT_AUTHORIZED_FOR_HOME_NETWORK_PREFIX, now)
        confirm = self._confirm(request, serving, update.lifetime, now)
        return Answer([*self._moved_on(entry.node), *moved, *confirm], left=here)

    def _serving(self, request: UpdateRequest) -> Address | Status:
        peer = self._door.peer(request.source)
        if peer is None or peer.name != self._settings.cmd:
            return Status.MAG_NOT_AUTHORIZED_FOR_PROXY_REG
        option = request.update.option(ServingMaar)
        distributed = BindingUpdateFlag.DISTRIBUTED_MOBILITY in request.update.flags
        if option is None or not distributed or option.address == self._settings.address:
            return Status.REASON_UNSPECIFIED  # no router moves a prefix of ours to itself, or to us
        return option.address

    def _over(self, entry: Entry, request: UpdateRequest, serving: Address, now: float) -> Answer:
        """The node has left the domain, or does without the prefix: it is free when hosts have forgotten it."""
        actions = self._anchor.take_back(entry, request, now)
        return Answer(actions + self._confirm(request, serving, 0, now))

    def _confirm(self, request: UpdateRequest, serving: Address, lifetime: int, now: float) -> list[Action]:
        """To the CMD; where that is a locator, to the serving router too (RFC 8885 3.3)."""
        ack = self._ack(request, Status.BINDING_UPDATE_ACCEPTED, lifetime, now)
        dlif = Dlif.of(self._settings.address, request.node).options
        actions: list[Action] = [self._send(request, distributed(ack, (*_echoed(request), *dlif)))]
        if self._settings.cmd_mode is not CmdMode.LOCATOR or not lifetime:
            return actions
        if self._door.peer(serving) is None:
            self._counters["previous.serving-is-no-peer"] += 1
            fields: dict[str, object] = {"node": request.node, "peer": serving}
            return [*actions, Note("serving-router-is-no-peer", fields)]
        return [*actions, self._door.send(distributed(ack, dlif), serving, care_of=serving)]

    def _refuse(self, request: UpdateRequest, status: Status, now: float) -> Answer:
        self._counters[f"anchor.refused.{status.name.lower().replace('_', '-')}"] += 1
        fields = {"node": request.node, "peer": request.source, "status": status.name}
        ack = distributed(self._ack(request, status, 0, now), _echoed(request))
        return Answer([Note("update-refused", fields), self._send(request, ack)])

    def _ack(self, request: UpdateRequest, status: Status, lifetime: int, now: float) -> BindingAck:
        entry = next(filter(None, map(self._anchor.cache.get, request.prefixes)), None)
        return acknowledgement(
            request,
            status,
            lifetime=lifetime,
            our_timestamp=self._clock.timestamp(now),
            last_sequence_number=entry.sequence_number if entry else None,
        )

    def _send(self, request: UpdateRequest, ack: BindingAck) -> Action:
        return self._door.send(ack, request.source, care_of=request.care_of, port=request.port)


def _echoed(request: UpdateRequest) -> tuple[ServingMaar, ...]:
    option = request.update.option(ServingMaar)
    return (option,) if option else ()
