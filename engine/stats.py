"""Counters as frozen dataclasses, and Drop: every reason for which a packet can die."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

from engine.tunnels import Tunnel, TunnelState


class Drop(enum.IntEnum):
    """Why a packet died, in the order of its life; docs/counters.md explains each. Numbers: _fast/drops.pxd."""

    NOT_IP = 1
    TRUNCATED = 2
    BAD_HEADER = 3
    BAD_SOURCE = 4
    BAD_DESTINATION = 5
    HOP_LIMIT = 6
    BAD_OFFLOAD = 7
    NO_BINDING = 8
    NODE_AWAY = 9
    HOLD_FULL = 10
    HOLD_EXPIRED = 11
    POLICY = 12
    NO_PATH = 13
    LOOP = 14
    UNKNOWN_TUNNEL = 15
    NOT_BOUND = 16
    ECN = 17
    TWIN = 18
    REORDER_FULL = 19
    NO_PORT = 20
    TOO_BIG = 21
    UNDERLAY_FULL = 22
    UNDERLAY_ERROR = 23
    TUN_FULL = 24
    TUN_ERROR = 25


@dataclass(frozen=True, slots=True, kw_only=True)
class Counters:
    """What an engine has moved. "from": all that arrived; "to": what really left.

    Packets as they are on the wire: a bundle of segments from the kernel counts as many. Octets: inner packets.
    """

    packets_from_tun: int
    octets_from_tun: int
    packets_to_tun: int
    octets_to_tun: int
    packets_from_underlay: int
    octets_from_underlay: int
    packets_to_underlay: int
    octets_to_underlay: int
    errors: int  # ICMP errors sent to the senders of packets that could not go on
    drops: Mapping[Drop, int]  # every reason, also those that never happened

    @classmethod
    def from_row(cls, row: Sequence[int], drops: Sequence[int]) -> Counters:
        """Counters from the numbers in the order of the fields; drops: by number, 0 unused."""
        return cls(**dict(zip(NUMBERS, row, strict=True)), drops={reason: drops[reason] for reason in Drop})

    def __add__(self, other: Counters) -> Counters:
        """Of two workers together."""
        row = [getattr(self, name) + getattr(other, name) for name in NUMBERS]
        return Counters.from_row(row, [0, *(self.drops[reason] + other.drops[reason] for reason in Drop)])


NUMBERS = [field.name for field in fields(Counters) if field.name != "drops"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TunnelStats:
    """A tunnel and what it carried since its first prefix was bound to it. Octets: inner packets."""

    tunnel: Tunnel
    state: TunnelState
    mtu: int | None  # octets of the largest inner packet, as learned from the path; None: not known
    prefixes: int  # bound to it now, through bundles too
    packets_in: int  # came out of it and were let in
    octets_in: int
    packets_out: int  # went into it and left
    octets_out: int
