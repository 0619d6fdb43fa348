"""Each engine test runs on both engines: the model, in plain Python, and the compiled path."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator

import pytest

import engine
from engine import Engine, Tables
from tests.engine.nodes import fill

KINDS = ["model"] + (["compiled"] if engine.compiled else [])


@pytest.fixture(params=KINDS)
def compiled(request: pytest.FixtureRequest) -> bool:
    """Which of the two."""
    return request.param == "compiled"


@pytest.fixture
def tables(compiled: bool) -> Tables:
    return Tables(compiled=compiled)


@pytest.fixture
def any_engine(tables: Tables) -> Engine:
    """An engine with prefixes away from their anchor here, some visiting here, one between routers."""
    fill(tables)
    return Engine(tables)


@pytest.fixture
def dice() -> random.Random:
    """Randomness whose seed is printed with a failure."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    return random.Random(seed)


@pytest.fixture
def tun_pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A TUN that is no device: our end of it, and the kernel's."""
    ours, kernel = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    kernel.setblocking(False)
    for each in (ours, kernel):
        each.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)  # or as much as may be: some hundred packets
    with ours, kernel:
        yield ours, kernel
