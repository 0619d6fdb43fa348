"""Telling a MAG that something about its bindings changed: Update Notification (RFC 7077), the sending side.

Flow mobility rides in it (RFC 7864): then the list of prefixes is complete, and the ones left out are removed.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from ipaddress import IPv6Network

from signaling.actions import Action, Note
from signaling.door import Door
from signaling.iana import UpdateNotificationFlag, UpdateNotificationReason, UpdateNotificationStatus, name_of
from signaling.reminders import Errand, Pace, Reminders
from signaling.settings import Address, Clock, Counters, Settings
from signaling.update_request import identifier_of
from signaling.wire.notification import UpdateNotification, UpdateNotificationAck
from signaling.wire.options.option import Option
from signaling.wire.options.prefix import HomeNetworkPrefix

MAX_RETRANSMITS = 1  # MAX_UPDATE_NOTIFICATION_RETRANSMIT_COUNT, 0 to 5, RFC 7077 7
MIN_DELAY = 1.0  # s, MIN_DELAY_BETWEEN_UPDATE_NOTIFICATION_REPLAY, RFC 7077 7
PACE = Pace(first_delay=MIN_DELAY, longest_delay=MIN_DELAY, repeats=MAX_RETRANSMITS)
ACKNOWLEDGE, RETRANSMIT = UpdateNotificationFlag.ACKNOWLEDGE, UpdateNotificationFlag.RETRANSMIT


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a notification ended. ack: None if nobody answered."""

    notification: UpdateNotification
    destination: Address
    ack: UpdateNotificationAck | None

    @property
    def accepted(self) -> bool:
        """Whether the MAG did what was asked."""
        return self.ack is not None and self.ack.status == UpdateNotificationStatus.SUCCESS


OnDone = Callable[[Outcome, float], list[Action]]  # told the time, monotonic s


class Notifier:
    """Notifications on their way, by sequence number."""

    def __init__(self, settings: Settings, door: Door, clock: Clock, counters: Counters) -> None:
        """settings: as for all parts of an anchor; RFC 7077 leaves nothing to set that is not in `PACE`."""
        self._counters = counters
        self._reminders: Reminders[UpdateNotification] = Reminders(door, clock, PACE, repeated=_marked)
        self._on_done: dict[int, OnDone] = {}
        self._deaf: set[str] = set()  # names of peers that answered with a Binding Error

    @property
    def reminders(self) -> Reminders[UpdateNotification]:
        """What waits for acknowledgements."""
        return self._reminders

    @property
    def deaf(self) -> set[str]:
        """Names of peers that know no notification."""
        return self._deaf

    def expect(self, number: int, on_done: OnDone) -> None:
        """Call this when the notification with that number, which another process has sent, is done."""
        self._on_done[number] = on_done

    @property
    def next_wake(self) -> float | None:
        """When wake() is due next, monotonic s."""
        return self._reminders.deadlines.next

    def notify(
        self,
        reason: UpdateNotificationReason,
        node: str,
        prefixes: Iterable[IPv6Network],
        peer: str,
        care_of: Address,
        now: float,
        *,
        port: int = 0,
        source: Address | None = None,
        options: tuple[Option, ...] = (),
        on_done: OnDone | None = None,
    ) -> list[Action]:
        """Tell the MAG of this name, at care_of, about a node. It is repeated once, if it is not acknowledged."""
        number = None if peer in self._deaf else self._reminders.next_number(now)
        named = tuple(HomeNetworkPrefix(prefix=prefix) for prefix in prefixes)
        notification = UpdateNotification(
            sequence_number=number or 0,
            reason=reason,
            flags=ACKNOWLEDGE,
            options=(identifier_of(node), *named, *options),
        )
        if number is None:  # the peer is deaf, or as many wait already as there are numbers
            self._counters["notification.not-sent"] += 1
            unsent = Outcome(notification=notification, destination=care_of, ack=None)
            return on_done(unsent, now) if on_done else []
        if on_done is not None:
            self._on_done[number] = on_done
        errand = Errand(
            message=notification, number=number, destination=care_of, care_of=care_of, port=port, source=source
        )
        return [self._reminders.send(errand, now)]

    def confirm(self, ack: UpdateNotificationAck, source: Address, now: float) -> list[Action]:
        """An acknowledgement came in; one that nobody waits for is dropped."""
        errand = self._reminders.answered(ack.sequence_number, source)
        if errand is None:
            self._counters["notification.unmatched"] += 1
            return []
        if ack.status == UpdateNotificationStatus.SUCCESS:
            self._counters["notification.confirmed"] += 1
            return self._done(errand, ack, now)
        self._counters["notification.refused"] += 1
        refused = Note("notification-refused", {"peer": source, "status": name_of(ack.status)})
        return [refused, *self._done(errand, ack, now)]

    def wake(self, now: float) -> list[Action]:
        """Repeat what was not acknowledged, or give it up."""
        again, given_up = self._reminders.due(now)
        actions: list[Action] = [*again]
        for errand in given_up:
            self._counters["notification.unanswered"] += 1
            actions += self._done(errand, None, now)
        return actions

    def not_understood(self, peer: str, source: Address, now: float) -> list[Action]:
        """A peer answered with a Binding Error: it is told nothing more until an administrator acts (RFC 7077 5.2)."""
        self._deaf.add(peer)
        actions: list[Action] = []
        for errand in self._reminders.abandon(source):
            self._counters["notification.not-understood"] += 1
            actions += self._done(errand, None, now)
        return actions

    def try_again(self, peer: str) -> None:
        """An administrator acted: the peer may understand by now."""
        self._deaf.discard(peer)

    def _done(
        self, errand: Errand[UpdateNotification], ack: UpdateNotificationAck | None, now: float
    ) -> list[Action]:
        on_done = self._on_done.pop(errand.number, None)
        if on_done is None:
            return []
        return on_done(Outcome(notification=errand.message, destination=errand.destination, ack=ack), now)


def _marked(notification: UpdateNotification) -> UpdateNotification:
    """As a copy (RFC 7077 5.2: same number and content, D flag)."""
    return replace(notification, flags=ACKNOWLEDGE | RETRANSMIT)

