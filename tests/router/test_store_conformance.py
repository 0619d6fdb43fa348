"""What every store does, whatever its kind: each sentence is tested on a file, on a server and on a cluster."""

import asyncio
import json
import time
from contextlib import aclosing
from dataclasses import replace
from ipaddress import IPv6Network
from pathlib import Path
from random import Random

import pytest

from router.store import Record, SessionStore
from signaling.dma.session import State
from tests.on_loop import sync
from tests.router.stores import (
    ELSEWHERE,
    HERE,
    MAR1,
    MAR2,
    NODE,
    SESSION,
    THERE,
    Engine,
    put,
    redis_engine,
    sqlite_engine,
    take,
    watching,
)

NOW = float(int(time.time()))  # wall clock s: a server removes by itself what ended long ago


@pytest.fixture(params=["sqlite", "server", "cluster"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Engine:
    if request.param == "sqlite":
        return sqlite_engine(tmp_path / "sessions.db")
    return redis_engine(request.getfixturevalue(request.param))


# Reading and writing


@sync
async def test_a_node_nobody_wrote_has_no_sessions_and_revision_0(engine: Engine) -> None:
    async with engine.handles(1) as (one,):
        assert await one.get(NODE) == Record(node=NODE, sessions=(), revision=0)


@sync
async def test_what_was_written_is_read_field_by_field(engine: Engine) -> None:
    async with engine.handles(2) as (one, other):
        await put(one, SESSION, ELSEWHERE)
        assert set((await one.get(NODE)).sessions) == {SESSION, ELSEWHERE}
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


# One session beside the others


@sync
async def test_save_puts_a_session_beside_the_others(engine: Engine) -> None:
    async with engine.handles(1) as (one,):
        await one.save(SESSION)
        await one.save(ELSEWHERE)
        assert set((await one.get(NODE)).sessions) == {SESSION, ELSEWHERE}


@sync
async def test_save_replaces_the_session_of_the_same_prefix(engine: Engine) -> None:
    newer = replace(SESSION, state=State.REMOTE, care_of=MAR2, expires=2e9)
    async with engine.handles(1) as (one,):
        await one.save(SESSION)
        await one.save(newer)
        assert (await one.get(NODE)).sessions == (newer,)


@sync
async def test_saving_what_is_there_writes_nothing(engine: Engine) -> None:
    async with engine.handles(1) as (one,):
        await one.save(SESSION)
        before = await one.get(NODE)
        await one.save(SESSION)
        assert await one.get(NODE) == before


@sync
async def test_forget_takes_one_session_and_the_record_with_the_last(engine: Engine) -> None:
    async with engine.handles(1) as (one,):
        await put(one, SESSION, ELSEWHERE)
        await one.forget(NODE, HERE)
        assert (await one.get(NODE)).sessions == (ELSEWHERE,)
        await one.forget(NODE, THERE)
        assert await one.get(NODE) == Record(node=NODE)


@sync
async def test_forgetting_what_is_not_there_is_no_error(engine: Engine) -> None:
    async with engine.handles(1) as (one,):
        await one.forget(NODE, HERE)
        assert (await one.get(NODE)).revision == 0


@sync
async def test_many_writers_of_one_node_lose_nothing(engine: Engine) -> None:
    prefixes = [IPv6Network((f"2001:db8:c1:{number:x}::", 64)) for number in range(16)]
    async with engine.handles(2) as handles:
        async with asyncio.TaskGroup() as tasks:
            for number, prefix in enumerate(prefixes):
                tasks.create_task(handles[number % 2].save(replace(SESSION, prefix=prefix)))
        assert {session.prefix for session in (await handles[0].get(NODE)).sessions} == set(prefixes)


@sync
async def test_writers_and_forgetters_of_one_node_leave_what_was_never_forgotten(engine: Engine) -> None:
    async with engine.handles(2) as (one, other):
        await put(one, SESSION)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(one.forget(NODE, HERE))
            tasks.create_task(other.save(ELSEWHERE))
        assert (await one.get(NODE)).sessions == (ELSEWHERE,)


# Who has what anchored where


@sync
async def test_anchored_finds_the_sessions_of_one_router_only(engine: Engine) -> None:
    second = replace(SESSION, node="mn2@example.net", prefix=IPv6Network("2001:db8:a1:2::/64"))
    async with engine.handles(1) as (one,):
        for session in (SESSION, ELSEWHERE, second):
            await one.save(session)
        assert set(await one.anchored(MAR1)) == {SESSION, second}
        assert await one.anchored(MAR2) == [ELSEWHERE]


@sync
async def test_anchored_forgets_with_the_session(engine: Engine) -> None:
    async with engine.handles(1) as (one,):
        await put(one, SESSION, ELSEWHERE)
        await one.forget(NODE, HERE)
        assert await one.anchored(MAR1) == []
        await put(one)
        assert await one.anchored(MAR2) == []


@sync
async def test_two_prefixes_of_one_node_at_one_anchor_are_both_found(engine: Engine) -> None:
    second = replace(SESSION, prefix=THERE)
    async with engine.handles(1) as (one,):
        await put(one, SESSION, second)
        await one.forget(NODE, HERE)
        assert await one.anchored(MAR1) == [second]


# The end of sessions


@sync
async def test_a_held_prefix_goes_when_its_time_is_over(engine: Engine) -> None:
    async with engine.handles(1) as (one,):
        await put(one, replace(ELSEWHERE, state=State.HOLD, expires=NOW + 1000))
        assert await one.expire(NOW + 1000) == 0
        assert await one.expire(NOW + 1000.1) == 1
        assert await one.get(NODE) == Record(node=NODE)
        assert await one.anchored(MAR2) == []


@sync
async def test_only_the_session_that_ended_goes(engine: Engine) -> None:
    async with engine.handles(1) as (one,):
        await put(one, SESSION, replace(ELSEWHERE, state=State.HOLD, expires=NOW + 1000))
        assert await one.expire(NOW + 5000) == 1
        assert (await one.get(NODE)).sessions == (SESSION,)
        assert await one.expire(NOW + 5000) == 0


@sync
async def test_a_node_that_is_with_its_anchor_never_loses_its_session(engine: Engine) -> None:
    async with engine.handles(1) as (one,):
        await put(one, SESSION, replace(SESSION, prefix=THERE, state=State.HOLD, expires=NOW + 1000))
        await one.expire(NOW + 1e9)
        assert (await one.get(NODE)).sessions == (SESSION,)


@sync
async def test_a_registration_whose_anchor_is_never_heard_of_again_ends(engine: Engine) -> None:
    remote = replace(SESSION, state=State.REMOTE, care_of=MAR2, expires=NOW + 1000, valid_lifetime=7200)
    async with engine.handles(1) as (one,):
        await put(one, remote)
        assert await one.expire(NOW + 8199) == 0
        assert await one.expire(NOW + 8201) == 1


@sync
async def test_a_prefix_hosts_may_still_use_is_remembered_for_its_anchor(engine: Engine) -> None:
    async with engine.handles(1) as (one,):
        await put(one, replace(SESSION, state=State.GUARD, expires=NOW + 1000, valid_lifetime=7200))
        assert await one.expire(NOW + 8199) == 0
        assert await one.expire(NOW + 8201) == 1


@sync
async def test_an_expired_record_is_a_change(engine: Engine) -> None:
    async with engine.handles(1) as (one,):
        await put(one, replace(ELSEWHERE, state=State.HOLD, expires=NOW + 1000))
        async with watching(one) as changes:
            await one.expire(NOW + 1001)
            assert [change.node for change in await take(changes, 1)] == [NODE]


@sync
async def test_of_many_nodes_only_those_that_ended_go(engine: Engine) -> None:
    ends = {f"mn{number}@example.net": NOW + 1000 + number for number in range(40)}
    async with engine.handles(1) as (one,):
        for node, end in ends.items():
            await one.save(replace(ELSEWHERE, node=node, state=State.HOLD, expires=end))
        assert await one.expire(NOW + 1020) == 20
        assert {session.node for session in await one.anchored(MAR2)} == {
            node for node, end in ends.items() if end >= NOW + 1020
        }


# Watching


@sync
async def test_a_watcher_is_told_first_where_it_begins(engine: Engine) -> None:
    async with engine.handles(1) as (one,):
        await put(one, SESSION)
        async with aclosing(one.watch()) as changes:
            (begin,) = await take(changes, 1)
        assert (begin.node, begin.resync) == ("", True)
        await put(one, ELSEWHERE)
        async with watching(one, begin.cursor) as changes:
            assert [(change.node, change.resync) for change in await take(changes, 1)] == [(NODE, False)]


@sync
async def test_a_watcher_sees_its_own_writes_and_those_of_others_each_once(engine: Engine) -> None:
    async with engine.handles(2) as (one, other), watching(one) as changes:
        await put(one, SESSION)
        await put(other, replace(SESSION, node="mn2@b"), node="mn2@b")
        await put(other, node=NODE)
        seen = await take(changes, 3)
        assert sorted(change.node for change in seen) == sorted([NODE, "mn2@b", NODE])
        assert not any(change.resync for change in seen)
        await put(one, SESSION)
        assert [change.node for change in await take(changes, 1)] == [NODE]


@sync
async def test_changes_of_one_node_are_seen_in_their_order_and_tell_no_older_state(engine: Engine) -> None:
    async with engine.handles(1) as (one,), watching(one) as changes:
        for at in range(10):
            await one.save(replace(SESSION, timestamp=at))
        seen = await take(changes, 10)
        told = [change.sessions[0].timestamp for change in seen if change.sessions]
        assert told == sorted(told)


@sync
async def test_a_change_that_tells_what_was_written_tells_the_truth(engine: Engine) -> None:
    async with engine.handles(1) as (one,), watching(one) as changes:
        await one.save(SESSION)
        await one.save(ELSEWHERE)
        await one.forget(NODE, THERE)
        seen = await take(changes, 3)
        expected = [(SESSION,), (ELSEWHERE,), ()]
        assert all(change.sessions in (None, truth) for change, truth in zip(seen, expected, strict=True))


@sync
async def test_saving_what_is_there_is_no_change(engine: Engine) -> None:
    async with engine.handles(1) as (one,), watching(one) as changes:
        await one.save(SESSION)
        await one.save(SESSION)
        await one.save(replace(SESSION, node="last@b"))
        assert sorted(change.node for change in await take(changes, 2)) == sorted([NODE, "last@b"])


@sync
async def test_a_watcher_that_comes_and_goes_misses_nothing_and_sees_nothing_twice(engine: Engine) -> None:
    seed = Random().randrange(1 << 32)
    print("seed", seed)  # of a failure
    random = Random(seed)
    written = [f"mn{number % 7}@example.net" for number in range(120)]

    async def write(one: SessionStore, nodes: list[str]) -> None:
        for number, node in enumerate(nodes):
            await one.save(replace(SESSION, node=node, prefix=IPv6Network((f"2001:db8:{number + 1:x}::", 64))))

    async with engine.handles(3) as (one, other, watcher):
        async with aclosing(watcher.watch()) as changes:
            cursor = (await take(changes, 1))[0].cursor
        writers = asyncio.gather(write(one, written[::2]), write(other, written[1::2]))
        seen: list[str] = []
        while len(seen) < len(written):
            async with watching(watcher, cursor) as changes:
                some = await take(changes, min(random.randrange(1, 20), len(written) - len(seen)))
            assert not any(change.resync for change in some)
            seen += [change.node for change in some]
            cursor = some[-1].cursor
        await writers
    assert sorted(seen) == sorted(written)


@sync
async def test_a_watcher_that_was_away_too_long_is_told_to_read_again(engine: Engine) -> None:
    async with engine.handles(1) as (one,):
        async with watching(one) as changes:
            await put(one, SESSION)
            (last,) = await take(changes, 1)
        await put(one, ELSEWHERE)
        with engine.short_log():
            await put(one, SESSION)
        async with watching(one, last.cursor) as changes:
            (resync,) = await take(changes, 1)
            assert resync.resync
            await put(one, ELSEWHERE)
            assert [(change.node, change.resync) for change in await take(changes, 1)] == [(NODE, False)]


@pytest.mark.parametrize("cursor", ["", "x", "1000000", ",".join(["1000000"] * 16)])
@sync
async def test_a_cursor_of_another_store_means_reading_again(engine: Engine, cursor: str) -> None:
    async with engine.handles(1) as (one,):
        await put(one, SESSION)
        async with watching(one, cursor) as changes:
            while not (await take(changes, 1))[0].resync:  # of other shards, as far as they have anything
                pass
            await put(one, ELSEWHERE)
            assert NODE in [change.node for change in await take(changes, 1)]


# What is unusual


@pytest.mark.parametrize("text", ["{", "[1]", "{}", '[{"prefix": "x"}]', "null", json.dumps([{"prefix": "::/64"}])])
@sync
async def test_a_record_nobody_can_read_has_no_sessions_and_can_be_written_again(engine: Engine, text: str) -> None:
    async with engine.handles(1) as (one,):
        await put(one, SESSION)
        engine.spoil(NODE, text)
        assert (await one.get(NODE)).sessions == ()
        assert await one.anchored(MAR1) == []
        await one.save(SESSION)
        assert (await one.get(NODE)).sessions == (SESSION,)
        assert await one.anchored(MAR1) == [SESSION]


@sync
async def test_a_record_of_very_many_sessions_is_a_record(engine: Engine) -> None:
    many = [replace(SESSION, prefix=IPv6Network((f"2001:db8:c{number:03x}::", 64))) for number in range(0xC00)]
    async with engine.handles(1) as (one,), watching(one) as changes:
        await put(one, *many)
        assert set((await one.get(NODE)).sessions) == set(many)
        assert [(change.node, change.resync) for change in await take(changes, 1)] == [(NODE, False)]
        await one.forget(NODE, many[0].prefix)
        assert set(await one.anchored(MAR1)) == set(many[1:])


@sync
async def test_of_many_that_write_on_one_revision_one_succeeds(engine: Engine) -> None:
    prefixes = [IPv6Network((f"2001:db8:c1:{number:x}::", 64)) for number in range(16)]
    async with engine.handles(2) as handles:
        old = await put(handles[0], SESSION)
        done = await asyncio.gather(
            *(
                handles[number % 2].put_if(replace(old, sessions=(replace(SESSION, prefix=prefix),)))
                for number, prefix in enumerate(prefixes)
            )
        )
        assert done.count(True) == 1
        assert (await handles[0].get(NODE)).sessions[0].prefix == prefixes[done.index(True)]


@sync
async def test_a_prefix_that_changes_its_anchor_is_found_at_the_new_one_only(engine: Engine) -> None:
    async with engine.handles(1) as (one,):
        await one.save(SESSION)
        moved = replace(SESSION, anchor=MAR2)
        await one.save(moved)
        assert (await one.anchored(MAR1), await one.anchored(MAR2)) == ([], [moved])


@sync
async def test_many_nodes_of_one_anchor_are_found_all(engine: Engine) -> None:
    many = [
        replace(SESSION, node=f"mn{number}@example.net", prefix=IPv6Network((f"2001:db8:{number:x}::", 64)))
        for number in range(1, 700)
    ]
    async with engine.handles(1) as (one,):
        for some in range(0, len(many), 50):
            await asyncio.gather(*map(one.save, many[some : some + 50]))
        assert sorted(await one.anchored(MAR1), key=str) == sorted(many, key=str)
