"""Limbo: what readers may still look at, in the order in which it was retired. The writer only."""

from libc.stdint cimport uint8_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from engine._fast cimport slabs
from engine._fast.kernel cimport munmap, sched_yield

cdef enum:
    MEMORY = 0               # Thing.number & 3
    MAPPING = 1
    ENTRY = 2

cdef enum:
    WORTH = 32               # things to retire before all seats are looked at again
    MOST_FREED = 128         # things freed by one edit: after a slow burst, no edit pays for all


cdef int create(Epochs *epochs) noexcept nogil:
    """Nobody seated, nothing in limbo. -1: no memory."""
    memset(epochs, 0, sizeof(Epochs))
    epochs.now = 1
    epochs.spare = <Block *>calloc(1, sizeof(Block))
    return 0 if epochs.spare != NULL else -1


cdef void destroy(Epochs *epochs) noexcept nogil:
    """Free all that waits. No reader is left, and the slabs still stand."""
    cdef Block *block = epochs.oldest
    cdef Block *after
    cdef uint32_t i
    while block != NULL:
        for i in range(block.first, block.end):
            dispose(&block.things[i])
        after = block.next
        free(block)
        block = after
    free(epochs.spare)
    memset(epochs, 0, sizeof(Epochs))


cdef int32_t join(Epochs *epochs) noexcept nogil:
    """A seat for one reader, to be given back with part. -1: all MOST_WORKERS are taken."""
    cdef uint32_t worker
    for worker in range(<uint32_t>MOST_WORKERS):
        if not epochs.seats[worker].taken:
            epochs.seats[worker].taken = True
            if worker >= epochs.seated:
                epochs.seated = worker + 1
            return <int32_t>worker
    return -1


cdef void part(Epochs *epochs, uint32_t worker) noexcept nogil:
    """The reader is gone, and looks at nothing."""
    leave(epochs, worker)
    epochs.seats[worker].taken = False


cdef void retire_memory(Epochs *epochs, void *memory) noexcept nogil:
    """free() it when nobody looks at it any more; it was unlinked before. NULL: nothing happens."""
    if memory != NULL:
        retire(epochs, memory, MEMORY)


cdef void retire_mapping(Epochs *epochs, void *mapping, size_t octets) noexcept nogil:
    """munmap() it when nobody looks at it any more."""
    retire(epochs, mapping, <uint64_t>octets << 2 | MAPPING)
    epochs.fresh += WORTH    # it may be large: the next edit looks whether it can go


cdef void retire_entry(Epochs *epochs, Slab *slab, uint32_t index) noexcept nogil:
    """Give the entry back to its slab when nobody looks at it any more."""
    retire(epochs, slab, <uint64_t>index << 2 | ENTRY)


cdef void reclaim(Epochs *epochs) noexcept nogil:
    """At the end of every edit: free some of what can go. O(1), amortised over the things retired."""
    if epochs.fresh < WORTH:
        return
    epochs.fresh = 0
    collect(epochs, MOST_FREED)


cdef void settle(Epochs *epochs) noexcept nogil:
    """Free all that can go now."""
    epochs.fresh = 0
    collect(epochs, epochs.waiting)


cdef bint passed(Epochs *epochs, uint64_t stamp) noexcept nogil:
    """Nobody looks at what was retired in that epoch."""
    return stamp < longest_look(epochs)


cdef void retire(Epochs *epochs, void *what, uint64_t number) noexcept nogil:
    cdef Thing thing
    cdef Block *block = epochs.newest
    thing.stamp = epochs.now
    thing.what = what
    thing.number = number
    if block == NULL or block.end == LIMBO:
        block = new_block(epochs)
        if block == NULL:
            # no memory to remember it: a burst is short, and its readers wait for us no longer than a few yields
            while not passed(epochs, thing.stamp):
                sched_yield()
            dispose(&thing)
            return
    block.things[block.end] = thing
    block.end += 1
    epochs.waiting += 1
    epochs.fresh += 1


cdef Block *new_block(Epochs *epochs) noexcept nogil:
    """An empty block at the end of the queue. NULL: no memory."""
    cdef Block *block = epochs.spare
    epochs.spare = NULL
    if block == NULL:
        block = <Block *>calloc(1, sizeof(Block))
        if block == NULL:
            return NULL
    block.next = NULL
    block.first = 0
    block.end = 0
    if epochs.newest != NULL:
        epochs.newest.next = block
    else:
        epochs.oldest = block
    epochs.newest = block
    return block


cdef uint64_t longest_look(Epochs *epochs) noexcept nogil:
    """Begin a new epoch. What was retired in an epoch before the one returned, nobody looks at."""
    cdef uint64_t oldest = epochs.now + 1
    cdef uint64_t since
    cdef uint32_t worker
    store64_release(&epochs.now, oldest)
    full_fence()             # who enters now sees all that was unlinked; who entered before is seen here
    for worker in range(epochs.seated):
        since = load64_acquire(&epochs.seats[worker].since)
        if since != 0 and since < oldest:
            oldest = since
    return oldest


cdef void collect(Epochs *epochs, uint64_t most) noexcept nogil:
    cdef uint64_t oldest = longest_look(epochs)
    cdef Block *block = epochs.oldest
    while block != NULL and most > 0:
        if block.first == block.end:
            block = drop_block(epochs)
            continue
        if block.things[block.first].stamp >= oldest:
            return
        dispose(&block.things[block.first])
        block.first += 1
        epochs.waiting -= 1
        most -= 1


cdef Block *drop_block(Epochs *epochs) noexcept nogil:
    """The oldest block is empty: take it out of the queue. The next one, or NULL."""
    cdef Block *block = epochs.oldest
    epochs.oldest = block.next
    if block.next == NULL:
        epochs.newest = NULL
    if epochs.spare == NULL:
        epochs.spare = block
    else:
        free(block)
    return epochs.oldest


cdef void dispose(const Thing *thing) noexcept nogil:
    if thing.number & 3 == ENTRY:
        slabs.give_back(<Slab *>thing.what, <uint32_t>(thing.number >> 2))
    elif thing.number & 3 == MAPPING:
        munmap(thing.what, <size_t>(thing.number >> 2))
    else:
        free(thing.what)
