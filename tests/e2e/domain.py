"""A domain of real routers on the world of the demo: `python -m router --mar` processes, started, asked, ended."""

import os
import re
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime
from ipaddress import IPv6Address, IPv6Network
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from router.control.client import Client
from router.demo.lab import PROJECT, Host
from router.demo.toml import toml
from router.demo.topology import CN_ADDRESS, Handover, World, node_link_layer, pool, underlay_address
from router.demo.traffic import NewConnection, Program, new_connection
from router.errors import RouterError
from router.links.rtnetlink_constants import AddressFlag
from tests.eventually import eventually

ROUTER_ADDRESS = IPv6Address("fe80::200:5eff:fe00:5213")  # RFC 6543 1
NODES = ("mn1@example.net", "mn2@example.net")
START_WITHIN = 20.0  # s
UNUSABLE = AddressFlag.TENTATIVE | AddressFlag.DADFAILED

Settings = Mapping[str, Mapping[str, Any]]  # table -> key -> value, laid over what every router here is told
Row = dict[str, Any]


class RouterProcess:
    """One `python -m router --mar` and what it says."""

    role = "mar"

    def __init__(self, host: Host, number: int, directory: Path, tables: Mapping[str, Any]) -> None:
        self.name = f"mar{number}"
        self.host = host
        self.address = underlay_address(number)
        self.pool = pool(number)
        self.tables = tables
        self.config = directory / f"{self.name}.toml"
        self.config.write_text(toml(tables))
        self.client = Client(directory / f"{self.name}.sock")
        self.process: subprocess.Popen[bytes]
        self.log_file = directory / f"{self.name}.log"

    def start(self) -> Self:
        """Start it, again if need be; what an earlier run said is kept aside."""
        self.begin()
        self.wait_until_up()
        return self

    def begin(self) -> None:
        """Start it and do not wait."""
        self.log_file.write_bytes(b"")
        with self.log_file.open("ab") as log:  # a process that takes over writes behind the one before
            arguments = (f"--{self.role}", "--config", str(self.config), "-v")
            self.process = self.host.spawn_module("router", *arguments, stdout=log, stderr=log)

    def wait_until_up(self) -> None:
        """Wait until it answers."""

        def answers() -> bool:
            assert self.process.poll() is None, f"{self.name} ended ({self.process.returncode}): {self.log()}"
            try:
                return bool(self.client.show("config"))
            except RouterError:
                return False

        eventually(answers, START_WITHIN, f"{self.name} answers")

    def stop(self, number: int = signal.SIGTERM, within: float = 5.0) -> int:
        """Signal it, and give its exit code."""
        self.process.send_signal(number)
        return self.process.wait(within)

    def log(self) -> str:
        """All it has said since it was started."""
        return self.log_file.read_text()

    def lines(self, event: str) -> list[str]:
        """Its lines about one kind of event."""
        return [line for line in self.log().splitlines() if re.search(rf" INFO {event}( |$)", line)]

    def said_at(self, event: str) -> float:
        """Wait until it says so, and tell when it did so last; CLOCK_MONOTONIC, s, to a millisecond."""
        day, clock = self.heard(event)[-1].split()[:2]
        said = datetime.fromisoformat(f"{day}T{clock.replace(',', '.')}").timestamp()
        return time.monotonic() - (time.time() - said)

    def heard(self, event: str, *words: str, times: int = 1) -> list[str]:
        """Wait for such lines that have all these words."""

        def found() -> list[str]:
            lines = [line for line in self.lines(event) if all(word in line for word in words)]
            return lines if len(lines) >= times else []

        return eventually(found, 8.0, f"{self.name} says {event} {words} {times} times")

    def show(self, what: str) -> list[Row]:
        """Rows of `show`."""
        rows: list[Row] = self.client.show(what)["rows"]
        return rows

    def counters(self) -> dict[str, int]:
        """All that are not 0."""
        return {row["counter"]: row["value"] for row in self.show("counters") if row["value"]}

    def counter(self, name: str) -> int:
        """One of them."""
        return self.counters().get(name, 0)

    def paths(self) -> dict[IPv6Network, tuple[str, str | None]]:
        """Prefix -> path and peer, of all it forwards."""
        return {IPv6Network(row["prefix"]): (row["path"], row["peer"]) for row in self.show("bindings")}

    def nodes(self) -> list[str]:
        """Who is attached."""
        return [row["node"] for row in self.show("nodes")]

    def memory(self) -> int:
        """Octets of it that are resident."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")


def usable_at_once(host: Host, link: str = "radio0") -> None:
    """No duplicate address detection: without probes alone the kernel would still wait for up to a second."""
    host.sysctl(f"net/ipv6/conf/{link}/accept_dad", 0)


class Node:
    """A mobile host and what its kernel made of what it heard."""

    def __init__(self, world: World, name: str) -> None:
        self.name = name
        self.host = world[name]
        self._world = world

    def no_duplicate_detection(self) -> Self:
        """Addresses are usable at once; where a test is not about how a stock host comes to them."""
        usable_at_once(self.host)
        return self

    def attach(self, mar: str) -> Handover:
        """Go there, break before make. When that was."""
        return self._world.attach(mar, self.name)

    def leave(self) -> None:
        """Go nowhere."""
        self._world.detach(self.name)

    def addresses(self, of: IPv6Network) -> dict[IPv6Address, AddressFlag]:
        """Usable addresses of a prefix."""
        found = self.host.netlink.addresses(self.host.link("radio0").index)
        return {item.address: item.flags for item in found if item.address in of and not item.flags & UNUSABLE}

    def address(self, of: IPv6Network, timeout: float = 8.0) -> IPv6Address:
        """Its address of a prefix, once it may be used."""
        return next(iter(eventually(lambda: self.addresses(of), timeout, f"{self.name} has an address of {of}")))

    def deprecated(self, of: IPv6Network) -> bool:
        """Whether all its addresses of a prefix are for old connections only."""
        flags = self.addresses(of).values()
        return bool(flags) and all(flag & AddressFlag.DEPRECATED for flag in flags)

    def default_gateways(self) -> list[IPv6Address | None]:
        """Where its default routes lead."""
        return [route.gateway for route in self.host.netlink.routes() if route.destination.prefixlen == 0 and route.oif]

    def connect(self) -> NewConnection:
        """A short connection to the correspondent; the kernel chooses the source."""
        return new_connection(self.host, str(CN_ADDRESS))

    def begins_from(self, address: IPv6Address) -> None:
        """Wait until new connections come from that address; all of them are well.

        With each advertisement all addresses are preferred until a worker of its kernel has run, which waits for one
        network lock.
        """

        def chosen() -> str:
            connection = self.connect()
            assert connection.error == ""
            return connection.source

        eventually(lambda: chosen() == str(address), 5.0, f"new connections come from {address}")


class Domain:
    """World and routers; nothing of either is left when it is closed."""

    def __init__(
        self, directory: Path, *, mars: int = 2, nodes: int = 1, mtu: int = 1500, settings: Settings | None = None
    ) -> None:
        self.directory = directory
        self.world = World(mars=mars, nodes=nodes, mtu=mtu)
        self._programs: list[Program] = []
        self._closed = False
        numbers = range(1, mars + 1)
        keys = {frozenset((a, b)): secrets.token_hex(16) for a in numbers for b in numbers if a < b}
        self.routers = {
            f"mar{number}": RouterProcess(
                self.world[f"mar{number}"], number, directory, told(number, keys, directory, settings or {})
            )
            for number in numbers
        }
        self.nodes = {name: Node(self.world, name) for name in self.world.nodes}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self.check_for_tracebacks()
            else:
                self.show_logs()
        finally:
            self.close()

    def __getitem__(self, name: str) -> RouterProcess:
        return self.routers[name]

    @property
    def mn(self) -> Node:
        """The first node."""
        return self.nodes["mn"]

    def start(self) -> Self:
        """Start every router."""
        for router in self.routers.values():
            router.begin()
        for router in self.routers.values():
            router.wait_until_up()
        return self

    def close(self) -> None:
        """End everything."""
        self._closed = True
        self.world.close()
        for program in self._programs:
            program.close()

    def check_for_tracebacks(self) -> None:
        """No router may have met anything it was not written for."""
        for router in self.routers.values():
            if hasattr(router, "process"):
                log = router.log()
                assert "Traceback" not in log, f"{router.name}: {log}"
                assert "ERROR" not in log, f"{router.name}: {log}"

    def show_logs(self) -> None:
        """Print what routers said and kernels dropped, for pytest to show with a failure; nothing after the end."""
        if self._closed:
            return
        for router in self.routers.values():
            if hasattr(router, "process"):
                with suppress(RouterError):
                    print(f"--- {router.name}: {router.counters()}")
                print(router.log())
        for name, node in self.nodes.items():
            print(f"--- {name}: {node.host.netlink.addresses(node.host.link('radio0').index)}")
        for name, host in self.world.lab.hosts.items():
            print(f"--- what the kernel of {name} dropped: {kernel_drops(host)}")

    def program(self, host: str, *arguments: str, module: str = "tests.e2e.traffic") -> Program:
        """Start a program of the demo on a host."""
        self._programs.append(Program(self.world[host], *arguments, module=module))
        return self._programs[-1]

    def capture(self, host: str, interface: str) -> tuple[Program, Path]:
        """Begin to record an interface; stop() the program before reading the file."""
        file = self.directory / f"{host}-{interface}.pcapng"
        program = self.program(host, interface, str(file), module="router.demo.capture")
        program.wait_for("ready")
        return program, file

    def download(self, node: str = "mn", rate: float = 20.0) -> Program:
        """A verified download of the node that runs until it is stopped; rate: Mbit/s."""
        program = self.program(node, "tcp-get", str(CN_ADDRESS), "--rate", f"{rate:g}")
        program.wait_for("connected")
        return program

    def downloading(self) -> tuple[Node, IPv6Address, Program]:
        """The first node comes to mar1 and begins a download: the node, its address there, the download."""
        self.serve()
        node = self.mn.no_duplicate_detection()
        node.attach("mar1")
        return node, node.address(self["mar1"].pool), self.download()

    def serve(self) -> None:
        """Let the correspondent answer."""
        self.program("cn", "tcp-serve").wait_for("ready")


def kernel_drops(host: Host) -> dict[str, int]:
    """Packets that a full or closed queue of this kernel cost: device and direction, or counter of a protocol."""
    with host.inside():
        devices = Path("/proc/thread-self/net/dev").read_text().splitlines()[2:]
        protocols = Path("/proc/thread-self/net/snmp6").read_text().splitlines()
    found = {}
    for device, *numbers in (line.replace(":", " ").split() for line in devices):
        found[f"{device} received"], found[f"{device} sent"] = int(numbers[3]), int(numbers[11])
    for name, number in (line.split() for line in protocols):
        if name in ("Udp6RcvbufErrors", "Ip6InDiscards", "Ip6OutDiscards", "Ip6OutNoRoutes"):
            found[name] = int(number)
    return {what: count for what, count in found.items() if count}


def flowing(program: Program, more: int = 200_000, timeout: float = 15.0) -> None:
    """Wait until a transfer has moved so many octets more than it had when it next reports: none of them before now."""
    past = len(program.reports("progress"))

    def moved() -> bool:
        octets = [int(each.get("octets", each.get("sent", 0))) for each in program.reports("progress")[past:]]
        return bool(octets) and octets[-1] >= octets[0] + more

    eventually(moved, timeout, f"{program.arguments} goes on")


def finished(program: Program) -> dict[str, Any]:
    """Stop a transfer, which must have been well: its last report."""
    done = program.stop()
    assert (done["error"], done["corrupt"]) == ("", 0), done
    return done


def told(number: int, keys: Mapping[frozenset[int], str], directory: Path, settings: Settings) -> dict[str, Any]:
    """The configuration of a router, as tables."""
    tables: dict[str, Any] = {
        "router": {"name": f"mar{number}", "state_dir": str(directory / f"mar{number}")},
        "underlay": {"address": str(underlay_address(number))},
        "access": {"interfaces": ["acc0"]},
        "anchor": {"prefixes": [str(pool(number))]},
        "store": {"url": f"sqlite://{directory / 'sessions.db'}"},
        "control": {"socket": str(directory / f"mar{number}.sock")},
        "node": [
            {"id": node, "link_layer": node_link_layer(at).hex(":")} for at, node in enumerate(NODES)
        ],
        "peer": [
            {
                "name": f"mar{other}",
                "address": str(underlay_address(other)),
                "key": f"hex:{keys[frozenset((number, other))]}",
            }
            for other in sorted({each for pair in keys for each in pair} - {number})
        ],
    }
    for table, values in settings.items():
        tables[table] = {**tables.get(table, {}), **values}
    return tables


def run_router(
    host: Host, *arguments: str, before: Callable[[], None] | None = None, timeout: float = 15.0
) -> subprocess.CompletedProcess[str]:
    """Run `python -m router` on a host to its end. before: runs in the new process, ahead of the program."""
    command = [sys.executable, "-m", "router", *arguments]
    with host.inside():
        process = subprocess.Popen(
            command,
            cwd=PROJECT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=before,
        )
    try:
        output, errors = process.communicate(timeout=timeout)
    finally:
        process.kill()
        process.wait()
    return subprocess.CompletedProcess(command, process.returncode, output, errors)
