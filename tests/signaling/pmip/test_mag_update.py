"""What an update of a gateway says (RFC 5213 6.9.1.1, 6.9.1.5)."""

from ipaddress import IPv4Address, IPv6Network

from signaling.actions import Send, SendOnLink
from signaling.iana import BindingUpdateFlag
from signaling.settings import NodeProfile
from signaling.wire.options.access import AccessTechnologyTypeOption, LinkLocalAddress
from signaling.wire.options.identity import (
    MagIdentifier,
    MobileNodeIdentifier,
    MobileNodeLinkLayerIdentifier,
    ServiceSelection,
)
from signaling.wire.options.ipv4 import Ipv4HomeAddressRequest
from signaling.wire.options.multipath import MagMultipathBinding
from signaling.wire.options.time import Timestamp
from tests.signaling.pmip.pmip_world import LMA, World


def first(world: World) -> object:
    world.attach("mn1")
    world.run(1.0)
    return world.lma.updates[0].update


def test_the_update_leaves_in_the_turn_of_the_solicitation() -> None:
    world = World()
    (send,) = (action for action in world.attach("mn1") if isinstance(action, Send))
    assert send.destination == LMA


def test_nothing_is_advertised_before_the_anchor_has_answered() -> None:
    world = World()
    assert not [action for action in world.attach("mn1") if isinstance(action, SendOnLink)]


def test_it_is_a_proxy_update_that_wants_an_answer() -> None:
    world = World()
    first(world)
    flags = BindingUpdateFlag.PROXY_REGISTRATION | BindingUpdateFlag.ACKNOWLEDGE
    assert world.lma.updates[0].update.flags == flags


def test_it_names_node_interface_and_technology_and_asks_for_a_prefix() -> None:
    world = World()
    first(world)
    update = world.lma.updates[0].update
    identifier, technology = update.option(MobileNodeIdentifier), update.option(AccessTechnologyTypeOption)
    interface = update.option(MobileNodeLinkLayerIdentifier)
    assert identifier is not None
    assert technology is not None
    assert interface is not None
    assert (identifier.identifier, technology.technology) == (b"mn1", 3)
    assert interface.identifier == world.hosts["mn1"].link_layer
    assert world.lma.updates[0].prefixes == [IPv6Network("::/0")]


def test_an_identifier_of_zeros_is_left_out() -> None:
    world = World()
    world.host("mn1").link_layer = bytes(6)
    first(world)
    assert world.lma.updates[0].update.option(MobileNodeLinkLayerIdentifier) is None


def test_the_fixed_link_local_address_needs_no_option() -> None:
    world = World()
    first(world)
    assert world.lma.updates[0].update.option(LinkLocalAddress) is None


def test_prefixes_of_the_profile_are_named() -> None:
    fixed = IPv6Network("2001:db8:77::/64")
    world = World(profiles=(NodeProfile(node="mn1", prefixes=(fixed,)),))
    first(world)
    assert world.lma.updates[0].prefixes == [fixed]


def test_several_prefixes_are_one_option_each_in_the_refresh() -> None:
    fixed = (IPv6Network("2001:db8:77::/64"), IPv6Network("2001:db8:78::/64"))
    world = World(profiles=(NodeProfile(node="mn1", prefixes=fixed),))
    first(world)
    world.keep_talking("mn1", 280.0)
    assert world.lma.updates[-1].prefixes == list(fixed)


def test_by_default_it_carries_a_timestamp() -> None:
    world = World()
    first(world)
    assert world.lma.updates[0].update.option(Timestamp) is not None


def test_in_sequence_mode_there_is_none_and_numbers_grow() -> None:
    world = World(use_timestamps=False)
    first(world)
    world.keep_talking("mn1", 280.0)
    before, after = (received.update for received in world.lma.updates)
    assert before.option(Timestamp) is None
    assert after.sequence_number == before.sequence_number + 1


def test_the_service_is_selected_in_the_first_update_only() -> None:
    world = World(services={"mn1": "internet"})
    first(world)
    world.keep_talking("mn1", 280.0)
    services = [received.update.option(ServiceSelection) for received in world.lma.updates]
    assert services == [ServiceSelection(identifier=b"internet"), None]


def test_ipv4_is_asked_for_where_the_profile_has_an_address() -> None:
    world = World(profiles=(NodeProfile(node="mn1", ipv4_address=IPv4Address("192.0.2.7")),))
    first(world)
    assert world.lma.updates[0].update.option(Ipv4HomeAddressRequest) is not None


def test_without_uplinks_there_is_no_multipath_option() -> None:
    world = World()
    first(world)
    update = world.lma.updates[0].update
    assert update.option(MagMultipathBinding) is None
    assert update.option(MagIdentifier) is None


def test_without_an_anchor_nobody_is_asked() -> None:
    world = World(anchor="")
    world.attach("mn1")
    world.run(1.0)
    assert world.lma.updates == []
    assert world.mag.notes("not-registered")
