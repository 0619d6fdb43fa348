"""What a router knows is not looked at again and again by the collector, and what is no longer needed goes."""

import gc
import weakref
from collections.abc import Iterator

import pytest

from router.garbage import COLLECTIONS, little_at_a_time

SOME = 700 * 10 * 3 * 3  # objects: more than bring on a full collection


class Known:
    """Something that may refer to itself."""

    other: "Known"


@pytest.fixture(autouse=True)
def _at_work() -> Iterator[None]:
    with little_at_a_time():
        yield
    gc.unfreeze()


def alive() -> int:
    """Objects that a full collection would look at."""
    return len(gc.get_objects())


def test_what_survives_a_full_collection_is_not_looked_at_again() -> None:
    known = [[number] for number in range(SOME)]
    assert len(known) > alive()


def test_what_ends_is_freed_at_once_though_nobody_looks_at_it() -> None:
    known = Known()
    gc.collect()
    gone = weakref.ref(known)
    del known
    assert gone() is None


def test_cycles_that_were_short_lived_are_freed() -> None:
    one = Known()
    one.other = one
    gone = weakref.ref(one)
    del one
    keep = [[number] for number in range(COLLECTIONS[0] * 2)]
    assert gone() is None
    assert keep


def test_afterwards_all_is_as_it_was() -> None:
    before = gc.get_threshold()
    with little_at_a_time():
        callbacks = len(gc.callbacks)
    assert (gc.get_threshold(), len(gc.callbacks)) == (before, callbacks - 1)
