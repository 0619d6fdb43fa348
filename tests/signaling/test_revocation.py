"""A binding is taken back by its anchor (RFC 5846): asked of the node if it is here, answered, repeated."""

from dataclasses import replace
from typing import Any

import pytest

from signaling.actions import Action, Note, Send
from signaling.events import LinkAttached
from signaling.iana import (
    MobileNodeIdentifierSubtype,
    RevocationFlag,
    RevocationStatus,
    RevocationTrigger,
)
from signaling.update_list import Progress
from signaling.wire.binding_update import BindingUpdate
from signaling.wire.neighbor import NeighborSolicitation
from signaling.wire.options.identity import MobileNodeIdentifier
from signaling.wire.options.prefix import HomeNetworkPrefix
from signaling.wire.options.time import Timestamp
from signaling.wire.revocation import BindingRevocationAck, BindingRevocationIndication
from tests.world import INTERFACE, World


class Scene:
    """mn1 came from mar1 to mar2, which has registered its prefix; mar1 revokes."""

    def __init__(self, **settings: Any) -> None:
        self.world = World(mars=3, **settings)
        self.world.attach("mn1", "mar1")
        self.world.run_until(10.0)
        self.world.move("mn1", "mar2")
        self.world.run_until(20.0)
        self.prefix = self.world.prefix("mn1", "mar1")

    def indication(self, **changes: Any) -> BindingRevocationIndication:
        identifier = MobileNodeIdentifier(subtype=MobileNodeIdentifierSubtype.NAI, identifier=b"mn1")
        indication = BindingRevocationIndication(
            trigger=RevocationTrigger.INTER_MAG_HANDOVER_SAME_ACCESS_TYPE,
            sequence_number=9,
            flags=RevocationFlag.PROXY_BINDING,
            options=(
                identifier,
                HomeNetworkPrefix(prefix=self.prefix),
                Timestamp(value=self.world.stamp()),
            ),
        )
        return replace(indication, **changes)

    def revoke(self, source: str = "mar1", **changes: Any) -> list[Action]:
        return self.world.say(self.indication(**changes), source, "mar2")

    def answers(self) -> list[BindingRevocationAck]:
        return self.world["mar2"].sent(BindingRevocationAck)

    def registered(self) -> list[Progress]:
        return [item.progress for item in self.world["mar2"].mar.registrar.of("mn1")]


@pytest.fixture
def scene() -> Scene:
    return Scene()


# --- the node is still here ------------------------------------------------------------------------------------


def test_a_node_that_is_said_to_be_elsewhere_is_asked_at_once(scene: Scene) -> None:
    scene.revoke()
    asked = [at for at, message in scene.world.hosts["mn1"].asked if isinstance(message, NeighborSolicitation)]
    assert asked == [20.0]


def test_nothing_is_answered_before_the_node_had_its_say(scene: Scene) -> None:
    scene.world.hosts["mn1"].silent = True
    scene.revoke()
    scene.world.run(0.25)
    assert scene.answers() == []


def test_where_the_node_still_is_the_revocation_fails(scene: Scene) -> None:
    scene.revoke()
    scene.world.run(0.1)
    assert [ack.status for ack in scene.answers()] == [RevocationStatus.REVOCATION_FAILED_MN_IS_ATTACHED]


def test_a_failed_revocation_says_for_whom(scene: Scene) -> None:
    scene.revoke()
    scene.world.run(0.1)
    (ack,) = scene.answers()
    assert ack.sequence_number == 9
    assert [option.prefix for option in ack.options_of(HomeNetworkPrefix)] == [scene.prefix]


def test_where_the_node_still_is_it_is_registered_again_with_a_newer_timestamp(scene: Scene) -> None:
    scene.revoke()
    scene.world.run(0.1)
    stamps = [
        option.value for it in scene.world["mar2"].sent(BindingUpdate) if (option := it.option(Timestamp)) is not None
    ]
    assert len(stamps) == 2
    assert stamps[0] < stamps[1]


def test_a_contested_registration_stays(scene: Scene) -> None:
    scene.revoke()
    scene.world.run(5.0)
    assert (scene.registered(), list(scene.world.faults())) == ([Progress.VISITED], [])


def test_the_insistence_wins_against_an_anchor_that_was_mistaken(scene: Scene) -> None:
    # somebody at mar1 looked like mn1 for a moment
    host = scene.world.hosts["mn1"]
    seen = LinkAttached(
        node="mn1", interface=INTERFACE, link_layer=host.link_layer, link_local=host.link_local, trigger="packet"
    )
    scene.world.feed("mar1", seen)
    scene.world.run(2.0)
    assert scene.world.delivered_at(scene.prefix) == ["mar2"]


# --- the node is gone ------------------------------------------------------------------------------------------


def test_where_the_node_slipped_away_the_revocation_succeeds(scene: Scene) -> None:
    scene.world.hosts["mn1"].at = None
    scene.revoke()
    scene.world.run(0.5)
    assert [ack.status for ack in scene.answers()] == [RevocationStatus.SUCCESS]


def test_a_revoked_prefix_is_not_delivered_any_more(scene: Scene) -> None:
    scene.world.hosts["mn1"].at = None
    scene.revoke()
    scene.world.run(0.5)
    assert (scene.registered(), scene.world.path("mar2", scene.prefix)) == ([], None)


def test_the_binding_is_gone_before_the_answer_leaves(scene: Scene) -> None:
    scene.world.hosts["mn1"].at = None
    scene.revoke()
    scene.world.run(0.5)
    (turn,) = [
        it
        for it in scene.world["mar2"].turns
        if any(isinstance(a, Send) and isinstance(a.message, BindingRevocationAck) for a in it)
    ]
    names = [type(action).__name__ for action in turn]
    assert names.index("Unbind") < names.index("Send")


def test_a_revoked_registration_is_not_taken_back_once_more(scene: Scene) -> None:
    scene.world.detach("mn1")
    scene.revoke()
    scene.world.run(5.0)
    assert [update.lifetime for update in scene.world["mar2"].sent(BindingUpdate)] == [300]


def test_a_node_that_left_with_notice_is_not_asked_for(scene: Scene) -> None:
    scene.world.detach("mn1")
    scene.revoke()
    assert [ack.status for ack in scene.answers()] == [RevocationStatus.SUCCESS]


# --- other triggers --------------------------------------------------------------------------------------------


def test_an_administrator_is_obeyed_although_the_node_is_here(scene: Scene) -> None:
    scene.revoke(trigger=RevocationTrigger.ADMINISTRATIVE_REASON)
    assert ([ack.status for ack in scene.answers()], scene.registered()) == ([RevocationStatus.SUCCESS], [])


def test_what_an_administrator_takes_is_withdrawn_from_the_node(scene: Scene) -> None:
    scene.revoke(trigger=RevocationTrigger.ADMINISTRATIVE_REASON)
    assert scene.prefix not in scene.world.hosts["mn1"].on_link


def test_a_revocation_without_a_prefix_takes_all_that_the_anchor_has(scene: Scene) -> None:
    indication = scene.indication(trigger=RevocationTrigger.ADMINISTRATIVE_REASON)
    options = tuple(option for option in indication.options if not isinstance(option, HomeNetworkPrefix))
    scene.world.say(replace(indication, options=options), "mar1", "mar2")
    assert scene.registered() == []


def refusals() -> list[tuple[dict[str, Any], RevocationStatus]]:
    return [
        ({"trigger": 100}, RevocationStatus.REVOCATION_TRIGGER_NOT_SUPPORTED),
        (
            {"flags": RevocationFlag.PROXY_BINDING | RevocationFlag.GLOBAL},
            RevocationStatus.REVOCATION_FUNCTION_NOT_SUPPORTED,
        ),
        (
            {"flags": RevocationFlag.PROXY_BINDING | RevocationFlag.IPV4_HOME_ADDRESS_BINDING_ONLY},
            RevocationStatus.BINDING_DOES_NOT_EXIST,
        ),
    ]


@pytest.mark.parametrize(("changes", "status"), refusals(), ids=["trigger", "global", "ipv4"])
def test_what_cannot_be_followed_is_refused(
    changes: dict[str, Any], status: RevocationStatus, scene: Scene
) -> None:
    scene.revoke(**changes)
    assert ([ack.status for ack in scene.answers()], scene.registered()) == ([status], [Progress.VISITED])


def test_a_binding_that_is_not_here_is_not_revoked(scene: Scene) -> None:
    scene.revoke(source="mar3")  # not the anchor of that prefix
    assert [ack.status for ack in scene.answers()] == [RevocationStatus.BINDING_DOES_NOT_EXIST]
    assert scene.registered() == [Progress.VISITED]


# --- trust -----------------------------------------------------------------------------------------------------


def test_a_replayed_indication_is_not_answered(scene: Scene) -> None:
    scene.world.detach("mn1")
    indication = scene.indication()
    scene.world.say(indication, "mar1", "mar2")
    scene.world.say(indication, "mar1", "mar2")
    assert len(scene.answers()) == 1


def test_an_indication_of_long_ago_is_not_answered(scene: Scene) -> None:
    indication = scene.indication()
    scene.world.run(1.0)
    scene.world.say(indication, "mar1", "mar2")
    assert scene.answers() == []


def test_a_signed_indication_without_a_timestamp_is_not_answered(scene: Scene) -> None:
    indication = scene.indication()
    scene.world.say(replace(indication, options=indication.options[:2]), "mar1", "mar2")
    assert scene.answers() == []


@pytest.mark.parametrize("key", [b"", bytes(16)], ids=["unsigned", "forged"])
def test_an_indication_that_is_not_genuine_is_met_with_silence(key: bytes, scene: Scene) -> None:
    turn = scene.world.say(scene.indication(), "mar1", "mar2", key=key)
    assert [type(action) for action in turn] == [Note]
    assert scene.registered() == [Progress.VISITED]


# --- the sending side ------------------------------------------------------------------------------------------


def returned(lost: int) -> World:
    """mn1 is back at mar1, which tells mar2; the first indications are lost."""
    scene = Scene()
    scene.world.lose(lost, BindingRevocationIndication)
    scene.world.move("mn1", "mar1", noticed=False)
    scene.world.run(20.0)
    return scene.world


def test_an_unanswered_indication_is_repeated_once_after_a_second() -> None:
    world = returned(lost=10)
    times = [round(at - 20.0, 6) for at in world["mar1"].sent_at(BindingRevocationIndication)]
    assert times == [0.0, 1.0]


def test_an_answered_indication_is_not_repeated() -> None:
    assert len(returned(lost=0)["mar1"].sent(BindingRevocationIndication)) == 1


def test_the_repeated_indication_is_not_taken_for_a_replay() -> None:
    world = returned(lost=1)
    assert [ack.status for ack in world["mar2"].sent(BindingRevocationAck)] == [RevocationStatus.SUCCESS]


def test_two_indications_of_one_instant_are_not_taken_for_replays() -> None:
    world = World(mars=2)
    for name in ("mn1", "mn2"):
        world.attach(name, "mar1")
    world.run_until(10.0)
    for name in ("mn1", "mn2"):
        world.move(name, "mar2")
    world.run_until(20.0)
    for name in ("mn1", "mn2"):
        world.move(name, "mar1")
    world.run_until(20.1)
    assert len(world["mar2"].sent(BindingRevocationAck)) == 2


def test_an_acknowledgement_of_nothing_is_dropped(scene: Scene) -> None:
    ack = BindingRevocationAck(
        status=RevocationStatus.SUCCESS, sequence_number=4711, flags=RevocationFlag.PROXY_BINDING
    )
    assert scene.world.say(ack, "mar2", "mar1") == []


def test_an_acknowledgement_of_a_router_that_was_not_asked_is_dropped(scene: Scene) -> None:
    scene.world.lose(10, BindingRevocationIndication)
    scene.world.move("mn1", "mar1", noticed=False)
    number = scene.world["mar1"].sent(BindingRevocationIndication)[0].sequence_number
    ack = BindingRevocationAck(
        status=RevocationStatus.SUCCESS, sequence_number=number, flags=RevocationFlag.PROXY_BINDING
    )
    scene.world.say(ack, "mar3", "mar1")
    scene.world.run(1.1)
    assert len(scene.world["mar1"].sent(BindingRevocationIndication)) == 2
