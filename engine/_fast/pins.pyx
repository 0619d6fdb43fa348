"""Pins made: what a flow that begins, or moves, needs. What one that runs needs is inline in pins.pxd."""

from libc.string cimport memset

from engine._fast cimport slabs


cdef int create(Pins *pins) noexcept nogil:
    """No flow runs. -1: no memory."""
    memset(pins, 0, sizeof(Pins))
    if (slabs.create(&pins.slab, sizeof(Pin), PIN_SETS * PIN_WAYS, 0) < 0
            or slabs.back(&pins.slab, PIN_SETS * PIN_WAYS) < 0):
        destroy(pins)
        return -1
    set_pause(pins, PAUSE)
    return 0


cdef void destroy(Pins *pins) noexcept nogil:
    """Also of what was never created, if it is all zeros."""
    slabs.destroy(&pins.slab)


cdef void set_pause(Pins *pins, uint64_t pause) noexcept nogil:
    """ns that a flow is silent before it may move; 0: no flow is pinned.

    One tick more than the pause has: it may begin at the end of one and end at the beginning of another.
    """
    cdef uint64_t ticks = ((pause + (1 << TICK_BITS) - 1) >> TICK_BITS) + 1
    store64_relaxed(&pins.pause, ticks if pause else 0)


cdef void note(Pins *pins, Pin *pin, uint64_t key, uint32_t tunnel, uint64_t tick) noexcept nogil:
    """A packet of the flow leaves by that tunnel. pin: what find gave; NULL: the flow takes a place that is idle."""
    cdef Pin *ways = set_of(pins, key)
    cdef Pin *each
    cdef uint64_t oldest = 0
    cdef uint64_t seen
    cdef uint32_t first = <uint32_t>(key >> 40)
    cdef uint32_t k
    if pin == NULL:
        for k in range(PIN_WAYS):
            each = &ways[(first + k) & (PIN_WAYS - 1)]
            seen = load64_relaxed(&each.place)
            if pin == NULL or seen >> TUNNEL_BITS < oldest >> TUNNEL_BITS:
                pin = each
                oldest = seen
        if oldest != 0 and runs(pins, oldest, tick):
            return
    store64_relaxed(&pin.place, tick << TUNNEL_BITS | tunnel)
    store64_relaxed(&pin.check, key ^ tunnel)
