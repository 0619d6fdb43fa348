"""What the path knows: prefixes and tunnels behind one lock.

The lock is held for one edit, or for one burst from look-up to send; so edits may come from any thread.
"""

from libc.stdint cimport uint32_t

from engine._fast.kernel cimport pthread_mutex_t
from engine._fast.prefixes cimport Prefixes
from engine._fast.tunnels cimport Tunnels

cdef struct State:
    Prefixes prefixes
    Tunnels tunnels
    pthread_mutex_t lock


cdef class Tables:
    cdef State state
    cdef list faces          # the Python object of each tunnel, by index
    cdef uint32_t index(self, bytes key) except? 0xFFFFFFFF
    cdef int put(self, bytes network, int length, int side, uint32_t tunnel) except -1
    cdef void let_go(self, uint32_t tunnel)
