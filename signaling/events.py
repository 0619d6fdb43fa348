"""What can happen to a role. The driver makes these from sockets, netlink, the store and the operator.

Times are not in the events: `handle(event, now)` is told the time, in monotonic seconds.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv6Address, IPv6Network

from signaling.dma.session import Session
from signaling.iana import HandoffIndicator
from signaling.pmip.saved_binding import SavedBinding
from signaling.settings import Address, Prefix, Wants


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockStepped:
    """The wall clock stands this far from the monotonic one; sent at the start, and whenever it changed."""

    wall_minus_monotonic: float  # s


@dataclass(frozen=True, slots=True, kw_only=True)
class DatagramReceived:
    """A Mobility Header came in, over protocol 135 or inside UDP 5436."""

    octets: bytes  # from Payload Proto on
    source: Address
    destination: Address  # one of our addresses
    port: int = 0  # UDP source port; 0 over protocol 135
    beside_data: bool = False  # it came to the UDP port of tunnels, from the one the peer sends data from


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
    trigger: str  # what gave it away: "rs", "mld", "ns", "na", "echo", "packet", "dhcp", "command"
    sessions: tuple[Session, ...] | None = None  # of the node, where the store could tell at once; None: ask it
    handoff: HandoffIndicator | None = None  # how it came, where operator or link layer know; None: nothing is known
    prefixes: tuple[IPv6Network, ...] = ()  # home network prefixes it is known to have, by the same source


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkDetached:
    """A node is known to have left."""

    node: str
    reason: str
    link_layer: bytes | None = None  # of the interface it left with; None: with all


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeDoubted:
    """Something suggests that a node is gone (the kernel's neighbour is unreachable): find out."""

    node: str
    link_layer: bytes | None = None  # of the interface that is doubted; None: all


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionsFound:
    """The store's answer to FindSessions. None: the store cannot be reached now."""

    node: str
    sessions: tuple[Session, ...] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionsRestored:
    """After a start: what the store holds of the prefixes anchored here."""

    sessions: tuple[Session, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class BindingsRestored:
    """After a start of an LMA: the mobility sessions it had acknowledged. They are gone through once."""

    bindings: Iterable[SavedBinding]


@dataclass(frozen=True, slots=True, kw_only=True)
class UplinkUp:
    """An uplink has a carrier and this address: a path may begin there."""

    interface: str
    address: Address


@dataclass(frozen=True, slots=True, kw_only=True)
class UplinkDown:
    """An uplink lost its carrier, or its address: nothing leaves by it."""

    interface: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TunnelMtuChanged:
    """The path to an anchor takes packets of another size now: nodes have to hear of it (RFC 5213 6.9.5)."""

    mtu: int  # octets of the largest inner packet


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteAttached:
    """A site is configured as a node that is always here: its prefixes are delegated to this MAG (RFC 8278 3.1)."""

    node: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressAsked:
    """A node asked for IPv4 (DHCPv4) or a delegated prefix (DHCPv6): its session is extended by that, if it has none.

    What the anchor answers comes as the action GiveAddress.
    """

    node: str
    interface: str
    link_layer: bytes
    wants: Wants
    hint: Prefix | None = None  # what it had before; an IPv4 address as a prefix of 32 bits
    link_local: IPv6Address | None = None  # the node's, where a delegated prefix is routed to


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressReleased:
    """A node gave back by DHCP what it was leased: its session goes on without that (RFC 5844 3.4.3)."""

    node: str
    interface: str
    link_layer: bytes
    wants: Wants
    prefix: Prefix  # as the node named it; an IPv4 address as a prefix of 32 bits
    reason: str  # "release", or "decline": somebody else uses the address


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
    | BindingsRestored
    | UplinkUp
    | UplinkDown
    | TunnelMtuChanged
    | SiteAttached
    | AddressAsked
    | AddressReleased
)
