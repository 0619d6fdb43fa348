"""What every session store does (the first part, for any engine), and what is special to the one in an SQLite file."""

import asyncio
import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from functools import wraps
from ipaddress import IPv6Address, IPv6Network
from math import inf
from pathlib import Path
from typing import Any

import pytest

from router import store
from router.store import Change, Record, SessionStore, StoreError, open_store, sqlite
from signaling.dma.session import Session, State

PROJECT = Path(__file__).resolve().parents[2]
MAR1, MAR2 = IPv6Address("2001:db8::1"), IPv6Address("2001:db8::2")
HERE = IPv6Network("2001:db8:a1:1::/64")
THERE = IPv6Network("2001:db8:a2:1::/64")
NODE = "mn1@example.net"
SESSION = Session(
    node=NODE,
    prefix=HERE,
    anchor=MAR1,
    state=State.LOCAL,
    care_of=MAR1,
    link_layer=bytes.fromhex("020000000011"),
    technology=4,
    timestamp=111_411_200_000_000,
    expires=inf,
    valid_lifetime=7200,
)
ELSEWHERE = replace(SESSION, prefix=THERE, anchor=MAR2, state=State.HOLD, care_of=MAR2, expires=2e9, link_layer=b"")


def sync(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run a test on a loop of its own."""

    @wraps(test)
    def run(*arguments: Any, **named: Any) -> None:
        asyncio.run(asyncio.wait_for(test(*arguments, **named), 10))

    return run


@dataclass
class Engine:
    """A kind of store: how another handle on the same sessions is opened, and how its log of changes is cut."""

    open: Callable[[], SessionStore]
    cut_log: Callable[[SessionStore], Awaitable[None]]  # so that what was written before can no more be watched

    @asynccontextmanager
    async def handles(self, count: int) -> AsyncIterator[list[SessionStore]]:
        async with AsyncExitStack() as stack:
            opened = [self.open() for _ in range(count)]
            for one in opened:
                stack.push_async_callback(one.close)
            yield opened


def sqlite_engine(path: Path, monkeypatch: pytest.MonkeyPatch) -> Engine:
    async def cut_log(opened: SessionStore) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(sqlite, "LOG_LENGTH", 1)
            await store.save(opened, replace(SESSION, node="somebody@else"))

    return Engine(open=lambda: open_store(f"sqlite://{path / 'sessions.db'}"), cut_log=cut_log)


ENGINES = {"sqlite": sqlite_engine}  # another engine joins here


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Engine:
    return ENGINES[request.param](tmp_path, monkeypatch)


async def put(one: SessionStore, *sessions: Session, node: str = NODE) -> Record:
    """Write over whatever is there."""
    before = await one.get(node)
    assert await one.put_if(replace(before, sessions=sessions))
    return await one.get(node)


async def take(changes: AsyncIterator[Change], count: int) -> list[Change]:
    """The next changes, as they come."""
    return [await asyncio.wait_for(anext(changes), 5) for _ in range(count)]


# Reading and writing


@sync
async def test_a_node_nobody_wrote_has_no_sessions_and_revision_0(engine: Engine) -> None:
    async with engine.handles(1) as (one,):
        assert await one.get(NODE) == Record(node=NODE, sessions=(), revision=0)


@sync
async def test_what_was_written_is_read_field_by_field(engine: Engine) -> None:
    async with engine.handles(2) as (one, other):
        await put(one, SESSION, ELSEWHERE)
        assert (await one.get(NODE)).sessions == (SESSION, ELSEWHERE)
        assert await other.get(NODE) == await one.get(NODE)


@sync
async def test_every_state_survives(engine: Engine) -> None:
    async with engine.handles(1) as (one,):
        for state in State:
            assert (await put(one, replace(SESSION, state=state))).sessions[0].state is state


@sync
async def test_any_identifier_is_a_key_of_its_own(engine: Engine) -> None:
    names = ["a@b", "A@b", "a@b ", "ä@b", "a'; DROP TABLE record; --@b", "*@b", "a\0@b", ""]
    async with engine.handles(1) as (one,):
        for name in names:
            await put(one, replace(SESSION, node=name), node=name)
        assert [(await one.get(name)).sessions[0].node for name in names] == names


@sync
async def test_the_revision_rises_with_every_write(engine: Engine) -> None:
    async with engine.handles(1) as (one,):
        revisions = [(await put(one, replace(SESSION, timestamp=at))).revision for at in range(5)]
    assert revisions == sorted(set(revisions))
    assert revisions[0] > 0


@sync
async def test_a_write_on_a_stale_revision_is_refused_and_changes_nothing(engine: Engine) -> None:
    async with engine.handles(2) as (one, other):
        old = await put(one, SESSION)
        new = await put(other, SESSION, ELSEWHERE)
        assert not await one.put_if(replace(old, sessions=()))
        assert await one.get(NODE) == new


@sync
async def test_a_first_write_is_refused_when_somebody_was_first(engine: Engine) -> None:
    async with engine.handles(2) as (one, other):
        empty = await one.get(NODE)
        await put(other, SESSION)
        assert not await one.put_if(replace(empty, sessions=(ELSEWHERE,)))


@sync
async def test_a_record_without_sessions_is_gone(engine: Engine) -> None:
    async with engine.handles(1) as (one,):
        await put(one, SESSION)
        assert await put(one) == Record(node=NODE)


@sync
async def test_a_write_is_refused_when_the_record_went(engine: Engine) -> None:
    async with engine.handles(2) as (one, other):
        old = await put(one, SESSION)
        await put(other)
        assert not await one.put_if(old)
        assert await one.get(NODE) == Record(node=NODE)


@sync
async def test_a_write_is_refused_when_the_record_went_and_came_again(engine: Engine) -> None:
    async with engine.handles(2) as (one, other):
        old = await put(one, SESSION)
        await put(other)
        new = await put(other, SESSION)
        assert not await one.put_if(replace(old, sessions=(ELSEWHERE,)))
        assert new.revision > old.revision


@sync
async def test_sessions_are_there_after_all_handles_were_closed(engine: Engine) -> None:
    async with engine.handles(1) as (one,):
        written = await put(one, SESSION)
    async with engine.handles(1) as (one,):
        assert await one.get(NODE) == written


# save and forget, which every engine gets for nothing


@sync
async def test_save_puts_a_session_beside_the_others(engine: Engine) -> None:
    async with engine.handles(1) as (one,):
        await store.save(one, SESSION)
        await store.save(one, ELSEWHERE)
        assert set((await one.get(NODE)).sessions) == {SESSION, ELSEWHERE}


@sync
async def test_save_replaces_the_session_of_the_same_prefix(engine: Engine) -> None:
    newer = replace(SESSION, state=State.REMOTE, care_of=MAR2, expires=2e9)
    async with engine.handles(1) as (one,):
        await store.save(one, SESSION)
        await store.save(one, newer)
        assert (await one.get(NODE)).sessions == (newer,)


@sync
async def test_saving_what_is_there_writes_nothing(engine: Engine) -> None:
    async with engine.handles(1) as (one,):
        await store.save(one, SESSION)
        before = await one.get(NODE)
        await store.save(one, SESSION)
        assert await one.get(NODE) == before


@sync
async def test_forget_takes_one_session_and_the_record_with_the_last(engine: Engine) -> None:
    async with engine.handles(1) as (one,):
        await put(one, SESSION, ELSEWHERE)
        await store.forget(one, NODE, HERE)
        assert (await one.get(NODE)).sessions == (ELSEWHERE,)
        await store.forget(one, NODE, THERE)
        assert await one.get(NODE) == Record(node=NODE)


@sync
async def test_forgetting_what_is_not_there_is_no_error(engine: Engine) -> None:
    async with engine.handles(1) as (one,):
        await store.forget(one, NODE, HERE)
        assert (await one.get(NODE)).revision == 0


@sync
async def test_many_writers_of_one_node_lose_nothing(engine: Engine) -> None:
    prefixes = [IPv6Network((f"2001:db8:c1:{number:x}::", 64)) for number in range(16)]
    async with engine.handles(2) as handles:
        async with asyncio.TaskGroup() as tasks:
            for number, prefix in enumerate(prefixes):
                tasks.create_task(store.save(handles[number % 2], replace(SESSION, prefix=prefix)))
        assert {session.prefix for session in (await handles[0].get(NODE)).sessions} == set(prefixes)


@sync
async def test_writers_and_forgetters_of_one_node_leave_what_was_never_forgotten(engine: Engine) -> None:
    async with engine.handles(2) as (one, other):
        await put(one, SESSION)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(store.forget(one, NODE, HERE))
            tasks.create_task(store.save(other, ELSEWHERE))
        assert (await one.get(NODE)).sessions == (ELSEWHERE,)


@sync
async def test_a_record_that_changes_all_the_time_is_given_up_with_an_error(engine: Engine) -> None:
    async with engine.handles(1) as (one,):

        class Contended:
            async def get(self, node: str) -> Record:
                return await one.get(node)

            async def put_if(self, record: Record) -> bool:
                return False

        with pytest.raises(StoreError, match="changed 20 times"):
            await store.save(Contended(), SESSION)  # type: ignore[arg-type]


# Who has what anchored where


@sync
async def test_anchored_finds_the_sessions_of_one_router_only(engine: Engine) -> None:
    second = replace(SESSION, node="mn2@example.net", prefix=IPv6Network("2001:db8:a1:2::/64"))
    async with engine.handles(1) as (one,):
        for session in (SESSION, ELSEWHERE, second):
            await store.save(one, session)
        assert set(await one.anchored(MAR1)) == {SESSION, second}
        assert await one.anchored(MAR2) == [ELSEWHERE]


@sync
async def test_anchored_forgets_with_the_session(engine: Engine) -> None:
    async with engine.handles(1) as (one,):
        await put(one, SESSION, ELSEWHERE)
        await store.forget(one, NODE, HERE)
        assert await one.anchored(MAR1) == []
        await put(one)
        assert await one.anchored(MAR2) == []


@sync
async def test_two_prefixes_of_one_node_at_one_anchor_are_both_found(engine: Engine) -> None:
    second = replace(SESSION, prefix=THERE)
    async with engine.handles(1) as (one,):
        await put(one, SESSION, second)
        await store.forget(one, NODE, HERE)
        assert await one.anchored(MAR1) == [second]


# The end of sessions


@sync
async def test_a_held_prefix_goes_when_its_time_is_over(engine: Engine) -> None:
    async with engine.handles(1) as (one,):
        await put(one, replace(ELSEWHERE, state=State.HOLD, expires=1000.0))
        assert await one.expire(1000.0) == 0
        assert await one.expire(1000.1) == 1
        assert await one.get(NODE) == Record(node=NODE)
        assert await one.anchored(MAR2) == []


@sync
async def test_only_the_session_that_ended_goes(engine: Engine) -> None:
    async with engine.handles(1) as (one,):
        await put(one, SESSION, replace(ELSEWHERE, state=State.HOLD, expires=1000.0))
        assert await one.expire(5000.0) == 1
        assert (await one.get(NODE)).sessions == (SESSION,)
        assert await one.expire(5000.0) == 0


@sync
async def test_a_node_that_is_with_its_anchor_never_loses_its_session(engine: Engine) -> None:
    async with engine.handles(1) as (one,):
        await put(one, SESSION, replace(SESSION, prefix=THERE, state=State.HOLD, expires=1000.0))
        await one.expire(1e9)
        assert (await one.get(NODE)).sessions == (SESSION,)


@sync
async def test_a_registration_whose_anchor_is_never_heard_of_again_ends(engine: Engine) -> None:
    remote = replace(SESSION, state=State.REMOTE, care_of=MAR2, expires=1000.0, valid_lifetime=7200)
    async with engine.handles(1) as (one,):
        await put(one, remote)
        assert await one.expire(8199.0) == 0
        assert await one.expire(8201.0) == 1


@sync
async def test_a_prefix_hosts_may_still_use_is_remembered_for_its_anchor(engine: Engine) -> None:
    async with engine.handles(1) as (one,):
        await put(one, replace(SESSION, state=State.GUARD, expires=1000.0, valid_lifetime=7200))
        assert await one.expire(8199.0) == 0
        assert await one.expire(8201.0) == 1


@sync
async def test_an_expired_record_is_a_change(engine: Engine) -> None:
    async with engine.handles(1) as (one,):
        await put(one, replace(SESSION, node="first@b"), node="first@b")
        await put(one, replace(ELSEWHERE, state=State.HOLD, expires=1000.0))
        async with aclosing(one.watch(0)) as changes:
            await take(changes, 2)
            await one.expire(1001.0)
            assert [change.node for change in await take(changes, 1)] == [NODE]


# Watching


@sync
async def test_a_watcher_sees_its_own_writes_and_those_of_others_in_order(engine: Engine) -> None:
    async with engine.handles(2) as (one, other):
        await put(one, replace(SESSION, node="first@b"), node="first@b")
        async with aclosing(one.watch(0)) as changes:
            (first,) = await take(changes, 1)
            await put(one, SESSION)
            await put(other, replace(SESSION, node="mn2@b"), node="mn2@b")
            await put(other, node=NODE)
            seen = await take(changes, 3)
    assert [change.node for change in (first, *seen)] == ["first@b", NODE, "mn2@b", NODE]
    assert not any(change.resync for change in seen)
    assert [change.cursor for change in seen] == sorted({change.cursor for change in seen})


@sync
async def test_a_watcher_without_a_cursor_sees_what_comes_after_it(engine: Engine) -> None:
    async with engine.handles(2) as (one, other):
        await put(one, SESSION)
        async with aclosing(one.watch()) as changes:
            first = asyncio.ensure_future(take(changes, 1))
            while not first.done():  # until the watcher watches, what is written is before it
                await put(other, replace(SESSION, node="later@b"), node="later@b")
                await asyncio.sleep(0.01)
            assert first.result()[0].node == "later@b"


@sync
async def test_a_watcher_goes_on_where_it_was_and_misses_nothing(engine: Engine) -> None:
    async with engine.handles(2) as (one, other):
        await put(one, SESSION)
        async with aclosing(one.watch(0)) as changes:
            (last,) = await take(changes, 1)
        for name in ("a@b", "c@d"):
            await put(other, replace(SESSION, node=name), node=name)
        async with aclosing(one.watch(last.cursor)) as changes:
            assert [(change.node, change.resync) for change in await take(changes, 2)] == [
                ("a@b", False),
                ("c@d", False),
            ]


@sync
async def test_a_watcher_that_was_away_too_long_is_told_to_read_again(engine: Engine) -> None:
    async with engine.handles(1) as (one,):
        await put(one, SESSION)
        async with aclosing(one.watch(0)) as changes:
            (last,) = await take(changes, 1)
        await put(one, ELSEWHERE)
        await engine.cut_log(one)
        async with aclosing(one.watch(last.cursor)) as changes:
            (resync,) = await take(changes, 1)
            assert resync.resync
            assert resync.cursor > last.cursor
            await put(one, SESSION)
            assert [(change.node, change.resync) for change in await take(changes, 1)] == [(NODE, False)]


@sync
async def test_a_cursor_of_another_store_means_reading_again(engine: Engine) -> None:
    async with engine.handles(1) as (one,):
        await put(one, SESSION)
        async with aclosing(one.watch(1_000_000)) as changes:
            (resync,) = await take(changes, 1)
            assert resync.resync
            await put(one, ELSEWHERE)
            assert (await take(changes, 1))[0].node == NODE


# The SQLite file


WRITER = """
import asyncio, sys
from ipaddress import IPv6Network
from tests.router.test_store import SESSION, replace
from router.store import open_store, save
async def write(url, number):
    store = open_store(url)
    for at in range(10):
        await save(store, replace(SESSION, prefix=IPv6Network((f"2001:db8:{number}:{at:x}::", 64))))
    await store.close()
asyncio.run(write(*sys.argv[1:]))
"""


def test_processes_that_open_and_write_one_file_at_once_lose_nothing(tmp_path: Path) -> None:
    url = f"sqlite://{tmp_path / 'sessions.db'}"
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    command = [sys.executable, "-c", WRITER, url]
    writers = [
        subprocess.Popen([*command, str(number)], env=environment, cwd=PROJECT, stderr=subprocess.PIPE)
        for number in range(1, 4)
    ]
    failures = [writer.communicate(timeout=20)[1].decode() for writer in writers]
    assert failures == ["", "", ""]

    async def read() -> Record:
        one = open_store(url)
        try:
            return await one.get(NODE)
        finally:
            await one.close()

    assert len(asyncio.run(read()).sessions) == 30


def test_the_directory_of_a_store_is_made(tmp_path: Path) -> None:
    asyncio.run(open_store(f"sqlite://{tmp_path}/a/sessions.db").close())
    assert (tmp_path / "a" / "sessions.db").exists()


def test_a_store_far_from_all_that_is_there_is_taken_for_a_typo(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no such file or directory"):
        open_store(f"sqlite://{tmp_path}/rnu/openmar/sessions.db")
    assert list(tmp_path.iterdir()) == []


def one_line(error: pytest.ExceptionInfo[StoreError], path: Path) -> str:
    text = str(error.value)
    assert text.startswith(f"store {path}: ")
    assert "\n" not in text
    return text


def test_a_file_that_is_no_database_is_an_error_of_one_line(tmp_path: Path) -> None:
    path = tmp_path / "sessions.db"
    path.write_bytes(b"not a database, but long enough to be taken for one" * 100)
    with pytest.raises(StoreError) as error:
        open_store(f"sqlite://{path}")
    assert "not a database" in one_line(error, path)


def test_a_file_of_another_version_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "sessions.db"
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(StoreError) as error:
        open_store(f"sqlite://{path}")
    assert "schema 99" in one_line(error, path)
    assert sqlite3.connect(path).execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)


def test_a_directory_that_cannot_be_made_is_an_error_of_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    path = tmp_path / "file" / "sessions.db"
    with pytest.raises(StoreError) as error:
        open_store(f"sqlite://{path}")
    assert one_line(error, path) == f"store {path}: {tmp_path / 'file'}: file exists"


def test_a_directory_in_place_of_the_file_is_an_error_of_one_line(tmp_path: Path) -> None:
    with pytest.raises(StoreError) as error:
        open_store(f"sqlite://{tmp_path}")
    one_line(error, tmp_path)


def test_an_unknown_kind_of_store_is_told_what_there_is() -> None:
    with pytest.raises(StoreError, match=r"unknown kind 'etcd': use sqlite://PATH"):
        open_store("etcd://localhost")


@sync
async def test_a_file_that_goes_bad_while_open_is_an_error_and_no_crash(tmp_path: Path) -> None:
    path = tmp_path / "sessions.db"
    one = open_store(f"sqlite://{path}")
    with sqlite3.connect(path) as db:
        db.execute("DROP TABLE record")
    with pytest.raises(StoreError) as error:
        await one.get(NODE)
    one_line(error, path)
    with pytest.raises(StoreError):
        await one.put_if(Record(node=NODE, sessions=(SESSION,)))
    await one.close()


@sync
async def test_a_write_that_failed_leaves_the_store_usable(tmp_path: Path) -> None:
    path = tmp_path / "sessions.db"
    one = open_store(f"sqlite://{path}")
    with sqlite3.connect(path) as db:
        db.execute("CREATE TRIGGER full BEFORE INSERT ON anchored BEGIN SELECT RAISE(ROLLBACK, 'disk full'); END")
    with pytest.raises(StoreError, match="disk full"):
        await store.save(one, SESSION)
    with sqlite3.connect(path) as db:
        db.execute("DROP TRIGGER full")
    await store.save(one, SESSION)
    assert (await one.get(NODE)).sessions == (SESSION,)
    await one.close()


@pytest.mark.parametrize("text", ["{", "[1]", "{}", '[{"prefix": "x"}]', "null", json.dumps([{"prefix": "::/64"}])])
@sync
async def test_a_record_nobody_can_read_has_no_sessions_and_can_be_written_again(tmp_path: Path, text: str) -> None:
    path = tmp_path / "sessions.db"
    one = open_store(f"sqlite://{path}")
    await put(one, SESSION)
    with sqlite3.connect(path) as db:
        db.execute("UPDATE record SET sessions = ?", (text,))
    assert (await one.get(NODE)).sessions == ()
    assert await one.anchored(MAR1) == []
    await store.save(one, SESSION)
    assert (await one.get(NODE)).sessions == (SESSION,)
    await one.close()


@sync
async def test_the_log_of_changes_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "LOG_LENGTH", 5)
    path = tmp_path / "sessions.db"
    one = open_store(f"sqlite://{path}")
    for at in range(12):
        await put(one, replace(SESSION, timestamp=at))
    await one.close()
    assert sqlite3.connect(path).execute("SELECT count(*) FROM change").fetchone() == (5,)
