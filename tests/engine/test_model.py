"""The compiled path and the model give the same answers, the same packets and the same counters, whatever comes."""

from __future__ import annotations

import random
from ipaddress import IPv6Address, IPv6Network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import engine
from engine import Encapsulated, Encapsulation, Engine, Side, Tables, Tunnel

pytestmark = pytest.mark.skipif(not engine.compiled, reason="nothing is compiled")

ADDRESSES = [IPv6Address(0x20010DB8_00000000 << 64 | n << 64 | host) for n in range(6) for host in (0, 1)]
ADDRESSES += [IPv6Address(text) for text in ("::", "::1", "fe80::1", "febf::1", "ff02::1", "ff0e::1", "ff05::2")]
NETWORKS = [IPv6Network((int(address) >> 128 - n << 128 - n, n)) for address in ADDRESSES[:10] for n in (48, 64, 128)]
TUNNELS = [
    Tunnel(local=ADDRESSES[0], remote=remote, encapsulation=encapsulation)
    for remote in ADDRESSES[1:6]
    for encapsulation in Encapsulation
]

packets = st.builds(
    lambda version, traffic_class, payload_length, hop_limit, source, destination, payload, cut: (
        (version << 28 | traffic_class << 20).to_bytes(4, "big")
        + (len(payload) if payload_length is None else payload_length).to_bytes(2, "big")
        + bytes([59, hop_limit])
        + source.packed
        + destination.packed
        + payload
    )[:cut],
    st.sampled_from([6, 6, 6, 6, 6, 4, 0]),
    st.integers(0, 255),
    st.none() | st.none() | st.integers(0, 40) | st.integers(0, 65535),
    st.sampled_from([0, 1, 64, 64, 255]),
    st.sampled_from(ADDRESSES),
    st.sampled_from(ADDRESSES),
    st.binary(max_size=24),
    st.sampled_from([None, None, None, 0, 1, 39, 40, 45]),
)
edits = st.lists(
    st.tuples(st.sampled_from(NETWORKS), st.sampled_from(TUNNELS), st.sampled_from([Side.ANCHOR, Side.ACCESS, None])),
    max_size=20,
)


def alike(edit_list: list[tuple[IPv6Network, Tunnel, Side | None]]) -> tuple[Engine, Engine]:
    pair = Engine(Tables(compiled=True)), Engine(Tables(compiled=False))
    for each in pair:
        apply(each.tables, edit_list)
    return pair


def apply(tables: Tables, edit_list: list[tuple[IPv6Network, Tunnel, Side | None]]) -> None:
    for network, tunnel, side in edit_list:
        if side is None:
            tables.hold(network)
        else:
            tables.bind(network, tunnel, side=side)


@settings(deadline=None, max_examples=150)
@given(edits, st.lists(packets | st.binary(max_size=100), max_size=70))
def test_both_wrap_alike(edit_list: list, batch: list[bytes]) -> None:
    compiled, model = alike(edit_list)
    assert compiled.encapsulate(batch) == model.encapsulate(batch)
    assert compiled.counters() == model.counters()
    assert compiled.tables.tunnels() == model.tables.tunnels()


@settings(deadline=None, max_examples=150)
@given(
    edits,
    st.lists(st.builds(Encapsulated, st.sampled_from(TUNNELS), st.integers(0, 255), packets), max_size=70),
)
def test_both_unwrap_alike(edit_list: list, arrivals: list[Encapsulated]) -> None:
    compiled, model = alike(edit_list)
    assert compiled.decapsulate(arrivals) == model.decapsulate(arrivals)
    assert compiled.counters() == model.counters()
    assert compiled.tables.tunnels() == model.tables.tunnels()


def test_both_agree_on_ten_thousand_random_packets(dice: random.Random) -> None:
    edit_list = [(dice.choice(NETWORKS), dice.choice(TUNNELS), dice.choice([*Side, None])) for _ in range(40)]
    compiled, model = alike(edit_list)
    batch = [random_packet(dice) for _ in range(10000)]
    assert compiled.encapsulate(batch) == model.encapsulate(batch)
    arrivals = [Encapsulated(dice.choice(TUNNELS), dice.randrange(256), each) for each in batch]
    assert compiled.decapsulate(arrivals) == model.decapsulate(arrivals)
    assert compiled.counters() == model.counters()
    assert sum(compiled.counters().drops.values()) < 2 * len(batch), "some must pass, or this compares nothing"


def random_packet(dice: random.Random) -> bytes:
    payload = dice.randbytes(dice.randrange(50))
    head = (6 << 28 | dice.randrange(256) << 20 | dice.randrange(1 << 20)).to_bytes(4, "big")
    head += len(payload).to_bytes(2, "big") + bytes([59, dice.randrange(256)])
    octets = bytearray(head + dice.choice(ADDRESSES).packed + dice.choice(ADDRESSES).packed + payload)
    if dice.randrange(4) == 0:
        octets[dice.randrange(len(octets))] ^= 1 << dice.randrange(8)
    return bytes(octets[: dice.choice([None, None, None, dice.randrange(60)])])
