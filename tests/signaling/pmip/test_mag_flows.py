"""Flow policies: the gateway tells the anchor all flows in every update, or they vanish (RFC 6089, RFC 8278 3.2)."""

from dataclasses import replace

from signaling.actions import Bind, Send, SetPolicy, TowardAnchor
from signaling.flow_rules import FlowRule
from signaling.iana import FlowIdentificationStatus, TrafficSelectorFormat
from signaling.settings import NodeProfile
from signaling.wire.binding_ack import BindingAck
from signaling.wire.binding_update import BindingUpdate
from signaling.wire.options.flow import FlowIdentification, FlowSummary
from signaling.wire.traffic_selector import Range, TrafficSelector
from tests.signaling.pmip.pmip_world import LTE, WLAN, Received, World


def voice(*labels: int) -> FlowRule:
    selector = TrafficSelector(format=TrafficSelectorFormat.IPV6_BINARY, protocol=Range(17))
    return FlowRule(name="voice", selector=selector, labels=labels)


def attached(rules: tuple[FlowRule, ...] = (voice(11, 9),), **settings: object) -> World:
    world = World(uplinks=(WLAN, LTE), policies={"default": rules}, **settings)  # type: ignore[arg-type]
    world.attach("mn1")
    world.run(1.0)
    return world


def ways(received: Received) -> list[tuple[int, ...] | None]:
    return [option.binding_ids for option in received.update.options_of(FlowIdentification)]


def test_the_policy_is_set_before_a_path_names_it() -> None:
    world = attached()
    (turn,) = (turn for turn in world.mag.turns if any(isinstance(action, SetPolicy) for action in turn))
    assert [type(action) for action in turn if isinstance(action, Bind | SetPolicy)] == [SetPolicy, Bind]
    (path,) = world.mag.paths.values()
    assert isinstance(path, TowardAnchor)
    assert path.policy == "default"


def test_a_flow_names_only_paths_that_are_registered_or_register_now() -> None:
    world = attached()
    first, second = (ways(it) for it in world.lma.updates)
    assert first == [(1,)]
    assert second[0] is not None
    assert second[0][0] == 2  # the label that is preferred


def test_a_refresh_sums_up_what_the_anchor_has() -> None:
    world = attached()
    world.keep_talking("mn1", 300.0)
    last = world.lma.updates[-1].update
    assert (last.option(FlowSummary), last.option(FlowIdentification)) == (FlowSummary(flow_ids=(1,)), None)


def test_taking_a_path_back_tells_the_flows_without_it() -> None:
    world = attached()
    world.uplink_down(LTE)
    world.run(1.0)
    last = world.lma.updates[-1]
    assert (last.update.lifetime, ways(last)) == (0, [(1,)])


def test_a_changed_policy_holds_here_at_once_and_is_told() -> None:
    world = attached()
    rules = (voice(9),)
    todo = world.perform("mag1", world.mag.mag.set_policy("default", rules, world.now))
    assert [type(action) for action in todo] == [SetPolicy, Send]
    world.run(1.0)
    assert ways(world.lma.updates[-1]) == [(1,)]


def test_a_policy_that_is_set_where_there_was_none_holds_for_sessions_that_stand() -> None:
    world = World(uplinks=(WLAN, LTE))
    world.attach("mn1")
    world.run(1.0)
    world.perform("mag1", world.mag.mag.set_policy("default", (voice(9),), world.now))
    world.run(1.0)
    (path,) = world.mag.paths.values()
    assert isinstance(path, TowardAnchor)
    assert (path.policy, ways(world.lma.updates[-1])) == ("default", [(1,)])


def test_a_policy_that_is_taken_away_is_taken_away_at_the_anchor() -> None:
    world = attached()
    world.perform("mag1", world.mag.mag.set_policy("default", (), world.now))
    world.run(1.0)
    last = world.lma.updates[-1]
    assert (ways(last), last.update.option(FlowSummary)) == ([], None)
    (path,) = world.mag.paths.values()
    assert isinstance(path, TowardAnchor)
    assert path.policy == ""


def test_a_change_while_an_answer_is_missing_is_told_after_it() -> None:
    world = World(uplinks=(WLAN, LTE), policies={"default": (voice(11),)})
    world.attach("mn1")
    world.run(0.025)
    world.perform("mag1", world.mag.mag.set_policy("default", (voice(9),), world.now))
    world.run(1.0)
    assert ways(world.lma.updates[-1]) == [(1,)]


def test_a_node_with_a_policy_of_its_own_has_that() -> None:
    profile = NodeProfile(node="mn1", policy="gold")
    world = World(uplinks=(WLAN, LTE), policies={"default": (voice(9),), "gold": (voice(11),)}, profiles=(profile,))
    world.attach("mn1")
    world.run(1.0)
    assert ways(world.lma.updates[-1]) == [(2,)]


def test_flows_the_anchor_refuses_are_told_in_full_each_time_and_not_at_once_again() -> None:
    world = World(uplinks=(WLAN, LTE), policies={"default": (voice(11),)})

    def refuse(update: BindingUpdate, ack: BindingAck) -> BindingAck:
        refused = [
            replace(option, status=FlowIdentificationStatus.ADMINISTRATIVELY_PROHIBITED)
            if isinstance(option, FlowIdentification)
            else option
            for option in ack.options
        ]
        return replace(ack, options=tuple(refused))

    world.lma.edit = refuse
    world.attach("mn1")
    world.run(10.0)
    assert len(world.lma.updates) == 2
    world.keep_talking("mn1", 270.0)
    assert ways(world.lma.updates[-1]) == [(2,)]


def test_without_several_paths_no_flows_are_told() -> None:
    world = World(policies={"default": (voice(9),)})
    world.attach("mn1")
    world.run(1.0)
    assert ways(world.lma.updates[-1]) == []
