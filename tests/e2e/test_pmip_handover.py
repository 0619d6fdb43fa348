"""A stock host moves between two MAGs of one LMA: its address and its connections stay, and nobody forwards twice.

    cn --- core --+-- lma
                  +-- mag1 --:
                  +-- mag2 --:-- mn, mn2
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from router.demo.lab import PROJECT
from router.demo.proxy_stage import ProxyStage
from router.demo.proxy_world import GATEWAYS, POOL
from router.demo.topology import CN_ADDRESS
from router.demo.traffic import Program
from tests.e2e.domain import finished, flowing
from tests.e2e.pmip_domain import proxy_domain
from tests.eventually import eventually

MOVES = 6
LOST_AT_MOST = 30  # datagrams of a move, one each millisecond, on a machine that runs other tests too


@pytest.fixture
def domain(tmp_path: Path) -> Iterator[ProxyStage]:
    with proxy_domain(tmp_path, nodes=2) as stage:
        yield stage


def download(stage: ProxyStage, node: str = "mn") -> Program:
    program = stage.program(f"download {node}", node, "tcp-get", str(CN_ADDRESS), "--rate", "10")
    program.wait_for("connected")
    return program


def test_a_download_and_its_address_outlive_every_move(domain: ProxyStage) -> None:
    domain.move(GATEWAYS[0])
    address = domain.wait_for_address(POOL)
    running = download(domain)
    for number in range(1, MOVES + 1):
        flowing(running)
        domain.move(GATEWAYS[number % 2])
    flowing(running)
    assert finished(running)["source"] == str(address)
    assert domain.addresses() == [address]
    for router in ("lma", *GATEWAYS):  # nothing came before its tunnel was known, or after it was forgotten
        counters = {row["counter"]: row["value"] for row in domain.show(router, "counters")}
        assert counters["engine.drop.unknown_tunnel"] == 0, router


def test_the_anchor_forwards_to_the_gateway_where_the_node_is(domain: ProxyStage) -> None:
    for gateway in (*GATEWAYS, *GATEWAYS):
        domain.move(gateway)
        domain.wait_for_address(POOL)
        eventually(lambda gateway=gateway: list(domain.reached_by().values()) == [gateway], what=f"it is at {gateway}")


def test_the_gateway_that_a_node_left_forgets_it(domain: ProxyStage) -> None:
    domain.move("mag1")
    domain.wait_for_address(POOL)
    domain.move("mag2")
    eventually(lambda: domain.show("mag1", "bindings") == [], 10.0, "mag1 has let go")
    assert len(domain.show("mag2", "bindings")) == 1


@pytest.mark.alone
def test_a_handover_loses_few_datagrams(domain: ProxyStage) -> None:
    domain.move("mag1")
    address = domain.wait_for_address(POOL)
    sink = domain.program("sink", "mn", "udp-sink")
    sink.wait_for("ready")
    probe = domain.program("probe", "cn", "udp-send", str(address))

    def received() -> int:
        return sum(report["received"] for report in sink.reports("interval"))

    for number in range(1, MOVES + 1):
        before = received()
        eventually(lambda before=before: received() > before + 500, what="datagrams")
        domain.move(GATEWAYS[number % 2])
    before = received()
    eventually(lambda: received() > before + 500, what="datagrams")
    probe.stop()
    done = sink.stop()
    assert done["duplicates"] == 0
    assert done["lost"] <= MOVES * LOST_AT_MOST


def test_what_comes_for_a_node_between_gateways_waits_for_it(tmp_path: Path) -> None:
    with proxy_domain(tmp_path, hold_seconds=30.0) as domain:
        domain.move("mag1")
        address = domain.wait_for_address(POOL)
        sink = domain.program("sink", "mn", "udp-sink")
        sink.wait_for("ready")
        domain.world.detach()
        eventually(lambda: [row["path"] for row in domain.show("lma", "bindings")] == ["held"], what="the anchor knows")
        probe = domain.program("probe", "cn", "udp-send", str(address))
        eventually(lambda: domain.show("lma", "bindings")[0]["held"] >= 20, what="datagrams wait")
        domain.move("mag2")
        eventually(lambda: domain.reached_by() and list(domain.reached_by().values()) == ["mag2"], what="it is at mag2")
        sent = probe.stop()["sent"]
        eventually(lambda: sum(report["received"] for report in sink.reports("interval")) == sent, what="all arrive")
        done = sink.stop()
        assert (done["duplicates"], done["reordered"]) == (0, 0)


def test_two_nodes_have_prefixes_of_their_own_and_reach_each_other_across_gateways(domain: ProxyStage) -> None:
    domain.world.attach("mag1", "mn")
    domain.world.attach("mag2", "mn2")
    one, two = (domain.wait_for_address(POOL, node) for node in ("mn", "mn2"))
    assert one.packed[:8] != two.packed[:8]
    domain.program("server mn", "mn", "tcp-serve").wait_for("ready")
    get = domain.program("get", "mn2", "tcp-get", str(one), "--octets", "1000000", "--rate", "0")
    done = get.wait_for("done", 20.0)
    assert (done["octets"], done["error"], done["corrupt"]) == (1_000_000, "", 0)


@pytest.mark.parametrize("local_routing", [False, True])
def test_nodes_of_one_gateway_meet_at_their_anchor_or_with_local_routing_there(
    tmp_path: Path, local_routing: bool
) -> None:
    with proxy_domain(tmp_path, nodes=2, local_routing=local_routing) as domain:
        for node in ("mn", "mn2"):
            domain.world.attach("mag1", node)
        one, _ = (domain.wait_for_address(POOL, node) for node in ("mn", "mn2"))
        domain.program("server mn", "mn", "tcp-serve").wait_for("ready")
        get = domain.program("get", "mn2", "tcp-get", str(one), "--octets", "1000000", "--rate", "0")
        done = get.wait_for("done", 20.0)
        assert (done["octets"], done["error"], done["corrupt"]) == (1_000_000, "", 0)
        at_the_anchor = sum(row["octets_in"] for row in domain.show("lma", "tunnels"))
        assert (at_the_anchor < 100_000) == local_routing


@pytest.mark.alone
def test_the_demo_makes_its_moves() -> None:
    """What it promises of time is for whoever runs it to see."""
    done = subprocess.run(
        [sys.executable, "-m", "router", "demo", "handover", "--pmip", "-j", "--stay", "1", "--moves", "2"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=120.0,
    )
    assert done.stdout, done.stderr
    found = json.loads(done.stdout)
    assert [(item["from"], item["to"]) for item in found["handovers"]] == [("mag1", "mag2"), ("mag2", "mag1")]
    assert all(item["address_kept"] and item["rs_to_first_packet_ms"] is not None for item in found["handovers"])
    assert found["rs_to_first_packet"].keys() == {"median_ms", "p95_ms"}
    assert found["lost_per_move"].keys() == {"median", "most"}
    assert (found["tcp"]["resets"], found["tcp"]["corrupt_bytes"]) == (0, 0)
