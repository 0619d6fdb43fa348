"""`python -m router capture`: what it asks, what it writes, how it ends, and that the taps are closed whatever happens.

    capture --Unix socket--> ControlServer -- a router of which there is only what a capture needs
"""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from io import BytesIO
from ipaddress import IPv6Address, IPv6Network
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import engine
from engine import Encapsulation, Engine, NotCompiled, Side, Tables, Tunnel
from engine.capture import INBOUND, OUTBOUND, Capture, Record
from router.cli import _capture_parser, main
from router.config import load
from router.control import commands
from router.control.client import Client
from router.control.save import Blocks
from router.control.server import ControlServer
from router.errors import ExitCode, RouterError
from router.packets import Packets
from tests.eventually import eventually
from tests.router.capturing import capturing
from tests.router.test_cli import HEAVY
from tests.router.test_control import answering, ask, full_backlog, somebody_else

PROJECT = Path(__file__).resolve().parents[2]
LOCAL, MAR2, MAR3 = (IPv6Address(f"2001:db8:ff::{n}") for n in (1, 2, 3))
ROAMING = IPv6Address("2001:db8:77::1")
TUNNEL = Tunnel(local=LOCAL, remote=MAR2, encapsulation=Encapsulation.UDP)
RECORD: Record = (1_700_000_000_000_000_000, OUTBOUND, 41, b"\x60" + bytes(40))


@dataclass
class Taps:
    """The packets of a router, as far as a capture sees them."""

    compiled: bool = True
    waiting: list[Record] = field(default_factory=list)
    lost: int = 0
    asked: list[tuple[Tunnel | None, bool]] = field(default_factory=list)
    open: bool = False
    readings: int = 0

    def open_tap(self, tunnel: Tunnel | None, *, outer: bool = False) -> None:
        if not self.compiled:
            raise NotCompiled("no capture", why="the model has no tap", cure="build the compiled path: make build")
        assert not self.open
        self.open = True
        self.asked.append((tunnel, outer))

    def read_tap(self) -> list[Record]:
        self.readings += 1
        records, self.waiting = self.waiting, []
        return records

    def close_tap(self) -> tuple[list[Record], int]:
        self.open = False
        return self.read_tap(), self.lost


class Running:
    """A control server in a thread of its own."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.taps = Taps()
        self.tables = Tables()
        peers = tuple(SimpleNamespace(name=name, address=at) for name, at in (("mar2", MAR2), ("mar3", MAR3)))
        self.router = SimpleNamespace(
            config=SimpleNamespace(peers=peers, encapsulation=Encapsulation.UDP),
            underlay=SimpleNamespace(address=LOCAL),
            tables=self.tables,
            packets=self.taps,
            role=SimpleNamespace(door=SimpleNamespace(peer={ROAMING: SimpleNamespace(name="bus1")}.get)),
        )
        self.loop = asyncio.new_event_loop()
        self._server = ControlServer(self.router)  # type: ignore[arg-type]
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)

    def start(self) -> None:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._server.start(self.path), self.loop).result(5)

    def stop(self) -> None:
        asyncio.run_coroutine_threadsafe(self._server.stop(), self.loop).result(5)

    def close(self) -> None:
        self.stop()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(5)
        self.loop.close()


@pytest.fixture
def router(tmp_path: Path) -> Iterator[Running]:
    running = Running(tmp_path / "s")
    running.start()
    yield running
    running.close()


def told(file: Path) -> tuple[int, int | None]:
    """Packets in a file, and how many were lost; of whole blocks and nothing else."""
    blocks, octets = Blocks(), file.read_bytes()
    assert blocks.whole(octets) == octets
    return blocks.packets, blocks.lost


# What it writes


def test_what_went_through_the_tunnel_is_in_the_file(
    router: Running, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "t.pcapng"
    records = [RECORD, (RECORD[0] + 1, INBOUND, 1500, b"\x45" * 70), RECORD]
    router.taps.waiting, router.taps.lost = list(records), 7
    assert main(["capture", "mar2", str(file), "--count", "3", "--socket", str(router.path)]) == ExitCode.DONE
    expected = BytesIO()
    capture = Capture(expected, tunnel="mar2")
    capture.feed(records)
    capture.close(lost=7)
    assert file.read_bytes() == expected.getvalue()
    assert capsys.readouterr().out == f"3 packets written to {file}, 7 lost\n"
    eventually(lambda: not router.taps.open)


def test_a_count_is_kept_to_the_packet(router: Running, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    router.taps.waiting = [RECORD] * 50
    file = tmp_path / "t"
    assert main(["capture", "all", str(file), "--count", "1", "-j", "--socket", str(router.path)]) == ExitCode.DONE
    assert told(file) == (1, 0)
    assert json.loads(capsys.readouterr().out) == {"packets": 1, "lost": 0}


def test_standard_output_gets_the_packets_and_nothing_else(router: Running) -> None:
    router.taps.waiting = [RECORD]
    command = [sys.executable, "-m", "router", "capture", "mar2", "-", "--count", "1", "--socket", str(router.path)]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, timeout=20)
    blocks = Blocks()
    assert blocks.whole(done.stdout) == done.stdout
    assert (done.returncode, blocks.packets) == (ExitCode.DONE, 1)
    assert done.stderr.decode().splitlines()[-1] == "1 packet written to standard output, 0 lost"


def test_a_terminal_gets_no_packets(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert main(["capture", "mar2", "-", "--socket", str(tmp_path / "s")]) == ExitCode.USAGE
    assert "standard output is a terminal" in capsys.readouterr().err


def test_packets_are_in_the_file_while_it_grows(router: Running, tmp_path: Path) -> None:
    file = tmp_path / "t"
    with capturing(router.path, "mar2", str(file)):
        for n in range(1, 4):
            router.taps.waiting = [RECORD]
            eventually(lambda n=n: told(file) == (n, None))


def test_blocks_are_whole_however_the_octets_come() -> None:
    whole = BytesIO()
    capture = Capture(whole, tunnel="t")
    capture.feed([RECORD] * 3)
    capture.close(lost=2)
    for size in (1, 5, 64):
        blocks, octets = Blocks(), b""
        for at in range(0, len(whole.getvalue()), size):
            octets += blocks.whole(whole.getvalue()[at : at + size])
        assert (octets, blocks.packets, blocks.lost) == (whole.getvalue(), 3, 2)


# What it asks for


@pytest.mark.parametrize(
    ("name", "tunnel"),
    [
        ("all", None),
        ("mar2", TUNNEL),
        ("2001:db8:ff::2", TUNNEL),
        ("2001:DB8:FF:0::2", TUNNEL),
        ("mar3", replace(TUNNEL, remote=MAR3)),
    ],
)
@pytest.mark.parametrize("outer", [False, True])
def test_a_tunnel_has_the_name_or_the_address_of_its_peer(
    router: Running, tmp_path: Path, name: str, tunnel: Tunnel | None, outer: bool
) -> None:
    router.taps.waiting = [RECORD]
    arguments = ["capture", name, str(tmp_path / "t"), "--count", "1", "--socket", str(router.path)]
    assert main(arguments + ["--outer"] * outer) == ExitCode.DONE
    assert router.taps.asked == [(tunnel, outer)]


def test_a_peer_that_roams_is_captured_by_its_name_where_it_is_now(router: Running, tmp_path: Path) -> None:
    here = replace(TUNNEL, remote=ROAMING)
    arguments = ["capture", "bus1", str(tmp_path / "t"), "--count", "1", "--socket", str(router.path)]
    assert main(arguments) == ExitCode.FAILED
    router.tables.bind(IPv6Network("2001:db8:1::/64"), here, side=Side.ANCHOR)
    router.taps.waiting = [RECORD]
    assert main(arguments) == ExitCode.DONE
    assert router.taps.asked == [(here, False)]


def test_a_tunnel_that_is_in_use_is_taken_as_it_is(router: Running, tmp_path: Path) -> None:
    behind_nat = replace(TUNNEL, port=40000)
    router.tables.bind(IPv6Network("2001:db8:1::/64"), behind_nat, side=Side.ANCHOR)
    router.taps.waiting = [RECORD]
    assert main(["capture", "mar2", str(tmp_path / "t"), "--count", "1", "--socket", str(router.path)]) == ExitCode.DONE
    assert router.taps.asked == [(behind_nat, False)]


# How it ends


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_with_all_that_is_due(router: Running, tmp_path: Path, number: int) -> None:
    router.taps.lost = 3
    file = tmp_path / "t"
    with capturing(router.path, "mar2", str(file)) as process:
        router.taps.waiting = [RECORD] * 2
        eventually(lambda: told(file) == (2, None))
        process.send_signal(number)
        out, err = process.communicate(timeout=5)
    assert (process.returncode, err) == (ExitCode.DONE, "")
    assert out == f"2 packets written to {file}, 3 lost\n"
    assert told(file) == (2, 3)
    assert not router.taps.open


def test_a_router_that_ends_ends_it_with_all_that_is_due(router: Running, tmp_path: Path) -> None:
    router.taps.lost = 1
    file = tmp_path / "t"
    with capturing(router.path, "all", str(file)) as process:
        router.stop()
        assert not router.taps.open
        out, err = process.communicate(timeout=5)
    assert (process.returncode, out, err) == (ExitCode.DONE, f"0 packets written to {file}, 1 lost\n", "")


def test_a_client_that_is_killed_closes_the_taps_without_a_packet(router: Running, tmp_path: Path) -> None:
    with capturing(router.path, "mar2", str(tmp_path / "t")) as process:
        assert router.taps.open
        process.kill()
        process.wait(5)
        eventually(lambda: not router.taps.open)
    with capturing(router.path, "mar2", str(tmp_path / "t")):  # and the next may begin
        assert router.taps.open


def test_a_client_that_reads_nothing_makes_nothing_grow_and_holds_up_no_end(router: Running) -> None:
    with closing(Client(router.path).capture("mar2")):
        big = [(RECORD[0], INBOUND, 60000, bytes(60000))] * 40
        router.taps.waiting = list(big)
        before = settled(router.taps)
        router.taps.waiting = list(big)
        assert settled(router.taps) == before  # it waits for the reader; what finds no room in the ring is lost
    eventually(lambda: not router.taps.open)


def settled(taps: Taps) -> int:
    """Readings of the taps when there are no more of them for a while."""
    seen = [taps.readings]

    def same() -> bool:
        seen.append(taps.readings)
        return len(seen) > 40 and len(set(seen[-40:])) == 1

    eventually(same)
    return taps.readings


def test_a_reader_that_has_enough_is_no_error(router: Running) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "router", "capture", "mar2", "-", "--socket", str(router.path)]
    try:
        done = subprocess.run(command, cwd=PROJECT, stdout=writing, stderr=subprocess.PIPE, text=True, timeout=20)
    finally:
        os.close(writing)
    assert done.returncode == ExitCode.DONE
    assert "Error" not in done.stderr
    eventually(lambda: not router.taps.open)


def test_a_capture_that_was_cut_off_is_whole_blocks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = BytesIO()
    Capture(whole, tunnel="t").feed([RECORD] * 2)
    with answering(tmp_path / "s", b"HTTP/1.1 200 OK\r\n\r\n" + whole.getvalue()[:-3]):
        assert main(["capture", "mar2", str(tmp_path / "t"), "--socket", str(tmp_path / "s")]) == ExitCode.DONE
    assert told(tmp_path / "t") == (1, None)
    assert "1 packet written" in (out := capsys.readouterr().out)
    assert "cut off" in out


# What it refuses: a line, a code, and the file as it was


def refused(path: Path, tunnel: str, file: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    code = main(["capture", tunnel, str(file), "--socket", str(path)])
    error = capsys.readouterr().err
    lines = [line for line in error.splitlines() if not line.startswith("capturing ")]
    assert len(lines) == 1, error
    return code, lines[0]


@pytest.mark.parametrize(
    "arguments",
    [[], ["mar2"], ["mar2", "f", "--count", "0"], ["mar2", "f", "--count", "-1"], ["mar2", "f", "--count", "many"]],
    ids=" ".join,
)
def test_a_command_line_that_makes_no_sense_ends_with_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main(["capture", *arguments])
    assert end.value.code == ExitCode.USAGE
    assert "usage: python -m router capture" in capsys.readouterr().err


def test_an_unknown_tunnel_is_answered_with_those_there_are(
    router: Running, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    router.tables.bind(IPv6Network("2001:db8:1::/64"), replace(TUNNEL, remote=LOCAL + 8), side=Side.ANCHOR)
    (tmp_path / "t").write_text("precious")
    for name in ("mar9", "2001:db8:ff::99", ""):
        assert refused(router.path, name, tmp_path / "t", capsys) == (
            ExitCode.FAILED,
            f"openmar: capture {name}: no such tunnel: there are: mar2 (2001:db8:ff::2), mar3 (2001:db8:ff::3), "
            "2001:db8:ff::9, all",
        )
    assert (tmp_path / "t").read_text() == "precious"


def test_a_second_capture_is_refused_and_the_first_goes_on(
    router: Running, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with capturing(router.path, "mar2", str(tmp_path / "one")):
        code, error = refused(router.path, "all", tmp_path / "two", capsys)
        assert code == ExitCode.FAILED
        assert re.fullmatch(
            r"openmar: capture all: a capture of mar2 is running already, for \d+ s: stop it first: .*", error
        )
        assert not (tmp_path / "two").exists()
        router.taps.waiting = [RECORD]
        eventually(lambda: told(tmp_path / "one") == (1, None))


def test_the_model_has_no_tap(router: Running, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    router.taps.compiled = False
    for _ in range(2):
        code, error = refused(router.path, "mar2", tmp_path / "t", capsys)
        assert (code, "the model has no tap; build" in error) == (ExitCode.FAILED, True)


def test_no_router_is_code_3(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, error = refused(tmp_path / "s", "mar2", tmp_path / "t", capsys)
    assert (code, "no router listens there: start one" in error) == (ExitCode.NOT_RUNNING, True)
    assert not (tmp_path / "t").exists()


def test_a_router_that_accepts_nobody_is_code_4(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with full_backlog(tmp_path / "s"):
        assert refused(tmp_path / "s", "mar2", tmp_path / "t", capsys)[0] == ExitCode.TIMED_OUT


@pytest.mark.parametrize("answer", [b"", b"220 mail\r\n", b"HTTP/1.1 200 OK\r\n\r\n<html>no capture at all</html>"])
def test_somebody_else_there_is_code_3(tmp_path: Path, answer: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    with answering(tmp_path / "s", answer):
        assert refused(tmp_path / "s", "mar2", tmp_path / "t", capsys)[0] == ExitCode.NOT_RUNNING


@pytest.mark.parametrize(
    ("file", "why"),
    [
        ("nowhere/t", "no such file or directory"),
        (".", "is a directory"),
        ("/dev/full", "no space left on device"),
    ],
)
def test_a_file_that_cannot_be_written_is_explained_and_the_taps_are_closed(
    router: Running, tmp_path: Path, file: str, why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, error = refused(router.path, "mar2", tmp_path / file, capsys)
    assert (code, error) == (
        ExitCode.FAILED,
        f"openmar: {tmp_path / file}: cannot be written: {why}: choose another file",
    )
    eventually(lambda: not router.taps.open)


def test_a_file_of_others_is_code_5(router: Running, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "t").write_text("precious")
    (tmp_path / "t").chmod(0o400)
    router.path.chmod(0o666)
    with somebody_else():
        code, error = refused(router.path, "mar2", tmp_path / "t", capsys)
    assert (code, "permission denied" in error) == (ExitCode.NO_RIGHTS, True)
    assert (tmp_path / "t").read_text() == "precious"


@pytest.mark.parametrize(
    ("query", "error"),
    [
        ("", "capture : no such tunnel: there are: mar2"),
        ("?tunnel=all&face=both", "capture: face both: expected inner or outer"),
        ("?tunnel=all&count=0", "capture: count 0: expected a whole number, at least 1"),
        ("?tunnel=all&count=%C2%B2", "capture: count ²: expected a whole number, at least 1"),
        (f"?tunnel=all&count={'9' * 5000}", "capture: count 9999"),
    ],
)
def test_a_bad_question_is_refused_with_what_was_expected(router: Running, query: str, error: str) -> None:
    status, answer = ask(router.path, "GET", f"/v1/capture{query}")
    assert (status, answer["schema"]) == (409, 1)
    assert answer["error"].startswith(error)


def test_a_capture_that_has_ended_cannot_be_stopped(router: Running) -> None:
    client = Client(router.path)
    with pytest.raises(RouterError, match="capture 1: it has ended already"):
        client.stop_capture("1")
    with closing(client.capture("all")) as running:
        with pytest.raises(RouterError, match="capture 7: it has ended already"):
            client.stop_capture("7")
        running.stop()
        assert b"".join(running.pieces())
    with pytest.raises(RouterError, match="it has ended already"):
        running.stop()


# What it costs to ask, and what the documents say of it


def test_asking_for_a_capture_loads_nothing_of_what_running_a_router_needs(router: Running, tmp_path: Path) -> None:
    router.taps.waiting = [RECORD]
    program = """
import json, sys
from router.cli import main
code = main(sys.argv[1:])
print(json.dumps([code, sorted(sys.modules)]))
"""
    arguments = ["capture", "mar2", str(tmp_path / "t"), "--count", "1", "--socket", str(router.path)]
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=20)
    code, modules = json.loads(done.stdout.splitlines()[-1])
    assert code == ExitCode.DONE
    assert HEAVY & set(modules) == set()


def test_the_documented_flags_are_those_of_the_command() -> None:
    flags = {option for action in _capture_parser()._actions for option in action.option_strings}
    documented = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", (PROJECT / "docs/capture.md").read_text()))
    assert documented == {flag for flag in flags if flag.startswith("--")} - {"--help"} | {"--unix-socket"}


# The taps of a router's engines


@pytest.fixture
def packets() -> Packets:
    """Of a router that serves, without any port."""
    if not engine.compiled:
        pytest.skip("nothing is compiled")
    made = Packets(load(None, {}), Tables())
    made._engine = Engine(made._tables)
    return made


def test_a_tunnel_can_be_captured_before_anything_is_bound_to_it(packets: Packets) -> None:
    packets.open_tap(TUNNEL)
    assert packets.close_tap() == ([], 0)
    assert packets._tables.tunnels() == []


def test_a_tunnel_that_only_a_capture_waits_for_is_not_shown(packets: Packets) -> None:
    packets.open_tap(TUNNEL)
    router: Any = SimpleNamespace(tables=packets._tables, role=SimpleNamespace(door=SimpleNamespace(peer={}.get)))
    assert commands.tunnels(router) == []
    packets._tables.bind(IPv6Network("2001:db8:1::/64"), TUNNEL, side=Side.ANCHOR)
    assert [row["remote"] for row in commands.tunnels(router)] == [str(MAR2)]


def test_another_tunnel_never_takes_the_place_of_the_one_that_is_captured(packets: Packets) -> None:
    prefix, other = IPv6Network("2001:db8:1::/64"), replace(TUNNEL, remote=MAR3)
    packets._tables.bind(prefix, TUNNEL, side=Side.ANCHOR)
    packets.open_tap(TUNNEL)
    for tunnel in (other, TUNNEL, other):
        packets._tables.unbind(prefix)
        packets._tables.bind(prefix, tunnel, side=Side.ANCHOR)
        assert {item.tunnel for item in packets._tables.tunnels()} == {TUNNEL, tunnel}
    packets.close_tap()
    assert {item.tunnel for item in packets._tables.tunnels()} == {other}


def test_the_taps_of_a_router_are_open_once(packets: Packets) -> None:
    packets.open_tap(None)
    with pytest.raises(RuntimeError, match="open already"):
        packets.open_tap(None)
    packets.close_tap()
    packets.open_tap(TUNNEL)
    packets.close_tap()


def test_nothing_is_captured_before_anything_is_served() -> None:
    with pytest.raises(RuntimeError, match="nothing is served"):
        Packets(load(None, {}), Tables()).open_tap(None)
