"""Prefixes and flows of nodes with several interfaces, where routers are lost or restarted, and what nobody uses."""

import pytest

from signaling.actions import TowardVisited
from signaling.dma.session import State
from signaling.iana import HandoffIndicator
from signaling.settings import NodeProfile
from tests.signaling.test_mar_flows import CALLS, POLICIES, Scene, option_of
from tests.signaling.test_mar_interfaces import LINK_LAYERS, at_two_routers, local
from tests.world import World

IDLE_AFTER = 30.0  # s


@pytest.fixture
def scene() -> Scene:
    return Scene()


def lose(scene: Scene) -> None:
    """mar2 does not answer mar1 any more."""
    scene.world.perform("mar1", scene.anchor.anchor.visited_routers.lost(scene.world.address["mar2"]))


def share_what_mar2_has(scene: Scene) -> None:
    """The prefix is at mar2, and mar3 takes flows of it."""
    scene.hand()
    scene.world.run(1.0)
    scene.say("mar3")
    assert [it.remote for it in scene.path().tunnels] == [scene.world.address["mar2"], scene.world.address["mar3"]]


def test_flows_that_a_lost_router_took_go_where_the_prefix_is(scene: Scene) -> None:
    scene.hand("calls")
    assert scene.path() == scene.split(("mar2", CALLS))
    lose(scene)
    assert (scene.state, scene.path()) == (State.LOCAL, local(scene.world, "mn1"))
    assert scene.world["mar1"].policies == {}


def test_what_a_lost_router_had_is_inherited_by_the_one_that_took_flows_of_it(scene: Scene) -> None:
    share_what_mar2_has(scene)
    lose(scene)
    assert (scene.state, scene.path()) == (State.REMOTE, TowardVisited.at(scene.world.address["mar3"]))


def test_flows_of_a_router_that_is_back_come_to_it_again(scene: Scene) -> None:
    scene.hand("calls")
    lose(scene)
    scene.world.run(400.0)
    assert scene.path() == scene.split(("mar2", CALLS))


def test_routers_that_share_a_prefix_are_all_asked_whether_they_live(scene: Scene) -> None:
    share_what_mar2_has(scene)
    beats = scene.anchor.peers.heartbeats
    assert [beats.exchange(mar) is not None for mar in ("mar2", "mar3")] == [True, True]


@pytest.mark.parametrize("policy", ["", "calls"])
def test_an_anchor_of_what_was_taken_by_order_is_asked_whether_it_lives(policy: str, scene: Scene) -> None:
    beats = scene.visited.peers.heartbeats
    assert beats.exchange("mar1") is None
    scene.take(policy)
    assert beats.exchange("mar1") is not None
    scene.order("mar2", "give_back", scene.prefix)
    scene.world.run(5.0)
    assert beats.exchange("mar1") is None


def test_flows_of_a_router_that_was_restarted_and_forgot_them_end(scene: Scene) -> None:
    scene.hand("calls")
    scene.world.run(10.0)
    scene.world.restart("mar2")
    scene.world.run(1.0)
    assert (scene.state, scene.path()) == (State.LOCAL, local(scene.world, "mn1"))


@pytest.mark.parametrize("policy", ["", "calls"])
def test_what_was_moved_by_order_is_not_released_although_nobody_uses_it(policy: str) -> None:
    told = NodeProfile(node="mn1", link_layers=LINK_LAYERS)
    world = World(mars=3, profiles=(told,), policies=POLICIES, idle_after=IDLE_AFTER)
    scene = Scene(at_two_routers(world=world))
    scene.hand(policy)
    scene.world.run(10 * IDLE_AFTER)
    assert scene.world.delivered_at(scene.prefix) == (["mar1"] if policy else ["mar2"])
    assert scene.visited.registrar.holds(scene.prefix)


def test_a_prefix_that_was_released_is_not_claimed_for_another_interface() -> None:
    told = NodeProfile(node="mn1", link_layers=LINK_LAYERS)
    world = World(mars=3, profiles=(told,), idle_after=IDLE_AFTER)
    world.attach("mn1", "mar1")
    world.run(10.0)
    prefix = world.prefix("mn1", "mar1")
    world.move("mn1", "mar2")
    world.run(IDLE_AFTER + 5.0)
    assert world.state(prefix) is State.RELEASED
    world.attach("mn1/2", "mar3")
    world.detach("mn1")
    world.run(60.0)
    assert world.state(prefix) is State.RELEASED
    assert world["mar3"].mar.registrar.get(prefix) is None


def test_flows_that_nobody_may_take_of_a_released_prefix_are_refused() -> None:
    world = World(mars=3, idle_after=IDLE_AFTER)
    world.attach("mn1", "mar1")
    world.run(10.0)
    prefix = world.prefix("mn1", "mar1")
    world.move("mn1", "mar2")
    world.run(IDLE_AFTER + 5.0)
    six = option_of(HandoffIndicator.ATTACHMENT_OVER_A_NEW_INTERFACE_SHARING_PREFIXES)
    world.say(world.update("mn1", prefix, handoff=six), "mar3", "mar1")
    assert world.state(prefix) is State.RELEASED
