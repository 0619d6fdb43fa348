"""DHCP of a MAG: what a client hears, what the anchor is asked, and what strangers can make us do."""

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from signaling import address_service
from signaling.access_link import ROUTER_ADDRESS, ROUTER_LINK_LAYER
from signaling.actions import GiveAddress
from signaling.address_service import PATIENCE, AddressService, Answer, Frame, Outcome
from signaling.dhcpv4_answers import DUMMY_SERVER
from signaling.dhcpv6_answers import SERVER
from signaling.events import AddressAsked, AddressReleased, LinkAttached
from signaling.iana import ArpOperation, Dhcpv4MessageType, Dhcpv6MessageType, Dhcpv6Option, Dhcpv6Status, EtherType
from signaling.settings import Counters, MagSettings, Wants
from signaling.wire import arp, dhcpv4, dhcpv6, udp
from signaling.wire.arp import ArpPacket
from signaling.wire.dhcpv4 import BROADCAST, NO_ADDRESS, Dhcpv4Message
from signaling.wire.dhcpv6 import AddressAssociation, DelegatedPrefix, Dhcpv6Message, PrefixAssociation, StatusCode

MAC = bytes.fromhex("020000000011")
ADDRESS, OTHER, ROUTER = IPv4Address("10.1.0.17"), IPv4Address("10.1.0.99"), IPv4Address("10.1.0.1")
HOST = IPv6Address("fe80::11")
DELEGATED, OLD = IPv6Network("2001:db8:d0::/56"), IPv6Network("2001:db8:d7::/56")
CLIENT = bytes.fromhex("00030001020000000011")
SETTINGS = MagSettings(address=IPv6Address("2001:db8::a"), tunnel_mtu=1400, valid_lifetime=7200)
GIVEN = GiveAddress(
    node="mn1",
    interface="eth1",
    link_layer=MAC,
    wants=Wants.IPV4,
    prefix=IPv4Network(ADDRESS),
    subnet_length=24,
    default_router=ROUTER,
    lifetime=300,
)
GIVEN_PREFIX = replace(GIVEN, wants=Wants.DELEGATED, prefix=DELEGATED, default_router=None, lifetime=600)
Kind4, Kind6 = Dhcpv4MessageType, Dhcpv6MessageType


class Link:
    """A service, its clock, and one client on its link."""

    def __init__(self, node: str = "mn1", link_layer: bytes = MAC) -> None:
        self.counters = Counters()
        self.service = AddressService(SETTINGS, self.counters)
        self.now = 100.0
        self.frame = Frame(node=node, interface="eth1", link_layer=link_layer, ether_type=EtherType.IPV4, packet=b"")

    def receive(self, ether_type: EtherType, packet: bytes) -> Outcome:
        return self.service.receive(replace(self.frame, ether_type=ether_type, packet=packet), self.now)

    def ask(self, kind: Dhcpv4MessageType, to: IPv4Address = BROADCAST, **fields: object) -> Outcome:
        message = Dhcpv4Message(
            **{"type": kind, "transaction": 7, "link_layer": self.frame.link_layer} | fields  # type: ignore[arg-type]
        )
        source = message.client_address
        datagram = udp.Datagram(
            source=source, destination=to, source_port=68, destination_port=67, payload=dhcpv4.encode(message)
        )
        return self.receive(EtherType.IPV4, udp.encode(datagram))

    def ask6(self, kind: Dhcpv6MessageType, to: IPv6Address = dhcpv6.ALL_SERVERS, **fields: object) -> Outcome:
        named = kind in (Kind6.REQUEST, Kind6.RENEW, Kind6.RELEASE, Kind6.DECLINE)
        values = {"type": kind, "transaction": 9, "client": CLIENT, "server": SERVER if named else None} | fields
        payload = dhcpv6.encode(Dhcpv6Message(**values))  # type: ignore[arg-type]
        datagram = udp.Datagram(source=HOST, destination=to, source_port=546, destination_port=547, payload=payload)
        return self.receive(EtherType.IPV6, udp.encode(datagram))

    def give(self, action: GiveAddress = GIVEN) -> tuple[Answer, ...]:
        return self.service.give(action, self.now)

    def lease(self) -> None:
        self.ask(Kind4.DISCOVER)
        self.give()

    def arp(self, target: IPv4Address, sender: IPv4Address = ADDRESS) -> Outcome:
        packet = ArpPacket(operation=ArpOperation.REQUEST, sender_link_layer=MAC, sender=sender, target=target)
        return self.receive(EtherType.ARP, arp.encode(packet))


@pytest.fixture
def link() -> Link:
    return Link()


def told(answers: tuple[Answer, ...]) -> tuple[Dhcpv4Message, udp.Datagram]:
    """The one IPv4 answer, as its octets say, and what carried it."""
    (answer,) = answers
    assert (answer.interface, answer.link_layer, answer.ether_type) == ("eth1", MAC, EtherType.IPV4)
    datagram = udp.decode(answer.packet)
    message = dhcpv4.decode(datagram.payload)
    assert message == answer.says
    return message, datagram


def told6(answers: tuple[Answer, ...]) -> Dhcpv6Message:
    (answer,) = answers
    datagram = udp.decode(answer.packet)
    assert (datagram.source, datagram.destination, datagram.destination_port) == (ROUTER_ADDRESS, HOST, 546)
    message = dhcpv6.decode(datagram.payload)
    assert message == answer.says
    return message


def asked(outcome: Outcome) -> list[AddressAsked]:
    return [event for event in outcome.events if isinstance(event, AddressAsked)]


def delegation(*prefixes: IPv6Network, iaid: int = 1) -> PrefixAssociation:
    return PrefixAssociation(iaid=iaid, prefixes=tuple(DelegatedPrefix(prefix=prefix) for prefix in prefixes))


# Who is there, and what the anchor is asked


def test_a_host_that_speaks_nothing_but_dhcp_is_attached_and_the_anchor_is_asked(link: Link) -> None:
    outcome = link.ask(Kind4.DISCOVER)
    assert outcome.answers == ()
    assert outcome.events == (
        LinkAttached(node="mn1", interface="eth1", link_layer=MAC, link_local=None, trigger="dhcp"),
        AddressAsked(node="mn1", interface="eth1", link_layer=MAC, wants=Wants.IPV4),
    )


def test_the_address_a_client_had_is_a_hint_for_the_anchor(link: Link) -> None:
    (event,) = asked(link.ask(Kind4.DISCOVER, requested_address=ADDRESS))
    assert event.hint == IPv4Network(ADDRESS)


def test_a_client_that_repeats_itself_at_once_asks_the_anchor_once(link: Link) -> None:
    assert asked(link.ask(Kind4.DISCOVER))
    assert not asked(link.ask(Kind4.DISCOVER))
    link.now += 1
    assert asked(link.ask(Kind4.DISCOVER))


def test_a_discover_waits_for_the_anchor_and_is_offered_its_address(link: Link) -> None:
    link.ask(Kind4.DISCOVER, client_identifier=b"\1abc")
    message, datagram = told(link.give())
    assert message == Dhcpv4Message(
        type=Kind4.OFFER,
        from_client=False,
        transaction=7,
        link_layer=MAC,
        your_address=ADDRESS,
        server_identifier=ROUTER,
        lease_time=300,
        renewal_time=150,
        rebinding_time=262,
        subnet_length=24,
        router=ROUTER,
        mtu=1400,
        client_identifier=b"\1abc",
    )
    assert (datagram.source, datagram.destination) == (ROUTER, ADDRESS)
    assert (datagram.source_port, datagram.destination_port) == (67, 68)


def test_the_last_question_is_the_one_that_is_answered(link: Link) -> None:
    link.ask(Kind4.DISCOVER, transaction=1)
    link.ask(Kind4.DISCOVER, transaction=2)
    assert told(link.give())[0].transaction == 2
    assert link.give() == ()


def test_a_question_does_not_wait_for_ever(link: Link) -> None:
    link.ask(Kind4.DISCOVER)
    link.now += PATIENCE + 1
    assert link.give() == ()


def test_a_client_that_hears_broadcast_only_is_told_by_broadcast_in_a_frame_to_it_alone(link: Link) -> None:
    link.ask(Kind4.DISCOVER, broadcast=True)
    assert told(link.give())[1].destination == BROADCAST


def test_no_address_from_the_anchor_is_no_offer(link: Link) -> None:
    link.ask(Kind4.DISCOVER)
    assert link.give(replace(GIVEN, prefix=None)) == ()


# Requests (RFC 2131 4.3.2)


def test_a_client_that_takes_the_offer_is_acknowledged_without_another_question(link: Link) -> None:
    link.lease()
    link.now += 1
    outcome = link.ask(Kind4.REQUEST, server_identifier=ROUTER, requested_address=ADDRESS)
    message, _ = told(outcome.answers)
    assert (message.type, message.your_address, message.lease_time) == (Kind4.ACK, ADDRESS, 299)
    assert not asked(outcome)


def test_a_client_that_takes_the_offer_of_another_server_hears_nothing(link: Link) -> None:
    link.lease()
    assert link.ask(Kind4.REQUEST, server_identifier=OTHER, requested_address=ADDRESS).answers == ()


def test_a_client_that_requests_another_address_is_refused(link: Link) -> None:
    link.lease()
    message, datagram = told(link.ask(Kind4.REQUEST, server_identifier=ROUTER, requested_address=OTHER).answers)
    assert (message.type, message.your_address, message.server_identifier) == (Kind4.NAK, NO_ADDRESS, ROUTER)
    assert (message.lease_time, datagram.destination) == (None, BROADCAST)


REQUESTS = {
    "renewing": (ROUTER, {"client_address": ADDRESS}),
    "rebinding": (BROADCAST, {"client_address": ADDRESS}),
    "rebooting": (BROADCAST, {"requested_address": ADDRESS}),
}


@pytest.mark.parametrize("state", REQUESTS)
def test_after_a_move_the_new_gateway_asks_the_anchor_and_acknowledges(link: Link, state: str) -> None:
    to, fields = REQUESTS[state]
    outcome = link.ask(Kind4.REQUEST, to, **fields)
    assert outcome.answers == ()
    assert asked(outcome)[0].hint == IPv4Network(ADDRESS)
    message, _ = told(link.give())
    assert (message.type, message.your_address, message.server_identifier) == (Kind4.ACK, ADDRESS, ROUTER)


@pytest.mark.parametrize("state", REQUESTS)
def test_after_a_move_a_client_whose_address_changed_is_refused(link: Link, state: str) -> None:
    to, fields = REQUESTS[state]
    link.ask(Kind4.REQUEST, to, **fields)
    assert told(link.give(replace(GIVEN, prefix=IPv4Network(OTHER))))[0].type == Kind4.NAK


@pytest.mark.parametrize("state", ["rebinding", "rebooting"])
def test_a_client_whose_anchor_refuses_it_is_refused(link: Link, state: str) -> None:
    to, fields = REQUESTS[state]
    link.ask(Kind4.REQUEST, to, **fields)
    message, datagram = told(link.give(replace(GIVEN, prefix=None)))
    assert (message.type, datagram.source) == (Kind4.NAK, DUMMY_SERVER)


def test_an_address_that_was_withdrawn_is_refused_when_it_is_renewed(link: Link) -> None:
    link.lease()
    withdrawn = replace(GIVEN, prefix=None)
    assert link.give(withdrawn) == ()
    assert asked(link.ask(Kind4.REQUEST, ROUTER, client_address=ADDRESS))
    message, datagram = told(link.give(withdrawn))
    assert (message.type, datagram.source, datagram.destination) == (Kind4.NAK, ROUTER, BROADCAST)


def test_a_renewal_is_told_at_the_address_the_client_has(link: Link) -> None:
    link.lease()
    message, datagram = told(link.ask(Kind4.REQUEST, ROUTER, client_address=ADDRESS).answers)
    assert (message.client_address, datagram.destination) == (ADDRESS, ADDRESS)


def test_a_renewal_with_another_server_is_not_ours(link: Link) -> None:
    link.lease()
    assert link.ask(Kind4.REQUEST, IPv4Address("192.0.2.1"), client_address=ADDRESS).answers == ()


def test_a_lease_is_not_extended_beyond_what_the_anchor_gave_without_asking_it(link: Link) -> None:
    link.lease()
    link.now += 151
    outcome = link.ask(Kind4.REQUEST, ROUTER, client_address=ADDRESS)
    assert outcome.answers == ()
    assert asked(outcome)
    assert told(link.give())[0].lease_time == 300


def test_a_lease_is_not_longer_than_addresses_are_valid_here(link: Link) -> None:
    link.ask(Kind4.DISCOVER)
    assert told(link.give(replace(GIVEN, lifetime=262140)))[0].lease_time == 7200


def test_a_node_that_appears_on_another_link_is_asked_about_again(link: Link) -> None:
    link.lease()
    link.frame = replace(link.frame, interface="eth2")
    assert asked(link.ask(Kind4.REQUEST, requested_address=ADDRESS))


def test_a_node_that_was_forgotten_is_asked_about_again(link: Link) -> None:
    link.lease()
    link.service.forget("mn1")
    assert asked(link.ask(Kind4.REQUEST, requested_address=ADDRESS))


# The other messages


def test_who_has_its_address_is_informed_of_the_rest(link: Link) -> None:
    link.lease()
    message, datagram = told(link.ask(Kind4.INFORM, client_address=ADDRESS).answers)
    assert (message.type, message.router, message.mtu, message.subnet_length) == (Kind4.ACK, ROUTER, 1400, 24)
    assert (message.lease_time, message.your_address, datagram.destination) == (None, NO_ADDRESS, ADDRESS)


def test_who_has_another_address_is_not_informed(link: Link) -> None:
    link.lease()
    assert link.ask(Kind4.INFORM, client_address=OTHER).answers == ()


@pytest.mark.parametrize(
    ("kind", "fields", "reason"),
    [
        (Kind4.RELEASE, {"client_address": ADDRESS, "server_identifier": ROUTER}, "release"),
        (Kind4.DECLINE, {"requested_address": ADDRESS, "server_identifier": ROUTER}, "decline"),
    ],
)
def test_an_address_given_back_is_told_the_role_and_not_answered(
    link: Link, kind: Dhcpv4MessageType, fields: dict[str, object], reason: str
) -> None:
    link.lease()
    outcome = link.ask(kind, **fields)
    assert outcome.answers == ()
    assert outcome.events == (
        AddressReleased(
            node="mn1",
            interface="eth1",
            link_layer=MAC,
            wants=Wants.IPV4,
            prefix=IPv4Network(ADDRESS),
            reason=reason,
        ),
    )
    assert asked(link.ask(Kind4.DISCOVER))


@pytest.mark.parametrize(
    "fields", [{"client_address": OTHER}, {"client_address": ADDRESS, "server_identifier": OTHER}, {}]
)
def test_nobody_gives_back_what_is_not_leased_to_it_here(link: Link, fields: dict[str, object]) -> None:
    link.lease()
    assert link.ask(Kind4.RELEASE, **fields) == Outcome()


@pytest.mark.parametrize(
    "fields",
    [
        {"relay_address": OTHER},
        {"link_layer": MAC[::-1]},
        {"from_client": False},
        {"type": Kind4.OFFER},
        {"type": 13},
    ],
)
def test_what_is_not_from_a_client_of_this_link_itself_is_ignored(link: Link, fields: dict[str, object]) -> None:
    assert link.ask(Kind4.DISCOVER, **fields) == Outcome()


def test_what_goes_to_another_port_is_ignored(link: Link) -> None:
    for ether_type, source, message in (
        (EtherType.IPV4, ADDRESS, dhcpv4.encode(Dhcpv4Message(type=Kind4.DISCOVER, transaction=1, link_layer=MAC))),
        (EtherType.IPV6, HOST, dhcpv6.encode(Dhcpv6Message(type=Kind6.INFORMATION_REQUEST, transaction=1))),
    ):
        to = BROADCAST if source.version == 4 else dhcpv6.ALL_SERVERS
        datagram = udp.Datagram(source=source, destination=to, source_port=68, destination_port=68, payload=message)
        assert link.receive(ether_type, udp.encode(datagram)) == Outcome()


# ARP


def test_whatever_a_node_looks_for_in_its_subnet_is_found_at_the_router(link: Link) -> None:
    link.lease()
    for target in (ROUTER, OTHER):
        (answer,) = link.arp(target).answers
        assert answer.link_layer == MAC
        assert arp.decode(answer.packet) == ArpPacket(
            operation=ArpOperation.REPLY,
            sender_link_layer=ROUTER_LINK_LAYER,
            sender=target,
            target_link_layer=MAC,
            target=ADDRESS,
        )


@pytest.mark.parametrize(
    ("target", "sender"),
    [
        (ADDRESS, IPv4Address(0)),  # a probe whether the address is free
        (OTHER, IPv4Address(0)),
        (ADDRESS, ADDRESS),  # an announcement
        (OTHER, ROUTER),
        (IPv4Address("192.0.2.1"), ADDRESS),
    ],
)
def test_other_arp_is_not_answered(link: Link, target: IPv4Address, sender: IPv4Address) -> None:
    link.lease()
    assert link.arp(target, sender) == Outcome()


def test_arp_in_the_name_of_another_is_not_answered(link: Link) -> None:
    link.lease()
    packet = ArpPacket(operation=ArpOperation.REQUEST, sender_link_layer=MAC[::-1], sender=ADDRESS, target=ROUTER)
    assert link.receive(EtherType.ARP, arp.encode(packet)) == Outcome()


def test_arp_of_a_node_without_a_lease_is_not_answered(link: Link) -> None:
    assert link.arp(ROUTER) == Outcome()
    link.lease()
    link.now += 301
    assert link.arp(ROUTER) == Outcome()


# DHCPv6 (RFC 8415 18.3)


def test_a_moving_router_is_delegated_the_prefix_of_its_session(link: Link) -> None:
    outcome = link.ask6(Kind6.SOLICIT, delegations=(delegation(OLD),))
    (event,) = asked(outcome)
    assert (event.wants, event.hint, event.link_local) == (Wants.DELEGATED, OLD, HOST)
    advertised = told6(link.give(GIVEN_PREFIX))
    assert advertised == Dhcpv6Message(
        type=Kind6.ADVERTISE,
        transaction=9,
        client=CLIENT,
        server=SERVER,
        preference=255,
        delegations=(
            PrefixAssociation(
                iaid=1,
                renew_after=300,
                rebind_after=480,
                prefixes=(DelegatedPrefix(prefix=DELEGATED, preferred_lifetime=600, valid_lifetime=600),),
            ),
        ),
    )
    reply = told6(link.ask6(Kind6.REQUEST, delegations=advertised.delegations).answers)
    assert (reply.type, reply.delegations) == (Kind6.REPLY, advertised.delegations)


def test_a_wish_for_a_length_is_no_hint(link: Link) -> None:
    (event,) = asked(link.ask6(Kind6.SOLICIT, delegations=(delegation(IPv6Network("::/48")),)))
    assert event.hint is None


def test_rapid_commit_delegates_in_one_step(link: Link) -> None:
    link.ask6(Kind6.SOLICIT, rapid_commit=True, delegations=(delegation(),))
    reply = told6(link.give(GIVEN_PREFIX))
    assert (reply.type, reply.rapid_commit, reply.delegations[0].prefixes[0].prefix) == (Kind6.REPLY, True, DELEGATED)


def test_of_several_associations_the_one_that_knows_the_prefix_has_it(link: Link) -> None:
    both = (delegation(iaid=1), delegation(DELEGATED, iaid=2))
    link.ask6(Kind6.SOLICIT, delegations=both)
    first, second = told6(link.give(GIVEN_PREFIX)).delegations
    assert first.status == StatusCode(Dhcpv6Status.NO_PREFIX_AVAIL)
    assert second.prefixes[0].prefix == DELEGATED


@pytest.mark.parametrize("kind", [Kind6.SOLICIT, Kind6.REQUEST])
def test_without_a_prefix_from_the_anchor_none_is_available(link: Link, kind: Dhcpv6MessageType) -> None:
    link.ask6(kind, rapid_commit=True, delegations=(delegation(),))
    answer = told6(link.give(replace(GIVEN_PREFIX, prefix=None)))
    assert answer.type == (Kind6.ADVERTISE if kind == Kind6.SOLICIT else Kind6.REPLY)
    assert answer.delegations == (PrefixAssociation(iaid=1, status=StatusCode(Dhcpv6Status.NO_PREFIX_AVAIL)),)


@pytest.mark.parametrize("kind", [Kind6.SOLICIT, Kind6.REQUEST])
def test_addresses_are_never_leased_and_the_anchor_is_not_bothered(link: Link, kind: Dhcpv6MessageType) -> None:
    outcome = link.ask6(kind, addresses=(AddressAssociation(iaid=5),))
    (association,) = told6(outcome.answers).addresses
    assert (association.iaid, association.status and association.status.code) == (5, Dhcpv6Status.NO_ADDRS_AVAIL)
    assert not asked(outcome)


@pytest.mark.parametrize("kind", [Kind6.RENEW, Kind6.REBIND])
def test_after_a_move_a_delegation_is_renewed_by_the_same_server(link: Link, kind: Dhcpv6MessageType) -> None:
    assert asked(link.ask6(kind, delegations=(delegation(DELEGATED),)))[0].hint == DELEGATED
    reply = told6(link.give(GIVEN_PREFIX))
    assert reply.server == SERVER
    assert [item.valid_lifetime for item in reply.delegations[0].prefixes] == [600]


def test_a_prefix_that_changed_ends_and_the_new_one_comes_with_it(link: Link) -> None:
    link.ask6(Kind6.RENEW, delegations=(delegation(OLD),))
    (association,) = told6(link.give(GIVEN_PREFIX)).delegations
    assert [(item.prefix, item.valid_lifetime) for item in association.prefixes] == [(DELEGATED, 600), (OLD, 0)]


def test_a_wish_for_a_length_is_not_answered_with_an_end(link: Link) -> None:
    link.ask6(Kind6.RENEW, delegations=(delegation(IPv6Network("::/56")),))
    (association,) = told6(link.give(GIVEN_PREFIX)).delegations
    assert [item.prefix for item in association.prefixes] == [DELEGATED]


def test_a_prefix_is_not_preferred_longer_than_prefixes_are_here(link: Link) -> None:
    link.ask6(Kind6.SOLICIT, delegations=(delegation(),))
    (association,) = told6(link.give(replace(GIVEN_PREFIX, lifetime=262140))).delegations
    assert [(item.preferred_lifetime, item.valid_lifetime) for item in association.prefixes] == [(1800, 7200)]
    assert (association.renew_after, association.rebind_after) == (900, 1440)


def test_who_asks_from_beyond_the_link_is_ignored(link: Link) -> None:
    message = Dhcpv6Message(type=Kind6.SOLICIT, transaction=1, client=CLIENT, delegations=(delegation(),))
    datagram = udp.Datagram(
        source=IPv6Address("2001:db8::11"),
        destination=dhcpv6.ALL_SERVERS,
        source_port=546,
        destination_port=547,
        payload=dhcpv6.encode(message),
    )
    assert link.receive(EtherType.IPV6, udp.encode(datagram)) == Outcome()


def test_a_prefix_that_was_withdrawn_ends(link: Link) -> None:
    withdrawn = replace(GIVEN_PREFIX, prefix=None)
    link.ask6(Kind6.RENEW, delegations=(delegation(DELEGATED), delegation(iaid=2)))
    first, second = told6(link.give(withdrawn)).delegations
    assert first.prefixes == (DelegatedPrefix(prefix=DELEGATED),)
    assert second.status == StatusCode(Dhcpv6Status.NO_BINDING)


def test_a_release_ends_the_delegation(link: Link) -> None:
    link.give(GIVEN_PREFIX)
    outcome = link.ask6(Kind6.RELEASE, delegations=(delegation(DELEGATED), delegation(OLD, iaid=2)))
    reply = told6(outcome.answers)
    assert reply.status == StatusCode(Dhcpv6Status.SUCCESS)
    assert reply.delegations == (PrefixAssociation(iaid=2, status=StatusCode(Dhcpv6Status.NO_BINDING)),)
    (event,) = outcome.events
    assert isinstance(event, AddressReleased)
    assert (event.wants, event.prefix, event.reason) == (Wants.DELEGATED, DELEGATED, "release")
    assert asked(link.ask6(Kind6.RENEW, delegations=(delegation(DELEGATED),)))


def test_a_release_of_something_else_ends_nothing(link: Link) -> None:
    link.give(GIVEN_PREFIX)
    assert link.ask6(Kind6.RELEASE, delegations=(delegation(OLD),)).events == ()


def test_a_confirm_hears_that_its_addresses_are_not_from_here(link: Link) -> None:
    address = AddressAssociation(iaid=1, addresses=(IPv6Address("2001:db8::1"),))
    reply = told6(link.ask6(Kind6.CONFIRM, addresses=(address,)).answers)
    assert reply.status == StatusCode(Dhcpv6Status.NOT_ON_LINK)
    assert link.ask6(Kind6.CONFIRM, delegations=(delegation(DELEGATED),)).answers == ()


def test_a_decline_is_answered_as_for_addresses_nobody_leased(link: Link) -> None:
    reply = told6(link.ask6(Kind6.DECLINE, addresses=(AddressAssociation(iaid=1),)).answers)
    assert reply.status == StatusCode(Dhcpv6Status.SUCCESS)
    assert reply.addresses == (AddressAssociation(iaid=1, status=StatusCode(Dhcpv6Status.NO_BINDING)),)


def test_an_information_request_is_answered_also_without_a_client_identifier(link: Link) -> None:
    reply = told6(link.ask6(Kind6.INFORMATION_REQUEST, client=None).answers)
    assert (reply.type, reply.client, reply.server) == (Kind6.REPLY, None, SERVER)


def test_who_asks_our_own_address_is_told_to_use_multicast(link: Link) -> None:
    reply = told6(link.ask6(Kind6.RENEW, ROUTER_ADDRESS, delegations=(delegation(DELEGATED),)).answers)
    assert reply.status == StatusCode(Dhcpv6Status.USE_MULTICAST)
    assert link.ask6(Kind6.SOLICIT, ROUTER_ADDRESS, delegations=(delegation(),)) == Outcome()


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        (Kind6.SOLICIT, {"client": None}),
        (Kind6.SOLICIT, {"server": SERVER}),
        (Kind6.REQUEST, {"server": CLIENT}),
        (Kind6.RENEW, {"server": None}),
        (Kind6.REBIND, {"server": SERVER}),
        (Kind6.INFORMATION_REQUEST, {"server": CLIENT}),
        (Kind6.INFORMATION_REQUEST, {"delegations": (delegation(),)}),
        (Kind6.REPLY, {}),
        (Kind6.RECONFIGURE, {}),
        (Kind6.RELAY_FORW, {}),
        (Kind6.SOLICIT, {"to": IPv6Address("2001:db8::547")}),
    ],
)
def test_a_message_that_is_not_as_its_kind_must_be_is_ignored(
    link: Link, kind: Dhcpv6MessageType, fields: dict[str, object]
) -> None:
    assert link.ask6(kind, **fields) == Outcome()  # type: ignore[arg-type]


def test_an_answer_fits_in_a_packet_however_many_associations_are_asked_for(link: Link) -> None:
    many = tuple(delegation(*[OLD] * 20, iaid=iaid) for iaid in range(60))
    link.ask6(
        Kind6.RENEW,
        client=bytes(130),
        delegations=many,
        addresses=tuple(AddressAssociation(kind=Dhcpv6Option.IA_TA, iaid=iaid) for iaid in range(60)),
    )
    (answer,) = link.give(GIVEN_PREFIX)
    assert len(answer.packet) <= 1280


# Bounds


def test_a_client_that_never_stops_asking_is_heard_so_often_and_no_more(link: Link) -> None:
    link.lease()
    outcomes = [link.ask(Kind4.DISCOVER) for _ in range(1000)]
    assert sum(len(outcome.answers) for outcome in outcomes) < 20
    assert link.counters["dhcp.too-many-questions"] > 900


def test_arp_is_answered_so_often_and_no_more(link: Link) -> None:
    link.lease()
    assert sum(len(link.arp(OTHER).answers) for _ in range(1000)) == 100


def strangers(link: Link, count: int) -> int:
    """How many of so many clients that nobody knows make us ask the anchor."""
    heard = 0
    for number in range(count):
        link_layer = b"\2\0" + number.to_bytes(4, "big")
        link.frame = replace(link.frame, node=link_layer.hex(), link_layer=link_layer)
        heard += len(asked(link.ask(Kind4.DISCOVER)))
    return heard


def test_clients_nobody_knows_come_in_so_fast_and_no_faster(link: Link) -> None:
    assert strangers(link, 1000) == 200


def test_a_full_table_takes_nobody_else(link: Link, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(address_service, "MAX_CLIENTS", 10)
    assert strangers(link, 20) == 10
    assert link.give() == ()
    assert link.service.rows(link.now) == []


def test_who_never_got_anything_is_forgotten(link: Link) -> None:
    strangers(link, 10)
    assert link.service.next_wake == link.now + PATIENCE
    link.now += PATIENCE
    link.service.wake(link.now)
    assert link.service.next_wake is None


def test_a_lease_is_remembered_until_it_ends(link: Link) -> None:
    link.lease()
    assert link.service.rows(link.now) == [
        {"node": "mn1", "interface": "eth1", "wants": "ipv4", "prefix": "10.1.0.17/32", "left": 300}
    ]
    link.now += 299
    link.service.wake(link.now)
    assert len(link.service.rows(link.now)) == 1
    link.now += 1
    link.service.wake(link.now)
    assert link.service.next_wake is None


def test_a_question_put_later_keeps_its_client_remembered(link: Link) -> None:
    link.ask(Kind4.DISCOVER)
    link.now += 20
    link.ask(Kind4.DISCOVER)
    link.now += 10
    link.service.wake(link.now)
    assert told(link.give())[0].type == Kind4.OFFER


# Anything


@given(st.sampled_from(list(EtherType)), st.binary(max_size=400), st.booleans())
def test_no_frame_whatever_raises_anything(ether_type: EtherType, octets: bytes, framed: bool) -> None:
    link = Link()
    link.lease()
    if framed:
        ipv4 = ether_type == EtherType.IPV4
        ends = (ADDRESS, BROADCAST) if ipv4 else (HOST, dhcpv6.ALL_SERVERS)
        port = 67 if ipv4 else 547
        head = dhcpv4.encode(Dhcpv4Message(type=Kind4.REQUEST, transaction=1, link_layer=MAC))[:240] if ipv4 else b""
        octets = udp.encode(
            udp.Datagram(
                source=ends[0], destination=ends[1], source_port=1, destination_port=port, payload=head + octets
            )
        )
    link.receive(ether_type, octets)
    link.give()
    link.give(GIVEN_PREFIX)


@given(st.data())
def test_no_message_whatever_leaves_us_without_an_encoding_for_its_answer(data: st.DataObject) -> None:
    link = Link()
    link.give(GIVEN_PREFIX)
    prefixes = st.sampled_from([DELEGATED, OLD, IPv6Network("::/0"), IPv6Network("::1/128")])
    associations = st.builds(
        PrefixAssociation,
        iaid=st.integers(0, 3),
        prefixes=st.lists(st.builds(DelegatedPrefix, prefix=prefixes), max_size=3).map(tuple),
    )
    outcome = link.ask6(
        data.draw(st.sampled_from(sorted(set(Kind6) - {Kind6.RELAY_FORW, Kind6.RELAY_REPL}))),
        delegations=data.draw(st.lists(associations, max_size=4).map(tuple)),
        rapid_commit=data.draw(st.booleans()),
    )
    for answer in outcome.answers:
        told6((answer,))
