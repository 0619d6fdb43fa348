"""Padding, checksum, lifetimes and layouts, each on its own."""

import struct
from ipaddress import IPv6Address, IPv6Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from signaling.errors import UnencodableMessage
from signaling.iana import BindingAckFlag, Status, TrafficSelectorFormat
from signaling.wire import mobility_header
from signaling.wire.binding_ack import BindingAck
from signaling.wire.codec import LIFETIME, Alignment, checksum, checksum_is_right, pad, padding, read_prefix
from signaling.wire.options import (
    FlowIdentification,
    GreKey,
    HomeNetworkPrefix,
    MagIdentifier,
    Timestamp,
    UnknownOption,
)
from signaling.wire.traffic_selector import Range, TrafficSelector

HERE, THERE = IPv6Address("2001:db8::1"), IPv6Address("2001:db8::2")


@pytest.mark.parametrize(("octets", "pads"), [(0, ""), (1, "00"), (2, "0100"), (4, "01020000"), (7, "01050000000000")])
def test_padding_is_one_option_at_most(octets: int, pads: str) -> None:
    assert padding(octets) == bytes.fromhex(pads)


@given(st.integers(0, 300), st.sampled_from([Alignment(8, 4), Alignment(4, 1), Alignment(2), Alignment(1)]))
def test_padding_brings_the_next_octet_to_its_place(length: int, alignment: Alignment) -> None:
    octets = bytearray(length)
    pad(octets, alignment)
    assert len(octets) % alignment.multiple == alignment.offset
    assert len(octets) - length < alignment.multiple


def plain_checksum(octets: bytes) -> int:
    total = sum(struct.unpack(f"!{len(octets) // 2}H", octets))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


@given(st.binary(max_size=200))
def test_the_checksum_is_the_one_of_rfc_1071(octets: bytes) -> None:
    even = octets + bytes(len(octets) % 2)
    pseudo = HERE.packed + THERE.packed + struct.pack("!II", len(octets), 135)
    value = checksum(HERE, THERE, 135, octets)
    assert value == plain_checksum(pseudo + even)
    message = value.to_bytes(2, "big") + even
    assert checksum_is_right(HERE, THERE, 135, message) == (
        plain_checksum(HERE.packed + THERE.packed + struct.pack("!II", len(message), 135) + message) == 0
    )


@pytest.mark.parametrize(("seconds", "units"), [(0, 0), (1, 1), (3, 1), (4, 1), (7, 1), (8, 2), (262140, 65535)])
def test_a_lifetime_is_rounded_down_but_never_to_a_deletion(seconds: int, units: int) -> None:
    assert LIFETIME.write(seconds) == units


def test_all_zero_is_decided_on_the_prefix_alone() -> None:
    assert read_prefix(bytes((200, *bytes(16)))) == IPv6Network("::/0")
    assert read_prefix(bytes((64, *bytes(16)))) == IPv6Network("::/64")
    with pytest.raises(ValueError, match="only beyond"):
        read_prefix(bytes((0,)) + HERE.packed)


def test_bits_beyond_the_prefix_length_are_cut() -> None:
    assert read_prefix(bytes((64,)) + HERE.packed) == IPv6Network("2001:db8::/64")


def ack(**changes: object) -> BindingAck:
    fields: dict[str, object] = {
        "status": Status.BINDING_UPDATE_ACCEPTED,
        "flags": BindingAckFlag.PROXY_REGISTRATION,
        "sequence_number": 1,
        "lifetime": 3600,
    }
    return BindingAck(**(fields | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "broken",
    [
        ack(sequence_number=65536),
        ack(sequence_number=-1),
        ack(lifetime=262144),
        ack(status=256),
        ack(options=(UnknownOption(type=250, data=bytes(256)),)),
        ack(options=(UnknownOption(type=250, data=bytes(255)),) * 9),
        ack(options=(GreKey(key=1 << 32),)),
        ack(options=(Timestamp(value=-1),)),
    ],
)
def test_what_does_not_fit_is_our_error_not_a_wrong_message(broken: BindingAck) -> None:
    with pytest.raises(UnencodableMessage):
        mobility_header.encode(broken, HERE, THERE)


def test_a_status_we_do_not_know_stays_a_number() -> None:
    octets = mobility_header.encode(ack(status=249), HERE, THERE)
    message = mobility_header.decode(octets, HERE, THERE)
    assert isinstance(message, BindingAck)
    assert message.status == 249
    assert not isinstance(message.status, Status)
    assert not message.accepted


def test_octets_behind_the_announced_length_are_not_ours() -> None:
    octets = mobility_header.encode(ack(), HERE, THERE)
    assert mobility_header.decode(octets + b"behind", HERE, THERE) == ack()


def test_a_flow_too_full_for_padding_is_echoed_unaligned() -> None:
    everything = Range(IPv6Address(0), IPv6Address(2**128 - 1))
    selector = TrafficSelector(format=TrafficSelectorFormat.IPV6_BINARY, source=everything, destination=everything)
    bindings = tuple(range(1, 86))  # 252 octets of 255 with the selector, which stands 6 off its place
    flow = FlowIdentification(flow_id=1, priority=1, binding_ids=bindings, selector=selector)
    octets = mobility_header.encode(ack(options=(flow,)), HERE, THERE)
    assert mobility_header.decode(octets, HERE, THERE) == ack(options=(flow,))


def test_options_are_found_by_class() -> None:
    first, second = (HomeNetworkPrefix(prefix=IPv6Network(f"2001:db8:{n}::/64")) for n in (1, 2))
    message = ack(options=(first, GreKey(key=None), second))
    assert message.option(HomeNetworkPrefix) is first
    assert message.options_of(HomeNetworkPrefix) == (first, second)
    assert message.option(MagIdentifier) is None
    assert message.count(HomeNetworkPrefix.TYPE) == 2
