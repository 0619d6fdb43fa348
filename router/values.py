"""How a value of the configuration is read: each function takes what TOML has and raises ValueError(what was expected).

The readers of signaling's own words (lifetimes, prefixes, names of nodes and access technologies) and of the kernel's
(interfaces, paths, tables). Nothing in here opens anything but a key file; of those that the URL of a store names
it is seen whether they are there.
"""

import os
import re
from collections.abc import Callable, Mapping
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Any, TypeVar

from router.store.url import EXPECTED, parse, why_not_usable
from signaling.iana import AccessTechnologyType, ProtocolNumber
from signaling.settings import Address
from signaling.wire.traffic_selector import Range

T = TypeVar("T")
N = TypeVar("N", IPv4Network, IPv6Network)

LEAST_POOL, MOST_POOL = 64, 16  # prefix lengths: one node's prefix, and more than anybody has
LEAST_IPV4_POOL, MOST_IPV4_POOL = 30, 8
MOST_KEY_FILE = 4096  # characters
EVERY_NODE = "*"  # the profile of nodes that have none of their own
# unspecified, loopback and mapped addresses: the kernel forwards none of them
NEVER_ROUTED = (IPv6Network("::/96"), IPv6Network("::ffff:0:0/96"))
NEVER_ROUTED_IPV4 = (IPv4Network("0.0.0.0/8"), IPv4Network("127.0.0.0/8"))
TECHNOLOGIES = {item.name.lower().replace("_", "-"): item for item in AccessTechnologyType if item.value}
PROTOCOLS = {item.name.lower(): int(item) for item in ProtocolNumber if item.value} | {
    "icmp": 1,
    "dccp": 33,
    "sctp": 132,
    "udplite": 136,
}


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


def address(value: object) -> Address:
    """A unicast address that other machines, or at least this one, can send to."""
    try:
        result = ip_address(value if isinstance(value, str) else "")
    except ValueError:
        raise ValueError('an IPv6 address such as "2001:db8::1", or an IPv4 address') from None
    if isinstance(result, IPv4Address):
        return ipv4_address(value)
    local = result.is_link_local or result.scope_id is not None
    if result.is_multicast or result.is_unspecified or local or result.ipv4_mapped is not None:
        raise ValueError("a unicast IPv6 address with more than link scope")
    return result


def ipv4_address(value: object) -> IPv4Address:
    """A unicast IPv4 address."""
    try:
        result = IPv4Address(value if isinstance(value, str) else "")
    except ValueError:
        raise ValueError('an IPv4 address such as "192.0.2.1"') from None
    if result.is_multicast or result.is_unspecified or result.is_link_local or int(result) == 0xFFFFFFFF:
        raise ValueError("a unicast IPv4 address with more than link scope")
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
    result = _prefix(value, 'an IPv6 prefix{} such as "2001:db8:1000::/48"', IPv6Network)
    if not MOST_POOL <= result.prefixlen <= LEAST_POOL:
        raise ValueError(f"a prefix from /{MOST_POOL} to /{LEAST_POOL}: each node gets a /64 of it")
    return _routable(result)


def ipv4_pool(value: object) -> IPv4Network:
    """A pool of IPv4 home addresses."""
    result = _prefix(value, 'an IPv4 prefix{} such as "10.5.0.0/16"', IPv4Network)
    if not MOST_IPV4_POOL <= result.prefixlen <= LEAST_IPV4_POOL:
        raise ValueError(f"a prefix from /{MOST_IPV4_POOL} to /{LEAST_IPV4_POOL}: its first address is the router's")
    return _routable(result)


def home_prefix(value: object) -> IPv6Network:
    """A home network prefix of one node."""
    result = _prefix(value, 'an IPv6 prefix{} such as "2001:db8:1000:1::/64"', IPv6Network)
    if result.prefixlen != LEAST_POOL:
        raise ValueError(f"a prefix of one node: /{LEAST_POOL}")
    return _routable(result)


def delegated_prefix(value: object) -> IPv6Network:
    """A prefix for the network behind a node, or a pool of them."""
    result = _prefix(value, 'an IPv6 prefix{} such as "2001:db8:d000::/36"', IPv6Network)
    if not MOST_POOL <= result.prefixlen <= LEAST_POOL:
        raise ValueError(f"a prefix from /{MOST_POOL} to /{LEAST_POOL}")
    return _routable(result)


def _prefix(value: object, expected: str, kind: type[N]) -> N:
    try:
        return kind(value if isinstance(value, str) else "")
    except ValueError as error:
        raise ValueError(expected.format(" without host bits" if "host bits" in str(error) else "")) from None


def _routable(prefix: N) -> N:
    never = NEVER_ROUTED_IPV4 if isinstance(prefix, IPv4Network) else NEVER_ROUTED
    if prefix.is_multicast or prefix.is_link_local or any(prefix.overlaps(each) for each in never):
        raise ValueError("a prefix of unicast addresses with more than link scope")
    return prefix


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
    if not isinstance(value, str):
        raise ValueError(EXPECTED)
    if why := why_not_usable(parse(value)):
        raise ValueError(why)
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
        if file.exists() and not (file.is_file() or file.is_dir()):  # a device or a pipe may never end
            raise ValueError("a readable key file: not a regular file")
        with file.open() as opened:
            text = opened.read(MOST_KEY_FILE).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"a readable key file: {getattr(error, 'strerror', None) or 'not text'}") from None
    return secret(text if text.startswith("hex:") else f"hex:{text}")


def link_layer(value: object) -> bytes:
    """An Ethernet address."""
    if not isinstance(value, str) or not re.fullmatch(r"([0-9A-Fa-f]{2}:){5}[0-9A-Fa-f]{2}", value):
        raise ValueError('a link-layer address such as "02:00:00:00:00:11"')
    result = bytes.fromhex(value.replace(":", ""))
    if result[0] & 1 or not any(result):
        raise ValueError("the link-layer address of one interface: this one is of a group, or of none")
    return result


def node_id(value: object) -> str:
    """A Network Access Identifier (RFC 4283 3.1, RFC 7542)."""
    if not isinstance(value, str) or not re.fullmatch(r"[^\s@]+@[^\s@]+", value) or len(value.encode()) > 253:
        raise ValueError('an identifier such as "mn1@example.net"')
    return value


def profile_id(value: object) -> str:
    """Whose profile it is: "" for every node without one of its own, written "*"."""
    if value == EVERY_NODE:
        return ""
    try:
        return node_id(value)
    except ValueError as error:
        raise ValueError(f'{error}, or "{EVERY_NODE}" for every other node') from None


def services(value: object) -> Mapping[str, str]:
    """Service selections by node."""
    if not isinstance(value, dict):
        raise ValueError('a table of nodes and services: { "mn1@example.net" = "internet" }')
    return {node_id(node): service(chosen) for node, chosen in value.items()}


def service(value: object) -> str:
    """A service selection identifier (RFC 5149 3)."""
    if not isinstance(value, str) or not 1 <= len(value.encode()) <= 253 or "\0" in value:
        raise ValueError('the name of a service such as "internet"')
    return value


def realm(value: object) -> str:
    """The part after @ of identifiers made from link-layer addresses."""
    if not isinstance(value, str) or not re.fullmatch(r"[^\s@]{1,200}", value):
        raise ValueError('a realm such as "example.net"')
    return value


# --- paths and flows ---


def technology(value: object) -> AccessTechnologyType:
    """An access technology type by its name in the registry, in lower case."""
    if not isinstance(value, str) or value not in TECHNOLOGIES:
        raise ValueError(f"one of {', '.join(TECHNOLOGIES)}")
    return TECHNOLOGIES[value]


def label(value: object) -> int | str:
    """A label: its number, or a name that [labels] gives a number."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 255:
        return value
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,31}", value):
        return value
    raise ValueError("a label: a number from 0 to 255, or a name of [labels]")


def protocol(value: object) -> Range[int]:
    """An upper-layer protocol, by name or number."""
    if isinstance(value, str) and value.lower() in PROTOCOLS:
        return Range(PROTOCOLS[value.lower()])
    try:
        return numbers(255)(value)
    except ValueError:
        raise ValueError(f"a protocol: a number from 0 to 255, or one of {', '.join(PROTOCOLS)}") from None


def numbers(most: int) -> Callable[[object], Range[int]]:
    """A number up to most, or a range of them: 5000 or "5000-5010"."""

    def read(value: object) -> Range[int]:
        first, dash, last = str(value).partition("-")
        ends = [first.strip(), last.strip()] if dash else [first.strip()]
        whole = isinstance(value, int | str) and not isinstance(value, bool)
        if not whole or not all(end.isascii() and end.isdigit() and len(end) < 12 for end in ends):
            raise ValueError(f'a number from 0 to {most}, or a range such as "5000-5010"')
        found = [int(end) for end in ends]
        if found != sorted(found) or found[-1] > most:
            raise ValueError(f"numbers from 0 to {most}, the smaller one first")
        return Range(*found)

    return read


def addresses(value: object) -> Range[IPv4Address] | Range[IPv6Address]:
    """An address, a prefix, or a range of addresses "a-b"."""
    expected = 'an address, a prefix, or a range: "2001:db8::1", "2001:db8::/32", "192.0.2.1-192.0.2.9"'
    if not isinstance(value, str) or "%" in value:
        raise ValueError(expected)
    try:
        if "-" in value:
            return _address_range(*(ip_address(end.strip()) for end in value.split("-", 1)))
        if "/" in value:
            network = ip_network(value)
            return _address_range(network[0], network[-1])
        return _address_range(ip_address(value))
    except ValueError as error:
        raise ValueError(f"{expected}, without host bits" if "host bits" in str(error) else expected) from None


def _address_range(first: Address, last: Address | None = None) -> Range[IPv4Address] | Range[IPv6Address]:
    if isinstance(first, IPv4Address) and (last is None or (isinstance(last, IPv4Address) and first <= last)):
        return Range(first, last)
    if isinstance(first, IPv6Address) and (last is None or (isinstance(last, IPv6Address) and first <= last)):
        return Range(first, last)
    raise ValueError("two addresses of one family, the smaller one first")
