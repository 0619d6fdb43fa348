"""A store on the far side of TLS and a password, as docs/stores.md has it; and what is said when it is not so."""

import asyncio
import shutil
import ssl
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from router.store import StoreError, open_store
from tests.on_loop import sync
from tests.router.redis_servers import Secrets, Servers, running
from tests.router.stores import NODE, SESSION, put, take, watching

PASSWORD = "pass:w@rd/ä?"


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Secrets:
    return Secrets.made(tmp_path_factory.mktemp("secrets"), PASSWORD)


@pytest.fixture(scope="module", params=[1, 3], ids=["server", "cluster"])
def secured(
    request: pytest.FixtureRequest, secrets: Secrets, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Servers]:
    with running(tmp_path_factory.mktemp("secured"), request.param, secrets=secrets) as servers:
        yield servers


def url(servers: Servers, files: dict[str, Path], password: str = PASSWORD) -> str:
    scheme, _, place = servers.url.partition("://")
    options = "&".join(f"{name}={path}" for name, path in files.items())
    return f"{scheme.replace('redis', 'rediss')}://:{quote(password, safe='')}@{place}?{options}"


def files(secrets: Secrets) -> dict[str, Path]:
    return {"ca": secrets.ca, "cert": secrets.cert, "key": secrets.key}


@sync
async def test_what_one_router_writes_another_reads_and_is_told_of(secured: Servers, secrets: Secrets) -> None:
    one, other = (open_store(url(secured, files(secrets))) for _ in range(2))
    async with watching(other) as changes:
        written = await put(one, SESSION)
        assert [change.node for change in await take(changes, 1)] == [NODE]
    assert await other.get(NODE) == written
    assert written.sessions == (SESSION,)
    for each in (one, other):
        await each.close()


@sync
async def test_what_is_wrong_is_said_in_a_line(secured: Servers, secrets: Secrets, tmp_path: Path) -> None:
    good, strangers = files(secrets), files(Secrets.made(tmp_path, PASSWORD))
    right, broken = url(secured, good), tmp_path / "broken.pem"
    broken.write_text("no certificate")
    for wrong, why in (
        (url(secured, good, "another"), "invalid username-password pair"),
        (url(secured, {**good, "ca": strangers["ca"]}), "certificate verify failed"),
        (url(secured, {"ca": good["ca"]}), "certificate required"),
        (url(secured, {**strangers, "ca": good["ca"]}), "unknown ca"),
        (right.partition("?")[0], "certificate verify failed"),
        (url(secured, {**good, "ca": broken}), "no certificate or crl found"),
        (secured.url, "Connection"),
    ):
        one = open_store(wrong)
        with pytest.raises(StoreError) as refused:
            await one.get(NODE)
        await one.close()
        said = str(refused.value)
        assert why in said, wrong
        assert "\n" not in said
        assert PASSWORD not in said
        assert quote(PASSWORD, safe="") not in said


@sync
async def test_certificates_are_read_once_for_all_connections(
    secured: Servers, secrets: Secrets, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str | None] = []
    make = ssl.create_default_context
    monkeypatch.setattr(ssl, "create_default_context", lambda cafile=None: read.append(cafile) or make(cafile=cafile))
    one = open_store(url(secured, files(secrets)))
    found = await asyncio.gather(*(one.get(f"guest{n}@example.net") for n in range(10)))
    await one.close()
    assert {record.revision for record in found} == {0}
    assert read == [str(secrets.ca)]


@sync
async def test_certificates_that_are_renewed_are_read_again(secrets: Secrets, tmp_path: Path) -> None:
    ours = {name: tmp_path / path.name for name, path in files(secrets).items()}
    (tmp_path / "strangers").mkdir()
    (tmp_path / "data").mkdir()
    strangers = files(Secrets.made(tmp_path / "strangers", PASSWORD))
    with running(tmp_path / "data", 1, secrets=secrets) as servers:
        for name, path in strangers.items():
            shutil.copy(path, ours[name])
        one = open_store(url(servers, ours))
        with pytest.raises(StoreError, match="certificate verify failed"):
            await one.get(NODE)
        for name, path in files(secrets).items():
            shutil.copy(path, ours[name])
        assert (await one.get(NODE)).revision == 0
        await one.close()
