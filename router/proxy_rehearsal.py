"""A handover between a gateway and an anchor that nobody can reach, played whenever a real one may be about to come.

Code that has not run for a while costs a node milliseconds of silence: the interpreter specialises it only after some
rounds, and whatever else the machine does takes it out of the caches. Here a node comes to a gateway and leaves it, in
memory: real roles, drivers and tables, but no socket, no route and no timer. Nothing leaves this module.
"""

import time
from collections import deque
from collections.abc import Callable, Mapping
from ipaddress import IPv6Address, IPv6Network
from pathlib import Path
from typing import Any

from engine import Encapsulation, HoldBuffer, Tables
from router.driver import Driver, Fields, Journalist, Line
from router.links.attach import AccessInterface, Identities, sighting
from router.links.netlink import Netlink
from router.links.rtnetlink import Link, Reply
from router.links.rtnetlink_constants import OperState
from router.network import Network
from signaling.events import DatagramReceived, LinkDetached, LinkUp
from signaling.rate_limit import RateLimit
from signaling.roles.lma import Lma
from signaling.roles.mag import Mag
from signaling.settings import Address, LmaSettings, MagSettings, Peer
from signaling.wire import ipv6
from signaling.wire.neighbor import RouterSolicitation

ROUNDS = 12  # before the first node comes
PLAYS_A_SECOND = 20.0
A_WHILE = 2.0  # s
ANCHOR, GATEWAY = IPv6Address("2001:db8::1"), IPv6Address("2001:db8::2")
POOL = IPv6Network("2001:db8:1::/48")
NODE, LINK_LOCAL = bytes.fromhex("020000000001"), IPv6Address("fe80::1")
INTERFACE = "rehearsal"
TABLE = 1
KEY = bytes(16)


class ProxyRehearsal:
    """One anchor, one gateway, one node; made inside a running loop."""

    def __init__(self) -> None:
        self._identities = Identities({}, "rehearsal")
        self._solicitation = ipv6.carry(RouterSolicitation(), LINK_LOCAL, IPv6Address("ff02::2"))
        self._wire: deque[tuple[Address, DatagramReceived]] = deque()
        anchor = LmaSettings(
            address=ANCHOR, tunnel_mtu=1280, peers=(Peer(name="mag", address=GATEWAY, key=KEY),), pools=(POOL,)
        )
        gateway = MagSettings(
            address=GATEWAY, tunnel_mtu=1280, peers=(Peer(name="lma", address=ANCHOR, key=KEY),), anchor="lma"
        )
        access = AccessInterface(INTERFACE, self._identities, lambda event: None)
        self.drivers: dict[Address, Driver] = {
            ANCHOR: Actor(Lma(anchor), self._network(ANCHOR), {}, self._send),
            GATEWAY: Actor(Mag(gateway), self._network(GATEWAY), {INTERFACE: access}, self._send),
        }
        self.drivers[GATEWAY].feed(LinkUp(interface=INTERFACE, link_layer=bytes(6), mtu=1500))
        self._plays = RateLimit(rate=PLAYS_A_SECOND, burst=1)
        for _ in range(ROUNDS):
            self.play()

    def play_at(self, now: float) -> None:
        """Play it, but not again and again. now: monotonic s."""
        if self._plays.allows(now):
            self.play()

    def play(self) -> None:
        """A node comes and leaves."""
        event = sighting(self._solicitation, NODE, self._identities, INTERFACE)
        assert event is not None  # a fault of ours would show in every test
        for each in (event, LinkDetached(node=event.node, reason="rehearsal")):
            self.drivers[GATEWAY].feed(each)
            self._carry()
        gateway = self.drivers[GATEWAY]
        gateway.perform(gateway.role.wake(time.monotonic() + A_WHILE))  # it forgets the node
        self._carry()

    def _carry(self) -> None:
        while self._wire:
            destination, datagram = self._wire.popleft()
            self.drivers[destination].feed(datagram)

    def _network(self, address: IPv6Address) -> Network:
        network = Network(
            Stagehand(),
            Tables(),
            address=address,
            encapsulation=Encapsulation.UDP,
            table=TABLE,
            journal=Path(),
            aggregated=address == ANCHOR,
            buffer=HoldBuffer(),
        )
        network.use_tun(INTERFACE, 1280)
        network.add_access(INTERFACE, fixed_link_layer=False)
        return network

    def _send(self, octets: bytes, destination: Address) -> None:
        source = GATEWAY if destination == ANCHOR else ANCHOR
        self._wire.append((destination, DatagramReceived(octets=octets, source=source, destination=destination)))


class Actor(Driver):
    """A driver whose sockets lead to the other one, without timers and without an audience."""

    def __init__(
        self,
        role: Any,
        network: Network,
        links: Mapping[str, AccessInterface],
        send: Callable[[bytes, Address], None],
    ) -> None:
        super().__init__(role, network=network, sockets=Prompter(send), links=links)  # type: ignore[arg-type]
        self.journalist = Whisperer()

    def _set_timer(self) -> None:
        """What happens later is not played."""


class Prompter:
    """Instead of sockets."""

    def __init__(self, send: Callable[[bytes, Address], None]) -> None:
        self._send = send

    def send(
        self,
        octets: bytes,
        destination: Address,
        port: int = 0,
        source: Address | None = None,
        *,
        beside_data: bool = False,
    ) -> None:
        """Onto the stage."""
        self._send(octets, destination)


class Whisperer(Journalist):
    """Tells nobody."""

    def tell(self, event: str, about: Fields | Callable[[], Fields], at: float | None = None) -> None:
        """Into a drawer."""
        self.history.append(Line(at or 0.0, event, about))


class Stagehand(Netlink):
    """A kernel where everything is in order already."""

    def __init__(self) -> None:
        """No sockets."""

    def link(self, which: str | int) -> Link:
        """There is one."""
        return Link(
            index=1,
            name=INTERFACE,
            mtu=1500,
            link_layer=bytes(6),
            up=True,
            carrier=True,
            operstate=OperState.UP,
            kind="",
            lower=0,
            master=0,
        )

    def _exchange(self, kind: int, flags: int, body: bytes) -> list[Reply]:
        return []
