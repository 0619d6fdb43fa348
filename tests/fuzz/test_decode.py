"""At every door, any octets are malformed or something that survives the way out and back in; and reading takes no
more work than there are octets.

OPENMAR_FUZZ_EXAMPLES asks for more of each kind of octets than the normal run takes.
"""

import os
import sys
from types import FrameType
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from signaling.iana import OptionType, ProtocolNumber
from signaling.wire.codec import MAX_MOBILITY_HEADER
from tests.fuzz.broken_octets import any_octets, spoiled, told_right
from tests.fuzz.doors import DOORS, HERE, THERE, come_in
from tests.fuzz.seeds import DHCPV4, SEEDS, VECTORS

EXAMPLES = int(os.environ.get("OPENMAR_FUZZ_EXAMPLES", "200"))
BOUNDED = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), database=None)

every_door = pytest.mark.parametrize("door", DOORS)


@every_door
@BOUNDED
@given(data=st.data())
def test_any_octets_are_malformed_or_survive(door: str, data: st.DataObject) -> None:
    come_in(DOORS[door], data.draw(any_octets(door)))


@every_door
@BOUNDED
@given(data=st.data())
def test_spoiled_octets_are_malformed_or_survive(door: str, data: st.DataObject) -> None:
    come_in(DOORS[door], data.draw(spoiled(door)))


@every_door
def test_octets_cut_anywhere_are_malformed_or_survive(door: str) -> None:
    for octets in SEEDS[door]:
        for end in range(len(octets)):
            come_in(DOORS[door], octets[:end])


@every_door
def test_every_door_lets_some_of_its_seeds_in(door: str) -> None:
    assert any(come_in(DOORS[door], octets) is not None for octets in SEEDS[door])


def test_the_seeds_are_all_the_vectors() -> None:
    assert len(VECTORS) == 139


# --- work ---------------------------------------------------------------------------------------------------


def read(door: str, octets: bytes) -> None:
    """Read octets, which must be well-formed."""
    DOORS[door].decode(DOORS[door].prepare(octets))


def work(door: str, octets: bytes) -> int:
    """Count the steps of the interpreter, line by line, that reading octets takes: the same on a busy machine."""
    steps = 0

    def count(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal steps
        steps += 1
        return count

    before = sys.gettrace()
    sys.settrace(count)
    try:
        read(door, octets)
    finally:
        sys.settrace(before)
    return steps


class Full(NamedTuple):
    """A message with as many of one small option as it can hold; all in hex."""

    door: str
    head: str  # {count:04x}: how many options follow
    option: str
    tail: str = ""

    def most(self) -> int:
        """How many options make it as long as a Mobility Header may be."""
        return (MAX_MOBILITY_HEADER - len(self.octets(0))) // len(bytes.fromhex(self.option))

    def octets(self, count: int) -> bytes:
        """Give the message with so many options."""
        return told_right(self.door, bytes.fromhex(self.head.format(count=count) + self.option * count + self.tail))


UPDATE = "3b00050000000000 00000000"
PACKET = "600000000000{first:02x}40" + HERE.packed.hex() + THERE.packed.hex()
BEHIND_AH, BEHIND_OPTIONS = PACKET.format(first=ProtocolNumber.AH), PACKET.format(first=60)
DISCOVER, SOLICIT = DHCPV4[0][:240].hex() + "350101", "01000001"
FULL = {
    "padding of one octet": Full("signed", UPDATE, "00"),
    "padding of two octets": Full("signed", UPDATE, "0100"),
    "unknown options": Full("signed", UPDATE, "fa00"),
    "options too short": Full("signed", UPDATE, f"{OptionType.HOME_NETWORK_PREFIX:02x}00"),
    "authenticators": Full("signed", UPDATE, f"{OptionType.MOBILITY_MESSAGE_AUTHENTICATION:02x}06010000010055"),
    "flows": Full("signed", UPDATE, f"{OptionType.FLOW_IDENTIFICATION:02x}0a0001000100000102 0001"),
    "flows with padding": Full("signed", UPDATE, f"{OptionType.FLOW_IDENTIFICATION:02x}ff000100010000" + "00" * 249),
    "unknown options of a neighbor": Full("neighbor", "8500000000000000", "fe01000000000000"),
    "link-layer addresses": Full("neighbor", "8500000000000000", "0101020000000011"),
    "groups": Full("listener", "8f0000000000{count:04x}", "04000000" + THERE.packed.hex()),
    "unknown options of DHCPv4": Full("dhcpv4", DISCOVER, "fa00"),
    "pieces of one option": Full("dhcpv4", DISCOVER, "3d01aa"),
    "unknown options of DHCPv6": Full("dhcpv6", SOLICIT, "00fa0000"),
    "associations with addresses": Full("dhcpv6", SOLICIT, "0004000400000001"),
    "associations with prefixes": Full("dhcpv6", SOLICIT, "0019000c000000010000000000000000"),
    "authentication headers": Full("ipv6", BEHIND_AH, "3300000000000000", "3b00000000000000"),
    "headers with options": Full("ipv6", BEHIND_OPTIONS, "3c001e001e001e00", "3b00010400000000"),
}
STEPS_PER_OCTET = 30  # more than any of them takes, far less than one that is read over and over


@pytest.mark.parametrize("full", FULL.values(), ids=FULL)
def test_an_option_takes_no_more_work_among_many_than_among_half_as_many(full: Full) -> None:
    many = full.most()
    few = many // 2
    for count in (few, many):
        read(full.door, full.octets(count))  # what is remembered from the first time does not count
    assert work(full.door, full.octets(many)) / many <= 1.1 * work(full.door, full.octets(few)) / few


@pytest.mark.parametrize("full", FULL.values(), ids=FULL)
def test_the_fullest_message_is_read_in_bounded_work(full: Full) -> None:
    octets = full.octets(full.most())
    assert len(octets) > MAX_MOBILITY_HEADER * 3 // 4
    assert work(full.door, octets) <= STEPS_PER_OCTET * len(octets)
