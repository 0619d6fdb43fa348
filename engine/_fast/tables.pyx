"""Tables for Python: the same methods as engine.model.tables.Tables, over C structures.

A prefix comes as 16 octets (IPv4: mapped, ::ffff:a.b.c.d) and its kind, family << 8 | length in bits of that family; a
tunnel as its face, an engine.Tunnel, or, where it must exist, as the 40 octets of its key. Bundles and policies are
numbers; whoever made one holds one reference and gives it back with release_*; what is bound holds another.

Every edit ends with all indices consistent: no Python object is made, and so nothing else can run, in its middle.
"""

import os

from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy, memset

from engine._fast cimport (
    bundles, connections, epochs, hold, pins, prefixes, reorder, rules, slabs, transients, tunnels,
)
from engine._fast.bundles cimport MOST_BUNDLES, MOST_MEMBERS, Member, Members
from engine._fast.burst cimport WIDTH
from engine._fast.connections cimport OpenOnes
from engine._fast.headers cimport is_mapped, load_address, store_address
from engine._fast.kernel cimport (
    full_fence, itimerspec, load8_relaxed, load32_relaxed, load64_relaxed, store8_relaxed, store32_relaxed,
    store32_release, store64_relaxed, timerfd_settime,
)
from engine._fast.prefixes cimport ACCESS, ANCHOR, HELD, HERE, HOME, Binding
from engine._fast.rules cimport MOST_COUNTERS, MOST_RULES, RULE_OCTETS, Rule, Rules
from engine._fast.tunnels cimport IDENTITY, TRAITS, Tunnel

cdef enum:
    SWEEP = 100000           # transient bindings that go at once: some 20 ms


cdef class Tables:
    def __cinit__(self):
        cdef bytes seeds = os.urandom(16)
        cdef Address seed = load_address(seeds)
        memset(&self.state, 0, sizeof(State))
        memset(&self.bound, 0, sizeof(Slab))
        memset(self.state.bell, 0xFF, sizeof(self.state.bell))
        self.faces = [None]
        self.rule_faces = {}
        if (epochs.create(&self.state.epochs) < 0 or prefixes.create(&self.state.prefixes, seed.high) < 0
                or tunnels.create(&self.state.tunnels, seed.low) < 0 or bundles.create(&self.state.bundles) < 0
                or rules.create(&self.state.policies) < 0 or pins.create(&self.state.pins) < 0
                or connections.create(&self.state.connections) < 0 or transients.create(&self.state.transients) < 0
                or slabs.create(&self.bound, sizeof(uint32_t), MOST_BUNDLES, 0) < 0):
            raise MemoryError

    def __dealloc__(self):
        cdef uint32_t worker
        epochs.destroy(&self.state.epochs)
        prefixes.destroy(&self.state.prefixes)
        tunnels.destroy(&self.state.tunnels)
        bundles.destroy(&self.state.bundles)
        rules.destroy(&self.state.policies)
        pins.destroy(&self.state.pins)
        connections.destroy(&self.state.connections)
        transients.destroy(&self.state.transients)
        slabs.destroy(&self.bound)
        destroy_queues(&self.state)
        free(self.rule_before)
        for worker in range(<uint32_t>MOST_WORKERS):
            free(self.rule_counted[worker])

    # --- prefixes ---

    def bind(self, bytes network, int kind, int side, object to, uint32_t policy=0):
        """Add a prefix, or move it: to a tunnel (its face) or a bundle (its number). MemoryError: nothing has changed.

        policy: number, or 0.
        """
        cdef Address address = network_of(network, kind)
        cdef uint8_t many = isinstance(to, int)
        cdef uint32_t target
        if side != ANCHOR and side != ACCESS:
            raise ValueError(f"no side has the number {side}")
        if policy != 0:
            self.check_policy(policy)
        if many:
            target = to
            self.check_bundle(target)
            self.take_target(True, target)
        else:
            target = self.acquire_tunnel(to)
            tunnels.at(&self.state.tunnels, target).prefixes += 1
        if policy != 0:
            rules.keep(&self.state.policies, policy)
        self.put(address, <uint16_t>kind, <uint8_t>side, many, target, policy, True)

    def hold(self, bytes network, int kind, bint waits=False):
        """The node is nowhere: packets to the prefix die of NODE_AWAY, or wait in a buffer.

        Then it keeps the tunnel, or the bundle, that it had: what is still on its way through that is let in.
        """
        if waits:
            self.keep_tunnel(network_of(network, kind), <uint16_t>kind, HELD)
        else:
            self.put(network_of(network, kind), <uint16_t>kind, HELD, False, 0, 0, False)

    def leave(self, bytes network, int kind):
        """The node is here, where the kernel delivers: what it brings to us dies of NODE_AWAY, or waits in a buffer."""
        self.leave_way(network_of(network, kind), <uint16_t>kind, HERE)

    def unbind(self, bytes network, int kind):
        """Forget the prefix. False: it was not known."""
        cdef uint32_t index = prefixes.find(&self.state.prefixes, network_of(network, kind), <uint16_t>kind)
        cdef Binding *binding = prefixes.at(&self.state.prefixes, index)
        cdef uint8_t many = binding.many
        cdef uint32_t target = binding.target
        cdef uint32_t policy = binding.policy
        cdef uint32_t former = binding.former
        if index == 0:
            return False
        self.begin_edit()                                 # a shorter prefix may show
        prefixes.remove(&self.state.prefixes, &self.state.epochs, index)
        self.end_edit()
        self.let_go(many, target, policy)
        self.forget_former(former)
        return True

    def bindings(self):
        """(network, kind, side, face or bundle or None when held, home or here, policy) of every prefix, in no order."""
        cdef list rows = []
        cdef uint32_t i = 1
        while i < self.state.prefixes.entries.used:
            if prefixes.at(&self.state.prefixes, i).listed:
                rows.append(self.row_of(i))
            i += 1
        return rows

    def match(self, bytes address, int sides, int family=6):
        """Row, as in bindings(), of the longest prefix around address whose side is among sides, or None."""
        cdef Address wanted = load_address(checked(address, 16))
        cdef uint32_t index = prefixes.match(&self.state.prefixes, wanted, <uint8_t>family, <uint8_t>sides)
        return None if index == 0 else self.row_of(index)

    def __len__(self):
        return self.state.prefixes.chains.count

    def row_of(self, uint32_t index):
        cdef Binding *binding = prefixes.at(&self.state.prefixes, index)
        cdef Address network
        network.high = binding.high
        network.low = binding.low
        target = self.target_of(binding.many, binding.target) if binding.side & (ANCHOR | ACCESS) else None
        return octets_of(network), binding.kind, binding.side, target, binding.policy

    # --- activity ---

    def touch(self, bytes network, int kind):
        """A packet of that prefix passed just now. False: the prefix is not known."""
        cdef uint32_t index = prefixes.find(&self.state.prefixes, network_of(network, kind), <uint16_t>kind)
        if index == 0:
            return False
        prefixes.touch(prefixes.at(&self.state.prefixes, index), clock_now())
        return True

    def activity(self, bytes network, int kind):
        """Seconds since the last packet of that prefix, to 0.1; None: there was none. KeyError: not known."""
        cdef uint32_t index = prefixes.find(&self.state.prefixes, network_of(network, kind), <uint16_t>kind)
        cdef uint32_t last
        if index == 0:
            raise KeyError(network)
        last = load32_relaxed(&prefixes.at(&self.state.prefixes, index).last)
        return since_last(last) / 10 if last & 1 else None

    def idle(self, double seconds):
        """(network, kind) of every prefix without a packet for that long, counted from its first bind. No order."""
        cdef list rows = []
        cdef Binding *binding
        cdef uint32_t i = 1
        while i < self.state.prefixes.entries.used:
            binding = prefixes.at(&self.state.prefixes, i)
            if binding.listed and since_last(load32_relaxed(&binding.last)) >= seconds * 10:
                rows.append(self.row_of(i)[:2])
            i += 1
        return rows

    # --- connections ---

    def follow_connections(self, uint32_t limit):
        """Follow TCP connections of prefixes whose node is here. limit: 0.1 s of silence that end one; 0: do not."""
        store32_relaxed(&self.state.connections.limit, limit)

    def connections(self, bytes network, int kind):
        """(how many of that prefix are open, s since the last packet of any; None: none is). KeyError: not known.

        Those that are not followed are not counted, but their packets are.
        """
        cdef uint32_t index = prefixes.find(&self.state.prefixes, network_of(network, kind), <uint16_t>kind)
        cdef Binding *binding = prefixes.at(&self.state.prefixes, index)
        cdef OpenOnes found
        if index == 0:
            raise KeyError(network)
        found = connections.count(&self.state.connections, binding.hash, clock_now())
        return self.open_ones(binding, found.number, found.age)

    def all_connections(self):
        """(network, kind, how many, s) of each prefix that has open ones, as connections() says it. No order."""
        cdef list rows = []
        cdef dict counted = self.counted_connections()
        cdef Binding *binding
        cdef uint32_t i = 1
        while i < self.state.prefixes.entries.used:
            binding = prefixes.at(&self.state.prefixes, i)
            if binding.listed and binding.side == ACCESS:
                number, age = counted.get(<uint32_t>(binding.hash >> 32), (0, 0xFFFFFFFF))
                number, seconds = self.open_ones(binding, number, age)
                if seconds is not None:
                    rows.append((*self.row_of(i)[:2], number, seconds))
            i += 1
        return rows

    def crowd(self, bytes network, int kind, uint32_t age):
        """The prefix has open connections that are not followed; the last packet of any passed so long ago, 0.1 s.

        False: the prefix is not known.
        """
        cdef uint32_t index = prefixes.find(&self.state.prefixes, network_of(network, kind), <uint16_t>kind)
        if index == 0:
            return False
        store32_relaxed(&prefixes.at(&self.state.prefixes, index).crowded, max(<uint32_t>1, clock_now() - age))
        return True

    def crowded(self):
        """Packets of open connections that are not followed, as there is no place for them."""
        return load64_relaxed(&self.state.connections.crowded)

    cdef object open_ones(self, const Binding *binding, uint32_t number, uint32_t age):
        cdef uint32_t crowded = load32_relaxed(&binding.crowded)
        if crowded != 0 and since(crowded) < load32_relaxed(&self.state.connections.limit):
            age = min(age, since(crowded))
        return number, None if age == 0xFFFFFFFFU else age / 10

    cdef dict counted_connections(self):
        """Upper half of the hash of a prefix -> (open connections, age of their last packet, 0.1 s)."""
        cdef dict counted = {}
        cdef const connections.Connections *known = &self.state.connections
        cdef connections.Connection *each
        cdef uint32_t now = clock_now()
        cdef uint32_t i
        for i in range(<uint32_t>(connections.SETS * connections.WAYS)):
            each = <connections.Connection *>slabs.at(&known.slab, i)
            if connections.is_open(known, each, now):
                number, age = counted.get(each.prefix, (0, 0xFFFFFFFF))
                counted[each.prefix] = number + 1, min(age, connections.age_of(each, now))
        return counted

    # --- ways before ---

    def set_transience(self, uint32_t tenths):
        """0.1 s that the way a prefix had lets in what is of it, from when it has another; 0: not at all."""
        self.transience = tenths
        transients.shorten(&self.state.transients, clock_now() + tenths)

    def sweep(self):
        """Let go of ways whose time is over, SWEEP at most. Whether there are others."""
        cdef uint32_t k
        for k in range(<uint32_t>SWEEP):
            if not self.sweep_one():
                break
        return self.state.transients.oldest != 0

    # --- tunnels ---

    def tunnels(self):
        """(face, state, mtu, prefixes, packets in, octets in, packets out, octets out) of every tunnel, in no order.

        mtu: octets of the largest inner packet, 0: not known. prefixes: also those bound to it through a bundle.
        """
        cdef list rows = []
        cdef dict through = self.through_bundles()
        cdef Tunnel *tunnel
        cdef TunnelCount count
        cdef uint32_t i = 1
        while i < self.state.tunnels.entries.used:
            tunnel = tunnels.at(&self.state.tunnels, i)
            if tunnel.users > 0:
                count = tunnels.total(&self.state.tunnels, i)
                rows.append((self.faces[i], tunnel.state, tunnel.mtu, tunnel.prefixes + through.get(i, 0),
                             count.packets_in, count.octets_in, count.packets_out, count.octets_out))
            i += 1
        return rows

    def through_bundles(self):
        cdef dict prefixes_of = {}
        cdef const Members *members
        cdef uint32_t i = 1
        cdef uint32_t k, number
        while i < self.state.bundles.slab.used:
            number = (<uint32_t *>self.bound.base)[i] if bundles.at(&self.state.bundles, i).users > 0 else 0
            if number > 0:
                members = bundles.members(&self.state.bundles, i)
                for tunnel in {members.member[k].tunnel for k in range(members.count)}:
                    prefixes_of[tunnel] = prefixes_of.get(tunnel, 0) + number
            i += 1
        return prefixes_of

    def known(self, bytes key):
        """Face of the tunnel with that key, or None."""
        cdef uint32_t index = self.tunnel_of(key)
        return None if index == 0 else self.faces[index]

    def set_state(self, bytes key, int state):
        """State of a tunnel: 0 up, 1 suspect, 2 down. KeyError: not known."""
        cdef uint32_t index = self.some_tunnel(key)
        if not 0 <= state <= 2:
            raise ValueError(f"no state has the number {state}")
        store8_relaxed(&tunnels.at(&self.state.tunnels, index).state, <uint8_t>state)
        self.changed()

    def state_of(self, bytes key):
        """State of a tunnel. KeyError: not known."""
        return load8_relaxed(&tunnels.at(&self.state.tunnels, self.some_tunnel(key)).state)

    def set_mtu(self, bytes key, uint32_t mtu):
        """Largest inner packet of a tunnel, octets; 0: not known. KeyError: no such tunnel."""
        cdef Tunnel *tunnel = tunnels.at(&self.state.tunnels, self.some_tunnel(key))
        store32_relaxed(&tunnel.mtu, mtu)
        store32_relaxed(&tunnel.mtu_known, 0)

    def mtu_of(self, bytes key):
        """Largest inner packet of a tunnel, octets; 0: not known. KeyError: no such tunnel."""
        return load32_relaxed(&tunnels.at(&self.state.tunnels, self.some_tunnel(key)).mtu)

    def follow(self, bytes key, int port, object face):
        """The peer sends from another UDP port now; face is the tunnel with that port. KeyError: no such tunnel.

        False: another tunnel has that identity, and nothing has changed. MemoryError: the same.
        """
        cdef uint32_t index = self.some_tunnel(key)
        cdef int answer
        self.begin_edit()
        answer = tunnels.follow(&self.state.tunnels, &self.state.epochs, index, <uint16_t>port)
        self.end_edit()
        if answer == -1:
            raise MemoryError
        if answer < 0:
            return False
        self.faces[index] = face
        return True

    def count_in(self, bytes key, uint64_t octets, uint64_t packets=1):
        """Packets came out of the tunnel."""
        # less before is more since: the writer counts without a seat
        cdef TunnelCount *before = &(<TunnelCount *>self.state.tunnels.before.base)[self.some_tunnel(key)]
        before.packets_in -= packets
        before.octets_in -= octets

    def count_out(self, bytes key, uint64_t octets, uint64_t packets=1):
        """Packets went into the tunnel."""
        cdef TunnelCount *before = &(<TunnelCount *>self.state.tunnels.before.base)[self.some_tunnel(key)]
        before.packets_out -= packets
        before.octets_out -= octets

    def next_sequence(self, object of):
        """Number of the next sequenced packet (RFC 2890 2.2) of a tunnel (its key) or a bundle (its number)."""
        cdef uint32_t *place
        cdef uint32_t number
        if isinstance(of, int):
            self.check_bundle(of)
            place = &bundles.at(&self.state.bundles, of).sequence
        else:
            place = &tunnels.at(&self.state.tunnels, self.some_tunnel(of)).sequence
        number = load32_relaxed(place)
        store32_relaxed(place, number + 1)
        return number

    # --- bundles ---

    def make_bundle(self, list paths):
        """Number of a new bundle. paths: 1 to 16 of (face, BID, label, weight). The caller holds one reference."""
        cdef uint32_t bundle = self.acquire_bundle(paths, 0)
        return bundle

    def change_bundle(self, uint32_t bundle, list paths):
        """Other paths for all that is bound to the bundle, from the next burst on. MemoryError: nothing has changed."""
        self.check_bundle(bundle)
        self.acquire_bundle(paths, bundle)
        self.changed()

    def keep_bundle(self, uint32_t bundle):
        """One reference more."""
        self.check_bundle(bundle)
        bundles.keep(&self.state.bundles, bundle)

    def release_bundle(self, uint32_t bundle):
        """One reference less; with the last one the bundle goes."""
        self.check_bundle(bundle)
        self.let_go_of_bundle(bundle)
        epochs.reclaim(&self.state.epochs)

    def paths(self, uint32_t bundle):
        """(face, BID, label, weight) of each path, in the order of BIDs."""
        cdef const Members *members
        cdef uint32_t k
        self.check_bundle(bundle)
        members = bundles.members(&self.state.bundles, bundle)
        return [(self.faces[members.member[k].tunnel], members.member[k].bid, members.member[k].label,
                 members.member[k].weight) for k in range(members.count)]

    def check_bundle(self, uint32_t bundle):
        if not 0 < bundle < self.state.bundles.slab.used or bundles.at(&self.state.bundles, bundle).users == 0:
            raise KeyError(bundle)

    # --- flows ---

    def set_patience(self, uint64_t patience):
        """ns that a packet waits for its tunnel, or its prefix, to be bound; 0: it dies at once."""
        store64_relaxed(&self.state.patience, patience)

    def set_flow_pause(self, uint64_t pause):
        """ns that a flow is silent before weights, paths and preferences may move it; 0: they do so at once."""
        pins.set_pause(&self.state.pins, pause)

    # --- policies ---

    def make_policy(self, list rules):
        """Number of a new policy: flow rules, first match decides. The caller holds one reference."""
        cdef uint32_t policy = self.acquire_policy(rules, 0)
        return policy

    def change_policy(self, uint32_t policy, list rules):
        """Other rules for all that is bound with the policy, from the next burst on. MemoryError: nothing has changed."""
        self.check_policy(policy)
        self.acquire_policy(rules, policy)
        self.changed()

    def keep_policy(self, uint32_t policy):
        """One reference more."""
        self.check_policy(policy)
        rules.keep(&self.state.policies, policy)

    def release_policy(self, uint32_t policy):
        """One reference less; with the last one the policy goes."""
        self.check_policy(policy)
        self.let_go_of_policy(policy)
        epochs.reclaim(&self.state.epochs)

    def rules(self, uint32_t policy):
        """(rule, packets, octets) in the order of the policy."""
        cdef const Rules *block
        cdef list rows = []
        cdef RuleCount count
        cdef uint32_t k
        self.check_policy(policy)
        faces = self.rule_faces[policy]
        block = rules.rules_of(&self.state.policies, policy)
        for k in range(block.count):
            count = self.rule_total(block.rule[k].counter)
            rows.append((faces[k], count.packets, count.octets))
        return rows

    def policies(self):
        """Numbers of all policies."""
        return list(self.rule_faces)

    def count_rule(self, uint32_t policy, uint32_t rule, uint64_t octets, uint64_t packets=1):
        """Packets were treated by that rule of the policy (its place in the list)."""
        cdef const Rules *block
        self.check_policy(policy)
        block = rules.rules_of(&self.state.policies, policy)
        if rule >= block.count:
            raise IndexError(rule)
        if self.rule_before != NULL and block.rule[rule].counter != 0:
            self.rule_before[block.rule[rule].counter].packets -= packets
            self.rule_before[block.rule[rule].counter].octets -= octets

    def check_policy(self, uint32_t policy):
        if policy not in self.rule_faces:
            raise KeyError(policy)

    # --- all together ---

    def octets(self):
        """Memory of bindings and tunnels, octets, once what is unused was given back."""
        epochs.settle(&self.state.epochs)
        return prefixes.octets(&self.state.prefixes) + tunnels.octets(&self.state.tunnels)

    def generation(self):
        """Rises with every change that decisions may depend on."""
        return self.state.generation

    # --- as a reader: tests and bench ---

    def hammer(self, bytes addresses, int sides, uint32_t rounds):
        """Look addresses (16 octets each) up again and again without the GIL, as a worker does, and check what is found.

        Returns (not found, found but wrong). IPv4 addresses are mapped ones.
        """
        cdef uint32_t worker = self.join()
        cdef Hammer hammer
        cdef uint32_t i
        memset(&hammer, 0, sizeof(hammer))
        try:
            load_hammer(&hammer, addresses, <uint8_t>sides)
            with nogil:
                for i in range(rounds):
                    strike(&self.state, worker, &hammer, True)
        finally:
            free_hammer(&hammer)
            self.part(worker)
        return hammer.missed, hammer.wrong

    def rehearse(self, bytes addresses, int sides, uint32_t rounds):
        """The same without checks: look-ups of bursts of 256, nothing else. Returns how many found nothing."""
        cdef uint32_t worker = self.join()
        cdef Hammer hammer
        cdef uint32_t i
        memset(&hammer, 0, sizeof(hammer))
        try:
            load_hammer(&hammer, addresses, <uint8_t>sides)
            with nogil:
                for i in range(rounds):
                    strike(&self.state, worker, &hammer, False)
        finally:
            free_hammer(&hammer)
            self.part(worker)
        return hammer.missed

    # --- for the path ---

    cdef uint32_t join(self) except 0xFFFFFFFF:
        cdef int32_t worker = epochs.join(&self.state.epochs)
        if worker < 0:
            raise OverflowError(f"{MOST_WORKERS} workers read these tables already")
        return <uint32_t>worker

    cdef void part(self, uint32_t worker):
        epochs.part(&self.state.epochs, worker)

    cdef TunnelCount *tunnel_counts(self, uint32_t worker) except NULL:
        cdef TunnelCount *counts = tunnels.counts(&self.state.tunnels, worker)
        if counts == NULL:
            raise MemoryError
        return counts

    cdef RuleCount *rule_counts(self, uint32_t worker) except NULL:
        if self.rule_counted[worker] == NULL:
            self.rule_counted[worker] = <RuleCount *>calloc(MOST_COUNTERS, sizeof(RuleCount))
        if self.rule_counted[worker] == NULL:
            raise MemoryError
        return self.rule_counted[worker]

    # --- inside ---

    cdef uint32_t tunnel_of(self, bytes key) except? 0xFFFFFFFF:
        return tunnels.find_identity(&self.state.tunnels, checked(key, IDENTITY))

    def some_tunnel(self, bytes key):
        cdef uint32_t index = self.tunnel_of(key)
        if index == 0:
            raise KeyError(key)
        return index

    cdef uint32_t acquire_tunnel(self, object face) except 0:
        """One user more of that tunnel."""
        cdef bytes key = face.key
        cdef bytes traits = face.traits
        cdef const uint8_t *identity = checked(key, IDENTITY)
        cdef const uint8_t *rest = checked(traits, TRAITS)
        cdef uint32_t index = tunnels.acquire(&self.state.tunnels, identity, rest)
        if index == 0:
            self.begin_edit()                             # whatever any peer may give back comes in by it
            index = tunnels.add(&self.state.tunnels, &self.state.epochs, identity, rest)
            self.end_edit()
        if index == 0:
            raise MemoryError
        while len(self.faces) <= <Py_ssize_t>index:
            self.faces.append(None)
        self.faces[index] = face
        return index

    cdef uint32_t acquire_bundle(self, list paths, uint32_t before) except 0:
        """A new bundle, or other paths for that one. Its number."""
        cdef Member members[MOST_MEMBERS]
        cdef uint32_t acquired[MOST_MEMBERS]
        cdef uint32_t leaving[MOST_MEMBERS]
        cdef uint32_t taken = 0
        cdef uint32_t left = 0
        cdef uint32_t bundle = 0
        if not 1 <= len(paths) <= MOST_MEMBERS:
            raise ValueError(f"a bundle has 1 to {MOST_MEMBERS} paths, not {len(paths)}")
        memset(members, 0, sizeof(members))
        try:
            for face, bid, label, weight in paths:
                members[taken].bid = bid
                members[taken].label = label
                members[taken].weight = weight
                acquired[taken] = self.acquire_tunnel(face)
                members[taken].tunnel = acquired[taken]
                taken += 1
            if before != 0:
                left = tunnels_of(&self.state, before, leaving)
            self.begin_edit()
            bundle = place_bundle(&self.state, &self.bound, before, members, taken)
            if bundle != 0 and not are_among(leaving, left, acquired, taken):
                self.remember_members(bundle, leaving, left)
            self.end_edit()
            if bundle == 0:
                raise MemoryError
        finally:
            if bundle == 0:
                release_tunnels(&self.state, acquired, taken)
        release_tunnels(&self.state, leaving, left)
        return bundle

    cdef uint32_t acquire_policy(self, list faces, uint32_t before) except 0:
        """A new policy, or other rules for that one: rules that it had already go on counting. Its number."""
        cdef uint32_t count = <uint32_t>len(faces)
        cdef uint32_t policy = 0
        cdef dict counters = self.counters_of(before)
        cdef set kept = {0}.union(*counters.values())
        cdef Rule *block
        if count > MOST_RULES:
            raise ValueError(f"a policy has {MOST_RULES} rules at most, not {count}")
        if self.rule_before == NULL:
            self.rule_before = <RuleCount *>calloc(MOST_COUNTERS, sizeof(RuleCount))
        block = <Rule *>calloc(count + 1, sizeof(Rule))
        try:
            if block == NULL or self.rule_before == NULL:
                raise MemoryError
            read_rules(block, faces, counters)
            policy = place_policy(&self.state, before, block, count)
            if policy == 0:
                raise MemoryError
        finally:
            free(block)
        self.rule_faces[policy] = list(faces)
        self.begin_counting(policy, kept)
        return policy

    def counters_of(self, uint32_t policy):
        """Rule -> its counters, for the rules of a policy; empty for none."""
        cdef dict counters = {}
        cdef const Rules *block
        cdef uint32_t k
        if policy != 0:
            block = rules.rules_of(&self.state.policies, policy)
            for k in range(block.count):
                counters.setdefault(self.rule_faces[policy][k], []).append(block.rule[k].counter)
        return counters

    def begin_counting(self, uint32_t policy, set kept):
        """What workers counted until now under numbers that were not kept was for others."""
        cdef const Rules *block = rules.rules_of(&self.state.policies, policy)
        cdef uint32_t k
        for k in range(block.count):
            if block.rule[k].counter not in kept:
                self.rule_before[block.rule[k].counter] = self.rule_sum(block.rule[k].counter)

    cdef int put(
        self, Address address, uint16_t kind, uint8_t side, uint8_t many, uint32_t target, uint32_t policy, bint remember,
    ) except -1:
        """Make the prefix point to target with policy, which are ours already. MemoryError: they are given back.

        remember: what comes by the way it had is let in for a while.
        """
        cdef uint32_t before = prefixes.find(&self.state.prefixes, address, kind)
        cdef Binding old = prefixes.at(&self.state.prefixes, before)[0]
        cdef uint32_t former = self.remembered(before, address, many, target) if remember and before != 0 else 0
        cdef uint32_t index
        self.begin_edit()
        index = prefixes.put(&self.state.prefixes, &self.state.epochs, before, address, kind, side, many, target,
                             policy, former, clock_now())
        self.end_edit()
        if index == 0:
            if former != prefixes.at(&self.state.prefixes, before).former:
                self.forget_former(former)
            self.let_go(many, target, policy)
            raise MemoryError
        if before != 0:
            self.let_go(old.many, old.target, old.policy)
            if not remember:
                self.forget_former(old.former)
        return 0

    cdef uint32_t remembered(self, uint32_t before, Address address, uint8_t many, uint32_t target):
        """The transient binding of a prefix that gets this way: of the one it has, or the one that it has already."""
        cdef Binding *now = prefixes.at(&self.state.prefixes, before)
        cdef uint32_t coming[MOST_MEMBERS]
        cdef Transient wanted
        if self.transience == 0 or (now.many == many and now.target == target):
            return now.former
        memset(&wanted, 0, sizeof(wanted))
        wanted.high = address.high
        wanted.low = address.low
        wanted.kind = now.kind
        wanted.count = tunnels_of_way(&self.state, now.many, now.target, wanted.tunnel)
        if are_among(wanted.tunnel, wanted.count, coming, tunnels_of_way(&self.state, many, target, coming)):
            return now.former                             # nothing leaves
        return self.remember_tunnels(&wanted)

    cdef void remember_members(self, uint32_t bundle, const uint32_t *leaving, uint32_t count):
        """A bundle has other members now: those before let in for a while."""
        cdef Transient wanted
        cdef uint32_t index
        if self.transience == 0:
            return
        memset(&wanted, 0, sizeof(wanted))
        wanted.bundle = bundle
        wanted.count = count
        memcpy(wanted.tunnel, leaving, count * sizeof(leaving[0]))
        index = self.remember_tunnels(&wanted)
        store32_release(&bundles.at(&self.state.bundles, bundle).former, index)

    cdef uint32_t remember_tunnels(self, Transient *wanted):
        """A transient binding that holds these. 0: no memory: late packets are lost, no more than that."""
        cdef uint32_t index, k
        self.sweep_one()                                  # so that whoever never sweeps has few more than stand
        self.sweep_one()
        wanted.until = clock_now() + self.transience
        index = transients.add(&self.state.transients, wanted)
        if index != 0:
            for k in range(wanted.count):
                tunnels.hold(&self.state.tunnels, wanted.tunnel[k])
        return index

    cdef bint sweep_one(self):
        """The oldest transient binding goes, if it stands no more. False: it does, or there is none."""
        cdef uint32_t index = transients.pop(&self.state.transients, clock_now())
        cdef Transient *found = transients.at(&self.state.transients, index)
        cdef uint32_t *former
        cdef Address network
        if index == 0:
            return False
        if found.bundle != 0:
            former = &bundles.at(&self.state.bundles, found.bundle).former
        else:
            network.high = found.high
            network.low = found.low
            former = &prefixes.at(
                &self.state.prefixes, prefixes.find(&self.state.prefixes, network, found.kind)).former
        if former[0] == index:
            store32_relaxed(former, 0)
        self.forget_former(index)
        epochs.retire_entry(&self.state.epochs, &self.state.transients.slab, index)
        epochs.reclaim(&self.state.epochs)
        return True

    cdef void forget_former(self, uint32_t index):
        """Its tunnels are let go; the entry stays until it is the oldest."""
        cdef Transient *found = transients.at(&self.state.transients, index)
        cdef uint32_t count = found.count
        if index != 0 and count != 0:
            store32_relaxed(&found.count, 0)
            release_tunnels(&self.state, found.tunnel, count)

    cdef int keep_tunnel(self, Address address, uint16_t kind, uint8_t side) except -1:
        """Put the prefix on that side, with the tunnel or the bundle that it has, if any, and without a policy."""
        cdef Binding *now = prefixes.at(
            &self.state.prefixes, prefixes.find(&self.state.prefixes, address, kind))  # 0: all zeros
        cdef uint8_t many = now.many
        cdef uint32_t target = now.target
        if many:
            self.take_target(many, target)
        elif target != 0:
            tunnels.hold(&self.state.tunnels, target)
            tunnels.at(&self.state.tunnels, target).prefixes += 1
        return self.put(address, kind, side, many, target, 0, True)

    cdef int leave_way(self, Address address, uint16_t kind, uint8_t side) except -1:
        """Put the prefix on that side, with no way."""
        return self.put(address, kind, side, False, 0, 0, True)

    cdef void take_target(self, uint8_t many, uint32_t target):
        bundles.keep(&self.state.bundles, target)
        (<uint32_t *>self.bound.base)[target] += 1

    cdef void let_go(self, uint8_t many, uint32_t target, uint32_t policy):
        """A binding is gone: it gives back what it held."""
        if many:
            (<uint32_t *>self.bound.base)[target] -= 1
            self.let_go_of_bundle(target)
        elif target != 0:
            tunnels.at(&self.state.tunnels, target).prefixes -= 1
            tunnels.release(&self.state.tunnels, &self.state.epochs, target)
        if policy != 0:
            self.let_go_of_policy(policy)

    cdef void let_go_of_bundle(self, uint32_t bundle):
        cdef uint32_t leaving[MOST_MEMBERS]
        cdef uint32_t left = tunnels_of(&self.state, bundle, leaving)
        if bundles.release(&self.state.bundles, &self.state.epochs, bundle):
            release_tunnels(&self.state, leaving, left)

    cdef void let_go_of_policy(self, uint32_t policy):
        if rules.release(&self.state.policies, &self.state.epochs, policy):
            del self.rule_faces[policy]

    cdef object target_of(self, uint8_t many, uint32_t target):
        if many:
            return target
        return None if target == 0 else self.faces[target]

    cdef RuleCount rule_sum(self, uint32_t counter):
        cdef RuleCount total
        cdef uint32_t worker
        memset(&total, 0, sizeof(total))
        for worker in range(<uint32_t>MOST_WORKERS):
            if self.rule_counted[worker] != NULL:
                total.packets += load64_relaxed(&self.rule_counted[worker][counter].packets)
                total.octets += load64_relaxed(&self.rule_counted[worker][counter].octets)
        return total

    cdef RuleCount rule_total(self, uint32_t counter):
        """What was counted for a rule since it was made; rules beyond MOST_COUNTERS have none."""
        cdef RuleCount total = self.rule_sum(counter)
        total.packets -= self.rule_before[counter].packets
        total.octets -= self.rule_before[counter].octets
        if counter == 0:
            memset(&total, 0, sizeof(total))
        return total

    cdef void begin_edit(self) noexcept:
        """Packets that nobody was known for may be let in by what comes: whoever looks meanwhile looks again."""
        store32_release(&self.state.edits, self.state.edits + 1)

    cdef void end_edit(self) noexcept:
        """It is done. Who waits for it is woken, once until it has looked."""
        cdef uint32_t worker
        store32_release(&self.state.edits, self.state.edits + 1)
        full_fence()                                      # a worker that begins to wait sees this, or we see it
        if load32_relaxed(&self.state.doubters) == 0:
            return
        for worker in range(<uint32_t>MOST_WORKERS):
            if load32_relaxed(&self.state.wakes[worker]) != 0:
                store32_relaxed(&self.state.wakes[worker], 0)
                ring(&self.state, worker)

    cdef void changed(self):
        """The end of an edit on which decisions may depend."""
        store32_release(&self.state.generation, self.state.generation + 1)
        epochs.reclaim(&self.state.epochs)


# --- edits that no Python object takes part in ----------------------------------------------------------

cdef void ring(State *state, uint32_t worker) noexcept:
    """Wake a worker: it looks what may go now."""
    cdef itimerspec at_once
    memset(&at_once, 0, sizeof(at_once))
    at_once.it_value.tv_nsec = 1
    if state.bell[worker] > 0:
        timerfd_settime(state.bell[worker], 0, &at_once, NULL)


cdef void ring_all(State *state) noexcept:
    cdef uint32_t worker
    for worker in range(<uint32_t>MOST_WORKERS):
        ring(state, worker)


cdef void destroy_queues(State *state) noexcept:
    if state.holds != NULL:
        hold.destroy(<hold.Holds *>state.holds)
        free(state.holds)
    if state.reorders != NULL:
        reorder.destroy(<reorder.Groups *>state.reorders)
        free(state.reorders)


cdef uint32_t tunnels_of(State *state, uint32_t bundle, uint32_t *into) noexcept:
    """Tunnels of a bundle's members, MOST_MEMBERS at most. How many."""
    cdef const Members *members = bundles.members(&state.bundles, bundle)
    cdef uint32_t k
    for k in range(members.count):
        into[k] = members.member[k].tunnel
    return members.count


cdef uint32_t tunnels_of_way(State *state, uint8_t many, uint32_t target, uint32_t *into) noexcept:
    """The same of what a prefix is bound to: a bundle, a tunnel, or nothing (0)."""
    if many:
        return tunnels_of(state, target, into)
    into[0] = target
    return target != 0


cdef bint are_among(const uint32_t *some, uint32_t count, const uint32_t *others, uint32_t number) noexcept:
    """Each of some is one of the others."""
    cdef uint32_t i, k
    for i in range(count):
        k = 0
        while k < number and others[k] != some[i]:
            k += 1
        if k == number:
            return False
    return True


cdef void release_tunnels(State *state, const uint32_t *leaving, uint32_t count) noexcept:
    cdef uint32_t k
    for k in range(count):
        tunnels.release(&state.tunnels, &state.epochs, leaving[k])


cdef uint32_t place_bundle(State *state, Slab *bound, uint32_t before, const Member *members, uint32_t count) noexcept:
    """A new bundle, or new members of that one. Its number; 0: no memory, and nothing has changed."""
    cdef uint32_t bundle
    if before != 0:
        return before if bundles.replace(&state.bundles, &state.epochs, before, members, count) >= 0 else 0
    # the next index is at most the number of those handed out, so its count has a place before it exists
    if slabs.back(bound, state.bundles.slab.used + 1) < 0:
        return 0
    bundle = bundles.acquire(&state.bundles, &state.epochs, members, count)
    (<uint32_t *>bound.base)[bundle] = 0
    return bundle


cdef int read_rules(Rule *block, list faces, dict counters) except -1:
    """Fill block with rules; those in counters name one of theirs, once."""
    cdef bytes octets
    cdef uint32_t k = 0
    for face in faces:
        octets = face.packed
        if rules.read_rule(&block[k], checked(octets, RULE_OCTETS)) < 0:
            raise ValueError(f"not a rule: {face!r}")
        if counters.get(face):
            block[k].counter = counters[face].pop(0)
        k += 1
    return 0


cdef uint32_t place_policy(State *state, uint32_t before, const Rule *block, uint32_t count) noexcept:
    if before != 0:
        return before if rules.replace(&state.policies, &state.epochs, before, block, count) >= 0 else 0
    return rules.acquire(&state.policies, &state.epochs, block, count)


# --- reading, as workers do ----------------------------------------------------------------------------

cdef struct Hammer:
    uint32_t count           # addresses, a multiple of WIDTH
    Address *addresses
    uint8_t *family
    uint8_t sides
    uint64_t missed
    uint64_t wrong


cdef int load_hammer(Hammer *hammer, bytes octets, uint8_t sides) except -1:
    """Addresses, repeated from the first to fill the last burst."""
    cdef uint32_t number = <uint32_t>(len(octets) // 16)
    cdef const uint8_t *place = <const uint8_t *><char *>octets
    cdef uint32_t i
    if number == 0:
        raise ValueError("no address")
    hammer.count = (number + WIDTH - 1) // WIDTH * WIDTH
    hammer.sides = sides
    hammer.addresses = <Address *>calloc(hammer.count, sizeof(Address))
    hammer.family = <uint8_t *>calloc(hammer.count, 1)
    if hammer.addresses == NULL or hammer.family == NULL:
        raise MemoryError
    for i in range(hammer.count):
        hammer.addresses[i] = load_address(place + 16 * (i % number))
        hammer.family[i] = 4 if is_mapped(hammer.addresses[i]) else 6
    return 0


cdef void free_hammer(Hammer *hammer) noexcept:
    free(hammer.addresses)
    free(hammer.family)


cdef void strike(State *state, uint32_t worker, Hammer *hammer, bint checking) noexcept nogil:
    """Look all addresses up once, a burst of WIDTH at a time."""
    cdef uint8_t alive[WIDTH]
    cdef uint32_t found[WIDTH]
    cdef uint32_t burst, start, i
    memset(alive, 0, sizeof(alive))
    for burst in range(hammer.count // WIDTH):
        start = burst * WIDTH
        memset(found, 0, sizeof(found))
        epochs.enter(&state.epochs, worker)
        prefixes.look_up(&state.prefixes, WIDTH, hammer.addresses + start, hammer.family + start, alive,
                         hammer.sides, found)
        for i in range(<uint32_t>WIDTH):
            hammer.missed += found[i] == 0
            if checking and found[i] != 0:
                hammer.wrong += not fits(state, found[i], hammer.addresses[start + i], hammer.sides)
        epochs.leave(&state.epochs, worker)


cdef bint fits(State *state, uint32_t index, Address address, uint8_t sides) noexcept nogil:
    """The binding is of a prefix around address, and all it leads to stands."""
    cdef const Binding *binding = prefixes.at(&state.prefixes, index)
    cdef Address network = prefixes.network_of(address, binding.kind)
    cdef const Members *members
    cdef uint32_t k
    if network.high != binding.high or network.low != binding.low or not binding.side & sides:
        return False
    if binding.target == 0:
        return (binding.side & (HELD | HOME | HERE)) != 0
    if not binding.many:
        return stands(state, binding.target)
    members = bundles.members(&state.bundles, binding.target)
    if members == NULL or not 1 <= members.count <= MOST_MEMBERS:
        return False
    for k in range(members.count):
        if not stands(state, members.member[k].tunnel):
            return False
    return True


cdef bint stands(State *state, uint32_t index) noexcept nogil:
    """A tunnel that was not wiped: all of its fields belong together."""
    cdef const Tunnel *tunnel = tunnels.at(&state.tunnels, index)
    cdef uint8_t octets[16]
    store_address(octets, tunnel.remote)
    if index == 0 or tunnel.encapsulation == 0 or tunnel.outer_length == 0:
        return False
    if tunnel.family == 6:
        return memcmp(tunnel.outer + 24, octets, 16) == 0 and memcmp(tunnel.peer + 8, octets, 16) == 0
    return memcmp(tunnel.outer + 16, octets + 12, 4) == 0 and memcmp(tunnel.peer + 4, octets + 12, 4) == 0


# --- octets --------------------------------------------------------------------------------------------

cdef const uint8_t *checked(bytes octets, Py_ssize_t length) except NULL:
    if len(octets) != length:
        raise ValueError(f"{length} octets expected, {len(octets)} given")
    return <const uint8_t *><char *>octets


cdef Address network_of(bytes network, int kind) except *:
    """The prefix as numbers, bits past its length cleared."""
    cdef int family = kind >> 8
    cdef int length = kind & 255
    if not (family == 6 and length <= 128 or family == 4 and length <= 32):
        raise ValueError(f"no prefix is of kind {kind:#x}")
    return prefixes.network_of(load_address(checked(network, 16)), <uint16_t>kind)


cdef bytes octets_of(Address address):
    cdef uint8_t octets[16]
    store_address(octets, address)
    return (<char *>octets)[:16]


cdef uint32_t since_last(uint32_t last) noexcept:
    """Units of 0.1 s since Binding.last, whose clock has 31 bits and which a worker may have read after us."""
    cdef uint32_t passed = (clock_now() - (last >> 1)) & <uint32_t>0x7FFFFFFFU
    return passed if passed < <uint32_t>0x40000000U else 0


cdef uint32_t since(uint32_t clock) noexcept:
    """Units of 0.1 s since clock, which a worker may have read after us."""
    cdef uint32_t passed = clock_now() - clock
    return passed if passed < <uint32_t>0x80000000U else 0
