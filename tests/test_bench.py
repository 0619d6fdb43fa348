"""The bench of tunnels says what it found: table, JSON, picture; and one very short run leaves nothing behind."""

import argparse
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from bench import tunnel, tunnel_end
from bench.contenders import Kind, Programs, compile_programs, contenders
from bench.measures import METRICS, TCP_RUNS, Sample, Settings, choose_tools, percentile_99
from bench.picture import PANELS, draw
from bench.results import Report, Row, as_json, best, ratios, table
from router.demo.lab import PROJECT
from tests.eventually import eventually
from tests.namespaces import why_no_lab

NOTHING_COMPILED = Programs(None, None, "no C compiler")
LESS = {metric.key for metric in METRICS if metric.less_is_better}


def sample(value: float) -> Sample:
    """Every metric has this value."""
    return Sample({metric.key: value for metric in METRICS}, round_trips=[value, value * 2], pings_lost=1)


def row(name: str, kind: Kind, *values: float) -> Row:
    return Row(name, f"a {name}", kind, [sample(value) for value in values])


@pytest.fixture
def report() -> Report:
    return Report(
        settings=Settings(rounds=3, seconds=0.5, pings=2),
        tools={"tcp": "iperf3", "udp": "blast.c", "ping": "blast.c"},
        rows=[
            row("direct", Kind.DIRECT, 40.0, 20.0, 30.0),
            row("seg6", Kind.KERNEL, 10.0, 10.0, 10.0),
            row("udp6", Kind.OURS, 15.0, 15.0, 16.0),
            row("fastd", Kind.PEER, 1.0, 2.0, 3.0),
            row("openvpn", Kind.PEER, 4.0, 5.0, 6.0),
            Row("gre6", "openmar gre6", Kind.OURS, skipped="the engine has no <open_gre>"),
        ],
        machine={"cpu": "Imaginary & Sons <9000>", "cpus": 2, "kernel": "6.1", "load": 0.0},
        versions={"openmar": "0.1.0"},
        began="2026-01-01T00:00:00+00:00",
    )


# What is written


def test_medians_are_over_the_rounds(report: Report) -> None:
    assert set(report.rows[0].medians().values()) == {30.0}


def test_who_was_not_measured_has_no_medians(report: Report) -> None:
    assert report.rows[-1].medians() == {}


def test_the_best_peer_is_the_best_in_each_metric(report: Report) -> None:
    reference = report.references()["best peer"]
    assert {key: value for key, value in reference.items() if key in LESS} == dict.fromkeys(LESS, 2.0)
    assert {value for key, value in reference.items() if key not in LESS} == {5.0}


def test_everybody_is_compared_with_no_tunnel_the_kernel_and_the_peers(report: Report) -> None:
    assert list(report.references()) == ["direct", "seg6", "best peer"]


def test_each_bare_loop_is_a_reference_of_its_own(report: Report) -> None:
    report.rows += [row("bare-udp6", Kind.BARE, 20.0), row("bare-ip6", Kind.BARE, 5.0), Row("x", "an x", Kind.BARE)]
    assert {"bare-udp6", "bare-ip6"} == set(report.references()) - {"direct", "seg6", "best peer"}


def test_a_ratio_is_the_value_through_that_of_the_reference() -> None:
    assert ratios({"cpu": 3.0, "tcp_1_out": 8.0}, {"cpu": 2.0, "tcp_1_out": 0.0}) == {"cpu": 1.5}


def test_the_best_of_nobody_is_nothing() -> None:
    assert best([]) == {}


def test_the_table_has_a_line_for_each_contender_and_each_reference(report: Report) -> None:
    lines = table(report).splitlines()
    starts = [line.split()[0] for line in lines if line.strip()]
    assert starts.count("udp6") == 1 + len(report.references())
    assert [line for line in lines if line.startswith("/ seg6")]
    assert "gre6: skipped: the engine has no <open_gre>" in lines


def test_the_table_shows_medians_and_ratios(report: Report) -> None:
    ours = [line.split()[1:] for line in table(report).splitlines() if line.startswith("udp6")]
    assert ours[0] == [f"{15.0:.{metric.digits}f}" for metric in METRICS]
    assert ours[2] == ["1.50"] * len(METRICS)  # beside seg6


def test_the_table_tells_of_failures(report: Report) -> None:
    report.rows[2].failures.append("round 2/3: far does not answer")
    assert "udp6: failed: round 2/3: far does not answer" in table(report)


def test_the_json_has_every_sample_and_what_it_was_measured_with(report: Report) -> None:
    written = json.loads(as_json(report))
    assert written["machine"]["cpu"] == "Imaginary & Sons <9000>"
    assert written["settings"]["udp_payloads"] == {"udp_small": 64, "udp_large": 1300}
    assert written["settings"]["overlay_mtu"] < written["settings"]["link_mtu"]
    direct, *_, gre6 = written["contenders"]
    assert [each["values"]["cpu"] for each in direct["samples"]] == [40.0, 20.0, 30.0]
    assert direct["samples"][0]["round_trips"] == [40.0, 80.0]
    assert direct["ratios"]["seg6"]["tcp_1_out"] == 3.0
    assert gre6["samples"] == []
    assert gre6["skipped"] == "the engine has no <open_gre>"


def test_the_picture_is_well_formed_and_names_every_contender(report: Report) -> None:
    picture = ElementTree.fromstring(draw(report))
    words = [element.text for element in picture.iter("{http://www.w3.org/2000/svg}text")]
    for each in report.measured:
        assert words.count(each.title) == len(PANELS)
    assert any("Imaginary & Sons <9000>" in (each or "") for each in words)


def test_the_longest_bar_of_a_panel_stays_within_the_picture(report: Report) -> None:
    picture = ElementTree.fromstring(draw(report))
    width = float(picture.attrib["width"])
    bars = [each for each in picture.iter("{http://www.w3.org/2000/svg}rect") if each.attrib["class"] != "back"]
    assert len(bars) == len(report.measured) * sum(len(panel.keys) for panel in PANELS)
    assert all(float(each.attrib["x"]) + float(each.attrib["width"]) < width for each in bars)


def test_a_picture_of_nothing_can_be_drawn(report: Report) -> None:
    report.rows.clear()
    ElementTree.fromstring(draw(report))


def test_every_metric_is_in_one_panel() -> None:
    assert sorted(key for panel in PANELS for key in panel.keys) == sorted(metric.key for metric in METRICS)


def test_one_in_a_hundred_exceeds_the_99th_percentile() -> None:
    assert percentile_99([float(number) for number in range(101)]) == 99.0
    assert percentile_99([7.0]) == 7.0


# Options and contenders


def test_the_options_have_values_when_nothing_is_said() -> None:
    chosen = tunnel.parser().parse_args([])
    assert (chosen.rounds, chosen.seconds, chosen.only, chosen.list) == (3, 2.0, [], False)


def test_the_options_are_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # that the files can be written is tried at once
    words = ["--rounds", "5", "--seconds", "0.3", "--only", "direct,udp6", "--json", "a.json", "--svg", "a.svg"]
    chosen = tunnel.parser().parse_args(words)
    assert (chosen.rounds, chosen.seconds, chosen.only) == (5, 0.3, ["direct", "udp6"])
    assert (chosen.json, chosen.svg) == (Path("a.json").resolve(), Path("a.svg").resolve())


@pytest.mark.parametrize("wrong", ["--rounds 0", "--seconds 0", "--seconds nan", "--only direct,teleport"])
def test_a_wrong_option_is_refused(wrong: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        tunnel.parser().parse_args(wrong.split())
    assert ended.value.code == 2
    assert wrong.split()[0] in capsys.readouterr().err


def test_an_unknown_contender_is_answered_with_those_there_are() -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=r"no contender teleport; there are direct, seg6, udp6"):
        tunnel.names("teleport")


def test_without_a_compiler_the_bare_loop_says_so() -> None:
    known = contenders(NOTHING_COMPILED, 2)
    assert known["bare-udp6"].why_not() == known["bare-ip6"].why_not() == "no C compiler"


def test_without_any_compiler_installed_nothing_is_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert compile_programs(tmp_path) == NOTHING_COMPILED


def test_a_program_that_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert contenders(NOTHING_COMPILED, 2)["fastd"].why_not() == "fastd is not installed"


def test_each_of_our_underlays_is_a_contender() -> None:
    assert set(tunnel_end.UNDERLAYS) < set(contenders(NOTHING_COMPILED, 2))


def test_iperf3_is_not_asked_for_less_than_a_second() -> None:
    assert choose_tools(None, 0.3).iperf3 is None
    assert choose_tools(None, 0.3).names == {"tcp": "blast.py", "udp": "blast.py", "ping": "blast.py"}


# For real


@pytest.mark.namespaces
@pytest.mark.skipif(why_no_lab() is not None, reason=str(why_no_lab()))
@pytest.mark.parametrize("path", [os.environ["PATH"], None], ids=["with what is installed", "with Python alone"])
def test_a_very_short_run_measures_everything_and_leaves_nothing(path: str | None, tmp_path: Path) -> None:
    places = tmp_path / "places"
    places.mkdir()
    command = [sys.executable, "-m", "bench.tunnel", "--seconds", "0.3", "--rounds", "1", "--pings", "5"]
    command += ["--only", "direct", "--json", str(tmp_path / "found.json"), "--svg", str(tmp_path / "found.svg")]
    environment = os.environ | {"PATH": path or str(places), "TMPDIR": str(places)}
    done = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr.decode()
    direct = json.loads((tmp_path / "found.json").read_text())["contenders"][0]
    assert all(direct["medians"][key] > 0 for key in (*TCP_RUNS, "udp_small", "udp_large", "ping_median", "ping_p99"))
    assert ElementTree.parse(tmp_path / "found.svg").getroot().tag.endswith("svg")
    assert list(places.iterdir()) == []


@pytest.mark.namespaces
@pytest.mark.skipif(why_no_lab() is not None, reason=str(why_no_lab()))
def test_a_run_that_is_stopped_leaves_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bench.tunnel", "--seconds", "30", "--only", "direct"]
    stopped = subprocess.Popen(command, cwd=PROJECT, env=os.environ | {"TMPDIR": str(tmp_path)}, stderr=subprocess.PIPE)
    eventually(lambda: any(tmp_path.rglob("blast")), 10.0, "it has begun")
    stopped.send_signal(signal.SIGINT)
    stopped.communicate(timeout=20)
    assert stopped.returncode == 128 + signal.SIGINT
    assert list(tmp_path.iterdir()) == []
