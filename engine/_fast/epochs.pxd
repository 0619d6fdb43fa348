"""Epochs: one writer, many readers that never wait.

    reader                                       writer (holds the GIL)
    enter(epochs, me)    "I look since 7"        unlinks a thing by one atomic store
      reads pointers and indices                 retire_*(epochs, thing)      limbo: (7, thing)
    leave(epochs, me)    "I look at nothing"     reclaim(epochs)              now is 8; nobody looks since 7: it goes

Rules. A reader keeps no pointer or index of the tables past leave, and never asks for the GIL between enter and leave.
Every edit unlinks first, then retires. What a worker counts for a thing, it counts before leave.
"""

from libc.stdint cimport int32_t, uint32_t, uint64_t

from engine._fast.kernel cimport full_fence, load64_acquire, store64_relaxed, store64_release
from engine._fast.slabs cimport Slab

cdef enum:
    MOST_WORKERS = 64
    LIMBO = 84               # things in one block: 2 KiB

cdef struct Seat:            # a cache line for each reader
    uint64_t since           # epoch in which its burst began; 0: it looks at nothing
    uint64_t taken
    uint64_t unused[6]

cdef struct Thing:           # what waits until nobody looks any more
    uint64_t stamp           # epoch in which it was retired
    void *what               # Slab, memory of malloc, or mapping
    uint64_t number          # index << 2 | ENTRY, octets << 2 | MAPPING, MEMORY

cdef struct Block:
    Block *next
    uint32_t first           # things in use: first to end - 1
    uint32_t end
    Thing things[LIMBO]

cdef struct Epochs:
    uint64_t now             # begins at 1
    uint64_t apart[7]        # now is read by everyone at every burst
    Seat seats[MOST_WORKERS]
    Block *oldest            # limbo, a queue: stamps never fall
    Block *newest
    Block *spare             # one emptied block, so that a lone edit needs no malloc
    uint64_t waiting         # things in limbo
    uint32_t fresh           # things retired since seats were last looked at
    uint32_t seated          # seats that were ever taken are below this


cdef inline void enter(Epochs *epochs, uint32_t worker) noexcept nogil:
    """A burst begins: before this, nothing of the tables is read."""
    store64_relaxed(&epochs.seats[worker].since, load64_acquire(&epochs.now))
    full_fence()             # the writer sees us, or we see all it had done before it looked


cdef inline void leave(Epochs *epochs, uint32_t worker) noexcept nogil:
    store64_release(&epochs.seats[worker].since, 0)


# the rest is for the writer
cdef int create(Epochs *epochs) noexcept nogil
cdef void destroy(Epochs *epochs) noexcept nogil          # frees what is still in limbo; slabs go after it
cdef int32_t join(Epochs *epochs) noexcept nogil
cdef void part(Epochs *epochs, uint32_t worker) noexcept nogil
cdef void retire_memory(Epochs *epochs, void *memory) noexcept nogil
cdef void retire_mapping(Epochs *epochs, void *mapping, size_t octets) noexcept nogil
cdef void retire_entry(Epochs *epochs, Slab *slab, uint32_t index) noexcept nogil
cdef void reclaim(Epochs *epochs) noexcept nogil
cdef void settle(Epochs *epochs) noexcept nogil
cdef bint passed(Epochs *epochs, uint64_t stamp) noexcept nogil
