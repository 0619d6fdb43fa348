"""Sending updates: repeated, refreshed, taken back; and what is made of the answers."""

from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv6Address
from itertools import pairwise
from typing import Any

import pytest

from router.sessions import LEFT_FOR_GOOD
from signaling.actions import BackToAnchor, Bind, Held, Send, TowardAnchor
from signaling.dma.session import State
from signaling.dma.update_list import Progress, Registration
from signaling.events import SessionsFound
from signaling.iana import HandoffIndicator, Status
from signaling.wire.binding_ack import BindingAck
from signaling.wire.binding_update import BindingUpdate
from signaling.wire.neighbor import NeighborSolicitation
from signaling.wire.options.access import HandoffIndicatorOption
from signaling.wire.options.identity import MobileNodeIdentifier, MobileNodeLinkLayerIdentifier
from signaling.wire.options.prefix import HomeNetworkPrefix
from signaling.wire.options.time import Timestamp
from tests.world import INTERFACE, World

FAR = 1000.0  # s


class Scene:
    """mn1 got its prefix at mar1, and comes to mar2 at t = 10."""

    def __init__(self, before: Callable[[World], None] = lambda world: None, **settings: Any) -> None:
        self.world = World(mars=2, **settings)
        self.world.attach("mn1", "mar1")
        self.world.run_until(10.0)
        self.prefix = self.world.prefix("mn1", "mar1")
        before(self.world)
        self.world.move("mn1", "mar2")

    @property
    def visited(self) -> Any:
        return self.world["mar2"]

    @property
    def registration(self) -> Registration:
        (item,) = self.visited.mar.registrar.of("mn1")
        return item

    def sent(self) -> list[BindingUpdate]:
        return self.visited.sent(BindingUpdate)

    def waits(self) -> list[float]:
        """Seconds between one update and the next."""
        return [round(after - before, 6) for before, after in pairwise(self.visited.sent_at(BindingUpdate))]

    def keep_talking(self, until: float) -> None:
        """The host is heard all the time, so nobody has to ask for it."""
        at = self.world.now
        while (at := at + 2.0) < until:
            self.world.later(at, lambda: self.world.show("mn1", "packet"))


def left_for_good(world: World) -> None:
    """The store has heard of it: no news come while the node is at its next router."""
    world.detach("mn1")
    world.run(LEFT_FOR_GOOD)


def unanswered(world: World) -> None:
    world.lose(10_000, BindingUpdate)


def handoff(update: BindingUpdate) -> int:
    option = update.option(HandoffIndicatorOption)
    assert option is not None
    return option.indicator


def answer(scene: Scene, **changes: Any) -> None:
    """The anchor's answer to the last update, with changes."""
    update = scene.sent()[-1]
    copied = (MobileNodeIdentifier, HomeNetworkPrefix, HandoffIndicatorOption, Timestamp)
    ack = BindingAck(
        status=Status.BINDING_UPDATE_ACCEPTED,
        flags=1 << 5,  # type: ignore[arg-type]
        sequence_number=update.sequence_number,
        lifetime=300,
        options=tuple(option for kind in copied if (option := update.option(kind))),
    )
    scene.world.say(replace(ack, **changes), "mar1", "mar2")


# --- the update ------------------------------------------------------------------------------------------------


def test_a_prefix_that_the_store_names_is_registered_at_its_anchor() -> None:
    scene = Scene()
    scene.world.run(0.1)
    assert scene.registration.progress is Progress.VISITED


def test_an_update_names_one_prefix_and_the_interface_of_the_node() -> None:
    scene = Scene()
    scene.world.run(0.1)
    (update,) = scene.sent()
    assert [option.prefix for option in update.options_of(HomeNetworkPrefix)] == [scene.prefix]
    option = update.option(MobileNodeLinkLayerIdentifier)
    assert option is not None
    assert option.identifier == scene.world.hosts["mn1"].link_layer


def test_an_update_for_an_interface_without_an_address_leaves_the_identifier_out() -> None:
    world = World(mars=2)
    world.host("mn1").link_layer = bytes(6)
    world.attach("mn1", "mar1")
    world.run(1.0)
    world.move("mn1", "mar2")
    world.run(1.0)
    (update,) = world["mar2"].sent(BindingUpdate)
    assert update.option(MobileNodeLinkLayerIdentifier) is None


def test_the_same_interface_is_a_handoff_between_routers() -> None:
    scene = Scene()
    scene.world.run(0.1)
    assert handoff(scene.sent()[0]) == HandoffIndicator.HANDOFF_BETWEEN_MAGS_FOR_THE_SAME_INTERFACE


def test_another_interface_is_a_handoff_between_interfaces() -> None:
    def other(world: World) -> None:
        world.detach("mn1")
        world.host("mn1").link_layer = bytes.fromhex("0200000000aa")

    scene = Scene(other)
    scene.world.run(1.0)
    assert handoff(scene.sent()[0]) == HandoffIndicator.HANDOFF_BETWEEN_TWO_DIFFERENT_INTERFACES


def test_the_tunnel_end_is_made_in_the_turn_in_which_the_update_leaves() -> None:
    scene = Scene()
    scene.world.run(0.1)
    (turn,) = (it for it in scene.visited.turns if any(isinstance(action, Send) for action in it))
    assert [type(action) for action in turn if isinstance(action, Bind | Send)] == [Send, Bind]


def test_an_accepted_prefix_is_delivered_here_and_sends_through_the_tunnel() -> None:
    scene = Scene()
    scene.world.run(0.1)
    expected = TowardAnchor.through(scene.world.address["mar1"], INTERFACE)
    assert scene.world.path("mar2", scene.prefix) == expected


def test_an_anchor_that_is_no_peer_is_not_asked() -> None:
    scene = Scene()
    session = scene.world.store.session(scene.prefix)
    assert session is not None
    stranger = replace(session, anchor=IPv6Address("2001:db8:bad::1"))
    turn = scene.world.feed("mar2", SessionsFound(node="mn1", sessions=(stranger,)))
    assert [type(action).__name__ for action in turn] == ["Note"]


def test_a_prefix_its_anchor_has_lent_to_another_node_is_registered_for_that_one() -> None:
    scene = Scene(unanswered)
    scene.world.run(1.0)
    scene.world.attach("mn2", "mar2")
    scene.world.run(1.0)
    session = scene.world.store.session(scene.prefix)
    assert session is not None
    of_mn2 = replace(session, node="mn2", link_layer=scene.world.host("mn2").link_layer)
    scene.world.feed("mar2", SessionsFound(node="mn2", sessions=(of_mn2,)))
    registrar = scene.visited.mar.registrar
    assert [item.prefix for item in registrar.of("mn2")] == [scene.prefix]
    assert registrar.of("mn1") == []


# --- no answer -------------------------------------------------------------------------------------------------


def test_an_unanswered_update_is_repeated_after_1_2_4_to_32_seconds() -> None:
    scene = Scene(unanswered)
    scene.keep_talking(150.0)
    scene.world.run_until(150.0)
    # each when the node has shown itself
    assert scene.waits() == pytest.approx([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 32.0, 32.0], abs=0.01)


def test_every_repetition_has_a_number_of_its_own() -> None:
    scene = Scene(unanswered)
    scene.world.run(60.0)
    numbers = [update.sequence_number for update in scene.sent()]
    assert len(numbers) == len(set(numbers)) > 3


def test_every_repetition_has_a_later_timestamp() -> None:
    scene = Scene(unanswered)
    scene.world.run(60.0)
    stamps = [option.value for update in scene.sent() if (option := update.option(Timestamp))]
    assert all(before < after for before, after in pairwise(stamps))


def test_a_node_that_was_not_heard_lately_is_asked_before_an_update_is_repeated() -> None:
    scene = Scene(unanswered)
    scene.world.run(14.0)
    asked = len(scene.world.hosts["mn1"].asked)
    scene.world.run(5.0)
    assert len(scene.world.hosts["mn1"].asked) > asked
    assert len(scene.sent()) == 5  # at 0, 1, 3, 7, and when it had answered


def test_nothing_is_repeated_for_a_node_that_left() -> None:
    scene = Scene(unanswered)
    scene.world.run(5.0)
    scene.world.detach("mn1")
    scene.world.run(FAR)
    later = [update for update in scene.sent()[3:] if update.lifetime]
    assert later == []


def test_nothing_is_repeated_for_a_node_that_slipped_away() -> None:
    scene = Scene(unanswered)
    scene.world.run(5.0)
    scene.world.detach("mn1", noticed=False)
    scene.world.run(FAR)
    # before the fourth it is asked, and does not answer
    assert [update.lifetime for update in scene.sent()] == [300, 300, 300, 0]


def test_a_claim_says_when_the_node_was_seen() -> None:
    """A timestamp of the moment would beat the router to which it has slipped away meanwhile."""
    scene = Scene(unanswered)
    scene.world.run(0.9)
    scene.world.detach("mn1", noticed=False)
    scene.world.run(2.0)
    assert len(scene.sent()) == 1


def test_a_lost_update_delays_by_a_second() -> None:
    scene = Scene(lambda world: world.lose(1, BindingUpdate))
    scene.world.run(1.1)
    assert scene.registration.progress is Progress.VISITED


def test_a_lost_answer_delays_by_a_second() -> None:
    scene = Scene(lambda world: world.lose(1, BindingAck))
    scene.world.run(1.1)
    assert scene.registration.progress is Progress.VISITED


def test_an_update_that_arrives_twice_is_accepted_once() -> None:
    scene = Scene(lambda world: world.duplicate(1, BindingUpdate, after=0.001))
    scene.world.run(0.1)
    assert [ack.status for ack in scene.world["mar1"].sent(BindingAck)] == [0, Status.TIMESTAMP_MISMATCH]
    assert scene.registration.progress is Progress.VISITED


def test_the_refusal_of_a_second_copy_that_overtakes_the_answer_costs_a_second() -> None:
    def prepare(world: World) -> None:
        world.duplicate(1, BindingUpdate, after=0.001)
        world.hold_up(0.1, 1, BindingAck)

    scene = Scene(prepare)
    scene.world.run(1.2)
    assert scene.registration.progress is Progress.VISITED


def test_an_update_so_late_that_it_is_refused_is_sent_again_soon() -> None:
    scene = Scene(lambda world: world.hold_up(0.5, 1, BindingUpdate))
    scene.world.run(2.0)
    assert scene.registration.progress is Progress.VISITED


def test_an_answer_that_comes_after_the_next_question_does_not_count() -> None:
    scene = Scene(lambda world: world.hold_up(1.5, 1, BindingAck))
    scene.world.run_until(11.005)
    answer(scene, sequence_number=scene.sent()[0].sequence_number)
    assert scene.registration.progress is Progress.PENDING


def test_an_answer_of_another_router_does_not_count() -> None:
    scene = Scene(unanswered)
    scene.world.run(0.1)
    scene.world.address["mar1"], kept = IPv6Address("2001:db8:a9::1"), scene.world.address["mar1"]
    answer(scene)
    scene.world.address["mar1"] = kept
    assert scene.registration.progress is Progress.PENDING


def test_an_answer_about_another_node_does_not_count() -> None:
    scene = Scene(unanswered)
    scene.world.run(0.1)
    answer(scene, options=())
    assert scene.registration.progress is Progress.PENDING


def test_an_unsigned_answer_does_not_count() -> None:
    scene = Scene(unanswered)
    scene.world.run(0.1)
    update = scene.sent()[-1]
    ack = BindingAck(
        status=Status.BINDING_UPDATE_ACCEPTED,
        flags=1 << 5,  # type: ignore[arg-type]
        sequence_number=update.sequence_number,
        lifetime=300,
        options=(update.option(MobileNodeIdentifier),),  # type: ignore[arg-type]
    )
    scene.world.say(ack, "mar1", "mar2", key=b"")
    assert scene.registration.progress is Progress.PENDING


def test_no_more_than_three_updates_a_second_are_sent_for_a_prefix() -> None:
    scene = Scene(unanswered)
    scene.world.run(0.1)
    for _ in range(20):
        scene.world.detach("mn1")
        scene.world.attach("mn1", "mar2")
        scene.world.run(0.01)
    assert len(scene.sent()) == 3


def test_the_rate_limit_ends_after_a_second_although_floats_round() -> None:
    # past a power of two a + 1.0 - 1.0 may be less than a: the limit must not wait for itself for ever
    begin = next(at for step in range(1, 1000) if (at := 4096.0 - step * 0.000123) + 1.0 - 1.0 < at)
    world = World(mars=2, guard=10_000.0)
    world.attach("mn1", "mar1")
    world.run_until(4000.0)
    world.detach("mn1")
    world.run_until(begin)
    world.lose(100, BindingUpdate)
    for _ in range(5):
        world.attach("mn1", "mar2")
        world.feed("mar2", SessionsFound(node="mn1", sessions=world.store.of("mn1")))
        world.detach("mn1")
    world.attach("mn1", "mar2")
    world.run(1.5)
    *first, last = world["mar2"].sent_at(BindingUpdate)
    assert (first, last) == ([begin] * 3, pytest.approx(begin + 1.0, abs=0.01))


# --- refused ---------------------------------------------------------------------------------------------------


def test_a_refused_prefix_is_not_delivered_here() -> None:
    scene = Scene(unanswered)
    scene.world.run(0.1)
    answer(scene, status=Status.NOT_AUTHORIZED_FOR_HOME_NETWORK_PREFIX)
    assert scene.world.path("mar2", scene.prefix) is None


def test_a_refused_prefix_is_asked_for_again_now_and_then() -> None:
    def before(world: World) -> None:
        left_for_good(world)
        world.lose(1, BindingUpdate)

    scene = Scene(before, guard=FAR)
    scene.world.run(0.1)
    answer(scene, status=Status.INSUFFICIENT_RESOURCES)
    scene.world.run(31.0)
    before = len(scene.sent())
    scene.world.run(1.5)
    assert (before, len(scene.sent())) == (1, 2)
    assert scene.registration.progress is Progress.VISITED


def test_an_update_of_a_router_whose_clock_is_wrong_is_refused_and_tried_again_slowly() -> None:
    def before(world: World) -> None:
        left_for_good(world)
        world.skew("mar2", 5.0)

    scene = Scene(before, guard=FAR)
    scene.world.run(30.0)
    assert (scene.registration.progress, len(scene.sent())) == (Progress.REFUSED, 1)


def test_a_router_does_not_take_over_the_clock_of_an_anchor() -> None:
    scene = Scene(lambda world: world.skew("mar2", 5.0))
    scene.world.run(40.0)
    assert scene.visited.mar.clock.wall(0.0) == pytest.approx(scene.world["mar1"].mar.clock.wall(0.0) + 5.0)


def test_an_update_that_lost_against_a_newer_one_is_sent_again_when_the_node_has_proven_to_be_here() -> None:
    scene = Scene(unanswered)
    scene.world.run(0.5)
    answer(scene, status=Status.TIMESTAMP_LOWER_THAN_PREV_ACCEPTED)
    before = len(scene.sent())
    scene.world.run(0.01)
    assert (before, len(scene.sent())) == (1, 2)
    assert any(isinstance(message, NeighborSolicitation) for _, message in scene.world.hosts["mn1"].asked)


def test_an_update_that_lost_against_a_newer_one_is_not_sent_again_for_a_node_that_is_not_here() -> None:
    scene = Scene(unanswered)
    scene.world.run(0.5)
    scene.world.hosts["mn1"].at = None
    answer(scene, status=Status.TIMESTAMP_LOWER_THAN_PREV_ACCEPTED)
    scene.world.run(60.0)
    assert [update.lifetime for update in scene.sent()] == [300, 0]


def test_after_a_lost_order_the_update_is_a_handoff_and_no_refresh() -> None:
    scene = Scene()
    scene.keep_talking(FAR)
    scene.world.run_until(269.0)
    scene.world.lose(1, BindingUpdate)
    scene.world.run_until(270.5)
    answer(scene, status=Status.TIMESTAMP_LOWER_THAN_PREV_ACCEPTED)
    scene.world.run(3.0)
    assert [handoff(update) for update in scene.sent()[1:]] == [
        HandoffIndicator.HANDOFF_STATE_NOT_CHANGED,
        HandoffIndicator.HANDOFF_BETWEEN_MAGS_FOR_THE_SAME_INTERFACE,
    ]


# --- refresh ---------------------------------------------------------------------------------------------------


def test_a_registration_is_refreshed_before_it_expires() -> None:
    scene = Scene()
    scene.keep_talking(FAR)
    scene.world.run_until(FAR)
    assert all(wait == pytest.approx(260.0, abs=0.1) for wait in scene.waits())
    assert len(scene.waits()) == 3


def test_a_refresh_says_that_nothing_has_changed() -> None:
    scene = Scene()
    scene.world.run_until(300.0)
    assert handoff(scene.sent()[-1]) == HandoffIndicator.HANDOFF_STATE_NOT_CHANGED


def test_a_silent_node_is_asked_before_its_registration_is_refreshed() -> None:
    scene = Scene(probe_every=0.0)
    scene.world.run_until(269.9)
    before = len(scene.world.hosts["mn1"].asked)
    scene.world.run_until(272.0)
    assert (before, len(scene.sent())) == (0, 2)
    assert len(scene.world.hosts["mn1"].asked) == 1


def test_a_registration_of_a_node_that_is_gone_is_not_refreshed() -> None:
    scene = Scene(probe_every=0.0)
    scene.world.run_until(200.0)
    scene.world.detach("mn1", noticed=False)
    scene.world.run_until(FAR)
    assert [update.lifetime for update in scene.sent()] == [300, 0]


def test_a_node_whose_address_is_not_known_can_prove_its_presence_too() -> None:
    world = World(mars=2, probe_every=0.0)
    world.attach("mn1", "mar1")
    world.run_until(10.0)
    world.host("mn1").link_local = None  # type: ignore[assignment]
    world.move("mn1", "mar2")
    world.run_until(400.0)
    assert world.state(world.prefix("mn1", "mar1")) is State.REMOTE


def test_a_lost_refresh_is_repeated() -> None:
    scene = Scene()
    scene.keep_talking(FAR)
    scene.world.run_until(200.0)
    scene.world.lose(3, BindingUpdate)
    scene.world.run_until(290.0)
    assert scene.waits()[1:] == [1.0, 2.0, 4.0]
    assert scene.world.state(scene.prefix) is State.REMOTE


def test_a_registration_that_could_not_be_refreshed_is_asked_for_as_new() -> None:
    scene = Scene()
    scene.keep_talking(FAR)
    scene.world.run_until(200.0)
    scene.world.lose(100, BindingUpdate)
    scene.world.run_until(330.0)
    assert scene.registration.progress is Progress.PENDING
    scene.world.mend()
    scene.world.run_until(400.0)
    assert (scene.registration.progress, scene.world.state(scene.prefix)) == (Progress.VISITED, State.REMOTE)


def test_a_short_lifetime_is_refreshed_when_two_thirds_are_over() -> None:
    scene = Scene(binding_lifetime=60)
    scene.keep_talking(100.0)
    scene.world.run_until(100.0)
    assert scene.waits() == pytest.approx([40.0, 40.0], abs=0.1)


# --- leaving ---------------------------------------------------------------------------------------------------


def test_the_anchor_of_a_node_that_left_is_told_at_once_as_packets_wait_there() -> None:
    scene = Scene()
    scene.world.run_until(20.0)
    scene.world.detach("mn1")
    last = scene.sent()[-1]
    assert (len(scene.sent()), last.lifetime) == (2, 0)
    assert handoff(last) == HandoffIndicator.HANDOFF_STATE_UNKNOWN
    scene.world.run(0.011)
    assert scene.world.path("mar1", scene.prefix) == Held()


def test_the_anchors_are_told_before_anything_else_is_done_about_a_node_that_left() -> None:
    scene = Scene()
    scene.world.run_until(20.0)
    scene.world.detach("mn1")
    turn = next(turn for turn in reversed(scene.visited.turns) if turn)
    assert isinstance(turn[0], Send)


def test_what_still_comes_for_a_node_that_left_waits_until_its_anchor_knows_and_goes_back_there() -> None:
    scene = Scene()
    scene.world.run_until(20.0)
    scene.world.detach("mn1")
    assert scene.world.path("mar2", scene.prefix) == Held()
    scene.world.run_until(20.5)
    assert scene.world.path("mar2", scene.prefix) == BackToAnchor.at(scene.world["mar1"].address)
    scene.world.run_until(22.0)
    assert scene.world.path("mar2", scene.prefix) is None


def test_it_goes_back_too_when_the_anchor_knew_before() -> None:
    scene = Scene()
    scene.world.run_until(20.0)
    scene.world.lose(1, BindingUpdate)
    scene.world.move("mn1", "mar1")  # which takes the registration back
    assert scene.world.path("mar2", scene.prefix) == Held()
    scene.world.run(0.1)
    assert scene.world.path("mar2", scene.prefix) == BackToAnchor.at(scene.world["mar1"].address)
    scene.world.run(2.0)
    assert scene.world.path("mar2", scene.prefix) is None


def test_it_goes_nowhere_while_the_anchor_does_not_answer() -> None:
    scene = Scene()
    scene.world.run_until(20.0)
    scene.world.lose(100)
    scene.world.detach("mn1")
    scene.world.run_until(20.9)
    assert scene.world.path("mar2", scene.prefix) == Held()
    scene.world.run_until(22.0)
    assert scene.world.path("mar2", scene.prefix) is None


def test_a_carrier_that_comes_and_goes_costs_three_updates_a_second_at_most() -> None:
    scene = Scene()
    scene.world.run_until(20.0)
    before = len(scene.sent())
    for _ in range(20):
        scene.world.detach("mn1")
        scene.world.run(0.02)
        scene.world.attach("mn1", "mar2")
        scene.world.run(0.02)
    assert len(scene.sent()) - before == 3
    scene.world.run(5.0)
    assert scene.registration.progress is Progress.VISITED
    assert list(scene.world.faults()) == []


def test_a_node_that_goes_for_good_after_many_times_is_deregistered_when_updates_may_be_sent_again() -> None:
    scene = Scene()
    scene.world.run_until(20.0)
    for _ in range(5):
        scene.world.detach("mn1")
        scene.world.attach("mn1", "mar2")
    scene.world.detach("mn1")
    scene.world.run(0.5)
    assert scene.registration.progress is Progress.LEAVING
    scene.world.run(0.6)
    assert (scene.registration.progress, scene.sent()[-1].lifetime) == (Progress.DEREGISTERING, 0)


def test_after_the_answer_to_a_deregistration_nothing_is_left() -> None:
    scene = Scene()
    scene.world.run_until(20.0)
    scene.world.detach("mn1")
    scene.world.run_until(21.1)
    assert scene.visited.mar.registrar.all() == []
    assert scene.world.path("mar2", scene.prefix) is None


def test_a_deregistration_that_is_not_answered_ends_after_a_second() -> None:
    scene = Scene()
    scene.world.run_until(20.0)
    scene.world.detach("mn1")
    scene.world.lose(100)
    scene.world.run_until(22.1)
    assert (scene.visited.mar.registrar.all(), len(scene.sent())) == ([], 2)


def test_a_node_that_is_back_in_a_moment_is_registered_again_without_asking_the_store() -> None:
    scene = Scene()
    scene.world.run_until(20.0)
    scene.world.detach("mn1")
    scene.world.run_until(20.9)
    scene.world.store_goes()
    scene.world.attach("mn1", "mar2")
    scene.world.run_until(30.0)
    assert [update.lifetime for update in scene.sent()] == [300, 0, 300]
    assert scene.registration.progress is Progress.VISITED


def test_a_node_that_is_back_while_it_is_being_deregistered_is_registered_again() -> None:
    scene = Scene()
    scene.world.run_until(20.0)
    scene.world.detach("mn1")
    scene.world.run_until(20.005)
    scene.world.attach("mn1", "mar2")
    scene.world.run_until(25.0)
    assert list(scene.world.faults()) == []
    assert scene.registration.progress is Progress.VISITED


def test_a_node_that_comes_to_another_interface_is_delivered_there_although_its_anchor_has_not_answered() -> None:
    scene = Scene(unanswered)
    scene.world.run(0.5)
    scene.world.store_goes()
    scene.world.carrier("mar2", "lan1")
    scene.world.attach("mn1", "mar2", interface="lan1")
    expected = TowardAnchor.through(scene.world.address["mar1"], "lan1")
    assert scene.world.path("mar2", scene.prefix) == expected
