"""`python -m router demo` as a user runs it: in a process of its own, which makes its own namespaces.

What it promises of time is for whoever runs it to see; here everything else it says is held to.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.eventually import eventually

pytestmark = pytest.mark.alone

PROJECT = Path(__file__).parents[2]
WITHIN = 120.0  # s
MOVES = [("mar1", "mar2"), ("mar2", "mar3"), ("mar3", "mar1")]


def demo(*arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "router", "demo", *arguments],
        cwd=PROJECT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


@pytest.fixture(scope="module")
def underlay(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo") / "underlay.pcapng"


@pytest.fixture(scope="module")
def summary(underlay: Path) -> dict[str, Any]:
    process = demo("-j", "--stay", "1", "--pcap", str(underlay))
    out, err = process.communicate(timeout=WITHIN)
    assert out, err
    return json.loads(out)


def test_the_node_makes_the_round(summary: dict[str, Any]) -> None:
    assert [(item["from"], item["to"]) for item in summary["handovers"]] == MOVES


def test_no_long_connection_breaks_and_every_octet_is_right(summary: dict[str, Any]) -> None:
    assert summary["tcp"]["bytes"] > 1_000_000
    assert summary["tcp"]["uploaded_bytes"] > 100_000
    assert (summary["tcp"]["resets"], summary["tcp"]["corrupt_bytes"]) == (0, 0)


def test_after_each_move_the_old_address_is_reached_through_the_new_router(summary: dict[str, Any]) -> None:
    assert all(item["rs_to_first_packet_ms"] is not None for item in summary["handovers"])


def test_new_connections_use_the_prefix_of_the_router_where_the_node_is(summary: dict[str, Any]) -> None:
    assert all(item["new_connection_prefix_ok"] for item in summary["handovers"])


def test_local_traffic_never_meets_a_tunnel(summary: dict[str, Any]) -> None:
    assert summary["local_traffic_bypassed_tun"] is True


def test_the_protocol_oracle_finds_no_malformed_packet_on_the_underlay(
    summary: dict[str, Any], underlay: Path
) -> None:
    tshark = shutil.which("tshark")
    if tshark is None:
        assert not os.environ.get("CI"), "tshark is the oracle of this test: apt install tshark"
        pytest.skip("no tshark here: apt install tshark")
    assert numbers(tshark, underlay, "_ws.malformed") == []
    assert len(numbers(tshark, underlay, "mipv6")) >= 12  # six updates and their acknowledgements, at the least


def numbers(tshark: str, capture: Path, matching: str) -> list[str]:
    command = [tshark, "-r", str(capture), "-Y", matching, "-T", "fields", "-e", "frame.number"]
    found = subprocess.run(command, capture_output=True, text=True, timeout=WITHIN)
    assert found.returncode == 0, found.stderr
    return found.stdout.split()


def test_an_interrupted_demo_leaves_nothing_behind() -> None:
    process = demo("--stay", "5")
    assert process.stdout is not None
    for line in process.stdout:
        if "appears at mar1" in line:
            break
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=WITHIN)
    assert process.returncode != 0
    assert "Traceback" not in err
    eventually(lambda: not routers_of_a_demo(), what="every router of the demo to end")


def routers_of_a_demo() -> list[str]:
    found = []
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = place.read_bytes().split(b"\0")
        except OSError:
            continue
        if b"--mar" in words and any(word.endswith(b"/mar1.toml") and b"pytest" not in word for word in words):
            found.append(place.parent.name)
    return found
