"""What a router knows, as plain data: answered once here, rendered many ways (`show`, JSON, tests).

Every answer is a list of dicts with the same keys in the same order. Times are seconds, sizes octets. What only one
role knows is in `mar_views.py` and `pmip_views.py`; here is what all know, and `VIEWS`: who knows what.
"""

from collections.abc import Callable
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from router._version import __version__
from router.config import KEYS
from router.control import cmd_views, mar_views, pmip_views
from router.control.render import plain
from router.places import RoleName
from router.store.url import without_password

if TYPE_CHECKING:
    from router.daemon import Router

Row = dict[str, Any]
View = Callable[["Router"], list[Row]]

OF_PMIP_ONLY = ("anchoring.", "gateway.", "paths.", "ipv4_address")


def tunnels(router: "Router") -> list[Row]:
    """Tunnels that carry a prefix now."""
    peer_at = router.role.door.peer
    return [
        {
            "peer": peer.name if (peer := peer_at(item.tunnel.remote)) is not None else None,
            "remote": str(item.tunnel.remote),
            "local": str(item.tunnel.local),
            "encapsulation": item.tunnel.encapsulation.value,
            "port": item.tunnel.port if item.tunnel.encapsulation.value == "udp" else None,
            "key": item.tunnel.key_in,
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
    """The configuration in force, under the names of the file; then what was found out. Keys are never shown."""
    values = router.config
    has_sessions = values.role in (RoleName.MAR, RoleName.CMD)
    refused = [item.name for item in fields(values.offloads) if not getattr(values.offloads, item.name)]
    here = {
        "underlay.address": f"{router.underlay.address} ({router.underlay.why})",
        "engine.refuse_offloads": refused,
        "store.url": without_password(values.store_url) if has_sessions and not values.cmd.peer else None,
        "control.socket": str(values.socket_path),
    }
    found: dict[str, Any] = {"version": __version__, "role": values.role.value}
    for field, key in KEYS.items():
        if not (has_sessions and field.startswith(OF_PMIP_ONLY)):
            found[key] = here[key] if key in here else plain(values.value(field))
    found |= {
        "labels": [f"{name} {number}" for name, number in values.labels.items()],
        "nodes": [f"{key.hex(':')} {node}" for key, node in values.nodes.items()],
        "tunnel_mtu": router.role.settings.tunnel_mtu,
        "engine": "compiled" if router.packets.compiled else "model (slow)",
        "offloads": router.packets.offloads(),
        **{name: value for name, value in router.part.vitals().items() if "." not in name},
    }
    return [{"key": key, "value": value} for key, value in found.items()]


PMIP: dict[str, View] = {
    "sessions": pmip_views.sessions,
    "bindings": pmip_views.bindings,
    "paths": pmip_views.paths,
    "flows": pmip_views.flows,
    "policy": pmip_views.policy,
    "tunnels": tunnels,
    "peers": pmip_views.peers,
    "counters": counters,
    "config": config,
}
VIEWS: dict[RoleName, dict[str, View]] = {
    RoleName.MAR: {
        "nodes": mar_views.nodes,
        "prefixes": mar_views.prefixes,
        "sessions": mar_views.sessions,
        "bindings": mar_views.bindings,
        "flows": mar_views.flows,
        "policy": pmip_views.policy,
        "tunnels": tunnels,
        "peers": mar_views.peers,
        "counters": counters,
        "config": config,
    },
    RoleName.LMA: PMIP,
    RoleName.CMD: {
        "nodes": cmd_views.nodes,
        "sessions": cmd_views.sessions,
        "peers": cmd_views.peers,
        "counters": counters,
        "config": config,
    },
    RoleName.MAG: {"nodes": pmip_views.nodes, "leases": pmip_views.leases, **PMIP},
}
