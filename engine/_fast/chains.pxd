"""Chains: a hash table of the entries of a slab that grows and shrinks while readers use it, a few buckets per edit.

    heads (parity 0)                       heads (parity 1): twice as many, being filled, not yet seen by readers
    | 3 | 0 | 7 | 0 |                      | 0 | 3 | 0 | 0 | 7 | 5 | . | . |
      |       +--> entry 7, next[0] = 5               entry 7, next[1] = 0
      +--> entry 3, next[0] = 0                       entry 5 ...

Each entry has a link for either table, so that one is whole for the readers while the other is filled; one store
shows the new one. A bucket is the top bits of the hash. The next change of size waits until nobody looks at the
table before last, whose links it will use.
"""

from libc.stdint cimport uint32_t, uint64_t

from engine._fast.epochs cimport Epochs
from engine._fast.kernel cimport load32_acquire, load_pointer
from engine._fast.slabs cimport Slab

cdef struct Link:            # every entry begins with this
    uint64_t hash            # does not change while the entry is linked
    uint32_t next[2]         # index of the next entry in the chain, for the table of that parity; 0: the last

cdef struct Heads:           # read-only once shown, but for the heads themselves
    uint32_t *head           # index of the first entry of each chain; 0: empty
    uint32_t shift           # 64 - log2(number of heads)
    uint32_t parity          # its chains use next[parity]

cdef struct Chains:
    Heads *now               # what readers use (atomic)
    Heads *coming            # being filled; NULL: none
    Slab *slab
    uint64_t moved           # buckets of now that are in coming too
    uint64_t stamp           # epoch of the last exchange
    uint32_t count           # entries linked


cdef inline const Heads *heads(Chains *chains) noexcept nogil:
    """One table for one look-up; not to be kept past the burst."""
    return <const Heads *>load_pointer(<void **>&chains.now)


cdef inline uint32_t *head(const Heads *heads, uint64_t hash) noexcept nogil:
    return &heads.head[hash >> heads.shift]


cdef inline uint32_t following(const Heads *heads, const Link *link) noexcept nogil:
    return load32_acquire(&link.next[heads.parity])


# the rest is for the writer
cdef int create(Chains *chains, Slab *slab) noexcept nogil
cdef void destroy(Chains *chains) noexcept nogil
cdef void add(Chains *chains, Epochs *epochs, uint32_t index) noexcept nogil
cdef void remove(Chains *chains, Epochs *epochs, uint32_t index) noexcept nogil
cdef void exchange(Chains *chains, Epochs *epochs, uint32_t before, uint32_t after) noexcept nogil
cdef size_t octets(const Chains *chains) noexcept nogil
