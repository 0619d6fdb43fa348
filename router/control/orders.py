"""What an operator may have a running router do: other flow policies, a revocation, another configuration.

Each order is checked as a whole before anything is done; what it cannot do it says in one line, and nothing changed.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import TYPE_CHECKING, cast

from router.config import KEYS, LISTS, Config, load_policy
from router.control import moves
from router.control.moves import Move, refuse_rules
from router.errors import ConfigError, RouterError
from router.flow_sense import why_unusable
from router.places import RoleName
from router.policy_use import used_by_nodes
from router.toml_text import one_line
from signaling.actions import Action
from signaling.flow_rules import FlowRule
from signaling.settings import Uplink

if TYPE_CHECKING:
    from router.daemon import Router
    from router.mar_part import MarPart

STEERING = (RoleName.MAR, RoleName.LMA, RoleName.MAG)  # roles that know flow policies
MOVING = (RoleName.MAR,)
REVOKING = (RoleName.LMA,)
DRAINING = (RoleName.MAR,)
MOST_SECONDS = 1e7  # s a router may take to drain: some months
CALLED = {RoleName.MAR: "a MAR", RoleName.LMA: "an LMA", RoleName.MAG: "a MAG", RoleName.CMD: "a CMD"}


# --- policies ---


def set_policy(router: "Router", name: str, file: str, text: str) -> int:
    """These rules are the policy of that name from now on. Returns how many there are. Raises RouterError.

    file: where the text came from, for its problems. It may name its policy or leave that to the order.
    """
    _only(router, STEERING, "policy set")
    try:
        rules = load_policy(text, file, name, router.config.labels)
    except ConfigError as error:
        raise RouterError(one_line(error)) from None
    try:
        if router.config.role is RoleName.MAR:
            refuse_rules(rules, f"policy {name}")
        router.network.checked(name, rules)
    except RouterError as error:
        raise RouterError(f"policy set: nothing was changed: {error}") from None
    if why := _why_not(router.config, name, rules):
        raise RouterError(f"policy set {name}: nothing was changed: {why}")
    _perform(router, router.role.set_policy(name, rules, time.monotonic()))
    router.config = replace(router.config, policies={**router.config.policies, name: rules})
    return len(rules)


def clear_policy(router: "Router", name: str) -> None:
    """There is no such policy any more: flows are shared out over all ways. Raises RouterError."""
    _only(router, STEERING, "policy clear")
    if name not in router.config.policies:
        raise RouterError(f"policy clear {name}: no such policy: {_choice(router.config.policies)}")
    _perform(router, router.role.set_policy(name, (), time.monotonic()))
    kept = {key: rules for key, rules in router.config.policies.items() if key != name}
    router.config = replace(router.config, policies=kept)


def _why_not(config: Config, name: str, rules: Sequence[FlowRule]) -> str | None:
    """Why these rules would do nothing as this policy, or cannot be followed; None: they can."""
    used = used_by_nodes((profile.policy for profile in config.profiles), config.role)
    if used is not None and name not in used:
        return f'no [[node]] has policy = "{name}": expected {" or ".join(sorted(used)) or "a node that has it"}'
    uplinks = config.uplinks if config.role is RoleName.MAG else ()
    return why_unusable(rules, [(uplink.binding_id, uplink.label) for uplink in uplinks])


# --- sessions ---


def revoke(router: "Router", *, node: str | None = None, peer: str | None = None) -> None:
    """Revoke the sessions of a node, of a peer, or (neither) all (RFC 5846). Raises RouterError."""
    _only(router, REVOKING, "revoke")
    if peer is not None and peer not in (each.name for each in router.config.peers):
        known = [each.name for each in router.config.peers]
        raise RouterError(f"revoke {peer}: no such peer: {_choice(known)}")
    if node is not None and not any(held == node for held in router.network.nodes.values()):
        raise RouterError(f"revoke {node}: it has no session here: see show sessions")
    _perform(router, router.role.revoke(node or peer, time.monotonic()))


async def move(router: "Router", wanted: Move) -> str:
    """Have a prefix of a node, or flows of it, at another router. Returns its name. Raises RouterError."""
    _only(router, MOVING, "move")
    return moves.move(router, wanted, await cast("MarPart", router.part).sessions_of(wanted.node))
# --- the end, in good time ---


def drain(router: "Router", within: str | None = None) -> str:
    """Take no new nodes and end when nobody needs this router, or after so many seconds. Raises RouterError."""
    _only(router, DRAINING, "drain")
    seconds = inf if within is None else _seconds(within)
    _perform(router, router.role.begin_drain(seconds, time.monotonic()))
    return _drain_state(router)


def end_drain(router: "Router") -> str:
    """Take nodes again. Raises RouterError."""
    _only(router, DRAINING, "drain")
    if not router.role.draining.active:
        raise RouterError("drain: this router does not drain: there is nothing to cancel")
    _perform(router, router.role.end_drain(time.monotonic()))
    return _drain_state(router)


def _drain_state(router: "Router") -> str:
    return f"draining: {router.part.vitals()['draining']}"


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < MOST_SECONDS:
        raise RouterError(f"drain: within {text}: expected seconds, 0 to {MOST_SECONDS:g}")
    return seconds


# --- another configuration ---


def can_reload(router: "Router") -> bool:
    """Whether there is a file to read again, and something of it can be changed while the router runs."""
    return router.config.role in LIVE and router.config.source.file is not None


def reload(router: "Router") -> str:
    """Read the configuration again and apply what changed. Returns what that was, in a line. Raises RouterError."""
    _only(router, tuple(LIVE), "reload")
    if router.config.source.file is None:
        raise RouterError("reload: this router has no configuration file: start it with --config")
    try:
        after = router.config.read_again()
    except ConfigError as error:
        raise RouterError(f"reload: nothing was changed: {one_line(error)}") from None
    known = LIVE[router.config.role]
    changed = differing(router.config, after)
    if fixed := [place for place in changed if place not in known]:
        raise RouterError(f"reload: nothing was changed: restart it for: {', '.join(fixed)}")
    try:
        for name, rules in after.policies.items():
            router.network.checked(name, rules)
    except RouterError as error:
        raise RouterError(f"reload: nothing was changed: {error}") from None
    applied = Reload(router, after, time.monotonic())
    for change in dict.fromkeys(known[place] for place in changed):
        change(applied)
    router.config = after
    return f"reload: {', '.join(changed) or 'nothing differs'}"


def differing(before: Config, after: Config) -> list[str]:
    """What is not the same, as the file calls it: "anchor.guard", "peer". Of uplinks each key, if they are as many."""
    changed = [key for field, key in KEYS.items() if before.value(field) != after.value(field)]
    changed += [key for key, names in PLACES.items() if any(before.value(it) != after.value(it) for it in names)]
    return changed + _differing_uplinks(before.uplinks, after.uplinks)


def _differing_uplinks(before: Sequence[Uplink], after: Sequence[Uplink]) -> list[str]:
    if len(before) != len(after):
        return ["uplink"]
    pairs = list(zip(before, after, strict=True))
    return [
        f"uplink.{key}"
        for key, (field, _) in LISTS["uplink"].items()
        if any(getattr(one, field) != getattr(other, field) for one, other in pairs)
    ]


@dataclass(frozen=True, slots=True)
class Reload:
    """A configuration that is being applied."""

    router: "Router"
    after: Config
    now: float  # monotonic s

    def peers(self) -> None:
        """Other peers, addresses or keys."""
        _perform(self.router, self.router.role.set_peers(self.after.peers, self.now))

    def nodes(self) -> None:
        """Other names for link-layer addresses, of nodes that come from now on; other profiles."""
        if self.router.access is not None:
            self.router.access.rename(self.after.nodes)
        if self.after.profiles != self.router.config.profiles:
            _perform(self.router, self.router.role.set_profiles(self.after.profiles, self.now))

    def labels(self) -> None:
        """Names are ours alone: rules and uplinks have numbers."""

    def uplinks(self) -> None:
        """Other labels or weights."""
        _perform(self.router, self.router.role.set_uplinks(self.after.uplinks, self.now))

    def policies(self) -> None:
        """Policies that are new, differ or are gone."""
        before, after = self.router.config.policies, self.after.policies
        for name in dict.fromkeys((*before, *after)):
            rules = after.get(name, ())
            if rules != before.get(name, ()):
                _perform(self.router, self.router.role.set_policy(name, rules, self.now))


PLACES = {  # tables of the file, and what of Config is made of them
    "peer": ("peers",),
    "node": ("nodes", "profiles"),
    "site": ("sites",),
    "labels": ("labels",),
    "flow": ("policies",),
}
Change = Callable[[Reload], None]
ANYWHERE: dict[str, Change] = {
    "peer": Reload.peers,
    "node": Reload.nodes,
    "labels": Reload.labels,
    "flow": Reload.policies,
}
LIVE: dict[RoleName, dict[str, Change]] = {
    RoleName.LMA: ANYWHERE,
    RoleName.MAG: ANYWHERE | {"uplink.label": Reload.uplinks, "uplink.weight": Reload.uplinks},
}


def _only(router: "Router", roles: tuple[RoleName, ...], what: str) -> None:
    if router.config.role not in roles:
        *most, last = (CALLED[role] for role in roles)
        them = f"{', '.join(most)} and {last}" if most else last
        raise RouterError(f"{what}: this router is {CALLED[router.config.role]}: only {them} can do that")


def _choice(names: Iterable[str]) -> str:
    return f"expected one of: {known}" if (known := ", ".join(names)) else "this router has none"


def _perform(router: "Router", todo: list[Action]) -> None:
    router.driver.perform(todo)
