"""A node as registered at the CMD by the router that serves it (RFC 8885 3.1), and the updates that say so."""

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv6Network

from signaling.actions import Action
from signaling.dma.update_list import Registration
from signaling.dmm.dlif import Dlif
from signaling.door import Door
from signaling.iana import HandoffIndicator
from signaling.proxy_update import proxy_update
from signaling.settings import Clock, Settings
from signaling.wire.options.option import Option
from signaling.wire.options.prefix import AnchoredPrefix, HomeNetworkPrefix

NUMBERS_KEPT = 8  # of updates whose answers may still come: there may be several for one (RFC 8885 3.2)
UNCHANGED = HandoffIndicator.HANDOFF_STATE_NOT_CHANGED


@dataclass(slots=True, kw_only=True)
class Enrolment(Registration):
    """A node as registered at the CMD: `prefix` is the first of its own, `anchor` the CMD."""

    own: tuple[IPv6Network, ...] = ()  # lent to it here
    numbers: tuple[int, ...] = ()  # of the last few updates
    fresh: bool = True  # since the node came, no answer did
    unused: tuple[IPv6Network, ...] = ()  # visited it, and nobody used them: it does without them


@dataclass(frozen=True, slots=True, kw_only=True)
class CentralState:
    """What another process of this router goes on with, beside visiting prefixes. due: of nodes, monotonic s."""

    enrolled: tuple[Enrolment, ...]
    due: Mapping[str, float]
    dlifs: Mapping[IPv6Network, Dlif]
    reachable: bool


class Updates:
    """To the CMD, numbered one after the other. last_number: None: there was none."""

    def __init__(self, settings: Settings, door: Door, clock: Clock) -> None:
        self.last_number: int | None = None
        self._settings = settings
        self._door = door
        self._clock = clock

    def update(
        self, item: Enrolment, lifetime: int, handoff: int, now: float, prefixes: tuple[Option, ...] = ()
    ) -> Action:
        """A PBU with the D flag (RFC 8885 3.1, 4.1). prefixes: (): those lent here, as home network prefixes.

        A refresh names in Anchored Prefix options what the node does without: no procedure of the RFC does.
        """
        unused = item.unused if handoff == UNCHANGED else ()
        self.last_number = self._clock.next_number(self.last_number, now)
        item.sequence_number, item.answered = self.last_number, False
        item.numbers = (*item.numbers, item.sequence_number)[-NUMBERS_KEPT:]
        update = proxy_update(
            item.node,
            prefixes
            or [
                *(HomeNetworkPrefix(prefix=prefix) for prefix in item.own),
                *(AnchoredPrefix(prefix=prefix) for prefix in unused),
            ],
            sequence_number=item.sequence_number,
            lifetime=lifetime,
            handoff=handoff,
            technology=self._settings.technology,
            link_layer=item.link_layer,
            timestamp=self._clock.stamp(now),
            distributed=True,
        )
        return self._door.send(update, item.anchor, care_of=self._settings.address)
