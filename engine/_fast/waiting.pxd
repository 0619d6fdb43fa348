"""Packets that have to wait: where their copies lie, when each must go, and whose turn it is to send them.

    Blocks      copies of packets, bounded in octets for all who share them; those of ordinary size are used again
    Deadlines   a heap of (time, index): who has to be looked at next
    Turn        what one worker has taken out during one burst, until the burst is sent

Two workers must not send from one queue at once: the second could overtake the first between taking and sending.
So a queue belongs to the worker that first touches it in its burst until that worker leaves it; what the others bring
meanwhile is queued. Nobody ever waits for anybody longer than a copy takes.

Order of locks: a queue's, then that of Blocks or Deadlines. Times: ns, monotonic.
"""

from libc.stdint cimport uint16_t, uint32_t, uint64_t, uint8_t

from engine._fast.burst cimport Burst
from engine._fast.kernel cimport load64_relaxed, pthread_mutex_t

cdef enum:
    SMALL = 256              # octets of a block and its head: acknowledgments, voice
    ORDINARY = 2048          # octets of a block and its head: whatever came over Ethernet
    MOST_SPARE = 1024        # blocks of each size kept for the next packet
    MOST_QUEUES = 512        # in one turn: a burst that arrived, and as many that were due

cdef extern from *:
    """
    #define OPENMAR_NEVER UINT64_MAX
    """
    const uint64_t NEVER "OPENMAR_NEVER"

cdef struct Aside:           # what is known about a packet beside its octets; fields as in Burst
    uint32_t tunnel
    uint32_t pieces          # packets on the wire that it stands for; 0 is read as 1
    uint16_t segment
    uint16_t checksum_start
    uint16_t checksum_offset
    uint8_t gso
    uint8_t traffic_class

cdef struct Block:           # its octets lie behind it
    Block *next
    Block *previous
    uint64_t arrived         # ns
    uint32_t room            # octets, with this head
    uint32_t length          # octets of the packet
    uint32_t sequence
    Aside aside

cdef struct Blocks:
    pthread_mutex_t lock
    Block *spare[2]          # small, ordinary
    uint32_t spares[2]
    uint64_t octets          # allocated, spare ones included
    uint64_t limit           # octets

cdef struct Deadlines:
    pthread_mutex_t lock
    uint64_t earliest        # ns; atomic, NEVER: nothing waits
    uint64_t *when           # ns; a heap: when[k] <= when[2k + 1], when[2k + 2]
    uint32_t *who            # in the order of when
    uint32_t *place          # of index i in the heap, + 1; 0: not there
    uint32_t count

cdef struct Turn:
    uint32_t worker          # from 1
    uint32_t count
    uint32_t queue[MOST_QUEUES]  # indexes of what this worker took over, to be left when the burst is sent
    uint64_t lost            # packets thrown away since the caller last looked (it counts them, and sets this to 0)


cdef inline uint8_t *octets(Block *block) noexcept nogil:
    return <uint8_t *>(block + 1)


cdef inline Aside aside_of(const Burst *burst, uint32_t i) noexcept nogil:
    cdef Aside aside
    aside.tunnel = burst.tunnel[i]
    aside.pieces = 0
    aside.segment = burst.segment[i]
    aside.checksum_start = burst.checksum_start[i]
    aside.checksum_offset = burst.checksum_offset[i]
    aside.gso = burst.gso[i]
    aside.traffic_class = burst.traffic_class[i]
    return aside


cdef inline void place(Burst *burst, uint32_t i, Block *block) noexcept nogil:
    """Packet i of a cleared burst is that block; its octets stay where they are until the turn is over."""
    burst.packet[i] = octets(block)
    burst.length[i] = block.length
    burst.sequence[i] = block.sequence
    burst.tunnel[i] = block.aside.tunnel
    burst.segment[i] = block.aside.segment
    burst.checksum_start[i] = block.aside.checksum_start
    burst.checksum_offset[i] = block.aside.checksum_offset
    burst.gso[i] = block.aside.gso
    burst.traffic_class[i] = block.aside.traffic_class


cdef inline bint claim(uint32_t *owner, uint32_t index, Turn *turn) noexcept nogil:
    """The queue of that index, whose lock is held, belongs to this turn: taken now if it is nobody's."""
    if owner[0] == 0 and turn.count < MOST_QUEUES:
        owner[0] = turn.worker
        turn.queue[turn.count] = index
        turn.count += 1
    return owner[0] == turn.worker


cdef inline uint64_t earliest(const Deadlines *deadlines) noexcept nogil:
    """ns; NEVER. Not later than the first deadline; may be earlier once, when what waited has gone meanwhile."""
    return load64_relaxed(&deadlines.earliest)


cdef int create_blocks(Blocks *blocks, uint64_t limit) noexcept nogil          # 0; -1: no memory
cdef void destroy_blocks(Blocks *blocks) noexcept nogil
cdef Block *copy(
    Blocks *blocks, const uint8_t *packet, uint32_t length, const Aside *aside,
) noexcept nogil                                                               # NULL: no room
cdef void give_back(Blocks *blocks, Block *chain) noexcept nogil               # all that hang on its next

cdef int create_deadlines(Deadlines *deadlines, uint32_t most) noexcept nogil  # 0; -1: no memory
cdef void destroy_deadlines(Deadlines *deadlines) noexcept nogil
cdef void look_at(Deadlines *deadlines, uint32_t who, uint64_t when) noexcept nogil
cdef uint32_t next_due(Deadlines *deadlines, uint64_t now) noexcept nogil      # and forgets it; 0: nobody yet
cdef void forget(Deadlines *deadlines, uint32_t who) noexcept nogil

# for the tests
cdef class Turns:
    cdef Turn turn

cdef Turn *turn_of(dict turns, uint32_t worker) except NULL                    # number of the worker -> its Turns
