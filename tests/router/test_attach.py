"""What a frame of an access link tells of whoever sent it."""

import asyncio
from dataclasses import replace
from ipaddress import IPv6Address
from unittest.mock import Mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.links.attach import AccessInterface, Identities, sighting
from router.links.rtnetlink import Link, LinkChanged, NeighborChanged
from router.links.rtnetlink_constants import NeighborState, OperState
from signaling.access_link import ROUTER_ADDRESS, ROUTER_LINK_LAYER
from signaling.actions import ExpectNode, SendOnLink
from signaling.events import Event, LinkAttached, LinkLost, LinkUp, NodeDoubted
from signaling.wire import ipv6
from signaling.wire.message import Message
from signaling.wire.neighbor import (
    ALL_NODES,
    EchoReply,
    EchoRequest,
    MulticastListenerQuery,
    MulticastListenerReport,
    NeighborAdvertisement,
    NeighborSolicitation,
    RouterAdvertisement,
    RouterSolicitation,
)

MAC = bytes.fromhex("020000000011")
HOST = IPv6Address("fe80::11")
GLOBAL = IPv6Address("2001:db8:a1:1::11")
NOBODY = IPv6Address("::")
ALL_ROUTERS = IPv6Address("ff02::2")
GROUP = IPv6Address("ff02::1:ff00:11")
IDENTITIES = Identities({}, "openmar")


def seen(packet: bytes, link_layer: bytes = MAC) -> LinkAttached | None:
    return sighting(packet, link_layer, IDENTITIES, "eth1")


def udp(source: IPv6Address, payload: bytes = b"data") -> bytes:
    """An IPv6 packet that is no ICMPv6; nobody looks into it."""
    header = b"\x60\0\0\0" + len(payload).to_bytes(2, "big") + bytes([17, 64])
    return header + source.packed + IPv6Address("2001:db8::99").packed + payload


@pytest.mark.parametrize(
    ("message", "destination", "trigger"),
    [
        (RouterSolicitation(), ALL_ROUTERS, "rs"),
        (NeighborSolicitation(target=GLOBAL), GLOBAL, "ns"),
        (NeighborAdvertisement(target=HOST), ROUTER_ADDRESS, "na"),
        (MulticastListenerReport(group=GROUP), ALL_NODES, "mld"),
        (EchoReply(identifier=1, sequence_number=1), ROUTER_ADDRESS, "echo"),
        (EchoRequest(identifier=1, sequence_number=1), ROUTER_ADDRESS, "packet"),
    ],
)
def test_everything_a_host_sends_gives_it_away(message: Message, destination: IPv6Address, trigger: str) -> None:
    assert seen(ipv6.carry(message, HOST, destination)) == LinkAttached(
        node="02-00-00-00-00-11@openmar", interface="eth1", link_layer=MAC, link_local=HOST, trigger=trigger
    )


def test_a_data_packet_gives_its_sender_away_without_a_link_local_address() -> None:
    found = seen(udp(GLOBAL))
    assert found is not None
    assert (found.trigger, found.link_local) == ("packet", None)


def test_duplicate_address_detection_gives_away_a_host_without_an_address() -> None:
    found = seen(ipv6.carry(NeighborSolicitation(target=HOST), NOBODY, IPv6Address("ff02::1:ff00:11")))
    assert found is not None
    assert (found.trigger, found.link_local) == ("ns", None)


@pytest.mark.parametrize(
    "message", [RouterAdvertisement(router_lifetime=1800), MulticastListenerQuery(max_response_delay=1)]
)
def test_a_router_is_no_mobile_node(message: Message) -> None:
    assert seen(ipv6.carry(message, HOST, ALL_NODES)) is None


@pytest.mark.parametrize(
    "link_layer",
    [ROUTER_LINK_LAYER, bytes.fromhex("333300000001"), b"\xff" * 6, bytes(6), b"", MAC[:5], MAC + b"\0\0"],
    ids=bytes.hex,
)
def test_who_has_no_link_layer_address_of_its_own_is_not_believed(link_layer: bytes) -> None:
    assert seen(ipv6.carry(RouterSolicitation(), HOST, ALL_ROUTERS), link_layer) is None


def test_a_router_takes_itself_for_no_node_by_whichever_address_it_has_on_a_link() -> None:
    identities = Identities({}, "openmar")
    identities.ours["eth2"] = frozenset((ROUTER_LINK_LAYER, MAC))
    assert sighting(ipv6.carry(RouterSolicitation(), HOST, ALL_ROUTERS), MAC, identities, "eth1") is None


@pytest.mark.parametrize("source", ["ff02::1", "::1", str(ROUTER_ADDRESS)])
def test_who_claims_an_address_that_cannot_be_its_own_is_not_believed(source: str) -> None:
    assert seen(udp(IPv6Address(source))) is None


def test_a_broken_checksum_is_not_believed() -> None:
    packet = bytearray(ipv6.carry(RouterSolicitation(), HOST, ALL_ROUTERS))
    packet[-1] ^= 1
    assert seen(bytes(packet)) is None


def test_neighbour_discovery_from_beyond_the_link_is_not_believed() -> None:
    packet = bytearray(ipv6.carry(RouterSolicitation(), HOST, ALL_ROUTERS))
    packet[7] = 254
    assert seen(bytes(packet)) is None


PACKETS = [
    ipv6.carry(message, HOST, ALL_ROUTERS)
    for message in (RouterSolicitation(), NeighborSolicitation(target=HOST), MulticastListenerReport(group=GROUP))
]


@given(st.binary(max_size=200), st.binary(max_size=8))
def test_no_octets_whatever_raise_anything(packet: bytes, link_layer: bytes) -> None:
    seen(packet, link_layer)


@given(st.sampled_from([*PACKETS, udp(GLOBAL)]), st.integers(0, 120), st.binary(min_size=1, max_size=4), st.data())
def test_no_damage_to_a_packet_raises_anything(packet: bytes, at: int, damage: bytes, data: st.DataObject) -> None:
    damaged = packet[:at] + damage + packet[at + len(damage) :]
    seen(damaged[: data.draw(st.integers(0, len(damaged)))], MAC)


def test_a_configured_node_has_its_configured_name() -> None:
    identities = Identities({MAC: "mn1@example.net"}, "example.net")
    assert identities.of(MAC) == "mn1@example.net"
    assert identities.of(MAC[::-1]) == "11-00-00-00-00-02@example.net"


# The interface


LINK = Link(
    index=7,
    name="eth1",
    mtu=1500,
    link_layer=ROUTER_LINK_LAYER,
    up=True,
    carrier=True,
    operstate=OperState.UP,
    kind="veth",
    lower=0,
    master=0,
)
NO_CARRIER = replace(LINK, carrier=False)
EXPECTED = ExpectNode(node="mn1@b", interface="eth1", link_layer=MAC, link_local=HOST)


def interface() -> tuple[AccessInterface, list[Event]]:
    events: list[Event] = []
    return AccessInterface("eth1", IDENTITIES, events.append), events


def test_a_carrier_is_told_once_when_it_comes_and_once_when_it_goes() -> None:
    access, events = interface()
    for link in (NO_CARRIER, LINK, LINK, NO_CARRIER, NO_CARRIER, LINK):
        access.changed(LinkChanged(link, gone=False))
    up = LinkUp(interface="eth1", link_layer=ROUTER_LINK_LAYER, mtu=1500)
    assert events == [up, LinkLost(interface="eth1"), up]


def test_what_a_node_said_before_its_link_was_lost_does_not_bring_it_back() -> None:
    access, events = interface()
    access.changed(LinkChanged(LINK, gone=False))
    access._socket = Mock(discard=lambda: events.append("discarded"))
    access.changed(LinkChanged(NO_CARRIER, gone=False))
    assert events[-2:] == ["discarded", LinkLost(interface="eth1")]


def test_an_interface_that_is_gone_has_lost_its_carrier() -> None:
    access, events = interface()
    access.changed(LinkChanged(LINK, gone=False))
    access.changed(LinkChanged(LINK, gone=True))
    assert events[-1] == LinkLost(interface="eth1")
    assert not access.up


def failed(address: IPv6Address = HOST) -> NeighborChanged:
    return NeighborChanged(index=7, address=address, link_layer=b"", state=NeighborState.FAILED, gone=False)


def test_a_node_the_kernel_gave_up_is_doubted() -> None:
    access, events = interface()
    access.expect(EXPECTED)
    access.neighbor_changed(failed())
    assert events == [NodeDoubted(node="mn1@b", link_layer=MAC)]


@pytest.mark.parametrize(
    "change",
    [failed(GLOBAL), replace(failed(), gone=True), replace(failed(), state=NeighborState.REACHABLE)],
)
def test_other_news_of_neighbours_doubt_nobody(change: NeighborChanged) -> None:
    access, events = interface()
    access.expect(EXPECTED)
    access.neighbor_changed(change)
    assert events == []


def test_a_node_may_leave_while_it_is_being_doubted() -> None:
    access: AccessInterface

    def on_event(event: Event) -> None:
        access.expect(replace(EXPECTED, interface=None))

    access = AccessInterface("eth1", IDENTITIES, on_event)
    access.expect(EXPECTED)
    access.expect(replace(EXPECTED, node="mn2@b", link_layer=MAC[::-1]))
    access.neighbor_changed(failed())


def test_a_node_that_is_expected_elsewhere_is_not_expected_here_any_more() -> None:
    access, events = interface()
    access.expect(EXPECTED)
    access.expect(replace(EXPECTED, interface="eth2"))
    access.neighbor_changed(failed())
    assert events == []


def test_nothing_can_be_sent_on_an_interface_that_is_not_there() -> None:
    access, _ = interface()
    action = SendOnLink(octets=b"", message=RouterAdvertisement(router_lifetime=1800), interface="eth1", link_layer=MAC)
    assert access.send(action) == "interface is gone"


def test_closing_what_is_not_open_is_no_error() -> None:
    access, _ = interface()
    loop = asyncio.new_event_loop()
    access.close(loop)
    loop.close()
