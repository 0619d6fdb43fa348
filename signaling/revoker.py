"""Telling a router that a binding it made is no longer good: Binding Revocation (RFC 5846), the sending side.

The indication is repeated until it is acknowledged, a bounded number of times; what it announces is true either way.
"""

from dataclasses import dataclass, replace
from ipaddress import IPv6Address

from signaling.actions import Action, Note
from signaling.binding_cache import Entry
from signaling.deadlines import Deadlines
from signaling.door import Door
from signaling.iana import RevocationFlag, RevocationStatus, RevocationTrigger
from signaling.settings import Clock, Counters
from signaling.update_request import identifier_of
from signaling.wire.options.prefix import HomeNetworkPrefix
from signaling.wire.options.time import Timestamp
from signaling.wire.revocation import BindingRevocationAck, BindingRevocationIndication

MAX_RETRIES = 1  # BRIMaxRetriesNumber, RFC 5846 11
FIRST_DELAY = 1.0  # s, InitMINDelayBRIs, RFC 5846 11


@dataclass(frozen=True, slots=True)
class Outstanding:
    """An indication that waits for its acknowledgement."""

    indication: BindingRevocationIndication
    destination: IPv6Address
    tries: int


class Revoker:
    """Indications on their way, by sequence number."""

    def __init__(self, door: Door, clock: Clock, counters: Counters) -> None:
        self.deadlines: Deadlines[int] = Deadlines()
        self._door = door
        self._clock = clock
        self._counters = counters
        self._sequence_number: int | None = None
        self._outstanding: dict[int, Outstanding] = {}

    def revoke(self, entry: Entry, care_of: IPv6Address, *, different_access: bool, now: float) -> list[Action]:
        """Tell the router at care_of that it does not serve this prefix any more: the node was seen elsewhere."""
        self._sequence_number = self._clock.next_number(self._sequence_number, now)
        trigger = (
            RevocationTrigger.INTER_MAG_HANDOVER_DIFFERENT_ACCESS_TYPE
            if different_access
            else RevocationTrigger.INTER_MAG_HANDOVER_SAME_ACCESS_TYPE
        )
        indication = BindingRevocationIndication(
            trigger=trigger,
            sequence_number=self._sequence_number,
            flags=RevocationFlag.PROXY_BINDING,
            options=(identifier_of(entry.node), HomeNetworkPrefix(prefix=entry.prefix)),
        )
        return self._send(Outstanding(indication, care_of, tries=1), now)

    def confirm(self, ack: BindingRevocationAck, source: IPv6Address) -> list[Action]:
        """An acknowledgement came in. One for an unknown sequence number is dropped (RFC 5846 6.2.2)."""
        waiting = self._outstanding.get(ack.sequence_number)
        if waiting is None or waiting.destination != source:
            self._counters["revocation.unmatched"] += 1
            return []
        del self._outstanding[ack.sequence_number]
        self.deadlines.cancel(ack.sequence_number)
        if ack.status == RevocationStatus.REVOCATION_FAILED_MN_IS_ATTACHED:
            # it will register again with a newer timestamp if that is so; until then the newest attachment holds
            self._counters["revocation.still-attached"] += 1
            return [Note("revocation-contested", {"peer": source})]
        self._counters["revocation.confirmed"] += 1
        return []

    def wake(self, now: float) -> list[Action]:
        """Repeat what was not acknowledged, or give it up."""
        actions: list[Action] = []
        for number in self.deadlines.due(now):
            waiting = self._outstanding.pop(number)
            if waiting.tries <= MAX_RETRIES:
                actions += self._send(replace(waiting, tries=waiting.tries + 1), now)
            else:
                self._counters["revocation.unanswered"] += 1
        return actions

    def _send(self, outstanding: Outstanding, now: float) -> list[Action]:
        number = outstanding.indication.sequence_number
        # a timestamp of its own for every copy, or the second would be taken for a replay of the first
        subject = tuple(item for item in outstanding.indication.options if not isinstance(item, Timestamp))
        timestamp = Timestamp(value=self._clock.stamp(now))
        indication = replace(outstanding.indication, options=(*subject, timestamp))
        self._outstanding[number] = outstanding
        self.deadlines.set(number, now + FIRST_DELAY * 2 ** (outstanding.tries - 1))
        destination = outstanding.destination
        return [self._door.send(indication, destination, care_of=destination)]
