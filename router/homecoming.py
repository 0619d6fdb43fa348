"""A node is back at the router that anchors its prefix: what waited for it there, and still comes, reaches it in order.

    packets wait        P -> tun            engine: back into the TUN         out of the TUN: P -> access link
    none waits          P -> access link    the same, for what lies in the TUN
    a moment later      P -> access link

The kernel takes over only when the last packet that waited has gone: none that it forwards natively overtakes one of
those. Only what lies in the TUN at that very moment may come a moment late.
"""

import errno
from collections.abc import Callable
from dataclasses import dataclass

from engine import Tables
from engine.tables import Prefix
from router.links.netlink import Netlink, NetlinkError
from router.links.rtnetlink import Route, Rule
from router.rounds import Later, Rounds

GONE = {errno.ESRCH, errno.ENOENT, errno.ENODEV}
LOOK_EVERY = 0.005  # s
LOOKS = 2  # after the kernel took over: the first may come before the loop has read what lies in the TUN


@dataclass(slots=True, kw_only=True)
class Homecoming:
    """Of one prefix. rule, route: of what comes out of the TUN, which must not be sent there again."""

    rule: Rule
    route: Route
    take_over: Callable[[], None]  # let the kernel deliver
    settle: Callable[[], None]  # let what comes wait, should the node leave again
    looks: int = 0  # since it does


class Homecomings:
    """Those under way. later: calls a function after so many seconds."""

    def __init__(self, netlink: Netlink, tables: Tables, later: Later) -> None:
        self._netlink = netlink
        self._tables = tables
        self._under_way: dict[Prefix, Homecoming] = {}
        self._rounds = Rounds(later, LOOK_EVERY, self._look)

    @property
    def under_way(self) -> bool:
        """Whether there are any."""
        return bool(self._under_way)

    def begin(
        self, prefix: Prefix, rule: Rule, route: Route, take_over: Callable[[], None], settle: Callable[[], None]
    ) -> None:
        """The node of that prefix is on an access link of ours. Raises NetlinkError: it has to be done at once."""
        self._netlink.replace_route(route)
        self._netlink.add_rule(rule)
        self._tables.bring_home(prefix)
        self._under_way[prefix] = Homecoming(rule=rule, route=route, take_over=take_over, settle=settle)
        self._rounds.begin()

    def end(self, prefix: Prefix) -> bool:
        """Whatever comes next, this is over. True: the kernel has not taken over yet, the engine has the prefix."""
        found = self._under_way.pop(prefix, None)
        if found is None:
            return False
        if found.looks:
            found.settle()
        self._undo(lambda: self._netlink.delete_rule(found.rule))
        self._undo(lambda: self._netlink.delete_route(found.route))
        return not found.looks

    def _look(self) -> bool:
        for prefix, item in list(self._under_way.items()):
            if item.looks >= LOOKS:
                self.end(prefix)
            elif item.looks:
                item.looks += 1
            elif self._tables.held(prefix) is None:
                item.take_over()
                item.looks = 1
        return bool(self._under_way)

    def _undo(self, change: Callable[[], None]) -> None:
        try:
            change()
        except NetlinkError as error:
            if error.errno not in GONE:  # with its interface
                raise
