"""What only a MAR knows: nodes here, prefixes anchored here or elsewhere, and what peers have to do with them."""

import time
from math import isinf
from typing import TYPE_CHECKING

from router.control.rows import Row, attachment, waiting
from signaling.actions import LocalLink, Path, TowardAnchor, TowardVisited, TunnelEnd
from signaling.dma.session import State
from signaling.dma.update_list import Progress

if TYPE_CHECKING:
    from router.daemon import Router


def nodes(router: "Router") -> list[Row]:
    """Nodes on our access links."""
    now = time.monotonic()
    return [
        attachment(item, now)
        | {
            "anchored_here": [str(prefix) for prefix in router.role.anchor.local(item.node)],
            "visiting": [str(entry.prefix) for entry in router.role.registrar.visited(item.node)],
        }
        for item in router.role.access.attached.values()
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
        for entry in router.role.anchor.cache
    ]


def bindings(router: "Router") -> list[Row]:
    """Every prefix this router forwards, and the path it takes."""
    progress = {item.prefix: item.progress.value for item in router.role.registrar.all()}
    return [
        {"prefix": str(prefix), "node": router.network.nodes[prefix]}
        | _path(path)
        | {"registration": progress.get(prefix)}
        | waiting(router, prefix)
        for prefix, path in sorted(router.network.paths.items())
    ]


def _path(path: Path) -> Row:
    match path:
        case LocalLink(interface=interface):
            return {"path": "native", "peer": None, "interface": interface}
        case TowardVisited(tunnels=(TunnelEnd(remote=care_of), *_)):
            return {"path": "to visited router", "peer": str(care_of), "interface": None}
        case TowardAnchor(tunnels=(TunnelEnd(remote=anchor), *_), interface=interface):
            return {"path": "to anchor", "peer": str(anchor), "interface": interface}
        case _:
            return {"path": "held", "peer": None, "interface": None}


def peers(router: "Router") -> list[Row]:
    """Routers of the domain, and what they have to do with us now."""
    anchored = list(router.role.anchor.cache)
    visiting = router.role.registrar.all()
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
