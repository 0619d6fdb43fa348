"""IPv4 home addresses, delegated prefixes, GRE keys and UDP: what a session gets beside its prefix."""

import itertools
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Network

import pytest

from signaling.actions import Action, GiveAddress, Send, TowardAnchor
from signaling.events import AddressAsked, AddressReleased
from signaling.iana import Ipv4HomeAddressStatus, Status
from signaling.pmip.probe import carries_probe
from signaling.settings import Wants
from signaling.wire.heartbeat import Heartbeat
from signaling.wire.options.ipv4 import Ipv4HomeAddressReply, Ipv4HomeAddressRequest
from signaling.wire.options.multipath import MagMultipathBinding
from signaling.wire.options.option import Option
from signaling.wire.options.prefix import DelegatedMobileNetworkPrefix, HomeNetworkPrefix
from signaling.wire.options.tunnel import GreKey, NatDetection
from tests.signaling.pmip.pmip_world import INTERFACE, LTE, WLAN, World, attached

ADDRESS = IPv4Network("192.0.2.7/32")
DELEGATED = IPv6Network("2001:db8:d00::/56")


def ask(world: World, wants: Wants) -> list[Action]:
    link_layer = world.hosts["mn1"].link_layer
    return world.feed(AddressAsked(node="mn1", interface=INTERFACE, link_layer=link_layer, wants=wants))


def gifts(world: World) -> list[GiveAddress]:
    return world.mag.did(GiveAddress)


# --- IPv4 ------------------------------------------------------------------------------------------------------------


def test_a_node_that_asks_for_ipv4_gets_what_the_anchor_gives() -> None:
    world = attached()
    ask(world, Wants.IPV4)
    world.run(1.0)
    (gift,) = gifts(world)
    assert (gift.prefix, gift.subnet_length, gift.default_router) == (ADDRESS, 24, IPv4Address("192.0.2.1"))
    assert isinstance(world.mag.paths[ADDRESS], TowardAnchor)


def test_the_session_is_extended_in_the_turn_of_the_question() -> None:
    world = attached()
    ask(world, Wants.IPV4)
    world.run(0.1)
    assert [it.update.option(Ipv4HomeAddressRequest) is not None for it in world.lma.updates] == [False, True]


def test_who_asks_before_the_anchor_has_answered_is_answered_after_it() -> None:
    world = World()
    world.attach("mn1")
    ask(world, Wants.IPV4)
    world.run(1.0)
    assert [gift.prefix for gift in gifts(world)] == [ADDRESS]


def test_who_asks_again_is_answered_at_once() -> None:
    world = attached()
    ask(world, Wants.IPV4)
    world.run(1.0)
    assert [action.prefix for action in ask(world, Wants.IPV4) if isinstance(action, GiveAddress)] == [ADDRESS]


def test_the_refresh_names_address_and_length() -> None:
    world = attached()
    ask(world, Wants.IPV4)
    world.keep_talking("mn1", 300.0)
    option = world.lma.updates[-1].update.option(Ipv4HomeAddressRequest)
    assert option == Ipv4HomeAddressRequest(address=IPv4Address("192.0.2.7"), prefix_length=24)


def test_no_reply_option_turns_ipv4_off_and_leaves_ipv6_alone() -> None:
    world = attached()
    world.lma.ipv4 = False
    ask(world, Wants.IPV4)
    world.run(1.0)
    assert [gift.prefix for gift in gifts(world)] == [None]
    assert list(world.mag.paths) == [world.prefix("mn1")]
    ask(world, Wants.IPV4)
    world.run(1.0)
    assert len(world.lma.updates) == 2


@pytest.mark.parametrize("status", [128, 129, 130, 132])
def test_a_reply_that_refuses_turns_ipv4_off(status: int) -> None:
    world = attached()
    refusal = Ipv4HomeAddressReply(
        status=Ipv4HomeAddressStatus(status), address=IPv4Address("192.0.2.7"), prefix_length=24
    )
    world.lma.edit = lambda update, ack: replace(
        ack, options=tuple(refusal if isinstance(it, Ipv4HomeAddressReply) else it for it in ack.options)
    )
    ask(world, Wants.IPV4)
    world.run(1.0)
    assert [gift.prefix for gift in gifts(world)] == [None]


def test_status_170_is_told_to_who_asked() -> None:
    world = attached()
    world.lma.refusals = [Status.NOT_AUTHORIZED_FOR_IPV4_MOBILITY_SERVICE]
    ask(world, Wants.IPV4)
    world.run(1.0)
    assert [gift.prefix for gift in gifts(world)] == [None]
    assert list(world.mag.paths) == [world.prefix("mn1")]


def test_status_171_keeps_who_asked_waiting_for_another_address() -> None:
    world = attached()
    world.lma.refusals = [Status.NOT_AUTHORIZED_FOR_IPV4_HOME_ADDRESS]
    link_layer = world.hosts["mn1"].link_layer
    hint = IPv4Network("10.0.0.9/32")
    world.feed(AddressAsked(node="mn1", interface=INTERFACE, link_layer=link_layer, wants=Wants.IPV4, hint=hint))
    world.run(1.0)
    assert [gift.prefix for gift in gifts(world)] == [ADDRESS]


def test_an_address_is_withdrawn_with_its_session() -> None:
    world = attached()
    ask(world, Wants.IPV4)
    world.run(1.0)
    world.revoke(1, *world.lma.answer(world.lma.updates[-1].update).options[:1])
    assert [gift.prefix for gift in gifts(world)] == [ADDRESS, None]


def test_who_is_not_attached_gets_nothing() -> None:
    world = World()
    world.host("mn1")
    (gift,) = ask(world, Wants.IPV4)
    assert isinstance(gift, GiveAddress)
    assert gift.prefix is None


def release(world: World) -> None:
    link_layer = world.hosts["mn1"].link_layer
    event = AddressReleased(
        node="mn1", interface=INTERFACE, link_layer=link_layer, wants=Wants.IPV4, prefix=ADDRESS, reason="release"
    )
    world.feed(event)


def test_what_is_released_is_bound_no_more_and_not_asked_for_again() -> None:
    world = attached()
    ask(world, Wants.IPV4)
    world.run(1.0)
    release(world)
    world.run(1.0)
    assert list(world.mag.paths) == [world.prefix("mn1")]
    assert world.lma.updates[-1].update.option(Ipv4HomeAddressRequest) is None


def test_to_release_is_a_deregistration_of_ipv4_alone() -> None:
    world = World(uplinks=(WLAN, LTE))
    world.attach("mn1")
    world.run(1.0)
    ask(world, Wants.IPV4)
    world.run(1.0)
    release(world)
    world.run(0.05)
    update = next(it.update for it in world.lma.updates if it.update.lifetime == 0)
    assert update.option(Ipv4HomeAddressRequest) == Ipv4HomeAddressRequest(
        address=IPv4Address("192.0.2.7"), prefix_length=24
    )
    assert update.option(HomeNetworkPrefix) is None
    assert update.option(MagMultipathBinding) is None
    world.run(1.0)
    path = world.mag.paths[world.prefix("mn1")]
    assert isinstance(path, TowardAnchor)
    assert len(path.tunnels) == 2


def test_a_release_is_repeated_until_the_anchor_has_heard_it() -> None:
    world = attached()
    ask(world, Wants.IPV4)
    world.run(1.0)
    world.lma.silent = True
    release(world)
    world.run(5.0)
    world.lma.silent = False
    world.keep_talking("mn1", 30.0)
    released = [it.at for it in world.lma.updates if it.update.lifetime == 0]
    assert len(released) == 4
    assert [round(later - at) for at, later in itertools.pairwise(released)] == [1, 2, 4]
    assert list(world.mag.paths) == [world.prefix("mn1")]


def test_who_asks_again_after_a_release_is_served_again() -> None:
    world = attached()
    ask(world, Wants.IPV4)
    world.run(1.0)
    release(world)
    ask(world, Wants.IPV4)
    world.run(1.0)
    assert [gift.prefix for gift in gifts(world)] == [ADDRESS, None, ADDRESS]


def test_ipv4_is_asked_for_with_the_first_update_where_it_is_so_configured() -> None:
    world = attached(ipv4=True)
    assert world.lma.updates[0].update.option(Ipv4HomeAddressRequest) == Ipv4HomeAddressRequest()
    assert [gift.prefix for gift in gifts(world)] == [ADDRESS]


def test_an_anchor_without_an_address_left_serves_ipv6_until_the_node_asks_again() -> None:
    world = World(ipv4=True)
    world.lma.refusals = [Status.INSUFFICIENT_RESOURCES]
    refusal = Ipv4HomeAddressReply(
        status=Ipv4HomeAddressStatus.REASON_UNSPECIFIED, address=IPv4Address(0), prefix_length=0
    )
    world.lma.edit = lambda update, ack: (
        ack if ack.accepted else replace(ack, options=(*_without_ipv4(ack.options), refusal))
    )
    world.attach("mn1")
    world.run(1.0)
    assert list(world.mag.paths) == [world.prefix("mn1")]
    ask(world, Wants.IPV4)
    world.run(1.0)
    assert ADDRESS in world.mag.paths


def _without_ipv4(options: tuple[Option, ...]) -> list[Option]:
    return [it for it in options if not isinstance(it, Ipv4HomeAddressReply)]


# --- delegated prefixes (RFC 7148) -----------------------------------------------------------------------------------


def test_a_delegated_prefix_lies_behind_the_node() -> None:
    world = attached()
    ask(world, Wants.DELEGATED)
    world.run(1.0)
    path = world.mag.paths[DELEGATED]
    assert isinstance(path, TowardAnchor)
    assert (path.interface, path.gateway) == (INTERFACE, world.hosts["mn1"].link_local)
    assert [(gift.wants, gift.prefix) for gift in gifts(world)] == [(Wants.DELEGATED, DELEGATED)]


def test_a_delegated_prefix_is_not_advertised_on_the_link() -> None:
    world = attached()
    ask(world, Wants.DELEGATED)
    world.run(1.0)
    assert list(world.hosts["mn1"].offered()) == [world.prefix("mn1")]


def test_the_refresh_names_the_delegated_prefix() -> None:
    world = attached()
    ask(world, Wants.DELEGATED)
    world.keep_talking("mn1", 300.0)
    option = world.lma.updates[-1].update.option(DelegatedMobileNetworkPrefix)
    assert option == DelegatedMobileNetworkPrefix(prefix=DELEGATED)


def test_an_anchor_that_ignores_the_option_delegates_nothing() -> None:
    world = attached()
    world.lma.edit = lambda update, ack: replace(
        ack, options=tuple(it for it in ack.options if not isinstance(it, DelegatedMobileNetworkPrefix))
    )
    ask(world, Wants.DELEGATED)
    world.run(1.0)
    assert [gift.prefix for gift in gifts(world)] == [None]


def test_status_177_delegates_nothing_and_serves_on() -> None:
    world = attached()
    world.lma.refusals = [Status.NOT_AUTHORIZED_FOR_DELEGATED_MNP]
    ask(world, Wants.DELEGATED)
    world.run(1.0)
    assert [gift.prefix for gift in gifts(world)] == [None]
    assert isinstance(world.mag.paths[world.prefix("mn1")], TowardAnchor)


def test_status_178_asks_for_any_delegated_prefix() -> None:
    world = attached()
    world.lma.refusals = [Status.REQUESTED_DMNP_IN_USE]
    hint = IPv6Network("2001:db8:dd00::/56")
    link_layer = world.hosts["mn1"].link_layer
    world.feed(
        AddressAsked(node="mn1", interface=INTERFACE, link_layer=link_layer, wants=Wants.DELEGATED, hint=hint)
    )
    world.run(1.0)
    asked = [it.update.option(DelegatedMobileNetworkPrefix) for it in world.lma.updates[1:]]
    assert [option.prefix for option in asked if option] == [hint, IPv6Network("::/0")]
    assert DELEGATED in world.mag.paths


def test_what_the_node_had_at_another_gateway_is_taken_unasked() -> None:
    world = World()
    given = DelegatedMobileNetworkPrefix(prefix=DELEGATED)
    world.lma.edit = lambda update, ack: (
        ack if ack.option(DelegatedMobileNetworkPrefix) else replace(ack, options=(*ack.options, given))
    )
    world.attach("mn1")
    world.keep_talking("mn1", 300.0)
    path = world.mag.paths[DELEGATED]
    assert isinstance(path, TowardAnchor)
    assert path.gateway == world.hosts["mn1"].link_local
    assert world.lma.updates[-1].update.option(DelegatedMobileNetworkPrefix) == given


# --- a NAT -----------------------------------------------------------------------------------------------------------


def test_through_a_nat_data_and_probes_are_in_udp() -> None:
    world = World()
    nat = NatDetection(force_udp=False, refresh_time=110)
    world.lma.edit = lambda update, ack: replace(ack, options=(*ack.options, nat))
    world.attach("mn1")
    world.run(1.0)
    path = world.mag.paths[world.prefix("mn1")]
    assert isinstance(path, TowardAnchor)
    assert [tunnel.port for tunnel in path.tunnels] == [5437]
    beats = [it for it in world.mag.did(Send) if isinstance(it.message, Heartbeat)]
    probes = [it for it in beats if carries_probe(it.message)]
    assert {(it.beside_data, it.port) for it in probes} == {(True, 5437)}


# --- GRE (RFC 5845) --------------------------------------------------------------------------------------------------


def test_every_path_of_a_session_has_keys_of_its_own() -> None:
    world = World(uplinks=(WLAN, LTE), gre_keys=True)
    world.lma.gre = True
    world.attach("mn1")
    world.run(1.0)
    (path,) = world.mag.paths.values()
    assert isinstance(path, TowardAnchor)
    assert [tunnel.key_out for tunnel in path.tunnels] == [0xA1, 0xA2]
    assert len({tunnel.key_in for tunnel in path.tunnels}) == 2


def test_a_refresh_repeats_the_key_and_the_end_has_none() -> None:
    world = World(gre_keys=True)
    world.lma.gre = True
    world.attach("mn1")
    world.keep_talking("mn1", 300.0)
    world.detach("mn1")
    world.run(3.0)
    keys = [it.update.option(GreKey) for it in world.lma.updates]
    assert (keys[0] == keys[1] is not None, keys[2]) == (True, None)


def test_status_2_does_without_gre_for_this_session() -> None:
    world = World(gre_keys=True)
    world.lma.edit = lambda update, ack: replace(ack, status=Status.GRE_KEY_OPTION_NOT_REQUIRED)
    world.attach("mn1")
    world.keep_talking("mn1", 300.0)
    world.attach("mn2")
    world.run(1.0)
    assert [it.update.option(GreKey) is not None for it in world.lma.updates] == [True, False, True]
    path = world.mag.paths[world.prefix("mn1")]
    assert isinstance(path, TowardAnchor)
    assert path.tunnels[0].key_in is None


def test_an_anchor_that_does_not_know_gre_is_not_asked_for_it_again() -> None:
    world = World(gre_keys=True)
    world.attach("mn1")
    world.run(1.0)
    world.attach("mn2")
    world.run(1.0)
    assert [it.update.option(GreKey) is not None for it in world.lma.updates] == [True, False]


def test_status_163_is_final_where_tunnels_can_have_no_keys() -> None:
    world = World(gre_tunnels=False)
    world.lma.refusals = [Status.GRE_KEY_OPTION_REQUIRED]
    world.attach("mn1")
    world.run(1.0)
    assert len(world.lma.updates) == 1
    assert world.mag.paths == {}
