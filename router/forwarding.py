"""What a path of a prefix means: which kernel routes, which binding in the engine. Pure; `network.py` carries it out.

    path            kernel                                             engine
    LocalLink       P -> access link, else tun                         left to the kernel: waits, as the link is lost
    SplitLink       P -> access link; flow table: P -> tun;            P by destination -> tunnels to visited routers
                    for each flow a rule: look into that table
    TowardVisited   P -> tun                                           P by destination -> tunnels to the visited router
    BackToAnchor    the same                                           P by destination -> tunnels to the anchor
    TowardAnchor    P -> access link, else tun;                        P by source -> tunnels to the anchor;
                    table: default from P -> tun                       by destination: waits, as the link is lost
       gateway      P -> gateway on it, else tun; table: the same      the same
       no interface table: default from P -> tun, P -> next table;     the same
                    rule: from P look into the table
    Held            P -> tun                                           held: waits, as its node is between routers
    Closed          P -> tun                                           held: dropped and counted, its node is away

So only what is redirected ever touches the TUN, of a prefix whose node is here as little as its flows that are not: the
kernel tells them apart, and what stays is forwarded as fast as before. A link that loses its carrier is passed over by
the kernel at once (`else tun`, IPv6 only), before anybody can tell us, so that nothing is sent into the void meanwhile.
`table` holds default routes to the TUN and nothing else of the world, the flow table is the next one; one rule for each
access link sends packets that come in there to the former first. An anchor whose pools lead to the TUN as a whole
(aggregated) needs no route for a prefix of them. IPv4 knows no routes by source: there is one default route in the
table for all of it (`wants_ipv4_uplink`).

Here also what signalling calls a tunnel end, a flow rule and the state of a way becomes what the engine calls so.
"""

from dataclasses import dataclass, replace
from enum import Enum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any

import engine
from engine import BadRule, Discard, Encapsulation, Side, Steer, Tunnel, TunnelState
from engine.tunnels import UDP_PORT
from router.errors import RouterError
from signaling import flow_rules
from signaling.actions import Closed, Held, LocalLink, Path, SplitLink, TowardAnchor, TowardVisited, TunnelEnd
from signaling.dma.sharing import ANY_PORT, WHOLE_OCTET, blocks
from signaling.iana import TrafficSelectorFormat
from signaling.settings import Address, Prefix, WayState
from signaling.wire.traffic_selector import Range, TrafficSelector

EVERYWHERE = IPv6Network("::/0")
EVERYWHERE_IPV4 = IPv4Network("0.0.0.0/0")
STATES = {WayState.UP: TunnelState.UP, WayState.SUSPECT: TunnelState.SUSPECT, WayState.DOWN: TunnelState.DOWN}


class Device(Enum):
    """Where a route leads."""

    ACCESS = "access"
    TUN = "tun"
    NEXT_TABLE = "next table"  # nowhere: the tables after this one are asked


class Table(Enum):
    """Which routing table a route is in."""

    MAIN = "main"
    UPLINK = "uplink"
    FLOWS = "flows"  # prefixes with flows that go elsewhere


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedRoute:
    """A route this router wants in the kernel."""

    destination: Prefix
    device: Device
    interface: str = ""  # of an access route
    gateway: IPv6Address | None = None  # on that interface
    source: IPv6Network = EVERYWHERE
    table: Table = Table.MAIN
    otherwise: bool = False  # where no other route of the prefix has a link

    @property
    def key(self) -> tuple[Prefix, IPv6Network, Table, bool]:
        """Two routes with the same key replace each other."""
        return self.destination, self.source, self.table, self.otherwise


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedMatch:
    """A routing rule this router wants in the kernel: such packets look into the table of flows first."""

    destination: IPv6Network
    source: IPv6Network = EVERYWHERE
    upper_layer: int = 0  # 0: any
    source_ports: tuple[int, int] | None = None
    destination_ports: tuple[int, int] | None = None
    traffic_class: int = 0  # 0: any


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedBinding:
    """An entry this router wants in the engine's table."""

    prefix: Prefix
    tunnels: tuple[TunnelEnd, ...]  # (): held, or left to the kernel
    side: Side
    policy: str = ""
    waits: bool = False  # what comes for a node that is not there waits for it; else it dies
    native: bool = False  # the kernel has a link to the node


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """All that one path of one prefix needs. rule: packets from the prefix, wherever they come in, ask the table."""

    routes: tuple[WantedRoute, ...] = ()
    binding: WantedBinding | None = None
    rule: bool = False
    matches: tuple[WantedMatch, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Edits:
    """What has to be done to go from one path to another, in the order of the fields.

    The engine knows the way before the kernel sends packets to it, and forgets it after the kernel has stopped.
    """

    bind: WantedBinding | None = None
    set_routes: tuple[WantedRoute, ...] = ()
    set_rule: Prefix | None = None
    set_matches: tuple[WantedMatch, ...] = ()
    delete_matches: tuple[WantedMatch, ...] = ()
    delete_rule: Prefix | None = None
    delete_routes: tuple[WantedRoute, ...] = ()
    unbind: Prefix | None = None


# --- paths ---


def wanted(prefix: Prefix, path: Path | None, *, aggregated: bool = False) -> Wanted:
    """What a path needs in the kernel and in the engine; None needs nothing.

    aggregated: the prefix is of a pool that is routed to the TUN as a whole.
    """
    to_tun = () if aggregated else (_else_tun(prefix),)
    held = WantedBinding(prefix=prefix, tunnels=(), side=Side.ANCHOR, waits=True)
    match path:
        case LocalLink():
            return Wanted(routes=(_on_link(prefix, path), *to_tun), binding=replace(held, native=True))
        case SplitLink():
            return _split(prefix, path)
        case TowardVisited():
            return Wanted(routes=to_tun, binding=_toward_visited(prefix, path))
        case TowardAnchor():
            return _toward_anchor(prefix, path)
        case Held():
            return Wanted(routes=to_tun, binding=held)
        case Closed():
            return Wanted(routes=to_tun, binding=WantedBinding(prefix=prefix, tunnels=(), side=Side.ANCHOR))
        case None:
            return Wanted()
    raise AssertionError(f"{path!r} is no path")


def edits(prefix: Prefix, before: Path | None, after: Path | None, *, aggregated: bool = False) -> Edits:
    """How to go from one path to the other."""
    old, new = wanted(prefix, before, aggregated=aggregated), wanted(prefix, after, aggregated=aggregated)
    kept = {route.key for route in new.routes}
    delete_routes = tuple(route for route in old.routes if route.key not in kept)
    # what all depends on from now on is set again: somebody may have removed it
    left = any(route.device is Device.ACCESS for route in delete_routes)
    return Edits(
        bind=new.binding if new.binding != old.binding else None,
        set_routes=tuple(route for route in new.routes if route not in old.routes or (route.otherwise and left)),
        set_rule=prefix if new.rule and not old.rule else None,
        set_matches=tuple(match for match in new.matches if match not in old.matches),
        delete_matches=tuple(match for match in old.matches if match not in new.matches),
        delete_rule=prefix if old.rule and not new.rule else None,
        delete_routes=delete_routes,
        unbind=prefix if old.binding and not new.binding else None,
    )


def only_engine(before: Path | None) -> bool:
    """Whether it concerns the engine alone when a prefix of an aggregated pool goes from here to a visited router."""
    return before is None or isinstance(before, TowardVisited | Held)


def wants_ipv4_uplink(prefix: Prefix, path: Path | None) -> bool:
    """While there is such a path, IPv4 that comes in by an access link is sent to the TUN."""
    return prefix.version == 4 and isinstance(path, TowardAnchor)


def _split(prefix: Prefix, path: SplitLink) -> Wanted:
    binding = WantedBinding(prefix=prefix, tunnels=path.tunnels, side=Side.ANCHOR, policy=path.policy)
    aside = WantedRoute(destination=prefix, device=Device.TUN, table=Table.FLOWS)
    matches = tuple(dict.fromkeys(map(_match, path.flows)))
    return Wanted(routes=(_on_link(prefix, path.rest), aside), binding=binding, matches=matches)


def _match(flow: TrafficSelector) -> WantedMatch:
    """A flow as a routing rule; the role takes none that cannot be one (`sharing.why_not`)."""
    return WantedMatch(
        destination=_block(flow.destination),
        source=_block(flow.source),
        source_ports=_ports(flow.source_port),
        destination_ports=_ports(flow.destination_port),
        upper_layer=flow.protocol.start if flow.protocol else 0,
        traffic_class=flow.traffic_class.start & WHOLE_OCTET if flow.traffic_class else 0,
    )


def _block(found: Any) -> IPv6Network:
    return EVERYWHERE if found is None else blocks(found)[0]


def _ports(found: Range[int] | None) -> tuple[int, int] | None:
    ends: tuple[int, int] | None = _ends(found)
    return None if ends == ANY_PORT else ends


def _on_link(prefix: Prefix, path: LocalLink | TowardAnchor) -> WantedRoute:
    return WantedRoute(destination=prefix, device=Device.ACCESS, interface=path.interface, gateway=path.gateway)


def _else_tun(prefix: Prefix) -> WantedRoute:
    return WantedRoute(destination=prefix, device=Device.TUN, otherwise=True)


def _toward_visited(prefix: Prefix, path: TowardVisited) -> WantedBinding:
    return WantedBinding(prefix=prefix, tunnels=path.tunnels, side=Side.ANCHOR, policy=path.policy)


def _toward_anchor(prefix: Prefix, path: TowardAnchor) -> Wanted:
    uplink: tuple[WantedRoute, ...] = ()
    otherwise: tuple[WantedRoute, ...] = ()
    if isinstance(prefix, IPv6Network):
        uplink = (WantedRoute(destination=EVERYWHERE, source=prefix, device=Device.TUN, table=Table.UPLINK),)
        otherwise = (_else_tun(prefix),) if path.interface else ()
    binding = WantedBinding(
        prefix=prefix, tunnels=path.tunnels, side=Side.ACCESS, policy=path.policy, waits=bool(otherwise)
    )
    if path.interface:
        return Wanted(routes=(_on_link(prefix, path), *uplink, *otherwise), binding=binding)
    # what stays within the prefix is not for the anchor; what nodes of ours send to it is
    own = prefix if isinstance(prefix, IPv6Network) else EVERYWHERE
    inside = WantedRoute(destination=prefix, source=own, device=Device.NEXT_TABLE, table=Table.UPLINK)
    return Wanted(routes=(inside, *uplink), binding=binding, rule=True)


# --- tunnels ---


def tunnel(end: TunnelEnd, local: Address, encapsulation: Encapsulation) -> Tunnel:
    """The tunnel to that end, from local. Raises RouterError, BadTunnel.

    A peer with a port of its own is behind a NAT, which passes nothing but UDP.
    """
    kind = Encapsulation.UDP if end.port else encapsulation
    if kind is not Encapsulation.GRE and (end.key_in is not None or end.key_out is not None):
        raise RouterError(
            f"tunnel to {end.remote}: it has a GRE key, and tunnels here are {kind.value}: set [underlay] "
            'encapsulation = "gre"'
        )
    return Tunnel(
        local=local,
        remote=end.remote,
        encapsulation=kind,
        port=end.port or UDP_PORT,
        key_in=end.key_in,
        key_out=end.key_out,
    )


def path(end: TunnelEnd, through: Tunnel) -> engine.Path:
    """That tunnel as one of several ways."""
    return engine.Path(through, bid=end.binding_id, label=end.label, weight=end.weight)


# --- flow rules ---


SPREADS = {
    flow_rules.Spread.PER_FLOW: engine.Spread.PER_FLOW,
    flow_rules.Spread.PER_PACKET: engine.Spread.PER_PACKET,
    flow_rules.Spread.BICAST: engine.Spread.BICAST,
}
FAMILIES: dict[TrafficSelectorFormat, Any] = {
    TrafficSelectorFormat.IPV4_BINARY: 4,
    TrafficSelectorFormat.IPV6_BINARY: 6,
}
FIELDS = (
    "source",
    "destination",
    "spi",
    "flow_label",
    "source_port",
    "destination_port",
    "traffic_class",
    "protocol",
)


def engine_rule(rule: flow_rules.FlowRule) -> engine.FlowRule:
    """A flow rule in the words of the engine, in the same direction. Raises BadRule."""
    selector = None if rule.selector is None else _selector(rule.selector)
    if rule.spread is flow_rules.Spread.DROP:
        return engine.FlowRule(selector, Discard())
    return engine.FlowRule(selector, Steer(spread=SPREADS[rule.spread], labels=rule.labels, bids=rule.binding_ids))


def _selector(selector: TrafficSelector) -> engine.TrafficSelector:
    family = FAMILIES.get(selector.format)
    if family is None:
        raise BadRule("no such selector", where="format", why=f"{selector.format} is not binary (RFC 6088 3)")
    ends = {name: _ends(getattr(selector, name)) for name in FIELDS}
    return engine.TrafficSelector(family=family, **ends)


def _ends(several: Range[IPv4Address] | Range[IPv6Address] | Range[int] | None) -> Any:
    """Both ends of a range; a start alone is an exact value (RFC 6088 3)."""
    if several is None:
        return None
    return several.start, several.start if several.end is None else several.end
