"""Adding, removing and exchanging entries; changing size a few buckets at a time. The writer only.

Load: between 1/16 and 1/2 entry for each head, so that a look-up rarely needs a second entry.
"""

from libc.stdlib cimport calloc, free
from libc.string cimport memset

from engine._fast cimport epochs, slabs
from engine._fast.kernel cimport (
    MADV_HUGEPAGE, MAP_ANONYMOUS, MAP_FAILED, MAP_PRIVATE, PROT_READ, PROT_WRITE, madvise, mmap, munmap,
    store32_release, store_pointer,
)

cdef enum:
    SMALLEST_BITS = 10       # log2 of the number of heads: a page of 4 KiB
    LARGEST_BITS = 25        # of 2^24 entries
    GROWING = 4              # buckets filled by one edit: done after heads / 4 edits, wanted after heads / 2
    SHRINKING = 32           # most of them are empty


cdef int create(Chains *chains, Slab *slab) noexcept nogil:
    """An empty table over the entries of slab, whose place does not change. -1: no memory."""
    memset(chains, 0, sizeof(Chains))
    chains.slab = slab
    chains.now = new_heads(SMALLEST_BITS, 0)
    return 0 if chains.now != NULL else -1


cdef void destroy(Chains *chains) noexcept nogil:
    """No reader is left."""
    free_heads(chains.now)
    free_heads(chains.coming)
    memset(chains, 0, sizeof(Chains))


cdef void add(Chains *chains, Epochs *epochs, uint32_t index) noexcept nogil:
    """Show a new entry, whose hash is set. It cannot fail: without memory chains get longer."""
    cdef Link *link = link_of(chains, index)
    put_first(chains, chains.now, index)
    if is_moved(chains, link.hash):
        put_first(chains, chains.coming, index)
    chains.count += 1
    change_size(chains, epochs)


cdef void remove(Chains *chains, Epochs *epochs, uint32_t index) noexcept nogil:
    """Unlink the entry; the caller retires it. Who stands on it finds the rest of the chain."""
    cdef Link *link = link_of(chains, index)
    store32_release(place_of(chains, chains.now, index), link.next[chains.now.parity])
    if is_moved(chains, link.hash):
        store32_release(place_of(chains, chains.coming, index), link.next[chains.coming.parity])
    chains.count -= 1
    if chains.count == 0:
        begin_again(chains, epochs)
    else:
        change_size(chains, epochs)


cdef void exchange(Chains *chains, Epochs *epochs, uint32_t before, uint32_t after) noexcept nogil:
    """Put a new entry of the same hash in the place of a linked one, by one store. The caller retires the old one."""
    cdef Link *old = link_of(chains, before)
    cdef Link *new = link_of(chains, after)
    new.next[0] = old.next[0]
    new.next[1] = old.next[1]
    store32_release(place_of(chains, chains.now, before), after)
    if is_moved(chains, old.hash):
        store32_release(place_of(chains, chains.coming, before), after)
    change_size(chains, epochs)


cdef size_t octets(const Chains *chains) noexcept nogil:
    """Memory of the heads, octets."""
    return octets_of(chains.now) + (octets_of(chains.coming) if chains.coming != NULL else 0)


cdef inline Link *link_of(const Chains *chains, uint32_t index) noexcept nogil:
    return <Link *>slabs.at(chains.slab, index)


cdef inline uint64_t number_of(const Heads *heads) noexcept nogil:
    return <uint64_t>1 << (64 - heads.shift)


cdef inline bint is_moved(const Chains *chains, uint64_t hash) noexcept nogil:
    """The bucket of that hash is already in the table to come."""
    return chains.coming != NULL and (hash >> chains.now.shift) < chains.moved


cdef inline void put_first(Chains *chains, Heads *heads, uint32_t index) noexcept nogil:
    cdef Link *link = link_of(chains, index)
    cdef uint32_t *place = head(heads, link.hash)
    link.next[heads.parity] = place[0]
    store32_release(place, index)


cdef uint32_t *place_of(Chains *chains, Heads *heads, uint32_t index) noexcept nogil:
    """Where the index of a linked entry stands: a head, or the link of the entry before it."""
    cdef uint32_t *place = head(heads, link_of(chains, index).hash)
    while place[0] != index:
        place = &link_of(chains, place[0]).next[heads.parity]
    return place


cdef void change_size(Chains *chains, Epochs *epochs) noexcept nogil:
    """One step of a change of size, or its beginning when the load asks for one."""
    cdef uint64_t number = number_of(chains.now)
    cdef uint32_t bits = 64 - chains.now.shift
    if chains.coming != NULL:
        fill(chains, epochs, GROWING if chains.coming.shift < chains.now.shift else SHRINKING)
    elif chains.count > number // 2 and bits < LARGEST_BITS:
        begin(chains, epochs, bits + 1)
    elif chains.count < number // 16 and bits > SMALLEST_BITS:
        begin(chains, epochs, bits - 1)


cdef void begin(Chains *chains, Epochs *readers, uint32_t bits) noexcept nogil:
    # links of that parity belonged to the table before this one: someone may still follow them
    if epochs.passed(readers, chains.stamp):
        chains.coming = new_heads(bits, 1 - chains.now.parity)
        chains.moved = 0


cdef void fill(Chains *chains, Epochs *epochs, uint64_t buckets) noexcept nogil:
    """Link the entries of the next buckets in the table to come as well; the last bucket shows it."""
    cdef uint64_t number = number_of(chains.now)
    cdef uint32_t index
    while buckets > 0 and chains.moved < number:
        index = chains.now.head[chains.moved]
        while index != 0:
            put_first(chains, chains.coming, index)
            index = link_of(chains, index).next[chains.now.parity]
        chains.moved += 1
        buckets -= 1
    if chains.moved == number:
        show(chains, epochs, chains.coming)


cdef void show(Chains *chains, Epochs *readers, Heads *heads) noexcept nogil:
    """From here on readers use these heads."""
    cdef Heads *before = chains.now
    store_pointer(<void **>&chains.now, heads)
    chains.coming = NULL
    chains.moved = 0
    chains.stamp = readers.now
    epochs.retire_mapping(readers, before.head, octets_of(before))
    epochs.retire_memory(readers, before)


cdef void begin_again(Chains *chains, Epochs *readers) noexcept nogil:
    """The last entry is gone: no need to shrink by halves."""
    cdef Heads *heads
    free_heads(chains.coming)
    chains.coming = NULL
    chains.moved = 0
    if number_of(chains.now) == <uint64_t>1 << SMALLEST_BITS:
        return
    heads = new_heads(SMALLEST_BITS, 1 - chains.now.parity)
    if heads != NULL:
        show(chains, readers, heads)


cdef size_t octets_of(const Heads *heads) noexcept nogil:
    return number_of(heads) * sizeof(uint32_t)


cdef Heads *new_heads(uint32_t bits, uint32_t parity) noexcept nogil:
    """2 ** bits empty heads. NULL: no memory."""
    cdef Heads *heads = <Heads *>calloc(1, sizeof(Heads))
    if heads == NULL:
        return NULL
    heads.shift = 64 - bits
    heads.parity = parity
    heads.head = <uint32_t *>mmap(
        NULL, octets_of(heads), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
    if heads.head == MAP_FAILED:
        free(heads)
        return NULL
    madvise(heads.head, octets_of(heads), MADV_HUGEPAGE)
    return heads


cdef void free_heads(Heads *heads) noexcept nogil:
    if heads != NULL:
        munmap(heads.head, octets_of(heads))
        free(heads)
