"""Why an anchor refuses an update: the checks of RFC 5213 5.3.1 in its order; 1 and 2 are the Door's.

`CHECKS` is that order; the first that objects gives the status.
"""

from collections.abc import Callable

from signaling.dma.binding_cache import BindingCache, Entry
from signaling.dma.sharers import SHARED, Sharers
from signaling.door import Door
from signaling.iana import Status
from signaling.profiles import Profiles
from signaling.settings import TIMESTAMP_UNITS, Clock, Settings
from signaling.update_request import UpdateRequest
from signaling.wire.options.access import AccessTechnologyTypeOption, HandoffIndicatorOption

REACH_FOR_A_SEQUENCE = 32768  # numbers this far back, and the last one, are stale (RFC 6275 9.5.1)


class UpdateChecks:
    """Of one anchor, with what it knows of the prefixes it has lent."""

    def __init__(self, settings: Settings, door: Door, clock: Clock, cache: BindingCache, sharers: Sharers) -> None:
        self._settings = settings
        self._door = door
        self._clock = clock
        self._cache = cache
        self._sharers = sharers
        self._profiles = Profiles(settings.profiles, known_only=False)

    def objection(self, request: UpdateRequest, now: float) -> Status | None:
        """Why the update must be refused; None: nothing speaks against it."""
        statuses = (check(self, request, now) for check in CHECKS)
        return next((status for status in statuses if status is not None), None)

    def is_of_another(self, entry: Entry, request: UpdateRequest) -> bool:
        """Whether it is for an interface that has to let the prefix be: another one of its node has it.

        An interface gets what was given to another one when nobody has it, by an order, or by the node's profile. Its
        router may believe that nobody has it, and say so with newer timestamps: they only prove where it is itself.
        """
        if entry.state not in SHARED or request.care_of == entry.care_of or not any(entry.link_layer):
            return False
        if request.ordered or self._profiles.of(entry.node).takes_over:
            return False
        return request.link_layer not in (None, entry.link_layer, entry.lent_to)

    def named(self, request: UpdateRequest) -> Entry | None:
        """The entry whose prefix and node an update names, whether or not it may change it: they have one order."""
        found = (self._cache.get(prefix) for prefix in request.prefixes)
        return next((entry for entry in found if entry is not None and entry.node == request.node), None)

    def _check_identifier(self, request: UpdateRequest, now: float) -> Status | None:
        return None if request.node else Status.MISSING_MN_IDENTIFIER_OPTION

    def _check_router(self, request: UpdateRequest, now: float) -> Status | None:
        known = self._door.peer(request.source) is not None and self._door.peer(request.care_of) is not None
        return None if known else Status.MAG_NOT_AUTHORIZED_FOR_PROXY_REG

    def _check_node(self, request: UpdateRequest, now: float) -> Status | None:
        return None if self._cache.of(request.node) else Status.NOT_LMA_FOR_THIS_MOBILE_NODE

    def _check_form(self, request: UpdateRequest, now: float) -> Status | None:
        """An option twice, or a timestamp that is none: RFC 5213 forbids both and names no status."""
        return Status.REASON_UNSPECIFIED if request.ill_formed else None

    def _check_order(self, request: UpdateRequest, now: float) -> Status | None:
        entry = self.named(request)
        if request.timestamp is None:
            return self._check_sequence(entry, request)
        # who takes flows of a prefix, and who has it, do not compete: each has an order of its own
        beside = entry is not None and self._sharers.concerns(entry, request)
        last = (entry.share_order.get(request.care_of) if beside else entry.timestamp) if entry is not None else None
        if last is not None and request.timestamp < last:
            return Status.TIMESTAMP_LOWER_THAN_PREV_ACCEPTED
        window = int(self._settings.timestamp_window * TIMESTAMP_UNITS)
        replayed = last is not None and request.timestamp == last
        if replayed or abs(request.timestamp - self._clock.timestamp(now)) > window:
            return Status.TIMESTAMP_MISMATCH
        return None

    def _check_sequence(self, entry: Entry | None, request: UpdateRequest) -> Status | None:
        if entry is None or entry.sequence_number is None:
            return None
        stale = (entry.sequence_number - request.update.sequence_number) % 65536 <= REACH_FOR_A_SEQUENCE
        return Status.SEQUENCE_NUMBER_OUT_OF_WINDOW if stale else None

    def _check_prefix(self, request: UpdateRequest, now: float) -> Status | None:
        if request.impossible_prefix:
            return Status.NOT_AUTHORIZED_FOR_HOME_NETWORK_PREFIX
        return None if request.requested else Status.MISSING_HOME_NETWORK_PREFIX_OPTION

    def _check_handoff(self, request: UpdateRequest, now: float) -> Status | None:
        present = request.has(HandoffIndicatorOption)
        return None if present else Status.MISSING_HANDOFF_INDICATOR_OPTION

    def _check_technology(self, request: UpdateRequest, now: float) -> Status | None:
        present = request.has(AccessTechnologyTypeOption)
        return None if present else Status.MISSING_ACCESS_TECH_TYPE_OPTION


Check = Callable[[UpdateChecks, UpdateRequest, float], Status | None]
CHECKS: tuple[Check, ...] = (
    UpdateChecks._check_identifier,  # 4
    UpdateChecks._check_router,  # 5, 6
    UpdateChecks._check_node,  # 7, 8
    UpdateChecks._check_form,
    UpdateChecks._check_order,  # 9
    UpdateChecks._check_prefix,  # 10
    UpdateChecks._check_handoff,  # 11
    UpdateChecks._check_technology,  # 12
)
