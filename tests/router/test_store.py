"""What is special to the store in an SQLite file; what every store does is in test_store_conformance.py."""

import asyncio
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from router.store import Record, StoreError, open_store, sqlite
from tests.on_loop import sync
from tests.router.stores import NODE, SESSION, put

PROJECT = Path(__file__).resolve().parents[2]

WRITER = """
import asyncio, sys
from ipaddress import IPv6Network
from dataclasses import replace
from tests.router.stores import SESSION
from router.store import open_store
async def write(url, number):
    store = open_store(url)
    for at in range(10):
        await store.save(replace(SESSION, prefix=IPv6Network((f"2001:db8:{number}:{at:x}::", 64))))
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
    assert str(error.value) == f"store sqlite://{tmp_path}: expected a file, and {tmp_path} is a directory"


def test_an_unknown_kind_of_store_is_told_what_there_is() -> None:
    with pytest.raises(StoreError, match="there is no kind 'etcd'"):
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
        await one.save(SESSION)
    with sqlite3.connect(path) as db:
        db.execute("DROP TRIGGER full")
    await one.save(SESSION)
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


@sync
async def test_who_writes_while_another_router_does_holds_up_nobody(tmp_path: Path) -> None:
    one = open_store(f"sqlite://{tmp_path}/sessions.db")
    with closing(sqlite3.connect(tmp_path / "sessions.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        writing = asyncio.create_task(one.save(SESSION))
        _, waits = await asyncio.wait([writing], timeout=0.1)
        assert waits
        other.execute("COMMIT")
        await writing
    assert (await one.get(NODE)).sessions == (SESSION,)
    await one.close()


@sync
async def test_the_log_beside_the_file_does_not_grow_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "MOST_IN_LOG", 10)
    monkeypatch.setattr(sqlite, "MOST_PAGES", 100)
    one, size = open_store(f"sqlite://{tmp_path}/sessions.db"), 0
    for turn in range(400):
        await one.save(replace(SESSION, timestamp=turn))
        if turn % sqlite.MOST_IN_LOG == 0:
            await one.expire(0.0)  # behind what the thread has to do
        size = max(size, (tmp_path / "sessions.db-wal").stat().st_size)
    assert size < 400 * 4096  # a page for each write would be more
    await one.close()
