"""The anchor takes bindings back: what a gateway answers, row by row (RFC 5846 6.2.1, 9.1; RFC 6602 5.1.3)."""

from ipaddress import IPv4Address, IPv6Address, IPv6Network

import pytest

from signaling.actions import Action, Send, Unbind
from signaling.events import AddressAsked, SiteAttached
from signaling.iana import RevocationFlag, RevocationStatus, RevocationTrigger
from signaling.pmip.binding_update_list import Stage
from signaling.settings import Site, Wants
from signaling.update_request import identifier_of
from signaling.wire.options.care_of import AlternateCareOfAddress
from signaling.wire.options.identity import MobileNodeGroupIdentifier
from signaling.wire.options.ipv4 import Ipv4HomeAddressRequest
from signaling.wire.options.prefix import HomeNetworkPrefix
from signaling.wire.revocation import BindingRevocationAck, BindingRevocationIndication
from tests.signaling.pmip.pmip_world import ADDRESSES, LTE, WLAN, World, attached

PROXY, GLOBAL = RevocationFlag.PROXY_BINDING, RevocationFlag.GLOBAL
IPV4_ONLY = RevocationFlag.IPV4_HOME_ADDRESS_BINDING_ONLY
PER_PEER, PER_REALM = RevocationTrigger.PER_PEER_POLICY, RevocationTrigger.REVOKING_MOBILITY_NODE_LOCAL_POLICY
HANDOVERS = (2, 3, 4)
MN1 = identifier_of("mn1")
ELSEWHERE = HomeNetworkPrefix(prefix=IPv6Network("2001:db8:99::/64"))


def acks(todo: list[Action]) -> list[BindingRevocationAck]:
    messages = [action.message for action in todo if isinstance(action, Send)]
    return [message for message in messages if isinstance(message, BindingRevocationAck)]


def status(todo: list[Action]) -> int:
    (ack,) = acks(todo)
    return ack.status


def sessions(world: World) -> int:
    return len(world.mag.mag.gateway.entries)


@pytest.mark.parametrize("trigger", [8, 99, 127, 200, 250])
def test_an_unknown_trigger_is_133(trigger: int) -> None:
    world = attached()
    assert status(world.revoke(trigger, MN1)) == RevocationStatus.REVOCATION_TRIGGER_NOT_SUPPORTED
    assert sessions(world) == 1


def test_global_with_a_trigger_of_one_node_is_134() -> None:
    world = attached()
    assert status(world.revoke(1, MN1, flags=PROXY | GLOBAL)) == RevocationStatus.REVOCATION_FUNCTION_NOT_SUPPORTED


@pytest.mark.parametrize("trigger", [PER_PEER, PER_REALM])
def test_a_global_trigger_without_the_flag_is_134(trigger: int) -> None:
    world = attached()
    assert status(world.revoke(trigger, flags=PROXY)) == RevocationStatus.REVOCATION_FUNCTION_NOT_SUPPORTED


def test_a_revocation_of_no_proxy_binding_is_134() -> None:
    world = attached()
    todo = world.revoke(1, MN1, flags=RevocationFlag(0))
    assert status(todo) == RevocationStatus.REVOCATION_FUNCTION_NOT_SUPPORTED


def test_an_unknown_node_is_128() -> None:
    world = attached()
    assert status(world.revoke(1, identifier_of("mn9"))) == RevocationStatus.BINDING_DOES_NOT_EXIST


def test_an_unknown_prefix_is_128() -> None:
    world = attached()
    assert status(world.revoke(1, MN1, ELSEWHERE)) == RevocationStatus.BINDING_DOES_NOT_EXIST


def test_a_revocation_of_nobody_is_131() -> None:
    world = attached()
    assert status(world.revoke(1)) == RevocationStatus.REVOKED_MOBILE_NODES_IDENTITY_REQUIRED


@pytest.mark.parametrize("trigger", [0, 1, 5, 6, 7])
def test_a_binding_of_one_node_is_revoked_and_withdrawn(trigger: int) -> None:
    world = attached("mn1", "mn2")
    prefix = world.prefix("mn1")
    todo = world.revoke(trigger, MN1)
    assert status(todo) == RevocationStatus.SUCCESS
    assert [action.prefix for action in todo if isinstance(action, Unbind)] == [prefix]
    world.run(0.1)
    assert (sessions(world), world.hosts["mn1"].offered()) == (1, {prefix: 0})


def test_what_is_revoked_is_not_taken_back_as_well() -> None:
    world = attached()
    world.revoke(1, MN1)
    world.run(60.0)
    assert len(world.lma.updates) == 1


def test_some_prefixes_that_are_gone_already_make_a_partial_success() -> None:
    world = attached()
    own = HomeNetworkPrefix(prefix=world.prefix("mn1"))
    todo = world.revoke(1, MN1, own, ELSEWHERE)
    assert status(todo) == RevocationStatus.PARTIAL_SUCCESS
    assert acks(todo)[0].options_of(HomeNetworkPrefix) == (ELSEWHERE,)


def test_the_answer_repeats_number_and_flags() -> None:
    world = attached()
    (ack,) = acks(world.revoke(1, MN1, number=4711))
    assert (ack.sequence_number, ack.flags) == (4711, PROXY)


# --- handover triggers -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("trigger", HANDOVERS)
def test_a_handover_of_a_node_that_answers_is_132(trigger: int) -> None:
    world = attached()
    assert acks(world.revoke(trigger, MN1)) == []  # the node is asked first
    world.run(1.0)
    answers = [message for _, message in world.lma.got if isinstance(message, BindingRevocationAck)]
    assert [ack.status for ack in answers] == [RevocationStatus.REVOCATION_FAILED_MN_IS_ATTACHED]
    assert sessions(world) == 1


@pytest.mark.parametrize("trigger", HANDOVERS)
def test_a_handover_of_a_node_that_is_silent_is_true(trigger: int) -> None:
    world = attached()
    world.hosts["mn1"].silent = True
    world.revoke(trigger, MN1)
    world.run(2.0)
    answers = [message for _, message in world.lma.got if isinstance(message, BindingRevocationAck)]
    assert [ack.status for ack in answers] == [RevocationStatus.SUCCESS]
    assert sessions(world) == 0


@pytest.mark.parametrize("trigger", HANDOVERS)
def test_a_handover_of_a_node_that_left_needs_no_question(trigger: int) -> None:
    world = attached()
    world.detach("mn1")
    assert status(world.revoke(trigger, MN1)) == RevocationStatus.SUCCESS
    assert sessions(world) == 0


def test_a_site_is_always_attached() -> None:
    world = World(sites=(Site(node="branch"),))
    world.feed(SiteAttached(node="branch"))
    world.run(1.0)
    todo = world.revoke(4, identifier_of("branch"))
    assert status(todo) == RevocationStatus.REVOCATION_FAILED_MN_IS_ATTACHED


# --- IPv4 only -------------------------------------------------------------------------------------------------------


def with_ipv4() -> World:
    world = attached()
    link_layer = world.hosts["mn1"].link_layer
    world.feed(AddressAsked(node="mn1", interface="lan0", link_layer=link_layer, wants=Wants.IPV4))
    world.run(1.0)
    return world


def test_ipv4_only_without_the_address_is_129() -> None:
    world = with_ipv4()
    todo = world.revoke(1, MN1, flags=PROXY | IPV4_ONLY)
    assert status(todo) == RevocationStatus.IPV4_HOME_ADDRESS_OPTION_REQUIRED


def test_ipv4_only_with_another_address_is_128() -> None:
    world = with_ipv4()
    other = Ipv4HomeAddressRequest(address=IPv4Address("192.0.2.99"), prefix_length=24)
    todo = world.revoke(1, MN1, other, flags=PROXY | IPV4_ONLY)
    assert status(todo) == RevocationStatus.BINDING_DOES_NOT_EXIST


def test_ipv4_only_leaves_the_prefix() -> None:
    world = with_ipv4()
    own = Ipv4HomeAddressRequest(address=IPv4Address("192.0.2.7"), prefix_length=24)
    todo = world.revoke(1, MN1, own, flags=PROXY | IPV4_ONLY)
    assert status(todo) == RevocationStatus.SUCCESS
    assert list(world.mag.paths) == [world.prefix("mn1")]


# --- many at once ----------------------------------------------------------------------------------------------------


def test_global_128_takes_all_sessions() -> None:
    world = attached("mn1", "mn2", "mn3")
    assert status(world.revoke(PER_PEER)) == RevocationStatus.SUCCESS
    assert (sessions(world), world.mag.paths) == (0, {})


def test_global_129_takes_the_sessions_of_exactly_one_realm() -> None:
    world = attached("a@one.example", "b@one.example", "c@two.example", "d@sub.one.example")
    assert status(world.revoke(PER_REALM, identifier_of("@one.example"))) == RevocationStatus.SUCCESS
    assert [session.node for session in world.mag.mag.gateway.entries] == ["c@two.example", "d@sub.one.example"]


@pytest.mark.parametrize("options", [(), (MN1,)])
def test_global_129_without_a_realm_is_131(options: tuple[object, ...]) -> None:
    world = attached()
    todo = world.revoke(PER_REALM, *options)  # type: ignore[arg-type]
    assert status(todo) == RevocationStatus.REVOKED_MOBILE_NODES_IDENTITY_REQUIRED


def test_global_129_of_one_care_of_address_takes_that_path() -> None:
    world = attached("a@one.example", uplinks=(WLAN, LTE))
    care_of = AlternateCareOfAddress(address=ADDRESSES["wlan0"])  # type: ignore[arg-type]
    assert isinstance(care_of.address, IPv6Address)
    assert status(world.revoke(PER_REALM, identifier_of("@one.example"), care_of)) == RevocationStatus.SUCCESS
    assert world.stages("a@one.example") == {2: Stage.REGISTERED}


def test_the_group_of_all_sessions_takes_all() -> None:
    world = attached("mn1", "mn2")
    assert status(world.revoke(1, MobileNodeGroupIdentifier(identifier=1))) == RevocationStatus.SUCCESS
    assert sessions(world) == 0


def test_a_group_and_a_node_together_are_128() -> None:
    world = attached()
    todo = world.revoke(1, MN1, MobileNodeGroupIdentifier(identifier=1))
    assert status(todo) == RevocationStatus.BINDING_DOES_NOT_EXIST


def test_an_unknown_group_is_128() -> None:
    world = attached()
    assert status(world.revoke(1, MobileNodeGroupIdentifier(identifier=9))) == RevocationStatus.BINDING_DOES_NOT_EXIST


# --- who may ---------------------------------------------------------------------------------------------------------


def test_a_revocation_that_is_replayed_is_ignored() -> None:
    world = attached()
    world.revoke(99, MN1)
    assert acks(world.revoke(1, MN1)) == []  # the same timestamp once more
    assert sessions(world) == 1
    assert world.mag.mag.counters["replayed.BindingRevocationIndication"] == 1


def test_a_revocation_without_a_timestamp_is_ignored() -> None:
    world = attached()
    message = BindingRevocationIndication(trigger=1, sequence_number=7, flags=PROXY, options=(MN1,))
    assert acks(world.say(message, stamped=False)) == []
    assert sessions(world) == 1


def test_a_forged_revocation_is_ignored() -> None:
    world = attached()
    message = BindingRevocationIndication(trigger=1, sequence_number=7, flags=PROXY, options=(MN1,))
    assert acks(world.say(message, key=bytes(16))) == []
    assert sessions(world) == 1


def test_a_node_that_solicits_after_its_revocation_is_asked_for_again() -> None:
    world = attached()
    world.revoke(1, MN1)
    world.run(1.0)
    world.show("mn1", "rs")
    world.run(1.0)
    assert sessions(world) == 1
