"""What can happen to a role. The driver makes these from sockets, netlink, the store and the operator.

Times are not in the events: `handle(event, now)` is told the time, in monotonic seconds.
"""

from dataclasses import dataclass
from ipaddress import IPv6Address

from signaling.session import Session


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockStepped:
    """The wall clock stands this far from the monotonic one; sent at the start, and whenever it changed."""

    wall_minus_monotonic: float  # s


@dataclass(frozen=True, slots=True, kw_only=True)
class DatagramReceived:
    """A Mobility Header came in, over protocol 135 or inside UDP 5436."""

    octets: bytes  # from Payload Proto on
    source: IPv6Address
    destination: IPv6Address
    port: int = 0  # UDP source port; 0 over protocol 135


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkUp:
    """An access interface has a carrier: somebody may be there."""

    interface: str
    link_layer: bytes  # our own address on it
    mtu: int  # octets


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkLost:
    """An access interface lost its carrier, or is gone: nobody is there."""

    interface: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkAttached:
    """A node showed itself on an access link, for the first time or again."""

    node: str  # MN-Identifier (NAI)
    interface: str
    link_layer: bytes
    link_local: IPv6Address | None  # its address, when what it sent had one
    trigger: str  # what gave it away: "rs", "mld", "ns", "na", "echo", "packet", "command"
    sessions: tuple[Session, ...] | None = None  # of the node, where the store could tell at once; None: ask it


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkDetached:
    """A node is known to have left."""

    node: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeDoubted:
    """Something suggests that a node is gone (the kernel's neighbour is unreachable): find out."""

    node: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionsFound:
    """The store's answer to FindSessions. None: the store cannot be reached now."""

    node: str
    sessions: tuple[Session, ...] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionsRestored:
    """After a start: what the store holds of the prefixes anchored here."""

    sessions: tuple[Session, ...]


Event = (
    ClockStepped
    | DatagramReceived
    | LinkUp
    | LinkLost
    | LinkAttached
    | LinkDetached
    | NodeDoubted
    | SessionsFound
    | SessionsRestored
)
