"""Pins: where each running flow goes. engine/model/pins.py says why; this is the same without locks.

    key -> set, one cache line | check, place | check, place | check, place | check, place |

All workers read and write them. A pin is two words, each of which is stored at once, and check is key ^ tunnel: words of
two writers that met in one place fit together only if they mean the same tunnel; else they are no pin, and the next
packet of either flow makes one. To renew a pin only place is stored, so that workers that share a flow do not lose it.

A flow that runs goes without a pin when four others that run share its set: 4 in 100 million flows with a thousand
running, 3 in 10 thousand with ten thousand (Poisson). It moves like a new one when weights or paths change.
"""

from libc.stdint cimport int64_t, uint32_t, uint64_t

from engine._fast.kernel cimport load64_relaxed, store64_relaxed
from engine._fast.slabs cimport Slab

cdef enum:
    PIN_SETS = 32768         # 2 MiB; what no flow has touched takes no memory
    PIN_WAYS = 4
    TICK_BITS = 20           # a tick is 2^20 ns, about a millisecond
    TUNNEL_BITS = 20         # indices are below tunnels.MOST_TUNNELS
    TUNNEL_MASK = 0xFFFFF
    PAUSE = 200000000        # ns

cdef struct Pin:             # 16 octets; all zeros: free
    uint64_t check           # key ^ tunnel
    uint64_t place           # tick of the last packet << TUNNEL_BITS | index of its tunnel

cdef struct Pins:
    Slab slab                # of Pin
    uint64_t pause           # ticks after which a flow may move; 0: at once (atomic)


cdef inline Pin *set_of(const Pins *pins, uint64_t key) noexcept nogil:
    return &(<Pin *>pins.slab.base)[((key >> 20) & (PIN_SETS - 1)) * PIN_WAYS]


cdef inline Pin *find(const Pins *pins, uint64_t key, uint64_t *place) noexcept nogil:
    """The pin with that key, and its place; NULL: there is none."""
    cdef Pin *ways = set_of(pins, key)
    cdef Pin *pin
    cdef uint32_t first = <uint32_t>(key >> 40)           # each flow has a way that is looked at first
    cdef uint32_t k
    for k in range(PIN_WAYS):
        pin = &ways[(first + k) & (PIN_WAYS - 1)]
        place[0] = load64_relaxed(&pin.place)
        if (load64_relaxed(&pin.check) ^ (place[0] & TUNNEL_MASK)) == key:
            return pin
    return NULL


cdef inline bint runs(const Pins *pins, uint64_t place, uint64_t tick) noexcept nogil:
    """The flow has not paused. Another worker may have begun its burst later: then it was seen in our future."""
    return <int64_t>(tick - (place >> TUNNEL_BITS)) < <int64_t>load64_relaxed(&pins.pause)


cdef inline void renew(Pin *pin, uint64_t place, uint64_t tick) noexcept nogil:
    """One packet more; the line is let be while the tick is the same."""
    if place >> TUNNEL_BITS < tick:
        store64_relaxed(&pin.place, tick << TUNNEL_BITS | (place & TUNNEL_MASK))


cdef int create(Pins *pins) noexcept nogil                           # -1: no memory
cdef void destroy(Pins *pins) noexcept nogil
cdef void set_pause(Pins *pins, uint64_t pause) noexcept nogil       # ns
cdef void note(Pins *pins, Pin *pin, uint64_t key, uint32_t tunnel, uint64_t tick) noexcept nogil
