"""A router may go before the other programs of its machine, if it is told to and may."""

import os

import pytest

from router.daemon import take_precedence
from router.errors import NoRights


def test_it_goes_before_others_and_the_threads_it_starts_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int, int]] = []
    monkeypatch.setattr(
        os, "sched_setscheduler", lambda who, policy, of: asked.append((who, policy, of.sched_priority))
    )
    take_precedence(7)
    assert asked == [(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, 7)]


def test_without_a_priority_nothing_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_setscheduler", None)  # cannot be called
    take_precedence(0)


def test_without_the_right_it_is_refused_with_the_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*about: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "sched_setscheduler", refuse)
    with pytest.raises(NoRights, match=r"realtime = 7.*CAP_SYS_NICE"):
        take_precedence(7)
