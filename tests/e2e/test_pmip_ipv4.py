"""IPv4 in a domain of real routers: for nodes, which lease it from whichever MAG they are at, and as the underlay."""

import tomllib
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from router.demo.branch import GATEWAY, LTE, WLAN
from router.demo.branch_stage import BranchStage
from router.demo.proxy_stage import node_id
from router.demo.proxy_world import ANCHOR, GATEWAYS, POOL
from router.demo.toml import toml
from router.demo.topology import CN_ADDRESS
from tests.e2e.dhcp_client import DhcpClient, with_client
from tests.e2e.domain import finished, flowing
from tests.e2e.ipv4_domain import (
    ANY_IPV4,
    INSIDE,
    POOL_IPV4,
    UNDERLAY_IPV4,
    Ipv4Stage,
    Nat,
    give_ipv4,
    ipv4_domain,
    with_nat,
)
from tests.e2e.pmip_domain import BOTH_UP, watched
from tests.eventually import eventually

MAG1, MAG2 = GATEWAYS
WITH_POOL = {"anchor": {"ipv4_prefixes": [str(POOL_IPV4)]}}
LTE_IPV4 = IPv4Address("10.9.0.2")
ASKED_FOR_ALL = {"gateway": {"anchor": ANCHOR, "ipv4": True}}


# --- nodes ---


@pytest.fixture
def domain(tmp_path: Path) -> Iterator[Ipv4Stage]:
    with ipv4_domain(tmp_path, {"lma": WITH_POOL, "mag": ASKED_FOR_ALL}) as stage:
        stage.start_routers()
        yield stage


@pytest.fixture
def client(domain: Ipv4Stage, tmp_path: Path) -> DhcpClient:
    return DhcpClient(domain.world["mn"], tmp_path / "dhclient", renew=4)


@with_client
def test_a_leased_address_and_its_connections_outlive_a_move_and_are_renewed_where_the_node_is(
    domain: Ipv4Stage, client: DhcpClient
) -> None:
    domain.move(MAG1)
    client.start("-4")
    address = client.heard("BOUND").split()[1]
    assert domain.ipv4_home() == [f"{address}/32"]
    assert [row["prefix"] for row in domain.show(MAG1, "leases")] == [f"{address}/32"]
    running = domain.download()
    flowing(running)
    for gateway in (MAG2, MAG1, MAG2):
        domain.move(gateway)
        flowing(running)
    renewals = client.told().count(f"RENEW {address}")
    eventually(lambda: client.told().count(f"RENEW {address}") > renewals + 1, 15.0, "it renews at mag2")
    assert domain.counter(MAG2, "dhcp.answers") > 0
    assert finished(running)["source"] == address
    assert {line.split()[1] for line in client.told()} == {address}


@with_client
def test_to_release_ends_ipv4_and_nothing_else(domain: Ipv4Stage, client: DhcpClient) -> None:
    domain.move(MAG1)
    home = domain.wait_for_address(POOL)
    client.start("-4")
    client.heard("BOUND")
    ipv6 = domain.download(CN_ADDRESS)
    client.release("-4")
    eventually(lambda: domain.ipv4_home() == [], 10.0, "the anchor has the address back")
    assert domain.counter(ANCHOR, "lma.family-deregistered") == 1
    assert [row["prefix"] for row in domain.show(MAG1, "bindings")] == [f"{str(home).rsplit(':', 4)[0]}::/64"]
    flowing(ipv6)
    finished(ipv6)
    client.start("-4")
    client.heard("BOUND")
    flowing(domain.download())


@with_client
def test_nodes_of_one_subnet_reach_each_other_on_different_links(tmp_path: Path) -> None:
    with ipv4_domain(tmp_path, {"lma": WITH_POOL, "mag": ASKED_FOR_ALL}, nodes=2) as stage:
        stage.start_routers()
        addresses = {}
        for node, gateway in (("mn", MAG1), ("mn2", MAG2)):
            stage.world.attach(gateway, node)
            client = DhcpClient(stage.world[node], tmp_path / node)
            client.start("-4")
            addresses[node] = client.heard("BOUND").split()[1]
        stage.program("server mn", "mn", "tcp-serve").wait_for("ready")
        flowing(stage.download(addresses["mn"], "mn2"))


@with_client
def test_without_a_pool_there_is_no_ipv4_and_ipv6_is_as_ever(tmp_path: Path) -> None:
    with ipv4_domain(tmp_path, {"mag": ASKED_FOR_ALL}) as stage:
        stage.start_routers()
        stage.move(MAG1)
        stage.wait_for_address(POOL)
        DhcpClient(stage.world["mn"], tmp_path / "dhclient").start("-4")
        eventually(lambda: stage.counter(MAG1, "dhcp.silence") > 0, 10.0, "its question is not answered")
        flowing(stage.download(CN_ADDRESS))


# --- the underlay ---


def ipv4_only(**gateway: object) -> dict[str, dict[str, object]]:
    """All routers have nothing but IPv4 between them."""
    lma = str(UNDERLAY_IPV4[ANCHOR])
    return {
        "lma": {**WITH_POOL, "underlay": {"address": lma}},
        "mag": {"gateway": {"anchor": ANCHOR} | gateway},
    } | {name: {"underlay": {"address": str(UNDERLAY_IPV4[name])}} for name in GATEWAYS}


def change_peers(stage: Ipv4Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Peers are where they are: at IPv4 addresses."""
    monkeypatch.setattr("router.demo.proxy_stage.UNDERLAY", UNDERLAY_IPV4)


@pytest.mark.parametrize("encapsulation", ["udp", "ip", "gre"])
def test_an_ipv4_underlay_carries_ipv6_nodes_that_move(
    tmp_path: Path, encapsulation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ipv4_domain(tmp_path, ipv4_only(), encapsulation=encapsulation) as stage:
        change_peers(stage, monkeypatch)
        stage.start_routers()
        stage.move(MAG1)
        address = stage.wait_for_address(POOL)
        running = stage.download(CN_ADDRESS)
        flowing(running)
        assert {row["encapsulation"] for row in stage.show(ANCHOR, "tunnels")} == {encapsulation}
        stage.move(MAG2)
        flowing(running)
        assert finished(running)["source"] == str(address)


def test_udp_is_forced_where_the_gateway_wants_it_and_the_anchor_agrees(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = ipv4_only(force_udp=True)
    more["lma"]["anchor"] = {**WITH_POOL["anchor"], "accept_forced_udp": True}
    with ipv4_domain(tmp_path, more, encapsulation="ip") as stage:
        change_peers(stage, monkeypatch)
        stage.start_routers()
        stage.move(MAG1)
        stage.wait_for_address(POOL)
        flowing(stage.download(CN_ADDRESS))
        for router in (ANCHOR, MAG1):
            assert [row["encapsulation"] for row in stage.show(router, "tunnels")] == ["udp"]


class MixedStage(BranchStage):
    """The branch with one uplink over IPv6, wlan, and one over IPv4, lte."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        give_ipv4(self.world)
        core, gateway = self.world["core"], self.world[GATEWAY]
        core.address(LTE.name, "10.9.0.1/24")
        gateway.address(LTE.interface, f"{LTE_IPV4}/24")
        gateway.route(ANY_IPV4, via="10.9.0.1")

    def _anchor(self) -> str:
        tables = tomllib.loads(super()._anchor())
        tables["underlay"]["ipv4_address"] = str(UNDERLAY_IPV4[ANCHOR])
        tables["peer"][0]["addresses"] = [str(LTE_IPV4)]
        return toml(tables)

    def gateway_text(self) -> str:
        """The configuration of the MAG."""
        tables = tomllib.loads(super().gateway_text())
        tables["uplink"][1]["address"] = str(LTE_IPV4)
        tables["peer"][0]["addresses"] = [str(UNDERLAY_IPV4[ANCHOR])]
        return toml(tables)


def test_one_uplink_is_ipv6_and_the_other_ipv4(tmp_path: Path) -> None:
    with MixedStage(tmp_path) as stage, watched(stage):
        stage.start_routers()
        stage.serve()
        stage.attach_hosts()
        assert {row["remote"] for row in stage.show(ANCHOR, "tunnels")} == {str(WLAN.gateway_address), str(LTE_IPV4)}
        running = [
            stage.program(f"download {number}", "h1", "tcp-get", str(CN_ADDRESS), "--rate", "2") for number in range(6)
        ]
        wires = stage.world["wires"]
        for lost in (LTE, WLAN):
            for program in running:
                flowing(program)
            wires.link_down(lost.toward(GATEWAY))
            eventually(lambda: one_way(stage), 10.0, f"the anchor is told that {lost.name} is gone")
            for program in running:
                flowing(program)
            wires.link_up(lost.toward(GATEWAY))
            stage.wait_for_paths(BOTH_UP)
        for program in running:
            finished(program)


def one_way(stage: BranchStage) -> bool:
    """Every session has one care-of address left."""
    return all(len(row["care_ofs"]) == 1 for row in stage.show(ANCHOR, "sessions"))


# --- a NAT ---


KEY = "hex:000102030405060708090a0b0c0d0e0f"


def behind_nat() -> dict[str, dict[str, object]]:
    """mag1 is behind a NAT, known by its SPI alone; its tunnels would not be in UDP otherwise."""
    lma = {"name": ANCHOR, "address": str(UNDERLAY_IPV4[ANCHOR]), "key": KEY, "spi": 300}
    return {
        "lma": {
            **WITH_POOL,
            "underlay": {"address": str(UNDERLAY_IPV4[ANCHOR])},
            "peer": [{"name": MAG1, "key": KEY, "spi": 300}],
        },
        MAG1: {"underlay": {"address": str(INSIDE)}, "peer": [lma]},
        MAG2: {"peer": [lma]},
    }


@pytest.fixture
def natted(tmp_path: Path) -> Iterator[tuple[Ipv4Stage, Nat]]:
    with ipv4_domain(tmp_path, behind_nat(), encapsulation="ip") as stage:
        nat = Nat(stage.world)
        stage.start_routers()
        stage.move(MAG1)
        stage.wait_for_address(POOL)
        yield stage, nat


def data_ports(stage: Ipv4Stage) -> set[int]:
    """Of the tunnels of the anchor."""
    return {row["port"] for row in stage.show(ANCHOR, "tunnels")}


@with_nat
def test_tunnels_go_to_where_data_comes_from_behind_a_nat(natted: tuple[Ipv4Stage, Nat]) -> None:
    stage, _ = natted
    running = stage.download(CN_ADDRESS)
    flowing(running)
    (port,) = data_ports(stage)
    assert 20000 <= port < 20100
    assert [row["encapsulation"] for row in stage.show(MAG1, "tunnels")] == ["udp"]
    eventually(lambda: [row["state"] for row in stage.show(ANCHOR, "paths")] == ["up"], what="probes pass the NAT")
    finished(running)


@with_nat
def test_a_nat_that_forgets_is_followed_to_its_new_port(natted: tuple[Ipv4Stage, Nat]) -> None:
    stage, nat = natted
    running = stage.download(CN_ADDRESS)
    for first in (30000, 40000):
        flowing(running)
        nat.use_ports(first)
        eventually(lambda first=first: min(data_ports(stage)) >= first, 10.0, "the anchor knows the new port")
        flowing(running)
    finished(running)
    assert node_id(0) in {row["node"] for row in stage.show(ANCHOR, "bindings")}


# --- GRE keys ---


@pytest.mark.parametrize("asks", [True, False], ids=["asked-for", "required"])
def test_sessions_have_gre_keys_of_their_own(tmp_path: Path, asks: bool) -> None:
    more = {"lma": {"anchor": {"gre_keys": True}}, "mag": {"gateway": {"anchor": ANCHOR, "gre_keys": asks}}}
    with ipv4_domain(tmp_path, more, encapsulation="gre", nodes=2) as stage:
        stage.start_routers()
        for node in ("mn", "mn2"):
            stage.world.attach(MAG1, node)
            stage.wait_for_address(POOL, node)
        for node in ("mn", "mn2"):
            flowing(stage.download(CN_ADDRESS, node))
        for router in (ANCHOR, MAG1):
            keys = {row["key"] for row in stage.show(router, "tunnels")}
            assert len(keys) == 2
            assert None not in keys
        refused = stage.counter(MAG1, "gateway.refused.gre-key-option-required")
        assert refused == (0 if asks else 2)


