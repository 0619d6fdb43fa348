"""A mobile access gateway toward its anchor: sessions of nodes, each registered by every path (RFC 5213 6, RFC 8278).

The order of things in every turn: what an event means for the list, then what the data path has to do about it
(`session_paths`), then what the anchor is told. A prefix is bound in the turn it is accepted, before the node hears of
it; a lost path leaves the tunnels before the anchor is told.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Address, IPv6Network

from signaling.actions import Action, Note, SetPolicy
from signaling.events import AddressAsked, AddressReleased
from signaling.flow_rules import FlowRule
from signaling.handoff import handoff_of_arrival
from signaling.iana import HandoffIndicator
from signaling.node_interface import NodeInterface
from signaling.pmip.anchor_answers import AnchorAnswers
from signaling.pmip.binding_update_list import (
    Multipath,
    Registration,
    Service,
    Session,
    Stage,
    Step,
)
from signaling.pmip.leases import SERVICE_OF, lease, no_lease
from signaling.pmip.path_registrations import PathRegistrations
from signaling.pmip.session_keeper import CONFIRM_PRESENCE, HEARD_LATELY, SessionKeeper
from signaling.pmip.update_sender import NOT_CHANGED, UNKNOWN
from signaling.settings import NodeProfile, Sharing, Uplink, Wants
from signaling.wire.binding_ack import BindingAck
from signaling.wire.options.prefix import HomeNetworkPrefix

ASKED_JUST_NOW = 1.0  # s: a solicitation so shortly after an update is about the same arrival
FIRST_RECLAIM, LAST_RECLAIM = 1.0, 60.0  # s between two times that a session is asked back from another gateway
FORGIVEN = 2 * LAST_RECLAIM  # s without a contest after which the next one is the first
RENEW_RATE = 200.0  # sessions a second that are registered again at an anchor that was restarted


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """A node that came by an interface."""

    who: NodeInterface
    interface: str  # of ours
    technology: int
    link_local: IPv6Address | None = None
    handoff: HandoffIndicator | None = None  # where somebody knows
    prefixes: tuple[IPv6Network, ...] = ()  # that somebody knows
    services: Service = Service.IPV6
    delegated_interface: str = ""
    lasting: bool = False
    pardoned: bool = False  # an administrator wants it to be asked for, whatever the anchor said before


class Gateway:
    """The sessions at one gateway."""

    def __init__(self, keeper: SessionKeeper) -> None:
        self.entries = keeper.entries
        self.uplinks = keeper.uplinks
        self._settings = keeper.settings
        self._counters = keeper.counters
        self._watched = keeper.watched
        self._keeper = keeper
        self._sender = keeper.sender
        self._paths = PathRegistrations(keeper)
        self._answers = AnchorAnswers(keeper, self._paths)

    @property
    def next_wake(self) -> float | None:
        """The earliest deadline, monotonic s."""
        parts = (self._sender.deadlines.next, self._watched.next_wake)
        return min((at for at in parts if at is not None), default=None)

    # --- what nodes do ---

    def arrive(self, arrival: Arrival, now: float) -> list[Action]:
        """A node is here: register it, or what it left behind a moment ago."""
        node = arrival.who.node
        if arrival.pardoned:
            self._keeper.denied.pop(node, None)
        session = self.entries.get(arrival.who)
        if session is not None:
            return self._return(session, arrival, now)
        services = arrival.services & ~self._keeper.denied.get(node, Service.NONE)
        if self._keeper.anchor is None or not services or len(self.entries) >= self._settings.max_bindings:
            self._counters["gateway.not-asked"] += 1
            return [Note("not-registered", {"node": node, "anchor": self._settings.anchor, "wants": services})]
        session = self._session_of(arrival, services, now)
        self.entries.add(session)
        return self._paths.first(session, now)

    def _session_of(self, arrival: Arrival, services: Service, now: float) -> Session:
        """A session as far as it is known before the anchor was asked; of an interface just left it goes on."""
        node = arrival.who.node
        profile = self._keeper.profiles.get(node) or self._keeper.profiles.get("") or NodeProfile(node="")
        if (self._settings.ipv4 and not arrival.lasting) or (profile.ipv4_address is not None and profile.node):
            services |= Service.IPV4 & ~self._keeper.denied.get(node, Service.NONE)
        others = self.entries.of(node)
        left = next((other for other in reversed(others) if not other.present), None)
        beside = [other for other in others if other.present]
        shared = self._shared(profile, beside)
        session = Session(
            who=arrival.who,
            interface=arrival.interface,
            technology=arrival.technology,
            gateway=arrival.link_local,
            delegated_interface=arrival.delegated_interface,
            lasting=arrival.lasting,
            services=services,
            multipath=self._keeper.terms.multipath,
            gre=self._keeper.terms.gre,
            policy=self._keeper.policy_of(node),
            handoff=handoff_of_arrival(
                told=arrival.handoff,
                switched=left is not None,
                beside=bool(beside),
                beside_heard=any(self._is_heard(other, now) for other in beside),
                shares=bool(shared),
            ),
        )
        known = arrival.prefixes or (profile.prefixes if not others else ())
        session.prefixes = tuple(HomeNetworkPrefix(prefix=prefix) for prefix in known)
        if session.handoff == HandoffIndicator.HANDOFF_BETWEEN_TWO_DIFFERENT_INTERFACES and left and not known:
            self._go_on(left, session)
        elif session.handoff == HandoffIndicator.ATTACHMENT_OVER_A_NEW_INTERFACE_SHARING_PREFIXES and not known:
            session.prefixes = shared
        return session

    def _shared(self, profile: NodeProfile, beside: list[Session]) -> tuple[HomeNetworkPrefix, ...]:
        if profile.sharing is Sharing.UNIQUE_PREFIX:
            return ()
        return next((other.prefixes for other in beside if other.prefixes), ())

    def _is_heard(self, session: Session, now: float) -> bool:
        return session.lasting or self._keeper.heard_since(session.who, now - HEARD_LATELY, now)

    def _go_on(self, left: Session, session: Session) -> None:
        """The session continues by another interface: nothing is taken back, what was bound is still."""
        session.prefixes, session.ipv4, session.default_router = left.prefixes, left.ipv4, left.default_router
        session.delegated, session.services = left.delegated, left.services
        session.bound, session.given = left.bound, left.given
        for item in left.registrations.values():
            self._sender.deadlines.cancel(item.key)
        self.entries.drop(left)

    def _return(self, session: Session, arrival: Arrival, now: float) -> list[Action]:
        """It is here again, or at another link of ours; only what was being taken back is asked for again."""
        session.present, session.interface, session.gateway = True, arrival.interface, arrival.link_local
        actions: list[Action] = []
        if arrival.pardoned and session.of(Stage.BARRED):
            session.services |= arrival.services
            for item in session.of(Stage.BARRED):
                item.step(Step.REVOKED)
                self._keeper.remove(item)
            actions += self._paths.first(session, now)
        for item in session.of(Stage.LEAVING, Stage.DEREGISTERING):
            if item.path == self.uplinks.live().get(item.path.binding_id):
                item.handoff = UNKNOWN
                actions += self._sender.ask(item, now, handoff=UNKNOWN)
        return self._keeper.settled(session, now) + actions

    def solicited(self, who: NodeInterface, now: float) -> list[Action]:
        """A node that is here solicits: it may have been elsewhere since, so the anchor is asked anew."""
        session = self.entries.get(who)
        actions: list[Action] = []
        for item in session.of(Stage.REGISTERED) if session else ():
            if item.question is None and item.sent[-1] < now - ASKED_JUST_NOW:
                item.handoff = UNKNOWN
                actions += self._sender.ask(item, now, handoff=UNKNOWN)
        return actions

    def reached_at(self, who: NodeInterface, link_local: IPv6Address, now: float) -> list[Action]:
        """This is the link-local address of a node: what is for it goes there."""
        session = self.entries.get(who)
        if session is None or session.gateway == link_local:
            return []
        session.gateway = link_local
        return self._keeper.settled(session, now)

    def heard(self, who: NodeInterface, now: float) -> list[Action]:
        """A node proved that it is here: what waited for that goes on."""
        session = self.entries.get(who)
        actions: list[Action] = []
        for item in list(session.registrations.values()) if session else ():
            if item.question is None and item.contested and item.proof_after < now:
                actions += self._due(item, now)
        return actions

    def leave(self, who: NodeInterface, now: float) -> list[Action]:
        """A node has left: the anchor is told at once (RFC 5213 6.9.1.4), and holds what comes for it from then on.

        The session is kept for a moment: the node may be back, or go on here by another interface.
        """
        session = self.entries.get(who)
        if session is None:
            return []
        session.present, session.asked = False, Service.NONE
        actions: list[Action] = []
        for item in list(session.registrations.values()):
            if not item.step(Step.LEFT):
                continue
            self.entries.answered(item)
            if item.stage is Stage.NONE:
                self._keeper.remove(item)
                continue
            if self._sender.may_send(item, now):  # not each time that a carrier flaps
                actions += self._sender.take_back(item, item.path, now)
            self._sender.deadlines.set(item.key, now + self._settings.leave_guard)
        return actions + self._keeper.settled(session, now)

    def wants(self, event: AddressAsked, now: float) -> list[Action]:
        """A node asks for IPv4, or for a prefix of its own network: the session is extended by it, if need be."""
        session = self.entries.get(NodeInterface(event.node, event.link_layer))
        service = SERVICE_OF[event.wants]
        if session is None or service & self._keeper.denied.get(event.node, Service.NONE):
            return [no_lease(event)]
        if event.wants in session.given:
            return [lease(session, event.wants, self._settings.valid_lifetime)]
        session.asked |= service
        session.gateway = event.link_local or session.gateway
        if isinstance(event.hint, IPv4Network) and event.wants is Wants.IPV4:
            session.ipv4_hint = event.hint.network_address
        elif event.hint is not None and event.wants is Wants.DELEGATED:
            session.delegated_hint = event.hint
        if service in session.services:
            return []  # the answer is on its way
        session.services |= service
        return self._keeper.ask_more(session, now)

    def released(self, event: AddressReleased, now: float) -> list[Action]:
        """A node gave back what it was leased: the session goes on without it, and so do its updates."""
        session = self.entries.get(NodeInterface(event.node, event.link_layer))
        if session is None or session.given.get(event.wants) != event.prefix:
            return []
        session.services &= ~SERVICE_OF[event.wants]
        if event.wants is Wants.IPV4:
            session.releasing, session.ipv4 = session.ipv4, None
            session.ipv4_hint = session.default_router = None
            return self._keeper.settled(session, now) + self._keeper.release_ipv4(session, now)
        session.delegated, session.delegated_hint = (), None
        return self._keeper.settled(session, now) + self._keeper.ask_more(session, now)

    # --- uplinks and policies ---

    def uplinks_changed(self, now: float) -> list[Action]:
        """Uplinks came or went: paths are taken out at once, and registered by themselves."""
        live = self.uplinks.live()
        return [action for session in self.entries for action in self._paths.reconcile(session, live, now)]

    def set_uplinks(self, uplinks: tuple[Uplink, ...], now: float) -> list[Action]:
        """Other uplinks are configured."""
        self.uplinks.configure(uplinks)
        return self.uplinks_changed(now)

    def anchor_changed(self, now: float) -> list[Action]:
        """The anchor may have other addresses: its paths lead there."""
        self._keeper.find_anchor()
        return self.uplinks_changed(now)

    def set_policy(self, name: str, rules: tuple[FlowRule, ...], now: float) -> list[Action]:
        """Other rules for the flows of all sessions with this policy: ours at once, and the anchor is told."""
        self._sender.policies[name] = rules
        self._keeper.policies_told[name] = rules
        return [SetPolicy(name=name, rules=rules), *self._choose_policies(now)]

    def set_profiles(self, profiles: Iterable[NodeProfile], now: float) -> list[Action]:
        """Other profiles: the policies of sessions follow at once, all else when a node comes next."""
        self._keeper.know(profiles)
        return self._choose_policies(now)

    def _choose_policies(self, now: float) -> list[Action]:
        actions: list[Action] = []
        for session in self.entries:
            session.policy = self._keeper.policy_of(session.node)
            actions += self._keeper.settled(session, now) + self._keeper.same_flows(session, now)
        return actions

    # --- what the anchor says ---

    def confirm(self, ack: BindingAck, now: float) -> list[Action]:
        """An authenticated acknowledgement of the anchor came in."""
        return self._answers.confirm(ack, now)

    def revoke(self, session: Session, prefixes: Iterable[IPv6Network], now: float) -> list[Action]:
        """The anchor has taken these prefixes back; all of them: the session is over (RFC 5846 9.1)."""
        gone = set(prefixes)
        session.prefixes = tuple(option for option in session.prefixes if option.prefix not in gone)
        if session.prefixes:
            return self._keeper.settled(session, now)
        return self._keeper.forget(session, now)

    def revoke_ipv4(self, session: Session, now: float) -> list[Action]:
        """The anchor has taken the IPv4 home address back, and nothing else."""
        session.ipv4, session.services = None, session.services & ~Service.IPV4
        return self._keeper.settled(session, now) if session.services else self._keeper.forget(session, now)

    def revoke_path(self, item: Registration, now: float) -> list[Action]:
        """The anchor has taken one care-of address back."""
        actions = self._keeper.end(item, Step.REVOKED, now)
        session = item.session
        return actions if session.registrations else actions + self._keeper.forget(session, now)

    def renew(self, sessions: Iterable[Session], now: float) -> list[Action]:
        """Register again what the anchor may have forgotten, at a bounded pace."""
        at = now
        for session in sessions:
            self._make_due(session, at)
            at += 1.0 / RENEW_RATE
        return self.wake(now)

    def _make_due(self, session: Session, at: float) -> None:
        """Each path is registered again by itself, with all that the anchor was told before."""
        session.flows, session.announced = None, False
        for item in session.of(Stage.REGISTERED):
            item.renew = True
            self._sender.deadlines.set(item.key, at)

    def reclaim(self, session: Session, now: float) -> list[Action]:
        """The anchor has given the session to another gateway, but the node is here: it is asked for back.

        At once the first time; if the other one contests that, ever more seldom: the node may be at both.
        """
        if now < session.reclaimed_at:
            return []
        if now > session.reclaimed_at + FORGIVEN:
            session.reclaim_after = 0.0
        at = session.reclaimed_at = now + session.reclaim_after
        session.reclaim_after = min(max(FIRST_RECLAIM, 2 * session.reclaim_after), LAST_RECLAIM)
        for item in session.of(Stage.REGISTERED):
            item.handoff, item.contested = UNKNOWN, True
            if at > now:  # by then it may have left; now it is here
                item.proof_after = at
        self._counters["gateway.reclaimed"] += 1
        self._make_due(session, at)
        return self.wake(now)

    def anchor_restarted(self, now: float) -> list[Action]:
        """The anchor lost its state: every session is registered again, and what it can do is found out anew."""
        self._keeper.terms.multipath = Multipath.UNKNOWN
        return self.renew(list(self.entries), now)

    def move_flows(self, session: Session, prefixes: tuple[HomeNetworkPrefix, ...], now: float) -> list[Action]:
        """The anchor sends these prefixes of other sessions here; those it leaves out are no more (RFC 7864 4.2)."""
        own = {option.prefix for option in session.prefixes}
        session.moved = tuple(option for option in prefixes if option.prefix not in own)
        return self._keeper.settled(session, now)

    # --- time ---

    def wake(self, now: float) -> list[Action]:
        """Repeat, refresh, retry and take back what is due."""
        actions: list[Action] = []
        for key in self._sender.deadlines.due(now):
            session = self.entries.get(key.who)
            item = session.registrations.get(key.binding_id) if session else None
            actions += self._due(item, now) if item else []
        return actions + self._watched.wake(now)

    def clock_set(self, now: float) -> list[Action]:
        """The clock was set: what was refused for its timestamp is asked again."""
        actions: list[Action] = []
        for session in self.entries:
            for item in session.of(Stage.REFUSED):
                if item.wrong_clock:
                    actions += self._retry(item, now)
        return actions

    def _due(self, item: Registration, now: float) -> list[Action]:
        due = DUE.get(item.stage)
        return due(self, item, now) if due else []

    def _ask_again(self, item: Registration, now: float) -> list[Action]:
        """No answer yet: again while the node is here; if no path was ever answered, by the next one too."""
        if not self._keeper.present(item, now):
            return []
        self._counters["gateway.repeated"] += 1
        session = item.session
        actions = self._sender.ask_again(item, now, handoff=item.handoff)
        spare = [path for number, path in self.uplinks.live().items() if number not in session.registrations]
        if spare and not session.registered and session.multipath is not Multipath.OFF:
            item = self._paths.add(session, spare[0], session.handoff)
            actions += self._sender.ask(item, now, handoff=item.handoff)
        return actions

    def _refresh(self, item: Registration, now: float) -> list[Action]:
        """Only a node that is known to be here is refreshed (RFC 5213 6.9.1.3)."""
        session = item.session
        if now >= item.expires:
            return self._expired(item, now)
        if item.question is not None and item.question.releases:
            return self._sender.release_ipv4(item, now)
        others = [other for other in session.of(Stage.REGISTERED) if other is not item]
        if any(other.question and other.question.bulk for other in others):
            self._sender.deadlines.set(item.key, min(now + CONFIRM_PRESENCE, item.expires))
            return []
        if not self._keeper.present(item, now):
            return []
        handoff = item.handoff if item.contested else NOT_CHANGED
        if item.question is None:
            bulk = self._settings.bulk_refresh and bool(others) and not item.renew
            actions = self._sender.ask(item, now, handoff=handoff, bulk=bulk)
        else:
            # unanswered: perhaps the path is dead, so it does not speak for the others any more
            actions = self._sender.ask_again(item, now, handoff=handoff)
        again = self._sender.deadlines.of(item.key)
        if again is not None and again > item.expires:
            self._sender.deadlines.set(item.key, item.expires)  # the anchor does not wait for our next try
        return actions

    def _expired(self, item: Registration, now: float) -> list[Action]:
        item.step(Step.EXPIRED)
        item.expires, item.handoff = 0.0, UNKNOWN
        fields: dict[str, object] = {"node": item.session.node, "bid": item.path.binding_id}
        actions: list[Action] = [Note("registration-expired", fields), *self._keeper.settled(item.session, now)]
        return actions + self._retry(item, now)

    def _retry(self, item: Registration, now: float) -> list[Action]:
        """Ask anew, if the node is here."""
        item.wrong_clock = False
        return self._sender.ask(item, now, handoff=item.handoff) if self._keeper.present(item, now) else []

    def _take_back(self, item: Registration, now: float) -> list[Action]:
        if item.taken_back:
            return self._keeper.end(item, Step.DUE, now)
        item.step(Step.DUE)
        live = self.uplinks.live()
        own = live.get(item.path.binding_id)
        return self._paths.take_back_by(item, own if own == item.path else next(iter(live.values()), None), now)

    def _give_up(self, item: Registration, now: float) -> list[Action]:
        return self._keeper.end(item, Step.DUE, now) + self._paths.further(item.session, now)

    def _strand(self, item: Registration, now: float) -> list[Action]:
        return self._keeper.end(item, Step.EXPIRED, now)

    def drain(self, now: float) -> list[Action]:
        """We are going: take back every registration at once, waiting for no answer."""
        actions: list[Action] = []
        for session in self.entries:
            live = session.of(Stage.REGISTERED, Stage.PENDING, Stage.LEAVING)
            actions += [action for item in live for action in self._sender.take_back(item, item.path, now)]
            actions += self._keeper.forget(session, now)
        return actions


DUE: dict[Stage, Callable[[Gateway, Registration, float], list[Action]]] = {
    Stage.PENDING: Gateway._ask_again,
    Stage.REGISTERED: Gateway._refresh,
    Stage.REFUSED: Gateway._retry,
    Stage.STRANDED: Gateway._strand,
    Stage.LEAVING: Gateway._take_back,
    Stage.DEREGISTERING: Gateway._give_up,
}
