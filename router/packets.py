"""The packet plane of a router: its TUN queues and underlay sockets, served from the loop or by worker threads.

    workers = 0    loop.add_reader(port) -> engine.serve          one engine, in the thread of signalling
    workers = N    thread 1: TUN queue, sockets   thread 2: TUN queue, sockets ...

Each local address has its sockets; addresses of uplinks come and go. A running worker cannot be given another port: all
of them end and others begin, and what arrives meanwhile waits in the sockets.
"""

import asyncio
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import fields
from functools import partial

import engine
from engine import Bundle, Counters, Encapsulation, Engine, Offloads, Path, Port, PortDown, Tables, Tunnel, Workers
from engine.capture import Record
from engine.ports import AnyAddress
from router.config import Config

OVERHEAD = {Encapsulation.UDP: 48, Encapsulation.IP: 40, Encapsulation.GRE: 44}  # octets, the IPv6 header included
VIRTIO_HEADER = 10  # octets before a packet that a TUN takes, <linux/virtio_net.h>
GRE_OPTIONS = 8  # octets more of GRE with a key and a sequence number


class Packets:
    """Ports and engines. `open` opens all of them or raises EngineError; `close` takes everything back."""

    def __init__(self, config: Config, tables: Tables) -> None:
        self._config = config
        self._tables = tables
        self._mtu = 0
        self._tuns: list[Port] = []  # of each worker
        self._underlay: dict[AnyAddress, list[tuple[Port, ...]]] = {}  # by local address, of each worker
        self._engine: Engine | None = None
        self._workers: Workers | None = None
        self._on_down: Callable[[PortDown], None] = lambda error: None  # from any thread
        self._ended: Counters | None = None  # of workers that were replaced
        self._tapped: Engine | Workers | None = None
        self._tap: tuple[Tunnel | None, bool] = None, False  # what is captured
        self._left: tuple[list[Record], int] = [], 0  # by workers that were replaced: not read yet, lost
        self._pin: Bundle | None = None  # of the tunnel that is captured

    @property
    def compiled(self) -> bool:
        """The compiled path runs, not the model."""
        return self._tables.compiled

    def open(self, addresses: Iterable[AnyAddress], *, mtu: int) -> None:
        """Open all ports; tunnels begin at these addresses. mtu: octets of the TUN. Raises EngineError."""
        self._mtu = mtu
        offloads = self._offloads()
        for _ in range(max(1, self._config.workers)):
            self._tuns.append(engine.open_tun(self._config.tun, mtu=mtu, offloads=offloads))
        for local in addresses:
            self.add_local(local)

    def add_local(self, local: AnyAddress) -> None:
        """Tunnels may begin at this address too; one that is open already is no error. Raises EngineError."""
        if local in self._underlay:
            return
        self._underlay[local] = opened = []
        try:
            for number in range(len(self._tuns)):
                opened.append(self._open_local(local, first=number == 0))
            if self._engine is not None:
                for port in opened[0]:
                    self._engine.add_port(port)
        except BaseException:
            self._close_local(local)
            raise
        if self._workers is not None:
            self._replace_workers()

    def remove_local(self, local: AnyAddress) -> None:
        """No tunnel begins at this address any more; one that is not open is no error."""
        if self._workers is not None and local in self._underlay:
            gone = self._underlay.pop(local)
            self._replace_workers()
            self._underlay[local] = gone
        self._close_local(local)

    def serve(
        self,
        loop: asyncio.AbstractEventLoop,
        on_down: Callable[[PortDown], None],
        hear_first: Callable[[], None] = lambda: None,
    ) -> None:
        """Begin. on_down is called in the loop when a port is of no more use.

        hear_first: called before packets that wait are moved. A peer sends packets of a tunnel right behind the message
        that tells of it: they must not be read first. Workers do not call it.
        """
        if self._config.workers:
            self._on_down = partial(self._tell, loop, on_down)
            self._workers = self._new_workers()
            self._workers.start()
            return
        self._engine = Engine(self._tables, clamp_mss=self._clamp())
        for port in (self._tuns[0], *(port for ports in self._underlay.values() for port in ports[0])):
            self._engine.add_port(port)
        self._on_down = partial(self._end, loop, on_down)
        loop.add_reader(self._engine.fileno(), self._wake, hear_first)

    def _wake(self, hear_first: Callable[[], None]) -> None:
        hear_first()
        self.turn()

    def turn(self) -> None:
        """Move what waits now, and not after whatever else the loop has to do; workers need not be asked."""
        if self._engine is None:
            return
        try:
            self._engine.turn()
        except PortDown as error:
            self._on_down(error)

    def counters(self) -> Counters:
        """Of all engines together; zeros before serve."""
        now = (self._workers or self._engine or Engine(self._tables)).counters()
        return now + self._ended if self._ended is not None else now

    # --- from one process to the next ---

    @property
    def tuns(self) -> tuple[Port, ...]:
        """The queues of the TUN."""
        return tuple(self._tuns)

    @property
    def sockets(self) -> dict[AnyAddress, list[tuple[Port, ...]]]:
        """Underlay sockets by local address, of each worker."""
        return dict(self._underlay)

    def adopt(
        self, tuns: Iterable[Port], sockets: Mapping[AnyAddress, list[tuple[Port, ...]]], *, mtu: int
    ) -> None:
        """In place of open: all of it is open."""
        self._mtu = mtu
        self._tuns.extend(tuns)
        self._underlay.update(sockets)

    def take_up(self, counted: Counters) -> None:
        """Count on from here."""
        self._ended = counted if self._ended is None else self._ended + counted

    def pause(self, loop: asyncio.AbstractEventLoop) -> None:
        """Read nothing more; what comes waits in the kernel, and what waited here for its node goes back to it."""
        self.close_tap()
        if self._workers is not None:
            self._workers.stop()
            self.take_up(self._workers.counters())
            self._workers = None
        elif self._engine is not None:
            loop.remove_reader(self._engine.fileno())
            for port in self._ports():
                self._engine.remove_port(port)
            self.take_up(self._engine.counters())
            self._engine = None
        tun = self._tuns[0]
        for packet in self._tables.take_out():
            with suppress(OSError):  # no room in the kernel, which counts it
                os.write(tun.fd, packet if tun.virtio else packet[VIRTIO_HEADER:])

    def offloads(self) -> str:
        """What the kernel does for us, as tried when the ports were opened."""
        used = [port.offloads for port in self._ports()]
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
        self._tapped, self._pin, self._tap = tapped, pin, (tunnel, outer)

    def read_tap(self) -> list[Record]:
        """What was copied since the last call, by time; empty when the tap is closed."""
        records, self._left = self._left[0], ([], self._left[1])
        return records + (self._tapped.read_tap() if self._tapped else [])

    def close_tap(self) -> tuple[list[Record], int]:
        """Copy no more. Returns what was not read yet, and how many packets found no room."""
        (records, lost), self._left = self._left, ([], 0)
        tapped, self._tapped = self._tapped, None
        lost += tapped.close_tap() if tapped else 0
        self._pin = None
        return records + (tapped.read_tap() if tapped else []), lost

    def close(self, loop: asyncio.AbstractEventLoop) -> None:
        """Stop serving, then close the ports."""
        self.close_tap()
        if self._workers is not None:
            self._workers.stop()
            self._workers = None
        if self._engine is not None:
            loop.remove_reader(self._engine.fileno())
        for local in list(self._underlay):
            self._close_local(local)
        for port in self._tuns:
            if self._engine is not None:
                self._engine.remove_port(port)
            port.close()
        self._tuns.clear()

    # --- ports ---

    def _ports(self) -> list[Port]:
        return [*self._tuns, *(port for ports in self._underlay.values() for each in ports for port in each)]

    def _offloads(self) -> Offloads:
        return self._config.offloads if self.compiled else engine.offloads.NONE

    def _open_local(self, local: AnyAddress, *, first: bool) -> tuple[Port, ...]:
        """The sockets of one worker at that address. Over IPv4 UDP is one of them: it passes a NAT (RFC 5844 4.1)."""
        kind = self._config.encapsulation
        ports: list[Port] = []
        try:
            if kind is Encapsulation.UDP or local.version == 4:
                several = self._config.workers > 1
                ports.append(engine.open_udp(local, offloads=self._offloads(), reuse_port=several))
            if kind is Encapsulation.IP:
                ports.extend(engine.open_ip(local, receives=first))
            elif kind is Encapsulation.GRE:
                ports.append(engine.open_gre(local, receives=first))
        except BaseException:
            for port in ports:
                port.close()
            raise
        return tuple(ports)

    def _close_local(self, local: AnyAddress) -> None:
        for port in (port for ports in self._underlay.pop(local, []) for port in ports):
            if self._engine is not None:
                self._engine.remove_port(port)
            port.close()

    # --- workers ---

    def _clamp(self) -> int:
        return self._mtu if self._config.clamp_mss else 0

    def _new_workers(self) -> Workers:
        own = [
            (tun, *(port for ports in self._underlay.values() for port in ports[number]))
            for number, tun in enumerate(self._tuns)
        ]
        return Workers(self._tables, own, clamp_mss=self._clamp(), on_down=self._on_down)

    def _replace_workers(self) -> None:
        """The same work with the ports there are now; counters and a capture go on."""
        assert self._workers is not None
        before = self._workers
        before.stop()
        self._ended = before.counters() + self._ended if self._ended is not None else before.counters()
        self._workers = self._new_workers()
        if self._tapped is before:
            lost = before.close_tap()
            self._left = self._left[0] + before.read_tap(), self._left[1] + lost
            tunnel, outer = self._tap
            self._workers.open_tap(tunnel, outer=outer)
            self._tapped = self._workers
        self._workers.start()

    @staticmethod
    def _tell(loop: asyncio.AbstractEventLoop, on_down: Callable[[PortDown], None], error: PortDown) -> None:
        loop.call_soon_threadsafe(on_down, error)

    def _end(self, loop: asyncio.AbstractEventLoop, on_down: Callable[[PortDown], None], error: PortDown) -> None:
        assert self._engine is not None
        loop.remove_reader(self._engine.fileno())
        on_down(error)
