"""THE data path, top to bottom, in the order of a packet's life. engine/model.py is its specification.

Every step goes over the whole burst and skips the dead. parse checks every length; those after it trust them.
"""

from libc.errno cimport EBADF
from libc.stdint cimport uint16_t
from libc.string cimport memcpy

from engine._fast cimport burst as bursts
from engine._fast cimport drops, io, prefixes, tunnels
from engine._fast.burst cimport ROOM, WIDTH
from engine._fast.drops cimport ALIVE, Drop
from engine._fast.headers cimport (
    CE, ECT_0, ECT_1, IP6_HEADER, NOT_ECT, UDP_PORT, get_ecn, hop_limit, is_multicast, load_address,
    multicast_stays_on_link, payload_length, same_address, set_ecn, stays_on_link, traffic_class, version,
)
from engine._fast.kernel cimport AF_INET6, htobe16, pthread_mutex_lock, pthread_mutex_unlock, sockaddr_in6
from engine._fast.prefixes cimport ACCESS, ANCHOR, HELD
from engine._fast.tunnels cimport NO_TUNNEL, UDP, Tunnel


# --- the two walks -------------------------------------------------------------------------------------

cdef void wrap(State *tables, Burst *burst) noexcept nogil:
    """Packets from the TUN get the outer header of their tunnel."""
    parse(burst)
    lookup(tables, burst)
    push(tables, burst)


cdef void unwrap(State *tables, Burst *burst, const Port *port) noexcept nogil:
    """Packets from the underlay, without their outer header, are let in if their tunnel may carry them."""
    recognise(tables, burst, port)
    parse(burst)
    pop(tables, burst)


# --- the steps -----------------------------------------------------------------------------------------

cdef void recognise(State *tables, Burst *burst, const Port *port) noexcept nogil:
    """Which tunnel? Only configured pairs of end points may speak to us (RFC 2473 3.3, RFC 6275 10.4.5)."""
    cdef uint16_t wanted = htobe16(UDP_PORT)
    cdef const sockaddr_in6 *peer
    cdef uint32_t i
    for i in range(burst.count):
        burst.tunnel[i] = NO_TUNNEL
        peer = &burst.outer[i]
        if peer.sin6_family == AF_INET6 and (port.kind != UDP or peer.sin6_port == wanted):
            burst.tunnel[i] = tunnels.find(
                &tables.tunnels, port.kind, port.local, load_address(peer.sin6_addr.s6_addr))
        if burst.tunnel[i] == NO_TUNNEL:
            burst.drop[i] = Drop.UNKNOWN_TUNNEL


cdef void parse(Burst *burst) noexcept nogil:
    """Whole and routable IPv6 packets only; octets behind the payload length are cut off."""
    cdef uint32_t i
    for i in range(burst.count):
        if burst.drop[i] == ALIVE:
            burst.drop[i] = fault(burst, i)


cdef inline uint8_t fault(Burst *burst, uint32_t i) noexcept nogil:
    cdef const uint8_t *packet = burst.packet[i]
    cdef uint32_t length
    if burst.length[i] == 0:
        return Drop.TRUNCATED
    if version(packet) != 6:
        return Drop.NOT_IPV6
    if burst.length[i] < IP6_HEADER:
        return Drop.TRUNCATED
    length = IP6_HEADER + <uint32_t>payload_length(packet)
    if burst.length[i] < length:
        return Drop.TRUNCATED
    burst.length[i] = length
    burst.source[i] = load_address(packet + 8)
    burst.destination[i] = load_address(packet + 24)
    if stays_on_link(burst.source[i]) or is_multicast(burst.source[i]):
        return Drop.BAD_SOURCE
    if stays_on_link(burst.destination[i]) or multicast_stays_on_link(burst.destination[i]):
        return Drop.BAD_DESTINATION
    if hop_limit(packet) == 0:
        return Drop.HOP_LIMIT
    return ALIVE


cdef void lookup(State *tables, Burst *burst) noexcept nogil:
    """To a prefix anchored here, its node away; else from one whose node is here: that binding's tunnel."""
    cdef uint32_t i
    cdef Slot *slot
    for i in range(burst.count):
        if burst.drop[i] == ALIVE:
            prefixes.prefetch(&tables.prefixes, burst.destination[i])
    for i in range(burst.count):
        if burst.drop[i] != ALIVE:
            continue
        slot = prefixes.match(&tables.prefixes, burst.destination[i], ANCHOR | HELD)
        if slot == NULL:
            slot = prefixes.match(&tables.prefixes, burst.source[i], ACCESS)
        if slot == NULL:
            burst.drop[i] = Drop.NO_BINDING
        elif slot.side == HELD:
            burst.drop[i] = Drop.NODE_AWAY
        else:
            burst.tunnel[i] = slot.tunnel


cdef void push(State *tables, Burst *burst) noexcept nogil:
    """The outer header, as the kernel wants it told: where to, and the traffic class of the inner one.

    The hop limit stays: the kernel took one off when it forwarded the packet into the TUN (RFC 2473 3.1).
    """
    cdef uint32_t i
    cdef const Tunnel *tunnel
    for i in range(burst.count):
        if burst.drop[i] != ALIVE:
            continue
        tunnel = &tables.tunnels.entries[burst.tunnel[i]]
        if same_address(burst.source[i], tunnel.local) and same_address(burst.destination[i], tunnel.remote):
            burst.drop[i] = Drop.LOOP  # RFC 2473 4.1.2
            continue
        memcpy(&burst.outer[i], &tunnel.peer, sizeof(tunnel.peer))
        burst.traffic_class[i] = traffic_class(burst.packet[i])  # DSCP, and ECN in normal mode (RFC 6040 4.1)


cdef void pop(State *tables, Burst *burst) noexcept nogil:
    """May this tunnel carry this packet? Then ECN moves from the outer to the inner header."""
    cdef uint32_t i
    for i in range(burst.count):
        if burst.drop[i] != ALIVE:
            continue
        if not (bound_to(prefixes.match(&tables.prefixes, burst.source[i], ANCHOR | HELD), burst.tunnel[i])
                or bound_to(prefixes.match(&tables.prefixes, burst.destination[i], ACCESS), burst.tunnel[i])):
            burst.drop[i] = Drop.NOT_BOUND
        else:
            burst.drop[i] = merge_ecn(burst.packet[i], burst.traffic_class[i] & 3)


cdef inline bint bound_to(const Slot *slot, uint32_t tunnel) noexcept nogil:
    return slot != NULL and slot.side != HELD and slot.tunnel == tunnel


cdef inline uint8_t merge_ecn(uint8_t *packet, uint8_t outer) noexcept nogil:
    """RFC 6040 4.2. Congestion must not be forgotten: where the inner header cannot say it, the loss does."""
    cdef uint8_t inner = get_ecn(packet)
    if outer == CE:
        if inner == NOT_ECT:
            return Drop.ECN
        set_ecn(packet, CE)
    elif outer == ECT_1 and inner == ECT_0:
        set_ecn(packet, ECT_1)
    return ALIVE


cdef void choose_port(State *tables, Burst *burst, const Ports *ports) noexcept nogil:
    """The socket bound to the tunnel's local address, for its encapsulation."""
    cdef uint32_t i, k
    cdef const Tunnel *tunnel
    for i in range(burst.count):
        if burst.drop[i] != ALIVE:
            continue
        tunnel = &tables.tunnels.entries[burst.tunnel[i]]
        burst.drop[i] = Drop.NO_PORT
        for k in range(ports.count):
            if ports.port[k].kind == tunnel.encapsulation and same_address(ports.port[k].local, tunnel.local):
                burst.port[i] = <uint8_t>k
                burst.drop[i] = ALIVE
                break


cdef void send_to_underlay(Burst *burst, const Ports *ports) noexcept nogil:
    cdef uint32_t k
    for k in range(ports.count):
        if ports.port[k].kind != TUN:
            io.send_underlay(ports.port[k].fd, burst, k)


cdef void send_to_tun(Burst *burst, const Ports *ports) noexcept nogil:
    """By the first TUN port."""
    cdef uint32_t i, k
    for k in range(ports.count):
        if ports.port[k].kind == TUN:
            io.send_tun(ports.port[k].fd, burst)
            return
    for i in range(burst.count):
        if burst.drop[i] == ALIVE:
            burst.drop[i] = Drop.NO_PORT


# --- counting ------------------------------------------------------------------------------------------

cdef Totals total(const Burst *burst) noexcept nogil:
    """Packets of the burst that live, and their octets."""
    cdef Totals totals
    cdef uint32_t i
    totals.packets = 0
    totals.octets = 0
    for i in range(burst.count):
        if burst.drop[i] == ALIVE:
            totals.packets += 1
            totals.octets += burst.length[i]
    return totals


cdef inline void add(Totals *sum, Totals more) noexcept nogil:
    sum.packets += more.packets
    sum.octets += more.octets


cdef void count_wrapped(State *tables, const Burst *burst, Counters *counters) noexcept nogil:
    cdef uint32_t i
    cdef Tunnel *tunnel
    add(&counters.to_underlay, total(burst))
    drops.count(burst.drop, burst.count, counters.drops)
    for i in range(burst.count):
        if burst.drop[i] == ALIVE:
            tunnel = &tables.tunnels.entries[burst.tunnel[i]]
            tunnel.packets_out += 1
            tunnel.octets_out += burst.length[i]


cdef void count_unwrapped(State *tables, const Burst *burst, Counters *counters) noexcept nogil:
    cdef uint32_t i
    cdef Tunnel *tunnel
    add(&counters.to_tun, total(burst))
    drops.count(burst.drop, burst.count, counters.drops)
    for i in range(burst.count):
        if burst.drop[i] == ALIVE:
            tunnel = &tables.tunnels.entries[burst.tunnel[i]]
            tunnel.packets_in += 1
            tunnel.octets_in += burst.length[i]


# --- one burst, from descriptor to descriptor ----------------------------------------------------------

cdef int serve_tun(
    State *tables, Burst *burst, const Ports *ports, int fd, Counters *counters,
) noexcept nogil:
    cdef int count = io.receive_tun(fd, burst)
    if count <= 0:
        return count
    add(&counters.from_tun, total(burst))
    pthread_mutex_lock(&tables.lock)
    wrap(tables, burst)
    choose_port(tables, burst, ports)
    send_to_underlay(burst, ports)
    count_wrapped(tables, burst, counters)
    pthread_mutex_unlock(&tables.lock)
    return count


cdef int serve_underlay(
    State *tables, Burst *burst, const Ports *ports, const Port *port, Counters *counters,
) noexcept nogil:
    cdef int count = io.receive_underlay(port.fd, burst)
    if count <= 0:
        return count
    add(&counters.from_underlay, total(burst))
    pthread_mutex_lock(&tables.lock)
    unwrap(tables, burst, port)
    send_to_tun(burst, ports)
    count_unwrapped(tables, burst, counters)
    pthread_mutex_unlock(&tables.lock)
    return count


# --- for Python ----------------------------------------------------------------------------------------

cdef class Path:
    """The path with its ports, buffers and counters; methods as in engine.model.Path. For one thread."""

    def __cinit__(self, Tables tables not None):
        self.tables = tables
        self.burst = bursts.allocate()
        if self.burst == NULL:
            raise MemoryError

    def __dealloc__(self):
        bursts.release(self.burst)

    def add_port(self, int fd, int kind, bytes local not None):
        """Serve fd too. local: 16 octets, zeros for a TUN. Raises OverflowError past MOST_PORTS."""
        cdef Port *port = &self.ports.port[self.ports.count]
        if self.ports.count == MOST_PORTS:
            raise OverflowError(f"an engine serves {MOST_PORTS} ports at most")
        if len(local) != 16:
            raise ValueError("a local address has 16 octets")
        self.claim()
        port.fd = fd
        port.kind = <uint8_t>kind
        port.local = load_address(<const uint8_t *><char *>local)
        self.ports.count += 1
        self.busy = False

    def remove_port(self, int fd):
        """Forget fd. False: it was not known."""
        cdef int k = self.port_of(fd)
        cdef uint32_t i
        if k < 0:
            return False
        self.claim()
        for i in range(<uint32_t>k + 1, self.ports.count):
            self.ports.port[i - 1] = self.ports.port[i]
        self.ports.count -= 1
        self.busy = False
        return True

    def serve(self, int fd):
        """Take at most one burst from fd through the path. Packets taken, or -errno: fd is of no more use."""
        cdef int k = self.port_of(fd)
        cdef int count
        if k < 0:
            return -EBADF
        self.claim()
        with nogil:
            if self.ports.port[k].kind == TUN:
                count = serve_tun(&self.tables.state, self.burst, &self.ports, fd, &self.counted)
            else:
                count = serve_underlay(
                    &self.tables.state, self.burst, &self.ports, &self.ports.port[k], &self.counted)
        self.busy = False
        return count

    def encapsulate(self, list packets not None):
        """(face of the tunnel, traffic class, packet) of each as it would leave, or its Drop's number."""
        cdef list answers = []
        cdef Py_ssize_t start
        self.claim()
        try:
            for start in range(0, len(packets), WIDTH):
                self.encapsulate_burst(packets[start:start + WIDTH], answers)
        finally:
            self.busy = False
        return answers

    def decapsulate(self, list arrivals not None):
        """Each inner packet as it would be delivered, or the number of its Drop.

        arrivals: (key of the tunnel, traffic class, octets).
        """
        cdef list answers = []
        self.claim()
        try:
            for run in runs(arrivals):
                self.decapsulate_burst(run, answers)
        finally:
            self.busy = False
        return answers

    def rehearse(self, list packets not None, uint32_t rounds):
        """Wrap one burst of packets again and again, in memory, no object made: what the bench measures."""
        cdef uint32_t i
        self.claim()
        try:
            self.load(packets[:WIDTH])
            with nogil:
                for i in range(rounds):
                    bursts.clear(self.burst, self.burst.count)
                    pthread_mutex_lock(&self.tables.state.lock)
                    wrap(&self.tables.state, self.burst)
                    count_wrapped(&self.tables.state, self.burst, &self.counted)
                    pthread_mutex_unlock(&self.tables.state.lock)
        finally:
            self.busy = False

    def counters(self):
        """Packets and octets from_tun, to_tun, from_underlay, to_underlay; drops by number (0 is nobody)."""
        cdef Counters *c = &self.counted
        cdef uint32_t i
        return (c.from_tun.packets, c.from_tun.octets, c.to_tun.packets, c.to_tun.octets,
                c.from_underlay.packets, c.from_underlay.octets, c.to_underlay.packets, c.to_underlay.octets,
                [0] + [c.drops[i] for i in range(1, <uint32_t>REASONS)])

    cdef int port_of(self, int fd) noexcept:
        cdef uint32_t k
        for k in range(self.ports.count):
            if self.ports.port[k].fd == fd:
                return <int>k
        return -1

    cdef int claim(self) except -1:
        # The burst is one set of buffers: a second thread in it would overwrite the packets of the first.
        if self.busy:
            raise RuntimeError("this engine serves in another thread; give each thread its own")
        self.busy = True
        return 0

    cdef int load(self, list packets) except -1:
        cdef uint32_t i = 0
        cdef bytes packet
        bursts.clear(self.burst, <uint32_t>len(packets))
        for packet in packets:
            self.place(i, packet)
            i += 1
        return 0

    cdef int place(self, uint32_t i, bytes packet) except -1:
        if len(packet) > ROOM:
            raise ValueError(f"a packet of {len(packet)} octets, IPv6 ends at 65575")
        memcpy(self.burst.packet[i], <const char *>packet, len(packet))
        self.burst.length[i] = <uint32_t>len(packet)
        return 0

    cdef int encapsulate_burst(self, list packets, list answers) except -1:
        cdef State *state = &self.tables.state
        cdef Burst *burst = self.burst
        cdef uint32_t i
        self.load(packets)
        add(&self.counted.from_tun, total(burst))
        pthread_mutex_lock(&state.lock)
        wrap(state, burst)
        count_wrapped(state, burst, &self.counted)
        pthread_mutex_unlock(&state.lock)
        for i in range(burst.count):
            if burst.drop[i] != ALIVE:
                answers.append(burst.drop[i])
            else:
                answers.append((self.tables.faces[burst.tunnel[i]], burst.traffic_class[i],
                                (<char *>burst.packet[i])[:burst.length[i]]))
        return 0

    cdef int decapsulate_burst(self, list arrivals, list answers) except -1:
        cdef State *state = &self.tables.state
        cdef Burst *burst = self.burst
        cdef Port port
        cdef uint32_t i = 0
        cdef bytes key, packet
        bursts.clear(burst, <uint32_t>len(arrivals))
        for key, outer_class, packet in arrivals:
            if len(key) != 33:
                raise ValueError("a tunnel's key has 33 octets")
            self.place(i, packet)
            burst.traffic_class[i] = <uint8_t>outer_class
            burst.outer[i].sin6_family = <uint16_t>AF_INET6
            burst.outer[i].sin6_port = htobe16(UDP_PORT)
            memcpy(burst.outer[i].sin6_addr.s6_addr, <const char *>key + 17, 16)
            i += 1
        port.fd = -1
        port.kind = (<const uint8_t *><char *>key)[0]
        port.local = load_address(<const uint8_t *><char *>key + 1)
        add(&self.counted.from_underlay, total(burst))
        pthread_mutex_lock(&state.lock)
        unwrap(state, burst, &port)
        count_unwrapped(state, burst, &self.counted)
        pthread_mutex_unlock(&state.lock)
        for i in range(burst.count):
            if burst.drop[i] == ALIVE:
                answers.append((<char *>burst.packet[i])[:burst.length[i]])
            else:
                answers.append(burst.drop[i])
        return 0


def runs(list arrivals):
    """Cut arrivals into bursts to one socket: same encapsulation and local address (the key's first 17)."""
    cdef list run = []
    for arrival in arrivals:
        if run and (len(run) == WIDTH or run[0][0][:17] != arrival[0][:17]):
            yield run
            run = []
        run.append(arrival)
    if run:
        yield run
