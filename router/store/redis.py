"""The distributed store: a server that speaks the Redis protocol (Redis 7, Valkey), or a cluster of them.

    openmar:{S}:record:NODE       hash: "revision", and each prefix -> "ANCHOR NEEDED-UNTIL SESSION", the latter in JSON
    openmar:{S}:log               stream, bounded: who was written, and what
    openmar:{S}:anchors           set: the anchors that have something in this shard
    openmar:{S}:anchored:ANCHOR   sorted set: "PREFIX NODE" by when it is needed no more

S is the shard of a node: what is written together lies in one slot of a cluster. A write is one script that compares,
writes, sets the expiry, keeps the index and appends to the log. Revisions are positions in the log, and follow the
clock of the server: they do not come back, not even when it has lost everything. An entry of the log names the one
before it, so that a watcher notices whatever is missing, be it cut or lost.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from ipaddress import IPv6Address, IPv6Network
from operator import methodcaller
from typing import Any
from zlib import crc32

from redis.exceptions import ResponseError

from router.store import Change, Record, StoreError, needed_until
from router.store.encoding import decode_one, encode_one
from router.store.redis_link import RedisLink
from router.store.redis_scripts import TIDY, WRITE
from router.store.url import RedisUrl
from signaling.dma.session import Session

log = logging.getLogger(__name__)

SHARDS = 16  # in a cluster; else 1
LOG_LENGTH = 10_000  # changes kept in each shard for watchers that come back
AT_ONCE = 500  # entries of a log or an index
TELLING = 64  # sessions; a larger change is not told in the log, but read
GRACE = 86_400.0  # s after which the server removes a record itself, if no router of the domain did
NOT_SESSIONS = {"node", "before"}  # fields of an entry of the log

# an entry of a log: shard, position, fields; None: the log is not the one it was
News = tuple[int, int, dict[str, str]] | None | StoreError


class RedisStore:
    """Sessions on a server or cluster. Connects when it is used. shown: its name in errors."""

    def __init__(self, url: RedisUrl, shown: str) -> None:
        self._shards = SHARDS if url.cluster else 1
        self._link = RedisLink(url, shown, [str(shard) for shard in range(self._shards)])

    async def get(self, node: str) -> Record:
        """The record of a node. One operation."""
        shard = self._shard(node)

        async def read(client: Any) -> dict[str, str]:
            try:
                fields: dict[str, str] = await client.hgetall(_record_key(shard, node))
            except ResponseError as error:
                if not str(error).startswith("WRONGTYPE"):
                    raise
                log.warning("store: the record of %s cannot be read: %s", node, error)
                return {}  # it is nothing of ours; the next write replaces it
            return fields

        return _record(node, await self._link.call(shard, read))

    def peek(self, node: str) -> Record | None:
        """It has to be asked."""
        return None

    async def put_if(self, record: Record) -> bool:
        """Compare and set. One operation."""
        values = {str(session.prefix): _value(session) for session in record.sessions}
        return await self._write(record.node, values, expected=str(record.revision))

    async def save(self, session: Session) -> None:
        """Write one session. One operation."""
        await self._write(session.node, {str(session.prefix): _value(session)})

    async def forget(self, node: str, prefix: IPv6Network) -> None:
        """Take one session out. One operation."""
        await self._write(node, {str(prefix): ""})

    async def anchored(self, anchor: IPv6Address) -> list[Session]:
        """All sessions anchored at this router."""
        found: list[Session] = []
        for shard in range(self._shards):
            members = sorted(await self._members(shard, _key(shard, f"anchored:{anchor}")))
            for first in range(0, len(members), AT_ONCE):
                found += await self._sessions(shard, anchor, members[first : first + AT_ONCE])
        return found

    async def watch(self, cursor: str | None = None) -> AsyncGenerator[Change, None]:
        """Changes of all shards after the cursor, those of one node in their order. It has a position in each log."""
        at = _positions(cursor, self._shards)
        while True:
            if at is None:
                at = [await self._newest(shard) for shard in range(self._shards)]
                yield Change(node="", cursor=_cursor(at), resync=True)
            async with aclosing(self._changes(at)) as changes:
                async for change in changes:
                    yield change
            at = None

    async def expire(self, now: float) -> int:
        """Remove what ended before now, and what the index still has of records that the server has removed."""
        changed = 0
        for shard in range(self._shards):
            for anchor in await self._link.call(shard, methodcaller("smembers", _key(shard, "anchors"))):
                index = _key(shard, f"anchored:{anchor}")
                ended = methodcaller("zrangebyscore", index, "-inf", f"({now!r}")
                for member in await self._link.call(shard, ended):
                    changed += await self._end(shard, anchor, member, now)
        return changed

    async def close(self) -> None:
        """Close the connections."""
        await self._link.close()

    def _shard(self, node: str) -> int:
        return crc32(node.encode()) % self._shards

    async def _write(self, node: str, values: dict[str, str], expected: str = "") -> bool:
        """Write values by prefix, "" takes one out. expected: the revision; then the record has no others."""
        shard = self._shard(node)
        keys = [_record_key(shard, node), *(_key(shard, name) for name in ("log", "anchors", "anchored:"))]
        limits = repr(GRACE), str(LOG_LENGTH), str(TELLING)
        pairs = [text for pair in values.items() for text in pair]
        return await self._link.write(shard, WRITE, keys, node, expected, *limits, *pairs)

    # --- the index ---

    async def _members(self, shard: int, key: str) -> set[str]:
        """All of a sorted set; a scan may tell one twice, but leaves nothing out that was there all the time."""
        members: set[str] = set()
        at = -1
        while at != 0:
            at, some = await self._link.call(shard, methodcaller("zscan", key, max(at, 0), count=AT_ONCE))
            members.update(member for member, _ in some)
        return members

    async def _sessions(self, shard: int, anchor: IPv6Address, members: list[str]) -> list[Session]:
        """The sessions that members of an index are about."""
        named = [member.split(" ", 1) for member in members]

        async def read(client: Any) -> list[str | None]:
            pipeline = client.pipeline(transaction=False)
            for prefix, node in named:
                pipeline.hget(_record_key(shard, node), prefix)
            values: list[str | None] = await pipeline.execute()
            return values

        values = await self._link.call(shard, read)
        found = (_session(node, value) for (_, node), value in zip(named, values, strict=True) if value)
        return [session for session in found if session is not None and session.anchor == anchor]

    async def _end(self, shard: int, anchor: str, member: str, now: float) -> int:
        """End a session that the index has as ended. 1: the record of its node changed."""
        prefix, node = member.split(" ", 1)
        record = await self.get(node)
        if any(str(session.prefix) == prefix for session in record.sessions):
            kept = tuple(session for session in record.sessions if needed_until(session) >= now)
            return int(kept != record.sessions and await self.put_if(replace(record, sessions=kept)))
        keys = [_record_key(shard, node), _key(shard, f"anchored:{anchor}"), _key(shard, "anchors")]
        await self._link.run(shard, TIDY, keys, prefix, member, anchor)
        return 0

    # --- the log ---

    async def _newest(self, shard: int) -> int:
        """The last position in a log; 0: it is empty."""
        found = await self._link.call(shard, methodcaller("xrevrange", _key(shard, "log"), count=1))
        return _position(found[0][0]) if found else 0

    async def _changes(self, at: list[int]) -> AsyncGenerator[Change, None]:
        """What comes after a position in each log, until a log is not the one it was."""
        news: asyncio.Queue[News] = asyncio.Queue(AT_ONCE)
        followers = [asyncio.create_task(self._follow(shard, after, news)) for shard, after in enumerate(at)]
        try:
            while (item := await news.get()) is not None:
                if isinstance(item, StoreError):
                    raise item
                shard, at[shard], fields = item
                yield _change(fields, _cursor(at))
        finally:
            for follower in followers:
                follower.cancel()
            await asyncio.gather(*followers, return_exceptions=True)

    async def _follow(self, shard: int, after: int, news: asyncio.Queue[News]) -> None:
        """Put what changes in one shard into the queue, and how that ends."""
        try:
            while await self._newest(shard) >= after:
                while entries := await self._link.listen(shard, _key(shard, "log"), f"{after}-0", AT_ONCE):
                    for name, fields in entries:
                        if fields.get("before") != str(after):
                            await news.put(None)
                            return
                        after = _position(name)
                        await news.put((shard, after, fields))
            await news.put(None)
        except StoreError as error:
            await news.put(error)


def _key(shard: int, name: str) -> str:
    return f"openmar:{{{shard}}}:{name}"


def _record_key(shard: int, node: str) -> str:
    return _key(shard, f"record:{node}")


def _value(session: Session) -> str:
    return f"{session.anchor} {needed_until(session)!r} {encode_one(session)}"


def _session(node: str, value: str) -> Session | None:
    """A session from its value; None: it cannot be read."""
    return decode_one(node, value.split(" ", 2)[-1])


def _record(node: str, fields: dict[str, str]) -> Record:
    revision = fields.get("revision", "")
    found = (_session(node, value) for prefix, value in fields.items() if prefix != "revision")
    return Record(
        node=node,
        sessions=tuple(session for session in found if session is not None),
        revision=int(revision) if revision.isdecimal() else 0,
    )


def _change(fields: dict[str, str], cursor: str) -> Change:
    """What an entry of the log tells."""
    node = fields.get("node", "")
    if "unread" in fields:
        return Change(node=node, cursor=cursor)
    found = (_session(node, value) for name, value in fields.items() if value and name not in NOT_SESSIONS)
    return Change(node=node, cursor=cursor, sessions=tuple(session for session in found if session is not None))


def _position(name: str) -> int:
    return int(name.partition("-")[0])


def _cursor(positions: list[int]) -> str:
    return ",".join(map(str, positions))


def _positions(cursor: str | None, shards: int) -> list[int] | None:
    """The position in each log; None: it is no cursor of this store."""
    found = (cursor or "").split(",")
    return [int(item) for item in found] if len(found) == shards and all(map(str.isdecimal, found)) else None
