"""What an operator changes while sessions stand: peers, keys, addresses, profiles."""

from dataclasses import replace
from ipaddress import IPv6Address

import pytest

from signaling.actions import Send
from signaling.events import BindingsRestored
from signaling.iana import RevocationTrigger, Status
from signaling.pmip.binding_update_list import Stage
from signaling.settings import NodeProfile
from signaling.wire.heartbeat import Heartbeat
from signaling.wire.options.flow import FlowIdentification
from signaling.wire.options.security import RestartCounter
from signaling.wire.revocation import BindingRevocationIndication
from tests.signaling.pmip.lma_scene import LTE, MAGS, PEERS, Scene, done, kinds, sent
from tests.signaling.pmip.lma_scene import WLAN as VAN
from tests.signaling.pmip.pmip_world import KEY, World
from tests.signaling.pmip.pmip_world import LTE as LTE_UPLINK
from tests.signaling.pmip.pmip_world import WLAN as WLAN_UPLINK
from tests.signaling.pmip.test_mag_flows import voice, ways

OTHER_KEY = bytes(16)
NEW_ANCHOR = IPv6Address("2001:db8:f::2")


@pytest.fixture
def scene() -> Scene:
    return Scene()


# An anchor


def test_a_gateway_with_a_new_key_keeps_its_sessions_and_needs_that_key(scene: Scene) -> None:
    prefix = scene.attach("mag1")
    changed = tuple(replace(peer, key=OTHER_KEY) if peer.name == "mag1" else peer for peer in PEERS)
    assert scene.lma.set_peers(changed, scene.now) == []
    assert scene.session.prefixes == (prefix,)
    assert scene.status("mag1") == Status.MIPV6_AUTH_FAIL  # it signs with the old one


def test_a_gateway_that_is_no_peer_any_more_is_told_before_it_is_forgotten(scene: Scene) -> None:
    scene.attach("mag1")
    turn = scene.lma.set_peers(tuple(peer for peer in PEERS if peer.name != "mag1"), scene.now)
    (indication,) = sent(turn, BindingRevocationIndication)
    assert indication.trigger is RevocationTrigger.PER_PEER_POLICY
    assert scene.lma.door.peer(MAGS["mag1"]) is None
    assert [session.leaving for session in scene.sessions()] == [True]


def test_the_sessions_of_other_gateways_stay(scene: Scene) -> None:
    scene.attach("mag2")
    assert scene.lma.set_peers(tuple(peer for peer in PEERS if peer.name != "mag1"), scene.now) == []
    assert not scene.session.leaving


@pytest.mark.parametrize("counter", [0, 7])
def test_an_anchor_that_begins_tells_all_its_gateways_its_restart_counter(counter: int) -> None:
    scene = Scene(restart_counter=counter)
    turn = scene.lma.handle(BindingsRestored(bindings=()), scene.now)
    beats = [action for action in done(turn, Send) if isinstance(action.message, Heartbeat)]
    assert [beat.destination for beat in beats] == [*MAGS.values(), VAN, LTE]
    assert all(beat.message.option(RestartCounter) == RestartCounter(counter=counter) for beat in beats)


def test_a_session_tells_all_that_is_known_of_it(scene: Scene) -> None:
    scene.attach("mag1")
    (row,) = scene.lma.sessions()
    assert (row["link_layer"], row["ipv4"], row["delegated"], row["policy"]) == ("02:00:00:00:00:01", None, (), None)
    assert row["expires"] == scene.session.expires


# A gateway


def test_a_node_gets_the_policy_of_a_new_profile_at_once() -> None:
    world = World(uplinks=(WLAN_UPLINK, LTE_UPLINK), policies={"default": (voice(9),), "gold": (voice(11),)})
    world.attach("mn1")
    world.run(1.0)
    node = world.session("mn1").node
    world.perform("mag1", world.mag.mag.set_profiles((NodeProfile(node=node, policy="gold"),), world.now))
    world.run(1.0)
    assert world.session("mn1").policy == "gold"
    assert ways(world.lma.updates[-1]) == [(2,)]
    assert [option.flow_id for option in world.lma.updates[-1].update.options_of(FlowIdentification)]


def test_a_gateway_signs_with_the_new_key_of_its_anchor() -> None:
    world = World()
    world.attach("mn1")
    world.run(1.0)
    before = world.mag.mag.door.named("lma")
    assert before is not None
    assert before.key == KEY
    assert world.mag.mag.set_peers((replace(before, key=OTHER_KEY),), world.now) == []
    assert world.stages("mn1") == {0: Stage.REGISTERED}


def test_sessions_go_on_at_the_new_address_of_the_anchor() -> None:
    world = World()
    world.attach("mn1")
    world.run(1.0)
    before = world.mag.mag.door.named("lma")
    assert before is not None
    turn = world.mag.mag.set_peers((replace(before, address=NEW_ANCHOR),), world.now)
    assert [action.destination for action in done(turn, Send)] == [NEW_ANCHOR]
    assert world.registration("mn1").path.anchor == NEW_ANCHOR
    assert "Bind" in kinds(turn)
