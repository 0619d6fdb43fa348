"""ARP for IPv4 over Ethernet (RFC 826): 28 octets, read and written by one layout."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import ClassVar, Final

from signaling.errors import MalformedMessage, Reason
from signaling.iana import ArpOperation, EtherType
from signaling.wire.codec import IPV4, OCTETS, Constant, Layout, named

_ETHERNET: Final = 1  # hardware type
_BEGIN: Final = bytes((0, _ETHERNET, *EtherType.IPV4.to_bytes(2, "big"), 6, 4))


@dataclass(frozen=True, slots=True, kw_only=True)
class ArpPacket:
    """Who has the target, or: the sender has this address."""

    LAYOUT: ClassVar[Layout] = Layout(
        "RFC 826",
        "HHBBH6s4s6s4s",
        _hardware=Constant(_ETHERNET),
        _protocol=Constant(EtherType.IPV4),
        _hardware_length=Constant(6),
        _protocol_length=Constant(4),
        operation=named(ArpOperation),
        sender_link_layer=OCTETS,
        sender=IPV4,
        target_link_layer=OCTETS,
        target=IPV4,
    )

    operation: ArpOperation | int
    sender_link_layer: bytes
    sender: IPv4Address
    target_link_layer: bytes = bytes(6)
    target: IPv4Address


def decode(octets: bytes) -> ArpPacket:
    """Give the packet in octets; what an Ethernet frame pads it with is left out. Raises only MalformedMessage."""
    octets = bytes(octets)
    if len(octets) < ArpPacket.LAYOUT.size:
        raise MalformedMessage("ARP", at=0, why=f"{len(octets)} octets", reason=Reason.TRUNCATED)
    if not octets.startswith(_BEGIN):
        raise MalformedMessage("ARP", at=0, why="not IPv4 over Ethernet", reason=Reason.FIELD)
    return ArpPacket(**ArpPacket.LAYOUT.read(octets[: ArpPacket.LAYOUT.size]))


def encode(packet: ArpPacket) -> bytes:
    """Give the octets of a packet. Raises UnencodableMessage."""
    return ArpPacket.LAYOUT.write(packet)
