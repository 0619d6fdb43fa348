"""The text of a TOML file: its tables, the line each key stands in (tomllib tells none), and problems placed there."""

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from router.errors import ConfigError

COMMAND_LINE = 0  # the "line" of what a flag has set
NUMBER_TOO_LONG = "a number of thousands of digits"  # all that tomllib tells without a place
MOST_TEXT = 16_000_000  # characters of a file: a thousand times what anybody writes

Place = tuple[object, ...]  # (table, key), or (table, number, key) in a list of tables
Lines = dict[Place, int]


class Problems:
    """What is wrong with a configuration, each with the place where it was found."""

    def __init__(self, file: Path | None, lines: Lines) -> None:
        self.found: list[tuple[int, str]] = []
        self.doubts: list[str] = []  # what may be meant, and probably is not
        self._file = file
        self._lines = lines

    def add(self, where: Place, expected: str) -> None:
        """A problem of this key; one that is missing is placed at its table."""
        self.found.append(self._placed(where, expected))

    def doubt(self, where: Place, what: str) -> None:
        """Something that is no problem, and that whoever wrote it should hear of."""
        self.doubts.append(self._placed(where, f"warning: {what}")[1])

    def _placed(self, where: Place, what: str) -> tuple[int, str]:
        places = (where[:length] for length in range(len(where), 0, -1))
        line = next((self._lines[place] for place in places if place in self._lines), None)
        if line == COMMAND_LINE or self._file is None:
            source = "command line"
        else:
            source = str(self._file) if line is None else f"{self._file}:{line}"
        key = ".".join(part for part in where if isinstance(part, str))
        return line or 0, f"{source}: {key}: {what}"

    def raise_if_any(self) -> None:
        """ConfigError with one line for each problem, in the order of the file."""
        if self.found:
            raise ConfigError("\n".join(text for _, text in sorted(self.found, key=lambda item: item[0])))


def read(file: Path) -> str:
    """The text of a file, without the byte order mark that some editors put first. Raises ConfigError."""
    try:
        with file.open(encoding="utf-8-sig") as opened:
            text = opened.read(MOST_TEXT + 1)
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}: expected a readable TOML file") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{file}: not UTF-8 text: expected a TOML file") from None
    if len(text) > MOST_TEXT:
        raise ConfigError(f"{file}: more than {MOST_TEXT} characters: expected a TOML file")
    return text


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
        what, line = (found[1], found[2]) if found else (NUMBER_TOO_LONG, None)
        line = line or str(text.rstrip("\n").count("\n") + 1)
        raise ConfigError(f"{file}:{line}: syntax: {what[:1].lower()}{_in_words(what[1:])}") from None


def _in_words(what: str) -> str:
    """What tomllib says of a table, whose name it has as Python prints it: ('anchor',)."""
    return re.sub(r"""\(["'].*\)""", lambda name: f'"{".".join(ast.literal_eval(name[0]))}"', what)


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
