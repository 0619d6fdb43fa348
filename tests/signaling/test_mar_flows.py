"""IP flow mobility: a prefix, or flows of it, at one router while the interface they belong to is at another one."""

import random
from dataclasses import replace
from ipaddress import IPv6Network
from typing import Any

import pytest

from signaling.actions import LocalLink, Send, SplitLink, TowardAnchor, TowardVisited, TunnelEnd
from signaling.dma.session import NEXT, Happening, State
from signaling.dma.update_list import Progress
from signaling.flow_rules import FlowRule
from signaling.iana import FlowIdentificationStatus as FlowStatus
from signaling.iana import (
    HandoffIndicator,
    Status,
    UpdateNotificationFlag,
    UpdateNotificationReason,
    UpdateNotificationStatus,
)
from signaling.iana import TrafficSelectorFormat as Format
from signaling.settings import DEFAULT_SPI, Sharing
from signaling.wire.authentication import sign
from signaling.wire.binding_ack import BindingAck
from signaling.wire.binding_update import BindingUpdate
from signaling.wire.notification import UpdateNotification, UpdateNotificationAck
from signaling.wire.options.flow import FlowIdentification
from signaling.wire.options.prefix import HomeNetworkPrefix
from signaling.wire.options.time import Timestamp
from signaling.wire.traffic_selector import Range, TrafficSelector
from tests.signaling.test_mar_interfaces import INTERFACES, at_two_routers, handoffs, local, two_interfaces
from tests.world import INTERFACE, KEY, World

CALLS = FlowRule(
    name="calls",
    selector=TrafficSelector(format=Format.IPV6_BINARY, protocol=Range(17), destination_port=Range(5004, 5010)),
)
WEB = FlowRule(name="web", selector=TrafficSelector(format=Format.IPV6_BINARY, source_port=Range(80)))
POLICIES = {"calls": (CALLS,), "web": (WEB,)}
REACHED_AT = {"mar1": "mn1", "mar2": "mn1/2", "mar3": "mn1/2"}


class Scene:
    """mn1 at mar1, mn1/2 at mar2 (and in `three` mn1/3 at mar3): `prefix` is mar1's for mn1."""

    def __init__(self, world: World | None = None, **profile: Any) -> None:
        self.world = world or at_two_routers(policies=POLICIES, **profile)
        self.prefix = self.world.prefix("mn1", "mar1")
        self.anchor = self.world["mar1"].mar
        self.visited = self.world["mar2"].mar

    @property
    def state(self) -> State:
        return self.world.state(self.prefix)

    def order(self, mar: str, what: str, *arguments: Any) -> None:
        """An operator's order to a router, and a moment for what it leads to."""
        router = self.world[mar]
        part = router.mar.flows if what == "hand" else router.mar
        self.world._perform(router, getattr(part, what)(*arguments, self.world.now))
        self.world.run(0.5)

    def hand(self, policy: str = "", *, peer: str = "mar2") -> None:
        self.order("mar1", "hand", self.prefix, peer, policy)

    def take(self, policy: str = "", *, mar: str = "mar2") -> None:
        (session,) = (it for it in self.world.store.of("mn1") if it.prefix == self.prefix)
        self.order(mar, "take", session, policy)

    def path(self, mar: str = "mar1") -> Any:
        return self.world.path(mar, self.prefix)

    def flows(self, rule: FlowRule, number: int) -> FlowRule:
        """A rule as the anchor's data path has it: for addresses of the prefix, by that way."""
        selector = replace(rule.selector, destination=Range(self.prefix[0], self.prefix[-1]))
        return FlowRule(name="flow 1", selector=selector, binding_ids=(number,))

    def split(self, *ways: tuple[str, FlowRule]) -> SplitLink:
        """The path of the prefix while its node is at mar1 and these routers take these flows."""
        numbered = list(enumerate(ways, 2))
        return SplitLink(
            rest=local(self.world, "mn1"),
            tunnels=tuple(TunnelEnd(remote=self.world.address[mar], binding_id=at) for at, (mar, _) in numbered),
            policy=str(self.prefix),
            flows=tuple(self.flows(rule, at).selector for at, (_, rule) in numbered),
        )

    def say(self, source: str = "mar2", **changes: Any) -> BindingAck:
        """What the anchor answers to an update of a router that wants flows."""
        six = HandoffIndicator.ATTACHMENT_OVER_A_NEW_INTERFACE_SHARING_PREFIXES
        update = self.world.update("mn1/2", self.prefix, **{"handoff": option_of(six)} | changes)
        named = self.world.update("mn1", self.prefix).options[0]
        update = replace(update, options=(named, *update.options[1:]))
        turn = self.world.say(update, source, "mar1")
        (ack,) = (it.message for it in turn if isinstance(getattr(it, "message", None), BindingAck))
        return ack


def option_of(indicator: int) -> Any:
    from signaling.wire.options.access import HandoffIndicatorOption

    return HandoffIndicatorOption(indicator=indicator)


def flow(number: int, selector: TrafficSelector | None, *, priority: int | None = None) -> FlowIdentification:
    return FlowIdentification(flow_id=number, priority=priority or number, binding_ids=(1,), selector=selector)


@pytest.fixture
def scene() -> Scene:
    return Scene()


# --- by prefix -------------------------------------------------------------------------------------------------


def test_one_of_two_prefixes_of_an_anchor_is_moved_and_the_other_one_stays() -> None:
    world = two_interfaces(policies=POLICIES)
    for name, mar in (("mn1", "mar1"), ("mn1/2", "mar1"), ("mn1/2", "mar2")):
        world.move(name, mar)
        world.run(5.0)
    world.move("mn1/2", "mar1")
    world.run(5.0)
    assert [world.state(world.prefix(name, "mar1")) for name in INTERFACES] == [State.LOCAL, State.LOCAL]
    world.move("mn1/2", "mar2")
    world.run(5.0)
    assert [world.state(world.prefix(name, "mar1")) for name in INTERFACES] == [State.LOCAL, State.REMOTE]


@pytest.mark.parametrize("by", ["hand", "take"])
def test_a_prefix_is_moved_by_order_of_either_router(by: str, scene: Scene) -> None:
    getattr(scene, by)()
    assert scene.path("mar1") == TowardVisited.at(scene.world.address["mar2"])
    gateway = scene.world.host("mn1/2").link_local
    assert scene.path("mar2") == TowardAnchor.through(scene.world.address["mar1"], INTERFACE, gateway)
    assert handoffs(scene.world, "mar2") == [HandoffIndicator.HANDOFF_BETWEEN_TWO_DIFFERENT_INTERFACES]


def test_other_prefixes_stay_where_they_are_when_one_is_moved(scene: Scene) -> None:
    other = scene.world.prefix("mn1/2", "mar2")
    scene.hand()
    assert scene.world.path("mar2", other) == local(scene.world, "mn1/2")


def test_the_anchor_asks_with_a_prefix_that_is_not_to_be_advertised(scene: Scene) -> None:
    scene.hand()
    (asked,) = scene.world.sent(UpdateNotification)
    assert isinstance(asked.message, UpdateNotification)
    assert asked.message.reason == UpdateNotificationReason.FLOW_MOBILITY
    assert asked.message.options_of(HomeNetworkPrefix) == (HomeNetworkPrefix(prefix=scene.prefix, off_link=True),)


def test_a_prefix_moved_by_order_is_advertised_where_its_addresses_are_and_not_where_it_goes(scene: Scene) -> None:
    scene.hand()
    scene.world.run(4000.0)
    assert scene.prefix not in scene.world.host("mn1/2").addresses
    assert scene.world.deprecated("mn1") == [scene.prefix]


@pytest.mark.parametrize("by", ["hand", "take"])
@pytest.mark.parametrize("back", ["recall", "give_back"])
def test_a_prefix_moved_by_order_comes_back_by_order_of_either_router(by: str, back: str, scene: Scene) -> None:
    getattr(scene, by)()
    scene.order("mar1" if back == "recall" else "mar2", back, scene.prefix)
    scene.world.run(5.0)
    assert scene.path("mar1") == local(scene.world, "mn1")
    assert (scene.path("mar2"), scene.world.preferred("mn1")) == (None, [scene.prefix])


def test_a_prefix_moved_by_order_stays_there(scene: Scene) -> None:
    scene.hand()
    for _ in range(100):
        scene.world.show("mn1", "packet")
        scene.world.show("mn1/2", "packet")
        scene.world.run(10.0)
    assert scene.world.delivered_at(scene.prefix) == ["mar2"]
    assert list(scene.world.faults()) == []


def test_a_router_without_the_node_takes_nothing_and_says_so(scene: Scene) -> None:
    scene.hand(peer="mar3")
    (answer,) = scene.world.sent(UpdateNotificationAck)
    assert isinstance(answer.message, UpdateNotificationAck)
    assert answer.message.status == UpdateNotificationStatus.MOBILE_NODE_NOT_ATTACHED
    (note,) = scene.world["mar1"].notes("move-refused")
    assert note.fields["why"] == "MOBILE_NODE_NOT_ATTACHED"
    assert scene.state is State.LOCAL


def test_a_router_that_does_not_answer_is_asked_once_more_and_given_up(scene: Scene) -> None:
    scene.world.lose(10, UpdateNotification)
    scene.hand()
    scene.world.run(5.0)
    (note,) = scene.world["mar1"].notes("move-refused")
    assert (note.fields["why"], len(scene.world.sent(UpdateNotification))) == ("no answer", 2)
    assert scene.state is State.LOCAL


def second_prefix_away() -> Scene:
    """Both interfaces came to mar1, the second went on to mar2, and then the prefix of the first is handed there."""
    world = two_interfaces(policies=POLICIES)
    for name in INTERFACES:
        world.attach(name, "mar1")
        world.run(2.0)
    world.move("mn1/2", "mar2")
    world.run(2.0)
    scene = Scene(world)
    scene.hand()
    return scene


def test_two_prefixes_handed_to_one_router_are_one_list() -> None:
    scene = second_prefix_away()
    world = scene.world
    second = world.prefix("mn1/2", "mar1")
    scene.order("mar1", "hand", second, "mar2", "")
    assert {world.state(prefix) for prefix in (scene.prefix, second)} == {State.REMOTE}
    assert list(world.faults()) == []


def test_a_prefix_that_came_back_by_itself_is_not_in_the_list_any_more() -> None:
    scene = second_prefix_away()
    world = scene.world
    world.move("mn1", "mar1")
    world.run(2.0)
    scene.order("mar1", "hand", world.prefix("mn1/2", "mar1"), "mar2", "")
    assert scene.state is State.LOCAL


def test_what_the_list_of_an_anchor_leaves_out_is_given_back(scene: Scene) -> None:
    scene.hand()
    scene.anchor.flows.handed.clear()
    asking = scene.anchor.flows._ask("mn1", "mar2", scene.world.now)
    scene.world._perform(scene.world["mar1"], asking)
    scene.world.run(5.0)
    assert scene.path("mar1") == local(scene.world, "mn1")


# --- by flow filter --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["hand", "take"])
def test_flows_are_moved_by_order_of_either_router_and_the_rest_stays(by: str, scene: Scene) -> None:
    getattr(scene, by)("calls")
    assert (scene.state, scene.path()) == (State.SPLIT, scene.split(("mar2", CALLS)))
    assert scene.world["mar1"].policies == {str(scene.prefix): (scene.flows(CALLS, 2),)}
    assert isinstance(scene.path("mar2"), TowardAnchor)
    assert scene.world.preferred("mn1") == [scene.prefix]
    assert list(scene.world.faults()) == []


def test_flows_come_by_profile_where_interfaces_share_prefixes() -> None:
    scene = Scene(sharing=Sharing.SHARED_PREFIX, policy="calls")
    assert (scene.state, scene.path()) == (State.SPLIT, scene.split(("mar2", CALLS)))


def test_interfaces_that_share_prefixes_without_a_policy_share_no_flows_yet() -> None:
    scene = Scene(sharing=Sharing.SHARED_PREFIX)
    assert scene.path() == replace(scene.split(("mar2", CALLS)), flows=())


def test_a_policy_that_changes_is_followed_at_once(scene: Scene) -> None:
    scene.take("calls")
    scene.order("mar2", "set_policy", "calls", (WEB,))
    assert scene.path() == scene.split(("mar2", WEB))


def test_a_policy_of_the_anchor_that_changes_is_followed_at_once(scene: Scene) -> None:
    scene.hand("calls")
    scene.order("mar1", "set_policy", "calls", (WEB,))
    assert scene.path() == scene.split(("mar2", WEB))


@pytest.mark.parametrize("back", ["recall", "give_back"])
def test_flows_come_back_by_order_of_either_router(back: str, scene: Scene) -> None:
    scene.take("calls")
    scene.order("mar1" if back == "recall" else "mar2", back, scene.prefix)
    scene.world.run(5.0)
    assert (scene.state, scene.path(), scene.path("mar2")) == (State.LOCAL, local(scene.world, "mn1"), None)
    assert scene.world["mar1"].policies == {}


def test_flows_stay_moved_as_long_as_their_router_refreshes_them(scene: Scene) -> None:
    scene.take("calls")
    for _ in range(100):
        scene.world.show("mn1/2", "packet")
        scene.world.run(20.0)
    assert scene.path() == scene.split(("mar2", CALLS))


def test_a_refresh_of_flows_touches_no_table_and_no_store(scene: Scene) -> None:
    scene.take("calls")
    before = len(scene.world["mar1"].done)
    scene.world.run(295.0)
    did = [type(action).__name__ for _, action in scene.world["mar1"].done[before:]]
    assert "Bind" not in did
    assert "SaveSession" not in did


# --- the state SPLIT, cell by cell -----------------------------------------------------------------------------


def test_split_attached_stays_split(scene: Scene) -> None:
    scene.take("calls")
    scene.world.detach("mn1", noticed=False)
    scene.world.carrier("mar1", "lan1")
    scene.world.attach("mn1", "mar1", interface="lan1")
    path = scene.path()
    assert scene.state is NEXT[State.SPLIT, Happening.ATTACHED] is State.SPLIT
    assert path.rest == LocalLink(interface="lan1", gateway=scene.world.host("mn1").link_local)


def test_split_left_becomes_remote_at_the_router_that_had_flows(scene: Scene) -> None:
    scene.take("calls")
    scene.world.detach("mn1")
    assert scene.state is NEXT[State.SPLIT, Happening.LEFT] is State.REMOTE
    assert scene.path() == TowardVisited.at(scene.world.address["mar2"])
    scene.world.run(1000.0)
    assert scene.state is State.REMOTE
    assert list(scene.world.faults()) == []


def test_split_registered_by_another_router_keeps_the_flows_where_they_are(scene: Scene) -> None:
    scene.take("calls")
    scene.world.move("mn1", "mar3")
    scene.world.run(1.0)
    assert scene.state is NEXT[State.SPLIT, Happening.REGISTERED] is State.REMOTE
    ends = scene.world.address["mar3"], scene.world.address["mar2"]
    tunnels = tuple(TunnelEnd(remote=remote, binding_id=at) for at, remote in enumerate(ends, 1))
    assert scene.path() in (
        TowardVisited(tunnels=tunnels, policy=str(scene.prefix)),
        TowardVisited.at(scene.world.address["mar2"]),  # it inherited while mn1 was nowhere
    )


def test_split_registered_as_a_whole_by_the_router_that_had_flows(scene: Scene) -> None:
    scene.take("calls")
    scene.take()
    assert (scene.state, scene.path()) == (State.REMOTE, TowardVisited.at(scene.world.address["mar2"]))
    assert scene.world["mar1"].policies == {}


def test_split_flows_asked_by_a_second_router_gives_each_its_own(scene: Scene) -> None:
    scene.take("calls")
    selector = scene.flows(WEB, 3).selector
    scene.say("mar3", flows=(flow(1, selector, priority=7),))
    assert scene.state is NEXT[State.SPLIT, Happening.FLOWS_ASKED] is State.SPLIT
    assert scene.path() == scene.split(("mar2", CALLS), ("mar3", WEB))
    first, second = scene.world["mar1"].policies[str(scene.prefix)]
    assert (first.binding_ids, second.binding_ids) == ((2,), (3,))


def test_split_stays_split_until_the_last_router_gives_its_flows_back(scene: Scene) -> None:
    scene.take("calls")
    scene.say("mar3", flows=(flow(1, scene.flows(WEB, 3).selector),))
    scene.order("mar2", "give_back", scene.prefix)
    assert scene.state is State.SPLIT
    scene.world.run(400.0)
    assert scene.state is NEXT[State.SPLIT, Happening.FLOWS_ENDED] is State.LOCAL


def test_split_flows_that_are_not_refreshed_end(scene: Scene) -> None:
    scene.say("mar3", flows=(flow(1, scene.flows(WEB, 3).selector),))
    scene.world.run(299.0)
    before = scene.state
    scene.world.run(2.0)
    assert (before, scene.state) == (State.SPLIT, State.LOCAL)


def test_split_restored_waits_for_the_node_and_the_flows_are_asked_again(scene: Scene) -> None:
    scene.take("calls")
    scene.world.restart("mar1")
    assert scene.state is NEXT[State.SPLIT, Happening.RESTORED] is State.GUARD
    scene.world.show("mn1", "packet")
    scene.world.run(320.0)
    assert scene.path() == scene.split(("mar2", CALLS))


def test_remote_with_flows_elsewhere_sends_the_rest_to_the_router_that_has_the_prefix(scene: Scene) -> None:
    scene.hand()
    scene.say("mar3", flows=(flow(1, scene.flows(WEB, 2).selector),))
    ends = scene.world.address["mar2"], scene.world.address["mar3"]
    tunnels = tuple(TunnelEnd(remote=remote, binding_id=at) for at, remote in enumerate(ends, 1))
    assert scene.state is NEXT[State.REMOTE, Happening.FLOWS_ASKED] is State.REMOTE
    assert scene.path() == TowardVisited(tunnels=tunnels, policy=str(scene.prefix))
    rules = scene.world["mar1"].policies[str(scene.prefix)]
    assert rules == (scene.flows(WEB, 2), FlowRule(name="all else", selector=None, binding_ids=(1,)))


def test_remote_flows_ended_leaves_the_prefix_where_it_is(scene: Scene) -> None:
    scene.hand()
    scene.say("mar3", flows=(flow(1, scene.flows(WEB, 2).selector),))
    scene.world.run(1.0)
    scene.say("mar3", lifetime=0)
    assert scene.state is NEXT[State.REMOTE, Happening.FLOWS_ENDED] is State.REMOTE
    assert scene.path() == TowardVisited.at(scene.world.address["mar2"])


def test_remote_inherited_by_the_router_that_had_flows(scene: Scene) -> None:
    scene.hand()
    scene.say("mar3", flows=(flow(1, scene.flows(WEB, 2).selector),))
    scene.world.run(0.1)
    scene.say("mar2", lifetime=0, handoff=option_of(4))
    assert scene.state is NEXT[State.REMOTE, Happening.INHERITED] is State.REMOTE
    assert scene.path() == TowardVisited.at(scene.world.address["mar3"])


def test_remote_attached_while_others_have_flows_is_split(scene: Scene) -> None:
    scene.hand()
    scene.say("mar3", flows=(flow(1, scene.flows(WEB, 2).selector),))
    scene.world.detach("mn1")
    scene.world.attach("mn1", "mar1")
    assert scene.path() == scene.split(("mar3", WEB))


def test_nobody_shares_a_prefix_that_nobody_has(scene: Scene) -> None:
    scene.world.detach("mn1")
    assert scene.state is State.GUARD
    scene.say("mar3", flows=(flow(1, scene.flows(WEB, 2).selector),))
    assert (scene.state, scene.path()) == (State.REMOTE, TowardVisited.at(scene.world.address["mar3"]))


# --- what is refused -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("selector", "status"),
    [
        (TrafficSelector(format=Format.IPV6_BINARY, spi=Range(256)), FlowStatus.REASON_UNSPECIFIED),
        (TrafficSelector(format=Format.IPV6_BINARY, flow_label=Range(5)), FlowStatus.REASON_UNSPECIFIED),
        (TrafficSelector(format=Format.IPV6_BINARY, protocol=Range(6, 17)), FlowStatus.REASON_UNSPECIFIED),
        (TrafficSelector(format=Format.IPV6_BINARY, traffic_class=Range(0, 8)), FlowStatus.REASON_UNSPECIFIED),
        (TrafficSelector(format=Format.IPV4_BINARY), FlowStatus.REASON_UNSPECIFIED),
        (None, FlowStatus.FLOW_IDENTIFICATION_OPTION_MALFORMED),
    ],
)
def test_a_flow_that_cannot_be_told_apart_is_refused_by_itself(
    selector: TrafficSelector | None, status: FlowStatus, scene: Scene
) -> None:
    good = scene.flows(WEB, 2).selector
    ack = scene.say(flows=(flow(1, good), flow(2, selector)))
    assert ack.status is Status.BINDING_UPDATE_ACCEPTED
    assert [it.status for it in ack.options_of(FlowIdentification)] == [FlowStatus.FLOW_BINDING_SUCCESSFUL, status]
    assert scene.path().flows == (good,)


def test_no_more_routers_share_a_prefix_than_a_path_has_ways(scene: Scene) -> None:
    entry = scene.anchor.anchor.cache.get(scene.prefix)
    assert entry is not None
    scene.take("calls")
    sharer = entry.sharers[scene.world.address["mar2"]]
    for number in range(3, 17):
        address = scene.prefix[number]
        entry.sharers[address] = replace(sharer, care_of=address, number=number)
    assert scene.say("mar3").status is Status.INSUFFICIENT_RESOURCES


@pytest.mark.parametrize("whose", ["mar2", "mar1"])
def test_a_router_takes_no_prefix_from_a_peer_that_is_not_its_anchor(whose: str, scene: Scene) -> None:
    scene.take("calls")
    prefix = scene.prefix if whose == "mar1" else scene.world.prefix("mn1/2", "mar2")
    before = dict(scene.world["mar2"].paths)
    named = scene.world.update("mn1", prefix).options[0]
    asked = UpdateNotification(
        sequence_number=9,
        reason=UpdateNotificationReason.FLOW_MOBILITY,
        flags=UpdateNotificationFlag.ACKNOWLEDGE,
        options=(named, HomeNetworkPrefix(prefix=prefix, off_link=True), Timestamp(value=scene.world.stamp())),
    )
    source, there = scene.world.address["mar3"], scene.world.address["mar2"]
    octets = sign(asked, KEY, DEFAULT_SPI, care_of=there, source=source, destination=there)
    turn = scene.world.deliver(octets, source, "mar2")
    (ack,) = (it.message for it in turn if isinstance(it, Send))
    assert isinstance(ack, UpdateNotificationAck)
    assert (ack.status, scene.world["mar2"].paths) == (UpdateNotificationStatus.REASON_UNSPECIFIED, before)


def test_a_replayed_request_for_flows_is_refused(scene: Scene) -> None:
    stamp = scene.world.update("mn1", scene.prefix).options[-1]
    scene.say(timestamp=stamp)
    assert scene.say(timestamp=stamp).status is Status.TIMESTAMP_MISMATCH


def test_a_flow_that_the_anchor_refuses_is_told_by_the_router_that_asked(scene: Scene) -> None:
    spi = FlowRule(selector=TrafficSelector(format=Format.IPV6_BINARY, spi=Range(256)))
    scene.order("mar2", "set_policy", "odd", (spi,))
    scene.take("odd")
    (note,) = scene.world["mar2"].notes("flow-refused")
    assert note.fields["status"] == "REASON_UNSPECIFIED"


def test_flows_of_the_other_family_and_of_other_prefixes_are_not_asked_for(scene: Scene) -> None:
    other = TrafficSelector(format=Format.IPV6_BINARY, destination=Range(IPv6Network("2001:db8:ffff::/64")[1]))
    rules = (FlowRule(selector=TrafficSelector(format=Format.IPV4_BINARY)), FlowRule(selector=other), CALLS)
    scene.order("mar2", "set_policy", "mixed", rules)
    scene.take("mixed")
    assert scene.path() == scene.split(("mar2", CALLS))


def test_a_router_that_inherits_is_asked_whether_it_knows_and_if_not_another_one_has_the_prefix(scene: Scene) -> None:
    scene.take("calls")
    scene.world.lose(10, BindingUpdate, source="mar2")
    scene.order("mar2", "give_back", scene.prefix)
    scene.world.run(5.0)
    before = scene.state
    scene.world.mend()
    scene.world.detach("mn1")
    scene.world.run(3.0)
    assert before is State.SPLIT
    assert scene.world.delivered_at(scene.prefix) == ["mar2"]
    assert list(scene.world.faults()) == []


# --- anything ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(40))
def test_whatever_is_ordered_and_wherever_its_interfaces_go_a_node_gets_every_prefix(seed: int) -> None:
    walk = Walk(seed)
    for _ in range(25):
        walk.step()
    walk.settle()
    told = "\n".join([f"seed {seed}", *walk.trace])
    assert list(walk.world.faults()) == [], told
    places = [walk.world.host(name).at for name in INTERFACES]
    for session in walk.world.store.of("mn1"):
        (where,) = walk.world.delivered_at(session.prefix) or ["nowhere"]
        assert where in places, f"{session.prefix} is delivered at {where}, the node is at {places}\n{told}"
    for router in walk.world.routers.values():
        used = {path.policy for path in router.paths.values() if isinstance(path, SplitLink | TowardVisited)} - {""}
        assert set(router.policies) <= used, told


class Walk:
    """Interfaces come and go, orders are given, messages are lost."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.world = two_interfaces(policies=POLICIES)
        self.trace: list[str] = []
        for name, mar in zip(INTERFACES, ("mar1", "mar2"), strict=True):
            self.world.attach(name, mar)
            self.world.run(2.0)

    def step(self) -> None:
        act = self.chance.choices((self.move, self.order, self.lose), (4, 6, 1))[0]
        self.trace.append(f"{self.world.now:.3f} {act()}")
        self.world.run(self.chance.choice((0.0, 0.01, 0.5, 3.0)))

    def move(self) -> str:
        name, mar = self.chance.choice(INTERFACES), self.chance.choice(tuple(self.world.routers))
        self.world.move(name, mar, noticed=self.chance.random() < 0.8)
        return f"{name} to {mar}"

    def settle(self) -> None:
        """No more trouble, and every interface ends up somewhere."""
        self.world.mend()
        for name in INTERFACES:
            self.world.move(name, self.chance.choice(tuple(self.world.routers)))
            self.world.run(1.0)
        self.world.run(100.0)

    def lose(self) -> str:
        self.world.lose(self.chance.randint(1, 3))
        return "loses"

    def order(self) -> str:
        """An order as a router would let it pass: see router/control/moves.py."""
        session = self.chance.choice(self.world.store.of("mn1"))
        name = self.chance.choice(tuple(self.world.routers))
        router, policy = self.world[name], self.chance.choice(("", "calls", "web"))
        here = "mn1" in router.mar.here
        if session.anchor == router.address:
            peer = self.chance.choice([other for other in self.world.routers if other != name])
            what, arguments = ("recall", ()) if here and self.chance.random() < 0.5 else ("hand", (peer, policy))
        elif router.mar.registrar.get(session.prefix) is not None and self.chance.random() < 0.5:
            what, arguments = "give_back", ()
        elif here:
            what, arguments = "take", (policy,)
        else:
            return f"nothing at {name}"
        part = router.mar.flows if what == "hand" else router.mar
        about = session if what == "take" else session.prefix
        self.world._perform(router, getattr(part, what)(about, *arguments, self.world.now))
        return f"{name} {what} {session.prefix} {arguments}"


# --- losses and ends -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [BindingUpdate, BindingAck, UpdateNotification, UpdateNotificationAck])
@pytest.mark.parametrize("policy", ["", "calls"])
def test_a_lost_message_of_a_move_is_made_good(kind: type, policy: str, scene: Scene) -> None:
    scene.world.lose(1, kind)
    scene.hand(policy)
    scene.world.run(5.0)
    assert scene.state is (State.SPLIT if policy else State.REMOTE)
    assert list(scene.world.faults()) == []
    (item,) = scene.visited.registrar.of("mn1")
    assert item.progress is Progress.VISITED


@pytest.mark.parametrize("policy", ["", "calls"])
def test_when_the_interface_that_had_it_leaves_the_prefix_or_its_flows_come_back(policy: str, scene: Scene) -> None:
    scene.hand(policy)
    scene.world.detach("mn1/2")
    scene.world.run(5.0)
    assert scene.path() == local(scene.world, "mn1")


@pytest.mark.parametrize("policy", ["", "calls"])
def test_a_node_that_is_gone_leaves_nothing_of_what_was_moved(policy: str, scene: Scene) -> None:
    scene.hand(policy)
    for name in INTERFACES:
        scene.world.detach(name)
    scene.world.run(10_000.0)
    assert [router.paths for router in scene.world.routers.values()] == [{}, {}, {}]
    assert [router.policies for router in scene.world.routers.values()] == [{}, {}, {}]
    assert [router.mar.next_wake for router in scene.world.routers.values()] == [None, None, None]
    assert scene.anchor.flows.handed == {}
