"""A laboratory of network namespaces, alike for root and for an ordinary user, that leaves nothing behind.

enter_lab() puts the program into namespaces of its own, in three processes:

    leader                      what the user started: waits, forwards SIGINT and SIGTERM, returns the status
      +- pid 1 of the lab       reaps; dies with the leader, and the kernel then kills everything in the lab
           +- the program       enter_lab() returns here: mapped to root, loopback up, /proc of its own

Network namespaces have no names and no files: a Host holds its one by a file descriptor, so when the last
process of the lab is gone the kernel takes links, addresses and routes with it, kill -9 included.

`python -m router.demo.lab -- COMMAND` runs any command in a lab, for example the tests.
"""

import argparse
import ctypes
import errno
import itertools
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path
from types import TracebackType
from typing import IO, NoReturn, Self

from router.errors import ExitCode, RouterError
from router.links.netlink import Address, AddressFlag, Link, Netlink, OperState, Route
from router.links.rtnetlink import LINK as LINK_HEADER
from router.links.rtnetlink import NO_FLAGS, U32, attribute, text
from router.links.rtnetlink_constants import LinkAttribute, RouteProtocol

CLONE_NEWNS = 0x00020000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REC, MS_PRIVATE = 0x2, 0x4, 0x8, 0x4000, 0x40000
PR_SET_PDEATHSIG = 1
SI_KERNEL = 0x80  # a signal of the terminal: the whole process group has got it already
VETH_INFO_PEER = 1

FORWARDED = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
TUN = Path("/dev/net/tun")
OWN_NAMESPACE = "/proc/thread-self/ns/net"
PROJECT = Path(__file__).resolve().parents[2]  # so that `-m router...` is found when it is not installed
CARRIER_TIMEOUT = 3.0  # s
GRACE = 3.0  # s between SIGTERM and SIGKILL

SWITCHES = (  # what forbids user namespaces, and the value with which it does
    ("kernel.unprivileged_userns_clone", "0", "1"),
    ("user.max_user_namespaces", "0", "10000"),
    ("kernel.apparmor_restrict_unprivileged_userns", "1", "0"),
)

# Every link of a lab has a number of its own: when both ends of a veth pair have the same index, the kernel
# takes the link for its own lower device and reports changes of carrier up to a second late.
_indexes = itertools.count(100)
_libc = ctypes.CDLL(None, use_errno=True)


class LabError(RouterError):
    """No laboratory here: the cause, and the cure."""

    exit_code = ExitCode.NO_RIGHTS


# System calls the standard library of Python 3.11 does not have


def unshare(flags: int) -> None:
    """Leave namespaces for new ones. Raises OSError."""
    _check(_libc.unshare(flags))


def setns(namespace: int, flags: int) -> None:
    """Enter the namespace a descriptor stands for, with this thread. Raises OSError."""
    _check(_libc.setns(namespace, flags))


def mount(source: str, target: str, kind: str, flags: int) -> None:
    """Mount a file system. Raises OSError."""
    _check(_libc.mount(source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), None))


def die_with_parent() -> None:
    """Ask for SIGKILL when the thread that started us ends. Raises OSError."""
    _check(_libc.prctl(PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL), 0, 0, 0))


def _check(result: int) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


# Entering


def enter_lab(*, needs_tun: bool = False) -> None:
    """Go on in namespaces of our own; to be called once, before any thread starts.

    Returns in a grandchild only: the caller's own process waits and exits with its status. Raises LabError.
    """
    if needs_tun:
        check_tun()
    sys.stdout.flush()
    sys.stderr.flush()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, FORWARDED | {signal.SIGCHLD})
    try:
        _leave_namespaces()
    except BaseException:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        raise
    _become_program_of_a_lab()
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    with Netlink() as netlink:
        netlink.set_up(netlink.link("lo").index)


def check_tun() -> None:
    """Raise LabError unless TUN devices can be made."""
    try:
        os.close(os.open(TUN, os.O_RDWR | os.O_CLOEXEC))
    except PermissionError:
        raise LabError(f"{TUN} is closed to you: chmod 0666 {TUN}, or run as root") from None
    except OSError as error:
        cure = "modprobe tun, or give the container --device /dev/net/tun"
        raise LabError(f"{TUN}: {error.strerror}: {cure}") from None


def _leave_namespaces() -> None:
    kinds = CLONE_NEWNET | CLONE_NEWNS | CLONE_NEWPID
    try:
        if os.geteuid() != 0 or not _unshared_as_root(kinds):
            _enter_user_namespace(kinds)
        mount("none", "/", "", MS_REC | MS_PRIVATE)
    except OSError as error:
        raise LabError(f"cannot make namespaces: {_why_not(error)}") from None


def _unshared_as_root(kinds: int) -> bool:
    try:
        unshare(kinds)
    except PermissionError:  # root of a container that lacks CAP_SYS_ADMIN
        return False
    return True


def _enter_user_namespace(kinds: int) -> None:
    user, group = os.geteuid(), os.getegid()
    unshare(CLONE_NEWUSER | kinds)
    # before anything is executed: a program started without the maps has no rights
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {user} 1")
    Path("/proc/self/gid_map").write_text(f"0 {group} 1")


def _why_not(error: OSError) -> str:
    for name, forbids, allows in SWITCHES:
        with suppress(OSError):
            if Path("/proc/sys", *name.split(".")).read_text().strip() == forbids:
                return f"{name} is {forbids}: sysctl -w {name}={allows}, or run as root"
    if error.errno == errno.EINVAL:
        return "user namespaces need a kernel with CONFIG_USER_NS, and a program without threads"
    return f"{error.strerror}: run as root, or allow unshare in the container (--cap-add SYS_ADMIN)"


def _become_program_of_a_lab() -> None:
    leash, held = os.pipe()
    if child := os.fork():
        os.close(leash)
        os._exit(_serve(child))
    os.close(held)
    die_with_parent()
    if select.select([leash], [], [], 0)[0]:  # the leader was gone before we asked to die with it
        os._exit(ExitCode.FAILED)
    os.close(leash)
    with suppress(OSError):  # a container with a masked /proc does not allow it; then the old one must do
        mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    if child := os.fork():
        os._exit(_serve(child))


def _serve(child: int) -> int:
    """Forward signals to the child and reap whoever ends; its exit status, when it does."""
    while True:
        caught = signal.sigwaitinfo(FORWARDED | {signal.SIGCHLD})
        if caught.si_signo != signal.SIGCHLD:
            if caught.si_code != SI_KERNEL:
                os.kill(child, caught.si_signo)
            continue
        for pid, status in _ended():
            if pid == child:
                code = os.waitstatus_to_exitcode(status)
                return code if code >= 0 else 128 - code


def _ended() -> Iterator[tuple[int, int]]:
    with suppress(ChildProcessError):
        while (found := os.waitpid(-1, os.WNOHANG))[0]:
            yield found


def available() -> str | None:
    """None if this process can make hosts, else the reason why not, for a test to skip with."""
    try:
        os.close(_new_namespace())
    except LabError as error:
        return str(error)
    return None


# Hosts


@contextmanager
def inside(namespace: int) -> Iterator[None]:
    """Work in a network namespace with this thread, then come back to where it was."""
    before = os.open(OWN_NAMESPACE, os.O_RDONLY | os.O_CLOEXEC)
    try:
        setns(namespace, CLONE_NEWNET)
        try:
            yield
        finally:
            setns(before, CLONE_NEWNET)
    finally:
        os.close(before)


def _new_namespace() -> int:
    before = os.open(OWN_NAMESPACE, os.O_RDONLY | os.O_CLOEXEC)
    try:
        unshare(CLONE_NEWNET)
        try:
            return os.open(OWN_NAMESPACE, os.O_RDONLY | os.O_CLOEXEC)
        finally:
            setns(before, CLONE_NEWNET)
    except OSError as error:
        cure = "run under `python -m router.demo.lab -- COMMAND`"
        raise LabError(f"cannot make a network namespace: {error.strerror}: {cure}") from None
    finally:
        os.close(before)


class Host:
    """One machine of the lab: a network namespace and the processes started in it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.namespace = _new_namespace()  # descriptor; the namespace lives as long as it is open
        self.processes: list[subprocess.Popen[bytes]] = []
        with self.inside():
            self.netlink = Netlink()
        self.link_up("lo")

    def __repr__(self) -> str:
        return f"Host({self.name!r})"

    @contextmanager
    def inside(self) -> Iterator[Self]:
        """Open sockets, write sysctls, start processes on this host, with this thread."""
        with inside(self.namespace):
            yield self

    def close(self) -> None:
        """Let go of the namespace; the kernel removes it when nobody else is in it."""
        self.netlink.close()
        os.close(self.namespace)

    def link(self, name: str) -> Link:
        """The link of that name, as it is now."""
        return self.netlink.link(name)

    def link_up(self, name: str) -> None:
        """Switch a link on."""
        self.netlink.set_up(self.link(name).index)

    def link_down(self, name: str) -> None:
        """Switch a link off."""
        self.netlink.set_down(self.link(name).index)

    def link_layer(self, name: str, address: str) -> None:
        """Give a link its MAC address, written 02:00:..."""
        self.netlink.set_link_layer(self.link(name).index, bytes.fromhex(address.replace(":", "")))

    def address(self, name: str, address: str) -> None:
        """Give a link an address, written with its prefix length; usable at once (no duplicate detection)."""
        with_prefix = ip_interface(address)
        wanted = Address(
            index=self.link(name).index,
            address=with_prefix.ip,
            prefixlen=with_prefix.network.prefixlen,
            flags=AddressFlag.NODAD if with_prefix.version == 6 else NO_FLAGS,
        )
        self.netlink.add_address(wanted)

    def route(self, destination: str, *, via: str = "", dev: str = "") -> None:
        """Add a static route through a gateway, a link, or both."""
        route = Route(
            destination=ip_network(destination),
            gateway=ip_address(via) if via else None,
            oif=self.link(dev).index if dev else 0,
            protocol=RouteProtocol.STATIC,
        )
        self.netlink.replace_route(route)

    def sysctl(self, path: str, value: int | str) -> None:
        """Set net.*, written with slashes: `net/ipv6/conf/all/forwarding`. Raises LabError."""
        with self.inside():  # /proc/sys/net shows the namespace of whoever looks
            try:
                Path("/proc/sys", path).write_text(str(value))
            except OSError as error:
                cure = "/proc/sys must be writable (a container mounts it read-only unless privileged)"
                raise LabError(f"set {path} on {self.name}: {error.strerror}: {cure}") from None

    def spawn(
        self,
        arguments: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        stdin: int | IO[bytes] | None = None,
        stdout: int | IO[bytes] | None = None,
        stderr: int | IO[bytes] | None = None,
    ) -> subprocess.Popen[bytes]:
        """Start a program on this host; the lab ends it if nobody else does. env: on top of ours."""
        environment = {**os.environ, **(env or {})}
        with self.inside():
            process = subprocess.Popen(arguments, env=environment, stdin=stdin, stdout=stdout, stderr=stderr)
        self.processes.append(process)
        return process

    def spawn_module(
        self,
        module: str,
        *arguments: str,
        stdin: int | IO[bytes] | None = None,
        stdout: int | IO[bytes] | None = None,
        stderr: int | IO[bytes] | None = None,
    ) -> subprocess.Popen[bytes]:
        """Start `python -m module arguments` on this host, with the router's own modules in reach."""
        path = os.pathsep.join(filter(None, (str(PROJECT), os.environ.get("PYTHONPATH"))))
        command = [sys.executable, "-m", module, *arguments]
        return self.spawn(command, env={"PYTHONPATH": path}, stdin=stdin, stdout=stdout, stderr=stderr)


def connect(host: Host, name: str, peer: Host, peer_name: str, *, mtu: int = 1500, switched_on: bool = True) -> None:
    """Make a cable: a veth pair with one end on each host. mtu: octets, of both."""
    here, there = next(_indexes), next(_indexes)
    far_end = LINK_HEADER.pack(0, 0, there, 0, 0) + text(LinkAttribute.IFNAME, peer_name)
    far_end += attribute(LinkAttribute.MTU, U32.pack(mtu))
    far_end += attribute(LinkAttribute.NET_NS_FD, U32.pack(peer.namespace))
    host.netlink.create_link(name, "veth", attribute(VETH_INFO_PEER, far_end), index=here)
    host.netlink.set_mtu(here, mtu)
    if switched_on:
        host.netlink.set_up(here)
        peer.netlink.set_up(there)
        wait_until_up(host, here)
        wait_until_up(peer, there)


def wait_until_up(host: Host, index: int) -> None:
    """Wait until a link that has carrier sends: the kernel works off changes of carrier a little later.

    A packet before that is lost silently; a lost neighbour solicitation costs a second.
    """
    deadline = time.monotonic() + CARRIER_TIMEOUT
    while host.netlink.link(index).operstate != OperState.UP:
        if time.monotonic() > deadline:
            raise LabError(f"link #{index} of {host.name}: no carrier within {CARRIER_TIMEOUT:g} s")
        time.sleep(0.0005)


class Lab:
    """The hosts of one experiment; ends their processes and lets go of their namespaces when it is closed."""

    def __init__(self) -> None:
        self.hosts: dict[str, Host] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __getitem__(self, name: str) -> Host:
        return self.hosts[name]

    def host(self, name: str) -> Host:
        """A new machine. Raises LabError."""
        if name in self.hosts:
            raise ValueError(f"there is a host {name} already")
        self.hosts[name] = Host(name)
        return self.hosts[name]

    def close(self) -> None:
        """End every process, politely first, then close the hosts."""
        end([process for host in self.hosts.values() for process in host.processes])
        for host in self.hosts.values():
            host.close()
        self.hosts.clear()


def end(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """SIGTERM to all, SIGKILL to those still there after GRACE; returns when all are gone."""
    for process in processes:
        process.terminate()
    deadline = time.monotonic() + GRACE
    for process in processes:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


# Command line


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a command in a lab: its exit status is ours."""
    parser = argparse.ArgumentParser(prog="python -m router.demo.lab", description=main.__doc__)
    parser.add_argument("--tun", action="store_true", help="refuse unless TUN devices can be made")
    parser.add_argument("command", nargs="+", help="after --: the program and its arguments")
    chosen = parser.parse_args(arguments)
    try:
        enter_lab(needs_tun=chosen.tun)
    except RouterError as error:
        sys.exit(_complain(str(error), error.exit_code))
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python ignores it, and the command would inherit that
    try:
        os.execvp(chosen.command[0], chosen.command)
    except OSError as error:
        sys.exit(_complain(f"{chosen.command[0]}: {error.strerror}", 127))


def _complain(message: str, status: int) -> int:
    print(f"lab: {message}", file=sys.stderr)
    return status


if __name__ == "__main__":
    main()
