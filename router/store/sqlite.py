"""The embedded store: one SQLite file that the routers of one machine share.

    record    node, revision, sessions (JSON), expires          one row a node
    anchored  anchor, node                                      who has something anchored where
    change    cursor, node                                      a bounded log: who was written, in order

Reads are done in place: with a write-ahead log they wait for no writer and take some 20 microseconds, where a thread
would cost a handover a millisecond. Writes run in a thread of their own, so that a slow disk delays no packet. A write
survives the death of the process, not a power cut (WAL, normal sync); the anchor repairs the latter.
"""

import asyncio
import sqlite3
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from ipaddress import IPv6Address, IPv6Network
from math import inf
from pathlib import Path
from typing import TypeVar

from router.store import Change, Record, StoreError, merged, needed_until
from router.store.encoding import decode, encode
from signaling.dma.session import Session

T = TypeVar("T")

SCHEMA_VERSION = 1
SCHEMA = """
CREATE TABLE IF NOT EXISTS record (
    node TEXT PRIMARY KEY, revision INTEGER NOT NULL, sessions TEXT NOT NULL, expires REAL
);
CREATE INDEX IF NOT EXISTS record_expires ON record (expires) WHERE expires IS NOT NULL;
CREATE TABLE IF NOT EXISTS anchored (anchor TEXT, node TEXT, PRIMARY KEY (anchor, node)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS change (cursor INTEGER PRIMARY KEY AUTOINCREMENT, node TEXT NOT NULL);
"""
WRITE_WITHIN = 2.0  # s a writer waits for another router's write
READ_WITHIN = 0.02  # s a reader waits; only the opening and closing of the log by another router locks it out
WATCH_EVERY = 0.2  # s between looks for writes of other processes
LOG_LENGTH = 10_000  # changes kept for watchers that come back


class SqliteStore:
    """Sessions in one file. Raises StoreError when the file cannot be opened or written."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store")
        first = self._guarded(self._prepare)
        self._reader = self._guarded(lambda: connect(path, READ_WITHIN))
        self._writer = self._guarded(lambda: connect(path, WRITE_WITHIN))
        first.close()  # not before: the last one to close removes the log

    async def get(self, node: str) -> Record:
        """The record of a node."""
        return self.peek(node)

    def peek(self, node: str) -> Record:
        """The record of a node, at once."""
        return self._read(lambda db: self._get(db, node))

    async def put_if(self, record: Record) -> bool:
        """Compare and set."""
        return await self._write_in_thread(lambda db: self._put_if(db, record))

    async def save(self, session: Session) -> None:
        """Write one session."""
        await self._write_in_thread(lambda db: self._merge(db, session.node, session.prefix, session))

    async def forget(self, node: str, prefix: IPv6Network) -> None:
        """Take one session out."""
        await self._write_in_thread(lambda db: self._merge(db, node, prefix, None))

    async def anchored(self, anchor: IPv6Address) -> list[Session]:
        """All sessions anchored at this router."""
        return self._read(lambda db: self._anchored(db, anchor))

    async def watch(self, cursor: str | None = None) -> AsyncGenerator[Change, None]:
        """Changes after the cursor, seen within WATCH_EVERY."""
        at = int(cursor) if cursor is not None and cursor.isdecimal() else None
        while True:
            oldest, newest = self._read(self._bounds)
            # nobody has read anything yet, the log was cut, or it is another file now
            if at is None or oldest > at + 1 or newest < at:
                at = newest  # who reads everything again has seen what the log still holds
                yield Change(node="", cursor=str(at), resync=True)
            news = self._read(partial(self._changes, after=at)) if newest > at else []
            for at, node in news:
                yield Change(node=node, cursor=str(at))
            await asyncio.sleep(WATCH_EVERY)

    async def expire(self, now: float) -> int:
        """Remove what ended before now."""
        return await self._write_in_thread(lambda db: self._expire(db, now))

    async def close(self) -> None:
        """Close the file, after what is being written."""
        await self._write_in_thread(lambda db: db.close())
        self._thread.shutdown(wait=True)
        self._reader.close()

    def _read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        return self._guarded(lambda: work(self._reader))

    async def _write_in_thread(self, work: Callable[[sqlite3.Connection], T]) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, self._guarded, lambda: work(self._writer))

    def _guarded(self, work: Callable[[], T]) -> T:
        try:
            return work()
        except sqlite3.Error as error:
            raise StoreError(f"store {self._path}: {error}") from error
        except OSError as error:
            raise StoreError(f"store {self._path}: {error.filename}: {(error.strerror or '').lower()}") from error

    def _prepare(self) -> sqlite3.Connection:
        self._path.parent.mkdir(exist_ok=True)  # one, as /run/openmar: a path of more that are not there is a typo
        db = connect(self._path, WRITE_WITHIN)
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version not in (0, SCHEMA_VERSION):
            raise sqlite3.DatabaseError(f"written by another version of openmar (schema {version}): use another file")
        db.executescript(f"BEGIN IMMEDIATE; {SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT")
        return db

    @staticmethod
    def _get(db: sqlite3.Connection, node: str) -> Record:
        row = db.execute("SELECT revision, sessions FROM record WHERE node = ?", (node,)).fetchone()
        if row is None:
            return Record(node=node)
        return Record(node=node, revision=row[0], sessions=decode(node, row[1]))

    def _put_if(self, db: sqlite3.Connection, record: Record) -> bool:
        with transaction(db):
            old = self._get(db, record.node)
            if old.revision != record.revision:
                return False
            self._write(db, old, record.sessions)
            return True

    def _merge(self, db: sqlite3.Connection, node: str, prefix: IPv6Network, session: Session | None) -> None:
        with transaction(db):
            old = self._get(db, node)
            sessions = merged(old.sessions, prefix, session)
            if sessions != old.sessions:
                self._write(db, old, sessions)

    @staticmethod
    def _write(db: sqlite3.Connection, old: Record, sessions: tuple[Session, ...]) -> None:
        # the cursor is the revision: it never comes back, also not when a record goes and comes again
        cursor = db.execute("INSERT INTO change (node) VALUES (?)", (old.node,)).lastrowid or 0
        db.execute("DELETE FROM change WHERE cursor <= ?", (cursor - LOG_LENGTH,))
        if sessions:
            expires = min(map(needed_until, sessions))
            row = (old.node, cursor, encode(sessions), None if expires == inf else expires)
            db.execute("INSERT OR REPLACE INTO record VALUES (?, ?, ?, ?)", row)
        else:
            db.execute("DELETE FROM record WHERE node = ?", (old.node,))
        before, after = ({str(session.anchor) for session in some} for some in (old.sessions, sessions))
        db.executemany("DELETE FROM anchored WHERE anchor = ? AND node = ?", [(a, old.node) for a in before - after])
        db.executemany("INSERT OR IGNORE INTO anchored VALUES (?, ?)", [(a, old.node) for a in after - before])

    def _anchored(self, db: sqlite3.Connection, anchor: IPv6Address) -> list[Session]:
        rows = db.execute(
            "SELECT node, sessions FROM anchored JOIN record USING (node) WHERE anchor = ?", (str(anchor),)
        ).fetchall()
        return [session for row in rows for session in decode(*row) if session.anchor == anchor]

    @staticmethod
    def _bounds(db: sqlite3.Connection) -> tuple[int, int]:
        oldest, newest = db.execute("SELECT min(cursor), max(cursor) FROM change").fetchone()
        return oldest or 0, newest or 0

    @staticmethod
    def _changes(db: sqlite3.Connection, after: int) -> list[tuple[int, str]]:
        return db.execute("SELECT cursor, node FROM change WHERE cursor > ? ORDER BY cursor", (after,)).fetchall()

    def _expire(self, db: sqlite3.Connection, now: float) -> int:
        with transaction(db):
            nodes = db.execute("SELECT node FROM record WHERE expires < ?", (now,)).fetchall()
            for (node,) in nodes:
                old = self._get(db, node)
                self._write(db, old, tuple(session for session in old.sessions if needed_until(session) >= now))
            return len(nodes)


def connect(path: Path, timeout: float) -> sqlite3.Connection:
    """A connection that commits what it is not told to hold together. timeout: s to wait for a lock."""
    db = sqlite3.connect(path, timeout=WRITE_WITHIN, isolation_level=None, check_same_thread=False)
    deadline = time.monotonic() + WRITE_WITHIN
    while True:
        try:
            db.execute("PRAGMA journal_mode = WAL")
            break
        except sqlite3.OperationalError:  # several routers make the file: for this sqlite does not wait by itself
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)
    db.execute("PRAGMA synchronous = NORMAL")
    db.execute(f"PRAGMA busy_timeout = {timeout * 1000:.0f}")
    return db


@contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """All of it or nothing; other writers wait."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:  # a full disk has rolled back already
            db.execute("ROLLBACK")
        raise
