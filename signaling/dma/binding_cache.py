"""What an anchor knows: one entry for each prefix it has lent, found by prefix and by node.

The rule that holds: an entry exists from the allocation of the prefix until it may be lent again, and its state
only changes along `session.NEXT`.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import IPv6Address, IPv6Network
from math import inf

from signaling.dma.session import NEXT, Happening, Session, State, stored
from signaling.flow_bindings import FlowBinding
from signaling.settings import Address


@dataclass(frozen=True, slots=True, kw_only=True)
class Sharer:
    """A visited router that takes flows of a prefix."""

    care_of: Address
    number: int  # what the data path calls it: a BID from 2 on
    link_layer: bytes  # of the node's interface there
    technology: int
    flows: tuple[FlowBinding, ...]
    expires: float  # monotonic s


@dataclass(slots=True, kw_only=True)
class Entry:
    """A binding cache entry (RFC 6275 9.1, RFC 5213 5.1) of one prefix."""

    node: str
    prefix: IPv6Network
    state: State = State.FREE
    care_of: Address
    link_layer: bytes = b""
    technology: int = 0
    timestamp: int = 0  # of the last accepted update or attachment, 1/65536 s since 1970
    sequence_number: int | None = None  # of the last update accepted without a timestamp
    interface: str = ""  # where the node is, while LOCAL
    gateway: IPv6Address | None = None  # on that interface, as of `Place`
    lent_to: bytes = b""  # link-layer address of the interface that was given the prefix: its addresses are there
    ordered: bool = False  # it is where it is by an order, whichever interface it was given to
    sharers: dict[Address, Sharer] = field(default_factory=dict)  # by care-of address, in the order they came
    share_order: dict[Address, int] = field(default_factory=dict)  # timestamps of their last accepted updates
    expires: float = inf  # monotonic s
    saved_until: float = inf  # monotonic s: the expiry that the store knows
    valid_lifetime: int = 0

    def step(self, happening: Happening) -> bool:
        """Go where the state machine says. False: this cannot happen here, and nothing changed."""
        state = NEXT.get((self.state, happening))
        if state is None:
            return False
        self.state = state
        return True

    def belongs_to(self, link_layer: bytes) -> bool:
        """Whether the prefix comes along with this interface of its node: it has it, or was given it first."""
        return link_layer in (self.link_layer, self.lent_to) or not any(self.link_layer)

    def session(self, anchor: Address, wall_minus_monotonic: float) -> Session:
        """The entry as other routers, and we after a restart, will read it."""
        return Session(
            node=self.node,
            prefix=self.prefix,
            anchor=anchor,
            state=stored(self.state),
            care_of=self.care_of,
            link_layer=self.link_layer,
            technology=self.technology,
            timestamp=self.timestamp,
            expires=self.saved_until + wall_minus_monotonic,
            valid_lifetime=self.valid_lifetime,
            lent_to=self.lent_to,
        )


class BindingCache:
    """Entries by prefix, and the prefixes of each node."""

    def __init__(self) -> None:
        self._entries: dict[IPv6Network, Entry] = {}
        self._of_node: dict[str, dict[IPv6Network, Entry]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(list(self._entries.values()))

    def get(self, prefix: IPv6Network) -> Entry | None:
        """The entry of exactly this prefix."""
        return self._entries.get(prefix)

    def of(self, node: str) -> list[Entry]:
        """All entries of a node, oldest first."""
        return list(self._of_node.get(node, {}).values())

    def add(self, entry: Entry) -> None:
        """A new entry; its prefix must not be there yet."""
        if entry.prefix in self._entries:
            raise KeyError(entry.prefix)
        self._entries[entry.prefix] = entry
        self._of_node.setdefault(entry.node, {})[entry.prefix] = entry

    def remove(self, entry: Entry) -> None:
        """The prefix is free again."""
        del self._entries[entry.prefix]
        of_node = self._of_node[entry.node]
        del of_node[entry.prefix]
        if not of_node:
            del self._of_node[entry.node]
