"""URLs of stores: what they name, and what of them may be shown."""

from pathlib import Path

import pytest

from router.config import load
from router.errors import ConfigError
from router.store import StoreError, open_store
from router.store.url import RedisUrl, SqliteUrl, parse, why_not_usable, without_password

FULL = "rediss://mar:se%40cret@[2001:db8::53]:6380/3?ca=/ca.pem&cert=/c.pem&key=/k.pem&wait=1"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("sqlite:///run/openmar/sessions.db", SqliteUrl(path=Path("/run/openmar/sessions.db"))),
        ("sqlite://sessions.db", SqliteUrl(path=Path("sessions.db"))),
        ("redis://localhost", RedisUrl(host="localhost")),
        ("redis://:secret@10.0.0.1:6380/2", RedisUrl(host="10.0.0.1", port=6380, database=2, password="secret")),
        ("redis+cluster://host:7000", RedisUrl(host="host", port=7000, cluster=True)),
        ("rediss+cluster://host?ca=/ca.pem", RedisUrl(host="host", cluster=True, tls=True, ca="/ca.pem")),
        (
            FULL,
            RedisUrl(
                host="2001:db8::53",
                port=6380,
                database=3,
                username="mar",
                password="se@cret",
                tls=True,
                ca="/ca.pem",
                cert="/c.pem",
                key="/k.pem",
                wait=1,
            ),
        ),
    ],
)
def test_a_url_names_a_store(url: str, expected: SqliteUrl | RedisUrl) -> None:
    assert parse(url) == expected


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("sqlite://{here}", "a file, and {here} is a directory"),
        ("rediss://host?ca={here}/ca.pem", "ca=FILE to be a readable file, and {here}/ca.pem is not there"),
        ("rediss+cluster://host?ca={here}/there&cert={here}/c.pem&key=k", "cert=FILE to be a readable file, and"),
    ],
)
def test_a_file_that_is_not_as_it_has_to_be_is_named_before_the_store_is_opened(
    url: str, why: str, tmp_path: Path
) -> None:
    (tmp_path / "there").write_text("")
    url, why = url.format(here=tmp_path), why.format(here=tmp_path)
    (tmp_path / "router.toml").write_text(f"[store]\nurl = '{url}'\n")
    with pytest.raises(ConfigError) as caught:
        load(tmp_path / "router.toml")
    assert str(caught.value).startswith(f"{tmp_path}/router.toml:2: store.url: expected {why}")
    with pytest.raises(StoreError, match=r"^store .*: expected ") as refused:
        open_store(url)
    assert why in str(refused.value)


def test_files_that_are_there_are_no_matter(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("")
    assert why_not_usable(parse(f"rediss://host?ca={tmp_path}/ca.pem")) is None
    assert why_not_usable(parse(f"sqlite://{tmp_path}/sessions.db")) is None


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("sqlite:///s.db", "sqlite:///s.db"),
        ("redis://host/1", "redis://host/1"),
        ("redis://:secret@host", "redis://:***@host"),
        ("redis://mar:p@ss:w/ord@host", "redis://mar:***@host"),
        (FULL, "rediss://mar:***@[2001:db8::53]:6380/3?ca=/ca.pem&cert=/c.pem&key=/k.pem&wait=1"),
    ],
)
def test_a_password_is_not_shown(url: str, shown: str) -> None:
    assert without_password(url) == shown
