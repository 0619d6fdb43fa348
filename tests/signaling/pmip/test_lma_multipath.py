"""Several Proxy-CoAs of one session: RFC 8278 4.4, the meaning of B and O, and the rules this project adds."""

from ipaddress import IPv6Network

import pytest

from signaling.actions import Held, SaveBinding, SetPolicy, TowardVisited, TunnelEnd, Unbind
from signaling.events import BindingsRestored
from signaling.flow_rules import FlowRule
from signaling.iana import MultipathBindingFlag, Status
from signaling.settings import NodeProfile
from signaling.wire.options.care_of import AlternateCareOfAddress
from signaling.wire.options.identity import MagIdentifier
from signaling.wire.options.multipath import MagMultipathBinding
from signaling.wire.options.option import UnknownOption
from signaling.wire.revocation import BindingRevocationIndication
from tests.signaling.pmip.lma_scene import (
    LTE,
    MAGS,
    WLAN,
    Scene,
    answer,
    done,
    home,
    kinds,
    multipath,
    paths,
    remotes,
    sent,
)

BULK, OVERWRITE = MultipathBindingFlag.BULK_REREGISTRATION, MultipathBindingFlag.REGISTRATION_OVERWRITE
ON_WLAN = TunnelEnd(remote=WLAN, binding_id=1, label=10)
ON_LTE = TunnelEnd(remote=LTE, binding_id=2, label=20)


@pytest.fixture
def scene() -> Scene:
    return Scene()


def bids(scene: Scene) -> list[int]:
    return [care_of.binding_id for care_of in scene.session.care_ofs]


# --- the rules of RFC 8278 4.4 ------------------------------------------------------------------------------------


def test_an_accepting_answer_has_the_binding_and_no_mag_identifier(scene: Scene) -> None:
    ack = answer(scene.path(1))
    assert ack.option(MagMultipathBinding) == multipath(1)[0]
    assert ack.option(MagIdentifier) is None


def test_a_refusing_answer_has_status_180_the_binding_and_no_mag_identifier() -> None:
    ack = answer(Scene(multipath=False).path(1))
    assert ack.status == Status.CANNOT_SUPPORT_MULTIPATH_BINDING
    assert ack.option(MagMultipathBinding) == multipath(1)[0]
    assert ack.option(MagIdentifier) is None


def test_a_node_may_be_refused_multipath_by_its_profile() -> None:
    scene = Scene(profiles=(NodeProfile(node="", multipath=False),))
    assert answer(scene.path(1)).status == Status.CANNOT_SUPPORT_MULTIPATH_BINDING


def test_the_second_path_names_the_prefix_learnt_on_the_first_and_joins_it(scene: Scene) -> None:
    (prefix,) = home(answer(scene.path(1)))
    turn = scene.path(2, prefixes=(prefix,))
    assert paths(turn) == {prefix: TowardVisited(tunnels=(ON_WLAN, ON_LTE))}
    assert bids(scene) == [1, 2]


def test_paths_that_register_at_the_same_time_join_one_session(scene: Scene) -> None:
    scene.path(1)
    scene.path(2)  # sent before the answer to the first came back: no prefix is known
    assert bids(scene) == [1, 2]


def test_a_path_is_refreshed_without_touching_anything(scene: Scene) -> None:
    prefix = scene.van()
    assert kinds(scene.path(1, prefixes=(prefix,), hi=5)) == ["Send"]
    assert kinds(scene.path(2, prefixes=(prefix,), hi=5)) == ["Send"]


# --- B and O ------------------------------------------------------------------------------------------------------


def test_bulk_refresh_gives_every_path_the_granted_lifetime(scene: Scene) -> None:
    prefix = scene.van()
    scene.wait(200.0)
    assert kinds(scene.path(1, prefixes=(prefix,), hi=5, flags=BULK)) == ["Send"]
    scene.wait(200.0)
    assert bids(scene) == [1, 2]


def test_without_it_the_other_path_ends_alone(scene: Scene) -> None:
    prefix = scene.van()
    scene.wait(200.0)
    scene.path(1, prefixes=(prefix,), hi=5)
    turn = scene.wait(200.0)
    assert paths(turn) == {prefix: TowardVisited(tunnels=(ON_WLAN,))}
    assert bids(scene) == [1]


def test_overwrite_replaces_all_paths(scene: Scene) -> None:
    prefix = scene.van()
    turn = scene.path(3, care_of=LTE, prefixes=(prefix,), hi=5, flags=OVERWRITE)
    assert bids(scene) == [3]
    assert remotes(paths(turn)[prefix]) == [LTE]


# --- not laid down: the rules of this project ---------------------------------------------------------------------


@pytest.mark.parametrize(("binding_id", "flags"), [(0, 0), (255, 0), (1, BULK | OVERWRITE)])
def test_a_reserved_bid_and_both_flags_are_128_and_change_nothing(scene: Scene, binding_id: int, flags: int) -> None:
    prefix = scene.van()
    before = scene.snapshot()
    ack = answer(scene.path(binding_id, prefixes=(prefix,), hi=5, flags=flags))
    assert (ack.status, ack.option(MagMultipathBinding) is None) == (Status.REASON_UNSPECIFIED, False)
    assert scene.snapshot() == before


def test_overwrite_in_a_deregistration_is_128(scene: Scene) -> None:
    prefix = scene.van()
    ack = answer(scene.path(1, prefixes=(prefix,), hi=4, flags=OVERWRITE, lifetime=0))
    assert ack.status == Status.REASON_UNSPECIFIED


def test_without_mag_identifier_it_is_one_path_and_answered_without_binding(scene: Scene) -> None:
    ack = answer(scene.path(1, mag_id=None))
    assert (ack.status, ack.option(MagMultipathBinding)) == (0, None)
    assert bids(scene) == [0]


def test_a_binding_of_wrong_length_is_one_path(scene: Scene) -> None:
    broken = (UnknownOption(type=63, data=bytes(5)), MagIdentifier(identifier=b"van"))
    ack = answer(scene.say(WLAN, more=broken))
    assert (ack.status, ack.option(MagMultipathBinding)) == (0, None)


def test_a_deregistration_removes_that_path_only(scene: Scene) -> None:
    prefix = scene.van()
    turn = scene.path(1, prefixes=(prefix,), hi=4, lifetime=0)
    assert paths(turn) == {prefix: TowardVisited(tunnels=(ON_LTE,))}
    assert answer(turn).lifetime == 0
    assert done(turn, SaveBinding)


def test_the_session_ends_with_its_last_path(scene: Scene) -> None:
    prefix = scene.van()
    scene.path(1, prefixes=(prefix,), hi=4, lifetime=0)
    assert paths(scene.path(2, prefixes=(prefix,), hi=4, lifetime=0)) == {prefix: Held()}
    assert done(scene.wait(12.0), Unbind)


def test_a_lost_path_is_deregistered_over_another_one(scene: Scene) -> None:
    prefix = scene.van()
    lost = (AlternateCareOfAddress(address=WLAN), *multipath(1))
    turn = scene.say(LTE, prefixes=(prefix,), hi=4, lifetime=0, more=lost)
    assert answer(turn).status == 0
    assert bids(scene) == [2]


def test_a_deregistration_with_the_wrong_proxy_coa_is_ignored(scene: Scene) -> None:
    prefix = scene.van()
    assert scene.path(1, care_of=LTE, prefixes=(prefix,), hi=4, lifetime=0) == []
    assert bids(scene) == [1, 2]


def test_a_path_that_is_gone_already_may_be_deregistered_again(scene: Scene) -> None:
    prefix = scene.van()
    scene.path(1, prefixes=(prefix,), hi=4, lifetime=0)
    assert answer(scene.path(1, prefixes=(prefix,), hi=4, lifetime=0)).status == 0


def test_the_same_bid_from_another_proxy_coa_moves_the_path(scene: Scene) -> None:
    prefix = scene.van()
    turn = scene.path(1, care_of=LTE, prefixes=(prefix,), hi=3)
    assert remotes(paths(turn)[prefix]) == [LTE, LTE]
    assert sent(turn, BindingRevocationIndication) == []


def test_another_mag_takes_the_whole_session_over(scene: Scene) -> None:
    prefix = scene.van()
    turn = scene.say("mag1", prefixes=(prefix,), hi=3, more=multipath(7, mag_id="mag1"))
    assert bids(scene) == [7]
    assert remotes(paths(turn)[prefix]) == [MAGS["mag1"]]
    assert len(sent(turn, BindingRevocationIndication)) == 1


def test_an_update_without_binding_replaces_all_paths(scene: Scene) -> None:
    prefix = scene.van()
    turn = scene.say("mag1", prefixes=(prefix,), hi=3)
    assert bids(scene) == [0]
    assert remotes(paths(turn)[prefix]) == [MAGS["mag1"]]


def test_a_binding_replaces_the_path_without_one(scene: Scene) -> None:
    (prefix,) = home(answer(scene.say(WLAN)))
    turn = scene.path(1, prefixes=(prefix,), hi=5)
    assert paths(turn) == {prefix: TowardVisited(tunnels=(ON_WLAN,))}


def test_paths_have_orders_of_their_own(scene: Scene) -> None:
    prefix = scene.van()
    scene.path(1, prefixes=(prefix,), hi=5)
    slower = scene.stamp(ago=0.005)
    assert answer(scene.path(2, prefixes=(prefix,), hi=5, timestamp=slower)).status == 0
    assert answer(scene.path(1, prefixes=(prefix,), hi=5, timestamp=slower)).status >= 128


def test_no_old_update_revives_a_path_that_was_deregistered(scene: Scene) -> None:
    prefix = scene.van()
    scene.now += 0.01
    old = scene.datagram(scene.update(prefixes=(prefix,), hi=5, more=multipath(1)), WLAN)
    scene.path(1, prefixes=(prefix,), hi=4, lifetime=0)
    assert answer(scene.lma.handle(old, scene.now)).status == Status.TIMESTAMP_LOWER_THAN_PREV_ACCEPTED
    assert bids(scene) == [2]


def test_a_handoff_must_be_newer_than_all_that_any_path_has_said(scene: Scene) -> None:
    prefix = scene.van()
    late = scene.stamp(ago=0.005)
    assert scene.status("mag1", prefixes=(prefix,), hi=3, timestamp=late) == Status.TIMESTAMP_LOWER_THAN_PREV_ACCEPTED


def test_another_label_is_told_to_the_data_path(scene: Scene) -> None:
    prefix = scene.van()
    label = MagMultipathBinding(interface_technology=4, interface_label=99, binding_id=1)
    more = (label, MagIdentifier(identifier=b"van"))
    (path,) = paths(scene.say(WLAN, prefixes=(prefix,), hi=5, more=more)).values()
    assert isinstance(path, TowardVisited)
    assert [tunnel.label for tunnel in path.tunnels] == [99, 20]


def test_all_paths_come_back_after_a_restart(scene: Scene) -> None:
    prefix = scene.van()
    after = Scene()
    turn = after.lma.handle(BindingsRestored(bindings=(scene.session.saved(),)), after.now)
    assert paths(turn)[prefix] == TowardVisited(tunnels=(ON_WLAN, ON_LTE))


def test_the_policy_of_the_profile_is_set_before_the_path_that_names_it() -> None:
    rules = (FlowRule(selector=None, labels=(20, 10)),)
    scene = Scene(profiles=(NodeProfile(node="", policy="lte first"),), policies={"lte first": rules})
    turn = scene.path(1)
    assert kinds(turn)[:2] == ["SetPolicy", "Bind"]
    assert done(turn, SetPolicy) == [SetPolicy(name="lte first", rules=rules)]
    (path,) = paths(turn).values()
    assert isinstance(path, TowardVisited)
    assert path.policy == "lte first"


def test_a_policy_is_told_once() -> None:
    rules = (FlowRule(selector=None, labels=(20, 10)),)
    scene = Scene(profiles=(NodeProfile(node="", policy="p"),), policies={"p": rules})
    scene.path(1)
    assert done(scene.path(2, node="mn2"), SetPolicy) == []


def test_the_ways_of_the_van_are_watched_while_it_uses_them(scene: Scene) -> None:
    prefix = scene.van()
    scene.wait(0.01)
    assert {row["bid"] for row in scene.lma.monitor.rows()} == {1, 2}
    scene.path(1, prefixes=(prefix,), hi=4, lifetime=0)
    scene.wait(0.01)
    assert {row["bid"] for row in scene.lma.monitor.rows()} == {2}
    scene.path(2, prefixes=(prefix,), hi=4, lifetime=0)
    scene.wait(0.01)
    assert scene.lma.monitor.rows() == []


def test_prefixes_of_two_sets_stay_apart(scene: Scene) -> None:
    prefix = scene.van()
    other = IPv6Network("2001:db8:100:99::/64")
    ack = answer(scene.path(1, prefixes=(prefix, other), hi=5))
    assert ack.status == Status.BCE_PBU_PREFIX_SET_DO_NOT_MATCH
