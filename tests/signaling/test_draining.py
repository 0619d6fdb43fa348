"""A router that drains: nobody new, notice to those who are here, and an end when nobody needs it."""

from math import inf

import pytest

from signaling.actions import LocalLink, Retire, SendOnLink, TowardVisited
from signaling.dma.session import State
from signaling.iana import RouterPreference
from signaling.wire.neighbor import RouterAdvertisement
from tests.world import INTERFACE, World


@pytest.fixture
def world() -> World:
    """mn1 is at mar1 and has a prefix of it."""
    world = World(mars=2)
    world.attach("mn1", "mar1")
    world.run(10.0)
    return world


def drain(world: World, within: float = inf) -> None:
    """mar1 is ordered to drain."""
    world.order("mar1", world["mar1"].mar.begin_drain(within, world.now))


def cancel(world: World) -> None:
    world.order("mar1", world["mar1"].mar.end_drain(world.now))


def retired(world: World) -> list[float]:
    return [at for at, action in world["mar1"].done if isinstance(action, Retire)]


def told_last(world: World, host: str) -> tuple[RouterPreference, bool]:
    """Preference of the router, and whether it is one."""
    advertisement = world.hosts[host].advertisements[-1][1]
    return advertisement.preference, advertisement.router_lifetime > 0


def test_a_new_node_gets_nothing_and_is_told_nothing(world: World) -> None:
    drain(world)
    world.attach("mn2", "mar1")
    world.run(10.0)
    assert (world.hosts["mn2"].advertisements, world.hosts["mn2"].addresses) == ([], {})
    assert list(world["mar1"].mar.here) == ["mn1"]
    assert [note.fields["node"] for note in world["mar1"].notes("attach-refused")][:1] == ["mn2"]
    assert world["mar1"].mar.counters["drain.refused"] >= 1


def test_lines_about_refused_nodes_are_bounded(world: World) -> None:
    drain(world)
    for _ in range(100):
        world.attach("mn2", "mar1")
    assert len(world["mar1"].notes("attach-refused")) == 10
    assert world["mar1"].mar.counters["drain.refused"] == 100


def test_nodes_here_hear_at_once_to_look_elsewhere(world: World) -> None:
    prefix = world.prefix("mn1", "mar1")
    drain(world)
    assert told_last(world, "mn1") == (RouterPreference.LOW, True)
    assert (world.preferred("mn1"), world.deprecated("mn1")) == ([], [prefix])


def test_every_later_advertisement_says_the_same(world: World) -> None:
    drain(world)
    begun = world.now
    world.run(1000.0)
    told = [advertisement for at, advertisement in world.hosts["mn1"].advertisements if at > begun]
    assert len(told) >= 3
    assert {advertisement.preference for advertisement in told} == {RouterPreference.LOW}
    assert world.preferred("mn1") == []


def test_it_is_no_router_any_more_only_at_the_very_end(world: World) -> None:
    drain(world)
    world.drain("mar1")
    assert told_last(world, "mn1") == (RouterPreference.MEDIUM, False)  # low means nothing then (RFC 4191 2.2)


def test_a_node_here_goes_on_being_served(world: World) -> None:
    prefix = world.prefix("mn1", "mar1")
    drain(world)
    world.run(1000.0)
    assert world.path("mar1", prefix) == LocalLink(interface=INTERFACE)
    assert retired(world) == []


def test_a_node_that_moved_on_keeps_its_tunnel(world: World) -> None:
    prefix = world.prefix("mn1", "mar1")
    drain(world)
    world.move("mn1", "mar2")
    world.run(1000.0)
    assert world.path("mar1", prefix) == TowardVisited.at(world.address["mar2"])
    assert retired(world) == []


def test_a_node_with_a_prefix_of_this_router_is_not_new(world: World) -> None:
    prefix = world.prefix("mn1", "mar1")
    world.move("mn1", "mar2")
    world.run(10.0)
    drain(world)
    world.move("mn1", "mar1")
    world.run(10.0)
    assert world.path("mar1", prefix) == LocalLink(interface=INTERFACE)
    assert told_last(world, "mn1") == (RouterPreference.LOW, True)


def test_a_node_that_only_visited_returns_and_is_lent_nothing() -> None:
    world = World(mars=2, leave_guard=5.0)
    world.attach("mn1", "mar2")
    world.run(10.0)
    world.move("mn1", "mar1")
    world.run(10.0)
    world["mar1"].mar.anchor.cache.remove(world["mar1"].mar.anchor.cache.of("mn1")[0])
    drain(world)
    world.detach("mn1")
    world.run(1.0)
    world.attach("mn1", "mar1")
    world.run(10.0)
    assert list(world["mar1"].mar.here) == ["mn1"]
    assert world["mar1"].mar.anchor.cache.of("mn1") == []


def test_an_empty_router_retires_at_once() -> None:
    world = World(mars=2)
    drain(world)
    world.run(0.1)
    assert retired(world) == [0.0]


def test_it_retires_once_when_the_last_session_is_over(world: World) -> None:
    prefix = world.prefix("mn1", "mar1")
    drain(world)
    world.detach("mn1")
    world.run(9.0)
    assert retired(world) == []
    world.run(60.0)
    assert world.state(prefix) is State.HOLD
    assert len(retired(world)) == 1
    assert world["mar1"].notes("drained")[0].fields["why"] == "nobody needs it"


def test_it_waits_until_anchors_know_that_their_nodes_left() -> None:
    world = World(mars=2)
    world.attach("mn1", "mar2")
    world.run(10.0)
    world.move("mn1", "mar1")
    world.run(10.0)
    drain(world)
    world.move("mn1", "mar2")
    world.run(0.5)
    assert retired(world) == []


def test_it_retires_when_its_time_is_over(world: World) -> None:
    drain(world, 30.0)
    begun = world.now
    world.run(100.0)
    assert retired(world) == [begun + 30.0]
    assert world["mar1"].notes("drained")[0].fields["why"] == "its time is over"


def test_another_order_sets_another_end(world: World) -> None:
    drain(world, 30.0)
    world.run(10.0)
    drain(world, 50.0)
    again = world.now
    world.run(100.0)
    assert retired(world) == [again + 50.0]


def test_a_drain_can_be_cancelled(world: World) -> None:
    prefix = world.prefix("mn1", "mar1")
    drain(world, 30.0)
    world.attach("mn2", "mar1")
    cancel(world)
    world.run(100.0)
    assert retired(world) == []
    assert world.preferred("mn1") == [prefix]
    assert told_last(world, "mn1") == (RouterPreference.MEDIUM, True)


def test_who_was_refused_is_asked_again_after_a_cancel(world: World) -> None:
    drain(world)
    world.attach("mn2", "mar1")
    cancel(world)
    world.run(1.0)
    assert sorted(world["mar1"].mar.here) == ["mn1", "mn2"]
    assert world.preferred("mn2") == [world.prefix("mn2", "mar1")]


def test_it_does_not_look_all_the_time(world: World) -> None:
    drain(world)
    before = world["mar1"].woken
    world.run(100.0)
    assert world["mar1"].woken - before < 300


def test_only_nodes_here_are_told(world: World) -> None:
    world.attach("mn2", "mar2")
    world.run(10.0)
    told = len(world.hosts["mn2"].advertisements)
    drain(world)
    assert len(world.hosts["mn2"].advertisements) == told
    sent = [action for action in world["mar1"].did(SendOnLink) if isinstance(action.message, RouterAdvertisement)]
    assert sent[-1].node == "mn1"
