"""The bench of an anchor: what its gateways say is genuine, and what it found is said with what was wanted."""

import socket
from ipaddress import IPv6Address

from bench.batches import Batch
from bench.figures import Figure
from bench.lma import Settings, as_json, table
from bench.lma_load import PREFIX, Wording
from signaling.iana import HandoffIndicator
from signaling.update_request import node_of
from signaling.wire.authentication import verify
from signaling.wire.binding_update import BindingUpdate
from signaling.wire.mobility_header import decode
from signaling.wire.options.option import frames
from signaling.wire.options.prefix import HomeNetworkPrefix
from signaling.wire.options.time import Timestamp

MAG, LMA = IPv6Address("2001:db8::b"), IPv6Address("2001:db8::a")
HALF = bytes.fromhex("20010db810000007")


class FakeGateway:
    key = bytes(16)
    covered = MAG.packed + bytes(16)

    def stamp(self) -> int:
        return 77


def test_an_update_of_the_load_is_one_that_an_anchor_believes() -> None:
    octets = bytes(Wording(HandoffIndicator.HANDOFF_STATE_NOT_CHANGED).update(7, HALF, 65537, FakeGateway()))  # type: ignore[arg-type]
    update = decode(octets, MAG, LMA, verify_checksum=False)
    assert isinstance(update, BindingUpdate)
    assert verify(octets, FakeGateway.key, care_of=MAG)
    assert (node_of(update), update.sequence_number) == ("mn00000007@example.net", 1)
    assert update.option(Timestamp) == Timestamp(value=77)
    assert str(update.options_of(HomeNetworkPrefix)[0].prefix) == "2001:db8:1000:7::/64"


def test_without_a_prefix_it_asks_for_any() -> None:
    octets = bytes(Wording(HandoffIndicator.HANDOFF_STATE_NOT_CHANGED).update(7, None, 1, FakeGateway()))  # type: ignore[arg-type]
    (place,) = [(begin, end) for number, begin, end in frames(octets, 12) if number == PREFIX]
    assert not any(octets[slice(*place)])


def test_a_batch_arrives_message_by_message() -> None:
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with here, there:
        assert Batch(here).send([b"one", b"three"]) == 2
        assert [bytes(each) for each in Batch(there).receive()] == [b"one", b"three"]
        assert list(Batch(there).receive()) == []


def test_the_table_and_json_say_what_does_not_hold() -> None:
    figures = [
        Figure("refresh", "extensions", 25_000.0, "/s", 20_000.0),
        Figure("p99", "99 %", 6.0, "ms", 5.0, most=True),
        Figure("attach", "new", 9_000.0, "/s"),
    ]
    lines = table(figures).splitlines()
    assert lines[0].endswith(" holds")
    assert lines[1].endswith("DOES NOT HOLD")
    found = as_json(Settings(), figures, [])
    assert [each["holds"] for each in found["figures"].values()] == [True, False, True]
