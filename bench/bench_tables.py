"""The tables in memory: look-ups, bind and unbind, and the octets of a binding, at one to ten million random prefixes.

Look-ups are the look-up alone, bursts of 256 to random destinations; addresses a call are in extra_info. The model
looks up the same addresses, fewer of them. Ten million bindings take 1 GiB and ten seconds to fill: ask with
OPENMAR_BENCH_LARGE=1.

    python -m pytest bench/bench_tables.py --benchmark-only -o python_files='bench_*.py'
"""

from __future__ import annotations

import functools
import os
import random
from ipaddress import IPv6Address, IPv6Network

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

import engine
from engine import Encapsulation, Side, Tables, Tunnel

KINDS = ["compiled", "model"] if engine.compiled else ["model"]
SIZES = [1, 1_000, 100_000, 1_000_000] + ([10_000_000] if os.environ.get("OPENMAR_BENCH_LARGE") else [])
MODEL_SIZES = [1, 1_000, 100_000]
LOOKED_UP = {"compiled": 1 << 20, "model": 1 << 10}  # addresses a call
EDITS = 1000  # a call
ANCHOR = 1
KIND = 6 << 8 | 64
TUNNELS = [
    Tunnel(
        local=IPv6Address("2001:db8:a1::1"),
        remote=IPv6Address(0x20010DB8 << 96 | n + 99),
        encapsulation=Encapsulation.UDP,
    )
    for n in range(8)
]


def prefixes(size: int) -> list[bytes]:
    """Random /64 prefixes, 16 octets each; the same ones every time."""
    dice = random.Random(size)
    return [((1 << 62 | dice.getrandbits(62)) << 64).to_bytes(16, "big") for _ in range(size)]


@functools.lru_cache(maxsize=1)  # one large table at a time
def filled(kind: str, size: int) -> Tables:
    tables = Tables(compiled=kind == "compiled")
    for n, network in enumerate(prefixes(size)):
        tables.storage.bind(network, KIND, ANCHOR, TUNNELS[n % 8])
    return tables


def addresses(size: int, count: int) -> list[bytes]:
    """Random addresses, each inside one of the prefixes."""
    dice, networks = random.Random(7), prefixes(size)
    return [dice.choice(networks)[:8] + dice.randbytes(8) for _ in range(count)]


CASES = [("compiled", size) for size in SIZES if "compiled" in KINDS] + [("model", size) for size in MODEL_SIZES]


@pytest.mark.parametrize(("kind", "size"), CASES)
def test_look_up(benchmark: BenchmarkFixture, kind: str, size: int) -> None:
    storage = filled(kind, size).storage
    wanted = addresses(size, LOOKED_UP[kind])
    benchmark.extra_info.update(addresses=len(wanted), bindings=size)
    if kind == "compiled":
        assert benchmark(storage.rehearse, b"".join(wanted), ANCHOR, 1) == 0
    else:
        assert None not in benchmark(lambda: [storage.match(address, ANCHOR) for address in wanted])


@pytest.mark.parametrize(("kind", "size"), CASES)
def test_bind_and_unbind(benchmark: BenchmarkFixture, kind: str, size: int) -> None:
    tables = filled(kind, size)
    more = [IPv6Network((0x20010DB8_01000000 << 64 | n << 64, 64)) for n in range(EDITS)]

    def edit() -> None:
        for each in more:
            tables.bind(each, TUNNELS[0], side=Side.ANCHOR)
        for each in more:
            tables.unbind(each)

    benchmark.extra_info.update(edits=2 * EDITS, bindings=size)
    if kind == "compiled":
        benchmark.extra_info["octets per binding"] = round(tables.storage.octets() / size, 1)
    benchmark(edit)
    assert len(tables) == size


@pytest.mark.parametrize(("kind", "size"), CASES)
def test_move(benchmark: BenchmarkFixture, kind: str, size: int) -> None:
    tables = filled(kind, size)
    some = [IPv6Network((network, 64)) for network in prefixes(size)[:EDITS]]

    def edit() -> None:
        for n, each in enumerate(some):
            tables.bind(each, TUNNELS[n % 7], side=Side.ANCHOR)

    benchmark.extra_info.update(edits=len(some), bindings=size)
    benchmark(edit)
    assert len(tables) == size
