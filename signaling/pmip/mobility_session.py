"""A binding cache entry of an LMA (RFC 5213 5.1), with what later RFCs put into it.

    MobilitySession 17, "mn1@example.net"
      prefixes     2001:db8:100:1::/64                    home network prefixes (RFC 5213)
      ipv4_home    203.0.113.5                            IPv4 home address (RFC 5844)
      delegated    2001:db8:d00::/56                      for the network behind the node (RFC 7148)
      care_ofs     BID 1  2001:db8:a::1  "wlan"           where it is: one Proxy-CoA, or several (RFC 8278),
                   BID 2  2001:db8:b::1  "lte"            each with its label, its order and its end
      flows        FID 1: TCP port 22 -> BID 2            what the MAG wants to go where (RFC 6089)

A million of these are kept, so they hold no more than they must: no dictionaries, and values shared where they can be.
"""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from math import inf

from signaling.actions import TunnelEnd
from signaling.flow_bindings import FlowBinding, flows_from_octets, octets_of
from signaling.pmip.saved_binding import SavedBinding, SavedCareOf, quick_binding, quick_care_of
from signaling.settings import Address, Prefix

UNNUMBERED = 0  # the BID of the one path of a session without multipath binding
ONLY_WAY = 1  # and what rules and tunnels call it


class CareOf:
    """One Proxy-CoA of a session. Times in monotonic s."""

    __slots__ = (
        "address",
        "binding_id",
        "data_port",
        "downlink_key",
        "expires",
        "label",
        "local",
        "port",
        "sequence_number",
        "technology",
        "timestamp",
    )

    def __init__(self, binding_id: int, address: Address) -> None:
        self.binding_id = binding_id  # BID; UNNUMBERED: no multipath
        self.address = address
        self.local: Address | None = None  # our end; None: the address of this router
        self.port = 0  # UDP source port of its signalling, 0 over protocol 135
        self.data_port = 0  # UDP source port of its data behind a NAT, 0: the well-known one
        self.label = 0  # If-Label
        self.technology = 0  # If-ATT
        self.downlink_key: int | None = None  # GRE key (RFC 5845); None: none
        self.timestamp = 0  # of the last accepted update, 1/65536 s since 1970; 0 in sequence mode
        self.sequence_number: int | None = None  # of the last accepted update, in sequence mode
        self.expires = 0.0

    @property
    def way_id(self) -> int:
        """The BID that tunnels and flow rules know it by."""
        return self.binding_id or ONLY_WAY

    def tunnel(self, uplink_key: int | None, binding_id: int | None = None) -> TunnelEnd:
        """The way to it. uplink_key: GRE key that its session's packets come with."""
        return TunnelEnd(
            remote=self.address,
            local=self.local,
            port=self.data_port,
            key_in=uplink_key if self.downlink_key is not None else None,
            key_out=self.downlink_key,
            binding_id=self.way_id if binding_id is None else binding_id,
            label=self.label,
        )

    def saved(self) -> SavedCareOf:
        """What of it is durable."""
        return quick_care_of(
            self.binding_id,
            self.address,
            self.port,
            self.data_port,
            self.label,
            self.technology,
            self.timestamp,
            self.downlink_key,
            self.local,
        )

    @classmethod
    def restored(cls, saved: SavedCareOf) -> "CareOf":
        """The care-of address as it was acknowledged."""
        care_of = cls(saved.binding_id, saved.care_of)
        care_of.port, care_of.data_port = saved.port, saved.data_port
        care_of.label, care_of.technology = saved.label, saved.technology
        care_of.timestamp = saved.timestamp
        care_of.downlink_key, care_of.local = saved.downlink_key, saved.local
        return care_of


class MobilitySession:
    """What the LMA knows of one mobility session. `expires` is when it has to be looked at next."""

    __slots__ = (
        "care_ofs",
        "delegated",
        "departed",
        "expires",
        "filed",
        "flows",
        "gateway",
        "gre_keys",
        "ipv4_home",
        "leaving",
        "link_layer",
        "link_local",
        "node",
        "number",
        "policy",
        "prefixes",
        "service",
        "technology",
    )

    def __init__(self, number: int, node: str, gateway: str) -> None:
        self.number = number  # unique in this LMA for ever
        self.node = node  # MN-Identifier
        self.gateway = gateway  # name of the peer whose MAG it is
        self.link_layer = b""  # MN-LL-Identifier; b"": unknown
        self.technology = 0  # ATT of the node's interface
        self.service = ""  # Service Selection; "": the default one
        self.link_local: IPv6Address | None = None  # of the MAG, on the access link
        self.prefixes: tuple[IPv6Network, ...] = ()
        self.ipv4_home: IPv4Address | None = None
        self.delegated: tuple[Prefix, ...] = ()
        self.gre_keys = False  # its packets come with the key `uplink_key`
        self.care_ofs: tuple[CareOf, ...] = ()
        self.flows: tuple[FlowBinding, ...] = ()
        self.policy = ""  # name of the flow policy its paths were bound with
        self.departed: dict[int, int] | None = None  # BID -> timestamp of a path that is gone: no replay revives it
        self.leaving = False  # de-registered: kept for MinDelayBeforeBCEDelete, its packets are held
        self.expires = inf
        self.filed = 0

    def __repr__(self) -> str:
        return f"<session {self.number} of {self.node} at {self.gateway}>"

    @property
    def uplink_key(self) -> int | None:
        """The GRE key we gave out: the same as long as the session lives (RFC 5845 3.3.2), found by it alone."""
        return self.number & 0xFFFFFFFF if self.gre_keys else None

    @property
    def care_of(self) -> CareOf:
        """The one path of a session without multipath, or the first of several."""
        return self.care_ofs[0]

    def path(self, binding_id: int) -> CareOf | None:
        """The care-of address with this BID."""
        for care_of in self.care_ofs:
            if care_of.binding_id == binding_id:
                return care_of
        return None

    @property
    def bound(self) -> tuple[Prefix, ...]:
        """Everything whose packets belong to it."""
        if self.ipv4_home is None:
            return self.prefixes + self.delegated if self.delegated else self.prefixes
        return (*self.prefixes, IPv4Network(self.ipv4_home), *self.delegated)

    @property
    def last_timestamp(self) -> int:
        """Of the newest update that was accepted, by whichever path."""
        return max([care_of.timestamp for care_of in self.care_ofs], default=0)

    @property
    def last_sequence_number(self) -> int | None:
        """Of the last path that spoke in sequence mode."""
        numbers = [path.sequence_number for path in self.care_ofs if path.sequence_number is not None]
        return numbers[-1] if numbers else None

    def keep(self, care_ofs: tuple[CareOf, ...]) -> None:
        """Have these paths and no others. What the lost ones had said last is remembered."""
        for lost in self.care_ofs:
            if lost.binding_id and lost.timestamp and not any(lost.binding_id == it.binding_id for it in care_ofs):
                self.departed = self.departed or {}
                self.departed[lost.binding_id] = lost.timestamp
        self.care_ofs = care_ofs

    def saved(self) -> SavedBinding:
        """What of it is durable."""
        downlink = next((it.downlink_key for it in self.care_ofs if it.downlink_key is not None), None)
        return quick_binding(
            self.number,
            self.node,
            self.gateway,
            self.link_layer,
            self.technology,
            self.service,
            self.link_local.packed if self.link_local is not None else b"",
            self.prefixes,
            IPv4Network(self.ipv4_home) if self.ipv4_home is not None else None,
            self.delegated,
            (downlink or 0, self.number & 0xFFFFFFFF) if self.gre_keys else None,
            # one that is leaving has no place any more; that is how a restart knows it
            () if self.leaving else tuple([care_of.saved() for care_of in self.care_ofs]),
            octets_of(self.flows) if self.flows else b"",
        )

    @classmethod
    def restored(cls, saved: SavedBinding) -> "MobilitySession":
        """The session as it was acknowledged."""
        session = cls(saved.number, saved.node, saved.gateway)
        session.link_layer, session.technology = saved.link_layer, saved.technology
        session.service = saved.service
        if saved.link_local:
            session.link_local = IPv6Address(saved.link_local)
        session.prefixes = saved.prefixes
        if saved.ipv4_home is not None:
            session.ipv4_home = IPv4Address(int(saved.ipv4_home.network_address))
        session.delegated = saved.delegated
        session.gre_keys = saved.gre_keys is not None
        session.care_ofs = tuple([CareOf.restored(care_of) for care_of in saved.care_ofs])
        session.flows = flows_from_octets(saved.flows) if saved.flows else ()
        return session
