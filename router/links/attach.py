"""Who arrived and who left: frames, carrier and neighbour events of the access links -> events for the role.

A stock host sends a Router Solicitation when its interface is switched on, but none when only its carrier returns. So
everything it sends counts: MLD reports, duplicate address detection, solicitations, answers to ours, a first packet.
"""

import asyncio
import socket
from collections.abc import Callable, Iterable, Mapping
from ipaddress import IPv6Address

from router.control_sockets import AccessSocket
from router.links.rtnetlink import Link, LinkChanged, NeighborChanged
from router.links.rtnetlink_constants import NeighborState
from signaling.access_link import ROUTER_ADDRESS, ROUTER_LINK_LAYER
from signaling.actions import ExpectNode, SendOnLink
from signaling.errors import MalformedMessage
from signaling.events import Event, LinkAttached, LinkLost, LinkUp, NodeDoubted
from signaling.iana import Icmpv6Type, ProtocolNumber
from signaling.wire import ipv6, neighbor

TRIGGERS = {
    Icmpv6Type.ROUTER_SOLICITATION: "rs",
    Icmpv6Type.NEIGHBOR_SOLICITATION: "ns",
    Icmpv6Type.NEIGHBOR_ADVERTISEMENT: "na",
    Icmpv6Type.MULTICAST_LISTENER_REPORT: "mld",
    Icmpv6Type.MULTICAST_LISTENER_REPORT_V2: "mld",
    Icmpv6Type.ECHO_REPLY: "echo",
}
FROM_ROUTERS = {Icmpv6Type.ROUTER_ADVERTISEMENT, Icmpv6Type.MULTICAST_LISTENER_QUERY, Icmpv6Type.REDIRECT}
ETHERNET = 6  # octets of a link-layer address
GROUP_BIT = 0x01  # of the first octet of a link-layer address


class Identities:
    """Names nodes: by a configured map, else after their link-layer address."""

    def __init__(self, nodes: Mapping[bytes, str], realm: str) -> None:
        self.ours: dict[str, frozenset[bytes]] = {}  # link-layer addresses of this router, by interface
        self._nodes = nodes
        self._realm = realm

    def of(self, link_layer: bytes) -> str:
        """MN-Identifier (NAI) of the node with this link-layer address."""
        return self._nodes.get(link_layer) or f"{link_layer.hex('-')}@{self._realm}"

    def is_a_router(self, link_layer: bytes) -> bool:
        """Whether that is this router on any link, or the address that all routers share (RFC 6543)."""
        return link_layer == ROUTER_LINK_LAYER or any(link_layer in ours for ours in self.ours.values())

    def may_be_a_node(self, link_layer: bytes) -> bool:
        """Whether it is the address of one interface, and of no router."""
        one = len(link_layer) == ETHERNET and not link_layer[0] & GROUP_BIT and any(link_layer)
        return one and not self.is_a_router(link_layer)


def sighting(packet: bytes, link_layer: bytes, identities: Identities, interface: str) -> LinkAttached | None:
    """What an IPv6 packet from an access link tells of who sent it; None: nothing that can be believed."""
    if not identities.may_be_a_node(link_layer):
        return None
    try:
        header = ipv6.decode(packet)
        trigger = "packet"
        if header.next_header == ProtocolNumber.ICMPV6:
            message = neighbor.decode(header.payload, header.source, header.destination, header.hop_limit)
            if message.TYPE in FROM_ROUTERS:
                return None
            trigger = TRIGGERS.get(Icmpv6Type(message.TYPE), "packet")
    except (MalformedMessage, ValueError):
        return None
    if header.source.is_multicast or header.source.is_loopback or header.source == ROUTER_ADDRESS:
        return None
    return LinkAttached(
        node=identities.of(link_layer),
        interface=interface,
        link_layer=link_layer,
        link_local=header.source if header.source.is_link_local else None,
        trigger=trigger,
    )


class AccessInterface:
    """One configured access interface: its socket while it exists, its carrier, the nodes expected on it."""

    def __init__(self, name: str, identities: Identities, on_event: Callable[[Event], None]) -> None:
        self.name = name
        self.index = 0  # 0: the interface does not exist now
        self.up = False  # switched on by its operator
        self._identities = identities
        self._on_event = on_event
        self._socket: AccessSocket | None = None
        self._carrier = False
        self._nodes: dict[bytes, tuple[str, IPv6Address | None]] = {}

    def open(self, loop: asyncio.AbstractEventLoop, link: Link) -> None:
        """Listen on the interface as it is now. Raises NoRights."""
        self.index = link.index
        self._socket = AccessSocket(self.name)
        self._socket.serve(loop, self._on_frame)

    @property
    def listening(self) -> socket.socket | None:
        """What it listens by, while there is the interface."""
        return self._socket.socket if self._socket is not None else None

    def adopt(self, link: Link, opened: socket.socket, nodes: Iterable[ExpectNode], *, carrier: bool) -> None:
        """In place of open: another process has listened here, and told its role of the carrier and of these nodes."""
        self.index, self.up, self._carrier = link.index, link.up, carrier
        self._socket = AccessSocket(self.name, opened)
        self._nodes = {item.link_layer: (item.node, item.link_local) for item in nodes}

    def serve(self, loop: asyncio.AbstractEventLoop) -> None:
        """Listen on what is open."""
        if self._socket is not None:
            self._socket.serve(loop, self._on_frame)

    def pause(self) -> None:
        """Read nothing until serve is called."""
        if self._socket is not None:
            self._socket.pause()

    def close(self, loop: asyncio.AbstractEventLoop) -> None:
        """Stop listening."""
        if self._socket is not None:
            self._socket.close(loop)
            self._socket = None

    def changed(self, change: LinkChanged) -> None:
        """A link event: tell the role when the carrier comes or goes."""
        self.up = change.link.up and not change.gone
        carrier = change.link.carrier and not change.gone
        if carrier and not self._carrier:
            self._carrier = True
            link = change.link
            self._on_event(LinkUp(interface=self.name, link_layer=link.link_layer, mtu=link.mtu))
            if self._socket is not None:
                self._socket.read()  # whoever is there may have answered already
        elif self._carrier and not carrier:
            self._carrier = False
            if self._socket is not None:
                self._socket.discard()  # signs of nodes that were here: nobody has come back yet
            self._on_event(LinkLost(interface=self.name))

    def neighbor_changed(self, change: NeighborChanged) -> None:
        """A neighbour event: the kernel gave up on an address of a node."""
        if change.gone or change.state != NeighborState.FAILED:
            return
        for link_layer, (node, link_local) in list(self._nodes.items()):
            # another address may just have been given up by its host; the link-local one stands for the node
            if link_local == change.address:
                self._on_event(NodeDoubted(node=node, link_layer=link_layer))

    def expect(self, action: ExpectNode) -> None:
        """A node is (interface given) or is no more on this link."""
        if action.interface == self.name:
            self._nodes[action.link_layer] = (action.node, action.link_local)
        elif self._nodes.pop(action.link_layer, None) is None:
            return
        if self._socket is not None:
            self._socket.expect(self._nodes)

    def send(self, action: SendOnLink) -> str | None:
        """Send on this link. Returns why it could not leave."""
        return self._socket.send(action.octets, action.link_layer) if self._socket else "interface is gone"

    def _on_frame(self, packet: bytes, link_layer: bytes) -> None:
        event = sighting(packet, link_layer, self._identities, self.name)
        if event is not None:
            self._on_event(event)
