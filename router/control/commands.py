"""What a router knows, as plain data: answered once here, rendered many ways (`show`, JSON, tests).

Every answer is a list of dicts with the same keys in the same order. Times are seconds, sizes octets. What only one
role knows is in `mar_views.py` and `pmip_views.py`; here is what all know, and `VIEWS`: who knows what.
"""

from collections.abc import Callable
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any

from router.control import mar_views, pmip_views
from router.control.render import plain
from router.places import RoleName

if TYPE_CHECKING:
    from router.daemon import Router

Row = dict[str, Any]
View = Callable[["Router"], list[Row]]

OF_PMIP_ONLY = frozenset(("anchoring", "gateway", "paths", "heartbeat", "ipv4_address"))
TOLD_ELSEWHERE = frozenset(
    (
        *("peers", "nodes", "store", "socket", "address", "offloads", "source"),
        *("policies", "profiles", "uplinks", "sites", "labels"),
    )
)


def tunnels(router: "Router") -> list[Row]:
    """Tunnels that carry a prefix now."""
    names = {address: peer.name for peer in router.config.peers for address in (peer.address, *peer.addresses)}
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
    signaling = ({"counter": name, "value": count} for name, count in sorted(router.role.counters.items()))
    own = ({"counter": name, "value": value} for name, value in router.part.vitals().items() if "." in name)
    return [*rows, *signaling, *own]


def config(router: "Router") -> list[Row]:
    """The configuration in force. Keys of peers are never shown."""
    values = router.config
    hidden = TOLD_ELSEWHERE | (OF_PMIP_ONLY if values.role is RoleName.MAR else set())
    rows: list[Row] = [{"key": "version", "value": _version()}]
    for item in fields(values):
        if item.name not in hidden:
            rows += _config_rows(item.name, getattr(values, item.name))
    rows += [
        {"key": "underlay", "value": f"{router.underlay.address} ({router.underlay.why})"},
        {"key": "tunnel_mtu", "value": router.role.settings.tunnel_mtu},
        *({"key": name, "value": value} for name, value in router.part.vitals().items() if "." not in name),
        {"key": "socket", "value": str(values.socket_path)},
        {"key": "engine", "value": "compiled" if router.packets.compiled else "model (slow)"},
        {"key": "offloads", "value": router.packets.offloads()},
        {"key": "nodes", "value": [f"{key.hex(':')} {node}" for key, node in values.nodes.items()]},
    ]
    return rows


def _config_rows(name: str, value: object) -> list[Row]:
    """One row; of a part of the configuration one for each of its keys."""
    if is_dataclass(value):
        return [{"key": f"{name}.{item.name}", "value": plain(getattr(value, item.name))} for item in fields(value)]
    return [{"key": name, "value": plain(value)}]


def _version() -> str:
    from router import __version__

    return __version__


VIEWS: dict[RoleName, dict[str, View]] = {
    RoleName.MAR: {
        "nodes": mar_views.nodes,
        "prefixes": mar_views.prefixes,
        "bindings": mar_views.bindings,
        "tunnels": tunnels,
        "peers": mar_views.peers,
        "counters": counters,
        "config": config,
    },
    RoleName.LMA: {
        "sessions": pmip_views.sessions,
        "bindings": pmip_views.bindings,
        "paths": pmip_views.paths,
        "flows": pmip_views.flows,
        "policy": pmip_views.policy,
        "tunnels": tunnels,
        "peers": pmip_views.peers,
        "counters": counters,
        "config": config,
    },
    RoleName.MAG: {
        "nodes": pmip_views.nodes,
        "sessions": pmip_views.sessions,
        "bindings": pmip_views.bindings,
        "paths": pmip_views.paths,
        "flows": pmip_views.flows,
        "policy": pmip_views.policy,
        "tunnels": tunnels,
        "peers": pmip_views.peers,
        "counters": counters,
        "config": config,
    },
}
