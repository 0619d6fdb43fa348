"""DHCPv4 in octets, UDP and ARP around it: vectors both ways, and what broken octets are."""

from contextlib import suppress
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from signaling.errors import MalformedMessage, Reason, UnencodableMessage
from signaling.iana import ArpOperation, Dhcpv4MessageType
from signaling.wire import arp, dhcpv4, udp
from signaling.wire.arp import ArpPacket
from signaling.wire.dhcpv4 import Dhcpv4Message

MAC = bytes.fromhex("020000000011")
ADDRESS, ROUTER = IPv4Address("10.1.0.17"), IPv4Address("10.1.0.1")
COOKIE = "63825363"


def message(options: str, fixed: str = "01010600 deadbeef 0000 8000", file: str = "", sname: str = "") -> bytes:
    """The octets of a message of this client, laid out as in RFC 2131 2."""
    octets = bytes.fromhex(fixed) + bytes(16) + MAC.ljust(16, b"\0")
    octets += bytes.fromhex(sname).ljust(64, b"\0") + bytes.fromhex(file).ljust(128, b"\0")
    return octets + bytes.fromhex(COOKIE + options)


DISCOVER = Dhcpv4Message(
    type=Dhcpv4MessageType.DISCOVER,
    transaction=0xDEADBEEF,
    broadcast=True,
    link_layer=MAC,
    requested_address=ADDRESS,
    client_identifier=b"\1" + MAC,
)
OFFER = Dhcpv4Message(
    type=Dhcpv4MessageType.OFFER,
    from_client=False,
    transaction=7,
    link_layer=MAC,
    your_address=ADDRESS,
    server_identifier=ROUTER,
    lease_time=300,
    renewal_time=150,
    rebinding_time=262,
    subnet_length=24,
    router=ROUTER,
    mtu=1400,
)
OFFER_OPTIONS = (
    "350102 36040a010001 33040000012c 3a0400000096 3b0400000106 0104ffffff00 03040a010001 1a020578 ff".replace(" ", "")
)


def refused(octets: bytes) -> Reason:
    with pytest.raises(MalformedMessage) as caught:
        dhcpv4.decode(octets)
    return caught.value.reason


def test_a_discover_is_read_and_written_octet_for_octet() -> None:
    octets = message("350101 32040a010011 3d0701020000000011 ff").ljust(300, b"\0")
    assert dhcpv4.decode(octets) == DISCOVER
    assert dhcpv4.encode(DISCOVER) == octets


def test_an_offer_is_read_and_written_octet_for_octet() -> None:
    fixed = "02010600 00000007 0000 0000 00000000 0a010011".replace(" ", "")
    octets = bytes.fromhex(fixed) + bytes(8) + MAC.ljust(16, b"\0") + bytes(192) + bytes.fromhex(COOKIE + OFFER_OPTIONS)
    assert dhcpv4.encode(OFFER) == octets.ljust(300, b"\0")
    assert dhcpv4.decode(octets) == OFFER


def test_options_may_stand_in_the_name_fields_too() -> None:
    found = dhcpv4.decode(message("350101 340103 ff", file="32040a010011 ff", sname="3d03aabbcc ff"))
    assert (found.requested_address, found.client_identifier) == (ADDRESS, bytes.fromhex("aabbcc"))


def test_name_fields_that_hold_names_are_not_read() -> None:
    assert dhcpv4.decode(message("350101 ff", file="32040a010011 ff")).requested_address is None


def test_the_pieces_of_an_option_are_one() -> None:
    assert dhcpv4.decode(message("350101 3d02aabb 3d01cc ff")).client_identifier == bytes.fromhex("aabbcc")


def test_an_option_too_long_for_one_is_written_in_pieces() -> None:
    long = replace(DISCOVER, client_identifier=bytes(range(256)) * 2)
    assert dhcpv4.decode(dhcpv4.encode(long)) == long


@pytest.mark.parametrize(("option", "text"), [("3800", ""), ("3803 6ef66f", "n\\xf6o")])
def test_a_text_is_written_as_it_was_read_also_an_empty_one_and_one_that_is_not_ascii(option: str, text: str) -> None:
    nak = dhcpv4.decode(message("350106" + option + "ff"))
    assert nak.text == text
    assert dhcpv4.decode(dhcpv4.encode(nak)) == nak


def test_unknown_options_and_what_follows_the_end_are_passed_by() -> None:
    assert dhcpv4.decode(message("0c0141 350108 00 ff 3204")).type == Dhcpv4MessageType.INFORM


def test_an_unknown_message_type_stays_a_number() -> None:
    assert dhcpv4.decode(message("35010d ff")).type == 13


@pytest.mark.parametrize(
    ("octets", "reason"),
    [
        (b"", Reason.TRUNCATED),
        (message("")[:-1], Reason.TRUNCATED),
        (message("350101").replace(bytes.fromhex(COOKIE), b"abcd"), Reason.UNKNOWN_TYPE),
        (message("32040a010011 ff"), Reason.UNKNOWN_TYPE),
        (message("3501"), Reason.OPTION_OVERRUN),
        (message("350101 32"), Reason.OPTION_TRUNCATED),
        (message("350101 320301"), Reason.OPTION_OVERRUN),
        (message("350101 32030a0100 ff"), Reason.FIELD),
        (message("35020101 ff"), Reason.FIELD),
        (message("350101 0104ff00ff00 ff"), Reason.FIELD),
        (message("350101 34020102 ff"), Reason.FIELD),
        (message("350101 ff", fixed="03010600 deadbeef 0000 8000"), Reason.FIELD),
        (message("350101 ff", fixed="01060600 deadbeef 0000 8000"), Reason.FIELD),
        (message("350101 ff", fixed="01011100 deadbeef 0000 8000"), Reason.FIELD),
    ],
)
def test_broken_octets_are_refused_for_a_reason(octets: bytes, reason: Reason) -> None:
    assert refused(octets) == reason


def test_a_value_that_does_not_fit_is_our_fault() -> None:
    with pytest.raises(UnencodableMessage):
        dhcpv4.encode(replace(OFFER, mtu=1 << 16))


@given(st.binary(max_size=600))
def test_no_octets_whatever_raise_anything_but_malformed_message(octets: bytes) -> None:
    for candidate in (octets, message(octets.hex())):
        with suppress(MalformedMessage):
            dhcpv4.decode(candidate)


# UDP and ARP

ASKED = udp.Datagram(
    source=IPv4Address(0), destination=dhcpv4.BROADCAST, source_port=68, destination_port=67, payload=b"hello"
)
ASKED_OVER_IPV6 = replace(ASKED, source=IPv6Address("fe80::11"), destination=IPv6Address("ff02::1:2"))


@pytest.mark.parametrize("datagram", [ASKED, ASKED_OVER_IPV6, replace(ASKED, payload=b"")])
def test_a_datagram_survives_its_packet_also_when_the_frame_is_padded(datagram: udp.Datagram) -> None:
    assert udp.decode(udp.encode(datagram) + bytes(18)) == datagram


def test_what_stands_behind_a_datagram_in_its_packet_is_left_out() -> None:
    shorter = replace(ASKED, payload=b"hel")
    packet = bytearray(udp.encode(ASKED))
    packet[20:28] = udp.encode(shorter)[20:28]
    assert udp.decode(bytes(packet)) == shorter


def test_an_ipv4_packet_is_written_octet_for_octet() -> None:
    octets = bytes.fromhex("450000210000000040117acd 00000000ffffffff 00440043000dbb7b") + b"hello"
    assert udp.encode(ASKED) == octets


@pytest.mark.parametrize("at", [10, 12, 21, 27, 30])
def test_a_packet_with_a_flipped_bit_is_refused(at: int) -> None:
    packet = bytearray(udp.encode(ASKED))
    packet[at] ^= 4
    with pytest.raises(MalformedMessage):
        udp.decode(bytes(packet))


def test_a_checksum_that_was_left_to_a_card_is_not_looked_at() -> None:
    packet = bytearray(udp.encode(ASKED_OVER_IPV6))
    packet[46] ^= 0xFF
    assert udp.decode(bytes(packet), udp.Checksum.UNFINISHED) == ASKED_OVER_IPV6


def test_only_ipv4_may_do_without_a_checksum() -> None:
    without = bytearray(udp.encode(ASKED))
    without[26:28] = bytes(2)
    assert udp.decode(bytes(without)) == ASKED
    without = bytearray(udp.encode(ASKED_OVER_IPV6))
    without[46:48] = bytes(2)
    with pytest.raises(MalformedMessage):
        udp.decode(bytes(without))


def test_a_fragment_is_no_datagram() -> None:
    packet = bytearray(udp.encode(ASKED))
    packet[6] |= 0x20  # more fragments
    packet[10:12] = (int.from_bytes(packet[10:12], "big") - 0x2000).to_bytes(2, "big")
    with pytest.raises(MalformedMessage, match="fragment"):
        udp.decode(bytes(packet))


def test_arp_is_read_and_written_octet_for_octet() -> None:
    octets = bytes.fromhex("0001080006040001" + "020000000011" + "0a010011" + "000000000000" + "0a010001")
    packet = ArpPacket(operation=ArpOperation.REQUEST, sender_link_layer=MAC, sender=ADDRESS, target=ROUTER)
    assert arp.decode(octets + bytes(18)) == packet
    assert arp.encode(packet) == octets


@given(st.binary(max_size=100), st.sampled_from(list(udp.Checksum)))
def test_no_packet_whatever_raises_anything_but_malformed_message(octets: bytes, expect: udp.Checksum) -> None:
    for candidate in (octets, udp.encode(ASKED)[:24] + octets, udp.encode(ASKED_OVER_IPV6)[:44] + octets):
        for read in (lambda packet: udp.decode(packet, expect), arp.decode):
            with suppress(MalformedMessage):
                read(candidate)
