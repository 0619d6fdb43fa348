"""Which paths to the anchor are in use by any session: those are probed, and while there is one the anchor is asked
whether it lives (RFC 5847 3)."""

from collections import Counter

from signaling.actions import Action, TunnelEnd
from signaling.deadlines import SOON
from signaling.pmip.binding_update_list import NodeInterface, Session, Stage
from signaling.pmip.heartbeats import Heartbeats
from signaling.pmip.path_monitor import PathMonitor, Way
from signaling.pmip.uplinks import UplinkPath


class WatchedPaths:
    """The paths of one gateway, each with the number of sessions that use it."""

    def __init__(self, anchor: str, monitor: PathMonitor, heartbeats: Heartbeats) -> None:
        """anchor: name of the peer at the other end."""
        self._anchor = anchor
        self._monitor = monitor
        self._heartbeats = heartbeats
        self._users: Counter[UplinkPath] = Counter()
        self._used_by: dict[NodeInterface, frozenset[UplinkPath]] = {}
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
        paths = frozenset(item.path for item in session.of(Stage.REGISTERED))
        if paths:
            self._used_by[session.who] = paths
        if paths == before:
            return []
        for path in before - paths:
            self._release(path)
        actions = [action for path in paths - before for action in self._use(path, now)]
        self._ask_anchor(now)
        return actions

    def _use(self, path: UplinkPath, now: float) -> list[Action]:
        self._users[path] += 1
        if self._users[path] > 1 or not path.binding_id:
            return []
        # without GRE keys: those are a session's, the path is everybody's
        tunnel = TunnelEnd(
            remote=path.anchor,
            local=path.source,
            binding_id=path.binding_id,
            label=path.label,
            weight=path.weight,
        )
        way = Way(tunnel=tunnel, peer=self._anchor, source=path.source, destination=path.anchor)
        return self._monitor.watch(way, now)

    def _release(self, path: UplinkPath) -> None:
        self._users[path] -= 1
        if self._users[path]:
            return
        del self._users[path]
        # the same binding may go on from another address already
        if path.binding_id and all(other.binding_id != path.binding_id for other in self._users):
            self._monitor.forget((self._anchor, path.binding_id))

    def _ask_anchor(self, now: float) -> None:
        path = next(iter(self._users), None)
        if path is None:
            self._heartbeats.stop(self._anchor)
        else:
            self._heartbeats.keep(self._anchor, path.anchor, 0, path.source, now)
