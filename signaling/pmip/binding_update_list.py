"""What a gateway knows of the sessions of its nodes: the binding update list (RFC 5213 6.1, RFC 8278 3).

A session is what an interface of a node was given; it is registered once for each path to the anchor:

    NONE --asked--> PENDING --accepted--> REGISTERED --left--> LEAVING --due--> DEREGISTERING --answer or due--> NONE
                     |  ^  \\                |    |               |
             refused |  |   left             |    lost: its uplink is gone, another path tells the anchor
                     v  | asked              |    +------------> DEREGISTERING
                    REFUSED  BARRED          stranded: no path is left to tell it
                             (until an       +-----------------> STRANDED --moved--> PENDING
                             administrator)

`NEXT` is consulted by the code and drives the tests; a missing pair is an event that changes nothing.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum, Flag, auto
from ipaddress import IPv4Address, IPv4Interface, IPv6Address
from math import inf
from typing import NamedTuple

from signaling.actions import Path
from signaling.node_interface import NodeInterface
from signaling.pmip.uplinks import UplinkPath
from signaling.settings import Prefix, Wants
from signaling.wire.options.option import Option
from signaling.wire.options.prefix import HomeNetworkPrefix


class Stage(Enum):
    """How far the registration of a session by one path is."""

    NONE = "none"  # not in the list
    PENDING = "pending"  # asked, not answered
    REGISTERED = "registered"  # accepted: a way to the anchor
    REFUSED = "refused"  # the anchor does not want it; asked again now and then
    BARRED = "barred"  # never asked again, until an administrator acts or the node comes anew
    STRANDED = "stranded"  # its uplink is gone and the anchor cannot be told; it may end before the uplink returns
    LEAVING = "leaving"  # the node is gone, perhaps only for a moment
    DEREGISTERING = "deregistering"  # the anchor is being told


class Step(Enum):
    """What can happen to a registration."""

    ASKED = "asked"  # an update with a lifetime leaves
    ACCEPTED = "accepted"
    REFUSED = "refused"
    BARRED = "barred"  # refused for good
    EXPIRED = "expired"  # no refresh was accepted in time
    LEFT = "left"  # the node left
    DUE = "due"  # the deadline of the stage has passed
    MOVED = "moved"  # its uplink has another address, or is back; or its only path is another one
    LOST = "lost"  # its uplink is gone; another path is there
    STRANDED = "stranded"  # its uplink is gone; it was the last one
    REVOKED = "revoked"  # by the anchor


NEXT: dict[tuple[Stage, Step], Stage] = {
    (Stage.NONE, Step.ASKED): Stage.PENDING,
    (Stage.PENDING, Step.ASKED): Stage.PENDING,
    (Stage.PENDING, Step.ACCEPTED): Stage.REGISTERED,
    (Stage.PENDING, Step.REFUSED): Stage.REFUSED,
    (Stage.PENDING, Step.BARRED): Stage.BARRED,
    (Stage.PENDING, Step.LEFT): Stage.LEAVING,
    (Stage.PENDING, Step.MOVED): Stage.PENDING,
    (Stage.PENDING, Step.LOST): Stage.DEREGISTERING,
    (Stage.PENDING, Step.STRANDED): Stage.STRANDED,
    (Stage.PENDING, Step.REVOKED): Stage.NONE,
    (Stage.REGISTERED, Step.ASKED): Stage.REGISTERED,
    (Stage.REGISTERED, Step.ACCEPTED): Stage.REGISTERED,
    (Stage.REGISTERED, Step.REFUSED): Stage.REFUSED,
    (Stage.REGISTERED, Step.BARRED): Stage.BARRED,
    (Stage.REGISTERED, Step.EXPIRED): Stage.PENDING,
    (Stage.REGISTERED, Step.LEFT): Stage.LEAVING,
    (Stage.REGISTERED, Step.MOVED): Stage.PENDING,
    (Stage.REGISTERED, Step.LOST): Stage.DEREGISTERING,
    (Stage.REGISTERED, Step.STRANDED): Stage.STRANDED,
    (Stage.REGISTERED, Step.REVOKED): Stage.NONE,
    (Stage.REFUSED, Step.ASKED): Stage.PENDING,
    (Stage.REFUSED, Step.LEFT): Stage.NONE,
    (Stage.REFUSED, Step.MOVED): Stage.PENDING,
    (Stage.REFUSED, Step.LOST): Stage.NONE,
    (Stage.REFUSED, Step.STRANDED): Stage.NONE,
    (Stage.REFUSED, Step.REVOKED): Stage.NONE,
    (Stage.BARRED, Step.LEFT): Stage.NONE,
    (Stage.BARRED, Step.MOVED): Stage.BARRED,
    (Stage.BARRED, Step.LOST): Stage.NONE,
    (Stage.BARRED, Step.STRANDED): Stage.NONE,
    (Stage.BARRED, Step.REVOKED): Stage.NONE,
    (Stage.STRANDED, Step.EXPIRED): Stage.NONE,
    (Stage.STRANDED, Step.LEFT): Stage.NONE,
    (Stage.STRANDED, Step.MOVED): Stage.PENDING,
    (Stage.STRANDED, Step.REVOKED): Stage.NONE,
    (Stage.LEAVING, Step.ASKED): Stage.PENDING,
    (Stage.LEAVING, Step.ACCEPTED): Stage.LEAVING,
    (Stage.LEAVING, Step.DUE): Stage.DEREGISTERING,
    (Stage.LEAVING, Step.LOST): Stage.DEREGISTERING,
    (Stage.LEAVING, Step.STRANDED): Stage.NONE,
    (Stage.LEAVING, Step.REVOKED): Stage.NONE,
    (Stage.DEREGISTERING, Step.ASKED): Stage.PENDING,
    (Stage.DEREGISTERING, Step.MOVED): Stage.PENDING,
    (Stage.DEREGISTERING, Step.ACCEPTED): Stage.NONE,
    (Stage.DEREGISTERING, Step.REFUSED): Stage.NONE,
    (Stage.DEREGISTERING, Step.BARRED): Stage.NONE,
    (Stage.DEREGISTERING, Step.DUE): Stage.NONE,
    (Stage.DEREGISTERING, Step.REVOKED): Stage.NONE,
}


class Multipath(Enum):
    """Whether the anchor takes several care-of addresses for a session."""

    UNKNOWN = "unknown"  # one path is asked for first (RFC 8278 4.4)
    ON = "on"
    OFF = "off"


class Service(Flag):
    """What a session asks its anchor for."""

    NONE = 0
    IPV6 = auto()
    IPV4 = auto()
    DELEGATION = auto()


EVERYTHING = Service.IPV6 | Service.IPV4 | Service.DELEGATION


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What the update said that waits for its answer: the answer has to be about that."""

    lifetime: int  # s
    handoff: int
    technology: int
    services: Service
    named: bool  # it named home network prefixes instead of asking for one
    multipath: bool
    bulk: bool  # B: for all paths
    gre: bool
    flows: tuple[Option, ...]  # all that are to be kept, written out
    releases: bool = False  # it takes back the IPv4 home address, and nothing else


@dataclass(slots=True, kw_only=True, eq=False)
class Registration:
    """A session by one path."""

    session: "Session" = field(repr=False)
    path: UplinkPath
    stage: Stage = Stage.NONE
    sequence_number: int = 0
    question: Question | None = None  # None: nothing waits for an answer
    retry_after: float = 0.0  # s, doubles with each try
    sent: list[float] = field(default_factory=list)  # monotonic s, of the last few updates
    handoff: int = 0  # of the first update, and of those that repeat it
    taken_back: bool = False  # the anchor knows that the node left
    overwrite: bool = False  # O: what an earlier life of this gateway registered goes (RFC 8278 4.1)
    proof_after: float = -inf  # monotonic s: ask only if the node was heard since then
    contested: bool = False  # the anchor may believe in another gateway: to register again is no refresh
    renew: bool = False  # the anchor may have forgotten it: a bulk refresh would not reach it
    wrong_clock: bool = False  # refused for its timestamp: asked again once the clock was set
    expires: float = 0.0  # monotonic s, of the lifetime that was granted; 0: none
    key_in: int | None = None  # GRE key of what comes down (RFC 5845)
    key_out: int | None = None
    data_port: int = 0  # UDP port of the anchor for data, where that has to be in UDP; 0: as is configured

    @property
    def key(self) -> "RegistrationKey":
        """What it is found by."""
        return RegistrationKey(self.session.who, self.path.binding_id)

    def step(self, step: Step) -> bool:
        """Go where the table says. False: this cannot happen here, and nothing changed."""
        stage = NEXT.get((self.stage, step))
        if stage is None:
            return False
        self.stage = stage
        return True


@dataclass(slots=True, kw_only=True, eq=False)
class Session:
    """A binding update list entry: what one interface of a node was given, and by which paths."""

    who: NodeInterface
    interface: str  # of ours, where the node is; "": a network behind this gateway without a home prefix link
    technology: int
    gateway: IPv6Address | None = None  # link-local address of the node: its delegated prefix is behind it
    delegated_interface: str = ""
    lasting: bool = False  # a site: always here, and never asked whether it is
    present: bool = True
    services: Service = Service.IPV6
    asked: Service = Service.NONE  # by DHCP, and not answered yet
    ipv4_hint: IPv4Address | None = None  # what the node had before, as its DHCP client says
    delegated_hint: Prefix | None = None
    multipath: Multipath = Multipath.UNKNOWN
    gre: bool = False
    policy: str = ""
    handoff: int = 0  # how the node came
    prefixes: tuple[HomeNetworkPrefix, ...] = ()  # as the anchor gave them, or as they are known before
    moved: tuple[HomeNetworkPrefix, ...] = ()  # of other sessions of the node, moved here (RFC 7864 3.2.2)
    ipv4: IPv4Interface | None = None
    releasing: IPv4Interface | None = None  # the node gave it back, and the anchor has not said yet that it knows
    default_router: IPv4Address | None = None
    delegated: tuple[Prefix, ...] = ()
    announced: bool = False  # the anchor has accepted the service selection (RFC 5149 3: in the first update)
    flows: tuple[Option, ...] | None = None  # what the anchor has accepted last; None: nothing, or not known
    flows_asked: tuple[Option, ...] = ()  # what it was asked last, accepted or not
    refresh_before: float | None = None  # s, laid down by the anchor (RFC 8127 3.1.1), as the next two
    first_retry: float | None = None
    last_retry: float | None = None
    reclaimed_at: float = -inf  # monotonic s: asked back, or to be asked back, from another gateway
    reclaim_after: float = 0.0  # s that this waits after the next contest, doubles with each
    registrations: dict[int, Registration] = field(default_factory=dict)  # by BID, 0 for the only one
    bound: dict[Prefix, Path] = field(default_factory=dict)  # as the data path was told
    given: dict[Wants, Prefix] = field(default_factory=dict)  # as DHCP was told

    def of(self, *stages: Stage) -> list[Registration]:
        """The registrations in one of these stages."""
        return [item for item in self.registrations.values() if item.stage in stages]

    @property
    def node(self) -> str:
        """MN-Identifier."""
        return self.who.node

    @property
    def registered(self) -> bool:
        """Whether the anchor has accepted it by at least one path."""
        return bool(self.of(Stage.REGISTERED))

    @property
    def home_prefixes(self) -> tuple[HomeNetworkPrefix, ...]:
        """All that is routed to the node's link, what was moved here included."""
        return (*self.prefixes, *self.moved)


class RegistrationKey(NamedTuple):
    """What deadlines are about."""

    who: NodeInterface
    binding_id: int


class BindingUpdateList:
    """The sessions of one gateway, and the questions that wait for an answer."""

    def __init__(self) -> None:
        self._sessions: dict[NodeInterface, Session] = {}
        self._of_node: dict[str, dict[NodeInterface, Session]] = {}
        self._waiting: dict[int, Registration] = {}

    def __iter__(self) -> Iterator[Session]:
        return iter(list(self._sessions.values()))

    def __len__(self) -> int:
        return len(self._sessions)

    def get(self, who: NodeInterface) -> Session | None:
        """The session of an interface."""
        return self._sessions.get(who)

    def of(self, node: str) -> list[Session]:
        """The sessions of a node."""
        return list(self._of_node.get(node, {}).values())

    def add(self, session: Session) -> None:
        """Keep a session."""
        self._sessions[session.who] = session
        self._of_node.setdefault(session.node, {})[session.who] = session

    def drop(self, session: Session) -> None:
        """Forget a session and what was asked for it."""
        for item in session.registrations.values():
            self.answered(item)
        self._sessions.pop(session.who, None)
        of_node = self._of_node.get(session.node, {})
        of_node.pop(session.who, None)
        if not of_node:
            self._of_node.pop(session.node, None)

    # --- questions ---

    def ask(self, item: Registration, sequence_number: int, question: Question) -> None:
        """An update leaves: its number finds the registration when the answer comes."""
        self.answered(item)
        item.sequence_number, item.question = sequence_number, question
        self._waiting[sequence_number] = item

    def answered(self, item: Registration) -> None:
        """Nothing waits for an answer any more."""
        if item.question is not None:
            self._waiting.pop(item.sequence_number, None)
            item.question = None

    def waiting(self, sequence_number: int) -> Registration | None:
        """The registration whose update had this number."""
        return self._waiting.get(sequence_number)

    def waiting_of(self, node: str) -> list[Registration]:
        """All registrations of a node that wait for an answer."""
        return [item for session in self.of(node) for item in session.registrations.values() if item.question]
