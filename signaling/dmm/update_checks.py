"""What an update must be before a CMD looks at its binding cache: the checks of RFC 5213 5.3.1, and the D flag.

`CHECKS` is in the order of the RFC; the first that objects gives the status.
"""

from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv6Network

from signaling.dmm.database import Binding
from signaling.door import Door
from signaling.iana import BindingUpdateFlag, HandoffIndicator, Status
from signaling.settings import TIMESTAMP_UNITS, Clock, CmdSettings
from signaling.update_request import UpdateRequest
from signaling.wire.options.access import AccessTechnologyTypeOption, HandoffIndicatorOption
from signaling.wire.options.prefix import AnchoredPrefix

REACH_FOR_A_SEQUENCE = 32768  # numbers this far back, and the last one, are stale (RFC 6275 9.5.1)

WHY: dict[Status | int, str] = {  # status of a refusal by a CMD -> what to change
    Status.NOT_LMA_FOR_THIS_MOBILE_NODE: "it set no D flag: it takes this CMD for a local mobility anchor",
    Status.NOT_AUTHORIZED_FOR_HOME_NETWORK_PREFIX: "another router anchors that prefix: pools must not overlap",
    Status.MAG_NOT_AUTHORIZED_FOR_PROXY_REG: "that router is no peer of the CMD: give it a [[peer]] there",
    Status.INSUFFICIENT_RESOURCES: "there are more nodes, or prefixes of one, than the CMD takes",
    Status.TIMESTAMP_MISMATCH: "the clocks differ: run NTP on router and CMD",
}


@dataclass(frozen=True, slots=True)
class Examination:
    """One update and what it is held against. binding: of its node, None if there is none."""

    request: UpdateRequest
    binding: Binding | None
    settings: CmdSettings
    door: Door
    clock: Clock
    now: float  # monotonic s


def reported(request: UpdateRequest) -> tuple[IPv6Network, ...]:
    """Prefixes that a router says it anchors for a node that is not there any more; (): it says that the node is."""
    return () if request.requested else tuple(option.prefix for option in request.update.options_of(AnchoredPrefix))


def cure(status: Status | int) -> dict[str, object]:
    """What is worth a word about a refusal beside its status."""
    return {"why": WHY[status]} if status in WHY else {}


def objection(case: Examination) -> Status | None:
    """Why the update must be refused; None: nothing speaks against it."""
    statuses = (check(case) for check in CHECKS)
    return next((status for status in statuses if status is not None), None)


def _identifier(case: Examination) -> Status | None:
    return None if case.request.node else Status.MISSING_MN_IDENTIFIER_OPTION


def _router(case: Examination) -> Status | None:
    """A MAAR that has a key speaks for itself."""
    peer = case.door.peer(case.request.source)
    same = peer is not None and case.door.peer(case.request.care_of) is peer
    return None if same else Status.MAG_NOT_AUTHORIZED_FOR_PROXY_REG


def _distributed(case: Examination) -> Status | None:
    """Who does not set D wants a local mobility anchor, and there is none (RFC 8885 4.1 names no status)."""
    distributed = BindingUpdateFlag.DISTRIBUTED_MOBILITY in case.request.update.flags
    return None if distributed else Status.NOT_LMA_FOR_THIS_MOBILE_NODE


def _form(case: Examination) -> Status | None:
    return Status.REASON_UNSPECIFIED if case.request.ill_formed else None


def _order(case: Examination) -> Status | None:
    request, binding = case.request, case.binding
    if request.timestamp is None:
        return _sequence(case)
    if reported(request):
        binding = None  # it does not say where the node is: that has an order of its own
    if binding is not None and (request.timestamp < binding.timestamp or _outdated(request, binding)):
        return Status.TIMESTAMP_LOWER_THAN_PREV_ACCEPTED
    window = int(case.settings.timestamp_window * TIMESTAMP_UNITS)
    replayed = binding is not None and request.timestamp == binding.timestamp
    if replayed or abs(request.timestamp - case.clock.timestamp(case.now)) > window:
        return Status.TIMESTAMP_MISMATCH
    return None


def _outdated(request: UpdateRequest, binding: Binding) -> bool:
    """A refresh of a router that has not heard yet that the node is served by another."""
    return request.handoff == HandoffIndicator.HANDOFF_STATE_NOT_CHANGED and request.care_of != binding.serving


def _sequence(case: Examination) -> Status | None:
    binding = case.binding
    if binding is None or binding.sequence_number is None or binding.serving != case.request.care_of:
        return None  # each router counts for itself
    stale = (binding.sequence_number - case.request.update.sequence_number) % 65536 <= REACH_FOR_A_SEQUENCE
    return Status.SEQUENCE_NUMBER_OUT_OF_WINDOW if stale else None


def _prefix(case: Examination) -> Status | None:
    if reported(case.request):
        return None
    if not case.request.requested:
        return Status.MISSING_HOME_NETWORK_PREFIX_OPTION
    # a CMD has no pool: whoever asks has lent a prefix, and names it (RFC 8885 3.1)
    impossible = case.request.impossible_prefix or not case.request.prefixes
    return Status.NOT_AUTHORIZED_FOR_HOME_NETWORK_PREFIX if impossible else None


def _handoff(case: Examination) -> Status | None:
    return None if case.request.has(HandoffIndicatorOption) else Status.MISSING_HANDOFF_INDICATOR_OPTION


def _technology(case: Examination) -> Status | None:
    return None if case.request.has(AccessTechnologyTypeOption) else Status.MISSING_ACCESS_TECH_TYPE_OPTION


CHECKS: tuple[Callable[[Examination], Status | None], ...] = (
    _identifier,
    _router,
    _distributed,
    _form,
    _prefix,
    _handoff,
    _technology,
    _order,  # last: an update that comes too late still tells what is anchored where
)
