"""Packets of a striped or doubled flow, in the order of their GRE sequence numbers (RFC 2890 2.2).

engine/model/reorder.py says what happens to each packet and why; this is the same with one mutex per group.

    offer -> DELIVER, LATE, STRAY, FULL: deliver it now, and then whatever take() gives, if there is more()
             KEPT: it was copied; TWIN: it dies
    take  -> the next in order, or NULL; its octets stay where they are until leave()
    leave -> at the end of the burst, when all is sent
    due   -> the next group in which something waited long enough: take from it as after offer()

    slots (sequence & mask)            ready                  taken
    [ - | 7 | - | - | 4 | GONE | 6 ]   1 -> 2 -> 3            of the owner, until it leaves
"""

from libc.stdint cimport uint32_t, uint64_t, uint8_t

from engine._fast.kernel cimport load32_relaxed, pthread_mutex_t
from engine._fast.waiting cimport Aside, Block, Blocks, Deadlines, Turn

cdef enum:
    MOST_GROUPS = 4096
    MOST_PACKETS = 65536     # that may be early in one group
    HISTORY = 128            # times the packets that may be early: numbers of which we know if they were delivered
    RESTART = 4              # packets in a row, far from what is expected: the new numbering of the sender
    STRAYS = 64              # numbers up to the newest stray of which we know if they were delivered
    FIRST = 16               # numbers below it are those a sender begins with
    QUIET = 1000000000       # ns without anything new, after which a number is believed at once

cdef enum:                   # what becomes of a packet
    DELIVER = 1
    KEPT = 2
    TWIN = 3
    LATE = 4
    STRAY = 5
    FULL = 6

cdef enum:
    FREE = 0
    OPEN = 1
    CLOSING = 2              # closed while a worker had packets of it in its hands

cdef struct Counts:          # as engine.model.reorder.Counts
    uint64_t in_order
    uint64_t early
    uint64_t late
    uint64_t twins
    uint64_t given_up        # numbers
    uint64_t resynchronised  # times
    uint64_t strays
    uint64_t full

cdef struct Group:
    pthread_mutex_t lock
    uint8_t state
    uint8_t made             # the lock is
    uint8_t synchronised
    uint32_t owner           # worker that delivers now; 0: nobody
    uint32_t more            # atomic; something is ready
    uint32_t mask            # slots - 1
    uint32_t history         # numbers, bits of delivered
    uint32_t expected        # sequence number
    Block **slots            # NULL: not here; GONE: delivered ahead of its turn
    uint32_t filled          # slots that are not NULL
    uint64_t *delivered      # bit n % history: number n of the history was delivered
    Block *oldest            # kept ones in the order of arrival
    Block *newest
    Block *ready
    Block *ready_last
    Block *taken
    uint64_t octets          # kept
    uint64_t octets_limit
    uint64_t limit           # ns a packet may wait
    uint64_t listed          # ns; when somebody will look at the group, NEVER
    uint64_t last_new        # ns
    uint64_t last_first      # ns
    uint64_t strays_seen     # bit k: number stray - k was delivered
    uint32_t stray           # the highest of the streak
    uint32_t streak          # strays in a row
    uint32_t next_free
    Counts counts

cdef struct Groups:
    pthread_mutex_t lock     # of free
    Group *groups            # MOST_GROUPS + 1; 0 is nobody
    Blocks blocks
    Deadlines deadlines      # waiting.earliest() tells when due() has something to do
    uint32_t free


cdef inline bint more(const Groups *groups, uint32_t group) noexcept nogil:
    """take() would give something, if this turn owns the group."""
    return load32_relaxed(&groups.groups[group].more) != 0


# control thread
cdef int create(Groups *groups, uint64_t store) noexcept nogil    # 0; -1: no memory. store: octets of all copies
cdef void destroy(Groups *groups) noexcept nogil                  # no worker may be at it
cdef uint32_t open_group(
    Groups *groups, uint32_t packets, uint64_t octets, uint64_t limit,
) noexcept nogil                                                  # index; 0: none is free, or no memory
cdef void close_group(Groups *groups, uint32_t group, Turn *turn) noexcept nogil
cdef void read_counts(Groups *groups, uint32_t group, Counts *counts) noexcept nogil
# workers
cdef uint8_t offer(
    Groups *groups, uint32_t group, Turn *turn, uint32_t sequence,
    const uint8_t *packet, uint32_t length, const Aside *aside, uint64_t now,
) noexcept nogil
cdef Block *take(Groups *groups, uint32_t group, Turn *turn) noexcept nogil
cdef void leave(Groups *groups, Turn *turn) noexcept nogil        # all groups of the turn
cdef uint32_t due(Groups *groups, Turn *turn, uint64_t now) noexcept nogil  # index; 0: none
