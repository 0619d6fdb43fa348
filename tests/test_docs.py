"""The documents say the truth about the tree: tests they name, files they link to, keys, flags and exit codes."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from router.cli import _run_parser
from router.config import LISTS, SCHEMA
from router.errors import ExitCode

ROOT = Path(__file__).parent.parent
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES_OF_RULES = sorted((ROOT / "docs").glob("rfc*.md"))
REFERENCE = re.compile(r"(tests/[\w/]+\.py)::(\w+)")
LINK = re.compile(r"\]\(([^)\s]+)\)")
FLAG = re.compile(r"(?<![\w-])--[a-z][a-z-]*")
NOT_FILES = ("http://", "https://", "mailto:", "#")
KEYS = {f"{table}.{key}" for table, keys in (SCHEMA | LISTS).items() for key in keys}
OPTIONS = {option for action in _run_parser()._actions for option in action.option_strings}
FLAGS = {option for option in OPTIONS if option.startswith("--")} - {"--help"}


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def rows(path: Path, first: str) -> list[list[str]]:
    """The cells of the rows of each table whose first column has this heading."""
    found: list[list[str]] = []
    heading = ""
    for line in path.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")] if line.startswith("|") else []
        if not cells:
            heading = ""
        elif not heading:
            heading = cells[0]
        elif heading == first and set(cells[0]) != {"-"}:
            found.append(cells)
    return found


def config_column(heading: str, number: int) -> str:
    return "\n".join(cells[number] for cells in rows(ROOT / "docs/config.md", heading))


@cache
def functions_of(path: Path) -> set[str]:
    """Names of the test functions in a file; none if there is no such file."""
    if not path.is_file():
        return set()
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    functions = (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, kinds))
    return {function.name for function in functions if function.name.startswith("test_")}


def test_a_test_that_is_a_coroutine_is_seen(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text("async def test_it():\n    pass\n")
    assert functions_of(tmp_path / "test_it.py") == {"test_it"}


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_every_test_a_document_names_is_there(document: Path) -> None:
    named = REFERENCE.findall(document.read_text())
    assert [f"{file}::{test}" for file, test in named if test not in functions_of(ROOT / file)] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_every_link_of_a_document_leads_to_a_file(document: Path) -> None:
    links = [link for link in LINK.findall(document.read_text()) if not link.startswith(NOT_FILES)]
    assert [link for link in links if not (document.parent / link.partition("#")[0]).exists()] == []


@pytest.mark.parametrize("document", PAGES_OF_RULES, ids=name)
def test_every_rule_has_an_answer_and_a_test_or_says_that_it_has_none(document: Path) -> None:
    table = rows(document, "rule")
    assert len(table) > 20
    for cells in table:
        rule, answer, tests = cells
        assert rule
        assert answer
        assert tests == "—" or all(REFERENCE.fullmatch(item.strip("`")) for item in tests.split("<br>")), rule


@pytest.mark.parametrize("document", PAGES_OF_RULES, ids=name)
def test_a_page_of_rules_is_found_from_the_first_one_and_the_readme(document: Path) -> None:
    first, readme = ROOT / "docs/rfc.md", ROOT / "README.md"
    assert f"docs/{document.name}" in LINK.findall(readme.read_text())
    assert document == first or document.name in LINK.findall(first.read_text())


def test_the_documented_keys_are_those_of_the_language() -> None:
    assert set(re.findall(r"`(\w+\.\w+)`", config_column("key", 0))) == KEYS


def test_the_documented_counters_are_those_of_the_code() -> None:
    table = rows(ROOT / "docs/counters.md", "Counter of signalling")
    assert {name for cells in table for name in re.findall(r"`([^`]+)`", cells[0])} == {
        name for package in ("signaling", "router") for path in (ROOT / package).rglob("*.py") for name in counted(path)
    }


def counted(path: Path) -> set[str]:
    """What a file counts: `counters["part.reason"] += ...`."""
    edits = (node.target for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.AugAssign))
    places = (node for node in edits if isinstance(node, ast.Subscript))
    return {name for it in places if ast.unparse(it.value).endswith("counters") for name in names_of(it.slice)}


def names_of(counter: ast.expr) -> set[str]:
    """The names an expression stands for; what is known only later is "*"."""
    if isinstance(counter, ast.IfExp):
        return names_of(counter.body) | names_of(counter.orelse)
    parts = counter.values if isinstance(counter, ast.JoinedStr) else [counter]
    return {"".join(str(part.value) if isinstance(part, ast.Constant) else "*" for part in parts)}


def test_the_documented_flags_are_those_of_the_command_line() -> None:
    assert set(FLAG.findall((ROOT / "docs/config.md").read_text())) == FLAGS


@pytest.mark.parametrize("code", ExitCode)
def test_an_exit_code_is_documented(code: ExitCode) -> None:
    assert str(code.value) in config_column("code", 0).splitlines()


@pytest.mark.parametrize("code", ExitCode)
def test_an_exit_code_is_told_by_the_help(code: ExitCode) -> None:
    assert code.value in codes_of_the_help()


def test_no_exit_code_is_told_that_does_not_exist() -> None:
    told = {int(code) for code in config_column("code", 0).split()} | codes_of_the_help()
    assert told <= {code.value for code in ExitCode}


def codes_of_the_help() -> set[int]:
    text = _run_parser().format_help().partition("exit codes:")[2]
    return {int(code) for code in re.findall(r"\b(\d+) [a-z]", text)}
