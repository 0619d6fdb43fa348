"""What happens to a router whose interfaces come and go while it runs.

    cn --- core --+-- mar1 --:      core0, acc0 and the TUN are taken away and given back
                  +-- mar2 --:-- mn
"""

from collections.abc import Callable
from ipaddress import IPv6Network

from router.demo.lab import connect
from router.demo.topology import underlay_address, underlay_gateway
from router.errors import ExitCode
from tests.e2e.domain import NODES, Domain, finished, flowing
from tests.e2e.test_stopping import check_same, snapshot, snapshot_with_carrier
from tests.eventually import eventually

MakeDomain = Callable[..., Domain]


def replug(it: Domain, number: int) -> None:
    """Take the access interface of a MAR out of the machine, and put another one of the same name in."""
    mar, air = it.world[f"mar{number}"], it.world["air"]
    mar.netlink.delete_link(mar.link("acc0").index)
    connect(air, f"acc{number}", mar, "acc0", switched_on=False)
    air.netlink.set_master(air.link(f"acc{number}").index, air.link(f"br{number}").index)
    it.world.air.ports[f"mar{number}"] = air.link(f"acc{number}").index


def test_an_access_interface_that_is_removed_and_made_again(domain: MakeDomain) -> None:
    with domain(mars=1).start() as it:
        mar1 = it["mar1"]
        node, address, download = it.downloading()
        flowing(download)
        first = mar1.host.link("acc0").index
        replug(it, 1)
        mar1.heard("link-lost", "acc0")
        mar1.heard("detached", NODES[0], "link lost")
        node.attach("mar1")
        eventually(lambda: mar1.nodes() == [NODES[0]], 5.0, "it is attached again")
        assert mar1.host.link("acc0").index != first
        assert mar1.host.link("acc0").link_layer == bytes.fromhex("00005e005213")
        flowing(download)
        assert finished(download)["source"] == str(address)
        assert mar1.stop() == 0


def test_an_access_interface_switched_off_and_on(domain: MakeDomain) -> None:
    """The kernel forgets its addresses and routes; the router does not."""
    with domain().start() as it:
        node, mar1, mar2 = it.mn.no_duplicate_detection(), it["mar1"], it["mar2"]
        it.serve()
        node.attach("mar1")
        node.address(mar1.pool)
        node.attach("mar2")
        address = node.address(mar2.pool)
        download = it.download()
        flowing(download)
        for _ in range(2):
            mar2.host.link_down("acc0")
            eventually(lambda: mar2.nodes() == [], 5.0, "nobody is there")
            mar2.host.link_up("acc0")
            eventually(lambda: mar2.nodes() == [NODES[0]], 5.0, "it is attached again")
            flowing(download)
        eventually(lambda: len(mar2.paths()) == 2, 5.0, "both prefixes")
        eventually(
            lambda: {path for path, _ in mar2.paths().values()} == {"native", "to anchor"}, 5.0, "and both delivered"
        )
        assert finished(download)["source"] == str(address)


def test_an_access_interface_that_is_there_but_off_at_the_start_is_switched_off_at_the_end(domain: MakeDomain) -> None:
    with domain(mars=1) as it:
        mar1 = it["mar1"]
        mar1.host.link_down("acc0")
        before = snapshot(mar1.host)
        it.start()
        it.mn.no_duplicate_detection().attach("mar1")
        it.mn.address(mar1.pool)
        assert mar1.stop() == 0
        it.mn.leave()
        check_same(before, snapshot(mar1.host))


def test_an_underlay_address_that_is_removed_and_added_again(domain: MakeDomain) -> None:
    with domain().start() as it:
        mar1 = it["mar1"]
        node, address, download = it.downloading()
        node.attach("mar2")
        flowing(download)
        netlink = mar1.host.netlink
        held = next(item for item in netlink.addresses() if item.address == underlay_address(1))
        netlink.delete_address(held)
        eventually(lambda: f"underlay address {underlay_address(1)} was removed" in mar1.log(), 5.0)
        mar1.host.address("core0", f"{underlay_address(1)}/64")
        eventually(lambda: f"underlay address {underlay_address(1)} is back" in mar1.log(), 5.0)
        mar1.host.route("::/0", via=str(underlay_gateway(1)))
        flowing(download)
        node.attach("mar1")  # signalling works too
        eventually(lambda: ("native", None) in mar1.paths().values(), 5.0)
        node.attach("mar2")
        flowing(download)
        assert finished(download)["source"] == str(address)


def test_the_underlay_switched_off_and_on(domain: MakeDomain) -> None:
    with domain().start() as it:
        mar1 = it["mar1"]
        node, address, download = it.downloading()
        node.attach("mar2")
        flowing(download)
        core = it.world["core"]
        core.link_down("mar1")
        eventually(lambda: not mar1.host.link("core0").carrier, 5.0, "no carrier")
        core.link_up("mar1")
        core.address("mar1", f"{underlay_gateway(1)}/64")
        core.route(str(mar1.pool), via=str(underlay_address(1)))
        flowing(download)
        assert finished(download)["source"] == str(address)


def test_a_tun_device_that_is_taken_away_ends_the_router(domain: MakeDomain) -> None:
    with domain(mars=1) as it:
        mar1 = it["mar1"]
        before = snapshot_with_carrier(it)
        it.start()
        mar1.host.netlink.delete_link(mar1.host.link("openmar0").index)
        assert mar1.process.wait(5.0) == ExitCode.IN_USE
        said = mar1.log().splitlines()
        assert said[-1].startswith("openmar: ")
        assert "tun openmar0" in said[-1]
        assert "start it again" in said[-1]
        check_same(before, snapshot(mar1.host))


def test_a_tun_device_switched_off_and_on(domain: MakeDomain) -> None:
    """The kernel forgets the routes through it; the router does not."""
    with domain().start() as it:
        mars = it.routers.values()
        node, address, download = it.downloading()
        node.attach("mar2")
        flowing(download)
        for router in mars:
            router.host.link_down("openmar0")
            router.host.link_up("openmar0")
            flowing(download)
        assert finished(download)["source"] == str(address)


def test_a_prefix_route_that_somebody_removed_comes_back_with_the_next_move(domain: MakeDomain) -> None:
    with domain().start() as it:
        mar1 = it["mar1"]
        node, address, download = it.downloading()
        prefix = IPv6Network((address, 64), strict=False)
        for route in mar1.host.netlink.routes():
            if route.destination == prefix:
                mar1.host.netlink.delete_route(route)
        node.attach("mar2")
        flowing(download)
        assert mar1.stop() == 0
        assert not [route for route in mar1.host.netlink.routes() if route.destination == prefix]
        download.stop()


def test_two_access_interfaces_of_one_router(domain: MakeDomain) -> None:
    """A node that changes the interface, and not the router, keeps its prefix; nobody is told."""
    with domain(mars=2, settings={"access": {"interfaces": ["acc0", "acc9"]}}) as it:
        mar1, air = it["mar1"], it.world["air"]
        for number in (1, 2):
            mar = it.world[f"mar{number}"]
            connect(air, f"acc9{number}", mar, "acc9", switched_on=False)
        air.netlink.create_link("br9", "bridge")
        air.link_up("br9")
        air.netlink.set_master(air.link("acc91").index, air.link("br9").index)
        it.start().serve()
        node = it.mn.no_duplicate_detection()
        node.attach("mar1")
        address = node.address(mar1.pool)
        download = it.download()
        flowing(download)
        it.world.air.bridges["other"], it.world.air.ports["other"] = air.link("br9").index, air.link("acc91").index
        node.attach("other")
        eventually(lambda: [row["interface"] for row in mar1.show("nodes")] == ["acc9"], 5.0, "it is on the other link")
        flowing(download)
        assert finished(download)["source"] == str(address)
        assert mar1.counter("sent.BindingUpdate") == 0
