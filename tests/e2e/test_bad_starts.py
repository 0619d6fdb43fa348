"""A router that cannot run says why, in a line, with the exit code of that kind, and has touched nothing.

    core --- mar1 --:-- mn
"""

import ctypes
import fcntl
import os
import re
import socket
import sqlite3
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import IPv6Address
from pathlib import Path
from typing import Any

import pytest

from router.demo.lab import CLONE_NEWNS, MS_PRIVATE, MS_REC, PROJECT, Host, mount, unshare
from router.demo.topology import underlay_address
from router.errors import ExitCode
from tests.e2e.domain import Domain, run_router, told, toml
from tests.e2e.test_stopping import check_same, snapshot, snapshot_with_carrier

MS_RDONLY, MS_NODEV, MS_REMOUNT, MS_BIND = 0x1, 0x4, 0x20, 0x1000
PR_SET_SECUREBITS, SECBIT_NOROOT = 28, 1
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
SIGNALING_PORT, TUNNEL_PORT = 5436, 5437

Settings = dict[str, dict[str, Any]]
Done = subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Domain]:
    with Domain(tmp_path_factory.mktemp("bad"), mars=1) as place:
        snapshot_with_carrier(place)
        yield place


@pytest.fixture
def host(place: Domain) -> Iterator[Host]:
    """The machine of mar1, which every failure has to leave as it was."""
    before = snapshot(place["mar1"].host)
    yield place["mar1"].host
    check_same(before, snapshot(place["mar1"].host))


@pytest.fixture
def start(place: Domain, host: Host, tmp_path: Path) -> Callable[..., Done]:
    """Run mar1 with other settings, to its end."""

    def run(*, before: Callable[[], None] | None = None, **settings: dict[str, Any]) -> Done:
        file = tmp_path / "mar1.toml"
        file.write_text(toml(told(1, {}, tmp_path, settings)))
        return run_router(host, "--mar", "--config", str(file), before=before)

    return run


def refused(done: Done, code: ExitCode, *words: str) -> None:
    """One line, with these words, and that exit code."""
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert done.returncode == code, done.stderr
    for word in words:
        assert word in lines[0], done.stderr
    assert not re.search(r"Errno|Error\(|<class|\bNone\b", lines[0])


# Interfaces and addresses


def test_an_access_interface_that_does_not_exist(start: Any) -> None:
    refused(start(access={"interfaces": ["acc7"]}), ExitCode.NO_INTERFACE, "acc7", "acc0", "core0")


def test_an_access_interface_that_is_the_way_to_the_others(start: Any) -> None:
    refused(start(access={"interfaces": ["core0"]}), ExitCode.NO_INTERFACE, "core0")


def test_the_loopback_interface_is_no_access_link(start: Any) -> None:
    refused(start(access={"interfaces": ["lo"]}), ExitCode.USAGE, "lo: no node is there")


def test_an_underlay_address_of_another_machine(start: Any) -> None:
    done = start(underlay={"address": "2001:db8:ff:9::1"})
    refused(done, ExitCode.NO_INTERFACE, "2001:db8:ff:9::1", str(underlay_address(1)))


# Rights and devices


def without_capabilities() -> None:
    assert ctypes.CDLL(None).prctl(PR_SET_SECUREBITS, SECBIT_NOROOT, 0, 0, 0) == 0


def privately(change: Callable[[], None]) -> Callable[[], None]:
    """In a mount namespace of the new process only."""

    def run() -> None:
        unshare(CLONE_NEWNS)
        mount("none", "/", "", MS_REC | MS_PRIVATE)
        change()

    return run


def no_tun_device() -> None:
    mount("none", "/dev/net", "tmpfs", 0)


def closed_tun_device() -> None:
    mount("/dev/net/tun", "/dev/net/tun", "", MS_BIND)
    mount("none", "/dev/net/tun", "", MS_BIND | MS_REMOUNT | MS_NODEV)


def another_device() -> None:
    mount("/dev/null", "/dev/net/tun", "", MS_BIND)


def read_only_sysctls() -> None:
    mount("/proc/sys", "/proc/sys", "", MS_BIND)
    mount("none", "/proc/sys", "", MS_BIND | MS_REMOUNT | MS_RDONLY)


@pytest.mark.parametrize(("encapsulation", "signaling"), [("udp", "mh"), ("ip", "udp"), ("gre", "udp"), ("udp", "udp")])
def test_no_rights(start: Any, encapsulation: str, signaling: str) -> None:
    underlay = {"encapsulation": encapsulation, "signaling": signaling}
    refused(start(before=without_capabilities, underlay=underlay), ExitCode.NO_RIGHTS)


def test_no_tun_device(start: Any) -> None:
    refused(start(before=privately(no_tun_device)), ExitCode.NO_RIGHTS, "/dev/net/tun")


def test_a_closed_tun_device(start: Any) -> None:
    refused(start(before=privately(closed_tun_device)), ExitCode.NO_RIGHTS, "/dev/net/tun")


def test_a_tun_device_that_is_none(start: Any) -> None:
    done = start(before=privately(another_device))
    assert done.returncode in (ExitCode.FAILED, ExitCode.NO_RIGHTS)
    refused(done, ExitCode(done.returncode), "TUN")


def test_sysctls_that_cannot_be_written(start: Any, host: Host) -> None:
    """As in a container that is not privileged, on a host that does not forward."""
    host.sysctl("net/ipv6/conf/all/forwarding", 0)
    try:
        done = start(before=privately(read_only_sysctls))
        refused(done, ExitCode.NO_RIGHTS, "sysctl -w net.ipv6.conf.all.forwarding=1")
    finally:
        host.sysctl("net/ipv6/conf/all/forwarding", 1)


def test_sysctls_that_need_not_be_written(place: Domain, host: Host, tmp_path: Path) -> None:
    """The same container on a host that forwards already: the router runs."""
    file = tmp_path / "mar1.toml"
    file.write_text(toml(told(1, {}, tmp_path, {})))
    with host.inside():
        process = subprocess.Popen(
            [sys.executable, "-m", "router", "--mar", "--config", str(file)],
            cwd=PROJECT,
            stdout=subprocess.PIPE,
            preexec_fn=privately(read_only_sysctls),
        )
    with process:
        assert process.stdout is not None
        assert b"is up" in process.stdout.readline()
        process.terminate()
        assert process.wait(5.0) == 0


# What somebody else has


@contextmanager
def udp_port(host: Host, number: int) -> Iterator[None]:
    with host.inside():
        holder = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    with holder:
        holder.bind(("::", number))
        yield


def test_a_tunnel_port_in_use(start: Any, host: Host) -> None:
    with udp_port(host, TUNNEL_PORT):
        refused(start(), ExitCode.IN_USE, str(TUNNEL_PORT))


def test_a_signalling_port_in_use(start: Any, host: Host) -> None:
    with udp_port(host, SIGNALING_PORT):
        refused(start(underlay={"signaling": "udp"}), ExitCode.IN_USE, str(SIGNALING_PORT))


def test_a_control_socket_in_use(start: Any, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as holder:
        holder.bind(str(tmp_path / "taken"))
        holder.listen()
        refused(start(control={"socket": str(tmp_path / "taken")}), ExitCode.IN_USE, "taken")
        assert (tmp_path / "taken").exists()


def test_a_control_socket_that_is_a_file(start: Any, tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("mine")
    refused(start(control={"socket": str(tmp_path / "notes")}), ExitCode.IN_USE, "notes")
    assert (tmp_path / "notes").read_text() == "mine"


def test_a_control_socket_where_nothing_can_be_made(start: Any, tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("mine")
    refused(start(control={"socket": str(tmp_path / "notes" / "s")}), ExitCode.NO_RIGHTS, "notes")


@pytest.mark.parametrize("kind", ["another program's TUN", "a bridge"])
def test_a_tun_name_that_is_taken(start: Any, host: Host, kind: str) -> None:
    if kind == "a bridge":
        host.netlink.create_link("openmar0", "bridge")
        try:
            refused(start(), ExitCode.IN_USE, "openmar0")
        finally:
            host.netlink.delete_link(host.link("openmar0").index)
        return
    with host.inside(), open("/dev/net/tun", "r+b", buffering=0) as tun:
        fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH22x", b"openmar0", IFF_TUN | IFF_NO_PI))
        refused(start(), ExitCode.IN_USE, "openmar0")


# Another router


@pytest.fixture
def running(place: Domain) -> Iterator[Domain]:
    place["mar1"].start()
    yield place
    assert place["mar1"].stop() == 0


def test_a_second_router_with_the_same_state(place: Domain, running: Domain) -> None:
    done = run_router(place.world["core"], "--mar", "--config", str(place["mar1"].config))
    refused(done, ExitCode.ALREADY_RUNNING, str(place["mar1"].process.pid), "mar1")


def test_a_second_router_in_the_same_namespace(place: Domain, running: Domain, tmp_path: Path) -> None:
    file = tmp_path / "other.toml"
    file.write_text(toml(told(1, {}, tmp_path, {"router": {"name": "other"}})))
    done = run_router(place["mar1"].host, "--mar", "--config", str(file))
    refused(done, ExitCode.ALREADY_RUNNING, "namespace")
    assert place["mar1"].show("config")


# State and store


def test_a_state_directory_that_is_a_file(start: Any, tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("mine")
    refused(start(router={"state_dir": str(tmp_path / "notes")}), ExitCode.NO_RIGHTS, "notes", "--state-dir")


def test_a_state_directory_that_cannot_be_written(start: Any, tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir()

    def read_only() -> None:
        mount("none", str(tmp_path / "closed"), "tmpfs", MS_RDONLY)

    done = start(before=privately(read_only), router={"state_dir": str(tmp_path / "closed")})
    refused(done, ExitCode.NO_RIGHTS, "closed", "--state-dir")


@pytest.mark.parametrize("room", [0, 1], ids=["for nothing", "for the lock"])
def test_a_state_directory_that_is_full(start: Any, tmp_path: Path, room: int) -> None:
    """room: pages of 4096 octets."""
    (tmp_path / "full").mkdir()

    def fill() -> None:
        # a file system of one page
        arguments = (b"none", os.fsencode(tmp_path / "full"), b"tmpfs", 0, b"size=4096")
        assert ctypes.CDLL(None).mount(*arguments) == 0
        if not room:
            (tmp_path / "full" / "filler").write_bytes(bytes(4096))

    done = start(before=privately(fill), router={"state_dir": str(tmp_path / "full")})
    assert done.returncode in (ExitCode.FAILED, ExitCode.NO_RIGHTS), done.stderr
    assert "Traceback" not in done.stderr
    assert "No space left on device" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("kind", ["a directory", "no database", "another schema", "below a file"])
def test_a_store_that_is_not_usable(start: Any, tmp_path: Path, kind: str) -> None:
    file = tmp_path / "store.db"
    if kind == "a directory":
        file.mkdir()
    elif kind == "no database":
        file.write_text("This is a letter to my aunt, and much longer than a page of a database. " * 100)
    elif kind == "another schema":
        with sqlite3.connect(file) as database:
            database.execute("PRAGMA user_version = 99")
        database.close()
    else:
        file.write_text("")
        file = file / "deeper.db"
    code = ExitCode.USAGE if kind == "a directory" else ExitCode.FAILED
    refused(start(store={"url": f"sqlite://{file}"}), code, "store.db")


def test_a_first_start_without_the_store(start: Any) -> None:
    cure = "start it, or name another one with --store"
    refused(start(store={"url": "redis://[::1]:1/0"}), ExitCode.FAILED, "redis://[::1]:1/0", "a first start", cure)


# Configuration


def complaints(host: Host, file: Path, tables: dict[str, Any]) -> list[str]:
    """What is said about a configuration, each problem in a line of its own."""
    file.write_text(toml(tables))
    done = run_router(host, "--mar", "--config", str(file))
    assert (done.returncode, done.stdout) == (ExitCode.USAGE, "")
    lines = done.stderr.splitlines()
    assert all(line.startswith(f"{file}:") for line in lines), lines
    return lines


def test_everything_that_makes_no_sense_is_said_at_once(host: Host, tmp_path: Path) -> None:
    settings: Settings = {
        "router": {"nmae": "x"},
        "underlay": {"address": "ff02::1", "encapsulation": "esp"},
        "acess": {"interfaces": ["acc0"]},
        "access": {"interfaces": ["acc0", "acc0"]},
        "anchor": {"prefixes": ["2001:db8:1000::/48", "2001:db8:1000:8000::/52"]},
        "store": {"url": "etcd://localhost"},
    }
    expected = (
        ("router.nmae", "did you mean name?"),
        ("acess", "did you mean access?"),
        ("underlay.address",),
        ("underlay.encapsulation", "udp"),
        ("access.interfaces", "acc0"),
        ("anchor.prefixes", "overlaps"),
        ("store.url", "sqlite://"),
    )
    lines = complaints(host, tmp_path / "mar1.toml", told(1, {}, tmp_path, settings))
    assert len(lines) == len(expected), lines
    for words in expected:
        assert any(all(word in line for word in words) for line in lines), (words, lines)


def test_a_key_that_is_none(host: Host, tmp_path: Path) -> None:
    keys: tuple[object, ...] = ("hex:c0ffee", "hex:" + "zz" * 16, "secret", "hex:" + "0" * 33, "", 7, "file:/nowhere")
    tables = told(1, {}, tmp_path, {})
    tables["peer"] = [
        {"name": f"mar{at}", "address": f"2001:db8:ff:{at}::1", "key": key} for at, key in enumerate(keys, 2)
    ]
    lines = complaints(host, tmp_path / "mar1.toml", tables)
    assert len(lines) == len(keys), lines
    assert all("peer.key: expected at least 32 hexadecimal digits" in line for line in lines)
    assert not any("c0ffee" in line or "secret" in line for line in lines)


def test_a_configuration_that_is_not_there(host: Host, tmp_path: Path) -> None:
    refused(run_router(host, "--mar", "--config", str(tmp_path / "none.toml")), ExitCode.USAGE, "none.toml")


def test_a_configuration_that_is_a_directory(host: Host, tmp_path: Path) -> None:
    refused(run_router(host, "--mar", "--config", str(tmp_path)), ExitCode.USAGE, str(tmp_path))


def test_a_configuration_that_is_no_text(host: Host, tmp_path: Path) -> None:
    file = tmp_path / "mar1.toml"
    file.write_bytes(os.urandom(64) + b"\xff\xfe\x80")
    refused(run_router(host, "--mar", "--config", str(file)), ExitCode.USAGE, "mar1.toml")


def test_a_configuration_cut_short(host: Host, tmp_path: Path) -> None:
    file = tmp_path / "mar1.toml"
    file.write_text('[router]\nname = "mar1')
    refused(run_router(host, "--mar", "--config", str(file)), ExitCode.USAGE, "mar1.toml:2", "syntax")


def test_nobody_answers_where_no_router_is(host: Host, tmp_path: Path) -> None:
    done = run_router(host, "show", "nodes", "--socket", str(tmp_path / "none.sock"))
    refused(done, ExitCode.NOT_RUNNING, "none.sock")
    assert IPv6Address(underlay_address(1))
