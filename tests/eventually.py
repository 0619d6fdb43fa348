"""Waiting for what happens in the kernel or on a loop, without guessing how long it takes."""

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

SHORTEST, LONGEST = 0.005, 0.05  # s between two looks: each is work for a router, and what takes long is not urgent
TURN = 0.001  # s between two looks from the loop: what is waited for there lies in memory


def eventually(condition: Callable[[], T], timeout: float = 5.0, what: str = "") -> T:
    """Look until the condition gives something true and return that; fail after timeout (s)."""
    since = time.monotonic()
    while not (result := condition()):
        waited = time.monotonic() - since
        if waited > timeout:
            raise AssertionError(f"not within {timeout:g} s: {what or condition}")
        time.sleep(min(max(SHORTEST, waited / 10), LONGEST))
    return result


async def becomes(condition: Callable[[], object], timeout: float) -> bool:
    """Whether the condition is true within timeout (s), while the loop goes on."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(TURN)
    return True


async def until(condition: Callable[[], object], timeout: float = 15.0, what: str = "") -> None:
    """While the loop goes on, look until the condition is true; fail after timeout (s)."""
    if not await becomes(condition, timeout):
        raise AssertionError(f"not within {timeout:g} s: {what or condition}")
