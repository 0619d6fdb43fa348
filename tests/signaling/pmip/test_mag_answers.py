"""What a gateway does about each answer of its anchor: the table of RFC 5213 6.9.1.2 and its neighbours, by row."""

from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from itertools import pairwise

import pytest

from signaling.actions import Bind, SendOnLink, TowardAnchor, Unbind
from signaling.events import AddressAsked, ClockStepped
from signaling.iana import AccessTechnologyType, HandoffIndicator, Status
from signaling.pmip.binding_update_list import Stage
from signaling.settings import NodeProfile, Wants
from signaling.wire.binding_ack import BindingAck
from signaling.wire.binding_update import BindingUpdate
from signaling.wire.options.access import AccessTechnologyTypeOption, HandoffIndicatorOption
from signaling.wire.options.identity import MobileNodeIdentifier, MobileNodeLinkLayerIdentifier
from signaling.wire.options.ipv4 import Ipv4HomeAddressRequest
from signaling.wire.options.lma_control import HeartbeatControl, LmaControlledMagParameters, ReregistrationControl
from signaling.wire.options.option import Option
from signaling.wire.options.prefix import HomeNetworkPrefix
from signaling.wire.options.time import Timestamp
from signaling.wire.options.tunnel import GreKey
from tests.signaling.pmip.pmip_world import LMA, WALL, World, octets_of

FIXED = IPv6Network("2001:db8:77::/64")
FAR = 2000.0


def refused(status: Status, **settings: object) -> World:
    world = World(**settings)  # type: ignore[arg-type]
    world.lma.refusals = [status]
    world.attach("mn1")
    return world


def changed(kind: type[Option], option: Option) -> Callable[[BindingUpdate, BindingAck], BindingAck]:
    """Edits an answer: another option in the place of the one it echoes."""

    def edit(update: BindingUpdate, ack: BindingAck) -> BindingAck:
        return replace(ack, options=tuple(option if isinstance(it, kind) else it for it in ack.options))

    return edit


# --- accepted --------------------------------------------------------------------------------------------------------


def test_status_0_binds_before_the_node_hears_of_it() -> None:
    world = World()
    world.attach("mn1")
    world.run(1.0)
    done = [action for turn in world.mag.turns for action in turn]
    told = [type(it) for it in done if isinstance(it, Bind | SendOnLink) and it.node == "mn1"]
    assert told[:2] == [Bind, SendOnLink]
    assert world.hosts["mn1"].offered() == {world.prefix("mn1"): 7200}


@pytest.mark.parametrize("status", [1, 2, 127])
def test_status_up_to_127_is_an_acceptance(status: int) -> None:
    world = World()
    world.lma.edit = lambda update, ack: replace(ack, status=status)
    world.attach("mn1")
    world.run(1.0)
    assert isinstance(world.mag.paths[world.prefix("mn1")], TowardAnchor)


def test_a_prefix_that_is_off_link_is_routed_and_not_advertised() -> None:
    world = World()
    off_link = HomeNetworkPrefix(prefix=FIXED, off_link=True)
    world.lma.edit = lambda update, ack: replace(ack, options=(*ack.options, off_link))
    world.attach("mn1")
    world.run(1.0)
    assert FIXED in world.mag.paths
    assert FIXED not in world.hosts["mn1"].offered()


# --- not about the question ------------------------------------------------------------------------------------------


OTHERS = {
    "handoff": (
        HandoffIndicatorOption,
        HandoffIndicatorOption(indicator=HandoffIndicator.ATTACHMENT_OVER_A_NEW_INTERFACE),
    ),
    "technology": (
        AccessTechnologyTypeOption,
        AccessTechnologyTypeOption(technology=AccessTechnologyType.IEEE_802_11),
    ),
    "interface": (MobileNodeLinkLayerIdentifier, MobileNodeLinkLayerIdentifier(identifier=bytes(range(6)))),
    "node": (MobileNodeIdentifier, MobileNodeIdentifier(identifier=b"mn9")),
}


@pytest.mark.parametrize(("kind", "option"), OTHERS.values(), ids=OTHERS)
def test_an_answer_about_another_is_ignored_and_the_question_not_repeated(kind: type[Option], option: Option) -> None:
    world = World()
    world.lma.edit = changed(kind, option)
    world.attach("mn1")
    world.keep_talking("mn1", FAR)
    assert len(world.lma.updates) == 1
    assert world.mag.paths == {}
    assert world.mag.notes("answer-does-not-match")


def test_after_an_answer_about_another_the_node_may_come_anew() -> None:
    world = World()
    world.lma.edit = changed(*OTHERS["node"])
    world.attach("mn1")
    world.run(5.0)
    world.detach("mn1")
    world.lma.edit = lambda update, ack: ack
    world.attach("mn1")
    world.run(1.0)
    assert world.stages("mn1") == {0: Stage.REGISTERED}


def test_an_answer_nobody_waits_for_is_ignored() -> None:
    world = World()
    world.lma.edit = lambda update, ack: replace(ack, sequence_number=(ack.sequence_number + 1) % 65536)
    world.attach("mn1")
    world.run(0.5)
    assert world.mag.mag.counters["gateway.unmatched"] == 1
    assert world.stages("mn1") == {0: Stage.PENDING}


def test_an_answer_that_is_not_a_proxy_one_is_ignored() -> None:
    world = World()
    world.lma.edit = lambda update, ack: replace(ack, flags=type(ack.flags)(0))
    world.attach("mn1")
    world.run(0.5)
    assert world.stages("mn1") == {0: Stage.PENDING}


# --- refused ---------------------------------------------------------------------------------------------------------


def test_status_152_ends_it_until_an_administrator_acts() -> None:
    world = refused(Status.PROXY_REG_NOT_ENABLED)
    world.keep_talking("mn1", FAR)
    world.detach("mn1")
    world.run(10.0)
    world.attach("mn1")
    world.run(10.0)
    assert len(world.lma.updates) == 1
    world.show("mn1", "command")
    world.run(1.0)
    assert world.stages("mn1") == {0: Stage.REGISTERED}


def test_an_administrator_may_ask_again_for_a_node_that_stayed() -> None:
    world = refused(Status.PROXY_REG_NOT_ENABLED)
    world.run(1.0)
    world.show("mn1", "command")
    world.run(1.0)
    assert world.stages("mn1") == {0: Stage.REGISTERED}


def test_status_155_asks_again_for_any_prefix() -> None:
    world = refused(
        Status.NOT_AUTHORIZED_FOR_HOME_NETWORK_PREFIX, profiles=(NodeProfile(node="mn1", prefixes=(FIXED,)),)
    )
    world.run(1.0)
    assert [received.prefixes for received in world.lma.updates] == [[FIXED], [IPv6Network("::/0")]]
    assert world.stages("mn1") == {0: Stage.REGISTERED}


def test_status_155_for_any_prefix_is_a_refusal() -> None:
    world = refused(Status.NOT_AUTHORIZED_FOR_HOME_NETWORK_PREFIX)
    world.run(1.0)
    assert (len(world.lma.updates), world.stages("mn1")) == (1, {0: Stage.REFUSED})


def test_status_159_asks_again_for_any_prefix() -> None:
    world = refused(Status.BCE_PBU_PREFIX_SET_DO_NOT_MATCH, profiles=(NodeProfile(node="mn1", prefixes=(FIXED,)),))
    world.run(1.0)
    assert world.lma.updates[-1].prefixes == [IPv6Network("::/0")]


def with_clock(ahead: float) -> Callable[[BindingUpdate, BindingAck], BindingAck]:
    """Edits a refusal about time: the anchor's clock."""

    def edit(update: BindingUpdate, ack: BindingAck) -> BindingAck:
        ours = update.option(Timestamp)
        assert ours is not None
        theirs = Timestamp(value=ours.value + int(ahead * 65536))
        return changed(Timestamp, theirs)(update, ack) if not ack.accepted else ack

    return edit


def test_status_156_waits_for_the_clock_and_never_takes_the_anchors() -> None:
    world = World()
    world.lma.refusals = [Status.TIMESTAMP_MISMATCH]
    world.lma.edit = with_clock(60.0)
    world.attach("mn1")
    world.run(5.0)
    assert len(world.lma.updates) == 1
    assert "60.0 s ahead" in str(world.mag.notes("registration-refused")[0].fields["why"])
    world.show("mn1")
    world.feed(ClockStepped(wall_minus_monotonic=WALL + 1.0))
    world.run(1.0)
    assert world.stages("mn1") == {0: Stage.REGISTERED}


def test_status_156_of_a_clock_that_agrees_is_asked_again_once_the_node_proved_to_be_here() -> None:
    world = World()
    world.lma.refusals = [Status.TIMESTAMP_MISMATCH]
    world.lma.edit = with_clock(0.01)
    world.attach("mn1")
    world.run(0.2)
    assert world.stages("mn1") == {0: Stage.REGISTERED}


@pytest.mark.parametrize("status", [Status.TIMESTAMP_LOWER_THAN_PREV_ACCEPTED, Status.SEQUENCE_NUMBER_OUT_OF_WINDOW])
def test_status_157_and_135_register_again_at_once(status: Status) -> None:
    world = refused(status)
    world.run(0.2)
    assert (len(world.lma.updates), world.stages("mn1")) == (2, {0: Stage.REGISTERED})


def test_status_157_for_a_node_that_is_gone_asks_nothing() -> None:
    world = refused(Status.TIMESTAMP_LOWER_THAN_PREV_ACCEPTED)
    world.hosts["mn1"].silent = True
    world.run(10.0)
    assert [received.update.lifetime for received in world.lma.updates] == [300, 0]


def test_status_135_goes_on_from_the_anchors_number() -> None:
    world = World(use_timestamps=False)
    world.lma.refusals = [Status.SEQUENCE_NUMBER_OUT_OF_WINDOW]
    world.lma.edit = lambda update, ack: ack if ack.accepted else replace(ack, sequence_number=4711)
    world.attach("mn1")
    world.run(0.2)
    assert world.lma.updates[-1].update.sequence_number == 4712


def test_status_163_asks_again_with_a_key() -> None:
    world = World()
    world.lma.refusals, world.lma.gre = [Status.GRE_KEY_OPTION_REQUIRED], True
    world.attach("mn1")
    world.run(1.0)
    keys = [received.update.option(GreKey) for received in world.lma.updates]
    assert (keys[0], keys[1] is not None) == (None, True)
    (path,) = world.mag.paths.values()
    assert isinstance(path, TowardAnchor)
    assert path.tunnels[0].key_out == 0xA0
    assert path.tunnels[0].key_in is not None


def test_status_170_asks_no_more_for_ipv4_until_an_administrator_acts() -> None:
    world = refused(
        Status.NOT_AUTHORIZED_FOR_IPV4_MOBILITY_SERVICE,
        profiles=(NodeProfile(node="mn1", ipv4_address=IPv4Address("192.0.2.7")),),
    )
    world.run(1.0)
    world.detach("mn1")
    world.run(10.0)
    world.attach("mn1")
    world.run(1.0)
    asked = [received.update.option(Ipv4HomeAddressRequest) is not None for received in world.lma.updates]
    assert asked == [True, False, False, False]
    assert world.stages("mn1") == {0: Stage.REGISTERED}


def test_status_171_asks_for_any_address_only() -> None:
    world = World()
    world.attach("mn1")
    world.run(1.0)
    world.lma.refusals = [Status.NOT_AUTHORIZED_FOR_IPV4_HOME_ADDRESS]
    host = world.hosts["mn1"]
    hint = IPv4Network("10.0.0.9/32")
    world.feed(
        AddressAsked(
            node="mn1", interface=host.interface, link_layer=host.link_layer, wants=Wants.IPV4, hint=hint
        )
    )
    world.run(1.0)
    asked = [received.update.option(Ipv4HomeAddressRequest) for received in world.lma.updates[1:]]
    assert [option.address for option in asked if option] == [IPv4Address("10.0.0.9"), IPv4Address(0)]


def test_status_172_asks_no_more_for_a_prefix() -> None:
    world = refused(
        Status.NOT_AUTHORIZED_FOR_IPV6_MOBILITY_SERVICE,
        profiles=(NodeProfile(node="mn1", ipv4_address=IPv4Address("192.0.2.7")),),
    )
    world.run(1.0)
    assert world.lma.updates[-1].prefixes == []
    assert world.hosts["mn1"].offered() == {}


def test_status_172_leaves_nothing_to_ask_for_where_there_is_no_ipv4() -> None:
    world = refused(Status.NOT_AUTHORIZED_FOR_IPV6_MOBILITY_SERVICE)
    world.keep_talking("mn1", FAR)
    assert (len(world.lma.updates), world.stages("mn1")) == (1, {0: Stage.BARRED})


@pytest.mark.parametrize("status", [Status.MIPV6_AUTH_FAIL, Status.SERVICE_AUTHORIZATION_FAILED])
def test_status_146_and_151_stop(status: Status) -> None:
    world = refused(status)
    world.keep_talking("mn1", FAR)
    assert len(world.lma.updates) == 1


@pytest.mark.parametrize("status", [128, 129, 130, 153, 154, 158, 160, 161, 162, 174, 175, 179, 200])
def test_any_status_from_128_on_advertises_nothing_and_is_tried_again_much_later(status: int) -> None:
    world = refused(status)  # type: ignore[arg-type]
    world.keep_talking("mn1", 30.0)
    assert (len(world.lma.updates), world.mag.paths, world.hosts["mn1"].offered()) == (1, {}, {})
    world.keep_talking("mn1", 10.0)
    assert world.stages("mn1") == {0: Stage.REGISTERED}


def test_an_acceptance_for_no_time_at_all_is_a_refusal() -> None:
    world = World()
    world.lma.lifetime = 0
    world.attach("mn1")
    world.keep_talking("mn1", 30.0)
    assert (len(world.lma.updates), world.mag.paths) == (1, {})


def test_a_refresh_that_is_refused_withdraws_the_prefix() -> None:
    world = World()
    world.attach("mn1")
    world.run(1.0)
    prefix = world.prefix("mn1")
    world.lma.refusals = [Status.NOT_LMA_FOR_THIS_MOBILE_NODE]
    world.keep_talking("mn1", 265.0)
    assert [action.prefix for action in world.mag.did(Unbind)] == [prefix]
    assert world.hosts["mn1"].offered() == {prefix: 0}


# --- timers of the anchor (RFC 8127) ---------------------------------------------------------------------------------


def lcmp(**timers: object) -> Callable[[BindingUpdate, BindingAck], BindingAck]:
    option = LmaControlledMagParameters(**timers)  # type: ignore[arg-type]
    return lambda update, ack: replace(ack, options=(*ack.options, option))


def test_timers_of_the_anchor_go_before_our_own() -> None:
    world = World()
    timers = ReregistrationControl(start_time=100, initial_retransmission_time=3, maximum_retransmission_time=6)
    world.lma.edit = lcmp(reregistration=timers)
    world.attach("mn1")
    world.keep_talking("mn1", 190.0)
    assert len(world.lma.updates) == 1
    world.lma.silent = True
    world.keep_talking("mn1", 40.0)
    waits = [round(after.at - before.at, 3) for before, after in pairwise(world.lma.updates[1:])]
    assert waits[:3] == [3.0, 6.0, 6.0]


IMPOSSIBLE = {
    "start": {"reregistration": ReregistrationControl(
        start_time=0, initial_retransmission_time=1, maximum_retransmission_time=1)},
    "initial": {"reregistration": ReregistrationControl(
        start_time=4, initial_retransmission_time=0, maximum_retransmission_time=1)},
    "maximum": {"reregistration": ReregistrationControl(
        start_time=4, initial_retransmission_time=1, maximum_retransmission_time=0)},
    "heartbeat": {"heartbeat": HeartbeatControl(
        interval=0, retransmission_delay=1, maximum_retransmissions=1)},
}


@pytest.mark.parametrize("timers", IMPOSSIBLE.values(), ids=IMPOSSIBLE)
def test_an_answer_with_a_timer_of_zero_is_ignored(timers: dict[str, object]) -> None:
    world = World()
    world.lma.edit = lcmp(**timers)
    world.attach("mn1")
    world.run(0.5)
    assert world.stages("mn1") == {0: Stage.PENDING}


def test_an_answer_without_authentication_is_no_answer() -> None:
    world = World()
    world.lma.silent = True
    world.attach("mn1")
    world.run(0.1)
    ack = world.lma.answer(world.lma.updates[0].update)
    here = world.address["mag1"]
    world.deliver(octets_of(ack, LMA, here), LMA, here)
    assert world.stages("mn1") == {0: Stage.PENDING}
    assert world.mag.notes("message-refused")


def test_an_answer_of_somebody_else_is_no_answer() -> None:
    world = World()
    world.lma.silent = True
    world.attach("mn1")
    world.run(0.1)
    ack = world.lma.answer(world.lma.updates[0].update)
    here, stranger = world.address["mag1"], IPv6Address("2001:db8:bad::1")
    world.deliver(octets_of(ack, stranger, here), stranger, here)
    assert world.stages("mn1") == {0: Stage.PENDING}
