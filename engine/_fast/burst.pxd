"""A burst: up to WIDTH packets on their way through the path, as a struct of arrays.

Packets lie in one arena, one behind the other as they were read, so that small ones of one size leave in one piece;
or, coming from the underlay, as slices of the datagrams they arrived in. The payload never moves.

    arena   | packet 0 | packet 1 | .. packet[i], length[i] octets .. |    at least LARGEST free behind the last
"""

from libc.stdint cimport uint16_t, uint32_t, uint64_t, uint8_t

from engine._fast.headers cimport Address

cdef enum:
    WIDTH = 256              # packets
    LARGEST = 65600          # octets: the largest IP packet (40 + 65535), aligned
    ARENA = 589888           # octets: 512 KiB of packets, and LARGEST behind them

cdef enum:                   # gso[i]: what the packet is a bundle of (numbers of virtio_net_hdr.gso_type)
    GSO_NONE = 0
    GSO_TCP4 = 1
    GSO_TCP6 = 4
    GSO_UDP_L4 = 5           # datagrams of one flow, each with its own UDP header (USO)
    GSO_ECN = 0x80           # flag: TCP, CWR in the first segment only (RFC 3168)

cdef struct Burst:
    uint32_t count
    uint8_t *arena                       # ARENA octets, owned
    # as it arrived
    uint8_t *packet[WIDTH]               # first octet of the inner header
    uint32_t length[WIDTH]               # octets, inner packet; all segments together
    uint8_t drop[WIDTH]                  # Drop; ALIVE while it lives
    uint8_t gso[WIDTH]                   # GSO_*
    uint16_t segment[WIDTH]              # octets of payload in each segment but the last, when gso
    uint16_t checksum_start[WIDTH]       # octets from packet[i]: the sum covers from here to the end
    uint16_t checksum_offset[WIDTH]      # octets from checksum_start: where it has to be written; 0: nothing to write
    # set by parse (flows.identify)
    uint8_t family[WIDTH]                # 4 or 6
    Address source[WIDTH]                # inner; an IPv4 address as ::ffff:a.b.c.d
    Address destination[WIDTH]
    uint8_t protocol[WIDTH]              # upper-layer protocol, behind extension headers
    uint16_t transport[WIDTH]            # octets from packet[i] to the upper-layer header; 0: none here (later fragment)
    uint32_t ports[WIDTH]                # source << 16 | destination of TCP, UDP, SCTP, DCCP; SPI of ESP, AH; else 0
    uint64_t flow[WIDTH]                 # the same for both directions, fragments and ICMP errors of one flow
    # decided on the way
    uint32_t binding[WIDTH]              # index in Prefixes
    uint32_t tunnel[WIDTH]               # index in Tunnels
    uint8_t traffic_class[WIDTH]         # outer: as it arrived, or as it will leave
    uint32_t sequence[WIDTH]             # GRE sequence number: as it arrived, or as it will leave
    uint8_t sequenced[WIDTH]             # it carried one

cdef Burst *allocate() noexcept nogil
cdef void release(Burst *burst) noexcept nogil
cdef void clear(Burst *burst, uint32_t count) noexcept nogil
