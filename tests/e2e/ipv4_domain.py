"""Domains with IPv4 for tests: nodes that lease it, underlays that have nothing else, a NAT on the way.

    cn 198.51.100.80 --- core --- lma 172.16.1.1         pool 10.1.0.0/24 is routed to the lma
                          |  \\--- mag1, mag2 172.16.2.1, 172.16.3.1
                         nat 172.16.9.1                  masquerades 192.168.1.0/24, at ports of its choice
                          |
                         mag1, nat0 192.168.1.2
"""

import os
import shutil
import subprocess
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

import pytest

from router.demo.lab import Host, connect
from router.demo.proxy_stage import ProxyStage
from router.demo.proxy_world import ANCHOR, GATEWAYS
from router.demo.stage import Told
from router.demo.toml import toml
from router.demo.topology import Scene
from router.demo.traffic import Program
from tests.e2e.domain import usable_at_once
from tests.e2e.pmip_domain import watched

CN_IPV4, CN_GATEWAY_IPV4 = IPv4Address("198.51.100.80"), IPv4Address("198.51.100.1")
POOL_IPV4 = IPv4Network("10.1.0.0/24")
UNDERLAY_IPV4 = {name: IPv4Address(f"172.16.{at}.1") for at, name in enumerate((ANCHOR, *GATEWAYS), 1)}
INSIDE, OUTSIDE = IPv4Address("192.168.1.2"), IPv4Address("172.16.9.1")  # mag1 behind its NAT, and as others see it
MASQUERADE = """table ip nat {{
  chain out {{
    type nat hook postrouting priority 100
    oifname "core0" meta l4proto udp masquerade to :{first}-{last} random
  }}
}}"""
ANY_IPV4 = "0.0.0.0/0"
with_nat = pytest.mark.skipif(
    not (shutil.which("nft") and shutil.which("conntrack")) and "CI" not in os.environ,
    reason="no NAT here: apt-get install nftables conntrack",
)

Tables = Mapping[str, Any]  # of a configuration, laid over what the stage tells


class Ipv4Stage(ProxyStage):
    """An LMA and two MAGs. more: for "lma", "mag" or the name of one of them."""

    def __init__(self, directory: Path, more: Mapping[str, Tables], **about: Any) -> None:
        super().__init__(directory, **about)
        self._more = more
        give_ipv4(self.world)

    def told(self) -> dict[str, Told]:
        """As on the stage without IPv4, and more."""
        return {name: Told(about.role, self._with_more(name, about)) for name, about in super().told().items()}

    def _with_more(self, name: str, about: Told) -> str:
        tables = tomllib.loads(about.text)
        for key in dict.fromkeys((about.role, name)):
            for table, values in self._more.get(key, {}).items():
                tables[table] = tables.get(table, {}) | values if isinstance(values, Mapping) else values
        return toml(tables)

    def ipv4_home(self) -> list[str]:
        """IPv4 home addresses that the anchor forwards."""
        return [row["prefix"] for row in self.show(ANCHOR, "bindings") if ":" not in row["prefix"]]

    def download(self, to: object = CN_IPV4, node: str = "mn") -> Program:
        """A transfer from the correspondent to a node that goes on until it is stopped."""
        program = self.program(f"download {len(self.programs)}", node, "tcp-get", str(to), "--rate", "10")
        program.wait_for("connected")
        return program

    def counter(self, router: str, name: str) -> int:
        """One counter of a router."""
        return next((int(row["value"]) for row in self.show(router, "counters") if row["counter"] == name), 0)


def give_ipv4(world: Scene) -> None:
    """Correspondent, core and routers have IPv4 too; the pool is routed to the first router."""
    core, cn = world["core"], world["cn"]
    core.sysctl("net/ipv4/conf/all/forwarding", 1)
    core.address("cn0", f"{CN_GATEWAY_IPV4}/24")
    cn.address("core0", f"{CN_IPV4}/24")
    cn.route(ANY_IPV4, via=str(CN_GATEWAY_IPV4))
    for number, name in enumerate(world.routers, 1):
        if any(link.name == name for link in core.netlink.links()):
            gateway = f"172.16.{number}.254"
            core.address(name, f"{gateway}/24")
            world[name].address("core0", f"172.16.{number}.1/24")
            world[name].route(ANY_IPV4, via=gateway)
    core.route(str(POOL_IPV4), via="172.16.1.1")


class Nat:
    """A host that masquerades what mag1 sends by its interface nat0."""

    def __init__(self, world: Scene, gateway: str = GATEWAYS[0]) -> None:
        self.host: Host = world.lab.host("nat")
        core, mag = world["core"], world[gateway]
        connect(core, "nat", self.host, "core0")
        connect(self.host, "inside", mag, "nat0")
        self.host.sysctl("net/ipv4/conf/all/forwarding", 1)
        core.address("nat", "172.16.9.254/24")
        self.host.address("core0", f"{OUTSIDE}/24")
        self.host.address("inside", "192.168.1.1/24")
        self.host.route(ANY_IPV4, via="172.16.9.254")
        mag.address("nat0", f"{INSIDE}/24")
        mag.route(ANY_IPV4, via="192.168.1.1")
        self.use_ports(20000)

    def use_ports(self, first: int) -> None:
        """From now on what begins goes out by these hundred ports; what it knew is forgotten."""
        self._run("nft", "flush", "ruleset")
        self._run("nft", MASQUERADE.format(first=first, last=first + 99))
        self._run("conntrack", "-F")

    def _run(self, *command: str) -> None:
        process = self.host.spawn(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        said, _ = process.communicate(timeout=10)
        assert process.returncode == 0, f"{command}: {said.decode()}"


@contextmanager
def ipv4_domain(directory: Path, more: Mapping[str, Tables], **about: Any) -> Iterator[Ipv4Stage]:
    """An LMA with a pool of IPv4 home addresses and two MAGs, not started yet."""
    with Ipv4Stage(directory, more, **about) as stage, watched(stage):
        for node in stage.world.nodes:  # these tests are not about duplicate address detection
            usable_at_once(stage.world[node])
        stage.program("server", "cn", "tcp-serve").wait_for("ready")
        yield stage
