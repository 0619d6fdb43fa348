"""TCP connections of prefixes whose node is here: which are open, though nothing may pass for long.

engine/model/connections.py says what open means, and why; this is the same for many workers.

    hash of flow and prefix -> set, two cache lines | what, prefix, seen | x 8

A packet of a connection that is open costs a look at its set, without a lock. Only one that changes something (SYN,
FIN, RST, the first of a stream) takes the lock: whoever looks meanwhile sees the state before or the one after.
"""

from libc.stdint cimport int32_t, uint32_t, uint64_t, uint8_t

from engine._fast.flows cimport mix
from engine._fast.kernel cimport load32_relaxed, load64_relaxed, prefetch, pthread_mutex_t, store32_relaxed
from engine._fast.slabs cimport Slab

cdef enum:
    SETS = 8192              # 1 MiB; what no connection has touched takes no memory
    WAYS = 8
    TRANSITORY = 2400        # 0.1 s, RFC 5382 REQ-5: what is not open is forgotten after four minutes
    STATE = 0xFF             # of Connection.what

cdef enum:                   # flags of a segment (RFC 9293 3.1)
    FIN = 1
    SYN = 2
    RST = 4
    ACK = 16

cdef enum:                   # state: bits
    UP = 1                   # the node has sent something
    DOWN = 2                 # its correspondent has
    OPEN = 4
    FIN_UP = 8
    FIN_DOWN = 16
    CLOSED = 24              # both
    RESET = 32

cdef struct Connection:      # 16 octets; all zeros: free
    uint64_t what            # hash of flow and prefix, its last eight bits replaced by the state (atomic)
    uint32_t prefix          # upper half of the hash of its prefix
    uint32_t seen            # clock of its last packet (atomic)

cdef struct Connections:
    Slab slab                # of Connection, SETS x WAYS
    uint32_t limit           # 0.1 s without a packet after which one is taken for dead; 0: none is followed (atomic)
    uint64_t crowded         # packets of open connections that found no place (atomic)
    pthread_mutex_t lock     # of what, prefix, and taking a place
    bint made                # the lock is

cdef struct OpenOnes:        # connections that are open
    uint32_t number
    uint32_t age             # 0.1 s since the last packet of any of them


cdef inline uint64_t key_of(uint64_t flow, uint64_t prefix) noexcept nogil:
    """Of a connection: hashes of its flow and of its prefix, which has the secret."""
    return mix(flow ^ prefix)


cdef inline Connection *set_of(const Connections *connections, uint64_t key) noexcept nogil:
    return &(<Connection *>connections.slab.base)[((key >> 20) & (SETS - 1)) * WAYS]


cdef inline void ask(const Connections *connections, uint64_t key) noexcept nogil:
    """Have the way that is looked at first on its way to the cache."""
    prefetch(&set_of(connections, key)[(key >> 56) & (WAYS - 1)])


cdef inline Connection *find(const Connections *connections, uint64_t key, uint8_t *state) noexcept nogil:
    """The connection with that key, and its state; NULL: it is not known."""
    cdef Connection *ways = set_of(connections, key)
    cdef uint32_t first = <uint32_t>(key >> 56)           # each connection has a way that is looked at first
    cdef uint64_t what
    cdef uint32_t k
    for k in range(WAYS):
        what = load64_relaxed(&ways[(first + k) & (WAYS - 1)].what)
        state[0] = <uint8_t>(what & STATE)
        if (what ^ key) <= STATE and what != 0:
            return &ways[(first + k) & (WAYS - 1)]
    return NULL


cdef inline uint32_t age_of(const Connection *connection, uint32_t clock) noexcept nogil:
    """0.1 s since its last packet; 0 also when another worker, whose burst began later, has seen one in our future."""
    cdef int32_t age = <int32_t>(clock - load32_relaxed(&connection.seen))
    return <uint32_t>age if age > 0 else 0


cdef inline bint see(
    Connections *connections, uint64_t key, uint64_t prefix, uint8_t way, uint8_t flags, uint32_t clock,
) noexcept nogil:
    """A segment with those flags passed, way UP or DOWN. False: its connection is open and there is no place for it."""
    cdef uint8_t state
    cdef Connection *connection = find(connections, key, &state)
    cdef uint32_t age
    if connection != NULL and flags & (SYN | FIN | RST) == 0:
        age = age_of(connection, clock)
        if state & OPEN and age < load32_relaxed(&connections.limit):
            if age != 0:
                store32_relaxed(&connection.seen, clock)
            return True
        if state & CLOSED == CLOSED and age < TRANSITORY:
            return True
    return change(connections, key, prefix, way, flags, clock)


cdef bint change(
    Connections *connections, uint64_t key, uint64_t prefix, uint8_t way, uint8_t flags, uint32_t clock,
) noexcept nogil
cdef OpenOnes count(const Connections *connections, uint64_t prefix, uint32_t clock) noexcept nogil
cdef bint is_open(const Connections *connections, const Connection *connection, uint32_t clock) noexcept nogil

# the rest is for the writer
cdef int create(Connections *connections) noexcept nogil                # -1: no memory
cdef void destroy(Connections *connections) noexcept nogil
