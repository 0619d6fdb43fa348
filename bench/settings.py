"""Settings of a program that are a dataclass, asked for as options: field, default and meaning stand in one place."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError, Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable
from dataclasses import field, fields
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T", bound="DataclassInstance")


def setting(default: float, about: str, *, least: float = 1) -> Any:
    """A field. about: what it is, and its unit. least: smaller ones measure nothing."""
    return field(default=default, metadata={"about": about, "least": least})


def options(name: str, about: str, settings: type[DataclassInstance] | None = None) -> ArgumentParser:
    """Of a program of bench/. about: its docstring: what it measures, in what, and how long it takes."""
    program = f"python -m bench.{name}"
    made = ArgumentParser(prog=program, description=about, formatter_class=RawDescriptionHelpFormatter)
    for each in fields(settings) if settings else ():
        kind = type(each.default)
        least = each.metadata["least"]
        told = f"{each.metadata['about']}; default {each.default:g}"
        number = "N" if kind is int else "X"
        made.add_argument(f"--{each.name}", type=at_least(least, kind), default=each.default, metavar=number, help=told)
    return made


def at_least(least: float, kind: type) -> Callable[[str], Any]:
    """Reads such a number. Raises ArgumentTypeError."""

    def read(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not isfinite(value) or value < least:
            number = "a whole number" if kind is int else "a number"
            raise ArgumentTypeError(f"{text}: expected {number}, {least:g} or more")
        return value

    return read


def writable(text: str) -> Path:
    """A file to write to in the end, absolute, as the program may work elsewhere. Raises ArgumentTypeError."""
    file = Path(text).absolute()
    try:
        file.open("ab").close()  # before minutes are spent on what cannot be kept
    except OSError as error:
        raise ArgumentTypeError(f"{file}: {error.strerror}: choose another file") from None
    return file


def settings_of(chosen: Namespace, settings: type[T]) -> T:
    """What was chosen of them."""
    values: dict[str, Any] = {each.name: getattr(chosen, each.name) for each in fields(settings)}
    return settings(**values)
