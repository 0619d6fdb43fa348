"""Checksum, splitting and merging in memory: compiled beside model. octets and rounds of a call are in extra_info.

`plain` is the checksum without vectors. Octets a call / mean = octets per second.

    python -m pytest bench/bench_offload.py --benchmark-only
"""

from __future__ import annotations

import struct

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from engine.model import offload as model

try:
    from engine._fast import checksum, offload
except ImportError:
    checksum = offload = None

KINDS = ["compiled", "model"] if offload else ["model"]
SEGMENT = 1388  # octets of payload: 1460 in a packet, with timestamps
LARGE = 65000  # octets of payload
ROUNDS = 200  # of compiled code a call
TCP, UDP, GSO_TCP6, GSO_UDP = 6, 17, 4, 5


def packet(protocol: int, transport: bytes, payload: bytes) -> bytes:
    """IPv6, with the right checksum."""
    at = 16 if protocol == TCP else 6
    addresses = bytes(range(1, 33))
    upper = transport + payload
    value = model.fold(model.total(addresses + struct.pack("!II", len(upper), protocol) + upper)) ^ 0xFFFF
    upper = model.put(upper, at, value or 0xFFFF)
    return struct.pack("!IHBB", 6 << 28, len(upper), protocol, 64) + addresses + upper


def tcp(payload: bytes, sequence: int, port: int = 1) -> bytes:
    header = struct.pack("!HHIIBBHHH", port, 80, sequence, 1, 0x80, 0x10, 500, 0, 0) + b"\1\1\x08\x0a" + bytes(8)
    return packet(TCP, header, payload)


def udp(payload: bytes) -> bytes:
    return packet(UDP, struct.pack("!HHHH", 1, 53, 8 + len(payload), 0), payload)


def segments(port: int = 1) -> list[bytes]:
    return [tcp(bytes([n]) * SEGMENT, n * SEGMENT, port) for n in range(LARGE // SEGMENT)]


@pytest.mark.parametrize("octets", [64, 1400, 65536])
@pytest.mark.parametrize("kind", ["compiled", "plain", "model"] if checksum else ["model"])
def test_checksum(benchmark: BenchmarkFixture, kind: str, octets: int) -> None:
    data = bytes(n * 7 & 0xFF for n in range(octets))
    benchmark.extra_info |= {"octets": octets, "rounds": 1 if kind == "model" else 1000}
    if kind == "model":
        benchmark(lambda: model.fold(model.total(data)))
    else:
        benchmark(checksum.rehearse, data, 1000, "best" if kind == "compiled" else "plain")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("what", ["tcp", "udp"])
def test_split(benchmark: BenchmarkFixture, kind: str, what: str) -> None:
    data = tcp(bytes(LARGE), 1) if what == "tcp" else udp(bytes(LARGE))
    gso = GSO_TCP6 if what == "tcp" else GSO_UDP
    benchmark.extra_info |= {"octets": LARGE, "segment": SEGMENT, "rounds": 1 if kind == "model" else ROUNDS}
    if kind == "model":
        assert len(benchmark(model.split, data, gso, SEGMENT)) == -(-LARGE // SEGMENT)
    else:
        assert benchmark(offload.rehearse_split, data, gso, SEGMENT, ROUNDS) == -(-LARGE // SEGMENT) * ROUNDS


def merge(benchmark: BenchmarkFixture, kind: str, packets: list[bytes], flows: list[int], outputs: int) -> None:
    rounds = 1 if kind == "model" else ROUNDS
    octets = sum(map(len, packets))
    benchmark.extra_info |= {"octets": octets, "packets": len(packets), "outputs": outputs, "rounds": rounds}
    if kind == "model":
        assert len(benchmark(lambda: model.Merger().merge(packets))) == outputs
    else:
        assert benchmark(offload.rehearse_merge, packets, flows, ROUNDS) == outputs * ROUNDS


@pytest.mark.parametrize("kind", KINDS)
def test_merge_one_tcp_stream(benchmark: BenchmarkFixture, kind: str) -> None:
    packets = segments()
    merge(benchmark, kind, packets, [5] * len(packets), 1)


@pytest.mark.parametrize("kind", KINDS)
def test_merge_sixteen_tcp_streams_mixed(benchmark: BenchmarkFixture, kind: str) -> None:
    columns = list(zip(*[segments(port)[:16] for port in range(16)], strict=True))
    merge(benchmark, kind, [one for column in columns for one in column], [*range(16)] * 16, 16)


@pytest.mark.parametrize("kind", KINDS)
def test_merge_small_datagrams(benchmark: BenchmarkFixture, kind: str) -> None:
    merge(benchmark, kind, [udp(bytes(64)) for _ in range(256)], [5] * 256, 4)


@pytest.mark.parametrize("kind", KINDS)
def test_merge_what_cannot_be_merged(benchmark: BenchmarkFixture, kind: str) -> None:
    merge(benchmark, kind, [tcp(b"", n) for n in range(256)], [5] * 256, 256)
