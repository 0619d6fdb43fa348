"""The path in memory: compiled beside model, 64-octet and 1400-octet packets, 1000 prefixes, one burst a call.

`walk` is the path alone (no object made); encapsulate and decapsulate make one Python object or two for each packet.
Packets a call are in extra_info: packets / mean = packets per second.

    python -m pytest bench/bench_path.py --benchmark-only
"""

from __future__ import annotations

from ipaddress import IPv6Address, IPv6Network

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

import engine
from engine import Encapsulated, Encapsulation, Engine, Side, Tables, Tunnel

KINDS = ["compiled", "model"] if engine.compiled else ["model"]
BURST = 64  # packets
PREFIXES = 1000
ROUNDS = {"compiled": 1000, "model": 1}  # bursts a call, in walk
CORRESPONDENT = IPv6Address("2001:db8:cccc::80").packed
TUNNEL = Tunnel(
    local=IPv6Address("2001:db8:a1::1"), remote=IPv6Address("2001:db8:a2::1"), encapsulation=Encapsulation.UDP
)

pytestmark = [pytest.mark.parametrize("kind", KINDS), pytest.mark.parametrize("octets", [64, 1400])]


def full_engine(kind: str) -> Engine:
    tables = Tables(compiled=kind == "compiled")
    for n in range(PREFIXES):
        tables.bind(prefix(n), TUNNEL, side=Side.ANCHOR)
    return Engine(tables)


def prefix(n: int) -> IPv6Network:
    return IPv6Network((0x20010DB8_01000000 << 64 | n << 64, 64))


def packet(source: bytes, destination: bytes, octets: int) -> bytes:
    return b"\x60\0\0\0" + (octets - 40).to_bytes(2, "big") + b"\x3b\x40" + source + destination + bytes(octets - 40)


def burst_to_nodes(octets: int) -> list[bytes]:
    return [packet(CORRESPONDENT, prefix(n * 7 % PREFIXES)[5].packed, octets) for n in range(BURST)]


def test_walk(benchmark: BenchmarkFixture, kind: str, octets: int) -> None:
    made, packets = full_engine(kind), burst_to_nodes(octets)
    benchmark.extra_info["packets"] = BURST * ROUNDS[kind]
    benchmark(made.rehearse, packets, rounds=ROUNDS[kind])


def test_encapsulate(benchmark: BenchmarkFixture, kind: str, octets: int) -> None:
    made, packets = full_engine(kind), burst_to_nodes(octets)
    benchmark.extra_info["packets"] = BURST
    answers = benchmark(made.encapsulate, packets)
    assert [answer.packet for answer in answers] == packets


def test_decapsulate(benchmark: BenchmarkFixture, kind: str, octets: int) -> None:
    made = full_engine(kind)
    packets = [packet(prefix(n * 7 % PREFIXES)[5].packed, CORRESPONDENT, octets) for n in range(BURST)]
    arrivals = [Encapsulated(TUNNEL, 0, each) for each in packets]
    benchmark.extra_info["packets"] = BURST
    assert benchmark(made.decapsulate, arrivals) == packets
