"""Prefixes and tunnels: what is bound is found, what is unbound is gone, against a naive oracle."""

from __future__ import annotations

import random
from ipaddress import IPv6Address, IPv6Network

import pytest

import engine
from engine import BadTunnel, Binding, Encapsulation, NotCompiled, Side, Tables, Tunnel, UnknownPrefix
from tests.engine.nodes import ANCHORED, HERE, OTHER, TUNNEL

ANCHOR, ACCESS, HELD = 1, 2, 4


def test_a_prefix_can_be_bound_moved_held_and_forgotten(tables: Tables) -> None:
    tables.bind(ANCHORED, TUNNEL, side=Side.ANCHOR)
    assert tables.bindings() == [Binding(prefix=ANCHORED, tunnel=TUNNEL, side=Side.ANCHOR)]
    tables.bind(ANCHORED, OTHER, side=Side.ACCESS)
    assert tables.bindings() == [Binding(prefix=ANCHORED, tunnel=OTHER, side=Side.ACCESS)]
    tables.hold(ANCHORED)
    assert tables.bindings() == [Binding(prefix=ANCHORED, tunnel=None, side=None)]
    assert tables.bindings()[0].held
    tables.unbind(ANCHORED)
    assert tables.bindings() == []


def test_unbinding_what_is_not_bound_is_refused(tables: Tables) -> None:
    with pytest.raises(UnknownPrefix, match="2001:db8:a1:100::/64"):
        tables.unbind(ANCHORED)


def test_a_tunnel_goes_with_its_last_prefix(tables: Tables) -> None:
    second = IPv6Network("2001:db8:5::/48")
    tables.bind(ANCHORED, TUNNEL, side=Side.ANCHOR)
    tables.bind(second, TUNNEL, side=Side.ANCHOR)
    assert [stats.prefixes for stats in tables.tunnels()] == [2]
    tables.unbind(second)
    assert [stats.tunnel for stats in tables.tunnels()] == [TUNNEL]
    tables.hold(ANCHORED)
    assert tables.tunnels() == []


def test_binding_twice_to_one_tunnel_counts_once(tables: Tables) -> None:
    tables.bind(ANCHORED, TUNNEL, side=Side.ANCHOR)
    tables.bind(ANCHORED, TUNNEL, side=Side.ANCHOR)
    assert [stats.prefixes for stats in tables.tunnels()] == [1]


@pytest.mark.parametrize("remote", ["::", "ff02::1", str(HERE)])
def test_a_tunnel_that_leads_nowhere_is_refused(remote: str) -> None:
    with pytest.raises(BadTunnel):
        Tunnel(local=HERE, remote=IPv6Address(remote), encapsulation=Encapsulation.UDP)


def test_lookups_agree_with_a_naive_oracle_through_thousands_of_edits(tables: Tables, dice: random.Random) -> None:
    networks = [random_network(dice) for _ in range(400)]
    remotes = [IPv6Address(0x20010DB8 << 96 | n + 1) for n in range(40)]
    doors = [Tunnel(local=HERE, remote=remote, encapsulation=dice.choice(list(Encapsulation))) for remote in remotes]
    oracle: dict[IPv6Network, tuple[int, Tunnel | None]] = {}
    for edit in range(6000):
        edit_both(tables, oracle, dice.choice(networks), dice.choice(doors), dice)
        if edit % 10 == 0:
            address = random_address_near(dice, networks)
            for sides in (ANCHOR | HELD, ACCESS):
                assert tables.storage.match(address.packed, sides) == expected(oracle, address, sides)
        if edit % 500 == 0:
            assert {b.prefix: b.tunnel for b in tables.bindings()} == {p: t for p, (_, t) in oracle.items()}
            check_tunnels(tables, oracle)
    for network in list(oracle):
        tables.unbind(network)
    assert (len(tables), tables.bindings(), tables.tunnels()) == (0, [], [])


def edit_both(tables: Tables, oracle: dict, network: IPv6Network, door: Tunnel, dice: random.Random) -> None:
    match dice.randrange(8):
        case 0 | 1 | 2:
            tables.bind(network, door, side=Side.ANCHOR)
            oracle[network] = (ANCHOR, door)
        case 3 | 4:
            tables.bind(network, door, side=Side.ACCESS)
            oracle[network] = (ACCESS, door)
        case 5:
            tables.hold(network)
            oracle[network] = (HELD, None)
        case _ if network in oracle:
            tables.unbind(network)
            del oracle[network]
        case _:
            with pytest.raises(UnknownPrefix):
                tables.unbind(network)


def expected(oracle: dict, address: IPv6Address, sides: int) -> Tunnel | bool | None:
    around = [n for n, (side, _) in oracle.items() if address in n and side & sides]
    if not around:
        return None
    side, tunnel = oracle[max(around, key=lambda n: n.prefixlen)]
    return False if side == HELD else tunnel


def check_tunnels(tables: Tables, oracle: dict) -> None:
    used = [tunnel for _, tunnel in oracle.values() if tunnel]
    assert {s.tunnel: s.prefixes for s in tables.tunnels()} == {tunnel: used.count(tunnel) for tunnel in used}


def random_network(dice: random.Random) -> IPv6Network:
    length = dice.choice([64] * 6 + [0, 1, 48, 56, 63, 65, 96, 127, 128])
    bits = 0x20010DB8 << 96 | dice.randrange(64) << 64 | dice.randrange(4)
    return IPv6Network((bits >> 128 - length << 128 - length, length))


def random_address_near(dice: random.Random, networks: list[IPv6Network]) -> IPv6Address:
    if dice.randrange(10) == 0:
        return IPv6Address(dice.getrandbits(128))
    return dice.choice(networks).network_address + dice.randrange(3)


def test_a_table_grows_and_shrinks_without_losing_anyone(tables: Tables) -> None:
    networks = [IPv6Network((0x20010DB8 << 96 | n << 64, 64)) for n in range(20000)]
    for network in networks:
        tables.bind(network, TUNNEL, side=Side.ANCHOR)
    for network in networks[::2]:
        tables.unbind(network)
    for network in networks[1:19000:2]:
        tables.unbind(network)
    assert [binding.prefix for binding in tables.bindings()] == networks[19001::2]


@pytest.mark.skipif(not engine.compiled, reason="nothing is compiled")
def test_an_emptied_table_gives_its_memory_back() -> None:
    tables = Tables(compiled=True)
    empty = tables.storage.octets()
    networks = [IPv6Network((0x20010DB8 << 96 | n << 64, 64)) for n in range(20000)]
    for network in networks:
        tables.bind(network, TUNNEL, side=Side.ANCHOR)
    assert tables.storage.octets() > empty + 20000 * 24
    for network in networks:
        tables.unbind(network)
    assert tables.storage.octets() == empty


@pytest.mark.skipif(not engine.compiled, reason="nothing is compiled")
def test_the_compiled_path_wants_compiled_tables() -> None:
    with pytest.raises(NotCompiled):
        engine.Engine(Tables(compiled=False), compiled=True)
