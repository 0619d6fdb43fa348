"""Header layouts, and the loads and stores that read and write them.

Rule: nothing here checks a length. path.parse does, once; below it, lengths are trusted.

    IPv6 (RFC 8200 3)    0  version 4 bits, traffic class 8, flow label 20
                         4  payload length (octets)     6  next header    7  hop limit
                         8  source                     24  destination
    IPv4 (RFC 791 3.1)   0  version 4 bits, header length 4 bits (x 4 octets)    1  type of service
                         2  total length (octets)       4  identification        6  flags 3 bits, fragment offset 13
                         8  time to live                9  protocol             10  header checksum
                        12  source                     16  destination
    TCP (RFC 9293 3.1)   0  source port   2  destination port   4  sequence number   8  acknowledgment number
                        12  header length 4 bits (x 4 octets)  13  flags  14  window  16  checksum  18  urgent pointer
    UDP (RFC 768)        0  source port   2  destination port   4  length (octets)   6  checksum
    GRE (RFC 2890 2)     0  C - K S, reserved, version          2  protocol
                         then, where flagged: checksum 2 and reserved 2, key 4, sequence number 4
"""

from libc.stdint cimport uint16_t, uint32_t, uint64_t, uint8_t
from libc.string cimport memcpy

from engine._fast.kernel cimport be16toh, be32toh, be64toh, htobe16, htobe32, htobe64

cdef enum:
    IP6_HEADER = 40          # octets
    IP4_HEADER = 20          # octets, without options
    TCP_HEADER = 20          # octets, without options
    UDP_HEADER = 8           # octets
    GRE_HEADER = 4           # octets, without optional fields
    UDP_PORT = 5437          # of a tunnel over UDP (RFC 5844 4.1)
    LEAST_MTU6 = 1280        # octets every IPv6 path carries (RFC 8200 5)
    DONT_FRAGMENT = 0x4000   # IPv4: flags and fragment offset

cdef enum:                   # Assigned Internet Protocol Numbers
    PROTO_HOPOPTS = 0
    PROTO_ICMP = 1
    PROTO_IPV4 = 4
    PROTO_TCP = 6
    PROTO_UDP = 17
    PROTO_DCCP = 33
    PROTO_IPV6 = 41
    PROTO_ROUTING = 43
    PROTO_FRAGMENT = 44
    PROTO_GRE = 47
    PROTO_ESP = 50
    PROTO_AH = 51
    PROTO_ICMPV6 = 58
    PROTO_NONE = 59
    PROTO_DSTOPTS = 60
    PROTO_SCTP = 132
    PROTO_MOBILITY = 135

cdef enum:                   # ECN field (RFC 3168 5)
    NOT_ECT = 0
    ECT_1 = 1
    ECT_0 = 2
    CE = 3

cdef enum:
    GRE_CHECKSUM = 0x8000
    GRE_ROUTING = 0x4000
    GRE_KEY = 0x2000
    GRE_SEQUENCE = 0x1000
    GRE_IPV4 = 0x0800        # EtherTypes
    GRE_IPV6 = 0x86DD

cdef struct Address:         # an IPv6 address as two host-order numbers; IPv4 is ::ffff:a.b.c.d
    uint64_t high
    uint64_t low


cdef inline uint16_t load16(const uint8_t *octets) noexcept nogil:
    cdef uint16_t number
    memcpy(&number, octets, 2)
    return be16toh(number)


cdef inline uint32_t load32(const uint8_t *octets) noexcept nogil:
    cdef uint32_t number
    memcpy(&number, octets, 4)
    return be32toh(number)


cdef inline void store16(uint8_t *octets, uint16_t number) noexcept nogil:
    number = htobe16(number)
    memcpy(octets, &number, 2)


cdef inline void store32(uint8_t *octets, uint32_t number) noexcept nogil:
    number = htobe32(number)
    memcpy(octets, &number, 4)


cdef inline Address load_address(const uint8_t *octets) noexcept nogil:
    cdef uint64_t halves[2]
    cdef Address address
    memcpy(halves, octets, 16)
    address.high = be64toh(halves[0])
    address.low = be64toh(halves[1])
    return address


cdef inline Address load_address4(const uint8_t *octets) noexcept nogil:
    cdef Address address
    address.high = 0
    address.low = <uint64_t>0xFFFF00000000U | load32(octets)
    return address


cdef inline void store_address(uint8_t *octets, Address address) noexcept nogil:
    cdef uint64_t halves[2]
    halves[0] = htobe64(address.high)
    halves[1] = htobe64(address.low)
    memcpy(octets, halves, 16)


cdef inline bint same_address(Address one, Address other) noexcept nogil:
    return one.high == other.high and one.low == other.low


cdef inline bint is_mapped(Address address) noexcept nogil:
    """An IPv4 address."""
    return address.high == 0 and (address.low >> 32) == 0xFFFF


cdef inline uint8_t version(const uint8_t *packet) noexcept nogil:
    return packet[0] >> 4


cdef inline uint16_t payload_length(const uint8_t *packet) noexcept nogil:
    return load16(packet + 4)


cdef inline uint8_t hop_limit(const uint8_t *packet) noexcept nogil:
    return packet[7]


cdef inline uint8_t traffic_class(const uint8_t *packet) noexcept nogil:
    """Of either version: DSCP and ECN."""
    if version(packet) == 4:
        return packet[1]
    return <uint8_t>((packet[0] << 4) | (packet[1] >> 4))


cdef inline uint32_t flow_label(const uint8_t *packet) noexcept nogil:
    return load32(packet) & 0xFFFFF


cdef inline uint8_t get_ecn(const uint8_t *packet) noexcept nogil:
    return traffic_class(packet) & 3


cdef inline bint may_fragment(const uint8_t *packet, uint32_t length) noexcept nogil:
    """A packet of that length may travel in outer fragments where a tunnel or its path is too small for it whole.

    IPv6 of 1280 octets at most (RFC 2473 7.1, RFC 4213 3.2, RFC 7676 3.3), IPv4 without DF (RFC 2473 7.2).
    """
    if version(packet) == 4:
        return (load16(packet + 6) & DONT_FRAGMENT) == 0
    return length <= LEAST_MTU6


cdef inline uint32_t gre_options(uint16_t flags) noexcept nogil:
    """Octets of a GRE header behind the first four."""
    return 4 * (<uint32_t>((flags & GRE_CHECKSUM) != 0) + ((flags & GRE_KEY) != 0) + ((flags & GRE_SEQUENCE) != 0))


cdef inline bint stays_on_link(Address address) noexcept nogil:
    """Unspecified, loopback or link-local: no router forwards it (RFC 4291 2.5.2, 2.5.3, 2.5.6)."""
    return (address.high == 0 and address.low <= 1) or (address.high >> 54) == 0x3FA


cdef inline bint stays_on_link4(uint32_t address) noexcept nogil:
    """This network, loopback, link-local, limited broadcast (RFC 1122 3.2.1.3, RFC 3927 7)."""
    return (address >> 24) == 0 or (address >> 24) == 127 or (address >> 16) == 0xA9FE or address == 0xFFFFFFFFU


cdef inline bint is_multicast(Address address) noexcept nogil:
    return (address.high >> 56) == 0xFF


cdef inline bint multicast_stays_on_link(Address address) noexcept nogil:
    """Multicast of reserved, interface-local or link-local scope (RFC 4291 2.7)."""
    return is_multicast(address) and ((address.high >> 48) & 0xF) <= 2
