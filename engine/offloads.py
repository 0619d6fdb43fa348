"""Offloads: what the kernel takes off our hands. Each is tried, each has a plain path beside it, each can be refused.

Numbers the standard library lacks stand here as literals: this module must work where nothing is compiled.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
from dataclasses import astuple, dataclass

TUN_DEVICE = "/dev/net/tun"
TUNSETIFF, TUNSETOFFLOAD = 0x400454CA, 0x400454D0  # linux/if_tun.h
IFF_TUN, IFF_NO_PI, IFF_MULTI_QUEUE, IFF_VNET_HDR = 0x0001, 0x1000, 0x0100, 0x4000
TUN_F_CSUM, TUN_F_TSO4, TUN_F_TSO6, TUN_F_TSO_ECN, TUN_F_USO4, TUN_F_USO6 = 0x01, 0x02, 0x04, 0x08, 0x20, 0x40
SOL_UDP, UDP_SEGMENT, UDP_GRO = 17, 103, 104  # linux/udp.h

TSO = TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN
USO = TUN_F_USO4 | TUN_F_USO6  # Linux 6.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Offloads:
    """Wanted, or in use. Large packets need checksum: without it there is neither tso nor uso."""

    tso: bool = True  # TUN: TCP segments come and go as one packet of up to 64 KiB
    uso: bool = True  # TUN: the same for UDP datagrams of one flow
    checksum: bool = True  # TUN: the kernel leaves checksums to us, and believes ours
    udp_segment: bool = True  # UDP: many datagrams leave in one message
    udp_gro: bool = True  # UDP: many datagrams arrive in one message

    def __and__(self, other: Offloads) -> Offloads:
        """What both have."""
        return Offloads(**{name: getattr(self, name) and getattr(other, name) for name in Offloads.__slots__})

    def __bool__(self) -> bool:
        """There is one at least."""
        return any(astuple(self))

    @property
    def flags(self) -> int:
        """As numbers of _fast/io.pxd."""
        return sum(flag for flag, used in zip(FLAGS, astuple(self), strict=True) if used)


FLAGS = (4, 8, 2, 16, 32)  # in the order of the fields
ALL = Offloads()
NONE = Offloads(tso=False, uso=False, checksum=False, udp_segment=False, udp_gro=False)
OF_TUN = Offloads(udp_segment=False, udp_gro=False)


def switch_on_tun(fd: int, wanted: Offloads) -> Offloads:
    """Give a TUN queue with virtio headers what is wanted and there; what it has got then. Raises OSError."""
    large = (wanted.tso, wanted.uso) if wanted.checksum else (False, False)
    for tso, uso in ((large[0], large[1]), (large[0], False), (False, False)):
        if _set_tun(fd, (TUN_F_CSUM if wanted.checksum else 0) | TSO * tso | USO * uso):
            return Offloads(tso=tso, uso=uso, checksum=wanted.checksum, udp_segment=False, udp_gro=False)
    return NONE


def switch_off_tun(fd: int) -> None:
    """A device may have had offloads from whoever opened it before."""
    _set_tun(fd, 0)


def _set_tun(fd: int, flags: int) -> bool:
    try:
        fcntl.ioctl(fd, TUNSETOFFLOAD, flags)
    except OSError:  # EINVAL: this kernel lacks one of them
        return False
    return True


def switch_on_udp(sock: socket.socket, wanted: Offloads) -> Offloads:
    """Give a UDP socket what is wanted and there; what it has got then."""
    return Offloads(
        tso=False,
        uso=False,
        checksum=False,
        udp_segment=wanted.udp_segment and _set_udp(sock, UDP_SEGMENT, 0),  # 0: only as each message says
        udp_gro=wanted.udp_gro and _set_udp(sock, UDP_GRO, 1),
    )


def _set_udp(sock: socket.socket, option: int, value: int) -> bool:
    try:
        sock.setsockopt(SOL_UDP, option, value)
    except OSError:
        return False
    return True


def probe() -> Offloads:
    """What this kernel can do. Those of the TUN need the right to make one: without it they count as missing."""
    udp = NONE
    for family in (socket.AF_INET6, socket.AF_INET):
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as sock:
                udp = switch_on_udp(sock, ALL)
                break
        except OSError:
            continue
    tun = _probe_tun()
    return Offloads(tso=tun.tso, uso=tun.uso, checksum=tun.checksum, udp_segment=udp.udp_segment, udp_gro=udp.udp_gro)


def _probe_tun() -> Offloads:
    try:
        fd = os.open(TUN_DEVICE, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return NONE
    try:
        fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", b"omprobe%d", IFF_TUN | IFF_NO_PI | IFF_VNET_HDR))
        return switch_on_tun(fd, ALL)
    except OSError:
        return NONE
    finally:
        os.close(fd)
