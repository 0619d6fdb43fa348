"""What is shown of an LMA or a MAG, of a router that is made up."""

from ipaddress import IPv6Address, IPv6Network
from types import SimpleNamespace
from typing import Any

from engine import Encapsulation, Side, Tables, Tunnel
from router.control import commands, pmip_views
from signaling.flow_rules import FlowRule, Spread

HERE, THERE, ELSEWHERE = (IPv6Address(f"2001:db8:ff::{n}") for n in (1, 2, 3))


def rule(name: str, **more: Any) -> FlowRule:
    return FlowRule(name=name, **({"selector": None, "labels": (1,)} | more))


def test_a_policy_that_a_gateway_has_negotiated_is_shown_after_those_of_this_router() -> None:
    calls, rest, mine = rule("calls", spread=Spread.BICAST), rule("rest"), rule("mine")
    router: Any = SimpleNamespace(
        config=SimpleNamespace(labels={"wlan": 1}, policies={"default": (mine,)}),
        network=SimpleNamespace(policies={"session 1": (calls, rest), "default": (mine,)}),
    )
    rows = [(row["policy"], row["number"], row["rule"], row["labels"]) for row in pmip_views.policy(router)]
    assert rows == [
        ("default", 1, "mine", ["wlan"]),
        ("session 1", 1, "calls", ["wlan"]),
        ("session 1", 2, "rest", ["wlan"]),
    ]


def test_a_tunnel_has_the_name_of_a_peer_that_roams() -> None:
    tables = Tables()
    for number, remote in enumerate((THERE, ELSEWHERE)):
        tunnel = Tunnel(local=HERE, remote=remote, encapsulation=Encapsulation.UDP)
        tables.bind(IPv6Network((0x20010DB8 << 96 | number << 64, 64)), tunnel, side=Side.ANCHOR)
    door = SimpleNamespace(peer={THERE: SimpleNamespace(name="bus1")}.get)
    router: Any = SimpleNamespace(tables=tables, role=SimpleNamespace(door=door))
    shown = {row["remote"]: row["peer"] for row in commands.tunnels(router)}
    assert shown == {str(THERE): "bus1", str(ELSEWHERE): None}
