"""Counters as frozen dataclasses, and Drop: every reason for which a packet can die."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from engine.tunnels import Tunnel


class Drop(enum.IntEnum):
    """Why a packet died, in the order of its life; docs/counters.md explains each. Numbers: _fast/drops.pxd."""

    NOT_IPV6 = 1
    TRUNCATED = 2
    BAD_SOURCE = 3
    BAD_DESTINATION = 4
    HOP_LIMIT = 5
    NO_BINDING = 6
    NODE_AWAY = 7
    LOOP = 8
    UNKNOWN_TUNNEL = 9
    NOT_BOUND = 10
    ECN = 11
    NO_PORT = 12
    TOO_BIG = 13
    UNDERLAY_FULL = 14
    UNDERLAY_ERROR = 15
    TUN_FULL = 16
    TUN_ERROR = 17


@dataclass(frozen=True, slots=True, kw_only=True)
class Counters:
    """What an engine has moved. "from": all that arrived; "to": what really left. Octets: inner packets."""

    packets_from_tun: int
    octets_from_tun: int
    packets_to_tun: int
    octets_to_tun: int
    packets_from_underlay: int
    octets_from_underlay: int
    packets_to_underlay: int
    octets_to_underlay: int
    drops: Mapping[Drop, int]  # every reason, also those that never happened

    @classmethod
    def from_row(cls, row: Sequence[int], drops: Sequence[int]) -> Counters:
        """Counters from the eight numbers in the order of the fields; drops: by number, 0 unused."""
        names = [name for name in cls.__slots__ if name != "drops"]
        return cls(**dict(zip(names, row, strict=True)), drops={reason: drops[reason] for reason in Drop})


@dataclass(frozen=True, slots=True, kw_only=True)
class TunnelStats:
    """A tunnel and what it carried since its first prefix was bound to it. Octets: inner packets."""

    tunnel: Tunnel
    prefixes: int  # bound to it now
    packets_in: int  # came out of it and were delivered
    octets_in: int
    packets_out: int  # went into it and left
    octets_out: int
