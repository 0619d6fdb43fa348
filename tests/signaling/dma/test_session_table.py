"""The two state machines, cell by cell: what is in the table happens, what is missing changes nothing."""

from ipaddress import IPv6Address, IPv6Network
from itertools import product

import pytest

from signaling.dma import session, update_list
from signaling.dma.binding_cache import BindingCache, Entry
from signaling.dma.session import Happening, State
from signaling.dma.update_list import Progress, Registration, Step

PREFIX = IPv6Network("2001:db8:100::/64")
ANCHOR = IPv6Address("2001:db8:a1::1")


def entry_in(state: State) -> Entry:
    return Entry(node="mn1", prefix=PREFIX, state=state, care_of=ANCHOR)


def registration_in(progress: Progress) -> Registration:
    return Registration(
        node="mn1",
        prefix=PREFIX,
        anchor=ANCHOR,
        interface="lan0",
        link_layer=b"",
        handoff=3,
        valid_lifetime=7200,
        progress=progress,
    )


def name(cell: tuple[State, Happening] | tuple[Progress, Step]) -> str:
    return f"{cell[0].value}-{cell[1].value}"


@pytest.mark.parametrize("cell", session.NEXT, ids=name)
def test_an_anchored_prefix_goes_where_the_table_says(cell: tuple[State, Happening]) -> None:
    entry = entry_in(cell[0])
    assert entry.step(cell[1])
    assert entry.state is session.NEXT[cell]


@pytest.mark.parametrize("cell", [it for it in product(State, Happening) if it not in session.NEXT], ids=name)
def test_what_cannot_happen_to_an_anchored_prefix_changes_nothing(cell: tuple[State, Happening]) -> None:
    entry = entry_in(cell[0])
    assert not entry.step(cell[1])
    assert entry == entry_in(cell[0])


@pytest.mark.parametrize("cell", update_list.NEXT, ids=name)
def test_a_registration_goes_where_the_table_says(cell: tuple[Progress, Step]) -> None:
    registration = registration_in(cell[0])
    assert registration.step(cell[1])
    assert registration.progress is update_list.NEXT[cell]


@pytest.mark.parametrize("cell", [it for it in product(Progress, Step) if it not in update_list.NEXT], ids=name)
def test_what_cannot_happen_to_a_registration_changes_nothing(cell: tuple[Progress, Step]) -> None:
    registration = registration_in(cell[0])
    assert not registration.step(cell[1])
    assert registration == registration_in(cell[0])


@pytest.mark.parametrize("state", State)
def test_every_state_of_a_prefix_leads_back_to_free(state: State) -> None:
    reached = {state}
    while more := {after for (before, _), after in session.NEXT.items() if before in reached} - reached:
        reached |= more
    assert State.FREE in reached


@pytest.mark.parametrize("progress", Progress)
def test_every_registration_can_end(progress: Progress) -> None:
    reached = {progress}
    while more := {after for (before, _), after in update_list.NEXT.items() if before in reached} - reached:
        reached |= more
    assert Progress.NONE in reached


@pytest.mark.parametrize("state", State)
def test_a_node_that_attaches_gets_its_prefix_back_from_every_state(state: State) -> None:
    # flows of it that others take are still theirs
    assert session.NEXT[state, Happening.ATTACHED] is (State.SPLIT if state is State.SPLIT else State.LOCAL)


def test_only_a_prefix_that_was_held_back_becomes_free() -> None:
    assert [before for before, after in session.NEXT.items() if after is State.FREE] == [
        (State.HOLD, Happening.EXPIRED),
        (State.RELEASED, Happening.EXPIRED),
    ]


def test_an_entry_is_found_by_prefix_and_by_node() -> None:
    cache, entry = BindingCache(), entry_in(State.LOCAL)
    cache.add(entry)
    assert cache.get(PREFIX) is entry
    assert cache.of("mn1") == [entry]


def test_a_removed_entry_is_found_no_more() -> None:
    cache, entry = BindingCache(), entry_in(State.LOCAL)
    cache.add(entry)
    cache.remove(entry)
    assert (cache.get(PREFIX), cache.of("mn1"), len(cache)) == (None, [], 0)


def test_a_prefix_has_one_entry_only() -> None:
    cache = BindingCache()
    cache.add(entry_in(State.LOCAL))
    with pytest.raises(KeyError):
        cache.add(entry_in(State.LOCAL))
