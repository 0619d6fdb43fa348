"""The bad messages of tests/vectors, as a router gets them: the reaction that is demanded, and nothing changed.

The router believes everybody (no keys), knows the node and the prefix that the vectors name, and its clock shows the
time at which each of them was sent.
"""

from copy import deepcopy
from ipaddress import IPv6Address, IPv6Network
from math import inf
from pathlib import Path
from typing import Any

import pytest

from signaling.actions import Action, Bind, ForgetSession, SaveSession, Send, SendError, Unbind
from signaling.dma.session import Session, State
from signaling.events import (
    ClockStepped,
    DatagramReceived,
    LinkAttached,
    LinkUp,
    SessionsFound,
    SessionsRestored,
)
from signaling.iana import BindingErrorStatus, ProtocolNumber, RevocationStatus, Status
from signaling.roles.mar import Mar
from signaling.settings import TIMESTAMP_UNITS, Authentication, Peer, Settings
from signaling.wire import ipv6, mobility_header, neighbor
from signaling.wire.binding_ack import BindingAck
from signaling.wire.binding_error import BindingError
from signaling.wire.neighbor import ParameterProblem
from signaling.wire.options.access import AccessTechnologyTypeOption, HandoffIndicatorOption
from signaling.wire.options.identity import MobileNodeIdentifier
from signaling.wire.options.option import Option
from signaling.wire.options.prefix import HomeNetworkPrefix
from signaling.wire.revocation import BindingRevocationAck

VECTORS = Path(__file__).parent.parent / "vectors"
MAG1, MAG2, LMA = (IPv6Address(f"2001:db8:{part}::1") for part in ("1", "2", "f"))
PREFIX = IPv6Network("2001:db8:100:1::/64")
NODE = "mn1@example.net"
LINK_LAYER = bytes.fromhex("020000000011")
SENT = 1704164745.0  # s since 1970, the time of most of the bad vectors
NOW = 50.0


def packet(name: str) -> ipv6.Packet:
    (path,) = VECTORS.glob(f"malformed/{name}-*.hex")
    return ipv6.decode(bytes.fromhex(path.read_text()))


def settings(address: IPv6Address) -> Settings:
    return Settings(
        address=address,
        tunnel_mtu=1460,
        peers=tuple(Peer(name=str(peer), address=peer) for peer in (MAG1, MAG2, LMA) if peer != address),
        pools=(IPv6Network("2001:db8:100::/48"),),
        authentication=Authentication.NONE,
        timestamp_window=60.0,
    )


def session(state: State, care_of: IPv6Address) -> Session:
    return Session(
        node=NODE,
        prefix=PREFIX,
        anchor=LMA,
        state=state,
        care_of=care_of,
        link_layer=LINK_LAYER,
        technology=4,
        timestamp=int((SENT - 600.0) * TIMESTAMP_UNITS),
        expires=inf,
        valid_lifetime=7200,
    )


def anchor() -> Mar:
    """The router at the LMA's address; mn1's prefix is registered by MAG1."""
    mar = Mar(settings(LMA))
    mar.handle(ClockStepped(wall_minus_monotonic=SENT - NOW), NOW)
    mar.handle(SessionsRestored(sessions=(session(State.REMOTE, MAG1),)), NOW)
    return mar


def visited() -> Mar:
    """The router at MAG1's address; mn1 is on its link, and its prefix is anchored at the LMA."""
    mar = Mar(settings(MAG1))
    mar.handle(ClockStepped(wall_minus_monotonic=SENT - NOW), NOW)
    mar.handle(LinkUp(interface="lan0", link_layer=bytes(6), mtu=1500), NOW)
    attached = LinkAttached(
        node=NODE, interface="lan0", link_layer=LINK_LAYER, link_local=IPv6Address("fe80::11"), trigger="rs"
    )
    mar.handle(attached, NOW)
    mar.handle(SessionsFound(node=NODE, sessions=(session(State.LOCAL, LMA),)), NOW)
    return mar


def receive(mar: Mar, name: str) -> list[Action]:
    bad = packet(name)
    event = DatagramReceived(octets=bad.payload, source=bad.source, destination=bad.destination)
    return mar.handle(event, NOW)


def known(mar: Mar) -> Any:
    """All that a router knows of bindings."""
    return deepcopy((list(mar.anchor.cache), mar.registrar.all(), mar.access.attached))


def answer(turn: list[Action]) -> Any:
    (action,) = (it for it in turn if isinstance(it, Send))
    return action.message


def only(ack: BindingAck, kind: type[Option]) -> Any:
    (option,) = ack.options_of(kind)
    return option


FOR_ANCHOR = [f"m{number:02}" for number in (*range(1, 22), 36)]
FOR_VISITED = ["m29", "m30"]


@pytest.mark.parametrize("name", FOR_ANCHOR)
def test_a_bad_message_changes_nothing_at_an_anchor(name: str) -> None:
    mar = anchor()
    before = known(mar)
    turn = receive(mar, name)
    assert known(mar) == before
    assert not [it for it in turn if isinstance(it, Bind | Unbind | SaveSession | ForgetSession)]


@pytest.mark.parametrize("name", FOR_VISITED)
def test_a_bad_message_changes_nothing_at_a_visited_router(name: str) -> None:
    mar = visited()
    before = known(mar)
    receive(mar, name)
    assert known(mar) == before


@pytest.mark.parametrize("name", ["m01", "m04", "m06", "m07", "m36"])
def test_a_broken_frame_is_met_with_silence(name: str) -> None:
    assert receive(anchor(), name) == []


@pytest.mark.parametrize("name", ["m01", "m04", "m06", "m07", "m36"])
def test_a_broken_frame_is_counted(name: str) -> None:
    mar = anchor()
    receive(mar, name)
    assert sum(count for key, count in mar.counters.items() if key.startswith("malformed.")) == 1


@pytest.mark.parametrize(("name", "pointer"), [("m02", 40), ("m03", 41)])
def test_a_wrong_header_field_is_pointed_at(name: str, pointer: int) -> None:
    (action,) = receive(anchor(), name)
    assert isinstance(action, SendError)
    problem = neighbor.decode(action.octets, LMA, packet(name).source, 64)
    assert isinstance(problem, ParameterProblem)
    assert (problem.code, problem.pointer, action.destination) == (0, pointer, packet(name).source)


@pytest.mark.parametrize("name", ["m02", "m03"])
def test_the_packet_in_error_comes_back_with_the_error(name: str) -> None:
    (action,) = receive(anchor(), name)
    assert isinstance(action, SendError)
    problem = neighbor.decode(action.octets, LMA, packet(name).source, 64)
    assert isinstance(problem, ParameterProblem)
    quoted = ipv6.decode(problem.invoking)
    assert (quoted.next_header, quoted.payload) == (ProtocolNumber.MOBILITY_HEADER, packet(name).payload)


def test_an_unknown_message_is_answered_with_a_binding_error() -> None:
    error = answer(receive(anchor(), "m05"))
    assert isinstance(error, BindingError)
    assert (error.status, error.home_address) == (BindingErrorStatus.UNRECOGNIZED_MH_TYPE, IPv6Address(0))


def test_the_binding_error_is_the_one_of_the_vectors() -> None:
    (action,) = receive(anchor(), "m05")
    assert isinstance(action, Send)
    expected = ipv6.decode(bytes.fromhex((VECTORS / "be-unknown-mh.hex").read_text()))
    assert (action.octets, action.destination) == (expected.payload, expected.destination)


def test_errors_leave_at_a_bounded_rate() -> None:
    mar = anchor()
    assert sum(bool(receive(mar, "m05")) for _ in range(100)) == 20


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("m08", Status.MISSING_HOME_NETWORK_PREFIX_OPTION),
        ("m09", Status.NOT_AUTHORIZED_FOR_HOME_NETWORK_PREFIX),
        ("m10", Status.MISSING_MN_IDENTIFIER_OPTION),
        ("m11", Status.MISSING_HOME_NETWORK_PREFIX_OPTION),
        ("m12", Status.MISSING_HANDOFF_INDICATOR_OPTION),
        ("m13", Status.MISSING_ACCESS_TECH_TYPE_OPTION),
        ("m14", Status.REASON_UNSPECIFIED),
        ("m21", Status.REASON_UNSPECIFIED),
    ],
)
def test_a_bad_update_is_refused_with_its_status(name: str, status: Status) -> None:
    assert answer(receive(anchor(), name)).status is status


def test_an_update_without_a_node_is_answered_with_an_empty_one() -> None:
    ack = answer(receive(anchor(), "m10"))
    assert (only(ack, MobileNodeIdentifier).identifier, ack.sequence_number) == (b"", 6)


def test_the_refusal_of_an_update_without_a_node_is_the_one_of_the_vectors() -> None:
    octets = bytes.fromhex((VECTORS / "pba-missing-mnid.hex").read_text())
    expected = ipv6.decode(octets)
    (action,) = (it for it in receive(anchor(), "m10") if isinstance(it, Send))
    assert action.octets == expected.payload


def test_an_update_without_a_prefix_is_answered_with_one_of_zeros() -> None:
    assert only(answer(receive(anchor(), "m11")), HomeNetworkPrefix).all_zero


def test_an_update_without_a_handoff_indicator_is_answered_with_zero() -> None:
    assert only(answer(receive(anchor(), "m12")), HandoffIndicatorOption).indicator == 0


def test_an_update_without_an_access_technology_is_answered_with_zero() -> None:
    assert only(answer(receive(anchor(), "m13")), AccessTechnologyTypeOption).technology == 0


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("m29", RevocationStatus.REVOCATION_FUNCTION_NOT_SUPPORTED),
        ("m30", RevocationStatus.REVOCATION_TRIGGER_NOT_SUPPORTED),
    ],
)
def test_a_bad_revocation_is_refused_with_its_status(name: str, status: RevocationStatus) -> None:
    ack = answer(receive(visited(), name))
    assert isinstance(ack, BindingRevocationAck)
    assert ack.status is status


@pytest.mark.parametrize(("name", "number"), [("m29", 510), ("m30", 511)])
def test_the_refusal_of_a_revocation_carries_its_number(name: str, number: int) -> None:
    assert answer(receive(visited(), name)).sequence_number == number


@pytest.mark.parametrize("name", [f"m{number}" for number in (*range(22, 29), 33)])
def test_what_a_mobile_node_sends_to_its_home_agent_is_not_for_us(name: str) -> None:
    octets = bytearray(packet(name).payload)
    mobility_header.fill_checksum(octets, MAG1, LMA)  # as if it had come without a Home Address option
    mar = anchor()
    event = DatagramReceived(octets=bytes(octets), source=MAG1, destination=LMA)
    assert mar.handle(event, NOW) == []
    assert mar.counters["ignored.not-a-proxy-update"] == 1


def test_the_acknowledgement_of_a_good_update_can_be_read() -> None:
    mar = anchor()
    good = ipv6.decode(bytes.fromhex((VECTORS / "pbu-rereg.hex").read_text()))
    event = DatagramReceived(octets=good.payload, source=good.source, destination=good.destination)
    message = mobility_header.decode(good.payload, good.source, good.destination)
    stamp = next(option.value for option in message.options if hasattr(option, "value"))
    mar.handle(ClockStepped(wall_minus_monotonic=stamp / TIMESTAMP_UNITS - NOW), NOW)
    (ack,) = (it for it in mar.handle(event, NOW) if isinstance(it, Send))
    assert isinstance(ack.message, BindingAck)
    assert ack.message.status is Status.BINDING_UPDATE_ACCEPTED
