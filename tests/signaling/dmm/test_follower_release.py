"""Idle release where there is a CMD: the serving router says what its node does without, the CMD tells the anchor."""

from ipaddress import IPv6Network

import pytest

from signaling.actions import Closed, LocalLink, TowardAnchor
from signaling.dma.session import State
from signaling.iana import HandoffIndicator, Status
from signaling.settings import CmdMode
from signaling.wire.binding_update import BindingUpdate
from signaling.wire.options.access import HandoffIndicatorOption
from signaling.wire.options.maar import ServingMaar
from signaling.wire.options.prefix import AnchoredPrefix, HomeNetworkPrefix
from tests.signaling.dmm.cmd_world import CMD, DISTRIBUTED, CmdWorld, journey
from tests.world import INTERFACE

P1, P2, P3 = (IPv6Network(f"2001:db8:{number}00::/64") for number in (1, 2, 3))
IDLE_AFTER = 20.0  # s
MODES = pytest.mark.parametrize("mode", CmdMode, ids=lambda mode: mode.value)


def idle(mode: CmdMode = CmdMode.PROXY, seconds: float = IDLE_AFTER) -> CmdWorld:
    """mn1 has moved from mar1 to mar2, and has not used its old prefix for so long after ten seconds there."""
    world = journey("mar1", "mar2", world=CmdWorld(mode, idle_after=IDLE_AFTER))
    world.run(seconds)
    return world


def ends(world: CmdWorld) -> list[BindingUpdate]:
    """What the CMD told mar1 to let go."""
    return [update for update in world.updates_to("mar1") if not update.lifetime]


@MODES
def test_a_prefix_that_nobody_uses_is_released_at_its_anchor(mode: CmdMode) -> None:
    world = idle(mode)
    assert (world.path("mar1", P1), world.state(P1)) == (Closed(), State.RELEASED)
    assert (world.path("mar2", P1), world.path("mar2", P2)) == (None, LocalLink(interface=INTERFACE))
    assert (list(world.binding().anchorages), list(world.faults())) == ([P2], [])


def test_a_prefix_that_is_used_stays() -> None:
    world = idle(seconds=5.0)
    world.used[P1] = world.now
    world.run(IDLE_AFTER - 1.0)
    assert world.path("mar2", P1) == TowardAnchor.through(world.address["mar1"], INTERFACE)


def test_the_serving_router_names_it_in_a_refresh_as_an_anchored_prefix() -> None:
    world = idle()
    refresh = world.updates_to(CMD, source="mar2")[-1]
    assert [option.prefix for option in refresh.options_of(AnchoredPrefix)] == [P1]
    assert [option.prefix for option in refresh.options_of(HomeNetworkPrefix)] == [P2]
    assert refresh.option(HandoffIndicatorOption).indicator == HandoffIndicator.HANDOFF_STATE_NOT_CHANGED


def test_the_cmd_tells_the_anchor_that_the_node_is_where_it_was() -> None:
    (copy,) = ends(idle())
    assert copy.option(HandoffIndicatorOption).indicator == HandoffIndicator.HANDOFF_STATE_NOT_CHANGED
    assert copy.option(ServingMaar) is not None


def test_the_node_is_told_that_the_prefix_ends() -> None:
    world = idle()
    assert (P1 in world.host("mn1").on_link, world.preferred("mn1")) == (False, [P2])


def test_a_cmd_that_was_away_hears_of_it_when_it_is_back() -> None:
    world = idle(seconds=5.0)
    world.cut(CMD)
    world.run(30.0)
    assert (world.path("mar2", P1), world.state(P1)) == (None, State.REMOTE)
    world.heal()
    world.run(40.0)
    assert (world.state(P1), list(world.binding().anchorages)) == (State.RELEASED, [P2])


def test_while_an_update_waits_for_its_answer_the_release_waits_too() -> None:
    world = idle(seconds=5.0)
    registrar = world["mar2"].mar.registrar
    world.perform("mar2", registrar.insist(registrar.of("mn1"), world.now))
    assert registrar.release(P1, world.now) == []
    world.run(IDLE_AFTER - 1.0)
    assert world.state(P1) is State.REMOTE
    world.run(2.0)
    assert (world.path("mar2", P1), world.state(P1)) == (None, State.RELEASED)


def test_where_its_node_goes_it_follows_no_more() -> None:
    world = idle()
    world.move("mn1", "mar3")
    world.run(10.0)
    assert [item.prefix for item in world["mar3"].mar.registrar.visited("mn1")] == [P2]


def test_a_node_that_comes_back_to_the_anchor_has_it_again() -> None:
    world = idle()
    world.move("mn1", "mar1")
    world.run(10.0)
    assert (world.path("mar1", P1), world.preferred("mn1")) == (LocalLink(interface=INTERFACE), [P1])
    assert list(world.binding().anchorages) == [P2, P1]


def test_a_cmd_that_knows_no_more_of_the_release_is_refused() -> None:
    world = idle()
    copy = world.update("mn1", P1, flags=DISTRIBUTED, more=ServingMaar(address=world.address["mar3"]))
    world.say(copy, CMD, "mar1")
    (answer,) = [ack for ack in world.acks_to(CMD, source="mar1") if not ack.accepted]
    assert (answer.status, world.state(P1)) == (Status.NOT_AUTHORIZED_FOR_HOME_NETWORK_PREFIX, State.RELEASED)


def test_an_anchor_that_is_restarted_does_not_report_what_was_released() -> None:
    world = idle()
    world.restart("mar1")
    before = len(world.updates_to(CMD, source="mar1"))
    world.run(10.0)
    assert (len(world.updates_to(CMD, source="mar1")), world.state(P1)) == (before, State.RELEASED)


def test_a_refresh_of_a_router_that_lost_the_node_releases_nothing() -> None:
    world = journey("mar1", "mar2", "mar3")
    late = world.update(
        "mn1",
        P2,
        flags=DISTRIBUTED,
        handoff=HandoffIndicatorOption(indicator=HandoffIndicator.HANDOFF_STATE_NOT_CHANGED),
        more=AnchoredPrefix(prefix=P1),
    )
    world.say(late, "mar2", CMD)
    world.run(1.0)
    assert (list(world.binding().anchorages), world.state(P1)) == ([P1, P2, P3], State.REMOTE)
