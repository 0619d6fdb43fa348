"""What only a CMD knows: which router serves each node, and which others anchor prefixes of it."""

import time
from typing import TYPE_CHECKING

from router.control.rows import Row

if TYPE_CHECKING:
    from router.daemon import Router


def nodes(router: "Router") -> list[Row]:
    """Nodes of the domain, each with the router that serves it."""
    now = time.monotonic()
    names = _names(router)
    return [
        {
            "node": binding.node,
            "serving": names.get(binding.serving),
            "address": str(binding.serving),
            "prefixes": len(binding.anchorages),
            "untold": len(binding.untold()),
            "expires": round(binding.expires - now, 3),
        }
        for binding in router.role.database.bindings
    ]


def sessions(router: "Router") -> list[Row]:
    """Every prefix of every node: who anchors it, and where that delivers it, as far as it has confirmed."""
    names = _names(router)
    return [
        {
            "node": binding.node,
            "prefix": str(item.prefix),
            "anchor": names.get(item.anchor, str(item.anchor)),
            "role": "serving" if item.anchor == binding.serving else "previous",
            "delivered_at": names.get(item.told, str(item.told)),
            "dlif": str(item.dlif.link_local) if item.dlif else None,
            "dlif_link_layer": item.dlif.link_layer.hex(":") if item.dlif else None,
        }
        for binding in router.role.database.bindings
        for item in binding.anchorages.values()
    ]


def peers(router: "Router") -> list[Row]:
    """Routers of the domain, and what they do for its nodes."""
    bindings = list(router.role.database.bindings)
    return [
        {
            "name": peer.name,
            "address": str(peer.address),
            "authenticated": bool(peer.key),
            "spi": peer.spi if peer.key else None,
            "nodes": sum(binding.serving == peer.address for binding in bindings),
            "anchors": sum(item.anchor == peer.address for each in bindings for item in each.previous()),
        }
        for peer in router.config.peers
    ]


def _names(router: "Router") -> dict[object, str]:
    return {peer.address: peer.name for peer in router.config.peers}
