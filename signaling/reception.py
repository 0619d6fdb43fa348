"""What every role does with a Mobility Header before it asks what that says: decode, count, judge, and hand it on.

    broken          counted; answered where RFC 6275 9.2 wants it, at a bounded rate
    not believed    counted and told, at a bounded rate; changes nothing
    genuine         to the receiver of its type, with the peer that has sent it

A role brings its receivers, and says which Proxy-CoA the authenticator of a message covers: that of the gateway.
"""

from collections.abc import Callable, Mapping
from ipaddress import IPv6Address
from typing import Any

from signaling.actions import Action, Note, SendError
from signaling.door import Door, Verdict
from signaling.errors import MalformedMessage, Reaction
from signaling.events import DatagramReceived
from signaling.freshness import WINDOW, Freshness
from signaling.iana import BindingErrorStatus
from signaling.rate_limit import RateLimit
from signaling.settings import Address, Clock, Counters, Peer
from signaling.wire import ipv6
from signaling.wire.authentication import spi_of
from signaling.wire.binding_ack import BindingAck
from signaling.wire.binding_error import BindingError
from signaling.wire.binding_update import BindingUpdate
from signaling.wire.message import Message

HINTS = {
    Verdict.STRANGER: "it is no peer of this router: if it should be, give it a [[peer]] here",
    Verdict.UNSIGNED: "it is not signed, and there is a key: give that router the same key",
    Verdict.UNKNOWN_SPI: "it is signed with a key of another number: make spi the same on both routers",
    Verdict.FORGED: "the key does not fit: make it the same on both routers",
}
NO_HOME_AGENT = {BindingUpdate: "not-a-proxy-update", BindingAck: "not-a-proxy-ack"}  # without P: none lives here

Receiver = Callable[[Any, DatagramReceived, Any, float], list[Action]]
"""Told a message, how it came, the Peer it came from (None: unknown, where no keys are required), and the time."""
CareOf = Callable[[Any, DatagramReceived], Address]


class Reception:
    """Where messages of peers come in."""

    def __init__(
        self,
        door: Door,
        clock: Clock,
        counters: Counters,
        receivers: Mapping[type[Message], Receiver],
        *,
        care_of: CareOf,
        refuse_forged: Callable[[BindingUpdate, DatagramReceived, float], Action] | None = None,
        only_from: str = "",
        window: float = WINDOW,
    ) -> None:
        """refuse_forged: the answer to an update with a wrong authenticator; None: there is none.

        only_from: name of the one peer that is listened to; "": all. window: s that the clocks of peers may differ.
        """
        self._door = door
        self._counters = counters
        self._receivers = receivers
        self._care_of = care_of
        self._refuse_forged = refuse_forged
        self._only_from = only_from
        self._freshness = Freshness(clock, window=window)
        self._answers = RateLimit(rate=10.0, burst=20)  # to what is broken or forged
        self._words = RateLimit(rate=1.0, burst=10)  # about what is not believed

    @property
    def newest(self) -> dict[Any, tuple[int, float]]:
        """(Peer, kind of message) -> timestamp of the newest, and when it came."""
        return self._freshness.newest

    def take(self, event: DatagramReceived, now: float) -> list[Action]:
        """What becomes of a datagram. now: monotonic s."""
        try:
            message = self._door.decode(event.octets, event.source, event.destination)
        except MalformedMessage as defect:
            return self._answer_broken(event, defect, now)
        kind = type(message)
        self._counters[f"received.{kind.__name__}"] += 1
        receive = self._receivers.get(kind)
        if receive is None:
            return self._ignore(kind.__name__)
        if isinstance(message, BindingUpdate | BindingAck) and not message.proxy:
            return self._ignore(NO_HOME_AGENT[type(message)])
        care_of = self._care_of(message, event)
        verdict, peer = self._door.who(event.octets, message, event.source, care_of, port=event.port)
        if verdict is not Verdict.TRUSTED:
            return self._distrust(message, event, verdict, now)
        if self._only_from and (peer is None or peer.name != self._only_from):
            return self._ignore("not-from-the-anchor")
        return receive(message, event, peer, now)

    def is_fresh(self, message: Message, peer: Peer | None, now: float) -> bool:
        """RFC 4285 leaves replay to the message: a signed one carries a timestamp, newer than all before."""
        if peer is None or not peer.key or self._freshness.accepts((peer.name, type(message)), message, now):
            return True
        self._counters[f"replayed.{type(message).__name__}"] += 1
        return False

    def _ignore(self, what: str) -> list[Action]:
        self._counters[f"ignored.{what}"] += 1
        return []

    def _answer_broken(self, event: DatagramReceived, defect: MalformedMessage, now: float) -> list[Action]:
        self._counters[f"malformed.{defect.reason}"] += 1
        if defect.reaction is Reaction.DISCARD or not self._answers.allows(now):
            return []
        if defect.reaction is Reaction.BINDING_ERROR:
            error = BindingError(status=BindingErrorStatus.UNRECOGNIZED_MH_TYPE, home_address=IPv6Address(0))
            return [self._door.reply(error, event)]
        if not isinstance(event.source, IPv6Address) or not isinstance(event.destination, IPv6Address):
            return []  # ICMPv6 cannot answer what came over IPv4
        octets = ipv6.parameter_problem(event.octets, event.source, event.destination, defect)
        return [SendError(octets=octets, destination=event.source)]

    def _distrust(self, message: Message, event: DatagramReceived, verdict: Verdict, now: float) -> list[Action]:
        actions: list[Action] = []
        if self._words.allows(now):
            why = self._why(message, verdict)
            actions.append(
                Note("message-refused", {"peer": event.source, "message": type(message).__name__, "why": why})
            )
        refuse = self._refuse_forged if verdict is Verdict.FORGED else None
        if refuse is not None and isinstance(message, BindingUpdate) and self._answers.allows(now):
            actions.append(refuse(message, event, now))
        return actions

    def _why(self, message: Message, verdict: Verdict) -> str:
        spi = spi_of(message)
        if verdict is Verdict.STRANGER and spi is not None and self._door.expects_roaming:
            return f"no [[peer]] without an address has spi {spi}: make spi the same on both routers, or add a [[peer]]"
        return HINTS[verdict]
