"""DHCP on the access links of a MAG: IPv4 home addresses (RFC 5844 3.4) and delegated prefixes (RFC 7148).

    client          this service                                 role
      | DISCOVER ------->| AddressAsked ------------------------->| PBU ... PBA
      |<---------- OFFER |<--------------------------- GiveAddress|
      | REQUEST -------->|
      |<------------ ACK |                     (what was given lately is not asked for again)

The anchor alone knows who may have what. A question waits here for its answer: the latest one of a node and family, a
while. A MAG that a node has just moved to knows nothing, asks, and answers as the MAG before it would have.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from signaling import dhcpv4_answers, dhcpv6_answers
from signaling.access_link import ROUTER_ADDRESS, ROUTER_LINK_LAYER
from signaling.actions import GiveAddress
from signaling.deadlines import Deadlines
from signaling.errors import MalformedMessage
from signaling.events import AddressAsked, AddressReleased, Event, LinkAttached
from signaling.iana import (
    DHCPV4_CLIENT_PORT,
    DHCPV4_SERVER_PORT,
    DHCPV6_CLIENT_PORT,
    DHCPV6_SERVER_PORT,
    ArpOperation,
    Dhcpv4MessageType,
    Dhcpv6MessageType,
    EtherType,
)
from signaling.rate_limit import RateLimit
from signaling.settings import Address, Counters, Prefix, Settings, Wants
from signaling.wire import arp, dhcpv4, dhcpv6, udp
from signaling.wire.arp import ArpPacket
from signaling.wire.dhcpv4 import Dhcpv4Message
from signaling.wire.dhcpv6 import Dhcpv6Message

PATIENCE = 30.0  # s: how long a question waits for the anchor, and a client without a lease is remembered
ASK_AGAIN = 1.0  # s: a client that repeats itself sooner asks the role only once
STALE = 0.5  # of what was granted: when less of it is left, the role is asked before the lease is extended
MAX_CLIENTS = 100_000
NEWCOMERS = (100.0, 200)  # clients never heard of: so many per s, so many at once
QUESTIONS = (2.0, 20)  # DHCP messages of one client
ARP_REQUESTS = (20.0, 100)  # of one client


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """A frame that came in on an access link."""

    node: str  # whose link-layer address that is
    interface: str
    link_layer: bytes  # source
    ether_type: EtherType
    packet: bytes  # without the link-layer header
    checksum: udp.Checksum = udp.Checksum.VERIFY
    ours: bytes = ROUTER_LINK_LAYER  # link-layer address of the interface


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A frame to send on an access link, to one node alone."""

    node: str
    interface: str
    link_layer: bytes  # destination
    ether_type: EtherType
    packet: bytes
    says: Dhcpv4Message | Dhcpv6Message | ArpPacket  # for whoever shows or logs it


@dataclass(frozen=True, slots=True)
class Outcome:
    """What comes of a frame: send the answers, then tell the role the events, in this order."""

    answers: tuple[Answer, ...] = ()
    events: tuple[Event, ...] = ()


@dataclass(frozen=True, slots=True)
class Grant:
    """What the anchor gave, and from when until when (monotonic s)."""

    prefix: Prefix
    subnet_length: int
    default_router: IPv4Address | None
    since: float
    until: float


@dataclass(frozen=True, slots=True)
class Question:
    """A message that waits for the anchor."""

    message: Dhcpv4Message | Dhcpv6Message
    source: Address
    destination: Address
    since: float  # monotonic s


Key = tuple[str, Wants]  # node


@dataclass(slots=True)
class Client:
    """One node and one family of addresses."""

    node: str
    wants: Wants
    interface: str
    link_layer: bytes
    heard: float  # monotonic s
    grant: Grant | None = None
    waiting: Question | None = None
    asked: float | None = None  # monotonic s, when the role was asked last; None: it has answered
    questions: RateLimit = field(default_factory=lambda: RateLimit(rate=QUESTIONS[0], burst=QUESTIONS[1]))
    arp: RateLimit = field(default_factory=lambda: RateLimit(rate=ARP_REQUESTS[0], burst=ARP_REQUESTS[1]))

    def granted(self, now: float) -> Grant | None:
        """What the client may have now."""
        return self.grant if self.grant is not None and now < self.grant.until else None

    def fresh(self, now: float) -> bool:
        """Whether so much is left of the grant that the role need not be asked."""
        grant = self.granted(now)
        return grant is not None and grant.until - now >= STALE * (grant.until - grant.since)

    def forgotten_at(self) -> float:
        """When there is nothing to remember any more, monotonic s."""
        return max(self.heard + PATIENCE, self.grant.until if self.grant else 0.0)


class AddressService:
    """The DHCP server of one MAG, for all its access links, and its ARP for the subnets of IPv4 home addresses."""

    def __init__(self, settings: Settings, counters: Counters) -> None:
        self._settings = settings
        self._counters = counters
        self._clients: dict[Key, Client] = {}
        self._deadlines: Deadlines[Key] = Deadlines()
        self._newcomers = RateLimit(rate=NEWCOMERS[0], burst=NEWCOMERS[1])
        self._server = dhcpv4_answers.DUMMY_SERVER  # the default router that was given last

    # --- the access link ---

    def receive(self, frame: Frame, now: float) -> Outcome:
        """A frame for a DHCP server, or an ARP request."""
        try:
            return _HANDLERS[frame.ether_type](self, frame, now)
        except MalformedMessage as error:
            return self._ignored(error.reason)

    def _dhcpv4(self, frame: Frame, now: float) -> Outcome:
        datagram = udp.decode(frame.packet, frame.checksum)
        message = dhcpv4.decode(datagram.payload)
        if datagram.destination_port != DHCPV4_SERVER_PORT or not message.from_client:
            return self._ignored("not-for-a-server")
        if message.relay_address != dhcpv4.NO_ADDRESS or message.link_layer != frame.link_layer:
            return self._ignored("for-another-node")  # nobody leases in the name of another
        client = self._heard(frame, Wants.IPV4, now)
        if client is None:
            return Outcome()
        if message.type in (Dhcpv4MessageType.RELEASE, Dhcpv4MessageType.DECLINE):
            return self._ipv4_given_back(client, message, now)
        if message.type not in dhcpv4_answers.ANSWERS:
            return self._ignored("unknown-type")
        question = Question(message, datagram.source, datagram.destination, now)
        address = dhcpv4_answers.wanted(message)
        return self._consider(client, question, IPv4Network(address) if address is not None else None, now)

    def _dhcpv6(self, frame: Frame, now: float) -> Outcome:
        datagram = udp.decode(frame.packet, frame.checksum)
        message = dhcpv6.decode(datagram.payload)
        if datagram.destination_port != DHCPV6_SERVER_PORT or not datagram.source.is_link_local:
            return self._ignored("not-for-a-server")
        if datagram.destination not in (dhcpv6.ALL_SERVERS, ROUTER_ADDRESS) or not dhcpv6_answers.is_for_us(message):
            return self._ignored("for-another-server")
        client = self._heard(frame, Wants.DELEGATED, now)
        if client is None:
            return Outcome()
        question = Question(message, datagram.source, datagram.destination, now)
        if datagram.destination != dhcpv6.ALL_SERVERS:
            return Outcome(self._told(client, question, dhcpv6_answers.use_multicast(message)))
        if dhcpv6_answers.needs_the_anchor(message):
            return self._consider(client, question, dhcpv6_answers.named(message), now)
        if message.type == Dhcpv6MessageType.RELEASE:
            return self._delegation_given_back(client, question, now)
        return Outcome(self._answer(client, question, now), (_attached(client, question),))

    def _arp(self, frame: Frame, now: float) -> Outcome:
        """Whatever the target, its way is through us: nodes of one subnet are on different links (RFC 5844 3.2.4).

        A probe for an address (RFC 5227) has no sender: not answered, nor is a question for the node's own address.
        """
        packet = arp.decode(frame.packet)
        client = self._clients.get((frame.node, Wants.IPV4))
        grant = client.granted(now) if client is not None and _is_at(client, frame) else None
        if client is None or grant is None or packet.operation != ArpOperation.REQUEST:
            return Outcome()
        own = IPv4Address(int(grant.prefix.network_address))
        subnet = IPv4Network((int(own), grant.subnet_length), strict=False)
        routed = packet.target in subnet or packet.target == grant.default_router
        if packet.sender != own or packet.sender_link_layer != frame.link_layer or packet.target == own or not routed:
            return Outcome()
        if not client.arp.allows(now):
            return self._ignored("too-many-arp-requests")
        reply = ArpPacket(
            operation=ArpOperation.REPLY,
            sender_link_layer=frame.ours,
            sender=packet.target,
            target_link_layer=packet.sender_link_layer,
            target=packet.sender,
        )
        self._counters["dhcp.arp-replies"] += 1
        return Outcome((_to(client, EtherType.ARP, arp.encode(reply), reply),))

    # --- the anchor ---

    def give(self, action: GiveAddress, now: float) -> tuple[Answer, ...]:
        """What the role gives to a node, asked or not: whoever waits for it is answered."""
        key = action.node, action.wants
        client = self._clients.get(key)
        if client is None:
            if action.prefix is None or len(self._clients) >= MAX_CLIENTS:
                return ()
            client = Client(action.node, action.wants, action.interface, action.link_layer, heard=now)
            self._clients[key] = client
        client.interface, client.link_layer = action.interface, action.link_layer
        client.asked = None
        client.grant = _grant(action, now)
        if client.grant is not None and client.grant.default_router is not None:
            self._server = client.grant.default_router
        self._deadlines.set(key, client.forgotten_at())
        question, client.waiting = client.waiting, None
        if question is None or now - question.since > PATIENCE:
            return ()
        return self._answer(client, question, now)

    def forget(self, node: str) -> None:
        """The node left: when it comes back the anchor is asked again."""
        for wants in Wants:
            self._clients.pop((node, wants), None)
            self._deadlines.cancel((node, wants))

    # --- time ---

    @property
    def next_wake(self) -> float | None:
        """The earliest deadline, monotonic s."""
        return self._deadlines.next

    def wake(self, now: float) -> None:
        """Forget who was not heard of for long and has nothing."""
        for key in self._deadlines.due(now):
            client = self._clients[key]
            if client.forgotten_at() <= now:
                del self._clients[key]
            else:
                self._deadlines.set(key, client.forgotten_at())

    def rows(self, now: float) -> list[dict[str, object]]:
        """What is leased, for `show leases`. left: s."""
        return [
            {
                "node": client.node,
                "interface": client.interface,
                "wants": client.wants.value,
                "prefix": str(grant.prefix),
                "left": int(grant.until - now),
            }
            for client in self._clients.values()
            if (grant := client.granted(now)) is not None
        ]

    # --- a client ---

    def _heard(self, frame: Frame, wants: Wants, now: float) -> Client | None:
        """The client that a message is from; None: too many of them, or of its messages."""
        key = frame.node, wants
        client = self._clients.get(key)
        if client is None:
            if len(self._clients) >= MAX_CLIENTS or not self._newcomers.allows(now):
                self._counters["dhcp.too-many-clients"] += 1
                return None
            client = Client(frame.node, wants, frame.interface, frame.link_layer, heard=now)
            self._clients[key] = client
            self._deadlines.set(key, client.forgotten_at())
        if not client.questions.allows(now):
            self._counters["dhcp.too-many-questions"] += 1
            return None
        if not _is_at(client, frame):
            client.interface, client.link_layer = frame.interface, frame.link_layer
            client.grant = client.waiting = client.asked = None
        client.heard = now
        return client

    def _consider(self, client: Client, question: Question, hint: Prefix | None, now: float) -> Outcome:
        """Answer now from what was given lately, else ask the role and let the question wait."""
        attached = _attached(client, question)
        if client.fresh(now):
            return Outcome(self._answer(client, question, now), (attached,))
        client.waiting = question
        if client.asked is not None and now - client.asked < ASK_AGAIN:
            return Outcome(events=(attached,))
        client.asked = now
        self._counters["dhcp.asked"] += 1
        asked = AddressAsked(
            node=client.node,
            interface=client.interface,
            link_layer=client.link_layer,
            wants=client.wants,
            hint=hint,
            link_local=attached.link_local,
        )
        return Outcome(events=(attached, asked))

    def _ipv4_given_back(self, client: Client, message: Dhcpv4Message, now: float) -> Outcome:
        """RELEASE and DECLINE are not answered (RFC 2131 4.3.3, 4.3.4)."""
        address, grant = dhcpv4_answers.wanted(message), client.granted(now)
        server = grant.default_router if grant else None
        if address is None or (grant is not None and grant.prefix != IPv4Network(address)):
            return self._ignored("not-leased")
        if server is not None and message.server_identifier not in (None, server):
            return self._ignored("for-another-server")
        reason = "decline" if message.type == Dhcpv4MessageType.DECLINE else "release"
        return Outcome(events=(self._given_back(client, IPv4Network(address), reason),))

    def _delegation_given_back(self, client: Client, question: Question, now: float) -> Outcome:
        assert isinstance(question.message, Dhcpv6Message)
        grant, prefix = client.granted(now), dhcpv6_answers.named(question.message)
        answers = self._answer(client, question, now)
        if prefix is None or (grant is not None and grant.prefix not in _prefixes(question.message)):
            return Outcome(answers)
        released = self._given_back(client, grant.prefix if grant else prefix, "release")
        return Outcome(answers, (released,))

    def _given_back(self, client: Client, prefix: Prefix, reason: str) -> AddressReleased:
        client.grant = client.waiting = client.asked = None
        self._counters[f"dhcp.{reason}"] += 1
        return AddressReleased(
            node=client.node,
            interface=client.interface,
            link_layer=client.link_layer,
            wants=client.wants,
            prefix=prefix,
            reason=reason,
        )

    # --- answers ---

    def _answer(self, client: Client, question: Question, now: float) -> tuple[Answer, ...]:
        grant = client.granted(now)
        if isinstance(question.message, Dhcpv6Message):
            return self._told(client, question, dhcpv6_answers.answer(question.message, self._delegation(grant, now)))
        assert isinstance(question.destination, IPv4Address)
        lease = self._lease(grant, now)
        return self._told(
            client, question, dhcpv4_answers.answer(question.message, question.destination, lease, self._server)
        )

    def _told(
        self, client: Client, question: Question, told: Dhcpv4Message | Dhcpv6Message | None
    ) -> tuple[Answer, ...]:
        if told is None:
            self._counters["dhcp.silence"] += 1
            return ()
        self._counters["dhcp.answers"] += 1
        if isinstance(told, Dhcpv6Message):
            datagram = udp.Datagram(
                source=ROUTER_ADDRESS,
                destination=question.source,
                source_port=DHCPV6_SERVER_PORT,
                destination_port=DHCPV6_CLIENT_PORT,
                payload=dhcpv6.encode(told),
            )
            return (_to(client, EtherType.IPV6, udp.encode(datagram), told),)
        assert isinstance(question.message, Dhcpv4Message)
        datagram = udp.Datagram(
            source=told.server_identifier or self._server,
            destination=dhcpv4_answers.where_to(question.message, told),
            source_port=DHCPV4_SERVER_PORT,
            destination_port=DHCPV4_CLIENT_PORT,
            payload=dhcpv4.encode(told),
        )
        return (_to(client, EtherType.IPV4, udp.encode(datagram), told),)

    def _lease(self, grant: Grant | None, now: float) -> dhcpv4_answers.Lease | None:
        """No lease without a default router: it is the server that all gateways are (RFC 5844 3.4.1)."""
        if grant is None or grant.default_router is None:
            return None
        return dhcpv4_answers.Lease(
            address=IPv4Address(int(grant.prefix.network_address)),
            subnet_length=grant.subnet_length,
            server=grant.default_router,
            lifetime=min(int(grant.until - now), self._settings.valid_lifetime),
            mtu=self._settings.tunnel_mtu,
        )

    def _delegation(self, grant: Grant | None, now: float) -> dhcpv6_answers.Delegation | None:
        if grant is None or not isinstance(grant.prefix, IPv6Network):
            return None
        valid = min(int(grant.until - now), self._settings.valid_lifetime)
        preferred = min(valid, self._settings.preferred_lifetime)
        return dhcpv6_answers.Delegation(prefix=grant.prefix, preferred_lifetime=preferred, valid_lifetime=valid)

    def _ignored(self, why: str) -> Outcome:
        self._counters[f"dhcp.{why}"] += 1
        return Outcome()


def _grant(action: GiveAddress, now: float) -> Grant | None:
    if action.prefix is None or action.lifetime <= 0:
        return None
    return Grant(action.prefix, action.subnet_length, action.default_router, now, now + action.lifetime)


def _is_at(client: Client, frame: Frame) -> bool:
    return (client.interface, client.link_layer) == (frame.interface, frame.link_layer)


def _attached(client: Client, question: Question) -> LinkAttached:
    """Who asks by DHCP is here, also one that never says a word of IPv6."""
    return LinkAttached(
        node=client.node,
        interface=client.interface,
        link_layer=client.link_layer,
        link_local=question.source if isinstance(question.source, IPv6Address) else None,
        trigger="dhcp",
    )


def _prefixes(message: Dhcpv6Message) -> set[IPv6Network]:
    return {item.prefix for association in message.delegations for item in association.prefixes}


def _to(
    client: Client, ether_type: EtherType, packet: bytes, says: Dhcpv4Message | Dhcpv6Message | ArpPacket
) -> Answer:
    return Answer(
        node=client.node,
        interface=client.interface,
        link_layer=client.link_layer,
        ether_type=ether_type,
        packet=packet,
        says=says,
    )


_HANDLERS: dict[EtherType, Callable[[AddressService, Frame, float], Outcome]] = {
    EtherType.IPV4: AddressService._dhcpv4,
    EtherType.IPV6: AddressService._dhcpv6,
    EtherType.ARP: AddressService._arp,
}
