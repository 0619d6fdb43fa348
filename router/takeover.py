"""An upgrade without loss: the next process of a router takes sockets, TUN queues and state from the one that runs.

    next process                             the one that runs
    loads everything, asks (control socket)
            -- identity, version --------->  refuses what is another router, or speaks another version
            <---------- descriptors -------  locks, TUN queues, sockets, the control socket
            -- prepared ------------------>  pauses signalling, which waits in its sockets; packets go on
            <------------------ state -----  sessions, registrations, timers, paths
    builds its tables
            -- ready --------------------->  reads no more packets: they wait in the kernel, with what it held
            <---------------- packets -----  counters and MTUs of tunnels
            -- serving ------------------->  ends, and leaves the kernel as it is
    reads

Until it has heard "serving" the one that runs can go on as if nothing had happened, and does so when the other fails.
"""

import asyncio
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from engine import Offloads, Port, PortKind
from engine.ports import adopt_port
from engine.stats import Counters, TunnelStats
from router.config import Config
from router.control.client import Client
from router.errors import RouterError
from router.handover_wire import HandoverError, HandoverWire
from router.machine import Underlay
from router.places import RoleName
from router.plain_data import from_plain, to_plain

if TYPE_CHECKING:
    from router.daemon import Router

VERSION = "5"  # of all that is said between two processes: another one is refused
PREPARE_WITHIN, READY_WITHIN, SERVE_WITHIN = 30.0, 10.0, 5.0  # s; the one that runs goes on when it is over
END_WITHIN = 5.0  # s for the one that ran to close its control server
TAKEN_OVER = (RoleName.MAR,)  # roles whose state can be handed over

Underlays = dict[Any, list[tuple[Port, ...]]]  # local address -> its ports, of each worker


def identity(config: Config, underlay: Underlay) -> dict[str, str]:
    """What has to be the same for two processes to be one router; keys, peers and times may differ."""
    return {
        "version": VERSION,
        "role": config.role.value,
        "name": config.name,
        "address": ", ".join(map(str, underlay.addresses)),
        "cmd": config.cmd.peer,
        "prefixes": ", ".join(map(str, config.prefixes)),
        "interfaces": ", ".join(config.interfaces),
        "encapsulation": config.encapsulation.value,
        "signaling": config.transport.value,
        "workers": str(config.workers),
        "tun": config.tun,
        "table": str(config.table),
        "state_dir": str(config.state_dir.resolve()),
        "store": config.store_url,
    }


def refuse_another(running: Mapping[str, str], asking: Mapping[str, str]) -> None:
    """Whether that process may be the next of this router. Raises RouterError, in one line."""
    for what in {**running, **asking}:
        if running.get(what) != asking.get(what):
            raise RouterError(
                f"takeover: nothing was changed: the router that runs has {what} {running.get(what) or 'none'}, the "
                f"next one {asking.get(what) or 'none'}: {CURES.get(what, 'make them the same, or stop it first')}"
            )


CURES = {"version": "these two versions cannot be exchanged while they run: stop it first"}


# --- descriptors ---


@dataclass(frozen=True, slots=True, kw_only=True)
class PortFace:
    """A port without its descriptor."""

    kind: int
    local: str
    inner: int
    name: str
    mtu: int | None
    offloads: Offloads
    virtio: bool
    receives: bool

    @classmethod
    def of(cls, port: Port) -> "PortFace":
        """As it is open."""
        return cls(
            kind=port.kind.value,
            local=str(port.local or ""),
            inner=port.inner,
            name=port.name,
            mtu=port.mtu,
            offloads=port.offloads,
            virtio=port.virtio,
            receives=port.receives,
        )

    def port(self, descriptor: int) -> Port:
        """The port again, with its descriptor here."""
        shape = Port(
            fd=descriptor,
            kind=PortKind(self.kind),
            local=ip_address(self.local) if self.local else None,
            inner=self.inner,
            name=self.name,
            mtu=self.mtu,
            offloads=self.offloads,
            virtio=self.virtio,
            receives=self.receives,
        )
        return adopt_port(shape, descriptor)


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """What the descriptors are, in the order in which they are sent."""

    locks: int
    listeners: int
    tuns: tuple[PortFace, ...]
    underlay: tuple[tuple[str, int, PortFace], ...]  # local address, worker, port
    signaling: tuple[tuple[str, int], ...]  # address, how many sockets
    access: tuple[str, ...]  # interfaces


@dataclass(frozen=True, slots=True)
class Belongings:
    """What was sent, opened again."""

    locks: tuple[Any, socket.socket]
    listener: socket.socket
    tuns: list[Port]
    underlay: Underlays
    signaling: dict[Any, list[socket.socket]]
    access: dict[str, socket.socket]


def inventory(router: "Router") -> tuple[Inventory, list[int]]:
    """All that a router has open that the next process needs."""
    machine, access = router.machine, router.access
    assert access is not None
    underlay = [
        (str(local), worker, port)
        for local, workers in machine.packets.sockets.items()
        for worker, ports in enumerate(workers)
        for port in ports
    ]
    what = Inventory(
        locks=len(machine.locks),
        listeners=1,
        tuns=tuple(map(PortFace.of, machine.packets.tuns)),
        underlay=tuple((local, worker, PortFace.of(port)) for local, worker, port in underlay),
        signaling=tuple((str(address), len(each)) for address, each in machine.signaling.sockets.items()),
        access=tuple(access.sockets),
    )
    opened: list[Any] = [
        *machine.locks,
        router.listener,
        *machine.packets.tuns,
        *(port for _, _, port in underlay),
        *(each for several in machine.signaling.sockets.values() for each in several),
        *access.sockets.values(),
    ]
    return what, [each.fileno() for each in opened]


def belongings(what: Inventory, descriptors: Sequence[int], workers: int) -> Belongings:
    """Descriptors as what they are. Raises HandoverError when they are not as many as there should be."""
    expected = what.locks + what.listeners + len(what.tuns) + len(what.underlay) + len(what.access)
    if len(descriptors) != expected + sum(count for _, count in what.signaling) or what.locks != 2:
        raise HandoverError(f"takeover: {len(descriptors)} descriptors came, and others were announced")
    left = iter(descriptors)
    lock, namespace = os.fdopen(next(left), "r+b", buffering=0), socket.socket(fileno=next(left))
    listener = socket.socket(fileno=next(left))
    tuns = [face.port(next(left)) for face in what.tuns]
    found: dict[Any, list[list[Port]]] = {}
    for local, worker, face in what.underlay:
        found.setdefault(ip_address(local), [[] for _ in range(max(1, workers))])[worker].append(face.port(next(left)))
    signaling = {
        ip_address(address): [socket.socket(fileno=next(left)) for _ in range(count)]
        for address, count in what.signaling
    }
    return Belongings(
        locks=(lock, namespace),
        listener=listener,
        tuns=tuns,
        underlay={local: [tuple(ports) for ports in several] for local, several in found.items()},
        signaling=signaling,
        access={name: socket.socket(fileno=next(left)) for name in what.access},
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class PacketCounts:
    """What the packet plane has counted and learned."""

    counted: Counters
    tunnels: tuple[TunnelStats, ...]


# --- the process that runs ---


async def hand_over(router: "Router", connection: socket.socket) -> None:
    """Give everything to the process at the other end. Raises HandoverError: then this one goes on as before."""
    wire = HandoverWire(connection)
    try:
        await wire.expect("asking", PREPARE_WITHIN)
        what, descriptors = inventory(router)
        await wire.send("descriptors", to_plain(Inventory, what), descriptors)
        await wire.expect("prepared", PREPARE_WITHIN)
        await _give(router, wire)
    except BaseException:
        wire.close()
        raise
    router.let_go(wire.close)


async def _give(router: "Router", wire: HandoverWire) -> None:
    part = router.heritable
    loop = asyncio.get_running_loop()
    router.pause()
    try:
        await part.settle()
        await wire.send("state", part.handover())
        await wire.expect("ready", READY_WITHIN)
        router.packets.pause(loop)
        try:
            counts = PacketCounts(counted=router.packets.counters(), tunnels=tuple(router.tables.tunnels()))
            await wire.send("packets", to_plain(PacketCounts, counts))
            await wire.expect("serving", SERVE_WITHIN)
        except BaseException:
            router.machine.serve(router.on_down)
            raise
    except BaseException:
        router.resume()
        raise


# --- the next process ---


async def take_over(router: "Router") -> None:
    """Go on where the process that runs is now. Raises RouterError or EngineError: then that one goes on."""
    wire = await _ask(router)
    try:
        await _take(router, wire)
    except Exception as error:
        await _say_failed(wire, error)
        raise
    finally:
        await wire.wait_for_end(END_WITHIN)
        wire.close()


async def _ask(router: "Router") -> HandoverWire:
    if router.config.role not in TAKEN_OVER:
        raise RouterError(f"takeover: {router.config.role.value.upper()}: only a MAR can be taken over: stop it first")
    router.machine.look_on()
    router.config = router.heritable.prepare(router.config, restarted=False)
    about = identity(router.config, router.underlay)
    connection = await asyncio.to_thread(Client(router.config.socket_path).take_over, about)
    return HandoverWire(connection)


async def _take(router: "Router", wire: HandoverWire) -> None:
    part, machine = router.heritable, router.machine
    await wire.send("asking")
    data, descriptors = await wire.expect("descriptors", READY_WITHIN)
    got = belongings(from_plain(Inventory, data, "descriptors"), descriptors, router.config.workers)
    machine.adopt(got.locks, got.signaling, got.tuns, got.underlay)
    router.listener = got.listener
    router.driver = part.adopt()
    await wire.send("prepared")
    state, _ = await wire.expect("state", READY_WITHIN)
    part.take_up(state, got.access)
    await wire.send("ready")
    data, _ = await wire.expect("packets", READY_WITHIN)
    counts = from_plain(PacketCounts, data, "packets")
    machine.packets.take_up(counts.counted)
    machine.tables.take_up(counts.tunnels)
    await wire.send("serving")
    router.go_on()


async def _say_failed(wire: HandoverWire, error: Exception) -> None:
    try:
        await wire.send("failed", f"takeover: the next process failed: {error}")
    except HandoverError:
        return
