"""The mobility sessions of an LMA, durable: one SQLite file that only this process writes.

    binding   number (of the session), value      the value is packed: see `pack`
    state     key, value                          which boot of the machine wrote last, and whether it ended well

Why SQLite: it takes some 400,000 of these rows a second in batches of 20, and hands out 100,000 in 50 ms. A journal of
our own took two million, but packing a session costs 3 us and unpacking one 4, whatever the file; it would have to be
compacted and repaired by us, for a few per cent of a restart.

A change is durable at once: it is appended to a file beside the database (`write_ahead.py`), and whoever waits for it
waits no longer. A moment later a thread commits all that was gathered. Where the file cannot be written, it commits at
once, and those who wait, wait for it. Either has reached the kernel (synchronous = NORMAL): `kill -9` loses nothing
that was acknowledged. Only a crash of the machine may lose the last moments; the next start notices that (`lost`) and
tells the peers by its restart counter (RFC 5847).
"""

import asyncio
import logging
import os
import sqlite3
import struct
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path
from sys import intern

from router.store import StoreError
from router.store.sqlite import connect, transaction
from router.store.write_ahead import WriteAhead
from signaling.pmip.saved_binding import SavedBinding, SavedCareOf, quick_binding, quick_care_of
from signaling.settings import Address, Prefix

log = logging.getLogger(__name__)

VERSION = 1  # of the packed values
SCHEMA = """
CREATE TABLE IF NOT EXISTS binding (number INTEGER PRIMARY KEY, value BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS state (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
"""
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
WAIT_FOR_LOCK = 2.0  # s; whoever else has the file open only looks at it
RETRY_AFTER = 0.5  # s, while the disk is full or away
GATHER = 0.05  # s that changes are gathered for a commit, when nobody waits for it
LOOK_EVERY = 2.0  # s between looks whether the file is still there, while nothing changes
AHEAD = ".ahead"  # the file beside it
FORGOTTEN = b""  # instead of a value


class BindingStore:
    """What an LMA has acknowledged. on_health(reachable) is called in the loop. Opening raises StoreError."""

    def __init__(self, path: Path, on_health: Callable[[bool], None] = lambda reachable: None) -> None:
        self._path = path
        self._on_health = on_health
        self._waiting: dict[int, bytes] = {}
        self._writing = 0  # sessions of the batch on its way
        self._changes = 0  # so far
        self._futures: list[asyncio.Future[None]] = []
        self._done_already: asyncio.Future[None] | None = None
        self._work = threading.Condition()
        self._ending = self._hurry = False
        self._gathering: asyncio.TimerHandle | None = None
        self._thread: threading.Thread | None = None
        self._ahead: WriteAhead
        self.reachable = True
        self.lost = True  # sessions may be missing that were acknowledged: the file is new, or the machine crashed
        try:
            self._db = self._open()
        except (sqlite3.Error, OSError) as error:
            raise StoreError(f"bindings {path}: {error}: {_cure(error)}") from None

    @property
    def unsaved(self) -> int:
        """Sessions that wait to be written, or are being written."""
        with self._work:
            return len(self._waiting) + self._writing

    def load(self) -> Iterator[SavedBinding]:
        """All sessions, by number, one by one: whoever takes them need not have all of them at a time.

        Raises StoreError, on the way, if the file makes no sense.
        """
        try:
            for number, value in self._db.execute("SELECT number, value FROM binding ORDER BY number"):
                yield unpack(number, value)
        except (sqlite3.Error, ValueError) as error:
            raise StoreError(f"bindings {self._path}: {error}: {_cure(error)}") from None

    def save(self, binding: SavedBinding) -> asyncio.Future[None]:
        """Write a session. The future is done when it is durable; at once while the disk is known to fail."""
        return self._enqueue(binding.number, pack(binding))

    def forget(self, number: int) -> asyncio.Future[None]:
        """Take a session out."""
        return self._enqueue(number, FORGOTTEN)

    async def close(self, within: float) -> None:
        """Write what waits, for at most so many s, and close the file."""
        if self._gathering is not None:
            self._gathering.cancel()
            self._commit(asyncio.get_running_loop())
        if self._thread is not None:
            with self._work:
                self._ending = True
                self._work.notify()
            await asyncio.get_running_loop().run_in_executor(None, self._thread.join, within)
            if self._thread.is_alive():
                log.warning("bindings: %d sessions were not written", self.unsaved)
                return
        for future in self._futures:
            _done(future)
        if not self._waiting:
            self._ahead.clear()
            self._note_end()
        self._ahead.close()
        self._db.close()

    # --- in the loop ---

    def _enqueue(self, number: int, value: bytes) -> asyncio.Future[None]:
        loop = asyncio.get_running_loop()
        durable = self._ahead.append(number, value) or not self.reachable
        future = self._already(loop) if durable else loop.create_future()
        with self._work:
            self._waiting[number] = value
            self._changes += 1
            if not durable:
                self._futures.append(future)
        if not durable:
            self._commit(loop)
        elif self._gathering is None:
            self._gathering = loop.call_later(GATHER, self._commit, loop)
        return future

    def _already(self, loop: asyncio.AbstractEventLoop) -> asyncio.Future[None]:
        """The future of all that is durable when it is asked for."""
        if self._done_already is None:
            self._done_already = loop.create_future()
            self._done_already.set_result(None)
        return self._done_already

    def _commit(self, loop: asyncio.AbstractEventLoop) -> None:
        """Have all that waits committed now."""
        self._gathering = None
        with self._work:
            self._hurry = True
            self._work.notify()
        if self._thread is None:
            self._thread = threading.Thread(target=self._write_all, args=(loop,), name="bindings", daemon=True)
            self._thread.start()

    def _written(self, futures: Iterable[asyncio.Future[None]], changes: int, failure: str | None) -> None:
        for future in futures:
            _done(future)
        if failure is None and changes == self._changes:
            self._ahead.clear()
            self._open_ahead_again()
        if self.reachable != (failure is None):
            self.reachable = failure is None
            log.warning("%s", failure or "bindings: can be written again")
            self._on_health(self.reachable)

    def _open_ahead_again(self) -> None:
        """If it was removed: what is appended to it from now on would be found by nobody."""
        if not self._ahead.removed:
            return
        try:
            again = WriteAhead(self._path.with_suffix(AHEAD))
        except OSError as error:
            log.warning("bindings %s: %s", self._path, error)
            return
        self._ahead.close()
        self._ahead = again

    # --- in the thread ---

    def _write_all(self, loop: asyncio.AbstractEventLoop) -> None:
        while True:
            with self._work:
                self._work.wait_for(lambda: (self._waiting and self._hurry) or self._ending, LOOK_EVERY)
                if self._ending and not self._waiting:
                    return
                batch, self._waiting = self._waiting, {}
                self._writing = len(batch)
                futures, self._futures = self._futures, []
                changes, self._hurry = self._changes, False
            failure = self._write(batch)
            with self._work:
                self._writing = 0
                if failure is not None:
                    self._waiting = batch | self._waiting  # what came meanwhile is newer
            _tell(loop, self._written, futures, changes, failure)
            if failure is not None:
                with self._work:
                    self._hurry = True
                    if self._work.wait_for(lambda: self._ending, RETRY_AFTER):
                        return

    def _write(self, batch: dict[int, bytes]) -> str | None:
        """Commit a batch. Returns what went wrong."""
        try:
            if _identity(self._path) != self._identity:
                self._write_anew()
            if batch:
                with transaction(self._db):
                    _change(self._db, batch)
        except (sqlite3.Error, OSError) as error:
            return f"bindings {self._path}: {error}: going on without them: {_cure(error)}"
        return None

    def _write_anew(self) -> None:
        """The file was removed. The one that is open has all of it still; another file in its place is left alone."""
        if _identity(self._path) is not None:
            raise FileExistsError("another file is there now")
        copy = self._path.with_suffix(".new")
        copy.unlink(missing_ok=True)
        self._db.execute("VACUUM INTO ?", (str(copy),))
        self._db.close()
        for end in ("-wal", "-shm"):  # of the one that was removed: they would be taken for those of the new one
            self._path.with_name(self._path.name + end).unlink(missing_ok=True)
        copy.rename(self._path)
        self._db = connect(self._path, WAIT_FOR_LOCK)
        self._identity = _identity(self._path)
        log.warning("bindings %s: the file was removed: it was written anew", self._path)

    # --- beginning and end ---

    def _open(self) -> sqlite3.Connection:
        _keep_private(self._path)
        db = connect(self._path, WAIT_FOR_LOCK)
        try:
            with transaction(db):
                for statement in SCHEMA.split(";"):
                    db.execute(statement)
                state = dict(db.execute("SELECT key, value FROM state"))
                boot = _boot_id()
                # what a write has given to the kernel outlives this process, not the machine
                self.lost = not state or (state.get("end") != "clean" and state.get("boot") != boot)
                self._ahead = WriteAhead(self._path.with_suffix(AHEAD))
                if not self.lost:  # what a crash of the machine left of it may be older than the database
                    _change(db, dict(self._ahead.changes()))
                db.executemany("INSERT OR REPLACE INTO state VALUES (?, ?)", [("boot", boot), ("end", "open")])
            self._ahead.clear()
            self._identity = _identity(self._path)
        except BaseException:
            db.close()
            raise
        return db

    def _note_end(self) -> None:
        try:
            self._db.execute("INSERT OR REPLACE INTO state VALUES ('end', 'clean')")
        except sqlite3.Error as error:
            log.warning("bindings %s: %s", self._path, error)


def _keep_private(path: Path) -> None:
    """Who is where is for the router alone: sqlite makes the files beside it as this one is."""
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if os.fstat(file).st_mode & 0o077:  # made by an earlier version
            os.fchmod(file, 0o600)
    finally:
        os.close(file)


def _change(db: sqlite3.Connection, changes: dict[int, bytes]) -> None:
    saved = [(number, value) for number, value in changes.items() if value]
    forgotten = [(number,) for number, value in changes.items() if not value]
    if saved:
        db.executemany("INSERT OR REPLACE INTO binding VALUES (?, ?)", saved)
    if forgotten:
        db.executemany("DELETE FROM binding WHERE number = ?", forgotten)


def _identity(path: Path) -> tuple[int, int] | None:
    """Which file is there: its device and number. None: there is none. Raises OSError."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _cure(error: Exception) -> str:
    if isinstance(error, sqlite3.OperationalError | OSError):
        return "make room there, or make it writable, or choose another place with --state-dir"
    return "the file is damaged: move it away, and the peers will register again"


def _boot_id() -> str:
    try:
        return BOOT_ID.read_text().strip()
    except OSError:
        return ""


def _done(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _tell(loop: asyncio.AbstractEventLoop, hear: Callable[..., None], *what: object) -> None:
    try:
        loop.call_soon_threadsafe(hear, *what)
    except RuntimeError:  # the loop is closed: nobody waits any more
        return


# --- the packed value ---
#
#     head: version, ATT, flags, how many prefixes, delegated ones, care-of addresses, the length of each text
#     texts | GRE keys? | IPv4 home? | prefixes | delegated prefixes | care-of addresses
#
# Values with the same head have the same layout, and most of 100,000 sessions have one of a few heads.

HEAD = struct.Struct("!BBBBBBBBBBBI")
TEXTS = 6
KEYS = "II"
PREFIX = "BQQ"  # its length, for IPv4 that of its mapped prefix; the octets
CARE_OF = "BBBQHHBIQQQQ"  # BID, label, If-ATT, timestamp, port, data port, key?, key; address of the MAG; of this end
CARE_OF_VALUES = 12
HAS_IPV4_HOME, HAS_KEYS = 1, 2
MAPPED = 0xFFFF  # in the upper 96 bits of an IPv4 address that is carried as an IPv6 one, RFC 4291 2.5.5.2
HALF = (1 << 64) - 1
NOWHERE = IPv6Address(0)  # our end is the address of this router


@dataclass(frozen=True, slots=True)
class Layout:
    """What follows a head, and where in it the prefixes and care-of addresses begin (places in the unpacked values)."""

    values: struct.Struct
    technology: int
    keys: slice
    home: range
    homes: range
    delegated: range
    care_ofs: range

    @classmethod
    def behind(cls, head: bytes) -> "Layout":
        """The layout after this head. Raises ValueError, struct.error."""
        version, technology, flags, homes, delegated, paths, *lengths = HEAD.unpack(head)
        if version != VERSION:
            raise ValueError(f"version {version}, expected {VERSION}")
        keys, home = flags & HAS_KEYS, flags & HAS_IPV4_HOME
        at = [TEXTS]
        for count, size in ((bool(keys), 2), (home, 3), (homes, 3), (delegated, 3), (paths, CARE_OF_VALUES)):
            at.append(at[-1] + count * size)
        form = "".join(f"{length}s" for length in lengths) + KEYS * bool(keys) + PREFIX * (home + homes + delegated)
        return cls(
            values=struct.Struct(f"!{form}{CARE_OF * paths}"),
            technology=technology,
            keys=slice(at[0], at[1]),
            home=range(at[1], at[2], 3),
            homes=range(at[2], at[3], 3),
            delegated=range(at[3], at[4], 3),
            care_ofs=range(at[4], at[5], CARE_OF_VALUES),
        )


def pack(binding: SavedBinding) -> bytes:
    """A session without its number."""
    texts = (
        binding.node.encode(),
        binding.gateway.encode(),
        binding.service.encode(),
        binding.link_layer,
        binding.link_local,
        binding.flows,
    )
    keys, home = binding.gre_keys, binding.ipv4_home
    head = HEAD.pack(
        VERSION,
        binding.technology,
        (HAS_IPV4_HOME if home else 0) | (HAS_KEYS if keys else 0),
        len(binding.prefixes),
        len(binding.delegated),
        len(binding.care_ofs),
        *map(len, texts),
    )
    values: list[object] = [*texts, *(keys or ())]
    for prefix in (*((home,) if home else ()), *binding.prefixes, *binding.delegated):
        values += (prefix.prefixlen + (96 if prefix.version == 4 else 0), *_halves(prefix.network_address))
    for path in binding.care_ofs:
        values += (path.binding_id, path.label, path.technology, path.timestamp, path.port, path.data_port)
        values += (path.downlink_key is not None, path.downlink_key or 0)
        values += (*_halves(path.care_of), *_halves(path.local or NOWHERE))
    return head + _layout(head).values.pack(*values)


@lru_cache(maxsize=4096)
def _layout(head: bytes) -> Layout:
    return Layout.behind(head)


def _halves(address: Address) -> tuple[int, int]:
    number = int(address) | (MAPPED << 32 if address.version == 4 else 0)
    return number >> 64, number & HALF


def unpack(number: int, value: bytes) -> SavedBinding:
    """The session of this number. Raises ValueError."""
    try:
        layout = _layout(value[: HEAD.size])
        found = layout.values.unpack(value[HEAD.size :])
        return quick_binding(
            number,
            found[0].decode(),
            _name(found[1]),
            found[3],
            layout.technology,
            _name(found[2]),
            found[4],
            tuple([IPv6Network((found[at + 1] << 64 | found[at + 2], found[at])) for at in layout.homes]),
            _prefix(*found[layout.home.start : layout.home.stop]) if layout.home else None,
            tuple([_prefix(*found[at : at + 3]) for at in layout.delegated]) if layout.delegated else (),
            found[layout.keys] or None,
            tuple([_unpack_care_of(*found[at : at + CARE_OF_VALUES]) for at in layout.care_ofs]),
            found[5],
        )
    except (struct.error, ValueError) as error:
        raise ValueError(f"session {number} cannot be read: {error}") from None


@lru_cache(maxsize=4096)
def _name(octets: bytes) -> str:
    """Of a gateway or a service: told again and again."""
    return intern(octets.decode())


def _prefix(length: int, high: int, low: int) -> Prefix:
    if not high and low >> 32 == MAPPED:
        return IPv4Network((low & 0xFFFFFFFF, length - 96))
    return IPv6Network((high << 64 | low, length))


@lru_cache(maxsize=4096)
def _address(high: int, low: int) -> Address | None:
    """A care-of address: many sessions have that of their gateway. None: our end, where that is this router's."""
    if not high and low >> 32 == MAPPED:
        return IPv4Address(low & 0xFFFFFFFF)
    return IPv6Address(high << 64 | low) if high or low else None


def _unpack_care_of(
    binding_id: int,
    label: int,
    technology: int,
    timestamp: int,
    port: int,
    data_port: int,
    has_key: int,
    key: int,
    high: int,
    low: int,
    local_high: int,
    local_low: int,
) -> SavedCareOf:
    return quick_care_of(
        binding_id,
        _address(high, low) or NOWHERE,
        port,
        data_port,
        label,
        technology,
        timestamp,
        key if has_key else None,
        _address(local_high, local_low),
    )
