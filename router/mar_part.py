"""A MAR at work: access links, pools of its own, and the sessions it shares with the other routers of the domain."""

import asyncio
import socket
import time
from collections.abc import Mapping
from dataclasses import replace
from ipaddress import IPv6Address
from math import isinf
from typing import Any

from router.access_links import AccessLinks
from router.config import Config
from router.driver import Driver
from router.errors import RouterError
from router.homecoming import LOOK_EVERY
from router.links.rtnetlink import Event as KernelEvent
from router.machine import Machine, own_pool
from router.mar_rehearsal import MarRehearsal
from router.readiness import Ready
from router.rehearsal import Act
from router.role_settings import mar_settings
from router.sessions import Sessions
from router.store import SessionStore, StoreError, open_store
from router.store.journal import Journal
from router.store.late import LateStore
from router.store.restarts import last_counter, restart_counter
from router.store.url import without_password
from signaling.actions import Bind, ExpectNode, SetPolicy
from signaling.dma.session import Session
from signaling.errors import SignalingError
from signaling.events import Event, LinkAttached, LinkUp, SessionsFound, SessionsRestored
from signaling.roles.mar import Mar

NOBODY = ""  # a node that there is not
PLAYS = 8  # of an update, while its node is between two routers
LENT = "lent.journal"  # in the state directory
RESTARTS = "restarts"  # in the state directory


class MarPart:
    """Of one router."""

    def __init__(self, config: Config, machine: Machine) -> None:
        self.access = AccessLinks(config, self._on_event)
        self.role: Mar
        self._config = config
        self._machine = machine
        self._store: SessionStore | None = None
        self._journal: Journal
        self._driver: Driver | None = None
        self._arrivals: Ready
        self._updates: Ready

    @property
    def sessions(self) -> Sessions:
        """Its reads and writes of the store."""
        assert self._driver is not None
        return self._driver.sessions

    def prepare(self, config: Config, *, restarted: bool = True) -> Config:
        """Without a pool it makes one. restarted: what a run before knew of visiting nodes is lost."""
        machine = self._machine
        self.access.check(machine.netlink, machine.underlay.interface)
        self._config = replace(config, prefixes=config.prefixes or (own_pool(config.state_dir),))
        # whatever the store still has of its prefixes: of nodes that visited it a new run knows nothing
        file = config.state_dir / RESTARTS
        counter = restart_counter(file, lost=True) if restarted else last_counter(file)
        settings = mar_settings(self._config, machine.underlay.address, machine.tunnel_mtu, counter)
        machine.tables.open_idle_after = config.open_idle_after
        self.role = Mar(
            settings,
            silence=lambda prefix: machine.network.silence(prefix),
            honoured=lambda prefix, within: machine.network.honoured(prefix, within),
        )
        return self._config

    def open(self) -> Driver:
        """Claim the pools, open the store."""
        config, network = self._config, self._machine.network
        network.claim(config.prefixes)
        if config.interfaces:
            network.forward(self._machine.underlay.interface)
        return self._begin()

    def _begin(self) -> Driver:
        config, network = self._config, self._machine.network
        self._journal = Journal(config.state_dir / LENT)
        self._store = self._open_store()
        self._driver = Driver(
            self.role,
            network=network,
            sockets=self._machine.signaling,
            on_held=self._on_held,
            on_bound=self._on_bound,
            links=self.access.interfaces,
            sessions=self._sessions,
        )
        self._arrivals = Ready(MarRehearsal, Act.ARRIVAL)
        self._updates = Ready(MarRehearsal, Act.UPDATE, plays=PLAYS)
        return self._driver

    def _open_store(self) -> SessionStore:
        """The store. A file that cannot be opened is opened later, if this router knows by itself what it has lent."""
        url = self._config.store_url
        try:
            return open_store(url)
        except StoreError:
            if not self._journal.known or not url.startswith("sqlite:"):
                raise
            return LateStore(url)

    def _sessions(self, driver: Driver) -> Sessions:
        assert self._store is not None
        return Sessions(
            self._store,
            on_found=lambda node, sessions: driver.feed(SessionsFound(node=node, sessions=sessions)),
            on_health=lambda reachable, full: driver.journalist.tell("store", {"reachable": reachable, "full": full}),
            on_restored=lambda sessions: driver.feed(SessionsRestored(sessions=sessions)),
            journal=self._journal,
        )

    async def restore(self) -> None:
        """Take up what was lent before; without knowing that, a prefix could be lent twice."""
        try:
            await self.sessions.restore(self._address)
        except StoreError as error:
            why = f"a first start, which has no {LENT} yet, asks it what is lent already"
            raise StoreError(f"{error}: {why}: start it, or name another one with --store") from None

    @property
    def _address(self) -> IPv6Address:
        address = self.role.settings.address
        assert isinstance(address, IPv6Address)  # `coherence` asks for it
        return address

    # --- from one process to the next: the counterparts of open, restore and serve ---

    async def settle(self) -> None:
        """Until whoever waits for the store has had what it waits for, and nodes that came home have their packets."""
        await self.sessions.settle()
        while self._machine.network.brings_home:
            await asyncio.sleep(LOOK_EVERY)

    def handover(self) -> Any:
        """All that it knows, as plain data."""
        from router.mar_handover import MarHandover, Unwritten
        from router.plain_data import to_plain
        from signaling.roles.mar_state import state_of

        network = self._machine.network
        known = MarHandover(
            role=state_of(self.role, time.monotonic()),
            paths=tuple(Bind(prefix=key, path=path, node=network.nodes[key]) for key, path in network.paths.items()),
            open_silence={prefix: silence for prefix, (_, silence) in network.open_connections().items()},
            unwritten=tuple(
                Unwritten(node=node, prefix=prefix, session=session)
                for (node, prefix), session in self.sessions.waiting.items()
            ),
        )
        return to_plain(MarHandover, known)

    def adopt(self) -> Driver:
        """In place of open: pools and forwarding are as another process has set them."""
        driver = self._begin()
        self._arrivals.prepare()  # that one still serves
        self._arrivals.play()
        return driver

    def take_up(self, data: Any, sockets: Mapping[str, socket.socket]) -> None:
        """In place of restore, with what handover() of that process has said, and its sockets of access links."""
        from router.mar_handover import MarHandover
        from router.plain_data import from_plain
        from signaling.roles.mar_state import take_up

        assert self._driver is not None
        known = from_plain(MarHandover, data)
        try:
            expected = self._driver.take_up(lambda now: take_up(self.role, known.role, now))
        except (SignalingError, KeyError) as error:  # an indication that is none, a prefix that is lent twice
            raise RouterError(f"takeover: state: {error}") from None
        here = [action for action in expected if isinstance(action, ExpectNode)]
        for action in expected:
            if isinstance(action, SetPolicy):
                self._machine.network.set_policy(action)
        self._machine.network.adopt(known.paths, known.open_silence)
        self.access.adopt(self._machine.network, sockets, here, carriers=self.role.access.links)
        self.sessions.go_on(self._address)
        for item in known.unwritten:
            if item.session is None:
                self.sessions.forget(item.node, item.prefix)
            else:
                self.sessions.save(item.session)

    def let_go(self) -> None:
        """Another process writes what waits."""
        self.sessions.drop()

    def go_on(self) -> None:
        """In place of serve: what happened to links and sessions in between is looked up."""
        assert self._driver is not None
        self.access.serve()
        self.access.resync(self._machine.netlink)
        self._watch()
        for node in self.role.here:
            self.sessions.find(node)

    # --- life ---

    def serve(self) -> None:
        """Open the access links, and watch the store."""
        self.access.open(self._machine.network)
        self._watch()

    def _watch(self) -> None:
        self._arrivals.prepare_later()
        self._updates.prepare_later()
        # of a MAR with a CMD nobody else writes what is in its store
        self.sessions.watch(() if self.role.central else self.role.here)

    def kernel_changed(self, event: KernelEvent) -> None:
        """Access links follow."""
        self.access.kernel_changed(event)

    def resync(self) -> None:
        """Access links are looked at."""
        self.access.resync(self._machine.netlink)

    async def sessions_of(self, node: str) -> tuple[Session, ...]:
        """What the store has of a node. Raises StoreError."""
        assert self._store is not None
        return (await self._store.get(node)).sessions

    def vitals(self) -> dict[str, object]:
        """Of the store, of the CMD, and of connections that are followed."""
        central = self.role.central
        about = {} if central is None else {"cmd": self._config.cmd.peer, "cmd_reachable": central.reachable}
        return about | {
            "engine.crowded": self._machine.tables.crowded,
            "store": without_password(self._config.store_url),
            "store_reachable": self.sessions.reachable,
            "store_full": self.sessions.full,
            "store_restored": self.sessions.restored,
            "store.unsaved": self.sessions.unsaved,
            "store.reads": self.sessions.reads,
            "store.writes": self.sessions.writes,
            "draining": self._draining(),
        }

    def _draining(self) -> str:
        draining, now = self.role.draining, time.monotonic()
        if draining.since is None:
            return "no"
        left = "" if isinf(draining.until) else f", for {max(0.0, draining.until - now):.0f} s more at most"
        nodes, prefixes = len(self.role.here), self.role.prefixes_in_use()
        here = f"{nodes} node{'s' * (nodes != 1)} here, {prefixes} prefix{'es' * (prefixes != 1)} in use"
        return f"since {now - draining.since:.0f} s{left}: {here}"

    def greeting(self) -> list[str]:
        """Pools, links, store."""
        config = self._config
        links = ", ".join(config.interfaces)
        store = without_password(config.store_url)
        return [
            f"prefixes  {', '.join(map(str, config.prefixes))}: a /64 for each node that comes",
            f"access    {links or 'none yet: give it the link of your nodes with --access IF'}",
            f"peers     {', '.join(peer.name for peer in config.peers) or 'none yet: --peer NAME=ADDRESS,KEY'}",
            f"cmd       {config.cmd.peer}: knows the nodes of the domain; own sessions in {store}"
            if config.cmd.peer
            else f"store     {store}: the same for all routers of a domain",
        ]

    async def farewell(self) -> None:
        """Sessions are written."""
        await self.sessions.close()

    async def close(self) -> None:
        """Links and store."""
        if self._driver is not None:
            await self._driver.sessions.close(0.0)
        self.access.close()
        store, self._store = self._store, None
        if store is not None:
            await store.close()

    def _on_held(self) -> None:
        """A node has left: another router will ask for its prefix in a moment."""
        self._updates.watch()

    def _on_bound(self) -> None:
        """What was held goes at once."""
        self._machine.packets.turn()
        self._updates.call_off()

    def _on_event(self, event: Event) -> None:
        assert self._driver is not None
        if isinstance(event, LinkUp):  # somebody is about to show himself
            self._arrivals.play()
            self.sessions.peek(NOBODY)  # the store is asked then, too
        if isinstance(event, LinkAttached) and event.node not in self.role.here:
            event = replace(event, sessions=() if self.role.central else self.sessions.peek(event.node))
        self._driver.feed(event)
