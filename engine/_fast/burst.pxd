"""A burst: up to WIDTH packets on their way through the path, as a struct of arrays.

Each packet has a buffer of its own for the whole walk, with HEADROOM in front for headers of ours; the
payload never moves. A STRIDE of an odd number of cache lines spreads the headers over the cache sets.

    | HEADROOM | inner packet, up to ROOM octets ........ |
               ^ packet[i]                length[i] octets
"""

from libc.stdint cimport uint16_t, uint32_t, uint64_t, uint8_t

from engine._fast.headers cimport Address
from engine._fast.kernel cimport iovec, mmsghdr, sockaddr_in6

cdef enum:
    WIDTH = 64               # packets
    HEADROOM = 128           # octets
    ROOM = 65600             # octets, the largest IPv6 packet (40 + 65535) and some alignment
    STRIDE = 65728           # octets, HEADROOM + ROOM: 1027 cache lines

cdef struct Burst:
    uint32_t count
    uint8_t *memory                      # WIDTH * STRIDE octets
    uint8_t *packet[WIDTH]               # first octet of the inner header
    uint32_t length[WIDTH]               # octets, inner packet
    uint8_t drop[WIDTH]                  # Drop; ALIVE while it lives
    Address source[WIDTH]                # inner, set by parse
    Address destination[WIDTH]           # inner, set by parse
    uint32_t tunnel[WIDTH]               # index in Tunnels
    uint8_t traffic_class[WIDTH]         # outer: as it arrived, or as it will leave
    sockaddr_in6 outer[WIDTH]            # the other end: where it came from, or where it goes
    uint8_t port[WIDTH]                  # index in Ports by which it leaves
    uint32_t order[WIDTH]                # message k of one sendmmsg is packet order[k]
    mmsghdr message[WIDTH]
    iovec vector[WIDTH]
    uint64_t control[WIDTH][8]           # ancillary data, aligned as cmsghdr wants

cdef Burst *allocate() noexcept nogil
cdef void release(Burst *burst) noexcept nogil
cdef void clear(Burst *burst, uint32_t count) noexcept nogil
