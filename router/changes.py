"""What this router changes in the kernel that bears no owner mark: sysctls, link-layer addresses and the like.

Each is written down, with what it was before, before it is changed, and put back at the end: by this run, or, when it
was killed, by the next one.
"""

import json
import os
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

from router.errors import NoRights
from router.links.netlink import Netlink, NetlinkError
from router.links.rtnetlink import Address

SYSCTL, SYSCTL_IPV4 = Path("/proc/sys/net/ipv6"), Path("/proc/sys/net/ipv4")
SYSCTLS = {"sysctl": SYSCTL, "sysctl_ipv4": SYSCTL_IPV4}  # by the kind of a change


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """Something without an owner mark that we changed. value: what it was before."""

    kind: str  # "sysctl", "sysctl_ipv4", "link_layer", "router": our address, "switched_on": an interface that was off
    name: str  # of the sysctl, or of the interface; of a router: router/interface/address
    value: str


class Changes:
    """All of one router, as its journal has them."""

    def __init__(self, netlink: Netlink, journal: Path) -> None:
        self.made: list[Change] = []
        self._netlink = netlink
        self._file = journal

    # --- the journal ---

    def adopt(self) -> None:
        """What another process of this router has changed is ours."""
        self.made = self._read()

    def undo_left(self) -> list[str]:
        """Put back what a run that crashed has left changed. Returns what that was, in words."""
        self.made = self._read()
        left = [f"{change.kind} {change.name}" for change in reversed(self.made)]
        self.undo()
        return left

    def undo(self) -> None:
        """Put back everything, in the reverse order of how it came."""
        for change in reversed(self.made):
            self._restore(change)
        self.made = []
        self._file.unlink(missing_ok=True)

    def note(self, change: Change) -> None:
        """Write down a change that is about to be made; the oldest value of a thing is the one to restore."""
        if any((old.kind, old.name) == (change.kind, change.name) for old in self.made):
            return
        self.made.append(change)
        self._write()

    def forget(self, interface: str) -> None:
        """The interface is gone, and what was changed of it; one that comes with its name is another."""
        # sysctls of an interface are conf/eth1/..., its addresses router/eth1/...
        self._keep([item for item in self.made if interface not in (item.name, *item.name.split("/")[1:2])])

    def take(self, kind: str, name: str) -> Change | None:
        """That change, which is about to be put back; None: it was not made."""
        found = next((item for item in self.made if (item.kind, item.name) == (kind, name)), None)
        self._keep([item for item in self.made if item is not found])
        return found

    # --- sysctls ---

    def read_sysctl(self, name: str, kind: str = "sysctl") -> str:
        """What it is now; "": there is none of that name."""
        try:
            return (SYSCTLS[kind] / name).read_text().strip()
        except OSError:
            return ""

    def write_sysctl(self, name: str, value: str, kind: str = "sysctl", *, restore: bool = True) -> None:
        """Set it, until undo() unless restore is False. Raises NoRights."""
        before = self.read_sysctl(name, kind)
        if before == value:
            return
        if restore:
            self.note(Change(kind=kind, name=name, value=before))
        try:
            (SYSCTLS[kind] / name).write_text(value)
        except OSError as error:
            key = f"net.{SYSCTLS[kind].name}.{name.replace('/', '.')}"
            why = os.strerror(error.errno or 0).lower()
            raise NoRights(f"{key} = {value}: {why}: set it before: sysctl -w {key}={value}") from None

    # --- inside ---

    def _restore(self, change: Change) -> None:
        with suppress(OSError, ValueError, TypeError, NetlinkError):  # the interface may be gone, the journal not ours
            if change.kind in SYSCTLS:
                (SYSCTLS[change.kind] / change.name).write_text(change.value)
            elif change.kind == "link_layer":
                self._netlink.set_link_layer(self._netlink.link(change.name).index, bytes.fromhex(change.value))
            elif change.kind == "router":
                _, name, address = change.name.split("/")
                own = Address(index=self._netlink.link(name).index, address=IPv4Address(address), prefixlen=32)
                self._netlink.delete_address(own)
            elif change.kind == "switched_on":
                self._netlink.set_down(self._netlink.link(change.name).index)

    def _read(self) -> list[Change]:
        try:
            return [Change(**item) for item in json.loads(self._file.read_text())]
        except (OSError, ValueError, TypeError):
            return []  # there is nothing, or nothing readable

    def _keep(self, changes: list[Change]) -> None:
        if changes != self.made:
            self.made = changes
            self._write()

    def _write(self) -> None:
        items = [{"kind": item.kind, "name": item.name, "value": item.value} for item in self.made]
        temporary = self._file.with_suffix(".new")
        try:
            temporary.write_text(json.dumps(items))
            temporary.replace(self._file)
        except OSError as error:
            raise NoRights(f"{self._file}: {error.strerror}: nothing may be changed that cannot be put back") from None
