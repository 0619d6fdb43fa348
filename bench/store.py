"""How fast a session store is: each operation as median and 99 % in ms, then with many in flight, a second.

    python -m bench.store sqlite:///tmp/bench.db redis://127.0.0.1:6379/15

Sessions are those of nodes with two prefixes. What the URLs name is written to: give it a database of its own. It takes
some seconds for each; 45 s for a file, whose watcher looks five times a second.
"""

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import replace
from ipaddress import IPv6Address, IPv6Network
from math import inf

from bench.settings import options
from router.errors import ExitCode, RouterError
from router.store import SessionStore, open_store
from router.store.url import without_password
from signaling.dma.session import Session, State

ROUNDS = 2000
IN_FLIGHT = 32
ANCHOR = IPv6Address("2001:db8::1")
SESSION = Session(
    node="mn1@example.net",
    prefix=IPv6Network("2001:db8:a1:1::/64"),
    anchor=ANCHOR,
    state=State.LOCAL,
    care_of=ANCHOR,
    link_layer=bytes(6),
    technology=4,
    timestamp=111_411_200_000_000,
    expires=inf,
    valid_lifetime=7200,
)


def node(number: int) -> str:
    return f"mn{number % 100}@example.net"


def shares(times: list[float]) -> str:
    """Half of them are no longer, and 99 % of them. times: ms."""
    times.sort()
    return f"{times[len(times) // 2]:.3f} / {times[len(times) * 99 // 100]:.3f}"


async def timed(calls: Iterable[Callable[[], Awaitable[object]]]) -> str:
    times = []
    for call in calls:
        began = time.perf_counter()
        await call()
        times.append((time.perf_counter() - began) * 1e3)
    return shares(times)


async def put_if(store: SessionStore) -> str:
    times = []
    for at in range(ROUNDS):
        record = await store.get(node(at))
        began = time.perf_counter()
        assert await store.put_if(replace(record, sessions=(replace(SESSION, node=node(at), timestamp=at),)))
        times.append((time.perf_counter() - began) * 1e3)
    return shares(times)


async def watch_delay(store: SessionStore, other: SessionStore) -> str:
    """From the beginning of a write to its news at another router."""
    times = []
    async with aclosing(other.watch()) as changes:
        await anext(changes)
        for at in range(200):
            began = time.perf_counter()
            news = asyncio.ensure_future(anext(changes))
            await store.save(replace(SESSION, node=node(at), timestamp=-at))
            await news
            times.append((time.perf_counter() - began) * 1e3)
    return shares(times)


async def in_flight(call: Callable[[int], Awaitable[object]]) -> str:
    """Calls a second, IN_FLIGHT at once."""

    async def one(first: int) -> None:
        for at in range(first, ROUNDS * 2, IN_FLIGHT):
            await call(at)

    began = time.perf_counter()
    await asyncio.gather(*map(one, range(IN_FLIGHT)))
    return f"{ROUNDS * 2 / (time.perf_counter() - began):,.0f}/s"


async def measure(url: str) -> None:
    async with AsyncExitStack() as stack:
        store, other = open_store(url), open_store(url)
        stack.push_async_callback(store.close)
        stack.push_async_callback(other.close)
        await measure_all(url, store, other)


async def measure_all(url: str, store: SessionStore, other: SessionStore) -> None:
    for number in range(100):
        await store.save(replace(SESSION, node=node(number), prefix=IPv6Network("2001:db8:a2:1::/64")))
    print(without_password(url))
    rows = {
        "save": lambda: timed(
            lambda at=at: store.save(replace(SESSION, node=node(at), timestamp=at)) for at in range(ROUNDS)
        ),
        "put_if": lambda: put_if(store),
        "get": lambda: timed(lambda at=at: store.get(node(at)) for at in range(ROUNDS)),
        "write to watcher": lambda: watch_delay(store, other),
        f"save, {IN_FLIGHT} in flight": lambda: in_flight(
            lambda at: store.save(replace(SESSION, node=node(at), timestamp=at))
        ),
        f"get, {IN_FLIGHT} in flight": lambda: in_flight(lambda at: store.get(node(at))),
    }
    for name, row in rows.items():
        print(f"  {name:22} {await row()}", flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure each. Returns 0 if all could be."""
    made = options("store", __doc__ or "")
    made.add_argument("url", nargs="+", help="sqlite://PATH, redis://HOST:PORT/DB or redis+cluster://HOST:PORT")
    chosen = made.parse_args(arguments)
    try:
        for url in chosen.url:
            asyncio.run(measure(url))
    except RouterError as error:
        print(f"bench.store: {error}", file=sys.stderr)
        return error.exit_code
    return ExitCode.DONE


if __name__ == "__main__":
    sys.exit(main())
