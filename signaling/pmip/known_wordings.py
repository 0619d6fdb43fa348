"""Extensions worded as others before them: they are not read and judged anew, option by option.

Nearly all a busy anchor hears is extensions, and all that differs between two of them, of whichever nodes, are the
node, its prefix, its interface, and the number and time of the update. So a wording is an update with these masked out.
One is learned when an extension was read, passed all checks, and its answer had the same options, as it has when these
stand in the order of RFC 5213. From then on the answer to an extension in those words is made of the update itself:

    update   Payload Proto, length, type 5 | checksum | number        | flags | lifetime | options ...     | SPI, MAC
    answer   Payload Proto, length, type 6 | checksum | status, flags | number | lifetime | the same ...    | SPI, MAC
    wording  --------------------------------                         -------------------- but node, prefix,
                                                                                           interface, time

Nothing is refused here: what is in no known words, or does not fit its session, goes the long way. There are as many
wordings as there are kinds of gateways, not as there are nodes; so the first extension of a node is as quick as others.
"""

from collections.abc import Iterable
from typing import NamedTuple

from signaling.iana import AuthenticationSubtype, BindingAckFlag, HandoffIndicator, OptionType, Status
from signaling.pmip.mobility_session import MobilitySession
from signaling.pmip.registration_request import FORCED_UDP, PREFIX_BITS, RegistrationRequest
from signaling.wire.authentication import AUTHENTICATOR
from signaling.wire.binding_ack import BindingAck
from signaling.wire.codec import LIFETIME_UNIT
from signaling.wire.options.access import AccessTechnologyTypeOption, HandoffIndicatorOption, LinkLocalAddress
from signaling.wire.options.identity import MobileNodeIdentifier, MobileNodeLinkLayerIdentifier
from signaling.wire.options.option import Option, frames
from signaling.wire.options.prefix import HomeNetworkPrefix
from signaling.wire.options.security import MobilityMessageAuthentication
from signaling.wire.options.time import Timestamp

MAC = AUTHENTICATOR[AuthenticationSubtype.MN_HA]  # octets; it ends a message
MAC_BEGINS = bytes((OptionType.MOBILITY_MESSAGE_AUTHENTICATION, 5 + MAC, AuthenticationSubtype.MN_HA))
SPI = 4  # octets before the MAC
OPTIONS = 12  # octets before them, in updates and in answers: so padding is the same too
CHECKSUM_AND_NUMBER = slice(4, 8)
ACCEPTS = bytes((Status.BINDING_UPDATE_ACCEPTED, BindingAckFlag.PROXY_REGISTRATION))
# how many octets of the data of an option stand before what differs: subtypes, reserved ones
DIFFERS = {
    OptionType.MOBILE_NODE_IDENTIFIER: 1,  # RFC 4283 3
    OptionType.HOME_NETWORK_PREFIX: 1,  # RFC 5213 8.3
    OptionType.MOBILE_NODE_LINK_LAYER_IDENTIFIER: 2,  # RFC 5213 8.6
    OptionType.TIMESTAMP: 0,  # RFC 5213 8.8
}
NEEDED: frozenset[type[Option]] = frozenset(
    {MobileNodeIdentifier, HomeNetworkPrefix, HandoffIndicatorOption, AccessTechnologyTypeOption, Timestamp}
)
USUAL: frozenset[type[Option]] = NEEDED | {
    MobileNodeLinkLayerIdentifier,
    LinkLocalAddress,
    MobilityMessageAuthentication,
}
MOST_LAYOUTS = 8  # of one length: names of nodes are longer or shorter, options stand in another order
MOST_WORDINGS = 4096  # of all layouts


class Layout(NamedTuple):
    """Where what differs stands in updates of one length, and what others said there: numbers without it."""

    mask: int
    node: slice
    prefix: slice  # its length, and 16 octets
    link_layer: slice  # empty: none is said
    time: slice
    wordings: dict[int, RegistrationRequest]  # -> the first extension that was worded so


class Extension(NamedTuple):
    """An update in known words. like: an extension in the same words that was read, judged and granted."""

    octets: bytes
    layout: Layout
    like: RegistrationRequest

    @property
    def key(self) -> int:
        """Of its prefix, as key_of() has it."""
        said = self.octets[self.layout.prefix]
        return int.from_bytes(said[1:], "big") << PREFIX_BITS | said[0]

    @property
    def timestamp(self) -> int:
        """1/65536 s since 1970."""
        return int.from_bytes(self.octets[self.layout.time], "big")

    def is_about(self, session: MobilitySession) -> bool:
        """Whether it changes nothing of the session that has its prefix, but times; who sent it is left open."""
        like, path = self.like, session.care_ofs[0] if len(session.care_ofs) == 1 else None
        link_local = like.get(LinkLocalAddress)
        return (
            path is not None
            and not path.binding_id
            and not path.data_port
            and not session.leaving
            and not session.flows
            and not session.gre_keys
            and len(session.prefixes) == 1
            and session.technology == like.technology
            and session.link_layer == self.octets[self.layout.link_layer]
            and session.node.encode() == self.octets[self.layout.node]
            and (link_local is None or link_local.address == session.link_local)
        )

    def answer(self, lifetime: int) -> bytearray:
        """The answer, but for its checksum and MAC. lifetime: s that are granted."""
        answer = bytearray(self.octets)
        answer[2] = BindingAck.TYPE
        answer[4:6] = b"\0\0"
        answer[6:8] = ACCEPTS
        answer[8:10] = self.octets[6:8]
        answer[10:12] = max(1, lifetime // LIFETIME_UNIT).to_bytes(2, "big")
        return answer


class KnownWordings:
    """Of all gateways of an LMA, up to a bound: what peers can make grow begins anew when there are too many."""

    def __init__(self) -> None:
        self._layouts: dict[int, tuple[Layout, ...]] = {}  # by length
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def find(self, octets: bytes) -> Extension | None:
        """An extension in words that were heard before. It is not authenticated yet, and may be old."""
        layouts = self._layouts.get(len(octets))
        if layouts is None:
            return None
        number = int.from_bytes(octets, "big")
        for layout in layouts:
            like = layout.wordings.get(number & layout.mask)
            if like is not None:
                return Extension(octets, layout, like)
        return None

    def learn(self, request: RegistrationRequest, answer: bytes) -> None:
        """A session was extended by this update, and this was the answer; both are signed."""
        octets = request.octets
        if not _is_usual(request) or answer[OPTIONS:-MAC] != octets[OPTIONS:-MAC] or answer[6:8] != ACCEPTS:
            return
        if self._size >= MOST_WORDINGS:
            self._layouts, self._size = {}, 0
        layout = self._layout(octets)
        if layout is not None:
            before = len(layout.wordings)
            layout.wordings[int.from_bytes(octets, "big") & layout.mask] = request
            self._size += len(layout.wordings) - before

    def _layout(self, octets: bytes) -> Layout | None:
        differs = _differing(octets)
        known = self._layouts.get(len(octets), ())
        layout = next((it for it in known if (it.node, it.prefix, it.link_layer, it.time) == differs), None)
        if layout is None and len(known) < MOST_LAYOUTS:
            end = len(octets)
            rest = (CHECKSUM_AND_NUMBER, slice(end - MAC - SPI, end))
            layout = Layout(_mask(end, (*differs, *rest)), *differs, {})
            self._layouts[end] = (*known, layout)
        return layout


def _is_usual(request: RegistrationRequest) -> bool:
    """Whether it extends one path of a session with one prefix and says nothing that needs thought."""
    found = request.found.keys()
    octets = request.octets
    return (
        request.handoff == HandoffIndicator.HANDOFF_STATE_NOT_CHANGED
        and found >= NEEDED
        and found <= USUAL
        and not request.has_flag(FORCED_UDP)  # what that means depends on where it comes from
        and len(request.keys) == len(request.prefix_options) == 1
        and bool(request.link_layer) == (MobileNodeLinkLayerIdentifier in found)
        and len(octets) == (octets[1] + 1) * 8
        and octets[-MAC - SPI - 3 : -MAC - SPI] == MAC_BEGINS
    )


def _differing(octets: bytes) -> tuple[slice, slice, slice, slice]:
    """Where node, prefix, interface and time stand in a usual update."""
    at = {number: slice(begin, end) for number, begin, end in frames(octets, OPTIONS)}
    nowhere = slice(0, 0)
    node, prefix, link_layer, time = (
        slice(at[kind].start + skip, at[kind].stop) if kind in at else nowhere for kind, skip in DIFFERS.items()
    )
    return node, prefix, link_layer, time


def _mask(length: int, differs: Iterable[slice]) -> int:
    kept = bytearray(b"\xff" * length)
    for each in differs:
        kept[each] = bytes(each.stop - each.start)
    return int.from_bytes(kept, "big")
