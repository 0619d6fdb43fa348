"""What a path of a prefix means: which kernel routes, which binding in the engine. Pure; `network.py` carries it out.

    path            kernel                                             engine
    LocalLink       P -> access link                                   -
    TowardVisited   P -> tun                                           P by destination -> tunnel to the visited router
    TowardAnchor    P -> access link; table: default from P -> tun     P by source -> tunnel to the anchor
    Held            P -> tun                                           held: dropped and counted, its node is away

So only redirected prefixes ever touch the TUN. `table` holds nothing but source-specific default routes; one rule for
each access link sends packets that come in there to it first.
"""

from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv6Address, IPv6Network

from engine import Side
from signaling.actions import Held, LocalLink, Path, TowardAnchor, TowardVisited

EVERYWHERE = IPv6Network("::/0")


class Device(Enum):
    """Where a route leads."""

    ACCESS = "access"
    TUN = "tun"


class Table(Enum):
    """Which routing table a route is in."""

    MAIN = "main"
    UPLINK = "uplink"


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedRoute:
    """A route this router wants in the kernel."""

    destination: IPv6Network
    device: Device
    interface: str = ""  # of an access route
    source: IPv6Network = EVERYWHERE
    table: Table = Table.MAIN

    @property
    def key(self) -> tuple[IPv6Network, IPv6Network, Table]:
        """Two routes with the same key replace each other."""
        return self.destination, self.source, self.table


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedBinding:
    """An entry this router wants in the engine's table."""

    prefix: IPv6Network
    remote: IPv6Address | None  # None: held
    side: Side


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """All that one path of one prefix needs."""

    routes: tuple[WantedRoute, ...] = ()
    binding: WantedBinding | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Edits:
    """What has to be done to go from one path to another, in the order of the fields.

    The engine knows the way before the kernel sends packets to it, and forgets it after the kernel has stopped.
    """

    bind: WantedBinding | None = None
    set_routes: tuple[WantedRoute, ...] = ()
    delete_routes: tuple[WantedRoute, ...] = ()
    unbind: IPv6Network | None = None


def wanted(prefix: IPv6Network, path: Path | None) -> Wanted:
    """What a path needs in the kernel and in the engine; None needs nothing."""
    match path:
        case LocalLink(interface=interface):
            return Wanted(routes=(_to_link(prefix, interface),))
        case TowardVisited(care_of=care_of):
            binding = WantedBinding(prefix=prefix, remote=care_of, side=Side.ANCHOR)
            return Wanted(routes=(_to_tun(prefix),), binding=binding)
        case TowardAnchor(anchor=anchor, interface=interface):
            binding = WantedBinding(prefix=prefix, remote=anchor, side=Side.ACCESS)
            uplink = WantedRoute(destination=EVERYWHERE, source=prefix, device=Device.TUN, table=Table.UPLINK)
            return Wanted(routes=(_to_link(prefix, interface), uplink), binding=binding)
        case Held():
            binding = WantedBinding(prefix=prefix, remote=None, side=Side.ANCHOR)
            return Wanted(routes=(_to_tun(prefix),), binding=binding)
        case None:
            return Wanted()


def edits(prefix: IPv6Network, before: Path | None, after: Path | None) -> Edits:
    """How to go from one path to the other."""
    old, new = wanted(prefix, before), wanted(prefix, after)
    kept = {route.key for route in new.routes}
    return Edits(
        bind=new.binding if new.binding != old.binding else None,
        set_routes=tuple(route for route in new.routes if route not in old.routes),
        delete_routes=tuple(route for route in old.routes if route.key not in kept),
        unbind=prefix if old.binding and not new.binding else None,
    )


def _to_link(prefix: IPv6Network, interface: str) -> WantedRoute:
    return WantedRoute(destination=prefix, device=Device.ACCESS, interface=interface)


def _to_tun(prefix: IPv6Network) -> WantedRoute:
    return WantedRoute(destination=prefix, device=Device.TUN)
