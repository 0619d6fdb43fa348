"""TOML and flags -> one frozen Config; every problem is reported at once as `file:line: key: what was expected`.

`SCHEMA` is the whole language: table, key, how its value is read (`values.py`), which part of Config it becomes. Flags
are laid over the file as one more source, so a value is checked the same way wherever it came from. What can only be
seen from several values together is in `coherence.py`. Nothing in here opens a socket.
"""

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from ipaddress import IPv4Address, IPv4Network, IPv6Network
from operator import attrgetter
from pathlib import Path
from typing import Any

from engine import Encapsulation, HoldBuffer, Offloads
from router import coherence, flow_sense, mar_sense, node_sense, policy_use, toml_text, values
from router.errors import ConfigError
from router.flow_policies import Labels, policies
from router.places import DEFAULT_NAME, RoleName, default_socket, default_state_dir
from router.toml_text import COMMAND_LINE, Lines, Place, Problems
from router.values import boolean, number, one_of, several
from signaling.flow_rules import FlowRule, Spread
from signaling.settings import (
    DEFAULT_SPI,
    Address,
    Authentication,
    CmdMode,
    NodeProfile,
    PathCare,
    Peer,
    PeerLost,
    Sharing,
    Site,
    Transport,
    Uplink,
)

Reader = Callable[[object], Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where a configuration came from, to read it again."""

    file: Path | None = None
    flags: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchoring:
    """What only an LMA needs of [anchor]. Times in s."""

    ipv4_prefixes: tuple[IPv4Network, ...] = ()
    delegated_prefixes: tuple[IPv6Network, ...] = ()
    delegated_length: int = 56
    delete_delay: float = 10.0
    assign_delay: float = 1.5
    wait_for_deregistration: bool = True
    revoke_to_find_out: bool = True
    known_nodes_only: bool = False
    multipath: bool = True
    gre_keys: bool = False
    accept_forced_udp: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Gateway:
    """[gateway]: what a MAG needs. Times in s."""

    anchor: str = ""
    services: Mapping[str, str] = field(default_factory=dict)
    local_routing: bool = False
    timestamps: bool = True
    gre_keys: bool = False
    ipv4: bool = False
    force_udp: bool = False
    refresh_before: float = 40.0
    bulk_refresh: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Cmd:
    """[cmd]: of a MAR that follows a Central Mobility Database, and of that (RFC 8885)."""

    peer: str = ""  # of a MAR: which peer it is; "": there is a store instead
    mode: CmdMode = CmdMode.PROXY
    aggregation: float = 0.5  # s
    most_anchors: int = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat:
    """[heartbeat] (RFC 5847 5)."""

    interval: float = 60.0  # s
    missing: int = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """All one router is told. None: found out or made at the start."""

    role: RoleName = RoleName.MAR
    name: str = DEFAULT_NAME
    state_dir: Path = field(default_factory=default_state_dir)
    tun: str = "openmar0"
    table: int = 5436  # routing table of uplink that goes to anchors
    realtime: int = 0  # priority before all that has none; 0: as any other program
    address: Address | None = None
    ipv4_address: IPv4Address | None = None
    encapsulation: Encapsulation = Encapsulation.UDP
    transport: Transport = Transport.MOBILITY_HEADER
    interfaces: tuple[str, ...] = ()
    realm: str = "openmar"
    fixed_link_layer: bool = True
    on_link: bool = True
    probe_interval: float = 30.0
    prefixes: tuple[IPv6Network, ...] = ()
    valid_lifetime: int = coherence.VALID_LIFETIME
    preferred_lifetime: int = coherence.PREFERRED_LIFETIME
    guard: float = 10.0
    hold: HoldBuffer = field(default_factory=HoldBuffer)
    idle_after: float = 60.0
    open_idle_after: float = 7440.0  # RFC 5382 REQ-5
    peer_lost: PeerLost = PeerLost.HOLD
    binding_lifetime: int = coherence.BINDING_LIFETIME
    authentication: Authentication = Authentication.REQUIRED
    timestamp_window: float = 0.3
    store: str | None = None
    socket: Path | None = None
    peers: tuple[Peer, ...] = ()
    workers: int = 0
    clamp_mss: bool = False
    offloads: Offloads = field(default_factory=Offloads)
    nodes: Mapping[bytes, str] = field(default_factory=dict)  # link-layer address -> MN-Identifier
    profiles: tuple[NodeProfile, ...] = ()
    anchoring: Anchoring = field(default_factory=Anchoring)
    gateway: Gateway = field(default_factory=Gateway)
    uplinks: tuple[Uplink, ...] = ()
    sites: tuple[Site, ...] = ()
    labels: Mapping[str, int] = field(default_factory=dict)
    policies: Mapping[str, tuple[FlowRule, ...]] = field(default_factory=dict)
    paths: PathCare = field(default_factory=PathCare)
    heartbeat: Heartbeat = field(default_factory=Heartbeat)
    cmd: Cmd = field(default_factory=Cmd)
    doubts: tuple[str, ...] = field(default=(), compare=False, repr=False)  # lines: what is probably not meant
    source: Source = field(default_factory=Source, compare=False, repr=False)

    @property
    def store_url(self) -> str:
        """Where the sessions are: as configured, else a file in the state directory."""
        return self.store or f"sqlite://{self.state_dir / 'sessions.db'}"

    @property
    def socket_path(self) -> Path:
        """The control socket: as configured, else named after the router in the run directory."""
        return self.socket or default_socket(self.name)

    def value(self, name: str) -> Any:
        """Of a field, or of a field of a part: "part.field"."""
        return attrgetter(name)(self)

    def read_again(self) -> "Config":
        """The configuration as its file says it now, under the same flags. Raises ConfigError."""
        return load(self.source.file, self.source.flags, role=self.role)


def refused_offloads(value: object) -> Offloads:
    """Which of the kernel's offloads are not to be used."""
    names = [field.name for field in fields(Offloads)]
    if not isinstance(value, list) or not all(name in names for name in value):
        raise ValueError(f"a list of {', '.join(names)}")
    return Offloads(**{name: name not in value for name in names})


# --- the language: (table, key) -> (field of Config, "part.field" of a part of it; reader) ---

SCHEMA: dict[str, dict[str, tuple[str, Reader]]] = {
    "router": {
        "name": ("name", values.name),
        "state_dir": ("state_dir", values.path),
        "tun": ("tun", values.interface),
        "table": ("table", values.table),
        "realtime": ("realtime", number(0, 99)),
    },
    "underlay": {
        "address": ("address", values.address),
        "ipv4_address": ("ipv4_address", values.ipv4_address),
        "encapsulation": ("encapsulation", one_of(Encapsulation, "udp", "ip", "gre")),
        "signaling": ("transport", one_of(Transport, "mh", "udp")),
    },
    "engine": {
        "workers": ("workers", number(0, 32)),
        "clamp_mss": ("clamp_mss", boolean),
        "refuse_offloads": ("offloads", refused_offloads),
    },
    "access": {
        "interfaces": ("interfaces", several(values.interface)),
        "realm": ("realm", values.realm),
        "fixed_link_layer": ("fixed_link_layer", boolean),
        "on_link": ("on_link", boolean),
        "probe_interval": ("probe_interval", number(0.0, 3600.0, "s")),
    },
    "anchor": {
        "prefixes": ("prefixes", several(values.pool)),
        "valid_lifetime": ("valid_lifetime", number(60, 2592000, "s")),
        "preferred_lifetime": ("preferred_lifetime", number(30, 2592000, "s")),
        "guard": ("guard", number(1.0, 3600.0, "s")),
        "hold_octets": ("hold.octets", number(0, 1 << 30, "octets")),
        "hold_seconds": ("hold.seconds", number(0.01, 60.0, "s")),
        "hold_pace": ("hold.pace", number(0, 1 << 40, "octets a second")),
        "idle_after": ("idle_after", number(0.0, 86400.0, "s")),
        "open_idle_after": ("open_idle_after", number(0.0, 604800.0, "s")),
        "peer_lost": ("peer_lost", one_of(PeerLost, "hold", "drop")),
        "ipv4_prefixes": ("anchoring.ipv4_prefixes", several(values.ipv4_pool)),
        "delegated_prefixes": ("anchoring.delegated_prefixes", several(values.delegated_prefix)),
        "delegated_length": ("anchoring.delegated_length", number(32, 64)),
        "delete_delay": ("anchoring.delete_delay", number(0.1, 3600.0, "s")),
        "assign_delay": ("anchoring.assign_delay", number(0.1, 60.0, "s")),
        "wait_for_deregistration": ("anchoring.wait_for_deregistration", boolean),
        "revoke_to_find_out": ("anchoring.revoke_to_find_out", boolean),
        "known_nodes_only": ("anchoring.known_nodes_only", boolean),
        "multipath": ("anchoring.multipath", boolean),
        "gre_keys": ("anchoring.gre_keys", boolean),
        "accept_forced_udp": ("anchoring.accept_forced_udp", boolean),
    },
    "gateway": {
        "anchor": ("gateway.anchor", values.name),
        "services": ("gateway.services", values.services),
        "local_routing": ("gateway.local_routing", boolean),
        "timestamps": ("gateway.timestamps", boolean),
        "gre_keys": ("gateway.gre_keys", boolean),
        "ipv4": ("gateway.ipv4", boolean),
        "force_udp": ("gateway.force_udp", boolean),
        "refresh_before": ("gateway.refresh_before", number(1.0, 3600.0, "s")),
        "bulk_refresh": ("gateway.bulk_refresh", boolean),
    },
    "paths": {
        "interval": ("paths.interval", number(0.01, 60.0, "s")),
        "idle_interval": ("paths.idle_interval", number(0.01, 3600.0, "s")),
        "suspect_after": ("paths.suspect_after", number(1, 100)),
        "down_after": ("paths.down_after", number(1, 100)),
        "up_after": ("paths.up_after", number(1, 100)),
    },
    "heartbeat": {
        "interval": ("heartbeat.interval", number(30.0, 3600.0, "s")),  # RFC 5847 5
        "missing": ("heartbeat.missing", number(1, 100)),
    },
    "binding": {
        "lifetime": ("binding_lifetime", number(8, 262140, "s")),
    },
    "security": {
        "authentication": ("authentication", one_of(Authentication, "required", "none")),
        "timestamp_window": ("timestamp_window", number(0.01, 60.0, "s")),
    },
    "cmd": {
        "peer": ("cmd.peer", values.name),
        "mode": ("cmd.mode", one_of(CmdMode, "proxy", "relay", "locator")),
        "aggregation": ("cmd.aggregation", number(0.01, 10.0, "s")),
        "most_anchors": ("cmd.most_anchors", number(1, 16)),
    },
    "store": {"url": ("store", values.store_url)},
    "control": {"socket": ("socket", values.socket_path)},
}
PEER: dict[str, tuple[str, Reader]] = {
    "name": ("name", values.name),
    "address": ("address", values.address),
    "addresses": ("addresses", several(values.address)),
    "key": ("key", values.secret),
    "key_file": ("key", values.secret_file),
    "spi": ("spi", number(DEFAULT_SPI, 0xFFFFFFFF)),
}
NODE: dict[str, tuple[str, Reader]] = {
    "id": ("node", values.profile_id),
    "link_layer": ("link_layer", values.link_layer),
    "gateways": ("gateways", several(values.name)),
    "refused": ("refused", boolean),
    "prefixes": ("prefixes", several(values.home_prefix)),
    "ipv6": ("ipv6", boolean),
    "ipv4": ("ipv4", boolean),
    "ipv4_address": ("ipv4_address", values.ipv4_address),
    "services": ("services", several(values.service)),
    "delegation": ("delegation", boolean),
    "delegated": ("delegated", several(values.delegated_prefix)),
    "sharing": ("sharing", one_of(Sharing, "unique-prefix", "shared-prefix", "shared-address")),
    "multipath": ("multipath", boolean),
    "takes_over": ("takes_over", boolean),
    "policy": ("policy", values.name),
}
UPLINK: dict[str, tuple[str, Reader]] = {
    "interface": ("interface", values.interface),
    "address": ("address", values.address),
    "att": ("technology", values.technology),
    "label": ("label", values.label),
    "bid": ("binding_id", number(1, 254)),
    "weight": ("weight", number(1, 65535)),
}
SITE: dict[str, tuple[str, Reader]] = {
    "node": ("node", values.node_id),
    "interface": ("interface", values.interface),
    "delegated": ("delegated", boolean),
    "delegated_interface": ("delegated_interface", values.interface),
}
FLOW: dict[str, tuple[str, Reader]] = {
    "policy": ("policy", values.name),
    "name": ("name", values.name),
    "family": ("family", one_of(str, "ipv6", "ipv4")),
    "source": ("source", values.addresses),
    "destination": ("destination", values.addresses),
    "source_port": ("source_port", values.numbers(0xFFFF)),
    "destination_port": ("destination_port", values.numbers(0xFFFF)),
    "protocol": ("protocol", values.protocol),
    "traffic_class": ("traffic_class", values.numbers(0xFF)),
    "flow_label": ("flow_label", values.numbers(0xFFFFF)),
    "spi": ("spi", values.numbers(0xFFFFFFFF)),
    "labels": ("labels", several(values.label)),
    "spread": ("spread", one_of(Spread, *(item.value for item in Spread))),
}
KEYS = {field: f"{table}.{key}" for table, keys in SCHEMA.items() for key, (field, _) in keys.items()}
"""Field of Config -> what the file calls it; a field of a part is "part.field"."""
LISTS = {"peer": PEER, "node": NODE, "uplink": UPLINK, "site": SITE, "flow": FLOW}
NAMES: dict[str, Reader] = {"labels": number(0, 255)}  # tables whose keys are names that the operator chooses
NEEDED = {"peer": ("name",), "node": ("id",), "uplink": ("interface",), "site": ("node",), "flow": ()}
PARTS: dict[str, type] = {
    "hold": HoldBuffer,
    "anchoring": Anchoring,
    "gateway": Gateway,
    "paths": PathCare,
    "heartbeat": Heartbeat,
    "cmd": Cmd,
}


def load(file: Path | None, overrides: Mapping[str, Any] | None = None, *, role: RoleName | None = None) -> Config:
    """The configuration of a file with flags laid over it. Raises ConfigError that lists every problem.

    overrides: like the parsed file ({"router": {"name": ...}, "peer": [...]}). Lists of tables are added to those of
    the file, all other values replace what stands there. role: what it needs must be there; None: any may use it.
    """
    tables: dict[str, Any] = {}
    lines: Lines = {}
    if file is not None:
        text = toml_text.read(file)
        tables = toml_text.parse(file, text)
        lines = toml_text.key_lines(text)
    tables = _overlay(tables, overrides or {}, lines)
    problems = Problems(file, lines)
    found = _check(tables, problems)
    numbers, flows = found.pop("labels", {}), found.pop("flows", ())
    labels = Labels({key: value for key, value in numbers.items() if value is not None})
    flow_sense.check_labels(numbers, problems)
    flow_sense.check_flows(flows, problems)
    if role is RoleName.MAR:
        mar_sense.check(found, flows, labels, problems)
    elif found.get("encapsulation", Encapsulation.UDP) in (Encapsulation.UDP, Encapsulation.IP):
        coherence.refuse_numbers(flows, problems)
    rules = policies(flows, labels, problems)
    coherence.check(found, labels, problems, role)
    policy_use.check(found, flows, labels, rules, problems, role)
    node_sense.check(found, problems)
    problems.raise_if_any()
    if role is not None:
        found = {"name": role.value} | found | {"role": role}
    found |= {"policies": rules, "labels": labels.numbers, "source": Source(file=file, flags=overrides or {})}
    found["doubts"] = tuple(problems.doubts)
    return _assemble(found, labels)


def load_policy(text: str, file_name: str, policy: str, labels: Mapping[str, int]) -> tuple[FlowRule, ...]:
    """The rules of one policy, from a text that is nothing but [[flow]] and [labels]; it may leave out its name.

    file_name: for problems. labels: those known beside its own. Raises ConfigError.
    """
    file = Path(file_name)
    tables = toml_text.parse(file, text)
    problems = Problems(file, toml_text.key_lines(text))
    for table in tables.keys() - {"flow", "labels"}:
        problems.add((table,), "expected nothing but [[flow]] and [labels] in a policy")
    found = _check({key: value for key, value in tables.items() if key in ("flow", "labels")}, problems)
    numbers, flows = found.get("labels", {}), found.get("flows", ())
    own = {key: value for key, value in numbers.items() if value is not None}
    flow_sense.check_labels(numbers, problems)
    flow_sense.check_flows(flows, problems)
    for at, item in enumerate(flows):
        if item.get("policy") not in (None, policy):
            problems.add(("flow", at, "policy"), f'"{item["policy"]}": expected "{policy}", or no such key')
    rules = policies(flows, Labels({**labels, **own}), problems, unnamed=policy)
    problems.raise_if_any()
    if not rules:
        raise ConfigError(f"{file}: no [[flow]]: expected the rules of policy {policy}")
    return rules[policy]


def _overlay(tables: Mapping[str, Any], overrides: Mapping[str, Any], lines: Lines) -> dict[str, Any]:
    """The tables of the file with flags laid over them; lines learns what came from the command line."""
    result = dict(tables)
    for table, given in overrides.items():
        below = result.get(table, type(given)())
        if not isinstance(below, type(given)):
            continue  # the file is wrong there, and will be told so
        if isinstance(given, list):
            lines |= {(table, len(below) + at): COMMAND_LINE for at in range(len(given))}
            result[table] = below + given
        else:
            lines |= {(table, key): COMMAND_LINE for key in given}
            result[table] = below | given
    return result


# --- tables -> values, each read by itself; one that is wrong becomes None ---


def _check(tables: Mapping[str, Any], problems: Problems) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for table, content in tables.items():
        if table in SCHEMA and isinstance(content, dict):
            found |= _check_table((table,), table, content, SCHEMA[table], problems)
        elif table in NAMES and isinstance(content, dict):
            found[table] = _check_names(table, content, problems)
        elif table in LISTS and isinstance(content, list) and all(isinstance(item, dict) for item in content):
            found[f"{table}s"] = tuple(_check_item(table, at, item, problems) for at, item in enumerate(content))
        elif table in SCHEMA or table in NAMES:
            problems.add((table,), f"expected a table: [{table}]")
        elif table in LISTS:
            problems.add((table,), f"expected a list of tables: [[{table}]]")
        else:
            problems.add((table,), f"unknown table{_nearest(table, [*SCHEMA, *NAMES, *LISTS])}")
    return found


def _check_table(
    where: Place, table: str, content: Mapping[str, Any], keys: Mapping[str, tuple[str, Reader]], problems: Problems
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in content.items():
        if key not in keys:
            problems.add((*where, key), f"unknown key{_nearest(key, keys)}")
            continue
        target, read = keys[key]
        if target in found:
            problems.add((*where, key), "given twice: expected one of key and key_file")
            continue
        found[target] = _read(read, value, (*where, key), f"{table}.{key}", problems)
    return found


def _check_names(table: str, content: Mapping[str, Any], problems: Problems) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in content.items():
        _read(values.name, key, (table, key), f"{table}.{key}", problems)
        found[key] = _read(NAMES[table], value, (table, key), f"{table}.{key}", problems)
    return found


def _read(read: Reader, value: object, where: Place, key: str, problems: Problems) -> Any:
    try:
        return read(value)
    except ValueError as expected:
        problems.add(where, f"expected {expected}")
        return None


def _check_item(table: str, at: int, content: Mapping[str, Any], problems: Problems) -> dict[str, Any]:
    """An item of a list of tables: it must have its keys."""
    found = _check_table((table, at), table, content, LISTS[table], problems)
    for key in NEEDED[table]:
        if key not in content:
            problems.add((table, at, key), f"missing: expected in every [[{table}]]")
            found[LISTS[table][key][0]] = None
    return found


def _nearest(word: str, words: Mapping[str, Any] | Sequence[str]) -> str:
    near = difflib.get_close_matches(word, list(words), n=1, cutoff=0.6) or [it for it in words if word in it]
    return f": did you mean {near[0]}?" if near else f": expected one of {', '.join(words)}"


# --- values without a fault -> Config ---


def _assemble(found: dict[str, Any], labels: Labels) -> Config:
    for part, kind in PARTS.items():
        inside = [key for key in found if key.startswith(f"{part}.")]
        found[part] = kind(**{key.partition(".")[2]: found.pop(key) for key in inside})
    nodes = found.pop("nodes", ())
    return Config(
        **found
        | {
            "peers": tuple(Peer(**{"address": None} | item) for item in found.get("peers", ())),
            "nodes": {item["link_layer"]: item["node"] for item in nodes if "link_layer" in item},
            "profiles": _profiles(nodes),
            "uplinks": tuple(
                Uplink(**{"binding_id": at} | item | {"label": labels.number(item.get("label", 0))})
                for at, item in enumerate(found.get("uplinks", ()), 1)
            ),
            "sites": tuple(Site(**item) for item in found.get("sites", ())),
        }
    )


def _profiles(nodes: Sequence[Mapping[str, Any]]) -> tuple[NodeProfile, ...]:
    """One for each node: its tables, one for each of its interfaces, taken together."""
    merged: dict[str, dict[str, Any]] = {}
    for item in nodes:
        profile = merged.setdefault(item["node"], {"link_layers": ()})
        profile.update({key: item[key] for key in item if key != "link_layer"})
        profile["link_layers"] += (item["link_layer"],) if "link_layer" in item else ()
    return tuple(NodeProfile(**item) for item in merged.values())
