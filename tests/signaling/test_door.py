"""Who is believed: keys, indices, strangers; and what leaves is signed."""

from collections import Counter
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address

import pytest

from signaling.actions import Note
from signaling.door import PLACES_OF_A_PEER, Door, Verdict
from signaling.errors import MalformedMessage
from signaling.iana import BindingAckFlag, Status
from signaling.settings import Address, Authentication, LmaSettings, MagSettings, Peer, Settings, Transport
from signaling.wire import mobility_header
from signaling.wire.authentication import sign
from signaling.wire.binding_ack import BindingAck
from signaling.wire.message import Message
from signaling.wire.options.vendor import VendorSpecific

HERE, THERE, STRANGER = (IPv6Address(f"2001:db8:{part}::1") for part in ("a1", "a2", "bad"))
KEY = bytes(range(16))
ACK = BindingAck(
    status=Status.BINDING_UPDATE_ACCEPTED, flags=BindingAckFlag.PROXY_REGISTRATION, sequence_number=7, lifetime=300
)


def door(
    *,
    key: bytes = KEY,
    authentication: Authentication = Authentication.REQUIRED,
    transport: Transport = Transport.MOBILITY_HEADER,
) -> Door:
    settings = Settings(
        address=HERE,
        tunnel_mtu=1460,
        peers=(Peer(name="there", address=THERE, key=key),),
        authentication=authentication,
        transport=transport,
    )
    return Door(settings, Counter())


def signed(*, key: bytes = KEY, spi: int = 256, care_of: IPv6Address = THERE) -> bytes:
    return sign(ACK, key, spi, care_of=care_of, source=THERE, destination=HERE)


def unsigned() -> bytes:
    return mobility_header.encode(ACK, THERE, HERE)


def judge(octets: bytes, here: Door, *, source: IPv6Address = THERE, care_of: IPv6Address = THERE) -> Verdict:
    message = mobility_header.decode(octets, source, HERE, verify_checksum=False)
    return here.judge(octets, message, source, care_of)


def test_a_peer_that_signs_is_trusted() -> None:
    assert judge(signed(), door()) is Verdict.TRUSTED


@pytest.mark.parametrize("key", [KEY, b""], ids=["signed", "plain"])
def test_a_message_that_is_too_long_is_noted_and_counted(key: bytes) -> None:
    counters: Counter[str] = Counter()
    settings = Settings(address=HERE, tunnel_mtu=1460, peers=(Peer(name="there", address=THERE, key=key),))
    long = replace(ACK, options=(VendorSpecific(vendor=1, subtype=1, data=bytes(200)),) * 11)
    noted = Door(settings, counters).send(long, THERE, care_of=THERE)
    assert isinstance(noted, Note)
    assert (noted.event, noted.fields["peer"]) == ("not-sent", THERE)
    assert str(noted.fields["why"]).startswith("BindingAck: ")
    assert counters == {"door.unencodable": 1}


def test_a_wrong_key_is_a_forgery() -> None:
    assert judge(signed(key=bytes(16)), door()) is Verdict.FORGED


def test_a_key_is_exchanged_while_the_door_is_open() -> None:
    here = door()
    here.set_peers((Peer(name="there", address=THERE, key=bytes(16)),))
    assert judge(signed(), here) is Verdict.FORGED
    assert judge(signed(key=bytes(16)), here) is Verdict.TRUSTED


def test_a_peer_that_is_taken_away_is_a_stranger() -> None:
    here = door()
    here.set_peers(())
    assert judge(signed(), here) is Verdict.STRANGER
    assert (here.named("there"), here.peer(THERE)) == (None, None)


def test_where_a_roaming_peer_was_heard_is_remembered_with_its_new_key() -> None:
    here = door()
    roaming = Peer(name="there", address=None, key=KEY, spi=300)
    here.set_peers((roaming, Peer(name="gone", address=None, key=KEY, spi=301)))
    assert judge(signed(spi=300), here) is Verdict.TRUSTED
    assert judge(signed(spi=301, care_of=STRANGER), here, source=STRANGER, care_of=STRANGER) is Verdict.TRUSTED
    changed = Peer(name="there", address=None, key=bytes(16), spi=300)
    here.set_peers((changed,))
    assert (here.peer(THERE), here.peer(STRANGER)) == (changed, None)


def test_an_octet_changed_under_way_is_a_forgery() -> None:
    octets = bytearray(signed())
    octets[8] ^= 1
    assert judge(bytes(octets), door()) is Verdict.FORGED


def test_the_signature_covers_the_care_of_address() -> None:
    assert judge(signed(), door(), care_of=STRANGER) is Verdict.FORGED


def test_an_unknown_index_is_told_from_a_forgery() -> None:
    assert judge(signed(spi=300), door()) is Verdict.UNKNOWN_SPI


def test_a_peer_with_a_key_that_does_not_sign_is_not_believed() -> None:
    assert judge(unsigned(), door()) is Verdict.UNSIGNED


def test_a_stranger_is_not_believed() -> None:
    assert judge(unsigned(), door(), source=STRANGER) is Verdict.STRANGER


def test_a_peer_without_a_key_is_not_believed_where_keys_are_required() -> None:
    assert judge(unsigned(), door(key=b"")) is Verdict.UNSIGNED


def test_a_peer_without_a_key_is_believed_where_none_is_required() -> None:
    assert judge(unsigned(), door(key=b"", authentication=Authentication.NONE)) is Verdict.TRUSTED


def test_a_peer_with_a_key_has_to_sign_even_where_none_is_required() -> None:
    assert judge(unsigned(), door(authentication=Authentication.NONE)) is Verdict.UNSIGNED


def test_what_is_not_believed_is_counted() -> None:
    counters: Counter[str] = Counter()
    settings = Settings(address=HERE, tunnel_mtu=1460)
    judge(unsigned(), Door(settings, counters))
    assert counters == {"door.unknown-peer": 1}


def test_what_leaves_for_a_peer_is_signed_so_that_it_believes() -> None:
    action = door().send(ACK, THERE, care_of=THERE)
    settings = Settings(address=THERE, tunnel_mtu=1460, peers=(Peer(name="here", address=HERE, key=KEY),))
    other = Door(settings, Counter())
    message = other.decode(action.octets, HERE, THERE)
    assert other.judge(action.octets, message, HERE, THERE) is Verdict.TRUSTED


def test_what_leaves_for_a_peer_without_a_key_carries_no_signature() -> None:
    action = door(key=b"", authentication=Authentication.NONE).send(ACK, THERE, care_of=THERE)
    assert action.octets == mobility_header.encode(ACK, HERE, THERE)


def test_the_action_tells_what_the_octets_say() -> None:
    action = door().send(ACK, THERE, care_of=THERE, port=5436)
    assert (action.message, action.destination, action.port) == (ACK, THERE, 5436)


def test_the_checksum_is_looked_at_in_a_mobility_header() -> None:
    octets = bytearray(unsigned())
    octets[4] ^= 1
    with pytest.raises(MalformedMessage):
        door().decode(bytes(octets), THERE, HERE)


def test_the_checksum_is_not_looked_at_inside_udp() -> None:
    octets = mobility_header.encode(ACK, THERE, HERE, checksum=False)
    message: Message = door(transport=Transport.UDP).decode(octets, THERE, HERE)
    assert isinstance(message, BindingAck)


def test_the_key_is_not_shown() -> None:
    assert "000102" not in repr(Peer(name="there", address=THERE, key=KEY))
    assert "\\x01" not in repr(Peer(name="there", address=THERE, key=KEY))


# --- several addresses, none, and IPv4 ---

MORE = IPv6Address("2001:db8:a3::1")
V4_HERE, V4_THERE, V4_NAT = (IPv4Address(text) for text in ("192.0.2.1", "198.51.100.2", "203.0.113.3"))


def several() -> Door:
    peer = Peer(name="there", address=THERE, addresses=(MORE, V4_THERE), key=KEY)
    return Door(LmaSettings(address=HERE, tunnel_mtu=1400, peers=(peer,)), Counter())


def roaming(*, counters: Counter[str] | None = None) -> Door:
    peers = (
        Peer(name="mag1", address=None, key=KEY, spi=1001),
        Peer(name="mag2", address=None, key=bytes(16), spi=1002),
    )
    settings = LmaSettings(address=HERE, tunnel_mtu=1400, peers=peers, transport=Transport.UDP)
    return Door(settings, counters if counters is not None else Counter())


def gateway(address: Address, *, spi: int = 1001, key: bytes = KEY) -> Door:
    """A MAG that knows its LMA at both addresses."""
    peer = Peer(name="lma", address=HERE, addresses=(V4_HERE,), key=key, spi=spi)
    return Door(MagSettings(address=address, tunnel_mtu=1400, peers=(peer,), transport=Transport.UDP), Counter())


def heard(lma: Door, octets: bytes, source: Address, *, port: int = 0) -> tuple[Verdict, str | None]:
    message = lma.decode(octets, source, HERE)
    verdict, peer = lma.who(octets, message, source, source, port=port)
    return verdict, peer.name if peer else None


def test_a_peer_is_known_by_each_of_its_addresses_and_by_its_name() -> None:
    here = several()
    assert {here.peer(address) for address in (THERE, MORE, V4_THERE)} == {here.named("there")}
    assert here.named("nobody") is None


def test_a_message_from_any_address_of_a_peer_is_trusted() -> None:
    octets = sign(ACK, KEY, 256, care_of=MORE, source=MORE, destination=HERE)
    assert heard(several(), octets, MORE) == (Verdict.TRUSTED, "there")


def test_a_roaming_peer_is_known_by_its_index_from_wherever_it_comes() -> None:
    for address in (THERE, MORE, STRANGER):
        octets = gateway(address).send(ACK, HERE, care_of=address).octets
        assert heard(roaming(), octets, address) == (Verdict.TRUSTED, "mag1")


def test_a_roaming_peer_is_answered_with_its_key_where_it_was_heard() -> None:
    lma, mag = roaming(), gateway(THERE)
    heard(lma, mag.send(ACK, HERE, care_of=THERE).octets, THERE)
    answer = lma.send(ACK, THERE, care_of=THERE)
    assert mag.judge(answer.octets, mag.decode(answer.octets, HERE, THERE), HERE, THERE) is Verdict.TRUSTED


def test_an_address_is_learned_from_what_is_genuine_only() -> None:
    lma = roaming()
    forged = gateway(THERE, key=bytes(range(1, 17))).send(ACK, HERE, care_of=THERE).octets
    assert heard(lma, forged, THERE) == (Verdict.FORGED, None)
    assert lma.peer(THERE) is None


def test_an_index_that_no_roaming_peer_has_is_that_of_a_stranger() -> None:
    counters: Counter[str] = Counter()
    octets = gateway(THERE, spi=999).send(ACK, HERE, care_of=THERE).octets
    assert heard(roaming(counters=counters), octets, THERE) == (Verdict.STRANGER, None)
    assert counters["door.unknown-peer"] == 1


def test_behind_a_nat_the_two_ends_need_not_agree_on_the_address() -> None:
    lma, mag = roaming(), gateway(V4_THERE)
    octets = mag.send(ACK, V4_HERE, care_of=V4_THERE).octets
    assert heard(lma, octets, V4_NAT, port=40000) == (Verdict.TRUSTED, "mag1")
    answer = lma.send(ACK, V4_NAT, care_of=V4_NAT, port=40000)
    message = mag.decode(answer.octets, V4_HERE, V4_THERE)
    assert mag.judge(answer.octets, message, V4_HERE, V4_THERE) is Verdict.TRUSTED


def test_two_peers_behind_one_nat_are_told_apart_by_their_ports() -> None:
    lma = roaming()
    for spi, key, port in ((1001, KEY, 40001), (1002, bytes(16), 40002)):
        octets = gateway(V4_THERE, spi=spi, key=key).send(ACK, V4_HERE, care_of=V4_THERE).octets
        assert heard(lma, octets, V4_NAT, port=port)[0] is Verdict.TRUSTED
    answer = lma.send(ACK, V4_NAT, care_of=V4_NAT, port=40001)
    mag = gateway(V4_THERE)
    assert mag.judge(answer.octets, mag.decode(answer.octets, V4_HERE, V4_THERE), V4_HERE, V4_THERE) is Verdict.TRUSTED


def test_over_ipv6_the_address_is_covered_for_roaming_peers_too() -> None:
    octets = gateway(THERE).send(ACK, HERE, care_of=THERE).octets
    assert heard(roaming(), octets, MORE) == (Verdict.FORGED, None)


def test_the_addresses_remembered_of_one_peer_are_bounded_and_the_oldest_goes() -> None:
    lma, first = roaming(), IPv6Address("2001:db8:c::1")
    for number in range(PLACES_OF_A_PEER + 1):
        address = first + number
        heard(lma, gateway(address).send(ACK, HERE, care_of=address).octets, address)
    assert lma.peer(first) is None
    assert all(lma.peer(first + number) is not None for number in range(1, PLACES_OF_A_PEER + 1))


def test_an_address_in_use_is_not_the_oldest() -> None:
    lma, first = roaming(), IPv6Address("2001:db8:c::1")
    for number in range(2 * PLACES_OF_A_PEER):
        for address in (first + number, first):
            heard(lma, gateway(address).send(ACK, HERE, care_of=address).octets, address)
    assert lma.peer(first) is not None


def test_a_message_leaves_from_the_address_it_is_told_to() -> None:
    action = several().send(ACK, MORE, care_of=MORE, source=STRANGER)
    assert action.source == STRANGER
    assert mobility_header.decode(action.octets, STRANGER, MORE) is not None  # the checksum covers it


def test_over_ipv4_the_checksum_is_not_used() -> None:
    here = several()
    assert here.send(ACK, V4_THERE, care_of=V4_THERE).octets[4:6] == bytes(2)
    octets = bytearray(here.send(ACK, V4_THERE, care_of=V4_THERE).octets)
    octets[4] ^= 1
    assert isinstance(here.decode(bytes(octets), V4_THERE, V4_HERE), BindingAck)


def test_the_care_of_address_of_a_path_is_the_end_that_is_the_gateway() -> None:
    assert roaming().path_care_of(HERE, THERE) == THERE
    assert gateway(THERE).path_care_of(MORE, HERE) == MORE
    assert gateway(THERE).path_care_of(None, HERE) == THERE
