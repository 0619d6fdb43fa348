"""More flow rules than one update can say: known beforehand, and no end of the session where it was not."""

from signaling.actions import Note
from signaling.flow_rules import FlowRule, Spread
from signaling.iana import TrafficSelectorFormat
from signaling.pmip.flow_room import why_too_long
from signaling.wire.options.flow import FlowIdentification
from signaling.wire.traffic_selector import Range, TrafficSelector
from tests.signaling.pmip.pmip_world import LTE, WLAN, World

UPLINKS = [(uplink.binding_id, uplink.label) for uplink in (WLAN, LTE)]


def rules(count: int, *labels: int) -> tuple[FlowRule, ...]:
    kinds = (TrafficSelectorFormat.IPV6_BINARY, TrafficSelectorFormat.IPV4_BINARY)
    return tuple(
        FlowRule(
            selector=TrafficSelector(format=kinds[at % 2], destination_port=Range(5000 + at, 6000 + at)),
            labels=labels or (9, 11),
            spread=Spread.BICAST,
        )
        for at in range(count)
    )


def fitting() -> int:
    return next(count for count in range(200) if why_too_long(rules(count + 1), UPLINKS))


def test_how_many_rules_fit_is_told() -> None:
    why = why_too_long(rules(100), UPLINKS)
    assert why is not None
    assert why.startswith("100 rules do not fit into one binding update, which has 1664 octets for them")
    assert f"expected no more than the first {fitting()} (" in why


def test_rules_that_fit_reach_the_anchor_of_a_node_with_a_long_name() -> None:
    node = "x" * 80 + "@example.net"
    world = World(uplinks=(WLAN, LTE), policies={"default": rules(fitting())}, services={node: "s" * 40})
    world.attach(node)
    world.run(2.0)
    assert len(world.lma.updates[-1].update.options_of(FlowIdentification)) == fitting()
    assert world.mag.mag.counters["door.unencodable"] == 0


def test_a_rule_that_no_uplink_takes_needs_no_room() -> None:
    assert why_too_long(rules(200, 77), UPLINKS) is None


def test_a_rule_with_more_ways_than_an_option_can_name_does_not_fit() -> None:
    several = FlowRule(selector=None, spread=Spread.BICAST)
    why = why_too_long((several,), [(number, 0) for number in range(1, 255)])
    assert why is not None
    assert "no more than the first 0 (" in why


def test_an_update_that_is_too_long_is_told_and_counted_and_the_session_goes_on_when_it_is_mended() -> None:
    world = World(uplinks=(WLAN, LTE), policies={"default": rules(100)})
    world.attach("mn1")
    world.run(3.0)
    notes = [action for turn in world.mag.turns for action in turn if isinstance(action, Note)]
    told = [note.fields for note in notes if note.event == "not-sent"]
    assert "BindingUpdate: " in str(told[0]["why"])
    assert world.mag.mag.counters["door.unencodable"] == len(told)
    assert not world.lma.updates
    world.perform("mag1", world.mag.mag.set_policy("default", rules(2), world.now))
    world.run(10.0)
    assert len(world.lma.updates[-1].update.options_of(FlowIdentification)) == 2
    assert world.mag.paths
