"""Sockets that Python reads: Mobility Headers from peers, frames of the access links. No data packet passes here."""

import asyncio
import errno
import os
import socket
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from ctypes import addressof, create_string_buffer
from functools import lru_cache
from ipaddress import IPv4Address, ip_address
from types import MappingProxyType

from router.errors import InUse, NoInterface, NoRights, RouterError
from signaling.errors import MalformedMessage
from signaling.iana import PROXY_MOBILE_IPV6_DATA_PORT as DATA_PORT
from signaling.iana import PROXY_MOBILE_IPV6_SIGNALING_PORT as UDP_PORT
from signaling.iana import Icmpv6Type, ProtocolNumber
from signaling.settings import Address, Transport
from signaling.wire import udp

READS = 64  # datagrams a wake-up, so that a flood from one socket cannot hold the loop
MAX_DATAGRAM = 65536  # octets
MAX_MESSAGE = 2064  # octets; Header Len counts to 2048 (RFC 6275 6.1.1): what is cut off has no place in it
ETH_P_IPV6 = 0x86DD
SO_ATTACH_FILTER = 26
SOL_PACKET, PACKET_IGNORE_OUTGOING = 263, 23  # not in the socket module
MAX_FILTERED_NODES = 500  # above, data packets of strangers announce nobody: the filter would get too long
IPV4_HEADER = 20  # octets, without options
MOST_SOURCES = 65536  # peers whose address is remembered in both of its forms: making one of the other takes long
RECEIVE_BUFFER = 4 << 20  # octets; a kernel counts some 1 KiB for a message: 0.2 s of a busy anchor
MOST_WAITING = 1000  # frames: what a socket keeps is less than that
SO_RCVBUFFORCE = 33  # <asm-generic/socket.h>

# octets, source, UDP source port or 0, destination; and True, if it came to the UDP port of tunnels
OnDatagram = Callable[..., None]
OnFrame = Callable[[bytes, bytes], None]  # IPv6 packet, link-layer source


class SignalingSocket:
    """Mobility Headers to and from one of our addresses: a raw socket of protocol 135, or UDP port 5436.

    An IPv4 address has UDP, whatever the transport (RFC 5844 4). The kernel fills in the checksum of what leaves by
    protocol 135, and drops what comes in with a wrong one.
    """

    def __init__(self, address: Address, transport: Transport, opened: Sequence[socket.socket] = ()) -> None:
        """Open and bind; opened: what another process has, as `sockets` of it. Raises NoRights, InUse, NoInterface."""
        self.address = address
        self._udp = udp = transport is Transport.UDP or address.version == 4
        self._sources: dict[str, Address] = {}
        self._hosts: dict[Address, str] = {}
        if opened:
            self.socket, self._errors = opened[0], opened[1] if len(opened) > 1 else None
            return
        where = f"UDP port {UDP_PORT}" if udp else f"protocol {ProtocolNumber.MOBILITY_HEADER}"
        try:
            family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
            kind = socket.SOCK_DGRAM if udp else socket.SOCK_RAW
            protocol = 0 if udp else ProtocolNumber.MOBILITY_HEADER
            self.socket = socket.socket(family, kind | socket.SOCK_NONBLOCK, protocol)
            self.socket.bind((str(address), UDP_PORT if udp else 0))
        except OSError as error:
            raise _opening_error(error, f"signalling on {address}, {where}", address) from None
        self._errors = None if udp else _raw_icmp(address)
        _enlarge(self.socket)

    @property
    def sockets(self) -> tuple[socket.socket, ...]:
        """All it has open."""
        return (self.socket,) if self._errors is None else (self.socket, self._errors)

    def pause(self, loop: asyncio.AbstractEventLoop) -> None:
        """Read nothing until serve is called again."""
        loop.remove_reader(self.socket.fileno())

    def serve(self, loop: asyncio.AbstractEventLoop, on_datagram: OnDatagram) -> None:
        """Call on_datagram for everything that comes in."""
        self._loop, self._on_datagram = loop, on_datagram
        loop.add_reader(self.socket.fileno(), self.read)

    def read(self) -> None:
        """Take in what waits."""
        receive, sources, told = self.socket.recvfrom, self._sources, self._on_datagram
        for _ in range(READS):
            try:
                octets, peer = receive(MAX_MESSAGE)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                if self.socket.fileno() < 0:  # closed by what a message led to
                    return
                # an ICMPv6 error about something we sent: repeating that is the role's.
                # uvloop hears nothing more after it
                self._loop.remove_reader(self.socket.fileno())
                self._loop.add_reader(self.socket.fileno(), self.read)
                return
            source = sources.get(peer[0]) or self._learn(peer[0])
            told(octets, source, peer[1] if self._udp else 0, self.address)

    def _learn(self, host: str) -> Address:
        """An address as an object."""
        if len(self._sources) >= MOST_SOURCES:
            self._sources.clear()
        address = self._sources[host] = ip_address(host.partition("%")[0])
        return address

    def _host(self, address: Address) -> str:
        host = self._hosts.get(address)
        if host is None:
            if len(self._hosts) >= MOST_SOURCES:
                self._hosts.clear()
            host = self._hosts[address] = str(address)
        return host

    def send(self, octets: bytes, destination: Address, port: int = 0) -> str | None:
        """Send to a peer. Returns why it could not leave, None when it has; the role repeats what matters."""
        try:
            self.socket.sendto(octets, (self._host(destination), (port or UDP_PORT) if self._udp else 0))
        except OSError as error:
            return os.strerror(error.errno or 0)
        return None

    def send_error(self, octets: bytes, destination: Address) -> None:
        """Send an ICMPv6 error message; best effort, as all of them."""
        if self._errors is not None:
            try:
                self._errors.sendto(octets, (str(destination), 0))
            except OSError:
                return

    def close(self, loop: asyncio.AbstractEventLoop | None) -> None:
        """Stop reading, if a loop does, and close."""
        if loop is not None:
            loop.remove_reader(self.socket.fileno())
        self.socket.close()
        if self._errors is not None:
            self._errors.close()


class BesideData:
    """Mobility Headers from and to the UDP port of tunnels at one of our IPv4 addresses.

    Whatever a NAT makes of data it makes of them, so who has signed one tells where its data comes from. They are told
    apart by the first octet: Payload Proto 59, where data has its IP version. A raw socket beside that of the engine:
    a filter in the kernel lets nothing else through. A TTL of 255 keeps the kernel from joining them to data (GRO).
    """

    def __init__(self, address: IPv4Address, loop: asyncio.AbstractEventLoop, on_datagram: OnDatagram) -> None:
        """Open and bind. Raises NoRights, InUse, NoInterface."""
        self.address = address
        self._loop = loop
        self._on_datagram = on_datagram
        try:
            self.socket = socket.socket(socket.AF_INET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, ProtocolNumber.UDP)
            _attach(self.socket, beside_data_filter())
            self.socket.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 255)
            self.socket.bind((str(address), 0))
        except OSError as error:
            raise _opening_error(error, f"probes on {address}, UDP port {DATA_PORT}", address) from None
        loop.add_reader(self.socket.fileno(), self._read)

    def _read(self) -> None:
        for _ in range(READS):
            try:
                datagram = udp.decode(self.socket.recv(MAX_DATAGRAM))
            except (BlockingIOError, InterruptedError):
                return
            except MalformedMessage:
                continue
            except OSError:  # as in SignalingSocket
                self._loop.remove_reader(self.socket.fileno())
                self._loop.add_reader(self.socket.fileno(), self._read)
                return
            if datagram.destination_port == DATA_PORT:  # what came before the filter was there
                source, port = datagram.source, datagram.source_port
                self._on_datagram(datagram.payload, source, port, self.address, True)

    def send(self, octets: bytes, destination: Address, port: int) -> str | None:
        """Send to the data port of a peer. Returns why it could not leave."""
        datagram = udp.Datagram(
            source=self.address, destination=destination, source_port=DATA_PORT, destination_port=port, payload=octets
        )
        try:
            self.socket.sendto(udp.encode(datagram)[IPV4_HEADER:], (str(destination), 0))
        except OSError as error:
            return os.strerror(error.errno or 0)
        return None

    def close(self) -> None:
        """Stop reading and close."""
        self._loop.remove_reader(self.socket.fileno())
        self.socket.close()


class SignalingSockets:
    """One SignalingSocket for each of our addresses; addresses of uplinks come and go while they are served."""

    def __init__(
        self,
        addresses: Iterable[Address],
        transport: Transport,
        opened: Mapping[Address, Sequence[socket.socket]] = MappingProxyType({}),
    ) -> None:
        """Open all or none. The first of each family is the address of this router. Raises as SignalingSocket.

        opened: what another process has open already, as `sockets` of it.
        """
        self._transport = transport
        self._sockets: dict[Address, SignalingSocket] = {}
        self._firsts: dict[int, SignalingSocket] = {}  # of each version of IP
        self._beside_data: dict[Address, BesideData] = {}  # opened when the first message takes that way
        self._loop: asyncio.AbstractEventLoop | None = None
        self._on_datagram: OnDatagram | None = None
        try:
            for address in addresses:
                self.add(address, opened.get(address, ()))
        except BaseException:
            self.close(None)
            raise

    @property
    def addresses(self) -> tuple[Address, ...]:
        """Those that are open, in the order they came."""
        return tuple(self._sockets)

    def serve(self, loop: asyncio.AbstractEventLoop, on_datagram: OnDatagram) -> None:
        """Call on_datagram for everything that comes in, also for addresses that are added later."""
        self._loop, self._on_datagram = loop, on_datagram
        for each in self._sockets.values():
            each.serve(loop, on_datagram)

    def read(self) -> None:
        """Take in what waits now, and not after whatever else the loop has to do."""
        served = () if self._loop is None else tuple(self._sockets.values())
        for each in served:  # what comes may close one, or open another
            each.read()

    @property
    def sockets(self) -> dict[Address, tuple[socket.socket, ...]]:
        """All that are open, by address."""
        return {address: each.sockets for address, each in self._sockets.items()}

    def pause(self) -> None:
        """Read nothing until serve is called again."""
        if self._loop is not None:
            for each in self._sockets.values():
                each.pause(self._loop)
            self._loop = None

    def add(self, address: Address, opened: Sequence[socket.socket] = ()) -> None:
        """Be heard at another address; one that is open already is no error. Raises as SignalingSocket."""
        if address in self._sockets:
            return
        self._sockets[address] = made = SignalingSocket(address, self._transport, opened)
        self._firsts.setdefault(address.version, made)
        if self._loop is not None and self._on_datagram is not None:
            made.serve(self._loop, self._on_datagram)

    def remove(self, address: Address) -> None:
        """The address is ours no more; one that is not open is no error."""
        gone = self._sockets.pop(address, None)
        if gone is not None:
            gone.close(self._loop)
            self._firsts = {each.address.version: each for each in reversed(self._sockets.values())}
        beside = self._beside_data.pop(address, None)
        if beside is not None:
            beside.close()

    def send(
        self,
        octets: bytes,
        destination: Address,
        port: int = 0,
        source: Address | None = None,
        *,
        beside_data: bool = False,
    ) -> str | None:
        """Send to a peer from one of our addresses, None: the first of its family. Returns why it could not leave.

        beside_data: from the UDP port of tunnels, and to that of the peer.
        """
        sender = self._sockets.get(source) if source is not None else self._firsts.get(destination.version)
        if sender is None:
            return f"{source} is no address of ours" if source else f"no address of ours has IPv{destination.version}"
        if not beside_data:
            return sender.send(octets, destination, port)
        try:
            return self._beside(sender.address).send(octets, destination, port or DATA_PORT)
        except RouterError as error:
            return str(error)

    def _beside(self, address: Address) -> BesideData:
        found = self._beside_data.get(address)
        if found is None:
            assert self._loop is not None
            assert self._on_datagram is not None
            assert isinstance(address, IPv4Address)
            found = self._beside_data[address] = BesideData(address, self._loop, self._on_datagram)
        return found

    def send_error(self, octets: bytes, destination: Address) -> None:
        """Send an ICMPv6 error message; best effort, as all of them."""
        sender = self._firsts.get(destination.version)
        if sender is not None:
            sender.send_error(octets, destination)

    def close(self, loop: asyncio.AbstractEventLoop | None) -> None:
        """Stop reading and close all."""
        for each in self._sockets.values():
            each.close(loop)
        for beside in self._beside_data.values():
            beside.close()
        self._sockets.clear()
        self._firsts.clear()
        self._beside_data.clear()


class AccessSocket:
    """IPv6 frames of one access link, with the link-layer address of whoever sent them.

    A packet socket: an ICMPv6 socket would not tell the link-layer address, nor see a host that sends anything but
    ICMPv6. A filter in the kernel lets through neighbour discovery and MLD, and of other packets only those of nodes
    that are not known yet: data packets of attached nodes never wake Python.
    """

    def __init__(self, interface: str, opened: socket.socket | None = None) -> None:
        """Open and bind to an interface; opened: that of another process, with its filter. Raises NoRights."""
        self.interface = interface
        if opened is not None:
            self.socket = opened
            return
        try:
            # bound only after the filter is in place, so that nothing unfiltered is queued
            self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK, 0)
            self.expect(())
            with suppress(OSError):  # kernels before 4.20: what we send comes back to be looked at
                self.socket.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
            self.socket.bind((interface, ETH_P_IPV6))
        except OSError as error:
            raise _opening_error(error, f"access link {interface}, packet socket", None) from None

    def pause(self) -> None:
        """Read nothing until serve is called again."""
        self._loop.remove_reader(self.socket.fileno())

    def serve(self, loop: asyncio.AbstractEventLoop, on_frame: OnFrame) -> None:
        """Call on_frame for everything that passes the filter."""
        self._loop, self._on_frame = loop, on_frame
        loop.add_reader(self.socket.fileno(), self.read)

    def read(self) -> None:
        """Take in what waits."""
        for _ in range(READS):
            try:
                packet, (_name, _protocol, kind, _type, link_layer) = self.socket.recvfrom(MAX_DATAGRAM)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                # the interface went down, netlink tells the rest; uvloop hears nothing more after an error
                self._loop.remove_reader(self.socket.fileno())
                self._loop.add_reader(self.socket.fileno(), self.read)
                return
            if kind != socket.PACKET_OUTGOING:
                self._on_frame(packet, link_layer)

    def discard(self) -> None:
        """Throw away what waits: it came before whatever just happened."""
        with suppress(OSError):  # BlockingIOError: there is no more
            for _ in range(MOST_WAITING):
                self.socket.recv(1)

    def send(self, packet: bytes, link_layer: bytes) -> str | None:
        """Send an IPv6 packet in a frame to a link-layer address. Returns why it could not leave."""
        try:
            self.socket.sendto(packet, (self.interface, ETH_P_IPV6, 0, 0, link_layer))
        except OSError as error:
            return os.strerror(error.errno or 0)
        return None

    def expect(self, nodes: Iterable[bytes]) -> None:
        """From now on data packets of these link-layer addresses are of no interest."""
        _attach(self.socket, frame_filter(list(nodes)))

    def close(self, loop: asyncio.AbstractEventLoop) -> None:
        """Stop reading and close."""
        loop.remove_reader(self.socket.fileno())
        self.socket.close()


# --- the filters: classic BPF, on the IP packet; the link-layer header stands at negative offsets ---

LD_WORD, LD_HALF, LD_BYTE, LD_MEMORY, STORE = 0x20, 0x28, 0x30, 0x60, 0x02
LDX_HEADER_LENGTH, LD_HALF_AT_X, LD_BYTE_AT_X = 0xB1, 0x48, 0x50
JUMP_IF_EQUAL, RETURN = 0x15, 0x06
LINK_LAYER = 0xFFE00000  # SKF_LL_OFF
PASS, DROP = 0xFFFF, 0
HOP_BY_HOP, ICMPV6 = ProtocolNumber.HOP_BY_HOP, ProtocolNumber.ICMPV6


def frame_filter(known: list[bytes]) -> list[bytes]:
    """The program: pass solicitations, advertisements of neighbours, MLD; of the rest what strangers send."""
    program = [
        _op(LD_BYTE, 6),  # Next Header
        _op(JUMP_IF_EQUAL, ICMPV6, 0, 4),
        _op(LD_BYTE, 40),  # ICMPv6 type
        _op(JUMP_IF_EQUAL, Icmpv6Type.ROUTER_SOLICITATION, 5, 0),
        _op(JUMP_IF_EQUAL, Icmpv6Type.NEIGHBOR_SOLICITATION, 4, 0),
        _op(JUMP_IF_EQUAL, Icmpv6Type.NEIGHBOR_ADVERTISEMENT, 3, 4),
        _op(JUMP_IF_EQUAL, HOP_BY_HOP, 0, 3),
        _op(LD_BYTE, 40),  # what follows the hop-by-hop options: MLD
        _op(JUMP_IF_EQUAL, ICMPV6, 0, 1),
        _op(RETURN, PASS),
        _op(LD_WORD, LINK_LAYER + 6),
        _op(STORE, 0),
        _op(LD_HALF, LINK_LAYER + 10),
        _op(STORE, 1),
    ]
    if len(known) > MAX_FILTERED_NODES:
        return [*program, _op(RETURN, DROP)]
    for link_layer in known:
        program += _drop(link_layer)
    return [*program, _op(RETURN, PASS)]


@lru_cache(MAX_FILTERED_NODES)  # there may be hundreds, and with each that comes or leaves the program is another one
def _drop(link_layer: bytes) -> tuple[bytes, ...]:
    first, last = struct.unpack("!IH", link_layer)
    return (
        _op(LD_MEMORY, 0),
        _op(JUMP_IF_EQUAL, first, 0, 3),
        _op(LD_MEMORY, 1),
        _op(JUMP_IF_EQUAL, last, 0, 1),
        _op(RETURN, DROP),
    )


def beside_data_filter() -> list[bytes]:
    """The program: of UDP over IPv4, pass Mobility Headers to the port of tunnels."""
    return [
        _op(LDX_HEADER_LENGTH, 0),
        _op(LD_HALF_AT_X, 2),  # destination port
        _op(JUMP_IF_EQUAL, DATA_PORT, 0, 3),
        _op(LD_BYTE_AT_X, 8),  # Payload Proto
        _op(JUMP_IF_EQUAL, ProtocolNumber.NO_NEXT_HEADER, 0, 1),
        _op(RETURN, PASS),
        _op(RETURN, DROP),
    ]


def _attach(opened: socket.socket, program: list[bytes]) -> None:
    octets = create_string_buffer(b"".join(program))
    opened.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HL", len(program), addressof(octets)))


def _op(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("HBBI", code, if_true, if_false, value)


def _enlarge(opened: socket.socket) -> None:
    """Let messages wait while others are answered, beyond what the system allows to all if we may."""
    try:
        opened.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BUFFER)
    except OSError:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)


def _raw_icmp(address: Address) -> socket.socket:
    result = socket.socket(socket.AF_INET6, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.IPPROTO_ICMPV6)
    result.setsockopt(socket.IPPROTO_ICMPV6, 1, b"\xff" * 32)  # ICMP6_FILTER: it only sends
    result.bind((str(address), 0))
    return result


def _opening_error(error: OSError, what: str, address: Address | None) -> RouterError:
    text = f"{what}: {os.strerror(error.errno or 0).lower()}"
    if error.errno in (errno.EPERM, errno.EACCES):
        cure = 'run as root, with --cap-add NET_RAW, or set signaling = "udp"'
        return NoRights(f"{text}: {cure if address else 'run as root or with --cap-add NET_RAW'}")
    if error.errno == errno.EADDRINUSE:
        return InUse(f"{text}: another program has it: end that, or give this router another underlay address")
    if error.errno == errno.EADDRNOTAVAIL:
        cure = "add it, or choose another with --underlay"
        return NoInterface(f"{text}: {address} is no address of this machine: {cure}")
    if error.errno == errno.ENODEV:
        return NoInterface(text)
    return RouterError(text)
