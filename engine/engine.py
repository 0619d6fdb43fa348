"""Engine: ports, and the path between them. The loop calls serve when a port has something to read.

    loop.add_reader(engine.fileno(), engine.turn)         # or Workers: the same in threads of their own
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import reduce
from operator import add, itemgetter
from types import NoneType

from engine import fast, model
from engine.capture import SNAP, Record
from engine.errors import BadPacket, NotCompiled, PortDown, PortError, UnknownTunnel, expect
from engine.ports import Port
from engine.stats import Counters, Drop
from engine.tables import Tables
from engine.tunnels import Tunnel

NOWHERE = bytes(16)  # local address of a TUN port
LARGEST = 65600  # octets of a packet and of what lies behind its stated end, as in _fast/burst.pxd


class Engine:
    """One data path over tables, for one thread. Several engines may share the tables.

    compiled: True wants the compiled path (or NotCompiled), False the model, None the best the tables allow.
    clamp_mss: octets; TCP connections are told segments for packets of this size, or of what a tunnel is known to
    take if that is less (RFC 4459 3.2); 0: they are let be.
    """

    def __init__(self, tables: Tables, *, compiled: bool | None = None, clamp_mss: int = 0) -> None:
        expect("no engine", tables, Tables)
        if compiled and not tables.compiled:
            raise NotCompiled("no compiled path", why="the tables are Python ones", cure="use compiled tables")
        if compiled is False and tables.compiled:
            raise NotCompiled("no model", why="it reads no compiled tables", cure="use Tables(compiled=False)")
        self.tables = tables
        self._path: model.AnyPath
        if fast.Path and fast.Tables and isinstance(tables.storage, fast.Tables):
            self._path = fast.Path(tables.storage, clamp_mss)
        else:
            assert isinstance(tables.storage, model.Tables)
            self._path = model.Path(tables.storage, clamp_mss)
        self._ports: dict[int, Port] = {}
        self._lost_before: int | None = None  # packets, by captures before the one that runs; None: none does
        # A descriptor that watches others is only ever readable; uvloop would let go of a socket with an ICMP error.
        self._watcher = select.epoll()
        if self._path.bell >= 0:
            self._watcher.register(self._path.bell, select.EPOLLIN)

    @property
    def compiled(self) -> bool:
        """This engine runs the compiled path, not the model."""
        return not isinstance(self._path, model.Path)

    def add_port(self, port: Port) -> None:
        """Serve port, and send by it. Raises PortError past 64 ports, for a port that is here already, or is closed."""
        expect("cannot add port", port, Port)
        if port.fd in self._ports:
            raise PortError("cannot add port", where=str(port), why="this engine serves that descriptor already")
        if port.receives:
            try:
                self._watcher.register(port.fd, select.EPOLLIN)
            except OSError as error:
                why = error.strerror or ""
                raise PortError("cannot add port", where=str(port), why=why, cure="open it again") from None
        try:
            self._path.add_port(port.fd, port.kind.value, port.family, port.inner, port.flags, port.packed)
        except OverflowError as error:
            if port.receives:
                self._watcher.unregister(port.fd)
            raise PortError("cannot add port", where=str(port), why=str(error)) from None
        self._ports[port.fd] = port

    def remove_port(self, port: Port) -> None:
        """Forget port, before it is closed. Nothing happens if it was not there."""
        expect("cannot remove port", port, Port)
        if self._path.remove_port(port.fd):
            del self._ports[port.fd]
            with suppress(OSError):  # it is closed already
                self._watcher.unregister(port.fd)

    def fileno(self) -> int:
        """What a loop watches: readable when there is something to do; take a turn() then."""
        return self._watcher.fileno()

    def turn(self) -> None:
        """Serve every port that has something, once, and more while it is busy, for 2 ms at most.

        Raises PortDown when a descriptor is of no more use: a TUN device was removed, a socket closed. Remove the port
        then: a dead descriptor stays readable, and the loop would call at once again.
        """
        dead = self._path.turn()
        if dead >= 0:
            raise _down(self._ports[dead], "it is gone")

    def serve(self, port: Port) -> int:
        """Take a burst (256 packets at most) from port through the path; packets taken, dead ones included.

        While bursts follow each other closely it looks at every port for more, for 2 ms at most, before it returns.
        Raises PortDown when the descriptor is of no more use.
        """
        expect("cannot serve", port, Port)
        taken = self._path.serve(port.fd)
        if taken < 0:
            raise _down(port, os.strerror(-taken))
        return taken

    def run(self, stop: int) -> int | None:
        """Serve all ports until the descriptor stop is readable (None), or one is dead (its descriptor). No GIL.

        Raises ValueError when stop is no descriptor, OSError when it is closed: nothing would end it.
        """
        expect("cannot run", stop, int)
        if stop < 0:
            raise ValueError(f"{stop} is no descriptor: the engine would never stop")
        os.fstat(stop)
        dead = self._path.run(stop)
        return dead if dead >= 0 else None

    def encapsulate(self, packets: Sequence[bytes]) -> list[tuple[bytes, ...] | Drop]:
        """What packets from the TUN would become, in memory: whole outer packets; counted as if they had left.

        Usually one outer packet each; bicast makes more. Raises BadPacket before any of them is wrapped.
        """
        answers = self._path.encapsulate(_checked(packets))
        return [Drop(answer) if isinstance(answer, int) else answer for answer in answers]

    def decapsulate(self, packets: Sequence[bytes]) -> list[bytes | Drop]:
        """The packets inside whole outer packets that would reach the TUN; counted as if delivered.

        Each is answered on its own: nothing is put in order or merged. Outer fragments are not put together. Raises
        BadPacket before any of them is unwrapped.
        """
        answers = self._path.decapsulate(_checked(packets))
        return [Drop(answer) if isinstance(answer, int) else answer for answer in answers]

    def rehearse(self, packets: Sequence[bytes], *, towards: bytes, rounds: int) -> None:
        """Encapsulate the first 256 packets again and again, results thrown away: the path alone, for the bench.

        towards: /64 prefixes, 8 octets each; every packet (IPv6) goes to the next of them.
        """
        if not packets or len(towards) < 8:
            raise ValueError("a packet and a prefix of 8 octets at least")
        self._path.rehearse(_checked(packets), towards, rounds)

    def rehearse_back(self, packets: Sequence[bytes], *, rounds: int) -> None:
        """Decapsulate the first 256 outer packets again and again, results thrown away."""
        self._path.rehearse_back(_checked(packets), rounds)

    def counters(self) -> Counters:
        """All counters of this engine."""
        *row, drops = self._path.counters()
        return Counters.from_row([number for number in row if isinstance(number, int)], list(drops))

    # --- the tap: copies of packets, for engine.capture ---

    def open_tap(
        self, tunnel: Tunnel | None, *, outer: bool = False, snap: int = SNAP, ahead: int | None = None
    ) -> None:
        """Copy what goes through tunnel (None: through any of them) from the next burst on, until close_tap.

        outer: with the headers it has on the underlay. snap: octets kept of each packet. Segments that the kernel
        handed over as one are one packet. ahead: ns that the wall clock is before the monotonic one, if engines are to
        agree. May be called while another thread serves. Raises UnknownTunnel; NotCompiled: the model has no tap;
        RuntimeError: the tap is open.
        """
        expect("no capture", tunnel, Tunnel, NoneType)
        if isinstance(self._path, model.Path):
            raise NotCompiled("no capture", why="the model has no tap", cure="build the compiled path: make build")
        if self._lost_before is not None:
            raise RuntimeError("the tap of this engine is open already")
        before = self._path.close_tap()
        offset = _wall_ahead() if ahead is None else ahead
        if not self._path.open_tap(tunnel.key if tunnel else None, snap, outer, offset):
            raise UnknownTunnel("no such tunnel here", where=str(tunnel), why="nothing is bound to it")
        self._lost_before = before

    def read_tap(self) -> list[Record]:
        """(ns since 1970, INBOUND or OUTBOUND, octets of the packet, what was kept of it) since the last call.

        In the order they passed. 4 MiB are kept between two calls, and what finds no room is lost; what was copied
        before close_tap can still be read after it.
        """
        return [] if isinstance(self._path, model.Path) else self._path.read_tap()

    def close_tap(self) -> int:
        """Copy no more. Returns how many packets found no room since open_tap; 0 if the tap is not open."""
        if self._lost_before is None or isinstance(self._path, model.Path):
            return 0
        before, self._lost_before = self._lost_before, None
        return self._path.close_tap() - before


class Workers:
    """Engines in threads of their own, each with its own ports: nothing that happens in the loop delays a packet.

    on_down(error): called in the worker's thread when one of its ports is of no more use; the worker has ended then.
    """

    def __init__(
        self,
        tables: Tables,
        ports: Sequence[Sequence[Port]],
        *,
        clamp_mss: int = 0,
        on_down: Callable[[PortDown], None] = lambda error: None,
    ) -> None:
        self._on_down = on_down
        self._stop = os.eventfd(0, os.EFD_CLOEXEC)
        self.engines = [Engine(tables, clamp_mss=clamp_mss) for _ in ports]
        self._threads = []
        for number, (engine, own) in enumerate(zip(self.engines, ports, strict=True), 1):
            expect("no worker", own, Iterable)
            for port in own:
                engine.add_port(port)
            thread = threading.Thread(target=self._work, args=(engine, own), name=f"openmar-{number}", daemon=True)
            self._threads.append(thread)

    def start(self) -> None:
        """Begin to serve. Raises RuntimeError when they have begun before: make new ones."""
        if self._stop < 0 or any(thread.ident is not None for thread in self._threads):
            raise RuntimeError("workers start once: make new ones")
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End all workers and wait for the bursts they are in; close the ports only afterwards. Once is enough."""
        if self._stop < 0:
            return
        os.eventfd_write(self._stop, 1)
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()
        os.close(self._stop)
        self._stop = -1

    def counters(self) -> Counters:
        """Of all workers together."""
        return reduce(add, (engine.counters() for engine in self.engines))

    def open_tap(self, tunnel: Tunnel | None, *, outer: bool = False, snap: int = SNAP) -> None:
        """The taps of all workers, or none: as of Engine."""
        opened: list[Engine] = []
        ahead = _wall_ahead()
        try:
            for engine in self.engines:
                engine.open_tap(tunnel, outer=outer, snap=snap, ahead=ahead)
                opened.append(engine)
        except BaseException:
            for engine in opened:
                engine.close_tap()
            raise

    def read_tap(self) -> list[Record]:
        """What all workers copied since the last call, by time."""
        return sorted((record for engine in self.engines for record in engine.read_tap()), key=itemgetter(0))

    def close_tap(self) -> int:
        """Copy no more. Returns how many packets found no room, with all workers together."""
        return sum(engine.close_tap() for engine in self.engines)

    def _work(self, engine: Engine, ports: Sequence[Port]) -> None:
        dead = engine.run(self._stop)
        for port in ports:
            if port.fd == dead:
                self._on_down(_down(port, "it is gone"))


def _wall_ahead() -> int:
    """ns that the wall clock is before the monotonic one. What comes between two readings makes it less."""
    return max(time.time_ns() - time.monotonic_ns() for _ in range(3))


def _checked(packets: Iterable[bytes]) -> list[bytes]:
    """All of them, looked at before the first is served: one that is no packet loses no answer of the others."""
    expect("no packets", packets, Iterable)
    listed = list(packets)
    for number, packet in enumerate(listed):
        if type(packet) is not bytes:
            why, cure = f"it is of type {type(packet).__name__}", "give bytes"
        elif len(packet) > LARGEST:
            why, cure = f"it has {len(packet)} octets", f"a packet has {LARGEST} at most"
        else:
            continue
        raise BadPacket("no such packet", where=f"number {number} of {len(listed)}", why=why, cure=cure)
    return listed


def _down(port: Port, why: str) -> PortDown:
    return PortDown("port is down", where=str(port), why=why, cure="open it again")
