"""The tap: copies of what a worker sends and receives, for a capture. One ring per worker, no lock.

    worker (one)                                      control thread (one, holds the GIL)
    wanted()  one load of a zero word while it is off   open_tap, close_tap
    record()  --> | head .. octets .. data | ... | -->  read_records() -> [(time, direction, original length, data)]
                  ^ tail, of the reader         ^ head, of the worker

The ring is made when the tap is opened and stays until the worker is gone: nobody frees what the other may look at.
A packet that finds no room is counted as lost; the worker never waits.
"""

from libc.stdint cimport uint32_t, uint64_t, uint8_t

from engine._fast.kernel cimport load32_relaxed

cdef enum:
    ALL_TUNNELS = 0xFFFFFFFF # wanted() of a capture of everything
    MOST_SNAP = 65600        # octets kept of a packet, at most
    MOST_HEAD = 80           # octets of an outer header

cdef enum:                   # direction, as in pcapng (epb_flags, bits 0 and 1)
    INBOUND = 1              # came out of the tunnel
    OUTBOUND = 2             # goes into it

cdef struct Tap:
    uint32_t tunnel          # atomic; index in Tunnels, ALL_TUNNELS; 0: off
    uint32_t snap            # octets kept of each packet
    uint64_t offset          # ns; atomic: wall clock - monotonic
    uint64_t size            # octets of the ring, a power of two
    void *ring               # atomic; NULL: never opened
    uint8_t apart[64]
    uint64_t head            # atomic; octets ever written; of the worker
    uint64_t lost            # atomic; packets; of the worker
    uint8_t apart_too[64]
    uint64_t tail            # atomic; octets ever read; of the reader

cdef struct Record:          # in front of each packet in the ring
    uint64_t time            # ns since 1970
    uint32_t original        # octets of the packet
    uint32_t captured        # octets that follow
    uint32_t direction


cdef inline uint32_t wanted(const Tap *tap) noexcept nogil:
    """Which tunnel is captured, once per burst: an index, ALL_TUNNELS, or 0."""
    return load32_relaxed(&tap.tunnel)


# worker
cdef void record(
    Tap *tap, uint32_t direction, const uint8_t *head, uint32_t head_length,
    const uint8_t *packet, uint32_t length, uint64_t now,
) noexcept nogil
# control thread
cdef int open_tap(Tap *tap, uint32_t tunnel, uint32_t snap, uint64_t size, uint64_t offset) noexcept nogil
cdef void close_tap(Tap *tap) noexcept nogil
cdef list read_records(Tap *tap)
cdef uint64_t lost_packets(Tap *tap) noexcept nogil
cdef void destroy(Tap *tap) noexcept nogil                        # the worker is gone
