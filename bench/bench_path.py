"""The walk in memory, compiled beside model: parse, flow hash, look-up, rule, tunnel, outer header, counters.

Bursts of 256 packets to random bindings; packet size, table size, rules and packets a call are in extra_info, so
packets / median = packets a second. Nothing is sent, no Python object is made: `rehearse`. encapsulate and decapsulate
are the same with an object for each packet, as the library gives them.

    python -m pytest bench/bench_path.py --benchmark-only          # OPENMAR_BENCH_LARGE=1: ten million bindings too
"""

from __future__ import annotations

import functools
import os
import platform
import random
from ipaddress import IPv6Address

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

import engine
from engine import Encapsulation, Engine, FlowRule, Policy, Steer, Tables, TrafficSelector, Tunnel

KINDS = ["compiled", "model"] if engine.compiled else ["model"]
SIZES = [1, 1_000, 100_000, 1_000_000] + ([10_000_000] if os.environ.get("OPENMAR_BENCH_LARGE") else [])
RULES = [0, 1, 32, 1024]
BURST = 256  # packets
ROUNDS = {"compiled": 4096, "model": 1}  # bursts a call
MOST_FOR_MODEL = 1_000
CASES = [(kind, size) for kind in KINDS for size in SIZES if kind != "model" or size <= MOST_FOR_MODEL]
ANCHOR, KIND = 1, 6 << 8 | 64  # as the tables want them: a million IPv6Network objects would be the benchmark
FIRST = 0x20010DB8_01000000
CORRESPONDENT = IPv6Address("2001:db8:cccc::80").packed
TUNNEL = Tunnel(
    local=IPv6Address("2001:db8:a1::1"), remote=IPv6Address("2001:db8:a2::1"), encapsulation=Encapsulation.IP
)
BACK = Tunnel(local=TUNNEL.remote, remote=TUNNEL.local, encapsulation=Encapsulation.IP)


def policy_of(tables: Tables, rules: int) -> Policy | None:
    """So many rules, of which the last one matches our packets."""
    others = [
        FlowRule(TrafficSelector(family=6, protocol=(6, 6), destination_port=(n, n)), Steer())
        for n in range(1, rules)
    ]
    ours = FlowRule(TrafficSelector(family=6, protocol=(17, 17), destination_port=(5000, 6000)), Steer())
    return tables.policy([*others, ours]) if rules else None


@functools.lru_cache(maxsize=1)  # one large table at a time
def full_engine(kind: str, size: int, rules: int) -> tuple[Engine, bytes]:
    """An engine with size bindings, and random ones of them: 8 octets each."""
    tables = Tables(compiled=kind == "compiled")
    policy = policy_of(tables, rules)
    dice = random.Random(size)
    networks = [FIRST + dice.getrandbits(30) for _ in range(size)] if size > 1 else [FIRST]
    for network in networks:
        tables.storage.bind((network << 64).to_bytes(16, "big"), KIND, ANCHOR, TUNNEL, policy.number if policy else 0)
    return Engine(tables), b"".join(dice.choice(networks).to_bytes(8, "big") for _ in range(min(1 << 20, 64 * size)))


def packet(source: bytes, destination: bytes, octets: int, port: int = 5004) -> bytes:
    udp = (4000).to_bytes(2, "big") + port.to_bytes(2, "big") + (octets - 40).to_bytes(2, "big") + b"\0\0"
    header = b"\x60\0\0\0" + (octets - 40).to_bytes(2, "big") + b"\x11\x40" + source + destination
    return header + udp + bytes(octets - 48)


def burst(octets: int) -> list[bytes]:
    return [packet(CORRESPONDENT, (FIRST << 64 | 5).to_bytes(16, "big"), octets)] * BURST


def note(benchmark: BenchmarkFixture, kind: str, **more: int) -> None:
    benchmark.extra_info.update(packets=BURST * ROUNDS[kind], cpu=platform.processor() or platform.machine(), **more)


@pytest.mark.parametrize("octets", [64, 1400])
@pytest.mark.parametrize(("kind", "size"), CASES)
def test_walk(benchmark: BenchmarkFixture, kind: str, size: int, octets: int) -> None:
    made, towards = full_engine(kind, size, 1)
    note(benchmark, kind, octets=octets, bindings=size, rules=1)
    benchmark(made.rehearse, burst(octets), towards=towards, rounds=ROUNDS[kind])
    assert made.counters().packets_to_underlay > 0
    assert not any(made.counters().drops.values())


@pytest.mark.parametrize("rules", RULES)
@pytest.mark.parametrize("kind", KINDS)
def test_walk_with_rules(benchmark: BenchmarkFixture, kind: str, rules: int) -> None:
    """A thousand flows: the decision cache is warm after the first of them."""
    made, towards = full_engine(kind, 1_000, rules)
    note(benchmark, kind, octets=64, bindings=1_000, rules=rules)
    benchmark(made.rehearse, burst(64), towards=towards, rounds=ROUNDS[kind])
    assert not any(made.counters().drops.values())


@pytest.mark.parametrize("octets", [64, 1400])
@pytest.mark.parametrize("kind", KINDS)
def test_walk_back(benchmark: BenchmarkFixture, kind: str, octets: int) -> None:
    """Outer header off, tunnel and inner prefix checked, ECN."""
    made, _ = full_engine(kind, 1, 0)
    home = packet((FIRST << 64 | 5).to_bytes(16, "big"), CORRESPONDENT, octets)
    far = Engine(Tables(compiled=kind == "compiled"))
    far.tables.storage.bind((FIRST << 64).to_bytes(16, "big"), KIND, 2, BACK)
    ((outer,),) = far.encapsulate([home])  # type: ignore[misc]
    assert made.decapsulate([outer]) == [home]
    note(benchmark, kind, octets=octets, bindings=1)
    benchmark(made.rehearse_back, [outer] * BURST, rounds=ROUNDS[kind])


@pytest.mark.parametrize("followed", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_walk_with_connections(benchmark: BenchmarkFixture, kind: str, followed: bool) -> None:
    """TCP of a node that visits, a thousand connections that are open."""
    tables = Tables(compiled=kind == "compiled")
    tables.storage.bind((FIRST << 64).to_bytes(16, "big"), KIND, 2, TUNNEL)
    tables.open_idle_after = 7440.0 * followed
    tcp = packet((FIRST << 64 | 5).to_bytes(16, "big"), CORRESPONDENT, 64)
    segments = [tcp[:6] + b"\x06" + tcp[7:52] + b"\x50\x10" + tcp[54:]] * BURST
    towards = b"".join((int.from_bytes(CORRESPONDENT[:8], "big") + n).to_bytes(8, "big") for n in range(1000))
    note(benchmark, kind, octets=64, bindings=1, connections=1000 * followed)
    benchmark(Engine(tables).rehearse, segments, towards=towards, rounds=ROUNDS[kind])
    assert (sum(each.number for each in tables.all_connections().values()) > 0) == followed


@pytest.mark.parametrize("octets", [64, 1400])
@pytest.mark.parametrize("kind", KINDS)
def test_encapsulate(benchmark: BenchmarkFixture, kind: str, octets: int) -> None:
    made, _ = full_engine(kind, 1, 0)
    packets = burst(octets)
    benchmark.extra_info.update(packets=BURST, octets=octets)
    answers = benchmark(made.encapsulate, packets)
    assert [answer[0][40:] for answer in answers] == packets
