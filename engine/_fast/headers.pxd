"""Header layouts, and the loads and stores that read and write them.

Rule: nothing here checks a length. path.parse does, once; below it, lengths are trusted.

    IPv6 (RFC 8200 3)    0  version 4 bits, traffic class 8, flow label 20
                         4  payload length (octets)     6  next header    7  hop limit
                         8  source                     24  destination
"""

from libc.stdint cimport uint16_t, uint64_t, uint8_t
from libc.string cimport memcpy

from engine._fast.kernel cimport be16toh, be64toh

cdef enum:
    IP6_HEADER = 40          # octets
    UDP_PORT = 5437          # of a tunnel over UDP, both ends (RFC 5844 4.1)

cdef enum:                   # ECN field (RFC 3168 5)
    NOT_ECT = 0
    ECT_1 = 1
    ECT_0 = 2
    CE = 3

cdef struct Address:         # an IPv6 address as two host-order numbers
    uint64_t high
    uint64_t low


cdef inline Address load_address(const uint8_t *octets) noexcept nogil:
    cdef uint64_t halves[2]
    cdef Address address
    memcpy(halves, octets, 16)
    address.high = be64toh(halves[0])
    address.low = be64toh(halves[1])
    return address


cdef inline bint same_address(Address one, Address other) noexcept nogil:
    return one.high == other.high and one.low == other.low


cdef inline uint8_t version(const uint8_t *packet) noexcept nogil:
    return packet[0] >> 4


cdef inline uint16_t payload_length(const uint8_t *packet) noexcept nogil:
    return (<uint16_t>packet[4] << 8) | packet[5]


cdef inline uint8_t hop_limit(const uint8_t *packet) noexcept nogil:
    return packet[7]


cdef inline uint8_t traffic_class(const uint8_t *packet) noexcept nogil:
    return <uint8_t>((packet[0] << 4) | (packet[1] >> 4))


cdef inline uint8_t get_ecn(const uint8_t *packet) noexcept nogil:
    return (packet[1] >> 4) & 3


cdef inline void set_ecn(uint8_t *packet, uint8_t ecn) noexcept nogil:
    packet[1] = <uint8_t>((packet[1] & 0xCF) | (ecn << 4))


cdef inline bint stays_on_link(Address address) noexcept nogil:
    """Unspecified, loopback or link-local: no router forwards it (RFC 4291 2.5.2, 2.5.3, 2.5.6)."""
    return (address.high == 0 and address.low <= 1) or (address.high >> 54) == 0x3FA


cdef inline bint is_multicast(Address address) noexcept nogil:
    return (address.high >> 56) == 0xFF


cdef inline bint multicast_stays_on_link(Address address) noexcept nogil:
    """Multicast of reserved, interface-local or link-local scope (RFC 4291 2.7)."""
    return is_multicast(address) and ((address.high >> 48) & 0xF) <= 2
