"""TOML and flags -> one frozen Config; every problem is reported at once as `file:line: key: what was expected`.

`SCHEMA` is the whole language: table, key, how its value is read, what it means. Flags are laid over the file as one
more source, so a value is checked the same way wherever it came from. Nothing in here opens a socket.
"""

import difflib
import os
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from ipaddress import IPv6Address, IPv6Network
from pathlib import Path
from typing import Any, TypeVar

from engine import Encapsulation, Offloads
from router.errors import ConfigError
from router.places import DEFAULT_NAME, default_socket, default_state_dir
from signaling.settings import DEFAULT_SPI, Authentication, Peer, Transport

T = TypeVar("T")

LEAST_POOL, MOST_POOL = 64, 16  # prefix lengths: one node's prefix, and more than anybody has
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
    workers: int = 0
    clamp_mss: bool = False
    offloads: Offloads = field(default_factory=Offloads)
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
    if (
        not isinstance(value, str)
        or not re.fullmatch(r"[^\s/:%\0]+", value)
        or value in (".", "..")
        or len(os.fsencode(value)) > 15
    ):
        raise ValueError('an interface name of at most 15 characters, such as "eth1"')
    return value


def address(value: object) -> IPv6Address:
    """A unicast IPv6 address that other machines, or at least this one, can send to."""
    try:
        result = IPv6Address(value if isinstance(value, str) else "")
    except ValueError:
        raise ValueError('an IPv6 address such as "2001:db8::1"') from None
    local = result.is_link_local or result.scope_id is not None
    if result.is_multicast or result.is_unspecified or local or result.ipv4_mapped is not None:
        raise ValueError("a unicast IPv6 address with more than link scope")
    return result


def link_local(value: object) -> IPv6Address:
    """A link-local address of a node, without its zone."""
    try:
        result = IPv6Address(value if isinstance(value, str) else "")
    except ValueError:
        result = IPv6Address(0)
    if not result.is_link_local or result.scope_id is not None:
        raise ValueError('a link-local IPv6 address such as "fe80::1"')
    return result


def pool(value: object) -> IPv6Network:
    """A pool of /64 prefixes."""
    try:
        result = IPv6Network(value if isinstance(value, str) else "")
    except ValueError as error:
        why = " without host bits" if "host bits" in str(error) else ""
        raise ValueError(f'an IPv6 prefix{why} such as "2001:db8:1000::/48"') from None
    if not MOST_POOL <= result.prefixlen <= LEAST_POOL:
        raise ValueError(f"a prefix from /{MOST_POOL} to /{LEAST_POOL}: each node gets a /64 of it")
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
    if not isinstance(value, str) or not re.fullmatch(r"sqlite://[^?#\0]+", value):
        raise ValueError('"sqlite://PATH"')
    return value


def boolean(value: object) -> bool:
    """true or false."""
    if not isinstance(value, bool):
        raise ValueError("true or false")
    return value


def number(low: float, high: float, unit: str = "") -> Callable[[object], Any]:
    """A whole number in these bounds; where the bounds are floats, any number."""
    whole = isinstance(low, int)
    bounds = f"from {low} to {high}" if whole else f"from {low:g} to {high:g}"
    expected = f"a {'whole ' if whole else ''}number {bounds} {unit}".rstrip()

    def read(value: object) -> Any:
        fits = isinstance(value, int) or (isinstance(value, float) and not whole)
        if isinstance(value, bool) or not fits or not low <= value <= high:  # type: ignore[operator]
            raise ValueError(expected)
        return value

    return read


def table(value: object) -> int:
    """A routing table that is not one of the kernel's own (253 default, 254 main, 255 local)."""
    result: int = number(1, 0xFFFFFFFE)(value)
    if 253 <= result <= 255:
        raise ValueError("a routing table of its own: 253 to 255 are the kernel's")
    return result


def one_of(kind: Callable[[Any], T], *values: str) -> Callable[[object], T]:
    """One of these words."""

    def read(value: object) -> T:
        if value not in values:
            *most, last = (f'"{word}"' for word in values)
            raise ValueError(f"{', '.join(most)} or {last}")
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


def refused_offloads(value: object) -> Offloads:
    """Which of the kernel's offloads are not to be used."""
    names = [field.name for field in fields(Offloads)]
    if not isinstance(value, list) or not all(name in names for name in value):
        raise ValueError(f"a list of {', '.join(names)}")
    return Offloads(**{name: name not in value for name in names})


# --- the language: (table, key) -> (field of Config, reader) ---

SCHEMA: dict[str, dict[str, tuple[str, Callable[[object], Any]]]] = {
    "router": {
        "name": ("name", name),
        "state_dir": ("state_dir", path),
        "tun": ("tun", interface),
        "table": ("table", table),
    },
    "underlay": {
        "address": ("address", address),
        "encapsulation": ("encapsulation", one_of(Encapsulation, "udp", "ip", "gre")),
        "signaling": ("transport", one_of(Transport, "mh", "udp")),
    },
    "engine": {
        "workers": ("workers", number(0, 32)),
        "clamp_mss": ("clamp_mss", boolean),
        "refuse_offloads": ("offloads", refused_offloads),
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


COMMAND_LINE = 0  # the "line" of what a flag has set

Place = tuple[object, ...]  # (table, key), or (table, number, key) in a list of tables
Lines = dict[Place, int]


class Problems:
    """What is wrong with a configuration, each with the place where it was found."""

    def __init__(self, file: Path | None, lines: Lines) -> None:
        self.found: list[tuple[int, str]] = []
        self._file = file
        self._lines = lines

    def add(self, where: Place, key: str, expected: str) -> None:
        """A problem here; what is missing is placed at its table."""
        places = (where[:length] for length in range(len(where), 0, -1))
        line = next((self._lines[place] for place in places if place in self._lines), None)
        if line == COMMAND_LINE or self._file is None:
            source = "command line"
        else:
            source = str(self._file) if line is None else f"{self._file}:{line}"
        self.found.append((line or 0, f"{source}: {key}: {expected}"))

    def raise_if_any(self) -> None:
        """ConfigError with one line for each problem, in the order of the file."""
        if self.found:
            raise ConfigError("\n".join(text for _, text in sorted(self.found, key=lambda item: item[0])))


def load(file: Path | None, overrides: Mapping[str, Any] | None = None) -> Config:
    """The configuration of a file with flags laid over it. Raises ConfigError that lists every problem.

    overrides: like the parsed file ({"router": {"name": ...}, "peer": [...]}). Lists of tables are added to those of
    the file, all other values replace what stands there.
    """
    tables: dict[str, Any] = {}
    lines: Lines = {}
    if file is not None:
        text = _read(file)
        tables = _parse(file, text)
        lines = key_lines(text)
    tables = _overlay(tables, overrides or {}, lines)
    problems = Problems(file, lines)
    values = _check(tables, problems)
    _check_together(values, problems)
    problems.raise_if_any()
    values["nodes"] = {item["link_layer"]: item["id"] for item in values.get("nodes", ())}
    values["peers"] = tuple(Peer(**item) for item in values.get("peers", ()))
    return Config(**values)


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}: expected a readable TOML file") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{file}: not UTF-8 text: expected a TOML file") from None


def _parse(file: Path, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ConfigError(f"{file}: syntax: nested too deeply") from None
    except ValueError as error:  # TOMLDecodeError, and what Python says of numbers with thousands of digits
        found = re.search(r"(.*) \(at (?:line (\d+), column \d+|end of document)\)", str(error))
        what, line = (found[1], found[2]) if found else (str(error), None)
        line = line or str(text.rstrip("\n").count("\n") + 1)
        raise ConfigError(f"{file}:{line}: syntax: {what[:1].lower()}{what[1:]}") from None


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


# --- where things stand: tomllib does not tell ---

WORD = r"""(?:[A-Za-z0-9_-]+|"(?:\\.|[^"\\\n])*"|'[^'\n]*')"""
DOTTED = rf"{WORD}(?:\s*\.\s*{WORD})*"
STATEMENT = re.compile(
    rf"\s*(?:\[\[\s*(?P<list>{DOTTED})\s*\]\]|\[\s*(?P<table>{DOTTED})\s*\]|(?P<key>{DOTTED})\s*=)"
)
# what has to be stepped over as a whole: strings of several lines, strings, comments; and what opens, closes, ends
TOKEN = re.compile(
    r'''"""(?:\\.|[^\\])*?"{3,5}|'{3}.*?'{3,5}|"(?:\\.|[^"\\\n])*"|'[^'\n]*'|\#[^\n]*|[\[{\]}\n]''', re.DOTALL
)


def key_lines(text: str) -> Lines:
    """Where each table and key of a TOML document without errors stands: place -> line."""
    lines: Lines = {}
    table: Place = ()
    counts: dict[str, int] = {}
    for line, statement in _statements(text):
        found = STATEMENT.match(statement)
        if found is None:
            continue
        names = tuple(word.strip("\"'") for word in re.findall(WORD, found[found.lastgroup or 0]))
        if found["key"]:
            for length in range(1, len(names) + 1):
                lines.setdefault((*table, *names[:length]), line)
            continue
        if found["list"] and len(names) == 1:
            lines.setdefault(names, line)
            counts[names[0]] = counts.get(names[0], -1) + 1
        table = (names[0], counts[names[0]], *names[1:]) if names[0] in counts else names
        lines.setdefault(table, line)
    return lines


def _statements(text: str) -> Iterator[tuple[int, str]]:
    """Headers and assignments, each with the line it begins in; an array may take several."""
    line = first_line = 1
    start = depth = 0
    for token in TOKEN.finditer(text):
        if token[0] in ("[", "{"):
            depth += 1
        elif token[0] in ("]", "}"):
            depth -= 1
        elif token[0] == "\n" and not depth:
            yield first_line, text[start : token.start()]
            first_line, start = line + 1, token.end()
        line += token[0].count("\n")
    yield first_line, text[start:]


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
            problems.add((table, at, key), f"{table}.{key}", f"missing: expected in every [[{table}]]")
            item[key] = None
    return item


def _nearest(word: str, words: Mapping[str, Any] | Sequence[str]) -> str:
    near = difflib.get_close_matches(word, list(words), n=1, cutoff=0.5)
    return f": did you mean {near[0]}?" if near else f": expected one of {', '.join(words)}"


def _check_together(values: Mapping[str, Any], problems: Problems) -> None:
    """What can only be seen from several values at once; a value that is wrong by itself is None."""
    pools = values.get("prefixes") or ()
    for at, one in enumerate(pools):
        for other in pools[:at]:
            if one.overlaps(other):
                expected = f"{one} overlaps {other}: expected disjoint pools"
                problems.add(("anchor", "prefixes"), "anchor.prefixes", expected)
    valid = values.get("valid_lifetime", VALID_LIFETIME)
    preferred = values.get("preferred_lifetime", PREFERRED_LIFETIME)
    if valid and preferred and preferred > valid:
        key = "preferred_lifetime" if "preferred_lifetime" in values else "valid_lifetime"
        expected = f"preferred {preferred} s, valid {valid} s: expected preferred not to be longer"
        problems.add(("anchor", key), f"anchor.{key}", expected)
    interfaces = values.get("interfaces") or ()
    for twice in sorted({item for item in interfaces if interfaces.count(item) > 1}):
        problems.add(("access", "interfaces"), "access.interfaces", f"{twice} is named twice: expected each once")
    _check_peers(values, problems)
    seen: set[bytes] = set()
    for at, item in enumerate(values.get("nodes", ())):
        if item["link_layer"] and item["link_layer"] in seen:
            expected = "has an identifier already: expected an address no node above has"
            problems.add(("node", at, "link_layer"), "node.link_layer", expected)
        seen.add(item["link_layer"])


def _check_peers(values: Mapping[str, Any], problems: Problems) -> None:
    required = values.get("authentication", Authentication.REQUIRED) is Authentication.REQUIRED
    names: set[str] = set()
    addresses: set[IPv6Address] = {values["address"]} if values.get("address") else set()
    for at, item in enumerate(values.get("peers", ())):
        if item["name"] and item["name"] in names:
            problems.add(("peer", at, "name"), "peer.name", f'"{item["name"]}" is taken: expected another name')
        if item["address"] and item["address"] in addresses:
            expected = "belongs to this router or a peer above: expected an address of its own"
            problems.add(("peer", at, "address"), "peer.address", expected)
        if required and "key" not in item:
            cure = 'missing: expected key or key_file, or [security] authentication = "none"'
            problems.add(("peer", at, "key"), "peer.key", cure)
        names.add(item["name"])
        addresses.add(item["address"])
