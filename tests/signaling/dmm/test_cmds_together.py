"""Several CMDs over one store: each router follows one of them, and nodes go from the routers of one to another's.

mar1 --- cmd ---.             cmd speaks to mar1 alone, and alone writes the sessions of what that anchors
mar2 --- cmd2 --+-- store     all read the whole record of a node
mar3 --- cmd3 --'
"""

from dataclasses import replace
from ipaddress import IPv6Network

import pytest

from signaling.actions import LocalLink, SaveSession, TowardAnchor, TowardVisited
from signaling.dma.session import State
from signaling.events import SessionsFound
from signaling.settings import CmdMode
from signaling.wire.binding_update import BindingUpdate
from tests.signaling.dmm.cmd_world import CMD, CmdWorld, journey, previous_in
from tests.world import INTERFACE

P1, P2, P3 = (IPv6Network(f"2001:db8:{number}00::/64") for number in (1, 2, 3))
MODES = pytest.mark.parametrize("mode", CmdMode, ids=lambda mode: mode.value)


def wandered(*mars: str, mode: CmdMode = CmdMode.PROXY, **about: object) -> CmdWorld:
    return journey(*mars, world=CmdWorld(mode, cmds=3, **about))


@MODES
def test_prefixes_follow_their_node_from_the_routers_of_one_to_those_of_another(mode: CmdMode) -> None:
    world = wandered("mar1", "mar2", "mar3", mode=mode)
    assert [world.path(f"mar{number}", prefix) for number, prefix in ((1, P1), (2, P2), (3, P3))] == [
        TowardVisited.at(world.address["mar3"]),
        TowardVisited.at(world.address["mar3"]),
        LocalLink(interface=INTERFACE),
    ]
    assert world.path("mar3", P1) == TowardAnchor.through(world.address["mar1"], INTERFACE)
    assert [*world.faults(), *world.astray()] == []


@MODES
def test_all_know_the_same_of_a_node(mode: CmdMode) -> None:
    world = wandered("mar1", "mar2", "mar3", mode=mode)
    known = [
        (binding.serving, {item.prefix: item.told for item in binding.previous()})
        for binding in (world.binding(cmd=cmd) for cmd in world.cmds)
    ]
    assert known == [(world.address["mar3"], dict.fromkeys((P1, P2), world.address["mar3"]))] * 3


@MODES
def test_a_node_that_returns_is_local_again(mode: CmdMode) -> None:
    world = wandered("mar1", "mar2", "mar1", "mar2", mode=mode)
    assert (world.path("mar2", P2), world.path("mar1", P1)) == (
        LocalLink(interface=INTERFACE),
        TowardVisited.at(world.address["mar2"]),
    )
    assert list(world.faults()) == []


def test_a_cmd_speaks_to_its_own_routers_alone() -> None:
    world = wandered("mar1", "mar2", "mar3", "mar1")
    told = {(it.source, it.destination) for it in world.sent(BindingUpdate) if it.source in world.cmds}
    assert told == {(world.cmd_of(mar), mar) for mar in ("mar1", "mar2", "mar3")}


def test_a_session_is_written_by_the_cmd_of_its_anchor_alone() -> None:
    world = wandered("mar1", "mar2", "mar3", "mar1")
    for cmd in world.cmds:
        written = {world.name[save.session.anchor] for save in world[cmd].did(SaveSession)}
        assert {world.cmd_of(mar) for mar in written} == {cmd}


def test_a_serving_router_hears_of_anchors_its_cmd_had_not_heard_of() -> None:
    world = CmdWorld(cmds=2)
    world.attach("mn1", "mar1")
    world.run(10.0)
    world.store.answers_after = 0.5  # the record of the node comes when its new router is answered already
    world["cmd2"].mar.database.bindings.remove("mn1")
    world.move("mn1", "mar2")
    world.run(5.0)
    answers = [previous_in(ack) for ack in world.acks_to("mar2", source="cmd2")]
    assert (answers[0], answers[-1]) == ([], [(world.address["mar1"], P1)])
    assert list(world.faults()) == []


def test_a_session_goes_on_as_long_as_another_cmd_is_refreshed() -> None:
    world = wandered("mar1", "mar2")
    world.run(20_000.0)
    assert world.path("mar1", P1) == TowardVisited.at(world.address["mar2"])
    assert [*world.faults(), *world.astray()] == []


def test_what_a_router_of_another_cmd_lets_go_ends_at_all_of_them() -> None:
    world = wandered("mar1", "mar2")
    world.detach("mn1")
    world.run(400.0)
    assert (world.store.of("mn1"), world.path("mar2", P1)) == ((), None)
    assert world.state(P1) in (State.GUARD, State.HOLD)
    assert [len(world.role_of(cmd).database.bindings) for cmd in world.cmds] == [0, 0, 0]


def test_a_cmd_that_dies_leaves_the_sessions_of_its_routers_to_time() -> None:
    world = wandered("mar1", "mar2", binding_lifetime=60)
    world.cut("mar2")
    world.dead.add("cmd2")
    world.run(61.0 * 12)
    assert world.store.session(P1) is None
    assert world.path("mar1", P1) != TowardVisited.at(world.address["mar2"])


@MODES
def test_an_idle_prefix_is_released_by_the_cmd_of_its_anchor(mode: CmdMode) -> None:
    world = wandered("mar1", "mar2", mode=mode, idle_after=20.0)
    world.run(30.0)
    assert (world.state(P1), world.path("mar2", P1)) == (State.RELEASED, None)
    assert [list(world.binding(cmd=cmd).anchorages) for cmd in world.cmds] == [[P2]] * 3
    assert list(world.faults()) == []


def test_a_release_that_crosses_the_return_of_the_node_is_none() -> None:
    world = wandered("mar1", "mar2", "mar1")
    local = world.store.session(P1)
    assert local is not None
    world.store.sessions["mn1"][P1] = replace(local, state=State.RELEASED)  # cmd2 was told so before it heard
    world.feed(CMD, SessionsFound(node="mn1", sessions=world.store.of("mn1")))
    world.run(10.0)
    assert (world.store.session(P1), world.path("mar1", P1)) == (local, LocalLink(interface=INTERFACE))


def test_a_cmd_that_was_away_tells_its_anchors_what_happened_meanwhile() -> None:
    world = wandered("mar1", "mar2")
    world.cut(CMD)
    world.move("mn1", "mar3")
    world.run(10.0)
    assert world.path("mar1", P1) == TowardVisited.at(world.address["mar2"])
    world.heal()
    world.run(40.0)
    assert world.path("mar1", P1) == TowardVisited.at(world.address["mar3"])
    assert list(world.faults()) == []


def test_a_cmd_that_was_restarted_learns_from_the_record_where_nodes_of_its_anchors_are() -> None:
    world = wandered("mar1", "mar2")
    world.restart(CMD)
    world.run(1.0)
    assert world.binding().serving == world.address["mar2"]
    world.move("mn1", "mar3")
    world.run(10.0)
    assert list(world.faults()) == []


def test_a_refresh_that_crosses_a_move_does_not_take_the_node_back() -> None:
    world = wandered("mar1")
    world.store.answers_after = 0.1
    world.move("mn1", "mar2", noticed=False)
    world.run(0.05)
    world["mar1"].mar.registrar.deadlines.set("mn1", world.now)  # it is refreshed, as nobody has noticed that it left
    world.run(10.0)
    assert world.binding().serving == world.address["mar2"]
    assert list(world.faults()) == []


def test_the_anchors_of_one_node_are_bounded_across_cmds() -> None:
    world = journey("mar1", "mar2", "mar3", world=CmdWorld(cmds=3, about_cmd={"most_anchors": 1}))
    assert [list(world.binding(cmd=cmd).anchorages) for cmd in world.cmds] == [[P2, P3]] * 3
    assert (world.path("mar3", P1), list(world.faults())) == (None, [])
