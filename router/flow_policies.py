"""[[flow]] tables as flow rules, and rules as text for people. Written as the anchor sends: source = correspondent.

    [[flow]]                                  FlowRule(selector=IPv6, UDP 5004-5010 ..., labels=(1, 2))
    protocol = "udp"                    ->    FlowRule(selector=IPv4, UDP 5004-5010 ..., labels=(1, 2))
    destination_port = "5004-5010"
    labels = ["lte", "wlan"]

A selector is of one IP version (RFC 6088), so a table that says nothing of it is two rules. One that selects nothing at
all is a single rule for every packet.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address, summarize_address_range
from typing import Any

from router.toml_text import Problems
from router.values import PROTOCOLS
from signaling.dma.sharing import why_not
from signaling.flow_rules import FlowRule, Spread
from signaling.iana import TrafficSelectorFormat
from signaling.wire.traffic_selector import Range, TrafficSelector

DEFAULT_POLICY = "default"
MOST_LABELS = 8  # of one rule: the engine takes no more
FAMILIES = {"ipv6": TrafficSelectorFormat.IPV6_BINARY, "ipv4": TrafficSelectorFormat.IPV4_BINARY}
SELECTING = (
    "source",
    "destination",
    "source_port",
    "destination_port",
    "protocol",
    "traffic_class",
    "flow_label",
    "spi",
)
NAMES_OF_PROTOCOLS = {number: name for name, number in PROTOCOLS.items()}


@dataclass(frozen=True, slots=True)
class Labels:
    """Names of labels, both ways."""

    numbers: Mapping[str, int]

    def number(self, label: int | str) -> int:
        """Of a name or a number. Raises ValueError(what was expected)."""
        if isinstance(label, int):
            return label
        if label not in self.numbers:
            known = f", or a name of [labels]: {', '.join(self.numbers)}" if self.numbers else ": [labels] names none"
            raise ValueError(f'"{label}" is no label: expected a number{known}')
        return self.numbers[label]

    def name(self, number: int) -> str:
        """What people call it."""
        return next((name for name, known in self.numbers.items() if known == number), str(number))


def policies(
    items: Iterable[Mapping[str, Any]], labels: Labels, problems: Problems, *, unnamed: str = DEFAULT_POLICY
) -> dict[str, tuple[FlowRule, ...]]:
    """Rules by the name of their policy, in the order of the file. A value that is wrong by itself is None.

    unnamed: the policy of rules that name none.
    """
    found: dict[str, tuple[FlowRule, ...]] = {}
    for at, item in enumerate(items):
        policy = item.get("policy") or unnamed
        try:
            found[policy] = (*found.get(policy, ()), *_rules(item, labels))
        except _WrongKeyError as wrong:
            problems.add(("flow", at, wrong.key), wrong.expected)
    return found


class _WrongKeyError(Exception):
    def __init__(self, key: str, expected: str) -> None:
        self.key, self.expected = key, expected


def _rules(item: Mapping[str, Any], labels: Labels) -> list[FlowRule]:
    """The rules of one table. Raises _WrongKeyError."""
    try:
        numbers = tuple(labels.number(label) for label in item.get("labels") or ())
    except ValueError as error:
        raise _WrongKeyError("labels", str(error)) from None
    if item.get("labels") == ():
        raise _WrongKeyError("labels", "names none: expected at least one, or no such key for all paths")
    if len(numbers) > MOST_LABELS:
        raise _WrongKeyError("labels", f"expected at most {MOST_LABELS}")
    if twice := [number for number in numbers if numbers.count(number) > 1]:
        raise _WrongKeyError("labels", f"{labels.name(twice[0])} is named twice: expected each once")
    spread = item.get("spread") or Spread.PER_FLOW
    if spread is Spread.DROP and numbers:
        raise _WrongKeyError("labels", 'expected none with spread = "drop"')
    rule = FlowRule(name=item.get("name") or "", selector=None, labels=numbers, spread=spread)
    fields = {key: item[key] for key in SELECTING if item.get(key) is not None}
    families = _families(item, fields)
    if not fields and len(families) == len(FAMILIES):
        return [rule]
    return [replace(rule, selector=TrafficSelector(format=family, **fields)) for family in families]


def _families(item: Mapping[str, Any], fields: Mapping[str, Any]) -> list[TrafficSelectorFormat]:
    """The IP versions that the rule is about. Raises _WrongKeyError where its keys contradict each other."""
    family = item.get("family")
    wanted = {family} if family else set(FAMILIES)
    for key in ("source", "destination"):
        if key in fields:
            of_it = "ipv4" if isinstance(fields[key].start, IPv4Address) else "ipv6"
            if of_it not in wanted:
                raise _WrongKeyError(key, f"an {of_it} address: expected one of the same family as the other keys")
            wanted = {of_it}
    if "flow_label" in fields:
        if "ipv6" not in wanted:
            raise _WrongKeyError("flow_label", "IPv4 packets have none: expected a rule of IPv6")
        wanted = {"ipv6"}
    return [number for name, number in FAMILIES.items() if name in wanted]


def unfit_for_mar(rules: Sequence[FlowRule]) -> str:
    """Why a MAR, which has one way to each router, cannot use these rules; "": it can."""
    return next((f"rule {at}: {why}" for at, rule in enumerate(rules, 1) if (why := _unfit(rule, rules))), "")


def check_for_mar(items: Iterable[Mapping[str, Any]], labels: Labels, problems: Problems) -> None:
    """The same of [[flow]] tables, each told where it stands. One that is wrong by itself was told already."""
    for at, item in enumerate(items):
        with suppress(_WrongKeyError):
            rules = _rules(item, labels)
            if why := next(filter(None, (_unfit(rule, rules) for rule in rules)), ""):
                problems.add(("flow", at), why)


def _unfit(rule: FlowRule, rules: Sequence[FlowRule]) -> str:
    """Why a MAR cannot use a rule; "": it can. One of IPv4 has nothing to do, beside its twin of IPv6."""
    if rule.labels:
        return "expected no labels: they choose among uplinks, and a MAR has none"
    if rule.spread is not Spread.PER_FLOW:
        return 'expected spread "per-flow", or no such key: a MAR has one way to each router, and drops no flows'
    if rule.selector is None:
        return ""
    of_ipv6 = replace(rule, selector=replace(rule.selector, format=TrafficSelectorFormat.IPV6_BINARY))
    return "" if rule != of_ipv6 and of_ipv6 in rules else why_not(rule.selector)


# --- as text ---


def selector_text(selector: Any) -> str:
    """What a rule selects, as `show` prints it: "ipv6 protocol=udp destination_port=5004-5010"."""
    if selector is None:
        return "all"
    parts = [next((name for name, number in FAMILIES.items() if number == selector.format), str(selector.format))]
    for key in SELECTING:
        found = getattr(selector, key, None)
        if found is not None:
            parts.append(f"{key}={_range_text(key, found)}")
    return " ".join(parts)


def _range_text(key: str, found: Range[Any]) -> str:
    if found.end is not None and found.end != found.start:
        if isinstance(found.start, IPv4Address | IPv6Address):
            first, *others = summarize_address_range(found.start, found.end)
            if not others:
                return str(first)
        return f"{found.start}-{found.end}"
    return NAMES_OF_PROTOCOLS.get(found.start, str(found.start)) if key == "protocol" else str(found.start)
