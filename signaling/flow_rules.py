"""Flow rules as both ends of a tunnel mean them: which packets, which ways in order of preference, how they are spread.

Written as the anchor sends: source is the correspondent, destination the mobile node (RFC 6088 3, RFC 6089 4.2).
"""

from dataclasses import dataclass
from enum import Enum

from signaling.wire.traffic_selector import TrafficSelector


class Spread(Enum):
    """What becomes of the packets of a rule."""

    PER_FLOW = "per-flow"  # all packets of a flow by one way, flows shared out by weight
    PER_PACKET = "per-packet"  # each packet by the next way, numbered, put in order at the other end
    BICAST = "bicast"  # each packet by every way, twins dropped at the other end
    DROP = "drop"  # none goes anywhere


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowRule:
    """One rule of a policy. With neither labels nor binding_ids: over all ways."""

    name: str = ""  # for people
    selector: TrafficSelector | None  # None: every packet
    labels: tuple[int, ...] = ()  # in order of preference: the first that a live way has is taken
    binding_ids: tuple[int, ...] = ()  # BIDs, when the peer named those (RFC 6089 4.2: binding reference)
    spread: Spread = Spread.PER_FLOW
