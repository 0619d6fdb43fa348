"""The MAGs an LMA has sessions with, and the ways to each: whom to ask for heartbeats, which paths to watch.

    "mag1"  BID 1  -> 70,000 sessions, the last of them by 2001:db8:a::1
            BID 2  -> 70,000 sessions, the last of them by 2001:db8:b::1
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from signaling.actions import TunnelEnd
from signaling.pmip.mobility_session import CareOf, MobilitySession
from signaling.settings import Address

WayKey = tuple[str, int]  # name of the MAG, BID


@dataclass(slots=True)
class Reach:
    """One way to a MAG, as the newest session by it has it."""

    sessions: int
    address: Address
    local: Address | None
    port: int
    tunnel: TunnelEnd


class Gateways:
    """How many sessions each MAG has by each of its ways."""

    def __init__(self) -> None:
        self._reach: dict[WayKey, Reach] = {}
        self._changed: dict[WayKey, None] = {}

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(name for name, _ in self._reach))

    def reach(self, name: str) -> Reach | None:
        """Any way to a MAG; None: there is no session with it."""
        return next((reach for (gateway, _), reach in self._reach.items() if gateway == name), None)

    def way(self, key: WayKey) -> Reach | None:
        """This way to a MAG; None: no session takes it any more."""
        return self._reach.get(key)

    def add(self, session: MobilitySession, care_of: CareOf) -> None:
        """A session has this care-of address now."""
        key = session.gateway, care_of.way_id
        reach = self._reach.get(key)
        if reach is None:
            tunnel = care_of.tunnel(session.uplink_key)
            self._reach[key] = Reach(1, care_of.address, care_of.local, care_of.port, tunnel)
            self._changed[key] = None
            return
        reach.sessions += 1
        before = reach.address, reach.port, reach.tunnel.port
        if before != (care_of.address, care_of.port, care_of.data_port):
            reach.address, reach.local, reach.port = care_of.address, care_of.local, care_of.port
            reach.tunnel = care_of.tunnel(session.uplink_key)
            self._changed[key] = None

    def data_moved(self, key: WayKey, port: int) -> None:
        """Data by this way comes from another UDP port now."""
        reach = self._reach.get(key)
        if reach is not None:
            reach.tunnel = replace(reach.tunnel, port=port)
            self._changed[key] = None

    def remove(self, session: MobilitySession, care_of: CareOf) -> None:
        """A session does not have this care-of address any more."""
        key = session.gateway, care_of.way_id
        reach = self._reach.get(key)
        if reach is not None:
            reach.sessions -= 1
            if not reach.sessions:
                del self._reach[key]
                self._changed[key] = None

    def take_changes(self) -> tuple[WayKey, ...]:
        """The ways that came, went or moved since the last call."""
        if not self._changed:
            return ()
        changed, self._changed = tuple(self._changed), {}
        return changed
