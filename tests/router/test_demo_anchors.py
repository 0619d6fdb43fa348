"""The walk over four MARs: what it promises is judged from what was seen, and drawn."""

from xml.etree import ElementTree

import pytest

from router.demo.anchors_picture import draw
from router.demo.anchors_play import (
    GRACE,
    IDLE_AFTER,
    LONG,
    Anchored,
    Connection,
    Outcome,
    Span,
    broken_promises,
    summary,
)

BEGAN, ENDED = 1000.0, 1060.0


def good() -> Outcome:
    """Two routers; the first is not needed after 20 s and is released 5 s later."""
    outcome = Outcome(BEGAN, ENDED)
    outcome.stays = [Span(begin=1000.0, end=1010.0, what="mar1"), Span(begin=1010.1, end=ENDED, what="mar2")]
    outcome.usable = [1002.0, 1012.0]
    first = Anchored(anchor="mar1", prefix="2001:db8:1000::/64", needed_until=1020.0, released=1025.0)
    first.states = [
        Span(begin=1000.0, end=1010.0, what="local"),
        Span(begin=1010.0, end=1025.0, what="remote"),
        Span(begin=1025.0, end=ENDED, what="released"),
    ]
    second = Anchored(anchor="mar2", prefix="2001:db8:2000::/64", needed_until=ENDED)
    second.states = [Span(begin=1010.0, end=ENDED, what="local")]
    outcome.anchors = [first, second]
    outcome.connections = [Connection(begin=1001.0, end=1020.0, anchor="mar1", octets=5) for _ in LONG]
    outcome.shorts = [Span(begin=1003.0, end=1003.0, what="mar1"), Span(begin=1040.0, end=1040.0, what="mar2")]
    outcome.lost = [2]
    return outcome


def test_a_good_walk_breaks_no_promise() -> None:
    assert list(broken_promises(good())) == []
    assert "every promise held" in summary(good())


def test_an_anchor_that_is_not_released_is_told() -> None:
    outcome = good()
    outcome.anchors[0].released = None
    outcome.anchors[0].needed_until = ENDED - IDLE_AFTER - GRACE - 1.0
    assert any("mar1 still serves" in line for line in broken_promises(outcome))


def test_an_anchor_that_is_needed_may_live() -> None:
    outcome = good()
    outcome.anchors.append(Anchored(anchor="mar3", prefix="2001:db8:3000::/64", needed_until=ENDED))
    assert list(broken_promises(outcome)) == []


def test_a_release_of_what_is_needed_is_told() -> None:
    outcome = good()
    outcome.anchors[0].needed_until = 1026.0
    assert list(broken_promises(outcome)) == ["mar1 released 2001:db8:1000::/64 while it was needed"]


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda outcome: outcome.connections.pop(), "4 of 5 long connections came about"),
        (lambda outcome: setattr(outcome.connections[0], "error", "ECONNRESET"), "broke: ECONNRESET"),
        (lambda outcome: setattr(outcome.shorts[0], "what", ""), "1 of 2 short connections failed"),
        (lambda outcome: setattr(outcome, "misplaced", 3), "3 short connections were not on the prefix"),
        (lambda outcome: outcome.lost.append(11), "move 2: 11 datagrams were lost"),
        (lambda outcome: setattr(outcome.anchors[0], "released", None), "no anchor ended"),
    ],
)
def test_each_broken_promise_is_told(spoil: object, told: str) -> None:
    outcome = good()
    spoil(outcome)  # type: ignore[operator]
    assert any(told in line for line in broken_promises(outcome))


def test_the_summary_says_when_each_anchor_was_released() -> None:
    text = summary(good())
    assert "released after" in text
    assert "5.0 s" in text
    assert "in use to the end" in text


def test_json_is_plain_and_counts_from_the_beginning() -> None:
    data = good().as_json()
    assert data["seconds"] == 60.0
    assert data["stays"][1] == [10.1, 60.0, "mar2"]
    assert data["anchors"][0]["released_after_s"] == 5.0
    assert data["short_connections"] == {"opened": 2, "failed": 0, "on_another_prefix": 0}


def test_the_picture_is_well_formed_and_shows_every_prefix_and_its_release() -> None:
    picture = draw(good())
    root = ElementTree.fromstring(picture)
    tips = [each.text or "" for each in root.iter("{http://www.w3.org/2000/svg}title")]
    assert "2001:db8:1000::/64: remote" in tips
    assert "2001:db8:2000::/64: local" in tips
    assert picture.count('class="released"') == 1
