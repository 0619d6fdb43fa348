"""Packets nobody is known for yet: what tells of their tunnel, or of their prefix, may lie in its socket still.

A visited router sends what its node says right behind its Proxy Binding Update, and who reads two sockets may find the
packet first. So it waits for an edit of the tables, State.patience at most; it is looked at again after each, and then
goes before what came later. The waiting room is a burst, which walks the path as any other does.

    path.recognise, path.pop: unknown -> keep -> edit, or until -> recognise, pop -> delivered | unknown: stay, or dead
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from engine._fast.burst cimport WIDTH, Burst
from engine._fast.outer cimport Arrivals

cdef enum:
    MOST = 64                # packets: a stranger can fill it, and takes nothing but this from others

cdef struct Doubts:          # of one worker
    Burst *burst             # all alive, in the order of their coming
    Arrivals arrivals
    uint64_t until[WIDTH]    # ns, monotonic
    uint32_t octets          # of the arena, used
    uint32_t edits           # State.edits before they were looked at last; even: it differs while an edit is made
    bint counted             # among State.doubters


cdef int create(Doubts *doubts) noexcept nogil                             # -1: no memory
cdef void destroy(Doubts *doubts) noexcept nogil
cdef uint64_t next_end(const Doubts *doubts) noexcept nogil
cdef bint keep(Doubts *doubts, const Burst *burst, uint32_t i, const Arrivals *arrivals, uint64_t until) noexcept nogil
cdef void stay(Doubts *doubts) noexcept nogil
