"""A handover that nobody sees keeps the code warm: it is whole, it costs little, and it leaves nothing behind."""

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any

from router.proxy_rehearsal import ANCHOR, GATEWAY, ROUNDS, ProxyRehearsal


def sync(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    @wraps(test)
    def run() -> None:
        asyncio.run(test())

    return run


def events(rehearsal: ProxyRehearsal, who: object) -> Counter[str]:
    return Counter(line.event for line in rehearsal.drivers[who].journalist.history)  # type: ignore[index]


@sync
async def test_a_node_comes_and_leaves_in_every_round() -> None:
    rehearsal = ProxyRehearsal()
    rehearsal.play()
    for event in ("tunnel-to-visited", "held"):
        assert events(rehearsal, ANCHOR)[event] == ROUNDS + 1
    for event in ("attached", "tunnel-to-anchor", "detached", "session-over"):
        assert events(rehearsal, GATEWAY)[event] == ROUNDS + 1


@sync
async def test_every_message_is_believed() -> None:
    rehearsal = ProxyRehearsal()
    for driver in rehearsal.drivers.values():
        assert not [line for line in driver.journalist.history if "refused" in line.event or line.event == "failed"]


@sync
async def test_it_is_not_played_again_and_again() -> None:
    rehearsal = ProxyRehearsal()
    for _ in range(100):
        rehearsal.play_at(5.0)
    assert events(rehearsal, GATEWAY)["attached"] == ROUNDS + 1


@sync
async def test_it_keeps_no_more_the_longer_it_is_played() -> None:
    rehearsal = ProxyRehearsal()
    for _ in range(50):
        rehearsal.play()
    anchor, gateway = rehearsal.drivers[ANCHOR].role, rehearsal.drivers[GATEWAY].role
    assert (len(anchor.cache), len(gateway.gateway.entries)) == (1, 0)
