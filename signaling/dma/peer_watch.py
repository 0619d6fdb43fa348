"""Whether the routers that share sessions with this one live and remember (RFC 5847), and what follows (derived).

    peer               prefixes anchored here, its node there      prefixes anchored there, its node here
    restarted          asked whether it still knows them           registered again
    unreachable        held, or dropped: [anchor] peer_lost        lost: no tunnel, withdrawn from the node
                       flows: go where the prefix is
    back               tunnelled again                             registered again

What becomes of a session is the anchor's and the registrar's; here is which peers are asked, and who is told.
"""

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

from signaling.actions import Action, Bind, Note, Unbind
from signaling.dma.anchor import Anchor
from signaling.dma.registrar import Registrar
from signaling.dma.session import AWAY
from signaling.dma.update_list import Progress
from signaling.door import Door, addresses_of
from signaling.events import DatagramReceived
from signaling.pmip.heartbeats import Heartbeats, PeerEvent, PeerNews
from signaling.settings import Address, Clock, Counters, Peer, Prefix, Settings
from signaling.wire.heartbeat import Heartbeat

if TYPE_CHECKING:
    from signaling.dmm.serving import CentralRegistrar

ASK_AFTER = 1.0  # s that a first session with a peer lasts: a handover is no time to ask how it is
OF_VISITED = {Progress.PENDING, Progress.VISITED, Progress.LOST}


class PeerWatch:
    """The peers there are sessions with, and Heartbeats to them."""

    def __init__(
        self,
        settings: Settings,
        door: Door,
        clock: Clock,
        counters: Counters,
        *,
        anchor: Anchor,
        registrar: "Registrar | CentralRegistrar",
    ) -> None:
        self.heartbeats = Heartbeats(settings, door, clock, counters)
        self._settings = settings
        self._door = door
        self._anchor = anchor
        self._registrar = registrar
        self._shared: dict[Prefix, frozenset[Address]] = {}  # with whom
        self._sessions: Counter[Address] = Counter()

    @property
    def next_wake(self) -> float | None:
        """When wake() is due next, monotonic s."""
        return self.heartbeats.next_wake

    def follow(self, actions: Iterable[Action], now: float) -> None:
        """These are about to be done: a prefix may be shared with another peer, or with none."""
        for action in actions:
            if isinstance(action, Bind | Unbind):
                self._share(action.prefix, now)

    def take_up(self, now: float) -> None:
        """Anchor and registrar know what another process of this router knew."""
        for known in (*self._anchor.cache, *self._registrar.all()):
            self._share(known.prefix, now)

    def announce_restart(self, now: float) -> list[Action]:
        """We were away, and know nothing of the nodes that were here (RFC 5847 3.2)."""
        routers = (peer for peer in self._settings.peers if peer.name != self._settings.cmd)
        known = (address for peer in routers for address in addresses_of(peer))
        return self.heartbeats.announce_restart(known, now)

    def receive(self, beat: Heartbeat, event: DatagramReceived, peer: Peer | None, now: float) -> list[Action]:
        """A Heartbeat came in."""
        actions, news = self.heartbeats.receive(beat, event, peer, now)
        return actions if news is None else actions + self._heed(news, now)

    def wake(self, now: float) -> list[Action]:
        """Ask whose turn it is."""
        actions, news = self.heartbeats.wake(now)
        return actions + [action for item in news for action in self._heed(item, now)]

    def not_understood(self, peer: Peer, source: Address, now: float) -> list[Action]:
        """A peer does not know a message of ours: it gets no more of those it may miss (RFC 5847 3, RFC 5846 6.2)."""
        self.heartbeats.not_understood(peer.name)
        return self._anchor.revocation_not_understood(source, now)

    def _heed(self, news: PeerNews, now: float) -> list[Action]:
        peer, routers = self._door.named(news.peer), self._anchor.visited_routers
        actions: list[Action] = [Note(f"peer-{news.kind.value}", {"peer": news.peer})]
        for address in addresses_of(peer) if peer is not None else ():
            match news.kind:
                case PeerEvent.RESTARTED:
                    actions += routers.recheck(address, now) + self._registrar.anchor_back(address, now)
                case PeerEvent.UNREACHABLE:
                    actions += routers.lost(address) + self._registrar.anchor_lost(address, now)
                case PeerEvent.BACK:
                    actions += routers.back(address) + self._registrar.anchor_back(address, now)
        return actions

    # --- with whom there are sessions ---

    def _peers_of(self, prefix: Prefix) -> frozenset[Address]:
        entry = self._anchor.cache.get(prefix)  # type: ignore[arg-type]  # a MAR has IPv6 prefixes only
        if entry is not None:
            return frozenset(entry.sharers).union((entry.care_of,) if entry.state in AWAY else ())
        item = self._registrar.get(prefix)  # type: ignore[arg-type]
        return frozenset((item.anchor,) if item is not None and item.progress in OF_VISITED else ())

    def _share(self, prefix: Prefix, now: float) -> None:
        before, peers = self._shared.get(prefix, frozenset()), self._peers_of(prefix)
        if peers:
            self._shared[prefix] = peers
        else:
            self._shared.pop(prefix, None)
        for address in sorted(peers - before, key=int):
            self._sessions[address] += 1
            if self._sessions[address] == 1:
                self._keep(address, now)
        for address in sorted(before - peers, key=int):
            self._sessions[address] -= 1
            if not self._sessions[address]:
                self._stop(address)

    def _keep(self, address: Address, now: float) -> None:
        peer = self._door.peer(address)
        if peer is not None:
            self.heartbeats.keep(peer.name, address, 0, None, now + ASK_AFTER)

    def _stop(self, address: Address) -> None:
        del self._sessions[address]
        self._registrar.anchor_forgotten(address)
        peer = self._door.peer(address)
        if peer is not None:
            self.heartbeats.stop(peer.name)
