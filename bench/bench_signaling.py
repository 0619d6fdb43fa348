"""Signalling in memory: an update that moves a prefix, from octets to octets, authenticated at both ends.

The reference beside each figure is the codec alone (decode and encode of the same message), so that the ratio tells
what authentication, checks and tables cost. One call is one update; prefixes bound is in extra_info.
"""

from ipaddress import IPv6Address, IPv6Network
from itertools import count
from typing import Any

import pytest

from signaling.actions import Send
from signaling.door import Door
from signaling.events import ClockStepped, DatagramReceived, LinkAttached, LinkUp
from signaling.iana import BindingUpdateFlag, HandoffIndicator
from signaling.roles.mar import Mar
from signaling.settings import Counters, Peer, Settings
from signaling.update_request import identifier_of
from signaling.wire import mobility_header
from signaling.wire.binding_update import BindingUpdate
from signaling.wire.options.access import AccessTechnologyTypeOption, HandoffIndicatorOption
from signaling.wire.options.identity import MobileNodeLinkLayerIdentifier
from signaling.wire.options.prefix import HomeNetworkPrefix
from signaling.wire.options.time import Timestamp

ANCHOR, VISITED = IPv6Address("2001:db8:a::1"), IPv6Address("2001:db8:b::1")
KEY = bytes(range(16))
WALL = 1_800_000_000.0


def settings(address: IPv6Address, peer: IPv6Address) -> Settings:
    return Settings(
        address=address,
        tunnel_mtu=1452,
        peers=(Peer(name="peer", address=peer, key=KEY),),
        pools=(IPv6Network("2001:db8:1000::/40"),),
    )


def anchor_with(nodes: int) -> Mar:
    """An anchor whose nodes are all on its own link."""
    mar = Mar(settings(ANCHOR, VISITED))
    mar.handle(ClockStepped(wall_minus_monotonic=WALL), 0.0)
    mar.handle(LinkUp(interface="acc0", link_layer=bytes(6), mtu=1500), 0.0)
    for number in range(nodes):
        mar.handle(
            LinkAttached(
                node=f"mn{number}@example.net",
                interface="acc0",
                link_layer=(0x02 << 40 | number).to_bytes(6),
                link_local=None,
                trigger="rs",
            ),
            0.0,
        )
    return mar


def update_of(mar: Mar, number: int, now: float) -> BindingUpdate:
    node = f"mn{number}@example.net"
    return BindingUpdate(
        sequence_number=1,
        flags=BindingUpdateFlag.ACKNOWLEDGE | BindingUpdateFlag.PROXY_REGISTRATION,
        lifetime=300,
        options=(
            identifier_of(node),
            HomeNetworkPrefix(prefix=mar.anchor.cache.of(node)[0].prefix),
            HandoffIndicatorOption(indicator=HandoffIndicator.HANDOFF_BETWEEN_MAGS_FOR_THE_SAME_INTERFACE),
            AccessTechnologyTypeOption(technology=mar.settings.technology),
            MobileNodeLinkLayerIdentifier(identifier=(0x02 << 40 | number).to_bytes(6)),
            Timestamp.from_seconds(WALL + now),
        ),
    )


@pytest.mark.parametrize("nodes", [1, 1_000, 10_000])
def test_update_to_acknowledgement(benchmark: Any, nodes: int) -> None:
    mar = anchor_with(nodes)
    door = Door(settings(VISITED, ANCHOR), Counters())
    ticks = count(1)

    def arrange() -> tuple[tuple[bytes, float], dict[str, object]]:
        now = next(ticks) * 0.001
        return (door.send(update_of(mar, 0, now), ANCHOR, care_of=VISITED).octets, now), {}

    def answer(octets: bytes, now: float) -> None:
        actions = mar.handle(DatagramReceived(octets=octets, source=VISITED, destination=ANCHOR), now)
        assert isinstance(actions[-1], Send) or any(isinstance(action, Send) for action in actions)

    benchmark.extra_info["prefixes"] = nodes
    benchmark.pedantic(answer, setup=arrange, rounds=2_000)


def test_codec_alone(benchmark: Any) -> None:
    mar = anchor_with(1)
    octets = mobility_header.encode(update_of(mar, 0, 1.0), VISITED, ANCHOR)

    def there_and_back() -> None:
        mobility_header.encode(mobility_header.decode(octets, VISITED, ANCHOR), VISITED, ANCHOR)

    benchmark(there_and_back)
