"""Connections that begin, change or end: what takes the lock. What an open one needs is inline in connections.pxd."""

from libc.string cimport memset

from engine._fast cimport slabs
from engine._fast.kernel cimport (
    fetch_add64, pthread_mutex_destroy, pthread_mutex_init, pthread_mutex_lock, pthread_mutex_unlock, store64_relaxed,
)


cdef int create(Connections *connections) noexcept nogil:
    """None is known, and none is followed. -1: no memory."""
    memset(connections, 0, sizeof(Connections))
    if (slabs.create(&connections.slab, sizeof(Connection), SETS * WAYS, 0) < 0
            or slabs.back(&connections.slab, SETS * WAYS) < 0):
        destroy(connections)
        return -1
    pthread_mutex_init(&connections.lock, NULL)
    connections.made = True
    return 0


cdef void destroy(Connections *connections) noexcept nogil:
    """Also of what was never created, if it is all zeros."""
    if connections.made:
        pthread_mutex_destroy(&connections.lock)
        connections.made = False
    slabs.destroy(&connections.slab)


# --- a segment that may change something ------------------------------------------------------------------

cdef bint change(
    Connections *connections, uint64_t key, uint64_t prefix, uint8_t way, uint8_t flags, uint32_t clock,
) noexcept nogil:
    cdef bint placed
    pthread_mutex_lock(&connections.lock)
    placed = change_locked(connections, key, prefix, way, flags, clock)
    pthread_mutex_unlock(&connections.lock)
    if not placed:
        fetch_add64(&connections.crowded, 1)
    return placed


cdef bint change_locked(
    Connections *connections, uint64_t key, uint64_t prefix, uint8_t way, uint8_t flags, uint32_t clock,
) noexcept nogil:
    cdef uint8_t before
    cdef uint8_t after
    cdef Connection *connection = find(connections, key, &before)
    if connection == NULL or is_over(connections, connection, clock):
        before = 0
    after = next_state(before, way, flags)
    if after == 0:
        return True                                       # of a stream nobody knows, and nobody need know
    if connection == NULL:
        connection = place(connections, key, clock)
    if connection == NULL:
        return not after & OPEN
    if after & CLOSED != CLOSED or before != after:       # what follows the end does not put it off
        store32_relaxed(&connection.seen, clock)
    store32_relaxed(&connection.prefix, <uint32_t>(prefix >> 32))
    store64_relaxed(&connection.what, (key & ~<uint64_t>STATE) | after)
    return True


cdef uint8_t next_state(uint8_t state, uint8_t way, uint8_t flags) noexcept nogil:
    """The state of a connection after one more segment. 0: there is none."""
    if flags & RST:
        return RESET if state != 0 and state & CLOSED != CLOSED else state
    if flags & SYN:
        if state & RESET or state & CLOSED == CLOSED:
            return state if flags & ACK else way          # the same ports again
        return state | way
    if flags & FIN:
        state |= way | way << 3
        return CLOSED if state & CLOSED == CLOSED else state
    if flags & ACK == 0 or state & CLOSED == CLOSED:
        return state
    state |= way
    if state & RESET:
        if state & (UP | DOWN) == UP | DOWN:
            state = (state | OPEN) ^ RESET                    # neither end has believed it
        return state
    return state | OPEN if state & UP else state


cdef Connection *place(const Connections *connections, uint64_t key, uint32_t clock) noexcept nogil:
    """Where a new one goes: what is free or over, else what is not open, the oldest first. NULL: all others are open."""
    cdef Connection *ways = set_of(connections, key)
    cdef Connection *best = NULL
    cdef Connection *each
    cdef uint32_t first = <uint32_t>(key >> 56)
    cdef uint32_t oldest = 0
    cdef uint32_t k
    for k in range(WAYS):
        each = &ways[(first + k) & (WAYS - 1)]
        if each.what == 0:
            return each
        if not is_open(connections, each, clock) and (best == NULL or age_of(each, clock) > oldest):
            best = each
            oldest = age_of(each, clock)
    return best


cdef inline bint is_over(const Connections *connections, const Connection *connection, uint32_t clock) noexcept nogil:
    """Nothing has passed for so long that it is as if it had never been."""
    cdef bint opened = load64_relaxed(&connection.what) & OPEN != 0
    return age_of(connection, clock) >= (load32_relaxed(&connections.limit) if opened else <uint32_t>TRANSITORY)


cdef bint is_open(const Connections *connections, const Connection *connection, uint32_t clock) noexcept nogil:
    return load64_relaxed(&connection.what) & OPEN != 0 and not is_over(connections, connection, clock)


# --- what is known ------------------------------------------------------------------------------------------

cdef OpenOnes count(const Connections *connections, uint64_t prefix, uint32_t clock) noexcept nogil:
    """Connections of a prefix, by its hash, that are open. A look at all there are: 1 MiB."""
    cdef const Connection *each = <const Connection *>connections.slab.base
    cdef OpenOnes found
    cdef uint32_t i
    found.number = 0
    found.age = 0xFFFFFFFF
    for i in range(SETS * WAYS):
        if load32_relaxed(&each[i].prefix) == <uint32_t>(prefix >> 32) and is_open(connections, &each[i], clock):
            found.number += 1
            found.age = min(found.age, age_of(&each[i], clock))
    return found


# --- alone, for tests ---------------------------------------------------------------------------------------

cdef class Trial:
    """Connections by themselves: engine.model.connections.Connections has the same methods. Clocks: 0.1 s."""

    cdef Connections connections

    def __cinit__(self):
        if create(&self.connections) < 0:
            raise MemoryError

    def __dealloc__(self):
        destroy(&self.connections)

    def follow(self, uint32_t limit):
        """Connections are open for so long after their last packet; 0: none is followed."""
        store32_relaxed(&self.connections.limit, limit)

    def see(self, uint64_t prefix, uint64_t flow, uint8_t way, uint8_t flags, uint32_t clock):
        """A segment passed. prefix, flow: hashes. False: its connection is open, and there is no place for it."""
        return bool(see(&self.connections, key_of(flow, prefix), prefix, way, flags, clock))

    def count(self, uint64_t prefix, uint32_t clock):
        """(how many are open, age of the last packet of any of them; None: none is)"""
        cdef OpenOnes found = count(&self.connections, prefix, clock)
        return found.number, found.age if found.number else None

    @property
    def crowded(self):
        """Packets of open connections that found no place."""
        return load64_relaxed(&self.connections.crowded)
