"""DHCPv6 in octets: vectors both ways, and what broken octets are."""

from contextlib import suppress
from dataclasses import replace
from ipaddress import IPv6Address, IPv6Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from signaling.errors import MalformedMessage, Reason, UnencodableMessage
from signaling.iana import Dhcpv6MessageType, Dhcpv6Option, Dhcpv6Status
from signaling.wire import dhcpv6
from signaling.wire.dhcpv6 import (
    AddressAssociation,
    DelegatedPrefix,
    Dhcpv6Message,
    PrefixAssociation,
    StatusCode,
)

PREFIX = IPv6Network("2001:db8:d0::/56")
CLIENT = bytes.fromhex("00030001020000000011")
SERVER = bytes.fromhex("0003000100005e005213")
VECTORS = {
    "solicit": (
        "01 a1b2c3 0001000a00030001020000000011 000e0000 0019000c000000010000000000000000",
        Dhcpv6Message(
            type=Dhcpv6MessageType.SOLICIT,
            transaction=0xA1B2C3,
            client=CLIENT,
            rapid_commit=True,
            delegations=(PrefixAssociation(iaid=1),),
        ),
    ),
    "advertise": (
        "02 a1b2c3 0001000a00030001020000000011 0002000a0003000100005e005213 00070001ff"
        "00190029 00000001 00000096 000000f0 001a0019 0000012c 00000258 38 20010db800d000000000000000000000"
        "00030012 00000002 00000000 00000000 000d0002 0002",
        Dhcpv6Message(
            type=Dhcpv6MessageType.ADVERTISE,
            transaction=0xA1B2C3,
            client=CLIENT,
            server=SERVER,
            preference=255,
            delegations=(
                PrefixAssociation(
                    iaid=1,
                    renew_after=150,
                    rebind_after=240,
                    prefixes=(DelegatedPrefix(prefix=PREFIX, preferred_lifetime=300, valid_lifetime=600),),
                ),
            ),
            addresses=(AddressAssociation(iaid=2, status=StatusCode(Dhcpv6Status.NO_ADDRS_AVAIL)),),
        ),
    ),
    "confirm": (
        "04 000001 00040020 00000003 00050018 20010db8000000000000000000000001 00000000 00000000",
        Dhcpv6Message(
            type=Dhcpv6MessageType.CONFIRM,
            transaction=1,
            addresses=(AddressAssociation(kind=Dhcpv6Option.IA_TA, iaid=3, addresses=(IPv6Address("2001:db8::1"),)),),
        ),
    ),
    "reply": (
        "07 000001 000d000400056869",
        Dhcpv6Message(type=Dhcpv6MessageType.REPLY, transaction=1, status=StatusCode(Dhcpv6Status.USE_MULTICAST, "hi")),
    ),
}


@pytest.mark.parametrize("name", VECTORS)
def test_a_message_is_read_and_written_octet_for_octet(name: str) -> None:
    octets, message = VECTORS[name]
    assert dhcpv6.encode(message) == bytes.fromhex(octets)
    assert dhcpv6.decode(bytes.fromhex(octets)) == message


def test_unknown_options_are_passed_by_and_the_first_of_two_counts() -> None:
    octets = "01 000001 00060002 0017 0001 0003 aabbcc 0001 0003 ddeeff"
    assert dhcpv6.decode(bytes.fromhex(octets)).client == bytes.fromhex("aabbcc")


def test_bits_beyond_the_length_of_a_prefix_are_ignored() -> None:
    octets = (
        "01 000001 00190029 00000001 00000000 00000000 001a0019 00000000 00000000 38" + "20010db800d000ff" + "00" * 8
    )
    (delegation,) = dhcpv6.decode(bytes.fromhex(octets)).delegations
    assert delegation.prefixes[0].prefix == PREFIX


@pytest.mark.parametrize(
    ("octets", "reason"),
    [
        ("01 0000", Reason.TRUNCATED),
        ("0c 00" + "00" * 32, Reason.UNKNOWN_TYPE),
        ("0d 00" + "00" * 32, Reason.UNKNOWN_TYPE),
        ("01 000001 0001", Reason.OPTION_TRUNCATED),
        ("01 000001 0001 0004 aabbcc", Reason.OPTION_OVERRUN),
        ("01 000001 0001 0002 aabb", Reason.FIELD),
        ("01 000001 0001 0083" + "aa" * 131, Reason.FIELD),
        ("01 000001 0007 0000", Reason.FIELD),
        ("01 000001 000d 0001 00", Reason.FIELD),
        ("01 000001 0019 0004 00000001", Reason.FIELD),
        ("01 000001 0003 0004 00000001", Reason.FIELD),
        ("01 000001 0019 0010 00000001 00000000 00000000 001a 0000", Reason.FIELD),
        ("01 000001 0019 0010 00000001 00000000 00000000 001a 0001", Reason.OPTION_OVERRUN),
        ("01 000001 0019 0029" + "00" * 12 + "001a0019" + "00" * 8 + "81" + "00" * 16, Reason.FIELD),
    ],
)
def test_broken_octets_are_refused_for_a_reason(octets: str, reason: Reason) -> None:
    with pytest.raises(MalformedMessage) as caught:
        dhcpv6.decode(bytes.fromhex(octets))
    assert caught.value.reason == reason


def test_a_value_that_does_not_fit_is_our_fault() -> None:
    with pytest.raises(UnencodableMessage):
        dhcpv6.encode(replace(VECTORS["reply"][1], transaction=1 << 24))


@given(st.binary(max_size=200), st.sampled_from(sorted(VECTORS)), st.integers(0, 100))
def test_no_octets_whatever_raise_anything_but_malformed_message(octets: bytes, name: str, keep: int) -> None:
    for candidate in (octets, bytes.fromhex(VECTORS[name][0])[:keep] + octets):
        with suppress(MalformedMessage):
            dhcpv6.decode(candidate)
