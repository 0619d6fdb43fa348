"""A MAR that follows a CMD is replaced by another process between two turns, and neither nodes nor CMD notice."""

import random

import pytest

from signaling.actions import TowardAnchor, Unbind
from signaling.settings import CmdMode
from tests.router.test_mar_takeover_state import replace, seen
from tests.signaling.dmm.cmd_world import CMD, CmdWorld, journey
from tests.world import INTERFACE

SEED = random.randrange(1 << 32)


def wandering(seed: int, *, replaced: bool) -> CmdWorld:
    """Two nodes wander through three routers for some minutes; messages get lost, twice and late."""
    chance = random.Random(seed)
    mode = chance.choice(list(CmdMode))
    world = CmdWorld(mode, seed=seed, idle_after=30.0)
    world.loss, world.duplication, world.jitter = 0.1, 0.1, 0.05
    mars = [router.name for router in world.mars]
    for _ in range(40):
        if chance.random() < 0.8:
            world.move(chance.choice(["mn1", "mn2"]), chance.choice(mars), noticed=chance.random() < 0.7)
        else:
            world.detach(chance.choice(["mn1", "mn2"]))
        for _ in range(3):
            world.run(chance.choice([0.005, 0.3, 2.0, 20.0]))
            mar = chance.choice(mars)
            if replaced:
                replace(world, mar)
    return world


@pytest.mark.parametrize("run", range(8))
def test_nobody_notices_that_followers_are_replaced(run: int) -> None:
    seed = SEED + run
    print("seed", seed)
    as_ever, after = (seen(wandering(seed, replaced=replaced)) for replaced in (False, True))
    for what, value in as_ever.items():
        assert after[what] == value, what


def test_a_registration_that_waits_for_its_answer_gets_it() -> None:
    world = CmdWorld()
    world.attach("mn1", "mar1")
    replace(world, "mar1")
    world.run(1.0)
    assert world["mar1"].mar.counters["serving.accepted"] == 1
    assert len(world.updates_to(CMD, source="mar1")) == 1


def test_what_visits_goes_on_and_ends_with_its_lifetime() -> None:
    world = journey("mar1", "mar2")
    prefix = world.prefix("mn1", "mar1")
    replace(world, "mar2")
    world.run(1.0)
    assert world.path("mar2", prefix) == TowardAnchor.through(world.address["mar1"], INTERFACE)
    world.cut(CMD)
    world.run(400.0)
    assert Unbind(prefix=prefix, node="mn1") in world["mar2"].did(Unbind)
