"""All that this router changes in the kernel, and how it takes it back.

Routes and rules carry our own protocol number, so whatever a crash left behind is recognised by the next start. What
has no owner mark (sysctls, a link-layer address) is in `changes.py`.
"""

import errno
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address
from itertools import repeat
from pathlib import Path
from typing import TypeVar

import engine
from engine import BadRule, Encapsulation, HeldStats, HoldBuffer, Side, Tables, Tunnel, UnknownPrefix
from router import forwarding
from router.changes import Change, Changes
from router.errors import NoRights, RouterError
from router.forwarding import EVERYWHERE_IPV4, Device, Edits, WantedBinding, WantedMatch, WantedRoute, edits
from router.forwarding import Table as Where
from router.homecoming import Homecomings
from router.links.netlink import Netlink, NetlinkError
from router.links.rtnetlink import (
    ANY_IPV4,
    DEFAULT_METRIC,
    EVERYWHERE,
    ROUTE_PROTOCOL,
    Address,
    Link,
    Neighbor,
    Route,
    Rule,
)
from router.links.rtnetlink_constants import AddressFlag, NeighborState, RouteKind, Table
from router.neighbors import Neighbors
from router.rounds import Later, Rounds
from router.source_guard import LAST_RESORT, SourceGuard
from router.ways import Ends, Ways, refuse_numbers
from signaling import actions
from signaling.access_link import ROUTER_ADDRESS, ROUTER_LINK_LAYER
from signaling.flow_rules import FlowRule
from signaling.settings import Prefix, Wants

T = TypeVar("T")

FLOW_PRIORITY = 5212  # before the rules of uplinks: flows that are moved are moved wherever they come from
RULE_PRIORITY = 5213  # before the main table (32766), after the local one (0)
GONE = {errno.ESRCH, errno.ENOENT, errno.ENODEV, errno.EADDRNOTAVAIL, errno.ENETDOWN}
LINK_LOCAL_LENGTH = 64
OTHERWISE = 2 * DEFAULT_METRIC  # of routes for what another one has no link for
TUN_QUEUE = 10_000  # packets that wait while one process takes over from another; the driver's 500 are soon full
MOST_ENDS = 4096  # kept as objects of the engine
LOOKS = 3  # at the router's address, until it is as we want it
TENTH = 0.1  # s: to so much the engine knows when a packet passed


@dataclass(frozen=True, slots=True)
class DefaultRouter:
    """The default router of IPv4 home addresses, as an access interface has it while there are any."""

    interface: str
    address: IPv4Address

    @property
    def change(self) -> Change:
        """What is noted of it."""
        return Change(kind="router", name=f"router/{self.interface}/{self.address}", value="")


class Network:
    """The kernel's side of forwarding: paths of prefixes, access links, the TUN. Errors are NetlinkError.

    address, ipv4_address: where tunnels begin that name no local address. aggregated: prefixes whose nodes are
    elsewhere are of pools that lead to the TUN as a whole (`claim_tun`). guard: which sources may come in where; None:
    any, anywhere. buffer: where packets wait for a node that is between routers; None: they are lost. later: calls
    something after so many seconds; None: what waits for a node that comes back to this router, or was on its way to
    another one, is lost.
    """

    def __init__(
        self,
        netlink: Netlink,
        tables: Tables,
        *,
        address: IPv6Address,
        encapsulation: Encapsulation,
        table: int,
        journal: Path,
        ipv4_address: IPv4Address | None = None,
        aggregated: bool = False,
        guard: SourceGuard | None = None,
        buffer: HoldBuffer | None = None,
        later: Later | None = None,
    ) -> None:
        self._netlink = netlink
        self._tables = tables
        self._ways = Ways(tables)
        self._address = address
        self._ipv4_address = ipv4_address
        self._encapsulation = encapsulation
        self._table = table
        self._aggregated = aggregated
        self._guard = guard or SourceGuard(table)
        self._buffer = buffer if tables.compiled else None  # the model keeps no packets
        self._homecomings = Homecomings(netlink, tables, later) if later and tables.compiled else None
        self._sweeps = Rounds(later, tables.transience, tables.sweep) if later and tables.transience else None
        self._changes = Changes(netlink, journal)
        self._tun = 0
        self._tun_name = ""
        self._claimed: tuple[Prefix, ...] = ()  # pools that lead to the TUN
        self._access: dict[str, int] = {}  # interface -> index
        self._neighbors = Neighbors(netlink, self._access.values(), later)
        self._known_ends: dict[int, tuple[tuple[actions.TunnelEnd, ...], Ends]] = {}  # by identity: they stay
        self._ipv4_uplink: set[Prefix] = set()  # of nodes here, anchored elsewhere
        self._default_routers: dict[bytes, DefaultRouter] = {}  # of nodes that have IPv4, by link-layer address
        self.paths: dict[Prefix, actions.Path] = {}
        self.nodes: dict[Prefix, str] = {}
        self.policies: dict[str, tuple[FlowRule, ...]] = {}

    # --- beginning and end ---

    def clean(self) -> list[str]:
        """Remove what a run that crashed left behind. Returns what was found, in words."""
        found: list[str] = []
        for family in EVERYWHERE:
            for route in self._netlink.routes(protocol=ROUTE_PROTOCOL, family=family):
                self._quietly(self._netlink.delete_route, route)
                found.append(f"route {route}")
            for rule in self._netlink.rules(protocol=ROUTE_PROTOCOL, family=family):
                self._quietly(self._netlink.delete_rule, rule)
                found.append(f"rule {rule}")
        for address in self._netlink.addresses():
            if address.address == ROUTER_ADDRESS:
                self._quietly(self._netlink.delete_address, address)
                found.append(f"address {address}")
        return found + self._changes.undo_left()

    def adopt(self, paths: Iterable[actions.Bind], open_silence: Mapping[Prefix, float]) -> None:
        """These paths are set in the kernel; the engine here learns them anew. open_silence: of that process."""
        for item in paths:
            binding = forwarding.wanted(item.prefix, item.path, aggregated=self._aggregated).binding
            if binding is not None:
                self._bind(binding, item.node)
            self.paths[item.prefix], self.nodes[item.prefix] = item.path, item.node
        for prefix, silence in open_silence.items():
            with suppress(UnknownPrefix):
                self._tables.believe_open(prefix, silence)

    @property
    def brings_home(self) -> bool:
        """Whether nodes are back here whose packets are not yet the kernel's."""
        return self._homecomings is not None and self._homecomings.under_way

    def adopt_tun(self, name: str) -> None:
        """In place of clean and use_tun: what another process has changed in the kernel is ours."""
        self._changes.adopt()
        self._tun_name, self._tun = name, self._netlink.link(name).index

    def adopt_access(self, name: str) -> Link:
        """In place of add_access: another process has made us the router of this link."""
        link = self._netlink.link(name)
        self._access[name] = link.index
        return link

    def close(self) -> None:
        """Take back everything, in the reverse order of how it came."""
        for prefix in list(self.paths):
            self.unbind(prefix)
        for name in list(self._access):
            self.remove_access(name)
        for family in EVERYWHERE:
            for route in self._netlink.routes(protocol=ROUTE_PROTOCOL, family=family):
                self._quietly(self._netlink.delete_route, route)
        self._changes.undo()

    def claim(self, pools: Iterable[Prefix]) -> None:
        """What nobody was lent is unreachable, or packets to it would go in circles between us and the core."""
        for pool in pools:
            self._netlink.replace_route(Route(destination=pool, kind=RouteKind.UNREACHABLE, metric=LAST_RESORT))

    def claim_tun(self, pools: Iterable[Prefix]) -> None:
        """All of these pools goes to the TUN: the engine knows who was lent what, and drops the rest."""
        self._claimed = tuple(pools)
        if any(pool.version == 4 for pool in self._claimed):
            self.forward_ipv4()
        for pool in self._claimed:
            self._netlink.replace_route(Route(destination=pool, oif=self._tun))

    def use_tun(self, name: str, mtu: int) -> None:
        """The TUN exists: switch it on."""
        self._tun_name = name
        self._tun = self._netlink.link(name).index
        # nothing but forwarded packets shall come through it: no address of its own, no solicitations
        for setting, value in (("accept_ra", "0"), ("addr_gen_mode", "1"), ("router_solicitations", "0")):
            with suppress(NoRights):  # where /proc/sys is read-only: what the kernel says there, the engine drops
                self._changes.write_sysctl(f"conf/{name}/{setting}", value, restore=False)
        self._netlink.set_mtu(self._tun, mtu)
        self._netlink.set_queue_length(self._tun, TUN_QUEUE)  # while it is down: a queue in use would be thrown away
        self._netlink.set_up(self._tun)

    def forward(self, uplink: str | None) -> None:
        """Let the kernel forward IPv6. uplink: keeps the default route it has learned from advertisements."""
        if uplink is not None and self._changes.read_sysctl(f"conf/{uplink}/accept_ra") == "1":
            self._changes.write_sysctl(f"conf/{uplink}/accept_ra", "2")
        self._forward_all("sysctl")

    def forward_ipv4(self) -> None:
        """Let the kernel forward IPv4, and believe that what comes out of the TUN belongs there."""
        self._forward_all("sysctl_ipv4")
        # 2: any way back will do. The kernel takes the larger one of all and this
        loose = "0" if self._changes.read_sysctl("conf/all/rp_filter", "sysctl_ipv4") == "0" else "2"
        self._changes.write_sysctl(f"conf/{self._tun_name}/rp_filter", loose, "sysctl_ipv4", restore=False)

    def _forward_all(self, kind: str) -> None:
        if self._changes.read_sysctl("conf/all/forwarding", kind) != "1":
            # switching all off again would also switch off those that were on before
            for link in self._netlink.links():
                if self._changes.read_sysctl(f"conf/{link.name}/forwarding", kind) == "1":
                    self._changes.note(Change(kind=kind, name=f"conf/{link.name}/forwarding", value="1"))
            self._changes.write_sysctl("conf/all/forwarding", "1", kind)

    def add_access(self, name: str, *, fixed_link_layer: bool) -> Link:
        """Become the router of an access link: the address, and if it may be the MAC, of RFC 6543; the rule."""
        link = self._netlink.link(name)
        if self._access.get(name, link.index) != link.index:
            self._changes.forget(name)
        if self._changes.read_sysctl(f"conf/{name}/accept_ra") == "2":  # believed even by a router, other than 1
            self._changes.write_sysctl(f"conf/{name}/accept_ra", "0")
        self._pass_over_without_carrier(name)
        if fixed_link_layer and link.link_layer and link.link_layer != ROUTER_LINK_LAYER:
            self._fix_link_layer(link)
        self._take_router_address(link.index)
        if not link.up:
            self._changes.note(Change(kind="switched_on", name=name, value=""))
            self._netlink.set_up(link.index)
        with suppress_errno(errno.EEXIST):
            self._netlink.add_rule(self._rule(name))
        self._access[name] = link.index
        if self._guard.watches(name):
            self._guard_access(name)
        if self._ipv4_uplink:
            self._add_ipv4_access(name)
        for router in set(self._default_routers.values()):
            if router.interface == name:
                self._add_default_router(router)
        return self._netlink.link(link.index)

    def link_layers_of(self, link: Link) -> frozenset[bytes]:
        """The link-layer addresses that an access link has, and had before it got that of RFC 6543."""
        found = (change for change in self._changes.made if (change.kind, change.name) == ("link_layer", link.name))
        return frozenset((link.link_layer, *(bytes.fromhex(change.value) for change in found)))

    def _pass_over_without_carrier(self, name: str) -> None:
        setting = f"conf/{name}/ignore_routes_with_linkdown"
        if self._changes.read_sysctl(setting) == "0":
            with suppress(NoRights):  # then what comes while a link is lost, and nobody knows yet, is lost too
                self._changes.write_sysctl(setting, "1")

    def remove_access(self, name: str) -> None:
        """Stop being the router of an access link."""
        if self._ipv4_uplink:
            self._remove_ipv4_access(name)
        for link_layer, router in list(self._default_routers.items()):
            if router.interface == name:
                self._set_default_router(link_layer, None)
        index = self._access.pop(name)
        self._quietly(self._netlink.delete_rule, self._rule(name))
        for rule in self._guard.rules(name):
            self._quietly(self._netlink.delete_rule, rule)
        self._quietly(self._netlink.delete_address, self._router_address(index))

    # --- prefixes and nodes ---

    def bind(self, prefix: Prefix, path: actions.Path, node: str, on_way: Callable[[], None] = lambda: None) -> None:
        """From now on the prefix takes this path. Raises RouterError, EngineError: then it has the one before.

        on_way: called as soon as packets out of a tunnel have their way to the node, before its own have theirs.
        """
        before = self._path_now(prefix)
        if self._aggregated and isinstance(path, actions.TowardVisited) and forwarding.only_engine(before):
            if path != before:
                ends = self._ends(path.tunnels)
                self._ways.bind(prefix, ends, side=Side.ANCHOR, policy=path.policy, node=node)
                self._sweep_later()
            self.paths[prefix] = path
            self.nodes[prefix] = node
            return
        opened = self._shut_doors(prefix, path)
        if not self._bring_home(prefix, before, path):
            self._apply(prefix, edits(prefix, before, path, aggregated=self._aggregated), node, on_way)
        self.paths[prefix] = path
        self.nodes[prefix] = node
        self._sweep_later()
        self._open_doors(prefix, opened)
        if prefix.version == 4:
            self._follow_ipv4(prefix, path)

    def foresee(self, prefix: Prefix, path: actions.TowardAnchor, node: str) -> None:
        """Packets of a prefix may come by its tunnel before it is bound, which follows at once. Raises as bind()."""
        binding = forwarding.wanted(prefix, path).binding
        if binding is not None and self.paths.get(prefix) != path:
            self._bind(binding, node)

    def bind_all(self, nodes: Mapping[Prefix, str], path: actions.TowardVisited) -> None:
        """These prefixes, which had no path, take this one. Raises RouterError, EngineError.

        Of an anchor whose pools lead to the TUN as a whole: nothing of it concerns the kernel.
        """
        ends = self._ends(path.tunnels)
        self._ways.bind_all(nodes, ends, side=Side.ANCHOR, policy=path.policy)
        self.paths |= dict.fromkeys(nodes, path)
        self.nodes |= nodes

    def unbind(self, prefix: Prefix) -> None:
        """Nothing here concerns the prefix any more; one that nobody knows is no error."""
        self._shut_doors(prefix, None)
        before = self._path_now(prefix)
        self.paths.pop(prefix, None)
        self._apply(prefix, edits(prefix, before, None, aggregated=self._aggregated))
        self.nodes.pop(prefix, None)
        if prefix.version == 4:
            self._follow_ipv4(prefix, None)

    def _sweep_later(self) -> None:
        """What is still on the path before is let in a little longer: the router that a node left learns late of it."""
        if self._sweeps is not None:
            self._sweeps.begin()

    def _settle(self, prefix: Prefix) -> None:
        """The node is home, and its packets are the kernel's: what comes to us all the same waits."""
        self._hold(prefix, native=True)
        self._sweep_later()

    def _path_now(self, prefix: Prefix) -> actions.Path | None:
        """As kernel and engine have it; a homecoming ends here."""
        if self._homecomings is not None and self._homecomings.end(prefix):
            return actions.Closed()
        return self.paths.get(prefix)

    def _bring_home(self, prefix: Prefix, before: actions.Path | None, path: actions.Path) -> bool:
        """Whether what waits for a node that is back here goes before what comes now; else it must be bound as ever."""
        away = isinstance(before, actions.Held | actions.Closed | actions.TowardVisited)
        if self._homecomings is None or not away or not isinstance(path, actions.LocalLink):
            return False
        oif = self._access.get(path.interface, 0)
        if not oif:
            return False
        rule = Rule(table=self._table, priority=RULE_PRIORITY, iif=self._tun_name, destination=prefix)
        route = Route(destination=prefix, oif=oif, gateway=path.gateway, table=self._table)
        native = Edits(set_routes=edits(prefix, None, path).set_routes)
        try:
            self._homecomings.begin(
                prefix, rule, route, lambda: self._apply(prefix, native), lambda: self._settle(prefix)
            )
        except NetlinkError:  # the interface may just have gone
            return False
        self._ways.forget(prefix)
        return True

    def checked(self, name: str, rules: Iterable[FlowRule]) -> tuple[engine.FlowRule, ...]:
        """The rules of a policy as the engine has them. Raises RouterError if it, or tunnels here, cannot do that."""
        try:
            found = tuple(map(forwarding.engine_rule, rules))
        except BadRule as error:
            raise RouterError(f"policy {name}: {error}") from None
        refuse_numbers(name, found, self._encapsulation)
        return found

    def set_policy(self, action: actions.SetPolicy) -> None:
        """The flow policy of that name. Raises as checked()."""
        rules = self.checked(action.name, action.rules)
        if action.rules:
            self.policies[action.name] = action.rules
        else:
            self.policies.pop(action.name, None)
        if self._ways.set_policy(action.name, rules):
            for prefix, path in self.paths.items():
                binding = forwarding.wanted(prefix, path).binding
                if binding is not None and binding.tunnels:
                    self._bind(binding, self.nodes[prefix])
            self._sweep_later()

    def set_way(self, action: actions.SetWay) -> None:
        """What is known of a way, whether or not anything is bound to it yet."""
        self._ways.set_state(self._tunnel(action.tunnel), forwarding.STATES[action.state])

    def traffic(self, end: actions.TunnelEnd) -> int:
        """Packets either way so far, as of some milliseconds ago; -1: nothing is bound to that tunnel."""
        return self._ways.traffic(self._tunnel(end))

    def silence(self, prefix: Prefix) -> float | None:
        """Seconds since the last packet of a prefix that is not native here; None: there was none."""
        with suppress(UnknownPrefix):
            return self._tables.activity(prefix)
        return None

    def honoured(self, prefix: Prefix, within: float) -> float:
        """Seconds until the TCP connections of a prefix that are open, if they stay silent, are taken for dead.

        0: none is open, or none said anything within the last so many seconds.
        """
        with suppress(UnknownPrefix):
            silence = self._tables.connections(prefix).silence
            if silence is not None and silence <= within + TENTH:
                return max(0.0, self._tables.open_idle_after - silence)
        return 0.0

    def open_connections(self) -> dict[Prefix, tuple[int, float]]:
        """Of each prefix with open TCP connections: how many are followed, seconds since the last packet of any."""
        found = self._tables.all_connections()
        return {prefix: (each.number, each.silence) for prefix, each in found.items() if each.silence is not None}

    def least_mtu(self) -> int | None:
        """Octets of the largest inner packet that all tunnels take, as far as they have learned; None: none has."""
        return self._ways.least_mtu()

    def held(self, prefix: Prefix) -> HeldStats | None:
        """What waits, or waited, for the node of a prefix; None: nothing since it was here last."""
        return self._tables.held(prefix)

    def flow_counters(self) -> list[tuple[str, FlowRule, int, int]]:
        """Rules of all policies: policy, rule as the anchor sends, packets, octets (inner) it has treated here."""
        counted = self._ways.counted()
        return [
            (name, rule, *counts)
            for name, rules in self.policies.items()
            for rule, counts in zip(rules, counted.get(name, repeat((0, 0))), strict=False)
        ]

    def refresh(self, interface: str) -> None:
        """The kernel forgot the routes of this interface (it was switched off): set them again."""
        for prefix, path in self.paths.items():
            if getattr(path, "interface", None) == interface:
                self._apply(prefix, Edits(set_routes=edits(prefix, None, path).set_routes))

    def refresh_tun(self) -> None:
        """Somebody switched the TUN off and on: set the routes through it again."""
        for pool in self._claimed:
            self._quietly(self._netlink.replace_route, Route(destination=pool, oif=self._tun))
        if self._ipv4_uplink:
            self._quietly(self._netlink.replace_route, self._ipv4_default())
        for prefix, path in self.paths.items():
            wanted = forwarding.wanted(prefix, path, aggregated=self._aggregated)
            routes = (route for route in wanted.routes if route.device is Device.TUN)
            self._apply(prefix, Edits(set_routes=tuple(routes)))

    def expect(self, action: actions.ExpectNode) -> None:
        """A node is known to be there: its packets need no address resolution. Or it left: the kernel forgets it."""
        if action.interface is None:
            self._neighbors.left(action.link_layer)
        elif action.interface in self._access:
            with suppress_errno(*GONE):
                self._neighbors.arrived(self._access[action.interface], action.link_local, action.link_layer)

    def give(self, action: actions.GiveAddress) -> None:
        """A node has an IPv4 home address: it needs no ARP, and its default router is here. Or it has none any more.

        A renewal is sent to that router: as an address of ours it is not forwarded into the tunnel.
        """
        if action.wants is not Wants.IPV4:
            return
        index, prefix = self._access.get(action.interface, 0), action.prefix
        router = None
        if isinstance(prefix, IPv4Network) and index:
            near = Neighbor(
                index=index,
                address=prefix.network_address,
                link_layer=action.link_layer,
                state=NeighborState.REACHABLE,
            )
            self._quietly(self._netlink.replace_neighbor, near)
            router = DefaultRouter(action.interface, action.default_router) if action.default_router else None
        self._set_default_router(action.link_layer, router)

    def _set_default_router(self, link_layer: bytes, router: DefaultRouter | None) -> None:
        before = self._default_routers.pop(link_layer, None)
        if router is not None and router not in self._default_routers.values() and router != before:
            self._changes.note(router.change)
            self._add_default_router(router)
        if router is not None:
            self._default_routers[link_layer] = router
        if before is not None and before != router and before not in self._default_routers.values():
            self._changes.take(before.change.kind, before.change.name)
            self._quietly(self._netlink.delete_address, self._address_of(before))

    def _add_default_router(self, router: DefaultRouter) -> None:
        with suppress_errno(errno.EEXIST, *GONE):  # it survives that the interface is switched off
            self._netlink.add_address(self._address_of(router))

    def _address_of(self, router: DefaultRouter) -> Address:
        index = self._access.get(router.interface, 0)
        return Address(index=index, address=router.address, prefixlen=router.address.max_prefixlen)

    def _apply(self, prefix: Prefix, todo: Edits, node: str = "", on_way: Callable[[], None] = lambda: None) -> None:
        if todo.bind is not None:
            self._bind(todo.bind, node)
        for wanted in todo.set_routes:
            route = self._route(wanted)
            # the device may just have gone; its return sets the routes again
            if route.oif or route.kind != RouteKind.UNICAST:
                self._quietly(self._netlink.replace_route, route)
            if todo.bind is not None and todo.bind.tunnels and wanted.device is Device.ACCESS:
                on_way()
        if todo.set_rule is not None:
            with suppress_errno(errno.EEXIST):
                self._netlink.add_rule(self._site_rule(todo.set_rule))
        for match in todo.set_matches:
            with suppress_errno(errno.EEXIST):
                self._netlink.add_rule(self._flow_rule(match))
        for match in todo.delete_matches:
            self._quietly(self._netlink.delete_rule, self._flow_rule(match))
        if todo.delete_rule is not None:
            self._quietly(self._netlink.delete_rule, self._site_rule(todo.delete_rule))
        for route in map(self._route, todo.delete_routes):
            if route.oif or route.kind != RouteKind.UNICAST:
                self._quietly(self._netlink.delete_route, route)
        if todo.unbind is not None:
            with suppress(UnknownPrefix):
                self._tables.unbind(todo.unbind)
            self._ways.forget(todo.unbind)

    def _bind(self, binding: WantedBinding, node: str) -> None:
        if not binding.tunnels:
            self._hold(binding.prefix, native=binding.native, waits=binding.waits)
            self._ways.forget(binding.prefix)
            return
        ends = self._ends(binding.tunnels)
        self._ways.bind(binding.prefix, ends, side=binding.side, policy=binding.policy, node=node)
        if binding.waits and self._buffer is not None:
            with suppress(MemoryError):  # as many as there can be are in use
                self._tables.watch(binding.prefix, self._buffer)

    def _ends(self, tunnels: tuple[actions.TunnelEnd, ...]) -> Ends:
        """The same for all prefixes that are told to take the same tunnels, as those of one gateway are."""
        known = self._known_ends.get(id(tunnels))
        if known is None:
            if len(self._known_ends) >= MOST_ENDS:
                self._known_ends.clear()
            ends = tuple(forwarding.path(end, self._tunnel(end)) for end in tunnels)
            known = self._known_ends[id(tunnels)] = tunnels, ends
        return known[1]

    def _hold(self, prefix: Prefix, *, native: bool, waits: bool = True) -> None:
        if not waits:
            self._tables.close(prefix)
            return
        let_wait = self._tables.leave_to_kernel if native else self._tables.hold
        try:
            let_wait(prefix, buffer=self._buffer)
        except MemoryError:  # as many as there can be are in use: the packets of this node are lost
            let_wait(prefix, buffer=None)

    def _tunnel(self, end: actions.TunnelEnd) -> Tunnel:
        local = end.local
        if local is None:
            local = self._address if end.remote.version == 6 else self._ipv4_address
        if local is None:
            raise RouterError(f"tunnel to {end.remote}: this router has no IPv4 address: give it one in [underlay]")
        return forwarding.tunnel(end, local, self._encapsulation)

    def _route(self, route: WantedRoute) -> Route:
        oif, kind = 0, RouteKind.UNICAST
        if route.device is Device.TUN:
            oif = self._tun
        elif route.device is Device.ACCESS:
            oif = self._access.get(route.interface, 0)
        else:
            kind = RouteKind.THROW
        return Route(
            destination=route.destination,
            source=route.source,
            oif=oif,
            gateway=route.gateway,
            table={Where.MAIN: Table.MAIN, Where.UPLINK: self._table, Where.FLOWS: self._table + 1}[route.table],
            metric=OTHERWISE if route.otherwise else DEFAULT_METRIC,
            kind=kind,
        )

    # --- sources that may come in ---

    def _guard_access(self, name: str) -> None:
        for route in self._guard.last_resorts(name):
            self._netlink.replace_route(route)
        for rule in self._guard.rules(name):
            with suppress_errno(errno.EEXIST):
                self._netlink.add_rule(rule)
        self._changes.write_sysctl(f"conf/{name}/rp_filter", "1", "sysctl_ipv4")

    def _shut_doors(self, prefix: Prefix, path: actions.Path | None) -> frozenset[Route]:
        """Before a prefix takes another path: what that one does not let in. Returns what stays open."""
        before, after = (self._guard.doors(prefix, each) for each in (self.paths.get(prefix), path))
        for route in before - after:
            self._quietly(self._netlink.delete_route, route)
        return before & after

    def _open_doors(self, prefix: Prefix, opened: frozenset[Route]) -> None:
        """When the prefix has its path."""
        for route in self._guard.doors(prefix, self.paths[prefix]) - opened:
            self._netlink.replace_route(route)

    # --- IPv4 of nodes that are here ---

    def _follow_ipv4(self, prefix: Prefix, path: actions.Path | None) -> None:
        """With the first path that wants it IPv4 from the access links goes to the TUN, with the last one no more."""
        if forwarding.wants_ipv4_uplink(prefix, path):
            if not self._ipv4_uplink:
                self._begin_ipv4()
            self._ipv4_uplink.add(prefix)
        elif prefix in self._ipv4_uplink:
            self._ipv4_uplink.remove(prefix)
            if not self._ipv4_uplink:
                self._end_ipv4()

    def _begin_ipv4(self) -> None:
        self.forward_ipv4()
        self._quietly(self._netlink.replace_route, self._ipv4_default())
        for name in self._access:
            self._add_ipv4_access(name)

    def _end_ipv4(self) -> None:
        for name in self._access:
            self._remove_ipv4_access(name)
        self._quietly(self._netlink.delete_route, self._ipv4_default())

    def _add_ipv4_access(self, name: str) -> None:
        with suppress_errno(errno.EEXIST):
            self._netlink.add_rule(self._ipv4_rule(name))

    def _remove_ipv4_access(self, name: str) -> None:
        self._quietly(self._netlink.delete_rule, self._ipv4_rule(name))

    def _ipv4_default(self) -> Route:
        return Route(destination=EVERYWHERE_IPV4, oif=self._tun, table=self._table)

    def _ipv4_rule(self, interface: str) -> Rule:
        return Rule(table=self._table, priority=RULE_PRIORITY, source=ANY_IPV4, destination=ANY_IPV4, iif=interface)

    # --- single changes ---

    def _rule(self, interface: str) -> Rule:
        return Rule(table=self._table, priority=RULE_PRIORITY, iif=interface)

    def _site_rule(self, prefix: Prefix) -> Rule:
        everywhere = ANY_IPV4 if isinstance(prefix, IPv4Network) else forwarding.EVERYWHERE
        return Rule(table=self._table, priority=RULE_PRIORITY, source=prefix, destination=everywhere)

    def _flow_rule(self, match: WantedMatch) -> Rule:
        return Rule(table=self._table + 1, priority=FLOW_PRIORITY, **asdict(match))

    def _router_address(self, index: int) -> Address:
        # every router of the domain has it: duplicate address detection would only find the others
        return Address(index=index, address=ROUTER_ADDRESS, prefixlen=LINK_LOCAL_LENGTH, flags=AddressFlag.NODAD)

    def _take_router_address(self, index: int) -> None:
        # an interface with our MAC makes this address itself when switched on, and then asks whether others have it;
        # it may do so between our looking and our adding, and what we add to changes nothing of that
        for _ in range(LOOKS):
            for address in self._uncertain(index):
                self._quietly(self._netlink.delete_address, address)
            self._netlink.add_address(self._router_address(index))
            if not self._uncertain(index):
                break

    def _uncertain(self, index: int) -> list[Address]:
        """The address of the router there, if the kernel asks whether others have it, or found that they have."""
        own = (each for each in self._netlink.addresses(index) if each.address == ROUTER_ADDRESS)
        return [each for each in own if each.flags & (AddressFlag.TENTATIVE | AddressFlag.DADFAILED)]

    def _fix_link_layer(self, link: Link) -> None:
        self._changes.note(Change(kind="link_layer", name=link.name, value=link.link_layer.hex()))
        try:
            self._netlink.set_link_layer(link.index, ROUTER_LINK_LAYER)
        except NetlinkError:
            # some drivers change it only while down, some never: advertisements carry whichever it is
            return

    def _quietly(self, change: Callable[[T], None], what: T) -> None:
        """Do it; that the thing is gone already is what we wanted, or netlink will tell."""
        with suppress_errno(*GONE):
            change(what)


@contextmanager
def suppress_errno(*numbers: int) -> Iterator[None]:
    """Let these refusals of the kernel pass."""
    try:
        yield
    except NetlinkError as error:
        if error.errno not in numbers:
            raise
