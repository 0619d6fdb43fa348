"""What the anchor tells unasked: notifications (RFC 7077), moved prefixes (RFC 7864), heartbeats (RFC 5847)."""

from dataclasses import replace
from ipaddress import IPv6Address, IPv6Network

import pytest

from signaling.actions import Action, Send
from signaling.iana import (
    BindingErrorStatus,
    HandoffIndicator,
    HeartbeatFlag,
    UpdateNotificationFlag,
    UpdateNotificationReason,
    UpdateNotificationStatus,
)
from signaling.update_request import identifier_of
from signaling.wire.binding_error import BindingError
from signaling.wire.binding_update import BindingUpdate
from signaling.wire.heartbeat import Heartbeat
from signaling.wire.notification import UpdateNotification, UpdateNotificationAck
from signaling.wire.options.option import Option
from signaling.wire.options.prefix import HomeNetworkPrefix
from signaling.wire.options.security import RestartCounter
from signaling.wire.options.vendor import VendorSpecific
from tests.signaling.pmip.pmip_world import LMA, LTE, WLAN, World, attached, octets_of

REASONS = UpdateNotificationReason
STATUSES = UpdateNotificationStatus
MN1 = identifier_of("mn1")
MOVED = HomeNetworkPrefix(prefix=IPv6Network("2001:db8:66::/64"))
ROUTED = HomeNetworkPrefix(prefix=IPv6Network("2001:db8:67::/64"), off_link=True)


def notify(world: World, reason: int, *options: Option, acknowledge: bool = True) -> list[Action]:
    flags = UpdateNotificationFlag.ACKNOWLEDGE if acknowledge else UpdateNotificationFlag(0)
    return world.say(UpdateNotification(sequence_number=5, reason=reason, flags=flags, options=options))


def status(todo: list[Action]) -> int:
    acks = [it.message for it in todo if isinstance(it, Send) and isinstance(it.message, UpdateNotificationAck)]
    (ack,) = acks
    return ack.status


# --- notifications ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reason", [REASONS.FORCE_REREGISTRATION, REASONS.UPDATE_SESSION_PARAMETERS])
def test_a_node_that_shall_register_again_does(reason: int) -> None:
    world = attached("mn1", "mn2")
    assert status(notify(world, reason, MN1)) == STATUSES.SUCCESS
    world.run(0.5)
    assert [it.handoff for it in world.lma.updates[2:]] == [HandoffIndicator.HANDOFF_STATE_NOT_CHANGED]


def test_it_registers_again_on_every_path_by_itself() -> None:
    world = attached(uplinks=(WLAN, LTE))
    notify(world, REASONS.FORCE_REREGISTRATION, MN1)
    world.run(0.5)
    assert [it.binding_id for it in world.lma.updates[2:]] == [1, 2]


@pytest.mark.parametrize("reason", [REASONS.FORCE_REREGISTRATION, REASONS.ANI_PARAMS_REQUESTED, 99])
def test_what_cannot_be_done_is_128(reason: int) -> None:
    world = attached()
    node = "mn9" if reason == REASONS.FORCE_REREGISTRATION else "mn1"
    assert status(notify(world, reason, identifier_of(node))) == STATUSES.FAILED_TO_UPDATE_SESSION_PARAMETERS


def test_a_vendors_reason_without_the_option_is_129() -> None:
    world = attached()
    assert status(notify(world, REASONS.VENDOR_SPECIFIC_REASON, MN1)) == STATUSES.MISSING_VENDOR_SPECIFIC_OPTION


def test_a_vendors_reason_that_we_do_not_know_is_131() -> None:
    world = attached()
    option = VendorSpecific(vendor=1, subtype=1, data=b"")
    assert status(notify(world, REASONS.VENDOR_SPECIFIC_REASON, MN1, option)) == STATUSES.REASON_UNSPECIFIED


def test_a_notification_that_wants_no_answer_gets_none() -> None:
    world = attached()
    todo = notify(world, REASONS.FORCE_REREGISTRATION, MN1, acknowledge=False)
    assert [type(it.message) for it in todo if isinstance(it, Send)] == [BindingUpdate]


def test_a_notification_that_is_replayed_is_ignored() -> None:
    world = attached()
    notify(world, REASONS.VENDOR_SPECIFIC_REASON, MN1)
    assert notify(world, REASONS.FORCE_REREGISTRATION, MN1) == []


# --- moved prefixes --------------------------------------------------------------------------------------------------


def test_prefixes_that_are_moved_here_are_routed_and_advertised() -> None:
    world = attached()
    assert status(notify(world, REASONS.FLOW_MOBILITY, MN1, MOVED)) == STATUSES.SUCCESS
    assert MOVED.prefix in world.mag.paths
    world.run(0.1)
    assert MOVED.prefix in world.hosts["mn1"].offered()


def test_a_moved_prefix_with_the_flag_is_routed_only() -> None:
    world = attached()
    notify(world, REASONS.FLOW_MOBILITY, MN1, ROUTED)
    assert ROUTED.prefix in world.mag.paths
    assert ROUTED.prefix not in world.hosts["mn1"].offered()


def test_a_moved_prefix_that_is_left_out_is_removed() -> None:
    world = attached()
    notify(world, REASONS.FLOW_MOBILITY, MN1, MOVED)
    world.run(1.0)
    notify(world, REASONS.FLOW_MOBILITY, MN1, ROUTED)
    assert MOVED.prefix not in world.mag.paths
    world.run(0.01)
    assert world.hosts["mn1"].offered()[MOVED.prefix] == 0


def test_a_moved_prefix_is_not_named_in_the_refresh() -> None:
    world = attached()
    notify(world, REASONS.FLOW_MOBILITY, MN1, MOVED)
    world.keep_talking("mn1", 300.0)
    assert world.lma.updates[-1].prefixes == [world.prefix("mn1")]


def test_flows_of_a_node_that_is_not_here_are_132() -> None:
    world = attached()
    todo = notify(world, REASONS.FLOW_MOBILITY, identifier_of("mn9"), MOVED)
    assert status(todo) == STATUSES.MOBILE_NODE_NOT_ATTACHED


# --- heartbeats ------------------------------------------------------------------------------------------------------


def beats(world: World) -> list[Heartbeat]:
    return [message for _, message in world.lma.got if isinstance(message, Heartbeat)]


def answer(world: World, restarts: int) -> None:
    counter = RestartCounter(counter=restarts)
    number = beats(world)[-1].sequence_number
    world.say(Heartbeat(flags=HeartbeatFlag.RESPONSE, sequence_number=number, options=(counter,)))


def test_the_anchor_is_asked_whether_it_lives_while_there_is_a_session() -> None:
    world = World(heartbeat_interval=60.0)
    world.run(100.0)
    assert beats(world) == []
    world.attach("mn1")
    world.keep_talking("mn1", 100.0)
    assert len(beats(world)) == 2
    world.detach("mn1")
    world.run(200.0)
    assert len(beats(world)) == 2


def test_a_question_of_the_anchor_is_answered_even_without_a_session() -> None:
    world = World(restart_counter=3)
    (send,) = (it for it in world.say(Heartbeat(sequence_number=9)) if isinstance(it, Send))
    assert send.message.option(RestartCounter) == RestartCounter(counter=3)


def test_all_sessions_are_registered_again_after_the_anchor_was_restarted() -> None:
    world = attached("mn1", "mn2", "mn3")
    answer(world, 1)
    world.run(1.0)
    world.say(
        Heartbeat(
            flags=HeartbeatFlag.RESPONSE | HeartbeatFlag.UNSOLICITED,
            sequence_number=0,
            options=(RestartCounter(counter=2),),
        )
    )
    world.run(1.0)
    again = world.lma.updates[3:]
    assert len(again) == 3
    assert all(it.prefixes != [IPv6Network("::/0")] for it in again)
    assert world.mag.notes("peer-restarted")


def test_they_are_registered_again_at_a_bounded_pace() -> None:
    names = [f"mn{number}" for number in range(50)]
    world = attached(*names)
    world.mag.mag.gateway.anchor_restarted(world.now)
    world.run(1.0)
    again = [it.at for it in world.lma.updates[50:]]
    assert len(again) >= 49
    assert again[-1] - again[0] > 0.2


def test_an_anchor_that_knows_no_heartbeats_is_asked_no_more() -> None:
    world = World(heartbeat_interval=60.0)
    world.attach("mn1")
    world.run(1.0)
    world.say(BindingError(status=BindingErrorStatus.UNRECOGNIZED_MH_TYPE, home_address=IPv6Address(0)))
    world.keep_talking("mn1", 200.0)
    assert len(beats(world)) == 1


# --- what is no message ----------------------------------------------------------------------------------------------


def test_broken_octets_change_nothing_and_are_counted() -> None:
    world = attached()
    world.deliver(bytes(8), LMA, world.address["mag1"])
    assert any(name.startswith("malformed.") for name in world.mag.mag.counters)
    assert len(world.mag.paths) == 1


def test_an_update_is_not_for_a_gateway() -> None:
    world = attached()
    update = world.lma.updates[0].update
    world.say(replace(update, options=update.options[:-2]))
    assert world.mag.mag.counters["ignored.BindingUpdate"] == 1


def test_a_message_that_is_not_signed_is_refused() -> None:
    world = attached()
    here = world.address["mag1"]
    world.deliver(octets_of(Heartbeat(sequence_number=1), LMA, here), LMA, here)
    assert world.mag.notes("message-refused")
