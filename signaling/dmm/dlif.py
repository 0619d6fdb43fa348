"""Distributed Logical Interface: the router a node saw at an anchor goes with it, as an address pair (RFC 8885 3.7)."""

from dataclasses import dataclass
from hashlib import sha256
from ipaddress import IPv6Address

from signaling.settings import Address
from signaling.wire.options.maar import DlifLinkLayerAddress, DlifLinkLocalAddress
from signaling.wire.options.option import Option

LOCAL_UNICAST = 0x02  # of the first octet of a link-layer address, beside a group bit of 0 (IEEE 802)
LINK_LOCAL = 0xFE80 << 112
INVERTED = 0x02  # of the first octet, in an interface identifier (RFC 4291 A)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dlif:
    """One virtual router: what a node knows an anchor by, whichever router plays it."""

    link_local: IPv6Address
    link_layer: bytes

    @classmethod
    def of(cls, anchor: Address, node: str) -> "Dlif":
        """The one of this pair, always the same: nothing of it need be kept."""
        first, *others = sha256(f"{anchor} {node}".encode()).digest()[:6]
        link_layer = bytes((first & 0xFC | LOCAL_UNICAST, *others))
        identifier = bytes((link_layer[0] ^ INVERTED, *link_layer[1:3], 0xFF, 0xFE, *link_layer[3:]))
        return cls(link_local=IPv6Address(LINK_LOCAL | int.from_bytes(identifier)), link_layer=link_layer)

    @property
    def options(self) -> tuple[Option, ...]:
        """As an acknowledgement carries it (RFC 8885 4.7, 4.8)."""
        return DlifLinkLocalAddress(address=self.link_local), DlifLinkLayerAddress(address=self.link_layer)
