"""A binding is taken back by its anchor (RFC 5846): asked of the node if it is here, answered, repeated."""

from collections import Counter
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, IPv6Network
from typing import Any

import pytest

from signaling.actions import Action, Note, Send
from signaling.dma.update_list import Progress
from signaling.door import Door
from signaling.events import LinkAttached
from signaling.iana import (
    MobileNodeIdentifierSubtype,
    RevocationFlag,
    RevocationStatus,
    RevocationTrigger,
)
from signaling.revoker import Outcome, Recipient, Revoker
from signaling.settings import Clock, LmaSettings, Peer
from signaling.update_request import node_of, prefixes_of
from signaling.wire.binding_update import BindingUpdate
from signaling.wire.neighbor import NeighborSolicitation
from signaling.wire.options.identity import MobileNodeIdentifier
from signaling.wire.options.ipv4 import Ipv4HomeAddressRequest
from signaling.wire.options.prefix import HomeNetworkPrefix
from signaling.wire.options.time import Timestamp
from signaling.wire.revocation import BindingRevocationAck, BindingRevocationIndication
from tests.world import INTERFACE, WALL, World


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
    scene.world.hosts["mn1"].at = None
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


# --- the sending side of an anchor ------------------------------------------------------------------------------

GATEWAY = IPv6Address("2001:db8:b::1")
PREFIXES = (IPv6Network("2001:db8:1:1::/64"), IPv6Network("2001:db8:1:2::/64"))
UNKNOWN = RevocationTrigger.INTER_MAG_HANDOVER_UNKNOWN


class Anchor:
    """An LMA with bindings at one MAG; it revokes, the test answers."""

    def __init__(self, *, key: bytes = bytes(16)) -> None:
        self.now = 100.0
        self.counters: Counter[str] = Counter()
        peers = (Peer(name="mag", address=GATEWAY, key=key),)
        settings = LmaSettings(address=IPv6Address("2001:db8:a::1"), tunnel_mtu=1400, peers=peers)
        clock = Clock()
        clock.step(WALL)
        self.revoker = Revoker(Door(settings, self.counters), clock, self.counters)
        self.to = Recipient(address=GATEWAY, port=5436)
        self.sent: list[tuple[float, Send]] = []
        self.outcomes: list[tuple[float, Outcome]] = []

    def perform(self, todo: list[Action]) -> BindingRevocationIndication:
        self.sent += [(self.now, action) for action in todo if isinstance(action, Send)]
        return self.indication()

    def indication(self) -> BindingRevocationIndication:
        message = self.sent[-1][1].message
        assert isinstance(message, BindingRevocationIndication)
        return message

    def revoke(self, trigger: RevocationTrigger = UNKNOWN) -> BindingRevocationIndication:
        return self.perform(
            self.revoker.revoke_session("mn1", PREFIXES, trigger, self.to, self.now, on_done=self.done)
        )

    def done(self, outcome: Outcome, now: float) -> list[Action]:
        self.outcomes.append((now, outcome))
        return [Note("done", {})]

    def answer(self, status: int) -> list[Action]:
        ack = BindingRevocationAck(
            status=status, sequence_number=self.indication().sequence_number, flags=RevocationFlag.PROXY_BINDING
        )
        return self.revoker.confirm(ack, GATEWAY, self.now)

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while (due := self.revoker.deadlines.next) is not None and due <= end:
            self.now = due
            todo = self.revoker.wake(due)
            self.sent += [(self.now, action) for action in todo if isinstance(action, Send)]
        self.now = end


def told(indication: BindingRevocationIndication) -> tuple[int, str, tuple[IPv6Network, ...]]:
    return int(indication.flags), node_of(indication), prefixes_of(indication)


@pytest.mark.parametrize("trigger", [trigger for trigger in RevocationTrigger if trigger < 128])
def test_a_session_is_revoked_for_any_reason_with_its_node_and_prefixes(trigger: RevocationTrigger) -> None:
    indication = Anchor().revoke(trigger)
    assert indication.trigger is trigger
    assert told(indication) == (0x8000, "mn1", PREFIXES)


def test_all_bindings_of_a_node_are_revoked_without_a_prefix() -> None:
    anchor = Anchor()
    actions = anchor.revoker.revoke_session("mn1", (), RevocationTrigger.ADMINISTRATIVE_REASON, anchor.to, anchor.now)
    assert told(anchor.perform(actions)) == (0x8000, "mn1", ())


def test_an_ipv4_address_is_revoked_without_the_prefixes() -> None:
    anchor = Anchor()
    address = IPv4Address("192.0.2.9")
    trigger = RevocationTrigger.ADMINISTRATIVE_REASON
    indication = anchor.perform(anchor.revoker.revoke_ipv4("mn1", address, trigger, anchor.to, anchor.now))
    assert told(indication) == (0xC000, "mn1", ())
    option = indication.option(Ipv4HomeAddressRequest)
    assert option is not None
    assert option.address == address


@pytest.mark.parametrize("key", [b"", bytes(16)], ids=["unsigned", "signed"])
def test_all_bindings_of_a_peer_are_revoked_without_any_option_but_those_of_the_signature(key: bytes) -> None:
    anchor = Anchor(key=key)
    indication = anchor.perform(anchor.revoker.revoke_peer(anchor.to, anchor.now))
    assert indication.trigger is RevocationTrigger.PER_PEER_POLICY
    assert told(indication) == (0xA000, "", ())
    assert [type(option) for option in indication.options] == ([Timestamp] if key else [])


def test_a_realm_is_revoked_by_its_name_behind_an_at_sign() -> None:
    anchor = Anchor()
    indication = anchor.perform(anchor.revoker.revoke_realm("example.org", anchor.to, anchor.now))
    assert indication.trigger is RevocationTrigger.REVOKING_MOBILITY_NODE_LOCAL_POLICY
    assert told(indication) == (0xA000, "@example.org", ())


def test_the_indication_goes_to_the_port_that_the_peer_speaks_from() -> None:
    anchor = Anchor()
    anchor.revoke()
    assert (anchor.sent[0][1].destination, anchor.sent[0][1].port) == (GATEWAY, 5436)


def test_an_unanswered_revocation_is_given_up_two_seconds_after_its_repetition() -> None:
    anchor = Anchor()
    anchor.revoke()
    anchor.run(60.0)
    assert [at - 100.0 for at, _ in anchor.sent] == [0.0, 1.0]
    ((at, outcome),) = anchor.outcomes
    assert (at - 100.0, outcome.ack, outcome.gone, outcome.still_attached) == (3.0, None, False, False)


@pytest.mark.parametrize(
    ("status", "gone", "still_attached"),
    [(0, True, False), (1, True, False), (128, True, False), (132, False, True), (133, False, False)],
)
def test_who_revokes_hears_how_it_ended(status: int, gone: bool, still_attached: bool) -> None:
    anchor = Anchor()
    indication = anchor.revoke()
    anchor.answer(status)
    ((_, outcome),) = anchor.outcomes
    assert (outcome.gone, outcome.still_attached) == (gone, still_attached)
    assert outcome.indication.sequence_number == indication.sequence_number


def test_what_follows_from_the_end_of_a_revocation_is_done() -> None:
    anchor = Anchor()
    anchor.revoke()
    assert anchor.answer(0) == [Note("done", {})]


def test_the_end_of_a_revocation_is_told_once() -> None:
    anchor = Anchor()
    anchor.revoke()
    anchor.answer(0)
    anchor.answer(0)
    anchor.run(60.0)
    assert len(anchor.outcomes) == 1


def test_a_peer_that_knows_no_revocation_is_not_asked_again() -> None:
    anchor = Anchor()
    anchor.revoke()
    anchor.revoker.not_understood(GATEWAY, anchor.now)
    anchor.run(60.0)
    assert (len(anchor.sent), len(anchor.outcomes)) == (1, 1)


def test_no_number_is_used_twice_while_it_waits() -> None:
    anchor = Anchor()
    numbers = [anchor.revoke().sequence_number for _ in range(1000)]
    assert len(set(numbers)) == 1000
