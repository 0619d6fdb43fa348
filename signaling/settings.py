"""What a role is told about itself and its domain. Plain values: the router's configuration translates into these."""

from collections import Counter
from dataclasses import dataclass, field
from enum import Enum
from ipaddress import IPv4Address, IPv4Network, IPv6Network

from signaling.flow_rules import FlowRule
from signaling.iana import AccessTechnologyType
from signaling.wire.codec import Address as Address
from signaling.wire.codec import Prefix as Prefix

DEFAULT_SPI = 256  # the first one that is not reserved, RFC 4285 8
TIMESTAMP_UNITS = 65536  # per second, RFC 5213 8.8


class Authentication(Enum):
    """Whether an update must carry a Mobility Message Authentication option (RFC 4285)."""

    REQUIRED = "required"
    NONE = "none"


class Transport(Enum):
    """What carries a Mobility Header between peers."""

    MOBILITY_HEADER = "mh"  # IPv6 next header 135
    UDP = "udp"  # port 5436, over IPv6 or IPv4; the MH checksum is not used then (RFC 5844 4.1.3.2)


class PeerLost(Enum):
    """What an anchor does with packets of a prefix whose visited router does not answer any more."""

    HOLD = "hold"  # they wait as long as packets may, for the router the node turns up at
    DROP = "drop"


class WayState(Enum):
    """What is known of one way to a peer. Ways that are up go first, then suspect ones, never those down."""

    UP = "up"
    SUSPECT = "suspect"
    DOWN = "down"


class Wants(Enum):
    """What a node asks for by DHCP."""

    IPV4 = "ipv4"
    DELEGATED = "delegated"  # an IPv6 prefix for what is behind it (RFC 7148)


class Sharing(Enum):
    """What the interfaces of one node have in common (draft-devarapalli-netlmm-multihoming 3)."""

    UNIQUE_PREFIX = "unique-prefix"  # each interface has prefixes of its own
    SHARED_PREFIX = "shared-prefix"  # one prefix, an address of it for each interface: host routes
    SHARED_ADDRESS = "shared-address"  # one address on all: flow rules choose the gateway


class CmdMode(Enum):
    """What a Central Mobility Database does with a registration (RFC 8885 3.2 to 3.4)."""

    RELAY = "relay"  # tells the anchors, and answers when they have
    LOCATOR = "locator"  # tells the anchors, and they answer
    PROXY = "proxy"  # answers at once, and tells the anchors


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """Another router of the domain, and the key shared with it."""

    name: str
    address: Address | None  # None: it comes from any address, known by its spi alone (uplinks that come and go, NAT)
    key: bytes = field(default=b"", repr=False)  # b"": none, only with Authentication.NONE
    spi: int = DEFAULT_SPI
    addresses: tuple[Address, ...] = ()  # more of its addresses: one for each uplink


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeProfile:
    """What an operator lays down about one node (RFC 5213 6.2), or about every node without a profile (node "")."""

    node: str
    link_layers: tuple[bytes, ...] = ()  # of its interfaces, as far as they are configured
    gateways: tuple[str, ...] | None = None  # names of the peers that may act for it; None: every peer
    refused: bool = False  # no service at all: status 152
    prefixes: tuple[IPv6Network, ...] = ()  # fixed home network prefixes, for its first session
    ipv6: bool = True
    ipv4: bool = True
    ipv4_address: IPv4Address | None = None  # a fixed IPv4 home address
    services: tuple[str, ...] | None = None  # service selections it may ask for; None: every one
    delegation: bool = True  # may have delegated prefixes (else status 177)
    delegated: tuple[IPv6Network, ...] = ()  # fixed ones
    sharing: Sharing = Sharing.UNIQUE_PREFIX
    multipath: bool = True  # may have several care-of addresses (else status 180)
    takes_over: bool = False  # at a MAR: an interface that comes takes over the prefixes of the others
    policy: str = ""  # name of the flow policy at this anchor; what a MAG sends with an update goes before it


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """One mobility router. Lifetimes and delays in seconds; the defaults are those of the RFC named."""

    address: Address  # anchor address and care-of address
    tunnel_mtu: int  # octets
    peers: tuple[Peer, ...] = ()
    pools: tuple[IPv6Network, ...] = ()
    authentication: Authentication = Authentication.REQUIRED
    transport: Transport = Transport.MOBILITY_HEADER
    checksums: bool = True  # verify and fill in those of Mobility Headers; False: the sockets do, as raw ones always do
    technology: AccessTechnologyType = AccessTechnologyType.IEEE_802_3
    valid_lifetime: int = 7200
    preferred_lifetime: int = 1800  # RFC 8273 5
    router_lifetime: int = 1800  # RFC 4861 6.2.1: 3 x MaxRtrAdvInterval
    advertise_every: float = 300.0  # RFC 8273 5; below the preferred lifetime
    on_link: bool = True  # the L flag of a home network prefix, RFC 5213 6.9.2
    probe_every: float = 30.0  # of silence, before a node is asked whether it is there; 0: never
    binding_lifetime: int = 300  # asked for, and the most that is granted
    guard: float = 10.0  # MinDelayBeforeBCEDelete, RFC 5213 9.1
    leave_guard: float = 1.0  # a carrier that returns within this time costs no message
    timestamp_window: float = 0.3  # TimestampValidityWindow, RFC 5213 9.1
    max_bindings: int = 1_000_000
    profiles: tuple[NodeProfile, ...] = ()
    policies: dict[str, tuple[FlowRule, ...]] = field(default_factory=dict)  # by name; a MAG's "default" is for all
    heartbeat_interval: float = 60.0  # HEARTBEAT_INTERVAL, RFC 5847 5
    missing_heartbeats: int = 3  # MISSING_HEARTBEATS_ALLOWED, RFC 5847 5
    restart_counter: int = 0  # RFC 5847 3.4
    peer_lost: PeerLost = PeerLost.HOLD
    idle_after: float = 60.0  # s without a packet of a visiting prefix, after which it is released; 0: never
    cmd: str = ""  # name of the peer that is the Central Mobility Database; "": routers share a store
    cmd_mode: CmdMode = CmdMode.PROXY  # the same at the CMD and at all routers of its domain


@dataclass(frozen=True, slots=True, kw_only=True)
class CmdSettings(Settings):
    """A Central Mobility Database (RFC 8885)."""

    aggregation: float = 0.5  # s that an answer waits for anchors, in relay and locator mode; the RFC names no value
    most_anchors: int = 8  # prefixes of one node at routers it has left (RFC 8885 6); the oldest end first


@dataclass(frozen=True, slots=True, kw_only=True)
class PathCare:
    """How paths are watched. Times in s."""

    interval: float = 0.05  # between probes while there is traffic
    idle_interval: float = 1.0  # between probes without
    suspect_after: int = 2  # probes without an answer
    down_after: int = 3
    up_after: int = 3  # answers in a row, so that a path that flaps does not carry flows


@dataclass(frozen=True, slots=True, kw_only=True)
class LmaSettings(Settings):
    """A local mobility anchor. `pools` are home network prefixes, /64 each."""

    name: str = "lma"
    known_nodes_only: bool = False  # a node without a profile: status 153
    ipv4_pools: tuple[IPv4Network, ...] = ()  # the first host address of each is the default router of its nodes
    delegated_pools: tuple[IPv6Network, ...] = ()
    delegated_length: int = 56
    delete_delay: float = 10.0  # MinDelayBeforeBCEDelete, RFC 5213 9.1
    assign_delay: float = 1.5  # MaxDelayBeforeNewBCEAssign, RFC 5213 9.1
    wait_for_deregistration: bool = True  # with HI 4 (RFC 5213 5.4.1.2-4)
    revoke_to_find_out: bool = True  # instead of only waiting: BRI trigger 4 to the old MAG (RFC 5846 8.1)
    gre_keys: bool = False  # tunnels are GRE with a key each (else status 163 is never sent)
    accept_forced_udp: bool = False  # AcceptForcedIPv4UDPEncapsulationRequest, RFC 5844 5
    multipath: bool = True
    paths: PathCare = field(default_factory=PathCare)


@dataclass(frozen=True, slots=True, kw_only=True)
class Uplink:
    """A WAN interface of a MAG: one path to the anchor (RFC 8278)."""

    interface: str
    binding_id: int  # BID, 1 to 254
    label: int = 0  # If-Label
    weight: int = 1
    technology: AccessTechnologyType = AccessTechnologyType.IEEE_802_3  # If-ATT
    address: Address | None = None  # None: whatever address the interface has


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A logical mobile node that is always attached: the network behind this MAG (RFC 8278 3.1)."""

    node: str
    interface: str = ""  # where its home network prefix is advertised; "": nowhere
    delegated: bool = True  # ask for a prefix for what is behind
    delegated_interface: str = ""  # the link that /64s of the delegated prefix are advertised on


@dataclass(frozen=True, slots=True, kw_only=True)
class MagSettings(Settings):
    """A mobile access gateway."""

    name: str = "mag"  # MAG-NAI of the MAG-Identifier option (RFC 8278 4.2)
    anchor: str = ""  # name of the peer that is the LMA
    uplinks: tuple[Uplink, ...] = ()  # (): one path, from `address`
    sites: tuple[Site, ...] = ()
    services: dict[str, str] = field(default_factory=dict)  # node -> service selection
    local_routing: bool = False  # EnableMAGLocalRouting, RFC 5213 9.2
    use_timestamps: bool = True  # TimestampBasedApproachInUse, RFC 5213 9.3
    gre_keys: bool = False
    gre_tunnels: bool = True  # tunnels can have GRE keys, where the anchor wants them
    ipv4: bool = False  # an IPv4 home address is asked for with the first update of every node, not only by DHCP
    force_udp: bool = False  # ForceIPv4UDPEncapsulationSupport, RFC 5844 5
    refresh_before: float = 40.0  # s before expiry, the default of RFC 8127 4.1
    bulk_refresh: bool = True  # one message with B extends all paths (RFC 8278 4.1)
    paths: PathCare = field(default_factory=PathCare)


class Clock:
    """Wall clock time computed from the monotonic one, as ClockStepped events tell; no clock is read here."""

    def __init__(self) -> None:
        self.wall_minus_monotonic = 0.0
        self.last_stamp = 0

    def step(self, wall_minus_monotonic: float) -> None:
        """The wall clock was set. Stamps follow it, backwards too: they must agree with the peers' clocks."""
        self.wall_minus_monotonic = wall_minus_monotonic
        self.last_stamp = 0

    def wall(self, now: float) -> float:
        """Seconds since 1970."""
        return now + self.wall_minus_monotonic

    def monotonic(self, wall: float) -> float:
        """The monotonic time at which the wall clock shows, or showed, this."""
        return wall - self.wall_minus_monotonic

    def timestamp(self, now: float) -> int:
        """The wall clock as RFC 5213 8.8 writes it: 1/65536 s since 1970."""
        return int(self.wall(now) * TIMESTAMP_UNITS)

    def stamp(self, now: float) -> int:
        """A timestamp that no message before had: the second of two equal ones would be taken for a replay."""
        self.last_stamp = max(self.timestamp(now), self.last_stamp + 1)
        return self.last_stamp

    def next_number(self, last: int | None, now: float) -> int:
        """The sequence number after the last one. The first follows the clock: a restart must not repeat old ones."""
        return (int(self.wall(now)) if last is None else last + 1) % 65536


Counters = Counter[str]  # "part.reason" -> how often; read by `show counters`
