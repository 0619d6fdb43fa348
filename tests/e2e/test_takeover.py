"""An upgrade under traffic: `python -m router --mar --takeover`, at an anchor and at a visited router in turn.

    cn --- core --+-- mar1 --:
                  +-- mar2 --:-- mn
"""

import asyncio
import os
import random
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from ipaddress import IPv6Address, IPv6Network
from typing import Any

import pytest

from router.config import load
from router.demo.lab import Host
from router.demo.toml import toml
from router.demo.topology import CN_ADDRESS
from router.demo.traffic import Program
from router.errors import ExitCode, RouterError
from router.handover_wire import HandoverWire
from router.links.rtnetlink import ROUTE_PROTOCOL
from router.links.rtnetlink_constants import SOL_NETLINK, SocketOption
from router.machine import Underlay
from router.places import RoleName
from router.takeover import VERSION, identity
from tests.e2e.domain import NODES, Domain, RouterProcess, flowing, run_router
from tests.e2e.test_stopping import check_same, ended_well, snapshot, snapshot_with_carrier
from tests.eventually import eventually

MakeDomain = Callable[..., Domain]

TIMES = 3
SEED = random.randrange(1 << 32)


def next_process(router: RouterProcess, *arguments: str) -> "subprocess.Popen[bytes]":
    """Begin a takeover; what it says goes on in the log."""
    with router.log_file.open("ab") as log:
        given = ("--mar", "--config", str(router.config), "-v", "--takeover", *arguments)
        return router.host.spawn_module("router", *given, stdout=log, stderr=log)


def take_over(router: RouterProcess) -> None:
    """The next process takes over, and the one before ends."""
    before, router.process = router.process, next_process(router)
    assert before.wait(20.0) == 0, router.log()
    router.wait_until_up()


class Stream:
    """A datagram each millisecond from one host to an address of another."""

    def __init__(
        self,
        it: Domain,
        source: str,
        destination: str,
        address: IPv6Address,
        *arguments: str,
        arrives: bool = True,
    ) -> None:
        port = "7101" if source == "cn" else "7102"
        self._sink = it.program(destination, "udp-sink", port)
        self._sink.wait_for("ready")
        self._sender = it.program(source, "udp-send", str(address), port, *arguments)
        if arrives:
            self._sink.wait_for("interval")

    def end(self) -> dict[str, Any]:
        """Stop, and what the sink has found when all has arrived."""
        sent = self._sender.stop()["sent"]
        eventually(lambda: _highest(self._sink) >= sent - 1, 10.0, "all has arrived")
        return self._sink.stop() | {"sent": sent}


def _highest(sink: Program) -> int:
    arrivals = (number for report in sink.reports("interval")[-20:] for number, _, _ in report["arrivals"])
    return max(arrivals, default=-1)


class Probe:
    """Both ways between cn and one address of the node."""

    def __init__(self, it: Domain, address: IPv6Address) -> None:
        self._streams = {
            "down": Stream(it, "cn", "mn", address),
            "up": Stream(it, "mn", "cn", CN_ADDRESS, "--source", str(address)),
        }

    def end(self) -> dict[str, dict[str, Any]]:
        """What was found, of each direction."""
        return {way: stream.end() for way, stream in self._streams.items()}


def moved(it: Domain) -> tuple[IPv6Address, IPv6Network]:
    """The node has an address of mar1 and is at mar2."""
    it.serve()
    it.mn.no_duplicate_detection().attach("mar1")
    address = it.mn.address(it["mar1"].pool)
    prefix = IPv6Network((address, 64), strict=False)
    it.mn.attach("mar2")
    there = ("to visited router", str(it["mar2"].address))
    eventually(lambda: it["mar1"].paths()[prefix] == there, 5.0, "it is registered")
    return address, prefix


@pytest.mark.alone
def test_nothing_is_lost_while_anchor_and_visited_router_are_replaced_three_times(domain: MakeDomain) -> None:
    with domain().start() as it:
        address, prefix = moved(it)
        it.mn.address(it["mar2"].pool)
        probe = Probe(it, address)
        download = it.download()
        flowing(download)
        counted = {name: router.counter("engine.packets_from_tun") for name, router in it.routers.items()}
        for _ in range(TIMES):
            for router in it.routers.values():
                take_over(router)
                flowing(download)
        found = probe.end()
        done = download.stop()
        print(found)
        for way, report in found.items():
            assert (report["lost"], report["duplicates"]) == (0, 0), way
        assert (done["error"], done["corrupt"]) == ("", 0)
        assert it["mar1"].paths()[prefix] == ("to visited router", str(it["mar2"].address))
        assert it["mar2"].paths()[prefix] == ("to anchor", str(it["mar1"].address))
        assert it["mar2"].nodes() == [NODES[0]]
        for name, router in it.routers.items():
            assert router.counter("engine.packets_from_tun") > counted[name]
            eventually(lambda router=router: len(router.lines("took-over")) == TIMES, what="each process said so")


@pytest.mark.alone
@pytest.mark.parametrize(
    "settings",
    [
        {"engine": {"workers": 2}},
        {"underlay": {"encapsulation": "gre"}},
        {"underlay": {"encapsulation": "ip", "signaling": "udp"}},
    ],
    ids=["workers", "gre", "ip"],
)
def test_whatever_carries_packets_and_signalling_is_taken_over(domain: MakeDomain, settings: Any) -> None:
    with domain(settings=settings).start() as it:
        address, prefix = moved(it)
        probe = Probe(it, address)
        for router in it.routers.values():
            take_over(router)
        for way, report in probe.end().items():
            assert (report["lost"], report["duplicates"]) == (0, 0), way
        it.mn.attach("mar1")
        eventually(lambda: it["mar1"].paths()[prefix] == ("native", None), 5.0)


@pytest.mark.alone
def test_what_is_held_for_a_node_between_two_routers_is_not_lost(domain: MakeDomain) -> None:
    settings = {"anchor": {"hold_seconds": 30.0, "hold_octets": 4 << 20}}
    with domain(settings=settings).start() as it:
        it.mn.no_duplicate_detection().attach("mar1")
        address = it.mn.address(it["mar1"].pool)
        prefix = IPv6Network((address, 64), strict=False)
        it.mn.leave()
        eventually(lambda: it["mar1"].paths()[prefix] == ("held", None), 5.0)
        down = Stream(it, "cn", "mn", address, arrives=False)
        eventually(lambda: held(it["mar1"], prefix) > 100, 5.0, "packets wait")
        take_over(it["mar1"])
        before = held(it["mar1"], prefix)
        assert before > 100
        eventually(lambda: held(it["mar1"], prefix) > before, 5.0, "more packets wait")
        it.mn.attach("mar2")
        eventually(lambda: it["mar1"].paths()[prefix] == ("to visited router", str(it["mar2"].address)), 5.0)
        found = down.end()
        assert (found["received"], found["duplicates"]) == (found["sent"], 0), it["mar1"].counters()


def held(router: RouterProcess, prefix: IPv6Network) -> int:
    return next(int(row["held"]) for row in router.show("bindings") if row["prefix"] == str(prefix))


def test_what_is_in_the_kernel_is_adopted_and_taken_back_at_the_end(domain: MakeDomain) -> None:
    with domain() as it:
        mar1 = it["mar1"]
        mar1.host.sysctl("net/ipv6/conf/all/forwarding", 0)
        before = snapshot_with_carrier(it)
        it.start()
        it.mn.no_duplicate_detection().attach("mar2")
        it.mn.address(it["mar2"].pool)
        it.mn.attach("mar1")
        eventually(lambda: len(mar1.paths()) == 2, 5.0)
        rules = mar1.host.netlink.rules
        eventually(lambda: {rule.iif for rule in rules(protocol=ROUTE_PROTOCOL)} == {"acc0"}, 5.0, "it is home")
        running = snapshot(mar1.host)
        with route_changes(mar1.host) as changes:
            take_over(mar1)
            check_same(running, snapshot(mar1.host))
            assert changes() == []
        ended_well(mar1)
        check_same(before, snapshot(mar1.host))


@contextmanager
def route_changes(host: Host) -> Iterator[Callable[[], list[str]]]:
    """What happens to addresses, routes and rules meanwhile."""
    with host.inside():
        watching = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
    with watching:
        watching.bind((0, 0))
        for group in (9, 11, 19):  # RTNLGRP_IPV6_IFADDR, RTNLGRP_IPV6_ROUTE, RTNLGRP_IPV6_RULE
            watching.setsockopt(SOL_NETLINK, SocketOption.ADD_MEMBERSHIP, group)

        def read() -> list[str]:
            found: list[str] = []
            with suppress(BlockingIOError):
                while True:
                    found.append(watching.recv(1 << 16).hex())
            return found

        yield read


# --- takeovers that fail ---


def refused(router: RouterProcess, *arguments: str) -> str:
    """A takeover that is refused says why in one line; the router goes on."""
    done = run_router(router.host, "--mar", "--takeover", *arguments)
    assert done.returncode != 0
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert router.process.poll() is None
    assert router.show("config") != []
    return line


def test_another_router_is_refused_in_a_line(domain: MakeDomain) -> None:
    with domain(mars=1).start() as it:
        mar1 = it["mar1"]
        as_it_is = ("--config", str(mar1.config))
        running = "openmar: takeover: nothing was changed: the router that runs has"
        cure = "make them the same, or stop it first"
        assert refused(mar1, *as_it_is, "--prefixes", "2001:db8:9000::/48") == (
            f"{running} prefixes {mar1.pool}, the next one 2001:db8:9000::/48: {cure}"
        )
        assert refused(mar1, *as_it_is, "--name", "other") == f"{running} name mar1, the next one other: {cure}"
        assert refused(mar1, *as_it_is, "--workers", "1") == f"{running} workers 0, the next one 1: {cure}"
        mar1.config.write_text(toml({**mar1.tables, "peer": [{"name": "x", "address": "2001:db8::1", "key": "odd"}]}))
        assert "peer.key: " in refused(mar1, *as_it_is)


def test_nobody_to_take_over_from_is_told_in_a_line(domain: MakeDomain) -> None:
    with domain(mars=1) as it:
        mar1 = it["mar1"]
        done = run_router(mar1.host, "--mar", "--takeover", "--config", str(mar1.config))
        assert done.returncode == ExitCode.NOT_RUNNING
        assert done.stderr.startswith(f"openmar: {it.directory / 'mar1.sock'}: no router listens there: ")
        assert not any(link.name == "openmar0" for link in mar1.host.netlink.links())


def test_another_version_is_refused_in_a_line(domain: MakeDomain) -> None:
    with domain(mars=1).start() as it:
        problem = f": the router that runs has version {VERSION}, the next one 0: these two "
        with pytest.raises(RouterError, match=problem):
            it["mar1"].client.take_over({"version": "0"})
        assert it["mar1"].show("config") != []


STAGES = ("asking", "descriptors", "prepared", "state", "ready", "packets")


@pytest.mark.parametrize("stage", STAGES)
def test_a_process_that_dies_in_the_middle_leaves_the_other_one_serving(domain: MakeDomain, stage: str) -> None:
    with domain().start() as it:
        address, prefix = moved(it)
        probe, mar1 = Probe(it, address), it["mar1"]
        asyncio.run(die_at(mar1, stage))
        eventually(lambda: "going on as before" in mar1.log(), 5.0)
        found = probe.end()
        for way, report in found.items():
            assert (report["lost"], report["duplicates"]) == (0, 0), way
        it.mn.attach("mar1")  # signalling goes on too
        eventually(lambda: mar1.paths()[prefix] == ("native", None), 5.0)
        take_over(mar1)


async def die_at(router: RouterProcess, stage: str) -> None:
    """Be the next process until then."""
    underlay = Underlay(address=router.address, interface=None, mtu=1500, why="")
    about = identity(load(router.config, {}, role=RoleName.MAR), underlay)
    wire = HandoverWire(router.client.take_over(about))
    try:
        for kind in STAGES[: STAGES.index(stage) + 1]:
            if kind in ("asking", "prepared", "ready"):
                await wire.send(kind)
            else:
                _, descriptors = await wire.expect(kind, 10.0)
                for descriptor in descriptors:
                    os.close(descriptor)
    finally:
        wire.close()


def test_a_process_that_is_killed_while_it_takes_over_leaves_the_other_one_serving(domain: MakeDomain) -> None:
    with domain().start() as it:
        address, _ = moved(it)
        probe, mar1 = Probe(it, address), it["mar1"]
        chance = random.Random(SEED)
        print("seed", SEED)
        for _ in range(6):
            killed = next_process(mar1)
            with suppress(subprocess.TimeoutExpired):
                killed.wait(chance.uniform(0.2, 1.0))
            killed.kill()
            killed.wait()
            if mar1.process.poll() is not None:  # so quick that it was the router: its end is another test's
                return
        with suppress(subprocess.TimeoutExpired):
            mar1.process.wait(2.0)
            return  # the last one too, while the one before was ending
        found = probe.end()
        for way, report in found.items():
            assert (report["lost"], report["duplicates"]) == (0, 0), way
        assert mar1.show("config") != []
