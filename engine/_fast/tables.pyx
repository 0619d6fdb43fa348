"""Tables for Python: the same methods as engine.model.Tables, over C structures.

A prefix comes as its 16 octets and length in bits; a tunnel as its key (1 octet encapsulation, 16 local,
16 remote) and its face, the object handed out for it.
"""

import os

from libc.stdint cimport uint32_t, uint64_t, uint8_t
from libc.string cimport memcpy

from engine._fast cimport prefixes, tunnels
from engine._fast.headers cimport Address, load_address
from engine._fast.kernel cimport (
    be64toh, pthread_mutex_destroy, pthread_mutex_init, pthread_mutex_lock, pthread_mutex_unlock,
)
from engine._fast.prefixes cimport ANCHOR, EMPTY, HELD, Slot
from engine._fast.tunnels cimport NO_TUNNEL, Tunnel

cdef enum:
    KEY = 33                 # octets of a tunnel's key


cdef class Tables:
    def __cinit__(self):
        cdef bytes seeds = os.urandom(16)
        cdef Address seed = load_address(seeds)
        pthread_mutex_init(&self.state.lock, NULL)
        if prefixes.create(&self.state.prefixes, seed.high) < 0:
            raise MemoryError
        if tunnels.create(&self.state.tunnels, seed.low) < 0:
            raise MemoryError
        self.faces = [None]

    def __dealloc__(self):
        prefixes.destroy(&self.state.prefixes)
        tunnels.destroy(&self.state.tunnels)
        pthread_mutex_destroy(&self.state.lock)

    def bind(self, bytes network, int length, int side, bytes key, object face):
        """Add a prefix, or move it to another tunnel or side. MemoryError: nothing has changed."""
        cdef const uint8_t *octets = checked(key, KEY)
        cdef uint32_t tunnel
        pthread_mutex_lock(&self.state.lock)
        tunnel = tunnels.acquire(&self.state.tunnels, octets[0], octets + 1, octets + 17)
        pthread_mutex_unlock(&self.state.lock)
        if tunnel == NO_TUNNEL:
            raise MemoryError
        while len(self.faces) <= <Py_ssize_t>tunnel:
            self.faces.append(None)
        if self.faces[tunnel] is None:
            self.faces[tunnel] = face
        try:
            self.put(network, length, side, tunnel)
        except BaseException:
            self.let_go(tunnel)
            raise

    def hold(self, bytes network, int length):
        """The prefix is anchored here and its node is nowhere: packets to it die of NODE_AWAY."""
        self.put(network, length, HELD, NO_TUNNEL)

    def unbind(self, bytes network, int length):
        """Forget the prefix. False: it was not known."""
        cdef Address address = network_of(network, length)
        cdef uint32_t tunnel = NO_TUNNEL
        cdef Slot *slot
        pthread_mutex_lock(&self.state.lock)
        slot = prefixes.find(&self.state.prefixes, address, <uint8_t>length)
        if slot != NULL:
            tunnel = slot.tunnel
            prefixes.remove(&self.state.prefixes, slot)
        pthread_mutex_unlock(&self.state.lock)
        self.let_go(tunnel)
        return slot != NULL

    def bindings(self):
        """(network, length, side, face or None when held) of every prefix, in no order."""
        cdef list rows = []
        cdef uint64_t i
        cdef Slot *slot
        for i in range(self.state.prefixes.mask + 1):
            slot = &self.state.prefixes.slots[i]
            if slot.side != EMPTY:
                rows.append((octets_of(slot), slot.length, slot.side, self.faces[slot.tunnel]))
        return rows

    def tunnels(self):
        """(face, prefixes, packets in, octets in, packets out, octets out) of every tunnel, in no order."""
        cdef list rows = []
        cdef uint32_t i
        cdef Tunnel *tunnel
        for i in range(1, self.state.tunnels.size):
            tunnel = &self.state.tunnels.entries[i]
            if tunnel.prefixes > 0:
                rows.append((self.faces[i], tunnel.prefixes, tunnel.packets_in, tunnel.octets_in,
                             tunnel.packets_out, tunnel.octets_out))
        return rows

    def match(self, bytes address, int sides):
        """Face of the longest prefix around address whose side is in sides; False: held, None: none."""
        cdef Address wanted = load_address(checked(address, 16))
        cdef Slot *slot = prefixes.match(&self.state.prefixes, wanted, <uint8_t>sides)
        if slot == NULL:
            return None
        return False if slot.side == HELD else self.faces[slot.tunnel]

    def known(self, bytes key):
        """Face of the tunnel with that key, or None."""
        return self.faces[self.index(key)]

    def count_in(self, bytes key, uint64_t octets):
        """One packet came out of the tunnel."""
        cdef Tunnel *tunnel = &self.state.tunnels.entries[self.index(key)]
        tunnel.packets_in += 1
        tunnel.octets_in += octets

    def count_out(self, bytes key, uint64_t octets):
        """One packet went into the tunnel."""
        cdef Tunnel *tunnel = &self.state.tunnels.entries[self.index(key)]
        tunnel.packets_out += 1
        tunnel.octets_out += octets

    def __len__(self):
        return self.state.prefixes.used

    def octets(self):
        """Memory of the two tables, octets."""
        return ((self.state.prefixes.mask + 1) * sizeof(Slot) + self.state.tunnels.size * sizeof(Tunnel)
                + (self.state.tunnels.mask + 1) * sizeof(uint32_t))

    cdef uint32_t index(self, bytes key) except? 0xFFFFFFFF:
        cdef const uint8_t *octets = checked(key, KEY)
        return tunnels.find(
            &self.state.tunnels, octets[0], load_address(octets + 1), load_address(octets + 17))

    cdef int put(self, bytes network, int length, int side, uint32_t tunnel) except -1:
        """Make the prefix point to tunnel, which is ours already."""
        cdef Address address = network_of(network, length)
        cdef uint32_t before = NO_TUNNEL
        cdef Slot *slot
        pthread_mutex_lock(&self.state.lock)
        slot = prefixes.find(&self.state.prefixes, address, <uint8_t>length)
        if slot == NULL:
            slot = prefixes.insert(&self.state.prefixes, address, <uint8_t>length)
        else:
            before = slot.tunnel
        if slot != NULL:
            slot.tunnel = tunnel
            slot.side = <uint8_t>side
        pthread_mutex_unlock(&self.state.lock)
        if slot == NULL:
            raise MemoryError
        self.let_go(before)
        return 0

    cdef void let_go(self, uint32_t tunnel):
        cdef bint gone
        if tunnel == NO_TUNNEL:
            return
        pthread_mutex_lock(&self.state.lock)
        gone = tunnels.release(&self.state.tunnels, tunnel)
        pthread_mutex_unlock(&self.state.lock)
        if gone:
            self.faces[tunnel] = None


cdef const uint8_t *checked(bytes octets, Py_ssize_t length) except NULL:
    if len(octets) != length:
        raise ValueError(f"{length} octets expected, {len(octets)} given")
    return <const uint8_t *><char *>octets


cdef Address network_of(bytes network, int length) except *:
    """The prefix as numbers, bits past its length cleared."""
    if not 0 <= length <= 128:
        raise ValueError(f"a prefix has 0..128 bits, not {length}")
    return prefixes.masked(load_address(checked(network, 16)), <uint8_t>length)


cdef bytes octets_of(const Slot *slot):
    cdef uint64_t halves[2]
    halves[0] = be64toh(slot.high)
    halves[1] = be64toh(slot.low)
    return (<char *>halves)[:16]
