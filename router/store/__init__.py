"""Where the domain keeps the mobility sessions of its nodes: one small interface, any number of engines behind it.

One record is one node: all its sessions, and a revision that every write raises. A writer says which revision it has
read; if somebody else was faster the write is refused and nothing changed. The anchor of a prefix is the only one that
changes that session, so merging two writers is putting their sessions side by side (`save`, `forget`).
"""

from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from ipaddress import IPv6Address, IPv6Network
from math import inf
from pathlib import Path
from typing import Protocol

from router.errors import RouterError
from signaling.dma.session import Session, State

ATTEMPTS = 20  # of compare-and-set, before a record so contended is given up


class StoreError(RouterError):
    """The store cannot be reached or used now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """All sessions of one node. revision: rises with every write, 0 when there is no record."""

    node: str
    sessions: tuple[Session, ...] = ()
    revision: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A record was written or removed. cursor: watch again from here to miss nothing and see nothing twice."""

    node: str
    cursor: int
    resync: bool = False  # changes were missed: read what you need again


class SessionStore(Protocol):
    """What every engine offers. Each call raises StoreError when the store is away."""

    async def get(self, node: str) -> Record:
        """The record of a node; revision 0 and no sessions when there is none."""

    def peek(self, node: str) -> Record | None:
        """The record, from a store that needs no waiting to tell; None: ask with get."""

    async def put_if(self, record: Record) -> bool:
        """Write, if the stored revision is still record.revision. No sessions: remove. False: it was not."""

    async def anchored(self, anchor: IPv6Address) -> list[Session]:
        """All sessions of prefixes anchored at this router."""

    def watch(self, cursor: int | None = None) -> AsyncIterator[Change]:
        """Changes after this cursor, for ever; None: from now on."""

    async def expire(self, now: float) -> int:
        """Remove sessions nobody needs any more (`needed_until`, wall clock s). How many records changed or went."""

    async def close(self) -> None:
        """Let go of files and connections."""


def open_store(url: str) -> SessionStore:
    """The store of a URL. Raises StoreError when it cannot be used."""
    scheme, _, rest = url.partition("://")
    if scheme != "sqlite":
        raise StoreError(f"store {url}: unknown kind {scheme!r}: use sqlite://PATH")
    from router.store.sqlite import SqliteStore

    return SqliteStore(Path(rest))


def needed_until(session: Session) -> float:
    """Wall clock s after which a session is of no use, even if its anchor is never heard of again.

    A prefix is used by hosts, and must be known to its anchor after a restart, until the valid lifetime has passed;
    that of HOLD is counted already. A node that is with its anchor may stay for ever.
    """
    if session.state in (State.LOCAL, State.SPLIT):
        return inf
    return session.expires + (0 if session.state is State.HOLD else session.valid_lifetime)


async def save(store: SessionStore, session: Session) -> None:
    """Write one session beside the others of its node."""
    await _change(store, session.node, lambda old: (*_without(old, session.prefix), session))


async def forget(store: SessionStore, node: str, prefix: IPv6Network) -> None:
    """Take one session out of its node's record."""
    await _change(store, node, lambda old: tuple(_without(old, prefix)))


def _without(sessions: Iterable[Session], prefix: IPv6Network) -> list[Session]:
    return [session for session in sessions if session.prefix != prefix]


async def _change(
    store: SessionStore, node: str, change: Callable[[tuple[Session, ...]], tuple[Session, ...]]
) -> None:
    for _ in range(ATTEMPTS):
        record = await store.get(node)
        sessions = change(record.sessions)
        if sessions == record.sessions:
            return
        if await store.put_if(Record(node=node, sessions=sessions, revision=record.revision)):
            return
    raise StoreError(f"store: the record of {node} changed {ATTEMPTS} times while it was being written")
