"""TCP connections of prefixes whose node is here: which are open, though nothing may pass for long.

A prefix is used as long as packets pass. A connection may be silent for hours and go on afterwards, so its prefix is
still in use; who wants to know asks here. What is seen is what a middle box sees (RFC 5382, RFC 9293):

    SYN ---------> begun ---- a segment that acknowledges, once the node has spoken ----> open
    any other -------^                                                                     |
                                                     FIN of both ends: closed <------------+--> RST: reset

* open: the node has sent something, and somebody acknowledges. A stream that was not seen to begin is open with the
  first segment of the node that acknowledges. A SYN that nobody answers, one that a scanner leaves half open, and
  whatever is sent to a node that does not answer, never is.
* It stays so for `limit` after its last packet: RFC 5382 REQ-5 wants two hours and four minutes at least.
* closed, reset and begun are remembered for four minutes (REQ-5: transitory), so that what is still on its way
  afterwards begins nothing. A reset after which both ends still acknowledge was none: it is open again.
* SYN on ports that are closed or reset begins anew. FIN of one end leaves it open: the other may go on.
* A segment without a whole TCP header, like a later fragment, says nothing of its connection.

Bounded: SETS * WAYS connections. In a full set a new one takes the place of one that is not open, the oldest first.
Where all are open it is not followed, and `see` says so: its prefix has to be taken for used all the same, as an open
connection that is forgotten would be cut, and one that is believed for too long only costs a tunnel.

Clocks: 0.1 s. _fast/connections.pyx does the same for many workers.
"""

from __future__ import annotations

from dataclasses import dataclass

from engine.model.flows import mix

SETS, WAYS = 8192, 8
TRANSITORY = 2400  # 0.1 s, RFC 5382 REQ-5
FIN, SYN, RST, ACK = 1, 2, 4, 16  # flags of a segment, RFC 9293 3.1
UP, DOWN, OPEN, FIN_UP, FIN_DOWN, RESET = 1, 2, 4, 8, 16, 32  # state, bits; the first two are directions too
BOTH, CLOSED = UP | DOWN, FIN_UP | FIN_DOWN


@dataclass(slots=True)
class Connection:
    """One that somebody has said something of."""

    key: int
    prefix: int
    state: int
    seen: int  # clock of its last packet


class Connections:
    """Those of all prefixes, by hashes of their flows and prefixes (64 bits)."""

    def __init__(self) -> None:
        self.limit = 0
        self.crowded = 0  # packets of open connections that found no place
        self._sets: dict[int, list[Connection | None]] = {}

    def follow(self, limit: int) -> None:
        """Connections are open for so long after their last packet; 0: none is followed."""
        self.limit = limit

    def see(self, prefix: int, flow: int, way: int, flags: int, clock: int) -> bool:
        """A segment passed, UP from the node or DOWN. False: its connection is open, and there is no place for it."""
        key = mix(flow ^ prefix) >> 8
        ways = self._sets.setdefault(_set_of(key), [None] * WAYS)
        at = next((n for n in _order(key) if (each := ways[n]) and each.key == key), None)
        before = ways[at] if at is not None else None
        state = 0 if before is None or self._is_over(before, clock) else before.state
        after = next_state(state, way, flags)
        if not after:
            return True  # of a stream nobody knows, and nobody need know
        if at is None:
            at = self._place(ways, key, clock)
        if at is None:
            self.crowded += bool(after & OPEN)
            return not after & OPEN
        seen = before.seen if before and after == state and _is_closed(after) else clock
        ways[at] = Connection(key, prefix >> 32, after, seen)
        return True

    def count(self, prefix: int, clock: int) -> tuple[int, int | None]:
        """How many of a prefix are open; age of the last packet of any of them, None: none is."""
        ages = [
            _age(each, clock)
            for ways in self._sets.values()
            for each in ways
            if each and each.prefix == prefix >> 32 and self._is_open(each, clock)
        ]
        return len(ages), min(ages, default=None)

    def _place(self, ways: list[Connection | None], key: int, clock: int) -> int | None:
        """What is free, else the oldest that is not open. None: all are."""
        free = [n for n in _order(key) if ways[n] is None]
        rest = [n for n in _order(key) if (each := ways[n]) and not self._is_open(each, clock)]
        return free[0] if free else max(rest, key=lambda n: _age(ways[n], clock), default=None)

    def _is_over(self, connection: Connection, clock: int) -> bool:
        return _age(connection, clock) >= (self.limit if connection.state & OPEN else TRANSITORY)

    def _is_open(self, connection: Connection, clock: int) -> bool:
        return bool(connection.state & OPEN) and not self._is_over(connection, clock)


def next_state(state: int, way: int, flags: int) -> int:
    """The state of a connection after one more segment. 0: there is none."""
    closed, reset = _is_closed(state), bool(state & RESET)
    if flags & RST:
        return RESET if state and not closed else state
    if flags & SYN:
        if closed or reset:
            return state if flags & ACK else way  # the same ports again
        return state | way
    if flags & FIN:
        state |= way | way << 3
        return CLOSED if _is_closed(state) else state
    if closed or not flags & ACK:
        return state
    state |= way
    if reset:
        return state & ~RESET | OPEN if state & BOTH == BOTH else state  # neither end has believed it
    return state | OPEN if state & UP else state


def _is_closed(state: int) -> bool:
    return state & CLOSED == CLOSED


def _age(connection: Connection | None, clock: int) -> int:
    return max(0, clock - connection.seen) if connection else 0


def _set_of(key: int) -> int:
    return (key >> 12) % SETS


def _order(key: int) -> list[int]:
    """Each connection has a way that is looked at first."""
    return [(way + (key >> 48)) % WAYS for way in range(WAYS)]
