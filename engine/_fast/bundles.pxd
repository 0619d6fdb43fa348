"""Bundles: the paths to one node or site, up to sixteen tunnels, each with its binding identifier, label and weight.

    Bundle 7 -> Members  serial, count | tunnel 3, BID 1, label 9, weight 2 | tunnel 5, BID 2, label 11, weight 1 |

A block of members never changes: a change publishes a new block and retires the old one, so that a reader has one
or the other. The index of a bundle stays as long as it has users. Index 0 is nobody: NO_BUNDLE.
"""

from libc.stdint cimport uint16_t, uint32_t, uint64_t, uint8_t

from engine._fast.epochs cimport Epochs
from engine._fast.kernel cimport fetch_add32, load_pointer
from engine._fast.slabs cimport Slab

cdef enum:
    NO_BUNDLE = 0
    MOST_MEMBERS = 16
    MOST_BUNDLES = 16777215  # index 0 included
    MOST_WEIGHT = 65535

cdef struct Member:          # 24 octets
    uint64_t salt            # from the BID, both ends of the tunnel have the same; set by acquire and replace
    uint32_t tunnel          # index in Tunnels
    uint16_t weight          # 1..MOST_WEIGHT; shares of flows or packets are as the weights
    uint16_t bid             # unique in the bundle (RFC 8278 4.1: 1..254, RFC 5648: 16 bits)
    uint8_t label            # may repeat (RFC 8278 4.1)

cdef struct Members:
    uint64_t serial          # never used twice: what is remembered under it cannot be mistaken for another block's
    uint32_t count           # 1..MOST_MEMBERS
    Member member[MOST_MEMBERS]  # memory for count of them only; in the order of their BIDs

cdef struct Bundle:          # 24 octets
    void *members            # Members: published by a release store, read by members()
    uint32_t users           # bindings and handles; 0: the entry is free
    uint32_t sequence        # number of the next sequenced packet, on whichever tunnel (RFC 2890 2.2)
    uint32_t next_free
    uint32_t former          # index in transients: its members before these; 0: none (atomic)

cdef struct Bundles:
    Slab slab                # of Bundle
    uint64_t serial          # of the block made last
    uint32_t used            # bundles


cdef inline Bundle *at(const Bundles *bundles, uint32_t index) noexcept nogil:
    return &(<Bundle *>bundles.slab.base)[index]


cdef inline const Members *members(const Bundles *bundles, uint32_t index) noexcept nogil:
    """Its members now. Read inside an epoch; the block stays whole until the epoch is left."""
    return <const Members *>load_pointer(&at(bundles, index).members)


cdef inline uint32_t next_sequence(const Bundles *bundles, uint32_t index, uint32_t count) noexcept nogil:
    """The first number of so many packets that are spread over the bundle; copies of one share its number."""
    return fetch_add32(&at(bundles, index).sequence, count)


cdef int create(Bundles *bundles) noexcept nogil                     # -1: no memory
cdef void destroy(Bundles *bundles) noexcept nogil                   # after the epochs; readers have left
cdef uint32_t acquire(Bundles *bundles, Epochs *epochs, const Member *members, uint32_t count) noexcept nogil
cdef int replace(Bundles *bundles, Epochs *epochs, uint32_t index, const Member *members, uint32_t count) noexcept nogil
cdef void keep(Bundles *bundles, uint32_t index) noexcept nogil      # one user more
cdef bint release(Bundles *bundles, Epochs *epochs, uint32_t index) noexcept nogil  # True: that was the last user
