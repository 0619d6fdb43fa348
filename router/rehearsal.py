"""A handover that nobody can reach: real roles, drivers and tables, but no socket, no route and no timer.

Code that has not run for a while costs a node milliseconds of silence: the interpreter specialises it only after some
rounds, and whatever else the machine does takes it out of the caches. A rehearsal waits before the act that it is for,
as a real handover does, so that this act alone is played when a real one is about to come:

    ARRIVAL    a node shows itself at the new router, which asks the anchor
    UPDATE     the anchor hears of it, turns the packets round and answers
    ANSWER     the new router hears that
    DEPARTURE  the node leaves, and is forgotten

`proxy_rehearsal` and `mar_rehearsal` say who plays; `readiness` says when.
"""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Mapping
from enum import IntEnum
from ipaddress import IPv6Address
from pathlib import Path
from typing import Any

from engine import Encapsulation, HoldBuffer, Tables
from router.driver import Driver, Fields, Journalist, Line
from router.links.attach import AccessInterface, Identities, sighting
from router.links.netlink import Netlink
from router.links.rtnetlink import Link, Reply
from router.links.rtnetlink_constants import OperState
from router.network import Network
from signaling.events import ClockStepped, DatagramReceived, LinkAttached, LinkUp
from signaling.settings import Address
from signaling.wire import ipv6
from signaling.wire.neighbor import RouterSolicitation

A_WHILE = 2.0  # s, after which a router has forgotten a node that left
ANCHOR, ROUTER = IPv6Address("2001:db8::1"), IPv6Address("2001:db8::2")
NODE, LINK_LOCAL = bytes.fromhex("020000000001"), IPv6Address("fe80::1")
INTERFACE = "rehearsal"
TABLE = 1
KEY = bytes(16)


class Act(IntEnum):
    """The acts, in their order."""

    ARRIVAL = 0
    UPDATE = 1
    ANSWER = 2
    DEPARTURE = 3


class Rehearsal(ABC):
    """One anchor, one router with an access link, one node. Made inside a running loop."""

    def __init__(self, waits_before: Act) -> None:
        self.drivers: dict[Address, Driver] = {}
        self._waits_before = waits_before
        self._next = Act.ARRIVAL
        self._now = 0.0  # s, on the stage
        self._identities = Identities({}, "rehearsal")
        self._solicitation = ipv6.carry(RouterSolicitation(), LINK_LOCAL, IPv6Address("ff02::2"))
        self._wire: deque[tuple[Address, DatagramReceived]] = deque()
        self._cast()
        self.wind()

    @property
    def ready(self) -> bool:
        """It waits before its act."""
        return self._next is self._waits_before

    def play(self) -> None:
        """The next act."""
        ACTS[self._next](self)
        self._next = Act((self._next + 1) % len(Act))

    def wind(self) -> None:
        """All acts up to the one that it is for; none if it waits there."""
        while not self.ready:
            self.play()

    # --- what differs ---

    @abstractmethod
    def _cast(self) -> None:
        """Make the drivers."""

    @abstractmethod
    def _depart(self) -> None:
        """The node leaves its router, and is forgotten there."""

    # --- the acts ---

    def _arrive(self) -> None:
        """A node shows itself."""
        self.drivers[ROUTER].feed(self._sighting())

    def _hear(self) -> None:
        """Whoever is spoken to hears what is on its way now; what they say to that is heard in the next act."""
        for _ in range(len(self._wire)):
            destination, datagram = self._wire.popleft()
            self.drivers[destination].feed(datagram)

    def _leave(self) -> None:
        self._depart()
        self._carry()

    def _pass_time(self, *drivers: Driver) -> None:
        """So much that what these wanted to do later is due."""
        self._now += A_WHILE
        for driver in drivers:
            driver.perform(driver.role.wake(self._now))

    def _carry(self) -> None:
        """Until nobody has anything to say."""
        while self._wire:
            self._hear()

    # --- who plays ---

    def _sighting(self) -> LinkAttached:
        event = sighting(self._solicitation, NODE, self._identities, INTERFACE)
        assert event is not None  # a fault of ours would show in every test
        return event

    def _add(self, address: Address, role: Any, *, aggregated: bool, **about: Any) -> None:
        """A driver at that address, with an access link."""
        access = AccessInterface(INTERFACE, self._identities, lambda event: None)
        network = Network(
            Stagehand(),
            Tables(),
            address=address,  # type: ignore[arg-type]
            encapsulation=Encapsulation.UDP,
            table=TABLE,
            journal=Path(),
            aggregated=aggregated,
            buffer=HoldBuffer(),
        )
        network.use_tun(INTERFACE, 1280)
        network.add_access(INTERFACE, fixed_link_layer=False)
        self.drivers[address] = Actor(role, network, {INTERFACE: access}, self._send, lambda: self._now, **about)
        self.drivers[address].feed(ClockStepped(wall_minus_monotonic=0.0))
        self.drivers[address].feed(LinkUp(interface=INTERFACE, link_layer=bytes(6), mtu=1500))

    def _send(self, octets: bytes, destination: Address) -> None:
        source = ROUTER if destination == ANCHOR else ANCHOR
        self._wire.append((destination, DatagramReceived(octets=octets, source=source, destination=destination)))


ACTS: dict[Act, Callable[[Rehearsal], None]] = {
    Act.ARRIVAL: lambda it: it._arrive(),
    Act.UPDATE: Rehearsal._hear,
    Act.ANSWER: Rehearsal._hear,
    Act.DEPARTURE: Rehearsal._leave,
}


class Actor(Driver):
    """A driver whose sockets lead to the other one, with the time of the stage, without timers, without an audience."""

    def __init__(
        self,
        role: Any,
        network: Network,
        links: Mapping[str, AccessInterface],
        send: Callable[[bytes, Address], None],
        now: Callable[[], float],
        **about: Any,
    ) -> None:
        self._stage_time = now
        super().__init__(role, network=network, sockets=Prompter(send), links=links, **about)  # type: ignore[arg-type]
        self.journalist = Whisperer()

    def _now(self) -> float:
        return self._stage_time()

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
