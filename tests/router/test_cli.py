"""The command line: what it prints, how it ends, and how little it loads to ask a router."""

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from ipaddress import IPv6Address
from pathlib import Path

import pytest

from router import __version__, cli, places
from router.cli import SHOWN, VERBS, main
from router.control.commands import VIEWS
from router.errors import ConfigError, ExitCode, InUse, RouterError
from router.places import RoleName

PROJECT = Path(__file__).resolve().parents[2]
ANSWER = {"schema": 1, "what": "nodes", "rows": [{"node": "mn1@b", "attached": 1.5}]}


def run(*arguments: str, stdout: int = subprocess.PIPE) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "router", *arguments]
    # as for a user: what is printed may still be in a buffer at the end
    env = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return subprocess.run(command, cwd=PROJECT, env=env, stdout=stdout, stderr=subprocess.PIPE, text=True, timeout=20)


@contextmanager
def answering(path: Path, lines: list[dict[str, object]], *, count: int = 1) -> Iterator[list[bytes]]:
    """A router that answers with these lines of JSON. What it was asked comes back."""
    asked: list[bytes] = []
    body = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def answer(connection: socket.socket) -> None:
            connection.settimeout(20)  # as long as a client may take
            request = b""
            while b"\r\n\r\n" not in request or (request[:4] == b"POST" and request[-1:] != b"}"):
                octets = connection.recv(65536)
                assert octets, "it hung up before it had asked"
                request += octets
            asked.append(request)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

        def serve() -> None:
            with suppress(OSError):  # shut down: nobody asked
                for _ in range(count):
                    with listener.accept()[0] as connection:
                        answer(connection)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield asked
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


# Without a router


@pytest.mark.parametrize(
    "verb", [[], ["show"], ["monitor"], ["attach"], ["detach"], ["policy"], ["revoke"], ["reload"]]
)
def test_help_is_there_for_every_verb(verb: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main([*verb, "--help"])
    assert end.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: python -m router {' '.join(verb)}".rstrip())


def test_help_names_every_verb_and_every_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    text = capsys.readouterr().out
    assert [verb for verb in VERBS if f"\n  {verb}" not in text and f", {verb}" not in text] == []
    assert [code.value for code in ExitCode if f"{code.value} " not in text] == []


def test_the_version_is_the_one_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--version"])
    assert (end.value.code, capsys.readouterr().out) == (0, f"openmar {__version__}\n")


def test_nothing_to_do_is_a_usage_error_with_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == ExitCode.USAGE
    assert "--mar" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["--nonsense"],
        ["show"],
        ["show", "nonsense"],
        ["show", "nodes", "--nonsense"],
        ["monitor", "--history", "many"],
        ["attach", "eth1"],
        ["detach"],
        ["--mar", "--doctor"],
        ["--lma", "--mag"],
        ["policy"],
        ["policy", "set", "default"],
        ["policy", "clear"],
        ["revoke"],
        ["revoke", "mn1@b", "--all"],
        ["reload", "now"],
        ["drain", "--within", "60", "--cancel"],
        ["drain", "now"],
        ["monitor", "--history", "-1"],
        ["monitor", "--history", "1001"],
        ["--mar", "--encapsulation", "esp"],
    ],
    ids=" ".join,
)
def test_a_command_line_that_makes_no_sense_ends_with_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == ExitCode.USAGE
    assert "usage: python -m router" in capsys.readouterr().err


@pytest.mark.parametrize("flags", ["--takeover", "--config router.toml", "-v"])
def test_flags_of_a_router_without_a_role_are_told_what_is_missing(
    flags: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(flags.split()) == ExitCode.USAGE
    assert capsys.readouterr() == ("", "command line: no role: expected --mar or --lma or --mag or --cmd\n")


@pytest.mark.parametrize(("role", "flags"), [("lma", "--prefixes 2001:db8:1000::/36"), ("mag", "--anchor a")])
def test_only_a_mar_can_be_taken_over(role: str, flags: str, capsys: pytest.CaptureFixture[str]) -> None:
    peer = ["--peer", "a=2001:db8::a,hex:" + "11" * 16]
    assert main([f"--{role}", *flags.split(), *peer, "--underlay", "2001:db8::1", "--takeover"]) == ExitCode.FAILED
    why = "only a MAR can be taken over: stop it first"
    assert capsys.readouterr().err == f"openmar: takeover: {role.upper()}: {why}\n"


def test_what_can_be_shown_is_what_the_router_knows() -> None:
    assert {what for views in VIEWS.values() for what in views} == set(SHOWN)


@pytest.mark.parametrize(
    ("peer", "problem"),
    [
        ("mar2", "command line: --peer mar2: expected NAME=ADDRESS,KEY\n"),
        ("mar2=2001:db8::2", "command line: peer.key: missing: expected key"),
        ("mar2=2001:db8::2,0001", "command line: peer.key: expected at least 32"),
        ("mar2=2001:db8::2,file:/nowhere", "command line: peer.key_file: expected a readable key file"),
        ("mar2=fe80::2,", "command line: peer.address: expected a unicast"),
    ],
)
def test_a_bad_peer_is_told_before_anything_is_opened(
    peer: str, problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--mar", "--peer", peer]) == ExitCode.USAGE
    assert capsys.readouterr().err.startswith(problem)


def test_flags_reach_the_configuration(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen = []
    monkeypatch.setattr("router.daemon.run", seen.append)
    monkeypatch.setattr("uvloop.run", lambda _: ExitCode.DONE)
    (tmp_path / "key").write_text("00" * 16)
    flags = "--name a --access eth1 --access eth2 --prefixes 2001:db8:1::/48,2001:db8:2::/48 --underlay 2001:db8::1"
    more = "--encapsulation ip --signaling udp --store sqlite:///s --state-dir /d --socket /c"
    peers = ["--peer", f"b=2001:db8::2,file:{tmp_path}/key", "--peer", "c=2001:db8::3,hex:" + "11" * 16]
    assert main(["--mar", *flags.split(), "--prefixes", "2001:db8:3::/48", *more.split(), *peers]) == ExitCode.DONE
    (config,) = seen
    assert (config.name, config.interfaces, config.address) == ("a", ("eth1", "eth2"), IPv6Address("2001:db8::1"))
    assert [str(pool) for pool in config.prefixes] == ["2001:db8:1::/48", "2001:db8:2::/48", "2001:db8:3::/48"]
    assert (config.encapsulation.value, config.transport.value) == ("ip", "udp")
    assert (config.store_url, str(config.state_dir), str(config.socket_path)) == ("sqlite:///s", "/d", "/c")
    assert [(peer.name, peer.key) for peer in config.peers] == [("b", bytes(16)), ("c", b"\x11" * 16)]


def test_flags_of_a_gateway_reach_the_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr("router.daemon.run", seen.append)
    monkeypatch.setattr("uvloop.run", lambda _: ExitCode.DONE)
    peer = ["--peer", "a=2001:db8::a,hex:" + "11" * 16]
    uplinks = ["--uplink", "wlan0", "--uplink", "wwan0,label=9,bid=7,weight=3,att=gpp-e-utran"]
    assert main(["--mag", "--anchor", "a", *peer, *uplinks]) == ExitCode.DONE
    (config,) = seen
    assert (config.role, config.name, config.gateway.anchor) == (RoleName.MAG, "mag", "a")
    assert [(each.interface, each.label, each.binding_id, each.weight) for each in config.uplinks] == [
        ("wlan0", 0, 1, 1),
        ("wwan0", 9, 7, 3),
    ]


@pytest.mark.parametrize(
    ("uplink", "problem"),
    [
        ("wlan0,label", "command line: --uplink wlan0,label: expected IF,key=value,...\n"),
        ("wlan0,lable=1", "command line: uplink.lable: unknown key: did you mean label?\n"),
        ("wlan0,bid=x", "command line: uplink.bid: expected a whole number from 1 to 254\n"),
        ("a/b", "command line: uplink.interface: expected an interface name"),
    ],
)
def test_a_bad_uplink_is_told_before_anything_is_opened(
    uplink: str, problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    peer = ["--peer", "a=2001:db8::a,hex:" + "11" * 16]
    assert main(["--mag", "--anchor", "a", *peer, "--uplink", uplink]) == ExitCode.USAGE
    assert capsys.readouterr().err.startswith(problem)


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        (["--lma"], "command line: anchor.prefixes: missing: an LMA needs pools"),
        (["--mag"], "command line: gateway.anchor: missing: a MAG needs the name"),
        (
            ["--mag", "--anchor", "x"],
            "command line: gateway.anchor: x is no [[peer]]: expected one: there is no [[peer]]",
        ),
    ],
)
def test_what_a_role_needs_is_told_before_anything_is_opened(
    flags: list[str], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(flags) == ExitCode.USAGE
    assert capsys.readouterr().err.startswith(problem)


def test_what_is_doubtful_is_told_beside_the_verdict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "a.toml"
    file.write_text('[anchor]\nprefixes = ["2001:db8:1::/48"]')
    assert main(["--check-config", str(file), "--lma"]) == ExitCode.DONE
    told = capsys.readouterr()
    assert told.out == f"{file}: good\n"
    assert told.err == f"{file}: peer: warning: there is no [[peer]]: no gateway can register a node\n"


def test_a_verb_that_nobody_knows_is_told_with_those_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["bogus"])
    assert ended.value.code == ExitCode.USAGE
    assert "bogus: no such verb: expected one of show, monitor, capture" in capsys.readouterr().err


def test_a_configuration_is_checked_for_a_role(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "a.toml"
    file.write_text('[anchor]\nprefixes = ["2001:db8:1::/48"]')
    for flags, code in (([], ExitCode.DONE), (["--lma"], ExitCode.DONE), (["--mag"], ExitCode.USAGE)):
        assert main(["--check-config", str(file), *flags]) == code
    told = capsys.readouterr()
    assert told.out == f"{file}: good\n" * 2
    assert f"\n{file}: gateway.anchor: missing" in told.err


def test_flags_are_checked_with_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.toml").touch()
    assert main(["--check-config", str(tmp_path / "a.toml"), "--workers", "-3"]) == ExitCode.USAGE
    assert capsys.readouterr().err.startswith("command line: engine.workers: expected a whole number from 0")


@pytest.mark.parametrize("arguments", [["--help"], ["show", "--help"], ["demo", "multipath", "--help"]], ids=" ".join)
def test_help_calls_the_program_what_it_was_started_as(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["/opt/bin/openmar", *arguments])
    with pytest.raises(SystemExit):
        main()
    told = capsys.readouterr().out
    assert told.startswith("usage: openmar ")
    assert "python -m router" not in told


@pytest.mark.parametrize("stay", ["abc", "0", "nan"])
def test_a_time_that_is_none_is_refused_in_words(stay: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["demo", "--stay", stay])
    assert f"argument --stay: {stay}: expected 1 to 3600 seconds" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (RouterError("no"), 1, "openmar: no\n"),
        (ConfigError("a.toml:1: router.name: expected a name"), 2, "a.toml:1: router.name: expected a name\n"),
        (InUse("taken"), 7, "openmar: taken\n"),
        (KeyboardInterrupt(), 1, ""),
    ],
)
def test_an_error_is_its_line_and_its_code(
    error: BaseException, code: int, text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_: object) -> int:
        raise error

    monkeypatch.setitem(VERBS, "show", fail)
    assert main(["show", "nodes"]) == code
    assert capsys.readouterr().err == text


def test_an_error_of_the_engine_ends_with_the_code_of_its_kind(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import engine

    def fail(_: object) -> int:
        raise engine.DeviceMissing("cannot open TUN", where="/dev/net/tun", cure="load the tun module")

    monkeypatch.setattr("router.daemon.run", lambda _: None)
    monkeypatch.setattr("uvloop.run", fail)
    assert main(["--mar"]) == ExitCode.NO_RIGHTS
    assert capsys.readouterr().err == "openmar: cannot open TUN (/dev/net/tun); load the tun module\n"


# With one


def test_show_prints_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with answering(tmp_path / "s", [ANSWER]) as asked:
        assert main(["show", "nodes", "--socket", str(tmp_path / "s")]) == ExitCode.DONE
    assert capsys.readouterr().out == "node   attached (s)\nmn1@b  1.5\n"
    assert asked[0].startswith(b"GET /v1/show/nodes ")


def test_show_prints_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with answering(tmp_path / "s", [ANSWER]):
        assert main(["show", "nodes", "-j", "--socket", str(tmp_path / "s")]) == ExitCode.DONE
    assert json.loads(capsys.readouterr().out) == ANSWER


def test_the_router_is_found_by_its_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli, "default_socket", lambda name: tmp_path / f"{name}.sock")
    with answering(tmp_path / "mar7.sock", [ANSWER]):
        assert main(["show", "nodes", "--name", "mar7"]) == ExitCode.DONE


def test_the_only_router_there_is_asked_whatever_its_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "default_run_dir", lambda: tmp_path)
    with answering(tmp_path / "bus1.sock", [ANSWER]):
        assert main(["show", "nodes"]) == ExitCode.DONE
    with answering(tmp_path / "mar.sock", [ANSWER]):  # of several, the one with the default name
        assert main(["show", "nodes"]) == ExitCode.DONE
    (tmp_path / "mar.sock").rename(tmp_path / "lma.sock")
    assert main(["show", "nodes"]) == ExitCode.NOT_RUNNING
    told = f"openmar: {tmp_path}: there are several routers: bus1, lma: say which with --name\n"
    assert capsys.readouterr().err == told


@pytest.mark.parametrize(
    "arguments",
    [
        ["policy", "-j", "--socket", "SOCKET", "show"],
        ["policy", "--socket", "SOCKET", "show", "-j"],
        ["policy", "show", "-j", "--socket", "SOCKET"],
    ],
    ids=" ".join,
)
def test_options_of_policy_may_stand_behind_either_verb(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with answering(tmp_path / "s", [ANSWER]):
        assert main([str(tmp_path / "s") if it == "SOCKET" else it for it in arguments]) == ExitCode.DONE
    assert json.loads(capsys.readouterr().out) == ANSWER


def test_monitor_prints_a_line_or_json_for_each_event(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    events: list[dict[str, object]] = [{"time": 0.5, "event": "attached", "node": "a@b"}, {"time": 1.0, "event": "x"}]
    with answering(tmp_path / "s", events, count=2) as asked:
        assert main(["monitor", "--history", "5", "--socket", str(tmp_path / "s")]) == ExitCode.DONE
        assert [line.split()[1:] for line in capsys.readouterr().out.splitlines()] == [["attached", "node=a@b"], ["x"]]
        assert main(["monitor", "-j", "--socket", str(tmp_path / "s")]) == ExitCode.DONE
        assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == events
    assert [request.split()[1] for request in asked] == [b"/v1/monitor?history=5", b"/v1/monitor?history=0"]


def test_attach_and_detach_say_who(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with answering(tmp_path / "s", [{"schema": 1, "node": "mn1@b"}], count=3) as asked:
        at = ["--socket", str(tmp_path / "s")]
        assert main(["attach", "eth1", "02:00:00:00:00:11", "--node", "mn1@b", *at]) == ExitCode.DONE
        assert main(["detach", "mn1@b", *at]) == ExitCode.DONE
        assert main(["detach", "mn1@b", "-j", *at]) == ExitCode.DONE
    assert capsys.readouterr().out == 'mn1@b attached\nmn1@b detached\n{"schema": 1, "node": "mn1@b"}\n'
    bodies = [json.loads(request.split(b"\r\n\r\n")[1]) for request in asked]
    assert bodies[0] == {"interface": "eth1", "link_layer": "02:00:00:00:00:11", "node": "mn1@b"}
    assert bodies[1] == {"node": "mn1@b"}


# As a process


HEAVY = {"engine", "aiohttp", "uvloop", "asyncio", "sqlite3", "signaling", "router.daemon", "router.config", "tomllib"}
ASK = """
import json, sys
from router.cli import main
code = main(sys.argv[1:])
print(json.dumps([code, sorted(sys.modules)]), file=sys.stderr)
"""


@pytest.mark.parametrize(
    "verb",
    [
        ["show", "nodes"],
        ["monitor"],
        ["detach", "a@b"],
        ["attach", "eth1", "02"],
        ["policy", "clear", "a"],
        ["revoke", "a@b"],
        ["reload"],
    ],
)
def test_asking_a_router_loads_nothing_of_what_running_one_needs(tmp_path: Path, verb: list[str]) -> None:
    answer = ANSWER | {"node": "a@b", "time": 1, "event": "x", "policy": "a", "rules": 0, "revoked": "a@b", "done": ""}
    with answering(tmp_path / "s", [answer]):
        command = [sys.executable, "-c", ASK, verb[0], "--socket", str(tmp_path / "s"), *verb[1:]]
        done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=20)
    code, modules = json.loads(done.stderr)
    assert code == ExitCode.DONE
    assert HEAVY & set(modules) == set()


@pytest.mark.parametrize(
    "verb", [["show", "nodes"], ["show", "nodes", "-j"], ["monitor"], ["--check-config", "/dev/null"]]
)
def test_a_reader_that_has_enough_is_no_error(tmp_path: Path, verb: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        if verb[0] == "--check-config":
            done = run(*verb, stdout=writing)
        else:
            with answering(tmp_path / "s", [ANSWER | {"time": 1, "event": "x"}]):
                done = run(*verb, "--socket", str(tmp_path / "s"), stdout=writing)
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (ExitCode.DONE, "")


@pytest.mark.parametrize("verb", [["show", "nodes"], ["--check-config", "/dev/null"], ["demo"]], ids=" ".join)
def test_output_that_nobody_can_keep_is_told_in_a_line(tmp_path: Path, verb: list[str]) -> None:
    with open("/dev/full", "w") as full, answering(tmp_path / "s", [ANSWER]):
        at = ["--socket", str(tmp_path / "s")] if verb[0] == "show" else []
        done = run(*verb, *at, stdout=full.fileno())
    assert (done.returncode, done.stderr) == (ExitCode.FAILED, "openmar: standard output: no space left on device\n")


@pytest.mark.parametrize("unbuffered", [{}, {"PYTHONUNBUFFERED": "1"}], ids=["buffered", "unbuffered"])
@pytest.mark.parametrize("verb", [["--help"], ["policy", "set", "--help"], ["--version"]], ids=" ".join)
def test_help_that_nobody_can_keep_is_told_in_a_line(verb: list[str], unbuffered: dict[str, str]) -> None:
    env = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"} | unbuffered
    command = [sys.executable, "-m", "router", *verb]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, cwd=PROJECT, env=env, stdout=full, stderr=subprocess.PIPE, text=True, timeout=20)
    assert (done.returncode, done.stderr) == (ExitCode.FAILED, "openmar: standard output: no space left on device\n")


def test_a_monitor_with_nowhere_to_write_does_not_begin(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "router", "monitor", "--socket", str(tmp_path / "s")]
    close = lambda: os.close(1)  # noqa: E731
    done = subprocess.run(command, cwd=PROJECT, preexec_fn=close, stderr=subprocess.PIPE, text=True, timeout=20)
    told = "openmar: monitor: standard output is closed: give it a terminal, a file or a pipe\n"
    assert (done.returncode, done.stderr) == (ExitCode.USAGE, told)


def test_the_module_ends_with_the_code_of_main(tmp_path: Path) -> None:
    done = run("show", "nodes", "--socket", str(tmp_path / "nothing"))
    assert done.returncode == ExitCode.NOT_RUNNING
    assert done.stdout == ""
    assert done.stderr.startswith(f"openmar: {tmp_path}/nothing: no router listens there")
