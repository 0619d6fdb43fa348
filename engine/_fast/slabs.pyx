"""Reserving, backing, taking and giving back. The writer only.

Address space is reserved without access, so that strict overcommit counts nothing of it; steps are made writable as
they are needed, which is when they count, and when they can fail.
"""

from libc.stdint cimport uintptr_t
from libc.string cimport memcpy, memset

from engine._fast.kernel cimport (
    MADV_HUGEPAGE, MAP_ANONYMOUS, MAP_FAILED, MAP_NORESERVE, MAP_PRIVATE, PROT_NONE, PROT_READ, PROT_WRITE, madvise,
    mmap, mprotect, munmap,
)

cdef extern from "<sys/mman.h>" nogil:
    int MADV_DONTNEED

cdef enum:
    STEP = 1 << 21           # octets: a huge page of x86 and, mostly, of arm64


cdef int create(Slab *slab, size_t octets, uint32_t limit, uint32_t link_offset) noexcept nogil:
    """Room for limit entries, index 0 included, none of it backed but the first step. -1: no address space or memory."""
    memset(slab, 0, sizeof(Slab))
    slab.octets = octets
    slab.limit = limit
    slab.link_offset = link_offset
    slab.used = 1
    slab.reserved = (octets * limit + STEP - 1) // STEP * STEP
    slab.mapping = mmap(
        NULL, slab.reserved + STEP, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
    if slab.mapping == MAP_FAILED:
        slab.mapping = NULL
        return -1
    slab.base = <uint8_t *>(((<uintptr_t>slab.mapping + STEP - 1) // STEP) * STEP)
    if slab.reserved > STEP:
        # a wish: without it all works, slower. Not the first step: who has few entries must not wait, in the middle
        # of a handover, while the kernel clears 2 MiB for the first of them
        madvise(slab.base + STEP, slab.reserved - STEP, MADV_HUGEPAGE)
    if back(slab, 1) < 0:
        destroy(slab)
        return -1
    return 0


cdef void destroy(Slab *slab) noexcept nogil:
    """Also of one that was never created, if it is all zeros."""
    if slab.mapping != NULL:
        munmap(slab.mapping, slab.reserved + STEP)
    memset(slab, 0, sizeof(Slab))


cdef int back(Slab *slab, uint32_t entries) noexcept nogil:
    """Make the entries below that index usable. -1: no memory, and nothing has changed."""
    cdef size_t wanted = (slab.octets * entries + STEP - 1) // STEP * STEP
    if wanted <= slab.backed:
        return 0
    if mprotect(slab.base + slab.backed, wanted - slab.backed, PROT_READ | PROT_WRITE) < 0:
        return -1
    slab.backed = wanted
    return 0


cdef uint32_t take(Slab *slab) noexcept nogil:
    """Index of an entry that is all zeros. 0: the slab is full, or there is no memory."""
    cdef uint32_t index = slab.free
    if index != 0:
        memcpy(&slab.free, slab.base + index * slab.octets + slab.link_offset, sizeof(uint32_t))
        memset(slab.base + index * slab.octets, 0, slab.octets)
    else:
        index = slab.used
        if index >= slab.limit or back(slab, index + 1) < 0:
            return 0
        slab.used += 1
    slab.count += 1
    return index


cdef void give_back(Slab *slab, uint32_t index) noexcept nogil:
    """The entry is free: no reader may still look at it. The last one takes the memory of all with it."""
    memcpy(slab.base + index * slab.octets + slab.link_offset, &slab.free, sizeof(uint32_t))
    slab.free = index
    slab.count -= 1
    if slab.count == 0:
        empty(slab)


cdef void empty(Slab *slab) noexcept nogil:
    """Nobody is left: all entries are zeros again, and what lies behind the first step goes back to the kernel."""
    cdef size_t touched = slab.used * slab.octets
    memset(slab.base, 0, touched if touched < STEP else STEP)
    if slab.backed > STEP:
        # access stays: taking it away could not be undone without memory; untouched pages cost nothing
        madvise(slab.base + STEP, slab.backed - STEP, MADV_DONTNEED)
    slab.free = 0
    slab.used = 1
