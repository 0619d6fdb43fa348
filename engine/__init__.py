"""The packet engine: octets in, octets out. It knows prefixes and tunnels, not mobility. Read model/path.py first.

    tables = Tables()                                              what the path knows; edit it while it runs
    tables.bind(prefix, tunnel, side=Side.ANCHOR)
    engine = Engine(tables)
    engine.encapsulate([packet, ...])                              in memory, or
    engine.add_port(open_tun("tun0", mtu=1400)); engine.serve(port)    with sockets

compiled: the Cython path is built; without it Engine runs the model, correct and slow.
"""

from engine import fast
from engine.engine import Engine, Workers
from engine.errors import (
    AddressInUse,
    AddressNotLocal,
    BadBundle,
    BadPacket,
    BadTunnel,
    DeviceMissing,
    EngineError,
    Misused,
    NameInUse,
    NoRights,
    NotCompiled,
    PortDown,
    PortError,
    UnknownPrefix,
    UnknownTunnel,
)
from engine.offloads import Offloads
from engine.ports import Port, PortKind, open_gre, open_ip, open_tun, open_udp
from engine.rules import BadRule, Discard, FlowRule, Spread, Steer, TrafficSelector
from engine.stats import Counters, Drop, TunnelStats
from engine.tables import (
    Binding,
    Bundle,
    HeldStats,
    HoldBuffer,
    OpenConnections,
    Path,
    Policy,
    ReorderGroup,
    ReorderStats,
    RuleStats,
    Side,
    Tables,
)
from engine.tunnels import UDP_PORT, Encapsulation, Tunnel, TunnelState

compiled: bool = fast.available

__all__ = [
    "UDP_PORT",
    "AddressInUse",
    "AddressNotLocal",
    "BadBundle",
    "BadPacket",
    "BadRule",
    "BadTunnel",
    "Binding",
    "Bundle",
    "Counters",
    "DeviceMissing",
    "Discard",
    "Drop",
    "Encapsulation",
    "Engine",
    "EngineError",
    "FlowRule",
    "HeldStats",
    "HoldBuffer",
    "Misused",
    "NameInUse",
    "NoRights",
    "NotCompiled",
    "Offloads",
    "OpenConnections",
    "Path",
    "Policy",
    "Port",
    "PortDown",
    "PortError",
    "PortKind",
    "ReorderGroup",
    "ReorderStats",
    "RuleStats",
    "Side",
    "Spread",
    "Steer",
    "Tables",
    "TrafficSelector",
    "Tunnel",
    "TunnelState",
    "TunnelStats",
    "UnknownPrefix",
    "UnknownTunnel",
    "Workers",
    "compiled",
    "open_gre",
    "open_ip",
    "open_tun",
    "open_udp",
]
