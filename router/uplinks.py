"""Uplinks of a gateway: which address each has now, and that what is sent from it leaves by it.

    rule   from <address of wan0> look into table 5437        what an ingress filter would drop is never sent
    table  5437: the routes of the main table through wan0,   learned, and followed as they come and go
                 and nothing else is reachable                rather no way than that of another uplink

Rules and routes carry our own protocol number: `Network.clean` removes what a crash left behind.
"""

import asyncio
import errno
import logging
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from router.links.netlink import Netlink, NetlinkError
from router.links.rtnetlink import (
    EVERYWHERE,
    ROUTE_PROTOCOL,
    Address,
    AddressChanged,
    AnyAddress,
    Event,
    Link,
    LinkChanged,
    NextHop,
    Prefix,
    Route,
    RouteChanged,
    Rule,
    family_of,
)
from router.links.rtnetlink_constants import AddressFlag, Group, RouteKind, Table
from signaling.events import UplinkDown, UplinkUp
from signaling.settings import Uplink

log = logging.getLogger("openmar")

RULE_PRIORITY = 5212  # before the rules of the access links
LAST_RESORT = 1 << 31  # metric: any other route is better
MOST_ROUTES = 1024  # of one uplink; default routes and what is on the link come first
GROUPS = (Group.LINK, Group.IPV6_IFADDR, Group.IPV4_IFADDR, Group.IPV6_ROUTE, Group.IPV4_ROUTE)
UNUSABLE = AddressFlag.TENTATIVE | AddressFlag.DADFAILED
GONE = {errno.ESRCH, errno.ENOENT, errno.ENODEV, errno.ENETDOWN, errno.EEXIST, errno.EADDRNOTAVAIL}


# --- decisions: pure ---


def choose(
    addresses: Iterable[Address], wanted: AnyAddress | None, now: AnyAddress | None, families: tuple[int, ...]
) -> AnyAddress | None:
    """The address to use: the one that is wanted, else the one in use while it lasts, else the best; None: none is.

    families: AF_INET6 and AF_INET, the preferred one first; addresses of others are of no use.
    """
    usable = [
        each
        for each in addresses
        if family_of(each.address) in families
        and not each.address.is_link_local
        and not each.address.is_loopback
        and not each.flags & UNUSABLE
    ]
    here = {each.address for each in usable}
    if wanted is not None:
        return wanted if wanted in here else None
    if now in here:
        return now
    return min(usable, key=lambda each: _badness(each, families)).address if usable else None


def _badness(candidate: Address, families: tuple[int, ...]) -> tuple[int, bool, bool, AnyAddress]:
    return (
        families.index(family_of(candidate.address)),
        bool(candidate.flags & AddressFlag.DEPRECATED),
        bool(candidate.flags & AddressFlag.TEMPORARY),
        candidate.address,
    )


def copied(routes: Iterable[Route], index: int, table: int, family: int) -> dict[tuple[Prefix, int], Route]:
    """The table of an uplink, by destination and metric: what the main table sends through it, and the last resort."""
    nowhere = Route(destination=EVERYWHERE[family], kind=RouteKind.UNREACHABLE, metric=LAST_RESORT, table=table)
    through = sorted(
        (
            replace(route, table=table, oif=hop.oif, gateway=hop.gateway, protocol=ROUTE_PROTOCOL, others=())
            for route in routes
            for hop in (NextHop(route.oif, route.gateway), *route.others)
            if hop.oif == index and route.kind == RouteKind.UNICAST and route.protocol != ROUTE_PROTOCOL
        ),
        key=lambda route: (route.destination.prefixlen != 0, route.gateway is not None),
    )
    table_now = {(nowhere.destination, nowhere.metric): nowhere}
    for route in through[:MOST_ROUTES]:
        table_now.setdefault((route.destination, route.metric), route)
    return table_now


def leads(table: Iterable[Route], anchors: tuple[AnyAddress, ...]) -> bool:
    """Whether there is a way to any of the anchors; if there are none, there is nothing to wait for."""
    ways = [route.destination for route in table if route.kind == RouteKind.UNICAST]
    return not anchors or any(anchor in destination for anchor in anchors for destination in ways)


@dataclass(slots=True)
class State:
    """One uplink as it is now."""

    uplink: Uplink
    table: int
    index: int = 0  # 0: there is no such interface
    carrier: bool = False
    leads: bool = True  # its routes lead to an anchor
    address: AnyAddress | None = None  # that it has, with or without a carrier
    told: AnyAddress | None = None  # the role knows of; None: the uplink is down

    def news(self) -> list[UplinkUp | UplinkDown]:
        """What the role has to hear; asked again, nothing."""
        # a route that goes again is for probes to notice: the address is ours all the while
        usable = self.address if self.carrier and (self.leads or self.address == self.told) else None
        if usable == self.told:
            return []
        name = self.uplink.interface
        down: list[UplinkUp | UplinkDown] = [UplinkDown(interface=name)] if self.told is not None else []
        self.told = usable
        return down + ([UplinkUp(interface=name, address=usable)] if usable is not None else [])


# --- the kernel ---


class Uplinks:
    """The configured uplinks. A carrier that is lost is told at once; an address, when there is a way to an anchor.

    netlink: of its own, as it hears of all routes. table: uplink with BID n uses table + n. anchors: where they are
    reached; (): any address will do.
    """

    def __init__(
        self,
        netlink: Netlink,
        uplinks: Iterable[Uplink],
        *,
        table: int,
        on_event: Callable[[UplinkUp | UplinkDown], None],
        anchors: Iterable[AnyAddress] = (),
        families: tuple[int, ...] = (socket.AF_INET6, socket.AF_INET),
    ) -> None:
        self._netlink = netlink
        self._on_event = on_event
        self._anchors = tuple(anchors)
        self._families = families
        self._states = {uplink.interface: State(uplink, table + uplink.binding_id) for uplink in uplinks}
        self._rules: dict[str, Rule] = {}  # interface -> the rule that is set
        self._routes: dict[str, dict[tuple[Prefix, int], Route]] = {}  # interface -> what is in its table

    def serve(self, loop: asyncio.AbstractEventLoop) -> None:
        """Tell what is up now, and from then on every change."""
        self._netlink.watch(loop, self._changed, self._resync, GROUPS)
        self._resync()

    def close(self) -> None:
        """Take back rules and routes; tell nobody."""
        for name, state in self._states.items():
            self._set_rule(name, None)
            for route in self._routes.pop(name, {}).values():
                self._quietly(self._netlink.delete_route, route)
            state.told = state.address = None
        self._netlink.close()

    def addresses(self) -> dict[str, AnyAddress]:
        """The address of each uplink that is up."""
        return {name: state.told for name, state in self._states.items() if state.told is not None}

    # --- what the kernel tells ---

    def _changed(self, event: Event) -> None:
        match event:
            case LinkChanged(link=link, gone=gone) if link.name in self._states:
                self._link_changed(self._states[link.name], link, gone)
            case AddressChanged(index=index):
                for state in self._at(index):
                    self._look(state)
            case RouteChanged(route=route) if route.table == Table.MAIN:
                for hop in (NextHop(route.oif, route.gateway), *route.others):
                    for state in self._at(hop.oif):
                        self._copy_routes(state)
                        self._tell(state)
            case _:
                pass

    def _at(self, index: int) -> list[State]:
        return [state for state in self._states.values() if state.index == index != 0]

    def _resync(self) -> None:
        """At the start, and when the kernel had more events than we could read: look at the links themselves."""
        links = {link.name: link for link in self._netlink.links()}
        for name, state in self._states.items():
            if name in links:
                self._link_changed(state, links[name], gone=False)
            else:
                self._gone(state)

    def _link_changed(self, state: State, link: Link, gone: bool) -> None:
        if gone:
            self._gone(state)
            return
        if state.index != link.index:  # another device: the kernel forgot the routes of the one before
            self._forget_routes(link.name)
        state.index = link.index
        before, state.carrier = state.carrier, link.up and link.carrier
        if before and not state.carrier:
            self._tell(state)  # at once: what else there is to see can wait
        if not link.up:
            self._forget_routes(link.name)
        self._look(state)

    def _gone(self, state: State) -> None:
        state.index, state.carrier, state.address = 0, False, None
        self._forget_routes(state.uplink.interface)
        self._set_rule(state.uplink.interface, None)
        self._tell(state)

    def _look(self, state: State) -> None:
        """Read addresses and routes of an interface; its rule stands before anybody sends from the address."""
        try:
            found = [each for family in self._families for each in self._netlink.addresses(state.index, family=family)]
            state.address = choose(found, state.uplink.address, state.address, self._families)
            if state.address is not None:
                self._set_rule(state.uplink.interface, self._rule(state.address, state.table))
                self._copy_routes(state)
        except NetlinkError as error:  # it may have gone again already
            log.warning("uplink %s: %s", state.uplink.interface, error)
        self._tell(state)

    def _tell(self, state: State) -> None:
        for event in state.news():
            self._on_event(event)

    # --- what the kernel is told ---

    def _rule(self, address: AnyAddress, table: int) -> Rule:
        family = family_of(address)
        source = type(EVERYWHERE[family])(address)
        return Rule(table=table, priority=RULE_PRIORITY, source=source, destination=EVERYWHERE[family])

    def _set_rule(self, name: str, rule: Rule | None) -> None:
        before = self._rules.get(name)
        if rule == before:
            return
        if rule is not None:
            self._quietly(self._netlink.add_rule, rule)
            self._rules[name] = rule
        if before is not None:
            self._quietly(self._netlink.delete_rule, before)
            if rule is None:
                del self._rules[name]

    def _copy_routes(self, state: State) -> None:
        """Make the table of an uplink what the main table has through it."""
        if state.address is None or not state.index:
            return
        name, family = state.uplink.interface, family_of(state.address)
        try:
            routes = self._netlink.routes(table=Table.MAIN, oif=state.index, family=family)
        except NetlinkError as error:  # the next event is another occasion
            log.warning("uplink %s: %s", name, error)
            return
        wanted = copied(routes, state.index, state.table, family)
        before = self._routes.get(name, {})
        # on-link routes first: a gateway must be reachable when a route through it is set
        for key, route in sorted(wanted.items(), key=lambda item: item[1].gateway is not None):
            if before.get(key) != route:
                self._quietly(self._netlink.replace_route, route)
        for key, route in before.items():
            if key not in wanted:
                self._quietly(self._netlink.delete_route, route)
        self._routes[name] = wanted
        state.leads = leads(wanted.values(), self._anchors)

    def _forget_routes(self, name: str) -> None:
        """The interface was switched off, or is gone: the kernel has forgotten what went through it."""
        left = {key: route for key, route in self._routes.get(name, {}).items() if not route.oif}
        self._routes[name] = left

    def _quietly(self, change: Callable[..., None], what: Route | Rule) -> None:
        """Do it; that the thing is gone already, or there, is what we wanted, or netlink will tell."""
        try:
            change(what)
        except NetlinkError as error:
            if error.errno not in GONE:
                log.warning("uplink: %s", error)
