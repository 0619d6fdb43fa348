"""Interfaces of nodes, told apart by their link-layer addresses, and which of them are on the links of this router.

A node has one identifier and may have several interfaces (RFC 5213 5.4.1.1); each of them comes, moves and goes by
itself, at this router or at another one.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import NamedTuple


class NodeInterface(NamedTuple):
    """What a session belongs to: one interface of one node."""

    node: str  # MN-Identifier (NAI)
    link_layer: bytes


class Here:
    """The nodes that are here, and by which interfaces. As a container: identifiers of nodes."""

    def __init__(self) -> None:
        self._interfaces: dict[str, dict[NodeInterface, None]] = {}

    def __contains__(self, node: object) -> bool:
        return node in self._interfaces

    def __len__(self) -> int:
        return len(self._interfaces)

    def __iter__(self) -> Iterator[str]:
        return iter(self._interfaces)

    def of(self, node: str, link_layer: bytes | None = None) -> list[NodeInterface]:
        """Those of a node, in the order they came; the one with this link-layer address; None: all."""
        return [who for who in self._interfaces.get(node, ()) if link_layer in (None, who.link_layer)]

    def add(self, who: NodeInterface) -> None:
        """It came."""
        self._interfaces.setdefault(who.node, {})[who] = None

    def remove(self, who: NodeInterface) -> None:
        """It left; nothing happens if it was not here."""
        interfaces = self._interfaces.get(who.node, {})
        interfaces.pop(who, None)
        if not interfaces:
            self._interfaces.pop(who.node, None)


@dataclass(frozen=True, slots=True)
class Place:
    """Where an interface of a node is: on which of our links, and as whom.

    gateway: its link-local address, if packets are to be given to it whatever their destination; None: neighbour
    discovery finds who has that address. A stock host answers for an address only on the interface that has it, but
    takes a packet for it on any (weak host model, RFC 1122 3.3.4.2).
    """

    interface: str
    link_layer: bytes
    gateway: IPv6Address | None = None
