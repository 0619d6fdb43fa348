"""Two nodes at once, on one link and on several: each sees its own prefixes and nobody else's.

    cn --- core --+-- mar1 --:-- mn, mn2
                  +-- mar2 --:
"""

from collections.abc import Callable
from ipaddress import IPv6Network
from pathlib import Path

from router.demo.capture import read_packets
from router.demo.topology import node_link_layer
from tests.e2e.domain import NODES, Domain, Node, finished, flowing
from tests.eventually import eventually

MakeDomain = Callable[..., Domain]

ADVERTISEMENT = 134


def prefixes(node: Node) -> set[IPv6Network]:
    found = node.host.netlink.addresses(node.host.link("radio0").index)
    return {
        IPv6Network((item.address, 64), strict=False) for item in found if not item.address.is_link_local
    }


def test_two_nodes_that_move_do_not_see_each_others_prefixes(domain: MakeDomain) -> None:
    with domain(nodes=2).start() as it:
        one, two = it.nodes["mn"].no_duplicate_detection(), it.nodes["mn2"].no_duplicate_detection()
        mar1, mar2 = it["mar1"], it["mar2"]
        it.serve()
        capture, file = it.capture("mar2", "acc0")
        for node in (one, two):
            node.attach("mar1")
            node.address(mar1.pool)
        assert sorted(mar1.nodes()) == sorted(NODES)
        downloads = [it.download("mn"), it.download("mn2")]
        for node in (one, two):
            node.attach("mar2")
        for node in (one, two):
            node.address(mar2.pool)
        for download in downloads:
            flowing(download)
        eventually(lambda: len(mar2.paths()) == 4, 5.0, "two prefixes of each")
        one.attach("mar1")
        eventually(lambda: mar1.nodes() == [NODES[0]] and mar2.nodes() == [NODES[1]], 8.0, "one went back")
        for download in downloads:
            flowing(download)
        assert len(prefixes(one)) == len(prefixes(two)) == 2
        assert not prefixes(one) & prefixes(two)
        for download in downloads:
            finished(download)
        capture.stop()
        check_who_was_told(file, {node_link_layer(0): one, node_link_layer(1): two})


def check_who_was_told(file: Path, nodes: dict[bytes, Node]) -> None:
    """Every advertisement went to one node, in a frame of its own, with prefixes of its own."""
    told = 0
    for packet in read_packets(file):
        if not packet.outgoing or packet.next_header != 58 or packet.octets[54] != ADVERTISEMENT:
            continue
        node = nodes[packet.octets[:6]]
        at = 70
        while at < len(packet.octets):
            if packet.octets[at] == 3:
                told += 1
                assert IPv6Network((packet.octets[at + 16 : at + 32], packet.octets[at + 2])) in prefixes(node)
            at += packet.octets[at + 1] * 8
    assert told >= 2


def test_two_nodes_at_different_routers_reach_each_other(domain: MakeDomain) -> None:
    """One by its old address, through the tunnel; the other natively."""
    with domain(nodes=2).start() as it:
        one, two = it.nodes["mn"].no_duplicate_detection(), it.nodes["mn2"].no_duplicate_detection()
        for node in (one, two):
            node.attach("mar1")
        address = one.address(it["mar1"].pool)
        two.address(it["mar1"].pool)
        one.attach("mar2")
        eventually(lambda: "to visited router" in [path for path, _ in it["mar1"].paths().values()], 5.0)
        it.program("mn", "tcp-serve").wait_for("ready")
        transfer = it.program("mn2", "tcp-get", str(address), "--octets", "1000000", "--rate", "0")
        done = transfer.wait_for("done")
        assert (done["error"], done["corrupt"], done["octets"]) == ("", 0, 1_000_000)
