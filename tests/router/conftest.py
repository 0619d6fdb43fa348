"""What several files share: how a configuration is read, and servers of stores, which run as long as their module."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from router.config import Config, load
from router.places import RoleName
from tests.router.redis_servers import Servers, running


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., Config]:
    """The configuration that a text is, of a role or of any."""

    def read(text: str, role: RoleName | None = None) -> Config:
        file = tmp_path / "router.toml"
        file.write_text(text)
        return load(file, role=role)

    return read


@pytest.fixture(scope="module")
def proxied() -> bool:
    """Whether clients come through proxies of ours; a module that breaks connections says so."""
    return False


@pytest.fixture(scope="module")
def server(proxied: bool, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """A single one."""
    with running(tmp_path_factory.mktemp("redis"), 1, proxied=proxied) as servers:
        yield servers


@pytest.fixture(scope="module")
def cluster(proxied: bool, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """Three masters."""
    with running(tmp_path_factory.mktemp("cluster"), 3, proxied=proxied) as servers:
        yield servers
