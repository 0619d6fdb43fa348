"""A node goes from router to router: what is tunnelled where, what it is told, what happens when things go wrong."""

from dataclasses import replace
from ipaddress import IPv6Network

import pytest

from router.sessions import LEFT_FOR_GOOD
from signaling.actions import (
    Action,
    Bind,
    FindSessions,
    Held,
    LocalLink,
    SaveSession,
    Send,
    SendOnLink,
    TowardAnchor,
    TowardVisited,
)
from signaling.dma.session import State
from signaling.events import LinkAttached, LinkDetached, SessionsFound
from signaling.wire.binding_ack import BindingAck
from signaling.wire.binding_refresh import BindingRefreshRequest
from signaling.wire.binding_update import BindingUpdate
from signaling.wire.message import Message
from signaling.wire.neighbor import PrefixInformation, RouterAdvertisement
from signaling.wire.options.prefix import HomeNetworkPrefix
from signaling.wire.revocation import BindingRevocationAck, BindingRevocationIndication
from tests.world import INTERFACE, World


@pytest.fixture
def world() -> World:
    return World(mars=3)


def journey(*mars: str, world: World | None = None) -> World:
    """mn1 spends ten seconds at each of these routers."""
    world = world or World(mars=3)
    for mar in mars:
        world.move("mn1", mar)
        world.run(10.0)
    return world


def local() -> LocalLink:
    return LocalLink(interface=INTERFACE)


def prefixes_of(message: Message) -> list[IPv6Network]:
    return [option.prefix for option in message.options_of(HomeNetworkPrefix)]


# --- attaching -------------------------------------------------------------------------------------------------


def test_a_node_that_attaches_gets_a_prefix_in_the_same_turn(world: World) -> None:
    world.attach("mn1", "mar1")
    prefix = world.prefix("mn1", "mar1")
    assert (world.path("mar1", prefix), world.preferred("mn1")) == (local(), [prefix])


def test_a_prefix_is_bound_before_it_is_announced(world: World) -> None:
    world.attach("mn1", "mar1")
    turn = world["mar1"].turns[-1]
    bound, told = (next(at for at, it in enumerate(turn) if isinstance(it, kind)) for kind in (Bind, SendOnLink))
    assert bound < told


def test_a_lent_prefix_is_written_to_the_store(world: World) -> None:
    world.attach("mn1", "mar1")
    session = world.store.session(world.prefix("mn1", "mar1"))
    assert session is not None
    assert (session.anchor, session.care_of, session.state) == (*[world.address["mar1"]] * 2, State.LOCAL)


def test_a_new_node_costs_no_message_to_other_routers(world: World) -> None:
    world.attach("mn1", "mar1")
    world.run(100.0)
    assert world.wire == []


def test_two_nodes_get_two_prefixes(world: World) -> None:
    world.attach("mn1", "mar1")
    world.attach("mn2", "mar1")
    assert world.prefix("mn1", "mar1") != world.prefix("mn2", "mar1")


def test_a_node_that_shows_itself_again_changes_nothing(world: World) -> None:
    world.attach("mn1", "mar1")
    world.run(1.0)
    before = dict(world["mar1"].paths)
    world.show("mn1", "packet")
    assert (world["mar1"].turns[-1], world["mar1"].paths) == ([], before)


# --- MAR1 -> MAR2 ----------------------------------------------------------------------------------------------


def test_after_a_move_the_old_prefix_comes_through_a_tunnel() -> None:
    world = journey("mar1", "mar2")
    prefix = world.prefix("mn1", "mar1")
    assert world.path("mar1", prefix) == TowardVisited.at(world.address["mar2"])
    assert world.path("mar2", prefix) == TowardAnchor.through(world.address["mar1"], INTERFACE)


def test_after_a_move_the_new_prefix_needs_no_tunnel() -> None:
    world = journey("mar1", "mar2")
    assert world.path("mar2", world.prefix("mn1", "mar2")) == local()


def test_after_a_move_new_connections_choose_the_new_prefix_and_old_ones_go_on() -> None:
    world = journey("mar1", "mar2")
    assert world.preferred("mn1") == [world.prefix("mn1", "mar2")]
    assert world.deprecated("mn1") == [world.prefix("mn1", "mar1")]


def test_the_new_prefix_does_not_wait_for_a_slow_anchor(world: World) -> None:
    journey("mar1", world=world)
    world.hold_up(5.0)
    world.move("mn1", "mar2")
    assert world.prefix("mn1", "mar2") in world.preferred("mn1")


def test_the_old_anchor_holds_the_prefix_until_the_new_router_registers(world: World) -> None:
    journey("mar1", world=world)
    world.move("mn1", "mar2")
    assert world.path("mar1", world.prefix("mn1", "mar1")) == Held()


def test_the_old_anchor_delivers_until_the_new_router_registers_if_the_node_slipped_away(world: World) -> None:
    journey("mar1", world=world)
    world.move("mn1", "mar2", noticed=False)
    before = world.path("mar1", world.prefix("mn1", "mar1"))
    world.run(0.1)
    assert before == local()
    assert list(world.faults()) == []


def test_an_old_router_that_has_not_noticed_does_not_take_the_new_prefix_away(world: World) -> None:
    # the store tells it of the new prefix before the new router's update arrives
    journey("mar1", world=world)
    world.hold_up(0.2, 1, BindingUpdate, source="mar2")
    world.move("mn1", "mar2", noticed=False)
    world.run(5.0)
    assert world["mar1"].sent(BindingUpdate) == []
    assert [*world.faults(), *world.astray()] == []


# --- MAR1 -> MAR2 -> MAR3 --------------------------------------------------------------------------------------


def test_after_two_moves_both_old_prefixes_go_straight_to_where_the_node_is() -> None:
    world = journey("mar1", "mar2", "mar3")
    for mar in ("mar1", "mar2"):
        prefix = world.prefix("mn1", mar)
        assert world.path(mar, prefix) == TowardVisited.at(world.address["mar3"])
        assert world.path("mar3", prefix) == TowardAnchor.through(world.address[mar], INTERFACE)


def test_anchors_are_asked_before_anything_is_bound() -> None:
    world = journey("mar1", "mar2")
    known = tuple(world.store.session(world.prefix("mn1", mar)) for mar in ("mar1", "mar2"))
    world.detach("mn1")
    mine = world.host("mn1").link_layer
    event = LinkAttached(node="mn1", interface=INTERFACE, link_layer=mine, link_local=None, trigger="mld")
    actions = world.feed("mar3", replace(event, sessions=known))
    order = [type(action) for action in actions if isinstance(action, Bind | Send)]
    assert order == [Send, Send, Bind, Bind, Bind]


def test_no_tunnel_is_chained_through_a_router_that_was_left() -> None:
    world = journey("mar1", "mar2", "mar3")
    assert world.path("mar2", world.prefix("mn1", "mar1")) is None


def test_after_two_moves_only_the_newest_prefix_is_preferred() -> None:
    world = journey("mar1", "mar2", "mar3")
    assert world.preferred("mn1") == [world.prefix("mn1", "mar3")]
    assert set(world.deprecated("mn1")) == {world.prefix("mn1", "mar1"), world.prefix("mn1", "mar2")}


def test_every_prefix_is_registered_by_itself() -> None:
    world = journey("mar1", "mar2", "mar3")
    updates = [(it.destination, prefixes_of(it.message)) for it in world.sent(BindingUpdate, source="mar3")]
    assert updates == [
        ("mar1", [world.prefix("mn1", "mar1")]),
        ("mar2", [world.prefix("mn1", "mar2")]),
    ]


def test_the_router_that_was_left_is_told_by_the_anchor() -> None:
    world = journey("mar1", "mar2")
    world.move("mn1", "mar3", noticed=False)
    world.run(0.1)
    (told,) = world.sent(BindingRevocationIndication)
    assert (told.source, told.destination) == ("mar1", "mar2")


def test_a_router_that_has_said_itself_that_the_node_left_is_not_told() -> None:
    world = journey("mar1", "mar2", "mar3")
    assert world.sent(BindingRevocationIndication) == []


# --- back to MAR1 ----------------------------------------------------------------------------------------------


def test_back_at_its_anchor_a_prefix_needs_no_tunnel() -> None:
    world = journey("mar1", "mar2", "mar3", "mar1")
    prefix = world.prefix("mn1", "mar1")
    assert (world.path("mar1", prefix), world.path("mar3", prefix)) == (local(), None)


def test_back_at_its_anchor_a_prefix_is_local_in_the_turn_the_node_attaches() -> None:
    world = journey("mar1", "mar2")
    world.move("mn1", "mar1")
    assert world.path("mar1", world.prefix("mn1", "mar1")) == local()


def test_the_router_that_was_left_is_told_that_the_node_is_back() -> None:
    world = journey("mar1", "mar2", "mar3", "mar1")
    told = [it for it in world.sent(BindingRevocationIndication, source="mar1") if it.at >= 30.0]
    assert [(it.destination, prefixes_of(it.message)) for it in told] == [("mar3", [world.prefix("mn1", "mar1")])]


def test_back_at_its_anchor_a_prefix_is_preferred_again_and_the_others_are_not() -> None:
    world = journey("mar1", "mar2", "mar3", "mar1")
    assert world.preferred("mn1") == [world.prefix("mn1", "mar1")]
    assert set(world.deprecated("mn1")) == {world.prefix("mn1", "mar2"), world.prefix("mn1", "mar3")}


def test_back_at_its_anchor_a_node_gets_no_second_prefix() -> None:
    world = journey("mar1", "mar2", "mar1")
    assert len(world["mar1"].mar.anchor.cache.of("mn1")) == 1


def test_the_other_prefixes_come_to_the_router_the_node_is_back_at() -> None:
    world = journey("mar1", "mar2", "mar3", "mar1")
    for mar in ("mar2", "mar3"):
        assert world.path(mar, world.prefix("mn1", mar)) == TowardVisited.at(world.address["mar1"])


def test_a_late_update_does_not_take_the_prefix_from_a_node_that_is_back(world: World) -> None:
    journey("mar1", world=world)
    world.hold_up(0.1, 1, BindingUpdate, source="mar2")
    world.move("mn1", "mar2")
    world.run(0.05)
    world.move("mn1", "mar1")
    world.run(30.0)
    assert [*world.faults(), *world.astray()] == []


@pytest.mark.parametrize("pause", [0.0, 0.003, 0.012, 0.5, 1.5, 11.0])
def test_a_node_that_goes_back_and_forth_is_found_where_it_stops(pause: float) -> None:
    world = journey("mar1")
    for _ in range(5):
        for mar in ("mar2", "mar1", "mar3"):
            world.move("mn1", mar)
            world.run(pause)
    world.run(40.0)
    assert [*world.faults(), *world.astray()] == []


@pytest.mark.parametrize("pause", [0.012, 0.5, 1.5, 11.0])
def test_a_node_that_slips_from_router_to_router_is_found_where_it_stops(pause: float) -> None:
    world = journey("mar1")
    for mar in ("mar2", "mar3", "mar1", "mar2"):
        world.move("mn1", mar, noticed=False)
        world.run(pause)
    world.run(60.0)
    assert [*world.faults(), *world.astray()] == []


# --- leaving ---------------------------------------------------------------------------------------------------


def test_a_node_that_leaves_and_is_back_in_time_notices_nothing() -> None:
    world = journey("mar1", "mar2")
    world.detach("mn1")
    world.run(0.5)
    world.attach("mn1", "mar2")
    world.run(10.0)
    assert [*world.faults(), *world.astray()] == []


def test_a_node_that_is_gone_for_good_leaves_nothing_behind() -> None:
    world = journey("mar1", "mar2", "mar3")
    world.detach("mn1")
    world.run(10_000.0)
    assert [router.paths for router in world.routers.values()] == [{}, {}, {}]
    assert world.store.of("mn1") == ()


def test_a_node_that_is_gone_for_good_leaves_no_work_behind() -> None:
    world = journey("mar1", "mar2", "mar3")
    world.detach("mn1")
    world.run(10_000.0)
    assert [router.mar.next_wake for router in world.routers.values()] == [None, None, None]


def test_a_router_that_died_is_no_place_to_deliver_to_for_ever() -> None:
    world = journey("mar1", "mar2")
    world.lose(10_000)
    world.host("mn1").at = None
    world["mar2"].mar = World(mars=2)["mar2"].mar  # it forgot everything
    world.run(400.0)
    assert world.path("mar1", world.prefix("mn1", "mar1")) == Held()


# --- loss ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [BindingUpdate, BindingAck, BindingRevocationIndication, BindingRevocationAck])
@pytest.mark.parametrize("times", [1, 2])
def test_a_lost_message_is_made_good(kind: type, times: int) -> None:
    world = journey("mar1", "mar2")
    world.lose(times, kind)
    world.move("mn1", "mar3", noticed=False)
    world.run(40.0)
    assert [*world.faults(), *world.astray()] == []


@pytest.mark.parametrize("kind", [BindingUpdate, BindingAck, BindingRevocationIndication, BindingRevocationAck])
@pytest.mark.parametrize("after", [0.0, 0.001, 0.1, 2.0])
def test_a_doubled_message_does_no_harm(kind: type, after: float) -> None:
    world = journey("mar1", "mar2")
    world.duplicate(2, kind, after=after)
    world.move("mn1", "mar3")
    world.run(40.0)
    assert [*world.faults(), *world.astray()] == []


def test_messages_that_overtake_each_other_do_no_harm() -> None:
    world = journey("mar1")
    world.jitter = 0.2
    for mar in ("mar2", "mar3", "mar1", "mar3"):
        world.move("mn1", mar)
        world.run(0.1)
    world.mend()
    world.run(40.0)
    assert [*world.faults(), *world.astray()] == []


# --- the store -------------------------------------------------------------------------------------------------


def test_without_the_store_a_node_gets_a_local_prefix_at_once() -> None:
    world = journey("mar1")
    world.store_goes()
    world.move("mn1", "mar2")
    assert world.prefix("mn1", "mar2") in world.preferred("mn1")


def test_the_old_prefixes_follow_when_the_store_is_back() -> None:
    world = journey("mar1")
    world.store_goes()
    world.move("mn1", "mar2")
    world.run(9.0)
    world.store_returns()
    world.run(5.0)
    assert world.path("mar2", world.prefix("mn1", "mar1")) == TowardAnchor.through(world.address["mar1"], INTERFACE)


def test_the_store_is_asked_again_every_two_seconds_while_it_is_away() -> None:
    world = journey("mar1")
    world.store_goes()
    world.move("mn1", "mar2")
    world.run(7.0)
    asked = [at - 10.0 for at, it in world["mar2"].done if isinstance(it, FindSessions)]
    assert asked == pytest.approx([0.0, 2.0, 4.0, 6.0], abs=0.01)


def test_the_store_is_not_asked_any_more_for_a_node_that_left() -> None:
    world = journey("mar1")
    world.store_goes()
    world.move("mn1", "mar2")
    world.run(3.0)
    world.detach("mn1")
    world.run(10.0)
    assert len(world["mar2"].did(FindSessions)) == 2


def test_an_answer_of_the_store_for_a_node_that_left_does_nothing(world: World) -> None:
    journey("mar1", world=world)
    sessions = world.store.of("mn1")
    assert world.feed("mar2", SessionsFound(node="mn1", sessions=sessions)) == []


def test_a_slow_store_does_not_bring_back_a_node_that_went_on(world: World) -> None:
    journey("mar1", world=world)
    world.store.answers_after = 2.0
    world.move("mn1", "mar2", noticed=False)
    world.run(1.0)
    world.move("mn1", "mar3", noticed=False)
    world.run(60.0)
    assert [*world.faults(), *world.astray()] == []


def test_a_session_that_is_over_is_not_registered(world: World) -> None:
    world.attach("mn1", "mar2")
    journey("mar1", world=world)
    world.attach("mn2", "mar2")
    world.run(1.0)
    (session, *_) = world.store.of("mn1")
    over = replace(session, node="mn2", state=State.FREE)
    assert world.feed("mar2", SessionsFound(node="mn2", sessions=(over,))) == []


# --- restart ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mar", ["mar1", "mar2", "mar3"])
def test_after_a_restart_everything_is_as_before(mar: str) -> None:
    world = journey("mar1", "mar2", "mar3")
    world.restart(mar)
    world.run(10.0)
    assert [*world.faults(), *world.astray()] == []


def test_a_node_that_moved_while_its_router_was_down_keeps_its_prefix() -> None:
    world = journey("mar1")
    world.move("mn1", "mar2", noticed=False)
    world.restart("mar1")
    world.run(10.0)
    assert [*world.faults(), *world.astray()] == []


# --- clocks ----------------------------------------------------------------------------------------------------


def test_a_wrong_clock_costs_the_old_prefixes_but_not_the_new_one() -> None:
    world = journey("mar1")
    world.skew("mar2", 10.0)
    world.move("mn1", "mar2")
    world.run(30.0)
    assert world.path("mar2", world.prefix("mn1", "mar1")) is None
    assert world.prefix("mn1", "mar2") in world.preferred("mn1")


def test_when_the_clock_is_right_again_the_old_prefixes_follow() -> None:
    world = journey("mar1")
    world.skew("mar2", 10.0)
    world.move("mn1", "mar2")
    world.run(5.0)
    world.skew("mar2", 0.0)
    world.run(40.0)
    assert [*world.faults(), *world.astray()] == []


def test_a_clock_that_was_set_back_a_little_does_no_harm() -> None:
    world = journey("mar1", "mar2")
    world.skew("mar2", -0.2)
    world.run(300.0)
    assert [*world.faults(), *world.astray()] == []


# --- going -----------------------------------------------------------------------------------------------------


def test_a_router_that_goes_takes_its_registrations_back() -> None:
    world = journey("mar1", "mar2")
    world.drain("mar2")
    world.run(0.1)
    assert world.state(world.prefix("mn1", "mar1")) is State.GUARD


def test_a_router_that_goes_deprecates_all_prefixes_and_itself() -> None:
    world = journey("mar1", "mar2")
    world.drain("mar2")
    advertisement = world.hosts["mn1"].advertisements[-1][1]
    lifetimes = [option.preferred_lifetime for option in advertisement.options_of(PrefixInformation)]
    assert (advertisement.router_lifetime, lifetimes) == (0, [0, 0])


def test_a_router_that_goes_tells_the_node_before_it_lets_it_go() -> None:
    world = journey("mar1", "mar2")
    turn = world.drain("mar2")
    told = next(at for at, it in enumerate(turn) if _is_advertisement(it))
    taken_back = next(at for at, it in enumerate(turn) if isinstance(it, Send))
    assert told < taken_back


def _is_advertisement(action: Action) -> bool:
    return isinstance(action, SendOnLink) and isinstance(action.message, RouterAdvertisement)


def test_a_node_that_its_former_router_misses_after_its_next_one_saw_it_is_served_at_once() -> None:
    """Loss of a carrier may be told late, and what the former router says of it may come first."""
    world = journey("mar1", "mar2")
    prefix = world.prefix("mn1", "mar1")
    world.hold_up(0.05, kind=BindingUpdate, source="mar3")
    world.move("mn1", "mar3", noticed=False)
    world.run(0.02)
    world.feed("mar2", LinkDetached(node="mn1", reason="link lost"))
    world.run(0.1)
    assert world.path("mar1", prefix) == TowardVisited.at(world.address["mar3"])
    assert [update.lifetime for update in world["mar3"].sent(BindingUpdate) if prefix in prefixes_of(update)] == [300]


def test_a_router_that_went_has_nothing_of_others_any_more() -> None:
    world = journey("mar1", "mar2")
    world.drain("mar2")
    assert world["mar2"].mar.registrar.all() == []
    assert world.path("mar2", world.prefix("mn1", "mar1")) is None


def test_the_prefixes_of_a_router_that_went_are_in_the_store_for_its_next_run() -> None:
    world = journey("mar1")
    world.drain("mar1")
    world.run(LEFT_FOR_GOOD)
    session = world.store.session(world.prefix("mn1", "mar1"))
    assert session is not None
    assert session.state is State.GUARD


# --- bounds and odds -------------------------------------------------------------------------------------------


def test_a_node_without_a_prefix_here_is_still_served_with_its_old_ones() -> None:
    world = World(mars=2, max_bindings=1)
    world.attach("mn2", "mar2")
    journey("mar1", "mar2", world=world)
    assert world.delivered_at(world.prefix("mn1", "mar1")) == ["mar2"]


def test_a_message_that_means_nothing_to_a_router_is_counted_and_ignored(world: World) -> None:
    assert world.say(BindingRefreshRequest(), "mar2", "mar1") == []
    assert world["mar1"].mar.counters["ignored.BindingRefreshRequest"] == 1


def test_a_node_that_comes_to_another_interface_of_its_router_keeps_all_prefixes() -> None:
    world = journey("mar1", "mar2")
    world.carrier("mar2", "lan1")
    world.attach("mn1", "mar2", interface="lan1")
    world.run(5.0)
    assert world.path("mar2", world.prefix("mn1", "mar2")) == LocalLink(interface="lan1")
    expected = TowardAnchor.through(world.address["mar1"], "lan1")
    assert world.path("mar2", world.prefix("mn1", "mar1")) == expected


def test_a_session_is_saved_before_a_peer_is_told(world: World) -> None:
    journey("mar1", "mar2", world=world)
    for router in world.routers.values():
        for turn in router.turns:
            if any(isinstance(it, Send) and isinstance(it.message, BindingAck) for it in turn):
                kinds = [type(it) for it in turn if isinstance(it, SaveSession | Send)]
                assert kinds[0] is SaveSession


def test_what_time_brings_is_done_in_one_wake() -> None:
    world = journey("mar1", "mar2")
    world.run(1000.0)
    assert all(router.woken < 200 for router in world.routers.values())
