"""The life of a stock host between three routers, with connections that nobody notices moving.

    cn --- core --+-- mar1 --:                       mn: 02:00:00:00:00:11, SLAAC, nothing of ours
                  +-- mar2 --:-- mn                  mar1 -> mar2 -> mar3 -> mar1
                  +-- mar3 --:
"""

from collections.abc import Callable
from ipaddress import IPv6Network

import pytest

from router.demo.capture import read_packets
from router.demo.topology import CN_ADDRESS
from router.demo.traffic import Program
from tests.e2e.domain import NODES, ROUTER_ADDRESS, Domain, Node, finished, flowing
from tests.eventually import eventually

MakeDomain = Callable[..., Domain]

UDP_RATE = 1000.0  # datagrams/s
# datagrams in one move, at that rate, beside those sent while the link was down and its router not told: a link within
# one kernel loses all from when its other end begins to go, and tells of it when RCU and the one network lock let it
MOST_LOST = 50
MOST_UNTOLD = 1000  # those of a second


def losses(sink: Program) -> int:
    return sum(int(report["lost"]) for report in sink.reports("interval"))


def last_arrival(sink: Program) -> int:
    reports = sink.reports("interval")
    return int(reports[-1]["arrivals"][-1][0]) if reports else -1


def arriving(sink: Program, more: int = 200) -> None:
    begin = last_arrival(sink)
    eventually(lambda: last_arrival(sink) > begin + more, 5.0, "datagrams arrive")


def prefix(domain: Domain, number: int) -> IPv6Network:
    return next(domain[f"mar{number}"].pool.subnets(new_prefix=64))


def check_who_carries_what(domain: Domain, at: int, visited: list[int]) -> None:
    """Each prefix goes from its anchor straight to where the node is, and no other router has to do with it."""
    here = domain[f"mar{at}"]
    expected = {f"mar{number}": {} for number in (1, 2, 3)}
    expected[here.name][prefix(domain, at)] = ("native", None)
    for number in visited:
        anchor = domain[f"mar{number}"]
        expected[here.name][prefix(domain, number)] = ("to anchor", str(anchor.address))
        expected[anchor.name][prefix(domain, number)] = ("to visited router", str(here.address))
    for name, paths in expected.items():
        eventually(lambda n=name, p=paths: domain[n].paths() == p, 5.0, f"{name} has {paths}")
    for name, paths in expected.items():
        used = {peer for _, peer in paths.values() if peer}
        assert {row["remote"] for row in domain[name].show("tunnels") if row["prefixes"]} == used


def carried(before: dict[str, int], after: dict[str, int]) -> int:
    """Packets the engine met in between; those the kernel itself sends into every device do not count."""

    def met(counters: dict[str, int]) -> int:
        found = (counters.get(f"engine.packets_from_{where}", 0) for where in ("tun", "underlay"))
        return sum(found) - counters.get("engine.drop.bad_source", 0)

    return met(after) - met(before)


def check_new_connections(domain: Domain, node: Node, at: int) -> None:
    """What begins now uses the prefix of this router; what the node had before is for old connections only."""
    here = prefix(domain, at)
    address = node.address(here)
    eventually(lambda: not node.deprecated(here), 5.0, f"{address} is preferred")
    for number in {1, 2, 3} - {at}:
        if node.addresses(prefix(domain, number)):
            eventually(lambda n=number: node.deprecated(prefix(domain, n)), 5.0, f"prefix of mar{number} is deprecated")
    node.begins_from(address)


@pytest.mark.parametrize(
    ("encapsulation", "signaling"),
    [("udp", "mh"), ("ip", "udp"), ("gre", "mh")],
    ids=["udp-tunnels", "ip-tunnels", "gre-tunnels"],
)
def test_connections_survive_a_walk_over_three_routers_and_back(
    domain: MakeDomain, encapsulation: str, signaling: str, record_property: Callable[[str, object], None]
) -> None:
    underlay = {"encapsulation": encapsulation, "signaling": signaling}
    anchor = {"hold_seconds": 5.0}  # a move may take long on a machine that runs other tests too
    with domain(mars=3, settings={"underlay": underlay, "anchor": anchor}).start() as it:
        node = it.mn
        node.attach("mar1")
        address = node.address(prefix(it, 1))
        assert address.packed[8:] == bytes.fromhex("000000fffe000011")  # SLAAC, from the link-layer address
        assert node.default_gateways() == [ROUTER_ADDRESS]
        assert it["mar1"].nodes() == [NODES[0]]

        it.serve()
        download = it.download()
        upload = it.program("mn", "tcp-put", str(CN_ADDRESS), "--rate", "2")
        upload.wait_for("connected")
        sink = it.program("mn", "udp-sink")
        sink.wait_for("ready")
        probe = it.program("cn", "udp-send", str(address), "--rate", f"{UDP_RATE:g}")
        probe.wait_for("ready")
        flowing(download)
        arriving(sink)
        check_who_carries_what(it, at=1, visited=[])

        lost, untold = [], []
        for at, left, visited in ((2, 1, [1]), (3, 2, [1, 2]), (1, 3, [2, 3])):
            before = losses(sink)
            handover = node.attach(f"mar{at}")
            arriving(sink)
            lost.append(losses(sink) - before)
            untold.append(round(UDP_RATE * (it[f"mar{left}"].said_at("link-lost") - handover.broken)))
            check_who_carries_what(it, at=at, visited=visited)
            check_new_connections(it, node, at)
            flowing(download)
        record_property("lost", lost)
        print("lost", lost, "untold", untold)
        assert max(untold) <= MOST_UNTOLD
        assert all(here <= MOST_LOST + there for here, there in zip(lost, untold, strict=True)), (lost, untold)
        assert node.default_gateways() == [ROUTER_ADDRESS]

        probe.stop()
        up, down = upload.stop(), download.stop()
        assert (down["error"], down["corrupt"], down["source"]) == ("", 0, str(address))
        assert (up["error"], up["corrupt"], up["source"]) == ("", 0, str(address))
        assert up["octets"] == up["sent"] > 0
        assert sink.stop()["duplicates"] == 0
        for router in it.routers.values():  # nothing came before its tunnel was known, or after it was forgotten
            assert router.counter("engine.drop.unknown_tunnel") == 0


def test_packets_of_a_node_at_its_anchor_never_meet_the_tun(domain: MakeDomain) -> None:
    with domain(mars=2).start() as it:
        it.mn.no_duplicate_detection().attach("mar1")
        it.mn.address(it["mar1"].pool)
        it.serve()
        tun, file = it.capture("mar1", "openmar0")
        before = it["mar1"].counters()
        download = it.download()
        flowing(download, 1_000_000)
        download.stop()
        assert carried(before, it["mar1"].counters()) == 0
        tun.stop()
        addresses = {end for packet in read_packets(file) for end in (packet.source, packet.destination)}
        assert CN_ADDRESS not in addresses
        assert it["mar1"].show("tunnels") == []


def test_a_node_back_at_its_anchor_is_native_again(domain: MakeDomain) -> None:
    with domain(mars=2).start() as it:
        mar1 = it["mar1"]
        node, address, download = it.downloading()
        flowing(download)
        node.attach("mar2")
        flowing(download)
        assert mar1.counter("engine.packets_to_underlay") > 0
        node.attach("mar1")
        eventually(lambda: mar1.paths()[prefix(it, 1)] == ("native", None))

        def native() -> bool:  # what was on its way through the tunnel comes first
            before = mar1.counters()
            flowing(download, 1_000_000)
            return carried(before, mar1.counters()) == 0

        eventually(native, 10.0, "the engine has no part in it any more")
        assert finished(download)["source"] == str(address)
