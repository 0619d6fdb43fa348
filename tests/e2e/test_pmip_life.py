"""An LMA and two MAGs that are killed, restarted, told otherwise and lied to, while a node downloads.

    cn --- core --+-- lma
                  +-- mag1 --:
                  +-- mag2 --:-- mn, mn2
"""

import os
import shutil
import signal
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator
from ipaddress import IPv6Address
from pathlib import Path
from typing import Any

import pytest

from router.demo.branch import GATEWAY
from router.demo.lab import PROJECT
from router.demo.proxy_stage import ProxyStage, node_id
from router.demo.proxy_world import ANCHOR, POOL, UNDERLAY
from router.demo.stage import new_key
from router.demo.toml import toml
from router.demo.topology import CN_ADDRESS, underlay_gateway
from router.demo.traffic import Program
from router.links.rtnetlink import ROUTE_PROTOCOL
from router.links.rtnetlink_constants import AddressFlag
from tests.e2e.domain import finished, flowing
from tests.e2e.packets import Forger, mobility
from tests.e2e.pmip_domain import branch_domain, proxy_domain
from tests.eventually import eventually

NODE = node_id(0)
UNKNOWN_TYPE = bytes((59, 0, 99, 0, 0, 0, 0, 0))  # a Mobility Header of type 99
NEVER_EMPTY = ("sessions", "bindings", "tunnels", "peers", "counters", "config")  # while a node is served
AGAIN = 20.0  # s for what a node or a TCP retransmission has to begin


@pytest.fixture
def domain(tmp_path: Path) -> Iterator[ProxyStage]:
    """The node is at mag1."""
    with proxy_domain(tmp_path, nodes=2) as stage:
        stage.move("mag1")
        stage.wait_for_address(POOL)
        yield stage


def download(stage: ProxyStage) -> Program:
    program = stage.program("download", "mn", "tcp-get", str(CN_ADDRESS), "--rate", "10")
    program.wait_for("connected")
    flowing(program, timeout=AGAIN)
    return program


def kill(stage: ProxyStage, name: str) -> None:
    stage.routers.processes[name].kill()
    stage.routers.processes[name].wait(5.0)


def lose_sessions(stage: ProxyStage) -> None:
    for file in (stage.directory / ANCHOR).glob("bindings.db*"):
        file.unlink()


def told(stage: ProxyStage, name: str, change: Callable[[dict[str, Any]], object]) -> None:
    """Write the configuration of a router with a change, and have it read that by SIGHUP."""
    tables = tomllib.loads(stage.config_file(name).read_text())
    change(tables)
    stage.tell(name, toml(tables))
    before = log(stage, name).count("reload: ")
    stage.routers.processes[name].send_signal(signal.SIGHUP)
    eventually(lambda: log(stage, name).count("reload: ") > before, 5.0, "it has read it")
    assert "nothing was changed" not in log(stage, name)


def log(stage: ProxyStage, name: str) -> str:
    return stage.log_file(name).read_text()


def lines(stage: ProxyStage, name: str, event: str) -> list[str]:
    return [line for line in log(stage, name).splitlines() if f" {event} " in line]


def says(stage: ProxyStage, name: str, event: str, *words: str) -> None:
    """One line of the log tells it, with all these words."""
    eventually(
        lambda: any(all(word in line for word in words) for line in lines(stage, name, event)),
        10.0,
        f"{name} says {event} {words}",
    )


def sessions(stage: ProxyStage) -> list[tuple[Any, ...]]:
    return [(row["number"], row["node"], row["gateway"], row["prefixes"]) for row in stage.show(ANCHOR, "sessions")]


def counter(stage: ProxyStage, name: str, what: str) -> int:
    return next((row["value"] for row in stage.show(name, "counters") if row["counter"] == what), 0)


def of_the_node(text: dict[str, Any]) -> Callable[[dict[str, Any]], object]:
    """The LMA has a [[node]] for it."""
    return lambda tables: tables.update(node=[{"id": NODE, **text}])


# Death


def test_an_anchor_that_is_killed_under_traffic_comes_back_with_its_sessions(domain: ProxyStage) -> None:
    running = download(domain)
    before = sessions(domain)
    kill(domain, ANCHOR)
    domain.start_again(ANCHOR)
    assert sessions(domain) == before
    flowing(running, timeout=AGAIN)
    assert lines(domain, "mag1", "peer-restarted") == []
    finished(running)


def test_an_anchor_that_lost_its_sessions_is_told_them_again(domain: ProxyStage) -> None:
    running = download(domain)
    [(_, _, gateway, prefixes)] = sessions(domain)
    kill(domain, ANCHOR)
    lose_sessions(domain)
    domain.start_again(ANCHOR)
    says(domain, "mag1", "peer-restarted", "peer=lma")
    eventually(lambda: [row[2:] for row in sessions(domain)] == [(gateway, prefixes)], 10.0, "it knows the node")
    flowing(running, timeout=AGAIN)
    finished(running)


def test_a_gateway_that_is_killed_registers_its_node_again(domain: ProxyStage) -> None:
    running = download(domain)
    before = domain.addresses()
    kill(domain, "mag1")
    domain.start_again("mag1")
    flowing(running, timeout=AGAIN)
    assert domain.addresses() == before
    assert finished(running)["source"] == str(before[0])


def test_nothing_is_left_behind(domain: ProxyStage) -> None:
    finished(download(domain))
    for name in ("mag1", "mag2", ANCHOR):
        process, host = domain.routers.processes[name], domain.world[name]
        process.send_signal(signal.SIGTERM)
        assert process.wait(10.0) == 0
        assert [link.name for link in host.netlink.links() if link.name == "openmar0"] == []
        assert host.netlink.routes(protocol=ROUTE_PROTOCOL) == []
        assert host.netlink.rules(protocol=ROUTE_PROTOCOL) == []
        assert not domain.socket_file(name).exists()


# Orders


@pytest.mark.skipif(
    not shutil.which("nft") and "CI" not in os.environ,
    reason="nothing here keeps a host silent: apt-get install nftables",
)
def test_a_node_that_is_revoked_loses_its_address(domain: ProxyStage) -> None:
    keep_silent(domain, "mn")  # or the next word of its kernel is the sign of a node that wants to be registered
    command = [sys.executable, "-m", "router", "revoke", NODE, "--socket", str(domain.socket_file(ANCHOR))]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=20.0)
    assert (done.returncode, done.stdout) == (0, f"{NODE} revoked\n"), done.stderr
    eventually(lambda: counter(domain, ANCHOR, "revocation.confirmed") == 1, 5.0, "the gateway has acknowledged")
    eventually(lambda: domain.show("mag1", "bindings") == [], 5.0, "the gateway has let go")
    eventually(lambda: preferred(domain) == [], 5.0, "the node was told")


def keep_silent(stage: ProxyStage, node: str) -> None:
    """It hears, and says nothing."""
    chain = "add chain ip6 quiet out { type filter hook output priority 0; policy drop; }"
    for command in ("add table ip6 quiet", chain):
        assert stage.world[node].spawn(["nft", command]).wait(10.0) == 0


def preferred(stage: ProxyStage) -> list[IPv6Address]:
    """Addresses of the node that a new connection may use."""
    host = stage.world["mn"]
    found = host.netlink.addresses(host.link("radio0").index)
    return [item.address for item in found if item.address in POOL and not item.flags & AddressFlag.DEPRECATED]


def test_a_policy_and_a_profile_are_changed_by_sighup(domain: ProxyStage) -> None:
    running = download(domain)
    rule = {"policy": "quiet", "name": "no-voice", "protocol": "udp", "spread": "drop"}
    told(domain, ANCHOR, lambda tables: tables.update(flow=[rule]))
    assert [row["policy"] for row in domain.show(ANCHOR, "policy")] == ["quiet"] * 2
    told(domain, ANCHOR, of_the_node({"policy": "quiet"}))
    eventually(lambda: [row["policy"] for row in domain.show(ANCHOR, "sessions")] == ["quiet"], 5.0, "it is used")
    sink = domain.program("sink", "mn", "udp-sink")
    sink.wait_for("ready")
    domain.program("probe", "cn", "udp-send", str(domain.addresses()[0])).wait_for("ready")
    dropped = counter(domain, ANCHOR, "engine.drop.policy")
    eventually(lambda: counter(domain, ANCHOR, "engine.drop.policy") > dropped + 100, 5.0, "datagrams are dropped")
    assert sum(report["received"] for report in sink.reports("interval")) == 0
    flowing(running, timeout=AGAIN)
    finished(running)


def test_a_key_is_changed_at_both_ends_while_a_session_stands(domain: ProxyStage) -> None:
    running = download(domain)
    key = new_key()

    def change(tables: dict[str, Any]) -> None:
        for peer in tables["peer"]:
            if peer["name"] in (ANCHOR, "mag1"):
                peer["key"] = key

    for name in (ANCHOR, "mag1"):
        told(domain, name, change)
    domain.move("mag2")
    domain.move("mag1")
    flowing(running, timeout=AGAIN)
    finished(running)
    eventually(lambda: list(domain.reached_by().values()) == ["mag1"], 5.0, "it was believed")


# Refusals, each in a line with its cure


def test_a_node_that_is_refused_loses_its_session_and_gets_no_other(domain: ProxyStage) -> None:
    told(domain, ANCHOR, of_the_node({"refused": True}))
    eventually(lambda: domain.show("mag1", "bindings") == [], 5.0, "the gateway has let go")
    domain.move("mag2")
    cure = "its [[node]] says refused = true: take that away to serve it"
    says(domain, ANCHOR, "update-refused", NODE, "status=PROXY_REG_NOT_ENABLED", f"why={cure}")
    says(domain, "mag2", "registration-refused", NODE, "status=PROXY_REG_NOT_ENABLED", f"why=the anchor says: {cure}")


def test_a_gateway_that_may_not_serve_a_node_is_refused(domain: ProxyStage) -> None:
    told(domain, ANCHOR, of_the_node({"gateways": ["mag1"]}))
    domain.move("mag2")
    cure = "this gateway is not in gateways of its [[node]]: add it there"
    says(domain, ANCHOR, "update-refused", NODE, "peer=mag2", "MAG_NOT_AUTHORIZED_FOR_PROXY_REG", f"why={cure}")
    says(domain, "mag2", "registration-refused", "MAG_NOT_AUTHORIZED_FOR_PROXY_REG", f"why=the anchor says: {cure}")
    domain.move("mag1")
    eventually(lambda: list(domain.reached_by().values()) == ["mag1"], AGAIN, "it is served where it may be")


def test_a_gateway_with_another_key_is_not_believed(domain: ProxyStage) -> None:
    told(domain, "mag2", lambda tables: tables["peer"][0].update(key=new_key()))
    domain.move("mag2")
    why = "why=the key does not fit: make it the same on both routers"
    for name, other, message in ((ANCHOR, "mag2", "BindingUpdate"), ("mag2", ANCHOR, "BindingAck")):
        says(domain, name, "message-refused", f"peer={UNDERLAY[other]}", f"message={message}", why)


def test_a_gateway_that_is_no_peer_is_not_believed(domain: ProxyStage) -> None:
    told(domain, ANCHOR, lambda tables: tables.update(peer=[it for it in tables["peer"] if it["name"] != "mag2"]))
    domain.move("mag2")
    why = "why=it is no peer of this router: if it should be, give it a [[peer]] here"
    says(domain, ANCHOR, "message-refused", f"peer={UNDERLAY['mag2']}", "message=BindingUpdate", why)


@pytest.mark.parametrize("name", [ANCHOR, "mag1"])
def test_a_message_of_an_unknown_type_is_answered_with_an_error(domain: ProxyStage, name: str) -> None:
    here = list(UNDERLAY).index(name) + 1
    with Forger(domain.world["core"]) as forger:
        forger.send(mobility(underlay_gateway(here), UNDERLAY[name], UNKNOWN_TYPE))
    eventually(lambda: counter(domain, name, "sent.BindingError") == 1, 5.0, "it answers")
    assert counter(domain, name, "malformed.unknown-type") == 1


# What is shown of all that


def test_the_monitor_tells_what_happens_and_not_every_probe(tmp_path: Path) -> None:
    with branch_domain(tmp_path) as branch:
        eventually(lambda: min(row["sent"] for row in branch.show(GATEWAY, "paths")) > 20, 30.0, "many probes")
        told_of = Counter(event["event"] for _, event in branch.news())
    assert told_of["pbu-sent"] > 0
    assert told_of["heartbeat-sent"] < 10


def test_every_view_of_either_end_has_rows(domain: ProxyStage) -> None:
    told(domain, ANCHOR, lambda tables: tables.update(flow=[{"name": "all"}]))
    (at_anchor,) = domain.show(ANCHOR, "sessions")
    assert (at_anchor["node"], at_anchor["gateway"], at_anchor["link_layer"]) == (NODE, "mag1", "02:00:00:00:00:11")
    assert [path["address"] for path in at_anchor["care_ofs"]] == [str(UNDERLAY["mag1"])]
    assert (at_anchor["ipv4"], at_anchor["delegated"], at_anchor["expires"] > 0) == (None, [], True)
    (peer, _) = domain.show(ANCHOR, "peers")
    assert (peer["name"], peer["prefixes"], peer["heard_at"]) == ("mag1", 1, str(UNDERLAY["mag1"]))
    for name in (ANCHOR, "mag1"):
        assert [what for what in NEVER_EMPTY if not domain.show(name, what)] == []
        eventually(lambda name=name: domain.show(name, "peers")[0]["alive"], 5.0, "heartbeats are answered")
