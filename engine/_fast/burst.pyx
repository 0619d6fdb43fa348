"""Buffers of a burst: made once, used for every burst of an engine, freed with it."""

from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memset

from engine._fast.drops cimport ALIVE


cdef Burst *allocate() noexcept nogil:
    """A burst with its buffers, empty; NULL: no memory. Pages are touched only as packets need them."""
    cdef Burst *burst = <Burst *>calloc(1, sizeof(Burst))
    cdef uint32_t i
    if burst == NULL:
        return NULL
    burst.memory = <uint8_t *>malloc(<size_t>WIDTH * STRIDE)
    if burst.memory == NULL:
        free(burst)
        return NULL
    for i in range(<uint32_t>WIDTH):
        burst.packet[i] = burst.memory + <size_t>i * STRIDE + HEADROOM
    return burst


cdef void release(Burst *burst) noexcept nogil:
    if burst != NULL:
        free(burst.memory)
        free(burst)


cdef void clear(Burst *burst, uint32_t count) noexcept nogil:
    """Begin a burst of count packets, all alive."""
    burst.count = count
    memset(burst.drop, ALIVE, count)
