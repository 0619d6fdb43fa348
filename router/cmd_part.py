"""A Central Mobility Database at work: no access links and no pools; its binding cache is durable before it answers."""

from collections.abc import Iterator
from ipaddress import IPv6Address

from router.config import Config
from router.driver import Driver
from router.links.rtnetlink import Event as KernelEvent
from router.machine import Machine
from router.role_settings import cmd_settings
from router.sessions import Sessions
from router.store import SessionStore, open_store
from router.store.url import without_password
from signaling.events import SessionsFound, SessionsRestored
from signaling.roles.cmd import Cmd


class EveryNode:
    """All nodes of the domain: what another CMD writes of any of them is of interest."""

    def __init__(self, role: Cmd) -> None:
        self._role = role

    def __contains__(self, node: object) -> bool:
        return True

    def __iter__(self) -> Iterator[str]:
        return (binding.node for binding in self._role.database.bindings)


class CmdPart:
    """Of one router."""

    access = None

    def __init__(self, config: Config, machine: Machine) -> None:
        self.role: Cmd
        self._config = config
        self._machine = machine
        self._store: SessionStore | None = None
        self._driver: Driver | None = None

    @property
    def sessions(self) -> Sessions:
        """Its reads and writes of the store."""
        assert self._driver is not None
        return self._driver.sessions

    def prepare(self, config: Config) -> Config:
        """Nothing is lent here: there are no pools."""
        machine = self._machine
        self.role = Cmd(cmd_settings(config, machine.underlay.address, machine.tunnel_mtu))
        return config

    def open(self) -> Driver:
        """Open the store."""
        self._store = open_store(self._config.store_url)
        self._driver = Driver(
            self.role,
            network=self._machine.network,
            sockets=self._machine.signaling,
            links={},
            sessions=self._sessions,
        )
        return self._driver

    def _sessions(self, driver: Driver) -> Sessions:
        assert self._store is not None
        return Sessions(
            self._store,
            on_found=lambda node, sessions: driver.feed(SessionsFound(node=node, sessions=sessions)),
            on_health=lambda reachable, full: driver.journalist.tell("store", {"reachable": reachable, "full": full}),
        )

    async def restore(self) -> None:
        """Take up what was acknowledged before: all that is anchored at the routers of the domain."""
        assert self._driver is not None
        assert self._store is not None
        found = [
            session
            for peer in self._config.peers
            if isinstance(peer.address, IPv6Address)
            for session in await self._store.anchored(peer.address)
        ]
        self._driver.feed(SessionsRestored(sessions=tuple(found)))

    def serve(self) -> None:
        """Follow what other CMDs write."""
        self.sessions.watch(EveryNode(self.role), whole=True)

    def kernel_changed(self, event: KernelEvent) -> None:
        """No link of the machine concerns it."""

    def resync(self) -> None:
        """No link of the machine concerns it."""

    def vitals(self) -> dict[str, object]:
        """Of the store."""
        return {
            "store": without_password(self._config.store_url),
            "store_reachable": self.sessions.reachable,
            "store_full": self.sessions.full,
            "store.unsaved": self.sessions.unsaved,
        }

    def greeting(self) -> list[str]:
        """Mode, routers, store."""
        config = self._config
        routers = ", ".join(peer.name for peer in config.peers) or "none yet: --peer NAME=ADDRESS,KEY"
        return [
            f"mode      {config.cmd.mode.value}: the same as on the routers",
            f"routers   {routers}",
            f"store     {without_password(config.store_url)}",
        ]

    async def farewell(self) -> None:
        """Sessions are written."""
        await self.sessions.close()

    async def close(self) -> None:
        """The store."""
        if self._driver is not None:
            await self._driver.sessions.close(0.0)
        store, self._store = self._store, None
        if store is not None:
            await store.close()
