"""The data path in plain Python: specification of _fast/path.pyx, and what runs where nothing is compiled.

    from the TUN:       receive -> wrap:   parse -> lookup -> push           -> send -> count
    from the underlay:  receive -> unwrap: recognise -> parse -> pop         -> send -> count

A step that refuses a packet raises Dropped with the reason. Octets are bytes; tunnels are known by their key
(engine.tunnels); Tables and Path have the methods of their compiled twins, _fast/tables.pyx and _fast/path.pyx.
"""

from __future__ import annotations

import errno
import os
import socket
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from engine.stats import Drop
from engine.tunnels import UDP_PORT, Tunnel

if TYPE_CHECKING:
    from engine._fast.path import Path as FastPath
    from engine._fast.tables import Tables as FastTables

WIDTH = 64  # packets of a burst, at most
ROOM = 65600  # octets, more than the largest IPv6 packet (40 + 65535)
HEADER = 40  # octets, IPv6
ANCHOR, ACCESS, HELD = 1, 2, 4  # bits, so that a look-up can ask for several (_fast/prefixes.pxd)
TUN, UDP, IP6 = 0, 1, 2  # kinds of port (_fast/path.pxd, _fast/tunnels.pxd)
NOT_ECT, ECT_1, ECT_0, CE = range(4)  # ECN field, RFC 3168 5

# errno of a descriptor that has nothing for us now, or told us of an ICMP error: it lives on
PASSING = frozenset(
    {
        errno.EAGAIN,
        errno.EINTR,
        errno.ECONNREFUSED,
        errno.EHOSTUNREACH,
        errno.ENETUNREACH,
        errno.ENETDOWN,
        errno.EPROTO,
        errno.EACCES,
        errno.EMSGSIZE,
        errno.ENOBUFS,
        errno.ENOMEM,
    }
)
FULL = frozenset({errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM})

BindingRow: TypeAlias = tuple[bytes, int, int, Tunnel | None]  # network, length (bits), side, tunnel
TunnelRow: TypeAlias = tuple[Tunnel, int, int, int, int, int]  # prefixes, packets and octets in, out
Wrapped: TypeAlias = tuple[Tunnel, int, bytes]  # tunnel, traffic class of the outer header, inner packet


class Dropped(Exception):  # noqa: N818 - an event of the walk, not an error
    """The packet died, for this reason."""

    def __init__(self, reason: Drop) -> None:
        self.reason = reason


# --- what the path knows -------------------------------------------------------------------------------


@dataclass(slots=True)
class TunnelEntry:
    """A tunnel that has prefixes, with its counters."""

    face: Tunnel
    prefixes: int = 0
    packets_in: int = 0
    octets_in: int = 0
    packets_out: int = 0
    octets_out: int = 0


class Tables:
    """Prefixes and tunnels in two dicts."""

    def __init__(self) -> None:
        # (length, first bits) -> side, tunnel key (None: held)
        self._prefixes: dict[tuple[int, int], tuple[int, bytes | None]] = {}
        self._lengths: Counter[int] = Counter()
        self._tunnels: dict[bytes, TunnelEntry] = {}

    def bind(self, network: bytes, length: int, side: int, key: bytes, face: Tunnel) -> None:
        """Add a prefix, or move it to another tunnel or side."""
        self._tunnels.setdefault(key, TunnelEntry(face)).prefixes += 1
        self._put(network, length, side, key)

    def hold(self, network: bytes, length: int) -> None:
        """The prefix is anchored here and its node is nowhere."""
        self._put(network, length, HELD, None)

    def unbind(self, network: bytes, length: int) -> bool:
        """Forget the prefix. False: it was not known."""
        found = self._prefixes.pop(_prefix(network, length), None)
        if found is None:
            return False
        self._lengths[length] -= 1
        self._lengths += Counter()  # forgets lengths nobody uses
        self._let_go(found[1])
        return True

    def bindings(self) -> list[BindingRow]:
        """Every prefix, in no order."""
        return [
            (
                (bits << 128 - length).to_bytes(16, "big"),
                length,
                side,
                self._tunnels[key].face if key is not None else None,
            )
            for (length, bits), (side, key) in self._prefixes.items()
        ]

    def tunnels(self) -> list[TunnelRow]:
        """Every tunnel, in no order."""
        return [
            (e.face, e.prefixes, e.packets_in, e.octets_in, e.packets_out, e.octets_out)
            for e in self._tunnels.values()
        ]

    def match(self, address: bytes, sides: int) -> Tunnel | bool | None:
        """Tunnel of the longest prefix around address whose side is in sides; False: held, None: there is none."""
        for length in sorted(self._lengths, reverse=True):
            side, key = self._prefixes.get(_prefix(address, length), (0, None))
            if side & sides:
                return self._tunnels[key].face if key is not None else False
        return None

    def known(self, key: bytes) -> Tunnel | None:
        """The tunnel with that key."""
        entry = self._tunnels.get(key)
        return entry.face if entry else None

    def count_in(self, key: bytes, octets: int) -> None:
        """One packet came out of the tunnel."""
        self._tunnels[key].packets_in += 1
        self._tunnels[key].octets_in += octets

    def count_out(self, key: bytes, octets: int) -> None:
        """One packet went into the tunnel."""
        self._tunnels[key].packets_out += 1
        self._tunnels[key].octets_out += octets

    def __len__(self) -> int:
        return len(self._prefixes)

    def _put(self, network: bytes, length: int, side: int, key: bytes | None) -> None:
        prefix = _prefix(network, length)
        if prefix in self._prefixes:
            before = self._prefixes[prefix][1]
        else:
            before = None
            self._lengths[length] += 1
        self._prefixes[prefix] = (side, key)
        self._let_go(before)

    def _let_go(self, key: bytes | None) -> None:
        if key is not None:
            self._tunnels[key].prefixes -= 1
            if self._tunnels[key].prefixes == 0:
                del self._tunnels[key]


def _prefix(address: bytes, length: int) -> tuple[int, int]:
    return length, int.from_bytes(address, "big") >> 128 - length


AnyTables: TypeAlias = "Tables | FastTables"


# --- the two walks -------------------------------------------------------------------------------------


def wrap(tables: AnyTables, octets: bytes) -> Wrapped:
    """A packet from the TUN, and the outer header of its tunnel."""
    packet = parse(octets)
    tunnel = lookup(tables, packet)
    return tunnel, push(tunnel, packet), packet


def unwrap(tables: AnyTables, key: bytes, outer_class: int, octets: bytes) -> bytes:
    """The packet inside what came from the underlay, which has taken the outer header off."""
    tunnel = recognise(tables, key)
    packet = parse(octets)
    return pop(tables, tunnel, outer_class, packet)


# --- the steps -----------------------------------------------------------------------------------------


def recognise(tables: AnyTables, key: bytes) -> Tunnel:
    """Only configured pairs of end points may speak to us (RFC 2473 3.3, RFC 6275 10.4.5)."""
    tunnel = tables.known(key)
    if tunnel is None:
        raise Dropped(Drop.UNKNOWN_TUNNEL)
    return tunnel


def parse(octets: bytes) -> bytes:
    """A whole and routable IPv6 packet, without what follows its payload length."""
    if not octets:
        raise Dropped(Drop.TRUNCATED)
    if octets[0] >> 4 != 6:
        raise Dropped(Drop.NOT_IPV6)
    if len(octets) < HEADER:
        raise Dropped(Drop.TRUNCATED)
    length = HEADER + int.from_bytes(octets[4:6], "big")
    if len(octets) < length:
        raise Dropped(Drop.TRUNCATED)
    if _stays_on_link(_source(octets)) or _source(octets)[0] == 0xFF:
        raise Dropped(Drop.BAD_SOURCE)
    destination = _destination(octets)
    if _stays_on_link(destination) or (destination[0] == 0xFF and destination[1] & 0xF <= 2):
        raise Dropped(Drop.BAD_DESTINATION)
    if octets[7] == 0:
        raise Dropped(Drop.HOP_LIMIT)
    return octets[:length]


def lookup(tables: AnyTables, packet: bytes) -> Tunnel:
    """To a prefix anchored here whose node is away, else from one whose node is here: that binding's tunnel."""
    tunnel = tables.match(_destination(packet), ANCHOR | HELD)
    if tunnel is None:
        tunnel = tables.match(_source(packet), ACCESS)
    if tunnel is None:
        raise Dropped(Drop.NO_BINDING)
    if isinstance(tunnel, bool):
        raise Dropped(Drop.NODE_AWAY)
    return tunnel


def push(tunnel: Tunnel, packet: bytes) -> int:
    """Traffic class of the outer header: DSCP, and ECN in normal mode (RFC 6040 4.1).

    The hop limit stays: the kernel took one off when it forwarded the packet into the TUN (RFC 2473 3.1).
    """
    if (_source(packet), _destination(packet)) == (tunnel.key[1:17], tunnel.key[17:]):
        raise Dropped(Drop.LOOP)  # RFC 2473 4.1.2
    return (packet[0] << 4 | packet[1] >> 4) & 0xFF


def pop(tables: AnyTables, tunnel: Tunnel, outer_class: int, packet: bytes) -> bytes:
    """May this tunnel carry this packet? Then ECN moves from the outer to the inner header."""
    anchored = tables.match(_source(packet), ANCHOR | HELD)
    visiting = tables.match(_destination(packet), ACCESS)
    if tunnel not in (anchored, visiting):
        raise Dropped(Drop.NOT_BOUND)
    inner = packet[1] >> 4 & 3
    merged = merge_ecn(inner, outer_class & 3)
    if merged == inner:
        return packet
    return packet[:1] + bytes([packet[1] & 0xCF | merged << 4]) + packet[2:]


def merge_ecn(inner: int, outer: int) -> int:
    """RFC 6040 4.2. Congestion must not be forgotten: where the inner header cannot say it, the loss does."""
    if outer == CE:
        if inner == NOT_ECT:
            raise Dropped(Drop.ECN)
        return CE
    if outer == ECT_1 and inner == ECT_0:
        return ECT_1
    return inner


def _source(packet: bytes) -> bytes:
    return packet[8:24]


def _destination(packet: bytes) -> bytes:
    return packet[24:40]


def _stays_on_link(address: bytes) -> bool:
    """Unspecified, loopback or link-local: no router forwards it (RFC 4291 2.5.2, 2.5.3, 2.5.6)."""
    number = int.from_bytes(address, "big")
    return number <= 1 or number >> 118 == 0x3FA


# --- one burst, from descriptor to descriptor ----------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Port:
    fd: int
    kind: int
    local: bytes


class Path:
    """The path with its ports and counters."""

    def __init__(self, tables: AnyTables) -> None:
        self._tables = tables
        self._ports: dict[int, _Port] = {}
        self._from_tun, self._to_tun = [0, 0], [0, 0]  # packets, octets
        self._from_underlay, self._to_underlay = [0, 0], [0, 0]
        self._drops = [0] * (max(Drop) + 1)

    def add_port(self, fd: int, kind: int, local: bytes) -> None:
        """Serve fd too. local: 16 octets, zeros for a TUN. Raises OverflowError past 64 ports."""
        if len(self._ports) == 64:
            raise OverflowError("an engine serves 64 ports at most")
        if len(local) != 16:
            raise ValueError("a local address has 16 octets")
        self._ports[fd] = _Port(fd, kind, local)

    def remove_port(self, fd: int) -> bool:
        """Forget fd. False: it was not known."""
        return self._ports.pop(fd, None) is not None

    def serve(self, fd: int) -> int:
        """Take at most one burst from fd through the path. Packets taken, or -errno: fd is of no more use."""
        port = self._ports.get(fd)
        if port is None:
            return -errno.EBADF
        take = self._from_tun_to_underlay if port.kind == TUN else self._from_underlay_to_tun
        for taken in range(WIDTH):
            try:
                take(port)
            except OSError as error:
                number = error.errno or errno.EIO
                over = number in PASSING if port.kind != TUN else number in (errno.EAGAIN, errno.EINTR)
                return taken if taken or over else -number
        return WIDTH

    def encapsulate(self, packets: list[bytes]) -> list[Wrapped | int]:
        """(tunnel, traffic class, packet) of each packet as it would leave, or the number of its Drop."""
        answers: list[Wrapped | int] = []
        for octets in packets:
            _add(self._from_tun, octets)
            try:
                tunnel, outer_class, packet = wrap(self._tables, octets)
                self._left(tunnel, packet)
                answers.append((tunnel, outer_class, packet))
            except Dropped as dropped:
                answers.append(self._count(dropped.reason))
        return answers

    def decapsulate(self, arrivals: list[tuple[bytes, int, bytes]]) -> list[bytes | int]:
        """Each inner packet as it would be delivered, or the number of its Drop.

        arrivals: key of the tunnel, traffic class, octets.
        """
        answers: list[bytes | int] = []
        for key, outer_class, octets in arrivals:
            _add(self._from_underlay, octets)
            try:
                packet = unwrap(self._tables, key, outer_class, octets)
                self._delivered(key, packet)
                answers.append(packet)
            except Dropped as dropped:
                answers.append(self._count(dropped.reason))
        return answers

    def rehearse(self, packets: list[bytes], rounds: int) -> None:
        """Wrap one burst of packets again and again, in memory: what the bench measures."""
        for _ in range(rounds):
            self.encapsulate(packets[:WIDTH])

    def counters(self) -> tuple[int, int, int, int, int, int, int, int, list[int]]:
        """Packets and octets from_tun, to_tun, from_underlay, to_underlay, then drops by number (0 is nobody)."""
        (a, b), (c, d), (e, f), (g, h) = self._from_tun, self._to_tun, self._from_underlay, self._to_underlay
        return a, b, c, d, e, f, g, h, list(self._drops)

    def _from_tun_to_underlay(self, port: _Port) -> None:
        octets = os.read(port.fd, ROOM)
        if not octets:
            raise OSError(errno.EIO, "end of file")
        _add(self._from_tun, octets)
        try:
            tunnel, outer_class, packet = wrap(self._tables, octets)
            self._send_to_underlay(tunnel, outer_class, packet)
            self._left(tunnel, packet)
        except Dropped as dropped:
            self._count(dropped.reason)

    def _from_underlay_to_tun(self, port: _Port) -> None:
        octets, outer_class, peer = _receive(port.fd)
        _add(self._from_underlay, octets)
        try:
            if peer is None or (port.kind == UDP and peer[1] != UDP_PORT):
                raise Dropped(Drop.UNKNOWN_TUNNEL)
            key = bytes([port.kind]) + port.local + peer[0]
            packet = unwrap(self._tables, key, outer_class, octets)
            self._send_to_tun(packet)
            self._delivered(key, packet)
        except Dropped as dropped:
            self._count(dropped.reason)

    def _send_to_underlay(self, tunnel: Tunnel, outer_class: int, packet: bytes) -> None:
        kind, local, remote = tunnel.key[0], tunnel.key[1:17], str(tunnel.remote)
        port = next((port for port in self._ports.values() if (port.kind, port.local) == (kind, local)), None)
        if port is None:
            raise Dropped(Drop.NO_PORT)
        tell_class = (socket.IPPROTO_IPV6, socket.IPV6_TCLASS, outer_class.to_bytes(4, "little"))
        try:
            sock = _socket(port.fd)
        except OSError:
            raise Dropped(Drop.UNDERLAY_ERROR) from None
        try:
            to = (remote, UDP_PORT if kind == UDP else 0)
            sock.sendmsg([packet], [tell_class], socket.MSG_DONTWAIT, to)
        except OSError as error:
            if error.errno in FULL:
                raise Dropped(Drop.UNDERLAY_FULL) from None
            raise Dropped(Drop.TOO_BIG if error.errno == errno.EMSGSIZE else Drop.UNDERLAY_ERROR) from None
        finally:
            sock.detach()  # the descriptor belongs to the Port

    def _send_to_tun(self, packet: bytes) -> None:
        port = next((port for port in self._ports.values() if port.kind == TUN), None)
        if port is None:
            raise Dropped(Drop.NO_PORT)
        try:
            if os.write(port.fd, packet) != len(packet):
                raise Dropped(Drop.TUN_ERROR)
        except OSError as error:
            raise Dropped(Drop.TUN_FULL if error.errno in FULL else Drop.TUN_ERROR) from None

    def _left(self, tunnel: Tunnel, packet: bytes) -> None:
        _add(self._to_underlay, packet)
        self._tables.count_out(tunnel.key, len(packet))

    def _delivered(self, key: bytes, packet: bytes) -> None:
        _add(self._to_tun, packet)
        self._tables.count_in(key, len(packet))

    def _count(self, reason: Drop) -> int:
        self._drops[reason] += 1
        return int(reason)


AnyPath: TypeAlias = "Path | FastPath"


def _add(totals: list[int], packet: bytes) -> None:
    totals[0] += 1
    totals[1] += len(packet)


def _socket(fd: int) -> socket.socket:
    """An underlay socket around fd, for one call. Its addresses are IPv6, so Python need not ask the kernel."""
    return socket.socket(socket.AF_INET6, socket.SOCK_DGRAM, fileno=fd)


def _receive(fd: int) -> tuple[bytes, int, tuple[bytes, int] | None]:
    """Inner packet, traffic class of the outer header (0: not told), address and port of the sender if IPv6."""
    sock = _socket(fd)
    try:
        octets, ancillary, flags, sender = sock.recvmsg(ROOM, 64, socket.MSG_DONTWAIT)
    finally:
        sock.detach()  # the descriptor belongs to the Port
    if flags & socket.MSG_TRUNC:
        octets = b""  # larger than any IPv6 packet: parse refuses it as truncated
    outer_class = 0
    for level, kind, value in ancillary:
        if (level, kind) == (socket.IPPROTO_IPV6, socket.IPV6_TCLASS):
            outer_class = value[0]
    if not isinstance(sender, tuple) or len(sender) != 4:
        return octets, outer_class, None
    return octets, outer_class, (socket.inet_pton(socket.AF_INET6, sender[0].partition("%")[0]), sender[1])
