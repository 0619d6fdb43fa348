"""Messages that want an answer: sent again until it comes, a bounded number of times.

One number for each, and the answer has to come from where the message went. What revocations (RFC 5846 6.3) and update
notifications (RFC 7077 5.2) have in common.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from signaling.actions import Note, Send
from signaling.deadlines import Deadlines
from signaling.door import Door
from signaling.settings import Address, Clock
from signaling.wire.message import Message
from signaling.wire.options.time import Timestamp

NUMBERS = 65536  # sequence numbers have 16 bits


Indication = TypeVar("Indication", bound=Message)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How long to wait for an answer (s), twice as long each time, and how often to ask again."""

    first_delay: float
    longest_delay: float
    repeats: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Errand(Generic[Indication]):
    """A message on its way. care_of: the Proxy-CoA that its authenticator covers."""

    message: Indication  # without a timestamp
    number: int
    destination: Address
    care_of: Address
    port: int = 0
    source: Address | None = None
    tries: int = 1


class Reminders(Generic[Indication]):
    """Errands that nobody has answered yet, by sequence number."""

    def __init__(
        self, door: Door, clock: Clock, pace: Pace, *, repeated: Callable[[Indication], Indication] | None = None
    ) -> None:
        """repeated: what the second and later copies look like, if not as the first."""
        self.deadlines: Deadlines[int] = Deadlines()
        self._door = door
        self._clock = clock
        self._pace = pace
        self._repeated = repeated
        self._last_number: int | None = None
        self._errands: dict[int, Errand[Indication]] = {}

    @property
    def errands(self) -> tuple[Errand[Indication], ...]:
        """Those that nobody has answered yet."""
        return tuple(self._errands.values())

    @property
    def last_number(self) -> int | None:
        """The last sequence number; None: there was none."""
        return self._last_number

    def take_up(self, errands: Iterable[tuple[Errand[Indication], float]], last_number: int | None) -> None:
        """Errands of another process of this router, and when each is due (monotonic s)."""
        self._last_number = last_number
        for errand, due in errands:
            self._errands[errand.number] = errand
            self.deadlines.set(errand.number, due)

    def next_number(self, now: float) -> int | None:
        """A sequence number that no errand has; None: all of them wait for answers."""
        if len(self._errands) >= NUMBERS:
            return None
        self._last_number = self._clock.next_number(self._last_number, now)
        while self._last_number in self._errands:
            self._last_number = self._clock.next_number(self._last_number, now)
        return self._last_number

    def send(self, errand: Errand[Indication], now: float) -> Send | Note:
        """Send it, and expect an answer."""
        self._errands[errand.number] = errand
        delay = min(self._pace.first_delay * 2 ** (errand.tries - 1), self._pace.longest_delay)
        self.deadlines.set(errand.number, now + delay)
        message = errand.message
        if self._door.signs_for(errand.destination, errand.port):
            # a timestamp of its own for every copy, or the second would be taken for a replay of the first
            timestamp = Timestamp(value=self._clock.stamp(now))
            message = replace(message, options=(*message.options, timestamp))
        return self._door.send(
            message, errand.destination, care_of=errand.care_of, port=errand.port, source=errand.source
        )

    def answered(self, number: int, source: Address) -> Errand[Indication] | None:
        """An answer came in: the errand that is done with it, or None if nobody waits for it there."""
        errand = self._errands.get(number)
        if errand is None or errand.destination != source:
            return None
        self._drop(errand)
        return errand

    def due(self, now: float) -> tuple[list[Send | Note], list[Errand[Indication]]]:
        """What is sent again now, and what is given up."""
        again: list[Send | Note] = []
        given_up: list[Errand[Indication]] = []
        for number in self.deadlines.due(now):
            errand = self._errands.pop(number)
            if errand.tries > self._pace.repeats:
                given_up.append(errand)
                continue
            message = self._repeated(errand.message) if self._repeated else errand.message
            again.append(self.send(replace(errand, message=message, tries=errand.tries + 1), now))
        return again, given_up

    def abandon(self, destination: Address) -> list[Errand[Indication]]:
        """Give up all errands to this address."""
        given_up = [errand for errand in self._errands.values() if errand.destination == destination]
        for errand in given_up:
            self._drop(errand)
        return given_up

    def _drop(self, errand: Errand[Indication]) -> None:
        del self._errands[errand.number]
        self.deadlines.cancel(errand.number)
