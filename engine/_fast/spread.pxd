"""Spread: policy -> rule -> label or BIDs -> live members -> tunnel, or tunnels.

    per flow     weighted rendezvous: each member draws -log2(hash) / weight, the least wins. Both ends of the tunnel
                 draw alike; a member that dies takes only its own flows with it. A flow that runs is pinned to its
                 member (pins.pxd) while that one lives and its rule permits it, and draws again after a pause
    per packet   smooth weighted round robin, its place kept by each worker
    bicast       a copy on every member that is not down
"""

from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t, uint8_t

from engine._fast.bundles cimport MOST_MEMBERS, Bundles
from engine._fast.burst cimport Burst
from engine._fast.drops cimport ALIVE, Drop
from engine._fast.flows cimport Fragments
from engine._fast.headers cimport Address
from engine._fast.kernel cimport likely, load8_relaxed
from engine._fast.pins cimport Pins
from engine._fast.rules cimport NO_POLICY, Policies

cdef enum:                   # Tunnel.state
    UP = 0
    SUSPECT = 1              # used while no member is up
    DOWN = 2                 # never used

cdef enum:
    DECISION_SETS = 2048
    DECISION_WAYS = 4
    SCHEDULE_SETS = 256
    SCHEDULE_WAYS = 4

cdef struct Decided:         # one cache line: the rule of a flow
    Address source
    Address destination
    uint64_t serial          # of the block of rules; 0: the line is empty
    uint32_t ports           # or SPI
    uint32_t label           # flow label, 20 bits; upper 6 bits of the traffic class << 20; family << 26
    uint32_t rule            # index in the block, or NO_RULE
    uint8_t protocol
    uint8_t known
    uint8_t unused[2]
    uint64_t spare

cdef struct Decisions:       # of one worker
    Decided *lines           # DECISION_SETS x DECISION_WAYS
    uint32_t turn            # which way of a set goes next
    uint64_t hits
    uint64_t misses

cdef struct Schedule:        # the round robin over some members of one bundle
    uint64_t serial          # of the block of members; 0: empty
    uint32_t members         # bits: which of them
    uint32_t used            # Schedules.clock when it was asked last
    int64_t credit[MOST_MEMBERS]

cdef struct Schedules:       # of one worker
    Schedule *entries        # SCHEDULE_SETS x SCHEDULE_WAYS
    uint32_t clock           # packets spread by them
    uint32_t begun           # schedules begun; each begins at another place

cdef struct Chooser:         # what choose reads; nothing in it changes while the worker lives
    const Bundles *bundles
    const Policies *policies
    Pins *pins
    const uint64_t *now      # ns, monotonic, when the burst began
    const uint8_t *states    # &tunnel.state of tunnel 0
    size_t stride            # sizeof(Tunnel)
    Fragments *fragments     # of this worker, where identify put the packet's headers
    Decisions *decisions     # of this worker
    Schedules *schedules     # of this worker

cdef struct Decision:
    uint32_t count           # tunnels; more than one: a copy into each
    uint32_t tunnel[MOST_MEMBERS]
    uint32_t rule            # index of its counter; 0: no rule matched, or nobody counts
    uint8_t sequenced        # spread over the bundle by packet or bicast: it wants a number of bundles.next_sequence


cdef inline uint8_t state_of(const Chooser *chooser, uint32_t tunnel) noexcept nogil:
    return load8_relaxed(chooser.states + tunnel * chooser.stride)


cdef inline uint8_t choose(
    Chooser *chooser, Burst *burst, uint32_t i, uint8_t many, uint32_t target, uint32_t policy, uint64_t prefix,
    Decision *decision,
) noexcept nogil:
    """Where packet i goes; ALIVE, or the Drop of a packet that goes nowhere. many, target, policy: of its binding.

    prefix: a hash of the prefix of that binding; flows of a prefix stay pinned when it is bound to another bundle.
    decision.rule is set in either case. A tunnel that is no bundle has neither label nor BID: it suits every rule.
    """
    if likely(policy == NO_POLICY and not many):
        decision.rule = 0
        decision.sequenced = 0
        decision.count = 1
        decision.tunnel[0] = target
        return ALIVE if state_of(chooser, target) != DOWN else <uint8_t>Drop.NO_PATH
    if not many:
        return judge(chooser, burst, i, target, policy, decision)
    return decide(chooser, burst, i, target, policy, prefix, decision)


cdef int create_decisions(Decisions *decisions) noexcept nogil       # -1: no memory
cdef void destroy_decisions(Decisions *decisions) noexcept nogil
cdef int create_schedules(Schedules *schedules) noexcept nogil       # -1: no memory
cdef void destroy_schedules(Schedules *schedules) noexcept nogil
cdef uint8_t judge(
    Chooser *chooser, Burst *burst, uint32_t i, uint32_t target, uint32_t policy, Decision *decision,
) noexcept nogil
cdef uint8_t decide(
    Chooser *chooser, Burst *burst, uint32_t i, uint32_t target, uint32_t policy, uint64_t prefix, Decision *decision,
) noexcept nogil
