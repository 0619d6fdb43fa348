"""What a path means to the kernel and the engine, for every way from one path to another."""

from ipaddress import IPv6Address, IPv6Network

import pytest

from engine import Side
from router.forwarding import Device, Edits, Table, WantedBinding, WantedRoute, edits, wanted
from signaling.actions import Held, LocalLink, Path, TowardAnchor, TowardVisited

PREFIX = IPv6Network("2001:db8:a1:1::/64")
EVERYWHERE = IPv6Network("::/0")
PEER, OTHER = IPv6Address("2001:db8::2"), IPv6Address("2001:db8::3")
PATHS: list[Path | None] = [
    None,
    Held(),
    LocalLink(interface="eth1"),
    LocalLink(interface="eth2"),
    TowardVisited(care_of=PEER),
    TowardVisited(care_of=OTHER),
    TowardAnchor(anchor=PEER, interface="eth1"),
    TowardAnchor(anchor=OTHER, interface="eth1"),
    TowardAnchor(anchor=PEER, interface="eth2"),
]
PAIRS = [(before, after) for before in PATHS for after in PATHS]


class World:
    """A kernel and an engine that remember, and check what every step does to packets on their way."""

    def __init__(self) -> None:
        self.routes: dict[object, WantedRoute] = {}
        self.binding: WantedBinding | None = None

    def apply(self, todo: Edits) -> None:
        """In the order of the fields, as `network.py` does."""
        if todo.bind is not None:
            self.binding = todo.bind
        for route in todo.set_routes:
            self.routes[route.key] = route
            self.check()
        for route in todo.delete_routes:
            assert self.routes.pop(route.key) == route
            self.check()
        if todo.unbind is not None:
            assert todo.unbind == PREFIX
            assert self.binding is not None
            self.binding = None
        self.check()

    def check(self) -> None:
        """The kernel sends nothing to an engine that does not know what to do with it."""
        if any(route.device is Device.TUN for route in self.routes.values()):
            assert self.binding is not None


@pytest.mark.parametrize(("before", "after"), PAIRS)
def test_edits_lead_from_any_path_to_any_other(before: Path | None, after: Path | None) -> None:
    world = World()
    world.apply(edits(PREFIX, None, before))
    world.apply(edits(PREFIX, before, after))
    assert set(world.routes.values()) == set(wanted(PREFIX, after).routes)
    assert world.binding == wanted(PREFIX, after).binding


@pytest.mark.parametrize(("before", "after"), PAIRS)
def test_nothing_is_touched_that_stays_as_it_is(before: Path | None, after: Path | None) -> None:
    todo, old = edits(PREFIX, before, after), wanted(PREFIX, before)
    assert not set(todo.set_routes) & set(old.routes)
    assert not set(todo.delete_routes) & set(wanted(PREFIX, after).routes)
    assert todo.bind is None or todo.bind != old.binding
    assert todo.bind is None or todo.unbind is None


@pytest.mark.parametrize("path", PATHS)
def test_the_same_path_again_means_no_edits(path: Path | None) -> None:
    assert edits(PREFIX, path, path) == Edits()


@pytest.mark.parametrize(("before", "after"), [pair for pair in PAIRS if None not in pair])
def test_a_prefix_that_is_bound_is_never_without_a_route(before: Path, after: Path) -> None:
    assert not any(route.destination == PREFIX for route in edits(PREFIX, before, after).delete_routes)


def test_a_node_at_home_needs_one_route_and_no_binding() -> None:
    todo = edits(PREFIX, None, LocalLink(interface="eth1"))
    assert todo == Edits(set_routes=(WantedRoute(destination=PREFIX, device=Device.ACCESS, interface="eth1"),))


def test_a_node_away_is_tunnelled_by_destination() -> None:
    todo = edits(PREFIX, None, TowardVisited(care_of=PEER))
    assert todo.bind == WantedBinding(prefix=PREFIX, remote=PEER, side=Side.ANCHOR)
    assert todo.set_routes == (WantedRoute(destination=PREFIX, device=Device.TUN),)


def test_a_visiting_node_is_delivered_on_the_link_and_tunnelled_by_source() -> None:
    todo = edits(PREFIX, None, TowardAnchor(anchor=PEER, interface="eth1"))
    assert todo.bind == WantedBinding(prefix=PREFIX, remote=PEER, side=Side.ACCESS)
    assert todo.set_routes == (
        WantedRoute(destination=PREFIX, device=Device.ACCESS, interface="eth1"),
        WantedRoute(destination=EVERYWHERE, source=PREFIX, device=Device.TUN, table=Table.UPLINK),
    )


def test_a_node_between_routers_is_held_in_the_engine() -> None:
    todo = edits(PREFIX, LocalLink(interface="eth1"), Held())
    assert todo.bind == WantedBinding(prefix=PREFIX, remote=None, side=Side.ANCHOR)
    assert todo.set_routes == (WantedRoute(destination=PREFIX, device=Device.TUN),)
    assert todo.delete_routes == ()


def test_coming_home_forgets_the_binding_after_the_route_has_turned() -> None:
    todo = edits(PREFIX, TowardVisited(care_of=PEER), LocalLink(interface="eth1"))
    assert todo == Edits(
        set_routes=(WantedRoute(destination=PREFIX, device=Device.ACCESS, interface="eth1"),), unbind=PREFIX
    )


def test_another_visited_router_is_one_edit_of_the_engine() -> None:
    todo = edits(PREFIX, TowardVisited(care_of=PEER), TowardVisited(care_of=OTHER))
    assert todo == Edits(bind=WantedBinding(prefix=PREFIX, remote=OTHER, side=Side.ANCHOR))


def test_another_access_link_is_one_edit_of_the_kernel() -> None:
    todo = edits(PREFIX, TowardAnchor(anchor=PEER, interface="eth1"), TowardAnchor(anchor=PEER, interface="eth2"))
    assert todo == Edits(set_routes=(WantedRoute(destination=PREFIX, device=Device.ACCESS, interface="eth2"),))
