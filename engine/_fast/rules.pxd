"""Flow rules: which packets (traffic selectors, RFC 6088) and what becomes of them. A policy is a list of them.

    Policy 3 -> Rules  serial, count | selector, action | selector, action | ...      the first that matches decides

Selectors are compiled to ranges and a mask of the fields in use. A block of rules never changes: a change publishes
a new block and retires the old one. A policy is stored once, however many bindings use it. Index 0: NO_POLICY.
"""

from libc.stdint cimport uint16_t, uint32_t, uint64_t, uint8_t

from engine._fast.epochs cimport Epochs
from engine._fast.headers cimport Address
from engine._fast.kernel cimport load_pointer
from engine._fast.slabs cimport Slab

cdef enum:
    NO_POLICY = 0
    MOST_POLICIES = 1048576  # index 0 included
    MOST_RULES = 4096        # in one policy
    MOST_WANTED = 16         # labels or BIDs of one rule
    MOST_COUNTERS = 65536    # of all rules of all policies; those beyond count under 0, nobody's
    RULE_OCTETS = 132        # a rule as engine.rules packs it
    NO_RULE = 0xFFFFFFFFU    # no rule of the policy matches

cdef enum:                   # fields in use, bits of Rule.fields
    SOURCE = 1
    DESTINATION = 2
    SPI = 4
    FLOW_LABEL = 8
    SOURCE_PORT = 16
    DESTINATION_PORT = 32
    TRAFFIC_CLASS = 64
    PROTOCOL = 128

cdef enum:                   # Rule.spread; numbers of engine.Spread
    DISCARD = 0
    PER_FLOW = 1
    PER_PACKET = 2
    BICAST = 3

cdef enum:                   # Rule.by: what wanted[] names
    ALL_MEMBERS = 0
    LABELS = 1               # in order of preference
    BIDS = 2

cdef enum:                   # Traits.known, bits
    HAS_PORTS = 1            # source and destination port could be read
    HAS_SPI = 2

cdef struct Rule:
    uint8_t family           # 4: selector of format 1, 6: of format 2, 0: any packet
    uint8_t fields           # bits above; the rest of the ranges is not looked at
    uint8_t spread
    uint8_t by
    uint8_t wanted_count
    uint8_t class_low        # upper 6 bits, right-aligned; all ranges include both ends
    uint8_t class_high
    uint8_t protocol_low
    uint8_t protocol_high
    uint16_t source_port_low
    uint16_t source_port_high
    uint16_t destination_port_low
    uint16_t destination_port_high
    uint32_t label_low       # 20 bits
    uint32_t label_high
    uint32_t spi_low
    uint32_t spi_high
    uint32_t counter         # index in the counters of each worker; 0: nobody's. Set by acquire and replace
    Address source_low
    Address source_high
    Address destination_low
    Address destination_high
    uint16_t wanted[MOST_WANTED]

cdef struct Rules:
    uint64_t serial          # never used twice
    uint32_t count
    Rule rule[1]             # memory for count of them

cdef struct Policy:          # 16 octets
    void *rules              # Rules: published by a release store, read by rules_of()
    uint32_t users           # bindings and handles; 0: the entry is free
    uint32_t next_free

cdef struct Policies:
    Slab slab                # of Policy
    uint64_t serial          # of the block made last
    uint32_t used            # policies
    uint32_t *free_counters  # ring of MOST_COUNTERS: given back last, taken last
    uint32_t first_free
    uint32_t counters_free

cdef struct RuleCount:       # path has MOST_COUNTERS of them per worker, index Rule.counter
    uint64_t packets
    uint64_t octets          # inner packets

cdef struct Traits:          # what selectors look at in a packet
    Address source           # inner; an IPv4 address as ::ffff:a.b.c.d
    Address destination
    uint32_t ports           # source << 16 | destination, if HAS_PORTS
    uint32_t spi             # of ESP or AH, if HAS_SPI
    uint32_t label           # flow label, 20 bits; IPv4: 0
    uint8_t traffic_class    # upper 6 bits, right-aligned
    uint8_t family
    uint8_t known
    uint8_t protocol         # upper-layer protocol
    const uint64_t *chain    # bit n of these 256: number n stands in its chain of headers; NULL: protocol only


cdef inline Policy *at(const Policies *policies, uint32_t index) noexcept nogil:
    return &(<Policy *>policies.slab.base)[index]


cdef inline const Rules *rules_of(const Policies *policies, uint32_t index) noexcept nogil:
    """Its rules now. Read inside an epoch; the block stays whole until the epoch is left."""
    return <const Rules *>load_pointer(&at(policies, index).rules)


cdef bint in_chain(const uint64_t *chain, uint32_t low, uint32_t high) noexcept nogil


cdef inline bint within(Address address, const Address *low, const Address *high) noexcept nogil:
    if address.high < low.high or (address.high == low.high and address.low < low.low):
        return False
    return address.high < high.high or (address.high == high.high and address.low <= high.low)


cdef inline bint ports_match(const Rule *rule, const Traits *traits) noexcept nogil:
    """Ports that cannot be read (later fragments of unknown packets, ESP) are in no range."""
    cdef uint32_t source = traits.ports >> 16
    cdef uint32_t destination = traits.ports & 0xFFFF
    if not traits.known & HAS_PORTS:
        return False
    if rule.fields & SOURCE_PORT and not rule.source_port_low <= source <= rule.source_port_high:
        return False
    return not rule.fields & DESTINATION_PORT or (
        rule.destination_port_low <= destination <= rule.destination_port_high)


cdef inline bint protocol_matches(const Rule *rule, const Traits *traits) noexcept nogil:
    """The upper-layer protocol, or any other number in the chain; RFC 6088 3.2 does not say which."""
    if rule.protocol_low <= traits.protocol <= rule.protocol_high:
        return True
    return traits.chain != NULL and in_chain(traits.chain, rule.protocol_low, rule.protocol_high)


cdef inline bint suits(const Rule *rule, const Traits *traits) noexcept nogil:
    """Every field in use has its value in its range (RFC 6088 3.1, 3.2). The cheap ones first."""
    cdef uint8_t fields = rule.fields
    if rule.family and rule.family != traits.family:
        return False
    if fields & (SOURCE_PORT | DESTINATION_PORT) and not ports_match(rule, traits):
        return False
    if fields & TRAFFIC_CLASS and not rule.class_low <= traits.traffic_class <= rule.class_high:
        return False
    if fields & FLOW_LABEL and not rule.label_low <= traits.label <= rule.label_high:
        return False
    if fields & SOURCE and not within(traits.source, &rule.source_low, &rule.source_high):
        return False
    if fields & DESTINATION and not within(traits.destination, &rule.destination_low, &rule.destination_high):
        return False
    if fields & SPI and not (traits.known & HAS_SPI and rule.spi_low <= traits.spi <= rule.spi_high):
        return False
    return not fields & PROTOCOL or protocol_matches(rule, traits)


cdef int create(Policies *policies) noexcept nogil                   # -1: no memory
cdef void destroy(Policies *policies) noexcept nogil                 # after the epochs; readers have left
cdef int read_rule(Rule *rule, const uint8_t *octets) noexcept nogil # RULE_OCTETS of engine.rules; -1: nonsense
cdef uint32_t acquire(Policies *policies, Epochs *epochs, const Rule *rules, uint32_t count) noexcept nogil
cdef int replace(Policies *policies, Epochs *epochs, uint32_t index, const Rule *rules, uint32_t count) noexcept nogil
cdef void keep(Policies *policies, uint32_t index) noexcept nogil    # one user more
cdef bint release(Policies *policies, Epochs *epochs, uint32_t index) noexcept nogil  # True: that was the last user
cdef bint matches(const Rule *rule, const Traits *traits) noexcept nogil
cdef uint32_t first_match(const Rules *rules, const Traits *traits) noexcept nogil  # index in rules, or NO_RULE
