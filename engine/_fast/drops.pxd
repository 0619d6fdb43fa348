"""Why a packet died: one enum for C and Python, one 64-bit counter each, one line each in docs/counters.md.

The public face is engine.Drop (engine/stats.py); the tests hold the two and the document together.
"""

from libc.stdint cimport uint32_t, uint64_t, uint8_t

cdef enum:
    ALIVE = 0

cpdef enum Drop:             # in the order of a packet's life
    NOT_IP = 1
    TRUNCATED = 2
    BAD_HEADER = 3
    BAD_SOURCE = 4
    BAD_DESTINATION = 5
    HOP_LIMIT = 6
    BAD_OFFLOAD = 7
    NO_BINDING = 8
    NODE_AWAY = 9
    HOLD_FULL = 10
    HOLD_EXPIRED = 11
    POLICY = 12
    NO_PATH = 13
    LOOP = 14
    UNKNOWN_TUNNEL = 15
    NOT_BOUND = 16
    ECN = 17
    TWIN = 18
    REORDER_FULL = 19
    NO_PORT = 20
    TOO_BIG = 21
    UNDERLAY_FULL = 22
    UNDERLAY_ERROR = 23
    TUN_FULL = 24
    TUN_ERROR = 25

cdef enum:
    KEPT = 26                # not dead: it waits in a queue, and will be sent from there
    REASONS = 27             # counters, those of ALIVE and KEPT included, which nobody reads

cdef void count(const uint8_t *reasons, uint32_t packets, uint64_t *counters) noexcept nogil
