"""Whether a peer lives, and whether it still knows what it knew: Heartbeats (RFC 5847), one exchange per peer.

Requests leave only while there is a session with the peer; requests of others are answered always. What comes of it
is PeerNews; what to do about that is the role's (RFC 5847 3 leaves it open).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from math import inf
from typing import Any

from signaling.actions import Action
from signaling.deadlines import Deadlines
from signaling.door import Door
from signaling.events import DatagramReceived
from signaling.freshness import Freshness
from signaling.iana import HeartbeatFlag
from signaling.settings import Address, Clock, Counters, Peer, Settings
from signaling.wire.heartbeat import Heartbeat
from signaling.wire.options.option import Option
from signaling.wire.options.security import RestartCounter

RESPONSE, UNSOLICITED = HeartbeatFlag.RESPONSE, HeartbeatFlag.UNSOLICITED

ASK_AGAIN = 1.0  # s, at least, between two requests


class PeerEvent(Enum):
    """What can become of a peer."""

    RESTARTED = "restarted"  # it lost its sessions; it can be reached
    UNREACHABLE = "unreachable"  # more than MISSING_HEARTBEATS_ALLOWED requests in a row had no answer
    BACK = "back"  # after it was unreachable, with its sessions


@dataclass(frozen=True, slots=True)
class PeerNews:
    """Something became of a peer (its name)."""

    peer: str
    kind: PeerEvent


@dataclass(slots=True, kw_only=True)
class Exchange:
    """The requests to one peer."""

    destination: Address
    port: int
    source: Address | None
    number: int | None = None  # of the last request
    answered: bool = True  # the last request
    missing: int = 0  # requests in a row without an answer
    unreachable: bool = False
    restarts: int | None = None  # the peer's Restart Counter; None: not heard yet
    asked_at: float = -inf  # monotonic s, last


@dataclass(frozen=True, slots=True, kw_only=True)
class HeartbeatState:
    """All that is known of peers. due: monotonic s. newest: peer, whether responses, timestamp, when it came."""

    exchanges: Mapping[str, Exchange]
    due: Mapping[str, float]
    mute: tuple[str, ...]
    newest: tuple[tuple[str, bool, int, float], ...]


class Heartbeats:
    """Requests to the peers there are sessions with, answers to everybody."""

    def __init__(self, settings: Settings, door: Door, clock: Clock, counters: Counters) -> None:
        self._settings = settings
        self._door = door
        self._clock = clock
        self._counters = counters
        self._freshness = Freshness(clock)
        self._deadlines: Deadlines[str] = Deadlines()
        self._exchanges: dict[str, Exchange] = {}
        self._mute: set[str] = set()  # names of peers that do not know heartbeats

    def known(self) -> HeartbeatState:
        """What another process of this router goes on with."""
        newest: dict[Any, tuple[int, float]] = self._freshness.newest
        return HeartbeatState(
            exchanges=self._exchanges,
            due=self._deadlines.all(),
            mute=tuple(self._mute),
            newest=tuple((peer, response, *of) for (peer, response), of in newest.items()),
        )

    def take_up(self, state: HeartbeatState) -> None:
        """What another process of this router knew."""
        self._exchanges.update(state.exchanges)
        for peer, at in state.due.items():
            self._deadlines.set(peer, at)
        self._mute.update(state.mute)
        self._freshness.newest.update(((peer, response), (stamp, at)) for peer, response, stamp, at in state.newest)

    @property
    def next_wake(self) -> float | None:
        """When wake() is due next, monotonic s."""
        return self._deadlines.next

    def keep(self, peer: str, destination: Address, port: int, source: Address | None, now: float) -> None:
        """There is a session with this peer: ask it, from now on at this address. source: ours; None: the usual."""
        if peer in self._mute:
            return
        exchange = self._exchanges.get(peer)
        if exchange is None:
            self._exchanges[peer] = Exchange(destination=destination, port=port, source=source)
            self._deadlines.set(peer, now)  # its Restart Counter is wanted before it can change
        else:
            exchange.destination, exchange.port, exchange.source = destination, port, source

    def stop(self, peer: str) -> None:
        """There is no session with this peer any more; a restart of it would concern nobody."""
        if self._exchanges.pop(peer, None) is not None:
            self._deadlines.cancel(peer)

    def exchange(self, peer: str) -> Exchange | None:
        """How the requests to a peer go; None: there is no session with it, or it does not know heartbeats."""
        return self._exchanges.get(peer)

    def not_understood(self, peer: str) -> None:
        """The peer answered with a Binding Error, status 2: it is never asked again (RFC 5847 3)."""
        self._mute.add(peer)
        self.stop(peer)

    def announce_restart(self, to: Iterable[Address], now: float) -> list[Action]:
        """We were away: our Restart Counter says, before they ask, whether we lost sessions (RFC 5847 3.2)."""
        return [self._answer(0, RESPONSE | UNSOLICITED, address, 0, None, now) for address in to]

    # --- in ---

    def receive(
        self, beat: Heartbeat, event: DatagramReceived, peer: Peer | None, now: float
    ) -> tuple[list[Action], PeerNews | None]:
        """Answer a request, judge a response. peer: who it is from; None: unknown, where no keys are required."""
        if peer is not None and peer.key and not self._freshness.accepts((peer.name, beat.response), beat, now):
            self._counters["heartbeat.replayed"] += 1
            return [], None
        if not beat.response:
            number, back = beat.sequence_number, event.source
            return [self._answer(number, RESPONSE, back, event.port, event.destination, now)], None
        return [], None if peer is None else self._judge(beat, peer.name, now)

    def _judge(self, beat: Heartbeat, peer: str, now: float) -> PeerNews | None:
        exchange = self._exchanges.get(peer)
        counter = beat.option(RestartCounter)
        if exchange is None or not (beat.unsolicited or beat.sequence_number == exchange.number):
            self._counters["heartbeat.unmatched"] += 1
            if exchange is not None and counter is not None and exchange.restarts not in (None, counter.counter):
                self._ask_soon(peer, exchange, now)
            return None
        was_unreachable, exchange.unreachable = exchange.unreachable, False
        exchange.missing = 0
        if not beat.unsolicited:
            exchange.answered = True
        before = exchange.restarts
        if counter is not None:
            exchange.restarts = counter.counter
        if counter is not None and before is not None and counter.counter != before:
            self._counters["heartbeat.restarted"] += 1
            return PeerNews(peer, PeerEvent.RESTARTED)
        return PeerNews(peer, PeerEvent.BACK) if was_unreachable else None

    def _ask_soon(self, peer: str, exchange: Exchange, now: float) -> None:
        """Its answer to something else, as the probe of a path, has another counter: what is asked for is believed."""
        self._deadlines.set(peer, max(now, exchange.asked_at + ASK_AGAIN))

    # --- out ---

    def wake(self, now: float) -> tuple[list[Action], list[PeerNews]]:
        """Ask whose turn it is; who has not answered for too long is unreachable, and still asked."""
        actions: list[Action] = []
        news: list[PeerNews] = []
        for peer in self._deadlines.due(now):
            exchange = self._exchanges[peer]
            if not exchange.answered:
                exchange.missing += 1
            if exchange.missing > self._settings.missing_heartbeats and not exchange.unreachable:
                exchange.unreachable = True
                self._counters["heartbeat.unreachable"] += 1
                news.append(PeerNews(peer, PeerEvent.UNREACHABLE))
            actions.append(self._ask(exchange, now))
            self._deadlines.set(peer, now + self._settings.heartbeat_interval)
        return actions, news

    def _ask(self, exchange: Exchange, now: float) -> Action:
        exchange.number = self._clock.next_number(exchange.number, now)
        exchange.answered, exchange.asked_at = False, now
        request = Heartbeat(sequence_number=exchange.number)
        return self._send(request, exchange.destination, exchange.port, exchange.source, now)

    def _answer(
        self,
        number: int,
        flags: HeartbeatFlag,
        destination: Address,
        port: int,
        source: Address | None,
        now: float,
    ) -> Action:
        counter = RestartCounter(counter=self._settings.restart_counter)
        response = Heartbeat(flags=flags, sequence_number=number, options=(counter,))
        return self._send(response, destination, port, source, now)

    def _send(self, beat: Heartbeat, destination: Address, port: int, source: Address | None, now: float) -> Action:
        options: tuple[Option, ...] = beat.options
        if self._door.signs_for(destination, port):
            options = (*options, self._freshness.stamp(now))
        stamped = Heartbeat(flags=beat.flags, sequence_number=beat.sequence_number, options=options)
        care_of = self._door.path_care_of(source, destination)
        return self._door.send(stamped, destination, care_of=care_of, port=port, source=source)
