"""What must hold at every moment, whatever happens in whatever order: hypothesis seeks the shortest way to break it.

Hosts attach, detach and move, with and without a sign; messages are lost, doubled and late; routers and the store are
killed and come back. `test_mar_walks` takes longer walks along fixed seeds.
"""

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from signaling.actions import LocalLink, TowardAnchor
from tests.world import World

HOSTS, MARS = ("mn1", "mn2"), ("mar1", "mar2", "mar3")
SETTLED_AFTER = 100.0  # s without trouble: longer than the slowest retry, twice
hosts, routers = st.sampled_from(HOSTS), st.sampled_from(MARS)
moments = st.sampled_from((0.0, 0.005, 0.05, 0.5, 3.0, 12.0))


class Domain(RuleBasedStateMachine):
    """Three MARs, two hosts, one store."""

    @initialize()
    def begin(self) -> None:
        self.world = World(mars=len(MARS), seed=0, binding_lifetime=60)

    # --- what may happen ---

    @rule(host=hosts, router=routers, noticed=st.booleans())
    def move(self, host: str, router: str, noticed: bool) -> None:
        self.world.move(host, router, noticed=noticed)

    @rule(host=hosts, noticed=st.booleans())
    def leave(self, host: str, noticed: bool) -> None:
        self.world.detach(host, noticed=noticed)

    @rule(times=st.integers(1, 5))
    def lose(self, times: int) -> None:
        self.world.lose(times)

    @rule(times=st.integers(1, 3), after=st.sampled_from((0.0, 0.02, 1.5)))
    def double(self, times: int, after: float) -> None:
        self.world.duplicate(times, after=after)

    @rule(times=st.integers(1, 3), delay=st.sampled_from((0.02, 0.2, 2.0)))
    def delay(self, times: int, delay: float) -> None:
        self.world.hold_up(delay, times)

    @precondition(lambda self: not self.world.store.away)
    @rule(router=routers)
    def kill_router(self, router: str) -> None:
        self.world.restart(router)

    @precondition(lambda self: not self.world.store.away)
    @rule()
    def kill_store(self) -> None:
        self.world.store_goes()

    @precondition(lambda self: self.world.store.away)
    @rule()
    def revive_store(self) -> None:
        self.world.store_returns()

    @rule(seconds=moments)
    def time_passes(self, seconds: float) -> None:
        self.world.run(seconds)

    # --- what must hold ---

    @invariant()
    def no_prefix_is_lent_to_two_nodes(self) -> None:
        lent = {}
        for router in self.world.routers.values():
            for entry in router.mar.anchor.cache:
                assert lent.setdefault(entry.prefix, entry.node) == entry.node

    @invariant()
    def no_prefix_is_delivered_to_a_node_that_it_is_not_lent_to(self) -> None:
        owner = {
            entry.prefix: entry.node for router in self.world.routers.values() for entry in router.mar.anchor.cache
        }
        for router in self.world.routers.values():
            for prefix, path in router.paths.items():
                if isinstance(path, LocalLink | TowardAnchor) and prefix in owner:
                    assert router.nodes[prefix] == owner[prefix]

    def teardown(self) -> None:
        """No more trouble, every host ends up somewhere: each prefix at one place, a tunnel at both ends or none."""
        world = self.world
        world.mend()
        if world.store.away:
            world.store_returns()
        for number, host in enumerate(HOSTS):
            world.move(host, MARS[number])
            world.run(1.0)
        world.run(SETTLED_AFTER)
        assert [*world.faults(), *world.astray()] == []


Domain.TestCase.settings = settings(
    max_examples=60, stateful_step_count=25, deadline=None, print_blob=True, suppress_health_check=list(HealthCheck)
)
TestDomain = Domain.TestCase
