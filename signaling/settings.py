"""What a role is told about itself and its domain. Plain values: the router's configuration translates into these."""

from collections import Counter
from dataclasses import dataclass, field
from enum import Enum
from ipaddress import IPv6Address, IPv6Network

from signaling.iana import AccessTechnologyType

DEFAULT_SPI = 256  # the first one that is not reserved, RFC 4285 8
TIMESTAMP_UNITS = 65536  # per second, RFC 5213 8.8


class Authentication(Enum):
    """Whether an update must carry a Mobility Message Authentication option (RFC 4285)."""

    REQUIRED = "required"
    NONE = "none"


class Transport(Enum):
    """What carries a Mobility Header between peers."""

    MOBILITY_HEADER = "mh"  # IPv6 next header 135
    UDP = "udp"  # port 5436; the MH checksum is not used then (RFC 5844 4.1.3.2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """Another router of the domain, and the key shared with it."""

    name: str
    address: IPv6Address
    key: bytes = field(default=b"", repr=False)  # b"": none, only with Authentication.NONE
    spi: int = DEFAULT_SPI


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """One mobility router. Lifetimes and delays in seconds; the defaults are those of the RFC named."""

    address: IPv6Address  # anchor address and care-of address
    tunnel_mtu: int  # octets
    peers: tuple[Peer, ...] = ()
    pools: tuple[IPv6Network, ...] = ()
    authentication: Authentication = Authentication.REQUIRED
    transport: Transport = Transport.MOBILITY_HEADER
    technology: AccessTechnologyType = AccessTechnologyType.IEEE_802_3
    valid_lifetime: int = 7200
    preferred_lifetime: int = 1800  # RFC 8273 5
    router_lifetime: int = 1800  # RFC 4861 6.2.1: 3 x MaxRtrAdvInterval
    advertise_every: float = 300.0  # RFC 8273 5; below the preferred lifetime
    on_link: bool = True  # the L flag of a home network prefix, RFC 5213 6.9.2
    probe_every: float = 30.0  # of silence, before a node is asked whether it is there; 0: never
    binding_lifetime: int = 300  # asked for, and the most that is granted
    guard: float = 10.0  # MinDelayBeforeBCEDelete, RFC 5213 9.1
    leave_guard: float = 1.0  # a carrier that returns within this time costs no message
    timestamp_window: float = 0.3  # TimestampValidityWindow, RFC 5213 9.1
    max_bindings: int = 1_000_000


class Clock:
    """Wall clock time computed from the monotonic one, as ClockStepped events tell; no clock is read here."""

    def __init__(self) -> None:
        self.wall_minus_monotonic = 0.0
        self._last_stamp = 0

    def step(self, wall_minus_monotonic: float) -> None:
        """The wall clock was set. Stamps follow it, backwards too: they must agree with the peers' clocks."""
        self.wall_minus_monotonic = wall_minus_monotonic
        self._last_stamp = 0

    def wall(self, now: float) -> float:
        """Seconds since 1970."""
        return now + self.wall_minus_monotonic

    def monotonic(self, wall: float) -> float:
        """The monotonic time at which the wall clock shows, or showed, this."""
        return wall - self.wall_minus_monotonic

    def timestamp(self, now: float) -> int:
        """The wall clock as RFC 5213 8.8 writes it: 1/65536 s since 1970."""
        return int(self.wall(now) * TIMESTAMP_UNITS)

    def stamp(self, now: float) -> int:
        """A timestamp that no message before had: the second of two equal ones would be taken for a replay."""
        self._last_stamp = max(self.timestamp(now), self._last_stamp + 1)
        return self._last_stamp

    def next_number(self, last: int | None, now: float) -> int:
        """The sequence number after the last one. The first follows the clock: a restart must not repeat old ones."""
        return (int(self.wall(now)) if last is None else last + 1) % 65536


Counters = Counter[str]  # "part.reason" -> how often; read by `show counters`
