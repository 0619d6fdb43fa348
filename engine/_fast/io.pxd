"""Packets in and out of descriptors. The kernel puts outer IP and UDP headers on and takes them off.

    TUN       receive_tun:  one readv per packet     | virtio header | -> here    | packet | packet | .. in the arena
              write_tun:    one writev per packet, or per packet merged of many
    underlay  receive_underlay, then fill until it gives 0:   message | packet | packet | packet |  (UDP_GRO)
              add_packet, add_segments, then flush:           datagrams of one size to one peer leave as one message

Sending copies nothing: what was added stays where it is until flush. Adding flushes by itself when the outbox is full.

Every socket asks the kernel for whole datagrams (Don't Fragment): what is larger than the path MTU fails, and is sent
once more in fragments when the rules allow that for the inner packet (spec 5: no rule lets a path be too small for
1280 octets of IPv6, or for IPv4 that may be fragmented). Everything else dies of Drop.TOO_BIG, and path_mtu says why.
"""

from libc.stdint cimport uint16_t, uint32_t, uint64_t, uint8_t

from engine._fast.burst cimport WIDTH, Burst
from engine._fast.headers cimport Address
from engine._fast.kernel cimport iovec, mmsghdr
from engine._fast.offload cimport Segments
from engine._fast.outer cimport Arrivals

cdef enum:                   # Port.kind: numbers of engine.PortKind; but for the TUN, of engine.Encapsulation too
    TUN_KIND = 0
    UDP_KIND = 1
    IP_KIND = 2
    GRE_KIND = 3

cdef enum:                   # Port.flags: as engine.Port.flags
    VNET = 1                 # TUN: a virtio header before each packet
    CHECKSUM = 2             # TUN: checksums may be left to the other side
    TSO = 4                  # TUN: TCP in large packets, both ways
    USO = 8                  # TUN: UDP in large packets, both ways
    SEGMENT = 16             # UDP: many datagrams in one message (UDP_SEGMENT)
    GRO = 32                 # UDP: the same when receiving (UDP_GRO)
    SEND_ONLY = 64           # a raw socket that takes nothing in: another of the same kind does

cdef struct Port:
    int fd
    uint8_t kind
    uint8_t family           # 4 or 6: outer; 0: TUN
    uint8_t inner            # 4 or 6: IP_KIND carries only these; 0: both
    uint8_t flags
    uint8_t troubled         # the error queue is worth a look: read_error until it gives 0 clears it
    Address local

cdef enum:
    MESSAGES = 64            # taken at once
    FEW = 8                  # messages asked for while they are large: they should stay in the cache
    ROOM = 65600             # octets of each: 16 pages and a cache line, so that messages begin in different sets
    CONTROL = 16             # words of 8 octets for the control data of a message

cdef struct Inbox:
    uint32_t count           # messages taken
    uint32_t at              # message that is cut next
    uint32_t offset          # octets of it that are cut already
    uint32_t wanted          # messages to ask for
    uint8_t *room            # MESSAGES * ROOM octets, owned; touched only as messages need them
    mmsghdr message[MESSAGES]
    iovec vector[MESSAGES]
    uint64_t name[MESSAGES][4]           # sockaddr_in or sockaddr_in6
    uint64_t control[MESSAGES][CONTROL]

cdef enum:
    MOST_SHIM = 16           # octets

cdef struct Way:             # how a packet leaves; peer is told from peer by its pointer
    Port *port
    const uint8_t *peer                  # sockaddr_in or sockaddr_in6, in place until flush
    uint32_t peer_length
    uint32_t flow_label                  # raw IPv6 sockets only: over UDP datagrams of many flows share a message
    uint8_t traffic_class
    uint8_t sequenced                    # the shim ends in a sequence number; each segment takes the next one
    uint8_t shim_length                  # octets, MOST_SHIM at most; 0: no GRE
    const uint8_t *shim                  # GRE header, copied

cdef enum:
    DATAGRAMS = 512          # in an outbox
    MOST_AT_ONCE = 64        # datagrams in one message
    MOST_OCTETS = 65507      # of one message: what UDP over IPv4 can carry
    RECENT = 32              # messages that may still grow, two for each hash of a peer
    NONE = 0xFFFF            # no index

cdef struct Datagram:        # one cache line
    iovec part[2]            # [packet] [], [GRE header] [packet], [GRE header, header of a segment] [its payload]
    uint8_t shim[MOST_SHIM]
    uint32_t tag
    uint32_t size            # octets
    uint16_t next            # of the same message; NONE: the last
    uint8_t shim_length      # octets of GRE header at the front

cdef struct Message:
    Port *port
    const uint8_t *peer
    uint32_t peer_length
    uint32_t flow_label
    uint32_t size            # octets of each datagram but the last
    uint32_t octets
    uint16_t count
    uint16_t first           # index in datagram
    uint16_t last
    uint8_t traffic_class
    uint8_t closed           # nothing can follow: its last datagram is shorter, or not fit to be one of many
    uint8_t taken            # flush has seen it

cdef struct Outbox:
    uint8_t *results         # by tag: a Drop when a datagram with that tag did not leave; else untouched
    uint32_t datagrams
    uint32_t messages
    uint16_t recent[RECENT]  # index in message, by hash of peer; NONE: none
    Datagram datagram[DATAGRAMS]
    Message message[DATAGRAMS]
    # made by flush, one port at a time
    uint16_t order[DATAGRAMS]            # message that header[k] is
    mmsghdr header[DATAGRAMS]
    iovec vector[2 * DATAGRAMS]
    uint64_t name[DATAGRAMS][4]
    uint64_t control[DATAGRAMS][8]

cdef enum:                   # Trouble.kind
    TOO_BIG = 1              # info: path MTU, octets of the outer packet
    UNREACHABLE = 2
    TIME_EXCEEDED = 3
    PARAMETER = 4            # info: pointer (IPv6: octets from the outer header)
    OTHER = 5

cdef enum:
    MOST_QUOTED = 1280       # octets

cdef struct Trouble:         # what an ICMP error, or our own kernel, says about a packet we sent
    uint8_t kind
    uint8_t own              # said by our own kernel: nothing is quoted
    uint8_t type             # of ICMP or ICMPv6
    uint8_t code
    uint8_t family           # 4 or 6: outer
    uint16_t port            # UDP port it was sent to, host order; else 0
    uint32_t info
    Address peer             # whom it was sent to
    Address offender         # who complains
    uint32_t quoted_length   # octets
    uint8_t quoted[MOST_QUOTED]          # what followed the outer headers: inner packet, or GRE header and inner packet

cdef int receive_tun(const Port *port, Burst *burst) noexcept nogil
cdef uint8_t write_tun(const Port *port, const iovec *vectors, uint32_t count) noexcept nogil
cdef uint8_t write_back(const Port *port, const Burst *burst, uint32_t i) noexcept nogil

cdef int prepare(Inbox *inbox) noexcept nogil
cdef void discard(Inbox *inbox) noexcept nogil
cdef int receive_underlay(Port *port, Inbox *inbox) noexcept nogil
cdef uint32_t fill(Inbox *inbox, const Port *port, Burst *burst, Arrivals *arrivals) noexcept nogil

cdef void begin(Outbox *outbox, uint8_t *results) noexcept nogil
cdef void add_packet(
    Outbox *outbox, const Way *way, const uint8_t *packet, uint32_t length, uint32_t tag,
) noexcept nogil
cdef void add_segments(Outbox *outbox, const Way *way, Segments *segments, uint32_t tag) noexcept nogil
cdef void flush(Outbox *outbox) noexcept nogil

cdef int read_error(Port *port, Trouble *trouble) noexcept nogil
cdef uint32_t path_mtu(const uint8_t *peer, uint32_t peer_length) noexcept nogil
