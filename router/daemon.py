"""Birth, life and farewell of one router process."""

import asyncio
import fcntl
import gc
import hashlib
import json
import logging
import os
import secrets
import shlex
import signal
import socket
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv6Address, IPv6Network
from pathlib import Path
from typing import Protocol

import engine
from engine import EngineError, PortDown, Tables
from router.config import Config
from router.control.server import ControlServer
from router.control_sockets import SignalingSocket
from router.driver import Driver
from router.errors import AlreadyRunning, ExitCode, InUse, NoInterface, NoRights, RouterError
from router.links.attach import GROUP_BIT, AccessInterface, Identities
from router.links.netlink import Netlink, NetlinkError
from router.links.rtnetlink import AddressChanged, LinkChanged, NeighborChanged
from router.links.rtnetlink import Event as KernelEvent
from router.network import Network
from router.packets import OVERHEAD, Packets
from router.places import program
from router.rehearsal import rehearse
from router.sessions import Sessions
from router.store import StoreError, open_store
from signaling.events import DatagramReceived, Event, LinkAttached, SessionsFound, SessionsRestored
from signaling.roles.mar import Mar
from signaling.settings import Authentication, Settings

log = logging.getLogger("openmar")

LEAST_MTU = 1280  # octets, RFC 8200 5
FAREWELL_WITHIN = 2.0  # s for what has to be written before the end
EXPIRE_EVERY = 600.0  # s between looks for sessions that ended in the store
LOCALHOST = IPv6Address("::1")
THREAD_SWITCH = 0.0002  # s: the store's thread may keep the loop waiting no longer than this


@dataclass(frozen=True, slots=True, kw_only=True)
class Underlay:
    """Where tunnels and signalling of this router begin."""

    address: IPv6Address
    interface: str | None  # the one that leads to the others
    mtu: int  # octets
    why: str  # for the first lines a user reads


class Closeable(Protocol):
    """Something that is held until the end."""

    def close(self) -> None:
        """Let go."""


class Router:
    """A running MAR. `start` opens everything or nothing; `stop` takes everything back."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.underlay: Underlay
        self.mar: Mar
        self.driver: Driver
        self.network: Network
        self.tables = Tables()
        self.packets = Packets(config, self.tables)
        self.links: dict[str, AccessInterface] = {}
        self.stopped = asyncio.Event()
        self.failure: RouterError | None = None
        self._identities = Identities(config.nodes, config.realm)
        self._locks: list[Closeable] = []

    # --- birth ---

    async def start(self) -> None:
        """Open everything. Raises RouterError or EngineError with nothing left open."""
        try:
            await self._start()
        except BaseException:
            await self._close()
            raise

    async def _start(self) -> None:
        config, loop = self.config, asyncio.get_running_loop()
        self._lock()
        self.netlink = Netlink()
        self.underlay = find_underlay(config, self.netlink)
        self._check_access()
        mtu = max(LEAST_MTU, self.underlay.mtu - OVERHEAD[config.encapsulation])
        self.config = config = replace(config, prefixes=config.prefixes or (own_pool(config.state_dir),))
        self.mar = Mar(settings(config, self.underlay.address, mtu))
        self.signaling = SignalingSocket(self.underlay.address, config.transport)
        self._open_ports(mtu)
        self.network = Network(
            self.netlink,
            self.tables,
            address=self.underlay.address,
            encapsulation=config.encapsulation,
            table=config.table,
            journal=config.state_dir / "undo.json",
        )
        for found in self.network.clean():
            log.warning("removed what an earlier run left behind: %s", found)
        self.network.use_tun(config.tun, mtu)
        self.network.claim(config.prefixes)
        if config.interfaces:
            self.network.forward(self.underlay.interface)
        self.store = open_store(config.store_url)
        for name in config.interfaces:
            self.links[name] = AccessInterface(name, self._identities, self._on_event)
        self.driver = Driver(
            self.mar, network=self.network, sockets=self.signaling, links=self.links, sessions=self._sessions
        )
        rehearse()
        await self._restore()
        self.control = ControlServer(self)
        await self.control.start(config.socket_path)
        self._serve(loop)

    def _lock(self) -> None:
        """One router for each state directory, and one for each network namespace."""
        directory = self.config.state_dir
        try:
            directory.mkdir(parents=True, exist_ok=True)
            lock = (directory / "lock").open("a+b", buffering=0)  # nothing waits to be written when it is closed
        except OSError as error:
            cure = "choose another with --state-dir"
            raise NoRights(f"state directory {directory}: {error.strerror}: {cure}") from None
        self._locks.append(lock)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            pid = lock.read().decode().strip() or "unknown"
            raise AlreadyRunning(
                f"state directory {directory}: another router (pid {pid}) uses it: stop that, or choose another "
                "with --state-dir"
            ) from None
        try:
            lock.truncate(0)
            lock.write(str(os.getpid()).encode())
        except OSError as error:
            raise NoRights(f"state directory {directory}: {error.strerror}: make room, or choose another") from None
        namespace = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._locks.append(namespace)
        try:
            namespace.bind("\0openmar")  # abstract: bound to the network namespace, gone with the process
        except OSError:
            raise AlreadyRunning(
                "another router runs in this network namespace: stop it first (one kernel has one set of routes)"
            ) from None

    def _check_access(self) -> None:
        for name in self.config.interfaces:
            try:
                link = self.netlink.link(name)
            except NetlinkError:
                here = ", ".join(sorted(link.name for link in self.netlink.links() if link.name != "lo"))
                raise NoInterface(
                    f"access interface {name}: no such interface: choose one of: {here or 'none there is'}"
                ) from None
            if not any(link.link_layer):
                raise NoInterface(
                    f"access interface {name}: it has no link-layer address, and nodes are known by theirs"
                )
            if link.name == self.underlay.interface:
                raise NoInterface(
                    f"access interface {name}: it is the way to the other routers: nodes need a link of their own"
                )

    def _open_ports(self, mtu: int) -> None:
        name = self.config.tun
        if any(link.name == name for link in self.netlink.links()):
            raise InUse(f"TUN {name}: a device of this name exists: remove it, or choose another: [router] tun")
        self.packets.open(self.underlay.address, mtu=mtu)

    def _sessions(self, driver: Driver) -> Sessions:
        return Sessions(
            self.store,
            on_found=lambda node, sessions: driver.feed(SessionsFound(node=node, sessions=sessions)),
            on_health=lambda reachable: driver.journalist.tell("store", {"reachable": reachable}),
        )

    async def _restore(self) -> None:
        """Take up what was lent before; without knowing that, a prefix could be lent twice. Raises StoreError."""
        sessions = await self.store.anchored(self.underlay.address)
        self.driver.feed(SessionsRestored(sessions=tuple(sessions)))

    def _serve(self, loop: asyncio.AbstractEventLoop) -> None:
        self.packets.serve(loop, self._on_down)
        self.signaling.serve(loop, self._on_datagram)
        self.netlink.watch(loop, self._on_kernel, self._resync)
        for link in self.links.values():
            self._open_access(link)
        self.driver.sessions.watch(self.mar.access.attached)
        self._expirer = loop.create_task(self._expire())

    # --- life ---

    def _on_down(self, error: PortDown) -> None:
        self.failure = InUse(f"{error}: the device was taken away from this router")
        self.stopped.set()

    def _on_event(self, event: Event) -> None:
        if isinstance(event, LinkAttached) and event.node not in self.mar.access.attached:
            event = replace(event, sessions=self.driver.sessions.peek(event.node))
        self.driver.feed(event)

    def _on_datagram(self, octets: bytes, source: IPv6Address, port: int) -> None:
        self.driver.feed(
            DatagramReceived(octets=octets, source=source, destination=self.underlay.address, port=port)
        )

    def _on_kernel(self, event: KernelEvent) -> None:
        match event:
            case LinkChanged(link=link) if link.name in self.links:
                self._access_changed(self.links[link.name], event)
            case LinkChanged(link=link, gone=False) if link.name == self.config.tun and link.up:
                self.network.refresh_tun()
            case NeighborChanged(index=index):
                for access in self.links.values():
                    if access.index == index:
                        access.neighbor_changed(event)
            case AddressChanged(address=address, gone=True) if address == self.underlay.address:
                log.warning("underlay address %s was removed: tunnels are down until it is back", address)
            case _:
                pass

    def _access_changed(self, access: AccessInterface, event: LinkChanged) -> None:
        try:
            self._follow(access, event)
        except RouterError as error:  # it may have gone again already
            log.warning("access interface %s: %s", access.name, error)

    def _follow(self, access: AccessInterface, event: LinkChanged) -> None:
        if event.gone:
            access.changed(event)
            access.close(asyncio.get_running_loop())
            access.index = 0
        elif access.index != event.link.index:  # it came back as another device
            access.close(asyncio.get_running_loop())
            self._open_access(access)
        else:
            if event.link.up and not access.up:
                self._reclaim(access)
            access.changed(event)

    def _open_access(self, access: AccessInterface) -> None:
        link = self.network.add_access(access.name, fixed_link_layer=self.config.fixed_link_layer)
        access.open(asyncio.get_running_loop(), link)
        self.network.refresh(access.name)
        access.changed(LinkChanged(link=link, gone=False))

    def _reclaim(self, access: AccessInterface) -> None:
        """Switching an interface off made the kernel forget its addresses and routes."""
        self.network.add_access(access.name, fixed_link_layer=self.config.fixed_link_layer)
        self.network.refresh(access.name)

    def _resync(self) -> None:
        """The kernel had more events than we could read: look at the links themselves."""
        links = {link.name: link for link in self.netlink.links()}
        for name, access in self.links.items():
            if name in links:
                self._access_changed(access, LinkChanged(link=links[name], gone=False))

    async def _expire(self) -> None:
        while True:
            try:
                await self.store.expire(time.time())
            except StoreError as error:
                log.warning("%s", error)
            await asyncio.sleep(EXPIRE_EVERY)

    # --- what the operator asks ---

    def attach(self, interface: str, link_layer: bytes, node: str | None, link_local: IPv6Address | None) -> str:
        """A node is here, says the operator. Returns its identifier. Raises RouterError."""
        if interface not in self.links:
            known = ", ".join(self.links) or "none is configured"
            raise RouterError(f"{interface} is no access interface of this router: {known}")
        if interface not in self.mar.access.links:
            raise RouterError(f"{interface} has no carrier: nobody can be attached there")
        if link_layer[0] & GROUP_BIT or not any(link_layer):
            raise RouterError(f"{link_layer.hex(':')} is the address of no node: give that of one interface")
        node = node or self._identities.of(link_layer)
        event = LinkAttached(
            node=node, interface=interface, link_layer=link_layer, link_local=link_local, trigger="command"
        )
        self._on_event(event)
        return node

    # --- farewell ---

    async def stop(self) -> None:
        """De-register, deprecate, and take back everything in the kernel."""
        self.driver.stop()
        self.driver.perform(self.mar.drain(time.monotonic()))
        await self.driver.sessions.close(FAREWELL_WITHIN)
        await self._close()

    async def _close(self) -> None:
        """Close what is open, whatever that is."""
        loop = asyncio.get_running_loop()
        if hasattr(self, "_expirer"):
            self._expirer.cancel()
        if hasattr(self, "driver"):
            self.driver.stop()
            await self.driver.sessions.close(0.0)
        if hasattr(self, "control"):
            await self.control.stop()
        for link in self.links.values():
            link.close(loop)
        if hasattr(self, "network"):
            self.network.close()
        if hasattr(self, "signaling"):
            self.signaling.close(loop)
        self.packets.close(loop)
        if hasattr(self, "store"):
            await self.store.close()
        if hasattr(self, "netlink"):
            self.netlink.close()
        for lock in self._locks:
            lock.close()


def find_underlay(config: Config, netlink: Netlink) -> Underlay:
    """The address tunnels begin at: as configured, else the one the default route prefers. Raises NoInterface."""
    route = netlink.default_route()
    address, why = config.address, "as configured"
    if address is None:
        address, why = (route.prefsrc, "of the default route") if route and route.prefsrc else (None, "")
    if address is None:
        address, why = LOCALHOST, "there is no IPv6 default route: only this machine can be reached; see --underlay"
    holder = next((item for item in netlink.addresses() if item.address == address), None)
    if holder is None:
        here = ", ".join(str(item.address) for item in netlink.addresses() if not item.address.is_link_local)
        raise NoInterface(f"underlay address {address}: not an address of this machine: choose one of: {here}")
    link = netlink.link(holder.index)
    if link.name == "lo" and route and route.oif:  # an address of the whole machine: the default route leads out
        link = netlink.link(route.oif)
    return Underlay(address=address, interface=link.name, mtu=min(link.mtu, 65535), why=why)


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


def settings(config: Config, address: IPv6Address, tunnel_mtu: int) -> Settings:
    """The configuration in the words of the role."""
    return Settings(
        address=address,
        tunnel_mtu=tunnel_mtu,
        peers=config.peers,
        pools=config.prefixes,
        authentication=config.authentication,
        transport=config.transport,
        valid_lifetime=config.valid_lifetime,
        preferred_lifetime=config.preferred_lifetime,
        on_link=config.on_link,
        probe_every=config.probe_interval,
        binding_lifetime=config.binding_lifetime,
        guard=config.guard,
        timestamp_window=config.timestamp_window,
    )


def greeting(router: Router) -> str:
    """The few lines a user reads when the router is up."""
    config, underlay = router.config, router.underlay
    links = ", ".join(config.interfaces)
    where = f"--socket {shlex.quote(str(config.socket_path))}"
    lines = [
        f"openmar MAR {config.name!r} is up: {config.encapsulation.value} tunnels from {underlay.address} "
        f"({underlay.why})",
        f"  prefixes  {', '.join(map(str, config.prefixes))}: a /64 for each node that comes",
        f"  access    {links or 'none yet: give it the link of your nodes with --access IF'}",
        f"  peers     {', '.join(peer.name for peer in config.peers) or 'none yet: --peer NAME=ADDRESS,KEY'}",
        f"  store     {config.store_url}: the same for all routers of a domain",
        f"  ask it    {program()} show nodes {where}    (or prefixes, bindings, tunnels, peers, counters, config)",
        f"  watch it  {program()} monitor {where}",
    ]
    if config.authentication is Authentication.NONE:
        lines.append("  WARNING   authentication is off: anybody who can send to this router can move prefixes")
    if not router.packets.compiled:
        lines.append("  WARNING   the packet engine is not compiled: this is the slow model (make build)")
    return "\n".join(lines)


async def run(config: Config) -> ExitCode:
    """Run a router until it is told to stop. Raises RouterError, EngineError."""
    sys.setswitchinterval(THREAD_SWITCH)
    router = Router(config)
    loop = asyncio.get_running_loop()
    signals: list[int] = []

    def on_signal(number: int) -> None:
        if signals:
            os._exit(ExitCode.FAILED)  # asked twice: leave at once; the next start cleans
        signals.append(number)
        router.stopped.set()

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):  # the last one: its terminal was closed
        loop.add_signal_handler(number, on_signal, number)
    await router.start()
    try:
        print(greeting(router), flush=True)
        # what is there now stays to the end: no collection need look at it again in the middle of a handover
        gc.collect()
        gc.freeze()
        await router.stopped.wait()
        log.info("stopping")
    finally:
        await router.stop()
    if router.failure is not None:
        raise router.failure
    return ExitCode.DONE


def explain(error: EngineError) -> RouterError:
    """An error of the engine as one of the program, with its exit code."""
    kinds: Mapping[type[EngineError], type[RouterError]] = {
        engine.DeviceMissing: NoRights,
        engine.NoRights: NoRights,
        engine.AddressInUse: InUse,
        engine.NameInUse: InUse,
        engine.AddressNotLocal: NoInterface,
    }
    return kinds.get(type(error), RouterError)(str(error))

