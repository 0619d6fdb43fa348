"""Heartbeats (RFC 5847): when a peer counts as gone, that it restarted, and that everybody is answered."""

from collections import Counter
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address

import pytest

from signaling.actions import Action, Send
from signaling.door import Door, Verdict
from signaling.events import DatagramReceived
from signaling.iana import HeartbeatFlag
from signaling.pmip.heartbeats import Heartbeats, PeerEvent, PeerNews
from signaling.settings import Address, Clock, LmaSettings, MagSettings, Peer
from signaling.wire.heartbeat import Heartbeat
from signaling.wire.options.security import RestartCounter
from signaling.wire.options.time import Timestamp

WALL = 1_704_164_645.0
LMA, MAG = IPv6Address("2001:db8:a::1"), IPv6Address("2001:db8:b::1")
KEY = bytes(range(16))
RESPONSE = HeartbeatFlag.RESPONSE


class Lma:
    """An LMA that keeps a session with one MAG; the test speaks for the MAG."""

    def __init__(self, *, key: bytes = KEY, interval: float = 60.0, allowed: int = 3) -> None:
        self.now = 100.0
        self.clock = Clock()
        self.clock.step(WALL)
        self.counters: Counter[str] = Counter()
        self.settings = LmaSettings(
            address=LMA,
            tunnel_mtu=1400,
            peers=(Peer(name="mag", address=MAG, key=key),),
            heartbeat_interval=interval,
            missing_heartbeats=allowed,
            restart_counter=7,
        )
        self.peer = self.settings.peers[0]
        self.door = Door(self.settings, self.counters)
        self.beats = Heartbeats(self.settings, self.door, self.clock, self.counters)
        self.sent: list[tuple[float, Send]] = []
        self.news: list[tuple[float, PeerNews]] = []

    def keep(self) -> "Lma":
        self.beats.keep("mag", MAG, 0, None, self.now)
        return self

    def perform(self, todo: list[Action]) -> None:
        for action in todo:
            assert isinstance(action, Send)
            self.sent.append((self.now, action))

    def run(self, seconds: float) -> "Lma":
        end = self.now + seconds
        while (due := self.beats.next_wake) is not None and due <= end:
            self.now = due
            actions, news = self.beats.wake(self.now)
            self.perform(actions)
            self.news += [(self.now, item) for item in news]
        self.now = end
        return self

    def requests(self) -> list[tuple[float, Heartbeat]]:
        return [
            (at, send.message)
            for at, send in self.sent
            if isinstance(send.message, Heartbeat) and not send.message.response
        ]

    def hear(
        self,
        flags: HeartbeatFlag,
        number: int,
        *,
        restarts: int | None = None,
        at: float | None = None,
        source: Address = MAG,
        port: int = 0,
    ) -> PeerNews | None:
        """A heartbeat of the MAG, made at this time, comes in now."""
        counter = () if restarts is None else (RestartCounter(counter=restarts),)
        stamp = Timestamp(value=self.clock.stamp(self.now if at is None else at))
        beat = Heartbeat(flags=flags, sequence_number=number, options=(*counter, stamp))
        return self.take(beat, source, port)

    def take(self, beat: Heartbeat, source: Address = MAG, port: int = 0) -> PeerNews | None:
        event = DatagramReceived(octets=b"", source=source, destination=LMA, port=port)
        actions, news = self.beats.receive(beat, event, self.peer, self.now)
        self.perform(actions)
        if news:
            self.news.append((self.now, news))
        return news

    def answer(self, *, restarts: int | None = 1) -> PeerNews | None:
        """The MAG answers the last request."""
        return self.hear(RESPONSE, self.requests()[-1][1].sequence_number, restarts=restarts)

    def kinds(self) -> list[PeerEvent]:
        return [item.kind for _, item in self.news]


# --- asking ---


def test_a_peer_is_asked_at_once_and_then_every_interval() -> None:
    lma = Lma().keep().run(130.0)
    assert [at - 100.0 for at, _ in lma.requests()] == [0.0, 60.0, 120.0]


def test_each_request_has_a_number_of_its_own() -> None:
    numbers = [beat.sequence_number for _, beat in Lma().keep().run(200.0).requests()]
    assert len(set(numbers)) == 4


def test_without_a_session_nobody_is_asked() -> None:
    lma = Lma()
    assert lma.beats.next_wake is None
    lma.keep().run(10.0)
    lma.beats.stop("mag")
    lma.run(600.0)
    assert len(lma.requests()) == 1


def test_a_further_session_with_a_peer_does_not_hurry_the_requests() -> None:
    lma = Lma().keep().run(10.0)
    lma.keep().run(10.0)
    assert len(lma.requests()) == 1


def test_requests_follow_the_peer_to_another_address() -> None:
    lma = Lma().keep().run(1.0)
    elsewhere = IPv4Address("192.0.2.7")
    lma.beats.keep("mag", elsewhere, 40000, IPv4Address("192.0.2.1"), lma.now)
    lma.run(60.0)
    send = lma.sent[-1][1]
    assert (send.destination, send.port, send.source) == (elsewhere, 40000, IPv4Address("192.0.2.1"))


def test_a_request_carries_no_restart_counter() -> None:
    _, request = Lma().keep().run(1.0).requests()[0]
    assert request.option(RestartCounter) is None


# --- the verdict ---


def test_an_unanswered_peer_is_unreachable_with_the_fifth_request() -> None:
    lma = Lma().keep().run(600.0)
    assert [(at - 100.0, item) for at, item in lma.news] == [(240.0, PeerNews("mag", PeerEvent.UNREACHABLE))]
    assert sum(at <= lma.news[0][0] for at, _ in lma.requests()) == 5


def test_any_response_begins_the_count_anew() -> None:
    lma = Lma().keep().run(230.0)
    lma.answer()
    lma.run(220.0)
    assert lma.kinds() == []


def test_a_response_to_an_older_request_does_not_count() -> None:
    lma = Lma().keep().run(70.0)
    lma.hear(RESPONSE, lma.requests()[0][1].sequence_number, restarts=1)
    assert lma.counters["heartbeat.unmatched"] == 1


def test_an_unreachable_peer_that_answers_is_back() -> None:
    lma = Lma().keep().run(300.0)
    lma.answer()
    assert lma.kinds() == [PeerEvent.UNREACHABLE, PeerEvent.BACK]


def test_an_answering_peer_is_no_news() -> None:
    lma = Lma().keep()
    for _ in range(10):
        lma.run(60.0)
        lma.answer()
    assert lma.kinds() == []


# --- restarts ---


def test_the_first_restart_counter_is_only_remembered() -> None:
    lma = Lma().keep().run(1.0)
    assert lma.answer(restarts=5) is None


def test_another_restart_counter_means_that_the_peer_lost_its_sessions() -> None:
    lma = Lma().keep().run(1.0)
    lma.answer(restarts=5)
    lma.run(60.0)
    assert lma.answer(restarts=6) == PeerNews("mag", PeerEvent.RESTARTED)


def test_another_counter_in_the_answer_to_something_else_makes_it_ask_at_once() -> None:
    lma = Lma().keep().run(0.0)
    lma.answer(restarts=1)
    lma.run(10.0)
    assert lma.hear(RESPONSE, 7, restarts=2) is None  # nobody asked that: it is no proof
    assert lma.run(0.0).requests()[-1][0] == lma.now
    assert lma.answer(restarts=2) == PeerNews("mag", PeerEvent.RESTARTED)
    asked = len(lma.requests())
    lma.hear(RESPONSE, 7, restarts=2)
    lma.run(5.0)
    assert len(lma.requests()) == asked  # that is known now


def test_it_does_not_ask_more_than_once_a_second_however_often_another_counter_is_heard() -> None:
    lma = Lma().keep().run(0.0)
    lma.answer(restarts=1)
    for _ in range(100):
        lma.run(0.1)
        lma.hear(RESPONSE, 7, restarts=2)
    assert 9 <= len(lma.requests()) - 1 <= 10


def test_a_restart_is_told_once() -> None:
    lma = Lma().keep().run(1.0)
    for restarts in (5, 6, 6):
        lma.answer(restarts=restarts)
        lma.run(60.0)
    assert lma.kinds() == [PeerEvent.RESTARTED]


def test_an_unsolicited_response_tells_of_a_restart_whatever_its_number() -> None:
    lma = Lma().keep().run(1.0)
    lma.answer(restarts=5)
    news = lma.hear(RESPONSE | HeartbeatFlag.UNSOLICITED, 0, restarts=6)
    assert news == PeerNews("mag", PeerEvent.RESTARTED)


def test_an_unsolicited_response_is_not_answered() -> None:
    lma = Lma().keep().run(1.0)
    before = len(lma.sent)
    lma.hear(RESPONSE | HeartbeatFlag.UNSOLICITED, 0, restarts=6)
    assert len(lma.sent) == before


def test_what_a_peer_was_before_its_last_session_ended_is_forgotten() -> None:
    lma = Lma().keep().run(1.0)
    lma.answer(restarts=5)
    lma.beats.stop("mag")
    lma.keep().run(1.0)
    assert lma.answer(restarts=6) is None


def test_a_restart_of_ours_is_announced_before_anybody_asks() -> None:
    lma = Lma()
    (action,) = lma.beats.announce_restart([MAG], lma.now)
    assert isinstance(action, Send)
    assert isinstance(action.message, Heartbeat)
    assert action.message.flags == RESPONSE | HeartbeatFlag.UNSOLICITED
    assert action.message.option(RestartCounter) == RestartCounter(counter=7)


# --- answering ---


def test_a_request_is_answered_without_a_session_too() -> None:
    lma = Lma()
    lma.hear(HeartbeatFlag(0), 4711, port=40000)
    ((_, send),) = lma.sent
    assert isinstance(send.message, Heartbeat)
    assert (send.message.flags, send.message.sequence_number) == (RESPONSE, 4711)
    assert send.message.option(RestartCounter) == RestartCounter(counter=7)
    assert (send.destination, send.port, send.source) == (MAG, 40000, LMA)


# --- trust ---


@pytest.mark.parametrize("age", [0.0, 1.0, 100.0])
def test_a_replayed_request_is_not_answered(age: float) -> None:
    lma = Lma()
    stamp = Timestamp(value=lma.clock.stamp(lma.now))
    beat = Heartbeat(sequence_number=1, options=(stamp,))
    lma.take(beat)
    lma.now += age
    lma.take(beat)
    assert (len(lma.sent), lma.counters["heartbeat.replayed"]) == (1, 1)


def test_a_heartbeat_of_long_ago_is_refused_even_if_it_was_never_seen() -> None:
    lma = Lma()
    lma.hear(HeartbeatFlag(0), 1, at=lma.now - 8.0)
    assert lma.sent == []


def test_a_signed_heartbeat_without_a_timestamp_is_refused() -> None:
    lma = Lma()
    lma.take(Heartbeat(sequence_number=1))
    assert lma.sent == []


def test_without_a_key_no_timestamp_is_asked_for() -> None:
    lma = Lma(key=b"")
    lma.take(Heartbeat(sequence_number=1))
    assert len(lma.sent) == 1


def test_a_clock_that_was_set_back_a_little_makes_no_heartbeat_old() -> None:
    lma = Lma().keep().run(1.0)
    lma.clock.step(WALL - 3.0)
    lma.run(120.0)
    stamps = [beat.option(Timestamp) for _, beat in lma.requests()]
    values = [stamp.value for stamp in stamps if stamp]
    assert values == sorted(set(values))


def test_a_peer_whose_clock_was_set_back_far_is_believed_again_soon() -> None:
    lma = Lma()
    lma.hear(HeartbeatFlag(0), 1)
    lma.clock.step(WALL - 3600.0)  # both follow the same time server
    lma.now += 15.0
    lma.hear(HeartbeatFlag(0), 2)
    assert len(lma.sent) == 2


def test_a_gateway_and_an_anchor_believe_each_others_heartbeats() -> None:
    lma = Lma().keep().run(1.0)
    counters: Counter[str] = Counter()
    mag = Door(MagSettings(address=MAG, tunnel_mtu=1400, peers=(Peer(name="lma", address=LMA, key=KEY),)), counters)
    octets = lma.sent[0][1].octets
    message = mag.decode(octets, LMA, MAG)
    assert mag.judge(octets, message, LMA, mag.path_care_of(MAG, LMA)) is Verdict.TRUSTED
    answer = mag.send(replace(lma.requests()[0][1]), LMA, care_of=mag.path_care_of(MAG, LMA), source=MAG)
    back = lma.door.decode(answer.octets, MAG, LMA)
    assert lma.door.judge(answer.octets, back, MAG, lma.door.path_care_of(LMA, MAG)) is Verdict.TRUSTED


# --- peers without heartbeats ---


def test_a_peer_that_does_not_know_heartbeats_is_never_asked_again() -> None:
    lma = Lma().keep().run(1.0)
    lma.beats.not_understood("mag")
    lma.keep().run(600.0)
    assert len(lma.requests()) == 1
    assert lma.kinds() == []
