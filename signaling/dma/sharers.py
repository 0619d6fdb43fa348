"""Routers that take flows of prefixes anchored here: who they are, until when, who inherits a prefix.

The anchor decides what an update means; here is the bookkeeping of those that share.
"""

from dataclasses import dataclass
from ipaddress import IPv6Network

from signaling.deadlines import Deadlines
from signaling.dma.binding_cache import Entry, Sharer
from signaling.dma.session import State
from signaling.dma.sharing import DEFAULT, LAST_NUMBER, SHARING, process_flows
from signaling.settings import Address
from signaling.update_request import UpdateRequest
from signaling.wire.options.flow import FlowIdentification

SHARED = (State.LOCAL, State.SPLIT, State.REMOTE)  # somebody has the prefix: others can share it


@dataclass(frozen=True, slots=True)
class Shared:
    """What an update of a sharer led to. changed: packets go another way than before."""

    changed: bool
    answers: tuple[FlowIdentification, ...]


class Sharers:
    """Of one anchor. An entry knows its own; here is when they end."""

    def __init__(self) -> None:
        self.deadlines: Deadlines[tuple[IPv6Network, Address]] = Deadlines()

    def concerns(self, entry: Entry, request: UpdateRequest) -> bool:
        """Whether an update is about flows of a prefix, and leaves the prefix where it is."""
        if request.update.lifetime == 0:
            return request.care_of in entry.sharers
        has_it = entry.state is State.REMOTE and entry.care_of == request.care_of
        return request.handoff == SHARING and entry.state in SHARED and not has_it

    def take(self, entry: Entry, request: UpdateRequest, expires: float) -> Shared | None:
        """A router takes these flows until then (monotonic s). None: as many as there can be do so already."""
        before = entry.sharers.get(request.care_of)
        number = before.number if before else self._free_number(entry)
        if number is None:
            return None
        answer = process_flows(request.update, before.flows if before else ())
        entry.sharers[request.care_of] = Sharer(
            care_of=request.care_of,
            number=number,
            link_layer=request.link_layer or b"",
            technology=request.technology,
            flows=answer.flows,
            expires=expires,
        )
        self.deadlines.set((entry.prefix, request.care_of), expires)
        return Shared(before is None or before.flows != answer.flows, answer.answers)

    def take_up(self, entry: Entry) -> None:
        """An entry with those that another process of this router knew."""
        for sharer in entry.sharers.values():
            self.deadlines.set((entry.prefix, sharer.care_of), sharer.expires)

    def drop(self, entry: Entry, care_of: Address) -> Sharer | None:
        """A router takes no flows of this prefix any more. Returns what it took."""
        self.deadlines.cancel((entry.prefix, care_of))
        return entry.sharers.pop(care_of, None)

    def inherit(self, entry: Entry) -> Sharer:
        """The one that came first has the whole prefix from now on."""
        heir = next(iter(entry.sharers.values()))
        self.drop(entry, heir.care_of)
        entry.care_of, entry.interface, entry.gateway = heir.care_of, "", None
        entry.link_layer, entry.technology = heir.link_layer, heir.technology
        entry.timestamp = max(entry.timestamp, entry.share_order.get(heir.care_of, 0))
        return heir

    def _free_number(self, entry: Entry) -> int | None:
        taken = {sharer.number for sharer in entry.sharers.values()}
        return next((number for number in range(DEFAULT + 1, LAST_NUMBER + 1) if number not in taken), None)
