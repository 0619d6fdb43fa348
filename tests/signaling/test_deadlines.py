"""One heap of deadlines."""

from signaling.deadlines import Deadlines


def test_nothing_is_due_when_nothing_was_set() -> None:
    assert Deadlines[str]().next is None


def test_the_earliest_deadline_is_next() -> None:
    deadlines = Deadlines[str]()
    deadlines.set("late", 9.0)
    deadlines.set("soon", 2.0)
    assert deadlines.next == 2.0


def test_what_is_due_comes_out_in_the_order_of_time() -> None:
    deadlines = Deadlines[str]()
    for key, at in (("c", 3.0), ("a", 1.0), ("b", 2.0), ("later", 3.5)):
        deadlines.set(key, at)
    assert list(deadlines.due(3.0)) == ["a", "b", "c"]


def test_equal_times_come_out_in_the_order_they_were_set() -> None:
    deadlines = Deadlines[object]()
    keys = [object() for _ in range(5)]  # never compared: they cannot be
    for key in keys:
        deadlines.set(key, 1.0)
    assert list(deadlines.due(1.0)) == keys


def test_a_key_that_is_set_again_moves() -> None:
    deadlines = Deadlines[str]()
    deadlines.set("a", 1.0)
    deadlines.set("a", 5.0)
    assert list(deadlines.due(4.0)) == []
    assert deadlines.next == 5.0


def test_a_key_that_was_moved_back_and_forth_comes_out_once() -> None:
    deadlines = Deadlines[str]()
    for at in (1.0, 2.0, 1.0):
        deadlines.set("a", at)
    assert list(deadlines.due(9.0)) == ["a"]


def test_a_cancelled_key_does_not_come_out() -> None:
    deadlines = Deadlines[str]()
    deadlines.set("a", 1.0)
    deadlines.cancel("a")
    assert deadlines.next is None


def test_a_key_set_while_others_come_out_comes_out_too_if_it_is_due() -> None:
    deadlines = Deadlines[str]()
    deadlines.set("a", 1.0)
    seen = []
    for key in deadlines.due(2.0):
        seen.append(key)
        if key == "a":
            deadlines.set("b", 2.0)
    assert seen == ["a", "b"]


def test_a_key_knows_its_deadline_until_it_is_taken_out() -> None:
    deadlines = Deadlines[str]()
    deadlines.set("a", 1.0)
    before = deadlines.of("a")
    list(deadlines.due(1.0))
    assert (before, deadlines.of("a")) == (1.0, None)


def test_all_are_told_in_the_order_in_which_they_come_out() -> None:
    deadlines: Deadlines[str] = Deadlines()
    for key, at in (("b", 2.0), ("a", 1.0), ("moved", 0.5), ("gone", 1.0), ("c", 2.0), ("moved", 2.0)):
        deadlines.set(key, at)
    deadlines.cancel("gone")
    assert list(deadlines.all().items()) == [("a", 1.0), ("b", 2.0), ("c", 2.0), ("moved", 2.0)]
    assert list(deadlines.due(9.0)) == ["a", "b", "c", "moved"]
