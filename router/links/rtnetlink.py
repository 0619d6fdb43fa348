"""rtnetlink messages as objects: links, addresses, routes, rules of IPv6 and IPv4, neighbours of IPv6. No socket here.

A message is a netlink header, a fixed header of its kind, then attributes (length, type, payload, padding):

    nlmsghdr | rtmsg | RTA_DST 16 octets | RTA_OIF 4 octets | ...

decode_*() give None for what is not ours to see: other families, bridge ports, cached routes.
"""

import socket
import struct
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import NamedTuple

from router.links.rtnetlink_constants import (
    FR_ACT_TO_TBL,
    NLMSGERR_ATTR_MSG,
    RTM_F_CLONED,
    AddressAttribute,
    AddressFlag,
    LinkAttribute,
    LinkFlag,
    Message,
    MessageFlag,
    NeighborAttribute,
    NeighborState,
    OperState,
    RouteAttribute,
    RouteKind,
    RuleAttribute,
    Table,
)

ROUTE_PROTOCOL = 143  # ours: in nobody's rt_protos, kept by routes and rules alike
DEFAULT_METRIC = 1024  # what the kernel takes when an IPv6 route is added without one
ANY, ANY_IPV4 = IPv6Network("::/0"), IPv4Network("0.0.0.0/0")
NOWHERE = bytes(16)
SCOPE_UNIVERSE, SCOPE_LINK = 0, 253  # of an IPv4 route: through a gateway, or to what is on the link itself
NO_FLAGS = AddressFlag(0)

AnyAddress = IPv6Address | IPv4Address
Prefix = IPv6Network | IPv4Network
EVERYWHERE: dict[int, Prefix] = {socket.AF_INET6: ANY, socket.AF_INET: ANY_IPV4}

HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port: struct nlmsghdr
ATTRIBUTE = struct.Struct("=HH")  # length, type: struct nlattr
LINK = struct.Struct("=BxHiII")  # family, device type, index, flags, change: struct ifinfomsg
ADDRESS = struct.Struct("=BBBBI")  # family, prefix length, flags, scope, index: struct ifaddrmsg
ROUTE = struct.Struct("=BBBBBBBBI")  # family, dst, src, tos, table, protocol, scope, type, flags: rtmsg
RULE = struct.Struct("=BBBBBxxBI")  # family, dst, src, tos, table, action, flags: struct fib_rule_hdr
NEIGHBOR = struct.Struct("=BxxxiHBB")  # family, index, state, flags, type: struct ndmsg
NEXT_HOP = struct.Struct("=HBBi")  # length, flags, hops, index: struct rtnexthop
HAS_LINK_LAYER = (  # states of a neighbour whose link-layer address is known
    NeighborState.REACHABLE
    | NeighborState.STALE
    | NeighborState.DELAY
    | NeighborState.PROBE
    | NeighborState.NOARP
    | NeighborState.PERMANENT
)
PORTS = struct.Struct("=HH")  # first, last: struct fib_rule_port_range
U32 = struct.Struct("=I")
S32 = struct.Struct("=i")


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A network interface."""

    index: int
    name: str
    mtu: int  # octets
    link_layer: bytes  # MAC, 6 octets; empty for a TUN
    up: bool  # switched on by its operator
    carrier: bool  # up, and something is at the other end
    operstate: OperState | int
    kind: str  # "veth", "bridge", "tun", ...; empty for hardware
    lower: int  # index of the link beneath (for a veth, of its peer, perhaps in another namespace); 0: none
    master: int  # index of the bridge it is a port of; 0: none


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """An address of an interface."""

    index: int
    address: AnyAddress
    prefixlen: int = 64
    flags: AddressFlag = NO_FLAGS

    def __str__(self) -> str:
        return f"{self.address}/{self.prefixlen}"


@dataclass(frozen=True, slots=True)
class NextHop:
    """One of several ways of a route."""

    oif: int
    gateway: AnyAddress | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """A route; with a source prefix (IPv6 alone has that) one for packets from there only."""

    destination: Prefix
    source: IPv6Network = ANY
    oif: int = 0  # index; 0: none (or the kernel finds it by the gateway)
    gateway: AnyAddress | None = None
    prefsrc: AnyAddress | None = None
    metric: int = DEFAULT_METRIC
    table: int = Table.MAIN
    protocol: int = ROUTE_PROTOCOL
    kind: RouteKind | int = RouteKind.UNICAST
    others: tuple[NextHop, ...] = ()  # beside the first; only read

    def __str__(self) -> str:
        origin = "" if self.source == ANY else f" from {self.source}"
        way = "" if self.gateway is None else f" via {self.gateway}"
        return f"{self.destination}{origin}{way}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A routing rule: packets from this prefix and interface look into that table. source tells the IP version.

    upper_layer 0, ports None, traffic_class 0: any. Ports are from 1 to 65534, both ends included; of a traffic class
    the upper 6 bits count.
    """

    table: int
    priority: int
    source: Prefix = ANY
    destination: Prefix = ANY  # of an IPv4 rule: IPv4 as well
    iif: str = ""
    upper_layer: int = 0
    source_ports: tuple[int, int] | None = None
    destination_ports: tuple[int, int] | None = None
    traffic_class: int = 0
    protocol: int = ROUTE_PROTOCOL

    def __str__(self) -> str:
        incoming = f" iif {self.iif}" if self.iif else ""
        upper = f" ipproto {self.upper_layer}" if self.upper_layer else ""
        of_node, of_peer = (
            f" {name} {ports[0]}-{ports[1]}" if ports else ""
            for name, ports in (("dport", self.destination_ports), ("sport", self.source_ports))
        )
        tos = f" tos {self.traffic_class:#x}" if self.traffic_class else ""
        what = f"{incoming}{upper}{of_peer}{of_node}{tos}"
        return f"{self.priority} from {self.source} to {self.destination}{what} table {self.table}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbor:
    """A neighbour of an interface, as neighbour discovery or ARP has it."""

    index: int
    address: AnyAddress
    link_layer: bytes = b""  # MAC, empty while unknown
    state: NeighborState = NeighborState.PERMANENT

    def __str__(self) -> str:
        return f"{self.address} lladdr {self.link_layer.hex(':')}" if self.link_layer else str(self.address)


@dataclass(frozen=True, slots=True)
class LinkChanged:
    """A link came, changed or went."""

    link: Link
    gone: bool


@dataclass(frozen=True, slots=True)
class AddressChanged:
    """An address came, changed its flags or went."""

    index: int
    address: AnyAddress
    prefixlen: int
    gone: bool
    flags: AddressFlag


@dataclass(frozen=True, slots=True)
class NeighborChanged:
    """A neighbour came, changed its state or went."""

    index: int
    address: AnyAddress
    link_layer: bytes
    state: NeighborState
    gone: bool


@dataclass(frozen=True, slots=True)
class RouteChanged:
    """A route came or went; only for those who watch Group.IPV6_ROUTE or IPV4_ROUTE."""

    route: Route
    gone: bool


Event = LinkChanged | AddressChanged | NeighborChanged | RouteChanged


class Reply(NamedTuple):
    """One netlink message as received."""

    kind: int
    flags: int
    sequence: int
    body: bytes


class Refused(Exception):  # noqa: N818  an answer of the kernel, not yet an error with a place
    """Inside this file: errno and the kernel's sentence, until the caller adds what it wanted."""

    def __init__(self, number: int, hint: str) -> None:
        super().__init__(number, hint)
        self.number = number
        self.hint = hint


def attribute(kind: int, payload: bytes) -> bytes:
    """One attribute, padded to 4 octets."""
    return ATTRIBUTE.pack(4 + len(payload), kind) + payload + bytes(-len(payload) % 4)


def attributes(octets: bytes, at: int) -> dict[int, bytes]:
    """Attributes that start at an offset, by type; flags in the type are cut off."""
    found = {}
    while at + 4 <= len(octets):
        length, kind = ATTRIBUTE.unpack_from(octets, at)
        if length < 4:
            break
        found[kind & 0x3FFF] = octets[at + 4 : at + length]
        at += (length + 3) & ~3
    return found


def number(kind: int, value: int) -> bytes:
    """An attribute of 32 bits; none at all for 0."""
    return attribute(kind, U32.pack(value)) if value else b""


def text(kind: int, value: str) -> bytes:
    """An attribute with a NUL-terminated name; none at all for an empty one."""
    return attribute(kind, value.encode() + b"\0") if value else b""


def address(kind: int, value: AnyAddress | None) -> bytes:
    """An attribute with an address; none at all for None."""
    return b"" if value is None else attribute(kind, value.packed)


def prefix(kind: int, value: Prefix) -> bytes:
    """An attribute with the address of a prefix; none at all for one of length 0."""
    return attribute(kind, value.network_address.packed) if value.prefixlen else b""


def ports(kind: int, value: tuple[int, int] | None) -> bytes:
    """An attribute with a range of ports; none at all for None."""
    return b"" if value is None else attribute(kind, PORTS.pack(*value))


def messages(octets: bytes) -> Iterator[Reply]:
    """Messages of one datagram."""
    at = 0
    while at + HEADER.size <= len(octets):
        length, kind, flags, sequence, _ = HEADER.unpack_from(octets, at)
        if length < HEADER.size:
            break
        yield Reply(kind, flags, sequence, octets[at + HEADER.size : at + length])
        at += (length + 3) & ~3


def check(reply: Reply) -> None:
    """Raise Refused unless an ack (or the end of a dump) says all went well."""
    code = S32.unpack_from(reply.body)[0] if len(reply.body) >= 4 else 0
    if code >= 0:
        return
    hint = ""
    if reply.flags & MessageFlag.ACK_TLVS:
        at = 4 if reply.kind == Message.DONE else 4 + HEADER.size  # CAP_ACK: of our request the header only
        hint = attributes(reply.body, at).get(NLMSGERR_ATTR_MSG, b"").rstrip(b"\0").decode(errors="replace")
    raise Refused(-code, hint)


def read_u32(found: dict[int, bytes], kind: int, default: int = 0) -> int:
    """A 32-bit attribute, or the default."""
    octets = found.get(kind)
    return default if octets is None else int(U32.unpack_from(octets)[0])


def read_ports(found: dict[int, bytes], kind: int) -> tuple[int, int] | None:
    """A range of ports; None: any."""
    octets = found.get(kind)
    if octets is None:
        return None
    first, last = PORTS.unpack_from(octets)
    return first, last


def read_text(found: dict[int, bytes], kind: int) -> str:
    """A name, or nothing."""
    return found.get(kind, b"").rstrip(b"\0").decode(errors="replace")


def read_address(found: dict[int, bytes], kind: int) -> AnyAddress | None:
    """An address, its length tells which; or None."""
    octets = found.get(kind, b"")
    if len(octets) == 4:
        return IPv4Address(octets)
    return IPv6Address(octets) if len(octets) == 16 else None


def read_prefix(found: dict[int, bytes], kind: int, length: int, family: int) -> Prefix:
    """A prefix of that length; an absent attribute is all zeroes."""
    if not length:
        return EVERYWHERE[family]
    if family == socket.AF_INET:
        return IPv4Network((found.get(kind, bytes(4)), length), strict=False)
    return IPv6Network((found.get(kind, bytes(16)), length), strict=False)


def read_source(found: dict[int, bytes], kind: int, length: int) -> IPv6Network:
    """The source prefix of a route; IPv4 routes have none."""
    return IPv6Network((found.get(kind, bytes(16)), length), strict=False) if length else ANY


def family_of(value: AnyAddress | Prefix) -> int:
    """AF_INET6 or AF_INET."""
    return socket.AF_INET6 if value.version == 6 else socket.AF_INET


def decode_link(body: bytes) -> Link | None:
    """A link; None for what bridges say about their ports on the same group."""
    family, _, index, flags, _ = LINK.unpack_from(body)
    if family != socket.AF_UNSPEC:
        return None
    found = attributes(body, LINK.size)
    state = found.get(LinkAttribute.OPERSTATE, b"\0")[0]
    return Link(
        index=index,
        name=read_text(found, LinkAttribute.IFNAME),
        mtu=read_u32(found, LinkAttribute.MTU),
        link_layer=found.get(LinkAttribute.ADDRESS, b""),
        up=bool(flags & LinkFlag.UP),
        carrier=bool(flags & LinkFlag.LOWER_UP),
        operstate=OperState(state) if state in OperState._value2member_map_ else state,
        kind=read_text(attributes(found.get(LinkAttribute.LINKINFO, b""), 0), LinkAttribute.INFO_KIND),
        lower=read_u32(found, LinkAttribute.LINK),
        master=read_u32(found, LinkAttribute.MASTER),
    )


def decode_address(body: bytes) -> Address | None:
    """An address of a link, or None."""
    family, prefixlen, flags, _, index = ADDRESS.unpack_from(body)
    found = attributes(body, ADDRESS.size)
    # on a point-to-point link ADDRESS is the peer's and LOCAL is ours
    own = read_address(found, AddressAttribute.LOCAL) or read_address(found, AddressAttribute.ADDRESS)
    if family not in EVERYWHERE or own is None:
        return None
    flags = AddressFlag(read_u32(found, AddressAttribute.FLAGS, flags))
    return Address(index=index, address=own, prefixlen=prefixlen, flags=flags)


def decode_route(body: bytes) -> Route | None:
    """A route of IPv6 or IPv4, or None."""
    family, to, origin, _, table, protocol, _, kind, flags = ROUTE.unpack_from(body)
    if family not in EVERYWHERE or flags & RTM_F_CLONED:
        return None
    found = attributes(body, ROUTE.size)
    if family == socket.AF_INET or found.get(RouteAttribute.SRC) == NOWHERE:
        origin = 0  # the answer to "which way?" repeats that we named no source
    hops = read_hops(found.get(RouteAttribute.MULTIPATH, b""))
    first = NextHop(read_u32(found, RouteAttribute.OIF), read_address(found, RouteAttribute.GATEWAY))
    first, *others = hops or [first]
    return Route(
        destination=read_prefix(found, RouteAttribute.DST, to, family),
        source=read_source(found, RouteAttribute.SRC, origin),
        oif=first.oif,
        gateway=first.gateway,
        prefsrc=read_address(found, RouteAttribute.PREFSRC),
        metric=read_u32(found, RouteAttribute.PRIORITY),
        table=read_u32(found, RouteAttribute.TABLE, table),
        protocol=protocol,
        kind=RouteKind(kind) if kind in RouteKind._value2member_map_ else kind,
        others=tuple(others),
    )


def read_hops(octets: bytes) -> list[NextHop]:
    """The ways of a route that has several."""
    hops = []
    while len(octets) >= NEXT_HOP.size:
        length, _, _, index = NEXT_HOP.unpack_from(octets)
        if length < NEXT_HOP.size:
            break
        hops.append(NextHop(index, read_address(attributes(octets[:length], NEXT_HOP.size), RouteAttribute.GATEWAY)))
        octets = octets[(length + 3) & ~3 :]
    return hops


def decode_rule(body: bytes) -> Rule | None:
    """A rule of IPv6 or IPv4 that names a table, or None."""
    family, to, origin, traffic_class, table, action, _ = RULE.unpack_from(body)
    if family not in EVERYWHERE or action != FR_ACT_TO_TBL:
        return None
    found = attributes(body, RULE.size)
    return Rule(
        table=read_u32(found, RuleAttribute.TABLE, table),
        priority=read_u32(found, RuleAttribute.PRIORITY),
        source=read_prefix(found, RuleAttribute.SRC, origin, family),
        destination=read_prefix(found, RuleAttribute.DST, to, family),
        iif=read_text(found, RuleAttribute.IIFNAME),
        upper_layer=found.get(RuleAttribute.IP_PROTO, b"\0")[0],
        source_ports=read_ports(found, RuleAttribute.SPORT_RANGE),
        destination_ports=read_ports(found, RuleAttribute.DPORT_RANGE),
        traffic_class=traffic_class,
        protocol=found.get(RuleAttribute.PROTOCOL, b"\0")[0],
    )


def decode_neighbor(body: bytes) -> Neighbor | None:
    """An IPv6 neighbour, or None for anything else (a bridge's table comes by the same messages)."""
    family, index, state, _, _ = NEIGHBOR.unpack_from(body)
    found = attributes(body, NEIGHBOR.size)
    theirs = read_address(found, NeighborAttribute.DST)
    if family != socket.AF_INET6 or not isinstance(theirs, IPv6Address):
        return None
    link_layer = found.get(NeighborAttribute.LLADDR, b"")
    return Neighbor(index=index, address=theirs, link_layer=link_layer, state=NeighborState(state))


def decode_uncertain_neighbor(body: bytes, *, link_layers: Collection[bytes]) -> Neighbor | None:
    """The same, or None also for one that has a link-layer address that is none of these."""
    _, _, state, _, _ = NEIGHBOR.unpack_from(body)
    if not state & HAS_LINK_LAYER:
        return decode_neighbor(body)
    wanted = link_layers and attributes(body, NEIGHBOR.size).get(NeighborAttribute.LLADDR) in link_layers
    return decode_neighbor(body) if wanted else None


def encode_route(route: Route) -> bytes:
    """Body of a route request."""
    short_table = route.table if route.table < 256 else Table.COMPAT
    family = family_of(route.destination)
    on_link = family == socket.AF_INET and route.kind == RouteKind.UNICAST and route.gateway is None
    header = ROUTE.pack(
        family,
        route.destination.prefixlen,
        route.source.prefixlen,
        0,
        short_table,
        route.protocol,
        SCOPE_LINK if on_link else SCOPE_UNIVERSE,
        route.kind,
        0,
    )
    return b"".join(
        (
            header,
            prefix(RouteAttribute.DST, route.destination),
            prefix(RouteAttribute.SRC, route.source),
            number(RouteAttribute.OIF, route.oif),
            address(RouteAttribute.GATEWAY, route.gateway),
            address(RouteAttribute.PREFSRC, route.prefsrc),
            number(RouteAttribute.PRIORITY, route.metric),
            number(RouteAttribute.TABLE, route.table),
        )
    )


def encode_rule(rule: Rule) -> bytes:
    """Body of a rule request."""
    short_table = rule.table if rule.table < 256 else Table.COMPAT
    to, origin = rule.destination.prefixlen, rule.source.prefixlen
    return b"".join(
        (
            RULE.pack(family_of(rule.source), to, origin, rule.traffic_class, short_table, FR_ACT_TO_TBL, 0),
            prefix(RuleAttribute.DST, rule.destination),
            prefix(RuleAttribute.SRC, rule.source),
            text(RuleAttribute.IIFNAME, rule.iif),
            attribute(RuleAttribute.PRIORITY, U32.pack(rule.priority)),
            number(RuleAttribute.TABLE, rule.table),
            attribute(RuleAttribute.PROTOCOL, bytes([rule.protocol])),
            attribute(RuleAttribute.IP_PROTO, bytes([rule.upper_layer])) if rule.upper_layer else b"",
            ports(RuleAttribute.SPORT_RANGE, rule.source_ports),
            ports(RuleAttribute.DPORT_RANGE, rule.destination_ports),
        )
    )


def encode_address(wanted: Address) -> bytes:
    """Body of an address request."""
    header = ADDRESS.pack(family_of(wanted.address), wanted.prefixlen, wanted.flags & 0xFF, 0, wanted.index)
    flags = number(AddressAttribute.FLAGS, wanted.flags)
    return header + address(AddressAttribute.LOCAL, wanted.address) + flags


def encode_neighbor(neighbor: Neighbor) -> bytes:
    """Body of a neighbour request."""
    header = NEIGHBOR.pack(family_of(neighbor.address), neighbor.index, neighbor.state, 0, 0)
    link_layer = attribute(NeighborAttribute.LLADDR, neighbor.link_layer) if neighbor.link_layer else b""
    return header + address(NeighborAttribute.DST, neighbor.address) + link_layer


def address_changed(own: Address, gone: bool) -> AddressChanged:
    """The event about an address."""
    return AddressChanged(own.index, own.address, own.prefixlen, gone, own.flags)


def neighbor_changed(near: Neighbor, gone: bool) -> NeighborChanged:
    """The event about a neighbour."""
    return NeighborChanged(near.index, near.address, near.link_layer, near.state, gone)


def decode_event(reply: Reply) -> Event | None:
    """What a message of the event socket says, or None if it is none of ours."""
    match reply.kind:
        case Message.NEWLINK | Message.DELLINK:
            link = decode_link(reply.body)
            return LinkChanged(link, reply.kind == Message.DELLINK) if link else None
        case Message.NEWADDR | Message.DELADDR:
            own = decode_address(reply.body)
            return address_changed(own, reply.kind == Message.DELADDR) if own else None
        case Message.NEWNEIGH | Message.DELNEIGH:
            near = decode_neighbor(reply.body)
            return neighbor_changed(near, reply.kind == Message.DELNEIGH) if near else None
        case Message.NEWROUTE | Message.DELROUTE:
            route = decode_route(reply.body)
            return RouteChanged(route, reply.kind == Message.DELROUTE) if route else None
    return None
