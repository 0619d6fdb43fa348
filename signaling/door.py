"""Mobility Headers in and out: every one that comes in is authenticated or refused, every one that leaves is signed.

The Mobility Message Authentication option (RFC 4285) was made for Mobile IPv6; no RFC applies it to proxy signalling.
Our reading, the same at both ends: the care-of address is the Proxy-CoA, the home address sixteen zero octets, the key
that of the pair of routers; all messages between peers carry it, replay is refused by the Timestamp option.
"""

from enum import Enum
from ipaddress import IPv6Address

from signaling.actions import Send
from signaling.settings import Authentication, Counters, Peer, Settings, Transport
from signaling.wire import authentication, mobility_header
from signaling.wire.message import Message

NO_HOME_ADDRESS = IPv6Address(0)


class Verdict(Enum):
    """What a message that came in is worth."""

    TRUSTED = "trusted"
    STRANGER = "unknown-peer"  # no such peer: nothing can be believed
    UNSIGNED = "unsigned"  # there is a key, but no option: silent discard, RFC 4285 5
    UNKNOWN_SPI = "unknown-spi"  # no such association: silent discard, RFC 4285 5.1.1
    FORGED = "forged"  # the key is known and does not fit: status 146


class Door:
    """The security associations with the peers, and the way messages pass them."""

    def __init__(self, settings: Settings, counters: Counters) -> None:
        self._address = settings.address
        self._checksum = settings.transport is Transport.MOBILITY_HEADER
        self._required = settings.authentication is Authentication.REQUIRED
        self._peers = {peer.address: peer for peer in settings.peers}
        self._counters = counters

    def peer(self, address: IPv6Address) -> Peer | None:
        """The peer that signs with this address."""
        return self._peers.get(address)

    def decode(self, octets: bytes, source: IPv6Address, destination: IPv6Address) -> Message:
        """Octets to message. Raises MalformedMessage."""
        return mobility_header.decode(octets, source, destination, verify_checksum=self._checksum)

    def judge(self, octets: bytes, message: Message, source: IPv6Address, care_of: IPv6Address) -> Verdict:
        """Who sent this. care_of: the Proxy-CoA that the authenticator covers."""
        verdict = self._judge(octets, message, source, care_of)
        if verdict is not Verdict.TRUSTED:
            self._counters[f"door.{verdict.value}"] += 1
        return verdict

    def _judge(self, octets: bytes, message: Message, source: IPv6Address, care_of: IPv6Address) -> Verdict:
        peer = self._peers.get(source)
        if peer is None:
            return Verdict.STRANGER if self._required else Verdict.TRUSTED
        if not peer.key:
            return Verdict.UNSIGNED if self._required else Verdict.TRUSTED
        spi = authentication.spi_of(message)
        if spi is None:
            return Verdict.UNSIGNED
        if spi != peer.spi:
            return Verdict.UNKNOWN_SPI
        genuine = authentication.verify(octets, peer.key, care_of=care_of, home_address=NO_HOME_ADDRESS)
        return Verdict.TRUSTED if genuine else Verdict.FORGED

    def send(self, message: Message, destination: IPv6Address, *, care_of: IPv6Address, port: int = 0) -> Send:
        """The action that sends a message to a peer, signed if there is a key."""
        peer = self._peers.get(destination)
        if peer is not None and peer.key:
            octets = authentication.sign(
                message,
                peer.key,
                peer.spi,
                care_of=care_of,
                home_address=NO_HOME_ADDRESS,
                source=self._address,
                destination=destination,
                checksum=self._checksum,
            )
        else:
            octets = mobility_header.encode(message, self._address, destination, checksum=self._checksum)
        self._counters[f"sent.{type(message).__name__}"] += 1
        return Send(octets=octets, message=message, destination=destination, port=port)
