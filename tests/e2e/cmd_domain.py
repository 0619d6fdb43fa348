"""The domain of `domain.py` with a Central Mobility Database in place of the store the routers have in common.

cn --- core --+-- mar1 --:                       each MAR keeps what it has lent in a file of its own
              +-- mar2 --:-- mn
              +-- mar3 --:
              +-- cmd                            2001:db8:ff:9::1, `python -m router --cmd`
              +-- cmd2                           2001:db8:ff:8::1, if there are two, over one store: mar2 follows it
"""

import secrets
from pathlib import Path
from typing import Any

from router.demo.topology import World
from router.demo.traffic import Program
from tests.e2e.domain import Domain, Node, RouterProcess, told

CMD, CMD2 = "cmd", "cmd2"
NUMBERS = {CMD: 9, CMD2: 8}


class CmdScene(World):
    """The world of the demo, and a host more on the core for each CMD."""

    def _build_hosts(self) -> None:
        super()._build_hosts()
        for name in NUMBERS:
            host = self.lab.host(name)
            for key in ("accept_ra", "accept_dad"):
                host.sysctl(f"net/ipv6/conf/default/{key}", 0)

    def _connect_routers(self, mtu: int) -> None:
        super()._connect_routers(mtu)
        for name, number in NUMBERS.items():
            self._join_core(number, name, mtu)


class CmdProcess(RouterProcess):
    """One `python -m router --cmd`."""

    role = "cmd"


class CmdDomain(Domain):
    """Three MARs and their CMD, or two of these: the second one has every other MAR."""

    def __init__(
        self, directory: Path, *, mode: str = "proxy", mars: int = 3, cmds: int = 1, store: str | None = None
    ) -> None:
        """store: URL of that of the CMDs; None: a file."""
        self.directory = directory
        names = list(NUMBERS)[:cmds]
        self.world = CmdScene(mars=mars)
        self._programs: list[Program] = []
        numbers = range(1, mars + 1)
        follows = {number: names[(number - 1) % cmds] for number in numbers}
        everybody = (*numbers, *(NUMBERS[name] for name in names))
        keys = {frozenset((a, b)): secrets.token_hex(16) for a in everybody for b in everybody if a < b}
        about = {"cmd": {"mode": mode}}
        self.routers = {
            f"mar{number}": RouterProcess(
                self.world[f"mar{number}"],
                number,
                directory,
                follower(follows[number], told(number, keys, directory, about), mode),
            )
            for number in numbers
        }
        for name in names:
            tables = told(NUMBERS[name], keys, directory, about | ({"store": {"url": store}} if store else {}))
            kept = {key: tables[key] for key in ("router", "underlay", "control", "cmd", "store")}
            mine = {f"mar{number}" for number, cmd in follows.items() if cmd == name}
            peers = [peer for peer in tables["peer"] if peer["name"] in mine]
            self.routers[name] = CmdProcess(self.world[name], NUMBERS[name], directory, kept | {"peer": peers})
        self.nodes = {name: Node(self.world, name) for name in self.world.nodes}


def follower(cmd: str, tables: dict[str, Any], mode: str) -> dict[str, Any]:
    """A MAR that follows this CMD; it knows the other MARs only where they answer each other."""
    called = f"mar{NUMBERS[cmd]}"
    others = {f"mar{number}" for number in NUMBERS.values()}
    peers = [
        peer | ({"name": cmd} if peer["name"] == called else {})
        for peer in tables["peer"]
        if peer["name"] == called or (mode == "locator" and peer["name"] not in others)
    ]
    return {name: table for name, table in tables.items() if name != "store"} | {
        "peer": peers,
        "cmd": {"peer": cmd, "mode": mode},
    }
