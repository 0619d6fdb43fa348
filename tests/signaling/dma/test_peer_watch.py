"""Routers that share sessions ask each other whether they live; what follows when one does not, or has forgotten."""

from ipaddress import IPv6Network
from typing import Any

import pytest

from signaling.actions import Closed, Held, LocalLink, TowardAnchor, TowardVisited
from signaling.dma.session import State
from signaling.dma.update_list import Progress
from signaling.events import SessionsFound
from signaling.iana import BindingErrorStatus, RevocationStatus, RevocationTrigger
from signaling.settings import PeerLost
from signaling.wire.binding_error import BindingError
from signaling.wire.binding_update import BindingUpdate
from signaling.wire.heartbeat import Heartbeat
from signaling.wire.revocation import BindingRevocationAck, BindingRevocationIndication
from tests.world import INTERFACE, World

INTERVAL = 60.0  # s
VERDICT = 5 * INTERVAL  # s after which a silent peer counts as unreachable, and a moment
LIFETIME = 3000  # s of a registration: longer than that


class Scene:
    """mn1 has moved from mar1 to mar2 at t = 10."""

    def __init__(self, **settings: Any) -> None:
        self.world = World(mars=3, **({"binding_lifetime": LIFETIME} | settings))
        self.world.attach("mn1", "mar1")
        self.world.run_until(10.0)
        self.old = self.world.prefix("mn1", "mar1")
        self.world.move("mn1", "mar2")
        self.world.run_until(20.0)
        self.new = self.world.prefix("mn1", "mar2")

    def asked(self, name: str) -> list[Heartbeat]:
        return [beat for beat in self.world[name].sent(Heartbeat) if not beat.response]

    def progress(self, name: str = "mar2") -> list[Progress]:
        return [item.progress for item in self.world[name].mar.registrar.all() if item.prefix == self.old]

    def tunnel(self, prefix: IPv6Network, anchor: str, visited: str) -> bool:
        """Whether it stands at both ends."""
        address = self.world.address
        return (self.world.path(anchor, prefix), self.world.path(visited, prefix)) == (
            TowardVisited.at(address[visited]),
            TowardAnchor.through(address[anchor], INTERFACE),
        )


# --- who is asked ----------------------------------------------------------------------------------------------


def test_routers_that_share_a_session_ask_each_other_and_no_others() -> None:
    scene = Scene()
    assert [len(scene.asked(name)) for name in ("mar1", "mar2", "mar3")] == [1, 1, 0]
    assert {it.destination for it in scene.world.sent(Heartbeat)} == {"mar1", "mar2"}


def test_a_handover_waits_for_no_heartbeat() -> None:
    scene = Scene()
    first = min(it.at for it in scene.world.sent(Heartbeat))
    assert first >= 11.0


def test_nobody_is_asked_any_more_when_the_last_session_is_over() -> None:
    scene = Scene()
    scene.world.move("mn1", "mar1")
    scene.world.run(1.0)
    assert scene.world["mar1"].mar.peers.next_wake is not None  # P2 of mar2 visits mar1 now: that is a session too
    scene.world.detach("mn1")
    scene.world.run(5000.0)
    before = len(scene.world.sent(Heartbeat))
    scene.world.run(1000.0)
    assert len(scene.world.sent(Heartbeat)) == before
    assert [router.mar.peers.next_wake for router in scene.world.routers.values()] == [None] * 3


def test_a_peer_that_knows_no_heartbeats_is_not_asked_again() -> None:
    scene = Scene()
    error = BindingError(status=BindingErrorStatus.UNRECOGNIZED_MH_TYPE, home_address=scene.world.address["mar1"])
    scene.world.say(error, "mar2", "mar1")
    before = len(scene.asked("mar1"))
    scene.world.run(VERDICT)
    assert (len(scene.asked("mar1")), scene.world.state(scene.old)) == (before, State.REMOTE)


def test_a_peer_that_knows_no_revocation_is_sent_no_other_one() -> None:
    scene = Scene()
    scene.world.lose(10, BindingRevocationIndication)
    scene.world.move("mn1", "mar1", noticed=False)
    error = BindingError(status=BindingErrorStatus.UNRECOGNIZED_MH_TYPE, home_address=scene.world.address["mar1"])
    scene.world.say(error, "mar2", "mar1")
    before = len(scene.world["mar1"].sent(BindingRevocationIndication))
    scene.world.run(5.0)
    scene.world.move("mn1", "mar2")
    scene.world.run(1.0)
    scene.world.move("mn1", "mar1", noticed=False)
    assert len(scene.world["mar1"].sent(BindingRevocationIndication)) == before


# --- the visited router is dead --------------------------------------------------------------------------------


@pytest.mark.parametrize(("policy", "path"), [(PeerLost.HOLD, Held()), (PeerLost.DROP, Closed())])
def test_what_comes_for_a_node_whose_router_is_dead_is_held_or_dropped(policy: PeerLost, path: object) -> None:
    scene = Scene(peer_lost=policy)
    scene.world.kill("mar2")
    scene.world.run(VERDICT)
    assert (scene.world.state(scene.old), scene.world.path("mar1", scene.old)) == (State.LOST, path)


def test_a_node_whose_router_is_dead_is_served_where_it_turns_up() -> None:
    scene = Scene()
    scene.world.kill("mar2")
    scene.world.run(VERDICT)
    scene.world.move("mn1", "mar3")
    scene.world.run(1.0)
    assert scene.tunnel(scene.old, "mar1", "mar3")


def test_a_node_whose_router_is_dead_is_served_at_home_when_it_turns_up_there() -> None:
    scene = Scene()
    scene.world.kill("mar2")
    scene.world.run(VERDICT)
    scene.world.move("mn1", "mar1")
    scene.world.run(1.0)
    assert scene.world.path("mar1", scene.old) == LocalLink(interface=INTERFACE)


def test_a_router_that_could_not_be_reached_for_a_while_gets_its_packets_again() -> None:
    scene = Scene()
    scene.world.lose(10_000)
    scene.world.run(VERDICT)
    assert scene.world.path("mar1", scene.old) == Held()
    scene.world.mend()
    scene.world.run(2 * INTERVAL)
    assert scene.tunnel(scene.old, "mar1", "mar2")
    assert scene.progress() == [Progress.VISITED]


def test_a_registration_at_a_dead_router_ends_in_its_time() -> None:
    scene = Scene(valid_lifetime=7200)
    scene.world.kill("mar2")
    scene.world.hosts["mn1"].at = None
    scene.world.run(LIFETIME + 1.0)
    assert scene.world.state(scene.old) is State.HOLD
    scene.world.run(7200.0)
    assert scene.world.state(scene.old) is State.FREE
    assert scene.world["mar1"].mar.next_wake is None


def test_that_a_router_does_not_answer_is_not_written_to_the_store() -> None:
    scene = Scene()
    scene.world.kill("mar2")
    scene.world.run(VERDICT)
    session = scene.world.store.session(scene.old)
    assert session is not None
    assert session.state is State.REMOTE


# --- the anchor is dead ----------------------------------------------------------------------------------------


def test_the_prefix_of_a_dead_anchor_has_no_tunnel_and_is_withdrawn_from_the_node() -> None:
    scene = Scene()
    scene.world.kill("mar1")
    scene.world.run(VERDICT)
    assert (scene.progress(), scene.world.path("mar2", scene.old)) == ([Progress.LOST], None)
    assert scene.old not in scene.world.hosts["mn1"].on_link
    assert scene.world.preferred("mn1") == [scene.new]


def test_nothing_more_is_asked_of_a_dead_anchor_but_whether_it_lives() -> None:
    scene = Scene()
    scene.world.kill("mar1")
    scene.world.run(VERDICT)
    before = len(scene.world["mar2"].sent(BindingUpdate))
    scene.world.run(1000.0)
    assert len(scene.world["mar2"].sent(BindingUpdate)) == before


def test_a_node_that_shows_itself_again_does_not_wake_a_dead_anchor() -> None:
    scene = Scene()
    scene.world.kill("mar1")
    scene.world.run(VERDICT)
    scene.world.show("mn1")
    scene.world.feed("mar2", SessionsFound(node="mn1", sessions=scene.world.store.of("mn1")))
    scene.world.run(10.0)
    assert (scene.progress(), scene.world.path("mar2", scene.old)) == ([Progress.LOST], None)


def test_of_a_node_that_left_nothing_is_kept_for_a_dead_anchor() -> None:
    scene = Scene()
    scene.world.kill("mar1")
    scene.world.run(VERDICT)
    scene.world.detach("mn1")
    assert scene.progress() == []
    scene.world.run(10_000.0)
    assert scene.world["mar2"].mar.next_wake is None


def test_a_dead_anchor_is_forgotten_when_its_prefixes_have_ended() -> None:
    scene = Scene(valid_lifetime=600, preferred_lifetime=300)
    scene.world.kill("mar1")
    scene.world.run(VERDICT + 601.0)
    assert scene.progress() == []
    assert scene.world["mar2"].mar.peers.next_wake is None


def test_an_anchor_that_could_not_be_reached_for_a_while_is_asked_again() -> None:
    scene = Scene(peer_lost=PeerLost.DROP)
    scene.world.lose(10_000)
    scene.world.run(VERDICT)
    assert scene.progress() == [Progress.LOST]
    scene.world.mend()
    scene.world.run(2 * INTERVAL)
    assert scene.tunnel(scene.old, "mar1", "mar2")
    assert set(scene.world.deprecated("mn1")) == {scene.old}


# --- restarts --------------------------------------------------------------------------------------------------


def test_an_anchor_that_was_restarted_is_registered_with_again_as_soon_as_the_node_has_shown_itself() -> None:
    scene = Scene()
    before = len(scene.world["mar2"].sent(BindingUpdate))
    scene.world.restart("mar1")
    scene.world.run(1.1)
    assert len(scene.world["mar2"].sent(BindingUpdate)) == before + 1
    assert scene.tunnel(scene.old, "mar1", "mar2")


def test_a_restart_that_was_not_announced_is_noticed_by_the_next_heartbeat() -> None:
    scene = Scene()
    before = len(scene.world["mar2"].sent(BindingUpdate))
    scene.world.lose(10, Heartbeat, source="mar1")
    scene.world.restart("mar1")
    scene.world.mend()
    scene.world.run(INTERVAL + 1.0)
    assert len(scene.world["mar2"].sent(BindingUpdate)) > before


def test_an_anchor_that_lost_everything_is_told_of_what_it_had() -> None:
    scene = Scene()
    scene.world.store.sessions.clear()
    scene.world.restart("mar1")
    scene.world.run(1.1)
    assert (scene.progress(), scene.world.path("mar2", scene.old)) == ([Progress.REFUSED], None)
    assert scene.old not in scene.world.hosts["mn1"].on_link


def test_what_a_visited_router_forgot_waits_at_the_anchor() -> None:
    scene = Scene()
    scene.world.hosts["mn1"].at = None
    scene.world.restart("mar2")
    scene.world.run(1.0)
    (told,) = scene.world["mar1"].sent(BindingRevocationIndication)
    assert told.trigger == RevocationTrigger.POSSIBLE_OUT_OF_SYNC_BCE_STATE
    assert (scene.world.state(scene.old), scene.world.path("mar1", scene.old)) == (State.GUARD, Held())


def test_a_node_that_is_still_there_is_registered_by_its_router_that_was_restarted() -> None:
    scene = Scene()
    scene.world.restart("mar2")
    scene.world.run(15.0)
    assert scene.tunnel(scene.old, "mar1", "mar2")


def test_a_router_that_has_registered_again_before_it_is_asked_keeps_that() -> None:
    scene = Scene()
    scene.world.hold_up(0.5, 10, Heartbeat, source="mar2")
    scene.world.restart("mar2")
    scene.world.run(0.3)
    assert scene.tunnel(scene.old, "mar1", "mar2")
    scene.world.run(5.0)
    assert [ack.status for ack in scene.world["mar2"].sent(BindingRevocationAck)] == [
        RevocationStatus.REVOCATION_FAILED_MN_IS_ATTACHED
    ]
    assert scene.tunnel(scene.old, "mar1", "mar2")


def test_both_routers_restarted_at_once_find_together_again() -> None:
    scene = Scene()
    for name in ("mar1", "mar2"):
        scene.world.restart(name)
    scene.world.run(15.0)
    assert scene.tunnel(scene.old, "mar1", "mar2")
    assert [*scene.world.faults(), *scene.world.astray()] == []
