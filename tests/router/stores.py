"""The kinds of store, for tests of what they have in common: how to open one, cut its log, and spoil a record."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from ipaddress import IPv6Address, IPv6Network
from math import inf
from pathlib import Path
from typing import Any

import pytest

from router.store import Change, Record, SessionStore, open_store, sqlite
from router.store import redis as redis_store
from signaling.dma.session import Session, State
from tests.router.redis_servers import Servers

MAR1, MAR2 = IPv6Address("2001:db8::1"), IPv6Address("2001:db8::2")
HERE = IPv6Network("2001:db8:a1:1::/64")
THERE = IPv6Network("2001:db8:a2:1::/64")
NODE = "mn1@example.net"
SESSION = Session(
    node=NODE,
    prefix=HERE,
    anchor=MAR1,
    state=State.LOCAL,
    care_of=MAR1,
    link_layer=bytes.fromhex("020000000011"),
    technology=4,
    timestamp=111_411_200_000_000,
    expires=inf,
    valid_lifetime=7200,
)
ELSEWHERE = replace(SESSION, prefix=THERE, anchor=MAR2, state=State.HOLD, care_of=MAR2, expires=2e9, link_layer=b"")


@dataclass
class Engine:
    """A kind of store."""

    url: str
    short_log: Callable[[], Any]  # a context in which every write leaves only itself in the log
    spoil: Callable[[str, str], None]  # what is written instead of the one session of a node

    def open(self) -> SessionStore:
        return open_store(self.url)

    @asynccontextmanager
    async def handles(self, count: int) -> AsyncIterator[list[SessionStore]]:
        async with AsyncExitStack() as stack:
            opened = [self.open() for _ in range(count)]
            for one in opened:
                stack.push_async_callback(one.close)
            yield opened


def sqlite_engine(path: Path) -> Engine:
    """A file."""

    def spoil(node: str, text: str) -> None:
        with sqlite3.connect(path) as database:
            database.execute("UPDATE record SET sessions = ? WHERE node = ?", (text, node))
        database.close()

    return Engine(f"sqlite://{path}", lambda: _short(sqlite), spoil)


def redis_engine(servers: Servers) -> Engine:
    """Servers, emptied."""
    servers.tell("FLUSHALL")

    def spoil(node: str, text: str) -> None:
        for server in servers.servers:
            with server.admin as admin:
                for key in admin.keys(f"*:record:{node}"):
                    admin.hset(key, str(HERE), f"{MAR1} inf {text}")

    return Engine(servers.url, lambda: _short(redis_store), spoil)


@contextmanager
def _short(module: Any) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "LOG_LENGTH", 1)
        yield


async def put(one: SessionStore, *sessions: Session, node: str = NODE) -> Record:
    """Write over whatever is there."""
    before = await one.get(node)
    assert await one.put_if(replace(before, sessions=sessions))
    return await one.get(node)


async def take(changes: AsyncIterator[Change], count: int) -> list[Change]:
    """The next changes, as they come."""
    return [await asyncio.wait_for(anext(changes), 10) for _ in range(count)]


@asynccontextmanager
async def watching(one: SessionStore, cursor: str | None = None) -> AsyncIterator[AsyncIterator[Change]]:
    """What changes from now on, or after a cursor."""
    async with aclosing(one.watch(cursor)) as changes:
        if cursor is None:
            (begin,) = await take(changes, 1)
            assert begin.resync
        yield changes
