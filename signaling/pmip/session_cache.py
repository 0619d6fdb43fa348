"""The binding cache of an LMA: sessions by prefix, by IPv4 home address, by node.

    prefix key ----> session                     almost always one
               `---> (session, session)          several interfaces of one node share it (RFC 7864 HI 6)
    node      -----> session | (session, ...)    a tuple only where there are several: most nodes have one
"""

from collections.abc import Iterator

from signaling.pmip.mobility_session import MobilitySession
from signaling.pmip.registration_request import key_of
from signaling.settings import Prefix

Place = MobilitySession | tuple[MobilitySession, ...]
NOBODY: tuple[MobilitySession, ...] = ()


class SessionCache:
    """All sessions of one LMA."""

    def __init__(self) -> None:
        self._by_prefix: dict[int, Place] = {}  # home network and delegated prefixes, by key_of()
        self._by_ipv4: dict[int, Place] = {}
        self._by_node: dict[str, Place] = {}
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[MobilitySession]:
        """All of them, also while some are added and removed."""
        for place in list(self._by_node.values()):
            yield from _all(place)

    def __contains__(self, session: MobilitySession) -> bool:
        return session in self.of(session.node)

    def of(self, node: str) -> tuple[MobilitySession, ...]:
        """All sessions of a node, oldest first."""
        return _all(self._by_node.get(node))

    def only_one_of(self, node: str) -> MobilitySession | None:
        """The one session of a node; None: it has none, or several."""
        place = self._by_node.get(node)
        return place if isinstance(place, MobilitySession) else None

    def holding(self, key: int) -> tuple[MobilitySession, ...]:
        """The sessions that have the home network prefix with this key."""
        return _all(self._by_prefix.get(key))

    def only_holder(self, key: int) -> MobilitySession | None:
        """The one session that has the prefix with this key; None: nobody has it, or several."""
        place = self._by_prefix.get(key)
        return place if isinstance(place, MobilitySession) else None

    def at_ipv4(self, key: int) -> tuple[MobilitySession, ...]:
        """The sessions that have this IPv4 home address."""
        return _all(self._by_ipv4.get(key))

    def sharing(self, session: MobilitySession, prefix: Prefix) -> tuple[MobilitySession, ...]:
        """Every session that has this prefix of the session, itself among them; oldest first."""
        if prefix.version == 4 and prefix not in session.delegated:
            return self.at_ipv4(int(prefix.network_address))
        return self.holding(key_of(prefix))

    def add(self, session: MobilitySession) -> None:
        """A new session, with all it has been given."""
        self._size += 1
        _enter(self._by_node, session.node, session)
        self.index(session)

    def remove(self, session: MobilitySession) -> None:
        """It is over."""
        self._size -= 1
        _leave(self._by_node, session.node, session)
        self.unindex(session)

    def index(self, session: MobilitySession) -> None:
        """Find it by what it has now; after unindex(), when that changes."""
        for prefix in session.prefixes + session.delegated if session.delegated else session.prefixes:
            _enter(self._by_prefix, key_of(prefix), session)
        if session.ipv4_home is not None:
            _enter(self._by_ipv4, int(session.ipv4_home), session)

    def unindex(self, session: MobilitySession) -> None:
        """Find it no more by what it has."""
        for prefix in (*session.prefixes, *session.delegated):
            _leave(self._by_prefix, key_of(prefix), session)
        if session.ipv4_home is not None:
            _leave(self._by_ipv4, int(session.ipv4_home), session)


def _all(place: Place | None) -> tuple[MobilitySession, ...]:
    if place is None:
        return NOBODY
    return place if isinstance(place, tuple) else (place,)


def _enter(index: dict, key: object, session: MobilitySession) -> None:  # type: ignore[type-arg]
    before = index.setdefault(key, session)
    if before is not session:  # oldest first, whatever became of it meanwhile: the data path numbers ways in this order
        index[key] = tuple(sorted((*_all(before), session), key=lambda it: it.number))


def _leave(index: dict, key: object, session: MobilitySession) -> None:  # type: ignore[type-arg]
    rest = tuple(it for it in _all(index.get(key)) if it is not session)
    if not rest:
        index.pop(key, None)
    else:
        index[key] = rest[0] if len(rest) == 1 else rest
