"""The walk over four MARs: what it promises is judged from what was seen, and drawn."""

from collections.abc import Callable
from xml.etree import ElementTree

import pytest

from router.demo import play
from router.demo.anchors_outcome import (
    GRACE,
    IDLE_AFTER,
    LONG,
    SHORTEST_STAY,
    SHORTEST_WALK,
    Anchored,
    Connection,
    Outcome,
    Short,
    Span,
    broken_promises,
    late_promises,
    summary,
    too_short,
)
from router.demo.anchors_picture import draw
from router.errors import ConfigError

BEGAN, ENDED = 1000.0, 1060.0
P1, P2 = "2001:db8:1000::/64", "2001:db8:2000::/64"

Spoil = Callable[[Outcome], object]


def good() -> Outcome:
    """From mar1, which is needed all the time, to mar3, to mar2 and back to mar3, which was released meanwhile."""
    outcome = Outcome(BEGAN, ENDED)
    outcome.stays = [
        Span(begin=1000.0, end=1010.0, what="mar1"),
        Span(begin=1010.1, end=1040.0, what="mar3"),
        Span(begin=1040.1, end=1050.0, what="mar2"),
        Span(begin=1050.1, end=ENDED, what="mar3"),
    ]
    outcome.usable = [1002.0, 1012.0, 1042.0, 1050.1]
    outcome.anchors = [
        anchored("mar1", P1, (1000.0, "local"), (1010.0, "remote")),
        anchored("mar3", "2001:db8:3000::/64", (1010.1, "local"), (1040.0, "remote"), (1042.2, "released")),
        anchored("mar2", P2, (1040.1, "local"), (1050.0, "remote"), (1052.2, "released")),
        anchored("mar3", "2001:db8:3000::/64", (1050.1, "local")),
    ]
    outcome.connections = [
        Connection(number=number, begin=1001.0, end=1020.0, anchor="mar1", octets=5) for number, _ in enumerate(LONG, 1)
    ]
    outcome.shorts = [
        Short(begin=1003.0, end=1003.1, anchor="mar1"),
        Short(begin=1044.0, end=1044.1, anchor="mar2"),
    ]
    outcome.lost = [2, 0, 0]
    outcome.conclude()
    return outcome


def anchored(router: str, prefix: str, *states: tuple[float, str]) -> Anchored:
    ends = [begin for begin, _ in states[1:]] + [ENDED]
    spans = [Span(begin=begin, end=end, what=what) for (begin, what), end in zip(states, ends, strict=True)]
    return Anchored(anchor=router, prefix=prefix, states=spans)


def promises(outcome: Outcome) -> list[str]:
    return [*broken_promises(outcome), *late_promises(outcome)]


def row(outcome: Outcome, anchor: str) -> list[str]:
    return [line for line in summary(outcome).splitlines() if line.startswith(anchor)]


def test_a_good_walk_breaks_no_promise() -> None:
    outcome = good()
    outcome.judge(0.0)
    assert promises(outcome) == []
    assert summary(outcome).endswith("every promise held")


# --- how long anchors are needed ---


def test_each_time_that_a_router_anchors_a_prefix_is_a_row_of_its_own() -> None:
    first, second = row(good(), "mar3")
    assert first.split()[2:5:2] == ["10.1", "42.2"]
    assert second.split()[2:5:2] == ["50.1", "60.0"]


def test_nobody_needs_an_anchor_for_longer_than_it_is_one() -> None:
    outcome = good()
    assert all(each.needed_until <= (each.released or ENDED) for each in outcome.anchors)
    outcome.connections[0].end = ENDED + 0.3  # ends a little after it was asked to
    outcome.conclude()
    assert all(each.needed_until <= (each.released or ENDED) for each in outcome.anchors)


def test_who_needed_it_last_is_told() -> None:
    outcome = good()
    outcome.connections[3].anchor, outcome.connections[3].end = "mar3", 1041.0
    outcome.conclude()
    assert [each.needed_by for each in outcome.anchors] == [
        "the datagrams",
        "long connection 4",
        "the node, there",
        "the node, there",
    ]
    assert outcome.anchors[1].lingered == 1.2


def test_a_short_connection_needs_its_anchor_too() -> None:
    outcome = good()
    outcome.shorts.append(Short(begin=1051.0, end=1051.5, anchor="mar2"))
    outcome.conclude()
    assert (outcome.anchors[2].needed_until, outcome.anchors[2].needed_by) == (1051.5, "a short connection")


def test_what_nobody_used_is_not_said_to_be_in_use() -> None:
    outcome = good()
    assert row(outcome, "mar1")[0].endswith("in use to the end")
    outcome.anchors[2].states.pop()
    outcome.conclude()
    assert row(outcome, "mar2")[0].endswith("not yet, idle for 10.0 s")


# --- promises ---


def test_an_anchor_that_is_not_released_is_told() -> None:
    outcome = good()
    outcome.anchors[2].states.pop()
    outcome.conclude()
    told = f"mar2 served {P2} for 9.9 s in which nobody needed it and its node stayed"
    assert promises(outcome) == [told]


def test_silence_counts_anew_at_each_router_the_node_comes_to() -> None:
    outcome = good()
    outcome.anchors[2].states.pop()
    outcome.stays.pop()
    stay = IDLE_AFTER + GRACE - 0.1
    outcome.stays += [
        Span(begin=begin, end=begin + stay, what=f"mar{3 + number % 2}")
        for number, begin in enumerate((1050.1, 1053.5, 1056.9))
    ]
    outcome.conclude()
    assert promises(outcome) == []


def test_a_release_of_what_is_needed_is_told() -> None:
    outcome = good()
    outcome.connections[1].anchor, outcome.connections[1].end = "mar2", 1055.0
    outcome.connections[1].begin = 1045.0
    outcome.conclude()
    assert promises(outcome) == [f"mar2 released {P2} while it was needed by long connection 2"]


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda outcome: setattr(outcome.connections[0], "error", "ECONNRESET"), "broke: ECONNRESET"),
        (lambda outcome: outcome.shorts.clear(), "no short connection was begun"),
        (lambda outcome: [setattr(each, "released", None) for each in outcome.anchors], "no anchor ended"),
    ],
)
def test_a_broken_promise_is_told_however_busy_the_machine_was(spoil: Spoil, told: str) -> None:
    outcome = good()
    spoil(outcome)
    outcome.judge(0.9)
    assert any(told in line for line in outcome.broken)


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda outcome: outcome.connections.pop(), "4 of 5 long connections came about"),
        (lambda outcome: setattr(outcome.shorts[0], "error", "ETIMEDOUT"), "1 of 2 short connections failed"),
        (lambda outcome: setattr(outcome.shorts[0], "anchor", "mar2"), "1 short connections were not on the prefix"),
        (lambda outcome: outcome.lost.__setitem__(1, 11), "move 2: 11 datagrams were lost"),
    ],
)
def test_what_a_busy_machine_may_break_by_itself_is_a_warning_there(spoil: Spoil, told: str) -> None:
    idle, busy = good(), good()
    for outcome, others in ((idle, 0.03), (busy, 0.63)):
        spoil(outcome)
        outcome.judge(others)
    assert [told in line for line in idle.broken] == [True]
    assert "(other programs took 3% of the processors)" in idle.broken[0]
    assert busy.broken == []
    assert told in busy.warnings[0]
    assert "other programs took 63% of the processors meanwhile" in busy.warnings[0]
    assert summary(busy).endswith("every other promise held")
    assert busy.as_json()["warnings"] == busy.warnings


def test_a_connection_from_a_released_address_is_told_and_not_held_against_the_routers() -> None:
    outcome = good()
    outcome.usable[3] = 1055.0
    outcome.shorts.append(Short(begin=1053.0, end=1058.0, anchor="mar2", error="ETIMEDOUT"))
    outcome.conclude()
    outcome.judge(0.0)
    assert outcome.broken == []
    assert "1 short connections were begun when the node had no address of the place yet" in outcome.warnings[0]
    assert outcome.as_json()["short_connections"] == {
        "opened": 3,
        "failed": 0,
        "from_released_addresses": 1,
        "on_another_prefix": 0,
    }


@pytest.mark.parametrize(
    ("begin", "anchor"), [(1053.0, "mar2"), (1045.0, "mar1")], ids=["with-an-address-of-the-place", "of-a-live-anchor"]
)
def test_no_other_failure_is_taken_for_one_from_a_released_address(begin: float, anchor: str) -> None:
    outcome = good()
    outcome.usable[2] = None
    outcome.shorts.append(Short(begin=begin, end=begin + 1, anchor=anchor, error="ETIMEDOUT"))
    outcome.judge(0.0)
    assert any("1 of 3 short connections failed" in line for line in outcome.broken)


# --- how long a walk has to be ---


@pytest.mark.parametrize(
    ("seconds", "stay", "told"),
    [
        (60.0, 4.0, ""),
        (SHORTEST_WALK, SHORTEST_STAY, ""),
        (12.0, 2.0, "--stay 2: needed are 3.5 s at least"),
        (12.0, 4.0, "--seconds 12: with --stay 4 needed are 20 s at least"),
        (40.0, 20.0, "--seconds 40: with --stay 20 needed are 60 s at least"),
    ],
)
def test_a_walk_too_short_for_what_is_promised_is_refused(seconds: float, stay: float, told: str) -> None:
    assert too_short(seconds, stay).startswith(told)
    assert bool(too_short(seconds, stay)) == bool(told)


def test_the_command_says_so_in_a_line_before_anything_is_started() -> None:
    with pytest.raises(ConfigError, match=r"--stay 2: needed are 3\.5 s") as told:
        play.main(["anchors", "--seconds", "12", "--stay", "2"])
    assert "\n" not in str(told.value)


# --- as data and as a picture ---


def test_json_is_plain_and_counts_from_the_beginning() -> None:
    data = good().as_json()
    assert data["seconds"] == 60.0
    assert data["stays"][1] == [10.1, 40.0, "mar3"]
    assert data["anchors"][2]["released_after_s"] == 2.2
    assert data["anchors"][2]["needed_until"] == 50.0
    assert data["short_connections"]["opened"] == 2


def test_the_picture_is_well_formed_and_shows_every_prefix_and_its_releases() -> None:
    picture = draw(good())
    root = ElementTree.fromstring(picture)
    tips = [each.text or "" for each in root.iter("{http://www.w3.org/2000/svg}title")]
    assert f"{P1}: remote" in tips
    assert f"{P2}: local" in tips
    assert picture.count('class="released"') == 2
    assert "3 prefixes lent, 2 times one was released" in picture
