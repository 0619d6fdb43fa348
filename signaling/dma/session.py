"""A mobility session: one prefix of one node, as its anchor knows it, and the state machine it goes through.

The table is the one of Dynamic Mobility Anchoring at the anchor (H-MAR), per node and prefix:

    FREE --attach--> LOCAL --link lost--> GUARD --time--> HOLD --valid lifetime over--> FREE
                     |  ^                 |  ^             |
              update |  | attach   update |  | de-reg.     | attach or update of the same node
                     v  |                 v  | or expiry   v
                    REMOTE <---------------- +        LOCAL or REMOTE
                     |   |  ^
                     |   |  | its router answers again, or update
                     |   v  |
                     |  LOST --attach, de-reg., expiry: as REMOTE
                     | idle
                     v
                  RELEASED --valid lifetime over--> FREE, --attach--> LOCAL

    LOCAL --flows asked--> SPLIT --attached, flows asked--> SPLIT --flows ended--> LOCAL
                           SPLIT --left, update--> REMOTE --flows asked, flows ended, inherited--> REMOTE

`NEXT` is consulted by the code and drives the tests; a missing pair is an event that changes nothing.
"""

from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv6Network

from signaling.settings import Address


class State(Enum):
    """Where the node of an anchored prefix is."""

    FREE = "free"  # not lent to anybody
    LOCAL = "local"  # the node is here: the kernel forwards natively
    GUARD = "guard"  # the node has left and nobody has registered it yet
    REMOTE = "remote"  # registered by a visited router: tunnelled
    SPLIT = "split"  # the node is here: forwarded natively, but for some flows, which visited routers take
    LOST = "lost"  # as REMOTE, but that router does not answer; to the store it is REMOTE
    HOLD = "hold"  # session over; hosts may still believe in the prefix, so nobody else gets it
    RELEASED = "released"  # as HOLD, but nobody used the prefix: where its node goes, it follows no more


class Happening(Enum):
    """What can happen to an anchored prefix."""

    ATTACHED = "attached"  # the node is on our access link
    LEFT = "left"  # the node left our access link
    REGISTERED = "registered"  # a valid update of a visited router, lifetime > 0
    DEREGISTERED = "deregistered"  # lifetime 0 from the router that holds the registration
    RELEASED = "released"  # the same, as no packet of the prefix has passed for long
    PEER_LOST = "peer lost"  # the visited router does not answer any more
    PEER_BACK = "peer back"  # it does again, and knows what it knew
    EXPIRED = "expired"  # the deadline of the state has passed
    FLOWS_ASKED = "flows asked"  # a visited router takes flows, perhaps none yet, beside the one that has the prefix
    FLOWS_ENDED = "flows ended"  # no router takes any more
    INHERITED = "inherited"  # the router that had the prefix is gone; one of those that took flows has it now
    RESTORED = "restored"  # we were restarted and cannot know whether the node is still here


NEXT: dict[tuple[State, Happening], State] = {
    (State.FREE, Happening.ATTACHED): State.LOCAL,
    (State.LOCAL, Happening.ATTACHED): State.LOCAL,
    (State.LOCAL, Happening.LEFT): State.GUARD,
    (State.LOCAL, Happening.REGISTERED): State.REMOTE,
    (State.LOCAL, Happening.RESTORED): State.GUARD,
    (State.GUARD, Happening.ATTACHED): State.LOCAL,
    (State.GUARD, Happening.REGISTERED): State.REMOTE,
    (State.GUARD, Happening.EXPIRED): State.HOLD,
    (State.GUARD, Happening.RESTORED): State.GUARD,
    (State.REMOTE, Happening.ATTACHED): State.LOCAL,
    (State.REMOTE, Happening.REGISTERED): State.REMOTE,
    (State.REMOTE, Happening.DEREGISTERED): State.GUARD,
    (State.REMOTE, Happening.RELEASED): State.RELEASED,
    (State.REMOTE, Happening.EXPIRED): State.HOLD,
    (State.REMOTE, Happening.RESTORED): State.REMOTE,
    (State.LOCAL, Happening.FLOWS_ASKED): State.SPLIT,
    (State.SPLIT, Happening.ATTACHED): State.SPLIT,
    (State.SPLIT, Happening.LEFT): State.REMOTE,
    (State.SPLIT, Happening.REGISTERED): State.REMOTE,
    (State.SPLIT, Happening.FLOWS_ASKED): State.SPLIT,
    (State.SPLIT, Happening.FLOWS_ENDED): State.LOCAL,
    (State.SPLIT, Happening.RESTORED): State.GUARD,
    (State.REMOTE, Happening.FLOWS_ASKED): State.REMOTE,
    (State.REMOTE, Happening.FLOWS_ENDED): State.REMOTE,
    (State.REMOTE, Happening.INHERITED): State.REMOTE,
    (State.REMOTE, Happening.PEER_LOST): State.LOST,
    (State.LOST, Happening.ATTACHED): State.LOCAL,
    (State.LOST, Happening.REGISTERED): State.REMOTE,
    (State.LOST, Happening.DEREGISTERED): State.GUARD,
    (State.LOST, Happening.RELEASED): State.RELEASED,
    (State.LOST, Happening.PEER_BACK): State.REMOTE,
    (State.LOST, Happening.EXPIRED): State.HOLD,
    (State.HOLD, Happening.ATTACHED): State.LOCAL,
    (State.HOLD, Happening.REGISTERED): State.REMOTE,
    (State.HOLD, Happening.EXPIRED): State.FREE,
    (State.HOLD, Happening.RESTORED): State.HOLD,
    (State.RELEASED, Happening.ATTACHED): State.LOCAL,
    (State.RELEASED, Happening.EXPIRED): State.FREE,
    (State.RELEASED, Happening.RESTORED): State.RELEASED,
}


HERE = {State.LOCAL, State.SPLIT}  # the node is on our own link
AWAY = {State.REMOTE, State.LOST}  # a visited router has the prefix


def stored(state: State) -> State:
    """As others may know it: that a router does not answer us is no news about the node."""
    return State.REMOTE if state is State.LOST else state


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """One prefix of one node, as written to the store by its anchor, for any router the node comes to."""

    node: str  # MN-Identifier (NAI)
    prefix: IPv6Network
    anchor: Address  # signalling and tunnel address of the H-MAR
    state: State
    care_of: Address  # where the prefix is delivered now: the anchor itself, or the V-MAR
    link_layer: bytes  # of the node's interface, b"" when unknown
    technology: int  # access technology type, RFC 5213 8.5
    timestamp: int  # of the last accepted update or attachment, 1/65536 s since 1970
    expires: float  # wall clock s: when the state ends by itself; inf while the node is here
    valid_lifetime: int  # s, as advertised to the node
    lent_to: bytes = b""  # link-layer address of the interface that was given the prefix; b"": that of `link_layer`
