"""Packets and frames made by hand, and who puts them on the wire: a forger in the core, a stranger in the air."""

import socket
from ipaddress import IPv6Address
from types import TracebackType
from typing import Self

from router.demo.lab import Host
from router.demo.topology import World
from signaling.iana import ProtocolNumber
from signaling.wire import ipv6
from signaling.wire.codec import checksum
from signaling.wire.message import Message

ETH_P_IPV6 = 0x86DD
EVERYBODY = bytes.fromhex("333300000001")
ALL_ROUTERS = IPv6Address("ff02::2")
ALL_MLDV2_ROUTERS = IPv6Address("ff02::16")
ROUTER_LINK_LAYER = bytes.fromhex("00005e005213")  # RFC 6543 1
UDP = 17


def udp(
    source: IPv6Address,
    destination: IPv6Address,
    payload: bytes,
    *,
    ports: tuple[int, int] = (4000, 4000),
    traffic_class: int = 0,
    hop_limit: int = 64,
) -> bytes:
    """An IPv6 packet with a UDP datagram. ports: from, to."""
    head = b"".join(number.to_bytes(2, "big") for number in (*ports, 8 + len(payload), 0))
    datagram = bytearray(head + payload)
    datagram[6:8] = (checksum(source, destination, UDP, bytes(datagram)) or 0xFFFF).to_bytes(2, "big")
    return packet(source, destination, UDP, bytes(datagram), traffic_class=traffic_class, hop_limit=hop_limit)


def packet(
    source: IPv6Address,
    destination: IPv6Address,
    next_header: int,
    payload: bytes,
    *,
    traffic_class: int = 0,
    hop_limit: int = 64,
) -> bytes:
    """An IPv6 packet with any payload."""
    return ipv6.encode(
        ipv6.Packet(
            source=source,
            destination=destination,
            next_header=next_header,
            payload=payload,
            traffic_class=traffic_class,
            hop_limit=hop_limit,
        )
    )


def mobility(source: IPv6Address, destination: IPv6Address, octets: bytes, *, right: bool = True) -> bytes:
    """An IPv6 packet with a Mobility Header. right: with the checksum for these addresses."""
    header = bytearray(octets)
    if right and len(header) >= 6:
        header[4:6] = b"\0\0"
        header[4:6] = checksum(source, destination, ProtocolNumber.MOBILITY_HEADER, bytes(header)).to_bytes(2, "big")
    return packet(source, destination, ProtocolNumber.MOBILITY_HEADER, bytes(header))


class Sender:
    """A raw socket of a host, as long as it is used."""

    def __init__(self, host: Host, family: int, protocol: int) -> None:
        with host.inside():
            self._socket = socket.socket(family, socket.SOCK_RAW, protocol)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()


class Forger(Sender):
    """Sends whole IPv6 packets from a host, whatever their source says."""

    def __init__(self, host: Host) -> None:
        super().__init__(host, socket.AF_INET6, socket.IPPROTO_RAW)

    def send(self, octets: bytes) -> None:
        """Send it to where its header says."""
        self._socket.sendto(octets, (str(IPv6Address(octets[24:40])), 0))


class Stranger(Sender):
    """A host on the access link of a MAR of which nothing exists but what it sends."""

    def __init__(self, world: World, mar: str, link_layer: str = "02:00:00:00:00:99") -> None:
        self.link_layer = bytes.fromhex(link_layer.replace(":", ""))
        self.link_local = IPv6Address("fe80::99")
        self._interface = f"acc{world.mars.index(mar) + 1}"
        world["air"].link_up(self._interface)
        super().__init__(world["air"], socket.AF_PACKET, 0)
        self._socket.bind((self._interface, ETH_P_IPV6))

    @property
    def node(self) -> str:
        """How a router without a word about it in its configuration calls it."""
        return f"{self.link_layer.hex('-')}@openmar"

    def frame(self, octets: bytes, *, to: bytes = EVERYBODY, link_layer: bytes | None = None) -> None:
        """Send an IPv6 packet, or what claims to be one."""
        self._socket.send(to + (link_layer or self.link_layer) + ETH_P_IPV6.to_bytes(2, "big") + octets)

    def say(self, message: Message, destination: IPv6Address, source: IPv6Address | None = None) -> None:
        """Send an ICMPv6 message as neighbour discovery and MLD have it."""
        self.frame(ipv6.carry(message, source or self.link_local, destination))
