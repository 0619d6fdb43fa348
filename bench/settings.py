"""Settings of a program that are a dataclass, asked for as options: field, default and meaning stand in one place."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from dataclasses import field, fields
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T", bound="DataclassInstance")


def setting(default: float, about: str) -> Any:
    """A field. about: what it is, and its unit."""
    return field(default=default, metadata={"about": about})


def options(name: str, about: str, settings: type[DataclassInstance] | None = None) -> ArgumentParser:
    """Of a program of bench/. about: its docstring: what it measures, in what, and how long it takes."""
    program = f"python -m bench.{name}"
    made = ArgumentParser(prog=program, description=about, formatter_class=RawDescriptionHelpFormatter)
    for each in fields(settings) if settings else ():
        kind = type(each.default)
        told = f"{each.metadata['about']}; default {each.default:g}"
        number = "N" if kind is int else "X"
        made.add_argument(f"--{each.name}", type=kind, default=each.default, metavar=number, help=told)
    return made


def settings_of(chosen: Namespace, settings: type[T]) -> T:
    """What was chosen of them."""
    values: dict[str, Any] = {each.name: getattr(chosen, each.name) for each in fields(settings)}
    return settings(**values)
