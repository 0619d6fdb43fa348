"""What of [[flow]] and [labels] contradicts itself, or can never happen: told where the rules are read."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from router.flow_policies import DEFAULT_POLICY, SELECTING
from router.toml_text import Problems
from router.values import PROTOCOLS
from signaling.flow_rules import FlowRule
from signaling.pmip import flow_room
from signaling.wire.traffic_selector import Range

WITH_PORTS = tuple(PROTOCOLS[name] for name in ("tcp", "udp", "dccp", "sctp", "udplite"))
WITH_SPI = (50, 51)  # ESP and AH
PORTS = ("source_port", "destination_port")


def check_labels(numbers: Mapping[str, int | None], problems: Problems) -> None:
    """numbers: of [labels], by name; None: wrong by itself."""
    names: dict[int, str] = {}
    for name, number in numbers.items():
        if name.isdigit():
            problems.add(("labels", name), "a number is no name: expected one with a letter")
        if number is not None and names.setdefault(number, name) != name:
            problems.add(("labels", name), f"{number} is {names[number]} already: expected a number of its own")


def check_flows(items: Iterable[Mapping[str, Any]], problems: Problems) -> None:
    """items: [[flow]] tables in their order; a value that is wrong by itself is None."""
    complete: set[str] = set()  # policies whose last rule was there already
    for at, item in enumerate(items):
        policy = item.get("policy") or DEFAULT_POLICY
        if policy in complete:
            expected = "is never reached: a rule above takes every packet: expected that one as the last of its policy"
            problems.add(("flow", at), expected)
        for key, expected in _contradictions(item):
            problems.add(("flow", at, key), expected)
        if not item.keys() & {"family", *SELECTING}:
            complete.add(policy)


def _contradictions(item: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    protocol = item.get("protocol")
    ports = [key for key in PORTS if key in item]
    if protocol is not None and ports and not _holds(protocol, WITH_PORTS):
        yield ports[0], "this protocol has no ports: expected tcp, udp, sctp, dccp or udplite, or no port"
    if protocol is not None and "spi" in item and not _holds(protocol, WITH_SPI):
        yield "spi", "this protocol has none: expected protocol 50 (ESP) or 51 (AH), or no spi"
    if ports and "spi" in item:
        yield "spi", f"no packet has an SPI and a port that can be seen: expected spi or {ports[0]}"


def _holds(numbers: Range[int], wanted: Iterable[int]) -> bool:
    last = numbers.start if numbers.end is None else numbers.end
    return any(numbers.start <= one <= last for one in wanted)


def why_unusable(rules: Sequence[FlowRule], uplinks: Sequence[tuple[int, int]]) -> str | None:
    """Why a gateway cannot follow these rules; None: it can. uplinks: BID and label of each, () for a single path."""
    here = {label for _, label in uplinks}
    for rule in rules if uplinks else ():
        if rule.labels and here.isdisjoint(rule.labels):
            what = ", ".join(map(str, rule.labels))
            return f'no [[uplink]] has label {what}: expected one that is there, or spread = "drop"'
    return flow_room.why_too_long(rules, uplinks) if uplinks else None
