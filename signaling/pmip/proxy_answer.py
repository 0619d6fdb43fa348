"""What a Proxy Binding Acknowledgement means to the gateway that asked (RFC 5213 6.9.1.2): the table of reactions.

Whether an answer is about the question at all is decided first: one that says another node, interface, technology or
handoff is not followed, and the question is not repeated.
"""

from enum import Enum
from typing import Final

from signaling.iana import FlowIdentificationStatus, Status
from signaling.pmip.binding_update_list import Question, Registration
from signaling.update_request import node_of
from signaling.wire.binding_ack import BindingAck
from signaling.wire.options.access import AccessTechnologyTypeOption, HandoffIndicatorOption
from signaling.wire.options.flow import FlowIdentification
from signaling.wire.options.identity import MobileNodeLinkLayerIdentifier
from signaling.wire.options.ipv4 import Ipv4HomeAddressReply
from signaling.wire.options.lma_control import LmaControlledMagParameters
from signaling.wire.options.option import Option


class Reaction(Enum):
    """What a gateway does about a refusal."""

    STOP = "stop"  # no service, and no further update until an administrator acts
    REFUSE = "refuse"  # not served by this path; asked again after a while
    ASK_NEWER = "ask-newer"  # the anchor knows something newer: again, once the node has proved to be here
    WAIT_FOR_CLOCK = "wait-for-clock"  # again after the clock was set, never by the anchor's value
    ASK_ANY_PREFIX = "ask-any-prefix"  # again, for a prefix of the anchor's choice
    WITH_GRE_KEY = "with-gre-key"
    WITHOUT_IPV4 = "without-ipv4"
    NO_IPV4_NOW = "no-ipv4-now"  # there is no address left: without one, until the node asks again
    ANY_IPV4 = "any-ipv4"  # again, for an address of the anchor's choice
    WITHOUT_IPV6 = "without-ipv6"
    WITHOUT_DELEGATION = "without-delegation"
    ANY_DELEGATED = "any-delegated"
    ONE_PATH = "one-path"  # no multipath for this node


REACTIONS: Final[dict[int, Reaction]] = {
    Status.SEQUENCE_NUMBER_OUT_OF_WINDOW: Reaction.ASK_NEWER,  # RFC 6275 11.7.3
    Status.MIPV6_AUTH_FAIL: Reaction.STOP,  # RFC 4285 5
    Status.SERVICE_AUTHORIZATION_FAILED: Reaction.STOP,  # RFC 5149 4
    Status.PROXY_REG_NOT_ENABLED: Reaction.STOP,
    Status.NOT_AUTHORIZED_FOR_HOME_NETWORK_PREFIX: Reaction.ASK_ANY_PREFIX,
    Status.TIMESTAMP_MISMATCH: Reaction.WAIT_FOR_CLOCK,
    Status.TIMESTAMP_LOWER_THAN_PREV_ACCEPTED: Reaction.ASK_NEWER,
    Status.BCE_PBU_PREFIX_SET_DO_NOT_MATCH: Reaction.ASK_ANY_PREFIX,
    Status.GRE_KEY_OPTION_REQUIRED: Reaction.WITH_GRE_KEY,  # RFC 5845 4.2
    Status.NOT_AUTHORIZED_FOR_IPV4_MOBILITY_SERVICE: Reaction.WITHOUT_IPV4,  # RFC 5844 3.2.3.2
    Status.NOT_AUTHORIZED_FOR_IPV4_HOME_ADDRESS: Reaction.ANY_IPV4,
    Status.NOT_AUTHORIZED_FOR_IPV6_MOBILITY_SERVICE: Reaction.WITHOUT_IPV6,
    Status.MULTIPLE_IPV4_HOME_ADDRESS_ASSIGNMENT_NOT_SUPPORTED: Reaction.WITHOUT_IPV4,
    Status.NOT_AUTHORIZED_FOR_DELEGATED_MNP: Reaction.WITHOUT_DELEGATION,  # RFC 7148 5.1.3
    Status.REQUESTED_DMNP_IN_USE: Reaction.ANY_DELEGATED,
    Status.CANNOT_SUPPORT_MULTIPATH_BINDING: Reaction.ONE_PATH,  # RFC 8278 4.4
}
"""Any other status from 128 on: REFUSE."""


def reaction_to(ack: BindingAck) -> Reaction:
    """What to do about a refusal."""
    if ack.status == Status.INSUFFICIENT_RESOURCES and ack.option(Ipv4HomeAddressReply) is not None:
        return Reaction.NO_IPV4_NOW  # RFC 5844 3.1.2.2; perhaps it is prefixes that are short: that comes to light then
    return REACTIONS.get(ack.status, Reaction.REFUSE)


def answers(ack: BindingAck, item: Registration, question: Question) -> bool:
    """Whether an answer is about what was asked (RFC 5213 6.9.1.2). A refusal may leave out what it echoes."""
    session = item.session
    handoff, technology = ack.option(HandoffIndicatorOption), ack.option(AccessTechnologyTypeOption)
    interface = ack.option(MobileNodeLinkLayerIdentifier)
    complete = (handoff is not None and technology is not None) or not ack.accepted
    return (
        complete
        and node_of(ack) == session.node
        and (handoff is None or handoff.indicator == question.handoff)
        and (technology is None or technology.technology == question.technology)
        and (interface is None or interface.identifier == session.who.link_layer)
    )


def impossible_timers(ack: BindingAck) -> bool:
    """Whether the anchor lays down a time of zero: the whole answer is ignored (RFC 8127 5.2)."""
    options = ack.options_of(LmaControlledMagParameters)
    for option in options:
        again, beat = option.reregistration, option.heartbeat
        if again and not (
            again.start_time and again.initial_retransmission_time and again.maximum_retransmission_time
        ):
            return True
        if beat and not (beat.interval and beat.maximum_retransmissions):
            return True
    return len(options) > 1


def flows_accepted(ack: BindingAck, question: Question, accepted: tuple[Option, ...] | None) -> bool:
    """Whether the anchor has all flows of the question now. accepted: those it had before.

    An answer that says nothing of new flows comes from an anchor without them (RFC 6089 5.2.6); a summary of old ones
    may go without an echo.
    """
    echoed = ack.options_of(FlowIdentification)
    if any(option.status != FlowIdentificationStatus.FLOW_BINDING_SUCCESSFUL for option in echoed):
        return False
    return bool(echoed) or not question.flows or question.flows == accepted
