"""Which paths to the anchor are in use by any session: those are probed, and while there is one the anchor is asked
whether it lives (RFC 5847 3)."""

from collections import Counter
from typing import NamedTuple

from signaling.actions import Action, TunnelEnd
from signaling.deadlines import SOON
from signaling.node_interface import NodeInterface
from signaling.pmip.binding_update_list import Session, Stage
from signaling.pmip.heartbeats import Heartbeats
from signaling.pmip.path_monitor import PathMonitor, Way
from signaling.pmip.uplinks import UplinkPath


class Use(NamedTuple):
    """How sessions use a path. data_port: of the anchor, where data has to be in UDP; else 0."""

    path: UplinkPath
    data_port: int

    @property
    def watched(self) -> bool:
        """The only path there is need not be, but a NAT forgets one that carries nothing."""
        return bool(self.path.binding_id or self.data_port)

    @property
    def binding_id(self) -> int:
        """BID, as tunnels have it."""
        return self.path.binding_id or 1


class WatchedPaths:
    """The paths of one gateway, each with the number of sessions that use it so."""

    def __init__(self, anchor: str, monitor: PathMonitor, heartbeats: Heartbeats) -> None:
        """anchor: name of the peer at the other end."""
        self._anchor = anchor
        self._monitor = monitor
        self._heartbeats = heartbeats
        self._users: Counter[Use] = Counter()
        self._used_by: dict[NodeInterface, frozenset[Use]] = {}
        self._changed: dict[NodeInterface, Session] = {}
        self.next_wake: float | None = None  # monotonic s

    def follow(self, session: Session, now: float) -> None:
        """The registrations of a session have changed: look at them as soon as its packets have passed."""
        self._changed[session.who] = session
        if self.next_wake is None:
            self.next_wake = now + SOON

    def wake(self, now: float) -> list[Action]:
        """Look at the sessions that have changed."""
        if self.next_wake is None or now < self.next_wake:
            return []
        changed, self._changed, self.next_wake = self._changed, {}, None
        return [action for session in changed.values() for action in self._look_at(session, now)]

    def _look_at(self, session: Session, now: float) -> list[Action]:
        before = self._used_by.pop(session.who, frozenset())
        uses = frozenset(Use(item.path, item.data_port) for item in session.of(Stage.REGISTERED))
        if uses:
            self._used_by[session.who] = uses
        if uses == before:
            return []
        # the new ones first: one that only has another label goes on as it is
        actions = [action for use in uses - before for action in self._begin(use, now)]
        for use in before - uses:
            self._release(use)
        self._ask_anchor(now)
        return actions

    def _begin(self, use: Use, now: float) -> list[Action]:
        self._users[use] += 1
        if self._users[use] > 1 or not use.watched:
            return []
        path = use.path
        # without GRE keys: those are a session's, the path is everybody's
        tunnel = TunnelEnd(
            remote=path.anchor,
            local=path.source,
            port=use.data_port,
            binding_id=use.binding_id,
            label=path.label,
            weight=path.weight,
        )
        way = Way(tunnel=tunnel, peer=self._anchor, source=path.source, destination=path.anchor)
        return self._monitor.watch(way, now)

    def _release(self, use: Use) -> None:
        self._users[use] -= 1
        if self._users[use]:
            return
        del self._users[use]
        # the same binding may go on from another address already
        if use.watched and all(other.binding_id != use.binding_id for other in self._users):
            self._monitor.forget((self._anchor, use.binding_id))

    def _ask_anchor(self, now: float) -> None:
        use = next(iter(self._users), None)
        if use is None:
            self._heartbeats.stop(self._anchor)
        else:
            self._heartbeats.keep(self._anchor, use.path.anchor, 0, use.path.source, now)
