"""Flow rules: which packets, and what becomes of them. A policy is a list of them; the first that matches decides.

    FlowRule(TrafficSelector(family=6, protocol=(17, 17), destination_port=(5004, 5005)), Steer(labels=(9, 11)))

The selector is the one of RFC 6088. Packets that no rule matches are spread per flow over all members of the bundle.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv6Address
from typing import Literal, TypeAlias

from engine.errors import EngineError
from engine.tunnels import packed

Numbers: TypeAlias = tuple[int, int]  # from, to; both belong to it
Addresses: TypeAlias = tuple[IPv6Address, IPv6Address] | tuple[IPv4Address, IPv4Address]

MOST_RULES = 4096  # in one policy
MOST_LABELS = 8  # in one rule
MOST_BIDS = 16

# name of a field -> its bit in a packed rule (_fast/rules.pxd), its largest value
FIELDS = {
    "source": (1, 0),
    "destination": (2, 0),
    "spi": (4, 0xFFFFFFFF),
    "flow_label": (8, 0xFFFFF),
    "source_port": (16, 0xFFFF),
    "destination_port": (32, 0xFFFF),
    "traffic_class": (64, 0xFF),
    "protocol": (128, 0xFF),
}
ANY = (0, 0)  # range of a field that is not in use: nobody looks at it


class BadRule(EngineError):  # noqa: N818 - the names say what happened, as in engine.errors
    """A selector or an action that makes no sense; RFC 6089 4.2.1 answers it with status 130."""


class Spread(enum.Enum):
    """How packets are spread over the members of a bundle."""

    # all packets of a flow take one member, flows are shared out by weight; a member that dies moves its own flows only
    PER_FLOW = "per flow"
    # each packet takes the next member, shares are as the weights; wants numbered tunnels and a reordering receiver
    PER_PACKET = "per packet"
    # each packet goes into every member that is not down (RFC 6089 5.3.6); the receiver drops the twins
    BICAST = "bicast"


SPREADS = {Spread.PER_FLOW: 1, Spread.PER_PACKET: 2, Spread.BICAST: 3}  # 0: discard. As in _fast/rules.pxd
NOTHING, LABELS, BIDS = range(3)  # what the wanted numbers of a packed rule are


def _within(numbers: Sequence[int], most: int) -> bool:
    return all(isinstance(number, int) and 0 <= number <= most for number in numbers)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrafficSelector:
    """A set of packets by their headers: a binary traffic selector (RFC 6088 3.1, 3.2). Raises BadRule.

    Every field is a range, both ends included, or None: not looked at. A packet is in the set when every field is
    in its range. Fields that a packet does not have are in no range: ports of ESP, of ICMP, and of later fragments
    whose first was not seen. Source and destination are those of the packet as the engine sees it; see mirrored().
    """

    family: Literal[4, 6]  # IP version: format 1 or format 2
    source: Addresses | None = None
    destination: Addresses | None = None
    spi: Numbers | None = None  # of ESP or AH; the first of the packet
    flow_label: Numbers | None = None  # 20 bits; only family 6
    source_port: Numbers | None = None  # TCP, UDP, UDP-Lite, SCTP, DCCP
    destination_port: Numbers | None = None
    traffic_class: Numbers | None = None  # whole octet (IPv4: DS field); only the upper 6 bits are compared
    protocol: Numbers | None = None  # upper-layer protocol, or any other number in the chain of headers

    def __post_init__(self) -> None:
        if self.family not in (4, 6):
            raise BadRule("no such selector", where="family", why=f"{self.family} is neither 4 nor 6")
        if self.family == 4 and self.flow_label is not None:
            raise BadRule("no such selector", where="flow_label", why="IPv4 packets have none (RFC 6088 3.1)")
        for name, (_, most) in FIELDS.items():
            self._check(name, most)

    def _check(self, name: str, most: int) -> None:
        ends = getattr(self, name)
        if ends is None:
            return
        if not isinstance(ends, tuple | list) or len(ends) != 2:
            raise BadRule("no such selector", where=name, why="a range has two ends")
        low, high = ends
        if name in ("source", "destination"):
            if any(getattr(end, "version", None) != self.family for end in ends):
                raise BadRule("no such selector", where=name, why=f"not addresses of IPv{self.family}")
        elif not _within(ends, most):
            raise BadRule("no such selector", where=name, why=f"{low} to {high} is not within 0 to {most}")
        if low > high:
            raise BadRule("no such selector", where=name, why=f"{low} is behind {high}")

    def mirrored(self) -> TrafficSelector:
        """The same flow the other way: source and destination change places, address and port.

        Flow bindings are written as the anchor sends (source = correspondent); the access router sends the other way.
        """
        return replace(
            self,
            source=self.destination,
            destination=self.source,
            source_port=self.destination_port,
            destination_port=self.source_port,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Steer:
    """Spread packets over some members of the bundle; with neither labels nor BIDs over all. Raises BadRule.

    Only members that are up are used; suspect ones while none of those wanted is up; those that are down never. When
    none is left the packet dies of NO_PATH. A binding to a lone tunnel has neither label nor BID: it takes everything.
    """

    spread: Spread = Spread.PER_FLOW
    # in order of preference: the first that a live member has is taken; a bicast goes to the members of all of them
    labels: tuple[int, ...] = ()
    bids: tuple[int, ...] = ()  # 16 bits (RFC 6089 4.2: Binding Reference), in any order

    def __post_init__(self) -> None:
        if not isinstance(self.spread, Spread):
            raise BadRule("no such action", where="spread", why=f"{self.spread!r} is no Spread")
        if self.labels and self.bids:
            raise BadRule("no such action", where="labels, bids", why="one or the other")
        self._check("labels", MOST_LABELS, 0xFF)
        self._check("bids", MOST_BIDS, 0xFFFF)

    def _check(self, name: str, count: int, most: int) -> None:
        numbers = getattr(self, name)
        if not isinstance(numbers, tuple | list):
            raise BadRule("no such action", where=name, why=f"{numbers!r} is no tuple of numbers")
        if len(numbers) > count:
            raise BadRule("no such action", where=name, why=f"more than {count}")
        if not _within(numbers, most):
            raise BadRule("no such action", where=name, why=f"not within 0 to {most}")


@dataclass(frozen=True, slots=True)
class Discard:
    """Drop packets; they die of POLICY (RFC 7864 5)."""


@dataclass(frozen=True, slots=True)
class FlowRule:
    """Which packets, and what becomes of them."""

    selector: TrafficSelector | None  # None: every packet, of either family
    action: Steer | Discard = Steer()
    # as the compiled path reads it, 132 octets; made once
    packed: bytes = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.action, Steer | Discard):
            raise BadRule("no such rule", where="action", why=f"{self.action!r} is neither Steer(...) nor Discard()")
        if not isinstance(self.selector, TrafficSelector | None):
            raise BadRule("no such rule", where="selector", why=f"{self.selector!r} is no TrafficSelector")
        object.__setattr__(self, "packed", pack(self))

    def mirrored(self) -> FlowRule:
        """The same action for the same flow the other way."""
        return self if self.selector is None else FlowRule(self.selector.mirrored(), self.action)


# family, fields, spread, what is wanted, how many; DS and protocol; ports; flow label and SPI; addresses; wanted
LAYOUT = struct.Struct("!9B3x4H4I16s16s16s16s16H")


def pack(rule: FlowRule) -> bytes:
    """A rule as _fast/rules.pyx reads it."""
    spread, by = 0, NOTHING
    wanted: tuple[int, ...] = ()
    if isinstance(rule.action, Steer):
        spread = SPREADS[rule.action.spread]
        by = LABELS if rule.action.labels else BIDS if rule.action.bids else NOTHING
        wanted = rule.action.labels or rule.action.bids
    selector = rule.selector
    used = 0 if selector is None else sum(bit for name, (bit, _) in FIELDS.items() if getattr(selector, name))

    def ends(name: str) -> Numbers:
        return getattr(selector, name, None) or ANY

    low_class, high_class = ends("traffic_class")
    return LAYOUT.pack(
        0 if selector is None else selector.family,
        used,
        spread,
        by,
        len(wanted),
        low_class >> 2,
        high_class >> 2,
        *ends("protocol"),
        *ends("source_port"),
        *ends("destination_port"),
        *ends("flow_label"),
        *ends("spi"),
        *_packed_addresses(selector.source if selector else None),
        *_packed_addresses(selector.destination if selector else None),
        *wanted,
        *[0] * (16 - len(wanted)),
    )


def _packed_addresses(ends: Addresses | None) -> list[bytes]:
    """16 octets each."""
    return [bytes(16), bytes(16)] if ends is None else [packed(end) for end in ends]
