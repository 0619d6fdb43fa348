"""Copies of packets, and the heap of those who have to be looked at."""

from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset

from engine._fast.kernel cimport (
    pthread_mutex_destroy, pthread_mutex_init, pthread_mutex_lock, pthread_mutex_unlock, store64_relaxed,
)

# --- copies --------------------------------------------------------------------------------------------

cdef int create_blocks(Blocks *blocks, uint64_t limit) noexcept nogil:
    memset(blocks, 0, sizeof(Blocks))
    blocks.limit = limit
    return -1 if pthread_mutex_init(&blocks.lock, NULL) else 0


cdef void destroy_blocks(Blocks *blocks) noexcept nogil:
    cdef uint32_t size
    cdef Block *block
    for size in range(2):
        while blocks.spare[size] != NULL:
            block = blocks.spare[size]
            blocks.spare[size] = block.next
            free(block)
    pthread_mutex_destroy(&blocks.lock)


cdef Block *copy(Blocks *blocks, const uint8_t *packet, uint32_t length, const Aside *aside) noexcept nogil:
    """A copy of the packet with no neighbours; NULL: the bound is reached, or there is no memory."""
    cdef uint32_t room = room_for(length)
    cdef Block *block
    pthread_mutex_lock(&blocks.lock)
    block = take_spare(blocks, room)
    if block == NULL:
        block = allocate(blocks, room)
    pthread_mutex_unlock(&blocks.lock)
    if block == NULL:
        return NULL
    memset(block, 0, sizeof(Block))
    block.room = room
    block.length = length
    if aside != NULL:
        block.aside = aside[0]
    if length:
        memcpy(octets(block), packet, length)
    return block


cdef void give_back(Blocks *blocks, Block *chain) noexcept nogil:
    cdef Block *block
    if chain == NULL:
        return
    pthread_mutex_lock(&blocks.lock)
    while chain != NULL:
        block = chain
        chain = block.next
        if not keep_spare(blocks, block):
            blocks.octets -= block.room
            free(block)
    pthread_mutex_unlock(&blocks.lock)


cdef inline uint32_t room_for(uint32_t length) noexcept nogil:
    cdef uint32_t room = length + <uint32_t>sizeof(Block)
    if room <= SMALL:
        return SMALL
    return ORDINARY if room <= ORDINARY else room


cdef inline Block *take_spare(Blocks *blocks, uint32_t room) noexcept nogil:
    cdef uint32_t size = room != SMALL
    cdef Block *block = blocks.spare[size]
    if room > ORDINARY or block == NULL:
        return NULL
    blocks.spare[size] = block.next
    blocks.spares[size] -= 1
    return block


cdef inline bint keep_spare(Blocks *blocks, Block *block) noexcept nogil:
    cdef uint32_t size = block.room != SMALL
    if block.room > ORDINARY or blocks.spares[size] == MOST_SPARE:
        return False
    block.next = blocks.spare[size]
    blocks.spare[size] = block
    blocks.spares[size] += 1
    return True


cdef Block *allocate(Blocks *blocks, uint32_t room) noexcept nogil:
    cdef Block *block
    if blocks.octets + room > blocks.limit:
        drop_spares(blocks)  # of the other size: they must not keep this one out
        if blocks.octets + room > blocks.limit:
            return NULL
    block = <Block *>malloc(room)
    if block != NULL:
        blocks.octets += room
    return block


cdef void drop_spares(Blocks *blocks) noexcept nogil:
    cdef uint32_t size
    cdef Block *block
    for size in range(2):
        while blocks.spare[size] != NULL:
            block = blocks.spare[size]
            blocks.spare[size] = block.next
            blocks.octets -= block.room
            free(block)
        blocks.spares[size] = 0


# --- deadlines -----------------------------------------------------------------------------------------

cdef int create_deadlines(Deadlines *deadlines, uint32_t most) noexcept nogil:
    """For indexes 1 to most."""
    memset(deadlines, 0, sizeof(Deadlines))
    deadlines.earliest = NEVER
    deadlines.when = <uint64_t *>calloc(most + 1, sizeof(uint64_t))
    deadlines.who = <uint32_t *>calloc(most + 1, sizeof(uint32_t))
    deadlines.place = <uint32_t *>calloc(most + 1, sizeof(uint32_t))
    if (deadlines.when == NULL or deadlines.who == NULL or deadlines.place == NULL
            or pthread_mutex_init(&deadlines.lock, NULL)):
        free(deadlines.when)
        free(deadlines.who)
        free(deadlines.place)
        return -1
    return 0


cdef void destroy_deadlines(Deadlines *deadlines) noexcept nogil:
    free(deadlines.when)
    free(deadlines.who)
    free(deadlines.place)
    pthread_mutex_destroy(&deadlines.lock)


cdef void look_at(Deadlines *deadlines, uint32_t who, uint64_t when) noexcept nogil:
    """Who has to be looked at not later than when. An earlier time that is there already stays."""
    cdef uint32_t at
    pthread_mutex_lock(&deadlines.lock)
    at = deadlines.place[who]
    if at == 0:
        deadlines.count += 1
        rise(deadlines, deadlines.count - 1, who, when)
    elif when < deadlines.when[at - 1]:
        rise(deadlines, at - 1, who, when)
    publish(deadlines)
    pthread_mutex_unlock(&deadlines.lock)


cdef uint32_t next_due(Deadlines *deadlines, uint64_t now) noexcept nogil:
    cdef uint32_t who = 0
    if earliest(deadlines) > now:
        return 0
    pthread_mutex_lock(&deadlines.lock)
    if deadlines.count and deadlines.when[0] <= now:
        who = deadlines.who[0]
        remove(deadlines, 0)
    publish(deadlines)
    pthread_mutex_unlock(&deadlines.lock)
    return who


cdef void forget(Deadlines *deadlines, uint32_t who) noexcept nogil:
    pthread_mutex_lock(&deadlines.lock)
    if deadlines.place[who]:
        remove(deadlines, deadlines.place[who] - 1)
    publish(deadlines)
    pthread_mutex_unlock(&deadlines.lock)


cdef inline void publish(Deadlines *deadlines) noexcept nogil:
    store64_relaxed(&deadlines.earliest, deadlines.when[0] if deadlines.count else NEVER)


cdef inline void put_at(Deadlines *deadlines, uint32_t at, uint32_t who, uint64_t when) noexcept nogil:
    deadlines.when[at] = when
    deadlines.who[at] = who
    deadlines.place[who] = at + 1


cdef void rise(Deadlines *deadlines, uint32_t at, uint32_t who, uint64_t when) noexcept nogil:
    """Put it where at is, or nearer to the top."""
    cdef uint32_t above
    while at:
        above = (at - 1) // 2
        if deadlines.when[above] <= when:
            break
        put_at(deadlines, at, deadlines.who[above], deadlines.when[above])
        at = above
    put_at(deadlines, at, who, when)


cdef void sink(Deadlines *deadlines, uint32_t at, uint32_t who, uint64_t when) noexcept nogil:
    """Put it where at is, or further from the top."""
    cdef uint32_t below = 2 * at + 1
    while below < deadlines.count:
        if below + 1 < deadlines.count and deadlines.when[below + 1] < deadlines.when[below]:
            below += 1
        if when <= deadlines.when[below]:
            break
        put_at(deadlines, at, deadlines.who[below], deadlines.when[below])
        at = below
        below = 2 * at + 1
    put_at(deadlines, at, who, when)


cdef void remove(Deadlines *deadlines, uint32_t at) noexcept nogil:
    cdef uint32_t who, last = deadlines.count - 1
    cdef uint64_t when
    deadlines.place[deadlines.who[at]] = 0
    deadlines.count = last
    if at == last:
        return
    who = deadlines.who[last]
    when = deadlines.when[last]
    if at and when < deadlines.when[(at - 1) // 2]:
        rise(deadlines, at, who, when)
    else:
        sink(deadlines, at, who, when)


# --- for the tests -------------------------------------------------------------------------------------

cdef class Turns:
    """The turn of one worker."""


cdef Turn *turn_of(dict turns, uint32_t worker) except NULL:
    """The turn of that worker, which begins with the first call."""
    if worker not in turns:
        turns[worker] = Turns()
        (<Turns>turns[worker]).turn.worker = worker
    return &(<Turns>turns[worker]).turn
