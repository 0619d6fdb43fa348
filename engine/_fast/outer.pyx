"""Putting outer headers on and taking them off. engine/model/outer.py is the specification.

With sockets the kernel writes and reads the IP and UDP headers; then only the GRE header is ours.
"""

from libc.string cimport memcpy

from engine._fast cimport checksum
from engine._fast.drops cimport ALIVE, Drop
from engine._fast.headers cimport (
    GRE_CHECKSUM, GRE_HEADER, GRE_IPV4, GRE_IPV6, GRE_KEY, GRE_ROUTING, GRE_SEQUENCE, IP4_HEADER, IP6_HEADER,
    PROTO_DSTOPTS, PROTO_GRE, PROTO_IPV4, PROTO_IPV6, PROTO_UDP, UDP_HEADER, UDP_PORT, gre_options, load16, load32,
    load_address, load_address4, payload_length, store16, store32, store_address, traffic_class, version,
)
from engine._fast.tunnels cimport GRE, HAS_KEY_OUT, IP, SEQUENCED, UDP

cdef enum:
    MUST_BE_ZERO = 0x0C07    # of the GRE flags: reserved bits 4 and 5 (RFC 2784 2.3), version
    FRAGMENT = 0x3FFF        # IPv4: more fragments, or an offset
    OPTION_ACTION = 0xC0     # IPv6 option type: what to do when it is not known (RFC 8200 4.2)


# --- on ------------------------------------------------------------------------------------------------

cdef void add_udp_checksum(uint8_t *into, uint32_t ip, const uint8_t *packet, uint32_t length) noexcept nogil:
    """Over IPv6 it is not optional (RFC 8200 8.1); over IPv4 it costs the same and protects the inner header."""
    cdef uint64_t total
    cdef uint16_t value
    store16(into + ip + 6, 0)
    if ip == IP6_HEADER:
        total = checksum.pseudo6(into + 8, PROTO_UDP, UDP_HEADER + length)
    else:
        total = checksum.pseudo4(into + 12, PROTO_UDP, UDP_HEADER + length)
    total = checksum.add(into + ip, UDP_HEADER, total)
    value = checksum.finish(checksum.add(packet, length, total))
    checksum.store(into + ip + 6, value if value != 0 else 0xFFFF)


cdef void turn_round(uint8_t *header, uint32_t length) noexcept nogil:
    """What compose wrote, as the other end would have written it: addresses and UDP ports exchanged."""
    cdef uint8_t kept[16]
    cdef uint32_t octets = 16 if version(header) == 6 else 4
    cdef uint32_t at = 8 if version(header) == 6 else 12
    cdef uint32_t ip = IP6_HEADER if version(header) == 6 else IP4_HEADER
    memcpy(kept, header + at, octets)
    memcpy(header + at, header + at + octets, octets)
    memcpy(header + at + octets, kept, octets)
    if header[6 if version(header) == 6 else 9] == PROTO_UDP and length >= ip + UDP_HEADER:
        memcpy(kept, header + ip, 2)
        memcpy(header + ip, header + ip + 2, 2)
        memcpy(header + ip + 2, kept, 2)


# --- off -----------------------------------------------------------------------------------------------

cdef uint8_t strip_gre(Burst *burst, uint32_t i, Arrivals *arrivals) noexcept nogil:
    """Take the GRE header off packet i: what it said goes to arrivals and to burst.sequence. A Drop, or ALIVE."""
    cdef const uint8_t *octets = burst.packet[i]
    cdef uint32_t length = burst.length[i]
    cdef uint32_t at = GRE_HEADER
    cdef uint16_t flags, kind
    arrivals.keyed[i] = False
    arrivals.key[i] = 0
    if length < GRE_HEADER:
        return Drop.TRUNCATED
    flags = load16(octets)
    kind = load16(octets + 2)
    if flags & (GRE_ROUTING | MUST_BE_ZERO):
        return Drop.BAD_HEADER
    if kind != GRE_IPV4 and kind != GRE_IPV6:
        return Drop.NOT_IP
    if length < GRE_HEADER + gre_options(flags):
        return Drop.TRUNCATED
    if flags & GRE_CHECKSUM:                              # RFC 2784 2.2: we send none, and verify those of others
        if checksum.finish(checksum.add(octets, length, 0)) != 0:
            return Drop.BAD_HEADER
        at += 4
    if flags & GRE_KEY:
        arrivals.key[i] = load32(octets + at)
        arrivals.keyed[i] = True
        at += 4
    if flags & GRE_SEQUENCE:
        burst.sequence[i] = load32(octets + at)
        burst.sequenced[i] = True
        at += 4
    burst.packet[i] += at
    burst.length[i] = length - at
    if burst.length[i] > 0 and version(burst.packet[i]) != (4 if kind == GRE_IPV4 else 6):
        return Drop.NOT_IP
    return ALIVE


cdef uint8_t strip(Burst *burst, uint32_t i, Arrivals *arrivals) noexcept nogil:
    """Take every outer header off packet i, as the kernel and strip_gre do for sockets. A Drop, or ALIVE."""
    cdef uint8_t protocol, fault
    if burst.length[i] == 0:
        return Drop.TRUNCATED
    if version(burst.packet[i]) == 6:
        fault = strip_ip6(burst, i, arrivals, &protocol)
    elif version(burst.packet[i]) == 4:
        fault = strip_ip4(burst, i, arrivals, &protocol)
    else:
        return Drop.NOT_IP
    if fault != ALIVE:
        return fault
    arrivals.port[i] = 0
    arrivals.key[i] = 0
    arrivals.keyed[i] = False
    if protocol == PROTO_UDP:
        arrivals.kind[i] = UDP
        return strip_udp(burst, i, arrivals)
    if protocol == PROTO_GRE:
        arrivals.kind[i] = GRE
        return strip_gre(burst, i, arrivals)
    arrivals.kind[i] = IP
    if burst.length[i] == 0:
        return Drop.TRUNCATED
    if protocol == (PROTO_IPV6 if version(burst.packet[i]) == 6 else PROTO_IPV4):
        return ALIVE
    return Drop.NOT_IP


cdef uint8_t strip_ip6(Burst *burst, uint32_t i, Arrivals *arrivals, uint8_t *protocol) noexcept nogil:
    cdef uint8_t *octets = burst.packet[i]
    cdef uint32_t at = IP6_HEADER
    cdef uint32_t end
    if burst.length[i] < IP6_HEADER:
        return Drop.TRUNCATED
    end = IP6_HEADER + <uint32_t>payload_length(octets)
    if burst.length[i] < end:
        return Drop.TRUNCATED
    arrivals.peer[i] = load_address(octets + 8)
    arrivals.local[i] = load_address(octets + 24)
    burst.traffic_class[i] = traffic_class(octets)
    protocol[0] = octets[6]
    if protocol[0] == PROTO_DSTOPTS:                      # the Tunnel Encapsulation Limit lives here (RFC 2473 4.1.1)
        if end < at + 8 or end < at + 8 + 8 * <uint32_t>octets[at + 1]:
            return Drop.TRUNCATED
        if not acceptable(octets + at + 2, 6 + 8 * <uint32_t>octets[at + 1]):
            return Drop.BAD_HEADER
        protocol[0] = octets[at]
        at += 8 + 8 * <uint32_t>octets[at + 1]
    burst.packet[i] += at
    burst.length[i] = end - at
    return ALIVE


cdef bint acceptable(const uint8_t *options, uint32_t length) noexcept nogil:
    """Every option is whole, and one that may be skipped when it is not known (RFC 8200 4.2)."""
    cdef uint32_t at = 0
    while at < length:
        if options[at] == 0:                              # Pad1
            at += 1
            continue
        if at + 2 > length or at + 2 + options[at + 1] > length or options[at] & OPTION_ACTION:
            return False
        at += 2 + <uint32_t>options[at + 1]
    return True


cdef uint8_t strip_ip4(Burst *burst, uint32_t i, Arrivals *arrivals, uint8_t *protocol) noexcept nogil:
    cdef uint8_t *octets = burst.packet[i]
    cdef uint32_t header, end
    if burst.length[i] < IP4_HEADER:
        return Drop.TRUNCATED
    header = 4 * <uint32_t>(octets[0] & 15)
    end = load16(octets + 2)
    if header < IP4_HEADER or end < header:
        return Drop.BAD_HEADER
    if burst.length[i] < end:
        return Drop.TRUNCATED
    if checksum.finish(checksum.add(octets, header, 0)) != 0 or load16(octets + 6) & FRAGMENT:
        return Drop.BAD_HEADER                            # putting fragments together is the kernel's work
    arrivals.peer[i] = load_address4(octets + 12)
    arrivals.local[i] = load_address4(octets + 16)
    burst.traffic_class[i] = octets[1]
    protocol[0] = octets[9]
    burst.packet[i] += header
    burst.length[i] = end - header
    return ALIVE


cdef uint8_t strip_udp(Burst *burst, uint32_t i, Arrivals *arrivals) noexcept nogil:
    cdef uint8_t *octets = burst.packet[i]
    cdef uint32_t length
    cdef uint64_t total
    if burst.length[i] < UDP_HEADER:
        return Drop.TRUNCATED
    length = load16(octets + 4)
    if length < UDP_HEADER:
        return Drop.BAD_HEADER
    if length > burst.length[i]:
        return Drop.TRUNCATED
    if load16(octets + 2) != UDP_PORT:
        return Drop.UNKNOWN_TUNNEL
    if load16(octets + 6) == 0:
        if arrivals.local[i].high != 0:
            return Drop.BAD_HEADER                        # over IPv6 a checksum is not optional (RFC 8200 8.1)
    else:
        total = pseudo(arrivals, i, length)
        if checksum.finish(checksum.add(octets, length, total)) != 0:
            return Drop.BAD_HEADER
    arrivals.port[i] = load16(octets)
    burst.packet[i] += UDP_HEADER
    burst.length[i] = length - UDP_HEADER
    return ALIVE


cdef uint64_t pseudo(const Arrivals *arrivals, uint32_t i, uint32_t length) noexcept nogil:
    """Sum of the pseudo-header (RFC 8200 8.1). An IPv4 address as ::ffff:a.b.c.d adds 0xffff, which is nothing."""
    cdef uint8_t octets[32]
    store_address(octets, arrivals.peer[i])
    store_address(octets + 16, arrivals.local[i])
    return checksum.pseudo6(octets, PROTO_UDP, length)
