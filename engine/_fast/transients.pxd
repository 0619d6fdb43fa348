"""Transient bindings: the way that a prefix had lets in, for a while, what is still on it (RFC 6058).

    prefix -> Binding  way now: tunnel 5
                       former -> Transient  tunnel 3, until 12:00:01
    bundle 7           members: tunnel 5, tunnel 6
                       former -> Transient  tunnel 3, tunnel 6, until 12:00:01

A node that has moved is heard through its new router before all has come that it sent through the one before. Of several
ways before only the last is let in by; but each keeps its tunnels, which others may give packets back by, until its
time. An entry holds a reference on each of its tunnels; one that is let go early has none, and is passed over. What a
bundle had lets in for all its prefixes, those that come to it meanwhile too.
"""

from libc.stdint cimport int32_t, uint16_t, uint32_t, uint64_t

from engine._fast.bundles cimport MOST_MEMBERS
from engine._fast.headers cimport Address
from engine._fast.kernel cimport load32_relaxed
from engine._fast.slabs cimport Slab

cdef enum:
    MOST_TRANSIENTS = 1 << 20  # entries, index 0 and entries in limbo included

cdef struct Transient:       # 104 octets
    uint64_t high            # whose it is: network address, as in Binding
    uint64_t low
    uint16_t kind
    uint16_t unused
    uint32_t bundle          # or that bundle's; 0: the prefix's
    uint32_t count           # of tunnels; 0: they were let go (atomic)
    uint32_t until           # clock, 0.1 s (atomic)
    uint32_t following       # in the queue: its time is not before this one's. Writer only
    uint32_t next_free
    uint32_t tunnel[MOST_MEMBERS]  # indexes in Tunnels

cdef struct Transients:
    Slab slab                # of Transient
    uint32_t oldest          # the queue; 0: there is none
    uint32_t newest


cdef inline Transient *at(const Transients *transients, uint32_t index) noexcept nogil:
    return &(<Transient *>transients.slab.base)[index]


cdef inline bint lets_in(const Transients *transients, uint32_t index, uint32_t tunnel, uint32_t clock) noexcept nogil:
    """By that tunnel, now; index may be 0. Readers: between enter and leave."""
    cdef const Transient *found = at(transients, index)
    cdef uint32_t count = load32_relaxed(&found.count)
    cdef uint32_t k
    if <int32_t>(load32_relaxed(&found.until) - clock) < 0:
        return False
    for k in range(count):
        if found.tunnel[k] == tunnel:
            return True
    return False


# the rest is for the writer
cdef int create(Transients *transients) noexcept nogil                     # -1: no memory
cdef void destroy(Transients *transients) noexcept nogil
cdef uint32_t add(Transients *transients, const Transient *wanted) noexcept nogil  # 0: no memory, or too many
cdef void shorten(Transients *transients, uint32_t until) noexcept nogil
cdef uint32_t pop(Transients *transients, uint32_t clock) noexcept nogil
