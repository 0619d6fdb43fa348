"""The text of a TOML file: its tables, the line each key stands in (tomllib tells none), and problems placed there."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from router.errors import ConfigError

COMMAND_LINE = 0  # the "line" of what a flag has set

Place = tuple[object, ...]  # (table, key), or (table, number, key) in a list of tables
Lines = dict[Place, int]


class Problems:
    """What is wrong with a configuration, each with the place where it was found."""

    def __init__(self, file: Path | None, lines: Lines) -> None:
        self.found: list[tuple[int, str]] = []
        self._file = file
        self._lines = lines

    def add(self, where: Place, expected: str) -> None:
        """A problem of this key; one that is missing is placed at its table."""
        places = (where[:length] for length in range(len(where), 0, -1))
        line = next((self._lines[place] for place in places if place in self._lines), None)
        if line == COMMAND_LINE or self._file is None:
            source = "command line"
        else:
            source = str(self._file) if line is None else f"{self._file}:{line}"
        key = ".".join(part for part in where if isinstance(part, str))
        self.found.append((line or 0, f"{source}: {key}: {expected}"))

    def raise_if_any(self) -> None:
        """ConfigError with one line for each problem, in the order of the file."""
        if self.found:
            raise ConfigError("\n".join(text for _, text in sorted(self.found, key=lambda item: item[0])))


def read(file: Path) -> str:
    """The text of a file. Raises ConfigError."""
    try:
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}: expected a readable TOML file") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{file}: not UTF-8 text: expected a TOML file") from None


def one_line(error: ConfigError) -> str:
    """All problems of a configuration where there is room for one: the first, and how many follow."""
    first, *others = str(error).split("\n")
    return f"{first} (and {len(others)} more)" if others else first


def parse(file: Path, text: str) -> dict[str, Any]:
    """The tables of a text; file is for its problems. Raises ConfigError."""
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ConfigError(f"{file}: syntax: nested too deeply") from None
    except ValueError as error:  # TOMLDecodeError, and what Python says of numbers with thousands of digits
        found = re.search(r"(.*) \(at (?:line (\d+), column \d+|end of document)\)", str(error))
        what, line = (found[1], found[2]) if found else (str(error), None)
        line = line or str(text.rstrip("\n").count("\n") + 1)
        raise ConfigError(f"{file}:{line}: syntax: {what[:1].lower()}{what[1:]}") from None


WORD = r"""(?:[A-Za-z0-9_-]+|"(?:\\.|[^"\\\n])*"|'[^'\n]*')"""
DOTTED = rf"{WORD}(?:\s*\.\s*{WORD})*"
STATEMENT = re.compile(rf"\s*(?:\[\[\s*(?P<list>{DOTTED})\s*\]\]|\[\s*(?P<table>{DOTTED})\s*\]|(?P<key>{DOTTED})\s*=)")
# what has to be stepped over as a whole: strings of several lines, strings, comments; and what opens, closes, ends
TOKEN = re.compile(
    r'''"""(?:\\.|[^\\])*?"{3,5}|'{3}.*?'{3,5}|"(?:\\.|[^"\\\n])*"|'[^'\n]*'|\#[^\n]*|[\[{\]}\n]''', re.DOTALL
)


def key_lines(text: str) -> Lines:
    """Where each table and key of a TOML document without errors stands: place -> line."""
    lines: Lines = {}
    table: Place = ()
    counts: dict[str, int] = {}
    for line, statement in _statements(text):
        found = STATEMENT.match(statement)
        if found is None:
            continue
        names = tuple(word.strip("\"'") for word in re.findall(WORD, found[found.lastgroup or 0]))
        if found["key"]:
            for length in range(1, len(names) + 1):
                lines.setdefault((*table, *names[:length]), line)
            continue
        if found["list"] and len(names) == 1:
            lines.setdefault(names, line)
            counts[names[0]] = counts.get(names[0], -1) + 1
        table = (names[0], counts[names[0]], *names[1:]) if names[0] in counts else names
        lines.setdefault(table, line)
    return lines


def _statements(text: str) -> Iterator[tuple[int, str]]:
    """Headers and assignments, each with the line it begins in; an array may take several."""
    line = first_line = 1
    start = depth = 0
    for token in TOKEN.finditer(text):
        if token[0] in ("[", "{"):
            depth += 1
        elif token[0] in ("]", "}"):
            depth -= 1
        elif token[0] == "\n" and not depth:
            yield first_line, text[start : token.start()]
            first_line, start = line + 1, token.end()
        line += token[0].count("\n")
    yield first_line, text[start:]
