"""THE data path, top to bottom, in the order of a packet's life. engine/model/path.py is its specification.

Every step goes over the whole burst and skips the dead. parse checks every length; those after it trust them.
"""

from libc.errno cimport EBADF
from libc.stdint cimport int64_t, uint16_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset

from engine._fast cimport burst as bursts
from engine._fast cimport (
    bundles, chains, checksum, clamp, connections, doubts, epochs, flows, hold, icmp, io, offload, outer, prefixes,
    reorder, spread, tap, transients, tunnels, waiting,
)
from engine._fast.burst cimport ARENA, GSO_NONE, LARGEST
from engine._fast.chains cimport Heads
from engine._fast.doubts cimport Doubts
from engine._fast.drops cimport ALIVE, KEPT, Drop
from engine._fast.headers cimport (
    CE, ECT_0, ECT_1, GRE_HEADER, IP4_HEADER, IP6_HEADER, LEAST_MTU6, NOT_ECT, PROTO_TCP, TCP_HEADER, UDP_HEADER,
    Address, get_ecn, gre_options, hop_limit, is_mapped, is_multicast, load16, load32, load_address, load_address4,
    may_fragment, multicast_stays_on_link, payload_length, same_address, stays_on_link, stays_on_link4, store16,
    traffic_class, version,
)
from engine._fast.io cimport GRE_KIND, IP_KIND, SEND_ONLY, TSO, TUN_KIND, USO, VNET, Way
from engine._fast.kernel cimport (
    CLOCK_MONOTONIC, POLLIN, TFD_CLOEXEC, TFD_NONBLOCK, TFD_TIMER_ABSTIME, close, exchange64, fetch_add32, full_fence,
    iovec, itimerspec, load32_acquire, load32_relaxed, load64_relaxed, poll, pollfd, read, sched_yield, store32_relaxed,
    timerfd_create, timerfd_settime,
)
from engine._fast.offload cimport MERGE_TCP4, MERGE_TCP6, MERGE_UDP4, MERGE_UDP6, VIRTIO, VIRTIO_HEADER, Output
from engine._fast.outer cimport Strip
from engine._fast.prefixes cimport ACCESS, ANCHOR, HELD, HERE, HOME, Binding, Prefixes
from engine._fast.tables cimport SECOND, clock_of, monotonic
from engine._fast.tunnels cimport GRE, SEQUENCED, Tunnel

cdef enum:
    MTU_AGE = 6000           # 0.1 s: ten minutes (RFC 8201 5.3)
    TAP_RING = 4194304       # octets
    LOOKS_AGAIN = 4          # for a binding, while edits take it away each time
    AT_ONCE = 1              # ns: long past; 0 would be never
    YIELDS = 50              # to who makes an edit, before what waits is looked at all the same


# --- from the TUN: bursts of inner packets to their tunnels --------------------------------------------

cdef int serve_tun(Worker *worker, Port *port) noexcept nogil:
    """One burst. Packets taken, or -errno: the port is of no more use."""
    cdef int count = io.receive_tun(port, worker.burst)
    if count <= 0:
        return count
    begin(worker)
    reconsider(worker)
    parse(worker, False)
    count_all(worker, &worker.counted.from_tun)
    lookup(worker)
    set_aside(worker)
    send_burst(worker)
    end(worker)
    return count


cdef void begin(Worker *worker) noexcept nogil:
    """A burst begins: the time is taken once, and from here to epochs.leave nothing in the tables is freed."""
    worker.now = monotonic()
    flows.tick(&worker.fragments, clock_of(worker.now))
    epochs.enter(&worker.tables.epochs, worker.number)
    worker.edits = edits_of(worker)


cdef void end(Worker *worker) noexcept nogil:
    """A burst is over: what was taken out of queues may be forgotten, and who waits in them is watched."""
    if worker.tables.holds != NULL:
        hold.leave(<hold.Holds *>worker.tables.holds, &worker.holding)
    if worker.tables.reorders != NULL:
        reorder.leave(<reorder.Groups *>worker.tables.reorders, &worker.ordering)
    epochs.leave(&worker.tables.epochs, worker.number)
    watch(worker)


cdef void watch(Worker *worker) noexcept nogil:
    """Have the bell rung when the next packet that waits has to go."""
    cdef uint64_t when = earliest(worker)
    cdef itimerspec alarm
    while when != worker.alarm:
        worker.alarm = when
        memset(&alarm, 0, sizeof(alarm))
        if when != waiting.NEVER:
            alarm.it_value.tv_sec = <long>(when // SECOND)
            alarm.it_value.tv_nsec = <long>(when % SECOND)
        timerfd_settime(worker.bell, TFD_TIMER_ABSTIME, &alarm, NULL)
        if worker.doubts.burst.count != 0:
            ask_to_be_told(worker)                        # it may have been rung just now, and that was overwritten
        when = earliest(worker)                           # who rang meanwhile has changed it, and was not heard


cdef inline uint64_t earliest(const Worker *worker) noexcept nogil:
    """ns, when the next packet that waits has to go."""
    cdef uint64_t when = waiting.NEVER
    cdef uint32_t edits
    if worker.tables.holds != NULL:
        when = waiting.earliest(&(<hold.Holds *>worker.tables.holds).deadlines)
    if worker.tables.reorders != NULL:
        when = min(when, waiting.earliest(&(<reorder.Groups *>worker.tables.reorders).deadlines))
    if worker.doubts.burst.count != 0:
        # an edit that is being made rings when it is done
        edits = edits_of(worker)
        when = min(when, doubts.next_end(&worker.doubts)) if edits & 1 or edits == worker.doubts.edits else 0
    return max(when, <uint64_t>AT_ONCE)


cdef void parse(Worker *worker, bint inward) noexcept nogil:
    """Whole and routable IP packets only; octets behind the length they state are cut off.

    What look-up will want of the tables is asked for as soon as the address is known: memory answers while we work.
    inward: it will ask for the source first.
    """
    cdef Burst *burst = worker.burst
    cdef Prefixes *known = &worker.tables.prefixes
    cdef const Heads *heads = chains.heads(&known.chains)
    cdef uint32_t *head[WIDTH]
    cdef uint32_t i
    for i in range(burst.count):
        worker.pieces[i] = 1
        worker.octets[i] = burst.length[i]
        if burst.drop[i] == ALIVE:
            burst.drop[i] = fault(burst, i)
        if burst.drop[i] == ALIVE:
            head[i] = prefixes.ask(known, heads, burst.source[i] if inward else burst.destination[i])
    for i in range(burst.count):
        if burst.drop[i] != ALIVE:
            continue
        prefixes.ask_more(known, head[i])
        worker.octets[i] = burst.length[i]
        flows.identify(burst, i, &worker.fragments)
        if burst.gso[i] != GSO_NONE:
            weigh(worker, i)


cdef inline uint8_t fault(Burst *burst, uint32_t i) noexcept nogil:
    if burst.length[i] == 0:
        return Drop.TRUNCATED
    if version(burst.packet[i]) == 6:
        return fault6(burst, i)
    if version(burst.packet[i]) == 4:
        return fault4(burst, i)
    return Drop.NOT_IP


cdef inline uint8_t fault6(Burst *burst, uint32_t i) noexcept nogil:
    cdef const uint8_t *packet = burst.packet[i]
    cdef uint32_t length
    if burst.length[i] < IP6_HEADER:
        return Drop.TRUNCATED
    length = IP6_HEADER + <uint32_t>payload_length(packet)
    if burst.length[i] < length:
        return Drop.TRUNCATED
    burst.length[i] = length
    burst.family[i] = 6
    burst.source[i] = load_address(packet + 8)
    burst.destination[i] = load_address(packet + 24)
    if stays_on_link(burst.source[i]) or is_multicast(burst.source[i]) or is_mapped(burst.source[i]):
        return Drop.BAD_SOURCE
    if (stays_on_link(burst.destination[i]) or multicast_stays_on_link(burst.destination[i])
            or is_mapped(burst.destination[i])):
        return Drop.BAD_DESTINATION
    if hop_limit(packet) == 0:
        return Drop.HOP_LIMIT
    return ALIVE


cdef inline uint8_t fault4(Burst *burst, uint32_t i) noexcept nogil:
    cdef const uint8_t *packet = burst.packet[i]
    cdef uint32_t header, length, source, destination
    if burst.length[i] < IP4_HEADER:
        return Drop.TRUNCATED
    header = 4 * <uint32_t>(packet[0] & 15)
    length = load16(packet + 2)
    if header < IP4_HEADER or length < header:
        return Drop.BAD_HEADER
    if burst.length[i] < length:
        return Drop.TRUNCATED
    if checksum.finish(checksum.add(packet, header, 0)) != 0:
        return Drop.BAD_HEADER
    burst.length[i] = length
    burst.family[i] = 4
    burst.source[i] = load_address4(packet + 12)
    burst.destination[i] = load_address4(packet + 16)
    source = load32(packet + 12)
    destination = load32(packet + 16)
    if stays_on_link4(source) or source >> 28 == 14:
        return Drop.BAD_SOURCE
    if stays_on_link4(destination) or destination >> 8 == 0xE00000:
        return Drop.BAD_DESTINATION
    if packet[8] == 0:
        return Drop.HOP_LIMIT
    return ALIVE


cdef void weigh(Worker *worker, uint32_t i) noexcept nogil:
    """How many packets a bundle of segments stands for. What is no bundle in truth is found out when it is split."""
    cdef Burst *burst = worker.burst
    cdef uint32_t headers = burst.transport[i]
    cdef uint32_t payload, pieces
    if burst.protocol[i] == PROTO_TCP:
        if headers + 20 > burst.length[i]:
            return
        headers += 4 * <uint32_t>(burst.packet[i][headers + 12] >> 4)
    else:
        headers += UDP_HEADER
    if burst.transport[i] == 0 or burst.segment[i] == 0 or headers >= burst.length[i]:
        return
    payload = burst.length[i] - headers
    pieces = (payload + burst.segment[i] - 1) // burst.segment[i]
    worker.pieces[i] = pieces
    worker.octets[i] = payload + pieces * headers


cdef void lookup(Worker *worker) noexcept nogil:
    """To a prefix anchored here, its node away or just back; else from one whose node is here: that binding.

    Else to one of a node that is here, or was: the kernel had no link to it any more.
    """
    cdef Burst *burst = worker.burst
    cdef State *tables = worker.tables
    cdef uint32_t left, i
    memset(worker.found, 0, burst.count * sizeof(worker.found[0]))
    memset(worker.rule, 0, burst.count * sizeof(worker.rule[0]))
    memset(worker.copied, False, burst.count)
    memset(worker.turned, False, burst.count)
    left = prefixes.look_up(&tables.prefixes, burst.count, burst.destination, burst.family, burst.drop,
                            ANCHOR | HELD | HOME | HERE, worker.found)
    if left > 0:
        if prefixes.look_up(&tables.prefixes, burst.count, burst.source, burst.family, burst.drop, ACCESS,
                            worker.found) > 0:
            look_behind(worker)
    for i in range(burst.count):
        if burst.drop[i] != ALIVE:
            continue
        if worker.found[i] == 0:
            burst.drop[i] = Drop.NO_BINDING
            continue
        prefixes.touch(prefixes.at(&tables.prefixes, worker.found[i]), worker.fragments.clock)
    if left > 0 and load32_relaxed(&tables.connections.limit) != 0:
        follow(worker, connections.UP)


cdef void follow(Worker *worker, uint8_t way) noexcept nogil:
    """TCP connections of prefixes whose node is here: which begin, go on and end. way: connections.UP or DOWN."""
    cdef Burst *burst = worker.burst
    cdef connections.Connections *known = &worker.tables.connections
    cdef Binding *binding[WIDTH]
    cdef uint64_t key[WIDTH]
    cdef uint16_t who[WIDTH]
    cdef uint32_t count = 0
    cdef uint32_t i, k
    for i in range(burst.count):
        if burst.protocol[i] != PROTO_TCP or burst.drop[i] != ALIVE:
            continue
        binding[count] = prefixes.at(&worker.tables.prefixes, worker.found[i])
        if binding[count].side != ACCESS or not has_flags(burst, i):
            continue
        if way == connections.UP and worker.turned[i]:
            continue                                      # it came out of the tunnel, and was seen then
        key[count] = connections.key_of(burst.flow[i], binding[count].hash)
        connections.ask(known, key[count])
        who[count] = <uint16_t>i
        count += 1
    for k in range(count):
        i = who[k]
        if not connections.see(known, key[k], binding[k].hash, way, burst.packet[i][burst.transport[i] + 13],
                               worker.fragments.clock):
            store32_relaxed(&binding[k].crowded, worker.fragments.clock)


cdef inline bint has_flags(const Burst *burst, uint32_t i) noexcept nogil:
    """The TCP header is whole, and here: of fragments only the first has it."""
    return burst.transport[i] != 0 and <uint32_t>burst.transport[i] + TCP_HEADER <= burst.length[i]


cdef void look_behind(Worker *worker) noexcept nogil:
    """What has no binding yet, to a node whose gateway we are: it waits, and goes back to its anchor (Tables.watch)."""
    cdef Burst *burst = worker.burst
    cdef const Prefixes *known = &worker.tables.prefixes
    cdef uint32_t i
    for i in range(burst.count):
        worker.turned[i] = worker.found[i] == 0
    prefixes.look_up(&worker.tables.prefixes, burst.count, burst.destination, burst.family, burst.drop, ACCESS,
                     worker.found)
    for i in range(burst.count):
        if worker.turned[i] and load32_relaxed(&prefixes.at(known, worker.found[i]).hold) == 0:
            worker.found[i] = 0                           # nobody watches it


cdef inline bint is_away(const Binding *binding) noexcept nogil:
    """Nobody takes what comes out of the TUN for the prefix: its node is between routers, or its link was just lost."""
    return (binding.side & (HELD | HERE)) != 0


cdef void set_aside(Worker *worker) noexcept nogil:
    """What is for a node between routers waits in the hold buffer of its prefix, if there is one."""
    cdef Burst *burst = worker.burst
    cdef const Binding *binding
    cdef uint32_t i, buffer
    for i in range(burst.count):
        if burst.drop[i] != ALIVE:
            continue
        binding = prefixes.at(&worker.tables.prefixes, worker.found[i])
        buffer = load32_relaxed(&binding.hold)
        if buffer != 0 and (binding.side != ACCESS or worker.turned[i]):
            burst.drop[i] = put_aside(worker, i, buffer, False)
        if burst.drop[i] == ALIVE and is_away(binding):
            burst.drop[i] = look_again(worker, i) if buffer != 0 else <uint8_t>Drop.NODE_AWAY


cdef uint8_t look_again(Worker *worker, uint32_t i) noexcept nogil:
    """The buffer of packet i was let go since its binding was found: the node is somewhere, and the packet goes there."""
    cdef Burst *burst = worker.burst
    cdef const Binding *binding
    cdef uint32_t buffer
    cdef uint8_t answer
    cdef uint32_t k
    for k in range(LOOKS_AGAIN):                          # between two of them the node would have to leave and return
        worker.found[i] = 0
        prefixes.look_up(&worker.tables.prefixes, 1, &burst.destination[i], &burst.family[i], &burst.drop[i],
                         ANCHOR | HELD | HOME | HERE, &worker.found[i])
        if worker.found[i] == 0:
            return Drop.NO_BINDING
        binding = prefixes.at(&worker.tables.prefixes, worker.found[i])
        buffer = load32_relaxed(&binding.hold)
        answer = put_aside(worker, i, buffer, False) if buffer != 0 else <uint8_t>ALIVE
        if answer != ALIVE or not is_away(binding):
            return answer
    return Drop.NODE_AWAY


cdef uint8_t put_aside(Worker *worker, uint32_t i, uint32_t buffer, bint older) noexcept nogil:
    cdef waiting.Aside aside = waiting.aside_of(worker.burst, i)
    cdef uint8_t answer
    aside.pieces = worker.pieces[i]
    answer = hold.put(
        <hold.Holds *>worker.tables.holds, buffer, &worker.holding, worker.burst.packet[i], worker.burst.length[i],
        &aside, worker.now, older)
    if answer == hold.DIRECT:
        return ALIVE
    return KEPT if answer == hold.KEPT else <uint8_t>Drop.HOLD_FULL


cdef void send_burst(Worker *worker) noexcept nogil:
    """Each packet to the tunnel, or the tunnels, of its choice; then what the way taught, and the counters."""
    cdef Burst *burst = worker.burst
    cdef uint32_t i
    memset(worker.results, ALIVE, WIDTH)
    io.begin(&worker.outbox, worker.results)
    for i in range(burst.count):
        if burst.drop[i] == ALIVE:
            burst.drop[i] = choose(worker, i)
        if burst.drop[i] == ALIVE:
            burst.drop[i] = depart_by_choice(worker, i)
    io.flush(&worker.outbox)
    settle_copies(worker)
    learn(worker)
    count_wrapped(worker)
    if tap.wanted(&worker.tap) != 0:
        record(worker, burst, tap.OUTBOUND)


# --- what waited, and may go now -----------------------------------------------------------------------

cdef void drain(Worker *worker) noexcept nogil:
    """Packets held for nodes that have arrived somewhere, at the pace of their buffers."""
    cdef hold.Holds *holds = <hold.Holds *>worker.tables.holds
    cdef Burst *burst = worker.burst
    cdef uint32_t count = 0
    cdef uint32_t buffers[WIDTH]
    cdef uint32_t buffer, i
    cdef waiting.Block *block
    bursts.clear(burst, WIDTH)
    while count < WIDTH:
        buffer = hold.due(holds, &worker.holding, worker.now)
        if buffer == 0:
            break
        while count < WIDTH:
            block = hold.take(holds, buffer, &worker.holding, worker.now)
            if block == NULL:
                break
            waiting.place(burst, count, block)
            buffers[count] = buffer
            count += 1
    worker.counted.drops[<uint32_t>Drop.HOLD_EXPIRED] += worker.holding.lost + exchange64(&worker.tables.lost, 0)
    worker.holding.lost = 0
    burst.count = count
    if count == 0:
        return
    parse(worker, False)
    lookup(worker)
    for i in range(count):
        if burst.drop[i] == ALIVE and is_away(prefixes.at(&worker.tables.prefixes, worker.found[i])):
            put_back(worker, i, buffers)                  # the node has left again meanwhile
    send_burst(worker)


cdef void put_back(Worker *worker, uint32_t i, const uint32_t *buffers) noexcept nogil:
    """Packet i, and all behind it that came from the same buffer, wait again, in front of the others."""
    cdef Burst *burst = worker.burst
    cdef uint8_t fate = KEPT
    cdef uint32_t k
    cdef uint32_t count = 0
    for k in range(i, burst.count):
        count += buffers[k] == buffers[i]
    if not hold.put_back(<hold.Holds *>worker.tables.holds, buffers[i], count):
        fate = Drop.NODE_AWAY
    for k in range(i, burst.count):
        if buffers[k] == buffers[i] and (burst.drop[k] == ALIVE or fate == KEPT):
            burst.drop[k] = fate


cdef void heed_bell(Worker *worker) noexcept nogil:
    """Something waited long enough."""
    cdef uint64_t times
    read(worker.bell, &times, sizeof(times))
    worker.alarm = 0                                      # whatever comes next has to be set anew
    begin(worker)
    reconsider(worker)
    if worker.tables.holds != NULL:
        drain(worker)
    if worker.tables.reorders != NULL:
        deliver_due(worker)
    end(worker)


cdef inline uint8_t choose(Worker *worker, uint32_t i) noexcept nogil:
    """worker.decision: where packet i goes; worker.rule[i]: the counter of the rule that said so."""
    cdef const Binding *binding = prefixes.at(&worker.tables.prefixes, worker.found[i])
    cdef uint8_t result
    if binding.side == HOME:
        return turn_round(worker, i)
    result = spread.choose(
        &worker.chooser, worker.burst, i, binding.many, binding.target, binding.policy, binding.hash, &worker.decision)
    worker.rule[i] = worker.decision.rule
    return result


cdef uint8_t turn_round(Worker *worker, uint32_t i) noexcept nogil:
    """Back into the TUN as it came out: the kernel delivers it. KEPT: it is no concern of the tunnels; or a Drop."""
    cdef uint8_t result = Drop.NO_PORT
    if worker.tun != NULL:
        result = io.write_back(worker.tun, worker.burst, i)
    if result != ALIVE:
        return result
    worker.counted.to_tun.packets += worker.pieces[i]
    worker.counted.to_tun.octets += worker.octets[i]
    return KEPT


cdef uint8_t depart_by_choice(Worker *worker, uint32_t i) noexcept nogil:
    cdef Decision *decision = &worker.decision
    cdef uint32_t sequence = 0
    if decision.sequenced and decision.count == 1 and worker.pieces[i] > 1:
        return depart_one_by_one(worker, i)               # striped: segments of one bundle take different tunnels
    if decision.sequenced:
        sequence = numbers(worker, i, worker.pieces[i])
    if decision.count > 1:
        return depart_copies(worker, i, sequence)
    return depart(worker, i, decision.tunnel[0], sequence, i)


cdef uint8_t depart_copies(Worker *worker, uint32_t i, uint32_t sequence) noexcept nogil:
    """One copy by each tunnel of the choice (bicast): the packet lives while one of them does."""
    cdef Decision *decision = &worker.decision
    cdef uint8_t result = Drop.NO_PATH
    cdef bint left = False
    cdef uint32_t k
    worker.copied[i] = True
    for k in range(decision.count):
        if worker.copies == MOST_COPIES:
            io.flush(&worker.outbox)
            settle_copies(worker)
        worker.results[WIDTH + worker.copies] = ALIVE
        result = depart(worker, i, decision.tunnel[k], sequence, WIDTH + worker.copies)
        if result == ALIVE:
            worker.copy_of[worker.copies] = <uint16_t>i
            worker.copy_by[worker.copies] = decision.tunnel[k]
            worker.copies += 1
            left = True
    return ALIVE if left else result


cdef void settle_copies(Worker *worker) noexcept nogil:
    """The outbox is flushed: each copy counts for its tunnel if it left; the packet is dead if none did."""
    cdef uint32_t c, i
    for c in range(worker.copies):
        i = worker.copy_of[c]
        if worker.results[WIDTH + c] == ALIVE:
            worker.tunnels[worker.copy_by[c]].packets_out += worker.pieces[i]
            worker.tunnels[worker.copy_by[c]].octets_out += worker.octets[i]
            worker.copied[i] = COPY_LEFT
            worker.results[i] = ALIVE
        elif worker.copied[i] != COPY_LEFT:
            worker.results[i] = worker.results[WIDTH + c]
            worker.burst.tunnel[i] = worker.copy_by[c]
    worker.copies = 0


cdef inline uint32_t numbers(Worker *worker, uint32_t i, uint32_t count) noexcept nogil:
    """The first of so many sequence numbers for packet i, in the numbering of its bundle (RFC 2890 2.2)."""
    cdef const Binding *binding = prefixes.at(&worker.tables.prefixes, worker.found[i])
    return bundles.next_sequence(&worker.tables.bundles, binding.target, count)


# --- departure -----------------------------------------------------------------------------------------

cdef uint8_t depart(Worker *worker, uint32_t i, uint32_t index, uint32_t sequence, uint32_t tag) noexcept nogil:
    """Packet i leaves by that tunnel when the outbox is flushed; a Drop, or ALIVE. tag: of its result."""
    cdef Burst *burst = worker.burst
    cdef Tunnel *tunnel = tunnels.at(&worker.tables.tunnels, index)
    cdef uint8_t shim[16]
    cdef uint8_t result
    cdef Way way
    burst.tunnel[i] = index
    result = way_of(worker, i, tunnel, &sequence, shim, &way)
    if result != ALIVE:
        return result
    if worker.clamp != 0:
        clamp.clamp(burst, i, mtu_of(worker, tunnel))
    if burst.gso[i] == GSO_NONE:
        if burst.checksum_offset[i] != 0:
            result = offload.finish_checksum(burst, i)    # once: a second copy has it already
        if result == ALIVE:
            io.add_packet(&worker.outbox, &way, burst.packet[i], burst.length[i], tag)
        return result
    result = offload.begin(&worker.segments, burst, i)
    if result != ALIVE:
        return result
    while offload.advance(&worker.segments):
        io.add_segments(&worker.outbox, &way, &worker.segments, tag)
        io.flush(&worker.outbox)                          # the header blocks are used again
        if way.sequenced:
            sequence += worker.segments.count
            outer.shim(tunnel, burst.family[i], True, sequence, shim)
    return ALIVE


cdef uint8_t way_of(
    Worker *worker, uint32_t i, Tunnel *tunnel, uint32_t *sequence, uint8_t *shim, Way *way,
) noexcept nogil:
    """How packet i leaves by that tunnel, if it may."""
    cdef Burst *burst = worker.burst
    cdef uint8_t result = may_enter(worker, i, tunnel)
    if result != ALIVE:
        return result
    way.port = port_for(worker, tunnel, burst.family[i])
    if way.port == NULL:
        return Drop.NO_PORT
    way.sequenced = is_numbered(worker, i, tunnel)
    if way.sequenced and not worker.decision.sequenced:
        sequence[0] = fetch_add32(&tunnel.sequence, worker.pieces[i])  # a numbering of its own (RFC 2890 2.2)
    way.peer = tunnel.peer
    way.peer_length = tunnel.peer_length
    way.flow_label = <uint32_t>(burst.flow[i] & 0xFFFFF)  # RFC 6438 3
    way.traffic_class = traffic_class(burst.packet[i])    # DSCP, and ECN in normal mode (RFC 6040 4.1)
    way.shim = shim
    way.shim_length = <uint8_t>outer.shim(tunnel, burst.family[i], way.sequenced, sequence[0], shim)
    burst.sequenced[i] = way.sequenced                    # for the tap
    burst.sequence[i] = sequence[0]
    return ALIVE


cdef inline bint is_numbered(Worker *worker, uint32_t i, const Tunnel *tunnel) noexcept nogil:
    """Packet i has a place in a sequence: that of its bundle, if it is striped or copied; else that of a lone tunnel.

    A flow that keeps to one tunnel of a bundle has none: its numbers would be taken for those of the bundle.
    """
    return tunnel.flags & SEQUENCED != 0 and (
        worker.decision.sequenced != 0 or not prefixes.at(&worker.tables.prefixes, worker.found[i]).many)


cdef inline uint8_t may_enter(Worker *worker, uint32_t i, Tunnel *tunnel) noexcept nogil:
    cdef Burst *burst = worker.burst
    if same_address(burst.source[i], tunnel.local) and same_address(burst.destination[i], tunnel.remote):
        return Drop.LOOP                                  # RFC 2473 4.1.2
    if too_big(worker, i, load32_relaxed(&tunnel.mtu)) and not forgotten(worker, tunnel):
        complain(worker, icmp.TOO_BIG_FOR_TUNNEL, burst.packet[i], burst.length[i], tunnel)
        return Drop.TOO_BIG
    return ALIVE


cdef bint forgotten(const Worker *worker, Tunnel *tunnel) noexcept nogil:
    """What was learned of the path is old: larger packets are tried again (RFC 8201 4)."""
    cdef uint32_t known = load32_relaxed(&tunnel.mtu_known)
    if known == 0 or worker.fragments.clock - known < MTU_AGE:
        return False
    store32_relaxed(&tunnel.mtu, 0)
    return True


cdef inline bint too_big(const Worker *worker, uint32_t i, uint32_t mtu) noexcept nogil:
    """It may not be sent through a tunnel of that MTU, not even in fragments (RFC 2473 7, RFC 4213 3.2)."""
    cdef const Burst *burst = worker.burst
    cdef uint32_t size
    if mtu == 0:
        return False
    size = burst.length[i]
    if burst.gso[i] != GSO_NONE and worker.pieces[i] > 1:
        size = min(size, <uint32_t>burst.segment[i] + (worker.octets[i] - size) // (worker.pieces[i] - 1))
    return size > mtu and not may_fragment(burst.packet[i], size)


cdef Port *port_for(Worker *worker, const Tunnel *tunnel, uint8_t inner) noexcept nogil:
    cdef uint32_t k
    cdef Port *port
    for k in range(worker.count):
        port = &worker.port[k]
        if (port.kind == tunnel.encapsulation and port.family == tunnel.family
                and (port.kind != IP_KIND or port.inner == inner) and same_address(port.local, tunnel.local)):
            return port
    return NULL


cdef uint8_t depart_one_by_one(Worker *worker, uint32_t i) noexcept nogil:
    """Each segment of a bundle by a choice of its own, with a number of its own. A Drop when none could leave."""
    cdef Burst *burst = worker.burst
    cdef offload.Segments *segments = &worker.segments
    cdef uint8_t result = offload.begin(segments, burst, i)
    cdef uint8_t shim[16]
    cdef uint32_t k, sequence, length
    cdef uint32_t last = 0                                # octets of the segment that left last; 0: none has
    cdef Totals counted                                   # those before it
    cdef uint8_t *at
    cdef bint first = True
    cdef Way way
    counted.packets = counted.octets = 0
    while result == ALIVE and offload.advance(segments):
        at = worker.scratch
        for k in range(segments.count):
            if not first:                                 # the first choice is made already
                result = choose(worker, i)
            first = False
            if result == ALIVE:
                sequence = numbers(worker, i, 1)
                result = way_of(worker, i, tunnels.at(&worker.tables.tunnels, worker.decision.tunnel[0]),
                                &sequence, shim, &way)
            if result != ALIVE:
                break
            if last != 0:
                count_one(worker, burst.tunnel[i], last, &counted)
            length = segments.header_length + segments.payload_length[k]
            burst.tunnel[i] = worker.decision.tunnel[0]
            memcpy(at, segments.block[k].header, segments.header_length)
            memcpy(at + segments.header_length, segments.payload[k], segments.payload_length[k])
            io.add_packet(&worker.outbox, &way, at, length, i)
            at += length
            last = length
        io.flush(&worker.outbox)
    if result != ALIVE and last != 0:
        count_one(worker, burst.tunnel[i], last, &counted)
    # what is left of it is counted with the burst: one segment, or those that could not leave
    worker.pieces[i] -= <uint32_t>counted.packets
    worker.octets[i] -= <uint32_t>counted.octets
    add(&worker.counted.to_underlay, counted)
    worker.rules[worker.rule[i]].packets += counted.packets
    worker.rules[worker.rule[i]].octets += counted.octets
    return result


cdef inline void count_one(Worker *worker, uint32_t tunnel, uint32_t octets, Totals *counted) noexcept nogil:
    worker.tunnels[tunnel].packets_out += 1
    worker.tunnels[tunnel].octets_out += octets
    counted.packets += 1
    counted.octets += octets


# --- what the way taught ---------------------------------------------------------------------------------

cdef void learn(Worker *worker) noexcept nogil:
    """What did not leave is dead. What was too big for the path tells the tunnel's MTU, and its sender is told."""
    cdef Burst *burst = worker.burst
    cdef uint32_t i
    cdef Tunnel *tunnel
    for i in range(burst.count):
        if burst.drop[i] != ALIVE or worker.results[i] == ALIVE:
            continue
        burst.drop[i] = worker.results[i]
        if burst.drop[i] == Drop.TOO_BIG:
            tunnel = tunnels.at(&worker.tables.tunnels, burst.tunnel[i])
            remember_mtu(worker, tunnel, io.path_mtu(tunnel.peer, tunnel.peer_length))
            complain(worker, icmp.TOO_BIG_FOR_TUNNEL, burst.packet[i], burst.length[i], tunnel)


cdef void remember_mtu(const Worker *worker, Tunnel *tunnel, uint32_t path) noexcept nogil:
    """path: octets of the largest outer packet; 0: not known. RFC 2473 6.7."""
    if path > <uint32_t>tunnel.outer_length + 68:
        store32_relaxed(&tunnel.mtu, path - tunnel.outer_length)
        store32_relaxed(&tunnel.mtu_known, worker.fragments.clock)


cdef inline uint32_t mtu_of(const Worker *worker, const Tunnel *tunnel) noexcept nogil:
    """Octets; as learned, else as configured."""
    cdef uint32_t mtu = load32_relaxed(&tunnel.mtu)
    return min(mtu, worker.clamp) if mtu != 0 else worker.clamp


cdef void complain(
    Worker *worker, icmp.Trouble trouble, const uint8_t *packet, uint32_t length, const Tunnel *tunnel,
) noexcept nogil:
    """An ICMP error into the TUN, for whoever sent packet, unless there were too many of late."""
    cdef uint8_t error[icmp.MOST_ERROR]
    cdef uint8_t virtio[VIRTIO_HEADER]
    cdef uint32_t mtu = load32_relaxed(&tunnel.mtu)
    cdef iovec vector[2]
    cdef uint32_t octets
    if worker.tun == NULL or not allowed(worker):
        return
    if version(packet) == 6 and mtu < LEAST_MTU6:
        mtu = LEAST_MTU6
    octets = icmp.complain(trouble, packet, length, mtu, tunnel.local, error)
    if octets == 0:
        return
    memset(virtio, 0, VIRTIO_HEADER)
    vector[0].iov_base = virtio
    vector[0].iov_len = VIRTIO_HEADER
    vector[1].iov_base = error
    vector[1].iov_len = octets
    worker.allowance -= 1
    if worker.tun.flags & VNET:
        octets = io.write_tun(worker.tun, vector, 2)
    else:
        octets = io.write_tun(worker.tun, vector + 1, 1)
    if octets == ALIVE:
        worker.counted.errors += 1


cdef bint allowed(Worker *worker) noexcept nogil:
    worker.allowance += <double>(worker.now - worker.allowance_at) * ERRORS / SECOND
    worker.allowance_at = worker.now
    if worker.allowance > ERRORS:
        worker.allowance = ERRORS
    return worker.allowance >= 1


cdef void heed_errors(Worker *worker, Port *port) noexcept nogil:
    """ICMP errors about what we sent: path MTUs for the tunnels, and news for the senders (RFC 2473 8)."""
    cdef uint32_t i
    begin(worker)
    for i in range(64):
        if io.read_error(port, &worker.trouble) <= 0:
            break
        if not worker.trouble.own:
            heed(worker, port)
    epochs.leave(&worker.tables.epochs, worker.number)


cdef void heed(Worker *worker, const Port *port) noexcept nogil:
    cdef Trouble *trouble = &worker.trouble
    cdef const uint8_t *quoted = trouble.quoted
    cdef uint32_t length = trouble.quoted_length
    cdef uint32_t known
    cdef Tunnel *tunnel
    if port.kind == GRE_KIND:
        if length < GRE_HEADER or length < GRE_HEADER + gre_options(load16(quoted)):
            return
        length -= GRE_HEADER + gre_options(load16(quoted))
        quoted += GRE_HEADER + gre_options(load16(quoted))
    if length < IP4_HEADER or (version(quoted) == 6 and length < IP6_HEADER) or (
            version(quoted) != 6 and version(quoted) != 4):
        return
    tunnel = tunnel_of(worker, quoted, trouble.peer)
    if tunnel == NULL:
        return                                            # believed only of a tunnel there is (RFC 8201 4)
    if trouble.kind == io.TOO_BIG:
        if tunnel.family == 6 and trouble.info < LEAST_MTU6:
            return                                        # no IPv6 path is so small (RFC 8201 4)
        known = load32_relaxed(&tunnel.mtu)
        if known == 0 or trouble.info < known + tunnel.outer_length:
            remember_mtu(worker, tunnel, trouble.info)            # an error raises nothing (RFC 8201 4)
        if not may_fragment(quoted, IP6_HEADER + <uint32_t>payload_length(quoted)):  # RFC 2473 8.2, 8.3
            complain(worker, icmp.TOO_BIG_FOR_TUNNEL, quoted, length, tunnel)
    elif trouble.kind == io.UNREACHABLE or trouble.kind == io.TIME_EXCEEDED:
        complain(worker, icmp.TUNNEL_BROKEN, quoted, length, tunnel)


cdef Tunnel *tunnel_of(Worker *worker, const uint8_t *packet, Address peer) noexcept nogil:
    """The tunnel to peer that this inner packet, of which the header is whole, would take; NULL: none."""
    cdef State *tables = worker.tables
    cdef uint8_t family = version(packet)
    cdef Address source, destination
    cdef uint32_t found
    cdef Tunnel *tunnel
    if family == 6:
        source = load_address(packet + 8)
        destination = load_address(packet + 24)
    else:
        source = load_address4(packet + 12)
        destination = load_address4(packet + 16)
    found = prefixes.match(&tables.prefixes, destination, family, ANCHOR)
    if found == 0:
        found = prefixes.match(&tables.prefixes, source, family, ACCESS)
    if found == 0:
        return NULL
    return member_at(tables, prefixes.at(&tables.prefixes, found), peer)


cdef Tunnel *member_at(State *tables, const Binding *binding, Address peer) noexcept nogil:
    cdef const bundles.Members *members
    cdef Tunnel *tunnel
    cdef uint32_t k
    if not binding.many:
        tunnel = tunnels.at(&tables.tunnels, binding.target)
        return tunnel if same_address(tunnel.remote, peer) else NULL
    members = bundles.members(&tables.bundles, binding.target)
    for k in range(members.count):
        tunnel = tunnels.at(&tables.tunnels, members.member[k].tunnel)
        if same_address(tunnel.remote, peer):
            return tunnel
    return NULL


# --- from the underlay: bursts of what the sockets unwrapped, to the TUN ---------------------------------

cdef int serve_underlay(Worker *worker, Port *port) noexcept nogil:
    """All that one look at the socket gave. Packets taken, or -errno: the port is of no more use."""
    cdef int count = io.receive_underlay(port, &worker.inbox)
    cdef int taken = 0
    if port.troubled or count == 0:
        heed_errors(worker, port)                         # what wakes us without a packet is an error
    if count <= 0:
        return count
    while io.fill(&worker.inbox, port, worker.burst, &worker.arrivals) > 0:
        begin(worker)
        reconsider(worker)
        if port.kind == GRE_KIND:
            strip(worker, outer.strip_gre)
        unwrap(worker)
        doubt(worker)
        deliver(worker)
        end(worker)
        taken += <int>worker.burst.count
    return taken


cdef void strip(Worker *worker, Strip take_off) noexcept nogil:
    """take_off: outer.strip of whole outer packets, outer.strip_gre of what a GRE socket gives."""
    cdef uint32_t i, whole
    for i in range(worker.burst.count):
        whole = worker.burst.length[i]
        worker.burst.drop[i] = take_off(worker.burst, i, &worker.arrivals)
        if worker.burst.drop[i] != ALIVE:
            worker.burst.length[i] = whole                # for the counters: it has no inner packet


cdef void unwrap(Worker *worker) noexcept nogil:
    """Packets without their outer headers are let in if their tunnel may carry them."""
    recognise(worker, &worker.arrivals)
    parse(worker, True)
    count_all(worker, &worker.counted.from_underlay)
    pop(worker)


cdef void recognise(Worker *worker, const Arrivals *a) noexcept nogil:
    """Which tunnel? Only configured pairs of end points may speak to us (RFC 2473 3.3, RFC 6275 10.4.5)."""
    cdef Burst *burst = worker.burst
    cdef uint32_t i
    for i in range(burst.count):
        if burst.drop[i] != ALIVE:
            continue
        if i > 0 and burst.drop[i - 1] == ALIVE and same_arrival(a, i, i - 1):
            burst.tunnel[i] = burst.tunnel[i - 1]         # usually a burst comes from one peer
            continue
        burst.tunnel[i] = tunnels.find(
            &worker.tables.tunnels, a.kind[i], a.keyed[i], a.port[i], a.key[i], a.local[i], a.peer[i])
        if burst.tunnel[i] == 0:
            burst.drop[i] = Drop.UNKNOWN_TUNNEL


cdef inline bint same_arrival(const Arrivals *a, uint32_t i, uint32_t k) noexcept nogil:
    return (a.port[i] == a.port[k] and a.kind[i] == a.kind[k] and a.keyed[i] == a.keyed[k] and a.key[i] == a.key[k]
            and same_address(a.peer[i], a.peer[k]) and same_address(a.local[i], a.local[k]))


cdef void pop(Worker *worker) noexcept nogil:
    """May this tunnel carry this packet? Then ECN moves from the outer to the inner header.

    From a node behind it; to one of ours; or from any router to one that is anchored here: it is given back.
    """
    cdef Burst *burst = worker.burst
    cdef State *tables = worker.tables
    cdef uint32_t i
    memset(worker.found, 0, burst.count * sizeof(worker.found[0]))
    prefixes.look_up(&tables.prefixes, burst.count, burst.source, burst.family, burst.drop,
                     ANCHOR | HELD | HOME | HERE, worker.found)
    for i in range(burst.count):
        if burst.drop[i] == ALIVE and not may_come_by(worker, worker.found[i], burst.tunnel[i]):
            worker.found[i] = 0
        worker.turned[i] = worker.found[i] == 0
    prefixes.look_up(&tables.prefixes, burst.count, burst.destination, burst.family, burst.drop,
                     ACCESS | ANCHOR | HELD | HOME | HERE, worker.found)
    for i in range(burst.count):
        if burst.drop[i] != ALIVE:
            continue
        if not may_come_by(worker, worker.found[i], burst.tunnel[i]) and not given_back(worker, i):
            burst.drop[i] = Drop.NOT_BOUND
            continue
        if burst.family[i] == 4 and comes_back(tunnels.at(&tables.tunnels, burst.tunnel[i]), burst.destination[i]):
            burst.drop[i] = Drop.LOOP
            continue
        prefixes.touch(prefixes.at(&tables.prefixes, worker.found[i]), worker.fragments.clock)
        burst.drop[i] = merge_ecn(burst.packet[i], burst.traffic_class[i] & 3)
        if burst.drop[i] == ALIVE and worker.turned[i]:
            take_back(worker, i)
    if load32_relaxed(&tables.connections.limit) != 0:
        follow(worker, connections.DOWN)


cdef inline bint given_back(const Worker *worker, uint32_t i) noexcept nogil:
    """To a prefix that is anchored here: whichever router had the node last may have it still. It goes on from here."""
    return (worker.turned[i] and worker.found[i] != 0
            and prefixes.at(&worker.tables.prefixes, worker.found[i]).side != ACCESS)


cdef inline void take_back(Worker *worker, uint32_t i) noexcept nogil:
    """A packet to a node that is not behind us: if others wait for that node they are younger, as its router had this.

    The kernel takes what is for a node that is here, and brings it to us once more if it has no link to it.
    """
    cdef const Binding *binding = prefixes.at(&worker.tables.prefixes, worker.found[i])
    cdef uint32_t buffer = load32_relaxed(&binding.hold)
    if buffer != 0 and not binding.side & (ACCESS | HERE):
        worker.burst.drop[i] = put_aside(worker, i, buffer, True)


cdef inline bint comes_back(const Tunnel *tunnel, Address destination) noexcept nogil:
    """It is for the router that wrapped it: it would go round (RFC 2784 3.1, of IPv4 in GRE)."""
    return tunnel.encapsulation == GRE and same_address(tunnel.remote, destination)


cdef inline bint may_come_by(const Worker *worker, uint32_t found, uint32_t tunnel) noexcept nogil:
    """The prefix is bound to that tunnel, or was until a moment ago."""
    cdef const Binding *binding
    if found == 0:
        return False
    binding = prefixes.at(&worker.tables.prefixes, found)
    return leads_to(worker.tables, binding.many, binding.target, tunnel) or came_by(worker, binding, tunnel)


cdef inline bint leads_to(State *tables, bint many, uint32_t target, uint32_t tunnel) noexcept nogil:
    if many:
        return is_member(bundles.members(&tables.bundles, target), tunnel)
    return target == tunnel


cdef bint came_by(const Worker *worker, const Binding *binding, uint32_t tunnel) noexcept nogil:
    """By the way that the prefix, or its bundle, had before, as long as packets may still be on it (RFC 6058)."""
    cdef const State *tables = worker.tables
    cdef uint32_t clock = worker.fragments.clock
    if transients.lets_in(&tables.transients, load32_relaxed(&binding.former), tunnel, clock):
        return True
    return binding.many and transients.lets_in(
        &tables.transients, load32_relaxed(&bundles.at(&tables.bundles, binding.target).former), tunnel, clock)


cdef inline bint is_member(const bundles.Members *members, uint32_t tunnel) noexcept nogil:
    cdef uint32_t k
    for k in range(members.count):
        if members.member[k].tunnel == tunnel:
            return True
    return False


cdef inline uint8_t merge_ecn(uint8_t *packet, uint8_t outer_ecn) noexcept nogil:
    """RFC 6040 4.2. Congestion must not be forgotten: where the inner header cannot say it, the loss does."""
    cdef uint8_t inner = get_ecn(packet)
    if outer_ecn == CE:
        if inner == NOT_ECT:
            return Drop.ECN
        set_ecn(packet, CE)
    elif outer_ecn == ECT_1 and inner == ECT_0:
        set_ecn(packet, ECT_1)
    return ALIVE


cdef void set_ecn(uint8_t *packet, uint8_t ecn) noexcept nogil:
    if version(packet) == 6:
        packet[1] = <uint8_t>((packet[1] & 0xCF) | (ecn << 4))
        return
    packet[1] = <uint8_t>((packet[1] & 0xFC) | ecn)
    store16(packet + 10, 0)
    checksum.store(packet + 10, checksum.finish(checksum.add(packet, 4 * <uint32_t>(packet[0] & 15), 0)))


# --- what nobody is known for yet ------------------------------------------------------------------------

cdef inline bint is_nobodys(uint8_t drop) noexcept nogil:
    """It died for want of a tunnel, or of a prefix that is bound to it."""
    return drop == Drop.UNKNOWN_TUNNEL or drop == Drop.NOT_BOUND


cdef inline uint32_t edits_of(const Worker *worker) noexcept nogil:
    """Differs from what it was, and from what it will be, while an edit is made."""
    return load32_acquire(&worker.tables.edits)


cdef void doubt(Worker *worker) noexcept nogil:
    """What is nobody's waits, as far as there is room: who tells of it may not have been heard yet.

    If that comes in this very moment, it goes first: others of its flow may be behind it in this burst.
    """
    cdef Burst *burst = worker.burst
    cdef Doubts *room = &worker.doubts
    cdef uint64_t patience = load64_relaxed(&worker.tables.patience)
    cdef uint32_t i
    if room.burst.count == 0:
        room.edits = worker.edits & ~<uint32_t>1
    for i in range(burst.count):
        if (patience != 0 and is_nobodys(burst.drop[i])
                and doubts.keep(room, burst, i, &worker.arrivals, worker.now + patience)):
            set_waiting(burst, i)
    ask_to_be_told(worker)
    reconsider(worker)


cdef void ask_to_be_told(Worker *worker) noexcept nogil:
    """The next edit rings our bell, as long as somebody waits for one."""
    cdef bint waits = worker.doubts.burst.count != 0
    if waits != worker.doubts.counted:
        worker.doubts.counted = waits
        fetch_add32(&worker.tables.doubters, 1 if waits else <uint32_t>-1)
    if waits:
        store32_relaxed(&worker.tables.wakes[worker.number], 1)
        full_fence()                                      # whoever edits sees this, or we see the edit


cdef void reconsider(Worker *worker) noexcept nogil:
    """The tables were edited, or it was long enough: what waits goes before what comes now, stays, or dies."""
    cdef Doubts *room = &worker.doubts
    cdef Burst *burst = worker.burst
    cdef uint32_t edits, i
    if room.burst.count == 0:
        return
    edits = edits_of(worker)
    if edits == room.edits and worker.now < doubts.next_end(room):
        return
    worker.burst = room.burst
    for i in range(LOOKS_AGAIN):                          # an edit in between would let in some, and not those before
        edits = wait_for_even(worker)
        try_all(worker)
        if edits_of(worker) == edits:
            break
    room.edits = edits & ~<uint32_t>1
    for i in range(room.burst.count):
        if is_nobodys(room.burst.drop[i]) and worker.now < room.until[i]:
            set_waiting(room.burst, i)
    deliver(worker)
    worker.burst = burst
    doubts.stay(room)
    ask_to_be_told(worker)


cdef void try_all(Worker *worker) noexcept nogil:
    """Who waits is let in if that may be. A further try finds those alive again that no hold buffer has taken."""
    cdef Burst *burst = worker.burst
    cdef uint32_t i
    for i in range(burst.count):
        if burst.drop[i] != KEPT and burst.drop[i] != Drop.HOLD_FULL:
            burst.drop[i] = ALIVE
    recognise(worker, &worker.doubts.arrivals)
    parse(worker, True)
    pop(worker)


cdef uint32_t wait_for_even(const Worker *worker) noexcept nogil:
    """The number of edits when none is being made: that takes a microsecond, unless who makes it was interrupted."""
    cdef uint32_t edits = edits_of(worker)
    cdef int k
    for k in range(YIELDS):
        if edits & 1 == 0:
            break
        sched_yield()
        edits = edits_of(worker)
    return edits


cdef void look_back(Worker *worker) noexcept nogil:
    """Without a burst that came: is anything known by now?"""
    if worker.doubts.burst.count != 0:
        begin(worker)
        reconsider(worker)
        end(worker)


cdef void give_up(Worker *worker) noexcept nogil:
    """The same for the last time: nothing is served any more, and what waits is counted."""
    memset(worker.doubts.until, 0, sizeof(worker.doubts.until))
    look_back(worker)


cdef inline void set_waiting(Burst *burst, uint32_t i) noexcept nogil:
    burst.drop[i] = KEPT
    burst.tunnel[i] = 0                                   # it came out of none yet


# --- delivery --------------------------------------------------------------------------------------------

cdef void deliver(Worker *worker) noexcept nogil:
    """Into the TUN: striped packets in order, segments of one flow merged again, one write for all of them."""
    cdef Burst *burst = worker.burst
    if tap.wanted(&worker.tap) != 0:
        record(worker, burst, tap.INBOUND)
    if worker.tables.reorders != NULL and arranged(worker):
        arrange(worker)
    else:
        write_burst(worker, burst)
    count_unwrapped(worker)


cdef bint arranged(const Worker *worker) noexcept nogil:
    """Some packet of the burst has a place in a sequence."""
    cdef const Burst *burst = worker.burst
    cdef uint32_t i
    for i in range(burst.count):
        if burst.drop[i] == ALIVE and group_of(worker, i) != 0:
            return True
    return False


cdef inline uint32_t group_of(const Worker *worker, uint32_t i) noexcept nogil:
    if not worker.burst.sequenced[i]:
        return 0
    return load32_relaxed(&tunnels.at(&worker.tables.tunnels, worker.burst.tunnel[i]).group)


cdef void arrange(Worker *worker) noexcept nogil:
    """The burst with every packet at its place: some wait for others, some are twins, some bring others with them."""
    cdef reorder.Groups *groups = <reorder.Groups *>worker.tables.reorders
    cdef Burst *burst = worker.burst
    cdef uint32_t i, group
    for i in range(burst.count):
        if burst.drop[i] != ALIVE:
            continue
        group = group_of(worker, i)
        if group != 0:
            burst.drop[i] = offer(worker, i, group)
        if burst.drop[i] == ALIVE:
            append(worker, i)
        if group != 0 and reorder.more(groups, group):
            append_taken(worker, group)
    write_ordered(worker)


cdef uint8_t offer(Worker *worker, uint32_t i, uint32_t group) noexcept nogil:
    cdef Burst *burst = worker.burst
    cdef waiting.Aside aside = waiting.aside_of(burst, i)
    cdef uint8_t answer = reorder.offer(
        <reorder.Groups *>worker.tables.reorders, group, &worker.ordering, burst.sequence[i], burst.packet[i],
        burst.length[i], &aside, worker.now)
    if answer == reorder.TWIN:
        return Drop.TWIN
    return KEPT if answer == reorder.KEPT else ALIVE


cdef void append(Worker *worker, uint32_t i) noexcept nogil:
    """Packet i of the burst is next in order."""
    cdef const Burst *burst = worker.burst
    cdef Burst *ordered = worker.ordered
    cdef uint32_t n = ordered.count
    if n == WIDTH:
        write_ordered(worker)
        n = 0
    ordered.packet[n] = burst.packet[i]
    ordered.length[n] = burst.length[i]
    ordered.family[n] = burst.family[i]
    ordered.source[n] = burst.source[i]
    ordered.destination[n] = burst.destination[i]
    ordered.protocol[n] = burst.protocol[i]
    ordered.transport[n] = burst.transport[i]
    ordered.ports[n] = burst.ports[i]
    ordered.flow[n] = burst.flow[i]
    ordered.tunnel[n] = burst.tunnel[i]
    ordered.count = n + 1


cdef void append_taken(Worker *worker, uint32_t group) noexcept nogil:
    """What waited for that packet."""
    cdef Burst *ordered = worker.ordered
    cdef waiting.Block *block
    while True:
        if ordered.count == WIDTH:
            write_ordered(worker)
        block = reorder.take(<reorder.Groups *>worker.tables.reorders, group, &worker.ordering)
        if block == NULL:
            return
        waiting.place(ordered, ordered.count, block)
        ordered.drop[ordered.count] = fault(ordered, ordered.count)
        flows.identify(ordered, ordered.count, &worker.fragments)
        ordered.count += 1


cdef void deliver_due(Worker *worker) noexcept nogil:
    """What waited in vain for those before it."""
    cdef reorder.Groups *groups = <reorder.Groups *>worker.tables.reorders
    cdef uint32_t group = reorder.due(groups, &worker.ordering, worker.now)
    while group != 0:
        append_taken(worker, group)
        group = reorder.due(groups, &worker.ordering, worker.now)
    write_ordered(worker)


cdef void write_ordered(Worker *worker) noexcept nogil:
    """What is in order goes, and the next begins."""
    write_burst(worker, worker.ordered)
    bursts.clear(worker.ordered, WIDTH)
    worker.ordered.count = 0


cdef void write_burst(Worker *worker, Burst *burst) noexcept nogil:
    cdef uint32_t at = 0
    cdef uint32_t i
    if worker.tun == NULL:
        for i in range(burst.count):
            if burst.drop[i] == ALIVE:
                worker.counted.drops[<uint32_t>Drop.NO_PORT] += 1
        return
    if worker.clamp != 0:
        for i in range(burst.count):
            if burst.drop[i] == ALIVE:
                clamp.clamp(burst, i, mtu_of(worker, tunnels.at(&worker.tables.tunnels, burst.tunnel[i])))
    while at < burst.count:
        at = offload.merge(&worker.merger, burst, at)
        write_ready(worker)
    offload.flush(&worker.merger)
    write_ready(worker)


cdef void write_ready(Worker *worker) noexcept nogil:
    cdef uint32_t k
    cdef Output *output
    cdef uint8_t result
    for k in range(worker.merger.made):
        output = &worker.merger.output[worker.merger.ready[k]]
        result = io.write_tun(worker.tun, output.vector, output.vectors)
        if result == ALIVE:
            worker.counted.to_tun.packets += output.packets
            worker.counted.to_tun.octets += output.octets
        else:
            worker.counted.drops[result] += output.packets
    offload.recycle(&worker.merger)


# --- counting --------------------------------------------------------------------------------------------

cdef void count_all(Worker *worker, Totals *totals) noexcept nogil:
    cdef uint64_t packets = 0
    cdef uint64_t octets = 0
    cdef uint32_t i
    for i in range(worker.burst.count):
        packets += worker.pieces[i]
        octets += worker.octets[i]
    totals.packets += packets
    totals.octets += octets
    if packets >= MANY:
        worker.dense = worker.now


cdef inline bint lives(Worker *worker, uint32_t i) noexcept nogil:
    """Packet i is alive; if not, it is counted under what it died of."""
    cdef uint8_t drop = worker.burst.drop[i]
    if drop == ALIVE:
        return True
    worker.counted.drops[drop] += worker.pieces[i]
    return False


cdef void count_wrapped(Worker *worker) noexcept nogil:
    cdef Burst *burst = worker.burst
    cdef Totals all
    cdef Totals run                      # of packets in a row to one tunnel: usually a whole burst
    cdef uint32_t tunnel = 0
    cdef uint32_t i
    all.packets = all.octets = run.packets = run.octets = 0
    count_rules(worker)
    for i in range(burst.count):
        if not lives(worker, i):
            continue
        if worker.copied[i]:                              # its tunnels have counted their copies
            all.packets += worker.pieces[i]
            all.octets += worker.octets[i]
            continue
        if burst.tunnel[i] != tunnel:
            add(&all, run)
            count_out(worker, tunnel, run)
            tunnel = burst.tunnel[i]
            run.packets = run.octets = 0
        run.packets += worker.pieces[i]
        run.octets += worker.octets[i]
    add(&all, run)
    count_out(worker, tunnel, run)
    add(&worker.counted.to_underlay, all)


cdef void count_rules(Worker *worker) noexcept nogil:
    """What each rule decided about, drops included."""
    cdef Totals run
    cdef uint32_t rule = 0
    cdef uint32_t i
    run.packets = run.octets = 0
    for i in range(worker.burst.count):
        if worker.rule[i] != rule:
            worker.rules[rule].packets += run.packets
            worker.rules[rule].octets += run.octets
            rule = worker.rule[i]
            run.packets = run.octets = 0
        run.packets += worker.pieces[i]
        run.octets += worker.octets[i]
    worker.rules[rule].packets += run.packets
    worker.rules[rule].octets += run.octets


cdef inline void add(Totals *totals, Totals more) noexcept nogil:
    totals.packets += more.packets
    totals.octets += more.octets


cdef inline void count_out(Worker *worker, uint32_t tunnel, Totals run) noexcept nogil:
    worker.tunnels[tunnel].packets_out += run.packets
    worker.tunnels[tunnel].octets_out += run.octets


cdef void count_unwrapped(Worker *worker) noexcept nogil:
    cdef Burst *burst = worker.burst
    cdef uint32_t i
    cdef tunnels.TunnelCount *count
    for i in range(burst.count):
        if lives(worker, i) or burst.drop[i] == KEPT:
            count = &worker.tunnels[burst.tunnel[i]]
            count.packets_in += 1
            count.octets_in += burst.length[i]


# --- the tap -----------------------------------------------------------------------------------------------

cdef void record(Worker *worker, const Burst *burst, uint32_t direction) noexcept nogil:
    """Copies of what goes through the tunnel that is captured; with an outer header as it is on the wire, if wanted."""
    cdef uint8_t header[MOST_OUTER]
    cdef uint32_t wanted = tap.wanted(&worker.tap)
    cdef uint32_t i
    cdef uint32_t octets = 0
    cdef Tunnel *tunnel
    for i in range(burst.count):
        if burst.drop[i] != ALIVE or (burst.tunnel[i] != wanted and wanted != tap.ALL_TUNNELS):
            continue
        if worker.tap_outer:
            tunnel = tunnels.at(&worker.tables.tunnels, burst.tunnel[i])
            octets = outer.compose(tunnel, burst.family[i], traffic_class(burst.packet[i]), burst.flow[i],
                                   burst.sequenced[i], burst.sequence[i], burst.packet[i], burst.length[i], header)
            if direction == tap.INBOUND:
                outer.turn_round(header, octets)
        tap.record(&worker.tap, direction, header, octets, burst.packet[i], burst.length[i], worker.now)


# --- a worker: serving until there is nothing left, and a little longer ------------------------------------

cdef int serve_port(Worker *worker, Port *port) noexcept nogil:
    if port.kind == TUN_KIND:
        return serve_tun(worker, port)
    return serve_underlay(worker, port)


cdef int attend(Worker *worker, uint32_t k) noexcept nogil:
    """Serve port k, then whatever comes while traffic is dense. Packets taken from port k, or -errno."""
    cdef int count = serve_port(worker, &worker.port[k])
    if count > 0:
        linger(worker)
    return count


cdef int turn(Worker *worker) noexcept nogil:
    """Serve what is ready, then whatever comes while traffic is dense. -1, or the index of a port that is dead."""
    worker.dead = -1
    look_back(worker)
    if look(worker, 0, -1) > 0 and worker.dead < 0:
        linger(worker)
    return worker.dead


cdef void linger(Worker *worker) noexcept nogil:
    """Look again a few times before going to sleep, for TURN ns at most.

    A worker that sleeps between two bursts pays for being woken; one that looks again, giving way to others, does not,
    and leaves the processor to them all the same. What is idle sleeps at once.
    """
    cdef uint64_t until = worker.now + TURN
    cdef int looks = 0
    if worker.now - worker.dense > SOON:
        return
    while looks < LOOKS and worker.now < until and worker.dead < 0:
        if look(worker, 0, -1) > 0:
            looks = 0
        else:
            looks += 1
            sched_yield()


cdef inline int watched(const Port *port) noexcept nogil:
    """What poll is asked about; -1 it passes over."""
    return -1 if port.flags & SEND_ONLY else port.fd


cdef int look(Worker *worker, int timeout, int stop) noexcept nogil:
    """Serve each port that has something, once, after waiting timeout ms for one (-1: without end).

    How many; one that is dead is noted in worker.dead. -1: the descriptor stop (-1: none) is readable.
    """
    cdef pollfd fds[MOST_PORTS + 2]
    cdef uint32_t k
    cdef uint32_t count = worker.count
    cdef int served = 0
    for k in range(count):
        fds[k].fd = watched(&worker.port[k])
    fds[count].fd = worker.bell
    fds[count + 1].fd = stop
    for k in range(count + 2):
        fds[k].events = POLLIN
        fds[k].revents = 0
    if poll(fds, count + 2, timeout) <= 0:
        return 0
    if fds[count + 1].revents:
        return -1
    if fds[count].revents:
        heed_bell(worker)
    for k in range(count):
        if fds[k].revents:
            if serve_port(worker, &worker.port[k]) < 0:
                worker.dead = <int>k
            served += 1
    return served


cdef int run(Worker *worker, int stop) noexcept nogil:
    """Serve all ports until stop is readable (-1), or a port is dead (its index)."""
    cdef int served
    worker.dead = -1
    while worker.dead < 0:
        served = look(worker, -1, stop)
        if served < 0:
            break
        if served > 0 and worker.dead < 0:
            linger(worker)
    give_up(worker)
    return worker.dead


# --- in memory: no sockets, whole outer packets -------------------------------------------------------------

cdef uint32_t compose(Worker *worker, uint32_t i, uint32_t index, uint32_t sequence) noexcept nogil:
    """Outer headers of packet i in that tunnel, into worker.header[i]. Octets; 0: it may not enter (burst.drop)."""
    cdef Burst *burst = worker.burst
    cdef Tunnel *tunnel = tunnels.at(&worker.tables.tunnels, index)
    burst.tunnel[i] = index
    burst.drop[i] = may_enter(worker, i, tunnel)
    if burst.drop[i] == ALIVE and tunnel.outer_length + burst.length[i] > <uint32_t>(
            0xFFFF + (IP6_HEADER if tunnel.family == 6 else 0)):
        burst.drop[i] = Drop.TOO_BIG                      # the length of the outer packet has 16 bits
    if burst.drop[i] != ALIVE:
        return 0
    if is_numbered(worker, i, tunnel) and not worker.decision.sequenced:
        sequence = fetch_add32(&tunnel.sequence, 1)
    if worker.clamp != 0:
        clamp.clamp(burst, i, mtu_of(worker, tunnel))
    return outer.compose(tunnel, burst.family[i], traffic_class(burst.packet[i]), burst.flow[i],
                         is_numbered(worker, i, tunnel), sequence, burst.packet[i], burst.length[i], worker.header[i])


cdef void rehearse_wrapping(Worker *worker, const uint8_t *prefixes_, size_t count, uint32_t round) noexcept nogil:
    """The loaded burst once more, each IPv6 packet to the next of the count prefixes (8 octets each)."""
    cdef Burst *burst = worker.burst
    cdef size_t at = <size_t>round * burst.count % count
    cdef uint32_t i
    for i in range(burst.count):
        memcpy(burst.packet[i] + 24, prefixes_ + 8 * ((at + i) if at + i < count else (at + i) % count), 8)
    bursts.clear(burst, burst.count)
    begin(worker)
    parse(worker, False)
    count_all(worker, &worker.counted.from_tun)
    lookup(worker)
    for i in range(burst.count):
        if burst.drop[i] == ALIVE:
            burst.drop[i] = choose(worker, i)
        if burst.drop[i] == ALIVE:
            compose(worker, i, worker.decision.tunnel[0], 0)
    count_wrapped(worker)
    epochs.leave(&worker.tables.epochs, worker.number)


# --- for Python --------------------------------------------------------------------------------------------

cdef Worker *create(Tables tables) except NULL:
    """A worker of those tables. Raises MemoryError, OverflowError when there are too many."""
    cdef Worker *worker = <Worker *>calloc(1, sizeof(Worker))
    if worker == NULL:
        raise MemoryError
    try:
        worker.number = tables.join()
    except OverflowError:
        free(worker)
        raise
    worker.tables = &tables.state
    worker.allowance = ERRORS
    worker.holding.worker = worker.number + 1
    worker.ordering.worker = worker.number + 1
    worker.alarm = waiting.NEVER
    worker.bell = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC)
    worker.burst = bursts.allocate()
    worker.ordered = bursts.allocate()
    worker.scratch = <uint8_t *>malloc(SCRATCH)
    if (worker.bell < 0 or worker.burst == NULL or worker.ordered == NULL or worker.scratch == NULL
            or io.prepare(&worker.inbox) < 0 or doubts.create(&worker.doubts) < 0 or flows.create(&worker.fragments) < 0
            or spread.create_decisions(&worker.decisions) < 0 or spread.create_schedules(&worker.schedules) < 0):
        destroy(tables, worker)
        raise MemoryError
    worker.rules = tables.rule_counts(worker.number)
    worker.tunnels = tables.tunnel_counts(worker.number)
    tables.state.bell[worker.number] = worker.bell
    offload.prepare(&worker.merger, 0)
    worker.chooser.bundles = &tables.state.bundles
    worker.chooser.policies = &tables.state.policies
    worker.chooser.pins = &tables.state.pins
    worker.chooser.now = &worker.now
    worker.chooser.states = &tunnels.at(&tables.state.tunnels, 0).state
    worker.chooser.stride = sizeof(Tunnel)
    worker.chooser.fragments = &worker.fragments
    worker.chooser.decisions = &worker.decisions
    worker.chooser.schedules = &worker.schedules
    return worker


cdef void destroy(Tables tables, Worker *worker):
    if worker == NULL:
        return
    tables.state.bell[worker.number] = -1
    if worker.doubts.counted:
        fetch_add32(&worker.tables.doubters, <uint32_t>-1)
    tables.part(worker.number)
    if worker.bell >= 0:
        close(worker.bell)
    tap.destroy(&worker.tap)
    doubts.destroy(&worker.doubts)
    bursts.release(worker.ordered)
    spread.destroy_schedules(&worker.schedules)
    spread.destroy_decisions(&worker.decisions)
    flows.destroy(&worker.fragments)
    io.discard(&worker.inbox)
    bursts.release(worker.burst)
    free(worker.scratch)
    free(worker)


cdef uint32_t merging(uint8_t flags) noexcept:
    """What may be merged before it is written to a TUN with those flags."""
    cdef uint32_t may = VIRTIO if flags & VNET else 0
    if flags & VNET and flags & TSO:
        may |= MERGE_TCP4 | MERGE_TCP6
    if flags & VNET and flags & USO:
        may |= MERGE_UDP4 | MERGE_UDP6
    return may


cdef class Path:
    """The path with its ports, buffers and counters; methods as in engine.model.Path. For one thread at a time.

    clamp: octets; TCP is told segments for packets of this size or of what a tunnel is known to take; 0: MSS is let be.
    """

    def __cinit__(self, Tables tables not None, uint32_t clamp=0):
        self.tables = tables
        self.worker = create(tables)
        self.worker.clamp = clamp

    def __dealloc__(self):
        destroy(self.tables, self.worker)

    def add_port(self, int fd, int kind, int family, int inner, int flags, bytes local not None):
        """Serve fd too. local: 16 octets, zeros for a TUN. Raises OverflowError past MOST_PORTS."""
        cdef Worker *worker = self.worker
        cdef Port *port = &worker.port[worker.count]
        if worker.count == MOST_PORTS:
            raise OverflowError(f"an engine serves {MOST_PORTS} ports at most")
        if len(local) != 16:
            raise ValueError("a local address has 16 octets")
        self.claim()
        memset(port, 0, sizeof(Port))
        port.fd = fd
        port.kind = <uint8_t>kind
        port.family = <uint8_t>family
        port.inner = <uint8_t>inner
        port.flags = <uint8_t>flags
        port.local = load_address(<const uint8_t *><char *>local)
        worker.count += 1
        choose_tun(worker)
        self.busy = False

    def remove_port(self, int fd):
        """Forget fd. False: it was not known."""
        cdef Worker *worker = self.worker
        cdef int k = self.port_of(fd)
        cdef uint32_t i
        if k < 0:
            return False
        self.claim()
        if worker.count == 1:
            give_up(worker)
        else:
            look_back(worker)
        for i in range(<uint32_t>k + 1, worker.count):
            worker.port[i - 1] = worker.port[i]
        worker.count -= 1
        choose_tun(worker)
        self.busy = False
        return True

    def flags(self, int fd):
        """What is left of the flags of a port: an offload that failed at run time is gone. -1: it was not known."""
        cdef int k = self.port_of(fd)
        return self.worker.port[k].flags if k >= 0 else -1

    def serve(self, int fd):
        """Take a burst from fd through the path, and more while it is busy. Packets taken, or -errno: fd is dead."""
        cdef int k = self.port_of(fd)
        cdef int count
        if k < 0:
            return -EBADF
        self.claim()
        self.worker.dead = -1
        with nogil:
            count = attend(self.worker, <uint32_t>k)
        self.busy = False
        return count

    def turn(self):
        """Serve what is ready, and more while it is busy. -1, or the descriptor of a port that is dead."""
        cdef int k
        self.claim()
        with nogil:
            k = turn(self.worker)
        self.busy = False
        return self.worker.port[k].fd if k >= 0 else -1

    def run(self, int stop):
        """Serve all ports, without the GIL, until stop is readable: -1; or until a port is dead: its descriptor."""
        cdef int k
        self.claim()
        with nogil:
            k = run(self.worker, stop)
        self.busy = False
        return self.worker.port[k].fd if k >= 0 else -1

    def encapsulate(self, list packets not None):
        """(whole outer packet, more for copies) of each as it would leave, or the number of its Drop."""
        cdef list answers = []
        cdef Py_ssize_t start
        self.claim()
        try:
            for run_ in runs(packets):
                self.encapsulate_burst(run_, answers)
        finally:
            self.busy = False
        return answers

    def decapsulate(self, list packets not None):
        """The packet inside each whole outer packet as it would be delivered, or the number of its Drop."""
        cdef list answers = []
        self.claim()
        try:
            for run_ in runs(packets):
                self.decapsulate_burst(run_, answers)
        finally:
            self.busy = False
        return answers

    def rehearse(self, list packets not None, bytes towards not None, uint32_t rounds):
        """Wrap a burst of IPv6 packets again and again, in memory, no object made: what the bench measures.

        towards: /64 prefixes, 8 octets each; every packet goes to the next one.
        """
        cdef uint32_t round
        cdef const uint8_t *prefixes_ = <const uint8_t *><char *>towards
        cdef size_t count = <size_t>len(towards) // 8
        self.claim()
        try:
            self.load(packets[:WIDTH])
            with nogil:
                for round in range(rounds):
                    rehearse_wrapping(self.worker, prefixes_, count, round)
        finally:
            self.busy = False

    def rehearse_back(self, list packets not None, uint32_t rounds):
        """Unwrap a burst of whole outer packets again and again, in memory, nothing delivered."""
        cdef Worker *worker = self.worker
        cdef Burst *burst = worker.burst
        cdef uint8_t *places[WIDTH]
        cdef uint32_t lengths[WIDTH]
        cdef uint32_t round, i
        self.claim()
        try:
            self.load(packets[:WIDTH])
            memcpy(places, burst.packet, sizeof(places))
            memcpy(lengths, burst.length, sizeof(lengths))
            with nogil:
                for round in range(rounds):
                    memcpy(burst.packet, places, sizeof(places))
                    memcpy(burst.length, lengths, sizeof(lengths))
                    bursts.clear(burst, burst.count)
                    begin(worker)
                    strip(worker, outer.strip)
                    unwrap(worker)
                    count_unwrapped(worker)
                    epochs.leave(&worker.tables.epochs, worker.number)
        finally:
            self.busy = False

    @property
    def bell(self):
        """A descriptor that is readable when packets that waited have to go: take a turn then."""
        return self.worker.bell

    def open_tap(self, bytes key, uint32_t snap, bint with_outer, int64_t offset):
        """Begin to copy packets of the tunnel with that key (None: of all). offset: ns, wall clock - monotonic.

        False: no such tunnel. MemoryError, RuntimeError when the tap is open already.
        """
        cdef uint32_t index = tap.ALL_TUNNELS if key is None else self.tables.tunnel_of(key)
        if index == 0:
            return False
        if tap.wanted(&self.worker.tap) != 0:
            raise RuntimeError("the tap of this worker is open already")
        self.worker.tap_outer = with_outer
        if tap.open_tap(&self.worker.tap, index, snap, TAP_RING, <uint64_t>offset) < 0:
            raise MemoryError
        return True

    def read_tap(self):
        """[(ns since 1970, direction, octets of the packet, what was kept of it)] since the last call."""
        return tap.read_records(&self.worker.tap)

    def close_tap(self):
        """Stop copying. Packets that found no room."""
        tap.close_tap(&self.worker.tap)
        return tap.lost_packets(&self.worker.tap)

    def counters(self):
        """Packets and octets from_tun, to_tun, from_underlay, to_underlay; errors; drops by number (0 is nobody)."""
        cdef Counters *c = &self.worker.counted
        cdef uint32_t i
        return (c.from_tun.packets, c.from_tun.octets, c.to_tun.packets, c.to_tun.octets,
                c.from_underlay.packets, c.from_underlay.octets, c.to_underlay.packets, c.to_underlay.octets,
                c.errors, [0] + [c.drops[i] for i in range(1, <uint32_t>KEPT)])

    cdef int port_of(self, int fd) noexcept:
        cdef uint32_t k
        for k in range(self.worker.count):
            if self.worker.port[k].fd == fd:
                return <int>k
        return -1

    cdef int claim(self) except -1:
        # The burst is one set of buffers: a second thread in it would overwrite the packets of the first.
        if self.busy:
            raise RuntimeError("this engine serves in another thread; give each thread its own")
        self.busy = True
        return 0

    cdef int load(self, list packets) except -1:
        """Into the arena, one behind the other, up to its end: whoever reads too far is caught by the sanitizer."""
        cdef Burst *burst = self.worker.burst
        cdef size_t octets = sum([len(packet) for packet in packets])
        cdef uint8_t *at = burst.arena + ARENA - octets
        cdef uint32_t i = 0
        cdef bytes packet
        if octets > ARENA:
            raise ValueError(f"{octets} octets in one burst, {ARENA} fit")
        bursts.clear(burst, <uint32_t>len(packets))
        for packet in packets:
            if len(packet) > LARGEST:
                raise ValueError(f"a packet of {len(packet)} octets; IP ends at 65575")
            memcpy(at, <const char *>packet, len(packet))
            burst.packet[i] = at
            burst.length[i] = <uint32_t>len(packet)
            at += len(packet)
            i += 1
        return 0

    cdef int encapsulate_burst(self, list packets, list answers) except -1:
        cdef Worker *worker = self.worker
        cdef Burst *burst = worker.burst
        cdef uint32_t i
        self.load(packets)
        begin(worker)
        parse(worker, False)
        count_all(worker, &worker.counted.from_tun)
        lookup(worker)
        try:
            for i in range(burst.count):
                answers.append(self.wrapped(i))
        finally:
            count_wrapped(worker)
            epochs.leave(&worker.tables.epochs, worker.number)
        return 0

    cdef object wrapped(self, uint32_t i):
        cdef Worker *worker = self.worker
        cdef Burst *burst = worker.burst
        cdef uint32_t sequence = 0
        cdef uint32_t left = 0
        cdef uint32_t k, header
        cdef list copies = []
        if burst.drop[i] == ALIVE and is_away(prefixes.at(&worker.tables.prefixes, worker.found[i])):
            burst.drop[i] = Drop.NODE_AWAY
        if burst.drop[i] == ALIVE:
            burst.drop[i] = choose(worker, i)
        if burst.drop[i] != ALIVE:
            return burst.drop[i]
        if worker.decision.sequenced:
            sequence = numbers(worker, i, 1)
        for k in range(worker.decision.count):
            header = compose(worker, i, worker.decision.tunnel[k], sequence)
            if header != 0:
                copies.append((<char *>worker.header[i])[:header] + (<char *>burst.packet[i])[:burst.length[i]])
                if left != 0:                             # count_wrapped counts one
                    worker.tunnels[left].packets_out += 1
                    worker.tunnels[left].octets_out += burst.length[i]
                left = burst.tunnel[i]
        if not copies:
            return burst.drop[i]
        burst.drop[i] = ALIVE
        burst.tunnel[i] = left
        return tuple(copies)

    cdef int decapsulate_burst(self, list packets, list answers) except -1:
        cdef Worker *worker = self.worker
        cdef Burst *burst = worker.burst
        cdef uint32_t i
        self.load(packets)
        begin(worker)
        strip(worker, outer.strip)
        unwrap(worker)
        count_unwrapped(worker)
        for i in range(burst.count):
            if burst.drop[i] == ALIVE:
                if worker.clamp != 0:
                    clamp.clamp(burst, i, mtu_of(worker, tunnels.at(&worker.tables.tunnels, burst.tunnel[i])))
                worker.counted.to_tun.packets += 1
                worker.counted.to_tun.octets += burst.length[i]
                answers.append((<char *>burst.packet[i])[:burst.length[i]])
            else:
                answers.append(burst.drop[i])
        epochs.leave(&worker.tables.epochs, worker.number)
        return 0


cdef void choose_tun(Worker *worker) noexcept:
    """What is unwrapped goes to the first TUN port."""
    cdef uint32_t k
    worker.tun = NULL
    for k in range(worker.count):
        if worker.port[k].kind == TUN_KIND:
            worker.tun = &worker.port[k]
            offload.prepare(&worker.merger, merging(worker.tun.flags))
            return


def runs(list packets):
    """Cut packets into bursts that fit an arena."""
    cdef list run_ = []
    cdef size_t octets = 0
    for packet in packets:
        if run_ and (len(run_) == WIDTH or octets + <size_t>len(packet) > ARENA):
            yield run_
            run_ = []
            octets = 0
        run_.append(packet)
        octets += <size_t>len(packet)
    if run_:
        yield run_
