"""Tunnel: two addresses and an encapsulation, with ports or keys where it has them; and the state it is in."""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address

from engine.errors import BadTunnel, expect

UDP_PORT = 5437  # where both ends of a tunnel over UDP listen, RFC 5844 4.1
HOP_LIMIT = 64  # of outer headers, RFC 2473 6.3: the default of the Assigned Numbers
MAPPED = bytes(10) + b"\xff\xff"  # before an IPv4 address: carried as an IPv6 one, RFC 4291 2.5.5.2


class Encapsulation(enum.Enum):
    """What stands between the outer IP header and the inner packet. Either header is IPv6 or IPv4."""

    UDP = "udp"  # a UDP header; the payload is the bare inner packet (RFC 5844 4.1)
    IP = "ip"  # nothing (RFC 2473, RFC 2003, RFC 4213)
    GRE = "gre"  # a GRE header, with key and sequence number if wanted (RFC 2784, RFC 2890, RFC 7676)


class TunnelState(enum.Enum):
    """What the control side knows of a tunnel. Paths that are up go first, then suspect ones; never those down."""

    UP = "up"
    SUSPECT = "suspect"
    DOWN = "down"


NUMBERS = {Encapsulation.UDP: 1, Encapsulation.IP: 2, Encapsulation.GRE: 3}  # as in _fast/tunnels.pxd
STATES = {TunnelState.UP: 0, TunnelState.SUSPECT: 1, TunnelState.DOWN: 2}  # as in _fast/tunnels.pxd
HAS_KEY_IN, HAS_KEY_OUT, SEQUENCED = 1, 2, 4  # flags, as in _fast/tunnels.pxd

IDENTITY = struct.Struct("!BBHI16s16s")  # encapsulation, HAS_KEY_IN or 0, port, key in, local, remote
TRAITS = struct.Struct("!BI")  # HAS_KEY_OUT and SEQUENCED, key out


@dataclass(frozen=True, slots=True, kw_only=True)
class Tunnel:
    """A tunnel seen from this end. Raises BadTunnel when no packet could ever use it.

    What arrives belongs to the tunnel whose encapsulation, addresses, port and incoming key it has: these are its
    identity. Outgoing key and sequence numbers may differ in each direction, and change.
    """

    local: IPv6Address | IPv4Address
    remote: IPv6Address | IPv4Address
    encapsulation: Encapsulation
    port: int = UDP_PORT  # UDP: where the peer sends from and listens (behind a NAT: another)
    key_in: int | None = None  # GRE: of what arrives, 32 bits (RFC 2890 2.1, RFC 5845)
    key_out: int | None = None  # GRE: of what leaves
    # GRE: number what leaves (RFC 2890 2.2); as a path of a bundle, what is spread by packet or copied
    sequence: bool = False
    # 40 and 5 octets, made once, as the tables ask for them at every bind
    key: bytes = field(init=False, repr=False, compare=False)
    traits: bytes = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        expect("no such tunnel", self.encapsulation, Encapsulation)
        for address in (self.local, self.remote):
            expect("no such tunnel", address, IPv6Address, IPv4Address)
        for number in (self.port, self.key_in or 0, self.key_out or 0):
            expect("no such tunnel", number, int)
        why = _fault(self)
        if why:
            raise BadTunnel("no such tunnel", where=str(self), why=why)
        udp = self.encapsulation is Encapsulation.UDP
        key = IDENTITY.pack(
            NUMBERS[self.encapsulation],
            HAS_KEY_IN if self.key_in is not None else 0,
            self.port if udp else 0,
            self.key_in or 0,
            packed(self.local),
            packed(self.remote),
        )
        flags = (HAS_KEY_OUT if self.key_out is not None else 0) | (SEQUENCED if self.sequence else 0)
        object.__setattr__(self, "key", key)
        object.__setattr__(self, "traits", TRAITS.pack(flags, self.key_out or 0))

    def __str__(self) -> str:
        port = f" port {self.port}" if self.port != UDP_PORT else ""
        key = f" key {self.key_in}" if self.key_in is not None else ""
        return f"{self.encapsulation.value} {self.local} -> {self.remote}{port}{key}"


def packed(address: IPv6Address | IPv4Address) -> bytes:
    """16 octets; an IPv4 address as ::ffff:a.b.c.d."""
    return address.packed if address.version == 6 else MAPPED + address.packed


def _fault(tunnel: Tunnel) -> str:
    """Why there can be no such tunnel; nothing when there can."""
    for name, address in (("local", tunnel.local), ("remote", tunnel.remote)):
        if address.is_unspecified or address.is_multicast:
            return f"{name} address {address} is not one node's"
        if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
            return f"{name} address {address} stands for an IPv4 address: give that"
    if tunnel.local == tunnel.remote:
        return "it leads to ourselves (RFC 2473 4.1.2)"
    if tunnel.local.version != tunnel.remote.version:
        return "one address is IPv4 and the other is not"
    if not 1 <= tunnel.port <= 0xFFFF:
        return f"port {tunnel.port} is not 1 to 65535"
    for key in (tunnel.key_in, tunnel.key_out):
        if key is not None and not 0 <= key <= 0xFFFFFFFF:
            return f"key {key} does not fit in 32 bits (RFC 2890 2.1)"
    if tunnel.encapsulation is not Encapsulation.GRE and (
        tunnel.key_in is not None or tunnel.key_out is not None or tunnel.sequence
    ):
        return "keys and sequence numbers are for GRE alone"
    return ""
