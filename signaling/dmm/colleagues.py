"""What the record of a node says that this CMD did not write: of a run before this one, or of another CMD (records.py).

    the node came to a router of another CMD   our anchors are told; when they have confirmed, their sessions say so
    an anchor of another CMD has confirmed     the S-MAAR is told of it, if it is ours
    nobody serves the node any more            our anchors let it go too, unless it turns up in a moment
    it does without a prefix of our anchors    they are told so

Another CMD does not tell us of refreshes. As long as a record is good our anchors hear once a lifetime that it is.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from signaling.actions import Action
from signaling.deadlines import Deadlines
from signaling.dma.session import Session, State
from signaling.dmm.database import NOWHERE, Anchorage, Binding
from signaling.dmm.records import Records
from signaling.settings import CmdSettings, Counters

if TYPE_CHECKING:
    from signaling.dmm.central import CentralDatabase

ENDED_FOR = 30.0  # s in which the store may still show a session that is over
MAX_RESTORED = 20  # nodes a second whose anchors are told again after a start (RFC 8885 6)
UNSERVED_FOR = 5.0  # s between two routers of another CMD, as the store shows it


class Colleagues:
    """Whoever else writes records, or did."""

    def __init__(self, settings: CmdSettings, counters: Counters, records: Records, central: "CentralDatabase") -> None:
        self._settings = settings
        self._counters = counters
        self._records = records
        self._central = central
        self._ended: dict[str, int] = {}  # node -> timestamp of a session that was over a moment ago
        self._forget_ended: Deadlines[str] = Deadlines()
        self._to_tell: Deadlines[str] = Deadlines()  # nodes whose anchors have not confirmed, or shall hear it again

    @property
    def next_wake(self) -> float | None:
        """The earliest deadline, monotonic s."""
        return min((at for at in (self._to_tell.next, self._forget_ended.next) if at is not None), default=None)

    def restore(self, sessions: Iterable[Session], now: float) -> None:
        """Take up what a run before this one knew. Anchors that had not confirmed are told, not all at once."""
        of_node: dict[str, list[Session]] = {}
        for session in sessions:
            of_node.setdefault(session.node, []).append(session)
        told_at = now
        for found in of_node.values():
            binding = self._records.binding(found, now)
            if binding is None:
                continue
            self._central.adopt(binding)
            if binding.serving != NOWHERE and self._untold(binding):
                told_at += 1 / MAX_RESTORED
                self._to_tell.set(binding.node, told_at)

    def ended(self, binding: Binding, now: float) -> None:
        """Its session is over here; the store may not know yet."""
        self._to_tell.cancel(binding.node)
        self._ended[binding.node] = binding.claimed
        self._forget_ended.set(binding.node, now + ENDED_FOR)

    def merge(self, node: str, sessions: Iterable[Session], now: float) -> list[Action]:
        """The record of a node changed."""
        found = list(sessions)
        ours, theirs = self._central.bindings.get(node), self._records.binding(found, now)
        let_go = self._let_go(ours, found, now) if ours is not None else []
        newest = self._ended.get(node, -1) + 1 if ours is None else ours.claimed
        if theirs is None or theirs.serving == NOWHERE:
            return let_go + (self._unserved(ours, theirs, now) if ours is not None or not newest else [])
        if theirs.claimed < newest:
            return let_go
        if ours is None or theirs.claimed > ours.claimed:
            return let_go + self._follow(ours, theirs, now)
        return let_go + self._compare(ours, theirs, now)

    def wake(self, now: float) -> list[Action]:
        """Tell anchors what they have not confirmed, or have not heard for long."""
        actions: list[Action] = []
        for node in self._forget_ended.due(now):
            del self._ended[node]
        for node in self._to_tell.due(now):
            binding = self._central.bindings.get(node)
            if binding is None or binding.serving == NOWHERE:
                continue
            ours = self._records.is_ours(binding.serving)
            items = self._untold(binding) if ours else self._records.ours(binding.previous())
            actions += [action for item in items for action in self._central.tell(binding, item, now)]
            if not ours:
                self._to_tell.set(node, now + self._settings.binding_lifetime)
        return actions

    def _untold(self, binding: Binding) -> list[Anchorage]:
        return self._records.ours(binding.untold())

    def _follow(self, before: Binding | None, binding: Binding, now: float) -> list[Action]:
        """The node is where the record says: our anchors are told."""
        for item in self._records.ours(before.anchorages.values() if before is not None else ()):
            here = binding.anchorages.get(item.prefix)
            if here is not None:  # of our anchors nobody knows better
                here.told, here.dlif = item.told, item.dlif
        self._counters["cmd.followed"] += 1
        self._central.adopt(binding)
        if not self._records.is_ours(binding.serving):
            self._to_tell.set(binding.node, now + self._settings.binding_lifetime)
        return [action for item in self._untold(binding) for action in self._central.tell(binding, item, now)]

    def _compare(self, ours: Binding, theirs: Binding, now: float) -> list[Action]:
        """They agree where the node is. Of its older anchors those know that speak to them."""
        actions: list[Action] = []
        for item in [item for item in ours.anchorages.values() if item.prefix not in theirs.anchorages]:
            if not self._records.is_ours(item.anchor):
                self._central.bindings.release(ours, item.prefix)
        for prefix, item in theirs.anchorages.items():
            known = ours.anchorages.get(prefix)
            if known is None and self._central.bindings.holder(prefix) is None:
                self._central.bindings.anchor(ours, item)
                tell = self._records.is_ours(item.anchor) and item.told != ours.serving and item.anchor != ours.serving
                actions += self._central.tell(ours, item, now) if tell else []
            elif known is None or self._records.is_ours(item.anchor) or known.told == item.told:
                continue
            else:
                known.told = item.told
            if item.told == ours.serving != item.anchor:
                actions += self._central.told_by_another(ours, ours.anchorages[prefix], now)
        if not self._records.is_ours(ours.serving):
            self._central.expire_at(ours, theirs.expires)
        return actions

    def _unserved(self, ours: Binding | None, theirs: Binding | None, now: float) -> list[Action]:
        """No router serves the node, or none that the store knows of yet."""
        if ours is None:
            if theirs is not None:
                self._central.adopt(theirs)
            return []
        if ours.serving != NOWHERE and not self._records.is_ours(ours.serving):
            self._central.expire_at(ours, min(ours.expires, now + UNSERVED_FOR))
        return []

    def _let_go(self, ours: Binding, sessions: Iterable[Session], now: float) -> list[Action]:
        """Prefixes of our anchors that their node does without, as another CMD was told; unless it is back there."""
        released = (session.prefix for session in sessions if session.state is State.RELEASED)
        items = (ours.anchorages[prefix] for prefix in released if prefix in ours.anchorages)
        actions: list[Action] = []
        for item in self._records.ours(items):
            back = item.anchor == ours.serving
            actions += self._records.save(ours, item) if back else self._central.let_go(ours, item, now)
        return actions
