"""What an accepting acknowledgement gives: prefixes, addresses, keys, timers, and what the anchor can do at all."""

from dataclasses import dataclass
from ipaddress import IPv4Interface

from signaling.iana import PROXY_MOBILE_IPV6_DATA_PORT, Status
from signaling.pmip.binding_update_list import Multipath, Question, Registration, Service, Session
from signaling.pmip.proxy_answer import flows_accepted
from signaling.wire.binding_ack import FIRST_REFUSAL, BindingAck
from signaling.wire.options.ipv4 import Ipv4DefaultRouterAddress, Ipv4HomeAddressReply
from signaling.wire.options.lma_control import LmaControlledMagParameters
from signaling.wire.options.multipath import MagMultipathBinding
from signaling.wire.options.prefix import DelegatedMobileNetworkPrefix, HomeNetworkPrefix
from signaling.wire.options.tunnel import GreKey, NatDetection


@dataclass(slots=True, kw_only=True)
class Terms:
    """What is known of the anchor itself, for sessions to come."""

    multipath: Multipath = Multipath.UNKNOWN
    gre: bool = False  # GRE keys are asked for


def take(ack: BindingAck, item: Registration, question: Question, terms: Terms) -> Multipath:
    """Write what was granted into the list; returns whether the session may have several paths."""
    session = item.session
    given = tuple(option for option in ack.options_of(HomeNetworkPrefix) if not option.all_zero)
    session.prefixes = given if question.services & Service.IPV6 else ()
    if question.services & session.services & Service.IPV4:
        _take_ipv4(ack, session)
    _take_delegated(ack, session, question)
    item.data_port = PROXY_MOBILE_IPV6_DATA_PORT if ack.option(NatDetection) is not None else 0
    _take_key(ack, item, question, terms)
    _take_timers(ack, session)
    session.announced = True
    session.flows_asked = question.flows
    session.flows = question.flows if flows_accepted(ack, question, session.flows) else None
    if question.multipath:
        # an answer without the option comes from an anchor that knows none (RFC 8278 4.4)
        supported = ack.option(MagMultipathBinding) is not None
        session.multipath = terms.multipath = Multipath.ON if supported else Multipath.OFF
    return session.multipath


def _take_ipv4(ack: BindingAck, session: Session) -> None:
    reply, router = ack.option(Ipv4HomeAddressReply), ack.option(Ipv4DefaultRouterAddress)
    if reply is None or reply.status >= FIRST_REFUSAL:
        session.ipv4 = session.default_router = None
        return
    session.ipv4 = IPv4Interface((reply.address, reply.prefix_length))
    session.default_router = router.address if router else session.default_router


def _take_delegated(ack: BindingAck, session: Session, question: Question) -> None:
    """What was asked for; or what the session had at another gateway, which this one did not know of."""
    options = ack.options_of(DelegatedMobileNetworkPrefix)
    given = tuple(option.prefix for option in options if not option.all_zero)
    if given:
        session.services |= Service.DELEGATION
    if given or question.services & Service.DELEGATION:
        session.delegated = given


def _take_key(ack: BindingAck, item: Registration, question: Question, terms: Terms) -> None:
    """GRE, if both ends want it; else it is not asked for again (RFC 5845 4.2)."""
    option = ack.option(GreKey)
    if option is not None and question.gre:
        item.key_out = option.key
        return
    item.key_in = item.key_out = None
    if question.gre:
        item.session.gre = False
        if ack.status != Status.GRE_KEY_OPTION_NOT_REQUIRED:
            terms.gre = False  # not this session alone: the anchor does not know the option


def _take_timers(ack: BindingAck, session: Session) -> None:
    """Timers of the anchor go before those configured here (RFC 8127 5.2)."""
    option = ack.option(LmaControlledMagParameters)
    if option is None or option.reregistration is None:
        return
    timers = option.reregistration
    session.refresh_before = float(timers.start_time)
    session.first_retry = float(timers.initial_retransmission_time)
    session.last_retry = float(timers.maximum_retransmission_time)
