"""The Proxy Binding Update of a gateway, option by option (RFC 5213 6.9.1.1, 6.9.1.5; RFC 8278 4.4).

What a session is and knows decides which options there are; a de-registration carries those that name the session.
The link-local address option is never there: all gateways have the fixed one of RFC 6543 on all access links.
"""

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, IPv6Network

from signaling.iana import BindingUpdateFlag, MultipathBindingFlag
from signaling.pmip.binding_update_list import Question, Registration, Service, Session
from signaling.pmip.uplinks import UplinkPath
from signaling.settings import Address
from signaling.update_request import ALL_ZERO, identifier_of
from signaling.wire.binding_update import BindingUpdate
from signaling.wire.options.access import AccessTechnologyTypeOption, HandoffIndicatorOption
from signaling.wire.options.care_of import AlternateCareOfAddress, Ipv4CareOfAddress
from signaling.wire.options.flow import FlowIdentification, FlowSummary
from signaling.wire.options.identity import MagIdentifier, MobileNodeLinkLayerIdentifier, ServiceSelection
from signaling.wire.options.ipv4 import Ipv4HomeAddressRequest
from signaling.wire.options.multipath import MagMultipathBinding
from signaling.wire.options.option import Option
from signaling.wire.options.prefix import DelegatedMobileNetworkPrefix, HomeNetworkPrefix
from signaling.wire.options.time import Timestamp
from signaling.wire.options.tunnel import GreKey

ANY_HOME_PREFIX = HomeNetworkPrefix(prefix=ALL_ZERO)
ANY_DELEGATED_PREFIX = DelegatedMobileNetworkPrefix(prefix=IPv6Network("::/0"))


def proxy_update(
    item: Registration,
    question: Question,
    by: UplinkPath,
    *,
    gateway: str,
    service: str,
    force_udp: bool,
    timestamp: int | None,
) -> BindingUpdate:
    """The message that asks this question about a registration, sent by a path: its own, or for a lost one another.

    gateway: the MAG-NAI. service: Service Selection, "" for none. timestamp: 1/65536 s since 1970, None in sequence
    mode. The sequence number is that of the registration.
    """
    session = item.session
    options: list[Option] = [identifier_of(session.node)]
    if service and not session.announced:
        options.append(ServiceSelection(identifier=service.encode()))
    options += _home(session, question)
    options.append(HandoffIndicatorOption(indicator=question.handoff))
    options.append(AccessTechnologyTypeOption(technology=question.technology))
    if any(session.who.link_layer):  # an identifier of zeros is not valid: left out (RFC 5213 6.9.1.1-7)
        options.append(MobileNodeLinkLayerIdentifier(identifier=session.who.link_layer))
    options += _more(session, question)
    if question.gre:
        options.append(GreKey(key=item.key_in))
    if question.multipath:
        options += _multipath(item, question, gateway)
    options += _alternate(item.path.care_of, by.care_of)
    if isinstance(by.care_of, IPv4Address):
        options.append(Ipv4CareOfAddress(address=by.care_of))
    options += flow_options(question.flows, session.flows)
    if timestamp is not None:
        options.append(Timestamp(value=timestamp))
    flags = BindingUpdateFlag.ACKNOWLEDGE | BindingUpdateFlag.PROXY_REGISTRATION
    if force_udp and by.care_of.version == 4:
        flags |= BindingUpdateFlag.FORCING_UDP_ENCAPSULATION
    return BindingUpdate(
        sequence_number=item.sequence_number, flags=flags, lifetime=question.lifetime, options=tuple(options)
    )


def _home(session: Session, question: Question) -> list[Option]:
    """Known prefixes, or a single request for one; none where IPv6 is not wanted (RFC 5844 3.2.3.1)."""
    if Service.IPV6 not in question.services:
        return []
    # flags of the option are the anchor's to set
    known = [HomeNetworkPrefix(prefix=option.prefix) for option in session.prefixes]
    return [*known] or [ANY_HOME_PREFIX]


def _more(session: Session, question: Question) -> Iterator[Option]:
    if Service.IPV4 in question.services:
        given = session.releasing if question.releases else session.ipv4
        yield (
            Ipv4HomeAddressRequest(address=IPv4Address(given.packed), prefix_length=given.network.prefixlen)
            if given
            else Ipv4HomeAddressRequest(address=session.ipv4_hint or IPv4Address(0))
        )
    if Service.DELEGATION in question.services:
        known = [DelegatedMobileNetworkPrefix(prefix=prefix) for prefix in session.delegated]
        hint = session.delegated_hint
        yield from known or [DelegatedMobileNetworkPrefix(prefix=hint) if hint else ANY_DELEGATED_PREFIX]


def _multipath(item: Registration, question: Question, gateway: str) -> Iterator[Option]:
    flags = MultipathBindingFlag(0)
    if question.bulk:
        flags |= MultipathBindingFlag.BULK_REREGISTRATION
    elif item.overwrite and question.lifetime:
        flags |= MultipathBindingFlag.REGISTRATION_OVERWRITE
    yield MagMultipathBinding(
        interface_technology=item.path.technology,
        interface_label=item.path.label,
        binding_id=item.path.binding_id,
        flags=flags,
    )
    yield MagIdentifier(identifier=gateway.encode())


def _alternate(care_of: Address, source: Address) -> Iterator[Option]:
    """The Proxy-CoA where the packet's source is another. There is no such option for IPv4: the BID says it then."""
    if care_of != source and isinstance(care_of, IPv6Address):
        yield AlternateCareOfAddress(address=care_of)


def flow_options(flows: tuple[Option, ...], accepted: tuple[Option, ...] | None) -> tuple[Option, ...]:
    """The flows as this update says them: those left out would be removed (RFC 6089 5.3.4).

    What the anchor has accepted is summed up; how it is spread, a vendor's option beside each flow, is said again.
    """
    if not flows or flows != accepted:
        return flows
    numbers = tuple(option.flow_id for option in flows if isinstance(option, FlowIdentification))
    rest = tuple(option for option in flows if not isinstance(option, FlowIdentification))
    return (FlowSummary(flow_ids=numbers), *rest)
