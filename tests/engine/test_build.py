"""Both halves of the engine stay one: numbers, stubs, documents, and life without the compiled half."""

from __future__ import annotations

import ast
import gc
import importlib
import random
import re
import subprocess
import sys
import threading
import tracemalloc
from pathlib import Path

import pytest

import engine
from engine import Drop, Encapsulated, Engine, Side, Tables
from tests.engine.nodes import ANCHORED, BACK, DOWN, OTHER, TUNNEL, fill

ROOT = Path(__file__).parents[2]
FAST = ROOT / "engine" / "_fast"
compiled_only = pytest.mark.skipif(not engine.compiled, reason="nothing is compiled")


def test_every_drop_has_its_line_in_the_document() -> None:
    text = (ROOT / "docs" / "counters.md").read_text()
    assert re.findall(r"^\| `([A-Z0-9_]+)` \|", text, re.MULTILINE) == [reason.name for reason in Drop]


@compiled_only
def test_both_drop_enums_are_one() -> None:
    from engine._fast import drops

    members = {name: int(number) for name, number in drops.Drop.__members__.items()}
    assert members == {reason.name: reason.value for reason in Drop}


@compiled_only
@pytest.mark.parametrize("name", sorted(path.stem for path in FAST.glob("*.pyi")))
def test_the_stub_has_what_the_module_has(name: str) -> None:
    module = importlib.import_module(f"engine._fast.{name}")
    for node in ast.parse((FAST / f"{name}.pyi").read_text()).body:
        if isinstance(node, ast.ClassDef):
            actual = {member for member in vars(getattr(module, node.name)) if not member.startswith("_")}
            assert public_names(node) <= actual, node.name
            assert node.name == "Drop" or public_names(node) == actual, node.name


def public_names(node: ast.ClassDef) -> set[str]:
    names = {item.name for item in node.body if isinstance(item, ast.FunctionDef)}
    names |= {target.id for item in node.body if isinstance(item, ast.Assign) for target in item.targets}
    return {name for name in names if not name.startswith("_")}


@compiled_only
@pytest.mark.parametrize(("fast", "slow"), [("tables.Tables", "Tables"), ("path.Path", "Path")])
def test_the_model_has_the_methods_of_its_compiled_twin(fast: str, slow: str) -> None:
    from engine import model

    module, name = fast.split(".")
    twin = getattr(importlib.import_module(f"engine._fast.{module}"), name)
    public = {method for method in vars(twin) if not method.startswith("_")} - {"octets"}
    assert public == {method for method in vars(getattr(model, slow)) if not method.startswith("_")}


def test_every_compiled_source_has_its_map() -> None:
    assert {path.stem for path in FAST.glob("*.pyx")} <= {path.stem for path in FAST.glob("*.pxd")}


def test_the_engine_runs_where_nothing_is_compiled() -> None:
    program = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.startswith("engine._fast.") or name in ("engine._sys", "pytun"):
            raise ImportError(name)
sys.meta_path.insert(0, Blocker())
import engine
from tests.engine.nodes import DOWN, TUNNEL, fill
assert engine.compiled is False
tables = engine.Tables()
fill(tables)
made = engine.Engine(tables)
assert made.compiled is False
assert made.encapsulate([DOWN]) == [engine.Encapsulated(TUNNEL, 0, DOWN)]
for wrong in (lambda: engine.Tables(compiled=True), lambda: engine.Engine(tables, compiled=True)):
    try:
        wrong()
    except engine.NotCompiled:
        continue
    raise SystemExit("NotCompiled expected")
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@compiled_only
def test_nothing_leaks_however_often_the_path_is_walked() -> None:
    tables = Tables(compiled=True)
    made = Engine(tables, compiled=True)
    fill(tables)
    before = sys.getrefcount(OTHER)

    def walk() -> None:
        for _ in range(300):
            tables.bind(ANCHORED, OTHER, side=Side.ANCHOR)
            made.encapsulate([DOWN, b"", DOWN[:50]] * 30)
            made.decapsulate([Encapsulated(OTHER, 0, BACK), Encapsulated(TUNNEL, 3, BACK)] * 30)
            tables.bindings()
            tables.tunnels()
            tables.bind(ANCHORED, TUNNEL, side=Side.ANCHOR)

    walk()
    tracemalloc.start()
    gc.collect()
    octets = tracemalloc.get_traced_memory()[0]
    walk()
    gc.collect()
    grown = tracemalloc.get_traced_memory()[0] - octets
    tracemalloc.stop()
    assert grown < 4096
    assert sys.getrefcount(OTHER) == before


@compiled_only
def test_engines_come_and_go_without_keeping_memory() -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

    for _ in range(20):
        Engine(Tables(compiled=True)).encapsulate([DOWN] * 64)
    before = resident()
    for _ in range(200):
        Engine(Tables(compiled=True)).encapsulate([DOWN] * 64)
    assert resident() - before < 8 << 20  # one engine touches a quarter of a megabyte: 50 when all of them stay


@compiled_only
def test_the_tables_may_be_edited_while_another_thread_walks(dice: random.Random) -> None:
    tables = Tables(compiled=True)
    fill(tables)
    made = Engine(tables, compiled=True)
    edits = 0

    def edit() -> None:
        nonlocal edits
        while walking.is_alive() or edits == 0:
            tables.bind(ANCHORED, dice.choice([TUNNEL, OTHER]), side=Side.ANCHOR)
            tables.unbind(ANCHORED)
            edits += 1

    walking = threading.Thread(target=made.rehearse, args=([DOWN] * 64,), kwargs={"rounds": 20000})
    walking.start()
    edit()
    walking.join()
    counters = made.counters()
    assert counters.packets_to_underlay + counters.drops[Drop.NO_BINDING] == 64 * 20000


@pytest.mark.parametrize(
    ("name", "number"),
    [("IPV6_FREEBIND", 78), ("IPV6_TRANSPARENT", 75), ("IPV6_HDRINCL", 36), ("IPV6_AUTOFLOWLABEL", 70)],
)
def test_the_kernel_numbers_are_those_of_the_kernel(name: str, number: int) -> None:
    lib = pytest.importorskip("engine._sys").lib
    assert getattr(lib, name) == number


def test_every_fallback_number_agrees_with_the_headers() -> None:
    lib = pytest.importorskip("engine._sys").lib
    build = pytest.importorskip("engine._sys_build")
    assert {name: getattr(lib, name) for name in build.CONSTANTS} == build.CONSTANTS


def test_calls_report_their_errno() -> None:
    sys_module = pytest.importorskip("engine._sys")
    assert sys_module.lib.setns(-1, 0) == -1
    assert sys_module.ffi.errno == 9  # EBADF
