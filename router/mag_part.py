"""A MAG at work: access links toward the nodes, uplinks toward the anchor, and sites that are always attached.

It keeps no session over a restart: the nodes are still there, and the anchor still knows them.
"""

import asyncio
import logging

from router.access_links import AccessLinks
from router.config import Config
from router.driver import Driver
from router.errors import RouterError
from router.links.address_socket import AddressServer
from router.links.netlink import Netlink
from router.links.rtnetlink import Event as KernelEvent
from router.machine import Machine
from router.proxy_rehearsal import ProxyRehearsal
from router.readiness import Ready
from router.rehearsal import Act
from router.role_settings import mag_settings
from router.store.restarts import restart_counter
from router.uplinks import Uplinks
from signaling.events import Event, LinkUp, SiteAttached, UplinkDown, UplinkUp
from signaling.roles.mag import Mag
from signaling.settings import Address

log = logging.getLogger("openmar")

RESTARTS = "restarts"  # in the state directory


class MagPart:
    """Of one router."""

    def __init__(self, config: Config, machine: Machine) -> None:
        self.access = AccessLinks(config, self._on_event)
        self.role: Mag
        self.addresses: AddressServer
        self._config = config
        self._machine = machine
        self._arrivals: Ready
        self._answers: Ready
        self._uplinks: Uplinks | None = None
        self._local: dict[str, Address] = {}  # uplink -> its address while it is up
        self._driver: Driver | None = None

    def prepare(self, config: Config) -> Config:
        """Count the start: whatever registrations an earlier one had, this one does not know them."""
        machine = self._machine
        self.access.check(machine.netlink, machine.underlay.interface)
        counter = restart_counter(config.state_dir / RESTARTS, lost=True)
        settings = mag_settings(config, machine.underlay.address, machine.tunnel_mtu, counter)
        self.role = Mag(settings, traffic=lambda end: machine.network.traffic(end))
        self.addresses = AddressServer(settings, self.access.identities, self.role.counters, self._on_event)
        self.access.addresses = self.addresses
        return config

    def open(self) -> Driver:
        """Let the kernel forward."""
        network = self._machine.network
        network.forward(self._machine.underlay.interface)
        self._driver = Driver(
            self.role,
            network=network,
            sockets=self._machine.signaling,
            on_bound=self._machine.packets.turn,
            links=self.access.interfaces,
            addresses=self.addresses,
        )
        self._arrivals = Ready(ProxyRehearsal, Act.ARRIVAL)
        self._answers = Ready(ProxyRehearsal, Act.ANSWER)
        return self._driver

    async def restore(self) -> None:
        """There is nothing to take up."""

    def serve(self) -> None:
        """Open the access links and the uplinks; the sites are here from now on."""
        self._arrivals.prepare_later()
        self._answers.prepare_later()
        self.access.open(self._machine.network)
        config = self._config
        if config.uplinks:
            self._uplinks = Uplinks(
                Netlink(),
                config.uplinks,
                table=config.table,
                on_event=self._on_uplink,
                anchors=self._anchors(),
            )
            self._uplinks.serve(asyncio.get_running_loop())
        for site in config.sites:
            self._on_event(SiteAttached(node=site.node))

    def kernel_changed(self, event: KernelEvent) -> None:
        """Access links follow; uplinks hear for themselves."""
        self.access.kernel_changed(event)

    def resync(self) -> None:
        """Access links are looked at."""
        self.access.resync(self._machine.netlink)

    def vitals(self) -> dict[str, object]:
        """It keeps nothing."""
        return {}

    def greeting(self) -> list[str]:
        """Anchor, links, uplinks, sites."""
        config = self._config
        links, uplinks = ", ".join(config.interfaces), ", ".join(uplink.interface for uplink in config.uplinks)
        lines = [
            f"anchor    {config.gateway.anchor}",
            f"access    {links or 'none: give it the link of your nodes with --access IF'}",
            f"uplinks   {uplinks or 'one path, from the underlay address; more: --uplink IF,label=NAME'}",
        ]
        if config.sites:
            lines.append(f"sites     {', '.join(site.node for site in config.sites)}")
        return lines

    async def farewell(self) -> None:
        """The role has de-registered all; there is nothing to write."""

    async def close(self) -> None:
        """Links."""
        self.access.close()
        uplinks, self._uplinks = self._uplinks, None
        if uplinks is not None:
            uplinks.close()

    def _anchors(self) -> list[Address]:
        """Where the anchor can be reached."""
        found = (peer for peer in self._config.peers if peer.name == self._config.gateway.anchor)
        return [address for peer in found for address in (peer.address, *peer.addresses) if address is not None]

    def _on_uplink(self, event: UplinkUp | UplinkDown) -> None:
        """Tunnels and signalling begin at the address of an uplink while it is up."""
        before = self._local.pop(event.interface, None)
        if isinstance(event, UplinkUp):
            self._local[event.interface] = event.address
            try:
                self._machine.add_local(event.address)
            except RouterError as error:  # it may have gone again already
                log.warning("uplink %s: %s", event.interface, error)
                return
        self._on_event(event)
        if before is not None and before not in self._local.values():
            self._machine.remove_local(before)

    def _on_event(self, event: Event) -> None:
        assert self._driver is not None
        if isinstance(event, LinkUp):  # somebody is about to show himself
            self._answers.play()
            self._arrivals.play()
        self._driver.feed(event)
