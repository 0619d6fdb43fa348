"""Network namespaces and TUN devices, or the reason why there are none here."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.domain import Domain
from tests.namespaces import why_no_lab

REASON = why_no_lab()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.namespaces)
            if REASON is not None:
                item.add_marker(pytest.mark.skip(reason=REASON))


@pytest.fixture
def domain(tmp_path: Path) -> Iterator[Callable[..., Domain]]:
    """Make a domain; the test's end ends it."""
    with ExitStack() as stack:

        def make(**about: Any) -> Domain:
            return stack.enter_context(Domain(tmp_path, **about))

        yield make
