"""THE data path: the map. Steps in the order of a packet's life; path.pyx has them in the same order.

    from the TUN:       receive -> parse -> lookup -> push -> choose_port -> send -> count
    from the underlay:  receive -> recognise -> parse -> pop -> send -> count
"""

from libc.stdint cimport uint32_t, uint64_t, uint8_t

from engine._fast.burst cimport Burst
from engine._fast.drops cimport REASONS
from engine._fast.headers cimport Address
from engine._fast.prefixes cimport Slot
from engine._fast.tables cimport State, Tables

cdef enum:                   # number of a PortKind; an underlay's is that of the encapsulation it carries
    TUN = 0

cdef enum:
    MOST_PORTS = 64

cdef struct Port:
    int fd
    uint8_t kind
    Address local            # of an underlay socket

cdef struct Ports:
    uint32_t count
    Port port[MOST_PORTS]

cdef struct Totals:
    uint64_t packets
    uint64_t octets          # inner packets

cdef struct Counters:
    Totals from_tun          # all that arrived, those dropped later included
    Totals to_underlay       # what really left
    Totals from_underlay
    Totals to_tun
    uint64_t drops[REASONS]

cdef void wrap(State *tables, Burst *burst) noexcept nogil
cdef void unwrap(State *tables, Burst *burst, const Port *port) noexcept nogil


cdef class Path:
    cdef Tables tables
    cdef Ports ports
    cdef Counters counted
    cdef Burst *burst
    cdef bint busy
    cdef int port_of(self, int fd) noexcept
    cdef int claim(self) except -1
    cdef int load(self, list packets) except -1
    cdef int place(self, uint32_t i, bytes packet) except -1
    cdef int encapsulate_burst(self, list packets, list answers) except -1
    cdef int decapsulate_burst(self, list arrivals, list answers) except -1
