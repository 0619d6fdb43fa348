"""Flow bindings: RFC 6089 5.3 row by row, at the table and in updates; rules there and back."""

from dataclasses import replace
from ipaddress import IPv6Address

import pytest

from signaling.actions import SetPolicy, TowardVisited, TunnelEnd
from signaling.events import BindingsRestored
from signaling.flow_bindings import (
    MAX_FLOWS,
    FlowBinding,
    flows_from_octets,
    octets_of,
    options_of,
    process,
    rules_of,
)
from signaling.flow_rules import FlowRule, Spread
from signaling.iana import FlowIdentificationStatus as FlowStatus
from signaling.iana import OptionType, TrafficSelectorFormat
from signaling.settings import NodeProfile
from signaling.wire.binding_update import BindingUpdate, BindingUpdateFlag
from signaling.wire.options.flow import FlowIdentification, FlowSummary
from signaling.wire.options.option import MalformedOption, Option
from signaling.wire.traffic_selector import Range, TrafficSelector, UnreadableSelector
from tests.signaling.pmip.lma_scene import Scene, answer, done, kinds, multipath, paths

IPV6 = TrafficSelectorFormat.IPV6_BINARY
SSH = TrafficSelector(format=IPV6, source_port=Range(22))
WEB = TrafficSelector(format=IPV6, source_port=Range(80, 443))
OK = FlowStatus.FLOW_BINDING_SUCCESSFUL
MALFORMED = FlowStatus.FLOW_IDENTIFICATION_OPTION_MALFORMED
KNOWN = FlowBinding(1, 10, (1,), SSH)
BOTH = {1, 2}
WAYS = (
    TunnelEnd(remote=IPv6Address("2001:db8::1"), binding_id=1, label=10),
    TunnelEnd(remote=IPv6Address("2001:db8::2"), binding_id=2, label=20),
)


def flow(number: int = 1, priority: int = 10, bids: tuple[int, ...] | None = (1,), selector: object = SSH) -> Option:
    return FlowIdentification(flow_id=number, priority=priority, binding_ids=bids, selector=selector)  # type: ignore[arg-type]


def update(*options: Option) -> BindingUpdate:
    flags = BindingUpdateFlag.PROXY_REGISTRATION
    return BindingUpdate(sequence_number=1, flags=flags, lifetime=300, options=options)


def statuses(*options: Option, before: tuple[FlowBinding, ...] = ()) -> list[int]:
    return [it.status for it in process(update(*options), before, BOTH).answers]


# --- the table (RFC 6089 5.3) -------------------------------------------------------------------------------------


def test_the_same_fid_twice_rejects_all_flow_options() -> None:
    result = process(update(flow(1), flow(2, 20), flow(1, 30)), (KNOWN,), BOTH)
    assert [it.status for it in result.answers] == [MALFORMED] * 3
    assert result.flows == (KNOWN,)


@pytest.mark.parametrize("option", [flow(selector=None), flow(bids=None), flow(bids=())])
def test_a_new_fid_without_selector_or_binding_reference_is_130(option: Option) -> None:
    assert statuses(option) == [MALFORMED]


def test_a_selector_of_unknown_format_is_133() -> None:
    strange = UnreadableSelector(format=9, octets=b"\x09\0", why="not known")
    assert statuses(flow(selector=strange)) == [FlowStatus.TRAFFIC_SELECTOR_FORMAT_NOT_SUPPORTED]


def test_a_selector_that_contradicts_itself_is_130() -> None:
    broken = UnreadableSelector(format=IPV6, octets=b"\x02\0", why="too short")
    assert statuses(flow(selector=broken)) == [MALFORMED]


def test_a_bid_that_is_not_registered_is_131() -> None:
    assert statuses(flow(bids=(1, 7))) == [FlowStatus.BID_NOT_FOUND]


def test_a_new_flow_is_active() -> None:
    result = process(update(flow()), (), BOTH)
    assert result.flows == (KNOWN,)
    assert [it.status for it in result.answers] == [OK]


def test_a_known_flow_gets_its_new_priority_and_keeps_what_is_absent() -> None:
    result = process(update(flow(priority=5, bids=None, selector=None)), (KNOWN,), BOTH)
    assert result.flows == (replace(KNOWN, priority=5),)


def test_a_known_flow_gets_what_is_present() -> None:
    result = process(update(flow(bids=(2,), selector=WEB)), (KNOWN,), BOTH)
    assert result.flows == (FlowBinding(1, 10, (2,), WEB),)


def test_a_fid_in_the_summary_that_is_unknown_is_132_in_an_option_of_its_own() -> None:
    (refused,) = process(update(FlowSummary(flow_ids=(1, 9))), (KNOWN,), BOTH).answers
    assert (refused.flow_id, refused.status) == (9, FlowStatus.FID_NOT_FOUND)


def test_what_policy_refuses_is_128() -> None:
    result = process(update(flow()), (), BOTH, allowed=False)
    assert [it.status for it in result.answers] == [FlowStatus.ADMINISTRATIVELY_PROHIBITED]
    assert result.flows == ()


def test_a_flow_in_no_option_of_the_update_is_removed() -> None:
    other = FlowBinding(2, 20, (2,), WEB)
    assert process(update(flow(2, 20, (2,), WEB)), (KNOWN, other), BOTH).flows == (other,)
    assert process(update(), (KNOWN, other), BOTH).flows == ()


def test_a_flow_in_the_summary_is_kept_as_it_is() -> None:
    assert process(update(FlowSummary(flow_ids=(1,))), (KNOWN,), BOTH).flows == (KNOWN,)


def test_a_flow_whose_change_is_refused_stays_as_it_was() -> None:
    assert process(update(flow(bids=(9,))), (KNOWN,), BOTH).flows == (KNOWN,)


@pytest.mark.parametrize("option", [flow(number=0), flow(priority=0)])
def test_fid_and_priority_of_0_are_130(option: Option) -> None:
    assert statuses(option) == [MALFORMED]


def test_two_flows_of_one_priority_are_130() -> None:
    assert statuses(flow(1, 10), flow(2, 10)) == [OK, MALFORMED]


def test_two_flows_may_change_places() -> None:
    other = FlowBinding(2, 20, (2,), WEB)
    result = process(update(flow(1, 20), flow(2, 10, (2,), WEB)), (KNOWN, other), BOTH)
    assert [it.flow_id for it in result.flows] == [2, 1]


def test_an_option_that_cannot_be_read_is_130() -> None:
    broken = MalformedOption(type=OptionType.FLOW_IDENTIFICATION, data=b"\0\7", why="too short")
    (refused,) = process(update(broken), (), BOTH).answers
    assert (refused.flow_id, refused.status) == (7, MALFORMED)


def test_flows_have_a_bound() -> None:
    many = [flow(number, number) for number in range(1, MAX_FLOWS + 2)]
    assert statuses(*many)[-1] == FlowStatus.REASON_UNSPECIFIED


def test_flows_come_back_from_the_store_as_they_were() -> None:
    rules = (FlowRule(selector=WEB, labels=(20, 10), spread=Spread.PER_PACKET),)
    flows = process(update(*options_of(rules, WAYS), flow(5)), (), BOTH).flows
    assert flows_from_octets(octets_of(flows)) == flows


# --- flows as rules -----------------------------------------------------------------------------------------------


def test_several_bids_are_a_copy_on_each() -> None:
    (rule,) = rules_of((replace(KNOWN, binding_ids=(1, 2)),), {1: 1, 2: 2}.get)
    assert (rule.binding_ids, rule.spread) == ((1, 2), Spread.BICAST)


def test_a_flow_without_a_live_binding_is_no_rule() -> None:
    assert rules_of((KNOWN,), {2: 2}.get) == ()


@pytest.mark.parametrize("spread", list(Spread))
def test_rules_of_one_end_are_those_of_the_other(spread: Spread) -> None:
    rules = (FlowRule(selector=SSH, labels=(20, 10), spread=spread), FlowRule(selector=WEB, labels=(10,)))
    flows = process(update(*options_of(rules, WAYS)), (), BOTH).flows
    assert [(it.selector, it.labels, it.spread) for it in rules_of(flows, {1: 1, 2: 2}.get)] == [
        (it.selector, it.labels, it.spread) for it in rules
    ]


def test_a_rule_for_every_packet_is_a_flow_of_each_family() -> None:
    ways = (TunnelEnd(remote=IPv6Address("::1")),)
    options = [it for it in options_of((FlowRule(selector=None),), ways) if isinstance(it, FlowIdentification)]
    assert {it.selector.format for it in options if it.selector} == set(TrafficSelectorFormat)


def test_a_rule_that_no_path_fits_is_not_sent() -> None:
    assert options_of((FlowRule(selector=SSH, labels=(99,)),), (TunnelEnd(remote=IPv6Address("::1")),)) == ()


# --- in updates ---------------------------------------------------------------------------------------------------


def test_flows_become_a_policy_before_the_path_that_names_it() -> None:
    scene = Scene()
    turn = scene.path(1, more=(flow(),))
    assert kinds(turn)[:2] == ["SetPolicy", "Bind"]
    (policy,) = done(turn, SetPolicy)
    assert [rule.binding_ids for rule in policy.rules] == [(1,)]
    (path,) = paths(turn).values()
    assert isinstance(path, TowardVisited)
    assert path.policy == policy.name


def test_the_policy_of_the_profile_follows_what_the_mag_says() -> None:
    own = FlowRule(selector=WEB, labels=(10,))
    scene = Scene(profiles=(NodeProfile(node="", policy="p"),), policies={"p": (own,)})
    (policy,) = done(scene.path(1, more=(flow(),)), SetPolicy)
    assert policy.rules[0].selector == SSH
    assert policy.rules[1] == own


def test_flows_are_answered_one_by_one() -> None:
    ack = answer(Scene().path(1, more=(flow(), flow(2, 20, (9,)))))
    assert [it.status for it in ack.options_of(FlowIdentification)] == [OK, FlowStatus.BID_NOT_FOUND]
    assert ack.status == 0


def test_an_unnumbered_path_is_bid_1_to_flows() -> None:
    ack = Scene().ack(more=(flow(),))
    assert [it.status for it in ack.options_of(FlowIdentification)] == [OK]


def test_flows_that_a_refresh_sums_up_touch_nothing() -> None:
    scene = Scene()
    turn = scene.path(1, more=(flow(),))
    (prefix,) = paths(turn)
    turn = scene.path(1, prefixes=(prefix,), hi=5, more=(FlowSummary(flow_ids=(1,)),))
    assert kinds(turn) == ["Send"]


def test_a_refresh_without_flows_removes_them_and_their_policy() -> None:
    scene = Scene()
    (prefix,) = paths(scene.path(1, more=(flow(),)))
    turn = scene.path(1, prefixes=(prefix,), hi=5)
    assert scene.session.flows == ()
    assert [policy.rules for policy in done(turn, SetPolicy)] == [()]


def test_a_flow_without_its_binding_is_inactive_until_the_binding_is_back() -> None:
    scene = Scene()
    prefix = scene.van()
    on_wlan, on_lte = flow(1, 10, (1,)), flow(2, 20, (2,), WEB)
    scene.path(1, prefixes=(prefix,), hi=5, more=(on_wlan, on_lte))
    kept = (FlowSummary(flow_ids=(1, 2)),)
    (policy,) = done(scene.path(1, prefixes=(prefix,), hi=4, lifetime=0, more=kept), SetPolicy)
    assert [rule.binding_ids for rule in policy.rules] == [(2,)]
    (policy,) = done(scene.path(1, prefixes=(prefix,), hi=5, more=kept), SetPolicy)
    assert [rule.binding_ids for rule in policy.rules] == [(1,), (2,)]


def test_flows_survive_a_restart() -> None:
    scene = Scene()
    scene.path(1, more=(flow(),))
    after = Scene()
    turn = after.lma.handle(BindingsRestored(bindings=(scene.session.saved(),)), after.now)
    (policy,) = done(turn, SetPolicy)
    assert [rule.selector for rule in policy.rules] == [SSH]


def test_the_policy_goes_with_the_session() -> None:
    scene = Scene()
    (prefix,) = paths(scene.path(1, more=(flow(),)))
    scene.path(1, prefixes=(prefix,), hi=4, lifetime=0)
    assert SetPolicy(name="session 1", rules=()) in scene.wait(12.0)


def test_a_multipath_answer_has_the_flows_and_the_binding() -> None:
    ack = answer(Scene().path(1, more=(flow(),)))
    assert multipath(1)[0] in ack.options
