"""The world of the demo: a correspondent, a core, some MARs, and air with mobile nodes in it.

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
"""

import time
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
    """The air end of a node's only interface."""

    index: int  # of the port in air
    mar: str | None = None  # where the node is


class World:
    """The hosts above, and the moves of the nodes. mars, nodes: how many."""

    def __init__(self, *, mars: int = 3, nodes: int = 1, mtu: int = 1500) -> None:
        if not 1 <= mars <= MOST_MARS:
            raise ValueError(f"{mars} MARs: between 1 and {MOST_MARS} can be told apart")
        self.lab = Lab()
        self._ports: dict[str, int] = {}  # name of a MAR -> index of accK in air
        self._bridges: dict[str, int] = {}  # name of a MAR -> index of brK in air
        self._plugs: dict[str, Plug] = {}  # name of a node -> its air end
        self.mars = [f"mar{number}" for number in range(1, mars + 1)]
        self.nodes = ["mn", *(f"mn{number}" for number in range(2, nodes + 1))][:nodes]
        try:
            self._build(mtu)
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
        """The MAR a node is attached to, or None."""
        return self._plugs[node].mar

    def attach(self, mar: str, node: str = "mn") -> Handover:
        """Move a node to that MAR, break before make."""
        netlink, plug = self.lab["air"].netlink, self._plugs[node]
        broken = self.detach(node)
        down = time.monotonic()
        netlink.set_master(plug.index, self._bridges[mar])
        netlink.set_up(plug.index)
        netlink.set_up(self._ports[mar])
        plug.mar = mar
        return Handover(broken, time.monotonic(), down)

    def detach(self, node: str = "mn") -> float:
        """Take a node off the air; the MAR it leaves loses carrier with its last node. When: monotonic s."""
        netlink, plug = self.lab["air"].netlink, self._plugs[node]
        left, plug.mar = plug.mar, None
        broken = time.monotonic()
        if left is not None and all(other.mar != left for other in self._plugs.values()):
            netlink.set_down(self._ports[left])
        netlink.set_down(plug.index)
        return broken

    # Building

    def _build(self, mtu: int) -> None:
        for name in ("cn", "core", *self.mars, "air", *self.nodes):
            self.lab.host(name)
        for kind in ("all", "default"):  # before it has any link
            self.lab["air"].sysctl(f"net/ipv6/conf/{kind}/disable_ipv6", 1)
        for fixed in ("cn", "core", *self.mars):  # addresses by hand, usable at once, link-local ones too
            self.lab[fixed].sysctl("net/ipv6/conf/default/accept_ra", 0)
            self.lab[fixed].sysctl("net/ipv6/conf/default/accept_dad", 0)
        for router in ("core", *self.mars):
            self.lab[router].sysctl("net/ipv6/conf/all/forwarding", 1)
        self._build_correspondent(mtu)
        for number, name in enumerate(self.mars, 1):
            self._build_mar(number, name, mtu)
        for number, name in enumerate(self.nodes):
            self._build_node(number, name, mtu)

    def _build_correspondent(self, mtu: int) -> None:
        cn, core = self.lab["cn"], self.lab["core"]
        connect(core, "cn0", cn, "core0", mtu=mtu)
        core.address("cn0", f"{CN_GATEWAY}/64")
        cn.address("core0", f"{CN_ADDRESS}/64")
        cn.route("::/0", via=str(CN_GATEWAY))

    def _build_mar(self, number: int, name: str, mtu: int) -> None:
        mar, core, air = self.lab[name], self.lab["core"], self.lab["air"]
        connect(core, name, mar, "core0", mtu=mtu)
        core.address(name, f"{underlay_gateway(number)}/64")
        mar.address("core0", f"{underlay_address(number)}/64")
        mar.route("::/0", via=str(underlay_gateway(number)))
        core.route(str(pool(number)), via=str(underlay_address(number)))
        self._build_access(number, name, mtu)
        self._ports[name] = air.link(f"acc{number}").index
        self._bridges[name] = air.link(f"br{number}").index

    def _build_access(self, number: int, name: str, mtu: int) -> None:
        mar, air = self.lab[name], self.lab["air"]
        connect(air, f"acc{number}", mar, "acc0", mtu=mtu, switched_on=False)
        mar.link_layer("acc0", f"02:00:00:00:0{number}:01")
        mar.link_up("acc0")
        air.netlink.create_link(f"br{number}", "bridge", PLAIN_BRIDGE)
        air.link_up(f"br{number}")
        bridge = air.link(f"br{number}").index
        air.netlink.set_master(air.link(f"acc{number}").index, bridge)

    def _build_node(self, number: int, name: str, mtu: int) -> None:
        node, air = self.lab[name], self.lab["air"]
        connect(air, f"node{number}", node, "radio0", mtu=mtu, switched_on=False)
        node.link_layer("radio0", node_link_layer(number).hex(":"))
        node.link_up("radio0")
        self._plugs[name] = Plug(air.link(f"node{number}").index)
