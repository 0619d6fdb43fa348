"""Tunnels by identity: (encapsulation, GRE key, UDP port, local, remote).

    doors: what find compares, 64 octets      entries: an index stays while the tunnel lives
    (chains of identity -> index)        ->   [ - | tunnel 1 | free | tunnel 3 | ... ]

A tunnel lives while something uses it (bindings and bundles). Index 0 is nobody. A door never changes while it is
linked; when a peer behind a NAT moves to another port, the tunnel gets a new door and keeps its index.
"""

from libc.stdint cimport uint16_t, uint32_t, uint64_t, uint8_t

from engine._fast.chains cimport Chains
from engine._fast.epochs cimport MOST_WORKERS, Epochs
from engine._fast.headers cimport Address
from engine._fast.slabs cimport Slab

cdef enum:                   # encapsulation: numbers of engine.Encapsulation
    UDP = 1
    IP = 2
    GRE = 3

cdef enum:                   # flags
    HAS_KEY_IN = 1
    HAS_KEY_OUT = 2
    SEQUENCED = 4

cdef enum:                   # state: numbers of engine.TunnelState
    UP = 0
    SUSPECT = 1
    DOWN = 2

cdef enum:
    MOST_TUNNELS = 1 << 20   # entries, index 0 and entries in limbo included
    IDENTITY = 40            # octets of an identity: encapsulation 1, flags 1, port 2, key in 4, local 16, remote 16
    TRAITS = 5               # octets of the rest: flags 1, key out 4

cdef struct Tunnel:          # 256 octets, aligned to 64
    uint8_t encapsulation
    uint8_t family           # outer: 4 or 6
    uint8_t flags
    uint8_t state            # atomic
    uint16_t port            # UDP: where the peer listens; else 0 (follow changes it)
    uint8_t peer_length      # octets of peer
    uint8_t outer_length     # octets of outer
    uint32_t key_in
    uint32_t key_out
    uint32_t sequence        # next GRE sequence number (fetch_add)
    uint32_t mtu             # largest inner packet, octets; 0: not known (atomic, written by workers)
    uint32_t group           # index of its reorder group; 0: none (atomic)
    uint32_t users           # bindings and bundles; 0: the entry is free or in limbo. Writer only
    Address local
    Address remote
    uint8_t outer[64]        # header template: IPv6 or IPv4, then UDP, or GRE with room for key and sequence number
    uint8_t peer[28]         # sockaddr_in6 or sockaddr_in, ready for sendmsg
    uint32_t prefixes        # bindings that lead to it, bundles not counted. Writer only
    uint32_t door            # index of its door. Writer only
    uint32_t next_free
    uint32_t mtu_known       # clock when mtu was learned (atomic, written by workers); 0: it was set, and stays
    uint8_t unused[84]

cdef struct Door:            # 64 octets
    uint64_t hash
    uint32_t next[2]
    Address local
    Address remote
    uint32_t key
    uint16_t port
    uint8_t encapsulation
    uint8_t has_key
    uint32_t tunnel          # index in entries
    uint32_t unused

cdef struct TunnelCount:     # of one worker, or a sum; octets of inner packets
    uint64_t packets_in
    uint64_t octets_in
    uint64_t packets_out
    uint64_t octets_out

cdef struct Tunnels:
    Slab entries             # of Tunnel
    Slab doors               # of Door
    Chains chains            # of doors
    Slab counted[MOST_WORKERS]  # of TunnelCount, by index of the tunnel; base NULL: this worker never counted
    Slab before              # of TunnelCount: the sum when the index was taken
    uint64_t seed


cdef inline Tunnel *at(const Tunnels *tunnels, uint32_t index) noexcept nogil:
    return &(<Tunnel *>tunnels.entries.base)[index]


# Counters of one worker (its number from epochs.join), indexed by tunnel; the worker alone writes them, plainly, between
# enter and leave. They stay when the worker parts, and its successor counts on. NULL: no memory. Call with the GIL.
cdef TunnelCount *counts(Tunnels *tunnels, uint32_t worker) noexcept nogil

# index of the tunnel of what arrived, or 0; readers call it between enter and leave.
# has_key, key: GRE. port: UDP source port, else 0.
cdef uint32_t find(
    Tunnels *tunnels, uint8_t encapsulation, bint has_key, uint16_t port, uint32_t key, Address local, Address remote,
) noexcept nogil

# the rest is for the writer
cdef int create(Tunnels *tunnels, uint64_t seed) noexcept nogil
cdef void destroy(Tunnels *tunnels) noexcept nogil
cdef uint32_t find_identity(Tunnels *tunnels, const uint8_t *identity) noexcept nogil
cdef uint32_t acquire(Tunnels *tunnels, const uint8_t *identity, const uint8_t *traits) noexcept nogil
cdef uint32_t add(Tunnels *tunnels, Epochs *epochs, const uint8_t *identity, const uint8_t *traits) noexcept nogil
cdef void hold(Tunnels *tunnels, uint32_t index) noexcept nogil
cdef bint release(Tunnels *tunnels, Epochs *epochs, uint32_t index) noexcept nogil
cdef int follow(Tunnels *tunnels, Epochs *epochs, uint32_t index, uint16_t port) noexcept nogil
cdef TunnelCount total(Tunnels *tunnels, uint32_t index) noexcept nogil
cdef size_t octets(const Tunnels *tunnels) noexcept nogil
