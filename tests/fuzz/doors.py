"""Every door by which octets come in from outside, and what holds behind it whatever the octets are.

Reading raises MalformedMessage or nothing. What was read is frozen to the bottom, and comes back as it was from the way
out and in again. A checksum is no lock: octets that stand behind one are given the right one first, so that random
octets get past it; what comes without is tried too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from ipaddress import IPv6Address
from typing import Any, Final, NamedTuple

from signaling.errors import MalformedMessage, Reaction, UnencodableMessage
from signaling.iana import AuthenticationSubtype, ProtocolNumber
from signaling.wire import (
    arp,
    authentication,
    codec,
    dhcpv4,
    dhcpv6,
    icmpv6,
    ipv6,
    mobility_header,
    neighbor,
    traffic_selector,
    udp,
)
from signaling.wire.message import Message

HERE, THERE, NOWHERE = IPv6Address("fe80::1"), IPv6Address("fe80::2"), IPv6Address(0)
KEY, SPI = bytes(range(16)), 256
SURELY_FITS = 400  # octets: no message of so few grows beyond 2048 by the padding between its options
IPV4_HEADER = 20  # octets

Octets = Callable[[bytes], bytes]


class Door(NamedTuple):
    """A way in, the way out, and what to do to octets before they come in."""

    decode: Callable[[bytes], Any]
    encode: Callable[[Any], bytes]
    prepare: Octets = bytes


def chosen(octets: bytes) -> tuple[str, bytes]:
    """Give the name of the door that the first octet chooses, and the octets to take there."""
    return tuple(DOORS)[octets[0] % len(DOORS)], octets[1:]


def come_in(door: Door, octets: bytes) -> Any:
    """Give what octets are read as, None if they are malformed. Raises whatever is a fault of ours."""
    octets = door.prepare(octets)
    try:
        found = door.decode(octets)
    except MalformedMessage:
        return None
    hash(found)  # actions that carry it may be compared and kept in sets
    try:
        again = door.encode(found)
    except UnencodableMessage:
        if len(octets) <= SURELY_FITS:
            raise
    else:
        back = door.decode(door.prepare(again))
        assert back == found, f"{found} comes back as {back}"
    return found


# --- checksums made right -----------------------------------------------------------------------------------


def checksummed(octets: bytes, at: int, protocol: int, source: IPv6Address = HERE) -> bytes:
    """Put the right checksum at its place; octets too short for one stay as they are."""
    if len(octets) < at + 2:
        return octets
    blank = octets[:at] + bytes(2) + octets[at + 2 :]
    right = codec.checksum(source, THERE, protocol, blank)
    return blank[:at] + right.to_bytes(2, "big") + blank[at + 2 :]


def mobility_checksummed(octets: bytes) -> bytes:
    """Put the right checksum over as many octets as Header Len announces."""
    end = (octets[1] + 1) * 8 if len(octets) > 1 else 0
    return checksummed(octets[:end], 4, ProtocolNumber.MOBILITY_HEADER) + octets[end:]


def icmpv6_checksummed(octets: bytes, source: IPv6Address = HERE) -> bytes:
    """Put the right checksum over an ICMPv6 message."""
    return checksummed(octets, 2, ProtocolNumber.ICMPV6, source)


def ipv4_checksummed(octets: bytes) -> bytes:
    """Put the right checksum over an IPv4 header; another packet stays as it is."""
    size = (octets[0] & 0xF) * 4 if octets else 0
    if size < IPV4_HEADER or size > len(octets) or octets[0] >> 4 != 4:
        return octets
    blank = octets[:10] + bytes(2) + octets[12:]
    return octets[:10] + (0xFFFF - int.from_bytes(blank[:size], "big") % 0xFFFF).to_bytes(2, "big") + octets[12:]


# --- doors that take more than octets -----------------------------------------------------------------------


def read_mobility_header(octets: bytes, *, verify_checksum: bool) -> Message:
    """Read a Mobility Header; what is wrong with one that calls for a Parameter Problem can be told its sender."""
    try:
        return mobility_header.decode(octets, HERE, THERE, verify_checksum=verify_checksum)
    except MalformedMessage as defect:
        if defect.reaction is Reaction.PARAMETER_PROBLEM:
            ipv6.parameter_problem(octets, HERE, THERE, defect)
        raise


def write_mobility_header(message: Message) -> bytes:
    """Write a Mobility Header with its checksum."""
    return mobility_header.encode(message, HERE, THERE)


def read_signed(octets: bytes) -> Message:
    """Read a Mobility Header as one whose sender has to be judged."""
    for subtype in AuthenticationSubtype:
        authentication.verify(octets, KEY, HERE, subtype=subtype)
    message = read_mobility_header(octets, verify_checksum=False)
    authentication.spi_of(message)
    return message


def write_signed(message: Message) -> bytes:
    """Sign a message with each authenticator: it has to verify. Give it without."""
    for subtype in AuthenticationSubtype:
        signed = authentication.sign(message, KEY, SPI, care_of=HERE, source=HERE, destination=THERE, subtype=subtype)
        assert authentication.verify(signed, KEY, HERE, subtype=subtype)
    return write_mobility_header(message)


def read_icmpv6(octets: bytes, hop_limit: int, source: IPv6Address = HERE) -> Message:
    """Read an ICMPv6 message; of the packet that an error quotes, no more than would be sent."""
    message = neighbor.decode(octets, source, THERE, hop_limit)
    if isinstance(message, icmpv6.IcmpErrorMessage):
        return replace(message, invoking=message.invoking[: icmpv6.MAX_QUOTE])
    return message


def write_icmpv6(message: Message, source: IPv6Address = HERE) -> bytes:
    """Write an ICMPv6 message."""
    return neighbor.encode(message, source, THERE)


def read_packet(octets: bytes) -> ipv6.Packet:
    """Read an IPv6 packet; where its payload stood is not kept on the way out."""
    return replace(ipv6.decode(octets), payload_offset=0)


DOORS: Final[dict[str, Door]] = {
    "mobility_header": Door(
        partial(read_mobility_header, verify_checksum=True), write_mobility_header, mobility_checksummed
    ),
    "mobility_header_in_udp": Door(partial(read_mobility_header, verify_checksum=False), write_mobility_header),
    "mobility_header_as_it_came": Door(partial(read_mobility_header, verify_checksum=True), write_mobility_header),
    "signed": Door(read_signed, write_signed),
    "neighbor": Door(partial(read_icmpv6, hop_limit=255), write_icmpv6, icmpv6_checksummed),
    "neighbor_without_address": Door(
        partial(read_icmpv6, hop_limit=255, source=NOWHERE),
        partial(write_icmpv6, source=NOWHERE),
        partial(icmpv6_checksummed, source=NOWHERE),
    ),
    "neighbor_as_it_came": Door(partial(read_icmpv6, hop_limit=255), write_icmpv6),
    "listener": Door(partial(read_icmpv6, hop_limit=1), write_icmpv6, icmpv6_checksummed),
    "ipv6": Door(read_packet, ipv6.encode),
    "udp": Door(partial(udp.decode, expect=udp.Checksum.UNFINISHED), udp.encode, ipv4_checksummed),
    "udp_as_it_came": Door(udp.decode, udp.encode),
    "arp": Door(arp.decode, arp.encode),
    "dhcpv4": Door(dhcpv4.decode, dhcpv4.encode),
    "dhcpv6": Door(dhcpv6.decode, dhcpv6.encode),
    "traffic_selector": Door(traffic_selector.read, traffic_selector.write),
}
