"""Writing ICMP errors. engine/model/icmp.py is the specification; who is told, and how often, is path's business."""

from libc.stdint cimport uint16_t, uint64_t
from libc.string cimport memcpy, memset

from engine._fast cimport checksum
from engine._fast.headers cimport (
    IP4_HEADER, IP6_HEADER, PROTO_ICMP, PROTO_ICMPV6, is_mapped, is_multicast, load16, load_address, store16, store32,
    store_address,
)

cdef enum:
    MOST_ERROR4 = 576        # octets
    DUMMY = 0xC0000008       # 192.0.0.8: a router without an IPv4 address says this in its errors (RFC 7600 4.8)


cdef uint32_t complain(
    Trouble trouble, const uint8_t *packet, uint32_t length, uint32_t mtu, Address from_here, uint8_t *into,
) noexcept nogil:
    """An error about packet, whose header has been checked, into MOST_ERROR octets. Octets; 0: none may be sent.

    from_here: an address of this router; one of the other family is replaced. mtu: octets, for Packet Too Big.
    """
    if packet[0] >> 4 == 6:
        return complain6(trouble, packet, length, mtu, from_here, into)
    return complain4(trouble, packet, length, mtu, from_here, into)


cdef uint32_t complain6(
    Trouble trouble, const uint8_t *packet, uint32_t length, uint32_t mtu, Address from_here, uint8_t *into,
) noexcept nogil:
    cdef uint32_t quoted = min(length, <uint32_t>(MOST_ERROR - IP6_HEADER - 8))
    cdef uint64_t total
    if is_multicast(load_address(packet + 24)) and trouble != TOO_BIG_FOR_TUNNEL:
        return 0                                          # RFC 4443 2.4 e.3
    if packet[6] == PROTO_ICMPV6 and length > IP6_HEADER and packet[IP6_HEADER] < 128:
        return 0                                          # never about an error (RFC 4443 2.4 e.1)
    memset(into, 0, IP6_HEADER + 8)
    into[0] = 0x60
    store16(into + 4, <uint16_t>(8 + quoted))
    into[6] = PROTO_ICMPV6
    into[7] = 64
    if is_mapped(from_here):
        from_here = load_address(packet + 24)             # a tunnel over IPv4 has no better one
    store_address(into + 8, from_here)
    memcpy(into + 24, packet + 8, 16)
    if trouble == TOO_BIG_FOR_TUNNEL:
        into[40] = 2
        store32(into + 44, mtu)
    else:
        into[40] = 1
        into[41] = 3
    memcpy(into + 48, packet, quoted)
    total = checksum.pseudo6(into + 8, PROTO_ICMPV6, 8 + quoted)
    checksum.store(into + 42, checksum.finish(checksum.add(into + 40, 8 + quoted, total)))
    return 48 + quoted


cdef uint32_t complain4(
    Trouble trouble, const uint8_t *packet, uint32_t length, uint32_t mtu, Address from_here, uint8_t *into,
) noexcept nogil:
    cdef uint32_t header = 4 * <uint32_t>(packet[0] & 15)
    cdef uint32_t quoted = min(length, <uint32_t>(MOST_ERROR4 - IP4_HEADER - 8))
    if packet[16] >= 224 or load16(packet + 6) & 0x1FFF:
        return 0                                          # RFC 1812 4.3.2.7: multicast, broadcast; later fragments
    if packet[9] == PROTO_ICMP and (length <= header or not is_question(packet[header])):
        return 0
    memset(into, 0, IP4_HEADER + 8)
    into[0] = 0x45
    into[1] = 0xC0                                        # internetwork control (RFC 1812 4.3.2.5)
    store16(into + 2, <uint16_t>(IP4_HEADER + 8 + quoted))
    into[8] = 64
    into[9] = PROTO_ICMP
    store32(into + 12, <uint32_t>from_here.low if is_mapped(from_here) else DUMMY)
    memcpy(into + 16, packet + 12, 4)
    checksum.store(into + 10, checksum.finish(checksum.add(into, IP4_HEADER, 0)))
    into[20] = 3
    into[21] = 4 if trouble == TOO_BIG_FOR_TUNNEL else 1
    if trouble == TOO_BIG_FOR_TUNNEL:
        store16(into + 26, <uint16_t>mtu)
    memcpy(into + 28, packet, quoted)
    checksum.store(into + 22, checksum.finish(checksum.add(into + 20, 8 + quoted, 0)))
    return 28 + quoted


cdef inline bint is_question(uint8_t kind) noexcept nogil:
    """Echo, router discovery, timestamp, information, mask: everything in ICMP that is no error."""
    return kind == 0 or (8 <= kind <= 10) or (13 <= kind <= 18)
