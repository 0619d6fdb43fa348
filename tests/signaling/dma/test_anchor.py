"""Answering updates: the checks of RFC 5213 5.3.1 in their order, the echo rules, and the life of a lent prefix."""

from copy import copy
from dataclasses import dataclass, field, replace
from ipaddress import IPv6Address, IPv6Network
from itertools import combinations
from typing import Any

import pytest

from signaling.actions import (
    Action,
    Bind,
    ForgetSession,
    Held,
    LocalLink,
    Note,
    SaveSession,
    Send,
    TowardVisited,
    Unbind,
)
from signaling.dma.session import Session, State
from signaling.events import SessionsRestored
from signaling.iana import (
    BindingAckFlag,
    BindingUpdateFlag,
    MobileNodeIdentifierSubtype,
    Status,
)
from signaling.wire import mobility_header
from signaling.wire.authentication import spi_of
from signaling.wire.binding_ack import BindingAck
from signaling.wire.options.access import AccessTechnologyTypeOption, HandoffIndicatorOption, LinkLocalAddress
from signaling.wire.options.care_of import AlternateCareOfAddress
from signaling.wire.options.identity import MobileNodeIdentifier, MobileNodeLinkLayerIdentifier
from signaling.wire.options.prefix import HomeNetworkPrefix
from signaling.wire.options.time import Timestamp
from signaling.wire.revocation import BindingRevocationIndication
from tests.world import INTERFACE, KEY, STRANGER, WALL, World

FOREIGN = IPv6Network("2001:db8:ffff::/64")


def hnp(*prefixes: IPv6Network) -> tuple[HomeNetworkPrefix, ...]:
    return tuple(HomeNetworkPrefix(prefix=prefix) for prefix in prefixes)


def handoff(indicator: int) -> HandoffIndicatorOption:
    return HandoffIndicatorOption(indicator=indicator)


class Scene:
    """mn1 and mn2 got their prefixes at mar1 ten seconds ago; mar2 and mar3 say where they are now."""

    def __init__(self, **settings: Any) -> None:
        self.world = World(mars=3, **settings)
        self.world.attach("mn1", "mar1")
        self.world.attach("mn2", "mar1")
        self.world.run(10.0)
        self.prefix = self.world.prefix("mn1", "mar1")
        self.other = self.world.prefix("mn2", "mar1")
        self.anchor = self.world["mar1"].mar.anchor

    @property
    def entry(self) -> Any:
        return self.anchor.cache.get(self.prefix)

    def say(self, source: str = "mar2", *, key: bytes | None = None, spi: int = 256, **changes: Any) -> list[Action]:
        keys = {} if key is None else {"key": key}
        update = self.world.update("mn1", self.prefix, **changes)
        return self.world.say(update, source, "mar1", spi=spi, **keys)

    def ack(self, source: str = "mar2", **changes: Any) -> BindingAck:
        return acknowledgement(self.say(source, **changes))

    def status(self, source: str = "mar2", **changes: Any) -> int:
        return self.ack(source, **changes).status


def acknowledgement(turn: list[Action]) -> BindingAck:
    (ack,) = (it.message for it in turn if isinstance(it, Send) and isinstance(it.message, BindingAck))
    return ack


def only_told(turn: list[Action]) -> bool:
    """Nothing was sent and nothing changed; our own log says what came."""
    return [type(action) for action in turn] == [Note] and turn[0].event == "message-refused"


def sent(turn: list[Action]) -> list[Action]:
    return [action for action in turn if isinstance(action, Send)]


@pytest.fixture
def scene() -> Scene:
    return Scene()


# --- the checks, one by one and in their order ---------------------------------------------------------------


@dataclass(frozen=True)
class Defect:
    name: str
    status: Status
    changes: dict[str, Any] = field(default_factory=dict)

    def of(self, scene: Scene) -> dict[str, Any]:
        """Some changes depend on the scene."""
        return {key: value(scene) if callable(value) else value for key, value in self.changes.items()}


DEFECTS = (  # in the order of RFC 5213 5.3.1, its rows 4 to 13
    Defect("no-identifier", Status.MISSING_MN_IDENTIFIER_OPTION, {"identifier": None}),
    Defect(
        "care-of-address-of-no-router",
        Status.MAG_NOT_AUTHORIZED_FOR_PROXY_REG,
        {"alternate": AlternateCareOfAddress(address=STRANGER)},
    ),
    Defect(
        "unknown-node",
        Status.NOT_LMA_FOR_THIS_MOBILE_NODE,
        {"identifier": MobileNodeIdentifier(subtype=MobileNodeIdentifierSubtype.NAI, identifier=b"nobody")},
    ),
    Defect(
        "an-option-twice",
        Status.REASON_UNSPECIFIED,
        {"twice": (LinkLocalAddress(address=IPv6Address("fe80::1")),) * 2},
    ),
    Defect(
        "older-than-the-attachment",
        Status.TIMESTAMP_LOWER_THAN_PREV_ACCEPTED,
        {"timestamp": lambda scene: Timestamp(value=scene.world.stamp(ago=11.0))},
    ),
    Defect(
        "wrong-clock",
        Status.TIMESTAMP_MISMATCH,
        {"timestamp": lambda scene: Timestamp(value=scene.world.stamp(ago=5.0))},
    ),
    Defect("no-prefix", Status.MISSING_HOME_NETWORK_PREFIX_OPTION, {"prefix": None}),
    Defect("no-handoff-indicator", Status.MISSING_HANDOFF_INDICATOR_OPTION, {"handoff": None}),
    Defect("no-access-technology", Status.MISSING_ACCESS_TECH_TYPE_OPTION, {"technology": None}),
    Defect(
        "prefix-of-another-node",
        Status.NOT_AUTHORIZED_FOR_HOME_NETWORK_PREFIX,
        {"prefix": lambda scene: hnp(scene.other)},
    ),
    Defect(
        "more-prefixes-than-the-session-has",
        Status.BCE_PBU_PREFIX_SET_DO_NOT_MATCH,
        {"prefix": lambda scene: hnp(scene.prefix, FOREIGN)},
    ),
)
PAIRS = [
    (first, second)
    for first, second in combinations(DEFECTS, 2)
    if not first.changes.keys() & second.changes.keys()
    # where the prefix of the node is not named there is no last timestamp to be older than
    and (first.name, second.name)
    not in (
        ("older-than-the-attachment", "no-prefix"),
        ("older-than-the-attachment", "prefix-of-another-node"),
    )
]


@pytest.mark.parametrize("defect", DEFECTS, ids=lambda it: it.name)
def test_a_defect_is_answered_with_its_status(defect: Defect, scene: Scene) -> None:
    assert scene.status(**defect.of(scene)) == defect.status


@pytest.mark.parametrize("defect", DEFECTS, ids=lambda it: it.name)
def test_a_defect_changes_nothing(defect: Defect, scene: Scene) -> None:
    before = copy(scene.entry)
    turn = scene.say(**defect.of(scene))
    assert scene.entry == before
    assert not [action for action in turn if isinstance(action, Bind | Unbind | SaveSession | ForgetSession)]


@pytest.mark.parametrize("pair", PAIRS, ids=lambda it: f"{it[0].name}+{it[1].name}")
def test_of_two_defects_the_earlier_check_answers(pair: tuple[Defect, Defect], scene: Scene) -> None:
    changes = pair[0].of(scene) | pair[1].of(scene)
    assert scene.status(**changes) == pair[0].status


def test_a_good_update_is_accepted(scene: Scene) -> None:
    assert scene.status() is Status.BINDING_UPDATE_ACCEPTED


def test_a_forged_update_is_refused_before_anything_is_looked_at(scene: Scene) -> None:
    assert scene.status(key=bytes(16), identifier=None) is Status.MIPV6_AUTH_FAIL


def test_a_forged_update_changes_nothing(scene: Scene) -> None:
    before = copy(scene.entry)
    scene.say(key=bytes(16))
    assert scene.entry == before


def test_the_refusal_of_a_forgery_is_signed(scene: Scene) -> None:
    (action,) = sent(scene.say(key=bytes(16)))
    assert isinstance(action, Send)
    message = scene.world["mar2"].mar.door.decode(action.octets, scene.world.address["mar1"], action.destination)
    assert spi_of(message) == 256


def test_forgeries_are_refused_at_a_bounded_rate(scene: Scene) -> None:
    assert sum(bool(sent(scene.say(key=bytes(16)))) for _ in range(100)) <= 20


def test_an_unsigned_update_is_met_with_silence(scene: Scene) -> None:
    assert only_told(scene.say(key=b""))


def test_an_update_under_an_unknown_index_is_met_with_silence(scene: Scene) -> None:
    assert only_told(scene.say(spi=300))


def test_an_update_of_a_stranger_is_met_with_silence(scene: Scene) -> None:
    assert only_told(scene.say("nobody"))


def test_an_update_of_a_mobile_node_is_ignored(scene: Scene) -> None:
    assert scene.say(flags=BindingUpdateFlag.ACKNOWLEDGE | BindingUpdateFlag.HOME_REGISTRATION) == []


@pytest.mark.parametrize("key", [KEY, bytes(16)], ids=["genuine", "forged"])
@pytest.mark.parametrize("count", [1, 32, 33, 80, 81, 82, 83])
def test_an_update_with_very_many_prefixes_is_answered(count: int, key: bytes, scene: Scene) -> None:
    # up to 2048 octets, the most there can be; the answer carries options that the update had not
    prefixes = [IPv6Network((int(FOREIGN.network_address) + (number << 64), 64)) for number in range(count)]
    without = dict.fromkeys(("identifier", "handoff", "technology", "link_layer", "timestamp"))
    expected = Status.MISSING_MN_IDENTIFIER_OPTION if key == KEY else Status.MIPV6_AUTH_FAIL
    assert scene.status(prefix=hnp(*prefixes), key=key, **without) is expected


def test_an_update_whose_prefixes_stand_closer_than_ours_may_is_answered(scene: Scene) -> None:
    # nobody has to align options: more prefixes fit in such an update than in our answer
    here, there = scene.world.address["mar2"], scene.world.address["mar1"]
    one = bytes((22, 18, 0, 64)) + FOREIGN.network_address.packed
    authenticator = bytes((9, 17, 1, 0, 0, 1, 0)) + bytes(12)
    body = one * 100 + authenticator
    pad = -(12 + len(body)) % 8
    update = bytes((59, (12 + len(body) + pad) // 8 - 1, 5, 0, 0, 0, 0, 1, 0x82, 0, 0, 75)) + bytes(pad) + body
    octets = bytearray(update)
    mobility_header.fill_checksum(octets, here, there)
    ack = acknowledgement(scene.world.deliver(bytes(octets), here, "mar1"))
    assert ack.status is Status.MIPV6_AUTH_FAIL


# --- order -----------------------------------------------------------------------------------------------------


def test_an_update_sent_before_the_node_came_back_loses(scene: Scene) -> None:
    late = scene.world.update("mn1", scene.prefix)
    scene.world.run(0.1)
    scene.world.detach("mn1")
    scene.world.attach("mn1", "mar1")
    ack = acknowledgement(scene.world.say(late, "mar2", "mar1"))
    assert ack.status is Status.TIMESTAMP_LOWER_THAN_PREV_ACCEPTED


def test_an_update_sent_before_the_node_solicited_here_again_loses(scene: Scene) -> None:
    late = scene.world.update("mn1", scene.prefix)
    scene.world.run(0.1)
    scene.world.show("mn1", "rs")  # it was away for a moment that nobody noticed
    ack = acknowledgement(scene.world.say(late, "mar2", "mar1"))
    assert ack.status is Status.TIMESTAMP_LOWER_THAN_PREV_ACCEPTED


def test_a_replayed_update_is_refused(scene: Scene) -> None:
    update = scene.world.update("mn1", scene.prefix)
    scene.world.say(update, "mar2", "mar1")
    assert acknowledgement(scene.world.say(update, "mar2", "mar1")).status is Status.TIMESTAMP_MISMATCH


def test_of_two_updates_the_later_one_wins_however_they_arrive(scene: Scene) -> None:
    first = scene.world.update("mn1", scene.prefix)
    scene.world.run(0.05)
    second = scene.world.update("mn1", scene.prefix)
    scene.world.say(second, "mar3", "mar1")
    scene.world.say(first, "mar2", "mar1")
    assert scene.entry.care_of == scene.world.address["mar3"]


@pytest.mark.parametrize(("ahead", "accepted"), [(0.29, True), (-0.29, True), (0.31, False), (-0.31, False)])
def test_a_clock_may_be_wrong_by_the_window(ahead: float, accepted: bool, scene: Scene) -> None:
    status = scene.status(timestamp=Timestamp(value=scene.world.stamp(ago=-ahead)))
    assert (status is Status.BINDING_UPDATE_ACCEPTED) is accepted


@pytest.mark.parametrize("number", [101, 101 + 32766, (101 + 32766) % 65536])
def test_without_a_timestamp_a_greater_number_is_accepted(number: int, scene: Scene) -> None:
    scene.say(timestamp=None, sequence_number=100)
    assert scene.status(timestamp=None, sequence_number=number) is Status.BINDING_UPDATE_ACCEPTED


@pytest.mark.parametrize("number", [100, 99, 0, (100 - 32768) % 65536])
def test_without_a_timestamp_a_number_that_is_not_greater_is_refused(number: int, scene: Scene) -> None:
    scene.say(timestamp=None, sequence_number=100)
    assert scene.status(timestamp=None, sequence_number=number) is Status.SEQUENCE_NUMBER_OUT_OF_WINDOW


def test_a_refused_number_is_answered_with_the_last_accepted_one(scene: Scene) -> None:
    scene.say(timestamp=None, sequence_number=100)
    assert scene.ack(timestamp=None, sequence_number=7).sequence_number == 100


def test_with_a_timestamp_the_number_does_not_matter(scene: Scene) -> None:
    scene.say(timestamp=None, sequence_number=100)
    scene.world.run(0.1)
    assert scene.status(sequence_number=7) is Status.BINDING_UPDATE_ACCEPTED


# --- which entry an update is about (RFC 5213 5.4.1.1) --------------------------------------------------------

ANOTHER_INTERFACE = MobileNodeLinkLayerIdentifier(identifier=bytes.fromhex("020000000099"))


def test_the_same_interface_is_known_by_its_address(scene: Scene) -> None:
    assert scene.status(handoff=handoff(4)) is Status.BINDING_UPDATE_ACCEPTED


def test_another_interface_alone_begins_no_session_here(scene: Scene) -> None:
    status = scene.status(handoff=handoff(4), link_layer=ANOTHER_INTERFACE)
    assert status is Status.NOT_AUTHORIZED_FOR_HOME_NETWORK_PREFIX


def test_a_handoff_between_interfaces_needs_no_known_address(scene: Scene) -> None:
    scene.world.detach("mn1")
    assert scene.status(handoff=handoff(2), link_layer=ANOTHER_INTERFACE) is Status.BINDING_UPDATE_ACCEPTED


def test_another_interface_does_not_get_what_one_has_on_our_link(scene: Scene) -> None:
    scene.world.run(5.0)
    status = scene.status(handoff=handoff(2), link_layer=ANOTHER_INTERFACE)
    assert status is Status.ADMINISTRATIVELY_PROHIBITED
    assert scene.entry.state is State.LOCAL


def test_another_interface_does_not_get_what_one_has_elsewhere(scene: Scene) -> None:
    scene.say("mar2")
    scene.world.run(5.0)
    status = scene.status("mar3", handoff=handoff(2), link_layer=ANOTHER_INTERFACE)
    assert status is Status.ADMINISTRATIVELY_PROHIBITED
    assert scene.entry.care_of == scene.world.address["mar2"]


def test_by_an_order_another_interface_gets_what_one_has_here(scene: Scene) -> None:
    ordered = HomeNetworkPrefix(prefix=scene.prefix, off_link=True)
    status = scene.status(handoff=handoff(2), link_layer=ANOTHER_INTERFACE, prefix=ordered)
    assert status is Status.BINDING_UPDATE_ACCEPTED


def test_what_was_released_is_refused_as_such(scene: Scene) -> None:
    scene.say()
    scene.world.run(1.0)
    scene.say(lifetime=0, handoff=handoff(5))
    scene.world.run(1.0)
    turn = scene.say("mar3")
    (note,) = (action for action in turn if isinstance(action, Note) and action.event == "update-refused")
    assert "it was released" in note.fields["why"]


def test_another_access_technology_is_not_the_same_interface(scene: Scene) -> None:
    status = scene.status(technology=AccessTechnologyTypeOption(technology=8))
    assert status is Status.NOT_AUTHORIZED_FOR_HOME_NETWORK_PREFIX


def test_the_router_that_holds_the_registration_needs_no_known_address(scene: Scene) -> None:
    scene.say()
    scene.world.run(0.1)
    status = scene.status(handoff=handoff(5), link_layer=ANOTHER_INTERFACE)
    assert status is Status.BINDING_UPDATE_ACCEPTED


def test_a_prefix_that_nobody_has_is_refused(scene: Scene) -> None:
    assert scene.status(prefix=hnp(FOREIGN)) is Status.NOT_AUTHORIZED_FOR_HOME_NETWORK_PREFIX


def test_to_ask_for_any_prefix_is_refused(scene: Scene) -> None:
    assert scene.status(prefix=hnp(IPv6Network("::/0"))) is Status.NOT_AUTHORIZED_FOR_HOME_NETWORK_PREFIX


def test_a_deregistration_that_matches_nothing_is_ignored(scene: Scene) -> None:
    assert sent(scene.say(lifetime=0, prefix=hnp(FOREIGN))) == []


# --- the acknowledgement (RFC 5213 5.3.6) ---------------------------------------------------------------------


def test_an_acknowledgement_copies_number_node_handoff_technology_and_interface(scene: Scene) -> None:
    update = scene.world.update("mn1", scene.prefix, sequence_number=4711)
    ack = acknowledgement(scene.world.say(update, "mar2", "mar1"))
    copied = (
        MobileNodeIdentifier,
        HandoffIndicatorOption,
        AccessTechnologyTypeOption,
        MobileNodeLinkLayerIdentifier,
        HomeNetworkPrefix,
        Timestamp,
    )
    assert ack.sequence_number == 4711
    assert [ack.option(kind) for kind in copied] == [update.option(kind) for kind in copied]


def test_an_acknowledgement_says_that_it_is_a_proxy_one(scene: Scene) -> None:
    assert scene.ack().flags == BindingAckFlag.PROXY_REGISTRATION


def test_without_an_identifier_the_answer_has_an_empty_one(scene: Scene) -> None:
    option = scene.ack(identifier=None).option(MobileNodeIdentifier)
    assert option is not None
    assert option.identifier == b""


def test_without_a_prefix_the_answer_has_one_of_zeros(scene: Scene) -> None:
    assert [option.all_zero for option in scene.ack(prefix=None).options_of(HomeNetworkPrefix)] == [True]


def test_without_a_handoff_indicator_the_answer_has_zero(scene: Scene) -> None:
    assert scene.ack(handoff=None).option(HandoffIndicatorOption) == handoff(0)


def test_without_an_access_technology_the_answer_has_zero(scene: Scene) -> None:
    assert scene.ack(technology=None).option(AccessTechnologyTypeOption) == AccessTechnologyTypeOption(technology=0)


def test_without_an_interface_identifier_the_answer_has_none(scene: Scene) -> None:
    assert scene.ack(link_layer=None).option(MobileNodeLinkLayerIdentifier) is None


def test_without_a_timestamp_the_answer_has_none(scene: Scene) -> None:
    assert scene.ack(timestamp=None).option(Timestamp) is None


def test_all_prefixes_of_a_refused_request_come_back(scene: Scene) -> None:
    ack = scene.ack(prefix=hnp(scene.prefix, FOREIGN))
    assert ack.options_of(HomeNetworkPrefix) == hnp(scene.prefix, FOREIGN)


def test_a_link_local_address_comes_back(scene: Scene) -> None:
    option = LinkLocalAddress(address=IPv6Address("fe80::1"))
    assert scene.ack(link_local=option).option(LinkLocalAddress) == option


@pytest.mark.parametrize("ago", [5.0, 11.0])
def test_a_refused_timestamp_is_answered_with_our_clock(ago: float, scene: Scene) -> None:
    ack = scene.ack(timestamp=Timestamp(value=scene.world.stamp(ago=ago)))
    assert ack.option(Timestamp) == Timestamp(value=scene.world.stamp())


def test_the_answer_goes_where_the_update_came_from_even_with_an_alternate_address(scene: Scene) -> None:
    alternate = AlternateCareOfAddress(address=scene.world.address["mar3"])
    (answer, *_) = sent(scene.say(alternate=alternate))
    assert isinstance(answer, Send)
    assert answer.destination == scene.world.address["mar2"]


def test_an_alternate_address_is_the_end_of_the_tunnel(scene: Scene) -> None:
    scene.say(alternate=AlternateCareOfAddress(address=scene.world.address["mar3"]))
    assert scene.world.path("mar1", scene.prefix) == TowardVisited.at(scene.world.address["mar3"])


def test_no_more_lifetime_is_granted_than_is_allowed(scene: Scene) -> None:
    assert scene.ack(lifetime=100_000).lifetime == 300


def test_no_more_lifetime_is_granted_than_was_asked_for(scene: Scene) -> None:
    assert scene.ack(lifetime=100).lifetime == 100


# --- what an accepted update does -----------------------------------------------------------------------------


def place(turn: list[Action], kind: type) -> int:
    return next(at for at, action in enumerate(turn) if isinstance(action, kind))


def test_the_tunnel_stands_and_the_session_is_saved_before_the_acknowledgement_leaves(scene: Scene) -> None:
    turn = scene.say()
    assert place(turn, Bind) < place(turn, SaveSession) < place(turn, Send)


def test_an_accepted_update_turns_the_prefix_to_the_visited_router(scene: Scene) -> None:
    scene.say()
    assert scene.world.path("mar1", scene.prefix) == TowardVisited.at(scene.world.address["mar2"])


def test_another_router_of_the_same_node_is_told_that_it_lost_the_prefix(scene: Scene) -> None:
    scene.say()
    scene.world.run(0.1)
    turn = scene.say("mar3")
    (told,) = (it for it in turn if isinstance(it, Send) and isinstance(it.message, BindingRevocationIndication))
    assert told.destination == scene.world.address["mar2"]


def test_a_refresh_touches_no_table_and_no_store(scene: Scene) -> None:
    scene.say()
    scene.world.run(0.1)
    turn = scene.say(handoff=handoff(5))
    assert not [action for action in turn if isinstance(action, Bind | SaveSession)]


def test_a_long_registration_is_written_again_before_the_store_forgets_it(scene: Scene) -> None:
    saved = [item for item in scene.say() if isinstance(item, SaveSession)][-1].session
    writes = 0
    for _ in range(40):
        scene.world.run(200.0)
        turn = scene.say(handoff=handoff(5))
        again = [item.session for item in turn if isinstance(item, SaveSession)]
        writes += len(again)
        saved = again[-1] if again else saved
        assert saved.expires > WALL + scene.world.now + 200.0
    assert 0 < writes <= 5


def test_a_refresh_extends_the_binding(scene: Scene) -> None:
    scene.say()
    scene.world.run(100.0)
    scene.say(handoff=handoff(5))
    scene.world.run(299.0)
    assert scene.entry.state is State.REMOTE


def test_an_update_for_the_same_interface_proves_that_the_node_left_our_link(scene: Scene) -> None:
    scene.say()
    assert "mn1" not in scene.world["mar1"].mar.here


def test_an_update_for_another_interface_does_not_prove_it(scene: Scene) -> None:
    scene.say(handoff=handoff(2), link_layer=ANOTHER_INTERFACE)
    assert "mn1" in scene.world["mar1"].mar.here


def test_a_node_that_stayed_gets_its_prefix_back_when_the_other_router_lets_it_go(scene: Scene) -> None:
    scene.say(handoff=handoff(2), link_layer=ANOTHER_INTERFACE)
    scene.world.run(0.1)
    scene.say(lifetime=0, handoff=handoff(4), link_layer=ANOTHER_INTERFACE)
    scene.world.run(1.0)
    assert scene.world.path("mar1", scene.prefix) == LocalLink(interface=INTERFACE)
    assert scene.world.preferred("mn1") == [scene.prefix]


# --- leaving, guard, hold, free -------------------------------------------------------------------------------


def test_a_deregistration_by_the_router_that_holds_it_begins_the_guard_time(scene: Scene) -> None:
    scene.say()
    scene.world.run(0.1)
    ack = scene.ack(lifetime=0, handoff=handoff(4))
    assert (ack.status, ack.lifetime, scene.entry.state) == (0, 0, State.GUARD)


def test_a_deregistration_by_another_router_is_ignored(scene: Scene) -> None:
    scene.say()
    scene.world.run(0.1)
    assert sent(scene.say("mar3", lifetime=0, handoff=handoff(4))) == []
    assert scene.entry.state is State.REMOTE


def test_nothing_is_delivered_during_the_guard_time(scene: Scene) -> None:
    scene.world.detach("mn1")
    assert scene.world.path("mar1", scene.prefix) == Held()


def test_an_update_during_the_guard_time_is_accepted(scene: Scene) -> None:
    scene.world.detach("mn1")
    scene.world.run(9.9)
    assert scene.status() is Status.BINDING_UPDATE_ACCEPTED


def test_an_update_for_a_held_prefix_brings_it_back(scene: Scene) -> None:
    scene.world.detach("mn1")
    scene.world.run(100.0)
    assert (scene.entry.state, scene.status()) == (State.HOLD, Status.BINDING_UPDATE_ACCEPTED)


def test_a_node_that_returns_during_the_guard_time_finds_its_prefix(scene: Scene) -> None:
    scene.world.detach("mn1")
    scene.world.run(9.0)
    scene.world.attach("mn1", "mar1")
    scene.world.run(30.0)
    assert scene.world.path("mar1", scene.prefix) == LocalLink(interface=INTERFACE)


def test_a_node_that_returns_while_its_prefix_is_held_finds_it(scene: Scene) -> None:
    scene.world.detach("mn1")
    scene.world.run(1000.0)
    scene.world.attach("mn1", "mar1")
    scene.world.run(10_000.0)
    assert scene.world.state(scene.prefix) is State.LOCAL


def test_a_held_prefix_becomes_free_when_its_valid_lifetime_is_over(scene: Scene) -> None:
    scene.world.detach("mn1")
    scene.world.run(10.0 + 7200.0 - 0.1)
    before = scene.world.state(scene.prefix)
    scene.world.run(0.2)
    assert (before, scene.world.state(scene.prefix)) == (State.HOLD, State.FREE)


def test_a_free_prefix_is_unbound_and_forgotten(scene: Scene) -> None:
    scene.world.detach("mn1")
    scene.world.run(8000.0)
    assert scene.world.path("mar1", scene.prefix) is None
    assert scene.world.store.of("mn1") == ()


def test_a_prefix_is_lent_to_another_node_only_when_it_is_free() -> None:
    scene = Scene(pools=(IPv6Network("2001:db8:100::/63"),))
    scene.world.detach("mn1")
    scene.world.run(7000.0)
    scene.world.attach("mn3", "mar1")
    while_held = scene.anchor.cache.of("mn3")
    scene.world.run(300.0)
    scene.world.detach("mn3")
    scene.world.attach("mn3", "mar1")
    assert (while_held, scene.world.prefix("mn3", "mar1")) == ([], scene.prefix)


def test_a_registration_that_is_not_refreshed_ends(scene: Scene) -> None:
    scene.say(lifetime=100)
    scene.world.run(101.0)
    assert (scene.entry.state, scene.world.path("mar1", scene.prefix)) == (State.HOLD, Held())


def test_a_deregistered_prefix_is_held_after_the_guard_time(scene: Scene) -> None:
    scene.say()
    scene.world.run(0.1)
    scene.say(lifetime=0, handoff=handoff(4))
    scene.world.run(10.1)
    assert scene.entry.state is State.HOLD


# --- bounds ---------------------------------------------------------------------------------------------------


def test_an_empty_pool_is_told(scene: Scene) -> None:
    scene = Scene(pools=(IPv6Network("2001:db8:100::/63"),))
    scene.world.attach("mn3", "mar1")
    assert len(scene.world["mar1"].notes("pool-empty")) == 1


def test_no_more_prefixes_are_lent_than_the_cache_may_hold() -> None:
    scene = Scene(max_bindings=2)
    scene.world.attach("mn3", "mar1")
    assert scene.anchor.cache.of("mn3") == []


# --- restart --------------------------------------------------------------------------------------------------


def test_after_a_restart_a_registered_prefix_still_goes_to_its_router(scene: Scene) -> None:
    scene.say()
    scene.world.restart("mar1")
    assert scene.world.path("mar1", scene.prefix) == TowardVisited.at(scene.world.address["mar2"])


def test_after_a_restart_the_router_that_has_the_registration_gets_a_full_period_to_refresh_it(scene: Scene) -> None:
    scene.say(lifetime=20)
    scene.world.hosts["mn1"].at = None
    scene.world.run(19.0)
    scene.world.restart("mar1")
    scene.world.run(299.0)
    assert scene.world.state(scene.prefix) is State.REMOTE


def test_after_a_restart_an_update_of_before_is_still_too_old(scene: Scene) -> None:
    old = scene.world.update("mn1", scene.prefix)
    scene.world.run(0.05)
    scene.say("mar3")
    scene.world.restart("mar1")
    ack = acknowledgement(scene.world.say(old, "mar2", "mar1"))
    assert ack.status is Status.TIMESTAMP_LOWER_THAN_PREV_ACCEPTED


def test_after_a_restart_a_prefix_that_is_lent_is_not_lent_again(scene: Scene) -> None:
    scene.world.restart("mar1")
    scene.world.attach("mn3", "mar1")
    assert scene.world.prefix("mn3", "mar1") not in (scene.prefix, scene.other)


def test_after_a_restart_a_node_on_the_link_gets_its_prefix_back(scene: Scene) -> None:
    scene.world.restart("mar1")
    scene.world.run(1.0)
    assert scene.world.path("mar1", scene.prefix) == LocalLink(interface=INTERFACE)


def test_after_a_restart_a_held_prefix_stays_held_no_longer_than_before(scene: Scene) -> None:
    scene.world.detach("mn1")
    scene.world.run(5000.0)
    scene.world.restart("mar1")
    scene.world.run(2211.0)
    assert scene.world.state(scene.prefix) is State.FREE


def test_sessions_of_other_anchors_are_not_taken_up(scene: Scene) -> None:
    session = scene.world.store.session(scene.prefix)
    assert isinstance(session, Session)
    foreign = replace(session, prefix=FOREIGN, anchor=scene.world.address["mar2"])
    scene.world.feed("mar1", SessionsRestored(sessions=(foreign,)))
    assert scene.anchor.cache.get(FOREIGN) is None


def test_what_is_known_already_is_not_restored_over_it(scene: Scene) -> None:
    session = scene.world.store.session(scene.prefix)
    assert isinstance(session, Session)
    scene.world.feed("mar1", SessionsRestored(sessions=(replace(session, node="somebody"),)))
    assert scene.entry.node == "mn1"


def test_a_longer_valid_lifetime_of_a_later_run_is_waited_for(scene: Scene) -> None:
    scene.world["mar1"].settings = replace(scene.world["mar1"].settings, valid_lifetime=10_000)
    scene.world.restart("mar1")
    scene.world.run(1.0)  # the node answers, and is told the longer one
    scene.world.detach("mn1")
    scene.world.run(9000.0)
    assert scene.world.state(scene.prefix) is State.HOLD
