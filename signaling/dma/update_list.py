"""What a visited router knows: one entry for each prefix of its nodes that is anchored elsewhere (RFC 5213 6.1).

    NONE --found--> PENDING --accepted--> VISITED --left--> LEAVING --told--> DEREGISTERING --time--> NONE
                     |  ^                  |   |              |                    |
             refused |  | retry    refused |   | idle         | attached again     | attached again
                     v  |                  v   v              v                    v
                    REFUSED          REFUSED   RELEASING     PENDING            PENDING
                                                  |
                                                  +--answer or time--> NONE
    PENDING, VISITED --anchor lost--> LOST --it is back--> PENDING
                                       |
                                       +--left, or time--> NONE

`NEXT` is consulted by the code and drives the tests; a missing pair is an event that changes nothing.
"""

from dataclasses import dataclass, field
from enum import Enum
from ipaddress import IPv6Address, IPv6Network
from math import inf

from signaling.flow_rules import FlowRule
from signaling.iana import HandoffIndicator
from signaling.node_interface import NodeInterface, Place
from signaling.settings import Address


class Progress(Enum):
    """How far the registration of a visiting prefix is."""

    NONE = "none"  # not in the list
    PENDING = "pending"  # asked, not answered
    VISITED = "visited"  # accepted: tunnelled, advertised as deprecated
    REFUSED = "refused"  # the anchor does not want it: not advertised; asked again now and then
    LOST = "lost"  # the anchor does not answer any more: not advertised; asked again if it comes back
    LEAVING = "leaving"  # the node is gone: the anchor is told at once, unless it was told too much lately
    DEREGISTERING = "deregistering"  # the anchor was told; the node may be back in a moment
    RELEASING = "releasing"  # the node is here, nobody uses the prefix: the anchor is being told; no way back


class Step(Enum):
    """What can happen to a registration."""

    FOUND = "found"  # the store names an anchor for a prefix of a node that is here
    ACCEPTED = "accepted"
    REFUSED = "refused"
    LEFT = "left"  # the node left
    DUE = "due"  # the deadline of the state has passed
    IDLE = "idle"  # no packet of the prefix has passed for long
    REVOKED = "revoked"  # by the anchor
    ANCHOR_LOST = "anchor lost"  # it does not answer any more
    EXPIRED = "expired"  # no refresh was accepted in time


NEXT: dict[tuple[Progress, Step], Progress] = {
    (Progress.NONE, Step.FOUND): Progress.PENDING,
    (Progress.PENDING, Step.FOUND): Progress.PENDING,
    (Progress.PENDING, Step.ACCEPTED): Progress.VISITED,
    (Progress.PENDING, Step.REFUSED): Progress.REFUSED,
    (Progress.PENDING, Step.DUE): Progress.PENDING,
    (Progress.PENDING, Step.LEFT): Progress.LEAVING,
    (Progress.PENDING, Step.REVOKED): Progress.NONE,
    (Progress.VISITED, Step.FOUND): Progress.VISITED,
    (Progress.VISITED, Step.ACCEPTED): Progress.VISITED,
    (Progress.VISITED, Step.REFUSED): Progress.REFUSED,
    (Progress.VISITED, Step.DUE): Progress.VISITED,
    (Progress.VISITED, Step.IDLE): Progress.RELEASING,
    (Progress.VISITED, Step.EXPIRED): Progress.PENDING,
    (Progress.VISITED, Step.LEFT): Progress.LEAVING,
    (Progress.VISITED, Step.REVOKED): Progress.NONE,
    (Progress.PENDING, Step.ANCHOR_LOST): Progress.LOST,
    (Progress.VISITED, Step.ANCHOR_LOST): Progress.LOST,
    (Progress.LOST, Step.FOUND): Progress.PENDING,
    (Progress.LOST, Step.DUE): Progress.NONE,
    (Progress.LOST, Step.LEFT): Progress.NONE,
    (Progress.LOST, Step.REVOKED): Progress.NONE,
    (Progress.REFUSED, Step.FOUND): Progress.PENDING,
    (Progress.REFUSED, Step.DUE): Progress.PENDING,
    (Progress.REFUSED, Step.LEFT): Progress.NONE,
    (Progress.REFUSED, Step.REVOKED): Progress.NONE,
    (Progress.LEAVING, Step.FOUND): Progress.PENDING,
    (Progress.LEAVING, Step.DUE): Progress.DEREGISTERING,
    (Progress.LEAVING, Step.REVOKED): Progress.NONE,
    (Progress.DEREGISTERING, Step.FOUND): Progress.PENDING,
    (Progress.DEREGISTERING, Step.ACCEPTED): Progress.DEREGISTERING,
    (Progress.DEREGISTERING, Step.REFUSED): Progress.DEREGISTERING,
    (Progress.DEREGISTERING, Step.DUE): Progress.NONE,
    (Progress.DEREGISTERING, Step.REVOKED): Progress.DEREGISTERING,
    (Progress.RELEASING, Step.ACCEPTED): Progress.NONE,
    (Progress.RELEASING, Step.REFUSED): Progress.NONE,
    (Progress.RELEASING, Step.DUE): Progress.RELEASING,
    (Progress.RELEASING, Step.EXPIRED): Progress.NONE,
    (Progress.RELEASING, Step.REVOKED): Progress.NONE,
}


@dataclass(slots=True, kw_only=True)
class Registration:
    """A binding update list entry: one prefix of one node, anchored elsewhere."""

    node: str
    prefix: IPv6Network
    anchor: Address
    interface: str
    link_layer: bytes
    handoff: int
    valid_lifetime: int  # s, the anchor's
    gateway: IPv6Address | None = None  # on the interface, as of `Place`
    lent_to: bytes = b""  # link-layer address of the interface that was given the prefix; b"": not known
    ordered: bool = False  # somebody wants it here while its own interface is elsewhere: not advertised (RFC 7864 4.1)
    policy: str = ""  # name of the flow policy that `flows` are of; "": whoever ordered it brought them
    flows: tuple[FlowRule, ...] = ()  # that come here, if the prefix stays where it is
    progress: Progress = Progress.NONE
    sequence_number: int = 0  # of the update that waits for its answer
    timestamp: int = 0  # of the last update, 1/65536 s since 1970
    asked: tuple[int, int] = (0, 0)  # its handoff indicator and access technology
    answered: bool = True
    retry_after: float = 0.0  # s, doubles with each try
    sent: list[float] = field(default_factory=list)  # monotonic s, of the last few updates
    contested: bool = False  # the anchor believes in another router: to register again is a handoff, no refresh
    proof_after: float = -inf  # monotonic s: ask only if the node was heard since then
    proof_wanted: bool = False  # the node is being asked whether it is here: what it answers is what we wait for
    expires: float = 0.0  # monotonic s, of the lifetime that was granted

    @property
    def shares(self) -> bool:
        """Flows come here, and the prefix stays where it is."""
        return self.handoff == HandoffIndicator.ATTACHMENT_OVER_A_NEW_INTERFACE_SHARING_PREFIXES

    @property
    def who(self) -> NodeInterface:
        """The interface that has the prefix here."""
        return NodeInterface(self.node, self.link_layer)

    def settle(self, here: Place) -> None:
        """That interface is there, or another one has the prefix from now on."""
        self.interface, self.link_layer, self.gateway = here.interface, here.link_layer, here.gateway

    def step(self, step: Step) -> bool:
        """Go where the table says. False: this cannot happen here, and nothing changed."""
        progress = NEXT.get((self.progress, step))
        if progress is None:
            return False
        self.progress = progress
        return True
