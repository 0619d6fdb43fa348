"""`move`: what an order leads to, and what is refused in one line; two interfaces of a node in the steppable world."""

from dataclasses import replace
from ipaddress import IPv6Address
from types import SimpleNamespace
from typing import Any

import pytest

from router.config import Cmd, Config
from router.control import mar_views, moves, orders
from router.control.commands import VIEWS
from router.control.moves import Move, move
from router.errors import RouterError
from router.places import RoleName
from signaling.actions import Held
from signaling.dma.session import State
from signaling.flow_rules import FlowRule, Spread
from signaling.iana import TrafficSelectorFormat
from signaling.wire.traffic_selector import Range, TrafficSelector
from tests.signaling.test_mar_flows import CALLS, POLICIES
from tests.signaling.test_mar_interfaces import at_two_routers
from tests.world import World

SPI = FlowRule(selector=TrafficSelector(format=TrafficSelectorFormat.IPV6_BINARY, spi=Range(256)))
IPV4 = FlowRule(selector=TrafficSelector(format=TrafficSelectorFormat.IPV4_BINARY))
ELSEWHERE = FlowRule(
    selector=TrafficSelector(format=TrafficSelectorFormat.IPV6_BINARY, destination=Range(IPv6Address("3fff::1")))
)
ODD = {
    "labels": (replace(CALLS, labels=(1,)),),
    "copies": (replace(CALLS, spread=Spread.BICAST),),
    "spi": (SPI,),
    "drop": (replace(CALLS, spread=Spread.DROP),),
    "ipv4": (IPV4,),
    "elsewhere": (ELSEWHERE,),
}


class Domain:
    """mn1 at mar1, its second interface at mar2; the routers as orders and views see them."""

    def __init__(self) -> None:
        self.world: World = at_two_routers(policies=POLICIES | ODD)
        self.prefix = self.world.prefix("mn1", "mar1")

    def router(self, name: str) -> Any:
        here = self.world[name]
        config = Config(
            role=RoleName.MAR, name=name, peers=here.settings.peers, policies=here.settings.policies
        )
        rules = {policy: [(policy, rule, 3, 300) for rule in told] for policy, told in here.policies.items()}
        return SimpleNamespace(
            config=config,
            role=here.mar,
            driver=SimpleNamespace(perform=lambda todo: self.world._perform(here, todo)),
            network=SimpleNamespace(
                paths=here.paths,
                nodes=dict.fromkeys(here.paths, "mn1"),
                policies=here.policies,
                held=lambda prefix: None,
                open_connections=dict,
                flow_counters=lambda: [row for rows in rules.values() for row in rows],
                checked=lambda policy, rules: rules,
            ),
        )

    def move(self, at: str = "mar1", prefix: str = "", node: str = "mn1", **wanted: str) -> str:
        sessions = self.world.store.of(node)
        told = move(self.router(at), Move(node=node, prefix=prefix or str(self.prefix), **wanted), sessions)
        self.world.run(0.5)
        return told

    @property
    def state(self) -> State:
        return self.world.state(self.prefix)


@pytest.fixture
def domain(monkeypatch: pytest.MonkeyPatch) -> Domain:
    found = Domain()
    for module in (moves, orders):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: found.world.now))
    return found


@pytest.mark.parametrize(("at", "to"), [("mar1", "mar2"), ("mar2", "mar2"), ("mar2", "")])
@pytest.mark.parametrize(("policy", "state"), [("", State.REMOTE), ("calls", State.SPLIT)])
def test_a_prefix_or_its_flows_go_where_the_order_says(
    at: str, to: str, policy: str, state: State, domain: Domain
) -> None:
    assert domain.move(at, to=to, policy=policy) == "mar2"
    assert domain.state is state


@pytest.mark.parametrize("at", ["mar1", "mar2"])
def test_nothing_is_moved_by_order_where_a_cmd_says_what_is_where(at: str, domain: Domain) -> None:
    router = domain.router(at)
    router.config = replace(router.config, cmd=Cmd(peer="mar3"))
    with pytest.raises(RouterError, match=r"^move mn1 .*: mar3, the CMD, says where it is"):
        move(router, Move(node="mn1", prefix=str(domain.prefix)), domain.world.store.of("mn1"))
    assert domain.state is State.LOCAL


@pytest.mark.parametrize("policy", ["", "calls"])
@pytest.mark.parametrize(("at", "to"), [("mar1", ""), ("mar1", "mar1"), ("mar2", "mar1")])
def test_they_come_back_where_the_order_says(at: str, to: str, policy: str, domain: Domain) -> None:
    domain.move(to="mar2", policy=policy)
    assert domain.move(at, to=to) == "mar1"
    domain.world.run(5.0)
    assert domain.state is State.LOCAL


@pytest.mark.parametrize(
    ("at", "wanted", "why"),
    [
        ("mar1", {"prefix": "nonsense"}, 'move mn1 nonsense: expected a prefix such as "2001:db8:1000:1::/64"'),
        ("mar1", {"node": "mn9"}, "no router has lent it a prefix: expected a node as `show nodes` has it"),
        ("mar1", {"prefix": "3fff::/64"}, "not a prefix of this node: expected one of: 2001:db8:100::/64"),
        ("mar1", {"to": "mar9"}, "--to mar9: no such router: expected one of: mar1, mar2, mar3"),
        ("mar1", {"to": "mar3"}, "--to mar3: the node is not there: by the store it is at mar1, mar2"),
        ("mar1", {"to": "mar2", "policy": "none"}, "no policy none: expected one of: calls, web"),
        ("mar1", {"policy": "calls"}, "this router is its anchor: it has all flows that no other one takes"),
        ("mar1", {"to": "mar2", "policy": "labels"}, "policy labels: rule 1: expected no labels"),
        ("mar1", {"to": "mar2", "policy": "copies"}, 'policy copies: rule 1: expected spread "per-flow", or'),
        ("mar1", {"to": "mar2", "policy": "drop"}, 'policy drop: rule 1: expected spread "per-flow", or no such key'),
        ("mar1", {"to": "mar2", "policy": "spi"}, "policy spi: rule 1: routing rules of the kernel know no spi"),
        ("mar1", {"to": "mar2", "policy": "ipv4"}, "policy ipv4: rule 1: its selector is not of IPv6"),
        ("mar1", {"to": "mar2", "policy": "elsewhere"}, "policy elsewhere says nothing about 2001:db8:100::/64"),
        ("mar2", {"to": "mar3"}, "--to mar3: only its anchor mar1 can do that: expected one of: mar2, mar1"),
        ("mar2", {"to": "mar1"}, "--to mar1: nothing of it is here"),
        ("mar3", {}, "mn1 is not attached here"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line_and_nothing_changes(
    at: str, wanted: dict[str, str], why: str, domain: Domain
) -> None:
    before = [dict(router.paths) for router in domain.world.routers.values()]
    with pytest.raises(RouterError) as caught:
        domain.move(at, **wanted)
    assert why in str(caught.value)
    assert "\n" not in str(caught.value)
    assert [router.paths for router in domain.world.routers.values()] == before
    assert domain.world.wire == []


@pytest.mark.parametrize(("at", "cure"), [("mar1", "have it back before"), ("mar2", "give it back before")])
def test_flows_of_a_prefix_that_is_there_as_a_whole_are_not_moved_there(at: str, cure: str, domain: Domain) -> None:
    domain.move(to="mar2")
    with pytest.raises(RouterError, match=cure):
        domain.move(at, to="mar2", policy="calls")
    assert domain.state is State.REMOTE


@pytest.mark.parametrize("at", ["mar1", "mar2"])
def test_what_was_released_is_not_moved_and_not_offered(at: str, domain: Domain) -> None:
    domain.move(to="mar2")
    domain.world.perform("mar2", domain.world["mar2"].mar.registrar.release(domain.prefix, domain.world.now))
    domain.world.run(1.0)
    with pytest.raises(RouterError, match=r"released, as nobody used it: expected one of: 2001:db8:200::/64$"):
        domain.move(at, to="mar2")
    with pytest.raises(RouterError, match=r"not a prefix of this node: expected one of: 2001:db8:200::/64$"):
        domain.move(at, prefix="3fff::/64", to="mar2")


def test_where_there_are_no_policies_the_refusal_says_how_to_get_one(domain: Domain) -> None:
    router = domain.router("mar1")
    router.config = replace(router.config, policies={})
    with pytest.raises(RouterError, match=r"no policy calls: this router has none: see policy set$"):
        move(router, Move(node="mn1", prefix=str(domain.prefix), policy="calls"), domain.world.store.of("mn1"))


def test_an_anchor_does_not_recall_the_prefix_of_a_node_that_is_not_there(domain: Domain) -> None:
    domain.move(to="mar2")
    domain.world.detach("mn1")
    with pytest.raises(RouterError, match="mn1 is not attached here"):
        domain.move()


def test_a_policy_that_a_mar_cannot_follow_is_refused(domain: Domain) -> None:
    text = '[[flow]]\nprotocol = "udp"\n[[flow]]\nlabels = [1]\n'
    with pytest.raises(RouterError, match=r"policy set: nothing was changed: policy calls: rule 3: expected no labels"):
        orders.set_policy(domain.router("mar2"), "calls", "calls.toml", text)


def test_a_policy_is_changed_while_it_is_used(domain: Domain) -> None:
    domain.move("mar2", policy="calls")
    text = '[[flow]]\nfamily = "ipv6"\nprotocol = "tcp"\n'
    assert orders.set_policy(domain.router("mar2"), "calls", "calls.toml", text) == 1
    domain.world.run(0.5)
    (rule,) = domain.world["mar1"].policies[str(domain.prefix)]
    assert rule.selector is not None
    assert rule.selector.protocol == Range(6)


# Views


def test_sessions_tell_who_has_a_prefix_and_who_takes_flows(domain: Domain) -> None:
    domain.move(to="mar2", policy="calls")
    first, second = domain.router("mar1"), domain.router("mar2")
    (row,) = mar_views.sessions(first)
    assert (row["anchor"], row["at"], row["state"]) == ("mar1", "mar1", "split")
    assert (row["flows_at"], row["flows"]) == (["mar2"], 1)
    own, shared = mar_views.sessions(second)
    assert (own["anchor"], own["at"], own["state"], own["flows_at"]) == ("mar2", "mar2", "local", [])
    assert (shared["anchor"], shared["at"], shared["state"]) == ("mar1", "mar1", "visited")
    assert (shared["flows_at"], shared["flows"], list(row)) == (["mar2"], 1, list(shared))


def test_flows_tell_which_router_gets_them_and_how_much_it_got(domain: Domain) -> None:
    domain.move(to="mar2", policy="calls")
    (sent,) = mar_views.flows(domain.router("mar1"))
    assert (sent["node"], sent["prefix"], sent["to"], sent["packets"]) == ("mn1", str(domain.prefix), ["mar2"], 3)
    assert "protocol=udp" in sent["selector"]
    (taken,) = mar_views.flows(domain.router("mar2"))
    assert (taken["prefix"], taken["to"], taken["packets"]) == (str(domain.prefix), ["mar2"], None)
    assert list(sent) == list(taken)


@pytest.mark.parametrize("at", ["mar1", "mar2"])
def test_flows_are_called_as_in_the_policy_they_are_of(at: str, domain: Domain) -> None:
    domain.move(at, to="mar2", policy="calls")
    for name in ("mar1", "mar2"):
        (row,) = mar_views.flows(domain.router(name))
        assert (row["policy"], row["flow"]) == ("calls", "calls")
        assert f"destination={domain.prefix} " in row["selector"]


def test_flows_of_a_policy_that_is_not_known_here_have_their_number(domain: Domain) -> None:
    domain.move("mar2", policy="calls")
    domain.world["mar1"].mar.flows.policies.clear()
    (row,) = mar_views.flows(domain.router("mar1"))
    assert (row["policy"], row["flow"]) == (None, "flow 1")


def test_bindings_tell_that_flows_are_elsewhere(domain: Domain) -> None:
    domain.move(to="mar2", policy="calls")
    (row,) = mar_views.bindings(domain.router("mar1"))
    assert (row["path"], row["peer"]) == ("native, flows to visited router", str(domain.world.address["mar2"]))


def test_every_view_of_a_mar_has_the_same_keys_in_every_row(domain: Domain) -> None:
    domain.move(to="mar2", policy="calls")
    domain.world["mar1"].paths[domain.world.prefix("mn1/2", "mar2")] = Held()
    for what in ("nodes", "prefixes", "sessions", "bindings", "flows", "policy", "peers"):
        keys = {tuple(row) for name in ("mar1", "mar2") for row in VIEWS[RoleName.MAR][what](domain.router(name))}
        assert len(keys) == 1, what
