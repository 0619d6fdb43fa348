"""The tap's ring: one writes, one reads, neither waits. See tap.pxd."""

from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from engine._fast.kernel cimport (
    load64_acquire, load64_relaxed, load_pointer, store32_release, store64_relaxed, store64_release, store_pointer,
)


# --- the worker's end ----------------------------------------------------------------------------------

cdef void record(
    Tap *tap, uint32_t direction, const uint8_t *head, uint32_t head_length,
    const uint8_t *packet, uint32_t length, uint64_t now,
) noexcept nogil:
    """Copy a packet, with an outer header in front of it if there is one (head NULL: none). now: ns, monotonic."""
    cdef Record about
    cdef uint64_t at = load64_relaxed(&tap.head)
    cdef uint32_t from_head
    if load_pointer(&tap.ring) == NULL:
        return
    memset(&about, 0, sizeof(Record))
    about.time = now + load64_relaxed(&tap.offset)
    about.original = head_length + length
    about.captured = min(about.original, load32_relaxed(&tap.snap))
    about.direction = direction
    if tap.size - (at - load64_acquire(&tap.tail)) < sizeof(Record) + about.captured:
        store64_relaxed(&tap.lost, tap.lost + 1)
        return
    from_head = min(head_length, about.captured)
    write_in(tap, at, <const uint8_t *>&about, sizeof(Record))
    write_in(tap, at + sizeof(Record), head, from_head)
    write_in(tap, at + sizeof(Record) + from_head, packet, about.captured - from_head)
    store64_release(&tap.head, at + sizeof(Record) + about.captured)


cdef inline void write_in(Tap *tap, uint64_t at, const uint8_t *octets, uint64_t length) noexcept nogil:
    cdef uint64_t begin = at & (tap.size - 1)
    cdef uint64_t first = min(length, tap.size - begin)
    if length == 0:
        return
    memcpy(<uint8_t *>tap.ring + begin, octets, first)
    if first < length:
        memcpy(tap.ring, octets + first, length - first)


# --- the reader's end ----------------------------------------------------------------------------------

cdef int open_tap(Tap *tap, uint32_t tunnel, uint32_t snap, uint64_t size, uint64_t offset) noexcept nogil:
    """Begin. size: octets, a power of two, of the first opening. 0; -1: no memory.

    What was captured before and not read is forgotten. The capture before this one must have been closed.
    """
    cdef void *ring
    if tap.ring == NULL:
        ring = malloc(size)
        if ring == NULL:
            return -1
        tap.size = size
        store_pointer(&tap.ring, ring)
    store64_release(&tap.tail, load64_acquire(&tap.head))
    store64_relaxed(&tap.offset, offset)
    store32_release(&tap.snap, min(snap, <uint32_t>MOST_SNAP))
    store32_release(&tap.tunnel, tunnel)
    return 0


cdef void close_tap(Tap *tap) noexcept nogil:
    """The worker stops copying, after the burst it is in."""
    store32_release(&tap.tunnel, 0)


cdef uint64_t lost_packets(Tap *tap) noexcept nogil:
    """That found the ring full, since the worker began."""
    return load64_relaxed(&tap.lost)


cdef list read_records(Tap *tap):
    """(ns since 1970, direction, octets of the packet, what was kept of it) of all that is there, oldest first."""
    cdef list records = []
    cdef uint64_t at = load64_relaxed(&tap.tail)
    cdef uint64_t end = load64_acquire(&tap.head)
    cdef Record about
    cdef bytes octets
    if tap.ring == NULL:
        return records
    while at != end:
        read_out(tap, at, <uint8_t *>&about, sizeof(Record))
        at += sizeof(Record)
        octets = read_octets(tap, at, about.captured)
        at += about.captured
        store64_release(&tap.tail, at)
        records.append((about.time, about.direction, about.original, octets))
    return records


cdef bytes read_octets(Tap *tap, uint64_t at, uint64_t length):
    cdef uint64_t begin = at & (tap.size - 1)
    cdef uint64_t first = min(length, tap.size - begin)
    return (<const char *>tap.ring)[begin:begin + first] + (<const char *>tap.ring)[:length - first]


cdef inline void read_out(const Tap *tap, uint64_t at, uint8_t *octets, uint64_t length) noexcept nogil:
    cdef uint64_t begin = at & (tap.size - 1)
    cdef uint64_t first = min(length, tap.size - begin)
    memcpy(octets, <uint8_t *>tap.ring + begin, first)
    if first < length:
        memcpy(octets + first, tap.ring, length - first)


cdef void destroy(Tap *tap) noexcept nogil:
    free(tap.ring)
    memset(tap, 0, sizeof(Tap))


# --- for the tests -------------------------------------------------------------------------------------

cdef class Ring:
    """One tap with both its ends. For the tests: the path calls the functions."""

    cdef Tap tap

    def __dealloc__(self):
        destroy(&self.tap)

    def open(self, *, uint32_t tunnel=ALL_TUNNELS, uint32_t snap=MOST_SNAP, uint64_t size=1 << 16, uint64_t offset=0):
        """size: a power of two."""
        if open_tap(&self.tap, tunnel, snap, size, offset):
            raise MemoryError

    def close(self):
        close_tap(&self.tap)

    def record(self, uint32_t tunnel, uint32_t direction, bytes packet not None, uint64_t now, bytes head=b""):
        """As the worker does for a packet of that tunnel."""
        cdef uint32_t one = wanted(&self.tap)
        if one != 0 and (one == ALL_TUNNELS or one == tunnel):
            record(&self.tap, direction, <const uint8_t *><const char *>head, <uint32_t>len(head),
                   <const uint8_t *><const char *>packet, <uint32_t>len(packet), now)

    def hammer(self, uint32_t packets, bytes packet not None):
        """Without the GIL: that many packets, the first four octets of each its number."""
        cdef uint8_t *octets = <uint8_t *><const char *>packet
        cdef uint32_t length = <uint32_t>len(packet)
        cdef uint8_t copied[2048]
        cdef uint32_t i
        if length < 4 or length > sizeof(copied):
            raise ValueError("4 to 2048 octets")
        memcpy(copied, octets, length)
        with nogil:
            for i in range(packets):
                memcpy(copied, &i, 4)
                record(&self.tap, INBOUND, NULL, 0, copied, length, i)

    def read(self):
        return read_records(&self.tap)

    @property
    def lost(self):
        return lost_packets(&self.tap)
