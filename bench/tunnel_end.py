"""One end of a tunnel of ours: what bench.tunnel starts on each host. All that is asked of the engine is here.

python -m bench.tunnel_end DEVICE UNDERLAY LOCAL REMOTE PREFIX --mtu OCTETS [--workers N]
"""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv6Network, ip_address

import uvloop

import engine
from bench.settings import options
from engine import (
    Encapsulation,
    Engine,
    EngineError,
    Port,
    Side,
    Tables,
    Tunnel,
    Workers,
    open_gre,
    open_ip,
    open_tun,
    open_udp,
)
from router.links.netlink import Netlink


@dataclass(frozen=True, slots=True)
class Underlay:
    """How tunnels travel."""

    title: str
    version: int  # of the outer IP
    encapsulation: Encapsulation


UNDERLAYS = {
    "udp6": Underlay("UDP over IPv6", 6, Encapsulation.UDP),
    "udp4": Underlay("UDP over IPv4", 4, Encapsulation.UDP),
    "ip6": Underlay("IPv6-in-IPv6", 6, Encapsulation.IP),
    "ip4": Underlay("IPv6-in-IPv4", 4, Encapsulation.IP),
    "gre6": Underlay("GRE over IPv6", 6, Encapsulation.GRE),
    "gre4": Underlay("GRE over IPv4", 4, Encapsulation.GRE),
}


def open_underlay(underlay: str, local: str, *, first: bool = True, workers: int = 0) -> list[Port]:
    """The ports of an underlay, one or two; first: of the worker that receives by raw sockets."""
    address = ip_address(local)
    encapsulation = UNDERLAYS[underlay].encapsulation
    if encapsulation is Encapsulation.UDP:
        return [open_udp(address, reuse_port=workers > 1)]
    if encapsulation is Encapsulation.IP:
        return list(open_ip(address, receives=first))
    return [open_gre(address, receives=first)]


def tunnel(underlay: str, local: str, remote: str) -> Tunnel:
    """The tunnel between the two."""
    encapsulation = UNDERLAYS[underlay].encapsulation
    return Tunnel(local=ip_address(local), remote=ip_address(remote), encapsulation=encapsulation)


def why_not(underlay: str) -> str | None:
    """None if this machine lets the engine use this underlay, else the reason. It tries."""
    if not engine.compiled:
        return "the engine is not compiled: make build"
    try:
        for port in open_underlay(underlay, "::1" if UNDERLAYS[underlay].version == 6 else "127.0.0.1"):
            port.close()
    except EngineError as error:
        return f"{UNDERLAYS[underlay].title}: {error}"
    return None


def serve(tables: Tables, device: str, underlay: str, local: str, *, mtu: int, workers: int) -> None:
    """Carry packets until SIGTERM: from the loop, or with worker threads. mtu: octets, of the device."""
    loop = uvloop.new_event_loop()
    loop.add_signal_handler(signal.SIGTERM, loop.stop)
    ports = [
        [open_tun(device, mtu=mtu), *open_underlay(underlay, local, first=number == 0, workers=workers)]
        for number in range(max(1, workers))
    ]
    switch_on(device, mtu)
    if workers:
        running = Workers(tables, ports)
        running.start()
        loop.run_forever()
        running.stop()
        return
    made = Engine(tables)
    for port in ports[0]:
        made.add_port(port)
    loop.add_reader(made.fileno(), made.turn)
    loop.run_forever()


def switch_on(device: str, mtu: int) -> None:
    """The TUN device is there: give it its MTU, and up."""
    with Netlink() as netlink:
        index = netlink.link(device).index
        netlink.set_mtu(index, mtu)
        netlink.set_up(index)


def main(arguments: Sequence[str] | None = None) -> None:
    """Open, switch the device on, serve."""
    made = options("tunnel_end", __doc__)
    made.add_argument("device", help="of the TUN")
    made.add_argument("underlay", choices=UNDERLAYS)
    made.add_argument("local", help="address here")
    made.add_argument("remote", help="address of the other end")
    made.add_argument("prefix", type=IPv6Network, help="what is reached through the tunnel")
    made.add_argument("--mtu", type=int, required=True, help="octets, of the TUN device")
    made.add_argument("--workers", type=int, default=0, help="threads; 0: the loop moves packets")
    about = made.parse_args(arguments)
    tables = Tables()
    tables.bind(about.prefix, tunnel(about.underlay, about.local, about.remote), side=Side.ANCHOR)
    serve(tables, about.device, about.underlay, about.local, mtu=about.mtu, workers=about.workers)


if __name__ == "__main__":
    main()
