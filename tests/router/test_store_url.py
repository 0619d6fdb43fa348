"""URLs of stores: what they name, and what of them may be shown."""

from pathlib import Path

import pytest

from router.store.url import RedisUrl, SqliteUrl, parse, without_password

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
