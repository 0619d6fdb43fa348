"""What is told of messages that are not believed."""

from ipaddress import IPv6Address

import pytest

from signaling.actions import Note
from signaling.events import ClockStepped, DatagramReceived
from signaling.iana import BindingUpdateFlag
from signaling.roles.lma import Lma
from signaling.settings import LmaSettings, Peer
from signaling.wire.authentication import sign
from signaling.wire.binding_update import BindingUpdate

HERE, THERE = IPv6Address("2001:db8:a1::1"), IPv6Address("2001:db8:a2::1")
KEY = bytes(range(16))
ROAMING = Peer(name="bus1", address=None, key=KEY, spi=700)
FIXED = Peer(name="mag1", address=IPv6Address("2001:db8:a3::1"), key=KEY, spi=700)


@pytest.mark.parametrize(
    ("peer", "why"),
    [
        (ROAMING, "no [[peer]] without an address has spi 701: make spi the same on both routers, or add a [[peer]]"),
        (FIXED, "it is no peer of this router: if it should be, give it a [[peer]] here"),
    ],
    ids=["roaming peers", "fixed peers"],
)
def test_a_message_with_the_spi_of_no_roaming_peer_is_told_with_that_spi(peer: Peer, why: str) -> None:
    lma = Lma(LmaSettings(address=HERE, tunnel_mtu=1400, peers=(peer,)))
    lma.handle(ClockStepped(wall_minus_monotonic=1_704_164_645.0), 0.0)
    update = BindingUpdate(
        sequence_number=1, flags=BindingUpdateFlag.PROXY_REGISTRATION | BindingUpdateFlag.ACKNOWLEDGE, lifetime=300
    )
    octets = sign(update, KEY, 701, care_of=THERE, source=THERE, destination=HERE)
    (note,) = lma.handle(DatagramReceived(octets=octets, source=THERE, destination=HERE), 1.0)
    assert isinstance(note, Note)
    assert (note.event, note.fields["why"]) == ("message-refused", why)
