"""What is told in the log without being asked for."""

import ast
from pathlib import Path

import pytest

from router.driver import Journalist
from router.trouble import AT_THE_ANCHOR, TROUBLE, with_cure
from signaling.iana import Status
from signaling.pmip.heartbeats import PeerEvent

SIGNALING = Path(__file__).parents[2] / "signaling"


def told() -> set[str]:
    """The events that roles tell of: the first argument of every Note."""
    found: set[str] = set()
    for path in SIGNALING.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "Note" and node.args:
                found |= names(node.args[0])
    return found


def names(event: ast.expr) -> set[str]:
    if isinstance(event, ast.Constant):
        return {str(event.value)}
    assert isinstance(event, ast.JoinedStr)
    text, what = event.values
    assert ast.unparse(event).endswith("{news.kind.value}'")
    assert isinstance(what, ast.FormattedValue)
    assert isinstance(text, ast.Constant)
    return {f"{text.value}{kind.value}" for kind in PeerEvent}


def test_all_that_is_called_trouble_is_told_by_a_role() -> None:
    assert TROUBLE - told() == set()


def test_every_cure_is_for_a_status() -> None:
    assert AT_THE_ANCHOR.keys() - {status.name for status in Status} == set()


@pytest.mark.parametrize("status", AT_THE_ANCHOR)
def test_a_refusal_is_one_line_with_its_cure(status: str, caplog: pytest.LogCaptureFixture) -> None:
    Journalist().tell("update-refused", {"node": "mn1@a.b", "peer": "mag1", "status": status})
    (record,) = caplog.records
    assert record.getMessage() == f"update-refused node=mn1@a.b peer=mag1 status={status} why={AT_THE_ANCHOR[status]}"


def test_a_gateway_names_what_to_change_at_the_anchor() -> None:
    fields = {"status": "PROXY_REG_NOT_ENABLED"}
    assert with_cure("registration-refused", fields)["why"].startswith("the anchor says: its [[node]]")


def test_what_a_role_says_itself_is_not_said_again() -> None:
    fields = {"status": "TIMESTAMP_MISMATCH", "why": "its clock is 3.0 s ahead of ours: run NTP on both"}
    assert with_cure("registration-refused", fields) == fields
