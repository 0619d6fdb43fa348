"""What a role can ask for. The driver performs the actions of one turn in the order given.

The order matters: a prefix is bound before the message that announces it leaves.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, IPv6Network
from typing import Self

from signaling.dma.session import Session
from signaling.flow_rules import FlowRule
from signaling.pmip.saved_binding import SavedBinding
from signaling.settings import Address, Prefix, Wants, WayState
from signaling.wire import mobility_header
from signaling.wire.message import Message
from signaling.wire.traffic_selector import TrafficSelector


@dataclass(frozen=True, slots=True, kw_only=True)
class TunnelEnd:
    """One way to a peer: the two ends of a tunnel, and what flow rules choose it by."""

    remote: Address
    local: Address | None = None  # None: the address of this router
    port: int = 0  # UDP port the peer sends data from and listens at (behind a NAT: another); 0: the well-known one
    key_in: int | None = None  # GRE key of what arrives (RFC 5845); None: no key
    key_out: int | None = None  # GRE key of what leaves
    binding_id: int = 1  # BID, 1 to 254 (RFC 8278 4.1); it differs from the others of a path
    label: int = 0  # If-Label, 0 to 255 (RFC 8278 4.1)
    weight: int = 1  # 1 to 65535: shares of the traffic are as the weights


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalLink:
    """The prefix is anchored here and its node is here: native forwarding, no tunnel."""

    interface: str
    gateway: IPv6Address | None = None  # on that interface: the node, where packets go to it whatever their address


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitLink:
    """The prefix is anchored here and its node is here, but some flows of it go to visited routers.

    flows: all that go by one of the tunnels; which one, the policy says (SetPolicy). The rest is forwarded natively.
    """

    rest: LocalLink
    tunnels: tuple[TunnelEnd, ...]
    policy: str
    flows: tuple[TrafficSelector, ...]

    @property
    def interface(self) -> str:
        """Where the node is."""
        return self.rest.interface


@dataclass(frozen=True, slots=True, kw_only=True)
class TowardVisited:
    """The prefix is anchored here, its node is at another router: tunnel to there, by one of these ways.

    policy: name of a flow policy that was set (SetPolicy); "": each flow takes one of the ways, shared out by weight.
    """

    tunnels: tuple[TunnelEnd, ...]
    policy: str = ""

    @classmethod
    def at(cls, care_of: Address) -> Self:
        """The router with this care-of address, by the one way there is."""
        return cls(tunnels=(TunnelEnd(remote=care_of),))


@dataclass(frozen=True, slots=True, kw_only=True)
class BackToAnchor(TowardVisited):
    """The node was here and has left, its prefix is anchored elsewhere: what still comes for it goes back there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TowardAnchor:
    """The node is here, its prefix is anchored elsewhere: deliver on the link, send uplink by one of these ways.

    policy is written as the anchor sends (source = correspondent): here source and destination change places.
    """

    tunnels: tuple[TunnelEnd, ...]
    interface: str  # "": a prefix delegated to a site behind `gateway`, or one of this router itself: no access link
    gateway: IPv6Address | None = None  # on that interface: a delegated prefix's router (RFC 7148), or the node itself
    policy: str = ""

    @classmethod
    def through(cls, anchor: Address, interface: str, gateway: IPv6Address | None = None) -> "TowardAnchor":
        """To this anchor, by the one way there is."""
        return cls(tunnels=(TunnelEnd(remote=anchor),), interface=interface, gateway=gateway)


@dataclass(frozen=True, slots=True)
class Held:
    """The node is between routers: nobody can deliver to it now."""


@dataclass(frozen=True, slots=True)
class Closed:
    """The prefix is anchored here and delivered nowhere, nor will it be soon: what comes for it is lost and counted."""


Path = LocalLink | SplitLink | TowardVisited | BackToAnchor | TowardAnchor | Held | Closed


@dataclass(frozen=True, slots=True, kw_only=True)
class Bind:
    """From now on packets of this prefix take this path, instead of any path before."""

    prefix: Prefix
    path: Path
    node: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BindAll:
    """Bind for many prefixes that had no path and take the same one, as after a restart. nodes: whose each is."""

    path: TowardVisited
    nodes: dict[Prefix, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Unbind:
    """This router has nothing to do with the prefix any more."""

    prefix: Prefix
    node: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SetPolicy:
    """From now on this is the flow policy of that name, for all paths that name it. The first match decides.

    No rules: the policy is forgotten, and what still names it spreads per flow over all its ways.
    """

    name: str
    rules: tuple[FlowRule, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SetWay:
    """What is known of a way, whichever prefixes use it: flows leave one that is not up, and no others."""

    tunnel: TunnelEnd
    state: WayState


@dataclass(frozen=True, slots=True, kw_only=True)
class Send:
    """Send a Mobility Header to a peer."""

    octets: bytes
    message: Message  # what the octets say, for whoever shows or logs it
    destination: Address
    port: int = 0  # UDP destination port; 0: the well-known one
    source: Address | None = None  # one of our addresses; None: the address of this router
    beside_data: bool = False  # from the UDP port of tunnels, as data is: a NAT passes it by the same mapping

    @property
    def kind(self) -> type[Message]:
        """Class of the message."""
        return type(self.message)


class SendOctets(Send):
    """Send a message of which only octets were made: its object is read from them when somebody asks."""

    __slots__ = ()

    def __init__(self, octets: bytes, destination: Address, port: int, source: Address | None) -> None:
        fill = object.__setattr__
        fill(self, "octets", octets)
        fill(self, "destination", destination)
        fill(self, "port", port)
        fill(self, "source", source)
        fill(self, "beside_data", False)

    @property
    def message(self) -> Message:
        """What the octets say, read anew each time."""
        return mobility_header.decode(self.octets, self.destination, self.destination, verify_checksum=False)

    @property
    def kind(self) -> type[Message]:
        """Class of the message, as its type says; not a revocation's: two have that type."""
        return mobility_header.KINDS[self.octets[2]]


@dataclass(frozen=True, slots=True, kw_only=True)
class SendError:
    """Send an ICMPv6 error to where a broken Mobility Header came from (RFC 6275 9.2)."""

    octets: bytes
    destination: Address


@dataclass(frozen=True, slots=True, kw_only=True)
class SendOnLink:
    """Send an IPv6 packet on an access link, in a frame to this link-layer address."""

    octets: bytes
    message: Message
    interface: str
    link_layer: bytes
    node: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SaveSession:
    """Write a session to the store: durable before the next Send of this turn leaves."""

    session: Session


@dataclass(frozen=True, slots=True, kw_only=True)
class ForgetSession:
    """Take a session out of the store: its prefix is free."""

    node: str
    prefix: IPv6Network


@dataclass(frozen=True, slots=True, kw_only=True)
class SaveBinding:
    """Write a mobility session of this LMA: durable before the next Send of this turn leaves."""

    binding: SavedBinding


@dataclass(frozen=True, slots=True, kw_only=True)
class ForgetBinding:
    """Take a mobility session of this LMA out of what is durable."""

    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FindSessions:
    """Ask the store for all sessions of a node; the answer comes as SessionsFound."""

    node: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectNode:
    """The node with this link-layer address is on this link (or, interface None, no more): tune filters to it."""

    node: str
    interface: str | None
    link_layer: bytes
    link_local: IPv6Address | None


@dataclass(frozen=True, slots=True, kw_only=True)
class GiveAddress:
    """The answer to AddressAsked: what DHCP may lease to the node, for so long as the session lives."""

    node: str
    interface: str
    link_layer: bytes
    wants: Wants
    prefix: Prefix | None  # an IPv4 address as a prefix of 32 bits; None: refused, or withdrawn
    subnet_length: int = 32  # of the subnet an IPv4 address is from
    default_router: IPv4Address | None = None
    lifetime: int = 0  # s


@dataclass(frozen=True, slots=True)
class Retire:
    """Nobody needs this router any more: end it."""


@dataclass(frozen=True, slots=True)
class Note:
    """Something worth a line in the log and in `monitor`; it asks for nothing."""

    event: str
    fields: Mapping[str, object] = field(default_factory=dict)


Action = (
    Bind
    | BindAll
    | Unbind
    | SetPolicy
    | SetWay
    | Send
    | SendOctets
    | SendError
    | SendOnLink
    | SaveSession
    | ForgetSession
    | SaveBinding
    | ForgetBinding
    | FindSessions
    | ExpectNode
    | GiveAddress
    | Retire
    | Note
)
