"""What of the [[node]] tables contradicts itself or the pools. The tables of one node, one for each interface, are one.

Left alone, because it may be meant: refused = true beside what the node has when it is served; an address or prefix of
its own that is in no pool.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from router.toml_text import Problems

Told = dict[str, tuple[int, Any]]  # key -> the table it stands in, its value
OF_ONE_NODE = ("prefixes", "ipv4_address", "delegated")
NOT_WANTED = (("ipv6", "prefixes"), ("ipv4", "ipv4_address"), ("delegation", "delegated"))


def check(found: Mapping[str, Any], problems: Problems) -> None:
    """found: values by their field of Config; one that is wrong by itself is None."""
    profiles: dict[str | None, Told] = {}
    for at, item in enumerate(found.get("nodes", ())):
        told = profiles.setdefault(item["node"], {})
        told.update({key: (at, value) for key, value in item.items() if value is not None})
    for node, told in profiles.items():
        for key, expected in (*_contradictions(node, told), *_off_the_pools(told, found)):
            problems.add(("node", told[key][0], key), expected)


def _contradictions(node: str | None, told: Told) -> Iterator[tuple[str, str]]:
    values = {key: value for key, (_, value) in told.items()}
    for key in OF_ONE_NODE if node == "" else ():
        if values.get(key):
            yield key, "every node would have the same: expected it in the [[node]] of one"
    for switch, key in NOT_WANTED:
        if values.get(switch) is False and values.get(key):
            yield key, f"{switch} = false says that it has none: expected one of the two"
    if values.get("ipv6") is False and values.get("ipv4") is False:
        yield "ipv4", "without IPv6 and IPv4 there is nothing to give: expected one of them, or refused = true"
    if values.get("gateways") == ():
        yield "gateways", "no gateway may act for it: expected names of them, no such key for all, or refused = true"


def _off_the_pools(told: Told, found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    pools = (("prefixes", "anchoring.delegated_prefixes"), ("delegated", "prefixes"))
    for key, field in pools:
        for one in told[key][1] if key in told else ():
            if other := next((pool for pool in found.get(field) or () if pool.overlaps(one)), None):
                table = field.removeprefix("anchoring.")
                yield key, f"{one} overlaps {other} of [anchor] {table}: expected one that is not lent out otherwise"
    address = told["ipv4_address"][1] if "ipv4_address" in told else None
    for pool in found.get("anchoring.ipv4_prefixes") or () if address else ():
        never = {
            pool.network_address: "the network's",
            pool.network_address + 1: "the router's",
            pool.broadcast_address: "for broadcasts",
        }
        if address in never:
            yield "ipv4_address", f"in {pool} this address is {never[address]}: expected another"
