"""A site: a logical node that is always attached, whose prefixes are delegated to the gateway (RFC 8278 3.1)."""

from ipaddress import IPv6Network

from signaling.actions import GiveAddress, SendOnLink, TowardAnchor
from signaling.events import LinkAttached, LinkUp, SiteAttached, TunnelMtuChanged
from signaling.iana import AccessTechnologyType
from signaling.pmip.binding_update_list import Stage
from signaling.settings import Site
from signaling.wire.neighbor import LinkMtu, PrefixInformation, RouterAdvertisement
from signaling.wire.options.access import AccessTechnologyTypeOption
from signaling.wire.options.identity import MobileNodeLinkLayerIdentifier
from signaling.wire.options.prefix import DelegatedMobileNetworkPrefix
from tests.signaling.pmip.pmip_world import LTE, ROUTER_LINK_LAYER, WLAN, World

DELEGATED = IPv6Network("2001:db8:d00::/56")
FIRST_SUBNET = IPv6Network("2001:db8:d00::/64")


def branch(**site: object) -> World:
    world = World(uplinks=(WLAN, LTE), sites=(Site(node="branch", **site),))  # type: ignore[arg-type]
    for interface in ("home0", "office0"):
        world.feed(LinkUp(interface=interface, link_layer=ROUTER_LINK_LAYER, mtu=1500))
    world.feed(SiteAttached(node="branch"))
    world.run(1.0)
    return world


def advertised(world: World, interface: str) -> list[IPv6Network]:
    sent = [it for it in world.mag.did(SendOnLink) if it.interface == interface]
    last = [it.message for it in sent if isinstance(it.message, RouterAdvertisement)][-1:]
    return [option.prefix for message in last for option in message.options_of(PrefixInformation)]


def test_a_site_is_registered_by_every_path_as_a_virtual_node() -> None:
    world = branch()
    (session,) = world.mag.mag.gateway.entries
    assert {it.stage for it in session.registrations.values()} == {Stage.REGISTERED}
    technology = world.lma.updates[0].update.option(AccessTechnologyTypeOption)
    assert technology == AccessTechnologyTypeOption(technology=AccessTechnologyType.VIRTUAL)


def test_a_site_asks_for_a_delegated_prefix() -> None:
    world = branch()
    assert world.lma.updates[0].update.option(DelegatedMobileNetworkPrefix) is not None


def test_a_site_without_delegation_asks_for_none() -> None:
    world = branch(delegated=False)
    assert world.lma.updates[0].update.option(DelegatedMobileNetworkPrefix) is None


def test_the_delegated_prefix_leads_to_the_link_of_the_site() -> None:
    world = branch(delegated_interface="office0")
    path = world.mag.paths[DELEGATED]
    assert isinstance(path, TowardAnchor)
    assert (path.interface, path.gateway, len(path.tunnels)) == ("office0", None, 2)


def test_a_subnet_of_it_is_advertised_there_to_all() -> None:
    assert advertised(branch(delegated_interface="office0"), "office0") == [FIRST_SUBNET]


def test_the_home_prefix_is_advertised_where_the_site_says() -> None:
    world = branch(interface="home0")
    (session,) = world.mag.mag.gateway.entries
    assert advertised(world, "home0") == [session.prefixes[0].prefix]


def test_a_site_without_a_link_advertises_nothing() -> None:
    world = branch()
    assert (advertised(world, "home0"), advertised(world, "office0")) == ([], [])


def test_a_changed_mtu_of_the_tunnels_is_told_to_nodes_and_sites_at_once() -> None:
    world = branch(delegated_interface="office0")
    world.attach("mn1")
    world.run(1.0)
    told = [action for action in world.feed(TunnelMtuChanged(mtu=1352)) if isinstance(action, SendOnLink)]
    assert {action.interface for action in told} == {"office0", world.hosts["mn1"].interface}
    for action in told:
        assert isinstance(action.message, RouterAdvertisement)
        assert action.message.option(LinkMtu) == LinkMtu(mtu=1352)


def test_what_is_advertised_is_repeated() -> None:
    world = branch(delegated_interface="office0")
    before = len(world.mag.did(SendOnLink))
    world.run(310.0)
    assert len(world.mag.did(SendOnLink)) > before


def test_a_link_that_comes_up_later_hears_of_it() -> None:
    world = branch(delegated_interface="later0")
    assert advertised(world, "later0") == []
    world.feed(LinkUp(interface="later0", link_layer=ROUTER_LINK_LAYER, mtu=1500))
    assert advertised(world, "later0") == [FIRST_SUBNET]


def test_a_host_of_a_site_is_no_node() -> None:
    world = branch(delegated_interface="office0")
    before = len(world.mag.did(SendOnLink))
    event = LinkAttached(
        node="host", interface="office0", link_layer=bytes(range(6)), link_local=None, trigger="rs"
    )
    world.feed(event)
    world.run(0.1)
    assert len(world.mag.mag.gateway.entries) == 1
    assert len(world.mag.did(SendOnLink)) == before + 1


def test_a_site_is_refreshed_without_being_asked_whether_it_is_there() -> None:
    world = branch()
    world.run(400.0)
    (session,) = world.mag.mag.gateway.entries
    assert session.registered
    assert world.lma.updates[-1].update.lifetime


def test_after_a_restart_the_site_is_found_by_the_same_identifier() -> None:
    world = branch()
    before = world.lma.updates[0].update.option(MobileNodeLinkLayerIdentifier)
    world.restart()
    world.uplink_up(WLAN)
    world.feed(SiteAttached(node="branch"))
    world.run(1.0)
    assert world.lma.updates[-1].update.option(MobileNodeLinkLayerIdentifier) == before


def test_nobody_leases_what_a_site_has() -> None:
    assert branch(delegated_interface="office0").mag.did(GiveAddress) == []


def test_a_site_that_is_not_configured_is_no_site() -> None:
    world = World()
    world.feed(SiteAttached(node="elsewhere"))
    assert world.mag.notes("no-such-site")
