"""What DHCP may lease to a node: its IPv4 home address and its delegated prefix, as long as the data path has them."""

from ipaddress import IPv4Network, IPv6Network

from signaling.actions import Action, GiveAddress
from signaling.events import AddressAsked
from signaling.pmip.binding_update_list import Service, Session
from signaling.settings import Wants

SERVICE_OF = {Wants.IPV4: Service.IPV4, Wants.DELEGATED: Service.DELEGATION}


def changed_leases(session: Session, answered: Service, lifetime: int) -> list[Action]:
    """What DHCP has to be told, where it changed or was asked for.

    answered: what the anchor has just answered for. lifetime: s, of a lease.
    """
    if session.lasting:
        return []
    actions: list[Action] = []
    for wants, service in SERVICE_OF.items():
        has = _has(session, wants)
        asked = bool(session.asked & answered & service)
        if session.given.get(wants) == has and not asked:
            continue
        session.asked &= ~service
        if has is None:
            session.given.pop(wants, None)
        else:
            session.given[wants] = has
        actions.append(lease(session, wants, lifetime))
    return actions


def lease(session: Session, wants: Wants, lifetime: int) -> GiveAddress:
    """What was given to the node, for so long (s); or that nothing is any more."""
    given = session.given.get(wants)
    is_ipv4 = wants is Wants.IPV4 and given is not None
    return GiveAddress(
        node=session.node,
        interface=session.interface,
        link_layer=session.who.link_layer,
        wants=wants,
        prefix=given,
        subnet_length=session.ipv4.network.prefixlen if session.ipv4 and is_ipv4 else 32,
        default_router=session.default_router if is_ipv4 else None,
        lifetime=lifetime if given is not None else 0,
    )


def no_lease(event: AddressAsked) -> GiveAddress:
    """There is nothing for who asked."""
    return GiveAddress(
        node=event.node, interface=event.interface, link_layer=event.link_layer, wants=event.wants, prefix=None
    )


def _has(session: Session, wants: Wants) -> IPv4Network | IPv6Network | None:
    if wants is Wants.IPV4:
        address = IPv4Network(session.ipv4.ip) if session.ipv4 else None
        return address if address in session.bound else None
    return next((prefix for prefix in session.delegated if prefix in session.bound), None)
