"""The messages of RFC 8885 in tests/vectors, as our roles produce and take them: octet for octet where they can."""

from dataclasses import replace
from ipaddress import IPv6Address, IPv6Network
from typing import Any

from signaling.actions import Action, Send, TowardAnchor
from signaling.dmm.dlif import Dlif
from signaling.events import ClockStepped, DatagramReceived, LinkAttached, LinkUp
from signaling.iana import AccessTechnologyType, HandoffIndicator, Status
from signaling.roles.cmd import Cmd
from signaling.roles.mar import Mar
from signaling.settings import Authentication, CmdMode, CmdSettings, Peer, Settings
from signaling.wire import ipv6, mobility_header
from signaling.wire.message import Message
from signaling.wire.options.access import HandoffIndicatorOption
from signaling.wire.options.maar import DlifLinkLayerAddress, DlifLinkLocalAddress
from signaling.wire.options.time import Timestamp
from tests.signaling.dmm.cmd_world import CMD_ADDRESS, previous_in
from tests.signaling.test_vectors import decode, octets_of
from tests.world import INTERFACE, WALL

NODE, LINK_LAYER = "mn1@example.net", bytes.fromhex("020000000011")
MAAR1, MAAR2 = IPv6Address("2001:db8:a1::1"), IPv6Address("2001:db8:a2::1")
PREFIX1, PREFIX2 = IPv6Network("2001:db8:a1:100::/64"), IPv6Network("2001:db8:a2:200::/64")
MOVED = 700.0  # s after the first registration
VECTOR_DLIF = Dlif(link_local=IPv6Address("fe80::a1"), link_layer=bytes.fromhex("02000000a101"))

COMMON: dict[str, Any] = {
    "tunnel_mtu": 1460,
    "authentication": Authentication.NONE,
    "binding_lifetime": 3600,
    "technology": AccessTechnologyType.IEEE_802_11,
}


def cmd(mode: CmdMode = CmdMode.RELAY) -> Cmd:
    peers = (Peer(name="maar1", address=MAAR1), Peer(name="maar2", address=MAAR2))
    role = Cmd(CmdSettings(address=CMD_ADDRESS, peers=peers, cmd_mode=mode, **COMMON))
    role.handle(ClockStepped(wall_minus_monotonic=WALL), 0.0)
    role.database.copies._number = 8  # the first copy has the number of the vector
    return role


def maar(address: IPv6Address, prefix: IPv6Network, mode: CmdMode = CmdMode.RELAY) -> Mar:
    other = MAAR2 if address == MAAR1 else MAAR1
    peers = (Peer(name="cmd", address=CMD_ADDRESS), Peer(name="other", address=other))
    pools = (prefix.supernet(new_prefix=56),)
    role = Mar(Settings(address=address, peers=peers, pools=pools, cmd="cmd", cmd_mode=mode, **COMMON))
    role.handle(ClockStepped(wall_minus_monotonic=WALL), 0.0)
    role.handle(LinkUp(interface=INTERFACE, link_layer=b"\0\0\x5e\0\x52\x13", mtu=1500), 0.0)
    assert role.central is not None
    role.central.take_up((), 0)
    return role


def attach(role: Mar, now: float) -> list[Action]:
    event = LinkAttached(
        node=NODE, interface=INTERFACE, link_layer=LINK_LAYER, link_local=None, trigger="rs", sessions=()
    )
    return role.handle(event, now)


def hear(role: Any, name: str, now: float) -> list[Action]:
    """The role gets the message of a vector."""
    packet = ipv6.decode(octets_of(name))
    return role.handle(
        DatagramReceived(octets=packet.payload, source=packet.source, destination=packet.destination), now
    )


def octets(name: str) -> bytes:
    return ipv6.decode(octets_of(name)).payload


def sent(actions: list[Action], to: IPv6Address) -> list[Send]:
    return [action for action in actions if isinstance(action, Send) and action.destination == to]


def without(message: Message, *kinds: type) -> Message:
    """A message without options of these kinds."""
    kept = tuple(option for option in message.options if not isinstance(option, kinds))
    return replace(message, options=kept)


def test_a_first_registration_is_answered_as_the_vector_is() -> None:
    (ack,) = sent(hear(cmd(), "pbu-dmm-initial", 0.0), MAAR1)
    assert ack.octets == octets("pba-dmm-initial")


def test_a_serving_router_registers_as_the_vector_does() -> None:
    (update,) = sent(attach(maar(MAAR2, PREFIX2), MOVED), CMD_ADDRESS)
    assert update.octets == octets("pbu-dmm-handover")


def test_a_first_registration_differs_from_the_vector_only_in_how_the_node_came() -> None:
    (update,) = sent(attach(maar(MAAR1, PREFIX1), 0.0), CMD_ADDRESS)
    theirs = decode("pbu-dmm-initial")
    assert without(update.message, HandoffIndicatorOption) == without(theirs, HandoffIndicatorOption)
    handoff = update.message.option(HandoffIndicatorOption)
    assert handoff is not None
    assert handoff.indicator == HandoffIndicator.HANDOFF_STATE_UNKNOWN  # whether it was elsewhere it cannot know


def test_an_anchor_is_told_as_in_the_vector() -> None:
    role = cmd()
    hear(role, "pbu-dmm-initial", 0.0)
    (copy,) = sent(hear(role, "pbu-dmm-handover", MOVED), MAAR1)
    # the time is that of the update, not of the CMD: the anchor compares it with when it saw the node itself
    assert without(copy.message, Timestamp) == without(decode("pbu-cmd-to-pmaar"), Timestamp)


def test_an_anchor_takes_and_answers_it_as_the_vector_is() -> None:
    role = maar(MAAR1, PREFIX1)
    attach(role, 0.0)
    actions = hear(role, "pbu-cmd-to-pmaar", MOVED)
    (ack,) = sent(actions, CMD_ADDRESS)
    dlif = DlifLinkLocalAddress, DlifLinkLayerAddress
    theirs = decode("pba-pmaar-to-cmd")
    assert without(ack.message, *dlif) == without(theirs, *dlif)
    assert [type(option) for option in ack.message.options] == [type(option) for option in theirs.options]
    assert role.anchor.cache.of(NODE)[0].care_of == MAAR2


def test_the_answer_of_an_anchor_makes_the_acknowledgement_of_the_vector() -> None:
    role = cmd()
    hear(role, "pbu-dmm-initial", 0.0)
    hear(role, "pbu-dmm-handover", MOVED)
    (ack,) = sent(hear(role, "pba-pmaar-to-cmd", MOVED), MAAR2)
    assert ack.octets == octets("pba-cmd-to-smaar")


def test_a_serving_router_takes_what_the_cmd_tells() -> None:
    role = maar(MAAR2, PREFIX2)
    attach(role, MOVED)
    hear(role, "pba-cmd-to-smaar", MOVED)
    assert role.central is not None
    (item,) = role.central.visited(NODE)
    assert (item.prefix, item.anchor, role.central.dlifs[PREFIX1]) == (PREFIX1, MAAR1, VECTOR_DLIF)


def test_a_serving_router_takes_what_an_anchor_tells_it_where_the_cmd_is_a_locator() -> None:
    role = maar(MAAR2, PREFIX2, CmdMode.LOCATOR)
    attach(role, MOVED)
    actions = hear(role, "pba-pmaar-to-smaar", MOVED)
    assert TowardAnchor.through(MAAR1, INTERFACE) in [getattr(action, "path", None) for action in actions]


def test_what_an_anchor_tells_counts_for_nothing_where_it_is_none() -> None:
    role = maar(MAAR2, PREFIX2, CmdMode.PROXY)
    attach(role, MOVED)
    hear(role, "pba-pmaar-to-smaar", MOVED)
    assert role.counters["serving.unmatched"] == 1


def test_an_anchor_tells_the_serving_router_itself_where_the_cmd_is_a_locator() -> None:
    role = maar(MAAR1, PREFIX1, CmdMode.LOCATOR)
    attach(role, 0.0)
    (ack,) = sent(hear(role, "pbu-cmd-to-pmaar", MOVED), MAAR2)
    assert (ack.message.status, previous_in(ack.message)) == (Status.BINDING_UPDATE_ACCEPTED, [])  # type: ignore[attr-defined]


def test_anchored_and_local_prefixes_in_a_registration_change_nothing_and_are_not_lost() -> None:
    role = cmd()
    (ack,) = sent(hear(role, "pbu-dmm-anchored-local", MOVED + 1), MAAR2)
    binding = role.database.bindings.get(NODE)
    assert binding is not None
    assert binding.question is not None
    assert (ack.message.status, list(binding.anchorages)) == (Status.BINDING_UPDATE_ACCEPTED, [PREFIX2])  # type: ignore[attr-defined]
    assert mobility_header.encode(binding.question.request.update, MAAR2, CMD_ADDRESS) == octets(
        "pbu-dmm-anchored-local"
    )
