"""Old messages are refused, whatever the clocks do; new ones are not."""

from signaling.freshness import WINDOW, Freshness
from signaling.settings import Clock
from signaling.wire.heartbeat import Heartbeat
from signaling.wire.options.time import Timestamp

WALL = 1_704_164_645.0


def clock() -> Clock:
    it = Clock()
    it.step(WALL)
    return it


def stamped(timestamp: Timestamp) -> Heartbeat:
    return Heartbeat(sequence_number=1, options=(timestamp,))


def test_two_stamps_of_one_instant_differ() -> None:
    freshness = Freshness(clock())
    assert freshness.stamp(5.0).value < freshness.stamp(5.0).value


def test_stamps_follow_the_clock_when_it_is_set_back_far() -> None:
    here = clock()
    freshness = Freshness(here)
    freshness.stamp(5.0)
    here.step(WALL - 2 * WINDOW)
    assert freshness.stamp(5.0).seconds == WALL - 2 * WINDOW + 5.0


def test_a_message_is_accepted_once() -> None:
    freshness = Freshness(clock())
    message = stamped(freshness.stamp(5.0))
    assert freshness.accepts("a", message, 5.0)
    assert not freshness.accepts("a", message, 5.0)
    assert not freshness.accepts("a", message, 5.0 + WINDOW)


def test_a_message_overtaken_by_a_newer_one_is_refused() -> None:
    freshness = Freshness(clock())
    first, second = (stamped(freshness.stamp(5.0)) for _ in range(2))
    assert freshness.accepts("a", second, 5.0)
    assert not freshness.accepts("a", first, 5.0)


def test_each_subject_has_an_order_of_its_own() -> None:
    freshness = Freshness(clock())
    first, second = (stamped(freshness.stamp(5.0)) for _ in range(2))
    assert freshness.accepts("a", second, 5.0)
    assert freshness.accepts("b", first, 5.0)


def test_nothing_is_ever_accepted_twice_however_long_it_was_kept() -> None:
    for kept in (0.0, 1.0, WINDOW, 2 * WINDOW, 2 * WINDOW + 0.001, 1000.0):
        for ahead in (-WINDOW + 0.01, 0.0, WINDOW - 0.01):
            freshness = Freshness(clock())
            message = stamped(Timestamp.from_seconds(WALL + 5.0 + ahead))
            assert freshness.accepts("a", message, 5.0)
            assert not freshness.accepts("a", message, 5.0 + kept)
