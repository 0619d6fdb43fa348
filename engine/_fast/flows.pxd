"""Flows: what the headers of a packet say about it, and one hash for everything that belongs to a conversation.

    identify -> burst.protocol, transport, ports, flow

flow is the same at both ends of a tunnel, in both directions, for all fragments of a packet whose first fragment was
seen, and for ICMP errors about the flow; nothing secret is in it, so that both ends choose alike.

    IPv6 | Hop-by-Hop, Destination Options, Routing, Fragment, AH, at most MOST_HEADERS | upper layer
    IPv4, options | AH                                                                    | upper layer

No octet outside packet[i] .. packet[i] + length[i] is read, whatever the packet claims.
"""

from libc.stdint cimport uint16_t, uint32_t, uint64_t, uint8_t

from engine._fast.burst cimport WIDTH, Burst
from engine._fast.headers cimport (
    IP4_HEADER, IP6_HEADER, PROTO_TCP, PROTO_UDP, Address, load16, load32,
)
from engine._fast.kernel cimport likely

cdef extern from *:
    """
    #ifndef OPENMAR_FOLD128
    #define OPENMAR_FOLD128
    #include <stdint.h>
    static inline uint64_t openmar_fold128(uint64_t one, uint64_t other)
    {
    #ifdef __SIZEOF_INT128__
        unsigned __int128 product = (unsigned __int128)one * other;
        return (uint64_t)product ^ (uint64_t)(product >> 64);
    #else
        uint64_t low = (one & 0xffffffff) * (other & 0xffffffff), high = (one >> 32) * (other >> 32);
        uint64_t left = (one >> 32) * (other & 0xffffffff), right = (one & 0xffffffff) * (other >> 32);
        uint64_t middle = (low >> 32) + (left & 0xffffffff) + (right & 0xffffffff);
        return ((low & 0xffffffff) | middle << 32) ^ (high + (left >> 32) + (right >> 32) + (middle >> 32));
    #endif
    }
    #endif
    """
    # both halves of the product, one upon the other: each bit of the result depends on most bits of both
    uint64_t fold128 "openmar_fold128"(uint64_t one, uint64_t other) noexcept nogil

cdef enum:
    MOST_HEADERS = 16        # of an extension header chain; behind them nobody looks
    FRAGMENT_SETS = 256      # entries: packets whose first fragment is remembered
    FRAGMENT_WAYS = 4
    FRAGMENT_AGE = 300       # 0.1 s: as long as a receiver would wait for the rest, and reuse of numbers allows

cdef enum:                   # Headers.fragment
    WHOLE = 0
    FIRST = 1
    LATER = 2

cdef struct Headers:         # of one packet
    uint64_t chain[4]        # bit n: protocol number n stands in the chain, the upper-layer protocol included
    uint32_t ports           # source << 16 | destination, if HAS_PORTS
    uint32_t spi             # of ESP or AH, if HAS_SPI
    uint32_t identification  # of a fragment
    uint16_t transport       # octets to the upper-layer header; 0: none here
    uint8_t protocol         # upper-layer protocol; where the chain breaks off: the number looked for there
    uint8_t known            # HAS_PORTS, HAS_SPI of rules.pxd
    uint8_t fragment         # WHOLE, FIRST or LATER
    uint8_t next_header      # of the fragment header; IPv4: protocol

cdef struct FirstFragment:   # what later fragments are told by; 112 octets
    Address source
    Address destination
    uint64_t flow
    uint64_t chain[4]
    uint32_t identification
    uint32_t ports
    uint32_t spi
    uint32_t seen            # clock
    uint32_t order           # of arrival
    uint8_t next_header
    uint8_t protocol
    uint8_t known
    uint8_t used

cdef struct Fragments:       # of one worker
    FirstFragment *entries   # FRAGMENT_SETS x FRAGMENT_WAYS
    uint32_t clock           # 0.1 s: tables.clock_of the time when the burst began
    uint32_t arrived         # first fragments so far
    uint8_t odd[WIDTH]       # packet i is not plain TCP or UDP: header[i] says what it is
    Headers header[WIDTH]


cdef inline uint64_t mix(uint64_t h) noexcept nogil:
    """Every bit of the result depends on every bit of h (SplitMix64)."""
    h = (h ^ (h >> 30)) * <uint64_t>0xBF58476D1CE4E5B9U
    h = (h ^ (h >> 27)) * <uint64_t>0x94D049BB133111EBU
    return h ^ (h >> 31)


cdef inline uint64_t end_point(Address address, uint32_t port) noexcept nogil:
    return fold128(
        address.high ^ <uint64_t>0x9E3779B97F4A7C15U,
        (address.low ^ <uint64_t>0xD6E8FEB86659FD93U) + <uint64_t>port * <uint64_t>0xA0761D6478BD642FU)


cdef inline uint64_t flow_of(Address one, Address other, uint32_t ports, uint8_t protocol) noexcept nogil:
    """The sum of both ends does not know which of them spoke. ports: source << 16 | destination, or 0."""
    return fold128(end_point(one, ports >> 16) + end_point(other, ports & 0xFFFF) + protocol,
                   <uint64_t>0xE7037ED1A0B428DBU)


cdef inline void identify(Burst *burst, uint32_t i, Fragments *fragments) noexcept nogil:
    """Set protocol, transport, ports and flow of packet i from its family, addresses and octets."""
    cdef const uint8_t *packet = burst.packet[i]
    cdef uint32_t start
    cdef uint8_t protocol
    if burst.family[i] == 6:
        start = IP6_HEADER
        protocol = packet[6] if burst.length[i] >= IP6_HEADER + 4 else 0
    else:
        start = IP4_HEADER
        protocol = 0
        if burst.length[i] >= IP4_HEADER + 4 and packet[0] == 0x45 and (load16(packet + 6) & 0x3FFF) == 0:
            protocol = packet[9]
    if likely(protocol == PROTO_TCP or protocol == PROTO_UDP):
        fragments.odd[i] = 0
        burst.protocol[i] = protocol
        burst.transport[i] = <uint16_t>start
        burst.ports[i] = load32(packet + start)
        burst.flow[i] = flow_of(burst.source[i], burst.destination[i], burst.ports[i], protocol)
    else:
        examine(burst, i, fragments)


cdef inline void tick(Fragments *fragments, uint32_t clock) noexcept nogil:
    """A burst begins. clock: 0.1 s."""
    fragments.clock = clock


cdef int create(Fragments *fragments) noexcept nogil                 # -1: no memory
cdef void destroy(Fragments *fragments) noexcept nogil
cdef void examine(Burst *burst, uint32_t i, Fragments *fragments) noexcept nogil
cdef void read_headers(Headers *headers, const uint8_t *packet, uint32_t length, uint8_t family) noexcept nogil
