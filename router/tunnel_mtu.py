"""The MTU of the tunnels of a router as it is now, for the advertisements on its access links (RFC 5213 6.9.5).

It is never more than at the start: that is what the TUN was given. Less, while an interface of the underlay has a
smaller MTU, which netlink tells, or a tunnel has learned of a narrow place on its path, for which the engine is asked.
"""

import asyncio
from collections.abc import Callable

from router.links.rtnetlink import Event as KernelEvent
from router.links.rtnetlink import LinkChanged
from router.machine import LEAST_MTU, Machine
from signaling.events import TunnelMtuChanged

EVERY = 5.0  # s between looks at what the tunnels have learned; a path forgets after minutes (RFC 8201 5.3)


class TunnelMtu:
    """Of one router. on_event hears of each change."""

    def __init__(self, machine: Machine, on_event: Callable[[TunnelMtuChanged], None]) -> None:
        uplinks: list[str | None] = [uplink.interface for uplink in machine.config.uplinks]
        self.mtu = machine.tunnel_mtu  # octets of the largest inner packet
        self._machine = machine
        self._on_event = on_event
        self._interfaces = frozenset(uplinks or [machine.underlay.interface])
        self._links: dict[str, int] = {}  # interface -> its MTU
        self._timer: asyncio.TimerHandle | None = None

    def serve(self, loop: asyncio.AbstractEventLoop) -> None:
        """Look now, and again from time to time."""
        for link in self._machine.netlink.links():
            if link.name in self._interfaces:
                self._links[link.name] = link.mtu
        self._look_again(loop)

    def close(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()

    def kernel_changed(self, event: KernelEvent) -> None:
        """An interface of the underlay may have another MTU now, or be gone."""
        if isinstance(event, LinkChanged) and event.link.name in self._interfaces:
            if event.gone:
                self._links.pop(event.link.name, None)
            else:
                self._links[event.link.name] = event.link.mtu
            self._look()

    def _look_again(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = loop.call_later(EVERY, self._look_again, loop)
        self._look()

    def _look(self) -> None:
        machine = self._machine
        known = [machine.tunnel_mtu, *map(machine.tunnel_mtu_on, self._links.values())]
        learned = machine.network.least_mtu()
        mtu = max(LEAST_MTU, min(known if learned is None else [*known, learned]))
        if mtu != self.mtu:
            self.mtu = mtu
            self._on_event(TunnelMtuChanged(mtu=mtu))
