"""Update Notifications (RFC 7077), the sending side: what they carry, when they are repeated, how they end."""

from collections import Counter
from ipaddress import IPv6Address, IPv6Network
from typing import Any

import pytest

from signaling.actions import Action, Note, Send
from signaling.door import Door
from signaling.iana import UpdateNotificationFlag, UpdateNotificationReason, UpdateNotificationStatus
from signaling.notifier import Notifier, Outcome
from signaling.settings import Clock, LmaSettings, Peer
from signaling.update_request import node_of, prefixes_of
from signaling.wire.notification import UpdateNotification, UpdateNotificationAck
from signaling.wire.options.time import Timestamp

WALL = 1_704_164_645.0
LMA, MAG = IPv6Address("2001:db8:a::1"), IPv6Address("2001:db8:b::1")
PREFIX = IPv6Network("2001:db8:1:1::/64")
ACKNOWLEDGE, RETRANSMIT = UpdateNotificationFlag.ACKNOWLEDGE, UpdateNotificationFlag.RETRANSMIT
FLOW_MOBILITY = UpdateNotificationReason.FLOW_MOBILITY


class Scene:
    """An LMA that notifies one MAG about mn1."""

    def __init__(self) -> None:
        self.now = 100.0
        self.clock = Clock()
        self.clock.step(WALL)
        self.counters: Counter[str] = Counter()
        peers = (Peer(name="mag", address=MAG, key=bytes(16)),)
        settings = LmaSettings(address=LMA, tunnel_mtu=1400, peers=peers)
        self.notifier = Notifier(settings, Door(settings, self.counters), self.clock, self.counters)
        self.outcomes: list[Outcome] = []
        self.sent: list[tuple[float, UpdateNotification]] = []

    def notify(self, **more: Any) -> None:
        actions = self.notifier.notify(
            FLOW_MOBILITY, "mn1", (PREFIX,), "mag", MAG, self.now, on_done=self.done, **more
        )
        self.perform(actions)

    def done(self, outcome: Outcome, now: float) -> list[Action]:
        self.outcomes.append(outcome)
        return [Note("done", {"at": now})]

    def perform(self, todo: list[Action]) -> None:
        for action in todo:
            if isinstance(action, Send) and isinstance(action.message, UpdateNotification):
                self.sent.append((self.now, action.message))

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while (due := self.notifier.next_wake) is not None and due <= end:
            self.now = due
            self.perform(self.notifier.wake(due))
        self.now = end

    def answer(self, status: int = 0, *, source: IPv6Address = MAG) -> list[Action]:
        ack = UpdateNotificationAck(
            sequence_number=self.sent[-1][1].sequence_number, status=UpdateNotificationStatus(status)
        )
        return self.notifier.confirm(ack, source, self.now)


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_a_notification_names_the_node_and_its_prefixes_and_wants_an_answer(scene: Scene) -> None:
    scene.notify()
    ((_, sent),) = scene.sent
    assert (sent.reason, sent.flags, node_of(sent), prefixes_of(sent)) == (
        FLOW_MOBILITY,
        ACKNOWLEDGE,
        "mn1",
        (PREFIX,),
    )


def test_an_unanswered_notification_is_repeated_once_after_a_second(scene: Scene) -> None:
    scene.notify()
    scene.run(60.0)
    assert [at - 100.0 for at, _ in scene.sent] == [0.0, 1.0]


def test_a_copy_has_the_same_number_and_content_and_says_that_it_is_one(scene: Scene) -> None:
    scene.notify()
    scene.run(60.0)
    first, second = (message for _, message in scene.sent)
    assert second.flags == ACKNOWLEDGE | RETRANSMIT
    assert (second.sequence_number, prefixes_of(second)) == (first.sequence_number, prefixes_of(first))


def test_a_copy_has_a_timestamp_of_its_own_or_it_would_be_taken_for_a_replay(scene: Scene) -> None:
    scene.notify()
    scene.run(60.0)
    first, second = (message.option(Timestamp) for _, message in scene.sent)
    assert first is not None
    assert second is not None
    assert first.value < second.value


def test_an_answered_notification_is_not_repeated(scene: Scene) -> None:
    scene.notify()
    scene.answer()
    scene.run(60.0)
    assert len(scene.sent) == 1
    assert [outcome.accepted for outcome in scene.outcomes] == [True]


def test_a_refusal_is_told_with_its_status(scene: Scene) -> None:
    scene.notify()
    actions = scene.answer(132)
    assert actions[0] == Note("notification-refused", {"peer": MAG, "status": "MOBILE_NODE_NOT_ATTACHED"})
    (outcome,) = scene.outcomes
    assert outcome.ack is not None
    assert (outcome.accepted, outcome.ack.status) == (False, UpdateNotificationStatus.MOBILE_NODE_NOT_ATTACHED)


def test_who_waits_hears_that_nobody_answered(scene: Scene) -> None:
    scene.notify()
    scene.run(60.0)
    assert [outcome.ack for outcome in scene.outcomes] == [None]


def test_what_who_waited_asks_for_is_done(scene: Scene) -> None:
    scene.notify()
    assert scene.answer() == [Note("done", {"at": 100.0})]


def test_an_answer_from_somewhere_else_does_not_count(scene: Scene) -> None:
    scene.notify()
    scene.answer(source=LMA)
    scene.run(60.0)
    assert len(scene.sent) == 2
    assert scene.counters["notification.unmatched"] == 1


def test_numbers_begin_with_the_clock_and_go_up_by_one(scene: Scene) -> None:
    scene.notify()
    scene.notify()
    first, second = (message.sequence_number for _, message in scene.sent)
    assert first == int(WALL + 100.0) % 65536
    assert second == first + 1


def test_a_peer_that_does_not_understand_is_left_alone_until_an_administrator_acts(scene: Scene) -> None:
    scene.notify()
    scene.notifier.not_understood("mag", MAG, scene.now)
    scene.notify()
    scene.run(60.0)
    assert len(scene.sent) == 1
    assert [outcome.ack for outcome in scene.outcomes] == [None, None]
    scene.notifier.try_again("mag")
    scene.notify()
    assert len(scene.sent) == 2
