"""Finding tunnels, and making, keeping, moving and ending them; the sum of what workers counted."""

from libc.string cimport memcpy, memset

from engine._fast cimport chains, epochs, slabs
from engine._fast.chains cimport Heads, Link
from engine._fast.headers cimport (
    DONT_FRAGMENT, GRE_HEADER, IP4_HEADER, IP6_HEADER, PROTO_GRE, PROTO_IPV6, PROTO_UDP, UDP_HEADER, UDP_PORT,
    is_mapped, load16, load32, load_address, same_address, store16, store32, store_address,
)
from engine._fast.kernel cimport (
    AF_INET, AF_INET6, htobe32, load32_acquire, load64_relaxed, sockaddr_in, sockaddr_in6,
)

cdef enum:
    HOP_LIMIT = 64           # of outer headers (RFC 2473 6.3; the default of the Assigned Numbers)

cdef struct Identity:
    uint8_t encapsulation
    uint8_t has_key
    uint16_t port
    uint32_t key
    Address local
    Address remote


# --- readers -------------------------------------------------------------------------------------------

cdef uint32_t find(
    Tunnels *tunnels, uint8_t encapsulation, bint has_key, uint16_t port, uint32_t key, Address local, Address remote,
) noexcept nogil:
    """Index of the tunnel with that identity, or 0. Between enter and leave, or the writer."""
    cdef Identity identity
    identity.encapsulation = encapsulation
    identity.has_key = has_key
    identity.port = port
    identity.key = key
    identity.local = local
    identity.remote = remote
    return tunnel_of(tunnels, &identity)


cdef uint32_t tunnel_of(Tunnels *tunnels, const Identity *wanted) noexcept nogil:
    cdef const Heads *heads = chains.heads(&tunnels.chains)
    cdef uint32_t index = load32_acquire(chains.head(heads, hash_of(tunnels, wanted)))
    cdef const Door *door
    while index != 0:
        door = door_at(tunnels, index)
        if (same_address(door.remote, wanted.remote) and same_address(door.local, wanted.local)
                and door.key == wanted.key and door.port == wanted.port
                and door.encapsulation == wanted.encapsulation and door.has_key == wanted.has_key):
            return door.tunnel
        index = chains.following(heads, <const Link *>door)
    return 0


cdef inline Door *door_at(const Tunnels *tunnels, uint32_t index) noexcept nogil:
    return &(<Door *>tunnels.doors.base)[index]


cdef inline Tunnel *entry_at(const Tunnels *tunnels, uint32_t index) noexcept nogil:
    return &(<Tunnel *>tunnels.entries.base)[index]


cdef uint64_t hash_of(const Tunnels *tunnels, const Identity *wanted) noexcept nogil:
    cdef uint64_t h = (wanted.remote.high ^ tunnels.seed) * <uint64_t>0x9E3779B97F4A7C15U
    h = ((h ^ (h >> 29)) + wanted.remote.low) * <uint64_t>0xBF58476D1CE4E5B9U
    h = ((h ^ (h >> 32)) + wanted.local.low) * <uint64_t>0x94D049BB133111EBU
    h = ((h ^ (h >> 32)) + wanted.local.high) * <uint64_t>0x9E3779B97F4A7C15U
    h = ((h ^ (h >> 32)) + (<uint64_t>wanted.key << 32 | <uint64_t>wanted.port << 8
                            | wanted.encapsulation)) * <uint64_t>0xD6E8FEB86659FD93U
    return h ^ (h << 31)


# --- the writer ----------------------------------------------------------------------------------------

cdef int create(Tunnels *tunnels, uint64_t seed) noexcept nogil:
    """No tunnels. The place of tunnels must not change. -1: no memory."""
    cdef Tunnel shape
    memset(tunnels, 0, sizeof(Tunnels))
    tunnels.seed = seed
    if (slabs.create(&tunnels.entries, sizeof(Tunnel), MOST_TUNNELS,
                     <uint32_t>(<uint8_t *>&shape.next_free - <uint8_t *>&shape)) < 0
            or slabs.create(&tunnels.doors, sizeof(Door), MOST_TUNNELS, 8) < 0
            or slabs.create(&tunnels.before, sizeof(TunnelCount), MOST_TUNNELS, 0) < 0
            or chains.create(&tunnels.chains, &tunnels.doors) < 0):
        destroy(tunnels)
        return -1
    return 0


cdef void destroy(Tunnels *tunnels) noexcept nogil:
    """No reader is left, and limbo is empty."""
    cdef uint32_t worker
    chains.destroy(&tunnels.chains)
    slabs.destroy(&tunnels.entries)
    slabs.destroy(&tunnels.doors)
    slabs.destroy(&tunnels.before)
    for worker in range(<uint32_t>MOST_WORKERS):
        slabs.destroy(&tunnels.counted[worker])
    memset(tunnels, 0, sizeof(Tunnels))


cdef TunnelCount *counts(Tunnels *tunnels, uint32_t worker) noexcept nogil:
    """Counters of one worker by index of the tunnel; room for more comes before more tunnels do. NULL: no memory."""
    cdef Slab *slab = &tunnels.counted[worker]
    if slab.base == NULL and slabs.create(slab, sizeof(TunnelCount), MOST_TUNNELS, 0) < 0:
        return NULL
    if slabs.back(slab, tunnels.entries.used) < 0:
        return NULL
    return <TunnelCount *>slab.base


cdef TunnelCount total(Tunnels *tunnels, uint32_t index) noexcept nogil:
    """What all workers counted since the tunnel was made."""
    cdef TunnelCount result = sum_of(tunnels, index)
    cdef const TunnelCount *before = &(<TunnelCount *>tunnels.before.base)[index]
    result.packets_in -= before.packets_in
    result.octets_in -= before.octets_in
    result.packets_out -= before.packets_out
    result.octets_out -= before.octets_out
    return result


cdef TunnelCount sum_of(Tunnels *tunnels, uint32_t index) noexcept nogil:
    cdef TunnelCount result
    cdef const TunnelCount *counted
    cdef uint32_t worker
    memset(&result, 0, sizeof(result))
    for worker in range(<uint32_t>MOST_WORKERS):
        # a worker whose room was refused for want of memory has less than the others
        if (<size_t>index + 1) * sizeof(TunnelCount) <= tunnels.counted[worker].backed:
            counted = &(<TunnelCount *>tunnels.counted[worker].base)[index]
            result.packets_in += load64_relaxed(&counted.packets_in)
            result.octets_in += load64_relaxed(&counted.octets_in)
            result.packets_out += load64_relaxed(&counted.packets_out)
            result.octets_out += load64_relaxed(&counted.octets_out)
    return result


cdef uint32_t find_identity(Tunnels *tunnels, const uint8_t *octets) noexcept nogil:
    """Index of the tunnel of that identity (IDENTITY octets), or 0."""
    cdef Identity identity = read_identity(octets)
    return tunnel_of(tunnels, &identity)


cdef Identity read_identity(const uint8_t *octets) noexcept nogil:
    cdef Identity identity
    identity.encapsulation = octets[0]
    identity.has_key = octets[1] & HAS_KEY_IN
    identity.port = load16(octets + 2)
    identity.key = load32(octets + 4)
    identity.local = load_address(octets + 8)
    identity.remote = load_address(octets + 24)
    return identity


cdef uint32_t acquire(Tunnels *tunnels, const uint8_t *octets, const uint8_t *traits) noexcept nogil:
    """Index of the tunnel of that identity, which has one user more; 0: there is none.

    octets: IDENTITY, traits: TRAITS. The newest traits hold.
    """
    cdef uint32_t index = find_identity(tunnels, octets)
    if index != 0:
        set_traits(entry_at(tunnels, index), traits)
        entry_at(tunnels, index).users += 1
    return index


cdef uint32_t add(Tunnels *tunnels, Epochs *epochs, const uint8_t *octets, const uint8_t *traits) noexcept nogil:
    """Index of a new tunnel of that identity, which has one user. 0: no memory, or too many."""
    cdef Identity identity = read_identity(octets)
    cdef uint32_t index = make(tunnels, epochs, &identity, traits)
    if index != 0:
        entry_at(tunnels, index).users = 1
    return index


cdef void hold(Tunnels *tunnels, uint32_t index) noexcept nogil:
    """One user more."""
    entry_at(tunnels, index).users += 1


cdef bint release(Tunnels *tunnels, Epochs *readers, uint32_t index) noexcept nogil:
    """One user less. True: that was the last one, and the tunnel is gone."""
    cdef Tunnel *tunnel = entry_at(tunnels, index)
    tunnel.users -= 1
    if tunnel.users > 0:
        return False
    chains.remove(&tunnels.chains, readers, tunnel.door)
    epochs.retire_entry(readers, &tunnels.doors, tunnel.door)
    epochs.retire_entry(readers, &tunnels.entries, index)
    epochs.reclaim(readers)
    return True


cdef int follow(Tunnels *tunnels, Epochs *readers, uint32_t index, uint16_t port) noexcept nogil:
    """The peer behind a NAT sends from another port: answers go there, what comes from there is known.

    -1: no memory; -2: another tunnel has that identity. Then nothing has changed. Packets of either port are
    known in between, none is lost.
    """
    cdef Tunnel *tunnel = entry_at(tunnels, index)
    cdef uint32_t before = tunnel.door
    cdef Identity identity = identity_of(door_at(tunnels, before))
    cdef uint32_t door
    identity.port = port
    if tunnel_of(tunnels, &identity) == index:
        return 0
    if tunnel_of(tunnels, &identity) != 0:
        return -2
    door = make_door(tunnels, &identity, index)
    if door == 0:
        return -1
    set_port(tunnel, port)
    tunnel.door = door
    chains.add(&tunnels.chains, readers, door)
    chains.remove(&tunnels.chains, readers, before)
    epochs.retire_entry(readers, &tunnels.doors, before)
    epochs.reclaim(readers)
    return 0


cdef size_t octets(const Tunnels *tunnels) noexcept nogil:
    """Memory, octets: entries touched, doors and heads; counters not included."""
    return (slabs.octets_used(&tunnels.entries) + slabs.octets_used(&tunnels.doors) + chains.octets(&tunnels.chains))


# --- one tunnel ----------------------------------------------------------------------------------------

cdef uint32_t make(Tunnels *tunnels, Epochs *epochs, const Identity *identity, const uint8_t *traits) noexcept nogil:
    cdef uint32_t index = slabs.take(&tunnels.entries)
    cdef uint32_t door = 0
    if index == 0:
        return 0
    if make_room(tunnels, index) == 0:
        door = make_door(tunnels, identity, index)
    if door == 0:
        slabs.give_back(&tunnels.entries, index)
        return 0
    dress(entry_at(tunnels, index), identity, traits)
    entry_at(tunnels, index).door = door
    (<TunnelCount *>tunnels.before.base)[index] = sum_of(tunnels, index)
    chains.add(&tunnels.chains, epochs, door)
    return index


cdef int make_room(Tunnels *tunnels, uint32_t index) noexcept nogil:
    """Every worker can count for that tunnel before one sees it. -1: no memory."""
    cdef uint32_t worker
    for worker in range(<uint32_t>MOST_WORKERS):
        if tunnels.counted[worker].base != NULL and slabs.back(&tunnels.counted[worker], index + 1) < 0:
            return -1
    return slabs.back(&tunnels.before, index + 1)


cdef uint32_t make_door(Tunnels *tunnels, const Identity *identity, uint32_t index) noexcept nogil:
    """A door of that identity to the tunnel, not linked yet. 0: no memory, or too many."""
    cdef uint32_t number = slabs.take(&tunnels.doors)
    cdef Door *door = door_at(tunnels, number)
    if number == 0:
        return 0
    door.hash = hash_of(tunnels, identity)
    door.local = identity.local
    door.remote = identity.remote
    door.key = identity.key
    door.port = identity.port
    door.encapsulation = identity.encapsulation
    door.has_key = identity.has_key
    door.tunnel = index
    return number


cdef Identity identity_of(const Door *door) noexcept nogil:
    cdef Identity identity
    identity.encapsulation = door.encapsulation
    identity.has_key = door.has_key
    identity.port = door.port
    identity.key = door.key
    identity.local = door.local
    identity.remote = door.remote
    return identity


cdef void dress(Tunnel *tunnel, const Identity *identity, const uint8_t *traits) noexcept nogil:
    """All that packets want to know of a new tunnel."""
    tunnel.encapsulation = identity.encapsulation
    tunnel.family = 4 if is_mapped(identity.remote) else 6
    tunnel.flags = HAS_KEY_IN if identity.has_key else 0
    tunnel.key_in = identity.key
    tunnel.local = identity.local
    tunnel.remote = identity.remote
    if tunnel.family == 6:
        write_outer6(tunnel)
    else:
        write_outer4(tunnel)
    set_port(tunnel, identity.port)
    set_traits(tunnel, traits)


cdef void set_traits(Tunnel *tunnel, const uint8_t *traits) noexcept nogil:
    """Flags and outgoing key. Key first: a packet that leaves in this moment has one of the two keys."""
    cdef uint8_t flags = (tunnel.flags & HAS_KEY_IN) | (traits[0] & (HAS_KEY_OUT | SEQUENCED))
    tunnel.key_out = load32(traits + 1)
    tunnel.flags = flags
    tunnel.outer_length = IP6_HEADER if tunnel.family == 6 else IP4_HEADER
    if tunnel.encapsulation == UDP:
        tunnel.outer_length += UDP_HEADER
    elif tunnel.encapsulation == GRE:
        tunnel.outer_length += GRE_HEADER + (4 if flags & HAS_KEY_OUT else 0) + (4 if flags & SEQUENCED else 0)


cdef void set_port(Tunnel *tunnel, uint16_t port) noexcept nogil:
    """Two aligned octets each in peer and outer, so that no packet meets half a port."""
    cdef uint32_t ip = IP6_HEADER if tunnel.family == 6 else IP4_HEADER
    tunnel.port = port
    if tunnel.encapsulation == UDP:
        store16(tunnel.peer + 2, port)
        store16(tunnel.outer + ip + 2, port)


cdef uint8_t protocol_of(const Tunnel *tunnel) noexcept nogil:
    """Of the outer IP header. IP: of an IPv6 packet, whoever composes writes 4 for the other."""
    if tunnel.encapsulation == UDP:
        return PROTO_UDP
    return PROTO_GRE if tunnel.encapsulation == GRE else PROTO_IPV6


cdef void write_outer6(Tunnel *tunnel) noexcept nogil:
    cdef sockaddr_in6 peer
    memset(&peer, 0, sizeof(peer))
    peer.sin6_family = <uint16_t>AF_INET6
    store_address(peer.sin6_addr.s6_addr, tunnel.remote)
    memcpy(tunnel.peer, &peer, sizeof(peer))
    tunnel.peer_length = sizeof(peer)
    tunnel.outer[0] = 0x60
    tunnel.outer[6] = protocol_of(tunnel)
    tunnel.outer[7] = HOP_LIMIT
    store_address(tunnel.outer + 8, tunnel.local)
    store_address(tunnel.outer + 24, tunnel.remote)
    if tunnel.encapsulation == UDP:
        store16(tunnel.outer + IP6_HEADER, UDP_PORT)


cdef void write_outer4(Tunnel *tunnel) noexcept nogil:
    cdef sockaddr_in peer
    memset(&peer, 0, sizeof(peer))
    peer.sin_family = <uint16_t>AF_INET
    peer.sin_addr.s_addr = htobe32(<uint32_t>tunnel.remote.low)
    memcpy(tunnel.peer, &peer, 8)
    tunnel.peer_length = 16
    tunnel.outer[0] = 0x45
    store16(tunnel.outer + 6, DONT_FRAGMENT)
    tunnel.outer[8] = HOP_LIMIT
    tunnel.outer[9] = protocol_of(tunnel)
    store32(tunnel.outer + 12, <uint32_t>tunnel.local.low)
    store32(tunnel.outer + 16, <uint32_t>tunnel.remote.low)
    if tunnel.encapsulation == UDP:
        store16(tunnel.outer + IP4_HEADER, UDP_PORT)
