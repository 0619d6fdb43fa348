"""A node with several interfaces at MARs that follow a CMD, which knows one router of each node and no interface."""

from ipaddress import IPv6Network

from signaling.actions import LocalLink, TowardAnchor, TowardVisited
from signaling.iana import UpdateNotificationStatus
from signaling.wire.notification import UpdateNotificationAck
from signaling.wire.options.prefix import HomeNetworkPrefix
from tests.signaling.dmm.cmd_world import CMD, CmdWorld, journey
from tests.world import INTERFACE

P1, P2 = (IPv6Network(f"2001:db8:{number}00::/64") for number in (1, 2))


def together() -> CmdWorld:
    """mn1 came from mar1 to mar2, and its second interface after it."""
    world = journey("mar1", "mar2")
    world.attach("mn1/2", "mar2")
    world.run(1.0)
    return world


def who_has(world: CmdWorld) -> tuple[bytes, list[bytes]]:
    """Link-layer addresses of the interfaces that have what mar2 lends, and what visits it."""
    mar = world["mar2"].mar
    (entry,) = mar.anchor.cache.of("mn1")
    return entry.link_layer, [item.link_layer for item in mar.registrar.visited("mn1")]


def test_the_interface_that_came_last_has_all_prefixes_of_its_node() -> None:
    world = together()
    link_layer = world.host("mn1/2").link_layer
    assert who_has(world) == (link_layer, [link_layer])
    named = world.updates_to(CMD, source="mar2")[-1].options_of(HomeNetworkPrefix)
    assert ([option.prefix for option in named], list(world.faults())) == ([P2], [])


def test_when_the_interface_that_came_last_leaves_the_other_one_has_them() -> None:
    world = together()
    world.detach("mn1/2")
    world.run(1.0)
    link_layer = world.host("mn1").link_layer
    assert who_has(world) == (link_layer, [link_layer])
    assert world.path("mar2", P2) == LocalLink(interface=INTERFACE)
    assert world.path("mar2", P1) == TowardAnchor.through(world.address["mar1"], INTERFACE)


def test_an_interface_that_has_nothing_leaves_without_a_trace() -> None:
    world = together()
    before = len(world.updates_to(CMD, source="mar2")), world.path("mar2", P1), world.path("mar2", P2)
    world.detach("mn1")
    world.run(1.0)
    assert (len(world.updates_to(CMD, source="mar2")), world.path("mar2", P1), world.path("mar2", P2)) == before


def test_an_interface_that_moves_alone_takes_all_of_its_node_along() -> None:
    world = together()
    world.detach("mn1")
    world.move("mn1/2", "mar1")
    world.run(1.0)
    assert (world.path("mar1", P1), list(world.faults())) == (LocalLink(interface=INTERFACE), [])


def test_no_router_asks_a_follower_to_take_a_prefix() -> None:
    world = journey("mar2", world=CmdWorld(peers_of_each_other=True))
    world.attach("mn2", "mar1")
    world.run(1.0)
    (prefix,) = world["mar1"].mar.anchor.local("mn2")
    world.attach("mn2/2", "mar2")
    world.order("mar1", world["mar1"].mar.flows.hand(prefix, "mar2", "", world.now))
    world.run(0.1)
    (answer,) = [it.message for it in world.wire if isinstance(it.message, UpdateNotificationAck)]
    assert answer.status == UpdateNotificationStatus.REASON_UNSPECIFIED


def test_a_cmd_that_missed_another_interface_moves_the_prefix_nevertheless() -> None:
    world = CmdWorld()
    world.attach("mn1/2", "mar1")  # it is the one that was given the prefix
    world.run(10.0)
    world.detach("mn1/2")
    world.attach("mn1", "mar2")
    world.run(10.0)
    world.detach("mn1")
    world.cut(CMD)
    world.attach("mn1/2", "mar1")
    world.run(0.1)
    world.detach("mn1/2")
    world.attach("mn1", "mar2")
    world.heal()
    world.run(20.0)
    assert world.path("mar1", P1) == TowardVisited.at(world.address["mar2"])
    assert world.path("mar2", P1) == TowardAnchor.through(world.address["mar1"], INTERFACE)
