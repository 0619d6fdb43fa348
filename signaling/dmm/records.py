"""What a CMD writes into the record of a node, and what such a record says.

Several CMDs over one store serve one domain. Each router is the peer of one of them, its own, which alone speaks to it
and alone writes the sessions of the prefixes that it anchors: no two ever write the same one. But for one thing: that a
node does without a prefix says the CMD of the router where the node is.
"""

from collections.abc import Iterable
from dataclasses import replace
from ipaddress import IPv6Network
from math import inf

from signaling.actions import Action, ForgetSession, SaveSession
from signaling.dma.session import Session, State
from signaling.dmm.database import NOWHERE, Anchorage, Binding
from signaling.door import Door
from signaling.settings import Address, Clock, CmdSettings

SAVED_PERIODS = 10  # lifetimes of a registration that the store may miss


class Records:
    """Of one CMD."""

    def __init__(self, settings: CmdSettings, door: Door, clock: Clock) -> None:
        self._settings = settings
        self._door = door
        self._clock = clock

    def is_ours(self, router: Address) -> bool:
        """Whether this router follows us, and no other CMD."""
        return self._door.peer(router) is not None

    def ours(self, items: Iterable[Anchorage]) -> list[Anchorage]:
        """Those whose anchors follow us."""
        return [item for item in items if self.is_ours(item.anchor)]

    # --- writing ---

    def save(self, binding: Binding, item: Anchorage) -> list[Action]:
        """What its record says of this prefix from now on."""
        return [SaveSession(session=self._session(binding, item))] if self.is_ours(item.anchor) else []

    def forget(self, binding: Binding, prefixes: Iterable[Anchorage]) -> list[Action]:
        """Its record has these no more."""
        return [ForgetSession(node=binding.node, prefix=item.prefix) for item in self.ours(prefixes)]

    def say_released(self, binding: Binding, item: Anchorage) -> Action:
        """Its CMD shall tell the anchor of another CMD that the node does without this prefix."""
        return SaveSession(session=replace(self._session(binding, item), state=State.RELEASED))

    def known(self, binding: Binding) -> dict[IPv6Network, tuple[object, ...]]:
        """What the record says now, for `changes`."""
        return {item.prefix: _essence(self._session(binding, item)) for item in binding.anchorages.values()}

    def changes(self, binding: Binding, before: dict[IPv6Network, tuple[object, ...]]) -> list[Action]:
        """What other CMDs, or we after a restart, must know; refreshes stay here (most of them)."""
        if binding.expires > binding.saved_until:
            binding.saved_until = binding.expires + SAVED_PERIODS * self._settings.binding_lifetime
        after = self.known(binding)
        changed = (item for item in binding.anchorages.values() if before.get(item.prefix) != after[item.prefix])
        return [action for item in changed for action in self.save(binding, item)]

    def _session(self, binding: Binding, item: Anchorage) -> Session:
        return binding.session(item, self._clock.wall_minus_monotonic, self._settings.valid_lifetime)

    # --- reading ---

    def binding(self, sessions: Iterable[Session], now: float) -> Binding | None:
        """What they say of a node; None: nothing that concerns this CMD."""
        known = [session for session in sessions if session.state is not State.RELEASED]
        binding = Binding.of(known)
        if binding is None or (binding.serving == NOWHERE and not self.ours(binding.anchorages.values())):
            return None
        latest = max((session.expires for session in known if session.expires < inf), default=0.0)
        binding.saved_until = self._clock.monotonic(latest)
        # how much of a registration is left the store does not know: its router gets a full period to refresh it;
        # of one that is refreshed at another CMD the record says how long that may be silent
        binding.expires = now + self._settings.binding_lifetime
        if binding.serving != NOWHERE and not self.is_ours(binding.serving):
            binding.expires = max(binding.expires, binding.saved_until)
        return binding


def _essence(session: Session) -> tuple[object, ...]:
    """What of a session the store must know at once; that a node came anew where it was, if it is there."""
    came = session.timestamp if session.state is State.LOCAL else 0
    return session.anchor, session.state, session.care_of, session.link_layer, session.technology, session.expires, came
