"""A domain of RFC 8885 that can be stepped: the routers and hosts of `tests.world`, and a CMD in place of their store.

        mn1              wire: loses, duplicates, delays
         |              /            |            \\
    --- lan0 ---      mar1 -------- mar2 -------- mar3       each remembers its own sessions
                         \\            |            /
                                     cmd                     `world.store` is what the CMD has written

Every router is a MAAR: serving (S-MAAR) where a host is, previous (P-MAAR) for what it has lent to hosts elsewhere.
"""

from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv6Address, IPv6Network
from typing import Any

from signaling.actions import Action
from signaling.dmm.database import Binding
from signaling.events import ClockStepped, Event, LinkAttached, LinkUp, SessionsRestored
from signaling.iana import BindingUpdateFlag
from signaling.roles.cmd import Cmd
from signaling.settings import Authentication, CmdMode, CmdSettings, Peer, Settings
from signaling.wire.binding_ack import BindingAck
from signaling.wire.binding_update import BindingUpdate
from signaling.wire.message import Message
from signaling.wire.options.maar import PreviousMaar, ServingMaar
from tests.world import INTERFACE, KEY, WALL, Router, Store, World

CMD = "cmd"
CMD_ADDRESS = IPv6Address("2001:db8:c::1")
DISTRIBUTED = (
    BindingUpdateFlag.ACKNOWLEDGE | BindingUpdateFlag.PROXY_REGISTRATION | BindingUpdateFlag.DISTRIBUTED_MOBILITY
)


class CmdWorld(World):
    """mar1, mar2, ... and cmd. about_cmd: settings of the CMD alone."""

    def __init__(
        self,
        mode: CmdMode = CmdMode.PROXY,
        *,
        about_cmd: dict[str, Any] | None = None,
        peers_of_each_other: bool | None = None,
        cmds: int = 1,
        **settings: Any,
    ) -> None:
        """peers_of_each_other: whether MARs have keys for each other; None: only where the mode needs that.

        cmds: over one store; mar1 follows the first, mar2 the second, and so on.
        """
        self.mode = mode
        self.cmds = [CMD, *(f"{CMD}{number}" for number in range(2, cmds + 1))]
        self.stores: dict[str, Store] = {}
        self._each_other = mode is CmdMode.LOCATOR if peers_of_each_other is None else peers_of_each_other
        super().__init__(**settings, cmd=CMD, cmd_mode=mode)
        about: dict[str, Any] = {"tunnel_mtu": 1460, "cmd_mode": mode} | (about_cmd or {})
        about |= {key: settings[key] for key in ("binding_lifetime", "timestamp_window") if key in settings}
        mars = list(self.address.items())
        for number, name in enumerate(self.cmds):
            address = self.address[name] = CMD_ADDRESS + number
            self.name[address] = name
            peers = tuple(Peer(name=mar, address=at, key=KEY) for mar, at in mars if self.cmd_of(mar) == name)
            self._start(name, CmdSettings(**{"address": address, "peers": peers} | about))

    def cmd_of(self, mar: str) -> str:
        """The CMD that a router follows."""
        return self.cmds[(int(mar[3:]) - 1) % len(self.cmds)]

    # --- routers ---

    def _peers_of(self, name: str, authentication: Authentication) -> tuple[Peer, ...]:
        others = super()._peers_of(name, authentication) if self._each_other else ()
        cmd = self.cmd_of(name)
        return (*others, Peer(name=cmd, address=CMD_ADDRESS + self.cmds.index(cmd), key=KEY))

    def made(self, settings: Settings) -> Any:
        """A router, or a CMD, that knows nothing yet."""
        return Cmd(settings) if isinstance(settings, CmdSettings) else super().made(settings)

    def _start(self, name: str, settings: Settings) -> None:
        of_cmd = isinstance(settings, CmdSettings)
        self.stores[name] = self.store if of_cmd else Store()
        self.store.has_journal = False  # CMDs keep none
        settings = settings if of_cmd else replace(settings, cmd=self.cmd_of(name))
        self.routers[name] = Router(name, settings, self.made(settings), b"\0\0\x5e\0\x52\x13")
        self._wake_up(name)

    def _wake_up(self, name: str) -> None:
        self.feed(name, ClockStepped(wall_minus_monotonic=WALL + self[name].skew))
        if name not in self.cmds:
            self.feed(name, LinkUp(interface=INTERFACE, link_layer=self[name].link_layer, mtu=1500))

    def feed(self, name: str, event: Event) -> list[Action]:
        """As of any world; there is no store to ask for what is anchored elsewhere."""
        if isinstance(event, LinkAttached):
            event = replace(event, sessions=())
        return super().feed(name, event)

    def _remember(self, router: Router) -> None:
        name, of_cmd = router.name, router.name in self.cmds
        anchors = [peer.address for peer in router.settings.peers] if of_cmd else [router.address]
        known = [session for anchor in anchors for session in self.stores[name].anchored(anchor)]
        self.feed(name, SessionsRestored(sessions=tuple(known)))
        if of_cmd:
            for node in {session.node for session in known}:
                self._look_up(router, node)
        else:
            self.feed(name, LinkUp(interface=INTERFACE, link_layer=router.link_layer, mtu=1500))

    def _store_of(self, router: Router) -> Store:
        return self.stores[router.name]

    def _changed(self, node: str) -> None:
        """Every CMD watches the record of every node; routers hear from theirs."""
        for name in self.cmds:
            self._look_up(self[name], node)

    # --- the wire ---

    def cut(self, name: str) -> None:
        """Nothing reaches a router, and nothing comes from it."""
        self._cut = {*getattr(self, "_cut", ()), name}

    def heal(self) -> None:
        """Everybody is reached again."""
        self._cut = set()

    def _arrive(self, octets: bytes, source: IPv6Address, destination: str) -> None:
        away = getattr(self, "_cut", ())
        if destination not in away and self.name.get(source) not in away:
            super()._arrive(octets, source, destination)

    # --- what tests ask ---

    @property
    def mars(self) -> list[Router]:
        """All routers but the CMD."""
        return [router for router in self.routers.values() if router.name not in self.cmds]

    @property
    def cmd(self) -> Cmd:
        """The role of the first CMD."""
        return self.role_of(CMD)

    def role_of(self, cmd: str) -> Cmd:
        """The role of that CMD."""
        role: Any = self[cmd].mar
        assert isinstance(role, Cmd)
        return role

    def binding(self, name: str = "mn1", cmd: str = CMD) -> Binding:
        """What a CMD knows of a host."""
        binding = self.role_of(cmd).database.bindings.get(name)
        assert binding is not None
        return binding

    def acks_to(self, name: str, *, source: str = CMD) -> list[BindingAck]:
        """Acknowledgements on their way from one to the other, oldest first."""
        return [
            it.message
            for it in self.wire
            if (it.source, it.destination) == (source, name) and isinstance(it.message, BindingAck)
        ]

    def updates_to(self, name: str, *, source: str = CMD) -> list[BindingUpdate]:
        """Updates on their way from one to the other, oldest first."""
        return [
            it.message
            for it in self.wire
            if (it.source, it.destination) == (source, name) and isinstance(it.message, BindingUpdate)
        ]

    def faults(self) -> Iterator[str]:
        """As of any world, of the routers."""
        for prefix in {prefix for router in self.mars for prefix in router.paths}:
            yield from self._faults_of(prefix)

    def state(self, prefix: IPv6Network) -> Any:
        """The state of a prefix at its anchor."""
        for router in self.mars:
            entry = router.mar.anchor.cache.get(prefix)
            if entry is not None:
                return entry.state
        return None


def previous_in(ack: Message) -> list[tuple[IPv6Address, IPv6Network]]:
    """The routers and prefixes that an acknowledgement names as previous."""
    return [(option.address, option.prefix) for option in ack.options_of(PreviousMaar)]


def serving_in(message: Message) -> IPv6Address | None:
    """The router that a message names as serving."""
    option = message.option(ServingMaar)
    return option.address if option else None


def journey(*mars: str, world: CmdWorld | None = None, mode: CmdMode = CmdMode.PROXY) -> CmdWorld:
    """mn1 spends ten seconds at each of these routers."""
    world = world or CmdWorld(mode)
    for mar in mars:
        world.move("mn1", mar)
        world.run(10.0)
    return world
