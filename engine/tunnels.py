"""Tunnel: two addresses and an encapsulation. Encapsulated: a packet and the outer header it travels in."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from ipaddress import IPv6Address
from typing import NamedTuple

from engine.errors import BadTunnel

UDP_PORT = 5437  # both ends of a tunnel over UDP, RFC 5844 4.1


class Encapsulation(enum.Enum):
    """What stands between the outer IPv6 header and the inner packet."""

    UDP = "udp"  # a UDP header, port 5437 at both ends; the payload is the bare inner packet
    IP6 = "ip6"  # nothing: IPv6-in-IPv6 (RFC 2473)


NUMBERS = {Encapsulation.UDP: 1, Encapsulation.IP6: 2}  # as in _fast/tunnels.pxd, and in PortKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Tunnel:
    """A tunnel seen from this end. Raises BadTunnel when no packet could ever use it."""

    local: IPv6Address
    remote: IPv6Address
    encapsulation: Encapsulation
    # 33 octets: encapsulation, local, remote; made once, as the tables ask for it at every bind
    key: bytes = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name, address in (("local", self.local), ("remote", self.remote)):
            if address.is_unspecified or address.is_multicast:
                why = f"{name} address {address} is not one node's"
                raise BadTunnel("no such tunnel", where=str(self), why=why)
        if self.local == self.remote:
            raise BadTunnel("no such tunnel", where=str(self), why="it leads to ourselves (RFC 2473 4.1.2)")
        key = bytes([NUMBERS[self.encapsulation]]) + self.local.packed + self.remote.packed
        object.__setattr__(self, "key", key)

    def __str__(self) -> str:
        return f"{self.encapsulation.value} {self.local} -> {self.remote}"


class Encapsulated(NamedTuple):
    """An inner packet and its outer header: on its way out, or as it came in."""

    tunnel: Tunnel  # our end of it, in both directions
    traffic_class: int  # of the outer header, 8 bits: DSCP and ECN
    packet: bytes  # inner packet
