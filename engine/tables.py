"""Tables: what the path knows, editable while it runs. The path reads them from C or from Python.

    prefix 2001:db8:a1:100::/64 --> side ANCHOR, tunnel (local, remote, encapsulation)
    prefix 2001:db8:a1:101::/64 --> held: anchored here, the node is nowhere yet
    prefix 2001:db8:a2:200::/64 --> side ACCESS, tunnel
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from ipaddress import IPv6Network
from operator import itemgetter

from engine import fast, model
from engine.errors import NotCompiled, UnknownPrefix
from engine.stats import TunnelStats
from engine.tunnels import Tunnel


class Side(enum.Enum):
    """Which end of the tunnel we are for a prefix."""

    # anchored here, the node is away: packets to the prefix go into the tunnel, packets from it may come out
    ANCHOR = "anchor"
    # the node is here, anchored at the other end: packets from the prefix go in, packets to it may come out
    ACCESS = "access"


NUMBERS = {Side.ANCHOR: model.ANCHOR, Side.ACCESS: model.ACCESS}
SIDES = {model.ANCHOR: Side.ANCHOR, model.ACCESS: Side.ACCESS, model.HELD: None}


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """A prefix and where its packets go. Held: no tunnel and no side."""

    prefix: IPv6Network
    tunnel: Tunnel | None
    side: Side | None

    @property
    def held(self) -> bool:
        """The node is between routers."""
        return self.tunnel is None


class Tables:
    """Prefixes and the tunnels they are bound to. Every edit is O(1), whole, and seen by the next burst.

    compiled: True wants C tables (raises NotCompiled), False Python ones, None the best there is.
    """

    def __init__(self, *, compiled: bool | None = None) -> None:
        if compiled and not fast.available:
            raise NotCompiled("no compiled tables", cure="build them: python setup.py build_ext --inplace")
        use_fast = fast.Tables is not None and compiled is not False
        self.storage: model.AnyTables = fast.Tables() if fast.Tables and use_fast else model.Tables()

    @property
    def compiled(self) -> bool:
        """These are C tables: only they can feed the compiled path."""
        return not isinstance(self.storage, model.Tables)

    def bind(self, prefix: IPv6Network, tunnel: Tunnel, *, side: Side) -> None:
        """Add a prefix, or move it to another tunnel or side; a tunnel begins with its first prefix."""
        self.storage.bind(prefix.network_address.packed, prefix.prefixlen, NUMBERS[side], tunnel.key, tunnel)

    def hold(self, prefix: IPv6Network) -> None:
        """The node of this prefix, anchored here, is between routers: what comes for it dies of NODE_AWAY."""
        self.storage.hold(prefix.network_address.packed, prefix.prefixlen)

    def unbind(self, prefix: IPv6Network) -> None:
        """Forget a prefix; its tunnel goes with its last one. Raises UnknownPrefix."""
        if not self.storage.unbind(prefix.network_address.packed, prefix.prefixlen):
            raise UnknownPrefix("cannot unbind", where=str(prefix), why="not in the tables")

    def bindings(self) -> list[Binding]:
        """All prefixes, in the order of their addresses, shorter first."""
        rows = sorted(self.storage.bindings(), key=itemgetter(0, 1))
        return [
            Binding(prefix=IPv6Network((network, length)), tunnel=tunnel, side=SIDES[side])
            for network, length, side, tunnel in rows
        ]

    def tunnels(self) -> list[TunnelStats]:
        """All tunnels with their counters, in the order of encapsulation, local and remote address."""
        rows = sorted(self.storage.tunnels(), key=lambda row: row[0].key)
        return [
            TunnelStats(
                tunnel=tunnel,
                prefixes=prefixes,
                packets_in=packets_in,
                octets_in=octets_in,
                packets_out=packets_out,
                octets_out=octets_out,
            )
            for tunnel, prefixes, packets_in, octets_in, packets_out, octets_out in rows
        ]

    def __len__(self) -> int:
        return len(self.storage)
