"""The stage of a demo: real routers on a Scene, programs that make and record traffic, hosts that move.

`mar_stage`, `proxy_stage` and `branch_stage` say which routers, and what they are told.
"""

import os
import queue
import secrets
import shutil
import subprocess
import tempfile
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from ipaddress import IPv6Address, IPv6Network
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from router.control.client import Client
from router.demo.capture import Packet, read_packets
from router.demo.figures import Move
from router.demo.lab import LabError, mount
from router.demo.topology import CN_ADDRESS, Scene
from router.demo.traffic import NewConnection, Program, Report, new_connection
from router.errors import NotRunning, RouterError
from router.links.rtnetlink_constants import AddressFlag

START_WITHIN = 15.0  # s for a router to answer
ADDRESS_WITHIN = 8.0  # s for a node to form an address; duplicate address detection takes 1 to 2 of them
DOWNLOAD_RATE, UPLOAD_RATE = 8.0, 1.0  # Mbit/s
USELESS = AddressFlag.TENTATIVE | AddressFlag.DADFAILED  # addresses that a host does not send from
SNAP = 128  # octets: headers of the outer and the inner packet

S = TypeVar("S", bound=Scene)


@dataclass(slots=True)
class Stay:
    """One attachment. Times: CLOCK_REALTIME, s."""

    router: str
    broken: float
    made: float
    down: float  # the node's link was off: what it sends later, it sends on the new one
    connection: NewConnection | None = None


@dataclass(frozen=True, slots=True)
class Told:
    """What a router process is started with."""

    role: str  # the flag, without dashes
    text: str  # TOML


@dataclass(slots=True)
class Routers:
    """The router processes, their control clients, and what they say as it happens."""

    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    clients: dict[str, Client] = field(default_factory=dict)
    events: "queue.SimpleQueue[tuple[str, dict[str, Any]]]" = field(default_factory=queue.SimpleQueue)


class Stage(ABC, Generic[S]):
    """Scene, routers, traffic and captures; leaving it ends all of them."""

    def __init__(self, directory: Path, world: S) -> None:
        self.directory = directory
        self.world = world
        self.routers = Routers()
        self.stays: list[Stay] = []
        self.programs: dict[str, Program] = {}
        self.address: IPv6Address | None = None  # the first one the node formed: what the long flows use

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.world.close()
        for program in self.programs.values():
            program.close()

    # --- routers ---

    @abstractmethod
    def told(self) -> dict[str, Told]:
        """What each router is told, by its name."""

    def start_routers(self) -> None:
        """Start a `python -m router` on each host of one. Raises RouterError with what it said, if one does not."""
        told = self.told()
        for name, about in told.items():
            self.tell(name, about.text)
            self._begin(name, about.role)
        for name in told:
            self._wait_for(name)

    def start_again(self, name: str) -> None:
        """Start a router that has ended, as its configuration is now. Raises RouterError, as start_routers."""
        self._begin(name, self.told()[name].role)
        self._wait_for(name)

    def kill(self, name: str) -> None:
        """End a router without a farewell."""
        self.routers.processes[name].kill()
        self.routers.processes[name].wait()

    def _begin(self, name: str, role: str) -> None:
        with self.log_file(name).open("ab") as log:
            self.routers.processes[name] = self.world[name].spawn_module(
                "router", f"--{role}", "--config", str(self.config_file(name)), stdout=subprocess.DEVNULL, stderr=log
            )
        self.routers.clients[name] = Client(self.socket_file(name))

    def tell(self, name: str, text: str) -> None:
        """Write the configuration of a router; one that runs is not told to read it."""
        self.config_file(name).write_text(text)

    def config_file(self, name: str) -> Path:
        """Where the configuration of a router is."""
        return self.directory / f"{name}.toml"

    def socket_file(self, name: str) -> Path:
        """Where a router answers."""
        return self.directory / f"{name}.sock"

    def log_file(self, name: str) -> Path:
        """What a router says."""
        return self.directory / f"{name}.log"

    def show(self, router: str, what: str) -> list[dict[str, Any]]:
        """Rows of `show what` of a router."""
        rows: list[dict[str, Any]] = self.routers.clients[router].show(what)["rows"]
        return rows

    def news(self) -> list[tuple[str, dict[str, Any]]]:
        """What routers have done since the last time, in its order: name and event."""
        found: list[tuple[str, dict[str, Any]]] = []
        with suppress(queue.Empty):
            while True:
                found.append(self.routers.events.get_nowait())
        return sorted(found, key=lambda item: float(item[1]["time"]))

    def _wait_for(self, name: str) -> None:
        deadline = time.monotonic() + START_WITHIN
        while True:
            try:
                self.routers.clients[name].show("config")
                break
            except NotRunning:
                ended = self.routers.processes[name].poll() is not None
                if ended or time.monotonic() > deadline:
                    said = self.log_file(name).read_text().strip().splitlines()
                    why = said[-1] if said else "it said nothing"
                    raise RouterError(f"router {name} did not start: {why}") from None
                time.sleep(0.02)
        threading.Thread(target=self._listen, args=(name,), daemon=True).start()

    def _listen(self, name: str) -> None:
        with suppress(RouterError, OSError):
            for event in self.routers.clients[name].monitor():
                self.routers.events.put((name, event))

    # --- programs ---

    def program(self, name: str, host: str, *arguments: str, module: str = "") -> Program:
        """Start a program of `traffic`, or another module, under a name."""
        about = {"module": module} if module else {}
        self.programs[name] = Program(self.world[host], *arguments, **about)
        return self.programs[name]

    def start_captures(self, *, whole: bool) -> None:
        """Record the node's link and, in the core, what crosses the underlay: whole packets, or their headers."""
        self.capture("link", "air", "node0", snap=SNAP)
        self.capture("underlay", "core", "any", snap=0 if whole else SNAP)

    def capture(self, name: str, host: str, interface: str, *, snap: int) -> None:
        """Record an interface. snap: octets of each packet; 0: all."""
        size = ("--snap", str(snap)) if snap else ()
        file = str(self.capture_file(name))
        self.program(name, host, interface, file, *size, module="router.demo.capture").wait_for("ready")

    def capture_file(self, name: str) -> Path:
        """Where a capture goes."""
        return self.directory / f"{name}.pcapng"

    def captured(self, name: str) -> list[Packet]:
        """What a capture holds."""
        return read_packets(self.capture_file(name))

    def start_traffic(self, address: IPv6Address) -> None:
        """Begin what runs all the time: a download, an upload, and a datagram every millisecond to the node."""
        self.address = address
        self.program("server", "cn", "tcp-serve").wait_for("ready")
        for name, kind, rate in (("download", "tcp-get", DOWNLOAD_RATE), ("upload", "tcp-put", UPLOAD_RATE)):
            self.program(name, "mn", kind, str(CN_ADDRESS), "--rate", str(rate)).wait_for("connected")
        self.program("sink", "mn", "udp-sink").wait_for("ready")
        self.program("probe", "cn", "udp-send", str(self.address)).wait_for("ready")

    def progress(self, name: str) -> int:
        """Octets a stream has carried so far."""
        reports = self.programs[name].reports("progress")
        return int(reports[-1]["octets"]) if reports else 0

    def stop_traffic(self) -> dict[str, Report]:
        """End everything and return the last report of each program."""
        order = ("probe", "upload", "download", "sink", "server", "link", "underlay")
        return {name: self.programs[name].stop() for name in order}

    def arrivals(self) -> list[tuple[int, float, float]]:
        """(number, sent, arrived) of every datagram so far."""
        reports = self.programs["sink"].reports("interval")
        return [(number, sent, arrived) for report in reports for number, sent, arrived in report["arrivals"]]

    # --- nodes ---

    def move(self, router: str) -> Stay:
        """Take the node to another router, break before make."""
        difference = max(time.time() - time.monotonic() for _ in range(3))  # what comes in between makes it less
        handover = self.world.attach(router)
        broken, made, down = (at + difference for at in (handover.broken, handover.made, handover.down))
        self.stays.append(Stay(router, broken, made, down))
        return self.stays[-1]

    def moves(self, end: float) -> list[Move]:
        """What the node did between its first stay and the end (CLOCK_REALTIME, s)."""
        ends = [stay.broken for stay in self.stays[1:]] + [end]
        return [
            Move(
                origin=before.router,
                target=stay.router,
                broken=stay.broken,
                down=stay.down,
                made=stay.made,
                until=until,
            )
            for before, stay, until in zip(self.stays, self.stays[1:], ends[1:], strict=False)
        ]

    def addresses(self, node: str = "mn", *, without: AddressFlag = USELESS) -> list[IPv6Address]:
        """Global addresses of a node, but for those with one of these flags."""
        host = self.world[node]
        found = host.netlink.addresses(host.link("radio0").index)
        return [
            item.address
            for item in found
            if isinstance(item.address, IPv6Address)
            and not item.address.is_link_local
            and not item.flags & without
        ]

    def wait_for_address(
        self, pool: IPv6Network, node: str = "mn", *, meanwhile: Callable[[], None] | None = None
    ) -> IPv6Address:
        """A node's address from that pool, once it may be used. Raises RouterError."""
        deadline = time.monotonic() + ADDRESS_WITHIN
        while True:
            for address in self.addresses(node):
                if address in pool:
                    return address
            if time.monotonic() > deadline:
                at = self.world.where(node)
                raise RouterError(f"{node} formed no address of {pool} at {at} within {ADDRESS_WITHIN:g} s")
            if meanwhile is not None:
                meanwhile()
            time.sleep(0.02)

    def connect(self) -> NewConnection:
        """Open a short connection from the node; its kernel chooses the source address."""
        return new_connection(self.world["mn"], str(CN_ADDRESS))


# --- configuration ---

def basics(name: str, directory: Path, address: IPv6Address, encapsulation: str) -> dict[str, Any]:
    """Tables that every router has. address: of its underlay."""
    return {
        "router": {"name": name, "state_dir": str(directory / name)},
        "underlay": {"address": str(address), "encapsulation": encapsulation},
        "control": {"socket": str(directory / f"{name}.sock")},
    }


def new_key() -> str:
    """A key for two routers, as a configuration has it."""
    return f"hex:{secrets.token_hex(16)}"


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
