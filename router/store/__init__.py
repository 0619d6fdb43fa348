"""Where the domain keeps the mobility sessions of its nodes: one small interface, any number of engines behind it.

One record is one node: all its sessions, and a revision that every write raises. The anchor of a prefix is the only one
that changes that session, so merging two writers is putting their sessions side by side, which is one operation whoever
else writes (`save`, `forget`). Who writes a whole record says which revision it has read (`put_if`); if somebody else
was faster the write is refused and nothing changed.
"""

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from ipaddress import IPv6Address, IPv6Network
from math import inf
from typing import Protocol

from router.errors import RouterError
from router.store.url import RedisUrl, parse, why_not_usable, without_password
from signaling.dma.session import Session, State


class StoreError(RouterError):
    """The store cannot be reached or used now."""


class StoreFullError(StoreError):
    """The store answers, and takes nothing more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """All sessions of one node, in no order. revision: rises with every write, 0 when there is no record."""

    node: str
    sessions: tuple[Session, ...] = ()
    revision: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A record was written or removed. cursor: watch again from here to miss nothing and see nothing twice.

    sessions: what was written, where the engine can tell; others of the node may be as they were. None: ask with get.
    """

    node: str
    cursor: str  # means something to its engine only
    resync: bool = False  # changes were missed: read what you need again
    sessions: tuple[Session, ...] | None = None


class SessionStore(Protocol):
    """What every engine offers. Each call ends within a bound, with StoreError when the store is away."""

    async def get(self, node: str) -> Record:
        """The record of a node; revision 0 and no sessions when there is none."""

    def peek(self, node: str) -> Record | None:
        """The record, from a store that needs no waiting to tell; None: ask with get."""

    async def put_if(self, record: Record) -> bool:
        """Write, if the stored revision is still record.revision. No sessions: remove. False: it was not."""

    async def save(self, session: Session) -> None:
        """Write one session beside the others of its node, whoever else writes; what is there already is no change."""

    async def forget(self, node: str, prefix: IPv6Network) -> None:
        """Take one session out of its node's record, and the record with the last."""

    async def anchored(self, anchor: IPv6Address) -> list[Session]:
        """All sessions of prefixes anchored at this router."""

    def watch(self, cursor: str | None = None) -> AsyncGenerator[Change, None]:
        """Changes after this cursor, for ever; None: from now on, which a first `resync` tells with its cursor."""

    async def expire(self, now: float) -> int:
        """Remove sessions nobody needs any more (`needed_until`, wall clock s). How many records changed or went."""

    async def close(self) -> None:
        """Let go of files and connections."""


def open_store(url: str) -> SessionStore:
    """The store of a URL. Raises StoreError when it cannot be used."""
    shown = without_password(url)
    try:
        found = parse(url)
    except ValueError as error:
        raise StoreError(f"store {shown}: expected {error}") from None
    if why := why_not_usable(found):
        raise StoreError(f"store {shown}: expected {why}")
    if not isinstance(found, RedisUrl):
        from router.store.sqlite import SqliteStore

        return SqliteStore(found.path)
    try:
        from router.store.redis import RedisStore
    except ImportError:
        raise StoreError(f"store {shown}: needs the client library: pip install 'openmar[redis]'") from None
    return RedisStore(found, shown)


def needed_until(session: Session) -> float:
    """Wall clock s after which a session is of no use, even if its anchor is never heard of again.

    A prefix is used by hosts, and must be known to its anchor after a restart, until the valid lifetime has passed;
    that of HOLD and RELEASED is counted already. A node that is with its anchor may stay for ever.
    """
    return end_of(session.state, session.expires, session.valid_lifetime)


def end_of(state: State, expires: float, valid_lifetime: int) -> float:
    """The same, of a session that has these."""
    if state in (State.LOCAL, State.SPLIT):
        return inf
    counted = state in (State.HOLD, State.RELEASED)
    return expires + (0 if counted else valid_lifetime)


def merged(sessions: tuple[Session, ...], prefix: IPv6Network, session: Session | None) -> tuple[Session, ...]:
    """Sessions of a node with that of one prefix replaced; None: taken out. The same ones if that changes nothing."""
    if session in sessions:
        return sessions
    others = tuple(other for other in sessions if other.prefix != prefix)
    return others if session is None else (*others, session)
