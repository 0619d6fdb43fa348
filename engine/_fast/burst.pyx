"""Buffers of a burst: made once, used for every burst of a worker, freed with it."""

from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memset

from engine._fast.drops cimport ALIVE


cdef Burst *allocate() noexcept nogil:
    """A burst with its arena, empty; NULL: no memory. Pages are touched only as packets need them."""
    cdef Burst *burst = <Burst *>calloc(1, sizeof(Burst))
    if burst == NULL:
        return NULL
    burst.arena = <uint8_t *>malloc(ARENA)
    if burst.arena == NULL:
        free(burst)
        return NULL
    return burst


cdef void release(Burst *burst) noexcept nogil:
    if burst != NULL:
        free(burst.arena)
        free(burst)


cdef void clear(Burst *burst, uint32_t count) noexcept nogil:
    """Begin a burst of count packets, all alive, none of them a bundle."""
    burst.count = count
    memset(burst.drop, ALIVE, count)
    memset(burst.gso, GSO_NONE, count)
    memset(burst.checksum_offset, 0, count * sizeof(burst.checksum_offset[0]))
    memset(burst.sequenced, 0, count)
