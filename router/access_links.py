"""The access links of a MAR or MAG: interfaces that are opened when they are there, and followed as they change."""

import asyncio
import logging
import socket
from collections.abc import Callable, Container, Iterable, Mapping
from ipaddress import IPv6Address
from typing import TYPE_CHECKING

from router.config import Config
from router.errors import NoInterface, RouterError
from router.links.attach import AccessInterface, Identities
from router.links.netlink import Netlink, NetlinkError
from router.links.rtnetlink import Event as KernelEvent
from router.links.rtnetlink import LinkChanged, NeighborChanged
from router.network import Network
from signaling.actions import ExpectNode
from signaling.events import Event, LinkAttached

if TYPE_CHECKING:  # a MAR leases no addresses
    from router.links.address_socket import AddressServer

log = logging.getLogger("openmar")


class AccessLinks:
    """All access interfaces of one router. on_event is told who comes and goes on them."""

    def __init__(self, config: Config, on_event: Callable[[Event], None]) -> None:
        self._names = dict(config.nodes)
        self.identities = Identities(self._names, config.realm)
        self.interfaces = {
            name: AccessInterface(name, self.identities, on_event) for name in dict.fromkeys(config.interfaces)
        }
        self._fixed_link_layer = config.fixed_link_layer
        self.addresses: AddressServer | None = None  # who answers DHCP on them, if anybody does
        self._on_event = on_event
        self._network: Network

    def check(self, netlink: Netlink, underlay: str | None) -> None:
        """Are they there, and of a kind that nodes can be known on? underlay: the interface. Raises NoInterface."""
        for name in self.interfaces:
            try:
                link = netlink.link(name)
            except NetlinkError:
                here = ", ".join(sorted(link.name for link in netlink.links() if link.name != "lo"))
                choice = f"choose one of: {here}" if here else "this machine has none but lo: make one"
                raise NoInterface(f"access interface {name}: no such interface: {choice}") from None
            if not any(link.link_layer):
                raise NoInterface(
                    f"access interface {name}: it has no link-layer address, and nodes are known by theirs"
                )
            if link.name == underlay:
                raise NoInterface(
                    f"access interface {name}: it is the way to the other routers: nodes need a link of their own"
                )

    def open(self, network: Network) -> None:
        """Become the router of each, and listen. Raises RouterError."""
        self._network = network
        for link in self.interfaces.values():
            self._open(link)

    @property
    def sockets(self) -> dict[str, socket.socket]:
        """What is listened by, of each interface that is there."""
        return {name: link.listening for name, link in self.interfaces.items() if link.listening is not None}

    def adopt(
        self,
        network: Network,
        sockets: Mapping[str, socket.socket],
        nodes: Iterable[ExpectNode],
        carriers: Container[str],
    ) -> None:
        """In place of open, where another process has done all of it. carriers: of interfaces that its role knows."""
        self._network = network
        here = list(nodes)
        for name, opened in sockets.items():
            link = network.adopt_access(name)
            self.identities.ours[name] = network.link_layers_of(link)
            there = (item for item in here if item.interface == name)
            self.interfaces[name].adopt(link, opened, there, carrier=name in carriers)

    def serve(self) -> None:
        """Listen on all that are open."""
        for link in self.interfaces.values():
            link.serve(_loop())

    def pause(self) -> None:
        """Read nothing until serve is called."""
        for link in self.interfaces.values():
            link.pause()

    def close(self) -> None:
        """Stop listening."""
        for link in self.interfaces.values():
            self._close(link)

    # --- what the kernel tells ---

    def kernel_changed(self, event: KernelEvent) -> None:
        """A link or a neighbour changed; those of others are of no concern."""
        match event:
            case LinkChanged(link=link) if link.name in self.interfaces:
                self._changed(self.interfaces[link.name], event)
            case NeighborChanged(index=index):
                for access in self.interfaces.values():
                    if access.index == index:
                        access.neighbor_changed(event)
            case _:
                pass

    def resync(self, netlink: Netlink) -> None:
        """The kernel had more events than we could read: look at the links themselves."""
        links = {link.name: link for link in netlink.links()}
        for name, access in self.interfaces.items():
            if name in links:
                self._changed(access, LinkChanged(link=links[name], gone=False))

    def _changed(self, access: AccessInterface, event: LinkChanged) -> None:
        try:
            self._follow(access, event)
        except RouterError as error:  # it may have gone again already
            log.warning("access interface %s: %s", access.name, error)

    def _follow(self, access: AccessInterface, event: LinkChanged) -> None:
        if event.gone:
            access.changed(event)
            self._close(access)
            access.index = 0
        elif access.index != event.link.index:  # it came back as another device
            self._close(access)
            self._open(access)
        else:
            if event.link.up and not access.up:
                self._reclaim(access)
            self.identities.ours[access.name] = self._network.link_layers_of(event.link)
            access.changed(event)

    def _open(self, access: AccessInterface) -> None:
        link = self._network.add_access(access.name, fixed_link_layer=self._fixed_link_layer)
        self.identities.ours[access.name] = self._network.link_layers_of(link)
        access.open(_loop(), link)
        if self.addresses is not None:
            self.addresses.open(_loop(), access.name)
        self._network.refresh(access.name)
        access.changed(LinkChanged(link=link, gone=False))

    def _close(self, access: AccessInterface) -> None:
        access.close(_loop())
        if self.addresses is not None:
            self.addresses.close(_loop(), access.name)

    def _reclaim(self, access: AccessInterface) -> None:
        """Switching an interface off made the kernel forget its addresses and routes."""
        self._network.add_access(access.name, fixed_link_layer=self._fixed_link_layer)
        self._network.refresh(access.name)

    # --- what the operator tells ---

    def rename(self, nodes: Mapping[bytes, str]) -> None:
        """Nodes with these link-layer addresses are called so from now on, when they come or show themselves again."""
        self._names.clear()
        self._names.update(nodes)

    def attach(
        self,
        interface: str,
        link_layer: bytes,
        node: str | None,
        link_local: IPv6Address | None,
        *,
        with_carrier: Container[str],
    ) -> str:
        """A node is here, says the operator. Returns its identifier. Raises RouterError."""
        if interface not in self.interfaces:
            known = ", ".join(self.interfaces) or "none is configured"
            raise RouterError(f"{interface} is no access interface of this router: {known}")
        if interface not in with_carrier:
            raise RouterError(f"{interface} has no carrier: nobody can be attached there")
        if self.identities.is_a_router(link_layer):
            raise RouterError(f"{link_layer.hex(':')} is the address of a router: give that of a node")
        if not self.identities.may_be_a_node(link_layer):
            raise RouterError(f"{link_layer.hex(':')} is the address of no node: give that of one interface")
        node = node or self.identities.of(link_layer)
        self._on_event(
            LinkAttached(
                node=node, interface=interface, link_layer=link_layer, link_local=link_local, trigger="command"
            )
        )
        return node


def _loop() -> asyncio.AbstractEventLoop:
    return asyncio.get_running_loop()
