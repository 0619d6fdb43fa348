"""What comes for a node between routers waits, bounded, and reaches it in order and paced: model and compiled."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from engine.model.hold import BURST, EASE, SECOND, Phase, Verdict
from engine.model.hold import Hold as ModelHold

try:
    from engine._fast.hold import Holding as FastHold
except ImportError:
    FastHold = None

MS = 1_000_000  # ns
LIMIT = 2 * SECOND
KINDS: list[Any] = [ModelHold] + ([FastHold] if FastHold is not None else [])
COUNTS = ("kept", "sent", "full", "expired")

Make = Callable[..., Any]


@pytest.fixture(params=KINDS, ids=lambda kind: "compiled" if kind is FastHold else "model")
def make(request: pytest.FixtureRequest) -> Make:
    return lambda **bounds: request.param(**{"limit": LIMIT, **bounds})


@pytest.fixture
def hold(make: Make) -> Any:
    return make()


def named(n: int, length: int = 100) -> bytes:
    return n.to_bytes(4, "big") + bytes(length - 4)


def put(hold: Any, *numbers: int, now: int = 0) -> list[int]:
    return [hold.put(named(n), now) for n in numbers]


def drain(hold: Any, now: int, worker: int = 1) -> list[int]:
    """What may go now; it is sent at once."""
    out = []
    while (octets := hold.take(worker, now)) is not None:
        out.append(int.from_bytes(octets[:4], "big"))
    hold.leave(worker)
    return out


def counted(hold: Any) -> dict[str, int]:
    row = hold.row if hasattr(hold, "row") else hold.counts.row()
    return {name: count for name, count in zip(COUNTS, row, strict=True) if count}


def test_packets_wait_while_the_node_is_away(hold: Any) -> None:
    assert put(hold, 1, 2) == [Verdict.KEPT] * 2
    assert drain(hold, SECOND) == []


def test_they_leave_in_order_when_it_is_back(hold: Any) -> None:
    put(hold, 1, 2, 3)
    hold.release(0, SECOND)
    assert drain(hold, SECOND) == [1, 2, 3]
    assert counted(hold) == {"kept": 3, "sent": 3}


def test_when_all_is_sent_packets_go_directly(hold: Any) -> None:
    put(hold, 1)
    hold.release(0, SECOND)
    drain(hold, SECOND)
    assert put(hold, 2) == [Verdict.DIRECT]
    assert hold.phase == Phase.DIRECT


def test_a_hold_with_nothing_in_it_opens_at_once(hold: Any) -> None:
    hold.release(0, SECOND)
    assert put(hold, 1) == [Verdict.DIRECT]


def test_new_packets_go_behind_those_that_wait(hold: Any) -> None:
    put(hold, 1, 2)
    hold.release(0, SECOND)
    assert put(hold, 3, now=SECOND) == [Verdict.KEPT]
    assert drain(hold, SECOND) == [1, 2, 3]


def test_what_is_given_back_goes_before_what_came_since_in_its_own_order(hold: Any) -> None:
    put(hold, 3, 4)
    assert [hold.put(named(n), MS, older=True) for n in (1, 2)] == [Verdict.KEPT] * 2
    put(hold, 5)
    hold.release(0, SECOND)
    assert drain(hold, SECOND) == [1, 2, 3, 4, 5]
    assert hold.put(named(6), SECOND, older=True) == Verdict.DIRECT


def test_what_is_given_back_goes_before_the_rest_also_while_that_is_drained(hold: Any) -> None:
    put(hold, 2, 3)
    hold.release(1, 0)
    assert drain(hold, 0) == [2]
    hold.put(named(1), 0, older=True)
    hold.release(0, SECOND)
    assert drain(hold, 1000 * SECOND) == []
    assert counted(hold) == {"kept": 3, "sent": 1, "expired": 2}


def test_alone_it_waits_like_any_other(hold: Any) -> None:
    hold.put(named(1), 0, older=True)
    put(hold, 2)
    assert hold.deadline == LIMIT
    hold.release(0, SECOND)
    assert drain(hold, SECOND) == [1, 2]


def test_a_new_packet_does_not_overtake_one_that_is_taken_and_not_sent(hold: Any) -> None:
    put(hold, 1)
    hold.release(0, SECOND)
    assert hold.take(1, SECOND) is not None
    assert put(hold, 2, now=SECOND) == [Verdict.KEPT]
    assert hold.take(2, SECOND) is None
    hold.leave(1)
    assert drain(hold, SECOND, worker=2) == [2]


def test_the_drain_keeps_its_pace(hold: Any) -> None:
    put(hold, *range(30))
    hold.release(100_000, SECOND)  # 100 octets each: one in a millisecond
    assert drain(hold, SECOND) == [0]
    assert drain(hold, SECOND + MS - 1) == []
    assert drain(hold, SECOND + MS) == [1]


def test_the_pace_doubles_so_that_a_faster_sender_does_not_keep_it_for_ever(hold: Any) -> None:
    put(hold, *range(8))
    hold.release(100_000, SECOND)  # 100 octets each: one in a millisecond
    numbers, now = itertools.count(8), SECOND
    while (verdict := put(hold, next(numbers), now=now)) == [Verdict.KEPT]:  # one in half a millisecond
        drain(hold, now)
        now += MS // 2
        assert now < SECOND + LIMIT, "it waits behind others without end"
    assert verdict == [Verdict.DIRECT]
    assert EASE < now - SECOND < 4 * EASE
    assert counted(hold).keys() == {"kept", "sent"}


def test_a_late_wake_up_is_made_up_for_only_so_much(hold: Any) -> None:
    put(hold, *range(30))
    hold.release(100_000, SECOND)
    drain(hold, SECOND)
    assert len(drain(hold, SECOND + 50 * MS)) == BURST // MS + 1


def test_the_deadline_is_when_the_next_packet_may_go(hold: Any) -> None:
    assert hold.deadline is None
    put(hold, 1, 2)
    assert hold.deadline == LIMIT
    hold.release(100_000, SECOND)
    assert hold.deadline == SECOND
    drain(hold, SECOND)
    hold.expire(SECOND)
    assert hold.deadline == SECOND + MS


def test_a_packet_that_waited_too_long_is_dropped(hold: Any) -> None:
    put(hold, 1, now=0)
    put(hold, 2, now=1)
    hold.expire(LIMIT)
    hold.release(0, LIMIT)
    assert drain(hold, LIMIT) == [2]
    assert counted(hold) == {"kept": 2, "sent": 1, "expired": 1}


def test_also_in_a_slow_drain(hold: Any) -> None:
    put(hold, *range(5))
    hold.release(100, SECOND)  # one in a second
    assert drain(hold, SECOND) == [0]
    assert drain(hold, LIMIT) == []
    assert counted(hold)["expired"] == 4
    assert put(hold, 9) == [Verdict.DIRECT]


@pytest.mark.parametrize("bounds", [{"packets": 2}, {"octets": 250}, {"store": 512}])
def test_what_finds_it_full_is_dropped(make: Make, bounds: dict[str, int]) -> None:
    hold = make(**bounds)
    assert put(hold, 1, 2, 3) == [Verdict.KEPT, Verdict.KEPT, Verdict.FULL]
    hold.release(0, SECOND)
    assert drain(hold, SECOND) == [1, 2]
    assert counted(hold) == {"kept": 2, "sent": 2, "full": 1}


def test_what_expired_makes_room(make: Make) -> None:
    hold = make(packets=1)
    put(hold, 1)
    assert put(hold, 2, now=LIMIT) == [Verdict.KEPT]


def test_a_node_may_leave_again_before_all_is_drained(hold: Any) -> None:
    put(hold, 1, 2)
    hold.release(100_000, SECOND)
    assert drain(hold, SECOND) == [1]
    hold.hold()
    assert drain(hold, SECOND + MS) == []
    put(hold, 3, now=SECOND)
    hold.release(0, SECOND + MS)
    assert drain(hold, SECOND + MS) == [2, 3]


def test_a_node_may_leave_again_after_all_was_drained(hold: Any) -> None:
    put(hold, 1)
    hold.release(0, SECOND)
    drain(hold, SECOND)
    hold.expire(5 * SECOND)
    hold.hold()
    assert put(hold, 2, now=6 * SECOND) == [Verdict.KEPT]
    assert hold.deadline == 6 * SECOND + LIMIT


@pytest.mark.skipif(FastHold is None, reason="nothing is compiled")
def test_the_compiled_one_does_what_the_model_does(dice: random.Random) -> None:
    for _ in range(100):
        bounds = {"packets": dice.choice([4, 1000]), "octets": dice.choice([3000, 1 << 20])}
        bounds |= {"store": dice.choice([8192, 1 << 20]), "limit": dice.choice([20 * MS, LIMIT])}
        both = ModelHold(**bounds), FastHold(**bounds)
        now = 0
        for n in range(300):
            now += dice.choice([0, 0, 1000, MS, 10 * MS])
            answers = act(dice.randrange(1 << 30), both, n, now)
            assert answers[0] == answers[1]
            assert both[0].phase == both[1].phase
            assert counted(both[0]) == counted(both[1])
            if both[0].deadline is not None:
                assert both[1].deadline <= both[0].deadline


def act(seed: int, both: tuple[Any, Any], n: int, now: int) -> list[Any]:
    """The same event for both."""
    answers = []
    for hold in both:
        dice = random.Random(seed)
        worker = dice.randrange(1, 3)
        kind = dice.random()
        if kind < 0.5:
            answers.append(hold.put(named(n, dice.choice([4, 100, 1400, 2500])), now, older=dice.random() < 0.2))
        elif kind < 0.75:
            hold.expire(now)
            answers.append([hold.take(worker, now) for _ in range(3)])
        elif kind < 0.9:
            answers.append(hold.leave(worker))
        elif kind < 0.95:
            answers.append(hold.release(dice.choice([0, 10_000, 1_000_000]), now))
        else:
            answers.append(hold.hold())
    return answers


def test_order_is_kept_and_every_packet_is_sent_or_counted(make: Make, dice: random.Random) -> None:
    for _ in range(30):
        hold = make(packets=dice.choice([8, 500]), limit=dice.choice([30 * MS, LIMIT]))
        out: list[int] = []
        now, away = 0, True
        came = 0
        for n in range(500):
            now += dice.choice([0, 10_000, MS])
            if dice.random() < 0.02:
                away = not away
                hold.hold() if away else hold.release(dice.choice([0, 200_000]), now)
            hold.expire(now)
            out += drain(hold, now)
            came += 1
            if hold.put(named(n), now) == Verdict.DIRECT:
                out.append(n)
                came -= 1
        hold.release(0, now)
        while hold.phase != Phase.DIRECT:
            now += MS
            hold.expire(now)
            out += drain(hold, now)
        counts = counted(hold)
        assert out == sorted(set(out))
        assert came == counts.get("sent", 0) + counts.get("full", 0) + counts.get("expired", 0)


@pytest.mark.skipif(FastHold is None, reason="nothing is compiled")
def test_what_is_thrown_away_is_told_to_a_worker_and_its_memory_is_free() -> None:
    hold = FastHold(limit=LIMIT)
    put(hold, 1, now=0)
    put(hold, 2, 3, now=SECOND)
    hold.expire(LIMIT)
    assert hold.lost == 1
    assert hold.end() == 2
    assert hold.allocated == 0
    assert hold.another() == 1


@pytest.mark.skipif(FastHold is None, reason="nothing is compiled")
def test_a_hold_that_ends_while_a_worker_drains_is_used_again_only_when_it_has_left() -> None:
    hold = FastHold(limit=LIMIT)
    put(hold, 1, 2)
    hold.release(0, SECOND)
    assert hold.take(1, SECOND) == named(1)
    assert hold.end() == 1
    assert hold.another() == 2
    assert put(hold, 3) == [Verdict.DIRECT]
    hold.leave(1)
    assert hold.allocated == 0
    assert hold.another() == 1


@pytest.mark.skipif(FastHold is None, reason="nothing is compiled")
@pytest.mark.parametrize("burst", [1, 7, 64])
def test_nothing_is_overtaken_while_workers_put_and_drain_and_the_node_comes_and_goes(burst: int) -> None:
    hold, packets = FastHold(limit=LIMIT), 100_000
    with ThreadPoolExecutor() as threads:
        draining = [threads.submit(hold.drain, worker, burst) for worker in (1, 2)]
        feeding = threads.submit(hold.feed, packets)
        while not feeding.done():
            hold.hold()
            hold.release(0, 0)
        hold.release(0, 0)
        hold.finish()
        for each in draining:
            each.result()
    delivered = hold.delivered
    assert delivered == sorted(set(delivered))
    assert len(delivered) + feeding.result() == packets
