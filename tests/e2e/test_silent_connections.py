"""A TCP connection that is open and silent keeps its anchor; when it ends, the anchor is let go.

    cn --- core --+-- mar1 --:
                  +-- mar2 --:-- mn
"""

import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import IPv6Address, IPv6Network
from typing import Any

import pytest

from router.demo.topology import CN_ADDRESS
from tests.e2e.domain import Domain
from tests.e2e.test_takeover import take_over
from tests.eventually import eventually

MakeDomain = Callable[..., Domain]

IDLE_AFTER = 1.0  # s
SILENCE = 2.5  # s, in which a prefix without a connection would be gone
AT_ONCE = struct.pack("ii", 1, 0)  # SO_LINGER: close() sends a reset
PORT = 7103


@contextmanager
def connection(it: Domain, address: IPv6Address) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Of the node, from that address, with the correspondent: both ends of it."""
    with it.world["cn"].inside():
        listener = socket.create_server((str(CN_ADDRESS), PORT), family=socket.AF_INET6)
    with it.mn.host.inside():
        near = socket.create_connection((str(CN_ADDRESS), PORT), 5.0, source_address=(str(address), 0))
    with listener, near, listener.accept()[0] as far:
        far.settimeout(5.0)
        yield near, far


def talk(near: socket.socket, far: socket.socket) -> None:
    """Octets go both ways, and arrive."""
    for sender, receiver in ((near, far), (far, near)):
        sender.sendall(b"here I am")
        assert receiver.recv(64) == b"here I am"


def prefix(it: Domain, number: int) -> IPv6Network:
    return next(it[f"mar{number}"].pool.subnets(new_prefix=64))


def state(it: Domain) -> str:
    """Of the prefix that mar1 has lent."""
    return str(it["mar1"].show("prefixes")[0]["state"])


def visiting(it: Domain) -> dict[str, Any]:
    """What mar2 says of that prefix."""
    return next(row for row in it["mar2"].show("sessions") if row["prefix"] == str(prefix(it, 1)))


@contextmanager
def moved(it: Domain) -> Iterator[tuple[socket.socket, socket.socket]]:
    """The node came from mar1 to mar2 with a connection, which says something there."""
    node = it.mn.no_duplicate_detection()
    node.attach("mar1")
    with connection(it, node.address(prefix(it, 1))) as ends:
        node.attach("mar2")
        eventually(lambda: prefix(it, 1) in it["mar2"].paths(), 5.0, "mar2 carries the prefix")
        talk(*ends)  # before it could be taken for idle
        node.address(prefix(it, 2))
        yield ends


def be_silent(it: Domain) -> None:
    """Nothing passes for longer than an idle prefix lives."""
    eventually(lambda: (visiting(it)["silence"] or 0.0) > SILENCE, SILENCE + 5.0, "the connection is silent")


@pytest.mark.parametrize("way", ["finished", "reset"])
def test_a_silent_connection_goes_on_and_its_anchor_is_let_go_when_it_ends(domain: MakeDomain, way: str) -> None:
    with domain(settings={"anchor": {"idle_after": IDLE_AFTER}}).start() as it:
        with moved(it) as (near, far):
            be_silent(it)
            assert (state(it), visiting(it)["connections"]) == ("remote", 1)
            talk(near, far)
            talk(far, near)
            be_silent(it)
            if way == "reset":
                near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE)
        eventually(lambda: state(it) == "released", 8.0, "mar1 lets its prefix go")
        assert prefix(it, 1) not in it["mar2"].paths()


def test_a_silent_connection_is_not_honoured_where_that_is_not_wanted(domain: MakeDomain) -> None:
    with (
        domain(settings={"anchor": {"idle_after": IDLE_AFTER, "open_idle_after": 0.0}}).start() as it,
        moved(it),
    ):
        eventually(lambda: state(it) == "released", 8.0, "mar1 lets its prefix go")


def test_a_connection_that_is_silent_for_too_long_is_taken_for_dead(domain: MakeDomain) -> None:
    with (
        domain(settings={"anchor": {"idle_after": IDLE_AFTER, "open_idle_after": SILENCE + 1.0}}).start() as it,
        moved(it),
    ):
        be_silent(it)
        assert state(it) == "remote"
        eventually(lambda: state(it) == "released", 8.0, "mar1 lets its prefix go")


def test_a_silent_connection_outlives_an_upgrade_of_the_router_it_visits(domain: MakeDomain) -> None:
    with domain(settings={"anchor": {"idle_after": IDLE_AFTER}}).start() as it, moved(it) as ends:
        be_silent(it)
        take_over(it["mar2"])
        eventually(lambda: (visiting(it)["silence"] or 0.0) > 2 * SILENCE, SILENCE + 5.0, "it is silent still")
        assert state(it) == "remote"
        talk(*ends)
        assert visiting(it)["connections"] == 1
