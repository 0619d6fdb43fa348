"""The bench of a domain: its nodes are what a stock host would be to a router, and what it found is said plainly."""

import socket
from contextlib import closing
from dataclasses import replace
from ipaddress import IPv6Address
from random import Random

import pytest

from bench import store
from bench.domain import Settings, as_json, excused, main, table
from bench.domain_load import Crowd, Journey, Node, Outcome, acknowledged, link_layer_of, make_node
from bench.figures import Figure
from router.errors import RouterError
from signaling.iana import BindingAckFlag, ProtocolNumber, Status
from signaling.wire import ipv6, mobility_header
from signaling.wire.binding_ack import BindingAck
from signaling.wire.ipv6 import Packet

ANCHOR, VISITED = IPv6Address("2001:db8:ff:1::1"), IPv6Address("2001:db8:ff:2::1")


def packet(status: Status, lifetime: int) -> bytes:
    flags = BindingAckFlag.PROXY_REGISTRATION
    ack = BindingAck(status=status, flags=flags, sequence_number=7, lifetime=lifetime)
    octets = mobility_header.encode(ack, ANCHOR, VISITED)
    carried = Packet(
        source=ANCHOR, destination=VISITED, next_header=ProtocolNumber.MOBILITY_HEADER, payload=octets
    )
    return ipv6.encode(carried)


@pytest.mark.parametrize("number", [0, 1, 0xFFFF, 0x12345678])
def test_a_node_is_known_by_its_address(number: int) -> None:
    node = make_node(number)
    assert node.address.is_link_local
    assert link_layer_of(node.address) == node.link_layer


def test_nodes_have_addresses_of_their_own() -> None:
    assert len({make_node(number).address for number in range(2000)}) == 2000


def test_an_accepted_registration_is_recognised() -> None:
    header = acknowledged(packet(Status.BINDING_UPDATE_ACCEPTED, 300))
    assert header is not None
    assert mobility_header.decode(header, ANCHOR, VISITED).status == Status.BINDING_UPDATE_ACCEPTED  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("status", "lifetime"),
    [(Status.BINDING_UPDATE_ACCEPTED, 0), (Status.TIMESTAMP_MISMATCH, 300)],
    ids=["taken-back", "refused"],
)
def test_nothing_else_ends_a_move(status: Status, lifetime: int) -> None:
    assert acknowledged(packet(status, lifetime)) is None


def test_shares_of_the_delays() -> None:
    outcome = Outcome(delays=[n / 100 for n in range(100, 0, -1)])
    assert (outcome.within(0.5), outcome.within(0.99), outcome.within(1.0)) == (0.51, 1.0, 1.0)


def test_the_table_and_json_say_what_does_not_hold() -> None:
    figures = [
        Figure("moves", "moves", 250.0, "/s"),
        Figure("operations", "store operations of a move", 4.0, "", 3, most=True),
        Figure("lost", "not served", 0, "", 0, most=True),
    ]
    lines = table("sqlite", figures).splitlines()
    assert lines[0] == "over sqlite"
    assert lines[2].endswith("DOES NOT HOLD")
    assert lines[3].endswith(" holds")
    found = as_json(Settings(), {"sqlite": figures})["figures"]["sqlite"]
    assert [each["holds"] for each in found.values()] == [True, False, True]


class Alone(Crowd):
    """A crowd of one, without a world."""

    def __init__(self, *, served: bool) -> None:
        self.nodes, self._dice, self._journeys = [make_node(0)], Random(1), {}
        self._links = dict(zip(("mar1", "mar2"), socket.socketpair(), strict=True))
        self._served = served

    def close(self) -> None:
        for link in self._links.values():
            link.close()

    def _begin(self, node: Node, router: str) -> None:
        assert not self._journeys
        if self._served:
            self._journeys[node.number] = Journey(node, 0.0, set())

    def _serve(self, seconds: float) -> None:
        self._over.delays.append(0.1)
        self._journeys.clear()


def test_a_crowd_has_no_more_moves_under_way_than_nodes() -> None:
    with closing(Alone(served=True)) as crowd:
        assert len(crowd.move(5, window=16, rate=None).delays) == 5


def test_moves_of_which_none_is_served_are_trouble_and_no_figure() -> None:
    with closing(Alone(served=False)) as crowd, pytest.raises(RouterError, match="no node was served"):
        crowd.move(5, window=16, rate=None)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (("--nodes", "0"), "argument --nodes: 0: expected a whole number, 2 or more"),
        (("--moves", "-1"), "argument --moves: -1: expected a whole number, 2 or more"),
        (("--window", "0"), "argument --window: 0: expected a whole number, 1 or more"),
        (("--nodes", "many"), "argument --nodes: many: expected a whole number, 2 or more"),
        (("--json", "/nonexistent/x.json"), "argument --json: /nonexistent/x.json: No such file or directory"),
    ],
)
def test_what_cannot_be_measured_or_kept_is_refused_at_once(
    given: tuple[str, str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(given)
    assert told in capsys.readouterr().err


@pytest.mark.parametrize("url", ["redis://localhost:1/0", "nothing://x"])
def test_a_store_that_is_not_there_is_told_in_a_line(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert store.main([url]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"bench.store: store {url}: ")
    assert error.count("\n") == 1


LOST = [Figure("lost", "moves that were not served", 13, "", 0, most=True), Figure("moves", "moves", 1.0, "/s", 2.0)]


def test_moves_that_were_not_served_count_on_an_idle_machine() -> None:
    assert excused(LOST, 0.1) == (LOST, "")


def test_moves_that_were_not_served_are_a_warning_on_a_busy_machine_and_nothing_else_is() -> None:
    figures, line = excused(LOST, 0.7)
    assert [each.holds for each in figures] == [True, False]
    assert line.startswith("WARNING: 13 moves were not served, but other programs took 70% of the processors")


def test_a_domain_that_is_as_wanted_has_nothing_to_excuse() -> None:
    assert excused([replace(LOST[0], value=0.0)], 0.9)[1] == ""
