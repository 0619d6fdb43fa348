"""A node back at its anchor: what waited for it goes first, then the kernel takes over, and nothing is left behind."""

from collections.abc import Callable
from ipaddress import IPv6Address

import pytest

import engine
from engine import Encapsulation, HoldBuffer
from router.links.rtnetlink import ROUTE_PROTOCOL
from router.network import Network
from signaling.actions import Held, LocalLink, TowardVisited
from tests.router.test_network import (
    ELSE_TUN,
    NODE,
    OURS,
    PATHS,
    PEER,
    PREFIX,
    TABLE,
    TO_POOL,
    WAITS,
    Bench,
    P,
    begun,
    bench,
)

__all__ = ["begun", "bench"]  # fixtures

pytestmark = pytest.mark.skipif(not engine.compiled, reason="the model keeps no packets")

HOME = LocalLink(interface="eth1")
LOOKS = 5  # more than a homecoming takes when nothing waits


class Scene:
    """A network that is told by hand that time has passed."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.tables = bench.tables
        self._later: list[Callable[[], None]] = []
        self.network = Network(
            bench.host.netlink,
            bench.tables,
            address=OURS,
            encapsulation=Encapsulation.UDP,
            table=TABLE,
            journal=bench.journal,
            buffer=HoldBuffer(),
            later=lambda seconds, call: self._later.append(call),
        )
        self.network.use_tun("mob0", 1452)
        for name in ("eth1", "eth2"):
            self.network.add_access(name, fixed_link_layer=True)

    def look(self, times: int = LOOKS) -> None:
        for _ in range(times):
            due, self._later = self._later, []
            for call in due:
                call()

    def rules(self) -> set[str]:
        """Of what comes out of the TUN."""
        rules = self.bench.host.netlink.rules(protocol=ROUTE_PROTOCOL)
        return {str(rule.destination) for rule in rules if rule.iif == "mob0"}


@pytest.fixture
def scene(begun: Bench) -> Scene:
    return Scene(begun)


@pytest.mark.parametrize("before", [Held(), TowardVisited.at(PEER)])
def test_what_comes_out_of_the_tun_reaches_the_node_before_the_kernel_takes_over(scene: Scene, before: Held) -> None:
    scene.network.bind(PREFIX, before, NODE)
    scene.network.bind(PREFIX, HOME, NODE)
    assert ("::/0", P, "mob0") in scene.bench.routes()
    assert scene.bench.routes(TABLE) == {("::/0", P, "eth1")}
    assert scene.rules() == {str(PREFIX)}


def test_the_kernel_takes_over_when_nothing_waits_and_what_lies_in_the_tun_still_passes(scene: Scene) -> None:
    scene.network.bind(PREFIX, Held(), NODE)
    scene.network.bind(PREFIX, HOME, NODE)
    scene.look(1)
    assert ("::/0", P, "eth1") in scene.bench.routes()
    assert scene.rules() == {str(PREFIX)}
    assert len(scene.tables) == 1


def test_after_a_moment_all_is_as_if_the_node_had_never_been_away(scene: Scene) -> None:
    scene.network.bind(PREFIX, Held(), NODE)
    scene.network.bind(PREFIX, HOME, NODE)
    scene.look()
    assert scene.bench.routes() == {TO_POOL, ("::/0", P, "eth1"), ELSE_TUN}
    assert (scene.bench.routes(TABLE), scene.rules(), scene.tables.bindings()) == (set(), set(), WAITS)
    assert scene.tables.tunnels() == []


def test_what_comes_out_of_the_tun_is_given_to_the_same_gateway_as_all_else(scene: Scene) -> None:
    gateway = IPv6Address("fe80::1")
    scene.network.bind(PREFIX, Held(), NODE)
    scene.network.bind(PREFIX, LocalLink(interface="eth1", gateway=gateway), NODE)
    routes = scene.bench.host.netlink.routes(protocol=ROUTE_PROTOCOL)
    assert [route.gateway for route in routes if route.table == TABLE and route.destination == PREFIX] == [gateway]
    scene.look()
    assert (scene.bench.routes(TABLE), scene.rules()) == (set(), set())


@pytest.mark.parametrize("looks", [0, 1, 2])
def test_whatever_comes_in_the_middle_of_a_homecoming_holds(scene: Scene, looks: int) -> None:
    for path, main, uplink, bindings in PATHS:
        scene.network.bind(PREFIX, Held(), NODE)
        scene.network.bind(PREFIX, HOME, NODE)
        scene.look(looks)
        scene.network.bind(PREFIX, path, NODE)
        scene.look()
        assert scene.bench.routes() == main | {TO_POOL}, path
        assert scene.bench.routes(TABLE) == uplink, path
        assert scene.tables.bindings() == bindings, path
        assert scene.rules() == set(), path


@pytest.mark.parametrize("looks", [0, 1, 2])
def test_a_prefix_that_ends_in_the_middle_of_a_homecoming_leaves_nothing(scene: Scene, looks: int) -> None:
    scene.network.bind(PREFIX, Held(), NODE)
    scene.network.bind(PREFIX, HOME, NODE)
    scene.look(looks)
    scene.network.unbind(PREFIX)
    assert scene.bench.routes() == {TO_POOL}
    assert (scene.bench.routes(TABLE), scene.rules(), len(scene.tables)) == (set(), set(), 0)


def test_a_node_that_leaves_again_at_once_is_waited_for_again(scene: Scene) -> None:
    scene.network.bind(PREFIX, Held(), NODE)
    scene.network.bind(PREFIX, HOME, NODE)
    scene.network.bind(PREFIX, Held(), NODE)
    assert scene.network.held(PREFIX) is not None
