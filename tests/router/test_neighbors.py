"""The kernel knows the nodes that are here, and is made to forget those that left, not one by one."""

import errno
from collections.abc import Collection
from ipaddress import IPv6Address

import pytest

from router.links.netlink import NetlinkError
from router.links.rtnetlink import Neighbor
from router.links.rtnetlink_constants import NeighborState
from router.neighbors import REMEMBERED, SWEEP_EVERY, Neighbors
from tests.router.clock import Clock

LINK = 7
FIRST, SECOND = IPv6Address("fe80::11"), IPv6Address("fe80::22")
GLOBAL, UNRESOLVED = IPv6Address("2001:db8::11"), IPv6Address("2001:db8::33")
MAC, OTHER = bytes.fromhex("020000000011"), bytes.fromhex("020000000022")


class Kernel:
    """The table of one link. looks: how often it was read."""

    def __init__(self) -> None:
        self.table: dict[IPv6Address, Neighbor] = {}
        self.looks = 0
        self.broken = False

    def uncertain_neighbors(self, index: int, link_layers: Collection[bytes] = ()) -> list[Neighbor]:
        self.looks += 1
        if self.broken:
            raise NetlinkError(errno.ENOBUFS, "list neighbours")
        return [each for each in self.table.values() if not each.link_layer or each.link_layer in link_layers]

    def replace_neighbor(self, neighbor: Neighbor) -> None:
        self.table[neighbor.address] = neighbor

    def delete_neighbor(self, neighbor: Neighbor) -> None:
        if self.table.pop(neighbor.address, None) is None:
            raise NetlinkError(errno.ENOENT, "delete neighbour")

    def learns(self, address: IPv6Address, link_layer: bytes, state: NeighborState) -> None:
        self.table[address] = Neighbor(index=LINK, address=address, link_layer=link_layer, state=state)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def kernel() -> Kernel:
    return Kernel()


@pytest.fixture
def neighbors(kernel: Kernel, clock: Clock) -> Neighbors:
    return Neighbors(kernel, [LINK], clock.later, clock.monotonic)  # type: ignore[arg-type]


def test_nodes_that_left_are_forgotten_together_with_all_their_addresses(
    neighbors: Neighbors, kernel: Kernel, clock: Clock
) -> None:
    for address, link_layer in ((FIRST, MAC), (SECOND, OTHER)):
        neighbors.arrived(LINK, address, link_layer)
    kernel.learns(GLOBAL, MAC, NeighborState.STALE)
    neighbors.left(MAC)
    neighbors.left(OTHER)
    assert kernel.looks == 0
    clock.run(SWEEP_EVERY)
    assert (kernel.table, kernel.looks) == ({}, 1)


def test_an_address_that_could_not_be_resolved_after_its_node_left_is_forgotten_too(
    neighbors: Neighbors, kernel: Kernel, clock: Clock
) -> None:
    neighbors.left(MAC)
    clock.run(3.5)
    kernel.learns(UNRESOLVED, b"", NeighborState.FAILED)
    clock.run(SWEEP_EVERY)
    assert kernel.table == {}


def test_who_comes_back_at_once_finds_nothing_of_before(neighbors: Neighbors, kernel: Kernel) -> None:
    neighbors.left(MAC)
    kernel.learns(UNRESOLVED, b"", NeighborState.INCOMPLETE)
    neighbors.arrived(LINK, FIRST, MAC)
    assert set(kernel.table) == {FIRST}


def test_who_comes_back_may_show_its_link_local_address_later(
    neighbors: Neighbors, kernel: Kernel, clock: Clock
) -> None:
    neighbors.left(MAC)
    kernel.learns(UNRESOLVED, b"", NeighborState.INCOMPLETE)
    neighbors.arrived(LINK, None, MAC)
    assert kernel.table == {}
    kernel.learns(GLOBAL, MAC, NeighborState.REACHABLE)
    clock.run(2 * REMEMBERED)
    assert set(kernel.table) == {GLOBAL}


def test_who_came_back_is_not_forgotten(neighbors: Neighbors, kernel: Kernel, clock: Clock) -> None:
    neighbors.left(MAC)
    neighbors.left(OTHER)
    neighbors.arrived(LINK, FIRST, MAC)
    clock.run(2 * REMEMBERED)
    assert set(kernel.table) == {FIRST}


def test_nobody_looks_while_nobody_has_left(neighbors: Neighbors, kernel: Kernel, clock: Clock) -> None:
    neighbors.arrived(LINK, FIRST, MAC)
    neighbors.left(MAC)
    clock.run(REMEMBERED + SWEEP_EVERY)
    looks = kernel.looks
    neighbors.arrived(LINK, FIRST, MAC)
    clock.run(60.0)
    assert (kernel.looks, clock.due) == (looks, [])


def test_a_table_that_cannot_be_read_is_read_again(
    neighbors: Neighbors, kernel: Kernel, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    kernel.learns(FIRST, MAC, NeighborState.STALE)
    neighbors.left(MAC)
    kernel.broken = True
    clock.run(SWEEP_EVERY)
    assert "list neighbours" in caplog.text
    kernel.broken = False
    clock.run(SWEEP_EVERY)
    assert kernel.table == {}
