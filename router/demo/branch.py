"""The world of `demo multipath`: a branch with two hosts, whose gateway reaches its anchor over two networks.

    cn 2001:db8:cccc::80
     |
    core ------------ lma           2001:db8:ff:1::/64, core ::ff, lma ::1; pool 2001:db8:1000::/48
     | wlan    | lte                2001:db8:a::1 and 2001:db8:b::1
     |         |
    [wires]  [wires]                `wire_shim`: delay, rate, loss, silence, without a change of carrier
     |         |
     | wlan0   | lte0               2001:db8:a::2 and 2001:db8:b::2, a default route by each
    mag
     | acc0
    [br2]                           air, as in `topology`
     :     :
    h1     h2                       stock kernel hosts, SLAAC

Neighbours on the wires are fixed: silence stands for trouble somewhere beyond the first hop, where no neighbour
discovery of our hosts would notice, or be disturbed by it.
"""

from dataclasses import dataclass
from ipaddress import IPv6Address, IPv6Network

from router.demo.lab import Host, connect
from router.demo.topology import Scene, pool, underlay_address, without_ipv6
from router.demo.wire_shim import Conditions, Wires, whole_frames
from router.links.netlink import Neighbor, Route
from router.links.rtnetlink_constants import RouteProtocol

ANCHOR, GATEWAY, HOSTS = "lma", "mag", ("h1", "h2")
ANCHOR_ADDRESS = underlay_address(1)
POOL: IPv6Network = pool(1)
QUEUE = 0.1  # s of a wire's rate: what waits longer in it only makes all wait longer
EVERYWHERE = IPv6Network("::/0")


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """One of the networks that the gateway is connected to."""

    name: str
    binding_id: int
    label: int
    technology: str  # as the configuration of a MAG has it
    rate: float  # Mbit/s
    delay: float  # ms, each way
    network: IPv6Network
    metric: int  # of its default route

    @property
    def interface(self) -> str:
        """Of the gateway."""
        return f"{self.name}0"

    @property
    def core_address(self) -> IPv6Address:
        """Of the core."""
        return self.network[1]

    @property
    def gateway_address(self) -> IPv6Address:
        """Of the gateway: one end of its tunnel."""
        return self.network[2]

    def toward(self, host: str) -> str:
        """The interface by which the wire leads to the core or to the gateway."""
        return f"{self.name}-{host}"


WLAN = Access(
    name="wlan",
    binding_id=1,
    label=9,
    technology="ieee-802-11",
    rate=50.0,
    delay=20.0,
    network=IPv6Network("2001:db8:a::/64"),
    metric=100,
)
LTE = Access(
    name="lte",
    binding_id=2,
    label=11,
    technology="gpp-e-utran",
    rate=20.0,
    delay=50.0,
    network=IPv6Network("2001:db8:b::/64"),
    metric=200,
)
ACCESSES = (WLAN, LTE)


class Branch(Scene):
    """The hosts above; `wires` changes what is between them."""

    def __init__(self, *, mtu: int = 1500, seed: int = 0) -> None:
        self._seed = seed
        super().__init__(routers=(ANCHOR, GATEWAY), nodes=HOSTS, mtu=mtu)

    def restore(self) -> None:
        """Both wires as they are on a good day."""
        for access in ACCESSES:
            self.wires.set(access.name, conditions(access.rate, access.delay))

    def equal_paths(self, *, rate: float, delay: float) -> None:
        """Both wires alike. rate: Mbit/s; delay: ms."""
        for access in ACCESSES:
            self.wires.set(access.name, conditions(rate, delay))

    def silence(self, access: Access) -> float:
        """Nothing passes any more, and nobody is told. When: CLOCK_REALTIME, s."""
        return self.wires.change(access.name, silent=True)

    def speak(self, access: Access) -> float:
        """The end of silence. When: CLOCK_REALTIME, s."""
        return self.wires.change(access.name, silent=False)

    def carried(self, access: Access, toward: str = GATEWAY) -> tuple[int, int]:
        """Packets and octets that a wire has carried so far, toward the gateway or the core."""
        counts = self.wires.report()["wires"][access.name][access.toward(toward)]
        return counts["carried"], counts["octets"]

    def _connect_routers(self, mtu: int) -> None:
        self._join_core(1, ANCHOR, mtu)
        self._route_pool(1)
        without_ipv6(self.lab.host("wires"))
        for access in ACCESSES:
            self._lay(access, mtu)
        ends = {access.name: (access.toward("core"), access.toward(GATEWAY)) for access in ACCESSES}
        self.wires = Wires(self.lab["wires"], ends, seed=self._seed)
        self.restore()
        self.air.add_router(2, self.lab[GATEWAY], mtu)

    def _lay(self, access: Access, mtu: int) -> None:
        """A cable from either side to the host of the wires, and what is at its ends."""
        wires, core, gateway = self.lab["wires"], self.lab["core"], self.lab[GATEWAY]
        connect(wires, access.toward("core"), core, access.name, mtu=mtu)
        connect(wires, access.toward(GATEWAY), gateway, access.interface, mtu=mtu)
        whole_frames(core, access.name)
        whole_frames(gateway, access.interface)
        core.address(access.name, f"{access.core_address}/64")
        gateway.address(access.interface, f"{access.gateway_address}/64")
        introduce(core, access.name, gateway, access.interface, access.gateway_address)
        introduce(gateway, access.interface, core, access.name, access.core_address)
        gateway.netlink.replace_route(
            Route(
                destination=EVERYWHERE,
                gateway=access.core_address,
                oif=gateway.link(access.interface).index,
                metric=access.metric,
                protocol=RouteProtocol.STATIC,
            )
        )


def conditions(rate: float, delay: float) -> Conditions:
    """Of a wire. rate: Mbit/s; delay: ms."""
    return Conditions(rate=rate, delay=delay, queue_octets=max(20_000, int(rate * 1e6 / 8 * QUEUE)))


def introduce(host: Host, interface: str, neighbor: Host, at: str, address: IPv6Address) -> None:
    """Tell a host for good who has an address."""
    index, link_layer = host.link(interface).index, neighbor.link(at).link_layer
    host.netlink.replace_neighbor(Neighbor(index=index, address=address, link_layer=link_layer))
