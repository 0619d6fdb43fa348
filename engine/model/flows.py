"""Flows in plain Python: what the headers of a packet say about it, the hash of its flow, and selectors.

Specification of _fast/flows.pyx and of the first half of _fast/rules.pyx.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address

from engine.rules import TrafficSelector
from engine.tunnels import MAPPED

MASK = (1 << 64) - 1
TCP, UDP, ESP, AH, NO_NEXT, UDP_LITE = 6, 17, 50, 51, 59, 136
HOP_BY_HOP, ROUTING, FRAGMENT, DESTINATION_OPTIONS = 0, 43, 44, 60
ICMP, ICMP6 = 1, 58
WITH_PORTS = frozenset({TCP, UDP, 33, 132, UDP_LITE})  # 33 DCCP, 132 SCTP: all begin with both ports
EXTENSIONS = {4: frozenset({AH}), 6: frozenset({HOP_BY_HOP, ROUTING, FRAGMENT, DESTINATION_OPTIONS, AH})}
ERRORS = {4: frozenset({3, 4, 5, 11, 12}), 6: frozenset(range(128))}  # types, RFC 792 and RFC 4443 2.1
MOST_HEADERS = 16  # of an extension header chain
FRAGMENT_SETS, FRAGMENT_WAYS = 256, 4
FRAGMENT_AGE = 300  # 0.1 s
WHOLE, FIRST, LATER = range(3)


@dataclass(slots=True, kw_only=True)
class Headers:
    """What the headers of one packet say."""

    chain: set[int] = field(default_factory=set)  # numbers of its headers, the upper-layer protocol included
    protocol: int = 0  # upper-layer protocol; where the chain breaks off: the number looked for there
    transport: int = 0  # octets to the upper-layer header; 0: none here
    ports: int | None = None  # source << 16 | destination
    spi: int | None = None  # of ESP or AH
    fragment: int = WHOLE
    identification: int = 0
    next_header: int = 0  # of the fragment header; IPv4: protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """A packet, as rules and spread see it."""

    family: int
    source: bytes  # 16 octets; an IPv4 address as ::ffff:a.b.c.d
    destination: bytes
    protocol: int
    transport: int
    ports: int  # source << 16 | destination, or SPI, or 0
    flow: int  # 64 bits: both directions, fragments and ICMP errors of one flow have the same
    chain: frozenset[int]
    source_port: int | None
    destination_port: int | None
    spi: int | None
    flow_label: int
    traffic_class: int


@dataclass(slots=True, kw_only=True)
class FirstFragment:
    """What later fragments of a packet are told by."""

    key: tuple[bytes, bytes, int, int]
    headers: Headers
    flow: int
    seen: int  # clock
    order: int  # of arrival


class Fragments:
    """First fragments seen lately. Bounded: of the packets that share a set, the oldest is forgotten."""

    def __init__(self) -> None:
        self.clock = 0  # 0.1 s
        self.arrived = 0  # first fragments so far
        self.sets: list[list[FirstFragment | None]] = [[None] * FRAGMENT_WAYS for _ in range(FRAGMENT_SETS)]

    def remember(self, source: bytes, destination: bytes, headers: Headers, flow: int) -> None:
        """In the place of an earlier packet with that identification, in a free one, or in that of the oldest."""
        key = (source, destination, headers.identification, headers.next_header)
        ways = self._set(key)
        same = [way for way in range(FRAGMENT_WAYS) if (entry := ways[way]) and entry.key == key]
        ages = [entry.order if entry else -1 for entry in ways]
        oldest = ages.index(min(ages))
        ways[[*same, oldest][0]] = FirstFragment(
            key=key, headers=headers, flow=flow, seen=self.clock, order=self.arrived
        )
        self.arrived += 1

    def recall(self, source: bytes, destination: bytes, headers: Headers) -> FirstFragment | None:
        """The first fragment of that packet."""
        key = (source, destination, headers.identification, headers.next_header)
        for entry in self._set(key):
            if entry and entry.key == key:
                return entry if self.clock - entry.seen & 0xFFFFFFFF <= FRAGMENT_AGE else None
        return None

    def _set(self, key: tuple[bytes, bytes, int, int]) -> list[FirstFragment | None]:
        source, destination, identification, next_header = key
        h = end_point(source, identification) + 3 * end_point(destination, next_header)
        return self.sets[mix(h & MASK) % FRAGMENT_SETS]


# --- the hash ------------------------------------------------------------------------------------------


def mix(h: int) -> int:
    """64 bits from 64 bits, each of which depends on all (SplitMix64)."""
    h = (h ^ h >> 30) * 0xBF58476D1CE4E5B9 & MASK
    h = (h ^ h >> 27) * 0x94D049BB133111EB & MASK
    return h ^ h >> 31


def fold(one: int, other: int) -> int:
    """Both halves of the 128-bit product, one upon the other."""
    product = (one & MASK) * (other & MASK)
    return product & MASK ^ product >> 64


def end_point(address: bytes, port: int) -> int:
    """One side of a flow."""
    high, low = int.from_bytes(address[:8], "big"), int.from_bytes(address[8:], "big")
    return fold(high ^ 0x9E3779B97F4A7C15, (low ^ 0xD6E8FEB86659FD93) + port * 0xA0761D6478BD642F)


def flow_of(one: bytes, other: bytes, ports: int, protocol: int) -> int:
    """The sum of both sides does not know which of them spoke."""
    return fold(end_point(one, ports >> 16) + end_point(other, ports & 0xFFFF) + protocol, 0xE7037ED1A0B428DB)


# --- the headers ---------------------------------------------------------------------------------------


def identify(packet: bytes, fragments: Fragments) -> Identity:
    """What a packet is. Its fixed header is whole, its length right; behind that there may be anything."""
    family = 4 if packet and packet[0] >> 4 == 4 else 6
    source, destination = addresses(packet, family)
    headers = read_headers(packet, family)
    first = fragments.recall(source, destination, headers) if headers.fragment == LATER else None
    if first:
        flow = first.flow
        headers.ports, headers.spi = first.headers.ports, first.headers.spi
        headers.protocol = first.headers.protocol
        headers.chain |= first.headers.chain
    else:
        quoted = quoted_flow(packet, family, headers)
        own = flow_of(source, destination, headers.ports or 0, headers.protocol)
        flow = own if quoted is None else quoted
        if headers.fragment == FIRST:
            fragments.remember(source, destination, headers, flow)
    first_word = int.from_bytes(packet[:4].ljust(4, b"\0"), "big")
    return Identity(
        family=family,
        source=source,
        destination=destination,
        protocol=headers.protocol,
        transport=headers.transport,
        ports=next((number for number in (headers.ports, headers.spi) if number is not None), 0),
        flow=flow,
        chain=frozenset(headers.chain),
        source_port=None if headers.ports is None else headers.ports >> 16,
        destination_port=None if headers.ports is None else headers.ports & 0xFFFF,
        spi=headers.spi,
        flow_label=first_word & 0xFFFFF if family == 6 else 0,
        traffic_class=(first_word >> 20 if family == 6 else first_word >> 16) & 0xFF,
    )


def addresses(packet: bytes, family: int) -> tuple[bytes, bytes]:
    """Source and destination, 16 octets each; zeros of a packet without a whole fixed header."""
    if len(packet) < (40 if family == 6 else 20):
        return bytes(16), bytes(16)
    if family == 6:
        return packet[8:24], packet[24:40]
    return MAPPED + packet[12:16], MAPPED + packet[16:20]


def read_headers(packet: bytes, family: int) -> Headers:
    """Follow the chain of headers. One that breaks off leaves transport 0 and no ports."""
    headers = Headers()
    start = _first_header(headers, packet, family)
    if start is None:
        return headers
    passed = 0
    fragmented = False
    while headers.protocol in EXTENSIONS[family]:
        if passed == MOST_HEADERS or start + 8 > len(packet):
            return headers
        passed += 1
        extension = packet[start:]
        size = 8 * (extension[1] + 1)
        if headers.protocol == FRAGMENT:
            if fragmented:
                return headers
            fragmented = True
            size = 8
            _fragment_header(headers, extension)
            if headers.fragment == LATER:
                return headers
        elif headers.protocol == AH:
            size = 4 * (extension[1] + 2)
            headers.spi = int.from_bytes(extension[4:8], "big") if headers.spi is None else headers.spi
        if start + size > len(packet):
            return headers
        _add(headers, extension[0])
        start += size
    _upper_layer(headers, packet, start)
    return headers


def _add(headers: Headers, number: int) -> None:
    headers.protocol = number
    headers.chain.add(number)


def _first_header(headers: Headers, packet: bytes, family: int) -> int | None:
    """Octets of the fixed header; None: nothing readable follows it."""
    if family == 6:
        if len(packet) < 40:
            return None
        _add(headers, packet[6])
        return 40
    size = 4 * (packet[0] & 15)
    if len(packet) < 20 or size < 20 or size > len(packet):
        return None
    _add(headers, packet[9])
    headers.next_header = packet[9]
    headers.identification = int.from_bytes(packet[4:6], "big")
    fragment = int.from_bytes(packet[6:8], "big")
    if fragment & 0x1FFF:
        headers.fragment = LATER
        return None
    headers.fragment = FIRST if fragment & 0x2000 else WHOLE
    return size


def _fragment_header(headers: Headers, octets: bytes) -> None:
    """RFC 8200 4.5. A fragment that is the whole packet is none (RFC 6946)."""
    offset = int.from_bytes(octets[2:4], "big")
    headers.next_header = octets[0]
    headers.identification = int.from_bytes(octets[4:8], "big")
    if offset & 0xFFF8:
        headers.fragment = LATER
        _add(headers, octets[0])
    elif offset & 1:
        headers.fragment = FIRST


def _upper_layer(headers: Headers, packet: bytes, start: int) -> None:
    if start >= len(packet) or headers.protocol == NO_NEXT:
        return
    headers.transport = start
    if start + 4 > len(packet):
        return
    word = int.from_bytes(packet[start : start + 4], "big")
    if headers.protocol in WITH_PORTS:
        headers.ports = word
    elif headers.protocol == ESP and headers.spi is None:
        headers.spi = word


def quoted_flow(packet: bytes, family: int, headers: Headers) -> int | None:
    """The flow of the packet that an ICMP error quotes; None: it is none, or quotes less than a header."""
    if headers.transport == 0 or headers.protocol != (ICMP6 if family == 6 else ICMP):
        return None
    quoted = packet[headers.transport + 8 :]
    if len(quoted) < (40 if family == 6 else 20) or packet[headers.transport] not in ERRORS[family]:
        return None
    if quoted[0] >> 4 != family:
        return None
    inside = read_headers(quoted, family)
    return flow_of(*addresses(quoted, family), inside.ports or 0, inside.protocol)


# --- selectors -----------------------------------------------------------------------------------------


def matches(selector: TrafficSelector | None, packet: Identity) -> bool:
    """The packet is one of those that the selector selects."""
    if selector is None:
        return True
    if selector.family != packet.family:
        return False
    kind = IPv6Address if packet.family == 6 else IPv4Address
    source, destination = (
        kind(address if packet.family == 6 else address[12:]) for address in (packet.source, packet.destination)
    )
    values = {
        "source": source,
        "destination": destination,
        "spi": packet.spi,
        "flow_label": packet.flow_label,
        "source_port": packet.source_port,
        "destination_port": packet.destination_port,
    }
    for name, value in values.items():
        ends = getattr(selector, name)
        if ends is not None and (value is None or not ends[0] <= value <= ends[1]):
            return False
    if selector.traffic_class is not None:
        low, high = (end >> 2 for end in selector.traffic_class)
        if not low <= packet.traffic_class >> 2 <= high:
            return False
    if selector.protocol is not None:
        low, high = selector.protocol
        return any(low <= number <= high for number in {packet.protocol, *packet.chain})
    return True
