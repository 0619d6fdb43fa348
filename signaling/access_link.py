"""What the access router says on its links: who is attached where, which prefixes each node is offered, who is silent.

Every node is told only its own prefixes, in a frame to its own link-layer address, by a router that looks the same
everywhere: link-local fe80::200:5eff:fe00:5213 (RFC 6543), so that the node sees no change of router when it moves.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from ipaddress import IPv6Address, IPv6Network
from math import inf
from typing import Generic, TypeVar

from signaling.actions import Action, ExpectNode, SendOnLink
from signaling.deadlines import Deadlines
from signaling.events import LinkAttached, LinkUp
from signaling.iana import RouterPreference
from signaling.settings import Counters, Settings
from signaling.wire import ipv6
from signaling.wire.message import Message
from signaling.wire.neighbor import (
    ALL_NODES,
    EchoRequest,
    LinkMtu,
    MulticastListenerQuery,
    NeighborSolicitation,
    PrefixInformation,
    RouterAdvertisement,
    SourceLinkLayerAddress,
)

ROUTER_ADDRESS = IPv6Address("fe80::200:5eff:fe00:5213")  # RFC 6543 1
ROUTER_LINK_LAYER = bytes.fromhex("00005e005213")  # RFC 6543 1
ALL_NODES_LINK_LAYER = bytes.fromhex("333300000001")  # RFC 2464 7
CURRENT_HOP_LIMIT = 64
ADVERTISE_AGAIN = (0.1, 1.0)  # s after a change: any one advertisement may be lost (RFC 4861 6.2.4)
# s after an advertisement that deprecates: a Linux host may have lost the work it put off until a moment later. Each
# prefix of an advertisement makes an address preferred, then a worker look at all of them; one that is at it already
# postpones the next look for minutes. One prefix more, of an address that is preferred anyway, makes it look again.
LOOK_AGAIN = 0.02
# s after a carrier appears, until somebody shows up; a host may need a moment before it can send
SOLICIT_AT = (0.0, 0.001, 0.003, 0.006, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28)
PROBES = 3  # MAX_UNICAST_SOLICIT, RFC 4861 10
PROBE_INTERVAL = 1.0  # s, RetransTimer, RFC 4861 10
QUICK_PROBE_INTERVAL = 0.1  # s, when an anchor waits for the answer
MIN_MTU = 1280  # octets, RFC 8200 5
QUERY = MulticastListenerQuery(max_response_delay=1)

Who = TypeVar("Who", bound=Hashable)
"""What an attachment is told apart by: the node, or one of its interfaces where it may be here with several."""


@dataclass(slots=True)
class Link:
    """An access interface with a carrier."""

    interface: str
    link_layer: bytes
    mtu: int  # octets
    solicited: int = 0  # how often since the carrier appeared


@dataclass(slots=True)
class Attachment:
    """A node on one of our links."""

    node: str
    interface: str
    link_layer: bytes
    link_local: IPv6Address | None
    since: float  # monotonic s
    heard: float  # monotonic s
    probes: int = 0  # unanswered ones
    probe_interval: float = PROBE_INTERVAL
    advertised: int = 0  # advertisements since the last change
    changed: float = -inf  # monotonic s, of that change
    repeat: float = inf  # monotonic s, of the next advertisement of all
    unanswered: bool = False  # it was to be told something before its link was there
    look_again: float = inf  # monotonic s, of the next advertisement of what is preferred alone


@dataclass(frozen=True, slots=True)
class Offer:
    """A prefix as the node shall see it; preferred 0: keep it for what runs, choose another for what is new."""

    prefix: IPv6Network
    valid_lifetime: int  # s
    preferred_lifetime: int  # s
    adopted: bool = False  # another interface of the node was given it: what uses it is to be sent by this one now


@dataclass(frozen=True, slots=True)
class Findings(Generic[Who]):
    """What time brought about: things to send, nodes and links to advertise to again, nodes that are gone."""

    actions: list[Action]
    advertise: list[Who]
    announce: list[str]
    gone: list[Who]


class AccessLink(Generic[Who]):
    """The access links of one router and the nodes on them."""

    def __init__(self, settings: Settings, counters: Counters, *, who: Callable[[LinkAttached], Who]) -> None:
        """who: what the sender of this event is told apart by."""
        self.links: dict[str, Link] = {}
        self.attached: dict[Who, Attachment] = {}
        self.tunnel_mtu = settings.tunnel_mtu  # octets, in every advertisement from now on
        self.preference = RouterPreference.MEDIUM  # likewise; LOW: nodes take any other router there is
        self._settings = settings
        self._counters = counters
        self._who = who
        self._solicit: Deadlines[str] = Deadlines()  # of interfaces
        self._announce: Deadlines[str] = Deadlines()  # of interfaces
        self._advertise: Deadlines[Who] = Deadlines()
        self._ask: Deadlines[Who] = Deadlines()

    @property
    def timers(self) -> "tuple[Deadlines[str], Deadlines[str], Deadlines[Who], Deadlines[Who]]":
        """When to solicit and announce on links, to advertise to nodes and to ask them."""
        return self._solicit, self._announce, self._advertise, self._ask

    # --- links ---

    def link_up(self, event: LinkUp, now: float) -> list[Action]:
        """A carrier appeared: ask whoever is there to show itself.

        A host whose link comes back sends no Router Solicitation by itself. Who was heard before we were told of the
        carrier could not be answered: its advertisement is due now.
        """
        self.links[event.interface] = Link(event.interface, event.link_layer, event.mtu)
        self._solicit.set(event.interface, now)
        for who, item in self.attached.items():
            if item.interface == event.interface and item.unanswered:
                item.advertised, item.changed = 0, now
                self._advertise.set(who, now)
        return self._ask_all(now)

    def solicit(self, now: float) -> list[Action]:
        """Ask on all links who is there, as when their carriers appeared."""
        for link in self.links.values():
            link.solicited = 0
            self._solicit.set(link.interface, now)
        return self._ask_all(now)

    def link_lost(self, interface: str) -> list[Who]:
        """The carrier went. Returns who was there."""
        self.links.pop(interface, None)
        self._solicit.cancel(interface)
        self._announce.cancel(interface)
        return [who for who, item in self.attached.items() if item.interface == interface]

    # --- nodes ---

    def attach(self, event: LinkAttached, now: float) -> bool:
        """A node showed itself. True: it was not attached there before."""
        who = self._who(event)
        item = self.attached.get(who)
        known = item is not None and (item.interface, item.link_layer) == (event.interface, event.link_layer)
        if item is None or not known:
            item = Attachment(event.node, event.interface, event.link_layer, event.link_local, since=now, heard=now)
            self.attached[who] = item
        if event.link_local is not None:
            item.link_local = event.link_local
        item.heard, item.probes, item.probe_interval = now, 0, PROBE_INTERVAL
        self._solicit.cancel(event.interface)
        self._probe_later(who, now)
        return not known

    def detach(self, who: Who) -> Attachment | None:
        """A node is gone. Returns what was known of it, None if it was not here."""
        self._advertise.cancel(who)
        self._ask.cancel(who)
        return self.attached.pop(who, None)

    def expect(self, item: Attachment) -> Action:
        """Tell the driver who is on the link, so that it needs no look at every packet of that node."""
        return ExpectNode(
            node=item.node, interface=item.interface, link_layer=item.link_layer, link_local=item.link_local
        )

    def heard_since(self, who: Who, since: float, now: float) -> bool:
        """Whether a node was heard since then; if not, it is being asked."""
        item = self.attached.get(who)
        if item is None:
            return False
        if item.heard > since:
            return True
        self.doubt(who, now, PROBE_INTERVAL)
        return False

    def doubt(self, who: Who, now: float, interval: float) -> None:
        """Find out whether a node is there: ask it now, and again after each interval."""
        item = self.attached.get(who)
        if item is not None and (item.probes == 0 or interval < item.probe_interval):
            item.probes, item.probe_interval = 0, interval
            self._ask.set(who, now)

    # --- advertisements ---

    def advertise(
        self, who: Who, offers: Sequence[Offer], now: float, *, changed: bool = True, due: bool = False
    ) -> list[Action]:
        """A Router Advertisement to this node alone: all its prefixes, and when to repeat it.

        A moment after one of several that deprecates some there is one without those (RFC 4861 6.2.3 lets a router
        leave out options). due: nobody asked, the time for it has come.
        """
        item = self.attached.get(who)
        link = self.links.get(item.interface) if item else None
        if item is None:
            return []
        item.unanswered = link is None
        if link is None:
            return []
        preference = self._preference(offers)
        if changed:
            item.advertised, item.changed, item.look_again = 0, now, inf
        if due and now >= item.look_again:
            item.look_again = inf
            offers = [offer for offer in offers if offer.preferred_lifetime] or offers[:1]
        else:
            item.repeat = self._repeat(item, now)
            item.advertised += 1
            several = len(offers) > 1 and not all(offer.preferred_lifetime for offer in offers)
            item.look_again = now + LOOK_AGAIN if several else inf
        self._advertise.set(who, min(item.repeat, item.look_again))
        return [self._advertisement(item, link, offers, self._settings.router_lifetime, preference)]

    def _preference(self, offers: Sequence[Offer]) -> RouterPreference:
        """A host may go on sending by an interface that has no carrier; it takes the better router (RFC 4191 3.2)."""
        adopted = any(offer.adopted for offer in offers)
        return RouterPreference.HIGH if adopted and self.preference is RouterPreference.MEDIUM else self.preference

    def _repeat(self, item: Attachment, now: float) -> float:
        if item.advertised < len(ADVERTISE_AGAIN):
            return max(now, item.changed + ADVERTISE_AGAIN[item.advertised])
        return now + self._advertise_every

    def announce(self, interface: str, offers: Sequence[Offer], now: float) -> list[Action]:
        """A Router Advertisement to all on a link that is one network, and when to repeat it."""
        link = self.links.get(interface)
        if link is None:
            return []
        self._announce.set(interface, now + self._advertise_every)
        self._counters["link.advertisements"] += 1
        message = self._message(link, offers, self._settings.router_lifetime, self.preference)
        return [self._send(message, link, ALL_NODES, ALL_NODES_LINK_LAYER)]

    def farewell(self, who: Who, offers: Sequence[Offer]) -> list[Action]:
        """We stop being this node's router: prefixes as given, router lifetime 0 (RFC 4861 6.2.5)."""
        item = self.attached.get(who)
        link = self.links.get(item.interface) if item else None
        return [self._advertisement(item, link, offers, 0, RouterPreference.MEDIUM)] if item and link else []

    @property
    def _advertise_every(self) -> float:
        # the node must hear again before what it was told ends (RFC 8273 5)
        return min(self._settings.advertise_every, self._settings.preferred_lifetime / 3)

    def _advertisement(
        self, item: Attachment, link: Link, offers: Sequence[Offer], router_lifetime: int, preference: RouterPreference
    ) -> Action:
        self._counters["link.advertisements"] += 1
        message = self._message(link, offers, router_lifetime, preference)
        return self._send(message, link, item.link_local or ALL_NODES, item.link_layer, item.node)

    def _message(
        self, link: Link, offers: Sequence[Offer], router_lifetime: int, preference: RouterPreference
    ) -> RouterAdvertisement:
        prefixes = tuple(
            PrefixInformation(
                prefix=offer.prefix,
                on_link=self._settings.on_link,
                valid_lifetime=offer.valid_lifetime,
                preferred_lifetime=min(offer.preferred_lifetime, offer.valid_lifetime),
            )
            for offer in offers
        )
        mtu = max(MIN_MTU, min(self.tunnel_mtu, link.mtu))
        return RouterAdvertisement(
            hop_limit=CURRENT_HOP_LIMIT,
            preference=preference,  # of a router that goes, medium (RFC 4191 2.2)
            router_lifetime=router_lifetime,
            options=(SourceLinkLayerAddress(address=link.link_layer), LinkMtu(mtu=mtu), *prefixes),
        )

    # --- time ---

    @property
    def next_wake(self) -> float | None:
        """The earliest deadline, monotonic s."""
        parts = (self._solicit.next, self._advertise.next, self._announce.next, self._ask.next)
        return min((at for at in parts if at is not None), default=None)

    def wake(self, now: float) -> Findings[Who]:
        """Solicit, repeat advertisements, probe silent nodes."""
        findings: Findings[Who] = Findings(self._ask_all(now), [], [], [])
        findings.advertise.extend(self._advertise.due(now))
        findings.announce.extend(self._announce.due(now))
        for who in self._ask.due(now):
            self._probe(who, now, findings)
        return findings

    def _ask_all(self, now: float) -> list[Action]:
        """Of each link whose time it is."""
        return [action for each in self._solicit.due(now) for action in self._questions_to_all(self.links[each], now)]

    def _questions_to_all(self, link: Link, now: float) -> list[Action]:
        """Two questions nobody on the link can overhear.

        The MLD query is the one that a host may not ignore; the echo, sent last, brings the quickest answer.
        """
        if link.solicited + 1 < len(SOLICIT_AT):
            wait = SOLICIT_AT[link.solicited + 1] - SOLICIT_AT[link.solicited]
            self._solicit.set(link.interface, now + wait)
        link.solicited += 1
        self._counters["link.solicitations"] += 1
        echo = EchoRequest(identifier=0x5213, sequence_number=link.solicited)
        return [self._send(message, link, ALL_NODES, ALL_NODES_LINK_LAYER) for message in (QUERY, echo)]

    def _probe(self, who: Who, now: float, findings: Findings[Who]) -> None:
        """Ask a node by Neighbor Solicitation; after three without an answer it is gone (RFC 4861 7.3.3)."""
        item = self.attached[who]
        link = self.links.get(item.interface)
        if item.probes >= PROBES:
            findings.gone.append(who)
        elif link is not None:
            item.probes += 1
            self._ask.set(who, now + item.probe_interval)
            self._counters["link.probes"] += 1
            destination = item.link_local or ALL_NODES
            findings.actions.extend(
                self._send(message, link, destination, item.link_layer, item.node)
                for message in self._questions(item, link)
            )

    def last_question(self, who: Who) -> list[Action]:
        """Ask a node that is about to be taken for gone, as others say: if it is here, its answer attaches it anew."""
        item = self.attached.get(who)
        link = self.links.get(item.interface) if item else None
        if item is None or link is None:
            return []
        self._counters["link.probes"] += 1
        return [
            self._send(message, link, item.link_local or ALL_NODES, item.link_layer, item.node)
            for message in self._questions(item, link)
        ]

    def _questions(self, item: Attachment, link: Link) -> list[Message]:
        """What a node has to answer; one whose address is not known yet is asked as all nodes are, in a frame to it."""
        if item.link_local is None:
            return [EchoRequest(identifier=0x5213, sequence_number=item.probes), QUERY]
        source = SourceLinkLayerAddress(address=link.link_layer)
        return [NeighborSolicitation(target=item.link_local, options=(source,))]

    def _probe_later(self, who: Who, now: float) -> None:
        every = self._settings.probe_every or inf
        if every < inf:
            self._ask.set(who, now + every)
        else:
            self._ask.cancel(who)

    def _send(
        self, message: Message, link: Link, destination: IPv6Address, link_layer: bytes, node: str | None = None
    ) -> Action:
        packet = ipv6.carry(message, ROUTER_ADDRESS, destination)
        return SendOnLink(
            octets=packet, message=message, interface=link.interface, link_layer=link_layer, node=node
        )
