"""Prefixes: one open-addressing table for all lengths, probed once for each length in use, longest first.

Prefixes are almost always /64, so one probe on 64 bits is the usual look-up; every other length in use costs
one probe more.

    lengths in use: [96, 64, 48]      slots: [ ... | 2001:db8:1::/64 -> tunnel 3, anchor | empty | ... ]
"""

from libc.stdint cimport uint32_t, uint64_t, uint8_t

from engine._fast.headers cimport Address
from engine._fast.kernel cimport prefetch as prefetch_line

cdef enum:                   # bits, so that a look-up can ask for several; numbers of engine.Side
    EMPTY = 0
    ANCHOR = 1
    ACCESS = 2
    HELD = 4                 # anchored here, the node is between routers

cdef struct Slot:            # 24 octets
    uint64_t high            # network address; bits past length are 0
    uint64_t low
    uint32_t tunnel          # index in Tunnels; NO_TUNNEL when HELD
    uint8_t length           # bits
    uint8_t side             # EMPTY: the slot is free

cdef struct Prefixes:
    Slot *slots
    uint64_t mask            # number of slots - 1
    uint64_t used            # prefixes
    uint64_t seed            # so that no peer can choose prefixes that collide
    uint64_t of_length[129]  # prefixes
    uint8_t lengths[129]     # those in use, longest first
    uint32_t kinds           # how many of them


cdef inline uint64_t home(
    const Prefixes *prefixes, uint64_t high, uint64_t low, uint8_t length,
) noexcept nogil:
    cdef uint64_t h = (high ^ prefixes.seed) * <uint64_t>0x9E3779B97F4A7C15U
    h = ((h ^ (h >> 29)) + low + length) * <uint64_t>0xBF58476D1CE4E5B9U
    return (h ^ (h >> 32)) & prefixes.mask


cdef inline Address masked(Address address, uint8_t length) noexcept nogil:
    cdef uint64_t ones = <uint64_t>0xFFFFFFFFFFFFFFFFU
    if length <= 64:
        address.low = 0
        address.high = address.high & (ones << (64 - length)) if length else 0
    else:
        address.low = address.low & (ones << (128 - length))
    return address


cdef inline Slot *find(const Prefixes *prefixes, Address network, uint8_t length) noexcept nogil:
    """The slot of exactly that prefix, or NULL."""
    cdef uint64_t at = home(prefixes, network.high, network.low, length)
    cdef Slot *slot = &prefixes.slots[at]
    while slot.side != EMPTY:
        if slot.high == network.high and slot.low == network.low and slot.length == length:
            return slot
        at = (at + 1) & prefixes.mask
        slot = &prefixes.slots[at]
    return NULL


cdef inline Slot *match(const Prefixes *prefixes, Address address, uint8_t sides) noexcept nogil:
    """The longest prefix around address whose side is one of sides, or NULL."""
    cdef uint32_t i
    cdef Slot *slot
    for i in range(prefixes.kinds):
        slot = find(prefixes, masked(address, prefixes.lengths[i]), prefixes.lengths[i])
        if slot != NULL and slot.side & sides:
            return slot
    return NULL


cdef inline void prefetch(const Prefixes *prefixes, Address address) noexcept nogil:
    """Have the likely slot (of a /64) on its way to the cache before match() asks for it."""
    prefetch_line(&prefixes.slots[home(prefixes, address.high, 0, 64)])


cdef int create(Prefixes *prefixes, uint64_t seed) noexcept nogil
cdef void destroy(Prefixes *prefixes) noexcept nogil
cdef Slot *insert(Prefixes *prefixes, Address network, uint8_t length) noexcept nogil
cdef void remove(Prefixes *prefixes, Slot *slot) noexcept nogil
