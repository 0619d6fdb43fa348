"""What tests of engines with real descriptors share: serving until nothing is left, hosts that speak IPv4, reading."""

from __future__ import annotations

import fcntl
import select
import socket
import struct
from collections.abc import Callable
from ipaddress import IPv4Interface, IPv4Network, IPv6Address
from pathlib import Path

from engine import Engine
from router.demo.lab import Host
from tests.eventually import eventually

PATIENCE = 10.0  # s: what has not happened by then never will
SIOCSIFADDR, SIOCSIFNETMASK, SIOCADDRT = 0x8916, 0x891C, 0x890B  # linux/sockios.h
RTF_LOCAL = 0x80000000  # linux/ipv6_route.h
GATEWAY = 3  # RTF_UP | RTF_GATEWAY (linux/route.h)


def settle(*engines: Engine) -> None:
    """Serve until nothing is left to do."""
    while ready := select.select(engines, [], [], 0)[0]:
        for engine in ready:
            engine.turn()


def serve_until(wanted: Callable[[], bool], *engines: Engine) -> None:
    """Serve until it is so."""

    def served() -> bool:
        settle(*engines)
        return wanted()

    eventually(served, PATIENCE)


def drained(sock: socket.socket) -> list[bytes]:
    """All that waits."""
    octets = []
    while True:
        try:
            octets.append(sock.recv(70000))
        except BlockingIOError:
            return octets


def give_ipv4(host: Host, link: str, address: str) -> None:
    """A link its IPv4 address, written with its prefix length."""
    with host.inside(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        wanted = IPv4Interface(address)
        for call, value in ((SIOCSIFADDR, wanted.ip), (SIOCSIFNETMASK, wanted.netmask)):
            fcntl.ioctl(sock, call, struct.pack("16s16s8x", link.encode(), sockaddr4(value.packed)))


def route_ipv4(host: Host, network: str, via: str) -> None:
    """A route through a gateway."""
    wanted = IPv4Network(network)
    names = (wanted.network_address.packed, socket.inet_aton(via), wanted.netmask.packed)
    with host.inside(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        entry = struct.pack("8x16s16s16sH70x", *map(sockaddr4, names), GATEWAY)  # struct rtentry
        fcntl.ioctl(sock, SIOCADDRT, entry)


def usable(address: IPv6Address) -> bool:
    """The kernel of this thread's host takes packets to it: that comes a little after the address."""
    rows = [row.split() for row in Path("/proc/thread-self/net/ipv6_route").read_text().splitlines()]
    return any(row[0] == address.packed.hex() and int(row[8], 16) & RTF_LOCAL for row in rows)


def wait_for_address(host: Host, address: str) -> None:
    """The kernel of a host takes packets to an IPv6 address, and answers for it, a little after it was given."""

    def is_usable() -> bool:
        with host.inside():
            return usable(IPv6Address(address))

    eventually(is_usable, what=f"{address} of {host.name} is usable")


def sockaddr4(address: bytes) -> bytes:
    return struct.pack("=H2x4s8x", socket.AF_INET, address)
