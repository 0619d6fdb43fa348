"""Central Mobility Database: the control plane of a domain of mobility anchor and access routers (RFC 8885).

It carries no data and has no access links: updates come in, copies and acknowledgements go out.
"""

from collections.abc import Callable
from typing import Any

from signaling.actions import Action, Note
from signaling.dmm.central import CentralDatabase
from signaling.dmm.previous_list import distributed
from signaling.door import Door
from signaling.events import ClockStepped, DatagramReceived, Event, SessionsFound, SessionsRestored
from signaling.iana import Status, name_of
from signaling.reception import Reception
from signaling.settings import Address, Clock, CmdSettings, Counters, Peer
from signaling.update_request import UpdateRequest, acknowledgement, care_of_address, node_of, prefixes_of
from signaling.wire.binding_ack import BindingAck
from signaling.wire.binding_update import BindingUpdate
from signaling.wire.message import Message


class Cmd:
    """One database: `handle`, `wake`, `next_wake`, and `drain` before the end."""

    def __init__(self, settings: CmdSettings) -> None:
        self.settings = settings
        self.counters = Counters()
        self.clock = Clock()
        self.door = Door(settings, self.counters)
        self.database = CentralDatabase(settings, self.door, self.clock, self.counters)
        self.reception = Reception(
            self.door,
            self.clock,
            self.counters,
            {BindingUpdate: self._update, BindingAck: self._ack},
            care_of=_care_of,
            refuse_forged=self._refuse_forged,
            window=settings.timestamp_window,
        )

    def handle(self, event: Event, now: float) -> list[Action]:
        """What to do about an event. now: monotonic s."""
        handler = HANDLERS.get(type(event))
        if handler is None:
            self.counters[f"ignored.{type(event).__name__}"] += 1  # a CMD has no access links
            return []
        return handler(self, event, now)

    def wake(self, now: float) -> list[Action]:
        """What to do because of the time."""
        return self.database.wake(now)

    @property
    def next_wake(self) -> float | None:
        """When wake() is due next, monotonic s; None: never, unless something happens."""
        return self.database.next_wake

    def drain(self, now: float) -> list[Action]:
        """We are going. What we know is durable and comes back with us: routers are told nothing."""
        return []

    def _clock_stepped(self, event: ClockStepped, now: float) -> list[Action]:
        self.clock.step(event.wall_minus_monotonic)
        return []

    def _restored(self, event: SessionsRestored, now: float) -> list[Action]:
        self.database.colleagues.restore(event.sessions, now)
        return []

    def _found(self, event: SessionsFound, now: float) -> list[Action]:
        return self.database.colleagues.merge(event.node, event.sessions, now) if event.sessions is not None else []

    def _datagram(self, event: DatagramReceived, now: float) -> list[Action]:
        return self.reception.take(event, now)

    def _update(self, update: BindingUpdate, event: DatagramReceived, peer: Peer | None, now: float) -> list[Action]:
        fields: dict[str, object] = {
            "node": node_of(update),
            "prefix": prefixes_of(update),
            "peer": event.source,
            "lifetime": update.lifetime,
        }
        return [Note("pbu-received", fields), *self.database.answer(update, event.source, event.port, now)]

    def _ack(self, ack: BindingAck, event: DatagramReceived, peer: Peer | None, now: float) -> list[Action]:
        status = name_of(ack.status)
        fields: dict[str, object] = {
            "node": node_of(ack),
            "prefix": prefixes_of(ack),
            "peer": event.source,
            "status": status,
        }
        return [Note("pba-received", fields), *self.database.confirm(ack, event.source, now)]

    def _refuse_forged(self, update: BindingUpdate, event: DatagramReceived, now: float) -> Action:
        request = UpdateRequest.of(update, event.source, event.port)
        ack = acknowledgement(request, Status.MIPV6_AUTH_FAIL, our_timestamp=self.clock.timestamp(now))
        return self.door.send(distributed(ack), event.source, care_of=request.care_of, port=event.port)


def _care_of(message: Message, event: DatagramReceived) -> Address:
    """What an authenticator covers: the address of the router that asks, which here is the CMD in an answer."""
    return care_of_address(message, event.source) if isinstance(message, BindingUpdate) else event.destination


HANDLERS: dict[type, Callable[[Cmd, Any, float], list[Action]]] = {
    ClockStepped: Cmd._clock_stepped,
    DatagramReceived: Cmd._datagram,
    SessionsFound: Cmd._found,
    SessionsRestored: Cmd._restored,
}
