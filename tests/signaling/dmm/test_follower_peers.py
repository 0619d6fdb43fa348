"""Routers that die where there is a CMD: who has keys for each other asks each other, and nobody asks the CMD."""

from ipaddress import IPv6Network

from signaling.actions import Held, LocalLink, TowardAnchor, TowardVisited
from signaling.dma.session import State
from signaling.settings import CmdMode
from signaling.wire.heartbeat import Heartbeat
from signaling.wire.revocation import BindingRevocationIndication
from tests.signaling.dmm.cmd_world import CMD, CmdWorld, journey
from tests.world import INTERFACE

P1, P2 = (IPv6Network(f"2001:db8:{number}00::/64") for number in (1, 2))
NOTICED = 100.0  # s until a dead peer is taken for dead


def together(*mars: str) -> CmdWorld:
    return journey(*mars, world=CmdWorld(peers_of_each_other=True, heartbeat_interval=20.0))


def test_ends_of_a_tunnel_that_have_keys_for_each_other_exchange_heartbeats() -> None:
    world = together("mar1", "mar2")
    ends = {(it.source, it.destination) for it in world.sent(Heartbeat)}
    assert ends == {("mar1", "mar2"), ("mar2", "mar1")}


def test_where_they_have_none_there_are_no_heartbeats() -> None:
    world = journey("mar1", "mar2")
    world.run(NOTICED)
    assert world.sent(Heartbeat) == []


def test_a_router_that_starts_tells_the_others_and_not_the_cmd() -> None:
    world = together("mar1")
    world.restart("mar1")
    assert {it.destination for it in world.sent(Heartbeat, source="mar1")} == {"mar2", "mar3"}


def test_a_prefix_whose_anchor_is_dead_is_withdrawn_whatever_the_cmd_says() -> None:
    world = together("mar1", "mar2")
    world.kill("mar1")
    world.run(NOTICED)
    assert (world.path("mar2", P1), P1 in world.host("mn1").on_link) == (None, False)
    assert P1 in world.binding().anchorages


def test_when_its_anchor_is_back_the_prefix_is_there_again() -> None:
    world = together("mar1", "mar2")
    world.kill("mar1")
    world.run(NOTICED)
    world.restart("mar1")
    world.run(90.0)
    assert world.path("mar2", P1) == TowardAnchor.through(world.address["mar1"], INTERFACE)
    assert (P1 in world.host("mn1").on_link, list(world.faults())) == (True, [])


def test_a_node_that_leaves_while_its_anchor_is_dead_takes_the_prefix_along() -> None:
    world = together("mar1", "mar2")
    world.kill("mar1")
    world.run(NOTICED)
    world.move("mn1", "mar3")
    world.run(1.0)
    world.restart("mar1")
    world.run(90.0)
    assert world.path("mar1", P1) == TowardVisited.at(world.address["mar3"])
    assert list(world.faults()) == []


def test_packets_for_a_node_whose_router_is_dead_wait_until_the_cmd_says_where_it_is() -> None:
    world = together("mar1", "mar2")
    world.kill("mar2")
    world.run(NOTICED)
    assert (world.path("mar1", P1), world.state(P1)) == (Held(), State.LOST)
    world.attach("mn1", "mar3")
    world.run(1.0)
    assert (world.path("mar1", P1), world.state(P1)) == (TowardVisited.at(world.address["mar3"]), State.REMOTE)


def test_a_serving_router_that_was_restarted_is_not_asked_what_it_knows() -> None:
    world = together("mar1", "mar2")
    world.run(60.0)
    world.restart("mar2")
    world.show("mn1")
    world.run(10.0)
    assert (world["mar1"].mar.counters["heartbeat.restarted"], world.sent(BindingRevocationIndication)) == (1, [])
    assert world.path("mar2", P2) == LocalLink(interface=INTERFACE)
    assert world.path("mar1", P1) == TowardVisited.at(world.address["mar2"])


def test_in_a_locator_domain_all_have_keys_and_a_dead_anchor_is_noticed() -> None:
    world = journey("mar1", "mar2", world=CmdWorld(CmdMode.LOCATOR, heartbeat_interval=20.0))
    world.kill("mar1")
    world.run(NOTICED)
    assert world.path("mar2", P1) is None
    assert world.sent(Heartbeat, source=CMD) == []
