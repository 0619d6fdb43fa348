"""What a role adds to a router: the interface between the daemon, which is the same for all, and each role's part."""

import socket
from collections.abc import Mapping
from typing import Any, Protocol

from router.access_links import AccessLinks
from router.config import Config
from router.driver import Driver
from router.links.rtnetlink import Event as KernelEvent
from signaling.actions import Action
from signaling.events import Event
from signaling.settings import Counters, Settings


class Role(Protocol):
    """What every role of `signaling` offers to its driver, and to those who look at it."""

    settings: Settings
    counters: Counters

    def handle(self, event: Event, now: float) -> list[Action]:
        """What to do about an event."""

    def wake(self, now: float) -> list[Action]:
        """What to do because of the time."""

    def drain(self, now: float) -> list[Action]:
        """What to do before the end."""

    @property
    def next_wake(self) -> float | None:
        """When wake is due next."""


class Part(Protocol):
    """One role at work on a machine. The methods are called in the order they stand here."""

    role: Any  # Mar, Lma or Mag: a Role; its views know which
    access: AccessLinks | None

    def prepare(self, config: Config) -> Config:
        """Look whether it can be: nothing is opened yet. Returns the configuration in force. Raises RouterError."""

    def open(self) -> Driver:
        """Open what only this role needs, and give the role its driver. Raises RouterError."""

    async def restore(self) -> None:
        """Take up what an earlier run has promised, before anybody is answered. Raises RouterError."""

    def serve(self) -> None:
        """Events come in from now on."""

    def kernel_changed(self, event: KernelEvent) -> None:
        """A link, address or neighbour of the machine changed."""

    def resync(self) -> None:
        """Such changes were missed: look at everything."""

    def vitals(self) -> dict[str, object]:
        """How its store is, for `show`: name of a counter or key -> value."""

    def greeting(self) -> list[str]:
        """Lines about it for whoever started it."""

    async def farewell(self) -> None:
        """Write what waits; the role has said goodbye."""

    async def close(self) -> None:
        """Close whatever is open; called at any time, and more than once."""


class HeritablePart(Part, Protocol):
    """One whose next process can go on where it is, see `takeover.py`. Of the process that runs, then of the next."""

    def prepare(self, config: Config, *, restarted: bool = True) -> Config:
        """restarted: it begins anew; else it goes on, and peers need not know."""

    async def settle(self) -> None:
        """Until whoever waits for the store has had what it waits for, and nodes that came home have their packets."""

    def handover(self) -> Any:
        """All that it knows, as plain data."""

    def let_go(self) -> None:
        """The next process has it: nothing more is written."""

    def adopt(self) -> Driver:
        """In place of open."""

    def take_up(self, data: Any, sockets: Mapping[str, socket.socket]) -> None:
        """In place of restore. data: of handover(); sockets: of access links, by interface. Raises RouterError."""

    def go_on(self) -> None:
        """In place of serve."""
