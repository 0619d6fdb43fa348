"""What a DHCPv4 client is told (RFC 2131 4.3, 5844 3.4), once the anchor has said which address its node has.

Every MAG answers as the same server, the default router of the address: so a client that moved renews as if nothing
had happened. The anchor knows every lease; hence what it does not confirm is refused, not passed over in silence.
"""

from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address

from signaling.iana import Dhcpv4MessageType
from signaling.wire.dhcpv4 import BROADCAST, NO_ADDRESS, Dhcpv4Message

REBIND_AT = 7 / 8  # of the lease, RFC 2131 4.4.5
# source and server identifier of a refusal while no default router is known (RFC 7600 4.8: "IPv4 dummy address")
DUMMY_SERVER = IPv4Address("192.0.0.8")


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """What an IPv4 node is given. server: the default router."""

    address: IPv4Address
    subnet_length: int
    server: IPv4Address
    lifetime: int  # s, from now
    mtu: int  # octets


def answer(
    question: Dhcpv4Message, destination: IPv4Address, lease: Lease | None, server: IPv4Address
) -> Dhcpv4Message | None:
    """The answer to a client; None: silence. lease None: the anchor gives nothing.

    destination: where the question went. server: who refuses when there is no lease.
    """
    if lease is not None:
        server = lease.server
    if question.server_identifier not in (None, server) or destination not in (BROADCAST, server):
        return None  # it talks to another server; one behind the tunnel, perhaps
    return ANSWERS[Dhcpv4MessageType(question.type)](question, lease, server)


def wanted(question: Dhcpv4Message) -> IPv4Address | None:
    """The address a client has or had, if it names one."""
    if question.client_address != NO_ADDRESS:
        return question.client_address
    return question.requested_address


def where_to(question: Dhcpv4Message, told: Dhcpv4Message) -> IPv4Address:
    """The IP destination of an answer (RFC 2131 4.1); the frame goes to the client alone, whatever this is."""
    if told.type == Dhcpv4MessageType.NAK:
        return BROADCAST
    if question.client_address != NO_ADDRESS:
        return question.client_address
    return BROADCAST if question.broadcast else told.your_address


def _offer(question: Dhcpv4Message, lease: Lease | None, server: IPv4Address) -> Dhcpv4Message | None:
    # no address from the anchor: no IPv4 for the node (RFC 5844 3.4.3)
    return _leased(Dhcpv4MessageType.OFFER, question, lease) if lease else None


def _acknowledge(question: Dhcpv4Message, lease: Lease | None, server: IPv4Address) -> Dhcpv4Message | None:
    address = wanted(question)
    if address is None:
        return None
    if lease is None or address != lease.address:
        return _refused(question, server)
    return _leased(Dhcpv4MessageType.ACK, question, lease)


def _inform(question: Dhcpv4Message, lease: Lease | None, server: IPv4Address) -> Dhcpv4Message | None:
    """Parameters alone, for a client that has its address (RFC 2131 4.3.5)."""
    if lease is None or question.client_address != lease.address:
        return None
    return _answer(
        Dhcpv4MessageType.ACK,
        question,
        client_address=question.client_address,
        server_identifier=server,
        subnet_length=lease.subnet_length,
        router=lease.server,
        mtu=lease.mtu,
    )


def _leased(kind: Dhcpv4MessageType, question: Dhcpv4Message, lease: Lease) -> Dhcpv4Message:
    return _answer(
        kind,
        question,
        client_address=question.client_address if kind == Dhcpv4MessageType.ACK else NO_ADDRESS,
        your_address=lease.address,
        server_identifier=lease.server,
        lease_time=lease.lifetime,
        renewal_time=lease.lifetime // 2,
        rebinding_time=int(lease.lifetime * REBIND_AT),
        subnet_length=lease.subnet_length,
        router=lease.server,
        mtu=lease.mtu,
    )


def _refused(question: Dhcpv4Message, server: IPv4Address) -> Dhcpv4Message:
    return _answer(Dhcpv4MessageType.NAK, question, server_identifier=server, text="not your address, or not any more")


def _answer(kind: Dhcpv4MessageType, question: Dhcpv4Message, **fields: object) -> Dhcpv4Message:
    return Dhcpv4Message(
        type=kind,
        from_client=False,
        transaction=question.transaction,
        broadcast=question.broadcast,
        link_layer=question.link_layer,
        client_identifier=question.client_identifier,  # RFC 6842 3
        **fields,  # type: ignore[arg-type]
    )


ANSWERS: dict[Dhcpv4MessageType, Callable[[Dhcpv4Message, Lease | None, IPv4Address], Dhcpv4Message | None]] = {
    Dhcpv4MessageType.DISCOVER: _offer,
    Dhcpv4MessageType.REQUEST: _acknowledge,
    Dhcpv4MessageType.INFORM: _inform,
}
"""The messages that are answered, all of which need to know what the anchor gives."""
