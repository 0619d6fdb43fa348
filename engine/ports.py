"""Port: a file descriptor the engine serves, and what it carries. Here ports are opened and made ready.

The kernel puts the outer headers on and takes them off: what crosses an underlay socket is the inner packet.
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
from contextlib import ExitStack
from ctypes import addressof, create_string_buffer
from dataclasses import dataclass, field, replace
from ipaddress import IPv6Address
from typing import Protocol

from engine.errors import (
    AddressInUse,
    AddressNotLocal,
    DeviceMissing,
    NameInUse,
    NoRights,
    PortError,
)
from engine.tunnels import UDP_PORT

try:
    import pytun
except ImportError:  # no wheel for this machine: our own opener below does the same
    pytun = None

TUN_DEVICE = "/dev/net/tun"
TUNSETIFF = 0x400454CA  # linux/if_tun.h
IFF_TUN, IFF_NO_PI, IFF_MULTI_QUEUE = 0x0001, 0x1000, 0x0100
TUN_FLAGS = IFF_TUN | IFF_NO_PI | IFF_MULTI_QUEUE
SO_SNDBUFFORCE, SO_RCVBUFFORCE = 32, 33  # asm-generic/socket.h
SO_ATTACH_FILTER, BPF_RETURN = 26, 0x06  # asm-generic/socket.h, linux/bpf_common.h
IPV6_RECVERR = 25  # linux/in6.h
BUFFER = 4 << 20  # octets, each direction: some milliseconds of small packets at full speed
LEAST_MTU, MOST_MTU = 1280, 65535  # octets: RFC 8200 5, TUN driver


class PortKind(enum.Enum):
    """What a port carries; the values are the numbers of _fast/path.pxd."""

    TUN = 0  # inner packets from and to the kernel
    UDP = 1  # tunnels over UDP
    IP6 = 2  # IPv6-in-IPv6 tunnels


class Owner(Protocol):
    """Whoever holds the descriptor: a socket, a TUN object, a file."""

    def close(self) -> None:
        """Close the descriptor."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Port:
    """A descriptor, non-blocking, close-on-exec. The engine borrows it; close() is for whoever opened it."""

    fd: int
    kind: PortKind
    local: IPv6Address | None = None  # of an underlay socket: the local end of its tunnels
    name: str = ""  # of a TUN device
    mtu: int | None = None  # octets, what the device is to be given; nobody has set it yet
    owner: Owner | None = field(default=None, repr=False, compare=False)  # its end would close fd

    def fileno(self) -> int:
        """The descriptor, so that selectors take a Port."""
        return self.fd

    def close(self) -> None:
        """Close the descriptor; remove the port from its engine first."""
        if self.owner is not None:
            self.owner.close()

    def __str__(self) -> str:
        return f"{self.kind.name.lower()} {self.name or self.local or ''} fd {self.fd}".replace("  ", " ")


def open_udp(local: IPv6Address) -> Port:
    """UDP tunnels that end at local, port 5437. Raises AddressInUse, AddressNotLocal, PortError."""
    return _open_underlay(PortKind.UDP, local, socket.SOCK_DGRAM, 0, UDP_PORT)


def open_ip6(local: IPv6Address) -> Port:
    """IPv6-in-IPv6 tunnels that end at local: a raw socket. Raises NoRights, AddressNotLocal, PortError."""
    port = _open_underlay(PortKind.IP6, local, socket.SOCK_RAW, socket.IPPROTO_IPV6, 0)
    with ExitStack() as opened:
        opened.callback(port.close)
        try:
            opened.enter_context(_path_mtu_listener(local))
        except OSError as error:
            raise _why_no_socket(PortKind.IP6, local, error) from error
        return replace(port, owner=opened.pop_all())


def open_tun(name: str, *, mtu: int) -> Port:
    """A queue of TUN device name ("%d" in it: the kernel counts), made if there is none.

    mtu (octets) is only noted: links are set up through netlink, elsewhere.
    Raises DeviceMissing, NoRights, NameInUse, PortError.
    """
    if not LEAST_MTU <= mtu <= MOST_MTU:
        raise PortError("cannot open TUN", where=name, why=f"MTU {mtu} is not in {LEAST_MTU}..{MOST_MTU}")
    try:
        fd, actual, owner = _create_with_pytun(name) if pytun else _create_tun(name)
    except OSError as error:
        raise _why_no_tun(name, error.errno or 0) from error
    os.set_blocking(fd, False)
    os.set_inheritable(fd, False)
    return Port(fd=fd, kind=PortKind.TUN, name=actual, mtu=mtu, owner=owner)


def _open_underlay(kind: PortKind, local: IPv6Address, style: int, protocol: int, number: int) -> Port:
    try:
        sock = socket.socket(socket.AF_INET6, style, protocol)  # close-on-exec by PEP 446
    except OSError as error:
        raise _why_no_socket(kind, local, error) from error
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVTCLASS, 1)  # outer ECN, RFC 6040 4.2
        _enlarge(sock, SO_RCVBUFFORCE, socket.SO_RCVBUF)
        _enlarge(sock, SO_SNDBUFFORCE, socket.SO_SNDBUF)
        sock.bind((str(local), number))
    except OSError as error:
        sock.close()
        raise _why_no_socket(kind, local, error) from error
    return Port(fd=sock.fileno(), kind=kind, local=local, owner=sock)


def _path_mtu_listener(local: IPv6Address) -> socket.socket:
    """A second raw socket, for what the kernel learns by it: it takes in no packet, and nobody reads its errors.

    Packet Too Big about what a raw socket sent changes a path MTU only if such a socket wants errors (IPV6_RECVERR).
    On the socket of the port they would pile up in a queue that somebody has to empty; here its least size is enough.
    """
    listener = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_IPV6)
    drop_all = create_string_buffer(struct.pack("HBBI", BPF_RETURN, 0, 0, 0))
    listener.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HL", 1, addressof(drop_all)))
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 0)
    listener.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVERR, 1)
    listener.bind((str(local), 0))
    return listener


def _enlarge(sock: socket.socket, forced: int, limited: int) -> None:
    try:
        sock.setsockopt(socket.SOL_SOCKET, forced, BUFFER)
    except PermissionError:  # without CAP_NET_ADMIN the sysctl limit holds
        sock.setsockopt(socket.SOL_SOCKET, limited, BUFFER)


def _create_with_pytun(name: str) -> tuple[int, str, Owner]:
    try:
        device = pytun.TunTapDevice(name, flags=TUN_FLAGS)
    except pytun.Error as error:
        raise OSError(*error.args[:2]) from error
    return device.fileno(), device.name, device


def _create_tun(name: str) -> tuple[int, str, Owner]:
    if len(name.encode()) > 15:
        raise OSError(errno.EINVAL, "a device name has 15 octets at most")
    file = io.FileIO(TUN_DEVICE, "r+")
    try:
        answer = fcntl.ioctl(file, TUNSETIFF, struct.pack("16sH22x", name.encode(), TUN_FLAGS))
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


def _why_no_socket(kind: PortKind, local: IPv6Address, error: OSError) -> PortError:
    what, why = f"cannot open {kind.name} socket", error.strerror or ""
    where = f"[{local}]:{UDP_PORT}" if kind is PortKind.UDP else str(local)
    if error.errno == errno.EADDRINUSE:
        return AddressInUse(what, where=where, why=why, cure="is another router running?")
    if error.errno == errno.EADDRNOTAVAIL:
        cure = "give the address to an interface, and wait until duplicate address detection ends"
        return AddressNotLocal(what, where=where, why=why, cure=cure)
    if error.errno in (errno.EPERM, errno.EACCES):
        return NoRights(what, where=where, why=why, cure="run with CAP_NET_RAW, or use UDP encapsulation")
    return PortError(what, where=where, why=why)
