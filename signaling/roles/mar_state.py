"""All that a MAR knows, as plain values: what one process of a router hands to the next, which goes on with it.

Times are monotonic s, which all processes of a machine share. Keys, peers, pools and lifetimes are not in it: who takes
it up has a configuration of its own. Tokens of rate limits are not either: they begin anew.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import IPv6Address, IPv6Network
from typing import TypeVar

from signaling.access_link import Attachment, Link, Offer
from signaling.actions import Action
from signaling.deadlines import Deadlines, Key
from signaling.dma.binding_cache import Entry
from signaling.dma.contests import Contest
from signaling.dma.update_list import Progress, Registration
from signaling.dmm.enrolment import CentralState
from signaling.errors import MalformedMessage, Reason
from signaling.flow_rules import FlowRule
from signaling.iana import RouterPreference
from signaling.node_interface import NodeInterface
from signaling.pmip.heartbeats import HeartbeatState
from signaling.reminders import Errand, Reminders
from signaling.roles.mar import Mar
from signaling.settings import Address
from signaling.wire import mobility_header
from signaling.wire.message import Message
from signaling.wire.notification import UpdateNotification
from signaling.wire.revocation import BindingRevocationAck, BindingRevocationIndication

Said = TypeVar("Said", bound=Message)
NOBODY = IPv6Address(0)  # messages are written for nobody: only their octets count


@dataclass(frozen=True, slots=True, kw_only=True)
class Indicated:
    """An indication or notification as octets, and the router it came from, or goes to."""

    octets: bytes
    router: Address


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """A message of ours that nobody has answered yet."""

    said: Indicated
    number: int
    care_of: Address
    tries: int
    due: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """The newest signed message of a kind from a peer: those that are not newer are replays."""

    peer: str
    kind: str
    timestamp: int
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Drain:
    """That a router drains."""

    since: float
    until: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """All messages of a kind that wait for answers, and the last number that was used."""

    pending: tuple[Pending, ...]
    last_number: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowState:
    """Orders about prefixes and flows. policies: those that were given by order."""

    handed: Mapping[tuple[str, IPv6Network], dict[str, str]]
    policies: Mapping[str, tuple[FlowRule, ...]]
    notifications: Asked
    deaf: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeState:
    """What is known of nodes that are here, beside their attachments."""

    offers: Mapping[NodeInterface, list[Offer]]
    find_again: Mapping[str, float]
    succession: Mapping[str, float]
    arriving: tuple[NodeInterface, ...]
    contests: Mapping[NodeInterface, list[Indicated]]
    disputed: Mapping[NodeInterface, bool]
    lost_since: Mapping[str, dict[IPv6Network, float]]
    elsewhere: Mapping[str, tuple[bytes, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class MarState:
    """One MAR between two turns."""

    entries: tuple[Entry, ...]
    registrations: tuple[Registration, ...]
    last_number: int | None
    last_stamp: int
    registrar_due: Mapping[IPv6Network, float]
    central: CentralState | None
    lost_anchors: tuple[Address, ...]
    silent_since: Mapping[IPv6Network, float]
    revocations: Asked
    mute: tuple[Address, ...]
    heartbeats: HeartbeatState
    flows: FlowState
    links: tuple[Link, ...]
    nodes: tuple[Attachment, ...]
    here: NodeState
    link_timers: tuple[
        Mapping[str, float], Mapping[str, float], Mapping[NodeInterface, float], Mapping[NodeInterface, float]
    ]
    tunnel_mtu: int
    preference: RouterPreference
    heard: tuple[Heard, ...]
    drain: Drain | None
    counters: Mapping[str, int]


def state_of(mar: Mar, now: float) -> MarState:
    """What it knows now."""
    draining = mar.draining
    central = mar.central
    return MarState(
        entries=tuple(mar.anchor.cache),
        registrations=tuple(mar.registrar.all()),
        last_number=mar.registrar.last_number,
        last_stamp=mar.clock.last_stamp,
        registrar_due=_of_prefixes(mar.registrar.deadlines.all()),
        central=central.known() if central is not None else None,
        lost_anchors=tuple(mar.registrar.lost_anchors),
        silent_since=mar.idle.since(now),
        revocations=_asked(mar.anchor.revoker.reminders),
        mute=tuple(mar.anchor.revoker.mute),
        heartbeats=mar.peers.heartbeats.known(),
        flows=_flow_state(mar),
        links=tuple(mar.access.links.values()),
        nodes=tuple(mar.access.attached.values()),
        here=_node_state(mar),
        link_timers=tuple(timer.all() for timer in mar.access.timers),  # type: ignore[arg-type]
        tunnel_mtu=mar.access.tunnel_mtu,
        preference=mar.access.preference,
        heard=tuple(Heard(peer=peer, kind=kind.__name__, timestamp=stamp, at=at)
                    for (peer, kind), (stamp, at) in mar.reception.newest.items()),
        drain=None if draining.since is None else Drain(since=draining.since, until=draining.until),
        counters=dict(mar.counters),
    )


def take_up(mar: Mar, state: MarState, now: float) -> list[Action]:
    """A MAR that knows nothing yet goes on where another process was. Nobody is told anything.

    Returns what the driver has to know: flow policies, and who is on which link. Raises MalformedMessage: then the
    MAR is of no use.
    """
    policies = mar.anchor.take_up(state.entries)
    mar.registrar.take_up(state.registrations, state.last_number)
    if mar.central is not None and state.central is not None:
        mar.central.go_on(state.central)
    mar.registrar.lost_anchors.update(state.lost_anchors)
    visiting = (item.prefix for item in state.registrations if item.progress is Progress.VISITED)
    unwatched = {prefix: now for prefix in visiting if prefix not in state.silent_since}
    mar.idle.take_up({**state.silent_since, **unwatched})
    mar.clock.last_stamp = state.last_stamp
    for prefix, at in state.registrar_due.items():
        mar.registrar.deadlines.set(prefix, at)
    reminders, expect = mar.anchor.revoker.reminders, mar.anchor.visited_routers.take_up
    _take_up_asked(reminders, state.revocations, BindingRevocationIndication, expect)
    mar.anchor.revoker.mute.update(state.mute)
    mar.peers.heartbeats.take_up(state.heartbeats)
    mar.peers.take_up(now)
    _take_up_flows(mar, state.flows)
    mar.access.links.update((link.interface, link) for link in state.links)
    for item in state.nodes:
        who = NodeInterface(item.node, item.link_layer)
        mar.access.attached[who] = item
        mar.here.add(who)
    mar.access.tunnel_mtu, mar.access.preference = state.tunnel_mtu, state.preference
    for timer, due in zip(mar.access.timers, state.link_timers, strict=True):
        _set(timer, due)  # type: ignore[arg-type]
    _take_up_nodes(mar, state.here)
    kinds = {kind.__name__: kind for kind in KINDS}
    mar.reception.newest.update(
        ((item.peer, kinds[item.kind]), (item.timestamp, item.at)) for item in state.heard if item.kind in kinds
    )
    if state.drain is not None:
        mar.draining.begin(state.drain.until - now, now)
        mar.draining.since = state.drain.since
    mar.counters.update(state.counters)
    return [*policies, *(mar.access.expect(item) for item in state.nodes)]


KINDS: tuple[type[Message], ...] = (BindingRevocationIndication, BindingRevocationAck, *mobility_header.KINDS.values())


def _of_prefixes(due: Mapping[IPv6Network, float] | Mapping[str | IPv6Network, float]) -> dict[IPv6Network, float]:
    return {key: at for key, at in due.items() if isinstance(key, IPv6Network)}


def _set(timer: Deadlines[Key], due: Mapping[Key, float]) -> None:
    for key, at in due.items():
        timer.set(key, at)


# --- nodes, and flows ---


def _node_state(mar: Mar) -> NodeState:
    return NodeState(
        offers=dict(mar.offers.told),
        find_again=mar.claims.find_again.all(),
        succession=mar._succession.all(),
        arriving=tuple(mar.claims.arriving),
        contests={
            who: [_indicated(contest.indication, contest.source) for contest in contests]
            for who, contests in mar.contests.open.items()
        },
        disputed=dict(mar._disputed),
        lost_since=mar.claims.lost_since,
        elsewhere=mar.claims.elsewhere,
    )


def _take_up_nodes(mar: Mar, state: NodeState) -> None:
    mar.offers.told.update(state.offers)
    _set(mar.claims.find_again, state.find_again)
    _set(mar._succession, state.succession)
    mar.claims.arriving.update(state.arriving)
    for who, indications in state.contests.items():
        said = ((_said(each, BindingRevocationIndication), each.router) for each in indications)
        mar.contests.open[who] = [Contest(*each) for each in said]
    mar._disputed.update(state.disputed)
    mar.claims.lost_since.update(state.lost_since)
    mar.claims.elsewhere.update(state.elsewhere)


def _flow_state(mar: Mar) -> FlowState:
    configured = mar.settings.policies
    return FlowState(
        handed=mar.flows.handed,
        policies={name: rules for name, rules in mar.flows.policies.items() if rules != configured.get(name)},
        notifications=_asked(mar.notifier.reminders),
        deaf=tuple(mar.notifier.deaf),
    )


def _take_up_flows(mar: Mar, state: FlowState) -> None:
    mar.flows.handed.update(state.handed)
    mar.flows.policies.update(state.policies)
    _take_up_asked(mar.notifier.reminders, state.notifications, UpdateNotification, mar.flows.take_up)
    mar.notifier.deaf.update(state.deaf)


# --- messages that wait for answers ---


def _asked(reminders: Reminders[Said]) -> Asked:
    due = reminders.deadlines.all()
    pending = tuple(
        Pending(
            said=_indicated(errand.message, errand.destination),
            number=errand.number,
            care_of=errand.care_of,
            tries=errand.tries,
            due=due[errand.number],
        )
        for errand in reminders.errands
    )
    return Asked(pending=pending, last_number=reminders.last_number)


def _take_up_asked(
    reminders: Reminders[Said], state: Asked, kind: type[Said], expect: Callable[[Said], None]
) -> None:
    """expect: told each message, to hear of its answer."""
    errands: list[tuple[Errand[Said], float]] = []
    for item in state.pending:
        message, router = _said(item.said, kind), item.said.router
        errand = Errand(
            message=message, number=item.number, destination=router, care_of=item.care_of, tries=item.tries
        )
        errands.append((errand, item.due))
        expect(message)
    reminders.take_up(errands, state.last_number)


def _indicated(message: Message, router: Address) -> Indicated:
    return Indicated(octets=mobility_header.encode(message, NOBODY, NOBODY, checksum=False), router=router)


def _said(saved: Indicated, kind: type[Said]) -> Said:
    message = mobility_header.decode(saved.octets, NOBODY, NOBODY, verify_checksum=False)
    if not isinstance(message, kind):
        raise MalformedMessage("pending message", at=0, why=f"it is a {type(message).__name__}", reason=Reason.FIELD)
    return message
