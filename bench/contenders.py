"""Who is measured: how each is started on a wire, and when it cannot be.

direct                  no tunnel: what the wire gives
seg6                    IPv6-in-IPv6 of the kernel, by its segment routing (it is there where ip6_tunnel is not)
udp6 ... udp6-workers   ours
bare-udp6, bare-ip6     a loop in C that does nothing else: bare_loop.c
fastd, openvpn, wireguard-go    tunnels in user space that people install; without encryption where they can do so
"""

from __future__ import annotations

import ctypes
import enum
import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench import tunnel_end
from bench.wire import CABLE, OVERLAY_MTU, BenchError, Wire, last_words
from router.demo.lab import MS_NODEV, MS_NOSUID, mount

SOURCES = Path(__file__).parent
COMPILERS = ("cc", "gcc", "clang")
RUN = "/run"  # where wireguard-go has its control socket
MNT_DETACH = 2
PORT = 10000  # UDP, of the peers


class Kind(enum.Enum):
    """What a contender is compared as."""

    DIRECT = "direct"
    KERNEL = "kernel"
    OURS = "ours"
    BARE = "bare loop"
    PEER = "peer"


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """One way from near to far."""

    name: str
    title: str
    kind: Kind
    start: Callable[[Wire], None]  # raises BenchError
    why_not: Callable[[], str | None]  # None: it can be measured here


@dataclass(frozen=True, slots=True)
class Programs:
    """What was compiled for this run; None: there is no compiler, or it failed."""

    bare_loop: Path | None
    blast: Path | None
    trouble: str = ""  # why they are missing


def compile_programs(place: Path) -> Programs:
    """Compile bare_loop.c and blast.c into a directory."""
    compiler = next(filter(None, map(shutil.which, COMPILERS)), None)
    if compiler is None:
        return Programs(None, None, "no C compiler")
    environment = {**os.environ, "TMPDIR": str(place)}  # what a compiler leaves when it is stopped goes with the place
    for name in ("bare_loop", "blast"):
        command = [
            compiler,
            "-O3",
            "-march=native",
            "-D_GNU_SOURCE",
            "-o",
            str(place / name),
            str(SOURCES / f"{name}.c"),
        ]
        done = subprocess.run(command, env=environment, capture_output=True, check=False)
        if done.returncode:  # a compiler that does not know this processor
            command.remove("-march=native")
            done = subprocess.run(command, env=environment, capture_output=True, check=False)
        if done.returncode:
            return Programs(None, None, f"{name}.c does not compile: {last_words(done.stderr)}")
    return Programs(place / "bare_loop", place / "blast")


def contenders(programs: Programs, workers: int) -> dict[str, Contender]:
    """All that could be measured, in the order of the table. workers: threads of udp6-workers."""
    made = [
        Contender(name="direct", title="no tunnel", kind=Kind.DIRECT, start=start_direct, why_not=never),
        Contender(name="seg6", title="kernel seg6", kind=Kind.KERNEL, start=start_seg6, why_not=partial(missing, "ip")),
    ]
    made += [ours(underlay, underlay, 0) for underlay in tunnel_end.UNDERLAYS]
    made.append(ours("udp6-workers", "udp6", workers))
    for name, mode in (("bare-udp6", "udp"), ("bare-ip6", "raw")):
        made.append(
            Contender(
                name=name,
                title=f"bare loop {name.removeprefix('bare-')}",
                kind=Kind.BARE,
                start=partial(start_bare_loop, programs.bare_loop, mode),
                why_not=lambda: programs.trouble or None,
            )
        )
    for name, start, needed in (
        ("fastd", start_fastd, ("fastd",)),
        ("openvpn", start_openvpn, ("openvpn",)),
        ("wireguard-go", start_wireguard, ("wireguard-go", "wg")),
    ):
        made.append(Contender(name=name, title=name, kind=Kind.PEER, start=start, why_not=partial(missing, *needed)))
    return {each.name: each for each in made}


def ours(name: str, underlay: str, workers: int) -> Contender:
    """Our engine over an underlay; workers 0: served from the loop."""
    return Contender(
        name=name,
        title=f"openmar {underlay}" + (f", {workers} workers" if workers else ""),
        kind=Kind.OURS,
        start=partial(start_ours, underlay, workers),
        why_not=partial(tunnel_end.why_not, underlay),
    )


def never() -> None:
    """Nothing is in its way."""


def missing(*programs: str) -> str | None:
    """The first of these programs that is not installed, as a reason."""
    return next((f"{name} is not installed" for name in programs if shutil.which(name) is None), None)


# Starting


def start_direct(wire: Wire) -> None:
    """The overlay stands on the cable itself, with the MTU that the tunnels have."""
    for end, peer in wire.ends:
        index = end.host.link(CABLE).index
        end.host.netlink.set_mtu(index, OVERLAY_MTU)
        end.host.address(CABLE, str(end.overlay))
        end.route_to(peer, index, gateway=peer.underlay.ip)


def start_seg6(wire: Wire) -> None:
    """One segment without a routing header (encap.red) is plain IPv6-in-IPv6; End.DT6 takes it off again."""
    segments = {id(end): f"2001:db8:5::{number}" for number, (end, _) in enumerate(wire.ends, 1)}
    for end, peer in wire.ends:
        for path in ("all/forwarding", "all/seg6_enabled", f"{CABLE}/seg6_enabled"):
            end.host.sysctl(f"net/ipv6/conf/{path}", 1)
        end.host.address("lo", f"{end.overlay.ip}/128")
        here, there = segments[id(end)], segments[id(peer)]
        end.host.route(f"{there}/128", via=str(peer.underlay.ip))
        add = ("ip", "-6", "route", "add")
        end.run(*add, f"{here}/128", "encap", "seg6local", "action", "End.DT6", "table", "255", "dev", CABLE)
        encapsulated = ("encap", "seg6", "mode", "encap.red", "segs", there, "dev", CABLE)
        end.run(*add, f"{peer.overlay.ip}/128", *encapsulated, "mtu", str(OVERLAY_MTU), "src", str(end.overlay.ip))


def start_ours(underlay: str, workers: int, wire: Wire) -> None:
    """A Python process at each end."""
    version = tunnel_end.UNDERLAYS[underlay].version
    for end, peer in wire.ends:
        local, remote = (str((each.underlay if version == 6 else each.underlay4).ip) for each in (end, peer))
        about = (end.device, underlay, local, remote, str(peer.overlay.network))
        end.start_module("bench.tunnel_end", *about, "--mtu", str(OVERLAY_MTU), "--workers", str(workers))
    wire.join_overlay()


def start_bare_loop(program: Path | None, mode: str, wire: Wire) -> None:
    """mode: udp or raw."""
    if program is None:
        raise BenchError("bare_loop was not compiled")
    for end, peer in wire.ends:
        end.start(program, end.device, mode, str(end.underlay.ip), str(peer.underlay.ip))
    wire.join_overlay()


def start_fastd(wire: Wire) -> None:
    """No encryption, no authentication of packets (method null)."""
    keys = {}
    for end, _ in wire.ends:
        lines = end.run("fastd", "--generate-key").splitlines()
        keys[id(end)] = [line.split()[-1] for line in lines if ":" in line][:2]  # secret, public
    for end, peer in wire.ends:
        config = wire.place / f"fastd-{end.host.name}.conf"
        config.write_text(
            f'interface "{end.device}";\nmode tun;\nmethod "null";\nmtu {OVERLAY_MTU};\nlog level warn;\n'
            f'bind [{end.underlay.ip}]:{PORT};\nsecret "{keys[id(end)][0]}";\n'
            f'peer "peer" {{ key "{keys[id(peer)][1]}"; remote [{peer.underlay.ip}]:{PORT}; }}\n'
        )
        end.start("fastd", "--config", config)
    wire.join_overlay()


def start_openvpn(wire: Wire) -> None:
    """No encryption, no authentication of packets; a static key, which takes no handshake."""
    key = wire.place / "openvpn.key"
    wire.near.run("openvpn", "--genkey", "secret", key)
    for end, peer in wire.ends:
        words = f"--dev {end.device} --dev-type tun --proto udp6 --cipher none --auth none --fast-io --mssfix 0".split()
        words += ["--tun-mtu", str(OVERLAY_MTU), "--secret", str(key)]
        words += ["--local", str(end.underlay.ip), "--remote", str(peer.underlay.ip), "--port", str(PORT)]
        end.start("openvpn", *words)
    wire.join_overlay()


def start_wireguard(wire: Wire) -> None:
    """It cannot do without encryption. Its control sockets are in a /run of their own while it is measured."""
    mount("none", RUN, "tmpfs", MS_NOSUID | MS_NODEV)
    wire.at_end(_umount_run)
    keys = {}
    for end, _ in wire.ends:
        secret = end.run("wg", "genkey")
        keys[id(end)] = end.run("wg", "pubkey", octets=secret.encode()).strip()
        (wire.place / f"wireguard-{end.host.name}.key").write_text(secret)
        end.start("wireguard-go", "--foreground", end.device)
    wire.wait_for_devices()
    for end, peer in wire.ends:
        own = ("private-key", wire.place / f"wireguard-{end.host.name}.key", "listen-port", str(PORT))
        theirs = ("peer", keys[id(peer)], "allowed-ips", "::/0", "endpoint", f"[{peer.underlay.ip}]:{PORT}")
        end.run_until_done("wg", "set", end.device, *own, *theirs)
    wire.join_overlay()


def _umount_run() -> None:
    ctypes.CDLL(None).umount2(RUN.encode(), MNT_DETACH)
