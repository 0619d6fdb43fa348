"""Every message of tests/vectors, both ways: octets to object and back, values against index.json.

The bad ones end in the reaction their index line wants, as far as a decoder can have one.
"""

import json
import re
from collections.abc import Callable
from ipaddress import IPv6Address
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from signaling.errors import MalformedMessage, Reaction, Reason
from signaling.iana import OptionType, ProtocolNumber
from signaling.wire import ipv6, mobility_header, neighbor
from signaling.wire.binding_ack import BindingAck
from signaling.wire.binding_update import BindingUpdate
from signaling.wire.message import Message
from signaling.wire.options import (
    BindingIdentifier,
    FlowIdentification,
    HomeNetworkPrefix,
    MagMultipathBinding,
    Timestamp,
)
from signaling.wire.traffic_selector import UnreadableSelector

VECTORS = Path(__file__).parent.parent / "vectors"
INDEX = {entry["file"].removesuffix(".hex"): entry for entry in json.loads((VECTORS / "index.json").read_text())}
GOOD = [name for name, entry in INDEX.items() if not entry["malformed"]]
IPV4_UDP = 28  # octets of IPv4 and UDP header before the Mobility Header
ANY = IPv6Address(0)

# a sender puts 0 where these have the reserved bits of a later standard: re-encoded, they differ there only
RESERVED_SET = {"pbu-reserved-octet": {43, 44, 45}, "pbu-mmb-reserved-bits": {44, 45, 141, 142, 143}}


def octets_of(name: str) -> bytes:
    return bytes.fromhex((VECTORS / f"{name}.hex").read_text())


def over_ipv4(name: str) -> bool:
    return octets_of(name)[0] >> 4 == 4


def next_header(name: str) -> int:
    octets = octets_of(name)
    return ProtocolNumber.MOBILITY_HEADER if over_ipv4(name) else ipv6.decode(octets).next_header


def is_data(name: str) -> bool:
    return name.startswith("data-")


MESSAGES = [name for name in GOOD if not is_data(name)]
MOBILITY = [name for name in MESSAGES if next_header(name) == ProtocolNumber.MOBILITY_HEADER]
ICMPV6 = [name for name in MESSAGES if next_header(name) == ProtocolNumber.ICMPV6]


def decode(name: str) -> Message:
    octets = octets_of(name)
    if over_ipv4(name):
        return mobility_header.decode(octets[IPV4_UDP:], ANY, ANY, verify_checksum=False)
    packet = ipv6.decode(octets)
    if packet.next_header == ProtocolNumber.ICMPV6:
        return neighbor.decode(packet.payload, packet.source, packet.destination, packet.hop_limit)
    return mobility_header.decode(
        packet.payload, packet.checksum_source, packet.checksum_destination, offset=packet.payload_offset
    )


def encode(name: str, message: Message) -> bytes:
    octets = octets_of(name)
    if over_ipv4(name):
        return octets[:IPV4_UDP] + mobility_header.encode(message, ANY, ANY, checksum=False)
    packet = ipv6.decode(octets)
    source, destination = packet.checksum_source, packet.checksum_destination
    if packet.next_header == ProtocolNumber.ICMPV6:
        payload = neighbor.encode(message, source, destination)
    else:
        payload = mobility_header.encode(message, source, destination)
    fields = {name: getattr(packet, name) for name in ipv6.Packet.__slots__} | {"payload": payload}
    return ipv6.encode(ipv6.Packet(**fields))


def test_the_vectors_are_all_here() -> None:
    assert len(GOOD) == 101
    assert len(INDEX) - len(GOOD) == 38
    assert len(MOBILITY) + len(ICMPV6) + sum(map(is_data, GOOD)) == 101
    assert len(MOBILITY) == 84


@pytest.mark.parametrize("name", MESSAGES)
def test_a_good_message_encodes_to_the_octets_it_came_from(name: str) -> None:
    here, there = octets_of(name), encode(name, decode(name))
    assert len(here) == len(there)
    differing = {at for at, (one, other) in enumerate(zip(here, there, strict=True)) if one != other}
    assert differing <= RESERVED_SET.get(name, set())


@pytest.mark.parametrize("name", MESSAGES)
def test_a_good_message_has_no_malformed_option(name: str) -> None:
    assert decode(name).malformed() == ()


# --- values against index.json -----------------------------------------------------------------------------


class Check(NamedTuple):
    pattern: str
    value: Callable[[Any], tuple[object, ...] | list[object]]  # of the message or option, as text the groups must equal


def number(value: object) -> str:
    return str(int(value))  # type: ignore[call-overload]


def link_layer(octets: bytes) -> str:
    return octets.hex(":")


def lifetime(message: Any) -> tuple[str, ...]:
    return number(message.lifetime // 4), number(message.lifetime)


def flags_width(message: Message) -> int:
    return 4 if isinstance(message, BindingAck) else 6  # digits and 0x


OF_MESSAGES = [
    Check(r"Sequence # (\d+)", lambda m: (m.sequence_number,)),
    Check(r"Sequence Number (\d+)", lambda m: (m.sequence_number,)),
    Check(r"flags \S+ = (0x[0-9a-f]+)", lambda m: (f"{int(m.flags):#0{flags_width(m)}x}",)),
    Check(r"Lifetime (\d+) \(= (\d+) s\)", lifetime),
    Check(r"Status (\d+)", lambda m: (number(m.status),)),
    Check(r"Revocation Trigger (\d+)", lambda m: (number(m.trigger),)),
    Check(r"Notification Reason (\d+)", lambda m: (number(m.reason),)),
    Check(r"flags A=(\d) D=(\d)", lambda m: (int(bool(m.flags & 0x8000)), int(bool(m.flags & 0x4000)))),
    Check(r"14 Reserved bits, U=(\d), R=(\d)", lambda m: (int(m.unsolicited), int(m.response))),
    Check(r"Home Address (\S+)$", lambda m: (m.home_address,)),
    Check(r"(?:Home|Care-of) Nonce Index (\d+)", lambda m: (m.nonce_index,)),
    Check(r"Cur Hop Limit (\d+)", lambda m: (m.hop_limit,)),
    Check(r"M=(\d) O=(\d)", lambda m: (int(m.managed), int(m.other_configuration))),
    Check(r"Router Lifetime (\d+) s", lambda m: (m.router_lifetime,)),
    Check(r"Reachable Time (\d+)", lambda m: (m.reachable_time,)),
    Check(r"Retrans Timer (\d+)", lambda m: (m.retransmit_timer,)),
    Check(r"Target (\S+)$", lambda m: (m.target,)),
    Check(r"R=(\d) S=(\d) O=(\d)", lambda m: (int(m.router), int(m.solicited), int(m.override))),
]
OF_OPTIONS = [
    Check(r".*: Type (\d+), Length", lambda o: (o.number,)),
    Check(r"Subtype (\d+)", lambda o: (number(o.subtype),)),
    Check(r"Sub-type (\d+)", lambda o: (number(o.subtype),)),
    Check(r"Identifier '(.*)'", lambda o: (o.identifier.decode(),)),
    Check(r"Reserved/L = (0x\S+)", lambda o: ("0x80" if o.off_link else "0x00",)),
    Check(r"(?:Home Network|Anchored|Local) Prefix (\S+)$", lambda o: (o.prefix.network_address,)),
    Check(r"DMNP (\S+)$", lambda o: (o.prefix.network_address,)),
    Check(r"Prefix Length (\d+)", lambda o: (o.prefix.prefixlen,)),
    Check(r"HI = (\d+)", lambda o: (number(o.indicator),)),
    Check(r"ATT = (\d+)", lambda o: (number(o.technology),)),
    Check(r"Link-layer Identifier (\S+)", lambda o: (link_layer(o.identifier),)),
    Check(r"(?:DLIF )?Link-[Ll]ocal Address (\S+)$", lambda o: (o.address,)),
    Check(r"DLIF Link-Layer Address (\S+)$", lambda o: (link_layer(o.address),)),
    Check(r"S-MAAR's address (\S+)", lambda o: (o.address,)),
    Check(r"Timestamp: seconds (\d+), fraction (\d+)/", lambda o: divmod(o.value, 65536)),
    Check(r"Alternate Care-of Address (\S+)$", lambda o: (o.address,)),
    Check(r"Care-of Address (\S+)$", lambda o: (o.care_of_address,)),
    Check(r"BID = (\d+)", lambda o: (o.binding_id,) if hasattr(o, "binding_id") else list(o.binding_ids)),
    Check(r"H = (\d), BID-PRI = (\d+)", lambda o: (int(o.simultaneous_home), o.priority)),
    Check(r"Refresh Interval (\d+) units", lambda o: (o.interval // 4,)),
    Check(r"If-ATT = (\d+)", lambda o: (number(o.interface_technology),)),
    Check(r"If-Label = (\d+)", lambda o: (o.interface_label,)),
    Check(r"Binding ID = (\d+)", lambda o: (o.binding_id,)),
    Check(r"B=(\d) O=(\d)", lambda o: (int(o.flags) >> 23 & 1, int(o.flags) >> 22 & 1)),
    Check(r"GRE Key Identifier (0x\S+)", lambda o: (f"{o.key:#010x}",)),
    Check(r"Restart Counter (\d+)", lambda o: (o.counter,)),
    Check(r"Mobility SPI (\d+)", lambda o: (o.spi,)),
    Check(r"Mobile Node Group Identifier (\d+)$", lambda o: (o.identifier,)),
    Check(r"IPv4 home address (\S+)", lambda o: (o.address,)),
    Check(r"Pref(?:ix)?-len \(6 bits\) = (\d+)", lambda o: (o.prefix_length,)),
    Check(r"IPv4 Default-Router Address (\S+)$", lambda o: (o.address,)),
    Check(r"15 Reserved bits, S = (\d)", lambda o: (int(o.server),)),
    Check(r"F = (\d), 15 Reserved", lambda o: (int(o.force_udp),)),
    Check(r"Refresh Time (\d+) s", lambda o: (o.refresh_time,)),
    Check(r"FID = (\d+)", lambda o: (o.flow_id,) if hasattr(o, "flow_id") else list(o.flow_ids)),
    Check(r"FID-PRI = (\d+)", lambda o: (o.priority,)),
    Check(r"Status (\d+)", lambda o: (number(o.status),)),
    Check(r"TS Format (\d+)", lambda o: (number(o.selector.format),)),
    Check(r"\(A\) = (\S+)", lambda o: (o.selector.source.start,)),
    Check(r"\(B\) = (\S+)", lambda o: (o.selector.source.end,)),
    Check(r"Vendor ID (\d+)", lambda o: (o.vendor,)),
    Check(r"Sub-Type (\d+)", lambda o: (o.subtype,)),
    Check(r"Re-registration-Start-Time (\d+) units", lambda o: (o.reregistration.start_time // 4,)),
    Check(r"Maximum-Retransmission-Time (\d+)", lambda o: (o.reregistration.maximum_retransmission_time,)),
    Check(r"HB-Interval (\d+) s", lambda o: (o.heartbeat.interval,)),
    Check(r".*Link-Layer Address option: Type (\d+), Length 1, (\S+)", lambda o: (o.number, link_layer(o.address))),
    Check(r"MTU option: Type 5, Length 1, MTU (\d+)", lambda o: (o.mtu,)),
    Check(
        r"Prefix Information:.*Prefix Length (\d+), L=(\d) A=(\d)",
        lambda o: (o.prefix.prefixlen, int(o.on_link), int(o.autonomous)),
    ),
    Check(r"Valid Lifetime (\d+) s", lambda o: (o.valid_lifetime,)),
    Check(r"Preferred Lifetime (\d+) s", lambda o: (o.preferred_lifetime,)),
    Check(r"Prefix (\S+)$", lambda o: (o.prefix.network_address,)),
]
OPENS_OPTION = re.compile(r".*: Type \d+, Length")
INSIDE = re.compile("LCMP sub-option|sub-option|Home Address option|Destination Options|Routing Header")


def check(checks: list[Check], meaning: str, subject: object) -> int:
    """How many checks spoke about this meaning; all of them must agree with it."""
    spoken = 0
    for pattern, value in checks:
        found = re.match(pattern, meaning)
        if found:
            values = value(subject)
            if isinstance(values, list):  # one entry per member
                assert found[1] in map(str, values), meaning
            else:
                assert tuple(map(str, values)) == found.groups(), meaning
            spoken += 1
    return spoken


@pytest.mark.parametrize("name", [name for name in MESSAGES if not name.startswith("icmp-")])
def test_the_values_of_a_good_message_are_those_of_the_index(name: str) -> None:
    message = decode(name)
    start = IPV4_UDP if over_ipv4(name) else ipv6.decode(octets_of(name)).payload_offset
    options = iter(message.options)
    checks, subject, spoken = OF_MESSAGES, message, 0
    for at, _, meaning in INDEX[name]["fields"]:
        if at < start or INSIDE.match(meaning):
            continue
        if OPENS_OPTION.match(meaning):
            checks, subject = OF_OPTIONS, next(options)  # type: ignore[assignment]
        spoken += check(checks, meaning, subject)
    assert next(options, None) is None
    assert spoken >= len(message.options) + (name not in {"rs", "brr", "hoti", "coti"})


def test_the_values_of_the_first_update_read_as_a_sentence() -> None:
    update = decode("pbu-initial")
    assert isinstance(update, BindingUpdate)
    assert update.proxy
    assert (update.sequence_number, update.lifetime) == (1, 3600)
    prefix, sent = update.option(HomeNetworkPrefix), update.option(Timestamp)
    assert prefix is not None
    assert prefix.all_zero
    assert sent is not None
    assert sent.seconds == 1704164645.5


# --- malformed ------------------------------------------------------------------------------------------------


def bad(number: str) -> str:
    return next(name for name in INDEX if name.startswith(f"malformed/m{number}-"))


@pytest.mark.parametrize(
    ("number", "reason", "reaction", "pointer"),
    [
        ("01", Reason.CHECKSUM, Reaction.DISCARD, None),
        ("02", Reason.PAYLOAD_PROTO, Reaction.PARAMETER_PROBLEM, 40),
        ("03", Reason.HEADER_LEN, Reaction.PARAMETER_PROBLEM, 41),
        ("04", Reason.TRUNCATED, Reaction.DISCARD, None),
        ("05", Reason.UNKNOWN_TYPE, Reaction.BINDING_ERROR, None),
        ("06", Reason.OPTION_OVERRUN, Reaction.DISCARD, None),
        ("07", Reason.OPTION_TRUNCATED, Reaction.DISCARD, None),
        ("31", Reason.ROUTING_HEADER, Reaction.DISCARD, None),
        ("32", Reason.HOME_ADDRESS, Reaction.DISCARD, None),
        ("36", Reason.TRUNCATED, Reaction.DISCARD, None),
    ],
)
def test_a_broken_frame_is_no_message(number: str, reason: Reason, reaction: Reaction, pointer: int | None) -> None:
    with pytest.raises(MalformedMessage) as caught:
        decode(bad(number))
    error = caught.value
    assert (error.reason, error.reaction, error.pointer, error.code) == (reason, reaction, pointer, 0)


@pytest.mark.parametrize(
    ("number", "option"),
    [
        ("08", OptionType.HOME_NETWORK_PREFIX),
        ("09", OptionType.HOME_NETWORK_PREFIX),
        ("20", OptionType.MAG_MULTIPATH_BINDING),
        ("21", OptionType.TIMESTAMP),
        ("22", OptionType.BINDING_IDENTIFIER),
    ],
)
def test_a_broken_option_in_an_intact_frame_is_kept_apart(number: str, option: OptionType) -> None:
    message = decode(bad(number))
    (broken,) = message.malformed(option)
    assert broken.number == option
    assert message.malformed() == (broken,)


OTHER_BAD = [f"{n:02}" for n in [*range(10, 20), *range(23, 31), 33, 34]]


@pytest.mark.parametrize("number", OTHER_BAD)
def test_what_only_a_role_can_refuse_passes_the_decoder(number: str) -> None:
    assert decode(bad(number)).malformed() == ()


def test_reserved_binding_identifiers_reach_the_role() -> None:
    found = [decode(bad(number)).option(MagMultipathBinding) for number in ("15", "16")]
    assert [option.binding_id for option in found if option] == [0, 255]


def test_a_multicast_care_of_address_reaches_the_role() -> None:
    option = decode(bad("23")).option(BindingIdentifier)
    assert option is not None
    assert option.care_of_address is not None
    assert option.care_of_address.is_multicast


@pytest.mark.parametrize("number", ["27", "28"])
def test_a_selector_that_contradicts_itself_keeps_its_flow(number: str) -> None:
    flow = decode(bad(number)).option(FlowIdentification)
    assert flow is not None
    assert isinstance(flow.selector, UnreadableSelector)
