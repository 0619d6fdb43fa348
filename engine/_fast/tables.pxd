"""What the path knows, in one struct: readers look between epochs.enter and epochs.leave, the writer holds the GIL."""

from libc.stdint cimport int32_t, uint16_t, uint32_t, uint64_t, uint8_t

from engine._fast.bundles cimport Bundles
from engine._fast.connections cimport Connections
from engine._fast.epochs cimport MOST_WORKERS, Epochs
from engine._fast.headers cimport Address
from engine._fast.kernel cimport CLOCK_MONOTONIC, clock_gettime, timespec
from engine._fast.pins cimport Pins
from engine._fast.prefixes cimport Binding, Prefixes
from engine._fast.rules cimport Policies, RuleCount
from engine._fast.slabs cimport Slab
from engine._fast.transients cimport Transient, Transients
from engine._fast.tunnels cimport TunnelCount, Tunnels

cdef enum:
    SECOND = 1000000000      # ns

cdef struct State:
    Epochs epochs
    Prefixes prefixes
    Tunnels tunnels
    Bundles bundles
    Policies policies
    Transients transients
    Pins pins                # of flows, by all workers
    Connections connections  # of prefixes whose node is here, by all workers
    uint32_t generation      # rises with every change of a tunnel's state, a bundle or a policy (release)
    uint32_t edits           # rises before and after all that lets other packets in: odd meanwhile (release)
    uint32_t doubters        # workers that wait for such an edit (atomic)
    uint32_t wakes[MOST_WORKERS]  # the next edit is to ring the bell of that worker (atomic)
    uint64_t patience        # ns that a packet nobody is known for waits for one
    void *holds              # hold.Holds; NULL until there is one (made by queues)
    void *reorders           # reorder.Groups; NULL until there is one
    uint64_t lost            # packets of buffers that ended with their prefix; a worker counts them (atomic)
    int bell[MOST_WORKERS]   # timer of each worker that wakes it; -1: no worker


cdef inline uint64_t monotonic() noexcept nogil:
    """Time now, ns."""
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return <uint64_t>now.tv_sec * SECOND + <uint64_t>now.tv_nsec


cdef inline uint32_t clock_of(uint64_t time) noexcept nogil:
    """Monotonic ns in units of 0.1 s, for Binding.last. Never 0."""
    return max(<uint32_t>1, <uint32_t>(time // (SECOND // 10)))


cdef inline uint32_t clock_now() noexcept nogil:
    return clock_of(monotonic())


cdef class Tables:
    cdef State state
    cdef object __weakref__
    cdef list faces          # Python object of each tunnel, by index; an old one stays until the index is taken again
    cdef dict rule_faces     # policy -> its rules, the Python objects
    cdef uint32_t transience # 0.1 s
    cdef Slab bound          # of uint32_t, by index of the bundle: bindings that lead to it
    cdef RuleCount *rule_counted[MOST_WORKERS]  # NULL: this worker never counted
    cdef RuleCount *rule_before                 # the sum when the counter was taken

    # for the path, with the GIL: a seat, and where it counts. Counters stay when the worker parts.
    cdef uint32_t join(self) except 0xFFFFFFFF  # OverflowError: MOST_WORKERS are seated
    cdef void part(self, uint32_t worker)
    cdef TunnelCount *tunnel_counts(self, uint32_t worker) except NULL  # by index of the tunnel
    cdef RuleCount *rule_counts(self, uint32_t worker) except NULL      # by Rule.counter

    cdef uint32_t tunnel_of(self, bytes key) except? 0xFFFFFFFF
    cdef uint32_t acquire_tunnel(self, object face) except 0
    cdef uint32_t acquire_bundle(self, list paths, uint32_t before) except 0
    cdef uint32_t acquire_policy(self, list faces, uint32_t before) except 0
    cdef int put(
        self, Address address, uint16_t kind, uint8_t side, uint8_t many, uint32_t target, uint32_t policy, bint remember,
    ) except -1
    cdef uint32_t remembered(self, uint32_t before, Address address, uint8_t many, uint32_t target)
    cdef uint32_t remember_tunnels(self, Transient *wanted)
    cdef void remember_members(self, uint32_t bundle, const uint32_t *leaving, uint32_t count)
    cdef void forget_former(self, uint32_t index)
    cdef bint sweep_one(self)
    cdef int keep_tunnel(self, Address address, uint16_t kind, uint8_t side) except -1
    cdef int leave_way(self, Address address, uint16_t kind, uint8_t side) except -1
    cdef void take_target(self, uint8_t many, uint32_t target)
    cdef void let_go(self, uint8_t many, uint32_t target, uint32_t policy)
    cdef void let_go_of_bundle(self, uint32_t bundle)
    cdef void let_go_of_policy(self, uint32_t policy)
    cdef object open_ones(self, const Binding *binding, uint32_t number, uint32_t age)
    cdef dict counted_connections(self)
    cdef object target_of(self, uint8_t many, uint32_t target)
    cdef RuleCount rule_sum(self, uint32_t counter)
    cdef RuleCount rule_total(self, uint32_t counter)
    cdef void begin_edit(self) noexcept
    cdef void end_edit(self) noexcept
    cdef void changed(self)

cdef Address network_of(bytes network, int kind) except *
cdef void ring_all(State *state) noexcept
