"""IPv4 home addresses (RFC 5844), GRE keys (RFC 5845), delegated prefixes (RFC 7148), services (RFC 5149)."""

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import pytest

from signaling.actions import Action, Bind, SaveBinding, Send, TowardVisited, TunnelEnd, Unbind
from signaling.events import BindingsRestored
from signaling.freshness import Freshness
from signaling.iana import BindingUpdateFlag, Ipv4HomeAddressStatus, Status
from signaling.pmip.probe import Probe, options_of
from signaling.settings import NodeProfile, Peer
from signaling.update_request import ALL_ZERO
from signaling.wire.heartbeat import Heartbeat
from signaling.wire.options.care_of import Ipv4CareOfAddress
from signaling.wire.options.identity import ServiceSelection
from signaling.wire.options.ipv4 import Ipv4DefaultRouterAddress, Ipv4HomeAddressReply, Ipv4HomeAddressRequest
from signaling.wire.options.prefix import DelegatedMobileNetworkPrefix, HomeNetworkPrefix
from signaling.wire.options.tunnel import GreKey, NatDetection
from tests.signaling.pmip.lma_scene import (
    IF2,
    KEY,
    LMA4,
    MAGS,
    PEERS,
    Scene,
    answer,
    done,
    home,
    kinds,
    multipath,
    paths,
)

SUBNET = IPv4Network("203.0.113.0/29")  # router .1, nodes .2 to .6
FIRST = IPv4Address("203.0.113.2")
ANY4 = Ipv4HomeAddressRequest()
MAG4 = IPv4Address("198.51.100.1")
FLAGS = BindingUpdateFlag.ACKNOWLEDGE | BindingUpdateFlag.PROXY_REGISTRATION
FORCED = FLAGS | BindingUpdateFlag.FORCING_UDP_ENCAPSULATION


def wants(address: IPv4Address) -> Ipv4HomeAddressRequest:
    return Ipv4HomeAddressRequest(address=address, prefix_length=29)


def dual(**settings: object) -> Scene:
    return Scene(ipv4_pools=(SUBNET,), **settings)


def host(address: IPv4Address) -> IPv4Network:
    return IPv4Network(address)


# --- the table of RFC 5844 3.1.2 ----------------------------------------------------------------------------------


def test_0_0_0_0_gets_an_address_its_length_and_its_router() -> None:
    scene = dual()
    turn = scene.say(more=(ANY4,))
    ack = answer(turn)
    expected = Ipv4HomeAddressReply(status=Ipv4HomeAddressStatus.SUCCESS, address=FIRST, prefix_length=29)
    assert ack.option(Ipv4HomeAddressReply) == expected
    assert ack.option(Ipv4DefaultRouterAddress) == Ipv4DefaultRouterAddress(address=IPv4Address("203.0.113.1"))
    assert set(paths(turn)) == {home(ack)[0], host(FIRST)}


def test_ipv4_alone_is_answered_without_any_prefix() -> None:
    ack = dual().ack(prefixes=None, more=(ANY4,))
    assert (ack.status, ack.option(HomeNetworkPrefix)) == (0, None)


def test_no_address_left_is_130_with_reply_status_128() -> None:
    scene = Scene(ipv4_pools=(IPv4Network("203.0.113.0/30"),))
    scene.say(more=(ANY4,))
    ack = scene.ack(node="mn2", more=(ANY4,))
    reply = ack.option(Ipv4HomeAddressReply)
    assert (ack.status, reply and reply.status) == (Status.INSUFFICIENT_RESOURCES, 128)


def test_an_anchor_without_ipv4_says_so_with_170() -> None:
    scene = Scene()
    assert scene.status(more=(ANY4,)) == Status.NOT_AUTHORIZED_FOR_IPV4_MOBILITY_SERVICE
    assert len(scene.cache) == 0


def test_an_address_that_is_not_ours_is_171_with_reply_status_129() -> None:
    ack = dual().ack(more=(wants(IPv4Address("198.51.100.9")),))
    reply = ack.option(Ipv4HomeAddressReply)
    assert (ack.status, reply and reply.status) == (Status.NOT_AUTHORIZED_FOR_IPV4_HOME_ADDRESS, 129)


@pytest.mark.parametrize("taken", ["203.0.113.0", "203.0.113.1", "203.0.113.7"])
def test_network_router_and_broadcast_address_are_no_nodes(taken: str) -> None:
    ack = dual().ack(more=(wants(IPv4Address(taken)),))
    assert ack.status == Status.NOT_AUTHORIZED_FOR_IPV4_HOME_ADDRESS


def test_a_specific_address_of_ours_is_given() -> None:
    mine = IPv4Address("203.0.113.5")
    reply = dual().ack(more=(wants(mine),)).option(Ipv4HomeAddressReply)
    assert reply is not None
    assert reply.address == mine


@pytest.mark.parametrize("named", ["0.0.0.0", "203.0.113.6"])
def test_an_address_that_is_fixed_for_two_nodes_is_of_the_first_and_the_other_is_refused(named: str) -> None:
    fixed = IPv4Address("203.0.113.6")
    scene = dual(profiles=tuple(NodeProfile(node=node, ipv4_address=fixed) for node in ("mn1", "mn2")))
    first = scene.ack(node="mn1", more=(ANY4,)).option(Ipv4HomeAddressReply)
    assert first is not None
    assert first.address == fixed
    second = scene.ack(node="mn2", more=(wants(IPv4Address(named)),))
    assert second.status == Status.NOT_AUTHORIZED_FOR_IPV4_HOME_ADDRESS


def test_the_fixed_address_of_a_profile_is_given() -> None:
    fixed = IPv4Address("203.0.113.6")
    scene = dual(profiles=(NodeProfile(node="mn2", ipv4_address=fixed),))
    reply = scene.ack(node="mn2", more=(ANY4,)).option(Ipv4HomeAddressReply)
    assert reply is not None
    assert reply.address == fixed
    assert scene.status(more=(wants(fixed),)) == Status.NOT_AUTHORIZED_FOR_IPV4_HOME_ADDRESS


def test_the_address_of_another_node_is_171() -> None:
    scene = dual()
    scene.say(more=(ANY4,))
    status = scene.status(node="mn2", prefixes=None, more=(wants(FIRST),))
    assert status == Status.NOT_AUTHORIZED_FOR_IPV4_HOME_ADDRESS


def test_an_address_alone_is_the_key_of_the_look_up() -> None:
    scene = dual()
    scene.say(prefixes=None, more=(ANY4,))
    turn = scene.say("mag2", prefixes=None, hi=3, more=(wants(FIRST),))
    assert set(paths(turn)) == {host(FIRST)}
    assert scene.session.gateway == "mag2"


def test_a_session_with_ipv6_only_may_ask_for_ipv4_later() -> None:
    scene = dual()
    prefix = scene.attach()
    turn = scene.say(prefixes=(prefix,), hi=5, more=(ANY4,))
    assert set(paths(turn)) == {prefix, host(FIRST)}
    assert done(turn, SaveBinding)
    assert len(scene.cache) == 1


def test_a_refresh_of_both_families_touches_nothing() -> None:
    scene = dual()
    (prefix,) = home(scene.ack(more=(ANY4,)))
    assert kinds(scene.say(prefixes=(prefix,), hi=5, more=(wants(FIRST),))) == ["Send"]


def test_a_handoff_without_the_ipv4_request_releases_the_address() -> None:
    scene = dual()
    (prefix,) = home(scene.ack(more=(ANY4,)))
    turn = scene.say("mag2", prefixes=(prefix,), hi=3)
    assert [it.prefix for it in done(turn, Unbind)] == [host(FIRST)]
    assert scene.session.ipv4_home is None


def test_a_handoff_without_the_prefix_releases_the_prefix() -> None:
    scene = dual()
    (prefix,) = home(scene.ack(more=(ANY4,)))
    turn = scene.say("mag2", prefixes=None, hi=3, more=(wants(FIRST),))
    assert [it.prefix for it in done(turn, Unbind)] == [prefix]


def test_a_deregistration_of_ipv4_alone_keeps_ipv6() -> None:
    scene = dual()
    (prefix,) = home(scene.ack(more=(ANY4,)))
    turn = scene.say(prefixes=None, hi=4, lifetime=0, more=(wants(FIRST),))
    assert [it.prefix for it in done(turn, Unbind)] == [host(FIRST)]
    assert (scene.session.prefixes, scene.session.leaving) == ((prefix,), False)


def test_a_deregistration_of_ipv6_alone_keeps_ipv4() -> None:
    scene = dual()
    (prefix,) = home(scene.ack(more=(ANY4,)))
    turn = scene.say(prefixes=(prefix,), hi=4, lifetime=0)
    assert [it.prefix for it in done(turn, Unbind)] == [prefix]
    assert (scene.session.ipv4_home, scene.session.leaving) == (FIRST, False)


def test_a_deregistration_of_both_ends_the_session() -> None:
    scene = dual()
    (prefix,) = home(scene.ack(more=(ANY4,)))
    scene.say(prefixes=(prefix,), hi=4, lifetime=0, more=(wants(FIRST),))
    assert scene.session.leaving


def test_an_address_may_be_given_out_again_after_its_session() -> None:
    scene = Scene(ipv4_pools=(IPv4Network("203.0.113.0/30"),))
    (prefix,) = home(scene.ack(more=(ANY4,)))
    scene.say(prefixes=(prefix,), hi=4, lifetime=0, more=(wants(FIRST),))
    assert scene.status(node="mn2", more=(ANY4,)) == Status.INSUFFICIENT_RESOURCES
    scene.wait(12.0)
    assert scene.status(node="mn2", more=(ANY4,)) == 0


def test_addresses_and_delegations_come_back_after_a_restart() -> None:
    settings = {"delegated_pools": (IPv6Network("2001:db8:d00::/40"),)}
    scene = dual(**settings)
    scene.say(more=(ANY4, DelegatedMobileNetworkPrefix(prefix=ALL_ZERO)))
    after = dual(**settings)
    turn = after.lma.handle(BindingsRestored(bindings=(scene.session.saved(),)), after.now)
    assert set(paths(turn)) == set(scene.session.bound)
    reply = after.ack(node="mn2", more=(ANY4,)).option(Ipv4HomeAddressReply)
    assert reply is not None
    assert reply.address != FIRST


# --- IPv4 transport (RFC 5844 4) ----------------------------------------------------------------------------------


def over_ipv4(**settings: object) -> Scene:
    peers = (*PEERS, Peer(name="mag4", address=MAG4, key=KEY))
    return dual(peers=peers, **settings)


def test_over_ipv4_the_tunnel_is_between_the_ipv4_addresses() -> None:
    (path,) = paths(over_ipv4().say(MAG4, to=LMA4, port=6001)).values()
    assert isinstance(path, TowardVisited)
    (tunnel,) = path.tunnels
    assert (tunnel.remote, tunnel.local) == (MAG4, LMA4)


def test_forced_udp_that_is_granted_is_said_in_the_answer() -> None:
    scene = over_ipv4(accept_forced_udp=True)
    option = answer(scene.say(MAG4, to=LMA4, port=6001, flags=FORCED)).option(NatDetection)
    assert option is not None
    assert option.force_udp


def test_udp_that_was_not_asked_for_is_not_mentioned() -> None:
    assert answer(over_ipv4().say(MAG4, to=LMA4, port=6001)).option(NatDetection) is None


def test_over_ipv4_the_bid_alone_says_which_path_is_deregistered() -> None:
    scene = over_ipv4()
    (prefix,) = home(answer(scene.say(MAG4, to=LMA4, port=6001, more=multipath(1, mag_id="mag4"))))
    other = IPv4Address("198.51.100.2")
    scene.lma.door._fixed[other] = scene.lma.door.named("mag4")  # type: ignore[assignment]  # its other uplink
    scene.say(other, to=LMA4, port=6002, prefixes=(prefix,), more=multipath(2, mag_id="mag4"))
    scene.say(other, to=LMA4, port=6002, prefixes=(prefix,), hi=4, lifetime=0, more=multipath(1, mag_id="mag4"))
    assert [care_of.binding_id for care_of in scene.session.care_ofs] == [2]


# --- a NAT on the way ---------------------------------------------------------------------------------------------


INSIDE = Ipv4CareOfAddress(address=IPv4Address("192.168.1.2"))


def ways(turn: list[Action]) -> list[TunnelEnd]:
    (path,) = paths(turn).values()
    assert isinstance(path, TowardVisited)
    return list(path.tunnels)


def test_an_update_from_another_address_than_its_sender_has_came_through_a_nat() -> None:
    turn = over_ipv4().say(MAG4, to=LMA4, port=6001, more=(INSIDE,))
    option = answer(turn).option(NatDetection)
    assert option is not None
    assert not option.force_udp
    assert [tunnel.port for tunnel in ways(turn)] == [5437]


def test_who_comes_from_the_address_it_has_is_behind_no_nat() -> None:
    turn = over_ipv4().say(MAG4, to=LMA4, port=6001, more=(Ipv4CareOfAddress(address=MAG4),))
    assert answer(turn).option(NatDetection) is None
    assert [tunnel.port for tunnel in ways(turn)] == [0]


def test_through_a_nat_there_are_no_gre_keys_and_none_are_required() -> None:
    scene = over_ipv4(gre_keys=True)
    turn = scene.say(MAG4, to=LMA4, port=6001, more=(INSIDE, GreKey(key=77)))
    assert answer(turn).status == Status.GRE_KEY_OPTION_NOT_REQUIRED
    assert [(tunnel.key_in, tunnel.key_out) for tunnel in ways(turn)] == [(None, None)]
    assert scene.status(MAG4, to=LMA4, port=6001, node="mn2", ll=IF2, more=(INSIDE,)) == 0


def probe(scene: Scene, port: int) -> list[Action]:
    """The gateway probes its way through the NAT, from that port."""
    scene.wait(0.1)
    about = Probe(binding_id=1, number=1, interval=1.0, timestamp=0)
    freshness = Freshness(scene.lma.clock)
    beat = Heartbeat(sequence_number=1, options=(*options_of(about, ()), freshness.stamp(scene.now)))
    event = replace(scene.datagram(beat, MAG4, to=LMA4, port=port), beside_data=True)
    return scene.lma.handle(event, scene.now)


def test_tunnels_follow_the_port_that_probes_come_from() -> None:
    scene = over_ipv4()
    scene.say(MAG4, to=LMA4, port=6001, more=(INSIDE,))
    turn = probe(scene, 40001)
    assert [tunnel.port for tunnel in ways(turn)] == [40001]
    assert done(turn, SaveBinding)[0].binding.care_ofs[0].data_port == 40001
    (reply,) = [it for it in done(turn, Send) if it.beside_data]
    assert reply.port == 40001
    assert paths(probe(scene, 40001)) == {}


def test_other_sessions_of_that_gateway_begin_with_the_port_that_is_known() -> None:
    scene = over_ipv4()
    scene.say(MAG4, to=LMA4, port=6001, more=(INSIDE,))
    probe(scene, 40001)
    turn = scene.say(MAG4, to=LMA4, port=6001, node="mn2", ll=IF2, more=(INSIDE,))
    assert [tunnel.port for tunnel in ways(turn)] == [40001]


def test_a_probe_by_the_signalling_port_moves_nothing() -> None:
    scene = over_ipv4()
    scene.say(MAG4, to=LMA4, port=6001, more=(INSIDE,))
    beat = Heartbeat(
        sequence_number=1,
        options=(
            *options_of(Probe(binding_id=1, number=1, interval=1.0, timestamp=0), ()),
            Freshness(scene.lma.clock).stamp(scene.now),
        ),
    )
    assert paths(scene.tell(beat, MAG4, to=LMA4, port=40001)) == {}


def test_a_nat_that_is_gone_is_gone_from_the_tunnel() -> None:
    scene = over_ipv4()
    (prefix,) = home(answer(scene.say(MAG4, to=LMA4, port=6001, more=(INSIDE,))))
    turn = scene.say(MAG4, to=LMA4, port=6001, prefixes=(prefix,), hi=5)
    assert [tunnel.port for tunnel in ways(turn)] == [0]


# --- GRE keys (RFC 5845) ------------------------------------------------------------------------------------------


def keyed(path: object) -> tuple[int | None, int | None]:
    assert isinstance(path, TowardVisited)
    return path.tunnels[0].key_in, path.tunnels[0].key_out


def test_keys_are_exchanged_downlink_from_the_mag_and_uplink_from_us() -> None:
    scene = Scene(gre_keys=True)
    turn = scene.say(more=(GreKey(key=77),))
    (path,) = paths(turn).values()
    option = answer(turn).option(GreKey)
    assert option is not None
    assert keyed(path) == (option.key, 77)
    assert answer(turn).status == 0


def test_gre_without_keys_is_answered_without_a_key() -> None:
    scene = Scene(gre_keys=True)
    turn = scene.say(more=(GreKey(key=None),))
    assert answer(turn).option(GreKey) == GreKey(key=None)


def test_our_key_is_the_same_after_a_handoff() -> None:
    scene = Scene(gre_keys=True)
    first = scene.ack("mag1", more=(GreKey(key=77),)).option(GreKey)
    assert scene.ack("mag2", hi=3, more=(GreKey(key=78),)).option(GreKey) == first


def test_our_keys_differ_between_sessions() -> None:
    scene = Scene(gre_keys=True)
    first = scene.ack(more=(GreKey(key=77),)).option(GreKey)
    assert scene.ack(node="mn2", more=(GreKey(key=77),)).option(GreKey) != first


def test_a_deregistration_needs_no_key() -> None:
    scene = Scene(gre_keys=True)
    (prefix,) = home(scene.ack(more=(GreKey(key=77),)))
    assert scene.status(prefixes=(prefix,), hi=4, lifetime=0) == 0


def test_a_refresh_with_the_same_key_touches_nothing() -> None:
    scene = Scene(gre_keys=True)
    (prefix,) = home(scene.ack(more=(GreKey(key=77),)))
    assert kinds(scene.say(prefixes=(prefix,), hi=5, more=(GreKey(key=77),))) == ["Send"]


def test_another_downlink_key_is_told_to_the_data_path() -> None:
    scene = Scene(gre_keys=True)
    (prefix,) = home(scene.ack(more=(GreKey(key=77),)))
    assert keyed(paths(scene.say(prefixes=(prefix,), hi=5, more=(GreKey(key=78),)))[prefix])[1] == 78


def test_a_tlv_header_is_declined_with_status_3() -> None:
    scene = Scene(gre_keys=True)
    flags = FLAGS | BindingUpdateFlag.TLV_HEADER_FORMAT
    assert scene.status(flags=flags, more=(GreKey(key=77),)) == Status.GRE_TUNNELING_BUT_TLV_HEADER_NOT_SUPPORTED


def test_each_path_has_its_own_downlink_key_also_after_a_restart() -> None:
    scene = Scene(gre_keys=True)
    (prefix,) = home(answer(scene.path(1, more=(GreKey(key=71),))))
    scene.path(2, prefixes=(prefix,), more=(GreKey(key=72),))
    after = Scene(gre_keys=True)
    path = paths(after.lma.handle(BindingsRestored(bindings=(scene.session.saved(),)), after.now))[prefix]
    assert isinstance(path, TowardVisited)
    assert [tunnel.key_out for tunnel in path.tunnels] == [71, 72]


# --- delegated prefixes (RFC 7148) --------------------------------------------------------------------------------

DELEGATED = IPv6Network("2001:db8:d00::/40")
ANY6 = DelegatedMobileNetworkPrefix(prefix=ALL_ZERO)


def test_a_delegated_prefix_is_given_and_bound() -> None:
    scene = Scene(delegated_pools=(DELEGATED,))
    turn = scene.say(more=(ANY6,))
    option = answer(turn).option(DelegatedMobileNetworkPrefix)
    assert option is not None
    assert option.prefix.prefixlen == 56
    assert option.prefix in paths(turn)


def test_the_fixed_delegated_prefix_of_a_profile_is_given() -> None:
    fixed = IPv6Network("2001:db8:dd00::/48")
    scene = Scene(profiles=(NodeProfile(node="", delegated=(fixed,)),))
    option = scene.ack(more=(ANY6,)).option(DelegatedMobileNetworkPrefix)
    assert option == DelegatedMobileNetworkPrefix(prefix=fixed)


def test_no_option_in_the_update_means_none_in_the_answer() -> None:
    scene = Scene(delegated_pools=(DELEGATED,))
    (prefix,) = home(scene.ack(more=(ANY6,)))
    assert scene.ack(prefixes=(prefix,), hi=5).option(DelegatedMobileNetworkPrefix) is None


def test_a_session_keeps_its_delegated_prefix_when_it_asks_again() -> None:
    scene = Scene(delegated_pools=(DELEGATED,))
    (prefix,) = home(scene.ack(more=(ANY6,)))
    delegated = scene.session.delegated
    assert kinds(scene.say(prefixes=(prefix,), hi=5, more=(ANY6,))) == ["Send"]
    named = (DelegatedMobileNetworkPrefix(prefix=delegated[0]),)
    assert kinds(scene.say(prefixes=(prefix,), hi=5, more=named)) == ["Send"]


def test_a_delegated_prefix_is_free_after_its_session() -> None:
    scene = Scene(delegated_pools=(IPv6Network("2001:db8:d00::/56"),))
    (prefix,) = home(scene.ack(more=(ANY6,)))
    scene.say(prefixes=(prefix,), hi=4, lifetime=0)
    scene.wait(12.0)
    assert scene.ack(node="mn2", more=(ANY6,)).option(DelegatedMobileNetworkPrefix) is not None


# --- services (RFC 5149) ------------------------------------------------------------------------------------------


def test_a_changed_service_is_authorised_again() -> None:
    scene = Scene(profiles=(NodeProfile(node="", services=("internet",)),))
    (prefix,) = home(scene.ack(more=(ServiceSelection(identifier=b"internet"),)))
    status = scene.status(prefixes=(prefix,), hi=5, more=(ServiceSelection(identifier=b"ims"),))
    assert status == Status.SERVICE_AUTHORIZATION_FAILED


def test_a_changed_service_that_is_not_authorised_ends_the_old_binding() -> None:
    scene = Scene(profiles=(NodeProfile(node="", services=("internet",)),))
    (prefix,) = home(scene.ack(more=(ServiceSelection(identifier=b"internet"),)))
    scene.say(prefixes=(prefix,), hi=5, more=(ServiceSelection(identifier=b"ims"),))
    assert scene.session.leaving


def test_the_service_is_remembered() -> None:
    scene = Scene()
    (prefix,) = home(scene.ack(more=(ServiceSelection(identifier=b"internet"),)))
    scene.say(prefixes=(prefix,), hi=5)
    assert scene.session.saved().service == "internet"


def test_nothing_of_another_family_is_bound_for_a_plain_session() -> None:
    binds = done(dual().say(), Bind)
    assert [type(bind.prefix) for bind in binds] == [IPv6Network]
    assert IPv6Address(MAGS["mag1"]) in [tunnel.remote for bind in binds for tunnel in bind.path.tunnels]  # type: ignore[union-attr]


def test_a_gateway_that_a_node_moved_to_is_told_its_delegated_prefixes_unasked() -> None:
    scene = Scene(delegated_pools=(IPv6Network("2001:db8:d00::/40"),))
    ack = scene.ack("mag1", more=(DelegatedMobileNetworkPrefix(prefix=ALL_ZERO),))
    given = ack.options_of(DelegatedMobileNetworkPrefix)
    assert scene.ack("mag2", hi=3).options_of(DelegatedMobileNetworkPrefix) == given
    assert scene.ack("mag2", hi=5).options_of(DelegatedMobileNetworkPrefix) == ()
