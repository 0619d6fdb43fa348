"""The stage of the demo: three real routers on the world of `topology`, traffic that runs all the time, captures."""

import json
import os
import queue
import secrets
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from ipaddress import IPv6Address
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from router.control.client import Client
from router.demo.capture import Packet, read_packets
from router.demo.lab import LabError, mount
from router.demo.topology import CN_ADDRESS, World, node_link_layer, pool, underlay_address
from router.demo.traffic import NewConnection, Program, Report, new_connection
from router.errors import NotRunning, RouterError
from router.links.rtnetlink_constants import AddressFlag

NODE_ID = "mn1@example.net"
START_WITHIN = 15.0  # s for a router to answer
ADDRESS_WITHIN = 8.0  # s for the node to form an address; duplicate address detection takes 1 to 2 of them
DOWNLOAD_RATE, UPLOAD_RATE = 8.0, 1.0  # Mbit/s
SNAP = 128  # octets: headers of the outer and the inner packet


@dataclass(slots=True)
class Stay:
    """One attachment. Times: CLOCK_REALTIME, s."""

    mar: str
    broken: float
    made: float
    down: float  # the node's link was off: what it sends later, it sends on the new one
    connection: NewConnection | None = None


@dataclass(slots=True)
class Routers:
    """The router processes, their control clients, and what they say as it happens."""

    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    clients: dict[str, Client] = field(default_factory=dict)
    events: "queue.SimpleQueue[tuple[str, dict[str, Any]]]" = field(default_factory=queue.SimpleQueue)


class Stage:
    """World, routers, traffic and captures; leaving it ends all of them."""

    def __init__(self, directory: Path, *, encapsulation: str = "udp", mars: int = 3) -> None:
        self.directory = directory
        self.world = World(mars=mars)
        self.routers = Routers()
        self.stays: list[Stay] = []
        self._encapsulation = encapsulation
        self._programs: dict[str, Program] = {}
        self.address: IPv6Address | None = None  # the first one the node formed: what the long flows use

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.world.close()

    # --- routers ---

    def start_routers(self) -> None:
        """Start a `python -m router --mar` on each MAR host. Raises RouterError with what it said, if one does not."""
        keys: dict[frozenset[int], str] = {}
        numbers = range(1, len(self.world.mars) + 1)
        for one in numbers:
            for other in numbers:
                keys.setdefault(frozenset((one, other)), secrets.token_hex(16))
        for number, name in enumerate(self.world.mars, 1):
            file = self.directory / f"{name}.toml"
            file.write_text(configuration(number, len(numbers), keys, self.directory, self._encapsulation))
            with (self.directory / f"{name}.log").open("wb") as log:
                self.routers.processes[name] = self.world[name].spawn_module(
                    "router", "--mar", "--config", str(file), stdout=subprocess.DEVNULL, stderr=log
                )
            self.routers.clients[name] = Client(self.directory / f"{name}.sock")
        for name in self.world.mars:
            self._wait_for(name)
            threading.Thread(target=self._listen, args=(name,), daemon=True).start()

    def _wait_for(self, name: str) -> None:
        deadline = time.monotonic() + START_WITHIN
        while True:
            try:
                self.routers.clients[name].show("config")
                return
            except NotRunning:
                ended = self.routers.processes[name].poll() is not None
                if ended or time.monotonic() > deadline:
                    said = (self.directory / f"{name}.log").read_text().strip().splitlines()
                    why = said[-1] if said else "it said nothing"
                    raise RouterError(f"router {name} did not start: {why}") from None
                time.sleep(0.02)

    def _listen(self, name: str) -> None:
        with suppress(RouterError, OSError):
            for event in self.routers.clients[name].monitor():
                self.routers.events.put((name, event))

    # --- traffic ---

    def start_captures(self, *, whole: bool) -> None:
        """Record the node's link and, in the core, what crosses the underlay: whole packets, or their headers."""
        self._start("link", self.world["air"], "node0", str(self.directory / "link.pcapng"), "--snap", str(SNAP))
        size = () if whole else ("--snap", str(SNAP))
        self._start("underlay", self.world["core"], "any", str(self.underlay_file), *size)

    @property
    def underlay_file(self) -> Path:
        """The capture of the core."""
        return self.directory / "underlay.pcapng"

    def _start(self, name: str, host: Any, *arguments: str) -> None:
        program = Program(host, *arguments, module="router.demo.capture")
        program.wait_for("ready")
        self._programs[name] = program

    def start_traffic(self, address: IPv6Address) -> None:
        """Begin what runs all the time: a download, an upload, and a datagram every millisecond to the node."""
        cn, mn = self.world["cn"], self.world["mn"]
        self.address = address
        self._program("server", cn, "tcp-serve").wait_for("ready")
        self._program("download", mn, "tcp-get", str(CN_ADDRESS), "--rate", str(DOWNLOAD_RATE)).wait_for("connected")
        self._program("upload", mn, "tcp-put", str(CN_ADDRESS), "--rate", str(UPLOAD_RATE)).wait_for("connected")
        self._program("sink", mn, "udp-sink").wait_for("ready")
        self._program("probe", cn, "udp-send", str(self.address)).wait_for("ready")

    def _program(self, name: str, host: Any, *arguments: str) -> Program:
        self._programs[name] = Program(host, *arguments)
        return self._programs[name]

    def progress(self, name: str) -> int:
        """Octets a stream has carried so far."""
        reports = self._programs[name].reports("progress")
        return int(reports[-1]["octets"]) if reports else 0

    def stop_traffic(self) -> dict[str, Report]:
        """End everything and return the last report of each program."""
        order = ("probe", "upload", "download", "sink", "server", "link", "underlay")
        return {name: self._programs[name].stop() for name in order}

    def arrivals(self) -> list[tuple[int, float, float]]:
        """(number, sent, arrived) of every datagram so far."""
        reports = self._programs["sink"].reports("interval")
        return [(number, sent, arrived) for report in reports for number, sent, arrived in report["arrivals"]]

    def captured(self, name: str) -> list[Packet]:
        """What a capture holds."""
        return read_packets(self.directory / f"{name}.pcapng")

    # --- the node ---

    def move(self, mar: str) -> Stay:
        """Take the node to another router, break before make."""
        difference = time.time() - time.monotonic()
        handover = self.world.attach(mar)
        broken, made, down = (at + difference for at in (handover.broken, handover.made, handover.down))
        self.stays.append(Stay(mar, broken, made, down))
        return self.stays[-1]

    def addresses(self) -> list[IPv6Address]:
        """Usable global addresses of the node."""
        mn = self.world["mn"]
        found = mn.netlink.addresses(mn.link("radio0").index)
        return [
            item.address
            for item in found
            if not item.address.is_link_local and not item.flags & (AddressFlag.TENTATIVE | AddressFlag.DADFAILED)
        ]

    def wait_for_address(self, mar: str, meanwhile: Callable[[], None]) -> IPv6Address:
        """The node's address from that router's pool, once it may be used. Raises RouterError."""
        wanted = pool(self.world.mars.index(mar) + 1)
        deadline = time.monotonic() + ADDRESS_WITHIN
        while True:
            for address in self.addresses():
                if address in wanted:
                    return address
            if time.monotonic() > deadline:
                raise RouterError(f"the node formed no address of {wanted} at {mar} within {ADDRESS_WITHIN:g} s")
            meanwhile()
            time.sleep(0.02)

    def connect(self) -> NewConnection:
        """Open a short connection from the node; its kernel chooses the source address."""
        return new_connection(self.world["mn"], str(CN_ADDRESS))

    def show(self, mar: str, what: str) -> list[dict[str, Any]]:
        """Rows of `show what` of a router."""
        rows: list[dict[str, Any]] = self.routers.clients[mar].show(what)["rows"]
        return rows


def configuration(
    number: int, mars: int, keys: dict[frozenset[int], str], directory: Path, encapsulation: str
) -> str:
    """The TOML of one router."""
    peers = "".join(
        f'\n[[peer]]\nname = "mar{other}"\naddress = "{underlay_address(other)}"\n'
        f'key = "hex:{keys[frozenset((number, other))]}"\n'
        for other in range(1, mars + 1)
        if other != number
    )
    return f"""\
[router]
name = "mar{number}"
state_dir = {json.dumps(str(directory / f"mar{number}"))}

[underlay]
address = "{underlay_address(number)}"
encapsulation = "{encapsulation}"

[access]
interfaces = ["acc0"]

[anchor]
prefixes = ["{pool(number)}"]

[store]
url = {json.dumps(f"sqlite://{directory / 'sessions.db'}")}

[control]
socket = {json.dumps(str(directory / f"mar{number}.sock"))}

[[node]]
id = "{NODE_ID}"
link_layer = "{node_link_layer(0).hex(":")}"
{peers}"""


@contextmanager
def scratch() -> Iterator[Path]:
    """A directory that is gone afterwards: in a file system of the lab's own where that can be had."""
    place = Path("/mnt")
    try:
        mount("tmpfs", str(place), "tmpfs", 0)
    except (OSError, LabError):
        directory = Path(tempfile.mkdtemp(prefix="openmar-"))
        try:
            yield directory
        finally:
            shutil.rmtree(directory, ignore_errors=True)
    else:
        os.chmod(place, 0o700)
        yield place
