"""Network namespaces and TUN devices, or the reason why there are none here."""

from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.domain import Domain
from tests.namespaces import why_no_lab

REASON = why_no_lab()
FAILED = pytest.StashKey[bool]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.namespaces)
            if REASON is not None:
                item.add_marker(pytest.mark.skip(reason=REASON))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    item.stash[FAILED] = item.stash.get(FAILED, False) or report.failed
    return report


@pytest.fixture
def domain(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Callable[..., Domain]]:
    """Make a domain; the test's end ends it, and shows what its routers said if the test has failed."""
    with ExitStack() as stack:
        made: list[Domain] = []

        def make(**about: Any) -> Domain:
            made.append(stack.enter_context(Domain(tmp_path, **about)))
            return made[-1]

        yield make
        if request.node.stash.get(FAILED, False):
            for each in made:
                each.show_logs()
