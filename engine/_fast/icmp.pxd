"""ICMP errors toward the sender of a packet that cannot go through its tunnel (RFC 2473 7 and 8, RFC 4443, RFC 792)."""

from libc.stdint cimport uint32_t, uint8_t

from engine._fast.headers cimport Address

cdef enum:
    MOST_ERROR = 1280        # octets, an ICMPv6 error (RFC 4443 2.4 c); an ICMP error is kept to 576 (RFC 1812 4.3.2.3)

cdef enum Trouble:
    TOO_BIG_FOR_TUNNEL = 0   # Packet Too Big; Fragmentation Needed
    TUNNEL_BROKEN = 1        # Address Unreachable; Host Unreachable

cdef uint32_t complain(
    Trouble trouble, const uint8_t *packet, uint32_t length, uint32_t mtu, Address from_here, uint8_t *into,
) noexcept nogil
