"""A handover played in memory before the first real one: what runs cold costs a node milliseconds of silence.

The interpreter specialises code only after it has run some times, and the first signature of a process takes longer
than a whole handover later. Two roles that nobody can reach move a node to and fro; nothing leaves this module.
"""

from dataclasses import replace
from ipaddress import IPv6Address, IPv6Network
from itertools import cycle, islice

from router.links.attach import Identities, sighting
from router.store.sqlite import decode, encode
from signaling.actions import Action, SaveSession, Send
from signaling.dma.session import Session
from signaling.events import ClockStepped, DatagramReceived, LinkDetached, LinkUp
from signaling.roles.mar import Mar
from signaling.settings import Address, Peer, Settings
from signaling.wire import ipv6
from signaling.wire.neighbor import RouterSolicitation

ROUNDS = 12
HERE, THERE = IPv6Address("2001:db8::1"), IPv6Address("2001:db8::2")
NODE, LINK_LOCAL = bytes.fromhex("020000000001"), IPv6Address("fe80::1")
INTERFACE = "rehearsal"
STEP = 1.0  # s between two moves


def rehearse() -> None:
    """Play it; takes some tens of milliseconds."""
    mars: dict[Address, Mar] = {HERE: _mar(HERE, THERE), THERE: _mar(THERE, HERE)}
    identities = Identities({}, "rehearsal")
    solicitation = ipv6.carry(RouterSolicitation(), LINK_LOCAL, IPv6Address("ff02::2"))
    known: dict[IPv6Network, Session] = {}
    for number, address in enumerate(islice(cycle(mars), ROUNDS), 1):
        now = number * STEP
        event = sighting(solicitation, NODE, identities, INTERFACE)
        assert event is not None  # a fault of ours would show in every test
        found = decode(event.node, encode(tuple(known.values())))
        _deliver(mars, address, mars[address].handle(replace(event, sessions=found), now), known, now)
        left = LinkDetached(node=event.node, reason="rehearsal")
        _deliver(mars, address, mars[address].handle(left, now + STEP / 2), known, now)


def _mar(address: IPv6Address, peer: IPv6Address) -> Mar:
    pool = IPv6Network((int(address) << 64 & (1 << 128) - 1, 64))
    mar = Mar(
        Settings(
            address=address,
            tunnel_mtu=1280,
            peers=(Peer(name="other", address=peer, key=bytes(16)),),
            pools=(pool,),
        )
    )
    mar.handle(ClockStepped(wall_minus_monotonic=0.0), 0.0)
    mar.handle(LinkUp(interface=INTERFACE, link_layer=bytes(6), mtu=1500), 0.0)
    return mar


def _deliver(
    mars: dict[Address, Mar],
    origin: Address,
    actions: list[Action],
    known: dict[IPv6Network, Session],
    now: float,
) -> None:
    """Carry messages to the other role and back, until nobody has anything to say."""
    for action in actions:
        if isinstance(action, SaveSession):
            known[action.session.prefix] = action.session
        elif isinstance(action, Send):
            event = DatagramReceived(octets=action.octets, source=origin, destination=action.destination)
            _deliver(mars, action.destination, mars[action.destination].handle(event, now), known, now)
