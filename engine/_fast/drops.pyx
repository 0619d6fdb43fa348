"""Counting the dead."""


cdef void count(const uint8_t *reasons, uint32_t packets, uint64_t *counters) noexcept nogil:
    """Add one to the counter of each packet's reason. counters: REASONS of them."""
    cdef uint32_t i
    for i in range(packets):
        counters[reasons[i]] += 1
