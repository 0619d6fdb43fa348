"""Birth, life and farewell of one router process, the same for every role.

    Machine    what is opened below: netlink, sockets, ports, the kernel's network
    Part       what the role adds: its pools, links and stores (mar_part.py, lma_part.py, mag_part.py)
    Driver     the role at work
    Control    whoever asks it: views, orders, captures

Asked to reload (SIGHUP, or the verb), it reads its configuration again: see `control/orders.py`.
"""

import asyncio
import gc
import logging
import os
import shlex
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

import engine
from engine import EngineError, PortDown, Tables
from router.access_links import AccessLinks
from router.config import Config
from router.control import orders
from router.control.claim import claim
from router.control.commands import VIEWS
from router.driver import Driver
from router.errors import ExitCode, InUse, NoInterface, NoRights, RouterError
from router.links.rtnetlink import AddressChanged, LinkChanged
from router.links.rtnetlink import Event as KernelEvent
from router.machine import Machine, Underlay
from router.network import Network
from router.packets import Packets
from router.part import Part
from router.places import RoleName, program
from router.tunnel_mtu import TunnelMtu
from signaling.events import DatagramReceived
from signaling.settings import Address, Authentication

log = logging.getLogger("openmar")

THREAD_SWITCH = 0.0002  # s: a store's thread may keep the loop waiting no longer than this
PARTS = {
    RoleName.MAR: ("router.mar_part", "MarPart"),
    RoleName.LMA: ("router.lma_part", "LmaPart"),
    RoleName.MAG: ("router.mag_part", "MagPart"),
}


def make_part(config: Config, machine: Machine) -> Part:
    """The part of the role that is configured; nothing of the others is loaded."""
    module, name = PARTS[config.role]
    part: Part = getattr(import_module(module), name)(config, machine)
    return part


class Router:
    """A running router. `start` opens everything or nothing; `stop` takes everything back."""

    def __init__(self, config: Config, part: Callable[[Config, Machine], Part] = make_part) -> None:
        self.config = config  # what is in force: `reload` replaces it
        self.driver: Driver
        self.stopped = asyncio.Event()
        self.failure: RouterError | None = None
        self._machine = Machine(config)
        self.part = part(config, self._machine)
        self._claimed: socket.socket | None = None  # the control socket
        self._control: Any = None  # the ControlServer, once it is loaded
        self._tunnel_mtu: TunnelMtu | None = None  # where there are nodes to hear of it

    # --- what those who ask it look at ---

    @property
    def role(self) -> Any:
        """The Mar, Lma or Mag: their views know which."""
        return self.part.role

    @property
    def access(self) -> AccessLinks | None:
        """Its access links; None: its role has none."""
        return self.part.access

    @property
    def underlay(self) -> Underlay:
        """Where its tunnels begin."""
        return self._machine.underlay

    @property
    def tables(self) -> Tables:
        """Of the engine."""
        return self._machine.tables

    @property
    def packets(self) -> Packets:
        """The packet plane."""
        return self._machine.packets

    @property
    def network(self) -> Network:
        """The kernel's side."""
        return self._machine.network

    # --- birth ---

    async def start(self) -> None:
        """Open everything. Raises RouterError or EngineError with nothing left open."""
        try:
            await self._start()
        except BaseException:
            await self._close()
            raise

    async def _start(self) -> None:
        self._machine.look_around()
        self.config = self.part.prepare(self.config)
        self._machine.open()
        self.driver = self.part.open()
        self._claimed = claim(self.config.socket_path)
        await self.part.restore()
        self._serve()
        # peers are answered from now on; whoever asks at the control socket can wait until its server is loaded
        server = await asyncio.get_running_loop().run_in_executor(None, import_module, "router.control.server")
        self._control = server.ControlServer(self)
        await self._control.start(self.config.socket_path, self._claimed)

    def _serve(self) -> None:
        loop, machine = asyncio.get_running_loop(), self._machine
        machine.serve(self._on_down)
        machine.signaling.serve(loop, self._on_datagram)
        machine.netlink.watch(loop, self._on_kernel, self.part.resync)
        self.part.serve()
        if self.config.interfaces:
            self._tunnel_mtu = TunnelMtu(machine, self.driver.feed)
            self._tunnel_mtu.serve(loop)

    # --- life ---

    def _on_down(self, error: PortDown) -> None:
        self.failure = InUse(f"{error}: the device was taken away from this router")
        self.stopped.set()

    def _on_datagram(
        self, octets: bytes, source: Address, port: int, destination: Address, beside_data: bool = False
    ) -> None:
        self.driver.feed(
            DatagramReceived(
                octets=octets, source=source, destination=destination, port=port, beside_data=beside_data
            )
        )

    def _on_kernel(self, event: KernelEvent) -> None:
        match event:
            case LinkChanged(link=link, gone=False) if link.name == self.config.tun and link.up:
                self.network.refresh_tun()
            case AddressChanged(address=address, gone=True) if address == self.underlay.address:
                log.warning("underlay address %s was removed: tunnels are down until it is back", address)
            case _:
                pass
        self.part.kernel_changed(event)
        if self._tunnel_mtu is not None:
            self._tunnel_mtu.kernel_changed(event)

    # --- farewell ---

    async def stop(self) -> None:
        """De-register, deprecate, and take back everything in the kernel."""
        self.driver.stop()
        self.driver.perform(self.role.drain(time.monotonic()))
        await self.part.farewell()
        await self._close()

    async def _close(self) -> None:
        """Close what is open, whatever that is."""
        if self._tunnel_mtu is not None:
            self._tunnel_mtu.close()
        if hasattr(self, "driver"):
            self.driver.stop()
        if self._control is not None:
            await self._control.stop()
        elif self._claimed is not None:
            self._claimed.close()
            self.config.socket_path.unlink(missing_ok=True)
        await self.part.close()
        self._machine.close()


def greeting(router: Router) -> str:
    """The few lines a user reads when the router is up."""
    config, underlay = router.config, router.underlay
    where = f"--socket {shlex.quote(str(config.socket_path))}"
    first, *others = VIEWS[config.role]
    lines = [
        f"openmar {config.role.value.upper()} {config.name!r} is up: {config.encapsulation.value} tunnels from "
        f"{underlay.address} ({underlay.why})",
        *(f"  {line}" for line in router.part.greeting()),
        f"  ask it    {program()} show {first} {where}    (or {', '.join(others)})",
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
    _listen_to_signals(router)
    await router.start()
    try:
        _listen_for_reload(router)
        take_precedence(config.realtime)
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


def take_precedence(priority: int) -> None:
    """Run this thread, and none that it starts, before what is not as urgent. 0: stay as we are. Raises NoRights."""
    if priority:
        try:
            policy = os.SCHED_FIFO | os.SCHED_RESET_ON_FORK
            os.sched_setscheduler(0, policy, os.sched_param(priority))
        except PermissionError:
            raise NoRights(
                f"[router] realtime = {priority}: operation not permitted: run with CAP_SYS_NICE, or leave it out"
            ) from None


def _listen_to_signals(router: Router) -> None:
    """SIGTERM and SIGINT end it; SIGHUP too where there is nothing to reload: its terminal was closed."""
    loop = asyncio.get_running_loop()
    signals: list[int] = []

    def end(number: int) -> None:
        if signals:
            os._exit(ExitCode.FAILED)  # asked twice: leave at once; the next start cleans
        signals.append(number)
        router.stopped.set()

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, end, number)


def _listen_for_reload(router: Router) -> None:
    def reload() -> None:
        try:
            log.warning("%s", orders.reload(router))
        except RouterError as error:
            log.error("%s", error)

    if orders.can_reload(router):
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reload)


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
