"""Networks behind routers: a moving one, which is delegated its prefix by DHCPv6, and a site with two uplinks.

    cn --- core --- lma, mag1, mag2 --:-- mn --- lan       the moving router is mn
    cn --- core === mag --:-- h1, h2                       the site is what is behind mag
"""

import tomllib
from collections.abc import Iterator
from ipaddress import IPv6Network
from pathlib import Path
from typing import Any

import pytest

from router.demo.branch import ANCHOR, GATEWAY, HOSTS, LTE, POOL, WLAN
from router.demo.branch_stage import BranchStage
from router.demo.lab import connect
from router.demo.proxy_world import GATEWAYS
from router.demo.toml import toml
from router.demo.topology import CN_ADDRESS
from router.demo.traffic import Program
from router.links.rtnetlink_constants import AddressFlag
from tests.e2e.dhcp_client import DhcpClient, with_client
from tests.e2e.domain import finished, flowing, usable_at_once
from tests.e2e.ipv4_domain import Ipv4Stage, ipv4_domain
from tests.e2e.pmip_domain import BOTH_UP, watched
from tests.eventually import eventually

HOMES, DELEGATED = POOL.subnets()  # both are routed to the anchor
POOLS = {"anchor": {"prefixes": [str(HOMES)], "delegated_prefixes": [str(DELEGATED)]}}
SITE = "branch@example.net"


# --- a router that moves ---


class MovingNetwork:
    """mn is a router, with a host behind it that does not know that anything moves."""

    def __init__(self, stage: Ipv4Stage, place: Path) -> None:
        self.stage = stage
        self.router, self.host = stage.world["mn"], stage.world.lab.host("lan")
        connect(self.router, "lan0", self.host, "eth0")
        self.router.sysctl("net/ipv6/conf/all/forwarding", 1)
        self.router.sysctl("net/ipv6/conf/radio0/accept_ra", 2)  # a router that has one itself
        self.client = DhcpClient(self.router, place)

    def lease(self) -> IPv6Network:
        """Ask for a prefix, and use it."""
        eventually(self._can_ask, 10.0, "a link-local address to ask from: dhclient ends without one")
        self.client.start("-6", "-P")
        prefix = IPv6Network(self.client.heard("BOUND6").split()[1])
        subnet = next(prefix.subnets(new_prefix=64))
        self.router.address("lan0", f"{subnet[1]}/64")
        self.host.address("eth0", f"{subnet[2]}/64")
        self.host.route("::/0", via=str(subnet[1]))
        return prefix

    def _can_ask(self) -> bool:
        own = self.router.netlink.addresses(self.router.link("radio0").index)
        return any(item.address.is_link_local and not item.flags & AddressFlag.TENTATIVE for item in own)

    def download(self) -> Program:
        return self.stage.download(CN_ADDRESS, "lan")


@pytest.fixture
def moving(tmp_path: Path) -> Iterator[MovingNetwork]:
    with ipv4_domain(tmp_path, {"lma": POOLS}) as stage:
        network = MovingNetwork(stage, tmp_path / "dhclient")
        stage.start_routers()
        stage.move(GATEWAYS[0])
        stage.wait_for_address(HOMES)
        yield network


@with_client
def test_a_network_keeps_its_delegated_prefix_and_connections_when_its_router_moves(moving: MovingNetwork) -> None:
    prefix = moving.lease()
    assert prefix.subnet_of(DELEGATED)
    running = moving.download()
    for gateway in (GATEWAYS[1], GATEWAYS[0], GATEWAYS[1]):
        flowing(running)
        moving.stage.move(gateway)
    flowing(running)
    assert prefix == IPv6Network(moving.client.told()[0].split()[1])
    assert str(prefix) in {row["prefix"] for row in moving.stage.show(GATEWAYS[1], "bindings")}
    finished(running)


@with_client
def test_a_delegated_prefix_that_is_given_back_is_forwarded_no_more(moving: MovingNetwork) -> None:
    prefix = moving.lease()
    flowing(moving.download())
    moving.client.release("-6", "-P")
    gateway = GATEWAYS[0]
    eventually(
        lambda: str(prefix) not in {row["prefix"] for row in moving.stage.show(gateway, "bindings")},
        10.0,
        "the gateway has let go",
    )
    assert moving.stage.addresses()  # of its home network prefix


# --- a site that stays ---


class SiteStage(BranchStage):
    """The branch as a site: its hosts have addresses of what was delegated to the MAG."""

    def _anchor(self) -> str:
        return _with(super()._anchor(), POOLS)

    def gateway_text(self) -> str:
        """The configuration of the MAG."""
        site = {"node": SITE, "delegated_interface": "acc0"}
        return _with(super().gateway_text(), {"site": [site]})


def _with(text: str, more: dict[str, Any]) -> str:
    return toml(tomllib.loads(text) | more)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[SiteStage]:
    with SiteStage(tmp_path) as stage, watched(stage):
        for node in HOSTS:
            usable_at_once(stage.world[node])
        stage.start_routers()
        stage.serve()
        stage.attach_hosts()
        yield stage


def test_hosts_of_a_site_have_addresses_of_what_is_delegated_to_it(site: SiteStage) -> None:
    addresses = [site.wait_for_address(DELEGATED, host) for host in HOSTS]
    (subnet,) = {IPv6Network((address, 64), strict=False) for address in addresses}
    assert [row["node"] for row in site.show(ANCHOR, "sessions")] == [SITE]
    assert site.show(GATEWAY, "nodes") == []
    get = site.program("get", HOSTS[0], "tcp-get", str(CN_ADDRESS), "--octets", "1000000", "--rate", "0")
    done = get.wait_for("done", 20.0)
    assert (done["octets"], done["error"], done["corrupt"]) == (1_000_000, "", 0)
    assert done["source"] in map(str, addresses)
    assert subnet.subnet_of(DELEGATED)


@pytest.mark.parametrize("lost", [WLAN, LTE], ids=lambda access: access.name)
def test_a_site_outlives_the_loss_of_either_uplink(site: SiteStage, lost: Any) -> None:
    running = [
        site.program(f"download {number}", HOSTS[number % 2], "tcp-get", str(CN_ADDRESS), "--rate", "2")
        for number in range(6)  # some on either path
    ]
    for program in running:
        flowing(program)
    wires = site.world["wires"]
    wires.link_down(lost.toward("core"))
    eventually(lambda: list(site.paths().values()).count("up") == 1, 10.0, "one is left")
    for program in running:
        flowing(program)
    wires.link_up(lost.toward("core"))
    site.wait_for_paths(BOTH_UP)
    for program in running:
        flowing(program)
        finished(program)
