"""What a CMD tells the anchors of a node: a copy of its update with a Serving MAAR option, until they confirm it.

One prefix has one copy on its way, the newest. It is repeated with the timers of RFC 6275 11.8, and its anchor never
gets more than MAX_UPDATE_RATE of them a second (RFC 8885 3.2, 6).

The first copy carries the timestamp of the update: an anchor to which the node came back meanwhile must see that it is
older. A repeated one has a time of its own, as an old one would be refused.
"""

from dataclasses import dataclass, field
from ipaddress import IPv6Address, IPv6Network

from signaling.actions import Action
from signaling.deadlines import Deadlines
from signaling.dmm.database import Anchorage, Binding
from signaling.door import Door
from signaling.iana import HandoffIndicator, Status
from signaling.pacing import INITIAL_BINDACK_TIMEOUT, MAX_BINDACK_TIMEOUT, not_before
from signaling.proxy_update import proxy_update
from signaling.settings import Address, Clock, CmdMode, CmdSettings, Counters
from signaling.update_request import node_of, prefixes_of
from signaling.wire.binding_ack import BindingAck
from signaling.wire.options.maar import ServingMaar
from signaling.wire.options.prefix import HomeNetworkPrefix

CONTESTED_AGAIN = 1.5  # s after an anchor said that it knows something newer: it is about to register that itself
TRIES_AT_THE_END = 5  # to tell an anchor that a session is over; then its own timer has to do


@dataclass(slots=True, kw_only=True)
class Copy:
    """One prefix, and where its anchor shall deliver it."""

    node: str
    prefix: IPv6Network
    anchor: Address
    serving: Address
    lifetime: int  # s; 0: the session is over
    handoff: int
    link_layer: bytes
    technology: int
    number: int | None = None  # the S-MAAR's, that a locator passes on; None: one of ours for each copy
    timestamp: int | None = None  # of the first copy; None: the time it leaves
    sequence_number: int = 0  # of the last one sent
    newest: int = 0  # timestamp of the last one sent
    retry_after: float = INITIAL_BINDACK_TIMEOUT
    tries: int = 0
    sent: list[float] = field(default_factory=list)  # monotonic s, of the last few
    confirmed: bool = False


class Copies:
    """Copies on their way, by prefix."""

    def __init__(self, settings: CmdSettings, door: Door, clock: Clock, counters: Counters) -> None:
        self.deadlines: Deadlines[IPv6Network] = Deadlines()
        self._settings = settings
        self._door = door
        self._clock = clock
        self._counters = counters
        self._copies: dict[IPv6Network, Copy] = {}
        self._number: int | None = None

    def waiting(self, prefix: IPv6Network, serving: Address) -> bool:
        """Whether its anchor is being told to deliver it there, and has not confirmed that."""
        copy = self._copies.get(prefix)
        return copy is not None and not copy.confirmed and copy.serving == serving and copy.lifetime > 0

    def tell(
        self, binding: Binding, item: Anchorage, lifetime: int, now: float, *, unused: bool = False
    ) -> list[Action]:
        """An anchor shall deliver the prefix where the node is, or (lifetime 0) let it go.

        unused: as its node, which is where it was, does without it.
        """
        before = self._copies.get(item.prefix)
        request = binding.question.request if binding.question else None
        # the record proves that it is the same node; which of its interfaces came, the link-layer address tells
        same = (item.link_layer, item.technology) == (binding.link_layer, binding.technology)
        same_or_not = (
            HandoffIndicator.HANDOFF_BETWEEN_MAGS_FOR_THE_SAME_INTERFACE
            if same
            else HandoffIndicator.HANDOFF_BETWEEN_TWO_DIFFERENT_INTERFACES
        )
        locator = self._settings.cmd_mode is CmdMode.LOCATOR and request is not None
        copy = Copy(
            node=binding.node,
            prefix=item.prefix,
            anchor=item.anchor,
            serving=binding.serving,
            lifetime=lifetime,
            handoff=HandoffIndicator.HANDOFF_STATE_NOT_CHANGED if unused else same_or_not,
            link_layer=binding.link_layer,
            technology=binding.technology,
            number=request.update.sequence_number if request and locator and lifetime else None,
            timestamp=request.timestamp if request and lifetime else None,
            newest=before.newest if before else 0,
            sent=before.sent if before else [],
        )
        self._copies[item.prefix] = copy
        return self._send(copy, now)

    def answered(self, ack: BindingAck, source: Address, now: float) -> Copy | None:
        """The copy that an acknowledgement is about; None if there is none, or if it has to be told again."""
        copy = next((found for prefix in prefixes_of(ack) if (found := self._copies.get(prefix))), None)
        known = copy is not None and (copy.anchor, copy.node) == (source, node_of(ack)) and not copy.confirmed
        of_the_last = copy is not None and ack.sequence_number == copy.sequence_number
        if copy is None or not known or not (of_the_last or ack.status == Status.SEQUENCE_NUMBER_OUT_OF_WINDOW):
            self._counters["copies.unmatched"] += 1
            return None
        if ack.status in AGAIN:
            self._counters["copies.contested"] += 1
            if ack.status == Status.SEQUENCE_NUMBER_OUT_OF_WINDOW:
                self._number = ack.sequence_number
            self.deadlines.set(copy.prefix, now + CONTESTED_AGAIN)
            return None
        copy.confirmed = True
        self.deadlines.cancel(copy.prefix)
        if not ack.accepted or not copy.lifetime:
            self.forget(copy.prefix)
        return copy

    def forget(self, prefix: IPv6Network) -> None:
        """Its anchor need not be told any more."""
        self._copies.pop(prefix, None)
        self.deadlines.cancel(prefix)

    def wake(self, now: float) -> list[Action]:
        """Repeat what was not confirmed, and send what had to wait."""
        actions: list[Action] = []
        for prefix in self.deadlines.due(now):
            copy = self._copies[prefix]
            if not copy.lifetime and copy.tries >= TRIES_AT_THE_END:
                self._counters["copies.given-up"] += 1
                self.forget(prefix)
                continue
            copy.timestamp = None
            actions += self._send(copy, now)
        return actions

    def _send(self, copy: Copy, now: float) -> list[Action]:
        again = not_before(copy.sent, now)
        if again is not None:
            self.deadlines.set(copy.prefix, again)
            return []
        copy.sent.append(now)
        if copy.tries:
            self._counters["copies.repeated"] += 1
            copy.retry_after = min(copy.retry_after * 2, MAX_BINDACK_TIMEOUT)
        copy.tries += 1
        self.deadlines.set(copy.prefix, now + copy.retry_after)
        return [self._update(copy, now)]

    def _update(self, copy: Copy, now: float) -> Action:
        if copy.number is None:
            self._number = self._clock.next_number(self._number, now)
        copy.sequence_number = copy.number if copy.number is not None else self._number or 0
        # newer than the last one its anchor has heard from us
        copy.newest = max(self._clock.stamp(now) if copy.timestamp is None else copy.timestamp, copy.newest + 1)
        assert isinstance(copy.serving, IPv6Address)  # the option has room for no other
        update = proxy_update(
            copy.node,
            [HomeNetworkPrefix(prefix=copy.prefix)],
            sequence_number=copy.sequence_number,
            lifetime=copy.lifetime,
            handoff=copy.handoff,
            technology=copy.technology,
            link_layer=copy.link_layer,
            timestamp=copy.newest,
            distributed=True,
            more=[ServingMaar(address=copy.serving)],
        )
        return self._door.send(update, copy.anchor, care_of=self._settings.address)


AGAIN = {
    Status.TIMESTAMP_LOWER_THAN_PREV_ACCEPTED,
    Status.TIMESTAMP_MISMATCH,
    Status.SEQUENCE_NUMBER_OUT_OF_WINDOW,
}
