"""Flow bindings (RFC 6089 5.3) on their way between options and flow rules; both ends of a tunnel use this.

    MAG   FlowRule --options_of()--> Flow Identification options --PBU-->  LMA  process() --> FlowBinding
                                                                                 rules_of() --> FlowRule

The direction is the anchor's: source is the correspondent, destination the mobile node. The MAG mirrors it.
RFC 6089 can say "a copy on each of these bindings" and nothing else. What our rules can say beyond that (labels in
order of preference, a flow shared out by packets) rides in a Vendor Specific option beside each flow; who does not know
it skips it.

    | FID (2)               | spread (1)| count (1) | labels (1 each)            Vendor Specific, subtype 3
"""

from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from signaling.actions import TunnelEnd
from signaling.flow_rules import FlowRule, Spread
from signaling.iana import FlowIdentificationStatus as FlowStatus
from signaling.iana import OptionType, TrafficSelectorFormat
from signaling.pmip.probe import VENDOR
from signaling.wire.message import Message
from signaling.wire.options.flow import FlowIdentification, FlowSummary
from signaling.wire.options.option import MalformedOption, Option, append_options, read_options
from signaling.wire.options.vendor import VendorSpecific
from signaling.wire.traffic_selector import TrafficSelector, UnreadableSelector

FORMATS = frozenset(TrafficSelectorFormat)
LAST_PRIORITY = 0xFFFF  # of a flow that only a refusal names
MANNER = 3  # subtype
MANNER_HEAD = 4  # octets before the labels
SPREADS = tuple(Spread)  # by their numbers in the option
MAX_FLOWS = 64  # of one session: what a peer can make grow has a bound


@dataclass(frozen=True, slots=True)
class Manner:
    """How a flow takes its bindings, where its sender said more than RFC 6089 can."""

    spread: Spread
    labels: tuple[int, ...] = ()  # in order of preference


@dataclass(frozen=True, slots=True)
class FlowBinding:
    """One flow of a session and the bindings it takes. Active while one of its bindings is there (RFC 6089 5.3.1)."""

    flow_id: int  # FID
    priority: int  # FID-PRI, lower first
    binding_ids: tuple[int, ...]
    selector: TrafficSelector
    manner: Manner | None = None


@dataclass(frozen=True, slots=True)
class FlowsAnswer:
    """The flows after an update, best first, and the options that answer those of the update."""

    flows: tuple[FlowBinding, ...]
    answers: tuple[FlowIdentification, ...] = ()


def process(
    update: Message, before: tuple[FlowBinding, ...], registered: Container[int], *, allowed: bool = True
) -> FlowsAnswer:
    """Flows of a session after an update (RFC 6089 5.3.2 to 5.3.4). registered: its BIDs. allowed: by policy.

    A flow that no option of the update names is gone, whatever the reason of the update.
    """
    options = update.options_of(FlowIdentification)
    broken = update.malformed(OptionType.FLOW_IDENTIFICATION)
    summed = [flow_id for summary in update.options_of(FlowSummary) for flow_id in summary.flow_ids]
    unreadable = tuple(_refusal_of_broken(option) for option in broken)
    if not allowed:
        refused = tuple(replace(it, status=FlowStatus.ADMINISTRATIVELY_PROHIBITED) for it in options)
        return FlowsAnswer((), refused + unreadable)
    if any(times > 1 for times in Counter(option.flow_id for option in options).values()):
        spoilt = FlowStatus.FLOW_IDENTIFICATION_OPTION_MALFORMED
        return FlowsAnswer(before, tuple(replace(it, status=spoilt) for it in options) + unreadable)
    known = {flow.flow_id: flow for flow in before}
    named = {option.flow_id for option in options} | set(summed)
    flows = {flow_id: flow for flow_id, flow in known.items() if flow_id in named}
    manners = manners_in(update.options)
    spoken_for = {option.flow_id for option in options}
    priorities = {flow.priority for flow in flows.values() if flow.flow_id not in spoken_for}
    answers = []
    for option in options:
        status = _judge(option, flows, registered, priorities)
        if status is FlowStatus.FLOW_BINDING_SUCCESSFUL:
            before_it = known.get(option.flow_id)
            flows[option.flow_id] = _merged(option, before_it, manners.get(option.flow_id))
            priorities.add(option.priority)
        answers.append(replace(option, status=status))
    missing = dict.fromkeys(flow_id for flow_id in summed if flow_id not in flows)
    answers += [
        FlowIdentification(flow_id=flow_id, priority=LAST_PRIORITY, status=FlowStatus.FID_NOT_FOUND)
        for flow_id in missing
    ]
    return FlowsAnswer(tuple(sorted(flows.values(), key=lambda flow: flow.priority)), (*answers, *unreadable))


def rules_of(
    flows: Iterable[FlowBinding], ways: Callable[[int], int | None], *, by_label: bool = True
) -> tuple[FlowRule, ...]:
    """Flows as rules, best first. ways: what the data path calls a BID; None: that binding is not there.

    Several bindings mean a copy on each of them (RFC 6089 5.3.6), unless the sender said otherwise. A flow without a
    binding is inactive: no rule. by_label: labels mean the ways of this session only, so rules may name them.
    """
    rules = []
    for flow in flows:
        there = tuple(way for binding_id in flow.binding_ids if (way := ways(binding_id)) is not None)
        if not there:
            continue
        several = Spread.BICAST if len(flow.binding_ids) > 1 else Spread.PER_FLOW
        manner = flow.manner or Manner(several)
        labels = manner.labels if by_label else ()
        rules.append(
            FlowRule(
                name=f"flow {flow.flow_id}",
                selector=flow.selector,
                labels=labels,
                binding_ids=() if labels else there,
                spread=manner.spread,
            )
        )
    return tuple(rules)


def options_of(rules: Iterable[FlowRule], ways: Sequence[TunnelEnd]) -> tuple[Option, ...]:
    """Rules as options of an update, in order; ways: the registered paths. A rule that no path fits is left out.

    A rule for every packet becomes two flows, because a selector has a family.
    """
    flows: list[FlowIdentification] = []
    manners: list[VendorSpecific] = []
    for rule in rules:
        binding_ids = _ways_of(rule, ways)
        for selector in _selectors(rule) if binding_ids else ():
            number = len(flows) + 1
            flows.append(
                FlowIdentification(flow_id=number, priority=number, binding_ids=binding_ids, selector=selector)
            )
            manners.append(_manner_option(number, Manner(rule.spread, rule.labels)))
    return (*flows, *manners)


def manners_in(options: Iterable[Option]) -> dict[int, Manner]:
    """How flows take their bindings, by FID, as Vendor Specific options say; senseless ones are skipped."""
    manners = {}
    for option in options:
        if not isinstance(option, VendorSpecific) or (option.vendor, option.subtype) != (VENDOR, MANNER):
            continue
        data = option.data
        if len(data) >= MANNER_HEAD and len(data) == MANNER_HEAD + data[3] and data[2] < len(SPREADS):
            manners[int.from_bytes(data[:2], "big")] = Manner(SPREADS[data[2]], tuple(data[MANNER_HEAD:]))
    return manners


def octets_of(flows: Iterable[FlowBinding]) -> bytes:
    """Flows as options, encoded one after the other, for the store."""
    octets = bytearray()
    append_options(octets, tuple(option for flow in flows for option in _options_of_one(flow)))
    return bytes(octets)


def flows_from_octets(octets: bytes) -> tuple[FlowBinding, ...]:
    """The flows that octets_of() wrote."""
    options = read_options(octets, 0)
    manners = manners_in(options)
    found = (option for option in options if isinstance(option, FlowIdentification))
    return tuple(_merged(option, None, manners.get(option.flow_id)) for option in found)


def _options_of_one(flow: FlowBinding) -> Iterator[Option]:
    yield FlowIdentification(
        flow_id=flow.flow_id, priority=flow.priority, binding_ids=flow.binding_ids, selector=flow.selector
    )
    if flow.manner is not None:
        yield _manner_option(flow.flow_id, flow.manner)


def _manner_option(flow_id: int, manner: Manner) -> VendorSpecific:
    data = flow_id.to_bytes(2, "big") + bytes((SPREADS.index(manner.spread), len(manner.labels), *manner.labels))
    return VendorSpecific(vendor=VENDOR, subtype=MANNER, data=data)


def _judge(
    option: FlowIdentification, flows: dict[int, FlowBinding], registered: Container[int], priorities: Container[int]
) -> FlowStatus:
    if isinstance(option.selector, UnreadableSelector):
        if option.selector.format in FORMATS:
            return FlowStatus.FLOW_IDENTIFICATION_OPTION_MALFORMED
        return FlowStatus.TRAFFIC_SELECTOR_FORMAT_NOT_SUPPORTED
    if not option.flow_id or not option.priority or option.binding_ids == ():
        return FlowStatus.FLOW_IDENTIFICATION_OPTION_MALFORMED
    is_new = option.flow_id not in flows
    if is_new and (option.selector is None or option.binding_ids is None):
        return FlowStatus.FLOW_IDENTIFICATION_OPTION_MALFORMED
    if any(binding_id not in registered for binding_id in option.binding_ids or ()):
        return FlowStatus.BID_NOT_FOUND
    if option.priority in priorities:  # unique for a node (RFC 6089 4.2); no reaction is laid down
        return FlowStatus.FLOW_IDENTIFICATION_OPTION_MALFORMED
    return FlowStatus.REASON_UNSPECIFIED if is_new and len(flows) >= MAX_FLOWS else FlowStatus.FLOW_BINDING_SUCCESSFUL


def _merged(option: FlowIdentification, before: FlowBinding | None, manner: Manner | None) -> FlowBinding:
    """The priority is always replaced, the rest where the option has it (RFC 6089 5.3.3)."""
    selector = option.selector if isinstance(option.selector, TrafficSelector) else None
    binding_ids = option.binding_ids
    if before is not None:
        selector = selector or before.selector
        binding_ids = before.binding_ids if binding_ids is None else binding_ids
        manner = manner or before.manner
    if selector is None:
        raise ValueError(f"flow {option.flow_id} has no selector")
    return FlowBinding(option.flow_id, option.priority, binding_ids or (), selector, manner)


def _refusal_of_broken(option: MalformedOption) -> FlowIdentification:
    return FlowIdentification(
        flow_id=int.from_bytes(option.data[:2], "big"),
        priority=LAST_PRIORITY,
        status=FlowStatus.FLOW_IDENTIFICATION_OPTION_MALFORMED,
    )


def _selectors(rule: FlowRule) -> tuple[TrafficSelector, ...]:
    return (rule.selector,) if rule.selector else tuple(TrafficSelector(format=kind) for kind in TrafficSelectorFormat)


def _ways_of(rule: FlowRule, ways: Sequence[TunnelEnd]) -> tuple[int, ...]:
    """The BIDs a rule takes, best first. Who knows labels chooses among them; who does not gets what is best now."""
    if rule.binding_ids:
        there = {way.binding_id for way in ways}
        return tuple(binding_id for binding_id in rule.binding_ids if binding_id in there)
    if not rule.labels:
        return tuple(way.binding_id for way in ways)
    chosen = tuple(way.binding_id for label in rule.labels for way in ways if way.label == label)
    # several BIDs mean copies to a plain RFC 6089 anchor, which a rule of one way each does not want
    return chosen if rule.spread is not Spread.PER_FLOW else chosen[:1]
