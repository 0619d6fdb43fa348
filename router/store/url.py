"""The URL of a store, read in one place for those who check it, those who show it and those who open it.

It is sqlite://PATH, redis://[USER:PASSWORD@]HOST[:PORT][/DB][?wait=N], or redis+cluster://[USER:PASSWORD@]HOST[:PORT];
rediss:// and rediss+cluster:// use TLS, with ?ca=FILE&cert=FILE&key=FILE.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

REDIS_PORT = 6379
REDIS = ("redis", "rediss", "redis+cluster", "rediss+cluster")
CERTIFICATES = ("ca", "cert", "key")  # options of TLS: files
MEMORY = ":memory:"  # to the library of SQLite it is no file
EXPECTED = '"sqlite://PATH", "redis://HOST:PORT/DB" or "redis+cluster://HOST:PORT"'


@dataclass(frozen=True, slots=True, kw_only=True)
class SqliteUrl:
    """A file."""

    path: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisUrl:
    """A Redis or Valkey server, or one of a cluster. wait: replicas that must have a write before it counts."""

    host: str
    port: int = REDIS_PORT
    database: int = 0
    username: str | None = None
    password: str | None = None
    tls: bool = False
    ca: str | None = None
    cert: str | None = None
    key: str | None = None
    cluster: bool = False
    wait: int = 0


def parse(url: str) -> SqliteUrl | RedisUrl:
    """What a URL names. Raises ValueError, which says what was expected instead."""
    scheme, _, rest = url.partition("://")
    if scheme == "sqlite":
        if not re.fullmatch(r"[^?#\0]+", rest):
            raise ValueError(EXPECTED)
        if rest == MEMORY:
            raise ValueError(f"{EXPECTED}: what is in memory no other router sees, and no restart")
        return SqliteUrl(path=Path(rest))
    if scheme not in REDIS:
        raise ValueError(f"{EXPECTED}: there is no kind {scheme!r}")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueError(f"{EXPECTED}, with a port from 1 to 65535") from None
    if not parts.hostname or parts.fragment or port == 0:
        raise ValueError(f"{EXPECTED}, with a port from 1 to 65535")
    cluster, tls = scheme.endswith("+cluster"), scheme.startswith("rediss")
    database = _database(parts.path, cluster)
    certificates, wait = _options(parts, tls)
    return RedisUrl(
        host=parts.hostname,
        port=port or REDIS_PORT,
        database=database,
        username=unquote(parts.username) if parts.username else None,
        password=unquote(parts.password) if parts.password else None,
        tls=tls,
        ca=certificates.get("ca"),
        cert=certificates.get("cert"),
        key=certificates.get("key"),
        cluster=cluster,
        wait=wait,
    )


def why_not_usable(found: SqliteUrl | RedisUrl) -> str | None:
    """What of the files that a URL names is not as it has to be, without opening the store; None: nothing."""
    if isinstance(found, SqliteUrl):
        return f"a file, and {found.path} is a directory" if os.path.isdir(found.path) else None
    for name in CERTIFICATES:
        file = getattr(found, name)
        if file is not None and not os.access(file, os.R_OK):
            missing = "cannot be read" if os.path.exists(file) else "is not there"
            return f"{name}=FILE to be a readable file, and {file} {missing}"
    return None


def without_password(url: str) -> str:
    """A URL that may be shown."""
    return re.sub(r"^([a-z+]+://[^:@/]*):.*@", r"\1:***@", url)


def _database(path: str, cluster: bool) -> int:
    text = path.strip("/") or "0"
    if not re.fullmatch(r"[0-9]{1,5}", text):
        raise ValueError("the number of a database after the port, such as redis://HOST:6379/0")
    if cluster and int(text):
        raise ValueError("no database, or 0: a cluster has no other one")
    return int(text)


def _options(parts: SplitResult, tls: bool) -> tuple[dict[str, str], int]:
    """Files of TLS, by name; how many replicas to wait for."""
    certificates: dict[str, str] = {}
    wait = 0
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name in CERTIFICATES and value:
            if not tls:
                raise ValueError(f"no {name!r} without TLS: rediss://, or rediss+cluster://")
            certificates[name] = value
        elif name == "wait" and re.fullmatch(r"[0-9]", value):
            wait = int(value)
        else:
            raise ValueError(f"options wait=0..9, and with TLS ca=FILE, cert=FILE, key=FILE; not {name}={value}")
    if ("cert" in certificates) != ("key" in certificates):
        raise ValueError("'cert' and 'key' together, or neither")
    return certificates, wait
