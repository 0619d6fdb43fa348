"""Octets that each door of doors.py takes, to begin from: the vectors, and messages of ours where there are none."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, IPv6Network
from pathlib import Path
from typing import Final

from signaling.errors import MalformedMessage
from signaling.iana import ArpOperation, Dhcpv4MessageType, Dhcpv6MessageType, Dhcpv6Status, ProtocolNumber
from signaling.wire import arp, dhcpv4, dhcpv6, ipv6, mobility_header, neighbor, traffic_selector, udp
from signaling.wire.multicast_listener import (
    MulticastListenerDone,
    MulticastListenerQuery,
    MulticastListenerReport,
    MulticastListenerReportV2,
    MulticastRecord,
)
from signaling.wire.options import FlowIdentification
from tests.fuzz.doors import HERE, KEY, THERE, icmpv6_checksummed, mobility_checksummed

VECTORS: Final = [
    bytes.fromhex(path.read_text()) for path in sorted((Path(__file__).parent.parent / "vectors").rglob("*.hex"))
]
IPV4_UDP = 28  # octets of IPv4 and UDP header before a Mobility Header
MAC, ADDRESS, ROUTER = bytes.fromhex("020000000011"), IPv4Address("10.1.0.17"), IPv4Address("10.1.0.1")
GROUP, PREFIX = IPv6Address("ff05::1:3"), IPv6Network("2001:db8:d0::/56")
DUID = bytes.fromhex("00030001020000000011")


def payloads(protocol: int) -> Iterator[bytes]:
    """Give what the vectors carry of this protocol; of a packet that is itself malformed, what should be it."""
    for octets in VECTORS:
        if octets[0] >> 4 == 4:
            found, payload = int(ProtocolNumber.MOBILITY_HEADER), octets[IPV4_UDP:]
        else:
            found, payload = octets[6], octets[ipv6.HEADER :]
            try:
                packet = ipv6.decode(octets)
                found, payload = packet.next_header, packet.payload
            except MalformedMessage:
                pass
        if found == protocol:
            yield payload


def selectors() -> Iterator[bytes]:
    """Give the traffic selectors in the vectors."""
    for octets in MOBILITY_HEADERS:
        try:
            message = mobility_header.decode(octets, HERE, THERE, verify_checksum=False)
        except MalformedMessage:
            continue
        for option in message.options_of(FlowIdentification):
            if option.selector is not None:
                yield traffic_selector.write(option.selector)


MOBILITY_HEADERS: Final = list(payloads(ProtocolNumber.MOBILITY_HEADER))
ICMPV6: Final = list(payloads(ProtocolNumber.ICMPV6))
LISTENERS: Final = [
    neighbor.encode(message, HERE, THERE)
    for message in (
        MulticastListenerQuery(max_response_delay=1000, version=1),
        MulticastListenerQuery(max_response_delay=90_112, query_interval=512, group=GROUP, sources=(HERE, THERE)),
        MulticastListenerReport(group=GROUP),
        MulticastListenerDone(group=GROUP),
        MulticastListenerReportV2(
            records=(MulticastRecord(kind=4, group=GROUP), MulticastRecord(kind=1, group=GROUP, sources=(HERE,)))
        ),
    )
]
DHCPV4: Final = [
    dhcpv4.encode(message)
    for message in (
        dhcpv4.Dhcpv4Message(
            type=Dhcpv4MessageType.DISCOVER,
            transaction=7,
            link_layer=MAC,
            requested_address=ADDRESS,
            client_identifier=b"\1" + MAC,
        ),
        dhcpv4.Dhcpv4Message(
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
        ),
        dhcpv4.Dhcpv4Message(
            type=Dhcpv4MessageType.NAK, from_client=False, transaction=7, link_layer=MAC, text="not yours"
        ),
    )
]
DHCPV6: Final = [
    dhcpv6.encode(message)
    for message in (
        dhcpv6.Dhcpv6Message(
            type=Dhcpv6MessageType.SOLICIT,
            transaction=1,
            client=DUID,
            rapid_commit=True,
            delegations=(dhcpv6.PrefixAssociation(iaid=1),),
        ),
        dhcpv6.Dhcpv6Message(
            type=Dhcpv6MessageType.REPLY,
            transaction=1,
            client=DUID,
            server=DUID,
            preference=255,
            status=dhcpv6.StatusCode(Dhcpv6Status.USE_MULTICAST, "hi"),
            delegations=(
                dhcpv6.PrefixAssociation(
                    iaid=1, renew_after=150, prefixes=(dhcpv6.DelegatedPrefix(prefix=PREFIX, valid_lifetime=600),)
                ),
            ),
            addresses=(
                dhcpv6.AddressAssociation(iaid=2, status=dhcpv6.StatusCode(Dhcpv6Status.NO_ADDRS_AVAIL)),
                dhcpv6.AddressAssociation(iaid=3, addresses=(HERE,)),
            ),
        ),
    )
]
DATAGRAMS: Final = [
    *(octets for octets in VECTORS if octets[0] >> 4 == 4),
    udp.encode(udp.Datagram(source=HERE, destination=THERE, source_port=546, destination_port=547, payload=DHCPV6[0])),
    udp.encode(udp.Datagram(source=ADDRESS, destination=ROUTER, source_port=68, destination_port=67, payload=KEY)),
]
ARP: Final = [
    arp.encode(arp.ArpPacket(operation=operation, sender_link_layer=MAC, sender=ADDRESS, target=ROUTER))
    for operation in ArpOperation
]

SEEDS: Final[dict[str, list[bytes]]] = {
    "mobility_header": MOBILITY_HEADERS,
    "mobility_header_in_udp": MOBILITY_HEADERS,
    "mobility_header_as_it_came": [mobility_checksummed(octets) for octets in MOBILITY_HEADERS],
    "signed": MOBILITY_HEADERS,
    "neighbor": ICMPV6,
    "neighbor_without_address": ICMPV6,
    "neighbor_as_it_came": [icmpv6_checksummed(octets) for octets in ICMPV6],
    "listener": LISTENERS,
    "ipv6": VECTORS,
    "udp": DATAGRAMS,
    "udp_as_it_came": DATAGRAMS,
    "arp": ARP,
    "dhcpv4": DHCPV4,
    "dhcpv6": DHCPV6,
    "traffic_selector": list(selectors()),
}
