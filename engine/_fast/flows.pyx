"""Headers read to the end of their chain, fragments told by their first, ICMP errors by what they quote.

engine/model/flows.py is the specification. The packets that come here are not plain TCP or UDP.
"""

from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from engine._fast.headers cimport (
    PROTO_AH, PROTO_DCCP, PROTO_DSTOPTS, PROTO_ESP, PROTO_FRAGMENT, PROTO_HOPOPTS, PROTO_ICMP, PROTO_ICMPV6, PROTO_NONE,
    PROTO_ROUTING, PROTO_SCTP, load_address, load_address4, same_address,
)
from engine._fast.rules cimport HAS_PORTS, HAS_SPI

cdef enum:
    PROTO_UDPLITE = 136


cdef int create(Fragments *fragments) noexcept nogil:
    """No fragments seen yet. -1: no memory."""
    memset(fragments, 0, sizeof(Fragments))
    fragments.entries = <FirstFragment *>calloc(FRAGMENT_SETS * FRAGMENT_WAYS, sizeof(FirstFragment))
    return 0 if fragments.entries != NULL else -1


cdef void destroy(Fragments *fragments) noexcept nogil:
    free(fragments.entries)
    fragments.entries = NULL


cdef void examine(Burst *burst, uint32_t i, Fragments *fragments) noexcept nogil:
    """identify, for any packet: its headers are kept in fragments.header[i] until the next burst."""
    cdef Headers *headers = &fragments.header[i]
    fragments.odd[i] = 1
    read_headers(headers, burst.packet[i], burst.length[i], burst.family[i])
    if headers.fragment != LATER or not recall(fragments, burst, i, headers):
        if not quoted_flow(burst, i, headers):
            burst.flow[i] = flow_of(burst.source[i], burst.destination[i], headers.ports, headers.protocol)
        if headers.fragment == FIRST:
            remember(fragments, burst, i, headers)
    burst.protocol[i] = headers.protocol
    burst.transport[i] = headers.transport
    burst.ports[i] = headers.ports if headers.known & HAS_PORTS else headers.spi


# --- the chain of headers ------------------------------------------------------------------------------

cdef inline void add_to_chain(Headers *headers, uint8_t number) noexcept nogil:
    headers.protocol = number
    headers.chain[number >> 6] |= <uint64_t>1 << (number & 63)


cdef inline bint is_extension(uint8_t number, uint8_t family) noexcept nogil:
    """Another header follows. In IPv4 only AH is of that kind (RFC 4302)."""
    if number == PROTO_AH:
        return True
    return family == 6 and (
        number == PROTO_HOPOPTS or number == PROTO_DSTOPTS or number == PROTO_ROUTING or number == PROTO_FRAGMENT)


cdef void read_headers(Headers *headers, const uint8_t *packet, uint32_t length, uint8_t family) noexcept nogil:
    """Everything that Headers tells about length octets. A chain that breaks off leaves transport 0, nothing known."""
    cdef uint32_t start = first_header(headers, packet, length, family)
    cdef uint32_t size
    cdef uint32_t passed = 0
    cdef bint fragmented = False
    if start == 0:
        return
    while is_extension(headers.protocol, family):
        if passed == MOST_HEADERS or start + 8 > length:
            return
        passed += 1
        if headers.protocol == PROTO_FRAGMENT:
            if fragmented:
                return
            fragmented = True
            size = fragment_header(headers, packet + start)
            if headers.fragment == LATER:
                return
        elif headers.protocol == PROTO_AH:
            note_spi(headers, load32(packet + start + 4))
            size = 4 * (<uint32_t>packet[start + 1] + 2)
        else:
            size = 8 * (<uint32_t>packet[start + 1] + 1)
        if start + size > length:
            return
        add_to_chain(headers, packet[start])
        start += size
    upper_layer(headers, packet + start, start, length - start)


cdef inline uint32_t first_header(
    Headers *headers, const uint8_t *packet, uint32_t length, uint8_t family,
) noexcept nogil:
    """Clear headers and read the fixed header. Octets up to the next one; 0: there is none."""
    cdef uint32_t size
    cdef uint16_t fragment
    memset(headers, 0, sizeof(Headers))
    if family == 6:
        if length < IP6_HEADER:
            return 0
        add_to_chain(headers, packet[6])
        return IP6_HEADER
    if length < IP4_HEADER:
        return 0
    size = 4 * <uint32_t>(packet[0] & 15)
    if size < IP4_HEADER or size > length:
        return 0
    add_to_chain(headers, packet[9])
    headers.next_header = packet[9]
    headers.identification = load16(packet + 4)
    fragment = load16(packet + 6)
    if fragment & 0x1FFF:
        headers.fragment = LATER
        return 0
    headers.fragment = FIRST if fragment & 0x2000 else WHOLE
    return size


cdef inline uint32_t fragment_header(Headers *headers, const uint8_t *octets) noexcept nogil:
    """RFC 8200 4.5. A fragment that is the whole packet is none (RFC 6946)."""
    cdef uint16_t offset = load16(octets + 2)
    headers.next_header = octets[0]
    headers.identification = load32(octets + 4)
    if offset & 0xFFF8:
        headers.fragment = LATER
        add_to_chain(headers, octets[0])
    elif offset & 1:
        headers.fragment = FIRST
    return 8


cdef inline void note_spi(Headers *headers, uint32_t spi) noexcept nogil:
    """The first one of the chain counts."""
    if not headers.known & HAS_SPI:
        headers.spi = spi
        headers.known |= HAS_SPI


cdef inline void upper_layer(
    Headers *headers, const uint8_t *octets, uint32_t start, uint32_t length,
) noexcept nogil:
    cdef uint8_t protocol = headers.protocol
    if length == 0 or protocol == PROTO_NONE:
        return
    headers.transport = <uint16_t>start
    if length < 4:
        return
    if (protocol == PROTO_TCP or protocol == PROTO_UDP or protocol == PROTO_SCTP or protocol == PROTO_DCCP
            or protocol == PROTO_UDPLITE):
        headers.ports = load32(octets)
        headers.known |= HAS_PORTS
    elif protocol == PROTO_ESP:
        note_spi(headers, load32(octets))


# --- fragments -----------------------------------------------------------------------------------------

cdef inline FirstFragment *fragment_set(
    Fragments *fragments, Address source, Address destination, const Headers *headers,
) noexcept nogil:
    cdef uint64_t h = end_point(source, headers.identification) + 3 * end_point(destination, headers.next_header)
    return &fragments.entries[(mix(h) & (FRAGMENT_SETS - 1)) * FRAGMENT_WAYS]


cdef inline bint is_of(
    const FirstFragment *entry, Address source, Address destination, const Headers *headers,
) noexcept nogil:
    return (
        entry.used and entry.identification == headers.identification and entry.next_header == headers.next_header
        and same_address(entry.source, source) and same_address(entry.destination, destination))


cdef void remember(Fragments *fragments, const Burst *burst, uint32_t i, const Headers *headers) noexcept nogil:
    """In the place of an earlier packet with that identification, in a free one, or in that of the oldest."""
    cdef FirstFragment *ways = fragment_set(fragments, burst.source[i], burst.destination[i], headers)
    cdef FirstFragment *best = &ways[0]
    cdef uint32_t way
    for way in range(FRAGMENT_WAYS):
        if is_of(&ways[way], burst.source[i], burst.destination[i], headers):
            best = &ways[way]
            break
        if best.used and (not ways[way].used or fragments.arrived - ways[way].order > fragments.arrived - best.order):
            best = &ways[way]
    best.source = burst.source[i]
    best.destination = burst.destination[i]
    best.flow = burst.flow[i]
    memcpy(best.chain, headers.chain, sizeof(best.chain))
    best.identification = headers.identification
    best.ports = headers.ports
    best.spi = headers.spi
    best.seen = fragments.clock
    best.order = fragments.arrived
    fragments.arrived += 1
    best.next_header = headers.next_header
    best.protocol = headers.protocol
    best.known = headers.known
    best.used = 1


cdef bint recall(Fragments *fragments, Burst *burst, uint32_t i, Headers *headers) noexcept nogil:
    """A later fragment is what its first one was (RFC 6089 5.3.6). False: its first was not seen, ports are unknown."""
    cdef FirstFragment *ways = fragment_set(fragments, burst.source[i], burst.destination[i], headers)
    cdef uint32_t way, word
    for way in range(FRAGMENT_WAYS):
        if is_of(&ways[way], burst.source[i], burst.destination[i], headers):
            if fragments.clock - ways[way].seen > FRAGMENT_AGE:
                return False
            burst.flow[i] = ways[way].flow
            headers.ports = ways[way].ports
            headers.spi = ways[way].spi
            headers.protocol = ways[way].protocol
            headers.known = ways[way].known
            for word in range(4):
                headers.chain[word] |= ways[way].chain[word]
            return True
    return False


# --- ICMP errors ---------------------------------------------------------------------------------------

cdef inline bint is_error(uint8_t protocol, uint8_t kind) noexcept nogil:
    """RFC 4443 2.1; RFC 792: unreachable, quench, redirect, time exceeded, parameter problem."""
    if protocol == PROTO_ICMPV6:
        return kind < 128
    return protocol == PROTO_ICMP and (kind == 3 or kind == 4 or kind == 5 or kind == 11 or kind == 12)


cdef bint quoted_flow(Burst *burst, uint32_t i, const Headers *headers) noexcept nogil:
    """An ICMP error flows with the packet it quotes. False: it is none, or quotes less than a header."""
    cdef const uint8_t *quoted = burst.packet[i] + headers.transport
    cdef uint32_t length = burst.length[i] - headers.transport
    cdef uint8_t family = burst.family[i]
    cdef Headers inside
    if headers.transport == 0 or headers.protocol != (PROTO_ICMPV6 if family == 6 else PROTO_ICMP):
        return False
    if length < 8 + <uint32_t>(IP6_HEADER if family == 6 else IP4_HEADER) or not is_error(headers.protocol, quoted[0]):
        return False
    quoted += 8
    if quoted[0] >> 4 != family:
        return False
    read_headers(&inside, quoted, length - 8, family)
    if family == 6:
        burst.flow[i] = flow_of(load_address(quoted + 8), load_address(quoted + 24), inside.ports, inside.protocol)
    else:
        burst.flow[i] = flow_of(load_address4(quoted + 12), load_address4(quoted + 16), inside.ports, inside.protocol)
    return True
