"""Birth, life and farewell of one router process, the same for every role.

    Machine    what is opened below: netlink, sockets, ports, the kernel's network
    Part       what the role adds: its pools, links and stores (mar_part.py, lma_part.py, mag_part.py)
    Driver     the role at work
    Control    whoever asks it: views, orders, captures

Asked to reload (SIGHUP, or the verb), it reads its configuration again: see `control/orders.py`.
"""

import asyncio
import logging
import os
import shlex
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

import engine
from engine import EngineError, PortDown, Tables
from router.access_links import AccessLinks
from router.config import Config
from router.control.claim import claim
from router.driver import Driver
from router.errors import ExitCode, InUse, NoInterface, NoRights, RouterError
from router.garbage import little_at_a_time
from router.links.rtnetlink import AddressChanged, LinkChanged
from router.links.rtnetlink import Event as KernelEvent
from router.machine import Machine, Underlay
from router.network import Network
from router.packets import Packets
from router.part import HeritablePart, Part
from router.places import RoleName, program
from router.tunnel_mtu import TunnelMtu
from signaling.events import DatagramReceived
from signaling.settings import Address, Authentication

if TYPE_CHECKING:  # loaded when packets move
    from router.control.server import ControlServer

log = logging.getLogger("openmar")

THREAD_SWITCH = 0.0002  # s: a store's thread may keep the loop waiting no longer than this
PARTS = {
    RoleName.MAR: ("router.mar_part", "MarPart"),
    RoleName.LMA: ("router.lma_part", "LmaPart"),
    RoleName.MAG: ("router.mag_part", "MagPart"),
    RoleName.CMD: ("router.cmd_part", "CmdPart"),
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
        self._without_underlay = False  # its address was removed
        self.failure: RouterError | None = None
        self._machine = Machine(config)
        self.part = part(config, self._machine)
        self._control: ControlServer | None = None
        self.listener: socket.socket  # of the control socket
        self._owns_socket = False  # its file is ours to take away
        self._hang_up: Callable[[], None] | None = None  # to the process that has taken over
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
    def heritable(self) -> HeritablePart:
        """The part, of a role that `takeover` knows."""
        return cast(HeritablePart, self.part)

    @property
    def machine(self) -> Machine:
        """What it holds of its machine."""
        return self._machine

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
        self.driver.on_retired = self.stopped.set
        self.listener = claim(self.config.socket_path)
        self._owns_socket = True
        await self.part.restore()
        self._serve()
        await self._open_control()

    def _serve(self) -> None:
        self._machine.serve(self.on_down)
        self._listen()
        self.part.serve()
        self._follow_mtu()

    def _listen(self) -> None:
        loop, machine = asyncio.get_running_loop(), self._machine
        machine.signaling.serve(loop, self._on_datagram)
        machine.netlink.watch(loop, self._on_kernel, self.part.resync)

    def _follow_mtu(self, told: int | None = None) -> None:
        """told: octets, what nodes have heard last; None: what tunnels take as of the start."""
        if self.config.interfaces:
            self._tunnel_mtu = TunnelMtu(self._machine, self.driver.feed)
            self._tunnel_mtu.mtu = told or self._tunnel_mtu.mtu
            self._tunnel_mtu.serve(asyncio.get_running_loop())

    async def _open_control(self) -> None:
        """In a thread, after packets move: what answers questions takes longer to load than all that moves them."""
        loop = asyncio.get_running_loop()
        server = await loop.run_in_executor(None, import_module, "router.control.server")
        self._control = server.ControlServer(self)
        await self._control.start(self.config.socket_path, self.listener)

    # --- from one process to the next ---

    async def take_over(self) -> None:
        """In place of start: go on as the process that runs. Raises RouterError, EngineError: then that one does."""
        takeover = import_module("router.takeover")
        import_module("router.control.server")  # nothing is left to be loaded when packets come
        try:
            await takeover.take_over(self)
            await self._open_control()
        except BaseException:
            await self._close()
            raise

    def go_on(self) -> None:
        """In place of serving: the role knows everything already."""
        self._machine.own()
        self._owns_socket = True
        self._machine.serve(self.on_down)
        self._listen()
        self.heritable.go_on()
        self.driver.on_retired = self.stopped.set
        self.driver.resume()
        self._follow_mtu(self.role.access.tunnel_mtu)
        self.driver.journalist.tell("took-over", {"nodes": len(self.role.here)})

    def pause(self) -> None:
        """Do nothing but move packets; what comes in waits."""
        self.driver.pause()
        self._machine.signaling.pause()
        self._machine.netlink.pause()
        if self.access is not None:
            self.access.pause()

    def resume(self) -> None:
        """Go on after a pause."""
        self._listen()
        if self.access is not None:
            self.access.serve()
        self.driver.resume()

    def let_go(self, hang_up: Callable[[], None]) -> None:
        """Another process is this router now: end, and leave everything as it is; hang up when it is done."""
        self._hang_up = hang_up
        self.stopped.set()

    # --- life ---

    def on_down(self, error: PortDown) -> None:
        """A port is of no more use: so is this router."""
        self.failure = InUse(
            f"{error.where}: {error.why}: the device was taken away from this router: start it again, or have a "
            "supervisor do that"
        )
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
            case AddressChanged(address=address, gone=gone) if address == self.underlay.address:
                self._underlay_changed(gone)
            case _:
                pass
        self.part.kernel_changed(event)
        if self._tunnel_mtu is not None:
            self._tunnel_mtu.kernel_changed(event)

    def _underlay_changed(self, gone: bool) -> None:
        """Told once when it goes and once when it is back; not where tunnels begin at uplinks, which tell of theirs."""
        if gone is self._without_underlay or self.config.uplinks:
            return
        self._without_underlay = gone
        what = "was removed: tunnels are down until it is back" if gone else "is back: so are the tunnels"
        log.warning("underlay address %s %s", self.underlay.address, what)

    # --- farewell ---

    async def stop(self) -> None:
        """De-register, deprecate, and take back everything in the kernel; unless another process has it now."""
        self.driver.stop()
        if self._hang_up is not None:
            await self._leave(self._hang_up)
            return
        self.driver.perform(self.role.drain(time.monotonic()))
        await self.part.farewell()
        await self._close()

    async def _leave(self, hang_up: Callable[[], None]) -> None:
        if self._tunnel_mtu is not None:
            self._tunnel_mtu.close()
        assert self._control is not None
        await self._control.stop(keep=True)
        self.heritable.let_go()
        await self.part.close()
        self._machine.let_go()
        hang_up()

    async def _close(self) -> None:
        """Close what is open, whatever that is."""
        if self._tunnel_mtu is not None:
            self._tunnel_mtu.close()
        if hasattr(self, "driver"):
            self.driver.stop()
        if self._control is not None:
            await self._control.stop()
        elif hasattr(self, "listener"):
            self.listener.close()
            if self._owns_socket:
                self.config.socket_path.unlink(missing_ok=True)
        await self.part.close()
        self._machine.close()


def greeting(router: Router) -> str:
    """The few lines a user reads when the router is up."""
    from router.control.commands import VIEWS

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
    router = Router(config)
    return await _live(router, router.start)


async def take_over(config: Config) -> ExitCode:
    """The same, as the next process of the router that runs. Raises RouterError, EngineError."""
    router = Router(config)
    return await _live(router, router.take_over)


async def _live(router: Router, begin: Callable[[], Awaitable[None]]) -> ExitCode:
    sys.setswitchinterval(THREAD_SWITCH)
    _listen_to_signals(router)
    await begin()
    try:
        _listen_for_reload(router)
        take_precedence(router.config.realtime)
        print(greeting(router), flush=True)
        with little_at_a_time():
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
    from router.control import orders

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
