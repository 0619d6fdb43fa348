"""TCP maximum segment size held down to what the tunnel takes: an option, off by default.

Not a standard; RFC 4459 3.2 calls it a hack. Only SYN segments, only downward, never added, checksum updated (RFC 1624).
"""

from libc.stdint cimport uint32_t

from engine._fast.burst cimport Burst

cdef void clamp(Burst *burst, uint32_t i, uint32_t mtu) noexcept nogil
