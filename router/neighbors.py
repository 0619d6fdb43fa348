"""What the kernel knows of the nodes on access links: those that are here need no address resolution.

Nodes that left are forgotten together, once a second: the table of a link with a thousand nodes takes milliseconds to
read. Until then it does no harm, as their prefixes lead elsewhere; but who comes back to the same link meanwhile finds
nothing of before. An address that could not be resolved while its node was away would be left alone for a second.
"""

import logging
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from ipaddress import IPv6Address

from router.links.netlink import Netlink, NetlinkError
from router.links.rtnetlink import Neighbor
from router.links.rtnetlink_constants import NeighborState
from router.rounds import Later, Rounds

log = logging.getLogger(__name__)

SWEEP_EVERY = 1.0  # s
REMEMBERED = 5.0  # s after a node left; to resolve an address takes the kernel 3 s (RFC 4861 7.2.2), then it has failed


class Neighbors:
    """Of the access links with these indices. later: calls a function after so many seconds; None: nothing is put off.

    clock: monotonic s.
    """

    def __init__(
        self,
        netlink: Netlink,
        links: Collection[int],
        later: Later | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._netlink = netlink
        self._links = links
        self._clock = clock
        self._left: dict[bytes, float] = {}  # link-layer addresses of nodes, and when they left; in that order
        self._rounds = Rounds(later, SWEEP_EVERY, self._look) if later is not None else None

    def arrived(self, index: int, address: IPv6Address | None, link_layer: bytes) -> None:
        """A node is there; its link-local address may not be known yet. Raises NetlinkError."""
        if link_layer in self._left:
            self._sweep()
            del self._left[link_layer]
        if address is None:
            return
        here = Neighbor(index=index, address=address, link_layer=link_layer, state=NeighborState.REACHABLE)
        self._netlink.replace_neighbor(here)

    def left(self, link_layer: bytes) -> None:
        """A node is there no more. Raises NetlinkError."""
        self._left.pop(link_layer, None)
        self._left[link_layer] = self._clock()
        if self._rounds is not None:
            self._rounds.begin()
        else:
            self._sweep()
            del self._left[link_layer]

    def _look(self) -> bool:
        try:
            self._sweep()
        except NetlinkError as error:
            log.warning("%s", error)
        for link_layer, at in list(self._left.items()):
            if at + REMEMBERED > self._clock():
                break
            del self._left[link_layer]
        return bool(self._left)

    def _sweep(self) -> None:
        for index in self._links:
            for near in self._netlink.uncertain_neighbors(index, self._left):
                unresolved = not near.link_layer and not near.address.is_multicast
                if unresolved or near.link_layer in self._left:
                    with suppress(NetlinkError):  # it is gone already, or its interface is
                        self._netlink.delete_neighbor(near)
