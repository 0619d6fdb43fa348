"""The wire on which tunnels are measured: two hosts, one cable, and the addresses of both networks.

    near                                                     far
    fd00:1::1  overlay: what the programs speak to     fd00:2::1
        |                                                  |
     near0   (or no tunnel at all)                        far0
        |                                                  |
    2001:db8:1::1, 192.0.2.1    wire0 === wire0   2001:db8:1::2, 192.0.2.2     underlay, MTU 1500

Every contender gets a wire of its own, so that nothing of one is left for the next.
"""

from __future__ import annotations

import fcntl
import socket
import struct
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from ipaddress import IPv4Interface, IPv6Address, IPv6Interface
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from router.demo.lab import Host, Lab, connect
from router.errors import RouterError
from router.links.netlink import NetlinkError, Route
from router.links.rtnetlink_constants import RouteProtocol

CABLE = "wire0"
LINK_MTU = 1500  # octets, of the cable
OVERLAY_MTU = 1400  # octets, what every contender carries: the largest that fits all of them, and the same for all
DEVICE_TIMEOUT = 15.0  # s until a tunnel program has made its device
SIOCSIFADDR, SIOCSIFNETMASK = 0x8916, 0x891C  # linux/sockios.h
INTERFACE_REQUEST = struct.Struct("=16sHxx4s16x")  # struct ifreq with a sockaddr_in


class BenchError(RouterError):
    """A contender could not be started or measured: what, and the last words of the program."""


@dataclass(slots=True)
class End:
    """One of the two hosts."""

    host: Host
    underlay: IPv6Interface
    underlay4: IPv4Interface
    overlay: IPv6Interface
    place: Path  # for its files
    running: list[tuple[subprocess.Popen[bytes], Path]] = field(default_factory=list)  # the tunnel, with its logs

    @property
    def device(self) -> str:
        """Name of its tunnel device; the two differ, as some programs keep files by that name."""
        return f"{self.host.name}0"

    def start(self, *arguments: str | Path) -> None:
        """Start a program of the tunnel; what it says goes to a log."""
        with self._log(Path(arguments[0]).name) as log:
            words = [str(each) for each in arguments]
            process = self.host.spawn(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
            self.running.append((process, Path(log.name)))

    def start_module(self, module: str, *arguments: str) -> None:
        """Start `python -m module arguments` as a program of the tunnel."""
        with self._log(module) as log:
            process = self.host.spawn_module(module, *arguments, stdout=log, stderr=log)
            self.running.append((process, Path(log.name)))

    def _log(self, program: str) -> IO[bytes]:
        return (self.place / f"{program}-{self.host.name}.log").open("wb")

    def run(self, *arguments: str | Path, octets: bytes = b"", timeout: float = 10.0) -> str:
        """Run a program on this host to its end; what it printed. timeout: s. Raises BenchError."""
        words = [str(each) for each in arguments]
        pipe = subprocess.PIPE
        process = self.host.spawn(words, stdin=pipe, stdout=pipe, stderr=pipe)
        try:
            output, errors = process.communicate(octets, timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise BenchError(f"{' '.join(words)}: not done after {timeout:g} s") from None
        if process.returncode:
            raise BenchError(f"{' '.join(words)}: {last_words(errors or output) or f'status {process.returncode}'}")
        return output.decode(errors="replace")

    def run_until_done(self, *arguments: str | Path, timeout: float = 5.0) -> None:
        """Run a program again until it is content: what it speaks to may have just started. timeout: s."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                self.run(*arguments)
            except BenchError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
            else:
                return

    def check(self) -> None:
        """Raise BenchError if a program of the tunnel has ended."""
        for process, log in self.running:
            if process.poll() is not None:
                raise BenchError(f"{log.stem}: {last_words(log.read_bytes()) or 'has ended'}")

    def has_device(self) -> bool:
        """Its tunnel program has made the device."""
        with suppress(NetlinkError):
            return bool(self.host.link(self.device).index)
        return False

    def route_to(self, peer: End, index: int, gateway: IPv6Address | None = None) -> None:
        """Send what is for the overlay of the peer through the link with that index, from our overlay address."""
        destination, source = peer.overlay.network, self.overlay.ip
        self.host.netlink.replace_route(
            Route(
                destination=destination,
                oif=index,
                gateway=gateway,
                prefsrc=source,
                protocol=RouteProtocol.STATIC,
            )
        )

    def address4(self, name: str, address: IPv4Interface) -> None:
        """Give a link an IPv4 address, by the old ioctl: our netlink speaks IPv6."""
        with self.host.inside(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
            for number, what in ((SIOCSIFADDR, address.ip), (SIOCSIFNETMASK, address.netmask)):
                fcntl.ioctl(asked, number, INTERFACE_REQUEST.pack(name.encode(), socket.AF_INET, what.packed))


class Wire:
    """The two hosts, connected. place: a directory for the files of the contenders."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self._opened = ExitStack()
        lab = self._opened.enter_context(Lab())
        try:
            self.near, self.far = (
                End(
                    host=lab.host(name),
                    underlay=IPv6Interface(f"2001:db8:1::{number}/64"),
                    underlay4=IPv4Interface(f"192.0.2.{number}/30"),
                    overlay=IPv6Interface(f"fd00:{number}::1/64"),
                    place=place,
                )
                for number, name in enumerate(("near", "far"), 1)
            )
            self._connect()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End all programs and let the hosts go."""
        self._opened.close()

    def at_end(self, undo: Callable[[], None]) -> None:
        """Have this called when the wire is closed, before the programs end."""
        self._opened.callback(undo)

    @property
    def ends(self) -> tuple[tuple[End, End], tuple[End, End]]:
        """Each end, and its peer."""
        return (self.near, self.far), (self.far, self.near)

    def _connect(self) -> None:
        for end, _ in self.ends:
            end.host.sysctl("net/ipv6/conf/default/accept_dad", 0)
        connect(self.near.host, CABLE, self.far.host, CABLE, mtu=LINK_MTU)
        for end, _ in self.ends:
            end.host.address(CABLE, str(end.underlay))
            end.address4(CABLE, end.underlay4)

    def wait_for_devices(self) -> None:
        """Return when both tunnel devices are there. Raises BenchError."""
        deadline = time.monotonic() + DEVICE_TIMEOUT
        for end, _ in self.ends:
            while not end.has_device():
                end.check()
                if time.monotonic() > deadline:
                    raise BenchError(f"no device {end.device} after {DEVICE_TIMEOUT:g} s")
                time.sleep(0.01)

    def join_overlay(self) -> None:
        """Wait for the tunnel devices, switch them on, and send what is for the other overlay into them."""
        self.wait_for_devices()
        for end, peer in self.ends:
            index = end.host.link(end.device).index
            end.host.netlink.set_mtu(index, OVERLAY_MTU)
            end.host.netlink.set_up(index)
            end.host.address(end.device, str(end.overlay))
            end.route_to(peer, index)


def last_words(output: bytes) -> str:
    """The last line of what a program said."""
    lines = [line for line in output.decode(errors="replace").splitlines() if line.strip()]
    return lines[-1].strip() if lines else ""
