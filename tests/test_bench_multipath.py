"""The bench of two uplinks says what it found, and whether that is what was wanted."""

from bench.figures import Figure
from bench.multipath import Settings, as_json, table

RATIO = Figure("per_packet", "one stream", 1.9, "x", 1.8)
GAP = Figure("gap", "longest gap", 160.0, "ms", 150.0, most=True)


def test_a_figure_holds_on_the_right_side_of_what_is_wanted() -> None:
    assert RATIO.holds
    assert not GAP.holds
    assert not Figure("per_packet", "one stream", 1.7, "x", 1.8).holds


def test_the_table_names_what_does_not_hold() -> None:
    first, second = table([RATIO, GAP]).splitlines()
    assert first.endswith(">= 1.8   holds")
    assert second.endswith("<= 150   DOES NOT HOLD")


def test_json_has_every_figure_by_its_key() -> None:
    found = as_json(Settings(), [RATIO, GAP])
    assert {key: each["holds"] for key, each in found["figures"].items()} == {"per_packet": True, "gap": False}
    assert found["settings"]["cycles"] == 20
