"""A store that cannot even be opened at the start: every call tries to, until one succeeds."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from ipaddress import IPv6Address, IPv6Network

from router.store import Change, Record, SessionStore, open_store
from signaling.dma.session import Session


class LateStore:
    """The store of a URL. Opening may wait for other processes, so a thread does it."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._store: SessionStore | None = None
        self._one = asyncio.Lock()

    async def _opened(self) -> SessionStore:
        async with self._one:
            if self._store is None:
                self._store = await asyncio.to_thread(open_store, self._url)
            return self._store

    async def get(self, node: str) -> Record:
        """The record of a node."""
        return await (await self._opened()).get(node)

    def peek(self, node: str) -> Record | None:
        """The record, once the store is open."""
        return None if self._store is None else self._store.peek(node)

    async def put_if(self, record: Record) -> bool:
        """Compare and set."""
        return await (await self._opened()).put_if(record)

    async def save(self, session: Session) -> None:
        """Write one session."""
        await (await self._opened()).save(session)

    async def forget(self, node: str, prefix: IPv6Network) -> None:
        """Take one session out."""
        await (await self._opened()).forget(node, prefix)

    async def anchored(self, anchor: IPv6Address) -> list[Session]:
        """All sessions anchored at this router."""
        return await (await self._opened()).anchored(anchor)

    async def watch(self, cursor: str | None = None) -> AsyncGenerator[Change, None]:
        """Changes after the cursor."""
        async with aclosing((await self._opened()).watch(cursor)) as changes:
            async for change in changes:
                yield change

    async def expire(self, now: float) -> int:
        """Remove what ended before now."""
        return await (await self._opened()).expire(now)

    async def close(self) -> None:
        """Close it, if it was ever open."""
        if self._store is not None:
            await self._store.close()
