"""System calls on bursts. No call blocks, every loop ends after WIDTH packets, EINTR costs a retry."""

from libc.stdint cimport uint32_t

from engine._fast.burst cimport Burst

cdef int receive_tun(int fd, Burst *burst) noexcept nogil
cdef int receive_underlay(int fd, Burst *burst) noexcept nogil
cdef void send_tun(int fd, Burst *burst) noexcept nogil
cdef void send_underlay(int fd, Burst *burst, uint32_t port) noexcept nogil
