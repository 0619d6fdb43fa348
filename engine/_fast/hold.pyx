"""Holding and letting go: see hold.pxd for the shape and engine/model/hold.py for the reasons."""

from libc.stdlib cimport calloc, free
from libc.string cimport memset

from engine._fast.kernel cimport (
    fetch_add32, load32_acquire, load8_relaxed, pthread_mutex_destroy, pthread_mutex_init, pthread_mutex_lock,
    pthread_mutex_unlock, sched_yield, store32_release, store8_relaxed,
)
from engine._fast.waiting cimport (
    MOST_QUEUES, NEVER, ORDINARY, SMALL, Turns, claim, copy, create_blocks, create_deadlines, destroy_blocks,
    destroy_deadlines, earliest, forget, give_back, look_at, next_due, octets, turn_of,
)

cdef enum:
    SECOND = 1000000000      # ns


# --- holds come and go ---------------------------------------------------------------------------------

cdef int create(Holds *holds, uint64_t store) noexcept nogil:
    memset(holds, 0, sizeof(Holds))
    holds.holds = <Hold *>calloc(MOST_HOLDS + 1, sizeof(Hold))  # pages are touched only as holds are used
    if holds.holds == NULL:
        return -1
    if create_deadlines(&holds.deadlines, MOST_HOLDS):
        free(holds.holds)
        holds.holds = NULL
        return -1
    if create_blocks(&holds.blocks, store):
        destroy_deadlines(&holds.deadlines)
        free(holds.holds)
        holds.holds = NULL
        return -1
    pthread_mutex_init(&holds.lock, NULL)
    holds.fresh = 1
    return 0


cdef void destroy(Holds *holds) noexcept nogil:
    cdef uint32_t i
    for i in range(1, holds.fresh):
        give_back(&holds.blocks, holds.holds[i].first)
        give_back(&holds.blocks, holds.holds[i].taken)
        if holds.holds[i].made:
            pthread_mutex_destroy(&holds.holds[i].lock)
    destroy_blocks(&holds.blocks)
    destroy_deadlines(&holds.deadlines)
    pthread_mutex_destroy(&holds.lock)
    free(holds.holds)


cdef uint32_t begin(Holds *holds, uint32_t packets, uint64_t octets, uint64_t limit) noexcept nogil:
    """limit: ns that each packet may wait."""
    cdef uint32_t index = get_free(holds)
    cdef Hold *hold = &holds.holds[index]
    if index == 0:
        return 0
    if not hold.made:
        pthread_mutex_init(&hold.lock, NULL)
        hold.made = True
    pthread_mutex_lock(&hold.lock)
    hold.owner = hold.packets = 0
    hold.octets = hold.pace = hold.released = hold.next = 0
    hold.packets_limit = packets
    hold.octets_limit = octets
    hold.limit = limit
    hold.listed = NEVER
    hold.first = hold.last = hold.older = hold.taken = NULL
    memset(&hold.counts, 0, sizeof(Counts))
    store8_relaxed(&hold.phase, HOLDING)
    pthread_mutex_unlock(&hold.lock)
    return index


cdef uint32_t get_free(Holds *holds) noexcept nogil:
    cdef uint32_t index
    pthread_mutex_lock(&holds.lock)
    index = holds.free
    if index:
        holds.free = holds.holds[index].next_free
    elif holds.fresh <= MOST_HOLDS:
        index = holds.fresh
        holds.fresh += 1
    pthread_mutex_unlock(&holds.lock)
    return index


cdef void set_free(Holds *holds, uint32_t index) noexcept nogil:
    store8_relaxed(&holds.holds[index].phase, FREE)
    pthread_mutex_lock(&holds.lock)
    holds.holds[index].next_free = holds.free
    holds.free = index
    pthread_mutex_unlock(&holds.lock)


cdef void end(Holds *holds, uint32_t index, Turn *turn) noexcept nogil:
    """What waits is thrown away and counted in turn.lost; what a worker has taken it may still send."""
    cdef Hold *hold = &holds.holds[index]
    cdef Block *block
    pthread_mutex_lock(&hold.lock)
    if hold.phase != FREE and hold.phase != CLOSING:
        block = hold.first
        while block != NULL:
            turn.lost += pieces(block)
            block = block.next
        give_back(&holds.blocks, hold.first)
        hold.first = hold.last = hold.older = NULL
        hold.packets = 0
        hold.octets = 0
        forget(&holds.deadlines, index)
        if hold.owner:
            store8_relaxed(&hold.phase, CLOSING)
        else:
            set_free(holds, index)
    pthread_mutex_unlock(&hold.lock)


cdef void release(Holds *holds, uint32_t index, uint64_t pace, uint64_t now) noexcept nogil:
    """The node is back: let what is held go, at pace octets per second (0: no pace)."""
    cdef Hold *hold = &holds.holds[index]
    pthread_mutex_lock(&hold.lock)
    if hold.phase == HOLDING:
        store8_relaxed(&hold.phase, DRAINING)
        hold.next = hold.released = now
    hold.pace = pace
    note_deadline(holds, hold, index)
    pthread_mutex_unlock(&hold.lock)


cdef void hold_again(Holds *holds, uint32_t index) noexcept nogil:
    """The node is away again; what was not sent stays in front."""
    cdef Hold *hold = &holds.holds[index]
    pthread_mutex_lock(&hold.lock)
    if hold.phase == DRAINING or hold.phase == EMPTY:
        store8_relaxed(&hold.phase, HOLDING)
        note_deadline(holds, hold, index)
    pthread_mutex_unlock(&hold.lock)


cdef Block *take_out(Holds *holds, uint32_t index) noexcept nogil:
    """All that waits, oldest first, for whoever gives it back; the hold goes on, empty."""
    cdef Hold *hold = &holds.holds[index]
    cdef Block *chain
    pthread_mutex_lock(&hold.lock)
    chain = hold.first
    hold.first = hold.last = hold.older = NULL
    hold.packets = 0
    hold.octets = 0
    settle(hold)
    pthread_mutex_unlock(&hold.lock)
    return chain


cdef uint8_t read_counts(Holds *holds, uint32_t index, Counts *counts) noexcept nogil:
    """Of a hold that is or was in use."""
    cdef Hold *hold = &holds.holds[index]
    cdef uint8_t phase
    pthread_mutex_lock(&hold.lock)
    counts[0] = hold.counts
    phase = hold.phase
    pthread_mutex_unlock(&hold.lock)
    return phase


# --- a packet comes ------------------------------------------------------------------------------------

cdef uint8_t put(
    Holds *holds, uint32_t index, Turn *turn,
    const uint8_t *packet, uint32_t length, const Aside *aside, uint64_t now, bint older,
) noexcept nogil:
    """DIRECT, KEPT or FULL; hold 0 or one that ended: DIRECT."""
    cdef Hold *hold = &holds.holds[index]
    cdef uint8_t verdict = DIRECT
    if index == 0 or passes(load8_relaxed(&hold.phase)):
        return DIRECT
    pthread_mutex_lock(&hold.lock)
    if not passes(hold.phase):
        expire(holds, hold, turn, now)
        verdict = append(holds, hold, packet, length, aside, now, older)
        note_deadline(holds, hold, index)
    pthread_mutex_unlock(&hold.lock)
    return verdict


cdef inline bint passes(uint8_t phase) noexcept nogil:
    return phase == EMPTY or phase == FREE or phase == CLOSING


cdef inline uint8_t append(
    Holds *holds, Hold *hold, const uint8_t *packet, uint32_t length, const Aside *aside, uint64_t now, bint older,
) noexcept nogil:
    cdef Block *block = NULL
    if hold.packets < hold.packets_limit and hold.octets + length <= hold.octets_limit:
        block = copy(&holds.blocks, packet, length, aside)
    if block == NULL:
        hold.counts.full += 1
        return FULL
    block.arrived = now
    enqueue(hold, block, hold.older if older else hold.last)
    if older:
        hold.older = block
        if block.next != NULL:
            block.arrived = block.next.arrived            # who waits longest is in front
    hold.packets += 1
    hold.octets += length
    hold.counts.kept += 1
    return KEPT


cdef inline void enqueue(Hold *hold, Block *block, Block *after) noexcept nogil:
    """after: NULL is in front."""
    cdef Block **place = &hold.first if after == NULL else &after.next
    block.next = place[0]
    place[0] = block
    if block.next == NULL:
        hold.last = block


cdef inline Block *pop(Hold *hold) noexcept nogil:
    cdef Block *block = hold.first
    hold.first = block.next
    block.next = NULL
    if hold.older == block:
        hold.older = NULL
    if hold.first == NULL:
        hold.last = NULL
    hold.packets -= 1
    hold.octets -= block.length
    return block


cdef inline uint32_t pieces(const Block *block) noexcept nogil:
    """Packets on the wire that it stands for."""
    return block.aside.pieces if block.aside.pieces != 0 else 1


cdef void expire(Holds *holds, Hold *hold, Turn *turn, uint64_t now) noexcept nogil:
    """Throw away what waited too long."""
    cdef Block *block
    while hold.first != NULL and hold.first.arrived + hold.limit <= now:
        block = pop(hold)
        turn.lost += pieces(block)
        hold.counts.expired += 1
        give_back(&holds.blocks, block)


# --- letting go ----------------------------------------------------------------------------------------

cdef inline void settle(Hold *hold) noexcept nogil:
    # while a worker holds the last packets unsent, a new one must not overtake them
    if hold.phase == DRAINING and hold.first == NULL and hold.owner == 0:
        store8_relaxed(&hold.phase, EMPTY)


cdef uint32_t due(Holds *holds, Turn *turn, uint64_t now) noexcept nogil:
    """The next hold that has something to send now; 0: none, or the turn is full. Throws away what waited too long."""
    cdef uint32_t index
    if turn.count == MOST_QUEUES:
        return 0
    index = next_due(&holds.deadlines, now)
    while index:
        if look(holds, &holds.holds[index], index, turn, now):
            return index
        index = next_due(&holds.deadlines, now)
    return 0


cdef bint look(Holds *holds, Hold *hold, uint32_t index, Turn *turn, uint64_t now) noexcept nogil:
    cdef bint found = False
    pthread_mutex_lock(&hold.lock)
    hold.listed = NEVER
    if not passes(hold.phase) and hold.owner == 0:  # an owner comes back to it when it leaves
        expire(holds, hold, turn, now)
        settle(hold)
        found = hold.phase == DRAINING and hold.first != NULL and hold.next <= now
        if not found:
            note_deadline(holds, hold, index)
    pthread_mutex_unlock(&hold.lock)
    return found


cdef Block *take(Holds *holds, uint32_t index, Turn *turn, uint64_t now) noexcept nogil:
    """The next packet; NULL: none may go now, or another worker drains."""
    cdef Hold *hold = &holds.holds[index]
    cdef Block *block = NULL
    if index == 0 or load8_relaxed(&hold.phase) != DRAINING:
        return NULL
    pthread_mutex_lock(&hold.lock)
    if hold.phase == DRAINING:
        expire(holds, hold, turn, now)
        if hold.first != NULL and hold.next <= now and claim(&hold.owner, index, turn):
            block = pop(hold)
            block.next = hold.taken
            hold.taken = block
            hold.counts.sent += 1
            pay(hold, block.length, now)
        note_deadline(holds, hold, index)
    pthread_mutex_unlock(&hold.lock)
    return block


cdef bint put_back(Holds *holds, uint32_t index, uint32_t count) noexcept nogil:
    """The last so many that its owner has taken in this turn wait again, in front."""
    cdef Hold *hold = &holds.holds[index]
    cdef Block *block
    cdef bint open = False
    pthread_mutex_lock(&hold.lock)
    if hold.phase == HOLDING or hold.phase == DRAINING:
        open = True
        while count and hold.taken != NULL:
            block = hold.taken
            hold.taken = block.next
            enqueue(hold, block, NULL)
            hold.packets += 1
            hold.octets += block.length
            hold.counts.sent -= 1
            count -= 1
    pthread_mutex_unlock(&hold.lock)
    return open


cdef inline void pay(Hold *hold, uint32_t length, uint64_t now) noexcept nogil:
    cdef uint64_t since = now - BURST if now > BURST else 0
    cdef uint64_t eased = (now - hold.released) // EASE if now > hold.released else 0
    if hold.pace == 0:
        return
    if hold.next < since:
        hold.next = since
    hold.next += length * <uint64_t>SECOND // (hold.pace << (eased if eased < MOST_EASED else MOST_EASED))


cdef void leave(Holds *holds, Turn *turn) noexcept nogil:
    """All that was taken is sent: forget it, and let others drain."""
    cdef uint32_t i
    for i in range(turn.count):
        leave_one(holds, turn.queue[i])
    turn.count = 0


cdef void leave_one(Holds *holds, uint32_t index) noexcept nogil:
    cdef Hold *hold = &holds.holds[index]
    pthread_mutex_lock(&hold.lock)
    give_back(&holds.blocks, hold.taken)
    hold.taken = NULL
    hold.owner = 0
    if hold.phase == CLOSING:
        set_free(holds, index)
    else:
        note_deadline(holds, hold, index)
    pthread_mutex_unlock(&hold.lock)


cdef void note_deadline(Holds *holds, Hold *hold, uint32_t index) noexcept nogil:
    """After every change: is it drained? Else have somebody look at it in time; a worker that drains it looks itself."""
    cdef uint64_t when
    settle(hold)
    if hold.first == NULL or hold.owner:
        return
    when = hold.first.arrived + hold.limit
    if hold.phase == DRAINING and hold.next < when:
        when = hold.next
    if when < hold.listed:
        hold.listed = when
        look_at(&holds.deadlines, index, when)


# --- for the tests -------------------------------------------------------------------------------------

cdef enum:
    LOG = 1 << 17            # packets


cdef class Holding:
    """One hold, with the methods of engine.model.hold.Hold. For the tests: the path calls the functions."""

    cdef Holds holds
    cdef uint32_t index
    cdef dict turns
    cdef uint32_t finished   # atomic
    cdef uint32_t logged
    cdef uint32_t log[LOG]

    def __cinit__(self, *, uint32_t packets=1024, uint64_t octets=1 << 20, uint64_t limit=2000000000,
                  uint64_t store=64 << 20):
        self.turns = {}
        if create(&self.holds, store):
            raise MemoryError
        self.index = begin(&self.holds, packets, octets, limit)

    def __dealloc__(self):
        if self.holds.holds != NULL:
            destroy(&self.holds)

    def put(self, bytes packet not None, uint64_t now, *, bint older=False):
        cdef Turn *turn = turn_of(self.turns, 0xFFFF)
        return put(&self.holds, self.index, turn, <const uint8_t *><const char *>packet,
                   <uint32_t>len(packet), NULL, now, older)

    def take(self, uint32_t worker, uint64_t now):
        cdef Turn *turn = turn_of(self.turns, worker)
        cdef Block *block = take(&self.holds, self.index, turn, now)
        return None if block == NULL else (<const char *>octets(block))[:block.length]

    def leave(self, uint32_t worker):
        cdef Turn *turn = turn_of(self.turns, worker)
        leave(&self.holds, turn)

    def expire(self, uint64_t now):
        cdef Turn *turn = turn_of(self.turns, 0xFFFF)
        return due(&self.holds, turn, now) == self.index

    def release(self, uint64_t pace, uint64_t now):
        release(&self.holds, self.index, pace, now)

    def hold(self):
        hold_again(&self.holds, self.index)

    def end(self):
        cdef Turn *turn = turn_of(self.turns, 0xFFFE)
        end(&self.holds, self.index, turn)
        return turn.lost

    def another(self):
        """The index of another hold."""
        return begin(&self.holds, 16, 1 << 20, 2000000000)

    def feed(self, uint32_t packets):
        """As a worker without the GIL: put packets, log those that go directly. Packets that were dropped."""
        cdef Turn *turn = turn_of(self.turns, 0xFFFF)
        cdef uint32_t number, dropped = 0
        cdef uint8_t verdict
        with nogil:
            for number in range(packets):
                verdict = put(&self.holds, self.index, turn, <const uint8_t *>&number, 4, NULL, 0, False)
                if verdict == DIRECT:
                    self.log[fetch_add32(&self.logged, 1)] = number
                elif verdict == FULL:
                    dropped += 1
        return dropped

    def finish(self):
        """Nothing more comes, and nothing is held any more."""
        store32_release(&self.finished, 1)

    def drain(self, uint32_t worker, uint32_t burst):
        """As a worker without the GIL: log what is released, until it is finished and nothing waits."""
        cdef Turn *turn = turn_of(self.turns, worker)
        cdef Block *block
        cdef uint32_t i
        with nogil:
            while load32_acquire(&self.finished) == 0 or earliest(&self.holds.deadlines) != NEVER:
                if due(&self.holds, turn, 0):
                    for i in range(burst):
                        block = take(&self.holds, self.index, turn, 0)
                        if block == NULL:
                            break
                        self.log[fetch_add32(&self.logged, 1)] = (<uint32_t *>octets(block))[0]
                    leave(&self.holds, turn)
                else:
                    sched_yield()

    @property
    def delivered(self):
        return [self.log[i] for i in range(self.logged)]

    @property
    def deadline(self):
        cdef uint64_t when = earliest(&self.holds.deadlines)
        return None if when == NEVER else when

    @property
    def phase(self):
        cdef Counts counts
        return read_counts(&self.holds, self.index, &counts)

    @property
    def row(self):
        cdef Counts counts
        read_counts(&self.holds, self.index, &counts)
        return counts.kept, counts.sent, counts.full, counts.expired

    @property
    def lost(self):
        """Packets thrown away in the turn of the worker that puts and expires, or in those that take."""
        cdef Turns turns
        cdef uint64_t lost = 0
        for turns in self.turns.values():
            lost += turns.turn.lost
        return lost

    @property
    def allocated(self):
        """Octets of copies that exist, spare ones not counted."""
        cdef Blocks *blocks = &self.holds.blocks
        return blocks.octets - blocks.spares[0] * <uint64_t>SMALL - blocks.spares[1] * <uint64_t>ORDINARY
