"""The bench of a domain: its nodes are what a stock host would be to a router, and what it found is said plainly."""

from ipaddress import IPv6Address

import pytest

from bench.domain import Settings, as_json, table
from bench.domain_load import Outcome, acknowledged, link_layer_of, make_node
from bench.figures import Figure
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
