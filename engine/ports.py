"""Port: a file descriptor the engine serves, and what it carries. Here ports are opened and made ready.

The kernel puts the outer headers on and takes them off: what crosses an underlay socket is the inner packet, behind
its GRE header if it has one. Sockets send whole datagrams only (Don't Fragment): what a path cannot carry comes back
as EMSGSIZE, and the engine decides (_fast/io.pxd).
Numbers the standard library lacks stand here as literals: this module must work where nothing is compiled.
"""

from __future__ import annotations

import enum
import errno
import fcntl
import io
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import addressof, create_string_buffer
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv6Address
from typing import Protocol

from engine.errors import (
    AddressInUse,
    AddressNotLocal,
    DeviceMissing,
    NameInUse,
    NoRights,
    PortError,
    expect,
)
from engine.offloads import (
    ALL,
    IFF_MULTI_QUEUE,
    IFF_NO_PI,
    IFF_TUN,
    IFF_VNET_HDR,
    NONE,
    OF_TUN,
    TUN_DEVICE,
    TUNSETIFF,
    Offloads,
    switch_off_tun,
    switch_on_tun,
    switch_on_udp,
)
from engine.tunnels import UDP_PORT, packed

try:
    import pytun
except ImportError:  # no wheel for this machine: our own opener below does the same
    pytun = None

TUN_FLAGS = IFF_TUN | IFF_NO_PI | IFF_MULTI_QUEUE
SO_SNDBUFFORCE, SO_RCVBUFFORCE = 32, 33  # asm-generic/socket.h
SO_ATTACH_FILTER, BPF_RETURN = 26, 0x06  # asm-generic/socket.h, linux/bpf_common.h
IP_MTU_DISCOVER, IP_RECVERR, IP_RECVTOS, IP_PMTUDISC_DO = 10, 11, 13, 2  # linux/in.h
IPV6_MTU_DISCOVER, IPV6_RECVERR, IPV6_FLOWINFO_SEND, IPV6_PMTUDISC_DO = 23, 25, 33, 2  # linux/in6.h
BUFFER = 4 << 20  # octets, each direction: some milliseconds of small packets at full speed
LEAST_MTU, MOST_MTU = 1280, 65535  # octets: RFC 8200 5, TUN driver
MOST_NAME = 15  # octets: IFNAMSIZ (linux/if.h) without the zero behind it
IPV4, IPV6, GRE = 4, 41, 47  # Assigned Internet Protocol Numbers
VNET, SEND_ONLY = 1, 64  # flags of _fast/io.pxd, beside those of Offloads

AnyAddress = IPv4Address | IPv6Address


class PortKind(enum.Enum):
    """What a port carries; the values are the numbers of _fast/io.pxd."""

    TUN = 0  # inner packets from and to the kernel
    UDP = 1  # tunnels over UDP
    IP = 2  # inner packets of one version directly behind the outer IP header
    GRE = 3  # tunnels over GRE


class Owner(Protocol):
    """Whoever holds the descriptor: a socket, a TUN object, a file."""

    def close(self) -> None:
        """Close the descriptor."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Port:
    """A descriptor, non-blocking, close-on-exec. The engine borrows it; close() is for whoever opened it."""

    fd: int
    kind: PortKind
    local: AnyAddress | None = None  # of an underlay socket: the local end of its tunnels
    inner: int = 0  # version of the packets an IP port carries, 4 or 6; of other ports: both, 0
    name: str = ""  # of a TUN device
    mtu: int | None = None  # octets, what the device is to be given; nobody has set it yet
    offloads: Offloads = NONE  # in use
    virtio: bool = False  # of a TUN: a virtio header stands before each packet
    receives: bool = True  # False: a raw socket that only sends
    owner: Owner | None = field(default=None, repr=False, compare=False)  # its end would close fd

    def fileno(self) -> int:
        """The descriptor, so that selectors take a Port."""
        return self.fd

    @property
    def family(self) -> int:
        """Version of the outer header, 4 or 6; 0 of a TUN."""
        return self.local.version if self.local else 0

    @property
    def flags(self) -> int:
        """What the compiled path has to know, as numbers of _fast/io.pxd."""
        return self.offloads.flags | VNET * self.virtio | SEND_ONLY * (not self.receives)

    @property
    def packed(self) -> bytes:
        """Local address, 16 octets: an IPv4 address as ::ffff:a.b.c.d, zeros of a TUN."""
        return packed(self.local) if self.local else bytes(16)

    def close(self) -> None:
        """Close the descriptor; remove the port from its engine first."""
        if self.owner is not None:
            self.owner.close()

    def __str__(self) -> str:
        return f"{self.kind.name.lower()} {self.name or self.local or ''} fd {self.fd}".replace("  ", " ")


def adopt_port(port: Port, fd: int) -> Port:
    """A port as another process has opened it and made it ready; fd: its descriptor here, owned from now on."""
    owner: Owner = io.FileIO(fd, "r+") if port.kind is PortKind.TUN else socket.socket(fileno=fd)
    return replace(port, fd=fd, owner=owner)


def open_udp(local: AnyAddress, *, offloads: Offloads = ALL, reuse_port: bool = False) -> Port:
    """UDP tunnels that end at local, port 5437. Raises AddressInUse, AddressNotLocal, PortError.

    reuse_port: more sockets may share the address, each with its part of the peers; all of them must say so.
    """
    sock = _make_socket(PortKind.UDP, local, socket.SOCK_DGRAM, 0)
    with _closed_on_failure(sock, PortKind.UDP, local):
        if reuse_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if local.version == 4:
            sock.setsockopt(socket.IPPROTO_IP, IP_RECVTOS, 1)  # outer ECN, RFC 6040 4.2
        _report_errors(sock, local)
        given = switch_on_udp(sock, offloads)
        sock.bind((str(local), UDP_PORT))
    return Port(fd=sock.fileno(), kind=PortKind.UDP, local=local, offloads=given, owner=sock)


def open_ip(local: AnyAddress, *, receives: bool = True) -> tuple[Port, Port]:
    """Tunnels without a header of their own that end at local: raw sockets for inner IPv6 and for inner IPv4.

    Every raw socket gets every packet: of the workers, one receives. Raises NoRights, AddressNotLocal, PortError.
    """
    six = _open_raw(PortKind.IP, local, IPV6, inner=6, receives=receives)
    try:
        return six, _open_raw(PortKind.IP, local, IPV4, inner=4, receives=receives)
    except PortError:
        six.close()
        raise


def open_gre(local: AnyAddress, *, receives: bool = True) -> Port:
    """GRE tunnels that end at local: a raw socket, see open_ip. Raises NoRights, AddressNotLocal, PortError."""
    return _open_raw(PortKind.GRE, local, GRE, inner=0, receives=receives)


def open_tun(name: str, *, mtu: int, offloads: Offloads = ALL) -> Port:
    """A queue of TUN device name ("%d" in it: the kernel counts), made if there is none.

    mtu (octets) is only noted: links are set up through netlink, elsewhere. All queues of a device must ask for the
    same offloads: the device has one set. Raises DeviceMissing, NoRights, NameInUse, PortError.
    """
    expect("cannot open TUN", name, str)
    expect("cannot open TUN", mtu, int)
    if "\0" in name or len(name.encode()) > MOST_NAME:
        why = f"a device name has {MOST_NAME} octets at most (IFNAMSIZ), none of them zero"
        raise PortError("cannot open TUN", where=name, why=why, cure="choose another name")
    if not LEAST_MTU <= mtu <= MOST_MTU:
        raise PortError("cannot open TUN", where=name, why=f"MTU {mtu} is not in {LEAST_MTU}..{MOST_MTU}")
    create = _create_with_pytun if pytun else _create_tun
    virtio = bool(offloads & OF_TUN)
    try:
        try:
            fd, actual, owner = create(name, TUN_FLAGS | IFF_VNET_HDR * virtio)
        except OSError as error:
            if not virtio or error.errno != errno.EINVAL:
                raise
            virtio = False  # a kernel without virtio headers; or the name is wrong, and this fails as well
            fd, actual, owner = create(name, TUN_FLAGS)
    except OSError as error:
        raise _why_no_tun(name, error.errno or 0) from error
    os.set_blocking(fd, False)
    os.set_inheritable(fd, False)
    given = NONE
    if virtio:
        given = switch_on_tun(fd, offloads)
    else:
        switch_off_tun(fd)
    return Port(fd=fd, kind=PortKind.TUN, name=actual, mtu=mtu, offloads=given, virtio=virtio, owner=owner)


def _make_socket(kind: PortKind, local: AnyAddress, style: int, protocol: int) -> socket.socket:
    """A socket with what all of an underlay have."""
    expect(f"cannot open {kind.name} socket", local, IPv6Address, IPv4Address)
    family = socket.AF_INET6 if local.version == 6 else socket.AF_INET
    try:
        sock = socket.socket(family, style, protocol)  # close-on-exec by PEP 446
    except OSError as error:
        raise _why_no_socket(kind, local, error) from error
    with _closed_on_failure(sock, kind, local):
        sock.setblocking(False)
        _enlarge(sock, SO_SNDBUFFORCE, socket.SO_SNDBUF)
        _enlarge(sock, SO_RCVBUFFORCE, socket.SO_RCVBUF)
        if local.version == 6:
            sock.setsockopt(socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, IPV6_PMTUDISC_DO)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVTCLASS, 1)  # outer ECN, RFC 6040 4.2
        else:
            sock.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DO)
    return sock


def _open_raw(kind: PortKind, local: AnyAddress, protocol: int, *, inner: int, receives: bool) -> Port:
    sock = _make_socket(kind, local, socket.SOCK_RAW, protocol)
    with _closed_on_failure(sock, kind, local):
        if receives:
            _report_errors(sock, local)
        else:
            _take_nothing(sock)
        if local.version == 6:
            sock.setsockopt(socket.IPPROTO_IPV6, IPV6_FLOWINFO_SEND, 1)  # RFC 6438 3: the label tells inner flows
        sock.bind((str(local), 0))
    return Port(fd=sock.fileno(), kind=kind, local=local, inner=inner, receives=receives, owner=sock)


def _report_errors(sock: socket.socket, local: AnyAddress) -> None:
    """Queue ICMP errors about what we sent. Without this the kernel learns no path MTU from a raw socket either."""
    if local.version == 6:
        sock.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVERR, 1)
    else:
        sock.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)


def _take_nothing(sock: socket.socket) -> None:
    """Another raw socket takes what arrives; and the errors, or each would be told as often as there are workers."""
    drop_all = create_string_buffer(struct.pack("HBBI", BPF_RETURN, 0, 0, 0))
    sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HL", 1, addressof(drop_all)))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 0)


@contextmanager
def _closed_on_failure(sock: socket.socket, kind: PortKind, local: AnyAddress) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        sock.close()
        raise _why_no_socket(kind, local, error) from error


def _enlarge(sock: socket.socket, forced: int, limited: int) -> None:
    try:
        sock.setsockopt(socket.SOL_SOCKET, forced, BUFFER)
    except PermissionError:  # without CAP_NET_ADMIN the sysctl limit holds
        sock.setsockopt(socket.SOL_SOCKET, limited, BUFFER)


def _create_with_pytun(name: str, flags: int) -> tuple[int, str, Owner]:
    try:
        device = pytun.TunTapDevice(name, flags=flags)
    except pytun.Error as error:
        raise OSError(*error.args[:2]) from error
    return device.fileno(), device.name, device


def _create_tun(name: str, flags: int) -> tuple[int, str, Owner]:
    file = io.FileIO(TUN_DEVICE, "r+")
    try:
        answer = fcntl.ioctl(file, TUNSETIFF, struct.pack("16sH22x", name.encode(), flags))
    except OSError:
        file.close()
        raise
    return file.fileno(), answer[:16].rstrip(b"\0").decode(), file


def _why_no_tun(name: str, number: int) -> PortError:
    what, why = "cannot open TUN", os.strerror(number)
    if number in (errno.ENOENT, errno.ENODEV, errno.ENXIO):
        cure = f"load the tun module, or pass --device {TUN_DEVICE} to the container"
        return DeviceMissing(what, where=TUN_DEVICE, why=why, cure=cure)
    if number in (errno.EPERM, errno.EACCES):
        return NoRights(what, where=name, why=why, cure=f"run with CAP_NET_ADMIN, and access to {TUN_DEVICE}")
    if number == errno.EBUSY:
        return NameInUse(what, where=name, why=why, cure="choose another name, or stop who holds the device")
    if number == errno.EINVAL:
        why = "not a multi-queue TUN device, or not a device name"
        return NameInUse(what, where=name, why=why, cure="choose another name, or remove the device")
    return PortError(what, where=name, why=why)


def _why_no_socket(kind: PortKind, local: AnyAddress, error: OSError) -> PortError:
    what, why = f"cannot open {kind.name} socket", error.strerror or ""
    where = str(local)
    if kind is PortKind.UDP:
        where = f"[{local}]:{UDP_PORT}" if local.version == 6 else f"{local}:{UDP_PORT}"
    if error.errno == errno.EADDRINUSE:
        return AddressInUse(what, where=where, why=why, cure="is another router running?")
    if error.errno == errno.EADDRNOTAVAIL:
        cure = "give the address to an interface, and wait until duplicate address detection ends"
        return AddressNotLocal(what, where=where, why=why, cure=cure)
    if error.errno in (errno.EPERM, errno.EACCES):
        return NoRights(what, where=where, why=why, cure="run with CAP_NET_RAW, or use UDP encapsulation")
    return PortError(what, where=where, why=why)
