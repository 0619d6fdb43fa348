"""Resequencing: see reorder.pxd for the shape and engine/model/reorder.py for the reasons."""

from libc.stdlib cimport calloc, free
from libc.string cimport memset

from engine._fast.kernel cimport (
    fetch_add32, load8_relaxed, pthread_mutex_destroy, pthread_mutex_init, pthread_mutex_lock, pthread_mutex_unlock,
    store32_relaxed, store8_relaxed,
)
from engine._fast.waiting cimport (
    MOST_QUEUES, NEVER, ORDINARY, SMALL, claim, copy, create_blocks, create_deadlines, destroy_blocks,
    destroy_deadlines, earliest, forget, give_back, look_at, next_due, octets, turn_of,
)

cdef extern from *:
    """
    #define OPENMAR_GONE ((void *)1)
    """
    void *GONE_PLACE "OPENMAR_GONE"


cdef inline Block *gone() noexcept nogil:
    return <Block *>GONE_PLACE


# --- groups come and go --------------------------------------------------------------------------------

cdef int create(Groups *groups, uint64_t store) noexcept nogil:
    cdef uint32_t i
    memset(groups, 0, sizeof(Groups))
    groups.groups = <Group *>calloc(MOST_GROUPS + 1, sizeof(Group))
    if groups.groups == NULL:
        return -1
    if create_deadlines(&groups.deadlines, MOST_GROUPS):
        free(groups.groups)
        groups.groups = NULL
        return -1
    if create_blocks(&groups.blocks, store):
        destroy_deadlines(&groups.deadlines)
        free(groups.groups)
        groups.groups = NULL
        return -1
    pthread_mutex_init(&groups.lock, NULL)
    for i in range(1, MOST_GROUPS):
        groups.groups[i].next_free = i + 1
    groups.free = 1
    return 0


cdef void destroy(Groups *groups) noexcept nogil:
    cdef uint32_t i
    for i in range(1, MOST_GROUPS + 1):
        if groups.groups[i].state != FREE:
            empty(groups, &groups.groups[i])
            give_back(&groups.blocks, groups.groups[i].taken)
        if groups.groups[i].made:
            pthread_mutex_destroy(&groups.groups[i].lock)
    destroy_blocks(&groups.blocks)
    destroy_deadlines(&groups.deadlines)
    pthread_mutex_destroy(&groups.lock)
    free(groups.groups)


cdef uint32_t open_group(Groups *groups, uint32_t packets, uint64_t octets, uint64_t limit) noexcept nogil:
    """packets: a power of two up to MOST_PACKETS, that may be early; limit: ns that each may wait."""
    cdef uint32_t index
    cdef Group *group
    cdef Block **slots
    cdef uint64_t *delivered
    if packets == 0 or packets > MOST_PACKETS or packets & (packets - 1):
        return 0
    slots = <Block **>calloc(packets, sizeof(Block *))
    delivered = <uint64_t *>calloc(<size_t>packets * HISTORY // 64, sizeof(uint64_t))
    pthread_mutex_lock(&groups.lock)
    index = groups.free if slots != NULL and delivered != NULL else 0
    if index:
        groups.free = groups.groups[index].next_free
    pthread_mutex_unlock(&groups.lock)
    if index == 0:
        free(slots)
        free(delivered)
        return 0
    group = &groups.groups[index]
    if not group.made:
        pthread_mutex_init(&group.lock, NULL)
        group.made = True
    pthread_mutex_lock(&group.lock)
    begin(group, slots, delivered, packets)
    group.octets_limit = octets
    group.limit = limit
    store8_relaxed(&group.state, OPEN)
    pthread_mutex_unlock(&group.lock)
    return index


cdef void begin(Group *group, Block **slots, uint64_t *delivered, uint32_t packets) noexcept nogil:
    group.synchronised = False
    group.owner = 0
    store32_relaxed(&group.more, 0)
    group.slots = slots
    group.filled = 0
    group.mask = packets - 1
    group.delivered = delivered
    group.history = packets * HISTORY
    group.oldest = group.newest = group.ready = group.ready_last = group.taken = NULL
    group.octets = 0
    group.listed = NEVER
    group.streak = 0
    memset(&group.counts, 0, sizeof(Counts))


cdef void close_group(Groups *groups, uint32_t index, Turn *turn) noexcept nogil:
    """What waits in it is thrown away and counted in turn.lost; what a worker has taken it may still send."""
    cdef Group *group = &groups.groups[index]
    pthread_mutex_lock(&group.lock)
    if group.state == OPEN:
        turn.lost += empty(groups, group)
        forget(&groups.deadlines, index)
        if group.owner:
            store8_relaxed(&group.state, CLOSING)
        else:
            set_free(groups, index)
    pthread_mutex_unlock(&group.lock)


cdef uint64_t empty(Groups *groups, Group *group) noexcept nogil:
    """Throw away all that waits, and the tables. Packets thrown away."""
    cdef uint64_t packets = 0
    cdef Block *block = group.oldest
    while block != NULL:
        packets += 1
        block = block.next
    block = group.ready
    while block != NULL:
        packets += 1
        block = block.next
    give_back(&groups.blocks, group.oldest)
    give_back(&groups.blocks, group.ready)
    group.oldest = group.newest = group.ready = group.ready_last = NULL
    store32_relaxed(&group.more, 0)
    free(group.slots)
    free(group.delivered)
    group.slots = NULL
    group.delivered = NULL
    return packets


cdef void set_free(Groups *groups, uint32_t index) noexcept nogil:
    store8_relaxed(&groups.groups[index].state, FREE)
    pthread_mutex_lock(&groups.lock)
    groups.groups[index].next_free = groups.free
    groups.free = index
    pthread_mutex_unlock(&groups.lock)


cdef void read_counts(Groups *groups, uint32_t index, Counts *counts) noexcept nogil:
    """Of a group that is or was open."""
    cdef Group *group = &groups.groups[index]
    pthread_mutex_lock(&group.lock)
    counts[0] = group.counts
    pthread_mutex_unlock(&group.lock)


# --- a packet comes ------------------------------------------------------------------------------------

cdef uint8_t offer(
    Groups *groups, uint32_t index, Turn *turn, uint32_t sequence,
    const uint8_t *packet, uint32_t length, const Aside *aside, uint64_t now,
) noexcept nogil:
    """DELIVER, KEPT, ... ; group 0 or one that was closed: DELIVER."""
    cdef Group *group = &groups.groups[index]
    cdef Arrival arrival
    cdef uint8_t answer = DELIVER
    if index == 0 or load8_relaxed(&group.state) == FREE:
        return DELIVER
    arrival.sequence = sequence
    arrival.packet = packet
    arrival.length = length
    arrival.aside = aside
    arrival.now = now
    pthread_mutex_lock(&group.lock)
    if group.state == OPEN:
        arrival.mine = claim(&group.owner, index, turn)
        answer = judge(groups, group, &arrival)
        note_deadline(groups, group, index)
    pthread_mutex_unlock(&group.lock)
    return answer


cdef struct Arrival:
    const uint8_t *packet
    const Aside *aside
    uint64_t now
    uint32_t sequence
    uint32_t length
    bint mine                # its worker owns the group


cdef inline uint8_t judge(Groups *groups, Group *group, const Arrival *arrival) noexcept nogil:
    cdef uint32_t ahead
    if not group.synchronised:
        group.synchronised = True
        group.expected = arrival.sequence
        group.last_new = group.last_first = arrival.now
    expire(group, arrival.now)
    ahead = arrival.sequence - group.expected
    if ahead < 2 * (group.mask + 1):
        return forward(groups, group, arrival)
    if <uint32_t>(0 - ahead) <= group.history:
        return behind(groups, group, arrival)
    return far(groups, group, arrival)


cdef uint8_t forward(Groups *groups, Group *group, const Arrival *arrival) noexcept nogil:
    cdef uint32_t sequence = arrival.sequence
    group.streak = 0
    if <uint32_t>(sequence - group.expected) > group.mask:
        give_up_to(group, sequence - group.mask)
        run(group)
    if group.slots[sequence & group.mask] != NULL:
        group.counts.twins += 1
        return TWIN
    group.last_new = arrival.now
    if sequence < FIRST:
        group.last_first = arrival.now
    make_room(group, sequence, arrival.length)
    if sequence == group.expected:
        return in_order(groups, group, arrival)
    return keep(groups, group, arrival)


cdef inline uint8_t in_order(Groups *groups, Group *group, const Arrival *arrival) noexcept nogil:
    cdef uint8_t answer = DELIVER
    cdef Block *block
    mark(group, group.expected)
    group.expected += 1
    group.counts.in_order += 1
    if group.ready != NULL or not arrival.mine:
        # what is ready goes first, and what another worker has taken is not sent yet
        block = copied(groups, arrival)
        if block != NULL:
            make_ready(group, block)
            answer = KEPT
        else:
            group.counts.full += 1
            answer = FULL
    run(group)
    return answer


cdef uint8_t keep(Groups *groups, Group *group, const Arrival *arrival) noexcept nogil:
    cdef Block *block = copied(groups, arrival)
    group.filled += 1
    if block == NULL:
        group.slots[arrival.sequence & group.mask] = gone()
        group.counts.full += 1
        return FULL
    group.slots[arrival.sequence & group.mask] = block
    block.previous = group.newest
    if group.newest == NULL:
        group.oldest = block
    else:
        group.newest.next = block
    group.newest = block
    group.octets += block.length
    group.counts.early += 1
    return KEPT


cdef uint8_t behind(Groups *groups, Group *group, const Arrival *arrival) noexcept nogil:
    if (quiet(group.last_new, arrival.now)
            or (arrival.sequence < FIRST and quiet(group.last_first, arrival.now))):
        return believe(groups, group, arrival)
    group.streak = 0
    if marked(group, arrival.sequence):
        group.counts.twins += 1
        return TWIN
    mark(group, arrival.sequence)
    group.counts.late += 1
    return LATE


cdef uint8_t far(Groups *groups, Group *group, const Arrival *arrival) noexcept nogil:
    cdef uint32_t off = arrival.sequence - group.stray
    cdef uint32_t back = 0 - off
    if quiet(group.last_new, arrival.now):
        return believe(groups, group, arrival)
    if group.streak == 0 or (off >= STRAYS and back >= STRAYS):
        group.streak = 1
        group.stray = arrival.sequence
        group.strays_seen = 1
    elif back < STRAYS and (group.strays_seen >> back) & 1:
        group.counts.twins += 1
        return TWIN
    else:
        group.streak += 1
        if back < STRAYS:
            group.strays_seen |= <uint64_t>1 << back
        else:
            group.strays_seen = group.strays_seen << off | 1
            group.stray = arrival.sequence
    group.counts.strays += 1
    if group.streak == RESTART:
        move(group, group.stray + 1, arrival.now)
        for back in range(STRAYS):
            if (group.strays_seen >> back) & 1:
                mark(group, group.stray - back)
    return STRAY


cdef inline bint quiet(uint64_t since, uint64_t now) noexcept nogil:
    return now > since and now - since >= QUIET  # another worker's clock may be read a little later


cdef Block *copied(Groups *groups, const Arrival *arrival) noexcept nogil:
    cdef Block *block = copy(&groups.blocks, arrival.packet, arrival.length, arrival.aside)
    if block != NULL:
        block.sequence = arrival.sequence
        block.arrived = arrival.now
    return block


# --- where we are in the numbers -----------------------------------------------------------------------

cdef inline bint marked(const Group *group, uint32_t sequence) noexcept nogil:
    cdef uint32_t bit = sequence & (group.history - 1)
    return (group.delivered[bit >> 6] >> (bit & 63)) & 1


cdef inline void mark(Group *group, uint32_t sequence) noexcept nogil:
    cdef uint32_t bit = sequence & (group.history - 1)
    group.delivered[bit >> 6] |= <uint64_t>1 << (bit & 63)


cdef inline void unmark(Group *group, uint32_t sequence) noexcept nogil:
    cdef uint32_t bit = sequence & (group.history - 1)
    group.delivered[bit >> 6] &= ~(<uint64_t>1 << (bit & 63))


cdef uint8_t believe(Groups *groups, Group *group, const Arrival *arrival) noexcept nogil:
    move(group, arrival.sequence, arrival.now)
    return forward(groups, group, arrival)


cdef void move(Group *group, uint32_t expected, uint64_t now) noexcept nogil:
    """Go on from another number. Forward within the history keeps the history: twins are still known."""
    while group.filled:
        step(group)
    if <uint32_t>(expected - group.expected) >= group.history:
        memset(group.delivered, 0, group.history // 8)
        group.expected = expected
    while group.expected != expected:
        if group.expected & 63 == 0 and <uint32_t>(expected - group.expected) >= 64:
            group.delivered[(group.expected & (group.history - 1)) >> 6] = 0
            group.expected += 64
        else:
            unmark(group, group.expected)
            group.expected += 1
    group.streak = 0
    group.last_new = group.last_first = now
    group.counts.resynchronised += 1


cdef void step(Group *group) noexcept nogil:
    """Past the expected number, whether its packet is here or not."""
    cdef uint32_t at = group.expected & group.mask
    cdef Block *block = group.slots[at]
    if block == NULL:
        unmark(group, group.expected)
        group.counts.given_up += 1
    else:
        mark(group, group.expected)
        group.slots[at] = NULL
        group.filled -= 1
        if block != gone():
            unlink(group, block)
            make_ready(group, block)
    group.expected += 1


cdef void unlink(Group *group, Block *block) noexcept nogil:
    if block.previous == NULL:
        group.oldest = block.next
    else:
        block.previous.next = block.next
    if block.next == NULL:
        group.newest = block.previous
    else:
        block.next.previous = block.previous
    group.octets -= block.length


cdef void make_ready(Group *group, Block *block) noexcept nogil:
    block.next = NULL
    if group.ready == NULL:
        group.ready = block
    else:
        group.ready_last.next = block
    group.ready_last = block
    store32_relaxed(&group.more, 1)


cdef inline void give_up_to(Group *group, uint32_t sequence) noexcept nogil:
    while group.expected != sequence:
        step(group)


cdef inline void run(Group *group) noexcept nogil:
    while group.slots[group.expected & group.mask] != NULL:
        step(group)


cdef inline void make_room(Group *group, uint32_t sequence, uint32_t length) noexcept nogil:
    """Give up gaps, nearest first, until this packet may be kept; or until it is the expected one."""
    if group.limit == 0:
        give_up_to(group, sequence)
    while group.expected != sequence and group.octets + length > group.octets_limit:
        while group.expected != sequence and group.slots[group.expected & group.mask] == NULL:
            step(group)
        while group.expected != sequence and group.slots[group.expected & group.mask] != NULL:
            step(group)


cdef inline void expire(Group *group, uint64_t now) noexcept nogil:
    while group.oldest != NULL and group.oldest.arrived + group.limit <= now:
        give_up_to(group, group.oldest.sequence)
        run(group)


# --- delivering ----------------------------------------------------------------------------------------

cdef Block *take(Groups *groups, uint32_t index, Turn *turn) noexcept nogil:
    """The next packet in order; NULL: none, or another worker delivers."""
    cdef Group *group = &groups.groups[index]
    cdef Block *block = NULL
    if index == 0 or load8_relaxed(&group.state) == FREE:
        return NULL
    pthread_mutex_lock(&group.lock)
    if group.state == OPEN and group.ready != NULL and claim(&group.owner, index, turn):
        block = group.ready
        group.ready = block.next
        store32_relaxed(&group.more, group.ready != NULL)
        block.next = group.taken
        group.taken = block
    pthread_mutex_unlock(&group.lock)
    return block


cdef void leave(Groups *groups, Turn *turn) noexcept nogil:
    """All that was taken is sent: forget it, and let others deliver."""
    cdef uint32_t i
    for i in range(turn.count):
        leave_one(groups, turn.queue[i])
    turn.count = 0


cdef void leave_one(Groups *groups, uint32_t index) noexcept nogil:
    cdef Group *group = &groups.groups[index]
    pthread_mutex_lock(&group.lock)
    give_back(&groups.blocks, group.taken)
    group.taken = NULL
    group.owner = 0
    if group.state == CLOSING:
        set_free(groups, index)
    else:
        note_deadline(groups, group, index)
    pthread_mutex_unlock(&group.lock)


cdef uint32_t due(Groups *groups, Turn *turn, uint64_t now) noexcept nogil:
    """The next group that has something to take; 0: none, or the turn is full."""
    cdef uint32_t index
    if turn.count == MOST_QUEUES:
        return 0
    index = next_due(&groups.deadlines, now)
    while index:
        if look(groups, &groups.groups[index], index, now):
            return index
        index = next_due(&groups.deadlines, now)
    return 0


cdef bint look(Groups *groups, Group *group, uint32_t index, uint64_t now) noexcept nogil:
    cdef bint found = False
    pthread_mutex_lock(&group.lock)
    if group.state == OPEN:
        group.listed = NEVER
        expire(group, now)
        found = group.ready != NULL and group.owner == 0  # an owner looks itself, at the latest when it leaves
        if not found:
            note_deadline(groups, group, index)
    pthread_mutex_unlock(&group.lock)
    return found


cdef inline void note_deadline(Groups *groups, Group *group, uint32_t index) noexcept nogil:
    """Have somebody look at the group in time. An earlier look than needed costs little and changes nothing."""
    cdef uint64_t when
    if group.ready != NULL and group.owner == 0:
        when = 0
    elif group.oldest != NULL:
        when = group.oldest.arrived + group.limit
    else:
        return
    if when < group.listed:
        group.listed = when
        look_at(&groups.deadlines, index, when)


# --- for the tests -------------------------------------------------------------------------------------

cdef enum:
    LOG = 1 << 17            # packets


cdef class Reorder:
    """One group, with the methods of engine.model.reorder.Reorder. For the tests: the path calls the functions."""

    cdef Groups groups
    cdef uint32_t index
    cdef dict turns
    cdef uint32_t number
    cdef uint32_t logged
    cdef uint32_t log[LOG]

    def __cinit__(self, *, uint32_t packets=1024, uint64_t octets=4 << 20, uint64_t limit=50000000,
                  uint64_t store=64 << 20):
        self.turns = {}
        if create(&self.groups, store):
            raise MemoryError
        self.index = open_group(&self.groups, packets, octets, limit)
        if self.index == 0:
            raise MemoryError

    def __dealloc__(self):
        if self.groups.groups != NULL:
            destroy(&self.groups)

    def offer(self, uint32_t worker, uint32_t sequence, bytes packet not None, uint64_t now):
        cdef Turn *turn = turn_of(self.turns, worker)
        return offer(&self.groups, self.index, turn, sequence, <const uint8_t *><const char *>packet,
                     <uint32_t>len(packet), NULL, now)

    def take(self, uint32_t worker):
        cdef Turn *turn = turn_of(self.turns, worker)
        cdef Block *block = take(&self.groups, self.index, turn)
        return None if block == NULL else (<const char *>octets(block))[:block.length]

    def leave(self, uint32_t worker):
        cdef Turn *turn = turn_of(self.turns, worker)
        leave(&self.groups, turn)
        return more(&self.groups, self.index) != 0

    def expire(self, uint64_t now):
        cdef Turn *turn = turn_of(self.turns, 0xFFFE)
        due(&self.groups, turn, now)
        return more(&self.groups, self.index) != 0

    def close(self):
        cdef Turn *turn = turn_of(self.turns, 0xFFFF)
        close_group(&self.groups, self.index, turn)
        return turn.lost

    def reopen(self, uint32_t packets):
        """The index of another group."""
        return open_group(&self.groups, packets, 1 << 20, 50000000)

    def work(self, uint32_t worker, uint32_t packets, uint32_t burst):
        """As a worker without the GIL: take that many numbers in turn with others, offer them, log what is delivered.

        Packets that were delivered out of order, and are not in the log.
        """
        cdef Turn *turn = turn_of(self.turns, worker)
        cdef uint32_t i, number, unordered = 0
        cdef uint8_t answer
        with nogil:
            for i in range(packets):
                number = fetch_add32(&self.number, 1)
                answer = offer(&self.groups, self.index, turn, number, <const uint8_t *>&number, 4, NULL, 0)
                if answer == DELIVER:
                    self.log[fetch_add32(&self.logged, 1)] = number
                elif answer != KEPT:
                    unordered += 1
                if i % burst == 0:
                    self.deliver(turn)
            self.deliver(turn)
        return unordered

    cdef void deliver(self, Turn *turn) noexcept nogil:
        cdef Block *block = take(&self.groups, self.index, turn)
        while block != NULL:
            self.log[fetch_add32(&self.logged, 1)] = block.sequence
            block = take(&self.groups, self.index, turn)
        leave(&self.groups, turn)

    @property
    def delivered(self):
        return [self.log[i] for i in range(self.logged)]

    @property
    def deadline(self):
        cdef uint64_t when = earliest(&self.groups.deadlines)
        return None if when == NEVER else when

    @property
    def row(self):
        cdef Counts counts
        read_counts(&self.groups, self.index, &counts)
        return (counts.in_order, counts.early, counts.late, counts.twins, counts.given_up, counts.resynchronised,
                counts.strays, counts.full)

    @property
    def allocated(self):
        """Octets of copies that exist, spare ones not counted."""
        cdef Blocks *blocks = &self.groups.blocks
        return blocks.octets - blocks.spares[0] * <uint64_t>SMALL - blocks.spares[1] * <uint64_t>ORDINARY
