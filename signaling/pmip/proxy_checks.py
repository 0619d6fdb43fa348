"""The checks an update has to pass, in the order of RFC 5213 5.3.1, which says that the order must be kept.

     1, 2  authentic, well-formed          the Door's, before anything here
     4     MN-ID                      160  \\
     5, 6  the MAG may act for it     154   |
     7     the node is known          153   |  `CHECKS`: the first that fails answers,
     8     it has the service         152   |  and nothing has changed by then
     9     order      135, 156 or     157   |
    10     HNP or IPv4 request   158, 17x   |
    11, 12 HI, ATT               161, 162   |
    then   what later RFCs add             /

What is not laid down stands where the comments say. An update in the wrong order learns nothing of what comes after.
"""

from collections.abc import Callable

from signaling.door import Door
from signaling.iana import BindingUpdateFlag, MultipathBindingFlag, Status
from signaling.pmip.mobility_session import MobilitySession
from signaling.pmip.registration_request import FORCED_UDP, RegistrationRequest
from signaling.pmip.session_cache import SessionCache
from signaling.pmip.session_lookup import Finding, Outcome
from signaling.profiles import Profiles
from signaling.settings import TIMESTAMP_UNITS, Clock, LmaSettings, NodeProfile
from signaling.wire.options.access import AccessTechnologyTypeOption, HandoffIndicatorOption
from signaling.wire.options.identity import MobileNodeGroupIdentifier, ServiceSelection
from signaling.wire.options.ipv4 import Ipv4HomeAddressRequest
from signaling.wire.options.multipath import MagMultipathBinding
from signaling.wire.options.tunnel import GreKey

REACH_FOR_A_SEQUENCE = 32768  # numbers this far back, and the last one, are stale (RFC 6275 9.5.1)
RESERVED_BINDING_IDS = frozenset({0, 255})  # RFC 8278 4.1
NOTHING_SAID = (0, None)
# plain numbers: the operators of an IntFlag cost more than all the checks that use them
BULK = int(MultipathBindingFlag.BULK_REREGISTRATION)
OVERWRITE = int(MultipathBindingFlag.REGISTRATION_OVERWRITE)
BULK_UPDATE = int(BindingUpdateFlag.BULK_BINDING_UPDATE)

Said = tuple[int, int | None]  # timestamp and sequence number of the last accepted update


class ProxyChecks:
    """The checks of one LMA. They look and change nothing."""

    def __init__(
        self,
        settings: LmaSettings,
        door: Door,
        clock: Clock,
        profiles: Profiles,
        cache: SessionCache,
    ) -> None:
        self._settings = settings
        self._window = int(settings.timestamp_window * TIMESTAMP_UNITS)
        self._door = door
        self._clock = clock
        self._profiles = profiles
        self._cache = cache

    def status(
        self, request: RegistrationRequest, profile: NodeProfile, finding: Finding, now: float
    ) -> Status | None:
        """Why the update is refused, None if it is not."""
        for check in CHECKS:
            status = check(self, request, profile, finding, now)
            if status is not None:
                return status
        return None

    def in_order(self, timestamp: int, last: int, now: float) -> bool:
        """Whether this timestamp would pass after the last accepted one."""
        return timestamp > last and abs(timestamp - self._clock.timestamp(now)) <= self._window

    def last_said(self, request: RegistrationRequest, finding: Finding) -> Said:
        """What the last accepted update about the same binding said: nothing older is accepted (RFC 5213 5.5).

        Two paths have orders of their own: one may be slower than the other (RFC 8278). A handoff must be newer than
        all that any path has said.
        """
        session = finding.session
        if session is None or finding.outcome is Outcome.SHARE:
            return self._same_interface(request)
        if session.gateway == request.gateway and request.binding_id:
            path = session.path(request.binding_id)
            if path is not None:
                return path.timestamp, path.sequence_number
            return (session.departed or {}).get(request.binding_id, 0), None
        if len(session.care_ofs) == 1:
            path = session.care_ofs[0]
            return path.timestamp, path.sequence_number
        return session.last_timestamp, session.last_sequence_number

    def _same_interface(self, request: RegistrationRequest) -> Said:
        """Of the sessions of this node that the same update could have begun: a copy of it must not begin another."""
        twins = [session for session in self._cache.of(request.node) if _could_be_its(session, request)]
        if not twins:
            return NOTHING_SAID
        newest = max(twins, key=lambda session: session.last_timestamp)
        return newest.last_timestamp, newest.last_sequence_number

    # --- in their order ---

    def _identifier(
        self, request: RegistrationRequest, profile: NodeProfile, finding: Finding, now: float
    ) -> Status | None:
        return None if request.node else Status.MISSING_MN_IDENTIFIER_OPTION

    def _gateway(
        self, request: RegistrationRequest, profile: NodeProfile, finding: Finding, now: float
    ) -> Status | None:
        name = request.gateway
        allowed = name and (profile.gateways is None or name in profile.gateways)
        if allowed and (request.care_of is request.source or self._owns(name, request)):
            return None
        return Status.MAG_NOT_AUTHORIZED_FOR_PROXY_REG

    def _owns(self, name: str, request: RegistrationRequest) -> bool:
        """Whether an Alternate Care-of Address is the MAG's own: one that roams may have any."""
        peer = self._door.named(name)
        if peer is None:
            return False
        care_of = request.care_of
        return peer.address is None or care_of in (request.source, peer.address) or care_of in peer.addresses

    def _node(
        self, request: RegistrationRequest, profile: NodeProfile, finding: Finding, now: float
    ) -> Status | None:
        return None if self._profiles.knows(request.node) else Status.NOT_LMA_FOR_THIS_MOBILE_NODE

    def _service(
        self, request: RegistrationRequest, profile: NodeProfile, finding: Finding, now: float
    ) -> Status | None:
        return Status.PROXY_REG_NOT_ENABLED if profile.refused else None

    def _form(
        self, request: RegistrationRequest, profile: NodeProfile, finding: Finding, now: float
    ) -> Status | None:
        # not laid down; here, because a time that cannot be read, or two of them, give no order
        return Status.REASON_UNSPECIFIED if request.ill_formed else None

    def _order(
        self, request: RegistrationRequest, profile: NodeProfile, finding: Finding, now: float
    ) -> Status | None:
        timestamp, number = self.last_said(request, finding)
        if request.timestamp is None:
            if number is None:
                return None
            stale = (number - request.update.sequence_number) % 65536 <= REACH_FOR_A_SEQUENCE
            return Status.SEQUENCE_NUMBER_OUT_OF_WINDOW if stale else None
        if request.timestamp < timestamp:
            return Status.TIMESTAMP_LOWER_THAN_PREV_ACCEPTED  # before the window: the MAG may try again at once
        return None if self.in_order(request.timestamp, timestamp, now) else Status.TIMESTAMP_MISMATCH

    def _families(
        self, request: RegistrationRequest, profile: NodeProfile, finding: Finding, now: float
    ) -> Status | None:
        if request.impossible_prefix:
            return Status.NOT_AUTHORIZED_FOR_HOME_NETWORK_PREFIX
        asks_ipv4 = request.asks_ipv4
        if not request.prefix_options and not asks_ipv4:
            return Status.MISSING_HOME_NETWORK_PREFIX_OPTION
        if request.prefix_options and not profile.ipv6:
            return Status.NOT_AUTHORIZED_FOR_IPV6_MOBILITY_SERVICE
        if not asks_ipv4:
            return None
        if not profile.ipv4:
            return Status.NOT_AUTHORIZED_FOR_IPV4_MOBILITY_SERVICE
        if len(request.all(Ipv4HomeAddressRequest)) > 1:
            return Status.MULTIPLE_IPV4_HOME_ADDRESS_ASSIGNMENT_NOT_SUPPORTED
        here = self._settings.ipv4_pools or profile.ipv4_address is not None
        return None if here else Status.NOT_AUTHORIZED_FOR_IPV4_MOBILITY_SERVICE

    def _handoff(
        self, request: RegistrationRequest, profile: NodeProfile, finding: Finding, now: float
    ) -> Status | None:
        return None if HandoffIndicatorOption in request.found else Status.MISSING_HANDOFF_INDICATOR_OPTION

    def _technology(
        self, request: RegistrationRequest, profile: NodeProfile, finding: Finding, now: float
    ) -> Status | None:
        return None if AccessTechnologyTypeOption in request.found else Status.MISSING_ACCESS_TECH_TYPE_OPTION

    # --- of later RFCs: their order is not laid down ---

    def _selected_service(
        self, request: RegistrationRequest, profile: NodeProfile, finding: Finding, now: float
    ) -> Status | None:
        if profile.services is None or ServiceSelection not in request.found:
            return None
        allowed = service_of(request) in profile.services
        return None if allowed else Status.SERVICE_AUTHORIZATION_FAILED

    def _tunnel(
        self, request: RegistrationRequest, profile: NodeProfile, finding: Finding, now: float
    ) -> Status | None:
        # a de-registration should leave the option out (RFC 5845 4.2)
        missing = GreKey not in request.found and not request.in_udp
        if self._settings.gre_keys and missing and request.update.lifetime:
            return Status.GRE_KEY_OPTION_REQUIRED
        forced = request.has_flag(FORCED_UDP)
        return Status.ADMINISTRATIVELY_PROHIBITED if forced and not self._settings.accept_forced_udp else None

    def _delegation(
        self, request: RegistrationRequest, profile: NodeProfile, finding: Finding, now: float
    ) -> Status | None:
        if profile.delegation or not request.delegations:
            return None
        return Status.NOT_AUTHORIZED_FOR_DELEGATED_MNP

    def _multipath(
        self, request: RegistrationRequest, profile: NodeProfile, finding: Finding, now: float
    ) -> Status | None:
        if MagMultipathBinding not in request.found:
            return None
        if not (self._settings.multipath and profile.multipath):
            return Status.CANNOT_SUPPORT_MULTIPATH_BINDING
        if request.multipath is None:  # without a MAG Identifier: a request for one path
            return None
        overwrites = request.wants(OVERWRITE)
        senseless = overwrites and (request.wants(BULK) or request.update.lifetime == 0)
        reserved = request.binding_id in RESERVED_BINDING_IDS
        return Status.REASON_UNSPECIFIED if senseless or reserved else None


def is_bulk_extension(request: RegistrationRequest) -> bool:
    """Whether it extends a group of sessions instead of one: a group and no node (RFC 6602 5.1.3)."""
    return not request.node and MobileNodeGroupIdentifier in request.found and not request.has_flag(BULK_UPDATE)


def service_of(request: RegistrationRequest) -> str:
    """The service it selects, "" if it selects none (RFC 5149)."""
    option = request.get(ServiceSelection)
    return option.identifier.decode("utf-8", "replace") if option is not None else ""


def _could_be_its(session: MobilitySession, request: RegistrationRequest) -> bool:
    return (
        session.gateway == request.gateway
        and session.technology == request.technology
        and session.link_layer == request.link_layer
    )


Check = Callable[[ProxyChecks, RegistrationRequest, NodeProfile, Finding, float], Status | None]
CHECKS: tuple[Check, ...] = (
    ProxyChecks._identifier,
    ProxyChecks._gateway,
    ProxyChecks._node,
    ProxyChecks._service,
    ProxyChecks._form,
    ProxyChecks._order,
    ProxyChecks._families,
    ProxyChecks._handoff,
    ProxyChecks._technology,
    ProxyChecks._selected_service,
    ProxyChecks._tunnel,
    ProxyChecks._delegation,
    ProxyChecks._multipath,
)
