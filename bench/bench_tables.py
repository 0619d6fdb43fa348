"""Editing the tables: bind and unbind beside 100,000 bindings, and the memory one binding takes.

    python -m pytest bench/bench_tables.py --benchmark-only
"""

from __future__ import annotations

from ipaddress import IPv6Address, IPv6Network

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

import engine
from engine import Encapsulation, Side, Tables, Tunnel

KINDS = ["compiled", "model"] if engine.compiled else ["model"]
BINDINGS = 100_000
EDITS = 1000  # a call
TUNNEL = Tunnel(
    local=IPv6Address("2001:db8:a1::1"), remote=IPv6Address("2001:db8:a2::1"), encapsulation=Encapsulation.UDP
)


def prefix(n: int) -> IPv6Network:
    return IPv6Network((0x20010DB8_01000000 << 64 | n << 64, 64))


@pytest.mark.parametrize("kind", KINDS)
def test_bind_and_unbind(benchmark: BenchmarkFixture, kind: str) -> None:
    tables = Tables(compiled=kind == "compiled")
    for n in range(BINDINGS):
        tables.bind(prefix(n), TUNNEL, side=Side.ANCHOR)
    more = [prefix(BINDINGS + n) for n in range(EDITS)]

    def edit() -> None:
        for each in more:
            tables.bind(each, TUNNEL, side=Side.ANCHOR)
        for each in more:
            tables.unbind(each)

    benchmark.extra_info["edits"] = 2 * EDITS
    if kind == "compiled":
        benchmark.extra_info["octets per binding"] = round(tables.storage.octets() / BINDINGS, 1)
    benchmark(edit)
    assert len(tables) == BINDINGS
