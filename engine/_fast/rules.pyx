"""Rules read, matched, and policies made, changed and given back. engine/model/flows.py is the specification."""

from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset

from engine._fast cimport epochs as epoch
from engine._fast cimport slabs
from engine._fast.headers cimport load16, load32, load_address
from engine._fast.kernel cimport store_pointer


# --- selectors -----------------------------------------------------------------------------------------

cdef int read_rule(Rule *rule, const uint8_t *octets) noexcept nogil:
    """A rule from RULE_OCTETS octets of engine.rules.FlowRule.packed; -1: numbers that nobody knows."""
    cdef uint32_t k
    memset(rule, 0, sizeof(Rule))
    rule.family = octets[0]
    rule.fields = octets[1]
    rule.spread = octets[2]
    rule.by = octets[3]
    rule.wanted_count = octets[4]
    rule.class_low = octets[5]
    rule.class_high = octets[6]
    rule.protocol_low = octets[7]
    rule.protocol_high = octets[8]
    rule.source_port_low = load16(octets + 12)
    rule.source_port_high = load16(octets + 14)
    rule.destination_port_low = load16(octets + 16)
    rule.destination_port_high = load16(octets + 18)
    rule.label_low = load32(octets + 20)
    rule.label_high = load32(octets + 24)
    rule.spi_low = load32(octets + 28)
    rule.spi_high = load32(octets + 32)
    rule.source_low = load_address(octets + 36)
    rule.source_high = load_address(octets + 52)
    rule.destination_low = load_address(octets + 68)
    rule.destination_high = load_address(octets + 84)
    for k in range(MOST_WANTED):
        rule.wanted[k] = load16(octets + 100 + 2 * k)
    if rule.family not in (0, 4, 6) or rule.spread > BICAST or rule.by > BIDS or rule.wanted_count > MOST_WANTED:
        return -1
    return 0


cdef bint in_chain(const uint64_t *chain, uint32_t low, uint32_t high) noexcept nogil:
    """Does a number between low and high stand in the chain of headers?"""
    cdef uint32_t word, first, last
    cdef uint64_t ones
    for word in range(low >> 6, (high >> 6) + 1):
        first = low & 63 if word == low >> 6 else 0
        last = high & 63 if word == high >> 6 else 63
        ones = (<uint64_t>0xFFFFFFFFFFFFFFFFU >> (63 - last)) & (<uint64_t>0xFFFFFFFFFFFFFFFFU << first)
        if chain[word] & ones:
            return True
    return False


cdef bint matches(const Rule *rule, const Traits *traits) noexcept nogil:
    return suits(rule, traits)


cdef uint32_t first_match(const Rules *rules, const Traits *traits) noexcept nogil:
    """Index of the first rule that the packet suits, or NO_RULE."""
    cdef uint32_t index
    for index in range(rules.count):
        if suits(&rules.rule[index], traits):
            return index
    return NO_RULE


# --- policies ------------------------------------------------------------------------------------------

cdef int create(Policies *policies) noexcept nogil:
    """No policies yet. -1: no memory."""
    cdef uint32_t k
    cdef Policy layout
    cdef size_t link = <size_t>(<char *>&layout.next_free - <char *>&layout)
    memset(policies, 0, sizeof(Policies))
    policies.free_counters = <uint32_t *>malloc(MOST_COUNTERS * sizeof(uint32_t))
    if policies.free_counters == NULL:
        return -1
    if slabs.create(&policies.slab, sizeof(Policy), MOST_POLICIES, <uint32_t>link) != 0:
        free(policies.free_counters)
        policies.free_counters = NULL
        return -1
    for k in range(MOST_COUNTERS - 1):
        policies.free_counters[k] = k + 1
    policies.counters_free = MOST_COUNTERS - 1
    return 0


cdef void destroy(Policies *policies) noexcept nogil:
    """Free the blocks still in use and the entries; what was retired went with the epochs, before."""
    cdef uint32_t index
    if policies.slab.base == NULL:
        return
    for index in range(1, policies.slab.used):
        if at(policies, index).users:
            free(at(policies, index).rules)
    slabs.destroy(&policies.slab)
    free(policies.free_counters)
    memset(policies, 0, sizeof(Policies))


cdef uint32_t acquire(Policies *policies, Epochs *epochs, const Rule *rules, uint32_t count) noexcept nogil:
    """A new policy with one user, each rule with a fresh counter; 0: no memory, or more than MOST_RULES rules.

    A policy without rules spreads everything per flow over all members, as no policy does.
    """
    cdef Rules *block = built(policies, rules, count)
    cdef uint32_t index, k
    if block == NULL:
        return NO_POLICY
    index = slabs.take(&policies.slab)
    if index == NO_POLICY:
        free(block)
        return NO_POLICY
    for k in range(count):
        block.rule[k].counter = take_counter(policies)
    at(policies, index).users = 1
    store_pointer(&at(policies, index).rules, block)
    policies.used += 1
    return index


cdef int replace(Policies *policies, Epochs *epochs, uint32_t index, const Rule *rules, uint32_t count) noexcept nogil:
    """Other rules for a policy. -1: no memory, or too many rules; then nothing changed.

    A rule that names a counter of the policy keeps it (once); all others get fresh ones.
    """
    cdef Rules *block = built(policies, rules, count)
    cdef Rules *before
    cdef uint8_t *owned = <uint8_t *>calloc(MOST_COUNTERS, 1)
    cdef uint32_t k, counter
    if block == NULL or owned == NULL:
        free(block)
        free(owned)
        return -1
    before = <Rules *>at(policies, index).rules
    for k in range(before.count):
        owned[before.rule[k].counter] = 1
    owned[0] = 0
    for k in range(count):
        counter = rules[k].counter
        if counter < MOST_COUNTERS and owned[counter]:
            owned[counter] = 0
            block.rule[k].counter = counter
        else:
            block.rule[k].counter = take_counter(policies)
    for k in range(before.count):
        if owned[before.rule[k].counter]:
            give_counter_back(policies, before.rule[k].counter)
    free(owned)
    store_pointer(&at(policies, index).rules, block)
    epoch.retire_memory(epochs, before)
    return 0


cdef void keep(Policies *policies, uint32_t index) noexcept nogil:
    at(policies, index).users += 1


cdef bint release(Policies *policies, Epochs *epochs, uint32_t index) noexcept nogil:
    """One user less; with the last one the policy goes, when no reader can see it any more."""
    cdef Policy *policy = at(policies, index)
    cdef const Rules *rules = <const Rules *>policy.rules
    cdef uint32_t k
    policy.users -= 1
    if policy.users:
        return False
    policies.used -= 1
    for k in range(rules.count):
        if rules.rule[k].counter:
            give_counter_back(policies, rules.rule[k].counter)
    epoch.retire_memory(epochs, policy.rules)
    epoch.retire_entry(epochs, &policies.slab, index)
    return True


cdef Rules *built(Policies *policies, const Rule *rules, uint32_t count) noexcept nogil:
    cdef Rules *block
    if count > MOST_RULES:
        return NULL
    block = <Rules *>calloc(1, sizeof(Rules) + count * sizeof(Rule))
    if block == NULL:
        return NULL
    policies.serial += 1
    block.serial = policies.serial
    block.count = count
    if count:
        memcpy(block.rule, rules, count * sizeof(Rule))
    return block


cdef uint32_t take_counter(Policies *policies) noexcept nogil:
    """The one given back longest ago, so that no reader still counts for its last owner; 0: all are taken."""
    cdef uint32_t counter
    if policies.counters_free == 0:
        return 0
    counter = policies.free_counters[policies.first_free]
    policies.first_free = (policies.first_free + 1) % MOST_COUNTERS
    policies.counters_free -= 1
    return counter


cdef void give_counter_back(Policies *policies, uint32_t counter) noexcept nogil:
    policies.free_counters[(policies.first_free + policies.counters_free) % MOST_COUNTERS] = counter
    policies.counters_free += 1
