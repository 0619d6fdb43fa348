"""The binding cache of an LMA on disk: what was acknowledged is there again, whatever ended the process."""

import asyncio
import os
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.errors import NoRights
from router.store import StoreError
from router.store import bindings as module
from router.store.bindings import BindingStore, pack, unpack
from router.store.restarts import LARGEST, restart_counter
from router.store.write_ahead import WriteAhead
from signaling.pmip.saved_binding import SavedBinding, SavedCareOf
from tests.eventually import until

PROJECT = Path(__file__).resolve().parents[2]
PATH = SavedCareOf(
    binding_id=1,
    care_of=IPv6Address("2001:db8::2"),
    port=5436,
    data_port=40000,
    label=7,
    technology=4,
    timestamp=1 << 47,
)
SESSION = SavedBinding(
    number=1,
    node="mn1@example.net",
    gateway="mag1",
    link_layer=b"\x02\0\0\0\0\x11",
    technology=4,
    service="internet",
    link_local=IPv6Address("fe80::1").packed,
    prefixes=(IPv6Network("2001:db8:1000:1::/64"),),
    ipv4_home=IPv4Network("10.5.0.9/32"),
    delegated=(IPv6Network("2001:db8:d000::/56"),),
    gre_keys=(1, 0xFFFFFFFF),
    care_ofs=(
        PATH,
        replace(PATH, binding_id=2, care_of=IPv4Address("192.0.2.7"), downlink_key=0, local=IPv4Address("192.0.2.1")),
    ),
    flows=b"\x01\x02",
)

VERSION_1 = bytes.fromhex(  # SESSION, as the first version of values has it
    "0104030101020f04080610000000026d6e31406578616d706c652e6e65746d616731696e7465726e6574020000000011fe80000000000000"
    "0000000000000001010200000001ffffffff8000000000000000000000ffff0a0500094020010db81000000100000000000000003820010d"
    "b8d000000000000000000000000107040000800000000000153c9c40000000000020010db800000000000000000000000200000000000000"
    "0000000000000000000207040000800000000000153c9c40010000000000000000000000000000ffffc000020700000000000000000000ff"
    "ffc0000201"
)

Work = Callable[[BindingStore], Awaitable[None]]


def run(file: Path, work: Work) -> None:
    async def main() -> None:
        store = BindingStore(file)
        try:
            await work(store)
        finally:
            await store.close(5.0)

    asyncio.run(main())


def loaded(file: Path) -> tuple[SavedBinding, ...]:
    store = BindingStore(file)
    found = tuple(store.load())
    asyncio.run(store.close(1.0))
    return found


def sessions(count: int) -> list[SavedBinding]:
    return [replace(SESSION, number=number, node=f"mn{number}@a.b") for number in range(count)]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "bindings.db"


def test_nobody_else_may_read_who_is_where(file: Path) -> None:
    modes: set[int] = set()

    async def work(store: BindingStore) -> None:
        await store.save(SESSION)
        modes.update(stat.S_IMODE(each.stat().st_mode) for each in file.parent.iterdir())

    before = os.umask(0o022)
    try:
        run(file, work)
    finally:
        os.umask(before)
    assert modes == {0o600}


def test_a_file_that_others_could_read_is_closed_to_them(file: Path) -> None:
    run(file, nothing)
    file.chmod(0o644)
    run(file, nothing)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


# What is packed


@pytest.mark.parametrize(
    "session",
    [
        SESSION,
        replace(SESSION, number=0, gre_keys=None, ipv4_home=None, delegated=(), care_ofs=(), prefixes=(), flows=b""),
        replace(SESSION, prefixes=(IPv6Network("::/0"), IPv6Network("2001:db8::1/128")), link_layer=b"", service=""),
        replace(SESSION, node="mñ@" + "x" * 200, ipv4_home=IPv4Network("10.5.0.0/16"), flows=bytes(70_000)),
    ],
    ids=["everything", "nothing", "other lengths", "long"],
)
def test_a_session_comes_back_as_it_was(session: SavedBinding) -> None:
    again = unpack(session.number, pack(session))
    assert again == session
    assert type(again) is SavedBinding
    assert all(type(path) is SavedCareOf for path in again.care_ofs)


def test_a_file_of_the_first_version_is_still_read(file: Path) -> None:
    run(file, nothing)
    with sqlite3.connect(file) as db:
        db.execute("INSERT INTO binding VALUES (1, ?)", (VERSION_1,))
    db.close()
    assert loaded(file) == (SESSION,)


def test_what_came_back_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        unpack(1, pack(SESSION)).node = "other"  # type: ignore[misc]


@given(st.binary(max_size=120))
def test_any_octets_are_a_session_or_a_value_error(octets: bytes) -> None:
    for value in (octets, pack(SESSION)[:15] + octets, pack(SESSION)[: len(octets)]):
        with suppress(ValueError):
            assert isinstance(unpack(1, value), SavedBinding)


# What is saved


def test_what_is_saved_is_loaded_in_the_order_of_numbers(file: Path) -> None:
    async def work(store: BindingStore) -> None:
        await asyncio.gather(*[store.save(each) for each in reversed(sessions(300))])

    run(file, work)
    assert loaded(file) == tuple(sessions(300))


def test_the_last_change_of_a_session_counts(file: Path) -> None:
    async def work(store: BindingStore) -> None:
        for label in range(5):
            store.save(replace(SESSION, care_ofs=(replace(PATH, label=label),)))
        store.save(replace(SESSION, number=2))
        store.forget(2)
        await store.forget(99)

    run(file, work)
    assert [(each.number, each.care_ofs[0].label) for each in loaded(file)] == [(1, 4)]


def test_a_session_that_is_forgotten_is_gone(file: Path) -> None:
    async def work(store: BindingStore) -> None:
        await store.save(SESSION)
        await store.forget(SESSION.number)

    run(file, work)
    assert loaded(file) == ()


def test_what_waits_at_the_end_is_written(file: Path) -> None:
    futures: list[asyncio.Future[None]] = []

    async def work(store: BindingStore) -> None:
        futures.extend(store.save(each) for each in sessions(50))

    run(file, work)
    assert len(loaded(file)) == 50
    assert all(future.done() for future in futures)


ACKNOWLEDGE = """
import asyncio, sys
from dataclasses import replace
from pathlib import Path
from router.store.bindings import BindingStore
from tests.router.test_binding_store import SESSION

async def main():
    store = BindingStore(Path(sys.argv[1]))
    for number in range(1_000_000):
        await asyncio.gather(*[store.save(replace(SESSION, number=number * 8 + each)) for each in range(8)])
        print(number * 8 + 7, flush=True)

asyncio.run(main())
"""


def test_a_killed_process_loses_nothing_that_was_acknowledged(file: Path) -> None:
    command = [sys.executable, "-c", ACKNOWLEDGE, str(file)]
    with subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        last = [int(process.stdout.readline()) for _ in range(40)][-1]
        process.send_signal(signal.SIGKILL)
        rest = [int(line) for line in process.stdout.read().split()]
    acknowledged = (rest or [last])[-1]
    assert {each.number for each in loaded(file)} >= set(range(acknowledged + 1))


def test_what_was_not_committed_yet_is_taken_up_by_the_next_start(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GATHER", 1000.0)

    async def work() -> None:
        store = BindingStore(file)
        store.save(SESSION)
        store.save(replace(SESSION, node="mn2@example.net"))
        store.save(replace(SESSION, number=2))
        assert store.forget(2).done()

    asyncio.run(work())
    assert [each.node for each in loaded(file)] == ["mn2@example.net"]
    assert [each.node for each in loaded(file)] == ["mn2@example.net"]


def test_a_commit_empties_the_file_that_is_written_ahead(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GATHER", 0.0)
    ahead = file.with_suffix(".ahead")

    async def work(store: BindingStore) -> None:
        store.save(SESSION)
        assert ahead.stat().st_size > 0
        await until(lambda: not ahead.stat().st_size)

    run(file, work)
    assert loaded(file) == (SESSION,)


def test_what_is_written_ahead_may_be_older_than_the_database_after_a_crash_of_the_machine(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "GATHER", 1000.0)

    async def work() -> None:
        BindingStore(file).save(SESSION)

    asyncio.run(work())
    monkeypatch.setattr(module, "_boot_id", lambda: "another")
    assert loaded(file) == ()


@given(st.lists(st.tuples(st.integers(0, 3), st.binary(max_size=40)), max_size=8), st.data())
def test_of_a_file_that_was_cut_off_the_changes_before_count(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, bytes]], data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("ahead") / "file"
    ahead = WriteAhead(path)
    assert all(ahead.append(*change) for change in changes)
    ahead.close()
    octets = path.read_bytes()
    path.write_bytes(octets[: data.draw(st.integers(0, len(octets)))] + data.draw(st.binary(max_size=20)))
    again = WriteAhead(path)
    found = list(again.changes())
    again.close()
    assert found == changes[: len(found)]


# When the disk fails


def full(monkeypatch: pytest.MonkeyPatch, store: BindingStore) -> None:
    monkeypatch.setattr(store._ahead, "append", lambda number, value: False)
    limit = store._db.execute("PRAGMA page_count").fetchone()[0] + 1
    store._db.execute(f"PRAGMA max_page_count = {limit}")
    monkeypatch.setattr(module, "RETRY_AFTER", 0.01)


def test_a_full_disk_holds_nobody_up_and_is_told_once(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    health: list[bool] = []

    async def work(store: BindingStore) -> None:
        until_it_is_back = asyncio.Event()

        def hear(reachable: bool) -> None:
            health.append(reachable)
            if reachable:
                until_it_is_back.set()

        store._on_health = hear
        full(monkeypatch, store)
        async with asyncio.timeout(5):
            for each in sessions(2000):
                await store.save(each)
            assert (store.reachable, store.unsaved > 0, health) == (False, True, [False])
            store._db.execute("PRAGMA max_page_count = 1000000")
            await until_it_is_back.wait()

    run(file, work)
    assert health == [False, True]
    assert len(loaded(file)) == 2000


@pytest.mark.parametrize(
    "removed", [("",), ("", "-wal", "-shm"), ("", "-wal", "-shm", "ahead"), ("ahead",)], ids=" ".join
)
def test_a_file_that_is_removed_while_it_is_used_is_written_anew_with_all_that_was_in_it(
    file: Path, removed: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    ahead = file.with_suffix(".ahead")
    first, second, third = sessions(3)

    async def work() -> None:
        store = BindingStore(file)
        await store.save(first)
        await until(lambda: not store.unsaved)
        for end in removed:
            (ahead if end == "ahead" else file.with_name(file.name + end)).unlink()
        await store.save(second)
        await until(lambda: not store.unsaved)
        await until(lambda: file.exists() and ahead.exists())
        await store.save(third)
        await store.close(5.0)

    asyncio.run(asyncio.wait_for(work(), 10.0))
    assert loaded(file) == (first, second, third)
    assert ("was removed: it was written anew" in caplog.text) == ("" in removed)
    assert not list(file.parent.glob("*.new"))


def test_a_file_that_is_removed_while_nothing_changes_is_written_anew(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOOK_EVERY", 0.01)

    async def work(store: BindingStore) -> None:
        await store.save(SESSION)
        await until(lambda: not store.unsaved)
        file.unlink()
        await until(file.exists)

    run(file, work)
    assert loaded(file) == (SESSION,)


def test_another_file_in_its_place_is_left_alone_and_told(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_AFTER", 0.01)

    async def work(store: BindingStore) -> None:
        await store.save(SESSION)
        await until(lambda: not store.unsaved)
        file.unlink()
        file.write_text("precious")
        store.save(replace(SESSION, number=2))
        await until(lambda: not store.reachable)
        file.unlink()
        await until(lambda: store.reachable)

    run(file, work)
    assert [each.number for each in loaded(file)] == [SESSION.number, 2]


@pytest.mark.parametrize("octets", [b"no database at all" * 100, b"\0" * 4096])
def test_a_file_that_is_damaged_is_refused_with_the_cure(file: Path, octets: bytes) -> None:
    file.write_bytes(octets)
    with pytest.raises(StoreError, match=r"bindings\.db: .*: the file is damaged: move it away"):
        BindingStore(file)


def test_a_session_that_makes_no_sense_is_refused_with_the_cure(file: Path) -> None:
    async def work(store: BindingStore) -> None:
        await store.save(SESSION)

    run(file, work)
    with sqlite3.connect(file) as db:
        db.execute("UPDATE binding SET value = substr(value, 1, 20)")
    db.close()
    store = BindingStore(file)
    with pytest.raises(StoreError, match=r"session 1 cannot be read: .*: the file is damaged: move it away"):
        tuple(store.load())
    asyncio.run(store.close(1.0))


def test_those_before_one_that_makes_no_sense_are_told_first(file: Path) -> None:
    async def work(store: BindingStore) -> None:
        for session in sessions(3):
            await store.save(session)

    run(file, work)
    with sqlite3.connect(file) as db:
        db.execute("UPDATE binding SET value = x'00' WHERE number = 1")
    db.close()
    store = BindingStore(file)
    found = store.load()
    assert next(found).number == 0
    with pytest.raises(StoreError, match=r"session 1 cannot be read: .*: the file is damaged: move it away"):
        next(found)
    asyncio.run(store.close(1.0))


def test_a_place_where_nothing_can_be_written_is_refused_with_the_cure(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="choose another place with --state-dir"):
        BindingStore(tmp_path / "nowhere" / "bindings.db")


# Whether anything is lost


async def nothing(_: BindingStore) -> None:
    """Open and close."""


def crash(file: Path) -> None:
    """Open it, and end without closing."""
    program = f"import os; from router.store.bindings import *; s = BindingStore(Path({str(file)!r})); os._exit(0)"
    subprocess.run([sys.executable, "-c", program], cwd=PROJECT, check=True)


def lost(file: Path) -> bool:
    store = BindingStore(file)
    asyncio.run(store.close(1.0))
    return store.lost


def test_a_new_file_may_have_lost_everything(file: Path) -> None:
    assert lost(file)


def test_a_file_that_was_closed_has_lost_nothing(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(file, nothing)
    file.with_name("boot").write_text("other")
    monkeypatch.setattr(module, "BOOT_ID", file.with_name("boot"))
    assert not lost(file)


def test_a_process_that_was_killed_has_lost_nothing(file: Path) -> None:
    crash(file)
    assert not lost(file)


def test_a_machine_that_crashed_may_have_lost_something(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    crash(file)
    file.with_name("boot").write_text("other")
    monkeypatch.setattr(module, "BOOT_ID", file.with_name("boot"))
    assert lost(file)


# The restart counter


def test_the_counter_rises_only_when_sessions_were_lost(tmp_path: Path) -> None:
    first = restart_counter(tmp_path / "restarts", lost=True)
    assert restart_counter(tmp_path / "restarts", lost=False) == first
    assert restart_counter(tmp_path / "restarts", lost=True) == first + 1


def test_the_counter_is_of_32_bits(tmp_path: Path) -> None:
    (tmp_path / "restarts").write_text(str(LARGEST))
    assert restart_counter(tmp_path / "restarts", lost=True) == 0


def test_a_counter_that_is_lost_does_not_begin_where_an_earlier_one_was(tmp_path: Path) -> None:
    first = restart_counter(tmp_path / "restarts", lost=True)
    for content in ("", "many", "-1"):
        (tmp_path / "restarts").write_text(content)
        assert restart_counter(tmp_path / "restarts", lost=False) >= first > 1_600_000_000


def test_a_counter_that_cannot_be_kept_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(NoRights, match="choose another --state-dir"):
        restart_counter(tmp_path / "nowhere" / "restarts", lost=True)
