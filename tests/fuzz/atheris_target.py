"""The doors of doors.py as a target of atheris: the first octet of an input chooses the door. Options: libFuzzer's.

The wire is instrumented as it is imported, so that the search sees which branches octets reach. atheris_decode.py runs
this for a bounded time and prints what was found.
"""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["signaling.wire"]):
    from tests.fuzz.doors import DOORS, chosen, come_in


def try_input(octets: bytes) -> None:
    """Take octets to the door that the first of them chooses."""
    if octets:
        name, rest = chosen(octets)
        come_in(DOORS[name], rest)


if __name__ == "__main__":
    atheris.Setup(sys.argv, try_input)
    atheris.Fuzz()
