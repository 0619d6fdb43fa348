"""One packet for many: what the TUN gives is split for the tunnels, what tunnels give is merged for the TUN.

Payload is never copied. Out go header blocks and slices of the payload where it lies; both stay valid as long as the
burst and the struct they are in.

    split   | IP TCP | payload ......................... |     one packet of a burst, gso set
              -> block[0].header payload[0]   block[1].header payload[1]  ..
    merge   | IP TCP | payload | IP TCP | payload | ..         packets of a burst
              -> vector: | virtio header, IP TCP | payload | payload | ..

Sending:    fault = begin(&segments, burst, i)              # a Drop, or ALIVE
            while advance(&segments): .. count segments ..  # at most MOST_SEGMENTS a time
Receiving:  at = 0
            while at < burst.count:
                at = merge(&merger, burst, at)              # stops early when the outputs are full
                .. write output[ready[k]] for k < made ..; recycle(&merger)
            flush(&merger); .. write ..; recycle(&merger)   # always before the burst is used again
"""

from libc.stdint cimport uint16_t, uint32_t, uint64_t, uint8_t

from engine._fast.burst cimport Burst
from engine._fast.kernel cimport iovec

cdef enum:
    MOST_SEGMENTS = 64       # of one advance; what UDP_SEGMENT takes in one message
    MOST_HEADER = 176        # octets, IP and upper-layer header of one packet that can be split
    BLOCK_ROOM = 16          # octets free before each header: a GRE header fits

cdef struct Block:           # 192 octets
    uint8_t room[BLOCK_ROOM]             # ends where the header begins: room + BLOCK_ROOM - n is n octets before it
    uint8_t header[MOST_HEADER]          # IP and TCP or UDP header of one segment, complete

cdef struct Segments:
    uint32_t count                       # segments of this advance
    uint32_t header_length               # octets, the same in every segment
    Block block[MOST_SEGMENTS]
    const uint8_t *payload[MOST_SEGMENTS]
    uint32_t payload_length[MOST_SEGMENTS]  # octets; equal in all but the last segment of the packet
    # the packet being split: private
    const uint8_t *packet
    uint32_t length                      # octets of it
    uint32_t at                          # octets of payload given out
    uint32_t segment                     # octets of payload in each
    uint32_t transport                   # octets to the TCP or UDP header
    uint32_t given                       # segments given out
    uint64_t pseudo                      # checksum total of the pseudo-header without the length
    uint8_t protocol
    uint8_t summed                       # segments carry a checksum
    uint8_t done

cdef uint8_t begin(Segments *segments, const Burst *burst, uint32_t i) noexcept nogil
cdef bint advance(Segments *segments) noexcept nogil
cdef uint8_t finish_checksum(Burst *burst, uint32_t i) noexcept nogil   # of one that has an offset; Drop or ALIVE

cdef enum:
    MOST_FLOWS = 16          # open at a time
    MOST_PIECES = 64         # packets in one output
    MOST_MERGED = 65535      # octets of one output, the virtio header not counted
    OUTPUTS = 80             # MOST_FLOWS open, and 64 waiting to be written
    VIRTIO_HEADER = 10       # octets, struct virtio_net_hdr: flags 1, gso_type 1, hdr_len 2, gso_size 2, csum_start 2,
                             # csum_offset 2, in the machine's order
    HEAD = 112               # octets: virtio header, IP header, TCP header

cdef enum:                   # what a Merger may do; from the offloads of the TUN
    MERGE_TCP4 = 1
    MERGE_TCP6 = 2
    MERGE_UDP4 = 4
    MERGE_UDP6 = 8
    VIRTIO = 16              # a virtio header stands before each packet; without it nothing is merged

cdef struct Output:          # one writev; the first cache line is all that a packet on its own needs
    uint32_t vectors
    uint32_t packets                     # that came in for it
    uint32_t octets                      # of the IP packet that is written
    uint32_t following                   # private from here, but vector: sequence number (TCP) that comes next
    iovec vector[MOST_PIECES + 1]
    uint8_t head[HEAD]
    const uint8_t *packet                # the first
    uint32_t segment                     # octets of its payload
    uint16_t header                      # octets of its headers
    uint16_t transport                   # octets to its TCP or UDP header
    uint8_t protocol
    uint8_t kind                         # GSO_* of the merged packet
    uint8_t verified                     # its checksum was found right
    uint8_t fixed_id                     # IPv4: all have the identification of the first
    uint8_t flags                        # TCP, of all together

cdef struct Merger:
    uint32_t may                         # MERGE_*, VIRTIO
    uint32_t opened                      # flows
    uint32_t made                        # outputs to be written
    uint32_t free
    uint32_t tag[MOST_FLOWS]             # of flow hashes, oldest flow first
    uint8_t open[MOST_FLOWS]             # index in output
    uint8_t ready[OUTPUTS]               # index in output, in the order they must be written
    uint8_t spare[OUTPUTS]               # index in output
    uint8_t plain[VIRTIO_HEADER]         # virtio header of a packet as it came: zeros
    Output output[OUTPUTS]

cdef void prepare(Merger *merger, uint32_t may) noexcept nogil
cdef uint32_t merge(Merger *merger, const Burst *burst, uint32_t at) noexcept nogil
cdef bint add(Merger *merger, const uint8_t *packet, uint32_t length, uint64_t flow) noexcept nogil
cdef void flush(Merger *merger) noexcept nogil


cdef inline void recycle(Merger *merger) noexcept nogil:
    """All that was ready has been written."""
    cdef uint32_t k
    for k in range(merger.made):
        merger.spare[merger.free] = merger.ready[k]
        merger.free += 1
    merger.made = 0
