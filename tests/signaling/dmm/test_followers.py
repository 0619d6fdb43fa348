"""A MAR that follows a CMD: as serving router of its nodes, and as anchor of those that left (RFC 8885 3)."""

from ipaddress import IPv6Network
from typing import Any

import pytest

from signaling.actions import Action, FindSessions, Held, LocalLink, Send, SendOnLink, TowardAnchor, TowardVisited
from signaling.dma.session import State
from signaling.dmm.dlif import Dlif
from signaling.dmm.previous_list import Previous, distributed, dlif_of, options_of, previous_of
from signaling.events import SessionsRestored
from signaling.iana import BindingAckFlag, HandoffIndicator, Status
from signaling.settings import CmdMode
from signaling.wire.binding_ack import BindingAck
from signaling.wire.binding_update import BindingUpdate
from signaling.wire.options.access import HandoffIndicatorOption
from signaling.wire.options.maar import DlifLinkLayerAddress, DlifLinkLocalAddress, PreviousMaar, ServingMaar
from signaling.wire.options.prefix import AnchoredPrefix, HomeNetworkPrefix
from signaling.wire.revocation import BindingRevocationIndication
from tests.signaling.dmm.cmd_world import CMD, CMD_ADDRESS, DISTRIBUTED, CmdWorld, journey, serving_in
from tests.world import INTERFACE

P1, P2, P3 = (IPv6Network(f"2001:db8:{number}00::/64") for number in (1, 2, 3))
MODES = pytest.mark.parametrize("mode", CmdMode, ids=lambda mode: mode.value)


def updates(actions: list[Action]) -> list[BindingUpdate]:
    return [it.message for it in actions if isinstance(it, Send) and isinstance(it.message, BindingUpdate)]


def ack(actions: list[Action]) -> BindingAck:
    (found,) = [it.message for it in actions if isinstance(it, Send) and isinstance(it.message, BindingAck)]
    return found


def copy(world: CmdWorld, to: str, prefix: IPv6Network, at: str, **changes: Any) -> list[Action]:
    """The CMD seems to tell an anchor where mn1 is."""
    there = ServingMaar(address=world.address[at])
    update = world.update("mn1", prefix, **{"flags": DISTRIBUTED, "serving": there} | changes)
    return world.say(update, CMD, to)


# --- serving --------------------------------------------------------------------------------------------------


def test_a_node_gets_its_local_prefix_and_the_cmd_an_update_in_one_turn() -> None:
    world = CmdWorld()
    world.attach("mn1", "mar1")
    turn = world["mar1"].turns[-1]
    (update,) = updates(turn)
    assert [option.prefix for option in update.options_of(HomeNetworkPrefix)] == [P1]
    assert any(isinstance(action, SendOnLink) for action in turn)
    assert not any(isinstance(action, FindSessions) for action in turn)


def test_the_update_leaves_before_what_is_written() -> None:
    world = CmdWorld()
    world.attach("mn1", "mar1")
    kinds = [type(action).__name__ for action in world["mar1"].turns[-1]]
    assert kinds.index("Send") < kinds.index("SaveSession")


def test_an_anchor_is_never_asked_by_the_serving_router() -> None:
    world = journey("mar1", "mar2", "mar3", "mar1")
    assert {it.destination for it in world.sent(BindingUpdate) if it.source != CMD} == {CMD}


@MODES
def test_old_prefixes_are_tunnelled_from_their_anchors_and_deprecated(mode: CmdMode) -> None:
    world = journey("mar1", "mar2", "mar3", mode=mode)
    for prefix, anchor in ((P1, "mar1"), (P2, "mar2")):
        assert world.path("mar3", prefix) == TowardAnchor.through(world.address[anchor], INTERFACE)
        assert world.path(anchor, prefix) == TowardVisited.at(world.address["mar3"])
    assert (world.preferred("mn1"), set(world.deprecated("mn1"))) == ([P3], {P1, P2})


def test_a_cmd_that_is_away_delays_no_local_prefix_and_is_asked_again() -> None:
    world = journey("mar1")
    world.cut(CMD)
    world.move("mn1", "mar2")
    assert world.path("mar2", P2) == LocalLink(interface=INTERFACE)
    world.show("mn1", "packet")
    world.run(8.0)
    assert (world["mar2"].mar.central.reachable, len(world["mar2"].notes("cmd-away"))) == (False, 1)
    world.heal()
    world.show("mn1", "packet")
    world.run(20.0)
    assert (world["mar2"].mar.central.reachable, world.deprecated("mn1")) == (True, [P1])


def test_no_detachment_ends_a_registration() -> None:
    world = journey("mar1")
    before = len(world.updates_to(CMD, source="mar1"))
    world.detach("mn1")
    world.run(100.0)
    assert len(world.updates_to(CMD, source="mar1")) == before


def test_a_node_that_stays_away_is_deregistered_when_its_lifetime_is_over() -> None:
    world = journey("mar1", world=CmdWorld(binding_lifetime=60))
    world.detach("mn1")
    world.run(70.0)
    assert world.updates_to(CMD, source="mar1")[-1].lifetime == 0
    assert len(world.cmd.database.bindings) == 0


def test_a_node_that_is_back_before_anybody_knew_has_its_old_prefixes_at_once() -> None:
    world = journey("mar1", "mar2")
    world.detach("mn1")
    assert world.path("mar2", P1) == Held()
    world.attach("mn1", "mar2")
    assert world.path("mar2", P1) == TowardAnchor.through(world.address["mar1"], INTERFACE)


def test_a_prefix_that_no_answer_names_any_more_ends_with_its_lifetime() -> None:
    world = journey("mar1", "mar2", world=CmdWorld(binding_lifetime=60))
    world.cmd.database.bindings.release(world.binding(), P1)
    world.run(70.0)
    assert (world.path("mar2", P1), P1 in world.deprecated("mn1")) == (None, True)


def test_a_refused_node_keeps_its_local_prefix() -> None:
    world = CmdWorld(about_cmd={"max_bindings": 0})
    world.attach("mn1", "mar1")
    world.run(5.0)
    assert (world.path("mar1", P1), len(world["mar1"].notes("registration-refused"))) == (
        LocalLink(interface=INTERFACE),
        1,
    )


def test_an_unanswered_update_is_not_repeated_for_a_node_that_is_not_heard() -> None:
    world = journey("mar1")
    world.cut(CMD)
    world.move("mn1", "mar2")
    world.run(0.1)
    world.hosts["mn1"].silent = True
    before = len(world.updates_to(CMD, source="mar2"))
    world.run(2.0)
    assert len(world.updates_to(CMD, source="mar2")) == before


def test_what_is_anchored_here_for_a_node_that_left_before_the_cmd_answered_is_reported() -> None:
    world = CmdWorld()
    world.cut(CMD)
    world.attach("mn1", "mar1")
    world.run(0.1)
    world.move("mn1", "mar2")
    assert [option.prefix for option in world.updates_to(CMD, source="mar1")[-1].options_of(AnchoredPrefix)] == [P1]
    world.heal()
    world.show("mn1", "packet")
    world.run(5.0)
    assert (world.deprecated("mn1"), list(world.faults())) == ([P1], [])


def test_a_cmd_that_does_not_know_rfc_8885_is_told_apart() -> None:
    world = CmdWorld()
    world.attach("mn1", "mar1")
    asked = world.updates_to(CMD, source="mar1")[0]
    options = (*asked.options[:4], PreviousMaar(address=world.address["mar2"], prefix=P2))
    plain = BindingAck(
        status=Status.BINDING_UPDATE_ACCEPTED,
        flags=BindingAckFlag.PROXY_REGISTRATION,
        sequence_number=asked.sequence_number,
        lifetime=300,
        options=options,
    )
    world.say(plain, CMD, "mar1")
    assert (world.path("mar1", P2), len(world["mar1"].notes("cmd-is-none"))) == (None, 1)


def test_a_refresh_says_that_nothing_has_changed() -> None:
    world = journey("mar1", world=CmdWorld(binding_lifetime=60))
    world.run(60.0)
    handoff = world.updates_to(CMD, source="mar1")[1].option(HandoffIndicatorOption)
    assert handoff == HandoffIndicatorOption(indicator=HandoffIndicator.HANDOFF_STATE_NOT_CHANGED)


def test_a_router_that_stops_takes_nothing_back() -> None:
    world = journey("mar1", "mar2")
    assert updates(world.drain("mar2")) == []


def test_what_the_store_shows_again_is_not_reported_again() -> None:
    world = journey("mar1", world=CmdWorld(binding_lifetime=60))
    world.detach("mn1")
    world.run(75.0)  # the session is over, and the prefix is held back
    before = len(world.updates_to(CMD, source="mar1"))
    world.feed("mar1", SessionsRestored(sessions=tuple(world.stores["mar1"].of("mn1"))))
    world.run(5.0)
    assert (len(world.updates_to(CMD, source="mar1")), len(world.cmd.database.bindings)) == (before, 0)


# --- anchor ---------------------------------------------------------------------------------------------------


def test_an_anchor_sends_its_prefix_to_the_serving_router_and_lets_the_node_go() -> None:
    world = journey("mar1")
    actions = copy(world, "mar1", P1, "mar2")
    assert (ack(actions).status, serving_in(ack(actions))) == (0, world.address["mar2"])
    assert world.path("mar1", P1) == TowardVisited.at(world.address["mar2"])
    assert "mn1" not in world["mar1"].mar.access.attached


def test_nobody_but_the_cmd_moves_a_prefix() -> None:
    world = journey("mar1", world=CmdWorld(peers_of_each_other=True))
    update = world.update("mn1", P1, flags=DISTRIBUTED, serving=ServingMaar(address=world.address["mar2"]))
    assert ack(world.say(update, "mar2", "mar1")).status == Status.MAG_NOT_AUTHORIZED_FOR_PROXY_REG
    assert world.path("mar1", P1) == LocalLink(interface=INTERFACE)


@pytest.mark.parametrize("changes", [{"serving": None}, {"flags": DISTRIBUTED & 0xFFEF}], ids=["serving", "d-flag"])
def test_an_update_without_serving_maar_or_d_flag_is_refused(changes: dict[str, Any]) -> None:
    world = journey("mar1")
    assert ack(copy(world, "mar1", P1, "mar2", **changes)).status == Status.REASON_UNSPECIFIED


def test_a_router_is_not_sent_to_itself() -> None:
    world = journey("mar1")
    assert ack(copy(world, "mar1", P1, "mar1")).status == Status.REASON_UNSPECIFIED


def test_an_anchor_never_deregisters() -> None:
    world = journey("mar1", "mar2", world=CmdWorld(binding_lifetime=60))
    world.cut("mar1")  # it hears nothing from anybody any more
    before = len(world["mar1"].sent(BindingUpdate))
    world.run(1000.0)
    assert len(world["mar1"].sent(BindingUpdate)) == before


def test_the_timer_of_an_anchor_stands_still_but_for_a_long_one() -> None:
    world = journey("mar1", "mar2", world=CmdWorld(binding_lifetime=60))
    world.cut("mar1")
    world.run(120.0)
    assert world.state(P1) is State.REMOTE
    world.run(120.0)
    assert world.state(P1) is State.HOLD


def test_a_refresh_of_the_serving_router_reaches_the_anchors() -> None:
    world = journey("mar1", "mar2", world=CmdWorld(binding_lifetime=60))
    world.run(600.0)
    assert (world.state(P1), world.deprecated("mn1")) == (State.REMOTE, [P1])


def test_the_end_of_a_session_frees_the_prefix_after_the_guard() -> None:
    world = journey("mar1")
    copy(world, "mar1", P1, "mar2")
    assert ack(copy(world, "mar1", P1, "mar2", lifetime=0, timestamp=None)).lifetime == 0
    assert world.state(P1) is State.GUARD


def test_a_router_that_has_just_said_that_the_node_is_back_does_not_let_it_go() -> None:
    world = journey("mar1", "mar2")
    world.hold_up(0.5)
    world.move("mn1", "mar1", noticed=False)
    world.run(0.01)
    actions = copy(world, "mar1", P1, "mar2")
    assert ack(actions).status == Status.TIMESTAMP_LOWER_THAN_PREV_ACCEPTED
    world.run(3.0)
    assert (world.path("mar1", P1), list(world.faults())) == (LocalLink(interface=INTERFACE), [])


def test_a_node_that_is_said_to_be_elsewhere_is_asked_and_comes_back_if_it_is_not() -> None:
    world = journey("mar1")
    world.say(world.update("mn1", P2, flags=DISTRIBUTED), "mar2", CMD)  # mar2 has read a frame from before
    world.run(1.0)
    assert (world.binding().serving, world.path("mar1", P1)) == (
        world.address["mar1"],
        LocalLink(interface=INTERFACE),
    )


def test_no_router_revokes_anything_of_another() -> None:
    world = journey("mar1", "mar2", "mar1", "mar3", "mar1")
    assert world.sent(BindingRevocationIndication) == []


def test_in_a_locator_domain_an_anchor_needs_a_key_with_the_serving_router() -> None:
    world = journey("mar1", world=CmdWorld(CmdMode.LOCATOR, peers_of_each_other=False))
    copy(world, "mar1", P1, "mar2")
    assert len(world["mar1"].notes("serving-router-is-no-peer")) == 1


# --- DLIF and the list of what is previous --------------------------------------------------------------------


def test_each_node_knows_each_anchor_by_addresses_of_its_own() -> None:
    world = CmdWorld()
    found = {Dlif.of(world.address[mar], node) for mar in ("mar1", "mar2") for node in ("mn1", "mn2")}
    assert len(found) == 4
    for dlif in found:
        assert dlif.link_local.is_link_local
        assert dlif.link_layer[0] & 0b11 == 0b10  # locally administered, of one interface


def test_the_serving_router_learns_the_interface_of_each_anchor() -> None:
    world = journey("mar1", "mar2", "mar3")
    expected = {prefix: Dlif.of(world.address[mar], "mn1") for prefix, mar in ((P1, "mar1"), (P2, "mar2"))}
    assert world["mar3"].mar.central.dlifs == expected


def test_each_previous_router_is_followed_by_its_own_interface() -> None:
    world = CmdWorld()
    some = [
        Previous(prefix=P1, anchor=world.address["mar1"], dlif=Dlif.of(world.address["mar1"], "mn1")),
        Previous(prefix=P2, anchor=world.address["mar2"]),
        Previous(prefix=P3, anchor=world.address["mar3"], dlif=Dlif.of(world.address["mar3"], "mn1")),
    ]
    options = options_of(some)
    kinds = [PreviousMaar, DlifLinkLocalAddress, DlifLinkLayerAddress]
    assert [type(option) for option in options] == [*kinds, PreviousMaar, *kinds]
    plain = BindingAck(
        status=Status.BINDING_UPDATE_ACCEPTED,
        flags=BindingAckFlag.PROXY_REGISTRATION,
        sequence_number=1,
        lifetime=300,
        options=tuple(options),
    )
    assert previous_of(distributed(plain)) == some
    assert previous_of(plain) == []  # without D the options do not count (RFC 8885 4.3)


def test_half_an_interface_is_none() -> None:
    assert dlif_of([DlifLinkLocalAddress(address=CMD_ADDRESS)]) is None
