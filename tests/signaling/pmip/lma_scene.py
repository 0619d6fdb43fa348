"""An LMA with three MAGs and a van with two uplinks around it. Real octets go in and come out; the clock is stepped.

      mag1   mag2   mag3          van: 2001:db8:a::1 "wlan" BID 1, 2001:db8:b::1 "lte" BID 2
         \\     |     /           /
               lma
"""

from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, IPv6Network
from typing import Any, TypeVar

from signaling.actions import Action, Bind, BindAll, Path, Send, TowardVisited
from signaling.events import ClockStepped, DatagramReceived
from signaling.iana import BindingUpdateFlag, MultipathBindingFlag
from signaling.pmip.mobility_session import MobilitySession
from signaling.roles.lma import Lma
from signaling.settings import TIMESTAMP_UNITS, Address, LmaSettings, Peer
from signaling.update_request import ALL_ZERO, care_of_address
from signaling.wire.authentication import sign
from signaling.wire.binding_ack import BindingAck
from signaling.wire.binding_update import BindingUpdate
from signaling.wire.message import Message
from signaling.wire.options.access import AccessTechnologyTypeOption, HandoffIndicatorOption
from signaling.wire.options.identity import MagIdentifier, MobileNodeIdentifier, MobileNodeLinkLayerIdentifier
from signaling.wire.options.multipath import MagMultipathBinding
from signaling.wire.options.option import Option
from signaling.wire.options.prefix import HomeNetworkPrefix
from signaling.wire.options.time import Timestamp

WALL = 1_704_164_645.0  # s since 1970 when the monotonic clock showed 0
KEY = bytes(range(16))
LMA = IPv6Address("2001:db8:f::1")
LMA4 = IPv4Address("192.0.2.1")
POOL = IPv6Network("2001:db8:100::/56")
FOREIGN = IPv6Network("2001:db8:ffff::/64")
NODE = "mn1@example.net"
IF1, IF2, IF3 = (bytes((2, 0, 0, 0, 0, number)) for number in (1, 2, 3))
MAGS = {name: IPv6Address(f"2001:db8:{number}::1") for number, name in enumerate(("mag1", "mag2", "mag3"), 1)}
WLAN, LTE = IPv6Address("2001:db8:a::1"), IPv6Address("2001:db8:b::1")
VAN_SPI = 300
PEERS = (
    *(Peer(name=name, address=address, key=KEY) for name, address in MAGS.items()),
    Peer(name="van", address=WLAN, addresses=(LTE,), key=KEY),
)
NOW = "now"

Kind = TypeVar("Kind")


class Scene:
    """The LMA and what was said to it. Every message takes 10 ms of the clock."""

    def __init__(self, **changes: Any) -> None:
        self.settings = replace(
            LmaSettings(address=LMA, tunnel_mtu=1460, peers=PEERS, pools=(POOL,)), **changes
        )
        self.now = 100.0
        self.number = 0
        self.lma = Lma(self.settings)
        self.lma.handle(ClockStepped(wall_minus_monotonic=WALL), self.now)
        self.anchor = self.lma.anchor
        self.cache = self.lma.cache

    # --- updates ---

    def update(
        self,
        *,
        node: str | None = NODE,
        prefixes: tuple[IPv6Network, ...] | None = (ALL_ZERO,),
        hi: int | None = 1,
        att: int | None = 4,
        ll: bytes | None = IF1,
        lifetime: int = 300,
        timestamp: int | str | None = NOW,
        number: int | None = None,
        flags: int = BindingUpdateFlag.ACKNOWLEDGE | BindingUpdateFlag.PROXY_REGISTRATION,
        more: tuple[Option, ...] = (),
    ) -> BindingUpdate:
        """A PBU; None leaves an option out."""
        options: list[Option] = []
        if node is not None:
            options.append(MobileNodeIdentifier(identifier=node.encode()))
        options += [HomeNetworkPrefix(prefix=prefix) for prefix in prefixes or ()]
        options += [HandoffIndicatorOption(indicator=hi)] if hi is not None else []
        options += [AccessTechnologyTypeOption(technology=att)] if att is not None else []
        options += [MobileNodeLinkLayerIdentifier(identifier=ll)] if ll is not None else []
        options += more
        if timestamp is not None:
            options.append(Timestamp(value=self.stamp() if timestamp == NOW else int(timestamp)))
        self.number += 1
        return BindingUpdate(
            sequence_number=self.number if number is None else number,
            flags=BindingUpdateFlag(flags),
            lifetime=lifetime,
            options=tuple(options),
        )

    def stamp(self, ago: float = 0.0) -> int:
        """The wall clock as a timestamp."""
        return int((WALL + self.now - ago) * TIMESTAMP_UNITS)

    def say(
        self,
        gateway: str | Address = "mag1",
        *,
        key: bytes = KEY,
        to: Address = LMA,
        port: int = 0,
        **changes: Any,
    ) -> list[Action]:
        """A MAG says something; the actions it led to."""
        self.now += 0.01
        return self.tell(self.update(**changes), gateway, key=key, to=to, port=port)

    def tell(
        self, message: Message, gateway: str | Address, *, key: bytes = KEY, to: Address = LMA, port: int = 0
    ) -> list[Action]:
        """Hand over any message, signed by whoever sends it."""
        source = MAGS[gateway] if isinstance(gateway, str) else gateway
        return self.lma.handle(self.datagram(message, source, key=key, to=to, port=port), self.now)

    def datagram(
        self, message: Message, source: Address, *, key: bytes = KEY, to: Address = LMA, port: int = 0
    ) -> DatagramReceived:
        """The octets of a message, as they arrive."""
        care_of: Address = care_of_address(message, source) if isinstance(message, BindingUpdate) else source
        if source.version == 4:
            care_of = IPv6Address(0)
        octets = sign(
            message, key, 256, care_of=care_of, source=source, destination=to, checksum=source.version == 6
        )
        return DatagramReceived(octets=octets, source=source, destination=to, port=port)

    def ack(self, gateway: str | Address = "mag1", **changes: Any) -> BindingAck:
        """The one answer to an update."""
        return answer(self.say(gateway, **changes))

    def status(self, gateway: str | Address = "mag1", **changes: Any) -> int:
        """Its status."""
        return self.ack(gateway, **changes).status

    def attach(self, gateway: str = "mag1", **changes: Any) -> IPv6Network:
        """A session begins; its prefix."""
        return home(self.ack(gateway, **changes))[0]

    def path(
        self,
        binding_id: int,
        *,
        care_of: Address | None = None,
        flags: int = 0,
        mag_id: str | None = "van",
        **changes: Any,
    ) -> list[Action]:
        """The van registers a path: BID 1 is WLAN, label 10; BID 2 is LTE, label 20."""
        more = multipath(binding_id, flags, mag_id) + changes.pop("more", ())
        source = care_of or {1: WLAN, 2: LTE}.get(binding_id, WLAN)
        return self.say(source, more=more, **changes)

    def van(self, **changes: Any) -> IPv6Network:
        """The van has a session over both of its uplinks."""
        (prefix,) = home(answer(self.path(1, **changes)))
        self.path(2, prefixes=(prefix,), **changes)
        return prefix

    # --- time, and what is known ---

    def wait(self, seconds: float) -> list[Action]:
        """Let time pass; all that was done meanwhile."""
        end, done = self.now + seconds, []
        while (at := self.lma.next_wake) is not None and at <= end:
            self.now = max(self.now, at)
            done += self.lma.wake(self.now)
        self.now = end
        return done

    @property
    def session(self) -> MobilitySession:
        """The only one."""
        (session,) = self.cache
        return session

    def sessions(self, node: str = NODE) -> tuple[MobilitySession, ...]:
        """Of a node."""
        return self.cache.of(node)

    def snapshot(self) -> object:
        """All that the LMA knows, for tests that say it stays as it is."""
        return [
            (it.saved(), it.expires, it.leaving, [(path.timestamp, path.expires) for path in it.care_ofs])
            for it in self.cache
        ] + [sorted(self.anchor.sessions.allotments.prefixes._taken), len(self.anchor._waiting)]


def multipath(binding_id: int, flags: int = 0, mag_id: str | None = "van") -> tuple[Option, ...]:
    """The options of one path."""
    binding = MagMultipathBinding(
        interface_technology=4,
        interface_label=binding_id % 25 * 10,
        binding_id=binding_id,
        flags=MultipathBindingFlag(flags),
    )
    return (binding, MagIdentifier(identifier=mag_id.encode())) if mag_id else (binding,)


def answer(turn: list[Action]) -> BindingAck:
    """The one PBA of a turn."""
    (ack,) = (it.message for it in turn if isinstance(it, Send) and isinstance(it.message, BindingAck))
    return ack


def acks(turn: list[Action]) -> list[BindingAck]:
    """The PBAs of a turn."""
    return [it.message for it in turn if isinstance(it, Send) and isinstance(it.message, BindingAck)]


def home(ack: BindingAck) -> tuple[IPv6Network, ...]:
    """The home network prefixes of an answer."""
    return tuple(option.prefix for option in ack.options_of(HomeNetworkPrefix))


def done(turn: list[Action], kind: type[Kind]) -> list[Kind]:
    """The actions of one kind."""
    return [action for action in turn if isinstance(action, kind)]


def sent(turn: list[Action], kind: type[Kind]) -> list[Kind]:
    """The messages of one kind that left."""
    return [it.message for it in turn if isinstance(it, Send) and isinstance(it.message, kind)]


def paths(turn: list[Action]) -> dict[Any, Path]:
    """Where prefixes go since this turn."""
    together = {prefix: every.path for every in done(turn, BindAll) for prefix in every.nodes}
    return together | {bind.prefix: bind.path for bind in done(turn, Bind)}


def remotes(path: Path) -> list[Address]:
    """The far ends of the tunnels of a path."""
    assert isinstance(path, TowardVisited)
    return [tunnel.remote for tunnel in path.tunnels]


def kinds(turn: list[Action]) -> list[str]:
    """The names of the actions, for tests about their order."""
    return [type(action).__name__ for action in turn]
