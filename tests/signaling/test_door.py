"""Who is believed: keys, indices, strangers; and what leaves is signed."""

from collections import Counter
from ipaddress import IPv6Address

import pytest

from signaling.door import Door, Verdict
from signaling.errors import MalformedMessage
from signaling.iana import BindingAckFlag, Status
from signaling.settings import Authentication, Peer, Settings, Transport
from signaling.wire import mobility_header
from signaling.wire.authentication import sign
from signaling.wire.binding_ack import BindingAck
from signaling.wire.message import Message

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


def test_a_wrong_key_is_a_forgery() -> None:
    assert judge(signed(key=bytes(16)), door()) is Verdict.FORGED


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
