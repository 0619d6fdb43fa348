"""The way to a server of the Redis protocol, or to the servers of a cluster, each for some of the shards.

Every call ends within a bound, or fails with StoreError. It is not tried again here, and connections are made when they
are needed: who calls knows what can wait, and how long (`Sessions`). Each server has at most IN_FLIGHT calls under way,
however many nodes come while it is slow, and one that is away delays no call to another. Who has which shard the
cluster says: it is asked before the first call, and again after a call has failed.
"""

import asyncio
import os
import re
import ssl
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

from redis.asyncio import Redis, SSLConnection
from redis.asyncio.connection import RedisSSLContext
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.exceptions import MovedError, NoScriptError, OutOfMemoryError, RedisError, ResponseError

from router.store import StoreError, StoreFullError
from router.store.redis_scripts import Script
from router.store.url import RedisUrl

T = TypeVar("T")
Place = tuple[str, int]  # host, port

CALL_WITHIN = 0.8  # s; less than a look-up may take
LISTEN_WITHIN = 1.0  # s the server waits for news before it says that there are none
REPLICATED_WITHIN = 0.4  # s
LOOK_WITHIN = 0.2  # s one server has to say who has which shard
LOOK_EVERY = 1.0  # s between two such questions
IN_FLIGHT = 32  # calls at once to one server; others wait for one to end
CONNECTIONS = 128  # to one server: calls, listeners, and what is being closed
FULL = "the store is full: give it more memory (maxmemory), or take out what others keep there"
ELSEWHERE = re.compile(r"\b[0-9]+ (\S*):([0-9]+)$")  # how MOVED ends; newer versions of the library leave out the word


@dataclass(slots=True)
class Server:
    """One server. client: connects when it is used. ahead: s, of its clock before our monotonic one; None: unknown."""

    client: Any  # its calls are typed for two kinds of client at once
    ahead: float | None = None
    room: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(IN_FLIGHT))


class Certificates(RedisSSLContext):
    """Whom we believe: that authority and no other, or those of this machine; and what we show. For all connections.

    To read them takes so long that packets would wait: it is done again only when a file has changed.
    """

    def __init__(self, url: RedisUrl) -> None:
        super().__init__()
        self._url = url
        self._of: list[tuple[str, int, int]] = []  # file, its inode, and when it was changed, ns

    def get(self) -> ssl.SSLContext:
        """As the files are now; asked at each connect. Raises OSError."""
        files = [file for file in (self._url.ca, self._url.cert, self._url.key) if file is not None]
        now = [(file, found.st_ino, found.st_mtime_ns) for file in files for found in (os.stat(file),)]
        if self.context is None or now != self._of:
            context = ssl.create_default_context(cafile=self._url.ca)
            if self._url.cert is not None:
                context.load_cert_chain(self._url.cert, self._url.key)
            self.context, self._of = context, now
        return self.context


class Secured(SSLConnection):
    """A connection that asks them."""

    def __init__(self, *, certificates: Certificates, **more: Any) -> None:
        super().__init__(**more)
        self.ssl_context = certificates


class RedisLink:
    """shown: its name in errors. shards: the hash tag of each, in the order of their numbers."""

    def __init__(self, url: RedisUrl, shown: str, shards: list[str]) -> None:
        self._url = url
        self._shown = shown
        self._servers: dict[Place, Server] = {}
        self._certificates = Certificates(url)
        self._places: list[Place] = [(url.host, url.port)] * len(shards)
        self._slots = [key_slot(tag.encode()) for tag in shards]
        self._doubted = url.cluster  # whether it is still known who has which shard
        self._looked = -LOOK_EVERY  # monotonic s
        self._looking = asyncio.Lock()

    async def call(self, shard: int, work: Callable[[Any], Awaitable[T]]) -> T:
        """What work returns, given the client for a shard. Raises StoreError, at the latest after CALL_WITHIN."""

        return await self._call(shard, lambda server: work(server.client))

    async def listen(self, shard: int, key: str, after: str, most: int) -> list[tuple[str, dict[str, str]]]:
        """Entries of a stream after one of it; an empty list if none came in LISTEN_WITHIN. Takes no room of calls."""

        async def read() -> Any:
            client = (await self._server_of(shard)).client
            return await client.xread({key: after}, count=most, block=int(LISTEN_WITHIN * 1000))

        found = await self._bounded(read, LISTEN_WITHIN + CALL_WITHIN)
        return [entry for _, entries in found or () for entry in entries]

    async def run(self, shard: int, script: Script, keys: list[str], *arguments: str) -> None:
        """Run a script on keys of a shard."""
        await self.call(shard, lambda client: _evaluate(client, script, keys, arguments))

    async def write(self, shard: int, script: Script, keys: list[str], *arguments: str) -> bool:
        """Run a script that writes, and is told the latest time for that. Whether it returned 1, and not 0.

        So what has failed here will not happen later, over something newer, when the server goes on. Where that is
        configured, replicas have the write too.
        """
        due = time.monotonic() + CALL_WITHIN

        async def run(server: Server) -> bool:
            if server.ahead is None:
                seconds, microseconds = await server.client.time()
                server.ahead = seconds + microseconds / 1e6 - time.monotonic()
            deadline = f"{(due + server.ahead) * 1e6:.0f}"
            status, now = await self._durably(server.client, script, keys, (deadline, *arguments))
            server.ahead = int(now) / 1e6 - time.monotonic()
            if status < 0:
                raise RedisError("came too late to be written")
            return bool(status)

        return await self._call(shard, run)

    async def close(self) -> None:
        """Close the connections."""
        for server in self._servers.values():
            with suppress(StoreError):
                await self._bounded(server.client.aclose, CALL_WITHIN)

    async def _durably(self, client: Any, script: Script, keys: list[str], arguments: tuple[str, ...]) -> Any:
        if not self._url.wait:
            return await _evaluate(client, script, keys, arguments)
        async with client.client() as connection:  # WAIT is about the writes of its own connection
            answer = await _evaluate(connection, script, keys, arguments)
            have = await connection.wait(self._url.wait, int(REPLICATED_WITHIN * 1000))
        if have < self._url.wait:
            raise RedisError(f"{have} of {self._url.wait} replicas have it after {REPLICATED_WITHIN:g} s")
        return answer

    async def _call(self, shard: int, work: Callable[[Server], Awaitable[T]]) -> T:
        async def in_its_turn() -> T:
            server = await self._server_of(shard)
            async with server.room:
                try:
                    return await work(server)
                except ResponseError as error:
                    if not self._follow(shard, error):
                        raise
            return await work(await self._server_of(shard))

        return await self._bounded(in_its_turn, CALL_WITHIN)

    async def _bounded(self, work: Callable[[], Awaitable[T]], within: float) -> T:
        try:
            async with asyncio.timeout(within):
                return await work()
        except TimeoutError:
            self._doubted = self._url.cluster
            raise StoreError(f"store {self._shown}: no answer in {within:g} s") from None
        except OutOfMemoryError as error:
            raise StoreFullError(f"store {self._shown}: {FULL}") from error
        except (RedisError, OSError, RuntimeError) as error:  # the latter of uvloop: a connection is closed already
            self._doubted = self._url.cluster
            why = " ".join(str(error).split()).rstrip(".") or type(error).__name__
            raise StoreError(f"store {self._shown}: {why}") from error

    # --- who has which shard ---

    async def _server_of(self, shard: int) -> Server:
        if self._doubted:
            async with self._looking:
                if self._doubted and time.monotonic() - self._looked > LOOK_EVERY:
                    await self._look()
        return self._server(self._places[shard])

    def _server(self, place: Place) -> Server:
        if place not in self._servers:
            self._servers[place] = Server(self._client(place))
        return self._servers[place]

    def _client(self, place: Place) -> Redis:
        client = Redis(
            host=place[0],
            port=place[1],
            db=self._url.database,
            username=self._url.username,
            password=self._url.password,
            protocol=2,  # the same answers from every server
            decode_responses=True,
            encoding_errors="replace",
            socket_timeout=None,  # calls have their own
            socket_connect_timeout=CALL_WITHIN,
            max_connections=CONNECTIONS,
            retry=Retry(NoBackoff(), 0),
        )
        if self._url.tls:
            client.connection_pool.connection_class = Secured
            client.connection_pool.connection_kwargs["certificates"] = self._certificates
        return client

    def _follow(self, shard: int, error: ResponseError) -> bool:
        """Whether an error says that a shard is elsewhere, where it is looked for from now on."""
        place = ELSEWHERE.search(str(error))
        if place is None or not (isinstance(error, MovedError) or "MOVED " in str(error)):
            return False
        self._places[shard] = place[1] or self._url.host, int(place[2])
        return True

    async def _look(self) -> None:
        """Ask one server after the other, until one says who has which shard."""
        for place in dict.fromkeys([*self._places, *self._servers, (self._url.host, self._url.port)]):
            with suppress(RedisError, TimeoutError, OSError, RuntimeError):
                async with asyncio.timeout(LOOK_WITHIN):
                    found = await self._server(place).client.execute_command("CLUSTER", "SLOTS")
                for shard, slot in enumerate(self._slots):
                    for first, last, (host, port, *_), *_ in found:  # the master; its replicas
                        if first <= slot <= last:
                            self._places[shard] = host or place[0], port
                self._doubted = False
                break
        self._looked = time.monotonic()


async def _evaluate(client: Any, script: Script, keys: list[str], arguments: tuple[str, ...]) -> Any:
    try:
        return await client.evalsha(script.digest, len(keys), *keys, *arguments)
    except NoScriptError:  # a server that has not run it yet, or was restarted
        return await client.eval(script.text, len(keys), *keys, *arguments)
