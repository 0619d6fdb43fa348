"""All that a MAR knows, as plain values: what one process of a router hands to the next, which goes on with it.

Times are monotonic s, which all processes of a machine share. Keys, peers, pools and lifetimes are not in it: who takes
it up has a configuration of its own. Tokens of rate limits are not either: they begin anew.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv6Address, IPv6Network

from signaling.access_link import Attachment, Link, Offer
from signaling.actions import Action
from signaling.deadlines import Deadlines, Key
from signaling.dma.binding_cache import Entry
from signaling.dma.update_list import Registration
from signaling.errors import MalformedMessage, Reason
from signaling.iana import RouterPreference
from signaling.reminders import Errand
from signaling.roles.mar import Contest, Mar
from signaling.settings import Address
from signaling.wire import mobility_header
from signaling.wire.message import Message
from signaling.wire.revocation import BindingRevocationAck, BindingRevocationIndication

NOBODY = IPv6Address(0)  # messages are written for nobody: only their octets count


@dataclass(frozen=True, slots=True, kw_only=True)
class Indicated:
    """An indication as octets, and the router it came from, or goes to."""

    octets: bytes
    router: Address


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingRevocation:
    """A revocation of ours that nobody has answered yet."""

    indication: Indicated
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
class MarState:
    """One MAR between two turns."""

    entries: tuple[Entry, ...]
    registrations: tuple[Registration, ...]
    last_number: int | None
    last_stamp: int
    registrar_due: Mapping[IPv6Network, float]
    revocations: tuple[PendingRevocation, ...]
    last_revocation: int | None
    links: tuple[Link, ...]
    nodes: tuple[Attachment, ...]
    offers: Mapping[str, list[Offer]]
    link_timers: tuple[Mapping[str, float], Mapping[str, float], Mapping[str, float], Mapping[str, float]]
    tunnel_mtu: int
    preference: RouterPreference
    find_again: Mapping[str, float]
    contests: Mapping[str, list[Indicated]]
    heard: tuple[Heard, ...]
    drain: Drain | None
    counters: Mapping[str, int]


def state_of(mar: Mar) -> MarState:
    """What it knows now."""
    draining = mar.draining
    return MarState(
        entries=tuple(mar.anchor.cache),
        registrations=tuple(mar.registrar.all()),
        last_number=mar.registrar.last_number,
        last_stamp=mar.clock.last_stamp,
        registrar_due=mar.registrar.deadlines.all(),
        revocations=_revocations(mar),
        last_revocation=mar.anchor.revoker.reminders.last_number,
        links=tuple(mar.access.links.values()),
        nodes=tuple(mar.access.attached.values()),
        offers=dict(mar._offered),
        link_timers=tuple(timer.all() for timer in mar.access.timers),  # type: ignore[arg-type]
        tunnel_mtu=mar.access.tunnel_mtu,
        preference=mar.access.preference,
        find_again=mar._find_again.all(),
        contests={
            node: [_indicated(contest.indication, contest.source) for contest in contests]
            for node, contests in mar._contests.items()
        },
        heard=tuple(Heard(peer=peer, kind=kind.__name__, timestamp=stamp, at=at)
                    for (peer, kind), (stamp, at) in mar.reception.newest.items()),
        drain=None if draining.since is None else Drain(since=draining.since, until=draining.until),
        counters=dict(mar.counters),
    )


def take_up(mar: Mar, state: MarState, now: float) -> list[Action]:
    """A MAR that knows nothing yet goes on where another process was. Nobody is told anything.

    Returns what the driver has to know: who is on which link. Raises MalformedMessage: then the MAR is of no use.
    """
    mar.anchor.take_up(state.entries)
    mar.registrar.take_up(state.registrations, state.last_number)
    mar.clock.last_stamp = state.last_stamp
    _set(mar.registrar.deadlines, state.registrar_due)
    mar.anchor.revoker.reminders.take_up(
        [(_errand(pending), pending.due) for pending in state.revocations], state.last_revocation
    )
    mar.access.links.update((link.interface, link) for link in state.links)
    mar.access.attached.update((item.node, item) for item in state.nodes)
    mar.access.tunnel_mtu, mar.access.preference = state.tunnel_mtu, state.preference
    mar._offered.update(state.offers)
    for timer, due in zip(mar.access.timers, state.link_timers, strict=True):
        _set(timer, due)
    _set(mar._find_again, state.find_again)
    for node, indications in state.contests.items():
        mar._contests[node] = [Contest(_indication(each), each.router) for each in indications]
    kinds = {kind.__name__: kind for kind in KINDS}
    mar.reception.newest.update(
        ((item.peer, kinds[item.kind]), (item.timestamp, item.at)) for item in state.heard if item.kind in kinds
    )
    if state.drain is not None:
        mar.draining.begin(state.drain.until - now, now)
        mar.draining.since = state.drain.since
    mar.counters.update(state.counters)
    return [mar.access.expect(item) for item in state.nodes]


KINDS: tuple[type[Message], ...] = (BindingRevocationIndication, BindingRevocationAck, *mobility_header.KINDS.values())


def _set(timer: Deadlines[Key], due: Mapping[Key, float]) -> None:
    for key, at in due.items():
        timer.set(key, at)


def _revocations(mar: Mar) -> tuple[PendingRevocation, ...]:
    reminders = mar.anchor.revoker.reminders
    return tuple(
        PendingRevocation(
            indication=_indicated(errand.message, errand.destination),
            number=errand.number,
            care_of=errand.care_of,
            tries=errand.tries,
            due=reminders.deadlines.all()[errand.number],
        )
        for errand in reminders.errands
    )


def _errand(pending: PendingRevocation) -> Errand[BindingRevocationIndication]:
    return Errand(
        message=_indication(pending.indication),
        number=pending.number,
        destination=pending.indication.router,
        care_of=pending.care_of,
        tries=pending.tries,
    )


def _indicated(indication: BindingRevocationIndication, router: Address) -> Indicated:
    return Indicated(octets=mobility_header.encode(indication, NOBODY, NOBODY, checksum=False), router=router)


def _indication(saved: Indicated) -> BindingRevocationIndication:
    message = mobility_header.decode(saved.octets, NOBODY, NOBODY, verify_checksum=False)
    if not isinstance(message, BindingRevocationIndication):
        raise MalformedMessage("pending revocation", at=0, why=f"it is a {type(message).__name__}", reason=Reason.FIELD)
    return message
