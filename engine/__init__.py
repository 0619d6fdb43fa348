"""The packet engine: octets in, octets out. It knows prefixes and tunnels, not mobility. Read model.py first.

compiled: the Cython path is built; without it Engine runs the model, correct and slow.
"""

from engine import fast
from engine.engine import Engine
from engine.errors import (
    AddressInUse,
    AddressNotLocal,
    BadTunnel,
    DeviceMissing,
    EngineError,
    NameInUse,
    NoRights,
    NotCompiled,
    PortDown,
    PortError,
    UnknownPrefix,
)
from engine.ports import Port, PortKind, open_ip6, open_tun, open_udp
from engine.stats import Counters, Drop, TunnelStats
from engine.tables import Binding, Side, Tables
from engine.tunnels import UDP_PORT, Encapsulated, Encapsulation, Tunnel

compiled: bool = fast.available

__all__ = [
    "UDP_PORT",
    "AddressInUse",
    "AddressNotLocal",
    "BadTunnel",
    "Binding",
    "Counters",
    "DeviceMissing",
    "Drop",
    "Encapsulated",
    "Encapsulation",
    "Engine",
    "EngineError",
    "NameInUse",
    "NoRights",
    "NotCompiled",
    "Port",
    "PortDown",
    "PortError",
    "PortKind",
    "Side",
    "Tables",
    "Tunnel",
    "TunnelStats",
    "UnknownPrefix",
    "compiled",
    "open_ip6",
    "open_tun",
    "open_udp",
]
