"""What only a MAR knows: nodes here, prefixes anchored here or elsewhere, and what peers have to do with them."""

import time
from collections.abc import Mapping
from ipaddress import IPv6Network
from math import inf, isinf
from typing import TYPE_CHECKING

from router.control.rows import Row, attachment, vitality, waiting
from router.flow_policies import selector_text
from signaling.actions import BackToAnchor, Closed, LocalLink, Path, SplitLink, TowardAnchor, TowardVisited, TunnelEnd
from signaling.dma.binding_cache import Entry
from signaling.dma.session import State
from signaling.dma.sharing import of_prefix
from signaling.dma.update_list import Progress, Registration
from signaling.dmm.dlif import Dlif
from signaling.door import addresses_of
from signaling.flow_rules import FlowRule
from signaling.settings import Address

if TYPE_CHECKING:
    from router.daemon import Router


def nodes(router: "Router") -> list[Row]:
    """Nodes on our access links."""
    now = time.monotonic()
    return [
        attachment(item, now)
        | {
            "anchored_here": [str(prefix) for prefix in router.role.anchor.local(item.node, item.link_layer)],
            "visiting": [str(entry.prefix) for entry in router.role.registrar.visited(item.node, item.link_layer)],
        }
        for item in router.role.access.attached.values()
    ]


def prefixes(router: "Router") -> list[Row]:
    """Prefixes anchored here: the binding cache."""
    now = time.monotonic()
    return [
        {
            "prefix": str(entry.prefix),
            "node": entry.node,
            "state": entry.state.value,
            "care_of": str(entry.care_of),
            "expires": None if isinf(entry.expires) else round(entry.expires - now, 3),
        }
        for entry in router.role.anchor.cache
    ]


def bindings(router: "Router") -> list[Row]:
    """Every prefix this router forwards, and the path it takes."""
    progress = {item.prefix: item.progress.value for item in router.role.registrar.all()}
    central = router.role.central
    if central is not None:  # a prefix that is lent here is registered too, at the CMD
        progress |= {prefix: item.progress.value for item in central.enrolled() for prefix in item.own}
    return [
        {"prefix": str(prefix), "node": router.network.nodes[prefix]}
        | _path(path)
        | {"registration": progress.get(prefix)}
        | ({"dlif": _dlif(central.dlifs.get(prefix))} if central is not None else {})
        | waiting(router, prefix)
        for prefix, path in sorted(router.network.paths.items())
    ]


def _dlif(dlif: Dlif | None) -> str | None:
    return f"{dlif.link_local} {dlif.link_layer.hex(':')}" if dlif else None


def _path(path: Path) -> Row:
    match path:
        case LocalLink(interface=interface):
            return {"path": "native", "peer": None, "interface": interface}
        case SplitLink(interface=interface, tunnels=tunnels):
            takers = ",".join(str(end.remote) for end in tunnels)
            return {"path": "native, flows to visited router", "peer": takers, "interface": interface}
        case BackToAnchor(tunnels=(TunnelEnd(remote=anchor), *_)):
            return {"path": "back to anchor", "peer": str(anchor), "interface": None}
        case TowardVisited(tunnels=(TunnelEnd(remote=care_of), *_)):
            return {"path": "to visited router", "peer": str(care_of), "interface": None}
        case TowardAnchor(tunnels=(TunnelEnd(remote=anchor), *_), interface=interface):
            return {"path": "to anchor", "peer": str(anchor), "interface": interface}
        case Closed():
            return {"path": "closed", "peer": None, "interface": None}
        case _:
            return {"path": "held", "peer": None, "interface": None}


def sessions(router: "Router") -> list[Row]:
    """Every prefix of a node that is anchored or delivered here: which interface has it, at which router, until when.

    flows_at: routers that take flows of it, besides. A prefix anchored elsewhere says how far its registration is, how
    many TCP connections of it are open, and for how long all of these are silent.
    """
    own = router.role.settings.address
    opened = router.network.open_connections()
    anchored = [
        _session(
            router,
            item,
            anchor=own,
            at=item.care_of,
            state=item.state.value,
            flows_at=list(item.sharers),
            flows=sum(len(sharer.flows) for sharer in item.sharers.values()),
        )
        for item in router.role.anchor.cache
    ]
    visiting = [
        _session(
            router,
            item,
            anchor=item.anchor,
            at=item.anchor if item.shares else own,
            state=item.progress.value,
            flows_at=[own] if item.shares else [],
            flows=len(item.flows),
            opened=opened.get(item.prefix, (0, None)),
        )
        for item in router.role.registrar.all()
    ]
    return anchored + visiting


def _session(
    router: "Router",
    item: Entry | Registration,
    *,
    anchor: Address,
    at: Address,
    state: str,
    flows_at: list[Address],
    flows: int,
    opened: tuple[int | None, float | None] = (None, None),
) -> Row:
    names = _names(router)
    return {
        "node": item.node,
        "link_layer": item.link_layer.hex(":") or None,
        "prefix": str(item.prefix),
        "anchor": names.get(anchor, str(anchor)),
        "at": names.get(at, str(at)),
        "state": state,
        "flows_at": [names.get(each, str(each)) for each in flows_at],
        "flows": flows,
        "connections": opened[0],
        "silence": opened[1],
        "expires": round(item.expires - time.monotonic(), 3) if 0 < item.expires < inf else None,
    }


def _names(router: "Router") -> dict[Address, str]:
    """What routers are called, this one too."""
    peers = {address: peer.name for peer in router.config.peers for address in addresses_of(peer)}
    return peers | {router.role.settings.address: router.config.name}


def flows(router: "Router") -> list[Row]:
    """Flows of prefixes that go elsewhere, as their anchor sends them, and flows of others that come here.

    Packets and octets of inner packets are counted where a rule decides: at the anchor.
    """
    names, network = _names(router), router.network
    moved = []
    for name, rule, packets, octets in network.flow_counters():
        prefix = IPv6Network(name)
        ends = {end.binding_id: end.remote for end in getattr(network.paths.get(prefix), "tunnels", ())}
        to = [names.get(ends[way], str(ends[way])) for way in rule.binding_ids if way in ends]
        node = network.nodes.get(prefix)
        ordered = router.role.flows.handed.get((node, prefix), {})
        policy = next((ordered[peer] for peer in to if peer in ordered), router.role.profiles.of(node).policy)
        moved.append(_flow(router, prefix, rule, node, to, policy) | {"packets": packets, "octets": octets})
    return moved + [
        _flow(router, it.prefix, rule, it.node, [router.config.name], it.policy) | {"packets": None, "octets": None}
        for it in router.role.registrar.all()
        for rule in it.flows
    ]


def _flow(
    router: "Router", prefix: IPv6Network, rule: FlowRule, node: str | None, to: list[str], policy: str
) -> Row:
    """policy: of which the flow is likely to be."""
    policy, name = _called(router.role.flows.policies, prefix, rule, policy)
    return {
        "node": node,
        "prefix": str(prefix),
        "policy": policy or None,
        "flow": name or None,
        "selector": selector_text(rule.selector),
        "to": to,
    }


def _called(
    policies: Mapping[str, tuple[FlowRule, ...]], prefix: IPv6Network, rule: FlowRule, likely: str
) -> tuple[str, str]:
    """Which of our policies a flow is of, and what its rule is called; routers tell each other numbers only."""
    for name in sorted(policies, key=lambda name: name != likely):
        for number, known in enumerate(policies[name], 1):
            if any(rule.selector == narrowed.selector for narrowed in of_prefix((known,), prefix)):
                return name, known.name or f"rule {number}"
    return "", rule.name


def peers(router: "Router") -> list[Row]:
    """Routers of the domain, and what they have to do with us now."""
    anchored = list(router.role.anchor.cache)
    visiting = router.role.registrar.all()
    return [
        {
            "name": peer.name,
            "address": str(peer.address),
            "authenticated": bool(peer.key),
            "spi": peer.spi if peer.key else None,
            "our_prefixes_there": sum(
                entry.state is State.REMOTE and entry.care_of == peer.address for entry in anchored
            ),
            "its_prefixes_here": sum(
                item.anchor == peer.address and item.progress is Progress.VISITED for item in visiting
            ),
            **vitality(router.role.peers.heartbeats.exchange(peer.name)),
        }
        for peer in router.config.peers
    ]
