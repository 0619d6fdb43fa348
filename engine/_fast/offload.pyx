"""Splitting and merging. engine/model/offload.py is the specification.

Merging keeps to what Linux does (tcp_gro_receive, udp_gro_receive, inet_gro_receive, ipv6_gro_receive), and is stricter
where Linux forgets something: the window must be the same too, so that splitting a merged packet gives back what came.
"""

from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcmp, memcpy, memmove, memset

from engine._fast cimport burst as bursts
from engine._fast cimport checksum
from engine._fast.burst cimport GSO_ECN, GSO_NONE, GSO_TCP4, GSO_TCP6, GSO_UDP_L4, WIDTH
from engine._fast.drops cimport ALIVE, Drop
from engine._fast.headers cimport (
    DONT_FRAGMENT, IP4_HEADER, IP6_HEADER, PROTO_DSTOPTS, PROTO_HOPOPTS, PROTO_ROUTING, PROTO_TCP, PROTO_UDP,
    UDP_HEADER, load16, load32, payload_length, store16, store32, version,
)
from engine._fast.kernel cimport htobe32

cdef enum:
    TCP_HEADER = 20          # octets, without options
    FIN = 0x01
    SYN = 0x02
    RST = 0x04
    PSH = 0x08
    URG = 0x20
    CWR = 0x80
    FRAGMENT = 0x3FFF        # IPv4: more fragments, or an offset
    TCP_CHECKSUM = 16        # octets from the TCP header
    UDP_CHECKSUM = 6         # octets from the UDP header
    NEEDS_CHECKSUM = 1       # VIRTIO_NET_HDR_F_NEEDS_CSUM


# --- splitting -----------------------------------------------------------------------------------------

cdef uint8_t begin(Segments *segments, const Burst *burst, uint32_t i) noexcept nogil:
    """Get ready to split packet i, whose gso is set. A Drop, or ALIVE: then advance gives out its segments.

    What the kernel says is held against the headers; it wrote the sum of the pseudo-header where the checksum belongs.
    """
    cdef const uint8_t *packet = burst.packet[i]
    cdef uint32_t length = burst.length[i]
    cdef uint32_t kind = burst.gso[i] & ~<uint32_t>GSO_ECN
    cdef uint32_t offset
    segments.protocol = PROTO_UDP if kind == GSO_UDP_L4 else PROTO_TCP
    segments.transport = find_transport(packet, length, kind, segments.protocol)
    if segments.transport == 0 or burst.segment[i] == 0:
        return Drop.BAD_OFFLOAD
    if segments.protocol == PROTO_UDP:
        offset = UDP_CHECKSUM
        segments.header_length = segments.transport + UDP_HEADER
    else:
        offset = TCP_CHECKSUM
        segments.header_length = segments.transport + 4 * <uint32_t>(packet[segments.transport + 12] >> 4)
        if segments.header_length < segments.transport + TCP_HEADER:
            return Drop.BAD_OFFLOAD
    if segments.header_length > MOST_HEADER or segments.header_length > length:
        return Drop.BAD_OFFLOAD
    if burst.checksum_offset[i] != 0 and (
            burst.checksum_offset[i] != offset or burst.checksum_start[i] != segments.transport):
        return Drop.BAD_OFFLOAD
    segments.packet = packet
    segments.length = length
    segments.segment = burst.segment[i]
    segments.at = segments.given = segments.count = 0
    segments.done = False
    add_pseudo(segments, packet + segments.transport + offset, burst.checksum_offset[i] != 0)
    return ALIVE


cdef uint32_t find_transport(const uint8_t *packet, uint32_t length, uint32_t kind, uint8_t protocol) noexcept nogil:
    """Octets to the upper-layer header of a whole packet of that kind; 0: it is something else.

    If not 0, a header without options is inside the packet.
    """
    cdef uint32_t at
    cdef uint32_t least = UDP_HEADER if protocol == PROTO_UDP else TCP_HEADER
    if length < IP4_HEADER:
        return 0
    if version(packet) == 4 and (kind == GSO_TCP4 or kind == GSO_UDP_L4):
        at = 4 * <uint32_t>(packet[0] & 15)
        if at < IP4_HEADER or packet[9] != protocol or load16(packet + 2) != length or load16(packet + 6) & FRAGMENT:
            return 0
    elif version(packet) == 6 and (kind == GSO_TCP6 or kind == GSO_UDP_L4):
        at = behind_extensions(packet, length, protocol)
    else:
        return 0
    return at if at + least <= length else 0


cdef uint32_t behind_extensions(const uint8_t *packet, uint32_t length, uint8_t protocol) noexcept nogil:
    """Octets to the header of that protocol in an IPv6 packet; 0: it is not there, or too far."""
    cdef uint32_t at = IP6_HEADER
    cdef uint8_t following
    if length < IP6_HEADER or IP6_HEADER + <uint32_t>payload_length(packet) != length:
        return 0
    following = packet[6]
    while following != protocol:
        if following != PROTO_HOPOPTS and following != PROTO_ROUTING and following != PROTO_DSTOPTS:
            return 0
        if at + 8 > length or at > MOST_HEADER:
            return 0
        following = packet[at]
        at += 8 + 8 * <uint32_t>packet[at + 1]
    return at


cdef void add_pseudo(Segments *segments, const uint8_t *field, bint given) noexcept nogil:
    """Total of the pseudo-header without its length. given: it is in the checksum field, with the length of it all.

    Not taken from the addresses then: behind a routing header the last destination counts (RFC 8200 8.1).
    """
    cdef const uint8_t *packet = segments.packet
    cdef uint16_t partial
    segments.summed = True
    if given:
        memcpy(&partial, field, 2)
        segments.pseudo = checksum.plus(partial, ~<uint64_t>htobe32(segments.length - segments.transport))
    elif version(packet) == 6:
        segments.pseudo = checksum.pseudo6(packet + 8, segments.protocol, 0)
    else:
        segments.pseudo = checksum.pseudo4(packet + 12, segments.protocol, 0)
        segments.summed = segments.protocol == PROTO_TCP or load16(field) != 0  # over IPv4 UDP may go without


cdef bint advance(Segments *segments) noexcept nogil:
    """Give out the next segments, MOST_SEGMENTS at most; False: there are none left. In order, equal but the last."""
    cdef uint32_t left, size
    segments.count = 0
    while segments.count < MOST_SEGMENTS and not segments.done:
        left = segments.length - segments.header_length - segments.at
        size = segments.segment if left > segments.segment else left
        segments.done = size == left
        segments.payload[segments.count] = segments.packet + segments.header_length + segments.at
        segments.payload_length[segments.count] = size
        compose(segments, segments.block[segments.count].header, size)
        segments.at += size
        segments.given += 1
        segments.count += 1
    return segments.count > 0


cdef inline void compose(Segments *segments, uint8_t *header, uint32_t size) noexcept nogil:
    """Header of the segment with size octets of payload from segments.at on."""
    cdef uint32_t upper = segments.header_length - segments.transport + size  # octets behind the IP header
    cdef uint8_t *transport = header + segments.transport
    memcpy(header, segments.packet, segments.header_length)
    if version(header) == 6:
        store16(header + 4, <uint16_t>(segments.transport - IP6_HEADER + upper))
    else:
        store16(header + 2, <uint16_t>(segments.transport + upper))
        store16(header + 4, <uint16_t>(load16(header + 4) + segments.given))  # identification
        store16(header + 10, 0)
        checksum.store(header + 10, checksum.finish(checksum.add_plain(header, segments.transport, 0)))
    if segments.protocol == PROTO_TCP:
        store32(transport + 4, load32(transport + 4) + segments.at)
        if not segments.done:
            transport[13] &= ~<uint32_t>(PSH | FIN) & 0xFF
        if segments.given > 0:
            transport[13] &= ~<uint32_t>CWR & 0xFF        # said once (RFC 3168 6.1.2)
        add_checksum(segments, transport, transport + TCP_CHECKSUM, size)
    else:
        store16(transport + 4, <uint16_t>upper)
        if segments.summed:
            add_checksum(segments, transport, transport + UDP_CHECKSUM, size)


cdef inline void add_checksum(Segments *segments, uint8_t *transport, uint8_t *field, uint32_t size) noexcept nogil:
    cdef uint32_t header = segments.header_length - segments.transport
    cdef uint64_t total = checksum.plus(segments.pseudo, htobe32(header + size))
    cdef uint16_t value
    store16(field, 0)
    total = checksum.add_plain(transport, header, total)
    value = checksum.finish(checksum.add(segments.packet + segments.header_length + segments.at, size, total))
    if value == 0 and segments.protocol == PROTO_UDP:
        value = 0xFFFF                                    # 0 says "none" (RFC 768)
    checksum.store(field, value)


cdef uint8_t finish_checksum(Burst *burst, uint32_t i) noexcept nogil:
    """Write the checksum of packet i where the kernel left it to us (checksum_offset not 0). A Drop, or ALIVE."""
    cdef uint32_t start = burst.checksum_start[i]
    cdef uint32_t field = start + burst.checksum_offset[i]
    cdef uint16_t value
    if field + 2 > burst.length[i]:
        return Drop.BAD_OFFLOAD
    value = checksum.finish(checksum.add(burst.packet[i] + start, burst.length[i] - start, 0))
    checksum.store(burst.packet[i] + field, value if value != 0 else 0xFFFF)  # the same to TCP, and no "none" to UDP
    burst.checksum_offset[i] = 0
    return ALIVE


# --- merging: what a packet is -------------------------------------------------------------------------

cdef enum Role:
    UNREADABLE = 0           # no flow can be named: nothing between its addresses may wait while it passes
    ALONE = 1                # of a flow, but nothing can be merged with it
    LAST = 2                 # may end a merged packet
    PART = 3                 # may be any part of one

cdef struct Reading:
    uint16_t transport       # octets
    uint16_t header          # octets, all headers
    uint32_t payload         # octets
    uint8_t protocol
    uint8_t kind             # GSO_*


cdef inline Role read(uint32_t may, const uint8_t *packet, uint32_t length, Reading *reading) noexcept nogil:
    """Only packets without IPv4 options and extension headers, no fragments. All lengths are checked here."""
    if length < IP4_HEADER:
        return UNREADABLE
    if version(packet) == 6:
        if length < IP6_HEADER or IP6_HEADER + <uint32_t>payload_length(packet) != length:
            return UNREADABLE
        reading.transport = IP6_HEADER
        reading.protocol = packet[6]
    else:
        if packet[0] != 0x45 or load16(packet + 2) != length or load16(packet + 6) & FRAGMENT:
            return UNREADABLE
        reading.transport = IP4_HEADER
        reading.protocol = packet[9]
    if reading.protocol == PROTO_TCP:
        return read_tcp(may, packet + reading.transport, length, reading)
    if reading.protocol == PROTO_UDP:
        return read_udp(may, packet + reading.transport, length, reading)
    return UNREADABLE


cdef inline Role read_tcp(uint32_t may, const uint8_t *tcp, uint32_t length, Reading *reading) noexcept nogil:
    cdef uint32_t header
    if length < <uint32_t>reading.transport + TCP_HEADER:
        return UNREADABLE
    header = reading.transport + 4 * <uint32_t>(tcp[12] >> 4)
    if header < <uint32_t>reading.transport + TCP_HEADER or length < header:
        return UNREADABLE
    reading.header = <uint16_t>header
    reading.payload = length - header
    reading.kind = GSO_TCP6 if reading.transport == IP6_HEADER else GSO_TCP4
    if not may & (MERGE_TCP6 if reading.transport == IP6_HEADER else MERGE_TCP4):
        return ALONE
    if reading.payload == 0 or tcp[13] & (SYN | RST | URG):
        return ALONE
    return LAST if tcp[13] & (PSH | FIN) else PART


cdef inline Role read_udp(uint32_t may, const uint8_t *udp, uint32_t length, Reading *reading) noexcept nogil:
    if length < <uint32_t>reading.transport + UDP_HEADER:
        return UNREADABLE
    reading.header = reading.transport + UDP_HEADER
    reading.payload = length - reading.header
    reading.kind = GSO_UDP_L4
    if not may & (MERGE_UDP6 if reading.transport == IP6_HEADER else MERGE_UDP4):
        return ALONE
    if reading.payload == 0 or load16(udp + 4) != reading.payload + UDP_HEADER or load16(udp + 6) == 0:
        return ALONE
    return PART


cdef inline bint same_flow(const Output *output, const uint8_t *packet, const Reading *reading) noexcept nogil:
    """Addresses, protocol, ports."""
    if output.transport != reading.transport or output.protocol != reading.protocol:
        return False
    if reading.transport == IP6_HEADER:
        return memcmp(output.packet + 8, packet + 8, 36) == 0
    return memcmp(output.packet + 12, packet + 12, 12) == 0


cdef inline bint same_ip(const Output *output, const uint8_t *packet) noexcept nogil:
    """All that segments of one packet have in common in the IP header; the identification of IPv4 is the next one."""
    cdef const uint8_t *first = output.packet
    cdef uint16_t step
    if output.transport == IP6_HEADER:
        return memcmp(first, packet, 4) == 0 and first[7] == packet[7]
    if first[1] != packet[1] or first[8] != packet[8] or memcmp(first + 6, packet + 6, 2) != 0:
        return False
    step = <uint16_t>(load16(packet + 4) - load16(first + 4))
    if fixed(output, packet):
        return step == 0
    return step == output.packets


cdef inline bint fixed(const Output *output, const uint8_t *packet) noexcept nogil:
    """IPv4: the identification stays the same. With DF it means nothing (RFC 6864 4.1); the second packet decides."""
    if output.packets > 1:
        return output.fixed_id
    return load16(packet + 6) & DONT_FRAGMENT and load16(packet + 4) == load16(output.packet + 4)


cdef inline bint same_tcp(const Output *output, const uint8_t *tcp, uint32_t header) noexcept nogil:
    """All of the TCP header but ports, sequence number, checksum and the flags that may end a merged packet."""
    cdef const uint8_t *first = output.packet + output.transport
    if load32(tcp + 4) != output.following or tcp[12] != first[12]:
        return False
    if tcp[13] & CWR or (tcp[13] ^ first[13]) & ~<uint32_t>(CWR | FIN | PSH):
        return False                                      # CWR of the first stays with the first: splitting does that
    if memcmp(first + 8, tcp + 8, 4) != 0 or memcmp(first + 14, tcp + 14, 2) != 0:
        return False                                      # acknowledgment, window
    return memcmp(first + 18, tcp + 18, header - 18) == 0  # urgent pointer, options


cdef bint is_right(const uint8_t *packet, uint32_t length, uint32_t transport, uint8_t protocol) noexcept nogil:
    """Its checksums are: the kernel will believe it of a merged packet."""
    cdef uint64_t total
    if transport == IP6_HEADER:
        total = checksum.pseudo6(packet + 8, protocol, length - transport)
    else:
        if checksum.finish(checksum.add_plain(packet, IP4_HEADER, 0)) != 0:
            return False
        total = checksum.pseudo4(packet + 12, protocol, length - transport)
    return checksum.finish(checksum.add(packet + transport, length - transport, total)) == 0


# --- merging: open flows -------------------------------------------------------------------------------

cdef void prepare(Merger *merger, uint32_t may) noexcept nogil:
    """An empty merger. may: MERGE_* and VIRTIO."""
    cdef uint32_t k
    merger.may = may if may & VIRTIO else 0
    merger.opened = 0
    merger.made = 0
    merger.free = OUTPUTS
    memset(merger.plain, 0, VIRTIO_HEADER)
    for k in range(<uint32_t>OUTPUTS):
        merger.spare[k] = <uint8_t>(OUTPUTS - 1 - k)


cdef uint32_t merge(Merger *merger, const Burst *burst, uint32_t at) noexcept nogil:
    """Take the living packets of a burst, from at on. The index where to go on; less than count: outputs are full."""
    while at < burst.count:
        if burst.drop[at] == ALIVE and not add(merger, burst.packet[at], burst.length[at], burst.flow[at]):
            return at
        at += 1
    return at


cdef bint add(Merger *merger, const uint8_t *packet, uint32_t length, uint64_t flow) noexcept nogil:
    """Take one packet; its octets must stay until the flush. flow: hash. False: not taken, the outputs are full."""
    cdef Reading reading
    cdef Role role
    cdef uint32_t tag = <uint32_t>(flow ^ (flow >> 32))
    cdef uint32_t k
    if merger.free == 0:
        return False
    role = read(merger.may, packet, length, &reading)
    if role == UNREADABLE:
        close_between(merger, packet, length)
        let_pass(merger, packet, length)
        return True
    k = find(merger, packet, &reading, tag)
    if k < merger.opened:
        if role >= LAST and joins(&merger.output[merger.open[k]], packet, length, &reading):
            if join(&merger.output[merger.open[k]], packet, &reading) or role == LAST:
                close(merger, k)
            return True
        close(merger, k)                                  # it must not be overtaken
    if role == PART:
        open_flow(merger, packet, length, &reading, tag)
    else:
        let_pass(merger, packet, length)
    return True


cdef inline uint32_t find(
    const Merger *merger, const uint8_t *packet, const Reading *reading, uint32_t tag,
) noexcept nogil:
    """Number of the open flow of a packet; opened: there is none."""
    cdef uint32_t k
    for k in range(merger.opened):
        if merger.tag[k] == tag and same_flow(&merger.output[merger.open[k]], packet, reading):
            return k
    return merger.opened


cdef bint joins(Output *output, const uint8_t *packet, uint32_t length, const Reading *reading) noexcept nogil:
    """Whether a packet of its flow can be merged into output."""
    if reading.payload > output.segment or output.octets + reading.payload > MOST_MERGED:
        return False
    if reading.header != output.header or not same_ip(output, packet):
        return False
    if reading.protocol == PROTO_TCP and not same_tcp(
            output, packet + reading.transport, <uint32_t>reading.header - reading.transport):
        return False
    if not output.verified:
        output.verified = is_right(output.packet, output.octets, output.transport, output.protocol)
    return output.verified and is_right(packet, length, reading.transport, reading.protocol)


cdef inline bint join(Output *output, const uint8_t *packet, const Reading *reading) noexcept nogil:
    """Merge a packet that joins. Whether it is the last one: shorter, or there is no room for more."""
    if output.packets == 1:
        output.fixed_id = reading.transport == IP4_HEADER and fixed(output, packet)
        output.vector[0].iov_base = output.head
        output.vector[0].iov_len = VIRTIO_HEADER + output.header
        output.vector[1].iov_base = <void *>(output.packet + output.header)
        output.vector[1].iov_len = output.segment
    output.packets += 1
    output.vector[output.packets].iov_base = <void *>(packet + reading.header)
    output.vector[output.packets].iov_len = reading.payload
    output.vectors = output.packets + 1
    output.octets += reading.payload
    output.following += reading.payload
    if reading.protocol == PROTO_TCP:
        output.flags |= packet[reading.transport + 13]
    return reading.payload < output.segment or output.packets == MOST_PIECES


cdef inline Output *begin_output(Merger *merger, const uint8_t *packet, uint32_t length) noexcept nogil:
    """An output for a packet as it came. There is a spare one."""
    cdef uint32_t index = merger.spare[merger.free - 1]
    cdef Output *output = &merger.output[index]
    cdef iovec *vector = output.vector
    merger.free -= 1
    output.packets = 1
    output.octets = length
    output.vectors = 1
    if merger.may & VIRTIO:
        vector.iov_base = merger.plain
        vector.iov_len = VIRTIO_HEADER
        vector += 1
        output.vectors = 2
    vector.iov_base = <void *>packet
    vector.iov_len = length
    return output


cdef inline void let_pass(Merger *merger, const uint8_t *packet, uint32_t length) noexcept nogil:
    cdef Output *output = begin_output(merger, packet, length)
    merger.ready[merger.made] = <uint8_t>(output - merger.output)
    merger.made += 1


cdef void open_flow(
    Merger *merger, const uint8_t *packet, uint32_t length, const Reading *reading, uint32_t tag,
) noexcept nogil:
    """A packet that others may join; the flow open longest makes room. Its sum is verified when the first one does."""
    cdef Output *output = begin_output(merger, packet, length)
    if merger.opened == MOST_FLOWS:
        close(merger, 0)
    output.packet = packet
    output.segment = reading.payload
    output.header = reading.header
    output.transport = reading.transport
    output.protocol = reading.protocol
    output.kind = reading.kind
    output.verified = False
    output.fixed_id = False
    output.flags = 0
    output.following = 0
    if reading.protocol == PROTO_TCP:
        output.flags = packet[reading.transport + 13]
        output.following = load32(packet + reading.transport + 4) + reading.payload
    merger.tag[merger.opened] = tag
    merger.open[merger.opened] = <uint8_t>(output - merger.output)
    merger.opened += 1


cdef void close(Merger *merger, uint32_t k) noexcept nogil:
    """Open flow k is ready to be written."""
    cdef Output *output = &merger.output[merger.open[k]]
    if output.packets > 1:
        compose_head(output)
    merger.ready[merger.made] = merger.open[k]
    merger.made += 1
    merger.opened -= 1
    memmove(&merger.open[k], &merger.open[k + 1], merger.opened - k)
    memmove(&merger.tag[k], &merger.tag[k + 1], (merger.opened - k) * sizeof(uint32_t))


cdef void flush(Merger *merger) noexcept nogil:
    """All open flows are ready to be written: nothing of the burst waits for the next one."""
    while merger.opened > 0:
        close(merger, 0)


cdef void close_between(Merger *merger, const uint8_t *packet, uint32_t length) noexcept nogil:
    """Close the open flows from the source to the destination of a packet that may belong to one of them."""
    cdef uint32_t k = 0
    cdef uint32_t at, size
    cdef const Output *output
    if length < IP4_HEADER or (version(packet) == 6 and length < IP6_HEADER):
        return
    at, size = (8, 32) if version(packet) == 6 else (12, 8)
    while k < merger.opened:
        output = &merger.output[merger.open[k]]
        if version(output.packet) == version(packet) and memcmp(output.packet + at, packet + at, size) == 0:
            close(merger, k)
        else:
            k += 1


cdef void compose_head(Output *output) noexcept nogil:
    """virtio header, and the header of all the segments together: the kernel splits it again when it must."""
    cdef uint8_t *header = output.head + VIRTIO_HEADER
    cdef uint8_t *transport = header + output.transport
    cdef uint32_t upper = output.octets - output.transport
    cdef uint64_t total
    memcpy(header, output.packet, output.header)
    if output.transport == IP6_HEADER:
        store16(header + 4, <uint16_t>upper)
        total = checksum.pseudo6(header + 8, output.protocol, upper)
    else:
        store16(header + 2, <uint16_t>output.octets)
        store16(header + 10, 0)
        checksum.store(header + 10, checksum.finish(checksum.add_plain(header, IP4_HEADER, 0)))
        total = checksum.pseudo4(header + 12, output.protocol, upper)
    if output.protocol == PROTO_TCP:
        transport[13] = output.flags
        checksum.store(transport + TCP_CHECKSUM, checksum.fold(total))
    else:
        store16(transport + 4, <uint16_t>upper)
        checksum.store(transport + UDP_CHECKSUM, checksum.fold(total))
    compose_virtio(output)


cdef void compose_virtio(Output *output) noexcept nogil:
    """struct virtio_net_hdr (virtio 1.2 5.1.6), in the machine's order as TUN wants it."""
    cdef uint16_t numbers[4]
    output.head[0] = NEEDS_CHECKSUM
    output.head[1] = output.kind | (GSO_ECN if output.flags & CWR else 0)
    numbers[0] = output.header
    numbers[1] = <uint16_t>output.segment
    numbers[2] = output.transport
    numbers[3] = TCP_CHECKSUM if output.protocol == PROTO_TCP else UDP_CHECKSUM
    memcpy(output.head + 2, numbers, 8)


# --- faces for Python ----------------------------------------------------------------------------------

cdef uint8_t *copied(bytes octets) except NULL:
    """In memory of exactly their size, so that a read past the end is one past the memory. To be freed."""
    cdef const uint8_t *first = octets
    cdef size_t length = len(octets)
    cdef uint8_t *place = <uint8_t *>malloc(length if length else 1)
    if place == NULL:
        raise MemoryError
    memcpy(place, first, length)
    return place


cdef Burst *burst_of(list packets, object flows) except NULL:
    """A burst of copies, for the faces below: 256 at most. Give it back with free_burst."""
    cdef Burst *burst
    cdef uint32_t i
    if len(packets) > WIDTH:
        raise ValueError(f"{len(packets)} packets, a burst has room for {WIDTH}")
    burst = bursts.allocate()
    if burst == NULL:
        raise MemoryError
    bursts.clear(burst, 0)
    for i in range(<uint32_t>len(packets)):
        burst.packet[i] = copied(packets[i])
        burst.length[i] = <uint32_t>len(packets[i])
        burst.drop[i] = ALIVE
        burst.gso[i] = GSO_NONE
        burst.checksum_start[i] = burst.checksum_offset[i] = 0
        burst.flow[i] = 0 if flows is None else flows[i]
        burst.count = i + 1
    return burst


cdef void free_burst(Burst *burst) noexcept:
    cdef uint32_t i
    for i in range(burst.count):
        free(burst.packet[i])
    bursts.release(burst)


def split_packet(packet: bytes, gso: int, segment: int, checksum_start: int = 0, checksum_offset: int = 0) -> object:
    """Its segments, complete; or the Drop (int) for which there are none. gso: number of virtio_net_hdr.gso_type."""
    cdef Burst *burst = burst_of([packet], None)
    cdef Segments *segments = <Segments *>calloc(1, sizeof(Segments))
    cdef uint32_t k
    cdef uint8_t fault
    try:
        if segments == NULL:
            raise MemoryError
        burst.gso[0], burst.segment[0] = gso, segment
        burst.checksum_start[0], burst.checksum_offset[0] = checksum_start, checksum_offset
        fault = begin(segments, burst, 0)
        if fault != ALIVE:
            return int(fault)
        made = []
        while advance(segments):
            for k in range(segments.count):
                made.append((<const char *>segments.block[k].header)[:segments.header_length]
                            + (<const char *>segments.payload[k])[:segments.payload_length[k]])
        return made
    finally:
        free(segments)
        free_burst(burst)


def finish_packet(packet: bytes, checksum_start: int, checksum_offset: int) -> object:
    """The packet with its checksum finished; or the Drop (int)."""
    cdef Burst *burst = burst_of([packet], None)
    cdef uint8_t fault
    try:
        burst.checksum_start[0], burst.checksum_offset[0] = checksum_start, checksum_offset
        fault = finish_checksum(burst, 0) if checksum_offset else ALIVE
        if fault != ALIVE:
            return int(fault)
        return (<const char *>burst.packet[0])[:burst.length[0]]
    finally:
        free_burst(burst)


cdef void take_ready(Merger *merger, list into):
    """What is ready, as ((flags, gso_type, hdr_len, gso_size, csum_start, csum_offset), packet, packets in it)."""
    cdef uint32_t k, v
    cdef const Output *output
    cdef uint16_t numbers[4]
    for k in range(merger.made):
        output = &merger.output[merger.ready[k]]
        octets = b"".join([
            (<const char *>output.vector[v].iov_base)[:output.vector[v].iov_len] for v in range(output.vectors)])
        virtio = ()
        if merger.may & VIRTIO:
            memcpy(numbers, (<const uint8_t *>octets) + 2, 8)
            virtio = (octets[0], octets[1], numbers[0], numbers[1], numbers[2], numbers[3])
            octets = octets[VIRTIO_HEADER:]
        if len(octets) != output.octets:
            raise AssertionError(f"{len(octets)} octets where {output.octets} were announced")
        into.append((virtio, octets, output.packets))
    recycle(merger)


def merge_packets(packets: list, flows: object = None, may: int = 31) -> list:
    """Merge a burst (256 at most). flows: a hash for each packet. may: MERGE_* and VIRTIO.

    Outputs in the order they must be written: (virtio header as a tuple of its fields, packet, packets that are in it).
    """
    cdef Burst *burst = burst_of(packets, flows)
    cdef Merger *merger = <Merger *>malloc(sizeof(Merger))
    cdef uint32_t at = 0
    made = []
    try:
        if merger == NULL:
            raise MemoryError
        prepare(merger, may)
        while at < burst.count:
            at = merge(merger, burst, at)
            take_ready(merger, made)
        flush(merger)
        take_ready(merger, made)
        if merger.free != OUTPUTS:
            raise AssertionError(f"{OUTPUTS - merger.free} outputs were lost")
        return made
    finally:
        free(merger)
        free_burst(burst)


def rehearse_split(packet: bytes, gso: int, segment: int, rounds: int) -> int:
    """Split a packet that many times over. Segments made, all together."""
    cdef Burst *burst = burst_of([packet], None)
    cdef Segments *segments = <Segments *>calloc(1, sizeof(Segments))
    cdef uint64_t made = 0
    cdef uint32_t k
    cdef uint32_t times = rounds
    try:
        if segments == NULL:
            raise MemoryError
        burst.gso[0], burst.segment[0] = gso, segment
        with nogil:
            for k in range(times):
                if begin(segments, burst, 0) == ALIVE:
                    while advance(segments):
                        made += segments.count
        return made
    finally:
        free(segments)
        free_burst(burst)


def rehearse_merge(packets: list, flows: object, rounds: int) -> int:
    """Merge a burst that many times over. Outputs made, all together."""
    cdef Burst *burst = burst_of(packets, flows)
    cdef Merger *merger = <Merger *>malloc(sizeof(Merger))
    cdef uint64_t made = 0
    cdef uint32_t k, at
    cdef uint32_t times = rounds
    try:
        if merger == NULL:
            raise MemoryError
        prepare(merger, MERGE_TCP4 | MERGE_TCP6 | MERGE_UDP4 | MERGE_UDP6 | VIRTIO)
        with nogil:
            for k in range(times):
                at = 0
                while at < burst.count:
                    at = merge(merger, burst, at)
                    made += merger.made
                    recycle(merger)
                flush(merger)
                made += merger.made
                recycle(merger)
        return made
    finally:
        free(merger)
        free_burst(burst)
