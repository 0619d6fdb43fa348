"""The data path in plain Python: specification of _fast/path.pyx, and what runs where nothing is compiled.

    from the TUN:       receive -> parse -> lookup -> choose -> enter -> send -> count
    from the underlay:  receive -> strip -> recognise -> parse -> pop -> send -> count

A step that refuses a packet raises Dropped with the reason. Octets are bytes. The model takes packets one by one: it
uses none of the kernel's offloads, so that nothing has to be split or merged.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
import time
from dataclasses import dataclass, replace
from typing import Any

from engine.model import icmp, outer
from engine.model.clamp import clamp
from engine.model.connections import DOWN, UP
from engine.model.dropped import Dropped
from engine.model.flows import MASK, TCP, Fragments, Identity, addresses, identify
from engine.model.outer import Arrival, internet_checksum
from engine.model.spread import Decision, NoWay, Schedules, choose
from engine.model.tables import ACCESS, ANCHOR, HELD, BindingRow, Tables
from engine.stats import Drop
from engine.tunnels import HAS_KEY_IN, IDENTITY, MAPPED, NUMBERS, Encapsulation, Tunnel

WIDTH = 256  # packets of a burst, at most
ROOM = 65600  # octets, more than the largest IP packet (40 + 65535)
LEAST_MTU6 = 1280  # octets, RFC 8200 5
MTU_AGE = 600.0  # s: what was learned of a path is believed for so long (RFC 8201 5.3)
ERRORS = 100  # ICMP errors a second, and in a row (RFC 4443 2.4 f)
TUN, UDP, IP, GRE = range(4)  # kinds of port (_fast/io.pxd)
ENCAPSULATIONS = {number: encapsulation for encapsulation, number in NUMBERS.items()}
NOT_ECT, ECT_1, ECT_0, CE = range(4)  # ECN field, RFC 3168 5
DONT_FRAGMENT = 0x4000  # IPv4
IP_TOS, IP_MTU_DISCOVER, IPV6_MTU_DISCOVER, IP_MTU, IPV6_MTU = 1, 10, 23, 14, 24  # linux/in.h, linux/in6.h
IP_RECVERR, IPV6_RECVERR, MSG_ERRQUEUE = 11, 25, 0x2000  # linux/in.h, linux/in6.h, linux/socket.h
ERROR = struct.Struct("=IBBBxII")  # struct sock_extended_err (linux/errqueue.h): errno, origin, type, code, info, data
FROM_ICMP, FROM_ICMP6 = 2, 3  # its origins
UNREACHABLE, TOO_SMALL = (FROM_ICMP, 3), (FROM_ICMP6, 2)  # origin, type
BROKEN = {UNREACHABLE, (FROM_ICMP, 11), (FROM_ICMP6, 1), (FROM_ICMP6, 3)}  # and time exceeded
NO_FRAGMENTS = 4  # code of UNREACHABLE: the path is too small

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


# --- the steps, out ------------------------------------------------------------------------------------


def parse(octets: bytes) -> bytes:
    """A whole and routable IP packet, without what follows the length it states."""
    if not octets:
        raise Dropped(Drop.TRUNCATED)
    if octets[0] >> 4 == 6:
        return _parse6(octets)
    if octets[0] >> 4 == 4:
        return _parse4(octets)
    raise Dropped(Drop.NOT_IP)


def _parse6(octets: bytes) -> bytes:
    if len(octets) < 40:
        raise Dropped(Drop.TRUNCATED)
    length = 40 + int.from_bytes(octets[4:6], "big")
    if len(octets) < length:
        raise Dropped(Drop.TRUNCATED)
    source, destination = octets[8:24], octets[24:40]
    if _stays_on_link(source) or source[0] == 0xFF or source.startswith(MAPPED):
        raise Dropped(Drop.BAD_SOURCE)
    if (
        _stays_on_link(destination)
        or (destination[0] == 0xFF and destination[1] & 0xF <= 2)
        or destination.startswith(MAPPED)
    ):
        raise Dropped(Drop.BAD_DESTINATION)
    if octets[7] == 0:
        raise Dropped(Drop.HOP_LIMIT)
    return octets[:length]


def _parse4(octets: bytes) -> bytes:
    if len(octets) < 20:
        raise Dropped(Drop.TRUNCATED)
    header, length = 4 * (octets[0] & 15), int.from_bytes(octets[2:4], "big")
    if header < 20 or length < header:
        raise Dropped(Drop.BAD_HEADER)
    if len(octets) < length:
        raise Dropped(Drop.TRUNCATED)
    if internet_checksum(octets[:header]) != 0:
        raise Dropped(Drop.BAD_HEADER)
    source, destination = octets[12:16], octets[16:20]
    if _stays_on_link4(source) or 224 <= source[0] <= 239:
        raise Dropped(Drop.BAD_SOURCE)
    if _stays_on_link4(destination) or destination[:3] == b"\xe0\0\0":
        raise Dropped(Drop.BAD_DESTINATION)
    if octets[8] == 0:
        raise Dropped(Drop.HOP_LIMIT)
    return octets[:length]


def lookup(tables: Tables, packet: Identity) -> BindingRow:
    """To a prefix anchored here whose node is away, else from one whose node is here: that binding."""
    found = tables.match(packet.destination, ANCHOR | HELD, packet.family)
    if found is None:
        found = tables.match(packet.source, ACCESS, packet.family)
    if found is None:
        raise Dropped(Drop.NO_BINDING)
    tables.touch(found[0], found[1])
    if found[2] == HELD:
        raise Dropped(Drop.NODE_AWAY)
    return found


def enter(tables: Tables, tunnel: Tunnel, packet: bytes, identity: Identity) -> None:
    """May this packet go into this tunnel?"""
    if (identity.source, identity.destination) == (tunnel.key[8:24], tunnel.key[24:40]):
        raise Dropped(Drop.LOOP)  # RFC 2473 4.1.2
    mtu = tables.mtu_of(tunnel.key)
    if mtu and len(packet) > mtu and _not_in_fragments(packet):
        raise Dropped(Drop.TOO_BIG)


def fit(tunnel: Tunnel, packet: bytes) -> None:
    """The length of the outer packet must be a number of 16 bits, whatever the path takes (RFC 8200 3, RFC 791 3.1)."""
    if outer.overhead(tunnel) + len(packet) > 0xFFFF + (40 if tunnel.local.version == 6 else 0):
        raise Dropped(Drop.TOO_BIG)


def _not_in_fragments(packet: bytes) -> bool:
    """It may not travel in outer fragments (RFC 2473 7, RFC 4213 3.2)."""
    if packet[0] >> 4 == 6:
        return len(packet) > LEAST_MTU6
    return bool(int.from_bytes(packet[6:8], "big") & DONT_FRAGMENT)


# --- the steps, in -------------------------------------------------------------------------------------


def recognise(tables: Tables, arrival: Arrival) -> Tunnel:
    """Only configured pairs of end points may speak to us (RFC 2473 3.3, RFC 6275 10.4.5)."""
    has_key = HAS_KEY_IN if arrival.key is not None else 0
    tunnel = tables.known(
        IDENTITY.pack(
            NUMBERS[arrival.encapsulation], has_key, arrival.port, arrival.key or 0, arrival.local, arrival.peer
        )
    )
    if tunnel is None:
        raise Dropped(Drop.UNKNOWN_TUNNEL)
    return tunnel


def pop(tables: Tables, tunnel: Tunnel, outer_class: int, packet: bytes) -> tuple[bytes, BindingRow]:
    """May this tunnel carry this packet, by which binding? Then ECN moves from the outer to the inner header."""
    family = packet[0] >> 4
    source = packet[8:24] if family == 6 else MAPPED + packet[12:16]
    destination = packet[24:40] if family == 6 else MAPPED + packet[16:20]
    anchored = ANCHOR | HELD
    behind, before = tables.match(source, anchored, family), tables.match(destination, ACCESS | anchored, family)
    for found in (behind, before):
        given_back = found is before and found is not None and found[2] != ACCESS  # by whichever router had the node
        if found is not None and (given_back or tables.leads_to(found, tunnel)):
            if family == 4 and tunnel.encapsulation is Encapsulation.GRE and destination == tunnel.key[24:40]:
                raise Dropped(Drop.LOOP)  # to the router that wrapped it, RFC 2784 3.1
            tables.touch(found[0], found[1])
            return _with_ecn(packet, merge_ecn(_class(packet) & 3, outer_class & 3)), found
    raise Dropped(Drop.NOT_BOUND)


def merge_ecn(inner: int, outer_ecn: int) -> int:
    """RFC 6040 4.2. Congestion must not be forgotten: where the inner header cannot say it, the loss does."""
    if outer_ecn == CE:
        if inner == NOT_ECT:
            raise Dropped(Drop.ECN)
        return CE
    if outer_ecn == ECT_1 and inner == ECT_0:
        return ECT_1
    return inner


def _class(packet: bytes) -> int:
    """Traffic class of IPv6, type of service of IPv4: DSCP and ECN."""
    return packet[1] if packet[0] >> 4 == 4 else (packet[0] << 4 | packet[1] >> 4) & 0xFF


def _with_ecn(packet: bytes, ecn: int) -> bytes:
    if _class(packet) & 3 == ecn:
        return packet
    if packet[0] >> 4 == 6:
        return packet[:1] + bytes([packet[1] & 0xCF | ecn << 4]) + packet[2:]
    header = bytearray(packet[: 4 * (packet[0] & 15)])
    header[1] = header[1] & 0xFC | ecn
    header[10:12] = b"\0\0"
    header[10:12] = internet_checksum(bytes(header)).to_bytes(2, "big")
    return bytes(header) + packet[len(header) :]


def _stays_on_link(address: bytes) -> bool:
    """Unspecified, loopback or link-local: no router forwards it (RFC 4291 2.5.2, 2.5.3, 2.5.6)."""
    number = int.from_bytes(address, "big")
    return number <= 1 or number >> 118 == 0x3FA


def _stays_on_link4(address: bytes) -> bool:
    """This network, loopback, link-local, limited broadcast (RFC 1122 3.2.1.3, RFC 3927 7)."""
    return address[0] in (0, 127) or address[:2] == b"\xa9\xfe" or address == b"\xff\xff\xff\xff"


# --- one burst, from descriptor to descriptor ----------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Port:
    fd: int
    kind: int
    family: int
    inner: int
    flags: int
    local: bytes


class Path:
    """The path with its ports and counters."""

    def __init__(self, tables: Tables, clamp: int = 0) -> None:
        self._tables = tables
        self._clamp = clamp
        self._ports: dict[int, _Port] = {}
        self._fragments = Fragments()
        self._schedules = Schedules()
        self._now = time.monotonic_ns()  # when the burst began
        self._from_tun, self._to_tun = [0, 0], [0, 0]  # packets, octets
        self._from_underlay, self._to_underlay = [0, 0], [0, 0]
        self._errors = 0
        self._learned: dict[bytes, tuple[int, float]] = {}  # key of the tunnel: MTU, s when it was learned
        self._allowance, self._allowance_at = float(ERRORS), time.monotonic()
        self._drops = [0] * (max(Drop) + 1)

    # --- ports ---

    def add_port(self, fd: int, kind: int, family: int, inner: int, flags: int, local: bytes) -> None:
        """Serve fd too. local: 16 octets, zeros for a TUN. Raises OverflowError past 64 ports."""
        if len(self._ports) == 64:
            raise OverflowError("an engine serves 64 ports at most")
        if len(local) != 16:
            raise ValueError("a local address has 16 octets")
        if flags & ~64:
            raise ValueError("the model uses no offloads: open its ports without")
        self._ports[fd] = _Port(fd, kind, family, inner, flags, local)

    def remove_port(self, fd: int) -> bool:
        """Forget fd. False: it was not known."""
        return self._ports.pop(fd, None) is not None

    def flags(self, fd: int) -> int:
        """The flags of a port. -1: it was not known."""
        return self._ports[fd].flags if fd in self._ports else -1

    def serve(self, fd: int) -> int:
        """Take at most one burst from fd through the path. Packets taken, or -errno: fd is of no more use."""
        port = self._ports.get(fd)
        if port is None:
            return -errno.EBADF
        self._tick()
        take = self._from_tun_to_underlay if port.kind == TUN else self._from_underlay_to_tun
        for taken in range(WIDTH):
            try:
                take(port)
            except OSError as error:
                number = error.errno or errno.EIO
                over = number in PASSING if port.kind != TUN else number in (errno.EAGAIN, errno.EINTR)
                if over and port.kind != TUN:
                    self._heed_errors(port)  # what wakes us without a packet is an error
                return taken if taken or over else -number
        return WIDTH

    bell = -1  # the model keeps no packets waiting

    def turn(self) -> int:
        """Serve what is ready. -1, or the descriptor of a port that is dead."""
        poll = select.poll()
        for fd in self._ports:
            poll.register(fd, select.POLLIN)
        dead = [fd for fd, _ in poll.poll(0) if self.serve(fd) < 0]
        return dead[0] if dead else -1

    def run(self, stop: int) -> int:
        """Serve all ports until stop is readable: -1; or until a port is dead: its descriptor."""
        poll = select.poll()
        for fd in (stop, *self._ports):
            poll.register(fd, select.POLLIN)
        while True:
            for fd, _ in poll.poll():
                if fd == stop:
                    return -1
                if self.serve(fd) < 0:
                    return fd

    # --- in memory ---

    def encapsulate(self, packets: list[bytes]) -> list[tuple[bytes, ...] | int]:
        """(whole outer packet, more for copies) of each as it would leave, or the number of its Drop."""
        self._tick()
        answers: list[tuple[bytes, ...] | int] = []
        for octets in packets:
            total = len(octets)
            try:
                packet = parse(octets)
                total = len(packet)
                answers.append(self._wrapped(packet))
            except Dropped as dropped:
                answers.append(self._count(dropped.reason))
            _add(self._from_tun, total)
        return answers

    def decapsulate(self, packets: list[bytes]) -> list[bytes | int]:
        """The packet inside each whole outer packet as it would be delivered, or the number of its Drop."""
        self._tick()
        answers: list[bytes | int] = []
        for octets in packets:
            try:
                packet = self._unwrapped(self._stripped(octets))
                _add(self._to_tun, len(packet))
                answers.append(packet)
            except Dropped as dropped:
                answers.append(self._count(dropped.reason))
        return answers

    def rehearse(self, packets: list[bytes], towards: bytes, rounds: int) -> None:
        """Wrap a burst of IPv6 packets again and again, in memory: what the bench measures."""
        count = len(towards) // 8
        packets = packets[:WIDTH]
        for n in range(rounds):
            places = (8 * ((n * len(packets) + i) % count) for i in range(len(packets)))
            pairs = zip(packets, places, strict=True)
            self.encapsulate([packet[:24] + towards[at : at + 8] + packet[32:] for packet, at in pairs])

    def rehearse_back(self, packets: list[bytes], rounds: int) -> None:
        """Unwrap a burst of whole outer packets again and again, in memory."""
        for _ in range(rounds):
            self.decapsulate(packets[:WIDTH])

    def counters(self) -> tuple[int, int, int, int, int, int, int, int, int, list[int]]:
        """Packets and octets from_tun, to_tun, from_underlay, to_underlay; errors; drops by number (0 is nobody)."""
        (a, b), (c, d), (e, f), (g, h) = self._from_tun, self._to_tun, self._from_underlay, self._to_underlay
        return a, b, c, d, e, f, g, h, self._errors, list(self._drops)

    # --- out ---

    def _wrapped(self, packet: bytes) -> tuple[bytes, ...]:
        identity, decision, to, number = self._decided(packet)
        copies = []
        refused = None
        for tunnel in decision.tunnels:
            try:
                self._enter(tunnel, packet, identity)
                fit(tunnel, packet)
            except Dropped as dropped:
                refused = dropped
                continue
            sequence = self._sequence(tunnel, to, number)
            packet = self._clamped(tunnel, packet, identity)
            copies.append(outer.compose(tunnel, _class(packet), identity.flow, sequence, packet))
            self._tables.count_out(tunnel.key, len(packet))
        if refused is not None and not copies:
            raise refused
        _add(self._to_underlay, len(packet))
        return tuple(copies)

    def _decided(self, packet: bytes) -> tuple[Identity, Decision[Tunnel], Tunnel | int, int | None]:
        """What a packet is, where it goes, by which tunnel or bundle, and its number when that spreads or copies it."""
        identity = identify(packet, self._fragments)
        found = lookup(self._tables, identity)
        self._follow(found, packet, identity, UP)
        network, kind, _, to, policy = found
        assert to is not None  # of held prefixes only
        rules = [rule for rule, _, _ in self._tables.rules(policy)] if policy else None
        target = self._tables.members(to) if isinstance(to, int) else to
        state_of = self._tables.state_of
        try:
            decision = choose(
                identity,
                target,
                rules,
                lambda tunnel: state_of(tunnel.key),
                self._schedules,
                self._tables.pins,
                prefix=hash((network, kind)) & MASK,
                now=self._now,
            )
        except NoWay as way:
            self._count_rule(policy, way.rule, len(packet))
            raise
        self._count_rule(policy, decision.rule, len(packet))
        return (
            identity,
            decision,
            to,
            self._tables.next_sequence(to) if decision.sequenced and isinstance(to, int) else None,
        )

    def _sequence(self, tunnel: Tunnel, to: Tunnel | int, number: int | None) -> int | None:
        """A number of the bundle, or of a lone tunnel. None: a flow that keeps to one tunnel of a bundle has none."""
        if not tunnel.sequence:
            return None
        if isinstance(to, int):
            return number
        return self._tables.next_sequence(tunnel.key)

    def _clamped(self, tunnel: Tunnel, packet: bytes, identity: Identity) -> bytes:
        if not self._clamp or identity.protocol != TCP or not identity.transport:
            return packet
        mtu = self._tables.mtu_of(tunnel.key)
        return clamp(packet, identity.transport, min(mtu, self._clamp) if mtu else self._clamp)

    def _follow(self, found: BindingRow, packet: bytes, identity: Identity, way: int) -> None:
        """A segment whose TCP header is whole, and here: of fragments only the first has it."""
        at = identity.transport
        if identity.protocol == TCP and at and at + 20 <= len(packet):
            flags, clock = packet[at + 13], self._fragments.clock
            self._tables.saw_segment(found[0], found[1], identity.flow, way, flags, clock)

    def _count_rule(self, policy: int, rule: int | None, octets: int) -> None:
        if policy and rule is not None:
            self._tables.count_rule(policy, rule, octets)

    def _from_tun_to_underlay(self, port: _Port) -> None:
        octets = os.read(port.fd, ROOM)
        if not octets:
            raise OSError(errno.EIO, "end of file")
        total = len(octets)
        try:
            packet = parse(octets)
            total = len(packet)
            self._depart(packet)
        except Dropped as dropped:
            self._count(dropped.reason)
        _add(self._from_tun, total)

    def _depart(self, packet: bytes) -> None:
        identity, decision, to, number = self._decided(packet)
        refused = None
        left = 0
        for tunnel in decision.tunnels:
            try:
                self._enter(tunnel, packet, identity)
                port = self._port_for(tunnel, packet[0] >> 4)
                sequence = self._sequence(tunnel, to, number)
                packet = self._clamped(tunnel, packet, identity)
                self._send(port, tunnel, sequence, packet, identity.flow)
                self._tables.count_out(tunnel.key, len(packet))
                left += 1
            except Dropped as dropped:
                refused = dropped
                if dropped.reason is Drop.TOO_BIG:
                    self._complain(icmp.TOO_BIG, packet, tunnel)
        if refused is not None and not left:
            raise refused
        _add(self._to_underlay, len(packet))

    def _send(self, port: _Port, tunnel: Tunnel, sequence: int | None, packet: bytes, flow: int) -> None:
        octets = outer.shim(tunnel, packet[0] >> 4, sequence) + packet
        to = _peer(port, tunnel, flow)
        try:
            sock = _socket(port)
        except OSError:
            raise Dropped(Drop.UNDERLAY_ERROR) from None
        try:
            _send_whole(sock, port.family, octets, _class(packet), to)
        except OSError as error:
            if error.errno in FULL:
                raise Dropped(Drop.UNDERLAY_FULL) from None
            if error.errno != errno.EMSGSIZE:
                raise Dropped(Drop.UNDERLAY_ERROR) from None
            if _not_in_fragments(packet):
                self._remember_mtu(tunnel, _path_mtu(tunnel))
                raise Dropped(Drop.TOO_BIG) from None
            _send_in_fragments(sock, port.family, octets, _class(packet), to)
        finally:
            sock.detach()  # the descriptor belongs to the Port

    def _remember_mtu(self, tunnel: Tunnel, path: int) -> None:
        """path: octets of the largest outer packet; 0: not known. RFC 2473 6.7."""
        if path > outer.overhead(tunnel) + 68:
            self._tables.set_mtu(tunnel.key, path - outer.overhead(tunnel))
            self._learned[tunnel.key] = path - outer.overhead(tunnel), time.monotonic()

    def _enter(self, tunnel: Tunnel, packet: bytes, identity: Identity) -> None:
        try:
            enter(self._tables, tunnel, packet, identity)
        except Dropped as dropped:
            mtu, learned = self._learned.get(tunnel.key, (0, 0.0))
            if dropped.reason is not Drop.TOO_BIG or self._tables.mtu_of(tunnel.key) != mtu:
                raise  # it was set, and stays
            if time.monotonic() - learned < MTU_AGE:
                raise
            self._tables.set_mtu(tunnel.key, 0)  # larger packets are tried again (RFC 8201 4)

    def _port_for(self, tunnel: Tunnel, inner: int) -> _Port:
        for port in self._ports.values():
            if (
                port.kind == tunnel.key[0]
                and port.local == tunnel.key[8:24]
                and (port.kind != IP or port.inner == inner)
            ):
                return port
        raise Dropped(Drop.NO_PORT)

    def _complain(self, trouble: int, packet: bytes, tunnel: Tunnel) -> None:
        """An ICMP error for whoever sent the packet, unless there were too many of late."""
        now = time.monotonic()
        self._allowance = min(ERRORS, self._allowance + (now - self._allowance_at) * ERRORS)
        self._allowance_at = now
        mtu = self._tables.mtu_of(tunnel.key)
        mtu = max(mtu, LEAST_MTU6) if packet[0] >> 4 == 6 else mtu
        error = icmp.complain(trouble, packet, mtu, tunnel.key[8:24])
        if error is None or self._allowance < 1:
            return
        self._allowance -= 1
        try:
            self._send_to_tun(error)
            self._errors += 1
        except Dropped:
            pass  # the sender will hear of the next one

    # --- what the way taught ---

    def _heed_errors(self, port: _Port) -> None:
        """ICMP errors about what we sent: path MTUs for the tunnels, and news for the senders (RFC 2473 8)."""
        while (trouble := _read_error(port)) is not None:
            quoted = trouble.quoted
            if port.kind == GRE:
                quoted = quoted[4 + 4 * sum(bool(quoted[0] & bit) for bit in (0x80, 0x20, 0x10)) :] if quoted else b""
            if quoted and len(quoted) >= {4: 20, 6: 40}.get(quoted[0] >> 4, 1 << 16):
                self._heed(trouble, quoted)

    def _heed(self, trouble: _Trouble, quoted: bytes) -> None:
        tunnel = self._tunnel_of(quoted, trouble.peer)
        if tunnel is None:
            return  # believed only of a tunnel there is, RFC 8201 4
        what = (trouble.origin, trouble.type)
        if what == TOO_SMALL or (what == UNREACHABLE and trouble.code == NO_FRAGMENTS):
            if tunnel.local.version == 6 and trouble.info < LEAST_MTU6:
                return  # no IPv6 path is so small, RFC 8201 4
            known = self._tables.mtu_of(tunnel.key)
            if not known or trouble.info - outer.overhead(tunnel) < known:  # an error raises nothing, RFC 8201 4
                self._remember_mtu(tunnel, trouble.info)
            if _told_of_size(quoted):
                self._complain(icmp.TOO_BIG, quoted, tunnel)
        elif what in BROKEN:
            self._complain(icmp.BROKEN, quoted, tunnel)

    def _tunnel_of(self, packet: bytes, peer: bytes) -> Tunnel | None:
        """The tunnel to peer that this inner packet, of which the header is whole, would take."""
        family = packet[0] >> 4
        source, destination = addresses(packet, family)
        found = self._tables.match(destination, ANCHOR, family) or self._tables.match(source, ACCESS, family)
        if found is None:
            return None
        to = found[3]
        candidates = [path[0] for path in self._tables.paths(to)] if isinstance(to, int) else [to]
        return next((tunnel for tunnel in candidates if tunnel is not None and tunnel.key[24:40] == peer), None)

    # --- in ---

    def _stripped(self, octets: bytes) -> Arrival:
        try:
            return outer.strip(octets)
        except Dropped:
            _add(self._from_underlay, len(octets))
            raise

    def _unwrapped(self, arrival: Arrival) -> bytes:
        total = len(arrival.packet)
        try:
            tunnel = recognise(self._tables, arrival)
            packet = parse(arrival.packet)
            total = len(packet)
            identity = identify(packet, self._fragments)
            packet, found = pop(self._tables, tunnel, arrival.traffic_class, packet)
            self._follow(found, packet, identity, DOWN)
            self._tables.count_in(tunnel.key, total)
            return self._clamped(tunnel, packet, identity)
        finally:
            _add(self._from_underlay, total)

    def _from_underlay_to_tun(self, port: _Port) -> None:
        arrival = _receive(port)
        try:
            packet = self._unwrapped(self._without_gre(arrival) if port.kind == GRE else arrival)
            self._send_to_tun(packet)
            _add(self._to_tun, len(packet))
        except Dropped as dropped:
            self._count(dropped.reason)

    def _without_gre(self, arrival: Arrival) -> Arrival:
        try:
            key, sequence, packet = outer.strip_gre(arrival.packet)
        except Dropped:
            _add(self._from_underlay, len(arrival.packet))
            raise
        return replace(arrival, key=key, sequence=sequence, packet=packet)

    def _send_to_tun(self, packet: bytes) -> None:
        port = next((port for port in self._ports.values() if port.kind == TUN), None)
        if port is None:
            raise Dropped(Drop.NO_PORT)
        try:
            if os.write(port.fd, packet) != len(packet):
                raise Dropped(Drop.TUN_ERROR)
        except OSError as error:
            raise Dropped(Drop.TUN_FULL if error.errno in FULL else Drop.TUN_ERROR) from None

    # --- counting ---

    def _tick(self) -> None:
        self._now = time.monotonic_ns()
        self._fragments.clock = self._now // 100_000_000 & 0xFFFFFFFF

    def _count(self, reason: Drop) -> int:
        self._drops[reason] += 1
        return int(reason)


def _add(totals: list[int], octets: int) -> None:
    totals[0] += 1
    totals[1] += octets


def _socket(port: _Port) -> socket.socket:
    """An underlay socket around its descriptor, for one call; told its family, so that Python need not ask."""
    family = socket.AF_INET6 if port.family == 6 else socket.AF_INET
    return socket.socket(family, socket.SOCK_DGRAM, fileno=port.fd)


def _peer(port: _Port, tunnel: Tunnel, flow: int) -> tuple[str, int] | tuple[str, int, int, int]:
    """The far end as a socket's address; raw IPv6 sockets take the flow label there (RFC 6438 3)."""
    if port.family == 6 and port.kind != UDP:
        return (str(tunnel.remote), 0, flow & 0xFFFFF, 0)
    return (str(tunnel.remote), tunnel.port if port.kind == UDP else 0)


def _send_whole(sock: socket.socket, family: int, octets: bytes, tos: int, to: tuple[Any, ...]) -> None:
    level, kind = (socket.IPPROTO_IPV6, socket.IPV6_TCLASS) if family == 6 else (socket.IPPROTO_IP, IP_TOS)
    item = (level, kind, tos.to_bytes(4, "little"))
    try:
        sock.sendmsg([octets], [item], socket.MSG_DONTWAIT, to)
    except OSError as error:
        if error.errno in FULL or error.errno == errno.EMSGSIZE:
            raise
        sock.sendmsg([octets], [item], socket.MSG_DONTWAIT, to)  # it was an old error, of another packet


def _send_in_fragments(sock: socket.socket, family: int, octets: bytes, tos: int, to: tuple[Any, ...]) -> None:
    level = socket.IPPROTO_IPV6 if family == 6 else socket.IPPROTO_IP
    option = IPV6_MTU_DISCOVER if family == 6 else IP_MTU_DISCOVER
    before = sock.getsockopt(level, option)
    sock.setsockopt(level, option, 0 if family == 4 else 1)
    try:
        _send_whole(sock, family, octets, tos, to)
    except OSError as error:
        raise Dropped(Drop.UNDERLAY_FULL if error.errno in FULL else Drop.UNDERLAY_ERROR) from None
    finally:
        sock.setsockopt(level, option, before)


def _path_mtu(tunnel: Tunnel) -> int:
    """What the kernel knows: octets of the largest outer packet."""
    family = socket.AF_INET6 if tunnel.remote.version == 6 else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect((str(tunnel.remote), 9))
            if family == socket.AF_INET6:
                return sock.getsockopt(socket.IPPROTO_IPV6, IPV6_MTU)
            return sock.getsockopt(socket.IPPROTO_IP, IP_MTU)
        except OSError:
            return 0


def _receive(port: _Port) -> Arrival:
    """What came to a socket, without its outer headers; that of GRE is still there. Raises OSError."""
    sock = _socket(port)
    try:
        octets, ancillary, flags, sender = sock.recvmsg(ROOM, 256, socket.MSG_DONTWAIT)
    finally:
        sock.detach()  # the descriptor belongs to the Port
    if flags & socket.MSG_TRUNC:
        octets = b""  # larger than any packet: parse refuses it as truncated
    outer_class = 0
    for level, kind, value in ancillary:
        if (level, kind) in ((socket.IPPROTO_IPV6, socket.IPV6_TCLASS), (socket.IPPROTO_IP, IP_TOS)):
            outer_class = value[0]
    if port.family == 4 and port.kind != UDP and octets:  # raw IPv4 sockets give the header too
        outer_class = octets[1]
        octets = octets[4 * (octets[0] & 15) :]
    return Arrival(
        encapsulation=ENCAPSULATIONS[port.kind],
        local=port.local,
        peer=_address(port, sender),
        port=sender[1] if port.kind == UDP and sender else 0,
        key=None,
        sequence=None,
        traffic_class=outer_class,
        packet=octets,
    )


def _address(port: _Port, name: tuple[str, int] | None) -> bytes:
    """Of a socket's address, 16 octets; zeros when there is none."""
    if not name:
        return bytes(16)
    if port.family == 6:
        return socket.inet_pton(socket.AF_INET6, name[0].partition("%")[0])
    return MAPPED + socket.inet_pton(socket.AF_INET, name[0])


@dataclass(frozen=True, slots=True)
class _Trouble:
    """An ICMP error about a packet we sent. quoted: what followed its outer headers, of which GRE is none."""

    origin: int
    type: int
    code: int
    info: int  # octets, of a path that is too small
    peer: bytes
    quoted: bytes


def _read_error(port: _Port) -> _Trouble | None:
    """The next of the error queue of a socket; what our own kernel said is passed over. None: there is no more."""
    wanted = ((socket.IPPROTO_IPV6, IPV6_RECVERR), (socket.IPPROTO_IP, IP_RECVERR))
    sock = _socket(port)
    try:
        while True:
            quoted, ancillary, _, name = sock.recvmsg(ROOM, 512, socket.MSG_DONTWAIT | MSG_ERRQUEUE)
            for level, kind, value in ancillary:
                if (level, kind) in wanted and len(value) >= ERROR.size:
                    _, origin, type_, code, info, _ = ERROR.unpack_from(value)
                    if origin in (FROM_ICMP, FROM_ICMP6):
                        return _Trouble(origin, type_, code, info, _address(port, name), quoted)
    except BlockingIOError:
        return None
    finally:
        sock.detach()  # the descriptor belongs to the Port


def _told_of_size(packet: bytes) -> bool:
    """The sender of this packet is told when it is too big (RFC 2473 8.2, 8.3); of it only the header may be here."""
    if packet[0] >> 4 == 6:
        return 40 + int.from_bytes(packet[4:6], "big") > LEAST_MTU6
    return _not_in_fragments(packet)
