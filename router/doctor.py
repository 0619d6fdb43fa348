"""`python -m router --doctor`: what of this machine a router can use, what is missing, and the cure."""

import os
import platform
import socket
import stat
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from enum import Enum
from pathlib import Path

import engine
from engine import offloads
from router.config import Config
from router.errors import ExitCode
from router.places import default_state_dir

TUN = Path("/dev/net/tun")
CAP_NET_ADMIN, CAP_NET_RAW = 12, 13


class Verdict(Enum):
    """What a check found."""

    GOOD = "ok"
    WORSE = "note"  # it runs, but not as well as it could
    BAD = "FAIL"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report."""

    verdict: Verdict
    what: str
    text: str


def report() -> int:
    """Print the findings. Exit code 0 when a router can run here, 5 when something is missing."""
    findings = [check() for check in CHECKS]
    width = max(len(finding.what) for finding in findings)
    for finding in findings:
        print(f"{finding.verdict.value:<5} {finding.what:<{width}}  {finding.text}")
    bad = any(finding.verdict is Verdict.BAD for finding in findings)
    return ExitCode.NO_RIGHTS if bad else ExitCode.DONE


def _python() -> Finding:
    good = sys.version_info >= (3, 11)
    text = f"{platform.python_version()} on {platform.machine()}, kernel {platform.release()}"
    return Finding(Verdict.GOOD if good else Verdict.BAD, "python", text)


def _engine() -> Finding:
    if engine.compiled:
        return Finding(Verdict.GOOD, "engine", f"compiled, {Path(engine.__file__).parent}")
    return Finding(Verdict.WORSE, "engine", "not compiled, the slow model runs instead: pip install -e . (needs gcc)")


def _tun() -> Finding:
    try:
        mode = TUN.stat().st_mode
    except OSError as error:
        cure = "load the tun module, or pass --device /dev/net/tun to the container"
        return Finding(Verdict.BAD, "tun", f"{TUN}: {(error.strerror or '').lower()}: {cure}")
    if not os.access(TUN, os.R_OK | os.W_OK):
        text = f"{TUN} has mode {stat.S_IMODE(mode):04o} and is closed to this user: chmod 0666 {TUN}"
        return Finding(Verdict.BAD, "tun", text)
    return Finding(Verdict.GOOD, "tun", f"{TUN}, mode {stat.S_IMODE(mode):04o}")


def _offloads() -> Finding:
    found = offloads.probe()
    given = [field.name for field in fields(found) if getattr(found, field.name)]
    missing = [field.name for field in fields(found) if not getattr(found, field.name)]
    text = f"the kernel gives {', '.join(given) or 'none'}"
    if not missing:
        return Finding(Verdict.GOOD, "offloads", text)
    why = "those of the TUN need CAP_NET_ADMIN to be tried, uso Linux 6.2"
    text += f"; not {', '.join(missing)} ({why}): packets move all the same, slower"
    return Finding(Verdict.WORSE, "offloads", text)


def _capabilities() -> Finding:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapEff"))
    held = int(line.split()[1], 16)
    missing = [
        name
        for name, bit in (("CAP_NET_ADMIN", CAP_NET_ADMIN), ("CAP_NET_RAW", CAP_NET_RAW))
        if not held >> bit & 1
    ]
    if not missing:
        return Finding(Verdict.GOOD, "capabilities", "CAP_NET_ADMIN and CAP_NET_RAW")
    cure = "run as root, with --cap-add in a container, or inside `unshare --user --map-root-user --net`"
    return Finding(Verdict.BAD, "capabilities", f"missing {', '.join(missing)}: {cure}")


def _namespaces() -> Finding:
    child = os.fork()
    if child == 0:
        try:
            from router.demo.lab import enter_lab

            enter_lab()
            os._exit(0)
        except BaseException:
            os._exit(1)
    works = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    if works:
        return Finding(Verdict.GOOD, "namespaces", "user and network namespaces can be made: the demo runs")
    text = "cannot be made here (sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone): no demo"
    return Finding(Verdict.WORSE, "namespaces", text)


def _forwarding() -> Finding:
    try:
        on = Path("/proc/sys/net/ipv6/conf/all/forwarding").read_text().strip() == "1"
    except OSError:
        return Finding(Verdict.BAD, "forwarding", "this kernel, or this namespace, has no IPv6")
    text = "IPv6 forwarding is on" if on else "IPv6 forwarding is off: the router switches it on with its access links"
    return Finding(Verdict.GOOD, "forwarding", text)


def _source_routes() -> Finding:
    from router.links.netlink import Netlink, NetlinkError

    try:
        with Netlink() as netlink:
            netlink.rules()
    except (NetlinkError, OSError) as error:
        return Finding(Verdict.BAD, "routing rules", f"{error}: the kernel needs IPV6_MULTIPLE_TABLES")
    return Finding(Verdict.GOOD, "routing rules", "IPv6 rules and tables are there")


def _clock() -> Finding:
    now = time.time()
    if now < 1_700_000_000:
        return Finding(Verdict.BAD, "clock", "the clock is years behind: updates carry timestamps, set it")
    return Finding(Verdict.GOOD, "clock", "set; routers of a domain must agree within 300 ms (run NTP)")


def _signaling() -> Finding:
    try:
        socket.socket(socket.AF_INET6, socket.SOCK_RAW, 135).close()
    except OSError as error:
        text = f'protocol 135: {(error.strerror or "").lower()}: use signaling = "udp", or CAP_NET_RAW'
        return Finding(Verdict.WORSE, "signalling", text)
    return Finding(Verdict.GOOD, "signalling", "protocol 135 (Mobility Header) and UDP 5436 can be opened")


def _store() -> Finding:
    directory = default_state_dir()
    place = next((item for item in (directory, *directory.parents) if os.path.exists(item)), Path("/"))
    if not os.access(place, os.W_OK):
        return Finding(Verdict.WORSE, "store", f"{directory} cannot be written: give --state-dir")
    return Finding(Verdict.GOOD, "store", f"{Config().store_url} can be written")


CHECKS: tuple[Callable[[], Finding], ...] = (
    _python,
    _engine,
    _tun,
    _offloads,
    _capabilities,
    _namespaces,
    _forwarding,
    _source_routes,
    _signaling,
    _clock,
    _store,
)
