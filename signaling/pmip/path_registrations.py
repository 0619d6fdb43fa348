"""The paths of sessions: which are registered, and what it means that uplinks come and go (RFC 8278 3, 4.4)."""


from signaling.actions import Action, Note
from signaling.pmip.binding_update_list import (
    Multipath,
    Registration,
    Session,
    Stage,
    Step,
)
from signaling.pmip.session_keeper import SessionKeeper
from signaling.pmip.update_sender import NOT_CHANGED, SAME_INTERFACE, UNKNOWN
from signaling.pmip.uplinks import UplinkPath

ON_THE_WAY = (Stage.PENDING, Stage.REGISTERED, Stage.REFUSED, Stage.BARRED)  # no other path need be tried
GONE = (Stage.STRANDED, Stage.DEREGISTERING)


class PathRegistrations:
    """Every session by every path there is, as far as the anchor can do that."""

    def __init__(self, keeper: SessionKeeper) -> None:
        self._keeper = keeper
        self._sender = keeper.sender

    def first(self, session: Session, now: float) -> list[Action]:
        """One path alone: what the anchor can do and which prefixes there are is not known yet (RFC 8278 4.4)."""
        live = self._keeper.uplinks.live()
        path = next((path for number, path in live.items() if number not in session.registrations), None)
        if path is None:
            return [Note("no-uplink", {"node": session.node})]
        item = self.add(session, path, UNKNOWN if session.announced else session.handoff)
        # what an earlier life of this gateway registered is not known, so it goes
        item.overwrite = self._keeper.entries.of(session.node) == [session]
        return self._sender.ask(item, now, handoff=item.handoff)

    def add(self, session: Session, path: UplinkPath, handoff: int) -> Registration:
        """A further registration of a session, not asked for yet."""
        item = Registration(session=session, path=path, handoff=handoff)
        session.registrations[path.binding_id] = item
        return item

    def further(self, session: Session, now: float) -> list[Action]:
        """All the paths there are, at once, with the prefixes that were learned on the first."""
        if session.multipath is not Multipath.ON or not (session.present and session.registered):
            return []
        actions: list[Action] = []
        for number, path in self._keeper.uplinks.live().items():
            if number not in session.registrations:
                item = self.add(session, path, NOT_CHANGED)
                actions += self._sender.ask(item, now, handoff=NOT_CHANGED)
        return actions

    def reconcile(self, session: Session, live: dict[int, UplinkPath], now: float) -> list[Action]:
        """What uplinks that came or went mean for a session: tunnels first, then what the anchor is told."""
        moved: list[Registration] = []
        lost: list[Registration] = []
        for item in list(session.registrations.values()):
            path = self._path_of(item, live)
            if path is None:
                lost += [item] if self._lose(item, live, now) else []
            elif path != item.path or (item.stage in GONE and session.present):
                moved += [item] if self._move(item, path) else []
        actions = self._keeper.settled(session, now)
        for item in lost:
            actions += self.take_back_by(item, self._another(item, live), now)
        for item in moved:
            actions += self._sender.ask(item, now, handoff=item.handoff)
        if session.present and not session.of(*ON_THE_WAY):
            return actions + self.first(session, now)
        return actions + self.further(session, now)

    def _path_of(self, item: Registration, live: dict[int, UplinkPath]) -> UplinkPath | None:
        """Where a registration belongs now: to its uplink, or, if it is the only one there may be, to any."""
        if item.session.multipath is Multipath.OFF:
            return live.get(item.path.binding_id) or next(iter(live.values()), None)
        return live.get(item.path.binding_id)

    def _move(self, item: Registration, path: UplinkPath) -> bool:
        """The binding goes on by this path; nothing is taken back. True: the anchor has to be asked."""
        if item.stage is Stage.REGISTERED and path.is_way_of(item.path):  # it carries packets while that is asked
            item.path, item.handoff = path, NOT_CHANGED
            return True
        if not item.step(Step.MOVED):
            return False
        self._keeper.entries.answered(item)
        self._sender.deadlines.cancel(item.key)
        registrations = item.session.registrations
        del registrations[item.path.binding_id]
        registrations[path.binding_id] = item
        item.path = path
        item.handoff = SAME_INTERFACE if item.session.multipath is Multipath.OFF else NOT_CHANGED
        return item.stage is Stage.PENDING

    def _lose(self, item: Registration, live: dict[int, UplinkPath], now: float) -> bool:
        """The uplink of a registration is gone. True: the anchor has to be told."""
        self._keeper.entries.answered(item)
        item.step(Step.STRANDED if self._another(item, live) is None else Step.LOST)
        if item.stage is Stage.NONE:
            self._keeper.remove(item)
        elif item.stage is Stage.STRANDED:
            self._sender.deadlines.set(item.key, max(now, item.expires))
        return item.stage is Stage.DEREGISTERING

    def _another(self, item: Registration, live: dict[int, UplinkPath]) -> UplinkPath | None:
        """A path of the same session that stands."""
        others = item.session.of(Stage.REGISTERED, Stage.LEAVING)
        return next(
            (it.path for it in others if it is not item and it.path == live.get(it.path.binding_id)), None
        )

    def take_back_by(self, item: Registration, by: UplinkPath | None, now: float) -> list[Action]:
        """Tell the anchor by this path; without one it finds out when the lifetime ends."""
        return self._sender.take_back(item, by, now) if by else self._keeper.end(item, Step.DUE, now)
