"""What an LMA or a MAG knows: sessions with their care-of addresses, bindings, paths, flow rules and policies."""

import time
from collections import Counter
from collections.abc import Callable
from math import isinf
from typing import TYPE_CHECKING, Any

from router.control.render import plain
from router.control.rows import Row, attachment, vitality, waiting
from router.flow_policies import Labels, selector_text
from signaling.actions import BackToAnchor, Held, LocalLink, Path, TowardAnchor, TowardVisited, TunnelEnd
from signaling.flow_rules import FlowRule
from signaling.settings import Prefix

if TYPE_CHECKING:
    from router.daemon import Router


def in_order(prefix: Prefix) -> tuple[int, Prefix]:
    """What prefixes of both families are sorted by: IPv4 first."""
    return prefix.version, prefix


KINDS: dict[type[Path], str] = {
    LocalLink: "native",
    TowardVisited: "to gateway",
    BackToAnchor: "back to anchor",
    TowardAnchor: "to anchor",
    Held: "held",
}


def nodes(router: "Router") -> list[Row]:
    """Nodes on the access links of a MAG."""
    now = time.monotonic()
    return [attachment(item, now) for item in router.role.access.attached.values()]


def sessions(router: "Router") -> list[Row]:
    """Mobility sessions, as the role tells them: an LMA with their care-of addresses, a MAG with its registrations."""
    labels, now = Labels(router.config.labels), time.monotonic()
    return [_told(row, labels, now) for row in router.role.sessions()]


def _told(row: Row, labels: Labels, now: float) -> Row:
    """A row of a role for people: labels by name, prefixes in order, the time that is left."""
    return {key: TELLING[key](value, labels, now) if key in TELLING else plain(value) for key, value in row.items()}


def _left(expires: float | None, labels: Labels, now: float) -> float | None:
    """Seconds until then; None: it does not end by itself."""
    return None if expires is None or isinf(expires) else round(expires - now, 3)


TELLING: dict[str, Callable[[Any, Labels, float], Any]] = {
    "care_ofs": lambda rows, labels, now: [_told(row, labels, now) for row in rows],
    "expires": _left,
    "label": lambda number, labels, now: labels.name(number),
    "since": lambda at, labels, now: max(0.0, round(now - at, 3)),
    "prefixes": lambda prefixes, labels, now: [str(prefix) for prefix in sorted(prefixes, key=in_order)],
}


def leases(router: "Router") -> list[Row]:
    """IPv4 home addresses and delegated prefixes that DHCP leases to the nodes of a MAG."""
    addresses = router.access.addresses if router.access is not None else None
    return addresses.rows() if addresses is not None else []


def bindings(router: "Router") -> list[Row]:
    """Every prefix this router forwards, and the path it takes."""
    labels = Labels(router.config.labels)
    known = router.network.paths.items()
    return [
        {"prefix": str(prefix), "node": router.network.nodes[prefix]} | _path(path, labels) | waiting(router, prefix)
        for prefix, path in sorted(known, key=lambda item: in_order(item[0]))
    ]


def _path(path: Path, labels: Labels) -> Row:
    return {
        "path": KINDS[type(path)],
        "ways": [_way(end, labels) for end in getattr(path, "tunnels", ())],
        "interface": getattr(path, "interface", None) or None,
        "policy": getattr(path, "policy", None) or None,
    }


def _way(end: TunnelEnd, labels: Labels) -> str:
    return f"{end.binding_id}:{labels.name(end.label)}:{end.remote}"


def paths(router: "Router") -> list[Row]:
    """Paths to peers as they are measured. since: the state, for so many s."""
    labels = Labels(router.config.labels)
    now = time.time()
    return [_told(row, labels, now) for row in router.role.monitor.rows()]


def flows(router: "Router") -> list[Row]:
    """Flow rules that treat packets now, and what they have treated."""
    labels = Labels(router.config.labels)
    return [
        {"policy": name, **_rule(rule, labels), "packets": packets, "octets": octets}
        for name, rule, packets, octets in router.network.flow_counters()
    ]


def policy(router: "Router") -> list[Row]:
    """Flow policies by name, the first rule that matches decides. Source is the correspondent.

    Those of this router; then those in force that were made for a session, of what its gateway says of flows.
    """
    labels, own, in_force = Labels(router.config.labels), router.config.policies, router.network.policies
    made = {name: rules for name, rules in in_force.items() if name not in own}
    return [
        {"policy": name, "number": number, **_rule(rule, labels)}
        for name, rules in (*own.items(), *made.items())
        for number, rule in enumerate(rules, 1)
    ]


def _rule(rule: FlowRule, labels: Labels) -> Row:
    return {
        "rule": rule.name or None,
        "selector": selector_text(rule.selector),
        "labels": [labels.name(number) for number in rule.labels],
        "bids": list(rule.binding_ids),
        "spread": rule.spread.value,
    }


def peers(router: "Router") -> list[Row]:
    """Routers of the domain that are configured, whether they answer, and how many prefixes they carry now."""
    role = router.role
    remote = [end.remote for path in router.network.paths.values() for end in getattr(path, "tunnels", ())[:1]]
    carried = Counter(peer.name for address in remote if (peer := role.door.peer(address)) is not None)
    return [
        {
            "name": peer.name,
            "address": plain(peer.address),
            "addresses": plain(peer.addresses),
            "authenticated": bool(peer.key),
            "spi": peer.spi if peer.key else None,
            "prefixes": carried[peer.name],
            **vitality(role.heartbeats.exchange(peer.name)),
        }
        for peer in router.config.peers
    ]
