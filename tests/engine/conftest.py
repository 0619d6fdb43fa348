"""Each engine test runs on three engines: the model on its own tables, the model on C tables, the compiled path."""

from __future__ import annotations

import random

import pytest

import engine
from engine import Engine, Tables
from tests.engine.nodes import fill

KINDS = ["model"] + (["model over C tables", "compiled"] if engine.compiled else [])


@pytest.fixture(params=KINDS)
def any_engine(request: pytest.FixtureRequest) -> Engine:
    """An engine with a prefix away from its anchor here, one visiting here, one between routers."""
    made = Engine(Tables(compiled=request.param != "model"), compiled=request.param == "compiled")
    fill(made.tables)
    return made


@pytest.fixture(params=KINDS[::2])
def tables(request: pytest.FixtureRequest) -> Tables:
    return Tables(compiled=request.param == "compiled")


@pytest.fixture
def dice() -> random.Random:
    """Randomness whose seed is printed with a failure."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    return random.Random(seed)
