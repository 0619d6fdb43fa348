"""The authenticators of RFC 4285 against the vectors, and against whoever tampers."""

from ipaddress import IPv6Address
from pathlib import Path

import pytest

from signaling.iana import HMAC_SHA1_SPI, AuthenticationSubtype, BindingUpdateFlag
from signaling.wire import authentication, ipv6, mobility_header
from signaling.wire.binding_update import BindingUpdate
from signaling.wire.message import Message
from signaling.wire.options import MobileNodeIdentifier, MobilityMessageAuthentication

VECTORS = Path(__file__).parent.parent / "vectors"
KEY = bytes(range(16))
MN_HA, MN_AAA = AuthenticationSubtype.MN_HA, AuthenticationSubtype.MN_AAA
CARE_OF, ANCHOR = IPv6Address("2001:db8:1::1"), IPv6Address("2001:db8:f::1")


def packet_of(name: str) -> ipv6.Packet:
    return ipv6.decode(bytes.fromhex((VECTORS / f"{name}.hex").read_text()))


def message_in(packet: ipv6.Packet) -> Message:
    return mobility_header.decode(packet.payload, packet.checksum_source, packet.checksum_destination)


def without_authentication(message: Message) -> BindingUpdate:
    assert isinstance(message, BindingUpdate)
    kept = [one for one in message.options if not isinstance(one, MobilityMessageAuthentication)]
    return BindingUpdate(
        sequence_number=message.sequence_number,
        flags=message.flags,
        lifetime=message.lifetime,
        options=tuple(kept),
    )


@pytest.mark.parametrize(
    ("name", "subtype"), [("pbu-auth-mnha", MN_HA), ("bu-auth-mnha", MN_HA), ("bu-auth-mnaaa", MN_AAA)]
)
def test_a_signed_vector_verifies(name: str, subtype: AuthenticationSubtype) -> None:
    packet = packet_of(name)
    home = packet.home_address or authentication.NO_HOME_ADDRESS
    assert authentication.verify(packet.payload, KEY, packet.source, home, subtype)
    assert not authentication.verify(packet.payload, bytes(16), packet.source, home, subtype)
    assert not authentication.verify(packet.payload, KEY, packet.destination, home, subtype)


def test_a_wrong_authenticator_does_not_verify() -> None:
    packet = packet_of("malformed/m33-auth-wrong")
    home = packet.home_address or authentication.NO_HOME_ADDRESS
    assert authentication.spi_of(message_in(packet)) == 256
    assert not authentication.verify(packet.payload, KEY, packet.source, home)


@pytest.mark.parametrize(
    ("name", "subtype", "spi"),
    [
        ("pbu-auth-mnha", MN_HA, 256),
        ("bu-auth-mnha", MN_HA, 256),
        ("bu-auth-mnaaa", MN_AAA, HMAC_SHA1_SPI),
    ],
)
def test_signing_again_gives_the_octets_of_the_vector(name: str, subtype: AuthenticationSubtype, spi: int) -> None:
    packet = packet_of(name)
    message = message_in(packet)
    assert authentication.spi_of(message, subtype) == spi
    again = authentication.sign(
        without_authentication(message),
        KEY,
        spi,
        care_of=packet.source,
        source=packet.checksum_source,
        destination=packet.checksum_destination,
        home_address=packet.home_address or authentication.NO_HOME_ADDRESS,
        subtype=subtype,
    )
    assert again == packet.payload


def signed(*, checksum: bool = True) -> bytes:
    update = BindingUpdate(
        sequence_number=7,
        flags=BindingUpdateFlag.ACKNOWLEDGE | BindingUpdateFlag.PROXY_REGISTRATION,
        lifetime=3600,
        options=(MobileNodeIdentifier(identifier=b"mn1@example.net"),),
    )
    return authentication.sign(update, KEY, 256, care_of=CARE_OF, source=CARE_OF, destination=ANCHOR, checksum=checksum)


@pytest.mark.parametrize("at", [at for at in range(len(signed())) if at not in (4, 5)])
def test_no_octet_but_the_checksum_can_change_unseen(at: int) -> None:
    octets = bytearray(signed())
    octets[at] ^= 1
    assert not authentication.verify(bytes(octets), KEY, CARE_OF)


def test_the_transport_does_not_matter_to_the_authenticator() -> None:
    over_udp = signed(checksum=False)
    assert over_udp[4:6] == bytes(2)
    assert authentication.verify(over_udp, KEY, CARE_OF)


def test_an_authenticator_cut_short_does_not_verify() -> None:
    octets = bytearray(signed())
    octets[-18] = 5 + 8  # Length: 8 octets of authenticator; the other 4 become padding
    octets[-4:] = bytes((1, 2, 0, 0))
    assert not authentication.verify(bytes(octets), KEY, CARE_OF)


def test_an_option_behind_the_authenticator_is_not_trusted() -> None:
    octets = bytearray(signed()) + bytes((23, 2, 0, 1, 1, 2, 0, 0))
    octets[1] += 1
    place = len(octets) - 8 - 12
    octets[place:-8] = authentication.authenticator(KEY, CARE_OF, authentication.NO_HOME_ADDRESS, bytes(octets[:place]))
    assert not authentication.verify(bytes(octets), KEY, CARE_OF)


def test_a_message_without_the_option_does_not_verify() -> None:
    packet = packet_of("pbu-initial")
    assert authentication.spi_of(message_in(packet)) is None
    assert not authentication.verify(packet.payload, KEY, packet.source)
    assert not authentication.verify(b"", KEY, packet.source)
