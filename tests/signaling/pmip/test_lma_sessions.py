"""The life of a session at the LMA: it begins, is refreshed, moves, ends, comes back (RFC 5213 5.3, 5.4)."""

from dataclasses import replace
from ipaddress import IPv6Address, IPv6Network

import pytest

from signaling.actions import Bind, ForgetBinding, Held, Note, SaveBinding, Send, TowardVisited, TunnelEnd, Unbind
from signaling.events import BindingsRestored
from signaling.iana import BindingAckFlag, RevocationStatus, RevocationTrigger, Status
from signaling.settings import NodeProfile
from signaling.update_request import ALL_ZERO
from signaling.wire.binding_ack import BindingAck
from signaling.wire.options.access import AccessTechnologyTypeOption, HandoffIndicatorOption, LinkLocalAddress
from signaling.wire.options.identity import MobileNodeIdentifier, MobileNodeLinkLayerIdentifier
from signaling.wire.options.lma_control import LmaControlledMagParameters
from signaling.wire.options.option import UnknownOption
from signaling.wire.options.time import Timestamp
from signaling.wire.revocation import BindingRevocationAck, BindingRevocationIndication
from tests.signaling.pmip.lma_scene import (
    FOREIGN,
    IF1,
    IF2,
    MAGS,
    NODE,
    Scene,
    acks,
    answer,
    done,
    home,
    kinds,
    paths,
    sent,
)

FIXED_PREFIX = IPv6Network("2001:db8:100::/64")
FIXED = IPv6Address("fe80::200:5eff:fe00:5213")


@pytest.fixture
def scene() -> Scene:
    return Scene()


# --- a session begins ---------------------------------------------------------------------------------------------


def test_a_new_session_gets_a_prefix_that_nobody_has(scene: Scene) -> None:
    first, second = scene.attach(), scene.attach(node="mn2")
    assert first != second
    assert first.subnet_of(scene.settings.pools[0])


def test_packets_go_to_the_mag_before_the_session_is_durable_before_the_answer_leaves(scene: Scene) -> None:
    turn = scene.say()
    wanted = [kind for kind in kinds(turn) if kind in ("Bind", "SaveBinding", "Send")]
    assert wanted[:3] == ["Bind", "SaveBinding", "Send"]


def test_the_prefix_is_bound_to_a_tunnel_to_the_proxy_coa(scene: Scene) -> None:
    (path,) = paths(scene.say()).values()
    assert path == TowardVisited(tunnels=(TunnelEnd(remote=MAGS["mag1"]),))


def test_no_prefix_left_is_130() -> None:
    scene = Scene(pools=(IPv6Network("2001:db8:100::/64"),))
    scene.attach()
    assert scene.status(node="mn2") == Status.INSUFFICIENT_RESOURCES


def test_a_prefix_of_ours_that_nobody_has_may_be_named(scene: Scene) -> None:
    mine = IPv6Network("2001:db8:100:7::/64")
    assert home(scene.ack(prefixes=(mine,))) == (mine,)


def test_the_fixed_prefixes_of_a_profile_are_those_of_the_first_session() -> None:
    fixed = (IPv6Network("2001:db8:1:1::/64"), IPv6Network("2001:db8:100::/64"))
    scene = Scene(profiles=(NodeProfile(node=NODE, prefixes=fixed),))
    assert home(scene.ack(node="mn2")) == (IPv6Network("2001:db8:100:1::/64"),)  # not the reserved one
    assert home(scene.ack()) == fixed
    assert home(scene.ack("mag2", ll=IF2)) == (IPv6Network("2001:db8:100:2::/64"),)


def test_a_fixed_prefix_that_lies_in_a_pool_is_lent_to_nobody_else() -> None:
    pool = IPv6Network("2001:db8:100::/63")
    fixed, other = pool.subnets(new_prefix=64)
    scene = Scene(pools=(pool,), profiles=(NodeProfile(node=NODE, prefixes=(fixed,)),))
    assert scene.attach(node="mn2") == other
    assert scene.status(node="mn3") == Status.INSUFFICIENT_RESOURCES
    assert scene.attach() == fixed


def test_the_fixed_prefix_of_another_node_is_refused_with_155() -> None:
    fixed = IPv6Network("2001:db8:100::/64")
    scene = Scene(profiles=(NodeProfile(node="mn2", prefixes=(fixed,)),))
    assert scene.status(prefixes=(fixed,)) == Status.NOT_AUTHORIZED_FOR_HOME_NETWORK_PREFIX


@pytest.mark.parametrize("named", [ALL_ZERO, FIXED_PREFIX])
def test_a_prefix_that_is_fixed_for_two_nodes_is_of_the_first_and_the_other_is_refused_with_155(
    named: IPv6Network,
) -> None:
    scene = Scene(profiles=tuple(NodeProfile(node=node, prefixes=(FIXED_PREFIX,)) for node in ("mn1", "mn2")))
    assert scene.attach(node="mn1") == FIXED_PREFIX
    refused = scene.status(node="mn2", prefixes=(named,))
    assert refused == Status.NOT_AUTHORIZED_FOR_HOME_NETWORK_PREFIX
    assert [session.node for session in scene.lma.cache] == ["mn1"]


def test_the_lifetime_granted_is_at_most_ours(scene: Scene) -> None:
    assert scene.ack(lifetime=40).lifetime == 40
    assert scene.ack(node="mn2", lifetime=4000).lifetime == 300


# --- answers (RFC 5213 5.3.6) -------------------------------------------------------------------------------------


def test_an_answer_goes_back_to_where_the_update_came_from(scene: Scene) -> None:
    (send,) = (it for it in done(scene.say(port=6000), Send) if isinstance(it.message, BindingAck))
    assert (send.destination, send.port) == (MAGS["mag1"], 6000)


def test_an_answer_has_identifier_prefix_handoff_technology_interface_and_time(scene: Scene) -> None:
    ack = scene.ack()
    assert ack.flags == BindingAckFlag.PROXY_REGISTRATION
    assert [type(option) for option in ack.options[:4]] == [
        MobileNodeIdentifier, type(ack.options[1]), HandoffIndicatorOption, AccessTechnologyTypeOption
    ]
    assert ack.option(MobileNodeLinkLayerIdentifier) == MobileNodeLinkLayerIdentifier(identifier=IF1)
    assert ack.option(Timestamp) is not None


def test_an_answer_has_no_interface_if_the_update_had_none(scene: Scene) -> None:
    assert scene.ack(ll=None).option(MobileNodeLinkLayerIdentifier) is None


def test_timers_of_the_mag_are_left_alone(scene: Scene) -> None:
    assert scene.ack().option(LmaControlledMagParameters) is None


def test_unknown_options_are_skipped(scene: Scene) -> None:
    assert scene.status(more=(UnknownOption(type=200, data=b"?"),)) == 0


def test_without_a_link_local_address_to_remember_the_fixed_one_is_given(scene: Scene) -> None:
    asks = (LinkLocalAddress(address=IPv6Address("::")),)
    assert scene.ack(more=asks).option(LinkLocalAddress) == LinkLocalAddress(address=FIXED)


def test_a_link_local_address_that_is_named_is_stored_and_given_to_the_next_mag(scene: Scene) -> None:
    mine = LinkLocalAddress(address=IPv6Address("fe80::7"))
    assert scene.ack(more=(mine,)).option(LinkLocalAddress) == mine
    asks = (LinkLocalAddress(address=IPv6Address("::")),)
    assert scene.ack("mag2", hi=3, more=asks).option(LinkLocalAddress) == mine


def test_no_link_local_address_is_given_unasked(scene: Scene) -> None:
    assert scene.ack().option(LinkLocalAddress) is None


# --- it goes on ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hi", [1, 3, 5])
def test_a_refresh_touches_neither_the_data_path_nor_the_store(scene: Scene, hi: int) -> None:
    prefix = scene.attach()
    assert kinds(scene.say(prefixes=(prefix,), hi=hi)) == ["Send"]


def test_a_refresh_gives_a_full_lifetime_again(scene: Scene) -> None:
    prefix = scene.attach()
    scene.wait(200.0)
    scene.say(prefixes=(prefix,), hi=5)
    scene.wait(200.0)
    assert len(scene.cache) == 1


def test_a_session_that_is_not_refreshed_is_removed(scene: Scene) -> None:
    prefix = scene.attach()
    turn = scene.wait(302.0)
    assert [action.prefix for action in done(turn, Unbind)] == [prefix]
    assert done(turn, ForgetBinding)
    assert len(scene.cache) == 0


def test_a_handoff_moves_the_tunnel_and_tells_the_old_mag(scene: Scene) -> None:
    prefix = scene.attach("mag1")
    turn = scene.say("mag2", prefixes=(prefix,), hi=3)
    assert paths(turn) == {prefix: TowardVisited(tunnels=(TunnelEnd(remote=MAGS["mag2"]),))}
    (indication,) = sent(turn, BindingRevocationIndication)
    assert indication.trigger is RevocationTrigger.INTER_MAG_HANDOVER_SAME_ACCESS_TYPE


def test_a_handoff_to_another_technology_says_so_to_the_old_mag(scene: Scene) -> None:
    prefix = scene.attach("mag1")
    (indication,) = sent(scene.say("mag2", prefixes=(prefix,), hi=2, att=8), BindingRevocationIndication)
    assert indication.trigger is RevocationTrigger.INTER_MAG_HANDOVER_DIFFERENT_ACCESS_TYPE


def test_after_a_handoff_the_session_has_the_new_interface(scene: Scene) -> None:
    prefix = scene.attach("mag1")
    scene.say("mag2", prefixes=(prefix,), hi=2, ll=IF2, att=8)
    assert (scene.session.link_layer, scene.session.technology, scene.session.gateway) == (IF2, 8, "mag2")


def test_a_mag_that_is_heard_from_another_address_of_its_own_is_the_same_mag(scene: Scene) -> None:
    prefix = scene.attach("mag1")
    turn = scene.say("mag1", prefixes=(prefix,), hi=3)
    assert sent(turn, BindingRevocationIndication) == []


# --- it ends ------------------------------------------------------------------------------------------------------


def test_a_deregistration_holds_the_packets_and_is_answered_with_lifetime_0(scene: Scene) -> None:
    prefix = scene.attach()
    turn = scene.say(prefixes=(prefix,), hi=4, lifetime=0)
    assert paths(turn) == {prefix: Held()}
    assert (answer(turn).status, answer(turn).lifetime) == (0, 0)


def test_a_deregistered_session_is_removed_after_min_delay_before_bce_delete(scene: Scene) -> None:
    prefix = scene.attach()
    scene.say(prefixes=(prefix,), hi=4, lifetime=0)
    assert not done(scene.wait(9.9), Unbind)
    assert [action.prefix for action in done(scene.wait(2.0), Unbind)] == [prefix]


def test_a_registration_cancels_the_deletion(scene: Scene) -> None:
    prefix = scene.attach("mag1")
    scene.say("mag1", prefixes=(prefix,), hi=4, lifetime=0)
    turn = scene.say("mag2", prefixes=(prefix,), hi=3)
    assert paths(turn) == {prefix: TowardVisited(tunnels=(TunnelEnd(remote=MAGS["mag2"]),))}
    assert sent(turn, BindingRevocationIndication) == []  # it has said itself that the node left
    scene.wait(60.0)
    assert not scene.session.leaving


def test_the_prefix_of_a_removed_session_may_be_given_out_again() -> None:
    scene = Scene(pools=(IPv6Network("2001:db8:100::/64"),))
    prefix = scene.attach()
    scene.say(prefixes=(prefix,), hi=4, lifetime=0)
    assert scene.status(node="mn2") == Status.INSUFFICIENT_RESOURCES
    scene.wait(11.0)
    assert scene.attach(node="mn2") == prefix


def test_a_deregistration_by_another_mag_is_ignored_without_an_answer(scene: Scene) -> None:
    prefix = scene.attach("mag1")
    scene.say("mag2", prefixes=(prefix,), hi=3)
    assert scene.say("mag1", prefixes=(prefix,), hi=4, lifetime=0) == []
    assert scene.lma.counters["lma.ignored.deregistration-by-another"] == 1


def test_a_deregistration_that_matches_nothing_is_silently_ignored(scene: Scene) -> None:
    for changes in ({"prefixes": (IPv6Network("2001:db8:100:9::/64"),)}, {}, {"ll": None}, {"hi": 4}):
        assert scene.say(lifetime=0, **changes) == []


def test_a_deregistration_whose_answer_was_lost_is_answered_again(scene: Scene) -> None:
    prefix = scene.attach()
    scene.say(prefixes=(prefix,), hi=4, lifetime=0)
    turn = scene.say(prefixes=(prefix,), hi=4, lifetime=0)
    assert kinds(turn) == ["Send"]


# --- where is the node? (RFC 5213 5.4.1.2-4, 5846 8.1) ------------------------------------------------------------


def unknown(scene: Scene) -> list[object]:
    """The node was at mag1; mag2 sees it by another interface and cannot tell whether it moved."""
    return list(scene.say("mag2", hi=4, ll=IF2))


def test_with_hi_4_the_old_mag_is_asked_and_the_new_one_waits(scene: Scene) -> None:
    prefix = scene.attach("mag1")
    turn = unknown(scene)
    (indication,) = sent(turn, BindingRevocationIndication)  # type: ignore[arg-type]
    assert indication.trigger is RevocationTrigger.INTER_MAG_HANDOVER_UNKNOWN
    assert acks(turn) == []  # type: ignore[arg-type]
    assert home(indication) == (prefix,)  # type: ignore[arg-type]


def reply(scene: Scene, status: RevocationStatus) -> list[object]:
    (number,) = scene.lma.revoker._reminders.deadlines._at
    ack = BindingRevocationAck(status=status, sequence_number=number, flags=0)  # type: ignore[arg-type]
    return list(scene.tell(ack, "mag1"))


def test_the_old_mag_says_that_the_node_left_and_the_session_moves(scene: Scene) -> None:
    prefix = scene.attach("mag1")
    unknown(scene)
    turn = reply(scene, RevocationStatus.SUCCESS)
    assert home(answer(turn)) == (prefix,)  # type: ignore[arg-type]
    assert (scene.session.gateway, scene.session.leaving) == ("mag2", False)
    assert sent(turn, BindingRevocationIndication) == []  # type: ignore[arg-type]  # it knows already


def test_the_old_mag_says_that_the_node_is_there_and_another_session_begins(scene: Scene) -> None:
    prefix = scene.attach("mag1")
    unknown(scene)
    turn = reply(scene, RevocationStatus.REVOCATION_FAILED_MN_IS_ATTACHED)
    assert home(answer(turn)) != (prefix,)  # type: ignore[arg-type]
    assert len(scene.cache) == 2


def test_the_old_mag_says_nothing_and_another_session_begins(scene: Scene) -> None:
    scene.attach("mag1")
    unknown(scene)
    turn = scene.wait(4.0)
    assert [ack.status for ack in acks(turn)] == [0]
    assert len(scene.cache) == 2


def test_a_deregistration_while_it_is_waited_for_moves_the_session(scene: Scene) -> None:
    prefix = scene.attach("mag1")
    unknown(scene)
    first, second = acks(scene.say("mag1", prefixes=(prefix,), hi=4, lifetime=0))
    assert (first.lifetime, second.lifetime) == (0, 300)
    assert (scene.session.gateway, scene.session.leaving) == ("mag2", False)


def test_without_asking_the_wait_is_max_delay_before_new_bce_assign() -> None:
    scene = Scene(revoke_to_find_out=False)
    scene.attach("mag1")
    unknown(scene)
    assert acks(scene.wait(1.4)) == []
    assert [ack.status for ack in acks(scene.wait(0.2))] == [0]
    assert len(scene.cache) == 2


def test_skipping_the_wait_is_a_choice_of_the_configuration() -> None:
    scene = Scene(wait_for_deregistration=False)
    scene.attach("mag1")
    assert len(acks(unknown(scene))) == 1  # type: ignore[arg-type]
    assert len(scene.cache) == 2


def test_a_retransmitted_update_waits_in_place_of_the_first(scene: Scene) -> None:
    scene.attach("mag1")
    unknown(scene)
    assert unknown(scene) == []
    (ack,) = acks(scene.wait(4.0))
    assert ack.sequence_number == scene.number


def test_with_hi_4_a_session_whose_node_has_left_already_moves_at_once(scene: Scene) -> None:
    prefix = scene.attach("mag1")
    scene.say("mag1", prefixes=(prefix,), hi=4, lifetime=0)
    assert home(answer(unknown(scene))) == (prefix,)  # type: ignore[arg-type]


# --- restarts -----------------------------------------------------------------------------------------------------


def restarted(scene: Scene) -> tuple[Scene, list[object]]:
    saved: dict[int, object] = {session.number: session.saved() for session in scene.cache}
    after = Scene()
    after.now = scene.now
    bindings = tuple(saved.values())
    return after, list(after.lma.handle(BindingsRestored(bindings=bindings), after.now))  # type: ignore[arg-type]


def test_after_a_restart_all_sessions_are_bound_where_they_were(scene: Scene) -> None:
    prefix = scene.attach("mag1")
    after, turn = restarted(scene)
    assert paths(turn)[prefix] == TowardVisited(tunnels=(TunnelEnd(remote=MAGS["mag1"]),))  # type: ignore[arg-type]
    assert after.session.saved() == scene.session.saved()


def test_after_a_restart_a_session_has_a_full_lifetime(scene: Scene) -> None:
    prefix = scene.attach("mag1")
    scene.wait(290.0)
    after, _ = restarted(scene)
    after.wait(200.0)
    assert kinds(after.say("mag1", prefixes=(prefix,), hi=5)) == ["Send"]


def test_after_a_restart_an_old_update_is_still_old(scene: Scene) -> None:
    scene.attach("mag1")
    stamp = scene.session.care_of.timestamp
    after, _ = restarted(scene)
    assert after.status("mag1", timestamp=stamp) == Status.TIMESTAMP_MISMATCH


def test_after_a_restart_a_node_that_had_left_is_waited_for(scene: Scene) -> None:
    prefix = scene.attach("mag1")
    scene.say("mag1", prefixes=(prefix,), hi=4, lifetime=0)
    after, turn = restarted(scene)
    assert paths(turn) == {prefix: Held()}  # type: ignore[arg-type]
    after.wait(12.0)
    assert len(after.cache) == 0


def test_after_a_restart_prefixes_and_numbers_are_not_given_twice(scene: Scene) -> None:
    scene.attach("mag1")
    after, _ = restarted(scene)
    assert after.attach(node="mn2") != scene.session.prefixes[0]
    assert len({session.number for session in after.cache}) == 2


def test_what_is_durable_changes_with_the_mag_but_not_with_time(scene: Scene) -> None:
    prefix = scene.attach("mag1")
    (saved,) = done(scene.say("mag2", prefixes=(prefix,), hi=3), SaveBinding)
    assert saved.binding.gateway == "mag2"
    assert replace(saved.binding, care_ofs=()) == replace(scene.session.saved(), care_ofs=())


def test_a_new_session_is_told_of_to_whoever_watches(scene: Scene) -> None:
    notes = [note.event for note in done(scene.say(), Note)]
    assert notes == ["registered"]


def test_several_prefixes_are_one_session(scene: Scene) -> None:
    both = (IPv6Network("2001:db8:100:1::/64"), IPv6Network("2001:db8:100:2::/64"))
    turn = scene.say(prefixes=both)
    assert home(answer(turn)) == both
    assert set(paths(turn)) == set(both)
    assert kinds(scene.say(prefixes=both[::-1], hi=5)) == ["Send"]


def test_a_named_prefix_and_one_to_choose_are_one_session(scene: Scene) -> None:
    mine = IPv6Network("2001:db8:100:1::/64")
    assert len(home(scene.ack(prefixes=(mine, ALL_ZERO)))) == 2


def test_what_was_taken_for_a_refused_update_goes_back(scene: Scene) -> None:
    mine = IPv6Network("2001:db8:100:1::/64")
    assert scene.status(prefixes=(mine, FOREIGN)) == Status.NOT_AUTHORIZED_FOR_HOME_NETWORK_PREFIX
    assert scene.attach(node="mn2", prefixes=(mine,)) == mine


def test_binds_come_before_what_is_saved_in_every_turn(scene: Scene) -> None:
    prefix = scene.attach("mag1")
    turn = scene.say("mag2", prefixes=(prefix,), hi=3)
    order = [type(action) for action in turn if isinstance(action, Bind | SaveBinding | Send)]
    assert order[:3] == [Bind, SaveBinding, Send]
