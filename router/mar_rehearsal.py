"""The rehearsal of Dynamic Mobility Anchoring: a node whose prefix is of one MAR comes to another, and leaves it."""

import asyncio
from dataclasses import replace
from ipaddress import IPv6Network

from router.rehearsal import ANCHOR, KEY, ROUTER, Rehearsal
from router.store.encoding import decode, encode
from signaling.dma.session import Session
from signaling.events import LinkDetached
from signaling.roles.mar import Mar
from signaling.settings import Address, Peer, Settings


class MarRehearsal(Rehearsal):
    """Two MARs with a store between them."""

    def _cast(self) -> None:
        self._archive = Archive()
        for address, other in ((ANCHOR, ROUTER), (ROUTER, ANCHOR)):
            pool = IPv6Network((int(address) << 64 & (1 << 128) - 1, 64))
            settings = Settings(
                address=address,
                tunnel_mtu=1280,
                peers=(Peer(name="other", address=other, key=KEY),),
                pools=(pool,),
            )
            self._add(address, Mar(settings), aggregated=False, sessions=lambda driver: self._archive)
        anchor = self.drivers[ANCHOR]
        anchor.feed(replace(self._sighting(), sessions=()))  # its prefix is from there
        self._leave_from(ANCHOR)

    def _arrive(self) -> None:
        event = self._sighting()
        self.drivers[ROUTER].feed(replace(event, sessions=self._archive.peek(event.node)))

    def _depart(self) -> None:
        self._leave_from(ROUTER)

    def _leave_from(self, address: Address) -> None:
        driver = self.drivers[address]
        driver.feed(LinkDetached(node=self._sighting().node, reason="rehearsal"))
        self._carry()  # the anchor is told at once
        self._pass_time(driver)


class Archive:
    """Instead of a store: sessions as it would keep them."""

    def __init__(self) -> None:
        self._kept: dict[IPv6Network, Session] = {}
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._done.set_result(None)

    def save(self, session: Session) -> "asyncio.Future[None]":
        """Keep it."""
        self._kept[session.prefix] = session
        return self._done

    def forget(self, node: str, prefix: IPv6Network) -> "asyncio.Future[None]":
        """Keep it no more."""
        self._kept.pop(prefix, None)
        return self._done

    def peek(self, node: str) -> tuple[Session, ...]:
        """All there are."""
        return decode(node, encode(tuple(self._kept.values())))
