"""What an LMA tells MAGs of its own accord, and what it makes of their restarts and revocations."""

from ipaddress import IPv6Address

import pytest

from signaling.actions import Held, Note, SetPolicy, Unbind
from signaling.flow_rules import FlowRule
from signaling.iana import (
    HeartbeatFlag,
    RevocationFlag,
    RevocationStatus,
    RevocationTrigger,
    UpdateNotificationReason,
)
from signaling.settings import NodeProfile
from signaling.update_request import node_of
from signaling.wire.heartbeat import Heartbeat
from signaling.wire.notification import UpdateNotification
from signaling.wire.options.identity import MobileNodeIdentifier
from signaling.wire.options.prefix import HomeNetworkPrefix
from signaling.wire.options.security import RestartCounter
from signaling.wire.options.time import Timestamp
from signaling.wire.revocation import BindingRevocationAck, BindingRevocationIndication
from tests.signaling.pmip.lma_scene import MAGS, NODE, Scene, done, kinds, paths, sent

GLOBAL = RevocationFlag.PROXY_BINDING | RevocationFlag.GLOBAL


@pytest.fixture
def scene() -> Scene:
    return Scene()


# --- by the operator (RFC 5846 8.1) -------------------------------------------------------------------------------


def test_a_node_is_revoked_with_trigger_1_and_its_packets_are_held(scene: Scene) -> None:
    prefix = scene.attach("mag1")
    turn = scene.lma.revoke(NODE, scene.now)
    (indication,) = sent(turn, BindingRevocationIndication)
    assert (indication.trigger, node_of(indication)) == (RevocationTrigger.ADMINISTRATIVE_REASON, NODE)
    assert indication.option(HomeNetworkPrefix) is None  # all that it has
    assert paths(turn) == {prefix: Held()}
    assert kinds(turn).index("Bind") < kinds(turn).index("Send")


def test_a_revoked_session_is_removed_even_if_nobody_answers(scene: Scene) -> None:
    scene.attach("mag1")
    scene.lma.revoke(NODE, scene.now)
    assert done(scene.wait(12.0), Unbind)
    assert len(scene.cache) == 0


def test_a_mag_is_revoked_with_one_global_message_without_nodes(scene: Scene) -> None:
    scene.attach("mag1")
    scene.attach("mag1", node="mn2")
    scene.attach("mag2", node="mn3")
    (indication,) = sent(scene.lma.revoke("mag1", scene.now), BindingRevocationIndication)
    assert (indication.trigger, indication.flags) == (RevocationTrigger.PER_PEER_POLICY, GLOBAL)
    assert {type(option).__name__ for option in indication.options} <= {"Timestamp", "MobilityMessageAuthentication"}
    assert [session.node for session in scene.cache if not session.leaving] == ["mn3"]


def test_a_realm_is_revoked_exactly(scene: Scene) -> None:
    scene.attach("mag1", node="a@x.net")
    scene.attach("mag2", node="b@y.x.net")
    (indication,) = sent(scene.lma.revoke("@x.net", scene.now), BindingRevocationIndication)
    assert indication.trigger is RevocationTrigger.REVOKING_MOBILITY_NODE_LOCAL_POLICY
    assert [session.node for session in scene.cache if session.leaving] == ["a@x.net"]


def test_everything_is_revoked_at_every_mag(scene: Scene) -> None:
    scene.attach("mag1")
    scene.attach("mag2", node="mn2")
    assert len(sent(scene.lma.revoke(None, scene.now), BindingRevocationIndication)) == 2
    assert all(session.leaving for session in scene.cache)


# --- by a MAG (RFC 5846 8.2) --------------------------------------------------------------------------------------


def indicate(scene: Scene, gateway: str = "mag1", **changes: object) -> RevocationStatus | int | None:
    scene.now += 0.01
    values = {
        "trigger": RevocationTrigger.PER_PEER_POLICY,
        "sequence_number": 5,
        "flags": GLOBAL,
        "options": (MobileNodeIdentifier(identifier=gateway.encode()), Timestamp(value=scene.stamp())),
    } | changes
    turn = scene.tell(BindingRevocationIndication(**values), gateway)  # type: ignore[arg-type]
    answers = sent(turn, BindingRevocationAck)
    return answers[0].status if answers else None


def test_a_mag_may_end_all_its_sessions(scene: Scene) -> None:
    scene.attach("mag1")
    scene.attach("mag2", node="mn2")
    assert indicate(scene) == RevocationStatus.SUCCESS
    assert [session.node for session in scene.cache if session.leaving] == [NODE]


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"trigger": 77}, RevocationStatus.REVOCATION_TRIGGER_NOT_SUPPORTED),
        ({"trigger": RevocationTrigger.ADMINISTRATIVE_REASON}, RevocationStatus.REVOCATION_FUNCTION_NOT_SUPPORTED),
        ({"flags": RevocationFlag.PROXY_BINDING}, RevocationStatus.REVOCATION_FUNCTION_NOT_SUPPORTED),
        (
            {"trigger": RevocationTrigger.REVOKING_MOBILITY_NODE_LOCAL_POLICY},
            RevocationStatus.GLOBAL_REVOCATION_NOT_AUTHORIZED,
        ),
    ],
)
def test_a_mag_may_revoke_nothing_else(scene: Scene, changes: dict[str, object], status: RevocationStatus) -> None:
    scene.attach("mag1")
    assert indicate(scene, **changes) == status
    assert not scene.session.leaving


def test_a_mag_may_not_revoke_in_the_name_of_another(scene: Scene) -> None:
    scene.attach("mag1")
    options = (MobileNodeIdentifier(identifier=b"mag2"), Timestamp(value=scene.stamp()))
    assert indicate(scene, options=options) == RevocationStatus.GLOBAL_REVOCATION_NOT_AUTHORIZED


def test_a_replayed_revocation_is_dropped(scene: Scene) -> None:
    scene.attach("mag1")
    options = (MobileNodeIdentifier(identifier=b"mag1"), Timestamp(value=scene.stamp()))
    assert indicate(scene, options=options) == RevocationStatus.SUCCESS
    assert indicate(scene, options=options) is None


# --- restarts (RFC 5847) ------------------------------------------------------------------------------------------


def beat(scene: Scene, counter: int) -> list[object]:
    scene.now += 0.01
    flags = HeartbeatFlag.RESPONSE | HeartbeatFlag.UNSOLICITED
    options = (RestartCounter(counter=counter), Timestamp(value=scene.stamp()))
    return list(scene.tell(Heartbeat(flags=flags, sequence_number=0, options=options), "mag1"))


def test_sessions_of_a_restarted_mag_end_unless_they_are_registered_again(scene: Scene) -> None:
    kept, lost = scene.attach("mag1"), scene.attach("mag1", node="mn2")
    scene.wait(0.1)
    beat(scene, 1)
    turn = beat(scene, 2)
    assert "gateway-restarted" in [note.event for note in done(turn, Note)]  # type: ignore[arg-type]
    scene.say("mag1", prefixes=(kept,), hi=5)
    assert lost in [action.prefix for action in done(scene.wait(12.0), Unbind)]
    assert [session.prefixes for session in scene.cache] == [(kept,)]


def test_a_mag_that_does_not_answer_is_told_of_and_its_sessions_stay(scene: Scene) -> None:
    scene = Scene(heartbeat_interval=30.0)
    scene.attach("mag1")
    notes = [note.event for note in done(scene.wait(200.0), Note)]
    assert "gateway-unreachable" in notes
    assert len(scene.cache) == 1


def test_a_mag_without_sessions_is_not_asked(scene: Scene) -> None:
    prefix = scene.attach("mag1")
    scene.say("mag1", prefixes=(prefix,), hi=4, lifetime=0)
    scene.wait(12.0)
    assert sent(scene.wait(600.0), Heartbeat) == []


# --- what the operator lays down changes (RFC 7077) ---------------------------------------------------------------


def test_a_changed_policy_is_told_to_the_data_path_and_to_the_mags_it_concerns() -> None:
    first, second = (FlowRule(selector=None, labels=(label,)) for label in (10, 20))
    profiles = (NodeProfile(node=NODE, policy="p"),)
    scene = Scene(profiles=profiles, policies={"p": (first,)})
    scene.attach("mag1")
    scene.attach("mag2", node="mn2")
    turn = scene.lma.set_policy("p", (second,), scene.now)
    assert turn[0] == SetPolicy(name="p", rules=(second,))
    (notification,) = sent(turn, UpdateNotification)
    assert notification.reason is UpdateNotificationReason.FORCE_REREGISTRATION
    assert node_of(notification) == NODE


def test_a_changed_profile_makes_the_mag_register_again(scene: Scene) -> None:
    scene.attach("mag1")
    turn = scene.lma.set_profiles((NodeProfile(node=NODE, ipv4=False),), scene.now)
    assert len(sent(turn, UpdateNotification)) == 1


def test_an_unchanged_profile_tells_nobody(scene: Scene) -> None:
    scene.attach("mag1")
    turn = scene.lma.set_profiles((NodeProfile(node="mn2", ipv4=False),), scene.now)
    assert sent(turn, UpdateNotification) == []


def test_a_node_that_is_refused_now_loses_its_session(scene: Scene) -> None:
    prefix = scene.attach("mag1")
    turn = scene.lma.set_profiles((NodeProfile(node=NODE, refused=True),), scene.now)
    assert paths(turn) == {prefix: Held()}
    assert len(sent(turn, BindingRevocationIndication)) == 1


def test_prefixes_in_use_stay_taken_when_profiles_change(scene: Scene) -> None:
    prefix = scene.attach("mag1")
    scene.lma.set_profiles((), scene.now)
    assert scene.attach("mag1", node="mn2") != prefix


def test_the_rows_of_show_bindings_say_where_each_node_is(scene: Scene) -> None:
    prefix = scene.attach("mag1")
    (row,) = scene.lma.sessions()
    assert (row["node"], row["gateway"], row["prefixes"], row["state"]) == (NODE, "mag1", (prefix,), "bound")
    assert row["care_ofs"][0]["address"] == IPv6Address(MAGS["mag1"])  # type: ignore[index]


def test_stopping_tells_mags_nothing(scene: Scene) -> None:
    scene.attach("mag1")
    assert scene.lma.drain(scene.now) == []
