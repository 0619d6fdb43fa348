"""What of the configuration of a MAR it would refuse later, ignore, or obey in a way that nobody means."""

from collections.abc import Mapping, Sequence
from typing import Any

from router.flow_policies import Labels, check_for_mar
from router.toml_text import Problems
from signaling.settings import Sharing

LEAST_SILENCE = 1.0  # s; packets of a connection in use are further apart than less


def check(found: Mapping[str, Any], flows: Sequence[Mapping[str, Any]], labels: Labels, problems: Problems) -> None:
    """found: values by their field of Config, flows: [[flow]] tables; a value that is wrong by itself is None."""
    check_for_mar(flows, labels, problems)
    _check_nodes(found.get("nodes", ()), problems)
    idle_after = found.get("idle_after")
    if idle_after and idle_after < LEAST_SILENCE:
        what = f"{idle_after:g} s is less than a connection in use may be silent: its prefix is released under it"
        problems.doubt(("anchor", "idle_after"), what)


def _check_nodes(items: Sequence[Mapping[str, Any]], problems: Problems) -> None:
    """The tables of one node, one for each of its interfaces, are one."""
    told: dict[str | None, dict[str, tuple[int, Any]]] = {}  # node -> key -> where it stands, its value
    for at, item in enumerate(items):
        told.setdefault(item["node"], {}).update({key: (at, value) for key, value in item.items()})
    for profile in told.values():
        values = {key: value for key, (_, value) in profile.items()}
        shares = values.get("sharing", Sharing.UNIQUE_PREFIX) not in (Sharing.UNIQUE_PREFIX, None)
        if shares and values.get("takes_over"):
            expected = "an interface that comes takes prefixes over, or shares them: expected takes_over or sharing"
            problems.add(("node", profile["takes_over"][0], "takes_over"), expected)
        if values.get("policy") and not shares:
            what = 'without sharing = "shared-prefix" no flow comes to an interface by it: only `move --policy` uses it'
            problems.doubt(("node", profile["policy"][0], "policy"), what)
