"""A router that is to go, in good time: `python -m router drain`.

    cn --- core --+-- mar1 --:-- mn
                  +-- mar2 --:   mn2
"""

import subprocess
import sys
from collections.abc import Callable
from ipaddress import IPv6Network

from router.demo.lab import PROJECT
from tests.e2e.domain import NODES, Domain, RouterProcess, finished, flowing
from tests.eventually import eventually

MakeDomain = Callable[..., Domain]


def order(it: Domain, router: RouterProcess, *arguments: str) -> str:
    """The command line, and what it says."""
    socket = str(it.directory / f"{router.name}.sock")
    command = [sys.executable, "-m", "router", "drain", *arguments, "--socket", socket]
    return subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True, timeout=20.0).stdout.strip()


def draining(router: RouterProcess) -> str:
    (row,) = (row for row in router.show("config") if row["key"] == "draining")
    return str(row["value"])


def ended(router: RouterProcess, timeout: float = 10.0) -> None:
    eventually(lambda: router.process.poll() is not None, timeout, f"{router.name} ends")
    assert router.process.returncode == 0, router.log()
    assert "Traceback" not in router.log()


def test_nodes_go_elsewhere_and_their_connections_with_them(domain: MakeDomain) -> None:
    with domain(nodes=2).start() as it:
        it.serve()
        node, other, mar1, mar2 = it.mn.no_duplicate_detection(), it.nodes["mn2"], it["mar1"], it["mar2"]
        node.attach("mar1")
        old = node.address(mar1.pool)
        prefix = IPv6Network((old, 64), strict=False)
        download = it.download()
        flowing(download)

        assert order(it, mar1) == "draining: since 0 s: 1 node here, 1 prefix in use"
        eventually(lambda: node.deprecated(prefix), 5.0, "its address is for old connections only")
        other.attach("mar1")
        mar1.heard("attach-refused", f"node={NODES[1]}")
        flowing(download)  # on the only router there is for it
        assert (mar1.nodes(), other.addresses(mar1.pool)) == ([NODES[0]], {})
        assert mar1.counter("drain.refused") >= 1

        node.attach("mar2")
        node.address(mar2.pool)
        eventually(lambda: mar1.paths().get(prefix) == ("to visited router", str(mar2.address)), 5.0)
        assert node.connect().source == str(node.address(mar2.pool))
        flowing(download)
        eventually(lambda: draining(mar1).endswith("0 nodes here, 1 prefix in use"), 5.0, "the node is missed")
        assert finished(download)["source"] == str(old)

        order(it, mar1, "--within", "0.5")
        ended(mar1)
        assert mar1.lines("drained") != []


def test_it_ends_when_nobody_needs_it(domain: MakeDomain) -> None:
    with domain(mars=1, settings={"anchor": {"guard": 1.0}}).start() as it:
        node, mar1 = it.mn.no_duplicate_detection(), it["mar1"]
        node.attach("mar1")
        node.address(mar1.pool)
        order(it, mar1)
        node.leave()
        ended(mar1)
        assert not any(link.name == "openmar0" for link in mar1.host.netlink.links())


def test_a_drain_that_is_cancelled_leaves_everything_as_it_was(domain: MakeDomain) -> None:
    with domain(mars=1, nodes=2).start() as it:
        node, other, mar1 = it.mn.no_duplicate_detection(), it.nodes["mn2"].no_duplicate_detection(), it["mar1"]
        node.attach("mar1")
        prefix = IPv6Network((node.address(mar1.pool), 64), strict=False)
        order(it, mar1, "--within", "60")
        other.attach("mar1")
        mar1.heard("attach-refused")
        assert order(it, mar1, "--cancel") == "draining: no"
        eventually(lambda: not node.deprecated(prefix), 5.0, "it is preferred again")
        other.address(mar1.pool)  # it was asked again
        assert sorted(mar1.nodes()) == sorted(NODES)
