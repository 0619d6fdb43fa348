"""Moves while routers are stopped, cut off, or not fast enough: late is allowed, wrong and lost are not.

    cn --- core --+-- mar1 --:
                  +-- mar2 --:-- mn
                  +-- mar3 --:
"""

import random
import signal
from collections.abc import Callable
from ipaddress import IPv6Address, IPv6Network

from router.demo.topology import underlay_address, underlay_gateway
from router.demo.traffic import Program
from tests.e2e.domain import NODES, Domain, finished, flowing
from tests.eventually import eventually

MakeDomain = Callable[..., Domain]

SEED = random.randrange(1 << 32)


def begin(it: Domain) -> tuple[IPv6Address, IPv6Network, Program]:
    """A node at mar1 with a download: its address, the prefix of that, the download."""
    _, address, download = it.start().downloading()
    flowing(download)
    return address, IPv6Network((address, 64), strict=False), download


def well(download: Program, address: IPv6Address) -> None:
    assert finished(download)["source"] == str(address)


def path(it: Domain, name: str, prefix: IPv6Network) -> tuple[str, str | None] | None:
    return it[name].paths().get(prefix)


def test_an_upgrade_of_the_anchor_while_its_node_is_away(domain: MakeDomain) -> None:
    with domain() as it:
        address, prefix, download = begin(it)
        it.mn.attach("mar2")
        flowing(download)
        assert it["mar1"].stop() == 0
        it["mar1"].start()
        flowing(download)
        assert path(it, "mar1", prefix) == ("to visited router", str(underlay_address(2)))
        well(download, address)


def test_an_upgrade_of_the_anchor_while_its_node_is_there(domain: MakeDomain) -> None:
    with domain() as it:
        address, prefix, download = begin(it)
        assert it["mar1"].stop() == 0
        it["mar1"].start()
        flowing(download)
        assert path(it, "mar1", prefix) == ("native", None)
        eventually(lambda: not it.mn.deprecated(prefix), 5.0, "it is preferred again")
        assert it.mn.connect().source == str(address)
        well(download, address)


def test_an_upgrade_of_the_router_a_node_visits(domain: MakeDomain) -> None:
    with domain() as it:
        address, prefix, download = begin(it)
        it.mn.attach("mar2")
        flowing(download)
        assert it["mar2"].stop() == 0
        it["mar1"].heard("pbu-received", "lifetime=0")
        it["mar2"].start()
        flowing(download)
        assert path(it, "mar1", prefix) == ("to visited router", str(underlay_address(2)))
        well(download, address)


def test_a_node_that_moves_on_while_its_anchor_does_not_run(domain: MakeDomain) -> None:
    with domain(mars=3) as it:
        address, prefix, download = begin(it)
        it.mn.attach("mar2")
        flowing(download)
        it["mar1"].process.kill()
        it["mar1"].process.wait()
        it.mn.attach("mar3")
        it["mar3"].heard("pbu-sent", f"prefix={prefix}", times=2)
        it["mar1"].start()
        flowing(download, timeout=15.0)
        assert path(it, "mar1", prefix) == ("to visited router", str(underlay_address(3)))
        well(download, address)


def test_a_node_that_moves_while_its_anchor_is_cut_off(domain: MakeDomain) -> None:
    with domain() as it:
        address, prefix, download = begin(it)
        core = it.world["core"]
        core.link_down("mar1")
        it.mn.attach("mar2")
        it.mn.address(it["mar2"].pool)  # at once, whatever becomes of the old one
        it["mar2"].heard("pbu-sent", f"prefix={prefix}", times=2)
        core.link_up("mar1")
        core.address("mar1", f"{underlay_gateway(1)}/64")
        core.route(str(it["mar1"].pool), via=str(underlay_address(1)))
        flowing(download, timeout=15.0)
        assert path(it, "mar1", prefix) == ("to visited router", str(underlay_address(2)))
        well(download, address)


def test_a_node_that_moves_while_its_anchor_is_frozen(domain: MakeDomain) -> None:
    """It wakes up to a node that left, an update, and the same update again."""
    with domain() as it:
        address, prefix, download = begin(it)
        it["mar1"].process.send_signal(signal.SIGSTOP)
        it.mn.attach("mar2")
        it["mar2"].heard("pbu-sent", f"prefix={prefix}", times=2)
        it["mar1"].process.send_signal(signal.SIGCONT)
        flowing(download, timeout=15.0)
        assert path(it, "mar1", prefix) == ("to visited router", str(underlay_address(2)))
        well(download, address)


def test_a_node_that_cannot_decide(domain: MakeDomain) -> None:
    """Moves faster than their signalling: in the end every router knows where it is."""
    chance = random.Random(SEED)
    print("seed", SEED)
    with domain(mars=3) as it:
        address, _, download = begin(it)
        last = "mar1"
        for _ in range(40):
            last = chance.choice([name for name in it.routers if name != last])
            it.mn.attach(last)
            if chance.random() < 0.3:
                flowing(download, 1, timeout=15.0)
        flowing(download, timeout=15.0)
        everywhere = {name: router.paths() for name, router in it.routers.items()}
        prefixes = {prefix for paths in everywhere.values() for prefix in paths}

        def settled() -> bool:
            here = it[last].paths()
            elsewhere = [router.paths() for name, router in it.routers.items() if name != last]
            to_here = {prefix for paths in elsewhere for prefix, (_, peer) in paths.items()}
            astray = [peer for paths in elsewhere for _, peer in paths.values() if peer != str(it[last].address)]
            return set(here) == prefixes and not astray and to_here < prefixes

        eventually(settled, 8.0, f"all of {prefixes} leads to {last}")
        assert [name for name, router in it.routers.items() if router.nodes() == [NODES[0]]] == [last]
        well(download, address)
