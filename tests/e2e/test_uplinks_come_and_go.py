"""A gateway whose uplinks are not there at first, lose all they need one by one, or all at once.

    cn --- core ---------------- lma
             +--- wire wlan ---+
             +--- wire lte ----+-- mag --:-- h1, h2
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from router.demo.branch import ACCESSES, ANCHOR, EVERYWHERE, GATEWAY, LTE, WLAN, Access
from router.demo.branch_stage import BranchStage
from router.demo.lab import Host
from router.demo.multipath_play import ALL_ON_WLAN
from router.demo.topology import CN_ADDRESS
from router.demo.traffic import Program
from router.links.netlink import Address, Route
from router.links.rtnetlink_constants import AddressFlag, RouteProtocol
from tests.e2e.domain import finished, flowing
from tests.e2e.pmip_domain import BOTH_UP, branch_domain
from tests.eventually import eventually

ONLY_WLAN, ONLY_LTE = {"wlan": "up"}, {"wlan": "down", "lte": "up"}


@pytest.fixture
def branch(tmp_path: Path) -> Iterator[BranchStage]:
    with branch_domain(tmp_path, ALL_ON_WLAN) as stage:
        yield stage


def address_of(access: Access, host: Host) -> Address:
    return Address(
        index=host.link(access.interface).index,
        address=access.gateway_address,
        prefixlen=64,
        flags=AddressFlag.NODAD,
    )


def default_route(access: Access, host: Host) -> Route:
    return Route(
        destination=EVERYWHERE,
        gateway=access.core_address,
        oif=host.link(access.interface).index,
        metric=access.metric,
        protocol=RouteProtocol.STATIC,
    )


def download(stage: BranchStage) -> Program:
    program = stage.program("download", "h2", "tcp-get", str(CN_ADDRESS), "--rate", "5")
    program.wait_for("connected")
    return program


def goes_on(program: Program) -> None:
    flowing(program, timeout=30.0)


def carriers(stage: BranchStage, *, on: bool) -> None:
    wires = stage.world["wires"]
    for access in ACCESSES:
        (wires.link_up if on else wires.link_down)(access.toward(GATEWAY))


def test_a_gateway_that_starts_with_one_uplink_takes_the_other_when_it_is_there(tmp_path: Path) -> None:
    with branch_domain(tmp_path, ALL_ON_WLAN, without=[LTE]) as branch:
        running = download(branch)
        goes_on(running)
        eventually(lambda: branch.paths() == ONLY_WLAN, what="there is no other path")
        branch.world["wires"].link_up(LTE.toward(GATEWAY))
        branch.wait_for_paths(BOTH_UP)
        branch.world.silence(WLAN)
        branch.wait_for_paths(ONLY_LTE)
        goes_on(running)
        finished(running)


def test_an_uplink_is_registered_as_soon_as_its_default_route_is_there(branch: BranchStage) -> None:
    host = branch.world[GATEWAY]
    address, route = address_of(LTE, host), default_route(LTE, host)
    host.netlink.delete_route(route)
    host.netlink.delete_address(address)
    eventually(lambda: branch.paths() == ONLY_WLAN, what="the path is gone")
    host.netlink.add_address(address)
    branch.news()
    host.netlink.add_route(route)
    branch.wait_for_paths(BOTH_UP)
    told: list[dict[str, Any]] = []

    def answered() -> bool:
        told.extend(event for _, event in branch.news())
        return any(event["event"] == "pba-received" for event in told)

    eventually(answered, what="the gateway tells of the answer")
    assert not [event for event in told if "failed" in event]  # no update was refused by the kernel


def test_all_uplinks_may_be_lost_for_a_while(branch: BranchStage) -> None:
    running = download(branch)
    goes_on(running)
    carriers(branch, on=False)
    eventually(lambda: "up" not in branch.paths().values(), what="the gateway knows")
    carriers(branch, on=True)
    branch.wait_for_paths(BOTH_UP)
    goes_on(running)
    finished(running)


def test_all_paths_may_be_silent_for_a_while(branch: BranchStage) -> None:
    running = download(branch)
    goes_on(running)
    for access in ACCESSES:
        branch.world.silence(access)
    branch.wait_for_paths({"wlan": "down", "lte": "down"})
    for access in ACCESSES:
        branch.world.speak(access)
    branch.wait_for_paths(BOTH_UP)
    goes_on(running)
    finished(running)


def test_an_anchor_that_is_restarted_while_a_path_is_silent_finds_both(branch: BranchStage) -> None:
    running = download(branch)
    goes_on(running)
    branch.world.silence(WLAN)
    branch.wait_for_paths(ONLY_LTE)
    branch.kill(ANCHOR)
    branch.start_again(ANCHOR)
    branch.wait_for_paths(ONLY_LTE)
    goes_on(running)
    branch.world.speak(WLAN)
    branch.wait_for_paths(BOTH_UP)
    goes_on(running)
    finished(running)
