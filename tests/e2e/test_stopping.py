"""How a router ends: politely, in a hurry, by force; and how the next one finds its way.

    cn --- core --+-- mar1 --:
                  +-- mar2 --:-- mn
"""

import os
import signal
import subprocess
from collections.abc import Callable
from ipaddress import IPv6Network
from pathlib import Path
from typing import Any

import pytest
from pyroute2 import IPRoute

from router.demo.capture import read_packets
from router.demo.lab import Host
from router.demo.topology import World
from router.links.rtnetlink_constants import AddressFlag
from tests.e2e.domain import NODES, Domain, RouterProcess, finished, flowing
from tests.eventually import eventually

MakeDomain = Callable[..., Domain]

INET6 = 10
SYSCTLS = Path("/proc/sys/net/ipv6")
WRITE_ONLY = {"flush", "stable_secret"}
CHANGE_BY_THEMSELVES = {"IFA_CACHEINFO", "RTA_CACHEINFO", "IFLA_STATS", "IFLA_STATS64", "IFLA_AF_SPEC", "IFLA_XDP"}
CHANGE_BY_THEMSELVES |= {f"IFLA_CARRIER_{what}" for what in ("CHANGES", "UP_COUNT", "DOWN_COUNT")} | {"IFLA_QDISC"}


def plain(message: Any) -> tuple[object, ...]:
    """What a netlink message says, without its counters and times."""
    attributes = sorted((name, str(value)) for name, value in message["attrs"] if name not in CHANGE_BY_THEMSELVES)
    fields = {key: value for key, value in message.items() if key not in ("attrs", "header", "event", "change")}
    return tuple(sorted((key, str(value)) for key, value in fields.items())), tuple(attributes)


def sysctls() -> dict[str, str]:
    found = {}
    for directory, _, files in os.walk(SYSCTLS):
        for name in files:
            file = Path(directory, name)
            if name not in WRITE_ONLY:
                found[str(file.relative_to(SYSCTLS))] = file.read_text()
    return found


def snapshot(host: Host) -> dict[str, object]:
    """All of a network namespace that a router could change."""
    with host.inside(), IPRoute() as kernel:
        return {
            "links": {plain(item) for item in kernel.get_links()},
            "addresses": {plain(item) for item in kernel.get_addr(family=INET6)},
            "routes": {plain(item) for item in kernel.get_routes(family=INET6)},
            "rules": {plain(item) for item in kernel.get_rules(family=INET6)},
            "sysctls": sysctls(),
        }


def snapshot_with_carrier(it: Domain) -> dict[str, object]:
    """The same of mar1 with a node on its link: the kernel has given that all it gives a link that is up."""
    it.mn.attach("mar1")
    acc0 = it["mar1"].host.link("acc0").index

    def settled() -> bool:
        found = it["mar1"].host.netlink.addresses(acc0)
        return bool(found) and not any(item.flags & AddressFlag.TENTATIVE for item in found)

    eventually(settled, 5.0, "acc0 has a link-local address")
    return snapshot(it["mar1"].host)


def check_same(before: dict[str, Any], after: dict[str, Any]) -> None:
    for kind in before:
        left, right = before[kind], after[kind]
        if isinstance(left, dict):
            left, right = set(left.items()), set(right.items())
        assert left ^ right == set(), f"{kind}: gone {left - right}, new {right - left}"


def ended_well(router: RouterProcess) -> None:
    assert router.stop() == 0, router.log()
    assert not list(router.config.parent.glob(f"{router.name}.sock"))


@pytest.mark.parametrize("encapsulation", ["udp", "ip", "gre"])
def test_a_stopped_router_leaves_its_namespace_as_it_found_it(domain: MakeDomain, encapsulation: str) -> None:
    with domain(settings={"underlay": {"encapsulation": encapsulation}}) as it:
        mar1 = it["mar1"]
        # a host that is no router yet, with a setting of its own on one link
        mar1.host.sysctl("net/ipv6/conf/all/forwarding", 0)
        mar1.host.sysctl("net/ipv6/conf/core0/accept_ra", 1)
        mar1.host.sysctl("net/ipv6/conf/acc0/accept_ra", 1)
        before = snapshot_with_carrier(it)
        it.start()
        it.mn.no_duplicate_detection().attach("mar2")
        it.mn.address(it["mar2"].pool)
        it.mn.attach("mar1")
        it.mn.address(mar1.pool)
        eventually(lambda: len(mar1.paths()) == 2, 5.0, "a prefix of each router")
        ended_well(mar1)
        check_same(before, snapshot(mar1.host))


def test_a_stopped_router_keeps_what_was_there_before_it(domain: MakeDomain) -> None:
    """A static route into its own pool, a rule and an address of the operator."""
    with domain(mars=1) as it:
        mar1 = it["mar1"]
        mar1.host.address("acc0", "2001:db8:1000:ffff::1/64")
        mar1.host.route("2001:db8:1000:fffe::/64", via="2001:db8:ff:1::ff")
        mar1.host.sysctl("net/ipv6/conf/all/forwarding", 0)
        mar1.host.sysctl("net/ipv6/conf/acc0/forwarding", 1)
        before = snapshot_with_carrier(it)
        it.start()
        ended_well(mar1)
        check_same(before, snapshot(mar1.host))


def test_peers_and_nodes_are_told_before_the_end(domain: MakeDomain) -> None:
    with domain() as it:
        it.start()
        it.mn.no_duplicate_detection().attach("mar1")
        old = it.mn.address(it["mar1"].pool)
        it.mn.attach("mar2")
        it.mn.address(it["mar2"].pool)
        prefix = IPv6Network((old, 64), strict=False)
        eventually(lambda: it["mar1"].paths()[prefix] == ("to visited router", str(it["mar2"].address)), 5.0)
        ended_well(it["mar2"])
        it["mar1"].heard("pbu-received", f"prefix={prefix}", "lifetime=0")
        assert it["mar1"].paths()[prefix] == ("held", None)
        for number in (1, 2):  # the node looks for another router, its addresses are for old connections only
            pool = it[f"mar{number}"].pool
            eventually(lambda p=pool: it.mn.deprecated(p), 5.0, f"{pool} is deprecated")
        eventually(lambda: it.mn.default_gateways() == [], 5.0, "no default router")


def test_after_the_farewell_nobody_is_attached_again(domain: MakeDomain) -> None:
    with domain(mars=1) as it:
        it.start()
        it.mn.no_duplicate_detection().attach("mar1")
        it.mn.address(it["mar1"].pool)
        capture, file = it.capture("mar1", "acc0")
        ended_well(it["mar1"])
        assert it["mar1"].lines("attached") == it["mar1"].lines("attached")[:1]
        capture.stop()
        sent = [packet.octets for packet in read_packets(file) if packet.outgoing and packet.octets[54:55] == b"\x86"]
        assert sent[-1][60:62] == b"\0\0"  # router lifetime of the last advertisement


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_listener_of_the_monitor_does_not_hold_up_the_end(domain: MakeDomain, number: int) -> None:
    with domain(mars=1) as it:
        mar1 = it.start()["mar1"]
        listening = it.world["mar1"].spawn_module(
            "router", "monitor", "--history", "100", "--socket", str(it.directory / "mar1.sock"), stdout=subprocess.PIPE
        )
        it.mn.attach("mar1")
        assert listening.stdout is not None
        assert b"link-up" in listening.stdout.readline()
        assert mar1.stop(number, within=5.0) == 0
        assert listening.wait(5.0) == 0


def test_a_second_signal_ends_it_at_once(domain: MakeDomain) -> None:
    """A process that is stopped gets both at the same time."""
    with domain(mars=1) as it:
        mar1 = it.start()["mar1"]
        mar1.process.send_signal(signal.SIGSTOP)
        mar1.process.send_signal(signal.SIGTERM)
        mar1.process.send_signal(signal.SIGINT)
        mar1.process.send_signal(signal.SIGCONT)
        assert mar1.process.wait(2.0) in (0, 1)


def test_a_router_told_to_stop_while_it_starts_leaves_nothing(domain: MakeDomain) -> None:
    with domain(mars=1) as it:
        mar1 = it["mar1"]
        before = snapshot_with_carrier(it)
        mar1.begin()
        eventually(lambda: any(link.name == "openmar0" for link in mar1.host.netlink.links()), 10.0, "it has begun")
        mar1.process.terminate()
        assert mar1.process.wait(5.0) in (0, -signal.SIGTERM)
        if mar1.process.returncode == 0:
            check_same(before, snapshot(mar1.host))


def test_a_closed_terminal_ends_it_politely(domain: MakeDomain) -> None:
    with domain(mars=1) as it:
        mar1 = it["mar1"]
        before = snapshot_with_carrier(it)
        it.start()
        assert mar1.stop(signal.SIGHUP) == 0
        check_same(before, snapshot(mar1.host))


def test_a_router_whose_greeting_nobody_reads_leaves_nothing(domain: MakeDomain) -> None:
    with domain(mars=1) as it:
        mar1 = it["mar1"]
        before = snapshot_with_carrier(it)
        reading, writing = os.pipe()
        os.close(reading)
        process = mar1.host.spawn_module("router", "--mar", "--config", str(mar1.config), stdout=writing)
        os.close(writing)
        process.wait(10.0)
        check_same(before, snapshot(mar1.host))


def test_a_connection_survives_the_sudden_death_of_its_anchor(domain: MakeDomain) -> None:
    with domain().start() as it:
        node, mar1, mar2 = it.mn.no_duplicate_detection(), it["mar1"], it["mar2"]
        it.serve()
        node.attach("mar1")
        old = node.address(mar1.pool)
        prefix = IPv6Network((old, 64), strict=False)
        download = it.download()
        flowing(download)
        node.attach("mar2")
        flowing(download)
        eventually(lambda: mar1.paths()[prefix] == ("to visited router", str(mar2.address)), 5.0)

        mar1.process.kill()
        mar1.process.wait()
        mar1.start()
        assert "WARNING removed what an earlier run left behind: " in mar1.log()
        assert mar1.paths()[prefix] == ("to visited router", str(mar2.address))
        assert mar1.show("prefixes")[0]["node"] == NODES[0]
        flowing(download, 1_000_000)
        node.attach("mar1")
        eventually(lambda: mar1.paths()[prefix] == ("native", None), 5.0)
        flowing(download, 1_000_000)
        assert finished(download)["source"] == str(old)


def test_what_a_killed_router_left_is_gone_after_the_next_one(domain: MakeDomain) -> None:
    with domain(mars=1) as it:
        mar1 = it["mar1"]
        mar1.host.sysctl("net/ipv6/conf/all/forwarding", 0)
        before = snapshot_with_carrier(it)
        mar1.start()
        link_layer = mar1.host.link("acc0").link_layer
        for _ in range(2):  # also when the next one is killed too
            mar1.process.kill()
            mar1.process.wait()
            mar1.start()
            assert mar1.host.link("acc0").link_layer == link_layer
        ended_well(mar1)
        check_same(before, snapshot(mar1.host))


def test_a_connection_survives_the_sudden_death_of_the_router_its_node_visits(domain: MakeDomain) -> None:
    """mar2 comes back and finds the node on its link: carrier, solicitation, store, registration."""
    with domain().start() as it:
        mar2 = it["mar2"]
        node, _, download = it.downloading()
        node.attach("mar2")
        flowing(download)
        mar2.process.kill()
        mar2.process.wait()
        mar2.start()
        flowing(download, 1_000_000)
        finished(download)


def test_a_world_of_stopped_routers_is_empty(tmp_path: Path) -> None:
    with Domain(tmp_path, mars=1) as it:
        world: World = it.world
        pids = [it.start()["mar1"].process.pid]
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    assert world.lab.hosts == {}
