"""Packets of a prefix whose node is between routers wait at its anchor. engine/model/hold.py says what happens and why.

    put     -> DIRECT: forward it as ever; KEPT: it was copied; FULL: it dies. older: it goes before those that are not
    due     -> the next hold that has something to send now: take from it
    take    -> the next packet, or NULL: not yet, or another worker drains; its octets stay until leave()
    leave   -> at the end of the burst, when all is sent

release() and hold_again() change the deadline: workers that sleep until earliest() must be woken after them.
What expired is counted in the hold, and in turn.lost for the worker's own counter.
"""

from libc.stdint cimport uint32_t, uint64_t, uint8_t

from engine._fast.kernel cimport pthread_mutex_t
from engine._fast.waiting cimport Aside, Block, Blocks, Deadlines, Turn

cdef enum:
    MOST_HOLDS = 65536
    BURST = 5000000          # ns of pace that a late wake-up may make up for
    EASE = 100000000         # ns after which the pace is twice what it was
    MOST_EASED = 16          # times

cdef enum:                   # what becomes of a packet
    DIRECT = 1
    KEPT = 2
    FULL = 3

cdef enum:                   # phases
    FREE = 0
    HOLDING = 1
    DRAINING = 2
    EMPTY = 3                # drained: packets go directly
    CLOSING = 4              # ended while a worker had packets of it in its hands

cdef struct Counts:          # as engine.model.hold.Counts
    uint64_t kept
    uint64_t sent
    uint64_t full
    uint64_t expired

cdef struct Hold:
    pthread_mutex_t lock
    uint8_t phase            # atomic
    uint8_t made             # the lock is
    uint32_t owner           # worker that drains now; 0: nobody
    uint32_t next_free
    uint32_t packets         # waiting
    uint32_t packets_limit
    uint64_t octets          # waiting
    uint64_t octets_limit
    uint64_t limit           # ns a packet may wait
    uint64_t pace            # octets/s; 0: none
    uint64_t released        # ns
    uint64_t next            # ns; when the next packet may go
    uint64_t listed          # ns; when somebody will look at it, NEVER
    Block *first
    Block *last
    Block *older             # the last one that is: it and all before it go before the others; NULL: none
    Block *taken
    Counts counts

cdef struct Holds:
    pthread_mutex_t lock     # of free
    Hold *holds              # MOST_HOLDS + 1; 0 is nobody
    Blocks blocks
    Deadlines deadlines      # waiting.earliest() tells when due() has something to do
    uint32_t free            # head of the list of those that were used
    uint32_t fresh           # the first that never was


# control thread
cdef int create(Holds *holds, uint64_t store) noexcept nogil      # 0; -1: no memory. store: octets of all copies
cdef void destroy(Holds *holds) noexcept nogil                    # no worker may be at it
cdef uint32_t begin(
    Holds *holds, uint32_t packets, uint64_t octets, uint64_t limit,
) noexcept nogil                                                  # index, holding; 0: none is free
cdef void release(Holds *holds, uint32_t hold, uint64_t pace, uint64_t now) noexcept nogil
cdef void hold_again(Holds *holds, uint32_t hold) noexcept nogil
cdef void end(Holds *holds, uint32_t hold, Turn *turn) noexcept nogil
cdef Block *take_out(Holds *holds, uint32_t hold) noexcept nogil  # all that waits, a chain; no worker may be at it
cdef uint8_t read_counts(Holds *holds, uint32_t hold, Counts *counts) noexcept nogil  # its phase
# workers
cdef uint8_t put(
    Holds *holds, uint32_t hold, Turn *turn,
    const uint8_t *packet, uint32_t length, const Aside *aside, uint64_t now, bint older,
) noexcept nogil
cdef uint32_t due(Holds *holds, Turn *turn, uint64_t now) noexcept nogil  # index; 0: none
cdef Block *take(Holds *holds, uint32_t hold, Turn *turn, uint64_t now) noexcept nogil
cdef bint put_back(Holds *holds, uint32_t hold, uint32_t count) noexcept nogil  # False: it was ended
cdef void leave(Holds *holds, Turn *turn) noexcept nogil          # all holds of the turn
