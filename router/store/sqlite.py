"""The embedded store: one SQLite file that the routers of one machine share.

    record    node, revision, sessions (JSON), expires          one row a node
    anchored  anchor, node                                      who has something anchored where
    change    cursor, node                                      a bounded log: who was written, in order

Reads are done in place: with a write-ahead log they wait for no writer and take some 20 microseconds, where a thread
would cost a handover a millisecond. So are writes of a session, unless another router is just writing: they go to the
page cache in 0.15 ms, where a thread of a busy process has to get its turn ten times. What waits is done in a thread of
its own: for other writers, and for the disk, when the log is moved into the file. A write survives the death of the
process, not a power cut (WAL, normal sync); the anchor repairs the latter.

A file that is removed or replaced stays open as if nothing had happened, and is nobody else's any more. So each call
looks first whether it is still the one at its path. Each file has a number, which its cursors begin with: watchers of
another one are told to read again, and the routers write what it lacks.
"""

import asyncio
import fcntl
import logging
import os
import secrets
import sqlite3
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv6Address, IPv6Network
from math import inf
from pathlib import Path
from typing import TypeVar

from router.store import Change, Record, StoreError, StoreFullError, merged, needed_until
from router.store.encoding import decode, encode
from signaling.dma.session import Session

T = TypeVar("T")

log = logging.getLogger(__name__)

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
MOST_IN_LOG = 200  # writes, before they are moved into the file
MOST_PAGES = 2000  # of the log, of 4 KiB: then writers wait until all of it is moved, and it begins anew
LOG_LENGTH = 10_000  # changes kept for watchers that come back
REPLACED = "the file was removed or replaced: going on with the one that is there now"
FULL = "the store is full: make room on its disk"
MOST_NUMBER = 2**31 - 1


@dataclass(frozen=True, slots=True)
class File:
    """An open file. identity, log: device and inode, of its log too. number: among all files that were ever made."""

    identity: tuple[int, int] | None
    log: tuple[int, int] | None
    number: int
    reader: sqlite3.Connection
    writer: sqlite3.Connection  # of the thread
    at_once: sqlite3.Connection  # writes, and waits for nobody

    def is_at(self, path: Path) -> bool:
        """Whether this is still what the path leads to."""
        return self.identity is not None and self.identity == _identity(path)

    def close(self) -> None:
        """Close it."""
        self.writer.close()
        self.at_once.close()
        self.reader.close()

    def make_way(self, path: Path) -> None:
        """Remove the log of a file that went if it was left behind: it would be taken for that of the next one."""
        if self.log is not None and self.log == _identity(_beside(path, "wal")):
            for name in ("wal", "shm"):
                _beside(path, name).unlink(missing_ok=True)


class SqliteStore:
    """Sessions in one file. Raises StoreError when the file cannot be opened or written."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store")
        self._following = asyncio.Lock()
        self._in_log = 0  # writes since it was moved into the file
        self._file: File | None = self._guarded(lambda: open_file(path))  # None: it went, and none could be made

    async def get(self, node: str) -> Record:
        """The record of a node."""
        return await self._read(lambda db: self._get(db, node))

    def peek(self, node: str) -> Record | None:
        """The record of a node, at once; None: another file has to be opened first."""
        file = self._current()
        return None if file is None else self._guarded(lambda: self._get(file.reader, node))

    async def put_if(self, record: Record) -> bool:
        """Compare and set."""
        return await self._write_in_thread(lambda db: self._put_if(db, record))

    async def save(self, session: Session) -> None:
        """Write one session."""
        await self._write_at_once(lambda db: self._merge(db, session.node, session.prefix, session))

    async def forget(self, node: str, prefix: IPv6Network) -> None:
        """Take one session out."""
        await self._write_at_once(lambda db: self._merge(db, node, prefix, None))

    async def anchored(self, anchor: IPv6Address) -> list[Session]:
        """All sessions anchored at this router."""
        return await self._read(lambda db: self._anchored(db, anchor))

    async def watch(self, cursor: str | None = None) -> AsyncGenerator[Change, None]:
        """Changes after the cursor, seen within WATCH_EVERY."""
        of, at = _position(cursor)
        while True:
            number = (await self._follow()).number
            oldest, newest = await self._read(self._bounds)
            # nobody has read anything yet, it is another file now, or the log was cut
            if of != number or oldest > at + 1 or newest < at:
                of, at = number, newest  # who reads everything again has seen what the log still holds
                yield Change(node="", cursor=_cursor(of, at), resync=True)
            news = await self._read(partial(self._changes, after=at)) if newest > at else []
            for at, node in news:
                yield Change(node=node, cursor=_cursor(of, at))
            await asyncio.sleep(WATCH_EVERY)

    async def expire(self, now: float) -> int:
        """Remove what ended before now."""
        return await self._write_in_thread(lambda db: self._expire(db, now))

    async def close(self) -> None:
        """Close the file, after what is being written."""
        if self._file is not None:
            await self._in_thread(self._file.close)
        self._thread.shutdown(wait=True)

    async def _read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        file = await self._follow()
        return self._guarded(lambda: work(file.reader))

    async def _write_at_once(self, work: Callable[[sqlite3.Connection], None]) -> None:
        file = await self._follow()
        if not self._guarded(lambda: unless_busy(work, file.at_once)):
            await self._in_thread(lambda: work(file.writer))
        self._in_log += 1
        if self._in_log >= MOST_IN_LOG:
            self._in_log = 0
            # nobody waits for it, and what fails is done the next time
            self._thread.submit(unless_busy, move_log, file.writer)

    async def _write_in_thread(self, work: Callable[[sqlite3.Connection], T]) -> T:
        file = await self._follow()
        return await self._in_thread(lambda: work(file.writer))

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._guarded, work)

    async def _follow(self) -> File:
        """The file that is at the path now."""
        async with self._following:
            file = self._current()
            if file is not None:
                return file
            before, self._file = self._file, None
            self._file = opened = await self._in_thread(lambda: open_instead(before, self._path))
            log.warning("store %s: %s", self._path, REPLACED)
            return opened

    def _current(self) -> File | None:
        """The open file, if it is still at the path."""
        file = self._file
        return file if file is not None and self._guarded(lambda: file.is_at(self._path)) else None

    def _guarded(self, work: Callable[[], T]) -> T:
        try:
            return work()
        except sqlite3.Error as error:
            if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
                raise StoreFullError(f"store {self._path}: {FULL}") from error
            raise StoreError(f"store {self._path}: {error}") from error
        except OSError as error:
            raise StoreError(f"store {self._path}: {error.filename}: {(error.strerror or '').lower()}") from error

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


def open_file(path: Path) -> File:
    """Open a file, and make it where there is none. Raises sqlite3.Error, OSError."""
    path.parent.mkdir(exist_ok=True)  # one, as /run/openmar: a path of more that are not there is a typo
    with ExitStack() as undo:
        with closing(connect(path, WRITE_WITHIN)):  # makes it; not closed before: the last one to close removes the log
            identity = _identity(path)  # before what is kept is opened: what comes in between is noticed later
            writer = undo.enter_context(closing(connect(path, WRITE_WITHIN)))
            number = _prepare(writer)
            at_once = undo.enter_context(closing(connect(path, 0.0)))
            at_once.execute("PRAGMA wal_autocheckpoint = 0")  # that is where a disk makes one wait
            reader = undo.enter_context(closing(connect(path, READ_WITHIN)))
        undo.pop_all()
    return File(identity, _identity(_beside(path, "wal")), number, reader, writer, at_once)


def open_instead(before: File | None, path: Path) -> File:
    """Open what has taken the place of a file; one router at a time, so that none removes what another has made."""
    with ExitStack() as stack:
        if before is not None:
            with suppress(OSError):  # where there is no directory any more nothing is left behind
                directory = os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC)
                stack.callback(os.close, directory)
                fcntl.flock(directory, fcntl.LOCK_EX)
                before.make_way(path)
            before.close()
        return open_file(path)


def _prepare(db: sqlite3.Connection) -> int:
    """Make the tables, unless they are there. Returns the number of the file."""
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if version not in (0, SCHEMA_VERSION):
        raise sqlite3.DatabaseError(f"written by another version of openmar (schema {version}): use another file")
    number: int = db.execute("PRAGMA application_id").fetchone()[0] or 1 + secrets.randbelow(MOST_NUMBER)
    numbers = f"PRAGMA user_version = {SCHEMA_VERSION}; PRAGMA application_id = {number}"
    db.executescript(f"BEGIN IMMEDIATE; {SCHEMA} {numbers}; COMMIT")
    return number


def _identity(path: Path) -> tuple[int, int] | None:
    """Device and inode; None: there is nothing."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def _beside(path: Path, name: str) -> Path:
    return path.with_name(f"{path.name}-{name}")


def _cursor(number: int, at: int) -> str:
    return f"{number}.{at}"


def _position(cursor: str | None) -> tuple[int, int]:
    """The number of the file, and a position in its log; 0: it is no cursor of this kind of store."""
    number, _, at = (cursor or "").partition(".")
    return (int(number), int(at)) if number.isdecimal() and at.isdecimal() else (0, 0)


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
                db.close()
                raise
            time.sleep(0.01)
    db.execute("PRAGMA synchronous = NORMAL")
    db.execute(f"PRAGMA busy_timeout = {timeout * 1000:.0f}")
    return db


def unless_busy(work: Callable[[sqlite3.Connection], object], db: sqlite3.Connection) -> bool:
    """Do it. False: somebody else is writing."""
    try:
        work(db)
    except sqlite3.OperationalError as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF != sqlite3.SQLITE_BUSY:
            raise
        return False
    return True


def move_log(db: sqlite3.Connection) -> None:
    """Write what is in the log into the file."""
    _, pages, _ = db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    if pages > MOST_PAGES:  # somebody was always writing
        db.execute("PRAGMA wal_checkpoint(RESTART)")
    # who writes first to a log that begins anew waits for the disk: that is us
    db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


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
