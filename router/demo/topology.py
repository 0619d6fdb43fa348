"""The world of the demo: a correspondent, a core, some MARs, and air with mobile nodes in it; what other worlds share.

    cn 2001:db8:cccc::80
     | core0
     |
     | cn0
    core                      a plain kernel router with static routes
     | mar1    | mar2    | mar3
     |         |         |                     2001:db8:ff:K::/64, core ::ff, MAR ::1
     | core0   | core0   | core0
    mar1      mar2      mar3                   pool 2001:db8:K000::/48 is routed to marK
     | acc0    | acc0    | acc0
     :         :         :                     air: one bridge per MAR, brK with port accK;
     : acc1    : acc2    : acc3                attach() moves node0 from one to the other
    [br1]     [br2]     [br3]
                 : node0
                 :
                 | radio0
                mn   02:00:00:00:00:11         a stock kernel host, SLAAC, nothing of ours on it

At first nobody is attached: the access links of all MARs have no carrier. Further nodes are mn2, mn3, ...
with the air ends node1, node2, ... and link-layer addresses that count on.

A Scene is all of this without the routers; `proxy_world` and `branch` put others in their place.
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv6Address, IPv6Network
from types import TracebackType
from typing import Self

from router.demo.lab import Host, Lab, connect
from router.links.rtnetlink import U32, attribute

CN_ADDRESS = IPv6Address("2001:db8:cccc::80")
CN_GATEWAY = IPv6Address("2001:db8:cccc::1")
MOST_MARS = 9  # the number of a MAR is one digit of its prefixes

IFLA_BR_FORWARD_DELAY = 1
IFLA_BR_STP_STATE = 5
IFLA_BR_MCAST_SNOOPING = 23
# a bridge that passes everything on from the first moment: no spanning tree, no delay, no snooping
PLAIN_BRIDGE = (
    attribute(IFLA_BR_FORWARD_DELAY, U32.pack(0))
    + attribute(IFLA_BR_STP_STATE, U32.pack(0))
    + attribute(IFLA_BR_MCAST_SNOOPING, b"\0")
)


def underlay_address(mar: int) -> IPv6Address:
    """Address of MAR number mar toward the core, the end of its tunnels."""
    return IPv6Address(f"2001:db8:ff:{mar}::1")


def underlay_gateway(mar: int) -> IPv6Address:
    """Address of the core on the link to that MAR."""
    return IPv6Address(f"2001:db8:ff:{mar}::ff")


def pool(mar: int) -> IPv6Network:
    """Prefixes that MAR lends to mobile nodes; the core routes them to it."""
    return IPv6Network(f"2001:db8:{mar}000::/48")


def node_link_layer(node: int) -> bytes:
    """Link-layer address of node number node, counted from 0."""
    return bytes([0x02, 0, 0, 0, 0, 0x11 + node])


@dataclass(frozen=True, slots=True)
class Handover:
    """When a node began to leave the old access link, had left it, and was on the new one; CLOCK_MONOTONIC, s."""

    broken: float
    made: float
    down: float  # between the two: what the node sends from here on, it sends on the new link


@dataclass(slots=True)
class Plug:
    """The air end of an interface of a node."""

    index: int  # of the port in air
    router: str | None = None  # where the node is


class Air:
    """A bridge for each router with an access link, and the nodes that move between them."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.ports: dict[str, int] = {}  # name of a router -> index of accK
        self.bridges: dict[str, int] = {}  # name of a router -> index of brK
        self._plugs: dict[str, Plug] = {}  # name of a node -> its air end

    def where(self, node: str) -> str | None:
        """The router a node is attached to, or None."""
        return self._plugs[node].router

    def attach(self, router: str, node: str) -> Handover:
        """Move a node to that router, break before make."""
        netlink, plug = self.host.netlink, self._plugs[node]
        broken = self.detach(node)
        down = time.monotonic()
        netlink.set_master(plug.index, self.bridges[router])
        netlink.set_up(plug.index)
        netlink.set_up(self.ports[router])
        plug.router = router
        return Handover(broken, time.monotonic(), down)

    def detach(self, node: str) -> float:
        """Take a node off the air; the router it leaves loses carrier with its last node. When: monotonic s."""
        netlink, plug = self.host.netlink, self._plugs[node]
        left, plug.router = plug.router, None
        broken = time.monotonic()
        if left is not None and all(other.router != left for other in self._plugs.values()):
            netlink.set_down(self.ports[left])
        netlink.set_down(plug.index)
        return broken

    def add_router(self, number: int, router: Host, mtu: int) -> None:
        """Give a router its access link acc0, without carrier."""
        connect(self.host, f"acc{number}", router, "acc0", mtu=mtu, switched_on=False)
        router.link_layer("acc0", f"02:00:00:00:0{number}:01")
        router.link_up("acc0")
        self.host.netlink.create_link(f"br{number}", "bridge", PLAIN_BRIDGE)
        self.host.link_up(f"br{number}")
        port, bridge = (self.host.link(f"{kind}{number}").index for kind in ("acc", "br"))
        self.host.netlink.set_master(port, bridge)
        self.ports[router.name], self.bridges[router.name] = port, bridge

    def add_node(self, number: int, node: Host, mtu: int, *, interface: str = "radio0", name: str = "") -> None:
        """Give a node its interface, attached to nobody. name: what to attach it by; "": the name of the node."""
        connect(self.host, f"node{number}", node, interface, mtu=mtu, switched_on=False)
        node.link_layer(interface, node_link_layer(number).hex(":"))
        node.link_up(interface)
        self._plugs[name or node.name] = Plug(self.host.link(f"node{number}").index)


class Scene(ABC):
    """A correspondent, a core, routers and nodes in the air; `_connect_routers` says how the routers are connected."""

    def __init__(self, *, routers: Sequence[str], nodes: Sequence[str], mtu: int = 1500) -> None:
        self.lab = Lab()
        self.routers = list(routers)
        self.nodes = list(nodes)
        try:
            self._build_hosts()
            self.air = Air(self.lab["air"])
            self._build_correspondent(mtu)
            self._connect_routers(mtu)
            for number, name in enumerate(self.nodes):
                self.air.add_node(number, self.lab[name], mtu)
        except BaseException:
            self.lab.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __getitem__(self, name: str) -> Host:
        return self.lab[name]

    def close(self) -> None:
        """End what runs here and let the world go."""
        self.lab.close()

    def where(self, node: str = "mn") -> str | None:
        """The router a node is attached to, or None."""
        return self.air.where(node)

    def attach(self, router: str, node: str = "mn") -> Handover:
        """Move a node to that router, break before make."""
        return self.air.attach(router, node)

    def detach(self, node: str = "mn") -> float:
        """Take a node off the air. When: monotonic s."""
        return self.air.detach(node)

    # Building

    @abstractmethod
    def _connect_routers(self, mtu: int) -> None:
        """Connect the routers of this world to the core and to the air."""

    def _build_hosts(self) -> None:
        for name in ("cn", "core", *self.routers, "air", *self.nodes):
            self.lab.host(name)
        without_ipv6(self.lab["air"])
        for fixed in ("cn", "core", *self.routers):  # addresses by hand, usable at once, link-local ones too
            self.lab[fixed].sysctl("net/ipv6/conf/default/accept_ra", 0)
            self.lab[fixed].sysctl("net/ipv6/conf/default/accept_dad", 0)
        for router in ("core", *self.routers):
            self.lab[router].sysctl("net/ipv6/conf/all/forwarding", 1)

    def _build_correspondent(self, mtu: int) -> None:
        cn, core = self.lab["cn"], self.lab["core"]
        connect(core, "cn0", cn, "core0", mtu=mtu)
        core.address("cn0", f"{CN_GATEWAY}/64")
        cn.address("core0", f"{CN_ADDRESS}/64")
        cn.route("::/0", via=str(CN_GATEWAY))

    def _join_core(self, number: int, name: str, mtu: int) -> None:
        """Connect a router to the core by a cable."""
        router, core = self.lab[name], self.lab["core"]
        connect(core, name, router, "core0", mtu=mtu)
        core.address(name, f"{underlay_gateway(number)}/64")
        router.address("core0", f"{underlay_address(number)}/64")
        router.route("::/0", via=str(underlay_gateway(number)))

    def _route_pool(self, number: int) -> None:
        """What is for the nodes of an anchor goes to it."""
        self.lab["core"].route(str(pool(number)), via=str(underlay_address(number)))


class World(Scene):
    """The hosts above, and the moves of the nodes. mars, nodes: how many."""

    def __init__(self, *, mars: int = 3, nodes: int = 1, mtu: int = 1500) -> None:
        if not 1 <= mars <= MOST_MARS:
            raise ValueError(f"{mars} MARs: between 1 and {MOST_MARS} can be told apart")
        self.mars = [f"mar{number}" for number in range(1, mars + 1)]
        super().__init__(routers=self.mars, nodes=node_names(nodes), mtu=mtu)

    def _connect_routers(self, mtu: int) -> None:
        for number, name in enumerate(self.mars, 1):
            self._join_core(number, name, mtu)
            self._route_pool(number)
            self.air.add_router(number, self.lab[name], mtu)


def node_names(nodes: int) -> list[str]:
    """mn, mn2, mn3, ..."""
    return ["mn", *(f"mn{number}" for number in range(2, nodes + 1))][:nodes]


def without_ipv6(host: Host) -> None:
    """A host that only passes frames on; to be called before it has any link."""
    for kind in ("all", "default"):
        host.sysctl(f"net/ipv6/conf/{kind}/disable_ipv6", 1)
