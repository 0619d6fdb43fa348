"""The world of `demo handover --pmip`: one anchor, two gateways, a node that moves between them.

    cn 2001:db8:cccc::80
     |
    core
     | lma          | mag1         | mag2
     | core0        | core0        | core0        2001:db8:ff:K::/64, core ::ff, router ::1; lma is 1, magN is N + 1
    lma            mag1           mag2            pool 2001:db8:1000::/48 is routed to the lma
                    | acc0         | acc0
                   [br2]          [br3]           air, as in `topology`
                    : node0
                    mn
"""

from ipaddress import IPv6Address, IPv6Network

from router.demo.topology import Scene, node_names, pool, underlay_address

ANCHOR, GATEWAYS = "lma", ("mag1", "mag2")
POOL: IPv6Network = pool(1)
UNDERLAY: dict[str, IPv6Address] = {
    name: underlay_address(number) for number, name in enumerate((ANCHOR, *GATEWAYS), 1)
}
NAMES: dict[str, str] = {str(address): name for name, address in UNDERLAY.items()}


class ProxyWorld(Scene):
    """The hosts above. nodes: how many."""

    def __init__(self, *, nodes: int = 1, mtu: int = 1500) -> None:
        super().__init__(routers=(ANCHOR, *GATEWAYS), nodes=node_names(nodes), mtu=mtu)

    def _connect_routers(self, mtu: int) -> None:
        for number, name in enumerate(self.routers, 1):
            self._join_core(number, name, mtu)
            if name in GATEWAYS:
                self.air.add_router(number, self.lab[name], mtu)
        self._route_pool(1)
