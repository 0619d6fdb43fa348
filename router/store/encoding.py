"""Sessions as text: JSON, the same in every engine. The node is the key of its record and is not repeated."""

import json
import logging
from ipaddress import IPv6Address, IPv6Network
from math import inf
from typing import Any

from router.store import end_of
from signaling.dma.session import Session, State

log = logging.getLogger(__name__)


def encode(sessions: tuple[Session, ...]) -> str:
    """Sessions of one node."""
    return _text([_plain(session) for session in sessions])


def encode_one(session: Session) -> str:
    """One session."""
    return _text(_plain(session))


def decode(node: str, text: str) -> tuple[Session, ...]:
    """Sessions from JSON. A record that cannot be read has none, and the next write replaces it."""
    try:
        return tuple(_session(node, item) for item in json.loads(text))
    except (ValueError, KeyError, TypeError) as error:
        log.warning("store: the record of %s cannot be read: %r", node, error)
        return ()


def decode_one(node: str, text: str) -> Session | None:
    """One session; None: it cannot be read, and the next write replaces it."""
    found = decode(node, f"[{text}]")
    return found[0] if len(found) == 1 else None


def plain_needed_until(item: dict[str, Any]) -> float:
    """As of the session, which takes ten times as long to make."""
    return end_of(State(item["state"]), _expiry(item), item["valid_lifetime"])


def _text(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))


def _plain(session: Session) -> dict[str, Any]:
    return {
        "prefix": str(session.prefix),
        "anchor": str(session.anchor),
        "state": session.state.value,
        "care_of": str(session.care_of),
        "link_layer": session.link_layer.hex(),
        "lent_to": session.lent_to.hex(),
        "technology": session.technology,
        "timestamp": session.timestamp,
        "expires": None if session.expires == inf else session.expires,
        "valid_lifetime": session.valid_lifetime,
    }


def _session(node: str, item: dict[str, Any]) -> Session:
    return Session(
        node=node,
        prefix=IPv6Network(item["prefix"]),
        anchor=IPv6Address(item["anchor"]),
        state=State(item["state"]),
        care_of=IPv6Address(item["care_of"]),
        link_layer=bytes.fromhex(item["link_layer"]),
        technology=item["technology"],
        timestamp=item["timestamp"],
        expires=_expiry(item),
        valid_lifetime=item["valid_lifetime"],
        lent_to=bytes.fromhex(item.get("lent_to", "")),
    )


def _expiry(item: dict[str, Any]) -> float:
    expires: float | None = item["expires"]
    return inf if expires is None else expires
