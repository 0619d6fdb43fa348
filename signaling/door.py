"""Mobility Headers in and out: every one that comes in is authenticated or refused, every one that leaves is signed.

The Mobility Message Authentication option (RFC 4285) was made for Mobile IPv6; no RFC applies it to proxy signalling.
Our reading, the same at both ends: the care-of address is the Proxy-CoA of the path that the message is about, the
home address sixteen zero octets, the key that of the pair of routers; all messages between peers carry it, replay is
refused by the Timestamp option. Over IPv4 the care-of address counts as zero too: behind a NAT the two ends know
different ones.

    peer with addresses      found by the source address                    messages go to any of its addresses
    roaming peer             found by the SPI, believed once it has signed   messages go to where it was heard last
"""

from collections.abc import Iterable
from enum import Enum
from ipaddress import IPv6Address

from signaling.actions import Note, Send
from signaling.errors import UnencodableMessage
from signaling.events import DatagramReceived
from signaling.settings import Address, Authentication, Counters, MagSettings, Peer, Settings, Transport
from signaling.wire import authentication, mobility_header
from signaling.wire.message import Message
from signaling.wire.mobility_header import KINDS

NO_ADDRESS = IPv6Address(0)
IPV4_MAPPED = 0xFFFF << 32  # ::ffff:a.b.c.d, RFC 4291 2.5.5.2
PLACES_OF_A_PEER = 64  # addresses, with and without port, at which a roaming peer is remembered


class Verdict(Enum):
    """What a message that came in is worth."""

    TRUSTED = "trusted"
    STRANGER = "unknown-peer"  # no such peer: nothing can be believed
    UNSIGNED = "unsigned"  # there is a key, but no option: silent discard, RFC 4285 5
    UNKNOWN_SPI = "unknown-spi"  # no such association: silent discard, RFC 4285 5.1.1
    FORGED = "forged"  # the key is known and does not fit: status 146


Place = tuple[Address, int]  # address and UDP port; port 0: whichever


class Whereabouts:
    """Where roaming peers were heard. Each has a bounded number of places; the one silent for longest is forgotten."""

    def __init__(self) -> None:
        self._peers: dict[Place, Peer] = {}
        self._places: dict[str, dict[Place, None]] = {}  # of a peer, by name; heard last stands last

    def heard(self, peer: Peer, address: Address, port: int) -> None:
        """A message that this peer has signed came from there."""
        places = self._places.setdefault(peer.name, {})
        for place in ((address, port), (address, 0)) if port else ((address, 0),):
            places.pop(place, None)
            places[place] = None
            self._peers[place] = peer
        while len(places) > PLACES_OF_A_PEER:
            oldest = next(iter(places))
            del places[oldest]
            if self._peers.get(oldest) is peer:  # another peer may be there by now
                del self._peers[oldest]

    def know(self, peers: Iterable[Peer]) -> None:
        """These are the roaming peers from now on; where others were heard is forgotten."""
        known = {peer.name: peer for peer in peers}
        self._peers = {place: known[peer.name] for place, peer in self._peers.items() if peer.name in known}
        self._places = {name: places for name, places in self._places.items() if name in known}

    def peer(self, address: Address, port: int = 0) -> Peer | None:
        """Who was heard there last."""
        return self._peers.get((address, port)) or self._peers.get((address, 0))


class Door:
    """The security associations with the peers, and the way messages pass them."""

    def __init__(self, settings: Settings, counters: Counters) -> None:
        self._address = settings.address
        self._checksum = settings.transport is Transport.MOBILITY_HEADER and settings.checksums
        self._required = settings.authentication is Authentication.REQUIRED
        self._is_gateway = isinstance(settings, MagSettings)
        self._whereabouts = Whereabouts()
        self._counters = counters
        self.set_peers(settings.peers)

    def set_peers(self, peers: Iterable[Peer]) -> None:
        """These are the peers from now on, with these keys; where roaming ones were heard is remembered."""
        self._named = {peer.name: peer for peer in peers}
        self._fixed = {address: peer for peer in self._named.values() for address in addresses_of(peer)}
        self._roaming = {peer.spi: peer for peer in self._named.values() if peer.address is None and peer.key}
        self._whereabouts.know(self._roaming.values())

    def peer(self, address: Address) -> Peer | None:
        """The peer that has this address, or was heard there and signed."""
        return self._fixed.get(address) or self._whereabouts.peer(address)

    def named(self, name: str) -> Peer | None:
        """The peer of this name."""
        return self._named.get(name)

    @property
    def expects_roaming(self) -> bool:
        """Whether there is a peer that is known by the SPI of its key alone."""
        return bool(self._roaming)

    def path_care_of(self, ours: Address | None, theirs: Address) -> Address:
        """The Proxy-CoA of the path between two addresses: that of the end that is the MAG. None: our own."""
        return ours or self._address if self._is_gateway else theirs

    # --- in ---

    def decode(self, octets: bytes, source: Address, destination: Address) -> Message:
        """Octets to message. Raises MalformedMessage."""
        checksum = self._checksum and source.version == 6  # IPv4 carries it inside UDP, RFC 5844 4.1.3.1
        return mobility_header.decode(octets, source, destination, verify_checksum=checksum)

    def judge(self, octets: bytes, message: Message, source: Address, care_of: Address) -> Verdict:
        """Whether to believe it. care_of: the Proxy-CoA that the authenticator covers."""
        return self.who(octets, message, source, care_of)[0]

    def who(
        self, octets: bytes, message: Message, source: Address, care_of: Address, *, port: int = 0
    ) -> tuple[Verdict, Peer | None]:
        """Whether to believe it, and who sent it; None if that is not proven.

        port: the UDP port it came from: it tells peers behind one NAT apart when they are answered.
        """
        settled = self._fixed.get(source)
        peer = settled or self._by_spi(message)
        verdict = self._judge(octets, message, peer, _covered(care_of, source))
        if verdict is not Verdict.TRUSTED:
            self._counters[f"door.{verdict.value}"] += 1
            return verdict, None
        if peer is not None and peer is not settled:
            self._whereabouts.heard(peer, source, port)
        return verdict, peer

    def _by_spi(self, message: Message) -> Peer | None:
        if not self._roaming:
            return None
        spi = authentication.spi_of(message)
        return None if spi is None else self._roaming.get(spi)

    def _judge(self, octets: bytes, message: Message, peer: Peer | None, care_of: Address) -> Verdict:
        if peer is None:
            return Verdict.STRANGER if self._required else Verdict.TRUSTED
        if not peer.key:
            return Verdict.UNSIGNED if self._required else Verdict.TRUSTED
        spi = authentication.spi_of(message)
        if spi is None:
            return Verdict.UNSIGNED
        if spi != peer.spi:
            return Verdict.UNKNOWN_SPI
        genuine = authentication.verify(octets, peer.key, care_of=care_of, home_address=NO_ADDRESS)
        return Verdict.TRUSTED if genuine else Verdict.FORGED

    def signer(self, octets: bytes, source: Address) -> Peer | None:
        """The peer that has this address, if a message about the path to it ends with what only it can have computed.

        None says nothing: who() may find that a peer roams, or has signed in another way.
        """
        peer = self._fixed.get(source)
        if peer is None or not peer.key or authentication.spi_at_end(octets) != peer.spi:
            return None
        genuine = authentication.verify(octets, peer.key, care_of=_covered(source, source), home_address=NO_ADDRESS)
        return peer if genuine else None

    # --- out ---

    def signs_for(self, destination: Address, port: int = 0) -> bool:
        """Whether what leaves for this address is signed."""
        peer = self._fixed.get(destination) or self._whereabouts.peer(destination, port)
        return peer is not None and bool(peer.key)

    def send(
        self,
        message: Message,
        destination: Address,
        *,
        care_of: Address,
        port: int = 0,
        source: Address | None = None,
        beside_data: bool = False,
    ) -> Send | Note:
        """The action that sends a message to a peer, signed if there is a key; what fits no message is only noted.

        care_of: as for who(). source: one of our addresses; None: the address of this router. beside_data: as of Send.
        """
        try:
            octets = self._octets(message, destination, care_of, port, source or self._address)
        except UnencodableMessage as error:
            self._counters["door.unencodable"] += 1
            return Note("not-sent", {"peer": destination, "why": f"{error}: it has to say less"})
        self._counters[f"sent.{type(message).__name__}"] += 1
        return Send(
            octets=octets,
            message=message,
            destination=destination,
            port=port,
            source=source,
            beside_data=beside_data,
        )

    def _octets(self, message: Message, destination: Address, care_of: Address, port: int, source: Address) -> bytes:
        """The message with its authenticator and checksum. Raises UnencodableMessage."""
        peer = self._fixed.get(destination) or self._whereabouts.peer(destination, port)
        checksum = self._checksum and destination.version == 6
        if peer is None or not peer.key:
            return mobility_header.encode(message, source, destination, checksum=checksum)
        return authentication.sign(
            message,
            peer.key,
            peer.spi,
            care_of=_covered(care_of, destination),
            home_address=NO_ADDRESS,
            source=source,
            destination=destination,
            checksum=checksum,
        )

    def seal(self, octets: bytearray, peer: Peer, destination: Address, *, source: Address | None = None) -> bytes:
        """Sign anew a message about the path to `destination`, which was signed for this peer and then changed."""
        authentication.sign_again(octets, peer.key, care_of=_covered(destination, destination))
        if self._checksum and destination.version == 6:
            mobility_header.fill_checksum(octets, source or self._address, destination)
        self._counters[f"sent.{KINDS[octets[2]].__name__}"] += 1
        return bytes(octets)

    def reply(self, message: Message, event: DatagramReceived) -> Send | Note:
        """An answer: it leaves from where the question arrived, to where that came from."""
        ours = event.destination
        care_of = self.path_care_of(ours, event.source)
        source = None if ours == self._address else ours
        return self.send(message, event.source, care_of=care_of, port=event.port, source=source)


def addresses_of(peer: Peer) -> tuple[Address, ...]:
    """All its fixed addresses, none twice; (): it roams."""
    return tuple(dict.fromkeys(address for address in (peer.address, *peer.addresses) if address is not None))


def _covered(care_of: Address, transport: Address) -> Address:
    """The care-of address as sixteen octets of the authenticator's text. transport: an address that carries it."""
    if transport.version == 4:
        return NO_ADDRESS
    return care_of if care_of.version == 6 else IPv6Address(IPV4_MAPPED | int(care_of))
