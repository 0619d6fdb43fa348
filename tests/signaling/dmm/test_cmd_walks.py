"""Random walks through a domain with a CMD, in each mode: whatever gets lost, late or killed, it settles.

The number in the name of a failing test is the seed: the same walk again, step by step.
"""

import random

import pytest

from signaling.settings import CmdMode
from tests.signaling.dmm.cmd_world import CmdWorld
from tests.signaling.test_mar_walks import STEPS, Walk

SETTLED_AFTER = 2000.0  # s without trouble: the long timer of an anchor, and what a host prefers that nobody knows of


class CmdWalk(Walk):
    """One seed, one mode, one walk."""

    def __init__(self, seed: int, mode: CmdMode, cmds: int = 1) -> None:
        self.random = random.Random(seed)
        self.world: CmdWorld = CmdWorld(mode, cmds=cmds, mars=3, seed=seed, idle_after=self.random.choice((0.0, 20.0)))
        self.trace: list[str] = []
        self.away = False

    def router(self) -> str:
        return self.random.choice([router.name for router in self.world.mars])

    def restart(self) -> None:
        self.world.restart(self.random.choice(tuple(self.world.routers)))

    def store(self) -> None:
        """A CMD cannot be reached, or can be again."""
        self.away = not self.away
        self.world.cut(self.random.choice(self.world.cmds)) if self.away else self.world.heal()

    def settle(self) -> None:
        self.world.mend()
        self.world.heal()
        self.world.run(1.0)
        for name in ("mn1", "mn2"):
            self.world.move(name, self.router())
            self.world.run(1.0)
        self.world.run(SETTLED_AFTER)


@pytest.mark.parametrize("seed", range(15))
@pytest.mark.parametrize("mode", CmdMode, ids=lambda mode: mode.value)
def test_whatever_happens_every_prefix_ends_up_where_its_host_is(mode: CmdMode, seed: int) -> None:
    walk = CmdWalk(seed, mode)
    for _ in range(STEPS):
        walk.step()
    walk.settle()
    assert [*walk.world.faults(), *walk.world.astray()] == [], "\n".join(walk.trace)


@pytest.mark.parametrize("seed", range(15))
@pytest.mark.parametrize("mode", CmdMode, ids=lambda mode: mode.value)
def test_so_it_does_where_routers_follow_different_cmds(mode: CmdMode, seed: int) -> None:
    walk = CmdWalk(seed, mode, cmds=2 + seed % 2)
    for _ in range(STEPS):
        walk.step()
    walk.settle()
    assert [*walk.world.faults(), *walk.world.astray()] == [], "\n".join(walk.trace)
