"""Packets in and out of descriptors. io.pxd is the map; here is how, and what to do when the kernel says no."""

from libc.stdint cimport int32_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset

from engine._fast cimport burst as bursts
from engine._fast.burst cimport ARENA, GSO_NONE, LARGEST, WIDTH, clear
from engine._fast.drops cimport ALIVE, Drop
from engine._fast.headers cimport (
    IP4_HEADER, Address, load32, load_address, load_address4, may_fragment, store32, store_address,
)
from engine._fast.kernel cimport (
    AF_INET, AF_INET6, CMSG_DATA, CMSG_FIRSTHDR, CMSG_LEN, CMSG_NXTHDR, CMSG_SPACE, EACCES, EAGAIN, ECONNREFUSED,
    EHOSTUNREACH, EINTR, EINVAL, EIO, EMSGSIZE, ENETDOWN, ENETUNREACH, ENOBUFS, ENOMEM, EPROTO, IP_TOS, IPPROTO_IP,
    IPPROTO_IPV6, IPV6_TCLASS, MSG_DONTWAIT, MSG_ERRQUEUE, MSG_TRUNC, SOL_UDP, UDP_GRO, UDP_SEGMENT, be16toh, cmsghdr,
    errno, htobe32, likely, msghdr, readv, recvmmsg, recvmsg, sendmmsg, sendmsg, sockaddr_in, sockaddr_in6, unlikely,
    writev,
)

cdef extern from "<sys/socket.h>" nogil:
    int SOCK_DGRAM, SOCK_CLOEXEC
    int socket(int, int, int)

    struct sockaddr:
        pass

    int connect(int, const sockaddr *, unsigned int)
    int getsockopt(int, int, int, void *, unsigned int *)
    int setsockopt(int, int, int, const void *, unsigned int)

cdef extern from "<netinet/in.h>" nogil:
    int IP_MTU, IP_MTU_DISCOVER, IP_PMTUDISC_DO, IP_PMTUDISC_DONT, IP_RECVERR
    int IPV6_MTU, IPV6_MTU_DISCOVER, IPV6_PMTUDISC_DO, IPV6_PMTUDISC_WANT, IPV6_RECVERR

cdef extern from "<unistd.h>" nogil:
    int close(int)

cdef extern from "<errno.h>" nogil:
    int EHOSTDOWN, ENONET, ENOPROTOOPT, EOPNOTSUPP

cdef enum:
    VIRTIO_HEADER = 10       # octets
    NEEDS_CHECKSUM = 1       # flag in it: checksum_start and checksum_offset count
    TRIES = 4                # calls that may fail of old errors before we believe there is nothing to read

cdef enum:                   # struct sock_extended_err (linux/errqueue.h): octets from its begin
    ERROR_ORIGIN = 4
    ERROR_TYPE = 5
    ERROR_CODE = 6
    ERROR_INFO = 8
    ERROR_SIZE = 16          # behind it: struct sockaddr of who complains
    FROM_US = 1              # origins
    FROM_ICMP = 2
    FROM_ICMPV6 = 3


# --- the TUN -------------------------------------------------------------------------------------------

cdef int receive_tun(const Port *port, Burst *burst) noexcept nogil:
    """Packets until none waits, WIDTH are there or the arena is full: their number, or -errno: port is of no more use.

    Packets lie one directly behind the other. An error after the first packet is left to the next call.
    """
    cdef uint8_t header[VIRTIO_HEADER]
    cdef iovec vector[2]
    cdef uint32_t plain = 0 if port.flags & VNET else 1    # without the header, the second vector alone
    cdef uint32_t count = 0
    cdef size_t used = 0
    cdef ssize_t octets
    vector[0].iov_base = header
    vector[0].iov_len = VIRTIO_HEADER
    clear(burst, WIDTH)
    burst.count = 0
    while count < WIDTH and used + LARGEST <= ARENA:
        vector[1].iov_base = burst.arena + used
        vector[1].iov_len = LARGEST
        octets = readv(port.fd, vector + plain, 2 - plain)
        if octets <= 0:
            if octets < 0 and errno == EINTR:
                continue
            if count > 0 or (octets < 0 and errno == EAGAIN):
                break
            return -errno if octets < 0 else -EIO           # 0: the other end is gone (a TUN never says this)
        burst.packet[count] = burst.arena + used
        if plain:
            burst.length[count] = <uint32_t>octets
        else:
            burst.length[count] = <uint32_t>octets - VIRTIO_HEADER if octets > VIRTIO_HEADER else 0
            read_virtio(burst, count, header)
        used += burst.length[count]
        count += 1
    burst.count = count
    return <int>count


cdef inline void read_virtio(Burst *burst, uint32_t i, const uint8_t *header) noexcept nogil:
    """struct virtio_net_hdr, in the machine's order: what the kernel left to be done with packet i."""
    if header[1] != GSO_NONE:
        burst.gso[i] = header[1]
        memcpy(&burst.segment[i], header + 4, 2)
    if header[0] & NEEDS_CHECKSUM:
        memcpy(&burst.checksum_start[i], header + 6, 2)
        memcpy(&burst.checksum_offset[i], header + 8, 2)


cdef uint8_t write_tun(const Port *port, const iovec *vectors, uint32_t count) noexcept nogil:
    """One packet, its virtio header first if port has VNET. ALIVE, or a Drop."""
    while writev(port.fd, vectors, <int>count) < 0:
        if errno == EINTR:
            continue
        return Drop.TUN_FULL if full(errno) else Drop.TUN_ERROR
    return ALIVE


cdef uint8_t write_back(const Port *port, const Burst *burst, uint32_t i) noexcept nogil:
    """Packet i as receive_tun gave it, with what the kernel left to be done. ALIVE, or a Drop."""
    cdef uint8_t header[VIRTIO_HEADER]
    cdef uint32_t plain = 0 if port.flags & VNET else 1    # without the header, the second vector alone
    cdef iovec vector[2]
    memset(header, 0, VIRTIO_HEADER)                       # length of the headers: the kernel finds it out
    header[0] = NEEDS_CHECKSUM if burst.checksum_offset[i] != 0 else 0
    header[1] = burst.gso[i]
    memcpy(header + 4, &burst.segment[i], 2)
    memcpy(header + 6, &burst.checksum_start[i], 2)
    memcpy(header + 8, &burst.checksum_offset[i], 2)
    vector[0].iov_base = header
    vector[0].iov_len = VIRTIO_HEADER
    vector[1].iov_base = burst.packet[i]
    vector[1].iov_len = burst.length[i]
    return write_tun(port, vector + plain, 2 - plain)


# --- from the underlay ---------------------------------------------------------------------------------

cdef int prepare(Inbox *inbox) noexcept nogil:
    """0, or -ENOMEM. Undone by discard."""
    memset(inbox, 0, sizeof(Inbox))
    inbox.wanted = FEW
    inbox.room = <uint8_t *>malloc(<size_t>MESSAGES * ROOM)
    return 0 if inbox.room != NULL else -ENOMEM


cdef void discard(Inbox *inbox) noexcept nogil:
    free(inbox.room)
    inbox.room = NULL


cdef int receive_underlay(Port *port, Inbox *inbox) noexcept nogil:
    """Messages taken with one recvmmsg; 0: none waits; -errno: port is of no more use. Then call fill."""
    cdef uint32_t attempt
    cdef int taken
    inbox.count = 0
    inbox.at = 0
    inbox.offset = 0
    make_room(inbox)
    for attempt in range(TRIES):
        taken = recvmmsg(port.fd, inbox.message, inbox.wanted, MSG_DONTWAIT, NULL)
        if taken >= 0:
            break
        if errno == EAGAIN:
            return 0
        if not passes(errno):
            return -errno
        if errno != EINTR:
            port.troubled = True  # the error of a packet we sent; what waits comes with the next call
    if taken <= 0:
        return 0
    inbox.count = <uint32_t>taken
    adapt(inbox)
    return taken


cdef void make_room(Inbox *inbox) noexcept nogil:
    cdef uint32_t k
    cdef msghdr *header
    for k in range(inbox.wanted):
        header = &inbox.message[k].msg_hdr
        inbox.vector[k].iov_base = inbox.room + <size_t>k * ROOM
        inbox.vector[k].iov_len = ROOM
        header.msg_name = inbox.name[k]
        header.msg_namelen = sizeof(inbox.name[k])
        header.msg_iov = &inbox.vector[k]
        header.msg_iovlen = 1
        header.msg_control = inbox.control[k]
        header.msg_controllen = sizeof(inbox.control[k])
        header.msg_flags = 0


cdef void adapt(Inbox *inbox) noexcept nogil:
    """Many messages at a time while they are small, FEW while they are large."""
    cdef uint32_t k
    cdef size_t octets = 0
    if inbox.count < inbox.wanted:
        return
    for k in range(inbox.count):
        octets += inbox.message[k].msg_len
    if octets > <size_t>FEW * ROOM // 2:
        inbox.wanted = FEW
    elif inbox.wanted < MESSAGES:
        inbox.wanted *= 2


cdef uint32_t fill(Inbox *inbox, const Port *port, Burst *burst, Arrivals *arrivals) noexcept nogil:
    """The next packets of what was received, WIDTH at most; 0: no more. They stay where they are, in the inbox.

    Behind the outer IP and UDP headers: inner packets, or GRE headers and inner packets.
    """
    cdef uint32_t count = 0
    clear(burst, WIDTH)
    while count < WIDTH and inbox.at < inbox.count:
        count = cut(inbox, port, burst, arrivals, count)
    burst.count = count
    return count


cdef uint32_t cut(Inbox *inbox, const Port *port, Burst *burst, Arrivals *arrivals, uint32_t count) noexcept nogil:
    """Packets of one message, behind those that are there. Their number then."""
    cdef mmsghdr *message = &inbox.message[inbox.at]
    cdef uint8_t *octets = inbox.room + <size_t>inbox.at * ROOM
    cdef uint32_t length = message.msg_len if not message.msg_hdr.msg_flags & MSG_TRUNC else 0
    cdef uint32_t segment = length
    cdef uint32_t header
    cdef uint8_t traffic_class = 0
    cdef uint16_t peer_port = 0
    cdef Address peer = sender(&message.msg_hdr, &peer_port)
    read_control(&message.msg_hdr, &traffic_class, &segment)
    if port.family == 4 and port.kind != UDP_KIND:         # a raw IPv4 socket gives the header too
        header = 4 * <uint32_t>(octets[0] & 15) if length >= IP4_HEADER else 0
        if header < IP4_HEADER or length < header:
            length = 0
        else:
            traffic_class = octets[1]
            octets += header
            length -= header
        segment = length
    while count < WIDTH:
        burst.packet[count] = octets + inbox.offset
        burst.length[count] = segment if segment < length - inbox.offset else length - inbox.offset
        burst.traffic_class[count] = traffic_class
        arrivals.kind[count] = port.kind
        arrivals.local[count] = port.local
        arrivals.peer[count] = peer
        arrivals.port[count] = peer_port if port.kind == UDP_KIND else 0
        arrivals.key[count] = 0
        arrivals.keyed[count] = False
        inbox.offset += burst.length[count]
        count += 1
        if inbox.offset >= length:
            inbox.at += 1
            inbox.offset = 0
            break
    return count


cdef Address sender(const msghdr *header, uint16_t *port) noexcept nogil:
    """The address in msg_name, and its port; the unspecified address when there is none."""
    cdef Address nobody
    cdef const sockaddr_in6 *six = <const sockaddr_in6 *>header.msg_name
    cdef const sockaddr_in *four = <const sockaddr_in *>header.msg_name
    if header.msg_namelen >= sizeof(sockaddr_in6) and six.sin6_family == AF_INET6:
        port[0] = be16toh(six.sin6_port)
        return load_address(six.sin6_addr.s6_addr)
    if header.msg_namelen >= sizeof(sockaddr_in) and four.sin_family == AF_INET:
        port[0] = be16toh(four.sin_port)
        return load_address4(<const uint8_t *>&four.sin_addr)
    nobody.high = 0
    nobody.low = 0
    return nobody


cdef void read_control(msghdr *header, uint8_t *traffic_class, uint32_t *segment) noexcept nogil:
    """Traffic class of the outer header, and the size of the datagrams that UDP_GRO brought together."""
    cdef cmsghdr *item = CMSG_FIRSTHDR(header)
    cdef int32_t number
    while item != NULL:
        if item.cmsg_level == IPPROTO_IPV6 and item.cmsg_type == IPV6_TCLASS:
            memcpy(&number, CMSG_DATA(item), sizeof(number))
            traffic_class[0] = <uint8_t>number
        elif item.cmsg_level == IPPROTO_IP and item.cmsg_type == IP_TOS:
            traffic_class[0] = CMSG_DATA(item)[0]
        elif item.cmsg_level == SOL_UDP and item.cmsg_type == UDP_GRO:
            memcpy(&number, CMSG_DATA(item), sizeof(number))
            if number > 0:
                segment[0] = <uint32_t>number
        item = CMSG_NXTHDR(header, item)


# --- to the underlay: collecting -----------------------------------------------------------------------

cdef void begin(Outbox *outbox, uint8_t *results) noexcept nogil:
    """Start a burst. results: by tag; whatever cannot leave writes its Drop there, at flush."""
    outbox.results = results
    outbox.datagrams = 0
    outbox.messages = 0
    memset(outbox.recent, 0xFF, sizeof(outbox.recent))


cdef void add_packet(
    Outbox *outbox, const Way *way, const uint8_t *packet, uint32_t length, uint32_t tag,
) noexcept nogil:
    """One datagram: the shim, then packet, which stays in place until flush."""
    cdef Datagram *datagram = next_datagram(outbox, way, tag)
    if way.shim_length == 0:
        set_part(&datagram.part[0], packet, length)
        datagram.part[1].iov_len = 0
    else:
        memcpy(datagram.shim, way.shim, way.shim_length)
        set_part(&datagram.part[0], datagram.shim, way.shim_length)
        set_part(&datagram.part[1], packet, length)
    datagram.size = way.shim_length + length
    enlist(outbox, way)


cdef void add_segments(Outbox *outbox, const Way *way, Segments *segments, uint32_t tag) noexcept nogil:
    """A datagram for each segment, all with one tag. They stay in place until flush."""
    cdef uint32_t k
    cdef uint8_t *front
    cdef Datagram *datagram
    for k in range(segments.count):
        datagram = next_datagram(outbox, way, tag)
        front = segments.block[k].header - way.shim_length
        if way.shim_length != 0:
            memcpy(front, way.shim, way.shim_length)
            if way.sequenced:
                store32(segments.block[k].header - 4, load32(way.shim + way.shim_length - 4) + k)
        set_part(&datagram.part[0], front, way.shim_length + segments.header_length)
        set_part(&datagram.part[1], segments.payload[k], segments.payload_length[k])
        datagram.size = way.shim_length + segments.header_length + segments.payload_length[k]
        enlist(outbox, way)


cdef inline Datagram *next_datagram(Outbox *outbox, const Way *way, uint32_t tag) noexcept nogil:
    cdef Datagram *datagram
    if unlikely(outbox.datagrams == DATAGRAMS):
        flush(outbox)
    datagram = &outbox.datagram[outbox.datagrams]
    datagram.tag = tag
    datagram.next = NONE
    datagram.shim_length = way.shim_length
    return datagram


cdef inline void set_part(iovec *part, const uint8_t *octets, size_t length) noexcept nogil:
    part.iov_base = <void *>octets
    part.iov_len = length


cdef inline void enlist(Outbox *outbox, const Way *way) noexcept nogil:
    """Put the next datagram into the last message to its peer, or into a new one.

    Messages leave in the order they were begun, and a peer has one open message at most: its packets stay in order.
    """
    cdef uint16_t at = <uint16_t>outbox.datagrams
    cdef Datagram *datagram = &outbox.datagram[at]
    cdef uint16_t *recent = recent_of(outbox, way.peer)
    cdef Message *message
    outbox.datagrams += 1
    if recent[0] != NONE and grows(&outbox.message[recent[0]], way, datagram.size):
        message = &outbox.message[recent[0]]
        outbox.datagram[message.last].next = at
        message.last = at
        message.count += 1
        message.octets += datagram.size
        message.closed = datagram.size < message.size
        return
    recent[0] = <uint16_t>outbox.messages
    message = &outbox.message[outbox.messages]
    outbox.messages += 1
    message.port = way.port
    message.peer = way.peer
    message.peer_length = way.peer_length
    message.flow_label = way.flow_label
    message.traffic_class = way.traffic_class
    message.size = datagram.size
    message.octets = datagram.size
    message.count = 1
    message.first = at
    message.last = at
    message.closed = datagram.size == 0
    message.taken = False


cdef inline uint16_t *recent_of(Outbox *outbox, const uint8_t *peer) noexcept nogil:
    """Where the last message to peer is noted: else an empty place, else that of the older of two others."""
    cdef uint32_t slot = 2 * <uint32_t>((<uint64_t>peer * <uint64_t>0x9E3779B97F4A7C15U) >> 60)
    cdef uint16_t *two = &outbox.recent[slot]
    if two[0] == NONE or outbox.message[two[0]].peer == peer:
        return two
    if two[1] == NONE or outbox.message[two[1]].peer == peer or two[1] < two[0]:
        return two + 1
    return two


cdef inline bint grows(const Message *message, const Way *way, uint32_t size) noexcept nogil:
    return (not message.closed and message.peer == way.peer and message.port == way.port
            and way.port.flags & SEGMENT != 0 and message.traffic_class == way.traffic_class
            and size != 0 and size <= message.size and message.count < MOST_AT_ONCE
            and message.octets + size <= MOST_OCTETS)


# --- to the underlay: sending --------------------------------------------------------------------------

cdef void flush(Outbox *outbox) noexcept nogil:
    """Send what was added: one sendmmsg for each port when all goes well. The outbox is empty then."""
    cdef uint32_t first = 0
    while first < outbox.messages:
        if not outbox.message[first].taken:
            push_out(outbox, outbox.message[first].port, gather(outbox, first))
        first += 1
    outbox.datagrams = 0
    outbox.messages = 0
    memset(outbox.recent, 0xFF, sizeof(outbox.recent))


cdef uint32_t gather(Outbox *outbox, uint32_t first) noexcept nogil:
    """Headers for all messages of the port of message first. Their number."""
    cdef Port *port = outbox.message[first].port
    cdef uint32_t count = 0
    cdef uint32_t vectors = 0
    cdef uint32_t k
    for k in range(first, outbox.messages):
        if outbox.message[k].port != port:
            continue
        outbox.message[k].taken = True
        outbox.order[count] = <uint16_t>k
        vectors += write_header(outbox, &outbox.message[k], count, vectors)
        count += 1
    return count


cdef uint32_t write_header(Outbox *outbox, const Message *message, uint32_t k, uint32_t vectors) noexcept nogil:
    """Header k is that message, its octets listed from vector vectors on. The number of vectors it takes."""
    cdef msghdr *header = &outbox.header[k].msg_hdr
    cdef sockaddr_in6 *named = <sockaddr_in6 *>outbox.name[k]
    header.msg_name = <void *>message.peer
    header.msg_namelen = message.peer_length
    if message.port.family == 6 and message.port.kind != UDP_KIND:
        memcpy(named, message.peer, sizeof(sockaddr_in6))
        named.sin6_port = 0                                # of a raw socket it would be a protocol number
        named.sin6_flowinfo = htobe32(message.flow_label & 0xFFFFF)
        header.msg_name = named
    header.msg_flags = 0
    header.msg_iov = &outbox.vector[vectors]
    header.msg_iovlen = write_vectors(outbox, message, &outbox.vector[vectors])
    write_control(header, <uint8_t *>outbox.control[k], message, message.count > 1)
    return <uint32_t>header.msg_iovlen


cdef uint32_t write_vectors(const Outbox *outbox, const Message *message, iovec *vector) noexcept nogil:
    """List the parts of its datagrams; what lies directly behind each other in memory becomes one."""
    cdef uint16_t at = message.first
    cdef uint32_t count = 0
    cdef const Datagram *datagram
    cdef uint32_t k
    while at != NONE:
        datagram = &outbox.datagram[at]
        for k in range(2):
            if datagram.part[k].iov_len == 0:
                continue
            if count > 0 and (<uint8_t *>vector[count - 1].iov_base + vector[count - 1].iov_len
                              == <uint8_t *>datagram.part[k].iov_base):
                vector[count - 1].iov_len += datagram.part[k].iov_len
            else:
                vector[count] = datagram.part[k]
                count += 1
        at = datagram.next
    return count


cdef void write_control(msghdr *header, uint8_t *control, const Message *message, bint many) noexcept nogil:
    """Traffic class, and the size of datagrams when there are many. Nothing needless: the kernel reads less."""
    cdef int32_t traffic_class = message.traffic_class
    cdef uint16_t size = <uint16_t>message.size
    cdef size_t used = 0
    if traffic_class != 0:
        if message.port.family == 6:
            used += write_item(control, IPPROTO_IPV6, IPV6_TCLASS, &traffic_class, sizeof(traffic_class))
        else:
            used += write_item(control, IPPROTO_IP, IP_TOS, &traffic_class, sizeof(traffic_class))
    if many:
        used += write_item(control + used, SOL_UDP, UDP_SEGMENT, &size, sizeof(size))
    header.msg_control = control if used else NULL
    header.msg_controllen = used


cdef size_t write_item(uint8_t *control, int level, int kind, const void *value, size_t octets) noexcept nogil:
    cdef cmsghdr *item = <cmsghdr *>control
    item.cmsg_level = level
    item.cmsg_type = kind
    item.cmsg_len = CMSG_LEN(octets)
    memcpy(CMSG_DATA(item), value, octets)
    return CMSG_SPACE(octets)


cdef void push_out(Outbox *outbox, Port *port, uint32_t count) noexcept nogil:
    # The kernel stops at the first message it cannot send and says how many left before it. Only that one is
    # lost, so a failure costs one call or two and never the rest of the burst; but a full socket stays full.
    cdef uint32_t sent = 0
    cdef bint again = False
    cdef int step, fault
    while sent < count:
        step = sendmmsg(port.fd, &outbox.header[sent], count - sent, MSG_DONTWAIT)
        if likely(step > 0):
            sent += <uint32_t>step
            again = sent < count                           # one was refused, and why is lost: the next call says
            port.troubled |= again
            continue
        fault = errno
        if fault == EINTR:
            continue
        if fault == EAGAIN:
            while sent < count:
                mark(outbox, &outbox.message[outbox.order[sent]], Drop.UNDERLAY_FULL)
                sent += 1
        elif full(fault):
            mark(outbox, &outbox.message[outbox.order[sent]], Drop.UNDERLAY_FULL)
            sent += 1
        elif not again:
            again = True                                   # it may be an old error of another packet: reported once
            port.troubled = True
        else:
            send_singly(outbox, port, sent, fault)
            sent += 1
            again = False


cdef void mark(Outbox *outbox, const Message *message, uint8_t reason) noexcept nogil:
    """None of its datagrams left."""
    cdef uint16_t at = message.first
    while at != NONE:
        outbox.results[outbox.datagram[at].tag] = reason
        at = outbox.datagram[at].next


cdef void send_singly(Outbox *outbox, Port *port, uint32_t k, int fault) noexcept nogil:
    """Each datagram of a message that the kernel refused, on its own; the offload goes if it was to blame."""
    cdef const Message *message = &outbox.message[outbox.order[k]]
    cdef msghdr *header = &outbox.header[k].msg_hdr
    cdef uint16_t at = message.first
    cdef uint32_t too_big = 0xFFFFFFFFU                    # octets: a datagram of that size was
    cdef bint whole = True
    cdef uint8_t reason
    cdef Datagram *datagram
    write_control(header, <uint8_t *>outbox.control[k], message, False)
    while at != NONE:
        datagram = &outbox.datagram[at]
        header.msg_iov = datagram.part
        header.msg_iovlen = 2 if datagram.part[1].iov_len else 1
        if datagram.size >= too_big and not has_fragmentable(datagram):
            reason = Drop.TOO_BIG
        else:
            reason = send_one(port, header, datagram, &whole)
        if reason == Drop.TOO_BIG and datagram.size < too_big:
            too_big = datagram.size
        if reason != ALIVE:
            outbox.results[datagram.tag] = reason
            whole = False
        at = datagram.next
    if message.count > 1 and whole and (
            fault == EINVAL or fault == EIO or fault == EOPNOTSUPP or fault == ENOPROTOOPT):
        port.flags &= <uint8_t>~SEGMENT


cdef uint8_t send_one(Port *port, msghdr *header, const Datagram *datagram, bint *whole) noexcept nogil:
    """ALIVE, or a Drop. whole becomes False when the path is too small for it."""
    cdef uint32_t attempt
    cdef int fault = 0
    for attempt in range(TRIES):
        if sendmsg(port.fd, header, MSG_DONTWAIT) >= 0:
            return ALIVE
        if errno == EINTR:
            continue
        fault = errno
        if full(fault):
            return Drop.UNDERLAY_FULL
        port.troubled = True
        if fault == EMSGSIZE:
            whole[0] = False
            if has_fragmentable(datagram):
                return send_in_fragments(port, header)
        if attempt == 1:
            break
        if port.family == 6 and port.kind != UDP_KIND:
            (<sockaddr_in6 *>header.msg_name).sin6_flowinfo = 0    # refused where labels must be leased first
    return Drop.TOO_BIG if fault == EMSGSIZE else Drop.UNDERLAY_ERROR


cdef bint has_fragmentable(const Datagram *datagram) noexcept nogil:
    """The packet inside may travel in outer fragments; what is too short to say no may, too."""
    cdef const uint8_t *inner
    if datagram.shim_length != 0 and datagram.part[0].iov_len == datagram.shim_length:
        inner = <const uint8_t *>datagram.part[1].iov_base
    else:
        inner = <const uint8_t *>datagram.part[0].iov_base + datagram.shim_length
    if datagram.size < <uint32_t>datagram.shim_length + IP4_HEADER:
        return True
    return may_fragment(inner, datagram.size - datagram.shim_length)


cdef uint8_t send_in_fragments(Port *port, msghdr *header) noexcept nogil:
    """Once with Don't Fragment switched off. Only paths below 1280 octets and headers come here, so calls may cost."""
    cdef uint8_t reason = ALIVE
    allow_fragments(port, True)
    if sendmsg(port.fd, header, MSG_DONTWAIT) < 0 and (     # the first may have failed of an old error
            full(errno) or sendmsg(port.fd, header, MSG_DONTWAIT) < 0):
        reason = Drop.UNDERLAY_FULL if full(errno) else Drop.UNDERLAY_ERROR
    allow_fragments(port, False)
    return reason


cdef void allow_fragments(Port *port, bint allowed) noexcept nogil:
    cdef int32_t mode
    if port.family == 6:
        mode = IPV6_PMTUDISC_WANT if allowed else IPV6_PMTUDISC_DO
        setsockopt(port.fd, IPPROTO_IPV6, IPV6_MTU_DISCOVER, &mode, sizeof(mode))
    else:
        mode = IP_PMTUDISC_DONT if allowed else IP_PMTUDISC_DO
        setsockopt(port.fd, IPPROTO_IP, IP_MTU_DISCOVER, &mode, sizeof(mode))


# --- errors --------------------------------------------------------------------------------------------

cdef inline bint full(int error) noexcept nogil:
    return error == EAGAIN or error == ENOBUFS or error == ENOMEM


cdef bint passes(int error) noexcept nogil:
    """An ICMP error was waiting and reading took it away, or memory is short: the socket itself is well."""
    return (error == EINTR or error == ECONNREFUSED or error == EHOSTUNREACH or error == ENETUNREACH
            or error == ENETDOWN or error == EPROTO or error == EACCES or error == EMSGSIZE or error == ENOBUFS
            or error == ENOMEM or error == EHOSTDOWN or error == ENOPROTOOPT or error == EOPNOTSUPP
            or error == ENONET)


cdef int read_error(Port *port, Trouble *trouble) noexcept nogil:
    """1: the next error of the queue is in trouble. 0: there is none. -errno: port is of no more use."""
    cdef uint64_t name[4]
    cdef uint64_t control[64]
    cdef iovec vector
    cdef msghdr header
    cdef ssize_t octets
    while True:
        set_part(&vector, trouble.quoted, MOST_QUOTED)
        memset(&header, 0, sizeof(header))
        header.msg_name = name
        header.msg_namelen = sizeof(name)
        header.msg_iov = &vector
        header.msg_iovlen = 1
        header.msg_control = control
        header.msg_controllen = sizeof(control)
        octets = recvmsg(port.fd, &header, MSG_ERRQUEUE | MSG_DONTWAIT)
        if octets >= 0:
            trouble.quoted_length = <uint32_t>octets
            trouble.peer = sender(&header, &trouble.port)
            if explain(&header, trouble):
                if port.kind != UDP_KIND:
                    trouble.port = 0
                return 1
        elif errno == EAGAIN:
            port.troubled = False
            return 0
        elif not passes(errno):
            return -errno


cdef bint explain(msghdr *header, Trouble *trouble) noexcept nogil:
    """What the control data says. False: nothing about a packet we sent."""
    cdef cmsghdr *item = CMSG_FIRSTHDR(header)
    cdef const uint8_t *said
    while item != NULL:
        said = CMSG_DATA(item)
        if item.cmsg_len >= CMSG_LEN(ERROR_SIZE) and (
                (item.cmsg_level == IPPROTO_IPV6 and item.cmsg_type == IPV6_RECVERR)
                or (item.cmsg_level == IPPROTO_IP and item.cmsg_type == IP_RECVERR)):
            trouble.family = 6 if item.cmsg_level == IPPROTO_IPV6 else 4
            trouble.own = said[ERROR_ORIGIN] == FROM_US
            trouble.type = said[ERROR_TYPE]
            trouble.code = said[ERROR_CODE]
            memcpy(&trouble.info, said + ERROR_INFO, 4)
            read_offender(trouble, said + ERROR_SIZE, item.cmsg_len - CMSG_LEN(ERROR_SIZE))
            trouble.kind = kind_of(said, trouble)
            return FROM_US <= said[ERROR_ORIGIN] <= FROM_ICMPV6
        item = CMSG_NXTHDR(header, item)
    return False


cdef void read_offender(Trouble *trouble, const uint8_t *named, size_t octets) noexcept nogil:
    cdef uint64_t name[4]
    cdef msghdr header
    cdef uint16_t unused
    memset(name, 0, sizeof(name))
    memcpy(name, named, octets if octets < sizeof(name) else sizeof(name))
    header.msg_name = name
    header.msg_namelen = <unsigned int>octets
    trouble.offender = sender(&header, &unused)


cdef uint8_t kind_of(const uint8_t *said, const Trouble *trouble) noexcept nogil:
    """RFC 4443 3, RFC 792; the kernel's own word is an errno."""
    cdef uint32_t error
    memcpy(&error, said, 4)
    if trouble.own:
        return TOO_BIG if error == <uint32_t>EMSGSIZE else OTHER
    if said[ERROR_ORIGIN] == FROM_ICMPV6:
        if trouble.type == 2:
            return TOO_BIG
        return UNREACHABLE if trouble.type == 1 else TIME_EXCEEDED if trouble.type == 3 else (
            PARAMETER if trouble.type == 4 else OTHER)
    if trouble.type == 3:
        return TOO_BIG if trouble.code == 4 else UNREACHABLE
    return TIME_EXCEEDED if trouble.type == 11 else PARAMETER if trouble.type == 12 else OTHER


cdef uint32_t path_mtu(const uint8_t *peer, uint32_t peer_length) noexcept nogil:
    """What the kernel knows of the path to that sockaddr: octets of the largest outer packet; 0: no way there.

    Of the network namespace of the calling thread. Four system calls: for rare use.
    """
    cdef int32_t mtu = 0
    cdef unsigned int octets = sizeof(mtu)
    cdef uint16_t family                                   # peer need not be aligned
    cdef bint six
    cdef int fd
    memcpy(&family, peer, sizeof(family))
    six = family == AF_INET6
    fd = socket(family, SOCK_DGRAM | SOCK_CLOEXEC, 0)
    if fd < 0:
        return 0
    if connect(fd, <const sockaddr *>peer, peer_length) < 0 or getsockopt(
            fd, IPPROTO_IPV6 if six else IPPROTO_IP, IPV6_MTU if six else IP_MTU, &mtu, &octets) < 0:
        mtu = 0
    close(fd)
    return <uint32_t>mtu if mtu > 0 else 0


# --- by hand, for tests --------------------------------------------------------------------------------

cdef class Hand:
    """One port worked by hand: Python objects in and out, a few packets at a time."""

    cdef Port port
    cdef Inbox inbox
    cdef Arrivals arrivals
    cdef Burst *burst
    cdef Outbox *outbox
    cdef Segments *segments

    def __cinit__(self, int fd, uint8_t kind, uint8_t family, uint8_t inner, uint8_t flags, bytes local):
        self.port.fd = fd
        self.port.kind = kind
        self.port.family = family
        self.port.inner = inner
        self.port.flags = flags
        self.port.local = load_address(local)
        self.burst = bursts.allocate()
        self.outbox = <Outbox *>calloc(1, sizeof(Outbox))
        self.segments = <Segments *>calloc(1, sizeof(Segments))
        if prepare(&self.inbox) < 0 or self.burst == NULL or self.outbox == NULL or self.segments == NULL:
            raise MemoryError

    def __dealloc__(self):
        discard(&self.inbox)
        bursts.release(self.burst)
        free(self.outbox)
        free(self.segments)

    @property
    def flags(self):
        """As they are now: an offload that failed is gone."""
        return self.port.flags

    @property
    def troubled(self):
        """The error queue is worth a look."""
        return bool(self.port.troubled)

    def read(self):
        """From a TUN: list of (packet, gso, segment, checksum_start or None, checksum_offset), or -errno."""
        cdef int taken
        cdef uint32_t i
        with nogil:
            taken = receive_tun(&self.port, self.burst)
        if taken < 0:
            return taken
        rows = []
        for i in range(self.burst.count):
            rows.append((
                self.octets(i), self.burst.gso[i], self.burst.segment[i] if self.burst.gso[i] else 0,
                self.burst.checksum_start[i] if self.burst.checksum_offset[i] else None,
                self.burst.checksum_offset[i]))
        return rows

    def write(self, list parts):
        """To a TUN, in one piece. 0, or a Drop."""
        cdef iovec vectors[16]
        cdef bytes part
        cdef uint32_t count = 0
        for part in parts[:16]:
            set_part(&vectors[count], <const uint8_t *><const char *>part, len(part))
            count += 1
        return write_tun(&self.port, vectors, count)

    def receive(self):
        """From the underlay: (messages, list of bursts of (packet, peer, UDP port, traffic class)), or -errno."""
        cdef int taken
        cdef uint32_t i
        cdef uint8_t peer[16]
        with nogil:
            taken = receive_underlay(&self.port, &self.inbox)
        if taken < 0:
            return taken
        rows = []
        while fill(&self.inbox, &self.port, self.burst, &self.arrivals) > 0:
            rows.append([])
            for i in range(self.burst.count):
                store_address(peer, self.arrivals.peer[i])
                rows[-1].append((
                    self.octets(i), <bytes>(<char *>peer)[:16], self.arrivals.port[i], self.burst.traffic_class[i]))
        return taken, rows

    cdef bytes octets(self, uint32_t i):
        return <bytes>(<char *>self.burst.packet[i])[:self.burst.length[i]]

    def error(self):
        """(kind, own, type, code, family, info, peer, port, offender, quoted), None, or -errno."""
        cdef Trouble trouble
        cdef uint8_t peer[16]
        cdef uint8_t offender[16]
        cdef int found = read_error(&self.port, &trouble)
        if found <= 0:
            return found or None
        store_address(peer, trouble.peer)
        store_address(offender, trouble.offender)
        return (
            trouble.kind, bool(trouble.own), trouble.type, trouble.code, trouble.family, trouble.info,
            <bytes>(<char *>peer)[:16], trouble.port, <bytes>(<char *>offender)[:16],
            <bytes>(<char *>trouble.quoted)[:trouble.quoted_length])

    def send_segments(self, bytes peer, list segments, *, bytes shim=b"", sequenced=False, traffic_class=0):
        """Segments (header, payload) of one packet. (0 or a Drop, messages made)."""
        cdef Way way
        cdef uint8_t result = 0
        cdef bytes header, payload
        cdef uint32_t messages
        self.segments.count = 0
        for header, payload in segments:
            self.segments.header_length = len(header)
            memcpy(self.segments.block[self.segments.count].header, <const char *>header, len(header))
            self.segments.payload[self.segments.count] = <const uint8_t *><const char *>payload
            self.segments.payload_length[self.segments.count] = len(payload)
            self.segments.count += 1
        set_way(&way, self, peer, shim, traffic_class, 0)
        way.sequenced = sequenced
        begin(self.outbox, &result)
        add_segments(self.outbox, &way, self.segments, 0)
        messages = self.outbox.messages
        flush(self.outbox)
        return result, messages


cdef void set_way(Way *way, Hand hand, bytes peer, bytes shim, uint8_t traffic_class, uint32_t flow_label):
    way.port = &hand.port
    way.peer = <const uint8_t *><const char *>peer
    way.peer_length = len(peer)
    way.shim = <const uint8_t *><const char *>shim
    way.shim_length = len(shim)
    way.sequenced = False
    way.traffic_class = traffic_class
    way.flow_label = flow_label


def send(list rows):
    """Rows (hand, peer, traffic class, flow label, shim, packet): packets side by side in memory, sent in one flush.

    A peer is a sockaddr; the same bytes object is the same peer. (list of 0 or Drop by row, messages made).
    """
    cdef uint8_t *results = <uint8_t *>calloc(len(rows) + 1, 1)
    cdef uint8_t *arena = <uint8_t *>malloc(sum(len(row[5]) for row in rows) + 1)
    cdef Hand first = rows[0][0]
    cdef size_t used = 0
    cdef uint32_t tag = 0
    cdef uint32_t messages
    cdef bytes packet
    cdef Way way
    begin(first.outbox, results)
    for hand, peer, traffic_class, flow_label, shim, packet in rows:
        memcpy(arena + used, <const char *>packet, len(packet))
        set_way(&way, hand, peer, shim, traffic_class, flow_label)
        add_packet(first.outbox, &way, arena + used, len(packet), tag)
        used += len(packet)
        tag += 1
    messages = first.outbox.messages
    flush(first.outbox)
    answer = [results[tag] for tag in range(<uint32_t>len(rows))]
    free(arena)
    free(results)
    return answer, messages


def know_path(bytes peer):
    """path_mtu of a sockaddr."""
    return path_mtu(<const uint8_t *><const char *>peer, len(peer))
