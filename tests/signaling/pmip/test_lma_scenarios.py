"""Several interfaces of one node: the three scenarios and all handovers of draft-devarapalli-netlmm-multihoming."""

from ipaddress import IPv6Network

import pytest

from signaling.actions import Held, SetPolicy, TowardVisited, Unbind
from signaling.iana import Status, TrafficSelectorFormat
from signaling.settings import NodeProfile, Sharing
from signaling.wire.options.flow import FlowIdentification
from signaling.wire.traffic_selector import Range, TrafficSelector
from tests.signaling.pmip.lma_scene import (
    IF1,
    IF2,
    IF3,
    MAGS,
    NODE,
    Scene,
    answer,
    done,
    home,
    kinds,
    paths,
    remotes,
)


def sharing(how: Sharing) -> Scene:
    return Scene(profiles=(NodeProfile(node=NODE, sharing=how),))


def on_port(port: int) -> FlowIdentification:
    selector = TrafficSelector(format=TrafficSelectorFormat.IPV6_BINARY, source_port=Range(port))
    return FlowIdentification(flow_id=1, priority=1, binding_ids=(1,), selector=selector)


def to_address(prefix: IPv6Network, number: int) -> FlowIdentification:
    destination = Range(prefix.network_address + number)
    selector = TrafficSelector(format=TrafficSelectorFormat.IPV6_BINARY, destination=destination)
    return FlowIdentification(flow_id=1, priority=1, binding_ids=(1,), selector=selector)


# --- unique prefix per interface (3.1) ----------------------------------------------------------------------------


def test_each_interface_has_a_session_and_a_prefix_of_its_own() -> None:
    scene = Scene()
    assert scene.attach("mag1", ll=IF1) != scene.attach("mag2", ll=IF2, att=8)
    assert len(scene.sessions()) == 2


def test_two_interfaces_at_one_mag_have_a_session_each() -> None:
    scene = Scene()
    assert scene.attach("mag1", ll=IF1) != scene.attach("mag1", ll=IF2)


def test_an_interface_that_moves_keeps_its_prefix_and_the_other_stays() -> None:
    scene = Scene()
    first, second = scene.attach("mag1", ll=IF1), scene.attach("mag2", ll=IF2)
    assert home(scene.ack("mag3", ll=IF1, hi=3)) == (first,)
    assert {session.prefixes[0]: session.gateway for session in scene.cache} == {first: "mag3", second: "mag2"}


# --- handovers between interfaces (4) -----------------------------------------------------------------------------


def test_with_hi_2_the_other_interface_takes_the_session_over() -> None:
    scene = Scene()
    prefix = scene.attach("mag1", ll=IF1)
    assert home(scene.ack("mag2", ll=IF2, att=8, hi=2)) == (prefix,)


def test_with_hi_3_another_interface_begins_a_session() -> None:
    scene = Scene()
    prefix = scene.attach("mag1", ll=IF1)
    assert home(scene.ack("mag2", ll=IF2, att=8, hi=3)) != (prefix,)


def test_with_hi_1_another_interface_begins_a_session() -> None:
    scene = Scene()
    prefix = scene.attach("mag1", ll=IF1)
    assert home(scene.ack("mag2", ll=IF2, hi=1)) != (prefix,)


def test_of_three_interfaces_the_prefix_says_which_one_is_left() -> None:
    scene = Scene()
    first, second = scene.attach("mag1", ll=IF1), scene.attach("mag2", ll=IF2)
    turn = scene.say("mag3", ll=IF3, hi=2, prefixes=(first,))
    assert home(answer(turn)) == (first,)
    assert {session.prefixes[0]: session.gateway for session in scene.cache} == {first: "mag3", second: "mag2"}
    assert set(paths(turn)) == {first}


def test_of_three_interfaces_hi_2_alone_does_not_say_which_one_is_left() -> None:
    scene = Scene()
    both = {scene.attach("mag1", ll=IF1), scene.attach("mag2", ll=IF2)}
    assert home(scene.ack("mag3", ll=IF3, hi=2))[0] not in both


def test_a_third_interface_at_the_mag_of_the_second_takes_over_the_first() -> None:
    scene = Scene()
    first, second = scene.attach("mag1", ll=IF1), scene.attach("mag2", ll=IF2)
    scene.say("mag2", ll=IF3, hi=2, prefixes=(first,))
    assert {session.prefixes[0]: session.link_layer for session in scene.cache} == {first: IF3, second: IF2}


# --- one prefix, an address for each interface (3.2) --------------------------------------------------------------


def test_a_further_interface_gets_the_prefix_of_the_first_if_the_profile_says_so() -> None:
    scene = sharing(Sharing.SHARED_PREFIX)
    prefix = scene.attach("mag1", ll=IF1)
    turn = scene.say("mag2", ll=IF2)
    assert home(answer(turn)) == (prefix,)
    assert remotes(paths(turn)[prefix]) == [MAGS["mag1"], MAGS["mag2"]]


def test_hi_6_shares_whatever_the_profile() -> None:
    scene = Scene()
    prefix = scene.attach("mag1", ll=IF1)
    turn = scene.say("mag2", ll=IF2, hi=6, prefixes=(prefix,))
    assert remotes(paths(turn)[prefix]) == [MAGS["mag1"], MAGS["mag2"]]


def test_the_ways_of_a_shared_prefix_have_numbers_of_their_own() -> None:
    scene = sharing(Sharing.SHARED_PREFIX)
    prefix = scene.attach("mag1", ll=IF1)
    path = paths(scene.say("mag2", ll=IF2))[prefix]
    assert isinstance(path, TowardVisited)
    assert [tunnel.binding_id for tunnel in path.tunnels] == [1, 2]


def test_an_address_that_a_mag_names_is_reached_by_that_mag_and_all_others_by_the_first() -> None:
    scene = sharing(Sharing.SHARED_PREFIX)
    prefix = scene.attach("mag1", ll=IF1)
    turn = scene.say("mag2", ll=IF2, prefixes=(prefix,), more=(to_address(prefix, 7),))
    (policy,) = done(turn, SetPolicy)
    assert [(rule.selector is None, rule.binding_ids) for rule in policy.rules] == [(False, (2,)), (True, (1,))]


def test_an_address_as_a_prefix_of_its_own_is_a_host_route() -> None:
    scene = sharing(Sharing.SHARED_PREFIX)
    prefix = scene.attach("mag1", ll=IF1)
    host = IPv6Network((prefix.network_address + 7, 128))
    turn = scene.say("mag2", ll=IF2, prefixes=(host,))
    assert home(answer(turn)) == (host,)
    assert remotes(paths(turn)[host]) == [MAGS["mag2"]]
    assert len(scene.sessions()) == 2


def test_an_address_of_a_prefix_of_another_node_is_refused() -> None:
    scene = sharing(Sharing.SHARED_PREFIX)
    prefix = scene.attach("mag1", node="mn2")
    host = IPv6Network((prefix.network_address + 7, 128))
    assert scene.status("mag2", ll=IF2, prefixes=(host,)) == Status.NOT_AUTHORIZED_FOR_HOME_NETWORK_PREFIX


def test_a_prefix_is_free_only_when_the_last_address_of_it_is() -> None:
    pool = IPv6Network("2001:db8:100::/64")
    scene = Scene(profiles=(NodeProfile(node="", sharing=Sharing.SHARED_PREFIX),), pools=(pool,))
    prefix = scene.attach("mag1", ll=IF1)
    host = IPv6Network((prefix.network_address + 7, 128))
    scene.attach("mag2", ll=IF2, prefixes=(host,))
    scene.say("mag1", ll=IF1, prefixes=(prefix,), hi=4, lifetime=0)
    scene.wait(12.0)
    assert scene.status("mag3", node="mn2") == Status.INSUFFICIENT_RESOURCES
    scene.say("mag2", ll=IF2, prefixes=(host,), hi=4, lifetime=0)
    scene.wait(12.0)
    assert scene.attach("mag3", node="mn2") == prefix


# --- one address on all interfaces (3.3) --------------------------------------------------------------------------


def test_flow_filters_choose_the_mag() -> None:
    scene = sharing(Sharing.SHARED_ADDRESS)
    prefix = scene.attach("mag1", ll=IF1)
    turn = scene.say("mag2", ll=IF2, hi=6, prefixes=(prefix,), more=(on_port(80),))
    (policy,) = done(turn, SetPolicy)
    (rule,) = policy.rules
    assert (rule.selector and rule.selector.source_port, rule.binding_ids) == (Range(80), (2,))
    assert remotes(paths(turn)[prefix]) == [MAGS["mag1"], MAGS["mag2"]]


def test_filters_of_both_mags_are_one_policy() -> None:
    scene = sharing(Sharing.SHARED_ADDRESS)
    prefix = scene.attach("mag1", ll=IF1, more=(on_port(22),))
    (policy,) = done(scene.say("mag2", ll=IF2, hi=6, prefixes=(prefix,), more=(on_port(80),)), SetPolicy)
    assert [rule.binding_ids for rule in policy.rules] == [(1,), (2,)]


@pytest.mark.parametrize("how", [Sharing.SHARED_ADDRESS, Sharing.SHARED_PREFIX])
def test_when_one_interface_leaves_all_goes_by_the_other(how: Sharing) -> None:
    scene = sharing(how)
    prefix = scene.attach("mag1", ll=IF1)
    scene.say("mag2", ll=IF2, hi=6, prefixes=(prefix,))
    turn = scene.say("mag1", ll=IF1, hi=4, prefixes=(prefix,), lifetime=0)
    assert remotes(paths(turn)[prefix]) == [MAGS["mag2"]]
    turn = scene.wait(12.0)
    assert not done(turn, Unbind)
    assert len(scene.sessions()) == 1


def test_when_the_last_interface_leaves_packets_are_held_and_then_the_prefix_is_free() -> None:
    scene = sharing(Sharing.SHARED_ADDRESS)
    prefix = scene.attach("mag1", ll=IF1)
    scene.say("mag2", ll=IF2, hi=6, prefixes=(prefix,))
    scene.say("mag1", ll=IF1, hi=4, prefixes=(prefix,), lifetime=0)
    assert paths(scene.say("mag2", ll=IF2, hi=4, prefixes=(prefix,), lifetime=0)) == {prefix: Held()}
    assert done(scene.wait(12.0), Unbind) == [Unbind(prefix=prefix, node=NODE)]


def test_an_interface_that_shares_is_refreshed_without_touching_anything() -> None:
    scene = sharing(Sharing.SHARED_ADDRESS)
    prefix = scene.attach("mag1", ll=IF1)
    scene.say("mag2", ll=IF2, hi=6, prefixes=(prefix,))
    assert kinds(scene.say("mag2", ll=IF2, hi=5, prefixes=(prefix,))) == ["Send"]


def test_an_interface_that_shares_moves_alone() -> None:
    scene = sharing(Sharing.SHARED_ADDRESS)
    prefix = scene.attach("mag1", ll=IF1)
    scene.say("mag2", ll=IF2, hi=6, prefixes=(prefix,))
    turn = scene.say("mag3", ll=IF2, hi=3, prefixes=(prefix,))
    assert remotes(paths(turn)[prefix]) == [MAGS["mag1"], MAGS["mag3"]]
