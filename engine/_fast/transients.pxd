"""Transient bindings: the way that a prefix had lets in, for a while, what is still on its way through it (RFC 6058).

    prefix -> Binding  way now: tunnel 5
                       former ----------> Transient  way before: tunnel 3, until 12:00:01

A node that has moved is heard through its new router before all has come that it sent through the one before. Of several
ways before only the last is remembered. An entry holds a reference on its tunnel or bundle; one that is let go early
has target 0, and stays in the queue until it is the oldest.
"""

from libc.stdint cimport int32_t, uint16_t, uint32_t, uint64_t, uint8_t

from engine._fast.headers cimport Address
from engine._fast.kernel cimport load32_relaxed
from engine._fast.slabs cimport Slab

cdef enum:
    MOST_TRANSIENTS = 1 << 20  # entries, index 0 and entries in limbo included

cdef struct Transient:       # 48 octets
    uint64_t high            # whose it is: network address, as in Binding
    uint64_t low
    uint16_t kind
    uint8_t many             # target is a bundle
    uint8_t unused
    uint32_t target          # 0: let go already (atomic)
    uint32_t until           # clock, 0.1 s
    uint32_t following       # in the queue: its time is not before this one's. Writer only
    uint32_t next_free
    uint32_t unused2[3]

cdef struct Transients:
    Slab slab                # of Transient
    uint32_t oldest          # the queue; 0: there is none
    uint32_t newest


cdef inline Transient *at(const Transients *transients, uint32_t index) noexcept nogil:
    return &(<Transient *>transients.slab.base)[index]


cdef inline const Transient *standing(const Transients *transients, uint32_t index, uint32_t clock) noexcept nogil:
    """The entry, if it still holds; or NULL. Readers: between enter and leave."""
    cdef const Transient *found = at(transients, index)
    if load32_relaxed(&found.target) == 0 or <int32_t>(found.until - clock) < 0:
        return NULL
    return found


# the rest is for the writer
cdef int create(Transients *transients) noexcept nogil                     # -1: no memory
cdef void destroy(Transients *transients) noexcept nogil
cdef uint32_t add(
    Transients *transients, Address network, uint16_t kind, uint8_t many, uint32_t target, uint32_t until,
) noexcept nogil
cdef void shorten(Transients *transients, uint32_t until) noexcept nogil
cdef uint32_t pop(Transients *transients, uint32_t clock) noexcept nogil
