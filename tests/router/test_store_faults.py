"""What goes wrong with a store, done to real ones: calls end in time, nothing accepted is lost, all is well afterwards.

Servers are killed, restarted with and without their data, stopped, slowed down, cut off, full; a file is locked, full.
"""

import asyncio
import os
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from ipaddress import IPv6Network
from pathlib import Path

import pytest

from router import sessions as sessions_module
from router.sessions import Sessions
from router.store import SessionStore, StoreError, StoreFullError, open_store, redis_link, sqlite
from router.store.journal import Journal
from router.store.late import LateStore
from signaling.dma.session import Session
from tests.eventually import until
from tests.on_loop import sync
from tests.router.redis_servers import Servers
from tests.router.stores import ELSEWHERE, MAR1, NODE, SESSION

BOUND = redis_link.CALL_WITHIN + 1.5  # s a call may take, on a busy machine
LOOP_LAG = 0.2  # s the loop may be held up, more than the machine holds up everybody
AT_ONCE = 0.5  # s for what waits for no store


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiting as in earnest, but shorter."""
    for name, seconds in {"LISTEN_WITHIN": 0.2, "LOOK_EVERY": 0.1}.items():
        monkeypatch.setattr(redis_link, name, seconds)
    for name, seconds in {"RETRY_FIRST": 0.05, "RETRY_MOST": 0.2, "LEFT_FOR_GOOD": 0.1}.items():
        monkeypatch.setattr(sessions_module, name, seconds)
    monkeypatch.setattr(sqlite, "WRITE_WITHIN", 0.2)
    monkeypatch.setattr(sqlite, "WATCH_EVERY", 0.05)


@pytest.fixture(scope="module")
def proxied() -> bool:
    return True


# Faults


@dataclass
class Fault:
    """How a store is broken and mended.

    reads: whether it can be read in the meantime; full: and has no room. forgets: what it had is gone.
    """

    url: str
    begin: Callable[[], None]
    end: Callable[[], None]
    reads: bool = False
    full: bool = False
    forgets: bool = False
    around: Callable[[], AbstractAsyncContextManager[None]] = nullcontext  # as long as it is used


def killed(servers: Servers) -> tuple[Callable[[], None], Callable[[], None]]:
    return servers.kill, servers.start


def emptied(servers: Servers) -> tuple[Callable[[], None], Callable[[], None]]:
    def begin() -> None:
        servers.kill()
        servers.lose_data()

    return begin, servers.start


def paused(servers: Servers) -> tuple[Callable[[], None], Callable[[], None]]:
    return servers.pause, servers.resume


def slow(servers: Servers) -> tuple[Callable[[], None], Callable[[], None]]:
    return lambda: servers.slow(2.0), lambda: servers.slow(0.0)


def cut(servers: Servers) -> tuple[Callable[[], None], Callable[[], None]]:
    return servers.cut, servers.heal


def full(servers: Servers) -> tuple[Callable[[], None], Callable[[], None]]:
    return servers.fill, servers.empty


OF_SERVERS = {function.__name__: function for function in (killed, emptied, paused, slow, cut, full)}


def of_servers(servers: Servers, name: str) -> Fault:
    servers.tell("FLUSHALL")
    begin, end = OF_SERVERS[name](servers)
    is_full = name == "full"
    return Fault(
        servers.url,
        begin,
        end,
        reads=is_full,
        full=is_full,
        forgets=name == "emptied",
        around=lambda: servers.reachable(),
    )


def locked(path: Path) -> Fault:
    """Another process writes, and does not end."""
    holder = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    return Fault(
        f"sqlite://{path}",
        begin=lambda: bool(holder.execute("BEGIN EXCLUSIVE")),
        end=lambda: bool(holder.execute("ROLLBACK")),
        reads=True,
    )


FAULTS = [
    *(f"{kind}-{name}" for kind in ("server", "cluster") for name in OF_SERVERS),
    "sqlite-locked",
]


@pytest.fixture(params=FAULTS)
def fault(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Fault]:
    kind, name = request.param.split("-")
    if kind == "sqlite":
        yield locked(tmp_path / "sessions.db")
        return
    servers = request.getfixturevalue(kind)
    yield of_servers(servers, name)


# What is looked at


@asynccontextmanager
async def responsive() -> AsyncIterator[None]:
    """The loop goes on all the time, as far as the machine lets anybody."""
    of_loop, of_machine, over = [0.0], [0.0], threading.Event()

    async def tick() -> None:
        while True:
            began = time.monotonic()
            await asyncio.sleep(0.01)
            of_loop.append(time.monotonic() - began - 0.01)

    def tick_beside() -> None:
        began = time.monotonic()
        while not over.wait(0.01):
            of_machine.append(time.monotonic() - began - 0.01)
            began = time.monotonic()

    ticker, beside = asyncio.create_task(tick()), threading.Thread(target=tick_beside)
    beside.start()
    try:
        yield
    finally:
        ticker.cancel()
        over.set()
        beside.join()
    assert max(of_loop) < max(of_machine) + LOOP_LAG


async def in_thread(change: Callable[[], None]) -> None:
    """Break or mend: what waits for servers must not hold up the loop that is being watched."""
    await asyncio.to_thread(change)


async def works(call: Callable[[], Awaitable[object]]) -> bool:
    try:
        await call()
    except StoreError:
        return False
    return True


async def until_it_works(call: Callable[[], Awaitable[object]]) -> None:
    deadline = time.monotonic() + 15
    while not await works(call):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


@asynccontextmanager
async def store_of(fault: Fault) -> AsyncIterator[SessionStore]:
    async with fault.around():
        one = open_store(fault.url)
        try:
            yield one
        finally:
            await one.close()


@dataclass
class Router:
    """What a router has to do with a store."""

    sessions: Sessions
    found: dict[str, tuple[Session, ...] | None] = field(default_factory=dict)
    restored: list[tuple[Session, ...]] = field(default_factory=list)
    health: list[bool] = field(default_factory=list)


@asynccontextmanager
async def router(one: SessionStore, directory: Path) -> AsyncIterator[Router]:
    found: dict[str, tuple[Session, ...] | None] = {}
    restored: list[tuple[Session, ...]] = []
    health: list[bool] = []
    sessions = Sessions(
        one,
        on_found=found.__setitem__,
        on_health=lambda reachable, full: health.append(reachable and not full),
        on_restored=restored.append,
        journal=Journal(directory / "lent.journal"),
    )
    try:
        yield Router(sessions, found, restored, health)
    finally:
        await sessions.close(0.0)


def lent(number: int) -> Session:
    return replace(SESSION, node=f"mn{number}@example.net", prefix=IPv6Network((f"2001:db8:{number + 1:x}::", 64)))


@asynccontextmanager
async def store_of_another(fault: Fault) -> AsyncIterator[SessionStore]:
    """Of another router; the proxies serve already."""
    one = open_store(fault.url)
    try:
        yield one
    finally:
        await one.close()


async def until_true(read: Callable[[], Awaitable[set[Session]]], expected: set[Session]) -> None:
    """Read until that is what is there."""
    deadline = time.monotonic() + 15
    found: set[Session] = set()
    while found != expected:
        assert time.monotonic() < deadline, (found - expected, expected - found)
        with suppress(StoreError):
            found = await read()
        await asyncio.sleep(0.01)


async def stored(one: SessionStore) -> set[Session]:
    return set(await one.anchored(MAR1))


# Each sentence, for each fault


@sync
async def test_calls_end_within_their_bound(fault: Fault) -> None:
    async with store_of(fault) as one:
        await until_it_works(lambda: one.save(SESSION))
        record = await one.get(NODE)
        await in_thread(fault.begin)
        writes = (
            lambda: one.save(replace(SESSION, timestamp=1)),
            lambda: one.put_if(replace(record, sessions=(ELSEWHERE,))),
        )
        reads = (lambda: one.get(NODE), lambda: one.anchored(MAR1), lambda: one.expire(0.0), lambda: anext(one.watch()))
        async with responsive():
            began = time.monotonic()
            calls = writes if fault.reads else (*writes, *reads)
            failures = await asyncio.gather(*(call() for call in calls), return_exceptions=True)
            assert time.monotonic() - began < BOUND
        assert all(isinstance(failure, StoreError) for failure in failures)
        assert len(failures) == len(calls)
        assert not [failure for failure in failures if "\n" in str(failure)]
        await in_thread(fault.end)
        await until_it_works(lambda: one.save(ELSEWHERE))


@sync
async def test_a_write_that_has_failed_does_not_happen_later(fault: Fault) -> None:
    async with store_of(fault) as one:
        await until_it_works(lambda: one.save(SESSION))
        await in_thread(fault.begin)
        assert not await works(lambda: one.save(replace(SESSION, timestamp=1)))
        await in_thread(fault.end)
        await until_it_works(lambda: one.save(ELSEWHERE))
        assert set((await one.get(NODE)).sessions) == ({ELSEWHERE} if fault.forgets else {SESSION, ELSEWHERE})


@sync
async def test_what_was_accepted_meanwhile_is_in_the_store_when_it_is_back(fault: Fault, tmp_path: Path) -> None:
    before, after = {lent(number) for number in range(5)}, {lent(number) for number in range(5, 15)}
    gone = lent(2)
    async with store_of(fault) as one, router(one, tmp_path) as it:
        await until_it_works(lambda: it.sessions.restore(MAR1))
        it.sessions.watch(set())
        for session in before:
            it.sessions.save(session)
        await until(lambda: it.sessions.unsaved == 0)
        await in_thread(fault.begin)
        async with responsive():
            began = time.monotonic()
            for session in after:
                await it.sessions.save(session)
            await it.sessions.forget(gone.node, gone.prefix)
            assert time.monotonic() - began < AT_ONCE  # the journal has it: nobody waits
            await until(lambda: it.health and not it.health[-1])
            assert (it.sessions.reachable, it.sessions.full) == (fault.full, fault.full)
            assert it.sessions.unsaved >= 10  # a full store may forget
        await in_thread(fault.end)
        await until(lambda: it.sessions.unsaved == 0 and it.health[-1], what="everything is written")
        expected = before - {gone} | after
        await until_true(lambda: stored(one), expected)
        await until(lambda: it.sessions.reachable and it.health[-1])  # what was under way may still fail


@sync
async def test_a_look_up_is_answered_in_time_and_a_node_is_served_without(fault: Fault, tmp_path: Path) -> None:
    if fault.reads:
        return  # it answers: see the look-up of everyday
    async with store_of(fault) as one, router(one, tmp_path) as it:
        await until_it_works(lambda: it.sessions.restore(MAR1))
        await in_thread(fault.begin)
        began = time.monotonic()
        for number in range(100):  # all nodes at once
            it.sessions.find(f"mn{number}@example.net")
        await until(lambda: len(it.found) == 100)
        assert time.monotonic() - began < BOUND
        assert set(it.found.values()) == {None}
        assert not it.sessions.reachable
        await in_thread(fault.end)


@sync
async def test_a_change_after_it_is_noticed_by_who_watched_before(fault: Fault, tmp_path: Path) -> None:
    async with store_of(fault) as one, router(one, tmp_path) as it, store_of_another(fault) as other:
        await until_it_works(lambda: it.sessions.restore(MAR1))
        it.sessions.watch({NODE})
        await until(lambda: NODE in it.found)
        await in_thread(fault.begin)
        if not fault.reads:
            await until(lambda: not it.sessions.reachable)
        await in_thread(fault.end)
        await until_it_works(lambda: other.save(ELSEWHERE))
        await until(lambda: it.found[NODE] == (ELSEWHERE,))


@sync
async def test_a_router_that_starts_meanwhile_knows_what_it_has_lent_and_takes_the_rest_up_later(
    fault: Fault, tmp_path: Path
) -> None:
    known, unknown = lent(1), lent(2)  # unknown: to its journal, whose disk was full
    async with store_of(fault) as one:
        async with router(one, tmp_path) as it:
            await until_it_works(lambda: it.sessions.restore(MAR1))
            await it.sessions.save(known)
            await until(lambda: it.sessions.unsaved == 0)
        await one.save(unknown)
        await in_thread(fault.begin)
        async with router(one, tmp_path) as it:
            began = time.monotonic()
            await until_it_works(lambda: it.sessions.restore(MAR1))
            assert time.monotonic() - began < BOUND
            it.sessions.watch(set())
            if not fault.reads:
                assert it.restored == [(known,)]
                assert (it.sessions.restored, it.sessions.reachable) == (False, False)
            third = lent(3)
            it.sessions.save(third)
            await in_thread(fault.end)
            await until(lambda: it.sessions.restored and it.sessions.unsaved == 0 and it.sessions.reachable)
            expected = {known, third} if fault.forgets else {known, unknown, third}
            await until_true(lambda: stored(one), expected)
            assert expected - {third} <= set(it.restored[-1])


@sync
async def test_a_first_start_needs_the_store_once(fault: Fault, tmp_path: Path) -> None:
    if fault.reads:
        return
    async with store_of(fault) as one:
        await in_thread(fault.begin)
        for _ in range(2):  # a start that failed is not a first one
            async with router(one, tmp_path) as it:
                with pytest.raises(StoreError):
                    await it.sessions.restore(MAR1)
        await in_thread(fault.end)


# Faults of some only


@sync
async def test_one_server_of_a_cluster_away_delays_nothing_at_the_others(cluster: Servers, tmp_path: Path) -> None:
    cluster.tell("FLUSHALL")
    many = {lent(number) for number in range(60)}
    async with cluster.reachable():
        one = open_store(cluster.url)
        async with router(one, tmp_path) as it:
            await until_it_works(lambda: it.sessions.restore(MAR1))
            await in_thread(cluster.servers[1].kill)
            for session in many:
                it.sessions.save(session)
            await until(lambda: 0 < it.sessions.unsaved < 30 and not it.sessions.reachable)
            await in_thread(cluster.start)
            await until(lambda: it.sessions.unsaved == 0 and it.sessions.reachable)
            await until_true(lambda: stored(one), many)
        await one.close()


@sync
async def test_a_router_that_was_cut_off_learns_what_others_have_written(server: Servers, tmp_path: Path) -> None:
    server.tell("FLUSHALL")
    async with server.reachable():
        one, other = open_store(server.url), open_store(f"redis://127.0.0.1:{server.servers[0].port}")
        async with router(one, tmp_path) as it:
            await until_it_works(lambda: it.sessions.restore(MAR1))
            it.sessions.watch({NODE})
            await until(lambda: NODE in it.found)
            server.cut()
            await until(lambda: not it.sessions.reachable)
            await other.save(ELSEWHERE)
            server.heal()
            await until(lambda: it.found[NODE] == (ELSEWHERE,))
        await one.close()
        await other.close()


@sync
async def test_a_full_server_still_forgets(server: Servers) -> None:
    server.tell("FLUSHALL")
    async with server.reachable():
        one = open_store(server.url)
        await until_it_works(lambda: one.save(SESSION))
        await until_it_works(lambda: one.save(ELSEWHERE))
        server.fill()
        await one.forget(NODE, SESSION.prefix)
        assert (await one.get(NODE)).sessions == (ELSEWHERE,)
        with pytest.raises(StoreFullError) as refused:
            await one.save(SESSION)
        cure = "the store is full: give it more memory (maxmemory), or take out what others keep there"
        assert str(refused.value) == f"store {server.url}: {cure}"
        assert await one.anchored(MAR1) == []
        server.empty()
        await one.close()


@sync
async def test_a_file_on_a_full_disk_takes_nothing_and_goes_on_when_there_is_room(tmp_path: Path) -> None:
    many = {lent(number) for number in range(200)}
    one = sqlite.SqliteStore(tmp_path / "sessions.db")
    async with router(one, tmp_path) as it:
        await until_it_works(lambda: it.sessions.restore(MAR1))
        assert one._file is not None
        writers = one._file.writer, one._file.at_once
        pages = writers[0].execute("PRAGMA page_count").fetchone()[0]
        for each in writers:
            each.execute(f"PRAGMA max_page_count = {pages}")
        async with responsive():
            for session in many:
                await it.sessions.save(session)
            await until(lambda: it.sessions.full)
            assert it.sessions.reachable
        for each in writers:
            each.execute("PRAGMA max_page_count = 1000000")
        await until(lambda: it.sessions.unsaved == 0 and not it.sessions.full)
        assert await stored(one) == many
    await one.close()


# A file that another one takes the place of


def remove(path: Path) -> None:
    """With what lies beside it."""
    for file in path.parent.glob(f"{path.name}*"):
        file.unlink()


def remove_alone(path: Path) -> None:
    """What lies beside it stays."""
    path.unlink()


def replace_by_another(path: Path) -> None:
    """A store that has more in it, and not of this domain."""
    remove(path)
    path.with_name("other.db").rename(path)


async def fill_another(path: Path) -> None:
    other = open_store(f"sqlite://{path.with_name('other.db')}")
    for number in range(100, 120):
        await other.save(replace(ELSEWHERE, node=f"mn{number}@example.org"))
    await other.close()


@pytest.mark.parametrize("lose", [remove, remove_alone, replace_by_another])
@sync
async def test_a_file_that_went_is_made_again_with_all_that_its_routers_have_lent(
    lose: Callable[[Path], None], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, homes = tmp_path / "sessions.db", [tmp_path / name for name in ("one", "two")]
    for home in homes:
        home.mkdir()
    one, other = (open_store(f"sqlite://{path}") for _ in homes)
    async with router(one, homes[0]) as it, router(other, homes[1]) as neighbour:
        await it.sessions.restore(MAR1)
        await neighbour.sessions.restore(ELSEWHERE.anchor)
        it.sessions.watch({NODE})
        neighbour.sessions.watch(set())
        it.sessions.save(lent(11))
        neighbour.sessions.save(ELSEWHERE)
        await until(lambda: it.sessions.unsaved == neighbour.sessions.unsaved == 0)
        await fill_another(path)
        lose(path)  # and no store looks meanwhile
        it.sessions.save(lent(12))
        later = open_store(f"sqlite://{path}")
        await until_true(lambda: stored(later), {lent(11), lent(12)})
        await until_true(lambda: stored(one), {lent(11), lent(12)})
        await until(lambda: it.found.get(NODE) == (ELSEWHERE,), what="the neighbour has written what it has lent")
        await later.save(replace(ELSEWHERE, timestamp=ELSEWHERE.timestamp + 1))
        await until(lambda: it.found[NODE] == (replace(ELSEWHERE, timestamp=ELSEWHERE.timestamp + 1),))
        assert (it.health, neighbour.health) == ([], [])
    await asyncio.gather(one.close(), other.close(), later.close())
    told = [record.getMessage() for record in caplog.records]
    assert told == [f"store {path}: {sqlite.REPLACED}"] * 2


@pytest.mark.parametrize("by", [None, "other.db"])
@sync
async def test_the_log_of_a_file_that_went_is_not_taken_for_that_of_the_next(by: str | None, tmp_path: Path) -> None:
    path = tmp_path / "sessions.db"
    one = open_store(f"sqlite://{path}")
    await one.save(SESSION)
    with open(f"{path}-wal", "rb") as log, open(f"{path}-shm", "rb") as index:
        if by is None:
            path.unlink()
        else:
            other = open_store(f"sqlite://{tmp_path / by}")
            await other.save(ELSEWHERE)
            await other.close()
            (tmp_path / by).rename(path)
        assert (await one.get(NODE)).sessions == (() if by is None else (ELSEWHERE,))
        assert [os.fstat(file.fileno()).st_nlink for file in (log, index)] == [0, 0]
    await one.close()


@sync
async def test_a_file_that_went_and_cannot_be_made_again_is_a_store_that_is_away(tmp_path: Path) -> None:
    path = tmp_path / "place" / "sessions.db"
    one = open_store(f"sqlite://{path}")
    async with router(one, tmp_path) as it:
        await it.sessions.restore(MAR1)
        it.sessions.watch(set())
        it.sessions.save(lent(1))
        await until(lambda: it.sessions.unsaved == 0)
        remove(path)
        path.parent.rmdir()
        path.parent.write_text("no directory")
        await until(lambda: not it.sessions.reachable)
        assert it.sessions.peek(lent(1).node) is None
        it.sessions.save(lent(2))
        path.parent.unlink()
        await until(lambda: it.sessions.reachable and it.sessions.unsaved == 0)
        await until_true(lambda: stored(one), {lent(1), lent(2)})
    await one.close()


@sync
async def test_a_file_that_cannot_be_opened_at_the_start_is_opened_later(tmp_path: Path) -> None:
    path, elsewhere = tmp_path / "place" / "sessions.db", tmp_path / "elsewhere"
    first = open_store(f"sqlite://{path}")
    async with router(first, tmp_path) as it:
        await until_it_works(lambda: it.sessions.restore(MAR1))
        await it.sessions.save(lent(1))
        await until(lambda: it.sessions.unsaved == 0)
    await first.close()
    path.parent.rename(elsewhere)
    path.parent.write_text("no directory")
    late = LateStore(f"sqlite://{path}")
    async with router(late, tmp_path) as it:
        await until_it_works(lambda: it.sessions.restore(MAR1))
        it.sessions.watch(set())
        assert it.restored == [(lent(1),)]
        it.sessions.save(lent(2))
        path.parent.unlink()
        elsewhere.rename(path.parent)
        await until(lambda: it.sessions.restored and it.sessions.unsaved == 0)
        assert await stored(late) == {lent(1), lent(2)}
    await late.close()
