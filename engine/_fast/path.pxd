"""THE data path: the map. Steps in the order of a packet's life; path.pyx has them in the same order.

    from the TUN:       receive -> parse -> lookup -> choose -> depart (too big? shim, split, send) -> count
    from the underlay:  receive -> strip -> recognise -> parse -> pop -> arrange -> merge -> write -> count
                                                                  pop -> doubt (nobody's yet) -> recognise, once more

A Worker is what one thread needs to walk: nothing in it is shared, so nothing in it is locked. What it shares, the
tables, it reads between enter and leave of an epoch, and waits for nobody who writes them; but where packets are in
doubt it gives way to an edit that is being made (wait_for_even).
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from engine._fast.burst cimport WIDTH, Burst
from engine._fast.doubts cimport Doubts
from engine._fast.drops cimport REASONS
from engine._fast.flows cimport Fragments
from engine._fast.io cimport Inbox, Outbox, Port, Trouble
from engine._fast.offload cimport Merger, Segments
from engine._fast.outer cimport MOST_OUTER, Arrivals
from engine._fast.rules cimport RuleCount
from engine._fast.spread cimport Chooser, Decision, Decisions, Schedules
from engine._fast.tables cimport State, Tables
from engine._fast.tap cimport Tap
from engine._fast.tunnels cimport TunnelCount
from engine._fast.waiting cimport Turn

cdef enum:
    MOST_PORTS = 64
    MOST_COPIES = 512        # in the outbox at once
    COPY_LEFT = 2
    SCRATCH = 131072         # octets: the segments of one advance, each in one piece
    LOOKS = 50               # times a worker looks again, giving way to others in between, before it sleeps
    MANY = 8                 # packets: a burst of so many is not the last
    SOON = 200000            # ns after such a burst, more is worth waiting for
    TURN = 2000000           # ns: longest stay in one call of serve, so that the caller's loop turns
    ERRORS = 100             # ICMP errors a second, and in a row (RFC 4443 2.4 f)

cdef struct Totals:
    uint64_t packets         # as they are on the wire: each segment of a bundle is one
    uint64_t octets          # inner packets

cdef struct Counters:
    Totals from_tun          # all that arrived, those dropped later included
    Totals to_underlay       # what really left
    Totals from_underlay
    Totals to_tun
    uint64_t errors          # ICMP errors sent to the senders of packets
    uint64_t drops[REASONS]

cdef struct Worker:
    State *tables
    uint32_t number          # in the epochs of the tables
    uint32_t count           # ports
    Port port[MOST_PORTS]
    int dead                 # index of a port that is of no more use; -1: none
    Port *tun                # the first of them that is a TUN; NULL: none
    uint32_t clamp           # octets: TCP is told segments for packets of this size; 0: MSS is left alone
    uint64_t now             # ns, monotonic, when this burst began
    uint32_t edits           # of the tables, when this burst began
    uint64_t dense           # ns, when the last burst of MANY packets began
    double allowance         # ICMP errors that may be sent
    uint64_t allowance_at    # ns, when that was so
    Burst *burst
    Burst *ordered           # what is delivered in the order of its sequence numbers
    Doubts doubts            # what has no tunnel or no prefix yet
    Turn holding             # hold buffers this worker drains now
    Turn ordering            # reorder groups it delivers from now
    int bell                 # timer: something waited long enough
    uint64_t alarm           # ns, when it will ring; NEVER
    Tap tap
    bint tap_outer           # outer headers are wanted
    uint32_t found[WIDTH]    # index of the binding of packet i
    uint8_t turned[WIDTH]    # packet i came to a node that is here no more
    uint32_t rule[WIDTH]     # index of the counter of the rule that decided; 0: nobody's
    uint32_t pieces[WIDTH]   # packets on the wire that packet i stands for
    uint32_t octets[WIDTH]   # of all of them, headers repeated
    uint8_t results[WIDTH + MOST_COPIES]  # of sending packet i; then of each copy of those that leave more than once
    uint8_t copied[WIDTH]    # packet i leaves more than once; COPY_LEFT: one copy has left
    uint32_t copies          # noted below, not yet settled
    uint16_t copy_of[MOST_COPIES]  # packet
    uint32_t copy_by[MOST_COPIES]  # index of its tunnel
    uint8_t header[WIDTH][MOST_OUTER]  # outer headers composed in memory
    uint8_t *scratch         # SCRATCH octets
    Arrivals arrivals
    Inbox inbox
    Outbox outbox
    Segments segments
    Merger merger
    Fragments fragments
    Decisions decisions
    Schedules schedules
    Chooser chooser
    Decision decision
    Trouble trouble
    TunnelCount *tunnels     # counters of this worker, by index
    RuleCount *rules
    Counters counted


cdef class Path:
    cdef Tables tables
    cdef Worker *worker
    cdef bint busy
    cdef int port_of(self, int fd) noexcept
    cdef int claim(self) except -1
    cdef int load(self, list packets) except -1
    cdef int encapsulate_burst(self, list packets, list answers) except -1
    cdef object wrapped(self, uint32_t i)
    cdef int decapsulate_burst(self, list packets, list answers) except -1
