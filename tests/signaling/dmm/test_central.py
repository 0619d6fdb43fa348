"""What a CMD makes of registrations: RFC 8885 3.1 to 3.6 and 6, rule by rule, and what it leaves open."""

from ipaddress import IPv6Network
from typing import Any

import pytest

from signaling.actions import Action, SaveSession, Send
from signaling.dma.session import State
from signaling.events import SessionsFound, SessionsRestored
from signaling.iana import BindingAckFlag, BindingUpdateFlag, HandoffIndicator, Status
from signaling.settings import CmdMode
from signaling.wire.binding_ack import BindingAck
from signaling.wire.binding_update import BindingUpdate
from signaling.wire.options.access import HandoffIndicatorOption
from signaling.wire.options.maar import DlifLinkLocalAddress
from signaling.wire.options.prefix import AnchoredPrefix, HomeNetworkPrefix
from signaling.wire.options.time import Timestamp
from tests.signaling.dmm.cmd_world import CMD, DISTRIBUTED, CmdWorld, journey, previous_in, serving_in

P1, P2, P3 = (IPv6Network(f"2001:db8:{number}00::/64") for number in (1, 2, 3))
MODES = pytest.mark.parametrize("mode", CmdMode, ids=lambda mode: mode.value)


def say(world: CmdWorld, source: str, *prefixes: IPv6Network, **changes: Any) -> list[Action]:
    """A router tells the CMD that mn1 is there; where it was it is no more."""
    world.detach("mn1", noticed=False)
    return world.say(world.update("mn1", *prefixes, **{"flags": DISTRIBUTED} | changes), source, CMD)


def acks(actions: list[Action]) -> list[BindingAck]:
    return [it.message for it in actions if isinstance(it, Send) and isinstance(it.message, BindingAck)]


def copies(actions: list[Action]) -> list[BindingUpdate]:
    return [it.message for it in actions if isinstance(it, Send) and isinstance(it.message, BindingUpdate)]


def status(actions: list[Action]) -> int:
    (ack,) = acks(actions)
    return ack.status


# --- 3.1: the first registration ------------------------------------------------------------------------------


@MODES
def test_a_first_registration_is_the_same_in_all_modes(mode: CmdMode) -> None:
    world = journey("mar1", mode=mode)
    assert (world.binding().serving, list(world.binding().anchorages)) == (world.address["mar1"], [P1])
    assert [(ack.status, previous_in(ack)) for ack in world.acks_to("mar1")[:1]] == [(0, [])]
    assert world.updates_to("mar1") == []


def test_an_entry_is_found_by_its_node_alone() -> None:
    world = journey("mar1", "mar2")
    assert (len(world.cmd.database.bindings), list(world.binding().anchorages)) == (1, [P1, P2])


def test_a_binding_is_written_before_it_is_acknowledged() -> None:
    world = journey("mar1")
    turn = next(turn for turn in world[CMD].turns if acks(turn))
    kinds = [type(action) for action in turn if isinstance(action, SaveSession | Send)]
    assert kinds == [SaveSession, Send]


@MODES
def test_the_d_flag_is_in_every_message(mode: CmdMode) -> None:
    world = journey("mar1", "mar2", "mar1", mode=mode)
    told = (it.message for it in world.wire if isinstance(it.message, BindingUpdate | BindingAck))
    for message in told:
        flag: Any = BindingUpdateFlag if isinstance(message, BindingUpdate) else BindingAckFlag
        assert flag.DISTRIBUTED_MOBILITY in message.flags


def test_an_update_without_d_is_refused_as_there_is_no_anchor_here() -> None:
    plain = BindingUpdateFlag.ACKNOWLEDGE | BindingUpdateFlag.PROXY_REGISTRATION
    assert status(say(CmdWorld(), "mar1", P1, flags=plain)) == Status.NOT_LMA_FOR_THIS_MOBILE_NODE


# --- 3.2: relay -----------------------------------------------------------------------------------------------


def test_a_relay_answers_when_the_anchor_has_and_names_it() -> None:
    world = journey("mar1", mode=CmdMode.RELAY)
    sent = len(world.acks_to("mar2"))
    world.hold_up(0.3, kind=BindingAck, source="mar1")
    world.move("mn1", "mar2")
    world.run(0.25)
    assert len(world.acks_to("mar2")) == sent
    world.run(0.2)
    assert previous_in(world.acks_to("mar2")[-1]) == [(world.address["mar1"], P1)]


def test_a_copy_says_where_the_node_is_and_which_prefix_is_meant() -> None:
    world = journey("mar1", "mar2", mode=CmdMode.RELAY)
    copy = world.updates_to("mar1")[0]
    assert serving_in(copy) == world.address["mar2"]
    assert [option.prefix for option in copy.options_of(HomeNetworkPrefix)] == [P1]


def test_an_anchor_gives_the_serving_maar_back_in_its_answer() -> None:
    world = journey("mar1", "mar2", mode=CmdMode.RELAY)
    assert serving_in(world.acks_to(CMD, source="mar1")[0]) == world.address["mar2"]


def test_the_serving_router_is_the_care_of_address_before_its_anchors_have_answered() -> None:
    world = journey("mar1", mode=CmdMode.RELAY)
    world.hold_up(0.3, kind=BindingAck, source="mar1")
    world.move("mn1", "mar2")
    world.run(0.1)
    assert (world.binding().serving, len(world.binding().untold())) == (world.address["mar2"], 1)


def test_answers_of_several_anchors_are_aggregated() -> None:
    world = journey("mar1", "mar2", "mar3", mode=CmdMode.RELAY)
    first = world.acks_to("mar3")[0]
    assert previous_in(first) == [(world.address["mar1"], P1), (world.address["mar2"], P2)]


def test_a_slow_anchor_delays_the_others_no_longer_than_the_time_out_and_follows_in_a_further_answer() -> None:
    world = journey("mar1", "mar2", mode=CmdMode.RELAY)
    world.hold_up(0.8, kind=BindingAck, source="mar1")
    world.move("mn1", "mar3")
    world.run(0.52)
    assert [previous_in(ack) for ack in world.acks_to("mar3")] == [[(world.address["mar2"], P2)]]
    world.run(0.5)
    assert previous_in(world.acks_to("mar3")[1]) == [(world.address["mar1"], P1)]
    assert len({ack.sequence_number for ack in world.acks_to("mar3")[:2]}) == 1
    world.run(1.0)
    assert set(world.deprecated("mn1")) == {P1, P2}


# --- 3.3: locator ---------------------------------------------------------------------------------------------


def test_a_locator_leaves_the_answer_to_the_anchors() -> None:
    world = journey("mar1", "mar2", mode=CmdMode.LOCATOR)
    assert world.acks_to("mar2") == []
    assert len(world.acks_to("mar2", source="mar1")) > 0
    assert list(world.faults()) == []


def test_a_locator_passes_the_number_of_the_serving_router_on() -> None:
    world = journey("mar1", "mar2", mode=CmdMode.LOCATOR)
    asked, told = world.updates_to(CMD, source="mar2")[0], world.updates_to("mar1")[0]
    assert asked.sequence_number == told.sequence_number == world.acks_to("mar2", source="mar1")[0].sequence_number


def test_a_locator_answers_itself_when_all_anchors_are_silent() -> None:
    world = journey("mar1", mode=CmdMode.LOCATOR)
    world.cut("mar1")
    world.move("mn1", "mar2", noticed=False)
    world.run(1.0)
    assert [previous_in(ack) for ack in world.acks_to("mar2")] == [[]]


def test_what_a_locator_made_an_anchor_say_and_got_lost_is_asked_for_again() -> None:
    world = journey("mar1", "mar2", mode=CmdMode.LOCATOR)
    world.move("mn1", "mar3")
    world.run(0.015)
    world.lose(2, BindingAck, source="mar1")  # to the CMD, and to mar3
    world.run(5.0)
    assert set(world.deprecated("mn1")) == {P1, P2}


# --- 3.4: proxy -----------------------------------------------------------------------------------------------


def test_a_proxy_answers_at_once_and_tells_the_anchors_in_the_same_turn() -> None:
    world = journey("mar1")
    actions = say(world, "mar2", P2)
    (ack,), (copy,) = acks(actions), copies(actions)
    assert (previous_in(ack), serving_in(copy)) == ([(world.address["mar1"], P1)], world.address["mar2"])
    assert [it.message for it in actions if isinstance(it, Send)] == [ack, copy]


def test_a_proxy_tells_the_interface_of_an_anchor_in_a_further_answer_once_it_knows_it() -> None:
    world = journey("mar1", "mar2")
    first, further = world.acks_to("mar2")[:2]
    assert (first.option(DlifLinkLocalAddress), previous_in(further)) == (None, [(world.address["mar1"], P1)])
    assert further.option(DlifLinkLocalAddress) is not None


# --- 3.2, 3.6, 6: timers, pace, bounds ------------------------------------------------------------------------


@MODES
def test_a_copy_is_repeated_with_the_timers_of_rfc_6275_until_it_is_confirmed(mode: CmdMode) -> None:
    world = journey("mar1", mode=mode)
    world.lose(8 if mode is CmdMode.LOCATOR else 4, BindingAck, source="mar1")  # there one goes to mar2 too
    begin = world.now
    say(world, "mar2", P2)
    world.run(40.0)
    at = [
        round(it.at - begin, 2)
        for it in world.wire
        if it.destination == "mar1" and it.at >= begin and isinstance(it.message, BindingUpdate)
    ]
    assert at == [0.0, 1.0, 3.0, 7.0, 15.0]


def test_an_anchor_never_gets_more_than_three_copies_a_second_for_one_prefix() -> None:
    world = journey("mar1", mode=CmdMode.LOCATOR)
    for number in range(10):
        say(world, "mar2", P2, sequence_number=100 + number)
        world.run(0.02)
    world.run(10.0)
    at = [it.at for it in world.wire if it.destination == "mar1" and isinstance(it.message, BindingUpdate)]
    assert all(later - earlier >= 1.0 for earlier, later in zip(at, at[3:], strict=False))


def test_the_anchors_of_one_node_are_bounded_and_the_oldest_ends_first() -> None:
    world = journey("mar1", "mar2", "mar3", "mar4", world=CmdWorld(mars=4, about_cmd={"most_anchors": 2}))
    world.run(1.0)
    assert (P1 in world.binding().anchorages, len(world.binding().previous())) == (False, 2)
    assert world.state(P1) in (State.GUARD, State.HOLD)


def test_a_copy_carries_the_time_of_the_update_and_a_repeated_one_its_own() -> None:
    world = journey("mar1")
    world.lose(1, BindingUpdate, source=CMD)
    stamp = world.stamp()
    say(world, "mar2", P2, timestamp=Timestamp(value=stamp))
    world.run(2.0)
    first, second = (copy.option(Timestamp) for copy in world.updates_to("mar1"))
    assert first is not None
    assert second is not None
    assert (first.value, second.value > stamp + 65536 // 2) == (stamp, True)


# --- order, return, refusals ----------------------------------------------------------------------------------


def test_an_update_older_than_the_last_one_is_157_and_where_the_node_is_stays() -> None:
    world = journey("mar1")
    late = Timestamp(value=world.stamp(ago=0.1))
    say(world, "mar2", P2)
    assert status(say(world, "mar3", P3, timestamp=late)) == Status.TIMESTAMP_LOWER_THAN_PREV_ACCEPTED
    assert world.binding().serving == world.address["mar2"]


def test_an_update_that_comes_too_late_still_tells_what_is_anchored_there() -> None:
    world = journey("mar1")
    late = Timestamp(value=world.stamp(ago=0.1))
    say(world, "mar2", P2)
    say(world, "mar3", P3, timestamp=late)
    assert world.binding().anchorages[P3].anchor == world.address["mar3"]


def test_a_refresh_of_a_router_that_has_lost_the_node_does_not_take_it_back() -> None:
    world = journey("mar1", "mar2")
    unchanged = HandoffIndicatorOption(indicator=HandoffIndicator.HANDOFF_STATE_NOT_CHANGED)
    assert status(say(world, "mar1", P1, handoff=unchanged)) == Status.TIMESTAMP_LOWER_THAN_PREV_ACCEPTED


@MODES
def test_on_return_the_old_prefix_is_registered_and_leaves_the_list(mode: CmdMode) -> None:
    world = journey("mar1", "mar2", "mar1", mode=mode)
    assert [item.prefix for item in world.binding().own()] == [P1]
    assert [item.prefix for item in world.binding().previous()] == [P2]
    assert (world.preferred("mn1"), world.deprecated("mn1")) == ([P1], [P2])
    assert list(world.faults()) == []


def test_no_copy_goes_to_the_serving_router_itself() -> None:
    world = journey("mar1", "mar2", "mar1")
    assert {serving_in(copy) for copy in world.updates_to("mar1")} == {world.address["mar2"]}


def test_a_prefix_that_another_router_anchors_is_155() -> None:
    world = journey("mar1")
    assert status(say(world, "mar2", P1)) == Status.NOT_AUTHORIZED_FOR_HOME_NETWORK_PREFIX


def test_a_prefix_its_anchor_lends_to_another_node_is_that_nodes() -> None:
    world = journey("mar1")
    world.say(world.update("mn2", P1, flags=DISTRIBUTED), "mar1", CMD)
    assert (list(world.binding("mn1").anchorages), list(world.binding("mn2").anchorages)) == ([], [P1])


@pytest.mark.parametrize(
    ("missing", "wanted"),
    [
        ("identifier", Status.MISSING_MN_IDENTIFIER_OPTION),
        ("prefix", Status.MISSING_HOME_NETWORK_PREFIX_OPTION),
        ("handoff", Status.MISSING_HANDOFF_INDICATOR_OPTION),
        ("technology", Status.MISSING_ACCESS_TECH_TYPE_OPTION),
    ],
)
def test_an_update_without_what_rfc_5213_wants_gets_its_status(missing: str, wanted: Status) -> None:
    assert status(say(CmdWorld(), "mar1", P1, **{missing: None})) == wanted


def test_a_cmd_lends_nothing_so_an_update_that_asks_for_a_prefix_is_155() -> None:
    asking = HomeNetworkPrefix(prefix=IPv6Network("::/0"))
    assert status(say(CmdWorld(), "mar1", prefix=asking)) == Status.NOT_AUTHORIZED_FOR_HOME_NETWORK_PREFIX


def test_a_full_cache_is_130() -> None:
    world = CmdWorld(about_cmd={"max_bindings": 0})
    assert status(say(world, "mar1", P1)) == Status.INSUFFICIENT_RESOURCES


def test_a_router_without_the_key_is_refused_and_changes_nothing() -> None:
    world = CmdWorld()
    actions = world.say(world.update("mn1", P1, flags=DISTRIBUTED), "mar1", CMD, key=b"another key of 16")
    assert (status(actions), len(world.cmd.database.bindings)) == (Status.MIPV6_AUTH_FAIL, 0)


def test_a_stranger_gets_no_answer() -> None:
    world = CmdWorld()
    assert acks(world.say(world.update("mn1", P1, flags=DISTRIBUTED), "elsewhere", CMD)) == []


def test_a_prefix_that_its_anchor_does_not_know_any_more_leaves_the_list() -> None:
    world = journey("mar1", mode=CmdMode.RELAY)
    world.stores["mar1"].sessions.clear()
    world.restart("mar1")
    world.move("mn1", "mar2", noticed=False)
    world.run(1.0)
    assert list(world.binding().anchorages) == [P2]
    assert (world.acks_to("mar2")[-1].status, previous_in(world.acks_to("mar2")[-1])) == (0, [])


# --- 3.5: the end ---------------------------------------------------------------------------------------------


def test_a_previous_router_that_deregisters_hears_that_the_session_goes_on() -> None:
    world = journey("mar1", "mar2")
    (ack,) = acks(say(world, "mar1", P1, lifetime=0))
    assert (ack.status, ack.lifetime > 0, P1 in world.binding().anchorages) == (0, True, True)


def test_only_the_serving_router_ends_the_session_and_the_anchors_hear_of_it() -> None:
    world = journey("mar1", "mar2")
    (ack,) = acks(say(world, "mar2", P2, lifetime=0))
    assert (ack.lifetime, len(world.cmd.database.bindings)) == (0, 0)
    world.run(1.0)
    assert world.state(P1) is State.GUARD
    assert world.store.of("mn1") == ()


def test_a_registration_that_is_not_refreshed_ends() -> None:
    world = journey("mar1", world=CmdWorld(binding_lifetime=60))
    world.cut("mar1")
    world.run(61.0)
    assert (len(world.cmd.database.bindings), world.store.of("mn1")) == (0, ())


# --- what is durable ------------------------------------------------------------------------------------------


@MODES
def test_after_a_restart_it_knows_what_it_had_acknowledged(mode: CmdMode) -> None:
    world = journey("mar1", "mar2", mode=mode)
    before = {item.prefix: (item.anchor, item.told) for item in world.binding().anchorages.values()}
    world.restart(CMD)
    assert {item.prefix: (item.anchor, item.told) for item in world.binding().anchorages.values()} == before
    assert world.binding().serving == world.address["mar2"]


def test_after_a_restart_anchors_that_had_not_confirmed_are_told_again() -> None:
    world = journey("mar1")
    world.lose(1, BindingUpdate, source=CMD)
    world.move("mn1", "mar2", noticed=False)
    world.run(0.5)
    world.restart(CMD)
    world.run(0.5)
    assert list(world.faults()) == []


def test_a_refresh_is_not_written() -> None:
    world = journey("mar1", "mar2")
    before = len(world[CMD].did(SaveSession))
    world.run(900.0)
    assert (world.cmd.counters["cmd.refreshed"] >= 3, len(world[CMD].did(SaveSession))) == (True, before)


def test_what_another_cmd_has_written_is_taken_over() -> None:
    world, other = journey("mar1", "mar2"), CmdWorld()
    other.feed(CMD, SessionsFound(node="mn1", sessions=world.store.of("mn1")))
    assert (other.binding().serving, list(other.binding().anchorages)) == (world.address["mar2"], [P1, P2])


def test_what_another_cmd_knows_of_older_anchors_joins_the_list_and_they_are_told() -> None:
    world, other = journey("mar1"), CmdWorld()
    say(other, "mar2", P2)  # this CMD had not heard of mar1
    actions = other.feed(CMD, SessionsFound(node="mn1", sessions=world.store.of("mn1")))
    assert [serving_in(copy) for copy in copies(actions)] == [world.address["mar2"]]
    assert list(other.binding().anchorages) == [P2, P1]


def test_a_record_that_is_being_removed_brings_no_session_back() -> None:
    world = journey("mar1", "mar2")
    still_there = world.store.of("mn1")
    say(world, "mar2", P2, lifetime=0)
    world.feed(CMD, SessionsFound(node="mn1", sessions=still_there))
    assert len(world.cmd.database.bindings) == 0


# --- a router reports what it anchors (option 65) -------------------------------------------------------------


def report(world: CmdWorld, source: str, prefix: IPv6Network) -> list[Action]:
    return say(world, source, anchored=AnchoredPrefix(prefix=prefix), prefix=None)


def test_a_reported_prefix_joins_the_list_and_says_nothing_of_where_the_node_is() -> None:
    world = journey("mar1")
    actions = report(world, "mar3", P3)
    assert (status(actions), world.binding().serving) == (0, world.address["mar1"])
    assert [serving_in(copy) for copy in copies(actions)] == [world.address["mar1"]]


def test_a_node_that_is_nowhere_yet_finds_its_reported_prefixes_when_it_comes() -> None:
    world = CmdWorld()
    assert copies(report(world, "mar3", P3)) == []
    (ack,) = acks(say(world, "mar2", P2))
    assert previous_in(ack) == [(world.address["mar3"], P3)]


def test_a_report_ends_with_its_deregistration() -> None:
    world = CmdWorld()
    report(world, "mar3", P3)
    (ack,) = acks(say(world, "mar3", P3, lifetime=0))
    assert (ack.lifetime, len(world.cmd.database.bindings)) == (0, 0)


def test_a_record_is_taken_up_as_it_was_written() -> None:
    world = journey("mar1", "mar2")
    again = CmdWorld()
    again.feed(CMD, SessionsRestored(sessions=world.store.of("mn1")))
    assert [item.told for item in again.binding().anchorages.values()] == [world.address["mar2"]] * 2
    assert again.drain(CMD) == []
