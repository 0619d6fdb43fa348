"""A handover that nobody sees keeps the code warm: it is whole, it can be played act by act, and it leaves nothing."""

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any

import pytest

from router.mar_rehearsal import MarRehearsal
from router.proxy_rehearsal import ProxyRehearsal
from router.rehearsal import ANCHOR, ROUTER, Act, Rehearsal
from signaling.settings import Address

both = pytest.mark.parametrize("make", [ProxyRehearsal, MarRehearsal])


def sync(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    @wraps(test)
    def run(*args: Any, **named: Any) -> None:
        asyncio.run(test(*args, **named))

    return run


def events(rehearsal: Rehearsal, who: Address) -> Counter[str]:
    return Counter(line.event for line in rehearsal.drivers[who].journalist.history)


def played(rehearsal: Rehearsal, rounds: int) -> None:
    for _ in range(rounds):
        rehearsal.play()
        rehearsal.wind()


@both
@sync
async def test_a_node_comes_and_leaves_in_every_round(make: Callable[[Act], Rehearsal]) -> None:
    rehearsal = make(Act.ARRIVAL)
    before = {who: events(rehearsal, who) for who in (ANCHOR, ROUTER)}
    played(rehearsal, 2)
    anchor, router = (events(rehearsal, who) - before[who] for who in (ANCHOR, ROUTER))
    assert (anchor["tunnel-to-visited"], anchor["held"]) == (2, 2)
    assert all(router[event] == 2 for event in ("attached", "tunnel-to-anchor", "detached"))


@both
@sync
async def test_every_message_is_believed(make: Callable[[Act], Rehearsal]) -> None:
    rehearsal = make(Act.ARRIVAL)
    played(rehearsal, 5)
    for driver in rehearsal.drivers.values():
        assert not [line for line in driver.journalist.history if "refused" in line.event or line.event == "failed"]


@both
@pytest.mark.parametrize(
    ("act", "who", "event"),
    [
        (Act.ARRIVAL, ROUTER, "pbu-sent"),
        (Act.UPDATE, ANCHOR, "tunnel-to-visited"),
        (Act.ANSWER, ROUTER, "pba-received"),
    ],
)
@sync
async def test_it_waits_before_its_act(make: Callable[[Act], Rehearsal], act: Act, who: Address, event: str) -> None:
    rehearsal = make(act)
    assert rehearsal.ready
    before = events(rehearsal, who)[event]
    rehearsal.play()
    assert events(rehearsal, who)[event] == before + 1
    assert not rehearsal.ready
    rehearsal.wind()
    assert rehearsal.ready


@sync
async def test_it_keeps_no_more_the_longer_it_is_played() -> None:
    rehearsal = ProxyRehearsal(Act.ARRIVAL)
    played(rehearsal, 50)
    anchor, gateway = rehearsal.drivers[ANCHOR].role, rehearsal.drivers[ROUTER].role
    assert (len(anchor.cache), len(gateway.gateway.entries)) == (1, 0)


@sync
async def test_mars_keep_no_more_the_longer_they_play() -> None:
    rehearsal = MarRehearsal(Act.ARRIVAL)
    played(rehearsal, 2)
    before = [len(driver.network.paths) for driver in rehearsal.drivers.values()]
    played(rehearsal, 50)
    assert [len(driver.network.paths) for driver in rehearsal.drivers.values()] == before
    assert not rehearsal.drivers[ROUTER].role.registrar.all()
