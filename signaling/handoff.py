"""Which handoff indicator a gateway may send (RFC 5213 6.9.1.1-5): it claims what it knows, and nothing it guesses.

    told by operator, link layer or context transfer          what they say
    another interface of the node has just left here          2  switch of interface: both ends of it were seen
    another interface is here, prefixes are shared            6  new interface, same prefixes (RFC 7864 3.2.1)
    another interface is here and was heard lately            1  new interface: the old one is in use
    the node was here a moment ago, by the same interface     4  where it was meanwhile is not known
    anything else                                             4  unknown: the anchor finds out
    the node has not moved                                    5  refresh, further path, changed flows
    it has not moved, but its only path has another source    3  to the anchor a move of the same interface
"""

from signaling.iana import HandoffIndicator


def handoff_of_arrival(
    *, told: HandoffIndicator | None, switched: bool, beside: bool, beside_heard: bool, shares: bool
) -> HandoffIndicator:
    """How a node came that shows itself by an interface without a session here.

    switched: another interface of it left this gateway just now. beside: another one is here; beside_heard: and was
    heard lately. shares: its interfaces share prefixes, which are known.
    """
    if told is not None:
        return told
    if switched:
        return HandoffIndicator.HANDOFF_BETWEEN_TWO_DIFFERENT_INTERFACES
    if beside and shares:
        return HandoffIndicator.ATTACHMENT_OVER_A_NEW_INTERFACE_SHARING_PREFIXES
    if beside and beside_heard:
        return HandoffIndicator.ATTACHMENT_OVER_A_NEW_INTERFACE
    return HandoffIndicator.HANDOFF_STATE_UNKNOWN
