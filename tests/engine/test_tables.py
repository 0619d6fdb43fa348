"""Prefixes, tunnels, bundles and policies: what is bound is found, what is unbound is gone, against a naive oracle."""

from __future__ import annotations

import gc
import random
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import pytest

import engine
from engine import BadBundle, BadTunnel, Binding, Encapsulation, Side, Tables, Tunnel, UnknownPrefix
from engine.errors import UnknownTunnel
from engine.rules import FlowRule, TrafficSelector
from engine.tables import Path
from engine.tunnels import TunnelState, packed
from tests.engine.nodes import ANCHORED, ELSEWHERE, HERE, OTHER, TUNNEL, VISITING

ANCHOR, ACCESS, HELD = 1, 2, 4
HERE4, ELSEWHERE4 = IPv4Address("192.0.2.1"), IPv4Address("198.51.100.7")
PRIVATE = IPv4Network("10.1.2.0/24")
INNER = 6 << 8 | 64  # kind of a /64
needs_compiled = pytest.mark.skipif(not engine.compiled, reason="nothing is compiled")


def wanted(prefix: IPv6Network | IPv4Network, tunnel: Tunnel | None, side: Side | None = Side.ANCHOR) -> Binding:
    return Binding(prefix=prefix, tunnel=tunnel, side=side)


# --- prefixes ---


def test_a_prefix_can_be_bound_moved_held_and_forgotten(tables: Tables) -> None:
    tables.bind(ANCHORED, TUNNEL, side=Side.ANCHOR)
    assert tables.bindings() == [wanted(ANCHORED, TUNNEL)]
    tables.bind(ANCHORED, OTHER, side=Side.ACCESS)
    assert tables.bindings() == [wanted(ANCHORED, OTHER, Side.ACCESS)]
    tables.hold(ANCHORED)
    assert tables.bindings() == [wanted(ANCHORED, None, None)]
    assert tables.bindings()[0].held
    tables.unbind(ANCHORED)
    assert tables.bindings() == []


def test_unbinding_what_is_not_bound_is_refused(tables: Tables) -> None:
    with pytest.raises(UnknownPrefix, match="2001:db8:a1:100::/64"):
        tables.unbind(ANCHORED)


def test_ipv4_prefixes_are_bound_beside_ipv6_ones(tables: Tables) -> None:
    tables.bind(ANCHORED, TUNNEL, side=Side.ANCHOR)
    tables.bind(PRIVATE, TUNNEL, side=Side.ANCHOR)
    assert tables.bindings() == [wanted(PRIVATE, TUNNEL), wanted(ANCHORED, TUNNEL)]
    assert [stats.prefixes for stats in tables.tunnels()] == [2]


def test_many_prefixes_are_bound_as_one_by_one(tables: Tables) -> None:
    tables.bind_all([ANCHORED, PRIVATE], TUNNEL, side=Side.ANCHOR)
    assert tables.bindings() == [wanted(PRIVATE, TUNNEL), wanted(ANCHORED, TUNNEL)]
    assert [stats.prefixes for stats in tables.tunnels()] == [2]


def test_an_ipv4_prefix_is_not_found_for_ipv6_packets_nor_the_other_way(tables: Tables) -> None:
    tables.bind(IPv4Network("0.0.0.0/0"), TUNNEL, side=Side.ANCHOR)
    mapped = packed(IPv4Address("10.1.2.3"))
    assert tables.storage.match(mapped, ANCHOR, 4) is not None
    assert tables.storage.match(mapped, ANCHOR, 6) is None
    tables.unbind(IPv4Network("0.0.0.0/0"))
    tables.bind(IPv6Network("::/0"), TUNNEL, side=Side.ANCHOR)
    assert tables.storage.match(mapped, ANCHOR, 4) is None
    assert tables.storage.match(mapped, ANCHOR, 6) is not None


def test_the_longest_prefix_of_a_wanted_side_is_found(tables: Tables) -> None:
    tables.bind(IPv6Network("2001:db8::/32"), TUNNEL, side=Side.ANCHOR)
    tables.bind(IPv6Network("2001:db8:a1::/48"), OTHER, side=Side.ACCESS)
    address = ANCHORED[5].packed
    assert tables.storage.match(address, ANCHOR | ACCESS) == (packed_of("2001:db8:a1::"), 0x630, ACCESS, OTHER, 0)
    assert tables.storage.match(address, ANCHOR | HELD) == (packed_of("2001:db8::"), 0x620, ANCHOR, TUNNEL, 0)
    assert tables.storage.match(address, HELD) is None


def packed_of(address: str) -> bytes:
    return IPv6Address(address).packed


def test_nonsense_is_refused_and_changes_nothing(tables: Tables) -> None:
    for kind in (0, 64, 6 << 8 | 129, 4 << 8 | 33, 5 << 8):
        with pytest.raises(ValueError, match="kind"):
            tables.storage.bind(bytes(16), kind, ANCHOR, TUNNEL)
    with pytest.raises(ValueError, match="16 octets"):
        tables.storage.bind(bytes(15), INNER, ANCHOR, TUNNEL)
    with pytest.raises(ValueError, match="side"):
        tables.storage.bind(bytes(16), INNER, HELD, TUNNEL)
    with pytest.raises(KeyError):
        tables.storage.bind(bytes(16), INNER, ANCHOR, 1)
    with pytest.raises(KeyError):
        tables.storage.bind(bytes(16), INNER, ANCHOR, TUNNEL, 1)
    assert (len(tables), tables.tunnels()) == (0, [])


def test_lookups_agree_with_a_naive_oracle_through_thousands_of_edits(tables: Tables, dice: random.Random) -> None:
    networks = [random_network(dice) for _ in range(400)]
    remotes = [IPv6Address(0x20010DB8 << 96 | n + 1) for n in range(40)]
    doors = [Tunnel(local=HERE, remote=remote, encapsulation=dice.choice(list(Encapsulation))) for remote in remotes]
    oracle: dict = {}
    for edit in range(6000):
        edit_both(tables, oracle, dice.choice(networks), dice.choice(doors), dice)
        if edit % 10 == 0:
            address = random_address_near(dice, networks)
            for sides in (ANCHOR | HELD, ACCESS):
                row = tables.storage.match(packed(address), sides, address.version)
                assert row == expected(oracle, address, sides)
        if edit % 500 == 0:
            shown = {p: None if side == HELD else t for p, (side, t) in oracle.items()}
            assert {b.prefix: b.tunnel for b in tables.bindings()} == shown
            check_tunnels(tables, oracle)
    for network in list(oracle):
        tables.unbind(network)
    assert (len(tables), tables.bindings(), tables.tunnels()) == (0, [], [])


def edit_both(tables: Tables, oracle: dict, network: IPv6Network | IPv4Network, door: Tunnel, dice) -> None:
    match dice.randrange(8):
        case 0 | 1 | 2:
            tables.bind(network, door, side=Side.ANCHOR)
            oracle[network] = (ANCHOR, door)
        case 3 | 4:
            tables.bind(network, door, side=Side.ACCESS)
            oracle[network] = (ACCESS, door)
        case 5:
            waits = bool(dice.randrange(2))
            tables.storage.hold(packed(network.network_address), network.version << 8 | network.prefixlen, waits)
            oracle[network] = (HELD, oracle.get(network, (HELD, None))[1] if waits else None)
        case _ if network in oracle:
            tables.unbind(network)
            del oracle[network]
        case _:
            with pytest.raises(UnknownPrefix):
                tables.unbind(network)


def expected(oracle: dict, address: IPv6Address | IPv4Address, sides: int) -> tuple | None:
    around = [n for n, (side, _) in oracle.items() if n.version == address.version and address in n and side & sides]
    if not around:
        return None
    best = max(around, key=lambda n: n.prefixlen)
    side, tunnel = oracle[best]
    shown = None if side == HELD else tunnel
    return packed(best.network_address), best.version << 8 | best.prefixlen, side, shown, 0


def check_tunnels(tables: Tables, oracle: dict) -> None:
    used = [tunnel for _, tunnel in oracle.values() if tunnel]
    assert {s.tunnel: s.prefixes for s in tables.tunnels()} == {tunnel: used.count(tunnel) for tunnel in used}


def random_network(dice: random.Random) -> IPv6Network | IPv4Network:
    if dice.randrange(4) == 0:
        length = dice.choice([0, 1, 8, 24, 24, 31, 32])
        bits = 10 << 24 | dice.randrange(8) << 8 | dice.randrange(4)
        return IPv4Network((bits >> 32 - length << 32 - length, length))
    length = dice.choice([64] * 6 + [0, 1, 48, 56, 63, 65, 96, 127, 128])
    bits = 0x20010DB8 << 96 | dice.randrange(64) << 64 | dice.randrange(4)
    return IPv6Network((bits >> 128 - length << 128 - length, length))


def random_address_near(dice: random.Random, networks: list) -> IPv6Address | IPv4Address:
    if dice.randrange(10) == 0:
        return IPv6Address(dice.getrandbits(128) | 1 << 127)
    network = dice.choice(networks)
    return network.network_address + min(dice.randrange(3), network.num_addresses - 1)


def test_a_table_grows_and_shrinks_without_losing_anyone(tables: Tables) -> None:
    networks = [IPv6Network((0x20010DB8 << 96 | n << 64, 64)) for n in range(20000)]
    for network in networks:
        tables.bind(network, TUNNEL, side=Side.ANCHOR)
    for network in networks[::2]:
        tables.unbind(network)
    for network in networks[1:19000:2]:
        tables.unbind(network)
    assert [binding.prefix for binding in tables.bindings()] == networks[19001::2]
    for network in networks[19001::2]:
        assert tables.storage.match(network[1].packed, ANCHOR) is not None
    for network in networks[:19000:7]:
        assert tables.storage.match(network[1].packed, ANCHOR) is None


@needs_compiled
def test_an_emptied_table_gives_its_memory_back() -> None:
    tables = Tables(compiled=True)
    empty = tables.storage.octets()
    networks = [IPv6Network((0x20010DB8 << 96 | n << 64, 64)) for n in range(20000)]
    for network in networks:
        tables.bind(network, TUNNEL, side=Side.ANCHOR)
    assert tables.storage.octets() > empty + 20000 * 64
    for network in networks:
        tables.unbind(network)
    assert tables.storage.octets() == empty


@needs_compiled
def test_a_binding_takes_less_than_200_octets() -> None:
    tables = Tables(compiled=True)
    for n in range(70000):  # just past a doubling of the heads, when they are emptiest
        tables.storage.bind(n.to_bytes(8, "big") + bytes(8), INNER, ANCHOR, TUNNEL)
    assert tables.storage.octets() < 70000 * 200


# --- tunnels ---


def test_a_tunnel_goes_with_its_last_prefix(tables: Tables) -> None:
    second = IPv6Network("2001:db8:5::/48")
    tables.bind(ANCHORED, TUNNEL, side=Side.ANCHOR)
    tables.bind(second, TUNNEL, side=Side.ANCHOR)
    assert [stats.prefixes for stats in tables.tunnels()] == [2]
    tables.unbind(second)
    assert [stats.tunnel for stats in tables.tunnels()] == [TUNNEL]
    tables.unbind(ANCHORED)
    assert tables.tunnels() == []


def test_a_prefix_that_is_held_keeps_its_tunnel_until_it_is_bound_anew_or_closed(tables: Tables) -> None:
    tables.bind(ANCHORED, TUNNEL, side=Side.ANCHOR)
    for _ in range(2):
        tables.hold(ANCHORED)
        assert [(stats.tunnel, stats.prefixes) for stats in tables.tunnels()] == [(TUNNEL, 1)]
        assert [binding.tunnel for binding in tables.bindings()] == [None]
    tables.bind(ANCHORED, OTHER, side=Side.ANCHOR)
    assert [stats.tunnel for stats in tables.tunnels()] == [OTHER]
    tables.close(ANCHORED)
    assert tables.tunnels() == []


def test_binding_twice_to_one_tunnel_counts_once(tables: Tables) -> None:
    tables.bind(ANCHORED, TUNNEL, side=Side.ANCHOR)
    tables.bind(ANCHORED, TUNNEL, side=Side.ANCHOR)
    assert [stats.prefixes for stats in tables.tunnels()] == [1]


@pytest.mark.parametrize("remote", ["::", "ff02::1", str(HERE), "::ffff:192.0.2.1"])
def test_a_tunnel_that_leads_nowhere_is_refused(remote: str) -> None:
    with pytest.raises(BadTunnel):
        Tunnel(local=HERE, remote=IPv6Address(remote), encapsulation=Encapsulation.UDP)


@pytest.mark.parametrize(
    "fault",
    [
        {"remote": ELSEWHERE4},
        {"port": 0},
        {"port": 65536},
        {"key_in": 1},
        {"sequence": True},
        {"encapsulation": Encapsulation.GRE, "key_out": 1 << 32},
    ],
)
def test_a_tunnel_that_contradicts_itself_is_refused(fault: dict) -> None:
    with pytest.raises(BadTunnel):
        Tunnel(**{"local": HERE, "remote": ELSEWHERE, "encapsulation": Encapsulation.UDP, **fault})


def test_tunnels_that_differ_in_one_part_of_their_identity_are_different(tables: Tables) -> None:
    gre = Encapsulation.GRE
    doors = [
        TUNNEL,
        OTHER,
        Tunnel(local=HERE, remote=ELSEWHERE, encapsulation=Encapsulation.UDP, port=40000),
        Tunnel(local=HERE, remote=ELSEWHERE, encapsulation=Encapsulation.IP),
        Tunnel(local=HERE, remote=ELSEWHERE, encapsulation=gre),
        Tunnel(local=HERE, remote=ELSEWHERE, encapsulation=gre, key_in=0),
        Tunnel(local=HERE, remote=ELSEWHERE, encapsulation=gre, key_in=7),
        Tunnel(local=HERE4, remote=ELSEWHERE4, encapsulation=gre, key_in=7),
    ]
    for n, door in enumerate(doors):
        tables.bind(IPv6Network((0x20010DB8 << 96 | n << 64, 64)), door, side=Side.ANCHOR)
    assert len(tables.tunnels()) == len(doors)
    for door in doors:
        assert tables.storage.known(door.key) == door


def test_the_newest_outgoing_key_of_a_tunnel_holds(tables: Tables) -> None:
    plain = Tunnel(local=HERE, remote=ELSEWHERE, encapsulation=Encapsulation.GRE)
    keyed = Tunnel(local=HERE, remote=ELSEWHERE, encapsulation=Encapsulation.GRE, key_out=9, sequence=True)
    tables.bind(ANCHORED, plain, side=Side.ANCHOR)
    tables.bind(VISITING, keyed, side=Side.ACCESS)
    assert [stats.tunnel for stats in tables.tunnels()] == [keyed]


def test_what_a_tunnel_carried_is_counted_from_its_first_prefix_on(tables: Tables) -> None:
    tables.bind(ANCHORED, TUNNEL, side=Side.ANCHOR)
    tables.storage.count_in(TUNNEL.key, 100)
    tables.storage.count_out(TUNNEL.key, 2000, 2)
    stats = tables.tunnels()[0]
    assert (stats.packets_in, stats.octets_in, stats.packets_out, stats.octets_out) == (1, 100, 2, 2000)
    tables.unbind(ANCHORED)
    tables.bind(ANCHORED, TUNNEL, side=Side.ANCHOR)
    assert tables.tunnels()[0].packets_in == 0


def test_a_tunnel_has_the_state_and_the_mtu_it_was_given(tables: Tables) -> None:
    tables.bind(ANCHORED, TUNNEL, side=Side.ANCHOR)
    assert (tables.state(TUNNEL), tables.mtu(TUNNEL)) == (TunnelState.UP, None)
    before = tables.storage.generation()
    tables.set_state(TUNNEL, TunnelState.SUSPECT)
    tables.set_mtu(TUNNEL, 1400)
    assert (tables.state(TUNNEL), tables.mtu(TUNNEL)) == (TunnelState.SUSPECT, 1400)
    assert tables.storage.generation() > before


def test_an_unknown_tunnel_has_no_state(tables: Tables) -> None:
    for ask in (
        lambda: tables.state(TUNNEL),
        lambda: tables.set_state(TUNNEL, TunnelState.UP),
        lambda: tables.mtu(TUNNEL),
        lambda: tables.follow(TUNNEL, 4000),
    ):
        with pytest.raises(UnknownTunnel):
            ask()


def test_a_tunnel_follows_its_peer_to_another_port_and_keeps_all_it_has(tables: Tables) -> None:
    bundle = tables.bundle([Path(TUNNEL)])
    tables.bind(ANCHORED, TUNNEL, side=Side.ANCHOR)
    tables.storage.count_in(TUNNEL.key, 100)
    moved = tables.follow(TUNNEL, 40000)
    assert moved.port == 40000
    assert tables.bindings() == [wanted(ANCHORED, moved)]
    assert bundle.paths == (Path(moved),)
    assert (tables.storage.known(TUNNEL.key), tables.storage.known(moved.key)) == (None, moved)
    assert [(stats.tunnel, stats.packets_in) for stats in tables.tunnels()] == [(moved, 1)]
    tables.bind(VISITING, TUNNEL, side=Side.ACCESS)
    assert len(tables.tunnels()) == 2


def test_a_tunnel_does_not_follow_to_where_another_one_is(tables: Tables) -> None:
    neighbour = Tunnel(local=HERE, remote=ELSEWHERE, encapsulation=Encapsulation.UDP, port=40000)
    tables.bind(ANCHORED, TUNNEL, side=Side.ANCHOR)
    tables.bind(VISITING, neighbour, side=Side.ACCESS)
    with pytest.raises(BadTunnel, match="40000"):
        tables.follow(TUNNEL, 40000)
    assert tables.follow(TUNNEL, TUNNEL.port) == TUNNEL
    assert tables.storage.known(TUNNEL.key) == TUNNEL


def test_a_tunnel_numbers_its_packets_modulo_two_to_the_32nd(tables: Tables) -> None:
    tables.bind(ANCHORED, TUNNEL, side=Side.ANCHOR)
    assert [tables.storage.next_sequence(TUNNEL.key) for _ in range(3)] == [0, 1, 2]
    bundle = tables.bundle([Path(TUNNEL)])
    assert [tables.storage.next_sequence(bundle.number) for _ in range(2)] == [0, 1]


# --- bundles ---


def test_a_prefix_bound_to_a_bundle_uses_all_its_tunnels(tables: Tables) -> None:
    bundle = tables.bundle([Path(OTHER, bid=2, label=9, weight=3), Path(TUNNEL, bid=1)])
    tables.bind(ANCHORED, bundle, side=Side.ANCHOR)
    assert tables.bindings() == [Binding(prefix=ANCHORED, tunnel=None, side=Side.ANCHOR, bundle=bundle)]
    assert not tables.bindings()[0].held
    assert bundle.paths == (Path(TUNNEL, bid=1), Path(OTHER, bid=2, label=9, weight=3))
    assert [(stats.tunnel, stats.prefixes) for stats in tables.tunnels()] == [(TUNNEL, 1), (OTHER, 1)]


def test_a_bundle_that_is_bound_survives_its_object_and_goes_with_its_last_prefix(tables: Tables) -> None:
    tables.bind(ANCHORED, tables.bundle([Path(TUNNEL)]), side=Side.ANCHOR)
    gc.collect()
    bundle = tables.bindings()[0].bundle
    assert bundle is not None
    assert bundle.paths == (Path(TUNNEL),)
    del bundle
    tables.unbind(ANCHORED)
    assert tables.tunnels() == []


def test_a_bundle_that_nothing_is_bound_to_lives_as_long_as_its_object(tables: Tables) -> None:
    bundle = tables.bundle([Path(TUNNEL)])
    assert [(stats.tunnel, stats.prefixes) for stats in tables.tunnels()] == [(TUNNEL, 0)]
    del bundle
    gc.collect()
    assert tables.tunnels() == []


def test_changing_a_bundle_moves_all_that_is_bound_to_it(tables: Tables) -> None:
    bundle = tables.bundle([Path(TUNNEL)])
    tables.bind(ANCHORED, bundle, side=Side.ANCHOR)
    tables.bind(VISITING, bundle, side=Side.ACCESS)
    before = tables.storage.generation()
    tables.change(bundle, [Path(OTHER, bid=7)])
    assert [(stats.tunnel, stats.prefixes) for stats in tables.tunnels()] == [(OTHER, 2)]
    assert {binding.bundle for binding in tables.bindings()} == {bundle}
    assert tables.storage.generation() > before


def test_a_bundle_wants_one_to_sixteen_paths_with_different_bids(tables: Tables) -> None:
    for paths in ([], [Path(TUNNEL), Path(OTHER)], [Path(TUNNEL, bid=n + 1) for n in range(17)]):
        with pytest.raises(BadBundle):
            tables.bundle(paths)
    assert len(tables.bundle([Path(TUNNEL, bid=n + 1) for n in range(16)]).paths) == 16


@pytest.mark.parametrize("fault", [{"bid": 0}, {"bid": 255}, {"label": 256}, {"weight": 0}, {"weight": 65536}])
def test_a_path_beyond_its_ranges_is_refused(fault: dict) -> None:
    with pytest.raises(BadBundle):
        Path(TUNNEL, **fault)


def test_bundles_of_other_tables_are_refused(tables: Tables) -> None:
    with pytest.raises(BadBundle):
        Tables(compiled=False).bind(ANCHORED, tables.bundle([Path(TUNNEL)]), side=Side.ANCHOR)


def test_bundles_and_policies_come_and_go_without_leaving_a_trace(tables: Tables, dice: random.Random) -> None:
    doors = [Tunnel(local=HERE, remote=IPv6Address(n + 9), encapsulation=Encapsulation.UDP) for n in range(30)]
    networks = [random_network(dice) for _ in range(60)]
    bundles = [tables.bundle(random_paths(dice, doors)) for _ in range(20)]
    policies = [tables.policy([]) for _ in range(3)]
    for _ in range(3000):
        match dice.randrange(6):
            case 0:
                tables.change(dice.choice(bundles), random_paths(dice, doors))
            case 1:
                bundles[dice.randrange(20)] = tables.bundle(random_paths(dice, doors))
            case 2 | 3:
                policy = dice.choice([None, *policies])
                tables.bind(dice.choice(networks), dice.choice(bundles), side=Side.ANCHOR, policy=policy)
            case 4:
                tables.bind(dice.choice(networks), dice.choice(doors), side=Side.ACCESS)
            case 5:
                policies[dice.randrange(3)] = tables.policy([])
    check_uses(tables)
    del bundles, policies, policy
    gc.collect()
    check_uses(tables)
    for binding in tables.bindings():
        tables.unbind(binding.prefix)
    del binding
    gc.collect()
    assert (tables.tunnels(), tables.flow_rules(), tables.storage.policies()) == ([], [], [])


def random_paths(dice: random.Random, doors: list[Tunnel]) -> list[Path]:
    return [Path(dice.choice(doors), bid=bid) for bid in dice.sample(range(1, 255), dice.randint(1, 5))]


def check_uses(tables: Tables) -> None:
    """Prefixes of each tunnel are those that the bindings say."""
    used: dict[Tunnel, int] = {}
    for binding in tables.bindings():
        ways = {path.tunnel for path in binding.bundle.paths} if binding.bundle else {binding.tunnel}
        for way in ways - {None}:
            used[way] = used.get(way, 0) + 1
    assert {stats.tunnel: stats.prefixes for stats in tables.tunnels() if stats.prefixes} == used


# --- policies ---


def rule(port: int) -> FlowRule:
    return FlowRule(TrafficSelector(family=6, protocol=(17, 17), destination_port=(port, port)))


def test_a_policy_is_shared_by_all_that_is_bound_with_it(tables: Tables) -> None:
    policy = tables.policy([rule(1), rule(2)])
    for prefix in (ANCHORED, VISITING):
        tables.bind(prefix, TUNNEL, side=Side.ANCHOR, policy=policy)
    assert [binding.policy for binding in tables.bindings()] == [policy, policy]
    assert policy.rules == (rule(1), rule(2))
    assert [(stats.rule, stats.packets) for stats in tables.flow_rules()] == [(rule(1), 0), (rule(2), 0)]


def test_a_policy_that_is_bound_survives_its_object_and_goes_with_its_last_prefix(tables: Tables) -> None:
    tables.bind(ANCHORED, TUNNEL, side=Side.ANCHOR, policy=tables.policy([rule(1)]))
    gc.collect()
    assert [stats.rule for stats in tables.flow_rules()] == [rule(1)]
    gc.collect()
    tables.bind(ANCHORED, TUNNEL, side=Side.ANCHOR)
    assert tables.flow_rules() == []


def test_rules_that_stay_in_a_policy_go_on_counting_and_new_ones_begin(tables: Tables) -> None:
    policy = tables.policy([rule(1), rule(2)])
    tables.storage.count_rule(policy.number, 0, 100)
    tables.storage.count_rule(policy.number, 1, 2000, 2)
    before = tables.storage.generation()
    tables.change(policy, [rule(3), rule(2), rule(2)])
    assert [(s.rule, s.packets, s.octets) for s in tables.flow_rules()] == [
        (rule(3), 0, 0),
        (rule(2), 2, 2000),
        (rule(2), 0, 0),
    ]
    assert tables.storage.generation() > before


def test_counters_of_a_policy_that_went_are_not_those_of_the_next(tables: Tables) -> None:
    for _ in range(3):
        policy = tables.policy([rule(1)])
        assert tables.flow_rules()[0].packets == 0
        tables.storage.count_rule(policy.number, 0, 100)
        del policy
        gc.collect()


def test_a_policy_has_4096_rules_at_most(tables: Tables) -> None:
    assert len(tables.policy([rule(1)] * 4096).rules) == 4096
    with pytest.raises(BadBundle):
        tables.policy([rule(1)] * 4097)


# --- activity ---


def test_a_prefix_without_packets_has_no_activity_and_one_with_has(tables: Tables) -> None:
    tables.bind(ANCHORED, TUNNEL, side=Side.ANCHOR)
    assert tables.activity(ANCHORED) is None
    assert tables.storage.touch(ANCHORED.network_address.packed, INNER)
    activity = tables.activity(ANCHORED)
    assert activity is not None
    assert activity < 60


def test_activity_survives_a_move(tables: Tables) -> None:
    tables.bind(ANCHORED, TUNNEL, side=Side.ANCHOR)
    tables.storage.touch(ANCHORED.network_address.packed, INNER)
    tables.hold(ANCHORED)
    tables.bind(ANCHORED, OTHER, side=Side.ANCHOR)
    assert tables.activity(ANCHORED) is not None
    tables.unbind(ANCHORED)
    tables.bind(ANCHORED, OTHER, side=Side.ANCHOR)
    assert tables.activity(ANCHORED) is None


def test_activity_of_an_unknown_prefix_is_refused(tables: Tables) -> None:
    with pytest.raises(UnknownPrefix):
        tables.activity(ANCHORED)


def test_prefixes_are_idle_for_as_long_as_nothing_passed(tables: Tables) -> None:
    tables.bind(ANCHORED, TUNNEL, side=Side.ANCHOR)
    tables.bind(PRIVATE, TUNNEL, side=Side.ANCHOR)
    assert tables.idle(0) == [PRIVATE, ANCHORED]
    assert tables.idle(3600) == []


def test_tunnels_count_on_where_another_process_was(tables: Tables) -> None:
    before, after = tables, Tables(compiled=tables.compiled)
    for each in (before, after):
        each.bind(ANCHORED, TUNNEL, side=Side.ANCHOR)
    before.storage.count_in(TUNNEL.key, 1000, 10)
    before.storage.count_out(TUNNEL.key, 200, 2)
    before.set_state(TUNNEL, TunnelState.SUSPECT)
    before.set_mtu(TUNNEL, 1300)
    after.storage.count_in(TUNNEL.key, 1, 1)
    after.take_up(before.tunnels())
    (found,) = after.tunnels()
    assert (found.packets_in, found.octets_in, found.packets_out, found.octets_out) == (11, 1001, 2, 200)
    assert (found.state, found.mtu) == (TunnelState.SUSPECT, 1300)


def test_a_tunnel_that_is_not_in_use_here_is_left_out(tables: Tables) -> None:
    before, after = tables, Tables(compiled=tables.compiled)
    before.bind(ANCHORED, TUNNEL, side=Side.ANCHOR)
    after.take_up(before.tunnels())
    assert after.tunnels() == []
