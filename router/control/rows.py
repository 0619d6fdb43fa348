"""What views of several roles have in common."""

from typing import TYPE_CHECKING, Any

from signaling.access_link import Attachment
from signaling.pmip.heartbeats import Exchange
from signaling.settings import Prefix

if TYPE_CHECKING:
    from router.daemon import Router

Row = dict[str, Any]


def attachment(item: Attachment, now: float) -> Row:
    """One node on an access link, of any role that has some."""
    return {
        "node": item.node,
        "interface": item.interface,
        "link_layer": item.link_layer.hex(":"),
        "link_local": str(item.link_local) if item.link_local else None,
        "attached": round(now - item.since, 3),
        "heard": round(now - item.heard, 3),
    }


def waiting(router: "Router", prefix: Prefix) -> Row:
    """How many packets waited for the node of a prefix since it was away last, and how many of them were lost."""
    held = router.network.held(prefix)
    return {"held": held.kept if held else 0, "held_lost": held.full + held.expired if held else 0}


def vitality(exchange: Exchange | None) -> Row:
    """Whether a peer answers, where, and how often it has lost its sessions; nothing while there is none with it."""
    if exchange is None:
        return {"alive": None, "heard_at": None, "restarts": None}
    alive = None if exchange.restarts is None and not exchange.unreachable else not exchange.unreachable
    return {"alive": alive, "heard_at": str(exchange.destination), "restarts": exchange.restarts}
