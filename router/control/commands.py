"""What a router knows, as plain data: answered once here, rendered many ways (`show`, JSON, tests).

Every answer is a list of dicts with the same keys in the same order. Times are seconds, sizes octets.
"""

import time
from collections.abc import Callable
from dataclasses import fields
from ipaddress import IPv4Address, IPv6Address
from math import isinf
from typing import TYPE_CHECKING, Any

from signaling.actions import Held, LocalLink, Path, TowardAnchor, TowardVisited
from signaling.session import State
from signaling.update_list import Progress

if TYPE_CHECKING:
    from router.daemon import Router

Row = dict[str, Any]


def nodes(router: "Router") -> list[Row]:
    """Nodes on our access links."""
    now = time.monotonic()
    return [
        {
            "node": item.node,
            "interface": item.interface,
            "link_layer": item.link_layer.hex(":"),
            "link_local": str(item.link_local) if item.link_local else None,
            "attached": round(now - item.since, 3),
            "heard": round(now - item.heard, 3),
            "anchored_here": [str(prefix) for prefix in router.mar.anchor.local(item.node)],
            "visiting": [str(entry.prefix) for entry in router.mar.registrar.visited(item.node)],
        }
        for item in router.mar.access.attached.values()
    ]


def prefixes(router: "Router") -> list[Row]:
    """Prefixes anchored here: the binding cache."""
    now = time.monotonic()
    return [
        {
            "prefix": str(entry.prefix),
            "node": entry.node,
            "state": entry.state.value,
            "care_of": str(entry.care_of),
            "expires": None if isinf(entry.expires) else round(entry.expires - now, 3),
        }
        for entry in router.mar.anchor.cache
    ]


def bindings(router: "Router") -> list[Row]:
    """Every prefix this router forwards, and the path it takes."""
    progress = {item.prefix: item.progress.value for item in router.mar.registrar.all()}
    return [
        {"prefix": str(prefix), "node": router.network.nodes[prefix]}
        | _path(path)
        | {"registration": progress.get(prefix)}
        for prefix, path in sorted(router.network.paths.items())
    ]


def _path(path: Path) -> Row:
    match path:
        case LocalLink(interface=interface):
            return {"path": "native", "peer": None, "interface": interface}
        case TowardVisited(care_of=care_of):
            return {"path": "to visited router", "peer": str(care_of), "interface": None}
        case TowardAnchor(anchor=anchor, interface=interface):
            return {"path": "to anchor", "peer": str(anchor), "interface": interface}
        case Held():
            return {"path": "held", "peer": None, "interface": None}


def tunnels(router: "Router") -> list[Row]:
    """Tunnels that carry a prefix now."""
    names: dict[IPv6Address | IPv4Address, str] = {peer.address: peer.name for peer in router.config.peers}
    return [
        {
            "peer": names.get(item.tunnel.remote),
            "remote": str(item.tunnel.remote),
            "local": str(item.tunnel.local),
            "encapsulation": item.tunnel.encapsulation.value,
            "state": item.state.value,
            "mtu": item.mtu,
            "prefixes": item.prefixes,
            "packets_in": item.packets_in,
            "octets_in": item.octets_in,
            "packets_out": item.packets_out,
            "octets_out": item.octets_out,
        }
        for item in router.tables.tunnels()
        if item.prefixes  # a capture may wait for one that carries nothing
    ]


def peers(router: "Router") -> list[Row]:
    """Routers of the domain, and what they have to do with us now."""
    anchored = list(router.mar.anchor.cache)
    visiting = router.mar.registrar.all()
    return [
        {
            "name": peer.name,
            "address": str(peer.address),
            "authenticated": bool(peer.key),
            "spi": peer.spi if peer.key else None,
            "our_prefixes_there": sum(
                entry.state is State.REMOTE and entry.care_of == peer.address for entry in anchored
            ),
            "its_prefixes_here": sum(
                item.anchor == peer.address and item.progress is Progress.VISITED for item in visiting
            ),
        }
        for peer in router.config.peers
    ]


def counters(router: "Router") -> list[Row]:
    """Everything that is counted: packets, drops by reason, signalling by message and reason."""
    engine = router.packets.counters()
    rows = [
        {"counter": f"engine.{item.name}", "value": getattr(engine, item.name)}
        for item in fields(engine)
        if item.name != "drops"
    ]
    rows += [
        {"counter": f"engine.drop.{reason.name.lower()}", "value": count} for reason, count in engine.drops.items()
    ]
    signaling = ({"counter": name, "value": count} for name, count in sorted(router.mar.counters.items()))
    return [*rows, *signaling, {"counter": "store.unsaved", "value": router.driver.sessions.unsaved}]


def config(router: "Router") -> list[Row]:
    """The configuration in force. Keys of peers are never shown."""
    values = router.config
    rows: list[Row] = [{"key": "version", "value": _version()}]
    rows += [
        {"key": item.name, "value": _plain(getattr(values, item.name))}
        for item in fields(values)
        if item.name not in ("peers", "nodes", "store", "socket", "address", "offloads")
    ]
    rows += [
        {"key": "underlay", "value": f"{router.underlay.address} ({router.underlay.why})"},
        {"key": "tunnel_mtu", "value": router.mar.settings.tunnel_mtu},
        {"key": "store", "value": values.store_url},
        {"key": "store_reachable", "value": router.driver.sessions.reachable},
        {"key": "socket", "value": str(values.socket_path)},
        {"key": "engine", "value": "compiled" if router.packets.compiled else "model (slow)"},
        {"key": "offloads", "value": router.packets.offloads()},
        {"key": "nodes", "value": [f"{key.hex(':')} {node}" for key, node in values.nodes.items()]},
    ]
    return rows


def _plain(value: object) -> Any:
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, bool | int | float | str) or value is None:
        return value
    return str(getattr(value, "value", value))


def _version() -> str:
    from router import __version__

    return __version__


SHOW: dict[str, Callable[["Router"], list[Row]]] = {
    "nodes": nodes,
    "prefixes": prefixes,
    "bindings": bindings,
    "tunnels": tunnels,
    "peers": peers,
    "counters": counters,
    "config": config,
}
