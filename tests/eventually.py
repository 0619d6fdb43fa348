"""Waiting for the kernel, without guessing how long it takes."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

PAUSE = 0.005  # s between two looks


def eventually(condition: Callable[[], T], timeout: float = 5.0, what: str = "") -> T:
    """Look until the condition gives something true and return that; fail after timeout (s)."""
    deadline = time.monotonic() + timeout
    while not (result := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout:g} s: {what or condition}")
        time.sleep(PAUSE)
    return result
