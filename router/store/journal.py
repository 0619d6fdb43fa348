"""What this router has lent, in a file of its own: after a restart it knows that without any store.

A line for each change, the newest of a session counts: [node, prefix, wall clock s, session], null: it is forgotten. A
line is there before anybody is told, so an acknowledgement waits for no store; it survives the death of the process,
not a power cut. What has piled up is written anew beside it now and then, by a thread.
"""

import asyncio
import json
import logging
import os
import time
from collections.abc import Container, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv6Network
from pathlib import Path

from router.errors import NoRights
from router.store import needed_until
from router.store.encoding import decode_one, encode_one, plain_needed_until
from signaling.dma.session import Session
from signaling.settings import TIMESTAMP_UNITS

log = logging.getLogger(__name__)

LONG = 1 << 20  # octets, before it is written anew

Key = tuple[str, IPv6Network]  # node, prefix


@dataclass(frozen=True, slots=True)
class Word:
    """The last that was said about a session; None: it is over. at: wall clock s."""

    session: Session | None
    at: float


class Journal:
    """One file. Raises NoRights when it cannot be read or made."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._behind: dict[Key, bytes] = {}  # lines for which there was no room
        self._file: int | None = None
        self._size = 0
        self._long = LONG
        self.known = path.exists()  # an earlier run has lent something, or might have

    def open(self) -> None:
        """Make it, or go on after what an earlier run has said."""
        try:
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            octets = os.pread(self._file, os.fstat(self._file).st_size, 0)
        except OSError as error:
            raise NoRights(f"{self._path}: {error.strerror}: make it writable, or choose another --state-dir") from None
        self._size = octets.rfind(b"\n") + 1
        os.ftruncate(self._file, self._size)  # the last run may have ended in the middle of a line

    def words(self) -> dict[Key, Word]:
        """The last word about each session that has not ended by itself."""
        return {} if self._file is None else _words(os.pread(self._file, self._size, 0))

    def append(self, key: Key, session: Session | None) -> bool:
        """Say something about a session. False: there is no room; it will be said with the next one."""
        if self._file is None:
            return False
        self._behind.pop(key, None)
        self._behind[key] = _line(key, Word(session, time.time()))
        octets = b"".join(self._behind.values())
        try:
            complete = os.write(self._file, octets) == len(octets)
        except OSError:
            complete = False
        if complete:
            self._size += len(octets)
            self._behind.clear()
        else:
            with suppress(OSError):
                os.ftruncate(self._file, self._size)
        return complete

    @property
    def is_long(self) -> bool:
        """Whether it should be written anew."""
        return self._size > self._long

    async def shorten(self, unsaved: Container[Key]) -> None:
        """Write it anew without what is over, unless the store does not know that yet."""
        assert self._file is not None
        beside, end = self._path.with_suffix(".new"), self._size
        try:
            size = await asyncio.to_thread(_rewrite, self._file, end, beside, unsaved)
            new = os.open(beside, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
            tail = os.pread(self._file, self._size - end, end)  # what was said in the meantime
            if os.write(new, tail) != len(tail):
                raise OSError
            beside.replace(self._path)
        except OSError as error:
            log.warning("%s: cannot be written anew: %s", self._path, error.strerror)
            self._long = self._size + LONG
            return
        os.close(self._file)
        self._file, self._size = new, size + len(tail)
        self._long = max(LONG, 4 * self._size)

    def close(self) -> None:
        """Say no more."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


def reconciled(own: Mapping[Key, Word], stored: Iterable[Session]) -> tuple[dict[Key, Session], dict[Key, Word]]:
    """What holds, of what the journal says and the store has; and what of it the store has to be told.

    The newer counts. Where only the store has a session, it counts too: to hold a prefix that is free does no harm.
    """
    found = {(session.node, session.prefix): session for session in stored}
    told: dict[Key, Word] = {}
    for key, word in own.items():
        before, session = found.get(key), word.session
        if session is None:
            if before is not None and before.timestamp <= word.at * TIMESTAMP_UNITS:
                del found[key]
                told[key] = word
        elif before is None or before.timestamp <= session.timestamp:
            found[key] = session
            if before != session:
                told[key] = word
    return found, told


def _line(key: Key, word: Word) -> bytes:
    node, prefix = key
    session = "null" if word.session is None else encode_one(word.session)
    return f"[{json.dumps(node)},{json.dumps(str(prefix))},{word.at:.3f},{session}]\n".encode()


def _words(octets: bytes) -> dict[Key, Word]:
    """The last word about each session, without those that have ended by themselves."""
    words: dict[Key, Word] = {}
    unread, now = 0, time.time()
    for line in octets.splitlines():
        try:
            node, prefix, at, item = json.loads(line)
            session = None if item is None else decode_one(node, json.dumps(item))
            if item is not None and session is None:
                raise ValueError
            words[node, IPv6Network(prefix)] = Word(session, at)
        except (ValueError, TypeError):
            unread += 1
    if unread:
        log.warning("journal: %d lines cannot be read", unread)
    return {key: word for key, word in words.items() if word.session is None or needed_until(word.session) >= now}


def _rewrite(file: int, end: int, beside: Path, unsaved: Container[Key]) -> int:
    """Write what counts of the first octets of a journal into another file, unchanged. Returns its size."""
    kept: dict[tuple[str, str], bytes] = {}
    now = time.time()
    for line in os.pread(file, end, 0).splitlines(keepends=True):
        with suppress(ValueError, TypeError, KeyError):  # it cannot be read, and is said again with the next start
            node, prefix, _, item = json.loads(line)
            counts = (node, IPv6Network(prefix)) in unsaved if item is None else plain_needed_until(item) >= now
            kept.pop((node, prefix), None)
            if counts:
                kept[node, prefix] = line
    return beside.write_bytes(b"".join(kept.values()))
