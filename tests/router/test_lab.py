"""Hosts are apart from each other, a lab leaves nothing behind, and the world of the demo is wired as drawn."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from ipaddress import IPv6Address
from pathlib import Path

import pytest

from router.demo import lab as lab_module
from router.demo.lab import PROJECT, Host, Lab, LabError, available, connect, enter_lab
from router.demo.topology import World, node_link_layer, underlay_address
from router.errors import ExitCode
from tests.eventually import eventually

pytestmark = [
    pytest.mark.namespaces,
    pytest.mark.skipif(available() is not None, reason=str(available())),
]

REAL_ROOT = os.getuid() == 0 and Path("/proc/self/uid_map").read_text().split()[2] != "1"


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab() as lab:
        yield lab


@pytest.fixture
def world() -> Iterator[World]:
    with World(mars=2, nodes=2) as world:
        yield world


def namespace() -> int:
    return os.stat("/proc/thread-self/ns/net").st_ino


def receiver(host: Host) -> socket.socket:
    with host.inside():
        opened = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    opened.bind(("::", 4321))
    opened.settimeout(5.0)
    return opened


def reaches(sender: Host, host: Host, address: IPv6Address) -> bool:
    with receiver(host) as listening, sender.inside():
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as speaking:
            speaking.sendto(b"hello", (str(address), 4321))
        return listening.recv(100) == b"hello"


# Hosts


def test_a_visit_to_a_host_ends_where_it_began(lab: Lab) -> None:
    home = namespace()
    with lab.host("a").inside():
        away = namespace()
        with lab.host("b").inside():
            assert namespace() not in (home, away)
        assert namespace() == away
    assert namespace() == home


def test_a_visit_that_fails_ends_where_it_began(lab: Lab) -> None:
    home = namespace()
    with pytest.raises(ZeroDivisionError), lab.host("a").inside():
        raise ZeroDivisionError
    assert namespace() == home


def test_a_cable_carries_the_first_packet(lab: Lab) -> None:
    a, b = lab.host("a"), lab.host("b")
    connect(a, "eth0", b, "eth1", mtu=1400)
    a.address("eth0", "2001:db8::a/64")
    b.address("eth1", "2001:db8::b/64")
    assert reaches(a, b, IPv6Address("2001:db8::b"))
    assert (a.link("eth0").mtu, b.link("eth1").mtu) == (1400, 1400)


def test_loss_of_carrier_is_known_at_once(lab: Lab) -> None:
    a, b = lab.host("a"), lab.host("b")
    connect(a, "eth0", b, "eth0")
    b.link_down("eth0")
    assert a.link("eth0").index != b.link("eth0").index  # else the kernel puts the news off for up to a second
    eventually(lambda: a.link("eth0").operstate == 2, what="operstate DOWN")


def test_a_sysctl_holds_for_its_host_only(lab: Lab) -> None:
    a, b = lab.host("a"), lab.host("b")
    path = "net/ipv6/conf/all/forwarding"
    a.sysctl(path, 1)
    read = {}
    for host in (a, b):
        with host.inside():
            read[host.name] = Path("/proc/sys", path).read_text().strip()
    assert read == {"a": "1", "b": "0"}


def test_a_sysctl_that_does_not_exist_is_an_error_that_names_it(lab: Lab) -> None:
    with pytest.raises(LabError, match=r"^set net/nonesuch on a: No such file"):
        lab.host("a").sysctl("net/nonesuch", 1)


def test_a_program_runs_in_the_namespace_of_its_host(lab: Lab) -> None:
    host = lab.host("a")
    command = [sys.executable, "-c", "import os; print(os.stat('/proc/self/ns/net').st_ino)"]
    process = host.spawn(command, stdout=subprocess.PIPE)
    told, _ = process.communicate(timeout=10)
    with host.inside():
        assert int(told) == namespace()


def test_closing_a_lab_ends_its_programs_even_stubborn_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lab_module, "GRACE", 0.2)
    with Lab() as lab:
        polite = lab.host("a").spawn(["sleep", "1000"])
        script = "import signal; signal.signal(15, signal.SIG_IGN); print(1, flush=True); signal.pause()"
        stubborn = lab["a"].spawn([sys.executable, "-c", script], stdout=subprocess.PIPE)
        assert stubborn.stdout is not None
        stubborn.stdout.readline()
    assert (polite.returncode, stubborn.returncode) == (-signal.SIGTERM, -signal.SIGKILL)


def test_closing_a_lab_takes_its_namespaces_away(lab: Lab) -> None:
    witness = lab.host("witness")
    with Lab() as other:
        connect(witness, "eth0", other.host("a"), "eth0")
        assert len(witness.netlink.links()) == 2
    eventually(lambda: len(witness.netlink.links()) == 1, what="the far end of the cable is gone")


# A lab around a program


def start_lab(*command: str, **options: object) -> subprocess.Popen[bytes]:
    arguments = [sys.executable, "-m", "router.demo.lab", "--", *command]
    return subprocess.Popen(arguments, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)


def running(*arguments: str) -> list[int]:
    wanted = b"".join(argument.encode() + b"\0" for argument in arguments)
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if entry.read_bytes() == wanted:
                found.append(int(entry.parent.name))
        except OSError:  # it ended while we looked
            continue
    return found


def test_a_lab_passes_on_output_and_exit_status() -> None:
    lab = start_lab("sh", "-c", "id -u; exit 7")
    output, _ = lab.communicate(timeout=10)
    assert (output, lab.returncode) == (b"0\n", 7)


def test_a_lab_says_so_when_its_command_does_not_exist() -> None:
    lab = start_lab("/nonesuch")
    _, complaint = lab.communicate(timeout=10)
    assert (complaint, lab.returncode) == (b"lab: /nonesuch: No such file or directory\n", 127)


def test_a_program_in_a_lab_sees_only_loopback_and_only_the_lab() -> None:
    script = "import os, socket; print(socket.if_nameindex(), sorted(p for p in os.listdir('/proc') if p.isdigit()))"
    output, _ = start_lab(sys.executable, "-c", script).communicate(timeout=10)
    assert output == b"[(1, 'lo')] ['1', '2']\n"


def test_a_lab_forwards_sigterm_once() -> None:
    script = (
        "import signal, sys\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])\n"
        "print('ready', flush=True)\n"
        "signal.sigwait([signal.SIGTERM])\n"
        "sys.exit(41 if signal.sigtimedwait([signal.SIGTERM], 0.2) is None else 42)\n"
    )
    lab = start_lab(sys.executable, "-c", script)
    assert lab.stdout is not None
    lab.stdout.readline()
    lab.terminate()
    lab.communicate(timeout=10)
    assert lab.returncode == 41


def test_nothing_outlives_a_lab_whose_leader_is_killed() -> None:
    mark = f"{10_000 + os.getpid()}.5"
    lab = start_lab("sh", "-c", f"sleep {mark} & setsid sleep {mark} & exec sleep {mark}")
    eventually(lambda: len(running("sleep", mark)) == 3, what="three programs run in the lab")
    lab.kill()
    lab.communicate(timeout=10)
    eventually(lambda: not running("sleep", mark), what="the kernel has ended all of them")


def test_nothing_outlives_the_program_of_a_lab() -> None:
    mark = f"{10_000 + os.getpid()}.6"
    lab = start_lab("sh", "-c", f"sleep {mark} > /dev/null 2>&1 &")
    lab.communicate(timeout=10)
    eventually(lambda: not running("sleep", mark), what="the background program has ended")


AS_ORDINARY_USER = """
import ctypes, os, socket
from router.demo.lab import Lab, connect, enter_lab
from router.demo.topology import World
os.setgroups([]), os.setresgid(65534, 65534, 65534), os.setresuid(65534, 65534, 65534)
ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # dumpable again, as after an exec: else /proc/self belongs to root
enter_lab()
with World() as world:
    print(os.getuid(), world.attach("mar1").made > 0, world["mar1"].link("acc0").carrier)
"""


@pytest.mark.skipif(not REAL_ROOT, reason="only root can become somebody else; the other tests run as you")
def test_an_ordinary_user_has_the_same_world() -> None:
    command = [sys.executable, "-c", AS_ORDINARY_USER]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, timeout=20, check=False)
    assert (done.stdout, done.stderr, done.returncode) == (b"0 True True\n", b"", 0)


def test_a_refusal_names_cause_and_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(flags: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(lab_module, "unshare", refuse)
    monkeypatch.setattr(lab_module, "SWITCHES", ())
    with pytest.raises(LabError, match=r"^cannot make namespaces: Operation not permitted: run as root") as caught:
        enter_lab()
    assert caught.value.exit_code == ExitCode.NO_RIGHTS
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == set()


def test_a_missing_tun_device_is_refused_before_anything_is_changed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(lab_module, "TUN", tmp_path / "tun")
    with pytest.raises(LabError, match=r"tun: No such file or directory: modprobe tun"):
        enter_lab(needs_tun=True)


# The world of the demo


def test_the_correspondent_reaches_every_mar_at_once(world: World) -> None:
    for number, name in enumerate(world.mars, 1):
        assert reaches(world["cn"], world[name], underlay_address(number))


def test_a_mar_finds_its_underlay_address_by_its_default_route(world: World) -> None:
    way = world["mar2"].netlink.default_route()
    assert way is not None
    assert way.prefsrc == underlay_address(2)


def test_at_first_nobody_has_carrier(world: World) -> None:
    ends = [(name, "acc0") for name in world.mars] + [(name, "radio0") for name in world.nodes]
    assert not any(world[host].link(link).carrier for host, link in ends)


def test_the_node_has_its_link_layer_address(world: World) -> None:
    assert world["mn"].link("radio0").link_layer == node_link_layer(0) == bytes.fromhex("020000000011")


def test_attaching_gives_carrier_to_the_node_and_its_mar(world: World) -> None:
    world.attach("mar2")
    assert world.where() == "mar2"
    carriers = [world[name].link("acc0").carrier for name in world.mars]
    assert carriers == [False, True]
    assert world["mn"].link("radio0").carrier


def test_moving_takes_carrier_from_the_old_mar(world: World) -> None:
    world.attach("mar1")
    handover = world.attach("mar2")
    assert [world[name].link("acc0").carrier for name in world.mars] == [False, True]
    assert handover.broken < handover.made


def test_a_mar_keeps_carrier_while_another_node_is_there(world: World) -> None:
    world.attach("mar1", "mn")
    world.attach("mar1", "mn2")
    world.attach("mar2", "mn")
    assert [world[name].link("acc0").carrier for name in world.mars] == [True, True]
    world.detach("mn2")
    assert [world[name].link("acc0").carrier for name in world.mars] == [False, True]


def test_the_air_itself_says_nothing(world: World) -> None:
    world.attach("mar1")
    assert world["air"].netlink.addresses() == []


@pytest.mark.parametrize("mar", ["mar1", "mar2"])
def test_frames_of_the_node_reach_the_mar_it_is_at_and_no_other(world: World, mar: str) -> None:
    ears = {}
    for name in world.mars:
        with world[name].inside():
            ears[name] = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
            ears[name].setblocking(False)
    heard: set[str] = set()

    def listen() -> bool:
        for name, ear in ears.items():
            try:
                while octets := ear.recv(2000):
                    if octets[6:12] == node_link_layer(0):
                        heard.add(name)
            except (BlockingIOError, OSError):
                continue
        return bool(heard)

    world.attach(mar)
    eventually(listen, what="something of the node on an access link")
    for ear in ears.values():
        ear.close()
    assert heard == {mar}
