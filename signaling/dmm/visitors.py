"""The prefixes that nodes brought along to the router that serves them, and the tunnels they come by.

One lives as long as the last answer that named it (`deadlines`, by prefix); every refresh is answered with all of them.
"""

from collections.abc import Iterable
from ipaddress import IPv6Network

from signaling.actions import Action, Bind, Held, Note, TowardAnchor, Unbind
from signaling.deadlines import Deadlines
from signaling.dma.idle import IdleWatch
from signaling.dma.update_list import Progress, Registration, Step
from signaling.dmm.dlif import Dlif
from signaling.dmm.previous_list import Previous
from signaling.node_interface import Place
from signaling.settings import Address, Counters


class Visitors:
    """Visiting prefixes, each with its anchor and, if that was told, the router the node knows that anchor by."""

    def __init__(self, deadlines: Deadlines[str | IPv6Network], counters: Counters, idle: IdleWatch) -> None:
        """idle: told which prefixes visit."""
        self.dlifs: dict[IPv6Network, Dlif] = {}
        self.lost_anchors: set[Address] = set()  # those that do not answer any more
        self._deadlines = deadlines
        self._counters = counters
        self._idle = idle
        self._items: dict[IPv6Network, Registration] = {}
        self._of_node: dict[str, dict[IPv6Network, Registration]] = {}

    def get(self, prefix: IPv6Network) -> Registration | None:
        """The visitor with this prefix."""
        return self._items.get(prefix)

    def of(self, node: str) -> list[Registration]:
        """Those of a node."""
        return list(self._of_node.get(node, {}).values())

    def all(self) -> list[Registration]:
        """All of them."""
        return list(self._items.values())

    def at(self, anchor: Address) -> list[Registration]:
        """Those that this router anchors."""
        return [item for item in self._items.values() if item.anchor == anchor]

    def welcome(self, host: Registration, previous: Previous, until: float, now: float) -> list[Action]:
        """A prefix comes by a tunnel from its anchor until then (monotonic s). host: the node as it is here."""
        prefix, anchor = previous.prefix, previous.anchor
        item = self._items.get(prefix)
        before = self.end(item) if item is not None and item.node != host.node else []
        if item is None or before:
            item = self._begin(host, prefix, anchor)
            self._idle.expect(prefix, now)
        if previous.dlif is not None:
            self.dlifs[prefix] = previous.dlif
        item.expires = until
        self._deadlines.set(prefix, until)
        here = Place(host.interface, host.link_layer, host.gateway)
        there = Place(item.interface, item.link_layer, item.gateway)
        known = item.progress is (Progress.LOST if anchor in self.lost_anchors else Progress.VISITED)
        if known and (item.anchor, there) == (anchor, here):
            return []
        item.anchor = anchor
        item.settle(here)
        actions = before + self._come(item, now)
        return actions if item.progress is Progress.LOST else [*actions, Note("prefix-visits", _fields(item))]

    def take_up(self, items: Iterable[Registration]) -> None:
        """What another process of this router knew; set `deadlines` and `dlifs` beside it."""
        for item in items:
            self._enlist(item)

    def resume(self, node: str, here: Place, now: float) -> list[Action]:
        """The node is back before it was seen elsewhere: its prefixes still come here."""
        actions: list[Action] = []
        for item in self.of(node):
            item.settle(here)
            actions += self._come(item, now)
        return actions

    def _come(self, item: Registration, now: float) -> list[Action]:
        """By its tunnel, if its anchor answers."""
        fresh = item.progress is not Progress.VISITED
        item.step(Step.FOUND)
        if item.anchor in self.lost_anchors:
            return self._lose(item)
        item.step(Step.ACCEPTED)
        if fresh:
            self._idle.watch(item.prefix, now)
        return [_bind(item)]

    def reached_at(self, node: str, here: Place) -> list[Action]:
        """Packets for this interface can be given to it by a gateway from now on."""
        items = [item for item in self.of(node) if item.link_layer == here.link_layer and item.gateway != here.gateway]
        for item in items:
            item.settle(here)
        return [_bind(item) for item in items if item.progress is Progress.VISITED]

    def hold(self, node: str, link_layer: bytes) -> list[Action]:
        """The interface that has them has left, perhaps only for a moment."""
        actions: list[Action] = []
        for item in (item for item in self.of(node) if item.link_layer == link_layer and item.step(Step.LEFT)):
            gone = item.progress is Progress.NONE  # its anchor was lost
            actions += self.end(item) if gone else [Bind(prefix=item.prefix, path=Held(), node=node)]
        return actions

    def anchor_lost(self, anchor: Address) -> list[Action]:
        """It does not answer any more: nothing reaches its prefixes, so their nodes are told to use others."""
        self.lost_anchors.add(anchor)
        return [action for item in self.at(anchor) for action in self._lose(item)]

    def anchor_back(self, anchor: Address, now: float) -> list[Action]:
        """It answers again."""
        self.lost_anchors.discard(anchor)
        lost = [item for item in self.at(anchor) if item.progress is Progress.LOST]
        return [action for item in lost for action in self._come(item, now)]

    def _lose(self, item: Registration) -> list[Action]:
        if not item.step(Step.ANCHOR_LOST):
            return []
        self._counters["serving.lost"] += 1
        self._idle.forget(item.prefix)
        return [Unbind(prefix=item.prefix, node=item.node), Note("anchor-lost", _fields(item))]

    def end(self, item: Registration) -> list[Action]:
        """A prefix does not come here any more."""
        self._deadlines.cancel(item.prefix)
        self._idle.forget(item.prefix)
        self.dlifs.pop(item.prefix, None)
        del self._items[item.prefix]
        of_node = self._of_node[item.node]
        del of_node[item.prefix]
        if not of_node:
            del self._of_node[item.node]
        return [Unbind(prefix=item.prefix, node=item.node), Note("prefix-gone", _fields(item))]

    def _begin(self, host: Registration, prefix: IPv6Network, anchor: Address) -> Registration:
        item = Registration(
            node=host.node,
            prefix=prefix,
            anchor=anchor,
            interface=host.interface,
            link_layer=host.link_layer,
            handoff=host.handoff,
            valid_lifetime=host.valid_lifetime,
        )
        self._enlist(item)
        return item

    def _enlist(self, item: Registration) -> None:
        self._items[item.prefix] = item
        self._of_node.setdefault(item.node, {})[item.prefix] = item


def _fields(item: Registration) -> dict[str, object]:
    return {"node": item.node, "prefix": item.prefix, "anchor": item.anchor}


def _bind(item: Registration) -> Action:
    path = TowardAnchor.through(item.anchor, item.interface, item.gateway)
    return Bind(prefix=item.prefix, path=path, node=item.node)
