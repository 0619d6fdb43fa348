"""What an operator may have a running router do: other flow policies, a revocation, another configuration.

Each order is checked as a whole before anything is done; what it cannot do it says in one line, and nothing changed.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

from router.config import Config, load_policies
from router.errors import ConfigError, RouterError
from router.places import RoleName
from router.toml_text import one_line
from signaling.actions import Action

if TYPE_CHECKING:
    from router.daemon import Router

STEERING = (RoleName.LMA, RoleName.MAG)  # roles that know flow policies
REVOKING = (RoleName.LMA,)
CALLED = {RoleName.MAR: "a MAR", RoleName.LMA: "an LMA", RoleName.MAG: "a MAG"}


# --- policies ---


def set_policy(router: "Router", name: str, file: str, text: str) -> int:
    """These rules are the policy of that name from now on. Returns how many there are. Raises RouterError.

    file: where the text came from, for its problems. It may name its policy or leave that to the order.
    """
    _only(router, STEERING, "policy set")
    try:
        found = load_policies(text, file, router.config.labels)
    except ConfigError as error:
        raise RouterError(one_line(error)) from None
    if len(found) != 1:
        what = ", ".join(found) or "no [[flow]]"
        raise RouterError(f"policy set {name}: {file}: expected the rules of one policy, found: {what}")
    (rules,) = found.values()
    _perform(router, router.role.set_policy(name, rules, time.monotonic()))
    router.config = replace(router.config, policies={**router.config.policies, name: rules})
    return len(rules)


def clear_policy(router: "Router", name: str) -> None:
    """There is no such policy any more: flows are shared out over all ways. Raises RouterError."""
    _only(router, STEERING, "policy clear")
    if name not in router.config.policies:
        known = ", ".join(router.config.policies) or "there is none"
        raise RouterError(f"policy clear {name}: no such policy: expected one of: {known}")
    _perform(router, router.role.set_policy(name, (), time.monotonic()))
    kept = {key: rules for key, rules in router.config.policies.items() if key != name}
    router.config = replace(router.config, policies=kept)


# --- sessions ---


def revoke(router: "Router", *, node: str | None = None, peer: str | None = None) -> None:
    """Revoke the sessions of a node, of a peer, or (neither) all (RFC 5846). Raises RouterError."""
    _only(router, REVOKING, "revoke")
    if peer is not None and peer not in (each.name for each in router.config.peers):
        known = ", ".join(each.name for each in router.config.peers) or "there is none"
        raise RouterError(f"revoke {peer}: no such peer: expected one of: {known}")
    if node is not None and not any(held == node for held in router.network.nodes.values()):
        raise RouterError(f"revoke {node}: it has no session here: see show sessions")
    _perform(router, router.role.revoke(node or peer, time.monotonic()))


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
    changed = differing(router.config, after)
    if fixed := [place for place in changed if place not in LIVE[router.config.role]]:
        raise RouterError(f"reload: nothing was changed: restart it for: {', '.join(fixed)}")
    now = time.monotonic()
    for place in changed:
        LIVE[router.config.role][place](Reload(router, after, now))
    router.config = after
    return f"reload: {', '.join(changed) or 'nothing differs'}"


def differing(before: Config, after: Config) -> list[str]:
    """Fields that are not the same. Of uplinks "uplinks" is their labels and weights, "uplinks.set" all else."""
    names = [item.name for item in fields(Config) if item.compare]
    changed = [name for name in names if getattr(before, name) != getattr(after, name)]
    bare = [[replace(each, label=0, weight=1) for each in config.uplinks] for config in (before, after)]
    return [*changed, *(["uplinks.set"] if bare[0] != bare[1] else [])]


@dataclass(frozen=True, slots=True)
class Reload:
    """A configuration that is being applied."""

    router: "Router"
    after: Config
    now: float  # monotonic s

    def peers(self) -> None:
        """Other peers, addresses or keys."""
        _perform(self.router, self.router.role.set_peers(self.after.peers, self.now))

    def profiles(self) -> None:
        """Other profiles of nodes."""
        _perform(self.router, self.router.role.set_profiles(self.after.profiles, self.now))

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

    def nodes(self) -> None:
        """Other names for link-layer addresses: of nodes that come from now on."""
        if self.router.access is not None:
            self.router.access.rename(self.after.nodes)

    def labels(self) -> None:
        """Names are ours alone: rules and uplinks have numbers."""


Change = Callable[[Reload], None]
ANYWHERE: dict[str, Change] = {
    "labels": Reload.labels,
    "nodes": Reload.nodes,
    "peers": Reload.peers,
    "profiles": Reload.profiles,
    "policies": Reload.policies,
}
LIVE: dict[RoleName, dict[str, Change]] = {
    RoleName.LMA: ANYWHERE,
    RoleName.MAG: ANYWHERE | {"uplinks": Reload.uplinks},
}


def _only(router: "Router", roles: tuple[RoleName, ...], what: str) -> None:
    if router.config.role not in roles:
        them = " and ".join(CALLED[role] for role in roles)
        raise RouterError(f"{what}: this router is {CALLED[router.config.role]}: only {them} can do that")


def _perform(router: "Router", todo: list[Action]) -> None:
    router.driver.perform(todo)
