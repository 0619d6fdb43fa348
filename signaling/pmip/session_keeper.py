"""The sessions of a gateway and what every change of one brings along: the part that all others of it stand on.

Whoever changes a session calls `settled` in the same turn: the data path, DHCP and the watch over the paths follow.
"""

from collections.abc import Callable, Iterable

from signaling.actions import Action, Note, SetPolicy
from signaling.door import Door
from signaling.flow_rules import FlowRule
from signaling.node_interface import NodeInterface
from signaling.pmip.accepted_terms import Terms
from signaling.pmip.binding_update_list import (
    BindingUpdateList,
    Multipath,
    Registration,
    Service,
    Session,
    Stage,
    Step,
)
from signaling.pmip.leases import changed_leases
from signaling.pmip.session_paths import changes
from signaling.pmip.update_sender import NOT_CHANGED, UpdateSender
from signaling.pmip.uplinks import Uplinks
from signaling.pmip.watched_paths import WatchedPaths
from signaling.settings import Clock, Counters, MagSettings, NodeProfile

CONFIRM_PRESENCE = 1.0  # s: while a node is being asked whether it is there, look again after this
HEARD_LATELY = 10.0  # s: a node heard so long ago is taken to be there


class SessionKeeper:
    """The list, the sender of updates, the uplinks, and what is known of the anchor and of nodes it refuses."""

    def __init__(
        self,
        settings: MagSettings,
        door: Door,
        clock: Clock,
        counters: Counters,
        *,
        watched: WatchedPaths,
        heard_since: Callable[[NodeInterface, float, float], bool],
    ) -> None:
        """heard_since(who, since, now): whether an interface was heard since then; if not, it is being asked."""
        self.entries = BindingUpdateList()
        self.sender = UpdateSender(settings, door, clock, self.entries)
        self.uplinks = Uplinks(settings.uplinks, settings.address)
        self.settings = settings
        self.clock = clock
        self.counters = counters
        self.heard_since = heard_since
        self.terms = Terms(gre=settings.gre_keys)
        self.denied: dict[str, Service] = {}  # node -> what is not asked for until an administrator acts
        self.policies_told: dict[str, tuple[FlowRule, ...]] = {}
        self.watched = watched
        self._door = door
        self.find_anchor()
        self.know(settings.profiles)

    def find_anchor(self) -> None:
        """The anchor is the peer of that name, at the addresses it has now."""
        self.anchor = self._door.named(self.settings.anchor)
        self.uplinks.lead_to(self.anchor)

    def know(self, profiles: Iterable[NodeProfile]) -> None:
        """These are the profiles of nodes."""
        self.profiles = {profile.node: profile for profile in profiles}

    def policy_of(self, node: str) -> str:
        """Name of the flow policy of a node, "" for none."""
        profile = self.profiles.get(node) or self.profiles.get("")
        names = (profile.policy if profile else "", "default")
        return next((name for name in names if self.sender.policies.get(name)), "")

    def present(self, item: Registration, now: float) -> bool:
        """Whether the node is here; if that has to be found out first, look again in a moment."""
        since = max(item.proof_after, now - HEARD_LATELY)
        session = item.session
        present = session.lasting or self.heard_since(session.who, since, now)
        if not present:
            self.sender.deadlines.set(item.key, now + CONFIRM_PRESENCE)
        return present

    def deny(self, session: Session, services: Service) -> None:
        """The anchor does not want to be asked for these again, whatever the node does."""
        session.services &= ~services
        if len(self.denied) >= self.settings.max_bindings:
            del self.denied[next(iter(self.denied))]  # the oldest: to ask once more costs less than to remember all
        self.denied[session.node] = self.denied.get(session.node, Service.NONE) | services

    def ask_more(self, session: Session, now: float) -> list[Action]:
        """What a session asks for has changed: one path says so for all, once nothing else waits for an answer."""
        items = session.of(Stage.REGISTERED)
        idle = all(item.question is None for item in session.registrations.values())
        return self.sender.ask(items[0], now, handoff=NOT_CHANGED) if items and idle else []

    def release_ipv4(self, session: Session, now: float) -> list[Action]:
        """The node gave its IPv4 home address back: one path says so, once nothing else waits for an answer."""
        items = session.of(Stage.REGISTERED)
        idle = all(item.question is None for item in session.registrations.values())
        return self.sender.release_ipv4(items[0], now) if items and idle else []

    def same_flows(self, session: Session, now: float) -> list[Action]:
        """The anchor is told the flows anew when they differ from those it was told, once it has answered all else."""
        items = session.of(Stage.REGISTERED)
        waits = any(item.question for item in session.registrations.values())
        if not items or waits or session.multipath is not Multipath.ON:
            return []
        if self.sender.flows(items[0]) == session.flows_asked:
            return []
        return self.sender.ask(items[0], now, handoff=NOT_CHANGED)

    # --- the end of things, and what follows from any change ---

    def bar(self, item: Registration) -> None:
        """It is not asked for again."""
        item.step(Step.BARRED)
        self.sender.deadlines.cancel(item.key)

    def keep_only(self, item: Registration) -> None:
        """No multipath: one path remains."""
        for other in list(item.session.registrations.values()):
            if other is not item:
                other.step(Step.REVOKED)
                self.remove(other)

    def end(self, item: Registration, step: Step, now: float) -> list[Action]:
        """A registration is over, and with the last one of a node that left, the session."""
        item.step(step)
        self.remove(item)
        return self.settled(item.session, now)

    def remove(self, item: Registration) -> None:
        """Take a registration out of the list."""
        self.entries.answered(item)
        self.sender.deadlines.cancel(item.key)
        item.session.registrations.pop(item.path.binding_id, None)

    def forget(self, session: Session, now: float) -> list[Action]:
        """The session is over."""
        for item in list(session.registrations.values()):
            item.step(Step.REVOKED)
            self.remove(item)
        actions = self.settled(session, now)
        self.entries.drop(session)
        return actions

    def settled(self, session: Session, now: float, *, answered: Service = Service.NONE) -> list[Action]:
        """What follows from the state of a session: for the data path, for DHCP, for who watches its paths.

        answered: services the anchor has just answered for; who asked for them by DHCP is told.
        """
        actions: list[Action] = []
        rules = self.sender.policies.get(session.policy)
        if rules and self.policies_told.get(session.policy) != rules:
            self.policies_told[session.policy] = rules
            actions.append(SetPolicy(name=session.policy, rules=rules))
        actions += changes(session)
        actions += changed_leases(session, answered, self.settings.valid_lifetime)
        self.watched.follow(session, now)
        if not session.present and not session.registrations:
            self.entries.drop(session)
            actions.append(Note("session-over", {"node": session.node}))
        return actions
