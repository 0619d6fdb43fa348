"""A prefix at several routers at once: one place has it, others take some of its flows (draft 4.4, RFC 6089).

    entry LOCAL, nobody shares      -> the access link
    entry SPLIT                     -> the access link, but flows of the sharers: to them
    entry REMOTE, nobody shares     -> the visited router
    entry REMOTE, others share      -> the visited router (BID 1), but flows of the sharers: to them (BID 2, 3 ...)
    entry RELEASED                  -> nowhere

A sharer registers with handoff indicator 6 (RFC 7864 3.2.1) and says in Flow Identification options which flows are to
come to it; the binding they refer to, BID 1, is the one of its own update. Each router has flow numbers of its own.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from ipaddress import IPv6Address, IPv6Network, summarize_address_range

from signaling.actions import Closed, Held, LocalLink, Path, SplitLink, TowardVisited, TunnelEnd
from signaling.dma.binding_cache import Entry, Sharer
from signaling.dma.session import State
from signaling.flow_bindings import FlowBinding, FlowsAnswer, process, rules_of
from signaling.flow_rules import FlowRule, Spread
from signaling.iana import FlowIdentificationStatus, HandoffIndicator, TrafficSelectorFormat
from signaling.settings import Address
from signaling.wire.binding_update import BindingUpdate
from signaling.wire.options.flow import FlowIdentification
from signaling.wire.traffic_selector import Range, TrafficSelector

DEFAULT = 1  # BID of the router that has what no flow rule names; in an update: of the router that sends it
LAST_NUMBER = 16  # BID; so many ways can a path have
SHARING = HandoffIndicator.ATTACHMENT_OVER_A_NEW_INTERFACE_SHARING_PREFIXES
ANY_PORT = (0, 0xFFFF)
WHOLE_OCTET = 0xFC  # of a traffic class the upper 6 bits count (RFC 6088 3.2)


def process_flows(update: BindingUpdate, before: tuple[FlowBinding, ...]) -> FlowsAnswer:
    """Flows of a sharer after its update (RFC 6089 5.3); those that cannot be told apart are refused: 129."""
    answer = process(update, before, {DEFAULT})
    refused = {flow.flow_id for flow in answer.flows if why_not(flow.selector)}
    status = FlowIdentificationStatus.REASON_UNSPECIFIED
    return FlowsAnswer(
        flows=tuple(flow for flow in answer.flows if flow.flow_id not in refused),
        answers=tuple(replace(it, status=status) if it.flow_id in refused else it for it in answer.answers),
    )


def why_not(selector: TrafficSelector) -> str:
    """Why flows cannot be told apart so while their node is on our link; "": they can.

    There the kernel decides, by routing rules: what is not moved goes as natively as before.
    """
    if selector.format != TrafficSelectorFormat.IPV6_BINARY:
        return "its selector is not of IPv6, and prefixes are"
    for name in ("spi", "flow_label"):
        if getattr(selector, name) is not None:
            return f"routing rules of the kernel know no {name}"
    for name in ("source", "destination"):
        found = getattr(selector, name)
        if found is not None and len(blocks(found)) > 1:
            return f"routing rules of the kernel know a {name} as one prefix, and {found.start}-{found.end} is none"
    if selector.protocol is not None and _is_range(selector.protocol):
        return "routing rules of the kernel know one protocol, not a range"
    for name in ("source_port", "destination_port"):
        if not _is_expressible(getattr(selector, name)):
            return f"routing rules of the kernel know a {name} from 1 to 65534"
    traffic_class = selector.traffic_class
    if traffic_class is not None and _is_range(traffic_class):
        return "routing rules of the kernel know one traffic class, not a range"
    if traffic_class is not None and not traffic_class.start & WHOLE_OCTET:
        return "routing rules of the kernel know the upper six bits of a traffic class, from 4 on"
    return ""


def blocks(found: Range[IPv6Address]) -> list[IPv6Network]:
    """A range of addresses as prefixes."""
    return list(summarize_address_range(found.start, found.start if found.end is None else found.end))


def of_prefix(rules: tuple[FlowRule, ...], prefix: IPv6Network) -> tuple[FlowRule, ...]:
    """What flow rules say about the addresses of one prefix; labels mean nothing where each router is one way."""
    return tuple(rule for each in rules if (rule := _narrowed(each, prefix)) is not None)


def path_of(entry: Entry, *, when_lost: Path) -> Path:
    """Where the packets of an anchored prefix go now. when_lost: those whose visited router does not answer."""
    on_link = LocalLink(interface=entry.interface, gateway=entry.gateway)
    if entry.state is State.LOCAL:
        return on_link
    ends = tuple(TunnelEnd(remote=it.care_of, binding_id=it.number) for it in entry.sharers.values())
    if entry.state is State.SPLIT:
        flows = tuple(rule.selector for rule in rules_for(entry) if rule.selector is not None)
        return SplitLink(rest=on_link, tunnels=ends, policy=policy_of(entry), flows=flows)
    if entry.state is not State.REMOTE:
        return {State.LOST: when_lost, State.RELEASED: Closed()}.get(entry.state, Held())
    tunnels = (TunnelEnd(remote=entry.care_of, binding_id=DEFAULT), *ends)
    return TowardVisited(tunnels=tunnels, policy=policy_of(entry))


def policy_of(entry: Entry) -> str:
    """Name of the flow policy of a prefix; "": nobody shares it."""
    return str(entry.prefix) if entry.sharers else ""


def rules_for(entry: Entry) -> tuple[FlowRule, ...]:
    """Which flows of a prefix take which way, best first; what no rule names goes to the router that has the prefix."""
    found = sorted(_rules(entry.sharers), key=lambda item: item[0])
    rules = tuple(rule for _, rule in found)
    if entry.sharers and entry.state is State.REMOTE:
        rules += (FlowRule(name="all else", selector=None, binding_ids=(DEFAULT,)),)
    return rules


def _rules(sharers: Mapping[Address, Sharer]) -> Iterator[tuple[tuple[int, int], FlowRule]]:
    for sharer in sharers.values():
        for flow in sharer.flows:
            for rule in rules_of((flow,), {DEFAULT: sharer.number}.get, by_label=False):
                yield (flow.priority, sharer.number), rule


def _narrowed(rule: FlowRule, prefix: IPv6Network) -> FlowRule | None:
    selector = rule.selector or TrafficSelector(format=TrafficSelectorFormat.IPV6_BINARY)
    if selector.format != TrafficSelectorFormat.IPV6_BINARY or rule.spread not in (Spread.PER_FLOW, Spread.DROP):
        return None
    wanted = selector.destination or Range(prefix[0], prefix[-1])
    first = max(int(wanted.start), int(prefix[0]))
    last = min(int(wanted.start if wanted.end is None else wanted.end), int(prefix[-1]))
    if first > last:
        return None
    destination = Range(IPv6Address(first), IPv6Address(last))
    return replace(rule, selector=replace(selector, destination=destination), labels=(), binding_ids=())


def _is_expressible(ports: Range[int] | None) -> bool:
    ends = ports and (ports.start, ports.start if ports.end is None else ports.end)
    return not ends or ends == ANY_PORT or 0 < ends[0] <= ends[1] < ANY_PORT[1]


def _is_range(found: Range[int]) -> bool:
    return found.end is not None and found.end != found.start


def refusals(options: tuple[FlowIdentification, ...]) -> list[FlowIdentification]:
    """The flows that an anchor does not send."""
    return [option for option in options if option.status != FlowIdentificationStatus.FLOW_BINDING_SUCCESSFUL]
