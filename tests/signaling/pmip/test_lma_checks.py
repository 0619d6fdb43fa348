"""The checks of RFC 5213 5.3.1 in their order, their statuses, and that a refused update changes nothing."""

import random
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from itertools import combinations
from typing import Any

import pytest

from signaling.actions import Bind, SaveBinding, SetPolicy, Unbind
from signaling.events import DatagramReceived
from signaling.iana import BindingUpdateFlag, MultipathBindingFlag, Status
from signaling.settings import Authentication, LmaSettings, NodeProfile
from signaling.update_request import ALL_ZERO
from signaling.wire.options.access import LinkLocalAddress
from signaling.wire.options.care_of import AlternateCareOfAddress
from signaling.wire.options.identity import MobileNodeGroupIdentifier, MobileNodeIdentifier, ServiceSelection
from signaling.wire.options.ipv4 import Ipv4HomeAddressReply, Ipv4HomeAddressRequest
from signaling.wire.options.multipath import MagMultipathBinding
from signaling.wire.options.prefix import DelegatedMobileNetworkPrefix, HomeNetworkPrefix
from signaling.wire.options.time import Timestamp
from signaling.wire.options.tunnel import GreKey
from tests.signaling.pmip.lma_scene import (
    FOREIGN,
    IF2,
    MAGS,
    NODE,
    Scene,
    acks,
    answer,
    done,
    home,
    multipath,
)

FLAGS = BindingUpdateFlag.ACKNOWLEDGE | BindingUpdateFlag.PROXY_REGISTRATION
STRANGER = IPv6Address("2001:db8:bad::1")
ANY4 = Ipv4HomeAddressRequest()


@pytest.fixture
def scene() -> Scene:
    return Scene()


# --- one by one ---------------------------------------------------------------------------------------------------


def test_check_1_an_update_of_a_stranger_is_dropped_without_an_answer(scene: Scene) -> None:
    assert acks(scene.say(STRANGER)) == []
    assert len(scene.cache) == 0


def test_check_1_a_forged_update_is_answered_with_146_and_changes_nothing(scene: Scene) -> None:
    assert scene.status(key=bytes(16)) == Status.MIPV6_AUTH_FAIL
    assert len(scene.cache) == 0


def test_check_2_octets_that_are_no_mobility_header_change_nothing(scene: Scene) -> None:
    broken = DatagramReceived(octets=b"\x3b", source=MAGS["mag1"], destination=scene.settings.address)
    assert scene.lma.handle(broken, scene.now) == []
    assert scene.lma.counters["malformed.truncated"] == 1


def test_an_update_of_a_node_itself_is_ignored_and_counted(scene: Scene) -> None:
    assert scene.say(flags=BindingUpdateFlag.ACKNOWLEDGE) == []
    assert scene.lma.counters["ignored.not-a-proxy-update"] == 1
    assert len(scene.cache) == 0


def test_check_3_no_home_address_option_is_required(scene: Scene) -> None:
    assert scene.status() == 0


def test_check_4_an_update_without_identifier_is_refused_with_160(scene: Scene) -> None:
    ack = scene.ack(node=None)
    assert ack.status == Status.MISSING_MN_IDENTIFIER_OPTION
    assert ack.option(MobileNodeIdentifier) == MobileNodeIdentifier(identifier=b"")


def test_checks_5_and_6_a_mag_that_may_not_act_for_the_node_is_refused_with_154() -> None:
    scene = Scene(profiles=(NodeProfile(node=NODE, gateways=("mag2",)),))
    assert scene.status("mag1") == Status.MAG_NOT_AUTHORIZED_FOR_PROXY_REG
    assert scene.status("mag2") == 0


def test_checks_5_and_6_a_router_that_is_no_peer_is_refused_with_154_even_without_keys() -> None:
    scene = Scene(authentication=Authentication.NONE)
    assert scene.status(STRANGER) == Status.MAG_NOT_AUTHORIZED_FOR_PROXY_REG


def test_checks_5_and_6_a_care_of_address_of_another_mag_is_refused_with_154(scene: Scene) -> None:
    more = (AlternateCareOfAddress(address=MAGS["mag2"]),)
    assert scene.status("mag1", more=more) == Status.MAG_NOT_AUTHORIZED_FOR_PROXY_REG


def test_check_7_an_unknown_node_is_refused_with_153_where_only_known_ones_are_served() -> None:
    scene = Scene(known_nodes_only=True, profiles=(NodeProfile(node="other"), NodeProfile(node="")))
    assert scene.status() == Status.NOT_LMA_FOR_THIS_MOBILE_NODE


def test_check_8_a_node_without_the_service_is_refused_with_152() -> None:
    scene = Scene(profiles=(NodeProfile(node=NODE, refused=True),))
    assert scene.status() == Status.PROXY_REG_NOT_ENABLED


def test_check_9_a_wrong_clock_is_refused_with_156(scene: Scene) -> None:
    assert scene.status(timestamp=scene.stamp(ago=5.0)) == Status.TIMESTAMP_MISMATCH


def test_check_9_an_older_timestamp_is_refused_with_157(scene: Scene) -> None:
    scene.attach()
    assert scene.status(timestamp=scene.stamp(ago=0.1)) == Status.TIMESTAMP_LOWER_THAN_PREV_ACCEPTED


def test_check_9_an_old_sequence_number_is_refused_with_135(scene: Scene) -> None:
    scene.attach(timestamp=None, number=7)
    ack = scene.ack(timestamp=None, number=7)
    assert (ack.status, ack.sequence_number) == (Status.SEQUENCE_NUMBER_OUT_OF_WINDOW, 7)


def test_check_10_an_update_without_prefix_and_ipv4_request_is_refused_with_158(scene: Scene) -> None:
    assert scene.status(prefixes=None) == Status.MISSING_HOME_NETWORK_PREFIX_OPTION


def test_check_10a_a_node_without_ipv6_is_refused_with_172() -> None:
    scene = Scene(profiles=(NodeProfile(node=NODE, ipv6=False),))
    assert scene.status() == Status.NOT_AUTHORIZED_FOR_IPV6_MOBILITY_SERVICE


def test_check_10b_a_node_without_ipv4_is_refused_with_170() -> None:
    scene = Scene(profiles=(NodeProfile(node=NODE, ipv4=False),))
    assert scene.status(more=(ANY4,)) == Status.NOT_AUTHORIZED_FOR_IPV4_MOBILITY_SERVICE


def test_check_10c_two_ipv4_requests_are_refused_with_173(scene: Scene) -> None:
    assert scene.status(more=(ANY4, ANY4)) == Status.MULTIPLE_IPV4_HOME_ADDRESS_ASSIGNMENT_NOT_SUPPORTED


def test_check_11_an_update_without_handoff_indicator_is_refused_with_161(scene: Scene) -> None:
    assert scene.status(hi=None) == Status.MISSING_HANDOFF_INDICATOR_OPTION


def test_check_12_an_update_without_access_technology_is_refused_with_162(scene: Scene) -> None:
    assert scene.status(att=None) == Status.MISSING_ACCESS_TECH_TYPE_OPTION


def test_check_13_the_look_up_picks_extension_handoff_or_deregistration(scene: Scene) -> None:
    prefix = scene.attach("mag1")
    assert scene.status("mag1", prefixes=(prefix,), hi=5) == 0
    assert scene.session.gateway == "mag1"
    assert scene.status("mag2", prefixes=(prefix,), hi=3) == 0
    assert scene.session.gateway == "mag2"
    assert scene.status("mag2", prefixes=(prefix,), hi=4, lifetime=0) == 0
    assert scene.session.leaving


# --- the checks of later RFCs -------------------------------------------------------------------------------------


def test_a_service_that_is_not_authorised_is_refused_with_151() -> None:
    scene = Scene(profiles=(NodeProfile(node="", services=("internet",)),))
    assert scene.status(more=(ServiceSelection(identifier=b"ims"),)) == Status.SERVICE_AUTHORIZATION_FAILED
    assert scene.status(more=(ServiceSelection(identifier=b"internet"),)) == 0


def test_an_update_without_gre_key_is_refused_with_163_where_one_is_required() -> None:
    assert Scene(gre_keys=True).status() == Status.GRE_KEY_OPTION_REQUIRED


def test_forced_udp_is_refused_with_129_unless_configured() -> None:
    flags = FLAGS | BindingUpdateFlag.FORCING_UDP_ENCAPSULATION
    assert Scene().status(flags=flags) == Status.ADMINISTRATIVELY_PROHIBITED
    assert Scene(accept_forced_udp=True).status(flags=flags) == 0


def test_delegation_is_refused_with_177_to_a_node_that_may_not_have_it() -> None:
    scene = Scene(profiles=(NodeProfile(node="", delegation=False),))
    asks = (DelegatedMobileNetworkPrefix(prefix=ALL_ZERO),)
    assert scene.status(more=asks) == Status.NOT_AUTHORIZED_FOR_DELEGATED_MNP


def test_a_delegated_prefix_in_use_is_refused_with_178() -> None:
    pool = IPv6Network("2001:db8:d00::/40")
    scene = Scene(delegated_pools=(pool,))
    taken = (DelegatedMobileNetworkPrefix(prefix=IPv6Network("2001:db8:d00::/56")),)
    assert scene.status(more=taken) == 0
    assert scene.status(node="mn2", more=taken) == Status.REQUESTED_DMNP_IN_USE


def test_an_unknown_group_is_refused_with_175_and_needs_no_identifier(scene: Scene) -> None:
    more = (MobileNodeGroupIdentifier(identifier=9),)
    status = scene.status(node=None, prefixes=None, more=more)
    assert status == Status.INVALID_MOBILE_NODE_GROUP_IDENTIFIER


def test_a_request_for_bulk_updates_is_served_without_granting_them(scene: Scene) -> None:
    more = (MobileNodeGroupIdentifier(identifier=9),)
    ack = scene.ack(flags=FLAGS | BindingUpdateFlag.BULK_BINDING_UPDATE, more=more)
    assert (ack.status, ack.option(MobileNodeGroupIdentifier)) == (0, None)


def test_multipath_is_refused_with_180_where_it_is_switched_off() -> None:
    assert Scene(multipath=False).status("mag1", more=multipath(1)) == Status.CANNOT_SUPPORT_MULTIPATH_BINDING


def test_an_option_that_may_stand_once_and_stands_twice_is_refused_with_128(scene: Scene) -> None:
    twice = (LinkLocalAddress(address=IPv6Address("fe80::1")),) * 2
    assert scene.status(more=twice) == Status.REASON_UNSPECIFIED


# --- their order --------------------------------------------------------------------------------------------------

DEFECTS: tuple[tuple[str, Status, dict[str, Any]], ...] = (
    ("identifier", Status.MISSING_MN_IDENTIFIER_OPTION, {"node": None}),
    ("gateway", Status.MAG_NOT_AUTHORIZED_FOR_PROXY_REG, {"gateway": "mag3"}),
    ("time", Status.TIMESTAMP_MISMATCH, {"timestamp": 1}),
    ("prefix", Status.MISSING_HOME_NETWORK_PREFIX_OPTION, {"prefixes": None}),
    ("handoff", Status.MISSING_HANDOFF_INDICATOR_OPTION, {"hi": None}),
    ("technology", Status.MISSING_ACCESS_TECH_TYPE_OPTION, {"att": None}),
    ("multipath", Status.CANNOT_SUPPORT_MULTIPATH_BINDING, {"more": multipath(1)}),
)


def guarded() -> Scene:
    profile = NodeProfile(node="", gateways=("mag1", "mag2"), multipath=False)
    return Scene(profiles=(profile,))


@pytest.mark.parametrize(("first", "second"), list(combinations(DEFECTS, 2)), ids=lambda it: it[0])
def test_of_two_defects_the_earlier_check_answers(first: Any, second: Any) -> None:
    assert guarded().status(**{"gateway": "mag1"} | second[2] | first[2]) == first[1]


def test_a_wrong_time_is_told_before_a_missing_prefix(scene: Scene) -> None:
    assert scene.status(prefixes=None, timestamp=1) == Status.TIMESTAMP_MISMATCH


def test_every_refusal_is_counted_by_its_reason(scene: Scene) -> None:
    scene.say(hi=None)
    scene.say(hi=None)
    assert scene.lma.counters["lma.refused.missing-handoff-indicator-option"] == 2


# --- order and time (RFC 5213 5.5) --------------------------------------------------------------------------------


def test_an_accepted_timestamp_comes_back_as_it_was(scene: Scene) -> None:
    ack = scene.ack(timestamp=(mine := scene.stamp(ago=-0.1)))
    assert ack.option(Timestamp) == Timestamp(value=mine)


@pytest.mark.parametrize("ago", [0.1, 60.0])
def test_a_refused_timestamp_is_answered_with_our_clock(scene: Scene, ago: float) -> None:
    scene.attach()
    ack = scene.ack(timestamp=scene.stamp(ago=ago))
    assert ack.option(Timestamp) == Timestamp(value=scene.stamp())


def test_both_failures_at_once_are_told_as_157_so_that_the_mag_tries_again_at_once(scene: Scene) -> None:
    scene.attach()
    assert scene.status(timestamp=scene.stamp(ago=60.0)) == Status.TIMESTAMP_LOWER_THAN_PREV_ACCEPTED


def test_a_timestamp_from_the_future_is_refused_with_156(scene: Scene) -> None:
    assert scene.status(timestamp=scene.stamp(ago=-1.0)) == Status.TIMESTAMP_MISMATCH


def test_an_equal_timestamp_is_refused_with_156(scene: Scene) -> None:
    same = scene.stamp()
    scene.attach(timestamp=same)
    assert scene.status(timestamp=same) == Status.TIMESTAMP_MISMATCH


def test_with_a_timestamp_the_sequence_number_is_only_echoed(scene: Scene) -> None:
    scene.attach(number=9)
    ack = scene.ack(number=3)
    assert (ack.status, ack.sequence_number) == (0, 3)


def test_without_a_timestamp_there_is_none_in_the_answer(scene: Scene) -> None:
    assert scene.ack(timestamp=None).option(Timestamp) is None


def test_a_newer_sequence_number_is_accepted_across_its_wrap(scene: Scene) -> None:
    scene.attach(timestamp=None, number=65535)
    assert scene.status(timestamp=None, number=0, hi=5) == 0


def test_two_sessions_of_a_node_have_orders_of_their_own(scene: Scene) -> None:
    scene.attach("mag1", ll=b"\x02\0\0\0\0\x01")
    assert scene.status("mag2", ll=IF2, timestamp=scene.stamp(ago=0.1)) == 0


def test_a_copy_of_an_update_without_interface_begins_no_second_session(scene: Scene) -> None:
    update = scene.update(ll=None)
    scene.now += 0.01
    assert answer(scene.tell(update, "mag1")).status == 0
    assert answer(scene.tell(update, "mag1")).status == Status.TIMESTAMP_MISMATCH
    assert len(scene.cache) == 1


# --- answers to refused updates (RFC 5213 5.3.6) ------------------------------------------------------------------


def test_a_refusal_says_back_all_requested_prefixes(scene: Scene) -> None:
    assert home(scene.ack(prefixes=(FOREIGN, ALL_ZERO))) == (FOREIGN, ALL_ZERO)


def test_a_refusal_of_an_update_without_prefixes_has_one_of_zeros(scene: Scene) -> None:
    assert home(scene.ack(prefixes=None)) == (ALL_ZERO,)


def test_a_refusal_copies_the_link_local_address(scene: Scene) -> None:
    mine = LinkLocalAddress(address=IPv6Address("fe80::7"))
    assert scene.ack(hi=None, more=(mine,)).option(LinkLocalAddress) == mine


def test_a_refusal_answers_an_ipv4_request() -> None:
    scene = Scene(ipv4_pools=(IPv4Network("203.0.113.0/24"),))
    request = Ipv4HomeAddressRequest(address=IPv4Address("198.51.100.7"), prefix_length=24)
    reply = scene.ack(prefixes=None, more=(request,)).option(Ipv4HomeAddressReply)
    assert reply == Ipv4HomeAddressReply(status=129, address=request.address, prefix_length=24)


def test_a_refusal_with_180_echoes_the_multipath_binding_and_no_mag_identifier() -> None:
    binding, mag_id = multipath(1)
    ack = Scene(multipath=False).ack("mag1", more=(binding, mag_id))
    assert ack.option(MagMultipathBinding) == binding
    assert ack.option(type(mag_id)) is None


# --- nothing changes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_broken_forged_replayed_and_unauthorised_updates_change_nothing(seed: int) -> None:
    rng = random.Random(seed)
    profiles = (NodeProfile(node=NODE, gateways=("mag1", "mag2")), NodeProfile(node="mn3", refused=True))
    scene = Scene(profiles=profiles)
    prefix = scene.attach("mag1")
    other = scene.attach("mag2", node="mn2")
    good = scene.update(prefixes=(prefix,), hi=5)
    scene.now += 0.01
    scene.tell(good, "mag1")
    before = scene.snapshot()
    for _ in range(150):
        event, now = _bad(scene, rng, good, prefix, other), scene.now
        turn = scene.lma.handle(event, now)
        assert not done(turn, Bind | Unbind | SaveBinding | SetPolicy)  # type: ignore[arg-type]
        assert scene.snapshot() == before


def _bad(scene: Scene, rng: random.Random, good: Any, prefix: IPv6Network, other: IPv6Network) -> DatagramReceived:
    bad = rng.choice(
        [
            lambda: scene.datagram(good, MAGS["mag1"]),  # replayed
            lambda: scene.datagram(scene.update(prefixes=(prefix,)), MAGS["mag1"], key=bytes(16)),  # forged
            lambda: scene.datagram(scene.update(prefixes=(prefix,)), MAGS["mag3"]),  # not authorised
            lambda: scene.datagram(scene.update(prefixes=(prefix,), node="mn2"), MAGS["mag2"]),
            lambda: scene.datagram(scene.update(prefixes=(prefix, other)), MAGS["mag1"]),
            lambda: scene.datagram(scene.update(prefixes=(other,)), MAGS["mag1"]),
            lambda: scene.datagram(scene.update(prefixes=(FOREIGN,)), MAGS["mag2"]),
            lambda: scene.datagram(scene.update(node="mn3"), MAGS["mag2"]),
            lambda: scene.datagram(scene.update(timestamp=scene.stamp(ago=rng.uniform(1, 1e6))), MAGS["mag1"]),
            lambda: scene.datagram(scene.update(prefixes=(prefix,), lifetime=0), MAGS["mag2"]),  # by another
            lambda: _truncated(scene.datagram(good, MAGS["mag1"]), rng),
            lambda: _flipped(scene.datagram(scene.update(prefixes=(prefix,)), MAGS["mag1"]), rng),
        ]
    )
    return bad()


def _truncated(event: DatagramReceived, rng: random.Random) -> DatagramReceived:
    return replace(event, octets=event.octets[: rng.randrange(len(event.octets))])


def _flipped(event: DatagramReceived, rng: random.Random) -> DatagramReceived:
    octets = bytearray(event.octets)
    octets[rng.randrange(len(octets))] ^= 1 << rng.randrange(8)
    return replace(event, octets=bytes(octets))


def test_a_full_cache_refuses_new_sessions_with_130() -> None:
    scene = Scene(max_bindings=1)
    scene.attach()
    assert scene.status(node="mn2") == Status.INSUFFICIENT_RESOURCES


@pytest.mark.parametrize(
    ("binding_id", "flags", "lifetime"),
    [
        (0, 0, 300),
        (255, 0, 300),
        (1, MultipathBindingFlag.BULK_REREGISTRATION | MultipathBindingFlag.REGISTRATION_OVERWRITE, 300),
        (1, MultipathBindingFlag.REGISTRATION_OVERWRITE, 0),
    ],
)
def test_a_senseless_multipath_binding_is_refused_with_128_and_echoed(
    scene: Scene, binding_id: int, flags: int, lifetime: int
) -> None:
    ack = answer(scene.path(binding_id, flags=flags, lifetime=lifetime))
    assert ack.status == Status.REASON_UNSPECIFIED
    assert ack.option(MagMultipathBinding) is not None


def test_the_settings_are_those_of_the_rfc() -> None:
    settings = LmaSettings(address=MAGS["mag1"], tunnel_mtu=1460)
    delays = settings.delete_delay, settings.assign_delay, settings.timestamp_window
    assert delays == (10.0, 1.5, 0.3)


def test_a_prefix_of_no_pool_is_refused_with_155(scene: Scene) -> None:
    assert scene.status(prefixes=(FOREIGN,)) == Status.NOT_AUTHORIZED_FOR_HOME_NETWORK_PREFIX


def test_the_option_has_the_octets_of_the_request(scene: Scene) -> None:
    prefix = scene.attach()
    assert scene.ack(prefixes=(prefix,), hi=5).options_of(HomeNetworkPrefix) == (HomeNetworkPrefix(prefix=prefix),)


def test_a_delegation_is_ignored_where_nothing_is_configured(scene: Scene) -> None:
    ack = scene.ack(more=(DelegatedMobileNetworkPrefix(prefix=ALL_ZERO),))
    assert (ack.status, ack.option(DelegatedMobileNetworkPrefix)) == (0, None)


def test_a_gre_key_that_is_not_needed_is_answered_with_status_2_and_no_option(scene: Scene) -> None:
    ack = scene.ack(more=(GreKey(key=5),))
    assert (ack.status, ack.option(GreKey)) == (Status.GRE_KEY_OPTION_NOT_REQUIRED, None)
