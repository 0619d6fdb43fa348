"""Random walks: hosts come and go, messages are lost, late and doubled, routers and the store fail; then it settles.

The number in the name of a failing test is the seed: the same walk again, step by step.
"""

import random

import pytest

from tests.world import World

HOSTS = ("mn1", "mn2")
STEPS = 25
SETTLED_AFTER = 100.0  # s without trouble: longer than the slowest retry, twice


class Walk:
    """One seed, one walk."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.world = World(mars=3, seed=seed, binding_lifetime=60, idle_after=self.random.choice((0.0, 20.0)))
        self.trace: list[str] = []

    def step(self) -> None:
        """One thing happens, then a moment passes."""
        act = self.random.choices(
            (
                self.move,
                self.slip,
                self.leave,
                self.lose,
                self.double,
                self.late,
                self.restart,
                self.store,
                self.use,
                self.cut,
            ),
            (8, 4, 2, 3, 3, 3, 1, 2, 3, 1),
        )[0]
        self.trace.append(f"{self.world.now:.3f} {act.__name__}")
        act()
        self.world.run(self.random.choice((0.0, 0.005, 0.05, 0.5, 3.0, 12.0)))

    def move(self) -> None:
        self.world.move(self.random.choice(HOSTS), self.router())

    def slip(self) -> None:
        self.world.move(self.random.choice(HOSTS), self.router(), noticed=False)

    def leave(self) -> None:
        self.world.detach(self.random.choice(HOSTS), noticed=self.random.random() < 0.5)

    def lose(self) -> None:
        self.world.lose(self.random.randint(1, 5))

    def double(self) -> None:
        self.world.duplicate(self.random.randint(1, 3), after=self.random.choice((0.0, 0.02, 1.5)))

    def late(self) -> None:
        self.world.hold_up(self.random.choice((0.02, 0.2, 2.0)), self.random.randint(1, 3))

    def restart(self) -> None:
        if not self.world.store.away:
            self.world.restart(self.router())

    def store(self) -> None:
        if self.world.store.away:
            self.world.store_returns()
        else:
            self.world.store_goes()

    def use(self) -> None:
        """Packets of some prefix that a host has."""
        sessions = self.world.store.of(self.random.choice(HOSTS))
        if sessions:
            self.world.used[self.random.choice(sessions).prefix] = self.world.now

    def cut(self) -> None:
        """Nothing passes between routers for so long that they take each other for dead."""
        self.world.lose(10_000)
        self.world.run(400.0)
        self.world.mend()

    def router(self) -> str:
        return self.random.choice(tuple(self.world.routers))

    def settle(self) -> None:
        """No more trouble, and every host ends up somewhere."""
        self.world.mend()
        if self.world.store.away:
            self.world.store_returns()
        for name in HOSTS:
            self.world.move(name, self.router())
            self.world.run(1.0)
        self.world.run(SETTLED_AFTER)


@pytest.mark.parametrize("seed", range(60))
def test_whatever_happens_every_prefix_ends_up_where_its_host_is(seed: int) -> None:
    walk = Walk(seed)
    for _ in range(STEPS):
        walk.step()
    walk.settle()
    assert [*walk.world.faults(), *walk.world.astray()] == [], "\n".join(walk.trace)
