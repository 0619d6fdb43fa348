"""The handoff indicator says what the gateway knows, and never what it guesses (RFC 5213 6.9.1.1-5)."""

from ipaddress import IPv6Network

from signaling.iana import HandoffIndicator
from signaling.pmip.binding_update_list import Stage
from signaling.settings import NodeProfile, Sharing
from tests.signaling.pmip.pmip_world import LTE, WLAN, World

NEW, BETWEEN_INTERFACES, SAME_INTERFACE, UNKNOWN, NOT_CHANGED, SHARING = (HandoffIndicator(n) for n in range(1, 7))


def two_interfaces(**settings: object) -> World:
    world = World(**settings)  # type: ignore[arg-type]
    world.host("if1", node="mn1")
    world.host("if2", node="mn1")
    world.host("if3", node="mn1")
    return world


def test_a_node_that_nothing_is_known_of_came_in_an_unknown_way() -> None:
    world = World()
    world.attach("mn1")
    world.run(1.0)
    assert world.lma.updates[-1].handoff == UNKNOWN


def test_a_second_interface_beside_the_first_is_a_new_interface() -> None:
    world = two_interfaces()
    world.attach("if1")
    world.run(1.0)
    world.attach("if2")
    world.run(1.0)
    assert world.lma.updates[-1].handoff == NEW
    assert world.prefix("if1") != world.prefix("if2")


def test_a_second_interface_beside_one_not_heard_for_long_came_in_an_unknown_way() -> None:
    world = two_interfaces()
    world.attach("if1")
    world.run(60.0)
    world.attach("if2")
    world.run(0.1)
    assert world.lma.updates[-1].handoff == UNKNOWN


def test_an_interface_that_comes_as_another_leaves_is_a_switch_between_interfaces() -> None:
    world = two_interfaces()
    world.attach("if1")
    world.run(1.0)
    prefix = world.prefix("if1")
    world.detach("if1")
    world.attach("if2")
    world.run(1.0)
    assert (world.lma.updates[-1].handoff, world.lma.updates[-1].prefixes) == (BETWEEN_INTERFACES, [prefix])
    assert world.hosts["if2"].offered() == {prefix: 7200}


def test_after_a_switch_the_old_interface_takes_nothing_back() -> None:
    world = two_interfaces()
    world.attach("if1")
    world.run(1.0)
    world.detach("if1")
    world.attach("if2")
    world.run(30.0)
    assert [received.update.lifetime for received in world.lma.updates] == [300, 0, 300]


def test_of_three_interfaces_the_one_that_left_is_named_by_its_prefix() -> None:
    world = two_interfaces()
    world.attach("if1")
    world.run(1.0)
    world.attach("if2")
    world.run(1.0)
    first, second = world.prefix("if1"), world.prefix("if2")
    world.detach("if1")
    world.attach("if3")
    world.run(1.0)
    assert (world.lma.updates[-1].handoff, world.lma.updates[-1].prefixes) == (BETWEEN_INTERFACES, [first])
    assert world.prefix("if2") == second


def test_interfaces_that_share_prefixes_name_them() -> None:
    profile = NodeProfile(node="mn1", sharing=Sharing.SHARED_PREFIX)
    world = two_interfaces(profiles=(profile,))
    world.attach("if1")
    world.run(1.0)
    world.attach("if2")
    world.run(1.0)
    assert (world.lma.updates[-1].handoff, world.lma.updates[-1].prefixes) == (SHARING, [world.prefix("if1")])


def test_what_operator_or_link_layer_know_is_said() -> None:
    world = World()
    known = IPv6Network("2001:db8:77::/64")
    world.attach("mn1", handoff=SAME_INTERFACE, prefixes=(known,))
    world.run(1.0)
    assert (world.lma.updates[-1].handoff, world.lma.updates[-1].prefixes) == (SAME_INTERFACE, [known])


def test_a_refresh_says_that_nothing_changed() -> None:
    world = World()
    world.attach("mn1")
    world.keep_talking("mn1", 280.0)
    assert [received.handoff for received in world.lma.updates] == [UNKNOWN, NOT_CHANGED]


def test_a_node_that_was_away_for_a_moment_may_have_been_anywhere() -> None:
    world = World()
    world.attach("mn1")
    world.run(1.0)
    world.detach("mn1")
    world.run(0.5)
    world.attach("mn1")
    world.run(1.0)
    asked = [received for received in world.lma.updates if received.update.lifetime]
    assert [received.handoff for received in asked] == [UNKNOWN, UNKNOWN]
    assert world.stages("mn1") == {0: Stage.REGISTERED}


def test_a_node_that_moves_between_our_links_costs_no_message() -> None:
    world = World()
    world.attach("mn1")
    world.run(1.0)
    world.attach("mn1", interface="lan1")
    world.run(1.0)
    assert len(world.lma.updates) == 1
    (path,) = world.mag.paths.values()
    assert path.interface == "lan1"  # type: ignore[union-attr]


def test_the_only_path_with_another_source_is_a_move_of_the_same_interface() -> None:
    world = World(uplinks=(WLAN, LTE))
    world.lma.multipath = False
    world.attach("mn1")
    world.run(1.0)
    world.uplink_down(WLAN)
    world.run(1.0)
    assert (world.lma.updates[-1].handoff, world.lma.updates[-1].binding_id) == (SAME_INTERFACE, 0)


def test_a_solicitation_of_an_attached_node_asks_the_anchor_anew() -> None:
    world = World()
    world.attach("mn1")
    world.run(30.0)
    world.show("mn1", "rs")
    world.run(1.0)
    assert [received.handoff for received in world.lma.updates] == [UNKNOWN, UNKNOWN]


def test_a_solicitation_right_after_the_arrival_is_about_the_same_arrival() -> None:
    world = World()
    world.attach("mn1")
    world.run(0.1)
    world.show("mn1", "rs")
    world.run(1.0)
    assert len(world.lma.updates) == 1
