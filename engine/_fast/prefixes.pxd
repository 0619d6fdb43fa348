"""Prefixes: address -> binding, longest prefix first, one probe for each length in use of that family.

    2001:db8:a1:100::/64 -> chain -> Binding (64 octets, one cache line)
    10.1.0.0/16 is ::ffff:10.1.0.0 with kind 4 << 8 | 16

A linked binding never changes, but for `last`, `crowded`, `hold` and `former`: an edit puts a new one in the place of the
old by one store, so that a reader sees (side, many, target, policy) of one edit, and never misses a prefix that stays.
"""

from libc.stdint cimport uint16_t, uint32_t, uint64_t, uint8_t

from engine._fast cimport chains
from engine._fast.chains cimport Chains, Heads, Link
from engine._fast.epochs cimport Epochs
from engine._fast.headers cimport Address
from engine._fast.kernel cimport load32_acquire, load32_relaxed, load_pointer, prefetch, store32_relaxed
from engine._fast.slabs cimport Slab

cdef enum:                   # side: bits, so that a look-up can ask for several
    ANCHOR = 1
    ACCESS = 2
    HELD = 4
    HOME = 8                 # the node is back: what comes out of the TUN goes back into it, the kernel delivers
    HERE = 16                # the kernel delivers, and brings to us only what it has no link for: as HELD

cdef enum:
    RECENT = 4               # 0.1 s: activity is known to so much

cdef enum:
    MOST_BINDINGS = 1 << 24  # entries, index 0 and entries in limbo included

cdef struct Binding:         # 64 octets, aligned to 64
    uint64_t hash
    uint32_t next[2]
    uint64_t high            # network address (IPv4: mapped), bits past the length are 0
    uint64_t low
    uint16_t kind            # family << 8 | length in bits of that family
    uint8_t side             # ANCHOR, ACCESS, HELD, HOME or HERE
    uint8_t many             # target is a bundle, not a tunnel
    uint32_t target          # index in tunnels or bundles; when HELD or HOME that of before, 0: none
    uint32_t policy          # index in policies; 0: none
    uint32_t hold            # index in holds; 0: none (atomic)
    uint32_t last            # clock of the last packet << 1 | 1, or of the first bind << 1 (atomic, written by workers)
    uint32_t former          # index in transients: the way before this one; 0: none (atomic)
    uint32_t crowded         # clock of the last packet of connections that are open but not followed; 0: none (atomic)
    uint8_t listed           # writer only: it is in the table, not free or in limbo
    uint8_t unused[3]

cdef struct Span:           # one length in use, and how to probe for it
    uint64_t high            # mask of the network part
    uint64_t low
    uint64_t salt            # what the length adds to the hash
    uint16_t kind

cdef struct Lengths:         # read-only once shown: longest first
    uint32_t count6
    uint32_t count4
    Span of6[129]
    Span of4[33]

cdef struct Prefixes:
    Slab entries             # of Binding
    Chains chains
    Lengths *lengths         # atomic
    uint32_t of_length[2][129]  # bindings of each length, IPv4 and IPv6: writer only
    uint64_t seed


cdef inline Binding *at(const Prefixes *prefixes, uint32_t index) noexcept nogil:
    return &(<Binding *>prefixes.entries.base)[index]


cdef inline void touch(Binding *binding, uint32_t clock) noexcept nogil:
    """A packet of this prefix passed. Written when the time is RECENT no more: the line stays clean and shared."""
    cdef uint32_t last = load32_relaxed(&binding.last)
    if (clock << 1 | 1) - (last | 1) > 2 * RECENT or last & 1 == 0:
        store32_relaxed(&binding.last, clock << 1 | 1)


cdef inline uint64_t hash_of(const Prefixes *prefixes, uint64_t high, uint64_t low, uint64_t salt) noexcept nogil:
    cdef uint64_t one = (high ^ prefixes.seed) * <uint64_t>0x9E3779B97F4A7C15U
    cdef uint64_t other = (low ^ salt) * <uint64_t>0xC2B2AE3D27D4EB4FU
    one = (one ^ (one >> 32)) + (other ^ (other >> 29))
    return one * <uint64_t>0xD6E8FEB86659FD93U


cdef inline uint32_t *ask(Prefixes *prefixes, const Heads *heads, Address address) noexcept nogil:
    """Have the head of the chain of address's /64, the usual length, on its way to the cache; ask_more() some time later."""
    cdef uint32_t *head = chains.head(heads, hash_of(prefixes, address.high, 0, 0))
    prefetch(head)
    return head


cdef inline void ask_more(const Prefixes *prefixes, const uint32_t *head) noexcept nogil:
    """The same for the first binding of that chain."""
    prefetch(at(prefixes, load32_relaxed(head)))


cdef inline uint32_t probe(Prefixes *prefixes, const Heads *heads, const Span *span, Address address) noexcept nogil:
    """Index of the binding of that length around address, or 0."""
    cdef uint64_t high = address.high & span.high
    cdef uint64_t low = address.low & span.low
    cdef uint32_t index = load32_acquire(chains.head(heads, hash_of(prefixes, high, low, span.salt)))
    cdef const Binding *binding
    while index != 0:
        binding = at(prefixes, index)
        if binding.high == high and binding.low == low and binding.kind == span.kind:
            return index
        index = chains.following(heads, <const Link *>binding)
    return 0


cdef inline uint32_t match(Prefixes *prefixes, Address address, uint8_t family, uint8_t sides) noexcept nogil:
    """Index of the binding of the longest prefix around address whose side is among sides; 0: none.

    For one address; for a burst there is look_up. Readers: between enter and leave.
    """
    cdef Lengths *lengths = <Lengths *>load_pointer(<void **>&prefixes.lengths)
    cdef const Heads *heads = chains.heads(&prefixes.chains)
    cdef const Span *spans = &lengths.of6[0] if family == 6 else &lengths.of4[0]
    cdef uint32_t count = lengths.count6 if family == 6 else lengths.count4
    cdef uint32_t i, index
    for i in range(count):
        index = probe(prefixes, heads, &spans[i], address)
        if index != 0 and at(prefixes, index).side & sides:
            return index
    return 0


# for a burst: found[i] becomes match(addresses[i], family[i], sides) where found[i] was 0 and drop[i] is ALIVE (0);
# all memory is asked for ahead. count <= WIDTH. How many living packets have no binding afterwards.
cdef uint32_t look_up(
    Prefixes *prefixes, uint32_t count, const Address *addresses, const uint8_t *family, const uint8_t *drop,
    uint8_t sides, uint32_t *found,
) noexcept nogil

# the rest is for the writer
cdef int create(Prefixes *prefixes, uint64_t seed) noexcept nogil
cdef void destroy(Prefixes *prefixes) noexcept nogil
cdef uint32_t find(Prefixes *prefixes, Address network, uint16_t kind) noexcept nogil
cdef uint32_t put(
    Prefixes *prefixes, Epochs *epochs, uint32_t before, Address network, uint16_t kind, uint8_t side, uint8_t many,
    uint32_t target, uint32_t policy, uint32_t former, uint32_t clock,
) noexcept nogil
cdef void remove(Prefixes *prefixes, Epochs *epochs, uint32_t index) noexcept nogil
cdef Address network_of(Address address, uint16_t kind) noexcept nogil
cdef size_t octets(const Prefixes *prefixes) noexcept nogil
