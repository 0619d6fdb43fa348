"""Links, addresses, routes, rules and neighbours of the kernel over plain rtnetlink sockets.

IPv6, unless IPv4 is asked for: of what is listed by the family, of what is set by the object itself.

Two sockets: on one, requests are answered before send() returns (a few microseconds), so these calls are
plain functions and never wait for anybody; on the other, events arrive and the loop reads them. Both belong
to the network namespace in which the Netlink object was made, wherever it is used afterwards.

    Netlink.replace_route(route) --request--> kernel --ack--> None, or NetlinkError
    Netlink.watch(loop, ...)     <---event--- kernel          LinkChanged, AddressChanged, ...

What we put into the kernel carries ROUTE_PROTOCOL, so that the next start finds what a crash left behind.
"""

import errno
import os
import socket
import struct
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from ctypes import addressof, create_string_buffer
from functools import partial
from ipaddress import IPv6Address
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar

from router.errors import ExitCode, RouterError
from router.links.rtnetlink import (
    ADDRESS,
    ANY,
    DEFAULT_METRIC,
    HEADER,
    LINK,
    NEIGHBOR,
    ROUTE,
    ROUTE_PROTOCOL,
    RULE,
    U32,
    Address,
    AddressChanged,
    Event,
    Link,
    LinkChanged,
    Neighbor,
    NeighborChanged,
    Refused,
    Reply,
    Route,
    RouteChanged,
    Rule,
    address,
    attribute,
    check,
    decode_address,
    decode_event,
    decode_link,
    decode_neighbor,
    decode_route,
    decode_rule,
    decode_uncertain_neighbor,
    encode_address,
    encode_neighbor,
    encode_route,
    encode_rule,
    messages,
    number,
    text,
)
from router.links.rtnetlink_constants import (
    NETLINK_ROUTE,
    SOL_NETLINK,
    AddressFlag,
    Group,
    LinkAttribute,
    LinkFlag,
    Message,
    MessageFlag,
    NeighborAttribute,
    NeighborState,
    OperState,
    RouteAttribute,
    RouteKind,
    SocketOption,
    Table,
)

if TYPE_CHECKING:
    import asyncio  # a tenth of a second for those who only ask

__all__ = [
    "ANY",
    "DEFAULT_METRIC",
    "ROUTE_PROTOCOL",
    "Address",
    "AddressChanged",
    "AddressFlag",
    "Event",
    "Group",
    "Link",
    "LinkChanged",
    "Neighbor",
    "NeighborChanged",
    "NeighborState",
    "Netlink",
    "NetlinkError",
    "OperState",
    "Route",
    "RouteChanged",
    "RouteKind",
    "Rule",
    "Table",
]

T = TypeVar("T")

EXIT_CODES = {
    errno.EPERM: ExitCode.NO_RIGHTS,
    errno.EACCES: ExitCode.NO_RIGHTS,
    errno.ENODEV: ExitCode.NO_INTERFACE,
}
SO_ATTACH_FILTER, SO_RCVBUFFORCE = 26, 33  # not in the socket module
DEFAULT_GROUPS = (Group.LINK, Group.IPV6_IFADDR, Group.NEIGH)
SOMEWHERE = IPv6Address("2000::")  # first global unicast address: whichever way it goes is the way out
ANSWER_TIMEOUT = 2.0  # s; the kernel answers at once, so this ends only a fault
FULL = "the kernel has no room for more neighbours: raise net.ipv6.neigh.default.gc_thresh3 on the host"
DUMP_ATTEMPTS = 8  # a table that changes under each of them is changing too fast to be read
RECEIVE_SIZE = 1 << 16  # octets; the kernel fills dumps up to 32 KiB
EVENT_BUFFER = 1 << 20  # octets; some thousand events while the loop is busy
EVENT_READS = 16  # datagrams per wake-up, so that a storm of events cannot hold the loop
# classic BPF on one message: its type (in the order of this machine) is at 4, the protocol of a route at 21
LOAD_HALF, LOAD_OCTET, JUMP_IF_EQUAL, RETURN = 0x28, 0x30, 0x15, 0x06
NOT_OURS = [
    struct.pack("HBBI", *operation)
    for operation in (
        (LOAD_HALF, 0, 0, 4),
        (JUMP_IF_EQUAL, 1, 0, socket.htons(Message.NEWROUTE)),
        (JUMP_IF_EQUAL, 0, 2, socket.htons(Message.DELROUTE)),
        (LOAD_OCTET, 0, 0, HEADER.size + 5),
        (JUMP_IF_EQUAL, 1, 0, ROUTE_PROTOCOL),
        (RETURN, 0, 0, 0xFFFFFFFF),
        (RETURN, 0, 0, 0),
    )
]


class NetlinkError(RouterError):
    """The kernel refused: errno, what was asked, where, and the kernel's own sentence if it gave one."""

    def __init__(self, number: int, what: str, where: str = "", hint: str = "") -> None:
        asked = f"{what} {where}".rstrip()
        super().__init__(f"{asked}: {os.strerror(number)}" + (f" ({hint})" if hint else ""))
        self.errno = number
        self.what = what
        self.where = where
        self.exit_code = EXIT_CODES.get(number, ExitCode.FAILED)


class Netlink:
    """Requests to the kernel, and its events; of the network namespace in which the object is made."""

    def __init__(self) -> None:
        self._socket = open_socket()
        seconds, microseconds = int(ANSWER_TIMEOUT), int(ANSWER_TIMEOUT % 1 * 1e6)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("@ll", seconds, microseconds))
        self._events = open_socket()
        self._events.setblocking(False)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._sequence = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop watching and close both sockets; what was set in the kernel stays."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.remove_reader(self._events.fileno())
        self._loop = None
        self._socket.close()
        self._events.close()

    # Links

    def links(self) -> list[Link]:
        """All links of the namespace."""
        return self._dump(Message.GETLINK, LINK.pack(0, 0, 0, 0, 0), decode_link, "list links")

    def link(self, which: str | int) -> Link:
        """The link of that name or index. Raises NetlinkError (ENODEV)."""
        index, name = (which, "") if isinstance(which, int) else (0, which)
        body = LINK.pack(0, 0, index, 0, 0) + text(LinkAttribute.IFNAME, name)
        for reply in self._ask(Message.GETLINK, 0, body, "find link", which):
            if link := decode_link(reply.body):
                return link
        raise NetlinkError(errno.ENODEV, f"find link {which}")

    def create_link(self, name: str, kind: str, data: bytes = b"", *, index: int = 0) -> None:
        """Make a link; data: attributes of its kind, nested in INFO_DATA. index 0: the kernel chooses."""
        about = text(LinkAttribute.INFO_KIND, kind)
        if data:
            about += attribute(LinkAttribute.INFO_DATA, data)
        body = LINK.pack(0, 0, index, 0, 0) + text(LinkAttribute.IFNAME, name)
        body += attribute(LinkAttribute.LINKINFO, about)
        flags = MessageFlag.CREATE | MessageFlag.EXCL
        self._ask(Message.NEWLINK, flags, body, f"add {kind} link", name)

    def set_up(self, index: int) -> None:
        """Switch a link on."""
        self._set_link(index, "switch on link", change=LinkFlag.UP, flags=LinkFlag.UP)

    def set_down(self, index: int) -> None:
        """Switch a link off; the kernel forgets its IPv6 addresses and routes."""
        self._set_link(index, "switch off link", change=LinkFlag.UP)

    def set_mtu(self, index: int, mtu: int) -> None:
        """Give a link its MTU in octets."""
        self._set_link(index, f"set mtu {mtu}", number(LinkAttribute.MTU, mtu))

    def set_queue_length(self, index: int, packets: int) -> None:
        """Let so many packets wait for a link."""
        self._set_link(index, f"set txqueuelen {packets}", number(LinkAttribute.QUEUE_LENGTH, packets))

    def set_link_layer(self, index: int, link_layer: bytes) -> None:
        """Give a link its MAC address."""
        what = f"set address {link_layer.hex(':')}"
        self._set_link(index, what, attribute(LinkAttribute.ADDRESS, link_layer))

    def set_master(self, index: int, master: int) -> None:
        """Make a link a port of that bridge; 0: of none."""
        self._set_link(index, "set master", attribute(LinkAttribute.MASTER, U32.pack(master)))

    def delete_link(self, index: int) -> None:
        """Remove a link."""
        self._ask(Message.DELLINK, 0, LINK.pack(0, 0, index, 0, 0), "delete link", index=index)

    def _set_link(self, index: int, what: str, more: bytes = b"", *, change: int = 0, flags: int = 0) -> None:
        self._ask(Message.NEWLINK, 0, LINK.pack(0, 0, index, flags, change) + more, what, index=index)

    # Addresses

    def addresses(self, index: int = 0, *, family: int = socket.AF_INET6) -> list[Address]:
        """Addresses of that family, of one link or (0) of all."""
        body = ADDRESS.pack(family, 0, 0, 0, index)
        found = self._dump(Message.GETADDR, body, decode_address, "list addresses")
        return [each for each in found if index in (0, each.index)]

    def add_address(self, wanted: Address) -> None:
        """Add an address, or change the flags of the one that is there."""
        flags = MessageFlag.CREATE | MessageFlag.REPLACE
        body = encode_address(wanted)
        self._ask(Message.NEWADDR, flags, body, "add address", wanted, index=wanted.index)

    def delete_address(self, unwanted: Address) -> None:
        """Remove an address."""
        body = encode_address(unwanted)
        self._ask(Message.DELADDR, 0, body, "delete address", unwanted, index=unwanted.index)

    # Routes

    def routes(self, *, protocol: int = 0, table: int = 0, oif: int = 0, family: int = socket.AF_INET6) -> list[Route]:
        """Routes of that family; 0: of every protocol, of every table, through every link."""
        short_table = table if table < 256 else Table.COMPAT
        body = ROUTE.pack(family, 0, 0, 0, short_table, protocol, 0, 0, 0)
        body += number(RouteAttribute.TABLE, table) + number(RouteAttribute.OIF, oif)
        try:
            found = self._dump(Message.GETROUTE, body, decode_route, "list routes")
        except NetlinkError as error:
            if error.errno == errno.ENOENT:  # a table nobody has written to yet
                return []
            raise
        # an old kernel does not filter; the table may be one
        return [
            each
            for each in found
            if protocol in (0, each.protocol)
            and table in (0, each.table)
            and (not oif or oif == each.oif or any(oif == hop.oif for hop in each.others))
        ]

    def add_route(self, route: Route) -> None:
        """Add a route. Raises NetlinkError (EEXIST) if prefix, table and metric are taken."""
        self._set_route(Message.NEWROUTE, MessageFlag.CREATE | MessageFlag.EXCL, "add route", route)

    def replace_route(self, route: Route) -> None:
        """Add a route, in place of the one with the same prefixes, table and metric."""
        self._set_route(Message.NEWROUTE, MessageFlag.CREATE | MessageFlag.REPLACE, "replace route", route)

    def delete_route(self, route: Route) -> None:
        """Remove a route. Raises NetlinkError (ESRCH) if it is not there."""
        self._set_route(Message.DELROUTE, 0, "delete route", route)

    def _set_route(self, kind: Message, flags: int, what: str, route: Route) -> None:
        self._ask(kind, flags, encode_route(route), what, route, index=route.oif)

    def route_to(self, to: IPv6Address, source: IPv6Address | None = None) -> Route:
        """The route a packet would take, with oif, gateway and prefsrc. Raises NetlinkError (ENETUNREACH)."""
        header = ROUTE.pack(socket.AF_INET6, 128, 128 if source else 0, 0, 0, 0, 0, 0, 0)
        body = header + address(RouteAttribute.DST, to) + address(RouteAttribute.SRC, source)
        for reply in self._ask(Message.GETROUTE, 0, body, "find route", to):
            if route := decode_route(reply.body):
                return route
        raise NetlinkError(errno.ENETUNREACH, f"find route {to}")

    def default_route(self) -> Route | None:
        """The way to the rest of the world (prefsrc: our address on it), or None if there is none."""
        try:
            route = self.route_to(SOMEWHERE)
        except NetlinkError as error:
            if error.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES, errno.EINVAL):
                return None
            raise
        return route if route.kind == RouteKind.UNICAST else None

    # Rules

    def rules(self, *, protocol: int = 0, family: int = socket.AF_INET6) -> list[Rule]:
        """Routing rules of that family that name a table; 0: of every protocol."""
        body = RULE.pack(family, 0, 0, 0, 0, 0, 0)
        found = self._dump(Message.GETRULE, body, decode_rule, "list rules")
        return [each for each in found if protocol in (0, each.protocol)]

    def add_rule(self, rule: Rule) -> None:
        """Add a rule. Raises NetlinkError (EEXIST) if the same one is there."""
        flags = MessageFlag.CREATE | MessageFlag.EXCL
        self._ask(Message.NEWRULE, flags, encode_rule(rule), "add rule", rule)

    def delete_rule(self, rule: Rule) -> None:
        """Remove a rule. Raises NetlinkError (ENOENT) if it is not there."""
        self._ask(Message.DELRULE, 0, encode_rule(rule), "delete rule", rule)

    # Neighbours

    def neighbors(self, index: int = 0) -> list[Neighbor]:
        """IPv6 neighbours, of one link or (0) of all."""
        body = NEIGHBOR.pack(socket.AF_INET6, 0, 0, 0, 0)
        found = self._dump(Message.GETNEIGH, body, decode_neighbor, "list neighbours")
        return [each for each in found if index in (0, each.index)]

    def uncertain_neighbors(self, index: int, link_layers: Collection[bytes] = ()) -> list[Neighbor]:
        """Of one link: IPv6 neighbours without a link-layer address, and those with one of these.

        There may be thousands, and few of these: only they are decoded.
        """
        body = NEIGHBOR.pack(socket.AF_INET6, 0, 0, 0, 0) + attribute(NeighborAttribute.IFINDEX, U32.pack(index))
        decode = partial(decode_uncertain_neighbor, link_layers=link_layers)
        found = self._dump(Message.GETNEIGH, body, decode, "list neighbours")
        return [each for each in found if each.index == index]  # kernels before 4.6 tell of all links

    def replace_neighbor(self, neighbor: Neighbor) -> None:
        """Add a neighbour or give it a new link-layer address and state."""
        flags = MessageFlag.CREATE | MessageFlag.REPLACE
        body = encode_neighbor(neighbor)
        self._ask(Message.NEWNEIGH, flags, body, "replace neighbour", neighbor, index=neighbor.index)

    def delete_neighbor(self, neighbor: Neighbor) -> None:
        """Forget a neighbour."""
        body = encode_neighbor(neighbor)
        self._ask(Message.DELNEIGH, 0, body, "delete neighbour", neighbor, index=neighbor.index)

    # Events

    def watch(
        self,
        loop: "asyncio.AbstractEventLoop",
        on_event: Callable[[Event], None],
        on_overrun: Callable[[], None],
        groups: Iterable[Group] = DEFAULT_GROUPS,
    ) -> None:
        """Call on_event for every change, on_overrun when the kernel lost some: then dump and compare.

        Of routes only those that others set: nobody is woken by what this program does itself.
        """
        octets = create_string_buffer(b"".join(NOT_OURS))
        self._events.setsockopt(
            socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HL", len(NOT_OURS), addressof(octets))
        )
        with suppress(PermissionError):  # the larger buffer is for the privileged
            self._events.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, EVENT_BUFFER)
        for group in groups:
            self._events.setsockopt(SOL_NETLINK, SocketOption.ADD_MEMBERSHIP, group)
        self._loop = loop
        self._listen(on_event, on_overrun)

    def pause(self) -> None:
        """Call nobody until watch is called again; what happens meanwhile is told then."""
        if self._loop is not None:
            self._loop.remove_reader(self._events.fileno())

    def _listen(self, on_event: Callable[[Event], None], on_overrun: Callable[[], None]) -> None:
        if self._loop is not None:
            self._loop.remove_reader(self._events.fileno())
            self._loop.add_reader(self._events.fileno(), self._read_events, on_event, on_overrun)

    def _read_events(self, on_event: Callable[[Event], None], on_overrun: Callable[[], None]) -> None:
        for _ in range(EVENT_READS):
            try:
                octets = self._events.recv(RECEIVE_SIZE)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                self._listen(on_event, on_overrun)  # uvloop stops reading what polled as an error
                on_overrun()
            else:
                self._tell(octets, on_event)
            if self._loop is None:  # a callback closed us
                return

    def _tell(self, octets: bytes, on_event: Callable[[Event], None]) -> None:
        for reply in messages(octets):
            event = decode_event(reply)
            if event is not None and self._loop is not None:
                on_event(event)

    # Asking

    def _ask(
        self, kind: Message, flags: int, body: bytes, what: str, subject: object = "", *, index: int = 0
    ) -> list[Reply]:
        try:
            return self._exchange(kind, flags | MessageFlag.ACK, body)
        except Refused as refused:
            asked = f"{what} {subject}".rstrip()
            full = kind is Message.NEWNEIGH and refused.number == errno.ENOBUFS
            raise NetlinkError(refused.number, asked, self._place(index), FULL if full else refused.hint) from None

    def _place(self, index: int) -> str:
        if not index:
            return ""
        try:
            replies = self._exchange(Message.GETLINK, MessageFlag.ACK, LINK.pack(0, 0, index, 0, 0))
        except Refused:
            return f"dev #{index}"
        link = decode_link(replies[0].body)
        return f"dev {link.name}" if link else f"dev #{index}"

    def _dump(self, kind: Message, body: bytes, decode: Callable[[bytes], T | None], what: str) -> list[T]:
        """The whole table, asked again when it changed while it was read."""
        for _ in range(DUMP_ATTEMPTS):
            try:
                replies = self._exchange(kind, MessageFlag.DUMP, body)
            except Refused as refused:
                raise NetlinkError(refused.number, what, hint=refused.hint) from None
            if not any(reply.flags & MessageFlag.DUMP_INTR for reply in replies):
                return [found for reply in replies if (found := decode(reply.body)) is not None]
        raise NetlinkError(errno.EINTR, what, hint=f"changed {DUMP_ATTEMPTS} times while read")

    def _exchange(self, kind: int, flags: int, body: bytes) -> list[Reply]:
        """Send one request and collect its replies up to the ack or the end of the dump. Raises Refused."""
        self._sequence = (self._sequence + 1) & 0xFFFFFFFF
        header = HEADER.pack(HEADER.size + len(body), kind, flags | MessageFlag.REQUEST, self._sequence, 0)
        replies: list[Reply] = []
        try:
            self._socket.send(header + body)
            while True:
                for reply in messages(self._socket.recv(RECEIVE_SIZE)):
                    if reply.sequence != self._sequence:
                        continue  # of a request that was given up
                    if reply.kind in (Message.ERROR, Message.DONE):
                        check(reply)
                        return replies
                    replies.append(reply)
        except BlockingIOError:
            raise Refused(errno.ETIMEDOUT, f"no answer in {ANSWER_TIMEOUT:g} s") from None


def open_socket() -> socket.socket:
    """A rtnetlink socket that takes messages from the kernel only."""
    opened = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_ROUTE)
    opened.bind((0, 0))
    opened.connect((0, 0))
    for option in (SocketOption.CAP_ACK, SocketOption.EXT_ACK, SocketOption.GET_STRICT_CHK):
        with suppress(OSError):  # kernels before 4.3, 4.12 and 4.20: fewer words, more to filter
            opened.setsockopt(SOL_NETLINK, option, 1)
    return opened
