"""Holding the MSS down. engine/model/clamp.py is the specification."""

from libc.stdint cimport uint8_t, uint16_t

from engine._fast.headers cimport IP4_HEADER, IP6_HEADER, PROTO_TCP, load16, store16

cdef enum:
    TCP_HEADER = 20
    SYN = 0x02
    END = 0                  # TCP options (RFC 9293 3.2)
    NOTHING = 1
    MAXIMUM_SEGMENT_SIZE = 2


cdef void clamp(Burst *burst, uint32_t i, uint32_t mtu) noexcept nogil:
    """If packet i is a TCP SYN: its MSS option says no more than a packet of mtu octets has room for."""
    cdef uint8_t *tcp
    cdef uint32_t fixed = IP6_HEADER if burst.family[i] == 6 else IP4_HEADER
    cdef uint32_t at = TCP_HEADER
    cdef uint32_t header
    if burst.protocol[i] != PROTO_TCP or burst.transport[i] == 0 or mtu <= fixed + TCP_HEADER:
        return
    if <uint32_t>burst.transport[i] + TCP_HEADER > burst.length[i]:
        return
    tcp = burst.packet[i] + burst.transport[i]
    header = 4 * <uint32_t>(tcp[12] >> 4)
    if not tcp[13] & SYN or burst.transport[i] + header > burst.length[i]:
        return
    while at < header:
        if tcp[at] == END:
            return
        if tcp[at] == NOTHING:
            at += 1
            continue
        if at + 2 > header or tcp[at + 1] < 2 or at + tcp[at + 1] > header:
            return                                        # a malformed list stays as it is
        if tcp[at] == MAXIMUM_SEGMENT_SIZE and tcp[at + 1] == 4:
            lower(burst, i, tcp, at + 2, mtu - fixed - TCP_HEADER)
            return
        at += tcp[at + 1]


cdef void lower(Burst *burst, uint32_t i, uint8_t *tcp, uint32_t at, uint32_t most) noexcept nogil:
    cdef uint16_t before = load16(tcp + at)
    cdef uint16_t after
    cdef uint32_t total
    if before <= most:
        return
    after = <uint16_t>most
    store16(tcp + at, after)
    if burst.checksum_offset[i] != 0:
        return                                            # the whole sum is still to be made
    if at & 1:                                            # the value straddles two words of the sum
        before = <uint16_t>((before << 8) | (before >> 8))
        after = <uint16_t>((after << 8) | (after >> 8))
    total = <uint32_t>(load16(tcp + 16) ^ 0xFFFF) + <uint32_t>(before ^ 0xFFFF) + after  # RFC 1624 3
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    store16(tcp + 16, <uint16_t>(total ^ 0xFFFF))
