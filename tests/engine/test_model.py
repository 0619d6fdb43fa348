"""The compiled path and the model give the same answers, the same packets and the same counters, whatever comes."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import engine
from engine import Encapsulation, Engine, Side, Tables, Tunnel
from tests.engine.nodes import UNDERLAYS, AnyAddress, arriving, packet

pytestmark = pytest.mark.skipif(not engine.compiled, reason="nothing is compiled")

ADDRESSES6 = [IPv6Address(0x20010DB8_00000000 << 64 | n << 64 | host) for n in range(5) for host in (0, 1)]
ADDRESSES4 = [IPv4Address(f"10.{n}.0.{host}") for n in range(5) for host in (0, 1)]
NOWHERE = ["::", "::1", "fe80::1", "febf::1", "ff02::1", "ff0e::1", "ff05::2", "::ffff:10.1.0.1"]
NOWHERE4 = ["0.0.0.0", "127.0.0.1", "169.254.0.1", "224.0.0.1", "239.0.0.1", "255.255.255.255", "240.0.0.1"]
ANY6 = [*ADDRESSES6, *map(IPv6Address, NOWHERE)]
ANY4 = [*ADDRESSES4, *map(IPv4Address, NOWHERE4)]
NETWORKS = [ip_network((address, n), strict=False) for address in ADDRESSES6 for n in (47, 48, 64, 128)]
NETWORKS += [ip_network((address, n), strict=False) for address in ADDRESSES4 for n in (8, 16, 31, 32)]
TUNNELS = [*UNDERLAYS, replace(UNDERLAYS[0], port=4000), replace(UNDERLAYS[0], remote=ADDRESSES6[3])]
TUNNELS += [Tunnel(local=ADDRESSES4[0], remote=ADDRESSES4[3], encapsulation=Encapsulation.IP)]


def made(
    ends: tuple[AnyAddress, AnyAddress], payload: bytes, traffic_class: int, hops: int, length: int | None, cut: int
) -> bytes:
    octets = packet(*ends, payload=payload, traffic_class=traffic_class, hop_limit=hops, payload_length=length)
    return octets[: len(octets) - cut]


packets = st.builds(
    made,
    st.tuples(st.sampled_from(ANY6), st.sampled_from(ANY6)) | st.tuples(st.sampled_from(ANY4), st.sampled_from(ANY4)),
    st.binary(max_size=24),
    st.integers(0, 255),
    st.sampled_from([0, 1, 64, 64, 255]),
    st.none() | st.none() | st.integers(0, 40) | st.integers(0, 65000),
    st.sampled_from([0, 0, 0, 0, 1, 10, 39]),
)
edits = st.lists(
    st.tuples(st.sampled_from(NETWORKS), st.sampled_from(TUNNELS), st.sampled_from([Side.ANCHOR, Side.ACCESS, None])),
    max_size=20,
)


def alike(edit_list: list[tuple[IPv6Network | IPv4Network, Tunnel, Side | None]]) -> tuple[Engine, Engine]:
    pair = Engine(Tables(compiled=True)), Engine(Tables(compiled=False))
    for each in pair:
        for network, tunnel, side in edit_list:
            if side is None:
                each.tables.hold(network)
            else:
                each.tables.bind(network, tunnel, side=side)
    return pair


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
    st.lists(
        st.builds(
            lambda tunnel, inner, traffic_class: arriving(tunnel, inner, traffic_class=traffic_class),
            st.sampled_from(TUNNELS),
            packets,
            st.integers(0, 255),
        ),
        max_size=50,
    ),
)
def test_both_unwrap_alike(edit_list: list, arrivals: list[bytes]) -> None:
    compiled, model = alike(edit_list)
    assert compiled.decapsulate(arrivals) == model.decapsulate(arrivals)
    assert compiled.counters() == model.counters()
    assert compiled.tables.tunnels() == model.tables.tunnels()


@settings(deadline=None, max_examples=150)
@given(edits, st.lists(st.binary(max_size=120), max_size=30))
def test_both_refuse_garbage_alike(edit_list: list, garbage: list[bytes]) -> None:
    compiled, model = alike(edit_list)
    assert compiled.decapsulate(garbage) == model.decapsulate(garbage)
    assert compiled.encapsulate(garbage) == model.encapsulate(garbage)
    assert compiled.counters() == model.counters()
