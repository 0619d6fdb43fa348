"""IPv6 packets with what may stand before the payload."""

from ipaddress import IPv6Address
from pathlib import Path

import pytest

from signaling.errors import MalformedMessage, Reaction, Reason
from signaling.wire import ipv6, mobility_header, neighbor
from signaling.wire.ipv6 import Packet
from signaling.wire.neighbor import ParameterProblem

VECTORS = Path(__file__).parent.parent / "vectors"
HERE, THERE, HOME = (IPv6Address(f"2001:db8::{n}") for n in (1, 2, 3))


def with_extension(next_header: int, octets: str, payload: bytes = b"") -> bytes:
    return ipv6.encode(
        Packet(source=HERE, destination=THERE, next_header=next_header, payload=bytes.fromhex(octets) + payload)
    )


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"router_alert": True},
        {"home_address": HOME},
        {"final_destination": HOME},
        {"router_alert": True, "final_destination": HOME, "home_address": HOME},
        {"traffic_class": 0xB8, "flow_label": 0xABCDE},
    ],
)
def test_a_packet_arrives_as_it_was_sent(changes: dict[str, object]) -> None:
    packet = Packet(source=HERE, destination=THERE, next_header=135, payload=bytes(8), **changes)  # type: ignore[arg-type]
    octets = ipv6.encode(packet)
    back = ipv6.decode(octets + b"trailer of a frame")
    expected = {name: getattr(packet, name) for name in Packet.__slots__} | {"payload_offset": len(octets) - 8}
    assert back == Packet(**expected)


def test_the_home_address_counts_for_the_checksum() -> None:
    packet = Packet(source=HERE, destination=THERE, next_header=135, payload=b"", home_address=HOME)
    assert (packet.checksum_source, packet.checksum_destination) == (HOME, THERE)


@pytest.mark.parametrize(
    ("next_header", "octets", "reason"),
    [
        (44, "3b00 0008 00000001", Reason.FRAGMENT),
        (44, "3b00 0001 00000001", Reason.FRAGMENT),
        (60, "3b01 010400000000", Reason.TRUNCATED),
        (60, "3b", Reason.TRUNCATED),
        (60, "3b00 c91000000000", Reason.OPTION_OVERRUN),
        (60, "3b00 c90400000000", Reason.HOME_ADDRESS),
        (60, "3b00 400400000000", Reason.UNKNOWN_DESTINATION_OPTION),
        (43, "3b02 0201 00000000" + "00" * 16, Reason.ROUTING_HEADER),
        (43, "3b00 0201 00000000", Reason.ROUTING_HEADER),
        (60, "0000 010400000000 3b00 010400000000", Reason.EXTENSION_HEADER),
    ],
)
def test_a_broken_extension_header_ends_the_packet(next_header: int, octets: str, reason: Reason) -> None:
    with pytest.raises(MalformedMessage) as caught:
        ipv6.decode(with_extension(next_header, octets))
    assert caught.value.reason is reason
    assert caught.value.reaction is Reaction.DISCARD


@pytest.mark.parametrize(
    ("next_header", "octets", "code", "pointer"),
    [
        (60, "3b00 800400000000", 2, 42),
        (43, "3b00 0001 00000000", 0, 42),
    ],
)
def test_what_the_sender_has_to_know_is_pointed_at(next_header: int, octets: str, code: int, pointer: int) -> None:
    with pytest.raises(MalformedMessage) as caught:
        ipv6.decode(with_extension(next_header, octets))
    error = caught.value
    assert (error.reaction, error.code, error.pointer) == (Reaction.PARAMETER_PROBLEM, code, pointer)


@pytest.mark.parametrize(
    ("next_header", "octets"),
    [
        (44, "3b00 0000 00000001"),
        (60, "3b00 1e0400000000"),
        (43, "3b00 0000 00000000"),
        (51, "3b04 0000" + "00" * 20),
    ],
)
def test_an_extension_header_without_a_say_is_passed_by(next_header: int, octets: str) -> None:
    packet = ipv6.decode(with_extension(next_header, octets, b"payload"))
    assert (packet.next_header, packet.payload) == (59, b"payload")


@pytest.mark.parametrize("octets", ["", "60", "45" + "00" * 39, "6000000000013a40" + "00" * 32])
def test_what_is_no_packet_is_refused(octets: str) -> None:
    with pytest.raises(MalformedMessage):
        ipv6.decode(bytes.fromhex(octets))


def test_a_parameter_problem_quotes_what_it_points_at() -> None:
    invoking = bytes.fromhex((VECTORS / "malformed/m02-payload-proto.hex").read_text())
    packet = ipv6.decode(invoking)
    with pytest.raises(MalformedMessage) as caught:
        mobility_header.decode(packet.payload, packet.source, packet.destination)
    octets = ipv6.parameter_problem(packet.payload, packet.source, packet.destination, caught.value)
    problem = neighbor.decode(octets, packet.destination, packet.source, 64)
    assert problem == ParameterProblem(code=0, pointer=40, invoking=invoking)


def test_an_error_never_exceeds_the_minimum_mtu() -> None:
    problem = ParameterProblem(pointer=40, invoking=bytes(2000))
    assert len(ipv6.carry(problem, HERE, THERE)) == ipv6.MINIMUM_MTU
