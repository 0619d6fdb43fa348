"""A MAR that is replaced by another process between two turns: what it knows goes through JSON, and nobody notices.

Each journey is walked twice, once with routers replaced again and again: octets on the wire and nodes are the same.
"""

import json
import random
from typing import Any

import pytest

from router.plain_data import NotPlain, from_plain, to_plain
from signaling.actions import LocalLink
from signaling.dma.session import State
from signaling.events import ClockStepped
from signaling.roles.mar_state import MarState, state_of, take_up
from signaling.settings import NodeProfile
from signaling.wire.binding_ack import BindingAck
from signaling.wire.revocation import BindingRevocationAck
from tests.signaling.test_mar_flows import POLICIES
from tests.signaling.test_mar_interfaces import INTERFACES, LINK_LAYERS
from tests.world import INTERFACE, WALL, World

SEED = random.randrange(1 << 32)


def replace(world: World, name: str) -> None:
    """Another process takes over this router."""
    router = world[name]
    saved = json.dumps(to_plain(MarState, state_of(router.mar, world.now)))
    router.mar = world.made(router.settings)
    router.mar.handle(ClockStepped(wall_minus_monotonic=WALL + router.skew), world.now)
    take_up(router.mar, from_plain(MarState, json.loads(saved)), world.now)


def replace_all(world: World) -> None:
    for name in world.routers:
        replace(world, name)


def journey(seed: int, *, replaced: bool) -> World:
    """Two nodes wander through three routers for some minutes; messages get lost, twice and late."""
    chance = random.Random(seed)
    world = World(mars=3, seed=seed)
    world.loss, world.duplication, world.jitter = 0.1, 0.1, 0.05
    for _ in range(40):
        what = chance.random()
        host, mar = chance.choice(["mn1", "mn2"]), chance.choice(list(world.routers))
        if what < 0.6:
            world.move(host, mar, noticed=chance.random() < 0.7)
        elif what < 0.8:
            world.detach(host)
        for _ in range(3):
            world.run(chance.choice([0.005, 0.3, 2.0, 20.0]))
            if replaced:
                replace(world, chance.choice(list(world.routers)))
            else:
                chance.choice(list(world.routers))
    return world


def seen(world: World) -> dict[str, Any]:
    """All that anybody outside the routers could notice."""
    return {
        "wire": [(it.at, it.source, it.destination, it.octets) for it in world.wire],
        "nodes": {name: host.advertisements for name, host in world.hosts.items()},
        "probes": {name: host.asked for name, host in world.hosts.items()},
        "paths": {name: router.paths for name, router in world.routers.items()},
        "counters": {name: +router.mar.counters for name, router in world.routers.items()},
        "store": world.store.sessions,
    }


@pytest.mark.parametrize("run", range(8))
def test_nobody_notices_that_routers_are_replaced(run: int) -> None:
    seed = SEED + run
    print("seed", seed)
    as_ever, replaced = (seen(journey(seed, replaced=replaced)) for replaced in (False, True))
    for what, value in as_ever.items():
        assert replaced[what] == value, what


def flows_journey(seed: int, *, replaced: bool) -> World:
    """A node with two interfaces wanders through three routers; prefixes, and flows of them, are moved by order."""
    chance = random.Random(seed)
    told = NodeProfile(node="mn1", link_layers=LINK_LAYERS)
    world = World(mars=3, seed=seed, profiles=(told,), policies=POLICIES, idle_after=30.0)
    world.loss, world.duplication, world.jitter = 0.1, 0.1, 0.05
    for _ in range(40):
        name, mar, peer = chance.choice(INTERFACES), *chance.sample(list(world.routers), 2)
        lent = world[mar].mar.anchor.local("mn1")
        if lent and chance.random() < 0.5:
            policy = chance.choice(["", "calls", "web"])
            world.order(mar, world[mar].mar.flows.hand(lent[0], peer, policy, world.now))
        else:
            world.move(name, mar, noticed=chance.random() < 0.7)
        for _ in range(3):
            world.run(chance.choice([0.005, 0.3, 2.0, 20.0]))
            mar = chance.choice(list(world.routers))
            if replaced:
                replace(world, mar)
    return world


@pytest.mark.parametrize("run", range(8))
def test_nobody_notices_it_where_flows_are_moved(run: int) -> None:
    seed = SEED + run
    print("seed", seed)
    as_ever, replaced = (seen(flows_journey(seed, replaced=replaced)) for replaced in (False, True))
    for what, value in as_ever.items():
        assert replaced[what] == value, what


def moved() -> World:
    """A node came to mar1 and went on to mar2."""
    world = World(mars=2)
    world.attach("mn1", "mar1")
    world.run(10.0)
    world.move("mn1", "mar2")
    world.run(10.0)
    return world


def test_a_takeover_is_no_restart_to_peers() -> None:
    world = moved()
    replace_all(world)
    world.run(200.0)
    assert [world[name].mar.counters["heartbeat.restarted"] for name in world.routers] == [0, 0]


def test_an_update_that_waits_for_its_answer_gets_it() -> None:
    world = World(mars=2)
    world.attach("mn1", "mar1")
    world.run(10.0)
    world.hold_up(0.5, kind=BindingAck)
    world.move("mn1", "mar2")
    world.run(0.1)
    replace_all(world)
    world.run(10.0)
    assert world["mar2"].mar.counters["registrar.accepted"] == 1
    assert world["mar2"].mar.counters["registrar.repeated"] == 0


def test_a_revocation_that_waits_for_its_answer_is_repeated_and_confirmed() -> None:
    world = moved()
    world.lose(kind=BindingRevocationAck)
    world.move("mn1", "mar1", noticed=False)
    world.run(0.1)
    assert len(world["mar1"].mar.anchor.revoker.reminders.errands) == 1
    replace_all(world)
    world.run(10.0)
    assert world["mar1"].mar.counters["revocation.confirmed"] == 1


def test_a_replay_from_before_is_refused_after() -> None:
    world = moved()
    world.move("mn1", "mar1")
    world.run(0.05)
    (revocation,) = [it for it in world.wire if type(it.message).__name__ == "BindingRevocationIndication"]
    replace_all(world)
    world.deliver(revocation.octets, world.address["mar1"], "mar2")
    assert world["mar2"].mar.counters["replayed.BindingRevocationIndication"] == 1


def test_a_drain_goes_on() -> None:
    world = World(mars=2)
    world.attach("mn1", "mar1")
    world.run(10.0)
    world.order("mar1", world["mar1"].mar.begin_drain(60.0, world.now))
    world.run(1.0)
    replace_all(world)
    world.attach("mn2", "mar1")
    assert world.hosts["mn2"].advertisements == []
    world.run(100.0)
    assert world["mar1"].notes("drained")[0].fields["why"] == "its time is over"


def test_a_prefix_that_is_lent_is_not_lent_again() -> None:
    world = World(mars=1)
    world.attach("mn1", "mar1")
    prefix = world.prefix("mn1", "mar1")
    replace_all(world)
    world.attach("mn2", "mar1")
    assert world.prefix("mn2", "mar1") != prefix
    assert world.path("mar1", prefix) == LocalLink(interface=INTERFACE)
    assert world.state(prefix) is State.LOCAL


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda it: it.update(colour="blue"), r"^state: MarState of another version: colour$"),
        (lambda it: it.pop("links"), r"^state: MarState of another version: links$"),
        (lambda it: it["entries"][0].pop("state"), r"^state\.entries\[0\]: Entry of another version: state$"),
        (lambda it: it["entries"][0].update(state="odd"), r"^state\.entries\[0\]\.state: expected State, found 'odd'$"),
        (lambda it: it["entries"][0].update(prefix="x"), r"^state\.entries\[0\]\.prefix: expected IPv6Network, found"),
        (lambda it: it["nodes"][0].update(probes="1"), r"^state\.nodes\[0\]\.probes: expected int, found '1'$"),
        (lambda it: it["nodes"][0].update(heard=True), r"^state\.nodes\[0\]\.heard: expected float, found 'True'$"),
        (lambda it: it["nodes"][0].update(link_layer="zz"), r"^state\.nodes\[0\]\.link_layer: expected bytes"),
        (lambda it: it["here"].update(offers=[["mn1"]]), r"^state\.here\.offers\[0\]: expected 2 items, found 1$"),
        (lambda it: it["here"].update(offers={}), r"^state\.here\.offers: expected list, found '{}'$"),
        (lambda it: it["entries"][0].update(care_of="x"), r"^state\.entries\[0\]\.care_of: expected an address"),
    ],
)
def test_what_another_version_wrote_is_refused_in_a_line(change: Any, problem: str) -> None:
    world = World(mars=1)
    world.attach("mn1", "mar1")
    data = to_plain(MarState, state_of(world["mar1"].mar, world.now))
    change(data)
    with pytest.raises(NotPlain, match=problem):
        from_plain(MarState, data)
