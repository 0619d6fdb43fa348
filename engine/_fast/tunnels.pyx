"""Adding and removing tunnels. The caller holds the lock of the tables."""

from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcpy, memset

from engine._fast.headers cimport UDP_PORT, load_address
from engine._fast.kernel cimport AF_INET6, htobe16

cdef enum:
    SMALLEST = 8             # slots; half of them may be used


cdef int create(Tunnels *tunnels, uint64_t seed) noexcept nogil:
    """An empty table. -1: no memory."""
    memset(tunnels, 0, sizeof(Tunnels))
    tunnels.seed = seed
    return resize(tunnels, SMALLEST)


cdef void destroy(Tunnels *tunnels) noexcept nogil:
    free(tunnels.entries)
    free(tunnels.slots)
    memset(tunnels, 0, sizeof(Tunnels))


cdef uint32_t acquire(
    Tunnels *tunnels, uint8_t encapsulation, const uint8_t *local, const uint8_t *remote,
) noexcept nogil:
    """Index of the tunnel, made when new; one prefix more. NO_TUNNEL: no memory. Addresses: 16 octets."""
    cdef Address here = load_address(local)
    cdef Address there = load_address(remote)
    cdef uint32_t index = find(tunnels, encapsulation, here, there)
    cdef Tunnel *tunnel
    if index == NO_TUNNEL:
        if (tunnels.used + 1) * 2 > tunnels.mask + 1 and resize(tunnels, (tunnels.mask + 1) * 2) < 0:
            return NO_TUNNEL
        index = tunnels.free
        tunnel = &tunnels.entries[index]
        tunnels.free = tunnel.next_free
        tunnels.used += 1
        memset(tunnel, 0, sizeof(Tunnel))
        tunnel.encapsulation = encapsulation
        tunnel.local = here
        tunnel.remote = there
        tunnel.peer.sin6_family = <unsigned short>AF_INET6
        tunnel.peer.sin6_port = htobe16(UDP_PORT) if encapsulation == UDP else 0
        memcpy(tunnel.peer.sin6_addr.s6_addr, remote, 16)
        enter(tunnels, index)
    tunnels.entries[index].prefixes += 1
    return index


cdef bint release(Tunnels *tunnels, uint32_t index) noexcept nogil:
    """One prefix less. True: that was the last one, the tunnel is gone."""
    cdef Tunnel *tunnel = &tunnels.entries[index]
    tunnel.prefixes -= 1
    if tunnel.prefixes > 0:
        return False
    leave(tunnels, index)
    tunnel.next_free = tunnels.free
    tunnels.free = index
    tunnels.used -= 1
    return True


cdef uint32_t home_of(const Tunnels *tunnels, uint32_t index) noexcept nogil:
    cdef const Tunnel *tunnel = &tunnels.entries[index]
    return home(tunnels, tunnel.encapsulation, tunnel.local, tunnel.remote)


cdef void enter(Tunnels *tunnels, uint32_t index) noexcept nogil:
    cdef uint32_t at = home_of(tunnels, index)
    while tunnels.slots[at] != NO_TUNNEL:
        at = (at + 1) & tunnels.mask
    tunnels.slots[at] = index


cdef void leave(Tunnels *tunnels, uint32_t index) noexcept nogil:
    """Empty the slot of index, and shift back what had been pushed past it: no tombstones."""
    cdef uint32_t hole = home_of(tunnels, index)
    cdef uint32_t at, wanted
    while tunnels.slots[hole] != index:
        hole = (hole + 1) & tunnels.mask
    at = (hole + 1) & tunnels.mask
    while tunnels.slots[at] != NO_TUNNEL:
        wanted = home_of(tunnels, tunnels.slots[at])
        if ((at - wanted) & tunnels.mask) >= ((at - hole) & tunnels.mask):
            tunnels.slots[hole] = tunnels.slots[at]
            hole = at
        at = (at + 1) & tunnels.mask
    tunnels.slots[hole] = NO_TUNNEL


cdef int resize(Tunnels *tunnels, uint32_t capacity) noexcept nogil:
    """Room for capacity / 2 tunnels in capacity slots (a power of two). -1: no memory."""
    cdef uint32_t size = capacity // 2 + 1
    cdef uint32_t *slots = <uint32_t *>calloc(capacity, sizeof(uint32_t))
    cdef Tunnel *entries = <Tunnel *>realloc(tunnels.entries, size * sizeof(Tunnel))
    cdef uint32_t i
    if entries != NULL:
        tunnels.entries = entries
    if entries == NULL or slots == NULL:
        free(slots)
        return -1
    for i in range(size - 1, max(tunnels.size, 1) - 1, -1):
        memset(&entries[i], 0, sizeof(Tunnel))
        entries[i].next_free = tunnels.free
        tunnels.free = i
    free(tunnels.slots)
    tunnels.slots = slots
    tunnels.mask = capacity - 1
    tunnels.size = size
    for i in range(1, size):
        if entries[i].prefixes > 0:
            enter(tunnels, i)
    return 0
