"""All that this router changes in the kernel, and how it takes it back.

Routes and rules carry our own protocol number, so whatever a crash left behind is recognised by the next start. What
has no owner mark (sysctls, a link-layer address) is written to a journal before it is changed.
"""

import errno
import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from ipaddress import IPv6Address, IPv6Network
from pathlib import Path
from typing import TypeVar

from engine import Encapsulation, Tables, Tunnel, UnknownPrefix
from router.errors import NoRights
from router.forwarding import Device, Edits, WantedBinding, WantedRoute, edits
from router.forwarding import Table as Where
from router.links.netlink import Netlink, NetlinkError
from router.links.rtnetlink import ROUTE_PROTOCOL, Address, Link, Neighbor, Route, Rule
from router.links.rtnetlink_constants import AddressFlag, NeighborState, RouteKind, Table
from signaling import actions
from signaling.access_link import ROUTER_ADDRESS, ROUTER_LINK_LAYER

T = TypeVar("T")

RULE_PRIORITY = 5213  # before the main table (32766), after the local one (0)
LAST_RESORT = 1 << 31  # metric: any other route to the same prefix is better
GONE = {errno.ESRCH, errno.ENOENT, errno.ENODEV, errno.EADDRNOTAVAIL, errno.ENETDOWN}
SYSCTL = Path("/proc/sys/net/ipv6")
LINK_LOCAL_LENGTH = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """Something without an owner mark that we changed. value: what it was before."""

    kind: str  # "sysctl", "link_layer", or "switched_on": an interface that was off
    name: str  # of the sysctl, or of the interface
    value: str


class Journal:
    """What to put back, on disk before it is touched."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.changes: list[Change] = []

    def read(self) -> list[Change]:
        """What a run that crashed has left changed; [] if there is nothing, or nothing readable."""
        try:
            return [Change(**item) for item in json.loads(self._file.read_text())]
        except (OSError, ValueError, TypeError):
            return []

    def note(self, change: Change) -> None:
        """Write down a change that is about to be made; the oldest value of a thing is the one to restore."""
        if any((old.kind, old.name) == (change.kind, change.name) for old in self.changes):
            return
        self.changes.append(change)
        self._write()

    def forget(self, interface: str) -> None:
        """The interface is gone, and what was changed of it; one that comes with its name is another."""
        of_it = (interface, f"conf/{interface}/")
        kept = [item for item in self.changes if item.name != of_it[0] and not item.name.startswith(of_it[1])]
        if kept != self.changes:
            self.changes = kept
            self._write()

    def clear(self) -> None:
        """Everything is back as it was."""
        self.changes = []
        self._file.unlink(missing_ok=True)

    def _write(self) -> None:
        items = [{"kind": item.kind, "name": item.name, "value": item.value} for item in self.changes]
        temporary = self._file.with_suffix(".new")
        try:
            temporary.write_text(json.dumps(items))
            temporary.replace(self._file)
        except OSError as error:
            raise NoRights(f"{self._file}: {error.strerror}: nothing may be changed that cannot be put back") from None


class Network:
    """The kernel's side of forwarding: paths of prefixes, access links, the TUN. Errors are NetlinkError."""

    def __init__(
        self,
        netlink: Netlink,
        tables: Tables,
        *,
        address: IPv6Address,
        encapsulation: Encapsulation,
        table: int,
        journal: Path,
    ) -> None:
        self._netlink = netlink
        self._tables = tables
        self._address = address
        self._encapsulation = encapsulation
        self._table = table
        self._journal = Journal(journal)
        self._tun = 0
        self._access: dict[str, int] = {}  # interface -> index
        self.paths: dict[IPv6Network, actions.Path] = {}
        self.nodes: dict[IPv6Network, str] = {}

    # --- beginning and end ---

    def clean(self) -> list[str]:
        """Remove what a run that crashed left behind. Returns what was found, in words."""
        found: list[str] = []
        for route in self._netlink.routes(protocol=ROUTE_PROTOCOL):
            self._quietly(self._netlink.delete_route, route)
            found.append(f"route {route}")
        for rule in self._netlink.rules(protocol=ROUTE_PROTOCOL):
            self._quietly(self._netlink.delete_rule, rule)
            found.append(f"rule {rule}")
        for address in self._netlink.addresses():
            if address.address == ROUTER_ADDRESS:
                self._quietly(self._netlink.delete_address, address)
                found.append(f"address {address}")
        left = self._journal.read()
        for change in reversed(left):
            self._restore(change)
            found.append(f"{change.kind} {change.name}")
        self._journal.clear()
        return found

    def close(self) -> None:
        """Take back everything, in the reverse order of how it came."""
        for prefix in list(self.paths):
            self.unbind(prefix)
        for name in list(self._access):
            self.remove_access(name)
        for route in self._netlink.routes(protocol=ROUTE_PROTOCOL):
            self._quietly(self._netlink.delete_route, route)
        for change in reversed(self._journal.changes):
            self._restore(change)
        self._journal.clear()

    def claim(self, pools: Iterable[IPv6Network]) -> None:
        """What nobody was lent is unreachable, or packets to it would go in circles between us and the core."""
        for pool in pools:
            self._netlink.replace_route(Route(destination=pool, kind=RouteKind.UNREACHABLE, metric=LAST_RESORT))

    def use_tun(self, name: str, mtu: int) -> None:
        """The TUN exists: switch it on."""
        self._tun = self._netlink.link(name).index
        # nothing but forwarded packets shall come through it: no address of its own, no solicitations
        for setting, value in (("accept_ra", "0"), ("addr_gen_mode", "1"), ("router_solicitations", "0")):
            with suppress(NoRights):  # where /proc/sys is read-only: what the kernel says there, the engine drops
                self._write_sysctl(f"conf/{name}/{setting}", value, restore=False)
        self._netlink.set_mtu(self._tun, mtu)
        self._netlink.set_up(self._tun)

    def forward(self, uplink: str | None) -> None:
        """Let the kernel forward IPv6. uplink: keeps the default route it has learned from advertisements."""
        if uplink is not None and self._read_sysctl(f"conf/{uplink}/accept_ra") == "1":
            self._write_sysctl(f"conf/{uplink}/accept_ra", "2")
        if self._read_sysctl("conf/all/forwarding") != "1":
            # switching all off again would also switch off those that were on before
            for link in self._netlink.links():
                if self._read_sysctl(f"conf/{link.name}/forwarding") == "1":
                    self._journal.note(Change(kind="sysctl", name=f"conf/{link.name}/forwarding", value="1"))
            self._write_sysctl("conf/all/forwarding", "1")

    def add_access(self, name: str, *, fixed_link_layer: bool) -> Link:
        """Become the router of an access link: the address, and if it may be the MAC, of RFC 6543; the rule."""
        link = self._netlink.link(name)
        if self._access.get(name, link.index) != link.index:
            self._journal.forget(name)
        if self._read_sysctl(f"conf/{name}/accept_ra") == "2":  # believed even by a router, other than 1
            self._write_sysctl(f"conf/{name}/accept_ra", "0")
        if fixed_link_layer and link.link_layer and link.link_layer != ROUTER_LINK_LAYER:
            self._fix_link_layer(link)
        self._take_router_address(link.index)
        if not link.up:
            self._journal.note(Change(kind="switched_on", name=name, value=""))
            self._netlink.set_up(link.index)
        with suppress_errno(errno.EEXIST):
            self._netlink.add_rule(self._rule(name))
        self._access[name] = link.index
        return self._netlink.link(link.index)

    def remove_access(self, name: str) -> None:
        """Stop being the router of an access link."""
        index = self._access.pop(name)
        self._quietly(self._netlink.delete_rule, self._rule(name))
        self._quietly(self._netlink.delete_address, self._router_address(index))

    # --- prefixes and nodes ---

    def bind(self, prefix: IPv6Network, path: actions.Path, node: str) -> None:
        """From now on the prefix takes this path."""
        self._apply(prefix, edits(prefix, self.paths.get(prefix), path))
        self.paths[prefix] = path
        self.nodes[prefix] = node

    def unbind(self, prefix: IPv6Network) -> None:
        """Nothing here concerns the prefix any more; one that nobody knows is no error."""
        self._apply(prefix, edits(prefix, self.paths.pop(prefix, None), None))
        self.nodes.pop(prefix, None)

    def refresh(self, interface: str) -> None:
        """The kernel forgot the routes of this interface (it was switched off): set them again."""
        for prefix, path in self.paths.items():
            if getattr(path, "interface", None) == interface:
                self._apply(prefix, Edits(set_routes=edits(prefix, None, path).set_routes))

    def refresh_tun(self) -> None:
        """Somebody switched the TUN off and on: set the routes through it again."""
        for prefix, path in self.paths.items():
            routes = (route for route in edits(prefix, None, path).set_routes if route.device is Device.TUN)
            self._apply(prefix, Edits(set_routes=tuple(routes)))

    def expect(self, action: actions.ExpectNode) -> None:
        """A node is known to be there: its packets need no address resolution. Or it left: the kernel forgets it."""
        for index in self._access.values():
            for near in self._netlink.neighbors(index):
                # an address that could not be resolved while nobody was there would be left alone for a second
                unresolved = not near.link_layer and not near.address.is_multicast
                if unresolved or (action.interface is None and near.link_layer == action.link_layer):
                    self._quietly(self._netlink.delete_neighbor, near)
        if action.link_local is not None and action.interface in self._access:
            index = self._access[action.interface]
            neighbor = Neighbor(
                index=index,
                address=action.link_local,
                link_layer=action.link_layer,
                state=NeighborState.REACHABLE,
            )
            self._quietly(self._netlink.replace_neighbor, neighbor)

    def _apply(self, prefix: IPv6Network, todo: Edits) -> None:
        if todo.bind is not None:
            self._bind(todo.bind)
        for route in map(self._route, todo.set_routes):
            # the device may just have gone; its return sets the routes again
            if route.oif:
                self._quietly(self._netlink.replace_route, route)
        for route in map(self._route, todo.delete_routes):
            if route.oif:
                self._quietly(self._netlink.delete_route, route)
        if todo.unbind is not None:
            with suppress(UnknownPrefix):
                self._tables.unbind(todo.unbind)

    def _bind(self, binding: WantedBinding) -> None:
        if binding.remote is None:
            self._tables.hold(binding.prefix)
        else:
            tunnel = Tunnel(local=self._address, remote=binding.remote, encapsulation=self._encapsulation)
            self._tables.bind(binding.prefix, tunnel, side=binding.side)

    def _route(self, route: WantedRoute) -> Route:
        return Route(
            destination=route.destination,
            source=route.source,
            oif=self._tun if route.device is Device.TUN else self._access.get(route.interface, 0),
            table=self._table if route.table is Where.UPLINK else Table.MAIN,
        )

    # --- single changes ---

    def _rule(self, interface: str) -> Rule:
        return Rule(table=self._table, priority=RULE_PRIORITY, iif=interface)

    def _router_address(self, index: int) -> Address:
        # every router of the domain has it: duplicate address detection would only find the others
        return Address(index=index, address=ROUTER_ADDRESS, prefixlen=LINK_LOCAL_LENGTH, flags=AddressFlag.NODAD)

    def _take_router_address(self, index: int) -> None:
        # an interface with our MAC makes this address itself when switched on, and then asks whether others have it
        for address in self._netlink.addresses(index):
            if address.address == ROUTER_ADDRESS and address.flags & (AddressFlag.TENTATIVE | AddressFlag.DADFAILED):
                self._quietly(self._netlink.delete_address, address)
        self._netlink.add_address(self._router_address(index))

    def _fix_link_layer(self, link: Link) -> None:
        self._journal.note(Change(kind="link_layer", name=link.name, value=link.link_layer.hex()))
        try:
            self._netlink.set_link_layer(link.index, ROUTER_LINK_LAYER)
        except NetlinkError:
            # some drivers change it only while down, some never: advertisements carry whichever it is
            return

    def _restore(self, change: Change) -> None:
        with suppress(OSError, ValueError, TypeError, NetlinkError):  # the interface may be gone, the journal not ours
            if change.kind == "sysctl":
                (SYSCTL / change.name).write_text(change.value)
            elif change.kind == "link_layer":
                self._netlink.set_link_layer(self._netlink.link(change.name).index, bytes.fromhex(change.value))
            elif change.kind == "switched_on":
                self._netlink.set_down(self._netlink.link(change.name).index)

    def _read_sysctl(self, name: str) -> str:
        try:
            return (SYSCTL / name).read_text().strip()
        except OSError:
            return ""

    def _write_sysctl(self, name: str, value: str, *, restore: bool = True) -> None:
        before = self._read_sysctl(name)
        if before == value:
            return
        if restore:
            self._journal.note(Change(kind="sysctl", name=name, value=before))
        try:
            (SYSCTL / name).write_text(value)
        except OSError as error:
            key = f"net.ipv6.{name.replace('/', '.')}"
            why = os.strerror(error.errno or 0).lower()
            raise NoRights(f"{key} = {value}: {why}: set it before: sysctl -w {key}={value}") from None

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
