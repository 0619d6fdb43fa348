"""dhclient of ISC on a node: what a stock host does with what it is leased."""

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from router.demo.lab import Host
from tests.eventually import eventually

DHCLIENT = shutil.which("dhclient", path="/usr/sbin:/sbin:/usr/bin:/bin")
with_client = pytest.mark.skipif(
    DHCLIENT is None and "CI" not in os.environ, reason="no dhclient here: apt-get install isc-dhcp-client"
)
SCRIPT = """#!/bin/sh
case $reason in
BOUND | RENEW | REBIND | REBOOT)
    ip address replace "$new_ip_address/$new_subnet_mask" dev "$interface"
    ip link set mtu "$new_interface_mtu" dev "$interface"
    ip route replace default via "$new_routers" dev "$interface" ;;
RELEASE | EXPIRE | FAIL)
    ip -4 address flush dev "$interface" ;;
esac
echo "$reason $new_ip_address$new_ip6_prefix" >> {log}
"""
CONFIG = "supersede dhcp-renewal-time {renew};\nsupersede dhcp-rebinding-time 3000;\n"


def wrote_lease(file: Path) -> bool:
    """Whether the lease is on the disk, for the next dhclient to find: it is written after the script has run."""
    return file.exists() and file.read_text().rstrip().endswith("}")


class DhcpClient:
    """On radio0 of a node. renew: s after which it renews its IPv4 lease."""

    def __init__(self, host: Host, place: Path, *, renew: int = 1800) -> None:
        place.mkdir(exist_ok=True)
        self._host = host
        self._log = place / "log"
        self._log.touch()
        self._leases, self._pid = place / "leases", place / "pid"
        self._script, self._config = place / "script", place / "config"
        self._script.write_text(SCRIPT.format(log=self._log))
        self._script.chmod(0o755)
        self._config.write_text(CONFIG.format(renew=renew))
        self._running: subprocess.Popen[bytes] | None = None

    def start(self, *arguments: str) -> None:
        """Have it ask, and keep what it gets."""
        self._running = self._run("-d", *arguments)

    def release(self, *arguments: str) -> None:
        """Have it give back what it got, and end."""
        assert self._running is not None
        eventually(lambda: wrote_lease(self._leases), 10.0, "dhclient remembers its lease")
        self._running.send_signal(signal.SIGKILL)
        self._running.wait()
        self._run("-d", "-r", *arguments).wait(15.0)

    def heard(self, *lines: str, within: float = 30.0) -> str:
        """Wait until one of these is the last it told; that line."""

        def told() -> str:
            last = self.told()[-1:] or [""]
            return last[0] if last[0].startswith(lines) else ""

        return eventually(told, within, f"dhclient says {lines}, not {self.told()}")

    def told(self) -> list[str]:
        """What it told its script, line by line: reason and address or prefix."""
        return [line.strip() for line in self._log.read_text().splitlines() if not line.startswith("PREINIT")]

    def _run(self, *arguments: str) -> subprocess.Popen[bytes]:
        files = ("-sf", str(self._script), "-lf", str(self._leases), "-pf", str(self._pid), "-cf", str(self._config))
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        return self._host.spawn([str(DHCLIENT), *arguments, *files, "radio0"], **quiet)
