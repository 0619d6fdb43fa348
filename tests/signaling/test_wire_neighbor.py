"""The checks of RFC 4861 6.1 and 7.1 at the door of the access link, and MLD behind it."""

from ipaddress import IPv6Address, IPv6Network

import pytest

from signaling.errors import MalformedMessage, Reason
from signaling.iana import MulticastRecordType, ProtocolNumber, RouterPreference
from signaling.wire import ipv6, neighbor
from signaling.wire.codec import checksum
from signaling.wire.message import Message
from signaling.wire.neighbor import (
    EchoRequest,
    LinkMtu,
    MalformedOption,
    MulticastListenerQuery,
    MulticastListenerReport,
    MulticastListenerReportV2,
    MulticastRecord,
    NeighborAdvertisement,
    NeighborSolicitation,
    ParameterProblem,
    PrefixInformation,
    RecursiveDnsServer,
    RouteInformation,
    RouterAdvertisement,
    RouterSolicitation,
    SourceLinkLayerAddress,
    UnknownOption,
)

ROUTER, NODE = IPv6Address("fe80::200:5eff:fe00:5213"), IPv6Address("fe80::11")
GLOBAL = IPv6Address("2001:db8::11")
MAC = SourceLinkLayerAddress(address=bytes.fromhex("020000000011"))
ADVERTISEMENT = RouterAdvertisement(
    router_lifetime=1800,
    preference=RouterPreference.HIGH,
    options=(
        MAC,
        LinkMtu(mtu=1460),
        PrefixInformation(
            prefix=IPv6Network("2001:db8:1::/64"), on_link=False, valid_lifetime=7200, preferred_lifetime=0
        ),
        RouteInformation(prefix=IPv6Network("2001:db8:2::/48"), lifetime=600),
        RecursiveDnsServer(addresses=(GLOBAL,), lifetime=1200),
        UnknownOption(type=200, data=bytes(14)),
    ),
)
SOLICITATION = NeighborSolicitation(target=ROUTER)


def through(message: Message, source: IPv6Address, destination: IPv6Address, hop_limit: int = 255) -> Message:
    return neighbor.decode(neighbor.encode(message, source, destination), source, destination, hop_limit)


def with_checksum(octets: bytes) -> bytes:
    value = checksum(NODE, ROUTER, ProtocolNumber.ICMPV6, octets[:2] + bytes(2) + octets[4:])
    return octets[:2] + value.to_bytes(2, "big") + octets[4:]


@pytest.mark.parametrize(
    "message",
    [
        RouterSolicitation(options=(MAC,)),
        ADVERTISEMENT,
        SOLICITATION,
        NeighborAdvertisement(target=NODE, solicited=True, override=True),
        EchoRequest(identifier=1, sequence_number=2, data=b"ping"),
        ParameterProblem(code=1, pointer=40, invoking=b"quote"),
    ],
)
def test_a_message_arrives_as_it_was_sent(message: Message) -> None:
    assert through(message, ROUTER, NODE) == message


SOLICITED_NODE = neighbor.solicited_node(ROUTER)


@pytest.mark.parametrize(
    ("message", "source", "destination", "reason"),
    [
        (ADVERTISEMENT, GLOBAL, NODE, Reason.SOURCE),
        (RouterSolicitation(options=(MAC,)), neighbor.UNSPECIFIED, neighbor.ALL_ROUTERS, Reason.SOURCE),
        (NeighborSolicitation(target=neighbor.ALL_NODES), NODE, ROUTER, Reason.TARGET),
        (SOLICITATION, neighbor.UNSPECIFIED, ROUTER, Reason.SOURCE),
        (NeighborSolicitation(target=ROUTER, options=(MAC,)), neighbor.UNSPECIFIED, SOLICITED_NODE, Reason.SOURCE),
        (NeighborAdvertisement(target=neighbor.ALL_NODES), NODE, ROUTER, Reason.TARGET),
        (NeighborAdvertisement(target=NODE, solicited=True), NODE, neighbor.ALL_NODES, Reason.SOLICITED),
    ],
)
def test_a_message_against_the_rules_is_discarded(
    message: Message, source: IPv6Address, destination: IPv6Address, reason: Reason
) -> None:
    with pytest.raises(MalformedMessage) as caught:
        through(message, source, destination)
    assert caught.value.reason is reason


def test_a_message_from_beyond_the_link_is_discarded() -> None:
    with pytest.raises(MalformedMessage) as caught:
        through(ADVERTISEMENT, ROUTER, NODE, hop_limit=254)
    assert caught.value.reason is Reason.HOP_LIMIT


def test_duplicate_address_detection_passes() -> None:
    assert through(SOLICITATION, neighbor.UNSPECIFIED, SOLICITED_NODE) == SOLICITATION


@pytest.mark.parametrize(
    ("octets", "reason"),
    [
        ("87", Reason.TRUNCATED),
        ("85010000 00000000", Reason.CODE),
        ("85000000 0000", Reason.TRUNCATED),
        ("85000000 00000000 01000000 00000000", Reason.OPTION_LENGTH_ZERO),
        ("85000000 00000000 01020000 00000000", Reason.OPTION_OVERRUN),
        ("85000000 00000000 01", Reason.OPTION_TRUNCATED),
        ("c8000000 00000000", Reason.UNKNOWN_TYPE),
    ],
)
def test_a_broken_frame_is_discarded(octets: str, reason: Reason) -> None:
    raw = bytes.fromhex(octets)
    with pytest.raises(MalformedMessage) as caught:
        neighbor.decode(with_checksum(raw) if len(raw) >= 4 else raw, NODE, ROUTER, 255)
    assert caught.value.reason is reason


def test_a_broken_option_does_not_spoil_the_others() -> None:
    octets = bytes.fromhex("85000000 00000000 0301000000000000 0101020000000011")
    message = neighbor.decode(with_checksum(octets), NODE, ROUTER, 255)
    assert isinstance(message.options[0], MalformedOption)
    assert message.option(SourceLinkLayerAddress) == MAC


def test_fractions_of_lifetimes_are_cut_when_sent() -> None:
    prefix = PrefixInformation(prefix=IPv6Network("2001:db8:1::/64"), valid_lifetime=9.99, preferred_lifetime=0.5)
    option = through(RouterSolicitation(options=(prefix,)), NODE, ROUTER).option(PrefixInformation)
    assert option is not None
    assert (option.valid_lifetime, option.preferred_lifetime) == (9, 0)


GROUP = IPv6Address("ff0e::db8")
RECORDS = (
    MulticastRecord(kind=MulticastRecordType.MODE_IS_EXCLUDE, group=GROUP),
    MulticastRecord(kind=MulticastRecordType.ALLOW_NEW_SOURCES, group=GROUP, sources=(GLOBAL,)),
)


@pytest.mark.parametrize(
    "message",
    [
        MulticastListenerQuery(max_response_delay=10000),
        MulticastListenerQuery(max_response_delay=10000, version=1),
        MulticastListenerQuery(max_response_delay=32768, group=GROUP, sources=(GLOBAL,), query_interval=256),
        MulticastListenerReport(group=GROUP),
        MulticastListenerReportV2(records=RECORDS),
    ],
)
def test_multicast_listener_messages_arrive_as_they_were_sent(message: Message) -> None:
    assert through(message, ROUTER, neighbor.ALL_NODES, hop_limit=1) == message


@pytest.mark.parametrize(("source", "hop_limit"), [(GLOBAL, 1), (NODE, 255)])
def test_a_listener_of_another_link_is_not_heard(source: IPv6Address, hop_limit: int) -> None:
    with pytest.raises(MalformedMessage):
        through(MulticastListenerReport(group=GROUP), source, ROUTER, hop_limit)


def test_a_query_is_carried_with_router_alert_and_one_hop() -> None:
    query = MulticastListenerQuery(max_response_delay=10000)
    octets = ipv6.carry(query, ROUTER, neighbor.ALL_NODES)
    packet = ipv6.decode(octets)
    assert octets[40:48] == bytes.fromhex("3a00050200000100")
    assert (packet.hop_limit, packet.router_alert, packet.next_header) == (1, True, 58)
    assert neighbor.decode(packet.payload, packet.source, packet.destination, packet.hop_limit) == query


def test_an_advertisement_is_carried_with_all_hops() -> None:
    packet = ipv6.decode(ipv6.carry(ADVERTISEMENT, ROUTER, NODE))
    assert (packet.hop_limit, packet.router_alert, packet.payload_offset) == (255, False, 40)
