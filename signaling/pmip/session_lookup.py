"""Which session an update is about: the binding cache look-up of RFC 5213 5.4.1, with its additions. Pure.

    home network prefix named?  yes -> A  by prefix           an IPv4 home address alone takes its place (RFC 5844)
                                no  -> interface named?  yes -> B  by node, technology and link-layer identifier
                                                         no  -> C  by node alone

A, B and C are sections 5.4.1.1, 5.4.1.2 and 5.4.1.3, the numbers those of their items. HI 6 is RFC 7864 3.2.1's.
With a multipath binding (RFC 8278) the node and the prefixes decide; the BID is looked at later, inside the session.
"""

from enum import Enum
from typing import NamedTuple

from signaling.iana import HandoffIndicator, Status
from signaling.pmip.mobility_session import MobilitySession
from signaling.pmip.registration_request import RegistrationRequest
from signaling.pmip.session_cache import SessionCache

NEW_INTERFACE_SHARING = HandoffIndicator.ATTACHMENT_OVER_A_NEW_INTERFACE_SHARING_PREFIXES
OTHER_INTERFACE = HandoffIndicator.HANDOFF_BETWEEN_TWO_DIFFERENT_INTERFACES
SAME_INTERFACE = HandoffIndicator.HANDOFF_BETWEEN_MAGS_FOR_THE_SAME_INTERFACE
UNKNOWN = HandoffIndicator.HANDOFF_STATE_UNKNOWN


class Outcome(Enum):
    """What a look-up found."""

    UPDATE = "update"  # the update is about this session
    NEW = "new"  # it begins a session
    SHARE = "share"  # it begins a session that shares the prefixes of this one
    WAIT = "wait"  # it may be about this session: has the node left there?
    REFUSE = "refuse"


class Finding(NamedTuple):
    """The outcome, the session it is about, and the status of a refusal."""

    outcome: Outcome
    session: MobilitySession | None = None
    status: Status | None = None


NEW = Finding(Outcome.NEW)


def find(request: RegistrationRequest, cache: SessionCache, *, shares: bool = False) -> Finding:
    """Look a request up. shares: the interfaces of this node may have prefixes in common (its profile)."""
    if request.keys:
        return _by_prefix(request, cache, shares)
    if request.ipv4_key and not request.asks_ipv6:
        return _by_ipv4(request, cache, shares)
    sessions = cache.of(request.node)
    if request.multipath is not None:
        resumed = _resumed_path(request, sessions)
        if resumed is not None:
            return Finding(Outcome.UPDATE, resumed)
    return _by_interface(request, sessions) if request.link_layer else _by_node(request, sessions)


def updates(request: RegistrationRequest, session: MobilitySession) -> bool:
    """Whether an update that names the prefixes of a session is about it (RFC 5213 5.4.1.1-5)."""
    same_technology = request.technology == session.technology
    if request.handoff == NEW_INTERFACE_SHARING:
        return same_technology and bool(request.link_layer) and request.link_layer == session.link_layer
    if request.link_layer and same_technology and request.link_layer == session.link_layer:
        return True  # (a)
    if request.handoff == OTHER_INTERFACE:
        return True  # (b)
    if not same_technology:
        return False
    if not request.link_layer and not session.link_layer and request.handoff == SAME_INTERFACE:
        return True  # (c)
    return any(request.care_of == care_of.address for care_of in session.care_ofs)  # (d)


def _by_prefix(request: RegistrationRequest, cache: SessionCache, shares: bool) -> Finding:
    if len(request.keys) == 1:  # the usual case, without any set
        holders = cache.holding(request.keys[0])
        if len(holders) == 1:
            session = holders[0]
            if session.node == request.node and len(session.prefixes) == 1 and request.multipath is None:
                return _among(request, holders, shares)
    keys = frozenset(request.keys)
    found = dict.fromkeys(session for key in keys for session in cache.holding(key))
    if not found:
        return NEW  # A2
    if any(session.node != request.node for session in found):
        # A3
        return Finding(Outcome.REFUSE, None, Status.NOT_AUTHORIZED_FOR_HOME_NETWORK_PREFIX)
    equal = tuple(session for session in found if _holds_exactly(session, keys, cache))
    if not equal:
        # A4
        return Finding(Outcome.REFUSE, next(iter(found)), Status.BCE_PBU_PREFIX_SET_DO_NOT_MATCH)
    return _among(request, equal, shares)


def _holds_exactly(session: MobilitySession, keys: frozenset[int], cache: SessionCache) -> bool:
    return len(session.prefixes) == len(keys) and all(session in cache.holding(key) for key in keys)


def _by_ipv4(request: RegistrationRequest, cache: SessionCache, shares: bool) -> Finding:
    """The address is the key, a set of one (RFC 5844 3.1.2.7)."""
    found = cache.at_ipv4(request.ipv4_key)
    if not found:
        return NEW
    if any(session.node != request.node for session in found):
        return Finding(Outcome.REFUSE, None, Status.NOT_AUTHORIZED_FOR_IPV4_HOME_ADDRESS)
    return _among(request, found, shares)


def _among(request: RegistrationRequest, sessions: tuple[MobilitySession, ...], shares: bool) -> Finding:
    """A5 and A6: the sessions have the node and exactly the prefixes of the request; usually it is one."""
    others_interface = request.handoff == OTHER_INTERFACE and len(sessions) > 1
    for session in sessions:
        if updates(request, session) and not (others_interface and request.link_layer != session.link_layer):
            return Finding(Outcome.UPDATE, session)
    if request.handoff == NEW_INTERFACE_SHARING or shares or len(sessions) > 1:
        # a handoff from one of several interfaces that share the prefix does not say from which: the old one
        # ends when its own router says so
        return Finding(Outcome.SHARE, sessions[0])
    if request.multipath is not None:
        # another path, or another MAG: neither is known by interface or Proxy-CoA (RFC 8278 3.1)
        return Finding(Outcome.UPDATE, sessions[0])
    # a prefix belongs to one session (RFC 5213 5.2), so this can be no new one
    return Finding(Outcome.REFUSE, sessions[0], Status.NOT_AUTHORIZED_FOR_HOME_NETWORK_PREFIX)


def _resumed_path(
    request: RegistrationRequest, sessions: tuple[MobilitySession, ...]
) -> MobilitySession | None:
    """A path of a multipath session that does not know its prefix yet: the one session of this MAG and interface."""
    if len(sessions) != 1:
        return None
    session = sessions[0]
    same = session.gateway == request.gateway and session.technology == request.technology
    numbered = any(care_of.binding_id for care_of in session.care_ofs)
    return session if same and numbered and request.link_layer == session.link_layer else None


def _by_interface(request: RegistrationRequest, sessions: tuple[MobilitySession, ...]) -> Finding:
    for session in sessions:
        if session.link_layer == request.link_layer and session.technology == request.technology:
            return Finding(Outcome.UPDATE, session)  # B2
    if len(sessions) == 1:
        if request.handoff == OTHER_INTERFACE:
            return Finding(Outcome.UPDATE, sessions[0])  # B3
        if request.handoff == UNKNOWN:
            return Finding(Outcome.WAIT, sessions[0])  # B4
    return NEW  # B5; HI 3 with an interface nobody knows too


def _by_node(request: RegistrationRequest, sessions: tuple[MobilitySession, ...]) -> Finding:
    if len(sessions) == 1:
        if request.handoff in (OTHER_INTERFACE, SAME_INTERFACE):
            return Finding(Outcome.UPDATE, sessions[0])  # C2
        if request.handoff == UNKNOWN:
            return Finding(Outcome.WAIT, sessions[0])  # C3
    return NEW  # C4
