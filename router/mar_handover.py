"""What one process of a MAR knows, for the next one: its role, the paths it has set, sessions not stored yet."""

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv6Network

from signaling.actions import Bind
from signaling.dma.session import Session
from signaling.roles.mar_state import MarState
from signaling.settings import Prefix


@dataclass(frozen=True, slots=True, kw_only=True)
class Unwritten:
    """A session on its way to the store; None: out of it."""

    node: str
    prefix: IPv6Network
    session: Session | None


@dataclass(frozen=True, slots=True, kw_only=True)
class MarHandover:
    """All of it."""

    role: MarState
    paths: tuple[Bind, ...]
    open_silence: Mapping[Prefix, float]
    unwritten: tuple[Unwritten, ...]
