"""What a router does about a prefix of a node that is here by some interface, while its anchor is another router.

The store says by which interface the node has the prefix, and whether anybody has it at all:

    by this interface                                    3  it comes along
    by this link-layer address, another technology       2  it comes along
    by an interface that is not known                    2  it comes along
    nobody has it, and its interface had its time        2  this interface takes it over
    another one, and profile: a new one takes over       2  this interface takes it over, as it comes
    another one, and profile: they share prefixes        6  it stays, some flows come here (RFC 7864 3.2.1)
    another one                                          1  it stays where it is; here the node gets a prefix of its own

The last five are those of a gateway that hears a node (`handoff_of_arrival`).
"""

from collections.abc import Callable
from ipaddress import IPv6Network
from typing import TYPE_CHECKING

from signaling.access_link import AccessLink
from signaling.actions import Action
from signaling.deadlines import Deadlines
from signaling.dma.flow_mobility import FlowMobility
from signaling.dma.registrar import Registrar
from signaling.dma.session import AWAY, HERE, Session, State
from signaling.handoff import handoff_of_arrival
from signaling.iana import HandoffIndicator
from signaling.node_interface import Here, NodeInterface, Place
from signaling.profiles import Profiles
from signaling.settings import TIMESTAMP_UNITS, Clock, NodeProfile, Settings, Sharing

if TYPE_CHECKING:
    from signaling.dmm.serving import CentralRegistrar

FIND_AGAIN = 2.0  # s, while the store is away, or while the node has to be asked first
CLAIM_WITHIN = 3.0  # s after a node was heard its prefixes may be claimed; longer than FIND_AGAIN
SIBLING_WAITS = 0.25  # s an interface that left has to show itself elsewhere, before another one gets its prefixes
LOST = (State.GUARD, State.HOLD)  # nobody has the prefix
DELIVERED = HERE | AWAY


class Claims:
    """Of one router. Prefixes that nobody has are remembered, so that their own interface can come first."""

    def __init__(
        self,
        settings: Settings,
        clock: Clock,
        access: AccessLink[NodeInterface],
        here: Here,
        profiles: Profiles,
        registrar: "Registrar | CentralRegistrar",
        flows: FlowMobility,
        *,
        place: Callable[[NodeInterface], Place],
    ) -> None:
        """place(who): where an interface is."""
        self.arriving: set[NodeInterface] = set()  # the store was not heard yet about their nodes
        self.find_again: Deadlines[str] = Deadlines()  # nodes about which the store is to be asked once more
        self.lost_since: dict[str, dict[IPv6Network, float]] = {}  # node -> prefix that nobody has -> monotonic s
        self.elsewhere: dict[str, tuple[bytes, ...]] = {}  # node -> link-layer addresses of its interfaces elsewhere
        self._settings = settings
        self._clock = clock
        self._access = access
        self._here = here
        self._profiles = profiles
        self._registrar = registrar
        self._flows = flows
        self._place = place

    def claim(self, sessions: tuple[Session, ...], node: str, now: float) -> list[Action]:
        """Ask the anchors of a node's prefixes to tunnel them here, those that its interfaces here may have."""
        actions: list[Action] = []
        there = (it for it in sessions if it.state in DELIVERED and it.care_of != self._settings.address)
        self.elsewhere[node] = tuple(session.link_layer for session in there)
        for session in sessions:
            if session.anchor == self._settings.address or session.state is State.FREE:
                continue
            if session.state is State.RELEASED:
                actions += self._registrar.forgo(session)
            else:
                actions += self._claim(session, self._claimant(session), now)
        self.arriving -= set(self._here.of(node))
        return actions

    def _claimant(self, session: Session) -> NodeInterface:
        """The interface here that a prefix is for: its own, the one that has it here, or the one that came last."""
        here, held = self._here.of(session.node), self._registrar.get(session.prefix)
        wanted = (session.link_layer, held.link_layer if held else None)
        return next((who for link_layer in wanted for who in here if who.link_layer == link_layer), here[-1])

    def _claim(self, session: Session, who: NodeInterface, now: float) -> list[Action]:
        profile = self._profiles.of(who.node)
        handoff = self._handoff(session, who.link_layer, profile, arriving=who in self.arriving, now=now)
        if handoff is None:
            self._may_claim(session, who, now)  # if that has to be found out, it is known by then
            self.find_again.set(who.node, now + SIBLING_WAITS)
            return []
        if handoff == HandoffIndicator.ATTACHMENT_OVER_A_NEW_INTERFACE:
            self._ask_siblings(session, now)
            return self._registrar.let_be(session.prefix, now)
        if handoff == HandoffIndicator.ATTACHMENT_OVER_A_NEW_INTERFACE_SHARING_PREFIXES:
            self._ask_siblings(session, now)
            return self._flows.share(session, self._place(who), profile.policy, now)
        if self._may_claim(session, who, now):
            return self._registrar.register(session, self._place(who), handoff, now)
        self.find_again.set(who.node, now + FIND_AGAIN)
        return []

    def _ask_siblings(self, session: Session, now: float) -> None:
        """A node is seen elsewhere by another interface: are those that were not heard since then still here?"""
        since = self._clock.monotonic(session.timestamp / TIMESTAMP_UNITS)
        for who in self._here.of(session.node):
            self._access.heard_since(who, since, now)

    def _may_claim(self, session: Session, who: NodeInterface, now: float) -> bool:
        """Whether its node is proven to be here: heard lately, and after it was seen anywhere else.

        The answer of a store that was away comes late, and its news come without being asked for. A router that has
        not noticed that the node left would take the prefix away from where the node is.
        """
        if session.care_of == self._settings.address:
            return True
        seen_elsewhere = self._clock.monotonic(session.timestamp / TIMESTAMP_UNITS)
        since = seen_elsewhere if self._registrar.holds(session.prefix) else max(seen_elsewhere, now - CLAIM_WITHIN)
        return self._access.heard_since(who, since, now)

    def _handoff(
        self, session: Session, link_layer: bytes, profile: NodeProfile, *, arriving: bool, now: float
    ) -> HandoffIndicator | None:
        """How the interface with this link-layer address stands to a prefix. None: ask again after SIBLING_WAITS."""
        if session.link_layer == link_layer and session.technology == self._settings.technology:
            return HandoffIndicator.HANDOFF_BETWEEN_MAGS_FOR_THE_SAME_INTERFACE
        if session.link_layer in (link_layer, b""):
            return HandoffIndicator.HANDOFF_BETWEEN_TWO_DIFFERENT_INTERFACES
        lost = session.state in LOST
        if lost and now < self._lost(session, now) + SIBLING_WAITS:
            return None
        if not lost:
            self.lost_since.get(session.node, {}).pop(session.prefix, None)
        return handoff_of_arrival(
            told=None,
            switched=lost or (arriving and profile.takes_over),
            beside=True,
            beside_heard=True,  # as far as the anchor knows, who is asked when an interface shows itself elsewhere
            shares=profile.sharing is not Sharing.UNIQUE_PREFIX,
        )

    def forget(self, node: str) -> None:
        """It is here no more."""
        self.lost_since.pop(node, None)
        self.elsewhere.pop(node, None)

    def _lost(self, session: Session, now: float) -> float:
        return self.lost_since.setdefault(session.node, {}).setdefault(session.prefix, now)
