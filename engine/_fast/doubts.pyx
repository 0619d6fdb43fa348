"""A copy of each packet that waits, and closing the ranks of those that go on waiting."""

from libc.string cimport memmove, memset

from engine._fast cimport burst as bursts
from engine._fast.burst cimport ARENA, GSO_NONE
from engine._fast.drops cimport ALIVE, KEPT


cdef int create(Doubts *doubts) noexcept nogil:
    memset(doubts, 0, sizeof(Doubts))
    doubts.burst = bursts.allocate()
    return 0 if doubts.burst != NULL else -1


cdef void destroy(Doubts *doubts) noexcept nogil:
    bursts.release(doubts.burst)


cdef uint64_t next_end(const Doubts *doubts) noexcept nogil:
    """ns, when the first of them has waited long enough. Some waits."""
    cdef uint64_t when = doubts.until[0]
    cdef uint32_t i
    for i in range(1, doubts.burst.count):
        when = min(when, doubts.until[i])
    return when


cdef bint keep(Doubts *doubts, const Burst *burst, uint32_t i, const Arrivals *arrivals, uint64_t until) noexcept nogil:
    """Packet i waits from now on. False: there is no room."""
    cdef uint32_t n = doubts.burst.count
    if n == MOST or doubts.octets + burst.length[i] > <uint32_t>ARENA:
        return False
    line_up(doubts, n, burst, i, arrivals)
    doubts.until[n] = until
    doubts.burst.count = n + 1
    return True


cdef void stay(Doubts *doubts) noexcept nogil:
    """They were looked at: those that are KEPT without a tunnel wait on, the others are gone."""
    cdef Burst *waiting = doubts.burst
    cdef uint32_t n = 0
    cdef uint32_t i
    doubts.octets = 0
    for i in range(waiting.count):
        if waiting.drop[i] != KEPT or waiting.tunnel[i] != 0:
            continue                                      # KEPT with a tunnel: in another queue
        line_up(doubts, n, waiting, i, &doubts.arrivals)
        doubts.until[n] = doubts.until[i]
        n += 1
    waiting.count = n


cdef inline void line_up(
    Doubts *doubts, uint32_t n, const Burst *burst, uint32_t i, const Arrivals *arrivals,
) noexcept nogil:
    """Packet i has place n: all that is known of it before it is recognised. It is no bundle: tunnels carry none."""
    cdef Burst *waiting = doubts.burst
    cdef Arrivals *theirs = &doubts.arrivals
    cdef uint8_t *place = waiting.arena + doubts.octets
    memmove(place, burst.packet[i], burst.length[i])      # before its own place is written over: burst may be waiting
    waiting.packet[n] = place
    doubts.octets += burst.length[i]
    waiting.drop[n] = ALIVE
    waiting.gso[n] = GSO_NONE
    waiting.checksum_offset[n] = 0
    waiting.length[n] = burst.length[i]
    waiting.traffic_class[n] = burst.traffic_class[i]
    waiting.sequenced[n] = burst.sequenced[i]
    waiting.sequence[n] = burst.sequence[i]
    theirs.kind[n] = arrivals.kind[i]
    theirs.local[n] = arrivals.local[i]
    theirs.peer[n] = arrivals.peer[i]
    theirs.port[n] = arrivals.port[i]
    theirs.key[n] = arrivals.key[i]
    theirs.keyed[n] = arrivals.keyed[i]
