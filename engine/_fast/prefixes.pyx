"""Adding and removing prefixes: O(1), however many there are. The caller holds the lock of the tables."""

from libc.stdlib cimport calloc, free
from libc.string cimport memset

cdef enum:
    SMALLEST = 16            # slots


cdef int create(Prefixes *prefixes, uint64_t seed) noexcept nogil:
    """An empty table. -1: no memory."""
    memset(prefixes, 0, sizeof(Prefixes))
    prefixes.seed = seed
    return resize(prefixes, SMALLEST)


cdef void destroy(Prefixes *prefixes) noexcept nogil:
    free(prefixes.slots)
    memset(prefixes, 0, sizeof(Prefixes))


cdef Slot *insert(Prefixes *prefixes, Address network, uint8_t length) noexcept nogil:
    """The slot of a prefix that has none yet, for the caller to fill at once; NULL: no memory."""
    cdef Slot prefix
    if (prefixes.used + 1) * 4 > (prefixes.mask + 1) * 3 and resize(prefixes, (prefixes.mask + 1) * 2) < 0:
        return NULL
    memset(&prefix, 0, sizeof(Slot))
    prefix.high = network.high
    prefix.low = network.low
    prefix.length = length
    prefix.side = HELD
    prefixes.used += 1
    prefixes.of_length[length] += 1
    if prefixes.of_length[length] == 1:
        list_lengths(prefixes)
    return place(prefixes, &prefix)


cdef void remove(Prefixes *prefixes, Slot *slot) noexcept nogil:
    """Empty the slot, and shift back what had been pushed past it: no tombstones."""
    cdef uint64_t hole = slot - prefixes.slots
    cdef uint64_t at = (hole + 1) & prefixes.mask
    cdef uint64_t wanted
    prefixes.used -= 1
    prefixes.of_length[slot.length] -= 1
    if prefixes.of_length[slot.length] == 0:
        list_lengths(prefixes)
    while prefixes.slots[at].side != EMPTY:
        wanted = home(prefixes, prefixes.slots[at].high, prefixes.slots[at].low, prefixes.slots[at].length)
        if ((at - wanted) & prefixes.mask) >= ((at - hole) & prefixes.mask):
            prefixes.slots[hole] = prefixes.slots[at]
            hole = at
        at = (at + 1) & prefixes.mask
    prefixes.slots[hole].side = EMPTY
    if prefixes.mask + 1 > SMALLEST and prefixes.used * 8 < prefixes.mask + 1:
        resize(prefixes, (prefixes.mask + 1) // 2)  # without memory it just stays as large as it is


cdef Slot *place(Prefixes *prefixes, const Slot *prefix) noexcept nogil:
    cdef uint64_t at = home(prefixes, prefix.high, prefix.low, prefix.length)
    while prefixes.slots[at].side != EMPTY:
        at = (at + 1) & prefixes.mask
    prefixes.slots[at] = prefix[0]
    return &prefixes.slots[at]


cdef void list_lengths(Prefixes *prefixes) noexcept nogil:
    cdef int length
    prefixes.kinds = 0
    for length in range(128, -1, -1):
        if prefixes.of_length[length] > 0:
            prefixes.lengths[prefixes.kinds] = <uint8_t>length
            prefixes.kinds += 1


cdef int resize(Prefixes *prefixes, uint64_t capacity) noexcept nogil:
    """Move to capacity slots (a power of two). -1: no memory, and nothing has changed."""
    cdef Slot *before = prefixes.slots
    cdef uint64_t slots_before = prefixes.mask + 1 if before != NULL else 0
    cdef uint64_t i
    cdef Slot *after = <Slot *>calloc(capacity, sizeof(Slot))
    if after == NULL:
        return -1
    prefixes.slots = after
    prefixes.mask = capacity - 1
    for i in range(slots_before):
        if before[i].side != EMPTY:
            place(prefixes, &before[i])
    free(before)
    return 0
