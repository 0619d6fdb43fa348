"""What an LMA or a MAG knows: sessions with their care-of addresses, bindings, paths, flow rules and policies."""

import time
from math import isinf
from typing import TYPE_CHECKING, Any

from router.control.render import cell, plain
from router.flow_policies import Labels, selector_text
from signaling.actions import Held, LocalLink, Path, TowardAnchor, TowardVisited, TunnelEnd
from signaling.flow_rules import FlowRule

if TYPE_CHECKING:
    from router.daemon import Router

Row = dict[str, Any]

KINDS: dict[type[Path], str] = {
    LocalLink: "native",
    TowardVisited: "to gateway",
    TowardAnchor: "to anchor",
    Held: "held",
}


def nodes(router: "Router") -> list[Row]:
    """Nodes on the access links of a MAG."""
    now = time.monotonic()
    return [
        {
            "node": item.node,
            "interface": item.interface,
            "link_layer": item.link_layer.hex(":"),
            "link_local": str(item.link_local) if item.link_local else None,
            "attached": round(now - item.since, 3),
            "heard": round(now - item.heard, 3),
        }
        for item in router.role.access.attached.values()
    ]


def sessions(router: "Router") -> list[Row]:
    """Mobility sessions, as the role tells them: an LMA with their care-of addresses, a MAG with its registrations."""
    labels, now = Labels(router.config.labels), time.monotonic()
    return [{key: _told(key, value, labels, now) for key, value in row.items()} for row in router.role.sessions()]


def _told(key: str, value: Any, labels: Labels, now: float) -> Any:
    if key == "care_ofs":
        return [
            f"{path['bid']}:{labels.name(path['label'])}:{path['address']}:{cell(_left(path['expires'], now))}"
            for path in value
        ]
    if key == "label":
        return labels.name(value)
    return _left(value, now) if key == "expires" else plain(value)


def _left(expires: float | None, now: float) -> float | None:
    """Seconds until then; None: it does not end by itself."""
    return None if expires is None or isinf(expires) else round(expires - now, 3)


def bindings(router: "Router") -> list[Row]:
    """Every prefix this router forwards, and the path it takes."""
    labels = Labels(router.config.labels)
    known = router.network.paths.items()
    return [
        {"prefix": str(prefix), "node": router.network.nodes[prefix]} | _path(path, labels)
        for prefix, path in sorted(known, key=lambda item: (item[0].version, item[0]))
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
    """Paths to peers as they are measured."""
    labels = Labels(router.config.labels)
    return [
        {key: labels.name(value) if key == "label" else plain(value) for key, value in row.items()}
        for row in router.role.monitor.rows()
    ]


def flows(router: "Router") -> list[Row]:
    """Flow rules that treat packets now, and what they have treated."""
    labels = Labels(router.config.labels)
    return [
        {"policy": name, **_rule(rule, labels), "packets": packets, "octets": octets}
        for name, rule, packets, octets in router.network.flow_counters()
    ]


def policy(router: "Router") -> list[Row]:
    """Flow policies of this router by name, the first rule that matches decides. Source is the correspondent."""
    labels = Labels(router.config.labels)
    return [
        {"policy": name, "number": number, **_rule(rule, labels)}
        for name, rules in router.config.policies.items()
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
    """Routers of the domain that are configured, and how many prefixes they carry now."""
    remote = [end.remote for path in router.network.paths.values() for end in getattr(path, "tunnels", ())[:1]]
    return [
        {
            "name": peer.name,
            "address": str(peer.address) if peer.address else None,
            "addresses": [str(address) for address in peer.addresses],
            "authenticated": bool(peer.key),
            "spi": peer.spi if peer.key else None,
            "prefixes": sum(at in (peer.address, *peer.addresses) for at in remote),
        }
        for peer in router.config.peers
    ]
