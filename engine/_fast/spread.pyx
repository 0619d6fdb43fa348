"""Which of several tunnels. engine/model/spread.py is the specification, to the last bit of the arithmetic."""

from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset

from engine._fast cimport bundles as bundle
from engine._fast cimport burst as bursts
from engine._fast cimport epochs as epoch
from engine._fast cimport flows, pins, rules
from engine._fast.bundles cimport Member, Members
from engine._fast.epochs cimport Epochs
from engine._fast.flows cimport Headers, mix
from engine._fast.headers cimport (
    PROTO_FRAGMENT, flow_label, load_address, load_address4, same_address, traffic_class,
)
from engine._fast.kernel cimport CLOCK_MONOTONIC, clock_gettime, likely, log2_floor, timespec, unlikely
from engine._fast.pins cimport Pin
from engine._fast.rules cimport (
    BICAST, BIDS, DISCARD, HAS_PORTS, HAS_SPI, LABELS, NO_RULE, PER_FLOW, PER_PACKET, RULE_OCTETS, Rule, Rules, Traits,
)

cdef extern from "<stdlib.h>" nogil:
    int posix_memalign(void **, size_t, size_t)

cdef enum:
    FEW_RULES = 4            # looked through faster than remembered
    PHASES = 64              # a schedule begins 0 to PHASES - 1 packets into its round

cdef uint64_t LOG2[257]      # log2(1 + i / 256) * 2^32


cdef void fill_logarithms() noexcept nogil:
    """Bit by bit from squares of 31-bit fractions: the same on every machine, which no math library promises."""
    cdef uint64_t x, value
    cdef uint32_t i, bit
    for i in range(256):
        x = (<uint64_t>1 << 31) + (<uint64_t>i << 23)
        value = 0
        for bit in range(32):
            x = (x * x) >> 31
            value <<= 1
            if x >> 32:
                value |= 1
                x >>= 1
        LOG2[i] = value
    LOG2[256] = <uint64_t>1 << 32


fill_logarithms()


# --- the choice ----------------------------------------------------------------------------------------

cdef uint8_t judge(
    Chooser *chooser, Burst *burst, uint32_t i, uint32_t target, uint32_t policy, Decision *decision,
) noexcept nogil:
    """choose, for a lone tunnel with a policy: it may only say no."""
    cdef const Rule *rule = rule_for(chooser, burst, i, rules.rules_of(chooser.policies, policy))
    decision.sequenced = 0
    decision.rule = 0
    decision.count = 0
    if rule != NULL:
        decision.rule = rule.counter
        if rule.spread == DISCARD:
            return Drop.POLICY
    decision.count = 1
    decision.tunnel[0] = target
    return ALIVE if state_of(chooser, target) != DOWN else <uint8_t>Drop.NO_PATH


cdef uint8_t decide(
    Chooser *chooser, Burst *burst, uint32_t i, uint32_t target, uint32_t policy, uint64_t prefix, Decision *decision,
) noexcept nogil:
    """choose, for a bundle."""
    cdef const Rule *rule = NULL
    cdef const Members *members = bundle.members(chooser.bundles, target)
    cdef uint32_t candidates
    cdef uint8_t spread = PER_FLOW
    decision.rule = 0
    decision.sequenced = 0
    decision.count = 0
    if policy != NO_POLICY:
        rule = rule_for(chooser, burst, i, rules.rules_of(chooser.policies, policy))
    if rule != NULL:
        decision.rule = rule.counter
        spread = rule.spread
        if spread == DISCARD:
            return Drop.POLICY
    candidates = wanted(chooser, members, rule)
    if candidates == 0:
        return Drop.NO_PATH
    if spread == BICAST:
        copy_to_all(members, candidates, decision)
        return ALIVE
    if spread == PER_PACKET:
        decision.sequenced = 1
        decision.tunnel[0] = members.member[next_in_turn(chooser.schedules, members, candidates)].tunnel
    else:
        decision.tunnel[0] = keep_or_draw(chooser, members, candidates, burst.flow[i], prefix)
    decision.count = 1
    return ALIVE


cdef void copy_to_all(const Members *members, uint32_t candidates, Decision *decision) noexcept nogil:
    cdef uint32_t k
    decision.sequenced = 1
    for k in range(members.count):
        if candidates >> k & 1:
            decision.tunnel[decision.count] = members.member[k].tunnel
            decision.count += 1


# --- policy -> rule ------------------------------------------------------------------------------------

cdef inline bint is_simple(const Headers *headers) noexcept nogil:
    """Nothing stands in its chain but the upper-layer protocol: a Decided line tells it from all others."""
    cdef uint32_t word
    cdef uint64_t others = 0
    for word in range(4):
        others |= headers.chain[word] & ~(
            <uint64_t>(headers.protocol >> 6 == word) << (headers.protocol & 63))
    return others == 0


cdef const Rule *rule_for(Chooser *chooser, Burst *burst, uint32_t i, const Rules *block) noexcept nogil:
    """The first rule that packet i suits, or NULL; asked of the flow's line first where there are many rules."""
    cdef Traits traits
    cdef Headers *headers
    cdef bint simple = True
    cdef uint32_t index
    traits.source = burst.source[i]
    traits.destination = burst.destination[i]
    traits.ports = burst.ports[i]
    traits.spi = 0
    traits.family = burst.family[i]
    traits.label = flow_label(burst.packet[i]) if traits.family == 6 else 0
    traits.traffic_class = traffic_class(burst.packet[i]) >> 2
    traits.known = HAS_PORTS
    traits.protocol = burst.protocol[i]
    traits.chain = NULL
    if unlikely(chooser.fragments.odd[i]):
        headers = &chooser.fragments.header[i]
        traits.ports = headers.ports
        traits.spi = headers.spi
        traits.known = headers.known
        traits.chain = headers.chain
        simple = is_simple(headers)
    if block.count > FEW_RULES and simple:
        index = remembered(chooser.decisions, block, &traits, burst.flow[i])
        return &(<Rules *>block).rule[index] if index != NO_RULE else NULL
    for index in range(block.count):
        if rules.suits(&(<Rules *>block).rule[index], &traits):
            return &(<Rules *>block).rule[index]
    return NULL


cdef inline bint is_line_of(
    const Decided *line, uint64_t serial, const Traits *traits, uint32_t key, uint32_t label,
) noexcept nogil:
    return (
        line.serial == serial and same_address(line.source, traits.source)
        and same_address(line.destination, traits.destination) and line.ports == key and line.label == label
        and line.protocol == traits.protocol and line.known == traits.known)


cdef uint32_t remembered(
    Decisions *decisions, const Rules *block, const Traits *traits, uint64_t flow,
) noexcept nogil:
    """first_match, remembered. Everything a selector looks at is compared, and the block: no change makes it wrong."""
    cdef uint32_t key = traits.ports if traits.known & HAS_PORTS else traits.spi
    cdef uint32_t label = traits.label | <uint32_t>traits.traffic_class << 20 | <uint32_t>traits.family << 26
    cdef Decided *line
    cdef Decided *ways
    cdef uint32_t first = <uint32_t>(flow >> 40) & (DECISION_WAYS - 1)  # each flow has a way that is looked at first
    cdef uint32_t k
    ways = &decisions.lines[(((flow >> 20) ^ block.serial) & (DECISION_SETS - 1)) * DECISION_WAYS]
    for k in range(DECISION_WAYS):
        line = &ways[(first + k) & (DECISION_WAYS - 1)]
        if is_line_of(line, block.serial, traits, key, label):
            decisions.hits += 1
            return line.rule
    decisions.misses += 1
    line = &ways[first]
    if line.serial == block.serial:                       # taken: another way, each in turn
        decisions.turn += 1
        line = &ways[decisions.turn & (DECISION_WAYS - 1)]
    line.source = traits.source
    line.destination = traits.destination
    line.serial = block.serial
    line.ports = key
    line.label = label
    line.protocol = traits.protocol
    line.known = traits.known
    line.rule = rules.first_match(block, traits)
    return line.rule


# --- rule -> members -----------------------------------------------------------------------------------

cdef inline uint32_t named(const Members *members, uint8_t by, uint16_t name) noexcept nogil:
    """Members with that label or that BID, as bits."""
    cdef uint32_t k
    cdef uint32_t found = 0
    for k in range(members.count):
        if (members.member[k].label if by == LABELS else members.member[k].bid) == name:
            found |= <uint32_t>1 << k
    return found


cdef uint32_t wanted(const Chooser *chooser, const Members *members, const Rule *rule) noexcept nogil:
    """The members among which this packet is spread, as bits; 0: none of them lives.

    Members that are up come before suspect ones, whatever the order of the labels. A bicast spares neither.
    """
    cdef uint32_t up = 0
    cdef uint32_t suspect = 0
    cdef uint32_t k
    cdef uint8_t state
    for k in range(members.count):
        state = state_of(chooser, members.member[k].tunnel)
        up |= <uint32_t>(state == UP) << k
        suspect |= <uint32_t>(state == SUSPECT) << k
    if rule == NULL or rule.wanted_count == 0:
        if rule != NULL and rule.spread == BICAST:
            return up | suspect
        return up if up else suspect
    if rule.by == LABELS and rule.spread != BICAST:
        k = preferred(members, rule, up)
        return k if k else preferred(members, rule, suspect)
    k = all_named(members, rule)
    if rule.spread == BICAST:
        return k & (up | suspect)
    return k & up if k & up else k & suspect


cdef uint32_t preferred(const Members *members, const Rule *rule, uint32_t among) noexcept nogil:
    """Those with the first of the rule's labels that any of them has."""
    cdef uint32_t n, found
    for n in range(rule.wanted_count):
        found = named(members, LABELS, rule.wanted[n]) & among
        if found:
            return found
    return 0


cdef uint32_t all_named(const Members *members, const Rule *rule) noexcept nogil:
    cdef uint32_t n
    cdef uint32_t found = 0
    for n in range(rule.wanted_count):
        found |= named(members, rule.by, rule.wanted[n])
    return found


# --- members -> tunnel ---------------------------------------------------------------------------------

cdef inline uint32_t keep_or_draw(
    Chooser *chooser, const Members *members, uint32_t candidates, uint64_t flow, uint64_t prefix,
) noexcept nogil:
    """The tunnel of a flow that runs, while it is a candidate's; else the one that it draws among the candidates."""
    cdef uint64_t key = flow ^ prefix
    cdef uint64_t tick = chooser.now[0] >> pins.TICK_BITS
    cdef uint64_t place
    cdef uint32_t tunnel
    cdef Pin *pin = pins.find(chooser.pins, key, &place)
    if pin != NULL and pins.runs(chooser.pins, place, tick):
        tunnel = <uint32_t>place & pins.TUNNEL_MASK
        if is_of(members, candidates, tunnel):
            pins.renew(pin, place, tick)
            return tunnel
    tunnel = members.member[rendezvous(members, candidates, flow)].tunnel
    pins.note(chooser.pins, pin, key, tunnel, tick)
    return tunnel


cdef inline bint is_of(const Members *members, uint32_t candidates, uint32_t tunnel) noexcept nogil:
    """It is the tunnel of a candidate."""
    cdef uint32_t k
    for k in range(members.count):
        if members.member[k].tunnel == tunnel and candidates >> k & 1:  # several may have it
            return True
    return False


cdef inline uint64_t draw(uint64_t hash_) noexcept nogil:
    """-log2(hash / 2^64) * 2^32, at least 1: exponentially distributed when the hash is evenly so.

    log2 of the 8 bits behind the leading one from a table, the next 32 on a straight line between two entries.
    """
    cdef uint32_t zeros
    cdef uint64_t x, index
    hash_ |= 1
    zeros = 63 - <uint32_t>log2_floor(hash_)
    x = hash_ << zeros
    index = (x >> 55) & 0xFF
    return (<uint64_t>(zeros + 1) << 32) - LOG2[index] - (
        ((LOG2[index + 1] - LOG2[index]) * ((x >> 23) & 0xFFFFFFFFU)) >> 32)


cdef uint32_t rendezvous(const Members *members, uint32_t candidates, uint64_t flow) noexcept nogil:
    """The candidate whose draw / weight is least; of equal ones that with the lower BID.

    Draws are below 2^39 and weights below 2^16, so that crosswise products compare quotients without dividing.
    """
    cdef uint32_t k, best = 0
    cdef uint64_t drawn, best_drawn = <uint64_t>1 << 40, best_weight = 1
    cdef bint better
    if (candidates & (candidates - 1)) == 0:
        return <uint32_t>log2_floor(candidates)
    for k in range(members.count):
        if not candidates >> k & 1:
            continue
        # no branches: which of them is taken cannot be foretold
        drawn = draw(mix(flow ^ members.member[k].salt))
        better = drawn * best_weight < best_drawn * members.member[k].weight
        best = k if better else best
        best_drawn = drawn if better else best_drawn
        best_weight = members.member[k].weight if better else best_weight
    return best


cdef uint32_t next_in_turn(Schedules *schedules, const Members *members, uint32_t candidates) noexcept nogil:
    """Smooth weighted round robin: every candidate earns its weight, the richest pays the sum and goes."""
    cdef Schedule *schedule
    cdef uint32_t skipped
    schedules.clock += 1
    schedule = find_schedule(schedules, members.serial, candidates)
    if schedule.serial != members.serial or schedule.members != candidates:
        memset(schedule, 0, sizeof(Schedule))
        schedule.serial = members.serial
        schedule.members = candidates
        # not always at the beginning: where schedules push each other out, the heaviest would get everything
        for skipped in range(schedules.begun % PHASES):
            advance(schedule, members)
        schedules.begun += 1
    schedule.used = schedules.clock
    return advance(schedule, members)


cdef inline uint32_t advance(Schedule *schedule, const Members *members) noexcept nogil:
    cdef uint32_t k
    cdef uint32_t best = MOST_MEMBERS
    cdef int64_t total = 0
    for k in range(members.count):
        if not schedule.members >> k & 1:
            continue
        total += members.member[k].weight
        schedule.credit[k] += members.member[k].weight
        if best == MOST_MEMBERS or schedule.credit[k] > schedule.credit[best]:
            best = k
    schedule.credit[best] -= total
    return best


cdef Schedule *find_schedule(Schedules *schedules, uint64_t serial, uint32_t candidates) noexcept nogil:
    """That schedule, or the place for it: a free one, or that of the one asked for longest ago."""
    cdef Schedule *ways = &schedules.entries[
        (mix(serial << 16 | candidates) & (SCHEDULE_SETS - 1)) * SCHEDULE_WAYS]
    cdef Schedule *best = &ways[0]
    cdef uint32_t way
    for way in range(SCHEDULE_WAYS):
        if ways[way].serial == serial and ways[way].members == candidates:
            return &ways[way]
        if best.serial and (
                not ways[way].serial or schedules.clock - ways[way].used > schedules.clock - best.used):
            best = &ways[way]
    return best


# --- memory of a worker --------------------------------------------------------------------------------

cdef int create_decisions(Decisions *decisions) noexcept nogil:
    """Nothing remembered yet. -1: no memory."""
    cdef size_t octets = DECISION_SETS * DECISION_WAYS * sizeof(Decided)
    memset(decisions, 0, sizeof(Decisions))
    if posix_memalign(<void **>&decisions.lines, 64, octets) != 0:
        decisions.lines = NULL
        return -1
    memset(decisions.lines, 0, octets)
    return 0


cdef void destroy_decisions(Decisions *decisions) noexcept nogil:
    free(decisions.lines)
    decisions.lines = NULL


cdef int create_schedules(Schedules *schedules) noexcept nogil:
    """No schedule begun yet. -1: no memory."""
    memset(schedules, 0, sizeof(Schedules))
    schedules.entries = <Schedule *>calloc(SCHEDULE_SETS * SCHEDULE_WAYS, sizeof(Schedule))
    return 0 if schedules.entries != NULL else -1


cdef void destroy_schedules(Schedules *schedules) noexcept nogil:
    free(schedules.entries)
    schedules.entries = NULL


# --- for tests and benchmarks --------------------------------------------------------------------------

cdef enum:
    TRIAL_TUNNELS = 4096
    SECOND = 1000000000      # ns


cdef class Trial:
    """Flows, rules and spread of one worker by themselves: no prefixes, no ports, tunnels are bare numbers below 4096.

    engine.model.spread.Trial has the same methods. Not for use by several threads.
    """

    cdef Epochs epochs
    cdef Bundles bundles
    cdef Policies policies
    cdef Pins pins
    cdef uint64_t now
    cdef Fragments *fragments
    cdef Decisions decisions
    cdef Schedules schedules
    cdef Chooser chooser
    cdef Burst *burst
    cdef uint8_t states[TRIAL_TUNNELS]

    def __cinit__(self):
        self.fragments = <Fragments *>calloc(1, sizeof(Fragments))
        self.burst = bursts.allocate()
        if self.fragments == NULL or self.burst == NULL or epoch.create(&self.epochs) != 0:
            raise MemoryError
        if bundle.create(&self.bundles) != 0 or rules.create(&self.policies) != 0 or flows.create(self.fragments) != 0:
            raise MemoryError
        if create_decisions(&self.decisions) != 0 or create_schedules(&self.schedules) != 0:
            raise MemoryError
        if pins.create(&self.pins) != 0:
            raise MemoryError
        self.chooser.bundles = &self.bundles
        self.chooser.policies = &self.policies
        self.chooser.pins = &self.pins
        self.chooser.now = &self.now
        self.chooser.states = self.states
        self.chooser.stride = 1
        self.chooser.fragments = self.fragments
        self.chooser.decisions = &self.decisions
        self.chooser.schedules = &self.schedules

    def __dealloc__(self):
        destroy_decisions(&self.decisions)
        destroy_schedules(&self.schedules)
        pins.destroy(&self.pins)
        if self.fragments != NULL:
            flows.destroy(self.fragments)
            free(self.fragments)
        bursts.release(self.burst)
        epoch.destroy(&self.epochs)                       # before the slabs it gives entries back to
        bundle.destroy(&self.bundles)
        rules.destroy(&self.policies)

    def bundle(self, list rows, uint32_t index=0):
        """A new bundle, or other members for one. rows: (tunnel, BID, label, weight). Its index."""
        cdef Member members[MOST_MEMBERS]
        cdef uint32_t count = len(rows)
        cdef uint32_t k
        if count > MOST_MEMBERS:
            raise ValueError("too many members")
        memset(members, 0, sizeof(members))
        for k in range(count):
            members[k].tunnel, members[k].bid, members[k].label, members[k].weight = rows[k]
            if members[k].tunnel >= TRIAL_TUNNELS or members[k].weight == 0:
                raise ValueError("no such tunnel, or no weight")
        if index:
            if bundle.replace(&self.bundles, &self.epochs, index, members, count) != 0:
                raise MemoryError
            epoch.reclaim(&self.epochs)
            return index
        return bundle.acquire(&self.bundles, &self.epochs, members, count)

    def policy(self, list packed, uint32_t index=0):
        """A new policy, or other rules for one. packed: FlowRule.packed of each rule. Its index."""
        cdef uint32_t count = len(packed)
        cdef Rule *compiled = <Rule *>calloc(count + 1, sizeof(Rule))
        cdef bytes octets
        cdef uint32_t k
        if compiled == NULL:
            raise MemoryError
        try:
            for k in range(count):
                octets = packed[k]
                if len(octets) != RULE_OCTETS or rules.read_rule(&compiled[k], <const uint8_t *><char *>octets) != 0:
                    raise ValueError("not a packed rule")
            if index:
                if rules.replace(&self.policies, &self.epochs, index, compiled, count) != 0:
                    raise MemoryError
                epoch.reclaim(&self.epochs)
                return index
            return rules.acquire(&self.policies, &self.epochs, compiled, count)
        finally:
            free(compiled)

    def drop_bundle(self, uint32_t index):
        """One user less. True: it is gone."""
        cdef bint gone = bundle.release(&self.bundles, &self.epochs, index)
        epoch.reclaim(&self.epochs)
        return bool(gone)

    def drop_policy(self, uint32_t index):
        """One user less. True: it is gone."""
        cdef bint gone = rules.release(&self.policies, &self.epochs, index)
        epoch.reclaim(&self.epochs)
        return bool(gone)

    def counters(self, uint32_t policy):
        """The counters of its rules, in their order."""
        cdef const Rules *block = rules.rules_of(&self.policies, policy)
        return [block.rule[k].counter for k in range(block.count)]

    def set_state(self, uint32_t tunnel, uint8_t state):
        """UP 0, SUSPECT 1, DOWN 2."""
        self.states[tunnel % TRIAL_TUNNELS] = state

    def set_pause(self, uint64_t pause):
        """ns that a flow is silent before it may move."""
        pins.set_pause(&self.pins, pause)

    def identify(self, list packets, uint32_t clock=0):
        """(protocol, transport, ports, flow) of each, in bursts. Packets: bytes of at least a fixed header."""
        return self.walk(packets, clock, 0, 0, 0, False)

    def choose(self, list packets, uint8_t many, uint32_t target, uint32_t policy=0, uint64_t now=SECOND):
        """(reason to drop, tunnels, rule's counter, numbered by the bundle) of each. now: ns."""
        self.now = now
        return self.walk(packets, <uint32_t>(now // (SECOND // 10)), many, target, policy, True)

    def hits(self):
        """Decisions remembered, and those that had to be made."""
        return self.decisions.hits, self.decisions.misses

    cdef list walk(self, list packets, uint32_t clock, uint8_t many, uint32_t target, uint32_t policy, bint chosen):
        cdef Decision decision
        cdef uint8_t reason
        cdef uint8_t *copy
        cdef list answers = []
        cdef uint32_t size
        cdef bytes octets
        flows.tick(self.fragments, clock)
        for octets in packets:
            # in memory of exactly its size, so that a sanitizer sees every octet read behind it
            size = len(octets)
            copy = <uint8_t *>malloc(size if size else 1)
            if copy == NULL:
                raise MemoryError
            memcpy(copy, <char *>octets, size)
            load(self.burst, 0, copy, size)
            flows.identify(self.burst, 0, self.fragments)
            if chosen:
                reason = choose(&self.chooser, self.burst, 0, many, target, policy, target, &decision)
                answers.append((
                    reason, tuple([decision.tunnel[k] for k in range(decision.count)]) if reason == ALIVE else (),
                    decision.rule, bool(decision.sequenced)))
            else:
                answers.append((
                    self.burst.protocol[0], self.burst.transport[0], self.burst.ports[0], self.burst.flow[0]))
            free(copy)
        return answers

    def pace(self, list packets, uint32_t rounds, uint8_t many, uint32_t target, uint32_t policy=0):
        """Nanoseconds per packet of (identify, choose), going over up to 256 packets in rounds."""
        cdef uint8_t *octets = self.burst.arena
        cdef uint32_t count = min(len(packets), bursts.WIDTH)
        cdef uint32_t n, i
        cdef Decision decision
        cdef timespec times[3]
        cdef double spent[2]
        cdef uint64_t total = 0
        spent[0] = spent[1] = 0
        for i in range(count):
            memcpy(octets, <char *><bytes>packets[i], len(packets[i]))
            load(self.burst, i, octets, len(packets[i]))
            octets += len(packets[i])
        with nogil:
            for n in range(rounds):
                clock_gettime(CLOCK_MONOTONIC, &times[0])
                for i in range(count):
                    flows.identify(self.burst, i, self.fragments)
                clock_gettime(CLOCK_MONOTONIC, &times[1])
                for i in range(count):
                    total += choose(&self.chooser, self.burst, i, many, target, policy, target, &decision)
                    total += decision.tunnel[0]
                clock_gettime(CLOCK_MONOTONIC, &times[2])
                spent[0] += (times[1].tv_sec - times[0].tv_sec) * 1e9 + (times[1].tv_nsec - times[0].tv_nsec)
                spent[1] += (times[2].tv_sec - times[1].tv_sec) * 1e9 + (times[2].tv_nsec - times[1].tv_nsec)
        return spent[0] / rounds / count, spent[1] / rounds / count, total


cdef void load(Burst *burst, uint32_t i, uint8_t *octets, uint32_t size) noexcept nogil:
    """What parse does: family and addresses of a packet whose fixed header is whole."""
    burst.packet[i] = octets
    burst.length[i] = size
    burst.family[i] = 4 if size and octets[0] >> 4 == 4 else 6
    burst.source[i].high = burst.source[i].low = burst.destination[i].high = burst.destination[i].low = 0
    if burst.family[i] == 4 and size >= 20:
        burst.source[i] = load_address4(octets + 12)
        burst.destination[i] = load_address4(octets + 16)
    elif burst.family[i] == 6 and size >= 40:
        burst.source[i] = load_address(octets + 8)
        burst.destination[i] = load_address(octets + 24)
