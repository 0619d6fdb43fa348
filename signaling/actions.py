"""What a role can ask for. The driver performs the actions of one turn in the order given.

The order matters: a prefix is bound before the message that announces it leaves.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv6Address, IPv6Network

from signaling.session import Session
from signaling.wire.message import Message


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalLink:
    """The prefix is anchored here and its node is here: native forwarding, no tunnel."""

    interface: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TowardVisited:
    """The prefix is anchored here, its node is at another router: tunnel to that care-of address."""

    care_of: IPv6Address


@dataclass(frozen=True, slots=True, kw_only=True)
class TowardAnchor:
    """The node is here, its prefix is anchored elsewhere: deliver on the link, send uplink through the tunnel."""

    anchor: IPv6Address
    interface: str


@dataclass(frozen=True, slots=True)
class Held:
    """The node is between routers: nobody can deliver to it now."""


Path = LocalLink | TowardVisited | TowardAnchor | Held


@dataclass(frozen=True, slots=True, kw_only=True)
class Bind:
    """From now on packets of this prefix take this path, instead of any path before."""

    prefix: IPv6Network
    path: Path
    node: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Unbind:
    """This router has nothing to do with the prefix any more."""

    prefix: IPv6Network
    node: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Send:
    """Send a Mobility Header to a peer."""

    octets: bytes
    message: Message  # what the octets say, for whoever shows or logs it
    destination: IPv6Address
    port: int = 0  # UDP destination port; 0: the well-known one


@dataclass(frozen=True, slots=True, kw_only=True)
class SendError:
    """Send an ICMPv6 error to where a broken Mobility Header came from (RFC 6275 9.2)."""

    octets: bytes
    destination: IPv6Address


@dataclass(frozen=True, slots=True, kw_only=True)
class SendOnLink:
    """Send an IPv6 packet on an access link, in a frame to this link-layer address."""

    octets: bytes
    message: Message
    interface: str
    link_layer: bytes
    node: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SaveSession:
    """Write a session to the store: durable before the next Send of this turn leaves."""

    session: Session


@dataclass(frozen=True, slots=True, kw_only=True)
class ForgetSession:
    """Take a session out of the store: its prefix is free."""

    node: str
    prefix: IPv6Network


@dataclass(frozen=True, slots=True, kw_only=True)
class FindSessions:
    """Ask the store for all sessions of a node; the answer comes as SessionsFound."""

    node: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectNode:
    """The node with this link-layer address is on this link (or, interface None, no more): tune filters to it."""

    node: str
    interface: str | None
    link_layer: bytes
    link_local: IPv6Address | None


@dataclass(frozen=True, slots=True)
class Note:
    """Something worth a line in the log and in `monitor`; it asks for nothing."""

    event: str
    fields: Mapping[str, object] = field(default_factory=dict)


Action = (
    Bind
    | Unbind
    | Send
    | SendError
    | SendOnLink
    | SaveSession
    | ForgetSession
    | FindSessions
    | ExpectNode
    | Note
)
