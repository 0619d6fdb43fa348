"""The rules of this project that can be read from its tree: who imports whom, what core modules may not touch, names.

Docstrings of public classes and functions are ruff's (D1).
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("signaling", "engine", "router")
HANDS = {
    "asyncio",
    "ctypes",
    "datetime",
    "fcntl",
    "http",
    "io",
    "logging",
    "multiprocessing",
    "os",
    "pathlib",
    "random",
    "secrets",
    "select",
    "selectors",
    "shutil",
    "signal",
    "socket",
    "sqlite3",
    "subprocess",
    "sys",
    "tempfile",
    "threading",
    "time",
    "urllib",
    "uuid",
}
BOTH_PLANES = {
    "router/config.py",  # names the settings of both
    "router/daemon.py",  # lets them live
    "router/driver.py",  # runs them
    "router/forwarding.py",  # says what a path means in both
    "router/network.py",  # carries it out
    "router/rehearsal.py",  # plays it
}
NO_NOUN = {"common", "helper", "helpers", "manager", "misc", "tools", "util", "utils"}


def files(*places: str) -> list[Path]:
    """Python files of the tree below these places."""
    return sorted(path for place in places for path in (ROOT / place).rglob("*.py"))


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def imported(path: Path) -> Iterator[str]:
    """Every module that a file names in an import, wherever in the file."""
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = "." * node.level + (node.module or "")
            yield package
            yield from (f"{package}.{alias.name}" for alias in node.names)


def tops(path: Path) -> set[str]:
    """The top-level packages that a file imports from."""
    return {module.split(".")[0] for module in imported(path)}


@pytest.mark.parametrize("path", files("signaling"), ids=name)
def test_signaling_knows_neither_the_engine_nor_the_router(path: Path) -> None:
    assert not tops(path) & {"engine", "router", "tests"}


@pytest.mark.parametrize("path", files("signaling"), ids=name)
def test_signaling_has_no_hands(path: Path) -> None:
    assert not tops(path) & HANDS


@pytest.mark.parametrize("path", files("signaling"), ids=name)
def test_signaling_opens_and_prints_nothing(path: Path) -> None:
    called = {
        node.func.id
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert not called & {"open", "print", "input", "eval", "exec", "__import__"}


@pytest.mark.parametrize("path", files("engine"), ids=name)
def test_the_engine_knows_neither_signaling_nor_the_router(path: Path) -> None:
    assert not tops(path) & {"signaling", "router", "tests"}


@pytest.mark.parametrize("path", files("router"), ids=name)
def test_the_router_does_not_know_its_tests(path: Path) -> None:
    assert "tests" not in tops(path)


def test_only_these_files_of_the_router_know_both_planes() -> None:
    both = {name(path) for path in files("router") if {"signaling", "engine"} <= tops(path)}
    assert both <= BOTH_PLANES


@pytest.mark.parametrize("path", files("signaling/wire"), ids=name)
def test_the_wire_knows_no_roles_and_no_state(path: Path) -> None:
    inside = {module for module in imported(path) if module.startswith("signaling.")}
    allowed = ("signaling.wire", "signaling.iana", "signaling.errors")
    assert all(module.startswith(allowed) for module in inside)


@pytest.mark.parametrize("path", [path for path in files("signaling") if path.parent.name != "roles"], ids=name)
def test_nothing_below_the_roles_imports_a_role(path: Path) -> None:
    assert not [module for module in imported(path) if module.startswith("signaling.roles")]


def test_the_registry_imports_nothing_of_ours() -> None:
    assert not tops(ROOT / "signaling/iana.py") & set(PACKAGES)


@pytest.mark.parametrize("path", files(*PACKAGES), ids=name)
def test_a_file_says_what_lives_in_it(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text()))


@pytest.mark.parametrize("path", files(*PACKAGES, "tests", "bench"), ids=name)
def test_a_file_is_called_after_what_is_in_it(path: Path) -> None:
    words = {word for part in path.relative_to(ROOT).with_suffix("").parts for word in part.split("_")}
    assert not words & NO_NOUN


@pytest.mark.parametrize("path", files("tests"), ids=name)
def test_tests_do_not_sleep(path: Path) -> None:
    if path.name == "eventually.py":  # the one place where the kernel is waited for
        return
    naps = [
        node.lineno
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("time.sleep", "sleep")
    ]
    assert naps == []


def test_states_change_along_the_tables_only() -> None:
    """`state`, `progress` and `stage` are assigned in `step`, nowhere else."""
    assigned = []
    for path in files("signaling"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Assign):
                targets = [ast.unparse(target) for target in node.targets]
                if any(target.endswith((".state", ".progress", ".stage")) for target in targets):
                    assigned.append(name(path))
    assert assigned == [
        "signaling/dma/binding_cache.py",
        "signaling/dma/update_list.py",
        "signaling/pmip/binding_update_list.py",
    ]
