"""What a node hears from its router: prefixes preferred, deprecated, withdrawn; and how its silence is noticed."""

from ipaddress import IPv6Address, IPv6Network
from typing import Any

import pytest

from signaling.access_link import LOOK_AGAIN
from signaling.actions import ExpectNode, SendOnLink
from signaling.events import NodeDoubted, TunnelMtuChanged
from signaling.wire import ipv6, neighbor
from signaling.wire.binding_update import BindingUpdate
from signaling.wire.neighbor import (
    EchoRequest,
    LinkMtu,
    MulticastListenerQuery,
    NeighborSolicitation,
    PrefixInformation,
    RouterAdvertisement,
    SourceLinkLayerAddress,
)
from tests.world import INTERFACE, ROUTER_LINK_LAYER, World

ALL_NODES = IPv6Address("ff02::1")
ALL_NODES_LINK_LAYER = bytes.fromhex("333300000001")
FIXED = IPv6Address("fe80::200:5eff:fe00:5213")


@pytest.fixture
def world() -> World:
    return World(mars=2)


def on_link(world: World, kind: type, mar: str = "mar1") -> list[SendOnLink]:
    return [action for action in world[mar].did(SendOnLink) if isinstance(action.message, kind)]


def complete(world: World, name: str = "mn1") -> list[tuple[float, RouterAdvertisement]]:
    """Its advertisements of all it is offered, without those that are only for it to look at its addresses again."""
    heard = world.hosts[name].advertisements
    times = {round(at, 6) for at, _ in heard}
    return [(at, advertisement) for at, advertisement in heard if round(at - LOOK_AGAIN, 6) not in times]


def last(world: World, name: str = "mn1") -> RouterAdvertisement:
    return complete(world, name)[-1][1]


def told_at(world: World, name: str = "mn1") -> list[float]:
    return [round(at, 6) for at, _ in complete(world, name)]


def offers(advertisement: RouterAdvertisement) -> dict[IPv6Network, tuple[float, float]]:
    return {
        option.prefix: (option.valid_lifetime, option.preferred_lifetime)
        for option in advertisement.options_of(PrefixInformation)
    }


def moved(**settings: Any) -> World:
    world = World(mars=2, **settings)
    world.attach("mn1", "mar1")
    world.run_until(10.0)
    world.move("mn1", "mar2")
    world.run_until(20.0)
    return world


# --- the advertisement -----------------------------------------------------------------------------------------


def test_a_node_is_told_its_prefix_in_the_turn_it_attaches(world: World) -> None:
    world.attach("mn1", "mar1")
    assert world.preferred("mn1") == [world.prefix("mn1", "mar1")]


def test_a_node_heard_before_we_are_told_of_its_carrier_gets_its_advertisement_when_we_are(world: World) -> None:
    world.carrier_lost("mar1")
    world.attach("mn1", "mar1", trigger="mld")
    world.run(5.0)
    assert world.hosts["mn1"].advertisements == []
    world.carrier("mar1", INTERFACE)
    at = world.now
    world.run(3.0)
    assert world.preferred("mn1") == [world.prefix("mn1", "mar1")]
    assert told_at(world) == [at, at + 0.1, at + 1.0]


def test_a_carrier_that_appears_puts_off_nothing_that_is_due_on_other_links(world: World) -> None:
    world.attach("mn1", "mar1")
    world.now += 0.5  # the advertisement of 0.1 s later is due
    world.carrier("mar1", "acc1")
    world.run(0.0)
    assert told_at(world) == [0.0, 0.5]


def test_an_advertisement_goes_to_the_node_alone(world: World) -> None:
    world.attach("mn1", "mar1")
    (action,) = on_link(world, RouterAdvertisement)
    packet = ipv6.decode(action.octets)
    assert (action.link_layer, packet.destination) == (world.hosts["mn1"].link_layer, world.hosts["mn1"].link_local)


def test_a_node_whose_address_is_not_known_is_told_in_a_frame_to_it_alone(world: World) -> None:
    world.host("mn1").link_local = None  # type: ignore[assignment]
    world.attach("mn1", "mar1")
    (action,) = on_link(world, RouterAdvertisement)
    assert (action.link_layer, ipv6.decode(action.octets).destination) == (world.hosts["mn1"].link_layer, ALL_NODES)


def test_a_node_hears_nothing_of_the_prefixes_of_others(world: World) -> None:
    world.attach("mn1", "mar1")
    world.attach("mn2", "mar1")
    world.run(1000.0)
    heard = {prefix for _, advertisement in world.hosts["mn2"].advertisements for prefix in offers(advertisement)}
    assert heard == {world.prefix("mn2", "mar1")}


def test_the_router_looks_the_same_everywhere(world: World) -> None:
    world.attach("mn1", "mar1")
    world.attach("mn2", "mar2")
    for mar in ("mar1", "mar2"):
        (action,) = on_link(world, RouterAdvertisement, mar)
        assert ipv6.decode(action.octets).source == FIXED


def test_an_advertisement_cannot_be_taken_for_one_from_far_away(world: World) -> None:
    world.attach("mn1", "mar1")
    (action,) = on_link(world, RouterAdvertisement)
    assert ipv6.decode(action.octets).hop_limit == 255


def test_an_advertisement_names_the_link_layer_address_and_the_smaller_mtu(world: World) -> None:
    world.attach("mn1", "mar1")
    advertisement = last(world)
    assert advertisement.option(SourceLinkLayerAddress) == SourceLinkLayerAddress(address=ROUTER_LINK_LAYER)
    assert advertisement.option(LinkMtu) == LinkMtu(mtu=1460)


def test_a_changed_mtu_is_told_at_once_and_in_all_advertisements_from_then_on(world: World) -> None:
    world.attach("mn1", "mar1")
    world.run_until(10.0)
    world.feed("mar1", TunnelMtuChanged(mtu=1352))
    world.run_until(400.0)
    told = [(round(at, 1), it.option(LinkMtu)) for at, it in world.hosts["mn1"].advertisements if at >= 10.0]
    assert told == [(at, LinkMtu(mtu=1352)) for at in (10.0, 10.1, 11.0, 311.0)]


def test_the_mtu_is_never_smaller_than_ipv6_allows() -> None:
    world = World(mars=1, tunnel_mtu=1000)
    world.attach("mn1", "mar1")
    assert last(world).option(LinkMtu) == LinkMtu(mtu=1280)


def test_a_prefix_is_for_addresses_and_on_link(world: World) -> None:
    world.attach("mn1", "mar1")
    (option,) = last(world).options_of(PrefixInformation)
    assert (option.autonomous, option.on_link, option.router_address) == (True, True, False)


def test_a_prefix_is_off_link_if_the_settings_say_so() -> None:
    world = World(mars=1, on_link=False)
    world.attach("mn1", "mar1")
    (option,) = last(world).options_of(PrefixInformation)
    assert (option.autonomous, option.on_link) == (True, False)


def test_the_lifetimes_are_those_of_the_settings() -> None:
    world = World(mars=1, valid_lifetime=5000, preferred_lifetime=600, router_lifetime=900)
    world.attach("mn1", "mar1")
    assert offers(last(world)) == {world.prefix("mn1", "mar1"): (5000, 600)}
    assert last(world).router_lifetime == 900


def test_no_prefix_is_preferred_for_longer_than_it_is_valid() -> None:
    world = World(mars=1, valid_lifetime=300, preferred_lifetime=600)
    world.attach("mn1", "mar1")
    assert offers(last(world)) == {world.prefix("mn1", "mar1"): (300, 300)}


# --- when ------------------------------------------------------------------------------------------------------


def test_an_advertisement_is_repeated_a_tenth_of_a_second_and_a_second_after_a_change(world: World) -> None:
    world.attach("mn1", "mar1")
    world.run_until(100.0)
    assert told_at(world) == [0.0, 0.1, 1.0]


def test_after_that_an_advertisement_comes_at_the_interval(world: World) -> None:
    world.attach("mn1", "mar1")
    world.run_until(1000.0)
    assert told_at(world)[3:] == [301.0, 601.0, 901.0]


def test_a_change_begins_the_repetitions_again() -> None:
    world = moved()
    since = [round(at - 10.021, 3) for at in told_at(world) if at > 10.0]
    assert since == [0.0, 0.1, 1.0]


def test_a_node_that_solicits_again_is_answered_at_once(world: World) -> None:
    world.attach("mn1", "mar1")
    world.run_until(50.0)
    world.show("mn1", "rs")
    assert told_at(world)[-1] == 50.0


def test_a_node_that_only_shows_itself_is_told_nothing(world: World) -> None:
    world.attach("mn1", "mar1")
    world.run_until(50.0)
    world.show("mn1", "packet")
    assert told_at(world)[-1] == 1.0


def test_a_preferred_prefix_stays_preferred_as_long_as_the_node_is_there(world: World) -> None:
    world.attach("mn1", "mar1")
    for until in range(1000, 20_000, 1000):
        world.run_until(float(until))
        assert world.preferred("mn1") == [world.prefix("mn1", "mar1")]


def test_a_node_that_left_is_told_nothing_any_more(world: World) -> None:
    world.attach("mn1", "mar1")
    world.run_until(0.05)
    world.detach("mn1")
    world.run_until(1000.0)
    assert len(on_link(world, RouterAdvertisement)) == 1


# --- prefixes from elsewhere -------------------------------------------------------------------------------


def test_an_old_prefix_is_offered_with_preferred_lifetime_zero() -> None:
    world = moved()
    assert offers(last(world)) == {
        world.prefix("mn1", "mar2"): (7200, 1800),
        world.prefix("mn1", "mar1"): (7200, 0),
    }


def test_an_old_prefix_is_in_every_complete_advertisement_as_long_as_the_node_visits() -> None:
    world = moved()
    told = len(complete(world))
    world.run_until(2000.0)
    later = [offers(advertisement) for _, advertisement in complete(world)[told:]]
    assert len(later) > 3
    assert all(world.prefix("mn1", "mar1") in it for it in later)


@pytest.mark.parametrize("kept", [True, False], ids=["offered", "withdrawn"])
def test_a_host_that_was_told_to_deprecate_is_made_to_look_at_its_addresses_once_more(kept: bool) -> None:
    world = moved() if kept else refused_refresh()
    heard = [(round(at, 6), offers(it)) for at, it in world.hosts["mn1"].advertisements if at > 10.0]
    old = [at for at, told in heard if 0 in {preferred for _, preferred in told.values()}]
    again = [(at, told) for at, told in heard if at not in old]
    assert len(old) >= 3
    assert [told for _, told in again] == [{world.prefix("mn1", "mar2"): (7200, 1800)}] * len(again)
    assert {round(at + LOOK_AGAIN, 6) for at in old} <= {at for at, _ in again}


def test_where_nothing_is_preferred_it_looks_again_for_one_that_is_not() -> None:
    world = moved()
    world.order("mar2", world["mar2"].mar.begin_drain(60.0, world.now))
    world.run(0.5)
    told = [offers(it) for _, it in world.hosts["mn1"].advertisements[-4:]]
    both = {world.prefix("mn1", "mar2"): (7200, 0), world.prefix("mn1", "mar1"): (7200, 0)}
    one = {world.prefix("mn1", "mar2"): (7200, 0)}
    assert told == [both, one, both, one]


def test_a_node_that_solicits_meanwhile_is_told_all() -> None:
    world = moved()
    world.run_until(311.021)  # the next advertisement of all; the loop is late for the one behind it
    world.hosts["mn1"].advertisements.clear()
    link = world["mar2"].mar.access
    (who,) = link.attached
    (action,) = world["mar2"].mar.offers.again(who, world.now + 2 * LOOK_AGAIN)
    assert len(list(action.message.options_of(PrefixInformation))) == 2


def test_one_alone_is_deprecated_without_another_look(world: World) -> None:
    world.attach("mn1", "mar1")
    world.run_until(10.0)
    world.order("mar1", world["mar1"].mar.begin_drain(60.0, world.now))
    world.run(0.5)
    told = [(round(at, 6), offers(it)) for at, it in world.hosts["mn1"].advertisements if at >= 10.0]
    assert told == [(at, {world.prefix("mn1", "mar1"): (7200, 0)}) for at in (10.0, 10.1)]


def test_the_own_prefix_is_offered_before_an_anchor_has_answered() -> None:
    world = World(mars=2)
    world.attach("mn1", "mar1")
    world.run_until(10.0)
    world.lose(100, BindingUpdate)
    world.move("mn1", "mar2")
    assert offers(last(world)) == {world.prefix("mn1", "mar2"): (7200, 1800)}


def test_an_old_prefix_is_not_offered_before_its_anchor_has_accepted() -> None:
    world = World(mars=2)
    world.attach("mn1", "mar1")
    world.run_until(10.0)
    world.lose(100, BindingUpdate)
    world.move("mn1", "mar2")
    world.run_until(40.0)
    assert list(offers(last(world))) == [world.prefix("mn1", "mar2")]


def test_an_old_prefix_is_valid_no_longer_than_its_anchor_says() -> None:
    world = World(mars=2, valid_lifetime=600, preferred_lifetime=300)
    world.attach("mn1", "mar1")
    world.run_until(10.0)
    world.move("mn1", "mar2")
    world.run_until(11.0)
    assert offers(last(world))[world.prefix("mn1", "mar1")] == (600, 0)


def test_where_no_prefix_can_be_lent_an_old_one_stays_preferred() -> None:
    world = World(mars=2, max_bindings=1)
    world.attach("mn2", "mar2")
    world.attach("mn1", "mar1")
    world.run_until(10.0)
    world.move("mn1", "mar2")
    world.run_until(11.0)
    assert world.preferred("mn1") == [world.prefix("mn1", "mar1")]


def refused_refresh() -> World:
    """The anchor of an old prefix refuses to go on."""
    world = moved()
    world.run_until(100.0)
    world["mar1"].mar.anchor.cache.remove(world["mar1"].mar.anchor.cache.of("mn1")[0])
    world.run_until(270.5)
    return world


def test_a_prefix_that_its_anchor_refuses_to_refresh_is_withdrawn() -> None:
    world = refused_refresh()
    assert offers(last(world))[IPv6Network("2001:db8:100::/64")] == (0, 0)


def test_a_withdrawal_is_repeated_because_one_may_be_lost() -> None:
    world = refused_refresh()
    world.run_until(276.0)
    offered = [offers(it).get(IPv6Network("2001:db8:100::/64")) for _, it in complete(world)]
    assert offered[-4] != (0, 0)
    assert offered[-3:] == [(0, 0)] * 3


def test_a_prefix_that_was_never_offered_is_not_withdrawn() -> None:
    world = World(mars=2)
    world.attach("mn1", "mar1")
    world.run_until(10.0)
    world["mar1"].mar.anchor.cache.remove(world["mar1"].mar.anchor.cache.of("mn1")[0])
    world.move("mn1", "mar2")
    world.run_until(30.0)
    heard = [offers(advertisement) for at, advertisement in world.hosts["mn1"].advertisements if at >= 10.0]
    assert all(list(it) == [world.prefix("mn1", "mar2")] for it in heard)


# --- carriers --------------------------------------------------------------------------------------------------


def test_a_carrier_makes_the_router_ask_who_is_there(world: World) -> None:
    assert [type(action.message) for action in world["mar1"].did(SendOnLink)] == [MulticastListenerQuery, EchoRequest]


def test_the_question_goes_to_all_nodes(world: World) -> None:
    action = world["mar1"].did(SendOnLink)[0]
    assert (action.link_layer, ipv6.decode(action.octets).destination) == (ALL_NODES_LINK_LAYER, ALL_NODES)


def test_the_question_is_repeated_with_growing_pauses(world: World) -> None:
    world.run_until(10.0)
    times = [at for at, it in world["mar1"].done if isinstance(it, SendOnLink) and isinstance(it.message, EchoRequest)]
    assert times == pytest.approx([0.0, 0.001, 0.003, 0.006, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28])


def test_nobody_is_asked_for_any_more_when_somebody_showed_up(world: World) -> None:
    world.run_until(0.002)
    world.attach("mn1", "mar1")
    world.run_until(10.0)
    assert len(on_link(world, EchoRequest)) == 2


def test_a_host_that_is_there_when_the_carrier_appears_is_attached_by_its_answer(world: World) -> None:
    world.host("mn1").at = "mar1"
    world.carrier("mar1", INTERFACE)
    world.run(0.01)
    assert world.preferred("mn1") == [world.prefix("mn1", "mar1")]


def test_a_lost_carrier_takes_everybody_with_it(world: World) -> None:
    world.attach("mn1", "mar1")
    world.attach("mn2", "mar1")
    world.carrier_lost("mar1")
    assert world["mar1"].mar.access.attached == {}


def test_a_lost_carrier_is_not_solicited_on(world: World) -> None:
    world.carrier_lost("mar1")
    world.run_until(10.0)
    assert len(on_link(world, EchoRequest)) == 1


# --- presence --------------------------------------------------------------------------------------------------


def probes(world: World) -> list[float]:
    return [round(at, 6) for at, message in world.hosts["mn1"].asked if isinstance(message, NeighborSolicitation)]


def test_a_node_that_talks_is_not_asked(world: World) -> None:
    world.attach("mn1", "mar1")
    for second in range(1, 100):
        world.later(float(second), lambda: world.show("mn1", "packet"))
    world.run_until(100.0)
    assert probes(world) == []


def test_a_node_that_is_silent_is_asked_and_its_answer_counts(world: World) -> None:
    world.attach("mn1", "mar1")
    world.run_until(65.0)
    assert probes(world) == pytest.approx([30.0, 60.001])
    assert "mn1" in world["mar1"].mar.here


def test_a_node_is_not_asked_if_the_settings_say_so() -> None:
    world = World(mars=1, probe_every=0.0)
    world.attach("mn1", "mar1")
    world.run_until(1000.0)
    assert probes(world) == []


def test_a_node_that_does_not_answer_three_times_is_gone(world: World) -> None:
    world.attach("mn1", "mar1")
    world.hosts["mn1"].silent = True
    world.run_until(32.9)
    before = "mn1" in world["mar1"].mar.here
    world.run_until(33.1)
    assert (before, "mn1" in world["mar1"].mar.here) == (True, False)
    assert probes(world) == [30.0, 31.0, 32.0]


def test_a_node_that_answers_late_stays(world: World) -> None:
    world.attach("mn1", "mar1")
    world.hosts["mn1"].silent = True
    world.run_until(32.5)
    world.show("mn1", "na")
    world.run_until(40.0)
    assert "mn1" in world["mar1"].mar.here


def test_a_doubted_node_is_asked_at_once_and_quickly(world: World) -> None:
    world.attach("mn1", "mar1")
    world.hosts["mn1"].silent = True
    world.run_until(10.0)
    world.feed("mar1", NodeDoubted(node="mn1"))
    world.run_until(10.4)
    assert probes(world) == pytest.approx([10.0, 10.1, 10.2])
    assert "mn1" not in world["mar1"].mar.here


def test_a_doubted_node_that_answers_stays(world: World) -> None:
    world.attach("mn1", "mar1")
    world.run_until(10.0)
    world.feed("mar1", NodeDoubted(node="mn1"))
    world.run_until(20.0)
    assert "mn1" in world["mar1"].mar.here
    assert probes(world) == [10.0]


def test_to_doubt_a_node_that_is_not_here_does_nothing(world: World) -> None:
    world.run_until(10.0)
    assert world.feed("mar1", NodeDoubted(node="mn1")) == []


def test_a_probe_is_addressed_to_the_node(world: World) -> None:
    world.attach("mn1", "mar1")
    world.run_until(31.0)
    (action,) = on_link(world, NeighborSolicitation)
    packet = ipv6.decode(action.octets)
    message = neighbor.decode(packet.payload, packet.source, packet.destination, packet.hop_limit)
    assert (packet.destination, action.link_layer) == (world.hosts["mn1"].link_local, world.hosts["mn1"].link_layer)
    assert isinstance(message, NeighborSolicitation)
    assert message.target == world.hosts["mn1"].link_local


def test_a_doubted_node_without_a_known_address_is_asked_as_all_nodes_are(world: World) -> None:
    world.host("mn1").link_local = None  # type: ignore[assignment]
    world.attach("mn1", "mar1")
    world.run_until(10.0)
    world.feed("mar1", NodeDoubted(node="mn1"))
    asked = [type(message) for at, message in world.hosts["mn1"].asked if at == 10.0]
    assert asked == [EchoRequest, MulticastListenerQuery]


def test_the_driver_is_told_who_is_expected_where_and_who_no_more(world: World) -> None:
    world.attach("mn1", "mar1")
    world.detach("mn1")
    assert [action.interface for action in world["mar1"].did(ExpectNode)] == [INTERFACE, None]


def test_a_node_that_comes_to_another_interface_is_attached_there(world: World) -> None:
    world.attach("mn1", "mar1")
    world.carrier("mar1", "lan1")
    world.attach("mn1", "mar1", interface="lan1")
    (action,) = [it for it in on_link(world, RouterAdvertisement) if it.interface == "lan1"]
    assert action.node == "mn1"
