"""Several uplinks of a gateway: registered, refreshed, lost and found again (RFC 8278)."""

from dataclasses import replace
from ipaddress import IPv6Address

import pytest

from signaling.actions import Bind, Held, Send, TowardAnchor, Unbind
from signaling.iana import MultipathBindingFlag, Status
from signaling.pmip.binding_update_list import Multipath, Stage
from signaling.settings import Uplink
from signaling.wire.options.care_of import AlternateCareOfAddress
from signaling.wire.options.identity import MagIdentifier
from signaling.wire.options.multipath import MagMultipathBinding
from tests.signaling.pmip.pmip_world import ADDRESSES, LTE, WLAN, Received, World

BULK, OVERWRITE = MultipathBindingFlag.BULK_REREGISTRATION, MultipathBindingFlag.REGISTRATION_OVERWRITE
BOTH = {1: Stage.REGISTERED, 2: Stage.REGISTERED}


def attached(*, uplinks: tuple[Uplink, ...] = (WLAN, LTE), **settings: object) -> World:
    world = World(uplinks=uplinks, **settings)  # type: ignore[arg-type]
    world.attach("mn1")
    world.run(1.0)
    return world


def binding(received: Received) -> MagMultipathBinding:
    option = received.update.option(MagMultipathBinding)
    assert option is not None
    return option


def flags(received: Received) -> MultipathBindingFlag:
    return binding(received).flags


def tunnels(world: World) -> list[int]:
    (path,) = world.mag.paths.values()
    assert isinstance(path, TowardAnchor)
    return [tunnel.binding_id for tunnel in path.tunnels]


# --- discovery and registration --------------------------------------------------------------------------------------


def test_one_path_alone_is_asked_for_until_the_anchor_has_answered() -> None:
    world = World(uplinks=(WLAN, LTE))
    todo = world.attach("mn1")
    assert len([action for action in todo if isinstance(action, Send)]) == 1


def test_then_the_others_at_once_with_the_prefix_that_was_learned() -> None:
    world = attached()
    named = [(it.binding_id, it.prefixes == [world.prefix("mn1")]) for it in world.lma.updates]
    assert named == [(1, False), (2, True)]
    assert (world.stages("mn1"), tunnels(world)) == (BOTH, [1, 2])


def test_every_update_names_the_gateway_and_the_path() -> None:
    world = attached()
    world.keep_talking("mn1", 300.0)
    world.uplink_down(WLAN)
    world.detach("mn1")
    world.run(5.0)
    assert all(it.update.option(MagIdentifier) == MagIdentifier(identifier=b"mag1") for it in world.lma.updates)
    assert all(it.binding_id for it in world.lma.updates)


def test_label_and_technology_are_those_of_the_uplink() -> None:
    world = attached()
    option = world.lma.updates[1].update.option(MagMultipathBinding)
    assert option is not None
    assert (option.interface_label, option.interface_technology) == (LTE.label, LTE.technology)


def test_the_source_address_belongs_to_the_uplink_it_leaves_by() -> None:
    world = attached()
    assert [it.source for it in world.lma.updates] == [ADDRESSES["wlan0"], ADDRESSES["lte0"]]


def test_the_first_registration_of_a_set_overwrites_what_an_earlier_life_left() -> None:
    world = attached()
    assert [flags(it) for it in world.lma.updates] == [OVERWRITE, MultipathBindingFlag(0)]


def test_after_a_restart_the_first_one_overwrites_again() -> None:
    world = attached()
    world.restart()
    world.uplink_up(WLAN)
    world.uplink_up(LTE)
    world.attach("mn1")
    world.run(1.0)
    assert [flags(it) for it in world.lma.updates[2:]] == [OVERWRITE, MultipathBindingFlag(0)]


def test_a_second_interface_of_the_node_overwrites_nothing() -> None:
    world = World(uplinks=(WLAN, LTE))
    world.host("if1", node="mn1")
    world.host("if2", node="mn1")
    world.attach("if1")
    world.run(1.0)
    world.attach("if2")
    world.run(1.0)
    assert [flags(it) for it in world.lma.updates[2:]] == [MultipathBindingFlag(0)] * 2


def test_the_flags_never_stand_together_and_never_overwrite_at_the_end() -> None:
    world = attached()
    world.keep_talking("mn1", 300.0)
    world.detach("mn1")
    world.run(5.0)
    for received in world.lma.updates:
        assert flags(received) != BULK | OVERWRITE
        assert received.update.lifetime or OVERWRITE not in flags(received)


def test_a_first_path_that_stays_silent_is_joined_by_the_next() -> None:
    world = World(uplinks=(WLAN, LTE))
    world.cut = {ADDRESSES["wlan0"]}
    world.attach("mn1")
    world.run(1.5)
    assert tunnels(world) == [2]


# --- anchors without multipath ---------------------------------------------------------------------------------------


def test_an_answer_without_the_option_turns_multipath_off_for_this_anchor() -> None:
    world = World(uplinks=(WLAN, LTE))
    world.lma.multipath = False
    world.attach("mn1")
    world.run(1.0)
    world.attach("mn2")
    world.run(1.0)
    assert [it.binding_id for it in world.lma.updates] == [1, 0]
    assert world.mag.notes("anchor-without-multipath")


def test_status_180_turns_multipath_off_for_this_node_and_says_so() -> None:
    world = World(uplinks=(WLAN, LTE))
    world.lma.refusals = [Status.CANNOT_SUPPORT_MULTIPATH_BINDING]
    world.attach("mn1")
    world.run(1.0)
    world.attach("mn2")
    world.run(1.0)
    assert [it.binding_id for it in world.lma.updates] == [1, 0, 1, 2]
    assert world.session("mn1").multipath is Multipath.OFF
    assert [note.fields["then"] for note in world.mag.notes("asked-differently")] == ["one-path"]


def test_the_only_path_goes_on_by_another_uplink() -> None:
    world = World(uplinks=(WLAN, LTE))
    world.lma.multipath = False
    world.attach("mn1")
    world.run(1.0)
    prefix = world.prefix("mn1")
    world.uplink_down(WLAN)
    assert world.mag.paths == {prefix: Held()}
    world.run(1.0)
    assert world.lma.updates[-1].source == ADDRESSES["lte0"]
    assert isinstance(world.mag.paths[prefix], TowardAnchor)
    assert not world.mag.did(Unbind)


# --- refresh ---------------------------------------------------------------------------------------------------------


def test_one_message_extends_all_paths() -> None:
    world = attached()
    world.keep_talking("mn1", 300.0)
    (refresh,) = world.lma.updates[2:]
    assert flags(refresh) == BULK
    assert world.registration("mn1", 1).expires == world.registration("mn1", 2).expires > 500.0


def test_without_bulk_refresh_each_path_is_extended_by_itself() -> None:
    world = attached(bulk_refresh=False)
    world.keep_talking("mn1", 300.0)
    assert [(it.binding_id, flags(it)) for it in world.lma.updates[2:]] == [(1, 0), (2, 0)]


def test_a_bulk_refresh_without_an_answer_is_taken_over_by_another_path() -> None:
    world = attached()
    world.cut = {ADDRESSES["wlan0"]}
    world.keep_talking("mn1", 270.0)
    assert [(it.binding_id, flags(it)) for it in world.lma.updates[2:]] == [(2, BULK)]
    assert world.registration("mn1", 1).expires == world.registration("mn1", 2).expires > 500.0


def test_without_bulk_refresh_a_silent_path_ends_with_its_lifetime() -> None:
    world = attached(bulk_refresh=False)
    world.cut = {ADDRESSES["wlan0"]}
    world.keep_talking("mn1", 310.0)
    assert tunnels(world) == [2]


# --- uplinks come and go ---------------------------------------------------------------------------------------------


def test_a_lost_path_leaves_the_tunnels_before_the_anchor_is_told() -> None:
    world = attached()
    todo = world.uplink_down(WLAN)
    assert [type(action) for action in todo if isinstance(action, Bind | Send)] == [Bind, Send]
    assert tunnels(world) == [2]


def test_it_is_taken_back_over_another_path_with_the_address_that_was_lost() -> None:
    world = attached()
    world.uplink_down(WLAN)
    world.run(0.1)
    last = world.lma.updates[-1]
    assert (last.binding_id, last.update.lifetime, last.source) == (1, 0, ADDRESSES["lte0"])
    assert last.update.option(AlternateCareOfAddress) == AlternateCareOfAddress(address=ADDRESSES["wlan0"])
    assert world.stages("mn1") == {2: Stage.REGISTERED}


def test_a_path_that_returns_registers_by_itself() -> None:
    world = attached()
    world.uplink_down(WLAN)
    world.run(5.0)
    world.uplink_up(WLAN)
    world.run(0.1)
    assert world.stages("mn1") == {2: Stage.REGISTERED, 1: Stage.REGISTERED}


def test_a_path_that_returns_while_it_is_taken_back_registers_too() -> None:
    world = attached()
    world.uplink_down(WLAN)
    world.uplink_up(WLAN)
    world.run(0.1)
    assert world.stages("mn1") == BOTH


def test_an_uplink_with_another_address_moves_its_binding() -> None:
    world = attached()
    other = IPv6Address("2001:db8:e1::99")
    world.lma._door._fixed[other] = world.lma._door._fixed[ADDRESSES["wlan0"]]
    world.uplink_up(WLAN, other)
    assert tunnels(world) == [2]
    world.run(0.1)
    last = world.lma.updates[-1]
    assert (last.binding_id, last.source, last.update.lifetime) == (1, other, 300)
    assert world.stages("mn1") == BOTH


def test_when_all_paths_are_lost_the_prefix_waits_for_one() -> None:
    world = attached()
    prefix = world.prefix("mn1")
    world.uplink_down(LTE)
    world.run(1.0)
    world.uplink_down(WLAN)
    assert world.mag.paths == {prefix: Held()}
    assert world.hosts["mn1"].offered() == {prefix: 7200}
    world.run(10.0)
    world.uplink_up(LTE)
    world.run(0.1)
    assert (tunnels(world), world.mag.did(Unbind)) == ([2], [])
    world.uplink_up(WLAN)
    world.run(0.1)
    assert sorted(tunnels(world)) == [1, 2]


def test_what_waits_for_a_path_ends_with_its_lifetime() -> None:
    world = attached()
    prefix = world.prefix("mn1")
    world.uplink_down(LTE)
    world.run(1.0)
    world.uplink_down(WLAN)
    world.keep_talking("mn1", 310.0)
    assert world.mag.paths == {}
    assert world.hosts["mn1"].offered() == {prefix: 0}
    world.uplink_up(WLAN)
    world.run(0.1)
    assert tunnels(world) == [1]


def test_a_node_that_comes_before_any_uplink_is_registered_with_the_first() -> None:
    world = World(uplinks=(WLAN, LTE))
    world.uplink_down(WLAN)
    world.uplink_down(LTE)
    world.attach("mn1")
    world.run(1.0)
    assert world.mag.notes("no-uplink")
    world.uplink_up(LTE)
    world.run(0.1)
    assert tunnels(world) == [2]


def test_an_uplink_that_is_configured_with_an_address_is_no_path_with_another() -> None:
    fixed = replace(WLAN, address=IPv6Address("2001:db8:e1::77"))
    world = attached(uplinks=(fixed, LTE))
    assert [it.binding_id for it in world.lma.updates] == [2]


def test_uplinks_can_be_configured_anew() -> None:
    world = attached(uplinks=(WLAN,))
    world.uplink_up(LTE)
    world.perform("mag1", world.mag.mag.set_uplinks((WLAN, LTE), world.now))
    world.run(0.1)
    assert tunnels(world) == [1, 2]
    world.perform("mag1", world.mag.mag.set_uplinks((LTE,), world.now))
    world.run(0.1)
    assert tunnels(world) == [2]


def test_a_node_that_left_is_taken_back_on_every_path() -> None:
    world = attached()
    world.detach("mn1")
    world.run(3.0)
    assert [(it.binding_id, it.update.lifetime) for it in world.lma.updates[2:]] == [(1, 0), (2, 0)]


def test_a_node_that_left_is_taken_back_on_a_path_whose_uplink_is_gone() -> None:
    world = attached()
    world.cut = {ADDRESSES["wlan0"]}
    world.detach("mn1")
    world.uplink_down(WLAN)
    world.run(3.0)
    ended = [(it.binding_id, it.source) for it in world.lma.updates if not it.update.lifetime]
    assert set(ended) == {(1, ADDRESSES["lte0"]), (2, ADDRESSES["lte0"])}


@pytest.mark.parametrize("lost", [WLAN, LTE])
def test_twenty_losses_and_returns_of_a_path_end_well(lost: Uplink) -> None:
    world = attached()
    for _ in range(20):
        world.uplink_down(lost)
        world.run(0.7)
        world.uplink_up(lost)
        world.run(1.3)
        world.show("mn1")
    world.run(1.0)
    assert world.session("mn1").of(Stage.REGISTERED) == list(world.session("mn1").registrations.values())
    assert sorted(tunnels(world)) == [1, 2]


@pytest.mark.parametrize("answered", [True, False], ids=["answered", "not answered at first"])
def test_another_label_or_weight_holds_no_packet_even_if_all_uplinks_get_it_at_once(answered: bool) -> None:
    world = attached()
    bound, sent = len(world.mag.did(Bind)), len(world.lma.updates)
    world.lma.silent = not answered
    uplinks = replace(WLAN, label=7), replace(LTE, label=7, weight=5)
    world.perform("mag1", world.mag.mag.set_uplinks(uplinks, world.now))
    world.run(0.5)
    world.lma.silent = False
    world.keep_talking("mn1", 5.0)
    paths = [action.path for action in world.mag.did(Bind)[bound:]]
    assert paths
    for path in paths:
        assert isinstance(path, TowardAnchor)
        assert [(end.label, end.weight) for end in path.tunnels] == [(7, 1), (7, 5)]
    labels = {option.binding_id: option.interface_label for option in map(binding, world.lma.updates[sent:])}
    assert (labels, world.stages("mn1")) == ({1: 7, 2: 7}, BOTH)
