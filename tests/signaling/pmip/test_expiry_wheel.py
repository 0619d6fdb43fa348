"""The wheel that says which sessions have to be looked at."""

from dataclasses import dataclass

from signaling.pmip.expiry_wheel import AT_ONCE, ExpiryWheel


@dataclass(eq=False)
class Thing:
    expires: float
    filed: int = 0


def wheel(*things: Thing) -> ExpiryWheel[Thing]:
    made: ExpiryWheel[Thing] = ExpiryWheel()
    for thing in things:
        made.file(thing)
    return made


def test_an_empty_wheel_is_never_due() -> None:
    assert wheel().next is None


def test_a_thing_is_due_not_before_it_expires_and_within_a_second() -> None:
    thing = Thing(10.2)
    made = wheel(thing)
    assert list(made.due(10.3)) == []
    assert made.next == 11.0
    assert list(made.due(11.0)) == [thing]
    assert made.next is None


def test_a_thing_that_was_extended_is_due_only_then() -> None:
    thing = Thing(10.0)
    made = wheel(thing)
    thing.expires = 20.0
    made.file(thing)
    assert list(made.due(10.0)) == []
    assert list(made.due(20.0)) == [thing]


def test_a_thing_that_ends_earlier_than_thought_is_due_once() -> None:
    thing = Thing(20.0)
    made = wheel(thing)
    thing.expires = 10.0
    made.file(thing)
    assert list(made.due(10.0)) == [thing]
    assert list(made.due(30.0)) == []


def test_a_thing_that_was_dropped_is_never_due() -> None:
    thing = Thing(10.0)
    made = wheel(thing)
    made.drop(thing)
    assert list(made.due(30.0)) == []


def test_a_full_second_is_worked_off_in_turns() -> None:
    made = wheel(*(Thing(10.0) for _ in range(AT_ONCE + 1)))
    assert len(list(made.due(10.0))) == AT_ONCE
    assert made.next == 10.0
    assert len(list(made.due(10.0))) == 1
