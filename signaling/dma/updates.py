"""What a visited router says to anchors: updates, and which of them wait for an answer (RFC 5213 6.9.1)."""

from collections.abc import Iterable

from signaling.actions import Action, TunnelEnd
from signaling.dma.sharing import DEFAULT
from signaling.dma.update_list import Registration
from signaling.door import Door
from signaling.flow_bindings import options_of
from signaling.iana import HandoffIndicator, Status
from signaling.proxy_update import proxy_update
from signaling.settings import Clock, Settings
from signaling.update_request import prefixes_of
from signaling.wire.binding_ack import BindingAck
from signaling.wire.options.prefix import HomeNetworkPrefix

MISSED_WITHIN = 1 / 6  # of the window of timestamps: as long ago a node may have left that is missed now


class Updates:
    """Numbered one after the other. last_number: None: there was none."""

    def __init__(self, settings: Settings, door: Door, clock: Clock) -> None:
        self.last_number: int | None = None
        self._settings = settings
        self._door = door
        self._clock = clock
        self._waiting: dict[int, Registration] = {}

    def take_up(self, items: Iterable[Registration], last_number: int | None) -> None:
        """What another process of this router has asked for."""
        self.last_number = last_number
        self._waiting.update((item.sequence_number, item) for item in items if not item.answered)

    def asked(self, ack: BindingAck) -> Registration | None:
        """What an acknowledgement answers; None: nothing that was asked."""
        item = self._waiting.get(ack.sequence_number)
        # a refusal for a number out of window carries the anchor's last one, not ours
        if item is None and ack.status == Status.SEQUENCE_NUMBER_OUT_OF_WINDOW:
            item = next((it for it in self._waiting.values() if it.prefix in prefixes_of(ack)), None)
        return item

    def update(self, item: Registration, lifetime: int, handoff: int, now: float) -> Action:
        """A PBU with a number and a timestamp of its own (RFC 5213 6.9.1.5, 6.9.4)."""
        self.forget(item)
        self.last_number = self._clock.next_number(self.last_number, now)
        item.sequence_number, item.answered = self.last_number, False
        self._waiting[item.sequence_number] = item
        item.asked = handoff, self._settings.technology
        left = lifetime == 0 and handoff == HandoffIndicator.HANDOFF_STATE_UNKNOWN
        at_home = (TunnelEnd(remote=item.anchor, binding_id=DEFAULT),)
        update = proxy_update(
            item.node,
            (HomeNetworkPrefix(prefix=item.prefix, off_link=item.ordered),),
            sequence_number=item.sequence_number,
            lifetime=lifetime,
            handoff=handoff,
            technology=self._settings.technology,
            link_layer=item.link_layer,
            timestamp=self._stamp(item, left, now),
            more=options_of(item.flows, at_home) if lifetime else (),
        )
        return self._door.send(update, item.anchor, care_of=self._settings.address)

    def _stamp(self, item: Registration, left: bool, now: float) -> int:
        """That a node left is said of a moment before: its next router may have seen it before we missed it.

        Else that router would be refused: what it says is older than the last that its anchor was told (5.5).
        """
        stamp = self._clock.stamp(now)
        if left:
            earlier = self._clock.timestamp(now - self._settings.timestamp_window * MISSED_WITHIN)
            stamp = max(item.timestamp + 1, earlier)
        item.timestamp = stamp
        return stamp

    def forget(self, item: Registration) -> None:
        """Whatever is answered to it does not matter any more."""
        self._waiting.pop(item.sequence_number, None) if not item.answered else None
        item.answered = True
