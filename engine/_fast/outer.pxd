"""Outer headers: put on (compose), taken off (strip), and the GRE header alone for sockets that add the rest (shim).

    IP     | IPv6 or IPv4 | inner packet                          RFC 2473, RFC 2003, RFC 4213
    UDP    | IPv6 or IPv4 | UDP 5437 | inner packet               RFC 5844 4.1
    GRE    | IPv6 or IPv4 | GRE [key] [sequence] | inner packet   RFC 2784, 2890, 7676
"""

from libc.stdint cimport uint16_t, uint32_t, uint64_t, uint8_t
from libc.string cimport memcpy

from engine._fast cimport checksum
from engine._fast.burst cimport WIDTH, Burst
from engine._fast.headers cimport (
    GRE_HEADER, GRE_IPV4, GRE_IPV6, GRE_KEY, GRE_SEQUENCE, IP4_HEADER, IP6_HEADER, PROTO_IPV4, PROTO_IPV6, UDP_HEADER,
    Address, store16, store32,
)
from engine._fast.tunnels cimport GRE, HAS_KEY_OUT, IP, SEQUENCED, UDP, Tunnel

cdef enum:
    MOST_OUTER = 64          # octets: IPv6, GRE with key and sequence number

cdef struct Arrivals:        # where the packets of a burst came from: what recognise wants to know
    uint8_t kind[WIDTH]      # number of engine.Encapsulation
    Address local[WIDTH]
    Address peer[WIDTH]
    uint16_t port[WIDTH]     # UDP source port, host order; else 0
    uint32_t key[WIDTH]      # GRE
    uint8_t keyed[WIDTH]     # it has a key

ctypedef uint8_t (*Strip)(Burst *burst, uint32_t i, Arrivals *arrivals) noexcept nogil

cdef void add_udp_checksum(uint8_t *into, uint32_t ip, const uint8_t *packet, uint32_t length) noexcept nogil
cdef uint8_t strip_gre(Burst *burst, uint32_t i, Arrivals *arrivals) noexcept nogil
cdef uint8_t strip(Burst *burst, uint32_t i, Arrivals *arrivals) noexcept nogil
cdef void turn_round(uint8_t *header, uint32_t length) noexcept nogil


cdef inline uint32_t shim(
    const Tunnel *tunnel, uint8_t family, bint numbered, uint32_t sequence, uint8_t *into,
) noexcept nogil:
    """The GRE header of a packet, for a raw socket. Octets written; 0 when the tunnel is no GRE tunnel."""
    cdef uint32_t length = GRE_HEADER
    cdef uint16_t flags = 0
    if tunnel.encapsulation != GRE:
        return 0
    if tunnel.flags & HAS_KEY_OUT:
        flags |= GRE_KEY
        store32(into + length, tunnel.key_out)
        length += 4
    if numbered:
        flags |= GRE_SEQUENCE
        store32(into + length, sequence)
        length += 4
    store16(into, flags)
    store16(into + 2, GRE_IPV4 if family == 4 else GRE_IPV6)
    return length


cdef inline uint32_t compose(
    const Tunnel *tunnel, uint8_t family, uint8_t traffic_class, uint64_t flow, bint numbered, uint32_t sequence,
    const uint8_t *packet, uint32_t length, uint8_t *into,
) noexcept nogil:
    """All that stands before the inner packet, into MOST_OUTER octets. Octets written."""
    cdef uint32_t ip = IP6_HEADER if tunnel.family == 6 else IP4_HEADER
    cdef uint32_t behind                                  # octets behind the outer IP header
    memcpy(into, tunnel.outer, MOST_OUTER)                # a constant size: two stores, and no call
    if tunnel.encapsulation == UDP:
        behind = UDP_HEADER + length
    else:
        behind = shim(tunnel, family, numbered, sequence, into + ip) + length
    if tunnel.family == 6:
        store32(into, <uint32_t>6 << 28 | <uint32_t>traffic_class << 20 | <uint32_t>(flow & 0xFFFFF))  # RFC 6438 3
        store16(into + 4, <uint16_t>behind)
        if tunnel.encapsulation == IP:
            into[6] = PROTO_IPV6 if family == 6 else PROTO_IPV4
    else:
        into[1] = traffic_class
        store16(into + 2, <uint16_t>(ip + behind))
        if tunnel.encapsulation == IP:
            into[9] = PROTO_IPV6 if family == 6 else PROTO_IPV4
        store16(into + 10, 0)
        checksum.store(into + 10, checksum.finish(checksum.add(into, IP4_HEADER, 0)))
    if tunnel.encapsulation == UDP:
        store16(into + ip + 4, <uint16_t>behind)
        add_udp_checksum(into, ip, packet, length)
    return ip + behind - length
