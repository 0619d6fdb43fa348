"""A small domain of proxy mobility that can be stepped: gateways, their nodes, and an anchor that follows a script.

        mn1                     wire: loses, delays, cut per address
         |                     /
    --- lan0 --- mag1 --wlan--------------- lma       the anchor verifies what comes, signs what it says,
                   \\------lte--------------/         grants prefixes, and refuses what the script says

Nothing waits or reads a clock. Real octets cross the wire: encoded, signed, decoded and verified at both ends.
"""

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv6Address, IPv6Network
from typing import Any, TypeVar

from signaling import actions
from signaling.actions import Action, Path, SendOnLink
from signaling.door import Door, Verdict
from signaling.events import (
    ClockStepped,
    DatagramReceived,
    Event,
    LinkAttached,
    LinkDetached,
    LinkUp,
    UplinkDown,
    UplinkUp,
)
from signaling.iana import BindingAckFlag, Ipv4HomeAddressStatus, RevocationFlag, RevocationTrigger, Status
from signaling.node_interface import NodeInterface
from signaling.pmip.binding_update_list import Registration, Session, Stage
from signaling.roles.mag import Mag
from signaling.settings import TIMESTAMP_UNITS, Address, Counters, LmaSettings, MagSettings, Peer, Uplink
from signaling.update_request import care_of_address, identifier_of, node_of
from signaling.wire import ipv6, mobility_header, neighbor
from signaling.wire.authentication import sign
from signaling.wire.binding_ack import BindingAck
from signaling.wire.binding_update import BindingUpdate
from signaling.wire.message import Message
from signaling.wire.neighbor import EchoRequest, NeighborSolicitation, PrefixInformation, RouterAdvertisement
from signaling.wire.options.access import AccessTechnologyTypeOption, HandoffIndicatorOption
from signaling.wire.options.flow import FlowIdentification
from signaling.wire.options.identity import MobileNodeLinkLayerIdentifier
from signaling.wire.options.ipv4 import Ipv4DefaultRouterAddress, Ipv4HomeAddressReply, Ipv4HomeAddressRequest
from signaling.wire.options.multipath import MagMultipathBinding
from signaling.wire.options.option import Option
from signaling.wire.options.prefix import DelegatedMobileNetworkPrefix, HomeNetworkPrefix
from signaling.wire.options.time import Timestamp
from signaling.wire.options.tunnel import GreKey
from signaling.wire.revocation import BindingRevocationIndication

WALL = 1_704_164_645.0  # s since 1970 when the world begins
KEY = bytes(range(16))
SPI = 256
LMA = IPv6Address("2001:db8:f::1")
LMA4 = IPv4Address("198.51.100.1")
INTERFACE = "lan0"
ROUTER_LINK_LAYER = bytes.fromhex("00005e005213")
GRANTED = 300  # s
WLAN = Uplink(interface="wlan0", binding_id=1, label=9)
LTE = Uplink(interface="lte0", binding_id=2, label=11, weight=2)
ADDRESSES = {"wlan0": IPv6Address("2001:db8:e1::1"), "lte0": IPv6Address("2001:db8:e2::1")}
COPIED = (HandoffIndicatorOption, AccessTechnologyTypeOption, MobileNodeLinkLayerIdentifier, Timestamp)

Kind = TypeVar("Kind")


@dataclass(frozen=True, slots=True)
class Received:
    """An update that reached the anchor."""

    at: float
    update: BindingUpdate
    source: Address
    gateway: str

    @property
    def care_of(self) -> Address:
        """The Proxy-CoA it is about."""
        return care_of_address(self.update, self.source)

    @property
    def handoff(self) -> int:
        """Its handoff indicator."""
        option = self.update.option(HandoffIndicatorOption)
        assert option is not None
        return option.indicator

    @property
    def binding_id(self) -> int:
        """BID; 0 without multipath."""
        option = self.update.option(MagMultipathBinding)
        return option.binding_id if option else 0

    @property
    def prefixes(self) -> list[IPv6Network]:
        """The prefixes it names; "::/0" asks for one."""
        return [option.prefix for option in self.update.options_of(HomeNetworkPrefix)]


class ScriptedAnchor:
    """An anchor that grants what it is asked for, unless the script says else."""

    def __init__(self, gateways: dict[str, Address]) -> None:
        self.multipath = True
        self.gre = False
        self.ipv4 = True
        self.lifetime = GRANTED
        self.silent = False
        self.updates: list[Received] = []
        self.got: list[tuple[float, Message]] = []  # everything else
        self.prefixes: dict[tuple[str, bytes], IPv6Network] = {}
        self.edit: Callable[[BindingUpdate, BindingAck], BindingAck | None] = lambda update, ack: ack
        self.refusals: list[Status] = []  # for the next updates that ask for something
        peers = tuple(Peer(name=name, address=address, key=KEY) for name, address in gateways.items())
        self._door = Door(LmaSettings(address=LMA, tunnel_mtu=1460, peers=peers), Counters())

    def take(self, event: DatagramReceived, gateway: str, now: float) -> BindingAck | None:
        """Verify a message; answer an update."""
        message = self._door.decode(event.octets, event.source, event.destination)
        care_of = care_of_address(message, event.source) if isinstance(message, BindingUpdate) else event.source
        verdict = self._door.judge(event.octets, message, event.source, care_of)
        assert verdict is Verdict.TRUSTED, f"{verdict} for {message} from {event.source}"
        if not isinstance(message, BindingUpdate):
            self.got.append((now, message))
            return None
        self.updates.append(Received(now, message, event.source, gateway))
        return None if self.silent else self.edit(message, self.answer(message))

    def answer(self, update: BindingUpdate) -> BindingAck:
        """The acknowledgement, by the echo rules of RFC 5213 5.3.6."""
        refused = self.refusals.pop(0) if self.refusals and update.lifetime else None
        status = refused or Status.BINDING_UPDATE_ACCEPTED
        options: list[Option] = [identifier_of(node_of(update))]
        options += self._prefixes(update) if not refused else update.options_of(HomeNetworkPrefix)
        options += [option for kind in COPIED if (option := update.option(kind))]
        options += self._extras(update)
        return BindingAck(
            status=status,
            flags=BindingAckFlag.PROXY_REGISTRATION,
            sequence_number=update.sequence_number,
            lifetime=min(update.lifetime, self.lifetime),
            options=tuple(options),
        )

    def _prefixes(self, update: BindingUpdate) -> list[Option]:
        interface = update.option(MobileNodeLinkLayerIdentifier)
        key = (node_of(update), interface.identifier if interface else b"")
        named = [option for option in update.options_of(HomeNetworkPrefix) if not option.all_zero]
        if named:
            self.prefixes[key] = named[0].prefix
            return [*named]
        if not update.options_of(HomeNetworkPrefix):
            return []
        number = len(self.prefixes) + 1
        prefix = self.prefixes.setdefault(key, IPv6Network(f"2001:db8:1:{number:x}::/64"))
        return [HomeNetworkPrefix(prefix=prefix)]

    def _extras(self, update: BindingUpdate) -> list[Option]:
        options: list[Option] = []
        binding = update.option(MagMultipathBinding)
        if binding is not None and self.multipath:
            options.append(binding)
            options += update.options_of(FlowIdentification)
        if update.option(Ipv4HomeAddressRequest) is not None and self.ipv4:
            address = IPv4Address("192.0.2.7")
            options.append(
                Ipv4HomeAddressReply(status=Ipv4HomeAddressStatus.SUCCESS, address=address, prefix_length=24)
            )
            options.append(Ipv4DefaultRouterAddress(address=IPv4Address("192.0.2.1")))
        if update.option(DelegatedMobileNetworkPrefix) is not None:
            options.append(DelegatedMobileNetworkPrefix(prefix=IPv6Network("2001:db8:d00::/56")))
        if update.option(GreKey) is not None and self.gre:
            options.append(GreKey(key=0xA0 + (binding.binding_id if binding else 0)))
        return options


class Host:
    """A mobile node with one interface."""

    def __init__(self, name: str, number: int, node: str) -> None:
        self.name = name
        self.node = node
        self.link_layer = bytes((2, 0, 0, 0, 0, number))
        self.link_local = IPv6Address(f"fe80::ff:fe00:{number:x}")
        self.at: str | None = None
        self.interface = INTERFACE
        self.silent = False
        self.advertisements: list[tuple[float, RouterAdvertisement]] = []

    @property
    def who(self) -> NodeInterface:
        """What its session is found by."""
        return NodeInterface(self.node, self.link_layer)

    def offered(self) -> dict[IPv6Network, float]:
        """The prefixes of the last advertisement, with the valid lifetime (s)."""
        if not self.advertisements:
            return {}
        options = self.advertisements[-1][1].options_of(PrefixInformation)
        return {option.prefix: option.valid_lifetime for option in options}


@dataclass(slots=True)
class Gateway:
    """One gateway, and all that it asked for."""

    name: str
    mag: Mag
    done: list[tuple[float, Action]] = field(default_factory=list)
    turns: list[list[Action]] = field(default_factory=list)
    paths: dict[object, Path] = field(default_factory=dict)

    def did(self, kind: type[Kind]) -> list[Kind]:
        """All actions of a kind, in order."""
        return [action for _, action in self.done if isinstance(action, kind)]

    def notes(self, event: str) -> list[actions.Note]:
        """All notes of an event."""
        return [note for note in self.did(actions.Note) if note.event == event]


class World:
    """mag1, mag2, ... and the anchor. Time begins at 0. uplinks: of every gateway; their carriers are up at once."""

    def __init__(
        self, *, mags: int = 1, delay: float = 0.01, uplinks: tuple[Uplink, ...] = (), **settings: Any
    ) -> None:
        self.now = 0.0
        self.delay = delay
        self.cut: set[Address] = set()  # nothing passes from or to these
        self.lost = 0  # so many messages to come
        self.hosts: dict[str, Host] = {}
        self._todo: list[tuple[float, int, Callable[[], None]]] = []
        self._order = 0
        self.address: dict[str, Address] = {f"mag{n}": IPv6Address(f"2001:db8:a{n}::1") for n in range(1, mags + 1)}
        self.owner = {address: name for name, address in self.address.items()} | dict.fromkeys(
            ADDRESSES.values(), "mag1"
        )
        self.lma = ScriptedAnchor(self.address | {f"mag1-{name}": it for name, it in ADDRESSES.items()})
        self.gateways: dict[str, Gateway] = {}
        anchor = Peer(name="lma", address=LMA, key=KEY)
        for name, address in self.address.items():
            values: dict[str, Any] = {
                "name": name,
                "anchor": "lma",
                "probe_every": 0.0,
                "heartbeat_interval": 1e6,
                "uplinks": uplinks,
            }
            of_gateway = MagSettings(address=address, tunnel_mtu=1460, peers=(anchor,), **(values | settings))
            self.gateways[name] = Gateway(name, Mag(of_gateway))
            self._begin(name)
        for uplink in uplinks:
            self.uplink_up(uplink)

    def _begin(self, name: str) -> None:
        self.feed(ClockStepped(wall_minus_monotonic=WALL), name)
        self.feed(LinkUp(interface=INTERFACE, link_layer=ROUTER_LINK_LAYER, mtu=1500), name)

    @property
    def mag(self) -> Gateway:
        """The first gateway."""
        return self.gateways["mag1"]

    # --- what happens ---

    def host(self, name: str, *, node: str = "") -> Host:
        """The host of this name; hosts of one node are its interfaces."""
        if name not in self.hosts:
            self.hosts[name] = Host(name, len(self.hosts) + 1, node or name)
        return self.hosts[name]

    def attach(self, name: str, mag: str = "mag1", *, interface: str = INTERFACE, **more: Any) -> list[Action]:
        """A host comes to a link and solicits."""
        host = self.host(name)
        host.at, host.interface = mag, interface
        return self.show(name, "rs", **more)

    def show(self, name: str, trigger: str = "na", **more: Any) -> list[Action]:
        """A host sends something, where it is."""
        host = self.host(name)
        assert host.at is not None
        event = LinkAttached(
            node=host.node,
            interface=host.interface,
            link_layer=host.link_layer,
            link_local=host.link_local,
            **({"trigger": trigger} | more),
        )
        return self.feed(event, host.at)

    def detach(self, name: str, *, noticed: bool = True) -> list[Action]:
        """A host leaves; its gateway is told, or has to find out."""
        host = self.host(name)
        was_at, host.at = host.at, None
        if not noticed or was_at is None:
            return []
        return self.feed(LinkDetached(node=host.node, reason="left", link_layer=host.link_layer), was_at)

    def uplink_up(self, uplink: Uplink, address: Address | None = None) -> list[Action]:
        """An uplink of the first gateway has a carrier."""
        address = address or ADDRESSES[uplink.interface]
        self.owner[address] = "mag1"
        return self.feed(UplinkUp(interface=uplink.interface, address=address))

    def uplink_down(self, uplink: Uplink) -> list[Action]:
        """It lost it."""
        return self.feed(UplinkDown(interface=uplink.interface))

    def restart(self, name: str = "mag1") -> None:
        """A gateway dies without a word and starts again, knowing nothing."""
        self.gateways[name] = Gateway(name, Mag(self.gateways[name].mag.settings))
        self._begin(name)

    def feed(self, event: Event, name: str = "mag1") -> list[Action]:
        """Something happens to a gateway. Returns what it does about it."""
        gateway = self.gateways[name]
        return self.perform(name, gateway.mag.handle(event, self.now))

    def say(
        self, message: Message, to: Address | None = None, *, key: bytes = KEY, stamped: bool = True
    ) -> list[Action]:
        """The anchor says something to a gateway, signed and with a timestamp."""
        to = to or self.address["mag1"]
        if stamped:
            timestamp = Timestamp(value=int((WALL + self.now) * TIMESTAMP_UNITS))
            message = replace(message, options=(*message.options, timestamp))
        octets = sign(message, key, SPI, care_of=to, source=LMA, destination=to)
        return self.deliver(octets, LMA, to)

    def revoke(self, trigger: int, *options: Option, number: int = 7, **more: Any) -> list[Action]:
        """The anchor sends a revocation."""
        flags = RevocationFlag.PROXY_BINDING
        if trigger >= RevocationTrigger.PER_PEER_POLICY:
            flags |= RevocationFlag.GLOBAL
        values: dict[str, Any] = {"flags": flags} | more
        return self.say(
            BindingRevocationIndication(trigger=trigger, sequence_number=number, options=options, **values)
        )

    def deliver(self, octets: bytes, source: Address, to: Address) -> list[Action]:
        """Octets reach a gateway."""
        return self.feed(DatagramReceived(octets=octets, source=source, destination=to), self.owner[to])

    # --- time ---

    def run(self, seconds: float) -> None:
        """Let everything happen that is due within this time."""
        end = self.now + seconds
        while (at := self._next()) is not None and at <= end:
            self.now = max(self.now, at)
            self._step()
        self.now = end

    def keep_talking(self, name: str, seconds: float, every: float = 5.0) -> None:
        """Run, while a host shows again and again that it is there."""
        end = self.now + seconds
        while self.now < end:
            self.show(name)
            self.run(min(every, end - self.now))

    def _next(self) -> float | None:
        times = [gateway.mag.next_wake for gateway in self.gateways.values()]
        times += [self._todo[0][0]] if self._todo else []
        return min((at for at in times if at is not None), default=None)

    def _step(self) -> None:
        if self._todo and self._todo[0][0] <= self.now:
            heapq.heappop(self._todo)[2]()
            return
        for name, gateway in self.gateways.items():
            due = gateway.mag.next_wake
            if due is not None and due <= self.now:
                self.perform(name, gateway.mag.wake(self.now))

    def _later(self, what: Callable[[], Any]) -> None:
        self._order += 1
        heapq.heappush(self._todo, (self.now + self.delay, self._order, what))

    # --- what gateways ask for ---

    def perform(self, name: str, todo: list[Action]) -> list[Action]:
        """Do what a gateway asked for."""
        gateway = self.gateways[name]
        gateway.turns.append(todo)
        for action in todo:
            gateway.done.append((self.now, action))
            if isinstance(action, actions.Bind):
                gateway.paths[action.prefix] = action.path
            elif isinstance(action, actions.Unbind):
                del gateway.paths[action.prefix]
            elif isinstance(action, actions.Send):
                self._send(name, action)
            elif isinstance(action, SendOnLink):
                self._send_on_link(name, action)
        return todo

    def _send(self, name: str, action: actions.Send) -> None:
        source = action.source or self.address[name]
        assert self.owner[source] == name, f"{source} is no address of {name}"
        self.lost -= self.lost > 0
        if source in self.cut:
            return
        self._later(lambda: self._reach_anchor(name, source, action))

    def _reach_anchor(self, name: str, source: Address, action: actions.Send) -> None:
        event = DatagramReceived(octets=action.octets, source=source, destination=action.destination)
        ack = self.lma.take(event, name, self.now)
        if ack is None or source in self.cut:
            return
        octets = sign(ack, KEY, SPI, care_of=source, source=action.destination, destination=source)
        self._later(lambda: self.deliver(octets, action.destination, source))

    def _send_on_link(self, name: str, action: SendOnLink) -> None:
        for host in self.hosts.values():
            if (host.at, host.interface) == (name, action.interface) and action.link_layer == host.link_layer:
                packet = ipv6.decode(action.octets)
                message = neighbor.decode(packet.payload, packet.source, packet.destination, packet.hop_limit)
                if isinstance(message, RouterAdvertisement):
                    host.advertisements.append((self.now, message))
                elif isinstance(message, NeighborSolicitation | EchoRequest) and not host.silent:
                    self._later(lambda host=host: self.show(host.name) if host.at else None)  # type: ignore[misc]

    # --- what tests ask ---

    def session(self, name: str, mag: str = "mag1") -> Session:
        """The session of a host."""
        session = self.gateways[mag].mag.gateway.entries.get(self.host(name).who)
        assert session is not None
        return session

    def registration(self, name: str, binding_id: int = 0) -> Registration:
        """One of its registrations."""
        return self.session(name).registrations[binding_id]

    def stages(self, name: str) -> dict[int, Stage]:
        """How far its registrations are, by BID."""
        return {number: item.stage for number, item in self.session(name).registrations.items()}

    def prefix(self, name: str) -> IPv6Network:
        """The first prefix of a host."""
        return self.session(name).prefixes[0].prefix


def attached(*names: str, **settings: Any) -> World:
    """A world in which these nodes, or mn1, came a second ago."""
    world = World(**settings)
    for name in names or ("mn1",):
        world.attach(name)
    world.run(1.0)
    return world


def octets_of(message: Message, source: Address, destination: Address) -> bytes:
    """A message without a signature."""
    return mobility_header.encode(message, source, destination)
