"""Look-up of a burst; putting and removing bindings; the list of lengths in use."""

from libc.stdlib cimport free, malloc
from libc.string cimport memset

from engine._fast cimport epochs, slabs
from engine._fast.burst cimport WIDTH
from engine._fast.drops cimport ALIVE
from engine._fast.kernel cimport prefetch, store_pointer

cdef enum:
    MAPPED_BITS = 96         # of ::ffff:0:0/96, before the bits of an IPv4 address


# --- readers -------------------------------------------------------------------------------------------

cdef uint32_t look_up(
    Prefixes *prefixes, uint32_t count, const Address *addresses, const uint8_t *family, const uint8_t *drop,
    uint8_t sides, uint32_t *found,
) noexcept nogil:
    """match() for a burst: found[i] where it was 0 and drop[i] is ALIVE. Between enter and leave. count <= WIDTH."""
    cdef const Lengths *lengths = <const Lengths *>load_pointer(<void **>&prefixes.lengths)
    cdef const Heads *heads = chains.heads(&prefixes.chains)
    cdef uint16_t waiting[WIDTH]
    cdef uint32_t six = choose(waiting, 6, count, family, drop, found)
    cdef uint32_t four, k
    for k in range(lengths.count6):
        six = probe_all(prefixes, heads, &lengths.of6[k], addresses, sides, found, waiting, six)
    four = choose(waiting, 4, count, family, drop, found)
    for k in range(lengths.count4):
        four = probe_all(prefixes, heads, &lengths.of4[k], addresses, sides, found, waiting, four)
    return six + four


cdef inline uint32_t choose(
    uint16_t *waiting, uint8_t wanted, uint32_t count, const uint8_t *family, const uint8_t *drop,
    const uint32_t *found,
) noexcept nogil:
    """List the packets of that family that have no binding yet. Returns how many; no branch to mispredict."""
    cdef uint32_t number = 0
    cdef uint32_t i
    for i in range(count):
        waiting[number] = <uint16_t>i
        number += (family[i] == wanted) & (drop[i] == ALIVE) & (found[i] == 0)
    return number


cdef uint32_t probe_all(
    Prefixes *prefixes, const Heads *heads, const Span *span, const Address *addresses, uint8_t sides,
    uint32_t *found, uint16_t *waiting, uint32_t number,
) noexcept nogil:
    """Look for bindings of one length, everybody one step at a time: memory answers while the others ask.

    Who finds nothing stays in waiting. Returns how many these are.
    """
    cdef uint32_t *head[WIDTH]
    cdef uint32_t at[WIDTH]
    cdef uint16_t who[WIDTH]
    cdef uint32_t k, left
    for k in range(number):
        who[k] = waiting[k]
        head[k] = chains.head(heads, hash_of(
            prefixes, addresses[who[k]].high & span.high, addresses[who[k]].low & span.low, span.salt))
        prefetch(head[k])
    for k in range(number):
        at[k] = load32_acquire(head[k])
        prefetch(binding_at(prefixes, at[k]))
    left = 0
    while number > 0:
        number = compare(prefixes, heads, span, addresses, sides, found, who, at, number, waiting, &left)
    return left


cdef inline Binding *binding_at(const Prefixes *prefixes, uint32_t index) noexcept nogil:
    return &(<Binding *>prefixes.entries.base)[index]


cdef inline uint32_t compare(
    Prefixes *prefixes, const Heads *heads, const Span *span, const Address *addresses, uint8_t sides,
    uint32_t *found, uint16_t *who, uint32_t *at, uint32_t number, uint16_t *waiting, uint32_t *left,
) noexcept nogil:
    """Each looks at its entry: found, or on to the next of the chain (asked for ahead), or nothing. How many go on."""
    cdef const Binding *binding
    cdef uint32_t going = 0
    cdef uint32_t k
    cdef uint16_t i
    for k in range(number):
        i = who[k]
        binding = binding_at(prefixes, at[k])
        if at[k] == 0:
            waiting[left[0]] = i
            left[0] += 1
        elif ((binding.high ^ (addresses[i].high & span.high)) | (binding.low ^ (addresses[i].low & span.low))
                | <uint64_t>(binding.kind ^ span.kind)) != 0:
            who[going] = i
            at[going] = chains.following(heads, <const Link *>binding)
            prefetch(binding_at(prefixes, at[going]))
            going += 1
        elif binding.side & sides:
            found[i] = at[k]
        else:
            waiting[left[0]] = i
            left[0] += 1
    return going


# --- the writer ----------------------------------------------------------------------------------------

cdef int create(Prefixes *prefixes, uint64_t seed) noexcept nogil:
    """No bindings. The place of prefixes must not change. -1: no memory."""
    memset(prefixes, 0, sizeof(Prefixes))
    prefixes.seed = seed
    prefixes.lengths = list_lengths(prefixes)
    if (prefixes.lengths == NULL or slabs.create(&prefixes.entries, sizeof(Binding), MOST_BINDINGS, 8) < 0
            or chains.create(&prefixes.chains, &prefixes.entries) < 0):
        destroy(prefixes)
        return -1
    return 0


cdef void destroy(Prefixes *prefixes) noexcept nogil:
    """No reader is left, and limbo is empty."""
    free(prefixes.lengths)
    chains.destroy(&prefixes.chains)
    slabs.destroy(&prefixes.entries)
    memset(prefixes, 0, sizeof(Prefixes))


cdef uint32_t find(Prefixes *prefixes, Address network, uint16_t kind) noexcept nogil:
    """Index of the binding of exactly that prefix, or 0. network: as network_of gives it."""
    cdef Span span = span_of(kind)
    return probe(prefixes, chains.heads(&prefixes.chains), &span, network)


cdef uint32_t put(
    Prefixes *prefixes, Epochs *epochs, uint32_t before, Address network, uint16_t kind, uint8_t side, uint8_t many,
    uint32_t target, uint32_t policy, uint32_t former, uint32_t clock,
) noexcept nogil:
    """Add a binding (before: 0), or put a new one in the place of that one (before: what find gave).

    Its index; 0: the table is full or there is no memory, and nothing has changed.
    """
    cdef Span span = span_of(kind)
    cdef uint32_t index = take(prefixes, epochs)
    cdef Binding *binding = binding_at(prefixes, index)
    if index == 0:
        return 0
    if before == 0 and use_length(prefixes, epochs, kind) < 0:
        slabs.give_back(&prefixes.entries, index)
        return 0
    binding.hash = hash_of(prefixes, network.high, network.low, span.salt)
    binding.high = network.high
    binding.low = network.low
    binding.kind = kind
    binding.side = side
    binding.many = many
    binding.target = target
    binding.policy = policy
    binding.former = former
    binding.listed = True
    if before == 0:
        binding.last = clock << 1
        chains.add(&prefixes.chains, epochs, index)
    else:
        take_over(binding_at(prefixes, before), binding)
        chains.exchange(&prefixes.chains, epochs, before, index)
        bury(prefixes, epochs, before)
    return index


cdef void remove(Prefixes *prefixes, Epochs *epochs, uint32_t index) noexcept nogil:
    """Forget a binding. Its length leaves the list after it."""
    cdef Binding *binding = binding_at(prefixes, index)
    chains.remove(&prefixes.chains, epochs, index)
    leave_length(prefixes, epochs, binding.kind)
    bury(prefixes, epochs, index)


cdef Address network_of(Address address, uint16_t kind) noexcept nogil:
    """Address without the bits past the length."""
    cdef Span span = span_of(kind)
    address.high &= span.high
    address.low &= span.low
    return address


cdef size_t octets(const Prefixes *prefixes) noexcept nogil:
    """Memory, octets: entries touched, heads, the list of lengths."""
    return slabs.octets_used(&prefixes.entries) + chains.octets(&prefixes.chains) + sizeof(Lengths)


cdef uint32_t take(Prefixes *prefixes, Epochs *readers) noexcept nogil:
    cdef uint32_t index = slabs.take(&prefixes.entries)
    if index == 0:
        epochs.settle(readers)   # full but for what waits in limbo?
        index = slabs.take(&prefixes.entries)
    return index


cdef void take_over(const Binding *before, Binding *after) noexcept nogil:
    """What a prefix keeps when it is bound anew. A packet counted in this very moment may be forgotten."""
    after.last = load32_relaxed(&before.last)
    after.hold = load32_relaxed(&before.hold)
    after.crowded = load32_relaxed(&before.crowded)


cdef void bury(Prefixes *prefixes, Epochs *readers, uint32_t index) noexcept nogil:
    binding_at(prefixes, index).listed = False
    epochs.retire_entry(readers, &prefixes.entries, index)
    epochs.reclaim(readers)


# --- lengths in use ------------------------------------------------------------------------------------

cdef int use_length(Prefixes *prefixes, Epochs *readers, uint16_t kind) noexcept nogil:
    """One binding more of that length, which is listed before the binding shows. -1: no memory."""
    cdef uint32_t *number = &prefixes.of_length[(kind >> 8) == 6][kind & 255]
    number[0] += 1
    if number[0] == 1 and show_lengths(prefixes, readers) < 0:
        number[0] = 0
        return -1
    return 0


cdef void leave_length(Prefixes *prefixes, Epochs *readers, uint16_t kind) noexcept nogil:
    cdef uint32_t *number = &prefixes.of_length[(kind >> 8) == 6][kind & 255]
    number[0] -= 1
    if number[0] == 0:
        show_lengths(prefixes, readers)  # without memory the old list stays: a probe in vain, no harm


cdef int show_lengths(Prefixes *prefixes, Epochs *readers) noexcept nogil:
    cdef Lengths *before = prefixes.lengths
    cdef Lengths *after = list_lengths(prefixes)
    if after == NULL:
        return -1
    store_pointer(<void **>&prefixes.lengths, after)
    epochs.retire_memory(readers, before)
    return 0


cdef Lengths *list_lengths(const Prefixes *prefixes) noexcept nogil:
    """A new list of the lengths in use, longest first. NULL: no memory."""
    cdef Lengths *lengths = <Lengths *>malloc(sizeof(Lengths))
    cdef int length
    if lengths == NULL:
        return NULL
    memset(lengths, 0, sizeof(Lengths))
    for length in range(128, -1, -1):
        if prefixes.of_length[1][length] > 0:
            lengths.of6[lengths.count6] = span_of(<uint16_t>(6 << 8 | length))
            lengths.count6 += 1
        if prefixes.of_length[0][length] > 0:
            lengths.of4[lengths.count4] = span_of(<uint16_t>(4 << 8 | length))
            lengths.count4 += 1
    return lengths


cdef Span span_of(uint16_t kind) noexcept nogil:
    """Masks and salt of a length. /64 adds nothing to the hash."""
    cdef Span span
    cdef uint32_t bits = (kind & 255) + (MAPPED_BITS if (kind >> 8) == 4 else 0)
    span.high = ones(bits if bits < 64 else 64)
    span.low = ones(bits - 64 if bits > 64 else 0)
    span.salt = <uint64_t>(kind ^ (6 << 8 | 64)) << 48
    span.kind = kind
    return span


cdef uint64_t ones(uint32_t bits) noexcept nogil:
    """The first bits of 64 set."""
    return 0 if bits == 0 else ~<uint64_t>0 << (64 - bits)
