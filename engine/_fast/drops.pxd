"""Why a packet died: one enum for C and Python, one 64-bit counter each, one line each in docs/counters.md.

The public face is engine.Drop (engine/stats.py); the tests hold the two and the document together.
"""

from libc.stdint cimport uint32_t, uint64_t, uint8_t

cdef enum:
    ALIVE = 0

cpdef enum Drop:             # in the order of a packet's life
    NOT_IPV6 = 1
    TRUNCATED = 2
    BAD_SOURCE = 3
    BAD_DESTINATION = 4
    HOP_LIMIT = 5
    NO_BINDING = 6
    NODE_AWAY = 7
    LOOP = 8
    UNKNOWN_TUNNEL = 9
    NOT_BOUND = 10
    ECN = 11
    NO_PORT = 12
    TOO_BIG = 13
    UNDERLAY_FULL = 14
    UNDERLAY_ERROR = 15
    TUN_FULL = 16
    TUN_ERROR = 17

cdef enum:
    REASONS = 18             # counters, the unused one of ALIVE included

cdef void count(const uint8_t *reasons, uint32_t packets, uint64_t *counters) noexcept nogil
