"""Both halves of the engine stay one: numbers, stubs, documents, and life without the compiled half."""

from __future__ import annotations

import ast
import gc
import importlib
import os
import random
import re
import subprocess
import sys
import threading
import tracemalloc
from pathlib import Path

import pytest

import engine
from engine import Drop, Engine, Side, Tables
from tests.engine.nodes import ANCHORED, BACK, DOWN, OTHER, TUNNEL, arriving, fill

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
def test_the_stub_says_nothing_that_the_module_lacks(name: str) -> None:
    module = importlib.import_module(f"engine._fast.{name}")
    for node in stub(name).body:
        if isinstance(node, ast.ClassDef):
            assert public_names(node) <= set(dir(getattr(module, node.name))), node.name
        elif isinstance(node, ast.FunctionDef):
            assert callable(getattr(module, node.name))


def stub(name: str) -> ast.Module:
    return ast.parse((FAST / f"{name}.pyi").read_text())


def public_names(node: ast.ClassDef) -> set[str]:
    names = {item.name for item in node.body if isinstance(item, ast.FunctionDef)}
    names |= {target.id for item in node.body if isinstance(item, ast.Assign) for target in item.targets}
    names |= {item.target.id for item in node.body if isinstance(item, ast.AnnAssign)}
    return {name for name in names if not name.startswith("_")}


# what the compiled half has for itself: figures of its memory, loops for the bench, copies for captures
ITS_OWN = {
    "Tables": {"octets", "hammer", "rehearse"},
    "Path": {"open_tap", "read_tap", "close_tap"},
}


@compiled_only
@pytest.mark.parametrize(("module", "name"), [("tables", "Tables"), ("path", "Path")])
def test_the_model_has_the_methods_of_its_compiled_twin(module: str, name: str) -> None:
    from engine import model

    [node] = [each for each in stub(module).body if isinstance(each, ast.ClassDef) and each.name == name]
    public = {method for method in vars(getattr(model, name)) if not method.startswith("_")}
    public -= {"members", "leads_to", "saw_segment"}  # the compiled path reads them in memory
    assert public == public_names(node) - ITS_OWN[name]


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
from tests.engine.nodes import DOWN, TUNNEL, fill, leaving, unlabelled
assert engine.compiled is False
tables = engine.Tables()
fill(tables)
made = engine.Engine(tables)
assert made.compiled is False
[[out]] = made.encapsulate([DOWN])
assert unlabelled(out) == leaving(TUNNEL, DOWN)
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

    def walk() -> None:
        for _ in range(300):
            tables.bind(ANCHORED, OTHER, side=Side.ANCHOR)
            made.encapsulate([DOWN, b"", DOWN[:50]] * 30)
            made.decapsulate([arriving(OTHER, BACK), arriving(TUNNEL, BACK, traffic_class=3)] * 30)
            tables.bindings()
            tables.tunnels()
            tables.bind(ANCHORED, TUNNEL, side=Side.ANCHOR)

    walk()
    before = sys.getrefcount(OTHER)  # places that are free again remember whom they had
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
@pytest.mark.skipif("OPENMAR_SANITIZE" in os.environ, reason="the sanitizer itself keeps what is freed, to watch it")
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

    walking = threading.Thread(
        target=made.rehearse, args=([DOWN] * 64,), kwargs={"towards": DOWN[24:32], "rounds": 20000}
    )
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
