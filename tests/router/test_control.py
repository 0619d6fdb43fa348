"""The control socket: a real router on a machine of its own, asked by our client, by HTTP, and by who should not.

router --eth1 ===== eth0-- node        the test says who is attached; the node's kernel is silent
"""

import asyncio
import ctypes
import json
import signal
import socket
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from router.cli import main
from router.config import KEYS
from router.control import client as client_module
from router.control import render
from router.control.client import Client, UnixConnection
from router.control.commands import VIEWS
from router.control.server import ControlServer
from router.demo.lab import Host, Lab, available, connect
from router.errors import ExitCode, InUse, NoRights, NotRunning, RouterError, TimedOut
from router.places import RoleName
from tests.eventually import eventually

namespaces = pytest.mark.skipif(available() is not None, reason=str(available()))
KEY = "hex:000102030405060708090a0b0c0d0e0f"
MAC = "02:00:00:00:00:11"
NODE = "mn1@example.net"


@dataclass
class Running:
    """A router of its own process."""

    client: Client
    socket: Path
    host: Host
    log: Path

    def post(self, path: str, body: bytes, kind: str = "application/json") -> tuple[int, dict[str, Any]]:
        return ask(self.socket, "POST", path, body, kind)

    def get(self, path: str) -> tuple[int, dict[str, Any]]:
        return ask(self.socket, "GET", path)

    def rows(self, what: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self.client.show(what)["rows"]
        return rows


def ask(path: Path, method: str, url: str, body: bytes = b"", kind: str = "") -> tuple[int, dict[str, Any]]:
    """Bare HTTP, as curl would."""
    with closing(UnixConnection(path)) as connection:
        connection.request(method, url, body=body or None, headers={"Content-Type": kind} if kind else {})
        response = connection.getresponse()
        return response.status, json.loads(response.read())


@contextmanager
def running(directory: Path, *flags: str) -> Iterator[Running]:
    with Lab() as lab:
        host, node = lab.host("router"), lab.host("node")
        node.sysctl("net/ipv6/conf/default/disable_ipv6", 1)
        connect(host, "eth1", node, "eth0")
        host.address("lo", "2001:db8::1/128")
        path, log = directory / "control.sock", directory / "log"
        with log.open("wb") as output:
            host.spawn_module(
                "router",
                *("--mar", "--name", "mar1", "--underlay", "2001:db8::1", "--prefixes", "2001:db8:a1::/48"),
                *("--access", "eth1", "--peer", f"mar2=2001:db8::2,{KEY}"),
                *("--state-dir", str(directory / "state"), "--socket", str(path), *flags),
                stdout=output,
                stderr=output,
            )
            eventually(lambda: "is up" in log.read_text() or host.processes[0].poll() is not None)
            assert host.processes[0].poll() is None, log.read_text()
            yield Running(Client(path), path, host, log)


@pytest.fixture(scope="module")
def router(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("router")) as started:
        yield started


@pytest.fixture
def attached(router: Running) -> Iterator[str]:
    """A node that is on the access link."""
    eventually(lambda: router.post("/v1/attach", request(node=NODE))[0] == 200)
    yield NODE
    router.post("/v1/detach", json.dumps({"node": NODE}).encode())


def request(**more: str | None) -> bytes:
    return json.dumps({"interface": "eth1", "link_layer": MAC, **more}).encode()


pytestmark = pytest.mark.namespaces


# What it is ordered


@namespaces
def test_a_router_that_drains_refuses_a_new_node_in_words_until_that_is_cancelled(
    router: Running, attached: str
) -> None:
    other = json.dumps({"interface": "eth1", "link_layer": "02:00:00:00:00:12", "node": "mn2@example.net"}).encode()
    state = "since 0 s, for 60 s more at most: 1 node here, 1 prefix in use"
    assert router.client.drain("60")["done"] == f"draining: {state}"
    status, answer = router.post("/v1/attach", other)
    why = "refused: this router drains: attach it elsewhere, or cancel the drain"
    assert (status, answer["error"]) == (409, f"attach mn2@example.net: {why}")
    assert router.client.end_drain()["done"] == "draining: no"
    with pytest.raises(RouterError, match=r"does not drain: there is nothing to cancel$"):
        router.client.end_drain()


@namespaces
@pytest.mark.parametrize("within", ["soon", "-1", "nan", "1e9"])
def test_a_time_to_drain_that_is_none_is_refused(router: Running, within: str) -> None:
    with pytest.raises(RouterError, match=rf"^drain: within {within}: expected seconds, 0 to 1e\+07$"):
        router.client.drain(within)
    assert next(row["value"] for row in router.rows("config") if row["key"] == "draining") == "no"


# What it shows


@namespaces
@pytest.mark.parametrize("what", VIEWS[RoleName.MAR])
def test_everything_is_shown_as_rows_with_the_same_keys(router: Running, attached: str, what: str) -> None:
    answer = router.client.show(what)
    assert (answer["schema"], answer["what"]) == (1, what)
    assert len({tuple(row) for row in answer["rows"]}) <= 1
    assert render.table(answer["rows"])


@namespaces
def test_an_attached_node_is_shown_with_its_prefix(router: Running, attached: str) -> None:
    (node,) = router.rows("nodes")
    assert (node["node"], node["interface"], node["link_layer"]) == (NODE, "eth1", MAC)
    (prefix,) = router.rows("prefixes")
    assert node["anchored_here"] == [prefix["prefix"]]
    assert prefix["state"] == "local"
    (binding,) = [row for row in router.rows("bindings") if row["prefix"] == prefix["prefix"]]
    assert (binding["path"], binding["interface"], binding["node"]) == ("native", "eth1", NODE)


@namespaces
def test_peers_are_shown_without_their_keys(router: Running) -> None:
    (peer,) = router.rows("peers")
    assert (peer["name"], peer["address"], peer["authenticated"]) == ("mar2", "2001:db8::2", True)
    everything = json.dumps([router.client.show(what) for what in VIEWS[RoleName.MAR]])
    assert "00010203" not in everything
    assert r"\u0001\u0002" not in everything


@namespaces
def test_the_configuration_in_force_is_shown(router: Running) -> None:
    rows = {row["key"]: row["value"] for row in router.rows("config")}
    assert rows["router.name"] == "mar1"
    assert rows["anchor.prefixes"] == ["2001:db8:a1::/48"]
    assert rows["underlay.address"] == "2001:db8::1 (as configured)"
    assert rows["control.socket"] == str(router.socket)
    assert [key for key in rows if "." in key and key not in KEYS.values()] == []


@namespaces
def test_every_drop_reason_has_a_counter(router: Running) -> None:
    counters = {row["counter"]: row["value"] for row in router.rows("counters")}
    assert counters["engine.drop.node_away"] == 0
    assert (counters["store.unsaved"], counters["engine.crowded"]) == (0, 0)


# What it refuses


@namespaces
@pytest.mark.parametrize(
    ("path", "status", "error"),
    [
        ("/v1/show/nonsense", 409, "show nonsense: unknown: expected one of nodes, prefixes"),
        ("/v1/nonsense", 404, "GET /v1/nonsense: Not Found: expected one of GET /v1/show/{what}, GET /v1/monitor"),
        ("/", 404, "GET /: Not Found: expected one of GET /v1/show/{what}"),
        ("/v1/attach", 405, "GET /v1/attach: Method Not Allowed: expected POST"),
        ("/v1/monitor?history=many", 409, "monitor: history many: expected a whole number"),
        ("/v1/monitor?history=-1", 409, "monitor: history -1: expected a whole number"),
        ("/v1/monitor?history=%C2%B2", 409, "monitor: history ²: expected a whole number"),
        (f"/v1/monitor?history={'9' * 5000}", 409, "monitor: history 9999"),
    ],
)
def test_what_is_not_there_is_refused_with_a_reason(router: Running, path: str, status: int, error: str) -> None:
    code, answer = router.get(path)
    assert (code, answer["schema"]) == (status, 1)
    assert answer["error"].startswith(error)


@namespaces
@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"", "expected a JSON object"),
        (b"{", "expected a JSON object"),
        (b"\xff", "expected a JSON object"),
        (b"[" * 10_000, "expected a JSON object"),
        (b"[]", "expected a JSON object of strings"),
        (b'{"interface": 5}', "expected a JSON object of strings"),
        (b"{}", "/v1/attach: missing interface, link_layer"),
        (request(colour="blue"), "unknown colour: expected interface, link_layer, node, link_local"),
        (request(interface=None), "/v1/attach: missing interface"),
        (request(interface="eth9"), "eth9 is no access interface of this router: eth1"),
        (request(link_layer="zz"), "attach: expected a link-layer address such as"),
        (request(link_layer="00:00:5e:00:52:13"), "00:00:5e:00:52:13 is the address of a router: give that of a node"),
        (request(node="mn1"), "attach: expected an identifier such as"),
        (request(link_local="x"), "attach: expected a link-local IPv6 address such as"),
        (request(link_local="2001:db8::1"), "attach: expected a link-local IPv6 address such as"),
        (request(link_local="fe80::1%eth0"), "attach: expected a link-local IPv6 address such as"),
    ],
)
def test_a_bad_attachment_is_refused_with_what_was_expected(router: Running, body: bytes, error: str) -> None:
    before = router.rows("nodes")
    status, answer = router.post("/v1/attach", body)
    assert status == 409
    assert error in answer["error"]
    assert [row["node"] for row in router.rows("nodes")] == [row["node"] for row in before]


@namespaces
def test_a_body_in_an_unknown_character_set_is_refused(router: Running) -> None:
    status, answer = router.post("/v1/attach", request(), "application/json; charset=klingon")
    assert (status, answer["error"]) == (409, "/v1/attach: expected a JSON object")


@namespaces
def test_a_body_without_end_is_refused(router: Running) -> None:
    assert router.post("/v1/attach", b" " * (2 << 20))[0] == 413


@namespaces
def test_a_node_that_is_not_here_cannot_leave(router: Running, attached: str) -> None:
    with pytest.raises(RouterError, match=rf"detach nobody@b: not attached here: attached: {NODE}"):
        router.client.detach("nobody@b")


@namespaces
def test_a_node_that_left_is_shown_no_more(router: Running, attached: str) -> None:
    assert router.client.detach(NODE) == {"schema": 1, "node": NODE}
    assert router.rows("nodes") == []


@namespaces
def test_a_node_without_a_name_is_named_after_its_interface(router: Running) -> None:
    answer = router.client.attach({"interface": "eth1", "link_layer": "02:00:00:00:00:22"})
    assert answer["node"] == "02-00-00-00-00-22@openmar"
    router.client.detach(answer["node"])


# What it tells


@namespaces
def test_the_monitor_tells_what_happens_to_every_listener(router: Running) -> None:
    heard: list[list[dict[str, Any]]] = [[], []]

    def listen(into: list[dict[str, Any]]) -> None:
        for event in router.client.monitor(1):
            into.append(event)
            if event["event"] == "detached":
                return

    # each has its first line, of the past, when it listens
    router.client.attach({"interface": "eth1", "link_layer": MAC, "node": "before@b"})
    threads = [threading.Thread(target=listen, args=[into], daemon=True) for into in heard]
    for thread in threads:
        thread.start()
    eventually(lambda: all(heard))
    router.client.attach({"interface": "eth1", "link_layer": "02:00:00:00:00:33", "node": "third@b"})
    router.client.detach("third@b")
    for thread in threads:
        thread.join(5)
    for into in heard:
        told = [(event["event"], event["node"]) for event in into if event["event"] in ("attached", "detached")]
        assert told[-2:] == [("attached", "third@b"), ("detached", "third@b")]
        assert all(abs(event["time"] - time.time()) < 60 for event in into)
    router.client.detach("before@b")


@namespaces
def test_the_monitor_begins_with_as_much_of_the_past_as_is_asked(router: Running, attached: str) -> None:
    def last(count: int) -> list[dict[str, Any]]:
        events = router.client.monitor(count)
        found = [next(events) for _ in range(count)]
        events.close()  # type: ignore[attr-defined]
        return found

    def undisturbed() -> tuple[Any, Any] | None:  # nothing happened meanwhile
        before, one, after = last(3), last(1), last(3)
        return (one, after) if before == after else None

    one, three = eventually(undisturbed, what="a moment in which nothing happens")
    assert one == three[-1:]
    assert render.line(one[0]).split()[1] == one[0]["event"]


@namespaces
def test_a_listener_that_goes_leaves_the_router_working(router: Running, attached: str) -> None:
    events = router.client.monitor(1)
    next(events)
    events.close()  # type: ignore[attr-defined]
    router.client.detach(NODE)
    router.client.attach({"interface": "eth1", "link_layer": MAC, "node": NODE})
    assert [row["node"] for row in router.rows("nodes")] == [NODE]


@namespaces
def test_the_monitor_ends_when_the_router_ends_and_the_socket_goes(tmp_path: Path) -> None:
    with running(tmp_path) as router:
        events = router.client.monitor(1)
        next(events)
        process = router.host.processes[0]
        process.send_signal(signal.SIGTERM)
        list(events)  # ends
        assert process.wait(5) == ExitCode.DONE, router.log.read_text()
        assert not router.socket.exists()
        assert "Traceback" not in router.log.read_text()


@namespaces
def test_a_second_router_on_the_same_machine_is_refused(router: Running, tmp_path: Path) -> None:
    for state, words in ((router.socket.parent / "state", "another router (pid "), (tmp_path, "another router runs")):
        second = router.host.spawn_module(
            *("router", "--mar", "--underlay", "2001:db8::1", "--state-dir", str(state)),
            *("--socket", str(tmp_path / "s")),
            stderr=-1,
        )
        text = second.communicate(timeout=10)[1].decode()
        assert (second.returncode, words in text, text.count("\n")) == (ExitCode.ALREADY_RUNNING, True, 1)
    assert [file.name for file in tmp_path.iterdir() if file.name in ("lock", "s")] == []


@namespaces
def test_a_start_that_fails_leaves_nothing_open(tmp_path: Path) -> None:
    with Lab() as lab:
        host = lab.host("router")
        taken = tmp_path / "taken"
        taken.write_text("no socket")
        process = host.spawn_module(
            *("router", "--mar", "--state-dir", str(tmp_path / "state"), "--socket", str(taken)), stderr=-1
        )
        text = process.communicate(timeout=10)[1].decode()
        assert process.returncode == ExitCode.IN_USE
        assert text.startswith(f"openmar: control socket {taken}: a file is there that is no socket")
        assert text.count("\n") == 1
        assert [link.name for link in host.netlink.links()] == ["lo"]
        assert host.netlink.routes(protocol=143) == []


# The socket itself


class Nobody:
    """No router at all: enough to listen."""


@contextmanager
def listening(path: Path) -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    server = ControlServer(Nobody())  # type: ignore[arg-type]
    try:
        loop.run_until_complete(server.start(path))
        yield loop
    finally:
        loop.run_until_complete(server.stop())
        loop.close()


def test_owner_and_group_may_ask_and_nobody_else(tmp_path: Path) -> None:
    with listening(tmp_path / "run" / "s") as _:
        assert stat.S_IMODE((tmp_path / "run" / "s").stat().st_mode) == 0o660
    assert not (tmp_path / "run" / "s").exists()


def test_an_error_of_our_own_is_told_as_one_and_stands_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with listening(tmp_path / "s") as loop:
        asked = loop.run_in_executor(None, Client(tmp_path / "s").show, "nodes")
        with pytest.raises(RouterError, match=r"internal error of the router: see its log") as refused:
            loop.run_until_complete(asked)
    assert refused.value.exit_code == ExitCode.FAILED
    assert "AttributeError" in caplog.text


def test_the_socket_of_a_dead_router_is_replaced(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "s"))
    with listening(tmp_path / "s"), socket.socket(socket.AF_UNIX) as probe:
        probe.connect(str(tmp_path / "s"))


def test_the_socket_of_a_living_router_is_left_alone(tmp_path: Path) -> None:
    with listening(tmp_path / "s"):
        with pytest.raises(InUse, match="another router listens there"), listening(tmp_path / "s"):
            pass
        with socket.socket(socket.AF_UNIX) as probe:
            probe.connect(str(tmp_path / "s"))


def test_a_router_too_busy_to_accept_is_not_taken_for_dead(tmp_path: Path) -> None:
    with full_backlog(tmp_path / "s"), pytest.raises(InUse, match="another router"), listening(tmp_path / "s"):
        pass
    assert (tmp_path / "s").exists()


def test_a_file_that_is_no_socket_is_not_removed(tmp_path: Path) -> None:
    (tmp_path / "s").write_text("precious")
    with pytest.raises(InUse, match="no socket"), listening(tmp_path / "s"):
        pass
    assert (tmp_path / "s").read_text() == "precious"


def test_a_path_the_kernel_does_not_take_is_explained(tmp_path: Path) -> None:
    with pytest.raises(NoRights, match=r"too long.*--socket"), listening(tmp_path / ("x" * 120)):
        pass


def test_a_directory_that_cannot_be_made_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(NoRights, match=r"--socket"), listening(tmp_path / "file" / "s"):
        pass


# The client, when something is wrong


@contextmanager
def full_backlog(path: Path) -> Iterator[None]:
    """A listener that accepts nobody, with as many waiting as may."""
    waiting: list[socket.socket] = []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(0)
        while True:
            waiting.append(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK))
            if waiting[-1].connect_ex(str(path)):
                break
        yield
        for item in waiting:
            item.close()


@contextmanager
def answering(path: Path, answer: bytes) -> Iterator[None]:
    """A listener that answers everything with the same octets, and hangs up."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            with listener.accept()[0] as connection:
                connection.recv(65536)
                connection.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield
        thread.join(5)


def outcome(path: Path, verb: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Exit code and the one line on standard error."""
    arguments = {"show": ["show", "nodes"], "monitor": ["monitor"]}[verb]
    code = main([*arguments, "--socket", str(path)])
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return code, error


VERBS = pytest.mark.parametrize("verb", ["show", "monitor"])


@VERBS
def test_nobody_there_is_code_3_and_says_how_to_start(
    tmp_path: Path, verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, error = outcome(tmp_path / "s", verb, capsys)
    assert code == ExitCode.NOT_RUNNING == 3
    assert "start one with `python -m router --mar`" in error


@VERBS
def test_a_dead_socket_is_code_3(tmp_path: Path, verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "s"))
    assert outcome(tmp_path / "s", verb, capsys)[0] == ExitCode.NOT_RUNNING


@VERBS
def test_a_router_that_never_answers_is_code_4(
    tmp_path: Path, verb: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "ANSWER_WITHIN", 0.1)
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "s"))
        silent.listen()
        code, error = outcome(tmp_path / "s", verb, capsys)
    assert code == ExitCode.TIMED_OUT == 4
    assert "no answer in 0.1 s" in error


@VERBS
def test_a_router_that_accepts_nobody_is_code_4(
    tmp_path: Path, verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with full_backlog(tmp_path / "s"):
        assert outcome(tmp_path / "s", verb, capsys)[0] == ExitCode.TIMED_OUT


@VERBS
@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"220 mail.example.net ESMTP\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{",
        b"HTTP/1.1 500 Oops\r\nContent-Length: 2\r\n\r\n[]",
        b"HTTP/1.1 404 No\r\nContent-Length: 4\r\n\r\nhtml",
    ],
    ids=["nothing", "mail", "half", "list", "html"],
)
def test_somebody_else_there_is_code_3(
    tmp_path: Path, verb: str, answer: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    if verb == "monitor" and answer.startswith(b"HTTP/1.1 200"):
        answer = b""
    with answering(tmp_path / "s", answer):
        assert outcome(tmp_path / "s", verb, capsys)[0] == ExitCode.NOT_RUNNING


@VERBS
def test_a_refusal_is_code_1_with_the_words_of_the_router(
    tmp_path: Path, verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    body = b'{"schema": 1, "error": "not today"}'
    with answering(tmp_path / "s", b"HTTP/1.1 409 No\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)):
        assert outcome(tmp_path / "s", verb, capsys) == (ExitCode.FAILED, "openmar: not today\n")


@VERBS
def test_a_socket_of_others_is_code_5(tmp_path: Path, verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket(socket.AF_UNIX) as theirs:
        theirs.bind(str(tmp_path / "s"))
        theirs.listen()
        (tmp_path / "s").chmod(0)
        with somebody_else():
            code, error = outcome(tmp_path / "s", verb, capsys)
    assert code == ExitCode.NO_RIGHTS == 5
    assert "permission denied: run as the user of the router" in error


@contextmanager
def somebody_else() -> Iterator[None]:
    """File permissions hold for this thread as for any user, also when it is root's."""
    libc = ctypes.CDLL(None)
    before = libc.setfsuid(65534)
    if libc.setfsuid(65534) != 65534:  # an ordinary user, who is root only of a namespace of his own
        pytest.skip("only root can become somebody else")
    try:
        yield
    finally:
        libc.setfsuid(before)


@pytest.mark.parametrize("rest", [b"", b"6\r\n{\"ev"], ids=["between lines", "in a line"])
def test_the_monitor_of_a_router_that_dies_is_code_1(
    tmp_path: Path, rest: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    line = b'{"event": "a", "time": 1}\n'
    begin = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n" % (len(line), line)
    with answering(tmp_path / "s", begin + rest):
        assert main(["monitor", "--socket", str(tmp_path / "s")]) == ExitCode.FAILED
    told = capsys.readouterr()
    assert told.out.endswith(" a\n")
    assert told.err == f"openmar: {tmp_path / 's'}: the router died, or was killed: see its log\n"


def test_the_errors_of_the_client_are_what_its_exit_codes_say() -> None:
    assert [kind.exit_code for kind in (NotRunning, TimedOut, NoRights)] == [3, 4, 5]


# Text


def test_rows_are_columns_under_their_names() -> None:
    rows = [{"a_b": "x", "c": None, "d": []}, {"a_b": 12, "c": True, "d": [1, None]}]
    assert render.table(rows) == "a b  c    d\nx    -    -\n12   yes  1,-"


def test_no_rows_are_none() -> None:
    assert render.table([]) == "none"


def test_an_event_is_a_line_with_its_time() -> None:
    line = render.line({"time": 0.25, "event": "attached", "node": "a@b", "prefix": ["::/64"]})
    assert line.split(".")[1].split() == ["250", "attached", "node=a@b", "prefix=::/64"]
