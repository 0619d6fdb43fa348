"""The packet plane of a router: its TUN queues and underlay sockets, served from the loop or by worker threads.

    workers = 0    loop.add_reader(port) -> engine.serve          one engine, in the thread of signalling
    workers = N    thread 1: TUN queue, sockets   thread 2: TUN queue, sockets ...
"""

import asyncio
from collections.abc import Callable
from dataclasses import fields
from functools import partial
from ipaddress import IPv6Address

import engine
from engine import Bundle, Counters, Encapsulation, Engine, Offloads, Path, Port, PortDown, Tables, Tunnel, Workers
from engine.capture import Record
from router.config import Config

OVERHEAD = {Encapsulation.UDP: 48, Encapsulation.IP: 40, Encapsulation.GRE: 44}  # octets, the IPv6 header included


class Packets:
    """Ports and engines. `open` opens all of them or raises EngineError; `close` takes everything back."""

    def __init__(self, config: Config, tables: Tables) -> None:
        self._config = config
        self._tables = tables
        self._ports: list[tuple[Port, ...]] = []  # of each worker
        self._engine: Engine | None = None
        self._workers: Workers | None = None
        self._tapped: Engine | Workers | None = None
        self._pin: Bundle | None = None  # of the tunnel that is captured

    @property
    def compiled(self) -> bool:
        """The compiled path runs, not the model."""
        return self._tables.compiled

    def open(self, local: IPv6Address, *, mtu: int) -> None:
        """Open the ports of all workers; tunnels begin at local. mtu: octets of the TUN. Raises EngineError."""
        self._mtu = mtu
        for number in range(max(1, self._config.workers)):
            self._ports.append(self._open_worker(local, mtu, first=number == 0))

    def serve(self, loop: asyncio.AbstractEventLoop, on_down: Callable[[PortDown], None]) -> None:
        """Begin. on_down is called in the loop when a port is of no more use."""
        clamp = self._mtu if self._config.clamp_mss else 0
        if self._config.workers:
            self._workers = Workers(
                self._tables,
                self._ports,
                clamp_mss=clamp,
                on_down=partial(self._tell, loop, on_down),
            )
            self._workers.start()
            return
        self._engine = Engine(self._tables, clamp_mss=clamp)
        for port in self._ports[0]:
            self._engine.add_port(port)
        loop.add_reader(self._engine.fileno(), self._turn, loop, on_down)

    def counters(self) -> Counters:
        """Of all engines together; zeros before serve."""
        if self._workers is not None:
            return self._workers.counters()
        return (self._engine or Engine(self._tables)).counters()

    def offloads(self) -> str:
        """What the kernel does for us, as tried when the ports were opened."""
        used = [port.offloads for ports in self._ports for port in ports]
        names = [field.name for field in fields(Offloads) if any(getattr(each, field.name) for each in used)]
        return ", ".join(names) or "none"

    def open_tap(self, tunnel: Tunnel | None, *, outer: bool = False) -> None:
        """Copy what goes through tunnel, None: through any. Raises EngineError, and RuntimeError if the tap is open.

        The tunnel need not be in use yet, and is captured however often it goes and comes again.
        """
        tapped = self._workers or self._engine
        if self._tapped is not None or tapped is None:
            raise RuntimeError("the tap is open already" if tapped else "nothing is served yet")
        # whoever is in a bundle stays in the tables: its place there, which the tap goes by, is given to no other
        pin = self._tables.bundle([Path(tunnel)]) if tunnel else None
        tapped.open_tap(tunnel, outer=outer)
        self._tapped, self._pin = tapped, pin

    def read_tap(self) -> list[Record]:
        """What was copied since the last call, by time; empty when the tap is closed."""
        return self._tapped.read_tap() if self._tapped else []

    def close_tap(self) -> tuple[list[Record], int]:
        """Copy no more. Returns what was not read yet, and how many packets found no room."""
        tapped, self._tapped = self._tapped, None
        lost = tapped.close_tap() if tapped else 0
        self._pin = None
        return tapped.read_tap() if tapped else [], lost

    def close(self, loop: asyncio.AbstractEventLoop) -> None:
        """Stop serving, then close the ports."""
        self.close_tap()
        if self._workers is not None:
            self._workers.stop()
            self._workers = None
        if self._engine is not None:
            loop.remove_reader(self._engine.fileno())
        for ports in self._ports:
            for port in ports:
                if self._engine is not None:
                    self._engine.remove_port(port)
                port.close()
        self._ports.clear()

    def _open_worker(self, local: IPv6Address, mtu: int, *, first: bool) -> tuple[Port, ...]:
        config = self._config
        offloads = config.offloads if self.compiled else engine.offloads.NONE
        ports = [engine.open_tun(config.tun, mtu=mtu, offloads=offloads)]
        try:
            if config.encapsulation is Encapsulation.UDP:
                ports.append(engine.open_udp(local, offloads=offloads, reuse_port=config.workers > 1))
            elif config.encapsulation is Encapsulation.IP:
                ports.extend(engine.open_ip(local, receives=first))
            else:
                ports.append(engine.open_gre(local, receives=first))
        except BaseException:
            for port in ports:
                port.close()
            raise
        return tuple(ports)

    @staticmethod
    def _tell(loop: asyncio.AbstractEventLoop, on_down: Callable[[PortDown], None], error: PortDown) -> None:
        loop.call_soon_threadsafe(on_down, error)

    def _turn(self, loop: asyncio.AbstractEventLoop, on_down: Callable[[PortDown], None]) -> None:
        assert self._engine is not None
        try:
            self._engine.turn()
        except PortDown as error:
            loop.remove_reader(self._engine.fileno())
            on_down(error)
