"""Hold buffers and reorder groups, edited by the control side while workers use them. Callers hold the GIL."""

from collections import deque
from itertools import islice

from libc.stdint cimport uint8_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from engine._fast cimport epochs, hold, prefixes, reorder, tables, tunnels
from engine._fast.kernel cimport fetch_add64, load32_relaxed, store32_relaxed
from engine._fast.offload cimport VIRTIO_HEADER

from engine._fast.waiting cimport Block, give_back, octets

cdef enum:
    NEEDS_CHECKSUM = 1       # virtio_net_hdr.flags
    STORE = 268435456        # octets: copies in all hold buffers of the tables, and the same of all reorder groups
    LOOKS = 4                # holds that an edit looks at, whether they have drained


cdef class Queues:
    def __cinit__(self, Tables of not None):
        self.tables = of
        memset(&self.turn, 0, sizeof(self.turn))
        self.held = {}
        self.released = {}
        self.leaving = deque()
        self.closing = deque()

    # --- hold buffers ---

    def hold(self, bytes network, int kind, uint32_t packets, uint64_t octets, uint64_t limit):
        """What comes for the prefix, which is held, waits: so many packets and octets, limit ns each. MemoryError."""
        cdef object key = (network, kind)
        cdef uint32_t index
        self.prepare_holds()
        self.sweep()
        if key in self.held and not self.settle(key):
            self.released.pop(key, None)
            hold.hold_again(<hold.Holds *>self.tables.state.holds, self.held[key])
            self.attach(network, kind, self.held[key])
            return
        index = hold.begin(<hold.Holds *>self.tables.state.holds, packets, octets, limit)
        if index == 0:
            raise MemoryError("no hold buffer is free")
        self.held[key] = index
        self.attach(network, kind, index)

    def bring_home(self, bytes network, int kind):
        """The node is here: what comes out of the TUN for its prefix goes back into it."""
        self.tables.keep_tunnel(tables.network_of(network, kind), <unsigned short>kind, prefixes.HOME)

    def release(self, bytes network, int kind, uint64_t pace):
        """The node is somewhere again: what waited may go, pace octets/s (0: at once). False: nothing is held for it."""
        cdef object index = self.held.get((network, kind))
        if index is None:
            return False
        hold.release(<hold.Holds *>self.tables.state.holds, index, pace, tables.monotonic())
        self.released[network, kind] = None
        tables.ring_all(&self.tables.state)
        return True

    def end(self, bytes network, int kind):
        """The prefix is gone, or will not be held any more: what waits is thrown away. False: nothing is held for it."""
        cdef object index = self.held.pop((network, kind), None)
        if index is None:
            return False
        self.released.pop((network, kind), None)
        self.attach(network, kind, 0)
        self.leaving.append((self.tables.state.epochs.now, index))
        self.sweep()
        tables.ring_all(&self.tables.state)
        return True

    def sweep(self):
        """Take back hold buffers that are empty again, a few at a time, and what nobody can look at any more."""
        for key in list(islice(self.released, LOOKS)):
            if not self.settle(key):
                del self.released[key]
                self.released[key] = None                 # behind the others
        epochs.reclaim(&self.tables.state.epochs)
        while self.leaving and epochs.passed(&self.tables.state.epochs, self.leaving[0][0]):
            hold.end(<hold.Holds *>self.tables.state.holds, self.leaving.popleft()[1], &self.turn)
            fetch_add64(&self.tables.state.lost, self.turn.lost)  # the next worker whose bell rings counts them
            self.turn.lost = 0
        while self.closing and epochs.passed(&self.tables.state.epochs, self.closing[0][0]):
            reorder.close_group(<reorder.Groups *>self.tables.state.reorders, self.closing.popleft()[1], &self.turn)
            self.turn.lost = 0                            # they were let in, and counted then

    def held_counts(self, bytes network, int kind):
        """(kept, sent, full, expired) packets of the buffer of a prefix; None: it has none."""
        cdef hold.Counts counts
        cdef object key = (network, kind)
        cdef object index
        if key in self.released:
            self.settle(key)
        index = self.held.get(key)
        if index is None:
            return None
        hold.read_counts(<hold.Holds *>self.tables.state.holds, index, &counts)
        return counts.kept, counts.sent, counts.full, counts.expired

    def take_out(self):
        """All packets that wait, those of a prefix in order, each behind its virtio header. No worker may serve now."""
        cdef hold.Holds *holds = <hold.Holds *>self.tables.state.holds
        cdef Block *chain
        cdef Block *block
        packets = []
        for index in self.held.values():
            chain = block = hold.take_out(holds, index)
            while block != NULL:
                packets.append(with_header(block))
                block = block.next
            give_back(&holds.blocks, chain)
        return packets

    # --- reorder groups ---

    def open_group(self, uint32_t packets, uint64_t octets, uint64_t limit):
        """Number of a new group: so many packets and octets may be early, limit ns each. MemoryError."""
        cdef uint32_t index
        self.prepare_groups()
        self.sweep()
        index = reorder.open_group(<reorder.Groups *>self.tables.state.reorders, packets, octets, limit)
        if index == 0:
            raise MemoryError("no reorder group is free")
        return index

    def join_group(self, bytes key, uint32_t group):
        """What comes out of the tunnel with that key takes its place in the sequence of the group; 0: of none.

        False: no such tunnel.
        """
        cdef uint32_t index = self.tables.tunnel_of(key)
        if index == 0:
            return False
        store32_relaxed(&tunnels.at(&self.tables.state.tunnels, index).group, group)
        return True

    def leave_group(self, bytes key, uint32_t group):
        """What comes out of the tunnel with that key is of no group, if it was of this one."""
        cdef uint32_t index = self.tables.tunnel_of(key)
        if index != 0 and load32_relaxed(&tunnels.at(&self.tables.state.tunnels, index).group) == group:
            store32_relaxed(&tunnels.at(&self.tables.state.tunnels, index).group, 0)

    def close_group(self, uint32_t group):
        """No tunnel is in the group any more: what waits in it is thrown away."""
        self.closing.append((self.tables.state.epochs.now, group))
        self.sweep()

    def group_counts(self, uint32_t group):
        """(in order, early, late, twins, given up, resynchronised, strays, full) of a group."""
        cdef reorder.Counts counts
        reorder.read_counts(<reorder.Groups *>self.tables.state.reorders, group, &counts)
        return (counts.in_order, counts.early, counts.late, counts.twins, counts.given_up, counts.resynchronised,
                counts.strays, counts.full)

    # --- inside ---

    cdef bint settle(self, object key) except -1:
        """Take back the buffer of that prefix if it is empty again."""
        cdef hold.Counts counts
        cdef object index = self.held[key]
        if hold.read_counts(<hold.Holds *>self.tables.state.holds, index, &counts) != hold.EMPTY:
            return False
        del self.held[key]
        self.released.pop(key, None)
        self.attach(key[0], key[1], 0)
        self.leaving.append((self.tables.state.epochs.now, index))
        return True

    cdef int prepare_holds(self) except -1:
        cdef hold.Holds *holds
        if self.tables.state.holds != NULL:
            return 0
        holds = <hold.Holds *>malloc(sizeof(hold.Holds))
        if holds == NULL or hold.create(holds, STORE) < 0:
            free(holds)
            raise MemoryError
        self.tables.state.holds = holds
        return 0

    cdef int prepare_groups(self) except -1:
        cdef reorder.Groups *groups
        if self.tables.state.reorders != NULL:
            return 0
        groups = <reorder.Groups *>malloc(sizeof(reorder.Groups))
        if groups == NULL or reorder.create(groups, STORE) < 0:
            free(groups)
            raise MemoryError
        self.tables.state.reorders = groups
        return 0

    cdef int attach(self, bytes network, int kind, uint32_t index) except -1:
        cdef uint32_t binding = prefixes.find(
            &self.tables.state.prefixes, tables.network_of(network, kind), <unsigned short>kind)
        if binding != 0:
            store32_relaxed(&prefixes.at(&self.tables.state.prefixes, binding).hold, index)
        return 0


cdef bytes with_header(Block *block):
    """A packet as a TUN device takes it: struct virtio_net_hdr, in the machine's order, and its octets."""
    cdef uint8_t header[VIRTIO_HEADER]
    memset(header, 0, VIRTIO_HEADER)
    header[1] = block.aside.gso
    memcpy(header + 4, &block.aside.segment, 2)
    if block.aside.checksum_offset:
        header[0] = NEEDS_CHECKSUM
        memcpy(header + 6, &block.aside.checksum_start, 2)
        memcpy(header + 8, &block.aside.checksum_offset, 2)
    return (<const char *>header)[:VIRTIO_HEADER] + (<const char *>octets(block))[:block.length]
