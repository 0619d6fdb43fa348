"""TOML and flags -> one frozen Config; every problem is reported at once as `file:line: key: what was expected`.

`SCHEMA` is the whole language: table, key, how its value is read, what it means. Flags are laid over the file as one
more source, so a value is checked the same way wherever it came from. Nothing in here opens a socket.
"""

import difflib
import os
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv6Address, IPv6Network
from pathlib import Path
from typing import Any, TypeVar

from engine import Encapsulation
from router.errors import ConfigError
from router.places import DEFAULT_NAME, default_socket, default_state_dir
from signaling.settings import DEFAULT_SPI, Authentication, Peer, Transport

T = TypeVar("T")

VALID_LIFETIME = 7200  # s
PREFERRED_LIFETIME = 1800  # s, RFC 8273 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """All one router is told. None: found out or made at the start."""

    name: str = DEFAULT_NAME
    state_dir: Path = field(default_factory=default_state_dir)
    tun: str = "openmar0"
    table: int = 5436  # routing table of uplink that goes to anchors
    address: IPv6Address | None = None
    encapsulation: Encapsulation = Encapsulation.UDP
    transport: Transport = Transport.MOBILITY_HEADER
    interfaces: tuple[str, ...] = ()
    realm: str = "openmar"
    fixed_link_layer: bool = True
    on_link: bool = True
    probe_interval: float = 30.0
    prefixes: tuple[IPv6Network, ...] = ()
    valid_lifetime: int = VALID_LIFETIME
    preferred_lifetime: int = PREFERRED_LIFETIME
    guard: float = 10.0
    binding_lifetime: int = 300
    authentication: Authentication = Authentication.REQUIRED
    timestamp_window: float = 0.3
    store: str | None = None
    socket: Path | None = None
    peers: tuple[Peer, ...] = ()
    nodes: Mapping[bytes, str] = field(default_factory=dict)  # link-layer address -> MN-Identifier

    @property
    def store_url(self) -> str:
        """Where the sessions are: as configured, else a file in the state directory."""
        return self.store or f"sqlite://{self.state_dir / 'sessions.db'}"

    @property
    def socket_path(self) -> Path:
        """The control socket: as configured, else named after the router in the run directory."""
        return self.socket or default_socket(self.name)


# --- how a value is read: each takes the TOML value and raises ValueError(what was expected) ---


def name(value: object) -> str:
    """A short name for files, sockets and people."""
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,31}", value):
        raise ValueError('a name of 1 to 32 letters, digits, ".", "_" or "-"')
    return value


def interface(value: object) -> str:
    """The name of a network interface."""
    if not isinstance(value, str) or not re.fullmatch(r"[^\s/:]{1,15}", value):
        raise ValueError("an interface name of at most 15 characters")
    return value


def address(value: object) -> IPv6Address:
    """A unicast IPv6 address that other machines, or at least this one, can send to."""
    try:
        result = IPv6Address(value if isinstance(value, str) else "")
    except ValueError:
        raise ValueError('an IPv6 address such as "2001:db8::1"') from None
    if result.is_multicast or result.is_unspecified or result.is_link_local:
        raise ValueError("a unicast IPv6 address with more than link scope")
    return result


def pool(value: object) -> IPv6Network:
    """A pool of /64 prefixes."""
    try:
        result = IPv6Network(value if isinstance(value, str) else "")
    except ValueError as error:
        why = " without host bits" if "host bits" in str(error) else ""
        raise ValueError(f'an IPv6 prefix{why} such as "2001:db8:1000::/48"') from None
    if result.prefixlen > 64:
        raise ValueError("a prefix of /64 or shorter: each node gets a /64 of it")
    if result.is_multicast or result.is_link_local:
        raise ValueError("a prefix of unicast addresses with more than link scope")
    return result


def path(value: object) -> Path:
    """A path of the file system."""
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError("a path")
    return Path(value)


def socket_path(value: object) -> Path:
    """A path short enough for a Unix socket."""
    result = path(value)
    if len(os.fsencode(result)) > 107:
        raise ValueError("a path of at most 107 octets: the kernel takes no longer one for a socket")
    return result


def store_url(value: object) -> str:
    """Where sessions are kept."""
    if not isinstance(value, str) or not re.fullmatch(r"sqlite://[^?#]+", value):
        raise ValueError('"sqlite://PATH"')
    return value


def boolean(value: object) -> bool:
    """true or false."""
    if not isinstance(value, bool):
        raise ValueError("true or false")
    return value


def number(low: float, high: float, unit: str = "") -> Callable[[object], Any]:
    """A whole number in these bounds; where the bounds are floats, any number."""
    kinds: tuple[type, ...] = (int, float) if isinstance(low, float) else (int,)

    def read(value: object) -> Any:
        if isinstance(value, bool) or not isinstance(value, kinds) or not low <= value <= high:  # type: ignore[operator]
            raise ValueError(f"a {'' if float in kinds else 'whole '}number from {low:g} to {high:g}{unit and ' ' + unit}")
        return value

    return read


def one_of(kind: Callable[[Any], T], *values: str) -> Callable[[object], T]:
    """One of these words."""

    def read(value: object) -> T:
        if value not in values:
            raise ValueError(" or ".join(f'"{word}"' for word in values))
        return kind(value)

    return read


def several(read_one: Callable[[object], T]) -> Callable[[object], tuple[T, ...]]:
    """A list of such values."""

    def read(value: object) -> tuple[T, ...]:
        if not isinstance(value, list):
            raise ValueError("a list: [...]")
        return tuple(read_one(item) for item in value)

    return read


def secret(value: object) -> bytes:
    """A key of at least 16 octets, in hexadecimal."""
    expected = 'at least 32 hexadecimal digits: "hex:000102…" (make one: openssl rand -hex 16)'
    if not isinstance(value, str) or not value.startswith("hex:"):
        raise ValueError(expected)
    try:
        key = bytes.fromhex(value[4:])
    except ValueError:
        raise ValueError(expected) from None
    if len(key) < 16:
        raise ValueError(expected)
    return key


def secret_file(value: object) -> bytes:
    """A file that holds such a key, with or without "hex:" before it."""
    file = path(value)
    try:
        text = file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"a readable key file: {getattr(error, 'strerror', None) or 'not text'}") from None
    return secret(text if text.startswith("hex:") else f"hex:{text}")


def link_layer(value: object) -> bytes:
    """An Ethernet address."""
    if not isinstance(value, str) or not re.fullmatch(r"([0-9A-Fa-f]{2}:){5}[0-9A-Fa-f]{2}", value):
        raise ValueError('a link-layer address such as "02:00:00:00:00:11"')
    return bytes.fromhex(value.replace(":", ""))


def node_id(value: object) -> str:
    """A Network Access Identifier (RFC 4283 3.1, RFC 7542)."""
    if not isinstance(value, str) or not re.fullmatch(r"[^\s@]+@[^\s@]+", value) or len(value.encode()) > 253:
        raise ValueError('an identifier such as "mn1@example.net"')
    return value


def realm(value: object) -> str:
    """The part after @ of identifiers made from link-layer addresses."""
    if not isinstance(value, str) or not re.fullmatch(r"[^\s@]{1,200}", value):
        raise ValueError('a realm such as "example.net"')
    return value


# --- the language: (table, key) -> (field of Config, reader) ---

SCHEMA: dict[str, dict[str, tuple[str, Callable[[object], Any]]]] = {
    "router": {
        "name": ("name", name),
        "state_dir": ("state_dir", path),
        "tun": ("tun", interface),
        "table": ("table", number(1, 0xFFFFFFFE)),
    },
    "underlay": {
        "address": ("address", address),
        "encapsulation": ("encapsulation", one_of(Encapsulation, "udp", "ip6")),
        "signaling": ("transport", one_of(Transport, "mh", "udp")),
    },
    "access": {
        "interfaces": ("interfaces", several(interface)),
        "realm": ("realm", realm),
        "fixed_link_layer": ("fixed_link_layer", boolean),
        "on_link": ("on_link", boolean),
        "probe_interval": ("probe_interval", number(0.0, 3600.0, "s")),
    },
    "anchor": {
        "prefixes": ("prefixes", several(pool)),
        "valid_lifetime": ("valid_lifetime", number(60, 2592000, "s")),
        "preferred_lifetime": ("preferred_lifetime", number(30, 2592000, "s")),
        "guard": ("guard", number(1.0, 3600.0, "s")),
    },
    "binding": {
        "lifetime": ("binding_lifetime", number(8, 262140, "s")),
    },
    "security": {
        "authentication": ("authentication", one_of(Authentication, "required", "none")),
        "timestamp_window": ("timestamp_window", number(0.01, 60.0, "s")),
    },
    "store": {"url": ("store", store_url)},
    "control": {"socket": ("socket", socket_path)},
}
PEER: dict[str, tuple[str, Callable[[object], Any]]] = {
    "name": ("name", name),
    "address": ("address", address),
    "key": ("key", secret),
    "key_file": ("key", secret_file),
    "spi": ("spi", number(DEFAULT_SPI, 0xFFFFFFFF)),
}
NODE: dict[str, tuple[str, Callable[[object], Any]]] = {
    "id": ("id", node_id),
    "link_layer": ("link_layer", link_layer),
}
LISTS = {"peer": PEER, "node": NODE}


class Problems:
    """What is wrong with a configuration, each with the place where it was found."""

    def __init__(self, source: str, lines: Mapping[tuple[object, ...], int]) -> None:
        self.found: list[tuple[int, str]] = []
        self._source = source
        self._lines = lines

    def add(self, where: tuple[object, ...], key: str, expected: str) -> None:
        """A problem at this place: (table, key), or (table, number, key) for a list of tables."""
        line = self._lines.get(where) or self._lines.get(where[:-1]) or 0
        place = f"{self._source}:{line}" if line else self._source
        self.found.append((line, f"{place}: {key}: {expected}"))

    def raise_if_any(self) -> None:
        """ConfigError with one line for each problem, in the order of the file."""
        if self.found:
            raise ConfigError("\n".join(text for _, text in sorted(self.found, key=lambda item: item[0])))


def load(file: Path | None, overrides: Mapping[str, Any] | None = None) -> Config:
    """The configuration of a file with flags laid over it. Raises ConfigError that lists every problem.

    overrides: like the parsed file ({"router": {"name": ...}, "peer": [...]}); lists are added, values replaced.
    """
    tables: dict[str, Any] = {}
    lines: dict[tuple[object, ...], int] = {}
    if file is not None:
        text = _read(file)
        try:
            tables = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(_syntax_error(file, error)) from None
        lines = key_lines(text)
    problems = Problems(str(file) if file else "command line", lines)
    values = _check(tables, problems)
    if overrides:
        flags = Problems("command line", {})
        changed = _check(overrides, flags)
        flags.raise_if_any() if not problems.found else problems.found.extend(flags.found)
        for key in ("peers", "nodes"):
            if key in changed and key in values:
                changed[key] = values[key] + changed[key]
        values |= changed
    _check_together(values, problems)
    problems.raise_if_any()
    values["nodes"] = {item["link_layer"]: item["id"] for item in values.get("nodes", ())}
    values["peers"] = tuple(Peer(**item) for item in values.get("peers", ()))
    return Config(**values)


def _read(file: Path) -> str:
    try:
        return file.read_text()
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}: expected a readable TOML file") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{file}: not UTF-8 text: expected a TOML file") from None


def _syntax_error(file: Path, error: tomllib.TOMLDecodeError) -> str:
    found = re.search(r"(.*) \(at (?:line (\d+), column \d+|end of document)\)", str(error))
    text, line = (found[1], found[2]) if found else (str(error), None)
    return f"{file}:{line or 'end'}: syntax: {text[:1].lower()}{text[1:]}"


def key_lines(text: str) -> dict[tuple[object, ...], int]:
    """Where each table and key stands: (table, key) or (table, number, key) -> line; tomllib does not tell."""
    lines: dict[tuple[object, ...], int] = {}
    table: tuple[object, ...] = ()
    counts: dict[str, int] = {}
    for at, line in enumerate(text.splitlines(), 1):
        if header := re.match(r"\s*\[\[\s*([\w.-]+)\s*\]\]", line):
            number_ = counts[header[1]] = counts.get(header[1], -1) + 1
            table = (header[1], number_)
            lines.setdefault((header[1],), at)
            lines[table] = at
        elif header := re.match(r"\s*\[\s*([\w.-]+)\s*\]", line):
            table = (header[1],)
            lines[table] = at
        elif key := re.match(r"""\s*["']?([\w-]+)["']?\s*[=.]""", line):
            lines.setdefault((*table, key[1]), at)
    return lines


def _check(tables: Mapping[str, Any], problems: Problems) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for table, content in tables.items():
        if table in SCHEMA and isinstance(content, dict):
            values |= _check_table((table,), table, content, SCHEMA[table], problems)
        elif table in LISTS and isinstance(content, list) and all(isinstance(item, dict) for item in content):
            items = [
                _check_table((table, at), table, item, LISTS[table], problems) for at, item in enumerate(content)
            ]
            values[f"{table}s"] = tuple(_complete(table, at, item, problems) for at, item in enumerate(items))
        elif table in SCHEMA:
            problems.add((table,), table, f"expected a table: [{table}]")
        elif table in LISTS:
            problems.add((table,), table, f"expected a list of tables: [[{table}]]")
        else:
            problems.add((table,), table, f"unknown table{_nearest(table, [*SCHEMA, *LISTS])}")
    return values


def _check_table(
    where: tuple[object, ...],
    table: str,
    content: Mapping[str, Any],
    keys: Mapping[str, tuple[str, Callable[[object], Any]]],
    problems: Problems,
) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, value in content.items():
        if key not in keys:
            problems.add((*where, key), f"{table}.{key}", f"unknown key{_nearest(key, keys)}")
            continue
        target, read = keys[key]
        if target in values:
            problems.add((*where, key), f"{table}.{key}", "given twice: expected one of key and key_file")
            continue
        try:
            values[target] = read(value)
        except ValueError as expected:
            problems.add((*where, key), f"{table}.{key}", f"expected {expected}")
            values[target] = None
    return values


def _complete(table: str, at: int, item: dict[str, Any], problems: Problems) -> dict[str, Any]:
    """An item of a list of tables must have its keys."""
    for key in {"peer": ("name", "address"), "node": ("id", "link_layer")}[table]:
        if key not in item:
            problems.add((table, at, key), f"{table}.{key}", "missing")
            item[key] = None
    return item


def _nearest(word: str, words: Mapping[str, Any] | Sequence[str]) -> str:
    near = difflib.get_close_matches(word, list(words), n=1, cutoff=0.5)
    return f": did you mean {near[0]}?" if near else f": expected one of {', '.join(words)}"


def _check_together(values: Mapping[str, Any], problems: Problems) -> None:
    """What can only be seen from several values at once."""
    pools = [item for item in values.get("prefixes") or ()]
    for at, one in enumerate(pools):
        for other in pools[:at]:
            if one.overlaps(other):
                problems.add(("anchor", "prefixes"), "anchor.prefixes", f"{one} overlaps {other}: expected disjoint pools")
    valid = values.get("valid_lifetime") or VALID_LIFETIME
    preferred = values.get("preferred_lifetime") or PREFERRED_LIFETIME
    if preferred > valid:
        key = "preferred_lifetime" if "preferred_lifetime" in values else "valid_lifetime"
        problems.add(("anchor", key), f"anchor.{key}", f"preferred {preferred} s is longer than valid {valid} s")
    interfaces = values.get("interfaces") or ()
    for twice in sorted({item for item in interfaces if interfaces.count(item) > 1}):
        problems.add(("access", "interfaces"), "access.interfaces", f"{twice} is named twice")
    _check_peers(values, problems)
    seen: set[bytes] = set()
    for at, item in enumerate(values.get("nodes", ())):
        if item["link_layer"] and item["link_layer"] in seen:
            problems.add(("node", at, "link_layer"), "node.link_layer", "this address has an identifier already")
        seen.add(item["link_layer"])


def _check_peers(values: Mapping[str, Any], problems: Problems) -> None:
    required = values.get("authentication", Authentication.REQUIRED) is Authentication.REQUIRED
    names: set[str] = set()
    addresses: set[IPv6Address] = {values["address"]} if values.get("address") else set()
    for at, item in enumerate(values.get("peers", ())):
        if item["name"] and item["name"] in names:
            problems.add(("peer", at, "name"), "peer.name", f'"{item["name"]}" is taken by a peer above')
        if item["address"] and item["address"] in addresses:
            problems.add(("peer", at, "address"), "peer.address", "belongs to this router or a peer above")
        if required and "key" not in item:
            cure = 'missing: expected key or key_file, or [security] authentication = "none"'
            problems.add(("peer", at, "key"), "peer.key", cure)
        names.add(item["name"])
        addresses.add(item["address"])
