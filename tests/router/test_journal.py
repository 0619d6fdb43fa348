"""What a router has lent, in a file: it survives whatever ends the process, and the newer word counts."""

import asyncio
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from ipaddress import IPv6Network
from pathlib import Path

import pytest

from router.errors import NoRights
from router.store import journal as module
from router.store.journal import Journal, Word, reconciled
from signaling.dma.session import Session, State
from signaling.settings import TIMESTAMP_UNITS
from tests.on_loop import sync
from tests.router.stores import ELSEWHERE, SESSION

KEY = SESSION.node, SESSION.prefix
NOW = time.time()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "lent.journal"


@pytest.fixture
def opened(file: Path) -> Iterator[Callable[[], Journal]]:
    journals: list[Journal] = []

    def open_one() -> Journal:
        journal = Journal(file)
        journal.open()
        journals.append(journal)
        return journal

    yield open_one
    for journal in journals:
        journal.close()


def said(journal: Journal) -> dict[tuple[str, IPv6Network], Session | None]:
    return {key: word.session for key, word in journal.words().items()}


def test_a_first_run_has_no_journal_before_it_opens_one(file: Path, opened: Callable[[], Journal]) -> None:
    assert not Journal(file).known
    assert said(opened()) == {}
    assert Journal(file).known


def test_the_last_word_about_each_session_is_known_to_the_next_run(opened: Callable[[], Journal]) -> None:
    first = opened()
    assert first.append(KEY, SESSION)
    assert first.append((ELSEWHERE.node, ELSEWHERE.prefix), ELSEWHERE)
    assert first.append(KEY, replace(SESSION, timestamp=SESSION.timestamp + 1))
    assert first.append((ELSEWHERE.node, ELSEWHERE.prefix), None)
    assert said(opened()) == {
        KEY: replace(SESSION, timestamp=SESSION.timestamp + 1),
        (ELSEWHERE.node, ELSEWHERE.prefix): None,
    }


@pytest.mark.parametrize("torn", [b'["mn', b"\xff\xfe\n", b"[1]\n", b'["a@b","2001:db8::/64",1,{}]\n'])
def test_a_line_nobody_can_read_costs_no_other(file: Path, opened: Callable[[], Journal], torn: bytes) -> None:
    opened().append(KEY, SESSION)
    with file.open("ab") as end:
        end.write(torn)
    second = opened()
    assert said(second) == {KEY: SESSION}
    second.append(KEY, None)
    assert said(opened()) == {KEY: None}


def test_what_has_ended_by_itself_is_not_taken_up(opened: Callable[[], Journal]) -> None:
    opened().append(KEY, replace(SESSION, state=State.HOLD, expires=NOW - 1))
    assert said(opened()) == {}


def test_any_identifier_is_read_again(opened: Callable[[], Journal]) -> None:
    names = ["a@b", "ä\n@b", 'a"@b', "a\0@b", ""]
    journal = opened()
    for name in names:
        journal.append((name, SESSION.prefix), replace(SESSION, node=name))
    assert {session.node for session in said(opened()).values() if session} == set(names)


def test_what_there_was_no_room_for_is_said_with_the_next(
    monkeypatch: pytest.MonkeyPatch, opened: Callable[[], Journal]
) -> None:
    journal = opened()
    assert journal.append(KEY, SESSION)

    def half(file: int, octets: bytes) -> int:
        return os.pwrite(file, octets[:20], os.fstat(file).st_size)

    with monkeypatch.context() as full:
        full.setattr(module.os, "write", half)
        assert not journal.append((ELSEWHERE.node, ELSEWHERE.prefix), ELSEWHERE)
    assert said(opened()) == {KEY: SESSION}
    assert journal.append(KEY, None)
    assert said(opened()) == {KEY: None, (ELSEWHERE.node, ELSEWHERE.prefix): ELSEWHERE}


def test_a_directory_that_takes_no_file_is_an_error_of_one_line(tmp_path: Path) -> None:
    with pytest.raises(NoRights, match=r"lent\.journal: .*: make it writable, or choose another --state-dir"):
        Journal(tmp_path / "not there" / "lent.journal").open()


@sync
async def test_a_long_journal_is_written_anew_and_says_the_same(
    monkeypatch: pytest.MonkeyPatch, file: Path, opened: Callable[[], Journal]
) -> None:
    monkeypatch.setattr(module, "LONG", 20_000)
    journal = opened()
    over, unsaved = ("mn8@b", SESSION.prefix), ("mn9@b", SESSION.prefix)
    journal.append(over, None)
    journal.append(unsaved, None)
    while not journal.is_long:
        journal.append(KEY, SESSION)
    size = file.stat().st_size
    shortening = asyncio.create_task(journal.shorten({unsaved}))
    await asyncio.sleep(0)
    journal.append((ELSEWHERE.node, ELSEWHERE.prefix), ELSEWHERE)  # in the meantime
    await shortening
    assert file.stat().st_size < size / 10
    assert not journal.is_long
    journal.append(KEY, None)
    assert said(opened()) == {unsaved: None, KEY: None, (ELSEWHERE.node, ELSEWHERE.prefix): ELSEWHERE}


# What holds, of what the journal and the store say

NEWER = replace(SESSION, timestamp=SESSION.timestamp + 1)
AFTER, BEFORE = (SESSION.timestamp + at * TIMESTAMP_UNITS for at in (1, -1))
CASES = [
    ("only the store has it: it is taken up", None, SESSION, SESSION, False),
    ("only the journal has it: it is written", Word(SESSION, NOW), None, SESSION, True),
    ("both say the same", Word(SESSION, NOW), SESSION, SESSION, False),
    ("the journal is newer", Word(NEWER, NOW), SESSION, NEWER, True),
    ("the store is newer: the journal's disk was full", Word(SESSION, NOW), NEWER, NEWER, False),
    ("it was forgotten", Word(None, AFTER / TIMESTAMP_UNITS), SESSION, None, True),
    ("it was forgotten, and lent again", Word(None, BEFORE / TIMESTAMP_UNITS), SESSION, SESSION, False),
    ("it was forgotten, and the store knows", Word(None, NOW), None, None, False),
]


@pytest.mark.parametrize(("word", "stored", "holds", "told"), [case[1:] for case in CASES], ids=[it[0] for it in CASES])
def test_the_newer_word_counts(word: Word | None, stored: Session | None, holds: Session | None, told: bool) -> None:
    found, to_tell = reconciled({KEY: word} if word else {}, [stored] if stored else [])
    assert found == ({KEY: holds} if holds else {})
    assert to_tell == ({KEY: word} if told else {})
