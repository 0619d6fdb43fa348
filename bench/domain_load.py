"""Any number of mobile nodes in one process: they come, move between MARs, and see how soon they are served.

A node is what it sends: router solicitations, from its own link-layer address, on the access link where it is, and an
answer when a router asks whether it is there. A move is over when every anchor of its prefixes has accepted the update
of the router it came to: the acknowledgements are seen in the core, which they cross, and timed by the kernel.
"""

from __future__ import annotations

import random
import select
import socket
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from ipaddress import IPv6Address
from types import TracebackType
from typing import Self

from router.demo.topology import World, underlay_address
from router.errors import RouterError
from signaling.iana import MobilityHeaderType, ProtocolNumber
from signaling.wire import ipv6
from signaling.wire.message import Message
from signaling.wire.neighbor import (
    NeighborAdvertisement,
    RouterSolicitation,
    SourceLinkLayerAddress,
    TargetLinkLayerAddress,
)
from signaling.wire.options.option import frames

ETH_P_ALL, ETH_P_IPV6 = 0x0003, 0x86DD
PACKET_OUTGOING = 4
SO_RCVBUFFORCE, SO_TIMESTAMPNS = 33, 35
BUFFER = 16 << 20  # octets
ROOM = socket.CMSG_SPACE(16)
LONGEST = 2048  # octets of a frame
IPV6_HEADER, UDP_HEADER, BEFORE_OPTIONS = 40, 8, 12
SIGNALLING_PORT = 5436
ALL_ROUTERS = IPv6Address("ff02::2")
ROUTERS_LINK_LAYER = bytes.fromhex("333300000002")
LINK_LOCAL = IPv6Address("fe80::")
ACK = int(MobilityHeaderType.BINDING_ACKNOWLEDGEMENT)
NODE_OPTION, PREFIX_OPTION = 8, 22
ROUTER_ADVERTISEMENT, NEIGHBOR_SOLICITATION = 134, 135  # ICMPv6
GIVE_UP = 5.0  # s for a move
LOOK_EVERY = 0.1  # s for what takes too long
ETHERNET = struct.Struct("!6s6sH")


@dataclass(slots=True)
class Node:
    """A node, where it is, and where it has been."""

    number: int
    link_layer: bytes
    address: IPv6Address  # its link-local one
    at: str = ""
    anchors: set[str] = field(default_factory=set)  # routers that have lent it a prefix


@dataclass(slots=True)
class Journey:
    """A move, or a first attachment, that is not over. Times: CLOCK_REALTIME, s."""

    node: Node
    began: float
    waits: set[str]  # anchors that have not accepted it yet


@dataclass(slots=True)
class Outcome:
    """What came of a number of moves."""

    seconds: float = 0.0
    delays: list[float] = field(default_factory=list)  # s from the solicitation to the last acknowledgement
    lost: int = 0

    def within(self, share: float) -> float:
        """The delay, s, that so large a share of the moves did not exceed."""
        return sorted(self.delays)[min(len(self.delays) - 1, int(share * len(self.delays)))]


class Crowd:
    """The nodes of a world without any: on the access links of its MARs, one packet socket each."""

    def __init__(self, world: World, count: int, dice: random.Random) -> None:
        self._dice = dice
        self._routers = {underlay_address(number).packed: name for number, name in enumerate(world.mars, 1)}
        self.nodes = [make_node(number) for number in range(count)]
        self._by_link_layer = {node.link_layer: node for node in self.nodes}
        self._journeys: dict[int, Journey] = {}
        self._over = Outcome()  # of the run: what is over
        self._open = ExitStack()
        self._links: dict[str, socket.socket] = {}
        with self._open:
            for number, name in enumerate(world.mars, 1):
                world["air"].link_up(f"acc{number}")
                self._links[name] = self._listen(world, "air", f"acc{number}")
            self._tap = self._listen(world, "core", "")
            self._tap.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
            self._handlers: dict[int, Callable[[], None]] = {self._tap.fileno(): self._hear_core}
            for name, sock in self._links.items():
                self._handlers[sock.fileno()] = partial(self._hear_link, name)
            self._poll = select.poll()
            for descriptor in self._handlers:
                self._poll.register(descriptor, select.POLLIN)
            self._open = self._open.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def _listen(self, world: World, host: str, interface: str) -> socket.socket:
        """Frames on an interface, or IPv6 on all that the host has."""
        protocol = 0 if interface else socket.htons(ETH_P_IPV6)  # 0: nothing, until it is bound
        with world[host].inside():
            sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, protocol)
        self._open.enter_context(sock)
        sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER)
        if interface:
            sock.bind((interface, ETH_P_ALL))  # of one protocol only, a port of a bridge shows nothing
        return sock

    # --- what nodes do ---

    def arrive(self, *, window: int) -> Outcome:
        """Each node comes to some router for the first time, so many at once; nobody has to be asked about it."""
        routers = list(self._links)
        arrivals = ((node, routers[node.number % len(routers)]) for node in self.nodes)
        return self._run([partial(next, arrivals)] * len(self.nodes), window=window, rate=None)

    def move(self, count: int, *, window: int, rate: float | None) -> Outcome:
        """So many moves of nodes chosen at random: so many at once, or so many a second.

        Raises RouterError if none was served.
        """
        return self._run([self._some_move] * count, window=window, rate=rate)

    def _some_move(self) -> tuple[Node, str]:
        while (node := self._dice.choice(self.nodes)).number in self._journeys:
            pass
        return node, self._dice.choice([name for name in self._links if name != node.at])

    def _run(self, journeys: Sequence[Callable[[], tuple[Node, str]]], *, window: int, rate: float | None) -> Outcome:
        self._over = outcome = Outcome()
        window = min(window, len(self.nodes))  # a node makes one move at a time
        began = time.monotonic()
        for number, journey in enumerate(journeys):
            due = began if rate is None else began + number / rate
            while len(self._journeys) >= window:
                self._serve(GIVE_UP)
            node, router = journey()  # now, as a node that is under way cannot be chosen
            while (early := due - time.monotonic()) > 0:
                self._serve(early)
            self._begin(node, router)
        while self._journeys:
            self._serve(GIVE_UP)
        outcome.seconds = time.monotonic() - began
        if not outcome.delays:
            raise RouterError(f"no node was served within {GIVE_UP:g} s")
        return outcome

    def _begin(self, node: Node, router: str) -> None:
        journey = Journey(node, time.time(), node.anchors - {router})
        node.at = router
        node.anchors.add(router)
        self._journeys[node.number] = journey
        source = SourceLinkLayerAddress(address=node.link_layer)
        self._say(node, RouterSolicitation(options=(source,)), ALL_ROUTERS, ROUTERS_LINK_LAYER)

    def _say(self, node: Node, message: Message, to: IPv6Address, link_layer: bytes) -> None:
        head = ETHERNET.pack(link_layer, node.link_layer, ETH_P_IPV6)
        self._links[node.at].send(head + ipv6.carry(message, node.address, to))

    # --- what nodes and the core hear ---

    def _serve(self, seconds: float) -> None:
        """Hear what there is to hear, within that time; give up what takes too long."""
        for descriptor, _ in self._poll.poll(min(seconds, LOOK_EVERY) * 1e3):
            self._handlers[descriptor]()
        while self._journeys and (oldest := next(iter(self._journeys.values()))).began + GIVE_UP < time.time():
            self._over.lost += 1
            del self._journeys[oldest.node.number]

    def _hear_link(self, router: str) -> None:
        """A router asks whether one of the nodes is there, or offers it a prefix."""
        for frame, outgoing, at in received(self._links[router]):
            packet = frame[ETHERNET.size :]
            if outgoing or not is_ipv6(frame) or packet[6] != ProtocolNumber.ICMPV6:
                continue
            if packet[IPV6_HEADER] == NEIGHBOR_SOLICITATION:
                self._answer(router, packet, frame[6:12])
            elif packet[IPV6_HEADER] == ROUTER_ADVERTISEMENT and (node := self._by_link_layer.get(frame[:6])):
                self._end(node, at)  # who comes for the first time waits for nothing else

    def _answer(self, router: str, packet: bytes, link_layer: bytes) -> None:
        target = IPv6Address(packet[IPV6_HEADER + 8 : IPV6_HEADER + 24])
        node = self._by_link_layer.get(link_layer_of(target))
        if node is not None and node.at == router:
            own = TargetLinkLayerAddress(address=node.link_layer)
            answer = NeighborAdvertisement(target=target, solicited=True, override=True, options=(own,))
            self._say(node, answer, IPv6Address(packet[8:24]), link_layer)

    def _end(self, node: Node, at: float) -> None:
        journey = self._journeys.get(node.number)
        if journey is not None and not journey.waits:
            self._over.delays.append(at - journey.began)
            del self._journeys[node.number]

    def _hear_core(self) -> None:
        """An anchor has accepted the update of the router that a node came to."""
        for frame, outgoing, at in received(self._tap):
            packet = frame[ETHERNET.size :]
            header = acknowledged(packet) if not outgoing else None
            if header is None:
                continue
            node = self._node_of(header)
            journey = None if node is None else self._journeys.get(node.number)
            if journey is None or self._routers.get(packet[24:40]) != journey.node.at:
                continue
            journey.waits.discard(self._routers.get(packet[8:24], ""))
            self._end(journey.node, at)

    def _node_of(self, header: bytes) -> Node | None:
        for number, begin, end in frames(header, BEFORE_OPTIONS):
            if number == NODE_OPTION:
                name = header[begin + 1 : end].partition(b"@")[0].replace(b"-", b"")
                return self._by_link_layer.get(bytes.fromhex(name.decode()))
        return None


def make_node(number: int) -> Node:
    """Node number, counted from 0."""
    link_layer = b"\x02\x10" + number.to_bytes(4, "big")
    identifier = bytes((link_layer[0] ^ 2,)) + link_layer[1:3] + b"\xff\xfe" + link_layer[3:]
    return Node(number, link_layer, IPv6Address(LINK_LOCAL.packed[:8] + identifier))


def is_ipv6(frame: bytes) -> bool:
    """Whether an Ethernet frame has an IPv6 packet in it."""
    return frame[12:14] == ETH_P_IPV6.to_bytes(2, "big") and len(frame) > ETHERNET.size + IPV6_HEADER


def link_layer_of(address: IPv6Address) -> bytes:
    """The link-layer address that a link-local one was made from (RFC 4291, appendix A)."""
    identifier = address.packed[8:]
    return bytes((identifier[0] ^ 2,)) + identifier[1:3] + identifier[5:]


def acknowledged(packet: bytes) -> bytes | None:
    """The Mobility Header of an IPv6 packet that says a registration is accepted, or None."""
    begin = IPV6_HEADER
    if packet[6] == ProtocolNumber.UDP and int.from_bytes(packet[42:44], "big") == SIGNALLING_PORT:
        begin += UDP_HEADER
    elif packet[6] != ProtocolNumber.MOBILITY_HEADER:
        return None
    header = packet[begin:]
    accepted = header[2] == ACK and header[6] < 128 and header[10:12] != b"\0\0"
    return header[: (header[1] + 1) * 8] if accepted else None


def received(sock: socket.socket) -> Iterator[tuple[bytes, bool, float]]:
    """Every frame that waits, whether it left the host, and when the kernel saw it (CLOCK_REALTIME, s)."""
    while True:
        try:
            frame, ancillary, _, address = sock.recvmsg(LONGEST, ROOM)
        except BlockingIOError:
            return
        at = time.time()
        for _, kind, data in ancillary:
            if kind == SO_TIMESTAMPNS:
                seconds, nanoseconds = struct.unpack("qq", data)
                at = seconds + nanoseconds / 1e9
        yield frame, address[2] == PACKET_OUTGOING, at
