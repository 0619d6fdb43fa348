"""Who uses the flow policies of a configuration, and whether they can: nodes, and the uplinks of a gateway."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from router.flow_policies import DEFAULT_POLICY, Labels
from router.flow_sense import why_unusable
from router.places import RoleName
from router.toml_text import Problems
from signaling.flow_rules import FlowRule


def used_by_nodes(named: Iterable[str], role: RoleName | None) -> set[str] | None:
    """The policies that something follows; None: it may be any, as flows of a MAR are moved by whichever is asked for.

    named: those of [[node]] tables.
    """
    if role not in (RoleName.LMA, RoleName.MAG):
        return None
    return {name for name in named if name} | ({DEFAULT_POLICY} if role is RoleName.MAG else set())


def check(
    found: Mapping[str, Any],
    flows: Sequence[Mapping[str, Any]],
    labels: Labels,
    policies: Mapping[str, Sequence[FlowRule]],
    problems: Problems,
    role: RoleName | None,
) -> None:
    """found: values by their field of Config; flows: [[flow]] tables; role: None where it is not known."""
    nodes = found.get("nodes", ())
    for at, item in enumerate(nodes):
        if item.get("policy") and item["policy"] not in policies:
            cure = f"expected one of: {', '.join(policies)}" if policies else "expected the name of one: there are none"
            problems.add(("node", at, "policy"), f'no [[flow]] has policy = "{item["policy"]}": {cure}')
    uplinks = _uplinks(found, labels) if role in (None, RoleName.MAG) else []
    used = used_by_nodes((item.get("policy") or "" for item in nodes), role)
    for name, rules in policies.items():
        first = next(at for at, item in enumerate(flows) if (item.get("policy") or DEFAULT_POLICY) == name)
        if why := why_unusable(rules, uplinks):
            problems.add(("flow", first), f"policy {name}: {why}")
        if used is not None and name not in used:
            problems.doubt(("flow", first), f'no [[node]] has policy = "{name}": nothing follows its rules')


def _uplinks(found: Mapping[str, Any], labels: Labels) -> list[tuple[int, int]]:
    """BID and label of each; a label that is wrong was told already."""
    given = ((item.get("binding_id") or at, item.get("label")) for at, item in enumerate(found.get("uplinks", ()), 1))
    return [
        (binding_id, label if isinstance(label, int) else labels.numbers.get(label or "", 0))
        for binding_id, label in given
    ]
