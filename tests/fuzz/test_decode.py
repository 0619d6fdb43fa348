"""Any octets are a MalformedMessage or a message, nothing else; a message survives the way out and back in.

Octets come in three kinds: anything, anything with a right checksum and a likely head, and vectors with a few
octets changed. OPENMAR_FUZZ_EXAMPLES asks for more of each than the normal run takes.
"""

import os
from collections.abc import Callable
from ipaddress import IPv6Address
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from signaling.errors import MalformedMessage
from signaling.iana import ProtocolNumber
from signaling.wire import authentication, ipv6, mobility_header, neighbor
from signaling.wire.codec import checksum
from signaling.wire.message import Message

EXAMPLES = int(os.environ.get("OPENMAR_FUZZ_EXAMPLES", "400"))
BOUNDED = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None)

HERE, THERE = IPv6Address("fe80::1"), IPv6Address("fe80::2")
VECTORS = sorted((Path(__file__).parent.parent / "vectors").rglob("*.hex"))
PACKETS = [octets for octets in (bytes.fromhex(path.read_text()) for path in VECTORS) if octets[0] >> 4 == 6]


def checksummed(octets: bytes, at: int, protocol: int) -> bytes:
    blank = octets[:at] + bytes(2) + octets[at + 2 :]
    return octets[:at] + checksum(HERE, THERE, protocol, blank).to_bytes(2, "big") + octets[at + 2 :]


@st.composite
def changed(draw: st.DrawFn, originals: list[bytes]) -> bytes:
    octets = bytearray(draw(st.sampled_from(originals)))
    for _ in range(draw(st.integers(0, 4))):
        octets[draw(st.integers(0, len(octets) - 1))] = draw(st.integers(0, 255))
    return bytes(octets[: draw(st.integers(0, len(octets)))]) if draw(st.booleans()) else bytes(octets)


def payloads(protocol: int) -> list[bytes]:
    found = []
    for octets in PACKETS:
        try:
            packet = ipv6.decode(octets)
        except MalformedMessage:
            continue
        if packet.next_header == protocol:
            found.append(packet.payload)
    return found


@st.composite
def mobility_headers(draw: st.DrawFn) -> bytes:
    rest = draw(st.binary(min_size=3, max_size=80))
    rest += bytes(-(len(rest) + 5) % 8)
    octets = bytes((59, (len(rest) + 5) // 8 - 1, draw(st.integers(0, 24)), 0, 0)) + rest
    return checksummed(octets, 4, ProtocolNumber.MOBILITY_HEADER)


@st.composite
def icmpv6_messages(draw: st.DrawFn) -> bytes:
    kind = draw(st.one_of(st.sampled_from([*neighbor.ND, *neighbor.MLD, *neighbor.OTHERS]), st.integers(0, 255)))
    octets = bytes((kind, draw(st.sampled_from([0, 0, 0, 1])), 0, 0)) + draw(st.binary(max_size=96))
    return checksummed(octets, 2, ProtocolNumber.ICMPV6)


@st.composite
def packets(draw: st.DrawFn) -> bytes:
    rest = draw(st.binary(max_size=96))
    first = draw(st.sampled_from([0, 43, 44, 51, 60, 135, 58, 59]))
    head = bytes((0x60, 0, 0, 0, 0, len(rest), first, 64))
    return head + HERE.packed + THERE.packed + rest


def message_or_nothing(decode: Callable[[], Any]) -> Any:
    try:
        return decode()
    except MalformedMessage:
        return None


def check_mobility_header(octets: bytes, *, verify_checksum: bool) -> None:
    message = message_or_nothing(lambda: mobility_header.decode(octets, HERE, THERE, verify_checksum=verify_checksum))
    authentication.verify(octets, bytes(16), HERE)
    if message is None:
        return
    authentication.spi_of(message)
    survives(
        message,
        lambda: mobility_header.encode(message, HERE, THERE),
        lambda encoded: mobility_header.decode(encoded, HERE, THERE),
    )


def survives(message: Any, encode: Callable[[], bytes], decode: Callable[[bytes], object]) -> None:
    assert isinstance(message, Message)
    hash(message)  # frozen to the bottom: actions that carry it may be compared and kept in sets
    assert decode(encode()) == message


@BOUNDED
@given(st.one_of(st.binary(max_size=120), mobility_headers()))
def test_any_mobility_header_is_a_message_or_malformed(octets: bytes) -> None:
    check_mobility_header(octets, verify_checksum=True)


@BOUNDED
@given(changed(payloads(ProtocolNumber.MOBILITY_HEADER)))
def test_a_mobility_header_with_changed_octets_is_a_message_or_malformed(octets: bytes) -> None:
    check_mobility_header(octets, verify_checksum=False)


def check_icmpv6(octets: bytes, hop_limit: int) -> None:
    message = message_or_nothing(lambda: neighbor.decode(octets, HERE, THERE, hop_limit))
    if message is not None:
        survives(
            message,
            lambda: neighbor.encode(message, HERE, THERE),
            lambda encoded: neighbor.decode(encoded, HERE, THERE, hop_limit),
        )


@BOUNDED
@given(st.one_of(st.binary(max_size=120), icmpv6_messages()), st.sampled_from([255, 255, 1, 64]))
def test_any_icmpv6_message_is_a_message_or_malformed(octets: bytes, hop_limit: int) -> None:
    check_icmpv6(octets, hop_limit)


@BOUNDED
@given(changed(payloads(ProtocolNumber.ICMPV6)), st.sampled_from([255, 1]))
def test_an_icmpv6_message_with_changed_octets_is_a_message_or_malformed(octets: bytes, hop_limit: int) -> None:
    if len(octets) >= 4:
        octets = checksummed(octets, 2, ProtocolNumber.ICMPV6)
    check_icmpv6(octets, hop_limit)


@BOUNDED
@given(st.one_of(st.binary(max_size=120), packets(), changed(PACKETS)))
def test_any_packet_is_a_packet_or_malformed(octets: bytes) -> None:
    packet = message_or_nothing(lambda: ipv6.decode(octets))
    if packet is not None:
        again = ipv6.decode(ipv6.encode(packet))
        assert again.payload == packet.payload
        assert (again.source, again.destination) == (packet.source, packet.destination)
        assert (again.home_address, again.final_destination) == (packet.home_address, packet.final_destination)
