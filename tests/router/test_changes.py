"""What was changed is written down before, and read again by whoever puts it back."""

from pathlib import Path
from unittest.mock import Mock

import pytest

from router.changes import Change, Changes

FORWARDING = Change(kind="sysctl", name="conf/all/forwarding", value="0")


@pytest.fixture
def changes(tmp_path: Path) -> Changes:
    return Changes(Mock(), tmp_path / "undo.json")


def written(tmp_path: Path) -> list[Change]:
    """As another process reads it."""
    other = Changes(Mock(), tmp_path / "undo.json")
    other.adopt()
    return other.made


def test_the_oldest_value_of_a_thing_is_the_one_to_restore(changes: Changes, tmp_path: Path) -> None:
    changes.note(FORWARDING)
    changes.note(Change(kind="sysctl", name="conf/all/forwarding", value="1"))
    assert written(tmp_path) == [FORWARDING]


def test_an_interface_is_forgotten_and_not_one_with_a_longer_name(changes: Changes, tmp_path: Path) -> None:
    kept = Change(kind="sysctl", name="conf/eth10/accept_ra", value="1")
    for change in (
        Change(kind="link_layer", name="eth1", value="02"),
        Change(kind="sysctl", name="conf/eth1/accept_ra", value="1"),
        kept,
    ):
        changes.note(change)
    changes.forget("eth1")
    assert written(tmp_path) == changes.made == [kept]


def test_what_was_put_back_is_not_put_back_twice(changes: Changes, tmp_path: Path) -> None:
    changes.note(Change(kind="link_layer", name="eth1", value="020000000001"))
    assert Changes(Mock(), tmp_path / "undo.json").undo_left() == ["link_layer eth1"]
    assert written(tmp_path) == []


def test_a_journal_that_is_none_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "undo.json").write_text('["x"]')
    assert written(tmp_path) == []
