"""Moving prefixes, and flows of them, between MARs by order: `move NODE PREFIX [--to ROUTER] [--policy NAME]`.

Given at the anchor of the prefix it may name any peer; given where the node is now, this router or the anchor. An order
is checked as a whole before anything is done; what cannot be done it says in one line.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv6Network
from typing import TYPE_CHECKING

from router.errors import RouterError
from router.flow_policies import unfit_for_mar
from signaling.actions import Action
from signaling.dma.session import Session, State
from signaling.dma.sharers import SHARED
from signaling.dma.sharing import of_prefix
from signaling.flow_rules import FlowRule
from signaling.settings import Address

if TYPE_CHECKING:
    from router.daemon import Router


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """What is wanted. to: name of a router, "": this one. policy: of the flows that are meant, "": the whole prefix."""

    node: str
    prefix: str
    to: str = ""
    policy: str = ""

    def __str__(self) -> str:
        return f"move {self.node} {self.prefix}"


def move(router: "Router", wanted: Move, sessions: Sequence[Session]) -> str:
    """Carry out the order; returns the router it is for. sessions: of the node, in the store. Raises RouterError."""
    cmd, to = router.config.cmd.peer, wanted.to or router.config.name
    if cmd:
        raise RouterError(f"{wanted}: {cmd}, the CMD, says where it is: expected a MAR without one")
    session = _session(wanted, sessions)
    if wanted.policy:
        _check_policy(router, wanted, session.prefix)
    own = router.role.settings.address
    if session.anchor == own:
        todo = _from_anchor(router, wanted, session, to, _places(router, sessions))
    else:
        todo = _from_visited(router, wanted, session, to)
    router.driver.perform(todo)
    return to


def refuse_rules(rules: Sequence[FlowRule], what: str) -> None:
    """Raises RouterError for rules that are not for a MAR."""
    why = unfit_for_mar(rules)
    if why:
        raise RouterError(f"{what}: {why}")


def _session(wanted: Move, sessions: Sequence[Session]) -> Session:
    try:
        prefix = IPv6Network(wanted.prefix)
    except ValueError:
        raise RouterError(f'{wanted}: expected a prefix such as "2001:db8:1000:1::/64"') from None
    if not sessions:
        raise RouterError(f"{wanted}: no router has lent it a prefix: expected a node as `show nodes` has it")
    kept = {session.prefix: session for session in sessions if session.state is not State.RELEASED}
    if prefix in kept:
        return kept[prefix]
    released = any(session.prefix == prefix for session in sessions)
    why = "it was released, as nobody used it" if released else "not a prefix of this node"
    choice = f"expected one of: {', '.join(map(str, kept))}" if kept else "the node has no other one"
    raise RouterError(f"{wanted}: {why}: {choice}")


def _check_policy(router: "Router", wanted: Move, prefix: IPv6Network) -> None:
    rules = router.config.policies.get(wanted.policy)
    if not rules:
        known = ", ".join(router.config.policies)
        cure = f"expected one of: {known}" if known else "this router has none: see policy set"
        raise RouterError(f"{wanted}: no policy {wanted.policy}: {cure}")
    refuse_rules(rules, f"{wanted}: policy {wanted.policy}")
    if not of_prefix(rules, prefix):
        raise RouterError(f"{wanted}: policy {wanted.policy} says nothing about {prefix}")


def _places(router: "Router", sessions: Sequence[Session]) -> list[str]:
    """The routers that have a prefix of the node, so that it is there."""
    return list(dict.fromkeys(_name(router, session.care_of) for session in sessions if session.state in SHARED))


def _from_anchor(router: "Router", wanted: Move, session: Session, to: str, places: Sequence[str]) -> list[Action]:
    now = time.monotonic()
    if to == router.config.name:
        if wanted.policy:
            raise RouterError(f"{wanted}: this router is its anchor: it has all flows that no other one takes")
        if wanted.node not in router.role.here:
            raise RouterError(f"{wanted}: {wanted.node} is not attached here")
        recalled: list[Action] = router.role.recall(session.prefix, now)
        return recalled
    peers = [peer.name for peer in router.config.peers]
    if to not in peers:
        known = ", ".join([router.config.name, *peers])
        raise RouterError(f"{wanted} --to {to}: no such router: expected one of: {known}")
    if to not in places:
        where = f"by the store it is at {', '.join(places) or 'no router'}"
        raise RouterError(f"{wanted} --to {to}: the node is not there: {where}")
    if wanted.policy and to == _name(router, session.care_of):
        raise RouterError(f"{wanted} --to {to}: all of it is there: have it back before: {wanted}")
    handed: list[Action] = router.role.flows.hand(session.prefix, to, wanted.policy, now)
    return handed


def _from_visited(router: "Router", wanted: Move, session: Session, to: str) -> list[Action]:
    now, anchor = time.monotonic(), _name(router, session.anchor)
    if to == anchor:
        if router.role.registrar.get(session.prefix) is None:
            raise RouterError(f"{wanted} --to {to}: nothing of it is here")
        given: list[Action] = router.role.give_back(session.prefix, now)
        return given
    if to != router.config.name:
        known = f"{router.config.name}, {anchor}"
        raise RouterError(f"{wanted} --to {to}: only its anchor {anchor} can do that: expected one of: {known}")
    if wanted.node not in router.role.here:
        raise RouterError(f"{wanted}: {wanted.node} is not attached here")
    here = router.role.registrar.get(session.prefix)
    if wanted.policy and here is not None and not here.shares:
        raise RouterError(f"{wanted}: all of it is here: give it back before: {wanted} --to {anchor}")
    taken: list[Action] = router.role.take(session, wanted.policy, now)
    return taken


def _name(router: "Router", address: Address) -> str:
    if address == router.role.settings.address:
        return router.config.name
    peer = router.role.door.peer(address)
    return peer.name if peer else str(address)
