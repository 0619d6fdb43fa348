"""A prefix that nobody uses any more is released: its anchor is dragged along no longer than packets pass."""

from collections.abc import Callable
from ipaddress import IPv6Network
from math import inf
from typing import Any

import pytest

from signaling.actions import Closed, LocalLink, TowardAnchor, Unbind
from signaling.dma.idle import IdleWatch
from signaling.dma.session import State
from signaling.dma.update_list import Progress
from signaling.iana import HandoffIndicator, Status
from signaling.wire.binding_ack import BindingAck
from signaling.wire.binding_update import BindingUpdate
from signaling.wire.options.access import HandoffIndicatorOption
from tests.world import INTERFACE, World

PREFIX, OTHER = IPv6Network("2001:db8:100::/64"), IPv6Network("2001:db8:101::/64")
IDLE_AFTER = 20.0  # s
RELEASED_AT = 10.01 + IDLE_AFTER + 1.0  # s of the world: the move, its signalling, and a moment


class Scene:
    """mn1 has moved from mar1 to mar2 at t = 10, and nobody uses its old prefix."""

    def __init__(self, **settings: Any) -> None:
        self.world = World(mars=3, **({"idle_after": IDLE_AFTER} | settings))
        self.world.attach("mn1", "mar1")
        self.world.run_until(10.0)
        self.old = self.world.prefix("mn1", "mar1")
        self.world.move("mn1", "mar2")

    def use(self, until: float) -> None:
        """A packet of the old prefix passes every second."""
        at = self.world.now
        while (at := at + 1.0) < until:
            self.world.later(at, lambda at=at: self.world.used.__setitem__(self.old, at))

    def progress(self, mar: str = "mar2") -> list[Progress]:
        return [item.progress for item in self.world[mar].mar.registrar.all() if item.prefix == self.old]

    def updates(self) -> list[BindingUpdate]:
        """That end something."""
        return [update for update in self.world["mar2"].sent(BindingUpdate) if update.lifetime == 0]


def handoff(update: BindingUpdate) -> int:
    option = update.option(HandoffIndicatorOption)
    assert option is not None
    return option.indicator


# --- the watch -------------------------------------------------------------------------------------------------


def test_a_prefix_is_idle_when_no_packet_has_passed_for_so_long() -> None:
    watch = IdleWatch(60.0, lambda prefix: None)
    watch.watch(PREFIX, 100.0)
    assert (list(watch.due(159.9)), list(watch.due(160.0))) == ([], [PREFIX])


def test_a_packet_puts_it_off_until_so_long_after() -> None:
    watch = IdleWatch(60.0, lambda prefix: 10.0)
    watch.watch(PREFIX, 100.0)
    assert (list(watch.due(160.0)), watch.next_wake) == ([], 210.0)


def test_what_passed_before_it_came_does_not_count() -> None:
    watch = IdleWatch(60.0, lambda prefix: 500.0)
    watch.watch(PREFIX, 100.0)
    assert list(watch.due(159.0)) == []


def test_a_rounding_of_floats_does_not_put_it_off_for_ever() -> None:
    since = next(at for step in range(1, 1000) if (at := 4096.0 - step * 0.000123) + 20.0 - at < 20.0)
    watch = IdleWatch(20.0, lambda prefix: None)
    watch.watch(PREFIX, since)
    assert list(watch.due(since + 20.0)) == [PREFIX]


def test_an_idle_prefix_is_told_once() -> None:
    watch = IdleWatch(60.0, lambda prefix: None)
    watch.watch(PREFIX, 0.0)
    assert (list(watch.due(60.0)), list(watch.due(1000.0)), watch.next_wake) == ([PREFIX], [], None)


def test_a_prefix_that_left_is_not_told() -> None:
    watch = IdleWatch(60.0, lambda prefix: None)
    watch.watch(PREFIX, 0.0)
    watch.watch(OTHER, 0.0)
    watch.forget(PREFIX)
    assert list(watch.due(60.0)) == [OTHER]


@pytest.mark.parametrize("watch", [IdleWatch(0.0, lambda prefix: None), IdleWatch(60.0, None)])
def test_where_idleness_does_not_matter_or_cannot_be_known_nothing_is_watched(watch: IdleWatch) -> None:
    watch.watch(PREFIX, 0.0)
    assert watch.next_wake is None


def test_a_silent_prefix_with_an_open_connection_is_not_idle() -> None:
    watch = IdleWatch(60.0, lambda prefix: None, lambda prefix, within: 7440.0)
    watch.watch(PREFIX, 0.0)
    assert (list(watch.due(60.0)), list(watch.due(120.0)), watch.next_wake) == ([], [], 180.0)


def test_it_is_idle_in_the_moment_in_which_its_connections_are_taken_for_dead() -> None:
    watch = IdleWatch(60.0, lambda prefix: None, lambda prefix, within: dead_at - now)
    watch.watch(PREFIX, 0.0)
    dead_at, now = 100.0, 60.0
    assert (list(watch.due(now)), watch.next_wake) == ([], dead_at)
    now = dead_at
    assert list(watch.due(now)) == [PREFIX]


def test_when_the_last_connection_ends_silence_counts_from_its_last_packet() -> None:
    watch = IdleWatch(60.0, lambda prefix: now - closed_at if now >= closed_at else None, lambda *asked: honoured)
    watch.watch(PREFIX, 0.0)
    closed_at, honoured = 70.0, 7440.0
    now = 60.0
    assert list(watch.due(now)) == []
    honoured, now = 0.0, 120.0
    assert (list(watch.due(now)), watch.next_wake) == ([], closed_at + 60.0)
    now = closed_at + 60.0
    assert list(watch.due(now)) == [PREFIX]


def asked_within(watch: Callable[[IdleWatch], None]) -> float:
    """How far back a watch that was told so believes in connections at t = 200."""
    asked: list[float] = []
    made = IdleWatch(60.0, lambda prefix: None, lambda prefix, within: asked.append(within) or 0.0)  # type: ignore[func-returns-value]
    watch(made)
    assert list(made.due(200.0)) == [PREFIX]
    return asked[0]


def test_connections_are_believed_since_the_prefix_came() -> None:
    def come(watch: IdleWatch) -> None:
        watch.expect(PREFIX, 40.0)  # its anchor is asked
        watch.watch(PREFIX, 50.0)  # and has answered

    assert asked_within(come) == 160.0


def test_one_that_left_and_came_again_may_have_been_elsewhere() -> None:
    def twice(watch: IdleWatch) -> None:
        for came in (50.0, 120.0):
            watch.forget(PREFIX)
            watch.expect(PREFIX, came)
            watch.watch(PREFIX, came)

    assert asked_within(twice) == 80.0


def test_one_that_came_again_before_it_was_forgotten_was_nowhere_else() -> None:
    def twice(watch: IdleWatch) -> None:
        watch.expect(PREFIX, 50.0)
        for accepted in (50.0, 120.0):
            watch.watch(PREFIX, accepted)

    assert asked_within(twice) == 150.0


def test_what_another_process_has_seen_is_believed() -> None:
    assert asked_within(lambda watch: watch.take_up({PREFIX: 100.0})) == inf


def test_a_prefix_in_use_is_not_asked_for_its_connections() -> None:
    watch = IdleWatch(60.0, lambda prefix: 10.0, lambda prefix, within: pytest.fail("the table was searched"))
    watch.watch(PREFIX, 0.0)
    assert list(watch.due(60.0)) == []


# --- release ---------------------------------------------------------------------------------------------------


def test_an_unused_prefix_leaves_no_path_at_the_visited_router_and_a_closed_one_at_its_anchor() -> None:
    scene = Scene()
    scene.world.run_until(RELEASED_AT)
    assert scene.world.path("mar2", scene.old) is None
    assert scene.world.path("mar1", scene.old) == Closed()
    assert (scene.progress(), scene.world.state(scene.old)) == ([], State.RELEASED)


def test_a_used_prefix_stays() -> None:
    scene = Scene()
    scene.use(until=100.0)
    scene.world.run_until(100.0)
    assert scene.world.path("mar2", scene.old) == TowardAnchor.through(scene.world.address["mar1"], INTERFACE)


def test_a_silent_prefix_stays_as_long_as_a_connection_is_open() -> None:
    scene = Scene()
    scene.world.open_until[scene.old] = 1000.0
    scene.world.run_until(999.0)
    assert scene.world.path("mar2", scene.old) == TowardAnchor.through(scene.world.address["mar1"], INTERFACE)
    assert scene.world.state(scene.old) is State.REMOTE
    scene.world.run_until(1001.0)
    assert (scene.progress(), scene.world.state(scene.old)) == ([], State.RELEASED)


def test_a_prefix_whose_connection_ends_is_released_so_long_after_its_last_packet() -> None:
    scene = Scene()
    scene.world.open_until[scene.old] = 7440.0
    scene.world.run_until(500.0)
    scene.world.used[scene.old] = 500.0  # FIN and FIN
    del scene.world.open_until[scene.old]
    scene.world.run_until(499.0 + IDLE_AFTER)
    assert scene.world.state(scene.old) is State.REMOTE
    scene.world.run_until(501.0 + IDLE_AFTER)
    assert scene.world.state(scene.old) is State.RELEASED


def test_a_connection_that_may_have_ended_elsewhere_does_not_keep_a_prefix() -> None:
    scene = Scene()
    scene.world.opened[scene.old], scene.world.open_until[scene.old] = 12.0, 7440.0
    scene.world.run_until(15.0)
    scene.world.move("mn1", "mar3")
    scene.world.run(5.0)
    scene.world.move("mn1", "mar2")
    scene.world.run(IDLE_AFTER + 2.0)
    assert scene.world.state(scene.old) is State.RELEASED


def test_a_link_that_fails_for_a_moment_does_not_cut_a_silent_connection() -> None:
    scene = Scene()
    scene.world.opened[scene.old], scene.world.open_until[scene.old] = 12.0, 7440.0
    scene.world.run_until(50.0)
    scene.world.detach("mn1")
    scene.world.run(0.2)
    scene.world.attach("mn1", "mar2")
    scene.world.run(500.0)
    assert scene.world.state(scene.old) is State.REMOTE


def test_the_node_is_told_that_the_prefix_ends() -> None:
    scene = Scene()
    scene.world.run_until(RELEASED_AT)
    host = scene.world.hosts["mn1"]
    assert scene.old not in host.on_link
    assert scene.world.preferred("mn1") == [scene.world.prefix("mn1", "mar2")]


def test_an_anchor_is_told_by_an_update_that_says_the_node_is_still_there() -> None:
    scene = Scene()
    scene.world.run_until(RELEASED_AT)
    (update,) = scene.updates()
    assert handoff(update) == HandoffIndicator.HANDOFF_STATE_NOT_CHANGED


def test_routes_and_tunnel_go_before_the_anchor_is_told() -> None:
    scene = Scene()
    scene.world.run_until(RELEASED_AT)
    (turn,) = [turn for turn in scene.world["mar2"].turns if Unbind(prefix=scene.old, node="mn1") in turn][:1]
    assert isinstance(turn[0], Unbind)


def test_a_release_that_is_lost_is_said_again() -> None:
    scene = Scene()
    scene.world.run_until(RELEASED_AT - 2.0)
    scene.world.lose(2, BindingUpdate)
    scene.world.run_until(RELEASED_AT + 5.0)
    assert (scene.world.state(scene.old), len(scene.updates())) == (State.RELEASED, 3)


def test_a_release_whose_answer_is_lost_is_answered_again() -> None:
    scene = Scene()
    scene.world.run_until(RELEASED_AT - 2.0)
    scene.world.lose(1, BindingAck)
    scene.world.run_until(RELEASED_AT + 5.0)
    assert (scene.progress(), len(scene.updates())) == ([], 2)


def test_an_anchor_that_never_answers_is_left_alone_in_the_end() -> None:
    scene = Scene()
    scene.world.run_until(RELEASED_AT - 2.0)
    scene.world.lose(1000, BindingUpdate)
    scene.world.run_until(RELEASED_AT + 30.0)
    assert (scene.progress(), len(scene.updates())) == ([], 3)


def test_a_released_prefix_does_not_follow_its_node() -> None:
    scene = Scene()
    scene.world.run_until(RELEASED_AT)
    scene.world.move("mn1", "mar3")
    scene.world.run(1.0)
    assert scene.world.path("mar3", scene.old) is None
    assert scene.world["mar1"].mar.counters["anchor.registered"] == 1


def test_a_router_that_did_not_hear_of_the_release_is_refused() -> None:
    scene = Scene()
    scene.world.run_until(RELEASED_AT)
    scene.world.say(scene.world.update("mn1", scene.old), "mar3", "mar1")
    (ack,) = scene.world["mar1"].sent(BindingAck)[-1:]
    assert ack.status == Status.NOT_AUTHORIZED_FOR_HOME_NETWORK_PREFIX
    assert scene.world.state(scene.old) is State.RELEASED


def test_a_refused_router_forgets_the_prefix_when_the_store_tells_it() -> None:
    scene = Scene()
    scene.world.run_until(RELEASED_AT - 2.0)
    scene.world.store_goes()
    scene.world.run_until(RELEASED_AT)
    scene.world.store.away = False  # what was not written yet is not there
    scene.world.move("mn1", "mar3")
    scene.world.run(4.0)
    assert scene.progress("mar3") == [Progress.REFUSED]
    scene.world.store_returns()
    scene.world.run(4.0)
    assert scene.progress("mar3") == []


def test_back_at_its_anchor_a_node_has_its_released_prefix_again() -> None:
    scene = Scene()
    scene.world.run_until(RELEASED_AT)
    scene.world.move("mn1", "mar1")
    scene.world.run(1.0)
    assert scene.world.path("mar1", scene.old) == LocalLink(interface=INTERFACE)
    assert scene.world.preferred("mn1") == [scene.old]


def test_a_released_prefix_is_free_when_hosts_have_forgotten_it() -> None:
    scene = Scene(valid_lifetime=300, preferred_lifetime=100)
    scene.world.run_until(RELEASED_AT)
    scene.world.detach("mn1")
    scene.world.run_until(RELEASED_AT + 290.0)
    assert scene.world.state(scene.old) is State.RELEASED
    scene.world.run_until(RELEASED_AT + 301.0)
    assert scene.world.state(scene.old) is State.FREE


def test_a_prefix_is_not_released_while_its_node_is_at_its_anchor() -> None:
    scene = Scene()
    scene.world.run_until(RELEASED_AT + 1000.0)
    own = scene.world.prefix("mn1", "mar2")
    assert scene.world.state(own) is State.LOCAL


def test_the_only_prefix_a_node_has_is_not_released() -> None:
    world = World(mars=2, idle_after=IDLE_AFTER, max_bindings=1)
    world.attach("mn2", "mar2")
    world.attach("mn1", "mar1")
    world.run(1.0)
    old = world.prefix("mn1", "mar1")
    world.move("mn1", "mar2")
    world.run(200.0)
    assert world.preferred("mn1") == [old]


def test_an_anchor_that_restarts_remembers_what_was_released() -> None:
    scene = Scene()
    scene.world.run_until(RELEASED_AT)
    scene.world.restart("mar1")
    scene.world.move("mn1", "mar3")
    scene.world.run(1.0)
    assert (scene.world.state(scene.old), scene.world.path("mar1", scene.old)) == (State.RELEASED, Closed())


def test_a_node_that_comes_again_in_the_middle_of_a_release_does_not_undo_it() -> None:
    scene = Scene()
    scene.world.run_until(RELEASED_AT - 2.0)
    scene.world.hold_up(0.5, 1, BindingUpdate)
    scene.world.run_until(10.01 + IDLE_AFTER + 0.1)
    scene.world.move("mn1", "mar2")
    scene.world.run(5.0)
    assert (scene.world.state(scene.old), scene.world.path("mar2", scene.old)) == (State.RELEASED, None)
