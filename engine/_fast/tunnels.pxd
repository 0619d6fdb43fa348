"""Tunnels by (encapsulation, local, remote), each with the address it is reached at and its counters.

    slots (open addressing)      entries (an index stays while the tunnel lives)
    [ 0 | 3 | 0 | 1 | 0 ... ] -> [ - | tunnel 1 | free | tunnel 3 | ... ]

A tunnel lives while a prefix is bound to it. Index 0 is nobody: NO_TUNNEL.
"""

from libc.stdint cimport uint32_t, uint64_t, uint8_t

from engine._fast.headers cimport Address, same_address
from engine._fast.kernel cimport sockaddr_in6

cdef enum:
    NO_TUNNEL = 0

cdef enum:                   # numbers of engine.Encapsulation, and of the engine.PortKind that carries it
    UDP = 1
    IP6 = 2

cdef struct Tunnel:
    Address local
    Address remote
    sockaddr_in6 peer        # remote, with the port it listens on
    uint64_t packets_in
    uint64_t octets_in       # inner packets
    uint64_t packets_out
    uint64_t octets_out      # inner packets
    uint32_t prefixes        # bound to it; 0: the entry is free
    uint32_t next_free
    uint8_t encapsulation

cdef struct Tunnels:
    Tunnel *entries
    uint32_t size            # entries allocated, index 0 included
    uint32_t free            # head of the list of free entries
    uint32_t used            # tunnels
    uint32_t *slots          # index of an entry; NO_TUNNEL: empty
    uint32_t mask            # number of slots - 1
    uint64_t seed            # so that no peer can choose addresses that collide


cdef inline uint32_t home(
    const Tunnels *tunnels, uint8_t encapsulation, Address local, Address remote,
) noexcept nogil:
    cdef uint64_t h = (remote.high ^ tunnels.seed) * <uint64_t>0x9E3779B97F4A7C15U
    h = ((h ^ (h >> 29)) + remote.low) * <uint64_t>0xBF58476D1CE4E5B9U
    h = ((h ^ (h >> 32)) + local.low + encapsulation) * <uint64_t>0x94D049BB133111EBU
    h = ((h ^ (h >> 32)) + local.high) * <uint64_t>0x9E3779B97F4A7C15U
    return <uint32_t>(h >> 32) & tunnels.mask


cdef inline uint32_t find(
    const Tunnels *tunnels, uint8_t encapsulation, Address local, Address remote,
) noexcept nogil:
    """Index of that tunnel, or NO_TUNNEL."""
    cdef uint32_t at = home(tunnels, encapsulation, local, remote)
    cdef const Tunnel *tunnel
    while tunnels.slots[at] != NO_TUNNEL:
        tunnel = &tunnels.entries[tunnels.slots[at]]
        if (same_address(tunnel.remote, remote) and same_address(tunnel.local, local)
                and tunnel.encapsulation == encapsulation):
            return tunnels.slots[at]
        at = (at + 1) & tunnels.mask
    return NO_TUNNEL


cdef int create(Tunnels *tunnels, uint64_t seed) noexcept nogil
cdef void destroy(Tunnels *tunnels) noexcept nogil
cdef uint32_t acquire(
    Tunnels *tunnels, uint8_t encapsulation, const uint8_t *local, const uint8_t *remote,
) noexcept nogil
cdef bint release(Tunnels *tunnels, uint32_t index) noexcept nogil
