"""An LMA at work: no access links; its pools lead to the TUN as a whole; its sessions are durable before it answers."""

import logging
from pathlib import Path

from router.config import Config
from router.driver import Driver
from router.links.rtnetlink import Event as KernelEvent
from router.machine import Machine
from router.readiness import Ready
from router.rehearsal import Act, Rehearsal
from router.role_settings import lma_settings
from router.store.bindings import BindingStore
from router.store.restarts import restart_counter
from signaling.events import BindingsRestored
from signaling.roles.lma import Lma

log = logging.getLogger("openmar")

PLAYS = 8  # of an update, while its node is between two gateways
FAREWELL_WITHIN = 2.0  # s for what has to be written before the end
BINDINGS, RESTARTS = "bindings.db", "restarts"  # in the state directory


class LmaPart:
    """Of one router."""

    access = None

    def __init__(self, config: Config, machine: Machine) -> None:
        self.role: Lma
        self._config = config
        self._machine = machine
        self._updates: Ready
        self._store: BindingStore | None = None
        self._driver: Driver | None = None

    @property
    def _file(self) -> Path:
        return self._config.state_dir / BINDINGS

    def prepare(self, config: Config) -> Config:
        """Open what it has acknowledged: whether that is complete decides the restart counter."""
        self._store = BindingStore(self._file, self._health)
        counter = restart_counter(config.state_dir / RESTARTS, lost=self._store.lost)
        machine = self._machine
        settings = lma_settings(config, machine.underlay.address, machine.tunnel_mtu, counter)
        self.role = Lma(settings, traffic=lambda end: machine.network.traffic(end))
        return config

    def open(self) -> Driver:
        """Claim the pools as a whole."""
        config, network = self._config, self._machine.network
        own = config.anchoring
        network.claim_tun((*config.prefixes, *own.delegated_prefixes, *own.ipv4_prefixes))
        network.forward(self._machine.underlay.interface)
        if own.ipv4_prefixes:
            network.forward_ipv4()
        self._driver = Driver(
            self.role,
            network=network,
            sockets=self._machine.signaling,
            on_bound=self._on_bound,
            links={},
            bindings=self._store,
            on_held=self._on_held,
        )
        self._updates = Ready(_rehearsal, Act.UPDATE, plays=PLAYS)
        return self._driver

    async def restore(self) -> None:
        """Rebuild the binding cache and the tables from what was acknowledged. Raises StoreError."""
        assert self._store is not None
        assert self._driver is not None
        self._driver.feed(BindingsRestored(bindings=self._store.load()))

    def serve(self) -> None:
        """All there is comes in by the signalling sockets."""
        self._updates.prepare_later()

    def kernel_changed(self, event: KernelEvent) -> None:
        """No link of the machine concerns it."""

    def resync(self) -> None:
        """No link of the machine concerns it."""

    def vitals(self) -> dict[str, object]:
        """Of the store."""
        assert self._store is not None
        return {
            "store": str(self._file),
            "store_reachable": self._store.reachable,
            "store.unsaved": self._store.unsaved,
        }

    def greeting(self) -> list[str]:
        """Pools, peers, store."""
        config, own = self._config, self._config.anchoring
        pools = [str(pool) for pool in (*config.prefixes, *own.ipv4_prefixes)]
        lines = [f"pools     {', '.join(pools)}: home prefixes and addresses for the nodes of its gateways"]
        if own.delegated_prefixes:
            delegated = ", ".join(map(str, own.delegated_prefixes))
            lines.append(f"delegates {delegated}: a /{own.delegated_length} for each moving network")
        return [
            *lines,
            f"gateways  {', '.join(peer.name for peer in config.peers) or 'none yet: --peer NAME=ADDRESS,KEY'}",
            f"store     {self._file}",
        ]

    async def farewell(self) -> None:
        """Sessions are written."""
        await self.close()

    async def close(self) -> None:
        """The store."""
        store, self._store = self._store, None
        if store is not None:
            await store.close(FAREWELL_WITHIN)

    def _on_held(self) -> None:
        """A node has left its gateway: the next one will ask for it in a moment."""
        self._updates.watch()

    def _on_bound(self) -> None:
        """What was held goes at once."""
        self._machine.packets.turn()
        self._updates.call_off()

    def _health(self, reachable: bool) -> None:
        if self._driver is not None:
            self._driver.journalist.tell("store", {"reachable": reachable})


def _rehearsal(act: Act) -> Rehearsal:
    from router.proxy_rehearsal import ProxyRehearsal  # and with it a gateway: who starts anew shall not wait for that

    return ProxyRehearsal(act)
