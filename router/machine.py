"""What a router holds of its machine, whatever its role: locks, netlink, sockets, ports, the kernel's network.

`look_around` finds out and changes nothing; `open` opens everything. Each thing that was opened says how it is closed,
so `close` takes back exactly what there is, in the reverse order, wherever opening stopped.
"""

import asyncio
import fcntl
import hashlib
import json
import logging
import os
import secrets
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, IPv6Network
from pathlib import Path
from typing import IO, NoReturn

from engine import EngineError, Port, PortDown, Tables
from router.coherence import router_in_a_pool
from router.config import Config
from router.control_sockets import SignalingSockets
from router.errors import AlreadyRunning, ConfigError, InUse, NoInterface, NoRights, RouterError
from router.links.netlink import Netlink
from router.network import Network
from router.packets import OVERHEAD, Packets
from router.places import RoleName
from router.source_guard import SourceGuard

log = logging.getLogger("openmar")

LEAST_MTU = 1280  # octets, RFC 8200 5
TRANSIENCE = 1.0  # s that a prefix is heard by its former way too: as long as packets wait for a node that left
LOCALHOST, NOWHERE = IPv6Address("::1"), IPv6Address(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Underlay:
    """Where tunnels and signalling of this router begin."""

    address: IPv6Address | IPv4Address
    interface: str | None  # the one that leads to the others
    mtu: int  # octets
    why: str  # for the first lines a user reads
    ipv4_address: IPv4Address | None = None  # beside an IPv6 one

    @property
    def addresses(self) -> tuple[IPv6Address | IPv4Address, ...]:
        """All of them."""
        return tuple(dict.fromkeys(filter(None, (self.address, self.ipv4_address))))


class Machine:
    """Everything below the role. Raises RouterError or EngineError where it cannot be had."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.tables = Tables(transience=TRANSIENCE)
        self.packets = Packets(config, self.tables)
        self.netlink: Netlink
        self.underlay: Underlay
        self.network: Network
        self.signaling: SignalingSockets
        self._closing = ExitStack()
        self._locks: tuple[IO[bytes], socket.socket]

    @property
    def tunnel_mtu(self) -> int:
        """Octets of the largest inner packet, as of the start."""
        return self.tunnel_mtu_on(self.underlay.mtu)

    def tunnel_mtu_on(self, mtu: int) -> int:
        """The same, if the underlay had this MTU."""
        return max(LEAST_MTU, mtu - OVERHEAD[self.config.encapsulation])

    def look_around(self) -> None:
        """Be the only router here, and find the underlay."""
        self._lock()
        self.look_on()

    def look_on(self) -> None:
        """Find the underlay, beside a router that runs."""
        self.netlink = Netlink()
        self._closing.callback(self.netlink.close)
        self.underlay = find_underlay(self.config, self.netlink)

    def open(self) -> None:
        """Sockets, ports and the TUN; what an earlier run left behind is removed."""
        loop = asyncio.get_running_loop()
        self.signaling = SignalingSockets(self.underlay.addresses, self.config.transport)
        self._closing.callback(self.signaling.close, loop)
        self._closing.callback(self.packets.close, loop)
        self._open_ports()
        self.network = self._network()
        self._closing.callback(self.network.close)
        for found in self.network.clean():
            log.warning("removed what an earlier run left behind: %s", found)
        self.network.use_tun(self.config.tun, self.tunnel_mtu)

    # --- from one process to the next ---

    @property
    def locks(self) -> tuple[IO[bytes], socket.socket]:
        """What says that this is the only router here, as long as somebody has it open."""
        return self._locks

    def adopt(
        self,
        locks: tuple[IO[bytes], socket.socket],
        signaling: Mapping[IPv6Address | IPv4Address, Sequence[socket.socket]],
        tuns: Sequence[Port],
        sockets: Mapping[IPv6Address | IPv4Address, list[tuple[Port, ...]]],
    ) -> None:
        """In place of look_around's locks and of open: another process has all of it, and has set up the kernel.

        Until `own` is called everything in the kernel is that process's: nothing is taken back.
        """
        loop = asyncio.get_running_loop()
        self._locks = locks
        for each in locks:
            self._closing.callback(each.close)
        self.signaling = SignalingSockets(self.underlay.addresses, self.config.transport, signaling)
        self._closing.callback(self.signaling.close, loop)
        self._closing.callback(self.packets.close, loop)
        self.packets.adopt(tuns, sockets, mtu=self.tunnel_mtu)
        self.network = self._network()
        self.network.adopt_tun(self.config.tun)

    def own(self) -> None:
        """What is in the kernel is ours from now on."""
        lock, _ = self._locks
        with suppress(OSError):  # it is for people
            lock.seek(0)
            lock.truncate(0)
            lock.write(str(os.getpid()).encode())
        self._closing.callback(self.network.close)

    def let_go(self) -> None:
        """All of it is another process's now: close descriptors, and leave the kernel as it is."""
        self._closing.pop_all()
        self.netlink.close()

    def _network(self) -> Network:
        config = self.config
        return Network(
            self.netlink,
            self.tables,
            address=next((each for each in self.underlay.addresses if isinstance(each, IPv6Address)), NOWHERE),
            ipv4_address=next((each for each in self.underlay.addresses if isinstance(each, IPv4Address)), None),
            encapsulation=config.encapsulation,
            table=config.table,
            journal=config.state_dir / "undo.json",
            aggregated=config.role is RoleName.LMA,
            guard=self._guard() if config.role is RoleName.MAG else None,
            buffer=config.hold if config.hold.octets else None,
            later=asyncio.get_running_loop().call_later,
        )

    def serve(self, on_down: Callable[[PortDown], None]) -> None:
        """Packets move from now on, each behind the message that tells of its tunnel."""
        self.packets.serve(asyncio.get_running_loop(), on_down, hear_first=self.signaling.read)

    def add_local(self, address: IPv6Address | IPv4Address) -> None:
        """Tunnels and signalling may begin at this address too. Raises RouterError."""
        try:
            self.packets.add_local(address)
        except EngineError as error:
            raise RouterError(str(error)) from None
        self.signaling.add(address)

    def remove_local(self, address: IPv6Address | IPv4Address) -> None:
        """None begins there any more; the address of this router stays."""
        if address not in self.underlay.addresses:
            self.signaling.remove(address)
            self.packets.remove_local(address)

    def close(self) -> None:
        """Take back what was opened."""
        self._closing.close()

    def _guard(self) -> SourceGuard:
        config = self.config
        of_sites = {name for site in config.sites for name in (site.interface, site.delegated_interface)}
        links = (name for name in config.interfaces if name not in of_sites)  # no node is known on those of sites
        return SourceGuard(config.table, links, local_routing=config.gateway.local_routing)

    def _open_ports(self) -> None:
        name = self.config.tun
        if any(link.name == name for link in self.netlink.links()):
            raise InUse(f"TUN {name}: a device of this name exists: remove it, or choose another: [router] tun")
        self.packets.open(self.underlay.addresses, mtu=self.tunnel_mtu)

    def _lock(self) -> None:
        """One router for each state directory, and one for each network namespace. Who is refused leaves nothing."""
        directory = self.config.state_dir
        namespace = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._closing.callback(namespace.close)
        try:
            namespace.bind("\0openmar")  # abstract: bound to the network namespace, gone with the process
        except OSError:
            self._refuse_second()
        try:
            directory.mkdir(parents=True, exist_ok=True)
            lock = (directory / "lock").open("a+b", buffering=0)  # nothing waits to be written when it is closed
        except OSError as error:
            cure = "choose another with --state-dir"
            raise NoRights(f"state directory {directory}: {error.strerror}: {cure}") from None
        self._closing.callback(lock.close)
        self._hold(lock)
        try:
            lock.truncate(0)
            lock.write(str(os.getpid()).encode())
        except OSError as error:
            raise NoRights(f"state directory {directory}: {error.strerror}: make room, or choose another") from None
        self._locks = lock, namespace

    def _hold(self, lock: IO[bytes]) -> None:
        """Raises AlreadyRunning if another router has it."""
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            pid = lock.read().decode().strip() or "unknown"
            raise AlreadyRunning(
                f"state directory {self.config.state_dir}: another router (pid {pid}) uses it: stop that, or choose "
                "another with --state-dir"
            ) from None

    def _refuse_second(self) -> NoReturn:
        """Where the router that runs here uses this state directory, too, its lock says more of it."""
        with suppress(OSError), (self.config.state_dir / "lock").open("rb") as lock:
            self._hold(lock)
        raise AlreadyRunning(
            "another router runs in this network namespace: stop it first (one kernel has one set of routes)"
        )


def find_underlay(config: Config, netlink: Netlink) -> Underlay:
    """The address tunnels begin at: as configured, else the one the default route prefers. Raises NoInterface."""
    route = netlink.default_route()
    address, why = config.address or config.ipv4_address, "as configured"
    if address is None and route and isinstance(route.prefsrc, IPv6Address):
        address, why = route.prefsrc, "of the default route"
    if address is None:
        address, why = LOCALHOST, "there is no IPv6 default route: only this machine can be reached; see --underlay"
    pools = (*config.prefixes, *config.anchoring.delegated_prefixes)
    if in_pool := router_in_a_pool(pools, address, f"where tunnels begin ({why})"):  # config.py knows what it was told
        raise ConfigError(f"[anchor]: {in_pool}, or another address with --underlay")
    there = netlink.addresses() if address.version == 6 else netlink.addresses(family=socket.AF_INET)
    holder = next((item for item in there if item.address == address), None)
    if holder is None:
        here = ", ".join(str(item.address) for item in there if not item.address.is_link_local)
        raise NoInterface(f"underlay address {address}: not an address of this machine: choose one of: {here}")
    link = netlink.link(holder.index)
    if link.name == "lo" and route and route.oif:  # an address of the whole machine: the default route leads out
        link = netlink.link(route.oif)
    mtu = min(link.mtu, 65535)
    return Underlay(address=address, interface=link.name, mtu=mtu, why=why, ipv4_address=config.ipv4_address)


def own_pool(state_dir: Path) -> IPv6Network:
    """A unique local /48 of this router (RFC 4193), made once and kept. Raises RouterError."""
    file = state_dir / "pool.json"
    try:
        return IPv6Network(json.loads(file.read_text())["prefix"])
    except FileNotFoundError:
        pass
    except (ValueError, KeyError, TypeError) as error:
        raise RouterError(f"{file}: not a pool ({error}): remove it, or give --prefixes") from None
    except OSError as error:
        raise NoRights(f"{file}: {error.strerror}: make it readable, or give --prefixes") from None
    seed = secrets.token_bytes(16) + Path("/proc/sys/kernel/random/boot_id").read_bytes()
    global_id = hashlib.sha256(seed).digest()[:5]  # RFC 4193 3.2.2: 40 pseudo-random bits
    pool = IPv6Network((b"\xfd" + global_id + bytes(10), 48))
    temporary = file.with_suffix(".new")
    try:
        temporary.write_text(json.dumps({"prefix": str(pool)}))
        temporary.replace(file)
    except OSError as error:
        raise NoRights(f"{file}: {error.strerror}: make it writable, or give --prefixes") from None
    return pool
