"""Whatever happens to a gateway, in any order: once the world has settled, everybody has what is theirs."""

import random

import pytest

from signaling.actions import TowardAnchor
from signaling.events import LinkUp
from signaling.flow_rules import FlowRule
from signaling.iana import Status
from signaling.pmip.binding_update_list import Stage
from signaling.update_request import identifier_of
from tests.signaling.pmip.pmip_world import ADDRESSES, INTERFACE, LTE, ROUTER_LINK_LAYER, WLAN, World

HOSTS = ("mn1", "mn2", "mn3")
PASSING = (
    Status.TIMESTAMP_LOWER_THAN_PREV_ACCEPTED,
    Status.INSUFFICIENT_RESOURCES,
    Status.NOT_AUTHORIZED_FOR_HOME_NETWORK_PREFIX,
    Status.GRE_KEY_OPTION_REQUIRED,
)


def disturb(world: World, dice: random.Random, up: set[str]) -> None:
    """One thing happens."""
    host = world.host(dice.choice(HOSTS))
    uplink = dice.choice((WLAN, LTE))
    what = dice.randrange(10)
    if what <= 2 and host.at is None:
        world.attach(host.name, interface=dice.choice((INTERFACE, "lan1")))
    elif what <= 2:
        world.detach(host.name, noticed=dice.random() < 0.7)
    elif what == 3 and uplink.interface in up:
        up.discard(uplink.interface)
        world.uplink_down(uplink)
    elif what <= 5 and uplink.interface not in up:
        up.add(uplink.interface)
        world.uplink_up(uplink)
    elif what == 6:
        world.cut ^= {ADDRESSES[uplink.interface]}
    elif what == 7:
        world.lma.refusals.append(dice.choice(PASSING))
    elif what == 8:
        world.revoke(dice.choice((1, 2, 4)), identifier_of(host.name))
    else:
        rules = (FlowRule(selector=None, labels=(dice.choice((9, 11)),)),)
        world.perform("mag1", world.mag.mag.set_policy("default", dice.choice((rules, ())), world.now))
    if dice.random() < 0.3 and host.at is not None:
        world.show(host.name, dice.choice(("rs", "na")))


def well(world: World, up: set[str]) -> None:
    """At any time: no packet leaves by an uplink that is not there, and the data path is as the list says."""
    bound = {}
    for session in world.mag.mag.gateway.entries:
        bound |= session.bound
        assert all(item.path.binding_id == number for number, item in session.registrations.items())
    assert world.mag.paths == bound
    for path in world.mag.paths.values():
        if isinstance(path, TowardAnchor):
            assert path.tunnels
            assert {tunnel.local for tunnel in path.tunnels} <= {ADDRESSES[name] for name in up}


@pytest.mark.parametrize("seed", range(12))
def test_after_any_walk_everybody_has_what_is_theirs(seed: int) -> None:
    dice = random.Random(seed)
    world = World(uplinks=(WLAN, LTE), probe_every=30.0)
    world.feed(LinkUp(interface="lan1", link_layer=ROUTER_LINK_LAYER, mtu=1500))
    up = {"wlan0", "lte0"}
    for _ in range(60):
        disturb(world, dice, up)
        well(world, up)
        world.run(dice.choice((0.0, 0.005, 0.3, 2.0, 40.0)))
        well(world, up)
    world.cut, world.lma.refusals = set(), []
    for uplink in (WLAN, LTE):
        up.add(uplink.interface)
        world.uplink_up(uplink)
    for _ in range(12):
        for host in world.hosts.values():
            if host.at:
                world.show(host.name, "rs")
        world.run(10.0)
    well(world, up)
    for host in world.hosts.values():
        if host.at is None:
            assert world.mag.mag.gateway.entries.get(host.who) is None
            continue
        assert world.stages(host.name) == {1: Stage.REGISTERED, 2: Stage.REGISTERED}
        assert [prefix for prefix, valid in host.offered().items() if valid] == [world.prefix(host.name)]
