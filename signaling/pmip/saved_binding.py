"""A mobility session as an LMA keeps it over a restart: what it had acknowledged, and until when."""

from collections.abc import Callable
from dataclasses import dataclass, fields, make_dataclass
from ipaddress import IPv6Network
from typing import TypeVar

from signaling.settings import Address, Prefix

Kind = TypeVar("Kind")


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedCareOf:
    """One Proxy-CoA of a session."""

    binding_id: int  # BID; 0: the session has one path and no MMB
    care_of: Address
    port: int  # UDP source port of signalling from behind a NAT, 0: none
    data_port: int  # UDP source port of data from behind a NAT, 0: the well-known one
    label: int
    technology: int  # If-ATT
    timestamp: int  # of the last accepted update, 1/65536 s since 1970
    downlink_key: int | None = None  # GRE key of this path (RFC 5845 3.1: keys belong to one binding); None: no key
    local: Address | None = None  # our end of it; None: the address of this router


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedBinding:
    """All of a session but its refreshes: those never touch what is durable, so a restart grants a full period."""

    number: int  # of the session, unique in this LMA for ever
    node: str  # MN-Identifier (NAI)
    gateway: str  # name of the peer whose MAG it is
    link_layer: bytes
    technology: int  # ATT
    service: str  # Service Selection, "" for the default one
    link_local: bytes  # of the MAG, on the access link; b"": none
    prefixes: tuple[IPv6Network, ...]  # home network prefixes
    ipv4_home: Prefix | None  # IPv4 home address, with the length of its subnet
    delegated: tuple[Prefix, ...]  # delegated mobile network prefixes (RFC 7148)
    gre_keys: tuple[int, int] | None  # downlink, uplink (RFC 5845)
    care_ofs: tuple[SavedCareOf, ...]
    flows: bytes  # flow identification options as they came (RFC 6089), encoded one after the other


def _maker(kind: type[Kind]) -> Callable[..., Kind]:
    """A quick way to make many of a frozen dataclass with slots: from all its values, in the order of its fields.

    Its own __init__ must go around its own lock, value by value, and takes four times as long: a second of a restart
    with 100,000 sessions. So it is filled in while it is of a class that is not locked, and has the same slots.
    """
    open_kind = make_dataclass(kind.__name__, [field.name for field in fields(kind)], slots=True)  # type: ignore[arg-type]

    def make(*values: object) -> Kind:
        made = open_kind(*values)
        made.__class__ = kind
        return made  # type: ignore[no-any-return]

    return make


quick_binding = _maker(SavedBinding)
quick_care_of = _maker(SavedCareOf)
