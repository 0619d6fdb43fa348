"""Where a router keeps its things when nobody says so."""

from pathlib import Path

import pytest

from router import places
from router.errors import ConfigError


@pytest.fixture
def user(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Somebody who is not root, with none of the variables set."""
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setenv("HOME", "/home/somebody")
    return monkeypatch


def test_root_has_the_directories_of_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setenv("XDG_STATE_HOME", "/elsewhere")
    assert places.default_state_dir() == Path("/var/lib/openmar")
    assert places.default_socket("mar2") == Path("/run/openmar/mar2.sock")


def test_a_user_has_those_of_the_home_directory(user: pytest.MonkeyPatch) -> None:
    assert places.default_state_dir() == Path("/home/somebody/.local/state/openmar")
    assert places.default_run_dir() == places.default_state_dir()


def test_a_user_with_xdg_directories_has_those(user: pytest.MonkeyPatch) -> None:
    user.setenv("XDG_STATE_HOME", "/state")
    user.setenv("XDG_RUNTIME_DIR", "/run/user/1000")
    assert places.default_state_dir() == Path("/state/openmar")
    assert places.default_socket() == Path("/run/user/1000/openmar/mar.sock")


def test_an_empty_variable_counts_as_none(user: pytest.MonkeyPatch) -> None:
    user.setenv("XDG_STATE_HOME", "")
    assert places.default_state_dir() == Path("/home/somebody/.local/state/openmar")


def test_a_user_without_a_home_is_told_what_to_give(user: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    user.setattr(Path, "home", homeless)
    with pytest.raises(ConfigError, match="--state-dir and --socket"):
        places.default_state_dir()
