"""Two hosts with an engine each, and wires between them: the kernel speaks at both ends, the engine carries.

    near  fd00:1::1, 10.1.0.1                                                         far  fd00:2::1, 10.2.0.1
      |                                                                                 |
    tun0 - engine                                                                     engine - tun0
             eth1  2001:db8:1:1::1, 192.0.1.1   ======   2001:db8:1:2::1, 192.0.1.129  eth1
             eth2  2001:db8:2:1::1, 192.0.2.1   ======   2001:db8:2:2::1, 192.0.2.129  eth2

fd00:2::/64 and 10.2.0.0/16 are anchored at near and live at far. A wire is a cable, or a router (which may be narrow),
or a carrier of frames (slow, or cut) between the two. Engines run in threads of this process: beside a loop that calls
turn(), or as Workers.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import NoReturn, TypeAlias

from engine import (
    Bundle,
    Counters,
    Drop,
    Encapsulation,
    Engine,
    Offloads,
    Policy,
    Port,
    Side,
    Tables,
    Tunnel,
    TunnelStats,
    Workers,
    open_gre,
    open_ip,
    open_tun,
    open_udp,
)
from engine.offloads import ALL
from router.demo.lab import Host, Lab, connect
from tests.engine.descriptors import give_ipv4, route_ipv4, wait_for_address
from tests.engine.nodes import GRE
from tests.eventually import eventually

AnyAddress: TypeAlias = IPv6Address | IPv4Address

PREFIX6, PREFIX4 = IPv6Network("fd00:2::/64"), IPv4Network("10.2.0.0/16")  # anchored at near, alive at far
PREFIXES = (PREFIX6, PREFIX4)
TUNNEL_PORT = 5437
DEVICE, DEVICE_MTU = "tun0", 1400  # octets
NO_PROTOCOL = 253  # for experiments, RFC 3692: it has no checksum
PATIENCE = 20.0  # s: what has not come by then never will
ROOM = 4 << 20  # octets: of socket buffers, so that nothing is lost between the kernel and the test
SO_SNDBUFFORCE, SO_RCVBUFFORCE = 32, 33  # asm-generic/socket.h
RTF_LOCAL = 0x80000000  # linux/ipv6_route.h
ETH_P_ALL, PACKET_OUTGOING = 3, 4  # linux/if_ether.h, linux/if_packet.h
CHATTER = {Drop.BAD_SOURCE, Drop.BAD_DESTINATION, Drop.NO_BINDING}  # what a kernel says on any link of its own

# --- underlays ---


@dataclass(frozen=True, slots=True)
class Underlay:
    """How tunnels travel. headers: octets of them around an inner packet."""

    version: int
    encapsulation: Encapsulation
    headers: int


UNDERLAYS = {
    "udp6": Underlay(6, Encapsulation.UDP, 48),
    "udp4": Underlay(4, Encapsulation.UDP, 28),
    "ip6": Underlay(6, Encapsulation.IP, 40),
    "ip4": Underlay(4, Encapsulation.IP, 20),
    "gre6": Underlay(6, Encapsulation.GRE, 44),
    "gre4": Underlay(4, Encapsulation.GRE, 24),
}


def underlay_address(path: int, end: int, version: int) -> AnyAddress:
    """Of end 1 (near) or 2 (far) on a path, which is counted from 1."""
    if version == 6:
        return IPv6Address(f"2001:db8:{path}:{end}::1")
    return IPv4Address(f"192.0.{path}.{128 * (end - 1) + 1}")


def gateway(path: int, end: int, version: int) -> AnyAddress:
    """Of the router on that path, on its side of that end."""
    return underlay_address(path, end, version) + 1


# --- the two ends ---


@dataclass
class End:
    """A host, its tables, and the engine that runs there."""

    host: Host
    number: int
    tables: Tables = field(default_factory=lambda: Tables(compiled=True))
    engines: list[Engine] = field(default_factory=list)

    def address(self, version: int = 6) -> str:
        """What the programs of this host are called on the overlay."""
        return f"fd00:{self.number}::1" if version == 6 else f"10.{self.number}.0.1"

    def socket(self, version: int, style: int, protocol: int = 0) -> socket.socket:
        """Of the kernel of this host, bound to its overlay address; it gives up after PATIENCE."""
        with self.host.inside():
            made = socket.socket(socket.AF_INET6 if version == 6 else socket.AF_INET, style, protocol)
        patience = struct.pack("=qq", int(PATIENCE), 0)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, patience)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, patience)
        if style != socket.SOCK_STREAM:
            widen(made)
        made.bind((self.address(version), 0))
        return made

    def udp(self, version: int = 6) -> socket.socket:
        """For datagrams."""
        return self.socket(version, socket.SOCK_DGRAM)

    def open(self, underlay: str, paths: int, *, offloads: Offloads, worker: int, workers: int) -> list[Port]:
        """The ports of one worker."""
        kind = UNDERLAYS[underlay]
        with self.host.inside():
            ports = [open_tun(DEVICE, mtu=DEVICE_MTU, offloads=offloads)]
            for path in range(1, paths + 1):
                local = underlay_address(path, self.number, kind.version)
                if kind.encapsulation is Encapsulation.UDP:
                    ports.append(open_udp(local, offloads=offloads, reuse_port=workers > 1))
                elif kind.encapsulation is Encapsulation.IP:
                    ports += open_ip(local, receives=worker == 0)
                else:
                    ports.append(open_gre(local, receives=worker == 0))
        return ports

    def switch_on(self, mtu: int) -> None:
        """Give the TUN its addresses, and wait until the kernel takes packets to them."""
        self.host.netlink.set_mtu(self.host.link(DEVICE).index, mtu)
        self.host.link_up(DEVICE)
        self.host.address(DEVICE, f"{self.address()}/16")
        give_ipv4(self.host, DEVICE, f"{self.address(4)}/8")
        # errors come from our own outer address: a router in front of its hosts has no such trouble
        self.host.sysctl(f"net/ipv4/conf/{DEVICE}/accept_local", 1)
        wait_for_address(self.host, self.address())

    def counters(self) -> Counters:
        """Of all engines here."""
        first, *others = [engine.counters() for engine in self.engines]
        for other in others:
            first += other
        return first

    def drops(self) -> dict[Drop, int]:
        """What died here, and of what; the kernel's own chatter left out."""
        return {reason: n for reason, n in self.counters().drops.items() if n and reason not in CHATTER}

    def stats(self, tunnel: Tunnel) -> TunnelStats:
        """Of a tunnel."""
        return next(each for each in self.tables.tunnels() if each.tunnel == tunnel)


def widen(sock: socket.socket) -> None:
    """Give a socket large buffers, if we may."""
    for forced, asked in ((SO_RCVBUFFORCE, socket.SO_RCVBUF), (SO_SNDBUFFORCE, socket.SO_SNDBUF)):
        try:
            sock.setsockopt(socket.SOL_SOCKET, forced, ROOM)
        except PermissionError:
            sock.setsockopt(socket.SOL_SOCKET, asked, ROOM)


class Turning:
    """Engines that are served as a loop serves them, in a thread on the host of their sockets."""

    def __init__(self, end: End) -> None:
        self.end = end
        self._stop = os.eventfd(0, os.EFD_CLOEXEC)
        self._failed: list[BaseException] = []
        self._thread = threading.Thread(target=self._run, name=f"{end.host.name} loop")
        self._thread.start()

    def stop(self) -> None:
        """End the loop; raises what has ended it before."""
        os.eventfd_write(self._stop, 1)
        self._thread.join()
        os.close(self._stop)
        if self._failed:
            raise self._failed[0]

    def _run(self) -> None:
        [engine] = self.end.engines
        try:
            with self.end.host.inside():
                while self._stop not in select.select([engine, self._stop], [], [])[0]:
                    engine.turn()
        except BaseException as error:
            self._failed.append(error)


# --- wires ---


class Carrier:
    """Carries frames between two links of a host: each comes out after delay (s), or never while it is cut.

    It knows nothing of offloads: what it carries must be whole frames with whole checksums, GRE for example.
    """

    def __init__(self, host: Host, links: tuple[str, str], *, delay: float) -> None:
        self.delay, self.cut = delay, False
        self.swallowed = 0  # packets over GRE and IPv6 that came while it was cut
        self._sockets = [self._open(host, link) for link in links]
        self._stop = os.eventfd(0, os.EFD_CLOEXEC)
        self._thread = threading.Thread(target=self._run, name=f"carrier {links}")
        self._thread.start()

    def close(self) -> None:
        """End it; what is on its way is lost."""
        os.eventfd_write(self._stop, 1)
        self._thread.join()
        os.close(self._stop)
        for each in self._sockets:
            each.close()

    @staticmethod
    def _open(host: Host, link: str) -> socket.socket:
        with host.inside():
            made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        widen(made)
        made.bind((link, ETH_P_ALL))
        made.setblocking(False)
        return made

    def _run(self) -> None:
        on_the_way: deque[tuple[float, socket.socket, bytes]] = deque()
        out = dict(zip(self._sockets, reversed(self._sockets), strict=True))
        while True:
            patience = max(0.0, on_the_way[0][0] - time.monotonic()) if on_the_way else None
            ready = select.select([*self._sockets, self._stop], [], [], patience)[0]
            if self._stop in ready:
                return
            for each in ready:
                self._take(each, out[each], on_the_way)
            while on_the_way and on_the_way[0][0] <= time.monotonic():
                _, sock, frame = on_the_way.popleft()
                with suppress(OSError):  # its far end is down
                    sock.send(frame)

    def _take(
        self, here: socket.socket, there: socket.socket, on_the_way: deque[tuple[float, socket.socket, bytes]]
    ) -> None:
        with suppress(BlockingIOError):
            for _ in range(64):
                frame, about = here.recvfrom(65536)
                if about[2] == PACKET_OUTGOING:
                    continue
                if self.cut:
                    self.swallowed += frame[12:14] == b"\x86\xdd" and frame[20] == GRE
                else:
                    on_the_way.append((time.monotonic() + self.delay, there, frame))


class Relay:
    """A NAT for one tunnel over UDP: what far sends arrives at near from a port that can change."""

    def __init__(self, middle: Host, path: int) -> None:
        self._middle, self._path = middle, path
        self._inside = self._open(gateway(path, 2, 6), TUNNEL_PORT)
        self._outside = self._open(gateway(path, 1, 6), 0)
        self._stop = os.eventfd(0, os.EFD_CLOEXEC)
        self._thread = threading.Thread(target=self._run, name="relay")
        self._thread.start()

    @property
    def port(self) -> int:
        """From which near hears far now."""
        return int(self._outside.getsockname()[1])

    def forget(self) -> None:
        """The mapping is gone; what far sends from now on makes a new one."""
        self._halt()
        self._outside.close()
        self._outside = self._open(gateway(self._path, 1, 6), 0)
        self._thread = threading.Thread(target=self._run, name="relay")
        self._thread.start()

    def close(self) -> None:
        """End it."""
        self._halt()
        os.close(self._stop)
        self._inside.close()
        self._outside.close()

    def _halt(self) -> None:
        os.eventfd_write(self._stop, 1)
        self._thread.join()
        os.eventfd_read(self._stop)

    def _open(self, address: AnyAddress, port: int) -> socket.socket:
        with self._middle.inside():
            made = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        widen(made)
        made.bind((str(address), port))
        return made

    def _run(self) -> None:
        near, far = ((str(underlay_address(self._path, end, 6)), TUNNEL_PORT) for end in (1, 2))
        while self._stop not in (ready := select.select([self._inside, self._outside, self._stop], [], [])[0]):
            for here, there, to in ((self._inside, self._outside, near), (self._outside, self._inside, far)):
                if here in ready:
                    there.sendto(here.recv(65536), to)


# --- the whole ---


class Pair:
    """near and far with paths between them; run() starts the engines."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self.lab = stack.enter_context(Lab())
        self.near, self.far = (End(self._host(name), number) for number, name in enumerate(("near", "far"), 1))
        self.paths = 0
        self._relayed: set[int] = set()

    def _host(self, name: str) -> Host:
        host = self.lab.host(name)
        host.sysctl("net/ipv6/conf/default/accept_dad", 0)
        host.sysctl("net/ipv6/conf/default/addr_gen_mode", 1)
        return host

    # paths: each gives both hosts another link

    def cable(self) -> None:
        """A path that is a cable."""
        path = self._next_path()
        connect(self.near.host, f"eth{path}", self.far.host, f"eth{path}")
        self._addresses(path, 48, 24)
        self.acquaint(path)

    def carrier(self, *, delay: float = 0.0) -> Carrier:
        """A path that can be slow (s) or cut."""
        path = self._next_path()
        middle = self.lab.host(f"middle{path}")
        middle.sysctl("net/ipv6/conf/default/disable_ipv6", 1)
        connect(self.near.host, f"eth{path}", middle, "near")
        connect(self.far.host, f"eth{path}", middle, "far")
        self._addresses(path, 48, 24)
        carrier = Carrier(middle, ("near", "far"), delay=delay)
        self._stack.callback(carrier.close)
        self.acquaint(path)
        return carrier

    def router(self) -> Host:
        """A path with a router on it."""
        path = self._next_path()
        middle = self._host(f"middle{path}")
        middle.sysctl("net/ipv6/conf/all/forwarding", 1)
        middle.sysctl("net/ipv4/ip_forward", 1)
        self._addresses_behind(middle, path)
        self.acquaint(path)
        return middle

    def relay(self) -> Relay:
        """A path with a NAT on it, for tunnels over UDP and IPv6."""
        path = self._next_path()
        middle = self._host(f"middle{path}")
        self._addresses_behind(middle, path)
        relay = Relay(middle, path)
        self._stack.callback(relay.close)
        self._relayed.add(path)
        return relay

    def _next_path(self) -> int:
        self.paths += 1
        return self.paths

    def _addresses(self, path: int, length: int, length4: int) -> None:
        for end in (self.near, self.far):
            end.host.address(f"eth{path}", f"{underlay_address(path, end.number, 6)}/{length}")
            give_ipv4(end.host, f"eth{path}", f"{underlay_address(path, end.number, 4)}/{length4}")
            wait_for_address(end.host, str(underlay_address(path, end.number, 6)))

    def _addresses_behind(self, middle: Host, path: int) -> None:
        for end in (self.near, self.far):
            connect(end.host, f"eth{path}", middle, end.host.name)
            middle.address(end.host.name, f"{gateway(path, end.number, 6)}/64")
            give_ipv4(middle, end.host.name, f"{gateway(path, end.number, 4)}/25")
            link_local = f"fe80::{path}:{end.number}"  # a router asks for its neighbours from there
            middle.address(end.host.name, f"{link_local}/64")
            wait_for_address(middle, link_local)
            wait_for_address(middle, str(gateway(path, end.number, 6)))
        self._addresses(path, 64, 25)
        for end, peer in ((self.near, self.far), (self.far, self.near)):
            end.host.route(f"2001:db8:{path}:{peer.number}::/64", via=str(gateway(path, end.number, 6)))
            network = IPv4Network((underlay_address(path, peer.number, 4), 25), strict=False)
            route_ipv4(end.host, str(network), str(gateway(path, end.number, 4)))

    def acquaint(self, path: int) -> None:
        """Let the hosts find each other: packets that wait for a neighbour's answer may be lost."""
        for version in (6, 4):
            family = socket.AF_INET6 if version == 6 else socket.AF_INET
            with self.far.host.inside():
                there = socket.socket(family, socket.SOCK_RAW, NO_PROTOCOL)
            with self.near.host.inside():
                here = socket.socket(family, socket.SOCK_RAW, NO_PROTOCOL)
            with here, there:
                there.setblocking(False)
                hear_from(here, there, str(underlay_address(path, 2, version)))

    # engines

    def run(
        self,
        underlay: str = "udp6",
        *,
        offloads: Offloads = ALL,
        workers: int = 0,
        mtu: int = DEVICE_MTU,
        sequence: bool = False,
        port: int = TUNNEL_PORT,
        bound: bool = True,
    ) -> list[Tunnel]:
        """Start both engines, with all prefixes bound to the first path; the tunnels of near, path by path.

        workers: 0: served from a loop. port: from which near hears far.
        """
        for end in (self.near, self.far):
            listed = [
                end.open(underlay, self.paths, offloads=offloads, worker=worker, workers=workers)
                for worker in range(max(1, workers))
            ]
            end.switch_on(mtu)
            self._serve(end, listed, workers)
        tunnels = [self.tunnel(self.near, underlay, path, sequence, port) for path in range(1, self.paths + 1)]
        if bound:
            self.bind(self.near, tunnels[0])
            self.bind(self.far, self.tunnel(self.far, underlay, 1, sequence))
        return tunnels

    def _serve(self, end: End, listed: list[list[Port]], workers: int) -> None:
        for port in (port for ports in listed for port in ports):
            self._stack.callback(port.close)
        if workers:
            with end.host.inside():  # threads begin where we are
                running = Workers(end.tables, listed)
                end.engines = running.engines
                running.start()
            self._stack.callback(running.stop)
            return
        engine = Engine(end.tables)
        for port in listed[0]:
            engine.add_port(port)
        end.engines = [engine]
        self._stack.callback(Turning(end).stop)

    def tunnel(
        self, end: End, underlay: str, path: int, sequence: bool = False, port: int = TUNNEL_PORT
    ) -> Tunnel:
        """The tunnel of a path, seen from an end."""
        kind = UNDERLAYS[underlay]
        return Tunnel(
            local=underlay_address(path, end.number, kind.version),
            remote=self._remote(path, end, kind.version),
            encapsulation=kind.encapsulation,
            sequence=sequence,
            port=port,
        )

    def _remote(self, path: int, end: End, version: int) -> AnyAddress:
        if path in self._relayed:
            return gateway(path, end.number, version)
        return underlay_address(path, 3 - end.number, version)

    def bind(self, end: End, to: Tunnel | Bundle, policy: Policy | None = None) -> None:
        """All prefixes of an end."""
        for prefix in PREFIXES:
            end.tables.bind(prefix, to, side=Side.ANCHOR if end is self.near else Side.ACCESS, policy=policy)

    # programs

    def connection(self, version: int = 6) -> tuple[socket.socket, socket.socket]:
        """A TCP connection: what near and what far has of it."""
        with self.far.socket(version, socket.SOCK_STREAM) as listening:
            listening.listen()
            here = self.near.socket(version, socket.SOCK_STREAM)
            here.connect(listening.getsockname())
            there, _ = listening.accept()
        return here, there


def hear_from(here: socket.socket, there: socket.socket, address: str) -> None:
    """Say something, again and again, until it is heard."""

    def heard() -> bool:
        here.sendto(b"hello", (address, 0))
        with suppress(BlockingIOError):
            return bool(there.recv(10))
        return False

    eventually(heard, PATIENCE, "the path carries packets")


@contextmanager
def pair() -> Iterator[Pair]:
    """Both hosts; engines, wires and hosts are gone at the end."""
    with ExitStack() as stack:
        yield Pair(stack)


# --- what is sent, and how it is compared ---

BLOCK = (1 << 20) + 7  # octets: no size of a packet, a bundle or a buffer has much in common with it
STEP = 104_729  # octets by which each block is turned against the one before
PATTERN = os.urandom(BLOCK) * 2


def block(number: int) -> bytes:
    """The block of that number of an endless stream; no two that are near each other begin alike."""
    at = number * STEP % BLOCK
    return PATTERN[at : at + BLOCK]


def pour(sock: socket.socket, octets: int) -> None:
    """Send the first octets of the stream."""
    number = 0
    while octets:
        part = block(number)[:octets]
        sock.sendall(part)
        octets -= len(part)
        number += 1


def drink(sock: socket.socket, octets: int) -> None:
    """Receive the first octets of the stream; fails at the first that differs."""
    buffer = bytearray(BLOCK)
    number = 0
    while octets:
        part = memoryview(buffer)[: min(BLOCK, octets)]
        fill(sock, part)
        if bytes(part) != block(number)[: len(part)]:
            complain(number, bytes(part))
        octets -= len(part)
        number += 1


def fill(sock: socket.socket, room: memoryview) -> None:
    while room:
        got = sock.recv_into(room, 0, socket.MSG_WAITALL)
        assert got, "the connection was closed too early"
        room = room[got:]


def complain(number: int, got: bytes) -> NoReturn:
    at = next(i for i, (is_, should) in enumerate(zip(got, block(number), strict=False)) if is_ != should)
    raise AssertionError(f"octet {number * BLOCK + at} of the stream is wrong")


def together(*work: Callable[[], object]) -> None:
    """Do all of it at once, each in a thread of its own; raises the first failure."""
    with ThreadPoolExecutor(len(work)) as threads:
        for each in [threads.submit(one) for one in work]:
            each.result()


def transfer(pair_: Pair, octets: int, *, back: int = 0, version: int = 6) -> None:
    """A TCP connection that carries so many octets from near to far, and back, at once; every one is compared."""
    here, there = pair_.connection(version)
    with here, there:
        both = [(here, there, octets), (there, here, back)]
        together(
            *(lambda of=of, n=n: pour(of, n) for of, _, n in both),  # type: ignore[misc]
            *(lambda at=at, n=n: drink(at, n) for _, at, n in both),  # type: ignore[misc]
        )


def datagrams(sender: socket.socket, receiver: socket.socket, payloads: Sequence[bytes]) -> None:
    """Send them at once, and receive as many: the same, in order, each once."""
    for payload in payloads:
        sender.sendto(payload, receiver.getsockname())
    came = [receiver.recv(65536) for _ in payloads]
    assert [len(each) for each in came] == [len(each) for each in payloads]
    assert came == list(payloads)


def nothing_more(receiver: socket.socket) -> None:
    """Nothing waits there."""
    waiting = []
    with suppress(BlockingIOError):
        waiting.append(receiver.recv(65536, socket.MSG_DONTWAIT))
    assert waiting == []


def numbered(first: int, count: int, length: int = 100) -> list[bytes]:
    """Datagrams that differ, of one length."""
    return [n.to_bytes(8, "big") + PATTERN[n : n + length - 8] for n in range(first, first + count)]


