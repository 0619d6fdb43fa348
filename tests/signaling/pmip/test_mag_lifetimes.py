"""Repetition, refresh, leaving: what time does to the registrations of a gateway (RFC 5213 6.9.1.3, 6.9.1.4, 6.9.4)."""

from itertools import pairwise

from signaling.actions import BackToAnchor, Bind, Held, Send, SendOnLink, TowardAnchor, Unbind
from signaling.events import LinkLost, LinkUp
from signaling.iana import HandoffIndicator
from signaling.pmip.binding_update_list import Stage
from signaling.wire.neighbor import RouterAdvertisement
from signaling.wire.options.time import Timestamp
from tests.signaling.pmip.pmip_world import INTERFACE, ROUTER_LINK_LAYER, World, attached


def unanswered(**settings: object) -> World:
    world = World(**settings)  # type: ignore[arg-type]
    world.lma.silent = True
    world.attach("mn1")
    return world


def waits(world: World) -> list[float]:
    return [round(after.at - before.at, 3) for before, after in pairwise(world.lma.updates)]


# --- no answer -------------------------------------------------------------------------------------------------------


def test_an_unanswered_update_is_repeated_after_1_2_4_to_32_seconds() -> None:
    world = unanswered()
    world.keep_talking("mn1", 150.0)
    assert waits(world) == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 32.0, 32.0]


def test_every_repetition_has_a_later_timestamp_and_a_number_of_its_own() -> None:
    world = unanswered()
    world.keep_talking("mn1", 60.0)
    stamps = [option.value for it in world.lma.updates if (option := it.update.option(Timestamp))]
    assert all(before < after for before, after in pairwise(stamps))
    assert len({it.update.sequence_number for it in world.lma.updates}) == len(stamps)


def test_no_registration_is_repeated_for_a_node_that_left() -> None:
    world = unanswered()
    world.run(0.5)
    world.detach("mn1")
    world.run(300.0)
    assert [it.update.lifetime for it in world.lma.updates] == [300, 0, 0]


def test_nothing_is_repeated_for_a_node_that_slipped_away() -> None:
    world = unanswered()
    world.detach("mn1", noticed=False)
    world.run(300.0)
    assert world.lma.updates[-1].update.lifetime == 0
    assert len(world.lma.updates) < 7


def test_no_more_than_three_updates_a_second_for_a_registration() -> None:
    world = unanswered()
    for _ in range(20):
        world.detach("mn1")
        world.attach("mn1")
    world.run(0.5)
    assert len(world.lma.updates) == 3


def test_a_lost_update_delays_by_a_second() -> None:
    world = World()
    world.cut = {world.address["mag1"]}
    world.attach("mn1")
    world.run(0.5)
    world.cut = set()
    world.run(0.6)
    assert world.stages("mn1") == {0: Stage.REGISTERED}


# --- refresh ---------------------------------------------------------------------------------------------------------


def test_a_refresh_comes_40_seconds_before_the_end() -> None:
    world = attached()
    world.keep_talking("mn1", 300.0)
    assert [round(it.at) for it in world.lma.updates] == [0, 260]


def test_a_short_lifetime_is_refreshed_after_two_thirds() -> None:
    world = World()
    world.lma.lifetime = 60
    world.attach("mn1")
    world.keep_talking("mn1", 45.0)
    assert [round(it.at) for it in world.lma.updates] == [0, 40]


def test_a_refresh_names_the_prefix_that_was_assigned() -> None:
    world = attached()
    world.keep_talking("mn1", 300.0)
    assert world.lma.updates[-1].prefixes == [world.prefix("mn1")]


def test_a_silent_node_is_asked_before_the_refresh() -> None:
    world = attached()
    world.run(265.0)
    assert [round(it.at) for it in world.lma.updates] == [0, 261]


def test_a_node_that_cannot_be_told_to_be_there_is_not_extended_but_taken_back() -> None:
    world = attached()
    world.hosts["mn1"].silent = True
    world.run(300.0)
    assert [it.update.lifetime for it in world.lma.updates] == [300, 0]


def test_a_registration_that_nobody_extends_ends_here_too() -> None:
    world = attached()
    prefix = world.prefix("mn1")
    world.lma.silent = True
    world.keep_talking("mn1", 305.0)
    assert prefix not in world.mag.paths
    assert world.hosts["mn1"].offered() == {prefix: 0}
    world.lma.silent = False
    world.keep_talking("mn1", 40.0)
    assert world.hosts["mn1"].offered() == {prefix: 7200}


# --- leaving ---------------------------------------------------------------------------------------------------------


def test_a_node_that_left_is_taken_back_with_lifetime_0_and_handoff_4() -> None:
    world = attached()
    prefix = world.prefix("mn1")
    world.detach("mn1")
    world.run(2.0)
    last = world.lma.updates[-1]
    assert (last.update.lifetime, last.handoff, last.prefixes) == (0, HandoffIndicator.HANDOFF_STATE_UNKNOWN, [prefix])


def test_the_anchor_is_told_at_once_that_a_node_left() -> None:
    world = attached()
    world.detach("mn1")
    world.run(0.1)
    assert [it.update.lifetime for it in world.lma.updates] == [300, 0]


def test_a_deregistration_is_said_once() -> None:
    world = attached()
    world.detach("mn1")
    world.run(60.0)
    assert [it.update.lifetime for it in world.lma.updates] == [300, 0]


def test_a_deregistration_without_an_answer_is_said_once_more() -> None:
    world = attached()
    world.lma.silent = True
    world.detach("mn1")
    world.run(60.0)
    assert [it.update.lifetime for it in world.lma.updates] == [300, 0, 0]


def test_what_still_comes_is_held_until_the_answer_and_given_back_then() -> None:
    world = attached()
    prefix = world.prefix("mn1")
    tunnels = world.mag.paths[prefix].tunnels
    world.detach("mn1")
    assert world.mag.paths == {prefix: Held()}
    world.run(0.5)
    assert world.mag.paths == {prefix: BackToAnchor(tunnels=tunnels)}
    world.run(0.6)
    assert world.mag.paths == {}


def test_without_an_answer_it_is_dropped_after_one_timeout() -> None:
    world = attached()
    world.lma.silent = True
    world.detach("mn1")
    world.run(1.5)
    assert world.mag.paths != {}
    world.run(1.0)
    assert world.mag.paths == {}
    assert len(world.mag.mag.gateway.entries) == 0


def test_a_node_that_returns_at_once_gets_its_prefix_back() -> None:
    world = attached()
    prefix = world.prefix("mn1")
    world.detach("mn1")
    world.run(0.5)
    world.attach("mn1")
    world.run(0.1)
    assert isinstance(world.mag.paths[prefix], TowardAnchor)
    assert not world.mag.did(Unbind)


def test_the_answer_to_a_deregistration_refuses_nothing_to_a_node_that_came_back_before_it() -> None:
    world = attached()
    prefix = world.prefix("mn1")
    world.delay = 0.1
    for _ in range(2):  # so often that the next update has to wait
        world.detach("mn1")
        world.run(0.01)
        world.attach("mn1")
        world.run(0.01)
    assert [it.update.lifetime for it in world.lma.updates] == [300]
    world.run(0.5)
    assert [it.update.lifetime for it in world.lma.updates] == [300, 0, 300, 0]
    world.run(1.0)
    assert world.lma.updates[-1].update.lifetime == 300
    assert isinstance(world.mag.paths[prefix], TowardAnchor)


def test_a_gateway_that_loses_a_node_says_no_farewell_to_it() -> None:
    world = attached()
    before = len(world.hosts["mn1"].advertisements)
    world.detach("mn1")
    world.host("mn1").at = "mag1"
    world.run(5.0)
    assert len(world.hosts["mn1"].advertisements) == before


def test_a_node_that_is_not_served_yet_hears_nothing_when_its_carrier_is_told() -> None:
    world = World()
    world.lma.silent = True
    world.feed(LinkLost(interface=INTERFACE))
    world.attach("mn1")
    world.feed(LinkUp(interface=INTERFACE, link_layer=ROUTER_LINK_LAYER, mtu=1500))
    world.run(5.0)
    assert world.hosts["mn1"].advertisements == []


def test_a_node_heard_before_the_gateway_is_told_of_its_carrier_gets_its_advertisement_then() -> None:
    world = World()
    world.feed(LinkLost(interface=INTERFACE))
    world.attach("mn1")
    world.run(5.0)
    assert world.hosts["mn1"].advertisements == []
    world.feed(LinkUp(interface=INTERFACE, link_layer=ROUTER_LINK_LAYER, mtu=1500))
    world.run(0.0)
    assert len(world.hosts["mn1"].advertisements) == 1


def test_a_lost_link_takes_all_its_nodes_along() -> None:
    world = attached()
    world.attach("mn2")
    world.run(1.0)
    world.feed(LinkLost(interface=INTERFACE))
    world.run(3.0)
    assert len(world.mag.mag.gateway.entries) == 0


def test_drain_takes_back_everything_at_once() -> None:
    world = attached()
    world.attach("mn2")
    world.run(1.0)
    todo = world.perform("mag1", world.mag.mag.drain(world.now))
    ended = [action.message.lifetime for action in todo if isinstance(action, Send)]  # type: ignore[attr-defined]
    farewells = [action.message for action in todo if isinstance(action, SendOnLink)]
    assert (ended, world.mag.paths) == ([0, 0], {})
    assert [it.router_lifetime for it in farewells if isinstance(it, RouterAdvertisement)] == [0, 0]


def test_a_node_goes_from_gateway_to_gateway_with_its_prefix() -> None:
    world = World(mags=2)
    world.attach("mn1")
    world.run(1.0)
    prefix = world.prefix("mn1")
    world.detach("mn1", noticed=False)
    world.attach("mn1", "mag2")
    world.run(1.0)
    assert prefix in world.gateways["mag2"].paths
    assert world.hosts["mn1"].offered() == {prefix: 7200}


def test_no_more_sessions_than_configured() -> None:
    world = World(max_bindings=1)
    world.attach("mn1")
    world.attach("mn2")
    world.run(1.0)
    assert len(world.mag.mag.gateway.entries) == 1
    assert len(world.mag.did(Bind)) == 1
