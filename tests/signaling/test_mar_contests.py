"""Who has the node? Several routers claim it at once, or one after the other faster than messages travel."""

from itertools import permutations

import pytest

from signaling.actions import LocalLink, TowardAnchor, TowardVisited
from signaling.dma.update_list import Progress
from signaling.iana import Status
from signaling.wire.binding_ack import BindingAck
from signaling.wire.binding_update import BindingUpdate
from signaling.wire.revocation import BindingRevocationIndication
from tests.world import INTERFACE, World

SETTLED = 20.0  # s


def visiting(world: World, anchor: str, at: str) -> bool:
    """Whether the prefix of mn1 at that anchor is tunnelled there, and nowhere else."""
    prefix = world.prefix("mn1", anchor)
    return (
        world.path(anchor, prefix) == TowardVisited.at(world.address[at])
        and world.path(at, prefix) == TowardAnchor.through(world.address[anchor], INTERFACE)
        and world.delivered_at(prefix) == [at]
    )


def right(world: World) -> list[str]:
    """What is wrong, now that all has settled."""
    return [*world.faults(), *world.astray()]


@pytest.mark.parametrize("order", list(permutations(["mar1", "mar2", "mar3", "mar4"])), ids="-".join)
def test_a_node_may_come_to_routers_in_any_order(order: tuple[str, ...]) -> None:
    world = World(mars=4)
    for mar in (*order, *reversed(order)):
        world.move("mn1", mar)
        world.run(1.0)
        for anchor in order:
            entries = world[anchor].mar.anchor.cache.of("mn1")
            assert all(world.delivered_at(entry.prefix) == [mar] for entry in entries)
    world.run(SETTLED)
    assert right(world) == []


@pytest.mark.parametrize("pause", [0.0, 0.005, 0.015, 0.1, 0.4])
@pytest.mark.parametrize("noticed", [True, False], ids=["noticed", "unnoticed"])
def test_a_node_that_goes_to_and_fro_ends_up_where_it_is(pause: float, noticed: bool) -> None:
    world = World(mars=3)
    world.attach("mn1", "mar1")
    world.run(10.0)
    for turn in range(12):
        world.move("mn1", "mar2" if turn % 2 else "mar3", noticed=noticed)
        world.run(pause)
    world.run(SETTLED)
    assert visiting(world, "mar1", "mar2")
    assert right(world) == []


@pytest.mark.parametrize("pause", [0.0, 0.005, 0.015, 0.1, 0.4])
@pytest.mark.parametrize("noticed", [True, False], ids=["noticed", "unnoticed"])
def test_a_node_that_goes_home_and_away_again_and_again_ends_up_where_it_is(pause: float, noticed: bool) -> None:
    world = World(mars=2)
    for turn in range(13):
        world.move("mn1", "mar2" if turn % 2 else "mar1", noticed=noticed)
        world.run(pause)
    world.run(SETTLED)
    assert world.path("mar1", world.prefix("mn1", "mar1")) == LocalLink(interface=INTERFACE)
    assert right(world) == []


def claimed() -> World:
    """mn1, of mar1, has just slipped from mar2 to mar3: both claim its prefix in the same moment."""
    world = World(mars=3)
    world.attach("mn1", "mar1")
    world.run(10.0)
    world.detach("mn1")
    world.run(1.0)
    world.attach("mn1", "mar2")
    world.move("mn1", "mar3", noticed=False)
    world.run(0.05)
    return world


def test_of_two_routers_that_claim_a_node_at_once_the_later_one_has_it() -> None:
    world = claimed()
    world.run(SETTLED)
    assert visiting(world, "mar1", "mar3")
    assert right(world) == []


def test_the_one_that_lost_learns_it() -> None:
    world = claimed()
    prefix = world.prefix("mn1", "mar1")
    world.run(SETTLED)
    refused = [ack.status for ack in world["mar1"].sent(BindingAck) if ack.status != Status.BINDING_UPDATE_ACCEPTED]
    revoked = world["mar1"].sent(BindingRevocationIndication)
    assert refused or revoked
    assert [item.progress for item in world["mar2"].mar.registrar.all() if item.prefix == prefix] == []
    assert world["mar2"].mar.access.attached == {}


def test_an_update_that_was_overtaken_by_a_later_one_of_another_router_loses() -> None:
    world = World(mars=3)
    world.attach("mn1", "mar1")
    world.run(10.0)
    world.detach("mn1")
    world.hold_up(0.1, 1, BindingUpdate, source="mar2")
    world.attach("mn1", "mar2")
    world.run(0.01)
    world.move("mn1", "mar3", noticed=False)
    world.run(0.15)
    assert visiting(world, "mar1", "mar3") or world.path("mar3", world.prefix("mn1", "mar1")) is not None
    assert [ack.status for ack in world["mar1"].sent(BindingAck)][-1] == Status.TIMESTAMP_LOWER_THAN_PREV_ACCEPTED
    world.run(SETTLED)
    assert visiting(world, "mar1", "mar3")
    assert right(world) == []


def test_a_router_that_was_left_stays_registered_nowhere_after_a_storm_of_moves() -> None:
    world = World(mars=4, seed=4)
    world.jitter = 0.02
    world.attach("mn1", "mar1")
    world.run(5.0)
    for turn in range(40):
        world.move("mn1", f"mar{1 + turn % 4}", noticed=turn % 3 != 0)
        world.run(0.02)
    world.run(2 * SETTLED)
    at = world.hosts["mn1"].at
    for router in world.routers.values():
        visited = [item for item in router.mar.registrar.all() if item.progress is not Progress.NONE]
        assert router.name == at or visited == []
    assert right(world) == []
