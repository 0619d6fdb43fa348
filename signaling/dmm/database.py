"""What a CMD knows: for each node the router that serves it, and who anchors which of its prefixes (RFC 8885 3.1).

    Binding            node -> Proxy-CoA, the S-MAAR
      Anchorage        one of its prefixes -> the MAAR that anchors it; all but those of the S-MAAR are P-MAARs
                       `told`: the S-MAAR that it has confirmed to deliver the prefix to

It is kept in the session records of any store: the sessions of a node are its anchorages. That of the S-MAAR is LOCAL;
all others are REMOTE, with what their anchor has confirmed as care-of address. So whoever reads the record, this CMD
after a restart or another one of the domain, knows what is still to be told to whom.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from ipaddress import IPv6Address, IPv6Network
from math import inf

from signaling.dma.session import Session, State
from signaling.dmm.dlif import Dlif
from signaling.dmm.previous_list import Previous
from signaling.settings import Address
from signaling.update_request import UpdateRequest

NOWHERE = IPv6Address(0)  # the S-MAAR of a node that no router serves, although some anchor its prefixes


@dataclass(slots=True, kw_only=True)
class Anchorage:
    """One prefix of a node, and what its anchor knows of the node."""

    prefix: IPv6Network
    anchor: Address
    told: Address  # where it delivers the prefix, as it has confirmed; itself: at its own link
    link_layer: bytes
    technology: int
    dlif: Dlif | None = None

    @property
    def previous(self) -> Previous:
        """As the S-MAAR is told of it."""
        return Previous(prefix=self.prefix, anchor=self.anchor, dlif=self.dlif)


@dataclass(slots=True, kw_only=True)
class Question:
    """The last update of the S-MAAR, and how far it is answered."""

    request: UpdateRequest
    waits_for: set[IPv6Network]  # anchors that have not confirmed
    answered: bool = False
    listed: set[IPv6Network] = field(default_factory=set)  # prefixes that answers have named


@dataclass(slots=True, kw_only=True)
class Binding:
    """A binding cache entry of a CMD."""

    node: str
    serving: Address  # Proxy-CoA
    link_layer: bytes = b""
    technology: int = 0
    timestamp: int = 0  # of the last accepted update, 1/65536 s since 1970
    claimed: int = 0  # of the last one by which the node came to where it is
    sequence_number: int | None = None  # of the last update accepted without a timestamp
    expires: float = inf  # monotonic s
    saved_until: float = 0.0  # monotonic s: the expiry that the store knows
    anchorages: dict[IPv6Network, Anchorage] = field(default_factory=dict)  # oldest first
    question: Question | None = None  # None: restored, or read from the store

    def previous(self) -> list[Anchorage]:
        """What is anchored at routers that the node has left."""
        return [item for item in self.anchorages.values() if item.anchor != self.serving]

    def own(self) -> list[Anchorage]:
        """What is anchored at the router where the node is."""
        return [item for item in self.anchorages.values() if item.anchor == self.serving]

    def untold(self) -> list[Anchorage]:
        """What is not delivered yet where the node is, as far as its anchors have confirmed."""
        return [item for item in self.previous() if item.told != self.serving]

    def session(self, item: Anchorage, wall_minus_monotonic: float, valid_lifetime: int) -> Session:
        """An anchorage as the store keeps it."""
        local = item.anchor == self.serving
        return Session(
            node=self.node,
            prefix=item.prefix,
            anchor=item.anchor,
            state=State.LOCAL if local else State.REMOTE,
            care_of=self.serving if local else item.told,
            link_layer=self.link_layer if local else item.link_layer,
            technology=self.technology if local else item.technology,
            timestamp=self.claimed,
            expires=self.saved_until + wall_minus_monotonic,
            valid_lifetime=valid_lifetime,
        )

    @classmethod
    def of(cls, sessions: Iterable[Session]) -> "Binding | None":
        """What a record says; None if it is empty. Expiry is the caller's."""
        oldest_first = sorted(sessions, key=lambda session: session.timestamp)
        if not oldest_first:
            return None
        here = next((session for session in reversed(oldest_first) if session.state is State.LOCAL), None)
        anchorages = {
            session.prefix: Anchorage(
                prefix=session.prefix,
                anchor=session.anchor,
                told=session.care_of,
                link_layer=session.link_layer,
                technology=session.technology,
            )
            for session in oldest_first
        }
        if here is None:
            return cls(node=oldest_first[0].node, serving=NOWHERE, anchorages=anchorages)
        return cls(
            node=here.node,
            serving=here.anchor,
            link_layer=here.link_layer,
            technology=here.technology,
            timestamp=here.timestamp,
            claimed=here.timestamp,
            anchorages=anchorages,
        )


class Database:
    """Bindings by node, and whose each prefix is."""

    def __init__(self) -> None:
        self._bindings: dict[str, Binding] = {}
        self._whose: dict[IPv6Network, str] = {}

    def __len__(self) -> int:
        return len(self._bindings)

    def __iter__(self) -> Iterator[Binding]:
        return iter(list(self._bindings.values()))

    def get(self, node: str) -> Binding | None:
        """Of a node: found by its identifier alone, whatever prefix an update names."""
        return self._bindings.get(node)

    def holder(self, prefix: IPv6Network) -> Binding | None:
        """The binding that has this prefix."""
        node = self._whose.get(prefix)
        return None if node is None else self._bindings[node]

    def add(self, binding: Binding) -> None:
        """In place of any before of that node."""
        self.remove(binding.node)
        self._bindings[binding.node] = binding
        self._whose |= dict.fromkeys(binding.anchorages, binding.node)

    def remove(self, node: str) -> None:
        """Nothing is known of the node any more."""
        binding = self._bindings.pop(node, None)
        for prefix in binding.anchorages if binding else ():
            del self._whose[prefix]

    def anchor(self, binding: Binding, item: Anchorage) -> None:
        """The node has this prefix, the newest of all."""
        binding.anchorages.pop(item.prefix, None)
        binding.anchorages[item.prefix] = item
        self._whose[item.prefix] = binding.node

    def release(self, binding: Binding, prefix: IPv6Network) -> None:
        """The node has it no more."""
        del binding.anchorages[prefix]
        del self._whose[prefix]
