"""Sessions on their way to a store that is fast, slow, or away: nothing that was accepted is lost."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from ipaddress import IPv6Address, IPv6Network
from math import inf
from pathlib import Path

import pytest

from router import sessions as module
from router.sessions import Nodes, Sessions, may_wait
from router.store import Change, Record, StoreError, merged
from router.store.journal import Journal
from signaling.dma.session import Session, State
from tests.eventually import until
from tests.on_loop import sync

ANCHOR = IPv6Address("2001:db8::1")
SESSION = Session(
    node="mn1@example.net",
    prefix=IPv6Network("2001:db8:a1:1::/64"),
    anchor=ANCHOR,
    state=State.LOCAL,
    care_of=ANCHOR,
    link_layer=b"",
    technology=4,
    timestamp=0,
    expires=inf,
    valid_lifetime=7200,
)
SECOND = replace(SESSION, prefix=IPv6Network("2001:db8:a1:2::/64"))


class FakeStore:
    """Sessions in memory. It is away while `away`, and answers only while `answers` is set."""

    def __init__(self) -> None:
        self.records: dict[str, Record] = {}
        self.written: list[Record] = []  # in order
        self.away = False
        self.answers = asyncio.Event()
        self.answers.set()
        self.changes: asyncio.Queue[Change] = asyncio.Queue()
        self.watched_from: list[str | None] = []
        self.refused: set[str] = set()  # nodes whose records it does not take

    async def _answer(self) -> None:
        await self.answers.wait()
        if self.away:
            raise StoreError("store fake: away")

    def peek(self, node: str) -> Record | None:
        return None  # it has to be asked

    async def get(self, node: str) -> Record:
        await self._answer()
        return self.records.get(node, Record(node=node))

    async def put_if(self, record: Record) -> bool:
        await self._answer()
        if self.records.get(record.node, Record(node=record.node)).revision != record.revision:
            return False
        self.written.append(record)
        self.records[record.node] = replace(record, revision=record.revision + 1)
        return True

    async def save(self, session: Session) -> None:
        await self._merge(session.node, session.prefix, session)

    async def forget(self, node: str, prefix: IPv6Network) -> None:
        await self._merge(node, prefix, None)

    async def _merge(self, node: str, prefix: IPv6Network, session: Session | None) -> None:
        if node in self.refused:
            raise StoreError("store fake: away")
        record = await self.get(node)
        sessions = merged(record.sessions, prefix, session)
        if sessions != record.sessions:
            await self.put_if(replace(record, sessions=sessions))

    async def anchored(self, anchor: IPv6Address) -> list[Session]:
        await self._answer()
        return [one for record in self.records.values() for one in record.sessions if one.anchor == anchor]

    async def watch(self, cursor: str | None = None) -> AsyncGenerator[Change, None]:
        self.watched_from.append(cursor)
        if cursor is None:
            await self._answer()
            yield Change(node="", cursor="0", resync=True)
        while True:
            change = await self.changes.get()
            if self.away:
                raise StoreError("store fake: away")
            yield change

    async def expire(self, now: float) -> int:
        return 0

    async def close(self) -> None:
        return

    def of(self, node: str = SESSION.node) -> set[Session]:
        return set(self.records[node].sessions) if node in self.records else set()


@dataclass
class Bench:
    store: FakeStore
    sessions: Sessions
    found: list[tuple[str, tuple[Session, ...] | None]] = field(default_factory=list)
    health: list[bool] = field(default_factory=list)


@asynccontextmanager
async def opened(
    journal: Journal | None = None, on_restored: Callable[[tuple[Session, ...]], None] = lambda _: None
) -> AsyncIterator[Bench]:
    if journal is not None:
        journal.open()
    store = FakeStore()
    found: list[tuple[str, tuple[Session, ...] | None]] = []
    health: list[bool] = []
    sessions = Sessions(
        store,
        on_found=lambda node, sessions: found.append((node, sessions)),
        on_health=lambda reachable, full: health.append(reachable and not full),
        on_restored=on_restored,
        journal=journal,
    )
    try:
        yield Bench(store, sessions, found, health)
    finally:
        store.answers.set()
        await sessions.close(0.0)


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiting as in earnest, but shorter."""
    monkeypatch.setattr(module, "ANSWER_WITHIN", 0.05)
    monkeypatch.setattr(module, "RETRY_FIRST", 0.01)
    monkeypatch.setattr(module, "RETRY_MOST", 0.04)


# Writing


@sync
async def test_a_saved_session_is_in_the_store_when_its_future_is_done() -> None:
    async with opened() as bench:
        await bench.sessions.save(SESSION)
        assert bench.store.of() == {SESSION}
        assert bench.sessions.unsaved == 0


@sync
async def test_a_forgotten_session_is_out_of_the_store_when_its_future_is_done() -> None:
    async with opened() as bench:
        await bench.sessions.save(SESSION)
        await bench.sessions.save(SECOND)
        await bench.sessions.forget(SESSION.node, SESSION.prefix)
        assert bench.store.of() == {SECOND}


@sync
async def test_the_last_word_about_a_session_stays() -> None:
    async with opened() as bench:
        for at in range(5):
            bench.sessions.save(replace(SESSION, timestamp=at))
            bench.sessions.forget(SESSION.node, SESSION.prefix)
        await bench.sessions.save(replace(SESSION, timestamp=5))
        assert bench.store.of() == {replace(SESSION, timestamp=5)}


@sync
async def test_what_changes_while_it_is_being_written_is_written_again() -> None:
    async with opened() as bench:
        bench.store.answers.clear()
        first = bench.sessions.save(SESSION)
        await asyncio.sleep(0)  # the writer asks the store now
        second = bench.sessions.save(replace(SESSION, timestamp=1))
        bench.store.answers.set()
        await first
        await second
        await until(lambda: bench.sessions.unsaved == 0)
        assert bench.store.of() == {replace(SESSION, timestamp=1)}


@sync
async def test_sessions_are_written_in_the_order_in_which_they_were_given() -> None:
    prefixes = [IPv6Network((f"2001:db8:c1:{number:x}::", 64)) for number in range(8)]
    async with opened() as bench:
        futures = [bench.sessions.save(replace(SESSION, prefix=prefix)) for prefix in prefixes]
        await futures[-1]
        assert [record.sessions[-1].prefix for record in bench.store.written] == prefixes
        assert all(future.done() for future in futures)


@sync
async def test_an_acknowledgement_waits_for_a_slow_store_no_longer_than_it_may() -> None:
    async with opened() as bench:
        bench.store.answers.clear()
        began, loop = time.monotonic(), asyncio.get_running_loop()
        saving = asyncio.ensure_future(bench.sessions.save(SESSION))
        late: list[bool] = []  # however late the loop is, what is due first runs first
        loop.call_later(module.DURABLE_WITHIN + 0.2, lambda: late.append(not saving.done()))
        await saving
        assert time.monotonic() - began > module.DURABLE_WITHIN * 0.9
        await until(lambda: late)
        assert late == [False]
        assert bench.sessions.unsaved == 1
        bench.store.answers.set()
        await until(lambda: bench.store.of() == {SESSION})


@sync
async def test_nothing_that_was_accepted_while_the_store_was_away_is_lost() -> None:
    nodes = [f"mn{number}@example.net" for number in range(20)]
    async with opened() as bench:
        bench.store.away = True
        for node in nodes:
            bench.sessions.save(replace(SESSION, node=node))
        bench.sessions.forget(nodes[3], SESSION.prefix)
        await until(lambda: bench.health == [False])
        assert not bench.sessions.reachable
        assert bench.sessions.unsaved == 20
        bench.store.away = False
        await until(lambda: bench.sessions.unsaved == 0)
        assert {node for node in nodes if bench.store.of(node)} == set(nodes) - {nodes[3]}
        await until(lambda: bench.health == [False, True])


@sync
async def test_nobody_waits_for_a_store_that_is_known_to_be_away() -> None:
    async with opened() as bench:
        bench.store.away = True
        await bench.sessions.save(SESSION)
        await until(lambda: not bench.sessions.reachable)
        assert bench.sessions.save(SECOND).done()


@sync
async def test_the_end_waits_for_what_is_not_written_yet() -> None:
    async with opened() as bench:
        bench.store.answers.clear()
        await bench.sessions.save(SESSION)  # given up waiting; it is not written
        asyncio.get_running_loop().call_later(0.05, bench.store.answers.set)
        await bench.sessions.close(2.0)
        assert bench.store.of() == {SESSION}


@sync
async def test_the_end_tries_once_more_although_the_store_was_away() -> None:
    async with opened() as bench:
        bench.store.away = True
        bench.sessions.save(SESSION)
        await until(lambda: not bench.sessions.reachable)
        bench.store.away = False
        await bench.sessions.close(2.0)
        assert bench.store.of() == {SESSION}


@sync
async def test_the_end_waits_no_longer_than_it_is_told_and_says_what_is_lost(caplog: pytest.LogCaptureFixture) -> None:
    async with opened() as bench:
        bench.store.answers.clear()
        futures = [bench.sessions.save(SESSION), bench.sessions.save(SECOND)]
        began = time.monotonic()
        await bench.sessions.close(0.02)
        assert time.monotonic() - began < 1.0
        assert all(future.done() for future in futures)
        assert "2 sessions were not written" in caplog.text


@sync
async def test_what_waits_for_a_write_goes_on_before_the_end_is_over() -> None:
    async with opened() as bench:
        bench.store.away = True
        sent: list[str] = []
        bench.sessions.save(SESSION).add_done_callback(lambda _: sent.append("ack"))
        await bench.sessions.close(0.02)
        assert sent == ["ack"]


# Finding


@sync
async def test_find_answers_with_the_sessions_of_the_node() -> None:
    async with opened() as bench:
        await bench.sessions.save(SESSION)
        bench.sessions.find(SESSION.node)
        bench.sessions.find("nobody@example.net")
        await until(lambda: len(bench.found) == 2)
        assert bench.found == [(SESSION.node, (SESSION,)), ("nobody@example.net", ())]


@sync
async def test_find_answers_none_when_the_store_is_away() -> None:
    async with opened() as bench:
        bench.store.away = True
        bench.sessions.find(SESSION.node)
        await until(lambda: bench.found)
        assert bench.found == [(SESSION.node, None)]
        assert bench.health == [False]


@sync
async def test_find_answers_none_when_the_store_does_not_answer_in_time(caplog: pytest.LogCaptureFixture) -> None:
    async with opened() as bench:
        bench.store.answers.clear()
        bench.sessions.find(SESSION.node)
        await until(lambda: bench.found)
        assert bench.found == [(SESSION.node, None)]
        assert "store: no answer in 0.05 s: going on without it" in caplog.text


# Watching


async def watching(bench: Bench, wanted: Nodes) -> None:
    """Watch; nodes that are here already are looked up as that begins."""
    bench.sessions.watch(wanted)
    await until(lambda: len(bench.found) == len(set(wanted)))
    bench.found.clear()


@sync
async def test_nodes_that_came_before_the_watch_began_are_looked_up() -> None:
    async with opened() as bench:
        bench.sessions.watch({SESSION.node})
        await until(lambda: bench.found)
        assert bench.found == [(SESSION.node, ())]


@sync
async def test_a_change_that_tells_what_was_written_is_not_looked_up() -> None:
    async with opened() as bench:
        await watching(bench, {SESSION.node})
        await bench.store.changes.put(Change(node=SESSION.node, cursor="1", sessions=(SECOND,)))
        await until(lambda: bench.found)
        assert bench.found == [(SESSION.node, (SECOND,))]


@sync
async def test_a_change_is_looked_up_for_who_wants_whole_records() -> None:
    async with opened() as bench:
        bench.sessions.watch({SESSION.node}, whole=True)
        await until(lambda: bench.found)
        await bench.store.changes.put(Change(node=SESSION.node, cursor="1", sessions=(SECOND,)))
        await until(lambda: len(bench.found) == 2)
        assert bench.found[-1] == (SESSION.node, ())


@sync
async def test_a_change_of_a_wanted_node_is_looked_up_and_no_other() -> None:
    async with opened() as bench:
        await watching(bench, {SESSION.node})
        await bench.store.changes.put(Change(node="nobody@example.net", cursor="1"))
        await bench.store.changes.put(Change(node=SESSION.node, cursor="2"))
        await until(lambda: bench.found)
        assert bench.found == [(SESSION.node, ())]


@sync
async def test_missed_changes_make_every_wanted_node_be_looked_up() -> None:
    async with opened() as bench:
        wanted = {"mn1@example.net": 1, "mn2@example.net": 2}
        await watching(bench, wanted)
        await bench.store.changes.put(Change(node="", cursor="7", resync=True))
        await until(lambda: len(bench.found) == 2)
        assert {node for node, _ in bench.found} == set(wanted)


@sync
async def test_watching_goes_on_from_the_last_change_when_the_store_is_back() -> None:
    async with opened() as bench:
        bench.sessions.watch({SESSION.node})
        await bench.store.changes.put(Change(node=SESSION.node, cursor="5"))
        await until(lambda: bench.found)
        bench.store.away = True
        await bench.store.changes.put(Change(node=SESSION.node, cursor="6"))
        await until(lambda: len(bench.store.watched_from) == 2)
        assert bench.store.watched_from == [None, "5"]


@sync
async def test_a_store_that_went_before_its_first_change_is_read_again() -> None:
    async with opened() as bench:
        bench.sessions.watch({SESSION.node})
        bench.store.away = True
        await bench.store.changes.put(Change(node="x", cursor="1"))
        await until(lambda: bench.health == [False])
        bench.store.away = False
        await until(lambda: bench.found)
        assert bench.found[-1] == (SESSION.node, ())


# What is not written at once


VISITED, NEXT = IPv6Address("2001:db8::2"), IPv6Address("2001:db8::3")
AWAY = replace(SESSION, state=State.REMOTE, care_of=VISITED, timestamp=1, expires=time.time() + 3600)
WENT_ON = replace(AWAY, care_of=NEXT, timestamp=3, expires=AWAY.expires + 5)
LEFT = replace(SESSION, state=State.GUARD, expires=time.time() + 3)
LEFT_THERE = replace(AWAY, state=State.GUARD, timestamp=2, expires=time.time() + 3)


async def written_of(bench: Bench, session: Session) -> None:
    """Save it, and wait until nothing waits to be written."""
    bench.sessions.save(session)
    await until(lambda: bench.sessions.unsaved == 0)


@pytest.mark.parametrize(
    ("told", "left", "then", "written"),
    [
        (SESSION, LEFT, AWAY, True),
        (SESSION, LEFT, replace(SESSION, timestamp=4), False),
        (AWAY, LEFT_THERE, WENT_ON, False),
        (AWAY, LEFT_THERE, replace(WENT_ON, technology=5), True),
    ],
)
@sync
async def test_that_a_node_left_is_not_written_if_it_shows_itself_soon(
    tmp_path: Path, told: Session, left: Session, then: Session, written: bool
) -> None:
    async with opened(Journal(tmp_path / "journal")) as bench:
        await written_of(bench, told)
        assert bench.sessions.save(left).done()
        await written_of(bench, then)
        assert [record.sessions for record in bench.store.written] == [(told,), (then,)][: 1 + written]


@pytest.mark.parametrize(("told", "left"), [(SESSION, LEFT), (AWAY, LEFT_THERE)])
@sync
async def test_that_a_node_left_for_good_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: Session, left: Session
) -> None:
    monkeypatch.setattr(module, "LEFT_FOR_GOOD", 0.02)
    async with opened(Journal(tmp_path / "journal")) as bench:
        await written_of(bench, told)
        bench.sessions.save(left)
        assert bench.store.of() == {told}
        await until(lambda: bench.store.of() == {left})


@sync
async def test_where_a_node_went_on_to_is_written_when_it_has_come_to_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "AT_REST", 0.1)
    async with opened(Journal(tmp_path / "journal")) as bench:
        await written_of(bench, AWAY)
        for turn in range(5):
            assert bench.sessions.save(replace(WENT_ON, timestamp=3 + turn)).done()
        assert bench.store.of() == {AWAY}
        await until(lambda: bench.store.of() == {replace(WENT_ON, timestamp=7)})
        assert len(bench.store.written) == 2


@sync
async def test_what_was_put_off_is_written_at_the_end(tmp_path: Path) -> None:
    async with opened(Journal(tmp_path / "journal")) as bench:
        await written_of(bench, AWAY)
        bench.sessions.save(WENT_ON)
        await bench.sessions.close(2.0)
        assert bench.store.of() == {WENT_ON}


@sync
async def test_what_was_put_off_is_known_after_the_next_start(tmp_path: Path) -> None:
    async with opened(Journal(tmp_path / "journal")) as bench:
        await written_of(bench, AWAY)
        bench.sessions.save(WENT_ON)
        stored = bench.store.records
        restored: list[tuple[Session, ...]] = []
        async with opened(Journal(tmp_path / "journal"), on_restored=restored.append) as again:
            again.store.records = dict(stored)
            await again.sessions.restore(ANCHOR)
            assert restored == [(WENT_ON,)]
            await until(lambda: again.store.of() == {WENT_ON})


@sync
async def test_nothing_is_put_off_without_a_journal() -> None:
    async with opened() as bench:
        for session in (AWAY, WENT_ON, LEFT_THERE):
            await bench.sessions.save(session)
            assert bench.store.of() == {session}


@sync
async def test_what_a_store_has_lost_waits_no_longer(tmp_path: Path) -> None:
    async with opened(Journal(tmp_path / "journal")) as bench:
        await bench.sessions.restore(ANCHOR)
        await written_of(bench, AWAY)
        bench.sessions.save(WENT_ON)
        bench.sessions.watch({SESSION.node})
        await until(lambda: bench.found)
        bench.store.records.clear()
        await bench.store.changes.put(Change(node="", cursor="1", resync=True))
        await until(lambda: bench.store.of() == {WENT_ON})


def test_a_session_that_would_end_in_the_store_is_not_put_off() -> None:
    now = AWAY.expires - 2 * module.AT_REST
    assert may_wait(AWAY, WENT_ON, now - 1) == module.AT_REST
    assert may_wait(AWAY, WENT_ON, now + 1) == 0


@sync
async def test_what_waited_for_a_store_to_come_back_is_what_it_was_told(tmp_path: Path) -> None:
    """And not what it had before: the next session that is as before has to be written at once."""
    over = replace(SESSION, state=State.RELEASED, expires=time.time() + 3600)
    async with opened(Journal(tmp_path / "journal")) as bench:
        await bench.sessions.restore(ANCHOR)
        await written_of(bench, SESSION)
        bench.store.away = True
        bench.sessions.save(over)
        await until(lambda: bench.health == [False])
        bench.store.away = False
        bench.sessions.watch({SESSION.node})  # it reads all again
        await until(lambda: bench.sessions.unsaved == 0 and bool(bench.found))
        bench.sessions.save(SESSION)
        await until(lambda: bench.store.of() == {SESSION})


@sync
async def test_what_a_store_does_not_take_delays_nothing_else() -> None:
    """One of several servers may be away."""
    async with opened() as bench:
        bench.store.refused = {SESSION.node}
        bench.sessions.save(SESSION)
        await bench.sessions.save(replace(SECOND, node="mn2@example.net"))
        await until(lambda: bench.store.of("mn2@example.net"))
        assert (bench.sessions.unsaved, bench.store.of()) == (1, set())
