"""Bundles made, changed and given back: what the writer does. What readers do is inline in bundles.pxd."""

from libc.stdlib cimport free
from libc.string cimport memcpy, memset

from engine._fast cimport epochs as epoch
from engine._fast cimport slabs
from engine._fast.flows cimport mix
from engine._fast.kernel cimport store_pointer

cdef extern from "<stdlib.h>" nogil:
    int posix_memalign(void **, size_t, size_t)


cdef int create(Bundles *bundles) noexcept nogil:
    """No bundles yet. -1: no memory."""
    cdef Bundle layout
    cdef size_t link = <size_t>(<char *>&layout.next_free - <char *>&layout)
    memset(bundles, 0, sizeof(Bundles))
    return slabs.create(&bundles.slab, sizeof(Bundle), MOST_BUNDLES, <uint32_t>link)


cdef void destroy(Bundles *bundles) noexcept nogil:
    """Free the blocks still in use and the entries; what was retired went with the epochs, before."""
    cdef uint32_t index
    if bundles.slab.base == NULL:
        return
    for index in range(1, bundles.slab.used):
        if at(bundles, index).users:
            free(at(bundles, index).members)
    slabs.destroy(&bundles.slab)
    memset(bundles, 0, sizeof(Bundles))


cdef uint32_t acquire(Bundles *bundles, Epochs *epochs, const Member *members, uint32_t count) noexcept nogil:
    """A new bundle with one user; 0: no memory, or not 1 to MOST_MEMBERS members."""
    cdef Members *block = built(bundles, members, count)
    cdef uint32_t index = 0
    if block == NULL:
        return NO_BUNDLE
    index = slabs.take(&bundles.slab)
    if index == NO_BUNDLE:
        free(block)
        return NO_BUNDLE
    at(bundles, index).users = 1
    at(bundles, index).sequence = 0
    store_pointer(&at(bundles, index).members, block)
    bundles.used += 1
    return index


cdef int replace(
    Bundles *bundles, Epochs *epochs, uint32_t index, const Member *members, uint32_t count,
) noexcept nogil:
    """Other members for a bundle; its sequence goes on. -1: no memory, or no such members; then nothing changed."""
    cdef Members *block = built(bundles, members, count)
    cdef void *before
    if block == NULL:
        return -1
    before = at(bundles, index).members
    store_pointer(&at(bundles, index).members, block)
    epoch.retire_memory(epochs, before)
    return 0


cdef void keep(Bundles *bundles, uint32_t index) noexcept nogil:
    at(bundles, index).users += 1


cdef bint release(Bundles *bundles, Epochs *epochs, uint32_t index) noexcept nogil:
    """One user less; with the last one the bundle goes, when no reader can see it any more."""
    cdef Bundle *bundle = at(bundles, index)
    bundle.users -= 1
    if bundle.users:
        return False
    bundles.used -= 1
    epoch.retire_memory(epochs, bundle.members)
    epoch.retire_entry(epochs, &bundles.slab, index)
    return True


cdef uint64_t salt_of(uint16_t bid) noexcept nogil:
    """What makes the draws of one member differ from those of the others, the same at both ends of the tunnel."""
    return mix(<uint64_t>bid * <uint64_t>0x9E3779B97F4A7C15U)


cdef Members *built(Bundles *bundles, const Member *members, uint32_t count) noexcept nogil:
    """A block with these members in the order of their BIDs: both ends may name them in any order."""
    cdef Members *block = NULL
    cdef uint32_t i, k
    cdef size_t octets
    if count == 0 or count > MOST_MEMBERS:
        return NULL
    octets = sizeof(Members) - (MOST_MEMBERS - count) * sizeof(Member)
    # on a cache line of its own: two members and their salts are one line
    if posix_memalign(<void **>&block, 64, octets) != 0:
        return NULL
    bundles.serial += 1
    block.serial = bundles.serial
    block.count = count
    for i in range(count):
        k = i
        while k > 0 and block.member[k - 1].bid > members[i].bid:
            memcpy(&block.member[k], &block.member[k - 1], sizeof(Member))
            k -= 1
        memcpy(&block.member[k], &members[i], sizeof(Member))
        block.member[k].salt = salt_of(members[i].bid)
    return block
