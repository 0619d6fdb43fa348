"""Messages made of anything their fields may hold come back equal; every option class there is takes part."""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from signaling import iana
from signaling.wire import binding_error, mobility_header, options, return_routability
from signaling.wire.binding_ack import BindingAck
from signaling.wire.binding_refresh import BindingRefreshRequest
from signaling.wire.binding_update import BindingUpdate
from signaling.wire.heartbeat import Heartbeat
from signaling.wire.message import Message
from signaling.wire.notification import UpdateNotification, UpdateNotificationAck
from signaling.wire.options import KINDS
from signaling.wire.options.lma_control import HeartbeatControl, ReregistrationControl
from signaling.wire.revocation import BindingRevocationAck, BindingRevocationIndication
from signaling.wire.traffic_selector import Range, TrafficSelector

HERE, THERE = IPv6Address("2001:db8::1"), IPv6Address("2001:db8::2")

U8, U16, U32, U64 = (st.integers(0, 2**bits - 1) for bits in (8, 16, 32, 64))
LIFETIME = st.integers(0, 0xFFFF).map(lambda units: units * 4)
IPV4 = U32.map(IPv4Address)
IPV6 = st.integers(0, 2**128 - 1).map(IPv6Address)
SHORT = st.binary(max_size=40)
EIGHT = st.binary(min_size=8, max_size=8)


def network(bits: int, kind: type[Any]) -> st.SearchStrategy[Any]:
    """Prefixes; no bits but those of the prefix, all-zero with any length."""
    addresses = st.integers(0, 2**bits - 1)
    return st.builds(lambda a, n: kind((a >> (bits - n) << (bits - n), n)), addresses, st.integers(0, bits))


NETWORK = network(128, IPv6Network)


def ranges(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Range[Any] | None]:
    pairs = st.tuples(values, values).map(sorted).map(lambda pair: Range(*pair))
    return st.one_of(st.none(), values.map(Range), pairs)


def selectors(number: iana.TrafficSelectorFormat) -> st.SearchStrategy[TrafficSelector]:
    ipv4 = number == iana.TrafficSelectorFormat.IPV4_BINARY
    addresses = ranges(IPV4 if ipv4 else IPV6)
    return st.builds(
        TrafficSelector,
        format=st.just(number),
        source=addresses,
        destination=addresses,
        spi=ranges(U32),
        flow_label=st.none() if ipv4 else ranges(st.integers(0, 0xFFFFF)),
        source_port=ranges(U16),
        destination_port=ranges(U16),
        traffic_class=ranges(U8),
        protocol=ranges(U8),
    )


IDENTIFIED = {"subtype": U8, "identifier": SHORT}
FIELDS: dict[type[options.Option], dict[str, st.SearchStrategy[Any]]] = {
    options.AccessNetworkIdentifier: {"suboptions": SHORT},
    options.AccessTechnologyTypeOption: {"technology": U8},
    options.AlternateCareOfAddress: {"address": IPV6},
    options.AnchoredPrefix: {"prefix": NETWORK},
    options.BindingAuthorizationData: {"authenticator": st.binary(min_size=1, max_size=12)},
    options.BindingIdentifier: {
        "binding_id": U16,
        "status": U8,
        "simultaneous_home": st.booleans(),
        "priority": st.integers(0, 127),
        "care_of_address": st.one_of(st.none(), IPV4, IPV6),
    },
    options.BindingRefreshAdvice: {"interval": LIFETIME},
    options.DelegatedMobileNetworkPrefix: {"prefix": st.one_of(NETWORK, network(32, IPv4Network))},
    options.DlifLinkLayerAddress: {"address": SHORT},
    options.DlifLinkLocalAddress: {"address": IPV6},
    options.FlowIdentification: {
        "flow_id": U16,
        "priority": U16,
        "status": U8,
        "binding_ids": st.one_of(st.none(), st.lists(U16, max_size=5).map(tuple)),
        "selector": st.one_of(st.none(), *map(selectors, iana.TrafficSelectorFormat)),
    },
    options.FlowSummary: {"flow_ids": st.lists(U16, max_size=9).map(tuple)},
    options.GreKey: {"key": st.one_of(st.none(), U32)},
    options.HandoffIndicatorOption: {"indicator": U8},
    options.HomeNetworkPrefix: {"prefix": NETWORK, "off_link": st.booleans()},
    options.Ipv4CareOfAddress: {"address": IPV4},
    options.Ipv4DefaultRouterAddress: {"address": IPV4},
    options.Ipv4DhcpSupportMode: {"server": st.booleans()},
    options.Ipv4HomeAddressReply: {"status": U8, "address": IPV4, "prefix_length": st.integers(0, 32)},
    options.Ipv4HomeAddressRequest: {"address": IPV4, "prefix_length": st.integers(0, 32)},
    options.LinkLocalAddress: {"address": IPV6},
    options.LmaControlledMagParameters: {
        "reregistration": st.one_of(
            st.none(),
            st.builds(
                ReregistrationControl,
                start_time=LIFETIME,
                initial_retransmission_time=U16,
                maximum_retransmission_time=U16,
            ),
        ),
        "heartbeat": st.one_of(
            st.none(),
            st.builds(HeartbeatControl, interval=U16, retransmission_delay=U16, maximum_retransmissions=U16),
        ),
    },
    options.LocalPrefix: {"prefix": NETWORK},
    options.MagIdentifier: IDENTIFIED,
    options.MagMultipathBinding: {
        "interface_technology": U8,
        "interface_label": U8,
        "binding_id": U8,
        "flags": st.sampled_from(iana.MultipathBindingFlag),
    },
    options.MobileNetworkPrefix: {"prefix": NETWORK},
    options.MobileNodeGroupIdentifier: {"subtype": U8, "identifier": U32},
    options.MobileNodeIdentifier: IDENTIFIED,
    options.MobileNodeLinkLayerIdentifier: {"identifier": SHORT},
    options.MobilityHeaderLinkLayerAddress: {"code": U8, "address": SHORT},
    options.MobilityMessageAuthentication: {"subtype": U8, "spi": U32, "data": SHORT},
    options.MobilityMessageReplayProtection: {"value": U64},
    options.NatDetection: {"force_udp": st.booleans(), "refresh_time": U32},
    options.NonceIndices: {"home": U16, "care_of": U16},
    options.PreviousMaar: {"address": IPV6, "prefix": NETWORK},
    options.RestartCounter: {"counter": U32},
    options.ServiceSelection: {"identifier": st.binary(min_size=1, max_size=40)},
    options.ServingMaar: {"address": IPV6},
    options.Timestamp: {"value": U64},
    options.VendorSpecific: {"vendor": U32, "subtype": U8, "data": SHORT},
}
UNKNOWN = st.builds(options.UnknownOption, type=st.sampled_from(sorted(set(range(2, 256)) - set(KINDS))), data=SHORT)
OPTIONS = st.lists(st.one_of(UNKNOWN, *(st.builds(kind, **values) for kind, values in FIELDS.items())), max_size=6).map(
    tuple
)

INDEXED = {"nonce_index": U16, "cookie": EIGHT, "token": EIGHT}
MESSAGES: dict[type[Message], dict[str, st.SearchStrategy[Any]]] = {
    BindingUpdate: {
        "sequence_number": U16,
        "flags": st.sampled_from(iana.BindingUpdateFlag),
        "lifetime": LIFETIME,
    },
    BindingAck: {
        "status": U8,
        "flags": st.sampled_from(iana.BindingAckFlag),
        "sequence_number": U16,
        "lifetime": LIFETIME,
    },
    BindingRefreshRequest: {},
    BindingRevocationIndication: {
        "trigger": U8,
        "sequence_number": U16,
        "flags": st.sampled_from(iana.RevocationFlag),
    },
    BindingRevocationAck: {
        "status": U8,
        "sequence_number": U16,
        "flags": st.sampled_from(iana.RevocationFlag),
    },
    Heartbeat: {"sequence_number": U32, "flags": st.sampled_from(iana.HeartbeatFlag)},
    UpdateNotification: {
        "sequence_number": U16,
        "reason": U16,
        "flags": st.sampled_from(iana.UpdateNotificationFlag),
    },
    UpdateNotificationAck: {"sequence_number": U16, "status": U8},
    binding_error.BindingError: {"status": U8, "home_address": IPV6},
    return_routability.HomeTestInit: {"cookie": EIGHT},
    return_routability.CareOfTestInit: {"cookie": EIGHT},
    return_routability.HomeTest: INDEXED,
    return_routability.CareOfTest: INDEXED,
}


def test_every_option_and_every_message_takes_part() -> None:
    assert set(FIELDS) == set(KINDS.values())
    assert set(MESSAGES) == {*mobility_header.KINDS.values(), BindingRevocationAck}


ANY_MESSAGE = st.one_of(*(st.builds(kind, options=OPTIONS, **values) for kind, values in MESSAGES.items()))


@settings(deadline=None, max_examples=400)
@given(ANY_MESSAGE)
def test_a_message_comes_back_equal(message: Message) -> None:
    octets = mobility_header.encode(message, HERE, THERE)
    assert len(octets) % 8 == 0
    assert mobility_header.decode(octets, HERE, THERE) == message


@settings(deadline=None)
@given(ANY_MESSAGE)
def test_every_option_stands_where_its_rfc_wants_it(message: Message) -> None:
    octets = mobility_header.encode(message, HERE, THERE)
    start = mobility_header.HEADER + message.LAYOUT.size
    places = [data - 2 for _, data, _ in options.frames(octets, start)]
    for place, option in zip(places, message.options, strict=True):
        assert option.alignment.gap(place) == 0
