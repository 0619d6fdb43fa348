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

from ipaddress import IPv6Network

from signaling.dma.session import Session, State
from signaling.handoff import handoff_of_arrival
from signaling.iana import AccessTechnologyType, HandoffIndicator
from signaling.settings import NodeProfile, Sharing

SIBLING_WAITS = 0.25  # s an interface that left has to show itself elsewhere, before another one gets its prefixes
LOST = (State.GUARD, State.HOLD)  # nobody has the prefix


class Claims:
    """Of one router. Prefixes that nobody has are remembered, so that their own interface can come first."""

    def __init__(self, technology: AccessTechnologyType) -> None:
        self._technology = technology
        self._lost_since: dict[str, dict[IPv6Network, float]] = {}  # node -> prefix -> monotonic s

    def handoff(
        self, session: Session, link_layer: bytes, profile: NodeProfile, *, arriving: bool, now: float
    ) -> HandoffIndicator | None:
        """How the interface with this link-layer address stands to a prefix. None: ask again after SIBLING_WAITS."""
        if session.link_layer == link_layer and session.technology == self._technology:
            return HandoffIndicator.HANDOFF_BETWEEN_MAGS_FOR_THE_SAME_INTERFACE
        if session.link_layer in (link_layer, b""):
            return HandoffIndicator.HANDOFF_BETWEEN_TWO_DIFFERENT_INTERFACES
        lost = session.state in LOST
        if lost and now < self._lost(session, now) + SIBLING_WAITS:
            return None
        if not lost:
            self._lost_since.get(session.node, {}).pop(session.prefix, None)
        return handoff_of_arrival(
            told=None,
            switched=lost or (arriving and profile.takes_over),
            beside=True,
            beside_heard=True,  # as far as the anchor knows, who is asked when an interface shows itself elsewhere
            shares=profile.sharing is not Sharing.UNIQUE_PREFIX,
        )

    def forget(self, node: str) -> None:
        """It is here no more."""
        self._lost_since.pop(node, None)

    @property
    def lost_since(self) -> dict[str, dict[IPv6Network, float]]:
        """Since when nobody has which prefixes of nodes that are here, monotonic s."""
        return self._lost_since

    def _lost(self, session: Session, now: float) -> float:
        return self._lost_since.setdefault(session.node, {}).setdefault(session.prefix, now)
