"""What a gateway lets in from its access links: sources that are bound there, and nothing else (RFC 5213 6.10.5). Pure.

    rule  5211  iif eth1: table A                 before everything but the local table
    table A     default from P: asked no further  for each P that is bound to eth1: the rules after this one decide
                default: blackhole                metric 2^31, so that any other goes first
    rule  5211  IPv4, iif eth1: uplink table      IPv4 has no routes by source: the engine drops what is not bound,
    uplink      default: blackhole                rp_filter what is bound to another link; without an IPv4 node all is
    with local routing:
    uplink      P: asked no further               the main table has the way to a node of ours

Silent, as an error would go to whomever the node claims to be. What is for this machine, or link-local, never gets
here: the local table is asked first, and link-local is not forwarded. Nodes of one link cannot be told apart.
"""

from collections.abc import Iterable

from router.links.rtnetlink import ANY, ANY_IPV4, Route, Rule
from router.links.rtnetlink_constants import RouteKind
from signaling.actions import Path, TowardAnchor
from signaling.settings import Prefix

RULE_PRIORITY = 5211  # before the rules of uplinks: a node may claim to have the address of one
LAST_RESORT = 1 << 31  # metric: any other route to the same prefix is better
FIRST_TABLE = 256  # after the uplink table; those before are of uplinks, by BID


class SourceGuard:
    """Rules and routes that a gateway wants besides those of `forwarding`.

    table: the one for uplink. links: access links that are watched; by others everything may come in.
    """

    def __init__(self, table: int, links: Iterable[str] = (), *, local_routing: bool = False) -> None:
        self._table = table
        self._tables = {name: number for number, name in enumerate(links, table + FIRST_TABLE)}
        self._local_routing = local_routing

    def watches(self, interface: str) -> bool:
        """Whether sources are looked at there."""
        return interface in self._tables

    def rules(self, interface: str) -> tuple[Rule, ...]:
        """Of an access link, to be set after its last resorts."""
        if not self.watches(interface):
            return ()
        return (
            Rule(table=self._tables[interface], priority=RULE_PRIORITY, iif=interface),
            Rule(table=self._table, priority=RULE_PRIORITY, source=ANY_IPV4, destination=ANY_IPV4, iif=interface),
        )

    def last_resorts(self, interface: str) -> tuple[Route, ...]:
        """Where everything of an access link ends that nothing lets in; that of IPv4 is the same for all."""
        return tuple(
            Route(destination=rule.destination, table=rule.table, metric=LAST_RESORT, kind=RouteKind.BLACKHOLE)
            for rule in self.rules(interface)
        )

    def doors(self, prefix: Prefix, path: Path | None) -> frozenset[Route]:
        """What lets packets from this prefix in while it takes that path, and with local routing those to it."""
        if not isinstance(path, TowardAnchor) or not path.interface:
            return frozenset()
        doors = set()
        if prefix.version == 6 and self.watches(path.interface):
            table = self._tables[path.interface]
            doors.add(Route(destination=ANY, source=prefix, table=table, kind=RouteKind.THROW))
        if self._local_routing:
            doors.add(Route(destination=prefix, table=self._table, kind=RouteKind.THROW))
        return frozenset(doors)
