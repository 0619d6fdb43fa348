"""Uplinks: what is decided, and what the kernel does with packets that have the address of one.

core --w1 ======= eth0-- mag --access     each uplink has its own network and its own way to the rest of the world
core --w2 ======= lte0-- mag
"""

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import pytest
import uvloop

from router.demo.lab import Host, Lab, available, connect
from router.links.netlink import ROUTE_PROTOCOL, Address, AddressFlag, Netlink, NetlinkError, Route, RouteKind
from router.links.rtnetlink import NextHop
from router.links.rtnetlink_constants import RouteProtocol, Table
from router.uplinks import LAST_RESORT, MOST_ROUTES, State, Uplinks, choose, copied, leads
from signaling.events import UplinkDown, UplinkUp
from signaling.settings import Uplink
from tests.eventually import becomes

IPV6, IPV4 = socket.AF_INET6, socket.AF_INET
BOTH = (IPV6, IPV4)
DEFAULT = IPv6Network("::/0")


def address(text: str, *flags: AddressFlag) -> Address:
    value = IPv6Address(text) if ":" in text else IPv4Address(text)
    combined = AddressFlag(0)
    for flag in flags:
        combined |= flag
    return Address(index=7, address=value, flags=combined)


# Which address


ADDRESSES = [
    address("fe80::1"),
    address("2001:db8::bad", AddressFlag.TENTATIVE),
    address("2001:db8::5", AddressFlag.DEPRECATED),
    address("2001:db8::4", AddressFlag.TEMPORARY),
    address("192.0.2.1"),
    address("2001:db8::2"),
    address("2001:db8::3"),
]


def test_the_best_address_is_one_that_stays_of_the_preferred_family() -> None:
    assert choose(ADDRESSES, None, None, BOTH) == IPv6Address("2001:db8::2")
    assert choose(ADDRESSES, None, None, (IPV4, IPV6)) == IPv4Address("192.0.2.1")
    assert choose(ADDRESSES[:5], None, None, (IPV6,)) == IPv6Address("2001:db8::4")
    assert choose(ADDRESSES[:3], None, None, BOTH) == IPv6Address("2001:db8::5")


def test_an_address_in_use_stays_while_it_lasts() -> None:
    now = IPv6Address("2001:db8::5")
    assert choose(ADDRESSES, None, now, BOTH) == now
    assert choose(ADDRESSES[5:], None, now, BOTH) == IPv6Address("2001:db8::2")


def test_a_configured_address_is_the_only_one() -> None:
    assert choose(ADDRESSES, IPv6Address("2001:db8::3"), None, BOTH) == IPv6Address("2001:db8::3")
    assert choose(ADDRESSES, IPv6Address("2001:db8::9"), None, BOTH) is None


def test_an_address_that_cannot_be_used_is_none() -> None:
    assert choose(ADDRESSES[:2], None, None, BOTH) is None
    assert choose([address("192.0.2.1")], None, None, (IPV6,)) is None


# What is told


HERE, ELSEWHERE = IPv6Address("2001:db8::2"), IPv6Address("2001:db8::3")


def state(**now: object) -> State:
    made = State(Uplink(interface="wan0", binding_id=1), table=5437)
    for name, value in now.items():
        setattr(made, name, value)
    return made


def test_an_uplink_is_up_with_a_carrier_and_an_address() -> None:
    assert state(carrier=True).news() == state(address=HERE).news() == []
    assert state(carrier=True, address=HERE).news() == [UplinkUp(interface="wan0", address=HERE)]


def test_an_uplink_that_leads_nowhere_yet_is_not_told() -> None:
    waiting = state(carrier=True, address=HERE, leads=False)
    assert waiting.news() == []
    waiting.leads = True
    assert waiting.news() == [UplinkUp(interface="wan0", address=HERE)]
    waiting.leads = False
    assert waiting.news() == []  # probes notice that, and when the way is back


def test_a_way_leads_to_an_anchor_of_its_family() -> None:
    anchors = (FAR, IPv4Address("198.51.100.1"))
    unreachable = route(kind=RouteKind.UNREACHABLE)
    assert leads([], ())
    assert leads([unreachable, route("3fff::/20", oif=7)], anchors)
    assert not leads([unreachable, route("2001:db8:1::/64", oif=7)], anchors)
    assert not leads([Route(destination=IPv4Network("192.0.2.0/24"), oif=7)], anchors)
    assert leads([Route(destination=IPv4Network("0.0.0.0/0"), oif=7)], anchors)


def test_news_are_told_once() -> None:
    up = state(carrier=True, address=HERE)
    up.news()
    assert up.news() == []
    up.carrier = False
    assert up.news() == [UplinkDown(interface="wan0")]
    assert up.news() == []


def test_another_address_is_down_and_up_again() -> None:
    up = state(carrier=True, address=ELSEWHERE, told=HERE)
    assert up.news() == [UplinkDown(interface="wan0"), UplinkUp(interface="wan0", address=ELSEWHERE)]


# What is in its table


GATEWAY = IPv6Address("fe80::9")


def route(destination: str = "::/0", **more: object) -> Route:
    return Route(destination=IPv6Network(destination), protocol=RouteProtocol.RA, **more)  # type: ignore[arg-type]


def destinations(routes: list[Route]) -> list[tuple[str, int]]:
    return [(str(prefix), metric) for prefix, metric in copied(routes, 7, 5437, IPV6)]


NOWHERE = ("::/0", LAST_RESORT)


def test_a_table_has_what_leads_through_the_uplink_and_its_end() -> None:
    found = copied([route(oif=7, gateway=GATEWAY, metric=5), route(oif=8, gateway=GATEWAY)], 7, 5437, IPV6)
    assert list(found.values()) == [
        Route(destination=DEFAULT, kind=RouteKind.UNREACHABLE, metric=LAST_RESORT, table=5437),
        Route(destination=DEFAULT, oif=7, gateway=GATEWAY, metric=5, table=5437),
    ]


def test_default_routes_of_several_metrics_are_all_there() -> None:
    assert destinations([route(oif=7, metric=5), route(oif=7, metric=9)]) == [NOWHERE, ("::/0", 5), ("::/0", 9)]


def test_one_of_several_next_hops_is_enough() -> None:
    both = route(oif=8, gateway=HERE, others=(NextHop(7, GATEWAY),))
    (_, found) = copied([both], 7, 5437, IPV6).values()
    assert (found.oif, found.gateway, found.others) == (7, GATEWAY, ())


def test_routes_of_ours_and_such_as_lead_nowhere_are_not_copied() -> None:
    ours = Route(destination=IPv6Network("2001:db8:5::/64"), oif=7, protocol=ROUTE_PROTOCOL)
    assert destinations([ours, route(oif=7, kind=RouteKind.UNREACHABLE)]) == [NOWHERE]


def test_of_very_many_routes_the_default_ones_come_first() -> None:
    many = [route(f"2001:db8:{number:x}::/48", oif=7, gateway=GATEWAY) for number in range(MOST_ROUTES)]
    found = destinations([*many, route(oif=7, gateway=GATEWAY)])
    assert len(found) == MOST_ROUTES + 1
    assert ("::/0", 1024) in found


# In the kernel


WLAN, LTE = IPv6Address("2001:db8:1::2"), IPv6Address("2001:db8:2::2")
FAR = IPv6Address("3fff::1")
WLAN4 = IPv4Address("192.0.2.2")


class Bench:
    def __init__(self, lab: Lab, stack: ExitStack) -> None:
        self.core, self.mag = lab.host("core"), lab.host("mag")
        for host in (self.core, self.mag):
            host.sysctl("net/ipv6/conf/default/accept_dad", 0)
        for number, name in ((1, "wlan0"), (2, "lte0")):
            connect(self.mag, name, self.core, f"w{number}")
        self.loop = uvloop.new_event_loop()
        stack.callback(self.loop.close)
        self.told: list[UplinkUp | UplinkDown] = []
        with self.mag.inside():
            self.uplinks = Uplinks(
                Netlink(),
                [Uplink(interface="wlan0", binding_id=1), Uplink(interface="lte0", binding_id=2)],
                table=5436,
                on_event=self.told.append,
            )
        stack.callback(self.uplinks.close)

    def configure(self) -> None:
        """Both uplinks as a host has them: an address, and a default route; that of wlan0 is preferred."""
        for name, own, metric in (("wlan0", WLAN, 100), ("lte0", LTE, 200)):
            self.mag.address(name, f"{own}/64")
            self.default(name, own - 1, metric)

    def default(self, name: str, gateway: IPv6Address, metric: int) -> None:
        self.mag.netlink.add_route(
            Route(
                destination=DEFAULT,
                oif=self.mag.link(name).index,
                gateway=gateway,
                metric=metric,
                protocol=RouteProtocol.STATIC,
            )
        )

    def hears(self, *events: UplinkUp | UplinkDown) -> bool:
        return self.becomes(lambda: self.told == list(events))

    def becomes(self, condition: Callable[[], object]) -> bool:
        return self.loop.run_until_complete(becomes(condition, 5.0))

    def way(self, source: IPv6Address) -> str:
        """The interface by which packets from there leave; "": none."""
        try:
            return self.mag.netlink.link(self.mag.netlink.route_to(FAR, source).oif).name
        except NetlinkError:
            return ""


@pytest.fixture
def bench() -> Iterator[Bench]:
    with Lab() as lab, ExitStack() as stack:
        yield Bench(lab, stack)


@pytest.fixture
def up(bench: Bench) -> Bench:
    bench.configure()
    bench.uplinks.serve(bench.loop)
    assert bench.hears(*BOTH_UP)
    bench.told.clear()
    return bench


UP = {
    "wlan0": UplinkUp(interface="wlan0", address=WLAN),
    "lte0": UplinkUp(interface="lte0", address=LTE),
}
BOTH_UP = tuple(UP.values())
needs_kernel = [
    pytest.mark.namespaces,
    pytest.mark.skipif(available() is not None, reason=str(available())),
]


class TestInTheKernel:
    pytestmark = needs_kernel

    def test_a_packet_leaves_by_the_uplink_its_address_belongs_to(self, up: Bench) -> None:
        assert (up.way(WLAN), up.way(LTE)) == ("wlan0", "lte0")

    def test_uplinks_that_are_up_at_the_start_are_told(self, up: Bench) -> None:
        assert up.uplinks.addresses() == {"wlan0": WLAN, "lte0": LTE}

    def test_an_uplink_is_told_when_there_is_a_way_to_the_anchor_by_it(self, bench: Bench) -> None:
        bench.uplinks._anchors = (FAR,)
        bench.uplinks.serve(bench.loop)
        for name, own in (("wlan0", WLAN), ("lte0", LTE)):
            bench.mag.address(name, f"{own}/64")
        bench.default("wlan0", WLAN - 1, 100)
        assert bench.hears(UP["wlan0"])
        bench.default("lte0", LTE - 1, 200)
        assert bench.hears(*BOTH_UP)
        assert bench.way(LTE) == "lte0"

    def test_routes_may_come_after_the_address(self, bench: Bench) -> None:
        bench.uplinks.serve(bench.loop)
        bench.mag.address("wlan0", f"{WLAN}/64")
        bench.mag.address("lte0", f"{LTE}/64")
        assert bench.becomes(lambda: len(bench.told) == 2)
        assert bench.way(LTE) == ""
        bench.default("wlan0", WLAN - 1, 100)
        assert bench.way(LTE) == ""  # rather no way than that of another uplink
        bench.default("lte0", LTE - 1, 200)
        assert bench.becomes(lambda: bench.way(LTE) == "lte0")

    def test_a_default_route_that_goes_takes_the_way_with_it(self, up: Bench) -> None:
        netlink = up.mag.netlink
        gone = next(each for each in netlink.routes(table=Table.MAIN) if each.gateway == LTE - 1)
        netlink.delete_route(gone)
        assert up.becomes(lambda: up.way(LTE) == "")

    def test_a_lost_carrier_is_told_and_its_return(self, up: Bench) -> None:
        up.core.link_down("w1")
        assert up.hears(UplinkDown(interface="wlan0"))
        up.core.link_up("w1")
        assert up.hears(UplinkDown(interface="wlan0"), UP["wlan0"])
        assert up.becomes(lambda: up.way(WLAN) == "wlan0")

    def test_an_uplink_that_is_switched_off_and_on_works_again(self, up: Bench) -> None:
        up.mag.link_down("lte0")
        assert up.hears(UplinkDown(interface="lte0"))
        up.mag.link_up("lte0")
        up.mag.address("lte0", f"{LTE}/64")
        assert up.hears(UplinkDown(interface="lte0"), UP["lte0"])
        up.default("lte0", LTE - 1, 200)
        assert up.becomes(lambda: up.way(LTE) == "lte0")

    def test_an_address_that_vanishes_is_down_and_the_next_one_up(self, up: Bench) -> None:
        index = up.mag.link("wlan0").index
        up.mag.address("wlan0", f"{WLAN + 1}/64")
        up.mag.netlink.delete_address(Address(index=index, address=WLAN))
        assert up.hears(UplinkDown(interface="wlan0"), UplinkUp(interface="wlan0", address=WLAN + 1))
        assert up.becomes(lambda: up.way(WLAN + 1) == "wlan0")

    def test_an_interface_that_vanishes_is_down(self, up: Bench) -> None:
        up.mag.netlink.delete_link(up.mag.link("lte0").index)
        assert up.hears(UplinkDown(interface="lte0"))

    def test_an_interface_may_come_later(self, up: Bench) -> None:
        up.mag.netlink.delete_link(up.mag.link("lte0").index)
        connect(up.mag, "lte0", up.core, "w2")
        up.mag.address("lte0", f"{LTE}/64")
        assert up.hears(UplinkDown(interface="lte0"), UP["lte0"])

    def test_an_ipv4_uplink_is_one_too(self, bench: Bench) -> None:
        bench.uplinks.serve(bench.loop)
        index = bench.mag.link("wlan0").index
        bench.mag.netlink.add_address(Address(index=index, address=WLAN4, prefixlen=24))
        assert bench.hears(UplinkUp(interface="wlan0", address=WLAN4))
        default = Route(
            destination=IPv4Network("0.0.0.0/0"), oif=index, gateway=WLAN4 - 1, protocol=RouteProtocol.STATIC
        )
        bench.mag.netlink.add_route(default)

        def learned() -> list[Route]:
            table = bench.mag.netlink.routes(table=5437, protocol=ROUTE_PROTOCOL, family=IPV4)
            return [each for each in table if each.gateway == WLAN4 - 1]

        assert bench.becomes(learned)
        (rule,) = bench.mag.netlink.rules(protocol=ROUTE_PROTOCOL, family=IPV4)
        assert (rule.source, rule.table) == (IPv4Network(WLAN4), 5437)

    def test_close_takes_everything_back(self, up: Bench) -> None:
        up.uplinks.close()
        assert ours(up.mag) == []
        assert up.told == []


def ours(host: Host) -> list[object]:
    """Rules and routes of this program."""
    netlink = host.netlink
    return [
        each
        for family in BOTH
        for each in (
            *netlink.rules(protocol=ROUTE_PROTOCOL, family=family),
            *netlink.routes(protocol=ROUTE_PROTOCOL, family=family),
        )
    ]
