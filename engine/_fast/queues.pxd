"""Hold buffers and reorder groups of tables, for the control side: made, opened, released, ended.

The structs themselves are hold.Holds and reorder.Groups; workers find them in State.holds and State.reorders.
"""

from libc.stdint cimport uint32_t, uint64_t

from engine._fast.tables cimport Tables
from engine._fast.waiting cimport Turn


cdef class Queues:
    cdef Tables tables
    cdef Turn turn           # of the control side: what it threw away
    cdef dict held           # (network, kind) -> index of its hold
    cdef dict released       # keys of those that drain, in the order in which they were looked at
    cdef object leaving      # (epoch, index) of holds that nobody will put into any more, oldest first
    cdef object closing      # (epoch, index) of groups, the same
    cdef bint settle(self, object key) except -1
    cdef int prepare_holds(self) except -1
    cdef int prepare_groups(self) except -1
    cdef int attach(self, bytes network, int kind, uint32_t index) except -1
