"""DHCP and ARP of the access links: frames to and from the address service, and what it tells the role.

Packet sockets, one for each kind of frame: a UDP socket would neither tell the link-layer address a question came from,
nor reach a client that has no address yet. Filters in the kernel let through what is for a DHCP server, and ARP
requests: data packets never wake Python.

The kernel's own proxy ARP would not do: it answers only what it can route elsewhere at that moment, and by default up
to 0.8 s late, while a node that has just moved sends at once.
"""

import asyncio
import errno
import os
import socket
import struct
import time
from collections.abc import Callable
from ctypes import addressof, create_string_buffer
from ipaddress import IPv4Address

from router.errors import InUse, NoInterface, NoRights, RouterError
from router.links.attach import ETHERNET, Identities
from signaling.actions import GiveAddress
from signaling.address_service import AddressService, Answer, Frame
from signaling.events import Event
from signaling.iana import DHCPV4_SERVER_PORT, DHCPV6_SERVER_PORT, ArpOperation, EtherType, ProtocolNumber
from signaling.settings import Counters, Settings
from signaling.wire.udp import Checksum

READS = 64  # frames a wake-up, so that a flood from one link cannot hold the loop
MAX_FRAME = 2048  # octets
SO_ATTACH_FILTER = 26
SOL_PACKET, PACKET_ADD_MEMBERSHIP, PACKET_AUXDATA = 263, 1, 8
PACKET_MR_MULTICAST = 0
CHECKSUM_NOT_READY = 1 << 3  # TP_STATUS_CSUMNOTREADY
ALL_SERVERS_LINK_LAYER = bytes.fromhex("333300010002")  # of ff02::1:2, RFC 2464 7
FOR_US = {socket.PACKET_HOST, socket.PACKET_BROADCAST, socket.PACKET_MULTICAST}

OnFrame = Callable[[EtherType, bytes, bytes, Checksum], None]  # packet, link-layer source

# --- the filters: classic BPF, on the packet without its link-layer header ---

LD_BYTE, LD_HALF, LD_HALF_AT_X, LDX_HEADER_LENGTH = 0x30, 0x28, 0x48, 0xB1
JUMP_IF_EQUAL, JUMP_IF_SET, RETURN = 0x15, 0x45, 0x06
PASS, DROP = 0xFFFF, 0


def _op(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("HBBI", code, if_true, if_false, value)


NOTHING = [_op(RETURN, DROP)]
FILTERS = {
    EtherType.IPV4: [
        _op(LD_BYTE, 9),  # protocol
        _op(JUMP_IF_EQUAL, ProtocolNumber.UDP, 0, 6),
        _op(LD_HALF, 6),  # fragment offset
        _op(JUMP_IF_SET, 0x1FFF, 4, 0),
        _op(LDX_HEADER_LENGTH, 0),
        _op(LD_HALF_AT_X, 2),  # destination port
        _op(JUMP_IF_EQUAL, DHCPV4_SERVER_PORT, 0, 1),
        _op(RETURN, PASS),
        _op(RETURN, DROP),
    ],
    EtherType.IPV6: [
        _op(LD_BYTE, 6),  # next header
        _op(JUMP_IF_EQUAL, ProtocolNumber.UDP, 0, 3),
        _op(LD_HALF, 42),  # destination port
        _op(JUMP_IF_EQUAL, DHCPV6_SERVER_PORT, 0, 1),
        _op(RETURN, PASS),
        _op(RETURN, DROP),
    ],
    EtherType.ARP: [
        _op(LD_HALF, 6),  # operation
        _op(JUMP_IF_EQUAL, ArpOperation.REQUEST, 0, 1),
        _op(RETURN, PASS),
        _op(RETURN, DROP),
    ],
}


class AddressSocket:
    """The frames of one access link that ask for addresses."""

    def __init__(self, interface: str) -> None:
        """Open and bind to an interface. Raises NoRights, InUse, NoInterface."""
        self.interface = interface
        self._sockets: dict[EtherType, socket.socket] = {}
        self._sink: socket.socket | None = None
        try:
            for ether_type in FILTERS:
                self._sockets[ether_type] = _packet_socket(interface, ether_type)
            self._sink = _sink(interface)
        except OSError as error:
            self._close_all()
            raise _opening_error(error, interface) from None

    def serve(self, loop: asyncio.AbstractEventLoop, on_frame: OnFrame) -> None:
        """Call on_frame for everything that passes the filters."""
        self._loop, self._on_frame = loop, on_frame
        for ether_type, opened in self._sockets.items():
            loop.add_reader(opened.fileno(), self._read, ether_type)

    def send(self, answer: Answer) -> str | None:
        """Send an answer. Returns why it could not leave; the client asks again."""
        target = (self.interface, answer.ether_type, 0, 0, answer.link_layer)
        try:
            self._sockets[answer.ether_type].sendto(answer.packet, target)
        except OSError as error:
            return os.strerror(error.errno or 0)
        return None

    @property
    def link_layer(self) -> bytes:
        """Address of the interface, as it is now."""
        address: bytes = self._sockets[EtherType.ARP].getsockname()[4]
        return address

    def close(self, loop: asyncio.AbstractEventLoop) -> None:
        """Stop reading and close."""
        for opened in self._sockets.values():
            loop.remove_reader(opened.fileno())
        self._close_all()

    def _close_all(self) -> None:
        for opened in self._sockets.values():
            opened.close()
        if self._sink is not None:
            self._sink.close()

    def _read(self, ether_type: EtherType) -> None:
        opened = self._sockets[ether_type]
        for _ in range(READS):
            try:
                packet, notes, _flags, address = opened.recvmsg(MAX_FRAME, socket.CMSG_SPACE(64))
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                # the interface went down, netlink tells the rest; uvloop hears nothing more after an error
                self._loop.remove_reader(opened.fileno())
                self._loop.add_reader(opened.fileno(), self._read, ether_type)
                return
            _name, _protocol, kind, _type, link_layer = address
            if kind in FOR_US:
                self._on_frame(ether_type, packet, link_layer, _checksum(notes))


class AddressServer:
    """DHCP on every access link of a MAG: one address service, a socket for each link, one timer."""

    def __init__(
        self,
        settings: Settings,
        identities: Identities,
        counters: Counters,
        on_event: Callable[[Event], None],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.service = AddressService(settings, counters)
        self._identities = identities
        self._counters = counters
        self._on_event = on_event
        self._now = now
        self._sockets: dict[str, AddressSocket] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None

    def open(self, loop: asyncio.AbstractEventLoop, interface: str) -> None:
        """Answer on an access link from now on. Raises NoRights, InUse, NoInterface."""
        self.close(loop, interface)
        self._loop = loop
        opened = AddressSocket(interface)
        self._sockets[interface] = opened

        def on_frame(ether_type: EtherType, packet: bytes, link_layer: bytes, checksum: Checksum) -> None:
            self._frame(interface, ether_type, packet, link_layer, checksum)

        opened.serve(loop, on_frame)

    def close(self, loop: asyncio.AbstractEventLoop, interface: str | None = None) -> None:
        """Answer on this access link no more; None: on none."""
        for name in [interface] if interface is not None else list(self._sockets):
            if (opened := self._sockets.pop(name, None)) is not None:
                opened.close(loop)
        if self._timer is not None and not self._sockets:
            self._timer.cancel()
            self._timer = None

    def give(self, action: GiveAddress) -> None:
        """Perform what the role decided: whoever waits for it is answered."""
        self._send(self.service.give(action, self._now()))
        self._set_timer()

    def forget(self, node: str) -> None:
        """The node is on no link of ours any more."""
        self.service.forget(node)

    def rows(self) -> list[dict[str, object]]:
        """What is leased, for `show leases`."""
        return self.service.rows(self._now())

    def _frame(
        self, interface: str, ether_type: EtherType, packet: bytes, link_layer: bytes, checksum: Checksum
    ) -> None:
        if not self._identities.may_be_a_node(link_layer):
            return
        frame = Frame(
            node=self._identities.of(link_layer),
            interface=interface,
            link_layer=link_layer,
            ether_type=ether_type,
            packet=packet,
            checksum=checksum,
            ours=self._sockets[interface].link_layer,
        )
        outcome = self.service.receive(frame, self._now())
        self._send(outcome.answers)
        for event in outcome.events:
            self._on_event(event)
        self._set_timer()

    def _send(self, answers: tuple[Answer, ...]) -> None:
        for answer in answers:
            opened = self._sockets.get(answer.interface)
            if opened is None or opened.send(answer) is not None:
                self._counters["dhcp.not-sent"] += 1

    def _set_timer(self) -> None:
        due = self.service.next_wake
        if self._timer is None and due is not None and self._loop is not None and self._sockets:
            self._timer = self._loop.call_later(max(0.0, due - self._now()), self._wake)

    def _wake(self) -> None:
        self._timer = None
        self.service.wake(self._now())
        self._set_timer()


def _checksum(notes: list[tuple[int, int, bytes]]) -> Checksum:
    """What the kernel notes beside a packet: one of a neighbour on this machine has no checksum yet."""
    for level, kind, data in notes:
        if (level, kind) == (SOL_PACKET, PACKET_AUXDATA) and struct.unpack_from("I", data)[0] & CHECKSUM_NOT_READY:
            return Checksum.UNFINISHED
    return Checksum.VERIFY


def _packet_socket(interface: str, ether_type: EtherType) -> socket.socket:
    # bound only after the filter is in place, so that nothing unfiltered is queued
    opened = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK, 0)
    try:
        _attach(opened, FILTERS[ether_type])
        opened.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
        opened.bind((interface, ether_type))
        if ether_type is EtherType.IPV6:
            opened.setsockopt(SOL_PACKET, PACKET_ADD_MEMBERSHIP, _all_servers(interface))
    except BaseException:
        opened.close()
        raise
    return opened


def _all_servers(interface: str) -> bytes:
    """struct packet_mreq: the network card must let the group of DHCPv6 servers through."""
    index = socket.if_nametoindex(interface)
    return struct.pack("iHH8s", index, PACKET_MR_MULTICAST, ETHERNET, ALL_SERVERS_LINK_LAYER)


def _sink(interface: str) -> socket.socket:
    """A socket that hears nothing, so that the kernel does not say "port unreachable" to those whom we answer."""
    opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    try:
        _attach(opened, NOTHING)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
        opened.bind((str(IPv4Address(0)), DHCPV4_SERVER_PORT))
    except BaseException:
        opened.close()
        raise
    return opened


def _attach(opened: socket.socket, program: list[bytes]) -> None:
    octets = create_string_buffer(b"".join(program))
    opened.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HL", len(program), addressof(octets)))


def _opening_error(error: OSError, interface: str) -> RouterError:
    text = f"DHCP on {interface}: {os.strerror(error.errno or 0).lower()}"
    if error.errno in (errno.EPERM, errno.EACCES):
        return NoRights(f"{text}: run as root, or with --cap-add NET_RAW and NET_BIND_SERVICE")
    if error.errno == errno.EADDRINUSE:
        return InUse(f"{text}: another DHCP server runs here: end that")
    if error.errno in (errno.ENODEV, errno.ENXIO):
        return NoInterface(text)
    return RouterError(text)
