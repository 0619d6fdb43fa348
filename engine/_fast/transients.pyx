"""The queue of transient bindings: entries come at its end, and are taken from its front when their time is over."""

from libc.stdint cimport uint8_t
from libc.string cimport memset

from engine._fast cimport slabs
from engine._fast.kernel cimport store32_relaxed


cdef int create(Transients *transients) noexcept nogil:
    cdef Transient shape
    memset(transients, 0, sizeof(Transients))
    return slabs.create(&transients.slab, sizeof(Transient), MOST_TRANSIENTS,
                        <uint32_t>(<uint8_t *>&shape.next_free - <uint8_t *>&shape))


cdef void destroy(Transients *transients) noexcept nogil:
    """No reader is left, and limbo is empty."""
    slabs.destroy(&transients.slab)


cdef uint32_t add(Transients *transients, const Transient *wanted) noexcept nogil:
    """A new entry like that one, which is the last to go."""
    cdef uint32_t index = slabs.take(&transients.slab)
    if index == 0:
        return 0
    at(transients, index)[0] = wanted[0]
    at(transients, index).following = 0
    if transients.newest != 0:
        at(transients, transients.newest).following = index
    else:
        transients.oldest = index
    transients.newest = index
    return index


cdef void shorten(Transients *transients, uint32_t until) noexcept nogil:
    """None is to stand longer than until then."""
    cdef uint32_t index = transients.oldest
    while index != 0:
        if <int32_t>(at(transients, index).until - until) > 0:
            store32_relaxed(&at(transients, index).until, until)
        index = at(transients, index).following


cdef uint32_t pop(Transients *transients, uint32_t clock) noexcept nogil:
    """The oldest entry, if its time is over or it was let go, out of the queue: the caller retires it. 0: none."""
    cdef uint32_t index = transients.oldest
    if index == 0 or (at(transients, index).count != 0 and <int32_t>(at(transients, index).until - clock) >= 0):
        return 0
    transients.oldest = at(transients, index).following
    if transients.oldest == 0:
        transients.newest = 0
    return index
