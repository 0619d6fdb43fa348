"""A node with several interfaces: which router and which interface has each of its prefixes."""

import random
from collections.abc import Callable, Iterator
from ipaddress import IPv6Network
from typing import Any

import pytest

from signaling.actions import LocalLink, TowardAnchor, TowardVisited
from signaling.dma.session import State
from signaling.flow_rules import FlowRule
from signaling.iana import HandoffIndicator, RevocationTrigger, RouterPreference
from signaling.settings import NodeProfile
from signaling.wire.binding_update import BindingUpdate
from signaling.wire.neighbor import NeighborSolicitation
from signaling.wire.options.access import HandoffIndicatorOption
from signaling.wire.options.identity import MobileNodeLinkLayerIdentifier
from signaling.wire.revocation import BindingRevocationIndication
from tests.world import INTERFACE, World

INTERFACES = ("mn1", "mn1/2")
Policies = dict[str, tuple[FlowRule, ...]]
LINK_LAYERS = tuple(bytes((2, 0, 0, 0, 0, number)) for number in (1, 2))


def two_interfaces(*, policies: Policies | None = None, **profile: Any) -> World:
    """mn1 has two interfaces, at no router yet: mn1 and mn1/2."""
    told = NodeProfile(node="mn1", link_layers=LINK_LAYERS, **profile)
    world = World(mars=3, profiles=(told,), policies=policies or {})
    assert tuple(world.host(name).link_layer for name in INTERFACES) == LINK_LAYERS
    return world


def at_two_routers(*, world: World | None = None, **profile: Any) -> World:
    """One interface at mar1, the other one came to mar2 ten seconds later."""
    world = world or two_interfaces(**profile)
    world.attach("mn1", "mar1")
    world.run(10.0)
    world.attach("mn1/2", "mar2")
    world.run(10.0)
    return world


def at_one_router() -> World:
    """Both interfaces at mar1."""
    world = two_interfaces()
    for name in INTERFACES:
        world.attach(name, "mar1")
        world.run(5.0)
    return world


def claim(world: World, prefix: IPv6Network) -> BindingUpdate:
    """The other interface is to have it."""
    switch = HandoffIndicatorOption(indicator=HandoffIndicator.HANDOFF_BETWEEN_TWO_DIFFERENT_INTERFACES)
    other = MobileNodeLinkLayerIdentifier(identifier=LINK_LAYERS[1])
    return world.update("mn1", prefix, handoff=switch, link_layer=other)


def handoffs(world: World, source: str) -> list[int]:
    options = (it.message.option(HandoffIndicatorOption) for it in world.sent(BindingUpdate, source=source))
    return [option.indicator for option in options if option is not None]


def local(world: World, name: str) -> LocalLink:
    return LocalLink(interface=INTERFACE, gateway=world.host(name).link_local)


def from_anchor(world: World, mar: str, name: str) -> TowardAnchor:
    return TowardAnchor.through(world.address[mar], INTERFACE, world.host(name).link_local)


# --- a second interface ----------------------------------------------------------------------------------------


def test_the_prefix_of_an_interface_stays_when_another_one_comes_to_another_router() -> None:
    world = at_two_routers()
    assert world.path("mar1", world.prefix("mn1", "mar1")) == local(world, "mn1")
    assert world.sent(BindingUpdate) == []


def test_each_interface_gets_a_prefix_of_the_router_it_is_at() -> None:
    world = at_two_routers()
    assert world.path("mar2", world.prefix("mn1/2", "mar2")) == local(world, "mn1/2")
    for name, mar in (("mn1", "mar1"), ("mn1/2", "mar2")):
        assert world.preferred(name) == [world.prefix(name, mar)]


def test_two_interfaces_at_one_router_have_a_prefix_each() -> None:
    world = at_one_router()
    prefixes = [world.prefix(name, "mar1") for name in INTERFACES]
    assert len(set(prefixes)) == 2
    assert [world.path("mar1", prefix) for prefix in prefixes] == [local(world, name) for name in INTERFACES]
    assert [world.preferred(name) for name in INTERFACES] == [[prefix] for prefix in prefixes]


def test_when_one_of_two_interfaces_at_a_router_goes_elsewhere_only_its_prefix_follows() -> None:
    world = at_one_router()
    world.move("mn1/2", "mar2")
    world.run(5.0)
    stays, follows = world.prefix("mn1", "mar1"), world.prefix("mn1/2", "mar1")
    assert world.path("mar1", stays) == local(world, "mn1")
    assert world.path("mar1", follows) == TowardVisited.at(world.address["mar2"])
    assert world.path("mar2", follows) == from_anchor(world, "mar1", "mn1/2")
    assert handoffs(world, "mar2") == [HandoffIndicator.HANDOFF_BETWEEN_MAGS_FOR_THE_SAME_INTERFACE]


def test_one_anchor_may_have_several_visited_routers_for_a_node() -> None:
    world = at_one_router()
    world.move("mn1", "mar2")
    world.move("mn1/2", "mar3")
    world.run(5.0)
    for name, mar in (("mn1", "mar2"), ("mn1/2", "mar3")):
        assert world.path("mar1", world.prefix(name, "mar1")) == TowardVisited.at(world.address[mar])


def test_packets_for_a_node_with_several_interfaces_are_given_to_the_one_that_is_there() -> None:
    """A stock host answers no solicitation on one interface for an address of another."""
    world = two_interfaces()
    world.attach("mn1", "mar1", trigger="packet")
    assert world.path("mar1", world.prefix("mn1", "mar1")) == local(world, "mn1")


# --- one of them goes ------------------------------------------------------------------------------------------


def test_the_prefix_of_an_interface_that_left_goes_to_the_one_that_stays() -> None:
    world = at_two_routers()
    world.detach("mn1")
    world.run(1.0)
    prefix = world.prefix("mn1", "mar1")
    assert world.path("mar1", prefix) == TowardVisited.at(world.address["mar2"])
    assert world.path("mar2", prefix) == from_anchor(world, "mar1", "mn1/2")
    assert handoffs(world, "mar2") == [HandoffIndicator.HANDOFF_BETWEEN_TWO_DIFFERENT_INTERFACES]


def preference(world: World, name: str) -> RouterPreference:
    return RouterPreference(world.hosts[name].advertisements[-1][1].preference)


def test_the_router_that_adopts_a_prefix_is_the_one_to_send_by_until_its_interface_is_back() -> None:
    """A host goes on sending by the interface that is gone, as long as no other router is better."""
    world = at_two_routers()
    assert preference(world, "mn1/2") is RouterPreference.MEDIUM
    before = len(world.hosts["mn1/2"].advertisements)
    world.detach("mn1")
    world.run(2.0)
    assert world.path("mar2", world.prefix("mn1", "mar1")) == from_anchor(world, "mar1", "mn1/2")
    told = [it.preference for _, it in world.hosts["mn1/2"].advertisements[before:]]
    assert told == [RouterPreference.HIGH] * 6  # three of all, and behind each one of what is preferred alone
    world.attach("mn1", "mar1")
    world.run(1.0)
    assert preference(world, "mn1/2") is RouterPreference.MEDIUM
    assert preference(world, "mn1") is RouterPreference.MEDIUM


@pytest.mark.parametrize("at", [at_one_router, at_two_routers])
def test_it_is_no_longer_when_the_other_interface_is_anywhere(at: Callable[[], World]) -> None:
    world = at()
    world.detach("mn1")
    world.run(5.0)
    assert preference(world, "mn1/2") is RouterPreference.HIGH
    world.attach("mn1", "mar3")
    world.run(5.0)
    assert preference(world, "mn1/2") is RouterPreference.MEDIUM


def test_so_it_is_where_that_interface_moves_to() -> None:
    world = at_two_routers()
    world.detach("mn1")
    world.run(1.0)
    world.move("mn1/2", "mar3")
    world.run(1.0)
    assert preference(world, "mn1/2") is RouterPreference.HIGH


def test_so_it_is_at_the_router_of_both_interfaces() -> None:
    world = at_one_router()
    world.detach("mn1")
    world.run(1.0)
    assert preference(world, "mn1/2") is RouterPreference.HIGH


def test_a_router_that_drains_is_not_the_one_to_send_by() -> None:
    world = at_two_routers()
    world.detach("mn1")
    world.run(1.0)
    world.order("mar2", world["mar2"].mar.begin_drain(60.0, world.now))
    world.run(1.0)
    assert preference(world, "mn1/2") is RouterPreference.LOW


def test_an_interface_that_moves_has_its_time_to_show_itself_before_another_one_takes_its_prefix() -> None:
    world = at_two_routers()
    world.detach("mn1")
    world.run(0.2)
    world.attach("mn1", "mar3")
    world.run(5.0)
    assert world.path("mar1", world.prefix("mn1", "mar1")) == TowardVisited.at(world.address["mar3"])
    assert handoffs(world, "mar2") == []


def test_at_one_router_the_other_interface_takes_over_without_a_message() -> None:
    world = at_one_router()
    prefix = world.prefix("mn1", "mar1")
    world.detach("mn1")
    world.run(1.0)
    assert world.path("mar1", prefix) == local(world, "mn1/2")
    assert world.wire == []


def test_a_visiting_prefix_too_goes_to_the_other_interface_at_a_router() -> None:
    world = two_interfaces()
    world.attach("mn1", "mar1")
    world.run(5.0)
    world.move("mn1", "mar2")
    world.attach("mn1/2", "mar2")
    world.run(5.0)
    world.detach("mn1")
    world.run(0.9)
    prefix = world.prefix("mn1", "mar1")
    assert world.path("mar2", prefix) == from_anchor(world, "mar1", "mn1/2")
    assert world.path("mar1", prefix) == TowardVisited.at(world.address["mar2"])


def test_an_interface_that_comes_back_finds_what_it_was_given() -> None:
    world = at_two_routers()
    prefix = world.prefix("mn1", "mar1")
    world.detach("mn1")
    world.run(5.0)
    world.attach("mn1", "mar1")
    world.run(5.0)
    assert world.path("mar1", prefix) == local(world, "mn1")
    assert world.path("mar2", prefix) is None
    assert len(world["mar1"].mar.anchor.cache) == 1


def test_the_router_that_keeps_the_other_interface_does_not_contest() -> None:
    world = at_two_routers()
    world.detach("mn1")
    world.run(5.0)
    world.attach("mn1", "mar1")
    world.run(5.0)
    (told,) = world.sent(BindingRevocationIndication)
    assert isinstance(told.message, BindingRevocationIndication)
    assert told.message.trigger is RevocationTrigger.ADMINISTRATIVE_REASON
    assert world["mar1"].mar.counters["revocation.still-attached"] == 0


def test_an_interface_that_slipped_away_is_missed_when_another_one_shows_itself() -> None:
    world = two_interfaces()
    world.attach("mn1", "mar1")
    world.run(10.0)
    world.detach("mn1", noticed=False)
    world.attach("mn1/2", "mar2")
    world.run(4.0)
    assert world.path("mar1", world.prefix("mn1", "mar1")) == TowardVisited.at(world.address["mar2"])


def test_an_interface_that_is_there_is_asked_once_when_another_one_shows_itself() -> None:
    world = at_two_routers()
    asked = [message for at, message in world.host("mn1").asked if isinstance(message, NeighborSolicitation)]
    assert len(asked) == 1
    assert world.state(world.prefix("mn1", "mar1")) is State.LOCAL


def test_what_is_left_of_a_node_that_is_gone_is_nothing() -> None:
    world = at_two_routers()
    for name in INTERFACES:
        world.detach(name)
    world.run(10_000.0)
    assert [router.paths for router in world.routers.values()] == [{}, {}, {}]
    assert [router.mar.next_wake for router in world.routers.values()] == [None, None, None]


# --- the router of one of them stops, and starts ------------------------------------------------------------------


def stopped(world: World, mar: str, seconds: float) -> World:
    """A router tells its nodes and peers that it goes, and is away for so long."""
    world.drain(mar)
    world.kill(mar)
    world.run(seconds)
    return world


def has_it_again(world: World, name: str, mar: str, prefix: IPv6Network) -> None:
    """At once, and for good."""
    for seconds in (1.0, 60.0, 600.0):
        world.run(seconds)
        assert world.path(mar, prefix) == local(world, name)
        assert world.delivered_at(prefix) == [mar]
        assert world.preferred(name) == [prefix]
    assert list(world.faults()) == []


@pytest.mark.parametrize("seconds", [0.05, 0.26, 0.3, 1.0, 1.26, 2.0, 6.0, 29.9, 60.0, 400.0])
def test_an_interface_has_its_prefix_again_when_its_router_was_stopped_and_started(seconds: float) -> None:
    world = at_two_routers()
    prefix = world.prefix("mn1", "mar1")
    stopped(world, "mar1", seconds).restart("mar1")
    has_it_again(world, "mn1", "mar1", prefix)


def test_the_router_of_the_other_interface_asks_once_more_and_lets_it_be() -> None:
    world = at_two_routers()
    stopped(world, "mar1", 6.0).restart("mar1")
    world.run(1.0)
    before = len(world.sent(BindingUpdate, source="mar2"))
    world.run(100.0)
    assert len(world.sent(BindingUpdate, source="mar2")) == before
    assert world["mar2"].mar.registrar.all() == []
    assert world["mar2"].notes("registration-refused")[-1].fields["why"].endswith("it stays there")


def claimed_late(back_at: str) -> tuple[World, IPv6Network]:
    """The router of the other one has decided when nobody had it, and repeats that with newer timestamps."""
    world = at_two_routers()
    prefix = world.prefix("mn1", "mar1")
    world.lose(1, BindingUpdate, source="mar2")
    world.detach("mn1")
    world.run(0.9)
    world.attach("mn1", back_at)
    return world, prefix


def test_a_claim_that_came_late_does_not_take_a_prefix_from_its_interface() -> None:
    world, prefix = claimed_late(back_at="mar1")
    has_it_again(world, "mn1", "mar1", prefix)


def test_a_claim_that_came_late_does_not_take_a_prefix_from_its_interface_elsewhere() -> None:
    world, prefix = claimed_late(back_at="mar3")
    world.run(60.0)
    assert world.delivered_at(prefix) == ["mar3"]
    assert list(world.faults()) == []


def test_a_restarted_router_knows_to_which_interface_it_lent_a_prefix() -> None:
    world = at_two_routers()
    prefix = world.prefix("mn1", "mar1")
    world.detach("mn1")
    world.run(5.0)
    assert world.delivered_at(prefix) == ["mar2"]
    world.restart("mar1")
    world.run(5.0)
    world.attach("mn1", "mar1")
    has_it_again(world, "mn1", "mar1", prefix)


def test_an_interface_that_stays_where_it_is_has_its_prefix_again_as_soon_as_it_shows_itself() -> None:
    """Nobody comes or leaves: whatever let the prefix go to another one, a packet of its own ends that."""
    world = at_two_routers()
    prefix = world.prefix("mn1", "mar1")
    entry = world["mar1"].mar.anchor.cache.get(prefix)
    assert entry is not None
    entry.link_layer = b""  # as of a record that does not say
    world.say(claim(world, prefix), "mar2", "mar1")
    assert entry.state is State.REMOTE
    world.run(1.0)
    world.show("mn1", "packet")
    world.run(5.0)
    assert world.path("mar1", prefix) == local(world, "mn1")


def test_what_another_interface_took_over_and_released_is_its_own_again() -> None:
    """Else it would be at its router without any prefix."""
    world = at_two_routers(takes_over=True)
    prefix = world.prefix("mn1", "mar1")
    world.perform("mar2", world["mar2"].mar.registrar.release(prefix, world.now))
    world.run(1.0)
    assert world.state(prefix) is State.RELEASED
    world.show("mn1", "packet")
    world.run(5.0)
    assert world.path("mar1", prefix) == local(world, "mn1")
    assert world.preferred("mn1") == [prefix]


def test_what_was_ordered_elsewhere_stays_there_while_its_interface_shows_itself() -> None:
    world = at_two_routers()
    prefix = world.prefix("mn1", "mar1")
    world.order("mar1", world["mar1"].mar.flows.hand(prefix, "mar2", "", world.now))
    for _ in range(5):
        world.run(5.0)
        world.show("mn1", "packet")
    assert world.delivered_at(prefix) == ["mar2"]


# --- what the profile says -------------------------------------------------------------------------------------


def test_a_new_interface_takes_over_where_the_profile_says_so() -> None:
    world = at_two_routers(takes_over=True)
    prefix = world.prefix("mn1", "mar1")
    assert world.path("mar1", prefix) == TowardVisited.at(world.address["mar2"])
    assert handoffs(world, "mar2") == [HandoffIndicator.HANDOFF_BETWEEN_TWO_DIFFERENT_INTERFACES]


def test_an_interface_that_was_there_before_does_not_take_back() -> None:
    world = at_two_routers(takes_over=True)
    for _ in range(20):
        world.show("mn1", "packet")
        world.run(5.0)
    assert handoffs(world, "mar1") == []
    assert world.delivered_at(world.prefix("mn1", "mar1")) == ["mar2"]


def test_the_addresses_of_a_prefix_that_another_interface_has_are_kept_alive_where_they_are() -> None:
    world = at_two_routers(takes_over=True)
    world.run(7000.0)
    assert world.prefix("mn1", "mar1") in world.deprecated("mn1")
    world.run(7000.0)
    assert world.prefix("mn1", "mar1") in world.deprecated("mn1")


# --- anything ---------------------------------------------------------------------------------------------------


class Walk:
    """Both interfaces go anywhere, messages are lost and late, routers stop and die and are started again."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.world = two_interfaces()
        self.trace = [f"seed {seed}"]

    def step(self) -> None:
        """One thing happens, then a moment passes."""
        acts = (self.move, self.slip, self.leave, self.stop, self.die, self.start, self.lose, self.late, self.store)
        act = self.random.choices(acts, (8, 4, 2, 2, 1, 4, 3, 3, 1))[0]
        self.trace.append(f"{self.world.now:.3f} {act.__name__} {[self.world.host(name).at for name in INTERFACES]}")
        act()
        self.world.run(self.random.choice((0.0, 0.005, 0.1, 0.3, 1.0, 3.0, 12.0)))

    def router(self) -> str:
        return self.random.choice(tuple(self.world.routers))

    def move(self) -> None:
        self.world.move(self.random.choice(INTERFACES), self.router())

    def slip(self) -> None:
        self.world.move(self.random.choice(INTERFACES), self.router(), noticed=False)

    def leave(self) -> None:
        self.world.detach(self.random.choice(INTERFACES), noticed=self.random.random() < 0.5)

    def stop(self) -> None:
        name = self.router()
        if name not in self.world.dead:
            stopped(self.world, name, 0.0)

    def die(self) -> None:
        self.world.kill(self.router())

    def start(self) -> None:
        for name in [] if self.world.store.away else sorted(self.world.dead):
            self.world.restart(name)

    def lose(self) -> None:
        self.world.lose(self.random.randint(1, 5))

    def late(self) -> None:
        self.world.hold_up(self.random.choice((0.02, 0.2, 2.0)), self.random.randint(1, 3))

    def store(self) -> None:
        if self.world.store.away:
            self.world.store_returns()
        else:
            self.world.store_goes()

    def settle(self) -> None:
        """No more trouble, and both interfaces are somewhere."""
        self.world.mend()
        if self.world.store.away:
            self.world.store_returns()
        self.start()
        for name in INTERFACES:
            if self.world.host(name).at is None:
                self.world.attach(name, self.router())
        self.world.run(400.0)

    def faults(self) -> Iterator[str]:
        yield from self.world.faults()
        places = {self.world.host(name).link_layer: self.world.host(name).at for name in INTERFACES}
        for session in self.world.store.of("mn1"):
            where, home = self.world.delivered_at(session.prefix), self.world.name[session.anchor]
            if len(where) != 1 or where[0] not in places.values():
                yield f"{session.prefix} is delivered at {where}, interfaces are at {places}"
            if places.get(session.lent_to) == home and where != [home]:
                yield f"{session.prefix} is delivered at {where}: its interface is at {home}, which lent it"


@pytest.mark.parametrize("seed", range(60))
def test_whatever_happens_each_interface_has_what_it_was_lent_where_it_was_lent(seed: int) -> None:
    walk = Walk(seed)
    for _ in range(25):
        walk.step()
    walk.settle()
    assert list(walk.faults()) == [], "\n".join(walk.trace)


@pytest.mark.parametrize("seed", range(40))
def test_wherever_its_interfaces_go_a_node_gets_each_prefix_at_one_of_them(seed: int) -> None:
    chance = random.Random(seed)
    world = two_interfaces()
    trace = []
    for _ in range(20):
        name, mar = chance.choice(INTERFACES), chance.choice(tuple(world.routers))
        noticed = chance.random() < 0.7
        trace.append(f"{world.now:.3f} {name} to {mar} noticed {noticed}")
        world.move(name, mar, noticed=noticed)
        world.run(chance.choice((0.0, 0.005, 0.1, 0.3, 3.0, 12.0)))
    world.run(100.0)
    places = [world.host(name).at for name in INTERFACES]
    told = "\n".join([f"seed {seed}", *trace, f"at {places}"])
    assert list(world.faults()) == [], told
    for session in world.store.of("mn1"):
        (where,) = world.delivered_at(session.prefix) or ["nowhere"]
        assert where in places, f"{session.prefix} is delivered at {where}\n{told}"
