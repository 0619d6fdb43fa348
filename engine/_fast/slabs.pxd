"""Slabs: arrays whose entries never move, and whose memory comes and goes in steps.

    base
    | 0: nobody | 1 | 2 | free | 4 | ...          | (made writable: `backed`)   | (address space only) |
                                     used --^

Only the writer takes and gives back. Readers compute base + index * octets and need nothing else: base never changes.
Index 0 is nobody. An entry is all zeros when it is taken.
"""

from libc.stdint cimport uint32_t, uint8_t

cdef struct Slab:
    uint8_t *base            # aligned to 2 MiB
    size_t octets            # of one entry
    size_t backed            # octets that may be touched
    size_t reserved          # octets of address space behind base
    void *mapping            # what mmap gave: base is the first 2 MiB boundary in it
    uint32_t limit           # entries, index 0 included
    uint32_t used            # every index below it was handed out at least once (or is 0)
    uint32_t count           # entries in use
    uint32_t free            # first of the list of free entries; 0: none
    uint32_t link_offset     # octets: where a free entry keeps the index of the next one


cdef inline void *at(const Slab *slab, uint32_t index) noexcept nogil:
    return slab.base + index * slab.octets


cdef inline size_t octets_used(const Slab *slab) noexcept nogil:
    """Memory that was touched, in pages of 4 KiB."""
    return (slab.used * slab.octets + 4095) // 4096 * 4096


cdef int create(Slab *slab, size_t octets, uint32_t limit, uint32_t link_offset) noexcept nogil
cdef void destroy(Slab *slab) noexcept nogil
cdef int back(Slab *slab, uint32_t entries) noexcept nogil
cdef uint32_t take(Slab *slab) noexcept nogil
cdef void give_back(Slab *slab, uint32_t index) noexcept nogil
