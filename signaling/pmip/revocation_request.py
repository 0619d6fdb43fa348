"""A Binding Revocation Indication as a gateway reads it: why it cannot be followed, or what it takes away.

The checks in the order of RFC 5846 9.1 and 6.2.1: can it be followed at all, does it name something, is that here.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, IPv6Network

from signaling.iana import RevocationFlag, RevocationStatus, RevocationTrigger
from signaling.pmip.binding_update_list import BindingUpdateList, Registration, Session
from signaling.update_request import node_of, prefixes_of
from signaling.wire.options.care_of import AlternateCareOfAddress
from signaling.wire.options.identity import MobileNodeGroupIdentifier, MobileNodeIdentifier
from signaling.wire.options.ipv4 import Ipv4HomeAddressRequest
from signaling.wire.revocation import BindingRevocationIndication

FIRST_GLOBAL = 128  # triggers from here on are for the G flag, RFC 5846 5.1
ALL_SESSIONS = 1  # of this pair of routers, RFC 6602 4.3
HANDOVER_TRIGGERS = frozenset(
    {
        RevocationTrigger.INTER_MAG_HANDOVER_SAME_ACCESS_TYPE,
        RevocationTrigger.INTER_MAG_HANDOVER_DIFFERENT_ACCESS_TYPE,
        RevocationTrigger.INTER_MAG_HANDOVER_UNKNOWN,
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """What an indication takes away here."""

    sessions: tuple[Session, ...] = ()
    prefixes: tuple[IPv6Network, ...] = ()  # (): all of those sessions
    missing: tuple[IPv6Network, ...] = ()  # named, and not here
    ipv4_only: bool = False
    paths: tuple[Registration, ...] = ()  # these alone, instead of the sessions

    @property
    def status(self) -> RevocationStatus:
        """What to answer when it is done."""
        return RevocationStatus.PARTIAL_SUCCESS if self.missing else RevocationStatus.SUCCESS


def unsupported(indication: BindingRevocationIndication) -> RevocationStatus | None:
    """Why it cannot be followed, before anything is looked up."""
    if not isinstance(indication.trigger, RevocationTrigger):
        return RevocationStatus.REVOCATION_TRIGGER_NOT_SUPPORTED
    is_global = RevocationFlag.GLOBAL in indication.flags
    if is_global != (indication.trigger >= FIRST_GLOBAL) or RevocationFlag.PROXY_BINDING not in indication.flags:
        return RevocationStatus.REVOCATION_FUNCTION_NOT_SUPPORTED
    return None


def taken_by(indication: BindingRevocationIndication, entries: BindingUpdateList) -> Taken | RevocationStatus:
    """What it takes away, or why it takes nothing."""
    if indication.trigger == RevocationTrigger.PER_PEER_POLICY:
        return Taken(sessions=tuple(entries))
    if indication.trigger == RevocationTrigger.REVOKING_MOBILITY_NODE_LOCAL_POLICY:
        return _of_realm(indication, entries)
    group = indication.option(MobileNodeGroupIdentifier)
    if group is not None:
        return _of_group(indication, group, entries)
    if indication.option(MobileNodeIdentifier) is None:
        return RevocationStatus.REVOKED_MOBILE_NODES_IDENTITY_REQUIRED
    sessions = entries.of(node_of(indication))
    if RevocationFlag.IPV4_HOME_ADDRESS_BINDING_ONLY in indication.flags:
        return _ipv4_of(indication, sessions)
    return _of_node(indication, sessions)


def _of_realm(indication: BindingRevocationIndication, entries: BindingUpdateList) -> Taken | RevocationStatus:
    """Trigger 129: every node of exactly this realm, by one care-of address if one is named."""
    realm = node_of(indication)
    if not realm.startswith("@"):
        return RevocationStatus.REVOKED_MOBILE_NODES_IDENTITY_REQUIRED
    sessions = tuple(session for session in entries if f"@{session.node.rpartition('@')[2]}" == realm)
    narrowed = indication.option(AlternateCareOfAddress)
    if narrowed is not None:
        paths = tuple(item for session in sessions for item in _by(session, narrowed.address))
        return Taken(sessions=tuple(dict.fromkeys(item.session for item in paths)), paths=paths) if paths else NOTHING
    return Taken(sessions=sessions) if sessions else NOTHING


def _by(session: Session, care_of: IPv6Address) -> Iterable[Registration]:
    return (item for item in session.registrations.values() if item.path.care_of == care_of)


def _of_group(
    indication: BindingRevocationIndication, group: MobileNodeGroupIdentifier, entries: BindingUpdateList
) -> Taken | RevocationStatus:
    """All sessions of this pair of routers is the one group there is (RFC 6602 5.1.3)."""
    if indication.option(MobileNodeIdentifier) is not None or group.identifier != ALL_SESSIONS:
        return NOTHING
    return Taken(sessions=tuple(entries))


def _ipv4_of(indication: BindingRevocationIndication, sessions: list[Session]) -> Taken | RevocationStatus:
    option = indication.option(Ipv4HomeAddressRequest)
    if option is None:
        return RevocationStatus.IPV4_HOME_ADDRESS_OPTION_REQUIRED
    found = tuple(it for it in sessions if it.ipv4 is not None and IPv4Address(it.ipv4.packed) == option.address)
    return Taken(sessions=found, ipv4_only=True) if found else NOTHING


def _of_node(indication: BindingRevocationIndication, sessions: list[Session]) -> Taken | RevocationStatus:
    named = prefixes_of(indication)
    if not named:
        return Taken(sessions=tuple(sessions)) if sessions else NOTHING
    here = {option.prefix for session in sessions for option in session.prefixes}
    missing = tuple(prefix for prefix in named if prefix not in here)
    found = tuple(it for it in sessions if any(option.prefix in named for option in it.prefixes))
    return Taken(sessions=found, prefixes=named, missing=missing) if found else NOTHING


NOTHING = RevocationStatus.BINDING_DOES_NOT_EXIST
