"""Anchors that are dragged along, let go when nobody uses them, and lost when their routers die.

    cn --- core --+-- mar1 --:
                  +-- mar2 --:-- mn
                  +-- mar3 --:
"""

import signal
from collections.abc import Callable
from ipaddress import IPv6Address, IPv6Network

from router.demo.lab import connect
from router.demo.traffic import Program
from tests.e2e.domain import NODES, Domain, Node, RouterProcess, finished, flowing, usable_at_once
from tests.eventually import eventually

MakeDomain = Callable[..., Domain]

IDLE_AFTER = 1.5  # s


def prefix(it: Domain, number: int) -> IPv6Network:
    return next(it[f"mar{number}"].pool.subnets(new_prefix=64))


def state(it: Domain, number: int) -> str:
    """Of the prefix that a router has lent."""
    return next(str(row["state"]) for row in it[f"mar{number}"].show("prefixes"))


def test_an_unused_anchor_is_let_go_on_both_routers_while_a_used_one_stays(domain: MakeDomain) -> None:
    with domain(mars=3, settings={"anchor": {"idle_after": IDLE_AFTER}}).start() as it:
        node, _, download = it.downloading()  # over the prefix of mar1, to the end
        node.attach("mar2")
        node.address(prefix(it, 2))
        node.attach("mar3")
        node.address(prefix(it, 3))
        flowing(download)

        eventually(lambda: state(it, 2) == "released", 10.0, "mar2 lets its prefix go")
        assert it["mar2"].paths() == {prefix(it, 2): ("closed", None)}
        assert it["mar2"].show("tunnels") == []
        assert prefix(it, 2) not in it["mar3"].paths()
        assert {row["remote"] for row in it["mar3"].show("tunnels")} == {str(it["mar1"].address)}
        assert (it["mar3"].counter("registrar.released"), it["mar2"].counter("anchor.released")) == (1, 1)
        eventually(lambda: node.deprecated(prefix(it, 2)), 5.0, "the node is told")

        flowing(download)
        assert state(it, 1) == "remote"
        finished(download)


def test_a_released_prefix_does_not_follow_and_is_the_nodes_again_at_its_anchor(domain: MakeDomain) -> None:
    with domain(mars=3, settings={"anchor": {"idle_after": IDLE_AFTER}}).start() as it:
        node = it.mn.no_duplicate_detection()
        node.attach("mar1")
        old = node.address(prefix(it, 1))
        node.attach("mar2")
        eventually(lambda: state(it, 1) == "released", 10.0, "mar1 lets its prefix go")
        node.attach("mar3")
        node.address(prefix(it, 3))
        it["mar3"].heard("prefix-visits", f"prefix={prefix(it, 2)}")
        assert prefix(it, 1) not in it["mar3"].paths()
        node.attach("mar1")
        eventually(lambda: it["mar1"].paths().get(prefix(it, 1)) == ("native", None), 5.0, "it is native again")
        assert node.address(prefix(it, 1)) == old
        eventually(lambda: not node.deprecated(prefix(it, 1)), 5.0, "it is preferred again")


# --- routers that die ------------------------------------------------------------------------------------------


def test_a_visited_router_that_is_killed_and_comes_again_serves_its_node_as_before(domain: MakeDomain) -> None:
    with domain().start() as it:
        node, _, download = it.downloading()
        node.attach("mar2")
        node.address(prefix(it, 2))
        flowing(download)
        known_to(it["mar1"], it["mar2"])

        it["mar2"].stop(signal.SIGKILL)
        it["mar2"].start()
        eventually(lambda: "peer-restarted" in it["mar1"].log(), 8.0, "mar1 hears that it was away")
        flowing(download, timeout=20.0)
        eventually(lambda: both_ends(it, anchor=1, visited=2), 8.0, "the tunnel stands at both ends")
        finished(download)


def test_an_anchor_that_is_killed_and_comes_again_has_its_visitors_again(domain: MakeDomain) -> None:
    with domain().start() as it:
        node, _, download = it.downloading()
        node.attach("mar2")
        node.address(prefix(it, 2))
        flowing(download)
        known_to(it["mar2"], it["mar1"])

        it["mar1"].stop(signal.SIGKILL)
        it["mar1"].start()
        eventually(lambda: "peer-restarted" in it["mar2"].log(), 8.0, "mar2 hears that it was away")
        flowing(download, timeout=20.0)
        it["mar1"].heard("pbu-received")
        eventually(lambda: both_ends(it, anchor=1, visited=2), 8.0, "the tunnel stands at both ends")
        finished(download)


def test_a_node_whose_router_was_killed_goes_on_at_another(domain: MakeDomain) -> None:
    with domain(mars=3).start() as it:
        node, _, download = it.downloading()
        node.attach("mar2")
        node.address(prefix(it, 2))
        flowing(download)
        it["mar2"].stop(signal.SIGKILL)
        node.attach("mar3")
        node.address(prefix(it, 3))
        flowing(download, timeout=20.0)
        assert both_ends(it, anchor=1, visited=3)
        finished(download)


def known_to(router: RouterProcess, peer: RouterProcess) -> None:
    """Wait until it has heard what the peer's restart counter is."""

    def heard() -> bool:
        return any(row["name"] == peer.name and row["restarts"] is not None for row in router.show("peers"))

    eventually(heard, 8.0, f"{router.name} knows {peer.name}")


def both_ends(it: Domain, *, anchor: int, visited: int) -> bool:
    """Whether the prefix of one router is tunnelled to the other, and taken there."""
    there, here = it[f"mar{anchor}"], it[f"mar{visited}"]
    return there.paths().get(prefix(it, anchor)) == ("to visited router", str(here.address)) and here.paths().get(
        prefix(it, anchor)
    ) == ("to anchor", str(there.address))


# --- nothing is lost between two links -------------------------------------------------------------------------


def test_what_waited_for_a_node_that_is_back_at_its_anchor_reaches_it_in_order(domain: MakeDomain) -> None:
    with domain(settings={"anchor": {"hold_seconds": 5.0}}).start() as it:
        node = it.mn.no_duplicate_detection()
        node.attach("mar1")
        address = node.address(prefix(it, 1))
        node.attach("mar2")
        node.address(prefix(it, 2))
        eventually(lambda: both_ends(it, anchor=1, visited=2), 5.0)
        node.leave()
        eventually(lambda: it["mar1"].paths().get(prefix(it, 1)) == ("held", None), 5.0, "mar1 waits")
        sink = it.program("mn", "udp-sink")
        sink.wait_for("ready")
        probe = it.program("cn", "udp-send", str(address), "--rate", "1000")
        probe.wait_for("ready")
        eventually(lambda: waiting(it) > 300, 5.0, "packets wait")
        waited = waiting(it)
        node.attach("mar1")
        eventually(lambda: len(arrivals(sink)) > 1500, 10.0, "packets arrive")
        probe.stop()
        eventually(lambda: waiting(it) == 0, 5.0, "nothing waits any more")
        numbers = arrivals(sink)
        assert numbers[:waited] == list(range(waited))
        assert sorted(numbers) == list(range(len(numbers)))  # one that was in the TUN may be overtaken at the end


def waiting(it: Domain) -> int:
    """Packets that wait, or waited, at the first anchor."""
    return sum(int(row["held"]) for row in it["mar1"].show("bindings"))


def arrivals(sink: Program) -> list[int]:
    """Numbers of the datagrams, as they came."""
    return [int(number) for report in sink.reports("interval") for number, _, _ in report["arrivals"]]


def test_with_both_links_up_nothing_is_lost_and_nothing_comes_twice(domain: MakeDomain) -> None:
    """A logical interface over two (RFC 7847): each answers for the address that connections use."""
    with domain() as it:
        for router in it.routers.values():
            text = router.config.read_text()
            second = f'[[node]]\nid = "{NODES[0]}"\nlink_layer = "{SECOND}"\ntakes_over = true\n'
            router.config.write_text(f"{text}\n{second}")
        it.start()
        node = it.mn.no_duplicate_detection()
        node.attach("mar1")
        address = node.address(prefix(it, 1))
        plug = second_link(it, node, address)
        sink = it.program("mn", "udp-sink")
        sink.wait_for("ready")
        probe = it.program("cn", "udp-send", str(address), "--rate", "1000")
        probe.wait_for("ready")
        eventually(lambda: len(arrivals(sink)) > 300, 5.0)

        air = it.world.air
        air.host.netlink.set_master(plug, air.bridges["mar2"])
        air.host.netlink.set_up(plug)
        air.host.netlink.set_up(air.ports["mar2"])
        eventually(lambda: both_ends(it, anchor=1, visited=2), 8.0, "it came by the second link")
        before = len(arrivals(sink))
        eventually(lambda: len(arrivals(sink)) > before + 300, 5.0)
        node.leave()  # the first link
        before = len(arrivals(sink))
        eventually(lambda: len(arrivals(sink)) > before + 300, 5.0)
        probe.stop()
        numbers = arrivals(sink)
        assert sorted(numbers) == list(range(len(numbers)))


SECOND = "02:00:00:00:00:99"


def second_link(it: Domain, node: Node, address: IPv6Address) -> int:
    """Give the node another interface that has its address too. Returns the index of its end in the air."""
    connect(it.world.air.host, "node9", node.host, "radio1", mtu=1500, switched_on=False)
    node.host.link_layer("radio1", SECOND)
    usable_at_once(node.host, "radio1")
    node.host.link_up("radio1")
    node.host.address("radio1", f"{address}/128")
    return it.world.air.host.link("node9").index
