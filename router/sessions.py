"""The role's sessions on their way to and from the store, which may be slow or away without holding up anybody.

Writes of one session go one after the other, the newest in place of an older one that still waits. Each can be waited
for: an acknowledgement leaves when what it acknowledges is durable, which it is as soon as the journal has it; without
room for that, when the store has it, or has had its time.

A move costs three operations of the store: the new router looks the node up and writes the prefix it lends, the old one
writes where its prefix goes now. Nothing else of a move is written at once: that a node has left is not, if it shows
itself elsewhere soon (LEFT_FOR_GOOD); where a prefix that was away went on to is known to its anchor, whom everybody
asks, and written when its node has come to rest (AT_REST); and the news of a change say what has changed. All of that
is in the journal at once: without one, all is written at once.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Container, Coroutine, Iterable
from contextlib import aclosing, suppress
from dataclasses import replace
from ipaddress import IPv6Address, IPv6Network
from itertools import islice
from typing import Protocol

from router.store import Change, SessionStore, StoreError, StoreFullError
from router.store.journal import Journal, Key, reconciled
from signaling.dma.session import Session, State

log = logging.getLogger(__name__)

DURABLE_WITHIN = 0.25  # s an acknowledgement waits for the store; then the journal in memory has to do
GATHER = 0.002  # s before writing begins: the handover that asked for it comes first, and what follows joins in
LEFT_FOR_GOOD = 0.5  # s before it is written that a node has left: until then it may be back, or elsewhere
AT_REST = 60.0  # s a node stays before its anchors write where it went on to
AT_ONCE = 24  # sessions on their way to the store: a loop at its limit comes round to them a few times a second
FAREWELL_WITHIN = 2.0  # s for what has to be written before the end
EXPIRE_EVERY = 600.0  # s between looks for sessions that ended in the store
ANSWER_WITHIN = 1.0  # s a look-up may take
RETRY_FIRST, RETRY_MOST = 0.5, 10.0  # s between attempts while the store is away


class Nodes(Container[str], Iterable[str], Protocol):
    """Identifiers of nodes, as they are now."""


class Sessions:
    """Reads and writes of one router. on_found(node, sessions or None); on_restored(sessions).

    on_health(reachable, full): the store has become another than it was.

    journal: where changes are durable before the store has them; None: nowhere.
    """

    def __init__(
        self,
        sessions: SessionStore,
        *,
        on_found: Callable[[str, tuple[Session, ...] | None], None],
        on_health: Callable[[bool, bool], None],
        on_restored: Callable[[tuple[Session, ...]], None] = lambda _: None,
        journal: Journal | None = None,
    ) -> None:
        self._store = sessions
        self._journal = journal
        self._on_found = on_found
        self._on_health = on_health
        self._on_restored = on_restored
        self._waiting: dict[Key, tuple[Session | None, list[asyncio.Future[None]]]] = {}
        self._later: dict[Key, tuple[Session, asyncio.TimerHandle]] = {}  # not even waiting yet
        self._told: dict[Key, Session] = {}  # what the store has of this router's sessions, or waits to be written
        self._touched: set[Key] | None = None  # while the journal is being read
        self._work = asyncio.Event()
        self._back = asyncio.Event()  # the store answers again: who waits to try again need not wait any longer
        self._tasks: set[asyncio.Task[None]] = set()
        self._answers = self._takes = True  # the store, when it was read and written last
        self._is_full = False  # why it does not take what is written
        self._anchor: IPv6Address | None = None
        self._whole = False  # a change does not tell enough
        self.restored = True  # False: what the store knows of this router's prefixes could not be read yet
        self.reads = self.writes = 0  # operations of the store that the role has asked for
        self._spawn(self._write_all())

    @property
    def reachable(self) -> bool:
        """Whether the store answers, and takes what is written if it has room."""
        return self._answers and (self._takes or self._is_full)

    @property
    def full(self) -> bool:
        """Whether the store has no room for what is written; it can be read."""
        return self._answers and self._is_full

    @property
    def unsaved(self) -> int:
        """Sessions that should be in the store and are not yet."""
        return len(self._waiting)

    @property
    def waiting(self) -> dict[Key, Session | None]:
        """Those sessions, and what will wait soon; None: to be taken out."""
        later = {key: session for key, (session, _) in self._later.items()}
        return later | {key: session for key, (session, _) in self._waiting.items()}

    async def settle(self) -> None:
        """Wait until all is written, or nobody waits for it any more."""
        await asyncio.gather(*(future for _, futures in self._waiting.values() for future in futures))
        await asyncio.sleep(0)  # who waited for that goes on now

    def go_on(self, anchor: IPv6Address) -> None:
        """In place of restore, in a process that takes over what another one knows."""
        self._anchor = anchor
        if self._journal is not None:
            self._journal.open()

    async def restore(self, anchor: IPv6Address) -> None:
        """Tell on_restored what was lent before: what the journal says, and the store, now or when it is back.

        Raises StoreError where only the store can know, which is when there is no journal of an earlier run.
        """
        self._anchor = anchor
        journal = self._journal
        if journal is None or not journal.known:
            await self._reconcile()
            if journal is not None:
                journal.open()
            return
        journal.open()
        try:
            await self._reconcile()
        except StoreError as error:
            self.restored = False
            self._set_health(str(error), answers=False)
            words = journal.words().values()
            self._on_restored(tuple(word.session for word in words if word.session is not None))

    def save(self, session: Session) -> asyncio.Future[None]:
        """Write a session. The future is done when it is durable, or when the store had its time."""
        key = session.node, session.prefix
        durable = self._write_down(key, session)
        wait = may_wait(self._told.get(key), session, time.time()) if durable else 0.0
        return self._put_off(wait, key, session) if wait else self._enqueue(key, session, durable)

    def forget(self, node: str, prefix: IPv6Network) -> asyncio.Future[None]:
        """Take a session out of the store."""
        key = node, prefix
        return self._enqueue(key, None, self._write_down(key, None))

    def find(self, node: str) -> None:
        """Look up all sessions of a node; on_found is called with them."""
        self.reads += 1
        self._spawn(self._find(node))

    def peek(self, node: str) -> tuple[Session, ...] | None:
        """All sessions of a node, if the store can tell without waiting; None: find them."""
        try:
            record = self._store.peek(node)
        except StoreError:
            return None
        self.reads += record is not None
        return None if record is None else record.sessions

    def watch(self, wanted: Nodes, *, whole: bool = False) -> None:
        """Look a node up again whenever its record changes, as long as it is wanted; and take out what has ended.

        whole: on_found is told of all its sessions, also where the store tells which ones have changed.
        """
        self._whole = whole
        self._spawn(self._watch(wanted))
        self._spawn(self._expire_all())

    def drop(self) -> None:
        """Write nothing more: another process does."""
        self._waiting.clear()
        for key in list(self._later):
            self._cancel_later(key)
        if self._journal is not None:
            self._journal.close()

    async def close(self, within: float = FAREWELL_WITHIN) -> None:
        """Write what waits, for at most so many seconds, and stop."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for key, (session, _) in list(self._later.items()):
            self._enqueue(key, session, True)
        with suppress(TimeoutError):
            async with asyncio.timeout(within):
                while self._waiting and (await self._write_some())[1] is None:
                    pass
        if self._waiting:
            where = "lost" if self._journal is None else "in the journal, for the next start"
            log.warning("store: %d sessions were not written: they are %s", len(self._waiting), where)
        for _, futures in self._waiting.values():
            for future in futures:
                _done(future)
        self._waiting.clear()
        if self._journal is not None:
            self._journal.close()
        await asyncio.sleep(0)  # who waited for that goes on now

    # --- writing ---

    def _write_down(self, key: Key, session: Session | None) -> bool:
        """Tell the journal. False: it is not durable by that."""
        if self._touched is not None:
            self._touched.add(key)
        return self._journal is not None and self._journal.append(key, session)

    def _enqueue(self, key: Key, session: Session | None, durable: bool) -> asyncio.Future[None]:
        self._cancel_later(key)
        if self._touched is not None:
            self._touched.add(key)
        if session is None:
            self._told.pop(key, None)
        else:
            self._told[key] = session
        future = asyncio.get_running_loop().create_future()
        futures = self._waiting.pop(key)[1] if key in self._waiting else []
        self._waiting[key] = (session, [*futures, future])
        self._work.set()
        if durable or not self.reachable or self.full:
            _done(future)  # where it is known to be away nobody waits; the write follows when it is back
        else:
            asyncio.get_running_loop().call_later(DURABLE_WITHIN, _done, future)
        return future

    def _put_off(self, seconds: float, key: Key, session: Session) -> asyncio.Future[None]:
        self._cancel_later(key)
        timer = asyncio.get_running_loop().call_later(seconds, self._enqueue, key, session, True)
        self._later[key] = session, timer
        return _done_already()

    def _cancel_later(self, key: Key) -> None:
        if key in self._later:
            self._later.pop(key)[1].cancel()

    async def _write_all(self) -> None:
        retry_after = RETRY_FIRST
        while True:
            await self._work.wait()
            await asyncio.sleep(GATHER)
            self._work.clear()
            while self._waiting:
                written, failure = await self._write_some()
                if failure is None:
                    self._set_health(takes=True)
                else:
                    self._set_health(str(failure), takes=False, full=isinstance(failure, StoreFullError))
                if written:
                    retry_after = RETRY_FIRST
                else:
                    await self._pause(retry_after)
                    retry_after = min(retry_after * 2, RETRY_MOST)
            if self._journal is not None and self._journal.is_long:
                await self._journal.shorten(self._waiting)

    async def _write_some(self) -> tuple[int, StoreError | None]:
        """Write those that wait longest. Returns how many were written, and why others were not: they wait at the end.

        Of several servers one may be away: what it does not take delays no other.
        """
        batch = [(key, *waiting) for key, waiting in islice(self._waiting.items(), AT_ONCE)]
        failures = [it for it in await asyncio.gather(*(self._write(*each) for each in batch)) if it is not None]
        return len(batch) - len(failures), failures[0] if failures else None

    async def _write(
        self, key: Key, session: Session | None, futures: list[asyncio.Future[None]]
    ) -> StoreError | None:
        self.writes += 1
        try:
            if session is None:
                await self._store.forget(*key)
            else:
                await self._store.save(session)
        except StoreError as error:
            if key in self._waiting:
                self._waiting[key] = self._waiting.pop(key)
            return error.with_traceback(None)  # it may be kept for long, and would keep all that was under way
        # a newer one may have taken the place while this one was being written
        if key in self._waiting and self._waiting[key][0] is session:
            futures = self._waiting.pop(key)[1]
        for future in futures:
            _done(future)
        return None

    async def _expire_all(self) -> None:
        while True:
            try:
                await self._store.expire(time.time())
            except StoreError as error:
                log.warning("%s", error)
            await asyncio.sleep(EXPIRE_EVERY)

    # --- reading ---

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
        self._set_health(answers=True)
        self._on_found(node, record.sessions)

    def _away(self, node: str, why: str) -> None:
        self._set_health(why, answers=False)
        self._on_found(node, None)

    async def _watch(self, wanted: Nodes) -> None:
        cursor = None
        interrupted = not self.restored
        retry_after = RETRY_FIRST
        while True:
            try:
                if interrupted:
                    await self._reconcile()  # what a store has lost meanwhile, its log need not tell
                    self._set_health(answers=True)
                async with aclosing(self._store.watch(cursor)) as changes:
                    async for change in changes:
                        await self._take(change, wanted, known=cursor is None)
                        self._set_health(answers=True)
                        cursor, interrupted, retry_after = change.cursor, False, RETRY_FIRST
            except StoreError as error:
                interrupted = True
                self._set_health(str(error), answers=False)
                await self._pause(retry_after)
                retry_after = min(retry_after * 2, RETRY_MOST)

    async def _take(self, change: Change, wanted: Nodes, *, known: bool) -> None:
        """Do what a change asks for. known: what the store has was read just now. Raises StoreError."""
        if change.resync:
            if not known:
                await self._reconcile()
            for node in list(wanted):
                await self._find(node)
        elif change.node in wanted:
            if change.sessions is None or self._whole:
                await self._find(change.node)
            else:
                self._on_found(change.node, change.sessions)

    async def _reconcile(self) -> None:
        """Look what the store has of this router's sessions, and write what it has not. Raises StoreError."""
        if self._anchor is None:
            return
        touched, pending = set[Key](), set(self._waiting)
        self._touched = touched
        try:
            stored = await self._store.anchored(self._anchor)
            words = {} if self._journal is None else await asyncio.to_thread(self._journal.words)
        finally:
            self._touched = None
        found, told = reconciled(words, stored)
        self._learn(stored, touched | pending)
        for key in told.keys() - touched - self._waiting.keys() - self._later.keys():
            self._enqueue(key, told[key].session, True)
        self.restored = True
        self._on_restored(tuple(session for key, session in found.items() if key not in touched))

    def _learn(self, stored: Iterable[Session], touched: set[Key]) -> None:
        """What the store has, but for keys that were touched since it was asked: with it less may wait than before."""
        newer = {key: self._told[key] for key in touched & self._told.keys()}
        self._told = {(it.node, it.prefix): it for it in stored if (it.node, it.prefix) not in touched} | newer
        for key, (session, _) in list(self._later.items()):
            if key in touched or not may_wait(self._told.get(key), session, time.time()):
                self._enqueue(key, session, True)

    # --- health ---

    def _set_health(
        self, why: str = "", *, answers: bool | None = None, takes: bool | None = None, full: bool = False
    ) -> None:
        before = self.reachable, self.full
        if answers is not None:
            if answers and not self._answers:
                self._back.set()
            self._answers = answers
        if takes is not None:
            self._takes, self._is_full = takes, full
        reachable, full = self.reachable, self.full
        if (reachable, full) != before:
            if not reachable:
                log.warning("%s: going on without it", why)
            elif full:
                log.warning("%s: what changes waits", why or "store: reachable again, and full")
            else:
                log.warning("store: %s", "has room again" if before[1] else "reachable again")
            self._on_health(reachable, full)

    async def _pause(self, seconds: float) -> None:
        """Wait so long, or until the store answers again."""
        self._back.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._back.wait()

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def may_wait(told: Session | None, session: Session, now: float) -> float:
    """Seconds that others can do without a session: what the store was told of it last is as good for them.

    now: wall clock s. They learn from it which anchor to ask for what, and whether the node is there or away.
    """
    if told is None or told.expires < now + 2 * AT_REST or session.state is told.state is State.GUARD:
        return 0.0
    if session.state is State.GUARD:
        return LEFT_FOR_GOOD
    as_told = replace(session, care_of=told.care_of, timestamp=told.timestamp, expires=told.expires)
    return AT_REST if as_told == told else 0.0


def _done(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _done_already() -> asyncio.Future[None]:
    future = asyncio.get_running_loop().create_future()
    _done(future)
    return future
