"""What a DHCPv6 client is told (RFC 8415 18.3): the delegated prefix of its session (RFC 7148), and no address.

Every MAG answers as the same server, so a router that moved goes on with the prefix it has. Addresses come from Router
Advertisements: whoever asks for one hears that there is none.
"""

from dataclasses import dataclass, replace
from ipaddress import IPv6Network

from signaling.access_link import ROUTER_LINK_LAYER
from signaling.iana import Dhcpv6MessageType as Kind
from signaling.iana import Dhcpv6Status as Status
from signaling.wire.dhcpv6 import (
    AddressAssociation,
    DelegatedPrefix,
    Dhcpv6Message,
    PrefixAssociation,
    StatusCode,
)

SERVER = b"\0\3\0\1" + ROUTER_LINK_LAYER  # DUID-LL (RFC 8415 11.4) of the router that looks the same everywhere
BEST = 255  # preference: the client need not wait for other servers, RFC 8415 18.2.1
RENEW_AT, REBIND_AT = 0.5, 0.8  # of the preferred lifetime, RFC 8415 21.21
MAX_ASSOCIATIONS = 4  # of a kind in one answer, so that it fits in a packet of 1280 octets
MAX_PREFIXES = 4  # of an association, for the same reason

TO_ANY_SERVER = {Kind.SOLICIT, Kind.CONFIRM, Kind.REBIND}
TO_THIS_SERVER = {Kind.REQUEST, Kind.RENEW, Kind.RELEASE, Kind.DECLINE}
ABOUT_THE_LEASE = {Kind.SOLICIT, Kind.REQUEST, Kind.RENEW, Kind.REBIND}
NO_ADDRESSES = StatusCode(Status.NO_ADDRS_AVAIL, "addresses come from router advertisements")
NO_PREFIX = StatusCode(Status.NO_PREFIX_AVAIL)
NO_BINDING = StatusCode(Status.NO_BINDING)


@dataclass(frozen=True, slots=True, kw_only=True)
class Delegation:
    """What a moving router is given. Lifetimes in s, from now."""

    prefix: IPv6Network
    preferred_lifetime: int
    valid_lifetime: int


def is_for_us(question: Dhcpv6Message) -> bool:
    """Whether it names the server and the client as its kind must (RFC 8415 16)."""
    if question.type in TO_ANY_SERVER:
        return question.client is not None and question.server is None
    if question.type in TO_THIS_SERVER:
        return question.client is not None and question.server == SERVER
    if question.type == Kind.INFORMATION_REQUEST:
        associations = question.delegations or question.addresses
        return question.server in (None, SERVER) and not associations
    return False


def needs_the_anchor(question: Dhcpv6Message) -> bool:
    """Whether the answer depends on what the anchor delegates."""
    return question.type in ABOUT_THE_LEASE and bool(question.delegations)


def named(question: Dhcpv6Message) -> IPv6Network | None:
    """The first prefix a client says it has, or would like."""
    prefixes = (item.prefix for association in question.delegations for item in association.prefixes)
    return next((prefix for prefix in prefixes if int(prefix.network_address)), None)


def use_multicast(question: Dhcpv6Message) -> Dhcpv6Message | None:
    """The answer to one who sent to our own address without having been asked to (RFC 8415 18.4)."""
    if question.type not in TO_THIS_SERVER:
        return None
    return replace(_reply(question), status=StatusCode(Status.USE_MULTICAST))


def answer(question: Dhcpv6Message, lease: Delegation | None) -> Dhcpv6Message | None:
    """The answer to a client; None: silence. lease None: the anchor delegates nothing."""
    told = _reply(question)
    match question.type:
        case Kind.SOLICIT:
            told = replace(told, delegations=_assigned(question, lease), addresses=_no_addresses(question))
            if question.rapid_commit and lease is not None and question.delegations:
                return replace(told, rapid_commit=True)
            return replace(told, type=Kind.ADVERTISE, preference=BEST)
        case Kind.REQUEST:
            return replace(told, delegations=_assigned(question, lease), addresses=_no_addresses(question))
        case Kind.RENEW | Kind.REBIND:
            return replace(told, delegations=_extended(question, lease), addresses=_unknown_addresses(question))
        case Kind.RELEASE | Kind.DECLINE:
            status = StatusCode(Status.SUCCESS)
            delegations = _given_back(question, lease)
            return replace(told, status=status, delegations=delegations, addresses=_unknown_addresses(question))
        case Kind.CONFIRM:
            # about addresses only, and none of them is from here; without any there is nothing to say (18.3.3)
            has_addresses = any(association.addresses for association in question.addresses)
            return replace(told, status=StatusCode(Status.NOT_ON_LINK)) if has_addresses else None
        case _:
            return told


def _reply(question: Dhcpv6Message) -> Dhcpv6Message:
    return Dhcpv6Message(type=Kind.REPLY, transaction=question.transaction, client=question.client, server=SERVER)


def _delegations(question: Dhcpv6Message) -> tuple[PrefixAssociation, ...]:
    return question.delegations[:MAX_ASSOCIATIONS]


def _chosen(question: Dhcpv6Message, lease: Delegation) -> int | None:
    """IAID of the association that has the prefix or, if none has, of the first one: there is one prefix."""
    for association in _delegations(question):
        if any(item.prefix == lease.prefix for item in association.prefixes):
            return association.iaid
    return question.delegations[0].iaid if question.delegations else None


def _with_prefix(association: PrefixAssociation, lease: Delegation) -> PrefixAssociation:
    item = DelegatedPrefix(
        prefix=lease.prefix, preferred_lifetime=lease.preferred_lifetime, valid_lifetime=lease.valid_lifetime
    )
    return PrefixAssociation(
        iaid=association.iaid,
        renew_after=int(lease.preferred_lifetime * RENEW_AT),
        rebind_after=int(lease.preferred_lifetime * REBIND_AT),
        prefixes=(item,),
    )


def _assigned(question: Dhcpv6Message, lease: Delegation | None) -> tuple[PrefixAssociation, ...]:
    chosen = _chosen(question, lease) if lease else None
    return tuple(
        _with_prefix(association, lease)
        if lease and association.iaid == chosen
        else PrefixAssociation(iaid=association.iaid, status=NO_PREFIX)
        for association in _delegations(question)
    )


def _extended(question: Dhcpv6Message, lease: Delegation | None) -> tuple[PrefixAssociation, ...]:
    """The prefix that is right, and lifetime 0 for any other the client still has (RFC 8415 18.3.4, 18.3.5)."""
    chosen = _chosen(question, lease) if lease else None
    told = []
    for association in _delegations(question):
        kept = lease.prefix if lease and association.iaid == chosen else None
        ended = tuple(
            DelegatedPrefix(prefix=item.prefix)
            for item in association.prefixes[:MAX_PREFIXES]
            if item.prefix != kept and int(item.prefix.network_address)
        )
        if lease and kept:
            right = _with_prefix(association, lease)
            told.append(replace(right, prefixes=right.prefixes + ended))
        else:
            status = None if ended else NO_BINDING
            told.append(PrefixAssociation(iaid=association.iaid, prefixes=ended, status=status))
    return tuple(told)


def _given_back(question: Dhcpv6Message, lease: Delegation | None) -> tuple[PrefixAssociation, ...]:
    """NoBinding for associations that had nothing from us (RFC 8415 18.3.7)."""
    return tuple(
        PrefixAssociation(iaid=association.iaid, status=NO_BINDING)
        for association in _delegations(question)
        if lease is None or all(item.prefix != lease.prefix for item in association.prefixes)
    )


def _no_addresses(question: Dhcpv6Message) -> tuple[AddressAssociation, ...]:
    return _about_addresses(question, NO_ADDRESSES)


def _unknown_addresses(question: Dhcpv6Message) -> tuple[AddressAssociation, ...]:
    return _about_addresses(question, NO_BINDING)


def _about_addresses(question: Dhcpv6Message, status: StatusCode) -> tuple[AddressAssociation, ...]:
    return tuple(
        AddressAssociation(kind=association.kind, iaid=association.iaid, status=status)
        for association in question.addresses[:MAX_ASSOCIATIONS]
    )
