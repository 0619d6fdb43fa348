"""What is special to the store on a server of the Redis protocol, and what a move costs it."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from ipaddress import IPv6Address, IPv6Network
from pathlib import Path
from typing import Any

import pytest

from router.links.attach import Identities, sighting
from router.sessions import Sessions
from router.store import SessionStore, StoreError, open_store, redis_link
from router.store import redis as redis_store
from router.store.journal import Journal
from signaling.actions import Action, FindSessions, ForgetSession, SaveSession, Send
from signaling.dma.session import State
from signaling.events import ClockStepped, DatagramReceived, Event, LinkDetached, LinkUp, SessionsFound
from signaling.roles.mar import Mar
from signaling.settings import Peer, Settings
from signaling.wire import ipv6
from signaling.wire.neighbor import RouterSolicitation
from tests.eventually import until
from tests.on_loop import sync
from tests.router.redis_servers import HERE as LOOPBACK
from tests.router.redis_servers import Servers
from tests.router.stores import ELSEWHERE, MAR2, NODE, SESSION, take, watching

BEGIN = 100.0  # s, of the roles' clock
KEY = f"openmar:{{0}}:record:{NODE}"


@asynccontextmanager
async def opened(servers: Servers, options: str = "") -> AsyncIterator[SessionStore]:
    servers.tell("FLUSHALL")
    one = open_store(servers.url + options)
    try:
        yield one
    finally:
        await one.close()


@sync
async def test_a_record_that_is_something_else_is_replaced(server: Servers) -> None:
    async with opened(server) as one:
        with server.servers[0].admin as admin:
            admin.rpush(KEY, "what", "is", "this")
        assert (await one.get(NODE)).revision == 0
        await one.save(SESSION)
        assert (await one.get(NODE)).sessions == (SESSION,)


@sync
async def test_a_record_nobody_ends_is_ended_by_the_server_and_leaves_the_index(
    server: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_store, "GRACE", 0.1)
    async with opened(server) as one:
        await one.save(replace(ELSEWHERE, state=State.HOLD, expires=time.time()))
        while (await one.get(NODE)).revision:
            await asyncio.sleep(0.01)
        assert await one.anchored(MAR2) == []
        assert await one.expire(time.time()) == 0
        with server.servers[0].admin as admin:
            assert admin.keys("*:anchor*") == []


@sync
async def test_a_record_of_a_node_with_its_anchor_stays_for_ever(server: Servers) -> None:
    async with opened(server) as one:
        await one.save(ELSEWHERE)
        with server.servers[0].admin as admin:
            assert admin.ttl(KEY) > 0
            await one.save(SESSION)
            assert admin.ttl(KEY) == -1


@sync
async def test_a_revision_does_not_come_back_when_the_server_has_lost_everything(server: Servers) -> None:
    async with opened(server) as one:
        await one.save(SESSION)
        old = await one.get(NODE)
        server.tell("FLUSHALL")
        await one.save(SESSION)
        assert (await one.get(NODE)).revision > old.revision
        assert not await one.put_if(old)


@sync
async def test_a_watcher_learns_that_the_server_has_lost_everything(server: Servers) -> None:
    async with opened(server) as one, watching(one) as changes:
        await one.save(SESSION)
        await take(changes, 1)
        server.tell("FLUSHALL")
        assert (await take(changes, 1))[0].resync


@sync
async def test_the_log_is_bounded(server: Servers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_store, "LOG_LENGTH", 5)
    async with opened(server) as one:
        for at in range(12):
            await one.save(replace(SESSION, timestamp=at))
        with server.servers[0].admin as admin:
            assert admin.xlen("openmar:{0}:log") == 5


@sync
async def test_a_write_that_comes_too_late_is_refused(server: Servers, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(server) as one:
        await one.save(SESSION)
        with monkeypatch.context() as patch:
            patch.setattr(redis_link.time, "monotonic", lambda: 0.0)  # as if it had been under way for long
            with pytest.raises(StoreError, match="too late"):
                await one.save(ELSEWHERE)
        assert (await one.get(NODE)).sessions == (SESSION,)


@sync
async def test_a_write_that_no_replica_has_does_not_count(server: Servers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_link, "REPLICATED_WITHIN", 0.05)
    async with opened(server, "?wait=1") as one:
        with pytest.raises(StoreError, match=r"0 of 1 replicas have it"):
            await one.save(SESSION)


@sync
async def test_a_shard_that_has_moved_is_followed(cluster: Servers) -> None:
    many = [replace(SESSION, node=f"mn{number}@example.net") for number in range(40)]
    async with opened(cluster) as one:
        assert isinstance(one, redis_store.RedisStore)
        await one.get(NODE)
        first = one._link._places[0]
        one._link._places = [first] * redis_store.SHARDS  # as if all had been there when they were looked for
        for session in many:
            await one.save(session)
        assert sorted(await one.anchored(SESSION.anchor), key=str) == sorted(many, key=str)
        assert len(set(one._link._places)) == 3


@sync
async def test_databases_of_one_server_are_stores_of_their_own(server: Servers) -> None:
    async with opened(server, "/1") as one, opened(server, "/2") as other:
        await one.save(SESSION)
        assert (await other.get(NODE)).sessions == ()


@sync
async def test_a_password_is_asked_for_and_never_shown(server: Servers) -> None:
    server.tell("ACL", "SETUSER", "mar", "on", ">se:cr@et", "~*", "+@all")
    for secret, right in (("se%3Acr%40et", True), ("wrong-secret", False)):
        one = open_store(f"redis://mar:{secret}@{LOOPBACK}:{server.servers[0].port}")
        if right:
            assert (await one.get("nobody@b")).revision == 0
        else:
            with pytest.raises(StoreError, match=r"redis://mar:\*\*\*@") as error:
                await one.get("nobody@b")
            assert secret not in str(error.value)
        await one.close()


def test_without_the_client_library_it_is_told_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "router.store.redis")
    monkeypatch.setitem(sys.modules, "redis.exceptions", None)
    with pytest.raises(StoreError, match=r"store redis://host: needs .* pip install 'openmar\[redis\]'"):
        open_store("redis://host")


@sync
async def test_a_server_that_is_not_there_is_an_error_of_one_line() -> None:
    one = open_store("redis://127.0.0.1:1")
    with pytest.raises(StoreError) as error:
        await one.get(NODE)
    assert str(error.value).startswith("store redis://127.0.0.1:1: ")
    assert "\n" not in str(error.value)
    await one.close()


# What a move costs


@dataclass
class Routers:
    """Roles whose messages are delivered at once, each with its sessions in the same store."""

    mars: dict[IPv6Address, Mar]
    sessions: dict[IPv6Address, Sessions] = field(default_factory=dict)
    now: float = BEGIN
    node: str = ""

    def feed(self, at: Any, event: Event) -> None:
        self.perform(at, self.mars[at].handle(event, self.now))

    def perform(self, at: IPv6Address, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case SaveSession(session=session):
                    self.sessions[at].save(session)
                case ForgetSession(node=node, prefix=prefix):
                    self.sessions[at].forget(node, prefix)
                case FindSessions(node=node):
                    self.sessions[at].find(node)
                case Send(octets=octets, destination=to):
                    self.feed(to, DatagramReceived(octets=octets, source=at, destination=to))
                case _:
                    pass

    def attach(self, at: IPv6Address) -> None:
        self.now += 1.0
        packet = ipv6.carry(RouterSolicitation(), IPv6Address("fe80::1"), IPv6Address("ff02::2"))
        seen = sighting(packet, bytes.fromhex("020000000001"), Identities({}, "b"), "acc0")
        assert seen is not None
        self.node = seen.node
        self.feed(at, seen)

    def detach(self, at: IPv6Address) -> None:
        self.now += 1.0
        self.feed(at, LinkDetached(node=self.node, reason="test"))

    def settled(self, at: IPv6Address, visited: int) -> bool:
        """Whether so many older prefixes have followed the node, and all of that is written."""
        return len(self.mars[at].registrar.visited(self.node)) == visited and not any(
            one.unsaved for one in self.sessions.values()
        )


def mar(number: int, addresses: list[IPv6Address]) -> Mar:
    peers = tuple(Peer(name=str(at), address=at, key=bytes(16)) for at in addresses if at != addresses[number])
    pool = IPv6Network((f"2001:db8:a{number}::", 48))
    one = Mar(Settings(address=addresses[number], tunnel_mtu=1280, peers=peers, pools=(pool,)))
    one.handle(ClockStepped(wall_minus_monotonic=time.time()), BEGIN)
    one.handle(LinkUp(interface="acc0", link_layer=bytes(6), mtu=1500), BEGIN)
    return one


@asynccontextmanager
async def domain(one: SessionStore, count: int, directory: Path) -> AsyncIterator[Routers]:
    addresses = [IPv6Address(f"2001:db8::{number + 1}") for number in range(count)]
    routers = Routers({at: mar(number, addresses) for number, at in enumerate(addresses)})
    for at in addresses:

        def found(node: str, sessions: Any, at: IPv6Address = at) -> None:
            routers.feed(at, SessionsFound(node=node, sessions=sessions))

        journal = Journal(directory / str(at))
        journal.open()
        routers.sessions[at] = Sessions(one, on_found=found, on_health=lambda *_: None, journal=journal)
        routers.sessions[at].watch(routers.mars[at].access.attached)
    try:
        yield routers
    finally:
        for sessions in routers.sessions.values():
            await sessions.close(0.0)


class Counted:
    """A store that counts what it is asked."""

    def __init__(self, store: SessionStore) -> None:
        self._store = store
        self.operations: list[str] = []

    def __getattr__(self, name: str) -> Any:
        if name in ("get", "put_if", "save", "forget", "anchored", "expire"):
            self.operations.append(name)
        return getattr(self._store, name)


@sync
async def test_a_move_costs_three_operations_however_many_anchors_there_are(server: Servers, tmp_path: Path) -> None:
    async with opened(server) as one:
        counted = Counted(one)
        async with domain(counted, 4, tmp_path) as it:  # type: ignore[arg-type]
            first, second, third, fourth = it.mars
            it.attach(first)
            await until(lambda: it.settled(first, 0) and counted.operations.count("save") == 1)
            moves = ((first, second, 1), (second, first, 1), (first, third, 2), (third, fourth, 3), (fourth, second, 3))
            for here, there, older in moves:
                counted.operations.clear()
                it.detach(here)
                it.attach(there)
                await until(lambda at=there, older=older: it.settled(at, older))
                assert sorted(counted.operations) == ["get", "save", "save"]

