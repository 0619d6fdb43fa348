"""The role's sessions on their way to and from the store, which may be slow or away without holding up anybody.

Writes go one after the other, the newest of a session replacing an older one that still waits. Each can be waited for:
an acknowledgement leaves when what it acknowledges is durable, or when the store has had its time.
"""

import asyncio
import logging
from collections.abc import Callable, Container, Coroutine, Iterable
from ipaddress import IPv6Network
from typing import Protocol

from router import store
from router.store import SessionStore, StoreError
from signaling.dma.session import Session

log = logging.getLogger(__name__)

DURABLE_WITHIN = 0.25  # s an acknowledgement waits for the store; then the journal in memory has to do
GATHER = 0.002  # s before writing begins: the handover that asked for it comes first, and what follows joins in
ANSWER_WITHIN = 1.0  # s a look-up may take
RETRY_FIRST, RETRY_MOST = 0.5, 10.0  # s between attempts while the store is away

Key = tuple[str, IPv6Network]  # node, prefix


class Nodes(Container[str], Iterable[str], Protocol):
    """Identifiers of nodes, as they are now."""


class Sessions:
    """Reads and writes of one router. on_found(node, sessions or None); on_health(reachable)."""

    def __init__(
        self,
        sessions: SessionStore,
        *,
        on_found: Callable[[str, tuple[Session, ...] | None], None],
        on_health: Callable[[bool], None],
    ) -> None:
        self._store = sessions
        self._on_found = on_found
        self._on_health = on_health
        self._waiting: dict[Key, tuple[Session | None, list[asyncio.Future[None]]]] = {}
        self._work = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self.reachable = True
        self._spawn(self._write_all())

    @property
    def unsaved(self) -> int:
        """Sessions that are not in the store yet."""
        return len(self._waiting)

    @property
    def waiting(self) -> dict[Key, Session | None]:
        """Those sessions; None: to be taken out."""
        return {key: session for key, (session, _) in self._waiting.items()}

    async def settle(self) -> None:
        """Wait until all is written, or nobody waits for it any more."""
        await asyncio.gather(*(future for _, futures in self._waiting.values() for future in futures))
        await asyncio.sleep(0)  # who waited for that goes on now

    def save(self, session: Session) -> asyncio.Future[None]:
        """Write a session. The future is done when it is durable, or when the store had its time."""
        return self._enqueue((session.node, session.prefix), session)

    def forget(self, node: str, prefix: IPv6Network) -> asyncio.Future[None]:
        """Take a session out of the store."""
        return self._enqueue((node, prefix), None)

    def find(self, node: str) -> None:
        """Look up all sessions of a node; on_found is called with them."""
        self._spawn(self._find(node))

    def peek(self, node: str) -> tuple[Session, ...] | None:
        """All sessions of a node, if the store can tell without waiting; None: find them."""
        try:
            record = self._store.peek(node)
        except StoreError:
            return None
        return None if record is None else record.sessions

    def watch(self, wanted: Nodes) -> None:
        """Look a node up again whenever its record changes, as long as it is wanted."""
        self._spawn(self._watch(wanted))

    def drop(self) -> None:
        """Write nothing more: another process does."""
        self._waiting.clear()

    async def close(self, within: float) -> None:
        """Write what waits, for at most so many seconds, and stop."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        try:
            async with asyncio.timeout(within):
                while self._waiting:
                    await self._write_next()
        except (StoreError, TimeoutError):
            log.warning("store: %d sessions were not written", len(self._waiting))
        for _, futures in self._waiting.values():
            for future in futures:
                _done(future)
        self._waiting.clear()
        await asyncio.sleep(0)  # who waited for that goes on now

    def _enqueue(self, key: Key, session: Session | None) -> asyncio.Future[None]:
        future = asyncio.get_running_loop().create_future()
        futures = self._waiting.pop(key)[1] if key in self._waiting else []
        self._waiting[key] = (session, [*futures, future])
        self._work.set()
        if not self.reachable:
            _done(future)  # known to be away: nobody waits; the write follows when it is back
        else:
            asyncio.get_running_loop().call_later(DURABLE_WITHIN, _done, future)
        return future

    async def _write_all(self) -> None:
        retry_after = RETRY_FIRST
        while True:
            await self._work.wait()
            await asyncio.sleep(GATHER)
            self._work.clear()
            while self._waiting:
                try:
                    await self._write_next()
                except StoreError as error:
                    self._health(False, str(error))
                    await asyncio.sleep(retry_after)
                    retry_after = min(retry_after * 2, RETRY_MOST)
                else:
                    retry_after = RETRY_FIRST
                    self._health(True)

    async def _write_next(self) -> None:
        """Write the session that waits longest. Raises StoreError, and it still waits."""
        key, (session, futures) = next(iter(self._waiting.items()))
        await self._write(key, session)
        # a newer one may have taken the place while this one was being written
        if key in self._waiting and self._waiting[key][0] is session:
            futures = self._waiting.pop(key)[1]
        for future in futures:
            _done(future)

    async def _write(self, key: Key, session: Session | None) -> None:
        if session is None:
            await store.forget(self._store, *key)
        else:
            await store.save(self._store, session)

    async def _find(self, node: str) -> None:
        try:
            async with asyncio.timeout(ANSWER_WITHIN):
                record = await self._store.get(node)
        except StoreError as error:
            self._away(node, str(error))
            return
        except TimeoutError:
            self._away(node, f"store: no answer in {ANSWER_WITHIN:g} s")
            return
        self._health(True)
        self._on_found(node, record.sessions)

    def _away(self, node: str, why: str) -> None:
        self._health(False, why)
        self._on_found(node, None)

    async def _watch(self, wanted: Nodes) -> None:
        cursor = None
        missed = False  # nobody can tell what changed before the first change was seen
        while True:
            try:
                if missed and cursor is None:
                    await self._find_all(wanted)
                async for change in self._store.watch(cursor):
                    cursor = change.cursor
                    if change.resync:
                        await self._find_all(wanted)
                    elif change.node in wanted:
                        await self._find(change.node)
            except StoreError as error:
                missed = True
                self._health(False, str(error))
                await asyncio.sleep(RETRY_FIRST)

    async def _find_all(self, wanted: Nodes) -> None:
        for node in list(wanted):
            await self._find(node)

    def _health(self, reachable: bool, why: str = "") -> None:
        if reachable != self.reachable:
            self.reachable = reachable
            log.warning("%s", "store: reachable again" if reachable else f"{why}: going on without it")
            self._on_health(reachable)

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _done(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
