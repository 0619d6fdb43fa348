"""Striped and doubled flows come out in order, each packet once, none later than the limit: model and compiled."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from engine.model.reorder import FIRST, HISTORY, QUIET, RESTART, Answer
from engine.model.reorder import Reorder as ModelReorder

try:
    from engine._fast.reorder import Reorder as FastReorder
except ImportError:
    FastReorder = None

MS = 1_000_000  # ns
LIMIT = 50 * MS
PACKETS = 16  # that may be early: small, so that every bound is met
WRAP = 1 << 32
KINDS: list[Any] = [ModelReorder] + ([FastReorder] if FastReorder is not None else [])
COUNTS = ("in_order", "early", "late", "twins", "given_up", "resynchronised", "strays", "full")

Make = Callable[..., "Group"]


class Group:
    """A group and the one worker that serves it: what comes out, and when."""

    def __init__(self, kind: Any, **bounds: int) -> None:
        self.inside = kind(**{"packets": PACKETS, "limit": LIMIT, **bounds})
        self.out: list[int] = []
        self.now = 5 * QUIET

    def __call__(self, *sequences: int) -> list[int]:
        """These come now; what is delivered."""
        before = len(self.out)
        for sequence in sequences:
            self.offer(sequence)
        return self.out[before:]

    def offer(self, sequence: int, octets: bytes = b"") -> Answer:
        octets = octets or named(sequence)
        answer = Answer(self.inside.offer(1, sequence % WRAP, octets, self.now))
        if answer not in (Answer.KEPT, Answer.TWIN):
            self.out.append(number(octets))
        self.take()
        return answer

    def take(self) -> None:
        while (octets := self.inside.take(1)) is not None:
            self.out.append(number(octets))
        self.inside.leave(1)

    def wait(self, nanoseconds: int) -> list[int]:
        """Time passes; what is delivered."""
        before = len(self.out)
        self.now += nanoseconds
        self.inside.expire(self.now)
        self.take()
        return self.out[before:]

    def counted(self) -> dict[str, int]:
        row = self.inside.row if hasattr(self.inside, "row") else self.inside.counts.row()
        return {name: count for name, count in zip(COUNTS, row, strict=True) if count}


def named(sequence: int, length: int = 60) -> bytes:
    return (sequence % WRAP).to_bytes(4, "big") + bytes(length)


def number(octets: bytes) -> int:
    return int.from_bytes(octets[:4], "big")


@pytest.fixture(params=KINDS, ids=lambda kind: "compiled" if kind is FastReorder else "model")
def make(request: pytest.FixtureRequest) -> Make:
    return lambda **bounds: Group(request.param, **bounds)


@pytest.fixture
def group(make: Make) -> Group:
    return make()


# --- order


def test_what_comes_in_order_leaves_at_once(group: Group) -> None:
    assert group(0, 1, 2, 3) == [0, 1, 2, 3]
    assert group.counted() == {"in_order": 4}


def test_an_early_packet_waits_for_the_one_before_it(group: Group) -> None:
    assert group(0, 2, 3) == [0]
    assert group(1) == [1, 2, 3]
    assert group.counted() == {"in_order": 2, "early": 2}


def test_the_first_packet_may_have_any_number(group: Group) -> None:
    assert group(777, 778) == [777, 778]


def test_numbers_go_on_behind_the_largest(group: Group) -> None:
    assert group(WRAP - 2, 0, WRAP - 1, 1) == [WRAP - 2, WRAP - 1, 0, 1]


def test_a_gap_is_given_up_after_the_limit(group: Group) -> None:
    group(0, 2)
    assert group.wait(LIMIT - 1) == []
    assert group.wait(1) == [2]
    assert group.counted() == {"in_order": 1, "early": 1, "given_up": 1}


def test_the_limit_is_that_of_each_packet_not_of_each_gap(group: Group) -> None:
    group(0, 4)
    group.wait(LIMIT - 10)
    assert group(2) == []
    assert group.wait(10) == [2, 4]


def test_a_packet_waits_longer_than_one_that_came_before_it_and_goes_behind_it(group: Group) -> None:
    group(0, 2)
    group.wait(LIMIT - 10)
    group(4)
    assert group.wait(10) == [2]
    assert group.wait(LIMIT - 11) == []
    assert group.wait(1) == [4]


def test_the_next_packet_also_notices_that_the_limit_is_over(group: Group) -> None:
    group(0, 2)
    group.now += LIMIT
    assert group(3) == [2, 3]


def test_without_a_limit_nothing_waits_and_twins_still_die(make: Make) -> None:
    group = make(limit=0)
    assert group(0, 2, 2, 1, 1, 0, 3) == [0, 2, 1, 3]
    assert group.counted() == {"in_order": 3, "late": 1, "twins": 3, "given_up": 1}


def test_more_numbers_than_may_wait_give_up_the_first_gap(group: Group) -> None:
    assert group(0, *range(2, PACKETS + 1)) == [0]
    assert group(PACKETS + 1) == list(range(2, PACKETS + 2))


def test_octets_that_may_wait_are_bounded(make: Make) -> None:
    group = make(octets=250)
    assert group(0, 2, 4, 6) == [0]
    assert group(8) == [2]
    assert group(10) == [4]


def test_a_packet_that_is_larger_than_the_bound_waits_for_nothing(make: Make) -> None:
    group = make(octets=250)
    group(0, 2)
    assert group.offer(5, named(5, 300)) is Answer.KEPT  # behind the one that was kept and now leaves
    assert group.out == [0, 2, 5]


def test_where_there_is_no_room_a_packet_is_delivered_out_of_order_and_only_once(make: Make) -> None:
    group = make(store=512)
    assert [group.offer(n) for n in (0, 2, 3, 4)] == [Answer.DELIVER, Answer.KEPT, Answer.KEPT, Answer.FULL]
    assert group.offer(4) is Answer.TWIN
    assert group(1, 5, 4) == [1, 2, 3, 5]
    assert group.counted() == {"in_order": 3, "early": 2, "twins": 2, "full": 1}


# --- late ones and twins


def test_a_late_packet_is_delivered_and_counted(group: Group) -> None:
    group(0, 2)
    group.wait(LIMIT)
    assert group(1) == [1]
    assert group.counted()["late"] == 1


@pytest.mark.parametrize("again", [0, 1, 2, 4], ids=["old", "late", "given up once", "waiting"])
def test_a_twin_dies(group: Group, again: int) -> None:
    group(0, 2)
    group.wait(LIMIT)
    group(1, 4)
    assert group(again) == []
    assert group.counted()["twins"] == 1


def test_twins_are_known_as_far_back_as_the_history_goes(group: Group) -> None:
    last = HISTORY * PACKETS
    group(*range(last))
    assert group.offer(0) is Answer.TWIN
    assert group.offer(last) is Answer.DELIVER
    assert group.offer(0) is not Answer.TWIN


def test_what_was_given_up_in_the_last_round_of_the_history_is_not_a_twin_in_this_one(group: Group) -> None:
    history = HISTORY * PACKETS
    group(*range(history), history + 1)
    group.wait(LIMIT)
    assert group.offer(history) is Answer.LATE


# --- senders that start again


def test_a_sender_that_starts_again_after_a_pause_loses_nothing(group: Group) -> None:
    group(*range(100))
    group.wait(QUIET)
    assert group(0, 1, 3, 2) == [0, 1, 2, 3]
    assert group.counted()["resynchronised"] == 1


def test_a_sender_that_starts_again_at_zero_without_a_pause_loses_nothing(group: Group) -> None:
    for n in range(100):
        group(n)
        group.wait(QUIET // 20)
    assert group(0, 1, 2) == [0, 1, 2]


def test_a_sender_that_starts_again_and_whose_first_packets_are_lost_is_believed_after_a_while(group: Group) -> None:
    group(*range(500))
    lost = 0
    for n in range(FIRST, 200):
        lost += group(n) == []
        group.wait(QUIET // 50)
    assert lost == 50
    assert group(200, 202, 201) == [200, 201, 202]


def test_a_sender_that_starts_far_away_is_believed_after_a_few_packets_and_loses_none(group: Group) -> None:
    group(1 << 20, (1 << 20) + 2)
    assert group(*range(RESTART)) == [*range(RESTART), (1 << 20) + 2]
    assert group(5, 4) == [4, 5]
    assert sorted(group.out) == [*range(6), 1 << 20, (1 << 20) + 2]


def test_one_stray_number_moves_nothing(group: Group) -> None:
    assert group(0, 1 << 30, 1, 1 << 31, 2, 5000, 3, 1 << 30) == [0, 1 << 30, 1, 1 << 31, 2, 5000, 3, 1 << 30]
    assert "resynchronised" not in group.counted()


def test_twins_of_strays_die_and_do_not_confirm_them(group: Group) -> None:
    group(0)
    far = 1 << 30
    assert group(far, far, far + 2, far + 2, far, far + 1) == [far, far + 2, far + 1]
    assert "resynchronised" not in group.counted()
    assert group(far + 4, far + 4, far + 1, far + 3, far + 3, far + 5) == [far + 4, far + 3, far + 5]


def test_numbers_that_passed_while_every_path_was_down_are_not_waited_for(group: Group) -> None:
    group(0, 1)
    jump = range(1000, 1000 + RESTART)
    assert group(*jump) == list(jump)
    assert group(1) == []  # still known
    assert group(500) == [500]
    assert group.counted()["late"] == 1


def test_numbers_that_pause_for_long_go_on_where_they_stopped(group: Group) -> None:
    """The rule was per flow meanwhile: nothing was numbered."""
    group(*range(10))
    group.wait(100 * QUIET)
    assert group(11, 10, 12) == [10, 11, 12]
    assert group.counted() == {"in_order": 12, "early": 1}


def test_what_was_lost_before_a_long_pause_delays_the_first_behind_it_once_and_by_the_limit(group: Group) -> None:
    """Not at once: those before the first to arrive may be on a slower path."""
    group(*range(10))
    group.wait(100 * QUIET)
    assert group(13, 14) == []
    assert group.wait(LIMIT) == [13, 14]
    assert group(16, 15, 17) == [15, 16, 17]
    assert group.counted()["given_up"] == 3


# --- several workers


def test_one_worker_delivers_and_the_others_queue_behind_it(make: Make) -> None:
    inside = make().inside
    offer, now = inside.offer, 5 * QUIET
    assert offer(1, 0, named(0), now) == Answer.DELIVER
    assert offer(2, 1, named(1), now) == Answer.KEPT  # the first one is not sent yet
    assert inside.take(2) is None
    assert offer(1, 2, named(2), now) == Answer.KEPT
    assert number(inside.take(1)) == 1
    inside.leave(2)  # it owns nothing: that changes nothing
    assert inside.take(2) is None
    assert number(inside.take(1)) == 2
    assert not inside.leave(1)
    assert offer(2, 3, named(3), now) == Answer.DELIVER


def test_what_comes_while_another_worker_delivers_is_due_when_it_leaves(make: Make) -> None:
    inside = make().inside
    now = 5 * QUIET
    inside.offer(1, 0, named(0), now)
    inside.offer(2, 1, named(1), now)
    assert inside.leave(1)
    assert inside.deadline == 0
    assert inside.expire(now)
    assert number(inside.take(2)) == 1
    assert not inside.leave(2)


# --- anything at all


def stream(dice: random.Random) -> Iterator[tuple[int, int]]:
    """(sequence, ns since the one before): permuted, doubled, lost; with pauses, jumps and new starts."""
    base = dice.choice([0, 0, 5, WRAP - 300, 1 << 31, dice.randrange(WRAP)])
    for _ in range(dice.randrange(1, 6)):
        spread, doubled, lost = dice.choice([1, 4, 12, 40]), dice.random() * 0.5, dice.random() * 0.3
        waiting = []
        for n in range(dice.randrange(1, 400)):
            for _ in range(1 + (dice.random() < doubled)):
                if dice.random() >= lost:
                    waiting.append((n + dice.random() * spread, n))
        for _, n in sorted(waiting):
            pause = dice.choice([0, 1000, 10 * MS]) if dice.random() < 0.2 else 0
            yield (base + n) % WRAP, pause
        yield base, dice.choice([0, LIMIT, QUIET])
        base = dice.choice([0, (base + dice.randrange(3000)) % WRAP, dice.randrange(WRAP)])


@pytest.mark.skipif(FastReorder is None, reason="nothing is compiled")
@pytest.mark.parametrize("bounds", [{}, {"octets": 600}, {"store": 2048}, {"limit": 0}, {"packets": 64}])
def test_the_compiled_one_does_what_the_model_does(dice: random.Random, bounds: dict[str, int]) -> None:
    for _ in range(20):
        slow, fast = Group(ModelReorder, **bounds), Group(FastReorder, **bounds)
        for sequence, pause in stream(dice):
            octets = named(sequence, dice.choice([4, 60, 60, 300, 1400, 4000]))
            assert slow.wait(pause) == fast.wait(pause)
            assert slow.offer(sequence, octets) is fast.offer(sequence, octets)
            assert slow.out[-40:] == fast.out[-40:]
            if slow.inside.deadline is not None:
                assert fast.inside.deadline <= slow.inside.deadline
        assert slow.out == fast.out
        assert slow.counted() == fast.counted()


@pytest.mark.skipif(FastReorder is None, reason="nothing is compiled")
def test_with_several_workers_too(dice: random.Random) -> None:
    for _ in range(20):
        slow, fast = (kind(packets=PACKETS, limit=LIMIT) for kind in (ModelReorder, FastReorder))
        now = 5 * QUIET
        for sequence, pause in stream(dice):
            worker, now = dice.randrange(1, 4), now + pause
            octets = named(sequence)
            assert slow.offer(worker, sequence, octets, now) == fast.offer(worker, sequence, octets, now)
            for _ in range(dice.randrange(3)):
                assert slow.take(worker) == fast.take(worker)
            if dice.random() < 0.3:
                assert slow.leave(worker) == fast.leave(worker)
        assert slow.counts.row() == fast.row


def test_order_is_kept_nothing_is_lost_nothing_comes_twice_and_nothing_waits_too_long(
    make: Make, dice: random.Random
) -> None:
    for _ in range(20):
        group = make(packets=64)
        first = dice.choice([0, WRAP - 100, dice.randrange(WRAP)])
        spread, lost = dice.choice([1, 8, 30]), dice.random() * 0.2
        sent = [n for n in range(1, 500) if dice.random() >= lost]
        coming = sorted((n + dice.random() * spread, n) for n in sent for _ in range(dice.randrange(1, 3)))
        group(first)
        came: dict[int, int] = {}
        late = set()
        for _, n in coming:
            group.wait(dice.choice([0, 0, 0, 0, MS, 20 * MS]))
            came.setdefault(n, group.now)
            if group.offer(first + n) is Answer.LATE:
                late.add(n)
            out = {(sequence - first) % WRAP for sequence in group.out}
            assert all(n in out or group.now - then < LIMIT for n, then in came.items())
        group.wait(LIMIT)
        out_order = [(sequence - first) % WRAP for sequence in group.out[1:]]
        in_order = [n for n in out_order if n not in late]
        assert in_order == sorted(set(in_order))
        assert sorted(out_order) == sorted(sent)
        counted = group.counted()
        assert counted.get("late", 0) == len(late)
        assert counted.get("twins", 0) == len(coming) - len(sent)
        assert counted.get("strays", 0) == counted.get("full", 0) == 0


@pytest.mark.skipif(FastReorder is None, reason="nothing is compiled")
def test_no_copy_is_left_over(dice: random.Random) -> None:
    inside = FastReorder(packets=PACKETS)
    for sequence in range(200):
        inside.offer(1, dice.randrange(sequence, sequence + 8), named(sequence, dice.randrange(3000)), 5 * QUIET)
        inside.take(1)
    inside.leave(1)
    inside.close()
    assert inside.allocated == 0


@pytest.mark.skipif(FastReorder is None, reason="nothing is compiled")
def test_a_group_that_is_closed_while_a_worker_delivers_is_used_again_only_when_it_has_left() -> None:
    inside = FastReorder(packets=PACKETS)
    inside.offer(1, 0, named(0), 5 * QUIET)
    inside.offer(1, 2, named(2), 5 * QUIET)
    inside.offer(2, 1, named(1), 5 * QUIET)
    assert number(inside.take(1)) == 1
    assert inside.close() == 1
    assert inside.reopen(PACKETS) == 2
    assert inside.allocated == 256
    assert inside.offer(1, 9, named(9), 5 * QUIET) == Answer.DELIVER
    inside.leave(1)
    assert inside.allocated == 0
    assert inside.reopen(PACKETS) == 1


@pytest.mark.skipif(FastReorder is None, reason="nothing is compiled")
@pytest.mark.parametrize("burst", [1, 3, 64])
def test_workers_that_run_at_once_deliver_in_order_together(burst: int) -> None:
    inside, packets, workers = FastReorder(packets=1024), 30_000, 3
    with ThreadPoolExecutor() as threads:
        working = [threads.submit(inside.work, worker, packets, burst) for worker in range(1, workers + 1)]
        unordered = sum(each.result() for each in working)
    inside.expire(LIMIT)
    while inside.take(1) is not None:
        unordered += 1  # what came while the last one to leave had looked already, and what waited for a gap
    inside.leave(1)
    delivered = inside.delivered
    assert delivered == sorted(set(delivered))
    assert len(delivered) + unordered == workers * packets
